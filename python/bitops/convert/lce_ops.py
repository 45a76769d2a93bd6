"""The operators of Larq Compute Engine and of TFLite: what each does to a traced tensor.

Those that ONNX has too are handed on to its handlers, with their settings named as there.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from ..ops.geometry import Pair
from .calls import Call, Handler
from .convolutions import convolved
from .lce_file import FLOAT32, INT32
from .onnx_ops import HANDLERS as ONNX
from .steps import Levels, Map, Pool, Sides
from .tensors import Tensor, multiply, output_size, same_padding

_LARGEST = 2**31 - 1
_WORD = 32  # bits in a word of packed bits; a bit 1 stands for -1
_SAME, _VALID = 0, 1  # of the enum Padding
_NONE, _RELU, _RELU_N1_TO_1, _RELU6, _TANH = range(5)  # of the enum ActivationFunctionType
_NO_PADDING: Sides = ((0, 0), (0, 0))


def _as_onnx(call: Call, op: str, **attributes: Any) -> Tensor:
    """Do what an operator of ONNX does with the same inputs and these attributes."""
    return ONNX[op](replace(call, node=replace(call.node, attributes=attributes)))


def _option(call: Call, name: str, low: int = 1) -> int:
    value = call.attribute(name)
    if not isinstance(value, int) or not low <= value <= _LARGEST:
        raise call.node.refuse(f"its option {name} must be an integer >= {low}, got {value!r}")
    return value


def _pair(call: Call, name: str) -> Pair:
    """Return the options of a name for height and width, such as stride_{}."""
    return _option(call, name.format("height")), _option(call, name.format("width"))


def _activated(call: Call, y: Tensor, kind: int | None = None) -> Tensor:
    """Apply the activation that an operator ends with."""
    source = str(call.node)
    kind = call.attribute("fused_activation_function", _NONE) if kind is None else kind
    if kind == _NONE:
        return y
    if kind == _RELU:
        return y.add(Map(source, "relu"))
    if kind == _TANH:
        return y.add(Map(source, "tanh"))
    limits = {_RELU_N1_TO_1: (-1.0, 1.0), _RELU6: (0.0, 6.0)}
    if kind not in limits:
        raise call.node.refuse(f"its activation {kind} is not supported")
    return y.add(Map(source, "clip", limits[kind]))


def _activation(kind: int) -> Handler:
    return lambda call: _activated(call, call.tensor(), kind)


def _same_in_onnx(op: str) -> Handler:
    return lambda call: _activated(call, _as_onnx(call, op))


# Windows


def _check_images(call: Call, x: Tensor) -> None:
    if x.axes != "nhwc":
        raise call.node.refuse(f"its input must be images (n, h, w, c), got axes {x.axes!r}")


def _padding(call: Call, x: Tensor, kernel: Pair, stride: Pair, dilation: Pair) -> Sides:
    mode = _option(call, "padding", _SAME)
    if mode not in (_SAME, _VALID):
        raise call.node.refuse(f"its padding must be SAME or VALID, got {mode}")
    return same_padding(call.node, x, kernel, stride, dilation) if mode == _SAME else _NO_PADDING


def _convolved(call: Call, x: Tensor, w: np.ndarray, groups: int, pad_value: float = 0.0) -> Tensor:
    """Convolve with filters (o, kh, kw, i / groups)."""
    _check_images(call, x)
    kernel = w.shape[1], w.shape[2]
    stride, dilation = _pair(call, "stride_{}"), _pair(call, "dilation_{}_factor")
    padding = _padding(call, x, kernel, stride, dilation)
    return convolved(call.node, x, w, groups, stride, padding, dilation, pad_value)


def _filters(call: Call, kind: type) -> np.ndarray:
    w = call.needed(1)
    if w.ndim != 4 or w.dtype != kind or 0 in w.shape:
        raise call.node.refuse(
            f"its weights must have four axes of {np.dtype(kind)}, got shape {w.shape} of {w.dtype}"
        )
    return w


def _biased(call: Call, y: Tensor) -> Tensor:
    bias = call.constant(2)
    return y if bias is None else y.affine(call.node, 1.0, y.per_feature(call.node, bias))


def _conv(call: Call) -> Tensor:
    x, w = call.tensor(), _filters(call, np.float32).astype(np.float64)
    if x.axes == "n11c" and w.shape[1:3] == (1, 1):  # of one pixel, as behind a mean
        rows = call.on(replace(x, axes="nc"))
        y = _as_onnx(replace(rows, constants=_with(rows, 1, w[:, 0, 0])), "Gemm", transB=1)
        return _activated(call, replace(y, axes="n11c"))
    channels = x.features(call.node)
    if channels % w.shape[3]:
        raise call.node.refuse(f"filters {w.shape} do not fit {channels} channels")
    return _activated(call, _biased(call, _convolved(call, x, w, channels // w.shape[3])))


def _with(call: Call, i: int, value: np.ndarray) -> dict[str, np.ndarray]:
    """Return the constants, one of them replaced."""
    return {**call.constants, call.node.inputs[i]: value}


def _depthwise_conv(call: Call) -> Tensor:
    x, w = call.tensor(), _filters(call, np.float32).astype(np.float64)
    if len(w) != 1:
        raise call.node.refuse(f"its weights must be (1, kh, kw, o), got {w.shape}")
    y = _convolved(call, x, w.transpose(3, 1, 2, 0), x.features(call.node))
    return _activated(call, _biased(call, y))


def _pool(kind: str) -> Handler:
    def handler(call: Call) -> Tensor:
        node, x = call.node, call.tensor()
        _check_images(call, x)
        kernel, stride = _pair(call, "filter_{}"), _pair(call, "stride_{}")
        padding = _padding(call, x, kernel, stride, (1, 1))
        if kind == "avg" and padding != _NO_PADDING:
            raise node.refuse("padding that does not count is not supported in a mean")
        image = output_size(node, x, kernel, stride, padding, (1, 1))
        y = x.add(Pool(str(node), kind, kernel, stride, padding), sizes=(*image, x.sizes[-1]))
        return _activated(call, y)

    return handler


# Larq Compute Engine


def _quantize(call: Call) -> Tensor:
    x = call.tensor()
    zero, values = np.zeros((1, 1), np.float32), np.array([-1.0, 1.0])
    return x.add(Levels(str(call.node), x.features(call.node), zero, values))


def _dequantize(call: Call) -> Tensor:
    x, shape = _bits(call), call.attribute("output_shape")
    if not shape or shape[-1] != x.features(call.node):
        raise call.node.refuse(f"its output must have {x.features(call.node)} features: {shape}")
    return x


def _bits(call: Call) -> Tensor:
    """Return the first input, which must be bits."""
    x = call.tensor()
    trace = x.trace
    while isinstance(trace.step, Pool) and trace.step.kind == "max" and trace.before is not None:
        trace = trace.before
    if not isinstance(trace.step, Levels):
        raise call.node.refuse("its input must be bits")
    return x


def _binary_max_pool(call: Call) -> Tensor:
    _bits(call)
    return _pool("max")(call)


def _binary_conv(call: Call) -> Tensor:
    node, x = call.node, _bits(call)
    channels, pad_value = _option(call, "channels_in"), _option(call, "pad_values", 0)
    words = _filters(call, np.int32)
    if channels != x.features(node) or pad_value > 1:
        raise node.refuse(
            f"its input must have {channels} channels and be padded with 0 or 1, "
            f"got {x.features(node)} and {pad_value}"
        )
    all_words, group_words = -(-channels // _WORD), words.shape[3]
    groups = all_words // group_words
    if groups * group_words != all_words or (groups > 1 and channels % (groups * _WORD)):
        raise node.refuse(f"filters of {group_words} words do not fit {channels} channels")
    w = _unpacked(words, channels // groups)
    y = _convolved(call, x, w, groups, float(pad_value))
    if pad_value == 0:
        _remark_wide_windows(call, x, w)
    if call.attribute("output_type") == INT32:
        return _compared(call, y, w[0].size)
    if call.attribute("output_type") != FLOAT32:
        raise node.refuse("its output must be float32 or bits; 8-bit numbers are not supported")
    y = _activated(call, y)  # of the integers, before they are multiplied
    multiplier, bias = (y.per_feature(node, call.needed(i)) for i in (2, 3))
    return y.affine(node, multiplier, bias)


def _remark_wide_windows(call: Call, x: Tensor, w: np.ndarray) -> None:
    """Say where the interpreter does not compute what the file says.

    Its usual kernel pads with ones, and then corrects the borders by a table that takes windows to
    be within the image. Without padding no window is larger.
    """
    image, dilation = x.sizes[:2], _pair(call, "dilation_{}_factor")
    window = tuple((k - 1) * d + 1 for k, d in zip(w.shape[1:3], dilation, strict=True))
    if any(size is not None and size < k for size, k in zip(image, window, strict=True)):
        call.remarks.append(
            f"{call.node}: its windows {window} are larger than the image {image}, whose zero "
            f"padding the interpreter's usual kernel gets wrong"
        )


def _unpacked(words: np.ndarray, count: int) -> np.ndarray:
    """Return the +-1 of words along the last axis, int8."""
    as_bytes = np.ascontiguousarray(words.astype("<i4")).view(np.uint8)
    bits = np.unpackbits(as_bytes, axis=-1, count=count, bitorder="little").view(np.int8)
    return 1 - 2 * bits


def _compared(call: Call, y: Tensor, terms: int) -> Tensor:
    """Compare the number of different bits with thresholds: more of them give -1."""
    thresholds = call.needed(4)
    if thresholds.shape != (y.features(call.node),) or thresholds.dtype != np.int32:
        raise call.node.refuse(
            f"its thresholds must be {y.features(call.node)} integers, got {thresholds.shape}"
        )
    # from -1, which gives always -1, to the number of terms, which gives always +1
    most = np.clip(thresholds.astype(np.int64), -1, terms)
    limit = (terms - 2 * most).astype(np.float32)[:, np.newaxis]  # dot = terms - 2 * different
    return y.add(Levels(str(call.node), len(limit), limit, np.array([-1.0, 1.0])))


# Other operators


def _fully_connected(call: Call) -> Tensor:
    if call.attribute("weights_format", 0):
        raise call.node.refuse("its weights must be in the usual order")
    x = call.tensor()
    if x.axes != "nc":  # it takes all of an example as a row
        x = _as_onnx(call, "Flatten")
    return _activated(call, _as_onnx(call.on(x), "Gemm", transB=1))


def _reshape(call: Call) -> Tensor:
    if len(call.node.inputs) > 1:
        return _as_onnx(call, "Reshape", shape=call.needed(1).tolist())
    return _as_onnx(call, "Reshape", shape=call.attribute("new_shape", ()))


def _squeeze(call: Call) -> Tensor:
    axes = call.attribute("squeeze_dims", ())
    return _as_onnx(call, "Squeeze", **({"axes": axes} if len(axes) else {}))


def _mean(call: Call) -> Tensor:
    return _as_onnx(call, "ReduceMean", keepdims=int(call.attribute("keep_dims", False)))


def _pad(call: Call) -> Tensor:
    pads = call.needed(1)
    if pads.ndim != 2 or pads.shape[1] != 2:
        raise call.node.refuse(f"its paddings must be pairs, got shape {pads.shape}")
    return _as_onnx(call, "Pad", pads=pads.T.ravel())


def _concatenate(call: Call) -> Tensor:
    axis = _option(call, "axis", -8)
    return _activated(call, _as_onnx(call, "Concat", axis=axis))


def _softmax(call: Call) -> Tensor:
    x = call.tensor().affine(call.node, call.attribute("beta", 0.0), 0.0)
    return _as_onnx(call.on(x), "Softmax", axis=-1)


def _hard_swish(call: Call) -> Tensor:
    """x * min(max(x + 3, 0), 6) / 6."""
    x = call.tensor()
    gate = x.affine(call.node, 1.0, 3.0).add(Map(str(call.node), "clip", (0.0, 6.0)))
    return multiply(call.node, x, gate).affine(call.node, 1 / 6, 0.0)


def _leaky_relu(call: Call) -> Tensor:
    return _as_onnx(call, "LeakyRelu", alpha=call.attribute("alpha", 0.0))


def _of_floats(handler: Handler) -> Handler:
    """Refuse inputs other than float32; constants such as axes are checked by their handlers."""

    def checked(call: Call) -> Tensor:
        for name, kind in zip(call.node.inputs, call.attribute("input_types"), strict=True):
            if name in call.tensors and kind != FLOAT32:
                raise call.node.refuse("its input must be float32, not bits or quantized")
        return handler(call)

    return checked


_FLOAT_HANDLERS: dict[str, Handler] = {
    "ADD": _same_in_onnx("Add"),
    "AVERAGE_POOL_2D": _pool("avg"),
    "CONCATENATION": _concatenate,
    "CONV_2D": _conv,
    "DEPTHWISE_CONV_2D": _depthwise_conv,
    "DIV": _same_in_onnx("Div"),
    "FULLY_CONNECTED": _fully_connected,
    "HARD_SWISH": _hard_swish,
    "LEAKY_RELU": _leaky_relu,
    "LOGISTIC": _same_in_onnx("Sigmoid"),
    "LceQuantize": _quantize,
    "MAXIMUM": _same_in_onnx("Max"),
    "MAX_POOL_2D": _pool("max"),
    "MEAN": _mean,
    "MINIMUM": _same_in_onnx("Min"),
    "MUL": _same_in_onnx("Mul"),
    "NEG": _same_in_onnx("Neg"),
    "PAD": _pad,
    "PADV2": _pad,
    "PRELU": _same_in_onnx("PRelu"),
    "RELU": _activation(_RELU),
    "RELU6": _activation(_RELU6),
    "RELU_N1_TO_1": _activation(_RELU_N1_TO_1),
    "RESHAPE": _reshape,
    "SOFTMAX": _softmax,
    "SQUEEZE": _squeeze,
    "SUB": _same_in_onnx("Sub"),
    "TANH": _activation(_TANH),
}

HANDLERS: dict[str, Handler] = {
    **{name: _of_floats(handler) for name, handler in _FLOAT_HANDLERS.items()},
    "LceBMaxPool2d": _binary_max_pool,
    "LceBconv2d": _binary_conv,
    "LceDequantize": _dequantize,
}
