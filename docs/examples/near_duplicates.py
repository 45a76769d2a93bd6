"""Find near-duplicate pictures
============================

Find near-duplicate pictures by their hashes.

A difference hash says, for each of 8 x 8 places of a small copy of a picture, whether it is
brighter than its right neighbor. Pictures that differ little have hashes that differ in few of 64
bits. Here they are scikit-learn's digits, enlarged, and copies of some that were changed as
pictures are: other brightness, noise, a shifted frame.
"""

import numpy as np
from scipy import ndimage
from sklearn.datasets import load_digits

import bitops as bo
from bitops import search

RADIUS = 10  # of 64 bits


def hashes(pictures: np.ndarray) -> bo.BitArray:
    """Difference hashes of pictures (n, height, width), 64 bits each."""
    n, height, width = pictures.shape
    small = ndimage.zoom(pictures, (1, 8 / height, 9 / width), order=1)
    return bo.pack((small[:, :, 1:] < small[:, :, :-1]).reshape(n, 64))


def changed(pictures: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Copies that a person would call the same pictures."""
    n = len(pictures)
    copies = pictures * rng.uniform(0.7, 1.2, (n, 1, 1)) + rng.uniform(0, 3, (n, 1, 1))
    copies += rng.normal(0, 0.2, copies.shape)
    return np.array([np.roll(copy, rng.integers(-1, 2), axis=1) for copy in copies])


def main() -> None:
    rng = np.random.default_rng(0)
    digits = load_digits().images + rng.normal(0, 0.5, (1797, 8, 8))  # no two are alike
    pictures = ndimage.zoom(digits, (1, 6, 6), order=1)
    originals = rng.choice(len(pictures), 200, replace=False)
    everything = np.concatenate([pictures, changed(pictures[originals], rng)])

    i, j, distance = search.pairs_within(hashes(everything), RADIUS, "hamming")
    planted = set(zip(originals.tolist(), range(len(pictures), len(everything)), strict=True))
    found = set(zip(i.tolist(), j.tolist(), strict=True))
    total = len(everything) * (len(everything) - 1) // 2
    print(
        f"{len(found):,} of {total:,} pairs are within {RADIUS} bits; among them "
        f"{len(found & planted)} of the {len(planted)} copies with their originals"
    )
    # The pairs are exactly those of all distances, of which no matrix was made.
    distances = bo.hamming(hashes(everything), hashes(everything))
    rows, columns = np.nonzero(np.triu(distances <= RADIUS, 1))
    assert np.array_equal(rows, i) and np.array_equal(columns, j)
    assert np.array_equal(distances[i, j], distance)
    assert len(found & planted) > 0.9 * len(planted) and len(found) < 0.01 * total

    # Later pictures are looked up in an index, which may lie in a folder of files.
    index = search.BitIndex(hashes(pictures))
    distances, ids = index.search(hashes(changed(pictures[originals], rng)), 1)
    print(f"{np.mean(ids[:, 0] == originals):.0%} of new copies find their original first")


if __name__ == "__main__":
    main()
