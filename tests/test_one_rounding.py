"""Gradients of convolutions with scales, whose images and filters may share rounded numbers."""

import numpy as np
import pytest
from numpy.testing import assert_allclose

import bitops as bo
from bitops.layers import BinaryConv2D, Dropout, Sequential, Sign
from bitops.layers.backward import gradient_of
from bitops.layers.float_conv import conv_gradients
from bitops.layers.inputs import Codes, SignPairs
from bitops.layers.operation import Convolution
from bitops.layers.parameter import Parameter
from bitops.layers.planes import Planes
from bitops.quantizers import ByteGradient
from conftest import random_signs

ALIKE = np.float32([0.5, 0.7, 1, 1.9, 0.6])
FAR = np.float32([0.5, 0.7, 1, 2.1, 0.6])


class Counted(ByteGradient):
    """A rounding that remembers what it gave."""

    def __init__(self, seed, bits):
        super().__init__(seed, bits)
        self.given = []

    def round(self, g, alpha=None):
        codes, step = super().round(g, alpha)
        values = (codes - np.float64(self.zero)) * step
        with np.errstate(invalid="ignore"):
            self.given.append(values if alpha is None else values / alpha)
        return codes, step


def operands(rng, kind, images):
    """An input of eight channels, and the numbers that it stands for."""
    if kind == "codes":
        codes = rng.integers(0, 16, size=(images, 6, 5, 8), dtype=np.uint8)
        return Codes(codes, 4, 0.5), codes * np.float32(0.5)
    bits = bo.pack(random_signs(rng, images * (1 + (kind == "pairs")), 6, 5, 8))
    if kind == "bits":
        return bits, np.asarray(bits, np.float32)
    pairs = SignPairs(bits, 0.75)
    return pairs, pairs.added(np.asarray(bits, np.float32)) * np.float32(0.75)


@pytest.mark.parametrize("bits", [8, 6])
@pytest.mark.parametrize("kind", ["bits", "pairs", "codes"])
@pytest.mark.parametrize("images", [1, 12])  # the gradient of few is put off
@pytest.mark.parametrize(("alpha", "roundings"), [(ALIKE, 1), (FAR, 2)])
def test_scales_that_are_alike_take_one_rounding(rng, bits, kind, images, alpha, roundings):
    x, numbers = operands(rng, kind, images)
    operation = Convolution.of("test", 8, 5, 3, 1, 1, 1, 1)
    w = random_signs(rng, 5, 3, 3, 8)
    weight, planes = Parameter(w), Planes([bo.pack(w)], (1,), alpha)
    dy, rounding = rng.normal(size=(images, 6, 5, 5)).astype(np.float32), Counted(3, bits)
    dx = operation.gradients(x, gradient_of(dy, rounding), planes, weight, with_dx=True)

    is_exact = kind == "codes" and images == 1  # numbers of so few positions are left to BLAS
    assert len(rounding.given) == (1 if is_exact else roundings)
    of_filters, of_images = dy if is_exact else rounding.given[0], rounding.given[-1]
    want = np.empty(w.shape, np.float32)
    window = operation.windows.on("test", numbers)
    filters = w * alpha[:, None, None, None]
    arguments = (filters.astype(np.float32), window, 1)
    conv_gradients(
        numbers, of_filters.astype(np.float32), *arguments, weight_grad=want, with_dx=False
    )
    assert_allclose(weight.grad, want, rtol=0, atol=1e-5 * np.abs(want).max())
    want_dx = conv_gradients(
        numbers, of_images.astype(np.float32), *arguments, weight_grad=want, with_dx=True
    )
    assert_allclose(dx, want_dx, rtol=0, atol=1e-5 * np.abs(want_dx).max())


@pytest.mark.parametrize("alpha", [[0, 1, 1, 1, 1], [-1, 1, 1, 1, 1], [1e-36] * 5])
def test_scales_without_a_quotient_take_two(rng, alpha):
    rounding = Counted(3, 8)
    operation = Convolution.of("test", 8, 5, 1, 1, 0, 1, 1)
    w = random_signs(rng, 5, 1, 1, 8)
    weight = Parameter(w)
    x = bo.pack(random_signs(rng, 2, 6, 5, 8))
    gradient = gradient_of(rng.normal(size=(2, 6, 5, 5)).astype(np.float32), rounding)
    planes = Planes([bo.pack(w)], (1,), np.float32(alpha))
    operation.gradients(x, gradient, planes, weight, with_dx=True)
    assert np.isfinite(weight.grad).all()
    assert len(rounding.given) == 2


def test_without_images_gradient_nothing_is_divided(rng):
    rounding = Counted(3, 8)
    operation = Convolution.of("test", 8, 5, 1, 1, 0, 1, 1)
    w = random_signs(rng, 5, 1, 1, 8)
    x, dy = random_signs(rng, 20, 6, 5, 8), rng.normal(size=(20, 6, 5, 5)).astype(np.float32)
    weight, planes = Parameter(w), Planes([bo.pack(w)], (1,), ALIKE)
    operation.gradients(bo.pack(x), gradient_of(dy, rounding), planes, weight, with_dx=False)
    values, step = ByteGradient(3, 8).round(dy)
    want = ((values - 128.0) * step).reshape(-1, 5).T @ x.reshape(-1, 8)
    assert_allclose(weight.grad.reshape(5, 8), want, rtol=1e-4, atol=1e-4)


def test_shared_numbers_keep_the_mean(rng):
    """Over many roundings the gradient of a network is that without rounding."""

    def network():
        return Sequential(
            Sign(), Dropout(0.3, seed=2), BinaryConv2D(6, 5, 3, scale_weights=True, seed=1)
        )

    x, dy = rng.normal(size=(4, 7, 7, 6)), rng.normal(size=(4, 5, 5, 5)).astype(np.float32)
    exact = network()
    exact.forward(x.astype(np.float32), training=True)
    want_dx, want = exact.backward(dy), exact.parameters()[0].grad
    total, total_dx, trials = np.zeros(want.shape), np.zeros(want_dx.shape), 60
    for seed in range(trials):
        rounded = network()
        rounded.layers[2].rounding = ByteGradient(seed, 6)
        rounded.forward(x.astype(np.float32), training=True)
        total_dx += rounded.backward(dy)
        total += rounded.parameters()[0].grad
    step = np.abs(dy).max() / 31 * 2
    assert np.abs(total / trials - want).max() < step * np.sqrt(100 / trials) * 2
    assert np.abs(total_dx / trials - want_dx).max() < step * np.sqrt(45 / trials) * 2
    assert not np.array_equal(total / trials, want)
