"""What pairs of rows within a range have in common: few mismatches, and sizes that are alike.

A pair of rows a and b is within a range if its mismatches are at most ``factor (|a| + |b|) +
offset``. The sizes alone tell that many pairs are not: two rows have at least ``||a| - |b||``
mismatches.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .metrics import Metric

__all__ = ["Limits"]

Counts = NDArray[np.float64]

FEW_ROWS = 16  # for which a sorted copy of the others costs more than it gains
MOST_NEAR = 0.8  # of all pairs, if sizes are alike
# Above the rounding error of bounds up to 2^32. A pair whose mismatches equal the exact bound is
# within the range, even where the bound in float64 is slightly less.
SLACK = 2.0**-10


class Limits:
    """Tests that all pairs within a range pass, and few others, cheaper than their values.

    Parameters
    ----------
    metric : Metric
    radius : float
    k : int
    counts : tuple of two ndarrays, float64; or None
        |a| and |b| of all rows, if the metric depends on them.

    Attributes
    ----------
    most : int
        Mismatches of any pair; negative if no pair is within the range.
    """

    def __init__(
        self, metric: Metric, radius: float, k: int, counts: tuple[Counts, Counts] | None
    ) -> None:
        # beyond k + 1 nothing changes
        factor, offset = map(float, metric.bound(min(radius, k + 1)))
        if counts is not None:
            offset += SLACK
        self._factor, self._offset, self._k = factor, offset, k
        self._counts = counts
        self._given = metric, radius, k
        sums = 0.0 if counts is None else sum(c.max(initial=0) for c in counts)
        self.most = min(math.floor(self._factor * sums + self._offset), k)

    @property
    def agreement(self) -> float:
        """How probable it is that two rows agree in a bit, if their bits are independent."""
        if self._counts is None:
            return 0.5
        p, q = (float(c.mean()) / max(self._k, 1) for c in self._counts)
        return p * q + (1 - p) * (1 - q)

    def of_pairs(self, i: Any, j: Any) -> Any:
        """Return the most mismatches of some pairs; -1 for those whose sizes are too different."""
        if self._counts is None:
            return self.most
        a, b = self._counts[0][i], self._counts[1][j]
        most = self._factor * (a + b) + self._offset
        return np.where(abs(a - b) <= most, most, -1)

    def native(self) -> tuple[NDArray[np.float32], NDArray[np.int32]] | tuple[None, None]:
        """Return bounds for each row of a, which float32 rounds up, and |b|, or None and None."""
        if self._counts is None:
            return None, None
        a, b = self._counts
        bounds = np.empty((len(a), 2), np.float32)
        bounds[:, 0] = self._factor
        # as nearest_bound of the native module: more than its roundings can add up to
        bounds[:, 1] = self._factor * a + self._offset + 0.0625 + (a + self._k) / 2**21
        return bounds, b.astype(np.int32)

    def _sizes(self, a: Counts) -> tuple[Counts, Counts]:
        """Return the least and the largest |b| of rows that may be near to those of sizes a."""
        low = np.floor((a * (1 - self._factor) - self._offset) / (1 + self._factor))
        high = a * (1 + self._factor) + self._offset
        if self._factor < 1:
            high = np.minimum(np.ceil(high / (1 - self._factor)), self._k)
        else:
            high = np.where(high >= 0, self._k, -1)
        return low, high

    def order(self) -> tuple[Any, Any] | None:
        """Return indices that sort the rows of a and of b by size; None if this gains nothing."""
        if self._counts is None or len(self._counts[0]) < FEW_ROWS:
            return None
        a, b = self._counts
        ascending = np.sort(b)
        low, high = self._sizes(a)
        near = np.searchsorted(ascending, high, "right") - np.searchsorted(ascending, low)
        if np.maximum(near, 0).sum() > MOST_NEAR * len(a) * len(b):
            return None
        rows = np.argsort(a, kind="stable")
        return rows, rows if a is b else np.argsort(b, kind="stable")

    def taken(self, rows: Any, columns: Any) -> Limits:
        """Return the same for some rows of a and some of b."""
        if self._counts is None:
            return self
        return Limits(*self._given, (self._counts[0][rows], self._counts[1][columns]))

    def columns(self, start: int, end: int) -> tuple[int, int]:
        """Return which rows of b may be near to a[start:end]; both are sorted by size."""
        assert self._counts is not None
        a, b = self._counts
        low, high = self._sizes(a[[start, end - 1]])
        return int(np.searchsorted(b, low[0])), int(np.searchsorted(b, high[1], "right"))
