"""Networks that are binary in every layer: perceptrons, and BinaryNet's ConvNet."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

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
from ..ops.checks import check_integer
from .common import Layers, features_of, image_channels, scaled, seed_stream


def mlp(
    in_features: int,
    hidden: int = 1024,
    depth: int = 3,
    classes: int = 10,
    *,
    dropout: float = 0.0,
    input_dropout: float = 0.0,
    seed=None,
) -> Sequential:
    """Build a multi-layer perceptron with binary weights and activations in every layer.

    Parameters
    ----------
    in_features, hidden, classes : int
        Numbers of inputs, of units in each hidden layer, and of scores.
    depth : int
        Number of hidden layers.
    dropout, input_dropout : float
        Dropout rates after each hidden activation, and on the input. Short trainings do best with
        0.
    seed : int or SeedSequence, optional
        Source of initial weights and dropout masks.

    Returns
    -------
    Sequential
        depth x [BinaryDense -> BatchNorm -> Sign (-> Dropout)] -> BinaryDense -> BatchNorm.

    References
    ----------
    Courbariaux, Hubara et al., "Binarized Neural Networks", 2016, section 2.1. Their MNIST network
    has three hidden layers of 4096 units, and dropout.

    Examples
    --------
    >>> model = mlp(784, hidden=64, depth=2, classes=10, seed=0)
    >>> model(np.zeros((1, 784), np.float32)).shape
    (1, 10)
    """
    depth = check_integer("mlp", "depth", depth, 0)
    seeds = seed_stream(seed)
    layers: Layers = []
    if input_dropout:
        layers.append(Dropout(input_dropout, seed=next(seeds)))
    features = in_features
    for _ in range(depth):
        layers += _binary_dense(features, hidden, seed=next(seeds))
        if dropout:
            layers.append(Dropout(dropout, seed=next(seeds)))
        features = hidden
    layers += [BinaryDense(features, classes, seed=next(seeds)), BatchNorm(classes)]
    return Sequential(layers, input_shape=(in_features,))


def binarynet(
    image_shape: Sequence[int] = (32, 32, 3),
    classes: int = 10,
    *,
    width: float = 1.0,
    seed=None,
) -> Sequential:
    """Build BinaryNet's ConvNet: every layer, even the first, has binary weights.

    Parameters
    ----------
    image_shape : (height, width, channels)
        The input is images ``(n, *image_shape)`` of raw uint8. The products of the first layer are
        exact, and the BatchNorm after it normalises scale and offset. Padding is 0, black.
    classes : int
        Number of scores.
    width : float
        Multiplies the channels of the convolutions and the units of the dense layers.
    seed : int or SeedSequence, optional
        Source of initial weights.

    Returns
    -------
    Sequential
        Three stages of 128, 256 and 512 channels: BinaryConv2D 3x3, padding 1 -> BatchNorm -> Sign
        -> BinaryConv2D 3x3, padding 1 -> MaxPool2D 2 -> BatchNorm -> Sign. Then Flatten ->
        2 x [BinaryDense 1024 -> BatchNorm -> Sign] -> BinaryDense -> BatchNorm.

    References
    ----------
    Courbariaux, Hubara et al., "Binarized Neural Networks", 2016, section 2.2, the network for
    CIFAR-10. The order of the layers follows the code released with it.

    Examples
    --------
    >>> model = binarynet(width=0.125, seed=0)
    >>> model(np.zeros((1, 32, 32, 3), np.uint8)).shape
    (1, 10)
    """
    seeds = seed_stream(seed)
    layers: Layers = []
    inputs = image_channels("binarynet", image_shape)
    *stages, hidden = scaled("binarynet", (128, 256, 512, 1024), width)
    for outputs in stages:
        layers += [
            BinaryConv2D(inputs, outputs, 3, padding=1, seed=next(seeds)),
            BatchNorm(outputs),
            Sign(),
            BinaryConv2D(outputs, outputs, 3, padding=1, seed=next(seeds)),
            MaxPool2D(2),
            BatchNorm(outputs),
            Sign(),
        ]
        inputs = outputs
    layers.append(Flatten())
    features = features_of(layers, image_shape)
    for _ in range(2):
        layers += _binary_dense(features, hidden, seed=next(seeds))
        features = hidden
    layers += [BinaryDense(features, classes, seed=next(seeds)), BatchNorm(classes)]
    return Sequential(layers, input_shape=tuple(image_shape))


def _binary_dense(inputs: int, outputs: int, *, seed: np.random.SeedSequence) -> Layers:
    """Build BinaryDense -> BatchNorm -> Sign."""
    return [BinaryDense(inputs, outputs, seed=seed), BatchNorm(outputs), Sign()]
