"""Backward products with bits: those of float32 BLAS, exactly ordered or rounded to bytes."""

import itertools

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import bitops as bo
from bitops import _core
from bitops.layers import (
    BatchNorm,
    BinaryConv2D,
    BinaryDense,
    Flatten,
    QuantizedConv2D,
    Residual,
    Sequential,
    Sign,
)
from bitops.layers.backward import (
    Gradient,
    WeightGradient,
    conv_weight_gradient,
    gradient_of,
    weight_gradient,
)
from bitops.layers.byte_gradient import number_weight_gradient
from bitops.layers.float_conv import conv_gradients
from bitops.layers.inputs import Codes
from bitops.ops.byte_gemm import MOST_TERMS
from bitops.ops.geometry import make_window
from bitops.ops.mixed_conv import code_conv2d, products_to_images
from bitops.ops.mixed_gemm import code_gemm
from bitops.ops.patches import patch_blocks
from bitops.quantizers import ByteGradient, Ternary
from conftest import random_signs

MULTIPLIES_NUMBERS = True

ROUNDED = (8, 7, 6)  # bits of gradients that the products treat in different ways


def close(got, want, scale=1.0):
    assert_allclose(got, want, rtol=0, atol=scale * 1e-5 * np.abs(want).max(initial=1))


@pytest.mark.parametrize(("m", "n", "k"), ((1, 1, 1), (7, 65, 130), (100, 33, 64), (130, 5, 700)))
def test_dense_gradients(isa, threads, rng, m, n, k):
    dy = rng.standard_normal((m, n), np.float32)
    x, w = random_signs(rng, m, k), random_signs(rng, n, k)
    grad = np.empty((n, k), np.float32)
    weight_gradient(Gradient(dy), bo.pack(x), grad)
    close(grad, dy.T @ x)
    for rounding in (None, *(ByteGradient(5, bits) for bits in ROUNDED)):
        now, later = np.empty((2, n, k), np.float32)
        gradient = gradient_of(dy, rounding)
        weight_gradient(gradient, bo.pack(x), now)
        WeightGradient(gradient, bo.pack(x)).write(later)
        assert_array_equal(now, later)
    exact = Gradient(dy)
    close(exact.times(exact.matrix(), bo.pack(w.T)), dy @ w)


@pytest.mark.parametrize("pad_value", (0, -1, 1))
@pytest.mark.parametrize("padding", (0, 2, ((0, 3), (1, 0))))
def test_conv_gradients(rng, padding, pad_value):
    """The same as through float32 patches and BLAS, for every geometry."""
    for stride, dilation, kernel in itertools.product((1, 2, (1, 3)), (1, 2), (1, 3, (2, 3))):
        kernel_size = (kernel, kernel) if isinstance(kernel, int) else kernel
        window = make_window("test", (9, 8), kernel_size, stride, padding, dilation)
        x, w = random_signs(rng, 3, 9, 8, 5), random_signs(rng, 6, *kernel_size, 5)
        dy = rng.standard_normal((3, *window.output, 6), np.float32)
        want, got = np.empty(w.shape, np.float32), np.empty(w.shape, np.float32)
        options = {"outside": pad_value, "weight_grad": want, "with_dx": True}
        dx = conv_gradients(bo.pack(x), dy, w.astype(np.float32), window, 1, **options)
        turned = bo.pack(bo.pack(w.reshape(6, -1)).T)
        for rounding, scale in ((None, 1.0), (ByteGradient(0), 1e5 / 127)):
            gradient = gradient_of(dy, rounding)
            conv_weight_gradient(gradient, bo.pack(x), window, pad_value, got)
            positions = dy[..., 0].size
            close(got, want, scale * (1 if rounding is None else 4 * np.sqrt(positions)))
            back = gradient.to_images(turned, window, x.shape)
            close(back, dx, scale * (1 if rounding is None else 4 * np.sqrt(w[..., 0].size)))


def added_by_tap(products, window, shape):
    """Add rows of patches to images one tap after the other, in float32."""
    images = np.zeros(shape, np.float32)
    (oh, ow), (kh, kw) = window.output, window.kernel
    patches = products.reshape(shape[0], oh, ow, kh, kw, shape[3])
    corners = [-sides[0] for sides in window.padding]
    for ky, kx, oy, ox in itertools.product(range(kh), range(kw), range(oh), range(ow)):
        y = corners[0] + oy * window.stride[0] + ky * window.dilation[0]
        x = corners[1] + ox * window.stride[1] + kx * window.dilation[1]
        if 0 <= y < shape[1] and 0 <= x < shape[2]:
            images[:, y, x] += patches[:, oy, ox, ky, kx]
    return images


@pytest.mark.parametrize(
    ("bits", "least", "most", "zero"),
    (
        (6, 1, 63, 32),  # of gradients: sums of eight halves fit a byte
        (6, 0, 63, 32),
        (6, 0, 63, 0),
        (7, 1, 127, 64),
        (7, 0, 127, 64),
        (4, 1, 15, 8),
        (5, 0, 31, 0),
        (8, 1, 255, 128),
    ),
)
def test_codes_of_numbers(isa, threads, rng, bits, least, most, zero):
    """Exact for random codes and for the smallest and largest ones, in every order and size."""
    sizes = (1, 65, 2100), (3, 7, 33), (5, 31, 512), (66, 130, 700), (64, 64, 64), (76, 20, 300)
    for m, n, k in sizes:
        w = random_signs(rng, n, k)
        packed = bo.pack(w)
        for codes in (
            rng.integers(least, most + 1, (m, k), np.uint8),
            rng.choice(np.uint8([least, most]), (m, k)),
            np.where(w[0] > 0, most, least).astype(np.uint8) * np.ones((m, 1), np.uint8),
        ):
            want = (codes.astype(np.int64) - zero) @ w.T.astype(np.int64)
            for x in (codes, np.asfortranarray(codes)):
                assert_array_equal(code_gemm(x, packed, bits, zero), want)
            scaled = code_gemm(codes, packed, bits, zero, alpha=0.5, bias=3)
            assert_array_equal(scaled, want.astype(np.float32) * np.float32(0.5) + np.float32(3))


@pytest.mark.parametrize(("bits", "zero"), [(8, 10), (8, 0), (8, 128), (6, 32), (4, 0)])
def test_codes_outside_of_images_are_0(isa, rng, bits, zero):
    x = rng.integers(2**bits, size=(2, 5, 6, 33), dtype=np.uint8)
    w = bo.pack(random_signs(rng, 40, 3 * 3 * 33).reshape(40, 3, 3, 33))
    inside = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    got = code_conv2d(x, w, bits, zero, padding=1)
    assert_array_equal(got, code_conv2d(inside, w, bits, zero))


@pytest.mark.parametrize(
    ("images", "size", "channels", "outputs", "kernel", "stride", "padding", "dilation"),
    (
        (3, (6, 7), 32, 64, (3, 3), 1, 1, 1),  # a run of taps ends within a word
        (2, (9, 5), 64, 70, (3, 3), 1, 2, 1),  # 2 positions over, 6 columns over
        (1, (9, 11), 96, 130, (2, 3), (1, 2), ((0, 3), (1, 0)), (2, 1)),
        (2, (7, 9), 64, 65, (3, 2), 1, 1, (1, 2)),  # taps are no neighbours
        (1, (4, 3), 1056, 64, (2, 3), 1, 1, 1),  # one tap at a time fits
        (9, (2, 2), 64, 64, (2, 2), 2, 0, 1),  # no pixel is seen twice
        (2, (41, 33), 128, 20, (3, 3), 1, 1, 1),  # bands of lines
        (1, (8, 19), 192, 1030, (2, 4), (1, 3), 2, (3, 1)),  # two groups of columns
        (3, (3, 1), 64, 8, (1, 5), 1, (0, 4), 1),  # more outside than inside
    ),
)
@pytest.mark.parametrize(
    ("bits", "zero", "outside"), [(6, 32, 32), (7, 64, 1), (3, 0, 5), (8, 128, 128), (8, 0, 255)]
)
def test_images_are_convolved_without_patches(
    isa,
    threads,
    rng,
    bits,
    zero,
    outside,
    images,
    size,
    channels,
    outputs,
    kernel,
    stride,
    padding,
    dilation,
):
    window = make_window("test", size, kernel, stride, padding, dilation)
    x = rng.integers(1 if zero else 0, 2**bits, (images, *size, channels), np.uint8)
    signs = random_signs(rng, outputs, window.taps * channels)
    w = bo.pack(signs.reshape(outputs, *kernel, channels))
    ((_, rows),) = patch_blocks(x, window, outside=outside, max_bytes=2**30)
    want = code_gemm(rows, bo.pack(signs), 8, zero)
    settings = {"stride": stride, "padding": padding, "dilation": dilation, "outside": outside}
    got = code_conv2d(x, w, bits, zero, **settings)
    assert_array_equal(got, want.reshape(got.shape))
    most = max(abs(int(x.min()) - zero), abs(int(x.max()) - zero))
    scaled = code_conv2d(x, w, bits, zero, alpha=0.5, bias=3, most=most, **settings)
    assert_array_equal(scaled, got.astype(np.float32) * np.float32(0.5) + np.float32(3))


def test_tables_of_pixels_for_long_filters(isa, rng):
    for channels in (1824, 2048):  # 16,416 and 18,432 bits: more than 256 words
        x = rng.integers(0, 16, (1, 4, 4, channels), np.uint8)
        signs = random_signs(rng, 64, 9 * channels)
        w = bo.pack(signs.reshape(64, 3, 3, channels))
        window = make_window("test", (4, 4), (3, 3), 1, 0, 1)
        ((_, rows),) = patch_blocks(x, window, outside=0, max_bytes=2**30)
        got = bo.bitplane_conv2d(x, w, bits=4)
        assert_array_equal(got.reshape(-1, 64), rows.astype(np.int32) @ signs.T.astype(np.int32))


@pytest.mark.parametrize("most", (None, 31))
def test_sums_must_fit_int32(most):
    k = (2**31 - 1) // 255 + 1
    x, w = np.zeros((1, k), np.uint8), bo.pack(np.ones((1, k), np.int8))
    with pytest.raises(ValueError, match="k must be at most 8421504"):
        code_gemm(x, w, 6, 32, most=most)


def test_tables_of_pixels_that_no_memory_holds(isa):
    lines, pixels = 1073796779, 1041150906  # sides of which the size of the tables wraps to little
    x = np.ones((1, 1, 1, 32), np.uint8)
    w = bo.pack(np.ones((64, 2, 2, 32)))
    padding, dilation = ((0, lines - 1), (0, pixels - 1)), (lines - 1, pixels - 1)
    got = bo.bitplane_conv2d(x, w, bits=4, padding=padding, dilation=dilation)
    assert_array_equal(got, np.full((1, 1, 1, 64), 32))


@pytest.mark.parametrize(
    ("images", "size", "channels", "outputs", "kernel", "stride", "padding", "dilation"),
    (
        (1, (1, 1), 1, 1, (1, 1), 1, 0, 1),
        (3, (4, 4), 70, 33, (3, 3), 1, 1, 1),  # 16 positions: several images in the lanes
        (9, (6, 6), 30, 65, (3, 3), 2, 1, 1),
        (2, (7, 9), 3, 130, (2, 3), (1, 3), ((0, 3), (1, 0)), (2, 1)),
        (2, (8, 5), 129, 7, (3, 3), 1, 1, 1),  # 1161 columns, in the middle of a tap 1024
        (1, (3, 3), 64, 600, (3, 3), 1, 2, 1),  # more words than stay in the scratch memory
        (1, (5, 40), 5, 4, (1, 1), 3, 0, 1),  # most pixels are seen by no position
        (4, (2, 2), 6, 64, (2, 2), 1, 0, 1),
    ),
)
def test_products_are_added_tap_by_tap(
    isa, threads, rng, images, size, channels, outputs, kernel, stride, padding, dilation
):
    window = make_window("test", size, kernel, stride, padding, dilation)
    shape = (images, *size, channels)
    bits = bo.pack(random_signs(rng, window.taps * channels, outputs))
    numbers = rng.standard_normal((images, *window.output, outputs), np.float32)
    products = bo.weight_gemm(numbers.reshape(-1, outputs), bits)
    got = products_to_images(numbers, bits, window, shape)
    assert_array_equal(got, added_by_tap(products, window, shape))
    codes = rng.integers(0, 256, numbers.shape, np.uint8)
    scales = rng.standard_normal((2, len(bits)), np.float32)
    products = bo.bitplane_gemm(codes.reshape(-1, outputs), bits, alpha=scales[0], bias=scales[1])
    got = products_to_images(codes, bits, window, shape, alpha=scales[0], bias=scales[1])
    assert_array_equal(got, added_by_tap(products, window, shape))


def test_no_images_and_no_filters_give_zeros():
    window = make_window("test", (4, 4), (3, 3), 1, 1)
    for images, outputs in ((0, 5), (2, 0)):
        bits = bo.pack(np.ones((9 * 3, outputs)))
        numbers = np.ones((images, 4, 4, outputs), np.float32)
        got = products_to_images(numbers, bits, window, (images, 4, 4, 3))
        assert_array_equal(got, np.zeros((images, 4, 4, 3)))


def test_many_images_are_summed_in_blocks(rng):
    x, w = random_signs(rng, 40, 16, 16, 3), random_signs(rng, 4, 3, 3, 3)
    window = make_window("test", (16, 16), (3, 3), 1, 1)
    dy = rng.standard_normal((40, 16, 16, 4), np.float32)
    want, got = np.empty(w.shape, np.float32), np.empty(w.shape, np.float32)
    conv_gradients(bo.pack(x), dy, w.astype(np.float32), window, 1, weight_grad=want, with_dx=False)
    conv_weight_gradient(Gradient(dy), bo.pack(x), window, 0, got)
    close(got, want)


def test_equal_on_every_isa_and_thread_count(rng):
    dy = rng.standard_normal((64, 12, 12, 33), np.float32)
    x = bo.pack(random_signs(rng, 64, 12, 12, 40))
    window = make_window("test", (12, 12), (3, 3), 1, 1)
    results = []
    for name in bo.isa.available():
        for threads in (1, 2):
            before = bo.get_num_threads()
            bo.set_num_threads(threads)
            with bo.isa.use(name):
                for rounding in (None, *(ByteGradient(5, bits) for bits in ROUNDED)):
                    grad = np.empty((33, 3, 3, 40), np.float32)
                    conv_weight_gradient(gradient_of(dy, rounding), x, window, 0, grad)
                    results.append(grad)
            bo.set_num_threads(before)
    sides = 1 + len(ROUNDED)
    for i, result in enumerate(results):
        assert_array_equal(result, results[i % sides])


@pytest.mark.parametrize("bits", ROUNDED)
def test_bytes_keep_the_mean_and_zero(threads, rng, bits):
    g = rng.standard_normal((300, 100)).astype(np.float32) * np.float32(1e-3)
    g[:, :7] = 0
    rounding, trials, zero = ByteGradient(3, bits), 100, 2 ** (bits - 1)
    total = np.zeros(g.shape)
    for _ in range(trials):
        codes, step = rounding.round(g)
        assert codes.dtype == np.uint8
        assert (codes[:, :7] == zero).all()
        assert codes.min() >= 1
        assert codes.max() < 2 * zero
        assert abs(np.abs(codes.astype(int) - zero).max() - (zero - 1)) <= 1
        values = (codes.astype(np.float64) - zero) * step
        assert np.abs(values - g).max() < 1.001 * step
        total += values
    error = (total / trials - g) / step
    # The deviation of a rounding is at most 1/2, and that of the mean of all errors far smaller.
    assert abs(error.mean()) < 4 * 0.5 / np.sqrt(trials * g.size)
    assert error.std() < 0.5 / np.sqrt(trials)


def test_bytes_depend_on_the_seed_alone(rng):
    g = rng.standard_normal(20_000, np.float32)
    first, again, other = (ByteGradient(seed).round(g)[0] for seed in (1, 1, 2))
    assert_array_equal(first, again)
    assert (first != other).any()


@pytest.mark.parametrize(
    "shape",
    [(7,), (3, 1), (9000, 1), (5000, 3), (700, 256), (40, 333), (5, 4, 4, 96), (2, 9000), (0, 4)],
)
def test_bytes_of_scaled_numbers(threads, isa, rng, shape):
    g = rng.standard_normal(shape, np.float32)
    alpha = rng.standard_normal(shape[-1], np.float32)
    codes, step = ByteGradient(5, 6).round(g * alpha)
    scaled_codes, scaled_step = ByteGradient(5, 6).round(g, alpha)
    assert_array_equal(scaled_codes, codes)
    assert scaled_step == step


@pytest.mark.parametrize("alpha", (np.ones(3), np.ones((1, 4)), np.float32(2)))
@pytest.mark.parametrize("columns", (4, 1))
def test_factors_of_bytes_have_one_entry_a_column(alpha, columns):
    words = rf"\[ByteGradient\] alpha must have shape \({columns},\), one factor for each entry"
    with pytest.raises(ValueError, match=words):
        ByteGradient(1).round(np.ones((2, columns), np.float32), alpha)


def test_products_that_overflow_are_refused():
    with pytest.raises(ValueError, match=r"\[ByteGradient\] g, times alpha, must be finite"):
        ByteGradient(1).round(np.float32([[1e30, 1]]), np.float32([1e30, 1]))


@pytest.mark.parametrize("bits", (2, 6, 8))
@pytest.mark.parametrize("value", (0.0, 1e-45, 1e-38, 1.0, 3e38))
def test_bytes_of_extreme_numbers(value, bits):
    g = np.float32([[value, -value, 0]])
    rounding = ByteGradient(1, bits)
    codes, step = rounding.round(g)
    assert np.isfinite(step)
    assert codes[0, 2] == rounding.zero
    assert 1 <= codes.min() <= codes.max() < 2 * rounding.zero
    assert np.abs((codes - float(rounding.zero)) * step - g).max() <= 1.001 * step


@pytest.mark.parametrize("bits", (1, 9))
def test_bytes_have_2_to_8_bits(bits):
    with pytest.raises(ValueError, match=r"\[ByteGradient\] bits must be in 2..8, got"):
        ByteGradient(0, bits)
    with pytest.raises(ValueError, match=r"\[round_gradients\] bits must be in 2..8, got"):
        Sequential(BinaryDense(3, 2)).round_gradients(0, bits)


def test_models_without_binary_weights_have_nothing_to_round():
    with pytest.raises(ValueError, match=r"^\[round_gradients\] the model must have layers with"):
        Sequential(BatchNorm(3), Sign()).round_gradients(0)


def test_empty():
    codes, step = ByteGradient(1).round(np.empty((0, 4), np.float32))
    assert codes.shape == (0, 4)
    assert np.isfinite(step)


@pytest.mark.parametrize("bad", (np.nan, np.inf, -np.inf))
def test_bytes_refuse_what_is_not_finite(bad):
    with pytest.raises(ValueError, match=r"\[ByteGradient\] g must be finite"):
        ByteGradient(1).round(np.float32([0, bad, 1]))


def test_a_network_learns_with_rounded_gradients(rng):
    """All binary layers round, those within branches too; the same seed trains the same weights."""
    x = rng.integers(0, 256, (64, 6, 6, 2)).astype(np.uint8)
    labels = (x[:, :3].sum(axis=(1, 2, 3), dtype=int) > x[:, 3:].sum(axis=(1, 2, 3), dtype=int)) * 1

    def train(seed):
        body = Sequential(BatchNorm(8), Sign(), BinaryConv2D(8, 8, 3, padding=1, seed=1))
        model = Sequential(
            BinaryConv2D(2, 8, 3, padding=1, seed=0),
            Residual(body),
            BatchNorm(8),
            Sign(),
            Flatten(),
            BinaryDense(288, 2, seed=2),
            BatchNorm(2),
        )
        if seed is not None:
            model.round_gradients(seed)
            assert body.layers[2].rounding is not None
            assert len(model.generators()) == 3
        history = model.fit(x, labels, epochs=20, batch_size=16, verbose=0)
        return history, model.layers[0].weight.value.copy()

    history, weights = train(3)
    assert history.epochs[-1].loss < 0.7 * history.epochs[0].loss
    assert_array_equal(train(3)[1], weights)
    assert (train(4)[1] != weights).any()
    assert (train(None)[1] != weights).any()


@pytest.mark.parametrize("settings", ({"padding": 1}, {"stride": 2, "padding": (1, 0)}))
@pytest.mark.parametrize(
    ("quantizer", "bits"), ((None, None), (None, 8), (None, 6), (Ternary(), None))
)
def test_gradients_of_images_of_numbers(isa, rng, quantizer, bits, settings):
    """That of the images is by bits of the filters, as it is for images of signs."""
    x = random_signs(rng, 3, 7, 6, 70)
    dy, found = None, []
    for images in (x, bo.pack(x), np.maximum(x, 0)):
        if quantizer is None:
            layer = BinaryConv2D(70, 40, 3, seed=0, **settings)
        else:
            layer = QuantizedConv2D(70, 40, 3, quantizer, seed=0, **settings)
        if bits is not None:
            layer.rounding = ByteGradient(5, bits)
        y = layer.forward(images, training=True)
        dy = rng.standard_normal(y.shape, np.float32) if dy is None else dy
        found.append((layer.backward(dy), layer.weight.grad.copy()))
    (dx, grad), (dx_of_bits, grad_of_bits), (other, _) = found
    assert np.abs(dx).max() > 0
    if bits is None:  # others are rounded by numbers of their own
        assert_array_equal(dx, dx_of_bits)
    assert_array_equal(dx, other)
    assert_allclose(grad, grad_of_bits, atol=(1e-5 if bits is None else 0.2) * np.abs(grad).max())


def direct_weight_gradient(dy, x, window):
    """The sums over all positions, float64; x has 0 outside."""
    (top, bottom), (left, right) = window.padding
    padded = np.pad(x.astype(float), ((0, 0), (top, bottom), (left, right), (0, 0)))
    (sy, sx), (gy, gx), (height, width) = window.stride, window.dilation, window.output
    grad = np.empty((dy.shape[3], *window.kernel, x.shape[3]))
    for ky, kx in np.ndindex(window.kernel):
        lines = slice(ky * gy, ky * gy + (height - 1) * sy + 1, sy)
        pixels = slice(kx * gx, kx * gx + (width - 1) * sx + 1, sx)
        grad[:, ky, kx] = np.tensordot(dy.astype(float), padded[:, lines, pixels], ([0, 1, 2],) * 2)
    return grad


WINDOWS = (
    make_window("test", (6, 5), 3, padding=1),
    make_window("test", (6, 5), (2, 3), stride=(2, 1), padding=((1, 0), (0, 2)), dilation=(2, 1)),
    make_window("test", (6, 5), 1),
)


@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize("bits", ROUNDED)
@pytest.mark.parametrize("kind", ("positive", "real", "codes", "int32", "zeros"))
def test_weight_gradient_of_numbers(isa, threads, rng, monkeypatch, kind, bits, window):
    """Codes of both sides are multiplied exactly."""
    monkeypatch.setattr("bitops.layers.byte_gradient.POSITIONS", 7)
    monkeypatch.setattr("bitops.ops.byte_gemm.MOST_TERMS", 50)  # of up to 90
    monkeypatch.setattr("bitops.layers.byte_gradient.LEAST_POSITIONS", 1)
    monkeypatch.setattr("bitops.layers.byte_gradient.LEAST_OF_1X1", 1)
    n, c, o = 3, 37, 21
    x = rng.standard_normal((n, 6, 5, c), np.float32)
    if kind == "codes":
        x = Codes(rng.integers(0, 128, (n, 6, 5, c), np.uint8), 7, 0.25)
    elif kind == "int32":
        x = rng.integers(-300, 300, x.shape, np.int32)
    elif kind in ("positive", "zeros"):
        x = np.maximum(x, 0) * np.float32(kind == "positive")
    y = rng.standard_normal((n, *window.output, o), np.float32)
    dy, out = gradient_of(y, ByteGradient(5, bits)), np.empty((o, *window.kernel, c), np.float32)
    number_weight_gradient(dy, x, window, out)
    if kind == "codes":
        codes, zero, step = x.numbers, 0, x.step
    else:
        again = gradient_of(y, ByteGradient(5, bits))
        codes, zero, step = again.rounding.round_numbers(np.asarray(x, np.float32))
        assert zero == (64 if np.min(x) < 0 else 0) and codes.max() <= 127
        assert_array_equal(again.numbers, dy.numbers)
        assert np.abs((codes.astype(float) - zero) * step - x).max() <= 1.001 * step
    centred = dy.numbers.astype(float) - dy.rounding.zero
    want = direct_weight_gradient(centred, codes.astype(float) - zero, window) * dy.step * step
    assert_allclose(out, want, rtol=1e-6, atol=1e-6 * np.abs(want).max())


KINDS = {
    "bits": bo.pack,
    "real": lambda x: x,
    "codes": lambda x: Codes(np.uint8(x > 0), 3, 0.5),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("bits", (None, 8, 7, 6, 2))
def test_gradients_of_0(isa, rng, kind, bits):
    """Nothing is learned from them, nor from images of 0."""
    x = KINDS[kind](rng.standard_normal((5, 8, 8, 40), np.float32))
    layer = BinaryConv2D(40, 64, 3, padding=1, scale_weights=True, seed=0)
    layer.rounding = None if bits is None else ByteGradient(0, bits)
    y = layer.forward(x, training=True)
    assert not layer.backward(np.zeros_like(y)).any()
    assert not layer.weight.grad.any()
    if kind == "real":
        layer.forward(np.zeros((5, 8, 8, 40), np.float32), training=True)
        layer.backward(y)
        assert not layer.weight.grad.any()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("bits", (None, 8))
def test_gradients_of_other_dtypes(rng, kind, bits):
    """Layers of one's own may hand back float64, or views."""
    x = KINDS[kind](rng.standard_normal((5, 8, 8, 40), np.float32))
    found = []
    for change in (lambda g: g, lambda g: g.astype(np.float64), np.asfortranarray):
        layer = BinaryConv2D(40, 64, 3, padding=1, bias=True, seed=0)
        layer.rounding = None if bits is None else ByteGradient(0, bits)
        y = layer.forward(x, training=True)
        dx = layer.backward(change(y))
        found.append((dx, layer.weight.grad.copy(), layer.bias.grad.copy()))
    for other in found[1:]:
        for got, want in zip(other, found[0], strict=True):
            assert got.dtype == np.float32
            assert_array_equal(got, want)


@pytest.mark.parametrize("shape", ((0, 6, 5, 40), (3, 0, 5, 40), (3, 6, 0, 40)))
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("bits", (None, 8))
def test_gradients_without_pixels(bits, kind, shape):
    layer = BinaryConv2D(40, 64, 3, padding=2, seed=0)
    layer.rounding = None if bits is None else ByteGradient(0, bits)
    y = layer.forward(KINDS[kind](np.zeros(shape, np.float32)), training=True)
    assert layer.backward(np.ones_like(y)).shape == shape
    assert_allclose(layer.weight.grad, 0, atol=1e-5)


@pytest.mark.parametrize("bits", (8, 6))
def test_gradients_of_tiny_and_of_huge_numbers(rng, bits):
    window = make_window("test", (16, 16), 1)
    x = rng.uniform(1, 2, (4, 16, 16, 64)).astype(np.float32)
    y = rng.uniform(1, 2, (4, 16, 16, 64)).astype(np.float32)
    want = direct_weight_gradient(y, x, window)
    for of_x, of_y in ((1e-20, 3e-21), (1e30, 1e-30), (1e-30, 1e30), (1e17, 1e17)):
        out = np.empty((64, 1, 1, 64), np.float32)
        dy = gradient_of(y * np.float32(of_y), ByteGradient(0, bits))
        number_weight_gradient(dy, x * np.float32(of_x), window, out)
        assert_allclose(out, want * of_x * of_y, rtol=0.01)


def test_byte_gemm_checks_sizes():
    x, y = np.zeros((9, 17), np.uint8), np.zeros((9, 40), np.uint8)
    for rows, columns in ((17, 64), (32, 40), (16, 64), (32, 32)):
        with pytest.raises(ValueError, match=r"\[_core\] (rows|columns) of sums must"):
            _core.byte_gemm(x, 128, y, np.zeros((rows, columns), np.int32))
    with pytest.raises(ValueError, match=r"\[_core\] rows of y must"):
        _core.byte_gemm(x, 128, y[:8], np.zeros((32, 64), np.int32))


@pytest.mark.parametrize("x", (np.uint8([[[[3], [200]]]]), Codes(np.uint8([[[[3], [200]]]]), 8, 1)))
def test_numbers_of_8_bits_stay_exact(x):
    dy, out = np.float32([[[[0.3], [-1.1]]]]), np.empty((1, 1, 1, 1), np.float32)
    window = make_window("test", (1, 2), 1)
    number_weight_gradient(gradient_of(dy, ByteGradient(0)), x, window, out)
    assert_allclose(out.item(), 0.3 * 3 - 1.1 * 200, rtol=1e-6)


def test_largest_sums_of_bytes_fit(isa):
    positions = MOST_TERMS
    x, y = np.full((positions, 1), 255, np.uint8), np.full((positions, 1), 127, np.uint8)
    for codes, zero in ((x, 128), (np.zeros_like(x), 128)):
        sums = np.zeros((16, 32), np.int32)
        _core.byte_gemm(codes, zero, y, sums)
        assert sums[0, 0] == positions * 127 * (int(codes[0, 0]) - zero)


def test_numbers_to_round_must_be_finite():
    for x in ([1, np.inf], [np.nan, 0]):
        with pytest.raises(ValueError, match=r"^\[ByteGradient\] x must be finite, got infin"):
            ByteGradient(0).round_numbers(np.float32(x))
