"""Walks through the layers of a model and what they hold."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from .base import Layer, TrainingLayer
from .inputs import Shape


def named_layers(layers: Iterable[Layer], prefix: str = "") -> Iterator[tuple[str, Layer]]:
    """Layers with their places, as "3" or "3.body.0"; those with branches before their branches."""
    for i, layer in enumerate(layers):
        yield f"{prefix}{i}", layer
        for branch, chain in layer.branches().items():
            yield from named_layers(chain, f"{prefix}{i}.{branch}.")


def all_layers(layers: Iterable[Layer]) -> Iterator[Layer]:
    """Layers in order, those of branches included."""
    return (layer for _, layer in named_layers(layers))


def activations(layers: Iterable[Layer], shape: Shape) -> Iterator[tuple[Layer, Shape, Shape]]:
    """Every layer with the shapes of its input and its output, those in branches included.

    Shapes are those of one example, as `Layer.output_shape` takes and gives them. The walk ends
    where a layer refuses its input.
    """
    for layer in layers:
        for chain in layer.branches().values():
            yield from activations(chain, shape)
        try:
            output = layer.output_shape(shape)
        except ValueError:
            return
        yield layer, shape, output
        shape = output


def check_least_rows(where: str, layers: Iterable[Layer], shape: Shape, rows: int) -> None:
    """Refuse steps of so few rows of a shape that a layer cannot learn from them."""
    for layer, given, _ in activations(layers, shape):
        positions = given[:-1]
        least = layer.least_rows if isinstance(layer, TrainingLayer) else 1
        if None not in positions and rows * math.prod(positions) < least:  # type: ignore[arg-type]
            raise ValueError(
                f"[{where}] batch_size must give every layer at least two rows in training, got "
                f"{rows} of shape {shape} for {layer!r}"
            )


def holders(layer: Layer) -> Iterator[Any]:
    """A layer, its quantizer if it has one, the quantizer in that, and so on."""
    holder: Any = layer
    while holder is not None:
        yield holder
        holder = getattr(holder, "quantizer", None)


def is_finite(x) -> bool:
    """Whether an array holds neither NaN nor infinity; its extremes tell, without a copy."""
    if not isinstance(x, np.ndarray) or x.dtype.kind != "f" or not x.size:
        return True
    with np.errstate(invalid="ignore"):
        return bool(np.isfinite(x.min()) and np.isfinite(x.max()))
