"""Pooling against the reference, by hand, in every layout, and its errors."""

import itertools

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import bitops as bo
from bitops import reference as ref
from conftest import random_signs

SIZES = (1, 2, 3, (3, 2), (1, 4))
STRIDES = (None, 1, 2, (3, 1))
PADDINGS = (0, 1, ((0, 1), (1, 0)), "same", "valid")
SETTINGS = [
    {"kernel_size": size, "stride": stride, "padding": padding}
    for size, stride, padding in itertools.product(SIZES, STRIDES, PADDINGS)
]


def allowed(settings):
    """Whether no window can lie outside: padding by 1 needs windows larger than 1."""
    least = np.min(settings["kernel_size"])
    return settings["padding"] in (0, "same", "valid") or least > 1


ALLOWED = [settings for settings in SETTINGS if allowed(settings)]


def number_images(rng, dtype, *shape):
    if np.dtype(dtype).kind == "f":
        return rng.standard_normal(shape).astype(dtype)
    info = np.iinfo(dtype)
    return rng.integers(info.min, info.max, shape, dtype, endpoint=True)


class TestMaxPool2D:
    @pytest.mark.parametrize("settings", ALLOWED, ids=str)
    def test_bits(self, rng, settings):
        for image, channels in itertools.product(((4, 5), (7, 9)), (1, 3, 31, 64, 65, 130)):
            x = random_signs(rng, 2, *image, channels)
            bits = bo.pack(x)
            got = bo.max_pool2d(bits, **settings)
            assert isinstance(got, bo.BitArray)
            assert got.axis == 3
            assert_array_equal(np.asarray(got), ref.max_pool2d(x, **settings), strict=True)
            # from_words refuses padding bits that are set
            assert bo.BitArray.from_words(got.words, got.shape) == got
            assert not np.shares_memory(got.words, bits.words)
            assert bits == bo.pack(x)

    @pytest.mark.parametrize("settings", ALLOWED, ids=str)
    def test_numbers(self, rng, settings):
        for image, channels in itertools.product(((4, 5), (7, 9)), (1, 3, 33)):
            x = rng.standard_normal((3, *image, channels)).astype(np.float32)
            before = x.copy()
            got = bo.max_pool2d(x, **settings)
            assert_array_equal(got, ref.max_pool2d(x, **settings), strict=True)
            assert got.flags.c_contiguous
            assert not np.shares_memory(got, x)
            assert_array_equal(x, before)

    @pytest.mark.parametrize("dtype", "bhilqBHILQefdg")
    def test_dtypes(self, rng, dtype):
        x = number_images(rng, dtype, 2, 5, 6, 3)
        for padding in (0, 1):
            got = bo.max_pool2d(x, 3, stride=2, padding=padding)
            assert got.dtype == x.dtype
            assert_array_equal(got, ref.max_pool2d(x, 3, stride=2, padding=padding))

    @pytest.mark.parametrize("dtype", (np.int8, np.uint8, np.float32))
    def test_least_values_win_against_nothing(self, dtype):
        least = -np.inf if dtype == np.float32 else np.iinfo(dtype).min
        x = np.full((1, 2, 2, 1), least, dtype)
        assert (bo.max_pool2d(x, 2, stride=1, padding=1) == least).all()

    def test_nan_propagates(self):
        x = np.zeros((1, 4, 4, 1), np.float32)
        x[0, 1, 2] = np.nan
        assert np.isnan(bo.max_pool2d(x, 2)).ravel().tolist() == [False, True, False, False]
        assert np.isnan(bo.max_pool2d(x, 3, stride=3, padding=1)).sum() == 1

    def test_many_images_take_several_blocks(self, rng):
        x = rng.standard_normal((9, 32, 32, 33)).astype(np.float32)
        got = bo.max_pool2d(x, 3, stride=2, padding=1)
        assert_array_equal(got, ref.max_pool2d(x, 3, stride=2, padding=1))


class TestAvgPool2D:
    @pytest.mark.parametrize("settings", ALLOWED, ids=str)
    def test_equals_reference(self, rng, settings):
        for image, channels in itertools.product(((4, 5), (7, 9)), (1, 3, 33)):
            x = rng.standard_normal((3, *image, channels)).astype(np.float32)
            before = x.copy()
            got = bo.avg_pool2d(x, **settings)
            want = ref.avg_pool2d(x, **settings)
            assert_array_equal(got.view(np.int32), want.view(np.int32), strict=True)
            assert_array_equal(x, before)

    @pytest.mark.parametrize("dtype", "bhilqBHILQefdg")
    def test_dtypes(self, rng, dtype):
        x = number_images(rng, dtype, 2, 5, 6, 3)
        assert_array_equal(bo.avg_pool2d(x, 2), ref.avg_pool2d(x, 2), strict=True)

    def test_by_hand(self):
        x = np.array([[1, 2, 3], [4, 5, 6]]).reshape(1, 2, 3, 1)
        got = bo.avg_pool2d(x, 2, padding=((0, 0), (0, 1)))
        assert got.ravel().tolist() == [3, (3 + 6) / 4]  # outside counts as zeros

    def test_infinities_raise_no_warning(self):
        x = np.array([np.inf, -np.inf, np.inf, 1, 3e38, 3e38], np.float32).reshape(1, 1, 6, 1)
        got = bo.avg_pool2d(x, (1, 2)).ravel()
        assert_array_equal(got, np.float32([np.nan, np.inf, np.inf]))

    def test_many_images_take_several_blocks(self, rng):
        x = rng.standard_normal((9, 32, 32, 33)).astype(np.float32)
        assert_array_equal(bo.avg_pool2d(x, 2), ref.avg_pool2d(x, 2), strict=True)


class TestGlobalAvgPool2D:
    @pytest.mark.parametrize("dtype", "bhilqBHILQefdg")
    @pytest.mark.parametrize("shape", ((2, 3, 4, 5), (1, 1, 1, 1), (0, 3, 4, 5), (2, 7, 7, 130)))
    def test_equals_reference(self, rng, dtype, shape):
        x = number_images(rng, dtype, *shape)
        got = bo.global_avg_pool2d(x)
        assert got.shape == (shape[0], shape[3])
        assert_array_equal(got, ref.global_avg_pool2d(x), strict=True)

    def test_many_positions_lose_nothing(self):
        """A running float32 sum of 2**20 values would be off in the third digit."""
        x = np.full((1, 2**10, 2**10, 2), 0.1, np.float32)
        assert_array_equal(bo.global_avg_pool2d(x), np.float32([[0.1, 0.1]]))

    def test_infinities_raise_no_warning(self):
        x = np.array([[np.inf, 1e308], [-np.inf, 1e308]]).reshape(1, 2, 1, 2)
        assert_array_equal(bo.global_avg_pool2d(x), np.float32([[np.nan, np.inf]]))


POOLS = (
    lambda x: bo.max_pool2d(x, 2),
    lambda x: bo.max_pool2d(x, 3, stride=1, padding=1),
    lambda x: bo.max_pool2d(x, 1),
    lambda x: bo.avg_pool2d(x, (2, 3), stride=1, padding=1),
    bo.global_avg_pool2d,
)


@pytest.mark.parametrize("pool", POOLS)
def test_layouts(rng, pool):
    """Integers, for which no order of summation matters."""
    x = rng.integers(-9, 10, (3, 6, 7, 8))
    frozen = x.copy()
    frozen.flags.writeable = False
    for view in (
        x[..., 1:4],
        x[:, ::-1, ::2],
        x.transpose(0, 2, 1, 3),
        np.asfortranarray(x),
        x.astype(">i4"),
        frozen,
        x.tolist(),
    ):
        want = pool(np.ascontiguousarray(np.asarray(view), np.int64))
        got = pool(view)
        assert got.dtype.isnative
        assert_array_equal(got, want)


def test_layouts_of_words(rng):
    x = random_signs(rng, 3, 6, 7, 70)
    bits = bo.pack(x)
    for index in (np.s_[::-1], np.s_[:, ::2], np.s_[:, :, 1:6], np.s_[1:1]):
        got = bo.max_pool2d(bits[index], 2, stride=1)
        assert_array_equal(np.asarray(got), ref.max_pool2d(x[index], 2, stride=1))
    words = bits.words.copy()
    words.flags.writeable = False
    frozen = bo.BitArray.from_words(words, x.shape)
    assert bo.max_pool2d(frozen, 2) == bo.max_pool2d(bits, 2)


@pytest.mark.parametrize("pool", POOLS[:4])
@pytest.mark.parametrize("shape", ((0, 4, 5, 3), (2, 4, 5, 0)))
def test_empty(pool, shape):
    for dtype in (np.float32, np.int8):
        x = np.ones(shape, dtype)
        assert pool(x).shape == pool(np.ones((2, 4, 5, 3)))[: shape[0], ..., : shape[3]].shape


def test_and_is_or_of_the_inverse(rng):
    x = random_signs(rng, 2, 6, 6, 65)
    smallest = -np.asarray(bo.max_pool2d(bo.pack(-x), 2))
    assert_array_equal(smallest, -ref.max_pool2d(-x, 2))
    assert_array_equal(smallest, x.reshape(2, 3, 2, 3, 2, 65).min((2, 4)))


X = np.ones((2, 4, 5, 3), np.float32)


class TestErrors:
    @pytest.mark.parametrize("name", ("max_pool2d", "avg_pool2d"))
    @pytest.mark.parametrize(
        "x, settings, error, rule",
        (
            (X[0], {}, ValueError, r"x .*\(n, h, w, c\), got \(4, 5, 3\)"),
            (X > 0, {}, TypeError, "x .*bool"),
            (X * 1j, {}, TypeError, "x .*complex"),
            ("abc", {}, TypeError, "x .*<U3"),
            (X[:, :0], {}, ValueError, r"x .*positions.*\(2, 0, 5, 3\)"),
            (X[:, :0], {"kernel_size": 3, "padding": 2}, ValueError, r"x .*positions"),
            (X[:, :, :0], {"kernel_size": 1}, ValueError, r"x .*positions"),
            (X, {"kernel_size": 5}, ValueError, "height 5 .* in 4"),
            (X, {"kernel_size": (1, 6)}, ValueError, "width 6 .* in 5"),
            (X, {"kernel_size": 0}, ValueError, "at least 1, got 0"),
            (X, {"kernel_size": 2.0}, TypeError, "2.0"),
            (X, {"kernel_size": None}, TypeError, "None"),
            (X, {"stride": 0}, ValueError, "stride .*at least 1, got 0"),
            (X, {"stride": "2"}, TypeError, "stride .*'2'"),
            (X, {"padding": -1}, ValueError, "padding .*at least 0, got -1"),
            (X, {"padding": 2}, ValueError, "padding .*smaller.* 2 for height 2"),
            (X, {"kernel_size": 1, "padding": 1}, ValueError, "padding .*smaller.* 1 for height 1"),
            (X, {"padding": ((0, 0), (0, 3))}, ValueError, "padding .*smaller.* 3 for width 2"),
            (X, {"padding": "full"}, ValueError, "padding .*'full'"),
            (X, {"kernel_size": 2**30, "padding": 2**30 - 4, "stride": 1}, ValueError, "elements"),
        ),
    )
    def test_windows(self, name, x, settings, error, rule):
        settings = {"kernel_size": 2, **settings}
        with pytest.raises(error, match=rf"^\[{name}\] .*{rule}"):
            getattr(bo, name)(x, settings.pop("kernel_size"), **settings)

    @pytest.mark.parametrize(
        "call, error, rule",
        (
            (lambda: bo.max_pool2d(bo.pack(X, axis=2), 2), ValueError, "axis 2 .*4, 5, 3"),
            (lambda: bo.max_pool2d(bo.pack(X[0]), 2), ValueError, r"\(n, h, w, c\).*\(4, 5, 3\)"),
            (lambda: bo.max_pool2d(bo.pack(X), 2, padding=2), ValueError, "padding .*smaller"),
            (lambda: bo.max_pool2d(bo.pack(X), 5), ValueError, "height 5 .* in 4"),
            (lambda: bo.max_pool2d(bo.pack(X[:, :0]), 1), ValueError, "positions"),
            (lambda: bo.avg_pool2d(bo.pack(X), 2), TypeError, "x .*BitArray"),
            (lambda: bo.global_avg_pool2d(bo.pack(X)), TypeError, "x .*BitArray"),
            (lambda: bo.global_avg_pool2d(X[0]), ValueError, r"x .*\(4, 5, 3\)"),
            (lambda: bo.global_avg_pool2d(X > 0), TypeError, "x .*bool"),
            (lambda: bo.global_avg_pool2d(X * 1j), TypeError, "x .*complex"),
            (lambda: bo.global_avg_pool2d(X[:, :0]), ValueError, "x .*positions"),
        ),
    )
    def test_operands(self, call, error, rule):
        with pytest.raises(error, match=rf"^\[\w+\] .*{rule}"):
            call()


def test_windows_far_larger_than_the_image(rng):
    """Taps that see nothing take neither time nor memory."""
    x = number_images(rng, np.float32, 2, 3, 2, 5)
    everywhere = x.max(axis=(1, 2), keepdims=True) * np.ones((1, 3, 2, 1), np.float32)
    for size in (15, 2**24 + 1, 2**30 + 1):
        assert_array_equal(bo.max_pool2d(x, size, stride=1, padding="same"), everywhere)
        bits = bo.max_pool2d(bo.pack(x), size, stride=1, padding="same")
        assert bits == bo.pack(everywhere)
    means = bo.avg_pool2d(x, 2**24 + 1, stride=1, padding="same")
    wanted = x.sum(axis=(1, 2), keepdims=True) / (2**24 + 1) ** 2
    assert_allclose(means, np.broadcast_to(wanted, x.shape), rtol=1e-4)
    assert np.isfinite(bo.k_map(x, 2**30 + 1, padding="same")).all()


Y = (np.arange(120).reshape(2, 4, 5, 3) * 11 % 17 - 8).astype(np.float32)


@pytest.mark.parametrize(
    "call",
    [
        lambda **out: bo.max_pool2d(Y, 2, **out),
        lambda **out: bo.max_pool2d(Y.astype(np.int8), 2, **out),
        lambda **out: bo.avg_pool2d(Y, 2, padding=1, **out),
        lambda **out: bo.global_avg_pool2d(Y, **out),
        lambda **out: bo.k_map(Y, 2, padding=1, **out),
    ],
)
def test_out(call):
    want = call()
    out = np.empty_like(want)
    assert call(out=out) is out
    assert_array_equal(out, want, strict=True)
    strided = np.full((*want.shape, 2), -77, want.dtype)[..., 0]
    assert call(out=strided) is strided
    assert_array_equal(strided, want, strict=True)
    for wrong, error, message in (
        (want.tolist(), TypeError, "out must be an ndarray"),
        (np.empty(want.shape, np.float64), TypeError, "out must have dtype"),
        (np.empty((1, *want.shape), want.dtype), ValueError, "out must have shape"),
        (np.broadcast_to(want, want.shape), ValueError, "out must be writeable"),
        (np.ma.masked_array(out, True), TypeError, "out must not be masked"),
    ):
        with pytest.raises(error, match=message):
            call(out=wrong)


@pytest.mark.parametrize(
    "call",
    [
        lambda x, **out: bo.max_pool2d(x, 3, stride=1, padding=1, **out),
        lambda x, **out: bo.avg_pool2d(x, 3, stride=1, padding=1, **out),
        lambda x, **out: bo.global_avg_pool2d(x, **out),
        lambda x, **out: bo.k_map(x, 3, padding=1, **out),
    ],
)
def test_out_over_the_input(call):
    x = Y.copy()
    want = call(x)
    out = x.reshape(-1)[: want.size].reshape(want.shape)
    assert call(x, out=out) is out
    assert_array_equal(out, want, strict=True)


def test_bits_take_no_out():
    rule = r"^\[max_pool2d\] out must be None for bits, .*, got ndarray$"
    with pytest.raises(TypeError, match=rule):
        bo.max_pool2d(bo.pack(Y), 2, out=np.empty(1))
