"""The protocol of quantizers, and helpers for their inputs and settings."""

from __future__ import annotations

import math
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..ops.checks import as_float32, check_integer, check_number, real_array

Array = NDArray[np.float32]
ONE = np.float32(1)
LARGEST = float(np.finfo(np.float32).max)


@runtime_checkable
class Quantizer(Protocol):
    """The methods that layers need from a quantizer; any object with these two is one.

    A quantizer that draws random numbers should have an attribute `generator`, so that a checkpoint
    can save its state.

    Examples
    --------
    >>> from bitops.quantizers import SteSign
    >>> isinstance(SteSign(), Quantizer)
    True
    """

    def forward(self, x: ArrayLike) -> Array:
        """Return the quantized values of x."""

    def backward(self, x: ArrayLike, grad: ArrayLike) -> Array:
        """Return the pseudo-gradient for x, given the gradient for the quantized values."""


def check_quantizer(where: str, quantizer: Any) -> None:
    """Check that an object is a quantizer, and not the class of one."""
    if isinstance(quantizer, type) or not isinstance(quantizer, Quantizer):
        raise TypeError(
            f"[{where}] quantizer must have forward(x) and backward(x, grad), as those of "
            f"bitops.quantizers do, got {quantizer!r}"
        )


def real_numbers(where: str, x: ArrayLike) -> Array:
    """Check that `x` holds real numbers and no NaN, and return it as float32."""
    array = as_float32(real_array(where, "x", x))
    if np.isnan(array).any():
        raise ValueError(f"[{where}] x must not hold NaN, which has no sign, got NaN")
    return array


def signs_of(x: Array) -> Array:
    """Return +1 where x >= 0, else -1."""
    return np.where(x >= 0, ONE, -ONE)


def pass_within(x: ArrayLike, grad: ArrayLike, limit: float) -> Array:
    """Return the gradient where abs(x) <= limit, else 0."""
    inside = np.abs(as_float32(x)) <= np.float32(limit)
    return as_float32(grad) * inside


def check_clip(
    where: str, value: float, limit: float = math.inf, *, name: str = "clip_value"
) -> None:
    """Check that a number is positive, and at most `limit`, after rounding to float32."""
    check_number(where, name, value)
    try:
        with np.errstate(over="ignore", under="ignore"):
            rounded = np.float32(value)
    except OverflowError:  # an integer beyond float64
        rounded = np.float32(np.nan)
    if not 0 < rounded <= limit:
        finite = "" if limit == math.inf else " and finite"
        raise ValueError(f"[{where}] {name} must be positive{finite} as float32, got {value!r:.80}")


def check_bits(where: str, bits: int) -> None:
    """Check that a number of bits is an integer in 1..16."""
    check_integer(where, "bits", bits, 1, 16)


def filter_axes(where: str, x: Array) -> tuple[int, ...]:
    """Return the axes that belong to one filter: all but the first."""
    if x.ndim < 2 or not x.size:
        raise ValueError(f"[{where}] x must hold filters along the first axis, got shape {x.shape}")
    return tuple(range(1, x.ndim))
