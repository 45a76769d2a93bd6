"""The products of ONNX with constant weights."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from .calls import Call, Handler
from .convolutions import convolved
from .graph import Node
from .onnx_windows import also_of_sequences, check_images, padding_of, pair_of
from .steps import Dense
from .tensors import Tensor


def _matmul(call: Call) -> Tensor:
    if call.is_tensor(1):
        raise call.node.refuse("its second input must be constant weights")
    w = call.needed(1)
    if w.ndim != 2:
        raise call.node.refuse(f"its weights must have two axes, got shape {w.shape}")
    return _dense(call, w.T)


def _gemm(call: Call) -> Tensor:
    node = call.node
    if call.attribute("transA", 0):
        raise node.refuse("transA is not supported")
    w = np.asarray(call.needed(1), np.float64)
    if w.ndim != 2:
        raise node.refuse(f"its weights must have two axes, got shape {w.shape}")
    x = _dense(call, (w if call.attribute("transB", 0) else w.T) * call.attribute("alpha", 1.0))
    bias = call.constant(2)
    if bias is None:
        return x
    return x.affine(node, 1.0, call.attribute("beta", 1.0) * x.per_feature(node, bias))


def _dense(call: Call, w: np.ndarray) -> Tensor:
    """Multiply by weights (out_features, in_features) of the graph."""
    node, x = call.node, call.tensor()
    if x.axes[-1] != "c" or "1" in x.axes:
        raise node.refuse(f"the last axis of its input must be that of the features: {x.axes!r}")
    if w.shape[1] != x.features(node):
        raise node.refuse(f"its weights take {w.shape[1]} features, got {x.features(node)}")
    w = _finite(node, w)
    own = x.arranged(w.T).T
    return x.add(Dense(str(node), own), sizes=(*x.sizes[:-1], len(w)), order=None)


def _finite(node: Node, w: np.ndarray) -> np.ndarray:
    w = np.asarray(w, np.float64)
    if not w.size or not np.isfinite(w).all():
        raise node.refuse("its weights must be finite, and not empty")
    return w


def _conv(call: Call) -> Tensor:
    node, x = call.node, call.tensor()
    w = _finite(node, call.needed(1))
    groups = call.attribute("group", 1)
    if w.ndim != 4:
        raise node.refuse(
            f"only convolutions of one or two axes are supported, got weights {w.shape}"
        )
    if x.axes == "nc11" and w.shape[2:] == (1, 1) and groups == 1 and not _pads(call, x, w):
        # a convolution of one pixel, as behind a global pool
        rows = replace(x, axes="nc")
        y = replace(_dense(call.on(rows), w[:, :, 0, 0]), axes="nc11")
    else:
        y = _image_conv(call, x, w, groups)
    bias = call.constant(2)
    return y if bias is None else y.affine(node, 1.0, _bias(node, y, bias))


def _bias(node: Node, y: Tensor, bias: np.ndarray) -> np.ndarray:
    if bias.shape != (y.features(node),):
        raise node.refuse(f"its bias must have {y.features(node)} elements, got {bias.shape}")
    return y.arranged(np.asarray(bias, np.float64))


def _image_conv(call: Call, x: Tensor, w: np.ndarray, groups: int) -> Tensor:
    check_images(call.node, x)
    stride, dilation = (pair_of(call, name) for name in ("strides", "dilations"))
    kernel = w.shape[2], w.shape[3]
    padding = padding_of(call, x, kernel, stride, dilation)
    return convolved(call.node, x, w.transpose(0, 2, 3, 1), groups, stride, padding, dilation)


def _pads(call: Call, x: Tensor, w: np.ndarray) -> bool:
    return any(call.attribute("pads", ()))


HANDLERS: dict[str, Handler] = {
    "Conv": also_of_sequences(_conv),
    "Gemm": _gemm,
    "MatMul": _matmul,
}
