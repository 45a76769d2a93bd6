"""Thresholds and flips decide as the expression does from which they are folded."""

import numpy as np
import pytest

from bitops.layers import fold


@pytest.mark.parametrize("k", [1, 2, 63, 1000])
def test_fold_decides_every_integer_like_the_expression(k):
    rng = np.random.default_rng(k)
    n = 400
    scale = rng.normal(size=n).astype(np.float32) * np.float32(10.0) ** rng.integers(-4, 3, size=n)
    scale[:20] = 0
    shift = -scale * rng.integers(-k - 3, k + 4, size=n).astype(np.float32)
    shift[::5] += rng.normal(size=len(shift[::5])).astype(np.float32)

    def expression(z):
        y = z * scale
        y += shift
        return y

    threshold, flip = fold(expression, n, k)
    assert threshold.dtype == np.int32
    assert np.abs(threshold).max() <= k
    z = np.arange(-k, k + 1, dtype=np.int32)[:, np.newaxis]
    expected = expression(z.astype(np.float32)) >= 0
    np.testing.assert_array_equal((z > threshold) ^ flip, expected)
    # the cases that this test is about do occur
    constant = expected.all(axis=0) | ~expected.any(axis=0)
    assert constant.any() and flip.any() and not constant.all()


def test_fold_decides_every_float_like_the_expression():
    rng = np.random.default_rng(4)
    n = 300
    scale = rng.normal(size=n).astype(np.float32) * np.float32(10.0) ** rng.integers(-3, 4, size=n)
    scale[:10] = 0
    shift = rng.normal(size=n).astype(np.float32) * np.float32(10.0) ** rng.integers(-3, 4, size=n)
    shift[::7] = 0

    def expression(z):
        return z * scale + shift

    threshold, flip = fold(expression, n)
    assert threshold.dtype == np.float32
    largest = np.finfo(np.float32).max
    around = [threshold, np.nextafter(threshold, -largest), np.nextafter(threshold, largest)]
    fixed = [np.full(n, v, np.float32) for v in (0, -0.0, 1, -1, 1e30, -1e30, largest, -largest)]
    z = np.stack(around + fixed)
    with np.errstate(over="ignore"):
        expected = expression(z) >= 0
    np.testing.assert_array_equal((z > threshold) ^ flip, expected)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((lambda z: z * 1j, 4, 3), TypeError, "expression must give real numbers, got dtype comp"),
        ((lambda z: z.astype(object), 4, 3), TypeError, "expression must give real numbers"),
        ((lambda z: z.astype(str), 4), TypeError, "expression must give real numbers"),
        ((lambda z: z[0], 4, 3), ValueError, r"expression must keep the shape \(1, 4\), got \(4"),
        ((lambda z: z[:, :1], 4, 3), ValueError, r"expression must keep the shape"),
        ((None, 4, 3), TypeError, "expression must be callable, got None"),
        ((np.abs, 4.0), TypeError, "features must be an integer, got 4.0"),
        ((np.abs, 0), ValueError, "features must be in .*, got 0"),
        ((np.abs, 4, 2.5), TypeError, "k must be an integer, got 2.5"),
        ((np.abs, 4, -1), ValueError, "k must be in .*, got -1"),
    ],
)
def test_what_cannot_be_folded(arguments, error, message):
    with pytest.raises(error, match=rf"^\[fold\] {message}"):
        fold(*arguments)
