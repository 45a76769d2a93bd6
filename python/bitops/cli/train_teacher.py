"""The teacher of `bitops train`: which one it is, and what it says of the images."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

from .. import io
from ..files import notes
from ..files.text import printable
from . import runs
from .train_files import network_file

if TYPE_CHECKING:
    from ..data.datasets import Dataset
    from ..layers import Packed
    from ..recipes import Recipe, Setting
    from ..recipes.base import Files
    from ..recipes.teacher import Lessons

__all__ = ["choose_teacher", "keeps_lessons", "read_teacher", "take_lessons"]


def choose_teacher(
    args: argparse.Namespace,
    recipe: Recipe,
    setting: Setting,
    begun: runs.Record | None,
    *,
    is_kept: bool,
) -> None:
    """Let a run that is resumed have its teacher, and refuse one where none can be.

    `is_kept` tells whether what it has said before is read instead of it.
    """
    from ..training.losses import Distillation

    args.teacher = network_file(
        args,
        "teacher",
        recipe,
        begun,
        nothing="no teacher",
        kinds="a packed model",
        is_taken=setting.takes_teacher,
        is_read=not is_kept,
    )
    if args.temperature is None:
        return
    if args.teacher is None:
        args.refuse("argument --temperature: needs --teacher FILE")
    Distillation(args.temperature)  # which refuses some


def keeps_lessons(args: argparse.Namespace, files: Files, stages: int) -> bool:
    """Tell whether a run goes on with what its teacher has said before.

    Without a checkpoint the teacher is asked again: data or teacher may be others by now.
    """
    goes_on = any(stage.goes_on for stage in files.of_stages(stages))
    return goes_on and args.folder is not None and (args.folder / runs.LESSONS).is_file()


def read_teacher(
    args: argparse.Namespace, data: Dataset, *, is_kept: bool
) -> Packed | Lessons | None:
    """Return the network that is to score the images, or what it has said of them before."""
    if args.teacher is None:
        return None
    from ..recipes.teacher import Lessons, check_teacher
    from . import results

    if is_kept:
        taught = data.without_validation() if args.all_images else data
        try:
            return Lessons.load(args.folder / runs.LESSONS, taught)
        except ValueError as error:
            raise ValueError(
                f"{error}; of a run with another choice of --all-images it does not, and a damaged "
                f"file may be deleted, so that the teacher is asked again"
            ) from None
    teacher = io.load(args.teacher)
    check_teacher(teacher, data, args.resize)
    results.warn_of_pixels("train", teacher, "`bitops import --preprocessing`")
    return teacher


def take_lessons(
    args: argparse.Namespace,
    teacher: Packed | Lessons | None,
    data: Dataset,
    prepared: Dataset,
    preprocessing: str,
) -> Lessons | None:
    """Return what the teacher says of the images to train on, and print how often it is wrong.

    `prepared` is the data as `preprocessing` makes it for the network that learns.
    """
    if teacher is None:
        return None
    from ..recipes.teacher import Lessons, teach
    from ..training.compare import error_of

    if isinstance(teacher, Lessons):
        lessons, data = teacher, data.without_validation() if args.all_images else data
    else:
        is_alike = notes.preprocessing(teacher) == preprocessing
        lessons = teach(teacher, data, prepared if is_alike else None)
    told = [(lessons.train, data.y_train, "training")]
    if len(data.y_validation):
        told.append((lessons.validation, data.y_validation, "validation"))
    errors = ", ".join(
        f"{kind} error {error_of(scores.argmax(axis=1), labels):.2%}"
        for scores, labels, kind in told
    )
    print(f"teacher  {printable(args.teacher, encoding=sys.stdout.encoding)}: {errors}", flush=True)
    return lessons.without_validation() if args.all_images else lessons
