"""Trainings that start from a packed network."""

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from bitops import zoo
from bitops.layers import (
    BatchNorm,
    BinaryConv2D,
    BinaryDense,
    Dropout,
    Flatten,
    MaxPool2D,
    PackedBatchNorm,
    ReLU,
    Sequential,
    ShiftBatchNorm,
    Sign,
)
from bitops.layers.states import flatten
from bitops.models import binarynet, mlp
from bitops.training import start_from_packed


def moved(model, rng):
    """Give every BatchNorm other numbers than those of the start, half of gamma negative."""
    for layer in model.flat_layers():
        if isinstance(layer, BatchNorm):
            n = layer.in_features
            layer.gamma.assign(rng.choice(np.float32([-0.5, 0.3, 2]), n))
            layer.beta.assign(rng.standard_normal(n, dtype=np.float32))
            layer.running_mean[...] = rng.integers(-9, 9, n)
            layer.running_inv_std[...] = rng.uniform(0.05, 0.4, n)
    return model


def images(rng, count=40):
    return rng.integers(0, 256, (count, 8, 8, 3), np.uint8)


CASES = {
    "mlp": (
        lambda seed: mlp(20, 33, 2, 5, dropout=0.2, seed=seed),
        lambda rng: rng.standard_normal((40, 20), dtype=np.float32),
    ),
    "convnet": (lambda seed: binarynet((8, 8, 3), 4, width=0.0625, seed=seed), images),
    "one layer": (
        lambda seed: Sequential(BinaryDense(20, 3, seed=seed), BatchNorm(3)),
        lambda rng: rng.integers(0, 9, (2, 20), np.uint8),
    ),
    "nested": (
        lambda seed: Sequential(
            Sequential(BinaryConv2D(3, 6, 3, seed=seed), MaxPool2D(2), BatchNorm(6), Sign()),
            Sequential(Flatten(), BinaryDense(54, 4, seed=seed), BatchNorm(4)),
        ),
        images,
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_the_model_computes_what_the_packed_network_does(rng, name):
    make, draw = CASES[name]
    packed, model, x = moved(make(0), rng).freeze(), make(1), draw(rng)
    start_from_packed(model, packed, x, batch_size=7)
    again = model.freeze()
    for layer, twin in zip(again.flat_layers(), packed.flat_layers(), strict=True):
        if hasattr(twin, "weights"):
            assert_array_equal(layer.weights.bits, twin.weights.bits)
        if getattr(twin, "threshold", None) is not None:
            if twin.threshold.dtype == np.int32:
                assert_array_equal(layer.threshold, twin.threshold)
            else:
                np.testing.assert_allclose(layer.threshold, twin.threshold, atol=1e-3)
            assert_array_equal(layer.flip is None or layer.flip, twin.flip is None or twin.flip)
    np.testing.assert_allclose(again(x), packed(x), rtol=1e-4, atol=1e-4)


def test_statistics_are_those_of_all_rows(rng):
    make, draw = CASES["convnet"]
    packed, x = moved(make(0), rng).freeze(), draw(rng)
    states = []
    for batch_size in (1, 7, 1000):
        model = make(1)
        start_from_packed(model, packed, x, batch_size=batch_size)
        states.append(list(flatten(model.state())))
    for state in states[1:]:
        for a, b in zip(state, states[0], strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
    first = next(layer for layer in model.flat_layers() if isinstance(layer, BatchNorm))
    sums = model.layers[0](x).reshape(-1, first.in_features)
    np.testing.assert_allclose(first.running_mean, sums.mean(axis=0), rtol=1e-5)
    np.testing.assert_allclose(first.running_inv_std, 1 / sums.std(axis=0), rtol=1e-3)


def test_thresholds_that_nothing_passes_stay_finite(rng):
    make, draw = CASES["mlp"]
    other, model, x = make(0), make(1), draw(rng)
    norms = [layer for layer in other.flat_layers() if isinstance(layer, BatchNorm)]
    norms[0].gamma.assign(np.where(np.arange(33) < 2, 0, 1).astype(np.float32))
    norms[0].beta.assign(np.float32([1, -1, *[0] * 31]))
    packed = other.freeze()
    assert np.abs(packed.layers[0].threshold[:2]).min() > 1e30
    start_from_packed(model, packed, x)
    assert all(np.isfinite(array).all() for array in flatten(model.state()))
    assert_array_equal(model.predict(x), packed.predict(x))


def test_it_can_be_trained_further(rng):
    x = rng.standard_normal((300, 20), dtype=np.float32)
    y = (x[:, 0] > 0).astype(int)
    teacher = mlp(20, 32, 1, 2, seed=0)
    teacher.fit(x, y, epochs=10, batch_size=50, verbose=0)
    packed, model = teacher.freeze(), mlp(20, 32, 1, 2, seed=1)
    start_from_packed(model, packed, x)
    weight = model.layers[0].weight
    assert_array_equal(np.abs(weight.value), 1)
    model.fit(x, y, epochs=5, batch_size=50, verbose=0)
    assert model.freeze().error_rate(x, y) <= packed.error_rate(x, y)
    assert (np.abs(weight.value) < 1).any()


def test_pixels_of_the_zoo_are_left_out(rng):
    packed = zoo.load("cifar10-convnet")
    assert isinstance(packed.layers[0], PackedBatchNorm)
    model = binarynet(seed=0)
    pixels = rng.integers(0, 256, (4, 32, 32, 3), np.uint8)
    x = packed.layers[0](pixels)
    start_from_packed(model, packed, x)
    np.testing.assert_allclose(model(x), packed(pixels), rtol=1e-3, atol=1e-3)


DENSE, NORM = BinaryDense(20, 16, seed=0), BatchNorm(16)
LAST = (BinaryDense(16, 3, seed=0), BatchNorm(3))


@pytest.mark.parametrize(
    ("layers", "error", "words"),
    [
        ((DENSE, NORM, Sign(), BinaryDense(16, 4), BatchNorm(4)), ValueError, "its weights"),
        ((DENSE, NORM, Sign()), ValueError, "as many products as the model, 1, got 2"),
        ((DENSE, NORM, Sign(), *LAST, Sign(), BinaryDense(3, 3)), ValueError, "products .* got 2"),
        ((DENSE, NORM, ReLU(), *LAST), TypeError, "model must be a chain of binary layers, got R"),
        ((DENSE, ShiftBatchNorm(16), Sign(), *LAST), TypeError, "must be a chain .* ShiftB"),
        ((DENSE, Sign(), *LAST), ValueError, "a BatchNorm, and a Sign but after the last, must"),
        ((DENSE, NORM, *LAST), ValueError, "a BatchNorm, and a Sign but after the last, must"),
        ((DENSE, NORM, Sign(), *LAST, Sign()), ValueError, "a Sign but after the last, must"),
        ((BinaryDense(20, 16, bias=True), NORM, Sign(), *LAST), TypeError, "neither scales nor"),
        ((BinaryDense(20, 16, scale_weights=True), NORM, Sign(), *LAST), TypeError, "neither"),
        ((BinaryDense(20, 16, center=True), NORM, Sign(), *LAST), TypeError, "neither scales"),
        ((BatchNorm(20), DENSE, NORM, Sign(), *LAST), TypeError, "must be a chain .* got Batch"),
    ],
)
def test_models_that_are_not_the_same_network(layers, error, words):
    packed = Sequential(DENSE, BatchNorm(16), Sign(), *LAST).freeze()
    model = Sequential(*layers)
    before = [array.copy() for array in flatten(model.state())]
    with pytest.raises(error, match=rf"^\[start_from_packed\] .*{words}"):
        start_from_packed(model, packed, np.zeros((4, 20), np.float32))
    for a, b in zip(flatten(model.state()), before, strict=True):
        assert_array_equal(a, b)


def test_packed_networks_that_are_no_chain():
    model = mlp(20, 16, 1, 3, seed=0)
    others = Sequential(BinaryDense(20, 16), BatchNorm(16), ReLU(), *LAST).freeze()
    with pytest.raises(TypeError, match="packed must be a chain of binary layers, got PackedReLU"):
        start_from_packed(model, others, np.zeros((4, 20), np.float32))
    with pytest.raises(TypeError, match="packed must be a Packed, got Sequential"):
        start_from_packed(model, model, np.zeros((4, 20), np.float32))
    with pytest.raises(TypeError, match="model must be a Sequential, got Packed"):
        start_from_packed(model.freeze(), model.freeze(), np.zeros((4, 20), np.float32))


@pytest.mark.parametrize("shape", [(1, 20), (4, 19), (4,)])
def test_rows_that_do_not_fit_change_nothing(shape):
    model, packed = mlp(20, 16, 1, 3, seed=1), mlp(20, 16, 1, 3, seed=0).freeze()
    before = [array.copy() for array in flatten(model.state())]
    with pytest.raises(ValueError):
        start_from_packed(model, packed, np.zeros(shape, np.float32))
    for a, b in zip(flatten(model.state()), before, strict=True):
        assert_array_equal(a, b)


def test_dropout_of_the_model_is_its_own(rng):
    packed = mlp(20, 16, 1, 3, seed=0).freeze()
    model = mlp(20, 16, 1, 3, dropout=0.5, input_dropout=0.2, seed=1)
    assert sum(isinstance(layer, Dropout) for layer in model.layers) == 2
    x = rng.standard_normal((50, 20), dtype=np.float32)
    start_from_packed(model, packed, x)
    assert_array_equal(model.predict(x), packed.predict(x))
