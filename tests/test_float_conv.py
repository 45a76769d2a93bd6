"""Float32 convolutions: sums that float32 holds exactly, real ones, and plans; every ISA."""

import numpy as np
import pytest
from numpy.testing import assert_array_equal

import bitops as bo
from bitops.layers import FloatConv2D, Packed, PackedReLU
from bitops.layers.float_conv import conv_gradients, float_convolution
from bitops.ops.geometry import make_window
from bitops.ops.patches import patch_blocks
from conftest import SEED

# Around vectors of 16 columns, panels of 32, and tiles of 14, 7 and 2 outputs.
FILTERS = (1, 3, 15, 16, 17, 31, 32, 33, 64, 70)
WIDTHS = (1, 2, 6, 7, 8, 13, 14, 15, 23, 29, 40)
CHANNELS = (1, 2, 3, 5, 16, 33)


def by_patches(x, w, window):
    """The same in float64, by rows of patches."""
    y = np.empty((len(x), *window.output, len(w)))
    matrix = w.reshape(len(w), -1).astype(np.float64).T
    for block, rows in patch_blocks(x.astype(np.float64), window):
        y[block] = (rows @ matrix).reshape(y[block].shape)
    return y


def pair(numbers):
    return tuple(map(int, numbers))


def random_case(rng):
    """Shapes of images and filters, and settings."""
    size = int(rng.integers(1, 12)), int(rng.choice(WIDTHS))
    kernel, stride = rng.integers(1, 6, 2), rng.integers(1, 4, 2)
    dilation, padding = rng.integers(1, 3, 2), rng.integers(0, 4, (2, 2))
    if rng.random() < 0.3:
        padding[...] = 0
    if rng.random() < 0.15:
        kernel[...] = stride[...] = 1
    channels = int(rng.choice(CHANNELS))
    images = int(rng.integers(1, 4)), *size, channels
    filters = int(rng.choice(FILTERS)), *map(int, kernel), channels
    return images, filters, (pair(stride), tuple(map(pair, padding)), pair(dilation))


def random_cases(count):
    rng = np.random.default_rng(SEED)
    while count:
        images, filters, (stride, padding, dilation) = random_case(rng)
        try:
            window = make_window("test", images[1:3], filters[1:3], stride, padding, dilation)
        except ValueError:  # the kernel is larger than the padded image
            continue
        count -= 1
        yield rng, images, filters, window


def test_integers_are_exact(isa, threads):
    for rng, images, filters, window in random_cases(150):
        x = rng.integers(-8, 9, images).astype(np.float32)
        w = rng.integers(-8, 9, filters).astype(np.float32)
        y = float_convolution(x, w, None, window, 1)
        assert_array_equal(y, by_patches(x, w, window), f"{images} {filters} {window}")


def test_real_numbers(isa):
    for rng, images, filters, window in random_cases(50):
        x = rng.standard_normal(images).astype(np.float32)
        w = rng.standard_normal(filters).astype(np.float32)
        bias = rng.standard_normal(filters[0]).astype(np.float32)
        y = float_convolution(x, w, bias, window, 1)
        sums = by_patches(np.abs(x), np.abs(w), window) + 1
        assert (np.abs(y - by_patches(x, w, window) - bias) <= 1e-6 * sums).all()


def test_threads_give_the_same_bits(rng):
    x = rng.standard_normal((2, 33, 31, 24), np.float32)
    w = rng.standard_normal((40, 3, 3, 24), np.float32)
    window = make_window("test", (33, 31), (3, 3), 1, 1, 1)
    results = []
    before = bo.get_num_threads()
    for count in (1, 2, 3):
        bo.set_num_threads(count)
        results.append(float_convolution(x, w, None, window, 1))
    bo.set_num_threads(before)
    assert_array_equal(results[0], results[1])
    assert_array_equal(results[0], results[2])


def test_nan_and_infinity_pass_where_they_are_seen(isa):
    x = np.ones((1, 5, 9, 2), np.float32)
    x[0, 2, 4, 1], x[0, 0, 0, 0] = np.nan, np.inf
    window = make_window("test", (5, 9), (3, 3), 1, 1, 1)
    y = float_convolution(x, np.ones((20, 3, 3, 2), np.float32), None, window, 1)
    seen = np.zeros((5, 9), bool)
    seen[1:4, 3:6] = True
    assert_array_equal(np.isnan(y), np.broadcast_to(seen[None, ..., None], y.shape))
    assert np.isinf(y[0, :2, :2]).all() and np.isfinite(y[0, 4]).all()


@pytest.mark.parametrize("filters, groups", ((34, 1), (34, 2), (4, 4)))
def test_weights_below_the_normal_numbers_count_as_0(isa, rng, filters, groups):
    x = np.float32(2.0**100) * rng.standard_normal((2, 9, 8, 4), np.float32)
    w = np.full((filters, 3, 3, 4 // groups), 2.0**-126, np.float32)
    tiny = rng.random(w.shape) < 0.5
    w[tiny] = np.float32(2.0**-127) * rng.choice(np.float32([-1, 1, 1.5]), tiny.sum())
    before = w.tobytes()
    plain = np.where(tiny, np.float32(0), w)
    window = make_window("test", (9, 8), (3, 3), 1, 1, 1)
    want = float_convolution(x, plain, None, window, groups)
    assert_array_equal(float_convolution(x, w, None, window, groups), want)
    assert np.abs(want).max() > 2.0**-30
    settings = {"padding": 1, "groups": groups}
    model = Packed(PackedReLU(), FloatConv2D(w, **settings))
    assert_array_equal(model(x), FloatConv2D(plain, **settings)(np.maximum(x, 0)))
    gradients = [
        conv_gradients(x, want, each, window, groups, weight_grad=np.empty_like(w), with_dx=True)
        for each in (w, plain)
    ]
    assert_array_equal(*gradients)
    assert w.tobytes() == before


@pytest.mark.parametrize("size, kernel, stride", ((21, 7, 2), (14, 3, 1), (9, 1, 1), (9, 1, 2)))
def test_plans_give_the_same_bits(isa, threads, rng, size, kernel, stride):
    w = rng.standard_normal((37, kernel, kernel, 5), np.float32)
    bias = rng.standard_normal(37, np.float32)
    layer = FloatConv2D(w, bias=bias, stride=stride, padding=kernel // 2)
    model = Packed(PackedReLU(), layer, PackedReLU())
    for n in (1, 3):
        x = rng.standard_normal((n, size, size, 5), np.float32)
        expected = np.maximum(layer(np.maximum(x, 0)), 0)
        assert_array_equal(model(x), expected)
        assert model(x).tobytes() == expected.tobytes()


def test_views_and_empty_batches(isa, rng):
    x = rng.integers(-3, 4, (4, 9, 9, 6)).astype(np.float32)[::2, :, ::-1, ::3]
    w = rng.integers(-3, 4, (3, 3, 3, 2)).astype(np.float32)
    window = make_window("test", (9, 9), (3, 3), 1, 0, 1)
    assert_array_equal(float_convolution(x, w, None, window, 1), by_patches(x, w, window))
    assert float_convolution(x[:0], w, None, window, 1).shape == (0, 7, 7, 3)
