import math

import numpy as np
import pytest
import scipy.special

from bitops.training.losses import (
    CrossEntropy,
    Distillation,
    Huber,
    binary_cross_entropy,
    cross_entropy,
    hinge,
    mae,
    mse,
    signed_one_hot,
    squared_hinge,
)

LOSSES = (squared_hinge, hinge, cross_entropy)


def test_signed_one_hot_by_hand():
    expected = [[-1, -1, 1], [1, -1, -1]]
    targets = signed_one_hot([2, 0], 3)
    assert targets.dtype == np.float32
    np.testing.assert_array_equal(targets, expected)
    assert signed_one_hot(np.zeros(0, int), 3).shape == (0, 3)


# margins 1 - t*o: 0.5, 1.25 for the first row; 0 (met), 3 for the second
HAND = np.array([[0.5, 0.25], [-4, -2]], dtype=np.float32)
MET = np.array([[1.0, -1.0], [-1.5, 1.0]], dtype=np.float32)


def test_squared_hinge_by_hand():
    loss, grad = squared_hinge(HAND, [0, 1])
    assert loss == pytest.approx((0.25 + 1.5625 + 0 + 9) / 4)
    np.testing.assert_allclose(grad, np.array([[-1.0, 2.5], [0.0, -6.0]]) / 4)


def test_hinge_by_hand():
    loss, grad = hinge(HAND, [0, 1])
    assert loss == pytest.approx((0.5 + 1.25 + 0 + 3) / 4)
    np.testing.assert_array_equal(grad, np.array([[-1, 1], [0, -1]]) / 4)
    loss, grad = hinge(MET, [0, 1])
    assert loss == 0
    np.testing.assert_array_equal(grad, np.zeros((2, 2)))


def test_cross_entropy_by_hand():
    loss, grad = cross_entropy(np.log([[0.5, 0.25, 0.25], [0.1, 0.1, 0.8]]), [1, 2])
    assert loss == pytest.approx(-(math.log(0.25) + math.log(0.8)) / 2)
    np.testing.assert_allclose(
        grad, np.array([[0.5, -0.75, 0.25], [0.1, 0.1, -0.2]]) / 2, rtol=1e-5
    )


def test_cross_entropy_of_large_scores():
    loss, grad = cross_entropy([[1e30, -1e30, 0], [-2e4, -2e4, -2e4]], [0, 1])
    assert loss == pytest.approx(math.log(3) / 2)
    np.testing.assert_allclose(grad, [[0, 0, 0], [1 / 6, -1 / 3, 1 / 6]], rtol=1e-6)
    loss, _ = cross_entropy([[0.0, 100.0]], [0])
    assert loss == 100


RNG = np.random.default_rng(0)
SCORES = RNG.normal(size=(5, 4)).astype(np.float32)
LABELS = RNG.integers(4, size=5)
PROBABILITIES = RNG.dirichlet(np.ones(4), 5)
TEACHER = 3 * RNG.normal(size=(5, 4))
FLAGS = RNG.integers(2, size=(5, 4))
VALUES = SCORES + RNG.choice([-2, -0.5, 0.4, 3], (5, 4))  # never where a slope jumps

WITH_TARGETS = {
    "squared_hinge": (squared_hinge, LABELS),
    "hinge": (hinge, LABELS),
    "cross_entropy, labels": (cross_entropy, LABELS),
    "cross_entropy, probabilities": (cross_entropy, PROBABILITIES),
    "CrossEntropy, labels": (CrossEntropy(0.2), LABELS),
    "CrossEntropy, probabilities": (CrossEntropy(0.2), PROBABILITIES),
    "Distillation": (Distillation(3.0), TEACHER),
    "Distillation, labels": (Distillation(3.0, 0.3), (LABELS, TEACHER)),
    "binary_cross_entropy": (binary_cross_entropy, FLAGS),
    "binary_cross_entropy, soft": (binary_cross_entropy, PROBABILITIES),
    "mse": (mse, VALUES),
    "mae": (mae, VALUES),
    "Huber": (Huber(0.75), VALUES),
}


@pytest.mark.parametrize("weight", [None, [1, 0, 2.5, 0.25, 1]], ids=["plain", "weighted"])
@pytest.mark.parametrize("name", WITH_TARGETS)
def test_gradient_matches_finite_differences(name, weight):
    function, targets = WITH_TARGETS[name]
    before = SCORES.copy()
    _, grad = function(SCORES, targets, weight)
    assert grad.dtype == np.float32
    np.testing.assert_array_equal(SCORES, before)
    step = 1e-2
    for index in np.ndindex(SCORES.shape):
        up, down = SCORES.copy(), SCORES.copy()
        up[index] += step
        down[index] -= step
        slope = (function(up, targets, weight)[0] - function(down, targets, weight)[0]) / (2 * step)
        assert grad[index] == pytest.approx(slope, abs=3e-4)


@pytest.mark.parametrize("name", WITH_TARGETS)
def test_weights_multiply_what_a_row_adds(name):
    function, targets = WITH_TARGETS[name]
    plain, grad = function(SCORES, targets)
    ones, same = function(SCORES, targets, np.ones(5))
    assert ones == pytest.approx(plain, rel=1e-6)
    np.testing.assert_array_equal(same, grad)
    doubled, twice = function(SCORES, targets, np.full(5, 2))
    assert doubled == pytest.approx(2 * plain, rel=1e-6)
    np.testing.assert_array_equal(twice, 2 * grad)
    _, first = function(SCORES, targets, [5, 0, 0, 0, 0])
    alone = tuple(t[:1] for t in targets) if isinstance(targets, tuple) else targets[:1]
    np.testing.assert_allclose(first[0], function(SCORES[:1], alone)[1][0], rtol=1e-4, atol=1e-7)
    assert not first[1:].any()


def test_soft_targets_of_one_class_are_labels():
    rows = np.eye(4)[LABELS]
    for function in (cross_entropy, CrossEntropy(0.0)):
        value, grad = function(SCORES, rows)
        assert value == pytest.approx(cross_entropy(SCORES, LABELS)[0], rel=1e-6)
        np.testing.assert_allclose(grad, cross_entropy(SCORES, LABELS)[1], rtol=1e-5, atol=1e-8)


def test_label_smoothing_by_hand():
    smooth = 0.8 * np.eye(4)[LABELS] + 0.05
    value, grad = CrossEntropy(0.2)(SCORES, LABELS)
    assert value == pytest.approx(cross_entropy(SCORES, smooth)[0], rel=1e-6)
    np.testing.assert_allclose(grad, cross_entropy(SCORES, smooth)[1], rtol=1e-5, atol=1e-8)


def test_distillation_by_hand():
    exact = SCORES.astype(np.float64)
    p, q = (np.exp(s / 3) / np.exp(s / 3).sum(axis=1, keepdims=True) for s in (TEACHER, exact))
    divergence = (p * np.log(p / q)).sum(axis=1).mean()
    assert Distillation(3.0)(SCORES, TEACHER)[0] == pytest.approx(9 * divergence, rel=1e-5)
    labelled, _ = Distillation(3.0, 0.25)(SCORES, (LABELS, TEACHER))
    entropy, _ = cross_entropy(SCORES, LABELS)
    assert labelled == pytest.approx(0.75 * 9 * divergence + 0.25 * entropy, rel=1e-5)
    value, grad = Distillation(2.0)(SCORES, SCORES + np.arange(5)[:, None])  # the same softmax
    assert value == pytest.approx(0, abs=1e-6)
    np.testing.assert_allclose(grad, 0, atol=1e-6)


def test_losses_of_values_by_hand():
    scores, targets = np.float32([[1, -3]]), [[0.5, 1]]
    assert mse(scores, targets)[0] == (0.25 + 16) / 2
    np.testing.assert_array_equal(mse(scores, targets)[1], [[0.5, -4]])
    assert mae(scores, targets)[0] == (0.5 + 4) / 2
    np.testing.assert_array_equal(mae(scores, targets)[1], [[0.5, -0.5]])
    assert Huber(1.0)(scores, targets)[0] == (0.125 + 3.5) / 2
    np.testing.assert_array_equal(Huber(1.0)(scores, targets)[1], [[0.25, -0.5]])
    assert mse([[1.0], [2.0]], [1, 4])[0] == 2  # targets of one output may lie in a row


def test_binary_cross_entropy_of_large_scores():
    value, grad = binary_cross_entropy([[1e30, -1e30, 200, -200]], [[1, 0, 0, 1]])
    assert value == 100
    np.testing.assert_array_equal(grad, [[0, 0, 0.25, -0.25]])


REFUSED = {
    "probabilities: sum": (cross_entropy, [[0.5, 0.4]], "targets must have rows whose sum is 1"),
    "probabilities: range": (CrossEntropy(), [[1.5, -0.5]], r"targets must be in 0\.\.1, got 1.5"),
    "probabilities: NaN": (cross_entropy, [[np.nan, 1]], "targets must be finite"),
    "flags: range": (binary_cross_entropy, [[0, 2]], r"targets must be in 0\.\.1, got 2"),
    "flags: shape": (binary_cross_entropy, [0], r"targets must have shape \(1, 2\), got \(1,\)"),
    "values: NaN": (mse, [[np.nan, 0]], "targets must be finite as float32"),
    "values: infinite": (mae, [[np.inf, 0]], "targets must be finite as float32"),
    "values: beyond float32": (Huber(), [[1e300, 0]], "targets must be finite as float32"),
    "values: shape": (mse, [[0.0, 0, 0]], r"targets must have shape \(1, 2\), got \(1, 3\)"),
    "values: rows": (mse, np.zeros((3, 2)), r"targets must have shape \(1, 2\), got \(3, 2\)"),
    "teacher: shape": (Distillation(), [[0.0]], r"targets must have shape \(1, 2\), got \(1, 1\)"),
    "teacher: label": (Distillation(), ([2], [[0.0, 1]]), r"labels of targets must be in 0\.\.1"),
    "teacher: three": (
        Distillation(),
        ([0], [[0.0, 1]], 1),
        "must be scores, or labels and scores",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_bad_targets(case):
    function, targets, message = REFUSED[case]
    with pytest.raises(ValueError, match=rf"^\[\w+\] .*{message}"):
        function([[0.0, 1.0]], targets)


@pytest.mark.parametrize(
    ("weight", "message"),
    [
        ([1], r"must have shape \(2,\), got \(1,\)"),
        ([[1], [1]], r"must have shape \(2,\), got \(2, 1\)"),
        ([1, -1], "must be finite and >= 0, got -1"),
        ([1, np.nan], "must be finite and >= 0, got nan"),
        ([np.inf, 1], "must be finite and >= 0, got inf"),
    ],
)
def test_bad_weights(weight, message):
    with pytest.raises(ValueError, match=rf"^\[mse\] sample_weight {message}"):
        mse(np.zeros((2, 1)), [0, 0], weight)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: CrossEntropy(1.0), r"\[CrossEntropy\] label_smoothing must be in \[0, 1\)"),
        (lambda: CrossEntropy(-0.1), r"\[CrossEntropy\] label_smoothing must be in \[0, 1\)"),
        (lambda: Distillation(0), r"\[Distillation\] temperature must be positive"),
        (lambda: Distillation(9e-4), r"\[Distillation\] temperature must be in 0.001..1000, got 0"),
        (lambda: Distillation(1001), r"\[Distillation\] temperature must be in 0.001..1000, got 1"),
        (lambda: Distillation(1, 1.5), r"\[Distillation\] label_weight must be in \[0, 1\]"),
        (lambda: Huber(-1), r"\[Huber\] delta must be positive"),
    ],
)
def test_bad_settings(call, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        call()


@pytest.mark.parametrize("function", LOSSES)
@pytest.mark.parametrize(
    ("scores", "labels", "error", "message"),
    [
        (np.zeros((2, 3)), [0, 3], ValueError, r"labels must be in 0\.\.2, got 3"),
        (np.zeros((2, 3)), [-1, 0], ValueError, r"labels must be in 0\.\.2, got -1"),
        (np.zeros((2, 3)), [0.0, 1.0], TypeError, "must be integers, got float64"),
        (np.zeros((2, 3)), [[0, 1]], ValueError, r"shape \(2(,|, 3)\), got \(1, 2\)"),
        (np.zeros((2, 3)), [0], ValueError, r"shape \(2,\), got \(1,\)"),
        (np.zeros(3), [0], ValueError, r"shape \(n, classes\), both >= 1, got \(3,\)"),
        (np.zeros((0, 3)), np.zeros(0, int), ValueError, r"got \(0, 3\)"),
        (np.zeros((2, 0)), [0, 0], ValueError, r"got \(2, 0\)"),
    ],
)
def test_bad_input(function, scores, labels, error, message):
    with pytest.raises(error, match=rf"^\[{function.__name__}\] .*{message}"):
        function(scores, labels)


def test_bad_labels_of_targets():
    with pytest.raises(ValueError, match=r"^\[signed_one_hot\] labels must be in 0\.\.2, got 7"):
        signed_one_hot([0, 7], 3)


@pytest.mark.parametrize("temperature", [1e-3, 0.1, 1.0, 30.0, 1e3])
def test_distillation_at_all_temperatures(rng, temperature):
    """Against float64, whose small differences are exact enough."""
    teacher, scores = (rng.normal(0, 3, (50, 10)).astype(np.float32) for _ in range(2))
    value, grad = Distillation(temperature)(scores, teacher)
    p, q = (
        scipy.special.log_softmax(a.astype(np.float64) / temperature, axis=1)
        for a in (teacher, scores)
    )
    expected = temperature**2 * (np.exp(p) * (p - q)).sum(axis=1).mean()
    assert value == pytest.approx(expected, rel=0.01)
    slope = temperature * (np.exp(q) - np.exp(p)) / len(scores)
    assert np.abs(grad - slope).max() < 1e-3 * np.abs(slope).max()
