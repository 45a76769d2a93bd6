"""What every layer shares: its interface, parameters, and the checks of inputs and settings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..ops.array import BitArray, pack, unpack
from ..ops.geometry import Pair, Window, make_window

# 255 * k stays below 2**31, so that every dot product fits int32, and k below 2**24, so that
# float32 holds those of bits exactly.
MAX_FEATURES = 2**23

# Part of an image that no setting of a window exceeds; stands for images of unknown size.
_LARGE_IMAGE = 2**30


@dataclass(frozen=True)
class Codes:
    """Activations of few levels in the training graph: step * code.

    Unlike uint8 numbers, which are data, they have a gradient, that of the values.

    Parameters
    ----------
    numbers : ndarray of shape (..., features), uint8
        The codes, in 0..2^bits - 1.
    bits : int
        1 to 8.
    step : float
        Value of the code 1, a float32 number.
    """

    numbers: np.ndarray
    bits: int
    step: float

    @property
    def shape(self) -> tuple[int, ...]:
        return self.numbers.shape

    @property
    def ndim(self) -> int:
        return self.numbers.ndim

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitem__(self, index) -> Codes:
        return Codes(self.numbers[index], self.bits, self.step)

    def reshape(self, *shape) -> Codes:
        return Codes(self.numbers.reshape(*shape), self.bits, self.step)

    def values(self) -> np.ndarray:
        """The activations, float32."""
        return self.numbers * np.float32(self.step)

    def __array__(self, dtype=None, copy=None) -> np.ndarray:
        return self.values().astype(dtype or np.float32, copy=False)


Activation = np.ndarray | BitArray | Codes
Shape = tuple[int | None, ...]  # the last axes of an activation, None where a length is unknown


def check_size(where: str, name: str, value: int) -> int:
    """`value` as a plain int in 1..MAX_FEATURES."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer):
        raise TypeError(f"[{where}] {name} must be an integer, got {value!r}")
    if not 1 <= value <= MAX_FEATURES:
        raise ValueError(f"[{where}] {name} must be in 1..{MAX_FEATURES}, got {value}")
    return int(value)


def check_flag(where: str, name: str, value: bool) -> bool:
    """`value`, which must be True or False."""
    if not isinstance(value, bool | np.bool_):
        raise TypeError(f"[{where}] {name} must be True or False, got {value!r}")
    return bool(value)


def check_input_bits(where: str, name: str, value: int) -> int:
    """`value` as a plain int in 1..8, the bits of a code."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer):
        raise TypeError(f"[{where}] {name} must be an integer, got {value!r}")
    if not 1 <= value <= 8:
        raise ValueError(f"[{where}] {name} must be in 1..8, got {value}")
    return int(value)


def as_activation(where: str, x, features: int | None = None) -> Activation:
    """Check a layer's input and give it one of the five forms that layers know.

    Parameters
    ----------
    where : str
        Name of the layer, for the message of an error.
    x : BitArray, Codes, or array_like of shape (..., features)
        Bits packed along the last axis, activations of few levels, uint8 numbers, or real numbers.
    features : int, optional
        Length that the last axis must have.

    Returns
    -------
    BitArray, Codes, or ndarray of uint8, int32 or float32

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
    elif not isinstance(x, Codes):
        x = np.asarray(x)
        if x.dtype.kind not in "iuf":
            raise TypeError(f"[{where}] x must be a BitArray, uint8 or real, got dtype {x.dtype}")
        if x.dtype not in (np.uint8, np.int32):
            x = x.astype(np.float32, copy=False)
    if x.ndim < 2:
        raise ValueError(f"[{where}] x must have shape (..., features), got {x.shape}")
    if features is not None and x.shape[-1] != features:
        raise ValueError(f"[{where}] x must have {features} features, got shape {x.shape}")
    return x


def as_images(where: str, x, channels: int | None = None) -> Activation:
    """`as_activation` for images: shape (n, h, w, channels)."""
    x = as_activation(where, x, channels)
    if x.ndim != 4:
        raise ValueError(f"[{where}] x must have shape (n, h, w, channels), got {x.shape}")
    return x


def is_data(x: Activation) -> bool:
    """Whether an input is integer data, below which nothing learns, rather than activations."""
    return isinstance(x, np.ndarray) and x.dtype == np.uint8


def as_float(x: Activation) -> np.ndarray:
    """The values of `x` as float32: +-1 for bits, the numbers themselves otherwise."""
    if isinstance(x, BitArray):
        return unpack(x, dtype=np.float32)
    if isinstance(x, Codes):
        return x.values()
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


def as_flips(where: str, flip, features: int, name: str = "flip") -> np.ndarray | None:
    """Check flips: bool, one a feature; None stands for no flip at all."""
    if flip is None:
        return None
    flip = np.asarray(flip)
    if flip.dtype != np.bool_:
        raise TypeError(f"[{where}] {name} must be bool, got {flip.dtype}")
    flip = per_feature(where, name, flip, features)
    return flip if flip.any() else None


def as_scales(where: str, name: str, value, features: int | None) -> np.ndarray | None:
    """Check a float32 factor or term, one a feature; None stands for an absent one."""
    if value is None:
        return None
    value = np.asarray(value)
    if value.dtype.kind not in "iuf":
        raise TypeError(f"[{where}] {name} must be real, got {value.dtype}")
    return per_feature(where, name, value.astype(np.float32), features)


def as_weights(where: str, value, axes: str) -> np.ndarray:
    """Check float32 weights with the named axes; a read-only copy."""
    value = np.asarray(value)
    if value.dtype.kind not in "iuf":
        raise TypeError(f"[{where}] w must be real, got {value.dtype}")
    if value.ndim != axes.count(",") + 1 or 0 in value.shape:
        raise ValueError(f"[{where}] w must have shape ({axes}), all >= 1, got {value.shape}")
    value = np.array(value, dtype=np.float32, order="C")
    value.flags.writeable = False
    return value


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


def image_shape(where: str, shape: Shape) -> tuple[int | None, int | None, int | None]:
    """Height, width and channels of the images of a shape, None where it does not tell."""
    if len(shape) > 3:
        raise ValueError(f"[{where}] x must be images of shape (h, w, channels), got {shape}")
    height, width, channels = (None,) * (3 - len(shape)) + shape
    return height, width, channels


@dataclass(frozen=True)
class Windows:
    """Settings of the windows of a layer, checked before any image is known.

    `padding` is "same", "valid" or ((top, bottom), (left, right)); the others are pairs (height,
    width).
    """

    kernel_size: Pair
    stride: Pair
    padding: str | tuple[Pair, Pair]
    dilation: Pair

    @classmethod
    def of(
        cls, where: str, kernel_size: Any, stride: Any = 1, padding: Any = 0, dilation: Any = 1
    ) -> Windows:
        """Check the settings as `make_window` does."""
        image = _LARGE_IMAGE, _LARGE_IMAGE
        window = make_window(where, image, kernel_size, stride, padding, dilation)
        sides = padding if isinstance(padding, str) else window.padding
        return cls(window.kernel, window.stride, sides, window.dilation)

    @property
    def options(self) -> dict[str, Any]:
        """Keyword arguments of the functions that convolve."""
        return {"stride": self.stride, "padding": self.padding, "dilation": self.dilation}

    def on(self, where: str, x: Activation) -> Window:
        """The windows on images (n, h, w, channels)."""
        return make_window(where, (x.shape[1], x.shape[2]), self.kernel_size, **self.options)

    def output(self, where: str, image: tuple[int | None, int | None]) -> Shape:
        """Height and width of the output, each None if that of the image is."""
        known = tuple(_LARGE_IMAGE if size is None else size for size in image)
        window = make_window(where, (known[0], known[1]), self.kernel_size, **self.options)
        return tuple(
            None if size is None else length
            for size, length in zip(image, window.output, strict=True)
        )

    def __str__(self) -> str:
        """What differs from the default, for a repr."""
        parts = ["x".join(map(str, self.kernel_size))]
        if self.stride != (1, 1):
            parts.append(f"stride={_short(self.stride)}")
        if isinstance(self.padding, str):
            parts.append(f"padding={self.padding!r}")
        elif self.padding != ((0, 0), (0, 0)):
            even = all(before == after for before, after in self.padding)
            sides = tuple(before for before, _ in self.padding)
            parts.append(f"padding={_short(sides) if even else self.padding}")
        if self.dilation != (1, 1):
            parts.append(f"dilation={_short(self.dilation)}")
        return ", ".join(parts)


def _short(pair: tuple[int, ...]) -> int | tuple[int, ...]:
    """One number for two equal ones."""
    return pair[0] if pair[0] == pair[1] else pair


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
    binary : bool
        Whether the layer uses only the signs, packed along the last axis.

    Attributes
    ----------
    grad : ndarray of float32
        Gradient written by the last backward pass.
    version : int
        Grows with every change, so that what was derived from the value (packed bits) knows when
        it is stale.
    """

    def __init__(
        self,
        value,
        *,
        clip_value: float | None = None,
        lr_scale: float = 1.0,
        binary: bool = False,
    ):
        self._value = np.array(value, dtype=np.float32, order="C")
        self.grad = np.zeros_like(self._value)
        self.clip_value = clip_value
        self.lr_scale = lr_scale
        self.binary = binary
        self.version = 0
        self._signs: BitArray | None = None
        self._signs_version = 0

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

    def signs(self) -> BitArray:
        """Signs of the value, packed along the last axis; packed anew only after a change."""
        if self._signs is None or self._signs_version != self.version:
            self.adopt_signs(pack(self._value))
        assert self._signs is not None
        return self._signs

    def adopt_signs(self, signs: BitArray) -> None:
        """Take the signs of the present value from who has just packed them."""
        self._signs, self._signs_version = signs, self.version

    def __repr__(self) -> str:
        return f"Parameter(shape={self.shape}, lr_scale={self.lr_scale:.4g})"


@dataclass(frozen=True)
class Cost:
    """What a layer stores, and what it computes for one output position (a row, or a pixel)."""

    parameters: int = 0
    packed_bytes: int = 0  # binary weights at 1 bit (in 64-bit words), everything else as stored
    binary_macs: int = 0
    float_macs: int = 0


class Layer:
    """One step of a model: `forward`, and the facts that `summary` and the shape checks need.

    `in_features` and `out_features`, the lengths of the last axes, are None where a layer takes or
    gives any number of features.
    """

    in_features: int | None = None
    out_features: int | None = None
    mixes_axes = False  # whether the features of the output come from several axes of the input

    @property
    def name(self) -> str:
        return type(self).__name__

    def forward(self, x) -> Activation:
        raise NotImplementedError

    def __call__(self, x) -> Activation:
        return self.forward(x)

    def output_shape(self, shape: Shape) -> Shape:
        """Shape of the output for inputs of a shape, or an error if they do not fit.

        Shapes are the last axes, as many as are known: () says nothing, (64,) that there are 64
        features or channels, (28, 28, 64) is that of one image.
        """
        if self.out_features is None:
            return shape
        return (*shape[:-1], self.out_features)

    def emits_bits(self, bits_in: bool) -> bool:
        """Whether the output in inference is a BitArray, given whether the input is one."""
        return False

    def cost(self, bits_in: bool) -> Cost:
        return Cost()

    def settings(self) -> dict[str, Any]:
        """Arguments of the constructor that are no arrays, as far as a packed layer has them."""
        return {}

    def branches(self) -> dict[str, Sequence[Layer]]:
        """Chains of layers inside this one by name; each of them gets this layer's input."""
        return {}


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

    def generators(self) -> list[np.random.Generator]:
        """Sources of the random numbers that `forward` draws; their states belong to a checkpoint.

        An outer layer lists those of the layers in it, in the order of `parameters`.
        """
        return []

    def state(self) -> list:
        """Copies of all arrays that what follows depends on; `restore` takes them back."""
        return [p.value.copy() for p in self.parameters()]

    def restore(self, state: Sequence) -> None:
        for parameter, value in zip(self.parameters(), state, strict=True):
            parameter.assign(value)
