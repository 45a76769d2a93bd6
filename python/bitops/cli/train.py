"""`bitops train`: train a network as published, pack it, check the packed one."""

from __future__ import annotations

import argparse
import shlex
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..files import notes
from ..files.pictures import RESIZE
from ..files.text import printable
from . import runs
from .arguments import (
    GRADIENTS,
    SCHEDULES,
    add_data_option,
    add_training_options,
    log_file,
    output_file,
    positive,
    share,
)

if TYPE_CHECKING:
    from ..data.datasets import Dataset
    from ..recipes import Job, Plan, Recipe, Setting
    from ..recipes.base import Files
    from ..recipes.training import Trained

__all__ = ["add_parser", "run"]

USED = 0.95  # of the hours, for epochs; tests and files take the rest


def add_parser(commands: Any) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "train",
        help="train a network as published, pack it, check the packed one",
        description="Train a network as published (`bitops recipes` lists them) on MNIST, CIFAR-10 "
        "or SVHN, whichever is in the folder, or on images of your own. Keep the epoch with the "
        "smallest validation error, test it, freeze it to packed bits, and check that the packed "
        "network's scores equal the training graph's on every test image. Numbers not given are "
        "those of the source, or with --quick those of a training that suits a laptop. Schedules "
        "stretch to the epochs.",
        epilog="Images of your own: a folder of pictures (.png, .jpg, .bmp) for each class, or "
        "folders train, val and test with those of the classes; of parts that are missing, a tenth "
        "of each class is set aside. Or a .npz file of uint8 images x and labels y, or x_train, "
        "y_train, x_test, y_test, x_val, y_val. Grey images get the network of the recipe for "
        "MNIST, others that for CIFAR-10 or SVHN, where the recipe has one.",
    )
    parser.add_argument("recipe", metavar="RECIPE", help="a name that `bitops recipes` lists")
    add_data_option(parser)
    parser.add_argument("--quick", action="store_true", help="numbers for a laptop, see `recipes`")
    add_training_options(parser)
    parser.add_argument(
        "--hours",
        type=positive(float),
        metavar="H",
        help="instead of --epochs: as many as fit, by the time of a few steps; a training that "
        "is resumed keeps its number",
    )
    parser.add_argument(
        "--dropout", type=share, metavar="D", help="rate behind hidden layers, in [0, 1)"
    )
    parser.add_argument(
        "--gradients",
        choices=GRADIENTS,
        help="what gradients are rounded to in the backward products of binary layers (float32, "
        "exact): steps are shorter with fewer bits",
    )
    parser.add_argument(
        "--schedule",
        choices=SCHEDULES,
        help="of the learning rate, instead of that of the recipe; one_cycle rises to --lr first",
    )
    parser.add_argument(
        "--recalibrate",
        type=positive(int),
        metavar="N",
        help="take the statistics of BatchNorm anew from N training images after each epoch; with "
        "--resume also for what is in the checkpoint, even of a training that has ended",
    )
    parser.add_argument(
        "--flip",
        action="store_true",
        default=None,
        help="mirror half of the images of each step; not for speedrun, which moves them itself, "
        "and ebp",
    )
    parser.add_argument(
        "--shift",
        type=positive(int),
        metavar="N",
        help="move the images of each step by up to N pixels along both axes; not for these either",
    )
    parser.add_argument(
        "--start",
        type=Path,
        metavar="CHECKPOINT",
        help="start from the network of another training, that of its best epoch, instead of "
        "random weights; its layers, Dropout included, must be the same. In a recipe of several "
        "stages this applies to the first",
    )
    parser.add_argument(
        "--all-images",
        action="store_true",
        help="train on the validation images too; the last epoch is kept, as nothing chooses one",
    )
    add_image_options(parser)
    parser.add_argument(
        "--run",
        type=Path,
        dest="folder",
        metavar="RUN",
        help="folder for log, checkpoint, model and settings, which `bitops report` shows",
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
        "--overwrite", action="store_true", help="replace checkpoint, log and model that exist"
    )
    parser.set_defaults(run=run, refuse=parser.error)


def add_image_options(parser: argparse.ArgumentParser) -> None:
    """Add what concerns pictures of one's own alone."""
    pictures = parser.add_argument_group("pictures of your own")
    pictures.add_argument(
        "--size",
        type=positive(int),
        metavar="N",
        help="bring them to N x N pixels (32; pictures of one size up to 64 x 64 keep it)",
    )
    pictures.add_argument(
        "--channels",
        type=int,
        choices=(1, 3),
        help="1 for grey and 3 for colour (grey if all of them are)",
    )
    pictures.add_argument(
        "--resize", choices=RESIZE, help="stretch them to the size, or cut them to its shape (crop)"
    )


def run(args: argparse.Namespace) -> int:
    """Train one recipe, pack the result, and check that the packed network computes the same."""
    # imported here, so that `bitops info` and `bitops bench` load no training code
    from ..data.datasets import load_dataset
    from ..recipes import Job, find
    from ..recipes.base import Files
    from ..recipes.preprocess import preprocess
    from ..recipes.training import train
    from . import results

    try:
        recipe = find(args.recipe)
    except ValueError as error:
        args.refuse(str(error).removeprefix("[find] "))
    use_folder(args)
    if args.resume and args.checkpoint is None:
        args.refuse("--resume needs --checkpoint FILE or --run RUN")
    if args.hours is not None and args.epochs is not None:
        args.refuse("argument --hours: not allowed with argument --epochs")
    kind, data = load_dataset(args.data, size=args.size, channels=args.channels, resize=args.resize)
    setting = find_setting(args, recipe, kind, data)
    files = Files(args.checkpoint, args.log, args.resume, args.overwrite)
    begun = read_begun(args)
    choose_start(args, recipe, setting, files, begun)
    refuse_files(args, files, len(setting.stages))
    plan = setting.resolve(args.quick, **results.plan_options(args))
    for name, why in setting.refused(plan, data.image_shape).items():
        args.refuse(f"argument --{name}: not allowed with {recipe.name}: {why}")
    setting.check_start(Job(data, plan, args.seed, start=args.start, files=files))
    print_head(recipe, setting, data.without_validation() if args.all_images else data, plan)
    # as eval and report do it: by the images to train on, without those of validation
    prepared = preprocess(data, setting.preprocessing_of(plan))
    if args.all_images:
        prepared = prepared.without_validation()
    job = Job(
        prepared,
        plan,
        args.seed,
        start=args.start,
        files=files,
        verbose=0 if args.quiet else 1,
        say=lambda line: print(line, flush=True),
    )
    job = replace(job, plan=replace(plan, epochs=choose_epochs(args, setting, job)))
    print(f"settings {results.describe_plan(job.plan, args.seed, args.start)}", flush=True)
    record = describe_run(args, recipe, setting, job)
    if args.folder is not None:
        args.folder.mkdir(parents=True, exist_ok=True)
        if begun is not None:
            record = record.after(begun)
        job = replace(job, callbacks=(results.Begin(args.folder, record),))
    try:
        trained = train(setting, job)
    except KeyboardInterrupt:
        if args.checkpoint is not None:
            place = printable(args.checkpoint)
            print(f"\ncheckpoint is in {place}: go on with --resume", file=sys.stderr)
        raise
    code = finish(args, recipe, setting, job, trained, record)
    print(f"time     {results.describe_seconds(trained.seconds)} of training")
    if args.folder is not None:
        print(f"report   bitops report {shlex.quote(printable(args.folder))}")
    return code


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
    if begun is not None:
        started = begun.start and Path(begun.start)
        if args.start is not None and args.start.resolve() != started:
            args.refuse(
                f"argument --start: the run began with {started or 'random weights'}, "
                f"got {args.start}"
            )
        args.start = started
    if args.start is None:
        return
    if not setting.takes_start:
        args.refuse(f"argument --start: not allowed with {recipe.name}")
    if not files.of_stage(1, len(setting.stages)).goes_on and not args.start.is_file():
        args.refuse(f"argument --start: must be a checkpoint, got {args.start}")
    args.start = args.start.resolve()


def find_setting(args: argparse.Namespace, recipe: Recipe, kind: str, data: Dataset) -> Setting:
    """Return the setting of the recipe for the data; images of one's own take that of others."""
    is_pictures = kind == "own" and args.data.is_dir()
    for option in ("size", "channels", "resize"):
        if getattr(args, option) is not None and not is_pictures:
            args.refuse(f"argument --{option}: is for pictures of your own, got {data.name}")
    if kind != "own":
        return recipe.setting(kind)
    if args.resize is None and is_pictures:
        args.resize = "crop"
    return replace(recipe.setting(recipe.own_kind(data)), published="")


def choose_epochs(args: argparse.Namespace, setting: Setting, job: Job) -> int:
    """Return the epochs that are asked for, or were when the training began, or that fit."""
    from ..recipes.training import epoch_seconds
    from ..training.checkpoint import planned_epochs
    from . import results

    first = job.files.of_stage(1, len(setting.stages))
    if args.epochs is None and first.goes_on:
        assert first.checkpoint is not None
        return planned_epochs(first.checkpoint)
    if args.hours is None:
        return job.plan.epochs
    seconds = epoch_seconds(setting, job)
    epochs = int(USED * 3600 * args.hours / seconds)
    if epochs < 1:
        raise ValueError(
            f"[train] --hours must be enough for an epoch, about {seconds / 3600:.3g}, got "
            f"{args.hours:g}"
        )
    print(
        f"hours    {args.hours:g} for {epochs:,} epochs: an epoch takes about "
        f"{results.describe_seconds(seconds)}, by a few steps",
        flush=True,
    )
    return epochs


def refuse_files(args: argparse.Namespace, files: Files, stages: int) -> None:
    """Refuse files that would replace each other, or another training."""
    written = [files.of_stage(number, stages) for number in range(1, stages + 1)]
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


def print_head(recipe: Recipe, setting: Setting, data: Dataset, plan: Plan) -> None:
    """Print what is to be trained on what."""
    from . import results

    print(
        f"recipe   {recipe.name}: {recipe.title}\n"
        f"source   {describe_source(recipe)}\n"
        f"data     {results.describe_data(data)}; preprocessing: {setting.preprocessing_of(plan)}",
        flush=True,
    )
    if data.class_names:
        names = printable(", ".join(data.class_names), most=200, encoding=sys.stdout.encoding)
        print(f"classes  {len(data.class_names):,}: {names}", flush=True)


def describe_source(recipe: Recipe) -> str:
    return f"{recipe.paper}{f'; {recipe.code}' if recipe.code else ''}"


def describe_run(
    args: argparse.Namespace, recipe: Recipe, setting: Setting, job: Job
) -> runs.Record:
    """Put the run into words."""
    from . import results

    return runs.Record(
        recipe=recipe.name,
        title=recipe.title,
        source=describe_source(recipe),
        data=results.describe_data(job.data),
        preprocessing=setting.preprocessing_of(job.plan),
        settings=results.describe_plan(job.plan, args.seed, args.start),
        command=shlex.join(["bitops", *args.argv]),
        folder=str(args.data.resolve()),
        start=args.start and str(args.start),
        size=args.size,
        channels=args.channels,
        resize=args.resize,
    )


def finish(
    args: argparse.Namespace,
    recipe: Recipe,
    setting: Setting,
    job: Job,
    trained: Trained,
    record: runs.Record,
) -> int:
    """Test the trained and the packed network; exit code 1 if they differ."""
    from ..recipes.base import describe, inputs
    from . import results

    model, best = trained.model, trained.best
    x, y = inputs(model, job.data, job.data.x_test), job.data.y_test
    error = model.error_rate(x, y)
    started = args.start is not None
    source = setting.report(job.plan, started=started, all_images=args.all_images)
    print(
        f"best     {results.describe_kept(best.number, best.validation_error)}\n"
        f"test     error {results.describe_error(error, len(y))} with {recipe.tested}"
        f"{source and f'; {source}'}"
    )
    packed = model.freeze()
    packed.notes = {
        "recipe": recipe.name,
        "preprocessing": setting.preprocessing_of(job.plan),
        **notes.notes_on_data(job.data, args.resize),
    }
    if not results.check_packed("train", model, packed, x):
        return 1
    error = packed.error_rate(x, y)
    print(
        f"packed   error {error:.2%}; its scores are those of the training graph, bit for bit, on "
        f"all {len(y):,} test images; {packed.nbytes:,} bytes"
    )
    if args.save is not None:
        results.save(packed, args.save)
    if args.folder is not None:
        done = replace(
            record,
            net=describe(model),
            best_epoch=best.number,
            validation_error=best.validation_error,
            test_error=error,
            seconds=trained.seconds,
        )
        runs.write_record(args.folder, done)
    return 0
