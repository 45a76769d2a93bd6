"""The quantizers of DoReFa-Net: weights, activations and gradients of k bits."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..ops.checks import as_float32, as_generator
from .base import LARGEST, ONE, Array, check_bits, check_clip, real_numbers, signs_of


def _levels(bits: int) -> np.float32:
    """Return the largest code of so many bits, 2^bits - 1."""
    return np.float32(2**bits - 1)


def _codes(x: Array, bits: int) -> Array:
    """Round numbers in [0, 1] to codes 0, 1, ..., 2^bits - 1; ties go to the even code."""
    return np.rint(x * _levels(bits))


def _quantize(x: Array, bits: int) -> Array:
    """Round numbers in [0, 1] to the nearest of 2^bits equally spaced levels in [0, 1]."""
    return _codes(x, bits) / _levels(bits)


@dataclass(frozen=True)
class DoReFaWeight:
    """Weights of k bits, with one scale for the whole layer.

    Parameters
    ----------
    bits : int
        Number of bits k, in 1..16.

    Raises
    ------
    TypeError
        If `bits` is not an integer.
    ValueError
        If `bits` is out of range.

    Notes
    -----
    With one bit, E is the mean of abs(x).

    - Forward: q = E * sign(x).
    - Pseudo-gradient: dx = dq.

    With k > 1 bits, t = tanh(x), M = max(abs(t)), and j is the first index with abs(t_j) = M.

    - Forward: q = 2 Q(t / (2 M) + 1/2) - 1, where Q(y) = round((2^k - 1) y) / (2^k - 1). An array
      of zeros gives 0.
    - Pseudo-gradient: Q is treated as the identity, and everything else, M included, is
      differentiated:
      dx_i = (dq_i / M - [i = j] * sign(t_j) * sum(dq * t) / M^2) * (1 - t_i^2).

    References
    ----------
    S. Zhou et al., "DoReFa-Net", 2016, section 2.3. The gradient through M follows the authors'
    code.

    Examples
    --------
    >>> DoReFaWeight(2).forward(np.float32([-1, -0.1, 0.1, 1])).round(3)
    array([-1.   , -0.333,  0.333,  1.   ], dtype=float32)
    """

    bits: int

    def __post_init__(self):
        check_bits("DoReFaWeight", self.bits)

    def forward(self, x: ArrayLike) -> Array:
        x = real_numbers("DoReFaWeight", x)
        if not x.size:
            raise ValueError("[DoReFaWeight] x must not be empty, got no element")
        if self.bits == 1:
            return np.abs(x).mean() * signs_of(x)
        if not x.any():
            return np.zeros_like(x)
        return 2 * (self._codes(x) / _levels(self.bits)) - 1

    def codes(self, x: ArrayLike) -> NDArray[np.int32]:
        """Return, for bits > 1, the integer codes with q = 2 codes / (2^bits - 1) - 1."""
        return self._codes(real_numbers("DoReFaWeight", x)).astype(np.int32)

    def _codes(self, x: Array) -> Array:
        """Return the codes of weights without NaN, as float32."""
        t = np.tanh(x)
        most = np.float32(np.abs(t).max()) or ONE
        return _codes(np.asarray(t / (2 * most) + ONE / 2, np.float32), self.bits)

    def backward(self, x: ArrayLike, grad: ArrayLike) -> Array:
        grad = np.array(grad, dtype=np.float32)
        if self.bits == 1:
            return grad
        t = np.tanh(as_float32(x))
        place = np.unravel_index(np.argmax(np.abs(t)), t.shape)
        most = np.abs(t[place])
        if not most:
            return np.zeros_like(t)
        dt = grad / most
        dt[place] -= np.sign(t[place]) * np.sum(grad * t) / np.square(most)
        return dt * (1 - np.square(t))


@dataclass(frozen=True)
class DoReFaActivation:
    """Activations of k bits in [0, clip_value].

    Parameters
    ----------
    bits : int
        Number of bits k, in 1..16.
    clip_value : float
        The largest activation c, positive and finite.

    Raises
    ------
    TypeError
        If `bits` is not an integer, or `clip_value` is not a number.
    ValueError
        If a parameter is out of range.

    Notes
    -----
    Forward: q = c Q(clip(x / c, 0, 1)), where Q(y) = round((2^k - 1) y) / (2^k - 1).
    Pseudo-gradient: dx = dq * (0 <= x <= c).

    References
    ----------
    S. Zhou et al., "DoReFa-Net", 2016, section 2.4.

    Examples
    --------
    >>> DoReFaActivation(2).forward(np.float32([-1, 0.3, 0.7, 5]))
    array([0.        , 0.33333334, 0.6666667 , 1.        ], dtype=float32)
    """

    bits: int
    clip_value: float = 1.0

    def __post_init__(self):
        check_bits("DoReFaActivation", self.bits)
        check_clip("DoReFaActivation", self.clip_value, LARGEST)

    @property
    def step(self) -> float:
        """The difference between neighbouring levels, rounded to float32."""
        return float(np.float32(self.clip_value) / _levels(self.bits))

    def codes(self, x: ArrayLike) -> NDArray[np.uint16]:
        """Return the levels as integers in 0..2^bits - 1: uint8 for up to 8 bits, else uint16."""
        return self._codes(x).astype(np.uint8 if self.bits <= 8 else np.uint16)

    def _codes(self, x: ArrayLike) -> Array:
        """Return the codes of activations, as float32."""
        share = np.clip(real_numbers("DoReFaActivation", x) / np.float32(self.clip_value), 0, 1)
        return _codes(share, self.bits)

    def forward(self, x: ArrayLike) -> Array:
        return np.float32(self.clip_value) * (self._codes(x) / _levels(self.bits))

    def backward(self, x: ArrayLike, grad: ArrayLike) -> Array:
        x = as_float32(x)
        return as_float32(grad) * ((x >= 0) & (x <= np.float32(self.clip_value)))


@dataclass(frozen=True)
class DoReFaGradient:
    """The identity, with gradients that are rounded stochastically to k bits.

    Parameters
    ----------
    bits : int
        Number of bits k, in 1..16.
    seed : int, SeedSequence or Generator, optional
        Source of the noise.

    Raises
    ------
    TypeError
        If `bits` is not an integer.
    ValueError
        If `bits` is out of range.

    Notes
    -----
    Forward: q = x.
    Pseudo-gradient: dx = 2 m (Q(clip(dq / (2 m) + 1/2 + noise, 0, 1)) - 1/2), where
    Q(y) = round((2^k - 1) y) / (2^k - 1).

    Here m is the largest abs(dq) of each sample along the first axis, and the noise is uniform in
    [-1/2, 1/2) / (2^k - 1). A sample of zeros gives 0. The expected value of dx is dq, except near
    the ends of the range, where the noise is clipped.

    References
    ----------
    S. Zhou et al., "DoReFa-Net", 2016, section 2.5. The clip follows the authors' code.

    Examples
    --------
    >>> q, grad = DoReFaGradient(8, seed=0), np.float32([[-1, 0, 1]])
    >>> bool(abs(q.backward(None, grad) - grad).max() < 0.01)
    True
    """

    bits: int
    seed: Any = None
    _rng: np.random.Generator = field(init=False, repr=False, compare=False)

    def __post_init__(self):
        check_bits("DoReFaGradient", self.bits)
        object.__setattr__(self, "_rng", as_generator("DoReFaGradient", self.seed))

    @property
    def generator(self) -> np.random.Generator:
        """The source of random numbers; checkpoints save its state."""
        return self._rng

    def forward(self, x: ArrayLike) -> Array:
        return np.array(x, dtype=np.float32)

    def backward(self, x: ArrayLike, grad: ArrayLike) -> Array:
        grad = as_float32(grad)
        if grad.ndim < 2:
            raise ValueError(f"[DoReFaGradient] grad must have shape (n, ...), got {grad.shape}")
        axes = tuple(range(1, grad.ndim))
        most = np.abs(grad).max(axis=axes, keepdims=True, initial=0)
        noise = (self._rng.random(grad.shape, dtype=np.float32) - ONE / 2) / _levels(self.bits)
        share = grad / np.where(most > 0, 2 * most, ONE) + ONE / 2 + noise
        return 2 * most * (_quantize(np.clip(share, 0, 1), self.bits) - ONE / 2)
