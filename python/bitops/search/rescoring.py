"""Products of real queries with rows of bits: the largest, or those of rows that were found.

`rescore` is the second stage of a search by Hamming distance, `score_topk` a search by itself.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .. import _core
from ..ops.array import BitArray
from ..ops.checks import as_float32, check_integer, check_number, real_array
from ..ops.memory import MAX_BITS
from ..ops.packing import plain_rows
from .ids import check_ids
from .metrics import Columns, check_matrix
from .nearest import MISSING, check_count

__all__ = ["rescore", "score_topk"]

FLOAT32_MAX = float(np.finfo(np.float32).max)


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
    numbers, bits = _operands(where, queries, b)
    ids = check_ids(where, "candidates", candidates, MISSING, bits.shape[0])
    if ids.ndim != 2 or len(ids) != len(numbers):
        raise ValueError(
            f"[{where}] candidates must have shape ({len(numbers)}, count), got {ids.shape}"
        )
    low, high = _two_numbers(where, values)
    alpha = None if (low, high) == (-1, 1) else np.float64(high - low) / 2
    bias: Any = None
    if low != -high:
        with np.errstate(invalid="ignore", over="ignore"):  # infinite queries are ordinary
            bias = np.sum(numbers, axis=1, dtype=np.float64) * ((low + high) / 2)
    scores = np.zeros(ids.shape, np.float32)
    _core.rescore(np.ascontiguousarray(numbers), plain_rows(bits), ids, scores)
    with np.errstate(invalid="ignore", over="ignore"):
        if alpha is not None:
            scores *= np.float32(alpha)
        if bias is not None:
            scores += bias.astype(np.float32)[:, np.newaxis]
    scores[ids == MISSING] = -np.inf
    return scores


def score_topk(
    queries: ArrayLike,
    b: Columns,
    count: int,
    *,
    query_bits: int | None = None,
    values: tuple[float, float] = (-1, 1),
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Find the rows of `b` with the largest products with each real query.

    Parameters
    ----------
    queries : array_like of shape (m, k), integers or floats, used as float32
    b : BitArray of shape (n, k), packed along k; or array_like, packed by sign; or Prepacked
    count : int
        How many to return for each query, at least 1, and at most max(65,536, n).
    query_bits : {None, 4, 8}, default None
        Round the numbers of a query to integers of so many bits, whose sums are exact and faster:
        see Notes. None multiplies float32 numbers.
    values : (float, float), default (-1, 1)
        The numbers that a bit 0 and a bit 1 stand for.

    Returns
    -------
    scores : ndarray of shape (m, count), float32
        Largest first.
    indices : ndarray of shape (m, count), int64
        The indices of these rows in `b`. Among rows of the same score, smaller ones come first. If
        `b` has fewer than `count` rows, the rest is -inf and -1.

    Raises
    ------
    TypeError
        If `queries` are packed or do not hold integers or floats, `b` does not hold real numbers,
        `count` or `query_bits` is not an integer, or `values` are not two real numbers.
    ValueError
        If an operand is not a matrix, k differs, `count` is out of range, `query_bits` is neither 4
        nor 8, a query is not finite or so large that sums might not be, `b` holds NaN, or `values`
        are not finite.

    Notes
    -----
    Scores without `query_bits` are those of `rescore`. With Q bits a query x becomes ``rint(x /
    scale)``, where ``scale = max(abs(x)) / (2**(Q - 1) - 1)``; with values (u, v) its score is
    ``float32(dot) * float32(scale * (v - u) / 2)``, plus the same summand as in `rescore`. No
    matrix of scores is stored.

    Examples
    --------
    >>> score_topk([[0.5, 2.0, -1.0]], [[1, -1, 1], [1, 1, 1], [1, 1, -1]], 2)
    (array([[3.5, 1.5]], dtype=float32), array([[2, 1]]))
    """
    where = "search.score_topk"
    numbers, bits = _operands(where, queries, b)
    count = check_count(where, count, bits.shape[0])
    if query_bits is not None and check_integer(where, "query_bits", query_bits) not in (4, 8):
        raise ValueError(f"[{where}] query_bits must be None, 4 or 8, got {query_bits}")
    low, high = _two_numbers(where, values)
    _check_sums(where, numbers, (low, high))
    m, n = len(numbers), bits.shape[0]
    scores = np.full((m, count), -np.inf, np.float32)
    indices = np.full((m, count), MISSING, np.int64)
    found = min(count, n)
    if m and found:
        best = np.empty((m, found), np.float32), np.empty((m, found), np.int64)
        _find_largest(numbers, bits, query_bits, (low, high), best)
        scores[:, :found], indices[:, :found] = best
    return scores, indices


def _find_largest(
    numbers: NDArray[np.float32],
    bits: BitArray,
    query_bits: int | None,
    values: tuple[float, float],
    best_out: tuple[NDArray[np.float32], NDArray[np.int64]],
) -> None:
    """Search with checked operands."""
    low, high = values
    factor, words = (high - low) / 2, plain_rows(bits)
    bias: Any = None
    if low != -high:
        bias = (np.sum(numbers, axis=1, dtype=np.float64) * ((low + high) / 2)).astype(np.float32)
    if query_bits is None:
        alpha = None if factor == 1 else np.full(len(numbers), factor, np.float32)
        _core.score_topk(np.ascontiguousarray(numbers), words, alpha, bias, *best_out)
        return
    largest = 2 ** (query_bits - 1) - 1
    scale = np.max(np.abs(numbers), axis=1, initial=0).astype(np.float64) / largest
    codes = np.rint(numbers / np.where(scale > 0, scale, 1)[:, np.newaxis])
    zero = 2 ** (query_bits - 1)
    alpha = (scale * factor).astype(np.float32)
    _core.score_topk_codes(
        (codes + zero).astype(np.uint8), zero, words, query_bits, alpha, bias, *best_out
    )


def _check_sums(where: str, numbers: NDArray[np.float32], values: tuple[float, float]) -> None:
    """Check that no sum of numbers, times values for bits, can overflow."""
    k = numbers.shape[1]
    if 255 * k > MAX_BITS:
        raise ValueError(f"[{where}] k must be at most {MAX_BITS // 255} for exact sums, got {k}")
    most = float(np.max(np.abs(numbers), initial=0))
    if most * k * max(2 * abs(values[0]), 2 * abs(values[1]), 1) < FLOAT32_MAX:
        return
    if most * k * 2 < FLOAT32_MAX:
        raise ValueError(
            f"[{where}] values must leave sums finite, got {values} and queries of {k} numbers up "
            f"to {most}"
        )
    raise ValueError(f"[{where}] queries must be finite, also their sums, got {most}")


def _operands(where: str, queries: ArrayLike, b: Columns) -> tuple[NDArray[np.float32], BitArray]:
    """Check real queries and rows of bits against each other."""
    numbers = real_queries(where, queries)
    bits = check_matrix(where, "b", b)
    if numbers.shape[1] != bits.shape[1]:
        raise ValueError(
            f"[{where}] queries and b must have the same k, "
            f"got {numbers.shape[1]} and {bits.shape[1]}"
        )
    return numbers, bits


def real_queries(where: str, queries: ArrayLike) -> NDArray[np.float32]:
    """Check a matrix of integers or floats; bool could mean 0 and 1, or -1 and 1."""
    if isinstance(queries, BitArray):
        raise TypeError(f"[{where}] queries must hold real numbers, got a BitArray")
    numbers = real_array(where, "queries", queries)
    if numbers.dtype.kind == "b":
        raise TypeError(f"[{where}] queries must hold real numbers, got dtype bool")
    if numbers.ndim != 2:
        raise ValueError(f"[{where}] queries must be a matrix, got shape {numbers.shape}")
    return as_float32(numbers)


def _two_numbers(where: str, values: Any) -> tuple[float, float]:
    if not isinstance(values, tuple) or len(values) != 2:
        raise TypeError(f"[{where}] values must be a pair of real numbers, got {values!r:.80}")
    for value in values:
        check_number(where, "values", value)
        if not abs(value) < FLOAT32_MAX:
            raise ValueError(f"[{where}] values must be finite, got {value!r:.80}")
    return float(values[0]), float(values[1])
