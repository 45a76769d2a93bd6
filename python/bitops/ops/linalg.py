"""Products of packed matrices: gemm, gemm_sign, matmul and Hamming distances.

All of them compute ``dot = k - 2 popcount(a ^ w)``, or the popcount itself, for pairs of rows of k
bits. They differ in what they store.

Every product and convolution of this package releases the GIL. Ctrl-C, or any other signal whose
handler raises, ends a long call within about a tenth of a second. What `out` then holds is
undefined.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from .. import _core
from .array import BitArray, flip_words, pack_operand
from .checks import check_dtype, check_integer, plain_array
from .geometry import check_result
from .memory import MAX_BITS, aligned_empty, word_count
from .packing import contiguous_rows
from .prepack import Prepacked, rows_operand, weights_matrix
from .results import NO_SCALES, Result, as_matrix, check_out, int32_thresholds, scales_of

__all__ = ["gemm", "gemm_sign", "hamming", "hamming_topk", "matmul", "product_operands"]

MAX_TOPK_ROWS = 2**32  # an index and a distance share 64 bits

_HAMMING_KINDS = {np.dtype(np.int32): _core.HAMMING, np.dtype(np.uint16): _core.HAMMING16}

Words = NDArray[np.uint64]
Batch = tuple[int, int, NDArray[np.int64], NDArray[np.int64]]  # m, n, blocks of a, blocks of w
# rows of a, rows of w, k, batch, shape of the result
RowOperands = tuple[Words, Words | _core.Panels, int, Batch | None, tuple[int, ...]]


def product_operands(
    where: str,
    a: ArrayLike | BitArray,
    w: ArrayLike | BitArray | Prepacked,
    names: tuple[str, str] = ("a", "w"),
) -> RowOperands:
    """Check two operands (..., m, k) and (..., n, k) against each other, and pair their batches.

    Returns
    -------
    rows : ndarray of shape (all rows of a, k_words), uint64
    columns : ndarray of shape (all rows of w, k_words), uint64; or Panels
        Each of its rows gives a column of the result.
    k : int
    batch : tuple or None
        m, n, and for each product of the batch which block of m rows of `a` and which block of n
        rows of `w` it multiplies. None if all rows of `a` meet all rows of `w`.
    shape : tuple of int
        Shape (..., m, n) of the result.
    """
    a_bits = rows_operand(where, names[0], a)
    w_bits = weights_matrix(where, names[1], w)
    k = a_bits.shape[-1]
    if w_bits.shape[-1] != k:
        raise ValueError(
            f"[{where}] {names[0]} and {names[1]} must have the same k, "
            f"got {k} and {w_bits.shape[-1]}"
        )
    if k > MAX_BITS:
        raise ValueError(f"[{where}] k must be at most {MAX_BITS} bits, got {k}")
    m, n = a_bits.shape[-2], w_bits.shape[-2]
    a_lead, w_lead = a_bits.shape[:-2], w_bits.shape[:-2]
    lead: tuple[int, ...] = ()
    batch: Batch | None = None
    if a_lead or w_lead:
        try:
            lead = np.broadcast_shapes(a_lead, w_lead)
        except (ValueError, RuntimeError):  # RuntimeError: more axes than NumPy broadcasts
            raise ValueError(
                f"[{where}] leading axes must broadcast, got {a_lead} and {w_lead}"
            ) from None
        if math.prod(w_lead) != 1 or math.prod(a_lead) != math.prod(lead):
            batch = (m, n, _block_numbers(a_lead, lead), _block_numbers(w_lead, lead))
    check_result(where, (*lead, m, n))
    operand = w.panels() if isinstance(w, Prepacked) else contiguous_rows(w_bits)
    return contiguous_rows(a_bits), operand, k, batch, (*lead, m, n)


def _block_numbers(lead: tuple[int, ...], broadcast: tuple[int, ...]) -> NDArray[np.int64]:
    """Return which block of an operand each product of the broadcast batch multiplies.

    For example, leading axes (2, 1) that broadcast to (2, 3) give [0, 0, 0, 1, 1, 1].
    """
    blocks = np.arange(math.prod(lead), dtype=np.int64).reshape(lead)
    return np.ascontiguousarray(np.broadcast_to(blocks, broadcast)).reshape(-1)


def gemm(
    a: ArrayLike | BitArray,
    w: ArrayLike | BitArray | Prepacked,
    *,
    alpha: ArrayLike | None = None,
    k_map: ArrayLike | None = None,
    bias: ArrayLike | None = None,
    out: NDArray[Any] | None = None,
) -> NDArray[Any]:
    """Multiply each row of `a` with each row of `w`: ``C[m, n] = A[m, k] W[n, k]^T``.

    Parameters
    ----------
    a : BitArray of shape (..., m, k), packed along k; or array_like, packed by sign on the fly
    w : BitArray of shape (..., n, k), packed along k; or array_like, or Prepacked of shape (n, k)
        Leading axes of `a` and `w` broadcast as in ``np.matmul``.
    alpha : scalar or array_like of shape (n,), optional
        Scale of each column (filter), used as float32.
    k_map : scalar or array_like that broadcasts to shape (..., m), optional
        Scale of each row (output position), used as float32.
    bias : scalar or array_like of shape (n,), optional
        Added to each column, used as float32.
    out : ndarray of shape (..., m, n), optional
        Where to put the result, of exactly its dtype. Undefined after an interrupt.

    Returns
    -------
    ndarray of shape (..., m, n), int32; float32 if alpha, k_map or bias is given

    Raises
    ------
    TypeError
        If an operand or scale does not hold real numbers, or `out` is not an ndarray of the dtype
        of the result.
    ValueError
        If k differs, a shape does not fit, an operand holds NaN, or `out` is read-only.

    Notes
    -----
    ``dot = k - 2 popcount(a ^ w)`` is exact. A scaled result is
    ``float32(dot) * alpha[n] * k_map[m] + bias[n]``, evaluated from left to right. Each step is
    rounded to float32, on every ISA. Scales that are None are skipped. If alpha is the mean
    absolute weight of each filter and k_map is the K of the input, this is XNOR-Net's
    approximation.

    References
    ----------
    M. Rastegari et al., "XNOR-Net", 2016, equation 11.

    Examples
    --------
    >>> gemm([[1.5, -2.0, 0.0]], [[1.0, 1.0, 1.0], [-1.0, -1.0, 1.0]])
    array([[1, 1]], dtype=int32)
    """
    usual = _core.usual_product(_core.DOT, a, w, (alpha, k_map, bias), out)
    if usual is not None:
        return usual
    operands = product_operands("gemm", a, w)
    rows, columns, k, batch, shape = operands
    scales = scales_of("gemm", shape, alpha, k_map, bias)
    if scales is NO_SCALES:
        return _dot("gemm", operands, out)
    result = Result("gemm", shape, np.float32, out, rows, columns, *scales)
    _core.gemm_scaled(rows, columns, k, batch, *scales, result.matrix)
    return result.deliver()


def _dot(where: str, operands: RowOperands, out: NDArray[Any] | None) -> NDArray[np.int32]:
    """Multiply checked operands without scales."""
    rows, columns, k, batch, shape = operands
    result = Result(where, shape, np.int32, out, rows, columns)
    _core.gemm(rows, columns, k, batch, result.matrix)
    return result.deliver()


def gemm_sign(
    a: ArrayLike | BitArray,
    w: ArrayLike | BitArray | Prepacked,
    threshold: ArrayLike,
    *,
    flip: ArrayLike | BitArray | None = None,
) -> BitArray:
    """Multiply packed matrices, compare the products with thresholds, and pack the results.

    This is a complete layer: bits in, bits out.

    Parameters
    ----------
    a, w
        As in `gemm`.
    threshold : integer, or array_like of integers of shape (n,)
    flip : bool, array_like of bool of shape (n,), or BitArray of shape (n,), optional
        True for the columns whose bits are inverted.

    Returns
    -------
    BitArray of shape (..., m, n), packed along n
        The bit is ``(dot > threshold[n]) ^ flip[n]``.

    Raises
    ------
    TypeError
        If an operand does not hold real numbers, `threshold` does not hold integers, or `flip` does
        not hold bools.
    ValueError
        If k differs, a shape does not fit, or an operand holds NaN.

    Notes
    -----
    BatchNorm followed by sign folds into such a threshold. A negative gamma becomes a flip.

    Examples
    --------
    >>> bits = gemm_sign([[1.5, -2.0, 0.0]], [[1.0, 1.0, 1.0], [-1.0, 1.0, -1.0]], 0)
    >>> np.asarray(bits)
    array([[ 1, -1]], dtype=int8)
    """
    usual = _core.usual_product(_core.SIGN, a, w, (threshold, flip), None)
    if usual is not None:
        return usual
    rows, columns, k, batch, shape = product_operands("gemm_sign", a, w)
    n = shape[-1]
    thresholds = int32_thresholds("gemm_sign", threshold, n)
    flips = None if flip is None else flip_words("gemm_sign", flip, n)
    words = aligned_empty((*shape[:-1], word_count(n)), np.uint64)
    _core.gemm_sign(rows, columns, k, batch, thresholds, flips, as_matrix(words))
    return BitArray._make(words, shape, len(shape) - 1)


def hamming(
    a: ArrayLike | BitArray,
    b: ArrayLike | BitArray | Prepacked,
    *,
    dtype: DTypeLike = np.int32,
    out: NDArray[Any] | None = None,
) -> NDArray[Any]:
    """Count the elements in which each row of `a` differs from each row of `b`.

    Parameters
    ----------
    a : BitArray of shape (..., m, k), packed along k; or array_like, packed by sign on the fly
    b : BitArray of shape (..., n, k), packed along k; or array_like, or Prepacked
        Leading axes broadcast as in ``np.matmul``.
    dtype : int32 or uint16, default int32
        Type of the result. uint16 needs k <= 65535.
    out : ndarray of shape (..., m, n), optional
        Where to put the result, of exactly its dtype. Undefined after an interrupt.

    Returns
    -------
    ndarray of shape (..., m, n), `dtype`

    Raises
    ------
    TypeError
        If an operand does not hold real numbers, `dtype` is not int32 or uint16, or `out` is not an
        ndarray of `dtype`.
    ValueError
        If k differs or is too large for `dtype`, a shape does not fit, an operand holds NaN, or
        `out` is read-only.

    Examples
    --------
    >>> hamming([[1.0, -1.0, 1.0]], [[1.0, 1.0, 1.0], [-1.0, 1.0, -1.0]])
    array([[1, 3]], dtype=int32)
    """
    kind = _core.HAMMING if dtype is np.int32 else _hamming_kind(dtype)  # mostly the default
    usual = _core.usual_product(kind, a, b, (), out)
    if usual is not None:
        return usual
    rows, columns, k, batch, shape = product_operands("hamming", a, b, ("a", "b"))
    if kind == _core.HAMMING16 and k > 65535:
        raise ValueError(f"[hamming] uint16 distances need k <= 65535, got {k}")
    result = Result("hamming", shape, dtype, out, rows, columns)
    call = _core.hamming if kind == _core.HAMMING else _core.hamming16
    call(rows, columns, k, batch, result.matrix)
    return result.deliver()


def _hamming_kind(dtype: DTypeLike) -> int:
    """Return what a product stores for distances of this type."""
    dtype = check_dtype("hamming", dtype)
    if dtype not in _HAMMING_KINDS:
        raise TypeError(f"[hamming] dtype must be int32 or uint16, got {dtype}")
    return _HAMMING_KINDS[dtype]


def hamming_topk(
    a: ArrayLike | BitArray, b: ArrayLike | BitArray | Prepacked, count: int
) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """Find the rows of `b` that are nearest to each row of `a` in Hamming distance.

    Parameters
    ----------
    a : BitArray of shape (m, k), packed along k; or array_like, packed by sign on the fly
        The queries.
    b : BitArray of shape (n, k), packed along k; or array_like, or Prepacked
        The rows to search.
    count : int
        How many neighbours to return for each query, 1 <= count <= n.

    Returns
    -------
    distances : ndarray of shape (m, count), int32
        The number of elements in which the rows differ, smallest first.
    indices : ndarray of shape (m, count), int64
        The indices of these rows in `b`. Among rows at the same distance, smaller indices come
        first.

    Raises
    ------
    TypeError
        If an operand does not hold real numbers, or `count` is not an integer.
    ValueError
        If `count` is not in [1, n], k differs, or an operand is not a matrix or holds NaN.

    Notes
    -----
    The indices are the first `count` columns of a stable ``argsort`` of ``hamming(a, b)``. The
    matrix of distances is never stored: each distance goes from a register straight to those kept
    for its query, if it beats the worst of them. A call needs at most 8 MiB besides its results.

    Examples
    --------
    >>> hamming_topk([[1, 1, 1]], [[-1, -1, 1], [1, 1, 1], [1, -1, 1], [1, 1, -1]], 3)
    (array([[0, 1, 1]], dtype=int32), array([[1, 2, 3]]))
    """
    usual = _core.usual_topk(a, b, count)
    if usual is not None:
        return usual
    rows, columns, k, batch, shape = product_operands("hamming_topk", a, b, ("a", "b"))
    if len(shape) != 2 or batch is not None:
        raise ValueError(f"[hamming_topk] a and b must be matrices, got a result of shape {shape}")
    m, n = shape
    count = check_integer("hamming_topk", "count", count)
    if not n:
        raise ValueError("[hamming_topk] b must have at least one row, got none")
    if not 1 <= count <= n:
        raise ValueError(f"[hamming_topk] count must be in [1, {n}], got {count}")
    if n > MAX_TOPK_ROWS:
        raise ValueError(f"[hamming_topk] b must have at most {MAX_TOPK_ROWS} rows, got {n}")
    distances, indices = np.empty((m, count), np.int32), np.empty((m, count), np.int64)
    _core.topk(_core.HAMMING, rows, columns, k, None, None, None, distances, indices)
    return distances, indices


def matmul(
    a: ArrayLike | BitArray, b: ArrayLike | BitArray, *, out: NDArray[Any] | None = None
) -> NDArray[np.int32]:
    """Multiply two packed arrays as ``np.matmul`` would multiply their values of +1 and -1.

    Parameters
    ----------
    a : BitArray or array_like of shape (..., m, k) or (k,)
    b : BitArray or array_like of shape (..., k, n) or (k,)
        Real operands are packed by sign. A BitArray that is not packed along k is repacked; use
        ``pack(x, axis=-1)`` for `a` and ``pack(x, axis=-2)`` for `b` to avoid that.
    out : ndarray, int32, optional
        Where to put the result. Undefined after an interrupt.

    Returns
    -------
    ndarray or scalar, int32
        Of the shape that ``np.matmul`` gives; a scalar for two vectors without `out`.

    Raises
    ------
    TypeError
        If an operand does not hold real numbers, or `out` is not an ndarray of int32.
    ValueError
        If the shapes do not fit, an operand is a scalar or holds NaN, or `out` is read-only.

    Examples
    --------
    >>> matmul([[1.0, -1.0], [1.0, 1.0]], [[1.0], [-1.0]])
    array([[2],
           [0]], dtype=int32)
    """
    usual = _core.usual_product(_core.DOT, a, b, NO_SCALES, out, 0)
    if usual is not None:
        return usual
    left = _packed_along("a", a, -1)
    right = _packed_along("b", b, -2)
    # Packed along k, arrays of shapes (..., k, n) and (..., n, k) have the same words.
    k, wanted = right.shape[right.axis], left.shape[-1]
    if k != wanted:
        raise ValueError(
            f"[matmul] a and b must have the same k, got shapes {left.shape} and {right.shape}"
        )
    a_rows = left if left.ndim > 1 else _as_row(left)
    b_rows = _swap_last(right) if right.ndim > 1 else _as_row(right)
    operands = product_operands("matmul", a_rows, b_rows, ("a", "b"))
    shape = operands[-1]  # (..., m, n); below, the axis of a vector is dropped
    if left.ndim == 1:
        shape = (*shape[:-2], shape[-1])
    if right.ndim == 1:
        shape = shape[:-1]
    if out is None:
        return _dot("matmul", operands, None).reshape(shape)[()]  # a scalar for two vectors
    check_out("matmul", out, shape, np.int32)
    out[...] = _dot("matmul", operands, None).reshape(shape)
    return out


def _packed_along(name: str, x: ArrayLike | BitArray, axis: int) -> BitArray:
    """Pack an operand of matmul along k; a vector has only one axis."""
    ndim = x.ndim if isinstance(x, BitArray) else plain_array("matmul", name, x).ndim
    return pack_operand("matmul", name, x, axis if ndim != 1 else -1)


def _as_row(b: BitArray) -> BitArray:
    """View a vector as a matrix of one row."""
    return BitArray._make(b._words[None], (1, *b.shape), 1)


def _swap_last(b: BitArray) -> BitArray:
    """View (..., k, n), packed along k, as (..., n, k), packed along k: the words are the same."""
    *lead, k, n = b.shape
    return BitArray._make(b._words, (*lead, n, k), b.ndim - 1)
