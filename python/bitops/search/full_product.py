"""All pairs of rows within a range, by comparing every two.

Most pairs of rows differ so much that short folds of them tell: the XOR of their words, as many
words together as a sample of the rows suggests. A fold has no more mismatches than the rows, which
are compared in full only for the pairs whose folds pass. By metrics of sets rows of unlike sizes
are far apart: if these are many, rows are sorted by size, and a block of them is compared with
those of like sizes only.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from .. import _core
from .limits import Limits
from .multi_index import Add, copied, pair_cost
from .progress import progress

__all__ = ["choose_product", "scan"]

Words = NDArray[np.uint64]
Pairs = NDArray[np.uint64]
Ids = NDArray[np.int64]

FOLDS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64)
COMMON_FOLD = 192  # a multiple of them all, so that long rows are read once
SAMPLE_PAIRS = 1 << 12
SAMPLE_WORDS = 1 << 14  # of pairs that are read at once
SAMPLE_SHARE = 40  # times as long a search must be, for a sample to pay

# Nanoseconds on one AVX-512 core for two rows, and for each word of their folds; for a pair of the
# sample, and each of its words.
SCAN_COST, SCAN_WORD_COST = 0.01, 0.05
SAMPLE_COST, SAMPLE_WORD_COST = 100.0, 5.0
CALL_COST = 3e8  # of one call of the native module, between which the progress bar moves
# Rows of one call, for all of which the folds of its columns are made once, and at least so many
# columns, which threads share.
MOST_ROWS, LEAST_COLUMNS = 1 << 13, 1 << 12
SORTED_ROWS = 256  # of rows that are sorted by size: with their like


def choose_product(a: Words, b: Words, limits: Limits) -> tuple[int, float]:
    """Choose how many words the folds have that are compared at first.

    Returns
    -------
    first_words : int
    cost : float
        Nanoseconds that a pair of rows takes on average.
    """
    k_words = a.shape[1]
    full = min(k_words, _core.SCAN_WORDS), SCAN_COST + SCAN_WORD_COST * k_words
    folds = [words for words in FOLDS if words < k_words]
    sample_cost = SAMPLE_PAIRS * (SAMPLE_COST + SAMPLE_WORD_COST * k_words)
    if not folds or len(a) * len(b) * full[1] < sample_cost * SAMPLE_SHARE:
        return full
    rng = np.random.default_rng(0)
    i, j = (rng.integers(0, len(rows), SAMPLE_PAIRS) for rows in (a, b))
    differing, most = _differing(a, i, b, j), limits.of_pairs(i, j)
    costs = [full]
    for words in folds:
        if SCAN_COST + SCAN_WORD_COST * words >= min(cost for _, cost in costs):
            break  # nor can longer folds be better
        mismatches = np.bitwise_count(folded(differing, words)).sum(axis=0, dtype=np.int64)
        passing = (mismatches <= most).mean() + 1 / SAMPLE_PAIRS
        cost = SCAN_COST + SCAN_WORD_COST * words + pair_cost(k_words) * float(passing)
        costs.append((words, cost))
    return min(costs, key=lambda own: own[1])


def _differing(a: Words, i: Ids, b: Words, j: Ids) -> Words:
    """Return folds of a[i] ^ b[j] with all words that FOLDS need, a column for each pair."""
    columns = np.empty((min(a.shape[1], COMMON_FOLD), len(i)), np.uint64)
    step = max(SAMPLE_WORDS // a.shape[1], 1)
    for start in range(0, len(i), step):
        pairs = slice(start, start + step)
        columns[:, pairs] = folded((a[i[pairs]] ^ b[j[pairs]]).T, COMMON_FOLD)
    return columns


def folded(columns: Words, words: int) -> Words:
    """Return the XOR of the words of each column that lie `words` apart."""
    fold = columns[:words].copy("K")
    for start in range(words, len(columns), words):
        part = columns[start : start + words]
        fold[: len(part)] ^= part
    return fold


def scan(a: Words, b: Words, limits: Limits, upper: bool, first_words: int, add: Add) -> None:
    """Find all pairs of rows within a range, and hand them to `add`, as `multi_index.join`."""
    step = MOST_ROWS
    order = limits.order()
    if order is not None:
        step = SORTED_ROWS
        same = b is a
        a = a[order[0]]
        b, limits = a if same else b[order[1]], limits.taken(*order)
    cost = (SCAN_COST + SCAN_WORD_COST * first_words) * max(min(step, len(a)), 1)
    columns = max(int(CALL_COST / cost), LEAST_COLUMNS)
    bounds, b_counts = limits.native()
    first, end = 0, len(b)
    with progress(len(a) * (len(a) - 1) // 2 if upper else len(a) * len(b), "pairs") as done:
        for start in range(0, len(a), step):
            rows = min(step, len(a) - start)
            if order is not None:
                first, end = limits.columns(start, start + rows)
            if upper:
                first = start
            left = rows * len(b) - (rows * (start + 1) + rows * (rows - 1) // 2 if upper else 0)
            for begin, stop in _parts(first, end, columns, rows if upper else 0):
                above = upper and begin == first  # where columns are rows of the call too
                part = slice(0 if above else begin, stop)
                counts = None if b_counts is None else b_counts[part]
                found = _core.scan(
                    a, b[part], limits.most, above, start, rows, first_words, bounds, counts
                )
                pairs, mismatches = copied(found)
                add(_numbered(pairs, order, part.start, upper), mismatches)
                share = left * (stop - begin) // (end - begin)
                done(share)
                left -= share
            done(left)  # of columns that were left out


def _parts(first: int, end: int, size: int, least: int) -> Iterator[tuple[int, int]]:
    """Cut [first, end) into parts of `size`; the first one has at least so many."""
    stop = first + max(size, least)
    while first < end:
        yield first, min(stop, end)
        first, stop = stop, stop + size


def _numbered(pairs: Pairs, order: tuple[Ids, Ids] | None, first: int, upper: bool) -> Pairs:
    """Return pairs with columns from `first` on by the numbers that rows had before a sort."""
    if order is None:
        pairs += np.uint64(first)
        return pairs
    i = order[0][pairs >> np.uint64(32)]
    j = order[1][(pairs & np.uint64(2**32 - 1)) + np.uint64(first)]
    if upper:
        i, j = np.minimum(i, j), np.maximum(i, j)
    return (i << 32 | j).view(np.uint64)
