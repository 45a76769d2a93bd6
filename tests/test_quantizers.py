import math
from dataclasses import FrozenInstanceError

import numpy as np
import pytest

from bitops import binarize_weights, layers, pack
from bitops.quantizers import (
    AnnealedSign,
    ApproxSign,
    ClippedGradient,
    DoReFaActivation,
    DoReFaGradient,
    DoReFaWeight,
    Heaviside,
    LeastSquaresTernary,
    MagnitudeAwareSign,
    ShareTernary,
    SteSign,
    StochasticSign,
    SwishSign,
    Ternary,
    TwnTernary,
    ap2,
    xnor_weight_gradient,
)

F = np.float32
BELOW, ABOVE = np.nextafter(F(1), F(0)), np.nextafter(F(1), F(2))
# 0 from both sides, and the clip value 1 with its neighbours
EDGES = np.array([-ABOVE, -1, -BELOW, -0.5, -0.0, 0.0, 0.5, BELOW, 1, ABOVE], dtype=F)
INSIDE = np.abs(EDGES) <= 1
SIGNS = np.array([-1, -1, -1, -1, 1, 1, 1, 1, 1, 1], dtype=F)
GRAD = np.arange(2, 12).astype(F)

SIGN_LIKE = (SteSign(), ApproxSign(), SwishSign())
ALL = (
    *SIGN_LIKE,
    MagnitudeAwareSign(),
    StochasticSign(seed=0),
    Heaviside(),
    Ternary(),
    TwnTernary(),
    LeastSquaresTernary(),
    ShareTernary(0.5),
    DoReFaWeight(1),
    DoReFaWeight(3),
    DoReFaActivation(2),
    DoReFaGradient(4, seed=0),
)


def slopes(function, x, step=1e-3):
    """Central differences of an elementwise function in float64."""
    return (function(x + step) - function(x - step)) / (2 * step)


# ---- powers of two ---------------------------------------------------------------------------


def test_ap2_by_hand():
    root = F(math.sqrt(2))  # the float32 below the real root
    x = np.array([0, 1, -1, 1.4, 1.5, -3, 2.8, 2.9, 0.7, 0.71, root, np.nextafter(root, F(2))], F)
    expected = [0, 1, -1, 1, 2, -4, 2, 4, 0.5, 1, 1, 2]
    np.testing.assert_array_equal(ap2(x), np.array(expected, dtype=F))
    special = ap2([math.inf, -math.inf, math.nan, -math.nan])
    np.testing.assert_array_equal(special, [math.inf, -math.inf, math.nan, math.nan])
    assert ap2(3.0).shape == () and ap2(3.0) == 4


def test_ap2_is_the_formula(rng):
    x = (rng.normal(size=(50, 999)) * 2.0 ** rng.integers(-100, 100, (50, 999))).astype(F)
    wide = x.astype(np.float64)
    expected = np.sign(wide) * 2.0 ** np.round(np.log2(np.abs(wide)))
    np.testing.assert_array_equal(ap2(x), expected.astype(F))
    np.testing.assert_array_equal(ap2(x.T), expected.astype(F).T)


# ---- signs -----------------------------------------------------------------------------------


@pytest.mark.parametrize("quantizer", SIGN_LIKE, ids=lambda q: type(q).__name__)
def test_signs_are_those_of_packing(quantizer, rng):
    np.testing.assert_array_equal(quantizer.forward(EDGES), SIGNS)
    x = rng.normal(size=(5, 70))
    np.testing.assert_array_equal(quantizer.forward(x), np.asarray(pack(x)))


def test_ste_sign_passes_up_to_the_edge():
    np.testing.assert_array_equal(SteSign().backward(EDGES, GRAD), GRAD * INSIDE)
    np.testing.assert_array_equal(SteSign(0.5).backward(EDGES, GRAD), GRAD * (np.abs(EDGES) <= 0.5))
    np.testing.assert_array_equal(SteSign(math.inf).backward(EDGES * 1e9, GRAD), GRAD)


def test_approx_sign_is_a_parabola():
    x = np.array([-1.5, -1, -0.5, -0.0, 0, 0.25, 1, 1.5], F)
    slope = np.array([0, 0, 1, 2, 2, 1.5, 0, 0])
    np.testing.assert_array_equal(ApproxSign().backward(x, np.full(8, 3)), 3 * slope)
    np.testing.assert_array_equal(ApproxSign(4.0).backward(4 * x, np.full(8, 3)), 3 * slope / 4)
    smooth = np.linspace(-0.9, 0.9, 10)
    expected = slopes(lambda v: v * (2 - np.abs(v)), smooth)
    np.testing.assert_allclose(ApproxSign().backward(smooth, np.ones(10)), expected, atol=1e-5)


@pytest.mark.parametrize("beta", [1.0, 5.0])
def test_swish_sign_is_the_derivative_of_signswish(beta):
    def sign_swish(v):
        sigmoid = 1 / (1 + np.exp(-beta * v))
        return 2 * sigmoid * (1 + beta * v * (1 - sigmoid)) - 1

    x = np.linspace(-3, 3, 61)
    got = SwishSign(beta).backward(x, np.full(61, 2))
    np.testing.assert_allclose(got, 2 * slopes(sign_swish, x, 1e-4), atol=2e-5)
    assert SwishSign(beta).backward([0.0], [1.0]) == beta
    np.testing.assert_array_equal(SwishSign(beta).backward([-1e30, 1e30], [1, 1]), [0, 0])


def test_magnitude_aware_sign_scales_each_filter(rng):
    x = rng.uniform(-2, 2, (4, 3, 3, 5)).astype(F)
    bits, alpha = binarize_weights(x)
    quantizer = MagnitudeAwareSign()
    scale = alpha[:, None, None, None]
    np.testing.assert_allclose(quantizer.forward(x), scale * np.asarray(bits), rtol=1e-6)
    grad = rng.normal(size=x.shape).astype(F)
    expected = grad * scale * (np.abs(x) <= 1)
    np.testing.assert_allclose(quantizer.backward(x, grad), expected, rtol=1e-6)
    edges = np.stack([EDGES, EDGES])
    passes = quantizer.backward(edges, np.ones_like(edges)) > 0
    np.testing.assert_array_equal(passes, np.stack([INSIDE, INSIDE]))


def test_stochastic_sign_draws_with_the_stated_chance():
    x = np.repeat(np.array([-3, -2, -1, 0, 0.5, 2, 3], F), 20000).reshape(7, -1)
    q = StochasticSign(clip_value=2.0, seed=1).forward(x)
    assert set(np.unique(q)) == {-1, 1}
    np.testing.assert_allclose(q.mean(axis=1), [-1, -1, -0.5, 0, 0.25, 1, 1], atol=0.03)
    assert (q[[0, 1]] == -1).all() and (q[[5, 6]] == 1).all()
    again = StochasticSign(clip_value=2.0, seed=1)
    np.testing.assert_array_equal(again.forward(x), q)
    assert (again.forward(x) != q).any()
    np.testing.assert_array_equal(StochasticSign().backward(EDGES, GRAD), GRAD * INSIDE)


def test_heaviside_is_the_bit():
    np.testing.assert_array_equal(Heaviside().forward(EDGES), (SIGNS + 1) / 2)
    np.testing.assert_array_equal(Heaviside().backward(EDGES, GRAD), GRAD * INSIDE)


# ---- ternary ---------------------------------------------------------------------------------


def test_ternary_by_hand():
    x = np.array([-1, -0.5, -0.25, -0.0, 0.25, np.nextafter(F(0.5), F(1)), 0.5], F)
    expected = [-1, 0, 0, 0, 0, 1, 0]
    np.testing.assert_array_equal(Ternary(0.5).forward(x), expected)
    np.testing.assert_array_equal(Ternary(0.5).backward(EDGES, GRAD), GRAD * INSIDE)
    np.testing.assert_array_equal(Ternary(0.0).forward([-0.1, 0, 0.1]), [-1, 0, 1])


def test_twn_by_hand():
    # means 1 and 4, thresholds 0.7 and 2.8
    x = np.array([[0.5, -0.5, 2, -1], [2, -2, -9, 3], [0, 0, 0, 0]], F)
    t, alpha = TwnTernary().split(x)
    np.testing.assert_array_equal(t, [[0, 0, 1, -1], [0, 0, -1, 1], [0, 0, 0, 0]])
    np.testing.assert_array_equal(alpha, [[1.5], [6], [0]])
    np.testing.assert_array_equal(TwnTernary().forward(x), alpha * t)
    np.testing.assert_array_equal(TwnTernary().backward(EDGES, GRAD), GRAD * INSIDE)


def test_least_squares_ternary_is_the_best_step(rng):
    quantizer = LeastSquaresTernary()
    for shape in ((3, 40), (1, 1), (200,)):
        x = rng.normal(size=shape).astype(F)
        delta = quantizer.step(x)
        error = np.sum((x - quantizer.forward(x)) ** 2)
        for other in delta * np.linspace(0.05, 3, 200):
            levels = np.sign(x) * np.minimum(np.floor(np.abs(x) / other + 0.5), 1)
            assert error <= np.sum((x - other * levels) ** 2) + 1e-5
        levels = np.sign(x) * np.minimum(np.floor(np.abs(x) / delta + 0.5), 1)
        np.testing.assert_allclose(quantizer.forward(x), delta * levels, rtol=1e-6)
    np.testing.assert_array_equal(quantizer.forward(np.zeros((2, 3))), np.zeros((2, 3)))
    np.testing.assert_array_equal(quantizer.backward(EDGES, GRAD), GRAD)


def test_share_ternary_has_the_stated_share():
    x = np.array([0.1, -0.2, 0.3, -0.4, 0.5, -0.6], F)
    np.testing.assert_array_equal(ShareTernary(0.5).forward(x), [0, 0, 0, -1, 1, -1])
    np.testing.assert_array_equal(ShareTernary(0.34).forward(x), [0, 0, 1, -1, 1, -1])
    np.testing.assert_array_equal(ShareTernary(0.0).forward([0, -0.1, 0.1]), [0, -1, 1])
    np.testing.assert_array_equal(ShareTernary(0.5).backward(EDGES, GRAD), GRAD)


# ---- DoReFa ----------------------------------------------------------------------------------


def test_dorefa_weights_of_one_bit():
    x = np.array([[-3, 1], [0, -0.0]], F)
    np.testing.assert_array_equal(DoReFaWeight(1).forward(x), [[-1, 1], [1, 1]])
    np.testing.assert_array_equal(DoReFaWeight(1).backward(100 * EDGES, GRAD), GRAD)


@pytest.mark.parametrize("bits", [2, 3, 8])
def test_dorefa_weights_are_the_formula(bits, rng):
    x = rng.normal(size=(6, 50))
    t = np.tanh(x)
    levels = 2**bits - 1
    shares = t / (2 * np.abs(t).max()) + 0.5
    expected = 2 * np.round(shares * levels) / levels - 1
    got = DoReFaWeight(bits).forward(x)
    # float32 may round a share next to a half to the other side
    near_half = np.abs(shares * levels % 1 - 0.5) < 1e-4
    np.testing.assert_allclose(got[~near_half], expected[~near_half], atol=1e-6)
    assert np.abs(got).max() == 1
    zeros = np.zeros((2, 2))
    np.testing.assert_array_equal(DoReFaWeight(bits).forward(zeros), zeros)
    np.testing.assert_array_equal(DoReFaWeight(bits).backward(zeros, np.ones((2, 2))), zeros)


def test_dorefa_weight_gradient_matches_finite_differences(rng):
    x, grad = rng.normal(size=(2, 3, 4))

    def loss(v):  # Q as the identity
        t = np.tanh(v)
        return np.sum(grad * t / np.abs(t).max())

    got = DoReFaWeight(4).backward(x, grad)
    for index in np.ndindex(x.shape):
        up, down = x.copy(), x.copy()
        up[index] += 1e-6
        down[index] -= 1e-6
        assert got[index] == pytest.approx((loss(up) - loss(down)) / 2e-6, abs=1e-4)


def test_dorefa_activations():
    x = np.array([-1, -0.0, 0.16, 0.17, 0.5, 0.9, 1, 2], F)
    thirds = np.array([0, 0, 0, 1, 2, 3, 3, 3])
    np.testing.assert_allclose(DoReFaActivation(2).forward(x), thirds / 3, rtol=1e-6)
    np.testing.assert_allclose(DoReFaActivation(2, 6.0).forward(6 * x), 2 * thirds, rtol=1e-6)
    np.testing.assert_array_equal(DoReFaActivation(1).forward([0.4, 0.5, 0.6]), [0, 0, 1])
    passes = np.array([0, 0, 0, 0, 1, 1, 1, 1, 1, 0])
    np.testing.assert_array_equal(DoReFaActivation(3).backward(EDGES, GRAD), GRAD * passes)
    tiny = np.array([-1e-30, 0, 4, np.nextafter(F(4), F(5))], F)
    np.testing.assert_array_equal(DoReFaActivation(3, 4.0).backward(tiny, np.ones(4)), [0, 1, 1, 0])


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_dorefa_gradients_are_unbiased_and_on_the_grid(bits, rng):
    grad = rng.uniform(-1, 1, (3, 7)).astype(F)
    grad[2] = 0
    grad[1] /= 4
    grad[:2, 0] = [2, -0.5]  # the largest of their samples
    quantizer = DoReFaGradient(bits, seed=3)
    draws = np.stack([quantizer.backward(np.zeros((3, 7)), grad) for _ in range(4000)])
    most = np.array([2, 0.5, 0])[:, None]
    # at the ends of the range noise is cut off on one side
    inside = np.abs(grad) <= most * (1 - 1 / (2**bits - 1))
    width = 2 * 2 * most / (2**bits - 1)
    assert (np.abs(draws.mean(axis=0) - grad) <= 0.04 * width + 1e-7)[inside].all()
    assert (draws[:, 2] == 0).all()
    steps = (draws[:, :2] / (2 * most[:2]) + 0.5) * (2**bits - 1)
    np.testing.assert_allclose(steps, np.round(steps), atol=1e-4)
    assert steps.min() >= -1e-4 and steps.max() <= 2**bits - 1 + 1e-4
    again = DoReFaGradient(bits, seed=3)
    np.testing.assert_array_equal(again.backward(np.zeros((3, 7)), grad), draws[0])
    np.testing.assert_array_equal(quantizer.forward(EDGES), EDGES)


# ---- XNOR-Net --------------------------------------------------------------------------------


def test_xnor_weight_gradient_by_hand():
    # alpha = 1, n = 4; 1 passes in "chain" only, 1.5 in neither
    w = np.array([[0.5, -1.0, 1.5, -1.0]], F)
    g = np.array([[1.0, 2.0, 4.0, -1.0]], F)
    paper = g * (np.array([1, 0, 0, 0]) + 0.25)
    np.testing.assert_array_equal(xnor_weight_gradient(w, g), paper)
    total = 1 - 2 + 4 + 1
    chain = g * np.array([1, 1, 0, 1]) + np.array([1, -1, 1, -1]) * total / 4
    np.testing.assert_array_equal(xnor_weight_gradient(w, g, form="chain"), chain)
    for form, bare in (("paper", paper), ("chain", chain)):
        scaled = xnor_weight_gradient(w, g, form=form, released_scale=True)
        np.testing.assert_array_equal(scaled, bare * 0.75 * 4)


def test_xnor_chain_form_matches_finite_differences(rng):
    """Near W the sign is replaced by a function of slope 1, as straight-through assumes."""
    w = rng.uniform(0.1, 0.9, (3, 2, 2, 5)) * rng.choice([-1, 1], (3, 2, 2, 5))
    g = rng.normal(size=w.shape)
    sign = np.sign(w)

    def loss(v):
        alpha = np.abs(v).mean(axis=(1, 2, 3), keepdims=True)
        return np.sum(g * alpha * (sign + v - w))

    got = xnor_weight_gradient(w, g, form="chain")
    for index in [(0, 0, 0, 0), (1, 1, 0, 4), (2, 1, 1, 2)]:
        up, down = w.copy(), w.copy()
        up[index] += 1e-5
        down[index] -= 1e-5
        assert got[index] == pytest.approx((loss(up) - loss(down)) / 2e-5, abs=1e-5)


def test_xnor_weight_gradient_counts_zero_as_plus():
    w, g = np.array([[0.0, -0.0]], F), np.array([[1.0, 3.0]], F)
    np.testing.assert_array_equal(xnor_weight_gradient(w, g, form="chain"), [[2, 2]])
    np.testing.assert_array_equal(xnor_weight_gradient(w, g), [[0.5, 1.5]])


# ---- what all share --------------------------------------------------------------------------


@pytest.mark.parametrize("quantizer", ALL, ids=lambda q: type(q).__name__)
def test_inputs_stay_and_results_are_float32_of_their_shape(quantizer, rng):
    x, grad = rng.normal(size=(2, 3, 4))
    before = x.copy(), grad.copy()
    results = quantizer.forward(x), quantizer.backward(x, grad)
    for result in results:
        assert result.dtype == np.float32 and result.shape == (3, 4)
        assert not np.shares_memory(result, x) and not np.shares_memory(result, grad)
    np.testing.assert_array_equal((x, grad), before)
    with pytest.raises(FrozenInstanceError):
        quantizer.clip_value = 2.0


@pytest.mark.parametrize("value", (np.ones(1), True, "1", 1j), ids=repr)
@pytest.mark.parametrize(
    "make",
    (
        lambda value: SteSign(value),
        lambda value: SwishSign(value),
        lambda value: AnnealedSign(value, 5.0),
        lambda value: ClippedGradient(SteSign(), value),
        lambda value: LeastSquaresTernary(value),
        lambda value: ShareTernary(value),
        lambda value: DoReFaActivation(2, value),
        lambda value: layers.Sign(value),
        lambda value: layers.Dropout(value),
        lambda value: layers.BatchNorm(3, eps=value),
        lambda value: layers.BatchNorm(3, momentum=value),
        lambda value: layers.PackedQuantize(2, value),
        lambda value: layers.QuantizedDense(3, 2, Ternary(), clip_value=value),
        lambda value: layers.BinaryConv2D(3, 2, 1, scale_input=True, clip_value=value),
    ),
)
def test_settings_are_single_numbers(make, value):
    with pytest.raises(TypeError, match=r"^\[\w+\] \w+ must be a real number, got"):
        make(value)


@pytest.mark.parametrize("x", ([[10**400]], [["1"]], [[None]], [[1j]]), ids=str)
@pytest.mark.parametrize("quantizer", ALL[:-1], ids=lambda q: type(q).__name__)
def test_what_is_not_real_is_refused(quantizer, x):
    with pytest.raises(
        TypeError, match=rf"^\[{type(quantizer).__name__}\] x must hold real numbers"
    ):
        quantizer.forward(x)


@pytest.mark.parametrize("quantizer", ALL[:-1], ids=lambda q: type(q).__name__)
def test_nan_is_refused(quantizer):
    with pytest.raises(ValueError, match=rf"^\[{type(quantizer).__name__}\] x must not hold NaN"):
        quantizer.forward([[1.0, math.nan]])


@pytest.mark.parametrize(
    ("make", "error"),
    [
        *(
            (lambda kind=kind, value=value: kind(clip_value=value), ValueError)
            for kind in (SteSign, ApproxSign, MagnitudeAwareSign, StochasticSign, Heaviside)
            for value in (0.0, -1.0, math.nan)
        ),
        (lambda: ApproxSign(math.inf), ValueError),
        (lambda: StochasticSign(math.inf), ValueError),
        (lambda: Ternary(clip_value=0.0), ValueError),
        (lambda: TwnTernary(clip_value=0.0), ValueError),
        (lambda: SwishSign(0.0), ValueError),
        (lambda: SwishSign(math.inf), ValueError),
        (lambda: Ternary(-0.1), ValueError),
        (lambda: ShareTernary(1.0), ValueError),
        (lambda: ShareTernary(-0.1), ValueError),
        *((lambda kind=kind: kind(0), ValueError) for kind in (DoReFaWeight, DoReFaGradient)),
        (lambda: DoReFaActivation(17), ValueError),
        (lambda: DoReFaActivation(2.0), TypeError),
        (lambda: DoReFaActivation(True), TypeError),
        (lambda: DoReFaActivation(2, 0.0), ValueError),
        (lambda: DoReFaWeight(2).forward(np.zeros((0, 2))), ValueError),
        (lambda: LeastSquaresTernary().forward([]), ValueError),
        (lambda: MagnitudeAwareSign().forward([1.0]), ValueError),
        (lambda: TwnTernary().forward(np.zeros((2, 0))), ValueError),
        (lambda: DoReFaGradient(2).backward([1.0], [1.0]), ValueError),
        (lambda: xnor_weight_gradient([[1.0]], [1.0]), ValueError),
        (lambda: xnor_weight_gradient([1.0], [1.0]), ValueError),
        (lambda: xnor_weight_gradient([[1.0]], [[1.0]], form="other"), ValueError),
        (lambda: xnor_weight_gradient([[math.nan]], [[1.0]]), ValueError),
    ],
)
def test_bad_settings_and_input(make, error):
    with pytest.raises(error, match=r"^\[\w+\] .*, (got|which)"):
        make()


def test_ternary_of_a_given_step():
    x = [0.2, -0.3, 0.49, 0.5, -0.5, 3.0]
    quantizer = LeastSquaresTernary(1.0)
    np.testing.assert_array_equal(quantizer.forward(x), [0, 0, 0, 1, -1, 1])
    t, delta = LeastSquaresTernary(0.5).split(x)
    np.testing.assert_array_equal(t, [0, -1, 1, 1, -1, 1])
    assert delta == 0.5
    with pytest.raises(ValueError, match=r"\[LeastSquaresTernary\] delta"):
        LeastSquaresTernary(-1.0)


@pytest.mark.parametrize("quantizer", (Ternary(0.1), TwnTernary(), LeastSquaresTernary()))
def test_split_is_values_and_scale(quantizer):
    x = np.random.default_rng(0).standard_normal((5, 40), np.float32)
    t, scale = quantizer.split(x)
    assert set(np.unique(t)) == {-1, 0, 1}
    np.testing.assert_array_equal(scale * t, quantizer.forward(x))


def test_codes_are_the_levels():
    x = np.random.default_rng(1).standard_normal(200).astype(np.float32)
    for bits in (2, 5):
        codes = DoReFaWeight(bits).codes(x)
        assert codes.min() == 0 and codes.max() == 2**bits - 1
        np.testing.assert_allclose(
            2 * codes / (2**bits - 1) - 1, DoReFaWeight(bits).forward(x), atol=1e-6
        )
    for quantizer in (Heaviside(), DoReFaActivation(3, 0.5)):
        codes = quantizer.codes(x)
        assert codes.dtype == np.uint8 and codes.max() == 2**quantizer.bits - 1
        np.testing.assert_allclose(codes * quantizer.step, quantizer.forward(x), atol=1e-6)
