"""Padding of images and of features by numbers, as layers, and their packed twins."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ..ops.array import BitArray, pack, unpack
from ..ops.checks import check_integer
from ..ops.geometry import Pair
from .base import Layer, TrainingLayer, saved_for_backward
from .inputs import (
    Activation,
    Codes,
    Shape,
    as_activation,
    as_float,
    as_images,
    check_finite,
    check_size,
)
from .registry import register
from .roles import Role
from .windows import Padding, Windows, image_shape

if TYPE_CHECKING:
    from ..ops.plan import Value
    from .plans import Chain


class Padded(Layer):
    """Base of the padding layers: what they hold, and shapes.

    Parameters
    ----------
    padding : int, (height, width) or ((top, bottom), (left, right))
    value : float
        Value of the positions outside the image.
    """

    def __init__(self, padding: Padding, value: float = 0.0):
        if isinstance(padding, str):
            raise TypeError(f"[{self.name}] padding must be integers, got {padding!r}")
        sides = Windows.of(self.name, 1, padding=padding).padding
        assert not isinstance(sides, str)
        self.padding: tuple[Pair, Pair] = sides
        self.value = check_finite(self.name, "value", value)

    def _padded(self, x) -> Activation:
        """Pad images; bits stay bits, codes stay codes, and integers that can hold it integers."""
        x = as_images(self.name, x)
        if isinstance(x, BitArray):
            if self.value not in (-1, 1):
                raise ValueError(f"[{self.name}] value must be +1 or -1 for bits, got {self.value}")
            return pack(self._around(unpack(x)))
        if isinstance(x, Codes):
            code = self.value / x.step
            if not (code.is_integer() and 0 <= code < 2**x.bits):
                raise ValueError(
                    f"[{self.name}] value must be a code of {x.bits} bits times {x.step:g}, "
                    f"got {self.value}"
                )
            return Codes(self._around(x.numbers, int(code)), x.bits, x.step)
        return self._around(x if _holds(x.dtype, self.value) else as_float(x))

    def _around(self, x: np.ndarray, value: float | None = None) -> np.ndarray:
        number = self.value if value is None else value
        return np.pad(x, ((0, 0), *self.padding, (0, 0)), constant_values=number)

    def output_shape(self, shape: Shape) -> Shape:
        *image, channels = image_shape(self.name, shape)
        sizes = [
            None if size is None else size + sum(sides)
            for size, sides in zip(image, self.padding, strict=True)
        ]
        return (*sizes, channels)

    def output_bits(self, input_bits: int | None) -> int | None:
        return input_bits

    def config(self) -> dict[str, Any]:
        return {"padding": self.padding, "value": self.value}

    def __repr__(self) -> str:
        return f"{self.name}({self.padding}, value={self.value:g})"


def _holds(dtype: np.dtype[Any], value: float) -> bool:
    if dtype.kind == "f":
        return True
    limits = np.iinfo(dtype)
    return value.is_integer() and limits.min <= value <= limits.max


@register
class Pad2D(Padded, TrainingLayer):
    """Pads images by a number on all sides; bits stay bits, and codes stay codes.

    Parameters
    ----------
    padding : int, (height, width) or ((top, bottom), (left, right))
    value : float
        Value of the positions outside the image.

    Notes
    -----
    A convolution pads by itself, and faster. This layer is for other values, and for networks that
    pad elsewhere.
    Backward:  dx is dy within the image.

    Examples
    --------
    >>> Pad2D(1)(np.ones((1, 2, 2, 1), np.float32))[0, :, :, 0]
    array([[0., 0., 0., 0.],
           [0., 1., 1., 0.],
           [0., 1., 1., 0.],
           [0., 0., 0., 0.]], dtype=float32)
    """

    role = Role.MOVES
    TRANSIENT = ("_size",)

    _size: Pair | None = None

    def forward(self, x, *, training: bool = False) -> Activation:
        y = self._padded(x)
        if training:
            self._size = y.shape[1], y.shape[2]
        return y

    def backward(self, grad: np.ndarray) -> np.ndarray:
        height, width = saved_for_backward(self, self._size)
        (top, bottom), (left, right) = self.padding
        return grad[:, top : height - bottom, left : width - right]

    def to_packed(self) -> PackedPad2D:
        return PackedPad2D(self.padding, self.value)


@register
class PackedPad2D(Padded):
    """Twin of `Pad2D` for inference; integers that can hold the value stay integers.

    Parameters
    ----------
    padding : int, (height, width) or ((top, bottom), (left, right))
    value : float
        Value of the positions outside the image.

    Examples
    --------
    >>> PackedPad2D(1)(np.ones((1, 2, 2, 1), np.float32))[0, :, :, 0]
    array([[0., 0., 0., 0.],
           [0., 1., 1., 0.],
           [0., 1., 1., 0.],
           [0., 0., 0., 0.]], dtype=float32)
    """

    def forward(self, x) -> Activation:
        return self._padded(x)

    def compile(self, chain: Chain, x: Value) -> Value | None:
        if len(x.shape) != 4 or (x.kind == "bits" and self.value not in (-1, 1)):
            return None
        if x.kind != "bits" and not _holds(np.dtype(x.kind), self.value):
            x = chain.as_float(x)
        return chain.pad2d(x, self.padding, self.value)


class PaddedFeatures(Layer):
    """Base of the layers that put zeros beside the features: what they hold, and shapes.

    Parameters
    ----------
    features : int
    before, after : int
        Zeros before the first feature and behind the last one.
    """

    in_features: int
    out_features: int

    def __init__(self, features: int, before: int = 0, after: int = 0):
        self.in_features = check_size(self.name, "features", features)
        self.before = check_integer(self.name, "before", before, 0)
        self.after = check_integer(self.name, "after", after, 0)
        total = self.in_features + self.before + self.after
        self.out_features = check_size(self.name, "features", total)

    def _padded(self, x) -> np.ndarray:
        values = as_float(as_activation(self.name, x, self.in_features))
        y = np.zeros((*values.shape[:-1], self.out_features), np.float32)
        y[..., self._inner] = values
        return y

    @property
    def _inner(self) -> slice:
        """Where the input lies among the output features."""
        return slice(self.before, self.before + self.in_features)

    def config(self) -> dict[str, Any]:
        return {"features": self.in_features, "before": self.before, "after": self.after}

    def __repr__(self) -> str:
        return f"{self.name}({self.in_features}, before={self.before}, after={self.after})"


@register
class PadFeatures(PaddedFeatures, TrainingLayer):
    """Puts zeros beside the features, float32; bits count as +-1.

    Parameters
    ----------
    features : int
    before, after : int
        Zeros before the first feature and behind the last one.

    Notes
    -----
    In a `Residual` body it lets a block add to a part of the features, as those of MeliusNet do.
    Backward:  dx is dy of the features that are no zeros.

    References
    ----------
    Bethge et al., "MeliusNet: can binary neural networks achieve MobileNet-level accuracy?", 2020,
    section 3.2, the improvement block.

    Examples
    --------
    >>> PadFeatures(2, before=1)(np.float32([[5, 7]]))
    array([[0., 5., 7.]], dtype=float32)
    """

    TRANSIENT = ("_ran",)

    _ran: bool | None = None

    def forward(self, x, *, training: bool = False) -> np.ndarray:
        if training:
            self._ran = True
        return self._padded(x)

    def backward(self, grad: np.ndarray) -> np.ndarray:
        saved_for_backward(self, self._ran)
        return np.ascontiguousarray(grad[..., self._inner])

    def to_packed(self) -> PackedPadFeatures:
        return PackedPadFeatures(self.in_features, self.before, self.after)


@register
class PackedPadFeatures(PaddedFeatures):
    """Twin of `PadFeatures` for inference.

    Parameters
    ----------
    features : int
    before, after : int
        Zeros before the first feature and behind the last one.

    Examples
    --------
    >>> PackedPadFeatures(2, before=1)(np.float32([[5, 7]]))
    array([[0., 5., 7.]], dtype=float32)
    """

    def forward(self, x) -> np.ndarray:
        return self._padded(x)

    def compile(self, chain: Chain, x: Value) -> Value | None:
        return chain.pad_features(chain.as_float(x), self.before, self.after)
