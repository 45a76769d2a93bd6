"""The gradient of binary filters for images of numbers: dW = dy^T c(x), c the patches (im2col).

Exact, it is a product of float32 in BLAS. A gradient that is rounded to bytes is multiplied by
numbers that are, too: with the codes a of dy and b of x, and zeros a0 and b0,

    sum((a - a0) (b - b0)) = sum((a - a0) b) - b0 sum(a - a0),

which is exact in int32. Codes b have 7 bits, so that kernels can add two products in 16 bits.
"""

from __future__ import annotations

import numpy as np

from .. import _core
from ..ops.geometry import Window
from ..ops.patches import patch_blocks
from .backward import Gradient, RoundedGradient
from .float_conv import conv_gradients
from .inputs import Activation, Codes, as_float, is_data

ROWS, COLUMNS = 16, 32  # sums are made in blocks of these
POSITIONS = 1024  # whose patches are multiplied at once
MOST_POSITIONS = 2**31 // (128 * 127) // POSITIONS * POSITIONS  # whose sums fit int32
CODE_BITS = 7


def number_weight_gradient(dy: Gradient, x: Activation, window: Window, out: np.ndarray) -> None:
    """Compute the gradient of filters, without groups, for images of numbers.

    Parameters
    ----------
    dy : Gradient of shape (n, oh, ow, o)
    x : Codes, or ndarray of uint8, int32 or float32, of shape (n, h, w, c)
    window : Window
    out : ndarray of shape (o, kh, kw, c), float32
        Gradient of the filters, written here.

    Raises
    ------
    ValueError
        If `dy` is to be rounded, and it or x holds infinities or NaN.
    """
    rounded = _rounded_numbers(dy, x) if isinstance(dy, RoundedGradient) else None
    if rounded is None:
        conv_gradients(x, dy.exact, out, window, 1, weight_grad=out, with_dx=False)
    else:
        assert isinstance(dy, RoundedGradient)
        _multiply_bytes(dy, *rounded, window, out.reshape(len(out), -1))


def _rounded_numbers(dy: RoundedGradient, x: Activation) -> tuple[np.ndarray, int, float] | None:
    """Return codes of x, the code of 0 and the step; None for numbers of 8 bits."""
    if isinstance(x, Codes):
        return (x.numbers, 0, x.step) if x.bits <= CODE_BITS else None
    return None if is_data(x) else dy.rounding.round_numbers(as_float(x))


def _multiply_bytes(
    dy: RoundedGradient,
    codes: np.ndarray,
    zero: int,
    step: float,
    window: Window,
    matrix: np.ndarray,
) -> None:
    """Write the gradient to a matrix of shape (o, kh * kw * c)."""
    filters, width = matrix.shape
    sums = np.zeros((-(-filters // ROWS) * ROWS, -(-width // COLUMNS) * COLUMNS), np.int32)
    own, totals = sums[:filters, :width], np.zeros((filters, 1), np.int32)
    positions, scale = 0, np.float32(dy.step * step)
    matrix[...] = 0
    for block, rows in patch_blocks(codes, window, outside=zero, max_bytes=POSITIONS * width):
        grads = dy.matrix(block)
        for first in range(0, len(rows), MOST_POSITIONS):  # of 1 x 1 all rows come in one block
            some = slice(first, first + MOST_POSITIONS)
            if positions + len(rows[some]) > MOST_POSITIONS:
                matrix += (own - zero * totals) * scale
                sums[...] = totals[...] = positions = 0
            positions += len(rows[some])
            _core.byte_gemm(grads[some], dy.rounding.zero, rows[some], sums)
            if zero:
                totals += _centred_sums(grads[some], dy.rounding.zero)
    matrix += (own - zero * totals) * scale


def _centred_sums(codes: np.ndarray, zero: int) -> np.ndarray:
    """Return the sums of codes - zero over the rows, of shape (columns, 1)."""
    return (codes.sum(axis=0, dtype=np.int32) - len(codes) * zero)[:, np.newaxis]
