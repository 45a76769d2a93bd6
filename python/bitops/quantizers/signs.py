"""Quantizers to two values: deterministic, annealed and stochastic signs, and a step function."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..ops.checks import as_float32, as_generator, check_number
from .base import (
    LARGEST,
    ONE,
    Array,
    Quantizer,
    check_clip,
    check_quantizer,
    pass_within,
    real_numbers,
    signs_of,
)


@dataclass(frozen=True)
class SteSign:
    """The sign, with the straight-through estimator as its gradient.

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
    Forward: q = +1 if x >= 0 else -1.
    Pseudo-gradient: dx = dq * (abs(x) <= clip_value).

    References
    ----------
    M. Courbariaux, I. Hubara et al., "Binarized Neural Networks", 2016, equations 1 and 4.

    Examples
    --------
    >>> q, x = SteSign(), np.float32([-0.5, 0, 2])
    >>> q.forward(x), q.backward(x, np.ones_like(x))
    (array([-1.,  1.,  1.], dtype=float32), array([1., 1., 0.], dtype=float32))
    """

    clip_value: float = 1.0

    def __post_init__(self):
        check_clip("SteSign", self.clip_value)

    def forward(self, x: ArrayLike) -> Array:
        return signs_of(real_numbers("SteSign", x))

    def backward(self, x: ArrayLike, grad: ArrayLike) -> Array:
        return pass_within(x, grad, self.clip_value)


@dataclass(frozen=True)
class ApproxSign:
    """The sign, with the derivative of a piecewise parabola as its gradient.

    Parameters
    ----------
    clip_value : float
        Half the width c of the parabola, positive and finite.

    Raises
    ------
    TypeError
        If `clip_value` is not a number.
    ValueError
        If `clip_value` is not positive and finite.

    Notes
    -----
    Forward: q = +1 if x >= 0 else -1.
    Pseudo-gradient: dx = dq * 2/c * max(0, 1 - abs(x) / c).

    This is the derivative of x/c * (2 - abs(x)/c) on [-c, c]. It falls linearly from 2/c at x = 0
    to 0 at x = -c and x = c.

    References
    ----------
    Z. Liu et al., "Bi-Real Net", 2018 (ApproxSign, with c = 1).

    Examples
    --------
    >>> q, x = ApproxSign(), np.float32([-0.5, 0, 2])
    >>> q.forward(x), q.backward(x, np.ones_like(x))
    (array([-1.,  1.,  1.], dtype=float32), array([1., 2., 0.], dtype=float32))
    """

    clip_value: float = 1.0

    def __post_init__(self):
        check_clip("ApproxSign", self.clip_value, LARGEST)

    def forward(self, x: ArrayLike) -> Array:
        return signs_of(real_numbers("ApproxSign", x))

    def backward(self, x: ArrayLike, grad: ArrayLike) -> Array:
        c = np.float32(self.clip_value)
        slope = np.maximum(0, 1 - np.abs(as_float32(x)) / c) * (2 / c)
        return as_float32(grad) * slope


@dataclass(frozen=True)
class SwishSign:
    """The sign, with the derivative of the SignSwish function as its gradient.

    Parameters
    ----------
    beta : float
        Height of the gradient at 0, positive and finite. With a larger `beta` the gradient is
        concentrated more narrowly around 0.

    Raises
    ------
    TypeError
        If `beta` is not a number.
    ValueError
        If `beta` is not positive and finite.

    Notes
    -----
    Forward: q = +1 if x >= 0 else -1.
    Pseudo-gradient: dx = dq * beta * (2 - beta x tanh(beta x / 2)) / (1 + cosh(beta x)).

    To avoid overflow, 1 / (1 + cosh(beta x)) is computed as 2 e / (1 + e)^2 with
    e = exp(-abs(beta x)).

    References
    ----------
    S. Darabi et al., "Regularized Binary Network Training" (BNN+), 2018.

    Examples
    --------
    >>> q, x = SwishSign(), np.float32([-2, 0, 2])
    >>> q.forward(x), q.backward(x, np.ones_like(x)).round(3)
    (array([-1.,  1.,  1.], dtype=float32), array([-4.e-03,  5.e+00, -4.e-03], dtype=float32))
    """

    beta: float = 5.0

    def __post_init__(self):
        check_number("SwishSign", "beta", self.beta)
        if not 0 < self.beta < math.inf:
            raise ValueError(f"[SwishSign] beta must be positive and finite, got {self.beta}")

    def forward(self, x: ArrayLike) -> Array:
        return signs_of(real_numbers("SwishSign", x))

    def backward(self, x: ArrayLike, grad: ArrayLike) -> Array:
        z = np.abs(np.float32(self.beta) * as_float32(x))
        with np.errstate(under="ignore"):  # far from 0 there is no slope
            e = np.exp(-z)
            slope = np.float32(self.beta) * (2 - z * np.tanh(z / 2)) * (2 * e / np.square(1 + e))
        return as_float32(grad) * slope


@dataclass
class AnnealedSign:
    """The sign, with a gradient that sharpens from nearly the identity to a peak at 0.

    Parameters
    ----------
    start, end : float
        The sharpness t at progress 0 and at progress 1.
    progress : float
        The fraction of the training that is done, in [0, 1]. The callback `Annealing` updates it.

    Raises
    ------
    TypeError
        If `start` or `end` is not a number.
    ValueError
        If not 0 < start <= end < infinity. `backward` raises it if `progress` is out of range.

    Notes
    -----
    Forward: q = +1 if x >= 0 else -1.
    Pseudo-gradient: dx = dq * k t (1 - tanh(t x)^2), where t = start * (end / start)^progress and
    k = max(1 / t, 1).

    References
    ----------
    H. Qin et al., "Forward and backward information retention for accurate binary neural networks",
    2020, equations 11 and 12.

    Examples
    --------
    >>> q = AnnealedSign()
    >>> q.forward(np.float32([-0.2, 0, 2]))
    array([-1.,  1.,  1.], dtype=float32)
    >>> q.progress = 1.0
    >>> q.backward(np.float32([-0.2, 0, 2]), np.ones(3, np.float32)).round(3)
    array([ 0.707, 10.   ,  0.   ], dtype=float32)
    """

    start: float = 0.1
    end: float = 10.0
    progress: float = field(default=0.0, repr=False)

    def __post_init__(self):
        _check_sharpness("AnnealedSign", self.start, self.end)

    def forward(self, x: ArrayLike) -> Array:
        return signs_of(real_numbers("AnnealedSign", x))

    def backward(self, x: ArrayLike, grad: ArrayLike) -> Array:
        t = _sharpness(self)
        slope = np.maximum(t, ONE) * (1 - np.square(np.tanh(t * as_float32(x))))
        return as_float32(grad) * slope


@dataclass
class ProgressiveSign:
    """A hard tanh that steepens into the sign: real values at first, nearly binary ones at the end.

    Parameters
    ----------
    start, end : float
        The slope s at progress 0 and at progress 1.
    progress : float
        The fraction of the training that is done, in [0, 1]. The callback `Annealing` updates it.

    Raises
    ------
    TypeError
        If `start` or `end` is not a number.
    ValueError
        If not 0 < start <= end < infinity. `forward` and `backward` raise it if `progress` is out
        of range.

    Notes
    -----
    Forward: q = clip(s x, -1, 1), where s = start * (end / start)^progress.
    Gradient: dx = dq * s * (abs(s x) <= 1).

    Use `SteSign` for evaluation.

    Examples
    --------
    >>> q = ProgressiveSign()
    >>> q.forward(np.float32([-0.5, 0.25, 3]))
    array([-0.5 ,  0.25,  1.  ], dtype=float32)
    >>> q.progress = 1.0
    >>> q.forward(np.float32([-0.5, 0.25, 3]))
    array([-1.,  1.,  1.], dtype=float32)
    """

    start: float = 1.0
    end: float = 100.0
    progress: float = field(default=0.0, repr=False)

    def __post_init__(self):
        _check_sharpness("ProgressiveSign", self.start, self.end)

    def forward(self, x: ArrayLike) -> Array:
        return np.clip(_sharpness(self) * real_numbers("ProgressiveSign", x), -1, 1)

    def backward(self, x: ArrayLike, grad: ArrayLike) -> Array:
        s = _sharpness(self)
        inside = np.abs(s * as_float32(x)) <= 1
        return as_float32(grad) * (s * inside)


def _check_sharpness(where: str, start: float, end: float) -> None:
    """Check that start and end are numbers with 0 < start <= end < infinity."""
    check_number(where, "start", start)
    check_number(where, "end", end)
    if not 0 < start <= end < math.inf:
        raise ValueError(
            f"[{where}] start and end must be finite with 0 < start <= end, got {start} and {end}"
        )


def _sharpness(quantizer: AnnealedSign | ProgressiveSign) -> np.float32:
    """Interpolate geometrically between start and end."""
    if not 0 <= quantizer.progress <= 1:
        raise ValueError(
            f"[{type(quantizer).__name__}] progress must be in [0, 1], got {quantizer.progress}"
        )
    return np.float32(quantizer.start * (quantizer.end / quantizer.start) ** quantizer.progress)


@dataclass(frozen=True)
class ClippedGradient:
    """Another quantizer, with gradients that are clipped before it gets them.

    Parameters
    ----------
    quantizer : Quantizer
    limit : float
        The largest magnitude of a gradient, positive and finite.

    Raises
    ------
    TypeError
        If `quantizer` is not a quantizer, or `limit` is not a number.
    ValueError
        If `limit` is not positive and finite.

    Notes
    -----
    Forward: that of `quantizer`.
    Pseudo-gradient: that of `quantizer`, given clip(dq, -limit, limit).

    Examples
    --------
    >>> q, x = ClippedGradient(SteSign(), 0.1), np.float32([-0.5, 0, 2])
    >>> q.backward(x, np.ones_like(x))
    array([0.1, 0.1, 0. ], dtype=float32)
    """

    quantizer: Quantizer
    limit: float

    def __post_init__(self):
        check_quantizer("ClippedGradient", self.quantizer)
        check_number("ClippedGradient", "limit", self.limit)
        if not 0 < self.limit < math.inf:
            raise ValueError(
                f"[ClippedGradient] limit must be positive and finite, got {self.limit}"
            )

    def forward(self, x: ArrayLike) -> Array:
        return self.quantizer.forward(x)

    def backward(self, x: ArrayLike, grad: ArrayLike) -> Array:
        limit = np.float32(self.limit)
        return self.quantizer.backward(x, np.clip(as_float32(grad), -limit, limit))


@dataclass(frozen=True)
class StochasticSign:
    """A sign drawn at random, for activations or weights.

    Parameters
    ----------
    clip_value : float
        The magnitude from which the sign is certain, positive and finite. Gradients pass up to this
        magnitude. Latent weights that are clipped to it pass every gradient.
    seed : int, SeedSequence or Generator, optional
        Source of the random numbers.

    Raises
    ------
    TypeError
        If `clip_value` is not a number.
    ValueError
        If `clip_value` is not positive and finite.

    Notes
    -----
    Forward: q = +1 with probability clip((x / clip_value + 1) / 2, 0, 1), else -1.
    Pseudo-gradient: dx = dq * (abs(x) <= clip_value), the gradient of clip_value times the expected
    value of q.

    Each call of `forward` draws new signs. Use `SteSign` for evaluation.

    References
    ----------
    M. Courbariaux et al., "BinaryConnect", 2015, equations 2 and 3.
    M. Courbariaux, I. Hubara et al., "Binarized Neural Networks", 2016, equations 2 and 3.

    Examples
    --------
    >>> q = StochasticSign(seed=0)
    >>> q.forward(np.float32([-1, 1]))
    array([-1.,  1.], dtype=float32)
    """

    clip_value: float = 1.0
    seed: Any = None
    _rng: np.random.Generator = field(init=False, repr=False, compare=False)

    def __post_init__(self):
        check_clip("StochasticSign", self.clip_value, LARGEST)
        object.__setattr__(self, "_rng", as_generator("StochasticSign", self.seed))

    @property
    def generator(self) -> np.random.Generator:
        """The source of random numbers; checkpoints save its state."""
        return self._rng

    def forward(self, x: ArrayLike) -> Array:
        x = real_numbers("StochasticSign", x)
        chance = (x / np.float32(self.clip_value) + 1) / 2
        draws = self._rng.random(x.shape, dtype=np.float32)  # in [0, 1), so never below 0
        return np.where(draws < chance, ONE, -ONE)

    def backward(self, x: ArrayLike, grad: ArrayLike) -> Array:
        return pass_within(x, grad, self.clip_value)


@dataclass(frozen=True)
class Heaviside:
    """A step function with values 0 and 1, and the straight-through estimator as its gradient.

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
    Forward: q = 1 if x >= 0 else 0; that is (sign(x) + 1) / 2.
    Pseudo-gradient: dx = dq * (abs(x) <= clip_value).

    Examples
    --------
    >>> q, x = Heaviside(), np.float32([-0.5, 0, 2])
    >>> q.forward(x), q.backward(x, np.ones_like(x))
    (array([0., 1., 1.], dtype=float32), array([1., 1., 0.], dtype=float32))
    """

    clip_value: float = 1.0

    def __post_init__(self):
        check_clip("Heaviside", self.clip_value)

    @property
    def bits(self) -> int:
        """The number of bits of a code, 1."""
        return 1

    @property
    def step(self) -> float:
        """The value of code 1."""
        return 1.0

    def codes(self, x: ArrayLike) -> NDArray[np.uint8]:
        """Return the values 0 and 1 as integers."""
        return (real_numbers("Heaviside", x) >= 0).astype(np.uint8)

    def forward(self, x: ArrayLike) -> Array:
        return self.codes(x).astype(np.float32)

    def backward(self, x: ArrayLike, grad: ArrayLike) -> Array:
        return pass_within(x, grad, self.clip_value)
