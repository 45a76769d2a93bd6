"""Optimizers, schedules and activations, as stages and nets of several recipes build them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np

from ..layers import ReLU, Sequential, Tanh, TrainingLayer
from ..training.losses import cross_entropy
from ..training.optim import Adam, Optimizer
from ..training.schedules import (
    CosineDecay,
    ExponentialDecay,
    Halving,
    Schedule,
    StepDecay,
    Stretched,
    Warmup,
)

__all__ = [
    "adam",
    "exponential",
    "halved",
    "relu",
    "smoothed_cross_entropy",
    "steps",
    "tanh",
    "warm_cosine",
]

SMOOTHING = 0.1  # share of the targets that goes to all classes alike


def adam(model: Sequential, lr: float, *, l2: float = 0.0) -> Optimizer:
    """Make an Adam; binary layers bring the scale of their rate and the clip of their weights."""
    return Adam(model.parameters(), lr, l2=l2)


def exponential(final_share: float) -> Callable[[float], Schedule]:
    """Let the rate fall to a share of the first one by the end of the run."""

    return partial(_exponential, final_share)


def _exponential(final_share: float, lr: float) -> Schedule:
    return ExponentialDecay(lr, lr * final_share)


def halved(every: int, epochs: int) -> Callable[[float], Schedule]:
    """Halve the rate every so many of a number of epochs."""

    return partial(_halved, every, epochs)


def _halved(every: int, epochs: int, lr: float) -> Schedule:
    return Stretched(Halving(lr, every), epochs)


def steps(*boundaries: int, epochs: int) -> Callable[[float], Schedule]:
    """Divide the rate by 10 at some of a number of epochs."""

    return partial(_steps, boundaries, epochs)


def _steps(boundaries: tuple[int, ...], epochs: int, lr: float) -> Schedule:
    return Stretched(StepDecay(lr, boundaries), epochs)


def warm_cosine(lr: float) -> Schedule:
    """Take half the rate in the first epoch, then let it fall along half a cosine."""
    return Warmup(CosineDecay(lr), 1)


def smoothed_cross_entropy(scores: np.ndarray, labels: np.ndarray) -> tuple[float, np.ndarray]:
    """Compute the mean cross-entropy against targets of which all classes get a small share."""
    value, grad = cross_entropy(scores, labels)
    n, classes = scores.shape
    # what the labels lose, and what all classes gain; its sum over the classes is 0
    shift = np.full((n, classes), -SMOOTHING / classes, np.float32)
    shift[np.arange(n), labels] += np.float32(SMOOTHING)
    return value + float(np.vdot(shift, scores)) / n, grad + shift / np.float32(n)


def relu(seed) -> TrainingLayer:
    return ReLU()


def tanh(seed) -> TrainingLayer:
    return Tanh()
