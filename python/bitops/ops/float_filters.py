"""Convolutions of float32 images with float32 filters by a kernel of the instruction set in force.

Layers and plans call it by the same rule, so that both give the same bits.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .. import _core
from .geometry import Window

__all__ = ["FloatPanels", "convolve_floats", "float_panels"]

FloatPanels = _core.FloatPanels


def float_panels(w: NDArray[np.float32]) -> FloatPanels | None:
    """Return filters (o, kh, kw, c) in the order of the kernel; None if BLAS has to do.

    Weights that are not normal numbers count as 0, as by `normal_or_0`.
    """
    if w.size == 0:
        return None
    return _core.float_panels(np.ascontiguousarray(w).reshape(len(w), -1))


def convolve_floats(
    x: NDArray[np.float32], panels: FloatPanels, window: Window, out: NDArray[np.float32]
) -> None:
    """Write the convolution of images (n, h, w, c) to `out`; neither has an axis of size 0."""
    _core.float_conv(np.ascontiguousarray(x), window, panels, out)
