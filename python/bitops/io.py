"""Model files: packed words, thresholds, flips and scales as safetensors, the graph as JSON.

Notes
-----
A file holds the arrays of a `Packed` model as tensors named `<layer index>.<field>`: bits (weight,
flip, minimum) as uint64 words, bit i of the last axis in bit i % 64 of word i // 64; thresholds as
int32 or float32, the others as their class says, those of this package as float32. Inside a
residual block the name goes on, as `3.body.0.weight`.

The metadata entry `bitops` is JSON with `format`, `version`, `input_shape` (null if not known),
`graph`, perhaps `notes` (strings by name), and `sha256` over these and all tensors. `graph` lists
the layers, each with `type`, `fields` (the logical shape of each array that there is) and
`settings` (the other arguments of its constructor). A residual block has `type`, `body` and
`shortcut`, lists of layers too, the latter null for the identity.

Nothing in a file is executed or imported: a type of layer must be registered by the program that
loads it.
"""

from __future__ import annotations

import os

from .layers import Packed
from .layers.registry import ArraySpec, register

__all__ = ["ArraySpec", "load", "register", "save"]


def save(model: Packed, path: str | os.PathLike) -> None:
    """Write a packed model to a file.

    The file appears whole or not at all: it is written beside `path` and then renamed, so that a
    model already there survives a failure. The same model always gives the same bytes.

    Parameters
    ----------
    model : Packed
    path : path
        Replaced if it exists. A link stays, and its target is replaced; the mode is kept.

    Raises
    ------
    OSError
        If the file cannot be written. What was there before stays.
    TypeError
        If `model` is no packed model, or a layer is of a class that is not registered.
    ValueError
        If `load` would refuse the file, or if `path` is that of a FIFO, a socket or a device.
    """
    if not isinstance(model, Packed):
        raise TypeError(f"[save] model must be a Packed, got {type(model).__name__}")
    model.save(path)


def load(path: str | os.PathLike) -> Packed:
    """Read a packed model from a file that `save` wrote, in this or an earlier format.

    Parameters
    ----------
    path : path

    Returns
    -------
    Packed

    Raises
    ------
    OSError
        If the file cannot be opened.
    ValueError
        If it is truncated, damaged, no packed model, or no regular file, or if a type of layer is
        not registered. Everything is checked before any layer is built.
    """
    return Packed.load(path)
