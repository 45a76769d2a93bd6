"""Reads the files of Larq Compute Engine, which may come from strangers, into graphs.

They are flatbuffers of TFLite's schema. The runtime of flatbuffers finds fields by their numbers,
and the tables below say which numbers the schema gives to the few fields that are needed. This is
all that generated classes would know; they do not check that what they read lies in the file.
"""

from __future__ import annotations

import math
import os
import struct
from typing import Any, NamedTuple

import numpy as np

from ..files.reading import read_regular
from .errors import ConversionError
from .graph import Graph, Node

READER = "from_lce"
FLOAT32, INT32 = 0, 2  # of the enum TensorType

_MOST_OPERATORS = 10_000
_MOST_AXES = 8
_OPTIONAL = -1  # the index of an input that is left out


class _Field(NamedTuple):
    """A field of a table: its number in the schema, what it holds, and its default.

    A kind is a type of NumPy for a number, the same in brackets for a vector, or "text"; the name
    of a table in brackets stands for a vector of tables, and "table" for a table of any name.
    """

    number: int
    kind: str
    default: Any = 0


_ACTIVATION = "fused_activation_function"

_SCHEMA: dict[str, dict[str, _Field]] = {
    "Model": {
        "version": _Field(0, "u4"),
        "operator_codes": _Field(1, "[OperatorCode]"),
        "subgraphs": _Field(2, "[SubGraph]"),
        "buffers": _Field(4, "[Buffer]"),
    },
    "OperatorCode": {
        "deprecated_builtin_code": _Field(0, "i1"),
        "custom_code": _Field(1, "text"),
        "builtin_code": _Field(3, "i4"),
    },
    "SubGraph": {
        "tensors": _Field(0, "[Tensor]"),
        "inputs": _Field(1, "[i4]"),
        "outputs": _Field(2, "[i4]"),
        "operators": _Field(3, "[Operator]"),
    },
    "Tensor": {
        "shape": _Field(0, "[i4]"),
        "type": _Field(1, "i1"),
        "buffer": _Field(2, "u4"),
        "name": _Field(3, "text"),
    },
    "Operator": {
        "opcode_index": _Field(0, "u4"),
        "inputs": _Field(1, "[i4]"),
        "outputs": _Field(2, "[i4]"),
        "builtin_options_type": _Field(3, "u1"),
        "builtin_options": _Field(4, "table"),
        "custom_options": _Field(5, "[u1]"),
    },
    "Buffer": {"data": _Field(0, "[u1]"), "offset": _Field(1, "u8")},
    "AddOptions": {_ACTIVATION: _Field(0, "i1")},
    "ConcatenationOptions": {"axis": _Field(0, "i4"), _ACTIVATION: _Field(1, "i1")},
    "Conv2DOptions": {
        "padding": _Field(0, "i1"),
        "stride_width": _Field(1, "i4"),
        "stride_height": _Field(2, "i4"),
        _ACTIVATION: _Field(3, "i1"),
        "dilation_width_factor": _Field(4, "i4", 1),
        "dilation_height_factor": _Field(5, "i4", 1),
    },
    "DepthwiseConv2DOptions": {
        "padding": _Field(0, "i1"),
        "stride_width": _Field(1, "i4"),
        "stride_height": _Field(2, "i4"),
        _ACTIVATION: _Field(4, "i1"),
        "dilation_width_factor": _Field(5, "i4", 1),
        "dilation_height_factor": _Field(6, "i4", 1),
    },
    "DivOptions": {_ACTIVATION: _Field(0, "i1")},
    "FullyConnectedOptions": {_ACTIVATION: _Field(0, "i1"), "weights_format": _Field(1, "i1")},
    "LeakyReluOptions": {"alpha": _Field(0, "f4", 0.0)},
    "MulOptions": {_ACTIVATION: _Field(0, "i1")},
    "Pool2DOptions": {
        "padding": _Field(0, "i1"),
        "stride_width": _Field(1, "i4"),
        "stride_height": _Field(2, "i4"),
        "filter_width": _Field(3, "i4"),
        "filter_height": _Field(4, "i4"),
        _ACTIVATION: _Field(5, "i1"),
    },
    "ReducerOptions": {"keep_dims": _Field(0, "?", False)},
    "ReshapeOptions": {"new_shape": _Field(0, "[i4]")},
    "SoftmaxOptions": {"beta": _Field(0, "f4", 0.0)},
    "SqueezeOptions": {"squeeze_dims": _Field(0, "[i4]")},
    "SubOptions": {_ACTIVATION: _Field(0, "i1")},
}

# The options of operators by their number in the union BuiltinOptions.
_OPTIONS = {
    **{1: "Conv2DOptions", 2: "DepthwiseConv2DOptions", 5: "Pool2DOptions"},
    **{8: "FullyConnectedOptions", 9: "SoftmaxOptions", 10: "ConcatenationOptions"},
    **{11: "AddOptions", 17: "ReshapeOptions", 21: "MulOptions", 27: "ReducerOptions"},
    **{28: "SubOptions", 29: "DivOptions", 30: "SqueezeOptions", 75: "LeakyReluOptions"},
}

# The enum BuiltinOperator, as far as operators are supported, or usual in networks of images.
_CUSTOM = 32
_OPERATORS = {
    **{0: "ADD", 1: "AVERAGE_POOL_2D", 2: "CONCATENATION", 3: "CONV_2D", 4: "DEPTHWISE_CONV_2D"},
    **{6: "DEQUANTIZE", 9: "FULLY_CONNECTED", 14: "LOGISTIC", 17: "MAX_POOL_2D", 18: "MUL"},
    **{19: "RELU", 20: "RELU_N1_TO_1", 21: "RELU6", 22: "RESHAPE", 23: "RESIZE_BILINEAR"},
    **{25: "SOFTMAX", 26: "SPACE_TO_DEPTH", 28: "TANH", 34: "PAD", 36: "GATHER"},
    **{37: "BATCH_TO_SPACE_ND", 38: "SPACE_TO_BATCH_ND", 39: "TRANSPOSE", 40: "MEAN", 41: "SUB"},
    **{42: "DIV", 43: "SQUEEZE", 45: "STRIDED_SLICE", 47: "EXP", 49: "SPLIT", 53: "CAST"},
    **{54: "PRELU", 55: "MAXIMUM", 56: "ARG_MAX", 57: "MINIMUM", 58: "LESS", 59: "NEG"},
    **{60: "PADV2", 61: "GREATER", 62: "GREATER_EQUAL", 63: "LESS_EQUAL", 65: "SLICE"},
    **{67: "TRANSPOSE_CONV", 74: "SUM", 77: "SHAPE", 83: "PACK", 97: "RESIZE_NEAREST_NEIGHBOR"},
    **{98: "LEAKY_RELU", 100: "MIRROR_PAD", 101: "ABS", 111: "ELU", 114: "QUANTIZE"},
    **{117: "HARD_SWISH", 123: "SELECT_V2", 158: "SIGN"},
}

_TYPES = {0: "float32", 1: "float16", 2: "int32", 3: "uint8", 4: "int64", 6: "bool", 9: "int8"}


def read_lce(source: str | os.PathLike | bytes) -> Graph:
    """Read a network, a path or the bytes of a file.

    The names of its tensors are their numbers in the file. A node has its options as attributes,
    and further "input_types" and "output_type", of TFLite's enum, and "output_shape".

    Raises
    ------
    ConversionError
        If it is damaged, or uses what is not supported.
    ImportError
        If flatbuffers is not installed.
    """
    data = source if isinstance(source, bytes) else read_regular(source)
    if data[4:8] != b"TFL3":
        raise _refusal("the file must be a flatbuffer of TFLite, version 3")
    file = _File(data)
    try:
        return _graph(file.root())
    except (struct.error, IndexError, KeyError, OverflowError, TypeError) as error:
        raise _refusal(f"the file is damaged: {error}") from None


def _refusal(reason: str) -> ConversionError:
    return ConversionError(f"[{READER}] {reason}")


# Flatbuffers


class _File:
    """The bytes of a file, and how many of them may still be read.

    Tables may share what they hold, with which a small file could pretend to be a large one.
    """

    def __init__(self, data: bytes):
        try:
            from flatbuffers import flexbuffers, table
        except ImportError:
            raise ImportError(
                f"[{READER}] this needs flatbuffers: pip install flatbuffers"
            ) from None
        self.data = data
        self.table, self.flexbuffers = table.Table, flexbuffers
        self._left = 4 * len(data)

    def root(self) -> _Table:
        return _Table(self, "Model", struct.unpack_from("<I", self.data)[0])

    def vector(self, kind: str, place: int, length: int) -> np.ndarray:
        """Return so many numbers from a place on."""
        dtype = np.dtype(kind).newbyteorder("<")
        self._left -= dtype.itemsize * length
        if place < 0 or place + dtype.itemsize * length > len(self.data) or self._left < 0:
            raise _refusal("the file is damaged: its parts must lie in it, and not in each other")
        return np.frombuffer(self.data, dtype, length, place)


class _Table:
    """A table of a file; `table[name]` is a field of it, by the name in the schema."""

    def __init__(self, file: _File, name: str, place: int):
        self._file, self._name = file, name
        self._table = file.table(file.data, place)

    def __getitem__(self, name: str) -> Any:
        field = _SCHEMA[self._name][name]
        offset = self._table.Offset(4 + 2 * field.number)
        if field.kind == "table":
            return self._table.Indirect(self._table.Pos + offset) if offset else None
        if field.kind == "text":
            return self._vector("u1", offset).tobytes().decode("utf-8", "replace")
        if field.kind[0] != "[":
            if not offset:
                return field.default
            return self._file.vector(field.kind, self._table.Pos + offset, 1)[0].item()
        inner = field.kind[1:-1]
        if inner not in _SCHEMA:
            return self._vector(inner, offset)
        places = self._vector("u4", offset)
        start = self._table.Vector(offset) if len(places) else 0
        return [
            _Table(self._file, inner, start + 4 * i + int(place)) for i, place in enumerate(places)
        ]

    def options(self, name: str) -> dict[str, Any]:
        """Return all fields of a table of options."""
        place = self["builtin_options"]
        table = None if place is None else _Table(self._file, name, place)
        return {
            key: field.default if table is None else table[key]
            for key, field in _SCHEMA[name].items()
        }

    def flexible_options(self) -> dict[str, int]:
        """Return the options of a custom operator, a map of integers in a flexbuffer."""
        flexbuffers = self._file.flexbuffers
        data = self["custom_options"].tobytes()
        if not data:
            return {}
        try:
            entries = flexbuffers.GetRoot(data).AsMap
            if len(entries) > 100:
                raise ValueError("too many entries")
            keys = [key.AsKey for key in entries.Keys]
            return {key: value.AsInt for key, value in zip(keys, entries.Values, strict=True)}
        except (ValueError, TypeError, IndexError, struct.error, OverflowError) as error:
            raise _refusal(f"the options of a custom operator are damaged: {error}") from None

    def _vector(self, kind: str, offset: int) -> np.ndarray:
        if not offset:
            return np.empty(0, kind)
        return self._file.vector(kind, self._table.Vector(offset), self._table.VectorLen(offset))


# The graph


class _Tensor(NamedTuple):
    name: str
    type: int
    shape: tuple[int, ...]
    value: np.ndarray | None


def _graph(model: _Table) -> Graph:
    subgraphs = model["subgraphs"]
    if model["version"] != 3 or len(subgraphs) != 1:
        raise _refusal(
            f"the file must be of version 3 with one graph, got version {model['version']} "
            f"with {len(subgraphs)}"
        )
    main = subgraphs[0]
    buffers = model["buffers"]
    tensors = [_tensor(entry, buffers) for entry in main["tensors"]]
    inputs, outputs = main["inputs"].tolist(), main["outputs"].tolist()
    operators = main["operators"]
    if not 0 < len(operators) <= _MOST_OPERATORS or len(outputs) != 1:
        raise _refusal(
            f"the network must have 1 to {_MOST_OPERATORS} operators and one output, "
            f"got {len(operators)} and {len(outputs)}"
        )
    for number in (*inputs, *outputs):
        if _at(tensors, number).type != FLOAT32:
            raise _refusal(
                f"input and output must be float32, got {_described(tensors[number])}; networks "
                f"quantized to 8 bits are not supported"
            )
    codes = [_operator_name(code) for code in model["operator_codes"]]
    return Graph(
        nodes=tuple(_node(operator, codes, tensors) for operator in operators),
        inputs={str(number): tensors[number].shape for number in inputs},
        outputs=(str(outputs[0]),),
        constants={
            str(number): tensor.value
            for number, tensor in enumerate(tensors)
            if tensor.value is not None and number not in inputs
        },
        opset=0,
        channels_last=frozenset(map(str, inputs)),
        reader=READER,
    )


def _at(tensors: list[_Tensor], number: int) -> _Tensor:
    if not 0 <= number < len(tensors):
        raise _refusal(f"the file is damaged: it has {len(tensors)} tensors, but names {number}")
    return tensors[number]


def _described(tensor: _Tensor) -> str:
    return f"{tensor.name!r} of {_TYPES.get(tensor.type, f'type {tensor.type}')}"


def _tensor(entry: _Table, buffers: list[_Table]) -> _Tensor:
    name, kind = entry["name"], entry["type"]
    shape = tuple(entry["shape"].tolist())
    if len(shape) > _MOST_AXES or min(shape, default=1) < 0:
        raise _refusal(f"tensor {name!r} must have at most {_MOST_AXES} axes, got shape {shape}")
    number = entry["buffer"]
    if number >= len(buffers):
        raise _refusal(f"the file is damaged: tensor {name!r} names the missing buffer {number}")
    buffer = buffers[number]
    if buffer["offset"]:
        raise _refusal(f"tensor {name!r} must lie within the flatbuffer, not behind it")
    data = buffer["data"]
    if not len(data):
        return _Tensor(name, kind, shape, None)
    if kind not in (FLOAT32, INT32):
        type_name = _TYPES.get(kind, f"type {kind}")
        raise _refusal(f"constant {name!r} must be float32 or int32, got {type_name}")
    if len(data) != 4 * math.prod(shape):
        raise _refusal(
            f"the file is damaged: constant {name!r} of shape {shape} has {len(data)} bytes"
        )
    value = data.view("<f4" if kind == FLOAT32 else "<i4").reshape(shape)
    if kind == FLOAT32 and not np.isfinite(value).all():
        raise _refusal(f"constant {name!r} must be finite")
    return _Tensor(name, kind, shape, value)


def _operator_name(code: _Table) -> str:
    # files of old versions have only the first, which new ones cap at 127
    number = max(code["builtin_code"], code["deprecated_builtin_code"])
    if number == _CUSTOM:
        return code["custom_code"]
    return _OPERATORS.get(number, f"operator {number}")


def _node(operator: _Table, codes: list[str], tensors: list[_Tensor]) -> Node:
    number = operator["opcode_index"]
    if number >= len(codes):
        raise _refusal(f"the file is damaged: an operator has the missing code {number}")
    inputs, outputs = operator["inputs"].tolist(), operator["outputs"].tolist()
    if not outputs:
        raise _refusal(f"the file is damaged: a {codes[number]} gives nothing")
    output = _at(tensors, outputs[0])
    given = [None if i == _OPTIONAL else _at(tensors, i) for i in inputs]
    options = _OPTIONS.get(operator["builtin_options_type"])
    attributes = operator.flexible_options() if options is None else operator.options(options)
    attributes |= {
        "input_types": [None if tensor is None else tensor.type for tensor in given],
        "output_type": output.type,
        "output_shape": output.shape,
    }
    return Node(
        codes[number],
        output.name,
        tuple("" if i == _OPTIONAL else str(i) for i in inputs),
        tuple(map(str, outputs)),
        attributes,
        reader=READER,
    )
