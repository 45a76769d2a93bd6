"""What dense and convolutional layers share: latent, packed and float32 weights, and the bias."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ..array import BitArray, pack, unpack
from ..linalg import Prepacked, prepack
from ..quantizers import ByteGradient
from ..scaling import binarize_weights
from .base import (
    Cost,
    Layer,
    Parameter,
    TrainingLayer,
    as_flips,
    as_scales,
    as_thresholds,
    check_flag,
)


def latent_gradient(grad: np.ndarray, latent: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """Gradient of latent weights, given that of the weights alpha * sign(W) that stand for them.

    Parameters
    ----------
    grad : ndarray of shape (n, ...), float32
        Gradient of the scaled binary weights; overwritten by the result.
    latent : ndarray of shape (n, ...), float32
    alpha : ndarray of shape (n,), float32

    Notes
    -----
    ``grad * (1/m + alpha * 1{abs(W) < 1})``, m the weights of a filter: the straight-through
    estimator inside (-1, 1), and of the derivative of alpha the part that a weight has in itself.

    References
    ----------
    M. Rastegari et al., "XNOR-Net", 2016, section 3.1, below equation 6.
    """
    by_filter = alpha.reshape(-1, *[1] * (latent.ndim - 1))
    factor = by_filter * (np.abs(latent) < 1)
    factor += np.float32(latent.shape[0] / latent.size)
    grad *= factor
    return grad


class Product(TrainingLayer):
    """Base of the training layers with weights and perhaps a bias.

    Parameters
    ----------
    weight : Parameter of shape (n, ...)
        One filter for each output feature, along the first axis.
    bias : bool
        Whether to add a trained float32 bias, 0 at the start.
    """

    def __init__(self, weight: Parameter, bias: bool):
        self.weight = weight
        has_bias = check_flag(self.name, "bias", bias)
        self.bias = Parameter(np.zeros(weight.shape[0])) if has_bias else None

    @property
    def bias_value(self) -> np.ndarray | None:
        return None if self.bias is None else self.bias.value

    def _keep_bias_gradient(self, dy: np.ndarray) -> None:
        if self.bias is not None:
            np.sum(dy.reshape(-1, dy.shape[-1]), axis=0, out=self.bias.grad)

    def parameters(self) -> list[Parameter]:
        return [self.weight] if self.bias is None else [self.weight, self.bias]


class FloatProduct(Product):
    """Base of the training layers with float32 weights.

    Parameters
    ----------
    shape : tuple of int
        Of the weights: one filter for each output feature, along the first axis.
    bias : bool
        Whether to add a trained float32 bias, 0 at the start.
    seed : int, SeedSequence or Generator, optional
        Source of the first weights, normal with variance 2 / (weights of a filter).

    References
    ----------
    He et al., "Delving deep into rectifiers", 2015, equation 10: the start values.
    """

    def __init__(self, shape: tuple[int, ...], *, bias: bool, seed: Any):
        deviation = np.float32(math.sqrt(2 / math.prod(shape[1:])))
        start = np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)
        super().__init__(Parameter(start * deviation), bias)

    def cost(self, bits_in: bool) -> Cost:
        return float_cost(self.weight.value, self.bias_value)


class BinaryProduct(Product):
    """Base of the layers whose weights are the signs of trained float32 latent weights.

    Parameters
    ----------
    shape : tuple of int
        Of the latent weights: one filter for each output feature, along the first axis.
    fan_in, fan_out : int
        Sizes that scale the learning rate, by sqrt((fan_in + fan_out) / 1.5).
    bias : bool
        Whether to add a trained float32 bias.
    alpha : bool
        Whether to scale each filter by its mean absolute latent weight.
    seed : int, SeedSequence or Generator, optional
        Source of the first weights, uniform in [-1, 1).

    Attributes
    ----------
    rounding : ByteGradient or None
        If set, the backward products with bits take gradients rounded to 8 bits.
    """

    rounding: ByteGradient | None = None

    def __init__(
        self,
        shape: tuple[int, ...],
        fan_in: int,
        fan_out: int,
        *,
        bias: bool,
        alpha: bool,
        seed: Any,
    ):
        start = np.random.default_rng(seed).random(shape, dtype=np.float32) * 2 - 1
        glorot = math.sqrt((fan_in + fan_out) / 1.5)
        super().__init__(Parameter(start, clip_value=1.0, lr_scale=glorot, binary=True), bias)
        self.scaled = check_flag(self.name, "alpha", alpha)
        self._packed_version: int | None = None

    def _refresh(self) -> None:
        """Pack the signs of the latent weights again if those have changed."""
        if self._packed_version == self.weight.version:
            return
        self._alpha: np.ndarray | None = None
        if self.scaled:
            self._bits, self._alpha = binarize_weights(self.weight.value)
        else:
            self._bits = self.weight.signs()
        self._prepacked = prepack(self._bits)
        self._turned: BitArray | None = None
        self._packed_version = self.weight.version

    @property
    def bits(self) -> BitArray:
        """Signs of the weights, a BitArray of the shape of `weight`."""
        self._refresh()
        return self._bits

    @property
    def prepacked(self) -> Prepacked:
        """`bits` in register panels."""
        self._refresh()
        return self._prepacked

    @property
    def turned(self) -> BitArray:
        """`bits` as a matrix (weights of a filter, filters), packed along the filters."""
        self._refresh()
        if self._turned is None:
            filters, *rest = self.weight.shape
            # the rows of a convolution's filters follow each other without gaps
            rows = BitArray.from_words(self._prepacked.rows(), (filters, math.prod(rest)))
            self._turned = pack(rows.T)
        return self._turned

    @property
    def alpha(self) -> np.ndarray | None:
        """Scale of each filter, float32; None without scales."""
        self._refresh()
        return self._alpha

    def scales(self) -> dict[str, Any]:
        """Arguments `alpha` and `bias` of the product functions, which then give float32."""
        # alpha = 1 makes exact integers come as float32
        return {"alpha": 1.0 if self.alpha is None else self.alpha, "bias": self.bias_value}

    def scale_products(self, z: np.ndarray) -> np.ndarray:
        """The layer's output for the products `z`, float32."""
        if self.alpha is not None:
            z = z * self.alpha
        return z if self.bias is None else z + self.bias.value

    def scale_gradient(self, dy: np.ndarray) -> np.ndarray:
        """dy alpha: what the gradient of the outputs is to the products with sign(W)."""
        return dy if self.alpha is None else dy * self.alpha

    def values(self) -> np.ndarray:
        """The weights that the products see, alpha * sign(W), float32."""
        values = unpack(self.bits, dtype=np.float32)
        if self.alpha is not None:
            values *= self.alpha.reshape(-1, *[1] * (values.ndim - 1))
        return values

    def _keep_gradients(self, dy: np.ndarray) -> None:
        """Finish the gradients: `weight.grad` holds that of `values()`, dy is of shape (..., n)."""
        if self.alpha is not None:
            latent_gradient(self.weight.grad, self.weight.value, self.alpha)
        self._keep_bias_gradient(dy)

    def cost(self, bits_in: bool) -> Cost:
        bias = 0 if self.bias is None else self.bias.size
        alpha = 0 if self.alpha is None else self.alpha.size
        return product_cost(self.bits, bits_in, numbers=bias, number_bytes=4 * (bias + alpha))


class PackedProduct(Layer):
    """Base of the layers on packed +-1 weights: which outputs there are, and their settings.

    Parameters
    ----------
    w : BitArray or array_like
        Weights, one filter for each output feature along the first axis; a real array is packed by
        sign (zero counts as +1).
    axes : str
        The axes that w must have, for the message of an error.
    threshold, flip, alpha, bias
        As in `PackedDense`.
    """

    def __init__(self, w, axes: str, threshold, flip, alpha, bias):
        w = w if isinstance(w, BitArray) else pack(w)
        ndim = axes.count(",") + 1
        if w.ndim != ndim or w.axis != ndim - 1 or 0 in w.shape:
            raise ValueError(
                f"[{self.name}] w must have shape ({axes}), all >= 1, and be packed along the "
                f"last axis, got {w!r}"
            )
        if threshold is None and flip is not None:
            raise ValueError(f"[{self.name}] flip must come with a threshold, got threshold=None")
        if threshold is not None and not (alpha is None and bias is None):
            raise ValueError(f"[{self.name}] give either threshold or alpha and bias, got both")
        features = w.shape[0]
        self.weight = w
        self._prepacked = prepack(w)
        self.threshold: np.ndarray | None = None
        if threshold is not None:
            self.threshold = as_thresholds(self.name, threshold, features)
            self._integer_threshold = _floor(self.threshold)
        self.flip = as_flips(self.name, flip, features)
        self._flip_bits = None if self.flip is None else pack(self.flip)
        self.alpha = as_scales(self.name, "alpha", alpha, features)
        self.bias = as_scales(self.name, "bias", bias, features)

    def emits_bits(self, bits_in: bool) -> bool:
        return self.threshold is not None

    def cost(self, bits_in: bool) -> Cost:
        numbers = [a for a in (self.threshold, self.alpha, self.bias) if a is not None]
        flip_bytes = 0 if self._flip_bits is None else self._flip_bits.nbytes
        return product_cost(
            self.weight,
            bits_in,
            numbers=sum(a.size for a in numbers),
            number_bytes=sum(a.nbytes for a in numbers) + flip_bytes,
        )

    def _fields(self) -> str:
        """Names of the optional arrays that are there, for a repr."""
        names = ("threshold", "flip", "alpha", "bias")
        return "".join(f", {name}" for name in names if getattr(self, name) is not None)


def _floor(threshold: np.ndarray) -> np.ndarray:
    """The int32 thresholds that compare with integers as `threshold` does."""
    if threshold.dtype == np.int32:
        return threshold
    limits = np.iinfo(np.int32)
    # through float64, which holds the limits of int32 exactly
    floor = np.floor(threshold.astype(np.float64))
    return np.clip(floor, limits.min, limits.max).astype(np.int32)


def product_cost(w: BitArray, bits_in: bool, numbers: int, number_bytes: int) -> Cost:
    return Cost(
        parameters=w.size + numbers,
        packed_bytes=w.nbytes + number_bytes,
        binary_macs=w.size if bits_in else 0,
        float_macs=0 if bits_in else w.size,
    )


def float_cost(w: np.ndarray, bias: np.ndarray | None) -> Cost:
    size = w.size + (0 if bias is None else bias.size)
    return Cost(size, 4 * size, float_macs=w.size)
