"""Scores of all rows, part by part, and comparison of a trained network with its packed form."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ..search.progress import progress

if TYPE_CHECKING:
    from ..layers import Packed, Sequential

__all__ = ["Comparison", "compare", "error_of", "scores_of"]

ROWS = 1000  # of one call, between which a progress bar moves


class Comparison(NamedTuple):
    """Two networks on the same rows.

    Attributes
    ----------
    different : int
        Rows whose scores differ in any bit.
    labels : ndarray of shape (n,), int64
        Classes by the scores of the packed network.
    """

    different: int
    labels: np.ndarray


def scores_of(
    model: Sequential | Packed, x: np.ndarray, done: Callable[[int], object]
) -> np.ndarray:
    """Return the scores of all rows; `done` is told of rows as they get theirs."""
    parts = []
    for start in range(0, max(len(x), 1), ROWS):
        part = x[start : start + ROWS]
        parts.append(np.asarray(model.outputs(part)))
        done(len(part))
    return np.concatenate(parts)


def compare(model: Sequential, packed: Packed, x: np.ndarray) -> Comparison:
    """Compare the scores of a trained network and of its packed form, with a progress bar."""
    with progress(2 * len(x), "images") as done:
        trained, frozen = (scores_of(network, x, done) for network in (model, packed))
    labels = frozen.argmax(axis=1)
    if trained.dtype != frozen.dtype or trained.shape != frozen.shape:
        return Comparison(len(x), labels)
    # As bytes, so that zeros of different sign differ, and equal NaNs do not.
    same = (trained.view(np.uint8) == frozen.view(np.uint8)).all(axis=1)
    return Comparison(int(np.count_nonzero(~same)), labels)


def error_of(labels: np.ndarray, y: np.ndarray) -> float:
    """Return the share of labels, of at least one row, that differ from those in `y`."""
    return float((labels != y).mean())
