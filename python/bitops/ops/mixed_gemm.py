"""Products of numbers with weights of +1 and -1 ("mixed" operands): weight_gemm, bitplane_gemm.

They look up sums of four numbers at a time.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from .. import _core
from .array import BitArray, contiguous_rows
from .geometry import check_result
from .linalg import _Product
from .memory import MAX_BITS
from .prepack import Prepacked, weights_matrix
from .results import _as_matrix, _check_out, _deliver, _result_buffer, _scale

__all__ = ["bitplane_gemm", "weight_gemm"]


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
    check_bits("bitplane_gemm", bits)
    product, words = _mixed_product("bitplane_gemm", numbers, np.uint8, w)
    check_sums("bitplane_gemm", numbers, bits, product.k)
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


def check_bits(function: str, bits: Any) -> None:
    if isinstance(bits, bool) or not isinstance(bits, (int, np.integer)):
        raise TypeError(f"[{function}] bits must be an integer, got {bits!r}")
    if not 1 <= bits <= 8:
        raise ValueError(f"[{function}] bits must be in 1..8, got {bits}")


def check_sums(function: str, x: NDArray[np.uint8], bits: int, k: int) -> None:
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
    weights = weights_matrix(function, "w", w)
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
