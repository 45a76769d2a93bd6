"""Packed-bit GEMM and binarized neural networks for NumPy."""

from importlib.metadata import version as _version

from . import isa
from .array import BitArray, pack, popcount, unpack
from .config import get_num_threads, set_num_threads, show_config
from .linalg import (
    Prepacked,
    bitplane_gemm,
    gemm,
    gemm_sign,
    hamming,
    hamming_topk,
    matmul,
    prepack,
    weight_gemm,
)
from .scaling import binarize_weights

__version__ = _version("bitops")

__all__ = [
    "BitArray",
    "Prepacked",
    "__version__",
    "binarize_weights",
    "bitplane_gemm",
    "gemm",
    "gemm_sign",
    "get_num_threads",
    "hamming",
    "hamming_topk",
    "isa",
    "matmul",
    "pack",
    "popcount",
    "prepack",
    "set_num_threads",
    "show_config",
    "unpack",
    "weight_gemm",
]
