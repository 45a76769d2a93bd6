"""Types of arguments, and options that several commands have."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import io
from ..files.text import printable
from ..files.writing import try_file

if TYPE_CHECKING:
    from ..layers import Packed

__all__ = [
    "GRADIENTS",
    "PREPROCESSING",
    "add_data_option",
    "add_preprocessing_option",
    "add_training_options",
    "load_model",
    "log_file",
    "output_ending",
    "output_file",
    "output_format",
    "positive",
    "refuse_input_as_output",
    "seed",
    "share",
]


def positive(kind: Callable[[str], Any]) -> Callable[[str], Any]:
    """Make an argparse type that takes numbers above zero."""

    def parse(text: str) -> Any:
        value = kind(text)
        if not 0 < value < float("inf"):
            raise argparse.ArgumentTypeError(f"must be above 0, got {text}")
        return value

    parse.__name__ = kind.__name__
    return parse


def seed(text: str) -> int:
    """Parse a seed, which numpy.random.default_rng wants non-negative."""
    value = int(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"must not be negative, got {text}")
    return value


def share(text: str) -> float:
    """Parse a rate of dropout."""
    value = float(text)
    if not 0 <= value < 1:
        raise argparse.ArgumentTypeError(f"must be in [0, 1), got {text}")
    return value


def output_file(text: str) -> Path:
    """Parse the path of a file to write, and refuse a bad one before minutes of work."""
    path = Path(text).absolute()
    try:
        try_file("bitops", path)
    except (OSError, ValueError) as error:
        raise argparse.ArgumentTypeError(str(error).removeprefix("[bitops] ")) from None
    return path


def output_ending(*endings: str) -> Callable[[str], Path]:
    """Make an argparse type of paths of files to write, which have one of the endings.

    A slip that names an input, say the model, is then refused rather than written over.
    """

    def parse(text: str) -> Path:
        if Path(text).suffix not in endings:
            *others, last = endings
            words = f"{', '.join(others)} or {last}" if others else last
            raise argparse.ArgumentTypeError(f"must end in {words}, got {text}")
        return output_file(text)

    return parse


log_file = output_ending(".csv", ".jsonl")


def output_format(args: argparse.Namespace) -> str:
    """Return the format of the output, by its ending or --format; refuse two that differ."""
    if args.output is None:
        return args.format or "text"
    ending = args.output.suffix.removeprefix(".")
    kind = "text" if ending == "txt" else ending
    if args.format not in (None, kind):
        name = printable(args.output.name)
        args.refuse(f"argument --format: must fit the ending of {name}, got {args.format}")
    return kind


def refuse_input_as_output(args: argparse.Namespace, *inputs: Path | None) -> None:
    """Refuse an output that would replace one of the files that are read."""
    if args.output is None or not args.output.exists():
        return
    for path in inputs:
        if path is not None and path.exists() and path.samefile(args.output):
            args.refuse(f"argument --output: must not be an input, got {printable(path)}")


def add_data_option(parser: argparse.ArgumentParser) -> None:
    """Add the folder of a data set, whose files tell which it is."""
    parser.add_argument(
        "--data",
        type=Path,
        metavar="DIR",
        required=True,
        help="folder with the files of MNIST, CIFAR-10 or SVHN, or with a folder of pictures for "
        "each class; or a .npz file",
    )


# The names of `recipes.preprocess.STEPS`, which would load training code for every command.
PREPROCESSING = (
    "pixels",
    "unit",
    "zero_one",
    "bipolar",
    "fraction",
    "contrast",
    "local_contrast",
    "standard",
    "whitened",
)


# float32, and the names of `recipes.plan.GRADIENTS`, likewise.
GRADIENTS = ("float32", "int8", "int7", "int6")

# Names of `training.options.SCHEDULES`, likewise: of those that stretch to the epochs.
SCHEDULES = ("constant", "cosine_decay", "exponential_decay", "one_cycle")


def add_preprocessing_option(parser: Any, effect: str) -> None:
    """Add the option that names what a model takes instead of pixels from 0 to 255."""
    parser.add_argument(
        "--preprocessing",
        choices=PREPROCESSING,
        metavar="NAME",
        help=f"{effect}: {', '.join(PREPROCESSING)}; zero_one is pixels / 255",
    )


def load_model(args: argparse.Namespace) -> Packed:
    """Load the packed model; --preprocessing takes the place of what its notes name."""
    packed = io.load(args.model)
    if args.preprocessing is not None:
        packed.notes["preprocessing"] = args.preprocessing
    return packed


def add_training_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of every training; None stands for the recipe's own number."""
    parser.add_argument(
        "--epochs", type=positive(int), metavar="N", help="passes over the training images"
    )
    parser.add_argument(
        "--width",
        type=positive(int),
        metavar="W",
        help="units of a hidden layer, or channels of the first convolution",
    )
    parser.add_argument(
        "--batch", type=positive(int), metavar="B", dest="batch_size", help="images in each step"
    )
    parser.add_argument("--lr", type=positive(float), help="learning rate of the first epoch")
    parser.add_argument(
        "--seed",
        type=seed,
        default=0,
        metavar="S",
        help="of start weights, dropout and the order of the images (0)",
    )
    parser.add_argument(
        "--save",
        type=output_file,
        metavar="MODEL",
        help="write the packed model, a safetensors file",
    )
    parser.add_argument("--quiet", action="store_true", help="print no line for each epoch")
