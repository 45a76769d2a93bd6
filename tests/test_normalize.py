"""Batch normalisation in C against its equations in NumPy, alone and joined with its neighbours."""

import itertools

import numpy as np
import pytest
from numpy.testing import assert_array_equal

import bitops as bo
from bitops.layers import BatchNorm, ReLU, Sequential, ShiftBatchNorm, Sign
from bitops.layers.joined import Joined, training_steps
from bitops.ops.normalize import (
    Normalized,
    column_totals,
    keep_within,
    positives,
    signs_within,
)
from bitops.quantizers import ap2
from bitops.training.metrics import watched
from helpers import assert_same_on_threads

SHAPES = pytest.mark.parametrize(
    "shape",
    [
        (2, 1),
        (3, 64),
        (70, 100),
        (100, 1030),
        (512, 7),
        (513, 65),
        (577, 3),
        (65, 160),
        (5, 8, 16, 70),
    ],
)
KINDS = pytest.mark.parametrize("kind", [BatchNorm, ShiftBatchNorm])


def numbers(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def sums_in_order(x):
    """What `column_totals` promises, by a loop over rows."""
    rows = x.reshape(-1, x.shape[-1])
    step = len(rows) if len(rows) <= 512 else 64
    total = np.zeros(x.shape[-1])
    for first in range(0, len(rows), step):
        block = np.zeros(x.shape[-1], np.float32)
        for row in rows[first : first + step]:
            block += row
        total += block
    return total


def same(z):
    return z


def equations(x, relu, gamma, beta, eps, power=same):
    """Outputs of a training step, and what its gradient needs; the power is `ap2`, or the same."""
    t = np.maximum(x, np.float32(0)) if relu else x
    rows = x.size // x.shape[-1]
    mean = (sums_in_order(t) / rows).astype(np.float32)
    c = t - mean
    variance = (sums_in_order(c * power(c)) / rows).astype(np.float32)
    inv_std = power(1 / np.sqrt(variance + np.float32(eps)))
    xhat = c * inv_std
    return xhat * gamma + beta, power(xhat), inv_std


STEPS = pytest.mark.parametrize("step", [None, "sign", "relu"])


def layers(features, relu, step, seed=1, kind=BatchNorm):
    norm = kind(features)
    norm.gamma.assign(numbers(features, seed=seed))
    norm.beta.assign(numbers(features, seed=seed + 1))
    behind = {None: [], "sign": [Sign(0.75)], "relu": [ReLU()]}
    return [*[ReLU()] * relu, norm, *behind[step]]


@SHAPES
@KINDS
@STEPS
@pytest.mark.parametrize("relu", [False, True])
def test_a_step_equals_its_equations(isa, shape, kind, relu, step):
    x, dy = numbers(*shape), numbers(*shape, seed=5)
    chain = layers(shape[-1], relu, step, kind=kind)
    norm, power = chain[relu], ap2 if kind is ShiftBatchNorm else same
    gamma, beta = power(norm.gamma.value), norm.beta.value
    y, xhat, inv_std = equations(x, relu, gamma, beta, norm.eps, power)
    model = Sequential(chain)
    is_joined = [type(part) for _, part in training_steps(model.layers)] == [Joined]
    assert is_joined == (step != "relu" or shape[-1] >= 64)
    found = model.forward(x, training=True)
    if step == "sign":
        assert found == bo.pack(y)
        passed = dy * (np.abs(y) <= np.float32(0.75))
    else:
        assert_array_equal(found, np.maximum(y, 0) if step else y)
        passed = dy * (y > 0) if step else dy
    dx = model.backward(dy)
    assert_array_equal(norm.gamma.grad, sums_in_order(passed * xhat).astype(np.float32))
    assert_array_equal(norm.beta.grad, sums_in_order(passed).astype(np.float32))
    rows = np.float32(x.size // shape[-1])
    expected = xhat * (norm.gamma.grad / -rows)
    expected += passed
    expected -= norm.beta.grad / rows
    expected *= gamma * inv_std
    assert_array_equal(dx, expected * (x > 0) if relu else expected)


@pytest.mark.parametrize("relu", [False, True])
@STEPS
@pytest.mark.parametrize("features", [20, 70])  # bits of few do not pay
@pytest.mark.parametrize("seen", ["forward", "backward", None])
@KINDS
def test_joined_layers_do_what_each_does_alone(kind, relu, step, seen, features):
    """What is watched runs alone, and forward and backward need not run alike."""
    x, dy = numbers(6, 5, 4, features), numbers(6, 5, 4, features, seed=3)
    joined, alone = (Sequential(layers(features, relu, step, kind=kind)) for _ in range(2))
    calls = []
    if seen is None:
        y, dx = joined.forward(x, training=True), joined.backward(dy)
    for method in ("forward", "backward"):
        with watched(alone, method, lambda *call: calls.append(call[0])):
            if method == "forward":
                expected_y = alone.forward(x, training=True)
            else:
                expected_dx = alone.backward(dy)
    assert len(calls) == 2 * (1 + relu + (step is not None))
    if seen == "forward":
        with watched(joined, "forward", lambda *call: None):
            y = joined.forward(x, training=True)
        dx = joined.backward(dy)
    elif seen == "backward":
        y = joined.forward(x, training=True)
        with watched(joined, "backward", lambda *call: None):
            dx = joined.backward(dy)
    assert y == expected_y if step == "sign" else np.array_equal(y, expected_y)
    assert_array_equal(dx, expected_dx)
    for mine, other in zip(joined.parameters(), alone.parameters(), strict=True):
        assert_array_equal(mine.grad, other.grad)
    for mine, other in zip(joined.state(), alone.state(), strict=True):
        for a, b in zip(mine, other, strict=True):
            assert_array_equal(a, b)


class Doubled(BatchNorm):
    def forward(self, x, *, training=False):
        return 2 * super().forward(x, training=training)


def test_what_is_not_joined():
    frozen = BatchNorm(3)
    frozen.trainable = False
    for norm, sign in (
        (frozen, Sign()),
        (Doubled(3), Sign()),
        (BatchNorm(3), Sign(quantizer=bo.quantizers.ApproxSign())),
    ):
        steps = [step for _, step in training_steps([ReLU(), norm, sign])]
        assert not any(isinstance(step, Joined) and step.step for step in steps)
    places = [place for place, _ in training_steps([Sign(), BatchNorm(3), Sign(), ReLU()])]
    assert places == [0, 1, 3]


def test_a_relu_between_two_norms_goes_with_the_second():
    chain = [BatchNorm(64), ReLU(), BatchNorm(64), ReLU(), Sign()]
    assert [place for place, _ in training_steps(chain)] == [0, 1, 4]
    chain[2].trainable = False
    assert [place for place, _ in training_steps(chain)] == [0, 2, 3, 4]
    few = [BatchNorm(63), ReLU()]
    assert [place for place, _ in training_steps(few)] == [0, 1]


def test_a_norm_may_be_frozen_between_forward_and_backward():
    """The ReLU in the middle went with the second norm, and goes back with the first."""
    x, dy = numbers(40, 70), numbers(40, 70, seed=3)
    found = []
    for is_frozen in (False, True):
        chain = [*layers(70, False, None), *layers(70, True, None, seed=4)]
        model = Sequential(chain)
        model.forward(x, training=True)
        chain[2].trainable = not is_frozen
        found.append(model.backward(dy))
    assert_array_equal(*found)


def test_a_frozen_norm_passes_gradients_within_the_sign():
    norm, sign = BatchNorm(3), Sign()
    norm.trainable = False
    x, dy = numbers(40, 3) * 2, numbers(40, 3, seed=1)
    y, (alpha, _) = norm.forward(x), norm.affine()
    model = Sequential(norm, sign)
    assert model.forward(x, training=True) == bo.pack(y)
    assert_array_equal(model.backward(dy), dy * (np.abs(y) <= 1) * alpha)


@SHAPES
def test_numbers_above_0(isa, shape, threads):
    x = numbers(*shape)
    x.flat[::5] = -0.0
    x.flat[1::7] = 0
    x.flat[2::11] = np.finfo(np.float32).smallest_subnormal
    x.flat[3::13] = np.inf
    x.flat[4::17] = -np.inf
    x.flat[5::19] = np.nan
    x.view(np.uint32).flat[6::23] = 0x7F800001  # the smallest NaN
    y, positive = positives(x)
    assert_array_equal(y, np.maximum(x, 0))
    assert not np.signbit(y[y == 0]).any()
    assert positive == bo.pack(x > 0)


@SHAPES
def test_signs_and_limits_of_numbers(isa, shape):
    x = numbers(*shape)
    x.flat[::7] = np.float32(0.5)
    signs, within = signs_within("test", x, 0.5)
    assert signs == bo.pack(x)
    assert within == bo.pack(np.abs(x) <= np.float32(0.5))
    assert_array_equal(keep_within(x, within), x * (np.abs(x) <= np.float32(0.5)))
    everything = signs_within("test", np.where(x > 1, np.inf, x).astype("f4"), np.inf)[1]
    assert np.asarray(everything).min() == 1


@pytest.mark.parametrize("place", [0, 5, 63, 64, 69])
def test_a_nan_has_no_sign(isa, place):
    x = numbers(3, 70)
    x[1, place] = np.nan
    with pytest.raises(ValueError, match=r"^\[test\] x must not hold NaN"):
        signs_within("test", x, 1.0)
    with pytest.raises(ValueError, match=r"^\[Sign\] x must not hold NaN"):
        Sequential(BatchNorm(70), Sign()).forward(x, training=True)


@pytest.mark.parametrize("threads", [2, 3])
@pytest.mark.parametrize("shape", [(4000, 70), (512, 3000)])
def test_threads_change_no_bit(shape, threads):
    x, dy = numbers(*shape), numbers(*shape, seed=1)
    within = bo.pack(numbers(*shape, seed=2))
    arrays = [numbers(shape[-1], seed=seed) for seed in range(3, 10)]

    def results():
        batch = Normalized(x, True, *arrays[:4])
        shift = Normalized(x, False, *arrays[:4], powers=True)
        return (
            column_totals(x),
            column_totals(x, relu=True, mean=arrays[0]),
            column_totals(x, mean=arrays[0], powers=True),
            shift.product_totals(dy, within),
            shift.gradient(dy, within, *arrays[4:]),
            batch.values(),
            batch.positives()[0],
            batch.positives()[1].words,
            *(bits.words for bits in batch.signs_within("test", 1.0)),
            batch.product_totals(dy, within),
            batch.gradient(dy, within, *arrays[4:]),
            keep_within(dy, within),
        )

    assert_same_on_threads(results, threads)


@KINDS
def test_sums_that_overflow_float32_or_are_not_finite(kind):
    rows = np.arange(3000)[:, np.newaxis]
    norm = kind(2)
    norm.forward(np.repeat((-1.0) ** rows, 2, axis=1), training=True)
    dy = np.repeat(np.where(rows < 1500, 3e38, -3e38), 2, axis=1).astype(np.float32)
    norm.backward(dy)
    assert_array_equal([norm.beta.grad, norm.gamma.grad], 0)
    dy = np.ones((3000, 2), np.float32)
    dy[0, 1] = np.inf
    norm.backward(dy)
    assert_array_equal(norm.beta.grad, [3000, np.inf])


@pytest.mark.parametrize("relu", [False, True])
def test_powers_of_all_numbers(isa, relu):
    """NaN and infinity stay, and numbers on either side of a square root of 2 are told apart."""
    root = np.float32(2) ** np.float32(0.5)
    near = np.nextafter(root, np.float32([0, 2]))
    dy = np.concatenate([near, [root, 0, 1e-45, 1e-38, 3e38, np.inf, np.nan]]).astype(np.float32)
    x = np.concatenate([dy, -dy])[np.newaxis]
    zero, one = np.zeros(x.size, np.float32), np.ones(x.size, np.float32)
    batch = Normalized(x, relu, zero, one, one, zero, powers=True)
    t = np.maximum(x, np.float32(0)) if relu else x
    assert_array_equal(batch.product_totals(np.ones_like(x), None)[0], ap2(t)[0])
    dx = batch.gradient(np.zeros_like(x), None, one, zero, one)
    with np.errstate(invalid="ignore"):
        assert_array_equal(dx, ap2(t) * (x > 0) if relu else ap2(t))
    assert_array_equal(column_totals(x, relu=relu, mean=zero, powers=True), (t * ap2(t))[0])


WHOLE = (0, 1, -1, 32767, -32767)


@SHAPES
@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize("powers", [False, True])
def test_integers_are_kept_as_int16(isa, shape, relu, powers):
    rng = np.random.default_rng(2)
    x = rng.integers(1 - 2**15, 2**15, shape).astype(np.float32)
    dy, within = numbers(*shape), bo.pack(numbers(*shape, seed=1))
    arrays = [numbers(shape[-1], seed=seed) for seed in range(3, 10)]
    batch = Normalized(x, relu, *arrays[:4], powers=powers)
    kept = batch.narrowed()
    assert kept.x.dtype == np.int16
    assert_array_equal(kept.x, x)
    assert_array_equal(kept.xhat(), batch.xhat())
    for bits in (within, None):
        assert_array_equal(kept.product_totals(dy, bits), batch.product_totals(dy, bits))
        expected = batch.gradient(dy, bits, *arrays[4:])
        assert_array_equal(kept.gradient(dy, bits, *arrays[4:]), expected)


@pytest.mark.parametrize("place", [0, 1023, 1024, 69_999])
@pytest.mark.parametrize("value", [0.5, -0.0, 32768, -32768, 1e30, np.inf, -np.inf, np.nan, 1e-45])
def test_what_is_no_int16_is_kept_as_it_is(place, value, threads):
    x = np.resize(np.float32(WHOLE), (1000, 70))
    ones = np.ones(70, np.float32)
    x.flat[place] = value
    batch = Normalized(x, False, ones, ones, ones, ones)
    assert batch.narrowed().x is x


def test_a_step_of_integers_keeps_half(monkeypatch):
    """ReLU alone and joined, too, which looks only at signs."""
    x, dy = np.float32(np.arange(-60, 60).reshape(20, 6)), numbers(20, 6)
    for kinds in itertools.product([False, True], [None, "sign", "relu"]):
        narrow, wide = (Sequential(layers(6, *kinds)) for _ in range(2))
        narrow.forward(x, training=True)
        with monkeypatch.context() as patch:
            patch.setattr(BatchNorm, "narrow", lambda norm: norm.batch)
            wide.forward(x, training=True)
        kept = [norm.batch.x for norm in (*narrow.layers, *wide.layers) if hasattr(norm, "batch")]
        assert [array.dtype for array in kept] == [np.int16, np.float32]
        assert_array_equal(narrow.backward(dy), wide.backward(dy))
