"""Masked arrays, whose masks nothing here knows, are refused wherever arrays are taken."""

import numpy as np
import pytest

import bitops as bo
from bitops.layers import (
    BatchNorm,
    Dense,
    FloatDense,
    PackedBatchNorm,
    PackedConv2D,
    PackedDense,
    Parameter,
    Sign,
)
from bitops.quantizers import DoReFaWeight, SteSign
from bitops.training import ZCA, cross_entropy, gcn, random_crop, random_flip

X = np.random.default_rng(0).standard_normal((4, 8)).astype(np.float32)
IMAGES = np.ones((2, 3, 3, 1))
LABELS = np.zeros(4, int)


def masked(x):
    return np.ma.masked_array(x, np.zeros(np.shape(x), bool))


CALLS = {
    "pack": lambda: bo.pack(masked(X)),
    "pack_above": lambda: bo.pack_above(X, masked(X[0])),
    "from_words": lambda: bo.BitArray.from_words(masked(np.ones((1, 1), np.uint64)), (1, 64)),
    "gemm": lambda: bo.gemm(X, masked(X)),
    "gemm: alpha": lambda: bo.gemm(X, X, alpha=masked(X[:, 0])),
    "gemm_sign: threshold": lambda: bo.gemm_sign(X, X, masked(LABELS)),
    "gemm_sign: flip": lambda: bo.gemm_sign(X, X, 0, flip=masked(LABELS > 0)),
    "hamming": lambda: bo.hamming(masked(X), X),
    "hamming_topk": lambda: bo.hamming_topk(X, masked(X), 1),
    "weight_gemm": lambda: bo.weight_gemm(masked(X), X),
    "bitplane_gemm": lambda: bo.bitplane_gemm(masked(X.astype(np.uint8)), X),
    "avg_pool2d": lambda: bo.avg_pool2d(masked(IMAGES), 2),
    "k_map": lambda: bo.k_map(masked(IMAGES), 2),
    "binarize_weights": lambda: bo.binarize_weights(masked(X)),
    "prepack": lambda: bo.prepack(masked(X)),
    "Dense": lambda: Dense(8, 2).forward(masked(X)),
    "BatchNorm": lambda: BatchNorm(8).forward(masked(X), training=True),
    "Sign": lambda: Sign().forward(masked(X)),
    "PackedDense": lambda: PackedDense(masked(X)),
    "PackedDense: alpha": lambda: PackedDense(X, alpha=masked(X[:, 0])),
    "PackedDense: threshold": lambda: PackedDense(X, masked(X[:, 0])),
    "PackedDense: flip": lambda: PackedDense(X, X[:, 0], masked(X[:, 0] > 0)),
    "PackedConv2D": lambda: PackedConv2D(masked(IMAGES)),
    "PackedBatchNorm": lambda: PackedBatchNorm(masked(X[0]), X[0]),
    "FloatDense": lambda: FloatDense(masked(X)),
    "Parameter": lambda: Parameter(masked(X)),
    "Parameter.assign": lambda: Parameter(X).assign(masked(X)),
    "SteSign": lambda: SteSign().forward(masked(X)),
    "DoReFaWeight": lambda: DoReFaWeight(2).forward(masked(X)),
    "cross_entropy: scores": lambda: cross_entropy(masked(X), LABELS),
    "cross_entropy: labels": lambda: cross_entropy(X, masked(LABELS)),
    "random_flip": lambda: random_flip(masked(IMAGES), 0),
    "random_crop": lambda: random_crop(masked(IMAGES), 1, 0),
    "gcn": lambda: gcn(masked(IMAGES)),
    "ZCA": lambda: ZCA().fit(masked(X)),
}


@pytest.mark.parametrize("name", CALLS)
def test_masked_arrays_are_refused(name):
    with pytest.raises(TypeError, match=r"^\[\w+\] \w+ must not be masked, got a MaskedArray$"):
        CALLS[name]()
