import copy
import math
import pickle

import numpy as np
import pytest

import bitops as bo
from bitops.layers import Parameter, QuantizedDense
from bitops.quantizers import DoReFaWeight
from bitops.training.optim import SGD, Adam, AdaMax, Bop, Optimizer, ShiftAdaMax

OPTIMIZERS = (SGD, Adam, AdaMax, ShiftAdaMax, Bop)
F = np.float32


def binary_parameter(value, **options):
    return Parameter(value, binary=True, **options)


def run(optimizer, grads):
    """Steps with the gradients of its only parameter; the values after each."""
    (parameter,) = optimizer.parameters
    values = []
    for grad in grads:
        parameter.grad[...] = grad
        optimizer.step()
        values.append(parameter.value.copy())
    return values


# ---- Adam ------------------------------------------------------------------------------------


def adam_in_float64(w, grads, lr, scale, clip):
    """The published update, straight from its equations."""
    m = v = np.zeros_like(w)
    for t, g in enumerate(grads, start=1):
        m = 0.9 * m + 0.1 * g
        v = 0.999 * v + 0.001 * g**2
        rate = lr * math.sqrt(1 - 0.999**t) / (1 - 0.9**t)
        w = w - scale * rate * m / (np.sqrt(v) + 1e-8)
        if clip is not None:
            w = np.clip(w, -clip, clip)
    return w


@pytest.mark.parametrize("shape", [(), (1,), (3, 5), (2, 3, 3, 65), (0, 4), (70000,)])
@pytest.mark.parametrize(("scale", "clip"), [(1.0, None), (8.5, 1.0)])
def test_adam_matches_the_equations(shape, scale, clip):
    rng = np.random.default_rng(1)
    start = rng.uniform(-1, 1, shape)
    grads = [rng.normal(size=shape) for _ in range(4)]
    parameter = Parameter(start, clip_value=clip, lr_scale=scale)
    run(Adam([parameter], lr=0.01), grads)
    expected = adam_in_float64(start, grads, 0.01, scale, clip)
    np.testing.assert_allclose(parameter.value, expected, atol=2e-5)
    if clip is not None and parameter.size:
        assert np.abs(parameter.value).max() <= clip


def test_first_step_by_hand():
    parameter = Parameter([0.5, -0.5])
    parameter.grad[...] = [3.0, -0.001]
    Adam([parameter], lr=0.125).step()
    np.testing.assert_allclose(parameter.value, [0.375, -0.375], atol=1e-4)


@pytest.mark.parametrize("shape", [(3, 70), (4, 3, 3, 65), (2, 128)])
def test_adam_packs_the_signs_of_binary_parameters(shape):
    rng = np.random.default_rng(2)
    parameter = binary_parameter(rng.uniform(-1, 1, shape), clip_value=1.0, lr_scale=5.0)
    real = Parameter(np.ones(3))
    optimizer = Adam([parameter, real], lr=0.1)
    signs, values = [], []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("bitops.layers.parameter.pack", None)  # the optimizer's are taken
        for _ in range(3):
            parameter.grad[...] = rng.normal(size=shape)
            optimizer.step()
            signs.append(parameter.signs())
            values.append(parameter.value.copy())
    for bits, value in zip(signs, values, strict=True):  # what was handed out stays as it is
        assert bool((bits == bo.pack(value)).all())


def test_adam_leaves_nan_to_packing():
    parameter = binary_parameter(np.ones((2, 3)))
    parameter.grad[0, 1] = math.nan
    Adam([parameter]).step()
    with pytest.raises(ValueError, match="NaN"):
        parameter.signs()


def test_adam_takes_a_gradient_that_is_not_contiguous():
    start, grad = np.ones((4, 6)), np.arange(24.0).reshape(6, 4)
    strided, plain = Parameter(start), Parameter(start)
    strided.grad = grad.astype(F).T
    plain.grad = grad.T.astype(F, order="C")
    Adam([strided]).step()
    Adam([plain]).step()
    np.testing.assert_array_equal(strided.value, plain.value)


@pytest.mark.parametrize("bits", [32, 16])
def test_adam_finds_a_minimum(bits):
    parameter = Parameter([5.0, -3.0])
    optimizer = Adam([parameter], lr=0.1, moment_bits=bits)
    for _ in range(500):
        parameter.grad[...] = 2 * (parameter.value - np.array([1.0, 2.0], dtype=F))
        optimizer.step()
    np.testing.assert_allclose(parameter.value, [1, 2], atol=1e-3)


def halved_adam(start, bits=16):
    return Adam([binary_parameter(start, clip_value=1.0)], lr=0.01, moment_bits=bits)


def test_adam_with_moments_in_bfloat16_goes_on_to_the_bit():
    rng = np.random.default_rng(6)
    start, grads = rng.uniform(-1, 1, (30, 70)), rng.normal(size=(6, 30, 70)).astype(F)
    whole = halved_adam(start)
    values = run(whole, grads)
    first = halved_adam(start)
    run(first, grads[:3])
    state = first.state()
    assert state["m.0"].dtype == state["v.0"].dtype == np.uint16
    assert first.settings()["moment_bits"] == 16
    restored = halved_adam(values[2])
    restored.restore(state)
    for other in (restored, pickle.loads(pickle.dumps(first)), copy.deepcopy(first)):
        np.testing.assert_array_equal(run(other, grads[3:])[-1], values[-1])
    exact = run(halved_adam(start, bits=32), grads)[-1]
    assert 0 < np.abs(values[-1] - exact).max() < 0.01  # the rounding moves weights a little


def test_adam_refuses_moments_of_other_bits():
    with pytest.raises(ValueError, match="moment_bits must be 16 or 32, got 24"):
        Adam([], moment_bits=24)
    assert "moment_bits" not in Adam([]).settings()  # as in checkpoints from before
    half, whole = halved_adam(np.ones(5)), halved_adam(np.ones(5), bits=32)
    for optimizer, other in ((half, whole), (whole, half)):
        with pytest.raises(ValueError, match=r"m\.0 of the state must be .*moment_bits must be"):
            optimizer.restore(other.state())


# ---- the others, against their formulas ------------------------------------------------------

SHAPES = [(3, 5), (40000,)]  # the second takes two blocks


@pytest.fixture(params=SHAPES)
def start_and_grads(request):
    rng = np.random.default_rng(3)
    start = rng.uniform(-1, 1, request.param).astype(F)
    return start, [rng.normal(size=request.param).astype(F) for _ in range(5)]


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_sgd(start_and_grads, momentum):
    w, grads = start_and_grads
    parameter = Parameter(w, clip_value=0.75, lr_scale=2.0)
    values = run(SGD([parameter], lr=0.01, momentum=momentum), grads)
    velocity = np.zeros_like(w)
    for value, g in zip(values, grads, strict=True):
        velocity = momentum * velocity + g
        w = np.clip(w - 2 * 0.01 * velocity, -0.75, 0.75)
        np.testing.assert_allclose(value, w, atol=1e-6)


def test_adamax(start_and_grads):
    w, grads = start_and_grads
    grads[0][...] = 0  # m = u = 0: no step
    parameter = Parameter(w, lr_scale=3.0)
    values = run(AdaMax([parameter], lr=0.02), grads)
    np.testing.assert_array_equal(values[0], w)
    m, u = np.zeros_like(w), np.zeros_like(w)
    for t, (value, g) in enumerate(zip(values, grads, strict=True), start=1):
        m = 0.9 * m + 0.1 * g
        u = np.maximum(0.999 * u, np.abs(g))
        w = w - 3 * 0.02 / (1 - 0.9**t) * m / (u + 1e-8)
        np.testing.assert_allclose(value, w, atol=1e-5)


def test_shift_adamax_is_the_released_formula(start_and_grads):
    w, grads = start_and_grads
    grads[1].flat[0] = grads[0].flat[0] = 0  # v = 0: log2 is -inf and its power 0
    parameter = Parameter(w, clip_value=1.0, lr_scale=0.3)
    optimizer = ShiftAdaMax([parameter], lr=2**-6)
    values = run(optimizer, grads)
    m, v = np.zeros_like(w), np.zeros_like(w)
    for t, (value, g) in enumerate(zip(values, grads, strict=True), start=1):
        m = F(0.9) * m + F(0.1) * g
        v = np.maximum(F(0.999) * v, np.abs(g))
        s = 2 ** np.round(np.log2(2**-6 / (1 - 0.9**t)))
        with np.errstate(divide="ignore"):
            exponents = np.round(np.log2(v.astype(np.float64)))
        v = (2**exponents).astype(F) + F(2**-27)
        w = np.clip(w - F(s) * (m / v) * F(0.3), F(-1), F(1))
        np.testing.assert_allclose(value, w, rtol=0, atol=2e-7)
    np.testing.assert_array_equal(optimizer.state()["v.0"], v.reshape(-1))


def test_bop_is_the_published_algorithm():
    rng = np.random.default_rng(4)
    start = rng.uniform(-1, 1, (9, 7)).astype(F)
    start[0, :2] = [0, -0.0]
    grads = rng.normal(size=(30, 9, 7)).astype(F)
    parameter = binary_parameter(start)
    optimizer = Bop([parameter], threshold=0.05, adaptivity=0.1)
    m, w = np.zeros_like(start), np.where(start >= 0, F(1), F(-1))
    flips = 0
    for g in grads:
        parameter.grad[...] = g
        optimizer.step()
        m = 0.9 * m + 0.1 * g
        flipped = (np.abs(m) > 0.05) & (np.sign(m) == w)
        w = np.where(flipped, -w, w)
        flips += np.count_nonzero(flipped)
        np.testing.assert_array_equal(parameter.value, w)
    assert flips > 100


def test_bop_flips_by_hand():
    parameter = binary_parameter([0.5, 0.5, -0.25, -0.25])
    parameter.grad[...] = [1, -1, 1, -1]  # descent wants w to go against the gradient
    Bop([parameter], threshold=0.25, adaptivity=0.5).step()
    np.testing.assert_array_equal(parameter.value, [-1, 1, -1, 1])
    parameter = binary_parameter([1.0])
    parameter.grad[...] = 0.5
    Bop([parameter], threshold=0.25, adaptivity=0.5).step()  # m = threshold is not above it
    np.testing.assert_array_equal(parameter.value, [1])


def test_bop_leaves_other_parameters_to_adam():
    binary, real, twin = binary_parameter([1.0]), Parameter([1.0, 2.0]), Parameter([1.0, 2.0])
    bop, adam = Bop([real, binary], lr=0.5), Adam([twin])
    for rate in (0.01, 0.002):
        bop.lr = adam.lr = rate
        real.grad[...] = twin.grad[...] = [1.0, -2.0]
        bop.step()
        adam.step()
        np.testing.assert_array_equal(real.value, twin.value)


# ---- what all share --------------------------------------------------------------------------


def make(kind, values=None):
    values = np.linspace(-1, 1, 12).reshape(3, 4) if values is None else values
    return kind([binary_parameter(values, clip_value=1.0), Parameter([0.5, -0.5])])


def steps_of(optimizer, parameters, rng, count):
    for _ in range(count):
        for p in parameters:
            p.grad[...] = rng.normal(size=p.shape)
        optimizer.step()
    return [p.value.copy() for p in parameters]


def all_parameters(optimizer):
    inner = getattr(optimizer, "inner", None)
    return optimizer.parameters + ([] if inner is None else inner.parameters)


@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_restored_state_goes_on_to_the_bit(kind):
    rng = np.random.default_rng(5)
    whole = make(kind)
    middle = steps_of(whole, all_parameters(whole), rng, 3)
    state, rng_state = whole.state(), rng.bit_generator.state
    whole.lr = 0.25  # the state holds the rate too, and copies
    after_other = steps_of(whole, all_parameters(whole), rng, 2)
    whole.restore(state)
    for parameter, value in zip(all_parameters(whole), middle, strict=True):
        parameter.assign(value)
    rng.bit_generator.state = rng_state
    expected = steps_of(whole, all_parameters(whole), rng, 2)

    fresh = make(kind)
    fresh.restore({name: np.array(array) for name, array in state.items()})
    for parameter, value in zip(all_parameters(fresh), middle, strict=True):
        parameter.assign(value)
    rng.bit_generator.state = rng_state
    for got, wanted in zip(steps_of(fresh, all_parameters(fresh), rng, 2), expected, strict=True):
        np.testing.assert_array_equal(got, wanted)
    assert any((a != b).any() for a, b in zip(after_other, expected, strict=True))


@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_foreign_state_is_refused(kind):
    optimizer = make(kind)
    state = optimizer.state()
    with pytest.raises(ValueError, match=rf"^\[{kind.__name__}\] state must hold .*extra"):
        optimizer.restore(state | {"extra": np.zeros(1)})
    name = next(name for name in state if name.endswith(".0"))
    with pytest.raises(ValueError, match=rf"{name} of the state must have shape \(12,\), got"):
        optimizer.restore(state | {name: np.zeros(2)})
    with pytest.raises(ValueError, match="state must hold"):
        optimizer.restore({})


@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_step_marks_the_parameter_as_changed_and_keeps_the_gradient(kind):
    parameter = binary_parameter(np.zeros(3))
    parameter.grad[...] = [1, 2, 3]
    version = parameter.version
    kind([parameter]).step()
    assert parameter.version > version
    np.testing.assert_array_equal(parameter.grad, [1, 2, 3])


class ReadAmidSteps(Parameter):
    """One that another thread uses just before it is written."""

    def writable(self):
        value = super().writable()
        self.read = self.version, self.signs()
        return value

    def shorts(self):
        value = super().shorts()
        self.read = self.version, self.signs()
        return value


@pytest.mark.parametrize(
    ("kind", "options"), [*((kind, {}) for kind in OPTIMIZERS), (Adam, {"weight_bits": 16})]
)
def test_nothing_stays_of_what_is_read_amid_a_step(kind, options):
    parameter = ReadAmidSteps(np.full((3, 70), 1e-3), binary=True, clip_value=1.0)
    parameter.grad[...] = 1
    optimizer = kind([parameter], lr=1, **options)
    for _ in range(3):
        optimizer.step()
    version, _ = parameter.read
    assert parameter.version > version
    assert parameter.signs() == bo.pack(parameter.value)


@pytest.mark.parametrize("kind", [SGD, Adam, AdaMax, ShiftAdaMax])
def test_weight_decay_is_decoupled(kind):
    decayed, plain = Parameter(np.full(3, 8.0), lr_scale=2.0), Parameter(np.full(3, 8.0))
    optimizer = kind([decayed, plain], lr=0.25, weight_decay=0.5, decayed=[decayed])
    optimizer.step()  # no gradient, no step: only the decay
    np.testing.assert_array_equal(decayed.value, np.full(3, 6.0))
    np.testing.assert_array_equal(plain.value, np.full(3, 8.0))
    assert kind([plain], weight_decay=0.1)._decays == [True]


@pytest.mark.parametrize("kind", [SGD, Adam, AdaMax, ShiftAdaMax])
def test_l2_is_a_part_of_the_gradient(kind):
    """A step with the penalty is a step from the gradient of the penalized loss."""
    w, g = np.array([1.0, -2.0, 0.5], np.float32), np.array([0.25, 0.5, -1.0], np.float32)
    penalized, literal, free = Parameter(w), Parameter(w), Parameter(w)
    optimizers = (
        kind([penalized, free], lr=0.25, l2=0.5, decayed=[penalized]),
        kind([literal], 0.25),
    )
    for _ in range(3):
        penalized.grad[...] = free.grad[...] = g
        literal.grad[...] = g + np.float32(0.5) * literal.value
        for optimizer in optimizers:
            optimizer.step()
    np.testing.assert_array_equal(penalized.value, literal.value)
    assert (free.value != penalized.value).any()
    assert optimizers[0].settings()["l2"] == 0.5


@pytest.mark.parametrize("kind", [SGD, Adam, AdaMax, ShiftAdaMax])
@pytest.mark.parametrize("latent", [binary_parameter([1.0]), Parameter([1.0], clip_value=1.0)])
def test_weight_decay_of_latent_weights_warns(kind, latent):
    with pytest.warns(
        UserWarning, match=rf"^\[{kind.__name__}\] weight_decay acts on latent"
    ) as found:
        kind([Parameter([1.0]), latent], weight_decay=0.1)
    assert found[0].filename == __file__
    kind([latent], l2=0.1)
    other = Parameter([1.0])
    kind([latent, other], weight_decay=0.1, decayed=[other])


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        *((kind, {"lr": lr}) for kind in (SGD, Adam, AdaMax, ShiftAdaMax) for lr in (-1, math.nan)),
        *((Adam, options) for options in ({"beta1": 1.0}, {"beta2": -0.1}, {"eps": 0.0})),
        *((AdaMax, options) for options in ({"beta1": 1.0}, {"beta2": -0.1}, {"eps": 0.0})),
        (ShiftAdaMax, {"beta1": 1.0}),
        (SGD, {"momentum": 1.0}),
        (SGD, {"weight_decay": -1.0}),
        (SGD, {"l2": -1.0}),
        (Adam, {"weight_decay": math.nan}),
        (Adam, {"weight_decay": 0.1, "decayed": [Parameter([1.0])]}),
    ],
)
def test_bad_settings(kind, options):
    with pytest.raises(ValueError, match=r"^\[(SGD|Adam|AdaMax|ShiftAdaMax)\] "):
        kind([], **options)


@pytest.mark.parametrize(
    ("parameters", "options"),
    [
        ([Parameter([1.0])], {}),
        ([binary_parameter([1.0])], {"threshold": -1.0}),
        ([binary_parameter([1.0])], {"adaptivity": 0.0}),
        ([binary_parameter([1.0])], {"adaptivity": 1.5}),
        ([binary_parameter([1.0])], {"lr": -1.0}),
    ],
)
def test_bad_settings_of_bop(parameters, options):
    with pytest.raises(ValueError, match=r"^\[Bop\] "):
        Bop(parameters, **options)


def test_repr_and_names():
    assert repr(Adam([Parameter([1.0])], lr=0.5)) == "Adam(1 parameters, lr=0.5)"
    assert all(issubclass(kind, Optimizer) for kind in OPTIMIZERS)


@pytest.mark.parametrize(
    ("kind", "names"),
    [
        (SGD, ("momentum", "weight_decay", "l2")),
        (Adam, ("beta1", "beta2", "eps", "weight_decay", "l2")),
        (AdaMax, ("beta1", "beta2", "eps", "weight_decay", "l2")),
        (ShiftAdaMax, ("beta1", "beta2", "weight_decay", "l2")),
        (Bop, ("threshold",)),
    ],
)
def test_settings_are_plain_numbers(kind, names):
    """Whatever they are given as; also if they are set later."""
    parameters = [Parameter([[0.5]], binary=kind is Bop)]
    expected = kind(parameters, 0.25, **dict.fromkeys(names, 0.5)).settings()
    assert set(names) <= set(expected)
    for number in (np.float16, np.float32, np.float64):
        made = kind(parameters, number(0.25), **dict.fromkeys(names, number(0.5)))
        assert repr(made.settings()) == repr(expected) and type(made.lr) is float
        for name in names:
            setattr(made, name, number(0.5))
        assert repr(made.settings()) == repr(expected)


# ---- tiny numbers ------------------------------------------------------------------------------


def steps_until(optimizer, number):
    while optimizer.steps < number:
        optimizer.step()


def is_normal_or_0(numbers):
    return ((numbers == 0) | (np.abs(numbers) >= 2.0**-126)).all()


QUICK = {Bop: {"adaptivity": 0.1}, AdaMax: {"beta2": 0.9}, ShiftAdaMax: {"beta2": 0.9}}


@pytest.mark.parametrize(
    ("kind", "options"),
    [*((kind, QUICK.get(kind, {})) for kind in OPTIMIZERS), (Adam, {"moment_bits": 16})],
)
def test_moments_of_weights_that_get_no_gradient_become_0(kind, options):
    """They would stay at the smallest numbers above 0."""
    parameter = binary_parameter(np.ones((2, 70)))
    optimizer = kind([parameter], **options)
    parameter.grad[:] = [[1e-9], [1e-17]]
    optimizer.step()
    parameter.grad[...] = 0
    steps_until(optimizer, 2048)
    for name in optimizer.moments:
        m = optimizer.state()[f"{name}.0"]
        assert is_normal_or_0((m.astype(np.uint32) << 16).view(F) if m.dtype == np.uint16 else m)


@pytest.mark.parametrize("kind", (SGD, Adam, AdaMax, ShiftAdaMax))
def test_weights_that_decay_stay_normal_numbers_of_their_sign(kind):
    start = F([-1e-3, 1e-3, -1e-29, 0])
    least = np.sign(start) * F(2.0**-100)
    real, frozen = Parameter(start), Parameter(start)
    optimizer = kind([real, frozen], lr=0.1, weight_decay=2.5)
    steps_until(optimizer, 200)
    frozen.trainable = False
    steps_until(optimizer, 255)
    assert 0 < real.value[1] < 2.0**-100
    saved = copy.deepcopy(optimizer.state()), real.value.copy(), frozen.value.copy()
    for _ in range(2):  # the second one resumed
        optimizer.step()
        np.testing.assert_array_equal(real.value, F(0.75) * least)
        np.testing.assert_array_equal(frozen.value, saved[2])
        optimizer.restore(saved[0])
        real.assign(saved[1])


def test_small_numbers_that_are_not_tiny_stay():
    value = F([2.0**-100, -(2.0**-100), 1e-20, math.inf, -math.inf, math.nan, 0, -0.0])
    parameter, empty, single = Parameter(value), Parameter(np.zeros((0, 3))), Parameter(1e-35)
    steps_until(SGD([parameter, empty, single], momentum=0), 256)
    assert parameter.value.tobytes() == value.tobytes()
    assert single.value == 2.0**-100


@pytest.mark.parametrize("scale", [1.0, 1e-12, 1e12])
def test_tiny_weights_are_those_beside_which_others_are_large(scale):
    """A weight of a billionth of the largest one counts for nothing, whatever their unit."""
    share = 2.0**-30
    start = F(scale) * F([4, -1e-3, 4 * share, 3.9 * share, -1e-20, 0])
    small, large = Parameter(start), Parameter(np.tile(start, 6000))
    optimizer = SGD([small, large], lr=0, momentum=0)
    steps_until(optimizer, 15)
    np.testing.assert_array_equal(small.value, start)
    least = F(scale) * F(4 * share)
    steps_until(optimizer, 16)
    np.testing.assert_array_equal(small.value, [*start[:3], least, -least, 0])
    np.testing.assert_array_equal(large.value[:6], start)
    steps_until(optimizer, 256)
    np.testing.assert_array_equal(large.value, np.tile(small.value, 6000))


def test_scales_of_features_that_are_not_needed_do_not_vanish():
    """L2 alone acts on them, by steps of Adam whose mean square is far below eps."""
    gamma = Parameter(F([1, 1e-3, -1e-3, 0.5]))
    optimizer = Adam([gamma], lr=5e-3, l2=5e-7)
    rng = np.random.default_rng(0)
    for _ in range(1000):
        gamma.grad[...] = [0.1 * rng.standard_normal(), 0, 0, 0.1 * rng.standard_normal()]
        optimizer.step()
        if optimizer.steps > 500:
            assert np.abs(gamma.value[1:3]).max() < 1e-6
    sizes = np.abs(gamma.value)
    assert sizes.min() > 1e-14 * sizes.max()


def test_latent_weights_keep_their_signs_however_small_they_are():
    layer = QuantizedDense(3, 2, DoReFaWeight(1), seed=0)
    layer.weight.assign([[0.5, -1e-32, 0.25], [-1e-40, 1e-40, 1]])
    before = layer.values()
    steps_until(SGD(layer.parameters(), lr=0), 256)
    np.testing.assert_array_equal(layer.values(), before)
