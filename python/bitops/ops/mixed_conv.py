"""Mixed convolutions, of numbers with filters of +1 and -1: weight_conv2d, bitplane_conv2d.

`products_to_images` is the adjoint of their patches: it carries gradients back to the images.

They copy the patches of the images, block by block, to the rows of a matrix. They multiply these
rows with the filters as `weight_gemm` and `bitplane_gemm` do.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .. import _core
from .array import BitArray
from .checks import as_float32, check_integer
from .conv import check_groups, filter_bits
from .geometry import Padding, Pair, Window, check_result, make_window
from .memory import aligned_empty
from .mixed_gemm import check_sums
from .packing import contiguous_rows
from .patches import number_images, patch_blocks
from .prepack import Prepacked, filter_rows
from .results import NO_SCALES, Result, Scales, scales_of

__all__ = ["bitplane_conv2d", "code_conv2d", "products_to_images", "weight_conv2d"]

# Called with rows of numbers, a range of filters, and the matrix for the products.
_Multiply = Callable[[NDArray[Any], slice, NDArray[Any]], None]


class MixedImageOperands(NamedTuple):
    """Checked operands of one mixed convolution."""

    x: NDArray[Any]  # images
    w: NDArray[np.uint64]  # a row of words for each filter
    panels: _core.Panels | None  # the same words, if the filters are prepacked and in one group
    window: Window
    groups: int
    k: int
    shape: tuple[int, ...]  # of the result: (n, oh, ow, o)


def _mixed_image_operands(
    where: str,
    images: NDArray[Any],
    w: ArrayLike | BitArray | Prepacked,
    stride: Any,
    padding: Any,
    dilation: Any,
    groups: Any,
) -> MixedImageOperands:
    """Check images, filters and settings of a mixed convolution against each other."""
    filters = filter_bits(where, w)
    n, height, width, channels = images.shape
    groups = check_groups(where, channels, filters.shape, groups)
    window = make_window(where, (height, width), filters.shape[1:3], stride, padding, dilation)
    shape = (n, *window.output, filters.shape[0])
    check_result(where, shape)
    panels = None
    if isinstance(w, Prepacked):
        rows = w.rows()
        if groups == 1:
            panels = w.panels()
    else:
        rows = filter_rows(filters)
    k = window.taps * filters.shape[3]
    return MixedImageOperands(images, rows, panels, window, groups, k, shape)


def weight_conv2d(
    x: ArrayLike,
    w: ArrayLike | BitArray | Prepacked,
    *,
    stride: int | Pair = 1,
    padding: Padding = 0,
    dilation: int | Pair = 1,
    groups: int = 1,
    alpha: ArrayLike | None = None,
    bias: ArrayLike | None = None,
    out: NDArray[np.float32] | None = None,
) -> NDArray[np.float32]:
    """Convolve images of real numbers with filters of +1 and -1, packed to one bit per weight.

    Parameters
    ----------
    x : array_like of shape (n, h, w, c), integers or floats, used as float32
    w : BitArray of shape (o, kh, kw, c / groups), packed along its last axis; or array_like, packed
        by sign; or Prepacked
    stride, padding, dilation, groups
        As in `conv2d`. Positions outside the image are 0.
    alpha : scalar or array_like of shape (o,), optional
        Scale of each filter, used as float32.
    bias : scalar or array_like of shape (o,), optional
        Added to each filter's outputs, used as float32.
    out : ndarray of shape (n, oh, ow, o), float32, optional
        Where to put the result. Undefined after an interrupt.

    Returns
    -------
    ndarray of shape (n, oh, ow, o), float32

    Raises
    ------
    TypeError
        If `x` is packed or does not hold integers or floats, `w` or a scale does not hold real
        numbers, a setting has a wrong type, or `out` is not an ndarray of float32.
    ValueError
        If channels, filters and groups do not fit each other, the kernel exceeds the padded image,
        a setting is out of range, a shape does not fit, `w` holds NaN, or `out` is read-only.

    Notes
    -----
    Each output is summed and rounded as in `weight_gemm`, over the channels of the first tap, then
    those of the next. It is the same on every ISA and with any number of threads.

    References
    ----------
    M. Rastegari et al., "XNOR-Net", 2016, section 3.1 (Binary-Weight-Networks), equation 1.

    Examples
    --------
    >>> weight_conv2d([[[[0.5], [2.0], [-1.0]]]], [[[[1.0], [-1.0]]]]).ravel()
    array([-1.5,  3. ], dtype=float32)
    """
    images = number_images("weight_conv2d", x)
    operands = _mixed_image_operands("weight_conv2d", images, w, stride, padding, dilation, groups)
    scales = scales_of("weight_conv2d", operands.shape, alpha, None, bias)
    result = Result("weight_conv2d", operands.shape, np.float32, out, images, operands.w, *scales)

    def multiply(rows: NDArray[Any], filters: slice, matrix: NDArray[Any]) -> None:
        alpha, _, bias = _part(scales, filters)
        _core.weight_gemm(rows, operands.w[filters], alpha, bias, matrix)

    numbers = as_float32(images)
    _convolve(operands._replace(x=numbers), multiply, result.array)
    return result.deliver()


def bitplane_conv2d(
    x: ArrayLike,
    w: ArrayLike | BitArray | Prepacked,
    *,
    bits: int = 8,
    stride: int | Pair = 1,
    padding: Padding = 0,
    dilation: int | Pair = 1,
    groups: int = 1,
    alpha: ArrayLike | None = None,
    bias: ArrayLike | None = None,
    out: NDArray[Any] | None = None,
) -> NDArray[Any]:
    """Convolve images of small unsigned integers with filters of +1 and -1, exactly.

    Parameters
    ----------
    x : array_like of shape (n, h, w, c), uint8
    w : BitArray of shape (o, kh, kw, c / groups), packed along its last axis; or array_like, packed
        by sign; or Prepacked
    bits : int in 1..8, default 8
        The numbers are in 0..2**bits - 1. Convolutions are faster with one or two bits.
    stride, padding, dilation, groups
        As in `conv2d`. Positions outside the image are 0.
    alpha : scalar or array_like of shape (o,), optional
        Scale of each filter, used as float32.
    bias : scalar or array_like of shape (o,), optional
        Added to each filter's outputs, used as float32.
    out : ndarray of shape (n, oh, ow, o), optional
        Where to put the result, of exactly its dtype. Undefined after an interrupt.

    Returns
    -------
    ndarray of shape (n, oh, ow, o), int32; float32 if alpha or bias is given

    Raises
    ------
    TypeError
        If `x` is not uint8, `w` or a scale does not hold real numbers, a setting has a wrong type,
        or `out` is not an ndarray of the dtype of the result.
    ValueError
        If a number exceeds ``2**bits - 1``, a filter has so many weights k that ``255 * k`` exceeds
        int32, channels, filters and groups do not fit each other, the kernel exceeds the padded
        image, a setting is out of range, a shape does not fit, `w` holds NaN, or `out` is
        read-only.

    Notes
    -----
    The sums are exact; scales are applied as in `bitplane_gemm`.

    References
    ----------
    M. Courbariaux, I. Hubara et al., "Binarized Neural Networks", 2016, equation 8: the first layer
    as a sum over the bit planes of 8-bit inputs.

    Examples
    --------
    >>> import numpy as np
    >>> image = np.array([255, 3, 1], np.uint8).reshape(1, 1, 3, 1)
    >>> bitplane_conv2d(image, [[[[1.0], [-1.0]]]]).ravel()
    array([252,   2], dtype=int32)
    """
    return code_conv2d(
        x,
        w,
        bits,
        0,
        stride=stride,
        padding=padding,
        dilation=dilation,
        groups=groups,
        alpha=alpha,
        bias=bias,
        out=out,
    )


def code_conv2d(
    x: ArrayLike,
    w: ArrayLike | BitArray | Prepacked,
    bits: int,
    zero: int,
    *,
    stride: int | Pair = 1,
    padding: Padding = 0,
    dilation: int | Pair = 1,
    groups: int = 1,
    alpha: ArrayLike | None = None,
    bias: ArrayLike | None = None,
    outside: int = 0,
    most: int | None = None,
    out: NDArray[Any] | None = None,
) -> NDArray[Any]:
    """Do what `bitplane_conv2d` does for the numbers x - zero.

    `outside` is the code of positions outside, and `most` the largest magnitude of a number if it
    is known, so that the codes need not be looked at.
    """
    images = number_images("bitplane_conv2d", x)
    if images.dtype != np.uint8:
        raise TypeError(f"[bitplane_conv2d] x must have dtype uint8, got {images.dtype}")
    check_integer("bitplane_conv2d", "bits", bits, 1, 8)
    operands = _mixed_image_operands(
        "bitplane_conv2d", images, w, stride, padding, dilation, groups
    )
    most = check_sums("bitplane_conv2d", images, bits, operands.k, zero, most)
    if most and operands.window.is_padded:  # 0: not known
        most = max(most, abs(outside - zero))
    scales = scales_of("bitplane_conv2d", operands.shape, alpha, None, bias)
    dtype = np.int32 if scales is NO_SCALES else np.float32
    result = Result("bitplane_conv2d", operands.shape, dtype, out, images, operands.w, *scales)
    panels = operands.panels
    if operands.groups == 1 and _core.conv_codes(
        images,
        operands.w,
        operands.window,
        bits,
        scales[0],
        scales[2],
        result.array.view(np.float32),
        zero,
        outside,
        most,
    ):
        return result.deliver()

    def multiply(rows: NDArray[Any], filters: slice, matrix: NDArray[Any]) -> None:
        words = operands.w[filters]
        if scales is NO_SCALES:
            _core.bitplane_gemm(rows, words, panels, bits, matrix, False, zero, most)
        else:
            alpha, _, bias = _part(scales, filters)
            _core.bitplane_gemm_scaled(
                rows, words, panels, bits, alpha, bias, matrix, False, zero, most
            )

    _convolve(operands, multiply, result.array, outside)
    return result.deliver()


def products_to_images(
    x: NDArray[Any],
    w: BitArray,
    window: Window,
    shape: tuple[int, ...],
    *,
    alpha: ArrayLike = 1,
    bias: ArrayLike = 0,
    zero: int = 0,
) -> NDArray[np.float32]:
    """Multiply numbers with +-1 weights, and add the rows to the patches of images (col2im).

    Parameters
    ----------
    x : ndarray of shape (n, oh, ow, k), float32 or uint8
        A row for each output position of a convolution.
    w : BitArray of shape (kh * kw * c, k), packed along k
    window : Window
    shape : (n, h, w, c)
        Shape of the images.
    alpha, bias : scalar or array_like of shape (kh * kw * c,)
        Scale of each column, and what is added to it, used as float32; for uint8 alone.
    zero : int in 0..255
        What the code of 0 is, for uint8.

    Returns
    -------
    ndarray of shape (n, h, w, c), float32
        The products are those of `weight_gemm` and `bitplane_gemm`. Each number is the sum of
        those that come from the positions whose windows see it, added up in float32 from the first
        tap to the last, starting from 0. Those outside the images are dropped.
    """
    images = aligned_empty(shape, np.float32)
    rows = np.require(x.reshape(math.prod(x.shape[:-1]), x.shape[-1]), x.dtype, ("C", "A"))
    if rows.dtype == np.uint8:
        scale, _, shift = scales_of("products_to_images", (len(rows), len(w)), alpha, None, bias)
        assert scale is not None and shift is not None
        _core.bitplanes_to_images(rows, contiguous_rows(w), window, scale, shift, images, zero)
    else:
        _core.weights_to_images(rows, contiguous_rows(w), window, images)
    return images


def _part(scales: Scales, filters: slice) -> Scales:
    """Return the scales of a range of filters."""
    alpha, k_map, bias = scales
    return (
        None if alpha is None else alpha[filters],
        k_map,
        None if bias is None else bias[filters],
    )


def _convolve(
    operands: MixedImageOperands, multiply: _Multiply, result: NDArray[Any], outside: int = 0
) -> None:
    """Multiply all patches with the filters of their group, and write a contiguous result."""
    if result.size == 0:
        return
    channels, o = operands.x.shape[3] // operands.groups, operands.shape[3]
    count = o // operands.groups
    for group in range(operands.groups):
        images = operands.x[..., group * channels : (group + 1) * channels]
        filters = slice(group * count, (group + 1) * count)
        for block, rows in patch_blocks(images, operands.window, outside=outside):
            part = result[block]
            if operands.groups == 1:
                multiply(rows, filters, part.reshape(len(rows), o))  # a view of the block
            else:
                matrix = np.empty((len(rows), count), result.dtype)
                multiply(rows, filters, matrix)
                part[..., filters] = matrix.reshape(*part.shape[:3], count)
