"""Runs a recipe: its stages one after the other, each on the network of the one before."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from itertools import repeat

from ..layers import Sequential
from ..training.run import Epoch, History
from ..training.schedules import goes_by_step
from .base import Files, Job, Setting, Stage, Training, say_nothing

__all__ = ["Trained", "epoch_seconds", "train"]

FEW_STEPS = 3
EPOCHS_BY_STEP = 9  # that are measured where steps differ, so that they are mixed as in a training
LEAST_SECONDS = 3.0  # of the steps that are measured


@dataclass(frozen=True)
class Trained:
    """The network of the last stage, and how each stage went.

    The network has the weights of the epoch with the smallest validation error, or without
    validation images those of the last one.
    """

    model: Sequential
    histories: tuple[History, ...]

    @property
    def best(self) -> Epoch:
        """The epoch of the last stage whose weights these are."""
        best = self.histories[-1].best
        assert best is not None  # without a validation set it is the last one
        return best

    @property
    def seconds(self) -> float:
        return sum(history.seconds for history in self.histories)


def train(setting: Setting, job: Job) -> Trained:
    """Train the network of a recipe, stage by stage.

    Parameters
    ----------
    setting : Setting
    job : Job
        That of the first stage; its images must be as `preprocess` makes them for the setting.

    Returns
    -------
    Trained

    Raises
    ------
    ValueError
        If one of the stages cannot follow the plan, or the first one cannot start from a
        checkpoint; then none has begun.
    """
    for name, why in setting.refused(job.plan, job.data.image_shape).items():
        raise ValueError(f"[train] {name} cannot be {getattr(job.plan, name)!r}: {why}")
    stages, model, histories = setting.stages, job.previous, []
    for number, stage in enumerate(stages, 1):
        if len(stages) > 1:
            job.say(f"stage    {number} of {len(stages)}: {stage.name}")
        files = job.files.of_stage(number, len(stages))
        start = job.start if number == 1 else None
        model, history = stage.train(replace(job, previous=model, start=start, files=files))
        histories.append(history)
    assert model is not None  # every setting has a stage
    return Trained(model, tuple(histories))


def epoch_seconds(setting: Setting, job: Job) -> float:
    """Estimate how long an epoch of every stage takes together, from a few steps of each.

    Nothing of the job changes. What callbacks take, such as writing a checkpoint, is not measured.
    """
    rows = len(job.data.y_train)
    batch = job.plan.within(rows).batch_size
    steps, all_steps = min(FEW_STEPS, rows // batch), rows // batch
    seconds = _measure(setting, job, batch * steps)
    if seconds < LEAST_SECONDS and steps < all_steps:
        steps = min(all_steps, math.ceil(steps * LEAST_SECONDS / max(seconds, 1e-3)))
        seconds = _measure(setting, job, batch * steps)
    return seconds * all_steps / steps


def _measure(setting: Setting, job: Job, rows: int) -> float:
    """Return the time of an epoch over some of the rows, and of as large a part of the others."""
    data = job.data
    checked = max(1, len(data.y_validation) * rows // len(data.y_train))
    calibrated = -(-job.plan.recalibrate * rows // len(data.y_train))
    calibrated = max(calibrated, min(job.plan.recalibrate, 2))  # of one there is no variance
    part = replace(
        data,
        x_train=data.x_train[:rows],
        y_train=data.y_train[:rows],
        x_validation=data.x_validation[:checked],
        y_validation=data.y_validation[:checked],
        x_test=data.x_test[:1],
        y_test=data.y_test[:1],
    )
    # the first epoch also starts threads and takes memory
    epochs = 1 + (EPOCHS_BY_STEP if any(map(_goes_by_step, setting.stages, repeat(job))) else 1)
    plan = replace(job.plan, epochs=epochs, recalibrate=calibrated)
    trial = replace(
        job,
        data=part,
        plan=plan,
        start=None,
        lessons=job.lessons and job.lessons.first(rows, checked),
        files=Files(),
        verbose=0,
        say=say_nothing,
        callbacks=(),
    )
    histories = train(setting, trial).histories
    return sum(
        sum(epoch.seconds for epoch in history.epochs[1:]) / (epochs - 1) for history in histories
    )


def _goes_by_step(stage: Training, job: Job) -> bool:
    """Return whether the images of a stage, and so the time of a step, change on the way."""
    return isinstance(stage, Stage) and goes_by_step(stage.augmentation(job))
