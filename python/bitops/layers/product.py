"""What dense and convolutional layers share: y = x W + b, forward and backward.

A layer has an operation, which says how inputs meet weights, and weights: latent ones that are
quantized, float32 ones, or packed ones in inference. The layers are in `dense` and `conv`.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np

from ..ops.array import BitArray, above_operand, pack
from ..quantizers import ByteGradient
from .backward import Gradient
from .base import Cost, Layer, TrainingLayer, saved_for_backward
from .columns import column_sums
from .inputs import (
    Activation,
    Codes,
    Shape,
    as_flips,
    as_scales,
    as_thresholds,
    check_flag,
    check_input_bits,
    is_data,
)
from .operation import Operation
from .parameter import Parameter
from .planes import Planes, scaled
from .roles import Role
from .weights import LatentWeights, PackedWeights, float_cost, start_weights

_INT32 = np.iinfo(np.int32)


class LatentProduct(TrainingLayer):
    """Base of the training layers whose weights are quantized.

    Parameters
    ----------
    operation : Linear or Convolution
    weights : LatentWeights
    bias : bool
        Whether to add a trained float32 bias, 0 at the start.

    Attributes
    ----------
    rounding : ByteGradient or None
        If set, the backward products with bits take gradients rounded to 8 bits.

    Notes
    -----
    Forward, with Q the quantized weights:  y = x Q^T + b.
    Backward:  dx = dy Q,  dQ = dy^T x,  db = sum dy;  the weights turn dQ into dW.
    """

    in_features: int
    out_features: int
    rounding: ByteGradient | None = None

    def __init__(self, operation: Operation, weights: LatentWeights, bias: bool):
        self.operation, self.weights = operation, weights
        self.in_features, self.out_features = operation.in_features, operation.out_features
        self.bias = _make_bias(self.name, bias, operation.out_features)
        self._saved: tuple[Activation, Planes] | None = None

    def forward(self, x, *, training: bool = False) -> np.ndarray:
        x = self.operation.input(x)
        if self.real_evaluation and not training:
            return self.operation.multiply_floats(x, self.weight.value, self.bias_value)
        planes = self.planes(training)
        if training:
            self._saved = x, planes
        return self._outputs(x, planes)

    def backward(self, grad: np.ndarray) -> np.ndarray | None:
        x, planes = saved_for_backward(self, self._saved)
        dy = Gradient(grad, self.rounding)
        dx = self.operation.gradients(x, dy, planes, self.weight.grad, with_dx=not is_data(x))
        self._finish_gradients(grad)
        return dx

    @property
    def role(self) -> Role:
        return Role.ALONE if self.real_evaluation else Role.PRODUCT

    def _outputs(self, x: Activation, planes: Planes, **scales: Any) -> np.ndarray:
        """Products of every kind of input, scaled and with the bias, float32."""
        bits, step = (x.bits, x.step) if isinstance(x, Codes) else (8, 1.0)
        numbers = x.numbers if isinstance(x, Codes) else x
        multiply = partial(self.operation.multiply, numbers, bits=bits, **scales)
        return planes.outputs(multiply, step=step, bias=self.bias_value)

    def _finish_gradients(self, grad: np.ndarray) -> None:
        """Gradients of the latent weights and the bias; `weight.grad` holds dQ."""
        self.weights.take_gradient()
        _keep_bias_gradient(self.bias, grad)

    @property
    def weight(self) -> Parameter:
        """The latent weights."""
        return self.weights.parameter

    @property
    def bits(self) -> BitArray:
        """Signs of the weights, a BitArray of the shape of `weight`."""
        return self.planes().bits[0]

    @property
    def alpha(self) -> np.ndarray | None:
        """Scale of each filter, float32; None without scales."""
        return self.planes().alpha

    @property
    def bias_value(self) -> np.ndarray | None:
        return None if self.bias is None else self.bias.value

    @property
    def real_evaluation(self) -> bool:
        """Whether evaluation takes the latent weights themselves; set it to False to pack them."""
        return self.weights.real_evaluation

    @real_evaluation.setter
    def real_evaluation(self, value: bool) -> None:
        self.weights.real_evaluation = check_flag(self.name, "real_evaluation", value)

    def planes(self, training: bool = False) -> Planes:
        """The weights that products see."""
        return self.weights.planes(training)

    def values(self) -> np.ndarray:
        """The weights that evaluation sees, such as alpha * sign(W), float32."""
        return self.weights.values()

    def parameters(self) -> list[Parameter]:
        return [self.weight] if self.bias is None else [self.weight, self.bias]

    def generators(self) -> list[np.random.Generator]:
        rounding = [] if self.rounding is None else [self.rounding.generator]
        return self.weights.generators() + rounding

    def state(self) -> list:
        self.planes()  # centers the weights now, where the next forward pass would do so
        return super().state()

    def restore(self, state: Sequence) -> None:
        super().restore(state)
        self.weights.accept()

    def output_shape(self, shape: Shape) -> Shape:
        return self.operation.output_shape(shape)

    def cost(self, bits_in: bool) -> Cost:
        return self.weights.cost(bits_in, self.bias_value)

    def config(self) -> dict[str, Any]:
        return dict(self.operation.settings)

    def __repr__(self) -> str:
        return f"{self.name}({self.operation}{self._options()})"

    def _options(self) -> str:
        """What differs from the default, for a repr."""
        quantizer = self.weights.quantizer
        flags = {"bias": self.bias is not None, **self.weights.flags()}
        parts = [] if quantizer is None else [repr(quantizer)]
        parts += [f"{name}=True" for name, is_set in flags.items() if is_set]
        return "".join(f", {part}" for part in parts) + _outside(self.operation)


class FloatProduct(TrainingLayer):
    """Base of the training layers with float32 weights.

    Parameters
    ----------
    operation : Linear or Convolution
    bias : bool
        Whether to add a trained bias, 0 at the start.
    seed : int, SeedSequence or Generator, optional
        Source of the first weights, normal with variance 2 / (weights of a filter).

    Notes
    -----
    Forward:  y = x W^T + b in BLAS.
    Backward:  dx = dy W,  dW = dy^T x,  db = sum dy.
    """

    in_features: int
    out_features: int

    def __init__(self, operation: Operation, *, bias: bool, seed: Any):
        self.operation = operation
        self.in_features, self.out_features = operation.in_features, operation.out_features
        rng = np.random.default_rng(seed)
        self.weight = Parameter(start_weights(self.name, "normal", operation.weight_shape, rng))
        self.bias = _make_bias(self.name, bias, operation.out_features)
        self._x: Activation | None = None

    def values(self) -> np.ndarray:
        """The weights that products see."""
        return self.weight.value

    @property
    def bias_value(self) -> np.ndarray | None:
        return None if self.bias is None else self.bias.value

    def forward(self, x, *, training: bool = False) -> np.ndarray:
        x = self.operation.input(x)
        if training:
            self._x = x
        return self.operation.multiply_floats(x, self.values(), self.bias_value)

    def backward(self, grad: np.ndarray) -> np.ndarray | None:
        x, w = saved_for_backward(self, self._x), self.values()
        _keep_bias_gradient(self.bias, grad)
        return self.operation.float_gradients(x, grad, w, self.weight.grad, with_dx=not is_data(x))

    def parameters(self) -> list[Parameter]:
        return [self.weight] if self.bias is None else [self.weight, self.bias]

    def output_shape(self, shape: Shape) -> Shape:
        return self.operation.output_shape(shape)

    def cost(self, bits_in: bool) -> Cost:
        return float_cost(self.weight.value, self.bias_value)

    def config(self) -> dict[str, Any]:
        return dict(self.operation.options)

    def __repr__(self) -> str:
        return f"{self.name}({self.operation}{'' if self.bias is not None else ', bias=False'})"


def _make_bias(where: str, bias: bool, features: int) -> Parameter | None:
    return Parameter(np.zeros(features)) if check_flag(where, "bias", bias) else None


def _keep_bias_gradient(bias: Parameter | None, dy: np.ndarray) -> None:
    if bias is not None:
        bias.grad[...] = column_sums(dy)


class PackedProduct(Layer):
    """Base of the inference layers with packed +-1 weights.

    Parameters
    ----------
    operation : Linear or Convolution
    weights : PackedWeights
    threshold, flip, alpha, bias, input_bits
        As in `PackedDense`.

    Attributes
    ----------
    weight : BitArray
        The planes of the weights.
    """

    def __init__(
        self,
        operation: Operation,
        weights: PackedWeights,
        *,
        threshold,
        flip,
        alpha,
        bias,
        input_bits: int | None,
    ):
        if threshold is None and flip is not None:
            raise ValueError(f"[{self.name}] flip must come with a threshold, got threshold=None")
        if threshold is not None and not (alpha is None and bias is None):
            raise ValueError(f"[{self.name}] give either threshold or alpha and bias, got both")
        if input_bits is not None:
            check_input_bits(self.name, "input_bits", input_bits)
            if operation.pad_value:
                raise ValueError(
                    f"[{self.name}] pad_value must be 0 with input_bits, got {operation.pad_value}"
                )
        features = operation.out_features
        self.operation, self.weights, self.input_bits = operation, weights, input_bits
        self.in_features, self.out_features = operation.in_features, features
        self.threshold: np.ndarray | None = None
        if threshold is not None:
            self.threshold = as_thresholds(self.name, threshold, features)
        self.flip = as_flips(self.name, flip, features)
        self._flip_bits = None if self.flip is None else pack(self.flip)
        self.alpha = as_scales(self.name, "alpha", alpha, features)
        self.bias = as_scales(self.name, "bias", bias, features)
        # bits are +-1, or 0 and 1 where they are codes of one bit
        self._takes_units = input_bits == 1
        self._on_bits = operation.for_units() if self._takes_units else operation
        planes = weights.planes
        self._plane = planes.prepacked[0] if planes.is_single else None
        self._limits = None if self._plane is None else self._limits_of_bits()

    @property
    def weight(self) -> BitArray:
        return self.weights.bits

    def forward(self, x) -> Activation:
        x = self._check_codes(self.operation.input(x))
        is_bits = isinstance(x, BitArray)
        operation = self._on_bits if is_bits else self.operation
        are_units = is_bits and self._takes_units
        plane = self._plane
        if plane is not None and is_bits and self._limits is not None:
            return operation.multiply_sign(x, plane, self._limits, self._flip_bits)
        multiply = partial(operation.multiply, x, bits=self.input_bits or 8)
        if plane is not None and self.threshold is None and not are_units:
            return multiply(plane, alpha=self.alpha, bias=self.bias)  # scaled in the store
        return self._finish(self.weights.multiply(multiply, are_units=are_units))

    def _finish(self, z: np.ndarray) -> Activation:
        """The output for products z."""
        if self.threshold is not None:
            return above_operand(self.name, z, self.threshold, self._flip_bits)
        if self.alpha is None and self.bias is None:
            return z
        return scaled(z, self.alpha, self.bias)

    def _check_codes(self, x: Activation) -> BitArray | np.ndarray:
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

    def _limits_of_bits(self) -> np.ndarray | None:
        """The int32 thresholds of products of +-1 bits, which decide as `threshold` does.

        A product of units (d + s) / 2, see `PackedWeights.multiply`, exceeds t where d > 2 t - s.
        """
        if self.threshold is None:
            return None
        limits = np.floor(self.threshold.astype(np.float64))  # holds the limits of int32 exactly
        limits = np.clip(limits, _INT32.min, _INT32.max)
        if self._takes_units:
            limits = np.clip(2 * limits - self.weights.sums[0], _INT32.min, _INT32.max)
        return limits.astype(np.int32)

    def emits_bits(self, bits_in: bool) -> bool:
        return self.threshold is not None

    def output_shape(self, shape: Shape) -> Shape:
        return self.operation.output_shape(shape)

    def config(self) -> dict[str, Any]:
        config = {**self.operation.settings, "input_bits": self.input_bits}
        return {**config, **self.weights.settings}

    def cost(self, bits_in: bool) -> Cost:
        numbers = [a for a in (self.threshold, self.alpha, self.bias) if a is not None]
        flip_bytes = 0 if self._flip_bits is None else self._flip_bits.nbytes
        return self.weights.cost(
            bits_in,
            numbers=sum(a.size for a in numbers),
            number_bytes=sum(a.nbytes for a in numbers) + flip_bytes,
        )

    def __repr__(self) -> str:
        return f"{self.name}({self.operation}{self._options()})"

    def _options(self) -> str:
        """Planes, the optional arrays that are there, and settings, for a repr."""
        names = ("threshold", "flip", "alpha", "bias")
        fields = "".join(f", {name}" for name in names if getattr(self, name) is not None)
        codes = "" if self.input_bits is None else f", input_bits={self.input_bits}"
        return f"{self.weights}{fields}{codes}{_outside(self.operation)}"


def _outside(operation: Operation) -> str:
    """What lies outside the images, for a repr."""
    return f", pad_value={operation.pad_value}" if operation.pad_value else ""
