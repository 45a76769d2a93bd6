"""Callbacks of `fit`: when they are called, early stopping, annealing, Ctrl-C, augmentation."""

import signal

import numpy as np
import pytest

from bitops.layers import BinaryDense, Sequential, Sign
from bitops.models import mlp
from bitops.quantizers import AnnealedSign, ClippedGradient, ProgressiveSign
from bitops.training.callbacks import Annealing, Callback, EarlyStopping
from trainings import Calls, press, prototypes, stop, train_small


def test_callbacks_are_called_in_order():
    seen = []

    class Look(Callback):
        def on_batch(self, run):
            seen.append((run.epoch, run.batch, run.step, len(run.rows), run.optimizer.steps))
            assert 0 <= run.error <= 1 and run.mean_loss > 0

        def on_epoch(self, run):
            assert run.history.epochs[-1].loss == run.mean_loss
            assert run.history.epochs[-1].train_error == run.error

    calls = Calls()
    train_small(epochs=2, batch_size=70, callbacks=[calls, Look()])
    assert calls.names == ["start", 1, 2, "epoch 1", 3, 4, "epoch 2", "end"]
    assert seen == [(1, 1, 1, 70, 1), (1, 2, 2, 70, 2), (2, 1, 3, 70, 3), (2, 2, 4, 70, 4)]


def test_callbacks_change_nothing():
    states = [train_small(callbacks=c)[0].state() for c in ([], [Calls(), EarlyStopping(9)])]
    for a, b in zip(*states, strict=True):
        for left, right in zip(a, b, strict=True):
            np.testing.assert_array_equal(left, right)


@pytest.mark.parametrize(
    ("at", "names", "epochs"),
    [(3, ["start", 1, 2, 3, "end"], 0), (4, ["start", 1, 2, 3, 4, "epoch 1", "end"], 1)],
)
def test_a_callback_stops_the_training(at, names, epochs):
    calls = Calls(at, stop)
    _, history = train_small(batch_size=40, callbacks=[calls])
    assert calls.names == names
    assert len(history.epochs) == epochs


def test_early_stopping():
    model, history = train_small(
        epochs=20,
        schedule=lambda epoch, epochs: 3e-3 if epoch < 2 else 10.0,
        callbacks=[EarlyStopping(3)],
    )
    x, y = prototypes()
    assert len(history.epochs) == history.best.number + 3 < 20
    assert model.error_rate(x[160:], y[160:]) == history.best.validation_error
    with pytest.raises(ValueError, match=r"^\[EarlyStopping\] .* got None"):
        mlp(96, 32, 1, 4).fit(x, y, callbacks=[EarlyStopping(1)], verbose=0)
    with pytest.raises(ValueError, match=r"^\[EarlyStopping\] patience .* got 0"):
        EarlyStopping(0)


def test_annealing():
    plain, inner = ProgressiveSign(), AnnealedSign()
    signs = Sign(quantizer=plain), Sign(quantizer=ClippedGradient(inner, 1.0))
    model = Sequential(BinaryDense(96, 8, seed=0), signs[0], BinaryDense(8, 4, seed=1), signs[1])
    seen = []

    class Look(Callback):
        def on_start(self, run):
            seen.append((plain.progress, inner.progress))

        on_batch = on_start

    x, y = prototypes()
    plain.progress = 0.7  # left by an earlier training
    callbacks = [Annealing(), Look()]
    model.fit(x, y, epochs=2, batch_size=120, callbacks=callbacks, verbose=0)
    assert seen == [(share, share) for share in (0, 0.25, 0.5, 0.75, 1)]


def test_interrupt_falls_between_two_steps():
    calls = Calls(5, press)
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        train_small(batch_size=40, callbacks=[calls])
    assert calls.names == ["start", 1, 2, 3, 4, "epoch 1", 5, "interrupted"]
    assert signal.getsignal(signal.SIGINT) is before


def test_second_interrupt_does_not_wait():
    calls = Calls(5, lambda run: [press(run), press(run)])
    with pytest.raises(KeyboardInterrupt):
        train_small(batch_size=40, callbacks=[calls])
    assert calls.names == ["start", 1, 2, 3, 4, "epoch 1", 5]


def test_interrupt_keeps_the_last_model():
    """Not that of the best epoch, which is another one here."""
    states = []
    calls = Calls(9, lambda run: [states.append(run.model.state()), press(run)])
    model = mlp(96, 32, 1, 4, seed=0)
    x, y = prototypes()
    with pytest.raises(KeyboardInterrupt):
        model.fit(x, y, batch_size=60, validation=(x, y), verbose=0, callbacks=[calls])
    for a, b in zip(states[0], model.state(), strict=True):
        for left, right in zip(a, b, strict=True):
            np.testing.assert_array_equal(left, right)


def test_handler_of_the_program_stays():
    seen = []
    before = signal.signal(signal.SIGINT, lambda number, frame: seen.append(number))
    try:
        _, history = train_small(callbacks=[Calls(2, press)])
    finally:
        signal.signal(signal.SIGINT, before)
    assert seen == [signal.SIGINT]
    assert len(history.epochs) == 4


def test_augment():
    seen = []

    def augment(x, rng):
        seen.append((x.shape, rng.integers(1000)))
        x[:, :48] = 0  # the rows are a copy
        return x

    x, y = prototypes()
    given = x.copy()
    mlp(96, 16, 1, 4).fit(x, y, epochs=2, batch_size=80, augment=augment, verbose=0)
    np.testing.assert_array_equal(x, given)
    assert [shape for shape, _ in seen] == [(80, 96)] * 6
    assert len({number for _, number in seen}) > 1
    with pytest.raises(
        ValueError, match=r"^\[fit\] augment must keep the 80 rows, got shape \(79, 96\)"
    ):
        mlp(96, 16, 1, 4).fit(x, y, batch_size=80, augment=lambda x, rng: x[1:], verbose=0)


def test_without_augment_the_rows_come_as_ever():
    """The first permutations of the seed."""
    orders = []

    class Look(Callback):
        def on_epoch(self, run):
            orders.append(run.order.copy())

    train_small(epochs=3, seed=5, callbacks=[Look()])
    rng = np.random.default_rng(5)
    for order in orders:
        np.testing.assert_array_equal(order, rng.permutation(160))
