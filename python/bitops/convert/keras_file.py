"""Reads the files of Keras, which may come from strangers, without Keras.

Three forms are read: HDF5 files of Keras 2, also as Keras 3 writes them, and `.keras` files of
Keras 3, which are zip files of JSON and HDF5.
"""

from __future__ import annotations

import io
import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..files import hdf5
from ..files.reading import read_regular
from ..files.unpacking import read_zip
from .errors import ConversionError

_MOST_LAYERS = 10_000


@dataclass(frozen=True)
class KerasLayer:
    """A layer: its class, name and settings, its arrays, and the names of its inputs."""

    kind: str
    name: str
    config: dict[str, Any]
    arrays: tuple[np.ndarray, ...]
    inputs: tuple[str, ...]

    def refuse(self, reason: str) -> ConversionError:
        """Return the error that names this layer."""
        return ConversionError(f"[from_keras] {self.kind} layer {self.name!r}: {reason}")


@dataclass(frozen=True)
class KerasModel:
    """Layers in an order in which each follows its inputs; the output is that of the last one."""

    layers: tuple[KerasLayer, ...]
    output: str


def read_keras(path: str | os.PathLike) -> KerasModel:
    """Read a file of Keras.

    Raises
    ------
    ConversionError
        If it is damaged or of another kind.
    ImportError
        If h5py is not installed.
    """
    data = read_regular(path)
    if data[:2] == b"PK":
        return _read_zip(data)
    with _open_hdf5(data) as file, _read_errors():
        text = file.attrs.get("model_config")
        if text is None:
            raise ConversionError(
                "[from_keras] the file must hold a whole model, got weights alone: save it by "
                "model.save(path)"
            )
        config = _parse(text)
        group = _group(file, "model_weights")
        return _model(config, _by_name(group, len(data)))


def _read_zip(data: bytes) -> KerasModel:
    names = "config.json", "model.weights.h5"
    try:
        description, weights = read_zip(data, names).values()
    except ValueError as error:
        raise ConversionError(f"[from_keras] {error}") from None
    config = _parse(description)
    with _open_hdf5(weights) as file, _read_errors():
        return _model(config, _by_place(file, config, len(data)))


def _parse(text: Any) -> dict[str, Any]:
    try:
        config = json.loads(text)
    except (TypeError, ValueError, RecursionError) as error:
        raise ConversionError(f"[from_keras] the description is not JSON: {error}") from None
    if not isinstance(config, dict) or not isinstance(config.get("config"), dict | list):
        raise ConversionError("[from_keras] the description must be that of a Keras model")
    return config


# HDF5


def _open_hdf5(data: bytes) -> Any:
    try:
        import h5py
    except ImportError:
        raise ImportError("[from_keras] this needs h5py: pip install h5py") from None
    try:
        return h5py.File(io.BytesIO(data), "r")
    except hdf5.DAMAGED as error:
        raise ConversionError(f"[from_keras] the file must be HDF5 or .keras: {error}") from None


@contextmanager
def _read_errors() -> Iterator[None]:
    """Turn what HDF5 says of damaged files into the error of converters."""
    try:
        yield
    except hdf5.DAMAGED as error:
        raise ConversionError(f"[from_keras] the file is damaged: {error}") from None


def _child(parent: Any, name: str) -> Any:
    try:
        return hdf5.child(parent, name)
    except ValueError as error:
        raise ConversionError(f"[from_keras] {error}") from None


def _group(parent: Any, name: str) -> Any:
    try:
        return hdf5.group(parent, name)
    except ValueError as error:
        raise ConversionError(f"[from_keras] {error}") from None


def _array(dataset: Any, file_bytes: int) -> np.ndarray:
    try:
        values = np.asarray(hdf5.read_numbers(dataset, file_bytes), np.float32)
    except ValueError as error:
        raise ConversionError(f"[from_keras] {error}") from None
    if not np.isfinite(values).all():
        raise ConversionError(f"[from_keras] {dataset.name} must be finite")
    return values


def _by_name(group: Any, file_bytes: int) -> dict[str, tuple[np.ndarray, ...]]:
    """Return the arrays of a Keras 2 file by the names of layers, in the order Keras gives."""
    arrays = {}
    for name in group:
        layer = _group(group, name)
        listed = [_text(entry) for entry in layer.attrs.get("weight_names", [])]
        arrays[name] = tuple(_array(_follow(layer, entry), file_bytes) for entry in listed)
    return arrays


def _text(value: Any) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def _follow(group: Any, path: str) -> Any:
    for part in path.split("/"):
        group = _child(group, part)
    return group


def _by_place(
    file: Any, config: dict[str, Any], file_bytes: int
) -> dict[str, tuple[np.ndarray, ...]]:
    """Return the arrays of a Keras 3 file by the names of layers.

    The file names groups by the classes of layers, and counts them: conv2d, conv2d_1, ...
    """
    if "layers" not in file:
        raise ConversionError("[from_keras] model.weights.h5 must hold the layers of the model")
    group = _group(file, "layers")
    arrays, counts = {}, dict[str, int]()
    for entry in _entries(config):
        base = _snake_case(str(entry.get("class_name")))
        number = counts.get(base, 0)
        counts[base] = number + 1
        place = f"{base}_{number}" if number else base
        has_arrays = place in group
        arrays[_name(entry)] = _variables(_group(group, place), file_bytes) if has_arrays else ()
    return arrays


def _variables(layer: Any, file_bytes: int) -> tuple[np.ndarray, ...]:
    """Return the arrays of a layer, in order."""
    if "vars" not in layer:
        return ()
    group = _group(layer, "vars")
    names = sorted(group, key=lambda key: (len(key), key))
    return tuple(_array(_child(group, name), file_bytes) for name in names)


def _snake_case(name: str) -> str:
    name = re.sub(r"\W+", "", name)
    name = re.sub("(.)([A-Z][a-z]+)", r"\1_\2", name)
    return re.sub("([a-z])([A-Z])", r"\1_\2", name).lower()


# The description


def _entries(config: dict[str, Any]) -> list[dict[str, Any]]:
    inner = config["config"]
    entries = inner if isinstance(inner, list) else inner.get("layers")
    if not isinstance(entries, list) or not 0 < len(entries) <= _MOST_LAYERS:
        raise ConversionError(f"[from_keras] the model must have 1 to {_MOST_LAYERS} layers")
    for entry in entries:
        if not isinstance(entry, dict) or not isinstance(entry.get("config"), dict):
            raise ConversionError("[from_keras] each layer must have a class and settings")
    return entries


def _name(entry: dict[str, Any]) -> str:
    return str(entry.get("name") or entry["config"].get("name", ""))


def _model(config: dict[str, Any], arrays: dict[str, tuple[np.ndarray, ...]]) -> KerasModel:
    kind = config.get("class_name")
    if kind not in ("Sequential", "Functional", "Model"):
        raise ConversionError(
            f"[from_keras] the model must be Sequential or Functional, got {kind!r}"
        )
    entries = _entries(config)
    layers, before = [], ""
    for entry in entries:
        name = _name(entry)
        inputs = ((before,) if before else ()) if kind == "Sequential" else _inputs(entry)
        if kind == "Sequential" and not before and entry.get("class_name") != "InputLayer":
            layers.append(_first_input(entry))
            inputs = (layers[0].name,)
        layers.append(
            KerasLayer(
                str(entry.get("class_name")), name, entry["config"], arrays.get(name, ()), inputs
            )
        )
        before = name
    names = [layer.name for layer in layers]
    if len(set(names)) != len(names):
        raise ConversionError("[from_keras] the names of the layers must differ")
    output = before if kind == "Sequential" else _output(config["config"])
    return KerasModel(tuple(layers), output)


def _first_input(entry: dict[str, Any]) -> KerasLayer:
    """Return the input that old Sequential models leave out."""
    shape = entry["config"].get("batch_input_shape")
    return KerasLayer("InputLayer", "<input>", {"batch_input_shape": shape}, (), ())


def _output(config: dict[str, Any]) -> str:
    outputs = config.get("output_layers")
    if isinstance(outputs, list) and outputs and isinstance(outputs[0], str):
        return outputs[0]  # one output, not in a list of its own
    if isinstance(outputs, list) and len(outputs) == 1 and isinstance(outputs[0], list):
        return str(outputs[0][0])
    raise ConversionError("[from_keras] the model must have one output")


def _inputs(entry: dict[str, Any]) -> tuple[str, ...]:
    """Return the names of the layers that a layer of a Functional model takes."""
    nodes = entry.get("inbound_nodes", [])
    if not isinstance(nodes, list):
        raise ConversionError("[from_keras] inbound_nodes must be a list")
    if len(nodes) > 1:
        raise ConversionError(
            f"[from_keras] {entry.get('class_name')} layer {_name(entry)!r}: it must be called "
            f"once, got {len(nodes)} calls"
        )
    if not nodes:
        return ()
    if isinstance(nodes[0], dict):
        return tuple(_histories(nodes[0].get("args"), 0))
    calls = nodes[0] if nodes[0] and isinstance(nodes[0][0], list) else nodes
    return tuple(str(call[0]) for call in calls)


def _histories(value: Any, depth: int) -> Iterator[str]:
    """Yield the layers that the tensors among nested arguments come from."""
    if depth > 8:
        raise ConversionError("[from_keras] inbound_nodes are nested too deeply")
    if isinstance(value, dict) and value.get("class_name") == "__keras_tensor__":
        yield str(value["config"]["keras_history"][0])
    elif isinstance(value, list):
        for part in value:
            yield from _histories(part, depth + 1)
