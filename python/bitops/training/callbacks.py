"""Callbacks: their protocol, early stopping and annealing."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from ..layers.base import holders, named_layers
from ..ops.checks import check_integer, check_rate
from .run import Epoch, History, Run, as_monitor, check_monitor

__all__ = [
    "Annealing",
    "Callback",
    "EarlyStopping",
    "Epoch",  # for pickles of it, which named this module once
    "History",  # likewise
    "Writer",
    "check_files",
]


class Callback:
    """Functions that `fit` calls as it goes, each with the `Run`; by default they do nothing.

    Examples
    --------
    >>> class StopAtZero(Callback):
    ...     def on_epoch(self, run):
    ...         run.stop = run.history.epochs[-1].train_error == 0
    >>> model.fit(x, y, callbacks=[StopAtZero()])                        # doctest: +SKIP
    """

    def settings(self) -> dict[str, str]:
        """Return what must be equal in a training that resumes from a checkpoint, in words.

        It is for callbacks that change the result; by default there is nothing of this kind.
        """
        return {}

    def check(self, run: Run) -> None:
        """Called before any callback's `on_start`: raise an error if the training must not begin.

        It changes nothing, neither the run nor a file, so that a training that is refused leaves
        all files as they were. One that resumes has taken the checkpoint's values by then.
        """

    def on_start(self, run: Run) -> None:
        """Called before the first step; a resumed run then holds what the checkpoint held."""

    def on_batch(self, run: Run) -> None:
        """Called after every step."""

    def on_epoch(self, run: Run) -> None:
        """Called after every epoch, which is then the last of `run.history`."""

    def on_end(self, run: Run) -> None:
        """Called after the last step, even one that `stop` or Ctrl-C made the last.

        After an error it is not called. The model still holds its last weights, not those of the
        best epoch.
        """


class Writer(Callback):
    """A callback that writes a file of its own.

    Parameters
    ----------
    path : path
    overwrite : bool
        Whether it replaces what is there when the training begins.
    """

    def __init__(self, path: str | os.PathLike, *, overwrite: bool = False):
        where = type(self).__name__
        if not isinstance(path, str | os.PathLike):
            raise TypeError(f"[{where}] path must be a path, got {path!r:.80}")
        if not os.fspath(path) or "\0" in os.fspath(path):
            raise ValueError(f"[{where}] path must name a file, got {path!r:.80}")
        self.path, self.overwrite = Path(path), overwrite


def check_files(callbacks: Sequence[Callback]) -> None:
    """Refuse callbacks that would write the same file."""
    taken = set()
    for callback in callbacks:
        if isinstance(callback, Writer):
            place = os.path.realpath(callback.path)
            if place in taken:
                raise ValueError(
                    f"[fit] callbacks must each write a file of their own, got {callback.path} "
                    f"more than once"
                )
            taken.add(place)


class EarlyStopping(Callback):
    """End the training once a quantity has not become better for some epochs.

    Parameters
    ----------
    patience : int
        Epochs in a row that may be no better than the best before them.
    monitor : str, optional
        The quantity, such as "validation_loss" or "validation_accuracy". By default that by which
        `fit` chooses the epoch that it keeps.
    mode : {"min", "max"}, optional
        As in `fit`.
    min_delta : float
        By how much an epoch must be better to count as such.

    Examples
    --------
    >>> model.fit(x, y, validation=(x2, y2), callbacks=[EarlyStopping(5)])  # doctest: +SKIP
    """

    def __init__(
        self,
        patience: int,
        *,
        monitor: str | None = None,
        mode: Literal["min", "max"] | None = None,
        min_delta: float = 0.0,
    ):
        self.patience = check_integer("EarlyStopping", "patience", patience, 1)
        self.monitor = None
        if monitor is not None or mode is not None:
            self.monitor = as_monitor("EarlyStopping", monitor, mode)
        self.min_delta = check_rate("EarlyStopping", "min_delta", min_delta, zero=True)

    def check(self, run: Run) -> None:
        if self.monitor is not None:
            check_monitor("EarlyStopping", self.monitor, run)
        elif run.monitor is None:
            raise ValueError("[EarlyStopping] fit must be given validation data, got None")

    def on_start(self, run: Run) -> None:
        self.on_epoch(run)  # a resumed training may have been at its end

    def on_epoch(self, run: Run) -> None:
        monitor = self.monitor or run.monitor
        assert monitor is not None
        best = None
        for epoch in run.history.epochs:
            if best is None or monitor.is_better(epoch, best, self.min_delta):
                best = epoch
        if best is not None and len(run.history.epochs) - best.number >= self.patience:
            run.stop = True

    def __repr__(self) -> str:
        return f"EarlyStopping({self.patience})"


class Annealing(Callback):
    """Tell annealed and progressive signs, after every step, how much of the training is over.

    Without this callback an `AnnealedSign` or `ProgressiveSign` keeps its `progress`.

    Examples
    --------
    >>> model.fit(x, y, callbacks=[Annealing()])  # doctest: +SKIP
    """

    def on_start(self, run: Run) -> None:
        self.on_batch(run)

    def on_batch(self, run: Run) -> None:
        for _, layer in named_layers(run.model.flat_layers()):
            for holder in holders(layer):
                if hasattr(holder, "progress"):
                    holder.progress = run.step / run.steps

    def __repr__(self) -> str:
        return "Annealing()"
