"""Convolutions for training (binary, quantized, float32), and their twins for inference."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ..ops.array import BitArray
from ..ops.geometry import Pair
from ..quantizers.base import LARGEST, check_clip
from .backward import gradient_of
from .base import Cost, Layer, saved_for_backward
from .inputs import Activation, as_weights, check_flag, is_data
from .operation import Convolution
from .planes import Planes, WeightQuantizer
from .product import (
    FloatProduct,
    LatentProduct,
    PackedFloatProduct,
    PackedProduct,
    float_arrays,
    own_outputs,
    product_arrays,
)
from .registry import register
from .roles import BITS, NUMBERS, Flow, Role
from .weights import LatentWeights, PackedWeights
from .windows import Padding

if TYPE_CHECKING:
    from ..ops.plan import Value
    from .plans import Chain

_AXES = "out_channels, kh, kw, in_channels / groups"


@register
class BinaryConv2D(LatentProduct):
    """Convolution whose filters are the signs of trained float32 latent weights.

    Parameters
    ----------
    in_channels, out_channels : int
    kernel_size, stride, padding, dilation, groups
        As in `bitops.conv2d`.
    pad_value : {0, 1, -1}
        Value of the positions outside the image; 0 adds nothing. It must be 0 unless x is bits.
    bias : bool
        Whether to add a trained float32 bias.
    scale_weights : bool
        Whether to scale every filter by alpha, its mean absolute latent weight (XNOR-Net).
    scale_input : bool
        Whether the layer binarizes real input itself and keeps the scale K of each window
        (XNOR-Net). Then no Sign belongs before it.
    clip_value : float
        With scale_input, gradients pass the binarization where abs(x) <= clip_value.
    seed : int, SeedSequence or Generator, optional
        Source of the initial weights, and of the random signs of `stochastic`.
    **latent
        gradient, stochastic, real_evaluation, center, lr_scale, start, as in `BinaryDense`. With
        start="normal" the variance is 2 / (weights of a filter).

    Attributes
    ----------
    weight : Parameter of shape (out_channels, kh, kw, in_channels / groups)
        Latent weights, clipped to [-1, 1] by the optimizer.
    bias : Parameter of shape (out_channels,) or None

    Notes
    -----
    Forward, with Wb = sign(W), or alpha sign(W):  y = x * Wb + b,  and with scale_input
    y = K . (sign(x) * Wb) + b.  Bits are convolved by `conv2d`, uint8 data and codes exactly by
    `bitplane_conv2d`, real input by `weight_conv2d`.
    Backward, with c(x) the matrix of patches (im2col), and K = 1 without scale_input:
    dWb = (K . dy)^T c(x),  dc = (K . dy) Wb,  db = sum dy.  Each pixel of dx is the sum over the
    patches that contain it. With scale_input, dx is 0 where abs(x) > clip_value.
    No gradient flows through K; the code released with XNOR-Net does not use K at all.
    Without alpha, dW = dWb without a mask, since the optimizer clips W. With alpha,
    dW = dWb (1/n + alpha 1{abs(W) < 1}),  n the number of weights of a filter.
    By default the learning rate of W is multiplied by
    sqrt((kh kw in_channels + kh kw out_channels) / 1.5).
    K averages over all channels, even if groups use only a part of them.

    References
    ----------
    Courbariaux, Hubara et al., "Binarized Neural Networks", 2016, algorithm 1. Initial weights
    and the scale of the learning rate follow the code released with it.
    Courbariaux et al., "BinaryConnect", 2015: stochastic weights, and evaluation with real ones.
    Rastegari et al., "XNOR-Net", 2016, section 3: alpha and its gradient, and K; `center` follows
    the code released with it.

    Examples
    --------
    >>> layer = BinaryConv2D(16, 32, 3, padding=1, seed=0)
    >>> layer(np.ones((8, 28, 28, 16), np.float32)).shape
    (8, 28, 28, 32)
    """

    SAVED = ("_scaled",)

    operation: Convolution

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | Pair,
        *,
        stride: int | Pair = 1,
        padding: Padding = 0,
        dilation: int | Pair = 1,
        groups: int = 1,
        pad_value: int = 0,
        bias: bool = False,
        scale_weights: bool = False,
        scale_input: bool = False,
        clip_value: float = 1.0,
        seed: Any = None,
        **latent: Any,
    ):
        settings = stride, padding, dilation, groups, pad_value
        convolution = Convolution.of(self.name, in_channels, out_channels, kernel_size, *settings)
        weights = LatentWeights.of_signs(
            self.name, convolution, scale_weights=scale_weights, seed=seed, **latent
        )
        super().__init__(convolution, weights, bias)
        self.scale_input = check_flag(self.name, "scale_input", scale_input)
        if self.scale_input and self.real_evaluation:
            raise ValueError("[BinaryConv2D] give either scale_input or real_evaluation, got both")
        check_clip(self.name, clip_value, LARGEST)
        self.clip_value = float(clip_value)
        self._scaled: _ScaledPass | None = None

    def forward(self, x, *, training: bool = False) -> np.ndarray:
        if not self.scale_input:
            return super().forward(x, training=training)
        values, signs, scales = self.operation.binarize(x)
        planes = self.planes(training)
        if training:
            passes = None if is_data(x) else np.abs(values) <= np.float32(self.clip_value)
            self._scaled = _ScaledPass(signs, planes, scales, passes)
        return self._outputs(signs, planes, k_map=scales)

    def _gradients(self, grad: np.ndarray, *, with_dx: bool) -> np.ndarray | None:
        if not self.scale_input:
            return super()._gradients(grad, with_dx=with_dx)
        saved: _ScaledPass = saved_for_backward(self, self._scaled)
        dy = gradient_of(grad * saved.scales[..., np.newaxis], self.rounding)
        with_dx = with_dx and saved.passes is not None
        dx = self.operation.gradients(saved.signs, dy, saved.planes, self.weight, with_dx=with_dx)
        self._finish_gradients(grad)
        if dx is not None:
            dx *= saved.passes
        return dx

    @property
    def role(self) -> Role:
        return Role.ALONE if self.scale_input else super().role

    def to_packed(self, flow: Flow = NUMBERS, **outputs: Any) -> Layer:
        if not self.scale_input:
            return _packed(self, flow, outputs)
        outputs = outputs or own_outputs(self, BITS)  # the layer binarizes its input
        settings = self.operation.settings
        return PackedConv2D(self.bits, scale_input=True, **outputs, **settings)

    def cost(self, input_bits: int | None) -> Cost:
        return super().cost(1 if self.scale_input else input_bits)

    def config(self) -> dict[str, Any]:
        scaling = {"scale_input": self.scale_input, "clip_value": self.clip_value}
        return {**super().config(), **scaling}

    def _options(self) -> str:
        return super()._options() + (", scale_input=True" if self.scale_input else "")


class _ScaledPass(NamedTuple):
    """What `backward` needs from a forward pass with scale_input."""

    signs: BitArray
    planes: Planes
    scales: np.ndarray  # K of each output position
    passes: np.ndarray | None  # where gradients pass the binarization; None if x is data


@register
class QuantizedConv2D(LatentProduct):
    """Convolution that quantizes latent filters to ternary ones or to a few bits.

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
    Forward, with Q the quantized filters:  y = x * Q + b.  Each plane of Q takes one product of
    bits, as in `QuantizedDense`.
    Backward, with c(x) the matrix of patches (im2col):  dQ = dy^T c(x),  dc = dy Q,  db = sum dy.
    Each pixel of dx is the sum over the patches that contain it. The quantizer turns dQ into dW.

    Examples
    --------
    >>> from bitops.quantizers import Ternary
    >>> layer = QuantizedConv2D(16, 32, 3, Ternary(), seed=0)
    >>> layer(np.ones((8, 28, 28, 16), np.float32)).shape
    (8, 26, 26, 32)
    """

    operation: Convolution

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | Pair,
        quantizer: WeightQuantizer,
        *,
        stride: int | Pair = 1,
        padding: Padding = 0,
        dilation: int | Pair = 1,
        groups: int = 1,
        pad_value: int = 0,
        bias: bool = False,
        clip_value: float | None = None,
        lr_scale: float = 1.0,
        start: str = "normal",
        seed: Any = None,
    ):
        settings = stride, padding, dilation, groups, pad_value
        convolution = Convolution.of(self.name, in_channels, out_channels, kernel_size, *settings)
        options = {"clip_value": clip_value, "lr_scale": lr_scale, "start": start, "seed": seed}
        weights = LatentWeights.of_quantizer(self.name, convolution, quantizer, **options)
        super().__init__(convolution, weights, bias)

    def to_packed(self, flow: Flow = NUMBERS, **outputs: Any) -> Layer:
        return _packed(self, flow, outputs)

    @property
    def quantizer(self) -> WeightQuantizer | None:
        return self.weights.quantizer


@register
class Conv2D(FloatProduct):
    """Convolution with float32 filters, for layers that stay in full precision.

    Parameters
    ----------
    in_channels, out_channels : int
    kernel_size, stride, padding, dilation, groups
        As in `bitops.conv2d`; positions outside the image are 0.
    bias : bool
        Whether to add a trained bias, initially 0.
    seed : int, SeedSequence or Generator, optional
        Source of the initial weights, normal with variance 2 / (weights of a filter).

    Attributes
    ----------
    weight : Parameter of shape (out_channels, kh, kw, in_channels / groups)
    bias : Parameter of shape (out_channels,) or None

    Notes
    -----
    Forward, with c(x) the matrix of patches (im2col):  y = c(x) W^T + b; bits count as +-1.
    Backward:  dW = dy^T c(x),  dc = dy W,  db = sum dy.  Each pixel of dx is the sum over the
    patches that contain it.

    References
    ----------
    He et al., "Delving deep into rectifiers", 2015, equation 10: the initial weights.

    Examples
    --------
    >>> layer = Conv2D(3, 32, 3, padding="same", stride=2, seed=0)
    >>> layer(np.ones((8, 28, 28, 3), np.float32)).shape
    (8, 14, 14, 32)
    """

    operation: Convolution

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | Pair,
        *,
        stride: int | Pair = 1,
        padding: Padding = 0,
        dilation: int | Pair = 1,
        groups: int = 1,
        bias: bool = True,
        seed: Any = None,
    ):
        convolution = Convolution.of(
            self.name, in_channels, out_channels, kernel_size, stride, padding, dilation, groups
        )
        super().__init__(convolution, bias=bias, seed=seed)

    def to_packed(self) -> FloatConv2D:
        return FloatConv2D(self.values(), self.bias_value, **self.operation.options)


def _packed(layer: BinaryConv2D | QuantizedConv2D, flow: Flow, outputs: dict[str, Any]) -> Layer:
    """Return the twin of a layer without scale_input, for what flows in."""
    if layer.real_evaluation:
        return FloatConv2D(layer.values(), layer.bias_value, **layer.operation.options)
    planes = layer.planes()
    options = {**(outputs or own_outputs(layer, flow)), "input_bits": flow.code_bits}
    options |= layer.operation.settings
    if planes.is_single:
        return PackedConv2D(planes.bits[0], **options)
    return PackedPlanesConv2D(planes.stacked(), planes.coefficients, **options)


@register
class PackedConv2D(PackedProduct):
    """Convolution with packed +-1 filters, for inference.

    Parameters
    ----------
    w : BitArray or array_like of shape (out_channels, kh, kw, in_channels / groups)
        Filters OHWI; a real array is packed by sign (zero counts as +1). Integers must be -1 and
        +1, and bits may be bool.
    threshold : array_like of shape (out_channels,), int or float32, optional
        If given, the output is bits: bit = (dot > threshold) ^ flip. Scalars broadcast.
    flip : array_like of shape (out_channels,), bool, optional
        Channels whose bit is inverted; requires `threshold`.
    alpha, bias : array_like of shape (out_channels,), float32, optional
        Without thresholds, the output is dot * alpha + bias in float32. With neither of the two,
        it is the dot products: int32 for bits and uint8, float32 for real input.
    scale_input : bool
        Whether the layer binarizes real input itself. The output is then dot * alpha * K + bias,
        with K as in `bitops.k_map`. Excludes thresholds.
    stride, padding, dilation, groups, pad_value
        As in `bitops.conv2d`. pad_value must be 0 unless the input is bits.
    input_bits : int in 1..8, optional
        If given, the input must be uint8 codes in 0..2^input_bits - 1. With 1 it may also be bits,
        which then stand for 0 and 1. Positions outside the image are 0.

    Raises
    ------
    ValueError, TypeError
        If shapes, settings or dtypes do not fit, if a weight or threshold is NaN, or if thresholds
        are given together with alpha, bias or scale_input.

    Notes
    -----
    The input may be what `BinaryConv2D` takes. For an integer dot, dot > t and dot > floor(t) are
    the same, so float32 thresholds t work there too.

    Examples
    --------
    >>> from bitops import pack
    >>> layer = PackedConv2D(np.ones((1, 3, 3, 64)), padding=1)
    >>> layer(pack(np.ones((1, 3, 3, 64))))[0, :, :, 0]
    array([[256, 384, 256],
           [384, 576, 384],
           [256, 384, 256]], dtype=int32)
    """

    ARRAYS = product_arrays(4)

    operation: Convolution

    def __init__(
        self,
        w,
        threshold=None,
        flip=None,
        *,
        alpha=None,
        bias=None,
        scale_input: bool = False,
        stride: int | Pair = 1,
        padding: Padding = 0,
        dilation: int | Pair = 1,
        groups: int = 1,
        pad_value: int = 0,
        input_bits: int | None = None,
    ):
        weights = PackedWeights.of(self.name, w, _AXES)
        settings = stride, padding, dilation, groups, pad_value
        convolution = Convolution.of_filters(self.name, weights.shape, *settings)
        self.scale_input = check_flag(self.name, "scale_input", scale_input)
        if self.scale_input and not (threshold is None and input_bits is None):
            raise ValueError(
                "[PackedConv2D] scale_input must be False with threshold or input_bits, got True"
            )
        outputs = {"threshold": threshold, "flip": flip, "alpha": alpha, "bias": bias}
        super().__init__(convolution, weights, **outputs, input_bits=input_bits)

    def forward(self, x) -> Activation:
        if not self.scale_input:
            return super().forward(x)
        _, signs, scales = self.operation.binarize(x)
        (plane,) = self.weights.planes.prepacked
        return self.operation.multiply(signs, plane, k_map=scales, alpha=self.alpha, bias=self.bias)

    def compile(self, chain: Chain, x: Value) -> Value | None:
        if not self.scale_input:
            return super().compile(chain, x)
        if x.kind == "bits":
            return None
        (plane,) = self.weights.planes.prepacked
        scales = {"alpha": self.alpha, "bias": self.bias}
        return self.operation.compile_scaled(chain, chain.as_float(x), plane, scales)

    def config(self) -> dict[str, Any]:
        return {**super().config(), "scale_input": self.scale_input}

    def cost(self, input_bits: int | None) -> Cost:
        return super().cost(1 if self.scale_input else input_bits)

    def _options(self) -> str:
        return super()._options() + (", scale_input=True" if self.scale_input else "")


@register
class PackedPlanesConv2D(PackedProduct):
    """Convolution whose filters, ternary or of a few bits, are a sum of +-1 planes, for inference.

    Parameters
    ----------
    w : BitArray or array_like of shape (planes, out_channels, kh, kw, in_channels / groups)
    coefficients : sequence of int
        Factor of each plane, as in `PackedPlanesDense`.
    threshold, flip, alpha, bias, stride, padding, dilation, groups, pad_value, input_bits
        As in `PackedConv2D`. dot is the sum over the planes of coefficient times dot product.

    Examples
    --------
    >>> from bitops import pack
    >>> planes = np.ones((2, 1, 3, 3, 64))
    >>> layer = PackedPlanesConv2D(planes, (1, 1), padding=1, alpha=[0.5])
    >>> layer(pack(np.ones((1, 3, 3, 64))))[0, :, :, 0]
    array([[256., 384., 256.],
           [384., 576., 384.],
           [256., 384., 256.]], dtype=float32)
    """

    ARRAYS = product_arrays(5)

    operation: Convolution

    def __init__(
        self,
        w,
        coefficients,
        threshold=None,
        flip=None,
        *,
        alpha=None,
        bias=None,
        stride: int | Pair = 1,
        padding: Padding = 0,
        dilation: int | Pair = 1,
        groups: int = 1,
        pad_value: int = 0,
        input_bits: int | None = None,
    ):
        weights = PackedWeights.of_planes(self.name, w, coefficients, _AXES)
        settings = stride, padding, dilation, groups, pad_value
        convolution = Convolution.of_filters(self.name, weights.shape, *settings)
        outputs = {"threshold": threshold, "flip": flip, "alpha": alpha, "bias": bias}
        super().__init__(convolution, weights, **outputs, input_bits=input_bits)


@register
class FloatConv2D(PackedFloatProduct):
    """Twin of `Conv2D` for inference, with the same float32 filters.

    Parameters
    ----------
    w : array_like of shape (out_channels, kh, kw, in_channels / groups), float32
    bias : array_like of shape (out_channels,), float32, optional
    stride, padding, dilation, groups
        As in `Conv2D`.

    Examples
    --------
    >>> layer = FloatConv2D(np.ones((1, 3, 3, 4)), bias=[0.5])
    >>> layer(np.ones((1, 3, 3, 4), np.float32)).tolist()
    [[[[36.5]]]]
    """

    ARRAYS = float_arrays(4)

    operation: Convolution

    def __init__(
        self,
        w,
        bias=None,
        *,
        stride: int | Pair = 1,
        padding: Padding = 0,
        dilation: int | Pair = 1,
        groups: int = 1,
    ):
        weight = as_weights(self.name, w, _AXES)
        settings = stride, padding, dilation, groups
        convolution = Convolution.of_filters(self.name, weight.shape, *settings)
        super().__init__(convolution, weight, bias)
