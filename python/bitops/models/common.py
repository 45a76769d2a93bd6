"""What the builders of networks share: seeds, sizes, and common sequences of layers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from ..layers import BatchNorm, Conv2D, ReLU, Sequential, TrainingLayer
from ..ops.checks import as_seed_sequence

Layers = list[TrainingLayer]

# Latent weights as other libraries keep them: no scale of the learning rate, and a normal start.
LATENT: dict[str, Any] = {"lr_scale": 1.0, "start": "normal"}


def float_conv(inputs: int, outputs: int, kernel_size: int, **options: Any) -> Layers:
    """Build Conv2D -> BatchNorm -> ReLU."""
    return [Conv2D(inputs, outputs, kernel_size, bias=False, **options), BatchNorm(outputs), ReLU()]


def seed_stream(seed) -> Iterator[np.random.SeedSequence]:
    """Yield independent seeds, one for each layer that needs one.

    Examples
    --------
    >>> from bitops.layers import Dense
    >>> seeds = seed_stream(0)
    >>> layers = [Dense(4, 4, seed=next(seeds)), Dense(4, 4, seed=next(seeds))]
    """
    sequence = as_seed_sequence("seed_stream", seed)
    while True:
        yield from sequence.spawn(1)


def features_of(layers: Layers, image_shape: Sequence[int]) -> int:
    """Return the number of output features of a chain of layers for an image.

    Examples
    --------
    >>> from bitops.layers import BinaryConv2D, Flatten, MaxPool2D
    >>> features_of([BinaryConv2D(3, 16, 3), MaxPool2D(2), Flatten()], (32, 32, 3))
    3600
    """
    features = Sequential(layers).output_shape(tuple(image_shape))[-1]
    assert features is not None  # the size of the image is known
    return features


def scaled(where: str, sizes: Sequence[int], width: float) -> list[int]:
    """Return numbers of channels or units times `width`, rounded and at least 1.

    Examples
    --------
    >>> scaled("mynet", (64, 128), 0.5)
    [32, 64]
    """
    if not 0 < width < float("inf"):
        raise ValueError(f"[{where}] width must be positive and finite, got {width}")
    return [max(round(size * width), 1) for size in sizes]


def image_channels(where: str, image_shape: Sequence[int]) -> int:
    """Return the channels of an image shape; refuse one without three axes."""
    if len(image_shape) != 3:
        raise ValueError(
            f"[{where}] image_shape must be (height, width, channels), got {image_shape!r}"
        )
    return image_shape[2]
