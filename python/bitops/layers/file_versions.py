"""Earlier versions of the descriptions in model files, each converted to the next.

A converter refuses what its version did not have. It passes on anything else that is malformed;
the checks of the present version refuse that.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

VERSION = 4

Spec = dict[str, Any]

_FIELDS_1 = ("weight", "threshold", "flip", "alpha", "bias")
_BRANCHES = ("body", "shortcut")
_MAX_DEPTH = 100  # of nested chains; the checks of the present version allow fewer


def as_current(document: dict[str, Any]) -> dict[str, Any]:
    """Convert a description of any version to the present version, still unchecked."""
    version = document.get("version")
    if type(version) is not int or not 1 <= version <= VERSION:
        raise ValueError(f"version must be 1 to {VERSION}, got {version!r:.80}")
    for step in _STEPS[version - 1 :]:
        document = step(document)
    return document


def _from_version_1(document: dict[str, Any]) -> dict[str, Any]:
    """Convert to version 2: version 1 had only dense layers, with lists of their fields."""
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
        if not isinstance(fields, list) or fields != [f for f in _FIELDS_1 if f in fields]:
            raise ValueError(f"fields of layer {i} must be in order, got {fields!r:.80}")
        rows, columns = spec["out_features"], spec["in_features"]
        shapes = {field: [rows, columns] if field == "weight" else [rows] for field in fields}
        layers.append({"type": kind, "fields": shapes, "settings": {}})
    return {"input_shape": None, "graph": layers}


def _from_version_2(document: dict[str, Any]) -> dict[str, Any]:
    """Convert to version 3: products of version 2 took no codes."""

    def with_input_bits(spec: Spec) -> Spec:
        if spec.get("type") not in ("PackedDense", "PackedConv2D"):
            return spec
        settings = spec.get("settings")
        if not isinstance(settings, dict) or "input_bits" in settings:
            return {**spec, "settings": None}
        return {**spec, "settings": {**settings, "input_bits": None}}

    return {**document, "graph": _apply_to_chain(document.get("graph"), with_input_bits)}


def _from_version_3(document: dict[str, Any]) -> dict[str, Any]:
    """Convert to version 4: `size` of pools became kernel_size, `k_map` became scale_input."""
    renamed = {
        "PackedMaxPool2D": {"size": "kernel_size"},
        "PackedAvgPool2D": {"size": "kernel_size"},
        "PackedConv2D": {"k_map": "scale_input"},
    }

    def with_new_names(spec: Spec) -> Spec:
        kind = spec.get("type")
        names = renamed.get(kind) if isinstance(kind, str) else None
        if names is None:
            return spec
        settings = spec.get("settings")
        if not isinstance(settings, dict) or not _has_old_names(settings, names):
            return {**spec, "settings": None}
        return {**spec, "settings": {names.get(key, key): settings[key] for key in settings}}

    return {**document, "graph": _apply_to_chain(document.get("graph"), with_new_names)}


def _has_old_names(settings: dict[str, Any], names: dict[str, str]) -> bool:
    """Return whether settings have the old names and none of the new ones."""
    return set(names) <= set(settings) and not set(names.values()) & set(settings)


def _apply_to_chain(chain: Any, change: Callable[[Spec], Spec], depth: int = 0) -> Any:
    """Apply a change to every description of a chain, including those of inner chains."""
    if not isinstance(chain, list) or depth > _MAX_DEPTH:
        return chain
    specs = []
    for spec in chain:
        if isinstance(spec, dict):
            inner = {key: spec[key] for key in _BRANCHES if key in spec}
            changed = {key: _apply_to_chain(part, change, depth + 1) for key, part in inner.items()}
            spec = change({**spec, **changed})
        specs.append(spec)
    return specs


_STEPS = (_from_version_1, _from_version_2, _from_version_3)
