import numpy as np
import pytest

from bitops.losses import signed_one_hot, squared_hinge


def test_signed_one_hot_by_hand():
    expected = [[-1, -1, 1], [1, -1, -1]]
    targets = signed_one_hot([2, 0], 3)
    assert targets.dtype == np.float32
    np.testing.assert_array_equal(targets, expected)


def test_squared_hinge_by_hand():
    # margins 1 - t*o: 0.5, 1.25 for the first row; 0 (met), 3 for the second
    loss, grad = squared_hinge(np.array([[0.5, 0.25], [-4, -2]], dtype=np.float32), [0, 1])
    assert loss == pytest.approx((0.25 + 1.5625 + 0 + 9) / 4)
    np.testing.assert_allclose(grad, np.array([[-1.0, 2.5], [0.0, -6.0]]) / 4)
    assert grad.dtype == np.float32


def test_squared_hinge_gradient_matches_finite_differences():
    rng = np.random.default_rng(0)
    scores = rng.normal(size=(5, 4)).astype(np.float32)
    labels = rng.integers(4, size=5)
    before = scores.copy()
    _, grad = squared_hinge(scores, labels)
    np.testing.assert_array_equal(scores, before)
    step = 1e-2
    for index in np.ndindex(scores.shape):
        up, down = scores.copy(), scores.copy()
        up[index] += step
        down[index] -= step
        slope = (squared_hinge(up, labels)[0] - squared_hinge(down, labels)[0]) / (2 * step)
        assert grad[index] == pytest.approx(slope, abs=2e-4)


@pytest.mark.parametrize(
    ("scores", "labels", "error", "message"),
    [
        (np.zeros((2, 3)), [0, 3], ValueError, r"labels must be in 0\.\.2, got 0\.\.3"),
        (np.zeros((2, 3)), [-1, 0], ValueError, r"got -1\.\.0"),
        (np.zeros((2, 3)), [0.0, 1.0], TypeError, "must be integers, got float64"),
        (np.zeros((2, 3)), [[0, 1]], ValueError, r"shape \(n,\), got \(1, 2\)"),
        (np.zeros((2, 3)), [0], ValueError, "same n, got 2 and 1"),
        (np.zeros(3), [0], ValueError, r"shape \(n, classes\), got \(3,\)"),
        (np.zeros((0, 3)), np.zeros(0, int), ValueError, r"got \(0, 3\)"),
    ],
)
def test_bad_input(scores, labels, error, message):
    with pytest.raises(error, match=message):
        squared_hinge(scores, labels)
