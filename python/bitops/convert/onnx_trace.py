"""Traces a graph from its input to its output, node by node.

The operators are those of ONNX, unless others are given.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from . import onnx_ops, onnx_quant
from .calls import Call
from .constants import fold_constants
from .graph import Graph, Node
from .tensors import COUNTED, Tensor, refuse_giants
from .traces import Trace

Handler = Callable[[Call], Tensor]
HANDLERS: dict[str, Handler] = {**onnx_ops.HANDLERS, **onnx_quant.HANDLERS}

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
    for node in graph.needed():
        if node.op in _CHOICES and not node.domain and set(node.outputs) & set(graph.outputs):
            result = node.inputs[0]
            remarks.append(f"{node} is left out: predict() chooses among the scores")
            continue
        call = Call(node, tensors, constants, graph.opset, remarks)
        if node.op == "Shape" and not node.domain and node.inputs[0] in tensors:
            constants[node.outputs[0]] = _shape_of(node, tensors[node.inputs[0]])
        elif not any(value in tensors for value in node.inputs):
            constants[node.outputs[0]] = fold_constants(node, call.constant_inputs(), graph.opset)
        else:
            try:
                tensors[node.outputs[0]] = _handler(node, handlers)(call)
            except IndexError:
                raise node.refuse("it names an axis that its input does not have") from None
            call.refuse_used_outputs(graph)
    if result not in tensors:
        raise graph.refuse(f"the output {result!r} does not depend on the input")
    if COUNTED in tensors[result].axes:
        raise graph.refuse(f"the comparisons in {result!r} must be counted")
    return tensors[result], start, remarks


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
    """Return the name of the input, and the tensor it is: images NCHW unless they are turned."""
    if len(graph.inputs) != 1:
        raise graph.refuse(
            f"the network must have one input, got {', '.join(graph.inputs) or 'none'}"
        )
    ((name, shape),) = graph.inputs.items()
    batch, *sizes = shape or (None,)
    refuse_giants(f"input {name!r}", sizes)
    if len(sizes) == 1:
        return name, Tensor(Trace(), (sizes[0],), "nc", batch=batch)
    if len(sizes) != 3:
        raise graph.refuse(
            f"the input {name!r} must be rows (n, features) or images of 4 axes, "
            f"got shape {list(shape)}"
        )
    axes = "nhwc" if _is_nhwc(graph, name) else "nchw"
    own = dict(zip(axes[1:], sizes, strict=True))
    if own["c"] is None:
        raise graph.refuse(f"the channels of the input {name!r} must be known")
    return name, Tensor(Trace(), (own["h"], own["w"], own["c"]), axes, batch=batch)


def _is_nhwc(graph: Graph, name: str) -> bool:
    """Return whether the input says so, or the first node that minds the order makes it NCHW."""
    if name in graph.channels_last:
        return True
    names = {name}
    for node in graph.nodes:
        if not names & set(node.inputs):
            continue
        if node.op == "Transpose":
            return list(node.attributes.get("perm", ())) == [0, 3, 1, 2]
        if node.op in onnx_ops.MINDS_LAYOUT:
            return False
        names |= set(node.outputs)
    return False
