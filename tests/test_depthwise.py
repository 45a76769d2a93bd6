"""Filters that see one channel each, against the reference: every ISA, one and two threads."""

import numpy as np
import pytest
from numpy.testing import assert_array_equal

import bitops as bo
from bitops import reference as ref
from conftest import SEED, random_signs

# Around bytes, words, blocks of 512 bits and spans of 4096 counts.
CHANNELS = (2, 3, 7, 8, 9, 16, 31, 32, 48, 63, 64, 65, 100, 128, 513)
SETTINGS = (
    {},
    {"padding": 1},
    {"padding": 1, "pad_value": -1},
    {"padding": 1, "pad_value": 1, "stride": 2},
    {"padding": 2, "dilation": 2},
    {"padding": ((2, 0), (1, 3)), "stride": (2, 1), "dilation": (1, 2)},
)


def check_all_stores(rng, x, w, settings):
    """Compare dot products, scaled ones, and signs."""
    settings = {"groups": x.shape[3], **settings}
    dot = ref.conv2d(x, w, **settings)
    packed = bo.pack(x), bo.prepack(w)
    assert np.array_equal(bo.conv2d(*packed, **settings), dot), settings
    alpha, bias = rng.standard_normal((2, len(w)), np.float32)
    scales = {"alpha": alpha, "k_map": rng.random(dot.shape[:3], np.float32), "bias": bias}
    want = ref.conv2d(x, w, **scales, **settings)
    assert np.array_equal(bo.conv2d(*packed, **scales, **settings), want), settings
    threshold = rng.integers(-9, 9, len(w))
    threshold[::5] = rng.choice((-(2**31), 2**31 - 1, 300, -300), len(threshold[::5]))
    flip = rng.random(len(w)) < 0.5
    bits = bo.conv2d_sign(*packed, threshold, flip=flip, **settings)
    # from_words refuses set padding bits
    assert bo.BitArray.from_words(bits.words, dot.shape) == bo.pack((dot > threshold) ^ flip)


@pytest.mark.parametrize("channels", CHANNELS)
def test_equals_reference(isa, threads, channels):
    rng = np.random.default_rng(SEED + channels)
    for turn, settings in enumerate(SETTINGS):
        per_channel = (1, 2, 8, 9)[turn % 4]
        kernel = ((3, 3), (1, 1), (5, 4), (2, 7))[turn // 2 % 4]
        x = random_signs(rng, 2, int(rng.integers(7, 10)), int(rng.integers(7, 40)), channels)
        w = random_signs(rng, channels * per_channel, *kernel, 1)
        check_all_stores(rng, x, w, settings)


@pytest.mark.parametrize("kernel", ((16, 16), (1, 254), (255, 1), (15, 17), (3, 300)))
def test_many_taps(isa, threads, rng, kernel):
    """Up to 254 taps fit a byte; more are counted in parts."""
    for channels in (3, 8):
        x = random_signs(rng, 1, 5, 6, channels)
        w = random_signs(rng, 2 * channels, *kernel, 1)
        padding = tuple((size - 1, size // 2) for size in kernel)
        for pad_value in (0, 1):
            check_all_stores(rng, x, w, {"padding": padding, "pad_value": pad_value, "stride": 40})


@pytest.mark.parametrize(("channels", "per_channel"), ((4097, 1), (8200, 1), (600, 8)))
def test_more_channels_than_one_span(isa, threads, rng, channels, per_channel):
    x = random_signs(rng, 1, 3, 4, channels)
    w = random_signs(rng, channels * per_channel, 3, 3, 1)
    for pad_value in (0, -1):
        check_all_stores(rng, x, w, {"padding": 1, "pad_value": pad_value})


def test_lines_longer_than_one_span(isa, threads, rng):
    for channels, stride in ((64, 1), (64, 2), (24, 1), (5, 1)):
        x = random_signs(rng, 1, 3, 900, channels)
        w = random_signs(rng, channels, 3, 3, 1)
        check_all_stores(rng, x, w, {"padding": 1, "stride": stride})


def test_extreme_counts(isa, rng):
    """All taps of a filter match, or none."""
    for kernel in (3, 15):
        x, w = np.ones((1, 20, 20, 70), np.int8), np.ones((70, kernel, kernel, 1), np.int8)
        w[::2] = -1
        dot = bo.conv2d(x, w, groups=70)
        assert_array_equal(dot[0, 0, 0], kernel**2 * w[:, 0, 0, 0].astype(np.int32))
        for threshold in (-(kernel**2), kernel**2 - 1, kernel**2):
            bits = bo.conv2d_sign(x, w, threshold, groups=70)
            assert bits == bo.pack(dot > threshold)
