"""Padding of images by a number, as a layer, and its packed twin."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..ops.array import BitArray, pack, unpack
from ..ops.checks import check_number
from ..ops.geometry import Pair
from .base import Layer, TrainingLayer, saved_for_backward
from .inputs import Activation, Codes, Shape, as_float, as_images
from .registry import register
from .roles import Role
from .windows import Padding, Windows, image_shape


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
        check_number(self.name, "value", value)
        if not np.isfinite(np.float32(value)):
            raise ValueError(f"[{self.name}] value must be finite in float32, got {value}")
        self.value = float(value)

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
        return self._around(x if _holds(x, self.value) else as_float(x))

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


def _holds(x: np.ndarray, value: float) -> bool:
    if x.dtype.kind == "f":
        return True
    limits = np.iinfo(x.dtype)
    return value.is_integer() and limits.min <= value <= limits.max


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
    """

    def forward(self, x) -> Activation:
        return self._padded(x)
