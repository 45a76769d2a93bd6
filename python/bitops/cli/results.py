"""What demo, train, eval and report have in common: options as a plan, and lines of output.

Loads the training code, so that commands import it only when they run.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import io
from ..data.datasets import Dataset
from ..files.text import printable
from ..files.writing import try_file
from ..layers import Packed, Sequential
from ..recipes.plan import Plan
from ..training.callbacks import Callback
from ..training.compare import compare
from ..training.run import Run
from . import runs

if TYPE_CHECKING:
    from ..recipes.teacher import Lessons

__all__ = [
    "Begin",
    "check_packed",
    "describe_data",
    "describe_error",
    "describe_images",
    "describe_kept",
    "describe_plan",
    "describe_seconds",
    "plan_options",
    "rescue",
    "save",
    "warn_of_pixels",
]


class Begin(Callback):
    """Write what a run begins with once its training does, as it may be refused before.

    Scores of a teacher are written, too: a run that is resumed needs the same, which the teacher
    may not compute again, on another machine or if its file is gone.
    """

    def __init__(self, folder: Path, record: runs.Record, lessons: Lessons | None):
        self._folder, self._record, self._lessons = folder, record, lessons

    def check(self, run: Run) -> None:
        if self._lessons is not None:
            try_file("train", self._folder / runs.LESSONS)

    def on_start(self, run: Run) -> None:
        path = self._folder / runs.LESSONS
        if self._lessons is None:
            path.unlink(missing_ok=True)  # those of a run that this one replaces
        else:
            self._lessons.save(path)
        runs.write_record(self._folder, self._record)


def plan_options(args: argparse.Namespace) -> dict[str, Any]:
    """Return the numbers of a plan among the options of a command; None where not given."""
    return {field.name: getattr(args, field.name, None) for field in fields(Plan)}


def describe_data(data: Dataset) -> str:
    """State name, numbers and size of the images."""
    return f"{printable(data.name)}: {describe_images(data)}"


def describe_images(data: Dataset) -> str:
    """State numbers and size of the images."""
    size = " x ".join(map(str, data.image_shape))
    validation = f", {len(data.y_validation):,} validation" * (len(data.y_validation) > 0)
    return (
        f"{len(data.y_train):,} training{validation} and {len(data.y_test):,} test images of {size}"
    )


_FIRST = ("epochs", "batch_size", "lr", "dropout")
_ELSEWHERE = ("width", "depth", "temperature")  # said of the network, and of a teacher


def describe_plan(
    plan: Plan, seed: int, start: Path | None = None, teacher: Path | None = None
) -> str:
    """State the numbers of a training, and the networks that it begins with."""
    words = [plan.words(name) for name in _FIRST]
    words.append(f"seed {seed}")
    for field in fields(Plan):
        if field.name not in (*_FIRST, *_ELSEWHERE) and getattr(plan, field.name) != field.default:
            words.append(plan.words(field.name))
    if start is not None:
        words.append(f"from the network in {printable(start)}")
    if teacher is not None:
        words.append(f"taught by {printable(teacher)} at {plan.words('temperature')}")
    return ", ".join(words)


def describe_kept(epoch: int | None, error: float | None) -> str:
    """State the epoch whose weights are kept, and its validation error, if there is one."""
    if error is None:
        return f"epoch {epoch}, the last one, without validation images"
    return f"epoch {epoch}, validation error {error:.2%}"


def describe_error(error: float, total: int) -> str:
    """State an error as a share and as a number of images."""
    return f"{error:.2%} ({round(error * total):,} of {total:,})"


def describe_seconds(seconds: float) -> str:
    """State a time in the unit that suits it."""
    if seconds < 100:
        return f"{seconds:.2g} s" if seconds < 10 else f"{seconds:.0f} s"
    return f"{seconds / 60:.1f} minutes" if seconds < 6000 else f"{seconds / 3600:.1f} hours"


def check_packed(
    command: str, model: Sequential, packed: Packed, x: np.ndarray
) -> np.ndarray | None:
    """Return the classes of test images; None, with a complaint, if packing changed a score."""
    different, labels = compare(model, packed, x)
    if not different:
        return labels
    print(
        f"bitops {command}: FAILED: packed and trained network differ on {different:,} of "
        f"{len(x):,} test images",
        file=sys.stderr,
    )
    return None


def warn_of_pixels(command: str, packed: Packed, way: str) -> None:
    """Say that a model is given raw pixels because its file names nothing else, and what does."""
    if "preprocessing" not in packed.notes:
        print(
            f"bitops {command}: warning: the file names no preprocessing; raw pixels, 0 to 255, "
            f"are taken. A model that was trained on others, such as pixels / 255, needs {way}",
            file=sys.stderr,
        )


def save(packed: Packed, path: Path) -> None:
    """Write a trained network, and if that fails, to another place, which the error names."""
    try:
        io.save(packed, path)
    except OSError as error:
        raise OSError(f"{error}; {rescue(packed)}") from error
    print(f"saved    {printable(path, encoding=sys.stdout.encoding)}")


def rescue(packed: Packed) -> str:
    """Write to a new file in the folder for temporary ones, and say where it is."""
    try:
        descriptor, name = tempfile.mkstemp(".safetensors", "bitops-")
        os.close(descriptor)
        try:
            io.save(packed, name)
        except OSError:
            os.unlink(name)
            raise
    except OSError as error:
        return f"nor could the model be saved elsewhere: {error}"
    return f"the model has been saved to {name}"
