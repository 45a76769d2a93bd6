"""Model files: packed words, thresholds, flips and scales as safetensors, the graph as JSON."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import safetensors

from .files import digest, parse_description, write_tensors
from .layers.activations import PackedLevels, PackedQuantize, PackedReLU, PackedSign, PackedTanh
from .layers.base import Layer
from .layers.container import Packed, PackedResidual
from .layers.conv import FloatConv2D, PackedConv2D, PackedPlanesConv2D
from .layers.dense import FloatDense, PackedDense, PackedPlanesDense
from .layers.inputs import MAX_FEATURES
from .layers.norm import PackedBatchNorm
from .layers.pool import PackedAvgPool2D, PackedFlatten, PackedGlobalAvgPool2D, PackedMaxPool2D
from .ops.array import BitArray, pack, unpack
from .ops.memory import word_count

FORMAT = "bitops.packed"
VERSION = 4
MAX_DEPTH = 16  # of residual blocks inside each other

# safetensors' names of the dtypes that a field may have; U64 holds bits
_BITS, _REAL, _THRESHOLD = ("U64",), ("F32",), ("I32", "F32")


class _Kind(NamedTuple):
    """How a type of layer is stored: its arrays, with dtypes and axes, and its settings."""

    layer: type[Layer]
    fields: dict[str, tuple[tuple[str, ...], int]]
    needed: tuple[str, ...] = ()
    settings: tuple[str, ...] = ()


def _product_fields(weight: tuple[str, ...], axes: int) -> dict[str, tuple[tuple[str, ...], int]]:
    fields = {"weight": (weight, axes), "bias": (_REAL, 1)}
    if weight is _BITS:
        fields |= {"threshold": (_THRESHOLD, 1), "flip": (_BITS, 1), "alpha": (_REAL, 1)}
    return fields


_WINDOWS = ("stride", "padding")
_CONVOLUTION = (*_WINDOWS, "dilation", "groups")
_BINARY_CONVOLUTION = (*_CONVOLUTION, "pad_value", "input_bits")
_KINDS = {
    kind.layer.__name__: kind
    for kind in (
        _Kind(PackedDense, _product_fields(_BITS, 2), ("weight",), ("input_bits",)),
        _Kind(
            PackedConv2D,
            _product_fields(_BITS, 4),
            ("weight",),
            (*_BINARY_CONVOLUTION, "k_map"),
        ),
        _Kind(
            PackedPlanesDense,
            _product_fields(_BITS, 3),
            ("weight",),
            ("coefficients", "input_bits"),
        ),
        _Kind(
            PackedPlanesConv2D,
            _product_fields(_BITS, 5),
            ("weight",),
            (*_BINARY_CONVOLUTION, "coefficients"),
        ),
        _Kind(FloatDense, _product_fields(_REAL, 2), ("weight",)),
        _Kind(FloatConv2D, _product_fields(_REAL, 4), ("weight",), _CONVOLUTION),
        _Kind(PackedBatchNorm, {"alpha": (_REAL, 1), "bias": (_REAL, 1)}, ("alpha", "bias")),
        _Kind(PackedSign, {"threshold": (_THRESHOLD, 1), "flip": (_BITS, 1)}),
        _Kind(PackedQuantize, {}, (), ("bits", "clip_value")),
        _Kind(PackedLevels, {}, (), ("step",)),
        _Kind(PackedReLU, {}),
        _Kind(PackedTanh, {}),
        _Kind(PackedMaxPool2D, {"minimum": (_BITS, 1)}, (), ("kernel_size", *_WINDOWS)),
        _Kind(PackedAvgPool2D, {}, (), ("kernel_size", *_WINDOWS)),
        _Kind(PackedGlobalAvgPool2D, {}),
        _Kind(PackedFlatten, {}),
    )
}
_RESIDUAL = PackedResidual.__name__
_BRANCHES = ("body", "shortcut")
_BOOL_FIELDS = ("flip", "minimum")  # bool arrays of the layers, bits in the file

Spec = dict[str, Any]


def save(model: Packed, path: str | os.PathLike) -> None:
    """Write a packed model to a file.

    The file appears whole or not at all: it is written beside `path` and then renamed, so that a
    model already there survives a failure.

    Parameters
    ----------
    model : Packed
    path : path
        Replaced if it exists.

    Notes
    -----
    Tensors are named `<layer index>.<field>`: bits (weight, flip, minimum) as uint64 words (bit i
    of the last axis is bit i % 64 of word i // 64), threshold int32 or float32, the others
    float32; inside a residual block the name goes on, as `3.body.0.weight`. The metadata entry
    `bitops` is JSON with `format`, `version`, `input_shape` (null if not known), `graph`, perhaps
    `notes` (strings by name), and `sha256` over these and all tensors. `graph` lists the layers,
    each with `type`, `fields` (the logical shape of each array that there is) and `settings` (the
    other arguments of its constructor); a residual block has `type`, `body` and `shortcut`, lists
    of layers too, the latter null for the identity. The same model always gives the same bytes.
    """
    if not isinstance(model, Packed):
        raise TypeError(f"[save] model must be a Packed, got {type(model).__name__}")
    tensors: dict[str, np.ndarray] = {}
    document: dict[str, Any] = {
        "format": FORMAT,
        "version": VERSION,
        "input_shape": model.input_shape,
        "graph": _encode_chain(model, "", tensors),
    }
    if model.notes:
        document["notes"] = model.notes
    try:
        _check_document(json.loads(json.dumps(document)))  # what `load` refuses is not written
    except ValueError as error:
        raise ValueError(f"[save] {error}") from None
    write_tensors(Path(path), document, tensors)


def _encode_chain(model: Packed, prefix: str, tensors: dict[str, np.ndarray]) -> list[Spec]:
    """Descriptions of the layers of a chain, whose arrays go to `tensors`."""
    return [_encode(layer, f"{prefix}{i}.", tensors) for i, layer in enumerate(model.layers)]


def _encode(layer: Layer, prefix: str, tensors: dict[str, np.ndarray]) -> Spec:
    if isinstance(layer, PackedResidual):
        branches = {"body": layer.body, "shortcut": layer.shortcut}
        chains = {
            name: None if branch is None else _encode_chain(branch, f"{prefix}{name}.", tensors)
            for name, branch in branches.items()
        }
        return {"type": _RESIDUAL, **chains}
    kind = _KINDS.get(layer.name)
    if kind is None:
        raise TypeError(f"[save] layers must be packed ones of this package, got {layer!r}")
    shapes = {}
    for name in kind.fields:
        value = getattr(layer, name)
        if value is None:
            continue
        shapes[name] = value.shape
        if name in _BOOL_FIELDS:
            value = pack(value)
        words_or_numbers = value.words if isinstance(value, BitArray) else value
        tensors[prefix + name] = np.ascontiguousarray(words_or_numbers)
    return {"type": layer.name, "fields": shapes, "settings": layer.config()}


def load(path: str | os.PathLike) -> Packed:
    """Read a packed model from a file that `save` wrote, in this or an earlier format.

    Parameters
    ----------
    path : path

    Returns
    -------
    Packed

    Raises
    ------
    OSError
        If the file cannot be opened.
    ValueError
        If it is truncated, damaged, or no packed model. Everything is checked before any layer is
        built; nothing in the file is executed.
    """
    path = Path(path)
    path.open("rb").close()  # OSErrors come from here, in their usual form
    try:
        document, tensors = _read(path)
        packed = _decode_chain(document["graph"], "", tensors, document["input_shape"])
        packed.notes = document["notes"]
        return packed
    except (safetensors.SafetensorError, ValueError, TypeError) as error:
        raise ValueError(f"[load] {path} must be a packed bitops model: {error}") from error


def _read(path: Path) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Description and tensors, checked against each other."""
    with safetensors.safe_open(path, framework="numpy") as file:
        described = _parse((file.metadata() or {}).get("bitops", ""))
        document = _CURRENT[described["version"]](described)
        expected = dict(_expected_tensors(document["graph"], ""))
        if set(file.keys()) != set(expected):
            raise ValueError(f"tensors must be {sorted(expected)}, got {sorted(file.keys())}")
        for name, (dtypes, shape) in expected.items():
            tensor = file.get_slice(name)
            found = tensor.get_dtype(), tuple(tensor.get_shape())
            if found[0] not in dtypes or found[1] != shape:
                raise ValueError(
                    f"tensor {name} must be {' or '.join(dtypes)} of shape {shape}, got {found}"
                )
        tensors = {name: file.get_tensor(name) for name in expected}
    if described.get("sha256") != digest(described, tensors):
        raise ValueError("sha256 must be that of the content, got another one")
    return document, tensors


def _parse(text: str) -> dict[str, Any]:
    """The description of the model as it is in the file: format and version are known."""
    document = parse_description(text, FORMAT)
    version = document.get("version")
    if type(version) is not int or version not in _CURRENT:
        raise ValueError(f"version must be 1 to {VERSION}, got {version!r:.80}")
    return document


def _check_document(document: dict[str, Any]) -> dict[str, Any]:
    """The description of this version, each layer checked for its keys, types and ranges."""
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
    keys = ("type", *_BRANCHES) if name == _RESIDUAL else ("type", "fields", "settings")
    if not isinstance(spec, dict) or set(spec) != set(keys):
        raise ValueError(f"{where} must have the keys {', '.join(keys)}, got {spec!r:.80}")
    if name == _RESIDUAL:
        _check_chain(spec["body"], f"body of {where}", depth + 1)
        if spec["shortcut"] is not None:
            _check_chain(spec["shortcut"], f"shortcut of {where}", depth + 1)
        return
    if not isinstance(name, str) or name not in _KINDS:
        raise ValueError(
            f"{where} must be one of {', '.join(_KINDS)}, {_RESIDUAL}, got {name!r:.80}"
        )
    kind, fields, settings = _KINDS[name], spec["fields"], spec["settings"]
    if not isinstance(fields, dict) or not set(kind.needed) <= set(fields) <= set(kind.fields):
        raise ValueError(
            f"fields of {where} must be from {', '.join(kind.fields) or 'none'}, with "
            f"{' and '.join(kind.needed) or 'none'}, got {fields!r:.80}"
        )
    for field, shape in fields.items():
        _check_sizes(shape, f"{field} of {where}", kind.fields[field][1])
    # the values are checked by the constructor
    if not isinstance(settings, dict) or set(settings) != set(kind.settings):
        raise ValueError(f"settings of {where} must be {kind.settings}, got {settings!r:.80}")


def _check_sizes(shape: Any, where: str, axes: int | None) -> None:
    """A logical shape: a list of as many sizes."""
    if not isinstance(shape, list) or not shape or axes not in (None, len(shape)):
        raise ValueError(f"{where} must have {axes or 'some'} sizes, got {shape!r:.80}")
    for size in shape:
        if type(size) is not int or not 1 <= size <= MAX_FEATURES:
            raise ValueError(f"sizes of {where} must be in 1..{MAX_FEATURES}, got {size!r:.80}")


def _from_version_1(document: dict[str, Any]) -> dict[str, Any]:
    """A description of version 1, of dense layers only, as one of version 3, checked."""
    graph = document.get("graph")
    if not isinstance(graph, list) or not graph:
        raise ValueError(f"graph must be a list of layers, got {graph!r:.80}")
    layers = []
    for i, spec in enumerate(graph):
        keys = {"type", "in_features", "out_features", "fields"}
        if not isinstance(spec, dict) or set(spec) != keys:
            raise ValueError(f"layer {i} must have the keys {sorted(keys)}, got {spec!r:.80}")
        kind, fields = spec["type"], spec["fields"]
        if kind not in ("PackedDense", "PackedBatchNorm", "PackedSign"):
            raise ValueError(f"layer {i} must be of a type of version 1, got {kind!r:.80}")
        known = [f for f in ("weight", "threshold", "flip", "alpha", "bias") if f in fields]
        if not isinstance(fields, list) or fields != known:
            raise ValueError(f"fields of layer {i} must be in order, got {fields!r:.80}")
        rows, columns = spec["out_features"], spec["in_features"]
        shapes = {field: [rows, columns] if field == "weight" else [rows] for field in fields}
        layers.append({"type": kind, "fields": shapes, "settings": {}})
    return _from_version_2({"input_shape": None, "graph": layers})


def _from_version_2(document: dict[str, Any]) -> dict[str, Any]:
    """A description of version 2, whose products knew no codes, as one of this version."""

    def with_input_bits(spec: Spec) -> Spec:
        if spec.get("type") not in ("PackedDense", "PackedConv2D"):
            return spec
        settings = spec.get("settings")
        if not isinstance(settings, dict) or "input_bits" in settings:
            return {**spec, "settings": None}
        return {**spec, "settings": {**settings, "input_bits": None}}

    return _from_version_3({**document, "graph": _changed(document.get("graph"), with_input_bits)})


def _from_version_3(document: dict[str, Any]) -> dict[str, Any]:
    """A description of version 3, whose pools had a `size`, as one of this version, checked."""

    def with_kernel_size(spec: Spec) -> Spec:
        if spec.get("type") not in ("PackedMaxPool2D", "PackedAvgPool2D"):
            return spec
        settings = spec.get("settings")
        if not isinstance(settings, dict) or "size" not in settings:
            return {**spec, "settings": None}
        rest = {key: value for key, value in settings.items() if key != "size"}
        return {**spec, "settings": {"kernel_size": settings["size"], **rest}}

    return _check_document({**document, "graph": _changed(document.get("graph"), with_kernel_size)})


def _changed(chain: Any, change: Callable[[Spec], Spec], depth: int = 0) -> Any:
    """The descriptions of a chain with a change made to each, those of inner chains too.

    Whatever is malformed is left as it is, for the checks to refuse.
    """
    if not isinstance(chain, list) or depth > MAX_DEPTH:
        return chain
    specs = []
    for spec in chain:
        if isinstance(spec, dict):
            inner = {key: spec[key] for key in _BRANCHES if key in spec}
            changed = {key: _changed(part, change, depth + 1) for key, part in inner.items()}
            spec = change({**spec, **changed})
        specs.append(spec)
    return specs


# how a description of each version becomes one of this version, checked
_CURRENT = {1: _from_version_1, 2: _from_version_2, 3: _from_version_3, 4: _check_document}


def _expected_tensors(
    chain: list[Spec], prefix: str
) -> Iterator[tuple[str, tuple[tuple[str, ...], tuple[int, ...]]]]:
    """Name, dtypes and shape of every tensor of a chain of layers."""
    for i, spec in enumerate(chain):
        name = f"{prefix}{i}."
        if spec["type"] == _RESIDUAL:
            yield from _expected_tensors(spec["body"], f"{name}body.")
            yield from _expected_tensors(spec["shortcut"] or [], f"{name}shortcut.")
            continue
        for field, shape in spec["fields"].items():
            dtypes = _KINDS[spec["type"]].fields[field][0]
            last = word_count(shape[-1]) if dtypes is _BITS else shape[-1]
            yield name + field, (dtypes, (*shape[:-1], last))


def _decode_chain(
    chain: list[Spec], prefix: str, tensors: dict[str, np.ndarray], input_shape: list | None = None
) -> Packed:
    layers = [_decode(spec, f"{prefix}{i}.", tensors) for i, spec in enumerate(chain)]
    return Packed(layers, input_shape=input_shape)


def _decode(spec: Spec, prefix: str, tensors: dict[str, np.ndarray]) -> Layer:
    """The layer of a description; set padding bits are refused here."""
    if spec["type"] == _RESIDUAL:
        body = _decode_chain(spec["body"], f"{prefix}body.", tensors)
        if spec["shortcut"] is None:
            return PackedResidual(body)
        return PackedResidual(body, _decode_chain(spec["shortcut"], f"{prefix}shortcut.", tensors))
    kind = _KINDS[spec["type"]]
    arguments: dict[str, Any] = dict(spec["settings"])
    for field, shape in spec["fields"].items():
        value: Any = tensors[prefix + field]
        if kind.fields[field][0] is _BITS:
            value = BitArray.from_words(value, shape)
        if field in _BOOL_FIELDS:
            value = unpack(value, dtype=np.bool_)
        arguments["w" if field == "weight" else field] = value
    return kind.layer(**arguments)
