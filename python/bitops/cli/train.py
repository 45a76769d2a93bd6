"""`bitops train`: train a network as published, pack it, check the packed one."""

from __future__ import annotations

import argparse
import shlex
import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ..files import notes
from ..files.text import printable
from . import runs
from .train_files import choose_start, read_begun, refuse_files, use_folder
from .train_options import add_options
from .train_teacher import choose_teacher, keeps_lessons, read_teacher, take_lessons

if TYPE_CHECKING:
    from ..data.datasets import Dataset
    from ..layers import Packed
    from ..recipes import Job, Plan, Recipe, Setting
    from ..recipes.base import Files
    from ..recipes.teacher import Lessons
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
    add_options(parser)
    parser.set_defaults(run=run, refuse=parser.error)


def run(args: argparse.Namespace) -> int:
    """Train one recipe, pack the result, and check that the packed network computes the same."""
    # imported here, so that `bitops info` and `bitops bench` load no training code
    from ..data.datasets import load_dataset
    from ..recipes import Job, find
    from ..recipes.base import Files
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
    is_kept = keeps_lessons(args, files, len(setting.stages))
    choose_teacher(args, recipe, setting, begun, is_kept=is_kept)
    refuse_files(args, files, len(setting.stages))
    plan = setting.resolve(args.quick, **results.plan_options(args))
    for name, why in setting.refused(plan, data.image_shape).items():
        option = name.replace("_", "-")
        args.refuse(f"argument --{option}: not allowed with {recipe.name}: {why}")
    setting.check_start(Job(data, plan, args.seed, start=args.start, files=files))
    teacher = read_teacher(args, data, is_kept=is_kept)
    print_head(recipe, setting, data.without_validation() if args.all_images else data, plan)
    job = make_job(args, setting, plan, data, teacher, files)
    print(f"settings {describe_settings(args, job.plan)}", flush=True)
    record = describe_run(args, recipe, setting, job)
    if args.folder is not None:
        args.folder.mkdir(parents=True, exist_ok=True)
        if begun is not None:
            record = record.after(begun)
        job = replace(job, callbacks=(results.Begin(args.folder, record, job.lessons),))
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


def make_job(
    args: argparse.Namespace,
    setting: Setting,
    plan: Plan,
    data: Dataset,
    teacher: Packed | Lessons | None,
    files: Files,
) -> Job:
    """Prepare the images, hear what the teacher says of them, and choose the epochs."""
    from ..recipes import Job
    from ..recipes.preprocess import preprocess

    preprocessing = setting.preprocessing_of(plan)
    # as eval and report do it: by the images to train on, without those of validation
    prepared = preprocess(data, preprocessing)
    lessons = take_lessons(args, teacher, data, prepared, preprocessing)
    if args.all_images:
        prepared = prepared.without_validation()
    job = Job(
        prepared,
        plan.within(len(prepared.y_train)),
        args.seed,
        start=args.start,
        lessons=lessons,
        files=files,
        verbose=0 if args.quiet else 1,
        say=lambda line: print(line, flush=True),
    )
    return replace(job, plan=replace(job.plan, epochs=choose_epochs(args, setting, job)))


def describe_settings(args: argparse.Namespace, plan: Plan) -> str:
    """State the numbers of the training, and the networks that it begins with."""
    from . import results

    return results.describe_plan(plan, args.seed, args.start, args.teacher)


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
    least = seconds / 3600 / USED
    epochs = int(args.hours / least)
    if epochs < 1:
        # half a percent more is never rounded to less
        raise ValueError(
            f"[train] --hours must be enough for an epoch, about {1.005 * least:.3g}, got "
            f"{args.hours:g}"
        )
    print(
        f"hours    {args.hours:g} for {epochs:,} epochs: an epoch takes about "
        f"{results.describe_seconds(seconds)}, by a few steps",
        flush=True,
    )
    return epochs


def print_head(recipe: Recipe, setting: Setting, data: Dataset, plan: Plan) -> None:
    """Print what is to be trained on what."""
    from ..recipes.preprocess import takes_pictures
    from . import results

    preprocessing = setting.preprocessing_of(plan)
    print(
        f"recipe   {recipe.name}: {recipe.title}\n"
        f"source   {describe_source(recipe)}\n"
        f"data     {results.describe_data(data)}; preprocessing: {preprocessing}",
        flush=True,
    )
    if not takes_pictures(preprocessing):
        print(
            f"note     `bitops predict` will take no pictures for this network, but arrays only: "
            f"{preprocessing!r} is made out of a whole data set",
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
        settings=describe_settings(args, job.plan),
        command=shlex.join(["bitops", *args.argv]),
        folder=str(args.data.resolve()),
        start=args.start and str(args.start),
        teacher=args.teacher and str(args.teacher),
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
    from ..training.compare import error_of
    from . import results

    model, best = trained.model, trained.best
    x, y = inputs(model, job.data, job.data.x_test), job.data.y_test
    print(f"best     {results.describe_kept(best.number, best.validation_error)}", flush=True)
    packed = model.freeze()
    packed.notes = {
        "recipe": recipe.name,
        "preprocessing": setting.preprocessing_of(job.plan),
        **notes.notes_on_data(job.data, args.resize),
    }
    labels = results.check_packed("train", model, packed, x)
    if labels is None:
        return 1
    error = error_of(labels, y)
    source = setting.report(
        job.plan,
        started=args.start is not None,
        taught=args.teacher is not None,
        all_images=args.all_images,
    )
    print(
        f"test     error {results.describe_error(error, len(y))} with {recipe.tested}"
        f"{source and f'; {source}'}\n"
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
