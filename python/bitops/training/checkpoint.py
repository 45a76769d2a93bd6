"""Checkpoints: all that a training depends on, so that it goes on as if it had never stopped."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import asdict
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import safetensors

from ..files import digest, parse_description, write_tensors
from ..ops.array import BitArray
from .callbacks import Callback, Epoch, History, Run
from .metrics import binary_parameters, check_parameters

__all__ = ["Checkpoint", "restore"]

FORMAT = "bitops.checkpoint"
VERSION = 1

Tensors = dict[str, np.ndarray]


class Checkpoint(Callback):
    """Write the state of the training to a file, from which `fit(..., resume=path)` goes on.

    It is written at the end too, also when Ctrl-C is the end. A training that is interrupted and
    resumed, with the same number of threads, gives the weights of one that is not, bit for bit.

    Parameters
    ----------
    path : path
        Replaced in one step each time, so that there always is a whole checkpoint.
    every : int
        Epochs between two checkpoints.
    steps : int, optional
        Also write after every so many steps, for epochs that take long.

    Notes
    -----
    The file is safetensors. `model.<i>` are the arrays of `model.state()` in order, `best.<i>` the
    same of the best epoch if validation data chose it, `optimizer.<name>` those of
    `optimizer.state()`, `order` the row order of the epoch under way, `signs.<i>` the packed signs
    at its start. The metadata entry `bitops` is JSON with `format`, `version`, `settings` (what
    must be equal in the training that resumes), `history`, the position, the states of all random
    generators, and `sha256` over everything.
    """

    def __init__(self, path: str | os.PathLike, every: int = 1, *, steps: int | None = None):
        self.path = Path(path)
        for name, value in (("every", every), ("steps", steps)):
            if value is not None and value < 1:
                raise ValueError(f"[Checkpoint] {name} must be >= 1, got {value}")
        self.every, self.steps = every, steps
        self._written: tuple[int, int] | None = None

    def on_start(self, run: Run) -> None:
        if not self.path.parent.is_dir():
            raise FileNotFoundError(f"[Checkpoint] no such directory: {self.path.parent}")
        self._written = None
        settings_of(run)  # now, before anything in them changes

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
        write_tensors(self.path, description, tensors)
        self._written = run.step, len(run.history.epochs)

    def __repr__(self) -> str:
        return f"Checkpoint({str(self.path)!r}, every={self.every})"


def _snapshot(run: Run) -> tuple[dict[str, Any], Tensors]:
    """Description and arrays of a checkpoint."""
    best = run.history.best
    tensors = {"order": run.order} | _numbered("model", _flat(run.model.state()))
    tensors |= {f"optimizer.{name}": array for name, array in run.optimizer.state().items()}
    tensors |= _numbered("signs", (bits.words for bits in run.signs))
    if run.best_state is not None:
        tensors |= _numbered("best", _flat(run.best_state))
    description = {
        "format": FORMAT,
        "version": VERSION,
        "settings": settings_of(run),
        "history": [asdict(epoch) for epoch in run.history.epochs],
        "best": None if best is None else best.number,
        "position": {name: getattr(run, name) for name in _POSITION},
        "generators": [_as_json(g.bit_generator.state) for g in _generators(run)],
    }
    return description, {name: np.asarray(array, order="C") for name, array in tensors.items()}


_POSITION = ("epoch", "batch", "total_loss", "wrong", "seconds")


class _Restored(NamedTuple):
    """All that a checkpoint changes in a run, checked."""

    optimizer: Tensors
    model: Any
    best_state: Any
    order: np.ndarray
    signs: list[BitArray]
    generators: list[dict[str, Any]]
    history: History
    position: dict[str, Any]


def restore(run: Run, path: str | os.PathLike) -> None:
    """Put a new run where a checkpoint was written.

    Raises
    ------
    OSError
        If the file cannot be opened.
    ValueError
        If it is damaged, no checkpoint, or one of a training with other settings. The run is then
        as it was.
    """
    path = Path(path)
    path.open("rb").close()  # OSErrors come from here, in their usual form
    try:
        restored = _checked(run, *_read(path))
    except (
        *(safetensors.SafetensorError, ValueError, TypeError),
        *(ArithmeticError, AttributeError, LookupError),  # of JSON in an unexpected form
    ) as error:
        raise ValueError(
            f"[fit] resume must be a checkpoint of this training, got {path}: {error}"
        ) from error
    _apply(run, restored)


def _checked(run: Run, description: dict[str, Any], tensors: Tensors) -> _Restored:
    """What the file says, or an error if this run could not go on with it."""
    _check_settings(_in_present_words(description["settings"]), settings_of(run))
    _check_tensors(tensors, run)
    mark = "optimizer."
    template = run.model.state()
    best = list(_chosen("best", tensors))
    shapes = [parameter.shape for parameter in binary_parameters(run.model).values()]
    words = list(_chosen("signs", tensors))
    history = _history(description["history"], description["best"])
    position = _position(description["position"], run, len(history.epochs))
    rows = len(run.data[1]) if position["epoch"] else 0
    order = tensors["order"]
    if order.dtype != np.int64 or not np.array_equal(np.sort(order), np.arange(rows)):
        raise ValueError(f"order must hold each of {rows} rows once, got {order!r:.80}")
    return _Restored(
        {k[len(mark) :]: v for k, v in tensors.items() if k.startswith(mark)},
        _shaped(template, _chosen("model", tensors)),
        _shaped(template, iter(best)) if best else None,
        order,
        # before the first epoch there are none
        [BitArray.from_words(w, s) for w, s in zip(words, shapes if rows else [], strict=True)],
        _generator_states(description["generators"], run),
        history,
        position,
    )


def _history(epochs: list[dict[str, Any]], best: Any) -> History:
    """Epochs 1, 2, ..., and the one that is kept, if any."""
    history = History([_epoch(i, fields) for i, fields in enumerate(epochs, 1)])
    if best is not None:
        if type(best) is not int or not 1 <= best <= len(epochs):
            raise ValueError(f"best must be in 1..{len(epochs)}, got {best!r:.80}")
        history.best = history.epochs[best - 1]
    return history


def _epoch(number: int, fields: dict[str, Any]) -> Epoch:
    if type(fields["number"]) is not int or fields["number"] != number:
        raise ValueError(f"epoch {number} must be in its place, got {fields['number']!r:.80}")
    for name in fields.keys() - {"number"}:
        if name != "validation_error" or fields[name] is not None:
            _check_number(name, fields[name], float)
    return Epoch(**fields)


def _position(position: dict[str, Any], run: Run, complete: int) -> dict[str, Any]:
    """The epoch under way or just complete, and where in it the run stands."""
    rows = len(run.data[1])
    for name, most in (("epoch", complete + 1), ("batch", run.batches), ("wrong", rows)):
        _check_number(name, position[name], int)
        if not 0 <= position[name] <= most:
            raise ValueError(f"{name} must be in 0..{most}, got {position[name]}")
    if position["epoch"] < complete:
        raise ValueError(f"epoch must be at least {complete}, got {position['epoch']}")
    for name in ("total_loss", "seconds"):
        _check_number(name, position[name], float)
    return {name: position[name] for name in _POSITION}


def _check_number(name: str, value: Any, kind: type) -> None:
    if type(value) is not int and (kind is int or type(value) is not float):
        raise ValueError(f"{name} must be of type {kind.__name__}, got {value!r:.80}")
    float(value)  # an integer that is too long raises OverflowError


def _apply(run: Run, restored: _Restored) -> None:
    run.optimizer.restore(restored.optimizer)
    run.model.restore(restored.model)
    run.best_state, run.order, run.signs = restored.best_state, restored.order, restored.signs
    for generator, state in zip(_generators(run), restored.generators, strict=True):
        generator.bit_generator.state = state
    run.history = restored.history
    for name, value in restored.position.items():
        setattr(run, name, value)


def _read(path: Path) -> tuple[dict[str, Any], Tensors]:
    """Description and tensors, undamaged."""
    with safetensors.safe_open(path, framework="numpy") as file:
        description = parse_description((file.metadata() or {}).get("bitops", ""), FORMAT)
        if description.get("version") != VERSION:
            raise ValueError(f"version must be {VERSION}, got {description.get('version')!r:.80}")
        tensors = {name: file.get_tensor(name) for name in file.keys()}
    if description.get("sha256") != digest(description, tensors):
        raise ValueError("sha256 must be that of the content, got another one")
    return description, tensors


def settings_of(run: Run) -> dict[str, str]:
    """In words, all that a checkpoint does not carry and that must be equal in the next run."""
    if run.settings is None:
        run.settings = {
            **{f"layer {i}": _words(layer) for i, layer in enumerate(run.model.flat_layers())},
            "optimizer": f"{run.optimizer.name} {run.optimizer.settings()}",
            "loss": _name(run.loss),
            "schedule": _name(run.schedule),
            "augment": _name(run.augment),
            "epochs": str(run.epochs),
            "batch_size": str(run.batch_size),
            "seed": run.seed,
            "x": _describe(run.data[0]),
            "y": _describe(run.data[1]),
            "validation x": _describe(None if run.validation is None else run.validation[0]),
            "validation y": _describe(None if run.validation is None else run.validation[1]),
        }
    return run.settings


def _name(function: Any) -> str:
    """A callable in words that are the same in another process: code, or an object's settings."""
    if isinstance(function, partial):
        return f"partial({_name(function.func)}, {function.args}, {function.keywords})"
    return getattr(function, "__qualname__", None) or _words(function)


def _words(thing: Any) -> str:
    """The repr without addresses, which are others in every process."""
    return re.sub(r" at 0x[0-9A-Fa-f]+", "", repr(thing))


def _describe(x: Any) -> str:
    """Shape, type and content of data."""
    if x is None:
        return "None"
    array = np.ascontiguousarray(x.words if isinstance(x, BitArray) else x)
    kind = "bits" if isinstance(x, BitArray) else x.dtype.name
    content = sha256(array.view(np.uint8).data).hexdigest()[:16]
    return f"{kind} of shape {tuple(x.shape)}, sha256 {content}"


def _in_present_words(settings: dict[str, str]) -> dict[str, str]:
    """Settings of a checkpoint, with the flags of layers called what they are called now."""

    def renamed(words: str) -> str:
        return re.sub(r"\b(alpha|k_map)=True", lambda flag: f"{_FLAGS[flag[1]]}=True", words)

    return {
        name: renamed(words) if name.startswith("layer ") else words
        for name, words in settings.items()
    }


# what the flags of layers were called when the first checkpoints were written
_FLAGS = {"alpha": "scale_weights", "k_map": "scale_input"}


def _check_settings(there: dict[str, str], here: dict[str, str]) -> None:
    """Refuse settings that differ, and say which."""
    differ = [
        f"{name} is {there.get(name, 'none')} there and {here.get(name, 'none')} here"
        for name in {**there, **here}
        if there.get(name) != here.get(name)
    ]
    if differ:
        more = [f"and {len(differ) - 4} more"] if len(differ) > 4 else []
        raise ValueError("; ".join(differ[:4] + more))


def _check_tensors(tensors: Tensors, run: Run) -> None:
    """Refuse tensors that are not those of the model and of the optimizer."""
    arrays = list(_flat(run.model.state()))
    expected = _numbered("model", arrays)
    if any(name.startswith("best.") for name in tensors):
        expected |= _numbered("best", arrays)
    expected |= {f"optimizer.{name}": array for name, array in run.optimizer.state().items()}
    for name, array in expected.items():
        found = tensors.get(name)
        if found is None or (found.shape, found.dtype) != (array.shape, array.dtype):
            got = "none" if found is None else f"{found.dtype} of shape {found.shape}"
            raise ValueError(f"{name} must be {array.dtype} of shape {array.shape}, got {got}")
        if array.dtype.kind in "iu" and (found < 0).any():  # steps, batches
            raise ValueError(f"{name} must count from 0, got {found!r:.80}")
    for name in tensors.keys() - expected.keys():
        if name != "order" and not name.startswith("signs."):
            raise ValueError(f"tensors must be those of the model and the optimizer, got {name}")


def _generator_states(states: list[dict[str, Any]], run: Run) -> list[dict[str, Any]]:
    """States of the random generators, each tried on another generator of its kind."""
    there = [state["bit_generator"] for state in states]
    here = [generator.bit_generator.state["bit_generator"] for generator in _generators(run)]
    if there != here:
        raise ValueError(f"random generators are {there} there and {here} here")
    restored = [_from_json(state) for state in states]
    for generator, state in zip(_generators(run), restored, strict=True):
        type(generator.bit_generator)().state = state
    return restored


def _generators(run: Run) -> list[np.random.Generator]:
    return [run.rng, *run.model.generators()]


def _as_json(state: Any) -> Any:
    """The state of a bit generator with lists for arrays."""
    if isinstance(state, dict):
        return {key: _as_json(value) for key, value in state.items()}
    return state.tolist() if isinstance(state, np.ndarray | np.generic) else state


def _from_json(state: Any) -> Any:
    if isinstance(state, dict):
        return {key: _from_json(value) for key, value in state.items()}
    return np.array(state, np.uint64) if isinstance(state, list) else state


def _flat(state: Any) -> Iterator[np.ndarray]:
    """The arrays in the lists of lists that `state()` gives."""
    if isinstance(state, list | tuple):
        for part in state:
            yield from _flat(part)
    else:
        yield np.asarray(state)


def _shaped(template: Any, arrays: Iterator[np.ndarray]) -> Any:
    """The arrays in lists like those of `template`."""
    if isinstance(template, list | tuple):
        return [_shaped(part, arrays) for part in template]
    return next(arrays)


def _numbered(name: str, arrays) -> Tensors:
    return {f"{name}.{i}": array for i, array in enumerate(arrays)}


def _chosen(name: str, tensors: Tensors) -> Iterator[np.ndarray]:
    """The arrays that `_numbered` has named."""
    count = sum(key.startswith(f"{name}.") for key in tensors)
    return (tensors[f"{name}.{i}"] for i in range(count))
