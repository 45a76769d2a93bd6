"""Pools of images."""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..ops.geometry import Padding, Pair, make_window
from .windows import mean_of_taps, window_values


def max_pool2d(
    x: ArrayLike, kernel_size: int | Pair, *, stride: int | Pair | None = None, padding: Padding = 0
) -> NDArray[Any]:
    """Take the largest value of each window; positions outside the image do not count.

    Parameters
    ----------
    x : array_like of shape (n, h, w, c), real
        Values of +1 and -1 where the public function takes a BitArray.
    kernel_size, stride, padding
        As in `bitops.max_pool2d`.

    Returns
    -------
    ndarray of shape (n, oh, ow, c), of the dtype of `x`
    """
    x = np.asarray(x)
    step = kernel_size if stride is None else stride
    window = make_window("max_pool2d", x.shape[1:3], kernel_size, step, padding)
    least = -np.inf if x.dtype.kind == "f" else np.iinfo(x.dtype).min
    return window_values(x, window, least).max(axis=(3, 4))


def avg_pool2d(
    x: ArrayLike, kernel_size: int | Pair, *, stride: int | Pair | None = None, padding: Padding = 0
) -> NDArray[np.float32]:
    """Take the mean of each window; positions outside the image count as zeros.

    Parameters
    ----------
    x : array_like of shape (n, h, w, c), real
        Used as float32.
    kernel_size, stride, padding
        As in `bitops.avg_pool2d`.

    Returns
    -------
    ndarray of shape (n, oh, ow, c), float32
        The taps are added from first to last in float32, and the sum is divided by their number.
    """
    x = np.asarray(x, np.float32)
    step = kernel_size if stride is None else stride
    window = make_window("avg_pool2d", x.shape[1:3], kernel_size, step, padding)
    return mean_of_taps(window_values(x, window, 0))


def global_avg_pool2d(x: ArrayLike) -> NDArray[np.float32]:
    """Take the mean of each channel of each image.

    Parameters
    ----------
    x : array_like of shape (n, h, w, c), real

    Returns
    -------
    ndarray of shape (n, c), float32
        The sums are made in float64.
    """
    return np.asarray(np.mean(np.asarray(x), axis=(1, 2), dtype=np.float64), np.float32)
