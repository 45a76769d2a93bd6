"""Patches of images of numbers: copied to rows of a matrix and back (im2col, col2im).

A patch is the part of an image that one output position of a convolution sees. The rows of all
patches would take kh * kw times the memory of the images, so they are copied in blocks that fit the
cache.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .array import BitArray
from .checks import real_array
from .geometry import Window

__all__ = [
    "PRODUCT_BYTES",
    "add_patches",
    "image_blocks",
    "number_images",
    "patch_blocks",
    "position_blocks",
    "rows_lie_in",
    "seeing_taps",
    "seen_slices",
    "tap_slices",
]

MAX_BYTES = 4 << 20  # of the rows of one block
PRODUCT_BYTES = 1 << 20  # of one that is multiplied once, at best in the second-level cache
IMAGE_BYTES = 1 << 19  # of the images of one block

Block = tuple[slice, slice, slice]  # images, output rows, output columns


def number_images(where: str, x: ArrayLike | BitArray) -> NDArray[Any]:
    """Check images of integers or floats, and return them aligned, in native byte order."""
    if isinstance(x, BitArray):
        raise TypeError(f"[{where}] x must hold numbers, got a BitArray")
    images = real_array(where, "x", x)
    if images.dtype.kind == "b":
        raise TypeError(f"[{where}] x must hold numbers, got dtype {images.dtype}")
    if images.ndim != 4:
        raise ValueError(f"[{where}] x must have shape (n, h, w, c), got {images.shape}")
    return images


def image_blocks(x: NDArray[Any]) -> Iterator[slice]:
    """Yield slices of images (n, ...), small enough to stay in the cache during several passes."""
    step = max(IMAGE_BYTES * len(x) // max(x.nbytes, 1), 1)
    return (slice(first, min(first + step, len(x))) for first in range(0, len(x), step))


def position_blocks(
    n: int, window: Window, bytes_each: int, *, max_bytes: int = MAX_BYTES
) -> Iterator[Block]:
    """Cut the output positions of n images into blocks that are contiguous in memory.

    Parameters
    ----------
    n : int
        Number of images.
    window : Window
    bytes_each : int
        Bytes that one position takes.
    max_bytes : int
        Bytes that a block may take. A block holds at least one position.

    Yields
    ------
    tuple of three slices
        Images, rows and columns. In an array ``y`` of shape (n, oh, ow, ...), ``y[block]`` are the
        values at these positions. They are contiguous if ``y`` is.

    Notes
    -----
    A block is a part of one row, several whole rows of one image, or several whole images. For
    example, blocks A, B, ... of at most 3, 9 or 24 positions of two images of 3 x 4 positions::

        3:  A A A B   G G G H     9:  A A A A   C C C C     24:  A A A A   A A A A
            C C C D   I I I J         A A A A   C C C C          A A A A   A A A A
            E E E F   K K K L         B B B B   D D D D          A A A A   A A A A
    """
    oh, ow = window.output
    fitting = max(max_bytes // max(bytes_each, 1), 1)
    if fitting < ow:
        images, rows, columns = 1, 1, fitting
    elif fitting < oh * ow:
        images, rows, columns = 1, fitting // ow, ow
    else:
        images, rows, columns = fitting // (oh * ow), oh, ow
    for image in range(0, n, images):
        for row in range(0, oh, rows):
            for column in range(0, ow, columns):
                yield (
                    slice(image, min(image + images, n)),
                    slice(row, min(row + rows, oh)),
                    slice(column, min(column + columns, ow)),
                )


def patch_blocks(
    x: NDArray[Any], window: Window, *, outside: float = 0, max_bytes: int = MAX_BYTES
) -> Iterator[tuple[Block, NDArray[Any]]]:
    """Copy the patches of images to rows of a matrix, block by block.

    Parameters
    ----------
    x : ndarray of shape (n, h, w, c), any numbers
        For one group of a convolution, the slice of its channels.
    window : Window
        The windows over images of this height and width.
    outside : number
        Value of positions outside an image.
    max_bytes : int
        Bytes that the rows of a block may take. A block holds at least one position.

    Yields
    ------
    block : tuple of three slices
        The output positions (see `position_blocks`).
    rows : ndarray of shape (positions, kh * kw * c), of the dtype of `x`, C-contiguous
        One patch per row. Do not write to it, and do not keep it: the next block reuses its memory.
        It is a view of `x` if the elements of `x` already have this order.

    Examples
    --------
    >>> import numpy as np
    >>> from bitops.ops.geometry import make_window
    >>> x = np.arange(6).reshape(1, 2, 3, 1)
    >>> for block, rows in patch_blocks(x, make_window("example", (2, 3), 2)):
    ...     print(rows)
    [[0 1 3 4]
     [1 2 4 5]]
    """
    n, c = len(x), x.shape[3]
    width = window.taps * c
    if width == 0 or (x.size and x.flags.c_contiguous and rows_lie_in(window)):
        everything = (slice(0, n), slice(0, window.output[0]), slice(0, window.output[1]))
        yield everything, x.reshape(n * math.prod(window.output), width)
        return
    buffer: NDArray[Any] | None = None
    for block in position_blocks(n, window, width * x.itemsize, max_bytes=max_bytes):
        shape = tuple(part.stop - part.start for part in block)
        if buffer is None:  # no block is larger than the first
            buffer = np.empty((math.prod(shape), width), x.dtype)
        rows = buffer[: math.prod(shape)]
        _gather(x, window, block, outside, rows.reshape(*shape, width))
        yield block, rows


def rows_lie_in(window: Window) -> bool:
    """Tell whether the elements of images, in C order, already are the rows of all patches."""
    single = window.kernel == (1, 1) and window.stride == (1, 1)
    whole = window.kernel == window.image
    return (single or whole) and not window.is_padded


def _gather(
    x: NDArray[np.generic],
    window: Window,
    block: Block,
    outside: float,
    rows: NDArray[np.generic],
) -> None:
    """Copy the patches of one block to `rows`, of shape (images, rows, columns, kh * kw * c)."""
    bounds = []  # for height and width, the range of the padded image that the block sees
    for part, kernel, stride, dilation in zip(
        block[1:], window.kernel, window.stride, window.dilation, strict=True
    ):
        last = (part.stop - 1) * stride + (kernel - 1) * dilation + 1
        bounds.append((part.start * stride, last))
    seen = math.prod(last - first for first, last in bounds)
    if seen > math.prod(rows.shape[1:3]) * window.taps:  # most of the range lies between taps
        _gather_taps(x, window, block, outside, rows)
    else:
        _gather_runs(_padded_part(x[block[0]], window, bounds, outside), window, rows)


def _gather_taps(
    x: NDArray[np.generic],
    window: Window,
    block: Block,
    outside: float,
    rows: NDArray[np.generic],
) -> None:
    """Copy the patches tap by tap from the images."""
    (kh, kw), c = window.kernel, x.shape[3]
    rows.fill(outside)
    for ky in range(kh):
        seen_y, lines = tap_slices(window, 0, ky, block[1])
        for kx in range(kw):
            seen_x, pixels = tap_slices(window, 1, kx, block[2])
            first = (ky * kw + kx) * c
            rows[:, seen_y, seen_x, first : first + c] = x[block[0], lines, pixels]


def _gather_runs(part: NDArray[np.generic], window: Window, rows: NDArray[np.generic]) -> None:
    """Copy the patches from the part of the padded images that they see, run by run.

    A run is a sequence of numbers that are neighbours in the image as well as in the row. NumPy
    copies it in one step, as a single element of a wider dtype. With dilation 1, a run is a whole
    line of the kernel::

        image line     p0  p1  p2  p3  p4 ...      each p holds c channels
        run 0         [p0  p1  p2]
        run 1             [p1  p2  p3]             kw = 3, stride 1

    With dilation, the taps are no neighbours, and a run is the c channels of one tap.
    """
    c, itemsize = part.shape[3], part.itemsize
    (kh, kw), (sy, sx), (dy, dx) = window.kernel, window.stride, window.dilation
    image, line, pixel, _ = part.strides
    run, taps, step = (kw * c, 1, 0) if dx == 1 else (c, kw, dx * pixel)
    element = np.dtype((np.void, run * itemsize))
    shape = (*rows.shape[:3], kh, taps)
    strides = (image, sy * line, sx * pixel, dy * line, step)
    source = np.ndarray(shape, element, part, strides=strides)
    np.copyto(rows.view(element).reshape(shape), source)


def _padded_part(
    x: NDArray[np.generic], window: Window, bounds: list[tuple[int, int]], outside: float
) -> NDArray[np.generic]:
    """Return the part of the padded images that lies within bounds, C-contiguous."""
    inner, place = [], []  # slices of the image, and of the part to which they are copied
    for (first, last), (before, _), size in zip(bounds, window.padding, window.image, strict=True):
        start = max(first - before, 0)
        stop = max(min(last - before, size), start)
        inner.append(slice(start, stop))
        place.append(slice(start + before - first, stop + before - first))
    inside = x[:, inner[0], inner[1]]
    shape = (len(x), *(last - first for first, last in bounds), x.shape[3])
    if inside.shape == shape:
        return np.ascontiguousarray(inside)
    part = np.full(shape, outside, x.dtype)
    part[:, place[0], place[1]] = inside
    return part


def add_patches(
    rows: NDArray[np.floating],
    window: Window,
    out: NDArray[np.floating],
    block: Block | None = None,
) -> None:
    """Add the elements of each patch to the image positions they came from (col2im).

    This is the adjoint of im2col: it carries gradients of the patches to the images.

    Parameters
    ----------
    rows : ndarray of (positions * kh * kw * c) elements
        One patch for each position of the block, in the layout of `patch_blocks`.
    window : Window
    out : ndarray of shape (n, h, w, c)
        The images to add to. Elements from outside an image are dropped.
    block : tuple of three slices, optional
        The positions of `rows` (see `position_blocks`). By default, all positions of all images.
    """
    if block is None:
        block = (slice(0, len(out)), slice(0, window.output[0]), slice(0, window.output[1]))
    images, *positions = block
    kh, kw = window.kernel
    shape = tuple(part.stop - part.start for part in block)
    patches = rows.reshape(*shape, kh, kw, out.shape[3])
    image = out[images]
    vertical = [tap_slices(window, 0, ky, positions[0]) for ky in range(kh)]
    horizontal = [tap_slices(window, 1, kx, positions[1]) for kx in range(kw)]
    for ky, (seen_y, y) in enumerate(vertical):
        for kx, (seen_x, x) in enumerate(horizontal):
            target = image[:, y, x]
            target += patches[:, seen_y, seen_x, ky, kx]


def seeing_taps(window: Window, direction: int) -> range:
    """Return a range of taps that contains all that see the image from some output position.

    All other taps lie outside the image at every position. If the kernel is far larger than the
    image, this leaves only a few.
    """
    dilation, before = window.dilation[direction], window.padding[direction][0]
    farthest = (window.output[direction] - 1) * window.stride[direction]
    first = max(-((farthest - before) // dilation), 0)  # the first that sees a position >= 0
    last = -(-(window.image[direction] + before) // dilation)  # the first that sees none < size
    return range(first, max(first, min(last, window.kernel[direction])))


@functools.lru_cache(maxsize=256)  # this takes as long as pooling a small image
def seen_slices(window: Window, direction: int) -> tuple[tuple[slice, slice], ...]:
    """Return the `tap_slices` of all output positions for each of the `seeing_taps`."""
    positions = slice(0, window.output[direction])
    taps = seeing_taps(window, direction)
    return tuple(tap_slices(window, direction, tap, positions) for tap in taps)


def tap_slices(window: Window, direction: int, tap: int, positions: slice) -> tuple[slice, slice]:
    """Find which output positions see the image at a tap, and which image positions they see.

    Parameters
    ----------
    window : Window
    direction : int
        0 for the height, 1 for the width.
    tap : int
        A row or column of the kernel.
    positions : slice
        A range of output positions.

    Returns
    -------
    outputs : slice
        The output positions that see the image, counted from the first of `positions`.
    inputs : slice
        The image positions that they see, in steps of the stride.

    Notes
    -----
    Output position p sees image position ``p * stride + offset``, where
    ``offset = tap * dilation - padding``. For example, with size 5, stride 2 and offset -1::

        output     0   1   2   3
        image     -1   1   3   5      outputs = slice(1, 3), inputs = slice(1, 4, 2)
    """
    stride, size = window.stride[direction], window.image[direction]
    offset = tap * window.dilation[direction] - window.padding[direction][0]
    first = max(-(offset // stride), positions.start)  # the first that sees a position >= 0
    last = min(-((offset - size) // stride), positions.stop)  # the first that sees one >= size
    last = max(first, last)
    start = first * stride + offset
    stop = start + (last - first) * stride
    return (
        slice(first - positions.start, last - positions.start),
        slice(start, max(stop - stride + 1, start), stride),
    )
