"""Exact search for all pairs of rows within a small Hamming distance, by chunks that agree.

Cut rows of bits into radius + s chunks. Rows that differ in at most `radius` bits differ in at most
as many chunks, so at least s of their chunks agree. For each choice of s chunks, rows are sorted by
these; rows that agree in them lie side by side and are compared. A pair may agree in more than s
chunks: it is reported only for the first s of them.

With s = 1 there are few choices but short keys, on which many rows agree by chance. A larger s
makes keys longer and choices more. `choose_plan` weighs both, and the full product, which needs no
keys at all.

References
----------
M. Norouzi, A. Punjani, D. Fleet, "Fast Exact Search in Hamming Space with Multi-Index Hashing",
2014; G. Manku, A. Jain, A. Das Sarma, "Detecting Near-Duplicates for Web Crawling", 2007.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from itertools import combinations, pairwise
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..ops.memory import WORD_BITS
from .pairs import row_counts
from .progress import progress

__all__ = ["Plan", "choose_plan", "join"]

Words = NDArray[np.uint64]
Ids = NDArray[np.int64]
Chunk = tuple[int, int]  # its first bit, and how many bits
Found = tuple[Ids, Ids, NDArray[np.int32]]  # rows of a, rows of b, distances

BLOCK_WORDS = 1 << 17  # of rows that are compared at once: 1 MiB
TOGETHER = (1, 2, 3, 4)
MOST_CHOICES = 4096

# Nanoseconds on one AVX-512 core: to begin with a choice of chunks; to make and sort the key of a
# row; to compare two rows that agree in it; to compare any two rows in a full product. The last two
# grow with the words of a row.
CHOICE_COST, KEY_COST = 3e5, 40.0
PAIR_COST, PAIR_WORD_COST = 10.0, 4.0
SCAN_COST, SCAN_WORD_COST = 0.15, 0.06


class Plan(NamedTuple):
    """How to cut rows of k bits, and how much work may be done before a full product is better.

    Attributes
    ----------
    chunks : list of (int, int)
        The first bit of each chunk, and how many of its bits are looked at.
    together : int
        How many chunks must agree, s.
    most_pairs : int
        That may be compared.
    """

    chunks: list[Chunk]
    together: int
    most_pairs: int

    @property
    def choices(self) -> list[tuple[int, ...]]:
        return list(combinations(range(len(self.chunks)), self.together))


def choose_plan(m: int, n: int, k: int, radius: int, pairs: int) -> Plan | None:
    """Choose the plan of least cost for m and n rows; None if a full product costs less.

    Parameters
    ----------
    m, n, k, radius : int
    pairs : int
        How many pairs of rows there are: m n, or half of it for one set of rows.
    """
    k_words = -(-k // WORD_BITS)
    pair_cost = PAIR_COST + PAIR_WORD_COST * k_words
    best, best_cost = None, (SCAN_COST + SCAN_WORD_COST * k_words) * pairs
    most_pairs = int(best_cost / pair_cost)
    id_bits = max(m, n, 2).bit_length()
    for together in TOGETHER:
        count = radius + together
        choices = math.comb(count, together)
        if count > k or choices > MOST_CHOICES:
            break
        most_bits = min((WORD_BITS - id_bits) // together, WORD_BITS)
        bounds = [k * i // count for i in range(count + 1)]
        chunks = [(i, min(j - i, most_bits)) for i, j in pairwise(bounds)]
        key_bits = together * min(bits for _, bits in chunks)
        agreeing = pairs / 2**key_bits
        cost = choices * (CHOICE_COST + KEY_COST * (m + n) + pair_cost * agreeing)
        if cost < best_cost:
            best, best_cost = Plan(chunks, together, most_pairs), cost
    return best


def join(a: Words, b: Words | None, radius: int, plan: Plan, add: Callable[..., object]) -> bool:
    """Find all pairs of rows within a distance, and hand them to `add`.

    Parameters
    ----------
    a : ndarray of shape (m, k_words), uint64
    b : ndarray of shape (n, k_words), uint64; or None
        None pairs the rows of `a` with each other, each two once.
    radius : int
    plan : Plan
    add : callable (i, j, distances)
        Called with rows of `a`, rows of `b`, and their distances; with i < j if `b` is None.

    Returns
    -------
    bool
        False if more pairs than the plan allows agree in their chunks. Then not all are found.
    """
    choices, left = plan.choices, plan.most_pairs
    rows = len(a) if b is None else len(a) + len(b)
    with progress(len(choices) * rows, "rows") as done:
        for choice in choices:
            side_a = _Sorted(a, plan.chunks, choice)
            side_b = side_a if b is None else _Sorted(b, plan.chunks, choice)
            runs = _partners(side_a, side_b)
            left -= int((runs.last - runs.first).sum())
            if left < 0:
                return False
            others = [plan.chunks[p] for p in range(choice[-1]) if p not in choice]
            for found in _compare(side_a, side_b, runs, radius, others):
                add(*(_ascending(*found) if b is None else found))
            done(rows)
    return True


class _Sorted:
    """Rows in the order of a key, which is made of some of their chunks."""

    def __init__(self, words: Words, chunks: list[Chunk], choice: tuple[int, ...]) -> None:
        self.words = words
        id_bits = np.uint64(max(len(words), 2).bit_length())
        keys = np.zeros(len(words), np.uint64)
        for p in choice:
            keys = keys << np.uint64(chunks[p][1]) | _bits(words, *chunks[p])
        # Sorting numbers is several times as fast as argsort: the low bits carry the row.
        keys <<= id_bits
        keys |= np.arange(len(words), dtype=np.uint64)
        keys.sort()
        self.ids = (keys & ((np.uint64(1) << id_bits) - np.uint64(1))).astype(np.int64)
        self.keys = keys >> id_bits


def _bits(words: Words, start: int, count: int) -> Words:
    """Return `count` < 64 bits of each row, from bit `start` on."""
    word, shift = divmod(start, WORD_BITS)
    bits = words[:, word] >> np.uint64(shift)
    if shift + count > WORD_BITS:
        bits |= words[:, word + 1] << np.uint64(WORD_BITS - shift)
    return bits & np.uint64((1 << count) - 1)


class _Runs(NamedTuple):
    """Places in one order of rows, and for each those in another, from `first` to `last` - 1."""

    places: Ids
    first: Ids
    last: Ids


def _partners(a: _Sorted, b: _Sorted) -> _Runs:
    """Return the places in `a` that have equal keys in `b`; if they are one, after themselves."""
    if a is b:
        places = np.flatnonzero(a.keys[1:] == a.keys[:-1])  # the next place has the same key
        ends = np.flatnonzero(np.diff(places, append=len(a.keys)) > 1) + 1
        return _Runs(places, places + 1, np.repeat(places[ends - 1] + 2, np.diff(ends, prepend=0)))
    first = np.searchsorted(b.keys, a.keys)
    places = np.flatnonzero(b.keys.take(first, mode="clip") == a.keys)
    last = np.searchsorted(b.keys, a.keys[places], side="right")
    return _Runs(places, first[places], last)


def _compare(
    a: _Sorted, b: _Sorted, runs: _Runs, radius: int, others: list[Chunk]
) -> Iterator[Found]:
    """Yield the pairs within the radius that agree in none of the other chunks."""
    most = max(BLOCK_WORDS // a.words.shape[1], 1)
    for left, right in _expand(runs, most):
        i, j = a.ids[left], b.ids[right]
        differing = a.words.take(i, axis=0)  # several times as fast as a.words[i]
        differing ^= b.words.take(j, axis=0)
        distances = row_counts(differing)
        kept = np.flatnonzero(distances <= radius)
        differing = differing.take(kept, axis=0)
        for chunk in others:
            if not len(kept):
                break
            new = np.flatnonzero(_bits(differing, *chunk))
            if len(new) < len(kept):
                kept, differing = kept[new], differing.take(new, axis=0)
        if len(kept):
            yield i[kept], j[kept], distances[kept].astype(np.int32)


def _expand(runs: _Runs, most: int) -> Iterator[tuple[Ids, Ids]]:
    """Yield the pairs (places[r], p) with first[r] <= p < last[r].

    They come in blocks of at most `most`, or of all pairs of one place.
    """
    places, first = runs.places, runs.first
    lengths = runs.last - first
    ends = np.cumsum(lengths)
    start = 0
    while start < len(places):
        before = int(ends[start] - lengths[start])
        stop = max(int(np.searchsorted(ends, before + most, side="right")), start + 1)
        part = slice(start, stop)
        shifts = first[part] - (ends[part] - lengths[part] - before)
        count = int(ends[stop - 1]) - before
        yield (
            np.repeat(places[part], lengths[part]),
            np.arange(count) + np.repeat(shifts, lengths[part]),
        )
        start = stop


def _ascending(i: Ids, j: Ids, distances: Any) -> Found:
    return np.minimum(i, j), np.maximum(i, j), distances
