"""Convolutions and pools of images."""

import math
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..ops.geometry import Window, make_window
from .arrays import sign
from .products import bitplane_gemm, scaled, scaled_dot, weight_gemm


def windows(x: NDArray[Any], window: Window, outside: float) -> NDArray[Any]:
    """What every output position sees: (n, h, w, c) to (n, oh, ow, kh, kw, c), tap by tap."""
    x = np.pad(x, ((0, 0), *window.padding, (0, 0)), constant_values=outside)
    (oh, ow), (kh, kw), (sy, sx), (dy, dx) = (
        window.output,
        window.kernel,
        window.stride,
        window.dilation,
    )
    seen = np.empty((len(x), oh, ow, kh, kw, x.shape[-1]), x.dtype)
    for ky in range(kh):
        for kx in range(kw):
            rows = slice(ky * dy, ky * dy + (oh - 1) * sy + 1, sy)
            columns = slice(kx * dx, kx * dx + (ow - 1) * sx + 1, sx)
            seen[:, :, :, ky, kx] = x[:, rows, columns]
    return seen


def im2col(
    x: ArrayLike,
    kernel_size: Any,
    *,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    pad_value: int = -1,
) -> NDArray[np.int8]:
    """Lay out what every output position of a convolution sees as one row.

    Parameters
    ----------
    x : array_like of shape (n, h, w, c), bool or real
    kernel_size, stride, padding, dilation
        As in `bitops.im2col`.
    pad_value : {-1, 1}
        Value of the positions outside.

    Returns
    -------
    ndarray of shape (n, oh, ow, kh * kw * c), int8
    """
    x = sign(x)
    window = make_window("im2col", x.shape[1:3], kernel_size, stride, padding, dilation)
    seen = windows(x, window, pad_value)
    return seen.reshape(len(x), *window.output, window.taps * x.shape[-1])


def _groups(
    x: NDArray[Any], filters: int, window: Window, groups: int, outside: float
) -> list[tuple[NDArray[Any], slice]]:
    """For every group, the rows (n, oh, ow, kh * kw * c / groups) and its filters."""
    seen = windows(x, window, outside)
    share, per = x.shape[-1] // groups, filters // groups
    return [
        (
            seen[..., g * share : (g + 1) * share].reshape(*seen.shape[:3], window.taps * share),
            slice(g * per, (g + 1) * per),
        )
        for g in range(groups)
    ]


def _as_rows(w: NDArray[Any]) -> NDArray[Any]:
    """Filters as a matrix, a row for each; there may be none."""
    return w.reshape(len(w), math.prod(w.shape[1:]))


def conv2d(
    x: ArrayLike,
    w: ArrayLike,
    *,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
    pad_value: int = 0,
    alpha: ArrayLike | None = None,
    k_map: ArrayLike | None = None,
    bias: ArrayLike | None = None,
) -> NDArray[Any]:
    """Convolve the signs of images with the signs of filters, optionally scaled.

    Parameters
    ----------
    x : array_like of shape (n, h, w, c), bool or real
    w : array_like of shape (o, kh, kw, c / groups), bool or real
    stride, padding, dilation
        As in `bitops.conv2d`.
    groups : int
        The channels and the filters are cut into as many parts, part by part convolved.
    pad_value : {0, -1, 1}
        Value of the positions outside the image.
    alpha, bias : None, float or array_like of shape (o,)
    k_map : None, float or array_like of shape (n, oh, ow)

    Returns
    -------
    ndarray of shape (n, oh, ow, o)
        int32, or float32 if any of alpha, k_map and bias is given; scaled as in `gemm`.
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
    **settings: Any,
) -> NDArray[np.int8]:
    """Compare the convolution of signs with thresholds.

    Parameters
    ----------
    x, w, **settings
        As in `conv2d`; no scales.
    threshold : int or array_like of shape (o,), integer
    flip : None, bool or array_like of shape (o,), bool

    Returns
    -------
    ndarray of shape (n, oh, ow, o), int8
        +1 where ``(dot > threshold) ^ flip``, else -1.
    """
    above = conv2d(x, w, **settings) > np.asarray(threshold)
    return sign(above if flip is None else above ^ np.asarray(flip, np.bool_))


def weight_conv2d(
    x: ArrayLike,
    w: ArrayLike,
    *,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
    alpha: ArrayLike | None = None,
    bias: ArrayLike | None = None,
) -> NDArray[np.float32]:
    """Convolve real images, zero outside, with the signs of filters.

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
        Summed in the order of `weight_gemm` along (kh, kw, c / groups).
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
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
    alpha: ArrayLike | None = None,
    bias: ArrayLike | None = None,
) -> NDArray[Any]:
    """Convolve images of small unsigned integers, zero outside, with the signs of filters.

    Parameters
    ----------
    x : array_like of shape (n, h, w, c), uint8
        Numbers below ``2**bits``.
    w : array_like of shape (o, kh, kw, c / groups), bool or real
    bits : int, default=8
    stride, padding, dilation, groups
        As in `conv2d`.
    alpha, bias : None, float or array_like of shape (o,)

    Returns
    -------
    ndarray of shape (n, oh, ow, o)
        int32, or float32 if alpha or bias is given.
    """
    x, w = np.asarray(x), sign(w)
    window = make_window("bitplane_conv2d", x.shape[1:3], w.shape[1:3], stride, padding, dilation)
    dot = np.empty((len(x), *window.output, len(w)), np.int32)
    for rows, filters in _groups(x, len(w), window, groups, 0):
        dot[..., filters] = bitplane_gemm(rows, _as_rows(w[filters]), bits=bits)
    return dot if alpha is None and bias is None else scaled(dot.astype(np.float32), alpha, bias)


def k_map(
    x: ArrayLike, kernel_size: Any, *, stride: Any = 1, padding: Any = 0, dilation: Any = 1
) -> NDArray[np.float32]:
    """Scale of every output position of a binarized convolution (XNOR-Net K).

    Parameters
    ----------
    x : array_like of shape (n, h, w, c), real
        Used as float32.
    kernel_size, stride, padding, dilation
        Those of the convolution.

    Returns
    -------
    ndarray of shape (n, oh, ow), float32

    Notes
    -----
    A is the mean of abs(x) over the channels, and K the mean of A over the window, with A = 0
    outside the image. Every step is rounded to float32. A: channel i is added to sum i % 16, the
    sums j and j + 8, then j + 4, j + 2, j + 1 are added, and the result is divided by c. K: the
    taps are added from first to last, row by row, and the result is divided by kh * kw.

    References
    ----------
    Rastegari et al., XNOR-Net, 2016, section 3.2: K = A * k.
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
    return _mean_of_taps(windows(a, window, 0))[..., 0]


def _mean_of_taps(seen: NDArray[np.float32]) -> NDArray[np.float32]:
    """The mean over the window, taps added from first to last."""
    n, oh, ow, kh, kw, c = seen.shape
    total = np.zeros((n, oh, ow, c), np.float32)
    for tap in np.moveaxis(seen.reshape(n, oh, ow, kh * kw, c), 3, 0):
        total += tap
    return total / np.float32(kh * kw)


def max_pool2d(
    x: ArrayLike, kernel_size: Any, *, stride: Any = None, padding: Any = 0
) -> NDArray[Any]:
    """Take the largest value of every window; positions outside the image do not count.

    Parameters
    ----------
    x : array_like of shape (n, h, w, c), real
        +-1 values where the public function takes a BitArray.
    kernel_size, stride, padding
        As in `bitops.max_pool2d`.

    Returns
    -------
    ndarray of shape (n, oh, ow, c), of the dtype of x
    """
    x = np.asarray(x)
    window = make_window(
        "max_pool2d", x.shape[1:3], kernel_size, kernel_size if stride is None else stride, padding
    )
    least = -np.inf if x.dtype.kind == "f" else np.iinfo(x.dtype).min
    return windows(x, window, least).max(axis=(3, 4))


def avg_pool2d(
    x: ArrayLike, kernel_size: Any, *, stride: Any = None, padding: Any = 0
) -> NDArray[np.float32]:
    """Take the mean of every window; positions outside the image count as zeros.

    Parameters
    ----------
    x : array_like of shape (n, h, w, c), real
        Used as float32.
    kernel_size, stride, padding
        As in `bitops.avg_pool2d`.

    Returns
    -------
    ndarray of shape (n, oh, ow, c), float32
        Taps are added from first to last in float32, then divided by their number.
    """
    x = np.asarray(x, np.float32)
    window = make_window(
        "avg_pool2d", x.shape[1:3], kernel_size, kernel_size if stride is None else stride, padding
    )
    return _mean_of_taps(windows(x, window, 0))


def global_avg_pool2d(x: ArrayLike) -> NDArray[np.float32]:
    """Take the mean of every channel of every image.

    Parameters
    ----------
    x : array_like of shape (n, h, w, c), real

    Returns
    -------
    ndarray of shape (n, c), float32
        Summed in float64.
    """
    return np.asarray(np.mean(np.asarray(x), axis=(1, 2), dtype=np.float64), np.float32)
