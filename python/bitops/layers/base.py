"""What every layer shares: its interface, parameters, and the checks of inputs and settings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..array import BitArray, unpack

# 255 * k stays below 2**31, so that every dot product fits int32, and k below 2**24, so that
# float32 holds those of bits exactly.
MAX_FEATURES = 2**23

Activation = np.ndarray | BitArray


def check_size(where: str, name: str, value: int) -> int:
    """`value` as a plain int in 1..MAX_FEATURES."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer):
        raise TypeError(f"[{where}] {name} must be an integer, got {value!r}")
    if not 1 <= value <= MAX_FEATURES:
        raise ValueError(f"[{where}] {name} must be in 1..{MAX_FEATURES}, got {value}")
    return int(value)


def as_activation(where: str, x, features: int | None = None) -> Activation:
    """Check a layer's input and give it one of the three forms that layers know.

    Parameters
    ----------
    where : str
        Name of the layer, for the message of an error.
    x : BitArray or array_like of shape (..., features)
        Bits packed along the last axis, uint8 numbers, or real numbers.
    features : int, optional
        Length that the last axis must have.

    Returns
    -------
    BitArray, ndarray of uint8, or ndarray of float32

    Raises
    ------
    TypeError
        If x is neither bits nor numbers. A bool array is refused: it is bits that nobody packed.
    ValueError
        If x has fewer than two axes, a wrong last axis, or is packed along another axis.
    """
    if isinstance(x, BitArray):
        if x.axis != x.ndim - 1:
            raise ValueError(f"[{where}] x must be packed along its last axis, got {x!r}")
    else:
        x = np.asarray(x)
        if x.dtype.kind not in "iuf":
            raise TypeError(f"[{where}] x must be a BitArray, uint8 or real, got dtype {x.dtype}")
        if x.dtype != np.uint8:
            x = x.astype(np.float32, copy=False)
    if x.ndim < 2:
        raise ValueError(f"[{where}] x must have shape (..., features), got {x.shape}")
    if features is not None and x.shape[-1] != features:
        raise ValueError(f"[{where}] x must have {features} features, got shape {x.shape}")
    return x


def as_float(x: Activation) -> np.ndarray:
    """The values of `x` as float32: +-1 for bits, the numbers themselves otherwise."""
    if isinstance(x, BitArray):
        return unpack(x, dtype=np.float32)
    return x.astype(np.float32, copy=False)


def as_thresholds(where: str, threshold, features: int | None) -> np.ndarray:
    """Check thresholds: int32 (clipped, which changes no comparison) or float32, one a feature."""
    threshold = np.asarray(threshold)
    if threshold.dtype.kind in "iu":
        limits = np.iinfo(np.int32)
        threshold = np.clip(threshold, limits.min, limits.max).astype(np.int32)
    elif threshold.dtype.kind == "f":
        threshold = threshold.astype(np.float32)
        if np.isnan(threshold).any():
            raise ValueError(f"[{where}] threshold must not be NaN")
    else:
        raise TypeError(f"[{where}] threshold must be integer or real, got {threshold.dtype}")
    return per_feature(where, "threshold", threshold, features)


def as_flips(where: str, flip, features: int) -> np.ndarray | None:
    """Check flips: bool, one a feature; None stands for no flip at all."""
    if flip is None:
        return None
    flip = np.asarray(flip)
    if flip.dtype != np.bool_:
        raise TypeError(f"[{where}] flip must be bool, got {flip.dtype}")
    flip = per_feature(where, "flip", flip, features)
    return flip if flip.any() else None


def as_scales(where: str, name: str, value, features: int | None) -> np.ndarray | None:
    """Check a float32 factor or term, one a feature; None stands for an absent one."""
    if value is None:
        return None
    value = np.asarray(value)
    if value.dtype.kind not in "iuf":
        raise TypeError(f"[{where}] {name} must be real, got {value.dtype}")
    return per_feature(where, name, value.astype(np.float32), features)


def per_feature(where: str, name: str, value: np.ndarray, features: int | None) -> np.ndarray:
    """`value`, a scalar or one number a feature, as a read-only array of shape (features,)."""
    if features is None and value.ndim == 1 and value.size:
        features = value.size
    if features is None or value.shape not in ((), (features,)):
        raise ValueError(
            f"[{where}] {name} must have shape ({features or 'features'},), got {value.shape}"
        )
    value = np.array(np.broadcast_to(value, (features,)))  # a copy: the caller's may change
    value.flags.writeable = False
    return value


def saved_for_backward(layer: Layer, value):
    """What `forward` kept, or an error if it has not run in training mode."""
    if value is None:
        raise RuntimeError(f"[{layer.name}] backward needs forward(x, training=True) before it")
    return value


class Parameter:
    """One trainable float32 array, its gradient, and how an optimizer is to treat it.

    Parameters
    ----------
    value : array_like
        Start value, copied as float32.
    clip_value : float, optional
        The optimizer clips the array to [-clip_value, clip_value] after each step.
    lr_scale : float
        Multiplies the learning rate.

    Attributes
    ----------
    grad : ndarray of float32
        Gradient written by the last backward pass.
    version : int
        Grows with every change, so that what was derived from the value (packed bits) knows when
        it is stale.
    """

    def __init__(self, value, *, clip_value: float | None = None, lr_scale: float = 1.0):
        self._value = np.array(value, dtype=np.float32, order="C")
        self.grad = np.zeros_like(self._value)
        self.clip_value = clip_value
        self.lr_scale = lr_scale
        self.version = 0

    @property
    def shape(self) -> tuple[int, ...]:
        return self._value.shape

    @property
    def size(self) -> int:
        return self._value.size

    @property
    def value(self) -> np.ndarray:
        """Read-only view; change the parameter with `assign` or through `writable`."""
        view = self._value.view()
        view.flags.writeable = False
        return view

    def writable(self) -> np.ndarray:
        """The array itself, to be changed in place right away; counts as a change."""
        self.version += 1
        return self._value

    def assign(self, value) -> None:
        """Copy `value`, an array_like of the same shape, into the parameter."""
        value = np.asarray(value)
        if value.shape != self.shape:
            raise ValueError(f"[Parameter] value must have shape {self.shape}, got {value.shape}")
        np.copyto(self.writable(), value, casting="same_kind")

    def __repr__(self) -> str:
        return f"Parameter(shape={self.shape}, lr_scale={self.lr_scale:.4g})"


@dataclass(frozen=True)
class Cost:
    """What a layer stores and computes for one input row."""

    parameters: int = 0
    packed_bytes: int = 0  # binary weights at 1 bit (in 64-bit words), everything else as stored
    binary_macs: int = 0
    float_macs: int = 0


class Layer:
    """One step of a model: `forward`, and the facts that `summary` and the shape checks need.

    `in_features` and `out_features` are None where a layer takes any number of features.
    """

    in_features: int | None = None
    out_features: int | None = None

    @property
    def name(self) -> str:
        return type(self).__name__

    def forward(self, x) -> Activation:
        raise NotImplementedError

    def __call__(self, x) -> Activation:
        return self.forward(x)

    def emits_bits(self, bits_in: bool) -> bool:
        """Whether the output in inference is a BitArray, given whether the input is one."""
        return False

    def cost(self, bits_in: bool) -> Cost:
        return Cost()


class TrainingLayer(Layer):
    """A layer that also learns: `backward` stands next to `forward`.

    `forward(x, training=True)` keeps what `backward` needs; `forward(x)` is the evaluation graph.
    `backward(grad)` writes the gradients of the parameters and returns that of the input, or None
    where the input, being integer data, has none.
    """

    def forward(self, x, *, training: bool = False) -> Activation:
        raise NotImplementedError

    def backward(self, grad: np.ndarray) -> np.ndarray | None:
        raise NotImplementedError

    def parameters(self) -> list[Parameter]:
        return []

    def state(self) -> list:
        """Copies of all that evaluation depends on; `restore` takes them back."""
        return [p.value.copy() for p in self.parameters()]

    def restore(self, state: Sequence) -> None:
        for parameter, value in zip(self.parameters(), state, strict=True):
            parameter.assign(value)
