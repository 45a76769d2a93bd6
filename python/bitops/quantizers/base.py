"""What several quantizers share: their input, its signs, and the checks of their settings."""

from __future__ import annotations

import math
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..ops.checks import check_integer, check_number, real_array

Array = NDArray[np.float32]
ONE = np.float32(1)
LARGEST = float(np.finfo(np.float32).max)


@runtime_checkable
class Quantizer(Protocol):
    """What layers ask of a quantizer; any object with these two methods is one.

    One that draws at random shows its `generator`, so that a checkpoint can keep its state.
    """

    def forward(self, x: ArrayLike) -> Array:
        """The quantized values of an array."""

    def backward(self, x: ArrayLike, grad: ArrayLike) -> Array:
        """The gradient that x is given, from that of the quantized values."""


def check_quantizer(where: str, quantizer: Any) -> None:
    """Refuse what is no quantizer; a class is none."""
    if isinstance(quantizer, type) or not isinstance(quantizer, Quantizer):
        raise TypeError(
            f"[{where}] quantizer must have forward(x) and backward(x, grad), as those of "
            f"bitops.quantizers have, got {quantizer!r}"
        )


def real_numbers(where: str, x: ArrayLike) -> Array:
    """`x` as float32 without NaN."""
    array = real_array(where, "x", x).astype(np.float32, copy=False)
    if np.isnan(array).any():
        raise ValueError(f"[{where}] x must not hold NaN, which has no sign")
    return array


def signs_of(x: Array) -> Array:
    return np.where(x >= 0, ONE, -ONE)


def pass_within(x: ArrayLike, grad: ArrayLike, limit: float) -> Array:
    """The gradient where abs(x) <= limit, else 0."""
    inside = np.abs(np.asarray(x, dtype=np.float32)) <= np.float32(limit)
    return np.asarray(grad, dtype=np.float32) * inside


def check_clip(
    where: str, value: float, limit: float = math.inf, *, name: str = "clip_value"
) -> None:
    """Check that a number is positive, and at most `limit`, as float32 too."""
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
    check_integer(where, "bits", bits, 1, 16)


def filter_axes(where: str, x: Array) -> tuple[int, ...]:
    """The axes of one filter."""
    if x.ndim < 2 or not x.size:
        raise ValueError(f"[{where}] x must hold filters along the first axis, got shape {x.shape}")
    return tuple(range(1, x.ndim))
