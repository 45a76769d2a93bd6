"""Clip, PReLU, Softmax, Pad2D, MultiThreshold: gradients, packed twins, files, refusals."""

import numpy as np
import pytest

import bitops as bo
from bitops import io
from bitops.layers import (
    BatchNorm,
    BinaryConv2D,
    BinaryDense,
    Clip,
    Codes,
    Concat,
    Conv2D,
    Dense,
    Flatten,
    MultiThreshold,
    Packed,
    PackedClip,
    PackedDense,
    PackedMultiThreshold,
    PackedPad2D,
    PackedPReLU,
    PackedSoftmax,
    Pad2D,
    PReLU,
    Residual,
    Sequential,
    Sign,
    Softmax,
    Tanh,
    check_gradients,
)

RNG = np.random.default_rng(0)
X = RNG.normal(0, 2, (5, 8)).astype(np.float32)
IMAGES = RNG.normal(0, 2, (2, 6, 5, 4)).astype(np.float32)


@pytest.mark.parametrize(
    ("layer", "x"),
    [
        (Clip(), X),
        (Clip(-0.5, np.inf), X),
        (PReLU(8), X),
        (PReLU(4, start=-0.5), IMAGES),
        (Softmax(), X),
        (Pad2D(1), IMAGES),
        (Concat(Dense(8, 3, seed=0)), X),
        (Concat(Sequential(Dense(8, 3, seed=0), Tanh()), BatchNorm(8)), X),
        (Concat(Conv2D(4, 5, 3, padding=1, seed=0), Residual(Clip())), IMAGES),
        (Pad2D(((0, 2), (1, 0)), value=-1.5), IMAGES),
    ],
    ids=repr,
)
def test_gradients(layer, x):
    check_gradients(layer, x)


def test_forward():
    np.testing.assert_array_equal(Clip(-1, 0.5).forward(X), np.clip(X, -1, 0.5))
    np.testing.assert_array_equal(PReLU(8).forward(X), np.where(X < 0, X / 4, X))
    wanted = np.exp(X.astype(float))
    wanted /= wanted.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(Softmax().forward(X), wanted, rtol=1e-5)
    huge = np.float32([[1e30, 0, -1e30], [-np.inf, 0, 0]])
    np.testing.assert_array_equal(Softmax().forward(huge), [[1, 0, 0], [0, 0.5, 0.5]])
    padded = Pad2D(((1, 0), (0, 2)), value=7).forward(IMAGES)
    np.testing.assert_array_equal(
        padded, np.pad(IMAGES, ((0, 0), (1, 0), (0, 2), (0, 0)), constant_values=7)
    )


@pytest.mark.parametrize("features", [1, 8])
@pytest.mark.parametrize("levels", [1, 3, 255])
def test_multi_threshold_counts(features, levels):
    threshold = np.sort(RNG.normal(0, 2, (features, levels)).astype(np.float32), axis=1)
    layer = MultiThreshold(threshold)
    x = np.concatenate([X, np.broadcast_to(threshold[:, 0], (1, 8))])  # ties count
    codes = layer.forward(x)
    assert isinstance(codes, Codes) and 2**codes.bits > levels >= 2 ** (codes.bits - 1)
    wanted = (x[..., np.newaxis] >= threshold).sum(axis=-1)
    np.testing.assert_array_equal(codes.numbers, wanted)
    np.testing.assert_array_equal(layer.to_packed().forward(x), wanted)


def test_integers_are_compared_exactly():
    layer = PackedMultiThreshold(np.array([[2**24 + 1, 2**31 - 1]]))
    x = np.array([[2**24, 2**24 + 1], [2**31 - 1, -(2**31)]], np.int32)
    np.testing.assert_array_equal(layer.forward(x), [[0, 1], [2, 0]])


def test_nan_reaches_no_threshold():
    layer = MultiThreshold([[0.0, 1.0]])
    for made in (layer, layer.to_packed()):
        with pytest.raises(ValueError, match="x must not be NaN"):
            made.forward(np.float32([[0, np.nan]]))


def trained(*layers, shape):
    """A network whose statistics are those of a batch."""
    model = Sequential(*layers, input_shape=shape)
    x = np.random.default_rng(1).normal(0, 2, (40, *shape)).astype(np.float32)
    model.forward(x, training=True)
    return model, x


@pytest.mark.parametrize("activation", [lambda: Clip(), lambda: PReLU(12), lambda: PReLU(12, -0.5)])
def test_between_norm_and_sign(activation, tmp_path):
    """A monotone activation folds into thresholds; another one does not, and gives the same."""
    model, x = trained(
        BinaryDense(8, 12, seed=0),
        BatchNorm(12),
        activation(),
        Sign(),
        BinaryDense(12, 3, seed=1),
        BatchNorm(3),
        Softmax(),
        shape=(8,),
    )
    net = model.freeze()
    np.testing.assert_array_equal(net(x), model.forward(x))
    is_monotone = not isinstance(model.layers[2], PReLU) or (model.layers[2].slope.value >= 0).all()
    folded = PackedDense if is_monotone else PackedPReLU
    assert any(isinstance(layer, folded) for layer in net.layers)
    assert any(isinstance(layer, PackedPReLU) for layer in net.layers) is not is_monotone
    io.save(net, tmp_path / "net.safetensors")
    np.testing.assert_array_equal(io.load(tmp_path / "net.safetensors")(x), net(x))


def test_codes_and_padding_in_a_network(tmp_path):
    model, x = trained(
        BinaryConv2D(4, 8, 3, seed=0),
        BatchNorm(8),
        MultiThreshold(np.float32([[-0.5, 0, 0.5]])),
        Pad2D(1, value=1),
        BinaryConv2D(8, 5, 3, seed=1),
        BatchNorm(5),
        Flatten(),
        shape=(6, 5, 4),
    )
    net = model.freeze()
    np.testing.assert_array_equal(net(x), model.forward(x))
    kinds = [type(layer) for layer in net.layers]
    assert PackedMultiThreshold in kinds and PackedPad2D in kinds
    io.save(net, tmp_path / "net.safetensors")
    np.testing.assert_array_equal(io.load(tmp_path / "net.safetensors")(x), net(x))


def test_dense_blocks_freeze_and_load(tmp_path):
    def block(channels):
        body = Sequential(
            BatchNorm(channels),
            Sign(),
            BinaryConv2D(channels, 4, 3, padding=1, seed=channels),
        )
        return Concat(body)

    model, x = trained(
        Conv2D(3, 8, 3, seed=0),
        block(8),
        block(12),
        BatchNorm(16),
        Sign(),
        Flatten(),
        shape=(8, 8, 3),
    )
    net = model.freeze()
    np.testing.assert_array_equal(net(x).words, model.forward(x).words)
    assert net.output_shape((8, 8, 3)) == (576,)
    io.save(net, tmp_path / "net.safetensors")
    np.testing.assert_array_equal(io.load(tmp_path / "net.safetensors")(x).words, net(x).words)


@pytest.mark.parametrize("value", [1, -1])
def test_bits_are_padded_by_bits(value):
    bits = bo.pack(IMAGES)
    for layer in (Pad2D(1, value), PackedPad2D(1, value)):
        padded = layer.forward(bits)
        assert isinstance(padded, bo.BitArray)
        wanted = np.pad(bo.unpack(bits), ((0, 0), (1, 1), (1, 1), (0, 0)), constant_values=value)
        np.testing.assert_array_equal(bo.unpack(padded), wanted)


def test_files_keep_open_limits(tmp_path):
    net = Packed(PackedClip(low=0), PackedSoftmax())
    io.save(net, tmp_path / "net.safetensors")
    again = io.load(tmp_path / "net.safetensors")
    assert again.layers[0].low == 0 and again.layers[0].high == np.inf


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: Clip(1, 1), ValueError, "low must be below high"),
        (lambda: Clip(np.nan, 1), ValueError, "low"),
        (lambda: Clip("a", 1), TypeError, "low"),
        (lambda: PReLU(0), ValueError, "features"),
        (lambda: PReLU(3, np.inf), ValueError, "start"),
        (lambda: PackedPReLU([[1.0]]), ValueError, "must have shape"),
        (lambda: PackedPReLU([np.nan]), ValueError, "slope"),
        (lambda: Pad2D("same"), TypeError, "padding must be integers"),
        (lambda: Pad2D(-1), ValueError, "padding"),
        (lambda: Pad2D(1, np.inf), ValueError, "value"),
        (lambda: MultiThreshold([0.0]), ValueError, "must have shape"),
        (lambda: MultiThreshold([[1.0, 0.0]]), ValueError, "must not fall"),
        (lambda: MultiThreshold([[np.nan]]), ValueError, "must not be NaN"),
        (lambda: MultiThreshold(np.zeros((1, 256))), ValueError, "1 to 255 levels"),
        (lambda: MultiThreshold([["a"]]), TypeError, "integer or real"),
        (lambda: Concat(3), TypeError, "body must be a TrainingLayer"),
        (lambda: Concat(Dense(3, 2), Dense(4, 2)), ValueError, "take the same features"),
        (lambda: Concat(Pad2D(1)).forward(IMAGES), ValueError, "images of one size"),
        (lambda: Pad2D(1, 0.5).forward(bo.pack(IMAGES)), ValueError, r"\+1 or -1 for bits"),
        (lambda: Pad2D(1, 4).forward(Codes(IMAGES > 0, 2, 1.0)), ValueError, "must be a code"),
    ],
)
def test_refusals(make, error, message):
    with pytest.raises(error, match=message):
        make()
