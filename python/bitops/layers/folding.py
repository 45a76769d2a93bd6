"""From a trained Sequential to a Packed model that computes the same bits."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..ops.array import BitArray
from ..quantizers import Heaviside
from .activations import (
    Dropout,
    PackedLevels,
    PackedQuantize,
    PackedReLU,
    PackedSign,
    PackedTanh,
    Quantize,
    QuantizeGradient,
    ReLU,
    Sign,
    Tanh,
)
from .base import Layer, TrainingLayer
from .container import Packed, PackedResidual, Residual, Sequential
from .conv import BinaryConv2D, FloatConv2D, PackedConv2D, PackedPlanesConv2D
from .dense import FloatDense, PackedDense, PackedPlanesDense
from .norm import BatchNorm, PackedBatchNorm
from .operation import Convolution
from .planes import scaled
from .pool import (
    AvgPool2D,
    Flatten,
    GlobalAvgPool2D,
    MaxPool2D,
    PackedAvgPool2D,
    PackedFlatten,
    PackedGlobalAvgPool2D,
    PackedMaxPool2D,
)
from .product import FloatProduct, Product

_LARGEST_FLOAT_KEY = 0x7F7FFFFF
_EXACT = 2**24  # float32 holds every integer up to it
_LARGEST_BYTE = 255

Step = BatchNorm | MaxPool2D | ReLU


def freeze(model: Sequential) -> Packed:
    """Pack a training graph for inference.

    Parameters
    ----------
    model : Sequential
        Of the layers of this package, nested sequences included.

    Returns
    -------
    Packed
        A model of its own: later changes of `model` do not reach it. For the same input its output
        equals that of `model` in evaluation, bit for bit; a product at the end that is an integer
        of at most 2^24 comes as int32.

    Raises
    ------
    TypeError
        On a layer of another type.
    ValueError
        If a parameter or a running statistic is NaN or infinite.

    Notes
    -----
    A product (BinaryDense, BinaryConv2D or their kin with quantized weights) followed by any of
    BatchNorm, MaxPool2D and ReLU and ended by Sign becomes a packed product with a threshold a
    channel (see `fold`), then pools of bits. Each of these layers keeps or reverses the order of
    values in a channel. Let f be all of them before a pool and t the threshold: where f rises, the
    largest product of a window decides, and one bit z > t in it is enough (OR); where f falls, the
    smallest does, and it takes all of them (AND). Bits that are flipped turn OR into AND and AND
    into OR.
    Layers that receive bits get integer thresholds. Those that receive the model's input get
    float32 ones, which decide every real number and every integer as the training graph does.

    A Quantize of one bit ends a product like a Sign; its bits stand for 0 and 1, which the next
    product is told. One of more bits stays a layer of its own, whose codes the next product takes
    as bit planes. Where codes meet anything but products, max-pools and Flatten, PackedLevels turns
    them into numbers.

    A BinaryConv2D with scale_input scales each position by another number: it stays in float32, and
    what follows up to the Sign becomes float32 thresholds. Without a Sign at the end, numbers flow:
    the first BatchNorm behind a product becomes its alpha and bias. Residual, the layers with
    float32 weights, averages and Flatten stand alone, like products that are evaluated with their
    real weights; Dropout and QuantizeGradient vanish.
    """
    for layer in model.flat_layers():
        for array in _arrays(layer.state() if isinstance(layer, TrainingLayer) else []):
            if not np.isfinite(array).all():
                raise ValueError(f"[freeze] all values of a layer must be finite, got {layer!r}")
    packed, flow = _pack_chain(model.flat_layers(), _NUMBERS)
    return Packed(packed + flow.to_numbers(), input_shape=model.input_shape)


def _arrays(state: Any) -> Iterator[np.ndarray]:
    """The arrays in the lists of lists that `state()` gives."""
    for part in state:
        if isinstance(part, list):
            yield from _arrays(part)
        else:
            yield part


@dataclass(frozen=True)
class _Flow:
    """What a chain has come to: numbers, bits that are +-1, or codes that count `step`.

    Codes have so many bits; those of one bit are bits too, or uint8.
    """

    is_bits: bool = False
    code_bits: int | None = None
    step: float = 1.0

    @property
    def largest(self) -> int | None:
        """Largest magnitude of the integers that flow; None if they are any numbers."""
        if self.code_bits is not None:
            return 2**self.code_bits - 1
        return 1 if self.is_bits else None

    def to_numbers(self) -> list[Layer]:
        """What turns codes into numbers."""
        return [] if self.code_bits is None else [PackedLevels(self.step)]


_NUMBERS, _BITS = _Flow(), _Flow(is_bits=True)


def _pack_chain(layers: list[Layer], flow: _Flow) -> tuple[list[Layer], _Flow]:
    packed: list[Layer] = []
    for group in _groups(layers):
        made, flow = group.pack(flow)
        packed += made
    return packed, flow


@dataclass
class _Group:
    """At most one layer that is no step, the steps behind it, and what of few levels ends them."""

    head: Layer | None = None
    steps: list[Step] = field(default_factory=list)
    end: Sign | Quantize | None = None

    def pack(self, flow: _Flow) -> tuple[list[Layer], _Flow]:
        head = self.head
        if isinstance(head, Product) and not (_scales_input(head) or head.real_evaluation):
            return self._pack_product(head, flow)
        if head is None:
            packed: list[Layer] = []
        elif isinstance(head, Flatten):
            packed = [PackedFlatten()]
        elif isinstance(head, Residual):
            packed, flow = [_pack_residual(head, flow)], _NUMBERS
        else:
            packed, flow = [*flow.to_numbers(), _pack_alone(head)], _NUMBERS
        while self.steps and isinstance(self.steps[0], MaxPool2D):
            packed.append(_pack_step(self.steps.pop(0)))
        if not self.steps and self.end is None:
            return packed, flow
        packed += flow.to_numbers()
        made, flow = self._pack_steps()
        return packed + made, flow

    def _pack_product(self, product: Product, flow: _Flow) -> tuple[list[Layer], _Flow]:
        planes = product.planes()
        scale, bias = planes.scale(flow.step), product.bias_value
        if self.end is not None and _is_binary(self.end):
            filters = product.weight.shape[0]
            k = None
            if flow.largest is not None:
                k = product.weight.size // filters * flow.largest * sum(planes.coefficients)

            def expression(z: np.ndarray) -> np.ndarray:
                return scaled(z, scale, bias)

            threshold, flip = fold(_chained(expression, self.steps, self.end), filters, k)
            pools = _pack_pools(expression, self.steps, flip, filters, k)
            packed = _packed_product(product, flow, threshold=threshold, flip=flip)
            return [packed, *pools], _flow_of(self.end)
        steps = list(self.steps)
        if scale is None and bias is None and steps and isinstance(norm := steps[0], BatchNorm):
            scale, bias = norm.affine()
            steps = steps[1:]
        largest = product.weight.size // product.weight.shape[0] * (flow.largest or _LARGEST_BYTE)
        if scale is None and bias is None and largest > _EXACT:
            scale = np.ones(product.weight.shape[0], np.float32)  # rounds as training does
        layers = [_packed_product(product, flow, alpha=scale, bias=bias)]
        layers += [_pack_step(step) for step in steps]
        if self.end is None:
            return layers, _NUMBERS
        return [*layers, _pack_quantize(self.end)], _flow_of(self.end)

    def _pack_steps(self) -> tuple[list[Layer], _Flow]:
        """Layers for numbers that no product folds with; the first of them is no pool."""
        if self.end is None:
            return [_pack_step(step) for step in self.steps], _NUMBERS
        flow = _flow_of(self.end)
        norms = [step for step in self.steps if isinstance(step, BatchNorm)]
        if not norms or not _is_binary(self.end):
            return [*(_pack_step(step) for step in self.steps), _pack_quantize(self.end)], flow
        features = norms[0].gamma.size
        threshold, flip = fold(_chained(_identity, self.steps, self.end), features)
        pools = _pack_pools(_identity, self.steps, flip, features, None)
        return [PackedSign(threshold, flip), *pools], flow


def _groups(layers: list[Layer]) -> list[_Group]:
    """Cut the chain before every head and behind every layer that leaves few levels."""
    groups = [_Group()]
    for layer in layers:
        group = groups[-1]
        if isinstance(layer, Dropout | QuantizeGradient):
            continue
        if isinstance(layer, Step | Sign | Quantize):
            if group.end is not None:
                groups.append(group := _Group())
            if isinstance(layer, Sign | Quantize):
                group.end = layer
            else:
                group.steps.append(layer)
        else:
            groups.append(_Group(layer))
    return [group for group in groups if group.head or group.steps or group.end]


def _scales_input(product: Product) -> bool:
    return isinstance(product, BinaryConv2D) and product.scale_input


def _is_binary(end: Sign | Quantize) -> bool:
    """Whether thresholds decide what a layer makes."""
    return isinstance(end, Sign) or end.levels.bits == 1


def _flow_of(end: Sign | Quantize) -> _Flow:
    if isinstance(end, Sign):
        return _BITS
    return _Flow(code_bits=end.levels.bits, step=end.levels.step)


def _pack_quantize(end: Sign | Quantize) -> Layer:
    """The twin of a Sign or Quantize on numbers."""
    if isinstance(end, Sign) or isinstance(end.levels, Heaviside):
        return PackedSign()
    return PackedQuantize(end.levels.bits, end.levels.clip_value)


def _packed_product(product: Product, flow: _Flow, **outputs) -> Layer:
    options = {**outputs, "input_bits": flow.code_bits}
    planes = product.planes()
    if isinstance(product.operation, Convolution):
        options |= product.settings()
        if planes.is_single:
            scale_input = _scales_input(product)
            return PackedConv2D(planes.bits[0], scale_input=scale_input, **options)
        return PackedPlanesConv2D(_stacked(planes.bits), planes.coefficients, **options)
    if planes.is_single:
        return PackedDense(planes.bits[0], **options)
    return PackedPlanesDense(_stacked(planes.bits), planes.coefficients, **options)


def _stacked(planes: Sequence[BitArray]) -> BitArray:
    """Planes along a new first axis."""
    words = np.stack([plane.words for plane in planes])
    return BitArray.from_words(words, (len(planes), *planes[0].shape))


def _pack_step(step: Step) -> Layer:
    """A step on numbers, or a pool of bits that stand for values."""
    if isinstance(step, BatchNorm):
        return PackedBatchNorm(*step.affine())
    return PackedMaxPool2D(**step.settings()) if isinstance(step, MaxPool2D) else PackedReLU()


def _pack_residual(block: Residual, flow: _Flow) -> PackedResidual:
    """The twin of a residual block; the identity, too, has to turn codes into numbers."""
    chains: dict[str, list[Layer]] = {"body": [], "shortcut": []}
    for name in chains:
        branch = list(block.branches().get(name, ()))
        packed, last = _pack_chain(branch, flow)
        chains[name] = packed + last.to_numbers()
    # a shortcut of nothing but Dropout is the identity
    return PackedResidual(chains["body"], chains["shortcut"] or None)


def _pack_alone(layer: Layer) -> Layer:
    """The twin of a layer that folds with nothing."""
    if isinstance(layer, Product) and not layer.real_evaluation:
        return _packed_product(layer, _NUMBERS, alpha=layer.alpha, bias=layer.bias_value)
    if isinstance(layer, Product | FloatProduct):
        if isinstance(layer.operation, Convolution):
            return FloatConv2D(layer.values(), layer.bias_value, **layer.operation.options)
        return FloatDense(layer.values(), layer.bias_value)
    if isinstance(layer, AvgPool2D):
        return PackedAvgPool2D(**layer.settings())
    if isinstance(layer, GlobalAvgPool2D):
        return PackedGlobalAvgPool2D()
    if isinstance(layer, Tanh):
        return PackedTanh()
    raise TypeError(f"[freeze] no packed form is known for this layer, got {layer!r}")


Expression = Callable[[np.ndarray], np.ndarray]


def _identity(z: np.ndarray) -> np.ndarray:
    return z


def _chained(
    expression: Expression, steps: list[Step], end: Sign | Quantize | None = None
) -> Expression:
    """What the evaluation graph makes of products, by the layers' own code; pools are left out.

    With an `end` it is positive or zero where that gives +1, or the code 1.
    """
    layers = [step for step in steps if not isinstance(step, MaxPool2D)]

    def chained(z: np.ndarray) -> np.ndarray:
        z = expression(z)
        for layer in layers:
            z = layer.forward(z)
        if isinstance(end, Quantize):
            z = _codes_or_nan(end, z)
        return z

    return chained


def _codes_or_nan(end: Quantize, z: np.ndarray) -> np.ndarray:
    """Codes less one half; NaN, which `fold` knows to handle, stays."""
    missing = np.isnan(z)
    codes = end.codes(np.where(missing, 0, z)).numbers - np.float32(0.5)
    return np.where(missing, np.float32(np.nan), codes)


def _pack_pools(
    expression: Expression, steps: list[Step], flip: np.ndarray, features: int, k: int | None
) -> list[Layer]:
    """Pools of the bits of products, for those of the numbers that an expression makes of them."""
    pools: list[Layer] = []
    for i, step in enumerate(steps):
        if isinstance(step, MaxPool2D):
            minimum = flip ^ _falls(_chained(expression, steps[:i]), features, k)
            pools.append(PackedMaxPool2D(**step.settings(), minimum=minimum))
    return pools


def _falls(expression: Expression, features: int, k: int | None) -> np.ndarray:
    """Which channels of a monotone expression fall."""
    largest = np.float32(k) if k is not None else np.finfo(np.float32).max
    ends = np.array([[-largest], [largest]], np.float32).repeat(features, axis=1)
    with np.errstate(over="ignore", invalid="ignore"):
        first, last = expression(ends)
    return first > last  # NaN, like equal ends, marks a constant, for which both pools do


def fold(
    expression: Expression, features: int, k: int | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Thresholds and flips that decide as the sign of a float32 expression does.

    Parameters
    ----------
    expression : callable
        Maps float32 products of shape (1, features) to float32 values of that shape; in every
        channel monotone, rising or falling.
    features : int
    k : int, optional
        The products are integers in -k..k and the thresholds int32. Without it they are any float32
        numbers and the thresholds float32.

    Returns
    -------
    threshold : ndarray of shape (features,), int32 or float32
    flip : ndarray of shape (features,), bool
        (z > threshold) ^ flip equals expression(z) >= 0 for every product z.

    Raises
    ------
    ValueError
        If the expression is NaN for the product 0.

    Notes
    -----
    Solving gamma * (z - mean) * inv_std + beta >= 0 for z would round differently from the
    expression and misplace thresholds now and then. So the expression itself is bisected, in all
    channels at once, over the ordered set of what z can be: rounding keeps a monotone function
    monotone, hence each channel changes sign at most once. A channel that falls (gamma < 0) starts
    with bit 1, which `flip` restores; one that never changes (gamma = 0, or a threshold beyond
    +-k) gets the largest product as its threshold, which no product exceeds.
    """
    value = _integer_to_float if k is not None else _key_to_float
    last = k if k is not None else _LARGEST_FLOAT_KEY

    def is_positive(keys: np.ndarray) -> np.ndarray:
        # Products near the end of float32 may overflow to infinity, which keeps their sign. If a
        # gamma of 0 makes that NaN, the channel is constant: any other product speaks for it.
        with np.errstate(over="ignore", invalid="ignore"):
            y = expression(value(keys)[np.newaxis])[0]
        return np.where(np.isnan(y), at_zero, y) >= 0

    at_zero = expression(np.zeros((1, features), dtype=np.float32))[0]
    if np.isnan(at_zero).any():
        raise ValueError("[fold] the expression must be a number for the product 0, got nan")

    low = np.full(features, -last, dtype=np.int64)
    high = np.full(features, last, dtype=np.int64)
    flip = is_positive(low)
    constant = flip == is_positive(high)
    while (high - low > 1).any():
        middle = (low + high) // 2
        changed = is_positive(middle) != flip
        high = np.where(changed, middle, high)
        low = np.where(changed, low, middle)
    threshold = np.where(constant, last, low)
    return (threshold.astype(np.int32) if k is not None else value(threshold)), flip


def _integer_to_float(keys: np.ndarray) -> np.ndarray:
    return keys.astype(np.float32)


def _key_to_float(keys: np.ndarray) -> np.ndarray:
    """Enumerate the finite float32 numbers in order: key 0 is 0.0, key 1 the smallest positive."""
    magnitude = np.abs(keys).astype(np.uint32).view(np.float32)
    return np.where(keys < 0, -magnitude, magnitude)
