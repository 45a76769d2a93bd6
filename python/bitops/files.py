"""Files of arrays: safetensors with a JSON description and a checksum, written whole or not."""

from __future__ import annotations

import hashlib
import json
import os
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy

# bytes of a description: real ones have thousands, and JSON grows many times when it is parsed
MAX_DESCRIPTION = 2**24


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


def write_tensors(
    path: Path, description: dict[str, Any], tensors: Mapping[str, np.ndarray]
) -> None:
    """Write arrays, and as the metadata entry `bitops` their description with its `sha256`."""
    text = json.dumps({**description, "sha256": digest(description, tensors)})
    _check_length(text)
    # one entry only: safetensors writes several in an order that changes from call to call
    write_file(path, safetensors.numpy.save(dict(tensors), {"bitops": text}))


def digest(description: Mapping[str, Any], tensors: Mapping[str, np.ndarray]) -> str:
    """SHA-256 over a description, but for its `sha256`, and all arrays."""
    described = {key: value for key, value in description.items() if key != "sha256"}
    result = hashlib.sha256(json.dumps(described, sort_keys=True).encode())
    for name in sorted(tensors):
        array = tensors[name]
        result.update(f"{name} {array.dtype.name} {array.shape}".encode())
        # bytes in little-endian order, as in the file
        result.update(array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes())
    return result.hexdigest()


def parse_description(text: str, name: str) -> dict[str, Any]:
    """The metadata entry `bitops` of a file of the format `name`."""
    _check_length(text)
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        raise ValueError(f"metadata bitops must be JSON, got {text[:80]!r}") from None
    if not isinstance(document, dict) or document.get("format") != name:
        raise ValueError(f"format must be {name}, got {text[:80]!r}")
    return document


def _check_length(text: str) -> None:
    if len(text) > MAX_DESCRIPTION:
        raise ValueError(f"metadata must have at most {MAX_DESCRIPTION} bytes, got {len(text)}")
