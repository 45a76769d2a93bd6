"""Model files: packed words, thresholds, flips and scales as safetensors, the graph as JSON."""

from __future__ import annotations

import hashlib
import json
import os
import secrets
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy

from .array import BitArray, pack, unpack, word_count
from .layers.base import MAX_FEATURES, Layer
from .layers.container import Packed
from .layers.dense import PackedDense
from .layers.norm import PackedBatchNorm
from .layers.quantizers import PackedSign

FORMAT = "bitops.packed"
VERSION = 1

# safetensors' names of the dtypes that a field may have
_FIELDS = {
    "weight": ("U64",),
    "threshold": ("I32", "F32"),
    "flip": ("U64",),
    "alpha": ("F32",),
    "bias": ("F32",),
}
_LAYERS: dict[str, tuple[type[Layer], tuple[str, ...]]] = {
    "PackedDense": (PackedDense, ("weight", "threshold", "flip", "alpha", "bias")),
    "PackedBatchNorm": (PackedBatchNorm, ("alpha", "bias")),
    "PackedSign": (PackedSign, ("threshold", "flip")),
}


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
    Tensors are named `<layer index>.<field>`: weight and flip as uint64 words (bit i of an axis is
    bit i % 64 of word i // 64), threshold int32 or float32, alpha and bias float32. The metadata
    entry `bitops` is JSON with `format`, `version`, `graph` (a list of layers, each with type,
    in_features, out_features and fields) and `sha256` over these and all tensors. The same model
    always gives the same bytes.
    """
    if not isinstance(model, Packed):
        raise TypeError(f"[save] model must be a Packed, got {type(model).__name__}")
    tensors: dict[str, np.ndarray] = {}
    graph: list[dict[str, Any]] = []
    for i, layer in enumerate(model.layers):
        fields = [f for f in _LAYERS[layer.name][1] if getattr(layer, f) is not None]
        for name in fields:
            value = getattr(layer, name)
            if name == "flip":
                value = pack(value)
            words_or_numbers = value.words if isinstance(value, BitArray) else value
            tensors[f"{i}.{name}"] = np.ascontiguousarray(words_or_numbers)
        graph.append(
            {
                "type": layer.name,
                "in_features": layer.in_features,
                "out_features": layer.out_features,
                "fields": fields,
            }
        )
    document: dict[str, Any] = {"format": FORMAT, "version": VERSION, "graph": graph}
    document["sha256"] = _digest(document, tensors)
    # one entry only: safetensors writes several in an order that changes from call to call
    write_file(Path(path), safetensors.numpy.save(tensors, {"bitops": json.dumps(document)}))


def load(path: str | os.PathLike) -> Packed:
    """Read a packed model from a file that `save` wrote.

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
        graph, tensors = _read(path)
        values = [_decode(spec, i, tensors) for i, spec in enumerate(graph)]
        return Packed([_LAYERS[s["type"]][0](**v) for s, v in zip(graph, values, strict=True)])
    except (safetensors.SafetensorError, ValueError, TypeError) as error:
        raise ValueError(f"[load] {path} must be a packed bitops model: {error}") from error


def write_file(path: Path, data: bytes) -> None:
    """Write a file whole or not at all: beside `path` first, then renamed to it in one step."""
    partial = path.with_name(f".{path.name}.{secrets.token_hex(8)}.tmp")
    try:
        with partial.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def _digest(document: dict[str, Any], tensors: dict[str, np.ndarray]) -> str:
    """SHA-256 over everything that makes the model."""
    described = {key: value for key, value in document.items() if key != "sha256"}
    digest = hashlib.sha256(json.dumps(described, sort_keys=True).encode())
    for name in sorted(tensors):
        array = tensors[name]
        digest.update(f"{name} {array.dtype.name} {array.shape}".encode())
        # bytes in little-endian order, as in the file
        digest.update(array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes())
    return digest.hexdigest()


def _read(path: Path) -> tuple[list[dict[str, Any]], dict[str, np.ndarray]]:
    """Graph and tensors, checked against each other."""
    with safetensors.safe_open(path, framework="numpy") as file:
        document = _parse((file.metadata() or {}).get("bitops", ""))
        graph = document["graph"]
        expected: dict[str, tuple[tuple[str, ...], tuple[int, ...]]] = {}
        for i, spec in enumerate(graph):
            expected.update(_expected_tensors(spec, i))
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
    if document.get("sha256") != _digest(document, tensors):
        raise ValueError("sha256 must be that of the content, got another one")
    return graph, tensors


def _parse(text: str) -> dict[str, Any]:
    """The description of the model, each layer checked for its keys, types and ranges."""
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        raise ValueError(f"metadata bitops must be JSON, got {text[:80]!r}") from None
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        raise ValueError(f"format must be {FORMAT}, got {text[:80]!r}")
    if document.get("version") != VERSION:
        raise ValueError(f"version must be {VERSION}, got {document.get('version')!r:.80}")
    graph = document.get("graph")
    if not isinstance(graph, list) or not graph:
        raise ValueError(f"graph must be a list of layers, got {graph!r:.80}")
    for i, spec in enumerate(graph):
        keys = {"type", "in_features", "out_features", "fields"}
        if not isinstance(spec, dict) or set(spec) != keys:
            raise ValueError(f"layer {i} must have the keys {sorted(keys)}, got {spec!r:.80}")
        _check_spec(spec, i)
    return document


def _check_spec(spec: dict[str, Any], i: int) -> None:
    kind, fields = spec["type"], spec["fields"]
    if not isinstance(kind, str) or kind not in _LAYERS:
        raise ValueError(f"layer {i} must be one of {', '.join(_LAYERS)}, got {kind!r:.80}")
    known = _LAYERS[kind][1]
    if not isinstance(fields, list) or fields != [f for f in known if f in fields]:
        raise ValueError(f"fields of layer {i} must be from {known}, got {fields!r:.80}")
    if kind == "PackedDense" and "weight" not in fields:
        raise ValueError(f"fields of layer {i} must include weight, got {fields}")
    sizes = spec["in_features"], spec["out_features"]
    if not fields and sizes == (None, None):
        return  # a PackedSign without thresholds takes any number of features
    for size in sizes:
        if type(size) is not int or not 1 <= size <= MAX_FEATURES:
            raise ValueError(
                f"features of layer {i} must be in 1..{MAX_FEATURES}, got {size!r:.80}"
            )


def _expected_tensors(spec: dict, i: int) -> dict[str, tuple[tuple[str, ...], tuple[int, ...]]]:
    """Name, dtypes and shape of every tensor of a layer."""
    rows, columns = spec["out_features"], spec["in_features"]
    shapes: dict[str, tuple[int, ...]] = {field: (rows,) for field in spec["fields"]}
    if "weight" in shapes:
        shapes["weight"] = (rows, word_count(columns))
    if "flip" in shapes:
        shapes["flip"] = (word_count(rows),)
    return {f"{i}.{field}": (_FIELDS[field], shape) for field, shape in shapes.items()}


def _decode(spec: dict, i: int, tensors: dict[str, np.ndarray]) -> dict[str, Any]:
    """Arguments of the layer's constructor; set padding bits are refused here."""
    values: dict[str, Any] = {field: tensors[f"{i}.{field}"] for field in spec["fields"]}
    rows, columns = spec["out_features"], spec["in_features"]
    if "weight" in values:
        values["w"] = BitArray.from_words(values.pop("weight"), (rows, columns))
    if "flip" in values:
        values["flip"] = unpack(BitArray.from_words(values["flip"], (rows,)), dtype=np.bool_)
    return values
