"""Packed networks as ONNX files."""

from __future__ import annotations

import os

from ..files.writing import write_file
from ..layers import Packed
from ..layers.inputs import Shape
from ..layers.product import PackedProduct
from .errors import ConversionError
from .onnx_layers import takes_images, unknown_layers, write_chain
from .onnx_writer import NHWC, ROWS, SEQUENCES, GraphTensor, GraphWriter


def to_onnx(packed: Packed, path: str | os.PathLike, *, qonnx: bool = False) -> None:
    """Write a packed network to an ONNX file.

    Parameters
    ----------
    packed : Packed
    path : path
        The file appears whole or not at all; an existing one is replaced.
    qonnx : bool
        Whether to write weights and activations by the operators BipolarQuant, Quant and
        MultiThreshold of QONNX, which FINN reads. By default all operators are those of ONNX.

    Raises
    ------
    ConversionError
        If a layer has no form in ONNX: the message names it. Nothing is written then.
    ImportError
        If onnx is not installed: `pip install onnx`.
    OSError
        If the file cannot be written. What was there before stays.
    TypeError
        If `packed` is not a packed network.

    Notes
    -----
    The input "input" is float32, images (n, h, w, c) or rows (n, features) as `packed` takes them;
    bits are +-1. The output "output" is float32 too. Products of bits, of codes and of 8-bit pixels
    are exact, and so is all that follows from them alone; sums of real numbers are rounded in the
    order of the program that runs the file.

    Weights take a byte each, cast to float32 when the file is loaded. Opset 17.

    Examples
    --------
    >>> to_onnx(net, "network.onnx")                             # doctest: +SKIP
    >>> session = onnxruntime.InferenceSession("network.onnx")   # doctest: +SKIP
    >>> (scores,) = session.run(None, {"input": images})         # doctest: +SKIP
    """
    if not isinstance(packed, Packed):
        raise TypeError(f"[to_onnx] packed must be a Packed, got {type(packed).__name__}")
    unknown = next(unknown_layers(packed.layers), None)
    if unknown is not None:
        raise ConversionError(f"[to_onnx] layer {unknown} has no form in ONNX")
    writer = GraphWriter(qonnx=qonnx)
    start = _start(packed)
    end = write_chain(writer, packed.layers, start)
    writer.scope = "output"
    end = writer.finish(writer.arranged(writer.as_kind(end, "bits"), NHWC))
    model = writer.model(start, end, packed.notes)
    write_file("to_onnx", path, model.SerializeToString(deterministic=True))


def _start(packed: Packed) -> GraphTensor:
    """Return the input: codes if the first layer says so, else any numbers."""
    shape: Shape = packed.input_shape or (packed.in_features,)
    if packed.input_shape is None and takes_images(packed.layers):
        shape = None, None, packed.in_features
    axes = {1: ROWS, 2: SEQUENCES, 3: NHWC}.get(len(shape))
    if axes is None or shape[-1] is None:
        raise ConversionError(
            f"[to_onnx] the network must take images (h, w, channels), sequences (length, "
            f"features) or rows (features,), got input_shape={packed.input_shape}; set it to what "
            f"the network takes"
        )
    first = packed.layers[0]
    if isinstance(first, PackedProduct) and first.input_bits is not None:
        return GraphTensor("input", axes, shape, "codes", 2**first.input_bits - 1)
    return GraphTensor("input", axes, shape)
