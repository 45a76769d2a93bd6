"""The operators of ONNX: what each does to a traced tensor."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from ..ops.geometry import Pair
from .calls import Call
from .graph import BATCH, Node
from .onnx_scales import CHANNEL_MEAN, MAGNITUDE, times_scales
from .steps import Conv, Dense, Levels, Map, Pad, Pool, Sides
from .tensors import Tensor, add, concat, output_size, pad_features, same_padding

# Operators that need NCHW; the first of them tells how the input is laid out.
MINDS_LAYOUT = {
    "AveragePool",
    "BatchNormalization",
    "Conv",
    "Flatten",
    "GlobalAveragePool",
    "GlobalMaxPool",
    "MaxPool",
    "Reshape",
}


# Arithmetic


def _add(call: Call) -> Tensor:
    if call.is_tensor(0) and call.is_tensor(1):
        return add(call.node, call.tensor(0), call.tensor(1))
    x, value = _with_constant(call)
    return x.affine(call.node, 1.0, x.per_feature(call.node, value))


def _subtract(call: Call) -> Tensor:
    node = call.node
    if call.is_tensor(0) and call.is_tensor(1):
        return add(node, call.tensor(0), call.tensor(1).affine(node, -1.0, 0.0))
    x, value = _with_constant(call)
    term = x.per_feature(node, value)
    return x.affine(node, 1.0, -term) if call.is_tensor(0) else x.affine(node, -1.0, term)


def _multiply(call: Call) -> Tensor:
    if call.is_tensor(0) and call.is_tensor(1):
        return times_scales(call.node, call.tensor(0), call.tensor(1))
    x, value = _with_constant(call)
    return x.affine(call.node, x.per_feature(call.node, value), 0.0)


def _divide(call: Call) -> Tensor:
    x = call.tensor(0)
    value = x.per_feature(call.node, call.needed(1))
    if (value == 0).any():
        raise call.node.refuse("it divides by zero")
    return x.affine(call.node, 1 / value, 0.0)


def _with_constant(call: Call) -> tuple[Tensor, np.ndarray]:
    first = call.is_tensor(0)
    x, value = call.tensor(0 if first else 1), call.needed(1 if first else 0)
    return x, value


def _negate(call: Call) -> Tensor:
    return call.tensor().affine(call.node, -1.0, 0.0)


def _same(call: Call) -> Tensor:
    return call.tensor()


def _dropout(call: Call) -> Tensor:
    training = call.constant(2) if len(call.node.inputs) > 2 else None
    if training is not None and training.any():
        raise call.node.refuse("it is in training mode; export the network for inference")
    return call.tensor()


def _cast(call: Call) -> Tensor:
    x, kind = call.tensor(), call.attribute("to")
    # values of Levels are few, and integers in all that exporters make; others would be cut off
    if kind in (1, 10, 11, 16) or isinstance(x.trace.step, Levels):
        return x
    raise call.node.refuse("a cast to integers or bool is supported only behind a comparison")


def _batch_norm(call: Call) -> Tensor:
    node, x = call.node, call.tensor()
    if call.attribute("training_mode", 0):
        raise node.refuse("it is in training mode; export the network for inference")
    if len(x.axes) < 2 or x.axes[1] != "c":
        raise node.refuse(f"its second axis must be that of the channels, got axes {x.axes!r}")
    gamma, beta, mean, variance = (
        x.arranged(np.asarray(call.needed(i), np.float64).ravel()) for i in range(1, 5)
    )
    if {len(v) for v in (gamma, beta, mean, variance)} != {x.features(node)}:
        raise node.refuse(f"its parameters must have {x.features(node)} elements each")
    spread = variance + call.attribute("epsilon", 1e-5)
    if not (spread > 0).all():
        raise node.refuse("variance + epsilon must be positive")
    alpha = gamma / np.sqrt(spread)
    return x.affine(node, alpha, beta - mean * alpha)


# Activations


def _map(kind: str) -> Callable[[Call], Tensor]:
    def handler(call: Call) -> Tensor:
        return call.tensor().add(Map(str(call.node), kind))

    return handler


def _clip(call: Call) -> Tensor:
    low = call.setting("min", 1, -math.inf)
    high = call.setting("max", 2, math.inf)
    return _clipped(call, float(np.reshape(low, -1)[0]), float(np.reshape(high, -1)[0]))


def _clipped(call: Call, low: float, high: float) -> Tensor:
    if abs(low) > 3e38:  # exporters write the largest number for infinity
        low = -math.inf
    if abs(high) > 3e38:
        high = math.inf
    x = call.tensor(0 if call.is_tensor(0) else 1)
    if math.isinf(low) and math.isinf(high):
        return x
    if not low < high:
        raise call.node.refuse(f"its limits must rise, got {low} and {high}")
    return x.add(Map(str(call.node), "clip", (low, high)))


def _maximum(call: Call) -> Tensor:
    return _clipped(call, call.number(1 if call.is_tensor(0) else 0), math.inf)


def _minimum(call: Call) -> Tensor:
    return _clipped(call, -math.inf, call.number(1 if call.is_tensor(0) else 0))


def _hard_sigmoid(call: Call) -> Tensor:
    x = call.tensor()
    x = x.affine(call.node, call.attribute("alpha", 0.2), call.attribute("beta", 0.5))
    return x.add(Map(str(call.node), "clip", (0.0, 1.0)))


def _prelu(call: Call) -> Tensor:
    x = call.tensor()
    return x.add(Map(str(call.node), "prelu", x.per_feature(call.node, call.needed(1))))


def _leaky_relu(call: Call) -> Tensor:
    x = call.tensor()
    slope = np.full(x.features(call.node), call.attribute("alpha", 0.01))
    return x.add(Map(str(call.node), "prelu", slope))


def _softmax(call: Call) -> Tensor:
    x = call.tensor()
    axis = call.attribute("axis", 1 if call.opset < 13 else -1) % len(x.axes)
    if x.axes[axis] != "c":
        raise call.node.refuse("its axis must be that of the features")
    return x.add(Map(str(call.node), "softmax"))


# Layout


def _reshape(call: Call) -> Tensor:
    x = call.tensor()
    target = list(np.reshape(call.setting("shape", 1), -1).astype(int).tolist())
    here = x.shape()
    if not call.attribute("allowzero", 0):
        target = [here[i] if size == 0 and i < len(here) else size for i, size in enumerate(target)]
    if target and target[0] == x.batch and x.batch is not None:
        target[0] = BATCH
    return x.reshaped(call.node, _without_unknown(call.node, here, target))


def _without_unknown(
    node: Node, here: list[int | None], target: list[int | None]
) -> list[int | None]:
    """Return a target shape with its -1 replaced by the size it stands for."""
    if -1 not in target:
        return target
    at = target.index(-1)
    if at == 0:  # that of the examples, if the rest takes all of each
        rest = target[1:]
        if None in here or None in rest or math.prod(rest) != math.prod(here[1:]):  # type: ignore[arg-type]
            raise node.refuse(f"a shape of {here[1:]} cannot become {target[1:]}")
        return [BATCH, *rest]
    if target[0] != BATCH:
        raise node.refuse(f"the first axis must stay that of the examples, got {target}")
    others = [size for i, size in enumerate(target) if i not in (0, at)]
    if None in here or None in others:
        raise node.refuse(f"the size of the image must be known, got {here[1:]}")
    all_, known = math.prod(here[1:]), math.prod(others)  # type: ignore[arg-type]
    if known <= 0 or all_ % known:
        raise node.refuse(f"a shape of {here[1:]} cannot become {target[1:]}")
    return [*target[:at], all_ // known, *target[at + 1 :]]


def _flatten(call: Call) -> Tensor:
    x = call.tensor()
    axis = call.attribute("axis", 1)
    if axis % len(x.axes) != 1:
        raise call.node.refuse(f"axis must be 1, got {axis}")
    return x.reshaped(call.node, _without_unknown(call.node, x.shape(), [BATCH, -1]))


def _squeeze(call: Call) -> Tensor:
    x = call.tensor()
    shape = x.shape()
    axes = call.setting("axes", 1)
    if axes is None:
        axes = [i for i, size in enumerate(shape) if size == 1]
    axes = {axis % len(shape) for axis in np.reshape(axes, -1).tolist()}
    if any(shape[axis] != 1 for axis in axes):
        raise call.node.refuse(f"only axes of one element can go, got shape {shape[1:]}")
    return x.reshaped(call.node, [size for i, size in enumerate(shape) if i not in axes])


def _unsqueeze(call: Call) -> Tensor:
    x = call.tensor()
    new = np.reshape(call.setting("axes", 1), -1).tolist()
    shape: list[int | None] = x.shape()
    for axis in sorted(axis % (len(shape) + len(new)) for axis in new):
        shape.insert(axis, 1)
    return x.reshaped(call.node, shape)


def _transpose(call: Call) -> Tensor:
    x = call.tensor()
    order = call.attribute("perm", range(len(x.axes))[::-1])
    return replace(x, axes="".join(x.axes[axis] for axis in order))


# Products


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
        raise node.refuse(f"only convolutions of two axes are supported, got weights {w.shape}")
    if x.axes == "nc11" and w.shape[2:] == (1, 1) and groups == 1 and not _pads(call, x, w):
        # a convolution of one pixel, as behind a global pool
        rows = replace(x, axes="nc")
        y = replace(_dense(_on(call, rows), w[:, :, 0, 0]), axes="nc11")
    else:
        y = _image_conv(call, x, w, groups)
    bias = call.constant(2)
    return y if bias is None else y.affine(node, 1.0, _bias(node, y, bias))


def _on(call: Call, x: Tensor) -> Call:
    """Return the call with another tensor as its first input."""
    return replace(call, tensors={**call.tensors, call.node.inputs[0]: x})


def _bias(node: Node, y: Tensor, bias: np.ndarray) -> np.ndarray:
    if bias.shape != (y.features(node),):
        raise node.refuse(f"its bias must have {y.features(node)} elements, got {bias.shape}")
    return y.arranged(np.asarray(bias, np.float64))


def _image_conv(call: Call, x: Tensor, w: np.ndarray, groups: int) -> Tensor:
    node = call.node
    _check_images(node, x)
    if groups < 1 or w.shape[1] * groups != x.features(node) or len(w) % groups:
        raise node.refuse(
            f"filters {w.shape} in {groups} groups do not fit {x.features(node)} channels"
        )
    stride, dilation = (_pair(call, name) for name in ("strides", "dilations"))
    kernel = w.shape[2], w.shape[3]
    padding = _padding(call, x, kernel, stride, dilation)
    filters = w.transpose(0, 2, 3, 1)
    if x.order is not None:
        if groups > 1:
            raise node.refuse("groups of channels that lie in another order are not supported")
        filters = x.arranged(filters.transpose(3, 0, 1, 2)).transpose(1, 2, 3, 0)
    step = Conv(str(node), filters, 0.0, stride, padding, dilation, groups)
    image = output_size(node, x, kernel, stride, padding, dilation)
    return x.add(step, sizes=(*image, len(w)), order=None)


def _check_images(node: Node, x: Tensor) -> None:
    if x.axes != "nchw":
        raise node.refuse(f"its input must be images (n, c, h, w), got axes {x.axes!r}")


def _pads(call: Call, x: Tensor, w: np.ndarray) -> bool:
    return any(call.attribute("pads", ()))


def _pair(call: Call, name: str, default: int = 1) -> Pair:
    values = call.attribute(name) or [default, default]
    if len(values) != 2 or min(values) < 1:
        raise call.node.refuse(f"{name} must be two positive integers, got {values}")
    return values[0], values[1]


def _padding(call: Call, x: Tensor, kernel: Pair, stride: Pair, dilation: Pair) -> Sides:
    mode = call.attribute("auto_pad", "NOTSET")
    if mode in ("NOTSET", "VALID"):
        pads = list(call.attribute("pads") or [0, 0, 0, 0]) if mode == "NOTSET" else [0, 0, 0, 0]
        if len(pads) != 4 or min(pads) < 0:
            raise call.node.refuse(f"pads must be four integers >= 0, got {pads}")
        return (pads[0], pads[2]), (pads[1], pads[3])
    if mode not in ("SAME_UPPER", "SAME_LOWER"):
        raise call.node.refuse(f"auto_pad {mode!r} is not known")
    upper = same_padding(call.node, x, kernel, stride, dilation)
    if mode == "SAME_UPPER":
        return upper
    return tuple((more, less) for less, more in upper)  # type: ignore[return-value]


def _concat(call: Call) -> Tensor:
    node = call.node
    parts = [call.tensor(i) for i in range(len(node.inputs))]
    if parts[0].axes[call.attribute("axis")] != "c":
        raise node.refuse("its axis must be that of the features")
    joined = parts[0]
    for part in parts[1:]:
        joined = concat(node, joined, part)
    return joined


# Pools


def _pool(kind: str) -> Callable[[Call], Tensor]:
    def handler(call: Call) -> Tensor:
        node, x = call.node, call.tensor()
        _check_images(node, x)
        kernel, stride = _pair(call, "kernel_shape"), _pair(call, "strides")
        if _pair(call, "dilations") != (1, 1):
            raise node.refuse("dilations of pools are not supported")
        padding = _padding(call, x, kernel, stride, (1, 1))
        if call.attribute("ceil_mode", 0):
            padding = _rounded_up(call, x, kernel, stride, padding)
        if (
            kind == "avg"
            and padding != ((0, 0), (0, 0))
            and not call.attribute("count_include_pad", 0)
        ):
            raise node.refuse("padding that does not count is not supported in a mean")
        if any(p >= k for sides, k in zip(padding, kernel, strict=True) for p in sides):
            raise node.refuse("padding must be smaller than the window")
        image = output_size(node, x, kernel, stride, padding, (1, 1))
        step = Pool(str(node), kind, kernel, stride, padding)
        return x.add(step, sizes=(*image, x.sizes[-1]))

    return handler


def _rounded_up(call: Call, x: Tensor, kernel: Pair, stride: Pair, padding: Sides) -> Sides:
    """Return padding that gives as many windows as rounding up does."""
    sides = []
    for size, k, s, (before, after) in zip(x.sizes, kernel, stride, padding, strict=False):
        if size is None:
            raise call.node.refuse("the size of the image must be known for ceil_mode")
        count = -(-(size + before + after - k) // s) + 1
        if (count - 1) * s >= size + before:  # a window must begin within the image
            count -= 1
        sides.append((before, max((count - 1) * s + k - size - before, 0)))
    return sides[0], sides[1]


def _global_average(call: Call) -> Tensor:
    x = call.tensor()
    _check_images(call.node, x)
    return x.add(Map(str(call.node), "mean"), sizes=(x.sizes[-1],), axes="nc11")


def _global_maximum(call: Call) -> Tensor:
    node, x = call.node, call.tensor()
    _check_images(node, x)
    height, width, channels = x.sizes
    if height is None or width is None:
        raise node.refuse("the size of the image must be known")
    image = height, width
    y = x.add(Pool(str(node), "max", image, image, ((0, 0), (0, 0))), sizes=(1, 1, channels))
    return y.add(Map(str(node), "flatten", (channels, channels)), sizes=(channels,), axes="nc11")


def _reduce_mean(call: Call) -> Tensor:
    node, x = call.node, call.tensor()
    axes = call.setting("axes", 1, range(len(x.axes)))
    reduced = {axis % len(x.axes) for axis in np.reshape(axes, -1).tolist()}
    if [x.axes[axis] for axis in reduced] == ["c"] and call.attribute("keepdims", 1):
        return x.add(Map(str(node), CHANNEL_MEAN), sizes=(*x.sizes[:-1], 1), order=None)
    if {x.axes[axis] for axis in reduced} != {"h", "w"}:
        raise node.refuse("its axes must be those of the image")
    kept = call.attribute("keepdims", 1)
    names = ["1" if axis in reduced else name for axis, name in enumerate(x.axes)]
    left = [name for axis, name in enumerate(names) if kept or axis not in reduced]
    return x.add(Map(str(node), "mean"), sizes=(x.sizes[-1],), axes="".join(left))


def _pad(call: Call) -> Tensor:
    node, x = call.node, call.tensor()
    if call.attribute("mode", "constant") != "constant":
        raise node.refuse("its mode must be 'constant'")
    pads = np.reshape(call.setting("pads", 1), -1).astype(int).tolist()
    axes = call.constant(3) if len(call.node.inputs) > 3 else None
    names = x.axes if axes is None else [x.axes[i] for i in np.reshape(axes, -1).tolist()]
    if len(pads) != 2 * len(names) or min(pads, default=0) < 0:
        raise node.refuse(f"its pads must be two integers >= 0 for each axis, got {pads}")
    sides = {name: (pads[i], pads[len(names) + i]) for i, name in enumerate(names)}
    if any(sum(both) and name not in "hwc" for name, both in sides.items()):
        raise node.refuse("only height, width and channels can be padded")
    number = float(np.reshape(call.setting("value", 2, 0.0), -1)[0])
    if not math.isfinite(number):
        raise node.refuse(f"its value must be finite, got {number}")
    x = pad_features(node, x, sides.get("c", (0, 0)), number)
    padding = sides.get("h", (0, 0)), sides.get("w", (0, 0))
    if padding == ((0, 0), (0, 0)):
        return x
    sizes = [
        None if size is None else size + sum(both)
        for size, both in zip(x.sizes, padding, strict=False)
    ]
    return x.add(Pad(str(node), x.features(node), padding, number), sizes=(*sizes, x.sizes[-1]))


HANDLERS: dict[str, Callable[[Call], Tensor]] = {
    "Abs": _map(MAGNITUDE),
    "Add": _add,
    "AveragePool": _pool("avg"),
    "BatchNormalization": _batch_norm,
    "Cast": _cast,
    "Clip": _clip,
    "Concat": _concat,
    "Conv": _conv,
    "Div": _divide,
    "Dropout": _dropout,
    "Flatten": _flatten,
    "Gemm": _gemm,
    "GlobalAveragePool": _global_average,
    "GlobalMaxPool": _global_maximum,
    "HardSigmoid": _hard_sigmoid,
    "Identity": _same,
    "LeakyRelu": _leaky_relu,
    "MatMul": _matmul,
    "Max": _maximum,
    "MaxPool": _pool("max"),
    "Min": _minimum,
    "Mul": _multiply,
    "Neg": _negate,
    "PRelu": _prelu,
    "Pad": _pad,
    "ReduceMean": _reduce_mean,
    "Relu": _map("relu"),
    "Reshape": _reshape,
    "Sigmoid": _map("sigmoid"),
    "Softmax": _softmax,
    "Squeeze": _squeeze,
    "Sub": _subtract,
    "Tanh": _map("tanh"),
    "Transpose": _transpose,
    "Unsqueeze": _unsqueeze,
}
