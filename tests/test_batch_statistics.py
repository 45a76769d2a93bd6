"""Batch statistics and column sums where they are easily lost: one row, many rows, huge numbers."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from bitops.layers import (
    BatchNorm,
    BinaryConv2D,
    BinaryDense,
    Conv2D,
    Dense,
    Flatten,
    GlobalAvgPool2D,
    Residual,
    Sequential,
    ShiftBatchNorm,
    Sign,
    column_sums,
)
from bitops.layers.columns import column_means
from bitops.quantizers import ap2

# Rows that are summed in float32 one after the other, and blocks of more rows.
FEW, BLOCK = 512, 64

NORMS = pytest.mark.parametrize("norm", [BatchNorm, ShiftBatchNorm])

# one row


@NORMS
@pytest.mark.parametrize("shape", [(1, 3), (1, 1, 3), (1, 1, 1, 3), (0, 3), (4, 0, 3)])
def test_training_on_one_row_is_refused(norm, shape):
    layer = norm(3)
    with pytest.raises(
        ValueError, match=rf"\[{norm.__name__}\] x .* at least two rows in training"
    ):
        layer.forward(np.ones(shape, np.float32), training=True)
    assert layer.batches_seen == 0
    assert_array_equal(layer.running_inv_std, 1)
    assert layer.forward(np.ones(shape, np.float32)).shape == shape


@NORMS
@pytest.mark.parametrize("shape", [(2, 3), (1, 2, 3), (1, 1, 2, 3), (1, 2, 1, 3)])
def test_training_on_two_rows_learns(norm, shape):
    x = np.arange(6, dtype=np.float32).reshape(shape)
    layer = norm(3)
    y = layer.forward(x, training=True).reshape(2, 3)
    assert (y[0] < 0).all()
    assert (y[1] > 0).all()


def dense_net(norm):
    return Sequential(BinaryDense(4, 3, seed=0), norm(3), Sign(), BinaryDense(3, 2, seed=1))


def conv_net(norm):
    return Sequential(
        Conv2D(2, 3, 4, seed=0), norm(3), Sign(), BinaryConv2D(3, 2, 1, seed=1), Flatten()
    )


def pooled_net(norm):
    return Sequential(Conv2D(2, 3, 3, seed=0), GlobalAvgPool2D(), norm(3), Dense(3, 2, seed=1))


def block_net(norm):
    return Sequential(
        Dense(4, 3, seed=0), Residual(Sequential(BinaryDense(3, 3, seed=1), norm(3))), Dense(3, 2)
    )


@NORMS
@pytest.mark.parametrize(
    ("make", "shape"),
    [(dense_net, (4,)), (conv_net, (4, 4, 2)), (pooled_net, (6, 5, 2)), (block_net, (4,))],
)
@pytest.mark.parametrize(("n", "batch_size"), [(6, 1), (1, 100)])
def test_fit_on_one_row_is_refused_before_any_work(norm, make, shape, n, batch_size):
    model = make(norm)
    before = [np.copy(parameter.value) for parameter in model.parameters()]
    x = np.random.default_rng(0).standard_normal((n, *shape)).astype(np.float32)
    with pytest.raises(ValueError, match=rf"\[fit\] batch_size .* two rows .*{norm.__name__}"):
        model.fit(x, np.arange(n) % 2, epochs=1, batch_size=batch_size, verbose=0)
    for parameter, value in zip(model.parameters(), before, strict=True):
        assert_array_equal(parameter.value, value)


@NORMS
def test_fit_on_one_image_of_several_positions(norm):
    model = conv_net(norm)
    x = np.random.default_rng(0).standard_normal((6, 4, 5, 2)).astype(np.float32)
    wide = Sequential(*model.layers, Dense(4, 2, seed=2))
    wide.fit(x, np.arange(6) % 2, epochs=1, batch_size=1, verbose=0)
    # an augmentation may change the size; the layer itself refuses what is left
    with pytest.raises(ValueError, match=rf"\[{norm.__name__}\] x .* at least two rows"):
        wide.fit(
            x, np.arange(6) % 2, epochs=1, batch_size=1, verbose=0, augment=lambda x, _: x[:, :, :4]
        )


# many rows


def few_digits(n, features):
    """Numbers whose float32 sums drift: positive, and a constant that is no power of two."""
    x = np.abs(np.random.default_rng(n).standard_normal((n, features), np.float32))
    x[:, 0] = 0.1
    return x


@pytest.mark.parametrize("n", [FEW + 1, FEW + BLOCK, 100_000, 1_000_003])
@pytest.mark.parametrize("features", [1, 3])
def test_column_sums_of_many_rows(n, features):
    x = few_digits(n, features)
    exact = x.sum(axis=0, dtype=np.float64)
    assert_allclose(column_sums(x), exact, rtol=1e-6)
    assert_allclose(column_sums(-x), -exact, rtol=1e-6)
    assert_allclose(column_means(x), exact / n, rtol=1e-6)


@pytest.mark.parametrize("n", [0, 1, 2, BLOCK, FEW])
def test_column_sums_of_few_rows_are_those_of_numpy(n):
    x = few_digits(n, 5)
    assert_array_equal(column_sums(x), np.sum(x, axis=0))
    assert column_sums(x).dtype == np.float64


def test_column_sums_in_any_layout():
    x = few_digits(3000, 6)
    expected = x.sum(axis=0, dtype=np.float64)
    turned = x.reshape(30, 10, 10, 6).transpose(0, 3, 1, 2).copy().transpose(0, 2, 3, 1)
    for same in (np.asfortranarray(x), np.repeat(x, 2, 0)[::2], x.reshape(30, 10, 10, 6), turned):
        assert_allclose(column_sums(same), expected, rtol=1e-6)


def test_column_sums_beyond_float32_and_of_what_is_not_finite():
    x = np.full((3000, 3), 3e38, np.float32)
    x[1500:] *= -1
    x[:, 2] = 1
    assert_allclose(column_sums(x), [0, 0, 3000])
    x[0] = np.inf, np.nan, 1
    assert_array_equal(column_sums(x), [np.inf, np.nan, 3000])


@NORMS
def test_statistics_of_many_rows(norm):
    n = 2**20 + 5
    x = few_digits(n, 3)
    layer = norm(3, momentum=1.0)
    y = layer.forward(x, training=True)
    exact = x.astype(np.float64)
    c = exact - exact.mean(axis=0)
    power = c if norm is BatchNorm else ap2(x - layer.running_mean)
    variance = (c * power).mean(axis=0) + layer.eps
    assert_allclose(layer.running_mean, exact.mean(axis=0), rtol=1e-6)
    assert_allclose(layer.running_inv_std, 1 / np.sqrt(variance), rtol=1e-5)
    dy = np.abs(y) + np.float32(0.1)
    layer.backward(dy)
    assert_allclose(layer.beta.grad, dy.sum(axis=0, dtype=np.float64), rtol=1e-6)
    xhat = layer.batch.xhat() if norm is BatchNorm else ap2(layer.batch.xhat())
    sizes = np.abs(dy * xhat).sum(axis=0, dtype=np.float64)
    error = layer.gamma.grad - (dy.astype(np.float64) * xhat).sum(axis=0)
    assert (np.abs(error) <= 1e-6 * sizes).all()


@pytest.mark.parametrize("kind", [Dense, BinaryDense])
def test_bias_gradients_of_many_rows(kind):
    n = 2**18 + 3
    layer = kind(1, 2, bias=True, seed=0)
    layer.forward(np.ones((n, 1), np.float32), training=True)
    dy = np.full((n, 2), 0.1, np.float32)
    layer.backward(dy)
    assert_allclose(layer.bias.grad, dy.sum(axis=0, dtype=np.float64), rtol=1e-6)


@pytest.mark.parametrize("kind", [Conv2D, BinaryConv2D])
def test_bias_gradients_of_many_positions(kind):
    layer = kind(1, 2, 1, bias=True, seed=0)
    layer.forward(np.ones((5, 300, 100, 1), np.float32), training=True)
    dy = np.full((5, 300, 100, 2), 0.1, np.float32)
    layer.backward(dy)
    assert_allclose(layer.bias.grad, dy.sum(axis=(0, 1, 2), dtype=np.float64), rtol=1e-6)


# huge numbers


@NORMS
@pytest.mark.parametrize("size", [1e18, 1e19, 1e30, 3e37])
@pytest.mark.filterwarnings("error")
def test_statistics_of_huge_numbers(norm, size):
    """Squares are beyond float32; those of another feature are not concerned."""
    z = np.random.default_rng(0).standard_normal((600, 3)).astype(np.float32)
    x = z * np.float32(size)
    x[:, 0] = z[:, 0]
    layer = norm(3, momentum=1.0)
    y = layer.forward(x, training=True)
    assert_allclose(y[:, 0], norm(3).forward(z, training=True)[:, 0], rtol=1e-5)
    exact = x.astype(np.float64)
    c = exact - exact.mean(axis=0)
    power = c if norm is BatchNorm else ap2(x - layer.running_mean)
    inv_std = 1 / np.sqrt((c * power).mean(axis=0) + layer.eps)
    assert_allclose(layer.running_inv_std, inv_std, rtol=1e-5)
    assert_allclose(y, c * (inv_std if norm is BatchNorm else ap2(inv_std)), rtol=1e-3, atol=1e-4)
    assert_allclose(layer.forward(x), y, rtol=1e-3, atol=1e-4)
    dx = layer.backward(y)
    assert np.isfinite(dx).all()
    assert_array_equal(layer.gamma.grad > 100, True)  # sum of y * xhat


@NORMS
def test_differences_beyond_float32_are_refused(norm):
    x = np.full((4, 2), -3.2e38, np.float32)
    x[0] = 3.2e38, 1
    with pytest.raises(ValueError, match=rf"\[{norm.__name__}\] x must differ from its mean"):
        norm(2).forward(x, training=True)


def test_statistics_of_a_first_batch_replace_the_start_values():
    """1 + (s - 1) would keep few digits of a small s."""
    x = np.random.default_rng(0).standard_normal((50, 2)).astype(np.float32) * np.float32(1e6)
    layer = BatchNorm(2)
    layer.forward(x, training=True)
    assert_allclose(layer.running_inv_std, 1 / x.std(axis=0, dtype=np.float64), rtol=1e-6)
