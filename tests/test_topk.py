"""hamming_topk against a stable sort of all distances, on every ISA and any number of threads."""

import numpy as np
import pytest
from numpy.testing import assert_array_equal

import bitops as bo
from bitops import reference as ref
from conftest import random_signs

# (m, n, k, count): one query and many, rows around panels and spans, k around words and the cut of
# long rows, count from 1 to n.
SHAPES = (
    (1, 1, 1, 1),
    (1, 5000, 1025, 1000),
    (2, 31, 64, 31),
    (3, 33, 7, 5),
    (5, 2500, 300, 2500),
    (8, 1030, 1024, 3),
    (9, 4100, 65, 17),
    (17, 65, 128, 64),
    (33, 1000, 16384, 2),
    (70, 1500, 16385, 9),
    (3, 100, 20000, 100),
    (300, 70, 16500, 4),
    (1100, 129, 1100, 1),
    (2100, 40, 1024, 40),
)


def assert_equals_reference(a, w, count, weights=None):
    distances, indices = bo.hamming_topk(
        bo.pack(a), bo.pack(w) if weights is None else weights, count
    )
    expected, order = ref.hamming_topk(a, w, count)
    assert_array_equal(indices, order, strict=True)
    assert_array_equal(distances, expected, strict=True)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_random_rows(isa, rng, threads, shape):
    m, n, k, count = shape
    if isa == "generic" and m * n * k > 5e8:
        pytest.skip("takes seconds in portable C")
    a, w = random_signs(rng, m, k), random_signs(rng, n, k)
    assert_equals_reference(a, w, count)
    assert_equals_reference(a, w, count, bo.prepack(w))


@pytest.mark.parametrize("m", (1, 20))
def test_ties(isa, rng, threads, m):
    """Few distinct rows, all alike, and distances that only fall: indices decide."""
    for k in (1, 2, 3, 70):
        few = random_signs(rng, 3, k)[rng.integers(0, 3, 3000)]
        alike = np.ones((3000, k), np.int8)
        for w in (few, alike, -alike):
            for count in (1, 2, 50, 3000):
                assert_equals_reference(random_signs(rng, m, k), w, count)


@pytest.mark.parametrize("m", (1, 20))
def test_every_column_is_nearer_than_the_one_before(isa, threads, m):
    """The heap of every row changes with every column; the extremes 0 and k occur."""
    k = 1500
    w = np.where(np.arange(k) < np.arange(k + 1)[:, None], 1, -1).astype(np.int8)
    a = np.ones((m, k), np.int8)
    for count in (1, 7, 1000, k + 1):
        assert_equals_reference(a, w, count)
        assert_equals_reference(a, w[::-1], count)


def test_empty(isa):
    for m, n, k, count in ((0, 5, 70, 2), (3, 5, 0, 5), (40, 2000, 0, 3), (0, 1, 0, 1)):
        a, w = np.ones((m, k)), np.ones((n, k))
        assert_equals_reference(a, w, count)
        assert_equals_reference(a, w, count, bo.prepack(w))


def test_array_likes(isa):
    distances, indices = bo.hamming_topk([[1.0, -2.0]], [[-1, 1], [1, 1], [1, -1]], np.int64(2))
    assert distances.tolist() == [[0, 1]]
    assert indices.tolist() == [[2, 1]]


A, W = np.ones((3, 70)), np.ones((5, 70))


@pytest.mark.parametrize(
    ("call", "error", "text"),
    (
        (lambda: bo.hamming_topk(A, W, 0), ValueError, r"count.*\[1, 5\].*0"),
        (lambda: bo.hamming_topk(A, W, 6), ValueError, r"count.*\[1, 5\].*6"),
        (lambda: bo.hamming_topk(A, W, -1), ValueError, "count.*-1"),
        (
            lambda: bo.hamming_topk(A, W[:0], 1),
            ValueError,
            "b must have at least one row, got none",
        ),
        (lambda: bo.hamming_topk(A, W, 2.0), TypeError, "count.*2.0"),
        (lambda: bo.hamming_topk(A, W, None), TypeError, "count.*None"),
        (lambda: bo.hamming_topk(A, W[:, :69], 1), ValueError, "k.*70.*69"),
        (lambda: bo.hamming_topk(A[0], W, 1), ValueError, "a .*axes"),
        (lambda: bo.hamming_topk([A], W, 1), ValueError, "matrices"),
        (lambda: bo.hamming_topk(A, [W], 1), ValueError, "matrices"),
        (lambda: bo.hamming_topk(A * np.nan, W, 1), ValueError, "NaN"),
        (lambda: bo.hamming_topk(A, W * 1j, 1), TypeError, "complex"),
        (lambda: bo.hamming_topk(bo.prepack(A), W, 1), TypeError, "Prepacked"),
        (lambda: bo.hamming_topk(A, bo.pack(W, 0), 1), ValueError, "last axis"),
    ),
)
def test_errors(call, error, text):
    with pytest.raises(error, match=rf"\[hamming_topk\].*{text}"):
        call()
