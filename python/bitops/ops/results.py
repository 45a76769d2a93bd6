"""Results and scales of one call: `out` checked, a buffer for the kernels, float32 factors."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from .checks import column_vector, real_array
from .memory import aligned_empty

__all__ = ["Result", "Scales", "int32_thresholds", "scales_of"]

INT32 = np.iinfo(np.int32)


class Result:
    """The array that the kernels of one call write, and the caller's `out`.

    The kernels write `out` itself if they can: it is contiguous, aligned, and shares no memory with
    what they read. Otherwise they write a new array, and `deliver` copies it.

    Parameters
    ----------
    where : str
        Name of the function, for the message of an error.
    shape : tuple of int
    dtype : dtype
    out : ndarray, optional
        Must have exactly this shape and dtype, and be writeable.
    *inputs : object
        What the kernels read; only arrays count.

    Attributes
    ----------
    array : ndarray
        `out` itself, or the new array.
    matrix : ndarray
        The same as a matrix of all its rows.
    """

    __slots__ = ("_out", "array", "matrix")

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
        self._out = None
        if out is not None and not _is_usable(out, inputs):
            self._out, out = out, None
        self.array: NDArray[Any] = aligned_empty(shape, dtype) if out is None else out
        self.matrix = self.array if len(shape) == 2 else as_matrix(self.array)

    def deliver(self) -> NDArray[Any]:
        """Return `out` with the result, or the new array if there is no `out`."""
        if self._out is None:
            return self.array
        self._out[...] = self.array
        return self._out


def as_matrix(array: NDArray[Any]) -> NDArray[Any]:
    """View a contiguous array as a matrix of all its rows."""
    if array.ndim == 2:
        return array
    return array.reshape(math.prod(array.shape[:-1]), array.shape[-1])


def check_out(where: str, out: Any, shape: tuple[int, ...], dtype: DTypeLike) -> None:
    """Check that `out` can take a result of this shape and dtype."""
    if not isinstance(out, np.ndarray):
        raise TypeError(f"[{where}] out must be an ndarray, got {type(out).__name__}")
    if out.dtype != dtype:
        raise TypeError(f"[{where}] out must have dtype {np.dtype(dtype)}, got {out.dtype}")
    if out.shape != shape:
        raise ValueError(f"[{where}] out must have shape {shape}, got {out.shape}")
    if not out.flags.writeable:
        raise ValueError(f"[{where}] out must be writeable, got a read-only array")


def _is_usable(out: NDArray[Any], inputs: tuple[Any, ...]) -> bool:
    """Tell whether kernels can write `out`; panels and None share no memory with it."""
    flags = out.flags
    if not (flags.c_contiguous and flags.aligned):
        return False
    for x in inputs:  # a generator would take half a microsecond
        if isinstance(x, np.ndarray) and np.may_share_memory(out, x):
            return False
    return True


class Scales(NamedTuple):
    """Scales of a product, flat and float32, in the order in which the kernels take them."""

    alpha: NDArray[np.float32] | None
    k_map: NDArray[np.float32] | None
    bias: NDArray[np.float32] | None


NO_SCALES = Scales(None, None, None)


def scales_of(
    where: str,
    shape: tuple[int, ...],
    alpha: ArrayLike | None,
    k_map: ArrayLike | None,
    bias: ArrayLike | None,
) -> Scales:
    """Check the scales of a result of this shape; `NO_SCALES` itself if there are none.

    `alpha` and `bias` hold a number for each column, `k_map` one for each row.
    """
    if alpha is None and k_map is None and bias is None:
        return NO_SCALES
    columns = shape[-1:]
    return Scales(
        _scale(where, "alpha", alpha, columns),
        _scale(where, "k_map", k_map, shape[:-1]),
        _scale(where, "bias", bias, columns),
    )


def _scale(
    where: str, name: str, value: ArrayLike | None, shape: tuple[int, ...]
) -> NDArray[np.float32] | None:
    """A scale, broadcast to `shape`, as a flat float32 array; None stays None."""
    if value is None:
        return None
    if (
        type(value) is np.ndarray
        and value.dtype == np.float32
        and value.shape == shape
        and value.flags.c_contiguous
        and value.flags.aligned
    ):
        return value.reshape(-1)  # the usual case, not slowed down by the general one
    array = real_array(where, name, value)
    try:
        array = np.broadcast_to(array, shape)
    except ValueError:
        raise ValueError(
            f"[{where}] {name} must broadcast to shape {shape}, got {array.shape}"
        ) from None
    return np.ascontiguousarray(array, np.float32).reshape(-1)


def clip_to_int32(integers: NDArray[Any]) -> NDArray[np.int32]:
    """Clip integers to int32: no dot product lies outside, so a threshold there compares alike."""
    if integers.dtype == np.int32:
        return integers
    return np.clip(integers, INT32.min, INT32.max).astype(np.int32)


def int32_thresholds(where: str, threshold: ArrayLike, n: int) -> NDArray[np.int32]:
    """Check integer thresholds: one for each of n columns, or one for all."""
    integers = column_vector(where, "threshold", threshold, "iu", n)
    return np.require(clip_to_int32(integers), requirements=("C", "A"))
