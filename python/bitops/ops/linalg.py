"""Products of packed matrices: gemm and its kin, matmul, Hamming distances.

Those of bits compute ``dot = k - 2 popcount(a ^ w)`` for pairs of rows of k bits, and differ in
what they store. Those of numbers with bits, `weight_gemm` and `bitplane_gemm`, look up sums of four
numbers at a time.

All of them, convolutions too, release the GIL. Ctrl-C, or another signal whose handler raises, ends
a long call within about a tenth of a second; what `out` then holds is undefined.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from .. import _core
from .array import BitArray, contiguous_rows, flip_words, pack_operand
from .checks import column_vector, real_array
from .geometry import check_result, make_window
from .memory import WORD_BITS, aligned_empty, word_count

__all__ = [
    "Prepacked",
    "bitplane_gemm",
    "gemm",
    "gemm_sign",
    "hamming",
    "hamming_topk",
    "matmul",
    "prepack",
    "weight_gemm",
]

MAX_BITS = 2**31 - 1
MAX_DERIVED = 256  # so that settings for images of ever new sizes do not pile up
MAX_TOPK_ROWS = 2**32  # an index and a distance share 64 bits
INT32 = np.iinfo(np.int32)


class Prepacked:
    """Packed weights whose rows stand in the register panels of the ISA in force.

    Made by `prepack`; opaque, never saved. Takes the place of `w` in the products (a matrix) or in
    the convolutions (filters). If another ISA is put in force, the panels are made anew at the next
    use.

    Attributes
    ----------
    shape : tuple of int
        (n, k), or (o, kh, kw, i) of filters, in elements.
    nbytes : int
        Bytes of the panels.
    """

    __slots__ = ("_bits", "_derived", "_isa")

    def __init__(self, w: ArrayLike | BitArray) -> None:
        bits = _rows_operand("prepack", "w", w)
        if bits.ndim not in (2, 4):
            raise ValueError(
                f"[prepack] w must have shape (n, k) or (o, kh, kw, i), got {bits.shape}"
            )
        if 0 in bits.shape[1:-1]:
            raise ValueError(f"[prepack] kh and kw must be at least 1, got shape {bits.shape}")
        self._bits = bits
        self._derived: dict[Any, Any] = {}
        self._isa = ""
        self.panels()

    @property
    def shape(self) -> tuple[int, ...]:
        return self._bits.shape

    @property
    def nbytes(self) -> int:
        return self.panels().nbytes

    @property
    def bits(self) -> BitArray:
        """The weights the panels were made from."""
        return self._bits

    def derived(self, key: Any, make: Callable[..., Any], *arguments: Any) -> Any:
        """What `make` derives from the weights for the ISA in force: made once for each key."""
        isa = _core.isa_active()
        if self._isa != isa or len(self._derived) > MAX_DERIVED:
            self._derived.clear()
            self._isa = isa
        value = self._derived.get(key)
        if value is None:
            value = self._derived[key] = make(*arguments)
        return value

    def rows(self) -> NDArray[np.uint64]:
        """The weights as a matrix of words; the bits of a filter follow each other without gaps."""
        return self.derived("rows", lambda: filter_rows(self._bits))

    def panels(self, groups: int = 1) -> _core.Panels:
        """Panels for the ISA in force, each of `groups` equal parts of the rows with its own."""
        return self.derived(("panels", groups), lambda: _core.Panels(self.rows(), groups))

    def __repr__(self) -> str:
        return f"Prepacked(shape={self.shape}, {self.nbytes} bytes, isa={self._isa})"


def filter_rows(w: BitArray) -> NDArray[np.uint64]:
    """Words of weights, a row for each of the first axis, with the bits of all others in order.

    A matrix (n, k), or filters (o, kh, kw, i), whose rows become those of their im2col matrix.
    """
    if w.ndim == 2:
        return contiguous_rows(w)
    o, kh, kw, channels = w.shape
    words = np.ascontiguousarray(w.words)
    if channels % WORD_BITS == 0:
        return words.reshape(o, kh * kw * words.shape[-1])
    rows = np.empty((o, word_count(kh * kw * channels)), np.uint64)
    _core.im2col(words, make_window("prepack", (kh, kw), (kh, kw)), channels, False, rows)
    return rows


def prepack(w: ArrayLike | BitArray) -> Prepacked:
    """Order weights into register panels, once for many products or convolutions.

    Parameters
    ----------
    w : BitArray of shape (n, k), or of filters (o, kh, kw, i), packed along the last axis
        Or array_like of real numbers, packed by sign.

    Returns
    -------
    Prepacked
        To be passed as `w` to `gemm`, `gemm_sign`, `hamming` and their kin, or, made of filters, to
        `conv2d` and its kin.

    Raises
    ------
    TypeError, ValueError
        As in `pack`, or if `w` does not have one of these shapes, packed along its last axis.
    """
    return Prepacked(w)


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


class _Product(NamedTuple):
    """Checked operands of one call into the native module."""

    function: str
    a: NDArray[Any]  # rows of words, or of numbers
    w: NDArray[np.uint64] | _core.Panels
    k: int
    shape: tuple[int, ...]  # of the result: (..., m, n)
    batch: tuple[Any, ...] | None

    @property
    def rows(self) -> int:
        return math.prod(self.shape[:-1])


def _rows_operand(function: str, name: str, x: ArrayLike | BitArray) -> BitArray:
    """An operand as bits along the last of at least two axes."""
    if isinstance(x, Prepacked):
        raise TypeError(f"[{function}] {name} must be an array, got Prepacked")
    if isinstance(x, BitArray):
        bits = x
    else:
        bits = pack_operand(function, name, x, -1)
    if bits.ndim < 2:
        raise ValueError(f"[{function}] {name} must have at least two axes, got shape {bits.shape}")
    if bits.axis != bits.ndim - 1:
        raise ValueError(
            f"[{function}] {name} must be packed along its last axis, "
            f"got packed axis {bits.axis} of shape {bits.shape}"
        )
    return bits


def _weights(function: str, name: str, w: ArrayLike | BitArray | Prepacked) -> BitArray:
    """The right operand as bits; prepacked filters of a convolution are none."""
    if not isinstance(w, Prepacked):
        return _rows_operand(function, name, w)
    if w.bits.ndim != 2:
        raise ValueError(f"[{function}] {name} must be a prepacked matrix, got shape {w.shape}")
    return w.bits


def _product(
    function: str,
    a: ArrayLike | BitArray,
    w: ArrayLike | BitArray | Prepacked,
    names: tuple[str, str] = ("a", "w"),
) -> _Product:
    """Check two operands (..., m, k) and (..., n, k) against each other and pair their batches."""
    a_bits = _rows_operand(function, names[0], a)
    w_bits = _weights(function, names[1], w)
    k = a_bits.shape[-1]
    if w_bits.shape[-1] != k:
        raise ValueError(
            f"[{function}] {names[0]} and {names[1]} must have the same k, "
            f"got {k} and {w_bits.shape[-1]}"
        )
    if k > MAX_BITS:
        raise ValueError(f"[{function}] k must be at most {MAX_BITS} bits, got {k}")
    m, n = a_bits.shape[-2], w_bits.shape[-2]
    a_lead, w_lead = a_bits.shape[:-2], w_bits.shape[:-2]
    lead: tuple[int, ...] = ()
    batch = None
    if a_lead or w_lead:
        try:
            lead = np.broadcast_shapes(a_lead, w_lead)
        except (ValueError, RuntimeError):  # RuntimeError: more axes than NumPy broadcasts
            raise ValueError(
                f"[{function}] leading axes must broadcast, got {a_lead} and {w_lead}"
            ) from None
        if math.prod(w_lead) != 1 or math.prod(a_lead) != math.prod(lead):
            batch = (m, n, _block_numbers(a_lead, lead), _block_numbers(w_lead, lead))
    check_result(function, (*lead, m, n))
    operand = w.panels() if isinstance(w, Prepacked) else contiguous_rows(w_bits)
    return _Product(function, contiguous_rows(a_bits), operand, k, (*lead, m, n), batch)


def _block_numbers(lead: tuple[int, ...], broadcast: tuple[int, ...]) -> NDArray[np.int64]:
    """Which block of an operand each product of the broadcast batch takes."""
    blocks = np.arange(math.prod(lead), dtype=np.int64).reshape(lead)
    return np.ascontiguousarray(np.broadcast_to(blocks, broadcast)).reshape(-1)


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


def gemm(
    a: ArrayLike | BitArray,
    w: ArrayLike | BitArray | Prepacked,
    *,
    alpha: ArrayLike | None = None,
    k_map: ArrayLike | None = None,
    bias: ArrayLike | None = None,
    out: NDArray[Any] | None = None,
) -> NDArray[Any]:
    """Product of the rows of two packed matrices, ``C[m, n] = A[m, k] W[n, k]^T`` on +1 and -1.

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
        If a dtype is not real, or `out` is not an ndarray of the dtype of the result.
    ValueError
        If k differs, a shape does not fit, an operand holds NaN, or `out` is read-only.

    Notes
    -----
    ``dot = k - 2 popcount(a ^ w)`` is exact. A scaled result is
    ``float32(dot) * alpha[n] * k_map[m] + bias[n]``, evaluated from left to right with each step
    rounded to float32, on every ISA; absent factors are skipped. With alpha the mean absolute
    weight of a filter and k_map the K of the input this is XNOR-Net's approximation.

    References
    ----------
    M. Rastegari et al., "XNOR-Net", 2016, equation 11.

    Examples
    --------
    >>> gemm([[1.5, -2.0, 0.0]], [[1.0, 1.0, 1.0], [-1.0, -1.0, 1.0]])
    array([[1, 1]], dtype=int32)
    """
    product = _product("gemm", a, w)
    scaled = not (alpha is None and k_map is None and bias is None)
    dtype = np.float32 if scaled else np.int32
    if out is not None:
        _check_out("gemm", out, product.shape, dtype)
    if not scaled:
        return _dot(product, out)
    n = product.shape[-1]
    columns = _scale(product, "alpha", alpha, (n,))
    rows = _scale(product, "k_map", k_map, product.shape[:-1])
    shifts = _scale(product, "bias", bias, (n,))
    buffer = _result_buffer(product, out, np.float32, columns, rows, shifts)
    _core.gemm_scaled(
        product.a,
        product.w,
        product.k,
        product.batch,
        columns,
        rows,
        shifts,
        _as_matrix(product, buffer),
    )
    return _deliver(buffer, out)


def _dot(product: _Product, out: NDArray[Any] | None) -> NDArray[np.int32]:
    buffer = _result_buffer(product, out, np.int32)
    matrix = _as_matrix(product, buffer)
    _core.gemm(product.a, product.w, product.k, product.batch, matrix)
    return _deliver(buffer, out)


def gemm_sign(
    a: ArrayLike | BitArray,
    w: ArrayLike | BitArray | Prepacked,
    threshold: ArrayLike,
    *,
    flip: ArrayLike | BitArray | None = None,
) -> BitArray:
    """Product whose result is compared with thresholds and packed again: a layer, bits to bits.

    Parameters
    ----------
    a, w
        As in `gemm`.
    threshold : integer, or array_like of integers of shape (n,)
    flip : bool, array_like of bool of shape (n,), or BitArray of shape (n,), optional
        Columns whose bits are inverted.

    Returns
    -------
    BitArray of shape (..., m, n), packed along n
        The bit is ``(dot > threshold[n]) ^ flip[n]``.

    Raises
    ------
    TypeError
        If a dtype is not real, `threshold` not of integers, or `flip` not of bool.
    ValueError
        If k differs, a shape does not fit, or an operand holds NaN.

    Notes
    -----
    BatchNorm followed by sign folds into such a threshold; a negative gamma becomes a flip.
    """
    product = _product("gemm_sign", a, w)
    n = product.shape[-1]
    limits = _thresholds("gemm_sign", threshold, n)
    flips = None if flip is None else flip_words("gemm_sign", flip, n)
    words = aligned_empty((*product.shape[:-1], word_count(n)), np.uint64)
    _core.gemm_sign(
        product.a,
        product.w,
        product.k,
        product.batch,
        limits,
        flips,
        _as_matrix(product, words),
    )
    return BitArray._make(words, product.shape, len(product.shape) - 1)


def _thresholds(function: str, threshold: ArrayLike, n: int) -> NDArray[np.int32]:
    """One int32 a column."""
    limits = column_vector(function, "threshold", threshold, "iu", n)
    if limits.dtype != np.int32:
        # No dot product lies outside int32, so a threshold out there compares like its end.
        limits = np.clip(limits, INT32.min, INT32.max).astype(np.int32)
    return np.require(limits, requirements=("C", "A"))


def hamming(
    a: ArrayLike | BitArray,
    b: ArrayLike | BitArray | Prepacked,
    *,
    dtype: DTypeLike = np.int32,
    out: NDArray[Any] | None = None,
) -> NDArray[Any]:
    """Hamming distances of all pairs of rows: the number of elements in which they differ.

    Parameters
    ----------
    a : BitArray of shape (..., m, k), packed along k; or array_like, packed by sign on the fly
    b : BitArray of shape (..., n, k), packed along k; or array_like, or Prepacked
        Leading axes broadcast as in ``np.matmul``.
    dtype : int32 or uint16, default int32
        Of the result. uint16 needs k <= 65535.
    out : ndarray of shape (..., m, n), optional
        Where to put the result, of exactly its dtype. Undefined after an interrupt.

    Returns
    -------
    ndarray of shape (..., m, n), `dtype`

    Raises
    ------
    TypeError
        If a dtype is not real, `dtype` is another one, or `out` does not have it.
    ValueError
        If k differs or does not fit `dtype`, a shape does not fit, or an operand holds NaN.

    Examples
    --------
    >>> hamming([[1.0, -1.0, 1.0]], [[1.0, 1.0, 1.0], [-1.0, 1.0, -1.0]])
    array([[1, 3]], dtype=int32)
    """
    dtype = np.dtype(dtype)
    if dtype not in (np.dtype(np.int32), np.dtype(np.uint16)):
        raise TypeError(f"[hamming] dtype must be int32 or uint16, got {dtype}")
    product = _product("hamming", a, b, ("a", "b"))
    if dtype == np.uint16 and product.k > 65535:
        raise ValueError(f"[hamming] uint16 distances need k <= 65535, got {product.k}")
    if out is not None:
        _check_out("hamming", out, product.shape, dtype)
    buffer = _result_buffer(product, out, dtype)
    matrix = _as_matrix(product, buffer)
    call = _core.hamming if dtype == np.int32 else _core.hamming16
    call(product.a, product.w, product.k, product.batch, matrix)
    return _deliver(buffer, out)


def hamming_topk(
    a: ArrayLike | BitArray, w: ArrayLike | BitArray | Prepacked, count: int
) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """The nearest rows of `w` for every row of `a`, by Hamming distance.

    Parameters
    ----------
    a : BitArray of shape (m, k), packed along k; or array_like, packed by sign on the fly
        Queries.
    w : BitArray of shape (n, k), packed along k; or array_like, or Prepacked
        The rows to search.
    count : int
        How many neighbours of each query to return, 1 <= count <= n.

    Returns
    -------
    distances : ndarray of shape (m, count), int32
        Nearest first: the number of elements in which the rows differ.
    indices : ndarray of shape (m, count), int64
        Their rows of `w`. Of equal distances the smaller index stands first, and is preferred.

    Raises
    ------
    TypeError
        If a dtype is not real, or `count` is not an integer.
    ValueError
        If `count` is not in [1, n], k differs, an operand is not a matrix or holds NaN.

    Notes
    -----
    Equal to a stable ``argsort`` of ``hamming(a, w)`` along its last axis, cut after `count`
    columns, but the matrix of distances is never made: a distance goes from a register into the
    heap of its query if it beats the worst there. Besides the results at most 8 MiB are taken.

    Examples
    --------
    >>> hamming_topk([[1, 1, 1]], [[-1, -1, 1], [1, 1, 1], [1, -1, 1], [1, 1, -1]], 3)
    (array([[0, 1, 1]], dtype=int32), array([[1, 2, 3]]))
    """
    product = _product("hamming_topk", a, w)
    if len(product.shape) != 2 or product.batch is not None:
        raise ValueError(
            f"[hamming_topk] a and w must be matrices, got a result of shape {product.shape}"
        )
    m, n = product.shape
    try:
        count = operator.index(count)
    except TypeError:
        raise TypeError(f"[hamming_topk] count must be an integer, got {count!r}") from None
    if not 1 <= count <= n:
        raise ValueError(f"[hamming_topk] count must be in [1, {n}], got {count}")
    if n > MAX_TOPK_ROWS:
        raise ValueError(f"[hamming_topk] w must have at most {MAX_TOPK_ROWS} rows, got {n}")
    distances, indices = np.empty((m, count), np.int32), np.empty((m, count), np.int64)
    _core.hamming_topk(product.a, product.w, product.k, distances, indices)
    return distances, indices


def matmul(
    a: ArrayLike | BitArray, b: ArrayLike | BitArray, *, out: NDArray[Any] | None = None
) -> NDArray[np.int32]:
    """``np.matmul`` of the +1 and -1 values.

    Parameters
    ----------
    a : BitArray or array_like of shape (..., m, k) or (k,)
    b : BitArray or array_like of shape (..., k, n) or (k,)
        Real operands are packed by sign. A BitArray packed along another axis than the one of k
        is packed anew; ``pack(x, axis=-1)`` for `a` and ``pack(x, axis=-2)`` for `b` avoid that.
    out : ndarray, int32, optional
        Where to put the result. Undefined after an interrupt.

    Returns
    -------
    ndarray, int32
        Of the shape that ``np.matmul`` gives.

    Raises
    ------
    TypeError
        If a dtype is not real, or `out` is not an int32 ndarray.
    ValueError
        If shapes do not fit, an operand is a scalar or holds NaN, or `out` is read-only.

    Examples
    --------
    >>> matmul([[1.0, -1.0], [1.0, 1.0]], [[1.0], [-1.0]])
    array([[2],
           [0]], dtype=int32)
    """
    left = _packed_along("a", a, -1)
    right = _packed_along("b", b, -2)
    # b of shape (..., k, n) packed along k has the words of (..., n, k) packed along k.
    k, wanted = right.shape[right.axis], left.shape[-1]
    if k != wanted:
        raise ValueError(
            f"[matmul] a and b must have the same k, got shapes {left.shape} and {right.shape}"
        )
    a_rows = left if left.ndim > 1 else _as_row(left)
    b_rows = _swap_last(right) if right.ndim > 1 else _as_row(right)
    product = _product("matmul", a_rows, b_rows, ("a", "b"))
    shape = product.shape
    if right.ndim == 1:
        shape = shape[:-1]
    if left.ndim == 1:
        shape = (*shape[: len(product.shape) - 2], *shape[len(product.shape) - 1 :])
    if out is None:
        return _dot(product, None).reshape(shape)[()]  # a scalar for two vectors
    _check_out("matmul", out, shape, np.int32)
    out[...] = _dot(product, None).reshape(shape)
    return out


def _packed_along(name: str, x: ArrayLike | BitArray, axis: int) -> BitArray:
    """An operand of matmul packed along k; a vector has only one axis."""
    ndim = x.ndim if isinstance(x, BitArray) else np.ndim(x)
    return pack_operand("matmul", name, x, axis if ndim != 1 else -1)


def _as_row(b: BitArray) -> BitArray:
    return BitArray._make(b.words[None], (1, *b.shape), 1)


def _swap_last(b: BitArray) -> BitArray:
    """(..., k, n) packed along k as (..., n, k) packed along k: the same words."""
    *lead, k, n = b.shape
    return BitArray._make(b.words, (*lead, n, k), b.ndim - 1)


# ---- numbers times weights of +1 and -1 ----------------------------------------------------------


def weight_gemm(
    x: ArrayLike,
    w: ArrayLike | BitArray | Prepacked,
    *,
    alpha: ArrayLike | None = None,
    bias: ArrayLike | None = None,
    out: NDArray[np.float32] | None = None,
) -> NDArray[np.float32]:
    """Product of real numbers with weights of +1 and -1, which stay one bit each in memory.

    Parameters
    ----------
    x : array_like of shape (..., m, k), integers or floats, used as float32
    w : BitArray of shape (n, k), packed along k; or array_like, packed by sign; or Prepacked
    alpha : scalar or array_like of shape (n,), optional
        Scale of each column (filter), used as float32.
    bias : scalar or array_like of shape (n,), optional
        Added to each column, used as float32.
    out : ndarray of shape (..., m, n), float32, optional
        Where to put the result. Undefined after an interrupt.

    Returns
    -------
    ndarray of shape (..., m, n), float32

    Raises
    ------
    TypeError
        If `x` is packed or does not hold integers or floats, another dtype is not real, or `out` is
        not an ndarray of float32.
    ValueError
        If k differs, a shape does not fit, `w` holds NaN, or `out` is read-only.

    Notes
    -----
    ``C[m, n] = (sum_k x[m, k] w[n, k]) * alpha[n] + bias[n]``; each step is rounded to float32 and
    none is fused. The sum is made in one order, the same on every ISA, with any number of threads
    and whatever the other rows are: x (followed by zeros) is cut into groups of four,
    ``((+-x0 +-x1) +-x2) +-x3`` is the sum of a group, and the groups are added from first to last,
    beginning with 0. It differs from the exact sum by at most
    ``(k / 4 + 4) * 2**-24 * sum(abs(x[m]))``, to first order. Infinities and NaN in `x` go where
    float32 arithmetic takes them.

    References
    ----------
    M. Rastegari et al., "XNOR-Net", 2016, section 3.1 (Binary-Weight-Networks), equation 1.

    Examples
    --------
    >>> weight_gemm([[0.5, 2.0, -1.0]], [[1.0, -1.0, 1.0], [1.0, 1.0, 1.0]], alpha=[2.0, 1.0])
    array([[-5. ,  1.5]], dtype=float32)
    """
    if isinstance(x, BitArray):
        raise TypeError("[weight_gemm] x must hold real numbers, got a BitArray (gemm takes bits)")
    numbers = np.asarray(x)
    if numbers.dtype.kind not in "iuf":
        raise TypeError(f"[weight_gemm] x must hold real numbers, got dtype {numbers.dtype}")
    product, words = _mixed_product("weight_gemm", numbers, np.float32, w)
    if out is not None:
        _check_out("weight_gemm", out, product.shape, np.float32)
    n = product.shape[-1]
    columns = _scale(product, "alpha", alpha, (n,))
    shifts = _scale(product, "bias", bias, (n,))
    buffer = _result_buffer(product, out, np.float32, columns, shifts)
    matrix = _as_matrix(product, buffer)
    _core.weight_gemm(product.a, words, columns, shifts, matrix)
    return _deliver(buffer, out)


def bitplane_gemm(
    x: ArrayLike,
    w: ArrayLike | BitArray | Prepacked,
    *,
    bits: int = 8,
    alpha: ArrayLike | None = None,
    bias: ArrayLike | None = None,
    out: NDArray[Any] | None = None,
) -> NDArray[Any]:
    """Product of small unsigned integers with weights of +1 and -1, exact.

    Parameters
    ----------
    x : array_like of shape (..., m, k), uint8
    w : BitArray of shape (n, k), packed along k; or array_like, packed by sign; or Prepacked
    bits : int in 1..8, default 8
        Numbers are in 0..2**bits - 1. Products of one or two bits are faster.
    alpha : scalar or array_like of shape (n,), optional
        Scale of each column (filter), used as float32.
    bias : scalar or array_like of shape (n,), optional
        Added to each column, used as float32.
    out : ndarray of shape (..., m, n), optional
        Where to put the result, of exactly its dtype. Undefined after an interrupt.

    Returns
    -------
    ndarray of shape (..., m, n), int32; float32 if alpha or bias is given

    Raises
    ------
    TypeError
        If `x` is not of uint8, `bits` not an integer, another dtype not real, or `out` not an
        ndarray of the dtype of the result.
    ValueError
        If a number exceeds ``2**bits - 1``, `bits` is not in 1..8, k differs or is so large that
        ``255 * k`` exceeds int32, a shape does not fit, `w` holds NaN, or `out` is read-only.

    Notes
    -----
    ``dot = sum_k x[m, k] w[n, k]`` is exact. A scaled result is
    ``float32(dot) * alpha[n] + bias[n]`` with each step rounded to float32, as in `gemm`.

    References
    ----------
    Courbariaux, Hubara et al., "Binarized Neural Networks", 2016, equation 8: the first layer as a
    sum over the bit planes of 8-bit inputs.

    Examples
    --------
    >>> import numpy as np
    >>> bitplane_gemm(np.array([[255, 3, 1]], np.uint8), [[1.0, -1.0, -1.0], [-1.0, 1.0, 1.0]])
    array([[ 251, -251]], dtype=int32)
    """
    if isinstance(x, BitArray):
        raise TypeError("[bitplane_gemm] x must be of uint8, got a BitArray (gemm takes bits)")
    numbers = np.asarray(x)
    if numbers.dtype != np.uint8:
        raise TypeError(f"[bitplane_gemm] x must be of uint8, got dtype {numbers.dtype}")
    _check_bits("bitplane_gemm", bits)
    product, words = _mixed_product("bitplane_gemm", numbers, np.uint8, w)
    _check_sums("bitplane_gemm", numbers, bits, product.k)
    scaled = not (alpha is None and bias is None)
    dtype = np.float32 if scaled else np.int32
    if out is not None:
        _check_out("bitplane_gemm", out, product.shape, dtype)
    n = product.shape[-1]
    columns = _scale(product, "alpha", alpha, (n,))
    shifts = _scale(product, "bias", bias, (n,))
    buffer = _result_buffer(product, out, dtype, columns, shifts)
    matrix = _as_matrix(product, buffer)
    panels = w.panels() if isinstance(w, Prepacked) else None
    if scaled:
        _core.bitplane_gemm_scaled(product.a, words, panels, bits, columns, shifts, matrix)
    else:
        _core.bitplane_gemm(product.a, words, panels, bits, matrix)
    return _deliver(buffer, out)


def _check_bits(function: str, bits: Any) -> None:
    if isinstance(bits, bool) or not isinstance(bits, (int, np.integer)):
        raise TypeError(f"[{function}] bits must be an integer, got {bits!r}")
    if not 1 <= bits <= 8:
        raise ValueError(f"[{function}] bits must be in 1..8, got {bits}")


def _check_sums(function: str, x: NDArray[np.uint8], bits: int, k: int) -> None:
    """Check that numbers have so few bits, and that sums of k of any numbers fit int32."""
    if 255 * k > MAX_BITS:
        raise ValueError(
            f"[{function}] k must be at most {MAX_BITS // 255} for int32 sums, got {k}"
        )
    if bits < 8 and x.size and int(x.max()) >> bits:
        raise ValueError(
            f"[{function}] x must be at most {2**bits - 1} for bits={bits}, got {x.max()}"
        )


def _mixed_product(
    function: str, x: NDArray[Any], dtype: DTypeLike, w: ArrayLike | BitArray | Prepacked
) -> tuple[_Product, NDArray[np.uint64]]:
    """Check numbers (..., m, k) and weights (n, k) against each other; also the weights' words."""
    weights = _weights(function, "w", w)
    if weights.ndim != 2:
        raise ValueError(f"[{function}] w must have shape (n, k), got {weights.shape}")
    if x.ndim < 2:
        raise ValueError(f"[{function}] x must have at least two axes, got shape {x.shape}")
    n, k = weights.shape
    if x.shape[-1] != k:
        raise ValueError(f"[{function}] x and w must have the same k, got {x.shape[-1]} and {k}")
    check_result(function, (*x.shape[:-1], n))
    rows = np.require(x, dtype, ("C", "A"))
    if x.ndim != 2:
        rows = rows.reshape(math.prod(x.shape[:-1]), k)
    words = contiguous_rows(weights)
    return _Product(function, rows, words, k, (*x.shape[:-1], n), None), words
