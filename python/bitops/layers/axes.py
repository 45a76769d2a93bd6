"""Layers that make images of height 1 of sequences, and back, and their packed twins."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from .base import Layer, TrainingLayer, saved_for_backward
from .inputs import Activation, Shape, as_activation
from .registry import register
from .roles import Role
from .windows import image_shape

if TYPE_CHECKING:
    from ..ops.plan import Value
    from .plans import Chain


class ToImages(Layer):
    """Base of the layers that add an axis: (n, length, features) to (n, 1, length, features)."""

    def _reshaped(self, x) -> Activation:
        x = as_activation(self.name, x)
        if x.ndim != 3:
            raise ValueError(
                f"[{self.name}] x must be sequences (n, length, features), got shape {x.shape}"
            )
        return x.reshape(len(x), 1, *x.shape[1:])

    def output_shape(self, shape: Shape) -> Shape:
        if len(shape) > 2:
            raise ValueError(f"[{self.name}] x must be sequences (length, features), got {shape}")
        return (1, *(None,) * (2 - len(shape)), *shape)

    def output_bits(self, input_bits: int | None) -> int | None:
        return input_bits


class ToSequences(Layer):
    """Base of the layers that take it away: (n, 1, length, features) to (n, length, features)."""

    def _reshaped(self, x) -> Activation:
        x = as_activation(self.name, x)
        if x.ndim != 4 or x.shape[1] != 1:
            raise ValueError(
                f"[{self.name}] x must be images of height 1, (n, 1, length, features), "
                f"got {x.shape}"
            )
        return x.reshape(len(x), *x.shape[2:])

    def output_shape(self, shape: Shape) -> Shape:
        height, length, features = image_shape(self.name, shape)
        if height not in (1, None):
            raise ValueError(f"[{self.name}] x must be images of height 1, got {shape}")
        return length, features

    def output_bits(self, input_bits: int | None) -> int | None:
        return input_bits


@register
class AsImages(ToImages, TrainingLayer):
    """Makes images of height 1 of sequences: (n, length, features) to (n, 1, length, features).

    Bits stay bits, and codes stay codes. Layers of images, such as pools, then work along the
    length.

    Notes
    -----
    Backward:  dx is dy in the shape of x.

    Examples
    --------
    >>> AsImages()(np.zeros((8, 100, 6), np.float32)).shape
    (8, 1, 100, 6)
    """

    role = Role.MOVES
    TRANSIENT = ("_ran",)

    _ran: bool | None = None

    def forward(self, x, *, training: bool = False) -> Activation:
        if training:
            self._ran = True
        return self._reshaped(x)

    def backward(self, grad: np.ndarray) -> np.ndarray:
        saved_for_backward(self, self._ran)
        return grad[:, 0]

    def to_packed(self) -> PackedAsImages:
        return PackedAsImages()


@register
class AsSequences(ToSequences, TrainingLayer):
    """Makes sequences of images of height 1: (n, 1, length, features) to (n, length, features).

    Bits stay bits, and codes stay codes.

    Notes
    -----
    Backward:  dx is dy in the shape of x.
    `freeze` takes steps and signs before it, and leaves it out where `AsImages` follows.

    Examples
    --------
    >>> AsSequences()(np.zeros((8, 1, 100, 6), np.float32)).shape
    (8, 100, 6)
    """

    role = Role.MOVES
    TRANSIENT = ("_ran",)

    _ran: bool | None = None

    def forward(self, x, *, training: bool = False) -> Activation:
        if training:
            self._ran = True
        return self._reshaped(x)

    def backward(self, grad: np.ndarray) -> np.ndarray:
        saved_for_backward(self, self._ran)
        return grad[:, np.newaxis]

    def to_packed(self) -> PackedAsSequences:
        return PackedAsSequences()


@register
class PackedAsImages(ToImages):
    """Twin of `AsImages` for inference.

    Examples
    --------
    >>> PackedAsImages()(np.zeros((8, 100, 6), np.float32)).shape
    (8, 1, 100, 6)
    """

    def forward(self, x) -> Activation:
        return self._reshaped(x)

    def compile(self, chain: Chain, x: Value) -> Value | None:
        return x.seen_as((x.shape[0], 1, *x.shape[1:])) if len(x.shape) == 3 else None


@register
class PackedAsSequences(ToSequences):
    """Twin of `AsSequences` for inference.

    Examples
    --------
    >>> PackedAsSequences()(np.zeros((8, 1, 100, 6), np.float32)).shape
    (8, 100, 6)
    """

    def forward(self, x) -> Activation:
        return self._reshaped(x)

    def compile(self, chain: Chain, x: Value) -> Value | None:
        if len(x.shape) != 4 or x.shape[1] != 1:
            return None
        return x.seen_as((x.shape[0], *x.shape[2:]))
