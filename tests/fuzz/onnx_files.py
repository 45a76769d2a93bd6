"""Target: `from_onnx` on any bytes, and on changed models of random networks."""

from __future__ import annotations

import functools
import gzip
from typing import Any

import numpy as np
import onnx
from onnx import AttributeProto, TensorProto, helper
from random_onnx import random_network

from bitops.convert import ConversionError, from_onnx
from fuzz.limits import limits
from fuzz.reader import EDGES, NUMBERS, SPECIAL, Reader

# Small ones, which between them have every form of activation and of weights, branches too.
SEEDS = (0, 2, 3, 4, 6, 8, 9, 10, 12, 15, 16, 18, 20, 22, 24, 25, 26, 29)
OPERATORS = (
    *"Add Mul Sub Div Conv Gemm MatMul BatchNormalization MaxPool AveragePool Relu Sign".split(),
    *"Clip PRelu Reshape Transpose Flatten Pad Concat Softmax Cast Shape Gather Slice".split(),
    *"Squeeze Unsqueeze ReduceMean Where Greater TopK Constant ConstantOfShape Expand Tile".split(),
    *"Range Loop If Scan Quant BipolarQuant MultiThreshold Dropout Identity Split NoSuch".split(),
)
DOMAINS = ("", "ai.onnx", "onnx.brevitas", "finn.custom_op.general", "no.such", "\ud7ff")
ATTRIBUTES = (
    *"axis perm pads strides dilations kernel_shape group transA transB alpha beta to".split(),
    *"epsilon mode auto_pad ceil_mode count_include_pad keepdims axes value allowzero".split(),
    *"narrow signed out_scale out_bias data_layout start end training_mode".split(),
)
WORDS = ("", "SAME_UPPER", "SAME_LOWER", "VALID", "reflect", "NHWC", "c", "\0", "x" * 300)
PLACES = ("/etc/passwd", "../../etc/passwd", "weights.bin", "")
SMALL = (0, 1, -1, 2, 3, 4, 5, 7, 8, 16, -2, 64, 300)


@functools.cache
def models() -> list[bytes]:
    return [random_network(seed)[0].model().SerializeToString() for seed in SEEDS]


def run(data: bytes) -> None:
    reader = Reader(data)
    content = reader.rest() if reader.chance(16) else _changed(reader)
    with limits():
        try:
            from_onnx(content)
        except ConversionError as error:
            assert str(error).startswith(("[from_onnx] ", "[convert] "))


def _changed(reader: Reader) -> bytes:
    """The bytes of a model after up to four edits, and perhaps damage."""
    model = onnx.load_model_from_string(reader.choice(models()))
    for _ in range(1 + reader.below(4)):
        reader.choice(EDITS)(reader, model)
    content = model.SerializeToString()
    if reader.chance(8):
        place = reader.below(1 << 16) % (len(content) + 1)
        content = content[:place] + reader.take(reader.below(9)) + content[place + 1 :]
    if reader.chance(16):
        content = content[: reader.below(1 << 16) % (len(content) + 1)]
    if reader.chance(16):
        content = gzip.compress(content + bytes(reader.choice((0, 1 << 16, 1 << 25))), 1)
    return content


def _number(reader: Reader) -> int:
    """A size or a setting, mostly a small one; protobuf takes 64 bits."""
    if reader.chance(4):
        return max(min(reader.choice(EDGES), 2**63 - 1), -(2**63))
    return reader.choice(SMALL)


def _names(graph: Any) -> list[str]:
    nodes = [name for node in graph.node for name in (*node.input, *node.output)]
    return ["", "no such", *nodes, *(tensor.name for tensor in graph.initializer)]


def _node(reader: Reader, model: Any) -> Any:
    if not model.graph.node:
        model.graph.node.append(helper.make_node("Relu", ["input"], ["y"]))
    return reader.choice(model.graph.node)


def _change_operator(reader: Reader, model: Any) -> None:
    node = _node(reader, model)
    node.op_type = reader.choice(OPERATORS)
    if reader.chance(4):
        node.domain = reader.choice(DOMAINS)


def _rewire(reader: Reader, model: Any) -> None:
    """Another input or output, so that there are cycles, too."""
    node = _node(reader, model)
    names = node.output if reader.chance(4) else node.input
    new = reader.choice(_names(model.graph))
    if reader.chance(6) or not names:
        names.append(new)
    elif reader.chance(6):
        del names[reader.below(len(names))]
    else:
        names[reader.below(len(names))] = new


def _change_attribute(reader: Reader, model: Any) -> None:
    node = _node(reader, model)
    name = reader.choice(ATTRIBUTES)
    if node.attribute and not reader.chance(3):
        chosen = reader.below(len(node.attribute))
        name = node.attribute[chosen].name
        del node.attribute[chosen]
    if reader.chance(8):
        return
    made = AttributeProto(name=name)
    kind = reader.below(8)
    if kind == 0:
        made.f, made.type = reader.choice((*NUMBERS, *SPECIAL)), AttributeProto.FLOAT
    elif kind == 1:
        made.s, made.type = reader.choice(WORDS).encode(), AttributeProto.STRING
    elif kind == 2:
        made.type = AttributeProto.TENSOR
        made.t.CopyFrom(_tensor(reader, "value"))
    elif kind == 3:
        made.type = AttributeProto.GRAPH
        made.g.CopyFrom(_nested(reader))
    elif kind == 4:
        made.i, made.type = _number(reader), AttributeProto.INT
    elif kind == 5:  # a type that the value has not
        made.i, made.type = 3, reader.below(15)
    else:
        made.ints.extend(_number(reader) for _ in range(reader.below(9)))
        made.type = AttributeProto.INTS
    node.attribute.append(made)


def _tensor(reader: Reader, name: str) -> Any:
    shape = [reader.choice((0, 1, 2, 3, 5)) for _ in range(reader.below(5))]
    count = int(np.prod(shape))
    kind = reader.choice((1, 7, 6, 10, 11, 9))
    values = [reader.choice((0, 1, 2, -1, 3)) for _ in range(min(count, 8))]
    return helper.make_tensor(name, kind, shape, np.resize(values or [0], count).tolist())


def _nested(reader: Reader) -> Any:
    """A graph in an attribute, perhaps within many others."""
    graph = helper.make_graph([helper.make_node("Relu", ["input"], ["y"])], "g", [], [])
    for _ in range(reader.choice((0, 1, 12, 24))):
        node = helper.make_node(
            "If", ["input"], ["y"], then_branch=graph, else_branch=graph.__class__()
        )
        graph = helper.make_graph([node], "g", [], [])
    return graph


def _change_weights(reader: Reader, model: Any) -> None:
    tensors = model.graph.initializer
    if not tensors:
        tensors.append(_tensor(reader, "c0"))
    tensor = reader.choice(tensors)
    edit = reader.below(9)
    if edit == 0 and tensor.dims:
        tensor.dims[reader.below(len(tensor.dims))] = _number(reader)
    elif edit == 1:
        tensor.dims.append(_number(reader))
    elif edit == 2:
        tensor.data_type = reader.below(26)
    elif edit == 3:
        tensor.raw_data = tensor.raw_data[: reader.below(256)]
    elif edit == 4:
        tensor.data_location = TensorProto.EXTERNAL
        entry = tensor.external_data.add()
        entry.key, entry.value = "location", reader.choice(PLACES)
    elif edit == 5 and len(tensor.raw_data) >= 4 and tensor.data_type == TensorProto.FLOAT:
        values = np.frombuffer(tensor.raw_data, np.float32).copy()
        value = reader.choice((*NUMBERS, *SPECIAL))
        with np.errstate(over="ignore"):
            values[reader.below(1 << 16) % len(values) :: 1 + reader.below(5)] = np.float32(value)
        tensor.raw_data = values.tobytes()
    elif edit == 6:
        tensor.name = reader.choice(_names(model.graph))
    else:
        tensor.CopyFrom(_tensor(reader, tensor.name))


def _change_value(reader: Reader, model: Any) -> None:
    """Shapes and names of the inputs and outputs of the graph."""
    graph = model.graph
    values = graph.output if reader.chance(4) else graph.input
    edit = reader.below(6)
    if edit == 0 or not values:
        values.append(helper.make_tensor_value_info(reader.choice(_names(graph)), 1, [1, 3]))
        return
    value = values[reader.below(len(values))]
    dims = value.type.tensor_type.shape.dim
    if edit == 1:
        value.name = reader.choice(_names(graph))
    elif edit == 2 and dims:
        del dims[reader.below(len(dims))]
    elif edit == 3:
        dims.add().dim_value = _number(reader)
    elif dims:
        dim = dims[reader.below(len(dims))]
        if reader.chance(4):
            dim.dim_param = reader.choice(WORDS)
        else:
            dim.dim_value = _number(reader)
        dim.denotation = reader.choice(("", "DATA_CHANNEL"))


def _change_nodes(reader: Reader, model: Any) -> None:
    nodes = model.graph.node
    node = _node(reader, model)
    edit = reader.below(4)
    if edit == 0:
        nodes.remove(node)
    elif edit == 1:
        nodes.append(node)
    elif edit == 2:
        copy = onnx.NodeProto()
        copy.CopyFrom(node)
        copy.output[:] = [f"{name}'" for name in node.output]
        nodes.insert(reader.below(len(nodes)), copy)
    else:  # a long chain
        last = reader.choice(_names(model.graph))
        for i in range(reader.choice((3, 200, 2000))):
            nodes.append(helper.make_node(reader.choice(OPERATORS[:4]), [last, last], [f"z{i}"]))
            last = f"z{i}"
        model.graph.output[0].name = last


def _change_versions(reader: Reader, model: Any) -> None:
    if reader.chance(3):
        model.ir_version = _number(reader)
    elif reader.chance(3):
        entry = model.opset_import.add()
        entry.domain, entry.version = reader.choice(DOMAINS), _number(reader)
    elif model.opset_import:
        reader.choice(model.opset_import).version = reader.choice((1, 6, 9, 11, 13, 18, 21, 99))


def _add_function(reader: Reader, model: Any) -> None:
    """A local function, which may call itself, and a node that calls it."""
    calls = reader.choice(("Relu", "own", "other"))
    domain = "" if calls == "Relu" else "no.such"
    body = helper.make_node(calls, ["a"], ["b"], domain=domain)
    imports = [helper.make_opsetid("", 17), helper.make_opsetid("no.such", 1)]
    for name in ("own", "other"):
        model.functions.append(helper.make_function("no.such", name, ["a"], ["b"], [body], imports))
    node = _node(reader, model)
    node.op_type, node.domain = "own", "no.such"


EDITS = (
    _change_operator,
    _rewire,
    _change_attribute,
    _change_attribute,
    _change_weights,
    _change_weights,
    _change_value,
    _change_nodes,
    _change_versions,
    _add_function,
)
