"""Checks of arguments. `where` is the name of the called function, for error messages."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray


def is_integer(item: Any) -> bool:
    """Tell whether `item` is an integer of Python or NumPy; a bool is not."""
    return isinstance(item, (int, np.integer)) and not isinstance(item, bool)


def is_plain(settings: Any) -> bool:
    """Tell what `_core.is_plain` tells, where there may be no native module."""
    kind = type(settings)
    if kind is tuple:
        return all(map(is_plain, settings))
    return kind is int or kind is str or settings is None


def check_integer(
    where: str, name: str, value: Any, low: int | None = None, high: int | None = None
) -> int:
    """Check an integer setting and return it as a plain int.

    Parameters
    ----------
    where, name : str
        Names of the called function and of the setting, for error messages.
    value : object
    low, high : int, optional
        The least and the greatest value allowed.

    Raises
    ------
    TypeError
        If `value` is not an integer. A bool is not an integer.
    ValueError
        If `value` is out of range.
    """
    if not is_integer(value):
        raise TypeError(f"[{where}] {name} must be an integer, got {value!r}")
    if (low is None or low <= value) and (high is None or value <= high):
        return int(value)
    if high is None:
        rule = f"at least {low}"
    elif low is None:
        rule = f"at most {high}"
    else:
        rule = f"in {low}..{high}"
    raise ValueError(f"[{where}] {name} must be {rule}, got {value}")


def check_rate(where: str, name: str, value: Any, *, zero: bool = False) -> float:
    """Check a number that is positive and finite, or 0 with `zero`, and return it as a float.

    Raises
    ------
    TypeError
        If `value` is not a real number.
    ValueError
        If it is out of range.
    """
    check_number(where, name, value)
    rule, least = (">= 0 and finite", 0.0) if zero else ("positive and finite", math.ulp(0.0))
    if not least <= value < math.inf:  # NaN is no better
        raise ValueError(f"[{where}] {name} must be {rule}, got {value!r:.80}")
    try:
        return float(value)
    except OverflowError:  # an integer beyond float64
        raise ValueError(f"[{where}] {name} must be {rule}, got {value!r:.80}") from None


def as_generator(where: str, seed: Any) -> np.random.Generator:
    """Return the generator of random numbers that a seed stands for; a Generator is returned."""
    return _from_seed(where, seed, np.random.default_rng)


def as_seed_sequence(where: str, seed: Any) -> np.random.SeedSequence:
    """Return a seed as a SeedSequence, from which seeds of several parts are spawned."""
    if isinstance(seed, np.random.SeedSequence):
        return seed
    return _from_seed(where, seed, np.random.SeedSequence)


_Made = TypeVar("_Made")


def _from_seed(where: str, seed: Any, make: Callable[[Any], _Made]) -> _Made:
    try:
        return make(seed)
    except (TypeError, ValueError) as error:
        raise type(error)(
            f"[{where}] seed must be None, integers >= 0, a SeedSequence or a Generator, "
            f"got {seed!r:.80}"
        ) from None


def normalize_axis(where: str, axis: Any, ndim: int) -> int:
    """Check an axis and return it as an int in [0, ndim)."""
    if not is_integer(axis):
        raise TypeError(f"[{where}] axis must be an integer, got {axis!r}")
    if not -ndim <= axis < ndim:
        raise ValueError(f"[{where}] axis must be in [{-ndim}, {ndim}), got {axis}")
    return int(axis) % ndim


def plain_array(where: str, name: str, x: ArrayLike) -> NDArray[Any]:
    """Return `x` as an array of any dtype; refuse masks, and lists of several lengths."""
    if isinstance(x, np.ma.MaskedArray):
        raise TypeError(f"[{where}] {name} must not be masked, got a MaskedArray")
    try:
        return np.asarray(x)
    except ValueError as error:  # lists of several lengths
        raise ValueError(
            f"[{where}] {name} must be an array, got {type(x).__name__}: {error}"
        ) from None


def check_dtype(where: str, dtype: DTypeLike) -> np.dtype[Any]:
    """Check that NumPy knows a dtype, and return it."""
    try:
        return np.dtype(dtype)
    except (TypeError, ValueError):
        raise TypeError(f"[{where}] dtype must be a dtype, got {dtype!r:.80}") from None


def got_dtype(array: NDArray[Any]) -> str:
    """Say what an array of an unwanted dtype holds: perhaps an integer that no dtype has."""
    if array.dtype == object:
        for item in array.flat:
            if is_integer(item) and not -(2**63) <= item < 2**64:
                return f"an integer of {int(item).bit_length()} bits, which no dtype holds"
    return f"dtype {array.dtype}"


BFLOAT16 = "bfloat16"  # a dtype of ml_dtypes, which need not be installed


def real_array(where: str, name: str, x: ArrayLike, *, keep_bfloat16: bool = False) -> NDArray[Any]:
    """Return `x` as an aligned array of bool, integers or floats in native byte order.

    A bfloat16 array of ml_dtypes becomes float32, unless it is kept.
    """
    array = plain_array(where, name, x)
    if array.dtype.kind not in "biuf":  # of these bfloat16 is none; names take microseconds
        if array.dtype.name != BFLOAT16:
            got = got_dtype(array)
            if got == "dtype object":
                got = type(x).__name__
            raise TypeError(f"[{where}] {name} must hold real numbers, got {got}")
        if not keep_bfloat16:
            array = array.astype(np.float32)
    if not array.dtype.isnative:
        array = array.astype(array.dtype.newbyteorder("="))
    return array if array.flags.aligned else array.copy()


def as_float32(x: ArrayLike) -> NDArray[np.float32]:
    """Return numbers as an array of float32, without a copy if they are one.

    Numbers beyond float32 become infinite and those next to zero subnormal or zero, whatever the
    caller's `np.errstate`: they are ordinary values, as in the kernels.
    """
    array = np.asarray(x)
    if array.dtype == np.float32:
        return array
    if array.dtype.kind == "f" and array.dtype.itemsize > 4:
        with np.errstate(all="ignore"):
            return array.astype(np.float32)
    return array.astype(np.float32, copy=False)


def check_number(where: str, name: str, value: Any) -> None:
    """Check that a setting is a real number, not a bool, an array or text."""
    if isinstance(value, bool) or not isinstance(value, (int, float, np.integer, np.floating)):
        raise TypeError(f"[{where}] {name} must be a real number, got {value!r}")


_KIND_NAMES = {"iu": "integers", "b": "bool"}


def column_vector(where: str, name: str, value: ArrayLike, kinds: str, n: int) -> NDArray[Any]:
    """Check one value per column, of one of the dtype kinds; a scalar is used for all columns."""
    array = plain_array(where, name, value)
    if array.dtype.kind not in kinds:
        raise TypeError(f"[{where}] {name} must hold {_KIND_NAMES[kinds]}, got {got_dtype(array)}")
    if array.shape not in ((), (n,)):
        raise ValueError(
            f"[{where}] {name} must be a scalar or have shape ({n},), got {array.shape}"
        )
    return array if array.shape == (n,) else np.broadcast_to(array, (n,))
