"""search.score_topk against all scores, sorted by NumPy."""

import numpy as np
import pytest
from numpy.testing import assert_array_equal

import bitops as bo
from bitops import search
from bitops.benchmark import threads as some_threads


def sort(scores, count):
    """The largest scores of each row, those of equal size by their index, padded."""
    m, n = scores.shape
    order = np.argsort(-scores, axis=1, kind="stable")[:, :count]
    values = np.full((m, count), -np.inf, np.float32)
    indices = np.full((m, count), -1, np.int64)
    values[:, :n], indices[:, :n] = np.take_along_axis(scores, order, 1), order
    return values, indices


def rounded_scores(queries, x, query_bits, values):
    """Scores of rounded queries, as the docstring states them, from exact products."""
    low, high = values
    queries = np.asarray(queries, np.float32)
    scale = np.abs(queries).max(axis=1).astype(np.float64) / (2 ** (query_bits - 1) - 1)
    codes = np.rint(queries / np.where(scale > 0, scale, 1)[:, None]).astype(np.int64)
    scores = (codes @ np.where(x, 1, -1).T).astype(np.float32)
    scores *= (scale * (high - low) / 2).astype(np.float32)[:, None]
    if low != -high:
        sums = queries.sum(axis=1, dtype=np.float64) * ((low + high) / 2)
        scores += sums.astype(np.float32)[:, None]
    return scores


VALUES = ((-1, 1), (0, 1), (1, -1), (-0.5, 0.25), (2, 2))
SHAPES = (
    (1, 1, 1, 1),
    (7, 40, 70, 50),
    (3, 2100, 64, 10),
    (70, 1500, 130, 33),
    (2, 1030, 1024, 99),
)


def queries_of(rng, m, k, kind):
    """Numbers without a pattern, or small ones, whose scores are often equal."""
    return rng.standard_normal((m, k)) if kind == "floats" else rng.integers(-3, 4, (m, k))


@pytest.mark.parametrize("kind", ("floats", "small"))
@pytest.mark.parametrize("values", VALUES, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_exact(isa, rng, threads, shape, values, kind):
    m, n, k, count = shape
    x, queries = rng.random((n, k)) < 0.4, queries_of(rng, m, k, kind)
    everything = np.tile(np.arange(n), (m, 1))
    expected = sort(search.rescore(queries, bo.pack(x), everything, values=values), count)
    got = search.score_topk(queries, bo.pack(x), count, values=values)
    for own, wanted in zip(got, expected, strict=True):
        assert_array_equal(own, wanted, strict=True)


@pytest.mark.parametrize("query_bits", (4, 8))
@pytest.mark.parametrize("kind", ("floats", "small"))
@pytest.mark.parametrize("values", VALUES, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_rounded(isa, rng, threads, shape, values, kind, query_bits):
    m, n, k, count = shape
    x, queries = rng.random((n, k)) < 0.4, queries_of(rng, m, k, kind)
    expected = sort(rounded_scores(queries, x, query_bits, values), count)
    got = search.score_topk(queries, bo.prepack(x), count, query_bits=query_bits, values=values)
    for own, wanted in zip(got, expected, strict=True):
        assert_array_equal(own, wanted, strict=True)


@pytest.mark.parametrize("query_bits", (None, 4, 8))
@pytest.mark.parametrize(("m", "k", "count"), ((130, 300, 20), (300, 70, 4096)))
def test_threads_give_the_same(isa, rng, m, k, count, query_bits):
    """Rows of x share the spans of several threads; many candidates are kept group by group."""
    x, queries = bo.pack(rng.random((4096, k)) < 0.5), rng.standard_normal((m, k))
    with some_threads(1):
        want = search.score_topk(queries, x, count, query_bits=query_bits)
    for number in (2, 6):
        with some_threads(number):
            got = search.score_topk(queries, x, count, query_bits=query_bits)
        for own, wanted in zip(got, want, strict=True):
            assert_array_equal(own, wanted, strict=True)


@pytest.mark.parametrize("query_bits", (None, 4, 8))
def test_ends(query_bits):
    """Zeros, numbers of every size, no rows, no queries, no elements."""
    for m, n, k in ((0, 4, 70), (3, 0, 70), (3, 4, 0), (2, 5, 70)):
        scores, indices = search.score_topk(
            np.zeros((m, k)), np.ones((n, k), bool), 3, query_bits=query_bits
        )
        found = min(3, n)
        assert scores.shape == indices.shape == (m, 3)
        assert_array_equal(indices[:, :found], np.tile(np.arange(found), (m, 1)))
        assert not scores[:, :found].any() and (scores[:, found:] == -np.inf).all()
    for size in np.array([1e-45, 1e-20, 1e30], np.float32):
        scores, indices = search.score_topk([[size, -size]], [[1, 1], [-1, 1], [1, -1]], 2)
        assert_array_equal(scores, np.float32([[2 * size, 0]]))
        assert_array_equal(indices, [[2, 0]])


@pytest.mark.parametrize(
    ("error", "text", "arguments"),
    (
        (ValueError, "count must be at least 1, got 0", {"count": 0}),
        (ValueError, "count must be at most 65536, or the number of rows, 1,", {"count": 10**12}),
        (TypeError, "count must be an integer", {"count": 1.5}),
        (ValueError, "query_bits must be None, 4 or 8, got 5", {"query_bits": 5}),
        (TypeError, "query_bits must be an integer", {"query_bits": "4"}),
        (ValueError, "queries must be finite", {"queries": [[np.nan, 1.0]]}),
        (ValueError, "queries must be finite", {"queries": [[np.inf, 1.0]]}),
        (ValueError, "queries must be finite", {"queries": [[3e38, 3e38]]}),
        (ValueError, r"values must leave sums finite, got \(0\.0, 3e\+38\)", {"values": (0, 3e38)}),
        (ValueError, "queries and b must have the same k", {"queries": [[1.0]]}),
        (ValueError, "queries must be a matrix", {"queries": [1.0, 2.0]}),
        (TypeError, "queries must hold real numbers", {"queries": [[True, False]]}),
        (TypeError, "values must be a pair", {"values": [0, 1]}),
        (ValueError, "values must be finite", {"values": (0, np.inf)}),
    ),
)
def test_errors(error, text, arguments):
    settings = {"queries": [[1.0, 2.0]], "b": [[1, -1]], "count": 1} | arguments
    with pytest.raises(error, match=rf"^\[search\.score_topk\] {text}"):
        search.score_topk(**settings)
