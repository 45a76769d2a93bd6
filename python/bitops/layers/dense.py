"""Fully connected layers: +-1 weights and float32 ones, the training layers and their twins."""

from __future__ import annotations

import numpy as np

from ..array import BitArray, above_operand
from ..linalg import bitplane_gemm, gemm, gemm_sign, weight_gemm
from .backward import Gradient, weight_gradient
from .base import (
    Activation,
    Cost,
    Layer,
    as_activation,
    as_float,
    as_scales,
    as_weights,
    check_size,
    is_data,
    saved_for_backward,
)
from .product import BinaryProduct, FloatProduct, PackedProduct, float_cost


def mixed_product(
    x: np.ndarray,
    w: BitArray,
    *,
    alpha: np.ndarray | float | None = None,
    bias: np.ndarray | None = None,
) -> np.ndarray:
    """Numbers times +-1 weights: exact integers for uint8, the fixed order of `weight_gemm` else.

    Parameters
    ----------
    x : ndarray of shape (..., k), uint8, int32 or float32
    w : BitArray of shape (n, k)
    alpha, bias : scalar or ndarray of shape (n,), float32, optional
        Scales and shifts of the columns.

    Returns
    -------
    ndarray of shape (..., n)
        int32 for uint8 without alpha and bias, else float32.
    """
    product = bitplane_gemm if x.dtype == np.uint8 else weight_gemm
    return product(x, w, alpha=alpha, bias=bias)


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
        Source of the first weights, uniform in [-1, 1).

    Attributes
    ----------
    weight : Parameter of shape (out_features, in_features)
        Latent weights, clipped to [-1, 1] by the optimizer.
    bias : Parameter of shape (out_features,) or None

    Notes
    -----
    Forward, with Wb = sign(W), or alpha sign(W):  y = x Wb^T + b.  Bits meet bits in the packed
    `gemm`; uint8 input gives the exact integer product, and real input that of `weight_gemm`.
    Backward:  dx = dy Wb,  dWb = dy^T x,  db = sum dy.  Without alpha the gradient of Wb is applied
    to W as it is, without a mask; the clip of W does the rest. With alpha it is
    dW = dWb (1/in_features + alpha 1{abs(W) < 1}).
    The learning rate of W is multiplied by sqrt((in_features + out_features) / 1.5).

    References
    ----------
    Courbariaux, Hubara et al., "Binarized Neural Networks", 2016, algorithm 1; start values and
    the scale of the learning rate are those of the code released with it.
    Rastegari et al., "XNOR-Net", 2016, section 3.1: alpha, and the gradient with it.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        bias: bool = False,
        alpha: bool = False,
        seed=None,
    ):
        self.in_features = check_size("BinaryDense", "in_features", in_features)
        self.out_features = check_size("BinaryDense", "out_features", out_features)
        shape = (self.out_features, self.in_features)
        super().__init__(
            shape, self.in_features, self.out_features, bias=bias, alpha=alpha, seed=seed
        )
        self._x: Activation | None = None

    def forward(self, x, *, training: bool = False) -> np.ndarray:
        x = as_activation("BinaryDense", x, self.in_features)
        if training:
            self._x = x
        if isinstance(x, BitArray):
            return gemm(x, self.prepacked, **self.scales())
        return mixed_product(x, self.bits, **self.scales())

    def backward(self, grad: np.ndarray) -> np.ndarray | None:
        saved = saved_for_backward(self, self._x)
        out_features, in_features = self.weight.shape
        dy = grad.reshape(-1, out_features)
        x = saved.reshape(-1, in_features)
        if isinstance(x, BitArray):
            weight_gradient(Gradient(dy, self.rounding), x, self.weight.grad)
        else:
            np.matmul(dy.T, as_float(x), out=self.weight.grad)
        self._keep_gradients(dy)
        if is_data(saved):
            return None  # no layer below learns from it
        scaled = Gradient(self.scale_gradient(dy), self.rounding)
        return scaled.times(scaled.matrix(), self.turned).reshape(saved.shape)

    def __repr__(self) -> str:
        bias = "" if self.bias is None else ", bias=True"
        alpha = ", alpha=True" if self.scaled else ""
        return f"BinaryDense({self.in_features}, {self.out_features}{bias}{alpha})"


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

    def __init__(self, w, threshold=None, flip=None, *, alpha=None, bias=None):
        super().__init__(w, "out_features, in_features", threshold, flip, alpha, bias)
        self.out_features = check_size("PackedDense", "out_features", self.weight.shape[0])
        self.in_features = check_size("PackedDense", "in_features", self.weight.shape[1])

    def forward(self, x) -> Activation:
        x = as_activation("PackedDense", x, self.in_features)
        if isinstance(x, BitArray):
            if self.threshold is not None:
                return gemm_sign(x, self._prepacked, self._integer_threshold, flip=self._flip_bits)
            return gemm(x, self._prepacked, alpha=self.alpha, bias=self.bias)
        if self.threshold is not None:
            z = mixed_product(x, self.weight)
            return above_operand("PackedDense", z, self.threshold, self._flip_bits)
        return mixed_product(x, self.weight, alpha=self.alpha, bias=self.bias)

    def __repr__(self) -> str:
        return f"PackedDense({self.in_features}, {self.out_features}{self._fields()})"


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
        self.in_features = check_size("Dense", "in_features", in_features)
        self.out_features = check_size("Dense", "out_features", out_features)
        super().__init__((self.out_features, self.in_features), bias=bias, seed=seed)
        self._x: Activation | None = None

    def forward(self, x, *, training: bool = False) -> np.ndarray:
        x = as_activation("Dense", x, self.in_features)
        if training:
            self._x = x
        return float_product(x, self.weight.value, self.bias_value)

    def backward(self, grad: np.ndarray) -> np.ndarray | None:
        saved = saved_for_backward(self, self._x)
        out_features, in_features = self.weight.shape
        dy = grad.reshape(-1, out_features)
        np.matmul(dy.T, as_float(saved).reshape(-1, in_features), out=self.weight.grad)
        self._keep_bias_gradient(dy)
        return None if is_data(saved) else (dy @ self.weight.value).reshape(saved.shape)

    def __repr__(self) -> str:
        bias = "" if self.bias is not None else ", bias=False"
        return f"Dense({self.in_features}, {self.out_features}{bias})"


class FloatDense(Layer):
    """Twin of `Dense` for inference: float32 weights, kept as they are.

    Parameters
    ----------
    w : array_like of shape (out_features, in_features), float32
    bias : array_like of shape (out_features,), float32, optional
    """

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
