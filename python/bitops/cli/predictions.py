"""Predictions as text, CSV or JSON."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

__all__ = ["FORMATS", "Prediction", "as_number"]


@dataclass(frozen=True)
class Prediction:
    """The classes that fit an example best, from the first, and their scores.

    `place` is that of the example in a file of arrays, None for a picture.
    """

    file: str
    place: int | None
    classes: np.ndarray
    labels: list[str]
    scores: np.ndarray


def as_text(predictions: Iterable[Prediction]) -> Iterator[str]:
    """Yield a line for each example."""
    for made in predictions:
        place = "" if made.place is None else f"[{made.place}]"
        pairs = zip(made.labels, map(str, made.scores), strict=True)  # str is shortest for float32
        words = (f"{label} ({score})" for label, score in pairs)
        yield f"{made.file}{place}: {', '.join(words)}"


def as_csv(predictions: Iterable[Prediction]) -> Iterator[str]:
    """Yield a line of names, and one for each class of each example."""
    yield "file,index,rank,class,label,score"
    for made in predictions:
        place = "" if made.place is None else made.place
        rows = zip(made.classes, made.labels, made.scores, strict=True)
        for rank, (index, label, score) in enumerate(rows, 1):
            line = io.StringIO()
            cells = (made.file, place, rank, index, label, score)
            csv.writer(line, lineterminator="").writerow(cells)
            yield line.getvalue()


def as_json(predictions: Iterable[Prediction]) -> Iterator[str]:
    """Yield the lines of one list, of an object for each example."""
    # whole before the first line, so that no reader meets half a list
    objects = [json.dumps(_as_object(made), allow_nan=False) for made in predictions]
    yield "["
    yield from (f"{line}," for line in objects[:-1])
    yield from objects[-1:]
    yield "]"


def _as_object(made: Prediction) -> dict[str, Any]:
    rows = zip(made.classes.tolist(), made.labels, made.scores, strict=True)
    classes = [
        {"class": index, "label": label, "score": as_number(score)} for index, label, score in rows
    ]
    place = {} if made.place is None else {"index": made.place}
    return {"file": made.file, **place, "predictions": classes}


def as_number(value: Any) -> int | float | None:
    """Return a number of NumPy for JSON: float32 in its shortest form, None if not finite."""
    if isinstance(value, np.integer):
        return int(value)
    return float(str(value)) if math.isfinite(value) else None


FORMATS: dict[str, Callable[[Iterable[Prediction]], Iterator[str]]] = {
    "text": as_text,
    "csv": as_csv,
    "json": as_json,
}
