"""The rows of an index: segments that never change, and states made of them.

A state follows another by `added` or `removed`. Who searches one is not disturbed by that, so an
index needs no lock for searches, and in files a new state differs from the old one by few files.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..ops.array import BitArray
from ..ops.memory import aligned_empty, word_count
from .mapping import Mapping, blocks_read, check_padding

__all__ = [
    "Chunk",
    "Ids",
    "Segment",
    "State",
    "added",
    "chunks",
    "compacted",
    "live_words",
    "removed",
    "sorted_segment",
]

Ids = NDArray[np.int64]

# That are searched at once: 32 MiB. Each search begins without a limit, so that it keeps more of
# what it sees first: 1000 queries take 10% longer in pieces of 8 MiB.
CHUNK_WORDS = 1 << 22
FEW = 10  # less than one row in so many is taken out of a chunk
MERGE_WORDS = 1 << 25  # up to which segments are merged: 256 MiB
MERGE_TIMES = 2  # a segment of at most so many times the rows of the next is merged with it

_NONE = np.empty(0, np.int64)


@dataclasses.dataclass(frozen=True, eq=False)
class Segment:
    """Rows with ascending ids, of which some may have been removed.

    Attributes
    ----------
    bits : BitArray of shape (n, k)
    ids : range, or ndarray of shape (n,), int64
    removed : ndarray of int64
        The rows that are no longer there, ascending.
    name, removed_name : str or None
        What their files are called, if they have any.
    mapping : Mapping or None
        The file that the rows lie in.
    """

    bits: BitArray
    ids: range | Ids
    removed: Ids = dataclasses.field(default_factory=lambda: _NONE)
    name: str | None = None
    removed_name: str | None = None
    mapping: Mapping | None = None

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def live(self) -> int:
        """Number of rows that have not been removed."""
        return len(self.ids) - len(self.removed)

    def ids_at(self, rows: Ids) -> Ids:
        """Return the ids of rows."""
        return _pick(self.ids, rows)

    @property
    def live_ids(self) -> Ids:
        """Ids of the rows that have not been removed."""
        return self.ids_at(self.live_rows(0, len(self)))

    def live_rows(self, start: int, stop: int) -> Ids:
        """Return the rows from `start` to `stop` - 1 that have not been removed."""
        return np.delete(np.arange(start, stop), self.removed_in(start, stop) - start)

    def removed_in(self, start: int, stop: int) -> Ids:
        """Return the removed ones among the rows from `start` to `stop` - 1."""
        first, last = np.searchsorted(self.removed, (start, stop))
        return self.removed[first:last]

    def find(self, ids: Ids) -> Ids:
        """Return the rows that have these ids, -1 for ids that are not there."""
        if not len(self):
            return np.full(len(ids), -1)
        if isinstance(self.ids, range):
            rows = ids - self.ids.start
            found = (rows >= 0) & (rows < len(self))
        else:
            rows = np.minimum(np.searchsorted(self.ids, ids), len(self) - 1)
            found = self.ids[rows] == ids
        if len(self.removed):
            places = np.minimum(np.searchsorted(self.removed, rows), len(self.removed) - 1)
            found &= self.removed[places] != rows
        return np.where(found, rows, -1)

    def part(self, start: int, stop: int) -> BitArray:
        """Return rows to be read through; those of a file are checked at their first use."""
        part = self.bits[start:stop]
        if self.mapping is not None:
            self.mapping.check_padding(part, start)
        return part

    def take(self, rows: Ids) -> NDArray[np.uint64]:
        """Return the words of rows that are most of their segment, or lie side by side."""
        return self._take(self.bits.words, rows)

    def take_some(self, rows: Ids) -> NDArray[np.uint64]:
        """Return the words of rows that lie here and there."""
        return self._take(
            self.bits.words if self.mapping is None else self.mapping.some_words, rows
        )

    def _take(self, words: NDArray[np.uint64], rows: Ids) -> NDArray[np.uint64]:
        taken = words[rows]
        check_padding(taken, self.bits.shape[1])
        return taken


class State(NamedTuple):
    """What an index holds at a moment.

    Attributes
    ----------
    metric : str
    k : int
        Bits of a row.
    next_id : int
        One more than the largest id that a row has had.
    segments : tuple of Segment
        No id is live in two of them.
    """

    metric: str
    k: int
    next_id: int
    segments: tuple[Segment, ...]

    @property
    def live(self) -> int:
        """Number of rows."""
        return sum(segment.live for segment in self.segments)

    def find(self, ids: Ids) -> NDArray[np.bool_]:
        """Tell which ids are there."""
        found = np.zeros(len(ids), bool)
        for segment in self.segments:
            found |= segment.find(ids) >= 0
        return found

    def take(self, ids: Ids) -> tuple[BitArray, NDArray[np.bool_]]:
        """Return the rows of some ids, and which of them are there; others have no bit set."""
        words = np.zeros((len(ids), word_count(self.k)), np.uint64)
        found = np.zeros(len(ids), bool)
        for segment in self.segments:
            rows = segment.find(ids)
            own = rows >= 0
            if own.any():
                words[own] = segment.take_some(rows[own])
                found |= own
        return BitArray.from_words(words, (len(ids), self.k)), found


def added(state: State, bits: BitArray, ids: Ids | None) -> State:
    """Return the state with further rows; their ids must be new, and are ascending if None."""
    n = bits.shape[0]
    if not n:
        return state
    if ids is None:
        new = Segment(bits, range(state.next_id, state.next_id + n))
    else:
        new = sorted_segment(bits, ids)
    next_id = max(state.next_id, int(new.ids[-1]) + 1)
    segments = list(state.segments)
    # Each row is written again only when its segment doubles, and few segments are left.
    while segments and _is_small_beside(segments[-1], new):
        new = _merge(segments.pop(), new)
    return state._replace(next_id=next_id, segments=(*segments, new))


def removed(state: State, ids: Ids) -> State:
    """Return the state without the rows of these ids."""
    segments = []
    for segment in state.segments:
        rows = segment.find(ids)
        rows = rows[rows >= 0]
        if len(rows):
            gone = np.union1d(segment.removed, rows)
            segment = dataclasses.replace(segment, removed=gone, removed_name=None)
        if len(segment.removed) > len(segment) // 2 and segment.bits.words.size <= MERGE_WORDS:
            segment = _merge(segment)
        if segment.live:
            segments.append(segment)
    return state._replace(segments=tuple(segments))


def compacted(state: State) -> State:
    """Return the state with segments that have no files, and so are written anew."""
    kept = [
        dataclasses.replace(segment, name=None, removed_name=None) for segment in state.segments
    ]
    return state._replace(segments=tuple(kept))


def sorted_segment(bits: BitArray, ids: Ids) -> Segment:
    """Return rows as a segment, sorted by their ids."""
    order = np.argsort(ids, kind="stable")
    if np.array_equal(order, np.arange(len(order))):
        return Segment(bits, _as_range(ids))
    return Segment(bits[order], _as_range(ids[order]))


def _as_range(ids: Ids) -> range | Ids:
    first, last = int(ids[0]), int(ids[-1])
    return range(first, last + 1) if last - first == len(ids) - 1 else ids


def _is_small_beside(old: Segment, new: Segment) -> bool:
    words = old.bits.words.size + new.bits.words.size
    return old.live <= MERGE_TIMES * len(new) and words <= MERGE_WORDS


def _merge(*segments: Segment) -> Segment:
    """Return the rows of segments that are left as one segment."""
    rows = [segment.live_rows(0, len(segment)) for segment in segments]
    k = segments[0].bits.shape[1]
    words = aligned_empty((sum(map(len, rows)), word_count(k)), np.uint64)
    np.concatenate(
        [segment.take(own) for segment, own in zip(segments, rows, strict=True)], out=words
    )
    bits = BitArray.from_words(words, (len(words), k))
    if not len(words):
        return Segment(bits, _NONE)
    return sorted_segment(bits, np.concatenate([segment.live_ids for segment in segments]))


class Chunk(NamedTuple):
    """Rows that are searched at once.

    Attributes
    ----------
    bits : BitArray of shape (n, k)
    ids : range, or ndarray of shape (n,), int64
    mask : ndarray of shape (n,), bool; or None
        Which rows may be found; None allows all.
    """

    bits: BitArray
    ids: range | Ids
    mask: NDArray[np.bool_] | None = None

    @property
    def size(self) -> int:
        """Number of rows that may be found."""
        return len(self.ids) if self.mask is None else int(np.count_nonzero(self.mask))

    def ids_at(self, rows: Ids) -> Ids:
        """Return the ids of rows of the chunk."""
        return _pick(self.ids, rows)


def _pick(ids: range | Ids, rows: Ids) -> Ids:
    return rows + ids.start if isinstance(ids, range) else ids[rows]


def chunks(state: State, subset: NDArray[Any] | None = None) -> Iterator[Chunk]:
    """Yield all rows that may be found, in parts.

    Parameters
    ----------
    state : State
    subset : ndarray of bool of shape (next_id,), or of ids, unique and ascending; optional
    """
    step = max(CHUNK_WORDS // word_count(state.k), 1)
    for segment in state.segments:
        for start in range(0, len(segment), step):
            stop = min(start + step, len(segment))
            read_before = blocks_read()
            if subset is None or subset.dtype.kind == "b":
                mask = _mask(segment, start, stop, subset)
                if mask is None or mask.any():
                    yield Chunk(segment.part(start, stop), segment.ids[start:stop], mask)
            else:
                rows = _listed(segment, start, stop, subset)
                if len(rows):
                    yield _chunk_of_some(segment, start, stop, rows)
            if segment.mapping is not None and blocks_read() > read_before:
                segment.mapping.let_go(start, stop)


def _mask(
    segment: Segment, start: int, stop: int, subset: NDArray[np.bool_] | None
) -> NDArray[np.bool_] | None:
    """Return which rows may be found, None for all of them."""
    gone = segment.removed_in(start, stop) - start
    if subset is None and not len(gone):
        return None
    if subset is None:
        mask = np.ones(stop - start, bool)
    else:
        ids = segment.ids[start:stop]
        mask = subset[slice(ids.start, ids.stop) if isinstance(ids, range) else ids]
    if len(gone):
        mask = mask.copy()
        mask[gone] = False
    return mask


def _listed(segment: Segment, start: int, stop: int, subset: Ids) -> Ids:
    """Return the rows between two that have ids of a list."""
    first = np.searchsorted(subset, segment.ids[start])
    last = np.searchsorted(subset, segment.ids[stop - 1], side="right")
    rows = segment.find(subset[first:last])
    return rows[rows >= 0]


def _chunk_of_some(segment: Segment, start: int, stop: int, rows: Ids) -> Chunk:
    """Return a chunk in which some rows may be found; few are taken out, and no others read."""
    if len(rows) * FEW < stop - start:
        bits = BitArray.from_words(segment.take_some(rows), (len(rows), segment.bits.shape[1]))
        return Chunk(bits, segment.ids_at(rows))
    mask = np.zeros(stop - start, bool)
    mask[rows - start] = True
    return Chunk(segment.part(start, stop), segment.ids[start:stop], mask)


def live_words(segment: Segment) -> Iterator[NDArray[np.uint64]]:
    """Yield the words of the rows that are left, in parts."""
    step = max(CHUNK_WORDS // segment.bits.words.shape[1], 1)
    for start in range(0, len(segment), step):
        yield segment.take(segment.live_rows(start, min(start + step, len(segment))))
