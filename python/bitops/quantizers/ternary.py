"""Quantizers of weights to three values: -1, 0 and +1, or these times a scale."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from ..ops.checks import check_number
from .base import Array, check_clip, filter_axes, pass_within, real_numbers


def _ternary(x: Array, threshold) -> Array:
    """-1, 0 or +1; the threshold itself gives 0."""
    return np.sign(x) * (np.abs(x) > threshold)


@dataclass(frozen=True)
class Ternary:
    """-1, 0 and +1, with a fixed threshold.

    Parameters
    ----------
    threshold : float
    clip_value : float

    Notes
    -----
    Forward: q = sign(x) if abs(x) > threshold else 0.
    Pseudo-gradient: dx = dq * (abs(x) <= clip_value).
    """

    threshold: float = 0.05
    clip_value: float = 1.0

    def __post_init__(self):
        if not self.threshold >= 0:
            raise ValueError(f"[Ternary] threshold must be >= 0, got {self.threshold}")
        check_clip("Ternary", self.clip_value)

    def split(self, x: ArrayLike) -> tuple[Array, Array]:
        """Values t and the scale, which is 1."""
        return self.forward(x), np.ones((), np.float32)

    def forward(self, x: ArrayLike) -> Array:
        return _ternary(real_numbers("Ternary", x), np.float32(self.threshold))

    def backward(self, x: ArrayLike, grad: ArrayLike) -> Array:
        return pass_within(x, grad, self.clip_value)


@dataclass(frozen=True)
class TwnTernary:
    """Ternary weights with a threshold and a scale for each filter.

    Notes
    -----
    Forward: q = alpha * t, t = sign(x) if abs(x) > 0.7 * mean(abs(x)) else 0, alpha the mean of
    abs(x) where t is not 0 (0 if it is nowhere so); means over a filter.
    Pseudo-gradient: dx = dq * (abs(x) <= clip_value).

    References
    ----------
    Li and Liu, "Ternary Weight Networks", 2016. The factor 0.7 of the threshold lies between 2/3,
    which has the smallest squared error for uniform weights, and 3/4, for normal ones.
    """

    clip_value: float = 1.0

    def __post_init__(self):
        check_clip("TwnTernary", self.clip_value)

    def split(self, x: ArrayLike) -> tuple[Array, Array]:
        """Values t, and scales alpha with axes of length 1 behind: x is about alpha * t."""
        x = real_numbers("TwnTernary", x)
        axes = filter_axes("TwnTernary", x)
        size = np.abs(x)
        t = _ternary(x, np.float32(0.7) * size.mean(axis=axes, keepdims=True))
        kept = np.abs(t)
        total = (size * kept).sum(axis=axes, keepdims=True)
        return t, total / np.maximum(kept.sum(axis=axes, keepdims=True), 1)

    def forward(self, x: ArrayLike) -> Array:
        t, alpha = self.split(x)
        return alpha * t

    def backward(self, x: ArrayLike, grad: ArrayLike) -> Array:
        return pass_within(x, grad, self.clip_value)


@dataclass(frozen=True)
class LeastSquaresTernary:
    """Ternary weights with the step that makes the squared error of a layer smallest.

    Parameters
    ----------
    delta : float, optional
        A step found before, to be kept; finding it sorts all weights.

    Notes
    -----
    Forward: q = delta * sign(x) * min(floor(abs(x) / delta + 1/2), 1), delta for the whole array
    that minimises the sum of (x - q)^2. For a given delta these q are the best; for given places
    that are not 0 the best delta is their mean magnitude. So the k largest magnitudes, of sum S,
    are kept, with the k that makes S^2 / k largest, and delta = S / k.
    Pseudo-gradient: dx = dq.

    References
    ----------
    Hwang and Sung, "Fixed-point feedforward deep neural network design using weights +1, 0, and
    -1", 2014 (M = 3 levels).
    """

    delta: float | None = None

    def __post_init__(self):
        if self.delta is None:
            return
        check_number("LeastSquaresTernary", "delta", self.delta)
        if not 0 <= self.delta < math.inf:
            raise ValueError(
                f"[LeastSquaresTernary] delta must be >= 0 and finite, got {self.delta}"
            )

    def step(self, x: ArrayLike) -> float:
        """The step delta that suits x best; 0 for zeros only."""
        sizes = np.sort(np.abs(real_numbers("LeastSquaresTernary", x)), axis=None)[::-1]
        if not sizes.size:
            raise ValueError("[LeastSquaresTernary] x must not be empty, got no element")
        sums = np.cumsum(sizes, dtype=np.float64)
        counts = np.arange(1, sizes.size + 1)
        best = int(np.argmax(np.square(sums) / counts))
        return float(sums[best] / counts[best])

    def split(self, x: ArrayLike) -> tuple[Array, Array]:
        """Values t, and the step delta: x is about delta * t."""
        delta = np.float32(self.step(x) if self.delta is None else self.delta)
        x = real_numbers("LeastSquaresTernary", x)
        return np.sign(x) * (np.abs(x) >= delta / 2), np.asarray(delta)

    def forward(self, x: ArrayLike) -> Array:
        t, delta = self.split(x)
        return delta * t

    def backward(self, x: ArrayLike, grad: ArrayLike) -> Array:
        return pass_within(x, grad, math.inf)


@dataclass(frozen=True)
class ShareTernary:
    """-1, 0 and +1, with the threshold that makes a given share of the values 0.

    Parameters
    ----------
    zeros : float
        Share of zeros, in [0, 1); of n values floor(zeros * n) become 0, and those equal to the
        largest of them.

    Notes
    -----
    Forward: q = sign(x) if abs(x) > threshold else 0; for zeros = 0 only 0 itself becomes 0.
    Pseudo-gradient: dx = dq.

    References
    ----------
    Kim and Smaragdis, "Bitwise Neural Networks", 2016 (second stage of training).
    """

    zeros: float

    def __post_init__(self):
        check_number("ShareTernary", "zeros", self.zeros)
        if not 0 <= self.zeros < 1:
            raise ValueError(f"[ShareTernary] zeros must be in [0, 1), got {self.zeros}")

    def split(self, x: ArrayLike) -> tuple[Array, Array]:
        """Values t and the scale, which is 1."""
        return self.forward(x), np.ones((), np.float32)

    def forward(self, x: ArrayLike) -> Array:
        x = real_numbers("ShareTernary", x)
        count = int(self.zeros * x.size)
        sizes = np.abs(x)
        return _ternary(x, np.partition(sizes, count - 1, axis=None)[count - 1] if count else 0)

    def backward(self, x: ArrayLike, grad: ArrayLike) -> Array:
        return pass_within(x, grad, math.inf)
