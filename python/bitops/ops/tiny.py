"""Numbers so close to 0 that processors take a hundred times as long for them.

Those are the numbers below the normal ones of float32, which end at 2^-126. Weights that decay, and
moments of gradients that have become 0, shrink from step to step until they are there, and there
they stay, since rounding keeps them from 0.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

NORMAL = 2.0**-126  # the smallest normal number
_PIECE = 32768  # numbers at a time, so that copies fit the cache


def _bits(numbers: np.ndarray, limit: float) -> tuple[np.ndarray, int]:
    """Return the bits of float32, or of bfloat16 as uint16, and those of a limit."""
    bits = numbers.reshape(-1).view(f"u{numbers.itemsize}")
    return bits, int(np.float32(limit).view(np.uint32)) >> (32 - 8 * numbers.itemsize)


def _find(bits: np.ndarray, limit: int) -> Iterator[tuple[np.ndarray, Any]]:
    """Yield views of the pieces that hold tiny numbers other than 0, and where these are."""
    magnitude = bits.dtype.type(np.iinfo(bits.dtype).max // 2)
    for start in range(0, bits.size, _PIECE):
        piece = bits[start : start + _PIECE]  # integers take no longer if they are small
        tiny = (piece & magnitude) - bits.dtype.type(1) < limit - 1  # 0 - 1 is the largest
        if tiny.any():
            yield piece, tiny


def drop_tiny(numbers: np.ndarray, limit: float) -> None:
    """Set what is closer to 0 than `limit` to 0, in place.

    Parameters
    ----------
    numbers : ndarray of float32; or of uint16, the bits of bfloat16
        C-contiguous.
    limit : float
        A normal number above 0.
    """
    for piece, tiny in _find(*_bits(numbers, limit)):
        piece[tiny] = 0


def lift_tiny(numbers: np.ndarray, limit: float) -> None:
    """Set what is closer to 0 than `limit`, but not 0, to +-limit, in place, as `drop_tiny`."""
    bits, least = _bits(numbers, limit)
    sign = bits.dtype.type(np.iinfo(bits.dtype).max // 2 + 1)
    for piece, tiny in _find(bits, least):
        piece[tiny] = piece[tiny] & sign | bits.dtype.type(least)


def normal_or_0(w: np.ndarray) -> np.ndarray:
    """Return float32 with 0 for what is not a normal number; itself if there is nothing to do."""
    w = np.ascontiguousarray(w)
    if next(_find(*_bits(w, NORMAL)), None) is not None:
        w = w.copy()
        drop_tiny(w, NORMAL)
    return w
