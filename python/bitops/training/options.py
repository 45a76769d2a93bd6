"""The options of `fit`: checked before any work, and with names that stand for what they name."""

from __future__ import annotations

import copy
import inspect
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, NamedTuple

import numpy as np

from ..layers.base import Layer, all_layers, check_least_rows
from ..layers.container import check_layers
from ..layers.inputs import Activation, as_rows
from ..layers.norm import BatchNorm
from ..ops.array import BitArray
from ..ops.checks import as_float32, check_integer, check_rate
from ..ops.warn import warn_caller
from .callbacks import Callback
from .losses import (
    Distillation,
    Huber,
    binary_cross_entropy,
    cross_entropy,
    hinge,
    mae,
    mse,
    squared_hinge,
)
from .optim import SGD, Adam, AdaMax, Bop, Optimizer, ShiftAdaMax
from .run import Augment, Data, Epoch, Loss, Trainable
from .schedules import CosineDecay, ExponentialDecay, Halving, OneCycle, Schedule, StepDecay
from .scores import METRICS, Metric, metric_named, needs_classes
from .streams import Batch, Stream
from .targets import Targets, as_sample_weight, check_any_weight, labels_of, targets_of

__all__ = [
    "LOSSES",
    "OPTIMIZERS",
    "SCHEDULES",
    "Source",
    "Sources",
    "as_augment",
    "as_callbacks",
    "as_data",
    "as_loss",
    "as_metrics",
    "as_optimizer",
    "as_rate",
    "as_schedule",
    "as_targets",
    "as_validation",
    "check_resume",
    "check_source",
    "describe_seed",
    "warn_of_frozen",
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
    "binary_cross_entropy": binary_cross_entropy,
    "cross_entropy": cross_entropy,
    "distillation": Distillation(),
    "hinge": hinge,
    "huber": Huber(),
    "mae": mae,
    "mse": mse,
    "squared_hinge": squared_hinge,
}

# Each is made for the rate to start from.
SCHEDULES: dict[str, Any] = {
    "constant": lambda rate: StepDecay(rate, ()),
    "cosine_decay": CosineDecay,
    "exponential_decay": lambda rate: ExponentialDecay(rate, rate * _FALL),
    "halving": Halving,
    "one_cycle": OneCycle,
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
    return SCHEDULES["constant"](as_rate("schedule", schedule))


def as_rate(name: str, rate: Any) -> float:
    """Return a learning rate, which may be 0, or an array that is a single number."""
    number = rate[()] if isinstance(rate, np.ndarray) and rate.ndim == 0 else rate
    return check_rate("fit", name, number, zero=True)


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


def as_targets(loss: Loss, y: Any, validation: Any) -> Targets:
    """Return what a loss takes; one that does not say so, what y or the validation data hold."""
    if y is None and isinstance(validation, tuple | list) and len(validation) == 2:
        y = validation[1]
    return targets_of(loss, y)


def as_metrics(metrics: Any, validation: Any, targets: Targets) -> dict[str, Metric]:
    """Return measures of validation data, given or named, by the names that their values get."""
    found: dict[str, Metric] = {}
    own = {field.name for field in fields(Epoch)}
    is_one = isinstance(metrics, str) or callable(metrics) or not isinstance(metrics, Iterable)
    for metric in [metrics] if is_one else metrics:
        name = metric if isinstance(metric, str) else getattr(metric, "__name__", None)
        function = metric_named(metric) if isinstance(metric, str) else metric
        if not callable(function) or not name:
            names = ", ".join([*map(repr, METRICS), "'top_5_accuracy'"])
            raise ValueError(
                f"[fit] metrics must be functions or of {names}, with any number for 5, "
                f"got {metric!r:.80}"
            )
        value = f"validation_{name}"  # its name among the results of an epoch
        if value in own:
            raise ValueError(
                f"[fit] metrics must not have the names of fit's own numbers, got {name!r:.80}, "
                f"which would be {value}"
            )
        if value in found:
            raise ValueError(
                f"[fit] metrics must have names of their own, got two of the name {name!r:.80}"
            )
        if needs_classes(function) and not targets.has_classes:
            raise ValueError(
                f"[fit] metrics must suit the targets, which name no classes here, got {name!r:.80}"
            )
        found[value] = function
    if found and validation is None:
        raise ValueError(
            f"[fit] validation must be given for metrics, got None for {metrics!r:.80}"
        )
    return found


def as_data(
    model: Trainable, targets: Targets, x, y, *, what: str = "", may_change: bool = False
) -> Data:
    """Check rows, at least one, and their targets against each other and against the model.

    Parameters
    ----------
    model : Trainable
    targets : Targets
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
    y = targets.check("fit", f"{what}y", y, len(x), model.out_features)
    if not may_change:
        _check_shape(model, what, x)
    return x, y


def _check_shape(model: Trainable, what: str, x: Activation) -> None:
    try:
        check_layers("fit", model.flat_layers(), Layer, x.shape[1:])
    except ValueError as error:
        got = f"[fit] {what}x must have the shape that the model takes, got {x.shape}"
        raise ValueError(f"{got}: {error}") from None


class Source(NamedTuple):
    """Where the batches of a training come from: rows, with their weights, or an iterable."""

    data: Data | None = None
    weight: np.ndarray | None = None
    stream: Stream | None = None
    class_weight: Any = None  # of the batches of the stream


@dataclass(frozen=True)
class Sources:
    """Makes the source of a training from what `fit` was given, and checks it.

    Parameters
    ----------
    model : Trainable
    loss : callable
    targets : Targets
    class_weight, accumulate
        As in `fit`.
    may_change : bool
        Whether rows change their shape before they reach the model.
    """

    model: Trainable
    loss: Any
    targets: Targets
    class_weight: Any
    accumulate: int
    may_change: bool

    def of_rows(self, x, y, sample_weight: Any, batch_size: int) -> Source:
        """Check rows with their targets and weights."""
        x, y = as_data(self.model, self.targets, x, y, may_change=self.may_change)
        self._check_rows(x, min(batch_size, len(y)))
        weight = self._weight(y, sample_weight)
        if weight is not None:
            check_any_weight("fit", weight)
        return Source((x, y), weight)

    def of_batches(self, batches: Any, steps: Any, prefetch: int) -> Source:
        """Return the batches of an iterable, each of which is checked when it comes."""
        if isinstance(batches, np.ndarray | BitArray) or not isinstance(batches, Iterable):
            raise TypeError(
                f"[fit] x must be rows, with y, or an iterable of batches (x, y), "
                f"got {batches!r:.80} alone"
            )
        if isinstance(self.class_weight, str):
            raise ValueError(
                f"[fit] class_weight must be an array or a mapping for batches, whose classes are "
                f"not known beforehand, got {self.class_weight!r:.80}"
            )
        steps = _count_steps(batches) if steps is None else steps
        steps = check_integer("fit", "steps_per_epoch", steps, 1)
        # as they are now, for the batches of all epochs
        weight = copy.deepcopy(self.class_weight)
        if weight is not None:
            check_weighing(self.loss)
            self._check_classes()
            if self.model.out_features is not None:
                weight = _of_classes(np.zeros(0, np.int64), weight, self.model.out_features)
        own = replace(self, class_weight=weight)
        stream = Stream(batches, steps, prefetch, own._batch)
        return Source(stream=stream, class_weight=weight)

    def _batch(self, given: Any) -> Batch:
        if not isinstance(given, tuple | list) or len(given) not in (2, 3):
            raise TypeError(
                f"[fit] batches must be (x, y) or (x, y, weight), got {type(given).__name__}"
            )
        x, y, *weight = given
        x, y = as_data(self.model, self.targets, x, y, what="batch ", may_change=self.may_change)
        self._check_rows(x, len(x))
        return Batch(x, y, self._weight(y, weight[0] if weight else None))

    def _check_rows(self, x: Activation, rows: int) -> None:
        if rows < self.accumulate:
            raise ValueError(
                f"[fit] accumulate must be at most the {rows} rows of a step, got {self.accumulate}"
            )
        if not self.may_change:
            each = rows // self.accumulate
            check_least_rows("fit", self.model.flat_layers(), x.shape[1:], each)

    def _weight(self, y: np.ndarray, sample_weight: Any) -> np.ndarray | None:
        """Return the weight of each row, that of its class included; None if none are given."""
        weight = None
        if sample_weight is not None or self.class_weight is not None:
            check_weighing(self.loss)
        if sample_weight is not None:
            weight = as_sample_weight("fit", "sample_weight", sample_weight, len(y))
        if self.class_weight is None:
            return weight
        self._check_classes()
        labels = labels_of(y)
        of_rows = _of_classes(labels, self.class_weight, self.model.out_features)[labels]
        return of_rows if weight is None else weight * of_rows

    def _check_classes(self) -> None:
        if not self.targets.has_classes:
            raise ValueError(
                f"[fit] class_weight must be None for targets without classes, "
                f"got {self.class_weight!r:.80}"
            )


def check_source(
    model: Trainable, source: Source, sample_weight: Any, steps_per_epoch: Any, recalibrate: int
) -> None:
    """Refuse options of rows with batches, options of batches with rows, and one of some models."""
    norms = (layer for layer in all_layers(model.flat_layers()) if isinstance(layer, BatchNorm))
    if recalibrate and not any(norms):
        raise ValueError(
            f"[fit] recalibrate must be 0 for a model without BatchNorm, got {recalibrate}"
        )
    if source.data is None and sample_weight is not None:
        raise ValueError("[fit] sample_weight must come with each batch, got one for all")
    if source.data is None and recalibrate:
        raise ValueError(
            f"[fit] recalibrate must be 0 for batches of an iterable, got {recalibrate}; the "
            f"function bitops.training.recalibrate takes rows"
        )
    if source.data is not None and steps_per_epoch is not None:
        raise ValueError(f"[fit] steps_per_epoch must be None with rows, got {steps_per_epoch!r}")


def warn_of_frozen(model: Trainable) -> None:
    """Warn of a model whose parameters are all frozen; a callback may be about to change that."""
    parameters = model.parameters()
    if parameters and not any(parameter.trainable for parameter in parameters):
        warn_caller("[fit] no parameter of the model is trainable")


def check_weighing(loss: Any) -> None:
    """Refuse a loss that takes no weights of rows."""
    try:
        takes_weights = "sample_weight" in inspect.signature(loss).parameters
    except (TypeError, ValueError):  # some functions in C have no signature
        takes_weights = False
    if not takes_weights:
        raise TypeError(
            f"[fit] loss must take (scores, targets, sample_weight) to weigh rows, got {loss!r:.80}"
        )


def _count_steps(batches: Any) -> int:
    try:
        return len(batches)
    except TypeError:
        raise TypeError(
            f"[fit] steps_per_epoch must be given for batches without a length, got None for "
            f"{batches!r:.80}"
        ) from None


def _of_classes(labels: np.ndarray, class_weight: Any, classes: int | None) -> np.ndarray:
    """Return a weight for each class."""
    count = int(labels.max(initial=-1)) + 1 if classes is None else classes
    if isinstance(class_weight, str):
        if class_weight != "balanced":
            raise ValueError(
                f"[fit] class_weight must be 'balanced', an array or a mapping, "
                f"got {class_weight!r:.80}"
            )
        rows = np.bincount(labels.astype(np.int64), minlength=count)
        return as_float32(len(labels) / (count * np.maximum(rows, 1)))
    if isinstance(class_weight, Mapping):
        weights = np.ones(count)
        for label, value in class_weight.items():
            label = check_integer("fit", "classes of class_weight", label, 0, count - 1)
            weights[label] = check_rate("fit", "class_weight", value, zero=True)
        class_weight = weights
    weights = as_sample_weight("fit", "class_weight", class_weight, count)
    if not weights.any():
        raise ValueError("[fit] class_weight must be above 0 for some of the classes, got all 0")
    return weights


def as_validation(model: Trainable, targets: Targets, validation: Any) -> Data | None:
    """Check a pair (x, y) of validation data; None stays None."""
    if validation is None:
        return None
    if not isinstance(validation, tuple | list) or len(validation) != 2:
        count = f" of {len(validation)}" if isinstance(validation, tuple | list) else ""
        raise TypeError(
            f"[fit] validation must be a pair (x, y), got a {type(validation).__name__}{count}"
        )
    return as_data(model, targets, *validation, what="validation ")


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
