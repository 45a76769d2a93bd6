"""The nearest rows of several parts of an index, merged by distance and id."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from .metrics import Metric
from .nearest import MISSING

__all__ = ["Nearest"]

Ids = NDArray[np.int64]


class Nearest:
    """The nearest ids found so far for each query.

    Attributes
    ----------
    distances : ndarray of shape (m, found), of the dtype of the metric
    ids : ndarray of shape (m, found), int64
        Nearest first, of equal distances the smaller id; at most `count`.
    """

    def __init__(self, m: int, count: int, metric: Metric) -> None:
        self._count, self._metric = count, metric
        self.distances: NDArray[Any] = np.empty((m, 0), metric.dtype)
        self.ids: Ids = np.empty((m, 0), np.int64)

    def add(self, distances: NDArray[Any], ids: Ids) -> None:
        """Offer the nearest rows of a part, nearest first, the same number for all queries."""
        found = self.ids.shape[1]
        if not found:
            self.distances, self.ids = distances, ids
            return
        near: Any = slice(None)
        if found == self._count:
            # Most queries find nothing nearer in later parts. Equal distances may have smaller ids.
            sign = self._metric.sign
            passed = sign * distances[:, 0] <= sign * self.distances[:, -1]
            if not passed.any():
                return
            near = passed
        distances, ids = self._merged(near, distances, ids)
        if found == self._count:
            self.distances[near], self.ids[near] = distances, ids
        else:
            self.distances, self.ids = distances, ids

    def _merged(self, near: Any, distances: NDArray[Any], ids: Ids) -> tuple[NDArray[Any], Ids]:
        """Return the nearest of those found so far and of others, for some queries."""
        distances = np.concatenate([self.distances[near], distances[near]], axis=1)
        ids = np.concatenate([self.ids[near], ids[near]], axis=1)
        order = np.lexsort((ids, self._metric.sign * distances), axis=-1)[:, : self._count]
        return np.take_along_axis(distances, order, axis=1), np.take_along_axis(ids, order, axis=1)

    def result(self) -> tuple[NDArray[Any], Ids]:
        """Return `count` distances and ids for each query, -1 where there are fewer."""
        m, found = self.ids.shape
        if found == self._count:
            return self.distances, self.ids
        distances = np.full((m, self._count), MISSING, self.distances.dtype)
        ids = np.full((m, self._count), MISSING, np.int64)
        distances[:, :found], ids[:, :found] = self.distances, self.ids
        return distances, ids
