"""Reads .npy and .npz files, which strangers may have made."""

from __future__ import annotations

import io
import math
import os
from pathlib import Path
from typing import BinaryIO

import numpy as np

from .reading import open_regular, read_regular
from .unpacking import read_zip

__all__ = ["map_npy", "npz_array", "read_npy", "read_npz"]

_HEADERS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}


def read_npy(where: str, path: str | os.PathLike) -> np.ndarray:
    """Return the array of a file; raises the errors of `read_npz`."""
    try:
        return _array("the array", read_regular(path))
    except ValueError as error:
        raise ValueError(f"[{where}] {path} must be a .npy file of numbers: {error}") from None


def map_npy(where: str, path: str | os.PathLike) -> np.ndarray:
    """Return the array of a file as a memory map to read; raises the errors of `read_npz`."""
    try:
        with open_regular(path) as file:
            size = os.fstat(file.fileno()).st_size
            shape, is_fortran, dtype = _read_header("the array", file, size)
            offset = file.tell()
            return np.memmap(file, dtype, "r", offset, shape, "F" if is_fortran else "C")
    except ValueError as error:
        raise ValueError(f"[{where}] {path} must be a .npy file of numbers: {error}") from None


def read_npz(where: str, path: str | os.PathLike) -> dict[str, np.ndarray]:
    """Return the arrays of a file by name; objects, which would run code, are refused.

    Raises
    ------
    OSError
        If the file cannot be read.
    ValueError
        If it is damaged, holds objects, or claims far more than it holds.
    """
    try:
        members = read_zip(read_regular(path))
        return {name.removesuffix(".npy"): _array(name, data) for name, data in members.items()}
    except ValueError as error:
        raise ValueError(f"[{where}] {path} must be a .npz file of numbers: {error}") from None


def npz_array(
    where: str, path: Path, name: str | None = None, *, usual: str | None = None
) -> np.ndarray:
    """Read an array of a .npz file: of this name, or else the usual one, or else the only one."""
    arrays = read_npz(where, path)
    if name is None:
        name = usual if usual in arrays or len(arrays) != 1 else next(iter(arrays))
    if name in arrays:
        return arrays[name]
    held = ", ".join(arrays) or "none"
    if usual is not None:
        raise ValueError(f"[{where}] {path} must hold an array {usual}, or only one, got {held}")
    raise ValueError(f"[{where}] --array must be one of {held}, got {name}")


def _array(name: str, data: bytes) -> np.ndarray:
    content = io.BytesIO(data)
    _read_header(name, content, len(data))
    content.seek(0)
    return np.lib.format.read_array(content)


def _read_header(name: str, file: BinaryIO, size: int) -> tuple[tuple[int, ...], bool, np.dtype]:
    """Return shape, whether in Fortran order, and dtype of an array in a file of some size."""
    version = np.lib.format.read_magic(file)
    if version not in _HEADERS:
        raise ValueError(f"{name} has the unknown version {version}")
    shape, is_fortran, dtype = _HEADERS[version](file)
    claims = math.prod(shape) * dtype.itemsize
    if dtype.hasobject or min(shape, default=0) < 0 or claims > size - file.tell():
        raise ValueError(f"{name} claims {shape} of {dtype}")
    return shape, is_fortran, dtype
