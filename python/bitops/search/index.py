"""BitIndex: exact search on rows of bits that have ids and that come and go, perhaps in a file."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.sparse import csr_array

from ..ops.array import BitArray
from ..ops.checks import check_integer, is_integer
from ..ops.indexing import plain_index
from . import segments
from .ids import check_ids
from .index_files import MAX_ID, Folder
from .merging import Nearest
from .metrics import Columns, Rows, check_matrix, check_metric
from .nearest import check_count, topk
from .ranges import within
from .reranking import Rescore, check_rescore, rerank
from .segments import Ids, State

__all__ = ["BitIndex"]

Found = tuple[NDArray[Any], NDArray[np.int64]]


class BitIndex:
    """Rows of bits with ids, and exact search on them.

    An index is made in memory. `save` writes it to a folder. `load` opens such a folder, which may
    be much larger than the memory: rows are read when they are searched, and every `add` and
    `remove` is on the disk, whole, when it returns.

    Parameters
    ----------
    bits : BitArray of shape (n, k), packed along k; or array_like, packed by sign; or Prepacked
        The rows, with the ids 0 to n - 1. They are not copied. There may be none.
    metric : {"hamming", "jaccard", "dice", "intersection"}, default "hamming"
        As in `pairwise`.

    Attributes
    ----------
    metric : str
    k : int
        Bits of a row.
    next_id : int
        One more than the largest id that a row has had: the next row gets it.
    ids : ndarray of int64
        The ids of all rows, ascending; made anew each time.
    path : Path or None
        The folder, absolute, if `load` has opened one.

    Raises
    ------
    TypeError
        If `bits` does not hold real numbers, or `metric` is not a str.
    ValueError
        If `bits` is not a matrix, has no columns or holds NaN, or no metric has this name.

    Notes
    -----
    Several threads may search at once, also while one adds or removes rows: each search sees the
    rows of the moment at which it has begun. Several processes may open one folder. Those that
    write wait for each other, except on Windows, where only one may; those that read go on with
    what they have opened until they call `refresh`. "What the files hold", a section of the page
    "Search on rows of bits" of the documentation, describes the folder.

    Examples
    --------
    >>> index = BitIndex([[1, 1, 1], [-1, -1, -1]])
    >>> index.add([[1, 1, -1]], ids=[7])
    array([7])
    >>> index.search([[1, 1, 1]], 2)
    (array([[0, 1]], dtype=int32), array([[0, 7]]))
    >>> index.remove([0])
    >>> index
    BitIndex(2 rows of 3 bits, hamming)
    """

    def __init__(self, bits: Columns, metric: str = "hamming") -> None:
        rows = check_matrix("BitIndex", "bits", bits)
        if rows.shape[1] < 1:
            raise ValueError(f"[BitIndex] bits must have columns, got shape {rows.shape}")
        name = check_metric("BitIndex", metric).name
        self._set(segments.added(State(name, rows.shape[1], 0, ()), rows, None), None, b"")

    def _set(self, state: State, folder: Folder | None, manifest: bytes) -> None:
        self._state, self._folder, self._manifest = state, folder, manifest
        self._lock = threading.Lock()  # of writers; a search needs none

    @property
    def metric(self) -> str:
        return self._state.metric

    @property
    def k(self) -> int:
        return self._state.k

    @property
    def next_id(self) -> int:
        return self._state.next_id

    @property
    def ids(self) -> NDArray[np.int64]:
        live = [segment.live_ids for segment in self._state.segments]
        return np.sort(np.concatenate([np.empty(0, np.int64), *live]))

    @property
    def path(self) -> Path | None:
        return None if self._folder is None else self._folder.path

    def __len__(self) -> int:
        return self._state.live

    def __contains__(self, item: object) -> bool:
        in_range = is_integer(item) and 0 <= item <= MAX_ID  # type: ignore[operator]
        return in_range and bool(self._state.find(np.array([item], np.int64))[0])

    def __repr__(self) -> str:
        place = "" if self.path is None else f", in {str(self.path)!r}"
        return f"BitIndex({len(self):,} rows of {self.k:,} bits, {self.metric}{place})"

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle the rows, or of a folder its name, for processes of the same machine."""
        if self._folder is not None:
            return BitIndex.load, (self._folder.path,)
        state = self._state
        parts = [(s.bits[s.live_rows(0, len(s))], s.live_ids) for s in state.segments]
        return _restore, (state.metric, state.k, state.next_id, parts)

    def rows(self, ids: ArrayLike) -> BitArray:
        """Return the rows that have some ids, in the order of the ids.

        Parameters
        ----------
        ids : array_like of integers of shape (n,)

        Returns
        -------
        BitArray of shape (n, k), packed along k

        Raises
        ------
        TypeError
            If `ids` are not integers.
        ValueError
            If `ids` have not one axis, or an id is not in the index.
        """
        where, state = "BitIndex.rows", self._state
        wanted = _as_ids(where, ids)
        bits, found = state.take(wanted)
        _check_found(where, wanted, found)
        return bits

    def add(self, rows: Rows, ids: ArrayLike | None = None) -> NDArray[np.int64]:
        """Add rows: all or none.

        Parameters
        ----------
        rows : BitArray of shape (n, k), packed along k; or array_like, packed by sign on the fly
        ids : array_like of integers of shape (n,), optional
            New ids, in any order, at least 0. An id whose row has been removed may be used again.
            By default ids are counted on from `next_id`.

        Returns
        -------
        ndarray of shape (n,), int64
            The ids of the rows.

        Raises
        ------
        TypeError
            If `rows` do not hold real numbers, or `ids` are not integers.
        ValueError
            If `rows` are not a matrix of k columns or hold NaN, there is not one id for each, or an
            id is negative, there twice, or already in the index.
        OSError
            If the folder cannot be written. The index is then as before; if only the folder could
            not be brought to the disk at the end, it is the new one.
        """
        where = "BitIndex.add"
        bits = self._as_rows(where, "rows", rows)
        new = None if ids is None else _as_ids(where, ids)
        if new is not None and len(new) != bits.shape[0]:
            raise ValueError(
                f"[{where}] ids must be one for each of {bits.shape[0]} rows, got {len(new)}"
            )
        with self._writing() as state:
            if new is None:
                if bits.shape[0] > MAX_ID - state.next_id:
                    raise ValueError(f"[{where}] ids must be at most {MAX_ID}: give some")
                given = np.arange(state.next_id, state.next_id + bits.shape[0])
            else:
                _check_new(where, new, state)
                given = new
            # the caller may change what has been given
            own = bits if self._folder is not None else bits.copy()
            self._write(segments.added(state, own, new))
        return given

    def remove(self, ids: ArrayLike) -> None:
        """Remove the rows that have some ids: all or none.

        Parameters
        ----------
        ids : array_like of integers of shape (n,)

        Raises
        ------
        TypeError
            If `ids` are not integers.
        ValueError
            If `ids` have not one axis, or an id is not in the index.
        OSError
            If the folder cannot be written. The index is then as before; if only the folder could
            not be brought to the disk at the end, it is the new one.
        """
        where = "BitIndex.remove"
        gone = _as_ids(where, ids)
        with self._writing() as state:
            _check_found(where, gone, state.find(gone))
            if len(gone):
                self._write(segments.removed(state, gone))

    def search(
        self,
        queries: Rows,
        count: int,
        *,
        rescore: Rescore = None,
        oversample: int = 4,
        subset: ArrayLike | None = None,
    ) -> Found:
        """Find the rows that are nearest to each query.

        Parameters
        ----------
        queries : array_like of shape (m, k), packed by sign; or BitArray
        count : int
            How many to return for each query, at least 1, and at most max(65,536, len(index)).
        rescore : "bits", array_like of shape (ids, d), or callable (ids) -> (n, d); optional
            A second stage, for real queries. ``oversample * count`` rows are searched, and ordered
            by their products with the numbers of the query: "bits" multiplies with the signs of the
            rows, an array with its rows of these ids, such as the real vectors in a memory map, and
            a callable with what it returns for some ids, ascending.
        oversample : int, default 4
            Used with `rescore` only.
        subset : array_like of bool of shape (next_id,), or of integers, optional
            What may be found: a mask of ids, or ids in any order. Ids that are not in the index
            are not found.

        Returns
        -------
        distances : ndarray of shape (m, count)
            Nearest first, as `topk` returns them; or float32 scores, largest first.
        ids : ndarray of shape (m, count), int64
            Among rows at the same distance, smaller ones come first. Where there are fewer rows
            than `count`, distance and id are -1, and a score is -inf.

        Raises
        ------
        TypeError
            If `queries` or what `rescore` gives do not hold real numbers, an argument has another
            type than above, or packed or bool queries are to be rescored.
        ValueError
            If a shape or a name does not fit, a number is out of range, or a file is damaged.
        """
        where, state = "BitIndex.search", self._state
        numbers = check_rescore(where, rescore, queries)
        bits = self._as_rows(where, "queries", queries)
        count = check_count(where, count, state.live)
        factor = check_integer(where, "oversample", oversample, 1)
        allowed = None if subset is None else _as_subset(where, subset, state.next_id)
        wanted = count if rescore is None else count * factor
        best = Nearest(bits.shape[0], wanted, check_metric(where, state.metric))
        for chunk in segments.chunks(state, allowed) if bits.shape[0] else ():
            most = min(wanted, chunk.size)
            nearest, rows = topk(bits, chunk.bits, most, state.metric, subset=chunk.mask)
            best.add(nearest, chunk.ids_at(rows))
        if numbers is None:
            return best.result()
        return rerank(where, numbers, best.ids, count, rescore, state)

    def within(self, queries: Rows, radius: float) -> csr_array:
        """Find all rows within a range of each query.

        Parameters
        ----------
        queries : BitArray of shape (m, k), packed along k; or array_like, packed by sign
        radius : float
            The largest distance, at least 0; for "intersection" the smallest count.

        Returns
        -------
        scipy.sparse.csr_array of shape (m, next_id), of the dtype of `pairwise`
            The values within the range; columns are ids, sorted. Distances of 0 are stored too.

        Raises
        ------
        TypeError
            If `queries` or `radius` are not real numbers.
        ValueError
            If `queries` are not a matrix of k columns, `radius` is negative or NaN, or a file is
            damaged.
        """
        where, state = "BitIndex.within", self._state
        bits = self._as_rows(where, "queries", queries)
        m = bits.shape[0]
        # A chunk of no rows checks the radius and tells the dtype.
        none = within(bits, bits[:0], radius, state.metric).data
        found = [(np.empty(0, np.int64), np.empty(0, np.int64), none)]
        for chunk in segments.chunks(state):
            part = within(bits, chunk.bits, radius, state.metric)
            owners = np.repeat(np.arange(m), np.diff(part.indptr))
            kept: Any = slice(None) if chunk.mask is None else chunk.mask[part.indices]
            ids = chunk.ids_at(part.indices[kept].astype(np.int64))
            found.append((owners[kept], ids, part.data[kept]))
        owners, ids, values = map(np.concatenate, zip(*found, strict=True))
        order = np.lexsort((ids, owners))
        ends = np.searchsorted(owners[order], np.arange(m + 1))
        return csr_array((values[order], ids[order], ends), shape=(m, state.next_id))

    def save(self, path: str | os.PathLike) -> None:
        """Write the index to a folder, which `load` opens.

        What another index there held is replaced; processes that have opened it go on with that.
        In its own folder an index first takes over what others have written there. A folder without
        an index must be empty. Rows that have been removed are not written.

        Parameters
        ----------
        path : path

        Raises
        ------
        OSError
            If the folder cannot be written, or holds something else. An index that was there is
            then as before; a folder that was not there stays, empty.
        """
        folder = Folder(path)
        folder.make("BitIndex.save")
        if self._folder is not None and self._folder.is_same(folder):
            with self._writing() as state:
                self._write(segments.compacted(state))
            return
        with folder.locked():
            folder.write(segments.compacted(self._state))

    @classmethod
    def load(cls, path: str | os.PathLike, *, mmap: bool = True) -> BitIndex:
        """Open the folder of an index.

        Parameters
        ----------
        path : path
        mmap : bool, default True
            Whether to leave the rows in their files, and to write every change there. With False
            they are read, and the files stay as they are until the next `save`.

        Raises
        ------
        OSError
            If a file cannot be read, or the folder holds no index.
        ValueError
            If the folder holds something else in place of one, or one that is damaged.

        Notes
        -----
        A folder from a stranger is safe to open: names, sizes, headers and ids are checked, the
        manifest has a checksum, and no code is run. The rows of a map are checked for set padding
        bits when they are first searched. A map ends the process if somebody shortens a file
        meanwhile, which no writer of indexes does.
        """
        if not isinstance(mmap, bool):
            raise TypeError(f"[BitIndex.load] mmap must be a bool, got {mmap!r:.80}")
        folder = Folder(path)
        state, manifest = folder.read("BitIndex.load", mmap=mmap)
        index = cls.__new__(cls)
        index._set(state, folder if mmap else None, manifest)
        return index

    def refresh(self) -> bool:
        """Take over what other processes have written to the folder, and tell whether that was any.

        Raises
        ------
        OSError, ValueError
            As `load`.
        """
        with self._lock:
            return self._refresh()

    def _refresh(self) -> bool:
        if self._folder is None or self._folder.manifest() == self._manifest:
            return False
        known = self._state.segments
        self._state, self._manifest = self._folder.read("BitIndex.refresh", known=known)
        return True

    @contextmanager
    def _writing(self) -> Iterator[State]:
        """Keep other writers away, and give the state that is to be changed."""
        with self._lock:
            if self._folder is None:
                yield self._state
                return
            with self._folder.locked():
                self._refresh()
                yield self._state

    def _write(self, state: State) -> None:
        if self._folder is None:
            self._state = state
            return
        try:
            self._folder.write(state)
        except BaseException:
            with suppress(OSError, ValueError):
                self._refresh()  # the new state may be there, though not safely on the disk
            raise
        self._refresh()

    def _as_rows(self, where: str, name: str, rows: Rows) -> BitArray:
        bits = check_matrix(where, name, rows)
        if bits.shape[1] != self.k:
            raise ValueError(f"[{where}] {name} must have {self.k} columns, got {bits.shape[1]}")
        return bits


def _restore(
    metric: str, k: int, next_id: int, parts: list[tuple[BitArray, NDArray[np.int64]]]
) -> BitIndex:
    """Rebuild an index of memory from a pickle."""
    index = BitIndex.__new__(BitIndex)
    own = tuple(segments.sorted_segment(bits, ids) for bits, ids in parts if len(ids))
    index._set(State(metric, k, next_id, own), None, b"")
    return index


def _as_ids(where: str, ids: ArrayLike, name: str = "ids", kinds: str = "integers") -> Ids:
    """Check ids, and return them as int64."""
    array = check_ids(where, name, ids, 0, MAX_ID + 1, kinds=kinds)
    if array.ndim != 1:
        raise ValueError(f"[{where}] {name} must have one axis, got shape {array.shape}")
    return array


def _check_found(where: str, ids: Ids, found: NDArray[np.bool_]) -> None:
    if not found.all():
        raise ValueError(f"[{where}] ids must be in the index, got {ids[~found][0]}")


def _check_new(where: str, ids: Ids, state: State) -> None:
    if len(np.unique(ids)) < len(ids):
        values, counts = np.unique(ids, return_counts=True)
        raise ValueError(f"[{where}] ids must be unique, got {values[counts > 1][0]} twice")
    found = state.find(ids)
    if found.any():
        raise ValueError(f"[{where}] ids must be new, got {ids[found][0]}, which is in the index")


def _as_subset(where: str, subset: ArrayLike, next_id: int) -> NDArray[Any]:
    """Return a mask of ids, or ids that are unique and ascend."""
    array = plain_index(where, "subset", subset)
    if array.dtype.kind != "b":
        return np.unique(_as_ids(where, array, "subset", "bool or integers"))
    if array.shape != (next_id,):
        raise ValueError(f"[{where}] a mask must have shape ({next_id},), got {array.shape}")
    return array
