"""Options of `bitops train`, in groups."""

from __future__ import annotations

import argparse
from pathlib import Path

from ..files.pictures import RESIZE
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

__all__ = ["add_options"]


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add all options."""
    parser.add_argument("recipe", metavar="RECIPE", help="a name that `bitops recipes` lists")
    add_data_option(parser)
    parser.add_argument("--quick", action="store_true", help="numbers for a laptop, see `recipes`")
    add_training_options(parser)
    add_more_numbers(parser)
    add_image_options(parser)
    add_picture_options(parser)
    add_file_options(parser)


def add_more_numbers(parser: argparse.ArgumentParser) -> None:
    """Add what `bitops demo` does without."""
    parser.add_argument(
        "--hours",
        type=positive(float),
        metavar="H",
        help="instead of --epochs: as many as fit, by the time of a few steps; a training that "
        "is resumed keeps its number",
    )
    parser.add_argument(
        "--schedule",
        choices=SCHEDULES,
        help="of the learning rate, instead of that of the recipe; one_cycle rises to --lr first",
    )
    parser.add_argument(
        "--dropout", type=share, metavar="D", help="rate behind hidden layers, in [0, 1)"
    )
    parser.add_argument(
        "--gradients",
        choices=GRADIENTS,
        help="what gradients are rounded to in the backward products of binary layers, float32 for "
        "exact ones: steps are shorter with fewer bits",
    )
    parser.add_argument(
        "--round-activations",
        action="store_true",
        default=None,
        help="with --gradients: round real activations, too, to 7 bits, where binary layers "
        "multiply them in training; for binaryconnect and bwn",
    )
    parser.add_argument(
        "--half-state",
        action="store_true",
        default=None,
        help="keep the moments of Adam, and binary weights that are clipped, in 16 bits: half "
        "their memory, for steps that may take longer; other weights, as those of xnor, bwn and "
        "dorefa, stay float32",
    )
    parser.add_argument(
        "--recalibrate",
        type=positive(int),
        metavar="N",
        help="take the statistics of BatchNorm anew from N training images after each epoch; with "
        "--resume also for what is in the checkpoint, even of a training that has ended",
    )
    parser.add_argument(
        "--start",
        type=Path,
        metavar="FILE",
        help="start from the network of another training instead of random weights: from a "
        "checkpoint, by its best epoch, whose layers, Dropout included, must be the same, or from "
        "a packed model, if all its products are binary and have no scales. In a recipe of "
        "several stages this applies to the first",
    )
    parser.add_argument(
        "--teacher",
        type=Path,
        metavar="FILE",
        help="learn, besides the labels, the scores of a trained network for the images as they "
        "are in the data: a packed model, whatever its preprocessing; by a loss of distillation "
        "instead of the recipe's, in every stage; not for ebp",
    )
    parser.add_argument(
        "--temperature",
        type=positive(float),
        metavar="T",
        help="that divides scores of teacher and network, so that unlikely classes count for more "
        "(1)",
    )


def add_image_options(parser: argparse.ArgumentParser) -> None:
    """Add which images are trained on, and how they are moved."""
    images = parser.add_argument_group("images")
    images.add_argument(
        "--all-images",
        action="store_true",
        help="train on the validation images too; the last epoch is kept, as nothing chooses one",
    )
    images.add_argument(
        "--flip",
        action="store_true",
        default=None,
        help="mirror half of the images of each step; not for speedrun, which moves them itself, "
        "and ebp",
    )
    images.add_argument(
        "--shift",
        type=positive(int),
        metavar="N",
        help="move the images of each step by up to N pixels along both axes; not for these either",
    )
    images.add_argument(
        "--crop",
        type=positive(int),
        metavar="N",
        help="train by windows of N x N pixels, cut out of the images at random places, for 70 %% "
        "of the steps, which are shorter by what is left out, and by whole images for the rest; "
        "for networks that take images of any size, as xnor's for colour",
    )


def add_picture_options(parser: argparse.ArgumentParser) -> None:
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


def add_file_options(parser: argparse.ArgumentParser) -> None:
    """Add the files that are written; --save is one of every training."""
    files = parser.add_argument_group("files")
    files.add_argument(
        "--run",
        type=Path,
        dest="folder",
        metavar="RUN",
        help="folder for log, checkpoint, model and settings, which `bitops report` shows",
    )
    files.add_argument(
        "--log", type=log_file, metavar="FILE", help="write a row an epoch, .csv or .jsonl"
    )
    files.add_argument(
        "--checkpoint", type=output_file, metavar="FILE", help="write all that --resume needs"
    )
    existing = files.add_mutually_exclusive_group()
    existing.add_argument(
        "--resume", action="store_true", help="go on from the checkpoint, if there is one"
    )
    existing.add_argument(
        "--overwrite", action="store_true", help="replace checkpoint, log and model that exist"
    )
