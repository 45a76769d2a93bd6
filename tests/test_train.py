"""The training loop: what it learns, keeps, reports and refuses."""

import os
import re
import sys
import time

import numpy as np
import pytest

from bitops.config import get_num_threads, set_num_threads
from bitops.data import datasets
from bitops.layers import BatchNorm, BinaryDense, Dense, Residual, Sequential, Sign
from bitops.models import mlp
from bitops.ops.array import pack
from bitops.training import process, progress
from bitops.training.callbacks import Callback, EarlyStopping
from bitops.training.losses import cross_entropy, hinge
from bitops.training.optim import SGD, Adam, AdaMax, Bop, ShiftAdaMax
from bitops.training.schedules import CosineDecay, ExponentialDecay, Halving
from trainings import Calls, prototypes, train_small


def test_fit_learns():
    model, history = train_small()
    x, y = prototypes()
    assert model.error_rate(x[160:], y[160:]) <= 0.05
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
    start = model.error_rate(x[160:], y[160:])
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
    assert model.error_rate(x[160:], y[160:]) <= 0.05
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
    assert model.error_rate(*validation) == min(errors)


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
    assert model.error_rate(given, y) <= 0.05
    np.testing.assert_array_equal(model.freeze()(given), model(given))


def breaks(place, what, step):
    """A callback that spoils a parameter or the running statistics after a step."""

    class Break(Callback):
        def on_batch(self, run):
            if run.step == step:
                layer = run.model.flat_layers()[place]
                if what == "running_mean":
                    layer.running_mean[0] = np.nan
                else:
                    getattr(layer, what).writable().reshape(-1)[0] = np.nan

    return Break()


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize(
    ("place", "what", "text"),
    [
        (1, "gamma", "parameters of layer 1, BatchNorm"),
        (0, "weight", "parameters of layer 0, BinaryDense"),
    ],
)
def test_not_finite_parameters_name_step_and_layer(place, what, text):
    message = (
        rf"^\[fit\] loss must be finite, got NaN or infinity in the {text}.* at step 6, epoch 2"
    )
    with pytest.raises(FloatingPointError, match=message):
        train_small(batch_size=40, callbacks=[breaks(place, what, 5)])
    # after the last step of an epoch, before the validation
    message = rf"^\[fit\] parameters must be finite, got NaN .* the {text}.* after step 4"
    with pytest.raises(FloatingPointError, match=message):
        train_small(batch_size=40, callbacks=[breaks(place, what, 4)])


def fit_dense(*layers, **options):
    """Train a net of float layers on real numbers."""
    x, y = prototypes()
    options = {"epochs": 3, "batch_size": 40, "verbose": 0, "loss": cross_entropy, **options}
    return Sequential(*layers).fit(x.astype(np.float32), y, **options)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_not_finite_outputs_name_step_and_layer():
    def augment(x, rng):
        calls.append(1)
        return x if len(calls) < 5 else x * np.float32(1e36)

    calls = []
    body = Sequential(Dense(8, 8, seed=2), Dense(8, 8, seed=3))
    layers = Dense(96, 8, seed=0), Residual(body), Dense(8, 4, seed=1)
    with pytest.raises(
        FloatingPointError,
        match=r"got NaN or infinity in the output of layer 0, Dense\(96, 8\) at step 5, epoch 1$",
    ):
        fit_dense(*layers, augment=augment)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_not_finite_output_inside_a_residual_block():
    body = Sequential(Dense(8, 8, seed=2), Dense(8, 8, seed=3))
    body.layers[1].weight.assign(np.full((8, 8), 3e38, np.float32))
    with pytest.raises(FloatingPointError, match=r"the output of layer 1\.body\.1, Dense\(8, 8\)"):
        fit_dense(Dense(96, 8, seed=0), Residual(body), Dense(8, 4, seed=1))


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_not_finite_gradients_name_the_layer():
    def explode(scores, labels):
        value, grad = cross_entropy(scores, labels)
        return value, grad * np.float32(np.inf) if len(steps) == 3 else grad

    steps = []
    model = Dense(96, 8, seed=0), Dense(8, 4, seed=1)
    count = Calls()
    count.on_batch = lambda run: steps.append(run.step)
    with pytest.raises(
        FloatingPointError,
        match=r"the gradient of layer 1, Dense\(8, 4\) at step 5, epoch 1",
    ):
        fit_dense(*model, loss=explode, callbacks=[count])


def test_not_finite_inputs_and_losses():
    with pytest.raises(FloatingPointError, match=r"got NaN or infinity in the inputs at step 1,"):
        fit_dense(Dense(96, 4), augment=lambda x, rng: x * np.float32(np.nan))
    with pytest.raises(
        FloatingPointError, match=r"loss must be finite, got inf at step 1, epoch 1"
    ):
        fit_dense(Dense(96, 4), loss=lambda scores, labels: (np.inf, scores))


def test_layers_are_left_as_they_were_after_an_error():
    layer = Dense(96, 4)
    with pytest.raises(FloatingPointError):
        fit_dense(layer, loss=lambda scores, labels: (np.nan, scores))
    assert not {"forward", "backward"} & set(vars(layer))


class Threads(Callback):
    """What both pools have during the training."""

    def on_start(self, run):
        self.ours = get_num_threads()
        threadpoolctl = pytest.importorskip("threadpoolctl")
        pools = threadpoolctl.threadpool_info()
        self.blas = {pool["num_threads"] for pool in pools if pool["user_api"] == "blas"}


def test_only_one_pool_has_several_threads(monkeypatch):
    before = get_num_threads()
    set_num_threads(2)
    try:
        wanted = get_num_threads()
        threads = Threads()
        train_small(epochs=1, callbacks=[threads])
        assert (threads.ours, threads.blas) == (wanted, {1})
        monkeypatch.setattr(process, "threadpool_limits", None)
        train_small(epochs=1, callbacks=[threads])
        assert threads.ours == 1
        monkeypatch.undo()
        fit_dense(Dense(96, 4), callbacks=[threads])
        assert threads.ours == 1
        train_small(epochs=1, callbacks=[threads], blas=True)
        assert threads.ours == 1
        fit_dense(Dense(96, 4), callbacks=[threads], blas=False)
        assert (threads.ours, threads.blas) == (wanted, {1})
        assert get_num_threads() == wanted
    finally:
        set_num_threads(before)


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
        monkeypatch.setattr(progress, "tqdm", None)
    monkeypatch.setattr(progress, "_ESTIMATE_AFTER", 1e9)  # a line of its own on a slow machine
    _, history = train_small(verbose=1, epochs=3)
    lines = capfd.readouterr().out.splitlines()
    assert lines == [str(epoch) for epoch in history.epochs]
    assert "validation error" in lines[0]
    assert str(history).splitlines()[-1] == f"kept the model of epoch {history.best.number}"


def test_bar_shows_loss_error_rate_and_time_left(monkeypatch):
    tqdm = pytest.importorskip("tqdm")
    bars, texts = [], []

    class Bar(tqdm.tqdm):
        def __init__(self, *args, **options):
            super().__init__(*args, **{**options, "disable": False, "mininterval": 0})
            bars.append(self)

        def display(self, *args, **options):
            texts.append(str(self))

    monkeypatch.setattr(progress, "tqdm", Bar)
    _, history = train_small(verbose=1, epochs=2, batch_size=40)
    assert bars[0].n == bars[0].total == 320
    assert f"loss={history.epochs[-1].loss:.4f}" in texts[-1]
    assert f"error={history.epochs[-1].train_error:.2%}" in texts[-1]
    assert re.search(r"\[\d\d:\d\d<\d\d:\d\d, .*images/s", texts[-1])


@pytest.mark.parametrize("bar", [True, False])
def test_lines_appear_epoch_by_epoch(tmp_path, monkeypatch, bar):
    """Also where the output is a file or a pipe, which Python writes to in blocks."""
    if bar:
        pytest.importorskip("tqdm")
    else:
        monkeypatch.setattr(progress, "tqdm", None)
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
        ({"y": np.full(240, -1)}, ValueError),
        ({"validation": (np.zeros((2, 96)), [0])}, ValueError),
        ({"validation": (np.zeros((2, 96)), [0, 4])}, ValueError),
        ({"validation": (np.zeros((0, 96)), np.zeros(0, int))}, ValueError),
        ({"x": np.full((240, 96), np.nan)}, ValueError),
        ({"x": np.full((240, 96), -np.inf)}, ValueError),
        ({"callbacks": [print]}, TypeError),
        ({"callbacks": [EarlyStopping]}, TypeError),
    ],
)
def test_bad_input(change, error):
    x, y = prototypes()
    arguments = {"x": x, "y": y, "verbose": 0, **change}
    with pytest.raises(error, match=r"^\[\w+\] .*, got "):
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
    assert model.error_rate(data.x_test, data.y_test) < 0.09
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
    assert model.error_rate(data.x_test, data.y_test) < 0.10
    assert time.perf_counter() - start < 120
    packed = model.freeze()
    np.testing.assert_array_equal(packed.outputs(data.x_test), model.outputs(data.x_test))
    np.testing.assert_array_equal(packed.outputs(data.x_test), numpy_outputs(packed, data.x_test))
