"""Search in partitions beside the same search on all rows at once: by threads, and by processes."""

import os
import signal
from itertools import pairwise

import numpy as np
import pytest
from numpy.testing import assert_array_equal

import bitops as bo
from bitops import search
from bitops.search import BitIndex
from sets import METRICS, special_rows

dask = pytest.importorskip("dask", reason="the extra dask is not installed")
da = pytest.importorskip("dask.array", reason="the extra dask is not installed")
pytest.importorskip("distributed", reason="the extra dask is not installed")

from distributed import wait  # noqa: E402

from bitops.distributed import topk, within  # noqa: E402
from clusters import cluster_of, kill_once, needs_signals, no_errors_of_warnings  # noqa: E402

pytestmark = no_errors_of_warnings

K = 100


@pytest.fixture(scope="module")
def rows():
    rng = np.random.default_rng(11)
    return np.concatenate([special_rows(rng, K) for _ in range(4)])


@pytest.fixture(scope="module")
def queries(rows):
    return bo.pack(rows[::13])


@pytest.fixture(scope="module")
def cluster():
    with cluster_of(2) as client:
        yield client


@pytest.fixture(autouse=True)
def scheduler():
    """Without a cluster, tasks run in this thread."""
    with dask.config.set(scheduler="synchronous"):
        yield


def ends(rows, parts=8):
    return [len(rows) * i // parts for i in range(parts + 1)]


def as_words(rows, parts=8):
    """A dask.array of packed words, with rows in chunks of several sizes."""
    sizes = tuple(np.diff(ends(rows, parts)).tolist())
    words = bo.pack(rows).words
    return da.from_array(words, chunks=(sizes, words.shape[1]))


def as_delayed(rows, parts=8):
    places = ends(rows, parts)
    cut = [rows[a:b] for a, b in pairwise(places)]
    return [dask.delayed(bo.pack)(part) for part in cut]


def as_folders(rows, folder, metric="hamming", parts=8):
    paths = []
    places = ends(rows, parts)
    for i, (a, b) in enumerate(pairwise(places)):
        BitIndex(rows[a:b], metric).save(folder / str(i))
        paths.append(folder / str(i))
    return paths


def kinds_of_codes(rows, folder, metric):
    return {
        "array": as_words(rows),
        "delayed": as_delayed(rows),
        "folders": as_folders(rows, folder, metric),
    }


def assert_same(found, expected):
    for ours, theirs in zip(found, expected, strict=True):
        assert ours.dtype == theirs.dtype
        assert_array_equal(ours, theirs)


def assert_same_ranges(found, expected):
    assert found.shape == expected.shape and found.has_sorted_indices
    parts = ("data", "indices", "indptr")
    assert_same([getattr(found, p) for p in parts], [getattr(expected, p) for p in parts])


@pytest.mark.parametrize("metric", METRICS)
def test_eight_partitions_equal_one(rows, queries, metric, tmp_path):
    whole = bo.pack(rows)
    radius = 0.4 if metric in ("jaccard", "dice") else 20
    nearest = search.topk(queries, whole, 17, metric)
    near = search.within(queries, whole, radius, metric)
    for codes in kinds_of_codes(rows, tmp_path, metric).values():
        found = topk(queries, codes, 17, metric, bits=K)
        assert_same(found, nearest)
        assert_same_ranges(within(queries, codes, radius, metric), near)


def test_hamming_is_the_default(rows, queries):
    assert_same(topk(queries, as_words(rows), 9), bo.hamming_topk(queries, bo.pack(rows), 9))


@pytest.mark.parametrize("parts", (1, 3, 9, 80))
def test_any_number_of_partitions(rows, queries, parts):
    """Up to two levels of merging, partitions of fewer rows than are asked for, and empty ones."""
    rows = rows[:70]
    expected = search.topk(queries, bo.pack(rows), 12, "hamming")
    assert_same(topk(queries, as_words(rows, parts), 12), expected)
    near = search.within(queries, bo.pack(rows), 30, "hamming")
    assert_same_ranges(within(queries, as_delayed(rows, parts), 30), near)


def test_fewer_rows_than_asked_for(rows, queries):
    assert_same(topk(queries, as_words(rows[:5]), 9), search.topk(queries, rows[:5], 9, "hamming"))
    none = topk(queries, as_words(rows[:0]), 3)
    assert all((array == -1).all() and array.shape == (len(queries), 3) for array in none)


def test_no_queries(rows, queries):
    assert_same(topk(queries[:0], as_words(rows), 4), search.topk(queries[:0], rows, 4, "hamming"))
    assert within(queries[:0], as_words(rows), 4).shape == (0, len(rows))


def test_forms_of_queries(rows, queries):
    codes, expected = as_words(rows), search.topk(queries, rows, 5, "hamming")
    assert_same(topk(rows[::13], codes, 5), expected)
    assert_same(topk(bo.unpack(queries), codes, 5), expected)
    assert_same(topk(queries.words, codes, 5, bits=K), expected)
    # all bits of the words: padding of 0 adds nothing
    assert_same(topk(queries.words, codes, 5), expected)


def test_words_cut_across_are_joined(rows, queries):
    words = as_words(rows).rechunk({1: 1})
    assert_same(topk(queries, words, 5), search.topk(queries, rows, 5, "hamming"))


@pytest.mark.parametrize("form", ("ids", "mask", "none"))
def test_subset(rows, queries, form, tmp_path):
    chosen = np.array([200, 3, 60, 61, 60, 99])
    subset = {"ids": chosen, "mask": np.isin(np.arange(len(rows)), chosen), "none": []}[form]
    expected = search.topk(queries, bo.pack(rows), 4, "hamming", subset=subset)
    for codes in kinds_of_codes(rows, tmp_path, "hamming").values():
        assert_same(topk(queries, codes, 4, subset=subset), expected)


def test_own_ids(rows, queries, tmp_path):
    """Ids of an index that rows of several partitions share out among them."""
    ids = np.random.default_rng(3).permutation(len(rows))
    paths = []
    for i in range(3):
        index = BitIndex(rows[:0])
        index.add(rows[i::3], ids=ids[i::3])
        index.save(tmp_path / str(i))
        paths.append(str(tmp_path / str(i)))
    whole = BitIndex(rows[np.argsort(ids)])
    assert_same(topk(queries, paths, 6, own_ids=True), whole.search(queries, 6))
    few = [4, 17, 90, 30]
    found = topk(queries, paths, 6, own_ids=True, subset=few)
    assert_same(found, whole.search(queries, 6, subset=few))
    found, expected = within(queries, paths, 25, own_ids=True), whole.within(queries, 25)
    assert_array_equal(found.indices, expected.indices)
    assert_array_equal(found.data, expected.data)


def test_removed_rows_keep_their_place(rows, queries, tmp_path):
    """An index counts as its next_id, so that ids do not move when rows go."""
    paths = as_folders(rows, tmp_path, parts=2)
    gone = [0, 5, 119]
    before = topk(queries, paths, 5)
    BitIndex.load(paths[0]).remove(gone)
    left = np.setdiff1d(np.arange(len(rows)), gone)
    assert_same(topk(queries, paths, 5), search.topk(queries, rows, 5, "hamming", subset=left))
    assert not np.array_equal(before[1], topk(queries, paths, 5)[1])


REFUSED = {
    "no partition": (lambda c: [], {}, TypeError, "codes must be a dask.array of words, or"),
    "rows": (lambda c: np.zeros((3, 2), np.uint64), {}, TypeError, "codes must be a dask.array"),
    "a number": (lambda c: [3], {}, TypeError, "partition 0 must be a path, a Delayed"),
    "bytes": (lambda c: c.astype(np.uint8), {}, TypeError, "codes must be packed words, uint64"),
    "words": (lambda c: c[:, :1], {}, ValueError, r"codes of 100 bits must have shape \(n, 2\)"),
    "unknown": (lambda c: c[c[:, 0] > 0], {}, ValueError, "chunks of codes must have known sizes"),
    "bits": (lambda c: c, {"bits": 99}, ValueError, "queries must have 99 columns, got 100"),
    "count": (lambda c: c, {"count": 0}, ValueError, "count must be at least 1, got 0"),
    "many": (lambda c: c, {"count": 10**12}, ValueError, "count must be at most 65536, or"),
    "metric": (lambda c: c, {"metric": "cosine"}, ValueError, "metric must be one of hamming"),
    "subset": (lambda c: c, {"subset": [240]}, ValueError, r"subset must be in \[0, 240\)"),
    "mask": (lambda c: c, {"subset": [True]}, ValueError, r"a mask must have shape \(240,\)"),
    "own_ids": (lambda c: c, {"own_ids": 1}, TypeError, "own_ids must be a bool, got 1"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refusals(rows, queries, case):
    change, options, error, message = REFUSED[case]
    with pytest.raises(error, match=rf"^\[distributed\.topk\] {message}"):
        topk(queries, change(as_words(rows)), **{"count": 3, **options})
    with pytest.raises(ValueError, match=r"^\[distributed\.within\] radius must be at least 0"):
        within(queries, as_words(rows), -1)


def test_what_a_partition_holds_is_checked_where_it_lies(rows, queries, tmp_path):
    for wrong, message in {
        dask.delayed(BitIndex)(rows, "jaccard"): "partitions must have 100 bits and hamming",
        dask.delayed(bo.pack)(rows[:, :9]): "partitions must have 100 bits and hamming",
        dask.delayed(float)(3): "a partition must hold a BitArray, packed words or a BitIndex",
    }.items():
        with pytest.raises((ValueError, TypeError, OSError), match=message):
            topk(queries, [wrong], 3)
    words = bo.pack(rows).words.copy()
    words[7, 1] |= np.uint64(1) << np.uint64(63)
    with pytest.raises(ValueError, match="padding bits must be 0"):
        topk(queries, da.from_array(words, chunks=50), 3)
    with pytest.raises(FileNotFoundError):
        topk(queries, [tmp_path / "nothing"], 3)


# ---- on a cluster -----------------------------------------------------------------------------


def test_processes(rows, queries, tmp_path, cluster):
    expected = search.topk(queries, bo.pack(rows), 17, "hamming")
    for codes in kinds_of_codes(rows, tmp_path, "hamming").values():
        with dask.config.set(scheduler="dask.distributed"):
            assert_same(topk(queries, codes, 17), expected)
    futures = cluster.map(bo.pack, [rows[:100], rows[100:]], pure=False)
    with dask.config.set(scheduler="dask.distributed"):
        assert_same(topk(queries, futures, 17), expected)


@pytest.mark.skipif(os.name == "nt", reason="Windows does not rename what is open")
def test_folders_that_only_one_worker_has(rows, queries, tmp_path, cluster):
    """No index is moved: once open its folder is gone, as for a worker on another machine."""
    workers = sorted(cluster.scheduler_info()["workers"])
    paths = as_folders(rows, tmp_path, parts=2)
    futures = [
        cluster.submit(BitIndex.load, path, workers=[worker], pure=False)
        for path, worker in zip(paths, workers, strict=True)
    ]
    wait(futures)
    for path in paths:
        path.rename(path.with_suffix(".gone"))
    # unequal work, so that the free worker would take some of the other's
    codes = [futures[0]] * 6 + [futures[1]]
    whole = bo.pack(np.concatenate([*[rows[:120]] * 6, rows[120:]]))
    subset = range(650, 800)
    with dask.config.set(scheduler="dask.distributed"):
        found = topk(queries, codes, 9)
        few = topk(queries, codes, 9, subset=subset)
        near = within(queries, codes, 20)
    assert_same(found, search.topk(queries, whole, 9, "hamming"))
    assert_same(few, search.topk(queries, whole, 9, "hamming", subset=subset))
    assert_same_ranges(near, search.within(queries, whole, 20, "hamming"))
    assert [cluster.who_has([future])[future.key] for future in futures] == [(w,) for w in workers]


def test_futures_of_indexes_in_memory_and_of_errors(rows, queries, cluster):
    futures = cluster.map(BitIndex, [rows[:100], rows[100:]], pure=False)
    with dask.config.set(scheduler="dask.distributed"):
        assert_same(topk(queries, futures, 9), search.topk(queries, rows, 9, "hamming"))
        with pytest.raises(FileNotFoundError):
            topk(queries, [*futures, cluster.submit(BitIndex.load, "nothing")], 9)


def killing(block, path):
    """A partition on whose first reading the worker dies."""
    kill_once(path)
    return block


@needs_signals
def test_a_lost_worker(rows, queries, tmp_path, cluster):
    codes = as_words(rows).map_blocks(
        killing, tmp_path / "killed", meta=np.empty((0, 0), np.uint64)
    )
    expected = search.topk(queries, bo.pack(rows), 17, "hamming")
    with dask.config.set(scheduler="dask.distributed"):
        assert_same(topk(queries, codes, 17), expected)
    pid = int((tmp_path / "killed").read_text())
    with pytest.raises(ProcessLookupError):
        os.kill(pid, signal.SIGCONT)
