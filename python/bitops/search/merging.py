"""The nearest rows of several parts of an index, merged by distance and id."""

from __future__ import annotations

from collections.abc import Callable
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
    ids : ndarray of shape (m, count), int64
        Nearest first, of equal distances the smaller id; -1 where there are none yet.
    """

    def __init__(self, m: int, count: int, metric: Metric) -> None:
        self._metric = metric
        is_float = metric.dtype.kind == "f"
        far, dtype = (np.inf, np.float64) if is_float else (np.iinfo(np.int64).max, np.int64)
        self._keys: NDArray[Any] = np.full((m, count), far, dtype)  # the nearest has the smallest
        self.ids = np.full((m, count), MISSING, np.int64)

    def add(self, distances: NDArray[Any], rows: Ids, ids: Callable[[Ids], Ids]) -> None:
        """Offer the nearest rows of a part, nearest first; `ids` gives the ids of rows."""
        keys = self._metric.sign * distances.astype(self._keys.dtype)
        # Most queries find nothing nearer in later parts. At equal keys the smaller id is nearer.
        near = np.flatnonzero(keys[:, 0] <= self._keys[:, -1])
        if not len(near):
            return
        all_keys = np.concatenate([self._keys[near], keys[near]], axis=1)
        all_ids = np.concatenate([self.ids[near], ids(rows[near])], axis=1)
        order = np.lexsort((all_ids, all_keys), axis=-1)[:, : self.ids.shape[1]]
        self._keys[near] = np.take_along_axis(all_keys, order, axis=1)
        self.ids[near] = np.take_along_axis(all_ids, order, axis=1)

    def result(self, count: int) -> tuple[NDArray[Any], Ids]:
        """Return `count` distances and ids for each query, -1 where there are fewer."""
        m, found = self.ids.shape
        distances = np.full((m, count), MISSING, self._metric.dtype)
        ids = np.full((m, count), MISSING, np.int64)
        ids[:, :found] = self.ids
        values = np.where(self.ids == MISSING, MISSING, self._metric.sign * self._keys)
        distances[:, :found] = values
        return distances, ids
