"""All pairs of rows within a Hamming distance, by comparing every two.

Most pairs of rows differ so much that their first words tell. So only these are compared at first,
as many as a sample of the rows suggests, and the others for the pairs that pass.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from .. import _core
from .multi_index import pair_cost
from .pairs import row_counts
from .progress import progress

__all__ = ["MOST_WORDS", "choose_product", "scan"]

Words = NDArray[np.uint64]

MOST_WORDS = _core.SCAN_WORDS  # of rows
MOST_FIRST = 64
SAMPLE_PAIRS = 1 << 14
SAMPLE_SHARE = 1 << 14  # as many times more pairs there must be, for a sample to pay

# Nanoseconds on one AVX-512 core for two rows, and for each of their words that are compared.
SCAN_COST, SCAN_WORD_COST = 0.02, 0.06
CALL_COST = 1e8  # of one call of the native module, between which the progress bar moves


def choose_product(a: Words, b: Words, radius: int) -> tuple[int, float]:
    """Choose how many words to compare at first.

    Returns
    -------
    first_words : int
    cost : float
        Nanoseconds that a pair of rows takes on average.
    """
    k_words = a.shape[1]
    full = SCAN_COST + SCAN_WORD_COST * k_words
    if k_words == 1 or len(a) * len(b) < SAMPLE_PAIRS * SAMPLE_SHARE:
        return k_words, full
    most = min(k_words - 1, MOST_FIRST)
    rng = np.random.default_rng(0)
    i, j = (rng.integers(0, len(rows), SAMPLE_PAIRS) for rows in (a, b))
    differing = a[i, :most] ^ b[j, :most]
    counts = row_counts(differing.reshape(-1, 1)).reshape(differing.shape)
    passing = (np.cumsum(counts, axis=1) <= radius).mean(axis=0) + 1 / SAMPLE_PAIRS
    costs = SCAN_COST + SCAN_WORD_COST * np.arange(1, most + 1) + pair_cost(k_words) * passing
    first = int(np.argmin(costs))
    return (first + 1, float(costs[first])) if costs[first] < full else (k_words, full)


def scan(
    a: Words,
    b: Words,
    radius: int,
    upper: bool,
    first_words: int,
    add: Callable[..., object],
) -> None:
    """Find all pairs of rows within a distance, and hand them to `add`, as `multi_index.join`."""
    cost = (SCAN_COST + SCAN_WORD_COST * first_words) * max(len(b), 1)
    step = int(min(max(CALL_COST / cost, 64), 4096))
    with progress(len(a) * (len(a) - 1) // 2 if upper else len(a) * len(b), "pairs") as done:
        for start in range(0, len(a), step):
            rows = min(step, len(a) - start)
            add(_core.scan(a, b, radius, upper, start, rows, first_words))
            lower = rows * (start + 1) + rows * (rows - 1) // 2 if upper else 0
            done(rows * len(b) - lower)
