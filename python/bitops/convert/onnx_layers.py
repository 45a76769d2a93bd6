"""Writes packed layers as nodes of ONNX.

Everything is float32: bits are +-1, codes and sums of them whole numbers up to 2^24. A threshold,
and the pools of bits that follow it, become

    bit = (z > t) ^ flip        OR or AND of a window       in the graph
    z > t                       none                        z >= next number above t
    z > t, whole numbers        none                        z >= t + 1/2
    z <= t (flip)               none                        z * -1 >= -t, or -(t + 1/2)
    z > t                       AND                         max-pool of z * -1, * -1, then as above

so that a graph has no other operators than those that exporters write. Halves between whole numbers
decide the same where a program computes sums by inexact transforms.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any, TypeGuard

import numpy as np

from .. import layers as L
from ..layers import Layer
from ..layers.inputs import Shape
from ..layers.operation import Convolution
from ..layers.product import PackedProduct
from ..layers.windows import Windows
from ..ops.geometry import make_window
from .onnx_writer import (
    NCHW,
    NHWC,
    QONNX,
    ROWS,
    SEQUENCES,
    GraphTensor,
    GraphWriter,
    smallest_integers,
)
from .steps import Sides

# float32 holds every integer up to it
_EXACT = 2**24
_LARGEST = float(np.finfo(np.float32).max)
_NO_PADDING: Sides = ((0, 0), (0, 0))
_IMAGE_SIZE = 2**30  # stands for an unknown one, where it does not matter

_BRANCHED = L.PackedResidual, L.PackedConcat, L.PackedMultiply
_MOVING = (  # what gives bits if bits come in
    L.PackedAsImages,
    L.PackedAsSequences,
    L.PackedFlatten,
    L.PackedMaxPool2D,
    L.PackedPad2D,
)

Write = Callable[[GraphWriter, Any, GraphTensor], GraphTensor]


def write_chain(
    w: GraphWriter, layers: Sequence[Layer], x: GraphTensor, prefix: str = ""
) -> GraphTensor:
    """Write layers one behind the other; return the last output."""
    for place, layer, pools, after in _groups(layers):
        w.scope = f"{prefix}{place}.{layer.name}"
        sizes = layer.output_shape(x.sizes)
        if isinstance(layer, _BRANCHED):
            x = _branches(w, layer, x)
        elif _gives_bits(layer):
            x = _bits(w, layer, x, pools, read_units=_reads_units(after))
            for pool in pools:
                sizes = pool.output_shape(sizes)
        else:
            x = _WRITERS[type(layer)](w, layer, x)
        x = replace(x, sizes=sizes)
        w.describe(x)
    return x


def unknown_layers(layers: Sequence[Layer], prefix: str = "") -> Iterator[str]:
    """Yield the names of the layers that have no form in ONNX."""
    for place, layer in enumerate(layers):
        if type(layer) in _BRANCHED:
            for name, branch in layer.branches().items():
                yield from unknown_layers(branch, f"{prefix}{place}.{name}.")
        elif type(layer) not in (*_WRITERS, L.PackedSign):
            yield f"{prefix}{place}.{layer.name}"


def takes_images(layers: Sequence[Layer]) -> bool:
    """Return whether layers take images rather than rows, if no shape of the input is known."""
    for layer in layers:
        if isinstance(layer, _BRANCHED):
            return takes_images(layer.body.layers)
        if isinstance(layer, PackedProduct | L.FloatConv2D | L.FloatDense):
            return isinstance(layer.operation, Convolution)
        if hasattr(layer, "windows") or type(layer) in (L.PackedGlobalAvgPool2D, L.PackedPad2D):
            return True
    return False


def _groups(
    layers: Sequence[Layer],
) -> Iterator[tuple[int, Layer, Sequence[L.PackedMaxPool2D], Sequence[Layer]]]:
    """Yield the place of a layer, the layer, pools to be written with it, and those after it.

    Pools that take minima of bits are written before the comparison that gives the bits.
    """
    i = 0
    while i < len(layers):
        end = i + 1
        pools: list[L.PackedMaxPool2D] = []
        if _gives_bits(layers[i]):
            while end < len(layers) and type(pool := layers[end]) is L.PackedMaxPool2D:
                pools.append(pool)
                end += 1
            if all(pool.minimum is None for pool in pools):
                pools, end = [], i + 1
        yield i, layers[i], pools, layers[end:]
        i = end


def _gives_bits(layer: Layer) -> TypeGuard[PackedProduct | L.PackedSign]:
    if isinstance(layer, L.PackedSign):
        return True
    return isinstance(layer, PackedProduct) and layer.threshold is not None


def _reads_units(layers: Sequence[Layer]) -> bool:
    """Return whether the bits that flow into layers stand for 0 and 1 there."""
    for layer in layers:
        if not isinstance(layer, _MOVING):
            is_product = isinstance(layer, PackedProduct) and layer.input_bits == 1
            return is_product or isinstance(layer, L.PackedLevels)
    return False


# Bits


def _bits(
    w: GraphWriter,
    layer: PackedProduct | L.PackedSign,
    x: GraphTensor,
    pools: Sequence[L.PackedMaxPool2D],
    *,
    read_units: bool,
) -> GraphTensor:
    """Write a layer that gives bits, and pools of these bits."""
    if isinstance(layer, PackedProduct):
        z, is_whole = _sums(w, layer, x)
    else:
        z, is_whole = w.as_kind(x, "bits"), x.kind != "numbers"
    z = replace(z, sizes=layer.output_shape(x.sizes))
    sign = np.ones(1) if layer.flip is None else np.where(layer.flip, -1.0, 1.0)
    turned = np.ones(1)
    for pool in pools:
        # with a flip, the smallest bit is that of the largest sum
        wanted = sign if pool.minimum is None else np.where(pool.minimum, -sign, sign)
        z = replace(_turn(w, z, turned * wanted), sizes=z.sizes)
        z = _max_pool_plain(w, pool, z)
        turned = wanted
    z = _turn(w, z, turned * sign)
    if layer.threshold is None:
        limit = np.zeros(1)
    else:
        limit = _limits(layer.threshold, sign < 0, is_whole)
    return _compare(w, z, limit, read_units)


def _turn(w: GraphWriter, x: GraphTensor, sign: np.ndarray) -> GraphTensor:
    return x if (sign == 1).all() else w.times(x, "turn", sign)


def _limits(threshold: np.ndarray, is_flipped: np.ndarray, is_whole: bool) -> np.ndarray:
    """Return float32 limits: z > t is z >= limit, and z <= t, which is flipped, -z >= limit."""
    t = threshold.astype(np.float64)
    if is_whole:
        t = np.floor(t) + 0.5
    above = t if is_whole else np.nextafter(t, np.inf)
    limits = _rounded_up(np.where(is_flipped, -t, above))
    return np.clip(limits, -_LARGEST, _LARGEST)  # infinite ones make a feature constant


def _rounded_up(values: np.ndarray) -> np.ndarray:
    """Return the least float32 numbers that are not below the values."""
    with np.errstate(over="ignore"):
        single = values.astype(np.float32)
        return np.where(single < values, np.nextafter(single, np.float32(np.inf)), single)


def _compare(w: GraphWriter, z: GraphTensor, limit: np.ndarray, read_units: bool) -> GraphTensor:
    """Write z >= limit as bits: +-1, or 0 and 1."""
    kind, low = ("units", 0.0) if read_units else ("bits", -1.0)
    limit = limit.astype(np.float32)
    if w.qonnx:
        y = _count(w, z, limit[:, np.newaxis], 1 - low, low, "BINARY" if read_units else "BIPOLAR")
    else:
        above = w.node("GreaterOrEqual", z.name, w.per_feature(z, "threshold", limit))
        values = w.constant("high", np.float32(1)), w.constant("low", np.float32(low))
        y = replace(z, name=w.node("Where", above, *values))
    return replace(y, kind=kind, largest=1)


def _count(
    w: GraphWriter, x: GraphTensor, limits: np.ndarray, scale: float, bias: float, dtype: str
) -> GraphTensor:
    """Write a MultiThreshold of QONNX, for limits (features or 1, levels)."""
    return w.apply(
        x,
        "MultiThreshold",
        w.constant("thresholds", limits),
        domain=QONNX,
        out_scale=float(scale),
        out_bias=float(bias),
        out_dtype=dtype,
        data_layout=x.axes.upper(),
    )


# Products


def _sums(w: GraphWriter, layer: PackedProduct, x: GraphTensor) -> tuple[GraphTensor, bool]:
    """Write a product with weights of whole numbers; return it, and whether it is whole."""
    x = w.as_kind(x, "units" if layer.input_bits == 1 else "bits")
    is_whole = x.kind != "numbers"
    weights = layer.weights.planes.values()
    most = np.abs(weights).reshape(len(weights), -1).sum(axis=1).max() * x.largest
    if is_whole and most > _EXACT:
        raise w.refuse(f"its sums may exceed 2^24, up to which float32 is exact, and be {most:.0f}")
    return _multiply(w, layer, x, weights), is_whole


def _multiply(
    w: GraphWriter, layer: Any, x: GraphTensor, weights: np.ndarray, bias: np.ndarray | None = None
) -> GraphTensor:
    """Write a product; whole weights are stored as integers."""
    is_conv = isinstance(layer.operation, Convolution)
    weights = weights.transpose(0, 3, 1, 2) if is_conv else weights.T
    if isinstance(layer, PackedProduct):
        name = _whole_weights(w, np.ascontiguousarray(weights))
    else:
        name = w.constant("weight", np.ascontiguousarray(weights))
    if is_conv:
        return _convolve(w, layer.operation, x, name, bias)
    y = w.apply(w.arranged(x, NHWC), "MatMul", name)
    y = replace(y, sizes=(*x.sizes[:-1], layer.out_features))
    return w.plus(y, "bias", bias)


def _whole_weights(w: GraphWriter, weights: np.ndarray) -> str:
    if not w.qonnx:
        return w.node("Cast", w.constant("weight", smallest_integers(weights)), to=1)
    name, one = w.constant("weight", weights), w.constant("scale", np.float32(1))
    if (np.abs(weights) == 1).all():
        return w.node("BipolarQuant", name, one, domain=QONNX)
    bits = np.float32(int(np.abs(weights).max()).bit_length() + 1)
    inputs = name, one, w.constant("zero", np.float32(0)), w.constant("bits", bits)
    return w.node("Quant", *inputs, domain=QONNX, signed=1, narrow=0, rounding_mode="ROUND")


def _convolve(
    w: GraphWriter,
    operation: Convolution,
    x: GraphTensor,
    weights: str,
    bias: np.ndarray | None = None,
) -> GraphTensor:
    windows = operation.windows
    padding = _padding(w, windows, x.sizes)
    x = w.arranged(x, NCHW)
    if operation.pad_value and padding != _NO_PADDING:
        x, padding = _pad_images(w, x, padding, operation.pad_value), _NO_PADDING
    inputs = [weights] if bias is None else [weights, w.constant("bias", bias)]
    y = w.apply(
        x,
        "Conv",
        *inputs,
        kernel_shape=windows.kernel_size,
        strides=windows.stride,
        dilations=windows.dilation,
        group=operation.groups,
        pads=_flat(padding),
    )
    return replace(y, sizes=operation.output_shape(x.sizes))


def _padding(w: GraphWriter, windows: Windows, sizes: Shape) -> Sides:
    """Return what lies around images of these sizes."""
    if isinstance(windows.padding, str) and windows.padding == "same":
        if None in sizes[:2] and windows.stride != (1, 1):
            raise w.refuse("padding='same' with a stride needs the input_shape of the model")
    height, width = (_IMAGE_SIZE if size is None else size for size in sizes[:2])
    return make_window(w.scope, (height, width), windows.kernel_size, **windows.options).padding


def _flat(padding: Sides) -> list[int]:
    (top, bottom), (left, right) = padding
    return [top, left, bottom, right]


def _pad_images(w: GraphWriter, x: GraphTensor, padding: Sides, value: float) -> GraphTensor:
    top, left, bottom, right = _flat(padding)
    sides = {"h": (top, bottom), "w": (left, right)}
    pads = [sides.get(axis, (0, 0))[end] for end in (0, 1) for axis in x.axes]
    inputs = w.constant("pads", np.array(pads, np.int64)), w.constant("outside", np.float32(value))
    return replace(w.apply(x, "Pad", *inputs, mode="constant"), kind=x.kind, largest=x.largest)


def _product(w: GraphWriter, layer: PackedProduct, x: GraphTensor) -> GraphTensor:
    """Write a product without thresholds."""
    if getattr(layer, "scale_input", False):
        return _scaled_conv(w, layer, x)
    z, _ = _sums(w, layer, x)
    return w.plus(w.times(z, "alpha", layer.alpha), "bias", layer.bias)


def _scaled_conv(w: GraphWriter, layer: Any, x: GraphTensor) -> GraphTensor:
    """Write a convolution of the signs of x, times the map K of mean magnitudes (XNOR-Net)."""
    x = w.arranged(w.as_kind(x, "bits"), NCHW)
    windows = layer.operation.windows
    means = w.node("ReduceMean", w.node("Abs", x.name), axes=[1], keepdims=1)
    kernel = np.full((1, 1, *windows.kernel_size), 1 / np.prod(windows.kernel_size), np.float32)
    scale = w.node(
        "Conv",
        means,
        w.constant("mean", kernel),
        kernel_shape=windows.kernel_size,
        strides=windows.stride,
        dilations=windows.dilation,
        pads=_flat(_padding(w, windows, x.sizes)),
    )
    z, _ = _sums(w, layer, _compare(w, x, np.zeros(1), read_units=False))
    y = w.apply(w.times(z, "alpha", layer.alpha), "Mul", scale)
    return w.plus(y, "bias", layer.bias)


def _float_product(w: GraphWriter, layer: Any, x: GraphTensor) -> GraphTensor:
    return _multiply(w, layer, w.as_kind(x, "bits"), layer.weight, layer.bias)


# Pools, padding and layout


def _max_pool(w: GraphWriter, layer: L.PackedMaxPool2D, x: GraphTensor) -> GraphTensor:
    if layer.minimum is None:
        return replace(_max_pool_plain(w, layer, x), kind=x.kind, largest=x.largest)
    sign = np.where(layer.minimum, -1.0, 1.0)
    y = _turn(w, _max_pool_plain(w, layer, _turn(w, w.as_kind(x, "bits"), sign)), sign)
    kind = "bits" if x.kind == "units" else x.kind
    return replace(y, kind=kind, largest=x.largest)


def _max_pool_plain(w: GraphWriter, layer: L.PackedMaxPool2D, x: GraphTensor) -> GraphTensor:
    return _pool(w, "MaxPool", layer, x)


def _pool(w: GraphWriter, op: str, layer: Any, x: GraphTensor, **attributes: Any) -> GraphTensor:
    windows = layer.windows
    y = w.apply(
        w.arranged(x, NCHW),
        op,
        kernel_shape=windows.kernel_size,
        strides=windows.stride,
        pads=_flat(_padding(w, windows, x.sizes)),
        **attributes,
    )
    return replace(y, sizes=layer.output_shape(x.sizes))


def _average_pool(w: GraphWriter, layer: L.PackedAvgPool2D, x: GraphTensor) -> GraphTensor:
    return _pool(w, "AveragePool", layer, w.as_kind(x, "bits"), count_include_pad=1)


def _global_average_pool(
    w: GraphWriter, layer: L.PackedGlobalAvgPool2D, x: GraphTensor
) -> GraphTensor:
    y = w.apply(w.arranged(w.as_kind(x, "bits"), NCHW), "GlobalAveragePool")
    return replace(w.apply(y, "Flatten", axis=1), axes=ROWS)


def _flatten(w: GraphWriter, layer: L.PackedFlatten, x: GraphTensor) -> GraphTensor:
    """Write Flatten of images NHWC, in which order the columns of the next layer are."""
    if x.axes == ROWS:
        return x
    y = w.apply(w.arranged(x, NHWC), "Flatten", axis=1)
    return replace(y, axes=ROWS, kind=x.kind, largest=x.largest)


def _pad(w: GraphWriter, layer: L.PackedPad2D, x: GraphTensor) -> GraphTensor:
    x = w.arranged(x, NCHW)
    value = layer.value
    if x.kind in ("bits", "units"):
        if value not in (-1, 1):
            raise w.refuse(f"value must be +1 or -1 for bits, got {value:g}")
        value = (value + 1) / 2 if x.kind == "units" else value
    y = _pad_images(w, x, layer.padding, value)
    if x.kind == "codes":
        is_code = value.is_integer() and 0 <= value
        return replace(y, largest=max(x.largest, int(value))) if is_code else y.as_numbers()
    return y


def _as_images(w: GraphWriter, layer: L.PackedAsImages, x: GraphTensor) -> GraphTensor:
    name = w.node("Unsqueeze", x.name, w.constant("axes", np.array([1])))
    return replace(x, name=name, axes=NHWC)


def _as_sequences(w: GraphWriter, layer: L.PackedAsSequences, x: GraphTensor) -> GraphTensor:
    x = w.arranged(x, NHWC)
    name = w.node("Squeeze", x.name, w.constant("axes", np.array([1])))
    return replace(x, name=name, axes=SEQUENCES)


# Elementwise


def _batch_norm(w: GraphWriter, layer: L.PackedBatchNorm, x: GraphTensor) -> GraphTensor:
    return w.plus(w.times(w.as_kind(x, "bits"), "alpha", layer.alpha), "bias", layer.bias)


def _simple(op: str) -> Write:
    def write(w: GraphWriter, layer: Layer, x: GraphTensor) -> GraphTensor:
        return w.apply(w.as_kind(x, "bits"), op)

    return write


def _softmax(w: GraphWriter, layer: L.PackedSoftmax, x: GraphTensor) -> GraphTensor:
    return w.apply(w.as_kind(x, "bits"), "Softmax", axis=x.feature_axis)


def _clip(w: GraphWriter, layer: L.PackedClip, x: GraphTensor) -> GraphTensor:
    limits = [
        w.constant(name, np.float32(limit)) if np.isfinite(limit) else ""
        for name, limit in (("low", layer.low), ("high", layer.high))
    ]
    return w.apply(w.as_kind(x, "bits"), "Clip", *limits)


def _prelu(w: GraphWriter, layer: L.PackedPReLU, x: GraphTensor) -> GraphTensor:
    return w.apply(w.as_kind(x, "bits"), "PRelu", w.per_feature(x, "slope", layer.slope))


def _rprelu(w: GraphWriter, layer: L.PackedRPReLU, x: GraphTensor) -> GraphTensor:
    z = w.plus(w.as_kind(x, "bits"), "shift", -layer.shift)
    y = w.apply(z, "PRelu", w.per_feature(z, "slope", layer.slope))
    return w.plus(y, "offset", layer.offset)


def _pad_features(w: GraphWriter, layer: L.PackedPadFeatures, x: GraphTensor) -> GraphTensor:
    x = w.as_kind(x, "bits")
    both = layer.before, layer.after
    pads = [size if axis == "c" else 0 for size in both for axis in x.axes]
    inputs = w.constant("pads", np.array(pads, np.int64)), w.constant("outside", np.float32(0))
    return w.apply(x, "Pad", *inputs, mode="constant")


def _levels(w: GraphWriter, layer: L.PackedLevels, x: GraphTensor) -> GraphTensor:
    return w.times(w.as_kind(x, "units"), "step", layer.step)


def _quantize(w: GraphWriter, layer: L.PackedQuantize, x: GraphTensor) -> GraphTensor:
    """Write round(clip(x / c, 0, 1) * largest code)."""
    bits, clip_value = layer.config()["bits"], layer.config()["clip_value"]
    largest = 2**bits - 1
    y = w.apply(w.as_kind(x, "bits"), "Div", w.constant("clip_value", np.float32(clip_value)))
    limits = w.constant("low", np.float32(0)), w.constant("high", np.float32(1))
    y = w.times(w.apply(y, "Clip", *limits), "largest", float(largest))
    return replace(w.apply(y, "Round"), kind="codes", largest=largest)


def _multi_threshold(w: GraphWriter, layer: L.PackedMultiThreshold, x: GraphTensor) -> GraphTensor:
    """Write the count of x >= t over the thresholds t of a feature."""
    x = w.as_kind(x, "bits")
    limits = np.clip(_rounded_up(layer.threshold.astype(np.float64)), -_LARGEST, _LARGEST)
    limits = limits.astype(np.float32)
    levels = limits.shape[1]
    if w.qonnx:
        y = _count(w, x, limits, 1.0, 0.0, f"UINT{levels.bit_length()}")
    else:
        each = w.node("Unsqueeze", x.name, w.constant("axis", np.array([-1])))
        shape = [len(limits) if axis == "c" else 1 for axis in x.axes]
        thresholds = w.constant("thresholds", limits.reshape(*shape, levels))
        above = w.node("Cast", w.node("GreaterOrEqual", each, thresholds), to=1)
        axis = w.constant("axis", np.array([-1]))
        y = replace(x, name=w.node("ReduceSum", above, axis, keepdims=0))
    return replace(y, kind="codes", largest=levels)


def _branches(w: GraphWriter, layer: Any, x: GraphTensor) -> GraphTensor:
    """Write body(x) + shortcut(x), their product, or both side by side."""
    scope = w.scope
    x = w.as_kind(x, "bits")
    branches = layer.branches()
    ends = [
        w.as_kind(write_chain(w, branches[name], x, f"{scope}.{name}."), "bits")
        if name in branches
        else x
        for name in ("body", "shortcut")
    ]
    w.scope = scope
    if isinstance(layer, L.PackedMultiply):
        return w.apply(ends[0], "Mul", _factors(w, *ends))
    axes = NCHW if NCHW in (ends[0].axes, ends[1].axes) else ends[0].axes
    main, other = (w.arranged(end, axes) for end in ends)
    if isinstance(layer, L.PackedConcat):
        return w.apply(main, "Concat", other.name, axis=main.feature_axis)
    return w.apply(main, "Add", other.name)


def _factors(w: GraphWriter, main: GraphTensor, factors: GraphTensor) -> str:
    """Return factors in the layout of what they multiply: a row gets the axes of the image."""
    if len(factors.sizes) == len(main.sizes):
        return w.arranged(factors, main.axes).name
    axes = [i for i, axis in enumerate(main.axes) if axis in "hw"]
    return w.node("Unsqueeze", factors.name, w.constant("axes", np.array(axes)))


_WRITERS: dict[type[Layer], Write] = {
    L.FloatConv2D: _float_product,
    L.FloatDense: _float_product,
    L.PackedAsImages: _as_images,
    L.PackedAsSequences: _as_sequences,
    L.PackedAvgPool2D: _average_pool,
    L.PackedBatchNorm: _batch_norm,
    L.PackedClip: _clip,
    L.PackedConv2D: _product,
    L.PackedDense: _product,
    L.PackedFlatten: _flatten,
    L.PackedGlobalAvgPool2D: _global_average_pool,
    L.PackedLevels: _levels,
    L.PackedMaxPool2D: _max_pool,
    L.PackedMultiThreshold: _multi_threshold,
    L.PackedPReLU: _prelu,
    L.PackedPad2D: _pad,
    L.PackedPadFeatures: _pad_features,
    L.PackedPlanesConv2D: _product,
    L.PackedPlanesDense: _product,
    L.PackedQuantize: _quantize,
    L.PackedRPReLU: _rprelu,
    L.PackedReLU: _simple("Relu"),
    L.PackedSigmoid: _simple("Sigmoid"),
    L.PackedSoftmax: _softmax,
    L.PackedTanh: _simple("Tanh"),
}
