"""From values to words: signs of any dtype and layout, and words packed along another axis."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from .. import _core
from .checks import BFLOAT16
from .memory import WORD_BITS, aligned_empty, word_count

# To pack along another axis than the last, bits packed along the last are transposed. If there are
# fewer of these than half a word, it is faster to transpose the values.
MIN_COLUMNS = 32

_Bits = TypeVar("_Bits", bound=_core.Bits)

MAX_BLOCK_BYTES = 1 << 22  # of values that are copied to be packed

PACK_CODES = _core.PACK_CODES  # by dtype; bfloat16 comes in with its first array


def sign_words(x: NDArray[Any], axis: int) -> tuple[NDArray[np.uint64], bool]:
    """Pack the signs of an array along an axis, and tell whether it holds NaN."""
    if x.dtype.name == BFLOAT16:
        PACK_CODES[x.dtype] = _core.BF16
    if x.ndim == 2 and x.flags.f_contiguous:  # its transpose has C order and the same words
        x, axis = x.T, 1 - axis
    elif x.ndim > 2 and not x.flags.c_contiguous:
        order = sorted(range(x.ndim), key=lambda i: -abs(x.strides[i]))
        if x.transpose(order).flags.c_contiguous:  # such as NHWC seen in NCHW
            return _pack_transposed(x, order, axis)
    if axis != x.ndim - 1 and x.shape[-1] >= MIN_COLUMNS and x.flags.c_contiguous:
        words, has_nan = sign_words(x, x.ndim - 1)
        return transpose_words(words, x.shape, axis), has_nan
    if axis != x.ndim - 1:  # moveaxis takes microseconds, and the last axis is the usual one
        x = np.moveaxis(x, axis, -1)
    words = aligned_empty((*x.shape[:-1], word_count(x.shape[-1])), np.uint64)
    if x.flags.c_contiguous and x.dtype in PACK_CODES:
        return words, _pack_rows(x, words)
    has_nan = False
    for index in blocks(x.shape, max(MAX_BLOCK_BYTES // x.itemsize, WORD_BITS)):
        *lead, last = index
        place = slice(last.start // WORD_BITS, word_count(last.stop))
        values, nan = _packable(np.ascontiguousarray(x[index]))
        has_nan |= nan | _pack_rows(values, words[(*lead, place)])
    return words, has_nan


def _pack_transposed(
    x: NDArray[Any], order: list[int], axis: int
) -> tuple[NDArray[np.uint64], bool]:
    """Do what `sign_words` does for an array whose axes have C order in this order."""
    words, has_nan = sign_words(x.transpose(order), order.index(axis))
    others = [i for i in order if i != axis]  # the axes of the words, before their last
    back = [others.index(i) for i in range(x.ndim) if i != axis]
    return np.ascontiguousarray(words.transpose(*back, x.ndim - 1)), has_nan


def blocks(shape: tuple[int, ...], most: int) -> Iterator[tuple[slice, ...]]:
    """Cut an array into blocks of at most `most` elements, whose rows begin at whole words."""
    *lead, k = shape
    steps = [1] * len(lead) + [max(most // WORD_BITS * WORD_BITS, WORD_BITS)]
    if k <= most:
        fitting, steps[-1] = most // max(k, 1), max(k, 1)
        for i in range(len(lead) - 1, -1, -1):
            steps[i] = min(max(fitting, 1), max(lead[i], 1))
            fitting //= max(lead[i], 1)
    ranges = [range(0, n, step) for n, step in zip(shape, steps, strict=True)]
    for starts in itertools.product(*ranges):
        yield tuple(
            slice(start, min(start + step, n))
            for start, step, n in zip(starts, steps, shape, strict=True)
        )


def _packable(x: NDArray[Any]) -> tuple[NDArray[Any], bool]:
    """Return values of a type that kernels pack by the same signs, and whether `x` holds NaN."""
    if x.dtype in PACK_CODES:
        return x, False
    return x >= 0, bool(np.isnan(x).any())  # long double


def _pack_rows(x: NDArray[Any], words: NDArray[np.uint64]) -> bool:
    """Pack contiguous values along their last axis into `words`, and tell whether one is NaN."""
    k = x.shape[-1]
    if words.size == 0:
        return False
    out = words if words.flags.c_contiguous else np.empty(words.shape, np.uint64)
    rows, values = math.prod(x.shape[:-1]), x.reshape(-1).view(np.uint8)
    has_nan = _core.pack(PACK_CODES[x.dtype], values, rows, k, out.reshape(rows, -1))
    if out is not words:
        words[...] = out
    return has_nan


def transpose_words(
    words: NDArray[np.uint64], shape: tuple[int, ...], axis: int
) -> NDArray[np.uint64]:
    """Transpose words, packed along the last axis of an array of this shape, to another axis."""
    *lead, k = shape
    words = np.ascontiguousarray(np.moveaxis(words, axis, -2))
    n = lead.pop(axis)
    transposed = aligned_empty((*lead, k, word_count(n)), np.uint64)
    outer = math.prod(lead)
    _core.transpose(
        words.reshape(outer, n, word_count(k)), transposed.reshape(outer, k, word_count(n))
    )
    return transposed


def repack(b: _Bits, axis: int) -> _Bits:
    """Return bits packed along another axis, which must not be negative.

    For this the bits are transposed. A row of the drawings is one row of words, its bit 0 first::

        packed along k                          packed along n

        n = 0    x00 x01 x02 ... 0 0            k = 0    x00 x10 x20 ... 0
        n = 1    x10 x11 x12 ... 0 0     ->     k = 1    x01 x11 x21 ... 0
        n = 2    x20 x21 x22 ... 0 0            k = 2    x02 x12 x22 ... 0
        ...                                     ...
    """
    if b.axis == axis:
        return b
    # The axes in the order of the words: the packed one last.
    others = [i for i in range(b.ndim) if i != b.axis]
    shape = (*(b.shape[i] for i in others), b.shape[b.axis])
    words = transpose_words(b._words, shape, others.index(axis))
    left = [i for i in others if i != axis]
    place = sum(i < b.axis for i in left)  # where axis -2, which was packed, belongs
    return b._make(np.moveaxis(words, -2, place), b.shape, axis)


def plain_rows(b: _core.Bits) -> NDArray[np.uint64]:
    """Return the words as a matrix of rows that ascend, whose words lie side by side.

    Rows may have a distance, so this is no copy for parts of them.
    """
    words = b._words
    if words.ndim == 2 and words.strides[1] == words.itemsize and words.strides[0] >= 0:
        return words
    return contiguous_rows(b)


def contiguous_rows(b: _core.Bits) -> NDArray[np.uint64]:
    """Return the words as a C-contiguous matrix, a row for each position of the other axes."""
    words = b._words
    if words.ndim == 2 and words.flags.c_contiguous:
        return words
    rows = math.prod(words.shape[:-1])
    return np.ascontiguousarray(words).reshape(rows, words.shape[-1])
