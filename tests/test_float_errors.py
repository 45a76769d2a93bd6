"""What `np.errstate` asks for concerns the arithmetic of the caller: it changes no result here.

Numbers beyond float32 become infinite, and those next to zero become subnormal or zero.
"""

import warnings

import numpy as np
import pytest

import bitops as bo
from bitops.layers import (
    BatchNorm,
    BinaryDense,
    Dense,
    PackedDense,
    ReLU,
    Sequential,
    ShiftBatchNorm,
    Sign,
    fold,
)
from bitops.models import mlp
from bitops.quantizers import ApproxSign, DoReFaWeight, SwishSign, Ternary
from bitops.training import EBP, cross_entropy, hinge, squared_hinge
from trainings import assert_same

X = np.random.default_rng(0).standard_normal((4, 70)).astype(np.float32)
LABELS = [0, 1, 2, 0]
FAR, NEAR = (X.astype(np.float64) * scale for scale in (1e300, 1e-300))  # beyond float32
IMAGES = np.random.default_rng(1).standard_normal((1, 4, 4, 8))
FILTERS = np.ones((2, 3, 3, 8))
SCORES = np.array([[1000.0, -1000.0, 0.0]], np.float32)


def trained(**options):
    model = mlp(70, 16, 1, 3, seed=0)
    model.fit(X, LABELS, epochs=2, batch_size=2, verbose=0, **options)
    return model.outputs(X)


def frozen(scale):
    """A network whose normalisation has factors next to the ends of float32."""
    model = Sequential(BinaryDense(70, 8, seed=0), BatchNorm(8), Sign(), BinaryDense(8, 3, seed=1))
    model.layers[1].gamma.assign(np.full(8, scale, np.float32))
    packed = model.freeze()
    np.testing.assert_array_equal(packed(bo.pack(X)), model(bo.pack(X)))
    return packed(bo.pack(X))


CALLS = {
    "gemm: alpha": lambda: bo.gemm(X, X, alpha=1e300),
    "gemm: small alpha": lambda: bo.gemm(X, X, alpha=1e-300),
    "gemm: bias": lambda: bo.gemm(X, X, bias=np.full(4, -1e300)),
    "conv2d: k_map": lambda: bo.conv2d(IMAGES, FILTERS, k_map=np.full((1, 1, 1), 1e300)),
    "weight_gemm: large": lambda: bo.weight_gemm(FAR, X),
    "weight_gemm: small": lambda: bo.weight_gemm(NEAR, X),
    "weight_conv2d": lambda: bo.weight_conv2d(IMAGES * 1e300, FILTERS),
    "weight_conv2d: small": lambda: bo.weight_conv2d(IMAGES * 1e-42, FILTERS),
    "bitplane_gemm": lambda: bo.bitplane_gemm(np.ones((2, 70), np.uint8), X, alpha=1e300),
    "pack": lambda: bo.pack(FAR).words,
    "pack_above": lambda: bo.pack_above(X, 1e-300).words,
    "binarize_weights": lambda: bo.binarize_weights(FAR)[1],
    "binarize_weights: small": lambda: bo.binarize_weights(NEAR)[1],
    "k_map": lambda: bo.k_map(IMAGES * 1e-44, 3),
    "avg_pool2d": lambda: bo.avg_pool2d(IMAGES * 1e-44, 2),
    "avg_pool2d: large": lambda: bo.avg_pool2d(IMAGES * 1e300, 2),
    "global_avg_pool2d": lambda: bo.global_avg_pool2d(IMAGES * 1e-44),
    "BatchNorm": lambda: BatchNorm(70).forward(NEAR),
    "ShiftBatchNorm": lambda: ShiftBatchNorm(70).forward(NEAR),
    "Dense": lambda: Dense(70, 2, seed=0).forward(NEAR),
    "ReLU": lambda: ReLU().forward(FAR),
    "PackedDense": lambda: PackedDense(X, alpha=1e-300).forward(NEAR),
    "PackedDense: threshold": lambda: PackedDense(X, threshold=np.full(4, 1e300)).forward(X).words,
    "SwishSign": lambda: SwishSign().backward(X * 1e30, X),
    "ApproxSign": lambda: ApproxSign().backward(FAR, X),
    "DoReFaWeight": lambda: DoReFaWeight(2).forward(FAR / 1e280),
    "Ternary": lambda: Ternary().forward(NEAR),
    "cross_entropy": lambda: cross_entropy(SCORES, [0])[1],
    "cross_entropy: small chance": lambda: cross_entropy([[90.0, 0.0]], [0])[1],
    "hinge": lambda: hinge(SCORES * np.float32(1e30), [1])[1],
    "squared_hinge": lambda: squared_hinge(SCORES, [1])[1],
    "predict": lambda: mlp(70, 16, 1, 3, seed=0).predict(NEAR),
    "freeze: large": lambda: frozen(1e30),
    "freeze: small": lambda: frozen(1e-44),
    "fold": lambda: fold(lambda z: (z - 3) * np.float32(1e-44), 5, 70)[0],
    "fold: reals": lambda: fold(lambda z: (z - 3) * np.float32(1e38), 5)[0],
    "fit": trained,
    "fit: cross_entropy, sgd": lambda: trained(loss="cross_entropy", optimizer="sgd"),
    "fit: adamax": lambda: trained(optimizer="adamax"),
    "fit: small": lambda: trained(loss=lambda s, y: (0.0, np.full_like(s, 1e-44))),
    "EBP": lambda: EBP([70, 5, 3], seed=0).fit(X * 100, LABELS, epochs=2, verbose=0).best.loss,
}


@pytest.mark.parametrize("name", CALLS)
def test_errstate_changes_nothing(name):
    with np.errstate(all="ignore"):
        expected = CALLS[name]()
    with np.errstate(all="raise"):
        np.testing.assert_array_equal(CALLS[name](), expected)
    with np.errstate(all="warn"), warnings.catch_warnings():
        warnings.simplefilter("error")
        np.testing.assert_array_equal(CALLS[name](), expected)


def test_the_callers_errstate_is_there_again():
    with np.errstate(all="raise"):
        trained()
        bo.gemm(X, X, alpha=1e300)
        assert set(np.geterr().values()) == {"raise"}


def test_training_is_the_same_under_any_errstate():
    models = [mlp(70, 16, 1, 3, seed=0) for _ in range(2)]
    for model, mode in zip(models, ("ignore", "raise"), strict=True):
        with np.errstate(all=mode):
            model.fit(X, LABELS, epochs=3, batch_size=2, verbose=0, loss="cross_entropy")
    assert_same(*models)
