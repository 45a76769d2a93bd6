"""What dense and convolutional layers share: latent, packed and float32 weights, and the bias."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from ..ops.array import BitArray, above_operand, pack, popcount
from ..ops.checks import check_number
from ..ops.linalg import prepack
from ..ops.scaling import binarize_weights
from ..quantizers import ByteGradient, DoReFaWeight, StochasticSign, XnorSign
from .base import Cost, Layer, TrainingLayer
from .inputs import (
    Activation,
    Codes,
    as_flips,
    as_scales,
    as_thresholds,
    check_flag,
    check_input_bits,
    is_data,
)
from .parameter import Parameter
from .planes import Planes, WeightQuantizer, check_sums, check_weight_quantizer, planes_of, scaled

MAX_COEFFICIENT = 2**8


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
        rng = np.random.default_rng(seed)
        super().__init__(Parameter(start_weights(self.name, "normal", shape, rng)), bias)

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
    gradient : {"straight", "paper", "chain"} or quantizer, optional
        How the gradient of the binary weights becomes that of the latent ones: as it is
        ("straight", the default without alpha), by one of the forms of `xnor_weight_gradient`
        ("paper" is the default with alpha), or by the `backward` of a quantizer of
        `bitops.quantizers`.
    stochastic : bool
        Whether training draws the signs at random, +1 with probability (W + 1) / 2, anew in every
        forward pass. Evaluation takes sign(W).
    real_evaluation : bool
        Whether evaluation takes the latent weights themselves. Freezing then gives a layer of
        float32 weights; the attribute may be set to False before, for binary ones.
    center : bool
        Whether to subtract from the latent weights their mean over the input channels and to clip
        them to [-1, 1] after every step, when they are first used; the optimizer then does not
        clip them.
    lr_scale : float, optional
        Factor of the learning rate instead of that by `fan_in` and `fan_out`.
    start : {"uniform", "normal"}
        Distribution of the first weights: uniform in [-1, 1), or normal with variance 2 / (weights
        of a filter).
    seed : int, SeedSequence or Generator, optional
        Source of the first weights, and of the signs that are drawn.

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
        alpha: bool = False,
        gradient: Any = None,
        stochastic: bool = False,
        real_evaluation: bool = False,
        center: bool = False,
        lr_scale: float | None = None,
        start: str = "uniform",
        seed: Any,
    ):
        self.scaled = check_flag(self.name, "alpha", alpha)
        self.stochastic = check_flag(self.name, "stochastic", stochastic)
        self.real_evaluation = check_flag(self.name, "real_evaluation", real_evaluation)
        self.center = check_flag(self.name, "center", center)
        if self.scaled and (self.stochastic or self.real_evaluation):
            raise ValueError(
                f"[{self.name}] alpha must be False with stochastic or real_evaluation, got True"
            )
        self.estimator = _estimator(self.name, gradient, self.scaled)
        rng = np.random.default_rng(seed)
        latent = start_weights(self.name, start, shape, rng)
        glorot = math.sqrt((fan_in + fan_out) / 1.5)
        super().__init__(
            Parameter(
                latent,
                clip_value=None if self.center else 1.0,
                lr_scale=glorot if lr_scale is None else lr_scale,
                binary=True,
            ),
            bias,
        )
        self._sampler: StochasticSign | None = StochasticSign(seed=rng) if stochastic else None
        self._planes_version: int | None = None

    def planes(self, training: bool = False) -> Planes:
        """The weights that products see, quantized again if the latent ones have changed."""
        if self._planes_version != self.weight.version:
            if self.center:
                self._center()
            self._planes = self._quantized()
            self._planes_version = self.weight.version
        if training and self._sampler is not None:
            return Planes([pack(self._sampler.forward(self.weight.value))])
        return self._planes

    def state(self) -> list:
        self.planes()  # centred now, where the next forward pass would centre them
        return super().state()

    def restore(self, state: Sequence) -> None:
        super().restore(state)
        # as they were: what is centred and clipped once more is no longer the same
        self._planes, self._planes_version = self._quantized(), self.weight.version

    def _quantized(self) -> Planes:
        if self.scaled:
            bits, alpha = binarize_weights(self.weight.value)
            return Planes([bits], (1,), alpha)
        return Planes([self.weight.signs()])

    def _center(self) -> None:
        """W = clip(W - mean over the input channels, -1, 1)."""
        w = self.weight.writable()
        w -= w.mean(axis=-1, keepdims=True)
        np.clip(w, -1, 1, out=w)

    @property
    def bits(self) -> BitArray:
        """Signs of the weights, a BitArray of the shape of `weight`."""
        return self.planes().bits[0]

    @property
    def alpha(self) -> np.ndarray | None:
        """Scale of each filter, float32; None without scales."""
        return self.planes().alpha

    def values(self) -> np.ndarray:
        """The weights that evaluation sees, such as alpha * sign(W), float32."""
        return self.weight.value if self.real_evaluation else self.planes().values()

    def _keep_gradients(self, dy: np.ndarray) -> None:
        """Finish the gradients: `weight.grad` holds that of `values()`, dy is of shape (..., n)."""
        if self.estimator is not None:
            self.weight.grad[...] = self.estimator.backward(self.weight.value, self.weight.grad)
        self._keep_bias_gradient(dy)

    def cost(self, bits_in: bool) -> Cost:
        if self.real_evaluation:
            return float_cost(self.weight.value, self.bias_value)
        bias = 0 if self.bias is None else self.bias.size
        alpha = 0 if self.alpha is None else self.alpha.size
        planes = self.planes().bits
        return product_cost(planes, bits_in, numbers=bias, number_bytes=4 * (bias + alpha))

    def generators(self) -> list[np.random.Generator]:
        sources = [self._sampler, self.rounding]
        return [source.generator for source in sources if source is not None]

    def _options(self) -> str:
        """What differs from the default, for a repr."""
        flags = {
            "bias": self.bias is not None,
            "alpha": self.scaled,
            "stochastic": self.stochastic,
            "real_evaluation": self.real_evaluation,
            "center": self.center,
        }
        return "".join(f", {name}=True" for name, is_set in flags.items() if is_set)


def _estimator(where: str, gradient: Any, is_scaled: bool) -> Any:
    """What gives the gradient of latent weights; None passes it on as it is."""
    if gradient is None:
        gradient = "paper" if is_scaled else "straight"
    if gradient == "straight":
        return None
    if isinstance(gradient, str):
        if gradient not in ("paper", "chain"):
            raise ValueError(
                f"[{where}] gradient must be 'straight', 'paper', 'chain' or a quantizer, "
                f"got {gradient!r}"
            )
        gradient = XnorSign("chain" if gradient == "chain" else "paper")
    if not callable(getattr(gradient, "backward", None)):
        raise TypeError(f"[{where}] gradient must be a string or a quantizer, got {gradient!r}")
    if isinstance(gradient, XnorSign) and not is_scaled:
        raise ValueError(f"[{where}] gradient must fit alpha=False, got {gradient!r}")
    return gradient


def start_weights(
    where: str, start: str, shape: tuple[int, ...], rng: np.random.Generator
) -> np.ndarray:
    """First weights: uniform in [-1, 1), or normal with variance 2 / (weights of a filter)."""
    if start == "uniform":
        return rng.random(shape, dtype=np.float32) * 2 - 1
    if start != "normal":
        raise ValueError(f"[{where}] start must be 'uniform' or 'normal', got {start!r}")
    deviation = np.float32(math.sqrt(2 / math.prod(shape[1:])))
    return rng.standard_normal(shape, dtype=np.float32) * deviation


class QuantizedProduct(BinaryProduct):
    """Base of the layers whose weights are latent ones after a quantizer: ternary, or of k bits.

    Parameters
    ----------
    shape, fan_in, fan_out, bias
        As in `BinaryProduct`.
    quantizer : quantizer of weights
    clip_value : float, optional
        The optimizer clips latent weights to [-clip_value, clip_value].
    lr_scale : float
        Factor of the learning rate.
    start, seed
        As in `BinaryProduct`.
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        quantizer: WeightQuantizer,
        *,
        bias: bool,
        clip_value: float | None,
        lr_scale: float,
        start: str,
        seed: Any,
    ):
        check_weight_quantizer(self.name, quantizer)
        if isinstance(quantizer, DoReFaWeight) and quantizer.bits > 8:
            raise ValueError(f"[{self.name}] bits must be at most 8, got {quantizer.bits}")
        if clip_value is not None:
            check_number(self.name, "clip_value", clip_value)
        if clip_value is not None and not clip_value > 0:
            raise ValueError(f"[{self.name}] clip_value must be positive, got {clip_value}")
        latent = start_weights(self.name, start, shape, np.random.default_rng(seed))
        Product.__init__(self, Parameter(latent, clip_value=clip_value, lr_scale=lr_scale), bias)
        self.quantizer = self.estimator = quantizer
        self.scaled = self.stochastic = self.real_evaluation = self.center = False
        self._sampler: StochasticSign | None = None
        self._planes_version: int | None = None
        check_sums(self.name, math.prod(shape[1:]), 255, self.planes().coefficients)

    def _quantized(self) -> Planes:
        return planes_of(self.quantizer, self.weight.value)

    def _options(self) -> str:
        return f", {self.quantizer!r}{super()._options()}"


class PackedProduct(Layer):
    """Base of the layers on packed +-1 weights: which outputs there are, and their settings.

    Parameters
    ----------
    w : BitArray or array_like
        Weights, one filter for each output feature along the first axis, or the second behind one
        of planes; a real array is packed by sign (zero counts as +1).
    axes : str
        The axes that w must have, for the message of an error.
    threshold, flip, alpha, bias, input_bits
        As in `PackedDense`.
    """

    def __init__(self, w, axes: str, threshold, flip, alpha, bias, input_bits: int | None):
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
        if input_bits is not None:
            check_input_bits(self.name, "input_bits", input_bits)
        features = w.shape[axes.startswith("planes")]
        self.weight = w
        self.input_bits = input_bits
        self.threshold: np.ndarray | None = None
        if threshold is not None:
            self.threshold = as_thresholds(self.name, threshold, features)
        self.flip = as_flips(self.name, flip, features)
        self._flip_bits = None if self.flip is None else pack(self.flip)
        self.alpha = as_scales(self.name, "alpha", alpha, features)
        self.bias = as_scales(self.name, "bias", bias, features)

    def _finish(self, z: np.ndarray) -> Activation:
        """The output for products z."""
        if self.threshold is not None:
            return above_operand(self.name, z, self.threshold, self._flip_bits)
        if self.alpha is None and self.bias is None:
            return z
        return scaled(z, self.alpha, self.bias)

    def _packed_input(self, x: Activation) -> BitArray | np.ndarray:
        """The input as bits or numbers; numbers other than the codes announced are refused."""
        if isinstance(x, Codes):
            x = x.values()
        if self.input_bits is not None:
            is_bits = isinstance(x, BitArray)
            if not (is_data(x) or (is_bits and self.input_bits == 1)):
                raise TypeError(
                    f"[{self.name}] x must be uint8 codes for input_bits={self.input_bits}, "
                    f"got {x!r}"
                )
        return x

    def emits_bits(self, bits_in: bool) -> bool:
        return self.threshold is not None

    def config(self) -> dict[str, Any]:
        return {**super().config(), "input_bits": self.input_bits}

    def cost(self, bits_in: bool) -> Cost:
        numbers = [a for a in (self.threshold, self.alpha, self.bias) if a is not None]
        flip_bytes = 0 if self._flip_bits is None else self._flip_bits.nbytes
        return product_cost(
            [self.weight],
            bits_in,
            numbers=sum(a.size for a in numbers),
            number_bytes=sum(a.nbytes for a in numbers) + flip_bytes,
        )

    def _fields(self) -> str:
        """Names of the optional arrays that are there, for a repr."""
        names = ("threshold", "flip", "alpha", "bias")
        fields = "".join(f", {name}" for name in names if getattr(self, name) is not None)
        return fields + ("" if self.input_bits is None else f", input_bits={self.input_bits}")


class PackedSingle(PackedProduct):
    """Base of the packed layers of one plane of weights, and what bits for 0 and 1 need.

    Notes
    -----
    A dot product d of +-1 bits b and weights w gives that of the bits (b + 1) / 2, which are 0 and
    1, as (d + s) / 2, s the sum of the filter's weights; it exceeds t where d > 2 t - s.
    """

    def __init__(self, w, axes: str, threshold, flip, alpha, bias, input_bits: int | None):
        super().__init__(w, axes, threshold, flip, alpha, bias, input_bits)
        self._prepacked = prepack(self.weight)
        self._sums: np.ndarray | None = None
        if input_bits == 1:
            filters = self.weight.shape[0]
            ones = popcount(self.weight, axis=-1).reshape(filters, -1).sum(axis=1)
            self._sums = (2 * ones - self.weight.size // filters).astype(np.int32)
        if self.threshold is not None:
            self._integer_threshold = _floor(self.threshold)
            if self._sums is not None:
                limits = 2 * self._integer_threshold.astype(np.int64) - self._sums
                self._integer_threshold = _as_int32(limits)

    def _of_units(self, z: np.ndarray) -> np.ndarray:
        """Products with 0 and 1, given those with -1 and +1."""
        z += self._sums
        z >>= 1
        return z


class PackedPlanes(PackedProduct):
    """Base of the packed layers whose weights are sums of +-1 planes.

    Parameters
    ----------
    w : BitArray or array_like
        Planes of weights along the first axis, filters along the second.
    coefficients : sequence of int
        What each plane counts.
    axes, threshold, flip, alpha, bias, input_bits
        As in `PackedProduct`.
    """

    def __init__(
        self, w, coefficients, axes: str, threshold, flip, alpha, bias, input_bits: int | None
    ):
        super().__init__(w, axes, threshold, flip, alpha, bias, input_bits)
        self.coefficients = _as_coefficients(self.name, coefficients, self.weight.shape[0])
        k = math.prod(self.weight.shape[2:])
        check_sums(self.name, k, 255, self.coefficients)

    def config(self) -> dict[str, Any]:
        return {**super().config(), "coefficients": list(self.coefficients)}

    def cost(self, bits_in: bool) -> Cost:
        cost = super().cost(bits_in)
        latent = self.weight.size // self.weight.shape[0]
        return replace(cost, parameters=cost.parameters - self.weight.size + latent)


def _as_coefficients(where: str, coefficients, planes: int) -> tuple[int, ...]:
    """As many integers, each at least 1."""
    values = tuple(coefficients) if isinstance(coefficients, list | tuple) else (coefficients,)
    if any(type(c) is not int or not 1 <= c <= MAX_COEFFICIENT for c in values):
        raise ValueError(
            f"[{where}] coefficients must be integers in 1..{MAX_COEFFICIENT}, got {coefficients!r}"
        )
    if len(values) != planes:
        raise ValueError(
            f"[{where}] coefficients must be as many as planes, {planes}, got {coefficients!r}"
        )
    return values


def _floor(threshold: np.ndarray) -> np.ndarray:
    """The int32 thresholds that compare with integers as `threshold` does."""
    if threshold.dtype == np.int32:
        return threshold
    # through float64, which holds the limits of int32 exactly
    return _as_int32(np.floor(threshold.astype(np.float64)))


def _as_int32(limits: np.ndarray) -> np.ndarray:
    """Numbers clipped to int32."""
    ends = np.iinfo(np.int32)
    return np.clip(limits, ends.min, ends.max).astype(np.int32)


def product_cost(
    planes: Sequence[BitArray], bits_in: bool, numbers: int, number_bytes: int
) -> Cost:
    macs = sum(plane.size for plane in planes)
    return Cost(
        parameters=planes[0].size + numbers,
        packed_bytes=sum(plane.nbytes for plane in planes) + number_bytes,
        binary_macs=macs if bits_in else 0,
        float_macs=0 if bits_in else macs,
    )


def float_cost(w: np.ndarray, bias: np.ndarray | None) -> Cost:
    size = w.size + (0 if bias is None else bias.size)
    return Cost(size, 4 * size, float_macs=w.size)
