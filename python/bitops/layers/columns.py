"""Sums over all rows of an array, right to the rounding of float32 for any number of rows."""

from __future__ import annotations

import numpy as np

from ..ops.normalize import column_totals


def column_sums(x: np.ndarray) -> np.ndarray:
    """Sum of each feature over all rows.

    Parameters
    ----------
    x : ndarray of shape (..., features), float32

    Returns
    -------
    ndarray of shape (features,), float64
        The same bits with any number of threads and on every ISA.

    Examples
    --------
    >>> column_sums(np.float32([[1, 10], [2, 20]]))
    array([ 3., 30.])
    """
    sums = column_totals(x)
    return sums if np.isfinite(sums).all() else exact_sums(x)


def exact_sums(x: np.ndarray) -> np.ndarray:
    """Sum in float64, where a sum of float32 may overflow although that of all rows does not."""
    with np.errstate(over="ignore", invalid="ignore"):
        return x.reshape(-1, x.shape[-1]).sum(axis=0, dtype=np.float64)


def column_means(x: np.ndarray) -> np.ndarray:
    """Mean of each feature over all rows, float32; arguments as in `column_sums`."""
    return as_means(column_sums(x), x)


def as_means(sums: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Divide sums by the rows of x, and round to float32."""
    return (sums / (x.size // x.shape[-1])).astype(np.float32)
