"""binarize_weights and k_map against their definitions."""

import itertools

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import bitops as bo
from bitops import _core
from bitops import reference as ref
from conftest import random_signs


@pytest.mark.parametrize("shape", ((1, 1), (4, 3), (10, 65), (64, 3, 3, 70), (2, 5, 128), (0, 7)))
@pytest.mark.parametrize("dtype", (np.float16, np.float32, np.float64))
def test_equals_reference(isa, rng, shape, dtype):
    w = rng.standard_normal(shape).astype(dtype)
    before = w.tobytes()
    bits, alpha = bo.binarize_weights(w)
    values, scale = ref.binarize_weights(w)
    assert isinstance(bits, bo.BitArray)
    assert (bits.shape, bits.axis) == (shape, len(shape) - 1)
    assert_array_equal(np.asarray(bits), values)
    assert alpha.dtype == np.float32
    assert_allclose(alpha, scale, rtol=3e-7, strict=True)
    assert w.tobytes() == before


def test_alpha_has_the_bits_of_the_reference(threads, rng):
    """Float64 sums in the order of np.sum, around its blocks of 8 and 128 elements."""
    for k in (1, 7, 8, 9, 15, 16, 127, 128, 129, 135, 136, 137, 255, 257, 1000, 1025, 4608, 20000):
        w = (rng.standard_normal((40, k)) * 2.0 ** rng.integers(-60, 60, (40, k))).astype(
            np.float32
        )
        sums = np.empty(40)
        _core.sum_magnitude(w, sums)
        assert_array_equal(sums, np.abs(w.astype(np.float64)).sum(axis=1))
        assert_array_equal(bo.binarize_weights(w)[1], ref.binarize_weights(w)[1])
    w = rng.standard_normal((64, 3, 3, 70)).astype(np.float32)
    assert_array_equal(bo.binarize_weights(w)[1], ref.binarize_weights(w)[1])


def test_exact_values():
    w = np.array([[1.0, -2.0, 0.0, 5.0], [-0.5, -0.5, -0.5, -0.5], [0.0, -0.0, 0.0, 0.0]])
    bits, alpha = bo.binarize_weights(w)
    assert np.asarray(bits).tolist() == [[1, -1, 1, 1], [-1] * 4, [1] * 4]
    assert alpha.tolist() == [2.0, 0.5, 0.0]


def test_integers_and_layouts(rng):
    w = rng.integers(-9, 10, (6, 5, 66))
    for view in (w, np.asfortranarray(w), w[::-1, ::2], w.transpose(1, 2, 0), w.tolist()):
        bits, alpha = bo.binarize_weights(view)
        values, scale = ref.binarize_weights(view)
        assert_array_equal(np.asarray(bits), values)
        assert_allclose(alpha, scale, rtol=3e-7)


def test_many_weights_lose_nothing(rng):
    """A running float32 sum of 2**21 weights would be off in the third digit."""
    w = np.full((2, 2**21), 0.1, np.float32)
    w[1] *= rng.choice([-1, 1], 2**21)
    assert_allclose(bo.binarize_weights(w)[1], np.float32([0.1, 0.1]), rtol=3e-7)


def test_large_and_small_weights():
    """The mean of huge or tiny weights neither overflows nor vanishes."""
    for value in (3e38, 1e-38):
        alpha = bo.binarize_weights(np.full((1, 64), value, np.float32))[1]
        assert_allclose(alpha, [value], rtol=3e-7)


def test_best_approximation(isa, rng):
    """alpha * sign(w) is nearer to w than with any other scale."""
    w = rng.standard_normal((5, 100))
    bits, alpha = bo.binarize_weights(w)
    error = [((w - f * alpha[:, None] * np.asarray(bits)) ** 2).sum(1) for f in (0.99, 1, 1.01)]
    assert (error[1] < error[0]).all() and (error[1] < error[2]).all()


def test_in_a_product(isa, rng):
    a, w = random_signs(rng, 6, 70), rng.standard_normal((9, 70)).astype(np.float32)
    bits, alpha = bo.binarize_weights(w)
    want = ref.gemm(a, w, alpha=alpha)
    assert_array_equal(bo.gemm(a, bits, alpha=alpha), want, strict=True)


@pytest.mark.parametrize("where", ((0, 0), (4, 69)))
def test_nan(where):
    w = np.ones((5, 70))
    w[where] = np.nan
    with pytest.raises(ValueError, match=r"^\[\w+\] .*NaN"):
        bo.binarize_weights(w)


# ---- k_map ---------------------------------------------------------------------------------------

WINDOWS = [
    {"kernel_size": kernel, "stride": stride, "padding": padding, "dilation": dilation}
    for kernel, stride, padding, dilation in itertools.product(
        (1, 2, 3, (3, 2)), (1, 2, (3, 1)), (0, 1, ((0, 2), (3, 0)), "same"), (1, 2)
    )
]


def assert_same_bits(got, want):
    """Equal float32 arrays, the signs of zeros included."""
    assert got.dtype == want.dtype == np.float32
    assert_array_equal(got.view(np.int32), want.view(np.int32), strict=True)


@pytest.mark.parametrize(
    "channels", (0, 1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 32, 33, 64, 65, 130)
)
def test_k_map_equals_reference(rng, channels):
    """Bit for bit, with summands of many magnitudes."""
    shape = (2, 6, 7, channels)
    x = (rng.standard_normal(shape) * 10.0 ** rng.uniform(-4, 4, shape)).astype(np.float32)
    before = x.copy()
    for settings in WINDOWS:
        assert_same_bits(bo.k_map(x, **settings), ref.k_map(x, **settings))
    assert_array_equal(x, before)


def test_k_map_of_many_blocks(rng):
    for shape in ((3, 70, 71, 40), (1, 2, 3, 400_000)):
        x = rng.standard_normal(shape).astype(np.float32)
        assert_same_bits(bo.k_map(x, (1, 3)), ref.k_map(x, (1, 3)))


@pytest.mark.parametrize("dtype", "bhilqBHILQefdg")
def test_k_map_dtypes(rng, dtype):
    x = (rng.standard_normal((2, 4, 5, 6)) * 50).astype(np.int64).astype(dtype)
    assert_same_bits(bo.k_map(x, 3), ref.k_map(x, 3))


def test_k_map_of_the_least_integer():
    """The absolute value is taken of the float: that of an int8 would overflow."""
    assert bo.k_map(np.full((1, 1, 1, 3), -128, np.int8), 1).item() == 128


def test_k_map_layouts(rng):
    x = rng.standard_normal((3, 6, 7, 20)).astype(np.float32)
    frozen = x.copy()
    frozen.flags.writeable = False
    for view in (
        x[..., 1:18],
        x[::-1, :, ::2],
        x.transpose(0, 2, 1, 3),
        np.asfortranarray(x),
        x.astype(">f4"),
        frozen,
        x.tolist(),
    ):
        want = ref.k_map(np.ascontiguousarray(view, np.float32), 3, padding=1)
        assert_same_bits(bo.k_map(view, 3, padding=1), want)


def test_k_map_by_hand():
    # A = 3, 6, 9; zeros outside, and the divisor is 2 everywhere.
    x = [[[[2, -4], [-6, 6], [0, 18]]]]
    assert bo.k_map(x, 1).tolist() == [[[3, 6, 9]]]
    assert bo.k_map(x, (1, 2), padding=((0, 0), (0, 1))).tolist() == [[[4.5, 7.5, 4.5]]]
    assert bo.k_map(x, (1, 2), dilation=2).tolist() == [[[6]]]
    assert bo.k_map(x, 1, stride=2).tolist() == [[[3, 9]]]


def test_k_map_infinities_and_nan():
    x = np.ones((1, 1, 5, 2), np.float32)
    x[0, 0, 1, 0] = -np.inf
    x[0, 0, 3, 1] = np.nan
    assert_array_equal(bo.k_map(x, 1), np.float32([[[1, np.inf, 1, np.nan, 1]]]))
    huge = np.full((1, 1, 1, 2), 3e38)
    assert bo.k_map(huge, 1).item() == np.inf  # the sum overflows, without a warning


@pytest.mark.parametrize("shape", ((0, 4, 5, 6), (2, 0, 5, 6), (2, 4, 5, 0)))
def test_k_map_empty(shape):
    got = bo.k_map(np.ones(shape), 3, padding=2)
    assert_same_bits(got, np.zeros((shape[0], shape[1] + 2, 7), np.float32))


@pytest.mark.parametrize("pad_value", (-1, 0, 1))
def test_k_map_in_a_convolution(isa, rng, pad_value):
    """XNOR-Net's approximation: nearer to the convolution than with one K for all positions."""
    x = rng.standard_normal((2, 8, 8, 64)) * rng.uniform(0.1, 2, (2, 8, 8, 1))
    w = rng.standard_normal((16, 3, 3, 64))
    bits, alpha = bo.binarize_weights(w)
    k = bo.k_map(x, 3, padding=1)
    got = bo.conv2d(x, bits, padding=1, pad_value=pad_value, alpha=alpha, k_map=k)
    want = ref.conv2d(x, w, padding=1, pad_value=pad_value, alpha=alpha, k_map=k)
    assert_array_equal(got, want, strict=True)
    if pad_value == 0:
        exact = sum(
            np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))[:, i : i + 8, j : j + 8] @ w[:, i, j].T
            for i, j in itertools.product(range(3), range(3))
        )
        flat = bo.conv2d(x, bits, padding=1, alpha=alpha, k_map=k.mean())
        assert ((got - exact) ** 2).sum() < ((flat - exact) ** 2).sum()


X = np.ones((2, 4, 5, 3))


@pytest.mark.parametrize(
    "x, settings, error, rule",
    (
        (X[0], {}, ValueError, r"x .*\(n, h, w, c\), got \(4, 5, 3\)"),
        (bo.pack(X), {}, TypeError, "x .*BitArray"),
        (X > 0, {}, TypeError, "x .*bool"),
        (X * 1j, {}, TypeError, "x .*complex"),
        ("abc", {}, TypeError, "x .*<U3"),
        (X, {"kernel_size": 5}, ValueError, "height 5 .* in 4"),
        (X, {"kernel_size": 3, "dilation": 2}, ValueError, "height 5 .* in 4"),
        (X, {"kernel_size": 0}, ValueError, "kernel_size .*at least 1, got 0"),
        (X, {"kernel_size": 1.5}, TypeError, "kernel_size .*1.5"),
        (X, {"stride": 0}, ValueError, "stride .*at least 1, got 0"),
        (X, {"stride": -1}, ValueError, "stride .*at least 1, got -1"),
        (X, {"dilation": 0}, ValueError, "dilation .*at least 1, got 0"),
        (X, {"padding": -1}, ValueError, "padding .*at least 0, got -1"),
        (X, {"padding": "full"}, ValueError, "padding .*'full'"),
        (X, {"padding": 2**30 - 5}, ValueError, r"elements, got shape \(2, \d+, \d+\)"),
        (X, {"padding": 2**30}, ValueError, "padded height"),
    ),
)
def test_k_map_errors(x, settings, error, rule):
    settings = {"kernel_size": 2, **settings}
    with pytest.raises(error, match=rf"^\[k_map\] .*{rule}"):
        bo.k_map(x, **settings)
