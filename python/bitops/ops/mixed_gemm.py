"""Mixed products, of numbers with weights of +1 and -1: weight_gemm, bitplane_gemm.

"Mixed" means that only the weights are bits. The kernels look up sums of four numbers in tables.
For numbers of few bits, they multiply bit planes instead.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from .. import _core
from .array import BitArray
from .checks import as_float32, check_integer, plain_array, real_array
from .geometry import check_result
from .memory import MAX_BITS
from .packing import contiguous_rows
from .prepack import Prepacked, weights_matrix
from .results import NO_SCALES, Result, as_matrix, scales_of

__all__ = ["bitplane_gemm", "code_gemm", "weight_gemm"]

# Sizes of a transposed x from which it is not copied first: the kernels that read it as it lies
# work on 32 or 64 rows at a time, and pay for long sums.
TURNED_ROWS, TURNED_BITS = 32, 256


def weight_gemm(
    x: ArrayLike,
    w: ArrayLike | BitArray | Prepacked,
    *,
    alpha: ArrayLike | None = None,
    bias: ArrayLike | None = None,
    out: NDArray[np.float32] | None = None,
) -> NDArray[np.float32]:
    """Multiply real numbers with weights of +1 and -1, packed to one bit each.

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
        If `x` is packed or does not hold integers or floats, `w` or a scale does not hold real
        numbers, or `out` is not an ndarray of float32.
    ValueError
        If k differs, a shape does not fit, `w` holds NaN, or `out` is read-only.

    Notes
    -----
    ``C[m, n] = (sum_k x[m, k] w[n, k]) * alpha[n] + bias[n]``. Each step is rounded to float32;
    none is fused.

    The order of summation is fixed: it is the same on every ISA and with any number of threads, and
    does not depend on the other rows. A row of x, padded with zeros, is cut into groups of four.
    The sum of a group is ``((+-x0 +-x1) +-x2) +-x3``. The groups are added from first to last,
    starting from 0. To first order, the result differs from the exact sum by at most
    ``(k / 4 + 4) * 2**-24 * sum(abs(x[m]))``. Infinities and NaN propagate as in float32
    arithmetic.

    References
    ----------
    M. Rastegari et al., "XNOR-Net", 2016, section 3.1 (Binary-Weight-Networks), equation 1.

    Examples
    --------
    >>> weight_gemm([[0.5, 2.0, -1.0]], [[1.0, -1.0, 1.0], [1.0, 1.0, 1.0]], alpha=[2.0, 1.0])
    array([[-5. ,  1.5]], dtype=float32)
    """
    usual = _core.usual_mixed(0, x, w, alpha, bias, out)
    if usual is not None:
        return usual
    if isinstance(x, BitArray):
        raise TypeError("[weight_gemm] x must hold real numbers, got a BitArray (gemm takes bits)")
    numbers = real_array("weight_gemm", "x", x)
    if numbers.dtype.kind == "b":
        raise TypeError("[weight_gemm] x must hold real numbers, got dtype bool")
    rows, turned, words, shape = _mixed_operands("weight_gemm", as_float32(numbers), np.float32, w)
    alpha, _, bias = scales_of("weight_gemm", shape, alpha, None, bias)
    result = Result("weight_gemm", shape, np.float32, out, rows, words, alpha, bias)
    _core.weight_gemm(rows, words, alpha, bias, result.matrix, turned)
    return result.deliver()


def bitplane_gemm(
    x: ArrayLike,
    w: ArrayLike | BitArray | Prepacked,
    *,
    bits: int = 8,
    alpha: ArrayLike | None = None,
    bias: ArrayLike | None = None,
    out: NDArray[Any] | None = None,
) -> NDArray[Any]:
    """Multiply small unsigned integers with weights of +1 and -1, exactly.

    Parameters
    ----------
    x : array_like of shape (..., m, k), uint8
    w : BitArray of shape (n, k), packed along k; or array_like, packed by sign; or Prepacked
    bits : int in 1..8, default 8
        The numbers are in 0..2**bits - 1. Products are faster with one or two bits.
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
        If `x` is not uint8, `bits` is not an integer, `w` or a scale does not hold real numbers, or
        `out` is not an ndarray of the dtype of the result.
    ValueError
        If a number exceeds ``2**bits - 1``, `bits` is not in 1..8, k differs or is so large that
        ``255 * k`` exceeds int32, a shape does not fit, `w` holds NaN, or `out` is read-only.

    Notes
    -----
    ``dot = sum_k x[m, k] w[n, k]`` is exact. A scaled result is
    ``float32(dot) * alpha[n] + bias[n]`` with each step rounded to float32, as in `gemm`.

    References
    ----------
    M. Courbariaux, I. Hubara et al., "Binarized Neural Networks", 2016, equation 8: the first layer
    as a sum over the bit planes of 8-bit inputs.

    Examples
    --------
    >>> import numpy as np
    >>> bitplane_gemm(np.array([[255, 3, 1]], np.uint8), [[1.0, -1.0, -1.0], [-1.0, 1.0, 1.0]])
    array([[ 251, -251]], dtype=int32)
    """
    if type(bits) is int and 1 <= bits <= 8:
        usual = _core.usual_mixed(bits, x, w, alpha, bias, out)
        if usual is not None:
            return usual
    return code_gemm(x, w, bits, 0, alpha=alpha, bias=bias, out=out)


def code_gemm(
    x: ArrayLike,
    w: ArrayLike | BitArray | Prepacked,
    bits: int,
    zero: int,
    *,
    alpha: ArrayLike | None = None,
    bias: ArrayLike | None = None,
    most: int | None = None,
    out: NDArray[Any] | None = None,
) -> NDArray[Any]:
    """Do what `bitplane_gemm` does for the numbers x - zero, of which x are codes.

    `most` is their largest magnitude if it is known, so that the codes need not be looked at.
    """
    if isinstance(x, BitArray):
        raise TypeError("[bitplane_gemm] x must have dtype uint8, got a BitArray (gemm takes bits)")
    numbers = plain_array("bitplane_gemm", "x", x)
    if numbers.dtype != np.uint8:
        raise TypeError(f"[bitplane_gemm] x must have dtype uint8, got {numbers.dtype}")
    check_integer("bitplane_gemm", "bits", bits, 1, 8)
    rows, turned, words, shape = _mixed_operands("bitplane_gemm", numbers, np.uint8, w)
    most = check_sums("bitplane_gemm", numbers, bits, numbers.shape[-1], zero, most)
    scales = scales_of("bitplane_gemm", shape, alpha, None, bias)
    dtype = np.int32 if scales is NO_SCALES else np.float32
    result = Result("bitplane_gemm", shape, dtype, out, rows, words, *scales)
    panels = w.panels() if isinstance(w, Prepacked) else None
    if scales is NO_SCALES:
        _core.bitplane_gemm(rows, words, panels, bits, result.matrix, turned, zero, most)
    else:
        alpha, _, bias = scales
        _core.bitplane_gemm_scaled(
            rows, words, panels, bits, alpha, bias, result.matrix, turned, zero, most
        )
    return result.deliver()


def check_sums(
    where: str, x: NDArray[np.uint8], bits: int, k: int, zero: int = 0, most: int | None = None
) -> int:
    """Check that numbers have at most this many bits, and that sums of k numbers fit int32.

    With `most` given, numbers are not looked at.

    Returns
    -------
    int
        The largest magnitude of x - zero; for 8 bits, whose numbers are not looked at, 0.
    """
    if 255 * k > MAX_BITS:
        raise ValueError(f"[{where}] k must be at most {MAX_BITS // 255} for int32 sums, got {k}")
    if most is not None:
        return most
    if bits == 8 or not x.size:
        return 0
    most = int(x.max())
    if most >> bits:
        raise ValueError(f"[{where}] x must be at most {2**bits - 1} for bits={bits}, got {most}")
    return max(most - zero, zero - int(x.min())) if zero else most


def _mixed_operands(
    where: str, x: NDArray[Any], dtype: DTypeLike, w: ArrayLike | BitArray | Prepacked
) -> tuple[NDArray[Any], bool, NDArray[np.uint64], tuple[int, ...]]:
    """Check numbers (..., m, k) and weights (n, k) against each other.

    Returns
    -------
    rows : ndarray of shape (all rows of x, k), `dtype`; of shape (k, m) if turned
    turned : bool
        Whether x is the transpose of an array whose many columns the kernels read in place.
    words : ndarray of shape (n, k_words), uint64
    shape : tuple of int
        Shape (..., m, n) of the result.
    """
    weights = weights_matrix(where, "w", w)
    if weights.ndim != 2:
        raise ValueError(f"[{where}] w must have shape (n, k), got {weights.shape}")
    if x.ndim < 2:
        raise ValueError(f"[{where}] x must have at least two axes, got shape {x.shape}")
    n, k = weights.shape
    if x.shape[-1] != k:
        raise ValueError(f"[{where}] x and w must have the same k, got {x.shape[-1]} and {k}")
    shape = (*x.shape[:-1], n)
    check_result(where, shape)
    turned = x.ndim == 2 and x.shape[0] >= TURNED_ROWS and k >= TURNED_BITS
    turned = turned and x.T.flags.c_contiguous and x.flags.aligned and not x.flags.c_contiguous
    rows = x.T if turned else as_matrix(np.require(x, dtype, ("C", "A")))
    return rows, turned, contiguous_rows(weights), shape
