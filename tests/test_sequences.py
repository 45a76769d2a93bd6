"""Layers of sequences: along the length they do what those of images do, and fold alike."""

import numpy as np
import pytest

import bitops as bo
from bitops import io
from bitops.convert import ConversionError
from bitops.layers import (
    AsImages,
    AsSequences,
    AvgPool1D,
    AvgPool2D,
    BatchNorm,
    BinaryConv1D,
    BinaryConv2D,
    Clip,
    Codes,
    Conv1D,
    Conv2D,
    Dense,
    Dropout,
    Flatten,
    GlobalAvgPool1D,
    MaxPool1D,
    MaxPool2D,
    PackedAsSequences,
    QuantizedConv1D,
    QuantizedConv2D,
    ReLU,
    Residual,
    RSign,
    Sequential,
    Sign,
    check_gradients,
)
from bitops.quantizers import Ternary

RNG = np.random.default_rng(0)
X = RNG.normal(0, 2, (3, 11, 6)).astype(np.float32)


@pytest.mark.parametrize(
    ("layer", "twin"),
    [
        (
            BinaryConv1D(6, 5, 3, stride=2, padding=(2, 0), bias=True, seed=0),
            BinaryConv2D(6, 5, (1, 3), stride=(1, 2), padding=((0, 0), (2, 0)), bias=True, seed=0),
        ),
        (
            BinaryConv1D(6, 4, 2, padding="same", dilation=3, groups=2, scale_input=True, seed=0),
            BinaryConv2D(
                6, 4, (1, 2), padding="same", dilation=(1, 3), groups=2, scale_input=True, seed=0
            ),
        ),
        (
            QuantizedConv1D(6, 5, 3, Ternary(), padding=1, seed=0),
            QuantizedConv2D(6, 5, (1, 3), Ternary(), padding=(0, 1), seed=0),
        ),
        (Conv1D(6, 5, 4, seed=0), Conv2D(6, 5, (1, 4), seed=0)),
        (MaxPool1D(3, 2, 1), MaxPool2D((1, 3), (1, 2), (0, 1))),
        (AvgPool1D(2), AvgPool2D((1, 2))),
    ],
    ids=lambda layer: layer.name,
)
def test_layers_are_those_of_images_of_height_1(layer, twin):
    y = layer.forward(X, training=True)
    wanted = twin.forward(X[:, np.newaxis], training=True)
    np.testing.assert_array_equal(y, wanted[:, 0])
    assert layer.output_shape((11, 6)) == y.shape[1:]
    dy = RNG.normal(size=y.shape).astype(np.float32)
    np.testing.assert_array_equal(layer.backward(dy), twin.backward(dy[:, np.newaxis])[:, 0])
    for own, other in zip(layer.parameters(), twin.parameters(), strict=True):
        np.testing.assert_array_equal(own.grad, other.grad)
    if layer.parameters():
        assert layer.weight.shape == twin.weight.shape
        assert layer.bias is layer.inner.bias
    packed = Sequential(layer).freeze()
    np.testing.assert_array_equal(packed(X), layer(X))


def test_mean_of_a_sequence():
    np.testing.assert_allclose(GlobalAvgPool1D()(X), X.mean(axis=1), rtol=1e-5, atol=1e-6)
    check_gradients(GlobalAvgPool1D(), X)
    check_gradients(Conv1D(6, 3, 3, padding=1, seed=0), X)


@pytest.mark.parametrize("x", [X, bo.pack(X), X.astype(np.int32), np.uint8(np.abs(X))], ids=str)
def test_axes_keep_every_kind_of_input(x):
    image = AsImages()(x)
    assert image.shape == (3, 1, 11, 6) and type(image) is type(x)
    back = AsSequences()(image)
    assert back.shape == x.shape
    assert back == x if isinstance(x, bo.BitArray) else (back == x).all()


def test_axes_keep_codes():
    codes = Codes(np.uint8(np.abs(X)) % 4, 2, 0.5)
    image = AsImages()(codes)
    assert isinstance(image, Codes) and image.shape == (3, 1, 11, 6)


def test_shapes():
    assert AsImages().output_shape(()) == (1, None, None)
    assert AsImages().output_shape((6,)) == (1, None, 6)
    assert AsSequences().output_shape((6,)) == (None, 6)
    assert AsSequences().output_shape((1, 11, 6)) == (11, 6)


def network(seed=0):
    return Sequential(
        Conv1D(6, 8, 3, padding="same", seed=seed),
        BatchNorm(8),
        Sign(),
        BinaryConv1D(8, 12, 3, padding=1, pad_value=1, seed=seed + 1),
        MaxPool1D(2),
        BatchNorm(12),
        Sign(),
        Dropout(0.1, seed=seed),
        BinaryConv1D(12, 10, 2, seed=seed + 2),
        Clip(-7, 9),
        ReLU(),
        BatchNorm(10),
        RSign(10),
        BinaryConv1D(10, 10, 3, padding=1, seed=seed + 3),
        Residual(Sequential(Sign(), BinaryConv1D(10, 10, 3, padding=1, seed=seed), BatchNorm(10))),
        GlobalAvgPool1D(),
        Dense(10, 4, seed=seed + 4),
        input_shape=(11, 6),
    )


def test_bits_flow_between_layers_of_sequences(tmp_path):
    model = network()
    x = np.random.default_rng(1).normal(size=(20, 11, 6)).astype(np.float32)
    model.forward(x, training=True)
    packed = model.freeze()
    np.testing.assert_array_equal(packed(x), model(x))
    assert [layer.name for layer in packed.layers] == [
        "PackedAsImages",
        "FloatConv2D",
        "PackedSign",
        "PackedConv2D",
        "PackedMaxPool2D",
        "PackedConv2D",
        "PackedConv2D",
        "PackedAsSequences",
        "PackedResidual",
        "PackedAsImages",
        "PackedGlobalAvgPool2D",
        "FloatDense",
    ]
    io.save(packed, tmp_path / "net.safetensors")
    np.testing.assert_array_equal(io.load(tmp_path / "net.safetensors")(x), packed(x))
    assert packed.outputs(x).shape == (20, 4)


def test_a_sign_behind_flatten_goes_before_both(rng):
    model = Sequential(
        BinaryConv1D(6, 5, 3, seed=0), BatchNorm(5), Flatten(), Sign(), input_shape=(11, 6)
    )
    model.forward(X, training=True)
    packed = model.freeze()
    assert [layer.name for layer in packed.layers] == [
        "PackedAsImages",
        "PackedConv2D",
        "PackedAsSequences",
        "PackedFlatten",
    ]
    assert packed(X) == model(X)


def test_it_trains():
    rng = np.random.default_rng(3)
    labels = rng.integers(0, 2, 200)
    steps = np.where(labels, 0.5, 1.5)[:, np.newaxis]
    x = np.sin(steps * np.arange(20) + rng.uniform(0, 6, (200, 1)))[..., np.newaxis]
    model = Sequential(
        Conv1D(1, 16, 5, seed=0),
        BatchNorm(16),
        Sign(),
        BinaryConv1D(16, 16, 3, seed=1),
        BatchNorm(16),
        ReLU(),
        GlobalAvgPool1D(),
        Dense(16, 2, seed=2),
    )
    model.fit(x, labels, epochs=8, batch_size=20, seed=0, verbose=0)
    assert model.error_rate(x, labels) < 0.1
    np.testing.assert_array_equal(model.freeze().predict(x), model.predict(x))


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: BinaryConv1D(6, 5, 0), ValueError, r"\[BinaryConv1D\] kernel_size"),
        (lambda: BinaryConv1D(6, 5, (1, 3)), TypeError, r"\[BinaryConv1D\] kernel_size"),
        (lambda: Conv1D(6, 5, 3, stride=0), ValueError, r"\[Conv1D\] stride"),
        (lambda: Conv1D(6, 5, 3, padding=(1, 2, 3)), ValueError, "one or two integers"),
        (lambda: Conv1D(6, 5, 3, padding=-1), ValueError, r"\[Conv1D\] padding"),
        (lambda: MaxPool1D(2, padding=2), ValueError, "padding must be smaller"),
        (lambda: Conv1D(6, 5, 3)(X[0]), ValueError, "sequences"),
        (lambda: Conv1D(5, 5, 3)(X), ValueError, "channels|features"),
        (lambda: AsSequences()(X), ValueError, "images of height 1"),
        (lambda: AsSequences()(np.ones((2, 3, 4, 5))), ValueError, "images of height 1"),
        (lambda: AsImages().output_shape((1, 2, 3)), ValueError, "sequences"),
        (lambda: PackedAsSequences().output_shape((2, 2, 3)), ValueError, "images of height 1"),
        (lambda: Sequential(Conv1D(6, 5, 12), input_shape=(11, 6)), ValueError, "must fit"),
    ],
)
def test_refusals(make, error, message):
    with pytest.raises(error, match=message):
        make()


# Files of Keras


def keras_network(rng):
    pytest.importorskip("h5py", reason="needs h5py")
    from random_keras import Network

    return Network(rng, rng.integers(0, 256, (4, 12, 3)).astype(np.float32))


@pytest.mark.parametrize("padding", ["valid", "same", "causal"])
@pytest.mark.parametrize("quantizer", ["ste_sign", "ste_tern", None])
def test_networks_of_sequences_come_from_keras(padding, quantizer, rng, tmp_path):
    pytest.importorskip("h5py", reason="needs h5py")
    from random_keras import convolve, entry_of, quantize, sign

    from bitops.convert import from_keras

    net = keras_network(rng)
    x = net.y - 128
    settings = {"use_bias": True, "padding": padding, "strides": [1], "dilation_rate": [1]}
    w, bias = net.real(3, 3, 8), net.real(8)
    net.add("Conv1D", {**settings, "activation": "relu"}, ("kernel", w), ("bias", bias))

    def convolved(x, w):
        ahead = len(w) - 1 if padding == "causal" else 0
        image = np.pad(x, ((0, 0), (ahead, 0), (0, 0)))[:, np.newaxis]
        mode = "same" if padding == "same" else "valid"
        return convolve(image, w[np.newaxis], 1, mode, 0, 1)[:, 0]

    y = np.maximum(convolved(x, w) + bias, 0)
    net.y = y
    net.norm()
    w = net.real(3, 8, 6)
    quantizers = {"input_quantizer": entry_of("ste_sign"), "kernel_quantizer": entry_of(quantizer)}
    net.add("QuantConv1D", {**settings, **quantizers, "use_bias": False}, ("kernel", w))
    y = convolved(sign(net.y), quantize(quantizer, w))
    net.add("MaxPooling1D", {"pool_size": [2], "strides": [2], "padding": "valid"})
    y = y[:, : y.shape[1] // 2 * 2].reshape(4, -1, 2, 6).max(axis=2)
    net.add("ZeroPadding1D", {"padding": [1, 2]})
    y = np.pad(y, ((0, 0), (1, 2), (0, 0)))
    net.add("AveragePooling1D", {"pool_size": 2, "strides": 1})
    y = (y[:, :-1] + y[:, 1:]) / 2
    net.add("GlobalAveragePooling1D", {})
    y = y.mean(axis=1)
    for name in ("net.h5", "net.keras"):
        (net.write_h5 if name.endswith("h5") else net.write_keras)(tmp_path / name)
        model = from_keras(tmp_path / name)
        assert model.input_shape == (12, 3)
        scores = model.freeze()(x)
        np.testing.assert_array_equal(scores, model(x))
        np.testing.assert_allclose(scores, y, rtol=0, atol=1e-5 * np.abs(y).max())


def test_scales_of_channels_come_from_keras(rng, tmp_path):
    """A product of an image and a row of factors, as in squeeze-and-excitation."""
    pytest.importorskip("h5py", reason="needs h5py")
    from random_keras import Network

    from bitops.convert import from_keras

    x = rng.normal(size=(4, 5, 6, 3)).astype(np.float32)
    net = Network(rng, x)
    start, w = net.last, net.real(3, 3)
    net.add("GlobalAveragePooling2D", {})
    net.add("Dense", {"use_bias": False, "activation": "sigmoid"}, ("kernel", w))
    net.add("Reshape", {"target_shape": [1, 1, 3]})
    net.add("Multiply", {}, inputs=(start, net.last))
    net.write_h5(tmp_path / "net.h5")
    factors = 1 / (1 + np.exp(-x.mean(axis=(1, 2)) @ w))
    model = from_keras(tmp_path / "net.h5")
    wanted = x * factors[:, np.newaxis, np.newaxis]
    np.testing.assert_allclose(model.freeze()(x), wanted, rtol=1e-5, atol=1e-6)
    net.add("Reshape", {"target_shape": [3, 6, 5]})
    net.write_h5(tmp_path / "net.h5")
    with pytest.raises(ConversionError, match="only a row can become an image of one pixel"):
        from_keras(tmp_path / "net.h5")


@pytest.mark.parametrize(
    ("kind", "settings", "message"),
    [
        ("MaxPooling1D", {"pool_size": [2, 2]}, "pool_size must be a positive integer"),
        ("AveragePooling1D", {"pool_size": 5, "padding": "same"}, "does not count"),
        ("ZeroPadding1D", {"padding": "x"}, "padding must be integers"),
        ("QuantConv1D", {}, "arrays must have"),
        ("MaxPooling1D", {"data_format": "channels_first"}, "data_format must be"),
    ],
)
def test_settings_of_keras_that_are_not_supported(kind, settings, message, rng, tmp_path):
    net = keras_network(rng)
    from bitops.convert import from_keras

    net.add(kind, settings)
    net.write_h5(tmp_path / "net.h5")
    with pytest.raises(ConversionError, match=message):
        from_keras(tmp_path / "net.h5")
