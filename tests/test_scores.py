"""Measures of scores against targets."""

import numpy as np
import pytest

from bitops.training import accuracy, confusion_matrix, r2, rmse, top_k_accuracy
from bitops.training.scores import METRICS, metric_named

SCORES = np.float32([[3, 1, 2, 0], [0, 5, 5, 1], [2, 2, 2, 2]])


@pytest.mark.parametrize(
    ("k", "labels", "share"),
    [
        (1, [0, 1, 0], 1),
        (1, [2, 2, 3], 0),  # of equal scores the first is the largest
        (2, [2, 2, 1], 1),
        (2, [1, 3, 2], 0),
        (3, [1, 3, 2], 1),
        (3, [3, 0, 3], 0),
        (4, [3, 0, 3], 1),
    ],
)
def test_top_k_by_hand(k, labels, share):
    assert top_k_accuracy(SCORES, labels, k) == share
    assert metric_named(f"top_{k}_accuracy")(SCORES, np.array(labels)) == share
    if k == 1:
        assert accuracy(SCORES, labels) == share


def test_top_k_against_sorting():
    rng = np.random.default_rng(0)
    scores, labels = rng.integers(5, size=(200, 12)), rng.integers(12, size=200)
    order = np.argsort(-scores, axis=1, kind="stable")
    for k in (1, 2, 5):
        found = (order[:, :k] == labels[:, None]).any(axis=1).mean()
        assert top_k_accuracy(scores, labels, k) == found
    assert accuracy(scores, np.eye(12)[labels]) == accuracy(scores, labels)


def test_confusion_matrix_against_counting():
    rng = np.random.default_rng(1)
    labels, predicted = rng.integers(4, size=(2, 300))
    found = confusion_matrix(labels, predicted, 6)
    assert (found.shape, found.dtype, found.sum()) == ((6, 6), np.int64, 300)
    for i, j in np.ndindex(6, 6):
        assert found[i, j] == np.count_nonzero((labels == i) & (predicted == j))
    np.testing.assert_array_equal(confusion_matrix(labels, predicted), found[:4, :4])
    small = confusion_matrix(labels.astype(np.uint8), predicted.astype(np.uint8), 200)
    assert small[:6, :6].tolist() == found.tolist()


def test_errors_of_regression_by_hand():
    scores, targets = np.float32([[1], [2], [6]]), [1, 4, 4]
    assert rmse(scores, targets) == pytest.approx(np.sqrt(8 / 3))
    assert r2(scores, targets) == pytest.approx(1 - 8 / 6)
    assert METRICS["mse"](scores, targets) == pytest.approx(8 / 3)
    assert METRICS["mae"](scores, targets) == pytest.approx(4 / 3)
    assert r2(scores, scores) == 1
    assert r2(scores, [3, 3, 3]) == 0


def test_r2_against_scikit_learn():
    sklearn = pytest.importorskip("sklearn.metrics")
    rng = np.random.default_rng(2)
    targets = rng.normal(size=(50, 1)).astype(np.float32)
    scores = targets + rng.normal(size=(50, 1)).astype(np.float32)
    assert r2(scores, targets) == pytest.approx(sklearn.r2_score(targets, scores))


@pytest.mark.parametrize(
    "name", ["top_0_accuracy", "top_k_accuracy", "top_5_accuracys", "Accuracy"]
)
def test_unknown_names(name):
    assert metric_named(name) is None


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda: accuracy(SCORES, [0, 1]),
            ValueError,
            r"\[accuracy\] labels must have shape \(3,\)",
        ),
        (lambda: accuracy(SCORES, [0, 1, 4]), ValueError, r"\[accuracy\] labels must be in 0\.\.3"),
        (lambda: accuracy(SCORES[0], [0]), ValueError, r"\[accuracy\] scores must have shape"),
        (lambda: top_k_accuracy(SCORES, [0, 1, 2], 0), ValueError, r"\[top_k_accuracy\] k must be"),
        (lambda: top_k_accuracy(SCORES, [0, 1, 2], 5), ValueError, r"\[top_k_accuracy\] k must be"),
        (lambda: top_k_accuracy([[1, np.nan]], [0], 1), ValueError, r"\[top_k_.* got NaN"),
        (lambda: accuracy([[1, np.nan]], [0]), ValueError, r"\[accuracy\] .* got NaN"),
        (lambda: top_k_accuracy(SCORES, [0.0, 1, 2]), TypeError, r"\[top_k_accuracy\] labels must"),
        (lambda: confusion_matrix([0], [0, 1]), ValueError, r"\[confusion_matrix\] predicted must"),
        (lambda: confusion_matrix([2], [0], 2), ValueError, r"\[confusion_matrix\] labels must be"),
        (lambda: confusion_matrix([0], [0], 0), ValueError, r"\[confusion_matrix\] classes must"),
        (lambda: rmse(SCORES, [0, 1, 2]), ValueError, r"\[rmse\] targets must have shape \(3, 4\)"),
        (lambda: r2([[1.0]], [np.nan]), ValueError, r"\[r2\] targets must be finite"),
    ],
)
def test_bad_input(call, error, message):
    with pytest.raises(error, match=f"^{message}"):
        call()
