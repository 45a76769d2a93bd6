"""Runs a recipe: its stages one after the other, each on the network of the one before."""

from __future__ import annotations

from dataclasses import dataclass, replace

from ..layers import Sequential
from ..training.callbacks import Epoch, History
from .base import Job, Setting

__all__ = ["Trained", "train"]


@dataclass(frozen=True)
class Trained:
    """The network of the last stage, and how each stage went.

    The network has the weights of the epoch with the smallest validation error.
    """

    model: Sequential
    histories: tuple[History, ...]

    @property
    def best(self) -> Epoch:
        """The epoch of the last stage whose weights these are."""
        best = self.histories[-1].best
        assert best is not None  # given a validation set, fit always keeps one
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
    """
    stages, model, histories = setting.stages, job.previous, []
    for number, stage in enumerate(stages, 1):
        if len(stages) > 1:
            job.say(f"stage    {number} of {len(stages)}: {stage.name}")
        files = job.files.of_stage(number, len(stages))
        model, history = stage.train(replace(job, previous=model, files=files))
        histories.append(history)
    assert model is not None  # every setting has a stage
    return Trained(model, tuple(histories))
