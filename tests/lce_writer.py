"""Writes small files of TFLite with the operators of Larq Compute Engine, also impossible ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import flatbuffers
import numpy as np
from flatbuffers import flexbuffers

FLOAT32, INT32, INT8 = 0, 2, 9
SAME, VALID = 0, 1

# Operators by name: the number, that of the options in their union, and the types of its fields.
OPERATORS: dict[str, tuple[int, int, str]] = {
    "ADD": (0, 11, "b"),
    "AVERAGE_POOL_2D": (1, 5, "biiiib"),
    "CONCATENATION": (2, 10, "ib"),
    "CONV_2D": (3, 1, "biibii"),
    "FULLY_CONNECTED": (9, 8, "bb"),
    "MUL": (18, 21, "b"),
    "RELU": (19, 0, ""),
    "PAD": (34, 0, ""),
    "ELU": (111, 0, ""),
    "ATAN2": (156, 0, ""),
}


@dataclass
class Writer:
    """A file in the making. Tensors are their numbers; the first is the input."""

    shape: Sequence[int] = (1, 4, 4, 8)
    type: int = FLOAT32
    tensors: list[tuple[Sequence[int], int, bytes]] = field(default_factory=list)
    operators: list[tuple[str, Sequence[int], Sequence[int], Any]] = field(default_factory=list)
    version: int = 3

    def __post_init__(self):
        self.tensors.append((self.shape, self.type, b""))

    def tensor(self, shape: Sequence[int], kind: int = FLOAT32) -> int:
        self.tensors.append((shape, kind, b""))
        return len(self.tensors) - 1

    def constant(self, value: Any, kind: int | None = None) -> int:
        value = np.asarray(value)
        number = {"f": FLOAT32, "i": INT32}[value.dtype.kind] if kind is None else kind
        self.tensors.append((value.shape, number, value.tobytes()))
        return len(self.tensors) - 1

    def then(self, op: str, inputs: Sequence[int], shape: Sequence[int], options: Any = (), **more):
        """Add an operator; return the tensor that it gives."""
        output = self.tensor(shape, more.pop("kind", FLOAT32))
        self.operators.append((op, inputs, (output,), more or options))
        return output

    def quantized(self, x: int = 0) -> int:
        shape = (*self.shape[:-1], -(-self.shape[-1] // 32))
        return self.then("LceQuantize", (x,), shape, kind=INT32)

    def content(self, outputs: Sequence[int] | None = None) -> bytes:
        """Return the bytes of the file; its output is the last tensor, unless others are given."""
        b = flatbuffers.Builder()
        outputs = (len(self.tensors) - 1,) if outputs is None else outputs
        names = sorted({op for op, *_ in self.operators})
        buffers = [_table(b, 1, {0: ("vector", b"")})]
        tensors = []
        for i, (shape, kind, data) in enumerate(self.tensors):
            if data:
                buffers.append(_table(b, 1, {0: ("vector", data)}))
            entries = {0: ("ints", shape), 1: ("b", kind), 3: ("text", f"t{i}")}
            entries[2] = ("I", len(buffers) - 1 if data else 0)
            tensors.append(_table(b, 8, entries))
        operators = [self._operator(b, names, *operator) for operator in self.operators]
        graph = _table(
            b,
            5,
            {
                0: ("tables", tensors),
                1: ("ints", (0,)),
                2: ("ints", outputs),
                3: ("tables", operators),
            },
        )
        codes = []
        for name in names:
            number = OPERATORS.get(name, (32,))[0]
            entries = {0: ("b", min(number, 127)), 3: ("i", number)}
            codes.append(_table(b, 4, entries | ({1: ("text", name)} if number == 32 else {})))
        model = {
            0: ("I", self.version),
            1: ("tables", codes),
            2: ("tables", [graph]),
            4: ("tables", buffers),
        }
        b.Finish(_table(b, 8, model), b"TFL3")
        return bytes(b.Output())

    def _operator(self, b, names, op, inputs, outputs, options) -> int:
        entries = {
            0: ("I", names.index(op)),
            1: ("ints", inputs),
            2: ("ints", outputs),
        }
        if op in OPERATORS:
            _, union, kinds = OPERATORS[op]
            if options:
                own = dict(enumerate(zip(kinds, options, strict=True)))
                entries |= {3: ("B", union), 4: ("table", _table(b, len(kinds), own))}
        elif options:
            data = options if isinstance(options, bytes) else bytes(flexbuffers.Dumps(options))
            entries[5] = ("vector", data)
        return _table(b, 9, entries)


def _table(b: Any, fields: int, entries: dict[int, tuple[str, Any]]) -> int:
    """Write a table: values by the numbers of its fields."""
    ready = {}
    for number, (kind, value) in entries.items():
        if kind == "vector":
            value = b.CreateByteVector(value)
        elif kind == "text":
            value = b.CreateString(value)
        elif kind == "ints":
            value = b.CreateNumpyVector(np.asarray(value, np.int32))
        elif kind == "tables":
            b.StartVector(4, len(value), 4)
            for offset in reversed(value):
                b.PrependUOffsetTRelative(offset)
            value = b.EndVector()
        ready[number] = kind, value
    b.StartObject(fields)
    for number, (kind, value) in ready.items():
        put = {"b": b.PrependInt8Slot, "B": b.PrependUint8Slot, "i": b.PrependInt32Slot}
        put["I"] = b.PrependUint32Slot
        put.get(kind, b.PrependUOffsetTRelativeSlot)(number, value, 0)
    return b.EndObject()


def binary_conv(channels: int, **options: int) -> dict[str, int]:
    """Options of LceBconv2d."""
    return {
        "channels_in": channels,
        "dilation_height_factor": 1,
        "dilation_width_factor": 1,
        "fused_activation_function": 0,
        "pad_values": 1,
        "padding": SAME,
        "stride_height": 1,
        "stride_width": 1,
        **options,
    }
