"""Activations of rows with a learned shift and slope for each feature: outputs and gradients.

Each function passes once over the rows. The layers `PReLU`, `RPReLU` and `RSign` state the
equations. Sums have the order of those of `column_totals`: the same bits with any number of threads
and on every ISA.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .. import _core
from .memory import aligned_empty
from .normalize import float_rows

__all__ = ["prelu_gradient", "prelu_values"]

Numbers = NDArray[np.float32]


def prelu_values(
    x: Numbers, slope: Numbers, shift: Numbers | None = None, offset: Numbers | None = None
) -> Numbers:
    """Return z + offset, z = x - shift, times the slope of its feature where negative.

    The 0 that is added before the offset makes +0.0 of each -0.0.
    """
    rows = float_rows(x)
    y = aligned_empty(rows.shape, np.float32)
    _core.prelu_values(rows, shift, slope, offset, y)
    return y.reshape(x.shape)


def prelu_gradient(
    x: Numbers, dy: Numbers, shift: Numbers, slope: Numbers | None = None
) -> tuple[Numbers, NDArray[np.float64]]:
    """Compute the gradient dx of PReLU, or of a sign if there is no slope, and sums over all rows.

    Parameters
    ----------
    x, dy : ndarray of shape (..., features), float32
    shift, slope : ndarray of shape (features,), float32

    Returns
    -------
    dx : ndarray of the shape of x, float32
    sums : ndarray of shape (3, features), or (1, features) without a slope, float64
        Of dx; of dy * z where z < 0; of dy. Added up as `column_totals` does.
    """
    rows = float_rows(x)
    dx = aligned_empty(rows.shape, np.float32)
    sums = np.empty((1 if slope is None else 3, x.shape[-1]), np.float64)
    _core.prelu_gradient(rows, float_rows(dy), shift, slope, dx, sums)
    return dx.reshape(x.shape), sums
