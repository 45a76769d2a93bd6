"""`bitops predict`: the classes of pictures and arrays by a packed model."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from ..files import notes
from ..files.examples import Batch, Examples, find_files, holds_arrays
from ..files.pictures import RESIZE
from ..files.reading import read_regular
from ..files.text import printable
from ..files.writing import write_file
from ..layers import Packed
from ..search.progress import progress
from .arguments import (
    add_preprocessing_option,
    load_model,
    output_ending,
    output_format,
    positive,
    refuse_input_as_output,
)
from .predictions import FORMATS, Prediction

__all__ = ["add_parser", "run"]

BATCH = 256


def add_parser(commands: Any) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "predict",
        help="classes of pictures and arrays by a packed model",
        description="Print the class of each example, and its score. Files are pictures (.png, "
        ".jpg, .bmp), arrays of examples (.npy, .npz), or folders of these.",
        epilog="Pixels, which are pictures and arrays of uint8, get the preprocessing that the "
        "file of the model names, if any, or that of --preprocessing, or of --mean and --std. "
        "Arrays of other numbers go in as they are; booleans are bits.",
    )
    parser.add_argument("model", type=Path, metavar="MODEL", help="a file of a packed model")
    parser.add_argument(
        "files", type=Path, metavar="FILE", nargs="+", help="pictures, arrays, or folders of them"
    )
    parser.add_argument(
        "--top", type=positive(int), default=1, metavar="N", help="classes for each example (1)"
    )
    parser.add_argument(
        "--labels",
        type=Path,
        metavar="FILE",
        help="names of the classes in order, one a line (those that the model's file holds)",
    )
    parser.add_argument(
        "--format",
        choices=tuple(FORMATS),
        help="of what is printed (text); that of OUT goes by its ending",
    )
    parser.add_argument(
        "-o",
        "--output",
        type=output_ending(".txt", ".csv", ".json"),
        metavar="OUT",
        help="write a .txt, .csv or .json file, whole or not at all",
    )
    parser.add_argument(
        "--resize",
        choices=RESIZE,
        help="bring pictures to the size that the model takes: stretched, or cut to its shape (as "
        "in the training, if the model's file says so)",
    )
    add_preprocessing_option(parser, "what the model takes (what its file names, or pixels)")
    for name, default in (("mean", "0"), ("std", "1")):
        parser.add_argument(
            f"--{name}",
            type=_numbers,
            metavar="X[,X...]",
            help=f"the model takes (pixel / 255 - mean) / std; one number, or one a channel "
            f"({default}, if the other is given)",
        )
    parser.add_argument(
        "--batch",
        type=positive(int),
        default=BATCH,
        metavar="B",
        dest="batch_size",
        help=f"examples at a time ({BATCH})",
    )
    parser.set_defaults(run=run, refuse=parser.error)


def _numbers(text: str) -> np.ndarray:
    try:
        numbers = np.array([float(word) for word in text.split(",")], np.float32)
    except ValueError:
        raise argparse.ArgumentTypeError(f"must be numbers with commas, got {text!r}") from None
    if not np.isfinite(numbers).all():
        raise argparse.ArgumentTypeError(f"must be finite, got {text!r}")
    return numbers


def run(args: argparse.Namespace) -> int:
    """Predict batch by batch, and print or write what came out."""
    kind = output_format(args)
    if args.preprocessing is not None and (args.mean is not None or args.std is not None):
        args.refuse("argument --preprocessing: not allowed with --mean and --std")
    refuse_input_as_output(args, args.model, args.labels)
    packed = load_model(args)
    if args.labels is None:
        labels = notes.class_names("predict", packed)
    else:
        labels = _read_labels(args.labels)
    prepare = _preparation(packed, args.mean, args.std)
    resize = args.resize or notes.resizing(packed)
    examples = Examples(packed.input_shape, prepare, resize, notes.image_shape(packed))
    write = FORMATS[kind]
    lines = write(_predictions(packed, examples, args, labels))
    if args.output is None:
        for line in lines:
            print(printable(line, encoding=sys.stdout.encoding))
        return 0
    data = "".join(f"{line}\n" for line in lines).encode()
    write_file("predict", args.output, data)
    print(f"wrote {printable(args.output)}, {len(data):,} bytes")
    return 0


def _predictions(
    packed: Packed, examples: Examples, args: argparse.Namespace, labels: list[str] | None
) -> Iterator[Prediction]:
    files = find_files(args.files)
    total = None if any(map(holds_arrays, files)) else len(files)
    # lines that appear on a terminal show the progress themselves
    is_shown = args.output is not None or not sys.stdout.isatty()
    with progress(total, "examples", is_shown=is_shown) as advance:
        for batch in examples.batches(files, args.batch_size):
            scores = _scores(packed, batch, args.batch_size)
            best = _largest(scores, args.top)
            if labels is not None and len(labels) != scores.shape[1]:
                raise ValueError(
                    f"[predict] {args.labels} must name the {scores.shape[1]} classes of the "
                    f"model, got {len(labels)} lines"
                )
            for i, classes in enumerate(best):
                names = [str(c) if labels is None else labels[c] for c in classes]
                yield Prediction(
                    printable(batch.files[i]), batch.places[i], classes, names, scores[i, classes]
                )
            advance(len(best))


def _scores(packed: Packed, batch: Batch, batch_size: int) -> np.ndarray:
    """Return the scores of a batch; refuse a model that gives none."""
    try:
        scores = packed.outputs(batch.x, batch_size=batch_size)
    except (TypeError, ValueError) as error:
        raise ValueError(f"[predict] {batch.files[0]} must fit the model: {error}") from None
    if not isinstance(scores, np.ndarray):
        raise ValueError("[predict] the model must end in scores, got one that ends in bits")
    if scores.ndim != 2:
        raise ValueError(
            f"[predict] the model must give a score for each class, got shape {scores.shape}"
        )
    return scores


def _largest(scores: np.ndarray, count: int) -> np.ndarray:
    """Return the classes of the largest scores, from the first; of equal ones in their order."""
    # from behind, so that no score has to be negated
    order = scores.shape[1] - 1 - np.argsort(scores[:, ::-1], axis=1, kind="stable")
    return order[:, ::-1][:, :count]


def _read_labels(path: Path) -> list[str]:
    """Return the lines of a file of names; empty ones at the end do not count."""
    try:
        words = read_regular(path).decode()
    except UnicodeDecodeError as error:
        raise ValueError(f"[predict] {path} must be text in UTF-8: {error}") from None
    return [printable(line.strip()) for line in words.rstrip().splitlines()]


def _preparation(
    packed: Packed, mean: np.ndarray | None, std: np.ndarray | None
) -> Callable[[np.ndarray], np.ndarray]:
    """Return what makes the input of a model of uint8 pixels."""
    if mean is None and std is None:
        return _noted_preparation(packed)
    mean = np.zeros(1, np.float32) if mean is None else mean
    std = np.ones(1, np.float32) if std is None else std
    channels = packed.input_shape[-1] if packed.input_shape else packed.in_features
    for name, numbers in (("mean", mean), ("std", std)):
        if len(numbers) not in (1, channels):
            raise ValueError(
                f"[predict] --{name} must be one number, or one for each of the {channels} "
                f"channels, got {len(numbers)}"
            )
    if not std.all():
        raise ValueError("[predict] --std must not be 0")
    return lambda x: (x.astype(np.float32) / np.float32(255) - mean) / std


def _noted_preparation(packed: Packed) -> Callable[[np.ndarray], np.ndarray]:
    if notes.preprocessing(packed) == "pixels":
        return lambda x: x
    # imported here, since it loads training code
    from ..recipes.preprocess import image_step

    return image_step(packed)
