"""The training loop: batches, schedule, validation, progress, and the best model kept."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np

from .array import BitArray
from .config import get_num_threads, set_num_threads
from .layers.container import Sequential
from .losses import squared_hinge
from .optim import Adam, Optimizer
from .schedules import ExponentialDecay, Schedule

try:
    from tqdm import tqdm
except ImportError:  # the progress bar is optional; the lines for each epoch are not
    tqdm = None

Loss = Callable[[np.ndarray, np.ndarray], tuple[float, np.ndarray]]


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


def fit(
    model: Sequential,
    x,
    y,
    *,
    epochs: int = 20,
    batch_size: int = 100,
    validation: tuple | None = None,
    schedule: Schedule | None = None,
    optimizer: Optimizer | None = None,
    loss: Loss = squared_hinge,
    seed=0,
    verbose: int = 1,
) -> History:
    """Train a model in place.

    Parameters
    ----------
    model : Sequential
        Ends in one score for each class.
    x : BitArray or array_like of shape (n, in_features), uint8 or real
    y : array_like of shape (n,), integer
        Labels.
    epochs, batch_size : int
        Every epoch takes the rows in a new order, in n // batch_size full batches; rows left over
        sit out that epoch. A batch_size above n means n.
    validation : tuple of (x, y), optional
        Measured after every epoch; the model of the best epoch (the first of equal ones) is what
        `model` holds at the end. Without it the last one stays.
    schedule : callable (epoch, epochs) -> learning rate, optional
        `ExponentialDecay()` by default.
    optimizer : Optimizer, optional
        A fresh `Adam` over the model's parameters by default.
    loss : callable (scores, labels) -> (value, gradient)
    seed : int, SeedSequence or Generator
        Orders the rows. The same seed, data, model and number of threads give the same weights.
    verbose : int
        0 is silent; 1 prints a line an epoch, below it a progress bar if tqdm is installed and the
        output is a terminal.

    Returns
    -------
    History
    """
    x, y = _check_data("fit", x, y)
    if validation is not None:
        validation = _check_data("fit", *validation)
    for name, value in (("epochs", epochs), ("batch_size", batch_size)):
        if value < 1:
            raise ValueError(f"[fit] {name} must be >= 1, got {value}")
    batch_size = min(batch_size, len(y))
    schedule = ExponentialDecay() if schedule is None else schedule
    optimizer = Adam(model.parameters()) if optimizer is None else optimizer
    rng = np.random.default_rng(seed)
    history, best_state = History(), None
    progress = _progress(epochs * (len(y) // batch_size), verbose)
    with _bits_on_one_thread(), progress as (advance, say):
        for number in range(1, epochs + 1):
            start = time.perf_counter()
            optimizer.lr = schedule(number - 1, epochs)
            order = rng.permutation(len(y))
            mean_loss, error = _run_epoch(model, x, y, order, batch_size, optimizer, loss, advance)
            checked = None if validation is None else model.evaluate(*validation)
            seconds = time.perf_counter() - start
            epoch = Epoch(number, optimizer.lr, mean_loss, error, checked, seconds)
            history.epochs.append(epoch)
            say(str(epoch))
            if _is_better(epoch, history.best):
                history.best = epoch
                best_state = None if validation is None else model.state()
    if best_state is not None:
        model.restore(best_state)
    return history


def _run_epoch(
    model, x, y, order, batch_size, optimizer, loss: Loss, advance
) -> tuple[float, float]:
    """One pass over the data; the mean loss and the error on the batches as they were trained."""
    total, wrong = 0.0, 0
    batches = len(order) // batch_size
    for i in range(batches):
        rows = order[i * batch_size : (i + 1) * batch_size]
        labels = y[rows]
        scores = model.forward(x[rows], training=True)
        value, grad = loss(scores, labels)
        model.backward(grad)
        optimizer.step()
        total += value
        wrong += int(np.count_nonzero(scores.argmax(axis=-1) != labels))
        advance()
    return total / batches, wrong / (batches * batch_size)


def _is_better(epoch: Epoch, best: Epoch | None) -> bool:
    """Without validation the newest epoch is the one that stays."""
    if best is None or epoch.validation_error is None or best.validation_error is None:
        return True
    return epoch.validation_error < best.validation_error


def _check_data(where: str, x, y):
    """Rows and labels as arrays of equal length, at least one row."""
    x = x if isinstance(x, BitArray) else np.asarray(x)
    y = np.asarray(y)
    if y.dtype.kind not in "iu":
        raise TypeError(f"[{where}] y must be integer labels, got {y.dtype}")
    if x.ndim < 2 or y.shape != x.shape[:1] or not y.size:
        raise ValueError(
            f"[{where}] x and y must have shapes (n, features) and (n,), n >= 1, "
            f"got {x.shape} and {y.shape}"
        )
    return x, y


@contextmanager
def _bits_on_one_thread() -> Iterator[None]:
    """Leave the cores to BLAS while training.

    A step alternates between long float products and bit products a hundredth as long. With two
    pools of threads, each waits actively for a while after its work and so delays the other: on two
    cores with nothing else to do a step of a 3 x 1024 network took 74 ms with both and 22 with one.
    """
    before = get_num_threads()
    set_num_threads(1)
    try:
        yield
    finally:
        set_num_threads(before)


@contextmanager
def _progress(steps: int, verbose: int) -> Iterator[tuple[Callable[[], object], Callable]]:
    """Functions to count a step and to print a line, with a bar between them where possible."""
    if not verbose:
        yield (lambda: None), (lambda line: None)
    elif tqdm is None:
        yield (lambda: None), (lambda line: print(line, flush=True))
    else:
        # disable=None: no bar where the output is not a terminal
        with tqdm(total=steps, unit="step", leave=False, disable=None) as bar:

            def say(line: str) -> None:
                tqdm.write(line)
                sys.stdout.flush()  # an epoch takes minutes; its line must show through a pipe

            yield bar.update, say
