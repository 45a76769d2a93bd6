"""Networks ready to train."""

from __future__ import annotations

import numpy as np

from .layers import BatchNorm, BinaryDense, Dropout, Sequential, Sign
from .layers.base import TrainingLayer


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
    """Multi-layer perceptron with binary weights and activations in every layer.

    Parameters
    ----------
    in_features, hidden, classes : int
        Numbers of inputs, of units in each hidden layer, and of scores.
    depth : int
        Number of hidden layers.
    dropout, input_dropout : float
        Rates behind each hidden activation, and on the input. Tens of epochs want none.
    seed : int or SeedSequence, optional
        Source of start weights and dropout masks.

    Returns
    -------
    Sequential
        depth x [BinaryDense -> BatchNorm -> Sign (-> Dropout)] -> BinaryDense -> BatchNorm.

    References
    ----------
    Courbariaux, Hubara et al., "Binarized Neural Networks", 2016, section 2.1 (their MNIST network
    has three hidden layers of 4096 units and dropout).
    """
    if depth < 0:
        raise ValueError(f"[mlp] depth must be >= 0, got {depth}")
    seeds = iter(np.random.SeedSequence(seed).spawn(2 * depth + 2))
    layers: list[TrainingLayer] = []
    if input_dropout:
        layers.append(Dropout(input_dropout, seed=next(seeds)))
    features = in_features
    for _ in range(depth):
        layers += [BinaryDense(features, hidden, seed=next(seeds)), BatchNorm(hidden), Sign()]
        if dropout:
            layers.append(Dropout(dropout, seed=next(seeds)))
        features = hidden
    layers += [BinaryDense(features, classes, seed=next(seeds)), BatchNorm(classes)]
    return Sequential(layers)
