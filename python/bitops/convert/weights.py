"""Recognises weights of few values: +-1 times a scale a filter, or sums of +-1 planes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..layers.planes import Planes
from ..ops.array import pack

# How far a weight may lie from its level, relative to the largest of its filter: what folding
# BatchNorm into weights in float32 leaves.
_TOLERANCE = 1e-6
_MOST_PLANES = 4


@dataclass(frozen=True, eq=False)
class FewLevels:
    """Weights scale * integer: integers of the shape of the weights, one scale a filter.

    `coefficients` are those of the +-1 planes whose sum the integers are, (1,) for +-1.
    """

    integers: np.ndarray
    scale: np.ndarray
    coefficients: tuple[int, ...]

    @property
    def is_binary(self) -> bool:
        return self.coefficients == (1,)


class GivenPlanes:
    """Quantizer of weights that gives planes made beforehand, whatever the latent weights are."""

    def __init__(self, weights: FewLevels):
        self._planes = Planes(_split(weights), weights.coefficients)

    def planes(self, w: np.ndarray) -> Planes:
        return self._planes

    def forward(self, w: np.ndarray) -> np.ndarray:
        return self._planes.values()

    def backward(self, w: np.ndarray, grad: np.ndarray) -> np.ndarray:
        return grad

    def __repr__(self) -> str:
        return f"GivenPlanes({len(self._planes.bits)})"


def find_levels(w: np.ndarray) -> FewLevels | None:
    """Return weights (filters, ...) as few levels, or None if they have more.

    A filter of zeros gets the scale 0; a negative scale is never given.
    """
    if w.dtype == np.int8 and (np.abs(w) == 1).all():  # quick, since files have millions of them
        return FewLevels(w, np.ones(len(w)), (1,))
    rows = np.asarray(w, np.float64).reshape(len(w), -1)
    largest = np.abs(rows).max(axis=1)
    scale = np.where(largest > 0, largest, 1.0)
    unit = rows / scale[:, np.newaxis]
    if _near(np.abs(unit), 1.0) or _near_where(np.abs(unit), largest > 0):
        integers = np.where(unit >= 0, 1, -1)
        return FewLevels(integers.reshape(w.shape), np.where(largest > 0, scale, 0.0), (1,))
    for planes in range(2, _MOST_PLANES + 1):
        even = 1, 1, *(2**i for i in range(1, planes - 1))
        odd = tuple(2**i for i in range(planes))
        for coefficients in (even, odd):
            found = _on_grid(unit, scale, coefficients, w.shape)
            if found is not None:
                return found
    return None


def _near(values: np.ndarray, target: float) -> bool:
    return bool((np.abs(values - target) <= _TOLERANCE).all())


def _near_where(magnitudes: np.ndarray, is_used: np.ndarray) -> bool:
    """Return whether the magnitudes of all filters but those of zeros are 1."""
    return bool(is_used.any()) and _near(magnitudes[is_used], 1.0)


def _on_grid(
    unit: np.ndarray, scale: np.ndarray, coefficients: tuple[int, ...], shape: tuple[int, ...]
) -> FewLevels | None:
    """Return weights as integers that the planes can sum up to, if they are such multiples.

    The sums are even for coefficients 1, 1, 2, ... and odd for 1, 2, 4, ... The largest weight of a
    filter, 1 in `unit`, may be any of them, so each is tried.
    """
    is_even = coefficients[:2] == (1, 1)
    most = sum(coefficients)
    tops = range(2, most + 1, 2) if is_even else range(1, most + 1, 2)
    integers = np.zeros_like(unit)
    scales = np.zeros(len(unit))
    left = np.ones(len(unit), bool)
    for top in tops:
        candidate = unit * top
        half = np.rint(candidate / 2) * 2 if is_even else np.rint((candidate - 1) / 2) * 2 + 1
        fits = left & (np.abs(candidate - half) <= _TOLERANCE * top).all(axis=1)
        integers[fits], scales[fits] = half[fits], scale[fits] / top
        left &= ~fits
    if left.any():
        return None
    return FewLevels(integers.astype(int).reshape(shape), scales, coefficients)


def _split(weights: FewLevels) -> list:
    """Return the +-1 planes of integers, greedily from the largest coefficient."""
    left = weights.integers.copy()
    planes = {}
    order = sorted(range(len(weights.coefficients)), key=lambda i: -weights.coefficients[i])
    rest = sum(weights.coefficients)
    for i in order:
        c = weights.coefficients[i]
        rest -= c
        sign = np.where(left >= 0, 1, -1)  # what is left afterwards is at most `rest`
        planes[i] = pack(sign.astype(np.int8))
        left = left - c * sign
    return [planes[i] for i in range(len(weights.coefficients))]
