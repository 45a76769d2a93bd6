"""Computes the nodes of an ONNX graph whose inputs are all known."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from .graph import BATCH, Node
from .onnx_file import import_onnx
from .quantization import bipolar_values, quantized

# Operators that only move numbers: a size of the batch among them stays what it is.
_MOVES = frozenset(
    "Cast Concat Flatten Gather Identity Reshape Slice Squeeze Transpose Unsqueeze".split()
)
_COMPUTES = frozenset(
    "Abs Add Ceil Clip Constant ConstantOfShape Div Equal Exp Expand Floor Greater GreaterOrEqual "
    "Less LessOrEqual Log MatMul Max Min Mul Neg Not Pad Pow Range Reciprocal ReduceL1 "
    "ReduceL2 ReduceMax ReduceMean ReduceMin ReduceProd ReduceSum Relu Round Shape Sign Sqrt Sub "
    "Tile Where".split()
)
_GROWING = frozenset("ConstantOfShape Expand Pad Range Tile".split())
_MOST_ELEMENTS = 2**24


def fold_constants(node: Node, inputs: list[np.ndarray | None], opset: int) -> np.ndarray:
    """Return the output of a node with these inputs; None stands for an input left out.

    Raises
    ------
    ConversionError
        If the operator is not known, or cannot take the inputs.
    """
    if node.op in ("Quant", "IntQuant", "BipolarQuant") and node.domain:
        return _fold_quant(node, inputs)
    if node.domain or node.op not in _MOVES | _COMPUTES:
        raise node.refuse("the operator is not supported for constants")
    if node.op in ("ConstantOfShape", "Expand"):  # the same for all examples, so one is enough
        inputs = [None if value is None else _one_example(value) for value in inputs]
    if node.op not in _MOVES and any(_has_batch(value) for value in inputs):
        raise node.refuse("it computes with the size of the batch, which must stay open")
    _refuse_giants(node, inputs)
    return _evaluate(node, inputs, opset)


def _one_example(value: np.ndarray) -> np.ndarray:
    return np.where(value == BATCH, 1, value) if _has_batch(value) else value


def _has_batch(value: np.ndarray | None) -> bool:
    return value is not None and value.dtype.kind == "i" and bool((value == BATCH).any())


def _fold_quant(node: Node, inputs: list[np.ndarray | None]) -> np.ndarray:
    x, *settings = (np.asarray(value, np.float64) for value in inputs if value is not None)
    if node.op == "BipolarQuant":
        return bipolar_values(x, settings[0])
    return quantized(node, x, *settings)


def _refuse_giants(node: Node, inputs: list[np.ndarray | None]) -> None:
    """Refuse results that are much larger than what the file holds."""
    if node.op not in _GROWING:
        return
    given = [value for value in inputs if value is not None]
    numbers = [value.astype(np.float64) for value in given if value.dtype.kind in "if"]
    size = math.prod(float(abs(n)) + 1 for value in numbers[-1:] for n in value.ravel()[:16])
    if node.op in ("Tile", "Pad"):
        size = max(size, 1) * max(value.size for value in given)
    if node.op == "Range":
        size = abs(float(given[1]) - float(given[0])) / max(abs(float(given[2])), 1e-9)
    if not size <= _MOST_ELEMENTS:
        raise node.refuse(f"its result would have more than {_MOST_ELEMENTS} elements")


def _evaluate(node: Node, inputs: list[np.ndarray | None], opset: int) -> np.ndarray:
    """Run one node by the reference implementation that comes with onnx."""
    onnx = import_onnx()
    helper = onnx.helper
    names = [f"x{i}" if value is not None else "" for i, value in enumerate(inputs)]
    attributes: dict[str, Any] = {
        name: onnx.numpy_helper.from_array(value) if isinstance(value, np.ndarray) else value
        for name, value in node.attributes.items()
    }
    proto = helper.make_node(node.op, names, ["y"], **attributes)
    types = [
        helper.make_tensor_value_info(
            name, helper.np_dtype_to_tensor_dtype(value.dtype), value.shape
        )
        for name, value in zip(names, inputs, strict=True)
        if value is not None
    ]
    result = helper.make_tensor_value_info("y", onnx.TensorProto.UNDEFINED, None)
    graph = helper.make_graph([proto], "node", types, [result])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])
    from onnx.reference import ReferenceEvaluator

    feeds = {name: value for name, value in zip(names, inputs, strict=True) if name}
    try:
        with np.errstate(all="ignore"):  # infinities may be on the way, as in 2 ** log2(0)
            (value,) = ReferenceEvaluator(model).run(None, feeds)
    except Exception as error:  # whatever NumPy says of operands that do not fit
        raise node.refuse(f"it cannot be computed: {error}") from None
    return np.asarray(value)
