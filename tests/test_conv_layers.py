"""Convolutional layers, binary, float32 and packed: forward, backward, starts."""

import numpy as np
import pytest
from scipy.signal import correlate

from bitops import reference
from bitops.layers import (
    AvgPool2D,
    BinaryConv2D,
    BinaryDense,
    Conv2D,
    Dense,
    FloatConv2D,
    FloatDense,
    GlobalAvgPool2D,
    MaxPool2D,
    PackedConv2D,
    Residual,
)
from bitops.ops.array import pack
from bitops.quantizers import xnor_weight_gradient
from helpers import assert_gradients, numeric_gradient, real_images, signs

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
    for name in ("PATCH_BYTES", "MOST_PATCH_BYTES"):
        monkeypatch.setattr(f"bitops.layers.float_conv.{name}", 1000)
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
