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
from collections.abc import Callable
from itertools import combinations, pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from .. import _core
from ..ops.memory import WORD_BITS
from .progress import progress

__all__ = ["Add", "Plan", "choose_plan", "copied", "join", "pair_cost"]

Words = NDArray[np.uint64]
Pairs = NDArray[np.uint64]  # row of a << 32 | row of b
Add = Callable[[Pairs, NDArray[np.int32]], object]  # takes pairs and their mismatches
Chunk = tuple[int, int]  # its first bit, and how many bits

KEY_BITS = 32
TOGETHER = (1, 2, 3, 4)
MOST_CHOICES = 4096
CALL_CHOICES = 8  # whose keys are made in one pass over the rows

# Nanoseconds on one AVX-512 core: to begin with a choice of chunks; to make and sort the key of a
# row; to compare two rows that agree in it, and each of their first words.
CHOICE_COST, KEY_COST = 3e4, 20.0
PAIR_COST, PAIR_WORD_COST, PAIR_WORDS = 12.0, 3.0, 8


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


def pair_cost(k_words: int) -> float:
    """Return the nanoseconds that a comparison of two rows takes, which lie anywhere."""
    return PAIR_COST + PAIR_WORD_COST * min(k_words, PAIR_WORDS)


def choose_plan(
    rows: int, k: int, radius: int, pairs: int, scan_cost: float, agreement: float = 0.5
) -> Plan | None:
    """Choose the plan of least cost; None if a full product costs less.

    Parameters
    ----------
    rows : int
        Of both sets together.
    k, radius : int
    pairs : int
        How many pairs of rows there are.
    scan_cost : float
        Nanoseconds that the full product takes for each.
    agreement : float
        The probability that two rows agree in a bit.
    """
    cost_of_pair = pair_cost(-(-k // WORD_BITS))
    best, best_cost = None, scan_cost * pairs
    most_pairs = int(best_cost / cost_of_pair)
    for together in TOGETHER:
        count = radius + together
        choices = math.comb(count, together)
        if count > k or choices > MOST_CHOICES:
            break
        bounds = [k * i // count for i in range(count + 1)]
        chunks = [(i, min(j - i, KEY_BITS // together)) for i, j in pairwise(bounds)]
        key_bits = together * min(bits for _, bits in chunks)
        agreeing = pairs * agreement**key_bits
        cost = choices * (CHOICE_COST + KEY_COST * rows + cost_of_pair * agreeing)
        if cost < best_cost:
            best, best_cost = Plan(chunks, together, most_pairs), cost
    return best


def copied(found: _core.Found) -> tuple[Pairs, NDArray[np.int32]]:
    """Return what the native module has found: pairs and their mismatches."""
    pairs, mismatches = np.empty(len(found), np.uint64), np.empty(len(found), np.int32)
    if len(found):
        found.copy(pairs, mismatches)
    return pairs, mismatches


def join(a: Words, b: Words | None, radius: int, plan: Plan, add: Add) -> bool:
    """Find all pairs of rows within a distance, and hand them to `add`.

    Parameters
    ----------
    a : ndarray of shape (m, k_words), uint64
    b : ndarray of shape (n, k_words), uint64; or None
        None pairs the rows of `a` with each other, each two once.
    radius : int
    plan : Plan
    add : callable (pairs, mismatches)
        Called with what the native module has found, several times.

    Returns
    -------
    bool
        False if more pairs than the plan allows agree in their chunks. Then not all are found.
    """
    chunks, choices = np.array(plan.chunks, np.uint32), np.array(plan.choices, np.uint32)
    left = plan.most_pairs
    step = max(CALL_CHOICES, _core.get_num_threads())
    with progress(len(choices) * len(a), "rows") as done:
        for start in range(0, len(choices), step):
            part = choices[start : start + step]
            compared = np.empty(len(part), np.uint64)
            other = a if b is None else b
            add(*copied(_core.join(a, other, radius, b is None, chunks, part, left, compared)))
            left -= int(compared.sum())
            if left < 0:
                return False
            done(len(part) * len(a))
    return True
