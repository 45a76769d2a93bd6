"""From a trained Sequential to a Packed model that computes the same bits."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from .base import Layer
from .container import Packed, PackedResidual, Residual, Sequential
from .conv import BinaryConv2D, Conv2D, FloatConv2D, PackedConv2D
from .dense import BinaryDense, Dense, FloatDense, PackedDense
from .norm import BatchNorm, PackedBatchNorm
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
from .quantizers import Dropout, PackedReLU, PackedSign, ReLU, Sign

_LARGEST_FLOAT_KEY = 0x7F7FFFFF

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
        equals that of `model` in evaluation, bit for bit; a product or a sum at the end that is
        an integer comes as int32.

    Raises
    ------
    TypeError
        On a layer of another type.

    Notes
    -----
    A product (BinaryDense or BinaryConv2D) followed by any of BatchNorm, MaxPool2D and ReLU and
    ended by Sign becomes a packed product with a threshold a channel (see `fold`), then pools of
    bits. Each of these layers keeps or reverses the order of values in a channel. Let f be all of
    them before a pool and t the threshold: where f rises, the largest product of a window decides,
    and one bit z > t in it is enough (OR); where f falls, the smallest does, and it takes all of
    them (AND). Bits that are flipped turn OR into AND and AND into OR.
    Layers that receive bits get integer thresholds. Those that receive the model's input get
    float32 ones, which decide every real number and every integer as the training graph does.

    A BinaryConv2D with k_map scales each position by another number: it stays in float32, and what
    follows up to the Sign becomes float32 thresholds. Without a Sign at the end, numbers flow: the
    first BatchNorm behind a product becomes its alpha and bias. Residual, the layers with float32
    weights, averages and Flatten stand alone; Dropout vanishes.
    """
    return Packed(_pack_chain(model.flat_layers(), False), input_shape=model.input_shape)


def _pack_chain(layers: list[Layer], bits_in: bool) -> list[Layer]:
    packed: list[Layer] = []
    for group in _groups(layers):
        for layer in group.pack(bits_in):
            packed.append(layer)
            bits_in = layer.emits_bits(bits_in)
    return packed


@dataclass
class _Group:
    """At most one layer that is no step, the steps behind it, and whether a Sign ends them."""

    head: Layer | None = None
    steps: list[Step] = field(default_factory=list)
    signs: bool = False

    def pack(self, bits_in: bool) -> list[Layer]:
        if isinstance(self.head, BinaryDense | BinaryConv2D):
            if not _has_k_map(self.head):
                return self._pack_product(self.head, bits_in)
            return [_pack_numbers(self.head), *self._pack_steps()]
        head = [] if self.head is None else [_pack_alone(self.head, bits_in)]
        return head + self._pack_steps()

    def _pack_product(self, product: BinaryDense | BinaryConv2D, bits_in: bool) -> list[Layer]:
        if self.signs:
            filters = product.weight.shape[0]
            k = product.weight.size // filters if bits_in else None

            def expression(z: np.ndarray) -> np.ndarray:
                return product.scale_products(z)

            threshold, flip = fold(_chained(expression, self.steps), filters, k)
            pools = _pack_pools(expression, self.steps, flip, filters, k)
            return [_packed_product(product, threshold=threshold, flip=flip), *pools]
        plain = product.bias is None and product.alpha is None
        if plain and self.steps and isinstance(norm := self.steps[0], BatchNorm):
            alpha, bias = norm.affine()
            packed = _packed_product(product, alpha=alpha, bias=bias)
            return [packed, *(_pack_step(step) for step in self.steps[1:])]
        return [_pack_numbers(product), *(_pack_step(step) for step in self.steps)]

    def _pack_steps(self) -> list[Layer]:
        """Layers for numbers that no product folds with."""
        steps = list(self.steps)
        norms = [step for step in steps if isinstance(step, BatchNorm)]
        if not self.signs or not norms:
            return [_pack_step(step) for step in steps] + [PackedSign()] * self.signs
        packed: list[Layer] = []
        while isinstance(steps[0], MaxPool2D):  # fewer numbers are compared behind it
            packed.append(_pack_step(steps.pop(0)))
        features = norms[0].gamma.size
        threshold, flip = fold(_chained(_identity, steps), features)
        pools = _pack_pools(_identity, steps, flip, features, None)
        return [*packed, PackedSign(threshold, flip), *pools]


def _groups(layers: list[Layer]) -> list[_Group]:
    """Cut the chain before every head and behind every Sign."""
    groups = [_Group()]
    for layer in layers:
        group = groups[-1]
        if isinstance(layer, Dropout):
            continue
        if isinstance(layer, Step | Sign):
            if group.signs:
                groups.append(group := _Group())
            if isinstance(layer, Sign):
                group.signs = True
            else:
                group.steps.append(layer)
        else:
            groups.append(_Group(layer))
    return [group for group in groups if group.head or group.steps or group.signs]


def _has_k_map(product: BinaryDense | BinaryConv2D) -> bool:
    return isinstance(product, BinaryConv2D) and product.k_map


def _packed_product(product: BinaryDense | BinaryConv2D, **outputs) -> PackedDense | PackedConv2D:
    if isinstance(product, BinaryDense):
        return PackedDense(product.bits, **outputs)
    settings = {"pad_value": product.pad_value, "k_map": product.k_map, **product.settings()}
    return PackedConv2D(product.bits, **outputs, **settings)


def _pack_numbers(product: BinaryDense | BinaryConv2D) -> PackedDense | PackedConv2D:
    return _packed_product(product, alpha=product.alpha, bias=product.bias_value)


def _pack_step(step: Step) -> Layer:
    """A step on numbers, or a pool of bits that stand for values."""
    if isinstance(step, BatchNorm):
        return PackedBatchNorm(*step.affine())
    return PackedMaxPool2D(**step.settings()) if isinstance(step, MaxPool2D) else PackedReLU()


def _pack_alone(layer: Layer, bits_in: bool) -> Layer:
    """The twin of a layer that folds with nothing."""
    if isinstance(layer, Conv2D):
        return FloatConv2D(layer.weight.value, layer.bias_value, **layer.settings())
    if isinstance(layer, Dense):
        return FloatDense(layer.weight.value, layer.bias_value)
    if isinstance(layer, AvgPool2D):
        return PackedAvgPool2D(**layer.settings())
    if isinstance(layer, GlobalAvgPool2D):
        return PackedGlobalAvgPool2D()
    if isinstance(layer, Flatten):
        return PackedFlatten()
    if isinstance(layer, Residual):
        chains = {name: _pack_chain(list(c), bits_in) for name, c in layer.branches().items()}
        # a shortcut of nothing but Dropout is the identity
        return PackedResidual(chains["body"], chains.get("shortcut") or None)
    raise TypeError(f"[freeze] no packed form is known for this layer, got {layer!r}")


Expression = Callable[[np.ndarray], np.ndarray]


def _identity(z: np.ndarray) -> np.ndarray:
    return z


def _chained(expression: Expression, steps: list[Step]) -> Expression:
    """What the evaluation graph makes of products, by the layers' own code; pools are left out."""
    layers = [step for step in steps if not isinstance(step, MaxPool2D)]

    def chained(z: np.ndarray) -> np.ndarray:
        z = expression(z)
        for layer in layers:
            z = layer.forward(z)
        return z

    return chained


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
