"""Quantizers to two values: deterministic, annealed and stochastic signs, and bits of 0 and 1."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..ops.checks import check_number
from .base import (
    LARGEST,
    ONE,
    Array,
    Quantizer,
    check_clip,
    check_quantizer,
    filter_axes,
    pass_within,
    real_numbers,
    signs_of,
)


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
        check_clip("SteSign", self.clip_value)

    def forward(self, x: ArrayLike) -> Array:
        return signs_of(real_numbers("SteSign", x))

    def backward(self, x: ArrayLike, grad: ArrayLike) -> Array:
        return pass_within(x, grad, self.clip_value)


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
        check_clip("ApproxSign", self.clip_value, LARGEST)

    def forward(self, x: ArrayLike) -> Array:
        return signs_of(real_numbers("ApproxSign", x))

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
        return signs_of(real_numbers("SwishSign", x))

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
        check_clip("MagnitudeAwareSign", self.clip_value)

    def alpha(self, x: ArrayLike) -> Array:
        """Scale of each filter, with axes of length 1 behind, so that it broadcasts."""
        x = real_numbers("MagnitudeAwareSign", x)
        return np.abs(x).mean(axis=filter_axes("MagnitudeAwareSign", x), keepdims=True)

    def forward(self, x: ArrayLike) -> Array:
        return self.alpha(x) * signs_of(np.asarray(x, dtype=np.float32))

    def backward(self, x: ArrayLike, grad: ArrayLike) -> Array:
        return pass_within(x, grad, self.clip_value) * self.alpha(x)


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
        return signs_of(real_numbers("AnnealedSign", x))

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
        return np.clip(_sharpness(self) * real_numbers("ProgressiveSign", x), -1, 1)

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
        check_clip("StochasticSign", self.clip_value, LARGEST)
        object.__setattr__(self, "_rng", np.random.default_rng(self.seed))

    @property
    def generator(self) -> np.random.Generator:
        """Source of the random numbers, whose state a checkpoint keeps."""
        return self._rng

    def forward(self, x: ArrayLike) -> Array:
        x = real_numbers("StochasticSign", x)
        chance = (x / np.float32(self.clip_value) + 1) / 2
        draws = self._rng.random(x.shape, dtype=np.float32)  # in [0, 1): never below a chance of 0
        return np.where(draws < chance, ONE, -ONE)

    def backward(self, x: ArrayLike, grad: ArrayLike) -> Array:
        return pass_within(x, grad, self.clip_value)


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
        check_clip("Heaviside", self.clip_value)

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
        return (real_numbers("Heaviside", x) >= 0).astype(np.uint8)

    def forward(self, x: ArrayLike) -> Array:
        return self.codes(x).astype(np.float32)

    def backward(self, x: ArrayLike, grad: ArrayLike) -> Array:
        return pass_within(x, grad, self.clip_value)


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
    w = real_numbers(where, w)
    g = np.asarray(grad, dtype=np.float32)
    axes = filter_axes(where, w)
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
        s = signs_of(w)
        dw = alpha * (size <= 1) * g + s * ((g * s).sum(axis=axes, keepdims=True) / n)
    return dw * np.float32((1 - 1 / w.shape[-1]) * n) if released_scale else dw
