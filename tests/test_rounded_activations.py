"""Products of training steps that take real activations rounded to 7 bits."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import bitops as bo
from bitops.layers import (
    BatchNorm,
    BinaryConv2D,
    BinaryDense,
    Flatten,
    QuantizedConv2D,
    ReLU,
    Sequential,
)
from bitops.layers.inputs import Codes
from bitops.quantizers import ByteGradient, Ternary

MULTIPLIES_NUMBERS = True

LAYERS = {
    "dense": (lambda: BinaryDense(70, 5, seed=1), (6, 70)),
    "conv": (lambda: BinaryConv2D(6, 5, 3, padding=1, scale_weights=True, seed=1), (4, 7, 6, 6)),
    "groups": (lambda: BinaryConv2D(6, 4, 3, groups=2, bias=True, seed=1), (4, 7, 6, 6)),
    "ternary": (lambda: QuantizedConv2D(6, 5, 3, Ternary(), stride=2, seed=1), (4, 7, 6, 6)),
}
KINDS = pytest.mark.parametrize("kind", LAYERS)


def rounded(kind, seed=3, bits=8):
    layer = LAYERS[kind][0]()
    layer.rounding, layer.rounds_activations = ByteGradient(seed, bits), True
    return layer


def activations(rng, kind):
    return np.maximum(rng.normal(size=LAYERS[kind][1]), 0).astype(np.float32)


@KINDS
def test_a_step_multiplies_codes(isa, rng, kind):
    x, layer = activations(rng, kind), rounded(kind)
    y = layer.forward(x, training=True)
    codes, zero, step = ByteGradient(3).round_numbers(x)
    assert zero == 0
    assert codes.max() == 127
    values = codes * np.float32(step)
    exact = LAYERS[kind][0]()
    assert_allclose(y, exact.forward(values), rtol=0, atol=1e-5 * np.abs(y).max())
    assert not np.array_equal(y, exact.forward(x))
    assert_array_equal(layer.forward(x), exact.forward(x))  # evaluation


@KINDS
@pytest.mark.parametrize("bits", [8, 6])
def test_a_step_keeps_the_mean(rng, kind, bits):
    x, exact, trials = activations(rng, kind), LAYERS[kind][0](), 100
    y = exact.forward(x, training=True)
    dy = rng.normal(size=y.shape).astype(np.float32)
    want = [y, exact.backward(dy), exact.weight.grad.copy()]
    found = [np.zeros(part.shape) for part in want]
    for seed in range(trials):
        layer = rounded(kind, seed, bits)
        for total, part in zip(
            found, (layer.forward(x, training=True), layer.backward(dy)), strict=False
        ):
            total += part
        found[2] += layer.weight.grad
    for total, part in zip(found, want, strict=True):
        assert_allclose(total / trials, part, rtol=0, atol=0.05 * np.abs(part).max())


@KINDS
def test_a_step_keeps_bytes_of_its_input(rng, kind):
    layer = rounded(kind)
    layer.forward(activations(rng, kind), training=True)
    kept = layer._saved[0]
    assert isinstance(kept, Codes)
    assert kept.numbers.dtype == np.uint8


def test_what_is_not_rounded_draws_nothing(rng):
    layer = rounded("dense")
    layer.forward(-activations(rng, "dense") - 1, training=True)
    left = layer.rounding.generator.random()
    assert left == ByteGradient(3).generator.random()


@pytest.mark.parametrize("change", ["negative", "zeros", "uint8", "bits", "integers", "off"])
def test_what_is_not_rounded(rng, change):
    x, layer, exact = activations(rng, "conv"), rounded("conv"), LAYERS["conv"][0]()
    if change == "negative":
        x.flat[5] = -1e-3
    elif change == "zeros":
        x[...] = 0
    elif change == "uint8":
        x = rng.integers(0, 256, size=x.shape, dtype=np.uint8)
    elif change == "integers":
        x = rng.integers(0, 9, size=x.shape).astype(np.int32)
    elif change == "bits":
        x = bo.pack(x)
    else:
        layer.rounding = None
    assert_array_equal(layer.forward(x, training=True), exact.forward(x, training=True))


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_numbers_must_be_finite(rng, value):
    x = activations(rng, "dense")
    x[2, 3] = value
    with pytest.raises(ValueError, match=r"^\[ByteGradient\] x must be finite"):
        rounded("dense").forward(x, training=True)


def network():
    return Sequential(
        BinaryConv2D(3, 64, 3, padding=1, scale_weights=True, seed=0),
        BatchNorm(64),
        ReLU(),
        BinaryConv2D(64, 8, 3, seed=1),
        BatchNorm(8),
        ReLU(),
        Flatten(),
        BinaryDense(8 * 36, 4, seed=2),
        input_shape=(8, 8, 3),
    )


def test_round_gradients_says_whether():
    model = network()
    products = [layer for layer in model.layers if hasattr(layer, "rounding")]
    for wanted in (True, False):
        model.round_gradients(0, 6, activations=wanted)
        assert {layer.rounds_activations for layer in products} == {wanted}
    model.round_gradients(0, 6, activations=True)
    model.round_gradients(0, 6)
    assert not any(layer.rounds_activations for layer in products)
    with pytest.raises(TypeError, match=r"^\[round_gradients\] activations must be"):
        model.round_gradients(0, activations=1)


def test_trainings_are_equal_on_every_isa(rng, threads):
    x, labels = rng.normal(size=(40, 8, 8, 3)).astype(np.float32), rng.integers(0, 4, 40)
    results = []
    for name in bo.isa.available():
        with bo.isa.use(name):
            model = network()
            model.round_gradients(5, 6, activations=True)
            bo.training.fit(model, x, labels, epochs=1, batch_size=20, seed=1)
            results.append([parameter.value.copy() for parameter in model.parameters()])
    for result in results[1:]:
        for mine, other in zip(result, results[0], strict=True):
            assert_array_equal(mine, other)
