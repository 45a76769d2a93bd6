"""search.rescore against float64 products of NumPy."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import bitops as bo
from bitops import search


def plain(queries, x, candidates, values=(-1, 1)):
    """float64 products of each query with its candidates among rows of bool."""
    rows = np.where(x, values[1], values[0]).astype(np.float64)
    if not len(rows):
        return np.full(candidates.shape, -np.inf)
    scores = np.einsum("mk,mck->mc", np.asarray(queries, np.float64), rows[candidates])
    return np.where(candidates < 0, -np.inf, scores)


VALUES = ((-1, 1), (0, 1), (1, -1), (-0.5, 0.25), (2, 2), (np.float32(1), np.int64(3)))


@pytest.mark.parametrize("values", VALUES, ids=str)
@pytest.mark.parametrize("shape", ((1, 1, 1, 1), (7, 40, 70, 13), (20, 300, 1024, 100)), ids=str)
def test_random(isa, rng, threads, shape, values):
    m, n, k, count = shape
    x = rng.random((n, k)) < 0.4
    candidates = rng.integers(-1, n, (m, count))
    small = rng.integers(-50, 50, (m, k))
    expected = plain(small, x, candidates, values)
    for queries in (small, small.astype(np.float64), np.asfortranarray(small, np.float32)):
        got = search.rescore(queries, bo.pack(x), candidates, values=values)
        assert_array_equal(got, expected.astype(np.float32), strict=True)
    queries = rng.standard_normal((m, k), dtype=np.float32)
    got = search.rescore(queries, bo.prepack(x), candidates.astype(np.int32), values=values)
    limit = (k / 4 + 8) * 2**-24 * np.abs(queries).sum(axis=1, keepdims=True) * 4
    expected = plain(queries, x, candidates, values)
    found = candidates >= 0
    limit = np.broadcast_to(limit, found.shape)
    assert (np.abs(got[found] - expected[found]) <= limit[found]).all()
    assert (got[~found] == -np.inf).all()


def test_products_are_those_of_weight_gemm(rng):
    queries, x = rng.standard_normal((5, 130)), bo.pack(rng.standard_normal((30, 130)))
    everything = np.tile(np.arange(30), (5, 1))
    assert_array_equal(search.rescore(queries, x, everything), bo.weight_gemm(queries, x))


def test_empty():
    for m, n, k, count in ((0, 4, 70, 3), (3, 4, 70, 0), (3, 0, 70, 2), (3, 4, 0, 2)):
        queries, x = np.ones((m, k)), np.ones((n, k), bool)
        candidates = np.full((m, count), -1 if n == 0 else 2)
        for values in VALUES:
            got = search.rescore(queries, x, candidates, values=values)
            assert_array_equal(got, plain(queries, x, candidates, values))
    assert search.rescore(np.ones((2, 5)), np.ones((3, 5)), [[], []]).shape == (2, 0)


def test_numbers_that_are_not_finite():
    queries = np.array([[np.inf, 1], [np.nan, 1], [np.inf, -np.inf]])
    for values in ((-1, 1), (0, 2)):
        got = search.rescore(queries, [[True, True]], np.zeros((3, 1), int), values=values)
        assert_array_equal(got, [[np.inf], [np.nan], [np.nan]])


def test_two_stages(rng):
    """The scores order candidates as the products of all rows order these."""
    embeddings = rng.standard_normal((500, 256))
    queries = embeddings[:9] + rng.standard_normal((9, 256))
    bits = bo.pack(embeddings)
    _, candidates = search.topk(queries, bits, 500, "hamming")
    scores = search.rescore(queries, bits, candidates)
    best = np.take_along_axis(candidates, scores.argmax(axis=1)[:, None], axis=1)[:, 0]
    assert_array_equal(best, (queries @ np.asarray(bits, np.float64).T).argmax(axis=1))
    expected = plain(queries, embeddings >= 0, candidates)
    limit = (256 / 4 + 4) * 2**-24 * np.abs(queries).sum(axis=1).max()  # of weight_gemm
    assert_allclose(scores, expected, rtol=0, atol=limit)


Q, B, C = np.ones((2, 70)), np.ones((3, 70), bool), np.zeros((2, 4), int)


@pytest.mark.parametrize(
    ("error", "text", "queries", "b", "candidates", "values"),
    (
        (TypeError, "queries must hold real numbers, got a BitArray", bo.pack(Q), B, C, (-1, 1)),
        (TypeError, "queries must hold real numbers, got dtype bool", Q > 0, B, C, (-1, 1)),
        (ValueError, r"queries must be a matrix, got shape \(70,\)", Q[0], B, C, (-1, 1)),
        (ValueError, r"b must be a matrix, got shape \(1, 3, 70\)", Q, B[None], C, (-1, 1)),
        (ValueError, "queries and b must have the same k, got 70 and 9", Q, B[:, :9], C, (-1, 1)),
        (TypeError, "candidates must hold integers, got dtype float64", Q, B, C * 1.0, (-1, 1)),
        (TypeError, "candidates must not be packed bits", Q, B, bo.pack(C), (-1, 1)),
        (TypeError, "candidates .* integer of 71 bits", Q, B, [[2**70]] * 2, (-1, 1)),
        (ValueError, r"candidates must have shape \(2, count\), got \(1, 4\)", Q, B, C[:1], (0, 1)),
        (ValueError, r"candidates must be in \[-1, 3\), got 3", Q, B, C + 3, (-1, 1)),
        (ValueError, r"candidates must be in \[-1, 3\), got -2", Q, B, C - 2, (-1, 1)),
        (TypeError, "values must be a pair of real numbers, got 1", Q, B, C, 1),
        (TypeError, "values must be a pair of real numbers, got", Q, B, C, (1, 2, 3)),
        (TypeError, "values must be a real number, got 'x'", Q, B, C, (1, "x")),
        (ValueError, "values must be finite, got inf", Q, B, C, (0, np.inf)),
        (ValueError, "values must be finite, got nan", Q, B, C, (np.nan, 1)),
    ),
)
def test_wrong_arguments(error, text, queries, b, candidates, values):
    with pytest.raises(error, match=rf"^\[search\.rescore\] {text}"):
        search.rescore(queries, b, candidates, values=values)
