"""Weights in register panels, and checks of packed operands."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .. import _core
from .array import BitArray, pack_operand
from .geometry import make_window
from .memory import WORD_BITS, word_count
from .packing import contiguous_rows

__all__ = ["Prepacked", "prepack"]


class Prepacked(_core.Weights):
    """Packed weights, laid out in the register panels of the active ISA.

    Create one with `prepack`, and pass it as `w`: a matrix to the products, filters to the
    convolutions. Its contents are opaque and never saved. If the active ISA changes, the next use
    rebuilds the panels.

    Attributes
    ----------
    shape : tuple of int
        (n, k) of a matrix, (o, kh, kw, i) of filters, in elements.
    nbytes : int
        Bytes of the panels.

    Examples
    --------
    >>> from bitops import gemm
    >>> w = Prepacked([[1.0, -1.0, 1.0], [1.0, 1.0, 1.0]])
    >>> gemm([[2.0, -3.0, 4.0]], w)
    array([[3, 1]], dtype=int32)
    """

    __slots__ = ()

    def __init__(self, w: ArrayLike | BitArray) -> None:
        bits = rows_operand("prepack", "w", w)
        if bits.ndim not in (2, 4):
            raise ValueError(
                f"[prepack] w must have shape (n, k) or (o, kh, kw, i), got {bits.shape}"
            )
        if 0 in bits.shape[1:-1]:
            raise ValueError(f"[prepack] kh and kw must be at least 1, got shape {bits.shape}")
        # Words of its own, which `bits` shows and nobody writes: one object gives one answer.
        own = bits.copy() if isinstance(w, BitArray) else bits
        own._words.flags.writeable = False
        super().__init__(own)
        self.panels()

    @property
    def shape(self) -> tuple[int, ...]:
        return self.bits.shape

    @property
    def nbytes(self) -> int:
        return self.panels().nbytes

    def rows(self) -> NDArray[np.uint64]:
        """Return the words of the weights as a matrix (see `filter_rows`)."""
        return self.derived("rows", lambda: filter_rows(self.bits))

    def panels(self, groups: int = 1) -> _core.Panels:
        """Return panels for the active ISA, separate ones for each of `groups` parts of rows."""
        return self.derived(("panels", groups), lambda: _core.Panels(self.rows(), groups))

    def lookup_panels(self) -> _core.LookupPanels:
        """Return the rows in the order of products with numbers, for the active ISA."""
        return self.derived("lookup", lambda: _core.LookupPanels(self.rows()))

    def __reduce__(self) -> tuple[Any, ...]:
        return prepack, (self.bits,)  # panels are those of one ISA, and made again

    def __repr__(self) -> str:
        return f"Prepacked(shape={self.shape}, {self.nbytes} bytes, isa={self.panels().isa_name})"


def filter_rows(w: BitArray) -> NDArray[np.uint64]:
    """Return the words of a matrix (n, k) or of filters (o, kh, kw, i), one row per filter.

    The bits of a filter follow each other without gaps, in the order of `im2col`. For example, in a
    row of 2 x 2 taps of 40 channels::

        word 0    tap 0: channels 0..39, tap 1: 0..23
        word 1    tap 1: 24..39, tap 2: 0..39, tap 3: 0..7
        word 2    tap 3: 8..39, then 32 padding bits
    """
    if w.ndim == 2:
        return contiguous_rows(w)
    o, kh, kw, channels = w.shape
    words = np.ascontiguousarray(w._words)
    if channels % WORD_BITS == 0:
        return words.reshape(o, kh * kw * words.shape[-1])
    rows = np.empty((o, word_count(kh * kw * channels)), np.uint64)
    _core.im2col(words, make_window("prepack", (kh, kw), (kh, kw)), channels, False, rows)
    return rows


def prepack(w: ArrayLike | BitArray) -> Prepacked:
    """Lay out weights in register panels, once for many products or convolutions.

    Parameters
    ----------
    w : BitArray of shape (n, k) or (o, kh, kw, i), packed along its last axis; or array_like
        A matrix or the filters of a convolution. Real numbers are packed by sign.

    Returns
    -------
    Prepacked
        Pass it as `w` (as `b` to the Hamming functions). A matrix goes to `gemm`, `gemm_sign`,
        `hamming`, `hamming_topk`, `weight_gemm` and `bitplane_gemm`. Filters go to `conv2d`,
        `conv2d_sign`, `weight_conv2d` and `bitplane_conv2d`.

    Raises
    ------
    TypeError
        If `w` does not hold real numbers, or is prepacked already.
    ValueError
        If `w` does not have two or four axes, has an empty kernel, is packed along another axis
        than its last, or holds NaN.

    Examples
    --------
    >>> from bitops import gemm
    >>> w = prepack([[1.0, -1.0, 1.0], [1.0, 1.0, 1.0]])
    >>> gemm([[2.0, -3.0, 4.0]], w)
    array([[3, 1]], dtype=int32)
    """
    return Prepacked(w)


def rows_operand(where: str, name: str, x: ArrayLike | BitArray) -> BitArray:
    """Check an operand with at least two axes, and return it packed along the last one."""
    if isinstance(x, BitArray):
        bits = x
    elif isinstance(x, Prepacked):
        raise TypeError(f"[{where}] {name} must be an array, got Prepacked")
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
    """Check a right operand, plain or prepacked, and return its bits."""
    if not isinstance(w, Prepacked):
        return rows_operand(where, name, w)
    if w.bits.ndim != 2:
        raise ValueError(f"[{where}] {name} must be a prepacked matrix, got shape {w.shape}")
    return w.bits
