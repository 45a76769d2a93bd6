"""The teacher of `bitops train`: which one it is, and what it says of the images."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

from .. import io
from ..files import notes
from ..files.text import printable
from . import runs
from .train_files import as_begun

if TYPE_CHECKING:
    from ..data.datasets import Dataset
    from ..layers import Packed
    from ..recipes import Recipe, Setting
    from ..recipes.teacher import Lessons

__all__ = ["choose_teacher", "read_teacher", "take_lessons"]


def choose_teacher(
    args: argparse.Namespace, recipe: Recipe, setting: Setting, begun: runs.Record | None
) -> None:
    """Let a run that is resumed have its teacher, and refuse one where none can be.

    `args.lessons` becomes the file that holds what the teacher has said before; then the teacher
    is not asked again.
    """
    from ..training.losses import Distillation

    args.teacher, args.lessons = as_begun(args, "teacher", begun, "no teacher"), None
    if args.teacher is None:
        if args.temperature is not None:
            args.refuse("argument --temperature: needs --teacher FILE")
        return
    if args.temperature is not None:
        Distillation(args.temperature)
    if not setting.takes_teacher:
        args.refuse(f"argument --teacher: not allowed with {recipe.name}")
    if begun is not None and (args.folder / runs.LESSONS).is_file():
        args.lessons = args.folder / runs.LESSONS
    elif not args.teacher.is_file():
        args.refuse(f"argument --teacher: must be a packed model, got {args.teacher}")
    args.teacher = args.teacher.resolve()
    if args.teacher in {path and path.resolve() for path in (args.save, args.checkpoint)}:
        args.refuse(f"argument --teacher: must not be replaced, got {args.teacher}")


def read_teacher(args: argparse.Namespace, data: Dataset) -> Packed | None:
    """Return the network that is to score the images, if one is, which must be one for them."""
    if args.teacher is None or args.lessons is not None:
        return None
    from ..recipes.teacher import check_teacher
    from . import results

    teacher = io.load(args.teacher)
    check_teacher(teacher, data, args.resize)
    results.warn_of_pixels("train", teacher, "`bitops import --preprocessing`")
    return teacher


def take_lessons(
    args: argparse.Namespace,
    teacher: Packed | None,
    data: Dataset,
    prepared: Dataset,
    preprocessing: str,
) -> Lessons | None:
    """Return what the teacher says of the images to train on, and print how often it is wrong.

    `prepared` is the data as `preprocessing` makes it for the network that learns.
    """
    if args.teacher is None:
        return None
    from ..recipes.teacher import Lessons, teach

    if teacher is None:
        data = data.without_validation() if args.all_images else data
        lessons = Lessons.load(args.lessons, data)
    else:
        is_alike = notes.preprocessing(teacher) == preprocessing
        lessons = teach(teacher, data, prepared if is_alike else None)
    told = [(lessons.train, data.y_train, "training")]
    if len(data.y_validation):
        told.append((lessons.validation, data.y_validation, "validation"))
    errors = ", ".join(
        f"{kind} error {(scores.argmax(axis=1) != labels).mean():.2%}"
        for scores, labels, kind in told
    )
    print(f"teacher  {printable(args.teacher, encoding=sys.stdout.encoding)}: {errors}", flush=True)
    return lessons.without_validation() if args.all_images else lessons
