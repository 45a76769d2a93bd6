"""Reads HDF5 files, which strangers may have made, with h5py, which is imported only then."""

from __future__ import annotations

from typing import Any

import numpy as np

from .unpacking import most_unpacked

__all__ = ["DAMAGED", "child", "group", "read_numbers"]

# What h5py raises on damaged files has no base class of its own.
DAMAGED = OSError, RuntimeError, KeyError, OverflowError, TypeError


def child(parent: Any, name: str) -> Any:
    """Return a child of a group, never one in another file; raises ValueError without it."""
    import h5py

    if not isinstance(parent, h5py.Group):
        raise ValueError(f"{parent.name} must be a group")
    if not isinstance(parent.get(name, getlink=True), h5py.HardLink):
        raise ValueError(f"the file must hold {name!r} itself")
    return parent[name]


def group(parent: Any, name: str) -> Any:
    """Return a child that is a group, as `child` does.

    A dataset in its place can be asked what it contains as well, and may hold far more than fits
    the file.
    """
    import h5py

    found = child(parent, name)
    if not isinstance(found, h5py.Group):
        raise ValueError(f"{found.name} must be a group")
    return found


def read_numbers(dataset: Any, file_bytes: int) -> np.ndarray:
    """Return a dataset of real numbers in a file of some size; raises ValueError on others."""
    import h5py

    if not isinstance(dataset, h5py.Dataset):
        raise ValueError(f"{dataset.name} must be a dataset")
    if dataset.external or dataset.is_virtual or dataset.dtype.kind not in "fiu":
        raise ValueError(f"{dataset.name} must be numbers in the file itself")
    if dataset.nbytes > most_unpacked(file_bytes):
        raise ValueError(f"{dataset.name} is far larger than the file")
    return np.asarray(dataset[()])
