"""The weights of a layer: latent ones that training quantizes, and packed ones for inference."""

from __future__ import annotations

import math
import threading
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np

from ..ops.array import BitArray, pack, pack_operand
from ..ops.checks import as_generator, check_rate, real_array
from ..ops.counts import popcount
from ..ops.scaling import binarize_weights
from ..quantizers import DoReFaWeight, StochasticSign, XnorSign
from ..quantizers.base import check_clip
from .base import Cost
from .inputs import check_flag
from .operation import Operation
from .parameter import Parameter
from .planes import (
    PlaneProduct,
    Planes,
    WeightQuantizer,
    check_sums,
    check_weight_quantizer,
    planes_of,
    sum_planes,
)

MAX_COEFFICIENT = 2**8

# Two threads that use the same weights would subtract their means twice.
_CENTERING = threading.Lock()


class LatentWeights:
    """Trained float32 weights that a layer quantizes before it multiplies by them.

    `of_signs` makes binary weights. `of_quantizer` makes ternary weights or weights of a few bits.

        latent weights W --quantize--> planes --multiply--> y          forward
        dW <--estimator.backward-- dQ <------- dy^T x                  backward

    Parameters
    ----------
    parameter : Parameter of shape (n, ...)
        The latent weights W, one filter for each output feature.
    quantizer : quantizer of weights, optional
        Its `forward` gives the quantized weights. By default they are sign(W).
    estimator : quantizer, optional
        Its `backward` turns the gradient of the quantized weights into that of W. By default W
        gets the former unchanged.
    is_scaled : bool
        Whether the signs of each filter are multiplied by alpha, its mean absolute weight.
    sampler : StochasticSign, optional
        Draws new signs for every forward pass in training.
    real_evaluation : bool
        Whether evaluation uses W itself.
    center : bool
        Whether the mean over the input channels is subtracted from W, and W is clipped to [-1, 1].
        That happens when W is first used after a step.
    """

    def __init__(
        self,
        parameter: Parameter,
        *,
        quantizer: WeightQuantizer | None = None,
        estimator: Any = None,
        is_scaled: bool = False,
        sampler: StochasticSign | None = None,
        real_evaluation: bool = False,
        center: bool = False,
    ):
        self.parameter = parameter
        self.quantizer, self.estimator = quantizer, estimator
        self.is_scaled = is_scaled
        self.sampler = sampler
        self.real_evaluation = real_evaluation
        self.center = center
        self._quantized: tuple[int, Planes] | None = None  # version of W, and its planes
        self._centered: int | None = None  # version of W whose means are subtracted

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_quantized": None}

    @classmethod
    def of_signs(
        cls,
        where: str,
        operation: Operation,
        *,
        scale_weights: bool,
        seed: Any,
        gradient: Any = None,
        stochastic: bool = False,
        real_evaluation: bool = False,
        center: bool = False,
        lr_scale: float | None = None,
        start: str = "uniform",
    ) -> LatentWeights:
        """Make binary weights for the layer `where`, with the options of `BinaryDense`."""
        is_scaled = check_flag(where, "scale_weights", scale_weights)
        is_drawn = check_flag(where, "stochastic", stochastic)
        is_real = check_flag(where, "real_evaluation", real_evaluation)
        is_centered = check_flag(where, "center", center)
        if is_scaled and (is_drawn or is_real):
            raise ValueError(
                f"[{where}] scale_weights must be False with stochastic or real_evaluation, "
                f"got True"
            )
        estimator = _estimator(where, gradient, is_scaled)
        rng = as_generator(where, seed)
        latent = start_weights(where, start, operation.weight_shape, rng)
        if lr_scale is None:
            lr_scale = math.sqrt(sum(operation.fans) / 1.5)
        parameter = Parameter(
            latent,
            clip_value=None if is_centered else 1.0,
            lr_scale=check_rate(where, "lr_scale", lr_scale, zero=True),
            binary=True,
        )
        return cls(
            parameter,
            estimator=estimator,
            is_scaled=is_scaled,
            sampler=StochasticSign(seed=rng) if is_drawn else None,
            real_evaluation=is_real,
            center=is_centered,
        )

    @classmethod
    def of_quantizer(
        cls,
        where: str,
        operation: Operation,
        quantizer: WeightQuantizer,
        *,
        clip_value: float | None,
        lr_scale: float,
        start: str,
        seed: Any,
    ) -> LatentWeights:
        """Make weights with a quantizer, with the options of `QuantizedDense`."""
        check_weight_quantizer(where, quantizer)
        if isinstance(quantizer, DoReFaWeight) and quantizer.bits > 8:
            raise ValueError(f"[{where}] bits must be at most 8, got {quantizer.bits}")
        if clip_value is not None:
            check_clip(where, clip_value)
        shape = operation.weight_shape
        latent = start_weights(where, start, shape, as_generator(where, seed))
        scale = check_rate(where, "lr_scale", lr_scale, zero=True)
        parameter = Parameter(latent, clip_value=clip_value, lr_scale=scale)
        weights = cls(parameter, quantizer=quantizer, estimator=quantizer)
        check_sums(where, math.prod(shape[1:]), 255, weights.planes().coefficients)
        return weights

    @property
    def signs_suffice(self) -> bool:
        """Whether the passes of a training step depend on nothing of W but its signs."""
        real = self.quantizer, self.estimator, self.sampler
        return not self.is_scaled and all(part is None for part in real)

    def planes(self, training: bool = False) -> Planes:
        """Return the quantized weights; quantize again only if the latent ones have changed."""
        known = self._quantized
        if known is None or known[0] != self.parameter.version:
            if self.center:
                with _CENTERING:
                    if self._centered != self.parameter.version:
                        self._subtract_means()
            known = self._quantize()
        if training and self.sampler is not None:
            return Planes([pack(self.sampler.forward(self.parameter.value))])
        return known[1]

    def _quantize(self) -> tuple[int, Planes]:
        """Quantize the latent weights, and keep the planes with the version that they are of."""
        w = self.parameter
        version = w.version  # before the values are read, which another thread may change
        if self.quantizer is not None:
            planes = planes_of(self.quantizer, w.value)
        elif self.is_scaled:
            bits, alpha = binarize_weights(w.value)
            planes = Planes([bits], (1,), alpha)
        else:
            planes = Planes([w.signs()])
        known = self._quantized = version, planes
        return known

    def _subtract_means(self) -> None:
        """Set W to clip(W - mean over the input channels, -1, 1)."""
        w = self.parameter.writable()
        w -= w.mean(axis=-1, keepdims=True)
        np.clip(w, -1, 1, out=w)
        self._centered = self.parameter.version

    def values(self) -> np.ndarray:
        """Return the weights that evaluation uses, such as alpha * sign(W), float32."""
        return self.parameter.value if self.real_evaluation else self.planes().values()

    def take_gradient(self) -> None:
        """Replace the gradient of the quantized weights in `parameter.grad` by that of W."""
        if self.estimator is not None:
            grad = self.parameter.grad
            grad[...] = self.estimator.backward(self.parameter.value, grad)

    def accept(self) -> None:
        """Quantize restored weights as they are; centering them twice would change them."""
        self._centered = self.parameter.version
        self._quantize()

    def generators(self) -> list[np.random.Generator]:
        return [] if self.sampler is None else [self.sampler.generator]

    def cost(self, input_bits: int | None, bias: np.ndarray | None) -> Cost:
        """Return the size and the work of the weights and the bias."""
        if self.real_evaluation:
            return float_cost(self.parameter.value, bias)
        planes = self.planes()
        scales = [array for array in (bias, planes.alpha) if array is not None]
        return _plane_cost(
            planes.bits,
            input_bits,
            numbers=0 if bias is None else bias.size,
            number_bytes=4 * sum(array.size for array in scales),
        )

    def config(self) -> dict[str, Any]:
        """Return the arguments of the layer that say how it quantizes."""
        if self.quantizer is not None:
            return {"quantizer": self.quantizer}
        return {**self.flags(), "gradient": self.estimator or "straight"}

    def flags(self) -> dict[str, bool]:
        """Return the flags of `BinaryDense` by name."""
        return {
            "scale_weights": self.is_scaled,
            "stochastic": self.sampler is not None,
            "real_evaluation": self.real_evaluation,
            "center": self.center,
        }


def _estimator(where: str, gradient: Any, is_scaled: bool) -> Any:
    """Return the estimator for an option `gradient`; None passes gradients on unchanged."""
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
        raise ValueError(f"[{where}] gradient must fit scale_weights=False, got {gradient!r}")
    return gradient


def start_weights(
    where: str, start: str, shape: tuple[int, ...], rng: np.random.Generator
) -> np.ndarray:
    """Draw initial weights: uniform in [-1, 1), or normal with variance 2 / (weights of a filter).

    References
    ----------
    He et al., "Delving deep into rectifiers", 2015, equation 10: the normal distribution.
    """
    if start == "uniform":
        return rng.random(shape, dtype=np.float32) * 2 - 1
    if start != "normal":
        raise ValueError(f"[{where}] start must be 'uniform' or 'normal', got {start!r}")
    deviation = np.float32(math.sqrt(2 / math.prod(shape[1:])))
    return rng.standard_normal(shape, dtype=np.float32) * deviation


class PackedWeights:
    """Weights c_1 B_1 + c_2 B_2 + ... for inference, each B a plane of packed +-1 bits.

    Parameters
    ----------
    bits : BitArray of shape (n, ..., k)
        A single plane B, one filter for each output feature. With coefficients, several planes
        along an additional first axis.
    coefficients : sequence of int, optional
        The factors c, one a plane.
    """

    def __init__(self, bits: BitArray, coefficients: Sequence[int] | None = None):
        self.bits = bits
        self.coefficients = coefficients
        self.planes = Planes([bits] if coefficients is None else list(bits), coefficients or (1,))

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.bits, self.coefficients)

    @classmethod
    def of(cls, where: str, w, axes: str) -> PackedWeights:
        """Check a single plane with the named axes; pack a real array by sign."""
        return cls(_as_bits(where, w, axes))

    @classmethod
    def of_planes(cls, where: str, w, coefficients, axes: str) -> PackedWeights:
        """Check planes, along an axis before the named ones, and their coefficients."""
        bits = _as_bits(where, w, f"planes, {axes}")
        k = math.prod(bits.shape[2:])
        return cls(bits, _as_coefficients(where, coefficients, bits.shape[0], k))

    @property
    def settings(self) -> dict[str, Any]:
        """The coefficients as a setting of the layer, if they were given."""
        return {} if self.coefficients is None else {"coefficients": list(self.coefficients)}

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one plane."""
        return self.planes.bits[0].shape

    @cached_property
    def sums(self) -> tuple[np.ndarray, ...]:
        """The sum of each filter, for each plane; shape (n,), int32."""
        filters = self.shape[0]
        k = math.prod(self.shape[1:])
        ones = [popcount(p, axis=-1).reshape(filters, -1).sum(axis=1) for p in self.planes.bits]
        return tuple((2 * count - k).astype(np.int32) for count in ones)

    def multiply(self, multiply: PlaneProduct, *, are_units: bool = False) -> np.ndarray:
        """Return the unscaled products, summed over the planes.

        Parameters
        ----------
        multiply : callable
            Multiplies the input by one plane.
        are_units : bool
            Whether the bits of the input stand for 0 and 1 instead of +-1. With d the dot product
            of the +-1 bits b and a plane w, and s the sum of w, the product is
            sum(w (b + 1) / 2) = (d + s) / 2.
        """
        products = [multiply(plane) for plane in self.planes.prepacked]
        if are_units:
            for z, sums in zip(products, self.sums, strict=True):
                z += sums
                z >>= 1
        return sum_planes(products, self.planes.coefficients)

    def cost(self, input_bits: int | None, *, numbers: int, number_bytes: int) -> Cost:
        return _plane_cost(self.planes.bits, input_bits, numbers=numbers, number_bytes=number_bytes)

    def __str__(self) -> str:
        """Return the number of planes, if coefficients were given, for a repr."""
        return "" if self.coefficients is None else f", planes={len(self.planes.bits)}"


def _as_bits(where: str, w, axes: str) -> BitArray:
    bits = w if isinstance(w, BitArray) else pack_operand(where, "w", _check_signs(where, w), -1)
    ndim = axes.count(",") + 1
    if bits.ndim != ndim or bits.axis != ndim - 1 or 0 in bits.shape:
        raise ValueError(
            f"[{where}] w must have shape ({axes}), all >= 1, and be packed along the last axis, "
            f"got {bits!r}"
        )
    return bits


def _check_signs(where: str, w: Any) -> np.ndarray:
    """Refuse integers other than -1 and +1: 0 and 1 are bits, which bool says."""
    array = real_array(where, "w", w)
    if array.dtype.kind == "i" and array.size:
        others = array[np.abs(array) != 1]
        if others.size:
            raise ValueError(
                f"[{where}] w must hold -1 and +1 where it holds integers (bits are bool), "
                f"got {others.flat[0]}"
            )
    return array


def _as_coefficients(where: str, coefficients: Any, planes: int, k: int) -> tuple[int, ...]:
    """Check the coefficients of planes with k weights a filter, one positive integer a plane."""
    values = tuple(coefficients) if isinstance(coefficients, list | tuple) else (coefficients,)
    if any(type(c) is not int or not 1 <= c <= MAX_COEFFICIENT for c in values):
        raise ValueError(
            f"[{where}] coefficients must be integers in 1..{MAX_COEFFICIENT}, got {coefficients!r}"
        )
    if len(values) != planes:
        raise ValueError(
            f"[{where}] coefficients must be as many as planes, {planes}, got {coefficients!r}"
        )
    check_sums(where, k, 255, values)
    return values


def _plane_cost(
    planes: Sequence[BitArray], input_bits: int | None, *, numbers: int, number_bytes: int
) -> Cost:
    macs = sum(plane.size for plane in planes)
    return Cost(
        parameters=planes[0].size + numbers,
        packed_bytes=sum(plane.nbytes for plane in planes) + number_bytes,
        binary_macs=macs * (input_bits or 0),
        float_macs=macs if input_bits is None else 0,
    )


def float_cost(w: np.ndarray, bias: np.ndarray | None) -> Cost:
    """Return the size and the work of float32 weights and a bias."""
    size = w.size + (0 if bias is None else bias.size)
    return Cost(size, 4 * size, float_macs=w.size)
