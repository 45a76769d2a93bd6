"""Quantizers of weights to the three values -1, 0 and +1, possibly times a scale."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from ..ops.checks import check_number
from .base import Array, check_clip, filter_axes, pass_within, real_numbers


def _ternary(x: Array, threshold) -> Array:
    """Return the sign of x where abs(x) > threshold, else 0."""
    return np.sign(x) * (np.abs(x) > threshold)


@dataclass(frozen=True)
class Ternary:
    """Ternary weights with a fixed threshold.

    Parameters
    ----------
    threshold : float
        Weights of at most this magnitude become 0.
    clip_value : float
        Gradients pass where abs(x) is at most this. Infinity lets every gradient pass.

    Raises
    ------
    TypeError
        If a parameter is not a number.
    ValueError
        If `threshold` is negative, or `clip_value` is not positive.

    Notes
    -----
    Forward: q = sign(x) if abs(x) > threshold else 0.
    Pseudo-gradient: dx = dq * (abs(x) <= clip_value).

    Examples
    --------
    >>> Ternary().forward(np.float32([[-0.9, 0.01, 1.1]]))
    array([[-1.,  0.,  1.]], dtype=float32)
    """

    threshold: float = 0.05
    clip_value: float = 1.0

    def __post_init__(self):
        if not self.threshold >= 0:
            raise ValueError(f"[Ternary] threshold must be >= 0, got {self.threshold}")
        check_clip("Ternary", self.clip_value)

    def split(self, x: ArrayLike) -> tuple[Array, Array]:
        """Return the values t and the scale, which is 1."""
        return self.forward(x), np.ones((), np.float32)

    def forward(self, x: ArrayLike) -> Array:
        return _ternary(real_numbers("Ternary", x), np.float32(self.threshold))

    def backward(self, x: ArrayLike, grad: ArrayLike) -> Array:
        return pass_within(x, grad, self.clip_value)


@dataclass(frozen=True)
class TwnTernary:
    """Ternary weights with a threshold and a scale for each filter.

    Parameters
    ----------
    clip_value : float
        Gradients pass where abs(x) is at most this. Infinity lets every gradient pass.

    Raises
    ------
    TypeError
        If `clip_value` is not a number.
    ValueError
        If `clip_value` is not positive.

    Notes
    -----
    Forward: q = alpha * t, where t = sign(x) if abs(x) > 0.7 * mean(abs(x)) else 0, and alpha is
    the mean of abs(x) where t is not 0. The means are over a filter. If all t of a filter are 0, so
    is alpha.
    Pseudo-gradient: dx = dq * (abs(x) <= clip_value).

    The factor 0.7 of the threshold lies between 2/3 and 3/4. The first minimises the squared error
    for uniformly distributed weights, the second for normally distributed ones.

    References
    ----------
    F. Li and B. Liu, "Ternary Weight Networks", 2016.

    Examples
    --------
    >>> TwnTernary().forward(np.float32([[-0.9, 0.1, 1.1]]))
    array([[-1.,  0.,  1.]], dtype=float32)
    """

    clip_value: float = 1.0

    def __post_init__(self):
        check_clip("TwnTernary", self.clip_value)

    def split(self, x: ArrayLike) -> tuple[Array, Array]:
        """Return the values t and the scales alpha, of shape (n, 1, ..., 1): q = alpha * t."""
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
    """Ternary weights with the step that minimises the squared error of a layer.

    Parameters
    ----------
    delta : float, optional
        A fixed step, for example one found before. By default each call finds the best step; this
        sorts all weights.

    Raises
    ------
    TypeError
        If `delta` is not a number.
    ValueError
        If `delta` is negative or not finite.

    Notes
    -----
    Forward: q = delta * sign(x) * min(floor(abs(x) / delta + 1/2), 1).
    Pseudo-gradient: dx = dq.

    One delta for the whole array minimises the sum of (x - q)^2. For a given delta, these q are the
    best. For given positions where q is not 0, the best delta is the mean of abs(x) there. These
    positions are those of the k largest magnitudes, for some k. If their sum is S, then
    delta = S / k, and the best k is the one with the largest S^2 / k.

    References
    ----------
    K. Hwang and W. Sung, "Fixed-point feedforward deep neural network design using weights +1, 0,
    and -1", 2014 (M = 3 levels).

    Examples
    --------
    >>> LeastSquaresTernary().forward(np.float32([[-0.9, 0.1, 1.1]]))
    array([[-1.,  0.,  1.]], dtype=float32)
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
        """Return the step delta with the smallest squared error; 0 if all of x is 0."""
        sizes = np.sort(np.abs(real_numbers("LeastSquaresTernary", x)), axis=None)[::-1]
        if not sizes.size:
            raise ValueError("[LeastSquaresTernary] x must not be empty, got no element")
        sums = np.cumsum(sizes, dtype=np.float64)
        counts = np.arange(1, sizes.size + 1)
        best = int(np.argmax(np.square(sums) / counts))
        return float(sums[best] / counts[best])

    def split(self, x: ArrayLike) -> tuple[Array, Array]:
        """Return the values t and the step delta: q = delta * t."""
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
    """Ternary weights with the threshold that makes a given fraction of them 0.

    Parameters
    ----------
    zeros : float
        The fraction of zeros, in [0, 1). Of n weights, the floor(zeros * n) of the smallest
        magnitude become 0. So do all others of the same magnitude as the largest of these.

    Raises
    ------
    TypeError
        If `zeros` is not a number.
    ValueError
        If `zeros` is not in [0, 1).

    Notes
    -----
    Forward: q = sign(x) if abs(x) > threshold else 0. With zeros = 0, the threshold is 0.
    Pseudo-gradient: dx = dq.

    References
    ----------
    M. Kim and P. Smaragdis, "Bitwise Neural Networks", 2016 (second stage of training).

    Examples
    --------
    >>> ShareTernary(0.5).forward(np.float32([[-0.9, 0.1, 1.1, -0.2]]))
    array([[-1.,  0.,  1., -0.]], dtype=float32)
    """

    zeros: float

    def __post_init__(self):
        check_number("ShareTernary", "zeros", self.zeros)
        if not 0 <= self.zeros < 1:
            raise ValueError(f"[ShareTernary] zeros must be in [0, 1), got {self.zeros}")

    def split(self, x: ArrayLike) -> tuple[Array, Array]:
        """Return the values t and the scale, which is 1."""
        return self.forward(x), np.ones((), np.float32)

    def forward(self, x: ArrayLike) -> Array:
        x = real_numbers("ShareTernary", x)
        count = int(self.zeros * x.size)
        sizes = np.abs(x)
        return _ternary(x, np.partition(sizes, count - 1, axis=None)[count - 1] if count else 0)

    def backward(self, x: ArrayLike, grad: ArrayLike) -> Array:
        return pass_within(x, grad, math.inf)
