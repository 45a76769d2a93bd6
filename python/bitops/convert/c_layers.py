"""The C code of each kind of layer: what it calls, and where its output goes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from .. import layers as L
from ..layers import Layer, fold
from ..layers.planes import sum_planes
from ..layers.product import PackedProduct
from ..ops.array import BitArray, pack
from .c_program import Buffer, CProgram, known
from .errors import ConversionError

_INT32 = np.iinfo(np.int32)


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
    operation = layer.operation
    is_bits = x.kind == "bits"
    are_units = layer.input_bits == 1 and is_bits
    if x.kind not in ("bits", "bytes"):
        raise Refusal("its input must be bits, codes or 8-bit numbers, but others flow")
    if getattr(layer, "scale_input", False):
        raise Refusal("scale_input is not supported")
    if are_units and layer.threshold is None:
        raise Refusal("scores of bits that stand for 0 and 1 are not supported")
    if layer.input_bits not in (None, 1) and is_bits:
        raise Refusal(f"its input must be codes of {layer.input_bits} bits, but bits flow")
    on_bits = operation.for_units() if are_units else operation
    if on_bits.pad_value and not is_bits:
        raise Refusal(f"pad_value must be 0 for uint8, got {on_bits.pad_value}")
    shapes = x.shape, known(layer.output_shape(x.shape))
    window = program.window(
        where,
        layer.name,
        shapes,
        getattr(operation, "windows", None),
        on_bits.pad_value,
        len(layer.weights.planes.bits),
        getattr(operation, "groups", 1),
    )
    given = layer.weights.coefficients
    coefficients = None if given is None else np.array(given, np.int32)
    program.used.add(way := "sum_of_bits" if is_bits else "sum_of_bytes")
    inputs = (
        *(way, window, x, program.table("weights", where, _words(layer.weight))),
        program.table("coefficients", where, coefficients),
    )
    if layer.threshold is not None:
        limits = program.table("limits", where, _limits(layer, are_units))
        flips = program.table("flips", where, _flags(layer.flip))
        y = program.new("bits", shapes[1])
        program.call("threshold", *inputs, limits, flips, y)
        program.release(x)
        return y
    y = program.new("int32_t", shapes[1])
    program.call("products", *inputs, y)
    program.release(x)
    if layer.alpha is None and layer.bias is None:
        return y
    return _affine(program, where, y, layer.alpha, layer.bias)


def _limits(layer: PackedProduct, are_units: bool) -> np.ndarray:
    """Return int32 limits for sums: of +-1, where they may stand for 0 and 1, or of uint8.

    With d the sum for +-1 and s that of the weights, the sum for 0 and 1 is (d + s) / 2.
    """
    assert layer.threshold is not None
    limits = np.floor(layer.threshold.astype(np.float64))
    limits = np.clip(limits, _INT32.min, _INT32.max)
    if are_units:
        weights = layer.weights
        s = sum_planes([part.copy() for part in weights.sums], weights.planes.coefficients)
        limits = np.clip(2 * limits - s, _INT32.min, _INT32.max)
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
        program.call("floats_of_bits", x.pixels, x.shape[-1], x, y)
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
    texts = [f"{float(np.float32(np.clip(limit, least, most))).hex()}f" for limit in (low, high)]
    return _changed(program, x, "clip", *texts)


def _prelu(program: CProgram, where: str, layer: Any, x: Buffer) -> Buffer:
    return _changed(program, x, "prelu", program.table("slopes", where, layer.slope))


def _sign(program: CProgram, where: str, layer: Any, x: Buffer) -> Buffer:
    x = _floats(program, x)
    limits = None if layer.threshold is None else _rounded(layer.threshold, upward=False)
    tables = (
        program.table("limits", where, limits),
        program.table("flips", where, _flags(layer.flip)),
    )
    y = program.new("bits", x.shape)
    program.call("signs", x.pixels, x.shape[-1], *tables, x, y)
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
    if x.kind != "bytes":
        raise Refusal("its input must be codes of several bits")
    return _changed(program, x, "scale", f"{float(np.float32(layer.step)).hex()}f")


# Images


def _max_pool(program: CProgram, where: str, layer: Any, x: Buffer) -> Buffer:
    is_bits = x.kind == "bits"
    if not is_bits:
        if layer.minimum is not None:
            raise Refusal("a minimum of numbers is not supported")
        x = _floats(program, x)
    shapes = x.shape, known(layer.output_shape(x.shape))
    window = program.window(where, layer.name, shapes, layer.windows)
    y = program.new(x.kind, shapes[1])
    if is_bits:
        minimum = program.table("minimum", where, _flags(layer.minimum))
        program.call("pool", window, x, minimum, y)
    else:
        program.call("maxima", window, x, y)
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
    L.PackedPReLU: _prelu,
    L.PackedPlanesConv2D: _product,
    L.PackedPlanesDense: _product,
    L.PackedQuantize: _quantize,
    L.PackedReLU: _relu,
    L.PackedResidual: _residual,
    L.PackedSign: _sign,
}
