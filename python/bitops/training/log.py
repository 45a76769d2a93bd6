"""A log of a training: one row for each epoch, as CSV or JSON lines."""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path

from ..files import write_file
from .callbacks import Callback, Run
from .metrics import flip_ratios, histograms, saturation

__all__ = ["Log", "read_log"]

SUFFIXES = (".csv", ".jsonl")

Row = dict[str, float | None]


class Log(Callback):
    """Append a row to a file after every epoch, readable while the training runs.

    Parameters
    ----------
    path : path
        It ends in .csv (a line of names, then numbers) or .jsonl (an object in each line). A new
        training starts a new file; a resumed one goes on after the row of its last epoch.
    bins : int
        Number of bins in the histograms of latent weights; 0 for no histograms.

    Notes
    -----
    The columns are `epoch`, `step`, `learning_rate`, `loss`, `train_error`, `validation_error`
    (empty without validation data) and `seconds`. More columns name a layer by place and type:
    `flips/0.BinaryDense` is the share of its binary weights whose sign changed in the epoch;
    `saturated/2.Sign` that of the values before it outside its clip value, on the last batch
    without augmentation, under the running statistics; `latent/0.BinaryDense/-0.95` that of its
    latent weights in the bin around -0.95. See `bitops.training.metrics`.
    """

    def __init__(self, path: str | os.PathLike, bins: int = 20):
        self.path = Path(path)
        if self.path.suffix not in SUFFIXES:
            raise ValueError(f"[Log] path must end in {' or '.join(SUFFIXES)}, got {path}")
        if bins < 0:
            raise ValueError(f"[Log] bins must be >= 0, got {bins}")
        self.bins = bins
        self._columns: list[str] | None = None

    def on_start(self, run: Run) -> None:
        done = len(run.history.epochs)
        lines: list[str] = []
        self._columns = None
        rows = read_log(self.path) if done and self.path.exists() else []
        if rows:
            self._columns = list(rows[0])
            lines = _whole_lines(self.path)
            names = lines[: len(lines) - len(rows)]
            pairs = zip(lines[len(names) :], rows, strict=True)
            lines = names + [line for line, row in pairs if (row["epoch"] or 0) <= done]
        write_file(self.path, "".join(f"{line}\n" for line in lines).encode())

    def on_epoch(self, run: Run) -> None:
        row = self._row(run)
        if self._columns is None:
            self._append(_csv_line(row) if self.path.suffix == ".csv" else "")
            self._columns = list(row)
        if list(row) != self._columns:
            differ = sorted(set(row) ^ set(self._columns))
            raise ValueError(f"[Log] columns of {self.path} must stay the same, differ in {differ}")
        self._append(
            _csv_line(row.values()) if self.path.suffix == ".csv" else f"{json.dumps(row)}\n"
        )

    def _append(self, text: str) -> None:
        """Write whole lines at once, so that a reader hardly ever sees half a row."""
        with self.path.open("a", encoding="ascii", newline="") as file:
            file.write(text)

    def _row(self, run: Run) -> Row:
        epoch = asdict(run.history.epochs[-1])
        row: Row = {"epoch": epoch.pop("number"), "step": run.step, **epoch}
        flips = flip_ratios(run.model, run.signs)
        row |= {f"flips/{name}": ratio for name, ratio in flips.items()}
        shares = saturation(run.model, run.data[0][run.rows])
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


def _whole_lines(path: Path) -> list[str]:
    """Return the lines of a file that are complete."""
    text = path.read_text(encoding="ascii")
    return text[: text.rfind("\n") + 1].splitlines()


def read_log(path: str | os.PathLike) -> list[Row]:
    """Read the rows of a log in order, as numbers by column; an empty cell is None.

    A last row that is not yet written to its end is left out.

    Raises
    ------
    OSError
        If the file cannot be read.
    ValueError
        If it is not a log.
    """
    path = Path(path)
    try:
        lines = _whole_lines(path)
        objects: Iterable[dict] = (
            map(json.loads, lines)
            if path.suffix == ".jsonl"
            else csv.DictReader(lines, restval="missing")
        )
        rows = [
            {name: None if value in (None, "") else float(value) for name, value in row.items()}
            for row in objects
        ]
    except (ValueError, TypeError, AttributeError) as error:
        raise ValueError(f"[read_log] {path} must be the log of a training: {error}") from None
    for row in rows:
        if not {"epoch", "loss", "train_error", "validation_error"} <= set(row):
            raise ValueError(
                f"[read_log] rows of {path} must have epoch, loss and errors, got {row}"
            )
    return rows
