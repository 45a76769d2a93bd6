"""Walks through the layers of a model and what they hold."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from .base import Layer


def named_layers(layers: Iterable[Layer], prefix: str = "") -> Iterator[tuple[str, Layer]]:
    """Layers with their places, as "3" or "3.body.0"; those with branches before their branches."""
    for i, layer in enumerate(layers):
        yield f"{prefix}{i}", layer
        for branch, chain in layer.branches().items():
            yield from named_layers(chain, f"{prefix}{i}.{branch}.")


def all_layers(layers: Iterable[Layer]) -> Iterator[Layer]:
    """Layers in order, those of branches included."""
    return (layer for _, layer in named_layers(layers))


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
