"""The rows that are nearest to queries, by any metric, among all rows or a subset."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .. import _core
from ..ops.array import pack
from ..ops.checks import check_integer
from ..ops.indexing import plain_index
from ..ops.linalg import MAX_TOPK_ROWS, product_operands
from ..ops.prepack import Prepacked
from .ids import check_ids
from .metrics import Columns, Metric, Rows, check_metric, operand_counts

__all__ = ["MISSING", "MOST_COUNT", "check_count", "topk"]

Ids = NDArray[np.int64]
Words = NDArray[np.uint64]

MISSING = -1  # distance and id where there are fewer rows than asked for
MOST_COUNT = 1 << 16  # that may be asked for where there are fewer rows
FEW = 64  # fewer rows than this part of all are copied before the search


def topk(
    a: Rows, b: Columns, count: int, metric: str, *, subset: ArrayLike | None = None
) -> tuple[NDArray[Any], NDArray[np.int64]]:
    """Find the rows of `b` that are nearest to each row of `a`.

    Parameters
    ----------
    a : BitArray of shape (..., m, k), packed along k; or array_like, packed by sign on the fly
        The queries.
    b : BitArray of shape (..., n, k), packed along k; or array_like, or Prepacked of shape (n, k)
        The rows to search. Leading axes broadcast as in ``np.matmul``.
    count : int
        How many to return for each query, at least 1, and at most max(65,536, n).
    metric : {"hamming", "jaccard", "dice", "intersection"}
        As in `pairwise`. The nearest rows have the smallest distances, or the largest
        intersections.
    subset : array_like of bool of shape (n,), or of integers of shape (s,), optional
        The rows that may be found: a mask, or their ids in any order.

    Returns
    -------
    distances : ndarray of shape (..., m, count), of the dtype of `pairwise`
        Nearest first.
    indices : ndarray of shape (..., m, count), int64
        The indices of these rows in `b`. Among rows at the same distance, smaller ones come first.
        If fewer than `count` rows may be found, the rest of each row is -1 in both arrays.

    Raises
    ------
    TypeError
        If an operand does not hold real numbers, `count` is not an integer, `metric` is not a str,
        or `subset` holds neither bool nor integers.
    ValueError
        If `count` is out of range, an operand holds NaN, k differs, leading axes do not broadcast,
        no metric has this name, or `subset` has the wrong shape or an id that no row has.

    Notes
    -----
    The matrix of distances is never stored. Besides the results, a call needs some MiB.

    By other metrics than "hamming", three things make a search faster, and none changes a result.
    Prepacked rows keep the counts of their bits. They also keep their bits in another order, which
    takes as much memory again, once queries come that have less than an eighth of their bits set.
    Rows that are sorted by their counts are left out where they are too small or too large.

    Examples
    --------
    >>> a = [[True, True, False]]
    >>> b = [[True, True, True], [False, False, True], [True, False, False]]
    >>> topk(a, b, 2, "jaccard")
    (array([[0.33333333, 0.5       ]]), array([[0, 2]]))
    >>> topk(a, b, 2, "intersection", subset=[1])
    (array([[ 0, -1]], dtype=int32), array([[ 1, -1]]))
    """
    where = "search.topk"
    own = check_metric(where, metric)
    rows, columns, k, batch, shape = product_operands(where, a, b, ("a", "b"))
    *lead, m, n = shape
    count = check_count(where, count, n)
    if n > MAX_TOPK_ROWS:
        raise ValueError(f"[{where}] b must have at most {MAX_TOPK_ROWS} rows, got {n}")
    chosen = None if subset is None else _Subset(where, subset, n)
    found = min(count, n if chosen is None else chosen.size)
    distances = np.full((*lead, m, count), MISSING, own.dtype)
    indices = np.full((*lead, m, count), MISSING, np.int64)
    if not found or not distances.size:
        return distances, indices
    if batch is None:
        products = [(rows, columns, b)]
    else:
        a_blocks = rows.reshape(-1, m, rows.shape[1])
        assert isinstance(columns, np.ndarray)  # Prepacked has no leading axes
        b_blocks = columns.reshape(-1, n, rows.shape[1])
        pairs = zip(*batch[2:], strict=True)
        products = [(a_blocks[i], b_blocks[j], b_blocks[j]) for i, j in pairs]
    parts = [_nearest(own, x, y, source, k, found, chosen) for x, y, source in products]
    for result, part in zip((distances, indices), zip(*parts, strict=True), strict=True):
        result[..., :found] = np.reshape(part, (*lead, m, found))
    return distances, indices


def check_count(where: str, count: Any, n: int) -> int:
    """Check how many of n rows are to be found for each query, and return it as a plain int.

    Places of rows that are not there take memory too: 12 bytes each and for each query. Who wants
    all rows has to ask for n, not for any large number.
    """
    count = check_integer(where, "count", count, 1)
    if count > max(n, MOST_COUNT):
        raise ValueError(
            f"[{where}] count must be at most {MOST_COUNT}, or the number of rows, {n}, got {count}"
        )
    return count


class _Subset:
    """The rows that may be found.

    Attributes
    ----------
    size : int
        How many there are.
    ids : ndarray of int64, or None
        Ascending, if they are few.
    mask, allowed : ndarray of bool, ndarray of uint64; or None
        Otherwise one element, and one bit, for each row.
    """

    def __init__(self, where: str, subset: ArrayLike, n: int) -> None:
        array = plain_index(where, "subset", subset)
        if array.ndim != 1:
            raise ValueError(f"[{where}] subset must have one axis, got shape {array.shape}")
        ids = mask = None
        if array.dtype.kind == "b":
            if len(array) != n:
                raise ValueError(f"[{where}] a mask must have shape ({n},), got {array.shape}")
            mask = array
            self.size = int(np.count_nonzero(mask))
        else:
            ids = np.unique(check_ids(where, "subset", array, 0, n, kinds="bool or integers"))
            self.size = len(ids)
        self.ids: Ids | None = None
        self.mask: NDArray[np.bool_] | None = None
        self.allowed: Words | None = None
        if self.size * FEW < n:
            self.ids = ids if mask is None else np.flatnonzero(mask)
            return
        if mask is None:
            mask = np.zeros(n, bool)
            mask[ids] = True
        self.mask, self.allowed = mask, pack(mask).words


def _nearest(
    metric: Metric,
    rows: Words,
    columns: Words | _core.Panels,
    b: Columns,
    k: int,
    count: int,
    subset: _Subset | None,
) -> tuple[NDArray[Any], Ids]:
    """Find the nearest rows of a matrix; `columns` are those of `b`."""
    ids = None if subset is None else subset.ids
    if ids is not None:
        words = b.rows() if isinstance(b, Prepacked) else columns
        assert isinstance(words, np.ndarray)
        b = columns = words.take(ids, axis=0)
    counts = operand_counts(metric, rows, columns, b)
    values = np.empty((len(rows), count), metric.dtype)
    indices = np.empty((len(rows), count), np.int64)
    if counts is not None and values.dtype.kind == "f" and k > _core.RANKED_BITS:
        mask = None if subset is None else subset.mask
        for i in range(len(rows)):
            own = np.empty((1, len(counts[1])))
            part = counts[0][i : i + 1], counts[1]
            _core.metric(metric.kind, rows[i : i + 1], columns, k, None, *part, own)
            values[i], indices[i] = _smallest(own[0], count, mask)
    else:
        allowed = None if subset is None else subset.allowed
        # Queries of like sizes, side by side, are near to the same rows.
        order = slice(None) if counts is None else np.argsort(counts[0], kind="stable")
        a_counts, b_counts = counts or (None, None)
        if counts is not None:
            rows, a_counts = rows[order], counts[0][order]
        lines = None
        if isinstance(b, Prepacked) and a_counts is not None and _core.lines_pay(k, a_counts):
            lines = b.derived("lines", lambda: _core.Lines(b.rows()))
        found = np.empty_like(values), np.empty_like(indices)
        _core.topk(metric.kind, rows, columns, k, a_counts, b_counts, allowed, *found, lines)
        values[order], indices[order] = found
    return values, indices if ids is None else ids[indices]


def _smallest(values: NDArray[Any], count: int, mask: NDArray[np.bool_] | None) -> tuple[Any, Ids]:
    """Return the smallest values and where they are; of equal ones, the first."""
    if mask is not None:
        values = np.where(mask, values, np.inf)
    limit = np.partition(values, count - 1)[count - 1]
    near = np.flatnonzero(values <= limit)
    first = near[np.argsort(values[near], kind="stable")[:count]]
    return values[first], first
