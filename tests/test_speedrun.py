"""The recipe of our own: its network, its first filters, its targets and its data."""

import numpy as np
import pytest

from bitops.data.datasets import Dataset
from bitops.layers import BatchNorm, BinaryConv2D, Conv2D, Dense, Residual
from bitops.layers.base import all_layers
from bitops.recipes import Job, Plan, find
from bitops.recipes.base import describe
from bitops.recipes.builders import one_cycle
from bitops.recipes.speedrun import (
    BIAS,
    PATCH,
    STAGES,
    SmallThenWhole,
    speedrun_net,
    whitening_filters,
)

PLAN = Plan(width=8, epochs=1, batch_size=5, lr=1e-3)


def images(rng, count=60, shape=(16, 16, 3)) -> Dataset:
    """Images whose neighbouring pixels are alike."""
    x = rng.normal(size=(count, *shape)).cumsum(axis=1).cumsum(axis=2).astype(np.float32) / 16
    y = np.arange(count) % 4
    return Dataset("waves", shape, 4, x, y, x[:9], y[:9], x[:9], y[:9])


def test_all_weights_but_the_first_and_the_last_are_bits(rng):
    model = speedrun_net(Job(images(rng), PLAN))
    layers = list(all_layers(model.flat_layers()))
    weighted = [layer for layer in layers if hasattr(layer, "weight")]
    first, *hidden, last = weighted
    assert isinstance(first, Conv2D)
    assert isinstance(last, Dense)
    assert all(isinstance(layer, BinaryConv2D) for layer in hidden)
    assert [layer.out_features for layer in hidden] == [8, *3 * [16], *4 * [32]]
    rest = [layer for layer in layers if layer.parameters() and not hasattr(layer, "weight")]
    assert {type(layer) for layer in rest} == {BatchNorm, Residual}
    assert describe(model) == "8C4-8C3-16C3-16C3-16C3-32C3-32C3-32C3-32C3-4"
    assert sum(isinstance(layer, Residual) for layer in model.layers) == len(hidden)


@pytest.mark.parametrize("shape", [(16, 16, 3), (28, 28, 1), (18, 21, 3), (9, 30, 3)])
def test_packed_network_gives_the_same_bits(rng, shape):
    data = images(rng, shape=shape)
    model = speedrun_net(Job(data, PLAN))
    for _ in range(3):  # so that running statistics are not those of the start
        model.forward(data.x_train, training=True)
    np.testing.assert_array_equal(model.freeze().outputs(data.x_test), model.outputs(data.x_test))


def test_odd_images_take_windows_too(rng):
    data = images(rng, shape=(28, 28, 1))
    model, cut = speedrun_net(Job(data, PLAN)), SmallThenWhole()
    shapes = set()
    for step in (0, 9):
        x = cut(data.x_train[:5], rng, step, 10)
        shapes.add(x.shape)
        model.backward(np.ones_like(model.forward(x, training=True)))
    assert shapes == {(5, 16, 16, 1), (5, 28, 28, 1)}


def test_first_filters_whiten_patches(rng):
    data = images(rng, shape=(12, 12, 2))
    seed = np.random.SeedSequence(1)
    filters = whitening_filters(data, seed)
    count = PATCH * PATCH * 2
    assert filters.shape == (count, PATCH, PATCH, 2)
    windows = np.lib.stride_tricks.sliding_window_view(data.x_train, (PATCH, PATCH), axis=(1, 2))
    patches = windows.transpose(0, 1, 2, 4, 5, 3).reshape(-1, count)
    covariance = np.cov(patches @ filters.reshape(count, -1).T, rowvar=False)
    # variances v become v / (v + BIAS), up to the choice of the patches
    variances = np.linalg.eigvalsh(np.cov(patches, rowvar=False))[::-1]
    np.testing.assert_allclose(np.diag(covariance), variances / (variances + BIAS), rtol=0.1)
    np.testing.assert_allclose(covariance, np.diag(np.diag(covariance)), atol=0.05)


def test_first_layer_starts_with_filters_and_their_negatives(rng):
    data = images(rng)
    start = speedrun_net(Job(data, PLAN)).layers[0].weight.value
    np.testing.assert_array_equal(start[:4], -start[4:])
    # wider than there are filters, the rest stays as drawn
    wide = speedrun_net(Job(data, Plan(width=100, epochs=1, batch_size=5, lr=1e-3)))
    start = wide.layers[0].weight.value
    np.testing.assert_array_equal(start[:48], -start[48:96])
    assert 0 < np.abs(start[96:]).max() < 1


def test_smoothed_targets(rng):
    scores, labels = rng.normal(size=(6, 5)).astype(np.float32), rng.integers(5, size=6)
    value, grad = STAGES[0].loss(scores, labels)
    logs = scores - np.log(np.exp(scores.astype(float)).sum(axis=1, keepdims=True))
    targets = np.full((6, 5), 0.1 / 5)
    targets[np.arange(6), labels] += 0.9
    assert value == pytest.approx(-(targets * logs).sum() / 6, rel=1e-6)
    np.testing.assert_allclose(grad, (np.exp(logs) - targets) / 6, atol=1e-7)


def test_schedule():
    schedule = one_cycle(0.1)
    rates = [schedule(step, 100) for step in range(100)]
    assert np.argmax(rates) == 10
    assert rates[10] == 0.1
    assert rates[55] == pytest.approx(0.05)
    assert rates[0] == pytest.approx(0.004)
    assert 0 < rates[99] < 1e-4


def test_parts_of_images_come_before_whole_ones(rng):
    augment = SmallThenWhole(0.5, padding=1)
    x = rng.normal(size=(50, 16, 24, 3)).astype(np.float32)
    sizes = [augment(x, np.random.default_rng(0), step, 4).shape for step in range(4)]
    assert sizes == 2 * [(50, 8, 8, 3)] + 2 * [x.shape]
    parts, whole = (augment(x, np.random.default_rng(0), step, 4) for step in (0, 3))
    assert parts.dtype == whole.dtype == np.float32
    windows = np.lib.stride_tricks.sliding_window_view(x, (8, 8), axis=(1, 2))
    for places, part in zip(windows, parts.transpose(0, 3, 1, 2), strict=True):
        same, mirrored = ((places == p).all(axis=(2, 3, 4)) for p in (part, part[:, :, ::-1]))
        assert same.any() != mirrored.any()
    # a shift by one pixel brings grey into a row in two of three images, and likewise a column
    assert np.isin(whole[whole != 0], x).all()
    assert 0.3 < (whole[:, [0, -1]] == 0).all(axis=(2, 3)).any(axis=1).mean() < 0.95
    # images too small for parts are shown whole
    assert augment(x[:, :8, :8], np.random.default_rng(0), 0, 4).shape == (50, 8, 8, 3)


def test_plans_of_both_budgets():
    for kind in ("cifar10", "svhn"):
        setting = find("speedrun").setting(kind)
        assert setting.preprocessing == "unit"
        assert setting.report(setting.plan) == ""
        quick = setting.resolve(quick=True)
        assert quick.epochs < setting.plan.epochs and quick.width < setting.plan.width
        assert quick.gradients == setting.plan.gradients == "int6"
