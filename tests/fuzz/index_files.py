"""Target: `BitIndex.load` and searches, on folders whose files are changed or forged."""

from __future__ import annotations

import functools
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from bitops.files.tensors import digest
from bitops.search import BitIndex
from fuzz.documents import forge
from fuzz.reader import Reader, allowed

K = 70
Files = dict[str, bytes]


@functools.cache
def folders() -> list[Files]:
    """The files of two indexes, with consecutive ids, others, and removed rows."""
    rng = np.random.default_rng(0)
    first = BitIndex(rng.random((20, K)) < 0.5)
    second = BitIndex(rng.random((9, K)) < 0.5, "jaccard")
    found = []
    for index in (first, second):
        with tempfile.TemporaryDirectory() as place:
            index.save(Path(place) / "index")
            stored = BitIndex.load(Path(place) / "index")
            stored.remove([1, 3])
            if index is second:
                stored.add(rng.random((3, K)) < 0.5, [40, 30, 50])
            found.append({path.name: path.read_bytes() for path in Path(place, "index").iterdir()})
    return found


def forged_manifest(reader: Reader, content: bytes) -> bytes:
    """A manifest with changed values whose checksum is right."""
    document: dict[str, Any] = forge(reader, json.loads(content), 3)
    document["sha256"] = digest(document, {})
    return json.dumps(document).encode("utf-8", "surrogatepass")


def changed(reader: Reader, content: bytes) -> bytes:
    """Bytes that are inverted, lost, or come twice."""
    place = reader.below(min(len(content), 1 << 16)) if content else 0
    edit = reader.below(4)
    if edit == 0:
        return content[:place]
    if edit == 1:
        return content[:place] + reader.take(reader.below(9)) + content[place:]
    flipped = bytearray(content)
    if flipped:
        flipped[place] ^= 1 << reader.below(8)
    return bytes(flipped)


def run(data: bytes) -> None:
    reader = Reader(data)
    files = dict(reader.choice(folders()))
    if reader.chance(2):
        files["index.json"] = forged_manifest(reader, files["index.json"])
    for _ in range(reader.below(3)):
        name = reader.choice(sorted(files))
        if reader.chance(8):
            del files[name]
            break
        files[name] = changed(reader, files[name])
    with tempfile.TemporaryDirectory() as place:
        for name, content in files.items():
            Path(place, name).write_bytes(content)
        for mmap in (True, False):
            index = None
            with allowed(OSError):
                index = BitIndex.load(place, mmap=mmap)
            if index is not None:
                _use(index)


def _use(index: BitIndex) -> None:
    """What an accepted index finds is in it, or its rows are refused when they are met."""
    ids = index.ids
    assert len(ids) == len(index) and (ids[1:] > ids[:-1]).all()
    assert (ids < index.next_id).all()
    queries = np.ones((2, index.k), bool)
    with allowed():
        distances, found = index.search(queries, 4)
        assert np.isin(found[found >= 0], ids).all()
        known = np.minimum(len(index), 4)
        assert (found[:, :known] >= 0).all() and (found[:, known:] == -1).all()
        assert (distances[:, :known] >= 0).all()
        assert index.within(queries, index.k).shape == (2, index.next_id)
        assert index.rows(ids).shape == (len(ids), index.k)
        index.add(queries)
        index.remove(ids)
        assert len(index) == len(queries)
