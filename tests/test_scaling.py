"""binarize_weights against its definition."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import bitops as bo
from bitops import reference as ref
from conftest import signs


@pytest.mark.parametrize("shape", ((1, 1), (4, 3), (10, 65), (64, 3, 3, 70), (2, 5, 128), (0, 7)))
@pytest.mark.parametrize("dtype", (np.float16, np.float32, np.float64))
def test_equals_reference(isa, rng, shape, dtype):
    w = rng.standard_normal(shape).astype(dtype)
    before = w.tobytes()
    bits, alpha = bo.binarize_weights(w)
    values, scale = ref.binarize_weights(w)
    assert isinstance(bits, bo.BitArray)
    assert (bits.shape, bits.axis) == (shape, len(shape) - 1)
    assert_array_equal(np.asarray(bits), values)
    assert alpha.dtype == np.float32
    assert_allclose(alpha, scale, rtol=3e-7, strict=True)
    assert w.tobytes() == before


def test_exact_values():
    w = np.array([[1.0, -2.0, 0.0, 5.0], [-0.5, -0.5, -0.5, -0.5], [0.0, -0.0, 0.0, 0.0]])
    bits, alpha = bo.binarize_weights(w)
    assert np.asarray(bits).tolist() == [[1, -1, 1, 1], [-1] * 4, [1] * 4]
    assert alpha.tolist() == [2.0, 0.5, 0.0]


def test_integers_and_layouts(rng):
    w = rng.integers(-9, 10, (6, 5, 66))
    for view in (w, np.asfortranarray(w), w[::-1, ::2], w.transpose(1, 2, 0), w.tolist()):
        bits, alpha = bo.binarize_weights(view)
        values, scale = ref.binarize_weights(view)
        assert_array_equal(np.asarray(bits), values)
        assert_allclose(alpha, scale, rtol=3e-7)


def test_many_weights_lose_nothing(rng):
    """A running float32 sum of 2**21 weights would be off in the third digit."""
    w = np.full((2, 2**21), 0.1, np.float32)
    w[1] *= rng.choice([-1, 1], 2**21)
    assert_allclose(bo.binarize_weights(w)[1], np.float32([0.1, 0.1]), rtol=3e-7)


def test_large_and_small_weights():
    """The mean of huge or tiny weights neither overflows nor vanishes."""
    for value in (3e38, 1e-38):
        alpha = bo.binarize_weights(np.full((1, 64), value, np.float32))[1]
        assert_allclose(alpha, [value], rtol=3e-7)


def test_best_approximation(isa, rng):
    """alpha * sign(w) is nearer to w than with any other scale."""
    w = rng.standard_normal((5, 100))
    bits, alpha = bo.binarize_weights(w)
    error = [((w - f * alpha[:, None] * np.asarray(bits)) ** 2).sum(1) for f in (0.99, 1, 1.01)]
    assert (error[1] < error[0]).all() and (error[1] < error[2]).all()


def test_in_a_product(isa, rng):
    a, w = signs(rng, 6, 70), rng.standard_normal((9, 70)).astype(np.float32)
    bits, alpha = bo.binarize_weights(w)
    want = ref.gemm(a, w, alpha=alpha)
    assert_array_equal(bo.gemm(a, bits, alpha=alpha), want, strict=True)


@pytest.mark.parametrize("where", ((0, 0), (4, 69)))
def test_nan(where):
    w = np.ones((5, 70))
    w[where] = np.nan
    with pytest.raises(ValueError, match=r"^\[\w+\] .*NaN"):
        bo.binarize_weights(w)
