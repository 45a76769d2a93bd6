"""Notes of a packed model that say how it takes pictures, and what its classes are called."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from .pictures import RESIZE
from .tensors import parse_json
from .text import printable

if TYPE_CHECKING:
    from ..data.datasets import Dataset
    from ..layers import Packed

__all__ = [
    "check_classes",
    "class_names",
    "image_shape",
    "notes_on_data",
    "preprocessing",
    "resizing",
]


def notes_on_data(data: Dataset, resize: str | None) -> dict[str, str]:
    """Return the notes for images of one's own; other data sets have none."""
    if not data.class_names:
        return {}
    notes = {
        "classes": json.dumps(data.class_names),
        "image_shape": "x".join(map(str, data.image_shape)),
    }
    return notes if resize is None else {**notes, "resize": resize}


def class_names(where: str, packed: Packed) -> list[str] | None:
    """Return the names of the classes; None if the model has no such note."""
    note = packed.notes.get("classes")
    if note is None:
        return None
    try:
        names = parse_json(note)
    except ValueError:
        names = None
    is_list = isinstance(names, list) and all(isinstance(name, str) for name in names)
    if not is_list or (packed.out_features or len(names)) != len(names):
        raise ValueError(
            f"[{where}] the note classes of the model must be a JSON list of "
            f"{packed.out_features} names, got {note!r:.80}"
        )
    return names


def check_classes(where: str, packed: Packed, data: Dataset) -> None:
    """Refuse data of other classes than those of the model."""
    if packed.out_features != data.classes:
        raise ValueError(
            f"[{where}] {printable(data.name)} must have {packed.out_features} classes, as many as "
            f"the model has scores, got {data.classes}"
        )
    names = class_names(where, packed)
    if names is not None and data.class_names and list(data.class_names) != names:
        there, here = (printable(", ".join(words), most=80) for words in (names, data.class_names))
        raise ValueError(
            f"[{where}] the classes of {printable(data.name)} must be {there}, got {here}"
        )


def image_shape(packed: Packed) -> tuple[int, int, int] | None:
    """Return height, width and channels of the images; None if the model does not tell them."""
    words = packed.notes.get("image_shape", "").split("x")
    shape = packed.input_shape
    if len(words) == 3 and all(word.isdecimal() and len(word) < 6 for word in words):
        shape = tuple(map(int, words))
    return (shape[0], shape[1], shape[2]) if shape is not None and len(shape) == 3 else None


def preprocessing(packed: Packed) -> str:
    """Return the name of what makes the input of the model; "pixels" if it has no such note."""
    return packed.notes.get("preprocessing", "pixels")


def resizing(packed: Packed) -> str | None:
    """Return how pictures of another size are brought to that of the model, if it tells."""
    note = packed.notes.get("resize")
    return note if note in RESIZE else None
