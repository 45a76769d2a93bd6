"""Count what occurs together
==========================

Count how often two things occur together: words in sentences, items in baskets.

A table says which thing occurs in which basket. The counts of all pairs are a product of the table
with itself; as bits it is smaller by 32 than in float32, and the counts are exact.
"""

import numpy as np

import bitops as bo
from bitops import search


def baskets(rng: np.random.Generator, n: int, things: int) -> np.ndarray:
    """Baskets (n, things) of bool; 40 and 41 are bought together, 42 and 43 almost never."""
    popularity = 0.3 / np.sqrt(np.arange(1, things + 1))
    table = rng.random((n, things)) < popularity
    table[:, 41] = np.where(rng.random(n) < 0.7, table[:, 40], table[:, 41])
    table[:, 43] &= ~table[:, 42] | (rng.random(n) < 0.05)
    return table


def main() -> None:
    rng = np.random.default_rng(0)
    n, things = 50_000, 300
    table = baskets(rng, n, things)
    occurs = bo.pack(table.T)  # a row of bits for each thing
    together = search.pairwise(occurs, occurs, "intersection")
    print(f"{table.size:,} bool are {occurs.nbytes:,} bytes of bits")

    numbers = table.astype(np.float32)
    assert np.array_equal(together, numbers.T @ numbers)  # float32 is exact up to 2^24
    counts = bo.popcount(occurs, axis=1)
    assert np.array_equal(counts, np.diag(together))

    # What occurs together more often than by chance.
    lift = together * float(n) / np.outer(counts, counts)
    first, second = np.unravel_index(np.triu(lift, 1).argmax(), lift.shape)
    times = lift[first, second]
    print(f"things {first} and {second} occur together {times:.1f} times as often as by chance")
    assert (first, second) == (40, 41) and lift[42, 43] < 0.2

    # The five that occur with thing 40 most often, without the other counts.
    most, rows = search.topk(occurs[40:41], occurs, 6, "intersection")
    expected = np.argsort(-together[40], kind="stable")[:6]
    assert np.array_equal(rows[0], expected) and np.array_equal(most[0], together[40, expected])
    print(f"with thing 40 occur most often: {rows[0, 1:].tolist()}")


if __name__ == "__main__":
    main()
