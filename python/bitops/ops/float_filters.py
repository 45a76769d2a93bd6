"""Convolutions of float32 images with float32 filters by a kernel of the instruction set in force.

Layers and plans call it by the same rule, so that both give the same bits.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .. import _core
from .geometry import Window

__all__ = ["FloatPanels", "convolve_floats", "float_panels", "normal_or_0"]

FloatPanels = _core.FloatPanels


def normal_or_0(w: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return weights with 0 for those below the normal numbers of float32 (2^-126).

    They occur where weights decay, and with a few of them a convolution would take a hundred times
    as long.
    """
    exponents = np.ascontiguousarray(w).view(np.uint32) & np.uint32(0x7F800000)
    return np.where(exponents != 0, w, np.float32(0))


def float_panels(w: NDArray[np.float32]) -> FloatPanels | None:
    """Return filters (o, kh, kw, c) in the order of the kernel; None if BLAS has to do.

    They are those of `normal_or_0`.
    """
    if w.size == 0:
        return None
    return _core.float_panels(np.ascontiguousarray(w).reshape(len(w), -1))


def convolve_floats(
    x: NDArray[np.float32], panels: FloatPanels, window: Window, out: NDArray[np.float32]
) -> None:
    """Write the convolution of images (n, h, w, c) to `out`; neither has an axis of size 0."""
    _core.float_conv(np.ascontiguousarray(x), window, panels, out)
