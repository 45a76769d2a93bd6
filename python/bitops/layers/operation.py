"""The two operations of layers with weights: products of rows, and convolutions of images.

A training layer and its packed twin hold the same operation, so both compute with the same code.
An operation checks sizes and inputs. It multiplies by +-1 weights or by float32 weights, forward
and backward:

                        forward                             backward
    +-1 weights         multiply, multiply_sign             gradients
    float32 weights     multiply_floats                     float_gradients
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from ..ops.array import BitArray, pack
from ..ops.conv import conv2d, conv2d_sign
from ..ops.geometry import Pair, Window
from ..ops.linalg import gemm, gemm_sign
from ..ops.mixed_conv import bitplane_conv2d, weight_conv2d
from ..ops.mixed_gemm import bitplane_gemm, weight_gemm
from ..ops.prepack import Prepacked
from ..ops.scaling import k_map
from .backward import (
    ConvWeightGradient,
    Gradient,
    WeightGradient,
    conv_weight_gradient,
    weight_gradient,
)
from .byte_gradient import number_weight_gradient
from .float_conv import conv_gradients, float_convolution
from .inputs import (
    Activation,
    Shape,
    SignPairs,
    StepInput,
    as_activation,
    as_float,
    as_images,
    check_size,
)
from .planes import Planes, sum_planes
from .windows import Padding, Windows, image_shape

if TYPE_CHECKING:
    from ..ops.plan import Value
    from .parameter import Parameter
    from .plans import Chain

# Inputs for each row of a batch from which the gradient of dense weights is left as a product,
# whose operands then are a small part of it.
DEFERRED = 4

# Channels, in and out, from which products with planes of filters take less time than one product
# in BLAS: with one plane of 1 x 1, which BLAS multiplies without patches, and with two of others.
SINGLE_CHANNELS, DOUBLE_CHANNELS = 64, 32


@dataclass(frozen=True)
class Linear:
    """Operation of dense layers: y = x W^T for every row x.

    Parameters
    ----------
    where : str
        Name of the layer, for error messages.
    in_features, out_features : int
    """

    where: str
    in_features: int
    out_features: int

    pad_value: ClassVar[int] = 0  # rows have no outside

    @classmethod
    def of(cls, where: str, in_features: int, out_features: int) -> Linear:
        """Check the sizes and return the operation."""
        return cls(
            where,
            check_size(where, "in_features", in_features),
            check_size(where, "out_features", out_features),
        )

    @classmethod
    def of_weights(cls, where: str, shape: tuple[int, ...]) -> Linear:
        """Check the sizes of weights (out_features, in_features) and return their operation."""
        return cls.of(where, shape[1], shape[0])

    @property
    def weight_shape(self) -> tuple[int, ...]:
        return self.out_features, self.in_features

    @property
    def fans(self) -> Pair:
        """Number of weights per output, and per input."""
        return self.in_features, self.out_features

    @property
    def options(self) -> dict[str, Any]:
        """Keyword arguments of the functions that multiply: none."""
        return {}

    @property
    def settings(self) -> dict[str, Any]:
        """Keyword arguments of the layers: none."""
        return {}

    @property
    def sizes(self) -> dict[str, Any]:
        """Arguments of the training layers that say the shape of their weights."""
        return {"in_features": self.in_features, "out_features": self.out_features}

    def for_units(self) -> Linear:
        """Return the operation for bits that stand for 0 and 1: the same."""
        return self

    def input(self, x) -> Activation:
        """Check an input and return it as an activation."""
        return as_activation(self.where, x, self.in_features)

    def output_shape(self, shape: Shape) -> Shape:
        return (*shape[:-1], self.out_features)

    def multiply(
        self, x: BitArray | np.ndarray, w: BitArray | Prepacked, *, bits: int = 8, **scales: Any
    ) -> np.ndarray:
        """Return the products with +-1 weights.

        Parameters
        ----------
        x : BitArray, or ndarray of uint8, int32 or float32
        w : BitArray of `weight_shape`, or Prepacked
        bits : int
            Values of uint8 are in 0..2^bits - 1.
        **scales
            alpha and bias, as in `bitops.gemm`.

        Returns
        -------
        ndarray
            Bits and uint8 without scales give exact integers, int32. Otherwise the result is
            float32; sums of real numbers have the fixed order of `weight_gemm`.
        """
        if isinstance(x, BitArray):
            return gemm(x, w, **scales)
        if x.dtype == np.uint8:
            return bitplane_gemm(x, w, bits=bits, **scales)
        return weight_gemm(x, w, **scales)

    def multiply_sign(
        self, x: BitArray, w: Prepacked, threshold: np.ndarray, flip: BitArray | None
    ) -> BitArray:
        """Return the bits (dot > threshold) ^ flip, for int32 thresholds."""
        return gemm_sign(x, w, threshold, flip=flip)

    def compile_bits(
        self, chain: Chain, x: Value, w: Prepacked, outputs: dict[str, Any]
    ) -> Value | None:
        """Add the product of bits to a plan; `outputs` are those of `Program.gemm`."""
        return chain.gemm(x, w, outputs)

    def compile_numbers(
        self, chain: Chain, x: Value, w: Prepacked, bits: int, outputs: dict[str, Any]
    ) -> Value | None:
        """Add the product of numbers to a plan; `outputs` are those of `Program.mixed`."""
        return chain.mixed(x, w, bits, outputs)

    def multiply_floats(self, x: Activation, w: np.ndarray, bias: np.ndarray | None) -> np.ndarray:
        """Return x W^T + bias, computed by BLAS; bits count as +-1."""
        y = (as_float(x).reshape(-1, w.shape[1]) @ w.T).reshape(*x.shape[:-1], len(w))
        if bias is not None:
            y += bias
        return y

    def compile_floats(
        self, chain: Chain, x: Value, w: np.ndarray, bias: np.ndarray | None
    ) -> Value | None:
        """Add the product of float32 with float32 weights to a plan."""
        return chain.matmul(x, w, bias)

    def gradients(
        self, x: StepInput, dy: Gradient, w: Planes, weight: Parameter, *, with_dx: bool
    ) -> np.ndarray | None:
        """Give `weight` the gradient dW = dy^T x; return dx = dy W, or None without `with_dx`."""
        signs, by_sign = (x.bits, dy.twice(x.step)) if isinstance(x, SignPairs) else (x, dy)
        rows = signs.reshape(-1, self.in_features)
        if not isinstance(rows, BitArray):
            dw = weight.overwritten_gradient()
            np.matmul(dy.exact.reshape(-1, self.out_features).T, as_float(rows), out=dw)
        elif 0 < len(rows) <= self.in_features // DEFERRED:
            weight.defer_gradient(WeightGradient(by_sign, rows))
        else:
            weight_gradient(by_sign, rows, weight.overwritten_gradient())
        return w.input_gradient(dy).reshape(x.shape) if with_dx else None

    def float_gradients(
        self, x: Activation, dy: np.ndarray, w: np.ndarray, dw: np.ndarray, *, with_dx: bool
    ) -> np.ndarray | None:
        """Do the same as `gradients` for float32 weights, in BLAS."""
        rows = dy.reshape(-1, self.out_features)
        np.matmul(rows.T, as_float(x).reshape(-1, self.in_features), out=dw)
        return (rows @ w).reshape(x.shape) if with_dx else None

    def __str__(self) -> str:
        return f"{self.in_features}, {self.out_features}"


@dataclass(frozen=True)
class Convolution:
    """Operation of convolutions: y = x * W, a product with every window of an image.

    Parameters
    ----------
    where : str
        Name of the layer, for error messages.
    in_features, out_features : int
        Channels.
    windows : Windows
    groups : int
    pad_value : {0, 1, -1}
        Value of the positions outside the image. It must be 0 unless the input is bits.
    """

    where: str
    in_features: int
    out_features: int
    windows: Windows
    groups: int
    pad_value: int

    def __getstate__(self) -> dict[str, Any]:
        return {field.name: getattr(self, field.name) for field in fields(self)}  # no caches

    @classmethod
    def of(
        cls,
        where: str,
        in_channels: int,
        out_channels: int,
        kernel_size: int | Pair,
        stride: int | Pair,
        padding: Padding,
        dilation: int | Pair,
        groups: int,
        pad_value: int = 0,
    ) -> Convolution:
        """Check the settings, those of `bitops.conv2d`, and return the operation."""
        inputs = check_size(where, "in_channels", in_channels)
        outputs = check_size(where, "out_channels", out_channels)
        groups = check_size(where, "groups", groups)
        if inputs % groups or outputs % groups:
            raise ValueError(
                f"[{where}] groups must divide the channels in and out, got {groups} for "
                f"{inputs} and {outputs}"
            )
        if type(pad_value) is not int or pad_value not in (0, 1, -1):
            raise ValueError(f"[{where}] pad_value must be 0, 1 or -1, got {pad_value!r}")
        windows = Windows.of(where, kernel_size, stride, padding, dilation)
        kh, kw = windows.kernel_size
        check_size(where, "kernel", kh * kw * (inputs // groups))
        return cls(where, inputs, outputs, windows, groups, pad_value)

    @classmethod
    def of_filters(
        cls,
        where: str,
        shape: tuple[int, ...],
        stride: int | Pair,
        padding: Padding,
        dilation: int | Pair,
        groups: int,
        pad_value: int = 0,
    ) -> Convolution:
        """Check the settings for filters of shape OHWI and return their operation."""
        outputs, kh, kw, share = shape
        inputs = share * check_size(where, "groups", groups)
        return cls.of(
            where, inputs, outputs, (kh, kw), stride, padding, dilation, groups, pad_value
        )

    @property
    def weight_shape(self) -> tuple[int, ...]:
        """Shape of the filters, OHWI."""
        return self.out_features, *self.windows.kernel_size, self.in_features // self.groups

    @property
    def fans(self) -> Pair:
        """Number of weights per output, and per input, counted as if there were no groups."""
        kh, kw = self.windows.kernel_size
        return kh * kw * self.in_features, kh * kw * self.out_features

    @cached_property
    def options(self) -> dict[str, Any]:
        """Keyword arguments of the functions that convolve numbers."""
        return {**self.windows.options, "groups": self.groups}

    @cached_property
    def settings(self) -> dict[str, Any]:
        """Keyword arguments of the layers, and of the functions that convolve bits."""
        return {**self.options, "pad_value": self.pad_value}

    @property
    def sizes(self) -> dict[str, Any]:
        """Arguments of the training layers that say the shape of their weights."""
        return {
            "in_channels": self.in_features,
            "out_channels": self.out_features,
            "kernel_size": self.windows.kernel_size,
        }

    def for_units(self) -> Convolution:
        """Return the operation for bits that stand for 0 and 1; the 0 outside is the bit of -1."""
        return replace(self, pad_value=-1)

    def input(self, x) -> Activation:
        """Check an input and return it as an activation."""
        x = as_images(self.where, x, self.in_features)
        if self.pad_value and not isinstance(x, BitArray):
            if self.windows.on(self.where, x).is_padded:
                raise ValueError(
                    f"[{self.where}] pad_value must be 0 unless x is bits, got {self.pad_value}"
                )
        return x

    def binarize(self, x) -> tuple[np.ndarray, BitArray, np.ndarray]:
        """Return real images as float32, their signs, and the scale K of every output position."""
        x = as_images(self.where, x, self.in_features)
        if isinstance(x, BitArray):
            raise TypeError(f"[{self.where}] x must be real for scale_input=True, got {x!r}")
        values = as_float(x)
        scales = k_map(values, self.windows.kernel_size, **self.windows.options)
        return values, pack(values), scales

    def output_shape(self, shape: Shape) -> Shape:
        height, width, _ = image_shape(self.where, shape)
        return (*self.windows.output(self.where, (height, width)), self.out_features)

    def multiply(
        self, x: BitArray | np.ndarray, w: Prepacked, *, bits: int = 8, **scales: Any
    ) -> np.ndarray:
        """Convolve with +-1 filters, as in `Linear.multiply`; for bits `scales` may hold k_map."""
        if isinstance(x, BitArray):
            return conv2d(x, w, **self.settings, **scales)
        if x.dtype == np.uint8:
            return bitplane_conv2d(x, w, bits=bits, **self.options, **scales)
        return weight_conv2d(x, w, **self.options, **scales)

    def multiply_sign(
        self, x: BitArray, w: Prepacked, threshold: np.ndarray, flip: BitArray | None
    ) -> BitArray:
        """Return the bits (dot > threshold) ^ flip, for int32 thresholds."""
        return conv2d_sign(x, w, threshold, flip=flip, **self.settings)

    def compile_bits(
        self, chain: Chain, x: Value, w: Prepacked, outputs: dict[str, Any]
    ) -> Value | None:
        """Do the same as `Linear.compile_bits` for images."""
        if len(x.shape) != 4:
            return None
        return chain.conv2d(x, w, tuple(self.settings.values()), outputs)

    def compile_numbers(
        self, chain: Chain, x: Value, w: Prepacked, bits: int, outputs: dict[str, Any]
    ) -> Value | None:
        """Do the same as `Linear.compile_numbers` for images; not for groups."""
        if len(x.shape) != 4 or self.groups != 1:
            return None
        window = self.windows.on(self.where, x)
        if self.pad_value and window.is_padded:
            return None
        return chain.mixed(x, w, bits, outputs, window)

    def compile_scaled(
        self, chain: Chain, x: Value, w: Prepacked, scales: dict[str, Any]
    ) -> Value | None:
        """Add the product of the signs of real images, scaled by what `binarize` returns."""
        if len(x.shape) != 4:
            return None
        k_map = chain.k_map(x, self.windows.on(self.where, x))
        signs = chain.compare(x, None, None)
        return chain.scaled_conv2d(signs, k_map, w, tuple(self.settings.values()), scales)

    def multiply_floats(self, x: Activation, w: np.ndarray, bias: np.ndarray | None) -> np.ndarray:
        """Convolve with float32 filters; bits count as +-1."""
        return float_convolution(x, w, bias, self.windows.on(self.where, x), self.groups)

    def compile_floats(
        self, chain: Chain, x: Value, w: np.ndarray, bias: np.ndarray | None
    ) -> Value | None:
        """Do the same as `Linear.compile_floats` for images; not for groups."""
        if len(x.shape) != 4 or self.groups != 1:
            return None
        return chain.convolve(x, w, bias, self.windows.on(self.where, x))

    def gradients(
        self, x: StepInput, dy: Gradient, w: Planes, weight: Parameter, *, with_dx: bool
    ) -> np.ndarray | None:
        """Give `weight` the gradient dW = dy^T c(x); return dx, or None without `with_dx`.

        c(x) is the matrix of patches (im2col). Its gradient is dc = dy W, and each pixel of dx is
        the sum over the patches that contain it.
        """
        if not isinstance(x, SignPairs) and not self._multiplies_planes(x, w):
            dw = weight.overwritten_gradient()
            return self.float_gradients(x, dy.exact, w.values(), dw, with_dx=with_dx)
        of_images, of_filters = dy.for_images_and_filters(w.alpha if with_dx else None)
        operand: Activation
        if isinstance(x, SignPairs):
            operand, of_filters = x.bits, of_filters.twice(x.step)
        else:
            operand = x
        window = self.windows.on(self.where, operand)
        self._weight_gradient(operand, of_filters, window, weight)
        if not with_dx:
            return None
        if not math.prod(x.shape):
            return np.zeros(x.shape, np.float32)
        parts = [of_images.to_images(plane, window, x.shape) for plane in w.transposed]
        return sum_planes(parts, w.coefficients)

    def _multiplies_planes(self, x: Activation, w: Planes) -> bool:
        """Return whether gradients are multiplied by planes of filters."""
        if self.groups > 1:
            return False
        if w.is_single and isinstance(x, BitArray):
            return True
        is_single_tap = math.prod(self.windows.kernel_size) == 1
        channels = min(self.in_features, self.out_features)
        if len(w.bits) == 1:
            return not is_single_tap or channels >= SINGLE_CHANNELS
        return len(w.bits) == 2 and not is_single_tap and channels >= DOUBLE_CHANNELS

    def _weight_gradient(
        self, x: Activation, dy: Gradient, window: Window, weight: Parameter
    ) -> None:
        """Give filters without groups their gradient."""
        if not isinstance(x, BitArray):
            number_weight_gradient(dy, x, window, weight.overwritten_gradient())
        elif 0 < dy.numbers.nbytes + x.words.nbytes < 4 * weight.size:
            weight.defer_gradient(ConvWeightGradient(dy, x, window, self.pad_value))
        else:
            conv_weight_gradient(dy, x, window, self.pad_value, weight.overwritten_gradient())

    def float_gradients(
        self, x: Activation, dy: np.ndarray, w: np.ndarray, dw: np.ndarray, *, with_dx: bool
    ) -> np.ndarray | None:
        """Do the same as `gradients` for float32 filters, in BLAS."""
        return conv_gradients(
            x,
            dy,
            w,
            self.windows.on(self.where, x),
            self.groups,
            outside=self.pad_value if isinstance(x, BitArray) else 0,
            weight_grad=dw,
            with_dx=with_dx,
        )

    def __str__(self) -> str:
        groups = "" if self.groups == 1 else f", groups={self.groups}"
        return f"{self.in_features}, {self.out_features}, {self.windows}{groups}"


Operation = Linear | Convolution
