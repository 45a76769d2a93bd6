"""Metrics of one's own are tried before the first step, which changes nothing."""

import numpy as np
import pytest

from bitops.layers import BatchNorm, BinaryDense, Dense, Sequential, Sign
from bitops.training import accuracy, mse
from trainings import OPTIONS, Calls, Noise, assert_same, data, dense

X, Y = data()


def fit(model=None, **options):
    model = dense() if model is None else model
    return model, model.fit(X, Y, **{**OPTIONS, **options})


def spread(scores, labels):
    return float(np.ptp(scores))


def error(scores, labels):
    return 0.5


def loss(scores, labels):
    return 0.5


def half(scores):
    return 0.5


def nothing(scores, labels):
    return None


@pytest.mark.parametrize(
    ("metrics", "kind", "message"),
    [
        (error, ValueError, "metrics must not have the names .* 'error', which would be val"),
        (loss, ValueError, "metrics must not have the names .* which would be validation_loss"),
        (["mse", mse], ValueError, "metrics must have names of their own, got two of .* 'mse'"),
        ([spread, spread], ValueError, "metrics must have names of their own"),
        (half, ValueError, r"metric 'half' must take scores of shape \(30, 4\) and int64 targ"),
        ("r2", ValueError, r"metric 'r2' must take .* got ValueError: \[r2\] targets must have"),
        (nothing, TypeError, "metric 'nothing' must be a single number, got None"),
        (mse, ValueError, "metric 'mse' must take scores"),
    ],
)
def test_metrics_that_are_refused_before_the_first_step(metrics, kind, message):
    calls = Calls()
    with pytest.raises(kind, match=rf"^\[fit\] {message}"):
        fit(metrics=metrics, validation=(X[:30], Y[:30]), callbacks=calls)
    assert calls.names == []


def test_metrics_of_labels_and_a_teacher_get_the_labels():
    """And those of scores alone, the scores."""
    seen = []

    def look(scores, targets):
        seen.append(targets)
        return 0.0

    teacher = np.random.default_rng(0).standard_normal((len(Y), 4)).astype(np.float32)
    metrics = ["accuracy", "top_2_accuracy", look]
    options = {"loss": "distillation", "epochs": 1, "verbose": 0}
    model, validation = dense(), (X, (Y, teacher))
    history = model.fit(X, (Y, teacher), validation=validation, metrics=metrics, **options)
    assert all(targets.dtype == np.int64 for targets in seen)
    np.testing.assert_array_equal(seen[-1], Y)
    found = history.epochs[0].metrics
    assert found["validation_accuracy"] == pytest.approx(1 - history.epochs[0].validation_error)
    assert found["validation_top_2_accuracy"] >= found["validation_accuracy"]
    history = dense().fit(
        X, teacher, validation=(X, teacher), metrics=["mse", "accuracy"], **options
    )
    assert set(history.epochs[0].metrics) == {"validation_mse", "validation_accuracy"}


@pytest.mark.parametrize("metric", ["accuracy", "top_2_accuracy", accuracy])
@pytest.mark.parametrize("loss", ["mse", "binary_cross_entropy"])
def test_accuracies_are_for_targets_with_classes(loss, metric):
    y = np.eye(4, dtype=np.float32)[Y]
    with pytest.raises(ValueError, match=r"metrics must suit the targets, which name no classes"):
        dense().fit(X, y, loss=loss, validation=(X, y), metrics=metric)


def test_the_trial_of_metrics_changes_nothing():
    seen = []

    def rows(scores, labels):
        seen.append((len(scores), len(labels)))
        return 1 / (len(seen) - 1)  # an error of arithmetic, which passes

    def noisy():
        return Sequential(BinaryDense(40, 8, seed=0), BatchNorm(8), Noise(), Dense(8, 4, seed=1))

    validation = np.tile(X, (2, 1)), np.tile(Y, 2)
    plain, _ = fit(noisy(), validation=validation)
    other, _ = fit(noisy(), validation=validation, metrics=rows)
    assert_same(other, plain)
    assert other.generators()[0].random() == plain.generators()[0].random()
    assert seen == [(200, 200)] * (1 + OPTIONS["epochs"])


def test_the_trial_of_metrics_leaves_weights_that_are_no_numbers_to_the_first_step():
    model = Sequential(Dense(40, 8, seed=0), Sign(), Dense(8, 4, seed=1))
    model.layers[0].weight.assign(np.full((8, 40), np.nan))
    for metrics in ((), "accuracy"):
        with pytest.raises(FloatingPointError, match="layer 0, Dense"):
            fit(model, validation=(X, Y), metrics=metrics)
