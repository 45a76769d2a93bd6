"""gemm, gemm_sign, hamming, matmul and prepack against the reference, on every ISA."""

import functools
import itertools

import numpy as np
import pytest
from numpy.testing import assert_array_equal

import bitops as bo
from bitops import reference as ref
from conftest import EDGE_BITS, EDGE_ROWS, SEED, random_shapes, random_signs
from products import INT32_MAX, assert_same_bits, check_case, make_case, scales


@functools.cache
def random_cases():
    """Computed once for all ISAs and numbers of threads."""
    rng = np.random.default_rng(SEED)
    return [make_case(rng, *shape) for shape in random_shapes(rng, 400)]


def test_random_shapes(isa, threads):
    for case in random_cases():
        try:
            check_case(case)
        except AssertionError as error:
            raise AssertionError(f"a {case.a.shape}, w {case.w.shape}: {error}") from error


@pytest.mark.parametrize("k", (0, 1, 63, 64, 65, 128, 192, 300, 513))
def test_every_m_and_n(isa, rng, k):
    """Every m and n in 0..70: each result is a corner of the largest one."""
    a, w = random_signs(rng, 70, k), random_signs(rng, 70, k)
    pa, pw = bo.pack(a), bo.pack(w)
    want = ref.gemm(a, w)
    for n in range(71):
        columns, panels = pw[:n], bo.prepack(pw[:n])
        for m in range(71):
            assert np.array_equal(bo.gemm(pa[:m], columns), want[:m, :n]), (m, n)
            assert np.array_equal(bo.gemm(pa[:m], panels), want[:m, :n]), (m, n)


@pytest.mark.parametrize("k", (64, 192, 200, 449))
def test_every_n_of_wide_panels(isa, rng, k):
    a, w = random_signs(rng, 51, k), random_signs(rng, 270, k)
    pa, pw = bo.pack(a), bo.pack(w)
    want = ref.gemm(a, w)
    for n in range(60, 271):
        columns, panels = pw[:n], bo.prepack(pw[:n])
        for m in (2, 3, 17, 47, 48, 51):
            assert np.array_equal(bo.gemm(pa[:m], columns), want[:m, :n]), (m, n)
            assert np.array_equal(bo.gemm(pa[:m], panels), want[:m, :n]), (m, n)


@pytest.mark.parametrize("k", (65, 300))
def test_every_store_at_tile_edges(isa, rng, k):
    a, w = random_signs(rng, 70, k), random_signs(rng, 70, k)
    pa, pw = bo.pack(a), bo.pack(w)
    factors = scales(rng, 70, 70)
    threshold = rng.integers(-9, 10, 70)
    scaled = ref.gemm(a, w, **factors)
    above = ref.gemm_sign(a, w, threshold)
    mismatch = ref.hamming(a, w)
    for n in EDGE_ROWS:
        want_words = ref.pack(above[:, :n])
        for m in EDGE_ROWS:
            part = {name: s[: m if name == "k_map" else n] for name, s in factors.items()}
            for weights in (pw[:n], bo.prepack(pw[:n])):
                assert_same_bits(bo.gemm(pa[:m], weights, **part), scaled[:m, :n])
                got = bo.gemm_sign(pa[:m], weights, threshold[:n]).words
                assert np.array_equal(got, want_words[:m]), (m, n)
                assert np.array_equal(bo.hamming(pa[:m], weights), mismatch[:m, :n]), (m, n)
                got = bo.hamming(pa[:m], weights, dtype=np.uint16)
                assert np.array_equal(got, mismatch[:m, :n]), (m, n)


@pytest.mark.parametrize("k", (1, 64, 65, 128, 191, 192, 256, 257, 449, 512, 513))
def test_every_store_of_short_rows(isa, rng, k):
    """Rows of one to nine words, with columns that end anywhere in a vector and in a panel."""
    m, n = 96, 137
    a, w = random_signs(rng, m, k), random_signs(rng, n, k)
    pa, pw = bo.pack(a), bo.pack(w)
    factors = scales(rng, m, n)
    threshold = rng.integers(-9, 10, n)
    flip = rng.integers(0, 2, n).astype(np.bool_)
    want = ref.gemm(a, w)
    scaled = ref.gemm(a, w, **factors)
    above = ref.gemm_sign(a, w, threshold, flip=flip)
    mismatch = ref.hamming(a, w)
    for columns in (*range(1, 20), 31, 32, 33, 63, 64, 65, 127, 128, 129, 130, n):
        for rows in (1, 2, 3, 40, 47, 48, 94, 95, m):
            part = {name: s[: rows if name == "k_map" else columns] for name, s in factors.items()}
            left = pa[:rows]
            for right in (pw[:columns], bo.prepack(pw[:columns])):
                assert np.array_equal(bo.gemm(left, right), want[:rows, :columns])
                assert_same_bits(bo.gemm(left, right, **part), scaled[:rows, :columns])
                got = bo.gemm_sign(left, right, threshold[:columns], flip=flip[:columns])
                assert np.array_equal(got.words, ref.pack(above[:rows, :columns]))
                for dtype in (np.int32, np.uint16):
                    got = bo.hamming(left, right, dtype=dtype)
                    assert np.array_equal(got, mismatch[:rows, :columns])


@pytest.mark.parametrize("m, n", ((1, 1), (1, 70), (5, 17), (70, 3), (33, 33)))
def test_every_k(isa, rng, m, n):
    ks = sorted({*range(301), *EDGE_BITS})
    a, w = random_signs(rng, m, ks[-1]), random_signs(rng, n, ks[-1])
    for k in ks:
        pa, pw = bo.pack(a[:, :k]), bo.pack(w[:, :k])
        want = ref.gemm(a[:, :k], w[:, :k])
        assert np.array_equal(bo.gemm(pa, pw), want), k
        assert np.array_equal(bo.gemm(pa, bo.prepack(pw)), want), k


@pytest.mark.parametrize(
    "m, n, k",
    (
        *((1, 5000, 700), (2, 3001, 64), (2000, 3, 300), (129, 1025, 520), (513, 700, 65)),
        *(
            (300, 257, 5000),
            (70, 2100, 1030),
            (1400, 130, 200),
            (1031, 70, 2050),
            (5, 9, 33000),
            (257, 1, 4097),
        ),
    ),
)
def test_blocks_and_threads(isa, threads, m, n, k):
    """Sizes beyond the cache blocks, with enough work for more than one thread."""
    check_case(large_case(m, n, k))


@functools.cache
def large_case(m, n, k):
    return make_case(np.random.default_rng(SEED), m, n, k)


@pytest.mark.parametrize("n", (1, 8, 9, 16, 17, 32, 33))
def test_few_columns_of_long_rows(isa, threads, n):
    """Few rows of weights are read as they lie, and rows of a shared out."""
    for m, k in ((13, 2049), (301, 2112), (40, 65_000)):
        check_case(large_case(m, n, k))


@pytest.mark.parametrize("m, n", ((1, 1), (1, 40), (9, 33), (17, 33), (48, 65), (50, 130)))
def test_counters_do_not_overflow(isa, m, n):
    """All ones against all zeros, at every number of words near a narrow counter's end."""
    words = (*range(1, 70), 85, 86, 127, 128, 129, 255, 256, 257, 511, 512, 513, 1023, 1024, 1025)
    for k in (*(64 * w for w in words), 8191, 65535, 65536, 65537, 70001, 131071, 131073, 200000):
        ones, zeros = bo.pack(np.ones((m, k), np.int8)), bo.pack(-np.ones((n, k), np.int8))
        same = bo.pack(np.ones((n, k), np.int8))
        for other, dot in ((zeros, -k), (same, k)):
            for weights in (other, bo.prepack(other)):
                assert np.array_equal(bo.gemm(ones, weights), np.full((m, n), dot)), k
                mismatch = np.full((m, n), (k - dot) // 2)
                assert np.array_equal(bo.hamming(ones, weights), mismatch), k
                if k <= 65535:
                    got = bo.hamming(ones, weights, dtype=np.uint16)
                    assert np.array_equal(got, mismatch), k
                else:
                    with pytest.raises(ValueError, match=r"^\[hamming\] .*65535"):
                        bo.hamming(ones, weights, dtype=np.uint16)


@pytest.mark.parametrize("run", (1, 2, 32, 64))
@pytest.mark.parametrize("m", (2, 5, 48))
def test_full_counters_beside_empty_ones(isa, m, run):
    """Counters that share a lane: a full one does not spill into the next, in any order."""
    n = 130
    ones = np.arange(n) // run % 2 == 1
    rows = np.arange(m) % 2 == 1
    for words in (*range(1, 14), 63, 64, 65, 256, 257, 1025):
        k = 64 * words
        a, w = (bo.pack(np.repeat(x[:, None], k, axis=1)) for x in (rows, ones))
        want = np.where(rows[:, None] == ones, np.int32(k), np.int32(-k))
        assert_array_equal(bo.gemm(a, w), want)
        assert_array_equal(bo.gemm(a, bo.prepack(w)), want)


@pytest.mark.parametrize("k", (65535, 65536, 65537, 70001, 200000))
def test_large_k(isa, threads, rng, k):
    check = np.uint16 if k <= 65535 else np.int32
    for m, n in ((1, 3), (4, 2), (7, 19)):
        a, w = random_signs(rng, m, k), random_signs(rng, n, k)
        for weights in (bo.pack(w), bo.prepack(w)):
            assert_array_equal(bo.gemm(bo.pack(a), weights), ref.gemm(a, w), strict=True)
            assert_array_equal(bo.hamming(a, weights, dtype=check), ref.hamming(a, w), strict=False)
            got = bo.gemm_sign(a, weights, 100)
            assert_array_equal(np.asarray(got), ref.gemm_sign(a, w, 100))


def test_real_operands(isa, rng):
    """Operands of any real type are packed by their signs."""
    x, y = rng.standard_normal((5, 70)), rng.standard_normal((9, 70))
    x[0, 3], y[1, 69] = 0.0, -0.0
    want = ref.gemm(x, y)
    for dtype in (np.float16, np.float32, np.float64, np.longdouble):
        assert_array_equal(bo.gemm(x.astype(dtype), y.astype(dtype)), want)
    assert_array_equal(bo.gemm(x, bo.pack(y)), want)
    assert_array_equal(bo.gemm(bo.pack(x), y), want)
    assert_array_equal(bo.gemm(x.tolist(), y.tolist()), want)
    assert_array_equal(bo.gemm(x >= 0, y >= 0), want)
    assert_array_equal(bo.gemm(np.asfortranarray(x), y[::-1]), want[:, ::-1])
    assert_array_equal(bo.gemm(x, bo.prepack(y)), want)


def test_strided_operands(isa, rng):
    """Rows of a BitArray may lie anywhere in memory."""
    a, w = random_signs(rng, 40, 333), random_signs(rng, 36, 333)
    pa, pw = bo.pack(a), bo.pack(w)
    fortran = bo.BitArray.from_words(np.asfortranarray(pw.words), w.shape)
    for key in (np.s_[::2], np.s_[::-1], np.s_[5:6], np.s_[30:2:-3], np.s_[[7, 7, 0]]):
        for other, plain in ((pw, w), (pw[::-3], w[::-3]), (fortran, w), (fortran[2::5], w[2::5])):
            want = ref.gemm(a[key], plain)
            assert_array_equal(bo.gemm(pa[key], other), want)
            assert_array_equal(bo.gemm(pa[key], bo.prepack(other)), want)
            assert_array_equal(bo.hamming(other, pa[key]), ref.hamming(plain, a[key]))


def test_inputs_are_unchanged(isa, threads, rng):
    a, w, x = random_signs(rng, 33, 200), random_signs(rng, 47, 200), rng.standard_normal((33, 200))
    factors = scales(rng, 33, 47)
    threshold, flip = np.arange(47), np.arange(47) % 2 == 0
    pa, pw, panels = bo.pack(a), bo.pack(w), bo.prepack(w)
    everything = (a, w, x, *factors.values(), threshold, flip, pa.words, pw.words)
    before = [value.tobytes() for value in everything]
    for left in (pa, x, a):
        for right in (pw, w, panels):
            bo.gemm(left, right)
            bo.gemm(left, right, **factors)
            bo.gemm_sign(left, right, threshold, flip=flip)
            bo.hamming(left, right)
    bo.matmul(pa, pw.T)
    bo.matmul(x, w.T)
    assert before == [value.tobytes() for value in everything]


class TestScaled:
    NAMES = ("alpha", "k_map", "bias")

    @pytest.mark.parametrize("use", [u for u in itertools.product((0, 1, 2), repeat=3) if any(u)])
    def test_every_combination(self, isa, rng, use):
        """Each factor absent, scalar or vector."""
        for m, n, k in ((1, 1, 3), (1, 37, 64), (5, 70, 129), (67, 33, 300)):
            a, w = random_signs(rng, m, k), random_signs(rng, n, k)
            factors = {
                name: values if kind == 2 else float(rng.standard_normal())
                for (name, values), kind in zip(scales(rng, m, n).items(), use, strict=True)
                if kind
            }
            want = ref.gemm(a, w, **factors)
            for weights in (bo.pack(w), bo.prepack(w)):
                assert_same_bits(bo.gemm(bo.pack(a), weights, **factors), want)

    def test_no_fused_multiply_add(self, isa):
        """3 * (1 + 2**-23) - 3 is 2**-21 when the product is rounded, 3 * 2**-23 when it is not."""
        alpha = np.float32(1) + np.float32(2.0**-23)
        for m, n in ((1, 1), (1, 16), (4, 16), (9, 40)):
            a, w = np.ones((m, 3)), np.ones((n, 3))
            for kwargs in ({"alpha": alpha}, {"k_map": alpha}):
                for weights in (w, bo.prepack(w)):
                    got = bo.gemm(a, weights, bias=np.float32(-3), **kwargs)
                    assert_array_equal(got, np.full((m, n), 2.0**-21, np.float32), strict=True)

    def test_order_of_the_factors(self, isa):
        # 5 * 1e38 overflows before 1e-38 could bring it back; the other way round it would not.
        a, w = np.ones((3, 5)), np.ones((20, 5))
        for weights in (w, bo.prepack(w)):
            assert np.isinf(bo.gemm(a, weights, alpha=1e38, k_map=1e-38)).all()
            assert np.isfinite(bo.gemm(a, weights, alpha=1e-38, k_map=1e38)).all()

    def test_special_values(self, isa, rng):
        """Infinities, subnormals, zeros of both signs and NaN go through as in NumPy."""
        pool = [0.0, -0.0, np.inf, -np.inf, np.nan, 1e-45, -3e-39, 3.4e38, 1.0, -1.0]
        for m, n, k in ((1, 20, 7), (23, 50, 66)):
            a, w = random_signs(rng, m, k), random_signs(rng, n, k)
            factors = {
                "alpha": rng.choice(np.float32(pool), n),
                "k_map": rng.choice(np.float32(pool), m),
                "bias": rng.choice(np.float32(pool), n),
            }
            with np.errstate(all="ignore"):
                want = ref.gemm(a, w, **factors)
            for weights in (w, bo.prepack(w)):
                assert_same_bits(bo.gemm(a, weights, **factors), want)

    def test_dtypes_and_layouts(self, isa, rng):
        """Factors of any real type and layout are first rounded to float32."""
        a, w = random_signs(rng, 6, 99), random_signs(rng, 11, 99)
        for alpha in (
            rng.standard_normal(11),
            rng.standard_normal(11).tolist(),
            rng.integers(-(2**30), 2**30, 11),
            rng.standard_normal(11).astype(np.float16),
            rng.standard_normal(22).astype(np.float32)[::2],
            rng.standard_normal(11).astype(np.float32)[::-1],
            rng.standard_normal(11).astype(">f4"),
            np.float32(0.3),
            np.array(0.3),
            3,
            np.broadcast_to(np.float32(1.5), 11),
        ):
            for name in ("alpha", "bias"):
                assert_same_bits(bo.gemm(a, w, **{name: alpha}), ref.gemm(a, w, **{name: alpha}))
        k_map = rng.standard_normal((3, 12)).T[::2, 1]
        assert_same_bits(bo.gemm(a, w, k_map=k_map), ref.gemm(a, w, k_map=k_map))

    def test_large_dots_round_to_float32(self, isa):
        """An int32 over 2**24 has no exact float32: it rounds to nearest even, once."""
        k = 2**24 + 192
        a = bo.BitArray.from_words(np.zeros((1, k // 64), np.uint64), (1, k))
        words = np.zeros((4, k // 64), np.uint64)
        words[:, 0] = (0, 1, 3, 7)
        w = bo.BitArray.from_words(words, (4, k))
        dot = np.array([[k, k - 2, k - 4, k - 6]])
        for weights in (w, bo.prepack(w)):
            assert_array_equal(bo.gemm(a, weights), dot)
            assert_array_equal(bo.gemm(a, weights, alpha=1), dot.astype(np.float32), strict=True)

    def test_empty(self, isa):
        for m, n, k in itertools.product((0, 3), repeat=3):
            a, w = np.ones((m, k)), np.ones((n, k))
            got = bo.gemm(a, w, alpha=np.full(n, 2.0), k_map=np.ones(m), bias=np.arange(n))
            want = ref.gemm(a, w, alpha=np.full(n, 2.0), k_map=np.ones(m), bias=np.arange(n))
            assert_same_bits(got, want)


class TestGemmSign:
    def test_equality_is_not_above(self, isa, rng):
        a, w = random_signs(rng, 9, 70), random_signs(rng, 33, 70)
        dot = ref.gemm(a, w)
        for row in range(9):
            for step in (-2, -1, 0, 1):
                threshold = dot[row] + step
                got = np.asarray(bo.gemm_sign(a, w, threshold))[row]
                assert_array_equal(got, np.full(33, 1 if step < 0 else -1))

    @pytest.mark.parametrize(
        "dtype",
        (np.int8, np.int16, np.int32, np.int64, np.uint8, np.uint16, np.uint32, np.uint64, ">i4"),
    )
    def test_threshold_dtypes(self, isa, rng, dtype):
        a, w = random_signs(rng, 5, 301), random_signs(rng, 70, 301)
        info = np.iinfo(dtype)
        low, high = max(info.min, -40), 40
        threshold = rng.integers(low, high, 70).astype(dtype)
        threshold[:2] = info.min, info.max
        for value in (threshold, threshold[::-1], threshold[2:3].repeat(70).tolist(), info.max):
            for weights in (w, bo.prepack(w)):
                got = bo.gemm_sign(a, weights, value)
                assert_array_equal(np.asarray(got), ref.gemm_sign(a, w, value))

    @pytest.mark.parametrize(
        "threshold",
        (
            *(INT32_MAX, -INT32_MAX - 1, INT32_MAX + 1, -INT32_MAX - 2, 2**32, -(2**32), 2**32 + 5),
            *(2**40, -(2**40), 2**63 - 1, -(2**63), 2**64 - 1, 301, 300, -301, -302),
        ),
    )
    def test_huge_thresholds(self, isa, threshold):
        """Thresholds beyond +-k give constant bits and never wrap around."""
        a, w = np.ones((4, 301)), np.ones((21, 301))
        w[::2] = -1
        for flip in (None, True, np.arange(21) % 3 == 0):
            want = ref.gemm_sign(a, w, threshold, flip=flip)
            for weights in (w, bo.prepack(w)):
                got = bo.gemm_sign(a, weights, threshold, flip=flip)
                assert_array_equal(np.asarray(got), want)

    def test_flip(self, isa, rng):
        a, w = random_signs(rng, 7, 130), random_signs(rng, 131, 130)
        flips = (None, False, True, np.True_, rng.integers(0, 2, 131).astype(np.bool_))
        for flip in (*flips, flips[-1][::-1], flips[-1].tolist()):
            got = bo.gemm_sign(a, w, 3, flip=flip)
            assert_array_equal(got.words, ref.pack(ref.gemm_sign(a, w, 3, flip=flip)))

    def test_padding_stays_zero(self, isa):
        """All outputs +1, so that any stray bit after the last column would show."""
        for n in range(1, 140):
            a, w = np.ones((5, 10)), np.ones((n, 10))
            for weights in (w, bo.prepack(w)):
                for threshold, flip in ((0, None), (INT32_MAX, True)):
                    got = bo.gemm_sign(a, weights, threshold, flip=flip)
                    assert_array_equal(got.words, ref.pack(np.ones((5, n))))

    def test_it_feeds_the_next_product(self, isa, rng):
        x, w1, w2 = random_signs(rng, 8, 100), random_signs(rng, 77, 100), random_signs(rng, 10, 77)
        hidden = bo.gemm_sign(x, w1, np.arange(77) - 38)
        want = ref.gemm(ref.gemm_sign(x, w1, np.arange(77) - 38), w2)
        assert_array_equal(bo.gemm(hidden, w2), want)

    def test_batch(self, isa, rng):
        a, w = random_signs(rng, 3, 1, 5, 70), random_signs(rng, 2, 67, 70)
        threshold = np.arange(67) - 30
        got = bo.gemm_sign(a, w, threshold)
        assert got.shape == (3, 2, 5, 67)
        assert_array_equal(np.asarray(got), ref.gemm_sign(a, w, threshold))

    def test_empty(self, isa):
        for m, n, k in itertools.product((0, 3), repeat=3):
            got = bo.gemm_sign(np.ones((m, k)), np.ones((n, k)), np.zeros(n, int))
            assert_array_equal(np.asarray(got), ref.gemm_sign(np.ones((m, k)), np.ones((n, k)), 0))


@pytest.mark.parametrize("shape", [(8, 64), (4, 3, 3, 70)])
@pytest.mark.parametrize("packed", [True, False])
def test_prepacked_words_are_not_written(rng, shape, packed):
    """Else panels and words would give two answers, and another ISA a third."""
    w = random_signs(rng, *shape)
    panels = bo.prepack(bo.pack(w) if packed else w)
    with pytest.raises(ValueError, match="read-only"):
        panels.bits.words[...] = 0
    assert panels.bits.copy().words.flags.writeable
    assert bo.pack(w).words.flags.writeable, "only those of Prepacked"
