"""Scales that make binary products approximate real ones (XNOR-Net)."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .. import _core
from .array import BitArray, pack_operand
from .checks import as_float32, real_array
from .geometry import Padding, Pair, check_result, make_window
from .patches import number_images
from .results import Result

__all__ = ["binarize_weights", "k_map"]


def binarize_weights(w: ArrayLike) -> tuple[BitArray, NDArray[np.float32]]:
    """Find the best binary approximation of real filters, ``W ~= alpha B``.

    Parameters
    ----------
    w : array_like of real numbers, shape (n, ..., k)
        n filters, for example (n, k) for a dense layer or OHWI for a convolution.

    Returns
    -------
    b : BitArray of the shape of `w`, packed along the last axis
        sign(W), with sign(0) = +1.
    alpha : ndarray of shape (n,), float32
        Mean absolute weight of each filter, summed in float64; 0 for empty filters.

    Raises
    ------
    TypeError
        If `w` does not hold real numbers.
    ValueError
        If `w` has fewer than two axes or holds NaN.

    Notes
    -----
    For each filter W of n_w weights, ``B = sign(W)`` and ``alpha = ||W||_1 / n_w`` minimise
    ``||W - alpha B||^2``.

    References
    ----------
    M. Rastegari et al., "XNOR-Net", 2016, equations 4 and 6.

    Examples
    --------
    >>> signs, alpha = binarize_weights([[1.0, -3.0], [0.5, 0.5]])
    >>> np.asarray(signs), alpha
    (array([[ 1, -1],
           [ 1,  1]], dtype=int8), array([2. , 0.5], dtype=float32))
    """
    array = real_array("binarize_weights", "w", w)
    if array.ndim < 2:
        raise ValueError(f"[binarize_weights] w must have at least two axes, got {array.shape}")
    b = pack_operand("binarize_weights", "w", array, -1)
    n_weights = max(math.prod(array.shape[1:]), 1)
    with np.errstate(all="ignore"):  # infinities are ordinary values
        alpha = _sum_magnitudes(array) / n_weights
    return b, as_float32(alpha)


def _sum_magnitudes(filters: NDArray[Any]) -> NDArray[np.float64]:
    """Sum the absolute weights of each filter in float64."""
    if filters.dtype == np.float32 and filters.flags.c_contiguous and filters.flags.aligned:
        sums = np.empty(len(filters), np.float64)
        _core.sum_magnitude(filters.reshape(len(filters), math.prod(filters.shape[1:])), sums)
        return sums
    # Convert first: abs() of the smallest integer overflows in an integer dtype.
    magnitudes = np.abs(filters.astype(np.float64))
    with np.errstate(all="ignore"):  # infinities are ordinary values
        return magnitudes.sum(axis=tuple(range(1, filters.ndim)))


def k_map(
    x: ArrayLike,
    kernel_size: int | Pair,
    *,
    stride: int | Pair = 1,
    padding: Padding = 0,
    dilation: int | Pair = 1,
    out: NDArray[np.float32] | None = None,
) -> NDArray[np.float32]:
    """Compute the scale K of each output position of a binarized convolution (XNOR-Net).

    Parameters
    ----------
    x : array_like of shape (n, h, w, c), integers or floats, used as float32
        Input of the convolution, before its signs are taken.
    kernel_size, stride, padding, dilation
        Those of the convolution, as in `conv2d`.
    out : ndarray of shape (n, oh, ow), float32, optional
        Where to put the result.

    Returns
    -------
    ndarray of shape (n, oh, ow), float32
        Pass it as `k_map` to `conv2d`.

    Raises
    ------
    TypeError
        If `x` is packed or does not hold integers or floats, a setting has a wrong type, or `out`
        is not an ndarray of float32.
    ValueError
        If `x` does not have four axes, a setting is too small, the kernel exceeds the padded image,
        or `out` has another shape or is read-only.

    Notes
    -----
    For an input I, A is the mean of abs(I) over the channels. K is the mean of A over the kh * kw
    positions that an output position sees, so that ``I * W ~= (sign(I) * sign(W)) K alpha``.
    Outside the image A is 0, whatever the `pad_value` of the convolution. The divisor is kh * kw at
    the border too. Infinities and NaN in `x` propagate as in float32 arithmetic.

    The order of summation is fixed. For A, channel i is added to partial sum ``i % 16``. The 16
    partial sums are added in pairs j and j + 8, then j and j + 4, j and j + 2, j and j + 1, and the
    total is divided by c. For K, the taps are added row by row, and the sum is divided by kh * kw.
    Each step is rounded to float32.

    References
    ----------
    M. Rastegari et al., "XNOR-Net", 2016, section 3.2 and equation 11.

    Examples
    --------
    The two channels have the means A = [3, 6, 9], and each window sees three positions:

    >>> k_map([[[[2, -4], [-6, 6], [0, 18]]]], (1, 3), padding=(0, 1))
    array([[[3., 6., 5.]]], dtype=float32)
    """
    images = number_images("k_map", x)
    window = make_window("k_map", images.shape[1:3], kernel_size, stride, padding, dilation)
    shape = len(images), *window.output
    check_result("k_map", shape)
    result = Result("k_map", shape, np.float32, out, images)
    values = np.ascontiguousarray(as_float32(images))
    means = np.empty((*values.shape[:3], 1), np.float32)
    _core.mean_magnitude(values.reshape(means.size, values.shape[3]), means.reshape(-1))
    _core.mean_windows(means, window, result.array.reshape(*shape, 1))
    return result.deliver()
