"""Sums over all rows of an array, right to the rounding of float32 for any number of rows."""

from __future__ import annotations

import numpy as np

# Rows that are summed in float32 one after the other: what that loses grows with their number. More
# than a few are summed in blocks, whose sums are added in float64.
FEW, BLOCK = 512, 64


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
    rows = x.reshape(-1, x.shape[-1])
    with np.errstate(over="ignore", invalid="ignore"):
        if len(rows) <= FEW:
            sums = np.add.reduce(rows).astype(np.float64)
        else:
            whole = len(rows) // BLOCK * BLOCK
            blocks = rows[:whole].reshape(-1, BLOCK, rows.shape[1])
            sums = np.add.reduce(blocks, axis=1).sum(axis=0, dtype=np.float64)
            sums += np.add.reduce(rows[whole:])
    if np.isfinite(sums).all():
        return sums
    return rows.sum(axis=0, dtype=np.float64)  # a block may overflow where the sum does not


def column_means(x: np.ndarray) -> np.ndarray:
    """Mean of each feature over all rows, float32; arguments as in `column_sums`."""
    return (column_sums(x) / (x.size // x.shape[-1])).astype(np.float32)
