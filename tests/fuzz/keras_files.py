"""Targets: `from_keras` on any bytes, and on changed files of Keras 2 and Keras 3."""

from __future__ import annotations

import functools
import io
import json
import tempfile
import zipfile
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from random_keras import random_network

from bitops.convert import ConversionError, from_keras
from fuzz.documents import forge
from fuzz.limits import limits
from fuzz.reader import EDGES, Reader

SEEDS = (0, 1, 2, 3, 5, 7, 8, 11, 12, 14)
MEMBERS = "config.json", "model.weights.h5", "metadata.json"
WORDS = ("", "kernel", "/", "..", "model_weights", "layers", "vars", "0", "x" * 300)
DTYPES = ("<f2", "<f8", "<i8", "|u1", "S4", "<c8", "?", [("a", "<f4"), ("b", "<i4")])


@functools.cache
def files(kind: str) -> list[tuple[dict[str, Any], bytes]]:
    """Descriptions of networks and their files; for Keras 3 those of the weights alone."""
    found = []
    for seed in SEEDS:
        net = random_network(seed)[0]
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "net"
            if kind == "h5":
                net.write_h5(path)
                found.append((net.description(2), path.read_bytes()))
            else:
                net.write_keras(path)
                with zipfile.ZipFile(path) as archive:
                    found.append((net.description(3), archive.read("model.weights.h5")))
    return found


def run_h5(data: bytes) -> None:
    reader = Reader(data)
    if reader.chance(16):
        _convert(reader.rest())
        return
    description, content = reader.choice(files("h5"))
    text = json.dumps(_forged(reader, description)) if reader.chance(2) else None
    _convert(_damaged(reader, _changed(reader, content, text)))


def run_zip(data: bytes) -> None:
    reader = Reader(data)
    if reader.chance(16):
        _convert(b"PK" + reader.rest())
        return
    description, weights = reader.choice(files("keras"))
    if reader.chance(2):
        description = _forged(reader, description)
    else:
        weights = _damaged(reader, _changed(reader, weights, None))
    members = dict(zip(MEMBERS, (json.dumps(description).encode(), weights, b"{}"), strict=True))
    _convert(_damaged(reader, _zipped(reader, members)))


def _convert(content: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "net"
        path.write_bytes(content)
        with limits():
            try:
                model = from_keras(path)
            except ConversionError as error:
                assert str(error).startswith("[from_keras] ")
                return
            try:
                model.freeze()
            except (ValueError, TypeError) as error:  # e.g. what cannot become bits
                assert str(error)


def _forged(reader: Reader, description: dict[str, Any]) -> Any:
    if reader.chance(8):
        inner: Any = []
        for _ in range(reader.choice((3, 100, 900))):
            inner = [inner]
        return reader.choice((inner, {"class_name": "Sequential", "config": inner}, None, 3))
    return forge(reader, description, 4)


def _damaged(reader: Reader, content: bytes) -> bytes:
    if reader.chance(6):
        place = reader.below(1 << 16) % (len(content) + 1)
        content = content[:place] + reader.take(reader.below(9)) + content[place + 1 :]
    if reader.chance(16):
        content = content[: reader.below(1 << 16) % (len(content) + 1)]
    return content


def _zipped(reader: Reader, members: dict[str, bytes]) -> bytes:
    edit = reader.below(8)
    name = reader.choice(MEMBERS)
    if edit == 0:
        del members[name]
    elif edit == 1:
        members[name] += bytes(reader.choice((1 << 16, 1 << 22)))
    elif edit == 2:
        members[reader.choice(("../x", "/etc/x", "config.json/", ""))] = b"x"
    packed = io.BytesIO()
    level = reader.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2))
    with zipfile.ZipFile(packed, "w", level) as archive:
        for member, content in members.items():
            archive.writestr(member or "x", content)
    return packed.getvalue()


# HDF5


def _changed(reader: Reader, content: bytes, text: str | None) -> bytes:
    """A file with another description, if one is given, and up to three changed objects."""
    buffer = io.BytesIO(content)
    with h5py.File(buffer, "r+") as file:
        if text is not None:
            file.attrs["model_config"] = text
        for _ in range(reader.below(4)):
            groups, datasets = _objects(file)
            edit = reader.choice(EDITS)
            try:
                edit(reader, file, groups, datasets)
            except (ValueError, RuntimeError, OSError, TypeError, KeyError):
                pass  # HDF5 itself does not write everything
    return buffer.getvalue()


def _objects(file: Any) -> tuple[list[Any], list[Any]]:
    groups, datasets = [file], []

    def visit(name: str, found: Any) -> None:
        (datasets if isinstance(found, h5py.Dataset) else groups).append(found)

    file.visititems(visit)
    return groups, datasets


def _change_attribute(reader: Reader, file: Any, groups: list[Any], datasets: list[Any]) -> None:
    group = reader.choice(groups)
    name = reader.choice(("model_config", "weight_names", "weight_names"))
    kind = reader.below(8)
    value: Any = reader.choice(WORDS)
    if kind == 0 and name in group.attrs:
        del group.attrs[name]
        return
    if kind == 1:
        value = reader.choice((3, 2.5, True, np.zeros((2, 3)), np.array([], "S1")))
    elif kind == 2:
        value = file.ref
    elif kind == 3:
        value = h5py.Empty("S8")
    elif kind == 4:
        value = np.array([file.ref, file.ref], h5py.ref_dtype)
    elif kind == 5 and datasets:
        value = np.array([reader.choice(datasets).name] * (1 + reader.below(5)), "S")
    elif kind == 6:
        value = [reader.choice(WORDS) for _ in range(3)]
    group.attrs[name] = value


def _change_link(reader: Reader, file: Any, groups: list[Any], datasets: list[Any]) -> None:
    """A link elsewhere: outside of the file, in a circle, to nothing, or to another object."""
    group = reader.choice(groups)
    name = reader.choice([*group, "more"])
    if name in group:
        del group[name]
    kind = reader.below(6)
    if kind == 0:
        group[name] = h5py.ExternalLink("/etc/passwd", "/")
    elif kind == 1:
        group[name] = h5py.SoftLink(reader.choice(("/", "/no/such", "/model_weights", "..")))
    elif kind == 2:
        group[name] = reader.choice(groups)
    elif kind == 3 and datasets:
        group[name] = reader.choice(datasets)
    elif kind == 4:
        group.create_group(name)


def _change_dataset(reader: Reader, file: Any, groups: list[Any], datasets: list[Any]) -> None:
    datasets = [dataset for dataset in datasets if 0 < dataset.size < 1 << 20]
    if not datasets:
        return
    dataset = reader.choice(datasets)
    group, name, shape = dataset.parent, dataset.name.rsplit("/", 1)[1], dataset.shape
    values = dataset[()]
    kind = reader.below(9)
    if kind == 0:  # in place
        values = np.array(values, np.float32)
        values.ravel()[:: 1 + reader.below(3)] = reader.choice((np.nan, np.inf, 1e30, 0, -1))
        dataset[...] = values
        return
    del group[name]
    if kind == 1:
        group.create_dataset(name, _shape(reader), "f4", chunks=True)
    elif kind == 2:
        group.create_dataset(name, shape, "f4", external=[("/etc/passwd", 0, 1 << 20)])
    elif kind == 3:
        layout = h5py.VirtualLayout(shape, "f4")
        layout[...] = h5py.VirtualSource("/etc/passwd", "x", shape)
        group.create_virtual_dataset(name, layout)
    elif kind == 4:
        group.create_dataset(name, data=np.resize(np.asarray(values), (2,)), dtype=h5py.ref_dtype)
    elif kind == 5:
        group.create_dataset(name, shape, reader.choice(DTYPES))
    elif kind == 6:
        size = reader.choice((1 << 10, 1 << 16, 1 << 20))
        group.create_dataset(name, data=np.zeros(size, np.float32), compression="gzip")
    else:
        sizes = [reader.choice((0, 1, 2, 3, 4, 8)) for _ in range(reader.below(5))]
        group[name] = np.zeros(sizes, np.float32)


def _shape(reader: Reader) -> tuple[int, ...]:
    sizes = [max(min(abs(reader.choice(EDGES)), 2**40), 1) for _ in range(1 + reader.below(3))]
    return tuple(sizes)


EDITS = (_change_attribute, _change_link, _change_dataset, _change_dataset)
