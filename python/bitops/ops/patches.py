"""Patches of images of numbers as rows of a matrix, in blocks, and back: im2col and col2im.

A convolution of numbers is a product of such rows with the filters. The rows of all positions
would take kh * kw times the memory of the images; blocks of them fit the cache. Sums over windows
need no rows.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .array import BitArray
from .checks import real_array
from .geometry import Window

__all__ = [
    "add_patches",
    "number_images",
    "patch_blocks",
    "position_blocks",
    "seeing_taps",
    "sum_windows",
    "tap_slices",
]

MAX_BYTES = 4 << 20  # of the rows of one block
IMAGE_BYTES = 1 << 19  # of images of one block

Block = tuple[slice, slice, slice]  # of images, output rows and output columns


def number_images(where: str, x: ArrayLike | BitArray) -> NDArray[Any]:
    """Images of integers or floats, native and aligned, or an error in the name of `where`."""
    if isinstance(x, BitArray):
        raise TypeError(f"[{where}] x must hold numbers, got a BitArray")
    images = real_array(where, "x", x)
    if images.dtype.kind == "b":
        raise TypeError(f"[{where}] x must hold numbers, got dtype {images.dtype}")
    if images.ndim != 4:
        raise ValueError(f"[{where}] x must have shape (n, h, w, c), got {images.shape}")
    return images


def image_blocks(x: NDArray[Any]) -> Iterator[slice]:
    """Cut images (n, ...) into blocks that stay in the cache while they are passed repeatedly."""
    step = max(IMAGE_BYTES * len(x) // max(x.nbytes, 1), 1)
    return (slice(first, min(first + step, len(x))) for first in range(0, len(x), step))


def position_blocks(
    n: int, window: Window, bytes_each: int, *, max_bytes: int = MAX_BYTES
) -> Iterator[Block]:
    """Cut the output positions of n images into blocks that follow each other in memory.

    Parameters
    ----------
    n : int
        Images.
    window : Window
    bytes_each : int
        Bytes that one position takes of `max_bytes`.
    max_bytes : int
        What a block may take; it holds a position at least.

    Yields
    ------
    tuple of three slices
        Several whole images, several whole rows of one image, or a part of one row. An array ``y``
        of shape (n, oh, ow, ...) has these positions at ``y[block]``, which is contiguous if ``y``
        is.
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
    x: NDArray[np.generic], window: Window, *, outside: float = 0, max_bytes: int = MAX_BYTES
) -> Iterator[tuple[Block, NDArray[np.generic]]]:
    """What the output positions of images see, a row for each of them, block by block.

    Parameters
    ----------
    x : ndarray of shape (n, h, w, c), any numbers
        For a group of a convolution, a slice of the channels.
    window : Window
        Made by `make_window` for images of this height and width.
    outside : number
        Value of the positions outside an image.
    max_bytes : int
        Most that the rows of a block take; a block holds a position at least.

    Yields
    ------
    block : tuple of three slices
        Which positions: see `position_blocks`.
    rows : ndarray of shape (positions, kh * kw * c), of the dtype of `x`, C-contiguous
        Only to be read, and only until the next block is asked for: the memory is `x` itself where
        its elements lie in this order already, or used again.

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
    if x.size == 0 or _rows_lie_in(x, window):
        everything = (slice(0, n), slice(0, window.output[0]), slice(0, window.output[1]))
        positions = n * math.prod(window.output)
        yield (
            everything,
            x.reshape(positions, width) if x.size else np.empty((positions, width), x.dtype),
        )
        return
    buffer: NDArray[np.generic] | None = None
    for block in position_blocks(n, window, width * x.itemsize, max_bytes=max_bytes):
        shape = tuple(part.stop - part.start for part in block)
        if buffer is None:  # no block is larger than the first
            buffer = np.empty((math.prod(shape), width), x.dtype)
        rows = buffer[: math.prod(shape)]
        _gather(x, window, block, outside, rows.reshape(*shape, width))
        yield block, rows


def _rows_lie_in(x: NDArray[np.generic], window: Window) -> bool:
    """Whether the rows of all patches are the elements of `x` in their order."""
    single = window.kernel == (1, 1) and window.stride == (1, 1)
    whole = window.kernel == window.image
    return (single or whole) and not window.is_padded and x.flags.c_contiguous


def _gather(
    x: NDArray[np.generic],
    window: Window,
    block: Block,
    outside: float,
    rows: NDArray[np.generic],
) -> None:
    """Write the patches of one block, of shape (images, rows, columns, kh * kw * c)."""
    bounds = []  # (first, last) of the seen part of the padded image, for height and width
    for part, kernel, stride, dilation in zip(
        block[1:], window.kernel, window.stride, window.dilation, strict=True
    ):
        last = (part.stop - 1) * stride + (kernel - 1) * dilation + 1
        bounds.append((part.start * stride, last))
    seen = math.prod(last - first for first, last in bounds)
    if seen > math.prod(rows.shape[1:3]) * window.taps:  # most of that part is between the taps
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
    """Copy the patches tap by tap."""
    (kh, kw), c = window.kernel, x.shape[3]
    rows.fill(outside)
    for ky in range(kh):
        seen_y, lines = tap_slices(window, 0, ky, block[1])
        for kx in range(kw):
            seen_x, pixels = tap_slices(window, 1, kx, block[2])
            first = (ky * kw + kx) * c
            rows[:, seen_y, seen_x, first : first + c] = x[block[0], lines, pixels]


def _gather_runs(part: NDArray[np.generic], window: Window, rows: NDArray[np.generic]) -> None:
    """Copy the patches from the part of the padded images that they see.

    Elements that are neighbours in the image and in the row travel as one: a line of the kernel, or
    the channels of a tap where taps lie apart. NumPy copies such an element in one step.
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
    """What lies within bounds of the padded images, C-contiguous."""
    inner, place = [], []  # what lies in the image: where there, and where in the part
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
    """Add what every patch holds to the positions it was taken from: the adjoint of im2col.

    Parameters
    ----------
    rows : ndarray of (positions * kh * kw * c) elements
        A row for each position of the block, as `patch_blocks` gives them.
    window : Window
    out : ndarray of shape (n, h, w, c)
        Images, changed in place. What belongs to positions outside is dropped.
    block : tuple of three slices, optional
        Which positions `rows` holds: see `position_blocks`. By default all of all images.
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


def sum_windows(x: NDArray[np.float32], window: Window, out: NDArray[np.float32]) -> None:
    """Sum over every window, with zeros outside; taps are added row by row, beginning with 0.

    Parameters
    ----------
    x : ndarray of shape (n, h, w, ...), float32
    window : Window
    out : ndarray of shape (n, oh, ow, ...), float32
    """
    oh, ow = window.output
    out.fill(0)
    vertical = [tap_slices(window, 0, ky, slice(0, oh)) for ky in seeing_taps(window, 0)]
    horizontal = [tap_slices(window, 1, kx, slice(0, ow)) for kx in seeing_taps(window, 1)]
    for images in image_blocks(x):
        for seen_y, rows in vertical:
            for seen_x, columns in horizontal:
                # A sum that began with 0 is never -0, so that zeros outside need not be added.
                part = out[images, seen_y, seen_x]
                np.add(part, x[images, rows, columns], out=part)


def seeing_taps(window: Window, direction: int) -> range:
    """The taps among which are all that see the image from some output position.

    Of a window that is far larger than the image they are few.
    """
    dilation, before = window.dilation[direction], window.padding[direction][0]
    farthest = (window.output[direction] - 1) * window.stride[direction]
    first = max(-((farthest - before) // dilation), 0)  # the least with a position >= 0
    last = -(-(window.image[direction] + before) // dilation)  # the least with none < size
    return range(first, max(first, min(last, window.kernel[direction])))


def tap_slices(window: Window, direction: int, tap: int, positions: slice) -> tuple[slice, slice]:
    """Which of some output positions see the image at a tap, from the first on, and where in it."""
    stride, size = window.stride[direction], window.image[direction]
    offset = tap * window.dilation[direction] - window.padding[direction][0]
    first = max(-(offset // stride), positions.start)  # the least with a position >= 0
    last = min(-((offset - size) // stride), positions.stop)  # the least with one >= size
    last = max(first, last)
    start = first * stride + offset
    stop = start + (last - first) * stride
    return (
        slice(first - positions.start, last - positions.start),
        slice(start, max(stop - stride + 1, start), stride),
    )
