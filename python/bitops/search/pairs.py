"""Values of a metric: of all pairs of rows, and of rows that stand side by side."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import _core
from ..ops.linalg import product_operands
from ..ops.results import Result
from .metrics import Columns, Operands, Rows, check_metric, operand_counts, row_counts

__all__ = ["paired", "pairwise"]

PAIRED_WORDS = 1 << 16  # words that are compared at once


def pairwise(a: Rows, b: Columns, metric: str, *, out: NDArray[Any] | None = None) -> NDArray[Any]:
    """Compare each row of `a` with each row of `b`.

    Parameters
    ----------
    a : BitArray of shape (..., m, k), packed along k; or array_like, packed by sign on the fly
    b : BitArray of shape (..., n, k), packed along k; or array_like, or Prepacked of shape (n, k)
        Leading axes broadcast as in ``np.matmul``.
    metric : {"hamming", "jaccard", "dice", "intersection"}
        See Notes.
    out : ndarray of shape (..., m, n), optional
        Where to put the result, of exactly its dtype. Undefined after an interrupt.

    Returns
    -------
    ndarray of shape (..., m, n)
        int32 for "hamming" and "intersection", float64 for "jaccard" and "dice".

    Raises
    ------
    TypeError
        If an operand does not hold real numbers, `metric` is not a str, or `out` is not an ndarray
        of the dtype of the result.
    ValueError
        If an operand holds NaN, k differs, leading axes do not broadcast, no metric has this name,
        or `out` has another shape or is read-only.

    Notes
    -----
    Rows are seen as sets of the elements that are +1, and ``|a|`` is the size of a set::

        hamming         number of elements in which the rows differ
        intersection    |a & b|
        jaccard         1 - |a & b| / |a | b|
        dice            1 - 2 |a & b| / (|a| + |b|)

    Two empty rows have the Jaccard and Dice distance 0. Both are computed from exact integers by
    one division, so they are the float64 numbers that are nearest to the true ones.

    Examples
    --------
    >>> a = [[True, True, False, False]]
    >>> b = [[True, True, True, True], [False, True, True, False]]
    >>> pairwise(a, b, "intersection")
    array([[2, 1]], dtype=int32)
    >>> pairwise(a, b, "dice")
    array([[0.33333333, 0.5       ]])
    """
    where = "search.pairwise"
    values = check_metric(where, metric)
    rows, columns, k, batch, shape = product_operands(where, a, b, ("a", "b"))
    result = Result(where, shape, values.dtype, out, rows, columns)
    a_counts, b_counts = operand_counts(values, rows, columns, b) or (None, None)
    _core.metric(values.kind, rows, columns, k, batch, a_counts, b_counts, result.matrix)
    return result.deliver()


def paired(a: Rows, b: Rows, metric: str) -> NDArray[Any]:
    """Compare each row of `a` with the row of `b` of the same index.

    Parameters
    ----------
    a, b : BitArray of shape (n, k), packed along k; or array_like, packed by sign on the fly
    metric : {"hamming", "jaccard", "dice", "intersection"}
        As in `pairwise`.

    Returns
    -------
    ndarray of shape (n,)
        The diagonal of ``pairwise(a, b, metric)``, of its dtype.

    Raises
    ------
    TypeError
        If an operand does not hold real numbers, or `metric` is not a str.
    ValueError
        If an operand is not a matrix or holds NaN, the shapes differ, or no metric has this name.

    Examples
    --------
    >>> paired([[1, 1, -1], [1, -1, -1]], [[1, -1, 1], [1, -1, -1]], "hamming")
    array([2, 0], dtype=int32)
    """
    where = "search.paired"
    operands = Operands(where, a, b, metric)
    if operands.m != operands.n:
        raise ValueError(
            f"[{where}] a and b must have the same shape, "
            f"got {operands.a.shape} and {operands.b.shape}"
        )
    a_words, b_words = operands.a.words, operands.b.words
    h = np.empty(operands.m, np.int64)
    step = max(PAIRED_WORDS // max(a_words.shape[1], 1), 1)
    for i in range(0, operands.m, step):
        part = slice(i, i + step)
        h[part] = row_counts(a_words[part] ^ b_words[part])
    return operands.metric.values(h, operands.sums(slice(None), slice(None)))
