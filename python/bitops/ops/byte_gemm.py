"""Products of bytes with bytes, both of which lie along the axis that is summed."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from .. import _core

__all__ = ["BYTE_BITS", "byte_gemm"]

BYTE_BITS = 7  # of the codes of y: two products fit 16 bits then, in which kernels add them
ROWS, COLUMNS = 16, 32  # whole blocks of sums, as the kernels write them
MOST_TERMS = 2**31 // (128 * 127) // 1024 * 1024  # whose sum fits int32

Codes = NDArray[np.uint8]


def byte_gemm(
    blocks: Iterable[tuple[Codes, Codes]],
    zeros: tuple[int, int],
    scale: float,
    out: NDArray[np.float32],
) -> None:
    """Multiply the transpose of a matrix with another one, of which codes come block by block.

    Parameters
    ----------
    blocks : iterable of pairs of ndarrays of shape (k, m) and (k, n), uint8
        Codes x and y of some of the terms of all sums; those of y have 7 bits.
    zeros : pair of int
        The codes of 0. That of x is at most 128, and at most 127 less than any x.
    scale : float
    out : ndarray of shape (m, n), float32
        Gets scale * sum((x - zero of x) (y - zero of y)). The sums are exact; up to MOST_TERMS
        terms are rounded together.
    """
    m, n = out.shape
    sums = np.zeros((-(-m // ROWS) * ROWS, -(-n // COLUMNS) * COLUMNS), np.int32)
    totals = np.zeros(m, np.int32)  # of x - zero
    terms = 0
    out[...] = 0
    for x, y in blocks:
        for first in range(0, len(x), MOST_TERMS):
            some = slice(first, first + MOST_TERMS)
            if terms + len(x[some]) > MOST_TERMS:
                _add_scaled(sums, totals, zeros[1], scale, out)
                terms = 0
                sums[...] = totals[...] = 0
            terms += len(x[some])
            _core.byte_gemm(x[some], zeros[0], y[some], sums)
            if zeros[1]:
                totals += x[some].sum(axis=0, dtype=np.int32) - np.int32(len(x[some]) * zeros[0])
    _add_scaled(sums, totals, zeros[1], scale, out)


def _add_scaled(
    sums: NDArray[np.int32],
    totals: NDArray[np.int32],
    zero: int,
    scale: float,
    out: NDArray[np.float32],
) -> None:
    """Add sums of (x - zero of x) y to `out`, less those that the zero of y stands for."""
    m, n = out.shape
    for first in range(0, m, ROWS):  # which stay in the cache
        rows = slice(first, min(first + ROWS, m))
        own = sums[rows, :n]
        if zero:
            own = own - zero * totals[rows, np.newaxis]
        out[rows] += own * scale
