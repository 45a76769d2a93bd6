"""Bases of the dense and convolutional layers: y = x W^T + b, forward and backward.

A layer holds an operation, on rows or on images, and weights:

    weights         training                            inference
    -------         --------                            ---------
    quantized       LatentProduct, LatentWeights        PackedProduct, PackedWeights
    float32         FloatProduct, Parameter             PackedFloatProduct, ndarray

`dense` and `conv` derive the layers from these.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from ..ops.array import BitArray, above_limits, above_operand, pack
from ..ops.checks import as_float32, as_generator
from ..quantizers import ByteGradient
from .backward import gradient_of
from .base import Cost, Layer, TrainingLayer, saved_for_backward
from .byte_gradient import rounded_input
from .columns import column_sums
from .inputs import (
    EXACT,
    Activation,
    Codes,
    Shape,
    SignPairs,
    StepInput,
    as_flips,
    as_scales,
    as_thresholds,
    check_flag,
    check_input_bits,
    float_thresholds,
    is_data,
)
from .operation import Operation
from .parameter import Parameter
from .planes import Planes, scaled
from .registry import ArraySpec
from .roles import Flow, Role
from .weights import LatentWeights, PackedWeights, float_cost, start_weights

if TYPE_CHECKING:
    from ..ops.plan import Value
    from .plans import Chain

_INT32 = np.iinfo(np.int32)
_UNSCALED: dict[str, Any] = {"alpha": None, "bias": None, "threshold": None, "flip": None}
_LARGEST_BYTE = 255


class LatentProduct(TrainingLayer):
    """Base of the training layers with quantized weights.

    Parameters
    ----------
    operation : Linear or Convolution
    weights : LatentWeights
    bias : bool
        Whether to add a trained float32 bias, 0 at the start.

    Attributes
    ----------
    rounding : ByteGradient or None
        If set, backward products round the gradient to its bits; see `Sequential.round_gradients`.
    rounds_activations : bool
        Whether, with a rounding, products of a training step also round real inputs.

    Notes
    -----
    Forward, with Q the quantized weights:  y = x Q^T + b.
    Backward:  dx = dy Q,  dQ = dy^T x,  db = sum dy;  `LatentWeights` turns dQ into dW.
    """

    SAVED = ("_saved",)

    in_features: int
    out_features: int
    rounding: ByteGradient | None = None
    rounds_activations = False

    def __init__(self, operation: Operation, weights: LatentWeights, bias: bool):
        self.operation, self.weights = operation, weights
        self.in_features, self.out_features = operation.in_features, operation.out_features
        self.bias = _make_bias(self.name, bias, operation.out_features)
        self._saved: tuple[StepInput, Planes] | None = None

    def forward(self, x, *, training: bool = False) -> np.ndarray:
        x = self.operation.input(x)
        if self.real_evaluation and not training:
            return self.operation.multiply_floats(x, self.weight.value, self.bias_value)
        return self.take_step(x) if training else self._outputs(x, self.planes())

    def take_step(self, x: StepInput) -> np.ndarray:
        """Do what `forward` does in training, for an input that needs no check."""
        planes = self.planes(True)
        if self.rounding is not None and self.rounds_activations:
            x = rounded_input(x, self.rounding)
        self._saved = x, planes
        return self._outputs(x, planes)

    def backward(self, grad: np.ndarray) -> np.ndarray | None:
        return self._gradients(as_float32(grad), with_dx=True)

    def backward_weights(self, grad: np.ndarray) -> None:
        """Write the gradients of the parameters; that of the input is not computed."""
        self._gradients(as_float32(grad), with_dx=False)

    def _gradients(self, grad: np.ndarray, *, with_dx: bool) -> np.ndarray | None:
        x, planes = saved_for_backward(self, self._saved)
        dy, with_dx = gradient_of(grad, self.rounding), with_dx and not is_data(x)
        dx = self.operation.gradients(x, dy, planes, self.weight, with_dx=with_dx)
        self._finish_gradients(grad)
        return dx

    @property
    def role(self) -> Role:
        return Role.ALONE if self.real_evaluation else Role.PRODUCT

    def _outputs(self, x: StepInput, planes: Planes, **scales: Any) -> np.ndarray:
        """Return the products with any kind of input, scaled and with the bias added, float32."""
        if isinstance(x, SignPairs):
            assert planes.is_single  # as of the layers that `joined` gives such an input
            sums = x.added(self.operation.multiply(x.bits, planes.prepacked[0]))
            return scaled(sums, planes.scale(x.step), self.bias_value)
        bits, step = (x.bits, x.step) if isinstance(x, Codes) else (8, 1.0)
        numbers = x.numbers if isinstance(x, Codes) else x
        multiply = partial(self.operation.multiply, numbers, bits=bits, **scales)
        return planes.outputs(multiply, step=step, bias=self.bias_value)

    def _finish_gradients(self, grad: np.ndarray) -> None:
        """Compute the gradients of latent weights and bias; that of `weight` is dQ beforehand."""
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
        """Whether evaluation uses the latent weights themselves; set to False to pack signs."""
        return self.weights.real_evaluation

    @real_evaluation.setter
    def real_evaluation(self, value: bool) -> None:
        self.weights.real_evaluation = check_flag(self.name, "real_evaluation", value)

    def planes(self, training: bool = False) -> Planes:
        """Return the quantized weights that products use."""
        return self.weights.planes(training)

    def values(self) -> np.ndarray:
        """Return the weights that evaluation uses, such as alpha * sign(W), float32."""
        return self.weights.values()

    def parameters(self) -> list[Parameter]:
        return [self.weight] if self.bias is None else [self.weight, self.bias]

    def generators(self) -> list[np.random.Generator]:
        rounding = [] if self.rounding is None else [self.rounding.generator]
        return self.weights.generators() + rounding

    def state(self) -> list:
        self.planes()  # center the weights now, not in the next forward pass
        return super().state()

    def restore(self, state: Sequence) -> None:
        super().restore(state)
        self.weights.accept()

    def output_shape(self, shape: Shape) -> Shape:
        return self.operation.output_shape(shape)

    def cost(self, input_bits: int | None) -> Cost:
        return self.weights.cost(input_bits, self.bias_value)

    def config(self) -> dict[str, Any]:
        operation = {**self.operation.sizes, **self.operation.settings}
        return {**operation, "bias": self.bias is not None, **self.weights.config()}

    def __repr__(self) -> str:
        return f"{self.name}({self.operation}{self._options()})"

    def _options(self) -> str:
        """Return the settings that differ from their defaults, for a repr."""
        quantizer = self.weights.quantizer
        flags = {"bias": self.bias is not None, **self.weights.flags()}
        parts = [] if quantizer is None else [repr(quantizer)]
        parts += [f"{name}=True" for name, is_set in flags.items() if is_set]
        return "".join(f", {part}" for part in parts) + _outside(self.operation)


def own_outputs(layer: LatentProduct, flow: Flow) -> dict[str, Any]:
    """Return the alpha and bias of a layer's packed twin if no step is folded into it.

    Integers beyond 2^24 get an alpha of ones: it rounds them to float32, as training does.
    """
    alpha, bias = layer.planes().scale(flow.step), layer.bias_value
    filters = layer.weight.shape[0]
    largest = layer.weight.size // filters * (flow.largest or _LARGEST_BYTE)
    if alpha is None and bias is None and largest > EXACT:
        alpha = np.ones(filters, np.float32)
    return {"alpha": alpha, "bias": bias}


class FloatProduct(TrainingLayer):
    """Base of the training layers with float32 weights.

    Parameters
    ----------
    operation : Linear or Convolution
    bias : bool
        Whether to add a trained bias, 0 at the start.
    seed : int, SeedSequence or Generator, optional
        Source of the initial weights, normal with variance 2 / (weights of a filter).

    Notes
    -----
    Forward:  y = x W^T + b in BLAS.
    Backward:  dx = dy W,  dW = dy^T x,  db = sum dy.
    """

    SAVED = ("_x",)

    in_features: int
    out_features: int

    def __init__(self, operation: Operation, *, bias: bool, seed: Any):
        self.operation = operation
        self.in_features, self.out_features = operation.in_features, operation.out_features
        rng = as_generator(self.name, seed)
        self.weight = Parameter(start_weights(self.name, "normal", operation.weight_shape, rng))
        self.bias = _make_bias(self.name, bias, operation.out_features)
        self._x: Activation | None = None

    def values(self) -> np.ndarray:
        """Return the weights that products use."""
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
        return self._gradients(grad, with_dx=True)

    def backward_weights(self, grad: np.ndarray) -> None:
        """Write the gradients of the parameters; that of the input is not computed."""
        self._gradients(grad, with_dx=False)

    def _gradients(self, grad: np.ndarray, *, with_dx: bool) -> np.ndarray | None:
        x, w = saved_for_backward(self, self._x), self.values()
        _keep_bias_gradient(self.bias, grad)
        with_dx, dw = with_dx and not is_data(x), self.weight.overwritten_gradient()
        return self.operation.float_gradients(x, grad, w, dw, with_dx=with_dx)

    def parameters(self) -> list[Parameter]:
        return [self.weight] if self.bias is None else [self.weight, self.bias]

    def output_shape(self, shape: Shape) -> Shape:
        return self.operation.output_shape(shape)

    def cost(self, input_bits: int | None) -> Cost:
        return float_cost(self.weight.value, self.bias_value)

    def config(self) -> dict[str, Any]:
        operation = {**self.operation.sizes, **self.operation.options}
        return {**operation, "bias": self.bias is not None}

    def __repr__(self) -> str:
        return f"{self.name}({self.operation}{'' if self.bias is not None else ', bias=False'})"


def _make_bias(where: str, bias: bool, features: int) -> Parameter | None:
    return Parameter(np.zeros(features)) if check_flag(where, "bias", bias) else None


def _keep_bias_gradient(bias: Parameter | None, dy: np.ndarray) -> None:
    if bias is not None:
        bias.grad[...] = column_sums(dy)


class PackedFloatProduct(Layer):
    """Base of the inference layers with float32 weights.

    Parameters
    ----------
    operation : Linear or Convolution
    weight : ndarray of `operation.weight_shape`, float32
    bias : array_like of shape (out_features,), float32, optional
    """

    def __init__(self, operation: Operation, weight: np.ndarray, bias):
        self.operation, self.weight = operation, weight
        self.in_features, self.out_features = operation.in_features, operation.out_features
        self.bias = as_scales(self.name, "bias", bias, operation.out_features)

    def forward(self, x) -> np.ndarray:
        return self.operation.multiply_floats(self.operation.input(x), self.weight, self.bias)

    def compile(self, chain: Chain, x: Value) -> Value | None:
        if x.kind == "uint8":
            return None
        return self.operation.compile_floats(chain, chain.as_float(x), self.weight, self.bias)

    def output_shape(self, shape: Shape) -> Shape:
        return self.operation.output_shape(shape)

    def cost(self, input_bits: int | None) -> Cost:
        return float_cost(self.weight, self.bias)

    def config(self) -> dict[str, Any]:
        return dict(self.operation.options)

    def __repr__(self) -> str:
        return f"{self.name}({self.operation}{'' if self.bias is None else ', bias'})"


def float_arrays(ndim: int) -> tuple[ArraySpec, ...]:
    """Return the arrays of a `PackedFloatProduct` whose weights have `ndim` axes."""
    return ArraySpec("weight", "float32", ndim, argument="w"), ArraySpec("bias", "float32", 1)


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
        self._flip_words = None if self._flip_bits is None else self._flip_bits.words
        self.alpha = as_scales(self.name, "alpha", alpha, features)
        self.bias = as_scales(self.name, "bias", bias, features)
        # Bits of the input stand for +-1, but for 0 and 1 if they are codes of one bit.
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
        plane = self._plane
        if isinstance(x, BitArray):
            operation, are_units = self._on_bits, self._takes_units
            if plane is not None and self._limits is not None:
                return operation.multiply_sign(x, plane, self._limits, self._flip_bits)
        else:
            operation, are_units = self.operation, False
        multiply = partial(operation.multiply, x, bits=self.input_bits or 8)
        if plane is not None and self.threshold is None and not are_units:
            return multiply(plane, alpha=self.alpha, bias=self.bias)  # scaled as it is stored
        return self._finish(self.weights.multiply(multiply, are_units=are_units))

    def compile(self, chain: Chain, x: Value) -> Value | None:
        if self._plane is None:
            return self._compile_planes(chain, x)
        outputs = {"alpha": self.alpha, "bias": self.bias, "threshold": None, "flip": None}
        if self.threshold is not None and self._flip_words is not None:
            outputs["flip"] = self._flip_words
        if x.kind == "bits":
            outputs["threshold"] = self._limits
            if self._takes_units and self._limits is None:
                return None
            return self._on_bits.compile_bits(chain, x, self._plane, outputs)
        if not self._takes(chain, x):
            return None
        if self.threshold is not None:
            outputs["threshold"] = float_thresholds(self.threshold)
            if outputs["threshold"] is None:
                return None
        if x.kind == "int32":
            x = chain.as_float(x)
        return self.operation.compile_numbers(chain, x, self._plane, self.input_bits or 8, outputs)

    def _compile_planes(self, chain: Chain, x: Value) -> Value | None:
        """Add the products with several planes, their sum, and what becomes of it."""
        planes, limits = self.weights.planes, None
        if len(planes.bits) == 1 or not self._takes(chain, x):
            return None
        if self.threshold is not None:
            limits = float_thresholds(self.threshold)
            if limits is None:
                return None
        if x.kind == "int32":
            x = chain.as_float(x)
        parts = []
        for plane in planes.prepacked:
            if x.kind == "bits":
                part = self.operation.compile_bits(chain, x, plane, _UNSCALED)
            else:
                bits = self.input_bits or 8
                part = self.operation.compile_numbers(chain, x, plane, bits, _UNSCALED)
            if part is None:
                return None
            parts.append(part)
        z = chain.weighted_sum(parts, planes.coefficients)
        if limits is not None:
            return chain.compare(z, limits, self._flip_words)
        if self.alpha is None and self.bias is None:
            return z
        return chain.affine(z, self.alpha, self.bias)

    def _takes(self, chain: Chain, x: Value) -> bool:
        """Whether the input is what `forward` takes, without a look at its numbers."""
        if self.input_bits is None:
            return True
        return x.kind == "uint8" and x.memory is not chain.input  # codes of a step

    def _finish(self, z: np.ndarray) -> Activation:
        """Turn products z into the output: bits, scaled numbers, or z itself."""
        if self.threshold is not None:
            if self.threshold.dtype == np.float32:  # those behind a model's input
                return above_limits(self.name, z, self.threshold, self._flip_words)
            return above_operand(self.name, z, self.threshold, self._flip_bits)
        if self.alpha is None and self.bias is None:
            return z
        return scaled(z, self.alpha, self.bias)

    def _check_codes(self, x: Activation) -> BitArray | np.ndarray:
        """Return the input as bits or numbers; refuse numbers that are not the expected codes."""
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
        """Return int32 thresholds for products of +-1 bits that decide as `threshold` does.

        If the bits stand for 0 and 1, their product is (d + s) / 2, as `PackedWeights.multiply`
        says. It exceeds t exactly if d > 2 t - s.
        """
        if self.threshold is None:
            return None
        limits = np.floor(self.threshold.astype(np.float64))  # float64 holds all int32 exactly
        limits = np.clip(limits, _INT32.min, _INT32.max)
        if self._takes_units:
            limits = np.clip(2 * limits - self.weights.sums[0], _INT32.min, _INT32.max)
        return limits.astype(np.int32)

    def output_bits(self, input_bits: int | None) -> int | None:
        return None if self.threshold is None else 1

    def output_shape(self, shape: Shape) -> Shape:
        return self.operation.output_shape(shape)

    def config(self) -> dict[str, Any]:
        config = {**self.operation.settings, "input_bits": self.input_bits}
        return {**config, **self.weights.settings}

    def cost(self, input_bits: int | None) -> Cost:
        numbers = [a for a in (self.threshold, self.alpha, self.bias) if a is not None]
        flip_bytes = 0 if self._flip_bits is None else self._flip_bits.nbytes
        return self.weights.cost(
            self.input_bits or input_bits,
            numbers=sum(a.size for a in numbers),
            number_bytes=sum(a.nbytes for a in numbers) + flip_bytes,
        )

    def __repr__(self) -> str:
        return f"{self.name}({self.operation}{self._options()})"

    def _options(self) -> str:
        """Return the planes, the names of the optional arrays present, and settings, for a repr."""
        names = ("threshold", "flip", "alpha", "bias")
        fields = "".join(f", {name}" for name in names if getattr(self, name) is not None)
        codes = "" if self.input_bits is None else f", input_bits={self.input_bits}"
        return f"{self.weights}{fields}{codes}{_outside(self.operation)}"


def product_arrays(ndim: int) -> tuple[ArraySpec, ...]:
    """Return the arrays of a `PackedProduct` whose weights have `ndim` axes."""
    return (
        ArraySpec("weight", "bits", ndim, argument="w"),
        ArraySpec("bias", "float32", 1),
        ArraySpec("threshold", ("int32", "float32"), 1),
        ArraySpec("flip", "bool", 1),
        ArraySpec("alpha", "float32", 1),
    )


def _outside(operation: Operation) -> str:
    """Return a pad_value other than 0, for a repr."""
    return f", pad_value={operation.pad_value}" if operation.pad_value else ""
