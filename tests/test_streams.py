"""Trainings on batches of an iterable, drawn ahead in a thread."""

import threading
import time

import numpy as np
import pytest

from bitops import BitArray, pack
from bitops.layers import BatchNorm, BinaryDense, Dense, Sequential
from bitops.training import Checkpoint, Log, cross_entropy, mse, read_log
from forgery import read, write
from trainings import OPTIONS, At, Calls, assert_same, data, dense, press, stop

X, Y = data()
BATCHES = [(X[i : i + 20], Y[i : i + 20]) for i in range(0, 100, 20)]


class Reader:
    """Batches in an order of its own in each pass, without a length."""

    def __init__(self, batches=BATCHES, seed=0):
        self.batches, self.rng, self.passes = batches, np.random.default_rng(seed), 0

    def __iter__(self):
        self.passes += 1
        for i in self.rng.permutation(len(self.batches)):
            yield self.batches[i]


def fit(batches, model=None, **options):
    model = dense() if model is None else model
    history = model.fit(batches, **{"epochs": 3, "verbose": 0, **options})
    assert not [t for t in threading.enumerate() if t.name == "bitops-batches"]
    return model, history


@pytest.mark.parametrize("prefetch", [0, 1, 7])
def test_batches_train_as_rows_do(prefetch):
    """The rows that `fit` draws, given as batches, give the same weights."""
    model = dense()
    history = model.fit(X, Y, epochs=3, batch_size=20, verbose=0, validation=(X, Y))
    rng = np.random.default_rng(0)
    batches = []
    for _ in range(3):
        order = rng.permutation(100)
        batches += [(X[rows], Y[rows]) for rows in order.reshape(5, 20)]
    options = {"steps_per_epoch": 5, "validation": (X, Y), "prefetch": prefetch}
    other, found = fit(iter(batches), **options)
    assert_same(other, model)
    for a, b in zip(found.epochs, history.epochs, strict=True):
        assert (a.loss, a.train_error, a.validation_error) == (
            b.loss,
            b.train_error,
            b.validation_error,
        )


def test_an_iterable_starts_anew_and_an_epoch_has_its_length():
    calls = Calls()
    fit(BATCHES, epochs=2, callbacks=calls)
    expected = ["start", *range(1, 6), "epoch 1", *range(6, 11), "epoch 2", "end"]
    assert calls.names == expected
    reader = Reader()
    fit(reader, epochs=2, steps_per_epoch=4)
    assert reader.passes == 2  # 8 batches of the 10 of two passes


def test_no_more_batches_are_drawn_than_are_used():
    drawn = []

    def read():
        while True:
            drawn.append(len(drawn))
            yield BATCHES[len(drawn) % 5]

    fit(read(), epochs=2, steps_per_epoch=3)
    assert len(drawn) == 6


def test_batches_are_drawn_ahead_in_a_thread():
    seen = []

    def read():
        for batch in BATCHES:
            seen.append(threading.current_thread().name)
            yield batch

    fit(read(), epochs=1, steps_per_epoch=5)
    assert seen == ["bitops-batches"] * 5
    seen.clear()
    fit(read(), epochs=1, steps_per_epoch=5, prefetch=0)
    assert seen == [threading.current_thread().name] * 5


class Refilled:
    """Batches in the same arrays, which are written anew for each."""

    def __init__(self, kind):
        self.kind = kind

    def __len__(self):
        return 5

    def __iter__(self):
        x, y, weight = self.kind(X[:20]), Y[:20].copy(), np.zeros(20, np.float32)
        for i, (rows, labels) in enumerate(BATCHES):
            if isinstance(x, BitArray):
                x.words[:] = self.kind(rows).words
            else:
                x[:] = rows
            y[:], weight[:] = labels, i
            yield x, y, weight


@pytest.mark.parametrize(
    "kind", [np.copy, np.float32, lambda x: pack(x > 99), lambda x: np.zeros((20, 80))[:, ::2]]
)
def test_an_iterable_may_fill_the_same_arrays(kind):
    one_by_one, _ = fit(Refilled(kind), loss=cross_entropy, prefetch=0)
    for prefetch in (1, 3):
        ahead, _ = fit(Refilled(kind), loss=cross_entropy, prefetch=prefetch)
        assert_same(ahead, one_by_one)


def test_batches_of_several_sizes():
    sizes = [(X[:50], Y[:50]), (X[50:80], Y[50:80]), (X[80:], Y[80:])]
    wrong = []
    _, history = fit(
        sizes, epochs=1, callbacks=At(3, lambda run: wrong.append((run.position.wrong, run.rows)))
    )
    assert history.epochs[0].train_error == wrong[0][0] / 100


def test_weights_come_with_batches():
    weights = np.random.default_rng(0).random(100)
    weighed = [(x, y, weights[20 * i : 20 * i + 20]) for i, (x, y) in enumerate(BATCHES)]

    def loss(scores, labels, sample_weight):
        seen.append(sample_weight)
        return cross_entropy(scores, labels, sample_weight)

    seen = []
    fit(weighed, epochs=1, loss=loss)
    np.testing.assert_array_equal(np.concatenate(seen), weights.astype(np.float32))
    seen.clear()
    fit(weighed, epochs=1, loss=loss, class_weight={0: 3})
    np.testing.assert_array_equal(
        np.concatenate(seen), weights.astype(np.float32) * np.where(Y == 0, 3, 1).astype(np.float32)
    )


def test_rows_are_augmented_and_those_of_the_iterable_stay():
    given = [(x.copy(), y) for x, y in BATCHES]

    def augment(x, rng):
        x[:, 0] = rng.integers(256)
        return x

    fit(given, augment=augment)
    for (x, _), (old, _) in zip(given, BATCHES, strict=True):
        np.testing.assert_array_equal(x, old)


def test_log_of_batches(tmp_path):
    path = tmp_path / "log.csv"
    fit(BATCHES, callbacks=Log(path), validation=(X, Y))
    rows = read_log(path)
    assert [row["step"] for row in rows] == [5, 10, 15]
    assert all(row["validation_loss"] > 0 for row in rows)


@pytest.mark.parametrize("step", [4, 5, 7, 14])
@pytest.mark.parametrize("prefetch", [0, 2])
def test_resumed_equals_uninterrupted(tmp_path, step, prefetch):
    path = tmp_path / "c"
    options = {"steps_per_epoch": 5, "prefetch": prefetch, "validation": (X[:30], Y[:30])}
    model, history = fit(Reader(), **options)
    with pytest.raises(KeyboardInterrupt):
        fit(Reader(), callbacks=[Checkpoint(path), At(step, press)], **options)
    other, found = fit(Reader(), dense(seed=3), resume=path, **options)
    assert_same(other, model)
    assert [e.loss for e in found.epochs] == [e.loss for e in history.epochs]
    with pytest.raises(ValueError, match="steps_per_epoch is 5 there and 4 here"):
        fit(Reader(), resume=path, **{**options, "steps_per_epoch": 4})
    with pytest.raises(ValueError, match="x is None there and uint8 of"):
        dense().fit(X, Y, resume=path, **OPTIONS)


class Broken(Exception):
    pass


@pytest.mark.parametrize("prefetch", [0, 2])
def test_errors_of_the_iterable_travel(prefetch):
    def read():
        yield from BATCHES[:3]
        raise Broken("the disk is gone")

    calls = Calls()
    with pytest.raises(Broken, match="the disk is gone"):
        fit(read(), steps_per_epoch=5, callbacks=calls, prefetch=prefetch)
    assert calls.names == ["start", 1, 2, 3]
    assert not [t for t in threading.enumerate() if t.name == "bitops-batches"]


def test_ctrl_c_ends_a_training_that_waits_for_a_batch():
    """The iterable gives no more batches until the training has been interrupted."""
    pressed = threading.Event()

    def read():
        yield BATCHES[0]
        pressed.wait(30)
        while True:
            yield BATCHES[0]

    def later(run):
        def press_soon():
            time.sleep(0.2)
            press()
            time.sleep(0.3)
            pressed.set()

        threading.Thread(target=press_soon).start()

    calls = Calls(1, later)
    with pytest.raises(KeyboardInterrupt):
        dense().fit(read(), epochs=1, steps_per_epoch=3, verbose=0, callbacks=calls)
    assert calls.names == ["start", 1, "interrupted"]
    assert not [t for t in threading.enumerate() if t.name == "bitops-batches"]


def test_a_training_that_stops_early_leaves_no_thread():
    reader = Reader()
    fit(reader, steps_per_epoch=5, callbacks=At(2, lambda run: setattr(run, "stop", True)))
    with pytest.raises(FloatingPointError):
        fit(BATCHES, loss=lambda scores, labels: (np.nan, scores))
    assert not [t for t in threading.enumerate() if t.name == "bitops-batches"]


def nan_row(x):
    x = x.astype(np.float32)
    x[3, 4] = np.nan
    return x


REFUSED = {
    "rows alone": (X, {}, TypeError, "x must be rows, with y, or an iterable of batches"),
    "a number": (3, {}, TypeError, "x must be rows, with y, or an iterable"),
    "no length": (iter(BATCHES), {}, TypeError, "steps_per_epoch must be given for batches"),
    "empty": ([], {}, ValueError, "steps_per_epoch must be at least 1, got 0"),
    "too few": (iter(BATCHES), {"steps_per_epoch": 5}, ValueError, "x must give 15 batches, 5 an"),
    "never any": (Reader([]), {"steps_per_epoch": 5}, ValueError, "x must give batches, got none"),
    "no pairs": ([X[:20]], {}, TypeError, r"batches must be \(x, y\) or \(x, y, weight\)"),
    "four": ([(X[:20],) * 4], {}, TypeError, "batches must be"),
    "width": ([(X[:20, 1:], Y[:20])], {}, ValueError, "batch x must have the shape that the model"),
    "NaN": ([(nan_row(X[:20]), Y[:20])], {}, ValueError, "batch x must be finite"),
    "labels": ([(X[:20], Y[:20] + 9)], {}, ValueError, r"batch y must be in 0\.\.3"),
    "rows": ([(X[:20], Y[:19])], {}, ValueError, r"batch y must have shape \(20,\)"),
    "floats": ([(X[:20], Y[:20] * 1.0)], {}, TypeError, "batch y must be integers"),
    "one row": ([(X[:1], Y[:1])], {}, ValueError, "batch_size must give every layer at least two"),
    "weights": ([(X[:9], Y[:9], X[:9])], {}, ValueError, r"sample_weight must have shape \(9,\)"),
    "balanced": (
        BATCHES,
        {"class_weight": "balanced"},
        ValueError,
        "class_weight must be an array",
    ),
    "prefetch": (BATCHES, {"prefetch": -1}, ValueError, "prefetch must be at least 0"),
    "steps": (BATCHES, {"steps_per_epoch": 0}, ValueError, "steps_per_epoch must be at least 1"),
    "sample_weight": (BATCHES, {"sample_weight": [1]}, ValueError, "sample_weight must come with"),
    "parts": (BATCHES, {"accumulate": 21}, ValueError, "accumulate must be at most the 20 rows"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused(case):
    batches, options, error, message = REFUSED[case]
    with pytest.raises(error, match=rf"^\[fit\] {message}"):
        fit(batches, **options)
    assert not [t for t in threading.enumerate() if t.name == "bitops-batches"]


def test_weights_of_classes_are_checked_before_the_first_batch():
    calls = Calls()
    for weights in ([1, 2], {4: 1}, {0: -1}):
        with pytest.raises(ValueError, match=r"^\[fit\] (classes of )?class_weight must"):
            fit(BATCHES, class_weight=weights, callbacks=calls)
    assert calls.names == []


@pytest.mark.parametrize("given", [[1, 2, 3, 1], {1: 2, 2: 3}, np.array([1.0, 2.0, 3.0, 1.0])])
def test_a_resume_compares_weights_of_classes(tmp_path, given):
    path = tmp_path / "c"
    fit(BATCHES, class_weight=given, callbacks=[At(7, stop), Checkpoint(path)])
    for other in (None, [1, 2, 1, 1], {1: 2}):
        with pytest.raises(ValueError, match=r"class_weight is .* there and .* here"):
            fit(BATCHES, class_weight=other, resume=path)
    description, tensors = read(path)  # earlier files say nothing of them
    del description["settings"]["class_weight"], description["changed"]
    write(tmp_path / "old", description, tensors)
    for file in (path, tmp_path / "old"):
        resumed, _ = fit(BATCHES, class_weight=[1, 2, 3, 1], resume=file)
    assert_same(resumed, fit(BATCHES, class_weight=given)[0])


def test_options_of_batches_are_refused_with_rows():
    with pytest.raises(ValueError, match=r"^\[fit\] steps_per_epoch must be None with rows, got 3"):
        fit(X, y=Y, steps_per_epoch=3)


def test_regression_on_batches():
    targets = X[:, :2] / np.float32(255)
    batches = [(X[i : i + 20], targets[i : i + 20]) for i in range(0, 100, 20)]
    model = Sequential(BinaryDense(40, 32, seed=0), BatchNorm(32), Dense(32, 2, seed=1))
    _, history = fit(batches, model, epochs=40, loss=mse, schedule=0.01, validation=(X, targets))
    assert history.epochs[-1].train_error is None
    assert history.best.validation_loss < 0.05 < history.epochs[0].validation_loss
