"""Convolutions: +-1 filters and float32 ones, the training layers and their packed twins."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from ..ops.array import BitArray, pack
from ..ops.checks import check_number
from ..ops.conv import conv2d, conv2d_sign
from ..ops.geometry import Window
from ..ops.linalg import Prepacked
from ..ops.mixed_conv import bitplane_conv2d, weight_conv2d
from ..ops.patches import add_patches, patch_blocks
from ..ops.scaling import k_map as make_k_map
from .backward import Gradient, conv_input_gradient, conv_weight_gradient
from .base import Cost, Layer, saved_for_backward
from .inputs import (
    Activation,
    Codes,
    Shape,
    as_float,
    as_images,
    as_scales,
    as_weights,
    check_flag,
    check_size,
    is_data,
)
from .packing import float_arrays, own_outputs, product_arrays, stacked
from .planes import WeightQuantizer, sum_planes
from .product import (
    BinaryProduct,
    FloatProduct,
    PackedPlanes,
    PackedProduct,
    PackedSingle,
    QuantizedProduct,
    float_cost,
)
from .registry import register
from .roles import BITS, NUMBERS, Flow, Role
from .windows import Windows, image_shape

# Images that the backward pass holds as float32 at a time; their patches take a few MiB more.
MAX_BLOCK_BYTES = 8 << 20


class Convolution(Layer):
    """What all convolutions share: channels, windows, groups, and the shape of the output."""

    windows: Windows
    groups: int
    in_features: int
    out_features: int

    def _set_geometry(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Any,
        stride: Any,
        padding: Any,
        dilation: Any,
        groups: int,
    ) -> tuple[int, int, int, int]:
        """Check the settings; shape OHWI of the filters."""
        self.in_features = check_size(self.name, "in_channels", in_channels)
        self.out_features = check_size(self.name, "out_channels", out_channels)
        self.groups = check_size(self.name, "groups", groups)
        if self.in_features % self.groups or self.out_features % self.groups:
            raise ValueError(
                f"[{self.name}] groups must divide the channels in and out, got {self.groups} for "
                f"{self.in_features} and {self.out_features}"
            )
        self.windows = Windows.of(self.name, kernel_size, stride, padding, dilation)
        kh, kw = self.windows.kernel_size
        check_size(self.name, "kernel", kh * kw * (self.in_features // self.groups))
        return self.out_features, kh, kw, self.in_features // self.groups

    def config(self) -> dict[str, Any]:
        return {**self.windows.options, "groups": self.groups}

    def output_shape(self, shape: Shape) -> Shape:
        height, width, _ = image_shape(self.name, shape)
        return (*self.windows.output(self.name, (height, width)), self.out_features)

    def __repr__(self) -> str:
        groups = "" if self.groups == 1 else f", groups={self.groups}"
        sizes = f"{self.in_features}, {self.out_features}, {self.windows}{groups}"
        return f"{self.name}({sizes}{self._extras()})"

    def _extras(self) -> str:
        return ""


class BinaryConvolution(Convolution):
    """What the convolutions with +-1 filters share: the products of every kind of input."""

    pad_value: int
    k_map: bool

    def _set_padding(self, pad_value: int, k_map: bool) -> None:
        if type(pad_value) is not int or pad_value not in (0, 1, -1):
            raise ValueError(f"[{self.name}] pad_value must be 0, 1 or -1, got {pad_value!r}")
        self.pad_value = int(pad_value)
        self.k_map = check_flag(self.name, "k_map", k_map)

    def _input(self, x) -> Activation:
        """The input as bits, codes, or numbers that this layer can take."""
        x = as_images(self.name, x, self.in_features)
        if self.k_map:
            if isinstance(x, BitArray):
                raise TypeError(f"[{self.name}] x must be real for k_map=True, got {x!r}")
            return as_float(x)
        if self.pad_value and not isinstance(x, BitArray):
            if self.windows.on(self.name, x).is_padded:
                raise ValueError(
                    f"[{self.name}] pad_value must be 0 unless x is bits, got {self.pad_value}"
                )
        return x

    def _scale_map(self, x: np.ndarray) -> np.ndarray:
        """K of the input, for all filters."""
        return make_k_map(x, self.windows.kernel_size, **self.windows.options)

    def _product(
        self,
        x: BitArray | np.ndarray,
        w: Prepacked,
        *,
        bits: int = 8,
        scale_map: np.ndarray | None = None,
        **scales: Any,
    ) -> np.ndarray:
        """Convolution of bits or numbers, uint8 of so many bits; `scales` are alpha and bias."""
        options = {**self.windows.options, "groups": self.groups, **scales}
        if isinstance(x, BitArray):
            return conv2d(x, w, pad_value=self.pad_value, k_map=scale_map, **options)
        if x.dtype == np.uint8:
            return bitplane_conv2d(x, w, bits=bits, **options)
        return weight_conv2d(x, w, **options)

    def _extras(self) -> str:
        pad_value = f", pad_value={self.pad_value}" if self.pad_value else ""
        return pad_value + (", k_map=True" if self.k_map else "")


class BinaryConv2D(BinaryConvolution, BinaryProduct):
    """Convolution whose filters are the signs of trained float32 latent weights.

    Parameters
    ----------
    in_channels, out_channels : int
    kernel_size, stride, padding, dilation, groups
        As in `bitops.conv2d`.
    pad_value : {0, 1, -1}
        Value of the positions outside the image; 0 adds nothing. Numbers take only 0.
    bias : bool
        Whether to add a trained float32 bias.
    alpha : bool
        Whether to scale every filter by its mean absolute latent weight (XNOR-Net).
    k_map : bool
        Whether the layer takes real input and binarizes it itself, keeping the scale K of each
        window (XNOR-Net); then no Sign stands before it.
    clip_value : float
        With k_map, gradients pass the binarization where abs(x) <= clip_value.
    seed : int, SeedSequence or Generator, optional
        Source of the first weights, and of the signs that are drawn.
    **latent
        gradient, stochastic, real_evaluation, center, lr_scale, start, as in `BinaryDense`. With
        "normal" first weights have the variance 2 / (weights of a filter).

    Attributes
    ----------
    weight : Parameter of shape (out_channels, kh, kw, in_channels / groups)
        Latent weights, clipped to [-1, 1] by the optimizer.
    bias : Parameter of shape (out_channels,) or None

    Notes
    -----
    Forward, with Wb = sign(W), or alpha sign(W):  y = x * Wb + b, and y = K . (sign(x) * Wb) + b
    with k_map. Bits meet bits in the packed `conv2d`; uint8 input and codes give the exact integers
    of `bitplane_conv2d`, and real input what `weight_conv2d` does.
    Backward, with c(x) the patches as rows (im2col):  dWb = (K . dy)^T c(x),  dc = (K . dy) Wb,
    which is added up to dx, and db = sum dy; with k_map dx is masked by abs(x) <= clip_value. No
    gradient flows through K, as in the released code of XNOR-Net, which leaves K out altogether.
    Without alpha the gradient of Wb is applied to W as it is, without a mask; the clip of W does
    the rest. With alpha it is dW = dWb (1/n + alpha 1{abs(W) < 1}), n the weights of a filter.
    The learning rate of W is multiplied by sqrt((kh kw in_channels + kh kw out_channels) / 1.5).
    K is that of all channels, also where groups see a part of them.

    References
    ----------
    Courbariaux, Hubara et al., "Binarized Neural Networks", 2016, algorithm 1; start values and
    the scale of the learning rate are those of the code released with it.
    Courbariaux et al., "BinaryConnect", 2015: stochastic weights and evaluation with real ones.
    Rastegari et al., "XNOR-Net", 2016, section 3: alpha, K, and the gradient with alpha; center is
    a step of the code released with it.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size,
        *,
        stride=1,
        padding=0,
        dilation=1,
        groups: int = 1,
        pad_value: int = 0,
        bias: bool = False,
        alpha: bool = False,
        k_map: bool = False,
        clip_value: float = 1.0,
        seed=None,
        **latent: Any,
    ):
        shape = self._set_geometry(
            in_channels, out_channels, kernel_size, stride, padding, dilation, groups
        )
        self._set_input(pad_value, k_map, clip_value)
        taps = shape[1] * shape[2]
        BinaryProduct.__init__(
            self,
            shape,
            taps * self.in_features,
            taps * self.out_features,
            bias=bias,
            alpha=alpha,
            seed=seed,
            **latent,
        )
        if self.k_map and self.real_evaluation:
            raise ValueError("[BinaryConv2D] give either k_map or real_evaluation, got both")

    def _set_input(self, pad_value: int, k_map: bool, clip_value: float) -> None:
        self._set_padding(pad_value, k_map)
        check_number(self.name, "clip_value", clip_value)
        if not 0 < clip_value < np.inf:
            raise ValueError(
                f"[{self.name}] clip_value must be positive and finite, got {clip_value}"
            )
        self.clip_value = float(clip_value)
        self._saved: tuple[Any, ...] | None = None

    def forward(self, x, *, training: bool = False) -> np.ndarray:
        data = is_data(x)
        x = self._input(x)
        if self.real_evaluation and not training:
            window = self.windows.on(self.name, x)
            return float_convolution(x, self.weight.value, self.bias_value, window, self.groups)
        scale_map = passes = None
        if self.k_map:
            if training:
                passes = np.abs(x) <= np.float32(self.clip_value)
            scale_map = self._scale_map(x)
            x = pack(x)
        planes = self.planes(training)
        if training:
            self._saved = x, planes, data, scale_map, passes
        numbers, bits, step = x, 8, 1.0
        if isinstance(x, Codes):
            numbers, bits, step = x.numbers, x.bits, x.step

        def multiply(plane: Prepacked, **scales: Any) -> np.ndarray:
            return self._product(numbers, plane, bits=bits, scale_map=scale_map, **scales)

        return planes.outputs(multiply, step=step, bias=self.bias_value)

    def backward(self, grad: np.ndarray) -> np.ndarray | None:
        x, planes, data, scale_map, passes = saved_for_backward(self, self._saved)
        dy = grad if scale_map is None else grad * scale_map[..., np.newaxis]
        window = self.windows.on(self.name, x)
        dx = None
        if isinstance(x, BitArray) and self.groups == 1 and planes.is_single:
            gradient = Gradient(dy, self.rounding)
            conv_weight_gradient(gradient, x, window, self.pad_value, self.weight.grad)
            if not data:
                scaled = gradient.scaled(planes.alpha)
                dx = conv_input_gradient(scaled, planes.turned[0], window, x.shape)
        else:
            dx = conv_gradients(
                x,
                dy,
                planes.values(),
                window,
                self.groups,
                outside=self.pad_value if isinstance(x, BitArray) else 0,
                weight_grad=self.weight.grad,
                with_dx=not data,
            )
        self._keep_gradients(grad)
        if dx is not None and passes is not None:
            dx *= passes
        return dx

    @property
    def role(self) -> Role:
        return Role.ALONE if self.real_evaluation or self.k_map else Role.PRODUCT

    def to_packed(self, flow: Flow = NUMBERS, **outputs: Any) -> Layer:
        if self.real_evaluation:
            return FloatConv2D(self.weight.value, self.bias_value, **self.config())
        planes = self.planes()
        products = BITS if self.k_map else flow  # with k_map the input is binarized here
        options = {**(outputs or own_outputs(self, products)), "input_bits": flow.code_bits}
        options |= {"pad_value": self.pad_value, **self.config()}
        if planes.is_single:
            return PackedConv2D(planes.bits[0], k_map=self.k_map, **options)
        return PackedPlanesConv2D(stacked(planes.bits), planes.coefficients, **options)

    def cost(self, bits_in: bool) -> Cost:
        return BinaryProduct.cost(self, bits_in or self.k_map)

    def _extras(self) -> str:
        return self._options() + super()._extras()


class QuantizedConv2D(QuantizedProduct, BinaryConv2D):
    """Convolution whose filters are ternary, or of few bits, made from latent ones by a quantizer.

    Parameters
    ----------
    in_channels, out_channels : int
    kernel_size : int or (kh, kw)
    quantizer : Ternary, TwnTernary, LeastSquaresTernary, ShareTernary, DoReFaWeight, ...
        Of `bitops.quantizers`; its `backward` gives the gradient of the latent weights.
    stride, padding, dilation, groups, pad_value
        As in `BinaryConv2D`.
    bias, clip_value, lr_scale, start, seed
        As in `QuantizedDense`.

    Attributes
    ----------
    weight : Parameter of shape (out_channels, kh, kw, in_channels / groups)
    bias : Parameter of shape (out_channels,) or None

    Notes
    -----
    Forward, with Q the quantized filters:  y = x * Q + b, as many products of bits as Q has planes,
    see `QuantizedDense`. Backward as in `BinaryConv2D`, the gradient of Q by the quantizer.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size,
        quantizer: WeightQuantizer,
        *,
        stride=1,
        padding=0,
        dilation=1,
        groups: int = 1,
        pad_value: int = 0,
        bias: bool = False,
        clip_value: float | None = None,
        lr_scale: float = 1.0,
        start: str = "normal",
        seed=None,
    ):
        shape = self._set_geometry(
            in_channels, out_channels, kernel_size, stride, padding, dilation, groups
        )
        self._set_input(pad_value, False, 1.0)
        QuantizedProduct.__init__(
            self,
            shape,
            quantizer,
            bias=bias,
            clip_value=clip_value,
            lr_scale=lr_scale,
            start=start,
            seed=seed,
        )


class PackedConvolution(BinaryConvolution, PackedProduct):
    """What the packed convolutions share: their settings, and what codes exclude."""

    def _set_windows_of(
        self, share: int, out_channels: int, kernel: tuple[int, int], options: dict[str, Any]
    ) -> None:
        """Take the settings for filters of `share` channels each."""
        in_channels = share * check_size(self.name, "groups", options["groups"])
        names = ("stride", "padding", "dilation", "groups")
        self._set_geometry(in_channels, out_channels, kernel, *(options[name] for name in names))
        self._set_padding(options["pad_value"], options.get("k_map", False))
        if self.input_bits is not None and (self.pad_value or self.k_map):
            raise ValueError(
                f"[{self.name}] pad_value must be 0 and k_map False with input_bits, "
                f"got {self.pad_value} and {self.k_map}"
            )

    def config(self) -> dict[str, Any]:
        settings = {**self.windows.options, "groups": self.groups}
        return {**settings, "pad_value": self.pad_value, "input_bits": self.input_bits}

    def _extras(self) -> str:
        return self._fields() + super()._extras()


@register
class PackedConv2D(PackedConvolution, PackedSingle):
    """Convolution with packed +-1 filters, for inference.

    Parameters
    ----------
    w : BitArray or array_like of shape (out_channels, kh, kw, in_channels / groups)
        Filters OHWI; a real array is packed by sign (zero counts as +1).
    threshold : array_like of shape (out_channels,), int or float32, optional
        With thresholds the output is bits: bit = (dot > threshold) ^ flip. Scalars broadcast.
    flip : array_like of shape (out_channels,), bool, optional
        Channels whose bit is inverted. Needs `threshold`.
    alpha, bias : array_like of shape (out_channels,), float32, optional
        Without thresholds the output is dot * alpha + bias in float32; with neither of the two, it
        is the dot products: int32 for bits and uint8, float32 for real input.
    k_map : bool
        Whether the input is real and binarized here: dot * alpha * K + bias, K as `bitops.k_map`
        makes it. Excludes thresholds.
    stride, padding, dilation, groups, pad_value
        As in `bitops.conv2d`. Numbers take only pad_value = 0.
    input_bits : int in 1..8, optional
        The input is codes in 0..2^input_bits - 1 of uint8, and nothing else; for 1 also bits, which
        then stand for 0 and 1. Positions outside the image are 0.

    Raises
    ------
    ValueError, TypeError
        If shapes, settings or dtypes do not fit, on a NaN among weights or thresholds, and on
        thresholds together with alpha, bias or k_map.

    Notes
    -----
    Takes what `BinaryConv2D` takes. A float32 threshold compares with integers as its floor does.
    """

    ARRAYS = product_arrays(4)

    def __init__(
        self,
        w,
        threshold=None,
        flip=None,
        *,
        alpha=None,
        bias=None,
        k_map: bool = False,
        stride=1,
        padding=0,
        dilation=1,
        groups: int = 1,
        pad_value: int = 0,
        input_bits: int | None = None,
    ):
        axes = "out_channels, kh, kw, in_channels / groups"
        PackedSingle.__init__(self, w, axes, threshold, flip, alpha, bias, input_bits)
        out_channels, kh, kw, share = self.weight.shape
        options = {
            "stride": stride,
            "padding": padding,
            "dilation": dilation,
            "groups": groups,
            "pad_value": pad_value,
            "k_map": k_map,
        }
        self._set_windows_of(share, out_channels, (kh, kw), options)
        if self.k_map and threshold is not None:
            raise ValueError("[PackedConv2D] give either threshold or k_map, got both")
        # among +-1 bits that stand for 0 and 1, outside is what stands for 0
        self._outside = self.pad_value if self._sums is None else -1

    def forward(self, x) -> Activation:
        x = self._packed_input(self._input(x))
        if isinstance(x, BitArray):
            return self._of_bits(x)
        if self.k_map:
            scale_map = self._scale_map(as_float(x))
            signs = pack(as_float(x))
            return self._product(
                signs, self._prepacked, scale_map=scale_map, alpha=self.alpha, bias=self.bias
            )
        bits = self.input_bits or 8
        if self.threshold is not None:
            return self._finish(self._product(x, self._prepacked, bits=bits))
        return self._product(x, self._prepacked, bits=bits, alpha=self.alpha, bias=self.bias)

    def _of_bits(self, x: BitArray) -> Activation:
        options = {
            **self.windows.options,
            "groups": self.groups,
            "pad_value": self._outside,
        }
        if self.threshold is not None:
            return conv2d_sign(
                x, self._prepacked, self._integer_threshold, flip=self._flip_bits, **options
            )
        if self._sums is not None:
            return self._finish(self._of_units(conv2d(x, self._prepacked, **options)))
        return conv2d(x, self._prepacked, alpha=self.alpha, bias=self.bias, **options)

    def config(self) -> dict[str, Any]:
        return {**super().config(), "k_map": self.k_map}

    def cost(self, bits_in: bool) -> Cost:
        return PackedSingle.cost(self, bits_in or self.k_map)


@register
class PackedPlanesConv2D(PackedConvolution, PackedPlanes):
    """Convolution with filters that are a sum of +-1 planes, for inference.

    Parameters
    ----------
    w : BitArray or array_like of shape (planes, out_channels, kh, kw, in_channels / groups)
    coefficients : sequence of int
        What each plane counts, as in `PackedPlanesDense`.
    threshold, flip, alpha, bias, stride, padding, dilation, groups, pad_value, input_bits
        As in `PackedConv2D`; dot is the sum of those with each plane times its coefficient.
    """

    ARRAYS = product_arrays(5)

    def __init__(
        self,
        w,
        coefficients,
        threshold=None,
        flip=None,
        *,
        alpha=None,
        bias=None,
        stride=1,
        padding=0,
        dilation=1,
        groups: int = 1,
        pad_value: int = 0,
        input_bits: int | None = None,
    ):
        axes = "planes, out_channels, kh, kw, in_channels / groups"
        PackedPlanes.__init__(self, w, coefficients, axes, threshold, flip, alpha, bias, input_bits)
        _, out_channels, kh, kw, share = self.weight.shape
        options = {
            "stride": stride,
            "padding": padding,
            "dilation": dilation,
            "groups": groups,
            "pad_value": pad_value,
        }
        self._set_windows_of(share, out_channels, (kh, kw), options)
        self._layers = [
            PackedConv2D(plane, input_bits=input_bits, **options) for plane in self.weight
        ]

    def forward(self, x) -> Activation:
        x = self._input(x)
        products = [np.asarray(layer(x)) for layer in self._layers]
        return self._finish(sum_planes(products, self.coefficients))

    def config(self) -> dict[str, Any]:
        return {**super().config(), "coefficients": list(self.coefficients)}

    def _extras(self) -> str:
        return f", planes={len(self._layers)}{super()._extras()}"


class Conv2D(Convolution, FloatProduct):
    """Convolution with float32 filters, for the layers that stay in full precision.

    Parameters
    ----------
    in_channels, out_channels : int
    kernel_size, stride, padding, dilation, groups
        As in `bitops.conv2d`; positions outside the image are 0.
    bias : bool
        Whether to add a trained bias, 0 at the start.
    seed : int, SeedSequence or Generator, optional
        Source of the first weights, normal with variance 2 / (weights of a filter).

    Attributes
    ----------
    weight : Parameter of shape (out_channels, kh, kw, in_channels / groups)
    bias : Parameter of shape (out_channels,) or None

    Notes
    -----
    Forward, with c(x) the patches as rows (im2col):  y = c(x) W^T + b in BLAS; bits count as +-1.
    Backward:  dW = dy^T c(x),  db = sum dy,  and dc = dy W, which is added up to dx.

    References
    ----------
    He et al., "Delving deep into rectifiers", 2015, equation 10: the start values.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size,
        *,
        stride=1,
        padding=0,
        dilation=1,
        groups: int = 1,
        bias: bool = True,
        seed=None,
    ):
        shape = self._set_geometry(
            in_channels, out_channels, kernel_size, stride, padding, dilation, groups
        )
        FloatProduct.__init__(self, shape, bias=bias, seed=seed)
        self._x: Activation | None = None

    def forward(self, x, *, training: bool = False) -> np.ndarray:
        x = as_images("Conv2D", x, self.in_features)
        if training:
            self._x = x
        window = self.windows.on("Conv2D", x)
        return float_convolution(x, self.weight.value, self.bias_value, window, self.groups)

    def backward(self, grad: np.ndarray) -> np.ndarray | None:
        x = saved_for_backward(self, self._x)
        self._keep_bias_gradient(grad)
        return conv_gradients(
            x,
            grad,
            self.weight.value,
            self.windows.on("Conv2D", x),
            self.groups,
            weight_grad=self.weight.grad,
            with_dx=not is_data(x),
        )

    def to_packed(self) -> FloatConv2D:
        return FloatConv2D(self.weight.value, self.bias_value, **self.config())

    def _extras(self) -> str:
        return "" if self.bias is not None else ", bias=False"


@register
class FloatConv2D(Convolution):
    """Twin of `Conv2D` for inference: float32 filters, kept as they are.

    Parameters
    ----------
    w : array_like of shape (out_channels, kh, kw, in_channels / groups), float32
    bias : array_like of shape (out_channels,), float32, optional
    stride, padding, dilation, groups
        As in `Conv2D`.
    """

    ARRAYS = float_arrays(4)

    def __init__(self, w, bias=None, *, stride=1, padding=0, dilation=1, groups: int = 1):
        self.weight = as_weights("FloatConv2D", w, "out_channels, kh, kw, in_channels / groups")
        out_channels, kh, kw, share = self.weight.shape
        in_channels = share * check_size("FloatConv2D", "groups", groups)
        self._set_geometry(in_channels, out_channels, (kh, kw), stride, padding, dilation, groups)
        self.bias = as_scales("FloatConv2D", "bias", bias, out_channels)

    def forward(self, x) -> np.ndarray:
        x = as_images("FloatConv2D", x, self.in_features)
        window = self.windows.on("FloatConv2D", x)
        return float_convolution(x, self.weight, self.bias, window, self.groups)

    def cost(self, bits_in: bool) -> Cost:
        return float_cost(self.weight, self.bias)

    def _extras(self) -> str:
        return "" if self.bias is None else ", bias"


def float_convolution(
    x: Activation, w: np.ndarray, bias: np.ndarray | None, window: Window, groups: int
) -> np.ndarray:
    """Convolution in BLAS, block of patches by block; the same code in training and inference."""
    y = np.empty((len(x), *window.output, len(w)), np.float32)
    images = as_float(x)
    for channels, filters in _groups(w, groups):
        matrix = w[filters].reshape(filters.stop - filters.start, -1).T
        for block, rows in patch_blocks(images[..., channels], window):
            part = y[block][..., filters]
            part[...] = (rows @ matrix).reshape(part.shape)
    if bias is not None:
        y += bias
    return y


def conv_gradients(
    x: Activation,
    dy: np.ndarray,
    w: np.ndarray,
    window: Window,
    groups: int,
    *,
    outside: float = 0,
    weight_grad: np.ndarray,
    with_dx: bool,
) -> np.ndarray | None:
    """Gradients of a convolution, in BLAS, block of patches by block.

    Parameters
    ----------
    x : BitArray or ndarray of shape (n, h, w, c)
    dy : ndarray of shape (n, oh, ow, o), float32
    w : ndarray of shape (o, kh, kw, c / groups), float32
        What x was convolved with.
    window : Window
    groups : int
    outside : number
        What the positions outside the image counted as.
    weight_grad : ndarray of the shape of `w`, float32
        Gradient of `w`, written here.
    with_dx : bool

    Returns
    -------
    ndarray of the shape of `x`, float32, or None without `with_dx`
    """
    dx = np.zeros(x.shape, np.float32) if with_dx else None
    weight_grad[...] = 0
    at_a_time = max(MAX_BLOCK_BYTES // max(4 * x.shape[1] * x.shape[2] * x.shape[3], 1), 1)
    for first in range(0, len(x), at_a_time):
        some = slice(first, first + at_a_time)
        images = as_float(x[some])
        for channels, filters in _groups(w, groups):
            count = filters.stop - filters.start
            matrix = w[filters].reshape(count, -1)
            matrix_grad = weight_grad[filters].reshape(count, -1)  # a view: filters are contiguous
            for block, rows in patch_blocks(images[..., channels], window, outside=outside):
                part = dy[some][block][..., filters].reshape(len(rows), count)
                matrix_grad += part.T @ rows
                if dx is not None:
                    add_patches(part @ matrix, window, dx[some][..., channels], block)
    return dx


def _groups(w: np.ndarray, groups: int) -> Iterator[tuple[slice, slice]]:
    """Channels of the image and filters of each group."""
    share, per = w.shape[3], len(w) // groups
    for g in range(groups):
        yield slice(g * share, (g + 1) * share), slice(g * per, (g + 1) * per)
