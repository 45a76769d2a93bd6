"""Products of matrices, Hamming distances, and binarized weights."""

import math
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from .arrays import pack, pack_above, sign


def matmul(a: ArrayLike, b: ArrayLike) -> NDArray[np.int32]:
    """Return ``sign(a) @ sign(b)``.

    Parameters
    ----------
    a, b : array_like, bool or real
        Of shapes that ``np.matmul`` takes.

    Returns
    -------
    ndarray or scalar, int32
    """
    # float64 is exact for integers below 2**53, and uses BLAS.
    return np.matmul(sign(a, np.float64), sign(b, np.float64)).astype(np.int32)


def gemm(
    a: ArrayLike,
    w: ArrayLike,
    *,
    alpha: ArrayLike | None = None,
    k_map: ArrayLike | None = None,
    bias: ArrayLike | None = None,
) -> NDArray[Any]:
    """Multiply the signs of each row of `a` with those of each row of `w`, and scale the products.

    Parameters
    ----------
    a : array_like of shape (..., m, k), bool or real
    w : array_like of shape (..., n, k), bool or real
        The leading axes of both broadcast.
    alpha : None, float or array_like of shape (n,)
        Scale of each row of `w` (alpha of XNOR-Net).
    k_map : None, float or array_like of shape (..., m)
        Scale of each row of `a` (K of XNOR-Net).
    bias : None, float or array_like of shape (n,)
        Added at the end.

    Returns
    -------
    ndarray of shape (..., m, n)
        int32; float32 if alpha, k_map or bias is given.

    Notes
    -----
    ``C[i, j] = (dot(a[i], w[j]) * alpha[j]) * k_map[i] + bias[j]``, each step rounded to float32.
    """
    return scaled_dot(matmul(a, np.swapaxes(sign(w), -1, -2)), alpha, k_map, bias)


def scaled_dot(
    dot: NDArray[np.int32],
    alpha: ArrayLike | None,
    k_map: ArrayLike | None,
    bias: ArrayLike | None,
) -> NDArray[Any]:
    """Scale dot products as `gemm` does."""
    if alpha is None and k_map is None and bias is None:
        return dot
    t = dot.astype(np.float32)
    if alpha is not None:
        t *= np.asarray(alpha, np.float32)
    if k_map is not None:
        t *= np.asarray(k_map, np.float32)[..., np.newaxis]
    if bias is not None:
        t += np.asarray(bias, np.float32)
    return t


def gemm_sign(
    a: ArrayLike, w: ArrayLike, threshold: ArrayLike, *, flip: ArrayLike | None = None
) -> NDArray[np.int8]:
    """Multiply the signs of each row of `a` with those of each row of `w`; compare with thresholds.

    Parameters
    ----------
    a : array_like of shape (..., m, k), bool or real
    w : array_like of shape (..., n, k), bool or real
    threshold : int or array_like of shape (n,), integer
    flip : None, bool or array_like of shape (n,), bool

    Returns
    -------
    ndarray of shape (..., m, n), int8
        +1 where ``(dot > threshold) ^ flip``, else -1.
    """
    return pack_above(gemm(a, w), threshold, flip=flip)


def hamming(a: ArrayLike, b: ArrayLike, *, dtype: DTypeLike = np.int32) -> NDArray[Any]:
    """Count the elements in which each row of `a` differs from each row of `b`.

    Parameters
    ----------
    a : array_like of shape (..., m, k), bool or real
    b : array_like of shape (..., n, k), bool or real
        The leading axes of both broadcast.
    dtype : int32 or uint16, default int32

    Returns
    -------
    ndarray of shape (..., m, n), `dtype`
    """
    mismatch = pack(a)[..., :, np.newaxis, :] ^ pack(b)[..., np.newaxis, :, :]
    return np.bitwise_count(mismatch).sum(axis=-1, dtype=dtype)


def hamming_topk(
    a: ArrayLike, b: ArrayLike, count: int
) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """Find the rows of `b` that are nearest to each row of `a`; ties go to the smaller index.

    Parameters
    ----------
    a : array_like of shape (m, k), bool or real
    b : array_like of shape (n, k), bool or real
    count : int
        How many rows to find for each row of `a`, at most n.

    Returns
    -------
    distances : ndarray of shape (m, count), int32
    indices : ndarray of shape (m, count), int64
    """
    distances = hamming(a, b)
    indices = np.argsort(distances, axis=-1, kind="stable")[:, :count].astype(np.int64)
    return np.take_along_axis(distances, indices, axis=-1), indices


def weight_gemm(
    x: ArrayLike,
    w: ArrayLike,
    *,
    alpha: ArrayLike | None = None,
    bias: ArrayLike | None = None,
) -> NDArray[np.float32]:
    """Multiply real numbers with the signs of each row of `w`, summing in a fixed order.

    Parameters
    ----------
    x : array_like of shape (..., m, k), real
        Used as float32.
    w : array_like of shape (n, k), bool or real
    alpha, bias : None, float or array_like of shape (n,)
        Scale of each row of `w`, and what is added at the end.

    Returns
    -------
    ndarray of shape (..., m, n), float32

    Notes
    -----
    Each step is rounded to float32. A row of x, padded with zeros, is cut into groups of four. The
    sum of a group is ``((+-x0 +-x1) +-x2) +-x3``. The groups are added from first to last, starting
    from 0.
    """
    x, signs = np.asarray(x, np.float32), sign(w, np.float32)
    k = x.shape[-1]
    padding = [(0, 0)] * (x.ndim - 1) + [(0, -k % 4)]
    x = np.pad(x, padding)
    signs = np.pad(signs, [(0, 0), (0, -k % 4)], constant_values=-1)
    t = np.zeros((*x.shape[:-1], len(signs)), np.float32)
    for first in range(0, k, 4):
        terms = [x[..., i, np.newaxis] * signs[:, i] for i in range(first, first + 4)]
        t += ((terms[0] + terms[1]) + terms[2]) + terms[3]
    return scaled(t, alpha, bias)


def bitplane_gemm(
    x: ArrayLike,
    w: ArrayLike,
    *,
    bits: int = 8,
    alpha: ArrayLike | None = None,
    bias: ArrayLike | None = None,
) -> NDArray[Any]:
    """Multiply small unsigned integers with the signs of each row of `w`, plane by plane.

    Parameters
    ----------
    x : array_like of shape (..., m, k), uint8
        Numbers below ``2**bits``.
    w : array_like of shape (n, k), bool or real
    bits : int, default 8
    alpha, bias : None, float or array_like of shape (n,)
        Scale of each row of `w`, and what is added at the end.

    Returns
    -------
    ndarray of shape (..., m, n)
        int32; float32 if alpha or bias is given.

    References
    ----------
    M. Courbariaux, I. Hubara et al., "Binarized Neural Networks", 2016, equation 8.
    """
    x, signs = np.asarray(x), sign(w, np.float64)
    planes = (2.0**bit * np.matmul(x >> bit & 1, signs.T) for bit in range(bits))
    dot = sum(planes, np.zeros(())).astype(np.int32)
    return dot if alpha is None and bias is None else scaled(dot.astype(np.float32), alpha, bias)


def scaled(
    t: NDArray[np.float32], alpha: ArrayLike | None, bias: ArrayLike | None
) -> NDArray[np.float32]:
    """Scale sums in place, and return them."""
    if alpha is not None:
        t *= np.asarray(alpha, np.float32)
    if bias is not None:
        t += np.asarray(bias, np.float32)
    return t


def binarize_weights(w: ArrayLike) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Approximate real filters by their signs and one scale per filter.

    Parameters
    ----------
    w : array_like of shape (n, ...), real
        The n filters.

    Returns
    -------
    signs : ndarray of the shape of `w`, int8
    alpha : ndarray of shape (n,), float32
        Mean absolute weight of each filter, summed in float64.

    Notes
    -----
    ``alpha * sign(w)`` minimises the squared error, whose derivative with respect to alpha is 0 at
    ``alpha = ||w||_1 / size``.

    References
    ----------
    M. Rastegari et al., "XNOR-Net", 2016, equations 4 to 6.
    """
    w = np.asarray(w)
    magnitudes = np.abs(w, dtype=np.float64)
    alpha = magnitudes.sum(axis=tuple(range(1, w.ndim))) / max(math.prod(w.shape[1:]), 1)
    return sign(w), alpha.astype(np.float32)
