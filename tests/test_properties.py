"""Laws that hold for all inputs, searched by hypothesis."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.testing import assert_array_equal

import bitops as bo

SIZES = st.integers(0, 40)
BITS = st.one_of(
    st.integers(0, 140), st.sampled_from((191, 192, 193, 255, 256, 257, 511, 512, 513))
)
SEEDS = st.integers(0, 2**32 - 1)
REAL_DTYPES = st.one_of(
    hnp.boolean_dtypes(),
    hnp.integer_dtypes(endianness="?"),
    hnp.floating_dtypes(endianness="?"),
)


@st.composite
def real_arrays(draw):
    """An array of any real dtype without NaN, with any strides."""
    dtype = draw(REAL_DTYPES)
    shape = draw(hnp.array_shapes(min_dims=1, max_dims=4, min_side=0, max_side=70))
    shape = shape if np.prod(shape) < 20000 else shape[:2]
    elements = hnp.from_dtype(dtype, allow_nan=False)
    x = draw(hnp.arrays(dtype, shape, elements=elements, fill=elements))
    index = hnp.basic_indices(shape, min_dims=1, allow_ellipsis=False)
    return draw(st.one_of(st.just(x), index.map(x.__getitem__), st.just(x.T)))


def sign_matrix(seed, *shape):
    """Seeded +-1 values: shrinking works on shapes, not on thousands of bits."""
    return np.random.default_rng(seed).integers(0, 2, shape, np.int8) * np.int8(2) - np.int8(1)


@given(x=real_arrays(), data=st.data())
def test_unpack_inverts_pack(isa, x, data):
    axis = data.draw(st.integers(-x.ndim, x.ndim - 1))
    want = np.where(x if x.dtype == np.bool_ else x >= 0, 1, -1).astype(np.int8)
    b = bo.pack(x, axis)
    assert_array_equal(bo.unpack(b), want, strict=True)
    assert bo.pack(want, axis) == b
    assert bo.popcount(b) == np.count_nonzero(want > 0)


@given(shape=hnp.array_shapes(min_dims=2, max_dims=4, min_side=1, max_side=9), data=st.data())
def test_indexing_commutes_with_unpack(shape, data):
    shape = (*shape, data.draw(BITS))
    x = sign_matrix(0, *shape)
    key = data.draw(hnp.basic_indices(shape[:-1], allow_newaxis=False, allow_ellipsis=False))
    b = bo.pack(x)[key]
    assert_array_equal(np.asarray(b), x[key])
    assert b == bo.pack(x[key])
    assert_array_equal(np.asarray(b.T), x[key].T)


@given(m=SIZES, n=SIZES, k=BITS, seed=SEEDS)
def test_transposed_product(isa, m, n, k, seed):
    a, w = bo.pack(sign_matrix(seed, m, k)), bo.pack(sign_matrix(seed + 1, n, k))
    assert_array_equal(bo.gemm(a, w), bo.gemm(w, a).T)
    assert_array_equal(bo.hamming(a, w), bo.hamming(w, a).T)


@given(m=SIZES, n=SIZES, k1=BITS, k2=BITS, seed=SEEDS)
def test_splits_of_k_add(isa, m, n, k1, k2, seed):
    a, w = sign_matrix(seed, m, k1 + k2), sign_matrix(seed + 1, n, k1 + k2)
    parts = bo.gemm(a[:, :k1], w[:, :k1]) + bo.gemm(a[:, k1:], w[:, k1:])
    assert_array_equal(bo.gemm(a, w), parts)


@given(m=SIZES, n=SIZES, k=BITS, seed=SEEDS)
def test_gemm_and_hamming(isa, m, n, k, seed):
    a, w = bo.pack(sign_matrix(seed, m, k)), bo.pack(sign_matrix(seed + 1, n, k))
    dot = bo.gemm(a, w)
    assert_array_equal(dot, k - 2 * bo.hamming(a, w))
    assert_array_equal(bo.hamming(a, w, dtype=np.uint16), bo.hamming(a, w))
    assert_array_equal(bo.gemm(a, bo.prepack(w)), dot)
    assert_array_equal(np.diagonal(bo.gemm(a, a)), np.full(m, k))


@given(m=SIZES, n=SIZES, k=BITS, seed=SEEDS, shift=st.integers(-200, 200))
def test_thresholds(isa, m, n, k, seed, shift):
    a, w = sign_matrix(seed, m, k), sign_matrix(seed + 1, n, k)
    threshold = np.random.default_rng(seed).integers(-20, 21, n) + shift
    above = bo.gemm(a, w) > threshold
    assert bo.gemm_sign(a, w, threshold) == bo.pack(above)
    assert bo.gemm_sign(a, w, threshold, flip=True) == bo.pack(~above)
    # dot > t is -dot < -t, that is, not (-dot > -t - 1).
    assert bo.gemm_sign(a, -w, -threshold - 1, flip=np.ones(n, np.bool_)) == bo.pack(above)


@given(
    shapes=hnp.mutually_broadcastable_shapes(
        signature=np.matmul.signature, max_dims=2, min_side=0, max_side=5
    ),
    k=BITS,
    seed=SEEDS,
    data=st.data(),
)
def test_matmul_is_numpys(isa, shapes, k, seed, data):
    """Broadcasting of leading axes and 1-D operands, whatever axis is packed."""
    left, right = shapes.input_shapes
    left = (*left[:-1], k)
    right = (*right[:-2], k, right[-1]) if len(right) > 1 else (k,)
    a, b = sign_matrix(seed, *left), sign_matrix(seed + 1, *right)
    want = np.matmul(a.astype(np.int32), b.astype(np.int32))
    pa = bo.pack(a, data.draw(st.integers(-a.ndim, -1)))
    pb = bo.pack(b, data.draw(st.integers(-b.ndim, -1)))
    assert_array_equal(bo.matmul(pa, pb), want, strict=True)
    assert_array_equal(bo.matmul(a, b), want, strict=True)
