"""Unpacks compressed files, which strangers may have made, within bounds."""

from __future__ import annotations

import io
import zipfile
import zlib
from collections.abc import Iterable

__all__ = ["most_unpacked", "read_zip"]

# +-1 as float32 shrinks 20 to 100 times.
_TIMES, _ALWAYS = 200, 2**20

_PLAIN = zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED  # what programs write that make such files

# NotImplementedError: compression that zipfile does not know; RuntimeError: encryption.
_DAMAGED = zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, OSError, RuntimeError


def most_unpacked(packed_bytes: int) -> int:
    """Return the bytes that so many packed bytes may unpack to."""
    return _TIMES * packed_bytes + _ALWAYS


def read_zip(data: bytes, names: Iterable[str] | None = None) -> dict[str, bytes]:
    """Return members of a zip file by name, all if none is named.

    Raises
    ------
    ValueError
        If the file is damaged or lacks a name, or if a member unpacks to far more than it takes.
    """
    members = {}
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            there = {entry.filename: entry for entry in archive.infolist()}
            for name in there if names is None else names:
                entry = there.get(name)
                if entry is None:
                    raise ValueError(f"the file must hold {name}")
                if entry.compress_type not in _PLAIN:
                    raise ValueError(f"{name} is compressed in an unusual way")
                if entry.file_size > most_unpacked(entry.compress_size):
                    raise ValueError(f"{name} unpacks to far more than it takes")
                members[name] = archive.read(entry)
    except _DAMAGED as error:
        raise ValueError(f"the zip file is damaged: {error}") from None
    return members
