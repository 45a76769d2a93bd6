"""Activations of networks beyond BinaryNet: Clip, PReLU, Sigmoid, Softmax; their packed twins."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ..ops.checks import check_number, plain_array
from ..ops.prelu import prelu_gradient, prelu_values
from .base import Cost, Layer, TrainingLayer, saved_for_backward
from .columns import exact_sums
from .inputs import as_activation, as_float, as_scales, check_finite, check_size
from .parameter import Parameter
from .registry import ArraySpec, register
from .roles import Role

if TYPE_CHECKING:
    from ..ops.plan import Value
    from .plans import Chain


def clip(where: str, x, low: float, high: float) -> np.ndarray:
    """Return a layer's input, limited to low..high, float32."""
    return np.clip(as_float(as_activation(where, x)), np.float32(low), np.float32(high))


def _check_limits(where: str, low: float, high: float) -> tuple[float, float]:
    check_number(where, "low", low)
    check_number(where, "high", high)
    if not low < high:
        raise ValueError(f"[{where}] low must be below high, got {low} and {high}")
    return float(low), float(high)


@register
class Clip(TrainingLayer):
    """Activation y = min(max(x, low), high), float32; the hard tanh by default.

    Parameters
    ----------
    low, high : float
        Infinity leaves a side open.

    Notes
    -----
    Backward:  dx = dy where low < x < high, else 0.

    Examples
    --------
    >>> Clip()(np.float32([[-3, 0.5, 2]]))
    array([[-1. ,  0.5,  1. ]], dtype=float32)
    """

    role = Role.STEP
    SAVED = ("_passes",)

    def __init__(self, low: float = -1.0, high: float = 1.0):
        self.low, self.high = _check_limits(self.name, low, high)
        self._passes: np.ndarray | None = None

    def forward(self, x, *, training: bool = False) -> np.ndarray:
        if training:
            values = as_float(as_activation("Clip", x))
            self._passes = (values > self.low) & (values < self.high)
        return clip("Clip", x, self.low, self.high)

    def backward(self, grad: np.ndarray) -> np.ndarray:
        return grad * saved_for_backward(self, self._passes)

    def to_packed(self) -> PackedClip:
        return PackedClip(self.low, self.high)

    def config(self) -> dict[str, Any]:
        return {"low": self.low, "high": self.high}

    def __repr__(self) -> str:
        return f"Clip({self.low:g}, {self.high:g})"


@register
class PackedClip(Layer):
    """Twin of `Clip` for inference.

    Parameters
    ----------
    low, high : float
        None leaves a side open.

    Examples
    --------
    >>> PackedClip(-1, 1)(np.float32([[-3, 0.5, 2]]))
    array([[-1. ,  0.5,  1. ]], dtype=float32)
    """

    def __init__(self, low: float | None = None, high: float | None = None):
        low = -np.inf if low is None else low
        high = np.inf if high is None else high
        self.low, self.high = _check_limits(self.name, low, high)

    def forward(self, x) -> np.ndarray:
        return clip("PackedClip", x, self.low, self.high)

    def compile(self, chain: Chain, x: Value) -> Value | None:
        return chain.clip(chain.as_float(x), self.low, self.high)

    def config(self) -> dict[str, Any]:
        limits = {"low": self.low, "high": self.high}  # JSON has no infinity
        return {name: limit if np.isfinite(limit) else None for name, limit in limits.items()}

    def __repr__(self) -> str:
        return f"PackedClip({self.low:g}, {self.high:g})"


def prelu(
    where: str,
    x,
    slope: np.ndarray,
    shift: np.ndarray | None = None,
    offset: np.ndarray | None = None,
) -> np.ndarray:
    """Return what `prelu_values` makes of a layer's input."""
    values = as_float(as_activation(where, x, slope.size))
    return prelu_values(values, slope, shift, offset)


def prelu_gradients(
    x: np.ndarray, grad: np.ndarray, shift: np.ndarray, slope: np.ndarray
) -> tuple[np.ndarray, ...]:
    """Return dx, its sum over all rows, and the gradients of slope and offset."""
    dx, sums = prelu_gradient(x, grad, shift, slope)
    if not np.isfinite(sums).all():
        with np.errstate(over="ignore", invalid="ignore"):
            z = x - shift
            products = np.where(z < 0, grad * z, np.float32(0))
        sums = np.stack([exact_sums(part) for part in (dx, products, grad)])
    return dx, *sums


@register
class PReLU(TrainingLayer):
    """Activation y = x where x >= 0, else slope * x, with a trained slope for each feature.

    Parameters
    ----------
    features : int
    start : float
        Value of the slopes at the start.

    Attributes
    ----------
    slope : Parameter of shape (features,)

    Notes
    -----
    Backward:  dx = dy where x >= 0, else slope * dy;  dslope = sum(dy * x where x < 0).
    A Sign after it folds into the thresholds of the product before it while no slope is negative.

    References
    ----------
    He et al., "Delving deep into rectifiers", 2015, equation 1.

    Examples
    --------
    >>> PReLU(2)(np.float32([[-4, 4]]))
    array([[-1.,  4.]], dtype=float32)
    """

    SAVED = ("_x",)

    def __init__(self, features: int, start: float = 0.25):
        self.in_features = self.out_features = check_size("PReLU", "features", features)
        check_finite("PReLU", "start", start)
        self.slope = Parameter(np.full(features, start))
        self._x: np.ndarray | None = None

    def forward(self, x, *, training: bool = False) -> np.ndarray:
        if training:
            self._x = as_float(as_activation("PReLU", x, self.in_features))
        return prelu("PReLU", x, self.slope.value)

    def backward(self, grad: np.ndarray) -> np.ndarray:
        x = saved_for_backward(self, self._x)
        dx, _, dslope, _ = prelu_gradients(
            x, grad, np.zeros_like(self.slope.value), self.slope.value
        )
        self.slope.grad[...] = dslope
        return dx

    @property
    def role(self) -> Role:
        return Role.ALONE if (self.slope.value < 0).any() else Role.STEP

    def parameters(self) -> list[Parameter]:
        return [self.slope]

    def cost(self, input_bits: int | None) -> Cost:
        return Cost(self.slope.size, 4 * self.slope.size, float_macs=self.slope.size)

    def to_packed(self) -> PackedPReLU:
        return PackedPReLU(self.slope.value)

    def config(self) -> dict[str, Any]:
        return {"features": self.slope.size}

    def __repr__(self) -> str:
        return f"PReLU({self.slope.size})"


@register
class PackedPReLU(Layer):
    """Twin of `PReLU` for inference.

    Parameters
    ----------
    slope : array_like of shape (features,), float32

    Examples
    --------
    >>> PackedPReLU([0.5, 0.5])(np.float32([[-4, 4]]))
    array([[-2.,  4.]], dtype=float32)
    """

    ARRAYS = (ArraySpec("slope", "float32", 1),)

    def __init__(self, slope):
        slope = plain_array("PackedPReLU", "slope", slope)
        if slope.ndim != 1 or not slope.size:
            raise ValueError(f"[PackedPReLU] slope must have shape (features,), got {slope.shape}")
        checked = as_scales("PackedPReLU", "slope", slope, slope.size)
        assert checked is not None
        self.slope = checked
        self.in_features = self.out_features = slope.size

    def forward(self, x) -> np.ndarray:
        return prelu("PackedPReLU", x, self.slope)

    def compile(self, chain: Chain, x: Value) -> Value | None:
        return chain.prelu(chain.as_float(x), self.slope)

    def cost(self, input_bits: int | None) -> Cost:
        return Cost(self.slope.size, self.slope.nbytes, float_macs=self.slope.size)

    def __repr__(self) -> str:
        return f"PackedPReLU({self.slope.size})"


def sigmoid(where: str, x) -> np.ndarray:
    """Return 1 / (1 + exp(-x)) of a layer's input, float32."""
    with np.errstate(over="ignore"):  # exp is infinite then, and the result 0
        return 1 / (1 + np.exp(-as_float(as_activation(where, x))))


@register
class Sigmoid(TrainingLayer):
    """Activation y = 1 / (1 + exp(-x)), float32.

    Notes
    -----
    Backward:  dx = dy * y * (1 - y).

    Examples
    --------
    >>> Sigmoid()(np.float32([[0, 100]]))
    array([[0.5, 1. ]], dtype=float32)
    """

    SAVED = ("_y",)

    def __init__(self) -> None:
        self._y: np.ndarray | None = None

    def forward(self, x, *, training: bool = False) -> np.ndarray:
        y = sigmoid("Sigmoid", x)
        if training:
            self._y = y
        return y

    def backward(self, grad: np.ndarray) -> np.ndarray:
        y = saved_for_backward(self, self._y)
        return grad * (y * (1 - y))

    def to_packed(self) -> PackedSigmoid:
        return PackedSigmoid()


@register
class PackedSigmoid(Layer):
    """Twin of `Sigmoid` for inference: y = 1 / (1 + exp(-x)), float32.

    Examples
    --------
    >>> PackedSigmoid()(np.float32([[0, 100]]))
    array([[0.5, 1. ]], dtype=float32)
    """

    def forward(self, x) -> np.ndarray:
        return sigmoid("PackedSigmoid", x)

    def compile(self, chain: Chain, x: Value) -> Value | None:
        return chain.apply(chain.as_float(x), self.forward)


def softmax(where: str, x) -> np.ndarray:
    """Return exp(x) of a layer's input, divided by its sum over the features, float32."""
    # in one order in memory, so that the sums are the same for every layout
    values = np.ascontiguousarray(as_float(as_activation(where, x)))
    y = np.exp(values - values.max(axis=-1, keepdims=True, initial=-np.inf))
    y /= y.sum(axis=-1, keepdims=True)
    return y


@register
class Softmax(TrainingLayer):
    """Activation y = exp(x) / sum(exp(x)) over the features, float32: probabilities of classes.

    Notes
    -----
    The loss `cross_entropy` contains it already; this layer is for networks that end in
    probabilities.
    Backward:  dx = y * (dy - sum(dy * y)).

    Examples
    --------
    >>> Softmax()(np.float32([[1, 1, 1, 1]]))
    array([[0.25, 0.25, 0.25, 0.25]], dtype=float32)
    """

    SAVED = ("_y",)

    def __init__(self) -> None:
        self._y: np.ndarray | None = None

    def forward(self, x, *, training: bool = False) -> np.ndarray:
        y = softmax("Softmax", x)
        if training:
            self._y = y
        return y

    def backward(self, grad: np.ndarray) -> np.ndarray:
        y = saved_for_backward(self, self._y)
        return y * (grad - (grad * y).sum(axis=-1, keepdims=True))

    def to_packed(self) -> PackedSoftmax:
        return PackedSoftmax()


@register
class PackedSoftmax(Layer):
    """Twin of `Softmax` for inference.

    Examples
    --------
    >>> PackedSoftmax()(np.float32([[1, 1, 1, 1]]))
    array([[0.25, 0.25, 0.25, 0.25]], dtype=float32)
    """

    def forward(self, x) -> np.ndarray:
        return softmax("PackedSoftmax", x)
