"""The two networks of BinaryNet, built from the layers that a recipe names."""

from __future__ import annotations

from collections.abc import Callable, Iterator
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
    TrainingLayer,
)
from ..models import features_of, seed_stream
from .base import Job

__all__ = ["Blocks", "Seeds", "convnet", "images_of", "mlp"]

Make = Callable[..., TrainingLayer]
Seeds = Iterator[np.random.SeedSequence]


def sign(seed: Any) -> TrainingLayer:
    return Sign()


@dataclass(frozen=True)
class Blocks:
    """Layers that a network is built of.

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
    activation: Callable[[Any], TrainingLayer] = sign
    last_norm: Make = BatchNorm


def mlp(blocks: Blocks, job: Job, *, input_dropout: float = 0.0) -> Sequential:
    """Build hidden layers of one width: dense -> norm -> activation (-> Dropout), dense -> norm.

    Dense layers have no bias, which the norm behind them would subtract again. The dropout of the
    inputs is a multiple of that of hidden layers.
    """
    data, plan, seeds = job.data, job.plan, seed_stream(job.seed)
    features = int(np.prod(data.image_shape))
    layers: list[TrainingLayer] = []
    if input_dropout * plan.dropout:
        layers.append(Dropout(input_dropout * plan.dropout, seed=next(seeds)))
    for _ in range(plan.depth):
        layers += _hidden(blocks, features, plan.width, seeds)
        if plan.dropout:
            layers.append(Dropout(plan.dropout, seed=next(seeds)))
        features = plan.width
    layers += _last(blocks, features, data.classes, seeds)
    return Sequential(layers, input_shape=(int(np.prod(data.image_shape)),))


def convnet(blocks: Blocks, job: Job, *, units: int) -> Sequential:
    """Build three stages of two convolutions 3x3, the second pooled before its norm; then dense.

    The stages have `plan.width` channels, twice and four times as many. Two hidden dense layers
    have `units` times as many.
    """
    data, width, seeds = job.data, job.plan.width, seed_stream(job.seed)
    layers: list[TrainingLayer] = []
    inputs = data.image_shape[2]
    for channels in (width, 2 * width, 4 * width):
        for pools in (False, True):
            layers.append(blocks.conv(inputs, channels, 3, padding=1, seed=next(seeds)))
            if pools:
                layers.append(MaxPool2D(2))
            layers += [blocks.norm(channels), blocks.activation(next(seeds))]
            inputs = channels
    layers.append(Flatten())
    features = features_of(layers, data.image_shape)
    for _ in range(2):
        layers += _hidden(blocks, features, units * width, seeds)
        features = units * width
    layers += _last(blocks, features, data.classes, seeds)
    return Sequential(layers, input_shape=data.image_shape)


def _hidden(blocks: Blocks, inputs: int, outputs: int, seeds: Seeds) -> list[TrainingLayer]:
    dense = blocks.dense(inputs, outputs, seed=next(seeds))
    return [dense, blocks.norm(outputs), blocks.activation(next(seeds))]


def _last(blocks: Blocks, inputs: int, outputs: int, seeds: Seeds) -> list[TrainingLayer]:
    return [blocks.dense(inputs, outputs, seed=next(seeds)), blocks.last_norm(outputs)]


def images_of(data: Dataset) -> tuple[int, ...]:
    """Return height, width and channels of the images; grey ones have one channel."""
    return data.image_shape if len(data.image_shape) == 3 else (*data.image_shape, 1)
