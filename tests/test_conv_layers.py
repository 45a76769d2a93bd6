"""Layers of convolutional networks: forward, backward, shapes, settings."""

import numpy as np
import pytest
from scipy.signal import correlate

from bitops import reference
from bitops.layers import (
    AvgPool2D,
    BatchNorm,
    BinaryConv2D,
    BinaryDense,
    Conv2D,
    Dense,
    Dropout,
    Flatten,
    FloatConv2D,
    FloatDense,
    GlobalAvgPool2D,
    MaxPool2D,
    Packed,
    PackedConv2D,
    PackedDense,
    PackedFlatten,
    PackedGlobalAvgPool2D,
    PackedMaxPool2D,
    PackedResidual,
    PackedSign,
    ReLU,
    Residual,
    Sequential,
    Sign,
)
from bitops.ops.array import BitArray, pack, unpack
from bitops.quantizers import xnor_weight_gradient


def signs(x):
    return np.where(np.asarray(x) >= 0, 1, -1)


def numeric_gradient(loss, x, step=1e-2):
    """Central differences of a scalar function, one element at a time."""
    grad = np.zeros(x.shape)
    for index in np.ndindex(x.shape):
        up, down = x.copy(), x.copy()
        up[index] += step
        down[index] -= step
        grad[index] = (loss(up) - loss(down)) / (2 * step)
    return grad


def assert_gradients(layer, x, rng, atol=3e-3):
    """dx and the gradients of all parameters against finite differences."""
    dy = rng.normal(size=layer(x).shape).astype(np.float32)
    layer.forward(x, training=True)
    dx = layer.backward(dy)

    def loss(x):
        return float(np.sum(dy.astype(np.float64) * layer(x)))

    np.testing.assert_allclose(dx, numeric_gradient(loss, x), atol=atol)
    for parameter in layer.parameters():
        start = parameter.value.copy()

        def loss_of(value, parameter=parameter):
            parameter.assign(value)
            return loss(x)

        expected = numeric_gradient(loss_of, start)
        parameter.assign(start)
        np.testing.assert_allclose(parameter.grad, expected, atol=atol)


def real_images(rng, *shape):
    return rng.normal(size=shape).astype(np.float32)


SETTINGS = [
    {},
    {"padding": 1},
    {"stride": 2, "padding": "same"},
    {"dilation": (1, 2), "padding": ((0, 2), (1, 0))},
    {"groups": 2, "padding": 1},
    {"groups": 4, "stride": (1, 2)},
]


# Conv2D: the yardstick of the binary one


def test_conv_forward_equals_correlation():
    rng = np.random.default_rng(0)
    layer = Conv2D(3, 4, (3, 2), seed=0)
    layer.bias.assign(rng.normal(size=4))
    x = real_images(rng, 2, 6, 5, 3)
    w = layer.weight.value
    expected = np.stack(
        [[correlate(image, f, mode="valid")[..., 0] for f in w] for image in x.astype(np.float64)]
    )
    np.testing.assert_allclose(
        layer(x), np.moveaxis(expected, 1, -1) + layer.bias.value, rtol=1e-4, atol=1e-5
    )
    bits = pack(x)
    np.testing.assert_array_equal(layer(bits), layer(signs(x)))


@pytest.mark.parametrize("settings", SETTINGS)
def test_conv_gradients_match_finite_differences(settings):
    rng = np.random.default_rng(1)
    layer = Conv2D(4, 4, (2, 3), bias="groups" not in settings, seed=0, **settings)
    assert_gradients(layer, real_images(rng, 2, 5, 6, 4), rng)


def test_conv_works_in_blocks(monkeypatch):
    rng = np.random.default_rng(2)
    layer = Conv2D(4, 6, 3, padding=1, groups=2, seed=0)
    x, dy = real_images(rng, 5, 7, 7, 4), real_images(rng, 5, 7, 7, 6)
    whole = layer.forward(x, training=True)
    dx, dw = layer.backward(dy), layer.weight.grad.copy()
    monkeypatch.setattr("bitops.layers.float_conv.MAX_BLOCK_BYTES", 2 * x[0].nbytes)
    monkeypatch.setattr("bitops.ops.patches.MAX_BYTES", 1000)
    np.testing.assert_allclose(layer.forward(x, training=True), whole, atol=1e-5)
    np.testing.assert_allclose(layer.backward(dy), dx, atol=1e-5)
    np.testing.assert_allclose(layer.weight.grad, dw, rtol=1e-5, atol=1e-4)


def test_float_layers_start_like_he():
    for layer in (Conv2D(30, 200, 3, seed=4), Dense(270, 200, seed=4)):
        assert abs(layer.weight.value.std() / np.sqrt(2 / 270) - 1) < 0.02
        assert not layer.bias.value.any()
        assert layer.weight.clip_value is None and layer.weight.lr_scale == 1


def test_dense_gradients_match_finite_differences():
    rng = np.random.default_rng(3)
    assert_gradients(Dense(7, 4, seed=0), real_images(rng, 5, 7), rng)
    assert_gradients(Dense(7, 4, bias=False, seed=0), real_images(rng, 2, 3, 7), rng)
    layer = Dense(70, 4, seed=0)
    x = rng.normal(size=(3, 70))
    np.testing.assert_array_equal(layer(pack(x)), layer(signs(x)))


# BinaryConv2D


@pytest.mark.parametrize("alpha", [False, True])
@pytest.mark.parametrize("settings", SETTINGS)
def test_binary_conv_forward_equals_the_reference(settings, alpha):
    rng = np.random.default_rng(5)
    layer = BinaryConv2D(8, 12, (3, 2), bias=True, scale_weights=alpha, seed=0, **settings)
    layer.bias.assign(rng.normal(size=12))
    w = layer.weight.value
    scales = {"bias": layer.bias.value}
    if alpha:
        scales["alpha"] = reference.binarize_weights(w)[1]
    real = real_images(rng, 2, 6, 7, 8)
    image = rng.integers(256, size=(2, 6, 7, 8), dtype=np.uint8)
    for training in (False, True):
        y = layer.forward(pack(real), training=training)
        assert y.dtype == np.float32
        np.testing.assert_array_equal(y, reference.conv2d(real, w, **scales, **settings))
        y = layer.forward(image, training=training)
        expected = reference.bitplane_conv2d(image, w, **scales, **settings)
        np.testing.assert_array_equal(y, expected)
        y = layer.forward(real, training=training)
        np.testing.assert_array_equal(y, reference.weight_conv2d(real, w, **scales, **settings))


@pytest.mark.parametrize("pad_value", [0, 1, -1])
@pytest.mark.parametrize("settings", SETTINGS)
def test_binary_conv_backward_is_that_of_its_float_twin(settings, pad_value):
    rng = np.random.default_rng(6)
    if pad_value:
        settings = {**settings, "padding": 1}
    layer = BinaryConv2D(4, 8, 3, bias=True, pad_value=pad_value, seed=0, **settings)
    x = real_images(rng, 3, 6, 7, 4)
    float_settings = {**settings, "padding": 0} if pad_value else settings
    twin = Conv2D(4, 8, 3, **float_settings)
    twin.weight.assign(signs(layer.weight.value))
    values = signs(x).astype(np.float32)
    if pad_value:
        values = np.pad(values, ((0, 0), (1, 1), (1, 1), (0, 0)), constant_values=pad_value)
    y = layer.forward(pack(x), training=True)
    np.testing.assert_array_equal(y, twin.forward(values, training=True))
    dy = rng.normal(size=y.shape).astype(np.float32)
    dx, expected = layer.backward(dy), twin.backward(dy)
    if pad_value:
        expected = expected[:, 1:-1, 1:-1]
    np.testing.assert_allclose(dx, expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(layer.weight.grad, twin.weight.grad, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(layer.bias.grad, dy.sum(axis=(0, 1, 2)), rtol=1e-4)


def test_real_input_of_binary_conv_gets_the_gradient_of_the_linear_map():
    rng = np.random.default_rng(7)
    layer = BinaryConv2D(3, 4, 2, padding=1, scale_weights=True, seed=0)
    x = real_images(rng, 2, 4, 4, 3)
    dy = rng.normal(size=layer(x).shape).astype(np.float32)
    layer.forward(x, training=True)
    dx = layer.backward(dy)

    def loss(x):
        return float(np.sum(dy.astype(np.float64) * layer(x)))

    np.testing.assert_allclose(dx, numeric_gradient(loss, x), atol=3e-3)


@pytest.mark.parametrize("make", [lambda **o: BinaryDense(6, 4, **o), None])
def test_gradient_with_alpha(make):
    rng = np.random.default_rng(8)
    if make is None:
        plain, scaled = (BinaryConv2D(3, 4, (1, 2), seed=0, scale_weights=a) for a in (False, True))
        x, n = real_images(rng, 2, 3, 3, 3), 6
    else:
        plain, scaled = (make(seed=0, scale_weights=a) for a in (False, True))
        x, n = real_images(rng, 5, 6), 6
    latent = scaled.weight.value.copy()
    edge = latent.reshape(-1)
    edge[:4] = 1, -1, np.nextafter(np.float32(1), np.float32(0)), 1.5
    for layer in (plain, scaled):
        layer.weight.assign(latent)
    alpha = np.abs(latent).reshape(4, -1).mean(axis=1)
    by_filter = alpha.reshape(4, *[1] * (latent.ndim - 1))
    y = scaled.forward(pack(x), training=True)
    np.testing.assert_allclose(y, plain.forward(pack(x), training=True) * alpha, rtol=1e-5)
    dy = rng.normal(size=y.shape).astype(np.float32)
    dx = scaled.backward(dy)
    expected = plain.backward(dy * alpha.astype(np.float32))
    np.testing.assert_allclose(dx, expected, rtol=1e-4, atol=1e-5)
    plain.backward(dy)
    inside = np.abs(latent) < 1
    assert inside.sum() == latent.size - 3
    expected = plain.weight.grad * (1 / n + by_filter * inside)
    np.testing.assert_allclose(scaled.weight.grad, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("settings", SETTINGS)
@pytest.mark.parametrize("alpha", [False, True])
def test_layer_that_scales_its_input(settings, alpha):
    rng = np.random.default_rng(9)
    layer = BinaryConv2D(
        4,
        8,
        3,
        bias=True,
        scale_weights=alpha,
        scale_input=True,
        clip_value=0.5,
        seed=0,
        **settings,
    )
    layer.bias.assign(rng.normal(size=8))
    x = real_images(rng, 2, 6, 7, 4)
    x[0, 0, 0] = 0.5, -0.5, 0, np.nextafter(np.float32(0.5), np.float32(1))
    window = {name: value for name, value in settings.items() if name != "groups"}
    k = reference.k_map(x, 3, **window)
    w = layer.weight.value
    factor = reference.binarize_weights(w)[1] if alpha else np.ones(8, np.float32)
    y = layer.forward(x, training=True)
    expected = reference.conv2d(x, w, alpha=factor, k_map=k, bias=layer.bias.value, **settings)
    np.testing.assert_array_equal(y, expected)
    # backward: that of the scaled product of signs, K a constant, and the mask of the hard tanh
    twin = Conv2D(4, 8, 3, **settings)
    twin.weight.assign(signs(w) * factor[:, None, None, None])
    twin.forward(signs(x), training=True)
    dy = rng.normal(size=y.shape).astype(np.float32)
    expected = twin.backward(dy * k[..., None]) * (np.abs(x) <= 0.5)
    np.testing.assert_allclose(layer.backward(dy), expected, rtol=1e-4, atol=1e-5)
    dw = twin.weight.grad
    if alpha:
        dw = xnor_weight_gradient(w, dw)
    np.testing.assert_allclose(layer.weight.grad, dw, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(layer.bias.grad, dy.sum(axis=(0, 1, 2)), rtol=1e-4)


def test_image_data_gets_no_gradient():
    image = np.random.default_rng(10).integers(256, size=(2, 5, 5, 3), dtype=np.uint8)
    layers = (
        BinaryConv2D(3, 4, 3, seed=0),
        BinaryConv2D(3, 4, 3, scale_input=True, seed=0),
        Conv2D(3, 4, 3, seed=0),
        Dense(3, 4, seed=0),
        MaxPool2D(2),
        AvgPool2D(2),
        GlobalAvgPool2D(),
        Residual(Conv2D(3, 3, 1, seed=0)),
    )
    for layer in layers:
        y = np.asarray(layer.forward(image, training=True))
        assert layer.backward(np.ones(y.shape, np.float32)) is None, layer
        assert all(parameter.grad.any() for parameter in layer.parameters())


def test_binary_conv_sees_every_change_of_its_weights():
    x = pack(np.ones((1, 3, 3, 5)))
    for alpha in (False, True):
        layer = BinaryConv2D(5, 2, 3, scale_weights=alpha, seed=0)
        layer.weight.assign(np.full((2, 3, 3, 5), 0.5))
        scale = 0.5 if alpha else 1
        np.testing.assert_array_equal(layer(x), np.full((1, 1, 1, 2), 45 * scale))
        layer.weight.writable()[1] = -1
        np.testing.assert_array_equal(layer(x).ravel(), [45 * scale, -45])


def test_binary_conv_starts_like_the_published_code():
    layer = BinaryConv2D(8, 24, 5, groups=2, seed=3)
    assert layer.weight.shape == (24, 5, 5, 4)
    assert layer.weight.clip_value == 1
    assert layer.weight.lr_scale == pytest.approx(np.sqrt(25 * (8 + 24) / 1.5))
    same = BinaryConv2D(8, 24, 5, groups=2, seed=3).weight.value
    np.testing.assert_array_equal(layer.weight.value, same)
    assert -1 <= same.min() < -0.99 and 0.99 < same.max() <= 1


# pools, ReLU, Flatten

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
@pytest.mark.parametrize("channels", [3, 70])
def test_max_pool_gives_the_gradient_to_the_first_maximum(size, stride, padding, channels):
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


# Residual


def test_residual_gradients_match_finite_differences():
    rng = np.random.default_rng(15)
    body = Sequential(Dense(5, 7, seed=0), ReLU(), Dense(7, 5, seed=1))
    x = real_images(rng, 3, 5)
    assert_gradients(Residual(body), x, rng, atol=5e-3)
    shortcut = Sequential(AvgPool2D(2), Conv2D(4, 6, 1, seed=0))
    layer = Residual(Conv2D(4, 6, 3, stride=2, padding=1, seed=1), shortcut)
    assert_gradients(layer, real_images(rng, 2, 4, 4, 4), rng, atol=5e-3)
    assert len(layer.parameters()) == 4


def test_residual_adds_bits_as_signs():
    rng = np.random.default_rng(16)
    x = pack(rng.normal(size=(3, 70)))
    body = BinaryDense(70, 70, seed=0)
    y = Residual(body).forward(x, training=True)
    assert y.dtype == np.float32
    np.testing.assert_array_equal(y, body(x) + unpack(x))
    np.testing.assert_array_equal(Residual(Sign(), Sign())(unpack(x)), 2 * unpack(x))


def test_residual_state_goes_back():
    rng = np.random.default_rng(17)
    layer = Residual(Sequential(BinaryDense(9, 9, seed=0), BatchNorm(9)), BatchNorm(9))
    x = rng.normal(size=(12, 9))
    layer.forward(x, training=True)
    state, before = layer.state(), layer(x)
    for parameter in layer.parameters():
        parameter.assign(rng.normal(size=parameter.shape))
    layer.forward(3 * x, training=True)
    assert not np.array_equal(layer(x), before)
    layer.restore(state)
    np.testing.assert_array_equal(layer(x), before)


def test_sums_of_packed_branches():
    """float32, like those of the training graph."""
    rng = np.random.default_rng(18)
    w = rng.choice([-1, 1], size=(70, 70))
    x = rng.choice([-1, 1], size=(4, 70))
    dot = x @ w.T
    sums = PackedResidual(PackedDense(w))(pack(x))
    np.testing.assert_array_equal(sums, (dot + x).astype(np.float32), strict=True)
    mixed = PackedResidual(PackedDense(w), PackedDense(w, alpha=np.full(70, 0.5)))(pack(x))
    np.testing.assert_array_equal(mixed, (dot * 1.5).astype(np.float32), strict=True)
    image = rng.integers(256, size=(4, 70), dtype=np.uint8)
    sums = PackedResidual(PackedDense(w))(image)
    wanted = (image.astype(int) @ w.T + image).astype(np.float32)
    np.testing.assert_array_equal(sums, wanted, strict=True)
    chained = Packed(PackedResidual(PackedDense(w)), PackedResidual(PackedSign(), PackedSign()))
    assert chained(pack(x)).dtype == np.float32
    assert PackedResidual(PackedSign())(x / 2).dtype == np.float32


# packed layers by hand


@pytest.mark.parametrize("settings", SETTINGS)
@pytest.mark.parametrize("channels", [4, 68])
def test_packed_conv_equals_the_reference(settings, channels):
    rng = np.random.default_rng(19)
    w = rng.normal(size=(8, 3, 2, channels // settings.get("groups", 1)))
    x = rng.normal(size=(2, 6, 7, channels)).astype(np.float32)
    image = rng.integers(256, size=x.shape, dtype=np.uint8)
    threshold, flip = rng.integers(-8, 8, size=8), rng.random(8) < 0.5
    alpha, bias = rng.normal(size=(2, 8)).astype(np.float32)
    products = [
        (pack(x), reference.conv2d(x, w, **settings)),
        (image, reference.bitplane_conv2d(image, w, **settings)),
        (x, reference.weight_conv2d(x, w, **settings)),
    ]
    for given, dot in products:
        y = PackedConv2D(w, **settings)(given)
        assert y.dtype == dot.dtype
        np.testing.assert_array_equal(y, dot)
        bits = PackedConv2D(pack(w), threshold, flip, **settings)(given)
        assert bits == pack((dot > threshold) ^ flip)
        bits = PackedConv2D(pack(w), threshold - 0.5, **settings)(given)
        assert bits == pack(dot > threshold - np.float32(0.5))
        y = PackedConv2D(w, alpha=alpha, bias=bias, **settings)(given)
        np.testing.assert_array_equal(y, dot.astype(np.float32) * alpha + bias)
    window = {name: value for name, value in settings.items() if name != "groups"}
    k = reference.k_map(x, (3, 2), **window)
    for scales in ({}, {"alpha": alpha}, {"bias": bias}):
        y = PackedConv2D(w, scale_input=True, **scales, **settings)(x)
        expected = reference.conv2d(x, w, k_map=k, **scales, **settings)
        assert y.dtype == np.float32
        np.testing.assert_array_equal(y, expected)


@pytest.mark.parametrize("pad_value", [1, -1])
def test_packed_conv_pads_bits(pad_value):
    rng = np.random.default_rng(20)
    w, x = rng.normal(size=(5, 3, 3, 3)), rng.normal(size=(2, 4, 4, 3))
    layer = PackedConv2D(w, padding=1, pad_value=pad_value)
    expected = reference.conv2d(x, w, padding=1, pad_value=pad_value)
    np.testing.assert_array_equal(layer(pack(x)), expected)
    with pytest.raises(ValueError, match=r"\[PackedConv2D\] pad_value must be 0 unless x is bits"):
        layer(x)
    np.testing.assert_array_equal(  # nothing is padded, so nothing is wrong
        PackedConv2D(w, pad_value=pad_value)(x.astype(np.float32)), reference.weight_conv2d(x, w)
    )


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


def test_float_twins_are_frozen_copies():
    rng = np.random.default_rng(22)
    w, bias = rng.normal(size=(4, 1, 2, 3)), rng.normal(size=4)
    layer = FloatConv2D(w, bias, stride=2, groups=2)
    x = real_images(rng, 2, 5, 5, 6)
    before = layer(x)
    w[...] = 0
    np.testing.assert_array_equal(layer(x), before)
    for array in (layer.weight, layer.bias):
        assert array.dtype == np.float32
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 1
    dense = FloatDense(np.eye(3))
    np.testing.assert_array_equal(dense([[1, 2, 3]]), [[1, 2, 3]])
    np.testing.assert_array_equal(dense(pack([[1, -2, 3]])), [[1, -1, 1]])


# shapes and summaries


def conv_net(**options):
    return Sequential(
        BinaryConv2D(3, 16, 3, padding=1, seed=0),
        MaxPool2D(2),
        BatchNorm(16),
        Sign(),
        Residual(
            Sequential(
                BinaryConv2D(16, 8, 3, stride=2, padding=1, scale_weights=True), BatchNorm(8)
            ),
            Sequential(AvgPool2D(2), Conv2D(16, 8, 1)),
        ),
        Flatten(),
        Dense(32, 10),
        **options,
    )


def test_summary_shows_shapes_and_multiply_adds():
    unknown = conv_net().summary()
    outputs = {row.layer: row.output for row in unknown.rows}
    assert outputs["BinaryConv2D"] == "?x?x16 numbers"
    assert outputs["Sign"] == "?x?x16 bits"
    assert outputs["body: BinaryConv2D"] == "?x?x8 numbers"
    assert outputs["Flatten"] == "? numbers"
    assert outputs["Dense"] == "10 numbers"
    assert unknown.total.float_macs is None and unknown.total.binary_macs is None
    assert unknown.rows[-1].float_macs == 320
    assert "?" in str(unknown).splitlines()[-1]
    known = conv_net().summary((8, 8, 3))
    outputs = {row.layer: row.output for row in known.rows}
    assert outputs["MaxPool2D"] == "4x4x16 numbers"
    assert outputs["body: BinaryConv2D"] == outputs["shortcut: Conv2D"] == "2x2x8 numbers"
    assert outputs["Residual"] == "2x2x8 numbers"
    assert outputs["Flatten"] == "32 numbers"
    total = known.total
    assert total.binary_macs == 8 * 9 * 16 * 4
    assert total.float_macs == 16 * 27 * 64 + 16 * 16 + 8 * 4 + 8 * 16 * 4 + 320
    assert total.parameters == 16 * 27 + 32 + 8 * 144 + 16 + 8 * 16 + 8 + 330
    assert total == conv_net(input_shape=(8, 8, 3)).summary().total
    packed = conv_net(input_shape=(8, 8, 3)).freeze()
    assert packed.input_shape == (8, 8, 3)
    assert packed.summary().total.binary_macs == total.binary_macs


def test_summary_is_aligned_with_unknown_sizes():
    for model in (conv_net(), conv_net().freeze()):
        assert len({len(line) for line in str(model.summary()).splitlines()}) == 1


def test_shapes_of_chains():
    model = conv_net()
    assert model.in_features == 3 and model.out_features == 10
    assert model.output_shape((8, 8, 3)) == (10,)
    assert Sequential(Flatten(), Dense(12, 4)).in_features is None
    assert Sequential(ReLU()).out_features is None
    assert Sequential(Flatten(), input_shape=(2, 3, 4)).out_features == 24
    assert GlobalAvgPool2D().output_shape((7, 5, 64)) == (64,)
    assert GlobalAvgPool2D().output_shape(()) == (None,)
    assert PackedGlobalAvgPool2D().output_shape((64,)) == (64,)
    assert MaxPool2D((2, 3), 1).output_shape((None, 9, 4)) == (None, 7, 4)
    assert BinaryConv2D(3, 4, 3, padding="same", stride=2).output_shape((9, 8, 3)) == (5, 4, 4)
    assert Residual(BatchNorm(4)).output_shape((2, 3, 4)) == (2, 3, 4)
    assert Residual(Conv2D(4, 6, 1), Conv2D(4, 6, 1)).out_features == 6


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: conv_net(input_shape=(12, 8, 3)), "layer 6 must take the 48 features"),
        (lambda: conv_net(input_shape=(8, 8, 4)), "take the 4 features"),
        (lambda: conv_net(input_shape=(10, 10, 3)), r"same shape, got \(3, 3, 8\) and \(2, 2, 8\)"),
        (
            lambda: conv_net(input_shape=(1, 1, 3)),
            "layer 1 must fit its input: .* must fit the pad",
        ),
        (lambda: conv_net(input_shape=(2, 8, 8, 3)), "must be images"),
        (lambda: conv_net().summary((8, 8, 1)), "take the 1 features"),
        (lambda: Sequential(BinaryConv2D(3, 4, 3), BinaryConv2D(3, 4, 3)), "take the 4 features"),
        (lambda: Sequential(Conv2D(3, 4, 3), GlobalAvgPool2D(), Dense(3, 4)), "take the 4"),
        (lambda: Residual(Dense(3, 4)), r"must give the same shape, got \(4,\) and \(3,\)"),
        (lambda: Residual(Dense(3, 4), Dense(3, 5)), r"same shape, got \(4,\) and \(5,\)"),
        (lambda: Residual(Dense(3, 4), Dense(2, 4)), "take the same features"),
        (lambda: Packed(PackedResidual(PackedDense(np.ones((3, 4))))), "same shape"),
    ],
)
def test_shapes_that_do_not_fit(make, message):
    with pytest.raises(ValueError, match=rf"^\[\w+\] .*({message})"):
        make()


@pytest.mark.parametrize(
    ("make", "error"),
    [
        (lambda: BinaryConv2D(0, 4, 3), ValueError),
        (lambda: BinaryConv2D(3, 4.0, 3), TypeError),
        (lambda: BinaryConv2D(3, 4, 0), ValueError),
        (lambda: BinaryConv2D(3, 4, (3, 3, 3)), TypeError),
        (lambda: BinaryConv2D(3, 4, 3, stride=0), ValueError),
        (lambda: BinaryConv2D(3, 4, 3, padding=-1), ValueError),
        (lambda: BinaryConv2D(3, 4, 3, padding="full"), ValueError),
        (lambda: BinaryConv2D(3, 4, 3, dilation=1.5), TypeError),
        (lambda: BinaryConv2D(3, 4, 3, groups=3), ValueError),
        (lambda: BinaryConv2D(3, 4, 3, groups=2), ValueError),
        (lambda: BinaryConv2D(3, 4, 3, groups=0), ValueError),
        (lambda: BinaryConv2D(3, 4, 3, pad_value=2), ValueError),
        (lambda: BinaryConv2D(3, 4, 3, pad_value=True), ValueError),
        (lambda: BinaryConv2D(3, 4, 3, clip_value=0), ValueError),
        (lambda: BinaryConv2D(3, 4, 3, bias=1), TypeError),
        (lambda: BinaryConv2D(3, 4, 3, scale_weights="yes"), TypeError),
        (lambda: BinaryConv2D(3, 4, 3, scale_input=None), TypeError),
        (lambda: BinaryConv2D(2**20, 1, 3), ValueError),  # too many weights in a filter
        (lambda: BinaryDense(3, 4, scale_weights=2), TypeError),
        (lambda: Conv2D(3, 4, 3, bias=0), TypeError),
        (lambda: Conv2D(4, 6, 3, groups=4), ValueError),
        (lambda: Dense(0, 1), ValueError),
        (lambda: MaxPool2D(0), ValueError),
        (lambda: MaxPool2D(2, 0), ValueError),
        (lambda: MaxPool2D(2, padding=2), ValueError),
        (lambda: AvgPool2D((2, 3), padding=((0, 2), (0, 0))), ValueError),
        (lambda: MaxPool2D("2"), TypeError),
        (lambda: Residual("body"), TypeError),
        (lambda: Residual(PackedSign()), TypeError),
        (lambda: Residual(Sign(), PackedSign()), TypeError),
        (lambda: PackedResidual(Sign()), TypeError),
        (lambda: PackedResidual([]), ValueError),
        (lambda: Sequential(Sign(), input_shape=32), TypeError),
        (lambda: Sequential(Sign(), input_shape=()), TypeError),
        (lambda: Sequential(Sign(), input_shape=(32, None)), TypeError),
        (lambda: Sequential(Sign(), input_shape=(32, 0)), ValueError),
        (lambda: PackedConv2D(np.ones((4, 3, 3))), ValueError),
        (lambda: PackedConv2D(np.ones((4, 3, 3, 0))), ValueError),
        (lambda: PackedConv2D(pack(np.ones((4, 3, 3, 8)), axis=0)), ValueError),
        (lambda: PackedConv2D(np.full((4, 3, 3, 8), np.nan)), ValueError),
        (lambda: PackedConv2D(np.ones((4, 3, 3, 8)), [1, 2]), ValueError),
        (lambda: PackedConv2D(np.ones((4, 3, 3, 8)), flip=[True] * 4), ValueError),
        (lambda: PackedConv2D(np.ones((4, 3, 3, 8)), 0, alpha=1.0), ValueError),
        (lambda: PackedConv2D(np.ones((4, 3, 3, 8)), 0, scale_input=True), ValueError),
        (lambda: PackedConv2D(np.ones((4, 3, 3, 8)), groups=3), ValueError),
        (lambda: PackedConv2D(np.ones((4, 3, 3, 8)), alpha=[1.0]), ValueError),
        (lambda: FloatConv2D(np.ones((4, 3, 8))), ValueError),
        (lambda: FloatConv2D(np.ones((4, 3, 3, 8)), groups=8), ValueError),
        (lambda: FloatConv2D(np.ones((4, 3, 3, 8), complex)), TypeError),
        (lambda: FloatDense(np.ones(4)), ValueError),
        (lambda: FloatDense(np.ones((2, 4)), [1.0, 2.0, 3.0]), ValueError),
        (lambda: PackedMaxPool2D(2, minimum=[1, 0]), TypeError),
        (lambda: PackedMaxPool2D(2, minimum=[[True]]), ValueError),
    ],
)
def test_impossible_settings(make, error):
    with pytest.raises(error, match=r"^\[\w+\] .*got"):
        make()


@pytest.mark.parametrize(
    ("x", "error", "message"),
    [
        (np.zeros((2, 5, 5, 7), np.uint8), ValueError, r"8 features, got shape \(2, 5, 5, 7\)"),
        (np.zeros((2, 5, 8)), ValueError, r"shape \(n, h, w, channels\), got \(2, 5, 8\)"),
        (pack(np.ones((2, 8))), ValueError, r"shape \(n, h, w, channels\), got \(2, 8\)"),
        (pack(np.ones((8, 5, 5, 8)), axis=0), ValueError, "packed along its last axis"),
        (np.zeros((2, 5, 5, 8), bool), TypeError, "got dtype bool"),
        (np.zeros((2, 2, 5, 8)), ValueError, "kernel must fit"),
    ],
)
def test_bad_inputs(x, error, message):
    w = np.ones((4, 3, 3, 8))
    layers = (BinaryConv2D(8, 4, 3), Conv2D(8, 4, 3), PackedConv2D(w), FloatConv2D(w))
    for layer in layers:
        with pytest.raises(error, match=rf"^\[\w+\] .*{message}"):
            layer(x)


def test_inputs_that_only_some_layers_refuse():
    bits = pack(np.ones((2, 5, 5, 8)))
    packed = PackedConv2D(np.ones((4, 3, 3, 8)), scale_input=True)
    for layer in (BinaryConv2D(8, 4, 3, scale_input=True), packed):
        with pytest.raises(
            TypeError, match=rf"\[{layer.name}\] x must be real for scale_input=True"
        ):
            layer(bits)
    with pytest.raises(ValueError, match=r"\[BinaryConv2D\] pad_value must be 0 unless x is bits"):
        BinaryConv2D(8, 4, 3, padding=1, pad_value=1)(np.zeros((2, 5, 5, 8), np.uint8))
    for layer in (MaxPool2D(2), AvgPool2D(2), GlobalAvgPool2D()):
        with pytest.raises(ValueError, match=rf"\[{layer.name}\] x must have shape \(n, h, w"):
            layer(np.zeros((2, 8)))
    with pytest.raises(ValueError, match=r"\[Residual\] .* must give the same shape"):
        Residual(Conv2D(8, 8, 3))(bits)
    with pytest.raises(ValueError, match=r"\[PackedMaxPool2D\] x must have 3 features"):
        PackedMaxPool2D(2, minimum=[True, False, True])(bits)


@pytest.mark.parametrize(
    "layer",
    [
        BinaryConv2D(3, 3, 1, seed=0),
        Conv2D(3, 3, 1, seed=0),
        Dense(3, 3, seed=0),
        MaxPool2D(2),
        AvgPool2D(2),
        GlobalAvgPool2D(),
        Flatten(),
        ReLU(),
        Residual(ReLU()),
    ],
)
def test_layers_keep_the_rules(layer):
    """Backward needs forward; inputs and gradients stay as they are; outputs are float32."""
    rng = np.random.default_rng(23)
    x = real_images(rng, 2, 4, 4, 3)
    y = layer(x)
    with pytest.raises(RuntimeError, match=rf"\[{layer.name}\] backward needs"):
        layer.backward(np.ones(y.shape, np.float32))
    x.flags.writeable = False
    y = layer.forward(x, training=True)
    grad = real_images(rng, *y.shape)
    grad.flags.writeable = False
    dx = layer.backward(grad)
    assert y.dtype == dx.dtype == np.float32 and dx.shape == x.shape
    assert layer(x[:0]).shape == (0, *y.shape[1:])


def test_repr_shows_settings():
    assert repr(BinaryConv2D(3, 4, 3)) == "BinaryConv2D(3, 4, 3x3)"
    layer = BinaryConv2D(
        4, 8, (3, 1), stride=2, padding=(1, 0), dilation=(2, 1), groups=2, pad_value=-1, bias=True
    )
    assert repr(layer) == (
        "BinaryConv2D(4, 8, 3x1, stride=2, padding=(1, 0), dilation=(2, 1), groups=2, "
        "bias=True, pad_value=-1)"
    )
    assert repr(Conv2D(3, 4, 1, padding="same")) == "Conv2D(3, 4, 1x1, padding='same')"
    assert repr(MaxPool2D(3, 2, ((0, 1), (0, 1)))) == (
        "MaxPool2D(3x3, stride=2, padding=((0, 1), (0, 1)))"
    )
    assert repr(PackedConv2D(np.ones((4, 3, 3, 8)), 0, padding=1)) == (
        "PackedConv2D(8, 4, 3x3, padding=1, threshold)"
    )
    assert "body" not in repr(Residual(ReLU()))
    assert repr(Residual(ReLU(), Dropout(0.5))).splitlines()[1:3] == [
        "    ReLU(),",
        "    Dropout(rate=0.5),",
    ]
    assert repr(Dense(2, 3, bias=False)) == "Dense(2, 3, bias=False)"
    assert repr(BinaryDense(2, 3, scale_weights=True)) == "BinaryDense(2, 3, scale_weights=True)"
