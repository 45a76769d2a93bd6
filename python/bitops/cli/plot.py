"""`bitops plot`: pictures of a training log, drawn with matplotlib."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..files.text import printable
from . import charts, runs
from .figures import new_figure, save_figure

if TYPE_CHECKING:
    from ..training.log import Row

__all__ = ["add_parser", "plot", "run"]

COLUMNS = 4  # histograms beside each other
PANEL = 3.2, 2.6  # inches of a histogram


def add_parser(commands: Any) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "plot",
        help="draw the log of a training as PNG pictures",
        description="Draw loss, errors, metrics and learning rate, flip ratios, saturated "
        "activations and histograms of latent weights from a log, as `bitops train --log` writes "
        "it, even while the training still runs. Needs matplotlib.",
    )
    parser.add_argument(
        "log",
        type=Path,
        metavar="LOG",
        help="a .csv or .jsonl file, or a folder that `bitops train --run` wrote",
    )
    parser.add_argument(
        "--out", type=Path, metavar="DIR", help="folder for the pictures (that of LOG)"
    )
    parser.add_argument(
        "--title", metavar="TEXT", help="above each picture (recipe, data and settings of the run)"
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Draw the log, or those of a run, and print the names of the pictures."""
    logs, title, kept = [args.log], None, None
    if args.log.is_dir():
        record = runs.read_record("plot", args.log)
        logs, title, kept = runs.find_logs(args.log), record.words, record.best_epoch
        if not logs:
            raise ValueError(f"[plot] {args.log} must have at least one epoch, got none")
    if args.title is not None:
        title = [args.title]
    for log in logs:
        known = kept if log == logs[-1] else None  # the record has that of the last stage
        for path in plot(log, args.out, title=title, kept=known):
            print(printable(path, encoding=sys.stdout.encoding))
    return 0


def plot(
    log: str | os.PathLike,
    folder: str | os.PathLike | None = None,
    *,
    title: Sequence[str] | None = None,
    kept: int | None = None,
) -> list[Path]:
    """Draw the log of a training.

    Parameters
    ----------
    log : path
        A file that `Log` wrote.
    folder : path, optional
        Where the pictures go, by default that of the log; it is made if it does not exist.
    title : sequence of str, optional
        Lines above each picture, by default the name of the log.
    kept : int, optional
        The epoch whose model is kept, which a log does not say. Without it, the one with the
        smallest validation error is marked, or loss where targets are numbers.

    Returns
    -------
    list of Path
        `<log>-curves.png` with loss, errors, metrics and learning rate; `<log>-flips.png` with the
        flip ratios; `<log>-saturation.png`; and `<log>-weights.png` with the histograms of latent
        weights at the beginning, in the middle and at the end. The log may lack data for the last
        three.

    Raises
    ------
    ImportError
        If matplotlib is not installed.
    ValueError
        If the file is no log, has no rows yet, or has columns or numbers that cannot be drawn.

    Notes
    -----
    A dashed line marks the epoch; the legend says which it is. Of more than 40 layers a picture
    shows the first 40, and says so.
    """
    # imported here, so that `bitops info` and `bitops bench` load no training code
    from ..training.log import read_log

    log = Path(log)
    rows = read_log(log)
    if not rows:
        raise ValueError(f"[plot] {log} must have at least one epoch, got none")
    charts.check_rows("plot", log, rows)
    folder = log.parent if folder is None else Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    words = [printable(line) for line in ([log.name] if title is None else title)]
    mark = charts.find_mark(rows, kept)
    written = []
    for name, draw in _PICTURES.items():
        figure = new_figure("plot")
        if draw(figure, rows, mark):
            charts.set_title(figure, words)
            written.append(folder / f"{log.stem}-{name}.png")
            save_figure("plot", figure, written[-1])
    return written


def _curves(figure: Any, rows: list[Row], mark: charts.Mark | None) -> bool:
    """Draw loss, errors, metrics and learning rate below each other, over the epochs."""
    draws: list[Callable[..., None]] = [charts.draw_loss]
    draws += [charts.draw_errors] if charts.has_errors(rows) else []
    draws += [partial(charts.draw_metric, name=name) for name in charts.find_metrics(rows)]
    heights = [3] * len(draws) + [2]
    draws.append(charts.draw_rate)
    figure.set_size_inches(9, 1 + sum(heights))
    grid = figure.subplots(len(draws), sharex=True, height_ratios=heights)
    for axes, draw in zip(grid, draws, strict=True):
        draw(axes, rows, mark=mark)
        axes.label_outer()
    return True


def _flips(figure: Any, rows: list[Row], mark: charts.Mark | None) -> bool:
    return _by_layer(figure, rows, "flips", mark)


def _saturation(figure: Any, rows: list[Row], mark: charts.Mark | None) -> bool:
    return _by_layer(figure, rows, "saturation", mark)


def _by_layer(figure: Any, rows: list[Row], what: str, mark: charts.Mark | None) -> bool:
    """Draw a line for each layer; nothing without columns for them."""
    if not charts.has_layers(rows, charts.LAYERS[what][0]):
        return False
    figure.set_size_inches(9, 5)
    charts.draw_layers(figure.subplots(), rows, what, mark)
    return True


def _weights(figure: Any, rows: list[Row], mark: charts.Mark | None) -> bool:
    if not charts.has_layers(rows, charts.WEIGHTS):
        return False
    charts.draw_weights(figure, rows, COLUMNS, PANEL)
    return True


_PICTURES: dict[str, Callable[[Any, list[Row], charts.Mark | None], bool]] = {
    "curves": _curves,
    "flips": _flips,
    "saturation": _saturation,
    "weights": _weights,
}
