"""The interface of all layers, and of those that learn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from .inputs import Activation, Shape
from .parameter import Parameter
from .roles import Role

if TYPE_CHECKING:
    from .registry import ArraySpec


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

    ARRAYS: ClassVar[Sequence[ArraySpec]] = ()  # of a packed layer, for model files
    CHAINS: ClassVar[Sequence[str]] = ()  # names of `branches()`, for the same

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

    def config(self) -> dict[str, Any]:
        """Arguments of the constructor that are no arrays, in values that JSON knows."""
        return {}

    def branches(self) -> dict[str, Sequence[Layer]]:
        """Chains of layers inside this one by name; each of them gets this layer's input."""
        return {}

    def __repr__(self) -> str:
        return f"{self.name}()"


class TrainingLayer(Layer):
    """A layer that also learns: `backward` stands next to `forward`.

    `forward(x, training=True)` keeps what `backward` needs; `forward(x)` is the evaluation graph.
    `backward(grad)` writes the gradients of the parameters and returns that of the input, or None
    where the input, being integer data, has none. `to_packed()` gives the layer for inference.
    `least_rows` is how many rows, or positions of images, a training step must have.
    """

    least_rows: ClassVar[int] = 1

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

    @property
    def role(self) -> Role:
        """How the layer takes part when a chain is packed."""
        return Role.ALONE

    def to_packed(self) -> Layer | None:
        """The layer that computes in inference what `forward` does in evaluation, bit for bit.

        It shares no array with this one. The packed form belongs to the `forward` beside which it
        is defined: a class that overrides `forward` has none unless it defines its own.
        """
        raise TypeError(
            f"[to_packed] a layer must define to_packed to be packed, got {type(self).__name__}"
        )


def place_in_mro(kind: type, name: str) -> int:
    """Where among its bases, itself the first, a class finds an attribute; after all if nowhere."""
    bases = kind.__mro__
    return next((i for i, base in enumerate(bases) if name in vars(base)), len(bases))


def saved_for_backward(layer: Layer, value):
    """What `forward` kept, or an error if it has not run in training mode."""
    if value is None:
        raise RuntimeError(f"[{layer.name}] backward needs forward(x, training=True) before it")
    return value
