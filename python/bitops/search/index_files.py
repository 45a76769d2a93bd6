"""The folder of an index: arrays that never change, and a manifest that says which of them count.

::

    index.json              metric, bits of a row, segments; it is replaced, whole
    <16 digits>.rows.npy    uint64, little-endian: the words of the rows of a segment
    <16 digits>.ids.npy     int64: their ids, ascending; absent where they are consecutive
    <16 digits>.removed.npy int64: numbers of rows of a segment that are no longer there, ascending
    lock                    empty; locked by who writes

A change writes files under new names, then the manifest: it is done when that has been renamed. A
writer that fails earlier removes its files; one that is killed leaves nothing but files that nobody
reads, which the next writer removes before it writes. Readers map the files of the manifest that
they have read, and go on with them even when they have been removed.
"""

from __future__ import annotations

import dataclasses
import json
import math
import os
import re
import secrets
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from itertools import chain
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..files.reading import open_regular
from ..files.tensors import MALFORMED, digest, parse_json
from ..files.writing import try_file, write_file, write_new
from ..ops.array import BitArray
from ..ops.memory import MAX_BITS, aligned_empty, word_count
from .mapping import Mapping, check_padding
from .metrics import METRICS
from .segments import Ids, Segment, State, compacted, live_words

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]
try:
    import msvcrt
except ImportError:  # other systems
    msvcrt = None  # type: ignore[assignment]

__all__ = ["MANIFEST", "MAX_ID", "Folder"]

MANIFEST, LOCK = "index.json", "lock"
LOCK_SECONDS = 0.02  # between two tries, where a system cannot wait for a lock
FORMAT, VERSION = "bitops.index", 1
MAX_ID = 2**63 - 2  # so that next_id is an int64 too
MAX_MANIFEST = 2**24  # bytes; a segment takes 150

Known = dict[str | None, Segment]  # by their names

_NAME = re.compile(r"[0-9a-f]{16}")
_FILE = re.compile(r"[0-9a-f]{16}\.(rows|ids|removed)\.npy")
_QUOTED = re.compile(r'"([0-9a-f]{16})"')  # names in a manifest, also in one that is damaged
_KEYS = {"format", "version", "metric", "bits", "next_id", "segments", "sha256"}
_SEGMENT_KEYS = {"rows", "name", "first_id", "removed"}


class _Array(NamedTuple):
    """An array of a file: what it is called, and the only header that it may have."""

    path: Path
    dtype: str
    shape: tuple[int, ...]

    @property
    def header(self) -> bytes:
        """Return a header of format 1.0, always of 128 bytes."""
        text = f"{{'descr': '{self.dtype}', 'fortran_order': False, 'shape': {self.shape}, }}"
        return b"\x93NUMPY\x01\x00" + (118).to_bytes(2, "little") + text.ljust(117).encode() + b"\n"

    @property
    def nbytes(self) -> int:
        return len(self.header) + 8 * math.prod(self.shape)

    def write(self, parts: Iterable[NDArray[Any]]) -> None:
        """Write the file, of a new name, part by part."""
        arrays = (np.ascontiguousarray(part, self.dtype).reshape(-1) for part in parts)
        write_new(self.path, chain([self.header], (array.view(np.uint8).data for array in arrays)))

    @contextmanager
    def opened(self) -> Iterator[BinaryIO]:
        """Open the file behind its header, which must be the right one, as must the length."""
        with open_regular(self.path) as file:
            size = os.fstat(file.fileno()).st_size
            if size != self.nbytes:
                raise ValueError(f"{self.path.name} must have {self.nbytes} bytes, got {size}")
            if file.read(len(self.header)) != self.header:
                raise ValueError(f"{self.path.name} must hold {self.shape} of {self.dtype}")
            yield file

    def read(self) -> NDArray[Any]:
        with self.opened() as file:
            array = aligned_empty(self.shape, self.dtype)
            content = array.reshape(-1).view(np.uint8)
            if content.size and file.readinto(content.data) != content.size:  # type: ignore[attr-defined]
                raise ValueError(f"{self.path.name} must be complete, got fewer bytes")
        return array


def _lock(descriptor: int) -> None:
    """Wait until nobody else has locked a file, and lock it until it is closed."""
    if fcntl is not None:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
    while fcntl is None and msvcrt is not None:
        try:
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
            return
        except PermissionError:  # LK_LOCK would give up after ten seconds
            time.sleep(LOCK_SECONDS)


class Folder:
    """The files of an index."""

    def __init__(self, path: str | os.PathLike) -> None:
        self.path = Path(path).absolute()  # whatever folder the process goes to

    def manifest(self) -> bytes:
        """Read the manifest, which is another one after every change."""
        with open_regular(self.path / MANIFEST) as file:
            data = file.read(MAX_MANIFEST + 1)
        if len(data) > MAX_MANIFEST:
            raise ValueError(f"{MANIFEST} must have at most {MAX_MANIFEST} bytes, got more")
        return data

    def read(
        self, where: str, *, mmap: bool = True, known: Iterable[Segment] = ()
    ) -> tuple[State, bytes]:
        """Read what the index holds, and its manifest.

        Parameters
        ----------
        where : str
            For error messages.
        mmap : bool, default True
            Whether to map the rows, not to read them.
        known : iterable of Segment
            Of an earlier state: their files are not opened again.

        Raises
        ------
        OSError
            If a file cannot be read, or there is no index.
        ValueError
            If the files are not those of an index, or are damaged.
        """
        if not (self.path / MANIFEST).exists():
            raise FileNotFoundError(
                f"[{where}] {self.path} must hold an index: there is no {MANIFEST}"
            )
        try:
            while True:
                manifest = self.manifest()
                try:
                    state = self._parse(manifest, mmap, {s.name: s for s in known})
                    return (state if mmap else compacted(state)), manifest
                except FileNotFoundError:
                    # A writer may have removed files of the state before its own.
                    if self.manifest() == manifest:
                        raise
        except MALFORMED as error:
            raise ValueError(f"[{where}] {self.path} must hold an index: {error}") from None

    def write(self, state: State) -> None:
        """Make a state the one that the index holds; its owner has the lock.

        Raises
        ------
        OSError
            If a file cannot be written. What has been written is then removed. If only the folder
            could not be brought to the disk at the end, the index holds the new state.
        """
        before = self._named()
        self._remove_all_but(before)
        try:
            # this also removes partial manifests of killed writers
            try_file("BitIndex", self.path / MANIFEST)
            named = self._write_files(state)
        except BaseException:
            now = self._named()
            self._remove_all_but(None if before is None or now is None else before | now)
            if not os.path.lexists(self.path / MANIFEST):
                with suppress(OSError):
                    os.unlink(self.path / LOCK)
            raise
        self._remove_all_but(named)

    def _write_files(self, state: State) -> set[str]:
        """Write the files that a state lacks, then the manifest; return the names that it holds."""
        segments = [self._write_segment(segment) for segment in state.segments if segment.live]
        document = {
            "format": FORMAT,
            "version": VERSION,
            "metric": state.metric,
            "bits": state.k,
            "next_id": state.next_id,
            "segments": segments,
        }
        text = json.dumps({**document, "sha256": digest(document, {})}, indent=1)
        write_file("BitIndex", self.path / MANIFEST, f"{text}\n".encode())
        return {*_QUOTED.findall(text)}

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Wait until nobody else writes, and keep others from writing meanwhile."""
        while True:
            descriptor = os.open(self.path / LOCK, os.O_RDWR | os.O_CREAT, 0o666)
            try:
                _lock(descriptor)
                if self._is_lock(descriptor):
                    yield
                    return
            finally:
                os.close(descriptor)  # which unlocks it

    def _is_lock(self, descriptor: int) -> bool:
        """Tell whether others lock the same file: a first save that has failed removes it."""
        if fcntl is None:  # Windows removes no open file
            return True
        try:
            return os.path.samestat(os.fstat(descriptor), os.stat(self.path / LOCK))
        except FileNotFoundError:
            return False

    def is_same(self, other: Folder) -> bool:
        """Tell whether another path is that of this folder, and the index is still there."""
        if not (self.path / MANIFEST).exists():
            return False
        return os.path.samefile(self.path, other.path)

    def make(self, where: str) -> None:
        """Make the folder, or find that the one that is there holds an index or nothing."""
        self.path.mkdir(exist_ok=True)
        others = [entry for entry in os.listdir(self.path) if not self._is_own(entry)]
        if others:
            raise FileExistsError(
                f"[{where}] {self.path} must be new, empty or an index, got {sorted(others)[0]!r}"
            )

    def _is_own(self, entry: str) -> bool:
        return entry in (MANIFEST, LOCK) or bool(
            _FILE.fullmatch(entry) or entry.startswith(f".{MANIFEST}.")
        )

    def _array(self, name: str, kind: str, *shape: int) -> _Array:
        return _Array(self.path / f"{name}.{kind}.npy", "<u8" if kind == "rows" else "<i8", shape)

    def _write_segment(self, segment: Segment) -> dict[str, Any]:
        """Write the files of a segment that it lacks, and describe it."""
        k_words = segment.bits.words.shape[1]
        if segment.name is None:
            segment = self._write_rows(segment, k_words)
        gone = None
        if len(segment.removed):
            name = segment.removed_name or secrets.token_hex(8)
            if segment.removed_name is None:
                self._array(name, "removed", len(segment.removed)).write([segment.removed])
            gone = {"count": len(segment.removed), "name": name}
        first = segment.ids.start if isinstance(segment.ids, range) else None
        return {"rows": len(segment), "name": segment.name, "first_id": first, "removed": gone}

    def _write_rows(self, segment: Segment, k_words: int) -> Segment:
        """Write the rows that are left, and their ids unless they are consecutive."""
        name, n = secrets.token_hex(8), segment.live
        self._array(name, "rows", n, k_words).write(live_words(segment))
        ids = segment.ids
        if len(segment.removed) or not isinstance(ids, range):
            ids = segment.live_ids
            self._array(name, "ids", n).write([ids])
        return dataclasses.replace(segment, name=name, ids=ids, removed=np.empty(0, np.int64))

    def _named(self) -> set[str] | None:
        """Return the names of files that the manifest holds, None if it cannot be read."""
        try:
            return {*_QUOTED.findall(self.manifest().decode("latin-1"))}
        except FileNotFoundError:
            return set()
        except (OSError, ValueError):
            return None

    def _remove_all_but(self, names: set[str] | None) -> None:
        """Remove files of earlier states and of writers that failed; None keeps all."""
        if names is None:
            return
        with suppress(OSError):
            for entry in os.listdir(self.path):
                if _FILE.fullmatch(entry) and entry[:16] not in names:
                    with suppress(OSError):
                        os.unlink(self.path / entry)

    def _parse(self, manifest: bytes, mmap: bool, known: Known) -> State:
        document = parse_json(manifest.decode())
        if not isinstance(document, dict) or document.get("format") != FORMAT:
            raise ValueError(f"format must be {FORMAT}, got {manifest[:60]!r}")
        if document.get("version") != VERSION:
            raise ValueError(f"version must be {VERSION}, got {document.get('version')!r:.80}")
        if set(document) != _KEYS or document["sha256"] != digest(document, {}):
            raise ValueError("sha256 must match the manifest, got another one")
        if document["metric"] not in METRICS:
            raise ValueError(f"metric must be one of {', '.join(METRICS)}")
        k = _size("bits", document["bits"], 1, MAX_BITS)
        next_id = _size("next_id", document["next_id"], 0, MAX_ID + 1)
        segments = [
            self._parse_segment(entry, k, next_id, mmap, known) for entry in document["segments"]
        ]
        _check_disjoint(segments, known)
        return State(document["metric"], k, next_id, tuple(segments))

    def _parse_segment(self, entry: Any, k: int, next_id: int, mmap: bool, known: Known) -> Segment:
        if not isinstance(entry, dict) or set(entry) != _SEGMENT_KEYS:
            raise ValueError(f"a segment must have {sorted(_SEGMENT_KEYS)}, got {entry!r:.80}")
        n = _size("rows", entry["rows"], 1, next_id)
        name = _file_name(entry["name"])
        segment = known.get(name)
        if segment is None or segment.bits.shape != (n, k):
            segment = self._open_segment(name, n, k, next_id, entry["first_id"], mmap)
        if entry["removed"] is None:
            return dataclasses.replace(segment, removed=np.empty(0, np.int64), removed_name=None)
        count = _size("count", entry["removed"]["count"], 1, n)
        removed_name = _file_name(entry["removed"]["name"])
        if segment.removed_name == removed_name:
            return segment
        array = self._array(removed_name, "removed", count)
        gone = _ascending("removed", array.read(), n)
        return dataclasses.replace(segment, removed=gone, removed_name=removed_name)

    def _open_segment(
        self, name: str, n: int, k: int, next_id: int, first_id: Any, mmap: bool
    ) -> Segment:
        """Open the files of a segment of which no row has been removed."""
        if first_id is None:
            ids: range | Ids = _ascending("ids", self._array(name, "ids", n).read(), next_id)
        else:
            first = _size("first_id", first_id, 0, next_id - n)
            ids = range(first, first + n)
        rows, mapping = self._array(name, "rows", n, word_count(k)), None
        if mmap:
            with rows.opened() as file:
                mapping = Mapping(file, len(rows.header), *rows.shape)
            words = mapping.words
        else:
            words = rows.read()
            check_padding(words, k)
        if not words.dtype.isnative:
            words, mapping = words.astype(np.uint64), None
            check_padding(words, k)
        bits = BitArray._make(words, (n, k), 1)  # padding bits are looked at where rows are used
        return Segment(bits, ids, name=name, mapping=mapping)


def _size(name: str, value: Any, low: int, high: int) -> int:
    if type(value) is not int or not low <= value <= high:
        raise ValueError(f"{name} must be an integer in {low}..{high}, got {value!r:.80}")
    return value


def _file_name(name: Any) -> str:
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise ValueError(f"names must have 16 hexadecimal digits, got {name!r:.80}")
    return name


def _ascending(name: str, numbers: NDArray[Any], end: int) -> Ids:
    """Check numbers of a file, which must ascend from at least 0 to at most `end` - 1."""
    if numbers[0] < 0 or numbers[-1] >= end or not (numbers[1:] > numbers[:-1]).all():
        raise ValueError(f"{name} must ascend within 0..{end - 1}")
    return numbers.astype(np.int64, copy=False)


def _check_disjoint(segments: list[Segment], known: Known) -> None:
    """Refuse an id that is there in two segments; known ones have been checked."""
    for number, segment in enumerate(segments):
        for other in segments[:number]:
            if segment.name in known and other.name in known and segment.name != other.name:
                continue
            low, high = max(segment.ids[0], other.ids[0]), min(segment.ids[-1], other.ids[-1])
            if low > high:
                continue
            small, large = sorted((segment, other), key=len)
            if (large.find(small.live_ids) >= 0).any():
                raise ValueError("ids must be in one segment only")
