"""Packed networks from files of Larq Compute Engine."""

from __future__ import annotations

import os

from ..layers import Packed
from .lce_file import READER, read_lce
from .lce_ops import HANDLERS
from .lowering import packed_network
from .onnx_file import describe_source
from .onnx_trace import trace


def from_lce(path: str | os.PathLike | bytes) -> Packed:
    """Make a packed network of a file of Larq Compute Engine.

    Parameters
    ----------
    path : path or bytes
        The `.tflite` file, or what it holds.

    Returns
    -------
    Packed
        It takes images (n, h, w, c), or rows (n, features), and gives the scores. Its `notes` tell
        the source, and where the interpreter computes something else.

    Raises
    ------
    ConversionError
        If the file is damaged, or if the network cannot be represented: the message names the
        first operator that cannot, and why. It is a ValueError.
    ImportError
        If flatbuffers is not installed: `pip install flatbuffers`.
    OSError
        If the file cannot be read.

    Notes
    -----
    LceQuantize, LceDequantize, LceBconv2d and LceBMaxPool2d, and the operators of TFLite that
    networks of images have, in float32. Files that were quantized to 8 bits are refused. The
    scores are those of the interpreter, up to the last bits of float32 sums, but where its usual
    kernel gets zero padding wrong: windows that are larger than the image, and sums of exactly 0
    before a sign. There they are those of its reference kernel, and of TensorFlow.

    Examples
    --------
    >>> packed = from_lce("network.tflite")  # doctest: +SKIP
    >>> packed.predict(images)  # doctest: +SKIP
    """
    graph = read_lce(path)
    return packed_network(*trace(graph, HANDLERS), READER, f"LCE file {describe_source(path)}")
