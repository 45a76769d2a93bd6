"""The majority of bits at each position, by counting them."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .. import _core
from .array import BitArray, pack_operand
from .checks import normalize_axis
from .counts import popcount
from .memory import aligned_empty, word_count

__all__ = ["majority"]

NARROW = 8  # words: many such rows are counted fastest several at a time, as popcount does
MOST_BITS = 1 << 15  # of rows that are counted and compared in one pass


def majority(b: ArrayLike | BitArray, axis: int = 0) -> BitArray:
    """Take the value that most elements along an axis have; of as many of each, +1.

    Parameters
    ----------
    b : BitArray, or array_like of real numbers, packed by sign on the fly; at least 2-d
    axis : int, default 0
        The axis to count along, packed or not.

    Returns
    -------
    BitArray of the shape of `b` without this axis
        It is packed as `b`, or along its last axis if it was `b`'s packed axis that was counted.

    Raises
    ------
    TypeError
        If `b` does not hold real numbers, or `axis` is not an integer.
    ValueError
        If `b` holds NaN, has less than two axes, or has no such axis.

    Notes
    -----
    This is the sign of the sum of the values, whose sign is +1 where it is 0: in a tie, and where
    there are no elements. In hyperdimensional computing it is the bundle of vectors.

    Examples
    --------
    >>> majority([[1, 1, -1], [1, -1, -1], [-1, 1, -1], [1, -1, 1]]).words  # a tie in the middle
    array([3], dtype=uint64)
    """
    bits = pack_operand("majority", "b", b, b.axis if isinstance(b, BitArray) else -1)
    axis = normalize_axis("majority", axis, bits.ndim)
    if bits.ndim < 2:
        raise ValueError(f"[majority] b must have at least two axes, got shape {bits.shape}")
    shape = (*bits.shape[:axis], *bits.shape[axis + 1 :])
    if axis == bits.axis and len(shape) == 1:
        return BitArray._make(_along(bits._words, bits.shape[axis]), shape, 0)
    if axis == bits.axis:
        return _most(popcount(bits, axis), bits.shape[axis], len(shape) - 1)
    packed = bits.axis - (axis < bits.axis)
    place = axis - (axis > bits.axis)  # the axis among those of the words
    words, n = bits._words, bits.shape[axis]
    outer, width = math.prod(words.shape[:place]), math.prod(words.shape[place + 1 :])
    is_narrow = outer == 1 and width < NARROW
    if words.size == 0 or is_narrow or n > _core.MAJORITY_ROWS:
        return _most(popcount(bits, axis), n, packed)
    most = aligned_empty((*words.shape[:place], *words.shape[place + 1 :]), np.uint64)
    rows = _ascending(words.reshape(outer, n, width))
    _core.majority_columns(rows, (n + 1) // 2, most.reshape(outer, width))
    return BitArray._make(most, shape, packed)  # its padding bits are 0, as those of all rows


def _along(words: NDArray[np.uint64], k: int) -> NDArray[np.uint64]:
    """Take the majority of each row of k bits."""
    if k > MOST_BITS or words.size == 0:  # long rows are shared out to threads
        return _most(popcount(BitArray._make(words, (len(words), k), 1), 1), k, 0)._words
    most = aligned_empty((word_count(len(words)),), np.uint64)
    _core.majority_rows(np.ascontiguousarray(words), (k + 1) // 2, most)
    return most


def _ascending(words: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Return words of which those of a row lie side by side, and rows one after the other."""
    is_ascending = words.strides[-1] == words.itemsize and min(words.strides) >= 0
    return words if is_ascending else np.ascontiguousarray(words)


def _most(counts: NDArray[np.int64], n: int, axis: int) -> BitArray:
    """Pack whether at least half of n elements are +1, given how many are."""
    counts -= (n + 1) // 2
    return pack_operand("majority", "b", counts, axis)
