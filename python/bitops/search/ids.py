"""Checks of ids: numbers of rows, as callers give them."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..ops.checks import got_dtype
from ..ops.indexing import plain_index

__all__ = ["check_ids"]


def check_ids(
    where: str, name: str, x: ArrayLike, low: int, high: int, *, kinds: str = "integers"
) -> NDArray[np.int64]:
    """Check an array of integers in [low, high), and return it as int64.

    Parameters
    ----------
    where, name : str
        Names of the called function and of the argument, for error messages.
    x : array_like
    low, high : int
    kinds : str, default "integers"
        What the argument may hold, for error messages.

    Raises
    ------
    TypeError
        If `x` does not hold integers.
    ValueError
        If one of them is out of range.
    """
    array = plain_index(where, name, x)
    if not array.size:  # an empty list is float64
        return np.empty(array.shape, np.int64)
    if array.dtype.kind not in "iu":
        raise TypeError(f"[{where}] {name} must hold {kinds}, got {got_dtype(array)}")
    for extreme in (array.min(), array.max()):
        if not low <= extreme < high:
            raise ValueError(f"[{where}] {name} must be in [{low}, {high}), got {extreme}")
    return array.astype(np.int64)
