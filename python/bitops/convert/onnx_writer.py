"""Builds ONNX graphs: names nodes and constants, and keeps track of the layout of tensors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..layers.inputs import Shape
from .errors import ConversionError
from .onnx_file import import_onnx

OPSET, IR_VERSION = 17, 8
QONNX = "qonnx.custom_op.general"

# Axes of images, as in `Tensor.axes`.
NHWC, NCHW, SEQUENCES, ROWS = "nhwc", "nchw", "nwc", "nc"


@dataclass(frozen=True)
class GraphTensor:
    """A tensor of the graph.

    Attributes
    ----------
    name : str
    axes : {"nhwc", "nchw", "nwc", "nc"}
        Order of its axes in the graph.
    sizes : tuple of int or None
        Those of an example in this package: (h, w, c), (w, c) or (c,).
    kind : {"bits", "units", "codes", "numbers"}
        Its values: +-1, 0 and 1 (bits that stand for them), 0 to `largest`, or any.
    largest : int
        The largest magnitude of bits, units and codes.
    """

    name: str
    axes: str
    sizes: Shape
    kind: str = "numbers"
    largest: int = 1

    @property
    def feature_axis(self) -> int:
        return self.axes.index("c")

    def as_numbers(self) -> GraphTensor:
        return replace(self, kind="numbers")


class GraphWriter:
    """Makes the nodes of a graph.

    Parameters
    ----------
    qonnx : bool
        Whether to use the operators BipolarQuant, Quant and MultiThreshold of QONNX.

    Attributes
    ----------
    scope : str
        The layer whose nodes are being made; the first part of their names.
    """

    def __init__(self, *, qonnx: bool):
        self.qonnx, self.scope = qonnx, ""
        self._onnx = import_onnx()
        self._nodes: list[Any] = []
        self._constants: list[Any] = []
        self._described: dict[str, Any] = {}
        self._names: set[str] = set()

    def constant(self, what: str, value: Any) -> str:
        """Add a constant and return its name."""
        name = self._free(f"{self.scope}.{what}")
        self._constants.append(self._onnx.numpy_helper.from_array(np.asarray(value), name))
        return name

    def node(self, op: str, *inputs: str, domain: str = "", **attributes: Any) -> str:
        """Add a node; return the name of its output, which is that of the node."""
        name = self._free(f"{self.scope}.{op}")
        make = self._onnx.helper.make_node
        self._nodes.append(make(op, [*inputs], [name], name=name, domain=domain, **attributes))
        return name

    def apply(
        self, x: GraphTensor, op: str, *inputs: str, domain: str = "", **attributes: Any
    ) -> GraphTensor:
        """Add a node that keeps the layout of its first input; return its output, numbers."""
        name = self.node(op, x.name, *inputs, domain=domain, **attributes)
        return replace(x, name=name).as_numbers()

    def per_feature(self, x: GraphTensor, what: str, values: np.ndarray | float) -> str:
        """Add float32 numbers, one a feature of x or one for all; return the constant."""
        array = np.asarray(values, np.float32)
        if array.ndim and (array == array[0]).all():
            array = array[0]
        shape = [-1 if axis == "c" else 1 for axis in x.axes]
        return self.constant(what, array.reshape(shape) if array.ndim else array)

    def times(self, x: GraphTensor, what: str, factors: np.ndarray | float | None) -> GraphTensor:
        """Multiply by factors, one a feature or one for all, unless there are none."""
        return x if factors is None else self.apply(x, "Mul", self.per_feature(x, what, factors))

    def plus(self, x: GraphTensor, what: str, terms: np.ndarray | float | None) -> GraphTensor:
        """Add terms, one a feature or one for all, unless there are none."""
        return x if terms is None else self.apply(x, "Add", self.per_feature(x, what, terms))

    def arranged(self, x: GraphTensor, axes: str) -> GraphTensor:
        """Return images with their axes in another order; sequences and rows stay as they are."""
        if x.axes in (axes, SEQUENCES, ROWS):
            return x
        order = [x.axes.index(axis) for axis in axes]
        return replace(x, name=self.node("Transpose", x.name, perm=order), axes=axes)

    def as_kind(self, x: GraphTensor, kind: str) -> GraphTensor:
        """Return bits as +-1 ("bits") or as 0 and 1 ("units"); leave numbers as they are."""
        if x.kind == kind or x.kind not in ("bits", "units"):
            return x
        if kind == "units":
            y = self.times(self.plus(x, "one", 1.0), "half", 0.5)
        else:
            y = self.plus(self.times(x, "two", 2.0), "minus_one", -1.0)
        return replace(y, kind=kind)

    def finish(self, x: GraphTensor) -> GraphTensor:
        """Return the output of the graph: x under this name."""
        self._nodes.append(
            self._onnx.helper.make_node("Identity", [x.name], ["output"], name="output")
        )
        return replace(x, name="output")

    def describe(self, x: GraphTensor) -> None:
        """State the shape of a tensor, for viewers; shapes within a layer are inferred."""
        self._described[x.name] = self._info(x)

    def refuse(self, reason: str) -> ConversionError:
        """Return the error that names the layer."""
        return ConversionError(f"[to_onnx] layer {self.scope}: {reason}")

    def model(self, start: GraphTensor, end: GraphTensor, notes: dict[str, str]) -> Any:
        """Return the checked model of all nodes between two tensors."""
        onnx = self._onnx
        self._described.pop(end.name, None)
        graph = onnx.helper.make_graph(
            self._nodes,
            "bitops",
            [self._info(start)],
            [self._info(end)],
            self._constants,
            value_info=list(self._described.values()),
        )
        domains = ["", QONNX] if self.qonnx else [""]
        opsets = [onnx.helper.make_opsetid(name, 1 if name else OPSET) for name in domains]
        model = onnx.helper.make_model(
            graph, opset_imports=opsets, ir_version=IR_VERSION, producer_name="bitops"
        )
        onnx.helper.set_model_props(model, notes)
        model = onnx.shape_inference.infer_shapes(model)
        onnx.checker.check_model(model)
        return model

    def _info(self, x: GraphTensor) -> Any:
        """Return name, type and shape; the denotation tells images NHWC from NCHW."""
        own = dict(zip("hwc"[-len(x.sizes) :], x.sizes, strict=True))
        shape = ["n" if axis == "n" else own[axis] for axis in x.axes]
        names = {"n": "DATA_BATCH", "c": "DATA_CHANNEL", "h": "DATA_FEATURE", "w": "DATA_FEATURE"}
        return self._onnx.helper.make_tensor_value_info(
            x.name,
            self._onnx.TensorProto.FLOAT,
            shape,
            shape_denotation=[names[axis] for axis in x.axes],
        )

    def _free(self, name: str) -> str:
        """Return a name that is not taken yet."""
        free, count = name, 1
        while free in self._names:
            count += 1
            free = f"{name}_{count}"
        self._names.add(free)
        return free


def smallest_integers(values: np.ndarray) -> np.ndarray:
    """Return whole numbers in the smallest signed dtype that holds them."""
    most = np.abs(values).max()
    kinds: Sequence[type] = (np.int8, np.int16, np.int32)
    return values.astype(next(kind for kind in kinds if most <= np.iinfo(kind).max))
