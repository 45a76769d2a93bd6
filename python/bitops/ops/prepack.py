"""Weights in register panels, and the checks of packed operands."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .. import _core
from .array import BitArray, contiguous_rows, pack_operand
from .geometry import make_window
from .memory import WORD_BITS, word_count

__all__ = ["Prepacked", "prepack"]

MAX_DERIVED = 256  # so that settings for images of ever new sizes do not pile up


class Prepacked:
    """Packed weights whose rows stand in the register panels of the ISA in force.

    Made by `prepack`; opaque, never saved. Takes the place of `w` in the products (a matrix) or in
    the convolutions (filters). If another ISA is put in force, the panels are made anew at the next
    use.

    Attributes
    ----------
    shape : tuple of int
        (n, k), or (o, kh, kw, i) of filters, in elements.
    nbytes : int
        Bytes of the panels.
    """

    __slots__ = ("_bits", "_derived", "_isa")

    def __init__(self, w: ArrayLike | BitArray) -> None:
        bits = rows_operand("prepack", "w", w)
        if bits.ndim not in (2, 4):
            raise ValueError(
                f"[prepack] w must have shape (n, k) or (o, kh, kw, i), got {bits.shape}"
            )
        if 0 in bits.shape[1:-1]:
            raise ValueError(f"[prepack] kh and kw must be at least 1, got shape {bits.shape}")
        self._bits = bits
        self._derived: dict[Any, Any] = {}
        self._isa = ""
        self.panels()

    @property
    def shape(self) -> tuple[int, ...]:
        return self._bits.shape

    @property
    def nbytes(self) -> int:
        return self.panels().nbytes

    @property
    def bits(self) -> BitArray:
        """The weights the panels were made from."""
        return self._bits

    def derived(self, key: Any, make: Callable[..., Any], *arguments: Any) -> Any:
        """What `make` derives from the weights for the ISA in force: made once for each key."""
        isa = _core.isa_active()
        if self._isa != isa or len(self._derived) > MAX_DERIVED:
            self._derived.clear()
            self._isa = isa
        value = self._derived.get(key)
        if value is None:
            value = self._derived[key] = make(*arguments)
        return value

    def rows(self) -> NDArray[np.uint64]:
        """The weights as a matrix of words; the bits of a filter follow each other without gaps."""
        return self.derived("rows", lambda: filter_rows(self._bits))

    def panels(self, groups: int = 1) -> _core.Panels:
        """Panels for the ISA in force, each of `groups` equal parts of the rows with its own."""
        return self.derived(("panels", groups), lambda: _core.Panels(self.rows(), groups))

    def __repr__(self) -> str:
        return f"Prepacked(shape={self.shape}, {self.nbytes} bytes, isa={self._isa})"


def filter_rows(w: BitArray) -> NDArray[np.uint64]:
    """Words of weights, a row for each of the first axis, with the bits of all others in order.

    A matrix (n, k), or filters (o, kh, kw, i), whose rows become those of their im2col matrix.
    """
    if w.ndim == 2:
        return contiguous_rows(w)
    o, kh, kw, channels = w.shape
    words = np.ascontiguousarray(w.words)
    if channels % WORD_BITS == 0:
        return words.reshape(o, kh * kw * words.shape[-1])
    rows = np.empty((o, word_count(kh * kw * channels)), np.uint64)
    _core.im2col(words, make_window("prepack", (kh, kw), (kh, kw)), channels, False, rows)
    return rows


def prepack(w: ArrayLike | BitArray) -> Prepacked:
    """Order weights into register panels, once for many products or convolutions.

    Parameters
    ----------
    w : BitArray of shape (n, k), or of filters (o, kh, kw, i), packed along the last axis
        Or array_like of real numbers, packed by sign.

    Returns
    -------
    Prepacked
        To be passed as `w` to `gemm`, `gemm_sign`, `hamming` and their kin, or, made of filters, to
        `conv2d` and its kin.

    Raises
    ------
    TypeError, ValueError
        As in `pack`, or if `w` does not have one of these shapes, packed along its last axis.
    """
    return Prepacked(w)


def rows_operand(where: str, name: str, x: ArrayLike | BitArray) -> BitArray:
    """An operand as bits along the last of at least two axes."""
    if isinstance(x, Prepacked):
        raise TypeError(f"[{where}] {name} must be an array, got Prepacked")
    if isinstance(x, BitArray):
        bits = x
    else:
        bits = pack_operand(where, name, x, -1)
    if bits.ndim < 2:
        raise ValueError(f"[{where}] {name} must have at least two axes, got shape {bits.shape}")
    if bits.axis != bits.ndim - 1:
        raise ValueError(
            f"[{where}] {name} must be packed along its last axis, "
            f"got packed axis {bits.axis} of shape {bits.shape}"
        )
    return bits


def weights_matrix(where: str, name: str, w: ArrayLike | BitArray | Prepacked) -> BitArray:
    """The right operand as bits; prepacked filters of a convolution are none."""
    if not isinstance(w, Prepacked):
        return rows_operand(where, name, w)
    if w.bits.ndim != 2:
        raise ValueError(f"[{where}] {name} must be a prepacked matrix, got shape {w.shape}")
    return w.bits
