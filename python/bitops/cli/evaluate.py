"""`bitops eval`: test error and speed of a packed model."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import benchmark, io
from .arguments import add_data_option

if TYPE_CHECKING:
    from ..data.datasets import Dataset
    from ..layers import Packed

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
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print test error and speed of the model."""
    # imported here, so that `bitops info` and `bitops bench` load no training code
    from ..data.datasets import load_dataset
    from ..recipes.base import inputs
    from ..recipes.preprocess import preprocess
    from ..training.compare import IMAGES_AT_A_TIME
    from . import report

    packed = io.load(args.model)
    _, data = load_dataset(args.data)
    check_scores(packed, data)
    preprocessing = packed.notes.get("preprocessing", "pixels")
    data = preprocess(data, preprocessing)
    x, total = inputs(packed, data, data.x_test), len(data.y_test)
    error = packed.error_rate(x, data.y_test, batch_size=IMAGES_AT_A_TIME)
    batch = x[:IMAGES_AT_A_TIME]
    timing = benchmark.interleave({"packed": lambda: packed.forward(batch)}, seconds=1.0)["packed"]
    print(
        f"model    {args.model}, {packed.nbytes:,} bytes; "
        f"recipe {packed.notes.get('recipe', '-')}\n"
        f"data     {data.name}: {total:,} test images; preprocessing: {preprocessing}\n"
        f"error    {report.describe_error(error, total)}\n"
        f"speed    {len(batch) / timing.best:,.0f} images a second in batches of {len(batch)}"
    )
    return 0


def check_scores(packed: Packed, data: Dataset) -> None:
    """Refuse a model for another number of classes."""
    if packed.out_features != data.classes:
        raise ValueError(
            f"[eval] the model must give {data.classes} scores for {data.name}, got "
            f"{packed.out_features}"
        )
