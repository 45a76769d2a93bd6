"""Frozen layers and parameters, and the probabilities of a model."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from bitops import layers as L
from bitops.models import mlp
from bitops.training.options import OPTIMIZERS
from trainings import prototypes

X, Y = prototypes(96, 40)


def network():
    return L.Sequential(
        L.BinaryDense(40, 24, seed=0),
        L.BatchNorm(24),
        L.Sign(),
        L.Residual(L.Sequential(L.BinaryDense(24, 24, seed=1), L.ShiftBatchNorm(24))),
        L.Dense(24, 4, seed=2),
    )


def arrays(layer):
    return [np.asarray(a).copy() for a in layer.state()]


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_frozen_layers_keep_weights_and_statistics(optimizer):
    model = network()
    model.fit(X, Y, epochs=1, batch_size=24, verbose=0)
    frozen = model.layers[0], model.layers[1], *model.layers[3].body.layers
    for layer in frozen[:2]:
        layer.trainable = False
    model.layers[3].trainable = False
    before = [array for layer in frozen for array in arrays(layer)]
    head = arrays(model.layers[4])
    history = model.fit(X, Y, epochs=2, batch_size=24, verbose=0, optimizer=optimizer)
    for array, old in zip((a for f in frozen for a in arrays(f)), before, strict=True):
        assert_array_equal(array, old)
    assert not np.array_equal(model.layers[4].state()[0], head[0])
    assert history.epochs[1].loss < history.epochs[0].loss
    assert [layer.trainable for layer in model.layers] == [False, False, True, False, True]


def test_parameters_are_frozen_one_by_one():
    model = mlp(40, 16, 1, 4, seed=0)
    parameter = model.parameters()[1]
    parameter.trainable = False
    before = [p.value.copy() for p in model.parameters()]
    model.fit(X, Y, epochs=1, batch_size=24, verbose=0)
    same = [np.array_equal(p.value, old) for p, old in zip(model.parameters(), before, strict=True)]
    assert same == [False, True, False, False, False, False]
    assert model.layers[1].trainable  # beta still learns, and so do the statistics
    assert model.layers[1].batches_seen > 0
    model.trainable = True
    assert parameter.trainable


@pytest.mark.parametrize("kind", [L.BatchNorm, L.ShiftBatchNorm])
def test_a_frozen_batch_norm_evaluates_and_has_its_exact_gradient(kind):
    layer = kind(5)
    rng = np.random.default_rng(0)
    for _ in range(3):
        layer.forward(rng.normal(2, 3, (20, 5)).astype(np.float32), training=True)
    layer.trainable = False
    x = rng.normal(size=(7, 5)).astype(np.float32)
    assert_array_equal(layer.forward(x, training=True), layer.forward(x))
    layer.forward(x, training=True)
    assert_allclose(layer.backward(np.ones((7, 5), np.float32)), np.tile(layer.affine()[0], (7, 1)))
    layer.trainable = True
    assert not np.array_equal(layer.forward(x, training=True), layer.forward(x))
    assert layer.backward(np.ones((7, 5), np.float32)).shape == (7, 5)


def test_trainable_is_a_flag():
    with pytest.raises(TypeError, match=r"^\[ReLU\] trainable must be True or False, got 1"):
        L.ReLU().trainable = 1
    assert L.ReLU().trainable


def test_probabilities_of_classes():
    model = mlp(40, 16, 1, 4, seed=0)
    model.fit(X, Y, epochs=2, batch_size=24, loss="cross_entropy", verbose=0)
    scores = model.outputs(X).astype(np.float64)
    expected = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
    for each in (model, model.freeze()):
        found = each.predict_proba(X, batch_size=50)
        assert found.dtype == np.float32
        assert_allclose(found, expected, rtol=1e-4, atol=1e-7)
        assert_array_equal(found.argmax(axis=1), model.predict(X))


@pytest.mark.parametrize("last", [L.Softmax, L.Sigmoid])
def test_probabilities_that_a_layer_has_made_stay(last):
    model = L.Sequential(L.Dense(40, 3, seed=0), last())
    for each in (model, model.freeze()):
        assert_array_equal(each.predict_proba(X / np.float32(255)), each(X / np.float32(255)))


@pytest.mark.parametrize(
    ("layers", "error", "message"),
    [
        ([L.Dense(40, 3), L.Sign()], TypeError, "must end in scores, got one that ends in bits"),
        ([L.Dense(40, 1)], ValueError, "must give a score for each class, got 1"),
    ],
)
def test_models_without_probabilities(layers, error, message):
    with pytest.raises(error, match=rf"^\[predict_proba\] the model {message}"):
        L.Sequential(layers).predict_proba(X)
