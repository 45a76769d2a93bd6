"""The update of Adam in the native module: to the bit what NumPy computes."""

import math

import numpy as np
import pytest

import bitops as bo
from bitops import _core

F = np.float32


def adam_in_numpy(w, g, m, v, rate, rest1, rest2, eps, keep, clip, seed):
    """The steps of the kernel, each rounded to float32, in their order."""
    m = m + F(rest1) * (g - m)
    v = v + F(rest2) * (g * g - v)
    w = w * F(keep) - F(rate) * (m / (np.sqrt(v) + F(eps)))
    return np.minimum(np.maximum(w, F(-clip)), F(clip)), m, v


# around a word, a vector, a span of 1024 and the size from which threads share
ADAM_SHAPES = ((1, 1), (3, 5), (2, 63), (2, 64), (5, 65), (7, 129), (3, 1023), (2, 1024), (3, 1025))
ADAM_SHAPES += ((1, 4099), (97, 343), (4100, 8))


@pytest.mark.parametrize("shape", ADAM_SHAPES)
@pytest.mark.parametrize(("keep", "clip"), [(1.0, math.inf), (1.0, 1.0), (0.75, 0.5)])
def test_equals_numpy_to_the_bit(isa, threads, rng, shape, keep, clip):
    w, g, m = (rng.normal(size=shape).astype(F) for _ in range(3))
    v = rng.random(shape, dtype=F)
    numbers = 0.02, 0.1, 0.001, 1e-8, keep, clip, 0
    words = np.full((shape[0], -(-shape[1] // 64)), ~np.uint64(0))
    for target in (None, words):
        expected = adam_in_numpy(w, g, m, v, *numbers)
        gradient = g.copy()
        assert _core.adam(g, *numbers, w, m, v, target) is False
        for array, wanted in zip((w, m, v), expected, strict=True):
            np.testing.assert_array_equal(array, wanted)
        np.testing.assert_array_equal(g, gradient)
    np.testing.assert_array_equal(words, bo.pack(w).words)


def hash32(x):
    """The finalizer of MurmurHash3."""
    x ^= x >> np.uint32(16)
    x *= np.uint32(0x85EBCA6B)
    x ^= x >> np.uint32(13)
    x *= np.uint32(0xC2B2AE35)
    return x ^ x >> np.uint32(16)


def from_bfloat16(halves):
    return (halves.astype(np.uint32) << np.uint32(16)).view(F)


def to_bfloat16(x, random):
    return ((x.view(np.uint32) + random) >> np.uint32(16)).astype(np.uint16)


def adam_with_bfloat16(w, g, m, v, *numbers):
    """The same with moments in bfloat16, as operations.h says how they are rounded."""
    w, m, v = adam_in_numpy(w, g, from_bfloat16(m), from_bfloat16(v), *numbers)
    places = np.arange(w.size, dtype=np.uint64) * np.uint64(0x9E3779B9) + np.uint64(numbers[-1])
    random = hash32(places.astype(np.uint32)).reshape(w.shape)
    low, high = random & np.uint32(0xFFFF), random >> np.uint32(16)
    return w, to_bfloat16(m, low), to_bfloat16(v, high)


@pytest.mark.parametrize("shape", ADAM_SHAPES)
def test_moments_in_bfloat16_equal_numpy_to_the_bit(isa, threads, rng, shape):
    w, g, m = (rng.normal(size=shape).astype(F) for _ in range(3))
    m, v = to_bfloat16(m, 0), to_bfloat16(rng.random(shape, dtype=F), 0)
    words = np.zeros((shape[0], -(-shape[1] // 64)), np.uint64)
    for seed in (1, 2**32 - 1):
        numbers = 0.02, 0.1, 0.001, 1e-8, 0.75, 0.5, seed
        expected = adam_with_bfloat16(w, g, m, v, *numbers)
        assert _core.adam(g, *numbers, w, m, v, words) is False
        for array, wanted in zip((w, m, v), expected, strict=True):
            np.testing.assert_array_equal(array, wanted)
    np.testing.assert_array_equal(words, bo.pack(w).words)


def test_moments_in_bfloat16_follow_gradients_that_change(isa):
    # from 1 to 0.01: rounded to the nearest, the second moment would stay where it is
    shape = 64, 100
    w, m, v = np.zeros(shape, F), np.zeros(shape, np.uint16), np.zeros(shape, np.uint16)
    exact = [np.zeros(shape, F) for _ in range(3)]
    for step in range(3000):
        g = np.full(shape, 1 if step < 500 else 0.01, F)
        numbers = 1e-4, 0.1, 0.001, 1e-8, 1.0, math.inf, step
        _core.adam(g, *numbers, w, m, v)
        _core.adam(g, *numbers, *exact)
    # the error of a mean of 6,400, each of which walked by steps of up to 1 / 128
    for found, wanted in zip((from_bfloat16(m), from_bfloat16(v)), exact[1:], strict=True):
        assert abs(found.mean() / wanted.mean() - 1) < 0.005
    assert abs(w.mean() / exact[0].mean() - 1) < 0.005


def test_clips_at_the_edge(isa):
    w = np.array([[1, -1, 0.5, 0, 3, -3, 1, -1]], dtype=F)
    g = np.array([[-1, 1, -1, 0, 0, 0, 0, 0]], dtype=F)
    m, v = np.zeros_like(w), np.zeros_like(w)
    words = np.zeros((1, 1), np.uint64)
    # the first step of Adam is the rate itself
    _core.adam(g, 0.25 * math.sqrt(0.5) / 0.5, 0.5, 0.5, 1e-30, 1.0, 1.0, 0, w, m, v, words)
    np.testing.assert_array_equal(w, np.array([[1, -1, 0.75, 0, 1, -1, 1, -1]], dtype=F))
    assert words[0, 0] == 0b01011101


def test_keeps_and_reports_nan(isa):
    w, g, m, v = np.ones((4, 3, 70), dtype=F)
    g[1, 65] = math.nan
    words = np.zeros((3, 2), np.uint64)
    assert _core.adam(g, 0.1, 0.1, 0.1, 1e-8, 1.0, 1.0, 0, w, m, v, words) is True
    assert np.isnan(w[1, 65]) and np.isnan(m[1, 65])
    assert np.count_nonzero(np.isnan(w)) == 1


def test_checks_sizes():
    good = np.zeros((2, 65), F)
    numbers = 0.1, 0.1, 0.1, 1e-8, 1.0, 1.0, 0
    for place in range(3):
        arrays = [good.copy() for _ in range(3)]
        arrays[place] = np.zeros((2, 64), F)
        with pytest.raises(ValueError, match="columns"):
            _core.adam(good, *numbers, *arrays)
    with pytest.raises(ValueError, match="words of a row"):
        _core.adam(good, *numbers, good.copy(), good.copy(), good.copy(), np.zeros((2, 1), "u8"))
    halves = np.zeros((2, 65), np.uint16)
    with pytest.raises(ValueError, match="columns of v"):
        _core.adam(good, *numbers, good.copy(), halves, halves[:, :64].copy())
    for m, v in ((halves, good), (good, halves)):
        with pytest.raises(ValueError, match="Buffer dtype mismatch"):
            _core.adam(good, *numbers, good.copy(), m, v)
    empty = np.zeros((0, 5), F)
    assert _core.adam(empty, *numbers, empty, empty, empty) is False
