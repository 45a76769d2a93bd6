"""All pairs of rows within a range, by any metric, without a matrix of all distances."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from .. import _core
from ..ops.checks import check_number
from ..ops.geometry import check_result
from ..ops.packing import plain_rows
from .full_product import MOST_WORDS, choose_product, scan
from .metrics import Columns, Operands, Rows
from .multi_index import choose_plan, join
from .pairs import blocks
from .progress import progress

__all__ = ["pairs_within", "within"]

MOST_ROWS = 1 << 32

Triples = tuple[NDArray[np.int64], NDArray[np.int64], NDArray[Any]]  # i, j, values


def within(a: Rows, b: Columns, radius: float, metric: str) -> csr_array:
    """Find, for each row of `a`, all rows of `b` within a range.

    Parameters
    ----------
    a : BitArray of shape (m, k), packed along k; or array_like, packed by sign on the fly
    b : BitArray of shape (n, k), packed along k; or array_like, or Prepacked
    radius : float
        The largest distance, at least 0; for "intersection" the smallest count.
    metric : {"hamming", "jaccard", "dice", "intersection"}
        As in `pairwise`.

    Returns
    -------
    scipy.sparse.csr_array of shape (m, n), of the dtype of `pairwise`
        The values within the range, with sorted indices. Distances of 0 are stored too, so the
        stored entries of a row are what was found.

    Raises
    ------
    TypeError
        If an operand or `radius` is not a real number, or `metric` is not a str.
    ValueError
        If `radius` is negative or NaN, an operand is not a matrix or holds NaN, k differs, or no
        metric has this name.

    Notes
    -----
    The result of long searches is the only large array. Hamming distances that are small against k
    are searched by `pairs_within`'s method. A long search shows a progress bar if tqdm is installed
    and the output is a terminal.

    Examples
    --------
    >>> found = within([[1, 1, 1]], [[1, 1, -1], [-1, -1, -1], [1, 1, 1]], 1, "hamming")
    >>> found.indices, found.data
    (array([0, 2], dtype=int32), array([1, 0], dtype=int32))
    """
    operands = Operands("search.within", a, b, metric)
    i, j, values = _find("search.within", operands, radius, False)
    ends = np.searchsorted(i, np.arange(operands.m + 1))
    dtype = np.int32 if max(operands.n, len(j)) < 2**31 else np.int64  # as SciPy's own results
    return csr_array((values, j.astype(dtype), ends.astype(dtype)), shape=(operands.m, operands.n))


def pairs_within(a: Rows, radius: float, metric: str) -> Triples:
    """Find all pairs of rows of one matrix within a range.

    Parameters
    ----------
    a : BitArray of shape (n, k), packed along k; or array_like, packed by sign on the fly
    radius : float
        The largest distance, at least 0; for "intersection" the smallest count.
    metric : {"hamming", "jaccard", "dice", "intersection"}
        As in `pairwise`.

    Returns
    -------
    i, j : ndarray of shape (count,), int64
        Rows, i < j. Pairs are sorted by i, then by j.
    distance : ndarray of shape (count,), of the dtype of `pairwise`

    Raises
    ------
    TypeError
        If `a` or `radius` is not a real number, or `metric` is not a str.
    ValueError
        If `radius` is negative or NaN, `a` is not a matrix or holds NaN, or no metric has this
        name.

    Notes
    -----
    The result is exact. If a Hamming radius is small against k, rows are cut into chunks: two rows
    within the radius agree in some chunks, and only those that do are compared (see
    `bitops.search.multi_index`). Otherwise all pairs are compared, in blocks. Whichever costs less
    is chosen; rows that agree too often send the search to the second way.

    Examples
    --------
    >>> pairs_within([[1, 1, 1], [-1, -1, -1], [1, 1, -1]], 1, "hamming")
    (array([0]), array([2]), array([1], dtype=int32))
    """
    operands = Operands("search.pairs_within", a, a, metric)
    return _find("search.pairs_within", operands, radius, True)


def _find(where: str, operands: Operands, radius: Any, upper: bool) -> Triples:
    """Find the pairs within a range, sorted; with `upper` those with i < j only."""
    radius = _check_radius(where, radius)
    check_result(where, (operands.m, operands.n))
    if operands.m + operands.n >= MOST_ROWS:
        raise ValueError(
            f"[{where}] there must be fewer than {MOST_ROWS} rows, got {operands.m + operands.n}"
        )
    if operands.metric.name == "hamming" and 0 < operands.a.words.shape[1] <= MOST_WORDS:
        return _find_hamming(operands, math.floor(min(radius, operands.a.shape[1])), upper)
    found = _Found(operands.metric.dtype)
    _scan(operands, radius, upper, found)
    return found.sorted()


def _find_hamming(operands: Operands, radius: int, upper: bool) -> Triples:
    """Search by chunks that agree, if that costs less than comparing every two rows."""
    a, n = plain_rows(operands.a), operands.n
    b = a if upper else plain_rows(operands.b)
    pairs = n * (n - 1) // 2 if upper else len(a) * n
    first_words, cost = choose_product(a, b, radius)
    rows = n if upper else len(a) + n
    plan = choose_plan(rows, operands.a.shape[1], radius, pairs, cost)
    found = _Found(operands.metric.dtype)
    if plan is None or not join(a, None if upper else b, radius, plan, found.add_native):
        found = _Found(operands.metric.dtype)
        scan(a, b, radius, upper, first_words, found.add_native)
    return found.sorted()


def _check_radius(where: str, radius: Any) -> float:
    check_number(where, "radius", radius)
    if not radius >= 0:  # NaN is no better
        raise ValueError(f"[{where}] radius must be at least 0, got {radius!r:.80}")
    return float(min(radius, 2**32))  # beyond all values


class _Found:
    """Pairs found so far, in pieces: i << 32 | j, which sort by i and then by j, and values."""

    def __init__(self, dtype: np.dtype[Any]) -> None:
        self._pairs = [np.empty(0, np.uint64)]
        self._values: list[NDArray[Any]] = [np.empty(0, dtype)]

    def add(self, i: NDArray[np.int64], j: NDArray[np.int64], values: NDArray[Any]) -> None:
        self._pairs.append((i << 32 | j).view(np.uint64))
        self._values.append(values)

    def add_native(self, found: _core.Found) -> None:
        """Add what the native module has found."""
        pairs, distances = np.empty(len(found), np.uint64), np.empty(len(found), np.int32)
        if len(found):
            found.copy(pairs, distances)
            self._pairs.append(pairs)
            self._values.append(distances)

    def sorted(self) -> Triples:
        pairs, values = np.concatenate(self._pairs), np.concatenate(self._values)
        self._pairs.clear()
        self._values.clear()
        order = np.argsort(pairs)
        pairs = pairs[order]
        i, j = pairs >> np.uint64(32), pairs & np.uint64(MOST_ROWS - 1)
        return i.view(np.int64), j.view(np.int64), values[order]


def _scan(operands: Operands, radius: float, upper: bool, found: _Found) -> None:
    """Compare all pairs of rows, in blocks."""
    metric = operands.metric
    limits = _Limits(operands, radius)
    with progress(operands.m * operands.n // (2 if upper else 1), "pairs") as done:
        for block in blocks(operands.a, operands.b, upper=upper):
            done(block.h.size)
            passed = limits.may_be_near(block.h, *block.pairs)
            if not passed.any():  # takes a quarter of the time of nonzero, and is the usual case
                continue
            near, width = np.flatnonzero(passed), block.h.shape[1]
            i, j = block.i + near // width, block.j + near % width
            values = metric.values(block.h.ravel()[near], operands.sums(i, j))
            keep = values <= radius if metric.sign > 0 else values >= radius
            if upper:
                keep &= i < j
            found.add(i[keep], j[keep], values[keep])


class _Limits:
    """A test of mismatches that all pairs within a range pass, cheaper than the values.

    A pair is within the range if its mismatches are at most ``factor (|a| + |b|) + offset``. The
    two terms are rounded up for each row. What passes is tested exactly afterwards.
    """

    def __init__(self, operands: Operands, radius: float) -> None:
        k = operands.a.shape[1]
        # beyond k + 1 nothing changes, and int16 might overflow
        factor, offset = operands.metric.bound(min(radius, k + 1))
        self._most = math.floor(offset)
        self._counts = operands.metric.counts
        if self._counts:
            # Terms of the dtype of mismatches are compared in vectors. Sums reach 2 k + 4.
            self._dtype = np.dtype(np.int16 if k < 2**14 - 2 else np.int64)
            a_counts, b_counts = operands.counts
            self._a = (np.floor(factor * a_counts + offset) + 2).astype(self._dtype)
            self._b = (np.floor(factor * b_counts) + 2).astype(self._dtype)

    def may_be_near(self, h: NDArray[Any], rows: Any, columns: Any) -> NDArray[np.bool_]:
        """Tell which pairs pass, given their mismatches and what selects their rows."""
        if not self._counts:
            return h <= self._most
        if self._dtype == np.int16:
            h = h.view(np.int16)
        return h <= self._a[rows] + self._b[columns]
