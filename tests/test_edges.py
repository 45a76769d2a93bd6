"""Numerical edges: sizes at the end of int32 and beyond memory, odd floats, inexact integers."""

import itertools

import numpy as np
import pytest
from numpy.testing import assert_array_equal

import bitops as bo
from bitops import reference as ref
from bitops.layers import (
    BatchNorm,
    BinaryConv2D,
    BinaryDense,
    Flatten,
    GlobalAvgPool2D,
    MaxPool2D,
    Residual,
    Sequential,
    ShiftBatchNorm,
    Sign,
    fold,
)
from conftest import random_signs

MAX_BITS = 2**31 - 1
TINY = np.float32(1e-45)  # the smallest subnormal
ODD = np.array([0.0, -0.0, TINY, -TINY, 1e-39, -3e38, 3e38, np.inf, -np.inf, 1.5], np.float32)


def bits_of(shape):
    """Zero bits of a shape; they take next to no memory."""
    words = np.broadcast_to(np.uint64(0), (*shape[:-1], -(-shape[-1] // 64)))
    return bo.BitArray.from_words(words, shape)


# ---- sizes ---------------------------------------------------------------------------------------


def test_the_largest_k_is_exact():
    """Rows that differ in all of 2^31 - 1 bits: the one allocation of 256 MiB in this file."""
    zeros = np.zeros((1, 2**25), np.uint64)  # pages that are only read take no memory
    ones = np.full((1, 2**25), ~np.uint64(0))
    ones[0, -1] >>= np.uint64(1)
    a, b = (bo.BitArray.from_words(words, (1, MAX_BITS)) for words in (zeros, ones))
    assert bo.gemm(a, a) == MAX_BITS
    assert bo.gemm(a, b) == -MAX_BITS
    assert bo.hamming(a, b) == MAX_BITS
    assert bo.hamming_topk(a, b, 1)[0] == MAX_BITS
    assert bo.popcount(b) == bo.popcount(b, 1) == MAX_BITS
    thresholds = [(-MAX_BITS - 1, 1), (-MAX_BITS, 0), (2**31, 0)]
    for threshold, bit in thresholds:
        assert bo.gemm_sign(a, b, threshold).words[0, 0] == bit


@pytest.mark.parametrize("k", (2**31, 2**32, 2**40, 2**62))
def test_more_bits_than_int32_counts_are_refused(k):
    """Before anything is allocated, also where one operand is empty."""
    a, none = bits_of((1, k)), bits_of((0, k))
    calls = (
        lambda: bo.gemm(a, a),
        lambda: bo.gemm(none, none, alpha=1),
        lambda: bo.gemm_sign(none, a, 0),
        lambda: bo.hamming(none, a),
        lambda: bo.hamming_topk(none, a, 1),
        lambda: bo.matmul(none, bits_of((k, 0)) if k < 2**32 else bits_of((0, k)).T),
        lambda: bo.conv2d(bits_of((0, 1, 1, k)), bits_of((1, 1, 1, k))),
        lambda: bo.conv2d_sign(bits_of((0, 1, 1, k)), bits_of((1, 1, 1, k)), 0),
    )
    for call in calls:
        with pytest.raises(ValueError, match=rf"^\[\w+\] .*at most {MAX_BITS}"):
            call()


def test_filters_of_many_taps_are_refused():
    """No axis is long, but their product is."""
    x = bits_of((1, 2**10, 2**10, 2**11))
    with pytest.raises(ValueError, match=rf"^\[conv2d\] filters must have at most {MAX_BITS} bits"):
        bo.conv2d(x, bits_of((1, 2**10, 2**10, 2**11)))


@pytest.mark.parametrize("k", (MAX_BITS // 255 + 1, 2**24))
def test_sums_of_bytes_beyond_int32_are_refused(k):
    x = np.broadcast_to(np.uint8(255), (1, 1, 1, k))
    rule = rf"k must be at most {MAX_BITS // 255} for int32 sums, got {k}"
    with pytest.raises(ValueError, match=rf"^\[bitplane_gemm\] {rule}"):
        bo.bitplane_gemm(x[0, 0], bits_of((1, k)))
    with pytest.raises(ValueError, match=rf"^\[bitplane_conv2d\] {rule}"):
        bo.bitplane_conv2d(x, bits_of((1, 1, 1, k)))


def test_the_largest_sum_of_bytes_is_exact():
    k = MAX_BITS // 255
    x = np.full((1, k), 255, np.uint8)
    ones = bo.pack(np.ones((1, k), np.bool_))
    assert bo.bitplane_gemm(x, ones) == 255 * k
    assert bo.bitplane_gemm(x, bits_of((1, k))) == -255 * k


@pytest.mark.parametrize(
    ("left", "right"),
    (
        ((2**32, 0), (2**32, 0)),
        ((2**40, 0), (2**40, 0)),
        ((0, 2**40, 0), (2**40, 0)),  # no element, but axes that NumPy refuses
        ((2**30, 0, 0), (2**31, 0)),
    ),
)
def test_results_whose_size_overflows_are_refused(left, right):
    a, w = bits_of(left), bits_of(right)
    for call in (bo.gemm, bo.hamming, lambda a, w: bo.gemm_sign(a, w, 0)):
        with pytest.raises(ValueError, match=r"^\[\w+\] the result must have at most"):
            call(a, w)


def test_images_whose_size_overflows_are_refused():
    for shape in ((2**40, 1, 1, 0), (0, 1, 2**30, 0)):
        with pytest.raises(ValueError, match=r"^\[conv2d\] the result must have at most"):
            bo.conv2d(bits_of(shape), bits_of((2**30, 1, 1, 0)))
    with pytest.raises(ValueError, match=r"^\[max_pool2d\] the result must have at most"):
        bo.max_pool2d(bits_of((2**30, 1, 1, 2**30)), 1)


# ---- floats --------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", (np.float16, np.float32, np.float64, np.longdouble))
def test_signs_of_odd_floats(isa, dtype):
    """-0.0 is +1, and the smallest subnormals have the sign that they show."""
    info = np.finfo(dtype)
    least = info.smallest_subnormal
    x = np.array([0.0, -0.0, least, -least, info.tiny, -info.tiny, np.inf, -np.inf], dtype)
    want = np.array([1, 1, 1, -1, 1, -1, 1, -1], np.int8)
    assert_array_equal(bo.unpack(bo.pack(np.tile(x, 20))), np.tile(want, 20))
    assert_array_equal(bo.gemm(x[None], want[None]), [[8]])


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # NumPy's, in the reference
def test_odd_floats_in_products(isa, rng):
    """Subnormals are not flushed, infinities and NaN as float32 arithmetic makes them."""
    x = rng.choice(ODD, (7, 70))
    tiny = rng.choice(np.float32([1e-44, -3e-45, 1e-40]), (7, 70))
    w = random_signs(rng, 9, 70)
    scales = {"alpha": rng.choice(ODD, 9), "bias": rng.choice(ODD, 9)}
    for numbers in (x, tiny):
        assert_array_equal(bo.weight_gemm(numbers, w), ref.weight_gemm(numbers, w))
        assert_array_equal(
            bo.weight_gemm(numbers, w, **scales), ref.weight_gemm(numbers, w, **scales)
        )
        images, filters = numbers.reshape(1, 7, 10, 7), w[:, :63].reshape(9, 3, 3, 7)
        assert_array_equal(
            bo.weight_conv2d(images, filters, padding=1),
            ref.weight_conv2d(images, filters, padding=1),
        )
        assert_array_equal(bo.k_map(images, 3, padding=1), ref.k_map(images, 3, padding=1))
        assert_array_equal(bo.avg_pool2d(images, 2), ref.avg_pool2d(images, 2))
    a = random_signs(rng, 7, 70)
    factors = {**scales, "k_map": rng.choice(ODD, 7)}
    for names in itertools.chain(*(itertools.combinations(factors, n) for n in (1, 2, 3))):
        chosen = {name: factors[name] for name in names}
        got, wanted = bo.gemm(a, w, **chosen), ref.gemm(a, w, **chosen)
        assert_array_equal(got, wanted)
        sure = ~np.isnan(wanted)
        assert_array_equal(np.signbit(got)[sure], np.signbit(wanted)[sure])


def test_alpha_of_zero(isa, rng):
    """Scores are the bias; a zero keeps the sign of the product."""
    a, w = random_signs(rng, 5, 33), random_signs(rng, 6, 33)
    zeros = bo.gemm(a, w, alpha=0.0)
    assert not zeros.any()
    assert_array_equal(np.signbit(zeros), bo.gemm(a, w) < 0)
    bias = np.arange(6, dtype=np.float32)
    assert_array_equal(bo.gemm(a, w, alpha=np.zeros(6), bias=bias), np.tile(bias, (5, 1)))


def test_filters_of_zeros_have_alpha_zero():
    bits, alpha = bo.binarize_weights(np.array([[0.0, -0.0, 0.0], [TINY, -TINY, TINY]]))
    assert_array_equal(alpha, np.float32([0, TINY]))
    assert_array_equal(np.asarray(bits), [[1, 1, 1], [1, -1, 1]])


# ---- frozen networks -----------------------------------------------------------------------------


def assert_same(model, x):
    """The packed network gives the scores or bits of the training graph."""
    packed, wanted = model.freeze()(x), model(x)
    if isinstance(wanted, bo.BitArray):
        assert packed == wanted
    else:
        assert_array_equal(np.asarray(packed), np.asarray(wanted))


GAMMAS = np.float32([0.0, -0.0, TINY, -TINY, 1e-38, -1e-30, 1.0, -1.0, 1e18, -3e38])
BETAS = np.float32([0.0, -0.0, TINY, -TINY, 0.5, -0.5, 1e-38, 3e38, -3e38])
INV_STDS = np.float32([100.0, 1.0, TINY, 1e-30, 1e18])  # 100 is that of no variance, eps = 1e-4


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # overflows to infinity, in training too
@pytest.mark.parametrize("kind", (BatchNorm, ShiftBatchNorm))
@pytest.mark.parametrize("k", (1, 8, 65))
@pytest.mark.parametrize("is_real", (False, True))
def test_batch_norms_of_odd_parameters(kind, k, is_real, rng):
    """Thresholds decide as the training graph, whose products over- and underflow."""
    parameters = np.array(list(itertools.product(GAMMAS, BETAS, INV_STDS, (0.0, 1.0, -3.0))))
    gamma, beta, inv_std, mean = parameters.astype(np.float32).T
    filters = len(gamma)
    model = Sequential(BinaryDense(k, filters, seed=1), kind(filters), Sign())
    norm = model.layers[1]
    norm.beta.assign(beta)
    norm.running_mean[...], norm.running_inv_std[...] = mean, inv_std
    norm.gamma.assign(gamma)
    overflown = ~np.isfinite(norm.affine()).all(axis=0)
    norm.gamma.assign(np.where(overflown, 1, gamma))
    norm.running_inv_std[overflown] = 1
    x = rng.standard_normal((40, k)).astype(np.float32)
    assert_same(model, x if is_real else bo.pack(x))


def test_batch_norm_of_no_variance():
    """Training on equal rows: variance 0, which eps keeps from dividing."""
    model = Sequential(BinaryDense(9, 5, seed=0), BatchNorm(5), Sign())
    x = np.ones((20, 9), np.float32)
    for _ in range(3):
        model.forward(x, training=True)
    assert_array_equal(model.layers[1].running_inv_std, np.full(5, 100, np.float32))
    assert_same(model, x)
    assert_same(model, random_signs(np.random.default_rng(0), 30, 9).astype(np.float32))


@pytest.mark.parametrize("value", (np.nan, np.inf, -np.inf))
@pytest.mark.parametrize("end", ([Sign()], []))
def test_parameters_that_are_no_numbers_are_refused(value, end):
    model = Sequential(BinaryDense(8, 3, seed=0), BatchNorm(3), *end)
    model.layers[1].running_mean[1] = value
    with pytest.raises(ValueError, match=r"^\[freeze\] .* finite, got"):
        model.freeze()


def test_fold_refuses_what_is_no_number_at_zero():
    with pytest.raises(ValueError, match=r"^\[fold\] .*got nan"):
        fold(lambda z: z * np.float32(np.nan), 2, 3)


K = 67_001  # 255 of them exceed 2^24


def bright(rows, rng):
    """Rows of large bytes whose sums are odd now and then, beyond what float32 holds."""
    return rng.integers(254, 256, (rows, K), dtype=np.uint8)


def ones(*shape):
    layer = BinaryDense(*shape, seed=0)
    layer.weight.assign(np.ones(shape[::-1]))
    return layer


def test_sums_beyond_float32_are_rounded_as_in_training(rng):
    """Alone, in residual blocks, and in blocks of blocks."""
    x = bright(20, rng)
    assert (bo.bitplane_gemm(x, np.ones((1, K))) > 2**24).all()
    assert_same(Sequential(ones(K, 3)), x)
    assert_same(Sequential(Residual(ones(K, 3), BinaryDense(K, 3, seed=1))), x)
    block = Residual(ones(K, 3), Residual(ones(K, 3), ones(K, 3)))
    assert_same(Sequential(block), x)
    assert_same(Sequential(block, BatchNorm(3)), x)
    norm = BatchNorm(3)
    norm.running_mean[...] = block(x)[:3, 0]
    assert_same(Sequential(block, norm, Sign()), x)


def test_image_sums_beyond_float32_are_rounded_as_in_training(rng):
    x = bright(2 * 4 * 4, rng)[:, :66_000].reshape(2, 4, 4, 66_000)
    product = BinaryConv2D(66_000, 2, 1, seed=0)
    product.weight.assign(np.ones(product.weight.shape))
    assert (product(x) > 2**24).all()
    for rest in ([], [GlobalAvgPool2D()], [MaxPool2D(2)], [Flatten(), ones(32, 2)]):
        assert_same(Sequential(product, *rest), x)


def test_residual_sums_do_not_overflow_int32():
    k = 2**23
    x = np.full((1, k), 255, np.uint8)
    block = Residual(ones(k, 1), ones(k, 1))
    assert block(x) == 2 * 255 * k
    assert_same(Sequential(block), x)
