"""Optimizers, schedules and activations, as stages and nets of several recipes build them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from ..layers import ReLU, Sequential, Tanh, TrainingLayer
from ..training.optim import Adam, Optimizer
from ..training.schedules import (
    ExponentialDecay,
    Halving,
    OneCycle,
    Schedule,
    StepDecay,
    Stretched,
)

__all__ = [
    "adam",
    "exponential",
    "halved",
    "one_cycle",
    "relu",
    "steps",
    "tanh",
]


def adam(model: Sequential, lr: float, *, l2: float = 0.0, **state: int) -> Optimizer:
    """Make an Adam; binary layers bring the scale of their rate and the clip of their weights."""
    return Adam(model.parameters(), lr, l2=l2, **state)


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


def one_cycle(lr: float) -> Schedule:
    """Let the rate rise in a tenth of the steps, then fall to 0, along halves of cosines."""
    return OneCycle(lr, warmup=0.1, final=0)


def relu(seed) -> TrainingLayer:
    return ReLU()


def tanh(seed) -> TrainingLayer:
    return Tanh()
