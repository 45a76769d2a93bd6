"""Reads .npz files, which strangers may have made."""

from __future__ import annotations

import io
import math
import os
import zipfile
import zlib

import numpy as np

from .reading import read_regular

__all__ = ["read_npz"]

# A compressed array may take so many times its bytes in the file.
_MOST_UNPACKED, _ALWAYS_UNPACKED = 1000, 2**20
_HEADERS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}


def read_npz(where: str, path: str | os.PathLike) -> dict[str, np.ndarray]:
    """Return the arrays of a file by name; objects, which would run code, are refused.

    Raises
    ------
    OSError
        If the file cannot be read.
    ValueError
        If it is damaged, holds objects, or claims far more than it holds.
    """
    data = read_regular(path)
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            return {
                entry.filename.removesuffix(".npy"): _array(archive, entry)
                for entry in archive.infolist()
            }
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        raise ValueError(f"[{where}] {path} must be a .npz file: {error}") from None
    except ValueError as error:
        raise ValueError(f"[{where}] {path} must hold arrays of numbers: {error}") from None


def _array(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> np.ndarray:
    if entry.file_size > _MOST_UNPACKED * entry.compress_size + _ALWAYS_UNPACKED:
        raise ValueError(f"{entry.filename} unpacks to far more than it takes")
    content = io.BytesIO(archive.read(entry))
    version = np.lib.format.read_magic(content)
    if version not in _HEADERS:
        raise ValueError(f"{entry.filename} has the unknown version {version}")
    shape, _, dtype = _HEADERS[version](content)
    if dtype.hasobject or math.prod(shape) * dtype.itemsize > entry.file_size:
        raise ValueError(f"{entry.filename} claims {shape} of {dtype}")
    content.seek(0)
    return np.lib.format.read_array(content)
