"""BitIndex against plain NumPy on a dict of rows: in memory, and in a folder."""

import copy
import pickle
import threading

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from scipy.sparse import csr_array

import bitops as bo
from bitops.search import BitIndex, segments
from sets import METRICS, plain, special_rows

KINDS = ("memory", "folder")


@pytest.fixture(params=KINDS)
def place(request, tmp_path):
    """A function that leaves an index in memory, or moves it to a folder."""

    def move(index):
        if request.param == "memory":
            return index
        index.save(tmp_path / "index")
        return BitIndex.load(tmp_path / "index")

    return move


@pytest.fixture
def small_chunks(monkeypatch):
    """Let a search see a few rows at a time, of few merged segments."""
    monkeypatch.setattr(segments, "CHUNK_WORDS", 30)
    monkeypatch.setattr(segments, "MERGE_WORDS", 100)


def matrix(rows):
    """Ids, ascending, and their rows."""
    ids = np.array(sorted(rows), np.int64)
    return ids, np.array([rows[i] for i in ids]).reshape(len(ids), -1)


def assert_search(index, rows, queries, count, subset=None):
    """The nearest by a stable sort of all values; `subset` are ids, or a mask of them."""
    ids, x = matrix(rows)
    if subset is not None:
        allowed = np.flatnonzero(subset) if np.asarray(subset).dtype == bool else subset
        keep = np.isin(ids, allowed)
        ids, x = ids[keep], x[keep]
    sign = -1 if index.metric == "intersection" else 1
    values = plain(queries, x.reshape(len(ids), index.k), index.metric)
    order = np.argsort(sign * values, axis=1, kind="stable")[:, :count]
    distances, found = index.search(queries, count, subset=subset)
    assert distances.shape == found.shape == (len(queries), count)
    assert distances.dtype == values.dtype and found.dtype == np.int64
    assert_array_equal(found[:, : len(ids)], ids[order])
    assert_array_equal(distances[:, : len(ids)], np.take_along_axis(values, order, axis=1))
    assert (found[:, len(ids) :] == -1).all() and (distances[:, len(ids) :] == -1).all()


def assert_within(index, rows, queries, radius):
    ids, x = matrix(rows)
    values = plain(queries, x, index.metric)
    i, j = np.nonzero(values >= radius if index.metric == "intersection" else values <= radius)
    found = index.within(queries, radius)
    assert isinstance(found, csr_array) and found.has_canonical_format
    assert found.shape == (len(queries), index.next_id) and found.dtype == values.dtype
    assert_array_equal(found.indptr, np.searchsorted(i, np.arange(len(queries) + 1)))
    assert_array_equal(found.indices, ids[j])
    assert_array_equal(found.data, values[i, j])


def assert_index(index, rows, rng):
    ids, x = matrix(rows)
    assert len(index) == len(ids)
    assert_array_equal(index.ids, ids)
    assert index.rows(ids) == bo.pack(x)
    queries = np.concatenate([x[:3], rng.random((2, index.k)) < 0.4])
    for count in (1, 4, len(ids) + 3):
        assert_search(index, rows, queries, count)
    mask = rng.random(index.next_id) < 0.5
    mask.flags.writeable = False
    assert_search(index, rows, queries, 5, subset=mask)
    some = rng.choice(index.next_id, index.next_id // 3)
    for listed in (some, some[:2]):
        assert_search(index, rows, queries, 5, subset=listed)
    assert_within(index, rows, queries, {"hamming": 20, "intersection": 3}.get(index.metric, 0.7))


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("k", (1, 64, 70, 200))
def test_rows_come_and_go(rng, place, small_chunks, metric, k):
    x = special_rows(rng, k)
    index = place(BitIndex(x, metric))
    assert (index.metric, index.k, index.next_id) == (metric, k, len(x))
    rows = dict(enumerate(x))
    assert_index(index, rows, rng)
    for step in range(12):
        if step % 3 == 0:
            new = rng.random((rng.integers(1, 9), k)) < 0.4
            first = index.next_id
            ids = index.add(new)
            assert_array_equal(ids, np.arange(first, first + len(new)))
        elif step % 3 == 1:  # in any order, removed ones again, with gaps
            new = rng.random((6, k)) < 0.4
            free = np.setdiff1d(np.arange(index.next_id + 9), index.ids)
            ids = rng.permutation(free)[:6]
            assert_array_equal(index.add(bo.pack(new), ids), ids)
        if step % 3 < 2:
            rows.update(zip(ids.tolist(), new, strict=True))
        else:
            gone = rng.choice(index.ids, 9, replace=False)
            index.remove(gone)
            for i in gone.tolist():
                del rows[i]
    assert_index(index, rows, rng)
    assert_index(pickle.loads(pickle.dumps(index)), rows, rng)


def test_equal_rows_come_by_their_ids(place, small_chunks):
    """In segments, between them, and with ids that descend."""
    x = np.ones((5, 70), bool)
    index = place(BitIndex(x))
    index.add(x, [40, 30, 20, 10, 7])
    index.add(x, [35, 6, 8, 9, 50])
    everything = np.sort(index.ids)
    for count in (1, 3, 7, 15):
        assert_array_equal(index.search(x[:1], count)[1][0], everything[:count])


def test_few_segments(rng, place):
    """Rows added one by one are in a logarithmic number of segments."""
    index = place(BitIndex(np.zeros((0, 64), bool)))
    x = rng.random((80, 64)) < 0.5
    for row in x:
        index.add(row[np.newaxis])
    assert len(index._state.segments) < 8
    assert_search(index, dict(enumerate(x)), x[:4], 5)


def test_removed_rows_take_no_place(rng, place):
    x = rng.random((100, 64)) < 0.5
    index = place(BitIndex(x))
    index.remove(np.arange(60))
    (segment,) = index._state.segments
    assert len(segment) == 40 and not len(segment.removed)
    index.remove(np.arange(60, 100))
    assert not index._state.segments and not len(index)
    assert index.next_id == 100  # an id says the same row for ever
    assert (index.search(x[:1], 3)[1] == -1).all()
    assert_array_equal(index.add(x[:1]), [100])


def test_empty(place):
    index = place(BitIndex(np.zeros((0, 70), bool), "jaccard"))
    queries = np.ones((2, 70), bool)
    distances, ids = index.search(queries, 3)
    assert (distances == -1).all() and (ids == -1).all() and distances.dtype == np.float64
    assert index.within(queries, 1).shape == (2, 0)
    index.remove([])
    assert not len(index.add(queries[:0])) and not len(index.ids) and 0 not in index
    index.add(queries)
    assert index.search(queries[:0], 3)[1].shape == (0, 3)
    assert_array_equal(index.search(queries, 1, subset=[])[1], [[-1], [-1]])
    assert_array_equal(index.search(queries, 1, subset=[7])[1], [[-1], [-1]])


def test_what_was_given_may_change(rng):
    """But for the rows of the constructor, which are not copied."""
    x = rng.random((5, 64)) < 0.5
    index, bits = BitIndex(np.zeros((0, 64), bool)), bo.pack(x)
    index.add(bits)
    bits.words[:] = 0
    assert_search(index, dict(enumerate(x)), x, 2)
    bits = bo.pack(x)
    assert np.shares_memory(BitIndex(bits)._state.segments[0].bits.words, bits.words)


def test_a_search_keeps_its_moment(rng, place):
    """What begins before a removal goes on with the rows that were there."""
    x = rng.random((50, 64)) < 0.5
    index = place(BitIndex(x))
    before = index._state
    index.remove(np.arange(0, 50, 2))
    index.add(x[:7])
    parts = [chunk.bits for chunk in segments.chunks(before)]
    assert np.concatenate(parts) == bo.pack(x)


def test_threads(rng, place):
    """8 threads search while one adds and removes rows that are far from the queries."""
    x = rng.random((3000, 128)) < 0.5
    index = place(BitIndex(x))
    wanted = index.search(x[:20], 3)
    stop, errors = threading.Event(), []

    def search():
        try:
            for _ in range(10):
                got = index.search(x[:20], 3)
                assert_array_equal(got[0], wanted[0])
                assert_array_equal(got[1], wanted[1])
        except BaseException as error:
            errors.append(error)

    def write():
        far = ~x[:20]
        while not stop.is_set():
            index.remove(index.add(far))

    readers = [threading.Thread(target=search) for _ in range(8)]
    writer = threading.Thread(target=write)
    for thread in (writer, *readers):
        thread.start()
    for thread in readers:
        thread.join()
    stop.set()
    writer.join()
    assert not errors
    assert_array_equal(index.ids, np.arange(3000))


def test_copies(rng):
    x = rng.random((5, 64)) < 0.5
    index = BitIndex(x)
    other = copy.deepcopy(index)
    index.remove([0])
    assert len(other) == 5 and 0 in other and 0 not in index


# ---- rescoring ----------------------------------------------------------------------------------


def best(scores, ids, count):
    order = np.lexsort((ids, -scores), axis=-1)[:, :count]
    return np.take_along_axis(scores, order, axis=1), np.take_along_axis(ids, order, axis=1)


@pytest.mark.parametrize("kind", ("bits", "array", "callable"))
def test_rescoring(rng, place, small_chunks, kind):
    """The nearest by distance, in the order of small integers' exact products."""
    vectors = rng.integers(-4, 5, (300, 70)).astype(np.float32)
    queries = rng.integers(-4, 5, (7, 70)).astype(np.float64)
    index = place(BitIndex(vectors))
    index.remove(np.arange(0, 300, 3))
    asked = []

    def fetch(ids):
        asked.append(ids)
        return vectors[ids].astype(np.float64)

    rescore = {"bits": "bits", "array": vectors, "callable": fetch}[kind]
    scores, ids = index.search(queries, 5, rescore=rescore, oversample=6)
    _, candidates = index.search(queries, 30)
    rows = np.where(vectors >= 0, 1, -1) if kind == "bits" else vectors
    products = np.einsum("mcd,md->mc", rows[candidates], queries)
    wanted = best(products, candidates, 5)
    assert scores.dtype == np.float32 and ids.dtype == np.int64
    assert_array_equal(scores, wanted[0])
    assert_array_equal(ids, wanted[1])
    assert all((np.diff(ids) > 0).all() for ids in asked)


def test_rescoring_in_blocks(rng, monkeypatch):
    vectors = rng.integers(-4, 5, (100, 64)).astype(np.float32)
    index = BitIndex(vectors)
    whole = index.search(vectors, 4, rescore=vectors)
    monkeypatch.setattr("bitops.search.reranking.BLOCK_CANDIDATES", 33)
    for got, wanted in zip(index.search(vectors, 4, rescore=vectors), whole, strict=True):
        assert_array_equal(got, wanted)


def test_rescoring_of_few(place):
    index = place(BitIndex([[1.0, -2.0], [3.0, 4.0]]))
    index.add([[1.0, 1.0]], ids=[9])
    index.remove([0])
    for rescore in ("bits", np.ones((10, 2)), lambda ids: np.ones((len(ids), 2))):
        scores, ids = index.search([[0.5, 0.25]], 4, rescore=rescore)
        assert_array_equal(ids, [[1, 9, -1, -1]])
        assert_array_equal(scores, [[0.75, 0.75, -np.inf, -np.inf]])


# ---- errors -------------------------------------------------------------------------------------

X = np.ones((3, 70), bool)


@pytest.mark.parametrize(
    ("error", "text", "call"),
    (
        (ValueError, r"\[BitIndex\] bits must have at least two axes", lambda i: BitIndex(X[0])),
        (ValueError, r"\[BitIndex\] bits must have columns", lambda i: BitIndex(X[:, :0])),
        (ValueError, r"\[BitIndex\] metric must be one of", lambda i: BitIndex(X, "cosine")),
        (TypeError, r"\[BitIndex\] metric must be a str", lambda i: BitIndex(X, None)),
        (TypeError, r"\[BitIndex\] bits must not be unsigned", lambda i: BitIndex(X.view("u1"))),
        (
            ValueError,
            r"\[BitIndex.add\] rows must have 70 columns, got 69",
            lambda i: i.add(X[:, 1:]),
        ),
        (ValueError, r"\[BitIndex.add\] ids must be one for each of 3", lambda i: i.add(X, [5])),
        (
            ValueError,
            r"\[BitIndex.add\] ids must be unique, got 7 twice",
            lambda i: i.add(X, [7, 8, 7]),
        ),
        (ValueError, r"\[BitIndex.add\] ids must be new, got 2", lambda i: i.add(X, [7, 2, 8])),
        (ValueError, r"\[BitIndex.add\] ids must be in \[0, ", lambda i: i.add(X, [7, -2, 8])),
        (ValueError, r"\[BitIndex.add\] ids must be in", lambda i: i.add(X[:1], [2**63 - 1])),
        (ValueError, r"\[BitIndex.add\] ids must have one axis", lambda i: i.add(X, [[1, 2, 3]])),
        (TypeError, r"\[BitIndex.add\] ids must hold integers", lambda i: i.add(X, [4.0, 5, 6])),
        (TypeError, r"\[BitIndex.add\] ids must hold integers", lambda i: i.add(X, [True] * 3)),
        (TypeError, r"\[BitIndex.add\] rows must hold real", lambda i: i.add([["x"] * 70])),
        (
            ValueError,
            r"\[BitIndex.remove\] ids must be in the index, got 3",
            lambda i: i.remove([1, 3]),
        ),
        (ValueError, r"\[BitIndex.rows\] ids must be in the index, got 9", lambda i: i.rows([9])),
        (ValueError, r"\[BitIndex.search\] count must be at least 1", lambda i: i.search(X, 0)),
        (TypeError, r"\[BitIndex.search\] count must be an integer", lambda i: i.search(X, 1.0)),
        (
            ValueError,
            r"\[BitIndex.search\] queries must have at least",
            lambda i: i.search(X[0], 1),
        ),
        (ValueError, r"\[BitIndex.search\] oversample", lambda i: i.search(X, 1, oversample=0)),
        (ValueError, r"a mask must have shape \(3,\)", lambda i: i.search(X, 1, subset=[True])),
        (
            TypeError,
            r"\[BitIndex.search\] subset must hold bool or integers, got dtype float64",
            lambda i: i.search(X, 1, subset=[0.5]),
        ),
        (ValueError, r"subset must be in \[0, ", lambda i: i.search(X, 1, subset=[-1])),
        (ValueError, r"subset must have one axis", lambda i: i.search(X, 1, subset=[[1]])),
        (ValueError, r"rescore must be 'bits', got 'x'", lambda i: i.search(X, 1, rescore="x")),
        (ValueError, r"rescore must have two axes", lambda i: i.search(X, 1, rescore=[1.0])),
        (ValueError, r"must have a row for id 2", lambda i: i.search(X + 0.0, 3, rescore=X[:2])),
        (
            ValueError,
            r"must give shape \(3, 70\)",
            lambda i: i.search(X + 0.0, 3, rescore=lambda j: X[0]),
        ),
        (
            TypeError,
            r"must hold real numbers, got a BitArray",
            lambda i: i.search(bo.pack(X), 1, rescore="bits"),
        ),
        *(
            (TypeError, r"numbers, got dtype bool", lambda i, y=y: i.search(X, 1, rescore=y))
            for y in ("bits", X + 0.0)
        ),
        (TypeError, r"subset must not be packed", lambda i: i.search(X, 1, subset=bo.pack(X)[0])),
        (TypeError, r"ids must not be packed bits", lambda i: i.remove(bo.pack(X)[0])),
        (ValueError, r"count must be at most 65536, or the", lambda i: i.search(X, 10**12)),
        (ValueError, r"radius must be at least 0", lambda i: i.within(X, -1)),
        (ValueError, r"\[BitIndex.within\] queries must have 70", lambda i: i.within(X[:, :3], 1)),
        (TypeError, r"\[BitIndex.load\] mmap must be a bool", lambda i: BitIndex.load("x", mmap=1)),
    ),
)
def test_errors(place, error, text, call):
    index = place(BitIndex(X))
    with pytest.raises(error, match=text):
        call(index)
    assert_array_equal(index.ids, [0, 1, 2])


def test_no_ids_are_left():
    index = BitIndex(X[:0])
    index.add(X[:1], [2**63 - 2])
    with pytest.raises(ValueError, match="ids must be at most"):
        index.add(X[:1])
    assert_array_equal(index.search(X[:1], 2)[1], [[2**63 - 2, -1]])


def test_rescoring_of_large_numbers():
    """Products beyond float32 are infinite, without a warning; those that are not come after."""
    vectors = np.full((3, 64), 3e38, np.float32)
    vectors[1] = 0
    with np.errstate(all="raise"):
        scores, ids = BitIndex(vectors).search(vectors[:1], 3, rescore=vectors)
    assert ids.tolist() == [[0, 2, 1]] and np.isposinf(scores[0, :2]).all()
    assert np.isfinite(scores[0, 2])
