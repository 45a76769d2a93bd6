"""Arrays for results, scales and thresholds: checks and conversions that many functions share."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from .checks import as_float32, column_vector, real_array
from .memory import aligned_empty

__all__ = ["Result", "Scales", "as_matrix", "clip_to_int32", "int32_thresholds", "scales_of"]

INT32 = np.iinfo(np.int32)
FLOAT32 = np.dtype(np.float32)

Scale = NDArray[np.float32] | None  # 1-d
Scales = tuple[Scale, Scale, Scale]  # alpha, k_map, bias, in the order of the kernels' arguments
NO_SCALES: Scales = (None, None, None)


class Result:
    """The array that a call fills, and the `out` that its caller may have passed.

    If `out` is contiguous and aligned and shares no memory with the inputs, it is filled directly.
    Otherwise a new array is filled, and `deliver` copies it to `out`.

    Parameters
    ----------
    where : str
        Name of the called function, for error messages.
    shape : tuple of int
    dtype : dtype
    out : ndarray or None
        What the caller passed. It must be writeable and have exactly this shape and dtype.
    *inputs : object
        Everything that the call reads while it writes. Only ndarrays can share memory with `out`;
        panels and None are ignored.

    Attributes
    ----------
    array : ndarray
        The array to fill, C-contiguous: `out` itself or a new one.

    Raises
    ------
    TypeError
        If `out` is not an ndarray of this dtype, or is masked.
    ValueError
        If `out` has another shape, is read-only, or has elements that share memory.
    """

    __slots__ = ("_copy_to", "array")

    def __init__(
        self,
        where: str,
        shape: tuple[int, ...],
        dtype: DTypeLike,
        out: NDArray[Any] | None,
        *inputs: Any,
    ) -> None:
        if out is not None:
            check_out(where, out, shape, dtype)
            if _is_usable(out, inputs):
                self.array: NDArray[Any] = out
                self._copy_to = None
                return
        self.array = aligned_empty(shape, dtype)
        self._copy_to = out

    @property
    def matrix(self) -> NDArray[Any]:
        """The array as a matrix whose columns are its last axis."""
        return as_matrix(self.array)

    def deliver(self) -> NDArray[Any]:
        """Return `out` with the result, or the new array if there is no `out`."""
        if self._copy_to is None:
            return self.array
        self._copy_to[...] = self.array
        return self._copy_to


def as_matrix(array: NDArray[Any]) -> NDArray[Any]:
    """View a contiguous array as a matrix whose columns are its last axis."""
    if array.ndim == 2:
        return array
    return array.reshape(math.prod(array.shape[:-1]), array.shape[-1])


def check_out(where: str, out: Any, shape: tuple[int, ...], dtype: DTypeLike) -> None:
    """Check that `out` can hold a result of this shape and dtype."""
    if isinstance(out, np.ma.MaskedArray):
        raise TypeError(f"[{where}] out must not be masked, got a MaskedArray")
    if not isinstance(out, np.ndarray):
        raise TypeError(f"[{where}] out must be an ndarray, got {type(out).__name__}")
    if out.dtype != dtype:
        raise TypeError(f"[{where}] out must have dtype {np.dtype(dtype)}, got {out.dtype}")
    if out.shape != shape:
        raise ValueError(f"[{where}] out must have shape {shape}, got {out.shape}")
    if not out.flags.writeable:
        raise ValueError(f"[{where}] out must be writeable, got a read-only array")
    if not out.flags.c_contiguous and _may_overlap(out):
        raise ValueError(
            f"[{where}] out must have memory for every element, got shape {out.shape} with strides "
            f"{out.strides}"
        )


def _may_overlap(out: NDArray[Any]) -> bool:
    """Tell whether two elements may share memory, as in no view but those of as_strided."""
    end = out.itemsize  # of what the axes so far span
    for stride, size in sorted(zip(map(abs, out.strides), out.shape, strict=True)):
        if size > 1:
            if stride < end:
                return True
            end += stride * (size - 1)
    return False


def _is_usable(out: NDArray[Any], inputs: tuple[Any, ...]) -> bool:
    """Tell whether kernels can write directly to `out` while they read the inputs."""
    flags = out.flags
    if not (flags.c_contiguous and flags.aligned):
        return False
    for x in inputs:  # any() over a generator would take half a microsecond more
        if isinstance(x, np.ndarray) and np.may_share_memory(out, x):
            return False
    return True


def scales_of(
    where: str,
    shape: tuple[int, ...],
    alpha: ArrayLike | None,
    k_map: ArrayLike | None,
    bias: ArrayLike | None,
) -> Scales:
    """Check the scales of a result, and convert them to 1-d float32 arrays.

    Parameters
    ----------
    where : str
        Name of the called function, for error messages.
    shape : tuple of int
        Shape (..., n) of the result.
    alpha, bias : array_like or None
        One number for each of the n columns, or one for all.
    k_map : array_like or None
        Numbers that broadcast to the rows, that is to the shape without its last axis.

    Returns
    -------
    tuple of three
        (alpha, k_map, bias), each a 1-d array or None. If all three are None, this is the object
        `NO_SCALES`.

    Raises
    ------
    TypeError
        If a scale does not hold real numbers.
    ValueError
        If a scale does not broadcast to its columns or rows.
    """
    if alpha is None and k_map is None and bias is None:
        return NO_SCALES
    columns = shape[-1:]
    return (
        _scale(where, "alpha", alpha, columns),
        _scale(where, "k_map", k_map, shape[:-1]),
        _scale(where, "bias", bias, columns),
    )


def _scale(where: str, name: str, value: ArrayLike | None, shape: tuple[int, ...]) -> Scale:
    """Broadcast a scale to `shape`, and return it as a 1-d float32 array; None stays None."""
    if value is None:
        return None
    if (  # the usual case, faster than the general one below
        type(value) is np.ndarray
        and value.dtype == FLOAT32
        and value.shape == shape
        and value.flags.c_contiguous
        and value.flags.aligned
    ):
        return value if value.ndim == 1 else value.reshape(-1)
    array = real_array(where, name, value)
    try:
        array = np.broadcast_to(array, shape)
    except ValueError:
        raise ValueError(
            f"[{where}] {name} must broadcast to shape {shape}, got {array.shape}"
        ) from None
    return np.ascontiguousarray(as_float32(array)).reshape(-1)


def clip_to_int32(integers: NDArray[Any]) -> NDArray[np.int32]:
    """Clip integer thresholds to int32.

    This changes no comparison with a dot product, since those lie within int32: no dot product is
    above 2**31 - 1, and all are above -2**31.
    """
    if integers.dtype == np.int32:
        return integers
    return np.clip(integers, INT32.min, INT32.max).astype(np.int32)


def int32_thresholds(where: str, threshold: ArrayLike, n: int) -> NDArray[np.int32]:
    """Check integer thresholds, one for each of n columns or one for all; return n of int32."""
    integers = column_vector(where, "threshold", threshold, "iu", n)
    return np.require(clip_to_int32(integers), requirements=("C", "A"))
