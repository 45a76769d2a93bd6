"""Packed networks from ONNX files."""

from __future__ import annotations

import math

import numpy as np

from ..layers import Packed, Sequential
from ..layers.base import activations
from .errors import ConversionError
from .lowering import lower
from .onnx_file import Source, describe_source, read_onnx
from .onnx_trace import trace

_LIGHT = 2**22  # numbers


def from_onnx(path: Source) -> Packed:
    """Make a packed network of an ONNX file.

    Parameters
    ----------
    path : path or bytes
        The file, or what it holds; gzipped or not.

    Returns
    -------
    Packed
        It takes images (n, h, w, c), whatever the order in the file, or rows (n, features), and
        gives the scores. Weights that are +-1, or +-1 times a scale for each filter, are packed;
        those of a few levels become planes; others stay float32. Its `notes` tell the source, and
        what was decided on the way.

    Raises
    ------
    ConversionError
        If the file is damaged, or if the network cannot be represented: the message names the
        first node that cannot, and why. It is a ValueError.
    ImportError
        If onnx is not installed: `pip install 'bitops[onnx]'`.
    OSError
        If the file cannot be read.

    Notes
    -----
    Opsets from 9 on; the operators of convolutional and dense networks, and Quant, IntQuant,
    BipolarQuant and MultiThreshold of QONNX, Brevitas and FINN. A Sign of ONNX is 0 at 0: where
    that may happen, its outputs are codes of two bits. TopK or ArgMax at the end are left out,
    since `predict` does the same.
    """
    graph, _ = read_onnx(path)
    output, start, shape, remarks = trace(graph)
    if output.order is not None:
        raise ConversionError("[from_onnx] the output must be scores, not flattened images")
    known = tuple(size for size in shape if size is not None)
    input_shape = known if len(known) == len(shape) else None
    try:
        layers = lower(output.trace.steps_from(start), remarks)
        if not layers:
            raise ConversionError("[from_onnx] the network computes nothing of its input")
        packed = Sequential(layers, input_shape=input_shape).freeze()
        if input_shape is not None and _is_light(packed, input_shape):
            packed(np.zeros((1, *input_shape), np.float32))  # layers refuse what does not fit
    except ConversionError:
        raise
    except (TypeError, ValueError) as error:
        raise ConversionError(f"[from_onnx] the network cannot be packed: {error}") from None
    notes = {"source": f"ONNX file {describe_source(path)}"}
    if remarks:
        notes["remarks"] = "; ".join(remarks)
    packed.notes.update(notes)
    return packed


def _is_light(packed: Packed, shape: tuple[int, ...]) -> bool:
    """Return whether no activation of one example is so large that a run would take long."""
    outputs = (output for *_, output in activations(packed.layers, shape))
    sizes = [math.prod(size or 1 for size in output) for output in outputs]
    return max(math.prod(shape), *sizes) <= _LIGHT
