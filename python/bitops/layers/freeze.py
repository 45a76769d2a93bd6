"""From a trained Sequential to a Packed model that computes the same bits."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from .base import Layer
from .container import Packed, Sequential
from .dense import BinaryDense, PackedDense
from .norm import BatchNorm, PackedBatchNorm
from .quantizers import Dropout, PackedSign, Sign

_LARGEST_FLOAT_KEY = 0x7F7FFFFF


def freeze(model: Sequential) -> Packed:
    """Pack a training graph for inference.

    Parameters
    ----------
    model : Sequential
        Of BinaryDense, BatchNorm, Sign and Dropout layers, nested sequences included.

    Returns
    -------
    Packed
        A model of its own: later changes of `model` do not reach it. For the same input its output
        equals that of `model` in evaluation, bit for bit; a BinaryDense without bias at the end
        gives the same integers as int32.

    Raises
    ------
    TypeError
        On a layer of another type.

    Notes
    -----
    BinaryDense -> BatchNorm -> Sign becomes one PackedDense with a threshold a channel (see
    `fold`); a last BinaryDense -> BatchNorm becomes one with alpha and bias; Dropout vanishes.
    Layers that receive bits get integer thresholds. Those that receive the model's input get
    float32 ones, which decide every real number and every integer as the training graph does.
    """
    packed: list[Layer] = []
    bits_in = False
    for group in _groups(model):
        packed += group.pack(bits_in)
        bits_in = group.signs
    return Packed(packed)


@dataclass
class _Group:
    """At most one product, the BatchNorms behind it, and whether a Sign ends them."""

    dense: BinaryDense | None = None
    norms: list[BatchNorm] = field(default_factory=list)
    signs: bool = False

    def expression(self, z: np.ndarray) -> np.ndarray:
        """What the evaluation graph makes of the products `z`, by the layers' own code."""
        if self.dense is not None:
            z = self.dense.add_bias(z)
        for norm in self.norms:
            z = norm.forward(z)
        return z

    def pack(self, bits_in: bool) -> list[Layer]:
        if self.signs:
            return [self._pack_sign(bits_in)]
        affine = [norm.affine() for norm in self.norms]
        packed: list[Layer] = []
        if self.dense is not None and self.dense.bias is not None:
            packed.append(PackedDense(self.dense.bits, bias=self.dense.bias.value))
        elif self.dense is not None:
            alpha, bias = affine.pop(0) if affine else (None, None)
            packed.append(PackedDense(self.dense.bits, alpha=alpha, bias=bias))
        return packed + [PackedBatchNorm(alpha, bias) for alpha, bias in affine]

    def _pack_sign(self, bits_in: bool) -> Layer:
        if self.dense is None and not self.norms:
            return PackedSign()
        if self.dense is None:
            features = self.norms[0].gamma.size
            return PackedSign(*fold(self.expression, features))
        out_features, in_features = self.dense.weight.shape
        k = in_features if bits_in else None
        return PackedDense(self.dense.bits, *fold(self.expression, out_features, k))


def _groups(model: Sequential) -> list[_Group]:
    """Cut the chain before every product and behind every Sign."""
    groups = [_Group()]
    for layer in model.flat_layers():
        group = groups[-1]
        if isinstance(layer, BinaryDense):
            if group.dense is not None or group.norms or group.signs:
                groups.append(group := _Group())
            group.dense = layer
        elif isinstance(layer, BatchNorm | Sign):
            if group.signs:
                groups.append(group := _Group())
            if isinstance(layer, Sign):
                group.signs = True
            else:
                group.norms.append(layer)
        elif not isinstance(layer, Dropout):
            raise TypeError(f"[freeze] no packed form is known for this layer, got {layer!r}")
    return [group for group in groups if group.dense or group.norms or group.signs]


def fold(
    expression: Callable[[np.ndarray], np.ndarray], features: int, k: int | None = None
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
