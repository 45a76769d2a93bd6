"""Target: `bitops.convert.from_torch` on any bytes, and on changed files of `torch.save`.

Some files hold pickles that call functions. None of these may run, which `CALLS` would tell.
"""

from __future__ import annotations

import functools
import io
import pickle
import tempfile
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bitops import layers as L
from bitops.convert import ConversionError, from_torch
from fuzz.limits import limits
from fuzz.reader import EDGES, Reader

CALLS: list[str] = []  # calls that a file made
SIZES = {
    "conv.weight": (3, 2, 3, 3),
    "bn.weight": (3,),
    "bn.bias": (3,),
    "bn.running_mean": (3,),
    "bn.running_var": (3,),
    "bn.num_batches_tracked": (),
    "fc.weight": (4, 12),
}
WORDS = b"conv", b"weight", b"cpu", b"FloatStorage", b"torch._utils", b"_rebuild_tensor_v2"
OTHERS = b"eval", b"os", b"system", b"LongStorage", b"cuda:0", b"_rebuild_sparse_tensor", b"", b"\0"


class Calling:
    """An object whose pickle calls a function."""

    def __init__(self, function: Any, *arguments: Any):
        self.made_by = function, arguments

    def __reduce__(self) -> Any:
        return self.made_by


def record(name: str = "") -> str:
    CALLS.append(name)
    return name


def state() -> dict[str, torch.Tensor]:
    rng = np.random.default_rng(0)
    return {name: torch.tensor(rng.uniform(0.5, 2, size)) for name, size in SIZES.items()}


@functools.cache
def files() -> list[bytes]:
    """Files of the form since PyTorch 1.6, also of half precision or within more, and before it."""
    half = {name: tensor.half() for name, tensor in state().items()}
    found = []
    for value, is_zip in (
        (state(), True),
        (half, True),
        ({"model": state()}, True),
        (state(), False),
    ):
        file = io.BytesIO()
        torch.save(value, file, _use_new_zipfile_serialization=is_zip)
        found.append(file.getvalue())
    return found


def layers() -> list[Any]:
    return [
        ("conv", L.Conv2D(2, 3, 3, bias=False, seed=0)),
        ("bn", L.BatchNorm(3)),
        L.Sign(),
        L.Flatten(),
        ("fc", L.BinaryDense(12, 4, seed=0)),
    ]


def run(data: bytes) -> None:
    reader = Reader(data)
    if reader.chance(16):
        _convert(reader.rest())
        return
    content = reader.choice(files())
    if zipfile.is_zipfile(io.BytesIO(content)):
        content = _zipped(reader, content)
    else:
        content = _changed(reader, content)
    _convert(_damaged(reader, content))


def _convert(content: bytes) -> None:
    named = layers()
    parameters = [
        p for part in named for p in (part[1] if type(part) is tuple else part).parameters()
    ]
    before = [p.version for p in parameters]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "net.pt")
        path.write_bytes(content)
        with limits():
            try:
                from_torch(path, named, input_shape=(4, 4, 2))
            except ConversionError as error:
                assert str(error).startswith("[from_torch] ")
                assert [p.version for p in parameters] == before, "a layer is half filled"
    assert not CALLS, "a file ran a function"


def _zipped(reader: Reader, content: bytes) -> bytes:
    """The zip file with another pickle in it, and other members, added, cut or left out."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    main = next(name for name in members if name.endswith("data.pkl"))
    if reader.chance(4):
        members[main] = pickle.dumps(_hostile(reader), 2)  # the protocol of torch.save
    else:
        members[main] = _changed(reader, members[main])
    for _ in range(reader.below(3)):
        name = reader.choice(list(members))
        match reader.below(5):
            case 0:
                del members[name]
            case 1:
                members[name] += bytes(reader.choice((1, 64, 1 << 16, 1 << 22)))
            case 2:
                members[name] = members[name][: reader.below(len(members[name]) + 1)]
            case 3:
                members[reader.choice(("../x", "/etc/x", "archive/data.pkl", "x/data/0"))] = b"x"
            case 4:
                members[name] = _changed(reader, members[name])
        if not members:
            break
    packed = io.BytesIO()
    kinds = zipfile.ZIP_STORED, zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED
    with zipfile.ZipFile(packed, "w", reader.choice(kinds)) as archive:
        for name, member in members.items():
            archive.writestr(name, member)
    return packed.getvalue()


def _changed(reader: Reader, content: bytes) -> bytes:
    """Bytes with up to eight changes: of single ones, of words, and of numbers of four bytes."""
    changed = bytearray(content)
    for _ in range(reader.below(9)):
        place = reader.below(1 << 16) % (len(changed) + 1)
        match reader.below(5):
            case 0:
                changed[place : place + 1] = bytes([reader.byte()])
            case 1:
                changed[place : place + 4] = (reader.choice(EDGES) % 2**32).to_bytes(4, "little")
            case 2:
                changed = changed.replace(reader.choice(WORDS), reader.choice(OTHERS + WORDS), 1)
            case 3:
                del changed[place : place + 1 + reader.below(8)]
            case 4:
                other = reader.below(1 << 16) % (len(changed) + 1)
                changed[place:place] = changed[other : other + reader.below(16)]
    return bytes(changed)


def _hostile(reader: Reader) -> Any:
    """What a pickle of a stranger might hold."""
    match reader.below(7):
        case 0:
            return Calling(record, "call")
        case 1:
            return {
                "conv.weight": Calling(eval, f"__import__({__name__!r}, fromlist='x').record()")
            }
        case 2:
            inner: Any = []
            for _ in range(reader.choice((3, 70, 300))):
                inner = [inner]
            return {"conv.weight": inner}
        case 3:
            return {name: np.zeros(size, np.float32) for name, size in SIZES.items()}
        case 4:
            return {1: 2, None: reader.choice(EDGES)}
        case 5:
            sizes = tuple(reader.choice(EDGES) for _ in range(reader.below(4)))
            return {"conv.weight": Calling(torch.zeros, *sizes)}
    return {"model": {"model": [Calling(torch.load, "/etc/passwd")]}}


def _damaged(reader: Reader, content: bytes) -> bytes:
    if reader.chance(6):
        place = reader.below(1 << 16) % (len(content) + 1)
        content = content[:place] + reader.take(reader.below(9)) + content[place + 1 :]
    if reader.chance(16):
        content = content[: reader.below(1 << 16) % (len(content) + 1)]
    return content
