"""`bitops report`: a run on one page of HTML, which needs nothing else."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import benchmark, io
from ..files import notes
from ..files.text import printable
from ..files.writing import write_file
from . import charts, page, runs
from .arguments import output_ending
from .figures import new_figure
from .findings import Findings, examine, filter_sheet, measure_speed
from .network_picture import draw_network, short_count

if TYPE_CHECKING:
    from ..data.datasets import Dataset
    from ..layers import Packed
    from ..training.log import Row

__all__ = ["add_parser", "make_report", "run"]

SIZE = 4.8, 3.2  # inches of a chart, which phones show nearly in its own size
LEAST = "21rem"  # width of a chart on wider screens
MISTAKES = 40
MOST_CLASSES = 20  # in a table of all pairs
BATCHES = 1, 100


def add_parser(commands: Any) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "report",
        help="show a training run on one page of HTML",
        description="Write a page about a run of `bitops train --run`: curves, flips and "
        "histograms of weights, first filters, confusions and wrongly classified images of the "
        "packed network, its size and speed, settings and command. The page is one file, which "
        "loads nothing. Of a run that is not over it shows what there is. Needs matplotlib.",
    )
    parser.add_argument(
        "folder", type=Path, metavar="RUN", help="a folder that `bitops train --run` wrote"
    )
    parser.add_argument(
        "--data", type=Path, metavar="DIR", help="the data, if it is no longer where it was"
    )
    parser.add_argument(
        "-o",
        "--output",
        type=output_ending(".html"),
        metavar="OUT",
        help="a .html file (report.html in RUN)",
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Write the page, and say where."""
    made = make_report(args.folder, args.data).encode()
    path = args.output or args.folder / "report.html"
    write_file("report", path, made)
    print(f"wrote {printable(path)}, {len(made):,} bytes")
    return 0


def make_report(folder: Path, data_folder: Path | None = None) -> str:
    """Return the page of a run.

    Parameters
    ----------
    folder : path
        That `bitops train --run` wrote.
    data_folder : path, optional
        Where the data is; by default where it was.
    """
    new_figure("report")  # an error without matplotlib, before any work
    record = runs.read_record("report", folder)
    logs = {log: _read_log(log) for log in runs.find_logs(folder)}
    logs = {log: rows for log, rows in logs.items() if rows}
    model = folder / runs.MODEL
    packed = io.load(model) if record.net is not None and model.exists() else None
    parts = [_head(record)]
    if packed is None:
        epochs = sum(map(len, logs.values()))
        parts.append(page.note(f"This training is not over, after {epochs:,} complete epochs."))
    else:
        parts += _results(record, packed, model.stat().st_size, data_folder)
    for number, rows in enumerate(logs.values(), 1):
        kept = record.best_epoch if number == len(logs) else None  # it is of the last stage
        mark = charts.find_mark(rows, kept)
        parts += _curves(rows, mark, f" of stage {number}" if len(logs) > 1 else "")
    return page.make_page(f"{record.recipe} on {record.data.split(':')[0]}", [*parts, _end(record)])


def _read_log(log: Path) -> list[Row]:
    # imported here, so that `bitops info` and `bitops bench` load no training code
    from ..training.log import read_log

    rows = read_log(log)
    if rows:
        charts.check_rows("report", log, rows)
    return rows


def _head(record: runs.Record) -> str:
    lines = [record.data, record.settings, f"source: {record.source}"]
    return "\n".join(
        [
            f"<h1>{page.words(record.recipe)}: {page.words(record.title)}</h1>",
            *(f'<p class="more">{page.words(line)}</p>' for line in lines),
        ]
    )


def _results(
    record: runs.Record, packed: Packed, file_bytes: int, data_folder: Path | None
) -> Iterator[str]:
    """Yield what the packed network is and does."""
    from ..recipes.base import inputs
    from ..recipes.preprocess import preprocess
    from .results import describe_kept, describe_seconds

    float_bytes = packed.summary().total.float_bytes
    sizes = (
        "packed network",
        short_count(file_bytes, "B"),
        f"{float_bytes / file_bytes:.1f} times smaller than {short_count(float_bytes, 'B')} of "
        "float32",
    )
    times = (
        "training",
        describe_seconds(record.seconds or 0),
        f"kept: {describe_kept(record.best_epoch, record.validation_error)}",
    )
    data, problem = _load(record, packed, data_folder)
    if data is None:
        error = ("test error", f"{record.test_error or 0:.2%}", "as the training found it")
        yield page.facts([error, times, sizes])
        yield page.note(f"The data could not be used, so that its images are left out: {problem}")
        yield from _filters(packed, notes.image_shape(packed) or ())
    else:
        x = inputs(packed, data, preprocess(data, record.preprocessing).x_test)
        found = examine(packed, x, data, MISTAKES)
        tested = len(data.y_test)
        error = (
            "test error",
            f"{found.wrong / tested:.2%}",
            f"{found.wrong:,} of {tested:,} images, by the packed network",
        )
        speeds = measure_speed(packed, x, BATCHES)
        speed = [
            (f"speed, batch {size}", f"{speed:,.0f} / s", "images, on this machine")
            for size, speed in speeds.items()
        ]
        yield page.facts([error, times, sizes, *speed])
        yield from _changes(record, data, found.wrong / tested)
        yield _confusions(found)
        yield _mistakes(found)
        yield from _filters(packed, data.image_shape)
    yield _network(packed)


def _load(
    record: runs.Record, packed: Packed, data_folder: Path | None
) -> tuple[Dataset | None, str]:
    """Read the data of the run; where it was not named, it may be gone."""
    from ..data.datasets import load_dataset

    try:
        _, data = load_dataset(data_folder or Path(record.folder), **record.reading)
        notes.check_classes("report", packed, data)
    except (OSError, ValueError) as error:
        if data_folder is not None:
            raise
        return None, str(error)
    return data, ""


def _changes(record: runs.Record, data: Dataset, error: float) -> Iterator[str]:
    """Yield what is no longer as the training found it."""
    from .results import describe_images

    here = describe_images(data)
    if not record.data.endswith((f": {here}", f": {describe_images(data.without_validation())}")):
        yield page.note(f"The data has changed since the training. Now there are {here}.")
    if record.test_error is not None and record.test_error != error:
        yield page.note(f"The training found a test error of {record.test_error:.2%}.")


def _confusions(found: Findings) -> str:
    """Show how often each class is taken for each; of many classes the most frequent mistakes."""
    counts, names = found.confusion, found.names
    if len(names) > MOST_CLASSES:
        wrong = counts - np.diag(np.diag(counts))
        places = np.argsort(-wrong, axis=None, kind="stable")[:15]
        pairs = [divmod(int(place), len(names)) for place in places]
        listed = [(names[a], names[b], f"{wrong[a, b]:,}") for a, b in pairs if wrong[a, b]]
        head = "label", "taken for", "images"
        return page.section("Most frequent confusions", page.table(head, listed))
    rows: list[tuple[str, ...]] = []
    shades = []
    for i, (name, row) in enumerate(zip(names, counts, strict=True)):
        images = max(int(row.sum()), 1)
        rows.append((name, *(f"{n:,}" if n else "" for n in row), f"{1 - row[i] / images:.1%}"))
        shades.append([_shade(n / images, is_right=i == j) for j, n in enumerate(row)] + [""])
    return page.section(
        "Confusion matrix",
        '<p class="more">Rows: the label of the image. Columns: what the network takes it for.</p>',
        page.table(("", *names, "error"), rows, kind="confusion", shades=shades),
    )


def _shade(share: float, is_right: bool) -> str:
    """Return the style of a cell: stronger for larger shares, and soon strong for mistakes."""
    strength = 0.35 * share if is_right else min(0.7, 4 * share)
    color = "right" if is_right else "wrong"
    return f"background: rgb(var(--{color}) / {strength:.2f})" if share else ""


def _mistakes(found: Findings) -> str:
    if not found.mistakes:
        return page.section("Wrongly classified images", page.note("There are none."))
    names = found.names
    figures = []
    for made in found.mistakes:
        words = f"{names[made.label]}, taken for {names[made.predicted]}"
        figures.append(page.figure(page.image(made.pixels, words), words))
    shown = len(figures)
    which = (
        f"The {shown} most certain of {found.wrong:,}." if shown < found.wrong else "All of them."
    )
    return page.section(
        "Wrongly classified images",
        f'<p class="more">{which}</p>',
        page.grid(figures, "5.5rem"),
    )


def _filters(packed: Packed, shape: tuple[int, ...]) -> Iterator[str]:
    drawn = filter_sheet(packed, shape)
    if drawn is not None:
        sheet, shown, total = drawn
        which = f"the first {shown} of {total:,}" if shown < total else f"all {total:,}"
        caption = f"Weights of the first layer, {which}; black is -1 or the lowest, white +1."
        picture = page.image(sheet, "first filters", "pixels sheet")
        yield page.section("First filters", page.figure(picture, caption))


def _network(packed: Packed) -> str:
    summary = packed.summary()
    head = "layer", "output", "parameters", "bytes", "as float32", "1-bit MACs", "float MACs"
    rows = [
        (
            row.layer,
            row.output,
            *(
                "?" if count is None else f"{count:,}"
                for count in (
                    row.parameters,
                    row.packed_bytes,
                    row.float_bytes,
                    row.binary_macs,
                    row.float_macs,
                )
            ),
        )
        for row in (*summary.rows, summary.total)
    ]
    picture = draw_network(packed, "packed network").encode()
    drawn = page.embed(picture, "image/svg+xml", "the layers of the network", "sheet")
    return page.section(
        "Packed network",
        page.table(head, rows),
        f"<details><summary>Picture of the layers</summary>{drawn}</details>",
    )


def _curves(rows: list[Row], mark: charts.Mark | None, stage: str) -> Iterator[str]:
    """Yield the charts of a log."""

    def drawn(name: str, draw: Any, *more: Any) -> str:
        made = new_figure("report")
        made.set_size_inches(SIZE)
        draw(made.subplots(), rows, *more, mark, below=True)
        return page.figure(page.chart(made, f"{name}{stage}"))

    curves = [drawn("loss", charts.draw_loss)]
    curves += [drawn("errors", charts.draw_errors)] if charts.has_errors(rows) else []
    curves += [drawn(name, charts.draw_metric, name) for name in charts.find_metrics(rows)]
    curves.append(drawn("learning rate", charts.draw_rate))
    curves += [
        drawn(what, charts.draw_layers, what)
        for what, (prefix, _) in charts.LAYERS.items()
        if charts.has_layers(rows, prefix)
    ]
    yield page.section(f"Training{stage}", page.grid(curves, LEAST))
    if charts.has_layers(rows, charts.WEIGHTS):
        made = new_figure("report")
        charts.draw_weights(made, rows, 2, (SIZE[0] / 2, 2.0))
        weights = page.figure(page.chart(made, f"latent weights{stage}"))
        yield page.section(f"Latent weights{stage}", page.grid([weights], "36rem"))


def _end(record: runs.Record) -> str:
    stamp = benchmark.machine_stamp()
    rows = [
        ("data", record.folder),
        ("preprocessing", record.preprocessing),
        ("settings", record.settings),
        ("network", record.net or "-"),
        (
            "shown by",
            f"bitops {stamp['version']} on {stamp['cpu']}, {stamp['isa']}, "
            f"threads {stamp['threads']}",
        ),
    ]
    lines = (f"<p><b>{page.words(name)}</b>: {page.words(value)}</p>" for name, value in rows)
    return page.section("Settings and command", f"<pre>{page.words(record.command)}</pre>", *lines)
