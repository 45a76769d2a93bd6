"""`bitops plot`: pictures of a training log, drawn with matplotlib."""

from __future__ import annotations

import argparse
import math
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..files.text import printable
from .figures import new_figure, save_figure

if TYPE_CHECKING:
    from ..training.log import Row

__all__ = ["add_parser", "plot", "run"]

COLUMNS = 4  # histograms beside each other
MAX_LAYERS = 40  # in a picture: it takes 6 s, those of thousands would take minutes
LARGEST = 1e15  # of what is drawn: axes of larger numbers fail in many ways


def add_parser(commands: Any) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "plot",
        help="draw the log of a training as PNG pictures",
        description="Draw loss and errors, flip ratios, saturated activations and histograms of "
        "latent weights from a log, as `bitops train --log` writes it, even while the training "
        "still runs. Needs matplotlib.",
    )
    parser.add_argument("log", type=Path, metavar="LOG", help="a .csv or .jsonl file")
    parser.add_argument(
        "--out", type=Path, metavar="DIR", help="folder for the pictures (that of LOG)"
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Draw the log, and print the names of the pictures."""
    for path in plot(args.log, args.out):
        print(printable(path, encoding=sys.stdout.encoding))
    return 0


def plot(log: str | os.PathLike, folder: str | os.PathLike | None = None) -> list[Path]:
    """Draw the log of a training.

    Parameters
    ----------
    log : path
        A file that `Log` wrote.
    folder : path, optional
        Where the pictures go, by default that of the log; it is made if it does not exist.

    Returns
    -------
    list of Path
        `<log>-curves.png` with loss and errors; `<log>-flips.png` with the flip ratios;
        `<log>-saturation.png`; and `<log>-weights.png` with the histograms of latent weights at the
        beginning, in the middle and at the end. The log may lack data for the last three.

    Raises
    ------
    ImportError
        If matplotlib is not installed.
    ValueError
        If the file is no log, has no rows yet, or has columns or numbers that cannot be drawn.

    Notes
    -----
    Of more than 40 layers a picture shows the first 40, and says so.
    """
    # imported here, so that `bitops info` and `bitops bench` load no training code
    from ..training.log import read_log

    log = Path(log)
    rows = read_log(log)
    if not rows:
        raise ValueError(f"[plot] {log} must have at least one epoch, got none")
    _check(log, rows)
    folder = log.parent if folder is None else Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for name, draw in _PICTURES.items():
        figure = new_figure("plot")
        if draw(figure, rows):
            written.append(folder / f"{log.stem}-{name}.png")
            save_figure("plot", figure, written[-1])
    return written


def _check(log: Path, rows: list[Row]) -> None:
    """Refuse columns and numbers that no `Log` writes, before something in between does."""
    for name in rows[0]:
        if name.startswith("latent/") and not re.fullmatch(_HISTOGRAM, name):
            raise ValueError(f"[plot] {log} must name bins latent/layer/middle, got {name!r:.80}")
    middles = [float(name.split("/")[2]) for name in rows[0] if name.startswith("latent/")]
    numbers = [value for row in rows for value in row.values() if value is not None]
    for number in (*numbers, *middles):
        if not abs(number) <= LARGEST:
            raise ValueError(f"[plot] {log} must hold numbers up to {LARGEST:g}, got {number:g}")


# latent/0.BinaryDense/-0.95
_HISTOGRAM = r"latent/[^/]+/-?[0-9]+(\.[0-9]*)?(e[-+]?[0-9]+)?"


def _label(name: str) -> str:
    """Name a layer as it is, where $ would begin a formula and _ would hide it."""
    shown = name.replace("$", r"\$")
    return f" {shown}" if not shown or shown.startswith("_") else shown


def _first(layers: dict, what: str) -> tuple[dict, str]:
    """Leave out layers that are too many, and say so in the label of an axis."""
    if len(layers) <= MAX_LAYERS:
        return layers, what
    kept = dict(list(layers.items())[:MAX_LAYERS])
    return kept, f"{what} (first {MAX_LAYERS} of {len(layers):,} layers)"


def _curves(figure: Any, rows: list[Row]) -> bool:
    """Draw loss above and errors below, over the epochs."""
    figure.set_size_inches(8, 7)
    above, below = figure.subplots(2, sharex=True)
    _lines(above, rows, {"loss": "training"}, 1, log=True)
    above.set(ylabel="mean loss")
    _lines(below, rows, {"train_error": "training", "validation_error": "validation"}, 100)
    below.set(xlabel="epoch", ylabel="error, %", ylim=(0, None))
    _whole_epochs(below)
    return True


def _flips(figure: Any, rows: list[Row]) -> bool:
    return _by_layer(figure, rows, "flips/", "binary weights flipped in the epoch, %", log=True)


def _saturation(figure: Any, rows: list[Row]) -> bool:
    return _by_layer(figure, rows, "saturated/", "values beyond the clip value, %")


def _by_layer(figure: Any, rows: list[Row], prefix: str, label: str, log: bool = False) -> bool:
    """Draw a line for each layer; nothing without columns of that prefix."""
    columns = [name for name in rows[0] if name.startswith(prefix)]
    if not columns:
        return False
    labels, label = _first({name: _label(name.removeprefix(prefix)) for name in columns}, label)
    figure.set_size_inches(8, 5)
    axes = figure.subplots()
    _lines(axes, rows, labels, 100, log=log)
    axes.set(xlabel="epoch", ylabel=label)
    _whole_epochs(axes)
    return True


def _weights(figure: Any, rows: list[Row]) -> bool:
    """Draw a histogram for each layer, outlines of three epochs on top of each other."""
    layers: dict[str, dict[float, str]] = {}
    for column in rows[0]:
        if column.startswith("latent/"):
            _, layer, middle = column.split("/")
            layers.setdefault(layer, {})[float(middle)] = column
    if not layers:
        return False
    layers, label = _first(layers, "weights, %")
    across = min(len(layers), COLUMNS)
    down = math.ceil(len(layers) / across)
    figure.set_size_inches(max(3.2 * across, 5), 2.8 * down + 0.4)
    grid = figure.subplots(down, across, squeeze=False, sharex=True).ravel()
    chosen = sorted({0, (len(rows) - 1) // 2, len(rows) - 1})
    for axes, (layer, bins) in zip(grid, layers.items(), strict=False):
        middles = sorted(bins)
        half = (middles[1] - middles[0]) / 2 if len(middles) > 1 else 1.0
        edges = [middles[0] - half, *(middle + half for middle in middles)]
        for number in chosen:
            row = rows[number]
            shares = [100 * (row[bins[middle]] or 0.0) for middle in middles]
            axes.stairs(shares, edges, label=f"epoch {row['epoch']:.0f}", linewidth=1.5)
        axes.set(title=_label(layer), ylim=(0, None))
    for axes in grid[len(layers) :]:
        axes.set_visible(False)
    grid[0].legend()
    figure.supxlabel("latent weight")
    figure.supylabel(label)
    return True


def _lines(
    axes: Any, rows: list[Row], labels: dict[str, str], factor: float, log: bool = False
) -> None:
    """Draw named columns over the epochs, except those without any number."""
    epochs = [row["epoch"] for row in rows]
    for column, label in labels.items():
        values = [row.get(column) for row in rows]
        if any(value is not None for value in values):
            points = [math.nan if value is None else factor * value for value in values]
            axes.plot(epochs, points, marker="." if len(rows) < 50 else None, label=label)
    # zeros have no place on a logarithmic axis
    if log and any((row.get(column) or 0) > 0 for row in rows for column in labels):
        axes.set_yscale("log")
    axes.grid(alpha=0.3)
    if axes.lines:
        axes.legend(ncols=math.ceil(len(axes.lines) / 20))


def _whole_epochs(axes: Any) -> None:
    axes.xaxis.get_major_locator().set_params(integer=True)


_PICTURES: dict[str, Callable[[Any, list[Row]], bool]] = {
    "curves": _curves,
    "flips": _flips,
    "saturation": _saturation,
    "weights": _weights,
}
