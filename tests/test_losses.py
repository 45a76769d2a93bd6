import math

import numpy as np
import pytest

from bitops.training.losses import cross_entropy, hinge, signed_one_hot, squared_hinge

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


@pytest.mark.parametrize("function", LOSSES)
def test_gradient_matches_finite_differences(function):
    rng = np.random.default_rng(0)
    scores = rng.normal(size=(5, 4)).astype(np.float32)
    labels = rng.integers(4, size=5)
    before = scores.copy()
    _, grad = function(scores, labels)
    assert grad.dtype == np.float32
    np.testing.assert_array_equal(scores, before)
    step = 1e-2
    for index in np.ndindex(scores.shape):
        up, down = scores.copy(), scores.copy()
        up[index] += step
        down[index] -= step
        slope = (function(up, labels)[0] - function(down, labels)[0]) / (2 * step)
        assert grad[index] == pytest.approx(slope, abs=2e-4)


@pytest.mark.parametrize("function", LOSSES)
@pytest.mark.parametrize(
    ("scores", "labels", "error", "message"),
    [
        (np.zeros((2, 3)), [0, 3], ValueError, r"labels must be in 0\.\.2, got 3"),
        (np.zeros((2, 3)), [-1, 0], ValueError, r"labels must be in 0\.\.2, got -1"),
        (np.zeros((2, 3)), [0.0, 1.0], TypeError, "must be integers, got float64"),
        (np.zeros((2, 3)), [[0, 1]], ValueError, r"shape \(2,\), got \(1, 2\)"),
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
