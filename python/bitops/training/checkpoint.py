"""Checkpoints: they hold all that a training needs to go on as if it had never stopped."""

from __future__ import annotations

import math
import os
from collections.abc import Collection, Iterator
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..files.tensors import MALFORMED, open_tensors, write_tensors
from ..files.writing import try_file
from ..layers.inputs import check_flag
from ..layers.states import (
    Tensors,
    check_generators,
    check_tensors,
    describe_generators,
    flatten,
    from_tensors,
    nest_like,
    to_tensors,
)
from ..layers.training_files import check_parameter, describe_parameter
from ..ops.array import BitArray
from ..ops.checks import check_integer, check_number
from ..ops.warn import warn_caller
from .callbacks import Writer
from .metrics import binary_parameters, check_parameters
from .optim import Optimizer
from .run import Epoch, History, Position, Run
from .schedules import goes_by_step
from .settings import check_model, check_settings, settings_of

__all__ = ["Checkpoint", "planned_epochs", "restore", "start_from"]

FORMAT = "bitops.checkpoint"
VERSION = 1

_KEYS = {
    *("format", "version", "settings", "history", "best", "position", "generators", "sha256"),
    "changed",
}
_OPTIONAL = {"train_error", "validation_error", "validation_loss"}  # results that an epoch may lack


class Checkpoint(Writer):
    """Write the state of a training to a file, from which `fit(..., resume=path)` goes on.

    It is also written at the end, even if Ctrl-C is the end. A training that is interrupted and
    resumed with the same number of threads gives, bit for bit, the weights of one that is not.
    `fit` calls it after all other callbacks, so that it holds what these have changed; only at the
    end it comes first, as what they do then is no part of a training that goes on.

    Parameters
    ----------
    path : path
        Replaced in one step each time, so that a whole checkpoint always exists. Before the first
        step it is tried whether a file can be written there.
    every : int
        Epochs between two checkpoints.
    steps : int, optional
        Steps between two more checkpoints, for epochs that take long.
    overwrite : bool
        Whether the training may replace any file that is there when it starts. By default it is
        refused, unless it is empty or a checkpoint of the same training that is not ahead of this
        run, as that is from which it resumes.

    Notes
    -----
    The file is safetensors. Its tensors are `model.<i>`, the arrays of `model.state()` in order;
    `best.<i>`, the same of the best epoch if validation data chose one; `optimizer.<name>`, those
    of `optimizer.state()`; `order`, the order of the rows in the epoch under way; and `signs.<i>`,
    the packed signs at its start. The metadata entry `bitops` is JSON with `format`, `version`,
    `settings` (what must be equal in the training that resumes), `history`, `position`, the states
    of all random `generators`, `changed` (how parameters are trained, and the numbers of the
    optimizer, as callbacks may have left them), and `sha256` over everything. What callbacks change
    in the arguments of layers is not in it.

    Examples
    --------
    >>> model.fit(x, y, callbacks=[Checkpoint("run.checkpoint")])  # doctest: +SKIP
    >>> model.fit(x, y, resume="run.checkpoint")  # doctest: +SKIP
    """

    def __init__(
        self,
        path: str | os.PathLike,
        every: int = 1,
        *,
        steps: int | None = None,
        overwrite: bool = False,
    ):
        super().__init__(path, overwrite=overwrite)
        for name, value in (("every", every), ("steps", steps)):
            if value is not None:
                check_integer("Checkpoint", name, value, 1)
        self.every, self.steps = every, steps
        self._written: tuple[int, int] | None = None

    def check(self, run: Run) -> None:
        self._written = None
        settings_of(run)  # now, before anything in them changes
        try_file("Checkpoint", self.path)
        if not self.overwrite and self.path.exists() and self.path.stat().st_size:
            self._check_replaced(run)

    def on_batch(self, run: Run) -> None:
        if self.steps is not None and run.step % self.steps == 0:
            self._write(run)

    def on_epoch(self, run: Run) -> None:
        if run.epoch % self.every == 0:
            self._write(run)

    def on_end(self, run: Run) -> None:
        if self._written != (run.step, len(run.history.epochs)):
            self._write(run)

    def _write(self, run: Run) -> None:
        check_parameters(run.model, run.step)  # the last good checkpoint stays
        description, tensors = _snapshot(run)
        write_tensors("Checkpoint", self.path, description, tensors)
        self._written = run.step, len(run.history.epochs)

    def _check_replaced(self, run: Run) -> None:
        """Refuse to lose what is in the file: another training, or more of this one."""
        try:
            with open_tensors(self.path, FORMAT) as file:
                there = _check_description(file.description)
            check_settings(there["settings"], run)
            complete = len(there["history"])
            position = _check_position(there["position"], run, complete)
        except MALFORMED as error:
            reason = str(error)
        else:
            ahead = position.epoch, position.batch, complete
            if ahead <= (run.epoch, run.batch, len(run.history.epochs)):
                return
            reason = f"it is ahead, at step {position.batch} of epoch {position.epoch}"
        raise FileExistsError(
            f"[Checkpoint] {self.path} must be new or what this training resumes from (fit's "
            f"resume), unless with overwrite=True: {reason}"
        )

    def __repr__(self) -> str:
        return f"Checkpoint({str(self.path)!r}, every={self.every})"


def _snapshot(run: Run) -> tuple[dict[str, Any], Tensors]:
    """Collect the description and the arrays of a checkpoint."""
    best = run.history.best
    tensors = {"order": run.order} | to_tensors("model", flatten(run.model.state()))
    tensors |= {f"optimizer.{name}": array for name, array in run.optimizer.state().items()}
    tensors |= to_tensors("signs", (bits.words for bits in run.signs))
    if run.best_state is not None:
        tensors |= to_tensors("best", flatten(run.best_state))
    description = {
        "format": FORMAT,
        "version": VERSION,
        "settings": settings_of(run),
        "history": [asdict(epoch) for epoch in run.history.epochs],
        "best": None if best is None else best.number,
        "position": asdict(run.position),
        "generators": describe_generators(_generators(run)),
        "changed": _changeable(run),
    }
    return description, {name: np.asarray(array, order="C") for name, array in tensors.items()}


def _changeable(run: Run) -> dict[str, Any]:
    """Return what callbacks may change besides arrays, as it is now; `settings` are of the start.

    That is how parameters are trained, and the numbers of the optimizer and of those inside it.
    """
    numbers = {
        f"{place}{name}": value
        for place, optimizer in _optimizers(run.optimizer)
        for name, value in optimizer.settings().items()
        if math.isfinite(value)  # JSON has no others
    }
    parameters = [describe_parameter(parameter) for parameter in run.model.parameters()]
    return {"parameters": parameters, "optimizer": numbers}


def _optimizers(optimizer: Optimizer, place: str = "") -> Iterator[tuple[str, Optimizer]]:
    """Yield an optimizer and those that it holds, such as "inner.", with their places."""
    yield place, optimizer
    for name, value in vars(optimizer).items():
        if isinstance(value, Optimizer):
            yield from _optimizers(value, f"{place}{name}.")


class _Content(NamedTuple):
    """What a checkpoint puts into a run, checked."""

    optimizer: Tensors
    model: Any
    best_state: Any
    order: np.ndarray
    signs: list[BitArray]
    generators: list[dict[str, Any]]
    changed: dict[str, Any]
    history: History
    position: Position


def restore(run: Run, path: str | os.PathLike) -> dict[str, str]:
    """Bring a new run to where a checkpoint was written; return the settings in it.

    Raises
    ------
    OSError
        If the file cannot be opened.
    ValueError
        If it is damaged, is no checkpoint, or belongs to a training with other settings. The run
        is then as it was.
    """
    path = Path(path)
    try:
        description, tensors = _read(path)
        content = _check_content(run, description, tensors)
    except MALFORMED as error:  # some of them from JSON in an unexpected form
        raise ValueError(
            f"[fit] resume must be a checkpoint of this training, got {path}: {error}"
        ) from error
    _apply(run, content)
    return description["settings"]


def start_from(model: Any, path: str | os.PathLike) -> None:
    """Give a model the arrays of one that was trained before, for a training of its own.

    Parameters
    ----------
    model : Sequential
        Changed in place. It must have the layers of the other one.
    path : path
        A checkpoint. Its best epoch counts, or the last step if none was chosen.

    Raises
    ------
    OSError
        If the file cannot be opened.
    ValueError
        If it is damaged, no checkpoint, or of other layers. The model is then as it was.

    Examples
    --------
    >>> start_from(model, "run.checkpoint")  # doctest: +SKIP
    >>> model.fit(more, labels, epochs=5, schedule=1e-4)  # doctest: +SKIP
    """
    path = Path(path)
    template = model.state()
    try:
        description, tensors = _read(path)
        check_model(description["settings"], model)
        kept = "best" if "best.0" in tensors else "model"
        check_tensors(tensors, to_tensors(kept, flatten(template)))
        state = nest_like(template, from_tensors(kept, tensors))
    except MALFORMED as error:
        raise ValueError(
            f"[start_from] {path} must be a checkpoint of the same network: {error}"
        ) from error
    model.restore(state)


def planned_epochs(path: str | os.PathLike) -> int:
    """Return the number of epochs of the training that wrote a checkpoint, complete or not.

    Raises
    ------
    OSError
        If the file cannot be opened.
    ValueError
        If it is damaged or no checkpoint.
    """
    try:
        with open_tensors(Path(path), FORMAT) as file:
            return int(_check_description(file.description)["settings"]["epochs"])
    except MALFORMED as error:
        raise ValueError(f"[planned_epochs] {path} must be a checkpoint: {error}") from error


def _check_content(run: Run, description: dict[str, Any], tensors: Tensors) -> _Content:
    """Return what the file holds, or raise an error if this run cannot go on with it."""
    check_settings(description["settings"], run, resumes=True)
    _check_tensors(tensors, run)
    mark = "optimizer."
    template = run.model.state()
    best = list(from_tensors("best", tensors))
    shapes = [parameter.shape for parameter in binary_parameters(run.model).values()]
    words = list(from_tensors("signs", tensors))
    history = _check_history(description["history"], description["best"])
    position = _check_position(description["position"], run, len(history.epochs))
    _check_epochs(int(description["settings"]["epochs"]), run, position)
    rows = len(run.data[1]) if run.data is not None and position.epoch else 0
    order = tensors["order"]
    if order.dtype != np.int64 or not np.array_equal(np.sort(order), np.arange(rows)):
        raise ValueError(f"order must hold each of {rows} rows once, got {order!r:.80}")
    return _Content(
        {k[len(mark) :]: v for k, v in tensors.items() if k.startswith(mark)},
        nest_like(template, from_tensors("model", tensors)),
        nest_like(template, iter(best)) if best else None,
        order,
        # before the first epoch there are none
        [
            BitArray.from_words(w, s)
            for w, s in zip(words, shapes if position.epoch else [], strict=True)
        ],
        check_generators(description["generators"], _generators(run)),
        _check_changed(description.get("changed"), run),
        history,
        position,
    )


def _check_changed(changed: Any, run: Run) -> dict[str, Any]:
    """Return what callbacks may have changed; earlier files do not say, so that nothing was."""
    own = _changeable(run)
    if changed is None:
        changed = own
    _check_keys("changed", changed, set(own))
    parameters = [
        check_parameter("fit", options)
        for options, _ in zip(changed["parameters"], own["parameters"], strict=True)
    ]
    # an optimizer of one's own may have set others in its steps, which it sets again
    numbers = {name: changed["optimizer"][name] for name in own["optimizer"]}
    for name, value in numbers.items():
        if isinstance(own["optimizer"][name], bool):
            check_flag("fit", name, value)
        elif isinstance(value, bool):
            raise ValueError(f"{name} must be a number, got {value}")
        else:
            check_number("fit", name, value)
    return {"parameters": parameters, "optimizer": numbers}


def _check_history(epochs: list[dict[str, Any]], best: Any) -> History:
    """Return epochs 1, 2, ..., with the one that is kept, if any."""
    history = History([_check_epoch(i, epoch) for i, epoch in enumerate(epochs, 1)])
    if best is not None:
        if type(best) is not int or not 1 <= best <= len(epochs):
            raise ValueError(f"best must be in 1..{len(epochs)}, got {best!r:.80}")
        history.best = history.epochs[best - 1]
    return history


def _check_epoch(number: int, results: dict[str, Any]) -> Epoch:
    if type(results["number"]) is not int or results["number"] != number:
        raise ValueError(f"epoch {number} must be in its place, got {results['number']!r:.80}")
    numbers = {**results, **results.get("metrics", {})}
    for name in numbers.keys() - {"number", "metrics"}:
        if name not in _OPTIONAL or numbers[name] is not None:
            _check_number(name, numbers[name], float)
    return Epoch(**results)


def _check_position(numbers: dict[str, Any], run: Run, complete: int) -> Position:
    """Return where the run stands, in or at the end of an epoch, after some complete ones."""
    position = Position(**numbers)
    if "rows" not in numbers:  # before there were batches of several sizes
        position.rows = position.batch * run.batch_size
    most_of = {"epoch": complete + 1, "batch": run.batches, "wrong": position.rows}
    for name, most in most_of.items():
        value = getattr(position, name)
        is_share = name == "wrong" and not run.targets.has_classes
        _check_number(name, value, float if is_share else int)
        if not 0 <= value <= most:
            raise ValueError(f"{name} must be in 0..{most}, got {value}")
    _check_number("rows", position.rows, int)
    least = position.batch * (run.batch_size if run.stream is None else 1)
    if position.rows < least or (run.stream is None and position.rows > least):
        raise ValueError(f"rows must be those of {position.batch} steps, got {position.rows}")
    if position.epoch < complete:
        raise ValueError(f"epoch must be at least {complete}, got {position.epoch}")
    for name in ("total_loss", "seconds"):
        _check_number(name, getattr(position, name), float)
    return position


def _check_number(name: str, value: Any, kind: type) -> None:
    if type(value) is not int and (kind is int or type(value) is not float):
        raise ValueError(f"{name} must be of type {kind.__name__}, got {value!r:.80}")
    float(value)  # an integer that is too long raises OverflowError


def _apply(run: Run, content: _Content) -> None:
    run.optimizer.restore(content.optimizer)
    run.model.restore(content.model)
    run.best_state, run.order, run.signs = content.best_state, content.order, content.signs
    for generator, state in zip(_generators(run), content.generators, strict=True):
        generator.bit_generator.state = state
    run.history, run.position = content.history, content.position
    parameters = zip(run.model.parameters(), content.changed["parameters"], strict=True)
    for parameter, options in parameters:
        vars(parameter).update(options)
    for place, optimizer in _optimizers(run.optimizer):
        for name in optimizer.settings():
            if place + name in content.changed["optimizer"]:
                setattr(optimizer, name, content.changed["optimizer"][place + name])


def _read(path: Path) -> tuple[dict[str, Any], Tensors]:
    """Read description and tensors, and check that they are undamaged."""
    with open_tensors(path, FORMAT) as file:
        return _check_description(file.description), file.read()


def _check_description(description: dict[str, Any]) -> dict[str, Any]:
    """Check version and keys of a description."""
    version = description.get("version")
    if type(version) is not int or version != VERSION:
        raise ValueError(f"version must be {VERSION}, got {version!r:.80}")
    _check_keys("the description", description, _KEYS, newer={"changed"})
    position = {field.name for field in fields(Position)}
    _check_keys("position", description["position"], position, newer={"rows"})
    return description


def _check_keys(
    what: str, found: dict[str, Any], keys: set[str], newer: Collection[str] = ()
) -> None:
    """Refuse other keys; earlier files lack the newer ones."""
    if not keys - set(newer) <= set(found) <= keys:
        raise ValueError(f"{what} must have the keys {sorted(keys)}, got {list(found)!r:.300}")


def _check_epochs(planned: int, run: Run, position: Position) -> None:
    """Refuse fewer epochs than have begun; warn if another number would have changed these."""
    if run.epochs < position.epoch:
        raise ValueError(f"epochs must be at least {position.epoch}, got {run.epochs}")
    if run.epochs == planned:
        return
    differ = []
    if run.schedule is not None and _rates_differ(planned, run, position):
        differ.append("rates")
    if goes_by_step(run.augment):
        differ.append("images")
    if differ:
        warn_caller(
            f"[fit] resume goes on to epoch {run.epochs}, but the {' and the '.join(differ)} of "
            f"the epochs that are done were those of a training of {planned}: the result is not "
            f"that of {run.epochs} epochs without interruption"
        )


def _rates_differ(planned: int, run: Run, position: Position) -> bool:
    """Tell whether another number of epochs gives those that are done other rates."""
    assert run.schedule is not None
    done, each = position.epoch, 1
    if goes_by_step(run.schedule):
        done, each = max(done - 1, 0) * run.batches + position.batch, run.batches
    ends = planned * each, run.epochs * each
    return any(len({float(run.schedule(place, end)) for end in ends}) > 1 for place in range(done))


def _check_tensors(tensors: Tensors, run: Run) -> None:
    """Refuse tensors that are not those of the model and of the optimizer."""
    arrays = list(flatten(run.model.state()))
    expected = to_tensors("model", arrays)
    if any(name.startswith("best.") for name in tensors):
        expected |= to_tensors("best", arrays)
    expected |= {f"optimizer.{name}": array for name, array in run.optimizer.state().items()}
    check_tensors(tensors, expected)
    for name in tensors.keys() - expected.keys():
        if name != "order" and not name.startswith("signs."):
            raise ValueError(f"tensors must be those of the model and the optimizer, got {name}")


def _generators(run: Run) -> list[np.random.Generator]:
    return [run.rng, *run.model.generators()]
