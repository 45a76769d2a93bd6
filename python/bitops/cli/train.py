"""`bitops train`: train a network as published, pack it, check the packed one."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING, Any

from ..files.text import printable
from .arguments import add_data_option, add_training_options, log_file, output_file, share

if TYPE_CHECKING:
    from ..data.datasets import Dataset
    from ..recipes import Job, Plan, Recipe, Setting
    from ..recipes.base import Files
    from ..recipes.training import Trained

__all__ = ["add_parser", "run"]


def add_parser(commands: Any) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "train",
        help="train a network as published, pack it, check the packed one",
        description="Train a network as published (`bitops recipes` lists them) on MNIST, CIFAR-10 "
        "or SVHN, whichever is in the folder. Keep the epoch with the smallest validation error, "
        "test it, freeze it to packed bits, and check that the packed network's scores equal the "
        "training graph's on every test image. Numbers not given are those of the source, or with "
        "--quick those of a training that suits a laptop. Schedules stretch to the epochs.",
    )
    parser.add_argument("recipe", metavar="RECIPE", help="a name that `bitops recipes` lists")
    add_data_option(parser)
    parser.add_argument("--quick", action="store_true", help="numbers for a laptop, see `recipes`")
    add_training_options(parser)
    parser.add_argument(
        "--dropout", type=share, metavar="D", help="rate behind hidden layers, in [0, 1)"
    )
    parser.add_argument(
        "--byte-gradients",
        action="store_const",
        const=True,
        help="round gradients to 8 bits in the backward products of binary layers: shorter steps",
    )
    parser.add_argument(
        "--log", type=log_file, metavar="FILE", help="write a row an epoch, .csv or .jsonl"
    )
    parser.add_argument(
        "--checkpoint", type=output_file, metavar="FILE", help="write all that --resume needs"
    )
    existing = parser.add_mutually_exclusive_group()
    existing.add_argument(
        "--resume", action="store_true", help="go on from the checkpoint, if there is one"
    )
    existing.add_argument(
        "--overwrite", action="store_true", help="replace a checkpoint and a log that exist"
    )
    parser.set_defaults(run=run, refuse=parser.error)


def run(args: argparse.Namespace) -> int:
    """Train one recipe, pack the result, and check that the packed network computes the same."""
    # imported here, so that `bitops info` and `bitops bench` load no training code
    from ..data.datasets import load_dataset
    from ..recipes import Job, find
    from ..recipes.base import Files
    from ..recipes.preprocess import preprocess
    from ..recipes.training import train
    from . import report

    try:
        recipe = find(args.recipe)
    except ValueError as error:
        args.refuse(str(error).removeprefix("[find] "))
    if args.resume and args.checkpoint is None:
        args.refuse("--resume needs --checkpoint FILE")
    kind, data = load_dataset(args.data)
    setting = recipe.setting(kind)
    files = Files(args.checkpoint, args.log, args.resume, args.overwrite)
    refuse_files(args, files, len(setting.stages))
    plan = setting.resolve(args.quick, **report.plan_options(args))
    print_head(args, recipe, setting, data, plan)
    data = preprocess(data, setting.preprocessing_of(plan))
    job = Job(
        data,
        plan,
        args.seed,
        files=files,
        verbose=0 if args.quiet else 1,
        say=lambda line: print(line, flush=True),
    )
    try:
        trained = train(setting, job)
    except KeyboardInterrupt:
        if args.checkpoint is not None:
            place = printable(args.checkpoint)
            print(f"\ncheckpoint is in {place}: go on with --resume", file=sys.stderr)
        raise
    code = finish(args, recipe, setting, job, trained)
    print(f"time     {trained.seconds / 60:.1f} minutes of training")
    return code


def refuse_files(args: argparse.Namespace, files: Files, stages: int) -> None:
    """Refuse files that would replace each other, or another training."""
    written = [files.of_stage(number, stages) for number in range(1, stages + 1)]
    given = [("--save", args.save)]
    given += [("--checkpoint", stage.checkpoint) for stage in written]
    given += [("--log", stage.log) for stage in written]
    taken = set()
    for option, path in given:
        if path is None:
            continue
        if path.resolve() in taken:
            args.refuse(f"argument {option}: must be a file of its own, got {path}")
        taken.add(path.resolve())
        is_new = option == "--save" or not path.exists() or not path.stat().st_size
        if not (is_new or files.resume or files.overwrite):
            way = "go on with --resume or " if option == "--checkpoint" else ""
            args.refuse(f"argument {option}: {way}replace it with --overwrite, {path} exists")


def print_head(
    args: argparse.Namespace, recipe: Recipe, setting: Setting, data: Dataset, plan: Plan
) -> None:
    """Print what is to be trained on what, and how."""
    from . import report

    print(
        f"recipe   {recipe.name}: {recipe.title}\n"
        f"source   {recipe.paper}{f'; {recipe.code}' if recipe.code else ''}\n"
        f"data     {report.describe_data(data)}; preprocessing: {setting.preprocessing_of(plan)}\n"
        f"settings {report.describe_plan(plan, args.seed)}",
        flush=True,
    )


def finish(
    args: argparse.Namespace, recipe: Recipe, setting: Setting, job: Job, trained: Trained
) -> int:
    """Test the trained and the packed network; exit code 1 if they differ."""
    from ..recipes.base import inputs
    from . import report

    model, best = trained.model, trained.best
    x, y = inputs(model, job.data, job.data.x_test), job.data.y_test
    error = model.error_rate(x, y)
    source = setting.report(job.plan)
    print(
        f"best     epoch {best.number}, validation error {best.validation_error:.2%}\n"
        f"test     error {report.describe_error(error, len(y))} with {recipe.tested}"
        f"{source and f'; {source}'}"
    )
    packed = model.freeze()
    packed.notes = {
        "recipe": recipe.name,
        "preprocessing": setting.preprocessing_of(job.plan),
    }
    if not report.check_packed("train", model, packed, x):
        return 1
    error = packed.error_rate(x, y)
    print(
        f"packed   error {error:.2%}; its scores are those of the training graph, bit for bit, on "
        f"all {len(y):,} test images; {packed.nbytes:,} bytes"
    )
    if args.save is not None:
        report.save(packed, args.save)
    return 0
