"""Float32 convolutions in BLAS, forward and backward, one block of patches at a time."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ..ops.geometry import Window
from ..ops.patches import PRODUCT_BYTES, add_patches, patch_blocks
from .inputs import Activation, as_float

# Size of the float32 images that the backward pass holds at once; patches take a few MiB more.
MAX_BLOCK_BYTES = 8 << 20


def float_convolution(
    x: Activation, w: np.ndarray, bias: np.ndarray | None, window: Window, groups: int
) -> np.ndarray:
    """Convolve in BLAS, one block of patches at a time; training and inference both call this."""
    y = np.empty((len(x), *window.output, len(w)), np.float32)
    images = as_float(x)
    for channels, filters in _groups(w, groups):
        matrix = w[filters].reshape(filters.stop - filters.start, -1).T
        parts = patch_blocks(images[..., channels], window, max_bytes=PRODUCT_BYTES)
        for block, rows in parts:
            part = y[block][..., filters]
            part[...] = (rows @ matrix).reshape(part.shape)
    if bias is not None:
        y += bias
    return y


def conv_gradients(
    x: Activation,
    dy: np.ndarray,
    w: np.ndarray,
    window: Window,
    groups: int,
    *,
    outside: float = 0,
    weight_grad: np.ndarray,
    with_dx: bool,
) -> np.ndarray | None:
    """Compute the gradients of a convolution in BLAS, one block of patches at a time.

    Parameters
    ----------
    x : BitArray or ndarray of shape (n, h, w, c)
    dy : ndarray of shape (n, oh, ow, o), float32
    w : ndarray of shape (o, kh, kw, c / groups), float32
        The filters of the forward pass.
    window : Window
    groups : int
    outside : number
        Value of the positions outside the image.
    weight_grad : ndarray of the shape of `w`, float32
        Gradient of `w`, written here.
    with_dx : bool

    Returns
    -------
    ndarray of the shape of `x`, float32, or None without `with_dx`
    """
    dx = np.zeros(x.shape, np.float32) if with_dx else None
    weight_grad[...] = 0
    at_a_time = max(MAX_BLOCK_BYTES // max(4 * x.shape[1] * x.shape[2] * x.shape[3], 1), 1)
    for first in range(0, len(x), at_a_time):
        some = slice(first, first + at_a_time)
        images = as_float(x[some])
        for channels, filters in _groups(w, groups):
            count = filters.stop - filters.start
            matrix = w[filters].reshape(count, -1)
            matrix_grad = weight_grad[filters].reshape(count, -1)  # a view: filters are contiguous
            for block, rows in patch_blocks(images[..., channels], window, outside=outside):
                part = dy[some][block][..., filters].reshape(len(rows), count)
                matrix_grad += part.T @ rows
                if dx is not None:
                    add_patches(part @ matrix, window, dx[some][..., channels], block)
    return dx


def _groups(w: np.ndarray, groups: int) -> Iterator[tuple[slice, slice]]:
    """Yield the channels and the filters of each group, as slices."""
    share, per = w.shape[3], len(w) // groups
    for g in range(groups):
        yield slice(g * share, (g + 1) * share), slice(g * per, (g + 1) * per)
