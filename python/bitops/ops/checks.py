"""Checks of arguments that several functions share; errors name the function that was called."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray


def is_integer(item: Any) -> bool:
    """Whether `item` is an integer of Python or NumPy; a bool is not."""
    return isinstance(item, (int, np.integer)) and not isinstance(item, bool)


def check_integer(
    where: str, name: str, value: Any, low: int | None = None, high: int | None = None
) -> int:
    """Return an integer setting as a plain int.

    Raises
    ------
    TypeError
        If it is no integer; a bool is none.
    ValueError
        If it is below `low` or above `high`.
    """
    if not is_integer(value):
        raise TypeError(f"[{where}] {name} must be an integer, got {value!r}")
    if high is not None and not (low or 0) <= value <= high:
        raise ValueError(f"[{where}] {name} must be in {low or 0}..{high}, got {value}")
    if low is not None and value < low:
        raise ValueError(f"[{where}] {name} must be at least {low}, got {value}")
    return int(value)


def normalize_axis(where: str, axis: Any, ndim: int) -> int:
    """The axis as a number in [0, ndim), or an error in the name of `where`."""
    if not is_integer(axis):
        raise TypeError(f"[{where}] axis must be an integer, got {axis!r}")
    if not -ndim <= axis < ndim:
        raise ValueError(f"[{where}] axis must be in [{-ndim}, {ndim}), got {axis}")
    return int(axis) % ndim


def real_array(where: str, name: str, x: ArrayLike) -> NDArray[Any]:
    """`x` as a native, aligned array of bool, integers or floats, or an error."""
    array = np.asarray(x)
    if array.dtype.kind not in "biuf":
        raise TypeError(f"[{where}] {name} must hold real numbers, got dtype {array.dtype}")
    if not array.dtype.isnative:
        array = array.astype(array.dtype.newbyteorder("="))
    return array if array.flags.aligned else array.copy()


def check_number(where: str, name: str, value: Any) -> None:
    """Refuse a setting that is not one real number: a bool, an array, text."""
    if isinstance(value, bool) or not isinstance(value, (int, float, np.integer, np.floating)):
        raise TypeError(f"[{where}] {name} must be a real number, got {value!r}")


_KIND_NAMES = {"iu": "integers", "b": "bool"}


def column_vector(where: str, name: str, value: ArrayLike, kinds: str, n: int) -> NDArray[Any]:
    """A value per column of a dtype of the given kinds; a scalar stands for all columns."""
    array = np.asarray(value)
    if array.dtype.kind not in kinds:
        raise TypeError(f"[{where}] {name} must hold {_KIND_NAMES[kinds]}, got dtype {array.dtype}")
    if array.shape not in ((), (n,)):
        raise ValueError(
            f"[{where}] {name} must be a scalar or have shape ({n},), got {array.shape}"
        )
    return array if array.shape == (n,) else np.broadcast_to(array, (n,))
