"""Walks over the layers of a model, and over what a layer and an array hold."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from .base import Layer

__all__ = ["holders", "is_finite", "named_layers"]


def named_layers(layers: Iterable[Layer], prefix: str = "") -> Iterator[tuple[str, Layer]]:
    """Yield layers with their places, "3" or "3.body.0"; those with branches come first."""
    for i, layer in enumerate(layers):
        yield f"{prefix}{i}", layer
        for branch, chain in layer.branches().items():
            yield from named_layers(chain, f"{prefix}{i}.{branch}.")


def holders(layer: Layer) -> Iterator[Any]:
    """Yield a layer, its quantizer if it has one, the quantizer in that, and so on."""
    holder: Any = layer
    while holder is not None:
        yield holder
        holder = getattr(holder, "quantizer", None)


def is_finite(x) -> bool:
    """Tell whether an array is free of NaN and infinity; its extremes show it without a copy."""
    if not isinstance(x, np.ndarray) or x.dtype.kind != "f" or not x.size:
        return True
    with np.errstate(invalid="ignore"):
        return bool(np.isfinite(x.min()) and np.isfinite(x.max()))
