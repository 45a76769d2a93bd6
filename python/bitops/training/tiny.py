"""Numbers so small that processors take a hundred times as long for them.

Weights that decay, and moments of gradients that have become 0, shrink from step to step, until
they are below the normal numbers of float32 (2^-126). There they stay, as rounding keeps them from
0, and each instruction that meets one of them takes a hundred cycles or more.
"""

from __future__ import annotations

import numpy as np

TINY = 2.0**-100  # times what else there is, still a normal number
_PIECE = 32768  # elements at a time, so that copies fit the cache


def drop_tiny(numbers: np.ndarray) -> None:
    """Set what is closer to 0 than `TINY` to 0, in place.

    Parameters
    ----------
    numbers : ndarray of float32; or of uint16, the bits of bfloat16
        C-contiguous.
    """
    width = 8 * numbers.itemsize
    limit = int(np.float32(TINY).view(np.uint32)) >> (32 - width)  # bfloat16 is the upper half
    bits = numbers.reshape(-1).view(f"u{numbers.itemsize}")
    magnitude = bits.dtype.type(2 ** (width - 1) - 1)
    for start in range(0, bits.size, _PIECE):
        piece = bits[start : start + _PIECE]  # as integers, which take no longer if they are small
        tiny = (piece & magnitude) < limit
        if piece[tiny].any():
            piece[tiny] = 0
