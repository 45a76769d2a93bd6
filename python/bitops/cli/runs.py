"""Folders of runs: `bitops train --run` writes them, `bitops plot` and `bitops report` read them.

    RUN/run.json                what is trained on what, with which settings, and what came out
    RUN/log.csv                 a row an epoch
    RUN/checkpoint.safetensors  all that --resume needs
    RUN/model.safetensors       the packed network
    RUN/lessons.safetensors     the scores of a teacher, if there is one

A recipe of several stages has a log and a checkpoint for each: log.1.csv, log.2.csv.
"""

from __future__ import annotations

import json
from dataclasses import MISSING, asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, get_type_hints

from ..files.reading import read_regular
from ..files.tensors import MALFORMED, parse_json
from ..files.writing import write_file

__all__ = [
    "CHECKPOINT",
    "LESSONS",
    "LOG",
    "MODEL",
    "Record",
    "find_logs",
    "is_run",
    "read_record",
    "write_record",
]

CHECKPOINT, LOG, MODEL = "checkpoint.safetensors", "log.csv", "model.safetensors"
LESSONS = "lessons.safetensors"
DESCRIPTION = "run.json"
FORMAT, VERSION = "bitops.run", 1


@dataclass(frozen=True)
class Record:
    """What a run is, in words, and what came out; None until it is over.

    Attributes
    ----------
    recipe, title, source, data, preprocessing, settings : str
        As `bitops train` prints them.
    command : str
        A line for the command that began the run, and for each that went on with other settings.
    folder : str
        Where the data is, an absolute path.
    start : str, optional
        The checkpoint of another training from which it started, an absolute path.
    teacher : str, optional
        The packed network whose scores it learns, an absolute path.
    size, channels, resize
        How pictures of one's own are read, see `load_images`.
    net : str, optional
    best_epoch : int, optional
        Of the last stage, that which was kept.
    validation_error, test_error, seconds : float, optional
        Errors are shares; the seconds are those of all stages.
    """

    recipe: str
    title: str
    source: str
    data: str
    preprocessing: str
    settings: str
    command: str
    folder: str
    start: str | None = None
    teacher: str | None = None
    size: int | None = None
    channels: int | None = None
    resize: str | None = None
    net: str | None = None
    best_epoch: int | None = None
    validation_error: float | None = None
    test_error: float | None = None
    seconds: float | None = None

    def after(self, begun: Record) -> Record:
        """Return this record with the commands before, to which one of other settings is added."""
        own = "" if self.settings == begun.settings else f"\n{self.command}"
        return replace(self, command=begun.command + own)

    @property
    def words(self) -> list[str]:
        """Lines that say what is trained on what, and how."""
        return [
            f"{self.recipe}: {self.title}",
            f"{self.data}; preprocessing: {self.preprocessing}",
            self.settings,
        ]

    @property
    def reading(self) -> dict[str, Any]:
        """The options of `load_dataset` for the data of the run."""
        return {"size": self.size, "channels": self.channels, "resize": self.resize}


def write_record(folder: Path, record: Record) -> None:
    """Write the description of a run; it appears whole or not at all."""
    text = json.dumps({"format": FORMAT, "version": VERSION, **asdict(record)}, indent=1)
    write_file("train", folder / DESCRIPTION, f"{text}\n".encode())


def read_record(where: str, folder: Path) -> Record:
    """Read the description of a run.

    Raises
    ------
    OSError
        If it cannot be read.
    ValueError
        If it is none.
    """
    path = folder / DESCRIPTION
    if folder.is_dir() and not is_run(folder):
        raise FileNotFoundError(
            f"[{where}] {folder} must be a folder that `bitops train --run` wrote, got one "
            f"without {DESCRIPTION}"
        )
    try:
        found = parse_json(read_regular(path).decode())
        kind = found.pop("format", None), found.pop("version", None)
        if kind != (FORMAT, VERSION):
            raise ValueError(f"format and version must be {FORMAT} {VERSION}, got {kind}")
        _check(found)
        return Record(**found)
    except MALFORMED as error:
        raise ValueError(f"[{where}] {path} must describe a run: {str(error)[:300]}") from None


def _check(found: dict[str, Any]) -> None:
    kinds = get_type_hints(Record)
    for field in fields(Record):
        if field.name not in found and field.default is MISSING:
            raise ValueError(f"{field.name} must be there")
    for name, value in found.items():
        kind = kinds.get(name)
        if kind is None or not isinstance(value, kind) or isinstance(value, bool):
            raise ValueError(f"{name!r:.80} must be {kind}, got {value!r:.80}")


def is_run(folder: Path) -> bool:
    """Tell whether a run has begun in a folder."""
    return (folder / DESCRIPTION).exists()


def find_logs(folder: Path) -> list[Path]:
    """Return the logs of the stages, in order; none before the first epoch."""
    logs = [folder / LOG]
    if not logs[0].exists():
        logs = sorted(folder.glob(f"{Path(LOG).stem}.[0-9].csv"))
    return [log for log in logs if log.exists() and log.stat().st_size]
