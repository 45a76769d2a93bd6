"""The values that windows over images see, and their mean."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..ops.geometry import Window


def window_values(x: NDArray[Any], window: Window, outside: float) -> NDArray[Any]:
    """Return the patch that each output position sees: (n, h, w, c) to (n, oh, ow, kh, kw, c)."""
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


def mean_of_taps(seen: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the mean of each window, with the taps added from first to last."""
    n, oh, ow, kh, kw, c = seen.shape
    total = np.zeros((n, oh, ow, c), np.float32)
    for tap in np.moveaxis(seen.reshape(n, oh, ow, kh * kw, c), 3, 0):
        total += tap
    return total / np.float32(kh * kw)
