"""Functions of single numbers: finds those that give a few values, by what they give.

Binarized networks write the same step in many ways, most of which keep a pseudo-gradient for
training:

    sign(x).detach() - clip(x).detach() + clip(x)       x + (sign(x) - x).detach()
    out = sign(x); out[out == 0] = 1                    round(clip(x, 0, 1) * 3) / 3

Their parts are no steps, but the whole is, up to rounding.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

Function = Callable[[np.ndarray], np.ndarray]

_MOST_LEVELS = 16
_ROUNDS = 4
# Of what is left where terms cancel, relative to x: a few roundings of float32.
_TOLERANCE = 5e-7
_LEAST = np.nextafter(np.float32(0), np.float32(1))
_LOWEST = np.float32(-3e38)  # below all that networks compute


@dataclass(frozen=True, eq=False)
class Steps:
    """y = values[number of thresholds t with x >= t].

    threshold : ndarray of shape (levels,), float32, rising
    values : ndarray of shape (levels + 1,), float64
    is_exact : whether the function gives these values, not others close to them
    """

    threshold: np.ndarray
    values: np.ndarray
    is_exact: bool


def find_steps(function: Function) -> Steps | None:
    """Return what a function of float32 numbers gives, if these are a few values; else None."""
    x = _grid()
    for _ in range(_ROUNDS):
        y = function(x)
        if y.shape != x.shape or not np.isfinite(y).all():
            return None
        close = _TOLERANCE * np.maximum(1, np.abs(x))
        changes = np.flatnonzero(np.abs(np.diff(y)) > close[1:] + close[:-1])
        if len(changes) > _MOST_LEVELS:
            return None
        wide = [i for i in changes if _place(x[i + 1]) - _place(x[i]) > 1]
        if not wide:
            return _steps(x, y, close, changes)
        found = [_between(function, x[i], x[i + 1], y[i], y[i + 1], close[i]) for i in wide]
        x = np.unique(np.concatenate([x, *found]))
    return None  # a slope


def _steps(x: np.ndarray, y: np.ndarray, close: np.ndarray, changes: np.ndarray) -> Steps | None:
    """Return the steps of a function that changes between neighbours of all float32 numbers."""
    runs = np.split(np.arange(len(x)), changes + 1)
    values = y[[run[np.abs(x[run]).argmin()] for run in runs]]  # where rounding is least
    if (np.abs(y - np.repeat(values, [len(run) for run in runs])) > close).any():
        return None
    whole = np.rint(values)
    plain = np.where(np.abs(values - whole) <= _TOLERANCE, whole, values)
    is_exact = bool((y == np.repeat(plain, [len(run) for run in runs])).all())
    if len(runs) == 1:  # a constant: the upper value of a step that is always passed
        return Steps(np.array([_LOWEST]), plain * [-1, 1], is_exact) if plain[0] else None
    return Steps(x[changes + 1], plain, is_exact)


def _grid() -> np.ndarray:
    """Return numbers to try, of all magnitudes, whose squares are finite."""
    magnitudes = np.concatenate([np.logspace(-30, 9, 391), np.linspace(0, 8, 4001)])
    x = np.concatenate([-magnitudes, magnitudes]).astype(np.float32)
    return np.unique(np.concatenate([x, [-_LEAST, _LEAST]]))


def _between(
    function: Function,
    low: np.float32,
    high: np.float32,
    low_value: float,
    high_value: float,
    close: float,
) -> np.ndarray:
    """Return the neighbours between which a function changes, or a number with a third value."""
    first, last = _place(low), _place(high)
    while last - first > 1:
        middle = (first + last) // 2
        value = function(np.array([_number(middle)]))[0]
        if abs(value - low_value) <= 2 * close:
            first = middle
        elif abs(value - high_value) <= 2 * close:
            last = middle
        else:
            first = last = middle
    return np.array([_number(first), _number(last)])


def _place(x: np.float32) -> int:
    """Number the float32 numbers in their order, 0 at 0."""
    bits = int(np.abs(x).view(np.int32))
    return -bits if x < 0 else bits


def _number(place: int) -> np.float32:
    magnitude = np.int32(abs(place)).view(np.float32)
    return np.float32(-magnitude if place < 0 else magnitude)
