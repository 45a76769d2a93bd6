"""Fully connected layers with +-1 weights: the training layer and its packed twin."""

from __future__ import annotations

import math

import numpy as np

from ..array import BitArray, pack, unpack
from ..linalg import bitplane_gemm, gemm, gemm_sign, prepack, weight_gemm
from .base import (
    Activation,
    Cost,
    Layer,
    Parameter,
    TrainingLayer,
    as_activation,
    as_flips,
    as_float,
    as_scales,
    as_thresholds,
    check_size,
    saved_for_backward,
)
from .quantizers import compare


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
    x : ndarray of shape (..., k), uint8 or float32
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


class BinaryDense(TrainingLayer):
    """Dense layer whose weights are the signs of trained float32 latent weights.

    Parameters
    ----------
    in_features, out_features : int
    bias : bool
        Whether to add a trained float32 bias.
    seed : int, SeedSequence or Generator, optional
        Source of the first weights, uniform in [-1, 1).

    Attributes
    ----------
    weight : Parameter of shape (out_features, in_features)
        Latent weights, clipped to [-1, 1] by the optimizer.
    bias : Parameter of shape (out_features,) or None

    Notes
    -----
    Forward, with Wb = sign(W):  y = x Wb^T + b.  Bits meet bits in the packed `gemm`; uint8 input
    gives the exact integer product, and real input that of `weight_gemm`.
    Backward:  dx = dy Wb,  dWb = dy^T x,  db = sum dy.  The gradient of Wb is applied to W as it
    is, without a mask; the clip of W does the rest.
    The learning rate of W is multiplied by sqrt((in_features + out_features) / 1.5).

    References
    ----------
    Courbariaux, Hubara et al., "Binarized Neural Networks", 2016, algorithm 1; start values and
    the scale of the learning rate are those of the code released with it.
    """

    def __init__(self, in_features: int, out_features: int, *, bias: bool = False, seed=None):
        self.in_features = check_size("BinaryDense", "in_features", in_features)
        self.out_features = check_size("BinaryDense", "out_features", out_features)
        shape = (self.out_features, self.in_features)
        start = np.random.default_rng(seed).random(shape, dtype=np.float32) * 2 - 1
        glorot = math.sqrt((self.in_features + self.out_features) / 1.5)
        self.weight = Parameter(start, clip_value=1.0, lr_scale=glorot)
        self.bias = Parameter(np.zeros(self.out_features)) if bias else None
        self._packed_version: int | None = None
        self._x: Activation | None = None

    def _refresh(self) -> None:
        """Pack the signs of the latent weights again if those have changed."""
        if self._packed_version != self.weight.version:
            self._bits = pack(self.weight.value)
            self._prepacked = prepack(self._bits)
            self._packed_version = self.weight.version

    @property
    def bits(self) -> BitArray:
        """Signs of the weights, a BitArray of shape (out_features, in_features)."""
        self._refresh()
        return self._bits

    def forward(self, x, *, training: bool = False) -> np.ndarray:
        x = as_activation("BinaryDense", x, self.in_features)
        self._refresh()
        if training:
            self._x = x
        bias = None if self.bias is None else self.bias.value
        # alpha = 1 makes exact integers come as float32
        if isinstance(x, BitArray):
            return gemm(x, self._prepacked, alpha=1.0, bias=bias)
        return mixed_product(x, self._bits, alpha=1.0, bias=bias)

    def add_bias(self, z: np.ndarray) -> np.ndarray:
        """The layer's output for the products `z`, float32."""
        return z if self.bias is None else z + self.bias.value

    def backward(self, grad: np.ndarray) -> np.ndarray | None:
        saved = saved_for_backward(self, self._x)
        out_features, in_features = self.weight.shape
        x = as_float(saved).reshape(-1, in_features)
        dy = grad.reshape(-1, out_features)
        np.matmul(dy.T, x, out=self.weight.grad)
        if self.bias is not None:
            np.sum(dy, axis=0, out=self.bias.grad)
        if not isinstance(saved, BitArray) and saved.dtype == np.uint8:
            return None  # image data: no layer below learns from it
        return (dy @ unpack(self.bits, dtype=np.float32)).reshape(saved.shape)

    def parameters(self) -> list[Parameter]:
        return [self.weight] if self.bias is None else [self.weight, self.bias]

    def cost(self, bits_in: bool) -> Cost:
        bias = 0 if self.bias is None else self.bias.size
        return _dense_cost(self.bits, bits_in, numbers=bias, number_bytes=4 * bias)

    def __repr__(self) -> str:
        bias = "" if self.bias is None else ", bias=True"
        return f"BinaryDense({self.in_features}, {self.out_features}{bias})"


class PackedDense(Layer):
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
        w = w if isinstance(w, BitArray) else pack(w)
        if w.ndim != 2 or w.axis != 1 or 0 in w.shape:
            raise ValueError(
                f"[PackedDense] w must have shape (out_features, in_features), both >= 1, and be "
                f"packed along the last axis, got {w!r}"
            )
        if threshold is None and flip is not None:
            raise ValueError("[PackedDense] flip must come with a threshold, got threshold=None")
        if threshold is not None and not (alpha is None and bias is None):
            raise ValueError("[PackedDense] give either threshold or alpha and bias, got both")
        self.out_features = check_size("PackedDense", "out_features", w.shape[0])
        self.in_features = check_size("PackedDense", "in_features", w.shape[1])
        self.weight = w
        self._prepacked = prepack(w)
        self.threshold: np.ndarray | None = None
        if threshold is not None:
            self.threshold = as_thresholds("PackedDense", threshold, self.out_features)
            self._integer_threshold = _floor(self.threshold)
        self.flip = as_flips("PackedDense", flip, self.out_features)
        self._flip_bits = None if self.flip is None else pack(self.flip)
        self.alpha = as_scales("PackedDense", "alpha", alpha, self.out_features)
        self.bias = as_scales("PackedDense", "bias", bias, self.out_features)

    def forward(self, x) -> Activation:
        x = as_activation("PackedDense", x, self.in_features)
        if isinstance(x, BitArray):
            if self.threshold is not None:
                return gemm_sign(x, self._prepacked, self._integer_threshold, flip=self._flip_bits)
            return gemm(x, self._prepacked, alpha=self.alpha, bias=self.bias)
        if self.threshold is not None:
            z = mixed_product(x, self.weight)
            return compare("PackedDense", z, self.threshold, self.flip)
        return mixed_product(x, self.weight, alpha=self.alpha, bias=self.bias)

    def emits_bits(self, bits_in: bool) -> bool:
        return self.threshold is not None

    def cost(self, bits_in: bool) -> Cost:
        numbers = [a for a in (self.threshold, self.alpha, self.bias) if a is not None]
        flip_bytes = 0 if self._flip_bits is None else self._flip_bits.nbytes
        return _dense_cost(
            self.weight,
            bits_in,
            numbers=sum(a.size for a in numbers),
            number_bytes=sum(a.nbytes for a in numbers) + flip_bytes,
        )

    def __repr__(self) -> str:
        names = ("threshold", "flip", "alpha", "bias")
        parts = "".join(f", {name}" for name in names if getattr(self, name) is not None)
        return f"PackedDense({self.in_features}, {self.out_features}{parts})"


def _floor(threshold: np.ndarray) -> np.ndarray:
    """The int32 thresholds that compare with integers as `threshold` does."""
    if threshold.dtype == np.int32:
        return threshold
    limits = np.iinfo(np.int32)
    # through float64, which holds the limits of int32 exactly
    floor = np.floor(threshold.astype(np.float64))
    return np.clip(floor, limits.min, limits.max).astype(np.int32)


def _dense_cost(w: BitArray, bits_in: bool, numbers: int, number_bytes: int) -> Cost:
    return Cost(
        parameters=w.size + numbers,
        packed_bytes=w.nbytes + number_bytes,
        binary_macs=w.size if bits_in else 0,
        float_macs=0 if bits_in else w.size,
    )
