"""Files of arrays: safetensors with a JSON description and a checksum.

The format is read here rather than by the library, whose memory maps end the process if another
one shortens the file meanwhile, and whose parser may end it where memory is limited.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import safetensors.numpy

from .reading import open_regular
from .writing import write_file

__all__ = [
    "MALFORMED",
    "MAX_DESCRIPTION",
    "TensorFile",
    "digest",
    "names_format",
    "open_tensors",
    "parse_json",
    "write_tensors",
]

# Most bytes of a description. Real ones have thousands; parsed JSON takes many times its length.
MAX_DESCRIPTION = 2**24
MAX_HEADER = 2**25  # with the description, every quote of which takes two bytes
MAX_AXES = 32
MAX_SIZE = 2**63 - 1

# What content of an unexpected form may raise, where it is taken as it comes.
MALFORMED = (
    ValueError,
    TypeError,
    ArithmeticError,
    AttributeError,
    LookupError,
    RecursionError,
)

DTYPES = {
    **{"BOOL": "?", "U8": "u1", "U16": "<u2", "U32": "<u4", "U64": "<u8", "I8": "i1"},
    **{"I16": "<i2", "I32": "<i4", "I64": "<i8", "F16": "<f2", "F32": "<f4", "F64": "<f8"},
}

Shape = tuple[int, ...]


def write_tensors(
    where: str, path: Path, description: dict[str, Any], tensors: Mapping[str, np.ndarray]
) -> None:
    """Write arrays, with their description and its `sha256` as the metadata entry `bitops`."""
    text = json.dumps({**description, "sha256": digest(description, tensors)})
    _check_length(text)
    # A single entry: safetensors would write several in an order that changes from call to call.
    data = safetensors.numpy.save(dict(tensors), {"bitops": text})
    _check_header(int.from_bytes(data[:8], "little"))
    write_file(where, path, data)


def digest(description: Mapping[str, Any], tensors: Mapping[str, np.ndarray]) -> str:
    """Return the SHA-256 of all arrays and of their description without its `sha256`."""
    described = {key: value for key, value in description.items() if key != "sha256"}
    result = hashlib.sha256(json.dumps(described, sort_keys=True).encode())
    for name in sorted(tensors):
        array = tensors[name]
        result.update(f"{name} {array.dtype.name} {array.shape}".encode())
        # The bytes are in little-endian order, as in the file.
        array = array.astype(array.dtype.newbyteorder("<"), copy=False)
        result.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
    return result.hexdigest()


@contextmanager
def open_tensors(path: str | os.PathLike, name: str) -> Iterator[TensorFile]:
    """Open a file of the format `name`; its errors are OSError and those of MALFORMED."""
    with open_regular(path) as file:
        yield TensorFile(file, name)


class TensorFile:
    """An open file of arrays, whose header has been read and checked.

    It takes memory in proportion to the file: arrays must fill it exactly, and are read one after
    the other to where they stay.

    Attributes
    ----------
    description : dict
    entries : dict of str to tuple
        For each array, in the order of the file, the dtype as safetensors calls it and the shape.
    """

    def __init__(self, file: BinaryIO, name: str):
        self._file = file
        self.description, header = _read_header(file, name)
        size = os.fstat(file.fileno()).st_size
        self.entries = _check_entries(header, size - file.tell())

    def read(self) -> dict[str, np.ndarray]:
        """Read all arrays, and check that they and the description are undamaged."""
        tensors = {}
        for name, (dtype, shape) in self.entries.items():
            array = tensors[name] = np.empty(shape, DTYPES[dtype])
            content = array.reshape(-1).view(np.uint8)
            if content.size and self._file.readinto(content.data) != content.size:  # type: ignore[attr-defined]
                raise ValueError(f"tensor {name} must be complete, got fewer bytes")
            if dtype == "BOOL" and content.size and content.max() > 1:
                raise ValueError(f"tensor {name} must hold the bytes 0 and 1, got {content.max()}")
        if self.description.get("sha256") != digest(self.description, tensors):
            raise ValueError("sha256 must match the content, got another one")
        return tensors


def names_format(path: str | os.PathLike, name: str) -> bool:
    """Return whether the header of a file names a format; what follows it may be damaged."""
    with open_regular(path) as file:
        try:
            _read_header(file, name)
        except MALFORMED:
            return False
    return True


def _read_header(file: BinaryIO, name: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the description, and what the header has of each array, which is not checked."""
    size = os.fstat(file.fileno()).st_size
    start = file.read(8)
    length = int.from_bytes(start, "little")
    if len(start) < 8 or length > size - 8:
        raise ValueError(f"the file must hold its length and a header, got {size} bytes")
    _check_header(length)
    header = parse_json(file.read(length).decode())
    metadata = header.pop("__metadata__", {}) if isinstance(header, dict) else None
    if not isinstance(metadata, dict):
        raise ValueError(f"the header must be an object, with metadata, got {header!r:.80}")
    description = _parse_description(metadata.get("bitops", ""), name)
    if set(metadata) != {"bitops"}:
        raise ValueError(f"metadata must be bitops alone, got {list(metadata)!r:.80}")
    return description, header


def _check_header(length: int) -> None:
    if length > MAX_HEADER:
        raise ValueError(f"the header must have at most {MAX_HEADER} bytes, got {length}")


def _check_entries(header: Any, size: int) -> dict[str, tuple[str, Shape]]:
    """Check that arrays of known dtypes fill the rest of the file; sort them by their place."""
    places = []
    for name, entry in header.items():
        if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
            raise ValueError(f"tensor {name} must have dtype, shape and offsets, got {entry!r:.80}")
        dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
        if not isinstance(dtype, str) or dtype not in DTYPES:
            raise ValueError(f"dtype of {name} must be from {list(DTYPES)}, got {dtype!r:.80}")
        if not _are_sizes(shape) or not _are_sizes(offsets) or len(offsets) != 2:
            raise ValueError(f"shape and offsets of {name} must be sizes, got {entry!r:.80}")
        if offsets[1] - offsets[0] != math.prod(shape) * np.dtype(DTYPES[dtype]).itemsize:
            raise ValueError(f"tensor {name} must have the bytes of its shape, got {entry!r:.80}")
        places.append((offsets[0], offsets[1], name, dtype, tuple(shape)))
    end = 0
    for first, last, name, _, _ in sorted(places):
        if first != end:
            raise ValueError(f"tensor {name} must start at byte {end}, got {first}")
        end = last
    if end != size:
        raise ValueError(f"tensors must fill the {size} bytes of the file, got {end}")
    return {name: (dtype, shape) for _, _, name, dtype, shape in sorted(places)}


def _are_sizes(numbers: Any) -> bool:
    return (
        isinstance(numbers, list)
        and len(numbers) <= MAX_AXES
        and all(type(number) is int and 0 <= number <= MAX_SIZE for number in numbers)
    )


def parse_json(text: str) -> Any:
    """Parse JSON in which no object has a key twice; any text gives a value or a ValueError."""
    try:
        return json.loads(text, object_pairs_hook=_unique)
    except RecursionError:
        raise ValueError("JSON must be nested less deep") from None


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        (key, _), *_ = Counter(key for key, _ in pairs).most_common(1)
        raise ValueError(f"keys must be unique, got {key!r:.80} twice")
    return made


def _parse_description(text: str, name: str) -> dict[str, Any]:
    """Parse the metadata entry `bitops` of a file whose format must be `name`."""
    _check_length(text)
    try:
        document = parse_json(text)
    except ValueError as error:
        raise ValueError(f"metadata bitops must be JSON, got {text[:80]!r}: {error}") from None
    if not isinstance(document, dict) or document.get("format") != name:
        raise ValueError(f"format must be {name}, got {text[:80]!r}")
    return document


def _check_length(text: str) -> None:
    if len(text) > MAX_DESCRIPTION:
        raise ValueError(f"metadata must have at most {MAX_DESCRIPTION} bytes, got {len(text)}")
