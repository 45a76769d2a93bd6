"""Results of the functions on arrays: `out`, scales and thresholds of one call."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from .checks import column_vector, real_array
from .memory import aligned_empty

INT32 = np.iinfo(np.int32)


class Operands(Protocol):
    """What the checks of results and scales need to know of one call."""

    @property
    def function(self) -> str: ...
    @property
    def a(self) -> NDArray[Any]: ...
    @property
    def w(self) -> Any: ...
    @property
    def shape(self) -> tuple[int, ...]: ...  # of the result
    @property
    def rows(self) -> int: ...


def _check_out(function: str, out: Any, shape: tuple[int, ...], dtype: DTypeLike) -> None:
    if not isinstance(out, np.ndarray):
        raise TypeError(f"[{function}] out must be an ndarray, got {type(out).__name__}")
    if out.dtype != dtype:
        raise TypeError(f"[{function}] out must have dtype {np.dtype(dtype)}, got {out.dtype}")
    if out.shape != shape:
        raise ValueError(f"[{function}] out must have shape {shape}, got {out.shape}")
    if not out.flags.writeable:
        raise ValueError(f"[{function}] out must be writeable, got a read-only array")


def _result_buffer(
    product: Operands, out: NDArray[Any] | None, dtype: DTypeLike, *factors: Any
) -> NDArray[Any]:
    """Where the kernels write: `out` itself if they can, else a new array."""
    if out is None:
        return aligned_empty(product.shape, dtype)
    usable = (
        out.flags.c_contiguous
        and out.flags.aligned
        and not _overlap(out, product.a)
        and not _overlap(out, product.w)
        and not any(_overlap(out, factor) for factor in factors)
    )
    return out if usable else aligned_empty(product.shape, dtype)


def _overlap(out: NDArray[Any], x: Any) -> bool:
    """Whether an operand, unless it is panels or absent, may share memory with the result."""
    return isinstance(x, np.ndarray) and np.may_share_memory(out, x)


def _as_matrix(product: Operands, buffer: NDArray[Any]) -> NDArray[Any]:
    """A buffer of the shape of the result as a matrix of all its rows."""
    return buffer if buffer.ndim == 2 else buffer.reshape(product.rows, buffer.shape[-1])


def _deliver(buffer: NDArray[Any], out: NDArray[Any] | None) -> NDArray[Any]:
    if out is None or buffer is out:
        return buffer
    out[...] = buffer.reshape(out.shape)
    return out


def _scale(product: Operands, name: str, value: Any, shape: tuple[int, ...]) -> Any:
    """alpha, k_map or bias as a flat float32 array of the size of `shape`; None stays None."""
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
    array = real_array(product.function, name, value)
    try:
        array = np.broadcast_to(array, shape)
    except ValueError:
        raise ValueError(
            f"[{product.function}] {name} must broadcast to shape {shape}, got {array.shape}"
        ) from None
    return np.ascontiguousarray(array, np.float32).reshape(-1)


def _thresholds(function: str, threshold: ArrayLike, n: int) -> NDArray[np.int32]:
    """One int32 a column."""
    limits = column_vector(function, "threshold", threshold, "iu", n)
    if limits.dtype != np.int32:
        # No dot product lies outside int32, so a threshold out there compares like its end.
        limits = np.clip(limits, INT32.min, INT32.max).astype(np.int32)
    return np.require(limits, requirements=("C", "A"))
