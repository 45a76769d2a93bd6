"""The array functions of bitops in plain NumPy: readable specification and oracle of the tests.

Encoding: a bit 1 means +1 (x >= 0, so also 0.0 and -0.0), a bit 0 means -1; NaN has no sign.
Element i of the packed axis is bit ``i % 64`` of word ``i // 64``, and padding bits are 0.
Two sign vectors of k elements differ in h places, and their product is

    dot = (k - h) - h = k - 2 * popcount(a ^ w),

where XOR also clears the padding bits, which are equal in both operands.

The functions have the names and the meaning of the public ones, but take plain arrays of real
numbers (packed by sign) and return plain arrays: packed words for `pack`, +-1 values in int8
wherever the public function returns a `BitArray`. Speed is no aim here, and neither is the checking
of arguments.
"""

import math
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from .ops.geometry import Window, make_window

__all__ = [
    "avg_pool2d",
    "binarize_weights",
    "bitplane_conv2d",
    "bitplane_gemm",
    "conv2d",
    "conv2d_sign",
    "gemm",
    "gemm_sign",
    "global_avg_pool",
    "hamming",
    "hamming_topk",
    "im2col",
    "k_map",
    "matmul",
    "max_pool2d",
    "pack",
    "popcount",
    "sign",
    "unpack",
    "weight_conv2d",
    "weight_gemm",
]

WORD_BITS = 64
WORD_BYTES = WORD_BITS // 8


def sign(x: ArrayLike, dtype: DTypeLike = np.int8) -> NDArray[Any]:
    """Return the sign of every element, never 0.

    Parameters
    ----------
    x : array_like, bool or real
        A bool array already holds bits: True is +1 and False is -1.
    dtype : dtype, default=np.int8
        Type of the result.

    Returns
    -------
    ndarray of the shape of x
        +1 where x >= 0 (0.0 and -0.0 included), else -1.

    Raises
    ------
    ValueError
        If x has a NaN.
    """
    x = np.asarray(x)
    if np.isnan(x).any():
        raise ValueError(f"[sign] x must not hold NaN, got {np.isnan(x).sum()} of them")
    positive = x if x.dtype == np.bool_ else x >= 0
    return np.where(positive, 1, -1).astype(dtype)


def pack(x: ArrayLike, axis: int = -1) -> NDArray[np.uint64]:
    """Pack the signs of x into 64-bit words.

    Parameters
    ----------
    x : array_like, bool or real
        At least 1-D, without NaN.
    axis : int, default=-1
        Axis of k elements to pack. It is the last one of the result.

    Returns
    -------
    ndarray of shape (..., ceil(k / 64)), uint64
        The other axes of x in order, then the words; padding bits are 0.
    """
    positive = np.moveaxis(sign(x), axis, -1) > 0
    k = positive.shape[-1]
    k_words = -(-k // WORD_BITS)
    octets = np.zeros((*positive.shape[:-1], k_words * WORD_BYTES), np.uint8)
    octets[..., : -(-k // 8)] = np.packbits(positive, axis=-1, bitorder="little")
    # The byte order of the words is little-endian as well; astype makes them native.
    return octets.view("<u8").astype(np.uint64)


def unpack(words: ArrayLike, k: int, axis: int = -1, dtype: DTypeLike = np.int8) -> NDArray[Any]:
    """Return the signs that `pack` has put into words.

    Parameters
    ----------
    words : array_like of shape (..., ceil(k / 64)), uint64
        The result of `pack`.
    k : int
        Number of elements of the packed axis.
    axis : int, default=-1
        Where the packed axis goes in the result.
    dtype : dtype, default=np.int8
        Type of the result; bool gives True for +1.

    Returns
    -------
    ndarray, dtype
        +1 and -1.
    """
    octets = np.ascontiguousarray(words, "<u8").view(np.uint8)
    bits = np.unpackbits(octets, axis=-1, count=k, bitorder="little").astype(np.bool_)
    values = bits if np.dtype(dtype) == np.bool_ else sign(bits, dtype)
    return np.moveaxis(values, -1, axis)


def popcount(x: ArrayLike, axis: int | None = None) -> Any:
    """Count the +1 elements of x, over all axes or over one.

    Parameters
    ----------
    x : array_like, bool or real
        Values without NaN.
    axis : int or None, default=None
        Axis to count along; None counts over all of them.

    Returns
    -------
    int, or ndarray of int64 when an axis is given
    """
    count = np.sum(sign(x) > 0, axis=axis, dtype=np.int64)
    return int(count) if axis is None else np.asarray(count)


def matmul(a: ArrayLike, b: ArrayLike) -> NDArray[np.int32]:
    """Return ``sign(a) @ sign(b)`` with the meaning of `numpy.matmul`.

    Parameters
    ----------
    a, b : array_like, bool or real
        1-D operands and broadcasting of leading axes as in `numpy.matmul`.

    Returns
    -------
    ndarray or scalar, int32
    """
    # Sums of fewer than 2**53 units are exact in float64, where BLAS makes the oracle quick.
    return np.matmul(sign(a, np.float64), sign(b, np.float64)).astype(np.int32)


def gemm(
    a: ArrayLike,
    w: ArrayLike,
    *,
    alpha: ArrayLike | None = None,
    k_map: ArrayLike | None = None,
    bias: ArrayLike | None = None,
) -> NDArray[Any]:
    """Product of the signs of all rows of a with all rows of w, optionally scaled.

    Parameters
    ----------
    a : array_like of shape (..., m, k), bool or real
    w : array_like of shape (..., n, k), bool or real
        The leading axes of both broadcast.
    alpha : None, float or array_like of shape (n,)
        Scale of every row of w (XNOR-Net alpha).
    k_map : None, float or array_like of shape (..., m)
        Scale of every row of a (XNOR-Net K).
    bias : None, float or array_like of shape (n,)
        Added last.

    Returns
    -------
    ndarray of shape (..., m, n)
        int32, or float32 if any of alpha, k_map and bias is given.

    Notes
    -----
    ``C[i, j] = (dot(a[i], w[j]) * alpha[j]) * k_map[i] + bias[j]``, each step rounded to float32.
    """
    return _scaled(matmul(a, np.swapaxes(sign(w), -1, -2)), alpha, k_map, bias)


def _scaled(
    dot: NDArray[np.int32],
    alpha: ArrayLike | None,
    k_map: ArrayLike | None,
    bias: ArrayLike | None,
) -> NDArray[Any]:
    if alpha is None and k_map is None and bias is None:
        return dot
    t = dot.astype(np.float32)
    if alpha is not None:
        t *= np.asarray(alpha, np.float32)
    if k_map is not None:
        t *= np.asarray(k_map, np.float32)[..., np.newaxis]
    if bias is not None:
        t += np.asarray(bias, np.float32)
    return t


def gemm_sign(
    a: ArrayLike, w: ArrayLike, threshold: ArrayLike, *, flip: ArrayLike | None = None
) -> NDArray[np.int8]:
    """Compare the products of all rows of a and w with thresholds.

    Parameters
    ----------
    a : array_like of shape (..., m, k), bool or real
    w : array_like of shape (..., n, k), bool or real
    threshold : int or array_like of shape (n,), integer
    flip : None, bool or array_like of shape (n,), bool
        Where to turn the result around.

    Returns
    -------
    ndarray of shape (..., m, n), int8
        +1 where ``(dot > threshold) ^ flip``, else -1.
    """
    above = gemm(a, w) > np.asarray(threshold)
    return sign(above if flip is None else above ^ np.asarray(flip, np.bool_))


def hamming(a: ArrayLike, b: ArrayLike, *, dtype: DTypeLike = np.int32) -> NDArray[Any]:
    """Count the elements in which every row of a differs from every row of b.

    Parameters
    ----------
    a : array_like of shape (..., m, k), bool or real
    b : array_like of shape (..., n, k), bool or real
        The leading axes of both broadcast.
    dtype : dtype, default=np.int32
        int32 or uint16.

    Returns
    -------
    ndarray of shape (..., m, n), dtype
    """
    mismatch = pack(a)[..., :, np.newaxis, :] ^ pack(b)[..., np.newaxis, :, :]
    return np.bitwise_count(mismatch).sum(axis=-1, dtype=dtype)


def hamming_topk(
    a: ArrayLike, w: ArrayLike, count: int
) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """Find the rows of w that differ least from every row of a, equal ones by index.

    Parameters
    ----------
    a : array_like of shape (m, k), bool or real
    w : array_like of shape (n, k), bool or real
    count : int
        Rows to find for each row of a, at most n.

    Returns
    -------
    distances : ndarray of shape (m, count), int32
    indices : ndarray of shape (m, count), int64
    """
    distances = hamming(a, w)
    indices = np.argsort(distances, axis=-1, kind="stable")[:, :count].astype(np.int64)
    return np.take_along_axis(distances, indices, axis=-1), indices


def weight_gemm(
    x: ArrayLike,
    w: ArrayLike,
    *,
    alpha: ArrayLike | None = None,
    bias: ArrayLike | None = None,
) -> NDArray[np.float32]:
    """Product of real numbers with the signs of all rows of w, in a fixed order of summation.

    Parameters
    ----------
    x : array_like of shape (..., m, k), real
        Used as float32.
    w : array_like of shape (n, k), bool or real
    alpha, bias : None, float or array_like of shape (n,)
        Scale of every row of w, and what is added last.

    Returns
    -------
    ndarray of shape (..., m, n), float32

    Notes
    -----
    Every step is rounded to float32: ``((+-x0 +-x1) +-x2) +-x3`` for each four elements of k, with
    zeros behind the last, and the sums of fours one after the other, beginning with 0.
    """
    x, signs = np.asarray(x, np.float32), sign(w, np.float32)
    k = x.shape[-1]
    padding = [(0, 0)] * (x.ndim - 1) + [(0, -k % 4)]
    x = np.pad(x, padding)
    signs = np.pad(signs, [(0, 0), (0, -k % 4)], constant_values=-1)
    t = np.zeros((*x.shape[:-1], len(signs)), np.float32)
    for first in range(0, k, 4):
        terms = [x[..., i, np.newaxis] * signs[:, i] for i in range(first, first + 4)]
        t += ((terms[0] + terms[1]) + terms[2]) + terms[3]
    return _scale(t, alpha, bias)


def bitplane_gemm(
    x: ArrayLike,
    w: ArrayLike,
    *,
    bits: int = 8,
    alpha: ArrayLike | None = None,
    bias: ArrayLike | None = None,
) -> NDArray[Any]:
    """Product of small unsigned integers with the signs of all rows of w, plane by plane.

    Parameters
    ----------
    x : array_like of shape (..., m, k), uint8
        Numbers below ``2**bits``.
    w : array_like of shape (n, k), bool or real
    bits : int, default=8
    alpha, bias : None, float or array_like of shape (n,)
        Scale of every row of w, and what is added last.

    Returns
    -------
    ndarray of shape (..., m, n)
        int32, or float32 if alpha or bias is given.

    References
    ----------
    Courbariaux, Hubara et al., Binarized Neural Networks, 2016, equation 8.
    """
    x, signs = np.asarray(x), sign(w, np.float64)
    planes = (2.0**bit * np.matmul(x >> bit & 1, signs.T) for bit in range(bits))
    dot = sum(planes, np.zeros(())).astype(np.int32)
    return dot if alpha is None and bias is None else _scale(dot.astype(np.float32), alpha, bias)


def _scale(
    t: NDArray[np.float32], alpha: ArrayLike | None, bias: ArrayLike | None
) -> NDArray[np.float32]:
    if alpha is not None:
        t *= np.asarray(alpha, np.float32)
    if bias is not None:
        t += np.asarray(bias, np.float32)
    return t


def binarize_weights(w: ArrayLike) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Replace real filters by signs and one scale a filter.

    Parameters
    ----------
    w : array_like of shape (n, ...), real
        n filters.

    Returns
    -------
    signs : ndarray of the shape of w, int8
    alpha : ndarray of shape (n,), float32
        Mean absolute weight of every filter, summed in float64.

    Notes
    -----
    ``alpha * sign(w)`` minimises the squared error: its derivative in alpha vanishes at
    ``alpha = ||w||_1 / size``.

    References
    ----------
    Rastegari et al., XNOR-Net: ImageNet Classification Using Binary Convolutional Neural
    Networks, ECCV 2016, equations 4 to 6.
    """
    w = np.asarray(w)
    magnitudes = np.abs(w, dtype=np.float64)
    alpha = magnitudes.sum(axis=tuple(range(1, w.ndim))) / max(math.prod(w.shape[1:]), 1)
    return sign(w), alpha.astype(np.float32)


# ---- convolution and pooling ---------------------------------------------------------------------


def _windows(x: NDArray[Any], window: Window, outside: float) -> NDArray[Any]:
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
    seen = _windows(x, window, pad_value)
    return seen.reshape(len(x), *window.output, window.taps * x.shape[-1])


def _groups(
    x: NDArray[Any], filters: int, window: Window, groups: int, outside: float
) -> list[tuple[NDArray[Any], slice]]:
    """For every group, the rows (n, oh, ow, kh * kw * c / groups) and its filters."""
    seen = _windows(x, window, outside)
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
    return _scaled(dot, alpha, k_map, bias)


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
    return _scale(t, alpha, bias)


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
    return dot if alpha is None and bias is None else _scale(dot.astype(np.float32), alpha, bias)


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
    return _mean_of_taps(_windows(a, window, 0))[..., 0]


def _mean_of_taps(seen: NDArray[np.float32]) -> NDArray[np.float32]:
    """The mean over the window, taps added from first to last."""
    n, oh, ow, kh, kw, c = seen.shape
    total = np.zeros((n, oh, ow, c), np.float32)
    for tap in np.moveaxis(seen.reshape(n, oh, ow, kh * kw, c), 3, 0):
        total += tap
    return total / np.float32(kh * kw)


def max_pool2d(x: ArrayLike, size: Any, *, stride: Any = None, padding: Any = 0) -> NDArray[Any]:
    """Take the largest value of every window; positions outside the image do not count.

    Parameters
    ----------
    x : array_like of shape (n, h, w, c), real
        +-1 values where the public function takes a BitArray.
    size, stride, padding
        As in `bitops.max_pool2d`.

    Returns
    -------
    ndarray of shape (n, oh, ow, c), of the dtype of x
    """
    x = np.asarray(x)
    window = make_window(
        "max_pool2d", x.shape[1:3], size, size if stride is None else stride, padding
    )
    least = -np.inf if x.dtype.kind == "f" else np.iinfo(x.dtype).min
    return _windows(x, window, least).max(axis=(3, 4))


def avg_pool2d(
    x: ArrayLike, size: Any, *, stride: Any = None, padding: Any = 0
) -> NDArray[np.float32]:
    """Take the mean of every window; positions outside the image count as zeros.

    Parameters
    ----------
    x : array_like of shape (n, h, w, c), real
        Used as float32.
    size, stride, padding
        As in `bitops.avg_pool2d`.

    Returns
    -------
    ndarray of shape (n, oh, ow, c), float32
        Taps are added from first to last in float32, then divided by their number.
    """
    x = np.asarray(x, np.float32)
    window = make_window(
        "avg_pool2d", x.shape[1:3], size, size if stride is None else stride, padding
    )
    return _mean_of_taps(_windows(x, window, 0))


def global_avg_pool(x: ArrayLike) -> NDArray[np.float32]:
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
