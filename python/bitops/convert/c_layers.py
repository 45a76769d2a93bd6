"""The C code of each kind of layer: what it calls, and where its output goes."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from .. import layers as L
from ..layers import Layer, fold
from ..layers.planes import sum_planes
from ..layers.product import PackedFloatProduct, PackedProduct
from ..ops.array import BitArray, pack
from ..ops.geometry import make_window
from .c_program import Buffer, CProgram, known
from .errors import ConversionError

_INT32 = np.iinfo(np.int32)
_DTYPES = {"bytes": np.uint8, "int32_t": np.int32, "float": np.float32}


class Refusal(ConversionError):
    """Says why a layer has no form in C; `write_chain` adds its name."""


def write_chain(program: CProgram, layers: Sequence[Layer], x: Buffer, path: str = "") -> Buffer:
    """Add the code of layers, one behind the other; return their output.

    Parameters
    ----------
    path : str
        What the places of the layers begin with, such as "3_body_" within a block.
    """
    for place, layer in enumerate(layers):
        where = f"{path}{place}"
        name = f"[to_c] layer {where.replace('_', '.')}.{layer.name}"
        writer = WRITERS.get(type(layer))
        if writer is None:
            raise ConversionError(f"{name} has no form in C")
        try:
            x = writer(program, where, layer, x)
        except Refusal as error:
            raise ConversionError(f"{name}: {error}") from None
    return x


# Products


def _product(program: CProgram, where: str, layer: Any, x: Buffer) -> Buffer:
    if getattr(layer, "scale_input", False):
        return _scaled_product(program, where, layer, x)
    is_bits = x.kind == "bits"
    if layer.input_bits is not None and not (
        x.kind == "bytes" or (is_bits and layer.input_bits == 1)
    ):
        flows = "bits flow" if is_bits else "other numbers flow"
        raise Refusal(f"its input must be codes of {layer.input_bits} bits, but {flows}")
    if x.kind in ("bits", "bytes"):
        return _product_of_integers(program, where, layer, x)
    return _product_of_floats(program, where, layer, _floats(program, x))


def _product_of_integers(program: CProgram, where: str, layer: Any, x: Buffer) -> Buffer:
    is_bits = x.kind == "bits"
    are_units = layer.input_bits == 1 and is_bits
    operation = layer.operation.for_units() if are_units else layer.operation
    way = "sum_of_bits" if is_bits else "sum_of_bytes"
    inputs, shape = _inputs(program, where, layer, operation, x, way)
    if layer.threshold is not None:
        limits = program.table("limits", where, _limits(layer, are_units))
        flips = program.table("flips", where, _flags(layer.flip))
        y = program.new("bits", shape)
        program.call("threshold", *inputs, limits, flips, y)
        program.release(x)
        return y
    y = program.new("int32_t", shape)
    program.call("products", *inputs, y)
    program.release(x)
    if are_units:
        sums = program.table("sums", where, _sums(layer))
        program.call("units", y.pixels, y.shape[-1], sums, y, y)
    return _affine(program, where, y, layer.alpha, layer.bias)


def _product_of_floats(program: CProgram, where: str, layer: Any, x: Buffer) -> Buffer:
    inputs, shape = _inputs(program, where, layer, layer.operation, x, "sum_of_signs")
    if layer.threshold is not None:
        limits = program.table("limits", where, _rounded(layer.threshold, upward=False))
        flips = program.table("flips", where, _flags(layer.flip))
        y = program.new("bits", shape)
        program.call("real_threshold", *inputs, limits, flips, y)
        program.release(x)
        return y
    y = program.new("float", shape)
    program.call("real_products", *inputs, y)
    program.release(x)
    return _affine(program, where, y, layer.alpha, layer.bias)


def _scaled_product(program: CProgram, where: str, layer: Any, x: Buffer) -> Buffer:
    """Convolve the signs of numbers, and scale every output by alpha and by its factor of K."""
    if x.kind == "bits":
        raise Refusal("its input must be numbers, of which it takes the signs, but bits flow")
    x = _floats(program, x)
    means = program.new("float", (*x.shape[:-1], 1))
    program.call("magnitudes", x.pixels, x.shape[-1], x, means)
    signs = _signs(program, "0", "0", x)
    inputs, shape = _inputs(program, where, layer, layer.operation, signs, "sum_of_bits")
    factors = program.new("float", (*shape[:-1], 1))
    shapes = means.shape, factors.shape
    window = program.window(f"{where}_means", layer.name, shapes, layer.operation.windows)
    program.call("means", window, means, factors)
    program.release(means)
    sums = program.new("int32_t", shape)
    program.call("products", *inputs, sums)
    program.release(signs)
    y = _affine(program, where, _floats(program, sums), layer.alpha, None)
    y = _changed(program, y, "times_of_pixels", factors)
    program.release(factors)
    return _affine(program, where, y, None, layer.bias)


def _float_product(program: CProgram, where: str, layer: Any, x: Buffer) -> Buffer:
    x = _floats(program, x)
    inputs, shape = _inputs(program, where, layer, layer.operation, x, "sum_of_floats")
    y = program.new("float", shape)
    program.call("real_products", *inputs, y)
    program.release(x)
    return _affine(program, where, y, None, layer.bias)


def _inputs(
    program: CProgram, where: str, layer: Any, operation: Any, x: Buffer, way: str
) -> tuple[tuple[object, ...], tuple[int, ...]]:
    """Add windows and weights of a product; return its first arguments, and its output shape.

    Parameters
    ----------
    operation : Linear or Convolution
        That of the layer, or with another value outside the image.
    way : str
        The function that adds up the products of one window.
    """
    shapes = x.shape, known(layer.output_shape(x.shape))
    is_float = isinstance(layer, PackedFloatProduct)
    planes = 1 if is_float else len(layer.weights.planes.bits)
    groups, outside = getattr(operation, "groups", 1), operation.pad_value
    windows = getattr(operation, "windows", None)
    if outside and windows is not None and x.kind != "bits":
        image = x.shape[0], x.shape[1]
        if make_window(layer.name, image, windows.kernel_size, **windows.options).is_padded:
            raise Refusal(f"pad_value must be 0 unless its input is bits, got {outside}")
        outside = 0
    window = program.window(where, layer.name, shapes, windows, outside, planes, groups)
    weights = layer.weight if is_float else _words(layer.weight)
    given = None if is_float else layer.weights.coefficients
    coefficients = None if given is None else np.array(given, np.int32)
    program.used.add(way)
    inputs = (
        *(way, window, x, program.table("weights", where, weights)),
        program.table("coefficients", where, coefficients),
    )
    return inputs, shapes[1]


def _sums(layer: PackedProduct) -> np.ndarray:
    """Return the sum of each filter over its planes."""
    weights = layer.weights
    return sum_planes([part.copy() for part in weights.sums], weights.planes.coefficients)


def _limits(layer: PackedProduct, are_units: bool) -> np.ndarray:
    """Return int32 limits for sums: of +-1, where they may stand for 0 and 1, or of uint8.

    With d the sum for +-1 and s that of the weights, the sum for 0 and 1 is (d + s) / 2.
    """
    assert layer.threshold is not None
    limits = np.floor(layer.threshold.astype(np.float64))
    limits = np.clip(limits, _INT32.min, _INT32.max)
    if are_units:
        limits = np.clip(2 * limits - _sums(layer), _INT32.min, _INT32.max)
    return limits.astype(np.int32)


# Numbers


def _floats(program: CProgram, x: Buffer) -> Buffer:
    """Return a value as float; bits are +-1."""
    if x.kind == "float":
        return x
    if x.kind == "int32_t":  # a word each, as float
        y = program.instead(x, "float")
        program.call("floats_of_ints", x.pixels * x.shape[-1], x, y)
        return y
    y = program.new("float", x.shape)
    if x.kind == "bits":
        program.call("floats_of_bits", x.pixels, x.shape[-1], "-1.0f", "1.0f", x, y)
    else:
        program.call("floats_of_bytes", x.pixels * x.shape[-1], x, y)
    program.release(x)
    return y


def _changed(program: CProgram, x: Buffer, function: str, *settings: object) -> Buffer:
    """Apply a function to every number, with settings that go before the arrays."""
    x = _floats(program, x)
    y = program.instead(x, "float")
    program.call(function, x.pixels, x.shape[-1], *settings, x, y)
    return y


def _affine(
    program: CProgram, where: str, x: Buffer, alpha: np.ndarray | None, bias: np.ndarray | None
) -> Buffer:
    if alpha is None and bias is None:
        return x
    tables = (program.table("alpha", where, alpha), program.table("bias", where, bias))
    return _changed(program, x, "affine", *tables)


def _batch_norm(program: CProgram, where: str, layer: Any, x: Buffer) -> Buffer:
    return _affine(program, where, x, layer.alpha, layer.bias)


def _relu(program: CProgram, where: str, layer: Any, x: Buffer) -> Buffer:
    return _limited(program, x, 0.0, np.inf)


def _clip(program: CProgram, where: str, layer: Any, x: Buffer) -> Buffer:
    return _limited(program, x, layer.low, layer.high)


def _limited(program: CProgram, x: Buffer, low: float, high: float) -> Buffer:
    least, most = np.finfo(np.float32).min, np.finfo(np.float32).max
    texts = [_float(np.clip(limit, least, most)) for limit in (low, high)]
    return _changed(program, x, "clip", *texts)


def _float(number: float) -> str:
    """Return a number as a float literal of C."""
    return f"{float(np.float32(number)).hex()}f"


def _prelu(program: CProgram, where: str, layer: Any, x: Buffer) -> Buffer:
    return _changed(program, x, "prelu", program.table("slopes", where, layer.slope))


def _sign(program: CProgram, where: str, layer: Any, x: Buffer) -> Buffer:
    x = _floats(program, x)
    limits = None if layer.threshold is None else _rounded(layer.threshold, upward=False)
    tables = (
        program.table("limits", where, limits),
        program.table("flips", where, _flags(layer.flip)),
    )
    return _signs(program, *tables, x)


def _signs(program: CProgram, limits: str, flips: str, x: Buffer) -> Buffer:
    y = program.new("bits", x.shape)
    program.call("signs", x.pixels, x.shape[-1], limits, flips, x, y)
    program.release(x)
    return y


def _rounded(thresholds: np.ndarray, *, upward: bool) -> np.ndarray:
    """Return the nearest float32 on one side, finite: it decides on float32 as the number does."""
    exact = thresholds.astype(np.float64)
    near = thresholds.astype(np.float32)
    wrong = near < exact if upward else near > exact
    end = np.float32(np.inf if upward else -np.inf)
    near[wrong] = np.nextafter(near[wrong], end)
    limits = np.finfo(np.float32)
    return np.clip(near, limits.min, limits.max)


def _multi_threshold(program: CProgram, where: str, layer: Any, x: Buffer) -> Buffer:
    return _codes(program, where, _rounded(layer.threshold, upward=True), x)


def _quantize(program: CProgram, where: str, layer: Any, x: Buffer) -> Buffer:
    steps = np.arange(1, 2 ** layer.output_bits(None), dtype=np.float32) - np.float32(0.5)
    below, _ = fold(lambda z: layer.forward(z).astype(np.float32) - steps, steps.size)
    threshold = np.nextafter(below.astype(np.float32), np.float32(np.inf))[np.newaxis]
    return _codes(program, where, threshold, x)


def _codes(program: CProgram, where: str, threshold: np.ndarray, x: Buffer) -> Buffer:
    x = _floats(program, x)
    y = program.new("bytes", x.shape)
    table = program.table("thresholds", where, threshold)
    rows, levels = threshold.shape
    sizes = (x.pixels * x.shape[-1], rows, levels)
    program.call("codes", *sizes, table, x, f"(uint8_t *)({y})")
    program.release(x)
    return y


def _levels(program: CProgram, where: str, layer: Any, x: Buffer) -> Buffer:
    step = _float(layer.step)
    if x.kind != "bits":
        return _changed(program, x, "scale", step)
    y = program.new("float", x.shape)  # the bits are the codes 0 and 1
    program.call("floats_of_bits", x.pixels, x.shape[-1], "0.0f", step, x, y)
    program.release(x)
    return y


def _rprelu(program: CProgram, where: str, layer: Any, x: Buffer) -> Buffer:
    names = ("shift", "slope", "offset")
    tables = [program.table(f"{name}s", where, getattr(layer, name)) for name in names]
    return _changed(program, x, "rprelu", *tables)


def _sigmoid(program: CProgram, where: str, layer: Any, x: Buffer) -> Buffer:
    return _changed(program, x, "sigmoid")


def _tanh(program: CProgram, where: str, layer: Any, x: Buffer) -> Buffer:
    return _changed(program, x, "tanh_of")


def _softmax(program: CProgram, where: str, layer: Any, x: Buffer) -> Buffer:
    return _changed(program, x, "softmax")


def _pad_features(program: CProgram, where: str, layer: Any, x: Buffer) -> Buffer:
    x = _floats(program, x)
    y = program.new("float", known(layer.output_shape(x.shape)))
    sizes = x.pixels, x.shape[-1], layer.before, layer.after
    program.call("pad_features", *sizes, x, y)
    program.release(x)
    return y


# Images


def _max_pool(program: CProgram, where: str, layer: Any, x: Buffer) -> Buffer:
    is_bits = x.kind == "bits"
    if not is_bits:
        x = _floats(program, x)
    shapes = x.shape, known(layer.output_shape(x.shape))
    window = program.window(where, layer.name, shapes, layer.windows)
    minimum = program.table("minimum", where, _flags(layer.minimum))
    y = program.new(x.kind, shapes[1])
    program.call("pool" if is_bits else "maxima", window, x, minimum, y)
    program.release(x)
    return y


def _average_pool(program: CProgram, where: str, layer: Any, x: Buffer) -> Buffer:
    x = _floats(program, x)
    shapes = x.shape, known(layer.output_shape(x.shape))
    y = program.new("float", shapes[1])
    program.call("means", program.window(where, layer.name, shapes, layer.windows), x, y)
    program.release(x)
    return y


def _global_average_pool(program: CProgram, where: str, layer: Any, x: Buffer) -> Buffer:
    if len(x.shape) != 3:
        raise Refusal("its input must be images")
    x = _floats(program, x)
    y = program.new("float", x.shape[-1:])
    program.call("mean_of_pixels", x.pixels, x.shape[-1], x, y)
    program.release(x)
    return y


def _flatten(program: CProgram, where: str, layer: Any, x: Buffer) -> Buffer:
    target = known(layer.output_shape(x.shape))
    if not (x.kind == "bits" and x.pixels > 1 and x.shape[-1] % 32):
        return Buffer(x.kind, target, x.place)
    y = program.new("bits", target)
    program.call("flatten", x.pixels, x.shape[-1], x, y)
    program.release(x)
    return y


def _reshape(program: CProgram, where: str, layer: Any, x: Buffer) -> Buffer:
    """Change the axes of images and sequences, whose numbers lie in the same order."""
    return Buffer(x.kind, known(layer.output_shape(x.shape)), x.place)


def _pad(program: CProgram, where: str, layer: Any, x: Buffer) -> Buffer:
    if x.kind == "bits" and layer.value not in (-1, 1):
        raise Refusal(f"its value must be +1 or -1 for bits, got {layer.value:g}")
    if x.kind == "bytes" and not (float(layer.value).is_integer() and 0 <= layer.value <= 255):
        x = _floats(program, x)
    if x.kind == "int32_t" and not float(layer.value).is_integer():
        x = _floats(program, x)
    height, width, channels = x.shape
    pixel = np.full(channels, layer.value, _DTYPES.get(x.kind))
    pixel = _words(pack(pixel)) if x.kind == "bits" else pixel
    outside = program.table("outside", where, pixel)
    y = program.new(x.kind, known(layer.output_shape(x.shape)))
    (top, _), (left, _) = layer.padding
    sizes = height, width, pixel.nbytes, top, left, *y.shape[:2]
    program.call("surround", *sizes, outside, x, y)
    program.release(x)
    return y


# Branches


def _branches(program: CProgram, where: str, layer: Any, x: Buffer) -> tuple[Buffer, Buffer]:
    """Add both branches; return their outputs as float."""
    program.hold(x)
    main = _floats(program, write_chain(program, layer.body.layers, x, f"{where}_body_"))
    other = x
    if layer.shortcut is not None:
        other = write_chain(program, layer.shortcut.layers, x, f"{where}_shortcut_")
    return main, _floats(program, other)


def _residual(program: CProgram, where: str, layer: Any, x: Buffer) -> Buffer:
    main, other = _branches(program, where, layer, x)
    if main.shape != other.shape:
        raise Refusal(f"both branches must give one shape, got {main.shape} and {other.shape}")
    y = program.instead(main, "float")
    program.call("add", main.pixels * main.shape[-1], main, other, y)
    program.release(other)
    return y


def _multiply(program: CProgram, where: str, layer: Any, x: Buffer) -> Buffer:
    main, other = _branches(program, where, layer, x)
    is_row = other.shape == main.shape[-1:]
    if not is_row and main.shape != other.shape:
        raise Refusal(
            f"its shortcut must give the shape of the body, or a row of factors, got "
            f"{main.shape} and {other.shape}"
        )
    y = program.instead(main, "float")
    factors = math.prod(other.shape)
    program.call("times", main.pixels * main.shape[-1], factors, main, other, y)
    program.release(other)
    return y


def _concat(program: CProgram, where: str, layer: Any, x: Buffer) -> Buffer:
    main, other = _branches(program, where, layer, x)
    sizes = main.shape[-1], other.shape[-1]
    y = program.new("float", (*main.shape[:-1], sum(sizes)))
    program.call("beside", main.pixels, *sizes, main, other, y)
    program.release(main)
    program.release(other)
    return y


def _words(bits: BitArray) -> np.ndarray:
    """Return bits in words of 32, those of the last axis without unused words."""
    halves = bits.words.astype("<u8").view("<u4")[..., : -(-bits.shape[-1] // 32)]
    return np.ascontiguousarray(halves).astype(np.uint32)


def _flags(values: np.ndarray | None) -> np.ndarray | None:
    return None if values is None else _words(pack(values))


Writer = Callable[[CProgram, str, Any, Buffer], Buffer]
WRITERS: dict[type[Layer], Writer] = {
    L.FloatConv2D: _float_product,
    L.FloatDense: _float_product,
    L.PackedAsImages: _reshape,
    L.PackedAsSequences: _reshape,
    L.PackedAvgPool2D: _average_pool,
    L.PackedBatchNorm: _batch_norm,
    L.PackedClip: _clip,
    L.PackedConcat: _concat,
    L.PackedConv2D: _product,
    L.PackedDense: _product,
    L.PackedFlatten: _flatten,
    L.PackedGlobalAvgPool2D: _global_average_pool,
    L.PackedLevels: _levels,
    L.PackedMaxPool2D: _max_pool,
    L.PackedMultiThreshold: _multi_threshold,
    L.PackedMultiply: _multiply,
    L.PackedPReLU: _prelu,
    L.PackedPad2D: _pad,
    L.PackedPadFeatures: _pad_features,
    L.PackedPlanesConv2D: _product,
    L.PackedPlanesDense: _product,
    L.PackedQuantize: _quantize,
    L.PackedRPReLU: _rprelu,
    L.PackedReLU: _relu,
    L.PackedResidual: _residual,
    L.PackedSigmoid: _sigmoid,
    L.PackedSign: _sign,
    L.PackedSoftmax: _softmax,
    L.PackedTanh: _tanh,
}
