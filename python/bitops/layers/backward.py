"""Backward products with +-1 operands: real gradients times bits that stay packed.

A layer y = x W^T with x and W of +-1 has the gradients dx = dy W and dW = dy^T x. Both multiply
real numbers by signs, and `weight_gemm` does that two to three times faster than float32 BLAS.

Gradients may also be rounded at random to 8 bits or fewer (`quantizers.ByteGradient`), whose
products are faster still. Patches of bytes are also small enough to compute dx of a convolution
with stride 1 as a convolution of dy with reversed filters. In one dimension, with the taps w0 w1
w2:

    forward     y[i]  = x[i] w0 + x[i+1] w1 + x[i+2] w2
    backward    dx[j] = dy[j-2] w2 + dy[j-1] w1 + dy[j] w0
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import cached_property

import numpy as np

from ..ops.array import BitArray, pack
from ..ops.conv import im2col
from ..ops.counts import popcount
from ..ops.geometry import Pair, Window
from ..ops.mixed_conv import code_conv2d, products_to_images
from ..ops.mixed_gemm import code_gemm, weight_gemm
from ..ops.patches import tap_slices
from ..quantizers import ByteGradient
from .columns import column_sums

# Positions whose patches are transposed and summed into the gradient at once. Their bits and
# gradients must stay in the second-level cache; fewer would mean more passes over the gradient.
POSITIONS = 4096

# Pixels for each output position up to which dx is a convolution of dy: one of a kernel as large as
# the image would mostly see zeros around it.
FEW_MORE = 4

# How many times as large as another one a filter's scale may be if both gradients of a convolution
# take the same rounded numbers: those of the smallest scale are rounded so many times as coarsely.
# Scales that are closer to 0 than LEAST could make products of gradients too small to be rounded.
ALIKE, LEAST = 4, 2.0**-16


class Gradient:
    """Gradient of the outputs of a layer, to be multiplied by bits.

    Parameters
    ----------
    dy : ndarray of shape (..., n), float32
    alpha : ndarray of shape (n,), float32, optional
        The gradient is dy * alpha, which is made only if somebody asks for it.
    """

    def __init__(self, dy: np.ndarray, alpha: np.ndarray | None = None):
        self._dy, self.alpha = dy, alpha

    @cached_property
    def exact(self) -> np.ndarray:
        """The gradient itself."""
        return self._dy if self.alpha is None else self._dy * self.alpha

    @property
    def numbers(self) -> np.ndarray:
        """What products multiply by bits."""
        return self.exact

    def matrix(self, index=slice(None)) -> np.ndarray:
        """Return the numbers of some positions as rows."""
        return self.numbers[index].reshape(-1, self.numbers.shape[-1])

    def scaled(self, alpha: np.ndarray | None) -> Gradient:
        """Return the gradient of the unscaled products; alpha has one scale a filter or is None."""
        return self if alpha is None else Gradient(self.exact, alpha)

    def for_images_and_filters(self, alpha: np.ndarray | None) -> tuple[Gradient, Gradient]:
        """Return what gives the gradient of the images, dy * alpha, and that of the filters, dy."""
        return self.scaled(alpha), self

    def finish(self, out: np.ndarray) -> None:
        """Turn products of `numbers` and patches, a row for each filter, into their gradient."""

    def kept(self) -> Gradient:
        """Return what products need later, when others may have written to `exact`."""
        return Gradient(np.array(self.exact, order="C"))

    def twice(self, step: float) -> Gradient:
        """Return it for both signs of each of `SignPairs`, times their step."""
        numbers = np.repeat(self.exact, 2, axis=0)
        numbers *= np.float32(step)
        return Gradient(numbers)

    def sum_over_images(self) -> np.ndarray:
        """Return the sum over the images (n, oh, ow, o), float32."""
        images = self.exact
        if not len(images):
            return np.zeros(images.shape[1:], np.float32)
        sums = column_sums(images.reshape(len(images), -1)).astype(np.float32)
        return sums.reshape(images.shape[1:])

    def times(self, rows: np.ndarray, bits: BitArray, out: np.ndarray | None = None) -> np.ndarray:
        """Multiply rows of `numbers`, or of their transpose, by bits of shape (k, row length)."""
        return weight_gemm(rows, bits, out=out)

    def code_scales(self, bits: BitArray) -> tuple[int, np.ndarray | None, np.ndarray | None]:
        """Return zero, alpha and bias that make products of `numbers` those of the gradient.

        They are sum((number - zero) bit) alpha + bias, with an alpha and a bias for each row of
        bits, or None for 1 and 0.
        """
        return 0, None, None

    def to_images(self, bits: BitArray, window: Window, shape: tuple[int, ...]) -> np.ndarray:
        """Return the gradient of the images of a convolution with +-1 filters, without groups.

        Parameters
        ----------
        bits : BitArray of shape (kh * kw * c, n), packed along n
            The filters, see `Planes.transposed`.
        window : Window
        shape : (images, h, w, c)
            Shape of the images.

        Returns
        -------
        ndarray of shape (images, h, w, c), float32
        """
        return products_to_images(self.exact, bits, window, shape)


class RoundedGradient(Gradient):
    """A gradient that is rounded at random to bytes, on first use.

    Parameters
    ----------
    dy : ndarray of shape (..., n), float32
        Must not change before that.
    rounding : ByteGradient
    alpha : ndarray of shape (n,), float32, optional
        The gradient is dy * alpha, which is made only if somebody asks for it exactly.
    """

    def __init__(self, dy: np.ndarray, rounding: ByteGradient, alpha: np.ndarray | None = None):
        super().__init__(dy, alpha)
        self.rounding = rounding
        # If the bytes are those of dy times these, what products are divided by, row by row.
        self.divisors: np.ndarray | None = None

    @cached_property
    def _rounded(self) -> tuple[np.ndarray, float]:
        return self.rounding.round(self._dy, self.alpha)

    @property
    def numbers(self) -> np.ndarray:
        return self._rounded[0]

    @property
    def step(self) -> float:
        """The gradient that one unit of a byte stands for."""
        return self._rounded[1]

    def scaled(self, alpha: np.ndarray | None) -> Gradient:
        return self if alpha is None else RoundedGradient(self.exact, self.rounding, alpha)

    def for_images_and_filters(self, alpha: np.ndarray | None) -> tuple[Gradient, Gradient]:
        scaled = self.scaled(alpha)
        if alpha is None or not max(LEAST, alpha.max() / ALIKE) <= alpha.min():
            return scaled, self
        assert isinstance(scaled, RoundedGradient)
        filters = self._of_codes(*scaled._rounded)
        # Products in BLAS, of numbers of few positions, take the exact one.
        filters._dy, filters.divisors = self.exact, alpha
        return scaled, filters

    def finish(self, out: np.ndarray) -> None:
        if self.divisors is not None:
            out /= self.divisors.reshape(-1, *[1] * (out.ndim - 1))

    def kept(self) -> Gradient:
        return self._of_codes(*self._rounded)

    def twice(self, step: float) -> Gradient:
        return self._of_codes(np.repeat(self.numbers, 2, axis=0), self.step * step)

    def _of_codes(self, numbers: np.ndarray, step: float) -> RoundedGradient:
        """Return a gradient that was rounded to these; products do not read the exact one."""
        made = RoundedGradient(np.empty(0, np.float32), self.rounding)
        made._rounded, made.divisors = (numbers, step), self.divisors
        return made

    def sum_over_images(self) -> np.ndarray:
        count = len(self.numbers)
        exact = np.int32 if count < 2**23 else np.int64  # the former takes an eighth of the time
        sums = self.numbers.sum(axis=0, dtype=exact)
        return (sums - exact(count * self.rounding.zero)) * np.float32(self.step)

    def times(self, rows: np.ndarray, bits: BitArray, out: np.ndarray | None = None) -> np.ndarray:
        zero, bias = self._correction(bits)
        scales = {"alpha": self.step, "bias": bias}
        most = self._largest(zero)
        return code_gemm(rows, bits, self.rounding.bits, zero, **scales, most=most, out=out)

    def code_scales(self, bits: BitArray) -> tuple[int, np.ndarray | None, np.ndarray | None]:
        zero, bias = self._correction(bits)
        alpha = np.full(len(bits), self.step, np.float32)
        return zero, alpha, None if bias is None else bias.astype(np.float32)

    def _correction(self, bits: BitArray) -> tuple[int, np.ndarray | None]:
        """Return what products of codes subtract from these, or else add to their outputs.

        sum((code - zero) bit) step = sum(code bit) step - zero sum(bit) step

        The right side, rounded twice, is that of 8 bits, so that trainings go on as they began.
        """
        if self.rounding.bits < 8:
            return self.rounding.zero, None
        ones = popcount(bits, axis=-1).reshape(len(bits), -1).sum(axis=1)
        return 0, -self.rounding.zero * self.step * (2 * ones - math.prod(bits.shape[1:]))

    def _largest(self, zero: int) -> int | None:
        """Return the largest magnitude of a code less `zero`; None if that is the code itself."""
        return self.rounding.most if zero else None

    def to_images(self, bits: BitArray, window: Window, shape: tuple[int, ...]) -> np.ndarray:
        padding = _padding_around(window)
        if padding is not None and math.prod(window.image) <= FEW_MORE * math.prod(window.output):
            return self._convolve(_flipped(bits, window, shape[3]), padding, window.dilation)
        zero, bias = self._correction(bits)
        return products_to_images(
            self.numbers,
            bits,
            window,
            shape,
            alpha=self.step,
            bias=0 if bias is None else bias,
            zero=zero,
        )

    def _convolve(
        self, filters: BitArray, padding: tuple[Pair, Pair], dilation: Pair
    ) -> np.ndarray:
        """Convolve the gradient of images with filters of bits; positions outside are 0."""
        zero, bias = self._correction(filters)
        return code_conv2d(
            self.numbers,
            filters,
            self.rounding.bits,
            zero,
            padding=padding,
            dilation=dilation,
            alpha=self.step,
            bias=bias,
            outside=self.rounding.zero,
            most=self._largest(zero),
        )


def gradient_of(dy: np.ndarray, rounding: ByteGradient | None) -> Gradient:
    """Return the gradient of outputs as products take it, rounded if there is a rounding."""
    return Gradient(dy) if rounding is None else RoundedGradient(dy, rounding)


def _padding_around(window: Window) -> tuple[Pair, Pair] | None:
    """Return the padding with which dy, convolved, gives dx; None if no padding does."""
    if window.stride != (1, 1):
        return None
    reach = [(size - 1) * step for size, step in zip(window.kernel, window.dilation, strict=True)]
    (top, bottom), (left, right) = window.padding
    height, width = reach
    sides = (height - top, height - bottom), (width - left, width - right)
    return sides if min(map(min, sides)) >= 0 else None


def _flipped(transposed: BitArray, window: Window, channels: int) -> BitArray:
    """Return the filters of the backward convolution, (c, kh, kw, o) with both axes reversed."""
    words = transposed.words.reshape(*window.kernel, channels, -1)[::-1, ::-1].transpose(2, 0, 1, 3)
    shape = channels, *window.kernel, transposed.shape[1]
    return BitArray.from_words(np.ascontiguousarray(words), shape)


class WeightGradient:
    """The gradient dW = dy^T x of the weights of a dense layer, to be computed later.

    Parameters
    ----------
    dy : Gradient of shape (..., n)
    x : BitArray of shape (m, k), packed along k
        m is the number of positions of dy.
    """

    def __init__(self, dy: Gradient, x: BitArray):
        self.dy, self.bits = dy.kept(), pack(x.T)
        self.numbers = self.dy.matrix()
        self.zero, self.alpha, self.bias = self.dy.code_scales(self.bits)

    def write(self, out: np.ndarray) -> None:
        """Write dW to an array of shape (n, k), float32."""
        self.dy.times(self.numbers.T, self.bits, out)


def weight_gradient(dy: Gradient, x: BitArray, out: np.ndarray) -> None:
    """Compute the gradient of the weights of a dense layer; arguments as of `WeightGradient`."""
    dy.times(dy.matrix().T, pack(x.T), out)


class ConvWeightGradient:
    """The gradient of the filters of a convolution, to be computed later.

    Parameters
    ----------
    dy, x, window, pad_value
        As of `conv_weight_gradient`.
    """

    def __init__(self, dy: Gradient, x: BitArray, window: Window, pad_value: int):
        self.dy, self.window, self.pad_value = dy.kept(), window, pad_value
        self.x = BitArray._make(x.words.copy(), x.shape, x.axis)  # others may write to it by then

    def write(self, out: np.ndarray) -> None:
        """Write it to an array of shape (o, kh, kw, c), float32."""
        conv_weight_gradient(self.dy, self.x, self.window, self.pad_value, out)


def conv_weight_gradient(
    dy: Gradient, x: BitArray, window: Window, pad_value: int, out: np.ndarray
) -> None:
    """Compute the gradient of the filters of a convolution of bits, without groups.

    Parameters
    ----------
    dy : Gradient of shape (n, oh, ow, o)
    x : BitArray of shape (n, h, w, c), packed along c
    window : Window
    pad_value : {0, 1, -1}
        Value of the positions outside the image.
    out : ndarray of shape (o, kh, kw, c), float32
        Gradient of the filters, written here.
    """
    positions = window.output[0] * window.output[1]
    matrix = out.reshape(len(out), -1)
    if not len(x):
        matrix[...] = 0
    for images in _images_at_a_time(len(x), positions):
        rows = im2col(
            x[images],
            window.kernel,
            stride=window.stride,
            padding=window.padding,
            dilation=window.dilation,
            pad_value=pad_value or -1,
        )
        transposed = pack(rows.reshape(-1, rows.shape[-1]).T)
        if images.start == 0:
            dy.times(dy.matrix(images).T, transposed, matrix)
        else:
            matrix += dy.times(dy.matrix(images).T, transposed)
    if pad_value == 0 and window.is_padded:
        out += _sums_outside(dy, window)
    dy.finish(out)


def _images_at_a_time(n: int, positions: int) -> Iterator[slice]:
    step = max(POSITIONS // max(positions, 1), 1)
    return (slice(first, first + step) for first in range(0, n, step))


def _sums_outside(dy: Gradient, window: Window) -> np.ndarray:
    """Sum dy over the positions whose tap lies outside the image; shape (o, kh, kw, 1).

    Patches of bits hold -1 outside the image, where a pad_value of 0 means 0. They have therefore
    added -dy for each such position, and adding this sum corrects that.
    """
    by_position = dy.sum_over_images()
    total = column_sums(by_position)
    kh, kw = window.kernel
    outside = np.empty((kh, kw, total.size), np.float32)
    everywhere = tuple(slice(0, size) for size in window.output)
    for ky in range(kh):
        lines, _ = tap_slices(window, 0, ky, everywhere[0])
        for kx in range(kw):
            columns, _ = tap_slices(window, 1, kx, everywhere[1])
            outside[ky, kx] = total - column_sums(by_position[lines, columns])
    return outside.transpose(2, 0, 1)[..., np.newaxis]
