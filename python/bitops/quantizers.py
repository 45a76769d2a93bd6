"""Quantizers of training: each shows its forward function and its pseudo-gradient side by side.

They map float32 arrays to float32 arrays. `forward(x)` quantizes; `backward(x, grad)` turns the
gradient with respect to the quantized values into the one that x is given. sign(0) = +1 throughout,
and a NaN, which has no sign, raises ValueError in `forward`.

Those of weights that keep a scale "per filter" take filters along the first axis: (n, k) of a dense
layer, OHWI of a convolution.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from . import _core
from .ops.checks import check_number, real_array

__all__ = [
    "AnnealedSign",
    "ApproxSign",
    "ByteGradient",
    "ClippedGradient",
    "DoReFaActivation",
    "DoReFaGradient",
    "DoReFaWeight",
    "Heaviside",
    "LeastSquaresTernary",
    "MagnitudeAwareSign",
    "ProgressiveSign",
    "ShareTernary",
    "SteSign",
    "StochasticSign",
    "SwishSign",
    "Ternary",
    "TwnTernary",
    "XnorSign",
    "ap2",
    "xnor_weight_gradient",
]

Array = NDArray[np.float32]
ONE = np.float32(1)
LARGEST = float(np.finfo(np.float32).max)

# Bits of float32: what to add to a mantissa so that one above sqrt(2) carries into the exponent.
_TO_NEXT_POWER = np.uint32(0x00800000 - 0x003504F4)
_SIGN_AND_EXPONENT = np.uint32(0xFF800000)


def ap2(z: ArrayLike) -> Array:
    """The power of two nearest in logarithm, with the sign of z: sign(z) * 2^round(log2(abs(z))).

    Parameters
    ----------
    z : array_like of real numbers
        Converted to float32. 0, NaN and infinity stay what they are; numbers below 2^-126 become 0
        or 2^-126.

    Returns
    -------
    ndarray of float32

    References
    ----------
    Courbariaux, Hubara et al., "Binarized Neural Networks", 2016 (shift-based normalization).
    """
    z = np.asarray(z, dtype=np.float32)
    bits = np.ascontiguousarray(z).view(np.uint32)
    powers = ((bits + _TO_NEXT_POWER) & _SIGN_AND_EXPONENT).view(np.float32)
    return np.where(np.isnan(z), z, powers.reshape(z.shape))


def _real(where: str, x: ArrayLike) -> Array:
    """`x` as float32 without NaN."""
    array = real_array(where, "x", x).astype(np.float32, copy=False)
    if np.isnan(array).any():
        raise ValueError(f"[{where}] x must not hold NaN, which has no sign")
    return array


def _signs(x: Array) -> Array:
    return np.where(x >= 0, ONE, -ONE)


def _pass_within(x: ArrayLike, grad: ArrayLike, limit: float) -> Array:
    """The gradient where abs(x) <= limit, else 0."""
    inside = np.abs(np.asarray(x, dtype=np.float32)) <= np.float32(limit)
    return np.asarray(grad, dtype=np.float32) * inside


def _check_clip(where: str, clip_value: float, limit: float = math.inf) -> None:
    check_number(where, "clip_value", clip_value)
    if not 0 < clip_value <= limit:
        finite = "" if limit == math.inf else " and finite"
        raise ValueError(f"[{where}] clip_value must be positive{finite}, got {clip_value}")


def _check_bits(where: str, bits: int) -> None:
    if isinstance(bits, bool) or not isinstance(bits, int | np.integer):
        raise TypeError(f"[{where}] bits must be an integer, got {bits!r}")
    if not 1 <= bits <= 16:
        raise ValueError(f"[{where}] bits must be in 1..16, got {bits}")


def _filter_axes(where: str, x: Array) -> tuple[int, ...]:
    """The axes of one filter."""
    if x.ndim < 2 or not x.size:
        raise ValueError(f"[{where}] x must hold filters along the first axis, got shape {x.shape}")
    return tuple(range(1, x.ndim))


# ---- signs -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class SteSign:
    """Sign, trained straight through.

    Parameters
    ----------
    clip_value : float
        Infinity lets every gradient pass.

    Notes
    -----
    Forward: q = +1 if x >= 0 else -1.
    Pseudo-gradient: dx = dq * (abs(x) <= clip_value).

    References
    ----------
    Courbariaux, Hubara et al., "Binarized Neural Networks", 2016, equations 1 and 4.
    """

    clip_value: float = 1.0

    def __post_init__(self):
        _check_clip("SteSign", self.clip_value)

    def forward(self, x: ArrayLike) -> Array:
        return _signs(_real("SteSign", x))

    def backward(self, x: ArrayLike, grad: ArrayLike) -> Array:
        return _pass_within(x, grad, self.clip_value)


@dataclass(frozen=True)
class ApproxSign:
    """Sign with the gradient of a piecewise parabola.

    Notes
    -----
    Forward: q = +1 if x >= 0 else -1.
    Pseudo-gradient, with c = clip_value: dx = dq * 2/c * max(0, 1 - abs(x) / c), the derivative of
    x/c * (2 - abs(x)/c) on [-c, c]. It is 2/c at 0 and 0 from c on.

    References
    ----------
    Liu et al., "Bi-Real Net", 2018 (ApproxSign, for c = 1).
    """

    clip_value: float = 1.0

    def __post_init__(self):
        _check_clip("ApproxSign", self.clip_value, LARGEST)

    def forward(self, x: ArrayLike) -> Array:
        return _signs(_real("ApproxSign", x))

    def backward(self, x: ArrayLike, grad: ArrayLike) -> Array:
        c = np.float32(self.clip_value)
        slope = np.maximum(0, 1 - np.abs(np.asarray(x, dtype=np.float32)) / c) * (2 / c)
        return np.asarray(grad, dtype=np.float32) * slope


@dataclass(frozen=True)
class SwishSign:
    """Sign with the derivative of the SignSwish function as its gradient.

    Parameters
    ----------
    beta : float
        The larger, the narrower the bell of the gradient, whose height is `beta`.

    Notes
    -----
    Forward: q = +1 if x >= 0 else -1.
    Pseudo-gradient: dx = dq * beta * (2 - beta x tanh(beta x / 2)) / (1 + cosh(beta x)).
    It is computed with e = exp(-abs(beta x)), 1 / (1 + cosh(beta x)) = 2 e / (1 + e)^2, which does
    not overflow.

    References
    ----------
    Darabi et al., "Regularized Binary Network Training" (BNN+), 2018.
    """

    beta: float = 5.0

    def __post_init__(self):
        check_number("SwishSign", "beta", self.beta)
        if not 0 < self.beta < math.inf:
            raise ValueError(f"[SwishSign] beta must be positive and finite, got {self.beta}")

    def forward(self, x: ArrayLike) -> Array:
        return _signs(_real("SwishSign", x))

    def backward(self, x: ArrayLike, grad: ArrayLike) -> Array:
        z = np.abs(np.float32(self.beta) * np.asarray(x, dtype=np.float32))
        e = np.exp(-z)
        slope = np.float32(self.beta) * (2 - z * np.tanh(z / 2)) * (2 * e / np.square(1 + e))
        return np.asarray(grad, dtype=np.float32) * slope


@dataclass(frozen=True)
class MagnitudeAwareSign:
    """Sign of weights, scaled by the mean magnitude of each filter.

    Notes
    -----
    Forward: q = alpha * sign(x), alpha the mean of abs(x) over a filter.
    Pseudo-gradient: dx = dq * alpha * (abs(x) <= clip_value); alpha counts as a constant. For the
    gradient through alpha too, see `xnor_weight_gradient`.

    References
    ----------
    Liu et al., "Bi-Real Net", 2018 (magnitude-aware gradient).
    Rastegari et al., "XNOR-Net", 2016, equation 6 (alpha).
    """

    clip_value: float = 1.0

    def __post_init__(self):
        _check_clip("MagnitudeAwareSign", self.clip_value)

    def alpha(self, x: ArrayLike) -> Array:
        """Scale of each filter, with axes of length 1 behind, so that it broadcasts."""
        x = _real("MagnitudeAwareSign", x)
        return np.abs(x).mean(axis=_filter_axes("MagnitudeAwareSign", x), keepdims=True)

    def forward(self, x: ArrayLike) -> Array:
        return self.alpha(x) * _signs(np.asarray(x, dtype=np.float32))

    def backward(self, x: ArrayLike, grad: ArrayLike) -> Array:
        return _pass_within(x, grad, self.clip_value) * self.alpha(x)


@dataclass(frozen=True)
class XnorSign:
    """Sign of weights, scaled by the mean magnitude of each filter, whose gradient reaches alpha.

    Parameters
    ----------
    form : {"paper", "chain"}
    released_scale : bool
        See `xnor_weight_gradient`.

    Notes
    -----
    Forward: q = alpha * sign(x), alpha the mean of abs(x) over a filter.
    Pseudo-gradient: that of `xnor_weight_gradient`.

    References
    ----------
    Rastegari et al., "XNOR-Net", 2016, section 3.1.
    """

    form: Literal["paper", "chain"] = "paper"
    released_scale: bool = False

    def __post_init__(self):
        _check_form("XnorSign", self.form)

    def forward(self, x: ArrayLike) -> Array:
        return MagnitudeAwareSign().forward(x)

    def backward(self, x: ArrayLike, grad: ArrayLike) -> Array:
        return xnor_weight_gradient(x, grad, form=self.form, released_scale=self.released_scale)


@dataclass
class AnnealedSign:
    """Sign whose pseudo-gradient sharpens from nearly the identity to nearly that of the sign.

    Parameters
    ----------
    start, end : float
        Sharpness t for progress 0 and 1.
    progress : float
        Share of the training that is over, in [0, 1]; to be set as it goes on.

    Notes
    -----
    Forward: q = +1 if x >= 0 else -1.
    Pseudo-gradient: dx = dq * k t (1 - tanh(t x)^2), t = start * (end / start)^progress and
    k = max(1 / t, 1).

    References
    ----------
    Qin et al., "Forward and backward information retention for accurate binary neural networks",
    2020, equations 11 and 12.
    """

    start: float = 0.1
    end: float = 10.0
    progress: float = field(default=0.0, repr=False)

    def __post_init__(self):
        _check_sharpness("AnnealedSign", self.start, self.end)

    def forward(self, x: ArrayLike) -> Array:
        return _signs(_real("AnnealedSign", x))

    def backward(self, x: ArrayLike, grad: ArrayLike) -> Array:
        t = _sharpness(self)
        slope = np.maximum(t, ONE) * (1 - np.square(np.tanh(t * np.asarray(x, dtype=np.float32))))
        return np.asarray(grad, dtype=np.float32) * slope


@dataclass
class ProgressiveSign:
    """Hard tanh that steepens into the sign: real activations at first, nearly binary at the end.

    Parameters
    ----------
    start, end : float
        Slope s for progress 0 and 1.
    progress : float
        Share of the training that is over, in [0, 1]; to be set as it goes on.

    Notes
    -----
    Forward: q = clip(s x, -1, 1), s = start * (end / start)^progress.
    Gradient: dx = dq * s (abs(s x) <= 1).
    For evaluation take `SteSign`.
    """

    start: float = 1.0
    end: float = 100.0
    progress: float = field(default=0.0, repr=False)

    def __post_init__(self):
        _check_sharpness("ProgressiveSign", self.start, self.end)

    def forward(self, x: ArrayLike) -> Array:
        return np.clip(_sharpness(self) * _real("ProgressiveSign", x), -1, 1)

    def backward(self, x: ArrayLike, grad: ArrayLike) -> Array:
        s = _sharpness(self)
        inside = np.abs(s * np.asarray(x, dtype=np.float32)) <= 1
        return np.asarray(grad, dtype=np.float32) * (s * inside)


def _check_sharpness(where: str, start: float, end: float) -> None:
    check_number(where, "start", start)
    check_number(where, "end", end)
    if not 0 < start <= end < math.inf:
        raise ValueError(f"[{where}] start and end must rise from above 0, got {start} and {end}")


def _sharpness(quantizer: AnnealedSign | ProgressiveSign) -> np.float32:
    """Geometric way from start to end."""
    if not 0 <= quantizer.progress <= 1:
        raise ValueError(
            f"[{type(quantizer).__name__}] progress must be in [0, 1], got {quantizer.progress}"
        )
    return np.float32(quantizer.start * (quantizer.end / quantizer.start) ** quantizer.progress)


@dataclass(frozen=True)
class ClippedGradient:
    """Another quantizer, which is given no gradient beyond a limit.

    Parameters
    ----------
    quantizer : any quantizer
    limit : float

    Notes
    -----
    Forward: that of `quantizer`.
    Pseudo-gradient: that of `quantizer` for clip(dq, -limit, limit).
    """

    quantizer: Any
    limit: float

    def __post_init__(self):
        check_number("ClippedGradient", "limit", self.limit)
        if not 0 < self.limit < math.inf:
            raise ValueError(
                f"[ClippedGradient] limit must be positive and finite, got {self.limit}"
            )

    def forward(self, x: ArrayLike) -> Array:
        return self.quantizer.forward(x)

    def backward(self, x: ArrayLike, grad: ArrayLike) -> Array:
        limit = np.float32(self.limit)
        return self.quantizer.backward(x, np.clip(np.asarray(grad, np.float32), -limit, limit))


@dataclass(frozen=True)
class StochasticSign:
    """Sign drawn at random, of activations or of weights.

    Parameters
    ----------
    clip_value : float
        Where the draw becomes certain, and up to where gradients pass. Latent weights that are
        clipped to it pass every gradient.
    seed : int, SeedSequence or Generator, optional
        Source of the draws.

    Notes
    -----
    Forward: q = +1 with probability clip((x / clip_value + 1) / 2, 0, 1), else -1.
    Pseudo-gradient: dx = dq * (abs(x) <= clip_value), as if q were its mean times clip_value.
    Every call of `forward` draws anew; for evaluation take `SteSign`.

    References
    ----------
    Courbariaux et al., "BinaryConnect", 2015, equations 2 and 3.
    Courbariaux, Hubara et al., "Binarized Neural Networks", 2016, equations 2 and 3.
    """

    clip_value: float = 1.0
    seed: Any = None
    _rng: np.random.Generator = field(init=False, repr=False, compare=False)

    def __post_init__(self):
        _check_clip("StochasticSign", self.clip_value, LARGEST)
        object.__setattr__(self, "_rng", np.random.default_rng(self.seed))

    @property
    def generator(self) -> np.random.Generator:
        """Source of the random numbers, whose state a checkpoint keeps."""
        return self._rng

    def forward(self, x: ArrayLike) -> Array:
        x = _real("StochasticSign", x)
        chance = (x / np.float32(self.clip_value) + 1) / 2
        draws = self._rng.random(x.shape, dtype=np.float32)  # in [0, 1): never below a chance of 0
        return np.where(draws < chance, ONE, -ONE)

    def backward(self, x: ArrayLike, grad: ArrayLike) -> Array:
        return _pass_within(x, grad, self.clip_value)


@dataclass(frozen=True)
class Heaviside:
    """Step function with values 0 and 1, trained straight through.

    Notes
    -----
    Forward: q = 1 if x >= 0 else 0, which is (sign(x) + 1) / 2.
    Pseudo-gradient: dx = dq * (abs(x) <= clip_value).
    """

    clip_value: float = 1.0

    def __post_init__(self):
        _check_clip("Heaviside", self.clip_value)

    @property
    def bits(self) -> int:
        """Bits of a code."""
        return 1

    @property
    def step(self) -> float:
        """Value of one code."""
        return 1.0

    def codes(self, x: ArrayLike) -> NDArray[np.uint8]:
        """The values as integers."""
        return (_real("Heaviside", x) >= 0).astype(np.uint8)

    def forward(self, x: ArrayLike) -> Array:
        return self.codes(x).astype(np.float32)

    def backward(self, x: ArrayLike, grad: ArrayLike) -> Array:
        return _pass_within(x, grad, self.clip_value)


# ---- ternary ---------------------------------------------------------------------------------


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
        _check_clip("Ternary", self.clip_value)

    def split(self, x: ArrayLike) -> tuple[Array, Array]:
        """Values t and the scale, which is 1."""
        return self.forward(x), np.ones((), np.float32)

    def forward(self, x: ArrayLike) -> Array:
        return _ternary(_real("Ternary", x), np.float32(self.threshold))

    def backward(self, x: ArrayLike, grad: ArrayLike) -> Array:
        return _pass_within(x, grad, self.clip_value)


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
        _check_clip("TwnTernary", self.clip_value)

    def split(self, x: ArrayLike) -> tuple[Array, Array]:
        """Values t, and scales alpha with axes of length 1 behind: x is about alpha * t."""
        x = _real("TwnTernary", x)
        axes = _filter_axes("TwnTernary", x)
        size = np.abs(x)
        t = _ternary(x, np.float32(0.7) * size.mean(axis=axes, keepdims=True))
        kept = np.abs(t)
        total = (size * kept).sum(axis=axes, keepdims=True)
        return t, total / np.maximum(kept.sum(axis=axes, keepdims=True), 1)

    def forward(self, x: ArrayLike) -> Array:
        t, alpha = self.split(x)
        return alpha * t

    def backward(self, x: ArrayLike, grad: ArrayLike) -> Array:
        return _pass_within(x, grad, self.clip_value)


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
        sizes = np.sort(np.abs(_real("LeastSquaresTernary", x)), axis=None)[::-1]
        if not sizes.size:
            raise ValueError("[LeastSquaresTernary] x must not be empty, got no element")
        sums = np.cumsum(sizes, dtype=np.float64)
        counts = np.arange(1, sizes.size + 1)
        best = int(np.argmax(np.square(sums) / counts))
        return float(sums[best] / counts[best])

    def split(self, x: ArrayLike) -> tuple[Array, Array]:
        """Values t, and the step delta: x is about delta * t."""
        delta = np.float32(self.step(x) if self.delta is None else self.delta)
        x = _real("LeastSquaresTernary", x)
        return np.sign(x) * (np.abs(x) >= delta / 2), np.asarray(delta)

    def forward(self, x: ArrayLike) -> Array:
        t, delta = self.split(x)
        return delta * t

    def backward(self, x: ArrayLike, grad: ArrayLike) -> Array:
        return _pass_within(x, grad, math.inf)


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
        x = _real("ShareTernary", x)
        count = int(self.zeros * x.size)
        sizes = np.abs(x)
        return _ternary(x, np.partition(sizes, count - 1, axis=None)[count - 1] if count else 0)

    def backward(self, x: ArrayLike, grad: ArrayLike) -> Array:
        return _pass_within(x, grad, math.inf)


# ---- DoReFa ----------------------------------------------------------------------------------


def _levels(bits: int) -> np.float32:
    return np.float32(2**bits - 1)


def _codes(x: Array, bits: int) -> Array:
    """Numbers in [0, 1] to 0, 1, ..., 2^bits - 1: the nearest level, halves to the even one."""
    return np.rint(x * _levels(bits))


def _quantize(x: Array, bits: int) -> Array:
    """Numbers in [0, 1] to the nearest of 2^bits levels in [0, 1]."""
    return _codes(x, bits) / _levels(bits)


@dataclass(frozen=True)
class DoReFaWeight:
    """Weights of k bits, scaled by the whole layer.

    Parameters
    ----------
    bits : int

    Notes
    -----
    Forward, one bit: q = E * sign(x), E the mean of abs(x).  Pseudo-gradient: dx = dq.
    Forward, k bits: q = 2 Q(t / (2 M) + 1/2) - 1 with t = tanh(x), M = max(abs(t)) and
    Q(y) = round((2^k - 1) y) / (2^k - 1); 0 for an array of zeros.
    Pseudo-gradient: Q counts as the identity, all else is differentiated, M included:
    dx_i = (dq_i / M - [i = j] * sign(t_j) * sum(dq * t) / M^2) * (1 - t_i^2), j the place of M;
    the first of several.

    References
    ----------
    Zhou et al., "DoReFa-Net", 2016, section 2.3; the gradient through M is that of the program
    released with it.
    """

    bits: int

    def __post_init__(self):
        _check_bits("DoReFaWeight", self.bits)

    def forward(self, x: ArrayLike) -> Array:
        x = _real("DoReFaWeight", x)
        if not x.size:
            raise ValueError("[DoReFaWeight] x must not be empty, got no element")
        if self.bits == 1:
            return np.abs(x).mean() * _signs(x)
        if not x.any():
            return np.zeros_like(x)
        return 2 * (self._codes(x) / _levels(self.bits)) - 1

    def codes(self, x: ArrayLike) -> NDArray[np.int32]:
        """Q as integers 0..2^bits - 1, for more than one bit: q = 2 codes / (2^bits - 1) - 1."""
        return self._codes(_real("DoReFaWeight", x)).astype(np.int32)

    def _codes(self, x: Array) -> Array:
        t = np.tanh(x)
        most = np.float32(np.abs(t).max()) or ONE
        return _codes(np.asarray(t / (2 * most) + ONE / 2, np.float32), self.bits)

    def backward(self, x: ArrayLike, grad: ArrayLike) -> Array:
        grad = np.array(grad, dtype=np.float32)
        if self.bits == 1:
            return grad
        t = np.tanh(np.asarray(x, dtype=np.float32))
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
    clip_value : float

    Notes
    -----
    Forward: q = c Q(clip(x / c, 0, 1)), c = clip_value, Q(y) = round((2^k - 1) y) / (2^k - 1).
    Pseudo-gradient: dx = dq * (0 <= x <= c).

    References
    ----------
    Zhou et al., "DoReFa-Net", 2016, section 2.4.
    """

    bits: int
    clip_value: float = 1.0

    def __post_init__(self):
        _check_bits("DoReFaActivation", self.bits)
        _check_clip("DoReFaActivation", self.clip_value, LARGEST)

    @property
    def step(self) -> float:
        """Value of one code, rounded to float32."""
        return float(np.float32(self.clip_value) / _levels(self.bits))

    def codes(self, x: ArrayLike) -> NDArray[np.uint16]:
        """Q as integers 0..2^bits - 1."""
        return self._codes(x).astype(np.uint8 if self.bits <= 8 else np.uint16)

    def _codes(self, x: ArrayLike) -> Array:
        share = np.clip(_real("DoReFaActivation", x) / np.float32(self.clip_value), 0, 1)
        return _codes(share, self.bits)

    def forward(self, x: ArrayLike) -> Array:
        return np.float32(self.clip_value) * (self._codes(x) / _levels(self.bits))

    def backward(self, x: ArrayLike, grad: ArrayLike) -> Array:
        x = np.asarray(x, dtype=np.float32)
        return np.asarray(grad, dtype=np.float32) * ((x >= 0) & (x <= np.float32(self.clip_value)))


@dataclass(frozen=True)
class DoReFaGradient:
    """The identity, whose gradients are rounded at random to k bits.

    Parameters
    ----------
    bits : int
    seed : int, SeedSequence or Generator, optional
        Source of the noise.

    Notes
    -----
    Forward: q = x.
    Pseudo-gradient, with m the largest abs(dq) of a sample (first axis):
    dx = 2 m (Q(clip(dq / (2 m) + 1/2 + noise, 0, 1)) - 1/2), noise uniform in
    [-1/2, 1/2) / (2^k - 1), Q(y) = round((2^k - 1) y) / (2^k - 1); 0 for a sample of zeros. Between
    the ends of the range the mean of dx is dq.

    References
    ----------
    Zhou et al., "DoReFa-Net", 2016, section 2.5; the clip is that of the released program.
    """

    bits: int
    seed: Any = None
    _rng: np.random.Generator = field(init=False, repr=False, compare=False)

    def __post_init__(self):
        _check_bits("DoReFaGradient", self.bits)
        object.__setattr__(self, "_rng", np.random.default_rng(self.seed))

    @property
    def generator(self) -> np.random.Generator:
        """Source of the random numbers, whose state a checkpoint keeps."""
        return self._rng

    def forward(self, x: ArrayLike) -> Array:
        return np.array(x, dtype=np.float32)

    def backward(self, x: ArrayLike, grad: ArrayLike) -> Array:
        grad = np.asarray(grad, dtype=np.float32)
        if grad.ndim < 2:
            raise ValueError(f"[DoReFaGradient] grad must have shape (n, ...), got {grad.shape}")
        axes = tuple(range(1, grad.ndim))
        most = np.abs(grad).max(axis=axes, keepdims=True, initial=0)
        noise = (self._rng.random(grad.shape, dtype=np.float32) - ONE / 2) / _levels(self.bits)
        share = grad / np.where(most > 0, 2 * most, ONE) + ONE / 2 + noise
        return 2 * most * (_quantize(np.clip(share, 0, 1), self.bits) - ONE / 2)


@dataclass(frozen=True)
class ByteGradient:
    """Gradients rounded at random to one byte each, for products with bits.

    Parameters
    ----------
    seed : int, SeedSequence or Generator, optional
        Source of the rounding.

    Notes
    -----
    With m the largest abs(g) and step = m / 127, a number is stored as byte b = floor(g / step +
    128 + u), u uniform in [0, 1), and stands for (b - 128) step: its mean is g, and 0 stays 0. One
    step serves a whole array, so that products with +-1 are exact integers times that step.

    References
    ----------
    Zhou et al., "DoReFa-Net", 2016, section 2.5, which rounds each sample by itself.
    """

    ZERO: ClassVar[int] = 128  # the byte that stands for 0

    seed: Any = None
    _rng: np.random.Generator = field(init=False, repr=False, compare=False)

    def __post_init__(self):
        object.__setattr__(self, "_rng", np.random.default_rng(self.seed))

    @property
    def generator(self) -> np.random.Generator:
        """Source of the random numbers, whose state a checkpoint keeps."""
        return self._rng

    def round(self, g: ArrayLike) -> tuple[NDArray[np.uint8], float]:
        """Bytes of an array and the step; infinities and NaN are refused."""
        numbers = np.ascontiguousarray(g, np.float32)
        most = max(float(numbers.max(initial=0)), -float(numbers.min(initial=0)))
        if not math.isfinite(most):
            raise ValueError("[ByteGradient] g must be finite, got infinity or NaN")
        # Rounded down, so that the largest number does not pass 127.
        scale = np.nextafter(np.float32(min(127 / most if most else 1.0, LARGEST)), np.float32(0))
        codes = np.empty(numbers.shape, np.uint8)
        seed = int(self._rng.integers(2**32))
        _core.quantize(numbers.reshape(-1), scale, seed, codes.reshape(-1))
        return codes, 1 / float(scale)


# ---- gradients of weights --------------------------------------------------------------------


def _check_form(where: str, form: str) -> None:
    if form not in ("paper", "chain"):
        raise ValueError(f"[{where}] form must be 'paper' or 'chain', got {form!r}")


def xnor_weight_gradient(
    w: ArrayLike,
    grad: ArrayLike,
    *,
    form: Literal["paper", "chain"] = "paper",
    released_scale: bool = False,
) -> Array:
    """Gradient of real filters from that of their approximation alpha * sign(W).

    Parameters
    ----------
    w : array_like of shape (n, ..., channels)
        Filters along the first axis, input channels along the last.
    grad : array_like of the shape of `w`
        Gradient g with respect to alpha * sign(W).
    form : {"paper", "chain"}
        "paper" is the published formula, with which the published results were obtained; "chain" is
        the chain rule.
    released_scale : bool
        Multiply by (1 - 1/channels) * n_w as the released programs do. Adam does not notice a
        constant factor; SGD does.

    Returns
    -------
    ndarray of the shape of `w`, float32

    Raises
    ------
    ValueError
        On shapes that do not fit, an unknown form, or NaN in `w`.

    Notes
    -----
    One filter has n_w weights, V_i = alpha s_i with s_i = sign(W_i) and alpha = sum_j abs(W_j) /
    n_w. With ds_i/dW_i taken as 1{abs(W_i) <= 1} (straight through) and d abs(W_i)/dW_i = s_i, so
    that d alpha/dW_i = s_i / n_w,

        dV_j/dW_i = alpha 1{abs(W_i) <= 1} [i = j] + s_j s_i / n_w,

    and the sum over j of g_j dV_j/dW_i is the form "chain":

        dW_i = alpha 1{abs(W_i) <= 1} g_i + s_i / n_w * sum_j g_j s_j.

    The form "paper" keeps of the second term only j = i, where s_i s_i = 1:

        dW_i = g_i (alpha 1{abs(W_i) < 1} + 1 / n_w),

    strictly inside as in the released program. That program also subtracts from W its mean over
    the input channels before each step; 1 - 1/channels is the diagonal of the derivative of that.

    References
    ----------
    Rastegari et al., "XNOR-Net", 2016, section 3.1 and the program released with it ("paper").
    """
    where = "xnor_weight_gradient"
    _check_form(where, form)
    w = _real(where, w)
    g = np.asarray(grad, dtype=np.float32)
    axes = _filter_axes(where, w)
    if g.shape != w.shape:
        raise ValueError(f"[{where}] grad must have shape {w.shape}, got {g.shape}")
    n = w[0].size
    size = np.abs(w)
    alpha = size.mean(axis=axes, keepdims=True)
    if form == "paper":
        dw = alpha * (size < 1)
        dw += ONE / n
        dw *= g
    else:
        s = _signs(w)
        dw = alpha * (size <= 1) * g + s * ((g * s).sum(axis=axes, keepdims=True) / n)
    return dw * np.float32((1 - 1 / w.shape[-1]) * n) if released_scale else dw
