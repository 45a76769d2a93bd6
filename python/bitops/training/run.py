"""What `fit` trains, a training under way, and its results: what callbacks are shown."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np

from ..ops.array import BitArray
from .gradients import add_gradients
from .targets import Targets

if TYPE_CHECKING:
    from ..layers.base import Layer
    from ..layers.parameter import Parameter
    from .optim import Optimizer
    from .schedules import Schedule
    from .scores import Metric
    from .streams import Batch, Stream

__all__ = [
    "Augment",
    "Data",
    "Epoch",
    "History",
    "Loss",
    "Monitor",
    "Position",
    "Run",
    "Trainable",
    "as_monitor",
    "check_monitor",
    "choose_monitor",
]

Data = tuple[np.ndarray | BitArray, np.ndarray]
Loss = Callable[..., tuple[float, np.ndarray]]
# (x, rng) -> x, or (x, rng, step, steps) -> x of one whose attribute by_step is True
Augment = Callable[..., np.ndarray | BitArray]


class Trainable(Protocol):
    """What `fit` trains: a `Sequential`, or a trainer that holds one, such as `EBP`."""

    out_features: int | None

    def forward(self, x, *, training: bool = False) -> Any: ...

    def backward(self, grad: np.ndarray) -> np.ndarray | None: ...

    def outputs(self, x) -> Any: ...

    def parameters(self) -> list[Parameter]: ...

    def generators(self) -> list[np.random.Generator]: ...

    def flat_layers(self) -> list[Layer]: ...

    def state(self) -> list: ...

    def restore(self, state: Sequence) -> None: ...


@dataclass(frozen=True)
class Epoch:
    """The results of one epoch.

    Attributes
    ----------
    number : int
        From 1.
    learning_rate : float
        Of its last step.
    loss, train_error : float
        Means over its steps. Errors are shares, 0 to 1: of wrong labels, or of wrong flags. They
        are None if the targets are numbers.
    validation_error, validation_loss : float
        After its last step; None without validation data.
    seconds : float
    metrics : dict of str to float
        Of the validation data, by names such as "validation_accuracy".

    Examples
    --------
    >>> history = model.fit(x, y)  # doctest: +SKIP
    >>> history.epochs[-1].train_error  # doctest: +SKIP
    """

    number: int
    learning_rate: float
    loss: float
    train_error: float | None
    validation_error: float | None
    seconds: float
    validation_loss: float | None = None
    metrics: dict[str, float] = field(default_factory=dict, hash=False)

    def value(self, name: str) -> float | None:
        """Return the quantity of a name: that of an attribute or of a metric."""
        return self.metrics[name] if name in self.metrics else getattr(self, name)

    def __str__(self) -> str:
        parts = [f"epoch {self.number:3d}  loss {self.loss:.5f}"]
        if self.train_error is not None:
            parts.append(f"train error {100 * self.train_error:6.2f} %")
        if self.validation_error is not None:
            parts.append(f"validation error {100 * self.validation_error:6.2f} %")
        elif self.validation_loss is not None:
            parts.append(f"validation loss {self.validation_loss:.5f}")
        parts += [f"{name.replace('_', ' ')} {value:.4g}" for name, value in self.metrics.items()]
        return "  ".join([*parts, f"{self.seconds:5.1f} s"])


# Endings of the names of quantities of which less is better, and more.
_LESS = ("loss", "error", "mae", "mse")  # rmse, too
_MORE = ("accuracy", "r2")


@dataclass(frozen=True)
class Monitor:
    """A quantity by which epochs are compared.

    Parameters
    ----------
    name : str
        As `Epoch.value` takes it.
    mode : {"min", "max"} or None
        Whether a smaller value is better, or a larger one; None if that is not known.
    """

    name: str
    mode: Literal["min", "max"] | None = "min"

    def is_better(self, epoch: Epoch, best: Epoch, by: float = 0.0) -> bool:
        """Tell whether an epoch is better than another, by more than a difference."""
        new, old = epoch.value(self.name), best.value(self.name)
        if new is None or old is None or np.isnan(old):
            return True
        return new < old - by if self.mode == "min" else new > old + by


@dataclass
class History:
    """The result of `fit`: the epochs in order, and the one whose model was kept.

    `train_error` of an epoch is measured on its batches while the network learns.

    Examples
    --------
    >>> history = model.fit(x, y, validation=(x2, y2))  # doctest: +SKIP
    >>> history.best.number, history.best.validation_error  # doctest: +SKIP
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
    wrong : float
        Rows among theirs with a wrong label, or the sum of other errors.
    seconds : float
        Time that the epoch has taken.
    rows : int
        Rows of these steps.
    """

    epoch: int = 0
    batch: int = 0
    total_loss: float = 0.0
    wrong: float = 0
    seconds: float = 0.0
    rows: int = 0


@dataclass
class Run:
    """A training under way. Callbacks read it, and may set `stop`.

    Attributes
    ----------
    model : Trainable
    optimizer : Optimizer
    data, validation : tuple of (x, y)
        The latter may be None, and so may the former if batches come from an iterable.
    epochs, batch_size : int
    schedule, loss, augment : callable
        The first and the last may be None; without a schedule the optimizer keeps its rate.
    rng : Generator
        Orders the rows and is handed to `augment`.
    seed : str
        What `rng` started from, in words.
    targets : Targets
        What the loss takes for y.
    weight : ndarray of shape (n,), float32, optional
        Of the rows of `data`.
    stream : Stream, optional
        The batches of an iterable.
    accumulate : int
        Parts in which the rows of a step pass the model.
    recalibrate : int
        Rows of `data` from which running statistics are taken anew after each epoch, or 0.
    metrics : dict of str to callable
        Measures of the validation data, by the names that their values get.
    monitor : Monitor, optional
        By what the best epoch is chosen; without it, the last one is kept.
    class_weight : ndarray or str, optional
        Of the batches of `stream`; the weights of `data` are in `weight`.
    callback_settings : dict of str to str
        What the callbacks say must be equal in a training that resumes.
    history : History
        The complete epochs.
    position : Position
        `epoch` and `batch` are also to be read here.
    order : ndarray of int64
        Order of the rows of `data` in the epoch under way.
    streamed : ndarray or BitArray
        x of the last step, before it was augmented, if batches come from an iterable.
    signs : list of BitArray
        Signs of the binary parameters at the start of the epoch, in the order of `parameters()`.
    best_state : list, optional
        State of the model at the end of the best epoch, if `monitor` chose one.
    stop : bool
        If a callback sets it, the training ends after the present step or epoch.
    interrupted : bool
        Whether it ends because of Ctrl-C.
    settings : dict of str to str, optional
        What `settings.settings_of` wrote down before the first step.
    add_gradients : callable (run, batch) -> (loss, sum of errors)
        Writes the gradients of a step. A callback may set another one in `on_start`.

    Examples
    --------
    >>> from bitops.training import Callback
    >>> class Print(Callback):
    ...     def on_epoch(self, run):
    ...         print(run.history.epochs[-1].loss)
    """

    model: Trainable
    optimizer: Optimizer
    data: Data | None
    validation: Data | None
    epochs: int
    batch_size: int
    schedule: Schedule | None
    loss: Loss
    augment: Augment | None
    rng: np.random.Generator
    seed: str
    targets: Targets
    weight: np.ndarray | None = None
    stream: Stream | None = None
    accumulate: int = 1
    recalibrate: int = 0
    metrics: dict[str, Metric] = field(default_factory=dict)
    monitor: Monitor | None = None
    class_weight: Any = None
    callback_settings: dict[str, str] = field(default_factory=dict)
    history: History = field(default_factory=History)
    position: Position = field(default_factory=Position)
    order: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    streamed: Any = None
    signs: list[BitArray] = field(default_factory=list)
    best_state: list | None = None
    stop: bool = False
    interrupted: bool = False
    settings: dict[str, str] | None = None
    add_gradients: Callable[[Run, Batch], tuple[float, float]] = add_gradients

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
        if self.data is None:
            assert self.stream is not None
            return self.stream.steps
        return len(self.data[1]) // self.batch_size

    @property
    def steps(self) -> int:
        """Steps of all epochs."""
        return self.epochs * self.batches

    @property
    def step(self) -> int:
        """Steps done since the start of the training."""
        return max(self.epoch - 1, 0) * self.batches + self.batch

    @property
    def rows(self) -> np.ndarray:
        """Numbers, in `data`, of the rows of the last step of this epoch."""
        return self.order[(self.batch - 1) * self.batch_size : self.batch * self.batch_size]

    @property
    def inputs(self) -> np.ndarray | BitArray:
        """x of the last step of this epoch, before it was augmented."""
        return self.streamed if self.data is None else self.data[0][self.rows]

    @property
    def mean_loss(self) -> float:
        """Mean over the steps done in this epoch; at least one."""
        return self.position.total_loss / self.batch

    @property
    def error(self) -> float | None:
        """Share of wrong labels in the steps done in this epoch; None if there are no errors."""
        return None if self.targets.errors is None else self.position.wrong / self.position.rows


def as_monitor(where: str, name: Any, mode: Any) -> Monitor:
    """Return the quantity of a name, which tells whether more of it is better or less."""
    if not isinstance(name, str):
        raise TypeError(f"[{where}] monitor must be the name of a quantity, got {name!r:.80}")
    if mode not in (None, "min", "max"):
        raise ValueError(f"[{where}] mode must be 'min' or 'max', got {mode!r:.80}")
    if mode is None and name.endswith(_LESS):
        mode = "min"
    if mode is None and name.endswith(_MORE):
        mode = "max"
    return Monitor(name, mode)


def choose_monitor(run: Run, name: Any, mode: Any) -> Monitor | None:
    """Return the quantity by which a training chooses the epoch that it keeps."""
    if name is None and run.validation is not None:
        name = "validation_loss" if run.targets.errors is None else "validation_error"
    if name is None and mode is None:
        return None
    monitor = as_monitor("fit", name, mode)
    check_monitor("fit", monitor, run)
    return monitor


def check_monitor(where: str, monitor: Monitor, run: Run) -> None:
    """Refuse a quantity that the epochs of a training will not have."""
    known = ["loss"]
    if run.targets.errors is not None:
        known.append("train_error")
    if run.validation is not None:
        known += ["validation_error"] if run.targets.errors is not None else []
        known += ["validation_loss", *run.metrics]
    if monitor.name not in known:
        raise ValueError(
            f"[{where}] monitor must be one of {', '.join(known)}, got {monitor.name!r:.80}"
        )
    if monitor.mode is None:
        raise ValueError(
            f"[{where}] mode must be 'min' or 'max' for {monitor.name!r:.80}, whose name does not "
            f"tell which is better, got None"
        )
