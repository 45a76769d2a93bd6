"""Float32 convolutions, forward and backward.

Forward they have a kernel of their own where the instruction set in force has one. Otherwise, and
backward, BLAS multiplies one block of patches at a time.

Filters of one channel each (depthwise) leave BLAS nothing to share. They are applied tap by tap to
whole images, all channels at once.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ..ops.float_filters import convolve_floats, float_panels
from ..ops.geometry import Window
from ..ops.patches import PRODUCT_BYTES, add_patches, patch_blocks, seeing_taps, seen_slices
from ..ops.tiny import normal_or_0
from .columns import column_sums
from .inputs import Activation, as_float

# An index into images or outputs: images, rows and columns.
Index = tuple[slice, slice, slice]

# Size of the float32 images that the backward pass holds at once.
MAX_BLOCK_BYTES = 8 << 20

# Size of the patches that it multiplies at once, and those of how many positions it is at least, up
# to another size: each product is added to the whole gradient of the filters.
PATCH_BYTES, PATCHES, MOST_PATCH_BYTES = 4 << 20, 512, 16 << 20


def float_convolution(
    x: Activation, w: np.ndarray, bias: np.ndarray | None, window: Window, groups: int
) -> np.ndarray:
    """Convolve images with float32 filters; training and inference both call this."""
    y = np.empty((len(x), *window.output, len(w)), np.float32)
    images = as_float(x)
    if _is_depthwise(w, groups):
        _apply_taps(images, normal_or_0(w), window, y)
        if bias is not None:
            y += bias
        return y
    panels = float_panels(w) if groups == 1 and images.size else None
    if panels is not None:
        convolve_floats(images, panels, window, y)
        if bias is not None:
            y += bias
        return y
    w = normal_or_0(w)
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
    """Compute the gradients of a convolution with float32 filters.

    Parameters
    ----------
    x : BitArray or ndarray of shape (n, h, w, c)
    dy : ndarray of shape (n, oh, ow, o), float32
    w : ndarray of shape (o, kh, kw, c / groups), float32
        The filters of the forward pass; only their shape counts without `with_dx`.
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
    if with_dx:  # nothing else reads them
        w = normal_or_0(w)
    if _is_depthwise(w, groups):
        _depthwise_gradients(x, dy, w, window, outside, weight_grad, dx)
        return dx
    at_a_time = max(MAX_BLOCK_BYTES // max(4 * x.shape[1] * x.shape[2] * x.shape[3], 1), 1)
    for first in range(0, len(x), at_a_time):
        some = slice(first, first + at_a_time)
        images = as_float(x[some])
        for channels, filters in _groups(w, groups):
            count = filters.stop - filters.start
            matrix = w[filters].reshape(count, -1)
            matrix_grad = weight_grad[filters].reshape(count, -1)  # a view: filters are contiguous
            size = min(max(PATCH_BYTES, PATCHES * matrix.strides[0]), MOST_PATCH_BYTES)
            patches = patch_blocks(images[..., channels], window, outside=outside, max_bytes=size)
            for block, rows in patches:
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


def _is_depthwise(w: np.ndarray, groups: int) -> bool:
    """Return whether every channel of the images has one filter of its own."""
    return w.shape[3] == 1 and len(w) == groups > 1


def _apply_taps(x: np.ndarray, w: np.ndarray, window: Window, y: np.ndarray) -> None:
    """Write the convolution with one filter a channel to y."""
    at_a_time = max(MAX_BLOCK_BYTES // max(x[:1].nbytes, 1), 1)
    for first in range(0, len(x), at_a_time):
        some = slice(first, first + at_a_time)
        y[some] = 0
        for factors, seen, place in _taps(w, window):
            part = y[some][seen]
            part += x[some][place] * factors


def _depthwise_gradients(
    x: Activation,
    dy: np.ndarray,
    w: np.ndarray,
    window: Window,
    outside: float,
    weight_grad: np.ndarray,
    dx: np.ndarray | None,
) -> None:
    """Add the gradients of filters of one channel each to `weight_grad` and `dx`."""
    images = as_float(x)
    if outside:  # what the taps that see no image see; `_taps` leaves them out
        weight_grad += (outside * column_sums(dy))[:, np.newaxis, np.newaxis, np.newaxis]
    grads = _taps(weight_grad, window)
    for (factors, seen, place), (of_tap, _, _) in zip(_taps(w, window), grads, strict=True):
        part = dy[seen]
        of_tap += column_sums(part * (images[place] - np.float32(outside)))
        if dx is not None:
            target = dx[place]
            target += part * factors


def _taps(w: np.ndarray, window: Window) -> Iterator[tuple[np.ndarray, Index, Index]]:
    """Yield the weights of each tap, the outputs where it sees the image, and what it sees."""
    rows = zip(seeing_taps(window, 0), seen_slices(window, 0), strict=True)
    for ky, (seen_y, lines) in rows:
        columns = zip(seeing_taps(window, 1), seen_slices(window, 1), strict=True)
        for kx, (seen_x, pixels) in columns:
            everything = slice(None)
            yield w[:, ky, kx, 0], (everything, seen_y, seen_x), (everything, lines, pixels)
