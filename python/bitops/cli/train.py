"""`bitops train`, `bitops eval` and `bitops recipes`."""

from __future__ import annotations

import argparse
import sys
from dataclasses import fields

from .. import benchmark, io
from ..data.datasets import Dataset, load_dataset
from ..layers import Packed, Sequential
from ..recipes import RECIPES, Plan, Recipe, Setting, find
from ..recipes.base import DATASETS, Files, inputs
from ..recipes.preprocess import preprocess
from ..recipes.training import Trained, train
from .demo import IMAGES_AT_A_TIME, count_differences


def run_recipes(args: argparse.Namespace) -> int:
    """Print what recipes there are."""
    print(
        f"{'name':<14} {'data':<9} {'paper':>6}  {'width':>5} {'epochs':>6}  {'quick':<13} source"
    )
    for recipe in RECIPES:
        for i, (kind, setting) in enumerate(recipe.settings.items()):
            quick, name = setting.resolve(quick=True), recipe.name if i == 0 else ""
            print(
                f"{name:<14} {DATASETS[kind]:<9} {setting.published or '-':>6}  "
                f"{setting.plan.width:>5} {setting.plan.epochs:>6}  "
                f"{f'{quick.width} x {quick.epochs}':<13} {recipe.paper if i == 0 else ''}"
            )
        print(f"{'':<14} {recipe.title}; tested with {recipe.tested}")
        if recipe.code:
            print(f"{'':<14} program: {recipe.code}")
        if recipe.notes:
            print(f"{'':<14} here: {recipe.notes}")
    print(
        "\npaper: test error in percent that the source reports. width x epochs of --quick fit a\n"
        "laptop; both can be set."
    )
    return 0


def run_train(args: argparse.Namespace) -> int:
    """Train one recipe, pack the result, and check that the packed network computes the same."""
    try:
        recipe = find(args.recipe)
    except ValueError as error:
        args.refuse(str(error))
    if args.resume and args.checkpoint is None:
        args.refuse("--resume needs --checkpoint FILE")
    kind, data = load_dataset(args.data)
    setting = recipe.setting(kind)
    given = {field.name: getattr(args, field.name) for field in fields(Plan)}
    plan = setting.resolve(args.quick, **given)
    print_head(recipe, setting, data, plan, args.seed)
    preprocessing = setting.preprocessing_of(plan)
    data = preprocess(data, preprocessing)
    files = Files(args.checkpoint, args.log, args.resume)
    try:
        trained = train(
            setting,
            data,
            plan,
            seed=args.seed,
            verbose=0 if args.quiet else 1,
            files=files,
            say=lambda line: print(line, flush=True),
        )
    except KeyboardInterrupt:
        if files.checkpoint is not None:
            print(f"\ncheckpoint is in {args.checkpoint}: go on with --resume", file=sys.stderr)
        raise
    return finish(args, recipe, setting, data, trained, preprocessing)


def print_head(recipe: Recipe, setting: Setting, data: Dataset, plan: Plan, seed: int) -> None:
    """What is to be trained on what, and how."""
    size = " x ".join(map(str, data.image_shape))
    print(
        f"recipe   {recipe.name}: {recipe.title}\n"
        f"source   {recipe.paper}{f'; {recipe.code}' if recipe.code else ''}\n"
        f"data     {data.name}: {len(data.y_train):,} training, {len(data.y_validation):,} "
        f"validation and {len(data.y_test):,} test images of {size}; "
        f"pixels: {setting.preprocessing_of(plan)}\n"
        f"settings {plan.epochs} epochs, batch {plan.batch}, learning rate from {plan.lr:g}, "
        f"dropout {plan.dropout:g}, seed {seed}{', gradients of 8 bits' * plan.byte_gradients}",
        flush=True,
    )


def finish(
    args: argparse.Namespace,
    recipe: Recipe,
    setting: Setting,
    data: Dataset,
    trained: Trained,
    preprocessing: str,
) -> int:
    """Test the trained and the packed network; exit code 1 if they differ."""
    model, best = trained.model, trained.histories[-1].best
    assert best is not None  # given a validation set, fit always keeps one
    x, y = inputs(model, data, data.x_test), data.y_test
    error = model.error_rate(x, y, batch_size=IMAGES_AT_A_TIME)
    paper = f"; the source reports {setting.published} %" if setting.published else ""
    print(
        f"best     epoch {best.number}, validation error {best.validation_error:.2%}\n"
        f"test     error {error:.2%} ({round(error * len(y)):,} of {len(y):,}) with "
        f"{recipe.tested}{paper}"
    )
    code = check_packed(args, model, x, y, preprocessing)
    print(f"time     {trained.seconds / 60:.1f} minutes of training")
    return code


def check_packed(args: argparse.Namespace, model: Sequential, x, y, preprocessing: str) -> int:
    """Freeze, compare all scores, and write the file where asked."""
    packed = model.freeze()
    packed.notes = {"recipe": args.recipe, "preprocessing": preprocessing}
    different = count_differences(model, packed, x)
    if different:
        print(
            f"bitops train: FAILED: packed and trained network differ on {different:,} of "
            f"{len(y):,} test images",
            file=sys.stderr,
        )
        return 1
    error = packed.error_rate(x, y, batch_size=IMAGES_AT_A_TIME)
    print(
        f"packed   error {error:.2%}; its scores are those of the training graph, bit for bit, on "
        f"all {len(y):,} test images; {packed.nbytes:,} bytes"
    )
    if args.save is not None:
        io.save(packed, args.save)
        print(f"saved    {args.save}")
    return 0


def run_eval(args: argparse.Namespace) -> int:
    """Print test error and speed of a packed model in a file."""
    packed = io.load(args.model)
    _, data = load_dataset(args.data)
    check_scores(packed, data)
    preprocessing = packed.notes.get("preprocessing", "pixels")
    data = preprocess(data, preprocessing)
    x = inputs(packed, data, data.x_test)
    error = packed.error_rate(x, data.y_test, batch_size=IMAGES_AT_A_TIME)
    batch = x[:IMAGES_AT_A_TIME]
    timing = benchmark.interleave({"packed": lambda: packed.forward(batch)}, seconds=1.0)["packed"]
    total = len(data.y_test)
    for name, text in (
        (
            "model",
            f"{args.model}, {packed.nbytes:,} bytes; recipe {packed.notes.get('recipe', '-')}",
        ),
        ("data", f"{data.name}: {total:,} test images; pixels: {preprocessing}"),
        ("error", f"{error:.2%} ({round(error * total):,} of {total:,})"),
        ("speed", f"{len(batch) / timing.best:,.0f} images a second in batches of {len(batch)}"),
    ):
        print(f"{name:<8} {text}")
    return 0


def check_scores(packed: Packed, data: Dataset) -> None:
    """Refuse a model for another number of classes."""
    if packed.out_features != data.classes:
        raise ValueError(
            f"[eval] the model must give {data.classes} scores for {data.name}, got "
            f"{packed.out_features}"
        )
