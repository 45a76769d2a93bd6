"""The targets by name: functions of bytes that raise where the package breaks its promises.

ValueError, TypeError and the other exceptions that a function documents are answers; any other
exception, a wrong result, and a crash are findings. Targets need no fuzzer, only bytes.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from importlib.util import find_spec

from fuzz import (
    bit_arrays,
    calls,
    checkpoints,
    data_files,
    index_files,
    layer_calls,
    lce_files,
    model_files,
)

TARGETS: dict[str, Callable[[bytes], None]] = {
    "bitarray": bit_arrays.run,
    "calls": calls.run,
    "checkpoint": checkpoints.run,
    "cifar": data_files.run_cifar,
    "idx": data_files.run_idx,
    "index": index_files.run,
    "layers": layer_calls.run,
    "lce": lce_files.run,
    "mnist": data_files.run_mnist,
    "model": model_files.run,
    "svhn": data_files.run_svhn,
}

# Readers of formats whose libraries are optional.
if find_spec("onnx"):
    from fuzz import onnx_files

    TARGETS["onnx"] = onnx_files.run
if find_spec("h5py"):
    from fuzz import keras_files

    TARGETS |= {"keras2": keras_files.run_h5, "keras3": keras_files.run_zip}
if find_spec("torch"):
    from fuzz import torch_files

    TARGETS["torch"] = torch_files.run


def execute(name: str, data: bytes) -> None:
    """Run one target on bytes; NumPy's warnings of overflows are part of no promise."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        TARGETS[name](data)
