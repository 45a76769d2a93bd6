"""A reader of numeric arrays in MATLAB 5 and 7.3 files, as far as SVHN needs it.

`scipy.io.loadmat` is not used because damaged files make it read memory out of bounds and crash.
It does not read version 7.3, which is HDF5 behind 512 bytes with MATLAB's header.
"""

from __future__ import annotations

import io
import math
import struct
import zlib
from collections.abc import Iterator
from typing import Any

import numpy as np

from ..files.hdf5 import DAMAGED, child, read_numbers

__all__ = ["read_arrays"]

MAX_BYTES = 1 << 31  # of an array, decompressed
# The dtypes in which values are stored, by the type of their element. An array may store small
# values in a smaller dtype than its own.
_NUMBERS = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8"}
_NUMBERS |= {13: "u8"}
# The dtypes of arrays, by their class.
_CLASSES = {6: "f8", 7: "f4", 8: "i1", 9: "u1", 10: "i2", 11: "u2", 12: "i4", 13: "u4"}
_CLASSES |= {14: "i8", 15: "u8"}
_NAME, _LENGTHS, _FLAGS, _MATRIX, _COMPRESSED = 1, 5, 6, 14, 15  # types of elements
_COMPLEX = 0x800  # a bit of the flags
# The dtypes of arrays in version 7.3, by the names of the same classes.
_CLASS_NAMES = {"double": "f8", "single": "f4"}
_CLASS_NAMES |= {f"int{8 * size}": f"i{size}" for size in (1, 2, 4, 8)}
_CLASS_NAMES |= {f"uint{8 * size}": f"u{size}" for size in (1, 2, 4, 8)}
_NAME, _LENGTHS, _FLAGS, _MATRIX, _COMPRESSED = 1, 5, 6, 14, 15  # types of elements
_COMPLEX = 0x800  # a bit of the flags
# The dtypes of arrays in version 7.3, by the names of the same classes.
_CLASS_NAMES = {"double": "f8", "single": "f4"}
_CLASS_NAMES |= {
    f"{u}int{8 * size}": f"{u or 'i'}{size}" for u in ("", "u") for size in (1, 2, 4, 8)
}


def read_arrays(data: bytes, names: tuple[str, ...]) -> dict[str, np.ndarray]:
    """Read those arrays of real numbers that have one of these names.

    Parameters
    ----------
    data : bytes
        The whole file.
    names : tuple of str

    Returns
    -------
    dict of ndarray
        The arrays by name, in Fortran order and native byte order. Names that the file does not
        have are left out.

    Raises
    ------
    ImportError
        If the version is 7.3, and h5py is not installed.
    ValueError
        If the file is damaged or has another version, or one of these arrays does not hold real
        numbers.

    Notes
    -----
    In version 7.3 an array is an HDF5 dataset, whose axes are those of MATLAB in reverse. In
    version 5 a file is a header and a sequence of elements. Each element has a type, a number of
    bytes, and contents. Its contents are an array, or an element compressed with zlib. The contents
    of an array are elements again, each padded to 8 bytes::

        file      text (124 bytes), version (2), byte order (2), element, element, ...
        element   type (4 bytes), size (4), contents (size)
                  type and size (2 + 2), contents (4)       if these are at most 4 bytes
        array     flags and class, lengths of axes, name, numbers
    """
    orders = {b"\0\1IM": "<", b"\1\0MI": ">"}
    version = data[124:128]
    if version in (b"\0\2IM", b"\2\0MI"):
        return _read_hdf5(data, names)
    order = orders.get(version)
    if order is None:
        raise ValueError(f"the header must be that of MATLAB 5 or 7.3, got {version.hex(' ')!r}")
    found = {}
    for kind, content in _elements(memoryview(data)[128:], order, padded=False):
        if kind == _COMPRESSED:
            kind, content = _decompressed(content, order)
        if kind == _MATRIX:
            name, array = _array(content, order, names)
            if array is not None:
                found[name] = array
    return found


def _elements(data: memoryview, order: str, padded: bool) -> Iterator[tuple[int, memoryview]]:
    """Yield the type and the contents of each element."""
    while len(data):
        if len(data) < 8:
            raise ValueError(f"an element must have at least 8 bytes, got {len(data)}")
        kind, size = struct.unpack_from(f"{order}II", data)
        start = 8
        if kind >> 16:  # a small element, with its contents in the same 8 bytes
            kind, size, start = kind & 0xFFFF, kind >> 16, 4
            if size > 4:
                raise ValueError(f"a small element must have at most 4 bytes, got {size}")
        content = data[start : start + size]
        if len(content) < size:
            raise ValueError(f"an element must have {size} bytes, got {len(content)}")
        yield kind, content
        data = data[8:] if start == 4 else data[8 + (size + 7) // 8 * 8 if padded else 8 + size :]


def _decompressed(packed: memoryview, order: str) -> tuple[int, memoryview]:
    """Decompress an element, to no more bytes than its head says."""
    stream = zlib.decompressobj()
    try:
        head = stream.decompress(packed, 8)
        if len(head) < 8:
            raise ValueError(f"a compressed element must have at least 8 bytes, got {len(head)}")
        kind, size = struct.unpack(f"{order}II", head)
        if not 0 < size <= MAX_BYTES:
            raise ValueError(f"a compressed element must have 1 to {MAX_BYTES} bytes, got {size}")
        content = stream.decompress(stream.unconsumed_tail, size)
        rest = stream.decompress(stream.unconsumed_tail, 1)  # reads the checksum
    except zlib.error as error:
        raise ValueError(f"a compressed element must be valid: {error}") from error
    if len(content) < size or rest or not stream.eof:
        raise ValueError(
            f"a compressed element must have {size} bytes and a checksum, "
            f"got {'more' if rest else len(content)} bytes"
        )
    return kind, memoryview(content)


def _array(
    content: memoryview, order: str, names: tuple[str, ...]
) -> tuple[str, np.ndarray | None]:
    """Return the name and the values of an array; None instead of values if it is not wanted."""
    parts = _elements(content, order, padded=True)
    head = [next(parts, (0, memoryview(b""))) for _ in range(3)]
    (flags_type, flags), (lengths_type, lengths), (name_type, label) = head
    if (flags_type, lengths_type, name_type) != (_FLAGS, _LENGTHS, _NAME) or len(flags) != 8:
        raise ValueError(
            "an array must begin with flags, lengths and a name, "
            f"got elements of types {flags_type}, {lengths_type} and {name_type}"
        )
    name = bytes(label).decode("latin-1")
    if name not in names:
        return name, None
    word = struct.unpack_from(f"{order}I", flags)[0]
    dtype = _CLASSES.get(word & 0xFF)
    kind, numbers = next(parts, (0, memoryview(b"")))
    stored = _NUMBERS.get(kind)
    if dtype is None or stored is None or word & _COMPLEX:
        raise ValueError(f"{name} must be an array of real numbers, got class {word & 0xFFF:#x}")
    values = np.frombuffer(numbers, f"{order}{stored}")
    shape = [int(length) for length in np.frombuffer(lengths, f"{order}i4")]
    if len(shape) < 2 or len(shape) > 4 or min(shape) < 0 or math.prod(shape) != values.size:
        raise ValueError(
            f"{name} must have 2 to 4 axes that fit its {values.size} numbers, got shape {shape}"
        )
    return name, values.astype(dtype, copy=False).reshape(shape, order="F")


def _read_hdf5(data: bytes, names: tuple[str, ...]) -> dict[str, np.ndarray]:
    """Read arrays of a file of version 7.3."""
    try:
        import h5py
    except ImportError:
        raise ImportError("MATLAB 7.3 files need h5py: pip install h5py") from None
    try:
        with h5py.File(io.BytesIO(data), "r") as file:
            there = [name for name in names if name in file]
            return {name: _hdf5_array(name, child(file, name), len(data)) for name in there}
    except DAMAGED as error:
        raise ValueError(f"its HDF5 part is damaged: {error}") from None


def _hdf5_array(name: str, dataset: Any, file_bytes: int) -> np.ndarray:
    """Return the values of a dataset as MATLAB shapes them."""
    label = dataset.attrs.get("MATLAB_class", b"")
    words = label.decode("latin-1") if isinstance(label, bytes) else str(label)
    dtype = _CLASS_NAMES.get(words)
    if dtype is None or any(f"MATLAB_{word}" in dataset.attrs for word in ("sparse", "empty")):
        raise ValueError(f"{name} must be an array of real numbers, got class {words!r:.80}")
    values = read_numbers(dataset, file_bytes)
    if not 2 <= values.ndim <= 4:
        raise ValueError(f"{name} must have 2 to 4 axes, got shape {values.shape[::-1]}")
    return values.T.astype(dtype, copy=False)
