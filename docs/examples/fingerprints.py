"""Search chemical fingerprints
============================

Search chemical fingerprints by the Tanimoto (Jaccard) similarity.

A fingerprint says which fragments a molecule has: about 50 of 2048 bits are 1. Here molecules are
sets of invented fragments, derived from each other in families. With RDKit, the bytes of
`DataStructs.ExplicitBitVect` rows, as `np.packbits` makes them, are taken in the same way.
"""

import numpy as np

import bitops as bo
from bitops import search

BITS, FRAGMENTS = 2048, 50


def molecules(rng: np.random.Generator, families: int, members: int) -> list[set[int]]:
    """Sets of fragments; a member of a family has some others than its first molecule."""
    found = []
    for _ in range(families):
        first = rng.choice(BITS, FRAGMENTS, replace=False)
        for _ in range(members):
            kept = rng.permutation(first)[: rng.integers(25, FRAGMENTS)]
            other = rng.choice(BITS, rng.integers(0, 15), replace=False)
            found.append(set(kept.tolist()) | set(other.tolist()))
    return found


def fingerprints(sets: list[set[int]]) -> bo.BitArray:
    """One row of bits for each set."""
    table = np.zeros((len(sets), BITS), bool)
    for row, fragments in zip(table, sets, strict=True):
        row[list(fragments)] = True
    packed = np.packbits(table, axis=-1)  # as other programs keep them
    return bo.BitArray.from_packbits(packed)


def tanimoto(a: set[int], b: set[int]) -> float:
    return len(a & b) / len(a | b)


def main() -> None:
    rng = np.random.default_rng(0)
    sets = molecules(rng, families=400, members=10)
    library = fingerprints(sets)
    print(f"{len(sets):,} molecules, {library.nbytes:,} bytes")

    # The distance is 1 - similarity, rounded once: it equals the one of Python's sets.
    distances, rows = search.topk(library[:5], library, 6, "jaccard")
    for query in range(5):
        wanted = [1 - tanimoto(sets[query], sets[row]) for row in rows[query]]
        assert np.allclose(distances[query], wanted, rtol=0, atol=1e-15)
        by_hand = sorted(range(len(sets)), key=lambda row: -tanimoto(sets[query], sets[row]))
        assert rows[query].tolist() == by_hand[:6]
    nearest = zip(rows[0], 1 - distances[0], strict=True)
    similar = ", ".join(f"{row} ({similarity:.2f})" for row, similarity in nearest)
    print(f"most similar to molecule 0: {similar}")

    # All pairs with a similarity of at least 0.6, without a matrix of all distances.
    i, j, distance = search.pairs_within(library, 0.4, "jaccard")
    assert all(tanimoto(sets[a], sets[b]) >= 0.6 for a, b in zip(i[:200], j[:200], strict=True))
    same = np.mean(i // 10 == j // 10)
    print(f"{len(i):,} pairs are that similar, {same:.0%} of them of one family")
    assert len(i) > 1000 and same > 0.99 and distance.max() <= 0.4

    # Only among some molecules, given by a mask or by their numbers.
    _, rows = search.topk(library[:1], library, 3, "jaccard", subset=np.arange(5, 4000))
    assert rows.min() >= 5


if __name__ == "__main__":
    main()
