"""Charts of the log of a training, drawn on figures and axes of matplotlib.

A vertical axis begins at 0, or its label says that its scale is logarithmic. Legends are beside the
axes or below them, where they hide nothing.
"""

from __future__ import annotations

import math
import re
import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from ..training.log import Row

__all__ = [
    "LAYERS",
    "WEIGHTS",
    "Mark",
    "check_rows",
    "draw_errors",
    "draw_layers",
    "draw_loss",
    "draw_metric",
    "draw_rate",
    "draw_weights",
    "find_mark",
    "find_metrics",
    "has_errors",
    "has_layers",
    "set_title",
]

MAX_METRICS = 8  # in a picture, each of which has axes of its own
MAX_LAYERS = 40  # in a picture: it takes 6 s, those of thousands would take minutes
LARGEST = 1e15  # of what is drawn: axes of larger numbers fail in many ways
_STYLES = ("-", "--", ":", "-.")  # of ten lines each, which have the colours in turn
_LINES, _LINE = 4, 0.2  # of a legend below axes: what charts have room for, and inches of one more
FALL = 20  # of a curve, from which on its axis is logarithmic
# What is drawn by layer: the beginning of the columns, and the label of the axis.
LAYERS = {
    "flips": ("flips/", "weights flipped, %"),
    "saturation": ("saturated/", "values beyond the clip, %"),
}
WEIGHTS = "latent/"


def check_rows(where: str, log: Any, rows: list[Row]) -> None:
    """Refuse columns and numbers that no `Log` writes, before something in between does."""
    for name in rows[0]:
        if name.startswith(WEIGHTS) and not re.fullmatch(_HISTOGRAM, name):
            raise ValueError(
                f"[{where}] {log} must name bins latent/layer/middle, got {name!r:.80}"
            )
    middles = [float(name.split("/")[2]) for name in rows[0] if name.startswith(WEIGHTS)]
    numbers = [value for row in rows for value in row.values() if value is not None]
    for number in (*numbers, *middles):
        if not abs(number) <= LARGEST:
            raise ValueError(f"[{where}] {log} must hold numbers up to {LARGEST:g}, got {number:g}")


# latent/0.BinaryDense/-0.95
_HISTOGRAM = r"latent/[^/]+/-?[0-9]+(\.[0-9]*)?(e[-+]?[0-9]+)?"


class Mark(NamedTuple):
    """An epoch that charts mark, and why."""

    epoch: float
    words: str


def find_mark(rows: list[Row], kept: int | None = None) -> Mark | None:
    """Return the mark of the epoch that was kept; of the best one if that is not known.

    A log does not say which one was kept. By default `fit` keeps that with the smallest validation
    error, or loss where targets are numbers.
    """
    if kept is not None:
        return Mark(kept, f"kept: epoch {kept}")
    for column in ("validation_error", "validation_loss"):
        values = [(value, row["epoch"]) for row in rows if (value := row.get(column)) is not None]
        if values:
            epoch = min(values, key=lambda pair: pair[0])[1]
            assert epoch is not None  # no log is without
            return Mark(epoch, f"smallest {column.replace('_', ' ')}: epoch {epoch:g}")
    return None


def find_metrics(rows: list[Row]) -> list[str]:
    """Return the columns of metrics of the validation data, the first of many."""
    return _metrics(rows)[:MAX_METRICS]


def _metrics(rows: list[Row]) -> list[str]:
    return [name for name in rows[0] if name.startswith("validation_") and name not in _OWN]


def has_errors(rows: list[Row]) -> bool:
    """Tell whether targets had errors; numbers have none."""
    return any(row.get(name) is not None for row in rows for name in _ERRORS)


_ERRORS = {"train_error": "training", "validation_error": "validation"}
_OWN = ("validation_error", "validation_loss")


def has_layers(rows: list[Row], prefix: str) -> bool:
    """Tell whether a log has columns that begin so."""
    return any(name.startswith(prefix) for name in rows[0])


def set_title(figure: Any, lines: Sequence[str]) -> None:
    """Put a title above all, in lines that fit the width of the figure."""
    width = int(12.5 * figure.get_size_inches()[0])
    wrapped = [part for line in lines for part in textwrap.wrap(_shown(line), width)]
    figure.suptitle("\n".join(wrapped), fontsize=9, x=0.01, horizontalalignment="left")


def _shown(name: str) -> str:
    """Return words as they are, where $ would begin a formula."""
    return name.replace("$", r"\$")


def _label(name: str) -> str:
    """Name a layer as it is, where _ would hide it."""
    shown = _shown(name)
    return f" {shown}" if not shown or shown.startswith("_") else shown


def _first(layers: dict, what: str) -> tuple[dict, str]:
    """Leave out layers that are too many, and say so in the label of an axis."""
    if len(layers) <= MAX_LAYERS:
        return layers, what
    kept = dict(list(layers.items())[:MAX_LAYERS])
    return kept, f"{what} (first {MAX_LAYERS} of {len(layers):,} layers)"


def draw_loss(axes: Any, rows: list[Row], mark: Mark | None, *, below: bool = False) -> None:
    """Draw the mean loss over the epochs."""
    labels = {"loss": "training", "validation_loss": "validation"}
    _lines(axes, rows, labels, "mean loss", mark=mark, below=below)


def draw_errors(axes: Any, rows: list[Row], mark: Mark | None, *, below: bool = False) -> None:
    """Draw the errors over the epochs."""
    _lines(axes, rows, _ERRORS, "error, %", 100, mark=mark, below=below, may_be_log=False)


def draw_metric(
    axes: Any, rows: list[Row], name: str, mark: Mark | None, *, below: bool = False
) -> None:
    """Draw a metric of the validation data, a column of `find_metrics`, over the epochs."""
    words, count = _shown(name.removeprefix("validation_").replace("_", " ")), len(_metrics(rows))
    if count > MAX_METRICS and name == find_metrics(rows)[-1]:
        words = f"{words} (first {MAX_METRICS} of {count:,} metrics)"
    _lines(axes, rows, {name: "validation"}, words, mark=mark, below=below, may_be_log=False)


def draw_rate(axes: Any, rows: list[Row], mark: Mark | None, *, below: bool = False) -> None:
    """Draw the learning rate over the epochs."""
    labels = {"learning_rate": "learning rate"}
    _lines(axes, rows, labels, "learning rate", mark=mark, below=below)


def draw_layers(
    axes: Any, rows: list[Row], what: str, mark: Mark | None, *, below: bool = False
) -> None:
    """Draw a line for each layer, of one of `LAYERS`."""
    prefix, label = LAYERS[what]
    columns = [name for name in rows[0] if name.startswith(prefix)]
    labels, label = _first({name: _label(name.removeprefix(prefix)) for name in columns}, label)
    _lines(axes, rows, labels, label, 100, mark=mark, below=below)


def _lines(
    axes: Any,
    rows: list[Row],
    labels: dict[str, str],
    label: str,
    factor: float = 1,
    *,
    mark: Mark | None,
    below: bool,
    may_be_log: bool = True,
) -> None:
    """Draw named columns over the epochs, except those without any number."""
    epochs = [row["epoch"] for row in rows]
    drawn: list[float] = []
    count = 0
    for column, name in labels.items():
        values = [row.get(column) for row in rows]
        if any(value is not None for value in values):
            points = [math.nan if value is None else factor * value for value in values]
            look = {"color": f"C{count % 10}", "linestyle": _STYLES[count // 10 % len(_STYLES)]}
            count += 1
            axes.plot(epochs, points, marker="." if len(rows) < 50 else None, label=name, **look)
            drawn += [point for point in points if not math.isnan(point)]
    if mark is not None:
        axes.axvline(mark.epoch, color="gray", linestyle="--", linewidth=1, label=mark.words)
    # zeros have no place on a logarithmic axis
    is_log = may_be_log and bool(drawn) and 0 < FALL * min(drawn) < max(drawn)
    if is_log:
        axes.set_yscale("log")
    elif min(drawn, default=0) >= 0:
        axes.set_ylim(0, None if max(drawn, default=0) > 0 else 1)
    axes.set(xlabel="epoch", ylabel=f"{label} (log scale)" if is_log else label)
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.grid(alpha=0.3)
    _add_legend(axes, below)


def _add_legend(axes: Any, below: bool) -> None:
    """Name the lines, beside the axes or at the bottom of their figure."""
    count = len(axes.lines)
    if not count:
        return
    if below:
        columns = 2 if count > 3 else count
        more = math.ceil(count / columns) - _LINES
        if more > 0:  # so that the axes keep their height
            width, height = axes.figure.get_size_inches()
            axes.figure.set_size_inches(width, height + _LINE * more)
        axes.figure.legend(loc="outside lower left", ncols=columns, fontsize=9, frameon=False)
    else:
        place: dict[str, Any] = {"loc": "upper left", "bbox_to_anchor": (1.01, 1.03)}
        axes.legend(ncols=math.ceil(count / 20), fontsize=9, frameon=False, **place)


def draw_weights(figure: Any, rows: list[Row], across: int, panel: tuple[float, float]) -> None:
    """Draw a histogram for each layer, outlines of three epochs on top of each other.

    All have one scale, which the inner bins fill. Outer bins, whose weights are at the limit or
    beyond, are cut if they are much higher, and their share in the last epoch is written there.
    """
    layers: dict[str, dict[float, str]] = {}
    for column in rows[0]:
        if column.startswith(WEIGHTS):
            _, layer, middle = column.split("/")
            layers.setdefault(layer, {})[float(middle)] = column
    layers, label = _first(layers, "weights, %")
    across = min(len(layers), across)
    down = math.ceil(len(layers) / across)
    width = max(panel[0] * across, 1.5 * panel[0])
    figure.set_size_inches(width, panel[1] * down + 1.0)
    grid = figure.subplots(down, across, squeeze=False, sharex=True, sharey=True).ravel()
    chosen = sorted({0, (len(rows) - 1) // 2, len(rows) - 1})
    shares = {
        layer: [
            [100 * (rows[number][bins[middle]] or 0.0) for middle in sorted(bins)]
            for number in chosen
        ]
        for layer, bins in layers.items()
    }
    top = _top(shares.values())
    for axes, (layer, bins) in zip(grid, layers.items(), strict=False):
        middles = sorted(bins)
        half = (middles[1] - middles[0]) / 2 if len(middles) > 1 else 1.0
        edges = [middles[0] - half, *(middle + half for middle in middles)]
        for place, (number, values) in enumerate(zip(chosen, shares[layer], strict=True)):
            name = f"epoch {rows[number]['epoch']:.0f}"
            # thick below thin: equal ones all show
            axes.stairs(values, edges, label=name, linewidth=(3.0, 1.8, 0.9)[-len(chosen) :][place])
        axes.set_title(_label(layer), fontsize=9)
        axes.set_ylim(0, top)
        for end, x, side in ((0, edges[1], "left"), (-1, edges[-2], "right")):
            share = shares[layer][-1][end]
            if share > top:
                words = f" ^ {share:.3g} % " if side == "left" else f" {share:.3g} % ^ "
                axes.text(x, 0.98 * top, words, ha=side, va="top", fontsize=8)
    for axes in grid[len(layers) :]:
        axes.set_visible(False)
    is_cut = any(row[end] > top for rows_ in shares.values() for row in rows_ for end in (0, -1))
    figure.legend(
        *grid[0].get_legend_handles_labels(),
        title="latent weight; outer bins: at the limit or beyond"
        + "\n(^: cut here, with the share in the last epoch)" * is_cut,
        loc="outside lower left",
        **{"ncols": 3, "fontsize": 9, "title_fontsize": 9, "alignment": "left", "frameon": False},
    )
    figure.supylabel(label, fontsize=9)


def _top(layers: Any) -> float:
    """Return the end of the scale: what the inner bins need, or somewhat higher outer bins."""
    inner = max(max(values[1:-1], default=0.0) for layer in layers for values in layer)
    highest = max(max(values) for layer in layers for values in layer)
    if not highest > 0:
        return 1.0
    return 1.05 * highest if highest <= 2 * inner or not inner else 1.3 * inner
