"""Scales that make binary products approximate real ones (XNOR-Net)."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .array import BitArray, pack_operand, real_array

__all__ = ["binarize_weights"]


def binarize_weights(w: ArrayLike) -> tuple[BitArray, NDArray[np.float32]]:
    """The best binary approximation of real filters, ``W ~= alpha B``.

    Parameters
    ----------
    w : array_like of real numbers, shape (n, ..., k)
        Filters along the first axis: (n, k) of a dense layer, OHWI of a convolution.

    Returns
    -------
    b : BitArray of the shape of `w`, packed along the last axis
        sign(W), with sign(0) = +1.
    alpha : ndarray of shape (n,), float32
        Mean absolute weight of each filter, summed in float64; 0 for empty filters.

    Raises
    ------
    TypeError
        If `w` does not hold real numbers.
    ValueError
        If `w` has fewer than two axes or holds NaN.

    Notes
    -----
    ``B = sign(W)`` and ``alpha = ||W||_1 / n_w``, n_w the number of weights of a filter, minimise
    ``||W - alpha B||^2``.

    References
    ----------
    M. Rastegari et al., "XNOR-Net", 2016, equations 4 and 6.
    """
    array = real_array("binarize_weights", "w", w)
    if array.ndim < 2:
        raise ValueError(f"[binarize_weights] w must have at least two axes, got {array.shape}")
    b = pack_operand("binarize_weights", "w", array, -1)
    n_weights = max(array[0].size, 1) if array.shape[0] else 1
    # abs after the conversion: abs of the smallest integer of a type overflows in it.
    magnitudes = np.abs(array.astype(np.float64))
    alpha = magnitudes.sum(axis=tuple(range(1, array.ndim))) / n_weights
    return b, alpha.astype(np.float32)
