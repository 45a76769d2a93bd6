"""Makes a network of layers from the steps of a trace.

Steps are first brought into a form that layers have: constants are merged, and moved behind
products, pools and the like, so that the products see bits, codes or the input itself.

    from a graph                          simplified                      layers
    ------------                          ----------                      ------
    x * 2 - 1                             Affine 2, -1                    BatchNorm
    Levels (-1, 1) at 0                   Levels (-1, 1) at 0             Sign
    x w^T                                 Dense                           BinaryDense
    (z - mean) / std * gamma + beta       Affine                          BatchNorm
    Levels (-s, s) at 0                   Levels (-1, 1) at 0             Sign
    x w^T                                 Dense                           BinaryDense
                                          Affine s                        BatchNorm
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from functools import partial
from typing import Any

import numpy as np

from .. import layers as L
from ..layers.base import TrainingLayer
from ..layers.inputs import Shape
from ..ops.array import pack
from ..quantizers import Heaviside
from .errors import ConversionError
from .simplify import is_three_way, simplified, what_flows
from .steps import Affine, Conv, Dense, Join, Levels, Map, Pad, Pool, ScaledConv, Step
from .tensors import Tensor
from .weights import FewLevels, GivenPlanes, find_levels

# Numbers between layers, and float and binary multiply-adds, of one example for a second or so.
_MOST = 2**27, 2**33, 2**38


def packed_network(
    output: Tensor, start: Tensor, remarks: list[str], where: str, source: str
) -> L.Packed:
    """Return the packed network between two tensors; its notes tell the source, and remarks."""
    packed = freeze(network(output, start, remarks, where), where)
    packed.notes["source"] = source
    if remarks:
        packed.notes["remarks"] = "; ".join(remarks)
    return packed


def network(output: Tensor, start: Tensor, remarks: list[str], where: str) -> L.Sequential:
    """Return the network between two tensors of a graph; add what a user should know."""
    if output.order is not None:
        raise ConversionError(
            f"[{where}] the output must be scores, not images that were flattened or joined"
        )
    if set(output.axes) - set("nhwc1"):
        raise ConversionError(
            f"[{where}] the output must be scores, not images in another shape, got {output.axes!r}"
        )
    sizes = start.sizes[1:] if start.is_sequence else start.sizes
    known = tuple(size for size in sizes if size is not None)
    try:
        layers = lower(output.trace.steps_from(start.trace), remarks)
        if not layers:
            raise ConversionError(f"[{where}] the network computes nothing of its input")
        if start.is_sequence:
            layers = [L.AsImages(), *layers, *([L.AsSequences()] if output.is_image else [])]
        return L.Sequential(layers, input_shape=known if len(known) == len(sizes) else None)
    except ConversionError:
        raise
    except (TypeError, ValueError) as error:
        raise ConversionError(f"[{where}] the network cannot be built: {error}") from None


def freeze(net: L.Sequential, where: str) -> L.Packed:
    """Return the packed network, which takes examples of the shape that it states."""
    try:
        packed = net.freeze()
        if packed.input_shape is not None and _is_quick(packed):
            # layers refuse what does not fit
            packed(np.zeros((1, *packed.input_shape), np.float32))
    except (TypeError, ValueError) as error:
        raise ConversionError(f"[{where}] the network cannot be packed: {error}") from None
    return packed


def _is_quick(packed: L.Packed) -> bool:
    """Return whether one example takes about a second at most; that of a stranger might not."""
    total = packed.summary().total
    shape: Shape = packed.input_shape or ()
    values = 0
    for layer in packed.layers:
        shape = layer.output_shape(shape)
        values += math.prod(size for size in shape if size is not None)
    costs = (values, total.float_macs or 0, total.binary_macs or 0)
    return all(cost <= most for cost, most in zip(costs, _MOST, strict=True))


def lower(steps: Iterable[Step], remarks: list[str]) -> list[TrainingLayer]:
    """Return training layers that compute what the steps do; add what a user should know."""
    made: list[TrainingLayer] = []
    plain = simplified(tuple(steps))
    for i, step in enumerate(plain):
        if isinstance(step, Pad) and what_flows(plain[:i]) != what_flows(plain[: i + 1]):
            # neither bits nor codes can hold the value, so numbers must flow
            made.append(batch_norm(np.ones(step.features), np.zeros(step.features)))
        if isinstance(step, Join):
            made += _join(step, remarks)
            continue
        made += _LOWERED[type(step)](step)
        if isinstance(step, Levels) and is_three_way(step):
            remarks.append(f"{step.source} is 0 at 0: its outputs take two bits")
    return made


def _affine(step: Affine) -> list[TrainingLayer]:
    return [] if step.is_identity else [batch_norm(step.alpha, step.bias)]


def batch_norm(alpha: np.ndarray, bias: np.ndarray) -> L.BatchNorm:
    """Return the BatchNorm that computes x * alpha + bias in evaluation."""
    layer = L.BatchNorm(len(alpha))
    layer.gamma.assign(alpha.astype(np.float32))
    layer.beta.assign(bias.astype(np.float32))
    return layer


def _levels(step: Levels) -> list[TrainingLayer]:
    """Return the layers of few values; `simplified` has moved scales out of the values."""
    if step.threshold.shape[1] > 1:
        return [L.MultiThreshold(step.threshold)]
    end = L.Sign() if step.values[0] == -1 else L.Quantize(Heaviside())
    limits = step.threshold[:, 0]
    if (limits == 0).all():
        return [end]
    # x - t >= 0 exactly where x >= t: a difference of two floats has the right sign
    shift = np.broadcast_to(-limits.astype(np.float64), (step.features,))
    return [batch_norm(np.ones(step.features), shift), end]


def _dense(step: Dense) -> list[TrainingLayer]:
    out_features, in_features = step.w.shape
    return _product(step, (L.Dense, L.BinaryDense, L.QuantizedDense), (in_features, out_features))


def _conv(step: Conv, binary_kind: Any = L.BinaryConv2D) -> list[TrainingLayer]:
    out_channels, height, width, group_channels = step.w.shape
    sizes = group_channels * step.groups, out_channels, (height, width)
    settings = {name: getattr(step, name) for name in ("stride", "padding", "dilation", "groups")}
    if find_levels(step.w) is not None:
        settings["pad_value"] = int(step.pad_value)
    return _product(step, (L.Conv2D, binary_kind, L.QuantizedConv2D), sizes, **settings)


def _scaled_conv(step: ScaledConv) -> list[TrainingLayer]:
    return _conv(step.conv, partial(L.BinaryConv2D, scale_input=True))


def _product(
    step: Dense | Conv, kinds: tuple[Any, Any, Any], sizes: tuple, **settings: Any
) -> list[TrainingLayer]:
    """Return the layer for the weights that a step has, and the scales of its filters.

    A shift of the input becomes a bias, which is an integer if the weights and the shift are.
    """
    float_kind, binary_kind, planes_kind = kinds
    found = find_levels(step.w)
    settings |= {"bias": step.shift != 0 or step.bias is not None, "seed": 0}
    w = step.w if found is None else found.integers
    if found is None:
        layer = float_kind(*sizes, **settings)
    elif found.is_binary:
        layer = binary_kind(*sizes, **settings)
    else:
        layer = planes_kind(*sizes, GivenPlanes(found), **settings)
    if found is None:
        layer.weight.assign(w.astype(np.float32))
    elif found.is_binary:
        layer.weight.assign_signs(pack(w))
    if settings["bias"]:
        bias = step.shift * w.reshape(len(w), -1).sum(axis=1)
        layer.bias.assign((bias if step.bias is None else bias + step.bias).astype(np.float32))
    return [layer, *(() if found is None else _scales(found))]


def _scales(weights: FewLevels) -> list[TrainingLayer]:
    if (weights.scale == 1).all():
        return []
    return [batch_norm(weights.scale, np.zeros_like(weights.scale))]


def _pool(step: Pool) -> list[TrainingLayer]:
    kind = L.MaxPool2D if step.kind == "max" else L.AvgPool2D
    return [kind(step.kernel_size, step.stride, step.padding)]


def _pad(step: Pad) -> list[TrainingLayer]:
    return [L.Pad2D(step.padding, step.value)]


def _map(step: Map) -> list[TrainingLayer]:
    if step.kind == "clip":
        return [L.Clip(*step.settings)]
    if step.kind == "prelu":
        layer = L.PReLU(len(step.settings))
        layer.slope.assign(step.settings.astype(np.float32))
        return [layer]
    if step.kind == "pad_features":
        return [L.PadFeatures(*step.settings)]
    plain = {
        "flatten": L.Flatten,
        "mean": L.GlobalAvgPool2D,
        "relu": L.ReLU,
        "sigmoid": L.Sigmoid,
        "softmax": L.Softmax,
        "tanh": L.Tanh,
    }
    if step.kind == "round":
        raise ConversionError(
            f"[convert] {step.source}: it must follow a Clip, or come before one, as in quantized "
            f"activations"
        )
    if step.kind not in plain:
        raise ConversionError(
            f"[convert] {step.source}: it is supported only in the input scales of XNOR-Net"
        )
    return [plain[step.kind]()]


def _join(step: Join, remarks: list[str]) -> list[TrainingLayer]:
    body, shortcut = lower(step.body, remarks), lower(step.shortcut, remarks)
    if not body and step.kind == "add":  # what was not empty computes nothing
        body, shortcut = shortcut, body
    if not body:
        raise ConversionError(f"[convert] {step.source}: an operand is the input of the other")
    kind = {"add": L.Residual, "concat": L.Concat, "multiply": L.Multiply}[step.kind]
    return [kind(L.Sequential(body), L.Sequential(shortcut) if shortcut else None)]


_LOWERED: dict[type[Step], Any] = {
    Affine: _affine,
    Conv: _conv,
    Dense: _dense,
    Levels: _levels,
    Map: _map,
    Pad: _pad,
    Pool: _pool,
    ScaledConv: _scaled_conv,
}
