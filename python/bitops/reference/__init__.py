"""The array functions of bitops in plain NumPy: a readable specification, and the tests' oracle.

A bit 1 means +1 (x >= 0, including 0.0 and -0.0); a bit 0 means -1. NaN has no sign. Element i of
the packed axis is bit ``i % 64`` of word ``i // 64``. Padding bits are 0. If two sign vectors of k
elements differ in h places, their product is

    dot = (k - h) - h = k - 2 * popcount(a ^ w).

The padding bits do not count, since they are equal in both operands and XOR makes them 0.

The functions have the names, parameters and meaning of the public ones, but no `out`. They take
plain arrays of real numbers and use their signs. They return plain arrays: `pack` returns words,
and where the public function returns a `BitArray`, the others return +1 and -1 as int8. They are
not meant to be fast, and they do not check their arguments.

No module here imports the native one.
"""

from .arrays import majority, pack, pack_above, popcount, sign, unpack
from .convolutions import bitplane_conv2d, conv2d, conv2d_sign, im2col, k_map, weight_conv2d
from .pools import avg_pool2d, global_avg_pool2d, max_pool2d
from .products import (
    binarize_weights,
    bitplane_gemm,
    gemm,
    gemm_sign,
    hamming,
    hamming_topk,
    matmul,
    weight_gemm,
)

__all__ = [
    "avg_pool2d",
    "binarize_weights",
    "bitplane_conv2d",
    "bitplane_gemm",
    "conv2d",
    "conv2d_sign",
    "gemm",
    "gemm_sign",
    "global_avg_pool2d",
    "hamming",
    "hamming_topk",
    "im2col",
    "k_map",
    "majority",
    "matmul",
    "max_pool2d",
    "pack",
    "pack_above",
    "popcount",
    "sign",
    "unpack",
    "weight_conv2d",
    "weight_gemm",
]
