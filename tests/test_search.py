"""bitops.search: metrics of all pairs and paired rows, and nearest rows, against plain NumPy."""

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from scipy.spatial import distance

import bitops as bo
from bitops import search
from bitops.search import pairs
from sets import METRICS, plain, special_rows

# (m, n, k), with rows and columns around blocks
SHAPES = ((1, 1, 1), (3, 5, 70), (17, 40, 64), (257, 1100, 130), (300, 1025, 33), (2, 3, 70000))


def plain_topk(values, count, metric, ids=None):
    """The first columns of a stable sort, padded with -1."""
    ids = np.arange(values.shape[1]) if ids is None else np.unique(ids).astype(np.int64)
    keys = -values[:, ids] if metric == "intersection" else values[:, ids]
    order = np.argsort(keys, axis=1, kind="stable")[:, :count]
    padding = ((0, 0), (0, count - order.shape[1]))
    distances = np.take_along_axis(values[:, ids], order, axis=1)
    return (
        np.pad(distances, padding, constant_values=-1),
        np.pad(ids[order], padding, constant_values=-1),
    )


def assert_topk(x, y, count, metric, subset=None):
    values = plain(x, y, metric)
    is_mask = isinstance(subset, np.ndarray) and subset.dtype.kind == "b"
    expected = plain_topk(values, count, metric, np.flatnonzero(subset) if is_mask else subset)
    found = search.topk(bo.pack(x), bo.pack(y), count, metric, subset=subset)
    for got, wanted in zip(found, expected, strict=True):
        assert_array_equal(got, wanted, strict=True)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_pairwise(isa, rng, metric, shape):
    m, n, k = shape
    x, y = rng.random((m, k)) < 0.3, rng.random((n, k)) < 0.4
    expected = plain(x, y, metric)
    assert_array_equal(search.pairwise(x, bo.pack(y), metric), expected, strict=True)
    assert_array_equal(search.pairwise(bo.pack(x), bo.prepack(y), metric), expected, strict=True)


@pytest.mark.parametrize("metric", ("jaccard", "dice"))
def test_distances_are_those_of_scipy(rng, metric):
    x, y = special_rows(rng, 90), special_rows(rng, 90)
    got = search.pairwise(x, y, metric)
    filled = x.any(axis=1)[:, None] | y.any(axis=1)
    with np.errstate(invalid="ignore"):  # scipy divides 0 by 0
        expected = distance.cdist(x, y, metric)
    assert_array_equal(got[filled], expected[filled])
    assert not filled.all() and not got[~filled].any()


@pytest.mark.parametrize("metric", METRICS)
def test_special_rows(rng, metric):
    for k in (1, 2, 64, 129):
        x, y = special_rows(rng, k), special_rows(rng, k)
        values = plain(x, y, metric)
        assert_array_equal(search.pairwise(x, y, metric), values, strict=True)
        assert_array_equal(search.pairwise(x, x, metric), plain(x, x, metric), strict=True)
        assert_array_equal(search.paired(x, y, metric), np.diagonal(values), strict=True)
        for count in (1, 7, 59, 60, 61, 200):
            assert_topk(x, y, count, metric)
            assert_topk(x, y, count, metric, np.array([59, 3, 3, 0, 17, 31]))


@pytest.mark.parametrize("metric", METRICS)
def test_paired(rng, metric, monkeypatch):
    x, y = rng.random((301, 200)) < 0.3, rng.random((301, 200)) < 0.4
    expected = np.diagonal(plain(x, y, metric))
    assert_array_equal(search.paired(bo.pack(x), bo.pack(y), metric), expected, strict=True)
    monkeypatch.setattr(pairs, "PAIRED_WORDS", 40)
    assert_array_equal(search.paired(x, y, metric), expected, strict=True)


@pytest.mark.parametrize("metric", METRICS)
def test_out(rng, metric):
    x, y = rng.random((5, 70)) < 0.3, rng.random((9, 70)) < 0.4
    expected = plain(x, y, metric)
    for out in (np.empty_like(expected), np.empty((9, 5), expected.dtype).T):
        assert search.pairwise(x, y, metric, out=out) is out
        assert_array_equal(out, expected)
    wrong = np.empty((5, 9), np.float32)
    with pytest.raises(TypeError, match=r"\[search\.pairwise\] out must have dtype"):
        search.pairwise(x, y, metric, out=wrong)
    with pytest.raises(ValueError, match=r"\[search\.pairwise\] out must have shape"):
        search.pairwise(x, y, metric, out=expected[:4])


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_topk(isa, rng, metric, shape):
    m, n, k = shape
    x, y = rng.random((m, k)) < 0.3, rng.random((n, k)) < 0.4
    y[n // 2 :: 3] = y[0]  # rows at equal distances in several blocks
    for count in (1, 4, n, n + 2):
        assert_topk(x, y, count, metric)
    for subset in (rng.random(n) < 0.5, rng.integers(0, n, 9), np.zeros(n, bool), [], [n - 1]):
        assert_topk(x, y, 4, metric, subset)


@pytest.mark.parametrize("metric", METRICS)
def test_topk_of_near_and_far_rows(isa, rng, metric):
    """Rows come near to far and far to near, so that all kept ones change or none do."""
    steps = np.arange(64) < np.arange(1, 65)[:, None]
    x = rng.random((19, 64)) < 0.5
    x[0] = True
    for y in (steps, steps[::-1], np.repeat(steps[::7], 5, axis=0)):
        for count in (1, 3, 20, 70):
            assert_topk(x, y, count, metric)
            assert_topk(x, y, count, metric, rng.permutation(len(y))[: len(y) // 2])


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize(
    "leads", (((2,), ()), ((), (3,)), ((2, 1), (3,)), ((2, 3), (2, 3))), ids=str
)
def test_leading_axes(rng, metric, leads):
    a_lead, b_lead = leads
    x, y = rng.random((*a_lead, 5, 70)) < 0.3, rng.random((*b_lead, 9, 70)) < 0.4
    lead = np.broadcast_shapes(a_lead, b_lead)
    wide_x, wide_y = np.broadcast_to(x, (*lead, 5, 70)), np.broadcast_to(y, (*lead, 9, 70))
    values = search.pairwise(bo.pack(x), bo.pack(y), metric)
    mask = rng.random(9) < 0.5
    found = search.topk(bo.pack(x), bo.pack(y), 4, metric, subset=mask)
    assert values.shape == (*lead, 5, 9) and found[0].shape == found[1].shape == (*lead, 5, 4)
    for i in np.ndindex(lead):
        expected = plain(wide_x[i], wide_y[i], metric)
        assert_array_equal(values[i], expected, strict=True)
        wanted = plain_topk(expected, 4, metric, np.flatnonzero(mask))
        for got, part in zip(found, wanted, strict=True):
            assert_array_equal(got[i], part, strict=True)


@pytest.mark.parametrize("metric", METRICS)
def test_all_short_lengths(isa, rng, metric):
    """Every number of bits up to 513, with rows and columns that end anywhere in a panel."""
    x, y = rng.random((70, 513)) < 0.3, rng.random((150, 513)) < 0.4
    for k in range(1, 514):
        m, n, count = (1, 3, 9, 50, 70)[k % 5], 1 + k * 7 % 150, (1, 5, 80)[k % 3]
        values = plain(x[:m, :k], y[:n, :k], metric)
        a, b = bo.pack(x[:m, :k]), bo.pack(y[:n, :k])
        b = bo.prepack(b) if k % 2 else b
        assert_array_equal(search.pairwise(a, b, metric), values, strict=True)
        mask = rng.random(n) < (0.05, 0.5, 1.1)[k % 3]
        found = search.topk(a, b, count, metric, subset=mask)
        for got, wanted in zip(
            found, plain_topk(values, count, metric, np.flatnonzero(mask)), strict=True
        ):
            assert_array_equal(got, wanted, strict=True)


@pytest.mark.parametrize("metric", METRICS)
def test_subsets_of_many_rows(isa, rng, metric):
    """Masks whose rows are left out by the store, copied in steps, or copied beforehand."""
    x, y = rng.random((40, 300)) < 0.3, rng.random((3000, 300)) < 0.4
    values = plain(x, y, metric)
    for m in (1, 3, 40):
        for share in (0.003, 0.05, 0.3, 0.9):
            mask = rng.random(3000) < share
            for b in (bo.pack(y), bo.prepack(y)):
                for count in (3, 100):
                    found = search.topk(bo.pack(x[:m]), b, count, metric, subset=mask)
                    wanted = plain_topk(values[:m], count, metric, np.flatnonzero(mask))
                    for got, part in zip(found, wanted, strict=True):
                        assert_array_equal(got, part, strict=True)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("k", (33, 130, 520))
def test_sorted_rows(isa, rng, metric, k):
    """Rows with ascending counts, some of them equal, whose search begins in their middle."""
    for n in (5, 40, 700):
        y = rng.random((n, k)) < rng.uniform(0.01, 0.6, (n, 1))
        y[n // 3 : n // 2] = y[n // 3]
        y = y[np.argsort(y.sum(axis=1), kind="stable")]
        x = rng.random((37, k)) < rng.uniform(0.01, 0.6, (37, 1))
        values = plain(x, y, metric)
        mask = rng.random(n) < 0.8
        for count in (1, 4, 70):
            for m in (1, 37):
                for b in (bo.pack(y), bo.prepack(y)):
                    for subset, ids in ((None, None), (mask, np.flatnonzero(mask))):
                        found = search.topk(bo.pack(x[:m]), b, count, metric, subset=subset)
                        wanted = plain_topk(values[:m], count, metric, ids)
                        for got, part in zip(found, wanted, strict=True):
                            assert_array_equal(got, part, strict=True)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("k", (64, 700, 4096, 4160))
def test_sparse_rows(isa, rng, metric, k):
    """Queries with few bits set, of which only these are counted, and one with too many."""
    y = rng.random((1100, k)) < rng.choice([0.01, 0.03, 0.5], size=(1100, 1))
    x = rng.random((50, k)) < 0.04
    x[3] = False
    x[4:30] = y[:26] & (rng.random((26, k)) < 0.9) & (y[:26].mean(axis=1) < 0.1)[:, None]
    for last in (x[-1], rng.random(k) < 0.9):
        x[-1] = last
        values = plain(x, y, metric)
        mask = rng.random(1100) < 0.6
        for rows in (y, y[np.argsort(y.sum(axis=1), kind="stable")]):
            own = plain(x, rows, metric) if rows is not y else values
            for count in (2, 90):
                for subset, ids in ((None, None), (mask, np.flatnonzero(mask))):
                    found = search.topk(x, bo.prepack(rows), count, metric, subset=subset)
                    wanted = plain_topk(own, count, metric, ids)
                    for got, part in zip(found, wanted, strict=True):
                        assert_array_equal(got, part, strict=True)


@pytest.mark.parametrize("metric", METRICS)
def test_threads_share_the_rows(rng, metric):
    y = rng.random((5000, 300)) < rng.uniform(0.01, 0.2, (5000, 1))
    y[100:200] = y[100]
    x = rng.random((60, 300)) < 0.05
    mask = rng.random(5000) < 0.5
    before = bo.get_num_threads()
    try:
        for rows in (y, y[np.argsort(y.sum(axis=1), kind="stable")]):
            values = plain(x, rows, metric)
            for threads in (1, 3):
                bo.set_num_threads(threads)
                for b in (bo.pack(rows), bo.prepack(rows)):
                    for m, count in ((1, 5), (60, 5), (60, 100)):
                        for subset, ids in ((None, None), (mask, np.flatnonzero(mask))):
                            found = search.topk(bo.pack(x[:m]), b, count, metric, subset=subset)
                            wanted = plain_topk(values[:m], count, metric, ids)
                            for got, part in zip(found, wanted, strict=True):
                                assert_array_equal(got, part, strict=True)
    finally:
        bo.set_num_threads(before)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("shape", ((0, 3, 70), (3, 0, 70), (3, 4, 0), (0, 0, 0)), ids=str)
def test_empty(metric, shape):
    m, n, k = shape
    x, y = np.ones((m, k), bool), np.ones((n, k), bool)
    assert_array_equal(search.pairwise(x, y, metric), plain(x, y, metric), strict=True)
    assert_topk(x, y, 2, metric)
    assert_topk(x, y, 2, metric, np.zeros(n, bool))
    assert search.paired(x, x, metric).shape == (m,)


def test_all_of_many_rows():
    x = np.ones((1 << 17, 3), bool)
    distances, indices = search.topk(x[:1], x, len(x), "hamming", subset=[5, 2])
    assert indices.shape == (1, len(x)) and indices[0, :3].tolist() == [2, 5, -1]
    assert not distances[0, :2].any() and (distances[0, 2:] == -1).all()


def test_operands_that_are_packed_elsewhere(rng):
    """Strided and read-only words, and real numbers, which are packed by sign."""
    x = rng.standard_normal((6, 130))
    bits = bo.pack(x)
    wide = np.zeros((12, 5), np.uint64)
    wide[::2, :3] = bits.words
    strided = bo.BitArray.from_words(wide[::2, :3], (6, 130))
    wide.flags.writeable = False
    expected = plain(x >= 0, x >= 0, "jaccard")
    for a in (x, x.astype(np.float32), bits, strided):
        assert_array_equal(search.pairwise(a, strided, "jaccard"), expected)
        assert_array_equal(search.paired(a, strided, "jaccard"), np.zeros(6))
        assert_array_equal(search.topk(a, strided, 1, "jaccard")[1].ravel(), np.arange(6))


A, B = np.ones((2, 70), bool), np.ones((3, 70), bool)


@pytest.mark.parametrize("name", ("pairwise", "paired", "topk"))
def test_wrong_operands(name):
    def call(a, b, metric):
        return getattr(search, name)(a, b, *([1] if name == "topk" else []), metric)

    for error, text, arguments in (
        (TypeError, "metric must be a str, got 3", (A, A, 3)),
        (ValueError, "metric must be one of hamming, .*, got 'cosine'", (A, A, "cosine")),
        (ValueError, r"a and b must have the same k, got 70 and 9", (A, A[:, :9], "dice")),
        (ValueError, r"a must have at least two axes", (A[0], A, "dice")),
        (TypeError, "b must hold real numbers", (A, [["x"]], "dice")),
    ):
        with pytest.raises(error, match=rf"^\[search\.{name}\] {text}"):
            call(*arguments)


def test_operands_that_must_be_matrices():
    for a, b, name in ((A[None], A, "a"), (A, A[None], "b")):
        text = rf"\[search\.paired\] {name} must be a matrix, got shape \(1, 2, 70\)"
        with pytest.raises(ValueError, match=text):
            search.paired(a, b, "dice")
    for call in (search.pairwise, lambda *sides: search.topk(*sides[:2], 1, sides[2])):
        with pytest.raises(ValueError, match=r"leading axes must broadcast, got \(2,\) and \(3,\)"):
            call(np.ones((2, 4, 70), bool), np.ones((3, 5, 70), bool), "dice")


def test_paired_rows_must_be_as_many():
    with pytest.raises(ValueError, match=r"^\[search\.paired\] a and b must have the same shape"):
        search.paired(A, B, "hamming")


@pytest.mark.parametrize(
    ("error", "text", "count", "subset"),
    (
        (TypeError, "count must be an integer, got 1.5", 1.5, None),
        (ValueError, "count must be at least 1, got 0", 0, None),
        (ValueError, "count must be at most 65536, or the number of rows, 3, got", 10**12, None),
        (ValueError, "count must be at most 65536, or the number of rows, 3, got", 65537, [0]),
        (ValueError, r"subset must be in \[0, 3\), got 3", 1, [0, 3]),
        (ValueError, r"subset must be in \[0, 3\), got -1", 1, [-1, 0]),
        (ValueError, r"a mask must have shape \(3,\), got \(2,\)", 1, [True, False]),
        (ValueError, r"subset must have one axis, got shape \(\)", 1, 0),
        (TypeError, "subset must hold bool or integers, got dtype float64", 1, [0.0]),
    ),
)
@pytest.mark.parametrize("metric", METRICS)
def test_wrong_arguments_of_topk(metric, error, text, count, subset):
    with pytest.raises(error, match=rf"^\[search\.topk\] {text}"):
        search.topk(A, B, count, metric, subset=subset)
