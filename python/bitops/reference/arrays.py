"""Signs, packed words, and counts of bits."""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

WORD_BITS = 64
WORD_BYTES = WORD_BITS // 8


def sign(x: ArrayLike, dtype: DTypeLike = np.int8) -> NDArray[Any]:
    """Return the sign of each element: +1 or -1, never 0.

    Parameters
    ----------
    x : array_like, bool or real
        Bools are taken as bits: True is +1, False is -1.
    dtype : dtype, default int8
        Type of the result.

    Returns
    -------
    ndarray of the shape of x
        +1 where x >= 0 (0.0 and -0.0 included), else -1.

    Raises
    ------
    ValueError
        If `x` holds NaN.
    """
    x = np.asarray(x)
    if np.isnan(x).any():
        raise ValueError(f"[sign] x must not hold NaN, got {np.isnan(x).sum()} of them")
    positive = x if x.dtype == np.bool_ else x >= 0
    return np.where(positive, 1, -1).astype(dtype)


def pack(x: ArrayLike, axis: int = -1) -> NDArray[np.uint64]:
    """Pack the signs of an array into 64-bit words.

    Parameters
    ----------
    x : array_like, bool or real
        At least 1-d, without NaN.
    axis : int, default -1
        The axis of k elements to pack.

    Returns
    -------
    ndarray of shape (..., ceil(k / 64)), uint64
        The other axes of `x` in their order, then the words. Padding bits are 0.
    """
    positive = np.moveaxis(sign(x), axis, -1) > 0
    k = positive.shape[-1]
    k_words = -(-k // WORD_BITS)
    octets = np.zeros((*positive.shape[:-1], k_words * WORD_BYTES), np.uint8)
    octets[..., : -(-k // 8)] = np.packbits(positive, axis=-1, bitorder="little")
    # The bytes of each word are in little-endian order too; astype makes the words native.
    return octets.view("<u8").astype(np.uint64)


def pack_above(
    x: ArrayLike, threshold: ArrayLike, *, flip: ArrayLike | None = None
) -> NDArray[np.int8]:
    """Compare numbers with thresholds along the last axis.

    Parameters
    ----------
    x : array_like of shape (..., k), bool or real
    threshold : real number or array_like of shape (k,)
    flip : None, or array_like of shape (k,), bool

    Returns
    -------
    ndarray of shape (..., k), int8
        +1 where ``(x > threshold) ^ flip``, else -1.
    """
    x, threshold = np.asarray(x), np.asarray(threshold)
    if x.dtype == np.int32 and threshold.dtype == np.float32:
        x = x.astype(np.float32)  # NumPy would compare them in float64
    above = x > threshold
    return sign(above if flip is None else above ^ np.asarray(flip, np.bool_))


def unpack(words: ArrayLike, k: int, axis: int = -1, dtype: DTypeLike = np.int8) -> NDArray[Any]:
    """Return the signs that `pack` put into words.

    Parameters
    ----------
    words : array_like of shape (..., ceil(k / 64)), uint64
        What `pack` returned.
    k : int
        Length of the packed axis.
    axis : int, default -1
        Where the packed axis goes in the result.
    dtype : dtype, default int8
        Type of the result; bool gives True for +1.

    Returns
    -------
    ndarray, `dtype`
    """
    octets = np.ascontiguousarray(words, "<u8").view(np.uint8)
    bits = np.unpackbits(octets, axis=-1, count=k, bitorder="little").astype(np.bool_)
    values = bits if np.dtype(dtype) == np.bool_ else sign(bits, dtype)
    return np.moveaxis(values, -1, axis)


def popcount(x: ArrayLike, axis: int | None = None) -> Any:
    """Count the elements that are +1, in the whole array or along one axis.

    Parameters
    ----------
    x : array_like, bool or real
        Without NaN.
    axis : int, optional
        The axis to count along.

    Returns
    -------
    int, or with an `axis` ndarray of int64
    """
    count = np.sum(sign(x) > 0, axis=axis, dtype=np.int64)
    return int(count) if axis is None else np.asarray(count)


def majority(b: ArrayLike, axis: int = 0) -> NDArray[np.int8]:
    """Take the value that most elements along an axis have; of as many of each, +1.

    Parameters
    ----------
    b : array_like, bool or real
        At least 2-d, without NaN.
    axis : int, default 0
        The axis to count along.

    Returns
    -------
    ndarray of the shape of b without this axis, int8
        The signs of the sums.
    """
    return sign(np.sum(sign(b), axis=axis, dtype=np.int64))
