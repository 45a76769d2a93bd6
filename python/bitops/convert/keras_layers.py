"""The layers of Keras and Larq: what each becomes here."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any

import numpy as np

from .. import layers as L
from .. import quantizers as q
from ..layers.base import TrainingLayer
from ..layers.inputs import Shape
from .keras_file import KerasLayer
from .lowering import batch_norm

Made = list[TrainingLayer]
Handler = Callable[[KerasLayer, Shape], Made]


# Settings


def _check(layer: KerasLayer, name: str, *allowed: Any) -> Any:
    """Return a setting, or the first allowed value if the file leaves it out."""
    value = layer.config.get(name, allowed[0])
    if value not in allowed:
        raise layer.refuse(f"{name} must be {' or '.join(map(repr, allowed))}, got {value!r}")
    return value


def _pair(layer: KerasLayer, name: str, default: int = 1) -> tuple[int, int]:
    value = layer.config.get(name) or default
    values = tuple(value) if isinstance(value, list | tuple) else (value, value)
    if len(values) != 2 or any(type(v) is not int or v < 1 for v in values):
        raise layer.refuse(f"{name} must be one or two positive integers, got {value!r}")
    return values[0], values[1]


def _number(layer: KerasLayer, name: str, default: float) -> float:
    value = layer.config.get(name, default)
    if isinstance(value, dict):  # Keras 3 writes arrays as objects
        value = value.get("config", {}).get("value", value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise layer.refuse(f"{name} must be a number, got {value!r}")
    return float(value)


def _arrays(layer: KerasLayer, *ndims: int) -> list[np.ndarray]:
    """Return the arrays of a layer, which must have so many axes each."""
    if [array.ndim for array in layer.arrays] != list(ndims):
        shapes = [array.shape for array in layer.arrays]
        raise layer.refuse(f"its arrays must have {list(ndims)} axes, got shapes {shapes}")
    return list(layer.arrays)


def _kind_of(value: Any) -> tuple[str, dict[str, Any]]:
    """Return the name of a quantizer or an activation, in small letters, and its settings."""
    if value is None:
        return "", {}
    config: Any = {}
    if isinstance(value, dict):
        config = value.get("config", {})
        value = config if isinstance(config, str) else value.get("class_name")
    name = re.sub(r"[^a-z0-9]", "", str(value).split(">")[-1].lower())
    return name, config if isinstance(config, dict) else {}


# Quantizers


def _clip_of(config: dict[str, Any]) -> float:
    value = config.get("clip_value", 1.0)
    return math.inf if value is None else float(value)


def _activation(layer: KerasLayer, value: Any, shape: Shape) -> Made:
    """Return the layers of an activation, or of the quantizer of an input."""
    name, config = _kind_of(value)
    makers: dict[str, Callable[[], Made]] = {
        "": list,
        "linear": list,
        "relu": lambda: [L.ReLU()],
        "relu6": lambda: [L.Clip(0, 6)],
        "tanh": lambda: [L.Tanh()],
        "sigmoid": lambda: [L.Sigmoid()],
        "silu": lambda: [L.Multiply(L.Sigmoid())],
        "swish": lambda: [L.Multiply(L.Sigmoid())],
        "softmax": lambda: [L.Softmax()],
        "hardtanh": lambda: [L.Clip(-1, 1)],
        "stesign": lambda: [L.Sign(_clip_of(config))],
        "approxsign": lambda: [L.Sign(quantizer=q.ApproxSign())],
        "swishsign": lambda: [L.Sign(quantizer=q.SwishSign(float(config.get("beta", 5.0))))],
        "steheaviside": lambda: [L.Quantize(q.Heaviside(_clip_of(config)))],
        "dorefa": lambda: [L.Quantize(_dorefa_activation(layer, config))],
        "dorefaquantizer": lambda: [L.Quantize(_dorefa_activation(layer, config))],
    }
    if name not in makers:
        raise layer.refuse(f"the activation {value!r} is not supported")
    return makers[name]()


def _dorefa_activation(layer: KerasLayer, config: dict[str, Any]) -> q.DoReFaActivation:
    if config.get("mode", "activations") != "activations":
        raise layer.refuse("its DoReFa quantizer of inputs must have the mode 'activations'")
    return q.DoReFaActivation(int(config.get("k_bit", 2)))


def _weight_form(layer: KerasLayer, name: str, w: np.ndarray) -> tuple[str, dict[str, Any]]:
    """Return "float", "binary" or "planes", and the options of such a layer."""
    form, config = _kind_of(layer.config.get(name))
    if form == "":
        return "float", {}
    if form in ("stesign", "approxsign", "swishsign"):
        gradients: dict[str, Callable[[], Any]] = {
            "stesign": lambda: q.SteSign(_clip_of(config)),
            "approxsign": q.ApproxSign,
            "swishsign": lambda: q.SwishSign(float(config.get("beta", 5.0))),
        }
        return "binary", {"gradient": gradients[form]()}
    if form == "magnitudeawaresign":
        gradient = q.MagnitudeAwareSign(_clip_of(config))
        return "binary", {"scale_weights": True, "gradient": gradient}
    if form == "stetern":
        threshold = float(config.get("threshold_value", 0.05))
        if config.get("ternary_weight_networks"):
            threshold = 0.7 * float(np.abs(w).mean())
        return "planes", {"quantizer": q.Ternary(threshold, _clip_of(config))}
    if form in ("dorefa", "dorefaquantizer") and config.get("mode") == "weights":
        bits = int(config.get("k_bit", 2))
        if bits == 1:
            raise layer.refuse("DoReFa weights of one bit are not supported: use ste_sign")
        return "planes", {"quantizer": q.DoReFaWeight(bits)}
    raise layer.refuse(f"the quantizer of weights {layer.config.get(name)!r} is not supported")


# Products


def _fill(made: Any, w: np.ndarray, bias: np.ndarray | None) -> Any:
    made.weight.assign(np.asarray(w, np.float32))
    if bias is not None:
        made.bias.assign(bias)
    return made


def _dense(layer: KerasLayer, shape: Shape) -> Made:
    w, *bias = _arrays(layer, 2, *([1] if layer.config.get("use_bias", True) else []))
    form, options = _weight_form(layer, "kernel_quantizer", w)
    kinds: dict[str, Any] = {
        "float": L.Dense,
        "binary": L.BinaryDense,
        "planes": L.QuantizedDense,
    }
    made = kinds[form](*w.shape, bias=bool(bias), seed=0, **options)
    return [
        *_activation(layer, layer.config.get("input_quantizer"), shape),
        _fill(made, w.T, bias[0] if bias else None),
        *_activation(layer, layer.config.get("activation"), shape),
    ]


def _conv_settings(layer: KerasLayer) -> dict[str, Any]:
    _check(layer, "data_format", "channels_last", None)
    return {
        "stride": _pair(layer, "strides"),
        "padding": _check(layer, "padding", "valid", "same"),
        "dilation": _pair(layer, "dilation_rate"),
    }


def _filters(
    layer: KerasLayer, quantizer: str, w: np.ndarray, bias: np.ndarray | None, **settings: Any
) -> TrainingLayer:
    """Return the convolution with filters w (o, kh, kw, i / groups)."""
    form, options = _weight_form(layer, quantizer, w)
    kinds: dict[str, Any] = {
        "float": L.Conv2D,
        "binary": L.BinaryConv2D,
        "planes": L.QuantizedConv2D,
    }
    outside = _number(layer, "pad_values", 0.0)
    if settings.get("padding") == "same" and outside:
        if form == "float" or outside not in (-1, 1):
            raise layer.refuse(f"pad_values must be 0, or 1 or -1 with bits, got {outside}")
        options["pad_value"] = int(outside)
    options |= {"bias": bias is not None, "seed": 0}
    groups = settings.get("groups", 1)
    if form == "binary" and w.shape[3] == 1 and groups > 1:
        del settings["groups"]
        made = L.BinaryDepthwiseConv2D(
            groups, w.shape[1:3], multiplier=len(w) // groups, **settings, **options
        )
        return _fill(made, w, bias)
    channels = w.shape[3] * groups
    return _fill(kinds[form](channels, len(w), w.shape[1:3], **settings, **options), w, bias)


def _conv(layer: KerasLayer, shape: Shape) -> Made:
    w, *bias = _arrays(layer, 4, *([1] if layer.config.get("use_bias", True) else []))
    groups = layer.config.get("groups", 1)
    if type(groups) is not int or groups < 1 or w.shape[3] % groups:
        raise layer.refuse(f"groups must divide the filters, got {groups!r}")
    settings = {**_conv_settings(layer), "groups": groups}
    filters = w.transpose(3, 0, 1, 2)
    return [
        *_activation(layer, layer.config.get("input_quantizer"), shape),
        _filters(layer, "kernel_quantizer", filters, bias[0] if bias else None, **settings),
        *_activation(layer, layer.config.get("activation"), shape),
    ]


def _conv1d(layer: KerasLayer, shape: Shape) -> Made:
    """Return the convolution of an image of height 1."""
    w, *bias = _arrays(layer, 3, *([1] if layer.config.get("use_bias", True) else []))
    groups = layer.config.get("groups", 1)
    if type(groups) is not int or groups < 1 or w.shape[2] % groups:
        raise layer.refuse(f"groups must divide the filters, got {groups!r}")
    _check(layer, "data_format", "channels_last", None)
    dilation = _single(layer, "dilation_rate")
    padding: Any = _check(layer, "padding", "valid", "same", "causal")
    if padding == "causal":  # an output sees nothing that comes after it
        padding = (0, 0), (dilation * (len(w) - 1), 0)
    filters = w.transpose(2, 0, 1)[:, np.newaxis]
    settings = {
        "stride": (1, _single(layer, "strides")),
        "padding": padding,
        "dilation": (1, dilation),
        "groups": groups,
    }
    return [
        *_activation(layer, layer.config.get("input_quantizer"), shape),
        L.AsImages(),
        _filters(layer, "kernel_quantizer", filters, bias[0] if bias else None, **settings),
        L.AsSequences(),
        *_activation(layer, layer.config.get("activation"), shape),
    ]


def _single(layer: KerasLayer, name: str, default: int = 1) -> int:
    value = layer.config.get(name) or default
    values = value if isinstance(value, list | tuple) else (value,)
    if len(values) != 1 or type(values[0]) is not int or values[0] < 1:
        raise layer.refuse(f"{name} must be a positive integer, got {value!r}")
    return values[0]


def _depthwise_filters(w: np.ndarray) -> tuple[np.ndarray, int]:
    """Return filters (c * multiplier, kh, kw, 1) of kernels (kh, kw, c, multiplier), and c."""
    height, width, channels, multiplier = w.shape
    rows = w.transpose(2, 3, 0, 1).reshape(channels * multiplier, height, width, 1)
    return rows, channels


def _depthwise_conv(layer: KerasLayer, shape: Shape) -> Made:
    w, *bias = _arrays(layer, 4, *([1] if layer.config.get("use_bias", True) else []))
    filters, groups = _depthwise_filters(w)
    settings = {**_conv_settings(layer), "groups": groups}
    quantizer = "depthwise_quantizer"
    return [
        *_activation(layer, layer.config.get("input_quantizer"), shape),
        _filters(layer, quantizer, filters, bias[0] if bias else None, **settings),
        *_activation(layer, layer.config.get("activation"), shape),
    ]


def _separable_conv(layer: KerasLayer, shape: Shape) -> Made:
    parts = _arrays(layer, 4, 4, *([1] if layer.config.get("use_bias", True) else []))
    filters, groups = _depthwise_filters(parts[0])
    settings = {**_conv_settings(layer), "groups": groups}
    points = parts[1].transpose(3, 0, 1, 2)
    bias = parts[2] if len(parts) == 3 else None
    return [
        *_activation(layer, layer.config.get("input_quantizer"), shape),
        _filters(layer, "depthwise_quantizer", filters, None, **settings),
        _filters(layer, "pointwise_quantizer", points, bias),
        *_activation(layer, layer.config.get("activation"), shape),
    ]


# All others


def _batch_norm(layer: KerasLayer, shape: Shape) -> Made:
    axis = layer.config.get("axis", -1)
    axis = axis[0] if isinstance(axis, list) and len(axis) == 1 else axis
    if axis not in (-1, len(shape)):
        raise layer.refuse(f"its axis must be the last one, got {axis!r}")
    has_gamma, has_beta = layer.config.get("scale", True), layer.config.get("center", True)
    arrays = iter(_arrays(layer, *[1] * (2 + bool(has_gamma) + bool(has_beta))))
    features = layer.arrays[0].size
    gamma = next(arrays) if has_gamma else np.ones(features)
    beta = next(arrays) if has_beta else np.zeros(features)
    mean, variance = next(arrays), next(arrays)
    made = L.BatchNorm.from_running(
        gamma,
        beta,
        mean,
        variance,
        _number(layer, "epsilon", 1e-3),
        momentum=1 - _number(layer, "momentum", 0.99),
    )
    return [made]


def _rescaling(layer: KerasLayer, shape: Shape) -> Made:
    return [_affine(layer, shape, layer.config.get("scale", 1.0), layer.config.get("offset", 0.0))]


def _normalization(layer: KerasLayer, shape: Shape) -> Made:
    """Return (x - mean) / deviation, of numbers that are settings, or were found in data."""
    if layer.config.get("invert"):
        raise layer.refuse("invert is not supported")
    given = [layer.config.get(name) for name in ("mean", "variance")]
    mean, variance = layer.arrays[:2] if len(layer.arrays) >= 2 else map(_numbers, given)
    deviation = np.maximum(np.sqrt(np.asarray(variance, np.float64)), 1e-7)
    return [_affine(layer, shape, 1 / deviation, -np.asarray(mean, np.float64) / deviation)]


def _affine(layer: KerasLayer, shape: Shape, alpha: Any, bias: Any) -> TrainingLayer:
    """Return x * alpha + bias, each a number, or one for each feature."""
    features = shape[-1] if shape else None
    if features is None:
        raise layer.refuse("the number of features must be known")
    values = [np.asarray(_numbers(value), np.float64) for value in (alpha, bias)]
    if any(value.size not in (1, features) or not np.isfinite(value).all() for value in values):
        raise layer.refuse("its numbers must be finite, one, or one for each feature")
    scales, terms = (np.broadcast_to(value.ravel(), (features,)) for value in values)
    return batch_norm(scales, terms)


def _numbers(value: Any) -> Any:
    """Return numbers as they are; Keras 3 writes arrays as objects."""
    return value.get("config", {}).get("value") if isinstance(value, dict) else value


def _pool(kind: Any) -> Handler:
    def handler(layer: KerasLayer, shape: Shape) -> Made:
        _check(layer, "data_format", "channels_last", None)
        size = _pair(layer, "pool_size", 2)
        stride = _pair(layer, "strides") if layer.config.get("strides") else size
        return [_windows(layer, kind, size, stride, shape)]

    return handler


def _pool1d(kind: Any) -> Handler:
    """Return what makes a pool of images of height 1."""

    def handler(layer: KerasLayer, shape: Shape) -> Made:
        _check(layer, "data_format", "channels_last", None)
        size = _single(layer, "pool_size", 2)
        stride = _single(layer, "strides", size)
        pool = _windows(layer, kind, (1, size), (1, stride), (1, *shape))
        return [L.AsImages(), pool, L.AsSequences()]

    return handler


def _windows(
    layer: KerasLayer, kind: Any, size: tuple[int, int], stride: tuple[int, int], shape: Shape
) -> TrainingLayer:
    """Return a pool of images of a shape."""
    padding = _check(layer, "padding", "valid", "same")
    made = kind(size, stride, padding)
    if kind is L.AvgPool2D and padding == "same":
        if made.output_shape(shape) != L.AvgPool2D(size, stride).output_shape(shape):
            raise layer.refuse("a mean whose padding does not count is not supported")
        return L.AvgPool2D(size, stride)
    return made


def _global_max1d(layer: KerasLayer, shape: Shape) -> Made:
    if len(shape) != 2 or None in shape:
        raise layer.refuse("the length of the sequence must be known")
    return [L.AsImages(), L.MaxPool2D((1, int(shape[0] or 0))), L.Flatten()]


def _global_average1d(layer: KerasLayer, shape: Shape) -> Made:
    return [L.AsImages(), *_global_average(layer, shape)]


def _global_max(layer: KerasLayer, shape: Shape) -> Made:
    if len(shape) != 3 or None in shape:
        raise layer.refuse("the size of the image must be known")
    return [L.MaxPool2D((int(shape[0] or 0), int(shape[1] or 0))), L.Flatten()]


def _global_average(layer: KerasLayer, shape: Shape) -> Made:
    _check(layer, "keepdims", False)
    return [L.GlobalAvgPool2D()]


def _flatten(layer: KerasLayer, shape: Shape) -> Made:
    _check(layer, "data_format", "channels_last", None)
    return [L.Flatten()] if len(shape) > 1 else []


def _relu(layer: KerasLayer, shape: Shape) -> Made:
    if _number(layer, "threshold", 0.0):
        raise layer.refuse("threshold must be 0")
    slope, most = _number(layer, "negative_slope", 0.0), layer.config.get("max_value")
    if slope and most is not None:
        raise layer.refuse("negative_slope and max_value together are not supported")
    if slope:
        return _sloped(layer, shape, slope)
    return [L.ReLU() if most is None else L.Clip(0, float(most))]


def _sloped(layer: KerasLayer, shape: Shape, slope: float) -> Made:
    if not shape or shape[-1] is None:
        raise layer.refuse("the number of features must be known")
    return [L.PReLU(shape[-1], start=slope)]


def _leaky_relu(layer: KerasLayer, shape: Shape) -> Made:
    default = _number(layer, "alpha", 0.3)
    return _sloped(layer, shape, _number(layer, "negative_slope", default))


def _prelu(layer: KerasLayer, shape: Shape) -> Made:
    if len(layer.arrays) != 1 or layer.arrays[0].size != shape[-1]:
        raise layer.refuse("it must have one slope for each feature, over all of an image")
    made = L.PReLU(layer.arrays[0].size)
    made.slope.assign(layer.arrays[0].reshape(-1))
    return [made]


def _zero_padding(layer: KerasLayer, shape: Shape) -> Made:
    padding = layer.config.get("padding", 1)
    sides = np.array(padding)
    if sides.shape == (2,):
        sides = np.stack([sides, sides], axis=1)
    if sides.shape not in ((), (2, 2)) or sides.dtype.kind != "i":
        raise layer.refuse(f"padding must be integers, got {padding!r}")
    pairs = np.broadcast_to(sides, (2, 2)).tolist()
    return [L.Pad2D((tuple(pairs[0]), tuple(pairs[1])))]


def _zero_padding1d(layer: KerasLayer, shape: Shape) -> Made:
    padding = layer.config.get("padding", 1)
    ends = np.array(padding)
    if ends.shape not in ((), (1,), (2,)) or ends.dtype.kind != "i":
        raise layer.refuse(f"padding must be integers, got {padding!r}")
    before, after = np.broadcast_to(ends, (2,)).tolist()
    return [L.AsImages(), L.Pad2D(((0, 0), (before, after))), L.AsSequences()]


def _reshape(layer: KerasLayer, shape: Shape) -> Made:
    """Let a row become an image of one pixel, as before a product with an image, or flatten."""
    target = layer.config.get("target_shape")
    known = math.prod(size or 0 for size in shape)
    if len(shape) > 1 and list(target or ()) in ([-1], [known]):
        return [L.Flatten()]
    if len(shape) != 1 or list(target or ()) not in ([1, 1, shape[0]], [1, 1, -1]):
        raise layer.refuse(
            f"only a row can become an image of one pixel, or all become a row, got {target!r}"
        )
    return []


def _act(layer: KerasLayer, shape: Shape) -> Made:
    return _activation(layer, layer.config.get("activation"), shape)


def _softmax(layer: KerasLayer, shape: Shape) -> Made:
    if layer.config.get("axis", -1) not in (-1, len(shape)):
        raise layer.refuse("its axis must be the last one")
    return [L.Softmax()]


HANDLERS: dict[str, Handler] = {
    "Activation": _act,
    "AveragePooling1D": _pool1d(L.AvgPool2D),
    "AveragePooling2D": _pool(L.AvgPool2D),
    "BatchNormalization": _batch_norm,
    "Conv1D": _conv1d,
    "Conv2D": _conv,
    "Dense": _dense,
    "DepthwiseConv2D": _depthwise_conv,
    "Dropout": lambda layer, shape: [L.Dropout(_number(layer, "rate", 0.5), seed=0)],
    "Flatten": _flatten,
    "GlobalAveragePooling1D": _global_average1d,
    "GlobalAveragePooling2D": _global_average,
    "GlobalMaxPooling1D": _global_max1d,
    "GlobalMaxPooling2D": _global_max,
    "LeakyReLU": _leaky_relu,
    "MaxPooling1D": _pool1d(L.MaxPool2D),
    "MaxPooling2D": _pool(L.MaxPool2D),
    "Normalization": _normalization,
    "PReLU": _prelu,
    "QuantConv1D": _conv1d,
    "QuantConv2D": _conv,
    "QuantDense": _dense,
    "QuantDepthwiseConv2D": _depthwise_conv,
    "QuantSeparableConv2D": _separable_conv,
    "ReLU": _relu,
    "Rescaling": _rescaling,
    "Reshape": _reshape,
    "SeparableConv2D": _separable_conv,
    "Softmax": _softmax,
    "ZeroPadding1D": _zero_padding1d,
    "ZeroPadding2D": _zero_padding,
}
