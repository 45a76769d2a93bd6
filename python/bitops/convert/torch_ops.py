"""The functions of PyTorch, each said by an operator of ONNX, which `onnx_ops` traces.

A handler takes what the function takes. Arguments that depend on the input of the network are
Tensors; other tensors are arrays.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from .steps import Map
from .tensors import Tensor
from .torch_calls import Operation

LOG_SOFTMAX = "log_softmax"


Handler = Callable[..., Tensor]
HANDLERS: dict[str, Handler] = {}


def _handles(*names: str) -> Callable[[Handler], Handler]:
    def register(handler: Handler) -> Handler:
        HANDLERS.update(dict.fromkeys(names, handler))
        return handler

    return register


def _each(value: Any, axes: int) -> list[int]:
    """Return a setting of windows for each axis: it may be one number for all."""
    return [value] * axes if isinstance(value, int) else [*value] * (axes if len(value) == 1 else 1)


# Arithmetic


@_handles("add", "iadd", "radd")
def _add(on: Operation, x: Any, other: Any, *, alpha: float = 1) -> Tensor:
    return on("Add", x, other if alpha == 1 else _times(on, other, alpha))


@_handles("sub", "subtract", "isub")
def _sub(on: Operation, x: Any, other: Any, *, alpha: float = 1) -> Tensor:
    return on("Sub", x, other if alpha == 1 else _times(on, other, alpha))


@_handles("rsub")
def _rsub(on: Operation, x: Any, other: Any) -> Tensor:
    return on("Sub", other, x)


def _times(on: Operation, x: Any, factor: float) -> Any:
    return on("Mul", x, factor) if isinstance(x, Tensor) else np.asarray(x) * factor


@_handles("mul", "multiply", "imul", "rmul")
def _mul(on: Operation, x: Any, other: Any) -> Tensor:
    return on("Mul", x, other)


@_handles("div", "divide", "true_divide", "truediv", "idiv", "itruediv")
def _div(on: Operation, x: Any, other: Any, *, rounding_mode: str | None = None) -> Tensor:
    if rounding_mode is not None:
        raise on.refuse(f"rounding_mode must be None, got {rounding_mode!r}")
    return on("Div", on.tensor(x), other)


@_handles("neg", "negative")
def _neg(on: Operation, x: Any) -> Tensor:
    return on("Neg", x)


@_handles("abs", "absolute")
def _abs(on: Operation, x: Any) -> Tensor:
    return on("Abs", x)


# Few values


@_handles("sign", "sgn")
def _sign(on: Operation, x: Any) -> Tensor:
    return on("Sign", x)


def _comparison(op: str) -> Handler:
    def handler(on: Operation, x: Any, other: Any) -> Tensor:
        return on(op, x, other)

    return handler


_handles("gt", "greater")(_comparison("Greater"))
_handles("ge", "greater_equal")(_comparison("GreaterOrEqual"))
_handles("lt", "less")(_comparison("Less"))
_handles("le", "less_equal")(_comparison("LessOrEqual"))


@_handles("logical_not", "invert", "bitwise_not")
def _not(on: Operation, x: Any) -> Tensor:
    return on("Not", x)


@_handles("where")
def _where(on: Operation, condition: Any, yes: Any, no: Any) -> Tensor:
    if isinstance(yes, Tensor) or isinstance(no, Tensor):
        raise on.refuse("it must choose between two constants")
    return on("Where", condition, yes, no)


@_handles("round")
def _round(on: Operation, x: Any, *, decimals: int = 0) -> Tensor:
    if decimals:
        raise on.refuse(f"decimals must be 0, got {decimals}")
    return on("Round", x)


# Activations


@_handles("relu")
def _relu(on: Operation, x: Any, inplace: bool = False) -> Tensor:
    return on("Relu", x)


@_handles("relu6")
def _relu6(on: Operation, x: Any, inplace: bool = False) -> Tensor:
    return on("Clip", x, 0.0, 6.0)


@_handles("hardtanh")
def _hardtanh(
    on: Operation, x: Any, min_val: float = -1, max_val: float = 1, inplace: bool = False
) -> Tensor:
    return on("Clip", x, min_val, max_val)


@_handles("clamp", "clip")
def _clamp(on: Operation, x: Any, min: Any = None, max: Any = None) -> Tensor:
    limits = [low if value is None else value for low, value in ((-math.inf, min), (math.inf, max))]
    if any(np.size(limit) != 1 for limit in limits):
        raise on.refuse("its limits must be the same for all features")
    return on("Clip", x, *limits)


@_handles("clamp_min")
def _clamp_min(on: Operation, x: Any, min: Any) -> Tensor:
    return _clamp(on, x, min)


@_handles("clamp_max")
def _clamp_max(on: Operation, x: Any, max: Any) -> Tensor:
    return _clamp(on, x, None, max)


@_handles("max", "maximum")
def _maximum(on: Operation, x: Any, other: Any) -> Tensor:
    return on("Max", x, _limit(on, other))


@_handles("min", "minimum")
def _minimum(on: Operation, x: Any, other: Any) -> Tensor:
    return on("Min", x, _limit(on, other))


def _limit(on: Operation, other: Any) -> Any:
    if isinstance(other, int):  # torch.max(x, 1) is the largest value along an axis
        raise on.refuse("it is supported only between tensors")
    return other


@_handles("hardsigmoid")
def _hardsigmoid(on: Operation, x: Any, inplace: bool = False) -> Tensor:
    return on("HardSigmoid", x, alpha=1 / 6, beta=0.5)


@_handles("leaky_relu")
def _leaky_relu(
    on: Operation, x: Any, negative_slope: float = 0.01, inplace: bool = False
) -> Tensor:
    return on("LeakyRelu", x, alpha=negative_slope)


@_handles("prelu")
def _prelu(on: Operation, x: Any, weight: Any) -> Tensor:
    slope = np.reshape(weight, (-1,) + (1,) * (len(on.tensor(x).axes) - 2))
    return on("PRelu", x, slope)


@_handles("tanh")
def _tanh(on: Operation, x: Any) -> Tensor:
    return on("Tanh", x)


@_handles("silu")
def _silu(on: Operation, x: Any, inplace: bool = False) -> Tensor:
    return on("Mul", on("Sigmoid", x), x)


@_handles("hardswish")
def _hardswish(on: Operation, x: Any, inplace: bool = False) -> Tensor:
    return on("HardSwish", x)


@_handles("sigmoid")
def _sigmoid(on: Operation, x: Any) -> Tensor:
    return on("Sigmoid", x)


@_handles("softmax")
def _softmax(
    on: Operation, x: Any, dim: int | None = None, dtype: Any = None, *, _stacklevel: int = 3
) -> Tensor:
    return on("Softmax", x, axis=1 if dim is None else dim)


@_handles("log_softmax")
def _log_softmax(
    on: Operation, x: Any, dim: int | None = None, dtype: Any = None, *, _stacklevel: int = 3
) -> Tensor:
    y = _softmax(on, x, dim)
    assert y.trace.before is not None
    return replace(y, trace=y.trace.before).add(Map(str(on.node), LOG_SOFTMAX))


@_handles("dropout", "dropout1d", "dropout2d", "feature_dropout", "alpha_dropout")
def _dropout(
    on: Operation, x: Any, p: float = 0.5, training: bool = True, inplace: bool = False
) -> Tensor:
    if training and p:
        raise on.refuse("it drops features in evaluation too: call it with training=self.training")
    return on.tensor(x)


@_handles("batch_norm")
def _batch_norm(
    on: Operation,
    x: Any,
    running_mean: Any = None,
    running_var: Any = None,
    weight: Any = None,
    bias: Any = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    if training or running_mean is None or running_var is None:
        raise on.refuse(
            "it normalises by the batch itself: running statistics are needed "
            "(track_running_stats=True), and training=False"
        )
    gamma = np.ones_like(running_mean) if weight is None else weight
    beta = np.zeros_like(running_mean) if bias is None else bias
    return on("BatchNormalization", x, gamma, beta, running_mean, running_var, epsilon=eps)


@_handles("plain_batch_norm")
def _plain_batch_norm(
    on: Operation,
    x: Any,
    weight: Any,
    bias: Any,
    running_mean: Any,
    running_var: Any,
    training: bool,
    momentum: float,
    eps: float,
    cudnn_enabled: bool,
) -> Tensor:
    """torch.batch_norm, which torch.nn.functional.batch_norm calls."""
    return _batch_norm(on, x, running_mean, running_var, weight, bias, training, momentum, eps)


# Products


@_handles("linear")
def _linear(on: Operation, x: Any, weight: Any, bias: Any = None) -> Tensor:
    return on("Gemm", on.tensor(x), on.weights(weight), bias, transB=1)


@_handles("matmul", "mm")
def _matmul(on: Operation, x: Any, other: Any) -> Tensor:
    if isinstance(other, Tensor) or np.ndim(other) != 2:
        raise on.refuse("its second operand must be constant weights of two axes")
    return on("MatMul", on.tensor(x), on.weights(np.transpose(other)).T)


@_handles("addmm")
def _addmm(
    on: Operation, bias: Any, x: Any, other: Any, *, beta: float = 1, alpha: float = 1
) -> Tensor:
    product = _times(on, _matmul(on, x, other), alpha)
    return on("Add", product, _times(on, bias, beta))


def _convolution(axes: int) -> Handler:
    def handler(
        on: Operation,
        x: Any,
        weight: Any,
        bias: Any = None,
        stride: Any = 1,
        padding: Any = 0,
        dilation: Any = 1,
        groups: int = 1,
    ) -> Tensor:
        w = on.weights(weight)
        dilations = _each(dilation, axes)
        if padding == "same":
            pads = _same_pads(w, dilations)
        else:
            pads = [0] * 2 * axes if padding == "valid" else _each(padding, axes) * 2
        settings = {"strides": _each(stride, axes), "dilations": dilations, "group": groups}
        return on("Conv", on.tensor(x), w, bias, pads=pads, **settings)

    return handler


def _same_pads(w: np.ndarray, dilation: Sequence[int]) -> list[int]:
    totals = [d * (k - 1) for k, d in zip(w.shape[2:], dilation, strict=True)]
    return [total // 2 for total in totals] + [total - total // 2 for total in totals]


_handles("conv1d")(_convolution(1))
_handles("conv2d")(_convolution(2))


# Pools


def _max_pool(axes: int) -> Handler:
    def handler(
        on: Operation,
        x: Any,
        kernel_size: Any,
        stride: Any = None,
        padding: Any = 0,
        dilation: Any = 1,
        ceil_mode: bool = False,
        return_indices: bool = False,
    ) -> Tensor:
        settings = _windows(axes, kernel_size, stride, padding, ceil_mode)
        return on("MaxPool", x, dilations=_each(dilation, axes), **settings)

    return handler


def _average_pool(axes: int) -> Handler:
    def handler(
        on: Operation,
        x: Any,
        kernel_size: Any,
        stride: Any = None,
        padding: Any = 0,
        ceil_mode: bool = False,
        count_include_pad: bool = True,
        divisor_override: int | None = None,
    ) -> Tensor:
        if divisor_override is not None:
            raise on.refuse("divisor_override is not supported")
        settings = _windows(axes, kernel_size, stride, padding, False)
        if ceil_mode and on("AveragePool", x, count_include_pad=1, **settings).sizes != (
            on("AveragePool", x, count_include_pad=1, **{**settings, "ceil_mode": 1}).sizes
        ):
            raise on.refuse("windows beyond the image, which ceil_mode makes, are not supported")
        return on("AveragePool", x, count_include_pad=int(count_include_pad), **settings)

    return handler


def _windows(
    axes: int, kernel_size: Any, stride: Any, padding: Any, ceil_mode: bool
) -> dict[str, Any]:
    kernel = _each(kernel_size, axes)
    strides = _each(stride, axes) if stride not in (None, [], ()) else kernel
    return {
        "kernel_shape": kernel,
        "strides": strides,
        "pads": _each(padding, axes) * 2,
        "ceil_mode": int(ceil_mode),
    }


_handles("max_pool1d")(_max_pool(1))
_handles("max_pool2d")(_max_pool(2))
_handles("avg_pool1d")(_average_pool(1))
_handles("avg_pool2d")(_average_pool(2))


@_handles("adaptive_avg_pool1d", "adaptive_avg_pool2d")
def _adaptive_avg_pool(on: Operation, x: Any, output_size: Any) -> Tensor:
    window = _adaptive_window(on, x, output_size)
    if window is None:
        return on("GlobalAveragePool", x)
    return on("AveragePool", x, kernel_shape=window, strides=window)


@_handles("adaptive_max_pool1d", "adaptive_max_pool2d")
def _adaptive_max_pool(
    on: Operation, x: Any, output_size: Any, return_indices: bool = False
) -> Tensor:
    window = _adaptive_window(on, x, output_size)
    if window is None:
        return on("GlobalMaxPool", x)
    return on("MaxPool", x, kernel_shape=window, strides=window)


def _adaptive_window(on: Operation, x: Any, output_size: Any) -> list[int] | None:
    """Return the window whose outputs have a size; None for the whole image."""
    here = on.tensor(x)
    image = [size or 0 for size, axis in zip(here.shape(), here.axes, strict=True) if axis in "hw"]
    targets = _each(output_size, len(image))
    if not image or len(targets) != len(image):
        raise on.refuse(f"its input must be images or sequences, got axes {here.axes!r}")
    pairs = list(zip(image, targets, strict=True))
    wanted = [size if target is None else target for size, target in pairs]
    if set(wanted) == {1}:
        return None
    if any(size % n for size, n in zip(image, wanted, strict=True)):
        raise on.refuse(f"an image of {image} pixels must be divisible into {wanted} windows")
    return [size // n for size, n in zip(image, wanted, strict=True)]


@_handles("mean")
def _mean(
    on: Operation, x: Any, dim: Any = None, keepdim: bool = False, *, dtype: Any = None
) -> Tensor:
    axes = None if dim is None else np.reshape(dim, -1)
    return on("ReduceMean", x, axes, keepdims=int(keepdim))


@_handles("sum")
def _sum(
    on: Operation, x: Any, dim: Any = None, keepdim: bool = False, *, dtype: Any = None
) -> Tensor:
    axes = np.arange(len(on.tensor(x).axes)) if dim is None else np.reshape(dim, -1)
    return on("ReduceSum", x, axes, keepdims=int(keepdim))


@_handles("amax")
def _amax(on: Operation, x: Any, dim: Any = (), keepdim: bool = False) -> Tensor:
    axes = np.reshape(dim, -1).astype(int) if np.size(dim) else None
    return on("ReduceMax", x, axes, keepdims=int(keepdim))


@_handles("pad", "constant_pad_nd")
def _pad(
    on: Operation, x: Any, pad: Sequence[int], mode: Any = "constant", value: float | None = None
) -> Tensor:
    if not isinstance(mode, str):  # constant_pad_nd has the value there
        mode, value = "constant", mode
    axes = len(on.tensor(x).axes)
    before, after = [0] * axes, [0] * axes
    for i in range(len(pad) // 2):  # the last axis comes first
        before[axes - 1 - i], after[axes - 1 - i] = pad[2 * i], pad[2 * i + 1]
    return on("Pad", x, np.array(before + after), 0.0 if value is None else value, mode=mode)


# Layout


@_handles("flatten")
def _flatten(on: Operation, x: Any, start_dim: int = 0, end_dim: int = -1) -> Tensor:
    shape = on.tensor(x).shape()
    first, last = start_dim % len(shape), end_dim % len(shape)
    if first == 0:
        raise on.refuse("the first axis must stay that of the examples, as start_dim=1 keeps it")
    if first == 1 and last == len(shape) - 1:
        return on("Flatten", x)
    return on("Reshape", x, np.array([*shape[:first], -1, *shape[last + 1 :]]))


@_handles("channel_shuffle", "native_channel_shuffle")
def _channel_shuffle(on: Operation, x: Any, groups: int) -> Tensor:
    here, channels, *image = on.tensor(x).shape()
    split = on("Reshape", x, np.array([here, groups, (channels or 0) // groups, *image]))
    order = [0, 2, 1, *range(3, len(split.axes))]
    return on("Reshape", on("Transpose", split, perm=order), np.array([here, channels, *image]))


@_handles("getitem")
def _getitem(on: Operation, x: Any, places: Any) -> Tensor:
    """Slices with steps, and None for a new axis."""
    given = list(places) if isinstance(places, tuple | list) else [places]
    axes = len(on.tensor(x).axes)
    if Ellipsis in given:
        at = given.index(Ellipsis)
        left = axes - sum(place is not None for place in given) + 1
        given[at : at + 1] = [slice(None)] * left
    slices = [place for place in given if place is not None]
    if not all(isinstance(place, slice) for place in slices):
        raise on.refuse("only slices, and None for a new axis, can be between the brackets")
    starts = [place.start or 0 for place in slices]
    ends = [2**31 - 1 if place.stop is None else place.stop for place in slices]
    steps = [place.step or 1 for place in slices]
    settings = [np.array(values, np.int64) for values in (starts, ends, range(len(slices)), steps)]
    y = on("Slice", x, *settings) if slices else x
    new = [at for at, place in enumerate(given) if place is None]
    return on("Unsqueeze", y, np.array(new)) if new else y


@_handles("view", "reshape", "_unsafe_view")
def _reshape(on: Operation, x: Any, *shape: Any) -> Tensor:
    sizes = shape[0] if len(shape) == 1 and not isinstance(shape[0], int) else shape
    if not all(isinstance(size, int) for size in sizes):
        raise on.refuse(f"its shape must be integers, got {sizes}")
    return on("Reshape", x, np.array(sizes))


@_handles("squeeze")
def _squeeze(on: Operation, x: Any, dim: Any = None) -> Tensor:
    shape = on.tensor(x).shape()
    given = range(1, len(shape)) if dim is None else np.reshape(dim, -1).tolist()
    axes = [axis for axis in given if shape[axis] == 1]
    return on("Squeeze", x, np.array(axes)) if axes else x


@_handles("unsqueeze")
def _unsqueeze(on: Operation, x: Any, dim: int) -> Tensor:
    return on("Unsqueeze", x, np.array([dim]))


@_handles("permute")
def _permute(on: Operation, x: Any, *dims: Any) -> Tensor:
    order = dims[0] if len(dims) == 1 else dims
    axes = len(on.tensor(x).axes)
    return on("Transpose", x, perm=[axis % axes for axis in order])


@_handles("transpose", "swapaxes", "t")
def _transpose(on: Operation, x: Any, dim0: int = 0, dim1: int = 1) -> Tensor:
    order = list(range(len(on.tensor(x).axes)))
    order[dim0], order[dim1] = order[dim1], order[dim0]
    return on("Transpose", x, perm=order)


@_handles("cat", "concat", "concatenate")
def _cat(on: Operation, tensors: Sequence[Any], dim: int = 0) -> Tensor:
    return on("Concat", *tensors, axis=dim)
