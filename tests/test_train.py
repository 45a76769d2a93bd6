import os
import sys
import time

import numpy as np
import pytest

from bitops import datasets, train
from bitops.array import pack
from bitops.config import get_num_threads, set_num_threads
from bitops.layers import BatchNorm, BinaryDense, Sequential, Sign
from bitops.losses import cross_entropy, hinge
from bitops.models import mlp
from bitops.optim import SGD, Adam, AdaMax, Bop, ExponentialDecay, ShiftAdaMax
from bitops.schedules import CosineDecay, Halving


def prototypes(n=240, features=96, classes=4, seed=0):
    """Noisy copies of one random +-1 pattern a class, as uint8 images of 0 and 255."""
    rng = np.random.default_rng(seed)
    patterns = rng.integers(2, size=(classes, features))
    y = rng.integers(classes, size=n)
    noise = rng.random((n, features)) < 0.1
    return ((patterns[y] ^ noise) * 255).astype(np.uint8), y


def train_small(**options):
    x, y = prototypes()
    model = mlp(96, 32, 1, 4, seed=0)
    options = {"epochs": 4, "batch_size": 20, "verbose": 0, **options}
    history = model.fit(x[:160], y[:160], validation=(x[160:], y[160:]), **options)
    return model, history


def test_fit_learns():
    model, history = train_small()
    x, y = prototypes()
    assert model.evaluate(x[160:], y[160:]) <= 0.05
    assert history.epochs[-1].loss < history.epochs[0].loss
    assert [epoch.number for epoch in history.epochs] == [1, 2, 3, 4]
    assert history.seconds > 0
    packed = model.freeze()
    np.testing.assert_array_equal(packed.outputs(x), model.outputs(x))


@pytest.mark.parametrize(
    ("kind", "schedule", "loss"),
    [
        (SGD, CosineDecay(0.1), cross_entropy),
        (AdaMax, CosineDecay(1e-2), hinge),
        (ShiftAdaMax, Halving(2**-5, 2), hinge),
        (Bop, CosineDecay(1e-2), cross_entropy),
    ],
)
def test_fit_learns_with_every_optimizer_and_loss(kind, schedule, loss):
    x, y = prototypes()
    model = mlp(96, 64, 1, 4, seed=0)
    options = {"threshold": 1e-6, "adaptivity": 1e-2} if kind is Bop else {}
    optimizer = kind(model.parameters(), **options)
    start = model.evaluate(x[160:], y[160:])
    model.fit(
        x[:160],
        y[:160],
        epochs=8,
        batch_size=20,
        optimizer=optimizer,
        schedule=schedule,
        loss=loss,
        verbose=0,
    )
    assert start > 0.4
    assert model.evaluate(x[160:], y[160:]) <= 0.05
    np.testing.assert_array_equal(model.freeze().outputs(x), model.outputs(x))


def test_latent_weights_stay_in_their_range():
    model, _ = train_small(schedule=ExponentialDecay(0.5, 0.1))
    for layer in model.layers:
        if isinstance(layer, BinaryDense):
            assert np.abs(layer.weight.value).max() <= 1


def test_same_seed_same_weights():
    first, again, other = (train_small(seed=seed)[0].state() for seed in (1, 1, 2))
    for a, b in zip(first, again, strict=True):
        for left, right in zip(a, b, strict=True):
            np.testing.assert_array_equal(left, right)
    assert not np.array_equal(first[0][0], other[0][0])


def test_best_validation_model_is_kept():
    x, y = prototypes()
    validation = x[160:], y[160:]
    model = mlp(96, 32, 1, 4, seed=0)
    # a rate that explodes after the second epoch spoils the later ones
    history = model.fit(
        x[:160],
        y[:160],
        epochs=5,
        batch_size=20,
        validation=validation,
        schedule=lambda epoch, epochs: 3e-3 if epoch < 2 else 10.0,
        verbose=0,
    )
    errors = [epoch.validation_error for epoch in history.epochs]
    assert history.best.validation_error == min(errors)
    assert history.best.number == 1 + errors.index(min(errors))
    assert errors[-1] > min(errors)
    assert model.evaluate(*validation) == min(errors)


def test_without_validation_the_last_model_stays():
    x, y = prototypes()
    model = mlp(96, 16, 1, 4, seed=0)
    history = model.fit(x, y, epochs=2, batch_size=1000, verbose=0)
    assert history.best is history.epochs[-1]
    assert history.best.validation_error is None
    assert 0 <= history.best.train_error <= 1


def test_schedule_reaches_the_optimizer():
    x, y = prototypes()
    model = mlp(96, 16, 1, 4, seed=0)
    optimizer = Adam(model.parameters())
    schedule = ExponentialDecay(1e-2, 1e-4)
    history = model.fit(
        x, y, epochs=4, batch_size=100, schedule=schedule, optimizer=optimizer, verbose=0
    )
    rates = [epoch.learning_rate for epoch in history.epochs]
    assert rates == pytest.approx([schedule(e, 4) for e in range(4)])
    assert optimizer.steps == 8  # 240 rows in 2 full batches of 100


@pytest.mark.parametrize("kind", ["bits", "real", "dropout"])
def test_fit_takes_bits_and_real_input(kind):
    x, y = prototypes()
    given = {"bits": pack(x.astype(np.int16) - 128), "real": x / 127.5 - 1, "dropout": x}[kind]
    rates = {"dropout": 0.1, "input_dropout": 0.1} if kind == "dropout" else {}
    model = mlp(96, 64, 1, 4, seed=0, **rates)
    model.fit(given, y, epochs=6, batch_size=20, verbose=0)
    assert model.evaluate(given, y) <= 0.05
    np.testing.assert_array_equal(model.freeze()(given), model(given))


def test_number_of_threads_is_put_back():
    before = get_num_threads()
    set_num_threads(2)
    try:
        wanted = get_num_threads()
        train_small(epochs=1)
        assert get_num_threads() == wanted
        with pytest.raises(ZeroDivisionError):
            train_small(epochs=1, schedule=lambda epoch, epochs: 1 / 0)
        assert get_num_threads() == wanted
    finally:
        set_num_threads(before)


def test_silent(capfd):
    train_small(verbose=0)
    captured = capfd.readouterr()
    assert captured.out == captured.err == ""


@pytest.mark.parametrize("bar", [True, False])
def test_one_line_an_epoch(capfd, monkeypatch, bar):
    if bar:
        pytest.importorskip("tqdm")
    else:
        monkeypatch.setattr(train, "tqdm", None)
    _, history = train_small(verbose=1, epochs=3)
    lines = capfd.readouterr().out.splitlines()
    assert lines == [str(epoch) for epoch in history.epochs]
    assert "validation error" in lines[0]
    assert str(history).splitlines()[-1] == f"kept the model of epoch {history.best.number}"


@pytest.mark.parametrize("bar", [True, False])
def test_lines_appear_epoch_by_epoch(tmp_path, monkeypatch, bar):
    """Also where the output is a file or a pipe, which Python writes to in blocks."""
    if bar:
        pytest.importorskip("tqdm")
    else:
        monkeypatch.setattr(train, "tqdm", None)
    path, seen = tmp_path / "output", []

    def schedule(epoch, epochs):
        seen.append(len(path.read_text().splitlines()))
        return 1e-3

    with open(path, "w") as stream:
        monkeypatch.setattr(sys, "stdout", stream)
        train_small(verbose=1, epochs=3, schedule=schedule)
        monkeypatch.undo()
    assert seen == [0, 1, 2]


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"epochs": 0}, ValueError),
        ({"batch_size": 0}, ValueError),
        ({"y": np.zeros(3, int)}, ValueError),
        ({"y": np.zeros(240)}, TypeError),
        ({"y": np.full(240, 4)}, ValueError),
        ({"x": np.zeros((0, 96)), "y": np.zeros(0, int)}, ValueError),
        ({"x": np.zeros(240)}, ValueError),
        ({"x": np.zeros((240, 95))}, ValueError),
        ({"validation": (np.zeros((2, 96)), [0])}, ValueError),
    ],
)
def test_bad_input(change, error):
    x, y = prototypes()
    arguments = {"x": x, "y": y, "verbose": 0, **change}
    with pytest.raises(error, match=r"^\[\w+\] "):
        mlp(96, 16, 1, 4).fit(**arguments)


def test_gradients_of_a_smooth_chain_match_finite_differences():
    """Dense -> BatchNorm without a Sign is smooth in its input: the whole backward chain counts."""
    rng = np.random.default_rng(5)
    model = Sequential(BinaryDense(6, 5, seed=0), BatchNorm(5), BinaryDense(5, 3, seed=1))
    x = rng.normal(size=(8, 6)).astype(np.float32)
    weights = rng.normal(size=(8, 3))
    model.forward(x, training=True)
    dx = model.backward(weights.astype(np.float32))
    step = 1e-2
    for index in [(0, 0), (3, 4), (7, 5)]:
        up, down = x.copy(), x.copy()
        up[index] += step
        down[index] -= step
        values = [float(np.sum(weights * model.forward(v, training=True))) for v in (up, down)]
        assert dx[index] == pytest.approx((values[0] - values[1]) / (2 * step), abs=5e-3)


def test_training_twin_of_sign_moves_the_layer_below():
    model = Sequential(BinaryDense(30, 8, seed=0), BatchNorm(8), Sign(), BinaryDense(8, 2, seed=1))
    x = np.random.default_rng(6).normal(size=(20, 30))
    model.forward(x, training=True)
    model.backward(np.ones((20, 2), dtype=np.float32))
    assert np.abs(model.layers[0].weight.grad).max() > 0


def numpy_outputs(packed, x):
    """The packed model in plain NumPy; a fault that both our graphs share would show here."""
    values = x.astype(np.int64)
    for layer in packed.layers:
        z = values @ np.asarray(layer.weight).T.astype(np.int64)
        if layer.threshold is None:
            return z.astype(np.float32) * layer.alpha + layer.bias
        flip = False if layer.flip is None else layer.flip
        values = np.where((z > layer.threshold) ^ flip, 1, -1)
    return values


def test_digits_end_to_end():
    pytest.importorskip("sklearn")
    data = datasets.load_digits()
    model = mlp(64, 256, 2, 10, seed=0)
    model.fit(data.x_train, data.y_train, epochs=12, batch_size=50, verbose=0)
    assert model.evaluate(data.x_test, data.y_test) < 0.09
    packed = model.freeze()
    np.testing.assert_array_equal(packed.outputs(data.x_test), model.outputs(data.x_test))
    np.testing.assert_array_equal(packed.outputs(data.x_test), numpy_outputs(packed, data.x_test))


def test_mnist_one_epoch():
    folder = os.environ.get("BITOPS_MNIST")
    if not folder:
        pytest.skip("set BITOPS_MNIST to a folder with the four MNIST files")
    data = datasets.load_mnist(folder)
    model = mlp(784, 256, 2, 10, seed=0)
    start = time.perf_counter()
    model.fit(data.x_train, data.y_train, epochs=1, verbose=0)
    assert model.evaluate(data.x_test, data.y_test) < 0.10
    assert time.perf_counter() - start < 120
    packed = model.freeze()
    np.testing.assert_array_equal(packed.outputs(data.x_test), model.outputs(data.x_test))
    np.testing.assert_array_equal(packed.outputs(data.x_test), numpy_outputs(packed, data.x_test))
