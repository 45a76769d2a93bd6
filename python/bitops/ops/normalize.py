"""Batch normalisation of rows for training: sums, numbers or bits that come out, gradients.

Each function passes once over the rows, and makes no array between. `BatchNorm` states the
equations. Sums have a fixed order: the same bits with any number of threads and on every ISA.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from .. import _core
from .array import BitArray
from .memory import aligned_empty, mapped_empty, word_count

__all__ = ["Normalized", "column_totals", "keep_within", "positives", "signs_within"]

Numbers = NDArray[np.float32]
Kept = Numbers | NDArray[np.int16]


def float_rows(x: Kept) -> Numbers:
    """Return numbers as a contiguous matrix of float32, a row for each position."""
    rows = x.reshape(-1, x.shape[-1]) if x.size else np.empty((0, x.shape[-1]), np.float32)
    return np.require(rows, np.float32, ("C", "A"))


def column_totals(
    x: Numbers, *, relu: bool = False, mean: Numbers | None = None, powers: bool = False
) -> NDArray[np.float64]:
    """Sum each feature over all rows: x, or max(x, 0), or the squares of its distance c to a mean.

    With `powers`, c * AP2(c) takes the place of the squares.
    Numbers are added in float32: up to 512 rows from the first to the last, more rows in blocks of
    64, whose sums are added in float64. So a sum may be infinite although float64 would hold it.
    """
    sums = np.empty(x.shape[-1], np.float64)
    _core.norm_sums(float_rows(x), relu, sums, mean, powers)
    return sums


def _bits_like(x: Kept) -> BitArray:
    """Return an uninitialised BitArray of the shape of x, packed along the last axis."""
    words = aligned_empty((*x.shape[:-1], word_count(x.shape[-1])), np.uint64)
    return BitArray._make(words, x.shape, x.ndim - 1)


def _rows_of(b: BitArray) -> NDArray[np.uint64]:
    *rows, words = b._words.shape
    return b._words.reshape(math.prod(rows), words)


def _refuse_nan(where: str, has_nan: bool) -> None:
    if has_nan:
        raise ValueError(f"[{where}] x must not hold NaN, which has no sign, got NaN")


def signs_within(where: str, x: Numbers, limit: float) -> tuple[BitArray, BitArray]:
    """Pack the signs of x, and where its magnitude is at most a limit.

    Raises
    ------
    ValueError
        If x holds NaN.
    """
    signs, within = _bits_like(x), _bits_like(x)
    has_nan = _core.norm_signs(float_rows(x), limit, _rows_of(signs), _rows_of(within))
    _refuse_nan(where, has_nan)
    return signs, within


def positives(x: Numbers) -> tuple[Numbers, BitArray]:
    """Return max(x, 0), and the bits of the numbers above 0; NaN stays NaN, with a bit of 0."""
    rows = float_rows(x)
    y, positive = aligned_empty(rows.shape, np.float32), _bits_like(x)
    _core.norm_positives(rows, y, _rows_of(positive))
    return y.reshape(x.shape), positive


def keep_within(x: Numbers, within: BitArray) -> Numbers:
    """Return x where a bit is 1, else 0 times x."""
    rows = float_rows(x)
    y = aligned_empty(rows.shape, np.float32)
    _core.keep_within(rows, _rows_of(within), y)
    return y.reshape(x.shape)


@dataclass(frozen=True)
class Normalized:
    """Rows that are normalised over the batch; what comes out is computed when it is asked for.

    Parameters
    ----------
    x : ndarray of shape (..., features), float32; or int16, for the gradient alone
    relu : bool
        Whether max(x, 0) is normalised.
    mean, inv_std, gamma, beta : ndarray of shape (features,), float32
    powers : bool
        Whether the gradient takes AP2(xhat) for xhat, as that of `ShiftBatchNorm` does.
    """

    x: Kept
    relu: bool
    mean: Numbers
    inv_std: Numbers
    gamma: Numbers
    beta: Numbers
    powers: bool = False

    def _arrays(self, *more: Numbers) -> Numbers:
        return np.stack([self.mean, self.inv_std, self.gamma, self.beta, *more])

    def narrowed(self) -> Normalized:
        """Return what the gradient needs, in half the memory if x are integers below 2^15."""
        rows = float_rows(self.x)
        halves = mapped_empty(rows.shape, np.int16)
        if not _core.norm_narrow(rows, halves):
            return self
        return replace(self, x=halves.reshape(self.x.shape))

    def _kept_rows(self) -> Kept:
        return (
            self.x.reshape(-1, self.x.shape[-1]) if self.x.dtype == np.int16 else float_rows(self.x)
        )

    def xhat(self) -> Numbers:
        """Return the numbers before they are scaled by gamma."""
        t = np.maximum(self.x, np.float32(0)) if self.relu else self.x
        return (t - self.mean) * self.inv_std

    def values(self) -> Numbers:
        """Return the outputs."""
        rows = float_rows(self.x)
        y = aligned_empty(rows.shape, np.float32)
        _core.norm_values(rows, self._arrays(), self.relu, y)
        return y.reshape(self.x.shape)

    def positives(self) -> tuple[Numbers, BitArray]:
        """Do for the outputs what the function of this name does for numbers."""
        rows = float_rows(self.x)
        y, positive = aligned_empty(rows.shape, np.float32), _bits_like(self.x)
        _core.norm_positives(rows, y, _rows_of(positive), self._arrays(), self.relu)
        return y.reshape(self.x.shape), positive

    def signs_within(self, where: str, limit: float) -> tuple[BitArray, BitArray]:
        """Do for the outputs what the function of this name does for numbers."""
        signs, within = _bits_like(self.x), _bits_like(self.x)
        has_nan = _core.norm_signs(
            float_rows(self.x), limit, _rows_of(signs), _rows_of(within), self._arrays(), self.relu
        )
        _refuse_nan(where, has_nan)
        return signs, within

    def product_totals(self, dy: Numbers, within: BitArray | None) -> NDArray[np.float64]:
        """Sum dy * xhat, and dy, of each feature over all rows; 0 takes the place of some dy.

        Parameters
        ----------
        dy : ndarray of the shape of x, float32
        within : BitArray of the same shape, or None
            Bits of the dy that count.

        Returns
        -------
        ndarray of shape (2, features)
            Added up as `column_totals` does.
        """
        sums = np.empty((2, self.x.shape[-1]), np.float64)
        bits = None if within is None else _rows_of(within)
        _core.norm_products(
            self._kept_rows(), float_rows(dy), self._arrays(), self.relu, sums, bits, self.powers
        )
        return sums

    def gradient(
        self,
        dy: Numbers,
        within: BitArray | None,
        by_xhat: Numbers,
        less: Numbers,
        factor: Numbers,
    ) -> Numbers:
        """Return ((xhat * by_xhat + dy) - less) * factor, times the derivative of the ReLU.

        Parameters
        ----------
        dy, within
            As in `product_totals`.
        by_xhat, less, factor : ndarray of shape (features,), float32
        """
        rows = float_rows(dy)
        dx = aligned_empty(rows.shape, np.float32)
        bits = None if within is None else _rows_of(within)
        arrays = self._arrays(by_xhat, less, factor)
        _core.norm_gradient(self._kept_rows(), rows, arrays, self.relu, dx, bits, self.powers)
        return dx.reshape(self.x.shape)
