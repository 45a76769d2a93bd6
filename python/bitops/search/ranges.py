"""All pairs of rows within a range, by any metric, without a matrix of all distances."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from ..ops.array import BitArray
from ..ops.checks import check_number
from ..ops.geometry import check_result
from ..ops.packing import plain_rows
from .full_product import choose_product, scan
from .limits import Limits
from .metrics import Columns, Operands, Rows
from .multi_index import choose_plan, join

__all__ = ["check_radius", "pairs_within", "within"]

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
    The result of long searches is the only large array, besides copies of both operands by metrics
    of sets whose sizes differ. Distances that are small against k are searched by `pairs_within`'s
    method. A long search shows a progress bar if tqdm is installed and the output is a terminal.

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
    The result is exact. If rows within the range differ in few of their bits, rows are cut into
    chunks: two such rows agree in some chunks, and only those that do are compared (see
    `bitops.search.multi_index`). Otherwise all pairs are compared, but for rows whose sizes tell
    that they are not near (see `bitops.search.full_product`). Whichever costs less is chosen; rows
    that agree too often send the search to the second way.

    Examples
    --------
    >>> pairs_within([[1, 1, 1], [-1, -1, -1], [1, 1, -1]], 1, "hamming")
    (array([0]), array([2]), array([1], dtype=int32))
    """
    operands = Operands("search.pairs_within", a, a, metric)
    return _find("search.pairs_within", operands, radius, True)


def _find(where: str, operands: Operands, radius: Any, upper: bool) -> Triples:
    """Find the pairs within a range, sorted; with `upper` those with i < j only.

    Rows are searched by chunks that agree, if that costs less than comparing every two.
    """
    radius = check_radius(where, radius)
    m, n, k = operands.m, operands.n, operands.a.shape[1]
    check_result(where, (m, n))
    if m + n >= MOST_ROWS:
        raise ValueError(f"[{where}] there must be fewer than {MOST_ROWS} rows, got {m + n}")
    limits = Limits(operands.metric, radius, k, operands.counts)
    found = _Found(operands, radius)
    if limits.most < 0 or not (m and n):
        return found.sorted()
    a, b = _search_rows(operands.a), _search_rows(operands.b)
    pairs = n * (n - 1) // 2 if upper else m * n
    first_words, cost = choose_product(a, b, limits)
    rows = n if upper else m + n
    plan = choose_plan(rows, k, limits.most, pairs, cost, limits.agreement)
    if plan is None or not join(a, None if upper else b, limits.most, plan, found.add):
        found = _Found(operands, radius)
        scan(a, b, limits, upper, first_words, found.add)
    return found.sorted()


def _search_rows(bits: BitArray) -> NDArray[np.uint64]:
    """Return the words of rows, of which there is at least one."""
    return plain_rows(bits) if bits.shape[1] else np.zeros((len(bits), 1), np.uint64)


def check_radius(where: str, radius: Any) -> float:
    """Check a radius, at least 0, and return it as a float, at most beyond all values."""
    check_number(where, "radius", radius)
    if not radius >= 0:  # NaN is no better
        raise ValueError(f"[{where}] radius must be at least 0, got {radius!r:.80}")
    return float(min(radius, 2**32))  # beyond all values


class _Found:
    """Pairs found so far, in pieces: i << 32 | j, which sort by i and then by j, and values."""

    def __init__(self, operands: Operands, radius: float) -> None:
        self._operands, self._radius = operands, radius
        self._pairs = [np.empty(0, np.uint64)]
        self._values: list[NDArray[Any]] = [np.empty(0, operands.metric.dtype)]

    def add(self, pairs: NDArray[np.uint64], mismatches: NDArray[np.int32]) -> None:
        """Add the pairs that are within the range, which few may not be."""
        metric = self._operands.metric
        values: NDArray[Any] = mismatches
        if metric.counts and len(pairs):
            values = metric.values(mismatches, self._operands.sums(*_numbers(pairs)))
            near = values <= self._radius if metric.sign > 0 else values >= self._radius
            pairs, values = pairs[near], values[near]
        self._pairs.append(pairs)
        self._values.append(values)

    def sorted(self) -> Triples:
        pairs, values = np.concatenate(self._pairs), np.concatenate(self._values)
        self._pairs.clear()
        self._values.clear()
        order = np.argsort(pairs)
        i, j = _numbers(pairs[order])
        return i, j, values[order]


def _numbers(pairs: NDArray[np.uint64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return i and j of pairs i << 32 | j."""
    i, j = pairs >> np.uint64(32), pairs & np.uint64(MOST_ROWS - 1)
    return i.view(np.int64), j.view(np.int64)
