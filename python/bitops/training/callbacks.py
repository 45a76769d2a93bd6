"""Callbacks: the run they are shown, their protocol, early stopping and annealing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from ..layers.base import holders, named_layers
from ..ops.array import BitArray
from ..ops.checks import check_integer

if TYPE_CHECKING:
    from ..layers.base import Layer
    from ..layers.parameter import Parameter
    from .optim import Optimizer
    from .schedules import Schedule

__all__ = [
    "Annealing",
    "Callback",
    "EarlyStopping",
    "Epoch",
    "History",
    "Position",
    "Run",
    "Task",
    "Trainable",
]

Data = tuple[np.ndarray | BitArray, np.ndarray]
Loss = Callable[[np.ndarray, np.ndarray], tuple[float, np.ndarray]]
Augment = Callable[[np.ndarray | BitArray, np.random.Generator], np.ndarray | BitArray]


class Trainable(Protocol):
    """What `fit` trains: a `Sequential`, or a trainer that holds one, such as `EBP`."""

    out_features: int | None

    def forward(self, x, *, training: bool = False) -> Any: ...

    def backward(self, grad: np.ndarray) -> np.ndarray | None: ...

    def error_rate(self, x, y) -> float: ...

    def parameters(self) -> list[Parameter]: ...

    def generators(self) -> list[np.random.Generator]: ...

    def flat_layers(self) -> list[Layer]: ...

    def state(self) -> list: ...

    def restore(self, state: Sequence) -> None: ...


@dataclass(frozen=True)
class Epoch:
    """The results of one epoch. Errors are shares, 0 to 1."""

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
    """The result of `fit`: the epochs in order, and the one whose model was kept.

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
class Position:
    """How far a training has come, in numbers that a checkpoint writes.

    Attributes
    ----------
    epoch : int
        Number, from 1, of the epoch under way or just complete; 0 before the first.
    batch : int
        Steps done in that epoch.
    total_loss : float
        Sum of their losses.
    wrong : int
        Rows among theirs with a wrong label.
    seconds : float
        Time that the epoch has taken.
    """

    epoch: int = 0
    batch: int = 0
    total_loss: float = 0.0
    wrong: int = 0
    seconds: float = 0.0


@dataclass
class Task:
    """A training as `fit` was asked for it.

    Attributes
    ----------
    model : Trainable
    optimizer : Optimizer
    data, validation : tuple of (x, y)
        The latter may be None.
    epochs, batch_size : int
    schedule, loss, augment : callable
        The first and the last may be None; without a schedule the optimizer keeps its rate.
    rng : Generator
        Orders the rows and is handed to `augment`.
    seed : str
        What `rng` started from, in words.
    """

    model: Trainable
    optimizer: Optimizer
    data: Data
    validation: Data | None
    epochs: int
    batch_size: int
    schedule: Schedule | None
    loss: Loss
    augment: Augment | None
    rng: np.random.Generator
    seed: str


@dataclass
class Run(Task):
    """A training under way. Callbacks read it, and may set `stop`.

    Attributes
    ----------
    history : History
        The complete epochs.
    position : Position
        `epoch` and `batch` are also to be read here.
    order : ndarray of int64
        Order of the rows in the epoch under way.
    signs : list of BitArray
        Signs of the binary parameters at the start of the epoch, in the order of `parameters()`.
    best_state : list, optional
        State of the model at the end of the best epoch, if validation data chose one.
    stop : bool
        If a callback sets it, the training ends after the present step or epoch.
    interrupted : bool
        Whether it ends because of Ctrl-C.
    settings : dict of str to str, optional
        What `checkpoint.settings_of` wrote down before the first step.
    """

    history: History = field(default_factory=History)
    position: Position = field(default_factory=Position)
    order: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    signs: list[BitArray] = field(default_factory=list)
    best_state: list | None = None
    stop: bool = False
    interrupted: bool = False
    settings: dict[str, str] | None = None

    @property
    def epoch(self) -> int:
        """Number, from 1, of the epoch under way or just complete; 0 before the first."""
        return self.position.epoch

    @property
    def batch(self) -> int:
        """Steps done in this epoch."""
        return self.position.batch

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
        return self.position.total_loss / self.batch

    @property
    def error(self) -> float:
        """Share of wrong labels in the steps done in this epoch; at least one."""
        return self.position.wrong / (self.batch * self.batch_size)


class Callback:
    """Functions that `fit` calls as it goes, each with the `Run`; by default they do nothing.

    Examples
    --------
    >>> class StopAtZero(Callback):
    ...     def on_epoch(self, run):
    ...         run.stop = run.history.epochs[-1].train_error == 0
    >>> model.fit(x, y, callbacks=[StopAtZero()])                        # doctest: +SKIP
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


class EarlyStopping(Callback):
    """End the training once the validation error has not fallen for some epochs.

    Parameters
    ----------
    patience : int
        Epochs in a row that may be no better than the best before them.
    """

    def __init__(self, patience: int):
        self.patience = check_integer("EarlyStopping", "patience", patience, 1)

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
    """Tell annealed and progressive signs, after every step, how much of the training is over.

    Without this callback an `AnnealedSign` or `ProgressiveSign` keeps its `progress`.
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
