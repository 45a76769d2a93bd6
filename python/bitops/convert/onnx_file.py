"""Reads ONNX files, which may come from strangers, into graphs."""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterable, Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import Any

from ..files.reading import check_regular, open_regular, read_regular
from ..files.unpacking import most_unpacked
from .errors import ConversionError
from .graph import Graph, Node

_OLDEST_OPSET = 9
_MOST_NODES = 1_000_000  # with local functions in place of their calls

Source = str | os.PathLike | bytes


def read_onnx(source: Source) -> tuple[Graph, Any]:
    """Read a network, a path or the bytes of a file, gzipped or not; return it and the model.

    Raises
    ------
    ConversionError
        If it is damaged, or uses what is not supported.
    ImportError
        If onnx is not installed.
    """
    onnx = import_onnx()
    data = source if isinstance(source, bytes) else read_regular(source)
    if data[:2] == b"\x1f\x8b":
        data = _unzipped(data)
    try:
        model = onnx.load_model_from_string(data)
    except Exception as error:  # the parser's own errors share no useful base class
        raise ConversionError(f"[from_onnx] the file must be an ONNX model: {error}") from None
    if not model.graph.node:
        raise ConversionError("[from_onnx] the file must be an ONNX model with at least one node")
    _load_external_data(model, None if isinstance(source, bytes) else Path(source).parent)
    model = _checked(onnx, model)
    return _graph(onnx, model), model


def import_onnx() -> Any:
    """Return the module onnx, or say how to install it."""
    try:
        import onnx
        import onnx.inliner  # onnx itself does not load it
    except ImportError:
        raise ImportError("[from_onnx] this needs onnx: pip install onnx") from None
    return onnx


def _unzipped(data: bytes) -> bytes:
    most = most_unpacked(len(data))
    unzip = zlib.decompressobj(wbits=31)
    try:
        unpacked = unzip.decompress(data, most)
    except zlib.error as error:
        raise ConversionError(f"[from_onnx] the gzipped file is damaged: {error}") from None
    if not unzip.eof:
        reason = "is cut short" if not unzip.unconsumed_tail else f"unpacks to more than {most} B"
        raise ConversionError(f"[from_onnx] the gzipped file {reason}")
    return unpacked


def _tensors(graph: Any) -> Iterator[Any]:
    """Yield every tensor of a graph: weights, and attributes of nodes."""
    yield from graph.initializer
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            yield from attribute.tensors


def _load_external_data(model: Any, folder: Path | None) -> None:
    """Read the tensors that lie in files beside the model, as PyTorch's exporter puts them."""
    left: dict[str, int] = {}
    for tensor in _tensors(model.graph):
        if tensor.data_location == 1 or tensor.external_data:
            tensor.raw_data = _external_data(tensor, folder, left)
            tensor.data_location = 0
            del tensor.external_data[:]


def _external_data(tensor: Any, folder: Path | None, left: dict[str, int]) -> bytes:
    """Return the bytes of a tensor; `left` counts those of each file that none has taken yet."""
    where = f"[from_onnx] the data of tensor {tensor.name!r}"
    if folder is None:
        raise ConversionError(
            f"{where} is in another file: give the path of the model, or export it with "
            f"external_data=False"
        )
    entries = {entry.key: entry.value for entry in tensor.external_data}
    name = entries.get("location", "")
    if name in ("", ".", "..") or set(name) & set("/\\:\0"):
        raise ConversionError(f"{where} must be in a file beside the model, got {name!r}")
    try:
        offset, path = int(entries.get("offset", 0)), folder / name
        check_regular(path, path.lstat())  # no link to elsewhere
        with open_regular(path) as file:
            size = os.fstat(file.fileno()).st_size
            length = int(entries.get("length", size - offset))
            rest = left.setdefault(name, size)
            if not (0 <= offset <= size and 0 <= length <= min(size - offset, rest)):
                raise ConversionError(f"{where} must be a part of its own of {name!r}")
            left[name] = rest - length
            file.seek(offset)
            return file.read(length)
    except (OSError, ValueError) as error:
        if isinstance(error, ConversionError):
            raise
        raise ConversionError(f"{where} cannot be read from {name!r}: {error}") from None


def _checked(onnx: Any, model: Any) -> Any:
    """Check a model, and put the bodies of its local functions in place of their calls."""
    if model.functions:
        _check_functions(model)
    known = {entry.domain for entry in model.opset_import}
    try:
        for domain in {node.domain for node in model.graph.node} - known:
            # files of QONNX often leave their own domain out, which the checker insists on
            model.opset_import.add(domain=domain, version=1)  # ValueError if it is not UTF-8
        onnx.checker.check_model(model, full_check=False)
        if model.functions:
            model = onnx.inliner.inline_local_functions(model)
    except (onnx.checker.ValidationError, ValueError, RuntimeError) as error:
        raise ConversionError(f"[from_onnx] the model is not valid: {error}") from None
    return model


def _check_functions(model: Any) -> None:
    """Check that local functions end, and how many nodes they put in place of their calls.

    Some versions of onnx crash where a function calls itself.
    """
    calls = {_name(f.domain, f.name): list(_calls(f.node)) for f in model.functions}
    sizes: dict[tuple[str, str], int] = {}
    try:
        for function in TopologicalSorter(calls).static_order():
            called = calls.get(function)
            sizes[function] = 1 if called is None else sum(sizes[name] for name in called)
    except CycleError as error:
        _, name = error.args[1][0]
        raise ConversionError(
            f"[from_onnx] local functions must not call themselves, got {name!r:.80}"
        ) from None
    nodes = sum(sizes.get(name, 1) for name in _calls(model.graph.node))
    if nodes > _MOST_NODES:
        raise ConversionError(
            f"[from_onnx] local functions must stand for at most {_MOST_NODES:,} nodes, got more"
        )


def _name(domain: str, name: str) -> tuple[str, str]:
    return "" if domain == "ai.onnx" else domain, name


def _calls(nodes: Iterable[Any]) -> Iterator[tuple[str, str]]:
    """Yield the domain and name of what nodes call, those of their subgraphs included."""
    for node in nodes:
        yield _name(node.domain, node.op_type)
        for attribute in node.attribute:
            for graph in (attribute.g, *attribute.graphs):
                yield from _calls(graph.node)


def _graph(onnx: Any, model: Any) -> Graph:
    opset = next((entry.version for entry in model.opset_import if not entry.domain), 0)
    if opset < _OLDEST_OPSET:
        raise ConversionError(
            f"[from_onnx] the opset must be {_OLDEST_OPSET} or newer, got {opset}; "
            f"onnx.version_converter can change it"
        )
    constants = {}
    for tensor in model.graph.initializer:
        try:
            constants[tensor.name] = onnx.numpy_helper.to_array(tensor)
        except Exception as error:  # raw data of the wrong length, unknown types
            raise ConversionError(f"[from_onnx] tensor {tensor.name!r}: {error}") from None
    inputs = {
        value.name: _shape(value) for value in model.graph.input if value.name not in constants
    }
    return Graph(
        nodes=tuple(_node(onnx, node) for node in model.graph.node),
        inputs=inputs,
        outputs=tuple(value.name for value in model.graph.output),
        constants=constants,
        opset=opset,
        channels_last=frozenset(value.name for value in model.graph.input if _is_nhwc(value)),
    )


def _shape(value: Any) -> tuple[int | None, ...]:
    dims = value.type.tensor_type.shape.dim
    return tuple(dim.dim_value if dim.HasField("dim_value") else None for dim in dims)


def _is_nhwc(value: Any) -> bool:
    """Return whether the last axis is declared to be that of the channels, as `to_onnx` does."""
    dims = value.type.tensor_type.shape.dim
    return len(dims) == 4 and dims[3].denotation == "DATA_CHANNEL"


def _node(onnx: Any, node: Any) -> Node:
    attributes = {}
    for attribute in node.attribute:
        value = onnx.helper.get_attribute_value(attribute)
        if isinstance(value, onnx.TensorProto):
            value = onnx.numpy_helper.to_array(value)
        elif isinstance(value, bytes):
            value = value.decode("utf-8", "replace")
        elif isinstance(value, onnx.GraphProto):
            value = None  # operators with bodies are refused by name
        attributes[attribute.name] = value
    domain = "" if node.domain == "ai.onnx" else node.domain
    return Node(node.op_type, node.name, tuple(node.input), tuple(node.output), attributes, domain)


def describe_source(source: Source) -> str:
    """Return a name for a source, for messages and notes."""
    return "bytes" if isinstance(source, bytes) else Path(source).name
