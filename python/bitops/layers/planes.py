"""Quantized weights as sums of packed +-1 planes.

A product with such weights is a sum of products of bits, one a plane. Before the scale alpha, the
weights are integers:

    binary, 1 plane         ternary, 2 planes          2 bits, 2 planes
    B      weight           B1   B2   weight           B1   B2   weight
    -----------------       ----------------------     -----------------------
    +1     +1               +1   +1   +2               +1   +1   1 + 2 =  3
    -1     -1               +1   -1    0               -1   +1   -1 + 2 = 1
                            -1   -1   -2               +1   -1   1 - 2 = -1
                                                       -1   -1   -1 - 2 = -3
    coefficients (1,)       coefficients (1, 1)        coefficients (1, 2)
    alpha                   alpha / 2                  alpha = 1 / 3
"""

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
    """Interface of a quantizer of weights that returns its values as planes."""

    def planes(self, w: np.ndarray) -> Planes:
        """Return the values of `forward` as planes."""


WeightQuantizer = OwnWeightQuantizer | MakesPlanes

# Multiplies by one plane; takes alpha and bias as the public product functions do.
PlaneProduct = Callable[..., np.ndarray]

# Sums of products with codes are int32.
MAX_SUM = 2**31 - 1


class Planes:
    """Weights alpha * (c_1 B_1 + c_2 B_2 + ...), each B of +-1.

    Parameters
    ----------
    bits : sequence of BitArray of shape (n, ..., k)
        The planes B, packed along the last axis.
    coefficients : sequence of int
        The factors c, one a plane.
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

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.bits, self.coefficients, self.alpha)

    def stacked(self) -> BitArray:
        """Return the planes as one BitArray, along a new first axis."""
        words = np.stack([plane.words for plane in self.bits])
        return BitArray.from_words(words, (len(self.bits), *self.bits[0].shape))

    @property
    def is_single(self) -> bool:
        """Whether there is one plane with coefficient 1, so that the weights are alpha * B."""
        return self.coefficients == (1,)

    @cached_property
    def transposed(self) -> tuple[BitArray, ...]:
        """The transposed planes, of shape (weights of a filter, filters), packed along filters."""
        filters, *rest = self.bits[0].shape
        # A filter of a convolution has several rows; in the panels they lie without gaps.
        shape = filters, math.prod(rest)
        return tuple(pack(BitArray.from_words(p.rows(), shape).T) for p in self.prepacked)

    def values(self) -> np.ndarray:
        """Return the weights as float32."""
        values = sum_planes(
            [unpack(plane, dtype=np.float32) for plane in self.bits], self.coefficients
        )
        if self.alpha is not None:
            values *= self.alpha.reshape(-1, *[1] * (values.ndim - 1))
        return values

    def scale(self, step: float = 1.0) -> np.ndarray | None:
        """Return alpha times the step of the input, one float32 a filter; None if all are 1."""
        if step == 1:
            return self.alpha
        ones = np.ones(self.bits[0].shape[0], np.float32)
        return (ones if self.alpha is None else self.alpha) * np.float32(step)

    def outputs(
        self, multiply: PlaneProduct, *, step: float = 1.0, bias: np.ndarray | None = None
    ) -> np.ndarray:
        """Return scaled products, float32; `multiply` multiplies by one plane."""
        scale = self.scale(step)
        if self.is_single:
            # alpha = 1 turns exact integers into float32
            return multiply(self.prepacked[0], alpha=1.0 if scale is None else scale, bias=bias)
        z = sum_planes([multiply(plane) for plane in self.prepacked], self.coefficients)
        return scaled(z, scale, bias)

    def input_gradient(self, dy: Gradient) -> np.ndarray:
        """Return dy W for rows dy of shape (m, n)."""
        gradient = dy.scaled(self.alpha)
        rows = gradient.matrix()
        return sum_planes(
            [gradient.times(rows, plane) for plane in self.transposed], self.coefficients
        )


def sum_planes(parts: Sequence[np.ndarray], coefficients: Sequence[int]) -> np.ndarray:
    """Add up products with each plane in their own dtype; the first one is overwritten."""
    total = parts[0]
    if coefficients[0] != 1:
        total *= total.dtype.type(coefficients[0])
    for part, coefficient in zip(parts[1:], coefficients[1:], strict=True):
        total += part if coefficient == 1 else part * part.dtype.type(coefficient)
    return total


def scaled(z: np.ndarray, alpha: Any, bias: np.ndarray | None) -> np.ndarray:
    """Return z * alpha + bias in float32, each step rounded; skip what is None."""
    y = z.astype(np.float32, copy=False)
    if alpha is not None:
        y = y * alpha
    return y if bias is None else y + bias


def check_sums(where: str, k: int, largest: int, coefficients: Sequence[int]) -> None:
    """Refuse filters whose sums with codes up to `largest` might overflow int32."""
    if k * largest * sum(abs(c) for c in coefficients) > MAX_SUM:
        raise ValueError(
            f"[{where}] the sums of a filter must fit int32, got {k} weights, "
            f"codes up to {largest} and coefficients {list(coefficients)}"
        )


def check_weight_quantizer(where: str, quantizer: Any) -> None:
    """Refuse a quantizer whose values `planes_of` cannot express as planes."""
    check_quantizer(where, quantizer)
    kind = type(quantizer)
    base = next((base for base in kind.__mro__ if base in OWN_WEIGHT_QUANTIZERS), None)
    values = ("forward", "split", "codes", "alpha")
    is_ours = base and all(getattr(kind, n, None) is getattr(base, n, None) for n in values)
    if not (is_ours or callable(getattr(quantizer, "planes", None))):
        names = ", ".join(base.__name__ for base in OWN_WEIGHT_QUANTIZERS)
        raise TypeError(
            f"[{where}] quantizer must be one of weights ({names}) with its values unchanged, or "
            f"have planes(w) that returns its values as bitops.layers.planes.Planes, "
            f"got {quantizer!r}"
        )


def planes_of(quantizer: WeightQuantizer, w: np.ndarray) -> Planes:
    """Quantize latent weights and return the result as planes.

    Notes
    -----
    Ternary weights are the mean of two planes, which differ where the weight is 0. Weights of k
    bits are odd integers divided by 2^k - 1; their k planes have the coefficients 1, 2, 4, ...
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
