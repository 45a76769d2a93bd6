"""The rows that are nearest to queries, by any metric, among all rows or a subset."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..ops.array import BitArray
from ..ops.checks import check_integer, plain_array
from ..ops.linalg import hamming_topk
from .metrics import Columns, Metric, Operands, Rows
from .pairs import PANEL_WORDS, Block, blocks

__all__ = ["topk"]

Ids = NDArray[np.int64]

MISSING = -1  # distance and id where there are fewer rows than asked for
FEW = 16  # a part of the pairs as small as this is handled pair by pair
MANY = 4  # times as many as are kept: so many offered rows are not sorted, but cut down first


def topk(
    a: Rows, b: Columns, count: int, metric: str, *, subset: ArrayLike | None = None
) -> tuple[NDArray[Any], NDArray[np.int64]]:
    """Find the rows of `b` that are nearest to each row of `a`.

    Parameters
    ----------
    a : BitArray of shape (m, k), packed along k; or array_like, packed by sign on the fly
        The queries.
    b : BitArray of shape (n, k), packed along k; or array_like, or Prepacked
        The rows to search.
    count : int
        How many to return for each query, at least 1.
    metric : {"hamming", "jaccard", "dice", "intersection"}
        As in `pairwise`. The nearest rows have the smallest distances, or the largest
        intersections.
    subset : array_like of bool of shape (n,), or of integers of shape (s,), optional
        The rows that may be found: a mask, or their ids in any order.

    Returns
    -------
    distances : ndarray of shape (m, count), of the dtype of `pairwise`
        Nearest first.
    indices : ndarray of shape (m, count), int64
        The indices of these rows in `b`. Among rows at the same distance, smaller ones come first.
        If fewer than `count` rows may be found, the rest of each row is -1 in both arrays.

    Raises
    ------
    TypeError
        If an operand does not hold real numbers, `count` is not an integer, `metric` is not a str,
        or `subset` holds neither bool nor integers.
    ValueError
        If `count` is less than 1, an operand is not a matrix or holds NaN, k differs, no metric has
        this name, or `subset` has the wrong shape or an id that no row has.

    Notes
    -----
    The matrix of distances is never stored. Besides the results, a call needs some MiB. For
    "hamming" without a subset this is `bitops.hamming_topk`.

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
    operands = Operands(where, a, b, metric)
    count = check_integer(where, "count", count, 1)
    ids = None if subset is None else _subset_ids(where, subset, operands.n)
    found = operands.n if ids is None else len(ids)
    best = _Best(operands.m, min(count, found), operands.metric)
    if operands.m and found:
        if ids is None and operands.metric.name == "hamming":
            best.keys, best.ids = hamming_topk(operands.a, b, min(count, found))
        elif ids is None:
            _search(operands, None, best)
        else:
            step = max(PANEL_WORDS // max(operands.b.words.shape[1], 1), 1)
            for start in range(0, found, step):
                _search(operands, ids[start : start + step], best)
    distances = np.full((operands.m, count), MISSING, operands.metric.dtype)
    indices = np.full((operands.m, count), MISSING, np.int64)
    np.multiply(best.keys, operands.metric.sign, out=distances[:, :found], casting="same_kind")
    indices[:, :found] = best.ids
    return distances, indices


def _subset_ids(where: str, subset: ArrayLike, n: int) -> NDArray[np.int64]:
    """Return the ids that a subset allows, each once, in ascending order."""
    array = plain_array(where, "subset", subset)
    if array.ndim != 1:
        raise ValueError(f"[{where}] subset must have one axis, got shape {array.shape}")
    if array.dtype.kind == "b":
        if len(array) != n:
            raise ValueError(f"[{where}] a mask must have shape ({n},), got {array.shape}")
        return np.flatnonzero(array)
    if not array.size:  # an empty list is float64
        return np.empty(0, np.int64)
    if array.dtype.kind not in "iu":
        raise TypeError(f"[{where}] subset must hold bool or integers, got dtype {array.dtype}")
    ids = np.unique(array)
    for extreme in (ids[0], ids[-1]):
        if not 0 <= extreme < n:
            raise ValueError(f"[{where}] ids of subset must be in [0, {n}), got {extreme}")
    return ids.astype(np.int64)


class _Best:
    """The nearest rows found so far for each query.

    A key is a distance, or a negative intersection: the nearest row has the smallest.

    Attributes
    ----------
    keys, ids : ndarray of shape (m, count)
        In ascending order of the keys, then of the ids.
    """

    def __init__(self, m: int, count: int, metric: Metric) -> None:
        # int64 has a key beyond every distance; int32 has none beyond 2**31 - 1
        is_float = metric.dtype.kind == "f"
        far, dtype = (np.inf, np.float64) if is_float else (np.iinfo(np.int64).max, np.int64)
        self.keys: NDArray[Any] = np.full((m, count), far, dtype)
        self.ids = np.full((m, count), MISSING, np.int64)

    def add(self, i: int, keys: NDArray[Any], ids: NDArray[np.int64]) -> None:
        """Offer rows to queries i, i + 1, ...: one key for each query and row.

        Their ids ascend, and are larger than those that these queries have been offered before.
        """
        m, count = len(keys), self.keys.shape[1]
        limits = self.keys[i : i + m, -1:]
        passed = keys < limits
        if keys.shape[1] > count and np.count_nonzero(passed) > MANY * m * count:
            # A row that `count` rows of this block beat is not kept either.
            limits = np.minimum(limits, _next(np.partition(keys, count - 1)[:, count - 1 : count]))
            passed = keys < limits
        queries, columns = np.nonzero(passed)
        self.merge(i + queries, keys[passed], ids[columns])

    def merge(self, queries: Ids, keys: NDArray[Any], ids: Ids) -> None:
        """Offer single rows, each to one query: as `add`, for queries in ascending order."""
        if not len(queries):
            return
        count = self.keys.shape[1]
        changed, place = np.unique(queries, return_inverse=True)
        owners = np.concatenate([np.repeat(np.arange(len(changed)), count), place])
        all_keys = np.concatenate([self.keys[changed].ravel(), keys])
        all_ids = np.concatenate([self.ids[changed].ravel(), ids])
        order = np.lexsort((all_keys, owners))  # stable: of equal keys, smaller ids come first
        starts = np.searchsorted(owners[order], np.arange(len(changed)))
        first = order[starts[:, np.newaxis] + np.arange(count)]
        self.keys[changed], self.ids[changed] = all_keys[first], all_ids[first]


def _next(keys: NDArray[Any]) -> NDArray[Any]:
    """Return the numbers that follow these in their dtype."""
    return np.nextafter(keys, np.inf) if keys.dtype.kind == "f" else keys.astype(np.int64) + 1


def _search(operands: Operands, ids: Ids | None, best: _Best) -> None:
    """Offer the rows of `b`, or those of these ids, to all queries."""
    metric = operands.metric
    b: BitArray = operands.b if ids is None else operands.b[ids]
    for block in blocks(operands.a, b):
        n = block.h.shape[1]
        own = np.arange(block.j, block.j + n) if ids is None else ids[block.j : block.j + n]
        near = np.flatnonzero(_may_be_nearer(operands, block, own, best))
        if len(near) > block.h.size // FEW:
            keys = metric.values(block.h, operands.sums(block.pairs[0], own[np.newaxis]))
            best.add(block.i, metric.sign * keys, own)
        elif len(near):
            queries, found = block.i + near // n, own[near % n]
            keys = metric.values(block.h.ravel()[near], operands.sums(queries, found))
            keys = metric.sign * keys
            nearer = keys < best.keys[queries, -1]
            best.merge(queries[nearer], keys[nearer], found[nearer])


def _may_be_nearer(operands: Operands, block: Block, ids: Ids, best: _Best) -> NDArray[np.bool_]:
    """Tell which pairs of a block may beat those found so far; exact values tell more.

    Without the values of all pairs, Jaccard takes a fifth of the time.
    """
    rows = slice(block.i, block.i + len(block.h))
    factor, offset = operands.metric.bound(operands.metric.sign * best.keys[rows, -1:])
    if not operands.metric.counts:
        most = np.minimum(offset, np.iinfo(block.h.dtype).max)
        return block.h <= most.astype(block.h.dtype)
    # Three roundings of numbers below 2**22 err by less than 1 in float32.
    dtype = np.float32 if operands.a.shape[1] < 2**20 else np.float64
    a_counts, b_counts = operands.counts
    terms = (factor * a_counts[rows, np.newaxis] + offset + 1).astype(dtype)
    return block.h <= np.asarray(factor, dtype) * b_counts[ids].astype(dtype) + terms
