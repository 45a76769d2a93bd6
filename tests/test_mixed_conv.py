"""Numbers convolved with +-1 filters, weight_conv2d and bitplane_conv2d, on every ISA."""

import functools
import itertools
import tracemalloc

import numpy as np
import pytest
from numpy.testing import assert_array_equal

import bitops as bo
from bitops import _core
from bitops import reference as ref
from bitops.ops.geometry import make_window
from conftest import SEED, random_signs

MULTIPLIES_NUMBERS = True

CHANNELS = (1, 3, 31, 64, 65, 130)
KERNELS = (1, 2, 3, 5, (3, 2))
STRIDES = (1, 2, (3, 1))
PADDINGS = (0, 1, (2, 1), ((0, 1), (3, 2)), "same")
DILATIONS = (1, 2, (1, 3))


def numbers(rng, *shape):
    return rng.standard_normal(shape).astype(np.float32)


def octets(rng, *shape, bits=8):
    return rng.integers(0, 2**bits, shape).astype(np.uint8)


def pair(value):
    return value if isinstance(value, tuple) else (value, value)


@functools.cache
def grid(channels):
    """Operands and results of a sample of the grid, computed once for all ISAs."""
    rng = np.random.default_rng([SEED, channels])
    groups = sorted({1, 2, channels} if channels % 2 == 0 else {1, channels})
    cases = []
    for i, (kernel, stride, group) in enumerate(itertools.product(KERNELS, STRIDES, groups)):
        settings = {
            "stride": stride,
            "padding": PADDINGS[i % 5],
            "dilation": DILATIONS[i % 7 % 3],
            "groups": group,
        }
        # Just large enough for the kernel, and a little more; few filters for many groups.
        kernels, steps = np.array(pair(kernel)), np.array(pair(settings["dilation"]))
        spans = (kernels - 1) * steps + 1
        shape = (1 + i % 2, spans[0] + i % 3, spans[1] + i % 5, channels)
        filters = group * int(rng.integers(1, 3 if group > 2 else 20))
        x, u = numbers(rng, *shape), octets(rng, *shape)
        w = random_signs(rng, filters, *pair(kernel), channels // group)
        scales = {"alpha": numbers(rng, filters), "bias": numbers(rng, filters)}
        want = (
            ref.weight_conv2d(x, w, **settings),
            ref.weight_conv2d(x, w, **settings, **scales),
            ref.bitplane_conv2d(u, w, **settings),
            ref.bitplane_conv2d(u, w, **settings, **scales),
        )
        cases.append((x, u, w, settings, scales, want))
    return cases


@pytest.mark.parametrize("channels", CHANNELS)
def test_grid(isa, channels):
    for x, u, w, settings, scales, want in grid(channels):
        before = x.copy(), u.copy(), w.copy()
        filters = bo.pack(w)
        for weights in (filters, bo.prepack(filters)):
            got = (
                bo.weight_conv2d(x, weights, **settings),
                bo.weight_conv2d(x, weights, **settings, **scales),
                bo.bitplane_conv2d(u, weights, **settings),
                bo.bitplane_conv2d(u, weights, **settings, **scales),
            )
            for i in range(4):
                assert_array_equal(got[i], want[i], strict=True, err_msg=f"{i} {settings}")
        for array, copy in zip((x, u, w), before, strict=True):
            assert_array_equal(array, copy)


@pytest.mark.parametrize("bits", range(1, 9))
@pytest.mark.parametrize("groups", (1, 3))
def test_few_bits(isa, rng, bits, groups):
    x, w = octets(rng, 2, 6, 7, 33, bits=bits), random_signs(rng, 12, 3, 3, 33 // groups)
    want = ref.bitplane_conv2d(x, w, bits=bits, padding=1, groups=groups)
    for weights in (w, bo.prepack(w)):
        got = bo.bitplane_conv2d(x, weights, bits=bits, padding=1, groups=groups)
        assert_array_equal(got, want, strict=True)


@pytest.mark.parametrize("shape", ((3, 40, 41, 64), (33, 17, 16, 31)))
def test_several_blocks(isa, threads, rng, shape):
    """The patches take more than 4 MiB; values that float32 adds without rounding."""
    x = rng.integers(-9, 10, shape).astype(np.float32)
    u = octets(rng, *shape)
    w = random_signs(rng, 10, 3, 3, shape[3])
    dots = [ref.bitplane_conv2d(values, w, padding=1) for values in (u, u >> 3)]
    assert_array_equal(bo.bitplane_conv2d(u, w, padding=1), dots[0], strict=True)
    assert_array_equal(bo.weight_conv2d(u >> 3, w, padding=1), dots[1])
    parts = [bo.weight_conv2d(x[i : i + 1], w, padding=1) for i in range(len(x))]
    assert_array_equal(bo.weight_conv2d(x, w, padding=1), np.concatenate(parts), strict=True)


def test_first_layer(isa, threads, rng):
    """Images of 32 x 32 x 3 through 128 filters of 3 x 3, as networks begin."""
    u, w = octets(rng, 5, 32, 32, 3), random_signs(rng, 128, 3, 3, 3)
    x = numbers(rng, 5, 32, 32, 3)
    want = ref.bitplane_conv2d(u, w, padding=1), ref.weight_conv2d(x, w, padding=1)
    assert_array_equal(bo.bitplane_conv2d(u, w, padding=1), want[0], strict=True)
    assert_array_equal(bo.weight_conv2d(x, w, padding=1), want[1], strict=True)


def test_layouts(isa, rng):
    x, w = octets(rng, 4, 6, 7, 10), random_signs(rng, 6, 3, 2, 10)
    frozen = x.copy()
    frozen.flags.writeable = False
    for view in (
        x,
        x[::-1],
        x[:, ::2, 1:6],
        x[..., ::-1],
        x.transpose(0, 2, 1, 3),
        np.asfortranarray(x),
        frozen,
    ):
        for groups in (1, 2):
            weights = w[..., : 10 // groups]
            settings = {"padding": 1, "groups": groups}
            want = ref.bitplane_conv2d(view, weights, **settings)
            assert_array_equal(bo.bitplane_conv2d(view, weights, **settings), want, strict=True)
            got = bo.weight_conv2d(view.astype(np.float32), weights, **settings)
            assert_array_equal(got, want)
    strided = bo.pack(np.repeat(w, 2, axis=0))[::2]
    assert_array_equal(bo.bitplane_conv2d(x, strided), ref.bitplane_conv2d(x, w))


@pytest.mark.parametrize("dtype", "bhilqBHILQefdg")
def test_dtypes(rng, dtype):
    x = octets(rng, 2, 5, 6, 4, bits=6).astype(dtype)
    w = random_signs(rng, 3, 2, 2, 4)
    got = bo.weight_conv2d(x, w)
    assert_array_equal(got, ref.weight_conv2d(x, w), strict=True)
    assert_array_equal(bo.weight_conv2d(x.astype(x.dtype.newbyteorder()), w), got)
    assert_array_equal(bo.weight_conv2d(x.tolist(), w), got)


def test_real_filters_are_packed_by_sign(rng):
    x, w = numbers(rng, 1, 5, 5, 3), rng.standard_normal((4, 3, 3, 3))
    w[0, 0, 0] = 0.0, -0.0, 5
    assert_array_equal(bo.weight_conv2d(x, w), ref.weight_conv2d(x, ref.sign(w)), strict=True)


def test_infinities_and_nan(isa):
    x = np.ones((1, 1, 4, 1), np.float32)
    x[0, 0, 1], x[0, 0, 3] = np.inf, np.nan
    got = bo.weight_conv2d(x, [[[[1]]], [[[-1]]]])
    assert_array_equal(got[0, 0], [[1, -1], [np.inf, -np.inf], [1, -1], [np.nan, np.nan]])


@pytest.mark.parametrize(
    "shape, filters",
    (
        ((0, 5, 5, 3), (4, 3, 3, 3)),
        ((2, 5, 5, 3), (0, 3, 3, 3)),
        ((2, 5, 5, 0), (4, 3, 3, 0)),
        ((0, 5, 5, 0), (0, 3, 3, 0)),
    ),
)
def test_empty(isa, shape, filters):
    want = np.zeros((shape[0], 5, 5, filters[0]))
    for x, convolve, dtype in (
        (np.ones(shape, np.uint8), bo.bitplane_conv2d, np.int32),
        (np.ones(shape, np.float32), bo.weight_conv2d, np.float32),
    ):
        got = convolve(x, np.ones(filters), padding=1)
        assert_array_equal(got, want.astype(dtype), strict=True)
        got = convolve(x, np.ones(filters), padding=1, bias=3)
        assert_array_equal(got, np.float32(want + 3), strict=True)


def test_empty_height_with_padding():
    x = np.ones((1, 0, 2, 1), np.uint8)
    assert bo.bitplane_conv2d(x, np.ones((1, 3, 1, 1)), padding=(2, 0)).tolist() == [
        [[[0], [0]], [[0], [0]]]
    ]


class TestOut:
    @pytest.mark.parametrize("groups", (1, 2))
    def test_is_filled_and_returned(self, rng, groups):
        u, w = octets(rng, 2, 5, 6, 4), random_signs(rng, 8, 3, 3, 4 // groups)
        settings = {"padding": 1, "groups": groups}
        want = ref.bitplane_conv2d(u, w, **settings)
        memory = np.empty((2, 5, 6, 2, 8), np.int32)
        for out in (np.empty_like(want), memory[:, :, :, 0], memory[:, ::-1, :, 1]):
            out[...] = -1
            assert bo.bitplane_conv2d(u, w, **settings, out=out) is out
            assert_array_equal(out, want)
        out = np.empty(want.shape, np.float32)
        assert bo.weight_conv2d(u, w, **settings, out=out) is out
        assert_array_equal(out, want)
        assert bo.bitplane_conv2d(u, w, **settings, alpha=2, out=out) is out
        assert_array_equal(out, 2 * want)

    def test_may_share_memory_with_the_operands(self, rng):
        x, w = numbers(rng, 1, 6, 6, 4), random_signs(rng, 4, 3, 3, 4)
        bias = numbers(rng, 4)
        want = ref.weight_conv2d(x, w, padding=1, bias=bias)
        shared = x.copy()
        bo.weight_conv2d(shared, w, padding=1, bias=bias, out=shared)
        assert_array_equal(shared, want)
        out = np.empty_like(want)
        out[0, 0, 0] = bias
        bo.weight_conv2d(x, w, padding=1, bias=out[0, 0, 0], out=out)
        assert_array_equal(out, want)

    def test_saves_the_memory_of_the_result(self, rng):
        x, w = octets(rng, 20, 32, 32, 3), bo.prepack(random_signs(rng, 256, 3, 3, 3))
        out = np.empty((20, 32, 32, 256), np.int32)
        bo.bitplane_conv2d(x, w, padding=1, out=out)
        tracemalloc.start()
        bo.bitplane_conv2d(x, w, padding=1, out=out)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 2 << 20


def test_memory_of_patches_is_bounded(rng):
    """The patches of all positions would take 57 MiB; a block of them 4 MiB."""
    x, w = numbers(rng, 2, 56, 56, 256), bo.prepack(random_signs(rng, 8, 3, 3, 256))
    tracemalloc.start()
    bo.weight_conv2d(x, w, padding=1)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8 << 20


X, U, W = np.ones((2, 5, 6, 4), np.float32), np.ones((2, 5, 6, 4), np.uint8), np.ones((6, 3, 3, 4))


class TestErrors:
    @pytest.mark.parametrize("name, x", (("weight_conv2d", X), ("bitplane_conv2d", U)))
    @pytest.mark.parametrize(
        "change, error, rule",
        (
            ({"x": lambda x: x[0]}, ValueError, r"x .*\(n, h, w, c\), got \(5, 6, 4\)"),
            ({"x": lambda x: x > 0}, TypeError, "x .*bool"),
            ({"x": lambda x: x * 1j}, TypeError, "x .*complex"),
            ({"x": lambda x: bo.pack(x > 0)}, TypeError, "x .*BitArray"),
            ({"x": lambda x: "abc"}, TypeError, "x .*<U3"),
            ({"w": W[0]}, ValueError, r"w .*\(o, kh, kw, i\).*\(3, 3, 4\)"),
            ({"w": W[:, :0]}, ValueError, r"w .*at least 1.*\(6, 0, 3, 4\)"),
            ({"w": bo.pack(W, axis=0)}, ValueError, "w .*axis 0"),
            ({"w": bo.prepack(W[0, 0])}, ValueError, r"w .*\(3, 4\)"),
            ({"w": W * np.nan}, ValueError, "w .*NaN"),
            ({"w": W * 1j}, TypeError, "w .*complex"),
            ({"w": W[..., :3]}, ValueError, "filters .* 4 .* 3"),
            ({"groups": 2}, ValueError, "filters .* 2 .* 4"),
            ({"groups": 3}, ValueError, "divisible .* 4, 6 and 3"),
            ({"groups": 4, "w": W[..., :1]}, ValueError, "divisible .* 4, 6 and 4"),
            ({"groups": 0}, ValueError, "groups .*at least 1, got 0"),
            ({"groups": 1.0}, TypeError, "groups .*1.0"),
            ({"groups": True}, TypeError, "groups .*True"),
            ({"stride": 0}, ValueError, "stride .*at least 1, got 0"),
            ({"stride": (1, -2)}, ValueError, "stride .*at least 1"),
            ({"dilation": 3}, ValueError, "height 7 .* in 5"),
            ({"padding": -1}, ValueError, "padding .*at least 0, got -1"),
            ({"padding": "full"}, ValueError, "padding .*'full'"),
            ({"padding": 2**30 - 5}, ValueError, r"elements, got shape \(2, \d+, \d+, 6\)"),
            ({"alpha": np.ones(4)}, ValueError, r"alpha .*\(6,\).*\(4,\)"),
            ({"alpha": 1j}, TypeError, "alpha .*complex"),
            ({"bias": np.ones((2, 1))}, ValueError, "bias"),
            ({"bias": "1"}, TypeError, "bias"),
            ({"out": []}, TypeError, "out .*list"),
            ({"out": np.empty((2, 3, 4, 6))}, TypeError, "out .*float64"),
            ({"out": np.empty((2, 3, 4, 5), "i4")}, (TypeError, ValueError), "out"),
            ({"out": np.empty((2, 3, 4, 5), "f4")}, (TypeError, ValueError), "out"),
        ),
    )
    def test_operands(self, name, x, change, error, rule):
        settings = {"x": lambda x: x, "w": W, **change}
        with pytest.raises(error, match=rf"^\[{name}\] .*{rule}"):
            getattr(bo, name)(settings.pop("x")(x), settings.pop("w"), **settings)

    @pytest.mark.parametrize(
        "x, settings, error, rule",
        (
            (X, {}, TypeError, "uint8.*float32"),
            (U.astype(np.int8), {}, TypeError, "uint8.*int8"),
            (U.tolist(), {}, TypeError, "uint8.*int64"),
            (U, {"bits": 0}, ValueError, "bits .*0"),
            (U, {"bits": 9}, ValueError, "bits .*9"),
            (U, {"bits": 1.0}, TypeError, "bits .*1.0"),
            (U, {"bits": True}, TypeError, "bits .*True"),
            (U, {"out": np.empty((2, 3, 4, 6), "f4")}, TypeError, "int32"),
            (U, {"bias": 1, "out": np.empty((2, 3, 4, 6), "i4")}, TypeError, "float32"),
        ),
    )
    def test_bitplane_conv2d(self, x, settings, error, rule):
        with pytest.raises(error, match=rf"^\[bitplane_conv2d\] .*{rule}"):
            bo.bitplane_conv2d(x, W, **settings)

    def test_read_only_out(self):
        out = np.empty((2, 3, 4, 6), np.float32)
        out.flags.writeable = False
        with pytest.raises(ValueError, match=r"^\[weight_conv2d\] out .*read-only"):
            bo.weight_conv2d(X, W, out=out)

    @pytest.mark.parametrize("bits", range(1, 8))
    def test_a_value_beyond_its_bits_is_refused_before_work(self, bits):
        x, out = U * np.uint8(2**bits - 1), np.full((2, 3, 4, 6), -1, np.int32)
        bo.bitplane_conv2d(x, W, bits=bits)
        x[1, 4, 5, 3] += 1
        with pytest.raises(ValueError, match=rf"at most {2**bits - 1} .*got {2**bits}"):
            bo.bitplane_conv2d(x, W, bits=bits, out=out)
        assert (out == -1).all()

    def test_sums_beyond_int32_are_refused(self):
        k = 2**31 // 255
        for beyond in (0, 1):
            words = np.zeros((1, 1, 1, -(-(k + beyond) // 64)), np.uint64)
            w = bo.BitArray.from_words(words, (1, 1, 1, k + beyond))
            x = np.full((1, 1, 1, k + beyond), 255, np.uint8)
            if beyond:
                with pytest.raises(ValueError, match=rf"^\[bitplane_conv2d\] k .*{k}.*{k + 1}"):
                    bo.bitplane_conv2d(x, w)
            else:
                assert bo.bitplane_conv2d(x, w) == -255 * k


@pytest.mark.parametrize(("size", "lines"), [(8, 1), (9, 2)])
def test_fewer_lines_of_outputs_than_threads_are_left_to_patches(rng, size, lines):
    """Tables are shared by threads that have a line each, and panels of filters are too."""
    images = octets(rng, 1, size, size, 64, bits=4)
    w = bo.pack(random_signs(rng, 300, 8, 8, 64))
    window = make_window("test", (size, size), (8, 8), 1, 0, 1)
    words = w.words.reshape(300, 64)
    results, before = [], bo.get_num_threads()
    try:
        for threads in (1, 2):
            bo.set_num_threads(threads)
            out = np.empty((1, lines, lines, 300), np.float32)
            done = _core.conv_codes(images, words, window, 4, None, None, out, 0, 0, 15)
            if threads > lines:
                assert not done
            if done:
                results.append(out.view(np.int32))
            results.append(bo.bitplane_conv2d(images, w, bits=4))
    finally:
        bo.set_num_threads(before)
    for result in results[1:]:
        assert_array_equal(result, results[0])


def test_codes_are_copied_only_if_they_are_not_left_to_patches(rng):
    """A convolution that is left to patches declines before it copies images with gaps."""
    images = octets(rng, 4, 64, 64, 128, bits=4)[..., ::2]
    window = make_window("test", (64, 64), (3, 3), 1, 0, 1)
    for filters in (1, 64):
        words = bo.pack(random_signs(rng, filters, 9 * 64)).words
        out = np.empty((4, 62, 62, filters), np.float32)
        tracemalloc.start()
        done = _core.conv_codes(images, words, window, 4, None, None, out, 0, 0, 15)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert done or peak < images.size // 8
        assert not (done and filters == 1)


def test_sums_of_codes_beyond_int32_are_refused():
    """By the native functions too: 255 * k is below 2**31."""
    k = 2**23 + 2**17  # a multiple of 64
    x, words = np.zeros((1, 1, 1, k), np.uint8), np.zeros((1, k // 64), np.uint64)
    window = make_window("test", (1, 1), (1, 1), 1, 0, 1)
    out = np.empty((1, 1, 1, 1), np.float32)
    with pytest.raises(ValueError, match=r"^\[_core\] 255 \* k must be below 2\*\*31"):
        _core.conv_codes(x, words, window, 8, None, None, out, 0, 0, 255)
    with pytest.raises(ValueError, match=r"^\[_core\] 255 \* k must be below 2\*\*31"):
        _core.bitplane_gemm(x.reshape(1, k), words, None, 8, np.empty((1, 1), np.int32))
