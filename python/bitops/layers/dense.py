"""Dense layers for training (binary, quantized, float32), and their twins for inference."""

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


@register
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
        Source of the initial weights, and of the random signs of `stochastic`.
    **latent
        Further options of the latent weights:

        gradient : {"straight", "paper", "chain"} or quantizer, optional
            How the gradient of the binary weights becomes that of the latent ones. "straight"
            passes it on unchanged; this is the default without scales. "paper" and "chain" are
            the forms of `xnor_weight_gradient`; "paper" is the default with scales. A quantizer
            uses its `backward`.
        stochastic : bool
            Whether every forward pass in training draws new signs, +1 with probability
            (W + 1) / 2. Evaluation uses sign(W).
        real_evaluation : bool
            Whether evaluation uses the latent weights themselves (BinaryConnect). Freezing then
            gives a layer with float32 weights. For binary ones, set the attribute to False first.
        center : bool
            Whether the mean over the input channels is subtracted from the latent weights, which
            are then clipped to [-1, 1] (XNOR-Net). That happens when they are first used after a
            step of the optimizer, which then does not clip them.
        lr_scale : float, optional
            Factor of the learning rate; sqrt((in_features + out_features) / 1.5) by default.
        start : {"uniform", "normal"}
            Initial weights: uniform in [-1, 1), or normal with variance 2 / in_features.

    Attributes
    ----------
    weight : Parameter of shape (out_features, in_features)
        Latent weights, clipped to [-1, 1] by the optimizer.
    bias : Parameter of shape (out_features,) or None

    Notes
    -----
    Forward, with Wb = sign(W), or alpha sign(W):  y = x Wb^T + b.  Bits are multiplied by `gemm`
    and real input by `weight_gemm`; products of uint8 data and codes are exact integers.
    Backward:  dx = dy Wb,  dWb = dy^T x,  db = sum dy.  Without alpha, dW = dWb without a mask,
    since the optimizer clips W. With alpha,  dW = dWb (1/in_features + alpha 1{abs(W) < 1}).

    References
    ----------
    Courbariaux, Hubara et al., "Binarized Neural Networks", 2016, algorithm 1. Initial weights
    and the scale of the learning rate follow the code released with it.
    Courbariaux et al., "BinaryConnect", 2015: stochastic weights, and evaluation with real ones.
    Rastegari et al., "XNOR-Net", 2016, section 3.1: alpha and its gradient; `center` follows the
    code released with it.

    Examples
    --------
    >>> layer = BinaryDense(64, 10, seed=0)
    >>> x = np.ones((2, 64), np.float32)
    >>> np.array_equal(layer(x), x @ np.where(layer.weight.value >= 0, 1, -1).T)
    True
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


@register
class QuantizedDense(LatentProduct):
    """Dense layer that quantizes latent weights to ternary ones or to a few bits.

    Parameters
    ----------
    in_features, out_features : int
    quantizer : Ternary, TwnTernary, LeastSquaresTernary, ShareTernary, DoReFaWeight, ...
        Of `bitops.quantizers`; its `backward` gives the gradient of the latent weights.
    bias : bool
        Whether to add a trained float32 bias.
    clip_value : float, optional
        The optimizer clips latent weights to [-clip_value, clip_value]. By default it does not.
    lr_scale : float
        Factor of the learning rate.
    start : {"normal", "uniform"}
        Initial weights: normal with variance 2 / in_features, or uniform in [-1, 1).
    seed : int, SeedSequence or Generator, optional
        Source of the initial weights.

    Attributes
    ----------
    weight : Parameter of shape (out_features, in_features)
    bias : Parameter of shape (out_features,) or None

    Notes
    -----
    Forward, with Q the quantized weights:  y = x Q^T + b.  Q is a sum of +-1 planes, two for
    ternary weights and k for weights of k bits. Each plane takes one product of bits; their sum is
    exact before it is scaled.
    Backward:  dx = dy Q,  dQ = dy^T x,  db = sum dy.

    Examples
    --------
    >>> from bitops.quantizers import Ternary
    >>> layer = QuantizedDense(64, 10, Ternary(), seed=0)
    >>> layer(np.ones((2, 64), np.float32)).shape
    (2, 10)
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


@register
class Dense(FloatProduct):
    """Dense layer with float32 weights, for layers that stay in full precision.

    Parameters
    ----------
    in_features, out_features : int
    bias : bool
        Whether to add a trained bias, initially 0.
    seed : int, SeedSequence or Generator, optional
        Source of the initial weights, normal with variance 2 / in_features.

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
    He et al., "Delving deep into rectifiers", 2015, equation 10: the initial weights.

    Examples
    --------
    >>> layer = Dense(64, 10, seed=0)
    >>> layer(np.ones((2, 64), np.float32)).shape
    (2, 10)
    >>> [parameter.shape for parameter in layer.parameters()]
    [(10, 64), (10,)]
    """

    def __init__(self, in_features: int, out_features: int, *, bias: bool = True, seed: Any = None):
        super().__init__(Linear.of(self.name, in_features, out_features), bias=bias, seed=seed)

    def to_packed(self) -> FloatDense:
        return FloatDense(self.values(), self.bias_value)


@register
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
    Kim and Smaragdis, "Bitwise Neural Networks", 2016: the first stage of their training. It
    prepares weights for a second stage that keeps only their signs.

    Examples
    --------
    >>> layer = TanhDense(64, 10, seed=0)
    >>> x = np.ones((2, 64), np.float32)
    >>> np.allclose(layer(x), x @ np.tanh(layer.weight.value).T, atol=1e-5)
    True
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

    def _gradients(self, grad: np.ndarray, *, with_dx: bool) -> np.ndarray | None:
        dx = super()._gradients(grad, with_dx=with_dx)
        self.weight.grad *= 1 - np.square(self.values())
        if self.bias is not None:
            self.bias.grad *= 1 - np.square(np.tanh(self.bias.value))
        return dx


def _packed(layer: BinaryDense | QuantizedDense, flow: Flow, outputs: dict[str, Any]) -> Layer:
    """Return the twin of a layer for what flows in."""
    if layer.real_evaluation:
        return FloatDense(layer.values(), layer.bias_value)
    planes = layer.planes()
    options = {**(outputs or own_outputs(layer, flow)), "input_bits": flow.code_bits}
    if planes.is_single:
        return PackedDense(planes.bits[0], **options)
    return PackedPlanesDense(planes.stacked(), planes.coefficients, **options)


@register
class PackedDense(PackedProduct):
    """Dense layer with packed +-1 weights, for inference.

    Parameters
    ----------
    w : BitArray or array_like of shape (out_features, in_features)
        Weights; a real array is packed by sign (zero counts as +1). Integers must be -1 and +1, and
        bits may be bool.
    threshold : array_like of shape (out_features,), int or float32, optional
        If given, the output is bits: bit = (dot > threshold) ^ flip. Scalars broadcast. Integers
        are clipped to int32.
    flip : array_like of shape (out_features,), bool, optional
        Outputs whose bit is inverted; requires `threshold`.
    alpha, bias : array_like of shape (out_features,), float32, optional
        Without thresholds, the output is dot * alpha + bias in float32. With neither of the two,
        it is the dot products: int32 for bits and uint8, float32 for real input.
    input_bits : int in 1..8, optional
        If given, the input must be uint8 codes in 0..2^input_bits - 1. With 1 it may also be bits,
        which then stand for 0 and 1.

    Raises
    ------
    ValueError, TypeError
        If shapes or dtypes do not fit, if a weight or threshold is NaN, or if thresholds are given
        together with alpha or bias.

    Notes
    -----
    The input may be what `BinaryDense` takes: bits, uint8 numbers, or real numbers. Products of
    bits and of uint8 are exact integers, those of real numbers are made by `weight_gemm`. For an
    integer dot, dot > t and dot > floor(t) are the same, so float32 thresholds t work there too.

    Examples
    --------
    >>> from bitops import pack
    >>> w = [[1, 1, -1], [-1, 1, 1]]
    >>> x = pack([[1, 1, 1]])
    >>> PackedDense(w)(x)
    array([[1, 1]], dtype=int32)
    >>> PackedDense(w, alpha=[0.5, 1], bias=[0, 10])(x)
    array([[ 0.5, 11. ]], dtype=float32)
    >>> np.asarray(PackedDense(w, threshold=[0, 1])(x))
    array([[ 1, -1]], dtype=int8)
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
    """Dense layer whose weights, ternary or of a few bits, are a sum of +-1 planes, for inference.

    Parameters
    ----------
    w : BitArray or array_like of shape (planes, out_features, in_features)
    coefficients : sequence of int
        Factor of each plane: (1, 1) for ternary weights, which count twice; (1, 2, 4, ...) for
        weights of several bits.
    threshold, flip, alpha, bias, input_bits
        As in `PackedDense`. dot is the sum over the planes of coefficient times dot product.

    Examples
    --------
    >>> from bitops import pack
    >>> planes = [[[1, 1, -1]], [[1, -1, -1]]]
    >>> PackedPlanesDense(planes, (1, 1))(pack([[1, 1, 1]]))
    array([[0]], dtype=int32)
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
    """Twin of `Dense` for inference, with the same float32 weights.

    Parameters
    ----------
    w : array_like of shape (out_features, in_features), float32
    bias : array_like of shape (out_features,), float32, optional

    Examples
    --------
    >>> FloatDense([[1.0, 2.0], [3.0, 4.0]], bias=[0.5, 0.5])(np.float32([[1, 1]]))
    array([[3.5, 7.5]], dtype=float32)
    """

    ARRAYS = float_arrays(2)

    def __init__(self, w, bias=None):
        weight = as_weights(self.name, w, "out_features, in_features")
        super().__init__(Linear.of_weights(self.name, weight.shape), weight, bias)
