"""`bitops eval`: test error and speed of a packed model."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from .. import benchmark
from ..files import notes
from ..files.text import printable
from .arguments import add_data_option, add_preprocessing_option, load_model

__all__ = ["add_parser", "run"]


def add_parser(commands: Any) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "eval",
        help="test error and speed of a packed model",
        description="Print the test error of a packed model, as `bitops train --save` writes it, "
        "and the number of images that it classifies in a second.",
    )
    parser.add_argument("model", type=Path, metavar="MODEL", help="a file of a packed model")
    add_data_option(parser)
    add_preprocessing_option(parser, "what the model takes (what its file names, or pixels)")
    parser.set_defaults(run=run)


TIMED_IMAGES = 100  # in a batch


def run(args: argparse.Namespace) -> int:
    """Print test error and speed of the model."""
    # imported here, so that `bitops info` and `bitops bench` load no training code
    from ..data.datasets import load_dataset
    from ..recipes.base import inputs
    from ..recipes.preprocess import known_preprocessing, preprocess
    from . import results

    packed = load_model(args)
    height, width, channels = notes.image_shape(packed) or (None, None, None)
    size = None if height is None else (height, width)
    resize = notes.resizing(packed)
    _, data = load_dataset(args.data, size=size, channels=channels, resize=resize)
    notes.check_classes("eval", packed, data)
    preprocessing = known_preprocessing("eval", packed)
    data = preprocess(data, preprocessing)
    x, total = inputs(packed, data, data.x_test), len(data.y_test)
    try:
        error = packed.error_rate(x, data.y_test)
    except TypeError as problem:  # its scores are bits, or it takes another kind of input
        raise ValueError(f"[eval] the model must be one for {data.name}: {problem}") from problem
    batch = x[:TIMED_IMAGES]
    timing = benchmark.interleave({"packed": lambda: packed.forward(batch)}, seconds=1.0)["packed"]
    model, recipe, name, steps = (
        printable(words, most=200, encoding=sys.stdout.encoding)
        for words in (args.model, packed.notes.get("recipe", "-"), data.name, preprocessing)
    )
    results.warn_of_pixels("eval", packed, "--preprocessing")
    print(
        f"model    {model}, {packed.nbytes:,} bytes; recipe {recipe}\n"
        f"data     {name}: {total:,} test images; preprocessing: {steps}\n"
        f"error    {results.describe_error(error, total)}\n"
        f"speed    {len(batch) / timing.best:,.0f} images a second in batches of {len(batch)}"
    )
    return 0
