"""Chains of layers: the training graph and the packed inference model."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from .base import Activation, Layer, Model, Parameter, TrainingLayer, check_layers

if TYPE_CHECKING:
    from ..train import History


def _as_list(layers: tuple) -> list:
    """Layers given one by one, or as a single list or tuple."""
    if len(layers) == 1 and isinstance(layers[0], list | tuple):
        return list(layers[0])
    return list(layers)


def _describe(name: str, layers: Iterable) -> str:
    lines = [repr(layer).replace("\n", "\n    ") for layer in layers]
    return f"{name}(\n" + "".join(f"    {line},\n" for line in lines) + ")"


class Sequential(Model, TrainingLayer):
    """Layers applied one after the other; sequences may contain sequences.

    Parameters
    ----------
    *layers : TrainingLayer
        One by one, or a single list.

    Examples
    --------
    >>> model = Sequential(BinaryDense(64, 256), BatchNorm(256), Sign(),
    ...                    BinaryDense(256, 10), BatchNorm(10))          # doctest: +SKIP
    >>> model.fit(x, y, epochs=10, validation=(x_val, y_val))            # doctest: +SKIP
    >>> model.freeze().save("model.safetensors")                         # doctest: +SKIP
    """

    def __init__(self, *layers):
        self.layers: list[TrainingLayer] = _as_list(layers)
        check_layers("Sequential", self.layers, TrainingLayer)
        self.in_features = next((i.in_features for i in self.layers if i.in_features), None)
        self.out_features = next(
            (i.out_features for i in self.layers[::-1] if i.out_features), None
        )

    def forward(self, x, *, training: bool = False) -> Activation:
        for layer in self.layers:
            x = layer.forward(x, training=training)
        return x

    def backward(self, grad: np.ndarray) -> np.ndarray | None:
        for layer in reversed(self.layers):
            below = layer.backward(grad)
            if below is None:
                return None
            grad = below
        return grad

    def parameters(self) -> list[Parameter]:
        return [parameter for layer in self.layers for parameter in layer.parameters()]

    def state(self) -> list:
        return [layer.state() for layer in self.layers]

    def restore(self, state: Sequence) -> None:
        for layer, part in zip(self.layers, state, strict=True):
            layer.restore(part)

    def flat_layers(self) -> list[Layer]:
        flat: list[Layer] = []
        for layer in self.layers:
            flat += layer.flat_layers() if isinstance(layer, Sequential) else [layer]
        return flat

    def fit(self, x, y, **options) -> History:
        """Train in place; see `bitops.train.fit` for the options and the result."""
        # imported here, so that whoever only runs models never loads the training code
        from ..train import fit

        return fit(self, x, y, **options)

    def freeze(self) -> Packed:
        """The packed inference model; see `bitops.layers.freeze`."""
        from .freeze import freeze

        return freeze(self)

    def __repr__(self) -> str:
        return _describe("Sequential", self.layers)


class Packed(Model, Layer):
    """Inference model: a chain of packed layers with bits flowing between them.

    Parameters
    ----------
    *layers : PackedDense, PackedBatchNorm or PackedSign
        One by one, or a single list.

    Notes
    -----
    `Sequential.freeze` makes one from a trained network; `PackedDense(w, threshold, flip)` builds
    one by hand from a network trained elsewhere. Either way it needs no training code.
    """

    def __init__(self, *layers):
        self.layers: list[Layer] = _as_list(layers)
        check_layers("Packed", self.layers, Layer)
        for layer in self.layers:
            if isinstance(layer, TrainingLayer | Packed):
                raise TypeError(f"[Packed] layers must be packed ones, got {layer!r}")
        self.in_features = next((i.in_features for i in self.layers if i.in_features), None)
        self.out_features = next(
            (i.out_features for i in self.layers[::-1] if i.out_features), None
        )

    def forward(self, x) -> Activation:
        for layer in self.layers:
            x = layer.forward(x)
        return x

    def flat_layers(self) -> list[Layer]:
        return self.layers

    @property
    def nbytes(self) -> int:
        """Bytes of packed weights, thresholds, flips and scales."""
        return self.summary().total.packed_bytes

    def save(self, path) -> None:
        """Write the model to a file; see `bitops.io.save`."""
        from ..io import save

        save(self, path)

    def __repr__(self) -> str:
        return _describe("Packed", self.layers)
