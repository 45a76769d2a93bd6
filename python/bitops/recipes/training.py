"""Runs a recipe: its stages one after the other, each on the model of the one before."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ..data.datasets import Dataset
from ..layers import Sequential
from ..training.callbacks import History
from .base import Files, Plan, Setting


@dataclass(frozen=True)
class Trained:
    """The network of the last stage, and how each stage went."""

    model: Sequential
    histories: tuple[History, ...]

    @property
    def seconds(self) -> float:
        return sum(history.seconds for history in self.histories)


def train(
    setting: Setting,
    data: Dataset,
    plan: Plan,
    *,
    seed: int = 0,
    verbose: int = 0,
    files: Files | None = None,
    say: Callable[[str], object] = lambda line: None,
) -> Trained:
    """Train the network of a recipe.

    Parameters
    ----------
    setting : Setting
    data : Dataset
        Its images as `preprocess` made them for the setting.
    plan : Plan
    seed : int
        Of start weights, dropout and the order of the images.
    verbose : int
        As for `fit`.
    files : Files, optional
    say : callable (str)
        Is given lines about each stage and its network.

    Returns
    -------
    Trained
        The model holds the weights of the epoch with the smallest validation error.
    """
    files = files or Files()
    model: Sequential | None = None
    histories = []
    for number, stage in enumerate(setting.stages, 1):
        if len(setting.stages) > 1:
            say(f"stage    {number} of {len(setting.stages)}: {stage.name}")
        own = files.of_stage(number, len(setting.stages))
        model, history = stage.train(data, plan, seed, model, own, verbose, say)
        histories.append(history)
    assert model is not None  # every setting has a stage
    return Trained(model, tuple(histories))
