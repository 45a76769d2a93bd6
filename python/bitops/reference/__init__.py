"""The array functions of bitops in plain NumPy: readable specification and oracle of the tests.

Encoding: a bit 1 means +1 (x >= 0, so also 0.0 and -0.0), a bit 0 means -1; NaN has no sign.
Element i of the packed axis is bit ``i % 64`` of word ``i // 64``, and padding bits are 0.
Two sign vectors of k elements differ in h places, and their product is

    dot = (k - h) - h = k - 2 * popcount(a ^ w),

where XOR also clears the padding bits, which are equal in both operands.

The functions have the names and the meaning of the public ones, but take plain arrays of real
numbers (packed by sign) and return plain arrays: packed words for `pack`, +-1 values in int8
wherever the public function returns a `BitArray`. Speed is no aim here, and neither is the checking
of arguments.
"""

from .arrays import (
    pack,
    popcount,
    sign,
    unpack,
)
from .images import (
    avg_pool2d,
    bitplane_conv2d,
    conv2d,
    conv2d_sign,
    global_avg_pool2d,
    im2col,
    k_map,
    max_pool2d,
    weight_conv2d,
)
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
    "matmul",
    "max_pool2d",
    "pack",
    "popcount",
    "sign",
    "unpack",
    "weight_conv2d",
    "weight_gemm",
]
