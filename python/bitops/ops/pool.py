"""Pooling of images of bits or numbers: max_pool2d, avg_pool2d, global_avg_pool2d."""

from __future__ import annotations

import functools
from typing import Any, overload

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .. import _core
from .array import BitArray
from .checks import as_float32
from .geometry import Padding, Pair, Window, check_result, make_window
from .memory import aligned_empty
from .patches import image_blocks, number_images, seen_slices
from .results import Result

__all__ = [
    "avg_pool2d",
    "global_avg_pool2d",
    "max_gradient",
    "max_places",
    "max_pool2d",
    "mean_gradient",
]


@overload
def max_pool2d(
    x: BitArray,
    kernel_size: int | Pair,
    *,
    stride: int | Pair | None = None,
    padding: Padding = 0,
    out: None = None,
) -> BitArray: ...
@overload
def max_pool2d(
    x: ArrayLike,
    kernel_size: int | Pair,
    *,
    stride: int | Pair | None = None,
    padding: Padding = 0,
    out: NDArray[Any] | None = None,
) -> NDArray[Any]: ...
def max_pool2d(
    x: ArrayLike | BitArray,
    kernel_size: int | Pair,
    *,
    stride: int | Pair | None = None,
    padding: Padding = 0,
    out: NDArray[Any] | None = None,
) -> NDArray[Any] | BitArray:
    """Take the largest value of each window, channel by channel.

    Parameters
    ----------
    x : BitArray of shape (n, h, w, c), packed along c; or array_like of integers or floats
    kernel_size : int or (kh, kw)
        Size of the window.
    stride : int or (height, width), optional
        Step from one window to the next. By default, this is `kernel_size`.
    padding : int, (height, width), ((top, bottom), (left, right)), "same" or "valid"
        As in `conv2d`, but smaller than the window. Positions outside do not count.
    out : ndarray of shape (n, oh, ow, c), optional
        Where to put the result, of exactly its dtype. Not available for bits.

    Returns
    -------
    BitArray or ndarray of shape (n, oh, ow, c)
        A BitArray packed along c if `x` is a BitArray, otherwise numbers of the dtype of `x`.

    Raises
    ------
    TypeError
        If `x` is neither a BitArray nor holds integers or floats, a setting has a wrong type, `out`
        is passed for bits, or `out` is not an ndarray of the dtype of the result.
    ValueError
        If `x` does not have four axes, its images are empty, its bits are not packed along the last
        axis, a setting is too small, the window exceeds the padded image, the padding is not
        smaller than the window, or `out` has another shape or is read-only.

    Notes
    -----
    The largest of several bits is their OR. A window that holds NaN gives NaN.

    Examples
    --------
    >>> import numpy as np
    >>> max_pool2d(np.array([[1, 2, -1, -2], [3, 0, -5, -3]]).reshape(1, 2, 4, 1), 2).ravel()
    array([ 3, -1])
    """
    if isinstance(x, BitArray):
        if out is not None:
            raise TypeError(
                "[max_pool2d] out must be None for bits, which come in a new BitArray, "
                f"got {type(out).__name__}"
            )
        if x.ndim != 4 or x.axis != 3:
            raise ValueError(
                "[max_pool2d] x must have shape (n, h, w, c) and be packed along c, "
                f"got packed axis {x.axis} of shape {x.shape}"
            )
        window, shape = _pool_window("max_pool2d", x.shape, kernel_size, stride, padding)
        words = _core.max_windows(x._words, True, window, None)
        if words is None:
            words = aligned_empty((*shape[:3], x._words.shape[3]), np.uint64)
            if _core.max_windows(x._words, True, window, words) is None:
                _combine_windows(x._words, window, np.bitwise_or, 0, words)
        return BitArray._make(words, shape, 3)
    images = number_images("max_pool2d", x)
    window, shape = _pool_window("max_pool2d", images.shape, kernel_size, stride, padding)
    result = Result("max_pool2d", shape, images.dtype, out, images)
    if _core.max_windows(images, False, window, result.array) is None:
        least = -np.inf if images.dtype.kind == "f" else np.iinfo(images.dtype).min
        _combine_windows(images, window, np.maximum, least, result.array)
    return result.deliver()


def max_places(x: NDArray[Any], y: NDArray[Any], window: Window) -> NDArray[np.uint8] | None:
    """Find the first number of each window that equals their maximum.

    Parameters
    ----------
    x : ndarray of shape (n, h, w, c)
    y : ndarray of shape (n, oh, ow, c)
        The maxima.
    window : Window

    Returns
    -------
    ndarray of the shape of y, uint8, or None
        Counted in row-major order, with the taps outside; 255 where the maximum is NaN. None if
        numbers are not float32, or windows have more than 255 taps.
    """
    if x.dtype != np.float32 or window.taps > 255:
        return None
    places = aligned_empty(y.shape, np.uint8)
    _core.max_places(np.ascontiguousarray(x), np.ascontiguousarray(y), window, places)
    return places


def max_gradient(
    places: NDArray[np.uint8], dy: NDArray[Any], window: Window, shape: tuple[int, ...]
) -> NDArray[np.float32]:
    """Give each number the sum of dy over the windows where `max_places` found it.

    Parameters
    ----------
    places, dy : ndarray of shape (n, oh, ow, c)
    window : Window
    shape : tuple of int
        (n, h, w, c), of the gradient.

    Returns
    -------
    ndarray of that shape, float32
    """
    dx = aligned_empty(shape, np.float32)
    _core.max_gradient(places, np.ascontiguousarray(dy, np.float32), window, dx)
    return dx


def mean_gradient(dy: NDArray[Any], window: Window, shape: tuple[int, ...]) -> NDArray[np.float32]:
    """Give each number dy / (kh * kw) of all windows that see it.

    Parameters
    ----------
    dy : ndarray of shape (n, oh, ow, c)
    window : Window
    shape : tuple of int
        (n, h, w, c), of the gradient.

    Returns
    -------
    ndarray of that shape, float32
    """
    dx = aligned_empty(shape, np.float32)
    _core.mean_gradient(np.ascontiguousarray(dy, np.float32), window, dx)
    return dx


def avg_pool2d(
    x: ArrayLike,
    kernel_size: int | Pair,
    *,
    stride: int | Pair | None = None,
    padding: Padding = 0,
    out: NDArray[np.float32] | None = None,
) -> NDArray[np.float32]:
    """Take the mean of each window, channel by channel.

    Parameters
    ----------
    x : array_like of shape (n, h, w, c), integers or floats, used as float32
    kernel_size, stride, padding
        As in `max_pool2d`, but positions outside count as zeros.
    out : ndarray of shape (n, oh, ow, c), float32, optional
        Where to put the result.

    Returns
    -------
    ndarray of shape (n, oh, ow, c), float32

    Raises
    ------
    TypeError
        As in `max_pool2d`, or if `x` is packed.
    ValueError
        As in `max_pool2d`.

    Notes
    -----
    The values in a window, with zeros outside, are added row by row, and the sum is divided by
    ``kh * kw``. Each step is rounded to float32.

    Examples
    --------
    >>> import numpy as np
    >>> avg_pool2d(np.array([[1, 2, -1, -2], [3, 0, -5, -3]]).reshape(1, 2, 4, 1), 2).ravel()
    array([ 1.5 , -2.75], dtype=float32)
    """
    images = number_images("avg_pool2d", x)
    window, shape = _pool_window("avg_pool2d", images.shape, kernel_size, stride, padding)
    result = Result("avg_pool2d", shape, np.float32, out, images)
    _core.mean_windows(np.ascontiguousarray(as_float32(images)), window, result.array)
    return result.deliver()


def global_avg_pool2d(
    x: ArrayLike, *, out: NDArray[np.float32] | None = None
) -> NDArray[np.float32]:
    """Take the mean of each channel of each image.

    Parameters
    ----------
    x : array_like of shape (n, h, w, c), integers or floats
    out : ndarray of shape (n, c), float32, optional
        Where to put the result.

    Returns
    -------
    ndarray of shape (n, c), float32
        The sums are made in float64.

    Raises
    ------
    TypeError
        If `x` is packed or does not hold integers or floats, or `out` is not an ndarray of float32.
    ValueError
        If `x` does not have four axes, its images are empty, or `out` has another shape or is
        read-only.

    Examples
    --------
    >>> global_avg_pool2d(np.arange(8).reshape(1, 2, 2, 2))
    array([[3., 4.]], dtype=float32)
    """
    images = number_images("global_avg_pool2d", x)
    _check_positions("global_avg_pool2d", images.shape)
    n, h, w, c = images.shape
    result = Result("global_avg_pool2d", (n, c), np.float32, out, images)
    # NumPy adds many channels from first to last, as the kernel does, but a single one pairwise.
    if images.dtype == np.float32 and c > 1 and images.flags.c_contiguous:
        _core.mean_images(images, result.array)
    else:
        with np.errstate(all="ignore"):  # infinities are ordinary values
            total = np.add.reduce(images, axis=(1, 2), dtype=np.float64)
            np.divide(total, h * w, out=result.array)
    return result.deliver()


def _check_positions(where: str, shape: tuple[int, ...]) -> None:
    """Check that images of a shape (n, h, w, c) have a height and a width."""
    if 0 in shape[1:3]:
        raise ValueError(f"[{where}] the images of x must have positions, got shape {shape}")


def _pool_window(
    where: str, shape: tuple[int, ...], kernel_size: Any, stride: Any, padding: Any
) -> tuple[Window, tuple[int, ...]]:
    """Return the windows over images of shape (n, h, w, c); each must see some of its image.

    Returns
    -------
    window : Window
    shape : tuple of int
        Shape (n, oh, ow, c) of the result.
    """
    settings = where, shape, kernel_size, stride, padding
    return (_known_pool if _core.is_plain(settings) else _make_pool)(*settings)


def _make_pool(
    where: str, shape: tuple[int, ...], kernel_size: Any, stride: Any, padding: Any
) -> tuple[Window, tuple[int, ...]]:
    """Do the work of `_pool_window`, which caches the results."""
    _check_positions(where, shape)
    image: Pair = (shape[1], shape[2])
    step = kernel_size if stride is None else stride
    window = make_window(where, image, kernel_size, step, padding)
    for name, kernel, sides in zip(("height", "width"), window.kernel, window.padding, strict=True):
        if max(sides) >= kernel:
            raise ValueError(
                f"[{where}] padding must be smaller than the window, "
                f"got {max(sides)} for {name} {kernel}"
            )
    output = (shape[0], *window.output, shape[3])
    check_result(where, output)
    return window, output


_known_pool = functools.lru_cache(maxsize=256)(_make_pool)


def _combine_windows(
    x: NDArray[Any], window: Window, combine: np.ufunc, start: Any, out: NDArray[Any]
) -> None:
    """Reduce each window with a ufunc for which order and repetition do not matter.

    This reduces along the height first, in long contiguous steps, and then along the width.
    """
    _, _, w, c = x.shape
    for images in image_blocks(x):
        rows = np.empty((images.stop - images.start, window.output[0], w, c), x.dtype)
        _combine_taps(x[images], window, 0, combine, start, rows)
        _combine_taps(rows, window, 1, combine, start, out[images])


def _combine_taps(
    x: NDArray[Any],
    window: Window,
    direction: int,
    combine: np.ufunc,
    start: Any,
    out: NDArray[Any],
) -> None:
    """Reduce the windows along the height (direction 0) or the width (1)."""
    ahead = (slice(None),) * (1 + direction)
    taps = seen_slices(window, direction)
    if window.padding[direction] == (0, 0):  # every tap sees the image everywhere
        seen = [x[(*ahead, place)] for _, place in taps]
        combine(seen[0], seen[-1], out=out)
        for values in seen[1:-1]:
            combine(out, values, out=out)
        return
    out.fill(start)
    for positions, place in taps:
        part = out[(*ahead, positions)]
        combine(part, x[(*ahead, place)], out=part)
