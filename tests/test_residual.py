"""Residual blocks, and the sums of their packed twins."""

import numpy as np

from bitops.layers import (
    AvgPool2D,
    BatchNorm,
    BinaryDense,
    Conv2D,
    Dense,
    Packed,
    PackedDense,
    PackedResidual,
    PackedSign,
    ReLU,
    Residual,
    Sequential,
    Sign,
)
from bitops.ops.array import pack, unpack
from helpers import assert_gradients, assert_state_goes_back, real_images


def test_residual_gradients_match_finite_differences():
    rng = np.random.default_rng(15)
    body = Sequential(Dense(5, 7, seed=0), ReLU(), Dense(7, 5, seed=1))
    x = real_images(rng, 3, 5)
    assert_gradients(Residual(body), x, rng, atol=5e-3)
    shortcut = Sequential(AvgPool2D(2), Conv2D(4, 6, 1, seed=0))
    layer = Residual(Conv2D(4, 6, 3, stride=2, padding=1, seed=1), shortcut)
    assert_gradients(layer, real_images(rng, 2, 4, 4, 4), rng, atol=5e-3)
    assert len(layer.parameters()) == 4


def test_residual_adds_bits_as_signs():
    rng = np.random.default_rng(16)
    x = pack(rng.normal(size=(3, 70)))
    body = BinaryDense(70, 70, seed=0)
    y = Residual(body).forward(x, training=True)
    assert y.dtype == np.float32
    np.testing.assert_array_equal(y, body(x) + unpack(x))
    np.testing.assert_array_equal(Residual(Sign(), Sign())(unpack(x)), 2 * unpack(x))


def test_residual_state_goes_back():
    rng = np.random.default_rng(17)
    layer = Residual(Sequential(BinaryDense(9, 9, seed=0), BatchNorm(9)), BatchNorm(9))
    x = rng.normal(size=(12, 9))
    assert_state_goes_back(layer, x, rng)


def test_sums_of_packed_branches():
    """float32, like those of the training graph."""
    rng = np.random.default_rng(18)
    w = rng.choice([-1, 1], size=(70, 70))
    x = rng.choice([-1, 1], size=(4, 70))
    dot = x @ w.T
    sums = PackedResidual(PackedDense(w))(pack(x))
    np.testing.assert_array_equal(sums, (dot + x).astype(np.float32), strict=True)
    mixed = PackedResidual(PackedDense(w), PackedDense(w, alpha=np.full(70, 0.5)))(pack(x))
    np.testing.assert_array_equal(mixed, (dot * 1.5).astype(np.float32), strict=True)
    image = rng.integers(256, size=(4, 70), dtype=np.uint8)
    sums = PackedResidual(PackedDense(w))(image)
    wanted = (image.astype(int) @ w.T + image).astype(np.float32)
    np.testing.assert_array_equal(sums, wanted, strict=True)
    chained = Packed(PackedResidual(PackedDense(w)), PackedResidual(PackedSign(), PackedSign()))
    assert chained(pack(x)).dtype == np.float32
    assert PackedResidual(PackedSign())(x / 2).dtype == np.float32
