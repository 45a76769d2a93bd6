"""Traces a graph from its input to its output, node by node.

The operators are those of ONNX, unless others are given.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import numpy as np

from . import onnx_ops, onnx_quant
from .calls import Call, Handler
from .constants import fold_constants
from .errors import ConversionError
from .graph import Graph, Node
from .tensors import COUNTED, Tensor, refuse_giants
from .traces import Trace

HANDLERS: dict[str, Handler] = {**onnx_ops.HANDLERS, **onnx_quant.HANDLERS}

# Operators that need NCHW; the first of them tells how the input is laid out.
_MINDS_LAYOUT = {
    "AveragePool",
    "BatchNormalization",
    "Conv",
    "Flatten",
    "GlobalAveragePool",
    "GlobalMaxPool",
    "MaxPool",
    "Reshape",
}

# At the end of a graph they choose among scores, which the packed network returns instead.
_CHOICES = ("TopK", "ArgMax")


def trace(
    graph: Graph, handlers: Mapping[str, Handler] = HANDLERS
) -> tuple[Tensor, Tensor, list[str]]:
    """Trace a graph; return its output, its input, and remarks."""
    name, start = start_of(graph)
    remarks: list[str] = []
    tensors: dict[str, Tensor] = {name: start}
    constants: dict[str, np.ndarray] = dict(graph.constants)
    result = graph.outputs[0]
    used = {name for node in graph.nodes for name in node.inputs} | set(graph.outputs)
    for node in graph.needed():
        if node.op in _CHOICES and not node.domain and set(node.outputs) & set(graph.outputs):
            result = node.inputs[0]
            remarks.append(f"{node} is left out: predict() chooses among the scores")
            continue
        call = Call(node, tensors, constants, graph.opset, remarks)
        with _refusing(node):
            if node.op == "Shape" and not node.domain and node.inputs[0] in tensors:
                constants[node.outputs[0]] = _shape_of(node, tensors[node.inputs[0]])
            elif not any(value in tensors for value in node.inputs):
                value = fold_constants(node, call.constant_inputs(), graph.opset)
                constants[node.outputs[0]] = value
            else:
                tensors[node.outputs[0]] = _handler(node, handlers)(call)
                call.refuse_used_outputs(used)
    if result not in tensors:
        raise graph.refuse(f"the output {result!r} does not depend on the input")
    if COUNTED in tensors[result].axes:
        raise graph.refuse(f"the comparisons in {result!r} must be counted")
    return tensors[result], start, remarks


@contextmanager
def _refusing(node: Node) -> Iterator[None]:
    """Refuse a node whose attributes or inputs are not what its operator takes.

    The checker of onnx does not look at the types of attributes, nor at sizes.
    """
    try:
        yield
    except ConversionError:
        raise
    except IndexError:
        raise node.refuse("it names an axis that its input does not have") from None
    except (KeyError, OverflowError, TypeError, ValueError) as error:
        raise node.refuse(f"its attributes and inputs do not fit each other: {error}") from None


def _handler(node: Node, handlers: Mapping[str, Handler]) -> Handler:
    handler = handlers.get(node.op)
    if handler is None:
        raise node.refuse("the operator is not supported")
    if node.domain and node.op not in onnx_quant.HANDLERS:
        raise node.refuse(f"the domain {node.domain} is not supported")
    return handler


def _shape_of(node: Node, tensor: Tensor) -> np.ndarray:
    shape = tensor.shape()
    start = node.attributes.get("start", 0)
    sizes = shape[start : node.attributes.get("end", len(shape))]
    if None in sizes:
        raise node.refuse(f"the size of the image must be known, got {shape}")
    return np.array(sizes, np.int64)


def start_of(graph: Graph) -> tuple[str, Tensor]:
    """Return the name of the input, and the tensor it is: channels first unless they are moved.

    Sequences are images of height 1, without an axis for it in the graph.
    """
    if len(graph.inputs) != 1:
        raise graph.refuse(
            f"the network must have one input, got {', '.join(graph.inputs) or 'none'}"
        )
    ((name, shape),) = graph.inputs.items()
    batch, *sizes = shape or (None,)
    refuse_giants(f"input {name!r}", sizes)
    if min((size for size in sizes if size is not None), default=1) < 1:
        raise graph.refuse(f"the sizes of the input {name!r} must be positive, got {list(shape)}")
    if len(sizes) == 1:
        return name, Tensor(Trace(), (sizes[0],), "nc", batch=batch)
    if len(sizes) not in (2, 3):
        raise graph.refuse(
            f"the input {name!r} must be rows (n, features), sequences of 3 axes or images of 4, "
            f"got shape {list(shape)}"
        )
    own_axes = "hwc" if len(sizes) == 3 else "wc"
    axes = own_axes if _is_channels_last(graph, name) else "c" + own_axes[:-1]
    own = {"h": 1, **dict(zip(axes, sizes, strict=True))}
    if own["c"] is None:
        raise graph.refuse(f"the channels of the input {name!r} must be known")
    return name, Tensor(Trace(), (own["h"], own["w"], own["c"]), "n" + axes, batch=batch)


def _is_channels_last(graph: Graph, name: str) -> bool:
    """Return whether the input says so, or the first node that minds the order changes it."""
    if name in graph.channels_last:
        return True
    names = {name}
    for node in graph.nodes:
        if not names & set(node.inputs):
            continue
        if node.op == "Transpose":
            return list(node.attributes.get("perm", ())) in ([0, 3, 1, 2], [0, 2, 1])
        if node.op in _MINDS_LAYOUT:
            return False
        names |= set(node.outputs)
    return False
