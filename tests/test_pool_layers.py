"""Pools, ReLU and Flatten, in training and packed."""

import weakref

import numpy as np
import pytest

from bitops import _core, reference
from bitops.layers import (
    AvgPool2D,
    BatchNorm,
    Flatten,
    GlobalAvgPool2D,
    MaxPool2D,
    PackedFlatten,
    PackedMaxPool2D,
    ReLU,
    Sequential,
)
from bitops.ops import pool
from bitops.ops.array import BitArray, pack, unpack
from bitops.ops.geometry import make_window
from bitops.ops.memory import aligned_empty
from helpers import assert_gradients

POOLS = [(2, None, 0), (3, 2, 1), ((2, 3), (1, 2), ((0, 1), (2, 0))), (3, 1, "same"), (2, 3, 0)]


def far_apart(rng, shape):
    """Numbers of which no two are closer than a step of the finite differences."""
    return rng.permutation(np.arange(np.prod(shape)) * 0.1 - 3).reshape(shape).astype(np.float32)


@pytest.mark.parametrize(("size", "stride", "padding"), POOLS)
def test_pool_gradients_match_finite_differences(size, stride, padding):
    rng = np.random.default_rng(11)
    x = far_apart(rng, (2, 5, 6, 3))
    for layer in (MaxPool2D(size, stride, padding), AvgPool2D(size, stride, padding)):
        assert_gradients(layer, x, rng)
    expected = reference.max_pool2d(x, size, stride=stride, padding=padding)
    np.testing.assert_array_equal(MaxPool2D(size, stride, padding)(x), expected)
    expected = reference.avg_pool2d(x, size, stride=stride, padding=padding)
    np.testing.assert_array_equal(AvgPool2D(size, stride, padding)(x), expected)


def test_global_pool_and_relu_gradients_match_finite_differences():
    rng = np.random.default_rng(12)
    x = far_apart(rng, (2, 3, 4, 3))
    assert_gradients(GlobalAvgPool2D(), x, rng)
    assert_gradients(ReLU(), x + np.float32(0.05), rng)
    layer = ReLU()
    np.testing.assert_array_equal(layer.forward([[-1.0, 0.0, 2.0]], training=True), [[0, 0, 2]])
    np.testing.assert_array_equal(layer.backward(np.ones((1, 3), np.float32)), [[0, 0, 1]])


def first_maximum(x, dy, size, stride, padding):
    """The gradient of max-pooling by plain loops."""
    _, h, w, _ = x.shape
    dx = np.zeros(x.shape)
    for i, oy, ox, c in np.ndindex(dy.shape):
        best = None
        for y in range(oy * stride - padding, oy * stride - padding + size):
            for z in range(ox * stride - padding, ox * stride - padding + size):
                if 0 <= y < h and 0 <= z < w and (best is None or x[i, y, z, c] > x[best]):
                    best = i, y, z, c
        dx[best] += dy[i, oy, ox, c]
    return dx


@pytest.mark.parametrize(("size", "stride", "padding"), [(2, 2, 0), (3, 2, 1), (3, 1, 2)])
@pytest.mark.parametrize("channels", [3, 70, 130])
def test_max_pool_gives_the_gradient_to_the_first_maximum(size, stride, padding, channels, threads):
    rng = np.random.default_rng(13)
    x = rng.integers(-1, 2, size=(2, 6, 7, channels)).astype(np.float32)  # many ties
    bits = pack(rng.normal(size=x.shape) - 1)  # and windows of only -1
    for given, values in ((x, x), (bits, unpack(bits)), (x.astype(np.int32), x)):
        layer = MaxPool2D(size, stride, padding)
        y = layer.forward(given, training=True)
        assert isinstance(y, BitArray) == isinstance(given, BitArray)
        np.testing.assert_array_equal(
            np.asarray(y), reference.max_pool2d(values, size, stride=stride, padding=padding)
        )
        dy = rng.integers(1, 9, size=y.shape).astype(np.float32)
        expected = first_maximum(values, dy, size, stride, padding)
        np.testing.assert_array_equal(layer.backward(dy), expected)


@pytest.mark.parametrize("channels", [1, 3, 64, 65, 128])
@pytest.mark.parametrize("image", [(3, 2), (1, 1), (4,), ()])
def test_flatten(channels, image):
    rng = np.random.default_rng(14)
    x = rng.normal(size=(2, *image, channels)).astype(np.float32)
    bits = pack(x)
    for layer in (Flatten(), PackedFlatten()):
        np.testing.assert_array_equal(layer(x), x.reshape(2, -1))
        flat = layer(bits)
        assert flat == pack(x.reshape(2, -1))
        assert flat.words.flags.c_contiguous
        assert layer(x.astype(np.int32)).dtype == np.int32
    layer = Flatten()
    layer.forward(bits, training=True)
    dy = rng.normal(size=(2, x[0].size)).astype(np.float32)
    np.testing.assert_array_equal(layer.backward(dy), dy.reshape(x.shape))


@pytest.mark.parametrize("channels", [3, 64, 70])
def test_packed_max_pool_with_minima(channels):
    rng = np.random.default_rng(21)
    minimum = rng.random(channels) < 0.5
    layer = PackedMaxPool2D(3, 2, 1, minimum)
    integers = rng.integers(-9, 9, size=(2, 6, 7, channels)).astype(np.int32)
    image = rng.integers(256, size=integers.shape, dtype=np.uint8)
    bits = pack(rng.normal(size=integers.shape))
    real = rng.normal(size=integers.shape).astype(np.float32)
    for given in (integers, image, real, bits):
        values = np.asarray(given).astype(np.float64)
        largest = reference.max_pool2d(values, 3, stride=2, padding=1)
        smallest = -reference.max_pool2d(-values, 3, stride=2, padding=1)
        y = layer(given)
        np.testing.assert_array_equal(np.asarray(y), np.where(minimum, smallest, largest))
        assert isinstance(y, BitArray) if given is bits else y.dtype == given.dtype
    assert PackedMaxPool2D(2, minimum=np.zeros(channels, bool))(bits) == PackedMaxPool2D(2)(bits)


@pytest.mark.parametrize("channels", (5, 64, 130))
@pytest.mark.parametrize("shape", ((0, 3, 2), (2, 3, 2), (1, 1, 1), (0,)))
def test_flatten_takes_no_examples(shape, channels):
    """Bits of whole words, which only move, and others; none of either."""
    x = np.ones((*shape, channels), np.float32)
    wanted = x.reshape(shape[0], int(np.prod((*shape[1:], channels))))
    for layer in (Flatten(), PackedFlatten()):
        assert layer.forward(pack(x)) == pack(wanted)
        assert layer.forward(x).shape == wanted.shape


@pytest.mark.parametrize("size", [1, 2, (3, 2)])
@pytest.mark.parametrize("stride", [None, 3, (4, 3)])
@pytest.mark.parametrize("shape", [(2, 7, 8, 3), (1, 4, 4, 130), (3, 9, 6, 128)])
def test_gradient_goes_to_the_first_maximum(rng, size, stride, shape, threads):
    x = rng.integers(-2, 3, size=shape).astype(np.float32)
    layer = MaxPool2D(size, stride)
    y = layer.forward(x, training=True)
    dy = rng.normal(size=y.shape).astype(np.float32)
    dy[..., 0] = -0.0
    (kh, kw), (sy, sx) = layer.windows.kernel_size, layer.windows.stride
    expected = np.zeros_like(x)
    for n, oy, ox, c in np.ndindex(y.shape):
        place = x[n, oy * sy : oy * sy + kh, ox * sx : ox * sx + kw, c]
        ky, kx = divmod(int(place.argmax()), kw)
        expected[n, oy * sy + ky, ox * sx + kx, c] += dy[n, oy, ox, c]
    found = layer.backward(dy)
    np.testing.assert_array_equal(found, expected)
    assert not np.signbit(found[found == 0]).any()
    turned = np.asfortranarray(dy)
    np.testing.assert_array_equal(layer.backward(turned), expected)


@pytest.mark.parametrize("size", [(15, 17), 16])
def test_places_of_large_windows(rng, size):
    """A byte counts 255 taps; of larger windows the images are kept."""
    x = rng.normal(size=(2, 16, 17, 3)).astype(np.float32)
    layer = MaxPool2D(size)
    dy = np.ones_like(layer.forward(x, training=True))
    expected = np.zeros_like(x)
    (height, width) = layer.windows.kernel_size
    for n, c in np.ndindex(2, 3):
        place = int(x[n, :height, :width, c].argmax())
        expected[n, place // width, place % width, c] = 1
    np.testing.assert_array_equal(layer.backward(dy), expected)


@pytest.mark.parametrize("settings", [(2,), (3, 2, 1)])
def test_training_keeps_no_images_of_numbers(rng, settings):
    x = rng.normal(size=(2, 4, 4, 3)).astype(np.float32)
    layer, seen = MaxPool2D(*settings), weakref.ref(x)
    y = layer.forward(x, training=True)
    del x
    assert seen() is None
    assert layer.backward(y).shape == (2, 4, 4, 3)


TILES = [(2, 2, 0), (3, 3, 1), (4, 4, 1), (2, 2, ((1, 0), (0, 0))), (2, 2, ((0, 0), (1, 0)))]


@pytest.mark.parametrize("kind", [MaxPool2D, AvgPool2D])
@pytest.mark.parametrize(("size", "stride", "padding"), [*TILES, (3, 2, 1), (2, 3, 0)])
@pytest.mark.parametrize("images", [1, 3])  # enough numbers for several threads
def test_all_numbers_of_a_gradient_are_written(
    monkeypatch, kind, size, stride, padding, images, threads
):
    """Also those that are in no window, as padding has pushed the windows out of line."""

    def filled(shape, dtype):
        array = aligned_empty(shape, dtype)
        array.fill(np.nan if dtype == np.float32 else 99)
        return array

    monkeypatch.setattr(pool, "aligned_empty", filled)
    layer, x = kind(size, stride, padding), np.ones((images, 48, 48, 20), np.float32)
    y = layer.forward(x, training=True)
    total = y.size if kind is MaxPool2D else y.astype(np.float64).sum()
    assert layer.backward(np.ones_like(y)).sum() == pytest.approx(total)


@pytest.mark.parametrize("channels", [3, 20, 130])
@pytest.mark.parametrize(
    ("size", "stride", "padding"),
    [(2, 2, 0), (2, 3, 0), (3, 2, 1), ((3, 2), (1, 2), ((2, 0), (0, 1))), (5, 7, 2)],
)
def test_mean_gradient_adds_the_shares_of_all_windows(
    rng, size, stride, padding, channels, threads
):
    x = rng.normal(size=(3, 8, 9, channels)).astype(np.float32)
    layer = AvgPool2D(size, stride, padding)
    dy = rng.integers(-9, 9, size=layer.forward(x, training=True).shape).astype(np.float32)
    window = layer.windows.on("AvgPool2D", x)
    (top, bottom), (left, right) = window.padding
    (kh, kw), (sy, sx) = window.kernel, window.stride
    padded = np.zeros((3, top + 8 + bottom, left + 9 + right, channels), np.float32)
    for oy, ox in np.ndindex(window.output):
        share = dy[:, oy : oy + 1, ox : ox + 1] / np.float32(kh * kw)
        padded[:, oy * sy : oy * sy + kh, ox * sx : ox * sx + kw] += share
    expected = padded[:, top : top + 8, left : left + 9]
    found = layer.backward(np.asfortranarray(dy))
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-5)
    assert not np.signbit(found[found == 0]).any()


@pytest.mark.parametrize("channels", [1, 20])
def test_gradient_is_the_sum_in_the_order_of_taps(channels):
    """Four windows share the pixel in the middle; the first tap sees the last of them."""
    dy = np.repeat(np.float32([1, 3e-8, 3e-8, 3e-8]).reshape(1, 2, 2, 1), channels, axis=3)
    x = np.zeros((1, 3, 3, channels), np.float32)
    x[0, 1, 1] = 1
    for layer, factor in ((MaxPool2D(2, 1), 1), (AvgPool2D(2, 1), 4)):
        layer.forward(x, training=True)
        total = np.float32(0)
        for share in dy[0, ::-1, ::-1, 0].ravel():
            total += share
        assert total > 1  # in the other order each small share is lost
        assert set(layer.backward(dy * factor)[0, 1, 1]) == {total}


def test_places_are_bytes():
    window = make_window("test", (16, 16), 16)
    x, y = np.zeros((1, 16, 16, 1), np.float32), np.zeros((1, 1, 1, 1), np.float32)
    places = np.zeros(y.shape, np.uint8)
    with pytest.raises(ValueError, match="at most 255 taps"):
        _core.max_places(x, y, window, places)
    with pytest.raises(ValueError, match="at most 255 taps"):
        _core.max_gradient(places, y, window, x)


def test_no_maximum_without_a_number():
    layer = MaxPool2D(2)
    x = np.full((1, 2, 2, 2), np.nan, np.float32)
    x[..., 1] = -np.inf
    layer.forward(x, training=True)
    found = layer.backward(np.ones((1, 1, 1, 2), np.float32))
    np.testing.assert_array_equal(found[..., 0], 0)
    np.testing.assert_array_equal(found[..., 1].ravel(), [1, 0, 0, 0])


@pytest.mark.parametrize("shape", [(0, 70), (3, 0), (2, 3, 0), (0, 0), (5, 63), (5, 64), (2, 3, 4)])
def test_relu_of_any_shape(rng, shape):
    x, dy = rng.normal(size=(2, *shape)).astype(np.float32)
    layer = ReLU()
    np.testing.assert_array_equal(layer.forward(x, training=True), np.maximum(x, 0))
    np.testing.assert_array_equal(layer.backward(dy), dy * (x > 0))


@pytest.mark.parametrize("channels", [3, 70])
@pytest.mark.parametrize("kind", ["max", "mean", "bits", "relu", "norm", "joined"])
def test_gradients_have_the_shape_of_the_output(rng, kind, channels):
    x = rng.normal(size=(2, 4, 4, channels)).astype(np.float32)
    pools = {"max": MaxPool2D(2), "mean": AvgPool2D(2), "bits": MaxPool2D(2)}
    layer = pools.get(kind) or Sequential(
        *[BatchNorm(channels)] * (kind != "relu"), *[ReLU()] * (kind != "norm")
    )
    shape = layer.forward(pack(x) if kind == "bits" else x, training=True).shape
    for wrong in ((1, *shape[1:]), (*shape[:3], 1), (shape[0] * shape[1], *shape[2:])):
        with pytest.raises(ValueError, match=r"^\[\w+\] grad must have shape \(2, "):
            layer.backward(np.ones(wrong, np.float32))
    assert layer.backward(np.ones(shape)).dtype == np.float32
