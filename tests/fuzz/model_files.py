"""Target: `bitops.io.load` on any bytes, and on forged files whose checksum is right."""

from __future__ import annotations

import functools
import json
import math
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy

from bitops import io
from bitops.files.tensors import digest
from bitops.layers import (
    FloatConv2D,
    FloatDense,
    Packed,
    PackedAvgPool2D,
    PackedBatchNorm,
    PackedConv2D,
    PackedDense,
    PackedFlatten,
    PackedGlobalAvgPool2D,
    PackedLevels,
    PackedMaxPool2D,
    PackedPlanesConv2D,
    PackedPlanesDense,
    PackedQuantize,
    PackedReLU,
    PackedResidual,
    PackedSign,
    PackedTanh,
)
from bitops.ops.array import BitArray
from fuzz.documents import forge
from fuzz.reader import Reader, allowed

Document = tuple[dict[str, Any], dict[str, np.ndarray]]
MAX_VALUES = 1 << 16  # of any activation when a forged model is run
DTYPES = ("u1", "i4", "i8", "u8", "f4", "f8", "?")


def models() -> list[Packed]:
    """Small models with every type of layer, field and setting."""
    rng = np.random.default_rng(0)
    w = rng.standard_normal
    flip = np.arange(8) % 3 == 0
    dense = [
        PackedBatchNorm(w(5), w(5)),
        PackedSign(w(5), flip[:5]),
        PackedDense(w((8, 5)), rng.integers(-3, 4, 8), flip),
        PackedResidual([PackedDense(w((8, 8)), alpha=w(8), bias=w(8)), PackedTanh()]),
        PackedQuantize(2, 1.0),
        PackedPlanesDense(w((2, 6, 8)), (1, 1), w(6), input_bits=2),
        FloatDense(w((3, 6)), w(3)),
        PackedQuantize(2, 1.0),
        PackedLevels(0.5),
    ]
    images = [
        PackedConv2D(w((8, 3, 2, 3)), rng.integers(-9, 9, 8), flip, padding="same"),
        PackedMaxPool2D(2, padding=((0, 1), (0, 0)), minimum=flip),
        PackedResidual(
            [PackedConv2D(w((8, 3, 3, 8)), padding=1, pad_value=-1, alpha=w(8)), PackedReLU()],
            [PackedConv2D(w((8, 1, 1, 4)), groups=2)],
        ),
        PackedConv2D(w((6, 1, 1, 8)), scale_input=True),
        PackedAvgPool2D(2, 1),
        PackedPlanesConv2D(w((2, 4, 1, 1, 6)), (1, 2), w(4)),
        FloatConv2D(w((4, 1, 1, 2)), w(4), groups=2),
        PackedResidual([PackedFlatten(), FloatDense(w((4, 24)))], PackedGlobalAvgPool2D()),
    ]
    return [Packed(*dense), Packed(*images, input_shape=(7, 6, 3), notes={"by": "hand"})]


@functools.cache
def documents() -> list[Document]:
    """Description and tensors of their files."""
    found = []
    for model in models():
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "model"
            io.save(model, path)
            with safetensors.safe_open(path, framework="numpy") as file:
                description = json.loads(file.metadata()["bitops"])
                found.append((description, {name: file.get_tensor(name) for name in file.keys()}))
    return found


def forged_tensors(reader: Reader, tensors: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The tensors, up to three of them changed, removed or named otherwise."""
    tensors = dict(tensors)
    for _ in range(reader.below(4)):
        if not tensors:
            break
        name = reader.choice(sorted(tensors))
        array = tensors[name]
        edit = reader.below(6)
        if edit == 0:
            del tensors[name]
        elif edit == 1:
            tensors[reader.choice((f"{name}.0", "0.weight", "order", "x y"))] = array
        elif edit == 2:
            with np.errstate(all="ignore"):
                tensors[name] = array.astype(reader.choice(DTYPES))
        elif edit == 3:
            shape = (reader.below(4), *array.shape[1:])
            tensors[name] = np.resize(array, shape) if array.size else array
        elif array.size:
            raw = bytearray(array.tobytes())
            raw[reader.below(min(len(raw), 1 << 16))] ^= 1 << reader.below(8)
            tensors[name] = np.frombuffer(bytes(raw), array.dtype).reshape(array.shape)
    return tensors


def safetensors_bytes(description: dict[str, Any], tensors: dict[str, np.ndarray]) -> bytes:
    """A file with a right checksum, unless the description has one of its own that is kept."""
    described = {**description, "sha256": digest(description, tensors)}
    return safetensors.numpy.save(tensors, {"bitops": json.dumps(described)})


def run(data: bytes) -> None:
    reader = Reader(data)
    mode = reader.below(4)
    if mode == 0:
        content = reader.rest()
    else:
        description, tensors = documents()[mode % 2]
        forged = forge(reader, description, 4)
        content = safetensors_bytes(forged, forged_tensors(reader, tensors))
        if mode == 3 and content:  # damage without repair
            place = reader.below(min(len(content), 1 << 16))
            content = content[:place] + reader.take(reader.below(9)) + content[place:]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model"
        path.write_bytes(content)
        model = None
        with allowed():
            model = io.load(path)
        if model is not None:
            again = Path(folder) / "again"
            io.save(model, again)
            assert repr(io.load(again)) == repr(model)
            _run_model(model)


def _run_model(model: Packed) -> None:
    """A model that was accepted runs on what fits its first layers, or says what does not fit."""
    shape = model.input_shape or (7, 6, model.in_features or 3)
    if math.prod(shape) > MAX_VALUES or not _is_small(model, shape):
        return
    x = np.ones((1, *shape), np.float32)
    with allowed(), np.errstate(all="ignore"):
        y = model.forward(x)
        if isinstance(y, BitArray):
            assert BitArray.from_words(y.words, y.shape) == y  # padding bits are 0


def _is_small(model: Packed, shape: tuple[int, ...]) -> bool:
    """Whether no layer, those inside branches included, makes a large activation."""
    known: Any = shape
    with allowed():
        for layer in model.layers:
            for branch in layer.branches().values():
                if not _is_small(Packed(list(branch)), known):
                    return False
            known = layer.output_shape(known)
            if None in known or math.prod(known) > MAX_VALUES:
                return False
            if getattr(layer, "kernel_size", None) and math.prod(layer.kernel_size) > MAX_VALUES:
                return False
        return True
    return False
