"""Signs, packed words and counts of bits."""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

WORD_BITS = 64

WORD_BYTES = WORD_BITS // 8


def sign(x: ArrayLike, dtype: DTypeLike = np.int8) -> NDArray[Any]:
    """Return the sign of every element, never 0.

    Parameters
    ----------
    x : array_like, bool or real
        A bool array already holds bits: True is +1 and False is -1.
    dtype : dtype, default=np.int8
        Type of the result.

    Returns
    -------
    ndarray of the shape of x
        +1 where x >= 0 (0.0 and -0.0 included), else -1.

    Raises
    ------
    ValueError
        If x has a NaN.
    """
    x = np.asarray(x)
    if np.isnan(x).any():
        raise ValueError(f"[sign] x must not hold NaN, got {np.isnan(x).sum()} of them")
    positive = x if x.dtype == np.bool_ else x >= 0
    return np.where(positive, 1, -1).astype(dtype)


def pack(x: ArrayLike, axis: int = -1) -> NDArray[np.uint64]:
    """Pack the signs of x into 64-bit words.

    Parameters
    ----------
    x : array_like, bool or real
        At least 1-D, without NaN.
    axis : int, default=-1
        Axis of k elements to pack. It is the last one of the result.

    Returns
    -------
    ndarray of shape (..., ceil(k / 64)), uint64
        The other axes of x in order, then the words; padding bits are 0.
    """
    positive = np.moveaxis(sign(x), axis, -1) > 0
    k = positive.shape[-1]
    k_words = -(-k // WORD_BITS)
    octets = np.zeros((*positive.shape[:-1], k_words * WORD_BYTES), np.uint8)
    octets[..., : -(-k // 8)] = np.packbits(positive, axis=-1, bitorder="little")
    # The byte order of the words is little-endian as well; astype makes them native.
    return octets.view("<u8").astype(np.uint64)


def unpack(words: ArrayLike, k: int, axis: int = -1, dtype: DTypeLike = np.int8) -> NDArray[Any]:
    """Return the signs that `pack` has put into words.

    Parameters
    ----------
    words : array_like of shape (..., ceil(k / 64)), uint64
        The result of `pack`.
    k : int
        Number of elements of the packed axis.
    axis : int, default=-1
        Where the packed axis goes in the result.
    dtype : dtype, default=np.int8
        Type of the result; bool gives True for +1.

    Returns
    -------
    ndarray, dtype
        +1 and -1.
    """
    octets = np.ascontiguousarray(words, "<u8").view(np.uint8)
    bits = np.unpackbits(octets, axis=-1, count=k, bitorder="little").astype(np.bool_)
    values = bits if np.dtype(dtype) == np.bool_ else sign(bits, dtype)
    return np.moveaxis(values, -1, axis)


def popcount(x: ArrayLike, axis: int | None = None) -> Any:
    """Count the +1 elements of x, over all axes or over one.

    Parameters
    ----------
    x : array_like, bool or real
        Values without NaN.
    axis : int or None, default=None
        Axis to count along; None counts over all of them.

    Returns
    -------
    int, or ndarray of int64 when an axis is given
    """
    count = np.sum(sign(x) > 0, axis=axis, dtype=np.int64)
    return int(count) if axis is None else np.asarray(count)
