"""Files of `bitops train`: the folder of a run, networks it begins with, what may be replaced."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from . import runs

if TYPE_CHECKING:
    from ..recipes import Recipe, Setting
    from ..recipes.base import Files

__all__ = ["choose_start", "network_file", "read_begun", "refuse_files", "use_folder"]


def use_folder(args: argparse.Namespace) -> None:
    """Let all files go into the folder of the run."""
    if args.folder is None:
        return
    if args.folder.exists() and not args.folder.is_dir():
        args.refuse(f"argument --run: must be a folder, got {args.folder}")
    for name, file in (("log", runs.LOG), ("checkpoint", runs.CHECKPOINT), ("save", runs.MODEL)):
        if getattr(args, name) is not None:
            args.refuse(f"argument --{name}: not allowed with argument --run")
        setattr(args, name, (args.folder / file).absolute())


def read_begun(args: argparse.Namespace) -> runs.Record | None:
    """Return the description of the run that is resumed, if there is one."""
    if args.folder is None or not args.resume or not runs.is_run(args.folder):
        return None
    return runs.read_record("train", args.folder)


def choose_start(
    args: argparse.Namespace,
    recipe: Recipe,
    setting: Setting,
    files: Files,
    begun: runs.Record | None,
) -> None:
    """Let a run that is resumed start where it did, and refuse to start where none can."""
    args.start = network_file(
        args,
        "start",
        recipe,
        begun,
        nothing="random weights",
        kinds="a checkpoint or a packed model",
        is_taken=setting.takes_start,
        is_read=not files.of_stage(1, len(setting.stages)).goes_on,
    )


def network_file(
    args: argparse.Namespace,
    name: str,
    recipe: Recipe,
    begun: runs.Record | None,
    *,
    nothing: str,
    kinds: str,
    is_taken: bool,
    is_read: bool,
) -> Path | None:
    """Return the file of a network that a training begins with, or refuse what is given.

    A run that is resumed has that with which it began.
    """
    path: Path | None = getattr(args, name)
    if begun is not None:
        there = getattr(begun, name) and Path(getattr(begun, name))
        if path is not None and path.resolve() != there:
            args.refuse(f"argument --{name}: the run began with {there or nothing}, got {path}")
        path = there
    if path is None:
        return None
    if not is_taken:
        args.refuse(f"argument --{name}: not allowed with {recipe.name}")
    if is_read and not path.is_file():
        args.refuse(f"argument --{name}: must be {kinds}, got {path}")
    return path.resolve()


def refuse_files(args: argparse.Namespace, files: Files, stages: int) -> None:
    """Refuse files that would replace each other, or another training."""
    written = files.of_stages(stages)
    given = [("--save", args.save)]
    given += [("--checkpoint", stage.checkpoint) for stage in written]
    given += [("--log", stage.log) for stage in written]
    if args.folder is not None:
        given = [("--run", path) for option, path in given if option != "--save"]
    taken = set()
    for option, path in given:
        if path is None:
            continue
        if path.resolve() in taken:
            args.refuse(f"argument {option}: must be a file of its own, got {path}")
        taken.add(path.resolve())
    taken |= {args.save.resolve()} if args.save is not None else set()
    for option in ("start", "teacher"):
        path = getattr(args, option)
        if path is not None and path.resolve() in taken:
            args.refuse(f"argument --{option}: must not be replaced, got {path}")
    if files.overwrite or any(stage.goes_on for stage in written):
        return
    # files of other trainings: this one has no checkpoint to go on from, or is not to
    again = [stage.log for stage in written if stage.begins_again]
    given += [("--run", args.save)] if args.folder is not None else []
    can_resume = any(replace(stage, resume=True).goes_on for stage in written)
    way = "go on with --resume or " if can_resume else ""
    if files.resume:
        way = f"there is no checkpoint {written[0].checkpoint} to go on from: "
    for option, path in given:
        if path is not None and path not in again and path.exists() and path.stat().st_size:
            args.refuse(f"argument {option}: {way}replace it with --overwrite, {path} exists")
