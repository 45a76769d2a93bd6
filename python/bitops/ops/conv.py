"""Convolution of packed images with packed filters: im2col, conv2d, conv2d_sign.

A convolution is the product of the im2col matrix of its images with its filters. Each row of that
matrix is the patch that one output position sees. `conv2d` computes the product without building
the matrix.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .. import _core
from .array import BitArray, flip_words, pack, pack_operand, unpack
from .checks import check_integer, is_integer, plain_array
from .geometry import Padding, Pair, Window, check_result, make_window
from .memory import MAX_BITS, aligned_empty, word_count
from .prepack import Prepacked, filter_rows
from .results import NO_SCALES, Result, as_matrix, int32_thresholds, scales_of

__all__ = ["conv2d", "conv2d_sign", "im2col"]


def im2col(
    x: ArrayLike | BitArray,
    kernel_size: int | Pair,
    *,
    stride: int | Pair = 1,
    padding: Padding = 0,
    dilation: int | Pair = 1,
    pad_value: int = -1,
) -> BitArray:
    """Return the patches that the output positions of a convolution see, as rows of bits.

    Parameters
    ----------
    x : BitArray of shape (n, h, w, c), packed along c; or array_like, packed by sign on the fly
    kernel_size : int or (kh, kw)
    stride, dilation : int or (height, width), at least 1
    padding : int, (height, width), ((top, bottom), (left, right)), "same" or "valid"
        As in `conv2d`.
    pad_value : {-1, 1}
        Value of positions outside the image. A bit cannot be 0.

    Returns
    -------
    BitArray of shape (n, oh, ow, kh * kw * c), packed along the last axis
        Each row holds the channels of the first tap, then those of the next. Taps are ordered row
        by row of the kernel.

    Raises
    ------
    TypeError
        If `x` does not hold real numbers, or a setting has a wrong type.
    ValueError
        If a shape or a setting does not fit, or `x` holds NaN.

    Examples
    --------
    >>> import numpy as np
    >>> image = np.array([[[1], [-1]], [[-1], [1]]])[None]
    >>> np.asarray(im2col(image, 2))
    array([[[[ 1, -1, -1,  1]]]], dtype=int8)
    """
    if not is_integer(pad_value) or pad_value not in (-1, 1):
        raise ValueError(f"[im2col] pad_value must be -1 or 1, got {pad_value!r}")
    bits = image_bits("im2col", x)
    n, h, w, channels = bits.shape
    window = make_window("im2col", (h, w), kernel_size, stride, padding, dilation)
    shape = (n, *window.output, window.taps * channels)
    check_result("im2col", shape)
    words = aligned_empty((*shape[:-1], word_count(shape[-1])), np.uint64)
    images = np.ascontiguousarray(bits._words)
    _core.im2col(images, window, channels, pad_value == 1, as_matrix(words))
    return BitArray._make(words, shape, 3)


def image_bits(where: str, x: ArrayLike | BitArray) -> BitArray:
    """Check images, and return them packed along their channels."""
    if isinstance(x, Prepacked):
        raise TypeError(f"[{where}] x must be an array, got Prepacked")
    return _along_channels(where, "x", "n, h, w, c", x)


def filter_bits(where: str, w: ArrayLike | BitArray | Prepacked) -> BitArray:
    """Check filters, and return them packed along their channels."""
    bits = w.bits if isinstance(w, Prepacked) else w
    bits = _along_channels(where, "w", "o, kh, kw, i", bits)
    if 0 in bits.shape[1:3]:
        raise ValueError(f"[{where}] kh and kw must be at least 1, got shape {bits.shape}")
    return bits


def _along_channels(where: str, name: str, axes: str, x: ArrayLike | BitArray) -> BitArray:
    """Check an operand with four axes, and return it packed along the last one."""
    shape = x.shape if isinstance(x, BitArray) else plain_array(where, name, x).shape
    if len(shape) != 4:
        raise ValueError(f"[{where}] {name} must have shape ({axes}), got {shape}")
    bits = x if isinstance(x, BitArray) else pack_operand(where, name, x, -1)
    if bits.axis != 3:
        raise ValueError(
            f"[{where}] {name} must be packed along its channels, axis 3, got packed axis "
            f"{bits.axis} of shape {bits.shape}"
        )
    return bits


def check_groups(where: str, channels: int, filters: tuple[int, ...], groups: Any) -> int:
    """Check that channels of images and filters (o, kh, kw, i) fit each other in groups."""
    groups = check_integer(where, "groups", groups, 1)
    if channels % groups or filters[0] % groups:
        raise ValueError(
            f"[{where}] channels and filters must be divisible by groups, "
            f"got {channels}, {filters[0]} and {groups}"
        )
    if filters[3] * groups != channels:
        raise ValueError(
            f"[{where}] filters must have channels / groups = {channels // groups} channels, "
            f"got {filters[3]}"
        )
    return groups


def _image_operands(
    where: str,
    x: ArrayLike | BitArray,
    w: ArrayLike | BitArray | Prepacked,
    *settings: Any,
) -> tuple[NDArray[np.uint64], NDArray[np.uint64] | None, _core.Convolution, tuple[int, ...]]:
    """Check images, filters and settings (those of `_convolution`) against each other.

    Returns
    -------
    images : ndarray of shape (n, h, w, words), uint64
    filters : ndarray, uint64, or None
        Words of the filters, to be compared with the memory of `out`. None for prepacked filters,
        which never share memory with it.
    convolution : Convolution
    shape : tuple of int
        Shape (n, oh, ow, o) of the result.
    """
    bits = image_bits(where, x)
    image = bits.shape[1:]
    if isinstance(w, Prepacked):
        convolution, output = prepared_convolution(where, image, w, *settings)
        filters = None
    else:
        filter_array = filter_bits(where, w)
        convolution, output = _convolution(where, image, filter_array, *settings)
        filters = filter_array._words
    shape = (bits.shape[0], *output)
    check_result(where, shape)
    images = bits._words
    if not images.flags.c_contiguous:
        images = np.ascontiguousarray(images)
    return images, filters, convolution, shape


def prepared_convolution(
    where: str, image: tuple[int, ...], w: Prepacked, *settings: Any
) -> tuple[_core.Convolution, tuple[int, ...]]:
    """Return what `_convolution` returns, made once for prepacked filters and usual settings."""
    arguments = where, image, w, *settings
    if not _core.is_plain(settings):
        return _convolution(*arguments)
    # These checks take longer than a small convolution, and networks repeat their settings.
    return w.derived((where, image, settings), _convolution, *arguments)


def _convolution(
    where: str,
    image: tuple[int, ...],
    w: Prepacked | BitArray,
    stride: Any,
    padding: Any,
    dilation: Any,
    groups: Any,
    pad_value: Any,
) -> tuple[_core.Convolution, tuple[int, ...]]:
    """Check an image shape (h, w, c), filters and settings against each other.

    Returns
    -------
    convolution : Convolution
    output : tuple of int
        Shape (oh, ow, o) of the result for one image.
    """
    filters = filter_bits(where, w)
    settings = where, image, filters.shape, stride, padding, dilation, groups, pad_value
    window, groups = (_known_settings if _core.is_plain(settings) else _check_settings)(*settings)
    o, _, _, channels = filters.shape
    operand: Any
    if _core.is_depthwise(channels, groups, o):
        operand = _depthwise_words(filters, groups)
    elif isinstance(w, Prepacked):
        operand = w.panels(groups)
    else:
        operand = filter_rows(filters)
    tap_sums = None
    if pad_value == 0 and window.is_padded:
        # Kernels see bits outside the image too; these sums cancel what such bits add.
        tap_sums = np.empty((window.taps, o), np.int32)
        _core.sum_taps(np.ascontiguousarray(filters._words), channels, tap_sums)
    convolution = _core.Convolution(window, channels, groups, o, operand, tap_sums, pad_value == 1)
    return convolution, (*window.output, o)


def _check_settings(
    where: str,
    image: tuple[int, ...],
    filters: tuple[int, ...],
    stride: Any,
    padding: Any,
    dilation: Any,
    groups: Any,
    pad_value: Any,
) -> tuple[Window, int]:
    """Check shapes (h, w, c) and (o, kh, kw, i) and settings; return windows and groups."""
    if not is_integer(pad_value) or pad_value not in (-1, 0, 1):
        raise ValueError(f"[{where}] pad_value must be -1, 0 or 1, got {pad_value!r}")
    groups = check_groups(where, image[2], filters, groups)
    o, kh, kw, channels = filters
    window = make_window(where, (image[0], image[1]), (kh, kw), stride, padding, dilation)
    if window.taps * channels > MAX_BITS:
        raise ValueError(
            f"[{where}] filters must have at most {MAX_BITS} bits, got {window.taps * channels}"
        )
    # Check one image before tables are built, since they grow with the output.
    check_result(where, (*window.output, o))
    return window, groups


_known_settings = functools.lru_cache(maxsize=256)(_check_settings)  # as those of make_window


def _depthwise_words(filters: BitArray, groups: int) -> NDArray[np.uint64]:
    """Pack filters (o, kh, kw, 1) across their groups.

    Bit g of row (j, tap) is the weight of filter j of group g, so that a word multiplies the same
    tap of 64 channels.
    """
    o, kh, kw, _ = filters.shape
    values = unpack(filters).reshape(groups, o // groups, kh * kw)
    return pack(values.transpose(1, 2, 0))._words.reshape(o // groups * kh * kw, word_count(groups))


def conv2d(
    x: ArrayLike | BitArray,
    w: ArrayLike | BitArray | Prepacked,
    *,
    stride: int | Pair = 1,
    padding: Padding = 0,
    dilation: int | Pair = 1,
    groups: int = 1,
    pad_value: int = 0,
    alpha: ArrayLike | None = None,
    k_map: ArrayLike | None = None,
    bias: ArrayLike | None = None,
    out: NDArray[Any] | None = None,
) -> NDArray[Any]:
    """Convolve packed images with packed filters.

    As usual in networks, this is a cross-correlation: the kernel is not flipped.

    Parameters
    ----------
    x : BitArray of shape (n, h, w, c), packed along c; or array_like, packed by sign on the fly
    w : BitArray of shape (o, kh, kw, c / groups), packed along its last axis; or array_like; or
        Prepacked
    stride, dilation : int or (height, width), at least 1
    padding : int, (height, width), ((top, bottom), (left, right)), "same" or "valid"
        Positions added around the image. "valid" adds none. "same" makes the output
        ``ceil(h / stride)`` high and ``ceil(w / stride)`` wide; if their number is odd, the bottom
        or right side gets one more.
    groups : int
        Number of groups into which channels and filters are split. The filters of a group see only
        the channels of that group. ``groups=c`` is a depthwise convolution.
    pad_value : {0, -1, 1}
        Value of positions outside the image. With 0 they add nothing to the sums.
    alpha : scalar or array_like of shape (o,), optional
        Scale of each filter, used as float32.
    k_map : scalar or array_like that broadcasts to shape (n, oh, ow), optional
        Scale of each output position, used as float32; see `bitops.k_map`.
    bias : scalar or array_like of shape (o,), optional
        Added to each filter's outputs, used as float32.
    out : ndarray of shape (n, oh, ow, o), optional
        Where to put the result, of exactly its dtype. Undefined after an interrupt.

    Returns
    -------
    ndarray of shape (n, oh, ow, o), int32; float32 if alpha, k_map or bias is given
        ``oh = (h + top + bottom - (kh - 1) * dilation - 1) // stride + 1``; ow likewise.

    Raises
    ------
    TypeError
        If an operand or scale does not hold real numbers, a setting has a wrong type, or `out` is
        not an ndarray of the dtype of the result.
    ValueError
        If channels, filters and groups do not fit each other, the kernel exceeds the padded image,
        a setting is out of range, a shape does not fit, an operand holds NaN, or `out` is
        read-only.

    Notes
    -----
    The dot products are exact; scales are applied as in `gemm`. With B and alpha from
    `binarize_weights` and K from `bitops.k_map`, ``conv2d(I, B, alpha=alpha, k_map=K)`` is
    XNOR-Net's approximation ``(sign(I) * sign(W)) K alpha`` of the convolution of I with W.

    No im2col matrix is built. With filters of usual sizes, a call needs at most 8 MiB besides the
    result and the bits of a real `x`. Prepacked filters save a few microseconds per call.

    References
    ----------
    M. Rastegari et al., "XNOR-Net", 2016, equation 11.

    Examples
    --------
    >>> import numpy as np
    >>> conv2d(np.ones((1, 2, 2, 3)), np.ones((1, 3, 3, 3)), padding=1)[0, ..., 0]
    array([[12, 12],
           [12, 12]], dtype=int32)
    """
    settings = stride, padding, dilation, groups, pad_value
    usual = _core.usual_convolution(_core.DOT, "conv2d", x, w, settings, (alpha, k_map, bias), out)
    if usual is not None:
        return usual
    images, filters, convolution, shape = _image_operands("conv2d", x, w, *settings)
    scales = scales_of("conv2d", shape, alpha, k_map, bias)
    if scales is NO_SCALES:
        result = Result("conv2d", shape, np.int32, out, images, filters)
        convolution.dot(images, result.matrix)
    else:
        result = Result("conv2d", shape, np.float32, out, images, filters, *scales)
        convolution.scaled(images, *scales, result.matrix)
    return result.deliver()


def conv2d_sign(
    x: ArrayLike | BitArray,
    w: ArrayLike | BitArray | Prepacked,
    threshold: ArrayLike,
    *,
    flip: ArrayLike | BitArray | None = None,
    stride: int | Pair = 1,
    padding: Padding = 0,
    dilation: int | Pair = 1,
    groups: int = 1,
    pad_value: int = 0,
) -> BitArray:
    """Convolve packed images, compare the sums with thresholds, and pack the results.

    This is a complete layer: bits in, bits out.

    Parameters
    ----------
    x, w, stride, padding, dilation, groups, pad_value
        As in `conv2d`.
    threshold : integer, or array_like of integers of shape (o,)
    flip : bool, array_like of bool of shape (o,), or BitArray of shape (o,), optional
        True for the filters whose bits are inverted.

    Returns
    -------
    BitArray of shape (n, oh, ow, o), packed along o
        The bit is ``(dot > threshold[o]) ^ flip[o]``.

    Raises
    ------
    TypeError
        As in `conv2d`, or if `threshold` does not hold integers or `flip` does not hold bools.
    ValueError
        As in `conv2d`.

    Notes
    -----
    BatchNorm followed by sign folds into such a threshold. A negative gamma becomes a flip.

    Examples
    --------
    >>> from bitops import pack
    >>> image, filters = pack(np.ones((1, 3, 3, 8))), pack(np.ones((1, 3, 3, 8)))
    >>> np.asarray(conv2d_sign(image, filters, 40, padding=1))[0, :, :, 0]
    array([[-1,  1, -1],
           [ 1,  1,  1],
           [-1,  1, -1]], dtype=int8)
    """
    settings = stride, padding, dilation, groups, pad_value
    usual = _core.usual_convolution(
        _core.SIGN, "conv2d_sign", x, w, settings, (threshold, flip), None
    )
    if usual is not None:
        return usual
    images, _, convolution, shape = _image_operands("conv2d_sign", x, w, *settings)
    n = shape[-1]
    thresholds = int32_thresholds("conv2d_sign", threshold, n)
    flips = None if flip is None else flip_words("conv2d_sign", flip, n)
    words = aligned_empty((*shape[:-1], word_count(n)), np.uint64)
    convolution.sign(images, thresholds, flips, as_matrix(words))
    return BitArray._make(words, shape, 3)
