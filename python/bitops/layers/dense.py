"""Dense layers: binary, quantized and float32 ones in training, and their twins in inference."""

from __future__ import annotations

from typing import Any

import numpy as np

from .base import Layer
from .inputs import as_weights
from .operation import Linear
from .planes import WeightQuantizer
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
from .roles import NUMBERS, Flow
from .weights import LatentWeights, PackedWeights


class BinaryDense(LatentProduct):
    """Dense layer whose weights are the signs of trained float32 latent weights.

    Parameters
    ----------
    in_features, out_features : int
    bias : bool
        Whether to add a trained float32 bias.
    scale_weights : bool
        Whether to scale every output by alpha, the mean absolute latent weight of its row
        (XNOR-Net).
    seed : int, SeedSequence or Generator, optional
        Source of the first weights, and of the signs that are drawn.
    **latent
        gradient, stochastic, real_evaluation, center, lr_scale, start: how latent weights start,
        learn and are used.

        gradient : {"straight", "paper", "chain"} or quantizer, optional
            How the gradient of the binary weights becomes that of the latent ones: as it is
            ("straight", the default without scales), by a form of `xnor_weight_gradient` ("paper"
            is the default with scales), or by the `backward` of a quantizer.
        stochastic : bool
            Whether training draws the signs, +1 with probability (W + 1) / 2, anew in every forward
            pass; evaluation takes sign(W).
        real_evaluation : bool
            Whether evaluation takes the latent weights themselves (BinaryConnect). Freezing then
            gives a layer of float32 weights; set the attribute to False before, for binary ones.
        center : bool
            Whether latent weights lose their mean over the input channels and are clipped to
            [-1, 1] after each step, when they are first used (XNOR-Net). The optimizer then does
            not clip them.
        lr_scale : float, optional
            Factor of the learning rate; sqrt((in_features + out_features) / 1.5) by default.
        start : {"uniform", "normal"}
            First weights: uniform in [-1, 1), or normal with variance 2 / in_features.

    Attributes
    ----------
    weight : Parameter of shape (out_features, in_features)
        Latent weights, clipped to [-1, 1] by the optimizer.
    bias : Parameter of shape (out_features,) or None

    Notes
    -----
    Forward, with Wb = sign(W), or alpha sign(W):  y = x Wb^T + b.  Bits meet bits in the packed
    `gemm`; uint8 input and codes give the exact integer product, and real input that of
    `weight_gemm`.
    Backward:  dx = dy Wb,  dWb = dy^T x,  db = sum dy.  Without alpha the gradient of Wb is applied
    to W as it is, without a mask; the clip of W does the rest. With alpha it is
    dW = dWb (1/in_features + alpha 1{abs(W) < 1}).

    References
    ----------
    Courbariaux, Hubara et al., "Binarized Neural Networks", 2016, algorithm 1; start values and
    the scale of the learning rate are those of the code released with it.
    Courbariaux et al., "BinaryConnect", 2015: stochastic weights and evaluation with real ones.
    Rastegari et al., "XNOR-Net", 2016, section 3.1: alpha, and the gradient with it; center is a
    step of the code released with it.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        bias: bool = False,
        scale_weights: bool = False,
        seed: Any = None,
        **latent: Any,
    ):
        linear = Linear.of(self.name, in_features, out_features)
        weights = LatentWeights.of_signs(
            self.name, linear, scale_weights=scale_weights, seed=seed, **latent
        )
        super().__init__(linear, weights, bias)

    def to_packed(self, flow: Flow = NUMBERS, **outputs: Any) -> Layer:
        return _packed(self, flow, outputs)


class QuantizedDense(LatentProduct):
    """Dense layer whose weights are ternary, or of few bits, made from latent ones by a quantizer.

    Parameters
    ----------
    in_features, out_features : int
    quantizer : Ternary, TwnTernary, LeastSquaresTernary, ShareTernary, DoReFaWeight, ...
        Of `bitops.quantizers`; its `backward` gives the gradient of the latent weights.
    bias : bool
        Whether to add a trained float32 bias.
    clip_value : float, optional
        The optimizer clips latent weights to [-clip_value, clip_value]; by default it does not.
    lr_scale : float
        Factor of the learning rate.
    start : {"normal", "uniform"}
        First weights: normal with variance 2 / in_features, or uniform in [-1, 1).
    seed : int, SeedSequence or Generator, optional
        Source of the first weights.

    Attributes
    ----------
    weight : Parameter of shape (out_features, in_features)
    bias : Parameter of shape (out_features,) or None

    Notes
    -----
    Forward, with Q the quantized weights:  y = x Q^T + b.  Ternary weights are half the sum of two
    +-1 planes, those of k bits a sum of k planes: as many products of bits, exact before the scale.
    Backward:  dx = dy Q,  dQ = dy^T x,  db = sum dy.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        quantizer: WeightQuantizer,
        *,
        bias: bool = False,
        clip_value: float | None = None,
        lr_scale: float = 1.0,
        start: str = "normal",
        seed: Any = None,
    ):
        linear = Linear.of(self.name, in_features, out_features)
        options = {"clip_value": clip_value, "lr_scale": lr_scale, "start": start, "seed": seed}
        weights = LatentWeights.of_quantizer(self.name, linear, quantizer, **options)
        super().__init__(linear, weights, bias)

    def to_packed(self, flow: Flow = NUMBERS, **outputs: Any) -> Layer:
        return _packed(self, flow, outputs)

    @property
    def quantizer(self) -> WeightQuantizer | None:
        return self.weights.quantizer


class Dense(FloatProduct):
    """Dense layer with float32 weights, for the layers that stay in full precision.

    Parameters
    ----------
    in_features, out_features : int
    bias : bool
        Whether to add a trained bias, 0 at the start.
    seed : int, SeedSequence or Generator, optional
        Source of the first weights, normal with variance 2 / in_features.

    Attributes
    ----------
    weight : Parameter of shape (out_features, in_features)
    bias : Parameter of shape (out_features,) or None

    Notes
    -----
    Forward:  y = x W^T + b in BLAS; bits count as +-1.
    Backward:  dx = dy W,  dW = dy^T x,  db = sum dy.

    References
    ----------
    He et al., "Delving deep into rectifiers", 2015, equation 10: the start values.
    """

    def __init__(self, in_features: int, out_features: int, *, bias: bool = True, seed: Any = None):
        super().__init__(Linear.of(self.name, in_features, out_features), bias=bias, seed=seed)

    def to_packed(self) -> FloatDense:
        return FloatDense(self.values(), self.bias_value)


class TanhDense(FloatProduct):
    """Dense layer whose weights and bias are compressed into (-1, 1): y = x tanh(W)^T + tanh(b).

    Parameters
    ----------
    in_features, out_features, bias, seed
        As in `Dense`.

    Notes
    -----
    Backward, with V = tanh(W):  dx = dy V,  dW = (dy^T x) (1 - V^2),
    db = sum(dy) (1 - tanh(b)^2).

    References
    ----------
    Kim and Smaragdis, "Bitwise Neural Networks", 2016: the first stage of their training, which
    leaves weights whose signs matter.
    """

    def __init__(self, in_features: int, out_features: int, *, bias: bool = True, seed: Any = None):
        super().__init__(Linear.of(self.name, in_features, out_features), bias=bias, seed=seed)

    def to_packed(self) -> FloatDense:
        return FloatDense(self.values(), self.bias_value)

    def values(self) -> np.ndarray:
        return np.tanh(self.weight.value)

    @property
    def bias_value(self) -> np.ndarray | None:
        return None if self.bias is None else np.tanh(self.bias.value)

    def backward(self, grad: np.ndarray) -> np.ndarray | None:
        dx = super().backward(grad)
        self.weight.grad *= 1 - np.square(self.values())
        if self.bias is not None:
            self.bias.grad *= 1 - np.square(np.tanh(self.bias.value))
        return dx


def _packed(layer: BinaryDense | QuantizedDense, flow: Flow, outputs: dict[str, Any]) -> Layer:
    """The twin of a layer, for the input that flows in."""
    if layer.real_evaluation:
        return FloatDense(layer.values(), layer.bias_value)
    planes = layer.planes()
    options = {**(outputs or own_outputs(layer, flow)), "input_bits": flow.code_bits}
    if planes.is_single:
        return PackedDense(planes.bits[0], **options)
    return PackedPlanesDense(planes.stacked(), planes.coefficients, **options)


@register
class PackedDense(PackedProduct):
    """Dense layer on packed +-1 weights, for inference.

    Parameters
    ----------
    w : BitArray or array_like of shape (out_features, in_features)
        Weights; a real array is packed by sign (zero counts as +1).
    threshold : array_like of shape (out_features,), int or float32, optional
        With thresholds the output is bits: bit = (dot > threshold) ^ flip. Scalars broadcast.
    flip : array_like of shape (out_features,), bool, optional
        Outputs whose bit is inverted. Needs `threshold`.
    alpha, bias : array_like of shape (out_features,), float32, optional
        Without thresholds the output is dot * alpha + bias in float32; with neither of the two, it
        is the dot products: int32 for bits and uint8, float32 for real input.
    input_bits : int in 1..8, optional
        The input is codes in 0..2^input_bits - 1 of uint8, and nothing else; for 1 also bits, which
        then stand for 0 and 1.

    Raises
    ------
    ValueError, TypeError
        If shapes or dtypes do not fit, on a NaN among weights or thresholds, and on thresholds
        together with alpha or bias.

    Notes
    -----
    Takes what `BinaryDense` takes: bits (packed product, integer thresholds), uint8 numbers (exact
    integer products) and real numbers (`weight_gemm`). A float32 threshold t compares with integers
    as floor(t) does, since dot > t and dot > floor(t) are the same for every integer dot.
    """

    ARRAYS = product_arrays(2)

    def __init__(
        self, w, threshold=None, flip=None, *, alpha=None, bias=None, input_bits: int | None = None
    ):
        weights = PackedWeights.of(self.name, w, "out_features, in_features")
        outputs = {"threshold": threshold, "flip": flip, "alpha": alpha, "bias": bias}
        linear = Linear.of_weights(self.name, weights.shape)
        super().__init__(linear, weights, **outputs, input_bits=input_bits)


@register
class PackedPlanesDense(PackedProduct):
    """Dense layer on weights that are a sum of +-1 planes, ternary or of few bits, for inference.

    Parameters
    ----------
    w : BitArray or array_like of shape (planes, out_features, in_features)
    coefficients : sequence of int
        What each plane counts: (1, 1) for twice ternary weights, (1, 2, 4, ...) for those of bits.
    threshold, flip, alpha, bias, input_bits
        As in `PackedDense`; dot is the sum of those with each plane times its coefficient.
    """

    ARRAYS = product_arrays(3)

    def __init__(
        self,
        w,
        coefficients,
        threshold=None,
        flip=None,
        *,
        alpha=None,
        bias=None,
        input_bits: int | None = None,
    ):
        axes = "out_features, in_features"
        weights = PackedWeights.of_planes(self.name, w, coefficients, axes)
        outputs = {"threshold": threshold, "flip": flip, "alpha": alpha, "bias": bias}
        linear = Linear.of_weights(self.name, weights.shape)
        super().__init__(linear, weights, **outputs, input_bits=input_bits)


@register
class FloatDense(PackedFloatProduct):
    """Twin of `Dense` for inference: float32 weights, kept as they are.

    Parameters
    ----------
    w : array_like of shape (out_features, in_features), float32
    bias : array_like of shape (out_features,), float32, optional
    """

    ARRAYS = float_arrays(2)

    def __init__(self, w, bias=None):
        weight = as_weights(self.name, w, "out_features, in_features")
        super().__init__(Linear.of_weights(self.name, weight.shape), weight, bias)
