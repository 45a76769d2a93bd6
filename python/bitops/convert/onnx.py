"""Packed networks from ONNX files."""

from __future__ import annotations

from ..layers import Packed
from .lowering import packed_network
from .onnx_file import Source, describe_source, read_onnx
from .onnx_trace import trace


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
        If onnx is not installed: `pip install onnx`.
    OSError
        If the file cannot be read.

    Notes
    -----
    Opsets from 9 on; the operators of convolutional and dense networks, and Quant, IntQuant,
    BipolarQuant and MultiThreshold of QONNX, Brevitas and FINN. A Sign of ONNX is 0 at 0: where
    that may happen, its outputs are codes of two bits. TopK or ArgMax at the end are left out,
    since `predict` does the same.

    Examples
    --------
    >>> packed = from_onnx("network.onnx")  # doctest: +SKIP
    >>> packed.predict(images)  # doctest: +SKIP
    """
    graph, _ = read_onnx(path)
    return packed_network(*trace(graph), "from_onnx", f"ONNX file {describe_source(path)}")
