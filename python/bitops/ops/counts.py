"""Counts of bits, of a whole array or along an axis."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .. import _core
from .array import BitArray, pack_operand
from .checks import normalize_axis
from .memory import WORD_BITS
from .packing import contiguous_rows

__all__ = ["popcount"]

# Words of a row from which on columns are counted at full speed, and so many rows are worth it.
WIDE_ROW, MIN_WIDE_ROWS = 16, 64


def popcount(x: ArrayLike | BitArray, axis: int | None = None) -> Any:
    """Count the elements that are +1, in the whole array or along one axis.

    Parameters
    ----------
    x : BitArray, or array_like of real numbers, packed by sign on the fly
    axis : int, optional
        The axis to count along, packed or not. By default, the whole array is counted.

    Returns
    -------
    int, or ndarray of int64
        With an `axis`, an array of the shape of `x` without this axis.

    Raises
    ------
    TypeError
        If `x` does not hold real numbers, or `axis` is not an integer.
    ValueError
        If `x` holds NaN, is a scalar, or has no such axis.

    Examples
    --------
    >>> from bitops import pack
    >>> b = pack([[1.5, -2.0, 0.0], [-1.0, -3.0, -4.0]])
    >>> popcount(b)
    2
    >>> popcount(b, axis=1)
    array([2, 0])
    """
    counts = _core.usual_popcount(x, axis)
    if counts is not None:
        return counts
    if axis is None:
        b = pack_operand("popcount", "x", x, x.axis if isinstance(x, BitArray) else -1)
        total = np.empty(1, np.int64)
        _core.popcount(contiguous_rows(b).reshape(1, -1), total)  # padding bits are 0
        return int(total[0])
    if isinstance(x, BitArray):
        axis = normalize_axis("popcount", axis, x.ndim)
        if axis != x.axis:
            return _popcount_across(x, axis)
    b = pack_operand("popcount", "x", x, axis)
    counts = np.empty(b._words.shape[:-1], np.int64)
    _core.popcount(contiguous_rows(b), counts.reshape(-1))
    return counts


def _popcount_across(b: BitArray, axis: int) -> NDArray[np.int64]:
    """Count along another axis than the packed one, at each bit of the words."""
    words = np.ascontiguousarray(b._words)
    place = axis - (axis > b.axis)  # the axis among those of the words
    lead = (*words.shape[:place], *words.shape[place + 1 : -1])
    blocks = (
        math.prod(words.shape[:place]),
        words.shape[place],
        math.prod(words.shape[place + 1 :]),
    )
    counts = np.empty((*lead, words.shape[-1] * WORD_BITS), np.int64)
    if counts.size:
        _count_columns(words.reshape(blocks), counts.reshape(blocks[0], -1))
    positions = counts[..., : b.shape[b.axis]]
    return np.ascontiguousarray(np.moveaxis(positions, -1, b.axis - (axis < b.axis)))


def _count_columns(words: NDArray[np.uint64], counts: NDArray[np.int64]) -> None:
    """Count 1 bits over the middle axis; short rows, several of them as if they were one."""
    outer, rows, n = words.shape
    several = WIDE_ROW // n
    if outer > 1 or several < 2 or rows < MIN_WIDE_ROWS * several:
        _core.popcount_columns(words, counts)
        return
    whole = rows // several * several
    wide = np.empty((1, several * n * WORD_BITS), np.int64)
    _core.popcount_columns(words[:, :whole].reshape(1, -1, several * n), wide)
    _core.popcount_columns(words[:, whole:], counts)
    counts += wide.reshape(several, -1).sum(axis=0)
