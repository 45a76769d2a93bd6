"""PReLU, RPReLU, RSign and Scale in C against their equations in NumPy."""

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from bitops.layers import PReLU, RPReLU, RSign, Scale
from bitops.ops.normalize import column_totals
from bitops.ops.prelu import prelu_gradient, prelu_values
from helpers import assert_same_on_threads

SHAPES = pytest.mark.parametrize(
    "shape",
    [(2, 1), (0, 3), (5, 63), (513, 65), (3, 7, 100), (577, 3), (100, 1030), (2, 20, 16, 160)],
)


def numbers(*shape, seed=0):
    """Multiples of 1/8, so that some equal a shift."""
    rng = np.random.default_rng(seed)
    return (rng.integers(-24, 25, shape) / 8).astype(np.float32)


def real(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


@SHAPES
@pytest.mark.parametrize("shifted", [False, True])
def test_outputs(isa, shape, shifted):
    x = numbers(*shape)
    slope, shift, offset = (real(shape[-1], seed=seed) for seed in (1, 2, 3))
    shift = numbers(shape[-1], seed=2) if shifted else None
    z = x - shift if shifted else x
    y = np.maximum(z, 0) + slope * np.minimum(z, 0) + np.float32(0)
    assert_array_equal(prelu_values(x, slope, shift), y)
    assert_array_equal(prelu_values(x, slope, shift, offset), y + offset)


@SHAPES
def test_gradients(isa, shape):
    x, dy = numbers(*shape), real(*shape, seed=5)
    shift, slope = numbers(shape[-1], seed=2), real(shape[-1], seed=1)
    z = x - shift
    dx, sums = prelu_gradient(x, dy, shift, slope)
    assert_array_equal(dx, np.where(z < 0, dy * slope, dy))
    parts = dx, np.where(z < 0, dy * z, np.float32(0)), dy
    assert_array_equal(sums, [column_totals(part) for part in parts])

    dx, sums = prelu_gradient(x, dy, shift)
    assert_array_equal(dx, dy * (np.maximum(0, 1 - np.abs(z)) * 2))
    assert_array_equal(sums, [column_totals(dx)])


def disturbed(layer):
    for seed, parameter in enumerate(layer.parameters()):
        parameter.assign(real(*parameter.shape, seed=seed))
    return layer


@pytest.mark.parametrize("kind", [PReLU, RPReLU, RSign, Scale])
def test_views_are_read_as_they_are(kind):
    wide, grads = real(40, 6, 130), real(40, 6, 130, seed=1)
    part = (slice(None, None, 3), slice(1, 5), slice(None, None, 2))
    one, other = disturbed(kind(65)), disturbed(kind(65))
    for layer, x, dy in (
        (one, wide[part], grads[part]),
        (other, wide[part].copy(), grads[part].copy()),
    ):
        layer.y, layer.dx = layer.forward(x, training=True), layer.backward(dy)
    assert_array_equal(np.asarray(one.y), np.asarray(other.y))
    assert_array_equal(one.dx, other.dx)
    for mine, its in zip(one.parameters(), other.parameters(), strict=True):
        assert_array_equal(mine.grad, its.grad)


@pytest.mark.parametrize("kind", [PReLU, RPReLU, RSign, Scale])
def test_no_rows(kind):
    layer = disturbed(kind(3))
    layer.forward(np.zeros((0, 3), np.float32), training=True)
    assert layer.backward(np.zeros((0, 3), np.float32)).shape == (0, 3)
    for parameter in layer.parameters():
        assert_array_equal(parameter.grad, 0)


@pytest.mark.parametrize("threads", [2, 3])
@pytest.mark.parametrize("shape", [(4000, 70), (512, 3000)])
def test_threads_change_no_bit(shape, threads):
    x, dy = real(*shape), real(*shape, seed=1)
    arrays = [real(shape[-1], seed=seed) for seed in (2, 3, 4)]

    def results():
        return [
            prelu_values(x, *arrays),
            *prelu_gradient(x, dy, *arrays[:2]),
            *prelu_gradient(x, dy, arrays[0]),
        ]

    assert_same_on_threads(results, threads)


def test_sums_that_overflow_float32_or_are_not_finite():
    rows = np.arange(3000)[:, np.newaxis]
    x = np.full((3000, 2), -1, np.float32)
    dy = np.repeat(np.where(rows < 1500, 3e38, -3e38), 2, axis=1).astype(np.float32)
    for layer in (PReLU(2), RPReLU(2), Scale(2), RSign(2)):
        layer.forward(x / 2 if isinstance(layer, RSign) else x, training=True)
        layer.backward(dy)
        for parameter in layer.parameters():
            assert_array_equal(parameter.grad, 0)
    dy = np.ones((3000, 2), np.float32)
    dy[0, 1] = np.inf
    layer = RPReLU(2, 0.5)
    layer.forward(x, training=True)
    layer.backward(dy)
    assert_array_equal(layer.offset.grad, [3000, np.inf])
    assert_array_equal(layer.slope.grad, [-3000, -np.inf])
    assert_array_equal(layer.shift.grad, [-1500, -np.inf])


def test_nan_and_infinity_stay_where_they_are(isa):
    x = np.float32([[np.nan, np.inf, -np.inf, 0, -1, 1, -0.0, 2, -2]])
    dy = np.float32([[1, 1, 1, np.inf, np.inf, np.nan, np.inf, 1, 1]])
    layer = PReLU(9, 0.5)
    y = layer.forward(x, training=True)
    assert_array_equal(y, [[np.nan, np.inf, -np.inf, 0, -0.5, 1, 0, 2, -1]])
    assert_array_equal(np.signbit(y[0, [3, 6]]), False)
    dx = layer.backward(dy)
    assert_array_equal(dx, [[1, 1, 0.5, np.inf, np.inf, np.nan, np.inf, 1, 0.5]])
    assert_array_equal(layer.slope.grad, [0, 0, -np.inf, 0, -np.inf, 0, 0, 0, -2])
