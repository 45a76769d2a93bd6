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
    Scale,
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
            gamma = rng.uniform(0.3, 2, n) * np.where(np.arange(n) % 2, -1, 1)
            layer.gamma.assign(gamma.astype(np.float32))
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
    "real activations": (
        lambda seed: Sequential(
            *(BinaryDense(20, 16, seed=seed), BatchNorm(16), ReLU(), Dropout(0.2)),
            *(BinaryDense(16, 4, seed=seed), BatchNorm(4)),
        ),
        lambda rng: rng.standard_normal((40, 20), dtype=np.float32),
    ),
    "signs first": (
        lambda seed: Sequential(Sign(), BinaryDense(20, 3, seed=seed), BatchNorm(3), Sign()),
        lambda rng: rng.standard_normal((40, 20), dtype=np.float32),
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
            if twin.threshold.dtype == np.int32 or x.dtype == np.uint8:
                assert_array_equal(np.floor(layer.threshold), np.floor(twin.threshold))
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


def dense(first=20, *, sign=True, **options):
    """A hidden layer of 16 features."""
    layers = [BinaryDense(first, 16, seed=0, **options), BatchNorm(16), Sign()]
    return layers if sign else layers[:2]


def last(features=3):
    return [BinaryDense(16, features, seed=0), BatchNorm(features)]


TWICE = BinaryDense(16, 16, seed=0)


@pytest.mark.parametrize(
    ("layers", "error", "words"),
    [
        ([*dense(), *last(4)], ValueError, "must have its weights"),
        (dense(), ValueError, "as many products as the model, got 2"),
        ([*dense(), *last(), Sign(), BinaryDense(3, 3), BatchNorm(3)], ValueError, "got 2"),
        ([*dense(sign=False), ReLU(), *last()], ValueError, "must be the network of the model"),
        ([*dense(sign=False), *last()], ValueError, "must be the network of the model"),
        ([*dense(), *last(), Sign()], ValueError, "must be the network of the model"),
        ([Sign(), *dense(), *last()], ValueError, "must be the network of the model"),
        ([BatchNorm(20), *dense(), *last()], ValueError, "must be the network of the model"),
        ([*dense(), *last(), Scale(3)], ValueError, "must be the network of the model"),
        ([dense()[0], ShiftBatchNorm(16), Sign(), *last()], ValueError, "BatchNorm must follow"),
        ([dense()[0], Sign(), *last()], ValueError, "BatchNorm must follow"),
        ([*dense(bias=True), *last()], TypeError, "neither scales nor bias"),
        ([*dense(scale_weights=True), *last()], TypeError, "neither scales nor bias"),
        ([*dense(center=True), *last()], TypeError, "neither scales nor bias"),
    ],
)
def test_models_that_are_not_the_same_network(rng, layers, error, words):
    packed = moved(Sequential(*dense(), *last()), rng).freeze()
    assert_refused(Sequential(*layers), packed, (20,), error, words)


def assert_refused(model, packed, shape, error=ValueError, words="the network of the model"):
    before = [array.copy() for array in flatten(model.state())]
    with pytest.raises(error, match=rf"^\[start_from_packed\] .*{words}"):
        start_from_packed(model, packed, np.zeros((4, *shape), np.float32))
    for a, b in zip(flatten(model.state()), before, strict=True):
        assert_array_equal(a, b)


def test_a_layer_that_stands_twice(rng):
    def make(*hidden):
        return Sequential(*(part for x in hidden for part in (x, BatchNorm(16), Sign())), *last())

    packed = moved(make(*(BinaryDense(16, 16, seed=i) for i in range(2))), rng).freeze()
    assert_refused(make(TWICE, TWICE), packed, (16,))


def conv(*layers, **options):
    return Sequential(
        BinaryConv2D(3, 6, 3, seed=0, **options),
        *layers,
        Flatten(),
        BinaryDense(54, 4),
        BatchNorm(4),
    )


@pytest.mark.parametrize(
    ("layers", "options"),
    [
        ((BatchNorm(6), MaxPool2D(2), Sign()), {}),  # of flipped bits the pool is another
        ((Sign(), MaxPool2D(2), BatchNorm(6), Sign()), {}),
        ((MaxPool2D(2), BatchNorm(6), Sign(), Sign()), {}),
        ((MaxPool2D(3, stride=2, padding=1), BatchNorm(6), Sign()), {}),
        ((BatchNorm(6), Sign()), {"stride": 2}),
        ((MaxPool2D(2), BatchNorm(6), Sign()), {"padding": 1, "dilation": 2}),
    ],
)
def test_windows_and_pools_must_be_the_same(rng, layers, options):
    packed = moved(conv(MaxPool2D(2), BatchNorm(6), Sign()), rng).freeze()
    assert packed.layers[0].flip is not None
    assert_refused(conv(*layers, **options), packed, (8, 8, 3))


def test_a_norm_of_flat_images_is_none_of_a_convolution(rng):
    packed = moved(conv(MaxPool2D(2), BatchNorm(6), Sign()), rng).freeze()
    model = Sequential(
        *(BinaryConv2D(3, 6, 3), MaxPool2D(2), Flatten(), BatchNorm(54), Sign()),
        *(BinaryDense(54, 4), BatchNorm(4)),
    )
    assert_refused(model, packed, (8, 8, 3), words="a BatchNorm must follow")


def test_arguments_of_other_types():
    model, x = mlp(20, 16, 1, 3, seed=0), np.zeros((4, 20), np.float32)
    with pytest.raises(TypeError, match="packed must be a Packed, got Sequential"):
        start_from_packed(model, model, x)
    with pytest.raises(TypeError, match="model must be a Sequential, got Packed"):
        start_from_packed(model.freeze(), model.freeze(), x)
    with pytest.raises(ValueError, match="batch_size"):
        start_from_packed(model, model.freeze(), x, batch_size=0)


def test_new_batches_count_by_momentum(rng):
    make, draw = CASES["mlp"]
    model, x = make(1), draw(rng)
    start_from_packed(model, make(0).freeze(), x)
    norm = next(layer for layer in model.layers if isinstance(layer, BatchNorm))
    before = norm.running_mean.copy()
    norm.forward(np.full((4, 33), 7.0, np.float32), training=True)
    np.testing.assert_allclose(norm.running_mean, 0.9 * before + 0.1 * 7, rtol=1e-5)


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
