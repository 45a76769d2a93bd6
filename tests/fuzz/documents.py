"""Forged JSON: valid documents with some of their values replaced, removed or copied elsewhere."""

from __future__ import annotations

import copy
from typing import Any

from fuzz.reader import EDGES, NUMBERS, SPECIAL, Reader

TEXTS = ("", "same", "valid", "PackedDense", "PackedResidual", "weight", "0", "\0", "[1]", "\ud800")


def drawn_json(reader: Reader, depth: int = 0) -> Any:
    """Any JSON value."""
    kind = reader.below(9 if depth < 2 else 6)
    if kind == 0:
        return reader.choice((None, True, False))
    if kind in (1, 2):
        return reader.choice(EDGES)
    if kind == 3:
        return reader.choice(NUMBERS + SPECIAL)
    if kind == 4:
        return reader.choice(TEXTS)
    if kind == 5:
        return reader.below(256)
    values = [drawn_json(reader, depth + 1) for _ in range(reader.below(4))]
    if kind == 6:
        return {reader.choice(TEXTS): value for value in values}
    return values


def _places(value: Any) -> list[tuple[Any, Any]]:
    """Every (container, key) in a document."""
    found: list[tuple[Any, Any]] = []
    if isinstance(value, dict | list):
        for key in value if isinstance(value, dict) else range(len(value)):
            found.append((value, key))
            found += _places(value[key])
    return found


def forge(reader: Reader, document: dict[str, Any], edits: int) -> dict[str, Any]:
    """A copy of a document with up to so many edits."""
    document = copy.deepcopy(document)
    for _ in range(reader.below(edits + 1)):
        places = _places(document)
        if not places:
            break
        container, key = places[reader.below(len(places))]
        edit = reader.below(6)
        if edit == 0:
            del container[key]
        elif edit == 1:
            other, other_key = places[reader.below(len(places))]
            container[key] = copy.deepcopy(other[other_key])
        elif edit == 2 and isinstance(container, list):
            container.insert(key, copy.deepcopy(container[key]))
        elif edit == 2:
            container[reader.choice(TEXTS)] = drawn_json(reader)
        elif edit == 3 and type(container[key]) is int:
            container[key] += reader.choice((1, -1, 63, 64, 2**31, -(2**31)))
        else:
            container[key] = drawn_json(reader)
    return document
