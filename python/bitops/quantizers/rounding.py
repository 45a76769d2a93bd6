"""Rounding to powers of two, and of gradients to 8 bits."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .. import _core
from .base import LARGEST, Array

# Bits of float32: what to add to a mantissa so that one above sqrt(2) carries into the exponent.
_TO_NEXT_POWER = np.uint32(0x00800000 - 0x003504F4)
_SIGN_AND_EXPONENT = np.uint32(0xFF800000)


def ap2(z: ArrayLike) -> Array:
    """The power of two nearest in logarithm, with the sign of z: sign(z) * 2^round(log2(abs(z))).

    Parameters
    ----------
    z : array_like of real numbers
        Converted to float32. 0, NaN and infinity stay what they are; numbers below 2^-126 become 0
        or 2^-126.

    Returns
    -------
    ndarray of float32

    References
    ----------
    Courbariaux, Hubara et al., "Binarized Neural Networks", 2016 (shift-based normalization).
    """
    z = np.asarray(z, dtype=np.float32)
    bits = np.ascontiguousarray(z).view(np.uint32)
    powers = ((bits + _TO_NEXT_POWER) & _SIGN_AND_EXPONENT).view(np.float32)
    return np.where(np.isnan(z), z, powers.reshape(z.shape))


@dataclass(frozen=True)
class ByteGradient:
    """Gradients rounded at random to one byte each, for products with bits.

    Parameters
    ----------
    seed : int, SeedSequence or Generator, optional
        Source of the rounding.

    Notes
    -----
    With m the largest abs(g) and step = m / 127, a number is stored as byte b = floor(g / step +
    128 + u), u uniform in [0, 1), and stands for (b - 128) step: its mean is g, and 0 stays 0. One
    step serves a whole array, so that products with +-1 are exact integers times that step.

    References
    ----------
    Zhou et al., "DoReFa-Net", 2016, section 2.5, which rounds each sample by itself.
    """

    ZERO: ClassVar[int] = 128  # the byte that stands for 0

    seed: Any = None
    _rng: np.random.Generator = field(init=False, repr=False, compare=False)

    def __post_init__(self):
        object.__setattr__(self, "_rng", np.random.default_rng(self.seed))

    @property
    def generator(self) -> np.random.Generator:
        """Source of the random numbers, whose state a checkpoint keeps."""
        return self._rng

    def round(self, g: ArrayLike) -> tuple[NDArray[np.uint8], float]:
        """Bytes of an array and the step; infinities and NaN are refused."""
        numbers = np.ascontiguousarray(g, np.float32)
        most = max(float(numbers.max(initial=0)), -float(numbers.min(initial=0)))
        if not math.isfinite(most):
            raise ValueError("[ByteGradient] g must be finite, got infinity or NaN")
        # Rounded down, so that the largest number does not pass 127.
        scale = np.nextafter(np.float32(min(127 / most if most else 1.0, LARGEST)), np.float32(0))
        codes = np.empty(numbers.shape, np.uint8)
        seed = int(self._rng.integers(2**32))
        _core.quantize(numbers.reshape(-1), scale, seed, codes.reshape(-1))
        return codes, 1 / float(scale)
