"""Fully connected layers: +-1 weights and float32 ones, the training layers and their twins."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..ops.array import BitArray
from ..ops.linalg import Prepacked, bitplane_gemm, gemm, gemm_sign, weight_gemm
from .backward import Gradient, weight_gradient
from .base import Cost, Layer, saved_for_backward
from .inputs import (
    Activation,
    Codes,
    as_activation,
    as_float,
    as_scales,
    as_weights,
    check_size,
    is_data,
)
from .packing import float_arrays, own_outputs, product_arrays, stacked
from .planes import Planes, WeightQuantizer, sum_planes
from .product import (
    BinaryProduct,
    FloatProduct,
    PackedPlanes,
    PackedSingle,
    QuantizedProduct,
    float_cost,
)
from .registry import register
from .roles import NUMBERS, Flow, Role


def mixed_product(
    x: np.ndarray,
    w: BitArray | Prepacked,
    *,
    bits: int = 8,
    alpha: np.ndarray | float | None = None,
    bias: np.ndarray | None = None,
) -> np.ndarray:
    """Numbers times +-1 weights: exact integers for uint8, the fixed order of `weight_gemm` else.

    Parameters
    ----------
    x : ndarray of shape (..., k), uint8, int32 or float32
    w : BitArray of shape (n, k), or Prepacked
    bits : int
        The uint8 numbers are in 0..2^bits - 1.
    alpha, bias : scalar or ndarray of shape (n,), float32, optional
        Scales and shifts of the columns.

    Returns
    -------
    ndarray of shape (..., n)
        int32 for uint8 without alpha and bias, else float32.
    """
    if x.dtype == np.uint8:
        return bitplane_gemm(x, w, bits=bits, alpha=alpha, bias=bias)
    return weight_gemm(x, w, alpha=alpha, bias=bias)


class BinaryDense(BinaryProduct):
    """Dense layer whose weights are the signs of trained float32 latent weights.

    Parameters
    ----------
    in_features, out_features : int
    bias : bool
        Whether to add a trained float32 bias.
    alpha : bool
        Whether to scale every output by the mean absolute latent weight of its row (XNOR-Net).
    seed : int, SeedSequence or Generator, optional
        Source of the first weights, and of the signs that are drawn.
    **latent
        gradient, stochastic, real_evaluation, center, lr_scale, start: how latent weights start,
        learn and are used.

        gradient : {"straight", "paper", "chain"} or quantizer, optional
            How the gradient of the binary weights becomes that of the latent ones: as it is
            ("straight", the default without alpha), by a form of `xnor_weight_gradient` ("paper" is
            the default with alpha), or by the `backward` of a quantizer.
        stochastic : bool
            Training draws the signs, +1 with probability (W + 1) / 2; evaluation takes sign(W).
        real_evaluation : bool
            Evaluation takes the latent weights themselves (BinaryConnect).
        center : bool
            Latent weights lose their mean over the input channels and are clipped to [-1, 1] after
            each step, when they are first used (XNOR-Net).
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
        alpha: bool = False,
        seed=None,
        **latent: Any,
    ):
        shape = self._set_features(in_features, out_features)
        super().__init__(
            shape, self.in_features, self.out_features, bias=bias, alpha=alpha, seed=seed, **latent
        )

    def _set_features(self, in_features: int, out_features: int) -> tuple[int, int]:
        """Check the sizes; shape of the weights."""
        self.in_features: int = check_size(self.name, "in_features", in_features)
        self.out_features: int = check_size(self.name, "out_features", out_features)
        self._saved: tuple[Activation, Planes] | None = None
        return self.out_features, self.in_features

    def forward(self, x, *, training: bool = False) -> np.ndarray:
        x = as_activation(self.name, x, self.in_features)
        if self.real_evaluation and not training:
            return float_product(x, self.weight.value, self.bias_value)
        planes = self.planes(training)
        if training:
            self._saved = x, planes
        numbers, bits, step = x, 8, 1.0
        if isinstance(x, Codes):
            numbers, bits, step = x.numbers, x.bits, x.step

        def multiply(plane: Prepacked, **scales: Any) -> np.ndarray:
            if isinstance(numbers, BitArray):
                return gemm(numbers, plane, **scales)
            return mixed_product(numbers, plane, bits=bits, **scales)

        return planes.outputs(multiply, step=step, bias=self.bias_value)

    def backward(self, grad: np.ndarray) -> np.ndarray | None:
        saved, planes = saved_for_backward(self, self._saved)
        out_features, in_features = self.weight.shape
        dy = grad.reshape(-1, out_features)
        x = saved.reshape(-1, in_features)
        gradient = Gradient(dy, self.rounding)
        if isinstance(x, BitArray):
            weight_gradient(gradient, x, self.weight.grad)
        else:
            np.matmul(dy.T, as_float(x), out=self.weight.grad)
        self._keep_gradients(dy)
        if is_data(saved):
            return None  # no layer below learns from it
        return planes.input_gradient(gradient).reshape(saved.shape)

    @property
    def role(self) -> Role:
        return Role.ALONE if self.real_evaluation else Role.PRODUCT

    def to_packed(self, flow: Flow = NUMBERS, **outputs: Any) -> Layer:
        if self.real_evaluation:
            return FloatDense(self.weight.value, self.bias_value)
        planes = self.planes()
        options = {**(outputs or own_outputs(self, flow)), "input_bits": flow.code_bits}
        if planes.is_single:
            return PackedDense(planes.bits[0], **options)
        return PackedPlanesDense(stacked(planes.bits), planes.coefficients, **options)

    def __repr__(self) -> str:
        return f"{self.name}({self.in_features}, {self.out_features}{self._options()})"


class QuantizedDense(QuantizedProduct, BinaryDense):
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
        seed=None,
    ):
        QuantizedProduct.__init__(
            self,
            self._set_features(in_features, out_features),
            quantizer,
            bias=bias,
            clip_value=clip_value,
            lr_scale=lr_scale,
            start=start,
            seed=seed,
        )


@register
class PackedDense(PackedSingle):
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
        axes = "out_features, in_features"
        super().__init__(w, axes, threshold, flip, alpha, bias, input_bits)
        self.out_features: int = check_size("PackedDense", "out_features", self.weight.shape[0])
        self.in_features: int = check_size("PackedDense", "in_features", self.weight.shape[1])

    def forward(self, x) -> Activation:
        x = self._packed_input(as_activation("PackedDense", x, self.in_features))
        if isinstance(x, BitArray):
            if self.threshold is not None:
                return gemm_sign(x, self._prepacked, self._integer_threshold, flip=self._flip_bits)
            if self._sums is not None:
                return self._finish(self._of_units(gemm(x, self._prepacked)))
            return gemm(x, self._prepacked, alpha=self.alpha, bias=self.bias)
        bits = self.input_bits or 8
        if self.threshold is not None:
            return self._finish(mixed_product(x, self._prepacked, bits=bits))
        return mixed_product(x, self._prepacked, bits=bits, alpha=self.alpha, bias=self.bias)

    def __repr__(self) -> str:
        return f"PackedDense({self.in_features}, {self.out_features}{self._fields()})"


@register
class PackedPlanesDense(PackedPlanes):
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
        axes = "planes, out_features, in_features"
        super().__init__(w, coefficients, axes, threshold, flip, alpha, bias, input_bits)
        self._layers = [PackedDense(plane, input_bits=input_bits) for plane in self.weight]
        self.in_features, self.out_features = self._layers[0].in_features, self.weight.shape[1]

    def forward(self, x) -> Activation:
        x = as_activation(self.name, x, self.in_features)
        products = [np.asarray(layer(x)) for layer in self._layers]
        return self._finish(sum_planes(products, self.coefficients))

    def __repr__(self) -> str:
        planes = f"planes={len(self._layers)}"
        return f"{self.name}({self.in_features}, {self.out_features}, {planes}{self._fields()})"


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

    def __init__(self, in_features: int, out_features: int, *, bias: bool = True, seed=None):
        self.in_features = check_size(self.name, "in_features", in_features)
        self.out_features = check_size(self.name, "out_features", out_features)
        super().__init__((self.out_features, self.in_features), bias=bias, seed=seed)
        self._x: Activation | None = None

    def values(self) -> np.ndarray:
        """The weights that products see."""
        return self.weight.value

    def forward(self, x, *, training: bool = False) -> np.ndarray:
        x = as_activation(self.name, x, self.in_features)
        if training:
            self._x = x
        return float_product(x, self.values(), self.bias_value)

    def backward(self, grad: np.ndarray) -> np.ndarray | None:
        saved = saved_for_backward(self, self._x)
        out_features, in_features = self.weight.shape
        dy = grad.reshape(-1, out_features)
        np.matmul(dy.T, as_float(saved).reshape(-1, in_features), out=self.weight.grad)
        self._keep_bias_gradient(dy)
        return None if is_data(saved) else (dy @ self.values()).reshape(saved.shape)

    def to_packed(self) -> FloatDense:
        return FloatDense(self.values(), self.bias_value)

    def __repr__(self) -> str:
        bias = "" if self.bias is not None else ", bias=False"
        return f"{self.name}({self.in_features}, {self.out_features}{bias})"


class TanhDense(Dense):
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


@register
class FloatDense(Layer):
    """Twin of `Dense` for inference: float32 weights, kept as they are.

    Parameters
    ----------
    w : array_like of shape (out_features, in_features), float32
    bias : array_like of shape (out_features,), float32, optional
    """

    ARRAYS = float_arrays(2)

    def __init__(self, w, bias=None):
        self.weight = as_weights("FloatDense", w, "out_features, in_features")
        self.out_features = check_size("FloatDense", "out_features", self.weight.shape[0])
        self.in_features = check_size("FloatDense", "in_features", self.weight.shape[1])
        self.bias = as_scales("FloatDense", "bias", bias, self.out_features)

    def forward(self, x) -> np.ndarray:
        x = as_activation("FloatDense", x, self.in_features)
        return float_product(x, self.weight, self.bias)

    def cost(self, bits_in: bool) -> Cost:
        return float_cost(self.weight, self.bias)

    def __repr__(self) -> str:
        bias = "" if self.bias is None else ", bias"
        return f"FloatDense({self.in_features}, {self.out_features}{bias})"


def float_product(x: Activation, w: np.ndarray, bias: np.ndarray | None) -> np.ndarray:
    """y = x W^T + bias in float32, the same code in training and inference."""
    y = (as_float(x).reshape(-1, w.shape[1]) @ w.T).reshape(*x.shape[:-1], len(w))
    if bias is not None:
        y += bias
    return y
