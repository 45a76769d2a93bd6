"""Sizes and memory of packed arrays."""

from __future__ import annotations

import math
import mmap
from contextlib import suppress
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from .. import _core

WORD_BITS = 64
MAX_BITS = 2**31 - 1  # in a row, because dot products are int32
CACHE_LINE = _core.LINE_BYTES
LARGE = _core.LARGE  # bytes; smaller arrays gain less from alignment than the microsecond it costs
_MAPPED = 1 << 23  # bytes; the first use of the pages of smaller arrays costs more than it saves
_HUGE = getattr(mmap, "MADV_HUGEPAGE", None)  # pages of 2 MiB, so that there are fewer first uses
# Shared pages, as which Python maps by default where there are others, are never huge.
_PRIVATE = {"flags": mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS} if hasattr(mmap, "MAP_PRIVATE") else {}


def word_count(bits: int) -> int:
    """Return how many words hold this many bits."""
    return -(-bits // WORD_BITS)


def aligned_empty(shape: tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
    """Return an uninitialised array; a large one starts on a cache line.

    A 64-byte vector that straddles two cache lines costs two accesses. On one AVX-512 core this
    slowed down products with plain rows by 10%, and those with panels by 5%.
    """
    dtype = np.dtype(dtype)
    nbytes = math.prod(shape) * dtype.itemsize
    if not LARGE <= nbytes <= _core.LARGEST:  # NumPy says why the latter is impossible
        return np.empty(shape, dtype)
    return _core.empty_lines(shape, dtype, nbytes)


def mapped_empty(shape: tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
    """Return an uninitialised array, a large one in pages of its own, outside the heap.

    For what stays while larger arrays come and go: in the heap it would lie between them, and leave
    holes in which none of them fits. It lowered the peak of a training step of BinaryNet's ConvNet
    from 237 to 227 MiB.
    """
    dtype = np.dtype(dtype)
    nbytes = math.prod(shape) * dtype.itemsize
    if nbytes < _MAPPED:
        return aligned_empty(shape, dtype)
    try:
        pages = mmap.mmap(-1, nbytes, **_PRIVATE)
    except OSError as error:
        raise MemoryError(f"{nbytes} bytes of memory are needed and not available") from error
    if _HUGE is not None:
        with suppress(OSError):  # of systems that have none
            pages.madvise(_HUGE)
    return np.frombuffer(pages, dtype).reshape(shape)
