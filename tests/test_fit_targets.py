"""Trainings on other targets than labels, with weights, metrics, rates a step, and parts."""

import dataclasses
import warnings

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from bitops.layers import BatchNorm, BinaryDense, Dense, Sequential
from bitops.models import mlp
from bitops.training import (
    SGD,
    Checkpoint,
    CosineDecay,
    CrossEntropy,
    Distillation,
    EarlyStopping,
    ExponentialDecay,
    Huber,
    Log,
    OneCycle,
    PerStep,
    StepDecay,
    Warmup,
    binary_cross_entropy,
    cross_entropy,
    mae,
    mse,
    read_log,
)
from bitops.training import progress as training_progress
from trainings import OPTIONS, At, assert_same, data, dense, press, stop

X, Y = data()
ROWS = np.eye(4, dtype=np.float32)[Y]
SOFT = np.float32(0.85) * ROWS + np.float32(0.0375)
FLAGS = np.stack([Y == 0, Y < 2, Y % 2 == 0, X[:, 0] > 99], axis=1)
VALUES = np.float32(X[:, :4]) / 255


def fit(y=Y, model=None, **options):
    model = dense() if model is None else model
    return model, model.fit(X, y, **{**OPTIONS, **options})


CASES = {
    "cross_entropy, soft": {"y": SOFT, "loss": cross_entropy},
    "CrossEntropy": {"y": Y, "loss": CrossEntropy(0.1)},
    "Distillation": {"y": 3 * ROWS, "loss": "distillation"},
    "Distillation, labels": {"y": (Y, 3 * ROWS), "loss": Distillation(2.0, 0.5)},
    "binary_cross_entropy": {"y": FLAGS, "loss": "binary_cross_entropy"},
    "mse": {"y": VALUES, "loss": "mse"},
    "mae": {"y": VALUES, "loss": mae},
    "Huber": {"y": VALUES, "loss": Huber(0.5)},
}


# ---- targets -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CASES)
def test_every_loss_trains(name):
    options = {"epochs": 20, "schedule": 0.01, "model": mlp(40, 24, 1, 4, seed=0), **CASES[name]}
    y = options["y"]
    _, history = fit(validation=(X, y), **options)
    assert history.epochs[-1].loss < 0.7 * history.epochs[0].loss
    last = history.best
    assert last.validation_loss < history.epochs[0].validation_loss
    if name in ("mse", "mae", "Huber"):
        assert last.train_error is last.validation_error is None
        assert "error" not in str(last) and "validation loss" in str(last)
    else:
        assert last.validation_error < 0.25


def test_errors_of_flags_are_shares_of_wrong_ones():
    model, history = fit(FLAGS, loss=binary_cross_entropy, validation=(X, FLAGS), epochs=1)
    wrong = (model.outputs(X) > 0) != FLAGS
    assert history.best.validation_error == pytest.approx(wrong.mean())


def test_validation_loss_is_that_of_the_scores():
    model, history = fit(validation=(X[:30], Y[:30]), loss=cross_entropy, epochs=1)
    assert history.best.validation_loss == cross_entropy(model.outputs(X[:30]), Y[:30])[0]


def test_one_output_takes_a_row_of_targets():
    model = Sequential(BinaryDense(40, 8, seed=0), BatchNorm(8), Dense(8, 1, seed=1))
    other = Sequential(BinaryDense(40, 8, seed=0), BatchNorm(8), Dense(8, 1, seed=1))
    fit(VALUES[:, 0], model, loss=mse)
    fit(VALUES[:, :1], other, loss=mse)
    assert_same(model, other)


def own(scores, targets):
    difference = scores - targets
    return float(np.mean(np.square(difference))), difference * np.float32(2 / difference.size)


def test_an_own_loss_of_floats_takes_values():
    model, _ = fit(VALUES, loss=own)
    assert_same(model, fit(VALUES, loss=mse)[0])


def test_a_teacher_teaches():
    options = {"epochs": 15, "schedule": 0.01}
    teacher, _ = fit(model=mlp(40, 64, 1, 4, seed=1), **options)
    scores = teacher.outputs(X)
    student = mlp(40, 24, 1, 4, seed=2)
    _, history = fit((Y, scores), student, loss=Distillation(), **options)
    assert history.epochs[-1].loss < history.epochs[0].loss / 2
    assert np.mean(student.predict(X) == teacher.predict(X)) > 0.9


NAN = np.where(VALUES > 0.5, np.float32(np.nan), VALUES)
REFUSED = {
    "NaN": ({"y": NAN, "loss": mse}, ValueError, "y must be finite as float32, got NaN"),
    "columns": ({"y": VALUES[:, :3], "loss": mse}, ValueError, r"y must have shape \(100, 4\)"),
    "a row": ({"y": VALUES[:, 0], "loss": mse}, ValueError, r"y must have shape \(100, 4\)"),
    "rows": ({"y": VALUES[:9], "loss": mse}, ValueError, r"y must have shape \(100, 4\)"),
    "text": ({"y": Y.astype(str), "loss": mse}, TypeError, "y must hold real numbers"),
    "sums": ({"y": 2 * ROWS / 3, "loss": cross_entropy}, ValueError, "y must have rows whose sum"),
    "shares": ({"y": 2 * ROWS, "loss": binary_cross_entropy}, ValueError, r"y must be in 0\.\.1"),
    "own, NaN": ({"y": NAN, "loss": own}, ValueError, "y must be finite"),
    "teacher": ({"y": (Y, NAN), "loss": Distillation()}, ValueError, "scores of y must be finite"),
    "teacher's labels": (
        {"y": (Y + 1, VALUES), "loss": Distillation()},
        ValueError,
        r"labels of y must be in 0\.\.3",
    ),
    "validation": (
        {"y": VALUES, "loss": mse, "validation": (X, NAN)},
        ValueError,
        "validation y must be finite",
    ),
    "weight: NaN": ({"sample_weight": np.full(100, np.nan)}, ValueError, "sample_weight must be"),
    "weight: negative": ({"sample_weight": -np.ones(100)}, ValueError, "sample_weight must be"),
    "weight: rows": ({"sample_weight": np.ones(99)}, ValueError, r"sample_weight must have shape"),
    "weight: text": ({"sample_weight": ["a"] * 100}, TypeError, "sample_weight must hold real"),
    "weight: loss": (
        {"sample_weight": np.ones(100), "loss": lambda scores, y: (0.0, scores)},
        TypeError,
        r"loss must take \(scores, targets, sample_weight\)",
    ),
    "weight: zeros": ({"sample_weight": np.zeros(100)}, ValueError, "weights must be above 0"),
    "class: zeros": ({"class_weight": [0, 0, 0, 0]}, ValueError, "class_weight must be above 0"),
    "classes: zeros": (
        {"class_weight": {0: 0}, "y": np.zeros(100, int)},
        ValueError,
        "weights must be above 0 for some of the rows",
    ),
    "class: name": ({"class_weight": "even"}, ValueError, "class_weight must be 'balanced'"),
    "class: shape": ({"class_weight": [1, 2]}, ValueError, r"class_weight must have shape \(4,\)"),
    "class: label": ({"class_weight": {4: 1}}, ValueError, "classes of class_weight must be in"),
    "class: value": ({"class_weight": {1: -1}}, ValueError, "class_weight must be >= 0"),
    "class: values": (
        {"class_weight": "balanced", "y": VALUES, "loss": mse},
        ValueError,
        "class_weight must be None for targets without classes",
    ),
    "metric: name": ({"metrics": "acc"}, ValueError, "metrics must be functions or of 'accuracy'"),
    "metric: number": ({"metrics": [3]}, ValueError, "metrics must be functions"),
    "metrics: None": ({"metrics": None}, ValueError, "metrics must be functions"),
    "metric: no data": (
        {"metrics": "accuracy"},
        ValueError,
        "validation must be given for metrics",
    ),
    "monitor: unknown": (
        {"monitor": "error"},
        ValueError,
        "monitor must be one of loss, train_err",
    ),
    "monitor: no data": ({"monitor": "validation_loss"}, ValueError, "monitor must be one of loss"),
    "monitor: number": ({"monitor": 3}, TypeError, "monitor must be the name of a quantity"),
    "monitor: mode": ({"monitor": "loss", "mode": "least"}, ValueError, "mode must be 'min' or"),
    "monitor: mode alone": ({"mode": "min"}, TypeError, "monitor must be the name of a quantity"),
    "monitor: direction": (
        {"metrics": lambda scores, y: 0.0, "validation": (X, Y), "monitor": "validation_<lambda>"},
        ValueError,
        "mode must be 'min' or 'max' for 'validation_<lambda>'",
    ),
    "metric: k": (
        {"metrics": "top_5_accuracy", "validation": (X, Y)},
        ValueError,
        r"metric 'top_5_accuracy' must take scores .* k must be in 1\.\.4",
    ),
    "accumulate: 0": ({"accumulate": 0}, ValueError, "accumulate must be at least 1"),
    "accumulate: rows": ({"accumulate": 21}, ValueError, "accumulate must be at most the 20 rows"),
    "accumulate: one row": ({"accumulate": 15}, ValueError, "batch_size must give every layer at"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused_before_any_step(case):
    options, error, message = REFUSED[case]
    model, untouched = dense(), dense()
    with pytest.raises(error, match=rf"^\[fit\] {message}"):
        fit(model=model, **options)
    assert_same(model, untouched)


def test_a_loss_names_what_it_takes():
    def loss(scores, targets):
        return own(scores, targets)

    loss.targets = "numbers"
    with pytest.raises(ValueError, match=r"^\[fit\] targets of a loss must be one of labels,"):
        fit(VALUES, loss=loss)
    loss.targets = "values"
    assert_same(fit(VALUES, loss=loss)[0], fit(VALUES, loss=mse)[0])


# ---- weights -------------------------------------------------------------------------------------


def test_weights_of_rows_and_classes():
    weight = np.random.default_rng(0).random(100)
    seen = []

    def loss(scores, labels, sample_weight):
        seen.append(np.stack([labels, sample_weight]))
        return cross_entropy(scores, labels, sample_weight)

    fit(loss=loss, sample_weight=weight, class_weight=[1, 2, 3, 0], epochs=1)
    labels, weights = np.concatenate(seen, axis=1)
    order = np.random.default_rng(0).permutation(100)
    assert_array_equal(labels, Y[order])
    expected = weight.astype(np.float32) * np.float32([1, 2, 3, 0])[Y]
    assert_array_equal(weights, expected[order])


def test_balanced_classes_weigh_the_same():
    rare = np.where(np.arange(100) < 90, 0, Y)
    seen = []

    def loss(scores, labels, sample_weight):
        seen.extend(zip(labels, sample_weight, strict=True))
        return cross_entropy(scores, labels, sample_weight)

    fit(rare, loss=loss, class_weight="balanced", epochs=1)
    totals = [sum(w for label, w in seen if label == c) for c in np.unique(rare)]
    assert_allclose(totals, 25, rtol=1e-5)


def test_ones_change_nothing_and_zeros_leave_rows_out():
    plain, _ = fit(loss=cross_entropy)
    ones, _ = fit(loss=cross_entropy, sample_weight=np.ones(100), class_weight={2: 1})
    assert_same(plain, ones)
    some = np.arange(100) % 3 > 0
    found, _ = fit(sample_weight=some)
    other, _ = fit(np.where(some, Y, 0), sample_weight=some)
    assert_same(found, other)


# ---- metrics, monitor, early stopping ------------------------------------------------------------


def spread(scores, labels):
    return float(np.ptp(scores))


def test_metrics_by_name_and_as_functions(tmp_path):
    names = ["accuracy", "top_2_accuracy", spread]
    path = tmp_path / "log.jsonl"
    model, history = fit(metrics=names, validation=(X[:40], Y[:40]), callbacks=Log(path))
    for epoch in history.epochs:
        found = epoch.metrics
        assert list(found) == [f"validation_{n}" for n in ("accuracy", "top_2_accuracy", "spread")]
        assert found["validation_accuracy"] == pytest.approx(1 - epoch.validation_error)
        assert found["validation_top_2_accuracy"] >= found["validation_accuracy"]
    assert "validation top 2 accuracy 0." in str(history.epochs[0])
    best = history.best.metrics["validation_spread"]
    assert best == np.ptp(model.outputs(X[:40]))
    rows = read_log(path)
    assert [r["validation_accuracy"] for r in rows] == [
        e.metrics["validation_accuracy"] for e in history.epochs
    ]


def test_metrics_must_be_finite():
    def ratio(scores, labels):
        return np.nan

    with pytest.raises(
        FloatingPointError, match=r"^\[fit\] validation_ratio must be finite, got nan"
    ):
        fit(metrics=ratio, validation=(X, Y))


@pytest.mark.parametrize(
    ("monitor", "mode", "pick"),
    [
        ("loss", None, min),
        ("train_error", None, min),
        ("validation_loss", None, min),
        ("validation_loss", "max", max),
        ("validation_accuracy", None, max),
        ("validation_spread", "min", min),
        ("validation_spread", "max", max),
    ],
)
def test_the_best_epoch_by_any_quantity(monitor, mode, pick):
    options = {"metrics": ["accuracy", spread], "validation": (X[:40], Y[:40])}
    states = []
    keep = At(0, None)
    keep.on_epoch = lambda run: states.append(run.model.state())
    model, history = fit(monitor=monitor, mode=mode, callbacks=keep, epochs=8, **options)
    values = [epoch.value(monitor) for epoch in history.epochs]
    assert history.best.number - 1 == values.index(pick(values))
    other = dense()
    other.restore(states[history.best.number - 1])
    assert_same(model, other)


def test_early_stopping_by_any_quantity():
    def train(**options):
        options = {"epochs": 30, "metrics": "accuracy", **options}
        return fit(validation=(X[:40], Y[:40]), schedule=1e-2, **options)[1]

    found = train(callbacks=EarlyStopping(3, monitor="validation_loss", min_delta=0.02))
    losses = [epoch.validation_loss for epoch in found.epochs]
    best = 0
    for i, loss in enumerate(losses):
        best = i if loss < losses[best] - 0.02 else best
    assert len(losses) == best + 4 < 30
    found = train(callbacks=EarlyStopping(2, monitor="validation_accuracy"))
    shares = [epoch.metrics["validation_accuracy"] for epoch in found.epochs]
    assert len(shares) == shares.index(max(shares)) + 3 < 30
    with pytest.raises(
        ValueError, match=r"^\[EarlyStopping\] monitor must be one of loss, train_e"
    ):
        train(callbacks=EarlyStopping(2, monitor="validation_rmse"))
    fit(callbacks=EarlyStopping(2, monitor="loss"))  # needs no validation data
    with pytest.raises(ValueError, match=r"^\[EarlyStopping\] mode must be 'min' or 'max'"):
        train(metrics=spread, callbacks=EarlyStopping(2, monitor="validation_spread"))
    with pytest.raises(TypeError, match=r"^\[EarlyStopping\] monitor must be the name"):
        EarlyStopping(2, mode="max")


# ---- rates a step --------------------------------------------------------------------------------


class Rates(At):
    def __init__(self):
        self.seen = []

    def on_batch(self, run):
        self.seen.append(run.optimizer.lr)


def rates(schedule, **options):
    seen = Rates()
    _, history = fit(schedule=schedule, callbacks=seen, **options)
    assert [e.learning_rate for e in history.epochs] == seen.seen[4::5]
    return seen.seen


def test_a_schedule_followed_step_by_step():
    warm = PerStep(Warmup(CosineDecay(0.02), 6))
    assert rates(warm) == [Warmup(CosineDecay(0.02), 6)(i, 20) for i in range(20)]


def test_one_cycle():
    found = rates(OneCycle(0.02, warmup=0.25))
    assert found == [OneCycle(0.02, warmup=0.25)(i, 20) for i in range(20)]
    assert found[0] == pytest.approx(0.02 / 25)
    assert found[5] == 0.02 == max(found)
    assert np.all(np.diff(found[:6]) > 0) and np.all(np.diff(found[5:]) < 0)
    assert OneCycle(0.02)(20, 20) == pytest.approx(0.02 / 250_000)
    assert OneCycle(1.0, 0.0, final=0.5)(0, 4) == 1
    assert rates("one_cycle", optimizer="sgd") == [OneCycle(1e-2)(i, 20) for i in range(20)]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: OneCycle(0), r"\[OneCycle\] peak must be positive"),
        (lambda: OneCycle(1, 1.0), r"\[OneCycle\] warmup must be below 1"),
        (lambda: OneCycle(1, start=-1), r"\[OneCycle\] start must be >= 0"),
        (lambda: OneCycle(1, final=np.inf), r"\[OneCycle\] final must be >= 0"),
    ],
)
def test_bad_cycles(call, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        call()


def test_a_schedule_of_steps_must_be_callable():
    with pytest.raises(TypeError, match=r"^\[PerStep\] schedule must be a callable"):
        PerStep(0.1)


# ---- accumulation --------------------------------------------------------------------------------


def smooth(seed=0):
    """Without statistics of the batch, so that parts add up to the whole."""
    return Sequential(BinaryDense(40, 8, scale_weights=True, seed=seed), Dense(8, 4, seed=1))


@pytest.mark.parametrize("parts", [2, 3, 20])
def test_parts_add_up_to_the_step(parts):
    x = X.astype(np.float32) / 255
    whole, split = smooth(), smooth()
    weight = np.random.default_rng(0).random(100)
    grads = []

    def keep(run):
        grads.append([p.grad.copy() for p in run.model.parameters()])

    for model, count in ((whole, 1), (split, parts)):
        options = {**OPTIONS, "loss": cross_entropy, "sample_weight": weight, "epochs": 1}
        optimizer = SGD(model.parameters(), 1e-6)
        model.fit(x, Y, accumulate=count, optimizer=optimizer, callbacks=At(1, keep), **options)
    for a, b in zip(*grads, strict=True):
        assert_allclose(a, b, rtol=2e-3, atol=1e-6)


def test_loss_and_errors_of_parts_are_those_of_the_step():
    seen = []
    for parts in (1, 4):
        model = smooth()
        keep = At(1, lambda run: seen.append((run.mean_loss, run.error)))
        model.fit(X, Y, accumulate=parts, loss=cross_entropy, callbacks=keep, **OPTIONS)
    assert seen[0][0] == pytest.approx(seen[1][0], rel=1e-5)
    assert seen[0][1] == seen[1][1]


# ---- going on ------------------------------------------------------------------------------------

RESUMED = {
    **{name: case for name, case in CASES.items() if name not in ("CrossEntropy", "mae", "Huber")},
    "weights": {"sample_weight": np.linspace(0, 2, 100), "class_weight": "balanced"},
    "accumulate": {"accumulate": 3},
    "one cycle": {"schedule": OneCycle(0.02)},
    "steps": {"schedule": PerStep(Warmup(ExponentialDecay(0.02, 1e-3), 7))},
    "metrics": {"metrics": ["accuracy", "top_2_accuracy"], "monitor": "validation_accuracy"},
    "loss": {"monitor": "loss"},
    "frozen": {"frozen": True},
}


@pytest.mark.parametrize("step", [3, 10])
@pytest.mark.parametrize("name", RESUMED)
def test_resumed_equals_uninterrupted(tmp_path, name, step):
    path, options = tmp_path / "c", dict(RESUMED[name])
    y = options.get("y", Y)
    frozen = options.pop("frozen", False)
    labels = tuple(part[:40] for part in y) if isinstance(y, tuple) else y[:40]
    options["validation"] = X[:40], labels

    def make(seed=0):
        model = dense(seed)
        for layer in model.layers[:3] if frozen else []:
            layer.trainable = False
        return model

    model, history = fit(model=make(), **options)
    with pytest.raises(KeyboardInterrupt):
        fit(model=make(), callbacks=[Checkpoint(path), At(step, press)], **options)
    other, found = fit(model=make(7), resume=path, **options)
    assert_same(model, other)
    without = [dataclasses.replace(e, seconds=0) for e in found.epochs]
    assert without == [dataclasses.replace(e, seconds=0) for e in history.epochs]
    assert found.best.number == history.best.number


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"loss": CrossEntropy(0.2)}, r"loss is CrossEntropy\(label_smoothing=0.1\) there and"),
        ({"accumulate": 2}, "accumulate is none there and 2 here"),
        ({"monitor": "loss"}, r"monitor is none there and Monitor\(name='loss'"),
        ({"sample_weight": np.ones(100)}, "sample_weight is none there and float32"),
        ({"metrics": "accuracy"}, "metrics is none there and validation_accuracy here"),
        ({"epochs": 1}, "epochs must be at least 2, got 1"),
    ],
)
def test_other_options_are_refused(tmp_path, options, message):
    path = tmp_path / "c"
    base = {"loss": CrossEntropy(0.1), "validation": (X, Y)}
    fit(callbacks=[Checkpoint(path), At(8, stop)], **base)
    with pytest.raises(ValueError, match=rf"(?s)^\[fit\] resume must be .*{message}"):
        fit(resume=path, **{**base, **options})


def test_frozen_parameters_are_part_of_a_training(tmp_path):
    path = tmp_path / "c"
    fit(callbacks=[Checkpoint(path), At(8, stop)])
    model = dense()
    model.layers[1].trainable = False
    with pytest.raises(ValueError, match="frozen parameters is none there and 0 here"):
        fit(model=model, resume=path)


def watch_backward(model):
    """Note which layers a training calls backward of."""
    called = []
    for place, layer in enumerate(model.layers):

        def backward(grad, *, place=place, layer=layer):
            called.append(place)
            return type(layer).backward(layer, grad)

        layer.backward = backward
    return called


@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.parametrize("frozen", [0, 1, 3, 5, None])
def test_frozen_layers_at_the_start_take_no_backward_pass(frozen, accumulate):
    plain, model = dense(), dense()
    for layer in [*plain.layers[:frozen], *model.layers[:frozen]]:
        layer.trainable = False
    called = watch_backward(model)
    if frozen is None:
        warnings.simplefilter("ignore")  # all of them are
    fit(model=model, epochs=1, accumulate=accumulate)
    end = len(model.layers)
    trained = [i for i in range(end) if model.layers[i].parameters() and model.layers[i].trainable]
    assert set(called) == set(range(min(trained, default=end), end))
    # as with the gradients of all layers, of which the optimizer takes those it needs
    again = WithOwnBackward(plain.layers)
    watch_backward(again)
    fit(model=again, epochs=1, accumulate=accumulate)
    for a, b in zip(model.parameters(), again.parameters(), strict=True):
        assert np.array_equal(a.value, b.value)


def test_a_frozen_network_is_said():
    model = dense()
    for layer in model.layers:
        layer.trainable = False
    with pytest.warns(
        UserWarning, match=r"^\[fit\] no parameter of the model is trainable"
    ) as found:
        fit(model=model, epochs=1)
        model.fit(*data(), epochs=1)
    assert len(found) == 2
    assert {warning.filename for warning in found} == {__file__}  # by either way


class WithOwnBackward(Sequential):
    def backward(self, grad):
        return super().backward(grad)


def test_backward_of_a_frozen_network_gives_the_gradient_of_its_input():
    x = np.float32(X[:8]) / 255
    trained, frozen = dense(), dense()
    for ours, other in zip(trained.layers, frozen.layers, strict=True):
        ours.trainable = not isinstance(ours, BatchNorm)  # frozen, it evaluates in both
        other.trainable = False
    grads = [m.backward(np.ones_like(m.forward(x, training=True))) for m in (trained, frozen)]
    assert grads[0].any()
    assert_array_equal(*grads)


EXACT = {
    "constant": 0.01,
    "steps": StepDecay(0.01, (3,)),
    "by step": PerStep(StepDecay(0.01, (9,))),
}


@pytest.mark.parametrize("name", EXACT)
def test_a_training_goes_on_longer_than_planned(tmp_path, name):
    path, options = tmp_path / "c", {"schedule": EXACT[name], "validation": (X[:40], Y[:40])}
    fit(callbacks=Checkpoint(path), **options)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        keep = [Checkpoint(path), At(28, stop)]
        fit(model=dense(4), resume=path, epochs=6, callbacks=keep, **options)
        other, found = fit(model=dense(5), resume=path, epochs=7, **options)
    model, history = fit(epochs=7, **options)
    assert_same(model, other)
    assert [e.loss for e in found.epochs] == [e.loss for e in history.epochs]


@pytest.mark.parametrize("schedule", ["cosine_decay", OneCycle(0.01)])
def test_other_rates_of_a_longer_training_are_said(tmp_path, schedule):
    path = tmp_path / "c"
    fit(schedule=schedule, callbacks=Checkpoint(path))
    words = r"^\[fit\] resume goes on to epoch 6, .* training of 4"
    with pytest.warns(UserWarning, match=words) as found:
        _, history = fit(model=dense(4), schedule=schedule, resume=path, epochs=6)
    assert found[0].filename == __file__
    assert len(history.epochs) == 6


def test_other_images_of_a_longer_training_are_said(tmp_path):
    def augment(x, rng, step, steps):
        return x

    augment.by_step = True
    path = tmp_path / "c"
    fit(augment=augment, schedule=0.01, callbacks=Checkpoint(path))
    with pytest.warns(UserWarning, match=r"^\[fit\] resume .* but the images of the epochs"):
        fit(model=dense(4), augment=augment, schedule=0.01, resume=path, epochs=6)


# ---- progress ------------------------------------------------------------------------------------


def test_the_time_that_is_left_is_said_in_the_first_epoch(capsys, monkeypatch):
    monkeypatch.setattr(training_progress, "tqdm", None)
    monkeypatch.setattr(training_progress, "_ESTIMATE_AFTER", 0.0)
    fit(verbose=1, epochs=2)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3
    assert lines[0].startswith("epoch   1  step 2 of 5, about ") and lines[0].endswith(" s left")


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.2, "0 s"), (119, "119 s"), (120, "2 min"), (7199, "120 min"), (9000, "2.5 h")],
)
def test_durations(seconds, words):
    assert training_progress._in_words(seconds) == words
