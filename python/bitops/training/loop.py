"""The training loop: batches, schedule, validation, progress, and the best model kept."""

from __future__ import annotations

import math
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np

from ..config import get_num_threads, set_num_threads
from ..layers.container import Sequential
from ..layers.walk import is_finite
from ..ops.array import BitArray
from .callbacks import Augment, Callback, Data, Epoch, History, Loss, Run
from .losses import squared_hinge
from .metrics import binary_parameters, check_parameters, first_not_finite
from .optim import Adam, Optimizer
from .schedules import ExponentialDecay, Schedule

try:
    from tqdm import tqdm
except ImportError:  # the progress bar is optional; the lines for each epoch are not
    tqdm = None

try:
    from threadpoolctl import threadpool_limits
except ImportError:  # optional too, see `_one_pool`
    threadpool_limits = None

__all__ = ["Epoch", "History", "fit"]


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
    augment: Augment | None = None,
    callbacks: Sequence[Callback] = (),
    resume: str | os.PathLike | None = None,
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
        Orders the rows. The same seed, data and model give the same weights; see the notes.
    verbose : int
        0 is silent; 1 prints a line an epoch, below it a progress bar with loss, error, images a
        second and time left if tqdm is installed and the output is a terminal.
    augment : callable (x, rng) -> x, optional
        Changes the rows of a step, a copy, as the functions of `bitops.training.augment` do;
        random numbers come from the generator that orders the rows.
    callbacks : sequence of Callback
        Called in order; see `bitops.training.callbacks`. `EarlyStopping` is there, `Checkpoint` in
        `bitops.training.checkpoint`, `Log` in `bitops.training.log`.
    resume : path, optional
        Checkpoint to go on from, of a training that was started with the same model, data and
        options. Model and optimizer take their values from it.

    Returns
    -------
    History

    Raises
    ------
    FloatingPointError
        If NaN or infinity appears in the loss or in the parameters; the message says at which step
        and in which layer first.
    KeyboardInterrupt
        After Ctrl-C, between two steps and after the callbacks' `on_end`; the model holds its last
        weights. A second Ctrl-C does not wait.

    Notes
    -----
    If threadpoolctl is installed and the model has binary weights, other than those of `EBP`, BLAS
    computes on one thread meanwhile and bitops on as many as before; otherwise it is the other way
    round.

    The products of binary layers, and Adam's steps, give the same bits on every ISA and with any
    number of threads. float32 BLAS computes the products of real layers, and the gradient of
    binary weights under real inputs (mostly a first layer's). Its bits depend on its version, on
    the CPU and, where it has several threads, on their number. So weights are reproducible to the
    bit with the same NumPy on the same kind of CPU; with binary weights and threadpoolctl for any
    number of threads, else for the same number of BLAS's.
    """
    x, y = _check_data(model, x, y)
    if validation is not None:
        validation = _check_data(model, *validation)
    _check_options(epochs, batch_size, callbacks)
    rng = np.random.default_rng(seed)
    run = Run(
        model=model,
        optimizer=Adam(model.parameters()) if optimizer is None else optimizer,
        data=(x, y),
        validation=validation,
        epochs=epochs,
        batch_size=min(batch_size, len(y)),
        schedule=ExponentialDecay() if schedule is None else schedule,
        loss=loss,
        augment=augment,
        rng=rng,
        seed=_describe_seed(seed, rng),
    )
    if resume is not None:
        from .checkpoint import restore

        restore(run, resume)
    with _one_pool(model), _interrupts() as interrupted, _progress(run, verbose) as progress:
        for callback in callbacks:
            callback.on_start(run)
        _run_epochs(run, [progress, *callbacks], interrupted)
        run.interrupted = interrupted()
        for callback in callbacks:
            callback.on_end(run)
        if interrupted():
            raise KeyboardInterrupt
    if run.best_state is not None:
        model.restore(run.best_state)
    return run.history


def _run_epochs(run: Run, callbacks: list[Callback], interrupted: Callable[[], bool]) -> None:
    """All epochs that are left, the first of which may have begun before a checkpoint."""

    def over() -> bool:
        return run.stop or interrupted()

    while len(run.history.epochs) < run.epochs and not over():
        before, start = run.seconds, time.perf_counter()
        if run.epoch == len(run.history.epochs):
            _begin_epoch(run)
            before = 0.0
        run.optimizer.lr = float(run.schedule(run.epoch - 1, run.epochs))
        while run.batch < run.batches:
            _run_step(run)
            run.seconds = before + time.perf_counter() - start
            for callback in callbacks:
                callback.on_batch(run)
            if over():
                break
        if run.batch < run.batches:
            return
        _finish_epoch(run, before - start)
        for callback in callbacks:
            callback.on_epoch(run)


def _begin_epoch(run: Run) -> None:
    run.epoch += 1
    run.batch, run.total_loss, run.wrong, run.seconds = 0, 0.0, 0, 0.0
    run.order = run.rng.permutation(len(run.data[1]))
    run.signs = [parameter.signs() for parameter in binary_parameters(run.model).values()]


def _run_step(run: Run) -> None:
    """Forward, backward and update on the next rows."""
    run.batch += 1
    rows = run.rows
    x, labels = run.data[0][rows], run.data[1][rows]
    if run.augment is not None:
        x = run.augment(x, run.rng)
        if len(x) != len(labels):
            raise ValueError(f"[fit] augment must keep the {len(labels)} rows, got {x.shape}")
    cause: ValueError | None = None
    try:
        scores = np.asarray(run.model.forward(x, training=True))
        value, grad = run.loss(scores, labels)
        if math.isfinite(value):
            run.model.backward(grad)
    except ValueError as error:  # packing refuses NaN, which then never reaches the loss
        value, cause = math.nan, error
    if not math.isfinite(value):
        where = first_not_finite(run.model, x, labels, run.loss)
        if cause is not None and where is None:
            raise cause
        raise FloatingPointError(
            f"[fit] loss must be finite, got {where or value} at step {run.step}, epoch {run.epoch}"
        ) from cause
    run.optimizer.step()
    run.total_loss += float(value)
    run.wrong += int(np.count_nonzero(scores.argmax(axis=-1) != labels))


def _finish_epoch(run: Run, started: float) -> None:
    """Validate, write the history, and keep the model if it is the best so far."""
    check_parameters(run.model, run.step)
    checked = None if run.validation is None else run.model.error_rate(*run.validation)
    run.seconds = started + time.perf_counter()
    results = run.optimizer.lr, run.mean_loss, run.error, checked, run.seconds
    epoch = Epoch(run.epoch, *results)
    run.history.epochs.append(epoch)
    if _is_better(epoch, run.history.best):
        run.history.best = epoch
        run.best_state = None if run.validation is None else run.model.state()


def _is_better(epoch: Epoch, best: Epoch | None) -> bool:
    """Without validation the newest epoch is the one that stays."""
    if best is None or epoch.validation_error is None or best.validation_error is None:
        return True
    return epoch.validation_error < best.validation_error


def _check_options(epochs: int, batch_size: int, callbacks: Sequence[Callback]) -> None:
    for name, value in (("epochs", epochs), ("batch_size", batch_size)):
        if value < 1:
            raise ValueError(f"[fit] {name} must be >= 1, got {value}")
    for callback in callbacks:
        if not isinstance(callback, Callback):
            raise TypeError(f"[fit] callbacks must be Callback objects, got {callback!r}")


def _check_data(model: Sequential, x, y) -> Data:
    """Rows and labels as arrays of equal length, at least one row, all within range."""
    x = x if isinstance(x, BitArray) else np.asarray(x)
    y = np.asarray(y)
    if y.dtype.kind not in "iu":
        raise TypeError(f"[fit] y must be integer labels, got {y.dtype}")
    if x.ndim < 2 or y.shape != x.shape[:1] or not y.size:
        raise ValueError(
            f"[fit] x and y must have shapes (n, features) and (n,), n >= 1, "
            f"got {x.shape} and {y.shape}"
        )
    if not is_finite(x):
        raise ValueError("[fit] x must be finite, got NaN or infinity")
    classes = model.out_features
    low, high = int(y.min()), int(y.max())
    if low < 0 or (classes is not None and high >= classes):
        allowed = ">= 0" if classes is None else f"in 0..{classes - 1}"
        raise ValueError(f"[fit] labels must be {allowed}, got {low if low < 0 else high}")
    return x, y


def _describe_seed(seed, rng: np.random.Generator) -> str:
    """The seed in words, the same for the same start."""
    if isinstance(seed, int | np.integer):
        return str(int(seed))
    if isinstance(seed, np.random.SeedSequence):
        return f"SeedSequence({seed.entropy}, spawn_key={seed.spawn_key})"
    return "None" if seed is None else str(rng.bit_generator.state)


@contextmanager
def _one_pool(model: Sequential) -> Iterator[None]:
    """Let only one of the two pools of threads, that of BLAS and ours, have several.

    A step alternates between the products of the two, and threads wait actively for a while after
    their work, so that two pools delay each other: on two cores with some other work a step of a
    3 x 1024 network took 42 ms with both and 12 with one. The work of binary layers is ours; but
    without threadpoolctl only ours can be told to rest.
    """
    if threadpool_limits is not None and binary_parameters(model) and not model.uses_blas:
        with threadpool_limits(limits=1, user_api="blas"):
            yield
        return
    before = get_num_threads()
    set_num_threads(1)
    try:
        yield
    finally:
        set_num_threads(before)


@contextmanager
def _interrupts() -> Iterator[Callable[[], bool]]:
    """A function that tells whether Ctrl-C was pressed, which at first does nothing else.

    So it falls between two steps, where a checkpoint can be exact. The second one is not held back.
    Signals reach only the main thread; a handler of the program's own stays in place.
    """
    pressed = False
    ours = (
        threading.current_thread() is threading.main_thread()
        and signal.getsignal(signal.SIGINT) is signal.default_int_handler
    )

    def handle(number, frame) -> None:
        nonlocal pressed
        pressed = True
        signal.signal(signal.SIGINT, signal.default_int_handler)

    if ours:
        signal.signal(signal.SIGINT, handle)
    try:
        yield lambda: pressed
    finally:
        if ours:
            signal.signal(signal.SIGINT, signal.default_int_handler)


class _Progress(Callback):
    """A line an epoch, and a bar where there is one."""

    def __init__(self, say: Callable[[str], object], bar=None):
        self._say, self._bar = say, bar

    def on_batch(self, run: Run) -> None:
        if self._bar is not None:
            texts = {"loss": f"{run.mean_loss:.4f}", "error": f"{run.error:.2%}"}
            self._bar.set_postfix(texts, refresh=False)
            self._bar.update(run.batch_size)

    def on_epoch(self, run: Run) -> None:
        self._say(str(run.history.epochs[-1]))


@contextmanager
def _progress(run: Run, verbose: int) -> Iterator[Callback]:
    """The progress to call first, with a bar where possible."""
    if not verbose:
        yield Callback()
        return
    if tqdm is None:
        yield _Progress(lambda line: print(line, flush=True))
        return

    def say(line: str) -> None:
        tqdm.write(line)
        sys.stdout.flush()  # an epoch takes minutes; its line must show through a pipe

    images = run.epochs * run.batches * run.batch_size
    done = run.step * run.batch_size
    # disable=None: no bar where the output is not a terminal
    with tqdm(
        total=images, initial=done, unit=" images", unit_scale=True, leave=False, disable=None
    ) as bar:
        yield _Progress(say, bar)
