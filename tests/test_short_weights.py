"""Latent weights in 16 bits: the step in the native module, the parameter, and trainings."""

import copy
import math
import pickle

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from test_adam import ADAM_SHAPES, hash32, to_bfloat16

import bitops as bo
from bitops import _core
from bitops.layers import BatchNorm, BinaryDense, Parameter, Sequential, Sign
from bitops.layers.parameter import Outline
from bitops.models import mlp
from bitops.ops.mixed_gemm import code_gemm, weight_gemm
from bitops.training import SGD, Adam, Bop, cross_entropy

F = np.float32
MOST, NAN = 32767, -32768
# rate, the rests of beta, eps, keep, clip and seed; rate in the unit of the weights
NUMBERS = 600.0, 0.1, 0.001, 1e-8, 0.999, MOST, 7


def adam_in_numpy(w, g, m, v, rate, rest1, rest2, eps, keep, clip, seed):
    """The step on int16 and float32 moments, as operations.h states it."""
    m = m + F(rest1) * (g - m)
    v = v + F(rest2) * (g * g - v)
    w = w.astype(F) * F(keep) - F(rate) * (m / (np.sqrt(v) + F(eps)))
    places = np.arange(w.size, dtype=np.uint64) * np.uint64(0x9E3779B9) + np.uint64(seed)
    random = hash32(places.astype(np.uint32)).reshape(w.shape)
    random = (random + (random >> np.uint32(16))) & np.uint32(0xFFFF)
    w = w + (random.astype(F) * F(2**-16) + F(2**-17 - 0.5))
    return np.rint(np.clip(w, F(-clip), F(clip))).astype(np.int16), m, v


def shorts(rng, shape):
    w = rng.integers(-MOST, MOST + 1, shape, dtype=np.int16)
    w.reshape(-1)[:3] = [MOST, -MOST, 0][: w.size]
    return w


def words_of(shape):
    return np.full((shape[0], -(-shape[1] // 64)), ~np.uint64(0))


# ---- the step --------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", ADAM_SHAPES)
def test_equals_numpy_to_the_bit(isa, threads, rng, shape):
    w, g, m = shorts(rng, shape), *rng.normal(size=(2, *shape)).astype(F)
    v, words = rng.random(shape, dtype=F), words_of(shape)
    for seed in (1, 2**32 - 1):
        numbers = *NUMBERS[:-1], seed
        expected = adam_in_numpy(w, g, m, v, *numbers)
        assert _core.adam(g, *numbers, w, m, v, words) is False
        for array, wanted in zip((w, m, v), expected, strict=True):
            assert_array_equal(array, wanted)
    assert_array_equal(words, bo.pack(w).words)


@pytest.mark.parametrize("shape", ADAM_SHAPES)
def test_moments_in_bfloat16_change_as_beside_float32(isa, threads, rng, shape):
    w, g = shorts(rng, shape), rng.normal(size=shape).astype(F)
    m, v = (to_bfloat16(array, 0) for array in rng.random((2, *shape), dtype=F))
    exact = [np.zeros(shape, F), m.copy(), v.copy()]
    wide = [(array.astype(np.uint32) << np.uint32(16)).view(F) for array in (m, v)]
    expected, _, _ = adam_in_numpy(w, g, *wide, *NUMBERS)
    _core.adam(g, *NUMBERS, *exact)
    _core.adam(g, *NUMBERS, w, m, v)
    for array, wanted in zip((w, m, v), (expected, *exact[1:]), strict=True):
        assert_array_equal(array, wanted)


@pytest.mark.parametrize("size", [(1, 1, 1), (31, 70, 3), (65, 1100, 65), (130, 63, 200)])
def test_step_is_that_of_the_gradient_in_memory(isa, threads, rng, size):
    rows, n, k = size
    x = rng.standard_normal((k, rows)).astype(F)
    bits = bo.pack(rng.integers(2, size=(n, k)) * 2 - 1)
    codes, alpha = rng.integers(256, size=x.shape, dtype=np.uint8), rng.standard_normal(n).astype(F)
    for half in (False, True):
        products = (
            ((x, bits.words, 0, None, None), weight_gemm(x.T, bits)),
            ((codes, bits.words, 32, alpha, None), code_gemm(codes.T, bits, 8, 32, alpha=alpha)),
        )
        for product, gradient in products:
            moments = rng.random((2, rows, n), dtype=F)
            if half:
                moments = to_bfloat16(moments, 0)
            first = [shorts(rng, (rows, n)), *moments, words_of((rows, n))]
            second = [array.copy() for array in first]
            _core.adam_product(*product, *NUMBERS, *first)
            _core.adam(gradient, *NUMBERS, *second)
            for a, b in zip(first, second, strict=True):
                assert_array_equal(a, b)


def test_follows_steps_below_its_unit(isa):
    # 1,000 steps of 0.03 units are 30: to the nearest, none of 6,400 weights would move
    shape = 64, 100
    w, m, v = np.zeros(shape, np.int16), np.zeros(shape, F), np.zeros(shape, F)
    for step in range(1000):
        _core.adam(np.ones(shape, F), 0.03, 1.0, 1.0, 1e-30, 1.0, MOST, step, w, m, v)
    # a walk whose steps have the variance 0.03 * 0.97
    assert abs(w.mean() + 30) < 0.3
    assert 4.5 < w.std() < 6.5


def test_rests_where_nothing_changes(isa):
    w = np.array([[MOST, -MOST, 0, 1, -1, 100, -20000]], np.int16)
    before, zeros = w.copy(), np.zeros(w.shape, F)
    for step in range(200):
        _core.adam(zeros, 600.0, 0.1, 0.001, 1e-8, 1.0, MOST, step, w, zeros.copy(), zeros.copy())
    # a float32 of 8 bits or more before the point lacks some of the 17 behind it
    assert_array_equal(w[:, 2:-1], before[:, 2:-1])
    assert np.abs(w.astype(int) - before).max() <= 2


def test_clips_at_the_edge(isa):
    w = np.array([[MOST, -MOST, MOST, -MOST]], np.int16)
    g = np.array([[-1, 1, 1, -1]], F)
    words = np.zeros((1, 1), np.uint64)
    m, v = np.zeros_like(g), np.zeros_like(g)
    _core.adam(g, 1e9, 0.1, 0.1, 1e-8, 1.0, MOST, 0, w, m, v, words)
    assert_array_equal(w, [[MOST, -MOST, -MOST, MOST]])
    assert words[0, 0] == 0b1001


@pytest.mark.parametrize("n", [1, 63, 70, 1030])
def test_tells_of_nan(isa, n):
    for words in (None, np.zeros((3, -(-n // 64)), np.uint64)):
        w, m, v = np.full((3, n), 5, np.int16), np.ones((3, n), F), np.ones((3, n), F)
        g = np.zeros((3, n), F)
        g[1, n - 1] = math.nan
        assert _core.adam(g, *NUMBERS, w, m, v, words) is True
        assert w[1, n - 1] == NAN and np.count_nonzero(w == NAN) == 1
        # and it stays one, whatever the gradient
        assert _core.adam(np.zeros((3, n), F), *NUMBERS, w, *np.ones((2, 3, n), F), words) is True
        assert w[1, n - 1] == NAN and np.count_nonzero(w == NAN) == 1


def test_checks_arrays():
    good, w = np.zeros((2, 65), F), np.zeros((2, 65), np.int16)
    with pytest.raises(ValueError, match=r"\[_core\] clip must be 32767 for int16, got 1.0"):
        _core.adam(good, *NUMBERS[:-2], 1.0, 0, w, good, good)
    with pytest.raises(ValueError, match="columns of g"):
        _core.adam(good, *NUMBERS, w[:, :64].copy(), good[:, :64].copy(), good[:, :64].copy())
    for wrong in (w.astype(np.int32), w.astype(np.uint16), w[:, ::2]):
        with pytest.raises(ValueError, match=r"Buffer dtype mismatch|not C-contiguous"):
            _core.adam(good, *NUMBERS, wrong, good, good)
    halves = np.zeros((2, 65), np.uint16)
    for m, v in ((halves, w), (w, halves), (halves, good), (good, w)):
        with pytest.raises(ValueError, match="Buffer dtype mismatch"):
            _core.adam(good, *NUMBERS, w, m, v)


# ---- the parameter ---------------------------------------------------------------------------


@pytest.mark.parametrize("limit", [1.0, 0.3, 1e-3, 77.7, 1e-30, 1e30])
def test_shorts_round_to_the_nearest_and_stay(limit):
    value = np.linspace(-1.1, 1.1, 70001) * limit
    parameter = Parameter(value, clip_value=limit, binary=True)
    version = parameter.version
    codes = parameter.shorts()
    assert codes.dtype == np.int16 and parameter.version > version
    kept = parameter.value
    inside = np.clip(value, -limit, limit)
    assert np.abs(kept - inside).max() < limit * (0.5 / MOST + 1e-6)
    assert kept[0] == -F(limit) and kept[-1] == F(limit)
    assert_array_equal(bo.pack(kept).words, parameter.signs().words)
    all_codes = np.arange(-MOST, MOST + 1).astype(np.int16)
    other = Parameter(np.zeros(all_codes.shape), clip_value=limit, binary=True)
    other.shorts()[...] = all_codes
    back = Parameter(other.value, clip_value=limit, binary=True)
    assert_array_equal(back.shorts(), all_codes)


def test_shorts_end_with_other_changes():
    parameter = Parameter([0.5, -0.25], clip_value=1.0, binary=True)
    parameter.shorts()[...] = [NAN, MOST]
    assert_array_equal(parameter.value, F([math.nan, 1]))
    with pytest.raises(ValueError, match="NaN"):
        parameter.signs()
    parameter.assign([0.1, 0.2])  # not one of the int16
    assert_array_equal(parameter.value, F([0.1, 0.2]))
    assert_array_equal(parameter.shorts(), [3277, 6553])
    parameter.clip_value = 0.5
    assert_array_equal(parameter.shorts(), [6554, 13106])  # of 3277 and 6553
    np.testing.assert_allclose(parameter.value, [0.1, 0.2], atol=2e-5)
    parameter.assign_signs(bo.pack([-1, 1]))
    assert_array_equal(parameter.value, F([-1, 1]))
    parameter.clip_value = 1.0
    assert_array_equal(parameter.shorts(), [-MOST, MOST])


@pytest.mark.parametrize("limit", [None, 0.0, 1e-35, 1e36, 1e300, math.inf, math.nan, -1.0])
def test_some_clips_have_no_unit(limit):
    parameter = Parameter(np.full(3, 0.1), binary=True, clip_value=limit)
    assert not parameter.may_be_short
    assert not Parameter(np.zeros(3), clip_value=1.0).may_be_short  # not its signs alone
    Adam([parameter], lr=0.0, weight_bits=16)
    assert_array_equal(parameter.value, np.full(3, F(0.1)))


def test_parts_of_a_pickle_are_checked():
    parameter = Parameter([[0.5, -0.25]], clip_value=1.0, binary=True)
    parameter.shorts()
    state = parameter.__getstate__()
    assert state["_value"].dtype == F
    for forged in (parameter._value, np.zeros((1, 2), np.int16), None):
        with pytest.raises(ValueError, match="value of a pickle must be contiguous float32"):
            Parameter.__new__(Parameter).__setstate__({**state, "_value": forged})
    other = Parameter.__new__(Parameter)
    other.__setstate__({**state, "_signs": (parameter.version, bo.pack([[-1, -1, -1]]))})
    assert_array_equal(other.signs().words, parameter.signs().words)


def test_copies_have_the_value():
    parameter = Parameter([[0.5, -0.25]], clip_value=1.0, binary=True)
    parameter.shorts()
    outline = Outline(parameter, signs=False)
    for other in (
        copy.copy(parameter),
        copy.deepcopy(parameter),
        pickle.loads(pickle.dumps(parameter)),
        pickle.loads(pickle.dumps(outline)).parameter(),
    ):
        assert_array_equal(other.value, parameter.value)
        other.shorts()[...] = 0
    assert parameter.value[0, 0] == F(16384 / MOST)


# ---- the optimizer ---------------------------------------------------------------------------


def train(model, rng, steps, bits=32, *, optimizer=None, **options):
    if bits < 32:
        model.round_gradients(3, bits)
    adam = optimizer or Adam(model.parameters(), **options)
    for _ in range(steps):
        x, y = rng.integers(256, size=(20, 96), dtype=np.uint8), rng.integers(4, size=20)
        _, grad = cross_entropy(model.forward(x, training=True), y)
        model.backward(grad)
        adam.step()
    return adam


@pytest.mark.parametrize("bits", [32, 8])
@pytest.mark.parametrize("moment_bits", [32, 16])
def test_a_training_stays_near_that_of_float32(isa, threads, bits, moment_bits):
    exact, short = (mlp(96, 100, 2, 4, seed=0) for _ in range(2))
    train(exact, np.random.default_rng(5), 4, bits, lr=1e-3)
    options = {"weight_bits": 16, "moment_bits": moment_bits}
    train(short, np.random.default_rng(5), 4, bits, lr=1e-3, **options)
    for one, two in zip(exact.parameters(), short.parameters(), strict=True):
        if one.binary:
            changed = (one.value != two.value).mean()
            assert changed > 0.9  # rounded
            assert np.abs(one.value - two.value).mean() < 2e-3  # of steps of 0.01 and more
            units = two.value * F(MOST)
            np.testing.assert_allclose(units, np.rint(units), atol=4e-3)
            assert_array_equal(two.signs().words, bo.pack(two.value).words)


@pytest.mark.parametrize("moment_bits", [32, 16])
def test_goes_on_to_the_bit(moment_bits):
    options = {"lr": 1e-3, "weight_bits": 16, "moment_bits": moment_bits, "l2": 1e-4}
    whole, rng = mlp(96, 100, 2, 4, seed=0), np.random.default_rng(1)
    train(whole, rng, 6, **options)
    half, rng = mlp(96, 100, 2, 4, seed=0), np.random.default_rng(1)
    adam = train(half, rng, 3, **options)
    assert adam.settings()["weight_bits"] == 16
    state = rng.bit_generator.state
    loaded, optimizer = pickle.loads(pickle.dumps((half, adam)))
    restored = mlp(96, 100, 2, 4, seed=7)
    restored.restore(half.state())
    again = Adam(restored.parameters(), **options)
    again.restore(adam.state())
    for model, go_on in ((loaded, optimizer), (restored, again), (half, adam)):
        rng.bit_generator.state = state
        train(model, rng, 3, optimizer=go_on)
        for one, two in zip(whole.parameters(), model.parameters(), strict=True):
            assert_array_equal(one.value, two.value)


@pytest.mark.parametrize(
    "options",
    [{"scale_weights": True}, {"stochastic": True}, {"stochastic": True, "real_evaluation": True}],
)
def test_layers_that_read_the_weights(options):
    def make():
        return Sequential(BinaryDense(96, 70, seed=0, **options), BatchNorm(70), Sign())

    exact, short = make(), make()
    for model, bits in ((exact, 32), (short, 16)):
        model = Sequential(*model.layers, BinaryDense(70, 4, seed=1))
        train(model, np.random.default_rng(5), 4, lr=1e-3, weight_bits=bits)
    one, two = (model.layers[0].weight for model in (exact, short))
    assert one.value.dtype == two.value.dtype == F
    assert 0 < np.abs(one.value - two.value).mean() < 5e-3  # of steps of 0.01 and more
    assert two.shorts().dtype == np.int16


@pytest.mark.parametrize("optimizer", [SGD, Bop])
def test_other_optimizers_go_on_in_float32(optimizer):
    parameter = Parameter([[0.5, -0.25]], clip_value=1.0, binary=True)
    parameter.shorts()
    twin = Parameter(parameter.value, clip_value=1.0, binary=True)
    for one in (parameter, twin):
        one.grad[...] = [[0.125, -1]]
        optimizer([one]).step()
    assert_array_equal(parameter.value, twin.value)
    assert not (parameter.value == F([[16384, -8192]]) / MOST).all()


@pytest.mark.parametrize(
    "wrong", [{"lr": -1.0}, {"beta1": 2.0}, {"weight_decay": -1.0}, {"decayed": [Parameter([1.0])]}]
)
def test_a_refused_optimizer_changes_nothing(wrong):
    parameter = Parameter([0.12345679, -3.0], clip_value=1.0, binary=True)
    before = parameter.value.copy(), parameter.version
    with pytest.raises(ValueError, match="must be"):
        Adam([parameter], weight_bits=16, **wrong)
    assert_array_equal(parameter.value, before[0])
    assert parameter.version == before[1]
    Adam([parameter], weight_bits=16)
    assert_array_equal(parameter.value, F([4045 / MOST, -1]))  # rounded, and clipped


def test_a_frozen_parameter_keeps_its_bits():
    parameter = Parameter([0.12345679, -0.5], clip_value=1.0, binary=True)
    parameter.trainable = False
    adam = Adam([parameter], lr=0.0, weight_bits=16)
    adam.step()
    assert_array_equal(parameter.value, F([0.12345679, -0.5]))
    parameter.trainable = True
    parameter.grad[...] = 0
    adam.step()
    np.testing.assert_allclose(parameter.value * F(MOST), [4045, -16383.5], atol=1.1)


def test_keeps_the_rest_in_float32():
    kept = Parameter(np.full(3, 0.1), binary=True), Parameter(np.full(3, 0.1), clip_value=1.0)
    for parameter in kept:
        parameter.grad[...] = 1
    Adam(kept, lr=1e-6, weight_bits=16).step()
    for parameter in kept:
        np.testing.assert_allclose(parameter.value, 0.1 - 1e-6, rtol=1e-6)


def test_refuses_other_bits_and_trainings():
    for wrong in (8, 24, 64):
        with pytest.raises(ValueError, match=f"weight_bits must be 16 or 32, got {wrong}|at least"):
            Adam([], weight_bits=wrong)
    with pytest.raises(TypeError, match="weight_bits"):
        Adam([], weight_bits=16.0)
    assert "weight_bits" not in Adam([]).settings()  # as in checkpoints from before


def test_nan_is_left_to_packing():
    parameter = Parameter(np.ones((2, 3)), clip_value=1.0, binary=True)
    parameter.grad[0, 1] = math.nan
    Adam([parameter], weight_bits=16).step()
    with pytest.raises(ValueError, match="NaN"):
        parameter.signs()
