"""The four metrics, and checks of the operands that they compare.

With h, the number of elements in which rows a and b differ, and |a|, the number of elements of a
that are +1::

    |a & b| = (|a| + |b| - h) / 2        |a | b| = (|a| + |b| + h) / 2

So each metric is a function of h and of the two counts. Up to its one division, all numbers are
integers that float64 holds exactly.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .. import _core
from ..ops.array import BitArray
from ..ops.counts import popcount
from ..ops.memory import MAX_BITS
from ..ops.prepack import Prepacked, weights_matrix

__all__ = [
    "METRICS",
    "Columns",
    "Metric",
    "Operands",
    "Rows",
    "check_matrix",
    "check_metric",
    "operand_counts",
    "row_counts",
]

Rows = ArrayLike | BitArray
Columns = ArrayLike | BitArray | Prepacked
Words = NDArray[np.uint64]
Counts = NDArray[np.int32]


class Metric(NamedTuple):
    """A metric: what `values` computes from mismatches h and from sums |a| + |b|.

    Attributes
    ----------
    name : str
    dtype : dtype
        Of the values.
    values : callable (h, sums) -> ndarray
        `sums` is float64, or None if `counts` is False.
    counts : bool
        Whether the metric depends on |a| + |b|.
    kind : int
        What the native module calls it.
    bound : callable (limit) -> (factor, offset)
        The mismatches of a pair whose value is `limit` or nearer are at most ``factor sums +
        offset``, but for rounding. This is cheaper than the values of all pairs.
    sign : 1 or -1
        1 if the nearest rows have the smallest values, -1 if they have the largest.
    """

    name: str
    dtype: np.dtype[Any]
    values: Callable[[NDArray[Any], Any], NDArray[Any]]
    bound: Callable[[Any], tuple[Any, Any]]
    counts: bool
    sign: int
    kind: int


def _hamming(h: NDArray[Any], sums: None) -> NDArray[np.int32]:
    return h.astype(np.int32, copy=False)


def _jaccard(h: NDArray[Any], sums: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return 1 - |a & b| / |a | b| = 2 h / (|a| + |b| + h), 0 for two empty rows."""
    unions = sums + h
    np.maximum(unions, 1, out=unions)  # where it is 0, so is h
    return np.divide(np.add(h, h, dtype=np.float64), unions, out=unions)


def _dice(h: NDArray[Any], sums: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return 1 - 2 |a & b| / (|a| + |b|) = h / (|a| + |b|), 0 for two empty rows."""
    return h / np.maximum(sums, 1)


def _intersection(h: NDArray[Any], sums: NDArray[np.float64]) -> NDArray[np.int32]:
    return ((sums - h) * 0.5).astype(np.int32)


def _hamming_bound(limit: Any) -> tuple[Any, Any]:
    return 0.0, limit


def _jaccard_bound(limit: Any) -> tuple[Any, Any]:
    """Solve 2 h / (sums + h) = limit for h."""
    near = np.minimum(limit, 1.0)
    return near / (2 - near), 0.0


def _dice_bound(limit: Any) -> tuple[Any, Any]:
    return np.minimum(limit, 1.0), 0.0


def _intersection_bound(limit: Any) -> tuple[Any, Any]:
    """Solve (sums - h) / 2 = limit for h."""
    return 1.0, -2.0 * limit


METRICS = {
    metric.name: metric
    for metric in (
        Metric("hamming", np.dtype(np.int32), _hamming, _hamming_bound, False, 1, _core.HAMMING),
        Metric("jaccard", np.dtype(np.float64), _jaccard, _jaccard_bound, True, 1, _core.JACCARD),
        Metric("dice", np.dtype(np.float64), _dice, _dice_bound, True, 1, _core.DICE),
        Metric(
            "intersection",
            np.dtype(np.int32),
            _intersection,
            _intersection_bound,
            True,
            -1,
            _core.INTERSECTION,
        ),
    )
}


def check_metric(where: str, metric: Any) -> Metric:
    """Return the metric of this name."""
    if not isinstance(metric, str):
        raise TypeError(f"[{where}] metric must be a str, got {metric!r:.80}")
    if metric not in METRICS:
        raise ValueError(f"[{where}] metric must be one of {', '.join(METRICS)}, got {metric!r}")
    return METRICS[metric]


class Operands:
    """Two matrices of bits with rows of equal length, and the metric that compares their rows.

    Parameters
    ----------
    where : str
        Name of the called function, for error messages.
    a, b : BitArray of shape (m, k) and (n, k); or array_like, packed by sign; `b` also Prepacked
    metric : str

    Attributes
    ----------
    a, b : BitArray
    counts : tuple of two ndarrays, float64; or None
        |a| and |b| of all rows, if the metric depends on them.

    Raises
    ------
    TypeError
        If an operand does not hold real numbers, or `metric` is not a str.
    ValueError
        If an operand is not a matrix or holds NaN, k differs, or no metric has this name.
    """

    def __init__(self, where: str, a: Any, b: Any, metric: Any) -> None:
        self.metric = check_metric(where, metric)
        if isinstance(a, Prepacked):
            raise TypeError(f"[{where}] a must be an array, got Prepacked")
        self.a = check_matrix(where, "a", a)
        self.b = self.a if b is a else check_matrix(where, "b", b)
        if self.a.shape[1] != self.b.shape[1]:
            raise ValueError(
                f"[{where}] a and b must have the same k, "
                f"got {self.a.shape[1]} and {self.b.shape[1]}"
            )
        self.counts: tuple[NDArray[np.float64], NDArray[np.float64]] | None = None
        if self.metric.counts:
            a_counts = _counts(self.a)
            self.counts = a_counts, a_counts if self.b is self.a else _counts(self.b)

    @property
    def m(self) -> int:
        return self.a.shape[0]

    @property
    def n(self) -> int:
        return self.b.shape[0]

    def sums(self, rows: Any, columns: Any) -> NDArray[np.float64] | None:
        """Return |a| + |b| of some rows of `a` and some of `b`, as they broadcast; or None."""
        if self.counts is None:
            return None
        return self.counts[0][rows] + self.counts[1][columns]


def check_matrix(where: str, name: str, x: Columns) -> BitArray:
    """Check a matrix of bits, numbers or prepacked weights, and return its bits."""
    bits = weights_matrix(where, name, x)
    if bits.ndim != 2:
        raise ValueError(f"[{where}] {name} must be a matrix, got shape {bits.shape}")
    if bits.shape[1] > MAX_BITS:
        raise ValueError(f"[{where}] k must be at most {MAX_BITS} bits, got {bits.shape[1]}")
    return bits


def row_counts(words: Words) -> NDArray[np.int64]:
    """Count the bits of each row of a contiguous matrix of words."""
    counts = np.empty(len(words), np.int64)
    _core.popcount(words, counts)
    return counts


def operand_counts(
    metric: Metric, rows: Words, columns: Words | _core.Panels, b: Columns
) -> tuple[Counts, Counts] | None:
    """Count the bits of each row of both operands, if the metric depends on them.

    Those of Prepacked `b`, whose words or panels are `columns`, are counted once.
    """
    if not metric.counts:
        return None
    own = row_counts(rows).astype(np.int32)
    if isinstance(b, Prepacked):
        return own, b.derived("counts", lambda: row_counts(b.rows()).astype(np.int32))
    assert isinstance(columns, np.ndarray)
    return own, row_counts(columns).astype(np.int32)


def _counts(bits: BitArray) -> NDArray[np.float64]:
    return popcount(bits, axis=1).astype(np.float64)
