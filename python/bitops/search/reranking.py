"""The second stage of a search in an index: candidates in the order of products with real rows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..ops.checks import as_float32, real_array
from .nearest import MISSING
from .rescoring import real_queries
from .rescoring import rescore as score_bits
from .segments import Ids, State

__all__ = ["Rescore", "check_rescore", "rerank"]

Rescore = Literal["bits"] | ArrayLike | Callable[[Ids], ArrayLike] | None

BLOCK_CANDIDATES = 1 << 14  # rows that are fetched at once

BITS = "bits"


def check_rescore(where: str, rescore: Any, queries: Any) -> NDArray[np.float32] | None:
    """Refuse what is no second stage; return the numbers of queries for one."""
    if rescore is None:
        return None
    if isinstance(rescore, str):
        if rescore != BITS:
            raise ValueError(f"[{where}] rescore must be {BITS!r}, got {rescore!r:.80}")
    elif not callable(rescore) and len(np.shape(rescore)) != 2:
        raise ValueError(f"[{where}] rescore must have two axes, got shape {np.shape(rescore)}")
    return real_queries(where, queries)


def rerank(
    where: str, numbers: NDArray[np.float32], ids: Ids, count: int, rescore: Any, state: State
) -> tuple[NDArray[np.float32], Ids]:
    """Return the `count` candidates of largest score for each query, with their scores.

    Parameters
    ----------
    numbers : ndarray of shape (m, k), float32
        Of the queries.
    ids : ndarray of shape (m, candidates), int64
        -1 stands for none.
    """
    m = len(numbers)
    best_scores = np.full((m, count), -np.inf, np.float32)
    best_ids = np.full((m, count), MISSING, np.int64)
    step = max(BLOCK_CANDIDATES // max(ids.shape[1], 1), 1)
    for i in range(0, m, step):
        own, part = ids[i : i + step], np.s_[i : i + step, : min(count, ids.shape[1])]
        scores = _scores(where, numbers[i : i + step], own, rescore, state)
        order = np.lexsort((own, -scores), axis=-1)[:, :count]
        best_scores[part] = np.take_along_axis(scores, order, axis=1)
        best_ids[part] = np.take_along_axis(own, order, axis=1)
    return best_scores, best_ids


def _scores(
    where: str, queries: NDArray[np.float32], ids: Ids, rescore: Any, state: State
) -> NDArray[np.float32]:
    """Return the products of queries with their candidates, -inf where there is none."""
    unique, place = np.unique(ids, return_inverse=True)
    place = place.reshape(ids.shape)
    if len(unique) and unique[0] == MISSING:
        unique, place = unique[1:], place - 1
    if isinstance(rescore, str):
        return score_bits(queries, state.take(unique)[0], place)
    rows = _fetch(where, rescore, unique, queries.shape[1])
    scores = np.full(ids.shape, -np.inf, np.float32)
    for query, own, row_scores in zip(queries, place, scores, strict=True):
        found = own >= 0
        with np.errstate(over="ignore", invalid="ignore"):  # inf and NaN of large numbers
            row_scores[found] = rows[own[found]] @ query
    return scores


def _fetch(where: str, rescore: Any, ids: Ids, k: int) -> NDArray[np.float32]:
    """Return the real rows of some ids."""
    if callable(rescore):
        rows = real_array(where, "rows of rescore", rescore(ids))
    else:
        n = len(rescore)
        if len(ids) and ids[-1] >= n:
            raise ValueError(f"[{where}] rescore must have a row for id {ids[-1]}, got {n} rows")
        rows = rescore if isinstance(rescore, np.ndarray) else np.asarray(rescore)
        rows = real_array(where, "rescore", rows[ids])
    if rows.shape != (len(ids), k):
        raise ValueError(f"[{where}] rescore must give shape {(len(ids), k)}, got {rows.shape}")
    return as_float32(rows)
