"""Reads .npy and .npz files, which strangers may have made."""

from __future__ import annotations

import io
import math
import os

import numpy as np

from .reading import read_regular
from .unpacking import read_zip

__all__ = ["read_npy", "read_npz"]

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


def _array(name: str, data: bytes) -> np.ndarray:
    content = io.BytesIO(data)
    version = np.lib.format.read_magic(content)
    if version not in _HEADERS:
        raise ValueError(f"{name} has the unknown version {version}")
    shape, _, dtype = _HEADERS[version](content)
    if dtype.hasobject or math.prod(shape) * dtype.itemsize > len(data):
        raise ValueError(f"{name} claims {shape} of {dtype}")
    content.seek(0)
    return np.lib.format.read_array(content)
