"""BitArray, and functions that pack values, unpack bits, and count bits."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from .. import _core
from .checks import as_float32, column_vector, is_integer, normalize_axis, plain_array, real_array
from .indexing import expand_index, item_of_axis, result_axis
from .memory import WORD_BITS, aligned_empty, word_count
from .operators import Operators
from .packbits import bytes_of_words, words_of_bytes
from .packing import PACK_CODES, contiguous_rows, repack, sign_words
from .results import NO_SCALES

__all__ = ["BitArray", "pack", "pack_above", "unpack"]

_UNPACK_CODES = {np.dtype(np.int8): _core.I8, np.dtype(np.float32): _core.F32}


class BitArray(Operators):
    """An array of +1 and -1, packed to one bit per element along one axis.

    Create one with `pack` or `from_words`; many functions return one. ``np.asarray(b)`` gives the
    values as int8, ``np.asarray(b, dtype=bool)`` gives the bits.

    Attributes
    ----------
    shape : tuple of int
        The logical shape, in elements.
    axis : int
        The packed axis, 0 <= axis < ndim.
    words : ndarray, uint64
        The bits, of shape (other axes in order, words of the packed axis). This is not a copy;
        its padding bits must stay 0.

    Notes
    -----
    A bit 1 means +1, a bit 0 means -1. Element i of the packed axis is bit ``i % 64`` of word
    ``i // 64``, counted from the least significant bit. The padding bits of the last word are 0.
    For example, the words of an array x of shape (2, 70), packed along its last axis::

                  words[:, 0]              words[:, 1]
                  bit 0  ...    bit 63     bit 0  ...    bit 5      bits 6 to 63
        row 0     x[0, 0] ...  x[0, 63]    x[0, 64] ...  x[0, 69]   0
        row 1     x[1, 0] ...  x[1, 63]    x[1, 64] ...  x[1, 69]   0

    Examples
    --------
    >>> b = pack([[1.5, -2.0, 0.0], [-1.0, 3.0, -4.0]])
    >>> b.shape, b.axis, b.nbytes
    ((2, 3), 1, 16)
    >>> np.asarray(b)
    array([[ 1, -1,  1],
           [-1,  1, -1]], dtype=int8)
    >>> b.words[:, 0]
    array([5, 2], dtype=uint64)
    """

    __slots__ = ()
    __hash__ = None  # type: ignore[assignment]

    def __init__(self) -> None:
        raise TypeError("[BitArray] use pack(values) or BitArray.from_words(words, shape)")

    @classmethod
    def from_words(cls, words: NDArray[np.uint64], shape: Sequence[int]) -> BitArray:
        """Adopt bits that are packed along the last axis, without a copy.

        Parameters
        ----------
        words : ndarray of shape (..., ceil(k / 64)), uint64
        shape : sequence of int
            The logical shape (..., k).

        Returns
        -------
        BitArray of this shape, packed along its last axis
            It shares the memory of `words` if that is aligned and in native byte order.

        Raises
        ------
        TypeError
            If `words` is not an ndarray of uint64, or `shape` does not hold integers.
        ValueError
            If the shapes do not fit each other, or a padding bit is set.
        """
        usual = _core.usual_words(cls, words, shape)
        if usual is not None:
            return usual
        if not isinstance(words, np.ndarray) or words.dtype != np.uint64:
            got = words.dtype if isinstance(words, np.ndarray) else type(words).__name__
            raise TypeError(f"[from_words] words must be an ndarray of uint64, got {got}")
        words = plain_array("from_words", "words", words)
        # An array object of our own, so that nobody else can set its shape.
        words = words.view(np.ndarray) if words.flags.aligned else words.astype(np.uint64)
        shape = _as_sizes("from_words", shape)
        if not shape or min(shape) < 0:
            raise ValueError(
                f"[from_words] shape must have an axis and no negative size, got {shape}"
            )
        k = shape[-1]
        wanted = (*shape[:-1], word_count(k))
        if words.shape != wanted:
            raise ValueError(
                f"[from_words] words of shape {shape} must have shape {wanted}, got {words.shape}"
            )
        # the largest has a padding bit if any has one; no array is made for it
        if k % WORD_BITS and int(words[..., -1].max(initial=0)) >> k % WORD_BITS:
            raise ValueError(
                f"[from_words] padding bits must be 0, got set bits after element {k - 1}"
            )
        return cls._make(words, shape, len(shape) - 1)

    @classmethod
    def from_packbits(
        cls, packed: Any, count: int | None = None, *, bitorder: str = "big"
    ) -> BitArray:
        """Take bits as np.packbits packs them, eight to a byte, along the last axis.

        Parameters
        ----------
        packed : ndarray of shape (..., bytes), uint8; or a buffer of bytes, or an array of another
            library that has ``__array__`` or ``__dlpack__``
        count : int, optional
            How many bits a row has, as in np.unpackbits: by default all of them, a negative count
            leaves out bits at the end, and bits beyond the bytes are 0.
        bitorder : {"big", "little"}, default "big"
            Whether the first bit of a byte is its highest or its lowest.

        Returns
        -------
        BitArray of shape (..., count), packed along its last axis
            In little bit order it shares the memory of rows that are whole, aligned words.

        Raises
        ------
        TypeError
            If `packed` does not hold uint8, `count` is no integer, or `bitorder` no string.
        ValueError
            If `packed` is a scalar, `count` leaves out more bits than there are, `bitorder` is
            another one, or a bit after the last element is set.

        Examples
        --------
        >>> BitArray.from_packbits(np.packbits([[1, 0, 1]], axis=-1), 3) == pack([[1, -1, 1]])
        np.True_
        """
        words, k = words_of_bytes(packed, count, bitorder)
        return cls._make(words, (*words.shape[:-1], k), words.ndim - 1)

    def to_packbits(self, *, bitorder: str = "big") -> NDArray[np.uint8]:
        """Return the bits as ``np.packbits(np.asarray(self, bool), self.axis)`` would: new bytes.

        Parameters
        ----------
        bitorder : {"big", "little"}, default "big"
            Whether the first bit of a byte is its highest or its lowest.
        """
        packed = bytes_of_words(self._words, self.shape[self.axis], bitorder)
        return packed if self.axis == self.ndim - 1 else np.moveaxis(packed, -1, self.axis)

    @property
    def size(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Bytes of the words."""
        return self._words.nbytes

    @property
    def T(self) -> BitArray:
        """A view with the axes in reverse order; the packed axis moves with the others."""
        words = self._words
        if self.ndim > 2:
            words = words.transpose(*range(self.ndim - 2, -1, -1), self.ndim - 1)
        return self._make(words, self.shape[::-1], self.ndim - 1 - self.axis)

    def __len__(self) -> int:
        return self.shape[0]

    def __bool__(self) -> bool:
        raise ValueError("[BitArray] the truth value of an array is ambiguous; compare with ==")

    def __iter__(self) -> Iterator[BitArray]:
        if self.axis == 0:
            raise TypeError(
                f"[BitArray] the packed axis cannot be iterated over, got packed axis 0 of shape "
                f"{self.shape}; use np.asarray(b)"
            )
        return (self[i] for i in range(len(self)))

    def __repr__(self) -> str:
        return f"BitArray(shape={self.shape}, packed axis={self.axis}, {self.nbytes} bytes)"

    def __getitem__(self, index: Any) -> BitArray:
        usual = self._usual_item(index)
        if usual is not None:
            return usual
        expanded = expand_index(index, self.ndim)
        place = item_of_axis(expanded.items, self.axis)
        taken = expanded.items[place]
        if not (isinstance(taken, slice) and taken == slice(None)):
            raise IndexError(
                f"[BitArray] the packed axis {self.axis} takes only ':', got {taken!r}; "
                "use np.asarray(b) or unpack(b) for single elements"
            )
        # '...' must reach NumPy, which may place the axes of index arrays by it.
        items = list(expanded.items)
        if expanded.dots is not None:
            items.insert(expanded.dots, ...)
        words = np.moveaxis(self._words, -1, self.axis)[tuple(items)]
        axis = result_axis(expanded, place)
        shape = words.shape[:axis] + self.shape[self.axis : self.axis + 1]
        return self._make(np.moveaxis(words, axis, -1), (*shape, *words.shape[axis + 1 :]), axis)

    def reshape(self, *shape: Any) -> BitArray:
        """Return the array with other axes before the packed one, which must be the last.

        Parameters
        ----------
        *shape : int, or one sequence of int
            The new logical shape. One size may be -1. The last size must be that of the packed
            axis.

        Returns
        -------
        BitArray of this shape, packed along its last axis
            It shares the words if NumPy can reshape them without a copy.

        Raises
        ------
        TypeError
            If a size is not an integer.
        ValueError
            If the packed axis is not the last, its size would change, or the sizes do not fit.
        """
        usual = self._usual_reshape(shape)
        if usual is not None:
            return usual
        single = len(shape) == 1 and not is_integer(shape[0])
        new = _as_sizes("reshape", shape[0] if single else shape)
        k = self.shape[-1]
        if self.axis != self.ndim - 1 or not new or new[-1] not in (k, -1):
            raise ValueError(
                f"[reshape] the packed axis must stay last with its {k} elements, "
                f"got shape {new} and packed axis {self.axis} of {self.ndim}"
            )
        rows = math.prod(self.shape[:-1])
        if new[-1] == -1:
            if math.prod(new[:-1]) != rows:
                raise ValueError(f"[reshape] cannot reshape {self.shape} to {new}")
        try:
            lead = np.broadcast_to(np.False_, rows).reshape(new[:-1]).shape  # resolves a -1
        except ValueError:
            raise ValueError(f"[reshape] cannot reshape {self.shape} to {new}") from None
        return self._make(self._words.reshape(*lead, self._words.shape[-1]), (*lead, k), len(lead))

    def copy(self) -> BitArray:
        """Return a BitArray with words of its own."""
        return self._make(self._words.copy(), self.shape, self.axis)

    __copy__ = copy

    def __reduce__(self) -> tuple[Any, ...]:
        return _restore, (np.ascontiguousarray(self._words), self.shape, self.axis)

    def __array__(self, dtype: DTypeLike | None = None, copy: bool | None = None) -> NDArray[Any]:
        if copy is False:
            raise ValueError("[BitArray] unpacking always copies, got copy=False")
        dtype = np.dtype(np.int8 if dtype is None else dtype)
        if dtype.kind == "b":  # True for +1; a cast of -1 would give True too
            return unpack(self, dtype)
        if dtype.kind == "u":
            raise TypeError(
                f"[BitArray] dtype must be able to hold -1, got {dtype}; dtype=bool gives the bits"
            )
        return unpack(self).astype(dtype, copy=False)

    def __eq__(self, other: object) -> np.bool_:  # type: ignore[override]
        """Tell whether all elements are equal, whichever axes are packed: one truth value."""
        if isinstance(other, np.ndarray | np.generic | list | tuple | int | float):
            raise TypeError(
                f"[BitArray] == compares two BitArrays, got {type(other).__name__}; compare with "
                "pack(x), or np.asarray(b) with x"
            )
        if not isinstance(other, BitArray):
            return NotImplemented
        if self.shape != other.shape:
            return np.False_
        same = repack(other, self.axis)
        return np.bool_(np.array_equal(self._words, same._words))

    def __matmul__(self, other: Any) -> NDArray[np.int32]:
        usual = _core.usual_product(_core.DOT, self, other, NO_SCALES, None, 0)
        if usual is not None:
            return usual
        from .linalg import matmul

        return matmul(self, other)

    def __rmatmul__(self, other: Any) -> NDArray[np.int32]:
        from .linalg import matmul

        return matmul(other, self)


_core.set_bits_class(BitArray)


def _restore(words: NDArray[np.uint64], shape: tuple[int, ...], axis: int) -> BitArray:
    """Rebuild a BitArray from a pickle, whose parts must fit each other."""
    shape = _as_sizes("BitArray", shape)
    axis = normalize_axis("BitArray", axis, len(shape))
    lead = shape[:axis] + shape[axis + 1 :]
    words = BitArray.from_words(words, (*lead, shape[axis]))._words
    return BitArray._make(words, shape, axis)


def _as_sizes(where: str, shape: Any) -> tuple[int, ...]:
    """Check a shape and return it as a tuple of plain integers."""
    try:
        sizes = tuple(shape)
    except TypeError:
        sizes = (None,)
    if not all(map(is_integer, sizes)):
        raise TypeError(f"[{where}] shape must be integers, got {shape!r}")
    return tuple(map(int, sizes))


def pack(x: ArrayLike | BitArray, axis: int = -1) -> BitArray:
    """Pack the signs of an array along one axis.

    A bit is 1 where ``x >= 0``, else 0; so 0.0 and -0.0 are +1. Bools are bits already: True is
    +1, False is -1. Numbers 0 and 1 are both +1: pack ``x > 0`` instead.

    Parameters
    ----------
    x : array_like of bool, signed integers or floats, at least 1-d; or BitArray
        Floats may be halves, also bfloat16 of ml_dtypes. A BitArray is packed again if it is packed
        along another axis.
    axis : int, default -1
        The axis to pack.

    Returns
    -------
    BitArray of the shape of `x`
        Its words have the bytes of ``np.packbits(x >= 0, axis, bitorder="little")``, padded with
        zeros to whole words.

    Raises
    ------
    TypeError
        If `x` does not hold real numbers, or holds unsigned ones, whose signs are all +1.
    ValueError
        If `x` holds NaN, which has no sign, is a scalar, or has no such axis.

    Examples
    --------
    >>> pack([0.5, -1.0, 0.0]).words
    array([5], dtype=uint64)
    """
    return pack_operand("pack", "x", x, axis)


def pack_above(
    x: ArrayLike, threshold: ArrayLike, *, flip: ArrayLike | BitArray | None = None
) -> BitArray:
    """Compare numbers with thresholds along the last axis, and pack the results.

    Parameters
    ----------
    x : array_like of bool, integers or floats, shape (..., k)
    threshold : real number, or array_like of shape (k,)
    flip : array_like of bool of shape (k,), or BitArray of shape (k,), optional
        True for the elements whose bits are inverted.

    Returns
    -------
    BitArray of shape (..., k), packed along the last axis
        The bit is ``(x > threshold) ^ flip``.

    Raises
    ------
    TypeError
        If `x` or `threshold` does not hold real numbers, or `flip` does not hold bools.
    ValueError
        If a shape does not fit, or `x` or `threshold` holds NaN.

    Notes
    -----
    int32 and float32 numbers are compared with float32 thresholds in float32, in one pass. All
    other types are compared as in NumPy.

    Examples
    --------
    >>> pack_above([[1.0, 2.0, 3.0]], [1.0, 1.5, 4.0]).words
    array([[2]], dtype=uint64)
    """
    return above_operand("pack_above", x, threshold, flip)


def above_operand(
    where: str, x: ArrayLike, threshold: ArrayLike, flip: ArrayLike | BitArray | None
) -> BitArray:
    """Implement `pack_above`; errors name the function `where`."""
    usual = _core.usual_above(x, threshold, flip)
    if usual is not None:
        return usual
    array = real_array(where, "x", x)
    if array.ndim == 0:
        raise ValueError(f"[{where}] x must have at least one axis, got a scalar")
    k = array.shape[-1]
    limits = real_array(where, "threshold", threshold)
    if limits.shape not in ((), (k,)):
        raise ValueError(
            f"[{where}] threshold must be a number or have shape ({k},), got {limits.shape}"
        )
    if array.dtype == np.float32 and limits.dtype != np.float32:
        single = as_float32(limits)
        if np.array_equal(single, limits):  # such as the integer 0
            limits = single
    if limits.dtype.kind == "f" and np.isnan(limits).any():
        raise ValueError(f"[{where}] threshold must not hold NaN, got NaN")
    flips = None if flip is None else flip_words(where, flip, k)
    if array.dtype in (np.float32, np.int32) and limits.dtype == np.float32:
        if limits.shape != (k,) or not limits.flags.c_contiguous:
            limits = np.ascontiguousarray(np.broadcast_to(limits, (k,)))
        return above_limits(where, np.ascontiguousarray(array), limits, flips)
    if array.dtype.kind == "f":
        _refuse_nan(where, bool(np.isnan(array).any()))
    words, _ = sign_words(array > limits, array.ndim - 1)
    if flips is not None:
        words ^= flips
    return BitArray._make(words, array.shape, array.ndim - 1)


def above_limits(
    where: str,
    x: NDArray[Any],
    limits: NDArray[np.float32],
    flips: NDArray[np.uint64] | None,
) -> BitArray:
    """Do what `pack_above` does for contiguous float32 or int32 numbers and checked thresholds.

    Parameters
    ----------
    x : ndarray of shape (..., k), float32 or int32
    limits : ndarray of shape (k,), float32, without NaN
    flips : ndarray of shape (ceil(k / 64),), uint64, or None
        As `flip_words` makes them.
    """
    k = len(limits)
    words = aligned_empty((*x.shape[:-1], word_count(k)), np.uint64)
    rows, values = math.prod(x.shape[:-1]), x.reshape(-1).view(np.uint8)
    out = words.reshape(rows, word_count(k))
    _refuse_nan(where, _core.compare(PACK_CODES[x.dtype], values, rows, limits, flips, out))
    return BitArray._make(words, x.shape, x.ndim - 1)


def _refuse_nan(where: str, has_nan: bool) -> None:
    if has_nan:
        raise ValueError(f"[{where}] x must not hold NaN, which is above nothing, got NaN")


def flip_words(where: str, flip: ArrayLike | BitArray, n: int) -> NDArray[np.uint64]:
    """Check one bool or bit per column, or one bool for all n columns, and return packed words."""
    if not isinstance(flip, BitArray):
        flip = pack_operand(where, "flip", column_vector(where, "flip", flip, "b", n), 0)
    if flip.shape != (n,):
        raise ValueError(f"[{where}] flip must have shape ({n},), got {flip.shape}")
    return np.ascontiguousarray(flip._words)


def pack_operand(where: str, name: str, x: ArrayLike | BitArray, axis: int) -> BitArray:
    """Implement `pack`; errors name the function `where` and its parameter `name`."""
    if isinstance(x, BitArray):
        return repack(x, normalize_axis(where, axis, x.ndim))
    usual = _core.usual_pack(x, axis)
    if usual is not None:
        return usual
    array = real_array(where, name, x, keep_bfloat16=True)
    if array.dtype.kind == "u":
        raise TypeError(
            f"[{where}] {name} must not be unsigned, whose signs are all +1, got dtype "
            f"{array.dtype}: bits are bool or for BitArray.from_packbits and from_words, numbers "
            "for bitplane_gemm and bitplane_conv2d"
        )
    if array.ndim == 0:
        raise ValueError(f"[{where}] {name} must have at least one axis, got a scalar")
    axis = normalize_axis(where, axis, array.ndim)
    words, has_nan = sign_words(array, axis)
    if has_nan:
        raise ValueError(f"[{where}] {name} must not hold NaN, which has no sign, got NaN")
    return BitArray._make(words, array.shape, axis)


def unpack(b: BitArray, dtype: DTypeLike = np.int8) -> NDArray[Any]:
    """Return the values +1 and -1 of packed bits.

    Parameters
    ----------
    b : BitArray
    dtype : dtype, default int8
        A signed integer or floating type; or bool, which gives True for +1.

    Returns
    -------
    ndarray of the shape of `b`, `dtype`

    Raises
    ------
    TypeError
        If `b` is not a BitArray, or `dtype` is neither bool nor able to hold -1.

    Examples
    --------
    >>> unpack(pack([1.5, -2.0, 0.0]))
    array([ 1, -1,  1], dtype=int8)
    >>> unpack(pack([1.5, -2.0, 0.0]), dtype=np.float32)
    array([ 1., -1.,  1.], dtype=float32)
    """
    if not isinstance(b, BitArray):
        raise TypeError(f"[unpack] b must be a BitArray, got {type(b).__name__}")
    try:
        dtype = None if dtype is None else np.dtype(dtype)  # NumPy takes None for float64
    except TypeError:
        pass
    if not isinstance(dtype, np.dtype) or dtype.kind not in "bif":
        raise TypeError(f"[unpack] dtype must be a signed integer, float or bool, got {dtype!s}")
    native = dtype if dtype in _UNPACK_CODES else np.dtype(np.int8)
    k = b.shape[b.axis]
    values = np.empty((*b._words.shape[:-1], k), native)
    if values.size:
        out = values.reshape(-1).view(np.uint8)
        _core.unpack(_UNPACK_CODES[native], contiguous_rows(b), k, out)
    if dtype.kind == "b":
        values = values > 0
    elif native != dtype:
        values = values.astype(dtype)
    # moveaxis takes microseconds, and the last axis is the usual one
    return values if b.axis == b.ndim - 1 else np.moveaxis(values, -1, b.axis)
