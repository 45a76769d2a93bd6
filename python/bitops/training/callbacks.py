"""What watches a training: the run that callbacks see, their protocol, and early stopping."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from ..layers.walk import holders, named_layers
from ..ops.array import BitArray
from .optim import Optimizer
from .schedules import Schedule

if TYPE_CHECKING:
    from ..layers.container import Sequential

__all__ = ["Annealing", "Callback", "EarlyStopping", "Epoch", "History", "Run"]

Data = tuple[np.ndarray | BitArray, np.ndarray]
Loss = Callable[[np.ndarray, np.ndarray], tuple[float, np.ndarray]]
Augment = Callable[[np.ndarray | BitArray, np.random.Generator], np.ndarray | BitArray]


@dataclass(frozen=True)
class Epoch:
    """What one epoch came to. Errors are shares, 0 to 1."""

    number: int
    learning_rate: float
    loss: float
    train_error: float
    validation_error: float | None
    seconds: float

    def __str__(self) -> str:
        errors = f"train error {100 * self.train_error:6.2f} %"
        if self.validation_error is not None:
            errors += f"  validation error {100 * self.validation_error:6.2f} %"
        return f"epoch {self.number:3d}  loss {self.loss:.5f}  {errors}  {self.seconds:5.1f} s"


@dataclass
class History:
    """Result of `fit`: the epochs in order, and the one whose model was kept.

    `train_error` of an epoch is measured on its batches while the network learns.
    """

    epochs: list[Epoch] = field(default_factory=list)
    best: Epoch | None = None

    @property
    def seconds(self) -> float:
        return sum(epoch.seconds for epoch in self.epochs)

    def __str__(self) -> str:
        lines = [str(epoch) for epoch in self.epochs]
        if self.best is not None:
            lines.append(f"kept the model of epoch {self.best.number}")
        return "\n".join(lines)

    __repr__ = __str__


@dataclass
class Run:
    """A training under way. Callbacks read it, and may set `stop`.

    Attributes
    ----------
    model : Sequential
    optimizer : Optimizer
    history : History
        The epochs that are complete.
    data, validation : tuple of (x, y)
        The latter may be None.
    epochs, batch_size : int
        As given to `fit`.
    epoch : int
        Number, from 1, of the epoch under way or just complete; 0 before the first.
    batch : int
        Steps done in that epoch.
    order : ndarray of int64
        Order of the rows in that epoch.
    signs : list of BitArray
        Signs of the binary parameters at the start of the epoch, in the order of `parameters()`.
    stop : bool
        Set it, and training ends after the present step or epoch as it does after the last.
    interrupted : bool
        Whether it ends because of Ctrl-C.
    """

    model: Sequential
    optimizer: Optimizer
    data: Data
    validation: Data | None
    epochs: int
    batch_size: int
    schedule: Schedule
    loss: Loss
    augment: Augment | None
    rng: np.random.Generator  # orders the rows and is handed to `augment`
    seed: str  # what `rng` started from, in words
    history: History = field(default_factory=History)
    epoch: int = 0
    batch: int = 0
    order: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    signs: list[BitArray] = field(default_factory=list)
    stop: bool = False
    interrupted: bool = False
    # of the epoch under way
    total_loss: float = 0.0
    wrong: int = 0
    seconds: float = 0.0
    best_state: list | None = None
    settings: dict[str, str] | None = None  # see `checkpoint.settings_of`

    @property
    def batches(self) -> int:
        """Steps of an epoch."""
        return len(self.data[1]) // self.batch_size

    @property
    def step(self) -> int:
        """Steps done since the start of the training."""
        return max(self.epoch - 1, 0) * self.batches + self.batch

    @property
    def rows(self) -> np.ndarray:
        """Row numbers of the last step of this epoch."""
        return self.order[(self.batch - 1) * self.batch_size : self.batch * self.batch_size]

    @property
    def mean_loss(self) -> float:
        """Mean over the steps done in this epoch; at least one."""
        return self.total_loss / self.batch

    @property
    def error(self) -> float:
        """Share of wrong labels in the steps done in this epoch; at least one."""
        return self.wrong / (self.batch * self.batch_size)


class Callback:
    """Functions that `fit` calls as it goes, each with its `Run`; the default does nothing.

    Examples
    --------
    >>> class StopAtZero(Callback):
    ...     def on_epoch(self, run):
    ...         run.stop = run.history.epochs[-1].train_error == 0
    >>> model.fit(x, y, callbacks=[StopAtZero()])                        # doctest: +SKIP
    """

    def on_start(self, run: Run) -> None:
        """Before the first step; of a resumed training, with all that the checkpoint held."""

    def on_batch(self, run: Run) -> None:
        """After every step."""

    def on_epoch(self, run: Run) -> None:
        """After every epoch, which is the last of `run.history`."""

    def on_end(self, run: Run) -> None:
        """After the last step, also if `stop` or Ctrl-C made it the last, but not after an error.

        The model still holds its last weights, not those of the best epoch.
        """


class EarlyStopping(Callback):
    """End the training once the validation error has not fallen for some epochs.

    Parameters
    ----------
    patience : int
        Epochs in a row that may be no better than the best before them.
    """

    def __init__(self, patience: int):
        if patience < 1:
            raise ValueError(f"[EarlyStopping] patience must be >= 1, got {patience}")
        self.patience = patience

    def on_start(self, run: Run) -> None:
        if run.validation is None:
            raise ValueError("[EarlyStopping] fit must be given validation data, got None")
        self.on_epoch(run)  # a resumed training may have been at its end

    def on_epoch(self, run: Run) -> None:
        best = run.history.best
        if best is not None and len(run.history.epochs) - best.number >= self.patience:
            run.stop = True

    def __repr__(self) -> str:
        return f"EarlyStopping({self.patience})"


class Annealing(Callback):
    """Tell annealed and progressive signs how much of the training is over, after every step.

    Without it an `AnnealedSign` or `ProgressiveSign` of `bitops.quantizers` keeps its `progress`.
    """

    def on_start(self, run: Run) -> None:
        self.on_batch(run)

    def on_batch(self, run: Run) -> None:
        for _, layer in named_layers(run.model.flat_layers()):
            for holder in holders(layer):
                if hasattr(holder, "progress"):
                    holder.progress = run.step / (run.epochs * run.batches)

    def __repr__(self) -> str:
        return "Annealing()"
