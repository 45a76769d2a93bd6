"""The options of `fit`: checked before any work, and with names that stand for what they name."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..layers.base import Layer
from ..layers.container import check_layers
from ..layers.inputs import as_labels, as_rows
from ..ops.checks import check_rate
from .callbacks import Augment, Callback, Data, Loss, Trainable
from .losses import cross_entropy, hinge, squared_hinge
from .optim import SGD, Adam, AdaMax, Bop, Optimizer, ShiftAdaMax
from .schedules import CosineDecay, ExponentialDecay, Halving, Schedule, StepDecay

__all__ = [
    "LOSSES",
    "OPTIMIZERS",
    "SCHEDULES",
    "as_augment",
    "as_callbacks",
    "as_data",
    "as_loss",
    "as_optimizer",
    "as_schedule",
    "as_validation",
    "check_resume",
    "describe_seed",
]

_START = ExponentialDecay.start
_FALL = ExponentialDecay.final / ExponentialDecay.start

OPTIMIZERS: dict[str, type[Optimizer]] = {
    "adam": Adam,
    "adamax": AdaMax,
    "bop": Bop,
    "sgd": SGD,
    "shift_adamax": ShiftAdaMax,
}

LOSSES: dict[str, Loss] = {
    "cross_entropy": cross_entropy,
    "hinge": hinge,
    "squared_hinge": squared_hinge,
}

# Each is made for the rate to start from.
SCHEDULES: dict[str, Any] = {
    "constant": lambda rate: StepDecay(rate, ()),
    "cosine_decay": CosineDecay,
    "exponential_decay": lambda rate: ExponentialDecay(rate, rate * _FALL),
    "halving": Halving,
}


def _named(option: str, kinds: str, known: dict[str, Any], name: str) -> Any:
    """Return what a name stands for."""
    if name not in known:
        names = ", ".join(map(repr, known))
        raise ValueError(f"[fit] {option} must be {kinds} or one of {names}, got {name!r:.80}")
    return known[name]


def as_optimizer(model: Trainable, optimizer: Any) -> Optimizer:
    """Return an optimizer of the model's parameters: the one given or named, or else an Adam."""
    if optimizer is None:
        optimizer = "adam"
    if isinstance(optimizer, str):
        return _named("optimizer", "an Optimizer", OPTIMIZERS, optimizer)(model.parameters())
    if not isinstance(optimizer, Optimizer):
        raise TypeError(f"[fit] optimizer must be an Optimizer or a name, got {optimizer!r:.80}")
    own = {id(parameter) for parameter in model.parameters()}
    if not {id(parameter) for parameter in optimizer.parameters} <= own:
        raise ValueError(
            f"[fit] optimizer must be one of the model's parameters, got {optimizer!r} with others"
        )
    return optimizer


def as_schedule(schedule: Any, given: Optimizer | None) -> Schedule | None:
    """Return a schedule; None if an optimizer was given, and no schedule: it keeps its rate."""
    start = _START if given is None else given.lr
    if schedule is None:
        return ExponentialDecay() if given is None else None
    if isinstance(schedule, str):
        return _named("schedule", "a callable, a rate", SCHEDULES, schedule)(start)
    if callable(schedule):
        return schedule
    return SCHEDULES["constant"](check_rate("fit", "schedule", schedule))


def as_loss(loss: Any) -> Loss:
    """Return a loss, given or named."""
    if isinstance(loss, str):
        return _named("loss", "a callable", LOSSES, loss)
    if not callable(loss):
        raise TypeError(f"[fit] loss must be a callable or a name, got {loss!r:.80}")
    return loss


def as_augment(augment: Any) -> Augment | None:
    """Check a function that changes rows."""
    if augment is not None and not callable(augment):
        raise TypeError(f"[fit] augment must be a callable or None, got {augment!r:.80}")
    return augment


def as_callbacks(callbacks: Callback | Sequence[Callback]) -> list[Callback]:
    """Return a list of callbacks, given as one or several."""
    if isinstance(callbacks, Callback):
        return [callbacks]
    try:
        several = list(callbacks)
    except TypeError:
        several = [callbacks]  # type: ignore[list-item]
    for callback in several:
        if not isinstance(callback, Callback):
            raise TypeError(f"[fit] callbacks must be Callback objects, got {callback!r:.80}")
    return several


def as_data(model: Trainable, x, y, *, what: str = "", may_change: bool = False) -> Data:
    """Check rows, at least one, and their labels against each other and against the model.

    Parameters
    ----------
    model : Trainable
    x, y
        As in `fit`.
    what : str
        Comes before the names of the two in error messages.
    may_change : bool
        Whether rows change their shape before they reach the model.
    """
    x = as_rows("fit", f"{what}x", x)
    if x.ndim < 2 or not len(x):
        raise ValueError(f"[fit] {what}x must have shape (n, features), n >= 1, got {x.shape}")
    y = as_labels("fit", f"{what}y", y, rows=len(x), classes=model.out_features)
    if not may_change:
        try:
            check_layers("fit", model.flat_layers(), Layer, x.shape[1:])
        except ValueError as error:
            got = f"[fit] {what}x must have the shape that the model takes, got {x.shape}"
            raise ValueError(f"{got}: {error}") from None
    return x, y


def as_validation(model: Trainable, validation: Any) -> Data | None:
    """Check a pair (x, y) of validation data; None stays None."""
    if validation is None:
        return None
    if not isinstance(validation, tuple | list) or len(validation) != 2:
        count = f" of {len(validation)}" if isinstance(validation, tuple | list) else ""
        raise TypeError(
            f"[fit] validation must be a pair (x, y), got a {type(validation).__name__}{count}"
        )
    return as_data(model, *validation, what="validation ")


def check_resume(path: Any) -> None:
    """Refuse what is no path."""
    if path is not None and not isinstance(path, str | os.PathLike):
        raise TypeError(f"[fit] resume must be a path, got {path!r:.80}")


def describe_seed(seed: Any, rng: np.random.Generator) -> str:
    """Put the seed into words that are the same for the same start."""
    if isinstance(seed, int | np.integer):
        return str(int(seed))
    if isinstance(seed, np.random.SeedSequence):
        return f"SeedSequence({seed.entropy}, spawn_key={seed.spawn_key})"
    return "None" if seed is None else str(rng.bit_generator.state)
