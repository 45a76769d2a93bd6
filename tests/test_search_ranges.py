"""Ranges and self-joins against plain NumPy, by chunks that agree and by full products."""

import math
import signal
import tracemalloc
from types import SimpleNamespace

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from scipy.sparse import csr_array

import bitops as bo
from bitops import _core, search
from bitops.search import full_product, limits, multi_index
from bitops.search.metrics import METRICS as OWN
from sets import METRICS, plain, special_rows


def near(values, radius, metric):
    return values >= radius if metric == "intersection" else values <= radius


def assert_within(x, y, radius, metric):
    values = plain(x, y, metric)
    i, j = np.nonzero(near(values, radius, metric))
    found = search.within(bo.pack(x), bo.pack(y), radius, metric)
    assert isinstance(found, csr_array) and found.shape == values.shape
    assert found.has_canonical_format
    assert_array_equal(found.indptr, np.searchsorted(i, np.arange(len(x) + 1)))
    assert_array_equal(found.indices, j)
    assert_array_equal(found.data, values[i, j], strict=True)


def assert_pairs_within(x, radius, metric):
    values = plain(x, x, metric)
    i, j = np.nonzero(np.triu(near(values, radius, metric), 1))
    found = search.pairs_within(bo.pack(x), radius, metric)
    for got, wanted in zip(found, (i, j, values[i, j]), strict=True):
        assert_array_equal(got, wanted, strict=True)


def noisy_copies(rng, n, k, most):
    """Rows of which many are copies of others with up to `most` bits inverted."""
    x = rng.random((n, k)) < 0.5
    for row in range(n // 3, n):
        x[row] = x[rng.integers(0, row)]
        x[row, rng.integers(0, k, rng.integers(0, most + 1))] ^= True
    return x


RADII = {
    "hamming": (0, 1, 3.7, 12, 1e9, math.inf),
    "jaccard": (0, 0.25, 1 / 3, 0.5, 0.9, 1, 7),
    "dice": (0, 0.2, 1 / 3, 0.8, 1, 7),
    "intersection": (0, 1, 2.5, 20, 1e9, math.inf),
}


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("k", (1, 7, 64, 200))
def test_ranges(isa, rng, metric, k):
    x, y = special_rows(rng, k), special_rows(rng, k)[:37]
    for radius in RADII[metric]:
        assert_within(x, y, radius, metric)
        assert_pairs_within(x, radius, metric)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("k", (64, 300))
def test_ranges_of_sorted_rows(isa, rng, metric, k, monkeypatch):
    """Rows sorted by size, few in a call, of which folds are compared at first."""
    monkeypatch.setattr(full_product, "SORTED_ROWS", 8)
    monkeypatch.setattr(full_product, "LEAST_COLUMNS", 5)
    monkeypatch.setattr(full_product, "CALL_COST", 0)
    monkeypatch.setattr(full_product, "SAMPLE_SHARE", 0)
    monkeypatch.setattr(limits, "FEW_ROWS", 1)
    monkeypatch.setattr(limits, "MOST_NEAR", 1)
    monkeypatch.setattr(search.ranges, "choose_plan", lambda *sizes: None)
    test_ranges(isa, rng, metric, k)


def rows_of_size(rng, n, k, ones):
    """Rows of equally many bits that are 1, whose pairs all have the same bound."""
    return rng.permuted(np.arange(k) < np.full((n, 1), ones), axis=1)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("way", ("scan", "join"))
def test_radii_that_are_distances(isa, rng, metric, way, monkeypatch):
    """The range includes its end, whatever its rounding: bounds are of mismatches, in float64."""
    if way == "scan":
        monkeypatch.setattr(search.ranges, "choose_plan", lambda *sizes: None)
    for k, ones in ((3, 2), (20, 17), (64, 16), (90, 33), (130, 121)):
        x = rows_of_size(rng, 12, k, ones)
        for rows in (x, x | np.eye(12, k, dtype=bool)):  # of one size, of several
            for radius in np.unique(search.pairwise(rows, rows, metric)):
                assert_within(rows, rows[:7], float(radius), metric)
                assert_pairs_within(rows, float(radius), metric)


def test_the_end_of_a_range_of_one_pair():
    """For every number of mismatches of small sets, also where no other row widens the bound."""
    for ones in range(1, 40):
        for h in range(ones):
            a, b = np.arange(40) < ones, np.arange(40) < ones - h
            for metric in ("jaccard", "dice"):
                radius = float(search.pairwise([a], [b], metric)[0, 0])
                assert search.within([a], [b], radius, metric).nnz == 1, (metric, ones, h)


@pytest.mark.parametrize("metric", METRICS[1:])
def test_unlike_sizes_are_left_out(rng, metric, monkeypatch):
    """Of rows in ten sizes far apart, less than a third of all pairs are compared."""
    x = rng.random((1500, 256)) < np.repeat(np.linspace(0.04, 0.9, 10), 150)[:, None]
    compared = []
    native = _core.scan

    def scan(a, b, most, upper, start, rows, *others):
        compared.append(rows * len(b))
        return native(a, b, most, upper, start, rows, *others)

    monkeypatch.setattr(full_product._core, "scan", scan)
    monkeypatch.setattr(search.ranges, "choose_plan", lambda *sizes: None)
    order = rng.permutation(len(x))
    radius = {"jaccard": 0.1, "dice": 0.05, "intersection": 190}[metric]
    assert_within(x[order], x, radius, metric)
    assert sum(compared) < len(x) ** 2 / 3


@pytest.mark.parametrize("metric", METRICS[1:])
def test_joins_by_metrics_of_sets(rng, metric, monkeypatch):
    """Copies with few changes are found by chunks that agree."""
    monkeypatch.setattr(multi_index, "CHOICE_COST", 0)
    x = noisy_copies(rng, 1500, 256, 3)
    joined = []
    join = multi_index.join
    monkeypatch.setattr(search.ranges, "join", lambda *given: joined.append(1) or join(*given))
    radius = {"jaccard": 0.02, "dice": 0.01, "intersection": 150}[metric]
    assert_pairs_within(x, radius, metric)
    assert joined == ([] if metric == "intersection" else [1])


@pytest.mark.parametrize("metric", METRICS)
def test_memory(rng, metric):
    """What was found is the only thing that grows with the number of pairs."""
    bits = bo.pack(rng.random((6000, 64)) < 0.5)
    radius = {"hamming": 12, "jaccard": 0.3, "dice": 0.18, "intersection": 30}[metric]
    tracemalloc.start()
    i, _, _ = search.pairs_within(bits, radius, metric)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert 0 < len(i) < 10_000 and peak < 4e6  # all mismatches would take 36 MB in uint16 alone


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("k", (2**15, 2**15 + 1, 2**14 - 3, 2**14 - 2, 65535, 65536))
def test_long_rows(rng, metric, k):
    """Full and empty rows, where the sums of two counts are largest for their integer type."""
    x = rng.random((6, k)) < 0.5
    x[0], x[1], x[2] = True, False, x[3]
    for radius in (*RADII[metric], k, k - 1, k // 2):
        assert_within(x, x[::-1], radius, metric)
        assert_pairs_within(x, radius, metric)


@pytest.mark.parametrize("metric", METRICS)
def test_empty(metric):
    for m, n, k in ((0, 3, 70), (3, 0, 70), (3, 4, 0), (1, 1, 64), (0, 0, 0)):
        x, y = np.ones((m, k), bool), np.ones((n, k), bool)
        for radius in (0, 1):
            assert_within(x, y, radius, metric)
            assert_pairs_within(x, radius, metric)


def test_stored_zeros(rng):
    x = rng.random((5, 64)) < 0.5
    found = search.within(x, x, 0, "hamming")
    assert found.nnz == 5 and not found.data.any()


# ---- chunks that agree ------------------------------------------------------------------------


@pytest.fixture
def only_chunks(monkeypatch):
    """Make full products cost more than anything, and compare few pairs at once."""
    monkeypatch.setattr(full_product, "SCAN_COST", 1e12)
    joined = []
    join = multi_index.join

    def counted(*arguments):
        assert join(*arguments)
        joined.append(arguments)
        return True

    monkeypatch.setattr(search.ranges, "join", counted)
    return joined


@pytest.mark.parametrize("together", (1, 2, 3, 4))
@pytest.mark.parametrize(("k", "radius"), ((9, 2), (64, 4), (65, 0), (130, 7), (200, 3), (1000, 9)))
def test_chunks_find_all_pairs_once(rng, only_chunks, monkeypatch, together, k, radius):
    monkeypatch.setattr(multi_index, "TOGETHER", (together,))
    x = noisy_copies(rng, 250, k, radius + 2)
    assert_pairs_within(x, radius, "hamming")
    assert_within(x[:90], x[60:], radius, "hamming")
    assert [len(arguments[-2].chunks) for arguments in only_chunks] == [radius + together] * 2


def test_chunks_of_equal_rows(rng, only_chunks):
    """All rows alike, or of two kinds: every pair agrees in all chunks, or in all but one."""
    x = np.repeat(rng.random((1, 70)) < 0.5, 60, axis=0)
    x[40:, 3] ^= True
    for radius in (0, 1, 2):
        assert_pairs_within(x, radius, "hamming")
        assert_within(x[:50], x, radius, "hamming")
    assert len(only_chunks) == 6


def test_every_single_bit_counts(only_chunks):
    """A row, and all that differ from it in one, two or three bits."""
    x = np.zeros((64, 64), bool)
    np.fill_diagonal(x, True)
    x[20:40, 63] = True
    x[40:60, ::21] ^= True
    for radius in (1, 2, 3):
        assert_within(np.zeros((1, 64), bool), x, radius, "hamming")
        assert_pairs_within(x, radius, "hamming")
    assert len(only_chunks) == 6


def test_rows_that_agree_too_often_are_scanned(rng, monkeypatch):
    """Few rows of a kind cost little in a plan for random ones; here all chunks but one agree."""
    outcomes = []
    join = multi_index.join

    def told(*arguments):
        outcomes.append(join(*arguments))
        return outcomes[-1]

    monkeypatch.setattr(search.ranges, "join", told)
    x = np.zeros((3000, 256), bool)
    x[:, :12] = rng.random((3000, 12)) < 0.5
    bits = bo.pack(x)
    found = search.pairs_within(bits, 1, "hamming")
    search.pairs_within(rng.random((3000, 256)) < 0.5, 1, "hamming")
    assert outcomes == [False, True]
    distances = np.triu(bo.hamming(bits, bits) + 1, 1)
    expected = np.nonzero((distances > 0) & (distances <= 2))
    for got, wanted in zip(found, (*expected, distances[expected] - 1), strict=True):
        assert_array_equal(got, wanted)


def test_plans():
    """Chunks for small radii, products for large ones; all bits are looked at if keys have room."""
    million = 10**6
    plan = multi_index.choose_plan(million, 64, 4, million**2 // 2, 0.08)
    assert plan.together in (2, 3) and plan.most_pairs > 10**9
    assert [start for start, _ in plan.chunks[1:]] == [i + n for i, n in plan.chunks[:-1]]
    assert sum(bits for _, bits in plan.chunks) == 64
    assert multi_index.choose_plan(2 * million, 1024, 40, million**2, 0.5).together == 1
    for m, k, radius in ((10, 64, 4), (million, 64, 30), (million, 5, 5), (million, 0, 0)):
        assert multi_index.choose_plan(2 * m, k, radius, m * m, 0.08) is None
    wide = multi_index.choose_plan(2 * million, 4096, 1, million**2, 2)
    assert all(bits <= 32 for _, bits in wide.chunks)


def test_folds(rng):
    """Short folds tell unlike rows apart, wherever these differ, but not rows that they erase."""
    words = rng.integers(0, 2**64, (20_000, 16), np.uint64)
    near = limits.Limits(OWN["hamming"], 40, 1024, None)
    first, cost = full_product.choose_product(words, words, near)
    all_words, full_cost = full_product.choose_product(words[:100], words, near)
    assert first in (2, 3) and all_words == 16 and cost < full_cost / 3
    words[:, :13] = 0
    assert full_product.choose_product(words, words, near)[0] == first
    words[:, :8] = words[:, 8:]  # folds of 8, 4, 2 words and one are zeros
    assert full_product.choose_product(words, words, near)[0] == 3
    assert full_product.choose_product(words[:, :1].copy(), words[:, :1].copy(), near)[0] == 1
    columns = words.T
    assert_array_equal(full_product.folded(columns, 7)[3], columns[3] ^ columns[10], strict=True)


def test_samples_of_long_rows(rng, monkeypatch):
    """Rows are read in small parts, each once; long ones are sampled though there are few."""
    words = rng.integers(0, 2**64, (5000, 437), np.uint64)
    i, j = rng.integers(0, len(words), (2, 100))
    monkeypatch.setattr(full_product, "SAMPLE_WORDS", 437 * 7)
    sample, whole = full_product._differing(words, i, words[:], j), (words[i] ^ words[j]).T
    for fold in full_product.FOLDS:
        assert_array_equal(
            full_product.folded(sample, fold), full_product.folded(whole, fold), strict=True
        )
    monkeypatch.undo()
    near = limits.Limits(OWN["hamming"], 100, 437 * 64, None)
    tracemalloc.start()
    first, _ = full_product.choose_product(words, words, near)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert first == 4 and peak < words.nbytes


@pytest.mark.parametrize("words", (1, 2, 7, 8, 9, 17))
@pytest.mark.parametrize("first", (1, 2, 7, 9, 17))
def test_scans(isa, rng, words, first):
    """Full products, whatever folds are compared at first, in the order of rows or not."""
    first = min(first, words)
    x = noisy_copies(rng, 700, 64 * words - 5, 20 * words)
    bits = bo.pack(x)
    distances = bo.hamming(bits, bits)
    for radius in (0, 2, 4, 6, 7, 11 * words, 16, 20, 31 * words, 64 * words):
        for upper in (False, True):
            found = _core.scan(bits.words, bits.words, radius, upper, 33, 640, first)
            pairs, values = np.empty(len(found), np.uint64), np.empty(len(found), np.int32)
            found.copy(pairs, values)
            i, j = np.nonzero(np.triu(distances <= radius, 1) if upper else distances <= radius)
            own = (i >= 33) & (i < 33 + 640)
            order = np.argsort(pairs)
            assert_array_equal(pairs[order], (i << 32 | j)[own].astype(np.uint64))
            assert_array_equal(values[order], distances[i, j][own])


def test_many_rows_scanned(rng, monkeypatch):
    """Several calls of the native module, and a sample that folds the words."""
    monkeypatch.setattr(full_product, "SAMPLE_SHARE", 1)
    monkeypatch.setattr(full_product, "CALL_COST", 0)
    monkeypatch.setattr(full_product, "MOST_ROWS", 128)
    monkeypatch.setattr(search.ranges, "choose_plan", lambda *sizes: None)
    x = noisy_copies(rng, 900, 500, 30)
    for columns in (100, 128, 300):
        monkeypatch.setattr(full_product, "LEAST_COLUMNS", columns)
        for radius in (0, 20, 200, 240) if columns == 100 else (20,):
            assert_pairs_within(x, radius, "hamming")
            assert_within(x[:200], x, radius, "hamming")


def test_columns_are_folded_once_for_many_rows(rng, monkeypatch):
    """However many columns there are, a call has many rows; each pair is compared in one."""
    calls = []

    def scan(a, b, most, upper, start, rows, *others):
        own = np.zeros((200, 1000), bool)
        columns = (b.ctypes.data - a.ctypes.data) // a.strides[0] + np.arange(len(b))
        own[start : start + rows, columns] = True
        calls.append(np.triu(own, 1) if upper else own)
        return native(a, b, most, upper, start, rows, *others)

    native = _core.scan
    monkeypatch.setattr(full_product, "_core", SimpleNamespace(scan=scan))
    monkeypatch.setattr(full_product, "CALL_COST", 0)
    monkeypatch.setattr(full_product, "MOST_ROWS", 80)
    monkeypatch.setattr(full_product, "LEAST_COLUMNS", 300)
    words = rng.integers(0, 2**64, (1000, 2), np.uint64)
    near = limits.Limits(OWN["hamming"], 9, 128, None)
    full_product.scan(words[:200], words, near, False, 1, lambda *own: None)
    assert len(calls) == 3 * 4 and np.all(np.sum(calls, axis=0) == 1)
    calls.clear()
    words = words[:200]
    monkeypatch.setattr(full_product, "LEAST_COLUMNS", 60)
    full_product.scan(words, words, near, True, 1, lambda *own: None)
    assert len(calls) == 3 + 2 + 1
    assert_array_equal(np.sum(calls, axis=0)[:, :200], np.triu(np.ones((200, 200)), 1))


def test_many_rows_against_a_scan(rng, monkeypatch):
    n = 15_000
    x = rng.integers(0, 2**64, n, np.uint64)
    x[n // 2 :] = x[: n // 2]
    for _ in range(6):
        x[n // 2 :] ^= np.uint64(1) << rng.integers(0, 64, n // 2, np.uint64)
    bits = bo.BitArray.from_words(x[:, None], (n, 64))
    by_chunks = search.pairs_within(bits, 4, "hamming")
    monkeypatch.setattr(search.ranges, "choose_plan", lambda *sizes: None)
    by_scan = search.pairs_within(bits, 4, "hamming")
    assert len(by_scan[0]) > 1000
    for got, wanted in zip(by_chunks, by_scan, strict=True):
        assert_array_equal(got, wanted, strict=True)


def test_parts_of_rows_are_not_copied(rng):
    """Words of some columns, every other row, one row repeated; the pages between are not read."""
    words = rng.integers(0, 2**64, (30_000, 16), np.uint64)
    words[1::2, :8] = words[::2, :8]
    words[1::2, 3] ^= np.uint64(5)
    for part in (words[:, :8], words[:, 2:3], words[1::2, 5:9], words[::-1, :8]):
        b = bo.BitArray.from_words(part, (len(part), 64 * part.shape[1]))
        copy = bo.BitArray.from_words(part.copy(), b.shape)
        for radius in (0, 5, 70):
            few = b[:200] if radius > 60 else b
            tracemalloc.start()
            found = search.within(b[:9], few, radius, "hamming")
            peak = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
            same = search.within(copy[:9], copy[: few.shape[0]], radius, "hamming")
            assert_array_equal(found.toarray(), same.toarray())
            assert part.strides[0] < 0 or peak < part.nbytes / 2
        joined = (search.pairs_within(own, 3, "hamming") for own in (b, copy))
        for got, wanted in zip(*joined, strict=True):
            assert_array_equal(got, wanted)
        queries = rng.standard_normal((2, b.shape[1]))
        scores = (search.score_topk(queries, own, 5) for own in (b, copy))
        for got, wanted in zip(*scores, strict=True):
            assert_array_equal(got, wanted)
        candidates = rng.integers(0, len(part), (2, 70))
        assert_array_equal(
            search.rescore(queries, b, candidates), search.rescore(queries, copy, candidates)
        )


# ---- errors -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "text", "radius"),
    (
        (TypeError, "radius must be a real number, got '3'", "3"),
        (TypeError, "radius must be a real number, got True", True),
        (ValueError, "radius must be at least 0, got -1", -1),
        (ValueError, "radius must be at least 0, got nan", math.nan),
    ),
)
@pytest.mark.parametrize("metric", METRICS)
def test_wrong_radius(metric, error, text, radius):
    x = np.ones((3, 70), bool)
    with pytest.raises(error, match=rf"^\[search\.within\] {text}"):
        search.within(x, x, radius, metric)
    with pytest.raises(error, match=rf"^\[search\.pairs_within\] {text}"):
        search.pairs_within(x, radius, metric)


def test_wrong_operands():
    x = np.ones((3, 70), bool)
    with pytest.raises(ValueError, match=r"^\[search\.within\] a and b must have the same k"):
        search.within(x, x[:, :9], 1, "hamming")
    with pytest.raises(ValueError, match=r"^\[search\.pairs_within\] metric must be one of"):
        search.pairs_within(x, 1, "cosine")
    with pytest.raises(TypeError, match=r"^\[search\.pairs_within\] a must hold real numbers"):
        search.pairs_within([["x"]], 1, "hamming")


# ---- progress -----------------------------------------------------------------------------------


@pytest.mark.parametrize("radius", (3, 30))
@pytest.mark.parametrize("has_tqdm", (True, False))
def test_progress(rng, monkeypatch, has_tqdm, radius):
    """By chunks and by a scan: one bar, which reaches its end and does not show in short calls."""
    totals, steps = [], []

    class Bar:
        def __init__(self, total, unit, delay, disable, **settings):
            assert delay > 0 and disable is None
            assert unit == (" rows" if radius == 3 else " pairs")
            totals.append(total)

        def __enter__(self):
            return self

        def __exit__(self, *error):
            pass

        def update(self, done):
            steps.append(done)

    monkeypatch.setattr(search.progress, "tqdm", Bar if has_tqdm else None)
    monkeypatch.setattr(multi_index, "CHOICE_COST", 0)
    monkeypatch.setattr(multi_index, "KEY_COST", 1)
    x, y = bo.pack(rng.random((3000, 64)) < 0.5), bo.pack(rng.random((2000, 64)) < 0.5)
    assert search.within(x, y, radius, "hamming").nnz == np.sum(bo.hamming(x, y) <= radius)
    assert len(totals) == has_tqdm
    assert sum(steps) == sum(totals)


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="needs a timer of POSIX")
@pytest.mark.parametrize("radius", (3, 20))
def test_interrupts(rng, monkeypatch, radius):
    """An exception of a signal handler, as Ctrl-C raises it, ends a search."""

    def interrupt(*arguments):
        raise KeyboardInterrupt

    x = bo.pack(rng.random((200_000, 64)) < 0.5)
    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.01)
        with pytest.raises(KeyboardInterrupt):
            search.pairs_within(x, radius, "hamming")
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
