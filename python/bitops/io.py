"""Saves packed models as safetensors files, and loads them.

Notes
-----
A file holds the arrays of a `Packed` model as tensors named `<layer index>.<field>`, and inside a
residual block `3.body.0.weight`:

    arrays of bits      uint64 words (packed weight, flip, minimum); element i of the last axis is
                        bit i % 64 of word i // 64
    threshold           int32 or float32
    other arrays        the dtype that the class declares, float32 in this package

The metadata entry `bitops` is JSON:

    format, version
    input_shape     shape of one example, or null if it is not known
    graph           list of layers, each with
                        type        name of the class
                        fields      logical shape of each array that the layer has
                        settings    other arguments of the constructor
                    or, for a residual block, with type, body and shortcut; these are lists of
                    layers, and a shortcut of null is the identity
    notes           optional; strings by name
    sha256          of all of this and all tensors

Nothing in a file is executed or imported. The program that loads a file must have registered the
types of its layers.
"""

from __future__ import annotations

import os

from .layers import Packed
from .layers.registry import ArraySpec, register

__all__ = ["ArraySpec", "load", "register", "save"]


def save(model: Packed, path: str | os.PathLike) -> None:
    """Write a packed model to a file.

    The file appears whole or not at all. It is written beside `path` and then renamed, so that a
    failure leaves an existing model intact. The same model always gives the same bytes.

    Parameters
    ----------
    model : Packed
    path : path
        An existing file is replaced; a symbolic link stays, and its target is replaced. The mode
        is kept.

    Raises
    ------
    OSError
        If the file cannot be written. What was there before stays.
    TypeError
        If `model` is not a packed model, or if the class of a layer is not registered.
    ValueError
        If `load` would refuse the file, or if `path` is that of a FIFO, a socket or a device.

    Examples
    --------
    >>> import numpy as np
    >>> import tempfile
    >>> from bitops.layers import PackedDense
    >>> net = Packed(PackedDense(np.ones((3, 8))))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save(net, f"{folder}/net.safetensors")
    ...     print(load(f"{folder}/net.safetensors").layers)
    [PackedDense(8, 3)]
    """
    if not isinstance(model, Packed):
        raise TypeError(f"[save] model must be a Packed, got {type(model).__name__}")
    model.save(path)


def load(path: str | os.PathLike) -> Packed:
    """Read a packed model from a file that `save` wrote, in this or an earlier version.

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
        If it is truncated, damaged, not a packed model or not a regular file, or if a type of layer
        is not registered. All this is checked before any layer is built.

    Examples
    --------
    >>> net = load("net.safetensors")  # doctest: +SKIP
    >>> net.predict(images)  # doctest: +SKIP
    """
    return Packed.load(path)
