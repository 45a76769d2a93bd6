"""Files of arrays: safetensors with a JSON description and a checksum, written atomically."""

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

# Most bytes of a description. Real ones have thousands; parsed JSON takes many times its length.
MAX_DESCRIPTION = 2**24


def write_file(path: Path, data: bytes) -> None:
    """Write a file completely or not at all: to a temporary name beside `path`, then renamed."""
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
    """Write arrays, with their description and its `sha256` as the metadata entry `bitops`."""
    text = json.dumps({**description, "sha256": digest(description, tensors)})
    _check_length(text)
    # A single entry: safetensors would write several in an order that changes from call to call.
    write_file(path, safetensors.numpy.save(dict(tensors), {"bitops": text}))


def digest(description: Mapping[str, Any], tensors: Mapping[str, np.ndarray]) -> str:
    """Return the SHA-256 of all arrays and of their description without its `sha256`."""
    described = {key: value for key, value in description.items() if key != "sha256"}
    result = hashlib.sha256(json.dumps(described, sort_keys=True).encode())
    for name in sorted(tensors):
        array = tensors[name]
        result.update(f"{name} {array.dtype.name} {array.shape}".encode())
        # The bytes are in little-endian order, as in the file.
        result.update(array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes())
    return result.hexdigest()


def parse_description(text: str, name: str) -> dict[str, Any]:
    """Parse the metadata entry `bitops` of a file whose format must be `name`."""
    _check_length(text)
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        raise ValueError(f"metadata bitops must be JSON, got {text[:80]!r}") from None
    if not isinstance(document, dict) or document.get("format") != name:
        raise ValueError(f"format must be {name}, got {text[:80]!r}")
    return document


def _check_length(text: str) -> None:
    """Check that a description is not too long to be parsed safely."""
    if len(text) > MAX_DESCRIPTION:
        raise ValueError(f"metadata must have at most {MAX_DESCRIPTION} bytes, got {len(text)}")
