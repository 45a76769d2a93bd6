"""Rounding of numbers to powers of two, and of gradients to 8 bits or fewer."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .. import _core
from ..ops.checks import as_float32, as_generator, check_integer
from .base import LARGEST, Array

# Added to the bits of a float32, this carries into the exponent if the mantissa is above sqrt(2):
#
#     sign (1 bit)   exponent (8 bits)   mantissa (23 bits)
_TO_NEXT_POWER = np.uint32(0x00800000 - 0x003504F4)
_SIGN_AND_EXPONENT = np.uint32(0xFF800000)


def ap2(z: ArrayLike) -> Array:
    """Round to the nearest power of two on a logarithmic scale, and keep the sign.

    Parameters
    ----------
    z : array_like of real numbers
        Used as float32.

    Returns
    -------
    ndarray of the shape of `z`, float32
        sign(z) * 2^round(log2(abs(z))). 0, NaN and infinity stay as they are. Numbers whose
        magnitude is below 2^-126 become 0 or 2^-126, with their sign.

    References
    ----------
    M. Courbariaux, I. Hubara et al., "Binarized Neural Networks", 2016 (shift-based batch
    normalization).

    Examples
    --------
    >>> ap2(np.float32([0.3, 3, -5]))
    array([ 0.25,  4.  , -4.  ], dtype=float32)
    """
    z = as_float32(z)
    bits = np.ascontiguousarray(z).view(np.uint32)
    powers = ((bits + _TO_NEXT_POWER) & _SIGN_AND_EXPONENT).view(np.float32)
    return np.where(np.isnan(z), z, powers.reshape(z.shape))


@dataclass(frozen=True)
class ByteGradient:
    """Stochastic rounding of gradients to one byte each, for products with bits or with bytes.

    Parameters
    ----------
    seed : int, SeedSequence or Generator, optional
        Source of the random numbers.
    bits : int in 2..8, default 8
        How many bits of the byte are used.

    Attributes
    ----------
    zero : int
        The code of 0, 2^(bits - 1).
    most : int
        The largest magnitude of code - zero, zero - 1.

    Notes
    -----
    A number g is stored as the byte b = floor(g / step + zero + u), where step = max(abs(g)) /
    (zero - 1) and u is uniform in [0, 1). The byte represents (b - zero) * step. Its expected value
    is g, and 0 stays 0. All numbers of an array have the same step, so that their products with +1
    and -1 are exact integers times the step. With 6 bits and fewer, and on AVX-512 also with 7,
    sums of four such numbers fit a byte, and products with bits are faster.

    References
    ----------
    S. Zhou et al., "DoReFa-Net", 2016, section 2.5. There each sample has its own step.

    Examples
    --------
    >>> numbers, step = ByteGradient(seed=0).round(np.float32([[0, 127]]))
    >>> numbers, step
    (array([[128, 255]], dtype=uint8), 1.0000000596046483)
    """

    seed: Any = None
    bits: int = 8
    _rng: np.random.Generator = field(init=False, repr=False, compare=False)

    def __post_init__(self):
        check_integer("ByteGradient", "bits", self.bits, 2, 8)
        object.__setattr__(self, "_rng", as_generator("ByteGradient", self.seed))

    @property
    def zero(self) -> int:
        return 1 << (self.bits - 1)

    @property
    def most(self) -> int:
        return self.zero - 1

    @property
    def generator(self) -> np.random.Generator:
        """The source of random numbers; checkpoints save its state."""
        return self._rng

    def round(
        self, g: ArrayLike, alpha: ArrayLike | None = None
    ) -> tuple[NDArray[np.uint8], float]:
        """Round an array to bytes.

        Parameters
        ----------
        g : array_like of real numbers
            Used as float32.
        alpha : array_like of real numbers, shape (n,), optional
            Factors of the last axis of `g`, of length n, used as float32: ``g * alpha`` is rounded,
            without making that array.

        Returns
        -------
        codes : ndarray of the shape of `g`, uint8
        step : float
            A code represents ``(code - zero) * step``; 0 if all numbers are 0.

        Raises
        ------
        ValueError
            If `g`, or ``g * alpha``, holds infinities or NaN, or if `alpha` has another shape.
        """
        numbers = np.ascontiguousarray(g, np.float32)
        factors = None if alpha is None else np.array(alpha, np.float32, order="C", copy=None)
        if factors is not None and factors.shape != numbers.shape[-1:]:
            raise ValueError(
                f"[ByteGradient] alpha must have shape {numbers.shape[-1:]}, one factor for each "
                f"entry of the last axis of g, got {factors.shape}"
            )
        name = "g" if alpha is None else "g, times alpha,"
        return self._round(name, numbers, self.zero, self.most, factors)

    def round_numbers(self, x: Array) -> tuple[NDArray[np.uint8], int, float]:
        """Round the input of a product to 7 bits, with the generator of its gradient.

        Parameters
        ----------
        x : ndarray, float32

        Returns
        -------
        codes : ndarray of the shape of `x`, uint8, up to 127
        zero : int
            The code of 0: 0 itself if no number is negative, else 64.
        step : float
            A code represents ``(code - zero) * step``; 0 if all numbers are 0.

        Raises
        ------
        ValueError
            If `x` holds infinities or NaN.
        """
        numbers = np.ascontiguousarray(x, np.float32)
        zero, most = (64, 63) if numbers.min(initial=0) < 0 else (0, 127)
        codes, step = self._round("x", numbers, zero, most)
        return codes, zero, step

    def _round(
        self, name: str, numbers: Array, zero: int, most: int, factors: Array | None = None
    ) -> tuple[NDArray[np.uint8], float]:
        """Round numbers, times factors of the last axis, to zero - most..zero + most."""
        largest = _core.peak(numbers.reshape(-1), factors)
        if not math.isfinite(largest):
            raise ValueError(f"[ByteGradient] {name} must be finite, got infinity or NaN")
        if not largest:  # products are 0 then, too, however they are rounded
            return np.full(numbers.shape, zero, np.uint8), 0.0
        # This is rounded down, so that the largest number does not exceed so many steps.
        scale = np.nextafter(np.float32(min(most / largest, LARGEST)), np.float32(0))
        codes = np.empty(numbers.shape, np.uint8)
        seed = int(self._rng.integers(2**32))
        _core.quantize(numbers.reshape(-1), scale, seed, zero, codes.reshape(-1), factors)
        return codes, 1 / float(scale)
