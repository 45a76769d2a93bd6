"""Random packed layers and inputs, whose outputs must be those of a few lines of NumPy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

import bitops as bo
from bitops import layers, reference
from bitops.ops.geometry import make_window
from bitops.reference.windows import window_values
from fuzz.calls import random_window
from fuzz.judge import Memory, assert_same, plain_shape, sign_refusal, window_refusal
from fuzz.operands import array, bits, plain
from fuzz.reader import Reader, allowed

ROWS, FEATURES = (0, 1, 2, 3, 9, 17), (1, 2, 3, 5, 63, 64, 65, 130)
SMALL = ("i1", "f4", "f8", "i4", "u1", "f2", "?")
SCALES = ("alpha", "bias", "slope", "shift", "offset")
WINDOW = ("stride", "padding", "dilation")


class RefusedError(Exception):
    """Raised where values between a layer's input and its output have no sign."""


class Drawn(NamedTuple):
    """A layer's arguments, and an input."""

    arguments: dict[str, Any]
    x: Any


class Kind(NamedTuple):
    """A class of layers: how it is drawn, and what it must compute of its arguments and input."""

    draw: Callable[[Reader], Drawn]
    twin: Callable[..., Any]


def _features(reader: Reader) -> tuple[int, int, int]:
    return reader.choice(ROWS), reader.choice(FEATURES), reader.choice(FEATURES)


def _images(reader: Reader) -> tuple[int, ...]:
    sizes = (1, 2, 3, 4, 5)
    return (
        reader.choice((0, 1, 2)),
        reader.choice(sizes),
        reader.choice(sizes),
        reader.choice(FEATURES),
    )


def _input(reader: Reader, shape: tuple[int, ...], code_bits: int | None = None) -> Any:
    """Bits, codes or numbers; those that a layer of codes takes, if their bits are given."""
    kind = reader.below(8)
    if kind < 3 and code_bits in (None, 1):
        x = bits(reader, shape)
        return x.bits if isinstance(x, bo.Prepacked) else x
    if code_bits is not None and kind < 7:
        return array(reader, shape, ("u1",)) >> 8 - code_bits if shape else None
    return array(reader, shape, SMALL)


def _numbers(reader: Reader, n: int) -> Any:
    """Factors or terms, one a feature or one for all."""
    return array(reader, reader.choice(((n,), (n,), ())), ("f4", "f8", "i4", "i1"))


def _ends(reader: Reader, n: int) -> dict[str, Any]:
    """What follows a product: thresholds, or scales, or nothing."""
    kind = reader.below(3)
    if kind == 0:
        threshold = array(reader, (n,), ("i4", "f4", "i8", "f8", "i1"))
        return {"threshold": threshold, "flip": array(reader, (n,), ("?",))}
    if kind == 1:
        return {"alpha": _numbers(reader, n), "bias": _numbers(reader, n)}
    return {}


def _codes(reader: Reader) -> dict[str, Any]:
    return {"input_bits": reader.choice((1, 1, 2, 4, 8))} if reader.chance(3) else {}


def _dense(reader: Reader) -> Drawn:
    m, n, k = _features(reader)
    arguments = {"w": bits(reader, (n, k)), **_ends(reader, n), **_codes(reader)}
    shape = reader.choice(((m, k), (m, k), (2, m, k)))
    return Drawn(arguments, _input(reader, shape, arguments.get("input_bits")))


def _planes(reader: Reader) -> Drawn:
    (arguments, x), count = _dense(reader), 1 + reader.below(3)
    n, k = plain_shape(arguments["w"]).shape
    coefficients = [1 + reader.below(3) for _ in range(count)]
    return Drawn({**arguments, "w": bits(reader, (count, n, k)), "coefficients": coefficients}, x)


def _filters(reader: Reader) -> tuple[tuple[int, ...], tuple[int, ...], dict[str, Any]]:
    """Shapes of images and filters, and settings."""
    n, height, width, share = _images(reader)
    groups = reader.choice((1, 1, 1, 2, 3))
    filters = (reader.choice((1, 2, 3, 17)) * groups, 1 + reader.below(3), 1 + reader.below(3))
    settings = {**random_window(reader), "groups": groups}
    return (n, height, width, share * groups), (*filters, share), settings


def _conv(reader: Reader) -> Drawn:
    x, w, settings = _filters(reader)
    arguments = {"w": bits(reader, w), **_ends(reader, w[0]), **settings}
    if reader.chance(4):
        arguments["pad_value"] = reader.choice((1, -1))
    else:
        arguments |= _codes(reader)
    if reader.chance(6) and not {"threshold", "input_bits"} & {*arguments}:
        return Drawn({**arguments, "scale_input": True}, array(reader, x, ("f4", "i1", "f8")))
    return Drawn(arguments, _input(reader, x, arguments.get("input_bits")))


def _conv_planes(reader: Reader) -> Drawn:
    arguments, x = _conv(reader)
    arguments.pop("scale_input", None)
    count = 1 + reader.below(3)
    w = bits(reader, (count, *plain_shape(arguments["w"]).shape))
    coefficients = [1 + reader.below(3) for _ in range(count)]
    return Drawn({**arguments, "w": w, "coefficients": coefficients}, x)


def _float_dense(reader: Reader) -> Drawn:
    """Integers, whose sums float32 holds in any order."""
    m, n, k = _features(reader)
    bias = {"bias": array(reader, (n,), ("f4", "i1"))} if reader.chance(2) else {}
    x = array(reader, (m, k), ("i1",))
    x = bo.pack(x) if reader.chance(3) and not isinstance(x, np.ma.MaskedArray) else x
    return Drawn({"w": array(reader, (n, k), ("i1",)), **bias}, x)


def _float_conv(reader: Reader) -> Drawn:
    x, w, settings = _filters(reader)
    # 64 x 128 x 1170 terms stay below 2^24
    return Drawn({"w": array(reader, w, ("i1",)), **settings}, array(reader, x, ("i1", "u1")) >> 2)


def _affine(reader: Reader) -> Drawn:
    m, n, _ = _features(reader)
    scales = {name: array(reader, (n,), ("f4", "f8", "i1")) for name in ("alpha", "bias")}
    return Drawn(scales, _input(reader, (m, n)))


def _sign(reader: Reader) -> Drawn:
    m, n, _ = _features(reader)
    arguments = _ends(reader, n)
    return Drawn(arguments if "threshold" in arguments else {}, _input(reader, (m, n)))


def _quantize(reader: Reader) -> Drawn:
    arguments = {"bits": 1 + reader.below(8), "clip_value": reader.choice((1.0, 2.0, 1 / 3))}
    return Drawn(arguments, _input(reader, _features(reader)[:2]))


def _levels(reader: Reader) -> Drawn:
    return Drawn({"step": reader.choice((1.0, 0.5, 1 / 3))}, _input(reader, _features(reader)[:2]))


def _plain_layer(reader: Reader) -> Drawn:
    return Drawn({}, _input(reader, _features(reader)[:2]))


def _image_layer(reader: Reader) -> Drawn:
    return Drawn({}, _input(reader, _images(reader)))


def _sequences(reader: Reader) -> Drawn:
    n, _, length, features = _images(reader)
    return Drawn({}, _input(reader, (n, length, features)))


def _flat_images(reader: Reader) -> Drawn:
    n, _, length, features = _images(reader)
    return Drawn({}, _input(reader, (n, 1, length, features)))


def _pool(reader: Reader) -> Drawn:
    settings = {"kernel_size": reader.choice((1, 2, (2, 1), (1, 3))), **random_window(reader)}
    settings.pop("dilation", None)
    return Drawn(settings, _input(reader, _images(reader)))


def _pad(reader: Reader) -> Drawn:
    settings = {
        "padding": reader.choice((0, 1, (2, 0), ((0, 1), (3, 0)))),
        "value": reader.choice((1, -1)),
    }
    return Drawn(settings, _input(reader, _images(reader)))


def _clip(reader: Reader) -> Drawn:
    limits = {"low": reader.choice((-1.0, 0.0, None)), "high": reader.choice((1.0, 100.5, None))}
    return Drawn(limits, _input(reader, _features(reader)[:2]))


def _prelu(reader: Reader) -> Drawn:
    m, n, _ = _features(reader)
    return Drawn({"slope": array(reader, (n,), ("f4", "f8", "i1"))}, _input(reader, (m, n)))


def _rprelu(reader: Reader) -> Drawn:
    m, n, _ = _features(reader)
    names = ("shift", "slope", "offset")
    return Drawn(
        {name: array(reader, (n,), ("f4", "f8", "i1")) for name in names}, _input(reader, (m, n))
    )


def _pad_features(reader: Reader) -> Drawn:
    m, n, _ = _features(reader)
    sides = {name: reader.choice((0, 1, 64)) for name in ("before", "after")}
    return Drawn({"features": n, **sides}, _input(reader, (m, n)))


def _multi_threshold(reader: Reader) -> Drawn:
    m, n, _ = _features(reader)
    shape = reader.choice((n, n, 1)), 1 + reader.below(5)
    threshold = np.sort(np.asarray(array(reader, shape, ("i1", "i4", "f4"))), axis=1)
    return Drawn({"threshold": threshold}, _input(reader, (m, n)))


def _max_pool(reader: Reader) -> Drawn:
    settings, x = _pool(reader)
    channels = plain_shape(x).shape[-1]
    if reader.chance(3):
        settings["minimum"] = array(reader, (channels,), ("?",))
    return Drawn(settings, x)


# ---- what they compute --------------------------------------------------------------------------


def _values(x: Any) -> np.ndarray:
    """An input as layers see it: +-1 in int8 for bits, else uint8, int32 or float32."""
    if isinstance(x, bo.BitArray):
        return np.asarray(x)
    x = np.asarray(x)
    return x if x.dtype in (np.uint8, np.int32) else x.astype(np.float32)


def _product(x: Any, w: np.ndarray, code_bits: int | None, settings: dict[str, Any]) -> np.ndarray:
    """Products of an input with one plane, by the function for what flows in."""
    conv = w.ndim == 4
    outside = {"pad_value": settings.get("pad_value", 0)} if conv else {}
    options = {key: settings[key] for key in settings if key != "pad_value"}
    if isinstance(x, bo.BitArray) and code_bits != 1:
        call = reference.conv2d if conv else reference.gemm
        return call(np.asarray(x), w, **options, **outside)
    numbers = np.asarray(x, bool).astype(np.uint8) if isinstance(x, bo.BitArray) else _values(x)
    if numbers.dtype == np.uint8:
        call = reference.bitplane_conv2d if conv else reference.bitplane_gemm
        return call(numbers, w, **options)
    return (reference.weight_conv2d if conv else reference.weight_gemm)(numbers, w, **options)


def _packed(x: Any, w: Any, coefficients: Any = None, **arguments: Any) -> Any:
    """The output of a product of bits, or of a sum of such."""
    w = np.asarray(plain(w))
    ends = {key: arguments.pop(key, None) for key in ("threshold", "flip", "alpha", "bias")}
    code_bits, scale = arguments.pop("input_bits", None), arguments.pop("scale_input", False)
    if scale:
        outside = arguments.pop("pad_value", 0)
        numbers = np.asarray(x, np.float32)
        window = {key: value for key, value in arguments.items() if key != "groups"}
        k_map = reference.k_map(numbers, w.shape[1:3], **window)
        scales = {"alpha": ends["alpha"], "bias": ends["bias"], "k_map": k_map}
        return reference.conv2d(numbers, w, pad_value=outside, **arguments, **scales)
    planes, factors = ([w], [1]) if coefficients is None else (list(w), coefficients)
    products = [_product(x, plane, code_bits, arguments) for plane in planes]
    z = products[0] * products[0].dtype.type(factors[0])
    for factor, product in zip(factors[1:], products[1:], strict=True):
        z += product * product.dtype.type(factor)
    return _finish(z, **ends)


def _finish(z: np.ndarray, threshold: Any, flip: Any, alpha: Any, bias: Any) -> np.ndarray:
    if threshold is not None:
        if np.isnan(z).any():
            raise RefusedError("infinity minus infinity")
        return reference.pack_above(z, _threshold(threshold), flip=flip)
    if alpha is None and bias is None:
        return z
    z = z.astype(np.float32)
    z = z if alpha is None else z * np.asarray(alpha, np.float32)
    return z if bias is None else z + np.asarray(bias, np.float32)


def _threshold(threshold: Any) -> np.ndarray:
    """Thresholds as layers keep them: float32, or integers clipped to int32."""
    threshold = np.asarray(threshold)
    if threshold.dtype.kind == "f":
        return threshold.astype(np.float32)
    ends = np.iinfo(np.int32)
    return np.clip(threshold, ends.min, ends.max).astype(np.int32)


def _float_dense_twin(x: Any, w: Any, bias: Any = 0.0) -> np.ndarray:
    y = (np.asarray(x).astype(np.float64) @ np.asarray(w, np.float64).T).astype(np.float32)
    return y + np.asarray(bias, np.float32)


def _float_conv_twin(x: Any, w: Any, groups: int, **settings: Any) -> np.ndarray:
    x, w = np.asarray(x, np.float64), np.asarray(w, np.float64)
    window = make_window("FloatConv2D", x.shape[1:3], w.shape[1:3], **settings)
    seen = window_values(x, window, 0)
    share, count = w.shape[3], len(w) // groups
    parts = [
        np.einsum(
            "...yxc,oyxc->...o",
            seen[..., g * share : (g + 1) * share],
            w[g * count : (g + 1) * count],
        )
        for g in range(groups)
    ]
    return np.concatenate(parts, axis=-1).astype(np.float32)


def _sign_twin(x: Any, threshold: Any = None, flip: Any = None) -> np.ndarray:
    values = _values(x).astype(np.float32)
    if threshold is None:
        return reference.sign(values)
    return reference.pack_above(values, _threshold(threshold), flip=flip)


def _quantize_twin(x: Any, bits: int, clip_value: float) -> np.ndarray:
    share = np.clip(_values(x).astype(np.float32) / np.float32(clip_value), 0, 1)
    return np.rint(share * np.float32(2**bits - 1)).astype(np.uint8)


def _levels_twin(x: Any, step: float) -> np.ndarray:
    codes = np.asarray(x, bool) if isinstance(x, bo.BitArray) else _values(x)
    return codes.astype(np.float32) * np.float32(step)


def _max_pool_twin(x: Any, minimum: Any = None, **settings: Any) -> np.ndarray:
    values = _values(x)
    largest = reference.max_pool2d(values, **settings)
    if minimum is None:
        return largest
    wide = values.astype(np.float64)  # -x of every integer is there
    smallest = (-reference.max_pool2d(-wide, **settings)).astype(values.dtype)
    return np.where(np.asarray(minimum), smallest, largest)


def _pad_twin(x: Any, padding: Any, value: float) -> np.ndarray:
    sides = np.array(padding)
    sides = np.stack([sides, sides], axis=1) if sides.shape == (2,) else sides
    pairs = np.broadcast_to(sides, (2, 2)).tolist()
    values = _values(x)
    if values.dtype == np.uint8 and value < 0:
        values = values.astype(np.float32)
    return np.pad(values, ((0, 0), *pairs, (0, 0)), constant_values=value)


def _clip_twin(x: Any, low: Any, high: Any) -> np.ndarray:
    low, high = -np.inf if low is None else low, np.inf if high is None else high
    return np.clip(_as_float(x), np.float32(low), np.float32(high))


def _prelu_twin(x: Any, slope: Any) -> np.ndarray:
    values = _as_float(x)
    return np.where(values < 0, values * np.asarray(slope, np.float32), values) + np.float32(0)


def _rprelu_twin(x: Any, shift: Any, slope: Any, offset: Any) -> np.ndarray:
    with np.errstate(all="ignore"):
        y = _prelu_twin(_as_float(x) - np.asarray(shift, np.float32), slope)
        return y + np.asarray(offset, np.float32)


def _sigmoid_twin(x: Any) -> np.ndarray:
    with np.errstate(all="ignore"):
        return 1 / (1 + np.exp(-_as_float(x)))


def _pad_features_twin(x: Any, features: int, before: int, after: int) -> np.ndarray:
    return np.pad(_as_float(x), ((0, 0), (before, after)))


def _multi_threshold_twin(x: Any, threshold: np.ndarray) -> np.ndarray:
    values = _values(x)
    if np.isnan(values).any():
        raise RefusedError("NaN")
    if not (threshold.dtype.kind == "i" and values.dtype.kind in "iu"):
        values, threshold = values.astype(np.float32), threshold.astype(np.float32)
    reached = values[..., np.newaxis].astype(np.float64) >= threshold.astype(np.float64)
    return reached.sum(axis=-1).astype(np.uint8)


def _softmax_twin(x: Any) -> np.ndarray:
    values = np.ascontiguousarray(_as_float(x))
    with np.errstate(all="ignore"):
        y = np.exp(values - values.max(axis=-1, keepdims=True, initial=-np.inf))
        return y / y.sum(axis=-1, keepdims=True)


def _flat_twin(x: Any) -> np.ndarray:
    values = _values(x)
    return values.reshape(len(values), int(np.prod(values.shape[1:])))


def _as_float(x: Any) -> np.ndarray:
    return _values(x).astype(np.float32)


KINDS: dict[str, Kind] = {
    "PackedDense": Kind(_dense, _packed),
    "PackedConv2D": Kind(_conv, _packed),
    "PackedPlanesDense": Kind(_planes, _packed),
    "PackedPlanesConv2D": Kind(_conv_planes, _packed),
    "FloatDense": Kind(_float_dense, _float_dense_twin),
    "FloatConv2D": Kind(_float_conv, _float_conv_twin),
    "PackedBatchNorm": Kind(
        _affine,
        lambda x, alpha, bias: _finish(_as_float(x), None, None, alpha, bias),
    ),
    "PackedSign": Kind(_sign, _sign_twin),
    "PackedQuantize": Kind(_quantize, _quantize_twin),
    "PackedLevels": Kind(_levels, _levels_twin),
    "PackedReLU": Kind(_plain_layer, lambda x: np.maximum(_as_float(x), 0)),
    "PackedTanh": Kind(_plain_layer, lambda x: np.tanh(_as_float(x))),
    "PackedMaxPool2D": Kind(_max_pool, _max_pool_twin),
    "PackedAvgPool2D": Kind(_pool, lambda x, **s: reference.avg_pool2d(_as_float(x), **s)),
    "PackedGlobalAvgPool2D": Kind(
        _image_layer, lambda x: reference.global_avg_pool2d(_as_float(x))
    ),
    "PackedFlatten": Kind(_image_layer, _flat_twin),
    "PackedAsImages": Kind(_sequences, lambda x: _values(x)[:, np.newaxis]),
    "PackedAsSequences": Kind(_flat_images, lambda x: _values(x)[:, 0]),
    "PackedPad2D": Kind(_pad, _pad_twin),
    "PackedClip": Kind(_clip, _clip_twin),
    "PackedPReLU": Kind(_prelu, _prelu_twin),
    "PackedRPReLU": Kind(_rprelu, _rprelu_twin),
    "PackedSigmoid": Kind(_plain_layer, _sigmoid_twin),
    "PackedPadFeatures": Kind(_pad_features, _pad_features_twin),
    "PackedMultiThreshold": Kind(_multi_threshold, _multi_threshold_twin),
    "PackedSoftmax": Kind(_plain_layer, _softmax_twin),
}


# ---- calls ----------------------------------------------------------------------------------


class Call(NamedTuple):
    """A layer and an input, drawn but not made."""

    name: str
    arguments: dict[str, Any]
    x: Any

    def __str__(self) -> str:
        return f"layers.{self.name}(**{self.arguments!r:.2000})({self.x!r:.600})"

    def make(self, reader: Reader) -> str:
        """Make the layer, run it, and check what comes of it."""
        name, arguments, x = self
        memory = Memory([*arguments.values(), x])
        reason = _refusal(name, arguments, x)
        try:
            wanted = None if reason else KINDS[name].twin(x, **arguments)
        except RefusedError as error:
            reason = str(error)
        if reason is None:
            got = getattr(layers, name)(**arguments).forward(x)
            assert_same(got, wanted, any_zero="MaxPool" in name)
            memory.assert_unchanged()
            return "equal"
        with allowed():
            getattr(layers, name)(**arguments).forward(x)
            raise AssertionError(f"a layer was made, and ran, that must be refused: {reason}")
        return "refused"


def draw(reader: Reader) -> Call:
    name = reader.choice(tuple(KINDS))
    return Call(name, *KINDS[name].draw(reader))


def _refusal(name: str, arguments: dict[str, Any], x: Any) -> str | None:
    """Why a layer, or its input, must be refused; None if it must run."""
    if any(isinstance(item, np.ma.MaskedArray) for item in (*arguments.values(), x)):
        return "masked"
    if "w" in arguments and "Float" not in name:
        w = arguments["w"]
        reason = sign_refusal("layer", 0, w)
        if reason:
            return reason
        if not isinstance(w, bo.BitArray | bo.Prepacked):
            w = np.asarray(w)
            if w.dtype.kind == "i" and (abs(w.astype(np.float64)) != 1).any():
                return "integers other than -1 and +1"
    if any(not np.isfinite(np.asarray(arguments.get(key, 0), np.float32)).all() for key in SCALES):
        return "a scale that is not finite"
    if np.isnan(np.asarray(arguments.get("threshold", 0), np.float64)).any():
        return "NaN"
    return _window_refusal(name, arguments, x) or _input_refusal(name, arguments, x)


def _window_refusal(name: str, arguments: dict[str, Any], x: Any) -> str | None:
    if "Global" in name:
        return window_refusal("global_avg_pool2d", [plain_shape(x)], {})
    if "Pool" in name:
        images = np.broadcast_to(np.int8(1), plain_shape(x).shape)
        return window_refusal("avg_pool2d", [images, arguments["kernel_size"]], arguments)
    if "Conv" not in name:
        return None
    w = plain_shape(arguments["w"])
    plane = np.broadcast_to(np.int8(1), w.shape[-4:])
    return window_refusal("conv2d", [x, plane], arguments)


def _input_refusal(name: str, arguments: dict[str, Any], x: Any) -> str | None:
    """Why an input must be refused."""
    if isinstance(x, bo.BitArray):
        if x.axis != x.ndim - 1:
            return "axis"
        if arguments.get("input_bits", 1) != 1:
            return "no codes"
        return "bits" if arguments.get("scale_input") else None
    x = np.asarray(x)
    if x.dtype == np.bool_:
        return "bool"
    if arguments.get("input_bits") and x.dtype != np.uint8:
        return "no codes"
    if "input_bits" in arguments and x.size and int(x.max()) >> arguments["input_bits"]:
        return "codes"
    if arguments.get("pad_value") and not arguments.get("scale_input"):
        kernel = plain_shape(arguments["w"]).shape[-3:-1]
        window = {key: arguments[key] for key in WINDOW if key in arguments}
        if make_window(name, x.shape[1:3], kernel, **window).is_padded:
            return "numbers outside"
    # With thresholds, NaN counts where a window sees it.
    if arguments.get("scale_input") or name in ("PackedSign", "PackedQuantize"):
        return "NaN" if x.dtype.kind == "f" and np.isnan(x).any() else None
    return None
