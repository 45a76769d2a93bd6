"""The two shapes of BinaryNet's networks, built from the layers that a recipe names."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..data.datasets import Dataset
from ..layers import (
    BatchNorm,
    BinaryConv2D,
    BinaryDense,
    Dropout,
    Flatten,
    MaxPool2D,
    Sequential,
    Sign,
)
from ..layers.base import TrainingLayer
from ..models import features_of, seed_stream
from .base import Plan

Make = Callable[..., TrainingLayer]


@dataclass(frozen=True)
class Blocks:
    """What the layers of a network are made of.

    Parameters
    ----------
    dense : callable (in_features, out_features, *, seed) -> layer
    conv : callable (in_channels, out_channels, kernel_size, *, padding, seed) -> layer
    norm : callable (features) -> layer
    activation : callable (seed) -> layer
    last_norm : callable (features) -> layer
    """

    dense: Make = BinaryDense
    conv: Make = BinaryConv2D
    norm: Make = BatchNorm
    activation: Callable[[Any], TrainingLayer] = lambda seed: Sign()
    last_norm: Make = BatchNorm


def mlp_of(blocks: Blocks, data: Dataset, plan: Plan, seed, *, input_dropout: float = 0.0):
    """Three hidden layers of one width: dense -> norm -> activation (-> Dropout), dense -> norm.

    Dense layers have no bias: the norm behind them would subtract it again.
    """
    seeds = seed_stream(seed)
    features = int(np.prod(data.image_shape))
    layers: list[TrainingLayer] = []
    if input_dropout:
        layers.append(Dropout(input_dropout, seed=next(seeds)))
    for _ in range(3):
        layers += [
            blocks.dense(features, plan.width, seed=next(seeds)),
            blocks.norm(plan.width),
            blocks.activation(next(seeds)),
        ]
        if plan.dropout:
            layers.append(Dropout(plan.dropout, seed=next(seeds)))
        features = plan.width
    layers += [
        blocks.dense(features, data.classes, seed=next(seeds)),
        blocks.last_norm(data.classes),
    ]
    return Sequential(layers, input_shape=(int(np.prod(data.image_shape)),))


def convnet_of(blocks: Blocks, data: Dataset, plan: Plan, seed, *, hidden: int):
    """Three stages of two convolutions 3x3, the second pooled before its norm; 2 dense layers.

    The stages have `plan.width` channels, twice and four times as many.
    """
    seeds = seed_stream(seed)
    layers: list[TrainingLayer] = []
    inputs = data.image_shape[2]
    for channels in (plan.width, 2 * plan.width, 4 * plan.width):
        for pools in (False, True):
            layers.append(blocks.conv(inputs, channels, 3, padding=1, seed=next(seeds)))
            if pools:
                layers.append(MaxPool2D(2))
            layers += [blocks.norm(channels), blocks.activation(next(seeds))]
            inputs = channels
    layers.append(Flatten())
    features = features_of(layers, data.image_shape)
    for _ in range(2):
        layers += [
            blocks.dense(features, hidden, seed=next(seeds)),
            blocks.norm(hidden),
            blocks.activation(next(seeds)),
        ]
        features = hidden
    layers += [
        blocks.dense(features, data.classes, seed=next(seeds)),
        blocks.last_norm(data.classes),
    ]
    return Sequential(layers, input_shape=data.image_shape)


def images_of(data: Dataset) -> tuple[int, ...]:
    """Height, width and channels, of which grey images have one."""
    return data.image_shape if len(data.image_shape) == 3 else (*data.image_shape, 1)
