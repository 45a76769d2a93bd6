"""Convolutions of images, and the scale K of their outputs."""

import math
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..ops.geometry import Padding, Pair, Window, make_window
from .arrays import pack_above, sign
from .products import bitplane_gemm, scaled, scaled_dot, weight_gemm
from .windows import mean_of_taps, window_values


def im2col(
    x: ArrayLike,
    kernel_size: int | Pair,
    *,
    stride: int | Pair = 1,
    padding: Padding = 0,
    dilation: int | Pair = 1,
    pad_value: int = -1,
) -> NDArray[np.int8]:
    """Return the patches that the output positions of a convolution see, as rows.

    Parameters
    ----------
    x : array_like of shape (n, h, w, c), bool or real
    kernel_size, stride, padding, dilation
        As in `bitops.im2col`.
    pad_value : {-1, 1}
        Value of positions outside the image.

    Returns
    -------
    ndarray of shape (n, oh, ow, kh * kw * c), int8
    """
    x = sign(x)
    window = make_window("im2col", x.shape[1:3], kernel_size, stride, padding, dilation)
    seen = window_values(x, window, pad_value)
    return seen.reshape(len(x), *window.output, window.taps * x.shape[-1])


def _groups(
    x: NDArray[Any], filters: int, window: Window, groups: int, outside: float
) -> list[tuple[NDArray[Any], slice]]:
    """Return for each group its patches (n, oh, ow, kh * kw * c / groups) and its filters."""
    seen = window_values(x, window, outside)
    channels, count = x.shape[-1] // groups, filters // groups
    width = window.taps * channels
    return [
        (
            seen[..., g * channels : (g + 1) * channels].reshape(*seen.shape[:3], width),
            slice(g * count, (g + 1) * count),
        )
        for g in range(groups)
    ]


def _as_rows(w: NDArray[Any]) -> NDArray[Any]:
    """View filters as the rows of a matrix, even if there are none."""
    return w.reshape(len(w), math.prod(w.shape[1:]))


def conv2d(
    x: ArrayLike,
    w: ArrayLike,
    *,
    stride: int | Pair = 1,
    padding: Padding = 0,
    dilation: int | Pair = 1,
    groups: int = 1,
    pad_value: int = 0,
    alpha: ArrayLike | None = None,
    k_map: ArrayLike | None = None,
    bias: ArrayLike | None = None,
) -> NDArray[Any]:
    """Convolve the signs of images with the signs of filters, and scale the result.

    Parameters
    ----------
    x : array_like of shape (n, h, w, c), bool or real
    w : array_like of shape (o, kh, kw, c / groups), bool or real
    stride, padding, dilation
        As in `bitops.conv2d`.
    groups : int
        Number of groups into which channels and filters are split; each is convolved separately.
    pad_value : {0, -1, 1}
        Value of positions outside the image.
    alpha, bias : None, float or array_like of shape (o,)
    k_map : None, float or array_like of shape (n, oh, ow)

    Returns
    -------
    ndarray of shape (n, oh, ow, o)
        int32; float32, scaled as in `gemm`, if alpha, k_map or bias is given.
    """
    x, w = sign(x, np.float64), sign(w, np.float64)
    window = make_window("conv2d", x.shape[1:3], w.shape[1:3], stride, padding, dilation)
    dot = np.empty((len(x), *window.output, len(w)), np.int32)
    for rows, filters in _groups(x, len(w), window, groups, pad_value):
        dot[..., filters] = rows @ _as_rows(w[filters]).T
    return scaled_dot(dot, alpha, k_map, bias)


def conv2d_sign(
    x: ArrayLike,
    w: ArrayLike,
    threshold: ArrayLike,
    *,
    flip: ArrayLike | None = None,
    stride: int | Pair = 1,
    padding: Padding = 0,
    dilation: int | Pair = 1,
    groups: int = 1,
    pad_value: int = 0,
) -> NDArray[np.int8]:
    """Convolve the signs of images with those of filters, and compare the sums with thresholds.

    Parameters
    ----------
    x, w, stride, padding, dilation, groups, pad_value
        As in `conv2d`.
    threshold : int or array_like of shape (o,), integer
    flip : None, bool or array_like of shape (o,), bool

    Returns
    -------
    ndarray of shape (n, oh, ow, o), int8
        +1 where ``(dot > threshold) ^ flip``, else -1.
    """
    dot = conv2d(
        x,
        w,
        stride=stride,
        padding=padding,
        dilation=dilation,
        groups=groups,
        pad_value=pad_value,
    )
    return pack_above(dot, threshold, flip=flip)


def weight_conv2d(
    x: ArrayLike,
    w: ArrayLike,
    *,
    stride: int | Pair = 1,
    padding: Padding = 0,
    dilation: int | Pair = 1,
    groups: int = 1,
    alpha: ArrayLike | None = None,
    bias: ArrayLike | None = None,
) -> NDArray[np.float32]:
    """Convolve images of real numbers, 0 outside, with the signs of filters.

    Parameters
    ----------
    x : array_like of shape (n, h, w, c), real
        Used as float32.
    w : array_like of shape (o, kh, kw, c / groups), bool or real
    stride, padding, dilation, groups
        As in `conv2d`.
    alpha, bias : None, float or array_like of shape (o,)

    Returns
    -------
    ndarray of shape (n, oh, ow, o), float32
        Summed over (kh, kw, c / groups) in the order of `weight_gemm`.
    """
    x, w = np.asarray(x, np.float32), sign(w)
    window = make_window("weight_conv2d", x.shape[1:3], w.shape[1:3], stride, padding, dilation)
    t = np.empty((len(x), *window.output, len(w)), np.float32)
    for rows, filters in _groups(x, len(w), window, groups, 0):
        t[..., filters] = weight_gemm(rows, _as_rows(w[filters]))
    return scaled(t, alpha, bias)


def bitplane_conv2d(
    x: ArrayLike,
    w: ArrayLike,
    *,
    bits: int = 8,
    stride: int | Pair = 1,
    padding: Padding = 0,
    dilation: int | Pair = 1,
    groups: int = 1,
    alpha: ArrayLike | None = None,
    bias: ArrayLike | None = None,
) -> NDArray[Any]:
    """Convolve images of small unsigned integers, 0 outside, with the signs of filters.

    Parameters
    ----------
    x : array_like of shape (n, h, w, c), uint8
        Numbers below ``2**bits``.
    w : array_like of shape (o, kh, kw, c / groups), bool or real
    bits : int, default 8
    stride, padding, dilation, groups
        As in `conv2d`.
    alpha, bias : None, float or array_like of shape (o,)

    Returns
    -------
    ndarray of shape (n, oh, ow, o)
        int32; float32 if alpha or bias is given.
    """
    x, w = np.asarray(x), sign(w)
    window = make_window("bitplane_conv2d", x.shape[1:3], w.shape[1:3], stride, padding, dilation)
    dot = np.empty((len(x), *window.output, len(w)), np.int32)
    for rows, filters in _groups(x, len(w), window, groups, 0):
        dot[..., filters] = bitplane_gemm(rows, _as_rows(w[filters]), bits=bits)
    return dot if alpha is None and bias is None else scaled(dot.astype(np.float32), alpha, bias)


def k_map(
    x: ArrayLike,
    kernel_size: int | Pair,
    *,
    stride: int | Pair = 1,
    padding: Padding = 0,
    dilation: int | Pair = 1,
) -> NDArray[np.float32]:
    """Compute the scale K of each output position of a binarized convolution (XNOR-Net).

    Parameters
    ----------
    x : array_like of shape (n, h, w, c), real
        Used as float32.
    kernel_size, stride, padding, dilation
        Those of the convolution, as in `conv2d`.

    Returns
    -------
    ndarray of shape (n, oh, ow), float32

    Notes
    -----
    A is the mean of abs(x) over the channels, and K is the mean of A over the window, with A = 0
    outside the image. Each step is rounded to float32.

    For A, channel i is added to partial sum ``i % 16``. The 16 partial sums are added in pairs j
    and j + 8, then j and j + 4, j and j + 2, j and j + 1, and the total is divided by c. For K, the
    taps are added row by row, and the sum is divided by kh * kw.

    References
    ----------
    M. Rastegari et al., "XNOR-Net", 2016, section 3.2: K = A * k.
    """
    x = np.abs(np.asarray(x, np.float32))
    n, h, w, c = x.shape
    lanes = np.pad(x, ((0, 0), (0, 0), (0, 0), (0, -c % 16))).reshape(n, h, w, -(-c // 16), 16)
    sums = np.zeros((n, h, w, 16), np.float32)
    for i in range(lanes.shape[3]):
        sums += lanes[:, :, :, i]
    for half in (8, 4, 2, 1):
        sums = sums[..., :half] + sums[..., half:]
    a = sums / np.float32(max(c, 1))
    window = make_window("k_map", (h, w), kernel_size, stride, padding, dilation)
    return mean_of_taps(window_values(a, window, 0))[..., 0]
