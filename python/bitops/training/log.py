"""A log of a training: one row for each epoch, as CSV or JSON lines."""

from __future__ import annotations

import csv
import io
import json
import math
import os
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import NamedTuple

from ..files.reading import read_regular
from ..files.tensors import MALFORMED, parse_json
from ..files.writing import append_file, try_file, write_file
from ..ops.checks import check_integer
from .callbacks import Writer
from .metrics import flip_ratios, histograms, saturation
from .run import Epoch, Run

__all__ = ["Log", "read_log"]

SUFFIXES = (".csv", ".jsonl")
_NEEDED = {"epoch", "loss", "train_error", "validation_error"}

Row = dict[str, float | None]


class Log(Writer):
    """Append a row to a file after every epoch, readable while the training runs.

    Parameters
    ----------
    path : path
        It ends in .csv (a line of names, then numbers) or .jsonl (an object in each line). A new
        training starts a new file; a resumed one goes on after the row of its last epoch. What was
        there stays until the first step is done. Another program may rename the file meanwhile:
        the next row starts a new one.
    bins : int
        Number of bins in the histograms of latent weights; 0 for no histograms.
    overwrite : bool
        Whether to start a new file in any case. By default a new training refuses to replace a log
        with rows, and a resumed one a log whose losses are not those of its epochs.

    Notes
    -----
    The columns are `epoch`, `step`, `learning_rate`, `loss`, `train_error`, `validation_error`,
    `seconds`, `validation_loss`, and the metrics of `fit`. Errors are empty where targets are
    numbers, and so is what is of validation data without these. More columns name a layer by place
    and type: `flips/0.BinaryDense` is the share of its binary weights whose sign changed in the
    epoch; `saturated/2.Sign` that of the values before it outside its clip value, on the last batch
    without augmentation, under the running statistics; `latent/0.BinaryDense/-0.95` that of its
    latent weights in the bin around -0.95. See `bitops.training.metrics`.

    Examples
    --------
    >>> model.fit(x, y, callbacks=[Log("run.csv")])  # doctest: +SKIP
    """

    def __init__(self, path: str | os.PathLike, bins: int = 20, *, overwrite: bool = False):
        super().__init__(path, overwrite=overwrite)
        if self.path.suffix not in SUFFIXES:
            raise ValueError(f"[Log] path must end in {' or '.join(SUFFIXES)}, got {path}")
        self.bins = check_integer("Log", "bins", bins, 0)
        self._columns: list[str] | None = None
        self._start: str | None = None  # of the file, to be written once a step is done

    def check(self, run: Run) -> None:
        for name in run.metrics:
            if not name.isprintable():
                raise ValueError(f"[Log] names of metrics must be printable, got {name!r:.80}")
        try_file("Log", self.path)
        rows = _read(self.path) if self.path.exists() and not self.overwrite else []
        if rows:
            self._check_rows(run, [row.numbers for row in rows])
        kept = [row for row, numbers in rows if (numbers["epoch"] or 0) <= len(run.history.epochs)]
        self._columns = list(rows[0].numbers) if rows else None
        header = [_csv_line(self._columns)] if self._columns and self._is_csv else []
        self._start = "".join([*header, *(f"{line}\n" for line in kept)])

    def _check_rows(self, run: Run, rows: list[Row]) -> None:
        """Refuse a file to which this training is not to add rows."""
        found = ""
        epochs = {float(epoch.number): epoch.loss for epoch in run.history.epochs}
        for row in rows:
            number, loss = row["epoch"] or 0.0, row["loss"] or 0.0
            # a program that has opened the file may have rounded a number
            if number <= len(epochs) and not math.isclose(loss, epochs.get(number, math.nan)):
                found = f"; in epoch {number:g} the loss is {loss:g} there"
                break
        if found or not run.step:
            raise FileExistsError(
                f"[Log] {self.path} must be new or the log of the training that is resumed, unless "
                f"with overwrite=True, got a log of {len(rows)} rows{found}"
            )
        none = Epoch(0, 0.0, 0.0, None, None, 0.0, metrics=dict.fromkeys(run.metrics, 0.0))
        names = [name for name in rows[0] if not name.startswith("saturated/")]
        self._check_columns(list(self._row(run, none, {})), names)

    def _check_columns(self, here: list[str], there: list[str]) -> None:
        if here != there:
            differ = sorted(set(here) ^ set(there))
            raise ValueError(f"[Log] columns of {self.path} must stay the same, differ in {differ}")

    def on_batch(self, run: Run) -> None:
        self._begin()

    def on_end(self, run: Run) -> None:
        self._begin()

    def _begin(self) -> None:
        """Replace what was there by the rows that stay; before, the training might be refused."""
        if self._start is not None:
            write_file("Log", self.path, self._start.encode())
            self._start = None

    def on_epoch(self, run: Run) -> None:
        self._begin()
        row = self._row(run, run.history.epochs[-1], saturation(run.model, run.inputs))
        self._columns = self._columns or list(row)
        self._check_columns(list(row), self._columns)
        line = _csv_line(row.values()) if self._is_csv else f"{json.dumps(row)}\n"
        # the file may be a new one by now, if a program has renamed the old one
        first = _csv_line(self._columns) if self._is_csv else ""
        append_file("Log", self.path, line.encode(), first=first.encode())

    @property
    def _is_csv(self) -> bool:
        return self.path.suffix == ".csv"

    def _row(self, run: Run, epoch: Epoch, shares: dict[str, float]) -> Row:
        """Return the row of an epoch; the shares are those of saturated values."""
        results = asdict(epoch)
        metrics = results.pop("metrics")
        row: Row = {"epoch": results.pop("number"), "step": run.step, **results, **metrics}
        flips = flip_ratios(run.model, run.signs)
        row |= {f"flips/{name}": ratio for name, ratio in flips.items()}
        row |= {f"saturated/{name}": share for name, share in shares.items()}
        if self.bins:
            for name, histogram in histograms(run.model, self.bins).items():
                row |= {f"latent/{name}/{bin:.4g}": share for bin, share in histogram.items()}
        return row

    def __repr__(self) -> str:
        return f"Log({str(self.path)!r}, bins={self.bins})"


def _csv_line(cells: Iterable) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(cells)
    return text.getvalue()


class _Line(NamedTuple):
    """A row as it stands in the file, and its numbers."""

    text: str
    numbers: Row


def read_log(path: str | os.PathLike) -> list[Row]:
    """Read the rows of a log in order, as numbers by column; an empty cell is None.

    A last row that is not yet written to its end is left out, and so are blank lines.

    Raises
    ------
    OSError
        If the file cannot be read.
    ValueError
        If it is not a log: not all rows have the same columns, `epoch` and the errors among them,
        or a cell is neither empty nor a finite number.

    Examples
    --------
    >>> [row["loss"] for row in read_log("run.csv")]  # doctest: +SKIP
    """
    return [line.numbers for line in _read(Path(path))]


def _read(path: Path) -> list[_Line]:
    try:
        text = read_regular(path).decode("utf-8-sig")  # some editors put a mark at its start
        lines = [line.removesuffix("\r") for line in text.split("\n")[:-1] if line.strip()]
        rows = _parse_csv(lines) if path.suffix != ".jsonl" else map(_parse_object, lines)
        read = [_Line(*pair) for pair in zip(_without_names(path, lines), rows, strict=True)]
        for row in read:
            _check_row(row.numbers, list(read[0].numbers))
    except (*MALFORMED, csv.Error) as error:
        raise ValueError(
            f"[read_log] {path} must be the log of a training: {str(error)[:300]}"
        ) from None
    return read


def _without_names(path: Path, lines: list[str]) -> list[str]:
    """Leave out the line of names, which one of the formats has."""
    return lines if path.suffix == ".jsonl" else lines[1:]


def _parse_csv(lines: list[str]) -> Iterator[Row]:
    """Yield the rows below a line of names."""
    names: list[str] | None = None
    for line in lines:
        (cells,) = csv.reader([line], strict=True)
        if names is None:
            names = cells
            if len(set(names)) < len(names):
                raise ValueError("names of columns must be unique")
        else:
            if len(cells) != len(names):
                raise ValueError(f"rows must have {len(names)} cells, got {len(cells)}")
            values = [float(cell) if cell else None for cell in cells]
            yield dict(zip(names, values, strict=True))


def _parse_object(line: str) -> Row:
    """Parse a line of JSON, an object of numbers."""
    row = parse_json(line)
    for name, value in row.items():
        if value is not None and type(value) not in (int, float):
            raise ValueError(f"{name!r:.80} must be a number or null, got {value!r:.80}")
    return {name: None if value is None else float(value) for name, value in row.items()}


def _check_row(row: Row, columns: list[str]) -> None:
    if list(row) != columns or not _NEEDED <= set(row):
        raise ValueError(
            f"rows must have the same columns, {', '.join(sorted(_NEEDED))} among them, "
            f"got {list(row)!r:.80} and {columns!r:.80}"
        )
    for name, value in row.items():
        if (value is None and name == "epoch") or (value is not None and not math.isfinite(value)):
            raise ValueError(f"{name!r:.80} must be a finite number, got {value}")
