"""Backward products with +-1 operands: real gradients times bits, which stay packed.

A layer y = x W^T with x and W of +-1 has the gradients dx = dy W and dW = dy^T x. Both are real
numbers times signs, and `weight_gemm` makes them two to three times faster than float32 BLAS.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ..array import BitArray, pack
from ..conv import im2col
from ..geometry import Window
from ..linalg import weight_gemm
from ..patches import add_patches, position_blocks, tap_slices

# Positions whose patches are turned, and summed into the gradient, at a time: their bits and
# gradients stay in the second-level cache, the gradient is passed over once for each.
POSITIONS = 4096


def weight_gradient(dy: np.ndarray, x: BitArray, out: np.ndarray | None = None) -> np.ndarray:
    """dW = dy^T x.

    Parameters
    ----------
    dy : ndarray of shape (m, n), float32
    x : BitArray of shape (m, k), packed along k
    out : ndarray of shape (n, k), float32, optional

    Returns
    -------
    ndarray of shape (n, k), float32
    """
    return weight_gemm(np.ascontiguousarray(dy.T), pack(x.T), out=out)


def conv_weight_gradient(
    dy: np.ndarray, x: BitArray, window: Window, pad_value: int, out: np.ndarray
) -> None:
    """Gradient of the filters of a convolution of bits, without groups.

    Parameters
    ----------
    dy : ndarray of shape (n, oh, ow, o), float32
    x : BitArray of shape (n, h, w, c), packed along c
    window : Window
    pad_value : {0, 1, -1}
        What the positions outside the image counted as.
    out : ndarray of shape (o, kh, kw, c), float32
    """
    positions = window.output[0] * window.output[1]
    filters = dy.shape[3]
    matrix = out.reshape(filters, -1)
    matrix[...] = 0
    for images in _images_at_a_time(len(x), positions):
        rows = im2col(
            x[images],
            window.kernel,
            stride=window.stride,
            padding=window.padding,
            dilation=window.dilation,
            pad_value=pad_value or -1,
        )
        rows = rows.reshape(-1, rows.shape[-1])
        matrix += weight_gradient(dy[images].reshape(len(rows), filters), rows)
    if pad_value == 0 and window.is_padded:
        out += _sums_outside(dy, window)


def _images_at_a_time(n: int, positions: int) -> Iterator[slice]:
    step = max(POSITIONS // max(positions, 1), 1)
    return (slice(first, first + step) for first in range(0, n, step))


def _sums_outside(dy: np.ndarray, window: Window) -> np.ndarray:
    """Sum of dy over the positions that see each tap outside, shape (o, kh, kw, 1).

    Outside stood for -1 among the bits; adding this takes that back.
    """
    by_position = dy.sum(axis=0)  # (oh, ow, o)
    total = by_position.sum(axis=(0, 1))
    kh, kw = window.kernel
    outside = np.empty((kh, kw, dy.shape[3]), np.float32)
    everywhere = tuple(slice(0, size) for size in window.output)
    for ky in range(kh):
        lines, _ = tap_slices(window, 0, ky, everywhere[0])
        for kx in range(kw):
            columns, _ = tap_slices(window, 1, kx, everywhere[1])
            outside[ky, kx] = total - by_position[lines, columns].sum(axis=(0, 1))
    return outside.transpose(2, 0, 1)[..., np.newaxis]


def conv_input_gradient(
    dy: np.ndarray, turned: BitArray, window: Window, shape: tuple[int, ...]
) -> np.ndarray:
    """Gradient of the images of a convolution with +-1 filters, without groups.

    Parameters
    ----------
    dy : ndarray of shape (n, oh, ow, o), float32
        Scales of the filters included.
    turned : BitArray of shape (kh * kw * c, o), packed along o
    window : Window
    shape : (n, h, w, c)

    Returns
    -------
    ndarray of this shape, float32
    """
    dx = np.zeros(shape, np.float32)
    width = turned.shape[0]
    for block in position_blocks(shape[0], window, 4 * width):
        part = dy[block]
        rows = weight_gemm(part.reshape(-1, part.shape[-1]), turned)
        add_patches(rows, window, dx, block)
    return dx
