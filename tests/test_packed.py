"""Packed models made by hand, without training."""

import numpy as np
import pytest

from bitops.layers import (
    Packed,
    PackedBatchNorm,
    PackedConv2D,
    PackedDense,
    PackedMaxPool2D,
    PackedPlanesConv2D,
    PackedPlanesDense,
    PackedSign,
)
from bitops.ops.array import pack, unpack


def test_packed_by_hand_equals_numpy():
    rng = np.random.default_rng(5)
    w1, w2 = rng.choice([-1, 1], size=(33, 70)), rng.choice([-1, 1], size=(4, 33))
    threshold, flip = rng.integers(-8, 8, size=33), rng.random(33) < 0.5
    alpha, bias = rng.normal(size=(2, 4)).astype(np.float32)
    model = Packed([PackedDense(w1, threshold, flip), PackedDense(w2, alpha=alpha, bias=bias)])
    image = rng.integers(4, size=(9, 70), dtype=np.uint8)
    x = rng.choice([-1, 1], size=(9, 70))
    for given, values in ((pack(x), x), (image, image), (x.astype(np.float32), x)):
        hidden = np.where((values.astype(np.int64) @ w1.T > threshold) ^ flip, 1, -1)
        expected = (hidden @ w2.T).astype(np.float32) * alpha + bias
        np.testing.assert_array_equal(model(given), expected)
    assert model.in_features == 70 and model.out_features == 4


def test_packed_dense_without_thresholds_gives_integers():
    rng = np.random.default_rng(6)
    w = rng.normal(size=(5, 66))
    for given in (w, pack(w), w.tolist()):
        layer = PackedDense(given)
        x = rng.integers(256, size=(3, 66), dtype=np.uint8)
        expected = x.astype(int) @ np.where(w >= 0, 1, -1).T
        assert layer(x).dtype == np.int32
        np.testing.assert_array_equal(layer(x), expected)
        assert layer(pack(x > 99)).dtype == np.int32
        assert layer(x / 2).dtype == np.float32
        np.testing.assert_array_equal(layer(x / 2), expected / 2)


@pytest.mark.parametrize("t", [-3.5, -3.0, 0.0, 0.25, 2**40, -(2**40), np.inf, -np.inf])
def test_float_thresholds_compare_with_integers(t):
    w = np.eye(5) * 2 - 1
    x = pack(np.random.default_rng(7).normal(size=(30, 5)))
    dot = unpack(x).astype(int) @ w.T
    assert PackedDense(w, np.float32(t))(x) == pack(dot > t)
    if abs(t) == 2**40:  # beyond int32, clipped
        assert PackedDense(w, int(t))(x) == pack(dot > t)


def test_packed_sign_and_batch_norm_by_hand():
    x = np.array([[1, 2, 3], [-1, -2, -3]], dtype=np.float32)
    bits = PackedSign([0.5, 2.0, 5.0], [False, True, True])(x)
    np.testing.assert_array_equal(unpack(bits), [[1, 1, 1], [-1, 1, 1]])
    np.testing.assert_array_equal(unpack(PackedSign()(x)), [[1, 1, 1], [-1, -1, -1]])
    y = PackedBatchNorm([1, 2, 0.5], [0, 0, 1])(pack(x))
    np.testing.assert_array_equal(y, [[1, 2, 1.5], [-1, -2, 0.5]])


def test_layers_keep_copies_of_what_they_are_given():
    threshold, flip = np.zeros(3, np.int32), np.array([True, False, True])
    layer = PackedDense(np.ones((3, 4)), threshold, flip)
    flip[...] = False
    threshold[...] = 99
    assert layer.flip.tolist() == [True, False, True]
    assert layer.threshold.tolist() == [0, 0, 0]


W = np.ones((3, 4))


@pytest.mark.parametrize(
    ("make", "error"),
    [
        (lambda: PackedDense(np.ones(4)), ValueError),
        (lambda: PackedDense(np.ones((2, 3, 4))), ValueError),
        (lambda: PackedDense(np.ones((0, 4))), ValueError),
        (lambda: PackedDense(np.ones((4, 0))), ValueError),
        (lambda: PackedDense(np.full((3, 4), np.nan)), ValueError),
        (lambda: PackedDense(np.ones((3, 4), complex)), TypeError),
        (lambda: PackedDense(pack(np.ones((64, 64)), axis=0)), ValueError),
        (lambda: PackedDense(W, [1, 2]), ValueError),
        (lambda: PackedDense(W, [[1, 2, 3]]), ValueError),
        (lambda: PackedDense(W, [1, 2, np.nan]), ValueError),
        (lambda: PackedDense(W, ["a", "b", "c"]), TypeError),
        (lambda: PackedDense(W, [1, 2, 3], [0, 1, 0]), TypeError),
        (lambda: PackedDense(W, [1, 2, 3], [True, False]), ValueError),
        (lambda: PackedDense(W, flip=[True, False, True]), ValueError),
        (lambda: PackedDense(W, 0, alpha=1.0), ValueError),
        (lambda: PackedDense(W, 0, bias=1.0), ValueError),
        (lambda: PackedDense(W, alpha=[1.0, 2.0]), ValueError),
        (lambda: PackedDense(W, bias=[1j, 2, 3]), TypeError),
        (lambda: PackedSign(flip=[True]), ValueError),
        (lambda: PackedSign(threshold=1), ValueError),
        (lambda: PackedBatchNorm([1.0], None), ValueError),
        (lambda: PackedBatchNorm([1.0], [1.0, 2.0]), ValueError),
        (lambda: PackedBatchNorm(1.0, 2.0), ValueError),
        (lambda: Packed([PackedDense(W), PackedDense(np.ones((2, 4)))]), ValueError),
    ],
)
def test_bad_packed_layers(make, error):
    with pytest.raises(error, match=r"^\[\w+\] "):
        make()


def test_packed_conv_net_by_hand_equals_numpy():
    rng = np.random.default_rng(8)
    w1, w2 = rng.choice([-1, 1], size=(33, 3, 3, 70)), rng.choice([-1, 1], size=(4, 132))
    threshold, minimum = rng.integers(-20, 20, size=33), rng.random(33) < 0.5
    x = rng.choice([-1, 1], size=(5, 6, 6, 70))
    model = Packed(
        PackedConv2D(w1, threshold), PackedMaxPool2D(2, minimum=minimum),
        PackedConv2D(w2.reshape(4, 2, 2, 33)),
    )  # fmt: skip
    windows = np.lib.stride_tricks.sliding_window_view(x, (3, 3), axis=(1, 2))
    bits = np.einsum("nyxcij,oijc->nyxo", windows, w1) > threshold
    pooled = bits.reshape(5, 2, 2, 2, 2, 33)
    pooled = np.where(minimum, pooled.all(axis=(2, 4)), pooled.any(axis=(2, 4)))
    expected = np.where(pooled, 1, -1).reshape(5, -1) @ w2.T
    np.testing.assert_array_equal(model(pack(x)).reshape(5, 4), expected)


ZEROS_AND_ONES = np.arange(2 * 3 * 3 * 4).reshape(2, 3, 3, 4) % 2


@pytest.mark.parametrize(
    "make",
    [
        lambda w: PackedDense(w[0, 0]),
        lambda w: PackedConv2D(w),
        lambda w: PackedPlanesDense(w[0], (1, 1, 1)),
        lambda w: PackedPlanesConv2D(w[:, None], (1, 1)),
    ],
)
def test_integers_other_than_signs_are_refused_as_weights(make):
    """As signs all of 0 and 1 would be +1."""
    for w in (ZEROS_AND_ONES, 2 * ZEROS_AND_ONES - 3, np.full((2, 3, 3, 4), -128, np.int8)):
        with pytest.raises(ValueError, match=r"w must hold -1 and \+1 .* \(bits are bool\), got "):
            make(w)
    signs = 2 * ZEROS_AND_ONES - 1
    assert make(signs).weight == make(ZEROS_AND_ONES == 1).weight
    assert make(signs).weight == make(signs * 0.5).weight
    assert make(signs).weight == make(signs.astype(np.int8)).weight
