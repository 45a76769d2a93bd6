"""Quantized weights as sums of packed +-1 planes: one for binary, two for ternary, k for k bits."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any, Protocol, get_args

import numpy as np

from ..ops.array import BitArray, pack, unpack
from ..ops.prepack import prepack
from ..ops.scaling import binarize_weights
from ..quantizers import (
    DoReFaWeight,
    LeastSquaresTernary,
    MagnitudeAwareSign,
    Quantizer,
    ShareTernary,
    Ternary,
    TwnTernary,
    XnorSign,
)
from ..quantizers.base import check_quantizer
from .backward import Gradient

OwnWeightQuantizer = (
    DoReFaWeight
    | LeastSquaresTernary
    | MagnitudeAwareSign
    | ShareTernary
    | Ternary
    | TwnTernary
    | XnorSign
)
OWN_WEIGHT_QUANTIZERS: tuple[type, ...] = get_args(OwnWeightQuantizer)


class MakesPlanes(Quantizer, Protocol):
    """A quantizer of weights that says itself which planes its values are the sum of."""

    def planes(self, w: np.ndarray) -> Planes:
        """The values of `forward`, as planes."""


WeightQuantizer = OwnWeightQuantizer | MakesPlanes

# product with one plane; takes alpha and bias as the public product functions do
Multiply = Callable[..., np.ndarray]

# Sums of products with codes are int32.
MAX_SUM = 2**31 - 1


class Planes:
    """Weights alpha * (c_1 B_1 + c_2 B_2 + ...), each B of +-1.

    Parameters
    ----------
    bits : sequence of BitArray of shape (n, ..., k)
        The planes B, packed along the last axis.
    coefficients : sequence of int
        The c, one a plane.
    alpha : array_like of shape (n,), float32, optional
        Scale of each filter.
    """

    def __init__(
        self,
        bits: Sequence[BitArray],
        coefficients: Sequence[int] = (1,),
        alpha: np.ndarray | None = None,
    ):
        self.bits = tuple(bits)
        self.coefficients = tuple(coefficients)
        self.alpha = alpha
        self.prepacked = tuple(prepack(plane) for plane in self.bits)

    def __deepcopy__(self, memo: dict) -> Planes:
        """Itself: planes do not change once made, and panels cannot be copied."""
        return self

    def stacked(self) -> BitArray:
        """Return the planes as one BitArray, along a new first axis."""
        words = np.stack([plane.words for plane in self.bits])
        return BitArray.from_words(words, (len(self.bits), *self.bits[0].shape))

    @property
    def is_single(self) -> bool:
        """Whether one plane with coefficient 1 is all: the weights are alpha * B."""
        return self.coefficients == (1,)

    @cached_property
    def turned(self) -> tuple[BitArray, ...]:
        """The planes as matrices (weights of a filter, filters), packed along the filters."""
        filters, *rest = self.bits[0].shape
        # the rows of a convolution's filters follow each other without gaps
        shape = filters, math.prod(rest)
        return tuple(pack(BitArray.from_words(p.rows(), shape).T) for p in self.prepacked)

    def values(self) -> np.ndarray:
        """The weights, float32."""
        values = sum_planes(
            [unpack(plane, dtype=np.float32) for plane in self.bits], self.coefficients
        )
        if self.alpha is not None:
            values *= self.alpha.reshape(-1, *[1] * (values.ndim - 1))
        return values

    def scale(self, step: float = 1.0) -> np.ndarray | None:
        """alpha times the step of the input, float32, one a filter; None for ones."""
        if step == 1:
            return self.alpha
        ones = np.ones(self.bits[0].shape[0], np.float32)
        return (ones if self.alpha is None else self.alpha) * np.float32(step)

    def outputs(
        self, multiply: Multiply, *, step: float = 1.0, bias: np.ndarray | None = None
    ) -> np.ndarray:
        """Scaled products, float32; `multiply` makes those with one plane."""
        scale = self.scale(step)
        if self.is_single:
            # alpha = 1 makes exact integers come as float32
            return multiply(self.prepacked[0], alpha=1.0 if scale is None else scale, bias=bias)
        z = sum_planes([multiply(plane) for plane in self.prepacked], self.coefficients)
        return scaled(z, scale, bias)

    def input_gradient(self, dy: Gradient) -> np.ndarray:
        """dy W for rows dy of shape (m, n)."""
        gradient = dy.scaled(self.alpha)
        rows = gradient.matrix()
        return sum_planes([gradient.times(rows, plane) for plane in self.turned], self.coefficients)


def sum_planes(parts: Sequence[np.ndarray], coefficients: Sequence[int]) -> np.ndarray:
    """Sum of the products with each plane, int32 or float32 as they are; the first is reused."""
    total = parts[0]
    if coefficients[0] != 1:
        total *= total.dtype.type(coefficients[0])
    for part, coefficient in zip(parts[1:], coefficients[1:], strict=True):
        total += part if coefficient == 1 else part * part.dtype.type(coefficient)
    return total


def scaled(z: np.ndarray, alpha: Any, bias: np.ndarray | None) -> np.ndarray:
    """z * alpha + bias in float32, each step rounded; absent factors are skipped."""
    y = z.astype(np.float32, copy=False)
    if alpha is not None:
        y = y * alpha
    return y if bias is None else y + bias


def check_sums(where: str, k: int, largest: int, coefficients: Sequence[int]) -> None:
    """Refuse filters whose integer sums, with codes up to `largest`, could leave int32."""
    if k * largest * sum(abs(c) for c in coefficients) > MAX_SUM:
        raise ValueError(
            f"[{where}] weights of a filter must be so few that sums fit int32, got {k} for codes "
            f"up to {largest} and planes that count {list(coefficients)}"
        )


def check_weight_quantizer(where: str, quantizer: Any) -> None:
    """Refuse a quantizer whose values `planes_of` cannot make."""
    check_quantizer(where, quantizer)
    kind = type(quantizer)
    base = next((base for base in kind.__mro__ if base in OWN_WEIGHT_QUANTIZERS), None)
    values = ("forward", "split", "codes", "alpha")
    is_ours = base and all(getattr(kind, n, None) is getattr(base, n, None) for n in values)
    if not (is_ours or callable(getattr(quantizer, "planes", None))):
        names = ", ".join(base.__name__ for base in OWN_WEIGHT_QUANTIZERS)
        raise TypeError(
            f"[{where}] quantizer must be one of weights ({names}), with the values of these, or "
            f"have planes(w), which gives its values as bitops.layers.planes.Planes, "
            f"got {quantizer!r}"
        )


def planes_of(quantizer: WeightQuantizer, w: np.ndarray) -> Planes:
    """What a quantizer makes of latent weights, as planes.

    Notes
    -----
    Ternary weights are the mean of two planes that differ where they are 0. Weights of k bits are
    odd integers of k planes that count 1, 2, 4, ..., divided by 2^k - 1.
    """
    if hasattr(quantizer, "planes"):
        return quantizer.planes(w)
    if isinstance(quantizer, MagnitudeAwareSign | XnorSign):
        bits, alpha = binarize_weights(w)
        return Planes([bits], (1,), alpha)
    filters = len(w)
    if isinstance(quantizer, DoReFaWeight):
        if quantizer.bits == 1:
            return Planes([pack(w)], (1,), np.full(filters, np.abs(w).mean(), np.float32))
        codes = quantizer.codes(w)
        planes = [pack((codes >> i & 1).astype(np.int8) * 2 - 1) for i in range(quantizer.bits)]
        levels = np.float32(2**quantizer.bits - 1)
        counts = [1 << i for i in range(quantizer.bits)]
        return Planes(planes, counts, np.full(filters, 1 / levels, np.float32))
    t, alpha = quantizer.split(w)
    half = np.broadcast_to(np.float32(0.5) * np.reshape(alpha, -1), (filters,))
    return Planes([pack(t), pack(t - np.float32(0.5))], (1, 1), np.array(half, np.float32))
