"""Layers with other weights and activations than plain signs, and their packed twins."""

import numpy as np
import pytest

from bitops import quantizers as q
from bitops.layers import (
    BatchNorm,
    BinaryConv2D,
    BinaryDense,
    Codes,
    Conv2D,
    Dense,
    Flatten,
    MaxPool2D,
    PackedConv2D,
    PackedDense,
    PackedLevels,
    PackedPlanesConv2D,
    PackedPlanesDense,
    PackedQuantize,
    Quantize,
    QuantizedConv2D,
    QuantizedDense,
    QuantizeGradient,
    ReLU,
    Residual,
    Sequential,
    ShiftBatchNorm,
    Sign,
    Tanh,
)
from bitops.ops.array import BitArray, pack, unpack

WEIGHTS = (
    q.Ternary(0.3),
    q.TwnTernary(),
    q.LeastSquaresTernary(),
    q.ShareTernary(0.5),
    q.MagnitudeAwareSign(),
    q.XnorSign("chain"),
    q.DoReFaWeight(1),
    q.DoReFaWeight(2),
    q.DoReFaWeight(4),
)


def problem(rng, n=300, k=20):
    """Two classes that a line separates, with values around 0."""
    x = rng.normal(size=(n, k)).astype(np.float32)
    return x, (x @ rng.normal(size=k) > 0).astype(int)


def train(model, x, y):
    """300 steps of Adam."""
    model.fit(x, y, epochs=20, batch_size=20, schedule=lambda epoch, epochs: 1e-2, verbose=0)


# weights


@pytest.mark.parametrize("quantizer", WEIGHTS, ids=repr)
def test_quantized_dense_multiplies_with_what_its_quantizer_makes(quantizer):
    rng = np.random.default_rng(0)
    layer = QuantizedDense(70, 9, quantizer, bias=True, seed=0)
    layer.bias.assign(rng.normal(size=9))
    w = quantizer.forward(layer.weight.value)
    np.testing.assert_allclose(layer.values(), w, rtol=1e-6, atol=1e-7)
    real = rng.normal(size=(6, 70)).astype(np.float32)
    image = rng.integers(256, size=(6, 70), dtype=np.uint8)
    for x, values in ((pack(real), np.sign(real)), (real, real), (image, image)):
        y = layer.forward(x, training=True)
        expected = values.astype(np.float64) @ w.T.astype(np.float64) + layer.bias.value
        np.testing.assert_allclose(y, expected, rtol=1e-4, atol=1e-4)
        np.testing.assert_array_equal(layer(x), y)
        dy = rng.normal(size=y.shape).astype(np.float32)
        dx = layer.backward(dy)
        dw = quantizer.backward(layer.weight.value, dy.T @ values.astype(np.float32))
        np.testing.assert_allclose(layer.weight.grad, dw, rtol=1e-3, atol=1e-3)
        if x is not image:
            np.testing.assert_allclose(dx, dy @ w, rtol=1e-4, atol=1e-4)
        else:
            assert dx is None


@pytest.mark.parametrize("quantizer", [q.TwnTernary(), q.DoReFaWeight(3)], ids=repr)
@pytest.mark.parametrize("groups", [1, 2])
def test_quantized_conv_equals_a_float_convolution(quantizer, groups):
    rng = np.random.default_rng(1)
    settings = {"stride": (1, 2), "padding": 1, "groups": groups, "bias": True}
    layer = QuantizedConv2D(6, 8, 3, quantizer, seed=0, **settings)
    twin = Conv2D(6, 8, 3, **settings)
    twin.weight.assign(quantizer.forward(layer.weight.value))
    real = rng.normal(size=(2, 6, 7, 6)).astype(np.float32)
    for x in (real, pack(real)):
        y = layer.forward(x, training=True)
        np.testing.assert_allclose(y, twin.forward(x, training=True), rtol=1e-4, atol=1e-4)
        dy = rng.normal(size=y.shape).astype(np.float32)
        np.testing.assert_allclose(layer.backward(dy), twin.backward(dy), rtol=1e-3, atol=1e-4)
        dw = quantizer.backward(layer.weight.value, twin.weight.grad)
        np.testing.assert_allclose(layer.weight.grad, dw, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    ("gradient", "estimator"),
    [
        ("paper", q.XnorSign("paper")),
        (None, q.XnorSign("paper")),
        ("chain", q.XnorSign("chain")),
        (q.XnorSign("chain", released_scale=True), q.XnorSign("chain", released_scale=True)),
        (q.MagnitudeAwareSign(0.5), q.MagnitudeAwareSign(0.5)),
        (q.ApproxSign(), q.ApproxSign()),
        ("straight", q.SteSign(np.inf)),
    ],
)
def test_gradient_of_latent_weights(gradient, estimator):
    rng = np.random.default_rng(2)
    x, dy = rng.normal(size=(5, 33)), rng.normal(size=(5, 4)).astype(np.float32)
    layers = (
        BinaryDense(33, 4, scale_weights=True, gradient=gradient, seed=0),
        BinaryConv2D(33, 4, 1, scale_weights=True, gradient=gradient, seed=0),
    )
    for layer in layers:
        w = layer.weight.value.copy()
        w.reshape(-1)[:5] = 0, 1, -1, 0.5, -0.5
        layer.weight.assign(w)
        shape = (5, 33) if w.ndim == 2 else (5, 1, 1, 33)
        layer.forward(pack(x.reshape(shape)), training=True)
        layer.backward(dy.reshape(*shape[:-1], 4))
        dwb = (dy.T @ np.sign(x).astype(np.float32)).reshape(w.shape)
        expected = estimator.backward(w, dwb)
        np.testing.assert_allclose(layer.weight.grad, expected, rtol=1e-4, atol=1e-5)


def test_centered_weights_once_after_every_change():
    layer = BinaryConv2D(4, 1, (1, 2), scale_weights=True, center=True, seed=0)
    assert layer.weight.clip_value is None
    w = np.array([[2, 0, 0, 0], [0.5, 0.25, -0.25, -0.5]], np.float32).reshape(1, 1, 2, 4)
    layer.weight.assign(w)
    np.testing.assert_array_equal(np.asarray(layer.bits)[0, 0], [[1, -1, -1, -1], [1, 1, -1, -1]])
    centered = np.array([[1, -0.5, -0.5, -0.5], [0.5, 0.25, -0.25, -0.5]], np.float32)
    np.testing.assert_array_equal(layer.weight.value[0, 0], centered)
    np.testing.assert_array_equal(layer.alpha, [4 / 8])
    layer.forward(np.ones((1, 1, 2, 4)), training=True)
    np.testing.assert_array_equal(layer.weight.value[0, 0], centered)


def test_stochastic_weights_are_drawn_in_training_only():
    layer = BinaryDense(4, 2000, stochastic=True, seed=0)
    layer.weight.assign(np.tile(np.float32([1, -1, 0.5, 0]), (2000, 1)))
    x = np.eye(4, dtype=np.float32)
    np.testing.assert_array_equal(layer(x)[:, 0], [1, -1, 1, 1])
    y = layer.forward(x, training=True)
    assert (y[0] == 1).all() and (y[1] == -1).all()
    assert abs(y[2].mean() - 0.5) < 0.06 and abs(y[3].mean()) < 0.07
    again = layer.forward(x, training=True)
    assert (again[3] != y[3]).any()
    # evaluation between the passes changes nothing, and backward sees the weights that were drawn
    layer(x)
    dy = np.random.default_rng(0).normal(size=(4, 2000)).astype(np.float32)
    np.testing.assert_allclose(layer.backward(dy), dy @ again.T, rtol=1e-4, atol=1e-3)
    twin = BinaryDense(4, 2000, stochastic=True, seed=0)
    twin.weight.assign(layer.weight.value)
    np.testing.assert_array_equal(twin.forward(x, training=True), y)


def test_stochastic_network_freezes_to_binary_or_real_weights():
    rng = np.random.default_rng(3)
    x, y = problem(rng)
    model = Sequential(
        BinaryDense(20, 30, stochastic=True, seed=0), BatchNorm(30), ReLU(),
        BinaryDense(30, 2, stochastic=True, seed=1), BatchNorm(2),
    )  # fmt: skip
    train(model, x, y)
    assert model.error_rate(x, y) < 0.15  # with binary weights
    np.testing.assert_array_equal(model.freeze()(x), model(x))
    assert model.freeze().layers[0].name == "PackedDense"
    for layer in model.layers[::3]:
        layer.real_evaluation = True  # as BinaryConnect does
    assert model.freeze().layers[0].name == "FloatDense"
    np.testing.assert_array_equal(model.freeze()(x), model(x))
    assert model.error_rate(x, y) < 0.2


def test_real_evaluation_of_a_convolution():
    rng = np.random.default_rng(4)
    layer = BinaryConv2D(3, 5, 3, padding=1, bias=True, real_evaluation=True, seed=0)
    twin = Conv2D(3, 5, 3, padding=1)
    twin.weight.assign(layer.weight.value)
    x = rng.normal(size=(2, 4, 4, 3)).astype(np.float32)
    np.testing.assert_array_equal(layer(x), twin(x))
    assert not np.array_equal(layer.forward(x, training=True), twin(x))
    np.testing.assert_array_equal(Sequential(layer, Sign()).freeze()(x), pack(twin(x)))


def test_start_and_rate_of_latent_weights():
    layer = BinaryDense(800, 50, start="normal", lr_scale=1.0, seed=0)
    assert layer.weight.lr_scale == 1
    assert abs(layer.weight.value.std() - 0.05) < 0.001
    assert QuantizedDense(800, 50, q.TwnTernary(), clip_value=0.5).weight.clip_value == 0.5


def test_random_layers_name_their_generators():
    x, _ = problem(np.random.default_rng(15), n=40)
    model = Sequential(
        BinaryDense(20, 30, stochastic=True, seed=0), BatchNorm(30),
        Sign(quantizer=q.ClippedGradient(q.StochasticSign(seed=1), 1.0)),
        BinaryDense(30, 2, seed=2), QuantizeGradient(4, seed=3),
    )  # fmt: skip
    assert len(model.generators()) == 3
    states = [generator.bit_generator.state for generator in model.generators()]
    passes = []
    for _ in range(2):
        for generator, state in zip(model.generators(), states, strict=True):
            generator.bit_generator.state = state
        scores = model.forward(x, training=True)
        model.backward(np.ones_like(scores))
        passes.append((scores, model.layers[0].weight.grad.copy()))
    np.testing.assert_array_equal(passes[0][0], passes[1][0])
    np.testing.assert_array_equal(passes[0][1], passes[1][1])


# activations


SIGNS = (
    q.ApproxSign(),
    q.SwishSign(),
    q.AnnealedSign(progress=0.5),
    q.ClippedGradient(q.SteSign(), 0.5),
    q.ClippedGradient(q.ClippedGradient(q.ApproxSign(2.0), 0.5), 0.25),
)
EDGES = np.float32([[-1.5, -1, -0.5, -0.0, 0, 0.5, 1, 1.5, np.nextafter(np.float32(1), 2)]])


@pytest.mark.parametrize("quantizer", SIGNS, ids=repr)
def test_sign_with_another_pseudo_gradient(quantizer):
    layer = Sign(quantizer=quantizer)
    for training in (False, True):
        assert layer.forward(EDGES, training=training) == pack(EDGES)
    dy = np.linspace(-2, 2, EDGES.size, dtype=np.float32).reshape(EDGES.shape)
    np.testing.assert_array_equal(layer.backward(dy), quantizer.backward(EDGES, dy))
    assert Sequential(layer).freeze()(EDGES) == pack(EDGES)


def test_default_sign_passes_within_its_clip_value():
    layer = Sign()
    layer.forward(EDGES, training=True)
    passes = [[0, 1, 1, 1, 1, 1, 1, 0, 0]]
    np.testing.assert_array_equal(layer.backward(np.ones_like(EDGES)), passes)


def test_stochastic_sign_trains_at_random_and_evaluates_as_the_sign():
    layer = Sign(quantizer=q.StochasticSign(seed=0))
    x = np.full((1, 4000), 0.5, np.float32)
    bits = layer.forward(x, training=True)
    assert isinstance(bits, BitArray)
    assert abs(unpack(bits).mean() - 0.5) < 0.05
    assert layer(x) == pack(x)
    dy = np.ones_like(x)
    np.testing.assert_array_equal(layer.backward(dy), dy)


def test_progressive_sign_steepens_into_the_sign():
    quantizer = q.ProgressiveSign(1.0, 64.0)
    layer = Sign(quantizer=quantizer)
    x = np.float32([[-0.5, 0.25, 0.01, 2]])
    np.testing.assert_array_equal(
        layer.forward(x, training=True), [[-0.5, 0.25, np.float32(0.01), 1]]
    )
    np.testing.assert_array_equal(layer.backward(np.ones_like(x)), [[1, 1, 1, 0]])
    quantizer.progress = 0.5  # slope 8
    np.testing.assert_allclose(layer.forward(x, training=True), [[-1, 1, 0.08, 1]], rtol=1e-6)
    np.testing.assert_array_equal(layer.backward(np.ones_like(x)), [[0, 0, 8, 0]])
    assert layer(x) == pack(x)


def test_annealed_sign_between_identity_and_sign():
    quantizer = q.AnnealedSign(0.5, 8.0)
    x = np.float32([0, 0.25, -3])
    for progress, t, k in ((0.0, 0.5, 2), (0.5, 2, 1), (1.0, 8, 1)):
        quantizer.progress = progress
        expected = k * t * (1 - np.tanh(t * x.astype(np.float64)) ** 2)
        np.testing.assert_allclose(
            quantizer.backward(x, np.ones(3)), expected, rtol=1e-4, atol=1e-6
        )


LEVELS = (
    q.Heaviside(),
    q.DoReFaActivation(1),
    q.DoReFaActivation(2, 0.5),
    q.DoReFaActivation(8),
    q.ClippedGradient(q.Heaviside(), 0.5),
)


@pytest.mark.parametrize("quantizer", LEVELS, ids=repr)
def test_quantize_hands_on_codes(quantizer):
    layer = Quantize(quantizer)
    codes = layer.forward(EDGES, training=True)
    assert isinstance(codes, Codes) and codes.numbers.dtype == np.uint8
    np.testing.assert_allclose(np.asarray(codes), quantizer.forward(EDGES), rtol=1e-6)
    dy = np.linspace(-2, 2, EDGES.size, dtype=np.float32).reshape(EDGES.shape)
    np.testing.assert_array_equal(layer.backward(dy), quantizer.backward(EDGES, dy))


@pytest.mark.parametrize("quantizer", LEVELS, ids=repr)
def test_products_of_codes(quantizer):
    rng = np.random.default_rng(5)
    x = rng.normal(size=(4, 5, 6, 8)).astype(np.float32)
    codes = Quantize(quantizer)(x)
    values = codes.values()
    layers = (
        (BinaryConv2D(8, 6, 3, padding=1, bias=True, seed=0), codes, values),
        (QuantizedConv2D(8, 6, 3, q.TwnTernary(), padding=1, seed=0), codes, values),
        (BinaryDense(8, 7, scale_weights=True, seed=0), codes, values),
        (Dense(8, 7, seed=0), codes, values),
    )
    for layer, some, numbers in layers:
        y = layer.forward(some, training=True)
        np.testing.assert_allclose(y, layer(numbers), rtol=1e-4, atol=1e-4)
        dy = rng.normal(size=y.shape).astype(np.float32)
        dx = layer.backward(dy)
        dw = layer.weight.grad.copy()
        layer.forward(numbers, training=True)
        np.testing.assert_allclose(dx, layer.backward(dy), rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(dw, layer.weight.grad, rtol=1e-4, atol=1e-4)
    pool = MaxPool2D(2)
    np.testing.assert_array_equal(pool(codes).values(), pool(values))
    assert Flatten()(codes).shape == (4, 240)


def test_codes_of_one_bit_run_on_packed_bits():
    rng = np.random.default_rng(6)
    model = Sequential(
        BinaryConv2D(3, 70, 3, padding=1, seed=0), BatchNorm(70), Quantize(q.Heaviside()),
        BinaryConv2D(70, 9, 3, padding=1, scale_weights=True, seed=1), BatchNorm(9), MaxPool2D(2),
        Quantize(q.DoReFaActivation(1)), Flatten(),
        QuantizedDense(36, 33, q.TwnTernary(), seed=2), BatchNorm(33), Sign(),
        BinaryDense(33, 12, seed=3), BatchNorm(12), Quantize(q.Heaviside()),
        BinaryDense(12, 4, bias=True, seed=4),
    )  # fmt: skip
    for layer in model.layers:
        if isinstance(layer, BatchNorm):
            layer.running_mean[...] = np.round(rng.normal(size=layer.gamma.size) * 3)
            layer.gamma.assign(rng.choice([-1.0, 1.0, 0.5], size=layer.gamma.size))
    packed = model.freeze()
    assert [layer.name for layer in packed.layers] == [
        "PackedConv2D", "PackedConv2D", "PackedMaxPool2D", "PackedFlatten", "PackedPlanesDense",
        "PackedDense", "PackedDense",
    ]  # fmt: skip
    products = [layer for layer in packed.layers if hasattr(layer, "input_bits")]
    assert [layer.input_bits for layer in products] == [None, 1, 1, None, 1]
    assert [layer.threshold.dtype for layer in products[1:4]] == [np.int32] * 3
    x = rng.integers(256, size=(20, 4, 4, 3), dtype=np.uint8)
    np.testing.assert_array_equal(packed(x), model(x))
    bits = packed.layers[0](x)
    assert isinstance(bits, BitArray) and isinstance(packed.layers[1](bits), BitArray)


def test_codes_of_more_bits_run_as_bit_planes():
    rng = np.random.default_rng(7)
    x, y = problem(rng)
    model = Sequential(
        Dense(20, 30, seed=0), BatchNorm(30), Quantize(q.DoReFaActivation(2)),
        QuantizedDense(30, 30, q.DoReFaWeight(1), seed=1), QuantizeGradient(6, seed=0),
        BatchNorm(30), Quantize(q.DoReFaActivation(2)),
        QuantizedDense(30, 30, q.DoReFaWeight(2), seed=2), QuantizeGradient(6, seed=1),
        BatchNorm(30), Quantize(q.DoReFaActivation(2)), Dense(30, 2, seed=3),
    )  # fmt: skip
    train(model, x, y)
    assert model.error_rate(x, y) < 0.15
    packed = model.freeze()
    assert [layer.name for layer in packed.layers] == [
        "FloatDense", "PackedBatchNorm", "PackedQuantize",
        "PackedDense", "PackedBatchNorm", "PackedQuantize",
        "PackedPlanesDense", "PackedBatchNorm", "PackedQuantize", "PackedLevels", "FloatDense",
    ]  # fmt: skip
    np.testing.assert_array_equal(packed(x), model(x))


def test_codes_through_a_residual_block():
    rng = np.random.default_rng(8)
    for shortcut in (None, Sequential(BinaryDense(8, 8, seed=1), Quantize(q.Heaviside()))):
        model = Sequential(
            Quantize(q.DoReFaActivation(2)),
            Residual(Sequential(BinaryDense(8, 8, seed=0)), shortcut),
            Quantize(q.Heaviside()),
        )
        x = rng.normal(size=(10, 8)).astype(np.float32)
        np.testing.assert_array_equal(model.freeze()(x), np.asarray(model(x)))
        np.testing.assert_array_equal(model.outputs(x), model(x).values())


def test_quantized_gradient_is_the_identity_forward():
    layer = QuantizeGradient(2, seed=0)
    x = pack(np.ones((3, 5)))
    assert layer.forward(x, training=True) == x
    dy = np.random.default_rng(9).normal(size=(3, 5)).astype(np.float32)
    np.testing.assert_array_equal(layer.backward(dy), q.DoReFaGradient(2, 0).backward(dy, dy))


def test_tanh_gradient():
    layer = Tanh()
    x = np.float32([[-2, 0, 0.5]])
    y = layer.forward(x, training=True)
    np.testing.assert_allclose(y, np.tanh(x), rtol=1e-6)
    np.testing.assert_allclose(layer.backward(np.ones_like(x)), 1 / np.cosh(x) ** 2, rtol=1e-5)
    np.testing.assert_array_equal(Sequential(layer).freeze()(x), y)


# shift-based normalisation


def ap2(z):
    """A literal transcription, in float64."""
    with np.errstate(divide="ignore"):
        return np.where(z == 0, 0, np.sign(z) * 2.0 ** np.round(np.log2(np.abs(z))))


def test_shift_batch_norm_is_the_published_program():
    rng = np.random.default_rng(10)
    gamma, beta = np.array([1.0, -0.7, 2.2]), np.array([0.5, 0, -1])
    layer = ShiftBatchNorm(3)
    layer.gamma.assign(gamma)
    layer.beta.assign(beta)
    running_mean, running_s = np.zeros(3), np.ones(3)
    for _ in range(3):
        x = rng.normal(1, [0.5, 2, 30], size=(50, 3)).astype(np.float32)
        g = rng.normal(size=(50, 3))
        mean = x.astype(np.float64).mean(axis=0)
        c = x - mean
        s = 1 / np.sqrt(np.mean(c * ap2(c), axis=0) + 1e-5)
        running_mean = 0.875 * running_mean + 0.125 * mean
        running_s = 0.875 * running_s + 0.125 * s
        sigma, big_c = ap2(s), ap2(c)
        y = c * sigma * ap2(gamma) + beta
        np.testing.assert_allclose(layer.forward(x, training=True), y, rtol=1e-4, atol=1e-4)
        dx = g - g.mean(axis=0) - big_c * np.mean(big_c * g, axis=0) * sigma**2
        dx *= sigma * ap2(gamma)
        np.testing.assert_allclose(layer.backward(g.astype(np.float32)), dx, rtol=1e-4, atol=1e-4)
        dgamma = np.sum(g * ap2(c * sigma), axis=0)
        np.testing.assert_allclose(layer.gamma.grad, dgamma, rtol=1e-4)
        np.testing.assert_allclose(layer.beta.grad, g.sum(axis=0), rtol=1e-4)
    np.testing.assert_allclose(layer.running_mean, running_mean, rtol=1e-5)
    np.testing.assert_allclose(layer.running_inv_std, running_s, rtol=1e-5)
    expected = (x - running_mean) * ap2(running_s) * ap2(gamma) + beta
    np.testing.assert_allclose(layer(x), expected, rtol=1e-4, atol=1e-5)


def test_shift_batch_norm_learns_and_freezes():
    x, y = problem(np.random.default_rng(11))
    model = Sequential(
        BinaryDense(20, 40, seed=0), ShiftBatchNorm(40), Sign(),
        BinaryDense(40, 2, seed=1), ShiftBatchNorm(2),
    )  # fmt: skip
    train(model, x, y)
    assert model.error_rate(x, y) < 0.15
    np.testing.assert_array_equal(model.freeze()(x), model(x))
    assert [layer.name for layer in model.freeze().layers] == ["PackedDense"] * 2


@pytest.mark.parametrize("quantizer", [q.TwnTernary(), q.Ternary(0.1), q.LeastSquaresTernary()])
def test_ternary_networks_learn_and_freeze(quantizer):
    x, y = problem(np.random.default_rng(12))
    model = Sequential(
        QuantizedDense(20, 40, quantizer, seed=0), BatchNorm(40), Sign(),
        QuantizedDense(40, 2, quantizer, seed=1), BatchNorm(2),
    )  # fmt: skip
    train(model, x, y)
    assert model.error_rate(x, y) < 0.1
    packed = model.freeze()
    np.testing.assert_array_equal(packed(x), model(x))
    assert packed.layers[1].weight.shape == (2, 2, 40)
    cost = packed.layers[1].cost(1)
    assert cost.binary_macs == 160 and cost.parameters == 80 + 2


# packed layers by hand


def test_packed_planes_by_hand():
    rng = np.random.default_rng(13)
    w = rng.choice([-1, 1], size=(3, 5, 66))
    whole = np.tensordot([1, 2, 4], w, 1)
    codes = rng.integers(8, size=(4, 66), dtype=np.uint8)
    layer = PackedPlanesDense(w, [1, 2, 4], input_bits=3)
    np.testing.assert_array_equal(layer(codes), codes.astype(int) @ whole.T)
    bits = rng.integers(2, size=(4, 66))
    layer = PackedPlanesDense(
        w, (1, 2, 4), threshold=7, flip=[True, False] * 2 + [True], input_bits=1
    )
    expected = (bits @ whole.T > 7) ^ np.array([True, False] * 2 + [True])
    assert layer(pack(bits - 1)) == pack(expected * 2 - 1)
    assert layer(bits.astype(np.uint8)) == pack(expected * 2 - 1)


@pytest.mark.parametrize("threshold", [None, 3, -2.5, 10**12])
def test_bits_for_0_and_1_by_hand(threshold):
    rng = np.random.default_rng(14)
    x = rng.integers(2, size=(3, 5, 5, 70))
    w = rng.choice([-1, 1], size=(6, 3, 3, 70))
    layer = PackedConv2D(w, threshold, padding=1, stride=2, input_bits=1)
    dense = PackedDense(w[:, 0, 0], threshold, input_bits=1)
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(1, 2))[:, ::2, ::2]
    z = np.einsum("nyxcij,oijc->nyxo", windows, w)
    for given in (pack(x - 1), x.astype(np.uint8)):
        for twin, exact in ((layer, z), (dense, x @ w[:, 0, 0].T)):
            y = twin(given)
            if threshold is None:
                assert y.dtype == np.int32
                np.testing.assert_array_equal(y, exact)
            else:
                assert y == pack(np.where(exact > threshold, 1, -1))


def test_packed_quantize_and_levels_by_hand():
    codes = PackedQuantize(2, 0.5)(np.float32([[-1, 0.1, 0.25, 0.4, 9]]))
    np.testing.assert_array_equal(codes, [[0, 1, 2, 2, 3]])
    assert codes.dtype == np.uint8
    np.testing.assert_array_equal(PackedLevels(0.5)(codes), [[0, 0.5, 1, 1, 1.5]])
    np.testing.assert_array_equal(PackedLevels(2)(pack([[1, -1]])), [[2, 0]])


W = np.ones((3, 4))


@pytest.mark.parametrize(
    ("make", "error"),
    [
        (lambda: BinaryDense(4, 3, gradient="other"), ValueError),
        (lambda: BinaryDense(4, 3, gradient="paper"), ValueError),
        (lambda: BinaryDense(4, 3, gradient=3), TypeError),
        (lambda: BinaryDense(4, 3, scale_weights=True, stochastic=True), ValueError),
        (lambda: BinaryDense(4, 3, scale_weights=True, real_evaluation=True), ValueError),
        (lambda: BinaryDense(4, 3, stochastic=1), TypeError),
        (lambda: BinaryDense(4, 3, center="yes"), TypeError),
        (lambda: BinaryDense(4, 3, start="zeros"), ValueError),
        (lambda: BinaryConv2D(4, 3, 1, scale_input=True, real_evaluation=True), ValueError),
        (lambda: QuantizedDense(4, 3, q.SteSign()), TypeError),
        (lambda: QuantizedDense(4, 3, q.DoReFaWeight(9)), ValueError),
        (lambda: QuantizedDense(4, 3, q.TwnTernary(), clip_value=0), ValueError),
        (lambda: QuantizedDense(2**17, 1, q.DoReFaWeight(8)), ValueError),
        (lambda: Sign(0.0), ValueError),
        (lambda: Sign(1.0, quantizer=q.SteSign()), ValueError),
        (lambda: Sign(quantizer=q.Heaviside()), TypeError),
        (lambda: Quantize(q.SteSign()), TypeError),
        (lambda: Quantize(q.DoReFaActivation(9)), ValueError),
        (lambda: q.XnorSign("other"), ValueError),
        (lambda: q.ClippedGradient(q.SteSign(), 0), ValueError),
        (lambda: q.AnnealedSign(2, 1), ValueError),
        (lambda: q.ProgressiveSign(0), ValueError),
        (lambda: q.ProgressiveSign(progress=2).forward([1.0]), ValueError),
        (lambda: PackedDense(W, input_bits=9), ValueError),
        (lambda: PackedDense(W, input_bits=True), TypeError),
        (lambda: PackedDense(W, input_bits=2)(pack(np.ones((1, 4)))), TypeError),
        (lambda: PackedDense(W, input_bits=2)(np.ones((1, 4))), TypeError),
        (lambda: PackedDense(W, input_bits=1)(np.full((1, 4), 2, np.uint8)), ValueError),
        (lambda: PackedConv2D(np.ones((1, 1, 1, 4)), pad_value=1, input_bits=1), ValueError),
        (lambda: PackedConv2D(np.ones((1, 1, 1, 4)), scale_input=True, input_bits=1), ValueError),
        (lambda: PackedPlanesDense(W, [1]), ValueError),
        (lambda: PackedPlanesDense([W, W], [1]), ValueError),
        (lambda: PackedPlanesDense([W, W], [1, 0]), ValueError),
        (lambda: PackedPlanesDense([W, W], [1, 2.0]), ValueError),
        (lambda: PackedPlanesDense([W, W], 2), ValueError),
        (lambda: PackedPlanesConv2D([W, W], [1, 1]), ValueError),
        (lambda: PackedQuantize(0), ValueError),
        (lambda: PackedQuantize(2, np.inf), ValueError),
        (lambda: PackedLevels(0), ValueError),
        (lambda: PackedLevels("1"), TypeError),
        (lambda: PackedLevels(1e39), ValueError),
        (lambda: PackedLevels(1e-320), ValueError),
        (lambda: PackedLevels(10**400), ValueError),
        (lambda: PackedLevels(float("nan")), ValueError),
        (lambda: PackedQuantize(2, 1e-320), ValueError),
        (lambda: PackedQuantize(2, 10**400), ValueError),
        (lambda: q.SteSign(10**400), ValueError),
        (lambda: q.SteSign(1e-320), ValueError),
    ],
)
def test_bad_settings(make, error):
    with pytest.raises(error, match=r"^\[\w+\] "):
        make()
