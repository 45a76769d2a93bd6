"""The training loop: it runs batches, schedule and validation, and keeps the best model."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from typing import Literal

import numpy as np

from ..layers.inputs import Codes, check_flag
from ..ops.array import BitArray
from ..ops.checks import as_generator, check_integer, real_array
from .callbacks import Callback, check_files
from .checkpoint import Checkpoint, restore
from .losses import squared_hinge
from .metrics import binary_parameters, check_parameters, first_not_finite
from .optim import Optimizer
from .options import (
    Sources,
    as_augment,
    as_callbacks,
    as_loss,
    as_metrics,
    as_optimizer,
    as_rate,
    as_schedule,
    as_targets,
    as_validation,
    check_resume,
    check_source,
    describe_seed,
    warn_of_frozen,
)
from .process import held_interrupts, kept_memory, one_pool
from .progress import progress_of
from .run import Augment, Epoch, History, Loss, Position, Run, Trainable, choose_monitor
from .schedules import Schedule, goes_by_step
from .statistics import recalibrate as take_statistics
from .streams import Batch
from .validation import try_metrics, validate

__all__ = ["fit"]


def fit(
    model: Trainable,
    x,
    y=None,
    *,
    epochs: int = 20,
    batch_size: int = 100,
    steps_per_epoch: int | None = None,
    prefetch: int = 2,
    validation: tuple | None = None,
    sample_weight=None,
    class_weight=None,
    schedule: Schedule | str | float | None = None,
    optimizer: Optimizer | str | None = None,
    loss: Loss | str = squared_hinge,
    accumulate: int = 1,
    metrics=(),
    monitor: str | None = None,
    mode: Literal["min", "max"] | None = None,
    seed=0,
    verbose: int = 1,
    augment: Augment | None = None,
    callbacks: Callback | Sequence[Callback] = (),
    resume: str | os.PathLike | None = None,
    blas: bool | None = None,
    recalibrate: int = 0,
) -> History:
    """Train a model in place.

    Parameters
    ----------
    model : Sequential
        It ends in one score for each class, or one number for each output. A trainer such as `EBP`
        passes itself.
    x : BitArray or array_like of shape (n, in_features), uint8 or real; or iterable
        Rows; or, without y, batches (x, y) or (x, y, sample_weight) from an iterable, of as many
        rows as it likes. Where it ends it starts anew, unless it is an iterator, which must have
        batches for all epochs. See the notes.
    y : array_like of shape (n,), integer, or what the loss takes
        Labels. Losses say in `targets` whether they take others: probabilities, flags, values, or
        a tuple (labels, scores) for `Distillation`.
    epochs, batch_size : int
        Every epoch takes the rows in a new order, in n // batch_size full batches, and skips the
        rows left over. A batch_size above n means n. Batch normalisation needs at least two rows,
        or positions of images, in a batch.
    steps_per_epoch : int, optional
        Batches of an epoch where x is an iterable; by default its length.
    prefetch : int
        Batches that a thread draws ahead from the iterable, and copies; 0 draws each when it is
        needed, without a thread or a copy.
    validation : tuple of (x, y), optional
        Error and loss on it are measured after every epoch. At the end `model` holds the weights
        of the best epoch, the first of equal ones; without validation those of the last.
    sample_weight : array_like of shape (n,), optional
        Weight of each row, finite and not negative. It multiplies what the row adds to the loss,
        which stays divided by the number of rows.
    class_weight : "balanced", array_like of shape (classes,) or mapping, optional
        Weight of the rows of each class, or of the labels of a mapping, which leaves the others at
        1. "balanced" is n / (classes * rows of the class).
    schedule : callable (epoch, epochs) -> learning rate, number or name, optional
        A number is the rate of all epochs. A name, "constant", "cosine_decay", "exponential_decay",
        "halving" or "one_cycle", starts from the rate of the optimizer, which is the largest one of
        "one_cycle". By default an optimizer that is given or named keeps its rate, and the default
        one follows `ExponentialDecay()`. `OneCycle` and `PerStep` set the rate of every step.
    optimizer : Optimizer or name, optional
        "adam", "adamax", "bop", "sgd" and "shift_adamax" are fresh ones, with their own default
        rates, over the model's parameters. So is the default, an `Adam`.
    loss : callable (scores, targets) -> (value, gradient), or name
        A name is "binary_cross_entropy", "cross_entropy", "distillation", "hinge", "huber", "mae",
        "mse" or "squared_hinge". To weigh rows, it takes (scores, targets, sample_weight).
    accumulate : int
        Parts of nearly equal size in which the rows of a step pass the model, one after the other.
        Their gradients are added up, so that activations take less memory. Batch normalisation
        takes the statistics of each part.
    metrics : name, callable (scores, targets) -> float, or sequence of them
        Measured on the validation data after every epoch: "accuracy", "top_5_accuracy" (or any
        other number), "mae", "mse", "rmse", "r2". History calls them "validation_accuracy" and so
        on; a function goes by its `__name__`. Each is called once before the first step too, with
        the targets and scores of a few rows, over and over. Of labels and a teacher's scores,
        metrics get the labels. Accuracies are for targets that name classes.
    monitor : str, optional
        The quantity by which the best epoch is chosen: "loss", "train_error", "validation_error",
        "validation_loss", or that of a metric. By default it is the validation error, and the
        validation loss where targets are numbers.
    mode : {"min", "max"}, optional
        Whether less or more of it is better; by default as its name ends: less of "error", "loss",
        "mae", "mse" and "rmse", more of "accuracy" and "r2". Of others it must be given.
    seed : int, SeedSequence or Generator
        It decides the order of the rows. The same seed, data and model give the same weights; see
        the notes.
    verbose : int
        0 is silent. 1 prints a line an epoch, and in the first one how long the training will take;
        if tqdm is installed and the output is a terminal, a progress bar below it shows loss,
        error, images a second and time left.
    augment : callable (x, rng) -> x, optional
        Changes a copy of the rows of a step, as the functions of `bitops.training.augment` do. Its
        random numbers come from the generator that orders the rows. One whose attribute `by_step`
        is True is called with (x, rng, step, steps), where steps count from 0.
    callbacks : Callback or sequence of Callback
        Called in order, such as `EarlyStopping` and `Log`. A `Checkpoint` is called after all
        others, wherever it stands, as it keeps what they have changed.
    resume : path, optional
        A checkpoint to go on from. Its training must have been started with the same model, data
        and options; only `epochs` may be another number. Model and optimizer take their values
        from it.
    blas : bool, optional
        Whether several threads go to BLAS rather than to bitops; see the notes. By default they do
        where no weights are binary.
    recalibrate : int
        Rows of x from which the running statistics of every BatchNorm are taken anew after each
        epoch, before it is measured; see `recalibrate`. By default they are those that the steps
        left, of the last batches alone. Weights do not depend on it.

    Returns
    -------
    History

    Raises
    ------
    TypeError, ValueError
        If an option or the data are not as above; then no step has been done. Learning rates must
        be finite and not negative. They are checked epoch by epoch, and batches of an iterable one
        by one.
    FloatingPointError
        If NaN or infinity appears in the loss or in the parameters. The message names the step and
        the first layer concerned. Likewise in the loss and the metrics of the validation data.
    KeyboardInterrupt
        After Ctrl-C, between two steps and after the callbacks' `on_end`; the model holds its last
        weights. A second Ctrl-C does not wait.

    Notes
    -----
    A thread draws batches from an iterable, checks and copies them while the training computes, so
    that the iterable may fill the same arrays for each batch. What it raises, `fit` raises; when
    `fit` ends, the thread has ended. `resume` draws all batches before the checkpoint once more and
    passes over them, and is exact if they come in the same order.

    `resume` with another number of epochs is exact if the schedule gives the epochs that are done
    the same rates for both numbers, as "constant", `StepDecay` and `Halving` do. Otherwise it draws
    a warning. The number of rows for `recalibrate` may change too: then the epoch that is kept so
    far, and the last one, are first measured by the new one.

    During the training only one of BLAS and bitops has several threads: bitops if the model has
    binary weights, otherwise BLAS; `blas` says which. Without threadpoolctl, which alone can limit
    BLAS, it always is BLAS. In the main thread, glibc is asked to keep freed memory meanwhile,
    unless variables of the environment such as ``MALLOC_TRIM_THRESHOLD_`` tell it what to do. All
    this is of the whole process. Where trainings overlap, in several threads or one in a callback
    of another, it holds until the last one ends.

    The products of binary layers, and Adam's steps, give the same bits on every ISA and with any
    number of threads. float32 BLAS computes the products of real layers, and the gradient of
    binary weights under real inputs, mostly those of a first layer. Its bits depend on its version,
    on the CPU, and on the number of its threads where it has several. So weights are reproducible
    to the bit with the same NumPy on the same kind of CPU: for any number of threads if BLAS has
    only one, otherwise for the same number of BLAS threads.

    Examples
    --------
    >>> import numpy as np
    >>> from bitops.layers import BinaryDense, Sequential
    >>> x = np.random.default_rng(0).standard_normal((200, 16), dtype=np.float32)
    >>> model = Sequential(BinaryDense(16, 2, seed=0))
    >>> history = fit(model, x, (x[:, 0] > 0).astype(int), epochs=3, batch_size=50, verbose=0)
    >>> len(history.epochs)
    3
    """
    epochs = check_integer("fit", "epochs", epochs, 1)
    batch_size = check_integer("fit", "batch_size", batch_size, 1)
    accumulate = check_integer("fit", "accumulate", accumulate, 1)
    prefetch = check_integer("fit", "prefetch", prefetch, 0)
    recalibrate = check_integer("fit", "recalibrate", recalibrate, 0)
    if recalibrate == 1:
        raise ValueError("[fit] recalibrate must be 0 or at least 2, got 1")
    if not isinstance(verbose, bool):
        verbose = check_integer("fit", "verbose", verbose, 0)
    if blas is not None:
        blas = check_flag("fit", "blas", blas)
    called = as_callbacks(callbacks)
    check_resume(resume)
    augment = as_augment(augment)
    loss = as_loss(loss)
    targets = as_targets(loss, y, validation)
    # augmented images may have another size
    may_change = augment is not None and not recalibrate
    sources = Sources(model, loss, targets, class_weight, accumulate, may_change)
    if y is not None:
        source = sources.of_rows(x, y, sample_weight, batch_size)
    else:
        source = sources.of_batches(x, steps_per_epoch, prefetch)
    check_source(model, source, sample_weight, steps_per_epoch, recalibrate)
    rng = as_generator("fit", seed)
    chosen = as_optimizer(model, optimizer)
    run = Run(
        model=model,
        optimizer=chosen,
        data=source.data,
        validation=as_validation(model, targets, validation),
        epochs=epochs,
        batch_size=batch_size if source.data is None else min(batch_size, len(source.data[1])),
        schedule=as_schedule(schedule, None if optimizer is None else chosen),
        loss=loss,
        augment=augment,
        rng=rng,
        seed=describe_seed(seed, rng),
        targets=targets,
        weight=source.weight,
        stream=source.stream,
        accumulate=accumulate,
        recalibrate=recalibrate,
        metrics=as_metrics(metrics, validation, targets),
        class_weight=source.class_weight,
        callback_settings={k: words for c in called for k, words in c.settings().items()},
    )
    run.monitor = choose_monitor(run, monitor, mode)
    try_metrics(run)
    if resume is not None:
        settings = restore(run, resume)
        if recalibrate and settings.get("recalibrate") != str(recalibrate):
            _measure_again(run)
    warn_of_frozen(model)
    _train(run, called, verbose, blas)
    return run.history


def _train(run: Run, callbacks: list[Callback], verbose: int, blas: bool | None) -> None:
    """Run to the end, and leave the best model."""
    if blas is None:
        blas = not binary_parameters(run.model)
    check_files(callbacks)
    keepers = [callback for callback in callbacks if isinstance(callback, Checkpoint)]
    others = [callback for callback in callbacks if not isinstance(callback, Checkpoint)]
    callbacks = [*others, *keepers]
    with (
        held_interrupts() as interrupted,
        one_pool(blas),
        kept_memory(),
        progress_of(run, verbose) as progress,
    ):
        for callback in callbacks:
            callback.check(run)
        for callback in callbacks:
            callback.on_start(run)
        with nullcontext() if run.stream is None else run.stream.opened(run.step, run.steps):
            _run_epochs(run, [progress, *callbacks], interrupted)
        run.interrupted = interrupted()
        # what others do at the end is no part of a training that goes on
        for callback in [*keepers, *others]:
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
            if not goes_by_step(run.schedule):
                _set_rate(run, run.epoch - 1, run.epochs)
        while run.batch < run.batches:
            batch = _next_batch(run, over)
            if batch is None:
                break
            with _quietly():
                _run_step(run, batch)
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


def _quietly() -> np.errstate:
    """Let NumPy not warn of numbers next to zero, nor of what soon ends in an error of our own."""
    return np.errstate(over="ignore", under="ignore", invalid="ignore")


def _set_rate(run: Run, place: int, places: int) -> None:
    """Set the learning rate of an epoch or of a step."""
    rate = run.optimizer.lr if run.schedule is None else run.schedule(place, places)
    run.optimizer.lr = as_rate("learning rates", rate)


def _begin_epoch(run: Run) -> None:
    """Draw the order of the rows, and remember the signs that the epoch starts from."""
    run.position = Position(epoch=run.epoch + 1)
    if run.data is not None:
        run.order = run.rng.permutation(len(run.data[1]))
    run.signs = [parameter.signs() for parameter in binary_parameters(run.model).values()]


def _next_batch(run: Run, over: Callable[[], bool]) -> Batch | None:
    """Return the rows of the next step, augmented; None if there are none before the end."""
    if run.data is None:
        assert run.stream is not None
        batch = run.stream.next(over)
        if batch is None:
            return None
        run.streamed = batch.x
    else:
        rows = run.order[run.batch * run.batch_size : (run.batch + 1) * run.batch_size]
        weight = None if run.weight is None else run.weight[rows]
        batch = Batch(run.data[0][rows], run.data[1][rows], weight)
    if run.augment is None:
        return batch
    place = (run.step, run.steps) if goes_by_step(run.augment) else ()
    x = run.augment(batch.x if run.streamed is None else np.copy(batch.x), run.rng, *place)
    if not isinstance(x, BitArray | Codes):
        x = real_array("fit", "what augment returns", x)
    if x.ndim < 2 or len(x) != len(batch.y):
        raise ValueError(f"[fit] augment must keep the {len(batch.y)} rows, got shape {x.shape}")
    return batch._replace(x=x)


def _run_step(run: Run, batch: Batch) -> None:
    """Compute rows forward and backward, and update the parameters."""
    if goes_by_step(run.schedule):
        _set_rate(run, run.step, run.steps)
    run.position.batch += 1
    cause: ValueError | None = None
    try:
        value, wrong = run.add_gradients(run, batch)
    except ValueError as error:  # packing refuses NaN, which then never reaches the loss
        value, wrong, cause = math.nan, 0, error
    if not math.isfinite(value):
        weights = {} if batch.weight is None else {"sample_weight": batch.weight}
        loss = partial(run.loss, **weights)
        where = first_not_finite(run.model, batch.x, batch.y, loss)
        if cause is not None and where is None:
            raise cause
        raise FloatingPointError(
            f"[fit] loss must be finite, got {where or value} at step {run.step}, epoch {run.epoch}"
        ) from cause
    run.optimizer.step()
    run.position.total_loss += float(value)
    run.position.wrong += wrong
    run.position.rows += len(batch.y)


def _finish_epoch(run: Run, started: float) -> None:
    """Validate, extend the history, and keep the model if it is the best so far."""
    check_parameters(run.model, run.step)
    with _quietly():
        error, loss, metrics = _measure(run)
    seconds = run.position.seconds = started + time.perf_counter()
    rate = run.optimizer.lr
    epoch = Epoch(run.epoch, rate, run.mean_loss, run.error, error, seconds, loss, metrics)
    run.history.epochs.append(epoch)
    _keep_best(run, epoch)


def _keep_best(run: Run, epoch: Epoch) -> None:
    """Keep the model of an epoch if it is the best so far."""
    best = run.history.best
    if best is None or run.monitor is None or run.monitor.is_better(epoch, best):
        run.history.best = epoch
        run.best_state = None if run.monitor is None else run.model.state()


def _measure_again(run: Run) -> None:
    """Measure the models of a checkpoint under precise statistics, and keep the better one."""
    # a checkpoint after the last step of an epoch may be older than what ended the epoch
    present, ends_epoch = run.model.state(), 0 < run.epoch == len(run.history.epochs)
    kept = [] if run.best_state is None else [(run.history.best, run.best_state)]
    if ends_epoch and run.history.best is not run.history.epochs[-1]:
        kept.append((run.history.epochs[-1], present))
    elif ends_epoch:
        kept = [(run.history.best, present)]
    if not kept:
        return
    run.history.best = run.best_state = None
    for epoch, state in kept:
        assert epoch is not None  # an epoch that is kept is complete
        run.model.restore(state)
        error, loss, metrics = _measure(run)
        epoch = replace(epoch, validation_error=error, validation_loss=loss, metrics=metrics)
        run.history.epochs[epoch.number - 1] = epoch
        _keep_best(run, epoch)
    if not ends_epoch:
        run.model.restore(present)


def _measure(run: Run) -> tuple[float | None, float | None, dict[str, float]]:
    """Return error, loss and metrics of the validation data, under precise statistics if asked."""
    if run.recalibrate:
        assert run.data is not None
        rows = run.batch_size // run.accumulate
        take_statistics(run.model, run.data[0], rows=run.recalibrate, batch_size=rows)
    return validate(run)
