"""Model files: writes chains of packed layers as tensors and a description, and reads them back.

    layers  --_encode_chain-->  document, tensors  --write_tensors-->  file
    layers  <--_decode_chain--  document, tensors  <--_read, _check_document--  file

`bitops.io` describes the format. `registry` knows the classes of layers, `file_versions` the
earlier versions of the format, and `bitops.files` the file itself.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from ..files.tensors import MALFORMED, names_format, open_tensors, write_tensors
from ..ops.array import BitArray, pack, unpack
from ..ops.memory import word_count
from .base import Layer
from .file_versions import VERSION, Spec, as_current
from .inputs import MAX_FEATURES
from .registry import ArraySpec, Kind, checked_config, kind_named, kind_of

FORMAT = "bitops.packed"
MAX_DEPTH = 16  # of nested residual blocks

_KEYS = {"format", "version", "input_shape", "graph", "notes", "sha256"}
# names of dtypes in safetensors; bits are stored as words
_STORED = {"bits": "U64", "bool": "U64", "float32": "F32", "int32": "I32", "uint8": "U8"}

Tensors = dict[str, np.ndarray]
Made = TypeVar("Made")


def write_model(
    path: str | os.PathLike,
    layers: Sequence[Layer],
    input_shape: Sequence[int] | None,
    notes: Mapping[str, str],
) -> None:
    """Write a chain of packed layers to a file; the file appears whole or not at all."""
    tensors: Tensors = {}
    document: dict[str, Any] = {
        "format": FORMAT,
        "version": VERSION,
        "input_shape": input_shape,
        "graph": _encode_chain(layers, "", tensors),
    }
    if notes:
        document["notes"] = notes
    try:
        _check_document(json.loads(json.dumps(document)))  # write nothing that `load` would refuse
    except (ValueError, TypeError) as error:
        raise ValueError(f"[save] {error}") from None
    write_tensors("save", Path(path), document, tensors)


def _encode_chain(layers: Sequence[Layer], prefix: str, tensors: Tensors) -> list[Spec]:
    """Return the descriptions of the layers of a chain; put their arrays into `tensors`."""
    return [_encode(layer, f"{prefix}{i}.", tensors) for i, layer in enumerate(layers)]


def _encode(layer: Layer, prefix: str, tensors: Tensors) -> Spec:
    kind = kind_of(layer)
    if kind is None:
        raise TypeError(
            f"[save] layers must be packed ones of a class registered with bitops.io.register, "
            f"got {layer!r}"
        )
    if kind.chains:
        branches = layer.branches()
        chains = {
            name: _encode_chain(branches[name], f"{prefix}{name}.", tensors)
            if name in branches
            else None
            for name in kind.chains
        }
        return {"type": layer.name, **chains}
    shapes = {}
    for name, spec in kind.arrays.items():
        value = getattr(layer, name)
        if value is not None:
            shapes[name] = value.shape
            tensors[prefix + name] = _stored(layer, spec, value)
    settings = checked_config("save", layer, kind)
    return {"type": layer.name, "fields": shapes, "settings": settings}


def _stored(layer: Layer, spec: ArraySpec, value: Any) -> np.ndarray:
    """Check an array and return it as the file stores it."""
    dtype = "bits" if isinstance(value, BitArray) else np.asarray(value).dtype.name
    is_along_last = not isinstance(value, BitArray) or value.axis == value.ndim - 1
    if dtype not in spec.dtypes or value.ndim != spec.ndim or not is_along_last:
        raise TypeError(
            f"[save] {spec.name} of {layer.name} must be {' or '.join(spec.dtypes)} "
            f"of {spec.ndim} axes, got {value!r:.80}"
        )
    if dtype == "bool":
        value = pack(value)
    return np.ascontiguousarray(value.words if isinstance(value, BitArray) else value)


def is_model_file(path: str | os.PathLike) -> bool:
    """Return whether a file says that it is a packed model; the rest of it may be damaged."""
    return names_format(path, FORMAT)


def read_model(path: str | os.PathLike, make: Callable[..., Made]) -> Made:
    """Read a file and return `make(layers, input_shape=..., notes=...)`.

    Everything is checked before any layer is made, except the values of settings and arrays. The
    constructors of the layers check those.
    """
    path = Path(path)
    try:
        document, tensors = _read(path)
        layers = _decode_chain(document["graph"], "", tensors)
        return make(layers, input_shape=document["input_shape"], notes=document["notes"])
    except MALFORMED as error:  # some of them from constructors
        raise ValueError(f"[load] {path} must be a packed bitops model: {error}") from error


def _read(path: Path) -> tuple[dict[str, Any], Tensors]:
    """Return description and tensors, checked against each other."""
    with open_tensors(path, FORMAT) as file:
        _check_keys(file.description)
        document = _check_document(as_current(file.description))
        expected = dict(_expected_tensors(document["graph"], ""))
        if set(file.entries) != set(expected):
            raise ValueError(f"tensors must be {sorted(expected)}, got {sorted(file.entries)}")
        for name, (dtypes, shape) in expected.items():
            found = file.entries[name]
            if found[0] not in dtypes or found[1] != shape:
                raise ValueError(
                    f"tensor {name} must be {' or '.join(dtypes)} of shape {shape}, got {found}"
                )
        return document, file.read()


def _check_keys(document: dict[str, Any]) -> None:
    """Refuse what no version of the format has."""
    if not set(document) <= _KEYS:
        raise ValueError(f"the description must have only {sorted(_KEYS)}, got {list(document)}")


def _check_document(document: dict[str, Any]) -> dict[str, Any]:
    """Check the keys, types and ranges of a description of the present version."""
    shape = document.get("input_shape")
    if shape is not None:
        _check_sizes(shape, "input_shape", None)
    _check_chain(document.get("graph"), "graph", 0)
    notes = document.get("notes", {})
    if not isinstance(notes, dict) or not all(isinstance(note, str) for note in notes.values()):
        raise ValueError(f"notes must be strings by name, got {notes!r:.80}")
    return {**document, "input_shape": shape, "notes": notes}


def _check_chain(chain: Any, where: str, depth: int) -> None:
    if depth > MAX_DEPTH:
        raise ValueError(f"residual blocks must be nested at most {MAX_DEPTH} deep, got more")
    if not isinstance(chain, list) or not chain:
        raise ValueError(f"{where} must be a list of layers, got {chain!r:.80}")
    for i, spec in enumerate(chain):
        _check_spec(spec, f"layer {i} of {where}", depth)


def _check_spec(spec: Any, where: str, depth: int) -> None:
    name = spec.get("type") if isinstance(spec, dict) else None
    kind = kind_named(name) if isinstance(name, str) else None
    if kind is None:
        raise ValueError(
            f"{where} must be of a registered type (see bitops.io.register), got {name!r:.80}"
        )
    keys = ("type", *kind.chains) if kind.chains else ("type", "fields", "settings")
    if set(spec) != set(keys):
        raise ValueError(f"{where} must have the keys {', '.join(keys)}, got {spec!r:.80}")
    for chain in kind.chains:
        if spec[chain] is not None or chain in kind.needed:
            _check_chain(spec[chain], f"{chain} of {where}", depth + 1)
    if not kind.chains:
        _check_fields(spec["fields"], kind, where)
        settings = spec["settings"]  # the constructor checks the values
        if not isinstance(settings, dict) or set(settings) != set(kind.settings):
            raise ValueError(f"settings of {where} must be {kind.settings}, got {settings!r:.80}")


def _check_fields(fields: Any, kind: Kind, where: str) -> None:
    """Check which arrays a layer has, and their shapes."""
    if not isinstance(fields, dict) or not kind.needed <= set(fields) <= set(kind.arrays):
        raise ValueError(
            f"fields of {where} must be from {', '.join(kind.arrays) or 'none'}, with "
            f"{' and '.join(sorted(kind.needed)) or 'none'}, got {fields!r:.80}"
        )
    for field, shape in fields.items():
        _check_sizes(shape, f"{field} of {where}", kind.arrays[field].ndim)


def _check_sizes(shape: Any, where: str, axes: int | None) -> None:
    """Check a logical shape: a list of sizes, one for each axis; None allows any number."""
    if not isinstance(shape, list) or not shape or axes not in (None, len(shape)):
        raise ValueError(f"{where} must have {axes or 'some'} sizes, got {shape!r:.80}")
    for size in shape:
        if type(size) is not int or not 1 <= size <= MAX_FEATURES:
            raise ValueError(f"sizes of {where} must be in 1..{MAX_FEATURES}, got {size!r:.80}")


def _expected_tensors(
    chain: Sequence[Spec], prefix: str
) -> Iterator[tuple[str, tuple[tuple[str, ...], tuple[int, ...]]]]:
    """Yield name, dtypes and shape of every tensor of a checked chain of layers."""
    for i, spec in enumerate(chain):
        kind, name = _checked_kind(spec), f"{prefix}{i}."
        for inner in kind.chains:
            yield from _expected_tensors(spec[inner] or [], f"{name}{inner}.")
        for field, shape in spec.get("fields", {}).items():
            array = kind.arrays[field]
            last = word_count(shape[-1]) if array.is_packed else shape[-1]
            dtypes = tuple(_STORED[dtype] for dtype in array.dtypes)
            yield name + field, (dtypes, (*shape[:-1], last))


def _checked_kind(spec: Spec) -> Kind:
    """Return the registered class of a checked description."""
    kind = kind_named(spec["type"])
    assert kind is not None
    return kind


def _decode_chain(chain: Sequence[Spec], prefix: str, tensors: Tensors) -> list[Layer]:
    return [_decode(spec, f"{prefix}{i}.", tensors) for i, spec in enumerate(chain)]


def _decode(spec: Spec, prefix: str, tensors: Tensors) -> Layer:
    """Make the layer of a description; `BitArray.from_words` refuses set padding bits."""
    kind = _checked_kind(spec)
    arguments: dict[str, Any] = dict(spec.get("settings", {}))
    for name in kind.chains:
        if spec[name] is not None:
            arguments[name] = _decode_chain(spec[name], f"{prefix}{name}.", tensors)
    for field, shape in spec.get("fields", {}).items():
        array, value = kind.arrays[field], tensors[prefix + field]
        given: Any = BitArray.from_words(value, shape) if array.is_packed else value
        if array.dtypes == ("bool",):
            given = unpack(given, dtype=np.bool_)
        arguments[array.argument or field] = given
    return kind.layer(**arguments)
