"""Classify digits with hypervectors
=================================

Classify digits with hypervectors: random rows of bits that are bound, bundled and compared.

Each pixel has a random hypervector, and so has each brightness; those of similar brightness share
most of their bits. A pixel of some brightness is the product of the two. A picture is the majority
of its pixels, and a class the majority of its pictures. A picture belongs to the class at the
smallest Hamming distance.

References: P. Kanerva, "Hyperdimensional Computing", 2009; A. Rahimi, P. Kanerva, J. Rabaey, "A
Robust and Energy-Efficient Classifier Using Brain-Inspired Hyperdimensional Computing", 2016.
"""

import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

import bitops as bo
from bitops import search

BITS = 8192
LEVELS = 17  # of brightness


def level_vectors(rng: np.random.Generator) -> bo.BitArray:
    """Hypervectors of brightness: from one to the next, some other bits are inverted."""
    first = rng.random(BITS) < 0.5
    turn = rng.permutation(BITS // 2) * (LEVELS - 1) // (BITS // 2)  # level at which a bit turns
    turn = np.concatenate([turn, np.full(BITS - BITS // 2, LEVELS)])[rng.permutation(BITS)]
    return bo.pack(first ^ (turn < np.arange(LEVELS)[:, None]))


def encode(images: np.ndarray, pixels: bo.BitArray, levels: bo.BitArray) -> bo.BitArray:
    """One hypervector for each picture of whole numbers (n, pixels)."""
    encoded = [bo.majority(levels[image] * pixels, axis=0) for image in images]
    return np.stack(encoded)


def main() -> None:
    rng = np.random.default_rng(0)
    images, labels = load_digits(return_X_y=True)
    split = train_test_split(images.astype(int), labels, test_size=500, random_state=0)
    images, test_images, labels, test_labels = split

    pixels, levels = bo.pack(rng.random((64, BITS)) < 0.5), level_vectors(rng)
    train, test = encode(images, pixels, levels), encode(test_images, pixels, levels)
    classes = np.stack([bo.majority(train[labels == digit]) for digit in range(10)])
    _, nearest = search.topk(test, classes, 1, "hamming")
    accuracy = np.mean(nearest[:, 0] == test_labels)
    print(f"nearest class: {accuracy:.1%} of {len(test):,} digits, {classes.nbytes:,} bytes")
    assert accuracy > 0.8

    # The nearest picture instead of the nearest class.
    _, nearest = search.topk(test, train, 1, "hamming")
    accuracy = np.mean(labels[nearest[:, 0]] == test_labels)
    print(f"nearest picture: {accuracy:.1%}, {train.nbytes:,} bytes")
    assert accuracy > 0.95

    # The same with NumPy on +-1: products, sums, signs; a tie gives +1.
    values = np.asarray(levels)[test_images[0]] * np.asarray(pixels)
    signs = np.where(values.sum(axis=0) >= 0, 1, -1)
    assert np.array_equal(np.asarray(test[0]), signs)


if __name__ == "__main__":
    main()
