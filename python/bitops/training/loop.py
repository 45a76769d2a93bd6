"""The training loop: it runs batches, schedule and validation, and keeps the best model."""

from __future__ import annotations

import math
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial

import numpy as np

from .. import _core
from ..layers.base import check_least_rows
from ..layers.inputs import check_flag
from ..ops.checks import as_generator, check_integer, check_rate
from . import options
from .callbacks import (
    Augment,
    Callback,
    Data,
    Epoch,
    History,
    Loss,
    Position,
    Run,
    Trainable,
)
from .checkpoint import restore
from .losses import squared_hinge
from .metrics import binary_parameters, check_parameters, first_not_finite
from .optim import Optimizer
from .schedules import Schedule

try:
    from tqdm import tqdm
except ImportError:  # the progress bar is optional; the line for each epoch is not
    tqdm = None

try:
    from threadpoolctl import threadpool_limits
except ImportError:  # optional too, see `_one_pool`
    threadpool_limits = None

__all__ = ["fit"]


def fit(
    model: Trainable,
    x,
    y,
    *,
    epochs: int = 20,
    batch_size: int = 100,
    validation: tuple | None = None,
    schedule: Schedule | str | float | None = None,
    optimizer: Optimizer | str | None = None,
    loss: Loss | str = squared_hinge,
    seed=0,
    verbose: int = 1,
    augment: Augment | None = None,
    callbacks: Callback | Sequence[Callback] = (),
    resume: str | os.PathLike | None = None,
    blas: bool | None = None,
) -> History:
    """Train a model in place.

    Parameters
    ----------
    model : Sequential
        It ends in one score for each class. A trainer such as `EBP` passes itself.
    x : BitArray or array_like of shape (n, in_features), uint8 or real
    y : array_like of shape (n,), integer
        Labels.
    epochs, batch_size : int
        Every epoch takes the rows in a new order, in n // batch_size full batches, and skips the
        rows left over. A batch_size above n means n. Batch normalisation needs at least two rows,
        or positions of images, in a batch.
    validation : tuple of (x, y), optional
        The error on it is measured after every epoch. At the end `model` holds the weights of the
        best epoch, the first of equal ones; without validation those of the last.
    schedule : callable (epoch, epochs) -> learning rate, number or name, optional
        A number is the rate of all epochs. A name, "constant", "cosine_decay", "exponential_decay"
        or "halving", starts from the rate of the optimizer. By default an optimizer that is given
        or named keeps its rate, and the default one follows `ExponentialDecay()`.
    optimizer : Optimizer or name, optional
        "adam", "adamax", "bop", "sgd" and "shift_adamax" are fresh ones, with their own default
        rates, over the model's parameters. So is the default, an `Adam`.
    loss : callable (scores, labels) -> (value, gradient), or name
        A name is "cross_entropy", "hinge" or "squared_hinge".
    seed : int, SeedSequence or Generator
        It decides the order of the rows. The same seed, data and model give the same weights; see
        the notes.
    verbose : int
        0 is silent. 1 prints a line an epoch; if tqdm is installed and the output is a terminal, a
        progress bar below it shows loss, error, images a second and time left.
    augment : callable (x, rng) -> x, optional
        Changes a copy of the rows of a step, as the functions of `bitops.training.augment` do. Its
        random numbers come from the generator that orders the rows.
    callbacks : Callback or sequence of Callback
        Called in order, such as `EarlyStopping`, `Checkpoint` and `Log`.
    resume : path, optional
        A checkpoint to go on from. Its training must have been started with the same model, data
        and options. Model and optimizer take their values from it.
    blas : bool, optional
        Whether several threads go to BLAS rather than to bitops; see the notes. By default they do
        where no weights are binary.

    Returns
    -------
    History

    Raises
    ------
    TypeError, ValueError
        If an option or the data are not as above; then no step has been done. Learning rates must
        be finite and not negative. They are checked epoch by epoch.
    FloatingPointError
        If NaN or infinity appears in the loss or in the parameters. The message names the step and
        the first layer concerned.
    KeyboardInterrupt
        After Ctrl-C, between two steps and after the callbacks' `on_end`; the model holds its last
        weights. A second Ctrl-C does not wait.

    Notes
    -----
    During the training only one of BLAS and bitops has several threads: bitops if the model has
    binary weights, otherwise BLAS; `blas` says which. Without threadpoolctl, which alone can limit
    BLAS, it always is BLAS. These limits are of the whole process. Where trainings overlap, in
    several threads or one in a callback of another, the last one to end lifts them.

    The products of binary layers, and Adam's steps, give the same bits on every ISA and with any
    number of threads. float32 BLAS computes the products of real layers, and the gradient of
    binary weights under real inputs, mostly those of a first layer. Its bits depend on its version,
    on the CPU, and on the number of its threads where it has several. So weights are reproducible
    to the bit with the same NumPy on the same kind of CPU: for any number of threads if BLAS has
    only one, otherwise for the same number of BLAS threads.
    """
    epochs = check_integer("fit", "epochs", epochs, 1)
    batch_size = check_integer("fit", "batch_size", batch_size, 1)
    if not isinstance(verbose, bool):
        verbose = check_integer("fit", "verbose", verbose, 0)
    if blas is not None:
        blas = check_flag("fit", "blas", blas)
    called = options.as_callbacks(callbacks)
    options.check_resume(resume)
    augment = options.as_augment(augment)
    # augmented images may have another size
    x, y = options.as_data(model, x, y, may_change=augment is not None)
    rng = as_generator("fit", seed)
    chosen = options.as_optimizer(model, optimizer)
    run = Run(
        model=model,
        optimizer=chosen,
        data=(x, y),
        validation=options.as_validation(model, validation),
        epochs=epochs,
        batch_size=min(batch_size, len(y)),
        schedule=options.as_schedule(schedule, None if optimizer is None else chosen),
        loss=options.as_loss(loss),
        augment=augment,
        rng=rng,
        seed=options.describe_seed(seed, rng),
    )
    if augment is None:
        check_least_rows("fit", model.flat_layers(), x.shape[1:], run.batch_size)
    if resume is not None:
        restore(run, resume)
    _train(run, called, verbose, blas)
    return run.history


def _train(run: Run, callbacks: list[Callback], verbose: int, blas: bool | None) -> None:
    """Run to the end, and leave the best model."""
    if blas is None:
        blas = not binary_parameters(run.model)
    with _interrupts() as interrupted, _one_pool(blas), _progress(run, verbose) as progress:
        for callback in callbacks:
            callback.on_start(run)
        _run_epochs(run, [progress, *callbacks], interrupted)
        run.interrupted = interrupted()
        for callback in callbacks:
            callback.on_end(run)
        if interrupted():
            raise KeyboardInterrupt
    if run.best_state is not None:
        run.model.restore(run.best_state)


def _run_epochs(run: Run, callbacks: list[Callback], interrupted: Callable[[], bool]) -> None:
    """Run the epochs that are left; the first may have begun before a checkpoint."""

    def over() -> bool:
        return run.stop or interrupted()

    while len(run.history.epochs) < run.epochs and not over():
        before, start = run.position.seconds, time.perf_counter()
        if run.epoch == len(run.history.epochs):
            _begin_epoch(run)
            before = 0.0
        rate = run.optimizer.lr
        if run.schedule is not None:
            rate = run.schedule(run.epoch - 1, run.epochs)
        run.optimizer.lr = check_rate("fit", "learning rates", rate, zero=True)
        while run.batch < run.batches:
            with np.errstate(under="ignore"):  # numbers next to zero are nothing to report
                _run_step(run)
            run.position.seconds = before + time.perf_counter() - start
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
    """Draw the order of the rows, and remember the signs that the epoch starts from."""
    run.position = Position(epoch=run.epoch + 1)
    run.order = run.rng.permutation(len(run.data[1]))
    run.signs = [parameter.signs() for parameter in binary_parameters(run.model).values()]


def _run_step(run: Run) -> None:
    """Compute the next rows forward and backward, and update the parameters."""
    run.position.batch += 1
    x, labels = _next_rows(run)
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
    run.position.total_loss += float(value)
    run.position.wrong += int(np.count_nonzero(scores.argmax(axis=-1) != labels))


def _next_rows(run: Run) -> Data:
    """Return rows and labels of the present step, the rows augmented."""
    rows = run.rows
    x, labels = run.data[0][rows], run.data[1][rows]
    if run.augment is not None:
        x = run.augment(x, run.rng)
        if len(x) != len(labels):
            raise ValueError(f"[fit] augment must keep the {len(labels)} rows, got {x.shape}")
    return x, labels


def _finish_epoch(run: Run, started: float) -> None:
    """Validate, extend the history, and keep the model if it is the best so far."""
    check_parameters(run.model, run.step)
    error = None if run.validation is None else run.model.error_rate(*run.validation)
    seconds = run.position.seconds = started + time.perf_counter()
    epoch = Epoch(run.epoch, run.optimizer.lr, run.mean_loss, run.error, error, seconds)
    run.history.epochs.append(epoch)
    if _is_better(epoch, run.history.best):
        run.history.best = epoch
        run.best_state = None if run.validation is None else run.model.state()


def _is_better(epoch: Epoch, best: Epoch | None) -> bool:
    """Tell whether an epoch replaces the best one; without validation the newest always does."""
    if best is None or epoch.validation_error is None or best.validation_error is None:
        return True
    return epoch.validation_error < best.validation_error


@contextmanager
def _one_pool(blas: bool) -> Iterator[None]:
    """Let only one of the two pools of threads, that of BLAS or ours, have several.

    A step alternates between products of the two. Threads keep spinning for a while after their
    work, so that two pools delay each other: on two cores with some other work a step of a
    3 x 1024 network took 42 ms with both and 12 ms with one. Binary layers compute in our pool; but
    without threadpoolctl ours is the only one that can be limited.
    """
    if threadpool_limits is None or blas:
        with _OURS:
            yield
        return
    # some libraries have a limit for the process, and some one for each thread, hence both
    with _BLAS, threadpool_limits(limits=1, user_api="blas"):
        yield


class _Limit:
    """A limit of the whole process, which holds from the first that enters to the last that leaves.

    Trainings may overlap in several threads, or one run inside a callback of another. What each of
    them found and put back would be the limits of others.
    """

    def __init__(self, impose: Callable[[], Callable[[], object]]):
        self._impose = impose  # it returns what lifts the limit
        self._lock = threading.Lock()
        self._inside = 0
        self._lift: Callable[[], object] | None = None

    def __enter__(self) -> None:
        with self._lock:
            if not self._inside:
                self._lift = self._impose()
            self._inside += 1

    def __exit__(self, *error) -> None:
        with self._lock:
            self._inside -= 1
            if not self._inside and self._lift is not None:
                lift, self._lift = self._lift, None
                lift()


def _limit_blas() -> Callable[[], object]:
    """Limit the pools that the process shares, in a thread that stays until the limit is lifted.

    threadpoolctl lets only one thread at a time control them, as long as it lives. Of several
    trainings, the first to enter need not be the last to leave.
    """
    imposed, over = threading.Event(), threading.Event()

    def keep() -> None:
        try:
            with threadpool_limits(limits=1, user_api="blas"):
                imposed.set()
                over.wait()
        finally:
            imposed.set()

    def lift() -> None:
        over.set()
        keeper.join()

    keeper = threading.Thread(target=keep, name="bitops-limit", daemon=True)
    keeper.start()
    imposed.wait()
    return lift


def _limit_ours() -> Callable[[], object]:
    _core.limit_to_one_thread(True)
    return partial(_core.limit_to_one_thread, False)


_BLAS, _OURS = _Limit(_limit_blas), _Limit(_limit_ours)


@contextmanager
def _interrupts() -> Iterator[Callable[[], bool]]:
    """Yield a function that tells whether Ctrl-C was pressed, and let it do nothing else.

    So an interrupt takes effect between two steps, where a checkpoint can be exact. A second one
    is not held back. Signals reach only the main thread; a program's own handler stays in place.
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
    """Prints a line an epoch, and moves a bar if there is one."""

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
    """Yield the callback that shows progress, with a bar where possible."""
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
