"""Signs of weights, scaled by the mean magnitude of each filter, as in XNOR-Net."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from ..ops.checks import as_float32
from .base import (
    ONE,
    Array,
    check_clip,
    filter_axes,
    pass_within,
    real_numbers,
    signs_of,
)


@dataclass(frozen=True)
class MagnitudeAwareSign:
    """The sign of weights, scaled by the mean magnitude of each filter.

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
    Forward: q = alpha * sign(x), where alpha is the mean of abs(x) over a filter.
    Pseudo-gradient: dx = dq * alpha * (abs(x) <= clip_value).

    The pseudo-gradient treats alpha as a constant. `XnorSign` differentiates alpha too.

    References
    ----------
    Z. Liu et al., "Bi-Real Net", 2018 (magnitude-aware gradient).
    M. Rastegari et al., "XNOR-Net", 2016, equation 6 (alpha).

    Examples
    --------
    >>> MagnitudeAwareSign().forward(np.float32([[0.5, -1.5], [-1, -2]]))
    array([[ 1. , -1. ],
           [-1.5, -1.5]], dtype=float32)
    """

    clip_value: float = 1.0

    def __post_init__(self):
        check_clip("MagnitudeAwareSign", self.clip_value)

    def alpha(self, x: ArrayLike) -> Array:
        """Return the scale of each filter, of shape (n, 1, ..., 1), which broadcasts with x."""
        x = real_numbers("MagnitudeAwareSign", x)
        return np.abs(x).mean(axis=filter_axes("MagnitudeAwareSign", x), keepdims=True)

    def forward(self, x: ArrayLike) -> Array:
        return self.alpha(x) * signs_of(as_float32(x))

    def backward(self, x: ArrayLike, grad: ArrayLike) -> Array:
        return pass_within(x, grad, self.clip_value) * self.alpha(x)


@dataclass(frozen=True)
class XnorSign:
    """The sign of weights, scaled like `MagnitudeAwareSign`, with a gradient through the scale too.

    Parameters
    ----------
    form : {"paper", "chain"}
    released_scale : bool
        As in `xnor_weight_gradient`.

    Raises
    ------
    ValueError
        If `form` is unknown.

    Notes
    -----
    Forward: q = alpha * sign(x), where alpha is the mean of abs(x) over a filter.
    Pseudo-gradient: see `xnor_weight_gradient`.

    References
    ----------
    M. Rastegari et al., "XNOR-Net", 2016, section 3.1.

    Examples
    --------
    >>> XnorSign().forward(np.float32([[0.5, -1.5], [-1, -2]]))
    array([[ 1. , -1. ],
           [-1.5, -1.5]], dtype=float32)
    """

    form: Literal["paper", "chain"] = "paper"
    released_scale: bool = False

    def __post_init__(self):
        _check_form("XnorSign", self.form)

    def forward(self, x: ArrayLike) -> Array:
        return MagnitudeAwareSign().forward(x)

    def backward(self, x: ArrayLike, grad: ArrayLike) -> Array:
        return xnor_weight_gradient(x, grad, form=self.form, released_scale=self.released_scale)


def _check_form(where: str, form: str) -> None:
    """Check the name of a form of `xnor_weight_gradient`."""
    if form not in ("paper", "chain"):
        raise ValueError(f"[{where}] form must be 'paper' or 'chain', got {form!r}")


def xnor_weight_gradient(
    w: ArrayLike,
    grad: ArrayLike,
    *,
    form: Literal["paper", "chain"] = "paper",
    released_scale: bool = False,
) -> Array:
    """Return the gradient for real filters W, given that for their approximation alpha * sign(W).

    Parameters
    ----------
    w : array_like of shape (n, ..., channels)
        Filters along the first axis, input channels along the last.
    grad : array_like of the shape of `w`
        Gradient g with respect to alpha * sign(W).
    form : {"paper", "chain"}
        "paper" is the published formula, with which the published results were obtained. "chain" is
        the chain rule.
    released_scale : bool
        Whether to multiply by (1 - 1/channels) * n_w, as the authors' code does. This constant
        factor makes a difference with SGD, but not with Adam.

    Returns
    -------
    ndarray of the shape of `w`, float32

    Raises
    ------
    TypeError
        If `w` does not hold real numbers.
    ValueError
        If the shapes do not fit, `form` is unknown, or `w` holds NaN.

    Notes
    -----
    Take one filter of n_w weights. Let s_i = sign(W_i), alpha = sum_j abs(W_j) / n_w, and
    V_i = alpha s_i. The straight-through estimator takes ds_i/dW_i as 1{abs(W_i) <= 1}. Since
    d abs(W_i)/dW_i = s_i, also d alpha/dW_i = s_i / n_w. Therefore

        dV_j/dW_i = alpha 1{abs(W_i) <= 1} [i = j] + s_j s_i / n_w.

    The sum over j of g_j dV_j/dW_i is the form "chain"::

        dW_i = alpha 1{abs(W_i) <= 1} g_i + s_i / n_w * sum_j g_j s_j.

    The form "paper" keeps only j = i in the second term, where s_i s_i = 1. Its inequality is
    strict, as in the authors' code::

        dW_i = g_i (alpha 1{abs(W_i) < 1} + 1 / n_w).

    Before each step, the authors' code also subtracts from W its mean over the input channels. The
    factor 1 - 1/channels is the diagonal of the derivative of that.

    References
    ----------
    M. Rastegari et al., "XNOR-Net", 2016, section 3.1, and the authors' code (form "paper").

    Examples
    --------
    >>> xnor_weight_gradient(np.float32([[0.5, -1.5]]), np.float32([[1, 0]]))
    array([[1.5, 0. ]], dtype=float32)
    """
    where = "xnor_weight_gradient"
    _check_form(where, form)
    w = real_numbers(where, w)
    g = as_float32(grad)
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
