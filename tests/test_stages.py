import numpy as np
import pytest

from bitops import quantizers as q
from bitops.layers import (
    BatchNorm,
    BinaryDense,
    Conv2D,
    Dense,
    Dropout,
    Flatten,
    QuantizedConv2D,
    QuantizedDense,
    ReLU,
    Residual,
    Sequential,
    Sign,
    Tanh,
    TanhDense,
)
from bitops.training.losses import cross_entropy
from bitops.training.stages import to_bitwise, to_ternary


def problem(rng, n=300, k=20):
    x = rng.normal(size=(n, k)).astype(np.float32)
    return x, (x @ rng.normal(size=k) > 0).astype(int)


def train(model, x, y, rate=1e-2):
    model.fit(
        x, y, epochs=20, batch_size=20, schedule=lambda epoch, epochs: rate, loss=cross_entropy,
        verbose=0,
    )  # fmt: skip


def first_stage():
    return Sequential(
        TanhDense(20, 30, seed=0), Tanh(), Dropout(0.1, seed=3),
        TanhDense(30, 30, seed=1, bias=False), Tanh(),
        TanhDense(30, 2, seed=2), BatchNorm(2),
    )  # fmt: skip


def test_tanh_dense_is_a_dense_layer_of_compressed_weights():
    rng = np.random.default_rng(0)
    layer, twin = TanhDense(6, 4, seed=0), Dense(6, 4)
    layer.bias.assign(rng.normal(size=4))
    twin.weight.assign(np.tanh(layer.weight.value))
    twin.bias.assign(np.tanh(layer.bias.value))
    x, dy = rng.normal(size=(5, 6)).astype(np.float32), rng.normal(size=(5, 4)).astype(np.float32)
    np.testing.assert_array_equal(layer.forward(x, training=True), twin.forward(x, training=True))
    np.testing.assert_array_equal(layer.backward(dy), twin.backward(dy))
    for mine, other in zip(layer.parameters(), twin.parameters(), strict=True):
        slope = 1 - np.tanh(mine.value) ** 2
        np.testing.assert_allclose(mine.grad, other.grad * slope, rtol=1e-5)


@pytest.mark.parametrize("zeros", [None, 0.3])
def test_bitwise_stages(zeros):
    x, y = problem(np.random.default_rng(1))
    first = first_stage()
    train(first, x, y)
    assert first.error_rate(x, y) < 0.1
    np.testing.assert_array_equal(first.freeze()(x), first(x))
    before = first(x)
    second = to_bitwise(first, zeros=zeros)
    kind = BinaryDense if zeros is None else QuantizedDense
    kinds = [kind, Sign, Dropout, kind, Sign, kind, BatchNorm]
    assert [type(layer) for layer in second.layers] == kinds
    for place in (0, 3, 5):
        made, old = second.layers[place], first.layers[place]
        np.testing.assert_array_equal(made.weight.value, np.tanh(old.weight.value))
        assert made.weight.lr_scale == 1 and made.weight.clip_value == 1
    assert second.layers[3].bias is None
    np.testing.assert_array_equal(second.layers[0].bias.value, np.tanh(first.layers[0].bias.value))
    train(second, x, y, 1e-3)
    assert second.error_rate(x, y) < 0.1
    np.testing.assert_array_equal(second.freeze()(x), second(x))
    np.testing.assert_array_equal(first(x), before)  # which stayed as it was
    if zeros is not None:
        assert np.mean(second.layers[0].values() == 0) == pytest.approx(zeros, abs=0.01)


def test_bitwise_activations_pass_every_gradient():
    sign = to_bitwise(first_stage()).layers[1]
    x = np.float32([[-30, 0, 30]])
    sign.forward(x, training=True)
    np.testing.assert_array_equal(sign.backward(np.ones_like(x)), np.ones_like(x))
    sign = to_bitwise(first_stage(), activation=q.SteSign()).layers[1]
    assert sign.quantizer == q.SteSign()


def test_ternary_stages():
    x, y = problem(np.random.default_rng(2))
    first = Sequential(
        Dense(20, 30, seed=0), Tanh(), Dense(30, 30, seed=1), Tanh(), Dense(30, 2, seed=2)
    )
    train(first, x, y, 3e-3)
    second = to_ternary(first)
    assert [type(layer) for layer in second.layers] == [
        QuantizedDense, Sign, QuantizedDense, Sign, QuantizedDense
    ]  # fmt: skip
    np.testing.assert_array_equal(second.layers[0].weight.value, first.layers[0].weight.value)
    ternary = q.LeastSquaresTernary().forward(first.layers[0].weight.value)
    np.testing.assert_allclose(second.layers[0].values(), ternary, rtol=1e-6)
    step = second.layers[0].quantizer.delta
    assert step == q.LeastSquaresTernary().step(first.layers[0].weight.value)
    assert second.layers[2].quantizer.delta != step
    train(second, x, y, 1e-3)
    assert second.error_rate(x, y) < 0.1
    np.testing.assert_array_equal(second.freeze()(x), second(x))
    assert set(np.abs(np.unique(second.layers[0].values()))) <= {0, np.float32(step)}
    # the pseudo-gradient is the derivative of tanh
    sign, tanh = second.layers[1], Tanh()
    z = np.float32([[-2, -0.5, 0, 1]])
    sign.forward(z, training=True)
    tanh.forward(z, training=True)
    dy = np.ones_like(z)
    np.testing.assert_allclose(sign.backward(dy), tanh.backward(dy), rtol=1e-5)


def test_ternary_convolutions_and_layers_that_stay():
    rng = np.random.default_rng(3)
    first = Sequential(
        Conv2D(3, 8, 3, padding=1, seed=0), ReLU(),
        Residual(Sequential(Conv2D(8, 8, 3, padding=1, groups=2, bias=False, seed=1), Tanh())),
        Flatten(), BinaryDense(8 * 16, 4, seed=2), BatchNorm(4), Tanh(), Dense(4, 2, seed=3),
        input_shape=(4, 4, 3),
    )  # fmt: skip
    x = rng.normal(size=(5, 4, 4, 3)).astype(np.float32)
    first.forward(x, training=True)  # layers hold what they keep for a backward pass
    second = to_ternary(first, q.TwnTernary(), keep=(0, 7))
    assert second.input_shape == (4, 4, 3)
    kinds = [Conv2D, ReLU, Residual, Flatten, BinaryDense, BatchNorm, Sign, Dense]
    assert [type(layer) for layer in second.layers] == kinds
    body = second.layers[2].body.layers
    assert [type(layer) for layer in body] == [QuantizedConv2D, Sign]
    assert body[0].operation.groups == 2
    assert body[0].operation.windows == first.layers[2].body.layers[0].operation.windows
    y = second(x)
    np.testing.assert_array_equal(second.freeze()(x), y)
    first.layers[4].weight.assign(-first.layers[4].weight.value)
    np.testing.assert_array_equal(second(x), y)


def test_only_a_sequential_has_a_second_stage():
    for stage in (to_bitwise, to_ternary):
        with pytest.raises(TypeError, match=r"\[to_\w+\] model must be a Sequential"):
            stage(Dense(3, 2))
