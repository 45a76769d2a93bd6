"""Target: `fit(..., resume=path)` on forged checkpoints whose checksum is right.

A checkpoint that is refused leaves the model as it was; one that is taken can be trained on.
"""

from __future__ import annotations

import functools
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import safetensors

from bitops.layers import BatchNorm, BinaryDense, Dropout, Sequential, Sign
from bitops.training.callbacks import Callback
from bitops.training.checkpoint import Checkpoint
from bitops.training.run import Run
from fuzz.documents import forge
from fuzz.model_files import Document, forged_tensors, safetensors_bytes
from fuzz.reader import Reader, allowed

X = np.random.default_rng(0).integers(0, 256, (6, 3), np.uint8)
Y = np.array([0, 1, 0, 1, 1, 0])


OPTIONS: dict[str, Any] = {"epochs": 2, "batch_size": 4, "seed": 0, "verbose": False}
OPTIONS |= {"validation": (X, Y)}


class _Stop(Callback):
    """Ends a training after so many steps."""

    def __init__(self, steps: int):
        self.steps = steps

    def on_batch(self, run: Run) -> None:
        run.stop = run.step >= self.steps


def _model() -> Sequential:
    return Sequential(
        BinaryDense(3, 4, seed=0),
        BatchNorm(4),
        Sign(),
        Dropout(0.5, seed=0),
        BinaryDense(4, 2, seed=1),
    )


@functools.cache
def documents() -> list[Document]:
    """Checkpoints in the second epoch, and after the first."""
    found = []
    for steps in (3, 2):
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "checkpoint"
            _model().fit(X, Y, callbacks=[Checkpoint(path, steps=1), _Stop(steps)], **OPTIONS)
            with safetensors.safe_open(path, framework="numpy") as file:
                description = json.loads(file.metadata()["bitops"])
                found.append((description, {name: file.get_tensor(name) for name in file.keys()}))
    return found


def run(data: bytes) -> None:
    reader = Reader(data)
    if reader.chance(8):
        content = reader.rest()
    else:
        description, tensors = documents()[reader.below(2)]
        forged = forge(reader, description, 3)
        content = safetensors_bytes(forged, forged_tensors(reader, tensors))
    model = _model()
    before = _lists(model.state())
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "checkpoint"
        path.write_bytes(content)
        # values that are NaN or soon will be end a training
        with allowed(FloatingPointError):
            try:
                model.fit(X, Y, resume=path, **OPTIONS)
            except ValueError:
                assert _lists(model.state()) == before, "a refused checkpoint changed the model"
                raise


def _lists(state: Any) -> Any:
    """Arrays in lists as lists of numbers."""
    return [_lists(part) for part in state] if isinstance(state, list) else state.tolist()
