"""Search of rows of bits in partitions: each is searched where it lies, and results are merged."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from functools import cached_property, lru_cache, partial
from typing import Any, NamedTuple, TypeVar

import dask
import dask.array
import numpy as np
from distributed import Client, Future, wait
from numpy.typing import ArrayLike, NDArray
from scipy.sparse import csr_array

from ..ops.array import BitArray
from ..ops.checks import check_integer
from ..ops.indexing import plain_index
from ..ops.memory import WORD_BITS, word_count
from ..search.ids import check_ids
from ..search.index import BitIndex
from ..search.merging import Nearest
from ..search.metrics import check_matrix, check_metric
from ..search.nearest import MISSING, MOST_COUNT, check_count
from ..search.ranges import check_radius
from .graphs import compute, current_client

__all__ = ["topk", "within"]

FAN = 8  # results that are merged at once
OPEN = 64  # folders of indexes that a worker keeps open

Ids = NDArray[np.int64]
Result = TypeVar("Result")


class Found(NamedTuple):
    """What a partition, or several side by side, answered to queries.

    Attributes
    ----------
    size : int
        Ids are below it. Those of the next partition start here.
    owners, ids : ndarray of int64
        The query and the row of each answer; for nearest rows, ids have the shape (m, found), and
        there are no owners.
    values : ndarray
    """

    size: int
    owners: Ids | None
    ids: Ids
    values: NDArray[Any]


def topk(
    queries: Any,
    codes: Any,
    count: int,
    metric: str = "hamming",
    *,
    bits: int | None = None,
    subset: ArrayLike | None = None,
    own_ids: bool = False,
) -> tuple[NDArray[Any], Ids]:
    """Find the rows of partitions that are nearest to each query.

    Parameters
    ----------
    queries : BitArray of shape (m, k), packed along k; array_like of shape (m, k), packed by sign
        Or, as `codes`, an ndarray of packed words of shape (m, words), uint64.
    codes : dask.array of packed words of shape (n, words), uint64; or sequence of partitions
        The rows. A partition is the path of a `BitIndex`, which every worker must be able to open,
        or a Delayed or a Future of a BitArray, of packed words or of a `BitIndex`. A Future of an
        index in files is searched only by workers that have it; see Notes.
    count : int
        How many to return for each query, at least 1, and at most max(65,536, n).
    metric : {"hamming", "jaccard", "dice", "intersection"}, default "hamming"
        As in `bitops.search.topk`. An index must have been made for it.
    bits : int, optional
        Bits of a row. By default those of the queries, and 64 a word where these are words.
    subset : array_like of bool of shape (n,), or of integers, optional
        The rows that may be found: a mask, or their ids in any order. It is cut for partitions by
        the process that calls, where a mask takes n bytes, and ids 8 bytes each.
    own_ids : bool, default False
        Whether the ids are those that each index has, which then must be in one index only. By
        default they are counted on from partition to partition: the rows of a partition are
        numbered behind those before, and an id of an index is added to their number, where an
        index counts as `next_id`.

    Returns
    -------
    distances : ndarray of shape (m, count), of the dtype of `bitops.search.pairwise`
        Nearest first.
    ids : ndarray of shape (m, count), int64
        Among rows at the same distance, smaller ones come first. If fewer than `count` rows may be
        found, the rest of each row is -1 in both arrays.

    Raises
    ------
    TypeError, ValueError
        If an argument is not as above, or chunks have unknown sizes; and what a partition raises
        on its worker, such as OSError for a folder that is not there.

    Notes
    -----
    The result is that of `bitops.search.topk` on all rows at once, ties included. It is computed by
    the scheduler of Dask that is current: that of a `distributed.Client`, or else threads.

    There is one task for each partition, or chunk of rows, beside one for about each 8 of them that
    merges. Queries reach each worker once. A worker holds the partitions that it searches at the
    time; those in files are read in blocks of 32 MiB. If a worker is lost, its tasks are done by
    others; only data that were on it alone and that Dask cannot make again are lost with it.

    Dask chooses the worker that opens a path, or that computes a Delayed. Where each worker has a
    disk of its own, let each open its index first: ``client.submit(BitIndex.load, path,
    workers=[worker], pure=False)``. The search of such a Future stays on its worker and, if that
    is lost, waits for it.

    Examples
    --------
    >>> import dask.array
    >>> words = dask.array.from_array(np.array([[7], [1], [3], [6]], np.uint64), chunks=(2, 1))
    >>> topk(np.array([[3]], np.uint64), words, 3)
    (array([[0, 1, 1]], dtype=int32), array([[2, 0, 1]]))
    """
    where = "distributed.topk"
    parts = _Partitions(where, queries, codes, metric, bits, own_ids)
    count = check_integer(where, "count", count, 1)
    if count > MOST_COUNT:  # sizes may have to be asked for
        check_count(where, count, sum(parts.sizes))
    allowed = [None] * len(parts) if subset is None else parts.split(subset)
    merge = partial(_merge_nearest, count=count, metric=metric, own_ids=parts.own_ids)
    found = parts.compute(partial(_search, count=count), merge, allowed)
    best = Nearest(parts.m, count, check_metric(where, metric))
    best.add(found.values, found.ids)
    return best.result()


def within(
    queries: Any,
    codes: Any,
    radius: float,
    metric: str = "hamming",
    *,
    bits: int | None = None,
    own_ids: bool = False,
) -> csr_array:
    """Find all rows of partitions within a range of each query.

    Parameters
    ----------
    queries, codes, metric, bits, own_ids
        As in `topk`.
    radius : float
        The largest distance, at least 0; for "intersection" the smallest count.

    Returns
    -------
    scipy.sparse.csr_array of shape (m, n), of the dtype of `bitops.search.pairwise`
        The values within the range, with sorted indices, which are ids. Distances of 0 are stored
        too, so the stored entries of a row are what was found.

    Raises
    ------
    TypeError, ValueError
        As in `topk`.

    Notes
    -----
    The result is that of `bitops.search.within` on all rows at once. Who merges holds it, beside
    what it is merged from.

    Examples
    --------
    >>> import dask.array
    >>> words = dask.array.from_array(np.array([[7], [1], [3], [6]], np.uint64), chunks=(2, 1))
    >>> within(np.array([[3]], np.uint64), words, 1).toarray()
    array([[1, 1, 0, 0]], dtype=int32)
    >>> within(np.array([[3]], np.uint64), words, 1).indices.tolist()
    [0, 1, 2]
    """
    where = "distributed.within"
    parts = _Partitions(where, queries, codes, metric, bits, own_ids)
    radius = check_radius(where, radius)
    merge = partial(_merge_ranges, own_ids=parts.own_ids)
    found = parts.compute(partial(_search_range, radius=radius), merge, [None] * len(parts))
    assert found.owners is not None
    ends = np.searchsorted(found.owners, np.arange(parts.m + 1))
    dtype = np.int32 if max(found.size, len(found.ids)) < 2**31 else np.int64
    arrays = found.values, found.ids.astype(dtype), ends.astype(dtype)
    return csr_array(arrays, shape=(parts.m, found.size))


class _Partitions:
    """Checked queries, and the partitions to be searched for them."""

    def __init__(
        self, where: str, queries: Any, codes: Any, metric: Any, bits: Any, own_ids: Any
    ) -> None:
        self._where = where
        self._metric = check_metric(where, metric).name
        if not isinstance(own_ids, bool):
            raise TypeError(f"[{where}] own_ids must be a bool, got {own_ids!r:.80}")
        self.own_ids = own_ids
        if bits is not None:
            bits = check_integer(where, "bits", bits, 1)
        self._queries = _as_queries(where, queries, bits)
        self.m, self._k = self._queries.shape
        if not self._k:
            raise ValueError(f"[{where}] queries must have columns, got {self._queries.shape}")
        if isinstance(codes, dask.array.Array):
            words = _check_words(where, codes, self._k)
            self._parts: list[Any] = list(words.to_delayed().ravel())
            self.sizes = list(words.chunks[0])
        else:
            self._parts = _check_parts(where, codes)

    def __len__(self) -> int:
        return len(self._parts)

    @cached_property
    def sizes(self) -> list[int]:
        """The number of ids that each partition takes."""
        return list(compute(self._tasks(_size)))

    def split(self, subset: ArrayLike) -> list[Ids | None]:
        """Return, for each partition, the ids in it that may be found, as it counts them."""
        array = plain_index(self._where, "subset", subset)
        if array.ndim != 1:
            raise ValueError(f"[{self._where}] subset must have one axis, got shape {array.shape}")
        if self.own_ids and array.dtype.kind != "b":
            ids = check_ids(self._where, "subset", array, 0, 2**63 - 1, kinds="bool or integers")
            return [ids] * len(self)
        ends = np.cumsum([0, *self.sizes])
        n = max(self.sizes) if self.own_ids else int(ends[-1])
        if array.dtype.kind == "b":
            if len(array) != n:
                raise ValueError(
                    f"[{self._where}] a mask must have shape ({n},), got {array.shape}"
                )
            array = np.flatnonzero(array)
        ids = np.unique(check_ids(self._where, "subset", array, 0, n, kinds="bool or integers"))
        if self.own_ids:
            return [ids] * len(self)
        places = np.searchsorted(ids, ends)
        return [ids[a:b] - start for a, b, start in zip(places, places[1:], ends, strict=False)]

    def _tasks(self, function: Callable[..., Any], *arguments: Iterable[Any]) -> list[Any]:
        """Return a task for each partition: a function of it and of an item of each argument."""
        task = dask.delayed(function, pure=False)
        tasks = []
        for part, *rest in zip(self._parts, *arguments, strict=True):
            places = self._places.get(part.key) if isinstance(part, Future) else None
            pin = {"workers": places, "allow_other_workers": False} if places else {}
            with dask.annotate(**pin):
                tasks.append(task(part, *rest))
        return tasks

    @cached_property
    def _places(self) -> dict[Any, list[str]]:
        """The workers of each partition that must not be moved, by its key."""
        client = current_client()
        futures = [part for part in self._parts if isinstance(part, Future)]
        return _places_of_folders(client, futures) if client and futures else {}

    def compute(
        self,
        search: Callable[..., Found],
        merge: Callable[[Sequence[Found]], Found],
        allowed: Iterable[Ids | None],
    ) -> Found:
        """Search every partition, and merge the results by a tree, in order."""
        queries = dask.delayed(self._queries, traverse=False)
        search_part = partial(_search_part, search=search, where=self._where, metric=self._metric)
        found = self._tasks(search_part, [queries] * len(self), allowed)
        merging = dask.delayed(merge, pure=False)
        while True:
            found = [merging(found[i : i + FAN]) for i in range(0, len(found), FAN)]
            if len(found) == 1:
                return compute(found)[0]


def _as_queries(where: str, queries: Any, bits: int | None) -> BitArray:
    """Return queries as bits: words are taken as they are, numbers are packed by sign."""
    if isinstance(queries, np.ndarray) and queries.dtype == np.uint64 and queries.ndim == 2:
        k = WORD_BITS * queries.shape[1] if bits is None else bits
        if word_count(k) != queries.shape[1]:
            raise ValueError(
                f"[{where}] queries of {k} bits must have {word_count(k)} words, "
                f"got shape {queries.shape}"
            )
        return BitArray.from_words(np.ascontiguousarray(queries), (len(queries), k))
    rows = check_matrix(where, "queries", queries)
    if bits not in (None, rows.shape[1]):
        raise ValueError(f"[{where}] queries must have {bits} columns, got {rows.shape[1]}")
    return rows


def _check_words(where: str, codes: dask.array.Array, k: int) -> dask.array.Array:
    """Return packed words with whole rows in every chunk."""
    if codes.dtype != np.uint64:
        raise TypeError(f"[{where}] codes must be packed words, uint64, got dtype {codes.dtype}")
    if codes.ndim != 2 or codes.shape[1] != word_count(k):
        raise ValueError(
            f"[{where}] codes of {k} bits must have shape (n, {word_count(k)}), got {codes.shape}"
        )
    if np.isnan(codes.chunks[0]).any():
        raise ValueError(
            f"[{where}] chunks of codes must have known sizes, as compute_chunk_sizes() finds "
            f"them, got {codes.chunks[0]!r:.80}"
        )
    return codes.rechunk({1: -1})


def _check_parts(where: str, codes: Any) -> list[Any]:
    """Return paths as texts, and collections as they are; there must be one."""
    if isinstance(codes, str | os.PathLike | BitArray | BitIndex | np.ndarray):
        codes = ()
    try:
        parts = list(codes)
    except TypeError:
        parts = []
    for i, part in enumerate(parts):
        if isinstance(part, str | os.PathLike):
            parts[i] = os.path.abspath(os.fspath(part))
        elif not isinstance(part, Future) and not dask.is_dask_collection(part):
            raise TypeError(
                f"[{where}] partition {i} must be a path, a Delayed or a Future, got {part!r:.80}"
            )
    if not parts:
        raise TypeError(
            f"[{where}] codes must be a dask.array of words, or a sequence of at least one "
            f"partition, got {codes!r:.80}"
        )
    return parts


def _places_of_folders(client: Client, futures: list[Future]) -> dict[Any, list[str]]:
    """Return which workers have the indexes that are in files, by key.

    The pickle of such an index names its folder, which another worker may not have.
    """
    wait(futures)
    indexes = [future for future in futures if future.type is BitIndex]
    places = {key: list(workers) for key, workers in client.who_has(indexes).items() if workers}
    indexes = [index for index in indexes if index.key in places]
    in_files = client.gather(
        [client.submit(_is_in_files, i, workers=places[i.key], pure=False) for i in indexes]
    )
    return {
        index.key: places[index.key] for index, yes in zip(indexes, in_files, strict=True) if yes
    }


# ---- what runs on workers ---------------------------------------------------------------------


def _is_in_files(index: BitIndex) -> bool:
    return index.path is not None


def _search_part(
    part: Any,
    queries: BitArray,
    allowed: Ids | None,
    *,
    search: Callable[..., Found],
    where: str,
    metric: str,
) -> Found:
    return search(_as_index(part, where, metric, queries.shape[1]), queries, allowed)


def _as_index(part: Any, where: str, metric: str, k: int) -> BitIndex:
    """Return a partition as an index, which searches rows block by block."""
    if isinstance(part, str):
        index = _opened(part)
        index.refresh()
    elif isinstance(part, BitIndex):
        index = part
    elif isinstance(part, BitArray):
        index = BitIndex(part, metric)
    elif isinstance(part, np.ndarray) and part.ndim == 2:
        words = np.ascontiguousarray(part)
        index = BitIndex(BitArray.from_words(words, (len(words), k)), metric)
    else:
        raise TypeError(
            f"[{where}] a partition must hold a BitArray, packed words or a BitIndex, "
            f"got {type(part).__name__}"
        )
    if (index.metric, index.k) != (metric, k):
        raise ValueError(f"[{where}] partitions must have {k} bits and {metric}, got {index!r}")
    return index


@lru_cache(OPEN)
def _opened(path: str) -> BitIndex:
    """Open an index once in a process: what has been checked of its rows need not be again."""
    return BitIndex.load(path)


def _size(part: Any) -> int:
    """Return the number of ids that a partition takes."""
    if isinstance(part, str):
        part = _opened(part)
        part.refresh()
    return part.next_id if isinstance(part, BitIndex) else part.shape[0]


def _search(index: BitIndex, queries: BitArray, allowed: Ids | None, *, count: int) -> Found:
    """Find the nearest rows of a partition."""
    values, ids = index.search(queries, max(min(count, len(index)), 1), subset=allowed)
    own = int(np.count_nonzero(ids[:1] != MISSING))  # the same for all queries
    return Found(index.next_id, None, ids[:, :own], values[:, :own])


def _search_range(index: BitIndex, queries: BitArray, allowed: None, *, radius: float) -> Found:
    """Find the rows of a partition within a range."""
    found = index.within(queries, radius)
    owners = np.repeat(np.arange(len(queries)), np.diff(found.indptr))
    return Found(index.next_id, owners, found.indices.astype(np.int64), found.data)


def _starts(parts: Sequence[Found], own_ids: bool) -> tuple[list[int], int]:
    """Return what is added to the ids of each part, and the size of all."""
    if own_ids:
        return [0] * len(parts), max(part.size for part in parts)
    *starts, size = np.cumsum([0, *(part.size for part in parts)]).tolist()
    return starts, size


def _merge_nearest(parts: Sequence[Found], *, count: int, metric: str, own_ids: bool) -> Found:
    """Keep the nearest rows of several parts."""
    starts, size = _starts(parts, own_ids)
    best = Nearest(len(parts[0].ids), count, check_metric("distributed.topk", metric))
    for part, start in zip(parts, starts, strict=True):
        if part.ids.shape[1]:
            best.add(part.values.copy(), part.ids + start)  # it writes into what it is given
    return Found(size, None, best.ids, best.distances)


def _merge_ranges(parts: Sequence[Found], *, own_ids: bool) -> Found:
    """Join what was found in several parts, sorted by queries and then by ids."""
    starts, size = _starts(parts, own_ids)
    owners = np.concatenate([part.owners for part in parts])
    ids = np.concatenate([part.ids + start for part, start in zip(parts, starts, strict=True)])
    order = np.lexsort((ids, owners))
    values = np.concatenate([part.values for part in parts])
    return Found(size, owners[order], ids[order], values[order])
