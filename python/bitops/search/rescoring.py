"""The second stage of a search: products of real queries with the rows that the first has found."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..ops.array import BitArray
from ..ops.checks import as_float32, check_number, plain_array, real_array
from ..ops.mixed_gemm import weight_gemm
from .metrics import Columns, check_matrix
from .nearest import MISSING

__all__ = ["rescore"]


def rescore(
    queries: ArrayLike,
    b: Columns,
    candidates: ArrayLike,
    *,
    values: tuple[float, float] = (-1, 1),
) -> NDArray[np.float32]:
    """Multiply each real query with its candidates among the rows of `b`.

    A search by Hamming distance compares the signs of a query. The scores of what it has found, by
    the numbers of the query, order the nearest rows better.

    Parameters
    ----------
    queries : array_like of shape (m, k), integers or floats, used as float32
    b : BitArray of shape (n, k), packed along k; or array_like, packed by sign; or Prepacked
    candidates : array_like of shape (m, count), integers
        Rows of `b` for each query, as `topk` returns them: -1 stands for none.
    values : (float, float), default (-1, 1)
        The numbers that a bit 0 and a bit 1 stand for.

    Returns
    -------
    ndarray of shape (m, count), float32
        The dot products, in the order of the candidates. Where a candidate is -1, the score is
        -inf.

    Raises
    ------
    TypeError
        If `queries` are packed or do not hold integers or floats, `b` does not hold real numbers,
        `candidates` do not hold integers, or `values` are not two real numbers.
    ValueError
        If an operand is not a matrix, k or m differs, a candidate is not in [-1, n), `b` holds NaN,
        or `values` are not finite.

    Notes
    -----
    The products are those of `bitops.weight_gemm`, with its order of summation. With values (u, v)
    the score is ``dot * (v - u) / 2 + sum(query) * (v + u) / 2``, each step rounded to float32 and
    the sum once.

    Examples
    --------
    >>> rescore([[0.5, 2.0, -1.0]], [[1, -1, 1], [1, 1, 1], [1, 1, -1]], [[2, 0, -1]])
    array([[ 3.5, -2.5, -inf]], dtype=float32)
    """
    where = "search.rescore"
    numbers = _numbers(where, queries)
    bits = check_matrix(where, "b", b)
    if numbers.shape[1] != bits.shape[1]:
        raise ValueError(
            f"[{where}] queries and b must have the same k, "
            f"got {numbers.shape[1]} and {bits.shape[1]}"
        )
    ids = _ids(where, candidates, len(numbers), bits.shape[0])
    low, high = _two_numbers(where, values)
    alpha = None if (low, high) == (-1, 1) else np.float64(high - low) / 2
    bias: Any = None
    if low != -high:
        with np.errstate(invalid="ignore", over="ignore"):  # infinite queries are ordinary
            bias = np.sum(numbers, axis=1, dtype=np.float64) * ((low + high) / 2)
    scores = np.full(ids.shape, -np.inf, np.float32)
    for i in range(len(numbers)):
        found = ids[i] != MISSING
        rows = bits[ids[i, found]]
        own = None if bias is None else bias[i]
        scores[i, found] = weight_gemm(numbers[i : i + 1], rows, alpha=alpha, bias=own)[0]
    return scores


def _numbers(where: str, queries: ArrayLike) -> NDArray[np.float32]:
    if isinstance(queries, BitArray):
        raise TypeError(f"[{where}] queries must hold real numbers, got a BitArray")
    numbers = real_array(where, "queries", queries)
    if numbers.dtype.kind == "b":
        raise TypeError(f"[{where}] queries must hold real numbers, got dtype bool")
    if numbers.ndim != 2:
        raise ValueError(f"[{where}] queries must be a matrix, got shape {numbers.shape}")
    return as_float32(numbers)


def _ids(where: str, candidates: ArrayLike, m: int, n: int) -> NDArray[np.int64]:
    ids = plain_array(where, "candidates", candidates)
    if ids.ndim != 2 or len(ids) != m:
        raise ValueError(f"[{where}] candidates must have shape ({m}, count), got {ids.shape}")
    if not ids.size:  # an empty list is float64
        return np.empty(ids.shape, np.int64)
    if ids.dtype.kind not in "iu":
        raise TypeError(f"[{where}] candidates must hold integers, got dtype {ids.dtype}")
    for extreme in (ids.min(), ids.max()):
        if not MISSING <= extreme < n:
            raise ValueError(f"[{where}] candidates must be in [-1, {n}), got {extreme}")
    return ids.astype(np.int64)


def _two_numbers(where: str, values: Any) -> tuple[float, float]:
    if not isinstance(values, tuple) or len(values) != 2:
        raise TypeError(f"[{where}] values must be a pair of real numbers, got {values!r:.80}")
    for value in values:
        check_number(where, "values", value)
        if not abs(value) < np.finfo(np.float32).max:
            raise ValueError(f"[{where}] values must be finite, got {value!r:.80}")
    return float(values[0]), float(values[1])
