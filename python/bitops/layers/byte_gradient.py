"""Real inputs of binary layers as bytes, and the gradient of filters for them.

That is dW = dy^T c(x), c the patches of x (im2col).

Exact, it is a product of float32 in BLAS. A gradient that is rounded to bytes is multiplied by
numbers that are, too: with the codes a of dy and b of x, and zeros a0 and b0, by

    sum((a - a0) (b - b0)) = sum((a - a0) b) - b0 sum(a - a0),

which is exact in int32.
"""

from __future__ import annotations

import math

import numpy as np

from ..ops.byte_gemm import BYTE_BITS, byte_gemm
from ..ops.geometry import Window
from ..ops.patches import patch_blocks
from ..quantizers import ByteGradient
from .backward import Gradient, RoundedGradient
from .float_conv import conv_gradients
from .inputs import Activation, Codes, StepInput, as_float, is_data

POSITIONS = 1024  # whose patches are multiplied at once
# Where there are fewer, BLAS is faster: positions, weights of a filter, and weights of all filters
# of 1 x 1, which have no patches.
LEAST_POSITIONS, LEAST_OF_FILTER, LEAST_OF_1X1 = 256, 32, 4096


def rounded_input(x: StepInput, rounding: ByteGradient) -> StepInput:
    """Round the input of a product to 7 bits if it is float32 and has no negative numbers.

    Raises
    ------
    ValueError
        If it holds infinity, or NaN.
    """
    if not isinstance(x, np.ndarray) or x.dtype.kind != "f" or x.min(initial=0) < 0:
        return x
    codes, _, step = rounding.round_numbers(x)
    return Codes(codes, BYTE_BITS, float(np.float32(step))) if step else x


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
    rounded = None
    if isinstance(dy, RoundedGradient) and _is_large(len(x), window, out):
        rounded = _rounded_numbers(dy, x)
    if rounded is None:
        conv_gradients(x, dy.exact, out, window, 1, weight_grad=out, with_dx=False)
        return
    assert isinstance(dy, RoundedGradient)
    codes, zero, step = rounded
    matrix = out.reshape(len(out), -1)
    patches = patch_blocks(codes, window, outside=zero, max_bytes=POSITIONS * matrix.shape[1])
    blocks = ((dy.matrix(block), rows) for block, rows in patches)
    byte_gemm(blocks, (dy.rounding.zero, zero), dy.step * step, matrix)
    dy.finish(matrix)


def _is_large(images: int, window: Window, out: np.ndarray) -> bool:
    """Return whether products of bytes take less time than BLAS."""
    return (
        images * math.prod(window.output) >= LEAST_POSITIONS
        and out[0].size >= LEAST_OF_FILTER
        and (window.taps > 1 or out.size >= LEAST_OF_1X1)
    )


def _rounded_numbers(dy: RoundedGradient, x: Activation) -> tuple[np.ndarray, int, float] | None:
    """Return codes of x, the code of 0 and the step; None for codes of 8 bits."""
    if isinstance(x, Codes):
        return (x.numbers, 0, x.step) if x.bits <= BYTE_BITS else None
    return None if is_data(x) else dy.rounding.round_numbers(as_float(x))
