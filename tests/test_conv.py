"""Convolutions of bits against the reference: every ISA, one and two threads, all settings."""

import itertools

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from numpy.testing import assert_array_equal
from scipy.signal import correlate

import bitops as bo
from bitops import reference as ref
from bitops.ops.geometry import make_window
from conftest import SEED, random_signs

CHANNELS = (1, 3, 16, 31, 48, 64, 65, 130)
KERNELS = (1, 2, 3, 5, 7, (3, 2), (1, 4))
STRIDES = (1, 2, 3, (2, 1))
PADDINGS = (0, 1, (2, 3), ((2, 0), (1, 3)), "same", "valid")
DILATIONS = (1, 2, 3, (1, 2))
PAD_VALUES = (0, -1, 1)


def fits(image, kernel, settings):
    try:
        make_window("test", image, kernel, *settings)
    except ValueError:
        return False
    return True


def random_settings(rng, image, kernel):
    """Draw stride, padding and dilation that fit."""
    while True:
        choices = (STRIDES, PADDINGS, DILATIONS)
        settings = tuple(options[rng.integers(len(options))] for options in choices)
        if fits(image, kernel, settings):
            return dict(zip(("stride", "padding", "dilation"), settings, strict=True))


def random_problem(rng, channels, kernel, groups):
    """Images, filters and settings, small enough for the reference."""
    kh, kw = kernel if isinstance(kernel, tuple) else (kernel, kernel)
    image = tuple(int(size) for size in rng.integers(7, 11, 2))
    settings = random_settings(rng, image, (kh, kw))
    per_group = int(rng.integers(1, 4)) if groups > 1 else int(rng.choice((1, 7, 33, 70)))
    x = random_signs(rng, int(rng.integers(1, 4)), *image, channels)
    w = random_signs(rng, groups * per_group, kh, kw, channels // groups)
    return x, w, settings | {"groups": groups, "pad_value": int(rng.choice(PAD_VALUES))}


@pytest.mark.parametrize("channels", CHANNELS)
def test_equals_reference(isa, threads, channels):
    rng = np.random.default_rng(SEED + channels)
    for kernel in KERNELS:
        for groups in sorted({1, 2, channels}):
            if channels % groups:
                continue
            for trial in range(4):
                x, w, settings = random_problem(rng, channels, kernel, groups)
                dot = ref.conv2d(x, w, **settings)
                packed = bo.pack(x), (bo.prepack(w) if trial % 2 else bo.pack(w))
                assert np.array_equal(bo.conv2d(*packed, **settings), dot), settings
                threshold = rng.integers(-9, 9, len(w)).astype(np.int32)
                flip = rng.random(len(w)) < 0.5
                bits = bo.conv2d_sign(*packed, threshold, flip=flip, **settings)
                # from_words refuses set padding bits
                assert bo.BitArray.from_words(bits.words, dot.shape) == bo.pack(
                    (dot > threshold) ^ flip
                ), settings


@pytest.mark.parametrize("pad_value", PAD_VALUES)
@pytest.mark.parametrize("groups", (1, 2, 64))
def test_scales(isa, rng, pad_value, groups):
    x, w = random_signs(rng, 2, 9, 8, 64), random_signs(rng, 64, 3, 3, 64 // groups)
    settings = {"padding": 1, "stride": 2, "groups": groups, "pad_value": pad_value}
    scales = {
        "alpha": rng.standard_normal(64, np.float32),
        "k_map": rng.standard_normal((2, 5, 4), np.float32),
        "bias": rng.standard_normal(64, np.float32),
    }
    for count in range(1, 4):
        for names in itertools.combinations(scales, count):
            given_scales = {name: scales[name] for name in names}
            want = ref.conv2d(x, w, **settings, **given_scales)
            got = bo.conv2d(x, w, **settings, **given_scales)
            assert got.dtype == np.float32
            assert_array_equal(got, want)
    scalars = bo.conv2d(x, w, **settings, alpha=0.5, k_map=2.0, bias=1)
    assert_array_equal(scalars, ref.conv2d(x, w, **settings) + np.float32(1))


def test_xnor_approximation(isa, rng):
    """Images and filters that are exactly alpha B and K sign(I) are convolved exactly."""
    signs_of_x, signs_of_w = random_signs(rng, 2, 6, 6, 70), random_signs(rng, 5, 3, 3, 70)
    alpha = np.float32([0.5, 1, 2, 4, 0.25])
    w = signs_of_w * alpha[:, None, None, None]
    x = signs_of_x * np.float32(2)
    b, scale = bo.binarize_weights(w)
    assert_array_equal(scale, alpha)
    k = bo.k_map(x, 3)
    assert_array_equal(k, np.full((2, 4, 4), 2, np.float32))
    real = np.stack([correlate(image, w[0], "valid")[..., 0] for image in x])
    got = bo.conv2d(x, b, alpha=scale, k_map=k)
    assert got.dtype == np.float32
    np.testing.assert_allclose(got[..., 0], real, rtol=1e-6)


@pytest.mark.parametrize("channels", (*CHANNELS, 128, 192))
def test_im2col(isa, threads, rng, channels):
    for kernel in KERNELS:
        for pad_value in (-1, 1):
            x = random_signs(rng, 2, 9, 10, channels)
            settings = random_settings(rng, (9, 10), kernel) | {"pad_value": pad_value}
            rows = bo.im2col(x, kernel, **settings)
            want = ref.im2col(x, kernel, **settings)
            assert bo.BitArray.from_words(rows.words, want.shape) == bo.pack(want), settings


@pytest.mark.parametrize("channels", (3, 24, 65, 100))
def test_im2col_of_long_lines(isa, threads, rng, channels):
    """Lines and kernels that are gathered in several parts, or tap by tap."""
    x = random_signs(rng, 1, 4, 700, channels)
    for kernel, settings in (
        (3, {"padding": 1}),
        ((2, 5), {"stride": 2, "dilation": 2}),
        ((17, 2), {"padding": 9, "stride": (1, 3)}),
        ((2, 600), {"stride": (1, 9)}),
    ):
        for pad_value in (-1, 1):
            want = ref.im2col(x, kernel, **settings, pad_value=pad_value)
            rows = bo.im2col(bo.pack(x), kernel, **settings, pad_value=pad_value)
            assert bo.BitArray.from_words(rows.words, want.shape) == bo.pack(want), settings


def test_more_bits_than_one_slice(isa, threads, rng):
    """Filters of more than 16384 bits are cut along k, between words or within one."""
    for channels in (2112, 2100):
        x, w = random_signs(rng, 1, 4, 5, channels), random_signs(rng, 35, 3, 3, channels)
        for pad_value in PAD_VALUES:
            dot = ref.conv2d(x, w, padding=1, pad_value=pad_value)
            assert_array_equal(bo.conv2d(x, w, padding=1, pad_value=pad_value), dot)
            bits = bo.conv2d_sign(x, bo.prepack(w), 3, padding=1, pad_value=pad_value)
            assert bits == bo.pack(dot > 3)


def test_more_rows_than_one_block(isa, threads, rng):
    for channels, filters, groups in ((64, 65, 1), (66, 66, 66), (6, 70, 2)):
        x, w = (
            random_signs(rng, 2, 70, 60, channels),
            random_signs(rng, filters, 3, 3, channels // groups),
        )
        dot = ref.conv2d(x, w, padding=1, groups=groups)
        assert_array_equal(bo.conv2d(x, w, padding=1, groups=groups), dot)
        bits = bo.conv2d_sign(x, w, 1, padding=1, groups=groups)
        assert bits == bo.pack(dot > 1)


def test_large_depthwise_kernel(isa, rng):
    """More taps than are counted at once, more channels than one span."""
    x, w = random_signs(rng, 1, 12, 12, 2100), random_signs(rng, 2100, 9, 9, 1)
    settings = {"groups": 2100, "padding": 2}
    assert_array_equal(bo.conv2d(x, w, **settings), ref.conv2d(x, w, **settings))


@pytest.mark.parametrize("pad_value", PAD_VALUES)
def test_windows_wholly_outside(isa, rng, pad_value):
    """Padding beyond the kernel, images smaller than it, stride beyond the image."""
    for image, kernel, settings in (
        ((2, 2), 3, {"padding": 4, "stride": 3}),
        ((1, 1), 5, {"padding": 2}),
        ((3, 1), (2, 3), {"padding": ((5, 0), (0, 6)), "dilation": 2}),
        ((0, 3), 2, {"padding": 1}),
        ((4, 4), 1, {"stride": 9, "padding": 3}),
    ):
        kh, kw = (kernel, kernel) if isinstance(kernel, int) else kernel
        for channels, groups in ((64, 1), (5, 1), (4, 4)):
            x, w = (
                random_signs(rng, 2, *image, channels),
                random_signs(rng, 8, kh, kw, channels // groups),
            )
            settings |= {"pad_value": pad_value, "groups": groups}
            dot = ref.conv2d(x, w, **settings)
            assert_array_equal(bo.conv2d(x, w, **settings), dot)
            assert bo.conv2d_sign(x, w, 0, **settings) == bo.pack(dot > 0)


def test_empty(isa):
    for x_shape, w_shape, shape in (
        ((0, 5, 5, 64), (8, 3, 3, 64), (0, 3, 3, 8)),
        ((2, 5, 5, 64), (0, 3, 3, 64), (2, 3, 3, 0)),
        ((2, 5, 5, 0), (8, 3, 3, 0), (2, 3, 3, 8)),
    ):
        x, w = np.ones(x_shape), np.ones(w_shape)
        for weights in (w, bo.prepack(w)):
            dot = bo.conv2d(x, weights, padding=0)
            assert dot.shape == shape
            assert not dot.any()
            assert bo.conv2d(x, weights, alpha=2.0, bias=0.0).shape == shape
            bits = bo.conv2d_sign(x, weights, -1)
            assert bits.shape == shape
            assert bits == bo.pack(np.ones(shape))
    assert bo.im2col(np.ones((0, 5, 5, 3)), 3).shape == (0, 3, 3, 27)
    assert bo.im2col(np.ones((1, 5, 5, 0)), 3).shape == (1, 3, 3, 0)


def test_one_by_one_is_gemm(isa, rng):
    x, w = random_signs(rng, 2, 5, 4, 70), random_signs(rng, 9, 1, 1, 70)
    assert_array_equal(bo.conv2d(x, w), bo.gemm(x, w[:, 0, 0]))


def test_is_gemm_of_im2col(isa, rng):
    x, w = random_signs(rng, 2, 7, 6, 65), random_signs(rng, 9, 3, 2, 65)
    rows = bo.im2col(x, (3, 2), padding=1, stride=2, pad_value=1)
    matrix = bo.pack(w.reshape(9, -1))
    got = bo.conv2d(x, w, padding=1, stride=2, pad_value=1)
    assert_array_equal(got, bo.gemm(rows, matrix))


def test_out(isa, rng):
    x, w = random_signs(rng, 2, 6, 6, 64), random_signs(rng, 5, 3, 3, 64)
    want = ref.conv2d(x, w)
    out = np.empty(want.shape, np.int32)
    assert bo.conv2d(x, w, out=out) is out
    assert_array_equal(out, want)
    wide = np.zeros((2, 4, 4, 10), np.int32)
    assert bo.conv2d(x, w, out=wide[..., ::2]) is not None
    assert_array_equal(wide[..., ::2], want)
    assert not wide[..., 1::2].any()
    # k_map in the memory of the result
    buffer = np.ones(want.shape, np.float32)
    scale = np.arange(2 * 4 * 4, dtype=np.float32).reshape(2, 4, 4)
    buffer.reshape(-1)[: scale.size] = scale.reshape(-1)
    shared = buffer.reshape(-1)[: scale.size].reshape(scale.shape)
    assert_array_equal(bo.conv2d(x, w, k_map=shared, out=buffer), ref.conv2d(x, w, k_map=scale))


def test_inputs_unchanged_and_strided(isa, rng):
    wide = rng.standard_normal((4, 9, 8, 70)).astype(np.float32)
    x, w = wide[::2, ::-1], rng.standard_normal((6, 3, 3, 70))
    x_bits, w_bits = bo.pack(x), bo.pack(w)
    before = x.copy(), x_bits.words.copy(), w_bits.words.copy()
    want = ref.conv2d(x, w, padding=1)
    wide.flags.writeable = w_bits.words.flags.writeable = False
    for images in (x, x_bits, bo.pack(wide)[::2][:, ::-1]):
        assert_array_equal(bo.conv2d(images, w_bits, padding=1), want)
    for old, new in zip(before, (x, x_bits.words, w_bits.words), strict=True):
        assert_array_equal(old, new)


def test_prepacked_follows_the_isa(rng):
    x, w = random_signs(rng, 1, 6, 6, 64), random_signs(rng, 40, 3, 3, 64)
    weights, want = bo.prepack(w), ref.conv2d(x, w, padding=1)
    for name in bo.isa.available():
        with bo.isa.use(name):
            assert_array_equal(bo.conv2d(x, weights, padding=1), want)
            assert name in repr(weights)


def test_prepacked_groups_share_one_object(isa, rng):
    w = bo.prepack(random_signs(rng, 12, 3, 3, 4))
    for groups in (1, 2, 3, 1):
        x = random_signs(rng, 1, 5, 5, 4 * groups)
        assert_array_equal(
            bo.conv2d(x, w, groups=groups), ref.conv2d(x, np.asarray(w.bits), groups=groups)
        )


@pytest.mark.parametrize("end", (True, False), ids=("end", "begin"))
def test_stays_within_its_arrays(isa, rng, fenced, end):
    for channels, filters, groups in (
        (64, 33, 1),
        (128, 17, 1),
        (65, 9, 1),
        (66, 66, 66),
        (6, 8, 2),
    ):
        for kernel, settings in (
            (3, {"padding": 1}),
            (3, {"stride": 2, "dilation": 2, "padding": 2}),
            (2, {}),
        ):
            x = random_signs(rng, 2, 6, 5, channels)
            w = random_signs(rng, filters, kernel, kernel, channels // groups)
            settings |= {"groups": groups}
            dot = ref.conv2d(x, w, **settings)
            px = bo.BitArray.from_words(fenced[0].place(ref.pack(x), end), x.shape)
            pw = bo.BitArray.from_words(fenced[1].place(ref.pack(w), end), w.shape)
            out = fenced[2].place(np.empty_like(dot), end)
            alpha = fenced[3].place(np.ones(filters, np.float32), end)
            k_map = fenced[4].place(np.ones(dot.shape[:3], np.float32), end)
            for weights in (pw, bo.prepack(pw)):
                assert np.array_equal(bo.conv2d(px, weights, out=out, **settings), dot)
                scales = {"alpha": alpha, "bias": alpha, "k_map": k_map}
                scaled = bo.conv2d(px, weights, out=out.view(np.float32), **scales, **settings)
                assert np.array_equal(scaled, dot + np.float32(1))
                assert bo.conv2d_sign(px, weights, 0, **settings) == bo.pack(dot > 0)


@given(data=st.data())
def test_properties(data):
    """Random geometry: linear in the pad value, translation with the stride, batches are cut."""
    size = st.integers(1, 6)
    n, h, w, c, o, kh, kw = (data.draw(size) for _ in range(7))
    padding = data.draw(st.tuples(*[st.tuples(st.integers(0, 3), st.integers(0, 3))] * 2))
    settings = {
        "stride": data.draw(st.tuples(st.integers(1, 3), st.integers(1, 3))),
        "dilation": data.draw(st.tuples(st.integers(1, 3), st.integers(1, 3))),
        "padding": padding,
    }
    assume(fits((h, w), (kh, kw), (settings["stride"], padding, settings["dilation"])))
    rng = np.random.default_rng(data.draw(st.integers(0, 999)))
    x, filters = random_signs(rng, n, h, w, c), random_signs(rng, o, kh, kw, c)
    low, zero, high = (bo.conv2d(x, filters, pad_value=v, **settings) for v in (-1, 0, 1))
    assert_array_equal(low + high, 2 * zero)
    assert_array_equal(zero, ref.conv2d(x, filters, **settings))
    assert_array_equal(bo.conv2d(x[1:], filters, **settings), zero[1:])
    mirrored = {**settings, "padding": tuple(side[::-1] for side in padding)}
    window = make_window("test", (h, w), (kh, kw), **settings)
    if settings["stride"] == (1, 1):
        flipped = bo.conv2d(x[:, ::-1, ::-1], filters[:, ::-1, ::-1], **mirrored)
        assert flipped.shape[1:3] == window.output
        assert_array_equal(flipped, zero[:, ::-1, ::-1])
