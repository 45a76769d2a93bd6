"""Numbers times weights of +1 and -1: weight_gemm and bitplane_gemm on every ISA."""

import functools
import tracemalloc

import numpy as np
import pytest
from numpy.testing import assert_array_equal

import bitops as bo
from bitops import reference as ref
from conftest import EDGE_ROWS, SEED, random_shapes, random_signs

MULTIPLIES_NUMBERS = True

# Around the words, the blocks of k (256, 512 and 1024 bits) and the groups of four elements.
KS = (
    0,
    1,
    2,
    3,
    4,
    5,
    31,
    32,
    33,
    63,
    64,
    65,
    255,
    256,
    257,
    300,
    511,
    513,
    1023,
    1024,
    1025,
    2050,
)


def numbers(rng, *shape):
    return rng.standard_normal(shape).astype(np.float32)


def octets(rng, *shape, bits=8):
    return rng.integers(0, 2**bits, shape).astype(np.uint8)


@functools.cache
def random_cases():
    """Operands and results, made once for all ISAs and numbers of threads."""
    rng = np.random.default_rng(SEED)
    cases = []
    for m, n, k in random_shapes(rng, 120):
        x, u, w = numbers(rng, m, k), octets(rng, m, k), random_signs(rng, n, k)
        scales = {"alpha": numbers(rng, n), "bias": numbers(rng, n)}
        want = (
            ref.weight_gemm(x, w),
            ref.weight_gemm(x, w, **scales),
            ref.bitplane_gemm(u, w),
            ref.bitplane_gemm(u, w, **scales),
        )
        cases.append((x, u, bo.pack(w), scales, want))
    return cases


class TestReference:
    def test_weight_gemm_by_hand(self):
        x = [[1.0, 2.0, 4.0, 8.0, 16.0]]
        w = [[1, -1, 1, 1, -1], [-1, -1, -1, -1, -1]]
        assert_array_equal(ref.weight_gemm(x, w), np.float32([[-5, -31]]), strict=True)
        got = ref.weight_gemm(x, w, alpha=[2, 0.5], bias=1)
        assert_array_equal(got, np.float32([[-9, -14.5]]), strict=True)

    def test_weight_gemm_adds_in_the_stated_order(self):
        big = np.float32(2**24)
        x, w = np.float32([[big, 1, 1, -big, 1, 1]]), np.ones((1, 6))
        # (big + 1) + 1 loses both ones, 1 + 1 of the second four does not
        assert ref.weight_gemm(x, w) == 2
        # 1 + 1 - big + 1 is exact, 1 + big is not
        assert ref.weight_gemm(x[:, ::-1], w) == 3

    def test_bitplane_gemm_by_hand(self):
        x, w = np.uint8([[255, 3, 0], [1, 2, 128]]), [[1, -1, 1], [-1, -1, -1]]
        want = np.int32([[252, -258], [127, -131]])
        assert_array_equal(ref.bitplane_gemm(x, w), want, strict=True)
        got = ref.bitplane_gemm(x, w, alpha=0.5, bias=[1, 2])
        assert_array_equal(got, np.float32([[127, -127], [64.5, -63.5]]), strict=True)


class TestResults:
    def test_random_shapes(self, isa, threads):
        for x, u, w, scales, want in random_cases():
            got = (
                bo.weight_gemm(x, w),
                bo.weight_gemm(x, w, **scales),
                bo.bitplane_gemm(u, w),
                bo.bitplane_gemm(u, w, **scales),
            )
            for a, b in zip(got, want, strict=True):
                assert_array_equal(a, b, strict=True, err_msg=f"{x.shape} {w.shape}")

    @pytest.mark.parametrize("k", KS)
    def test_every_edge(self, isa, rng, k):
        x, u, w = numbers(rng, 70, k), octets(rng, 70, k), random_signs(rng, 70, k)
        real, whole = ref.weight_gemm(x, w), ref.bitplane_gemm(u, w)
        packed = bo.pack(w)
        for n in EDGE_ROWS:
            for m in (0, 1, 2, 3, 4, 5, 32, 33, 70):
                assert_array_equal(bo.weight_gemm(x[:m], packed[:n]), real[:m, :n])
                assert_array_equal(bo.bitplane_gemm(u[:m], packed[:n]), whole[:m, :n])

    @pytest.mark.parametrize("m, n, k", ((1, 1500, 1100), (40, 1100, 600), (66, 130, 2100)))
    def test_several_blocks(self, isa, rng, threads, m, n, k):
        x, u, w = numbers(rng, m, k), octets(rng, m, k), random_signs(rng, n, k)
        bias = numbers(rng, n)
        assert_array_equal(bo.weight_gemm(x, w, bias=bias), ref.weight_gemm(x, w, bias=bias))
        assert_array_equal(bo.bitplane_gemm(u, w), ref.bitplane_gemm(u, w))

    # Rows in lanes: 32 of float32 or 64 of uint8 at a time, blocks of 64 bits, 1024 columns. Few
    # rows are looked up instead, and so are the last ones if few are left: from how many on lanes
    # are faster depends on the ISA and on n.
    @pytest.mark.parametrize(
        "m, n, k",
        (
            (5, 16, 65),
            (9, 1024, 65),
            (25, 1024, 256),
            (28, 300, 257),
            (32, 13, 65),
            (32, 120, 256),
            (33, 67, 271),
            (38, 1024, 256),
            (64, 7, 65),
            (64, 1030, 300),
            (76, 20, 300),
            (100, 130, 512),
            (131, 70, 1100),
        ),
    )
    def test_many_rows_as_they_lie_and_transposed(self, isa, rng, threads, m, n, k):
        x, u, w = numbers(rng, m, k), octets(rng, m, k), random_signs(rng, n, k)
        alpha, bias = numbers(rng, n), numbers(rng, n)
        real = ref.weight_gemm(x, w, alpha=alpha, bias=bias)
        whole = ref.bitplane_gemm(u, w)
        scaled = ref.bitplane_gemm(u, w, alpha=alpha, bias=bias)
        for order in "CF":
            a, b = np.array(x, order=order), np.array(u, order=order)
            assert_array_equal(bo.weight_gemm(a, w, alpha=alpha, bias=bias), real)
            assert_array_equal(bo.bitplane_gemm(b, w), whole)
            assert_array_equal(bo.bitplane_gemm(b, w, alpha=alpha, bias=bias), scaled)

    @pytest.mark.parametrize("k", (255, 256, 257, 384, 20001))
    def test_bounds_of_the_narrow_sums_of_many_rows(self, isa, k):
        x, w = np.full((65, k), 255, np.uint8), np.ones((66, k), np.int8)
        w[1::2] = -1
        want = np.broadcast_to(255 * k * w[:, 0].astype(np.int64), (65, 66))
        assert_array_equal(bo.bitplane_gemm(x, w), want)
        assert_array_equal(bo.bitplane_gemm(np.asfortranarray(x), w), want)

    def test_a_row_does_not_depend_on_the_others(self, isa, rng, threads):
        x, w = numbers(rng, 37, 777), bo.pack(random_signs(rng, 400, 777))
        together = bo.weight_gemm(x, w)
        for m in range(1, 38):
            assert_array_equal(bo.weight_gemm(x[37 - m :], w), together[37 - m :])

    @pytest.mark.parametrize("k", (1, 40, 1000, 5000))
    def test_stated_bound(self, isa, rng, k):
        x, w = numbers(rng, 9, k) * 10.0 ** rng.integers(-3, 4, k), random_signs(rng, 33, k)
        x = x.astype(np.float32)
        exact = x.astype(np.float64) @ w.T
        bound = (k / 4 + 4) * 2.0**-24 * np.abs(x).sum(axis=1, dtype=np.float64)
        assert (np.abs(bo.weight_gemm(x, w) - exact) <= bound[:, None] * (1 + 1e-3)).all()

    def test_infinity_and_nan(self, isa, rng):
        x, w = numbers(rng, 5, 70), random_signs(rng, 20, 70)
        x[0, 3], x[1, 69], x[2, 0] = np.inf, -np.inf, np.nan
        x[3, 10:12] = np.finfo(np.float32).max
        with np.errstate(over="ignore", invalid="ignore"):
            want = ref.weight_gemm(x, w)
        assert_array_equal(bo.weight_gemm(x, w), want)
        assert_array_equal(bo.weight_gemm(x, w)[0], np.inf * w[:, 3])

    @pytest.mark.parametrize("k", (255, 256, 257, 512, 1024, 65793, 70001))
    @pytest.mark.parametrize("value", (0, 255))
    def test_bounds_of_the_narrow_sums(self, isa, value, k):
        x = np.full((5, k), value, np.uint8)
        w = np.ones((18, k), np.int8)
        w[1::2] = -1
        want = np.broadcast_to(value * k * w[:, 0].astype(np.int64), (5, 18))
        for m in (1, 2, 5):
            assert_array_equal(bo.bitplane_gemm(x[:m], w), want[:m])

    @pytest.mark.parametrize("bits", range(1, 9))
    def test_bits(self, isa, rng, threads, bits):
        for m, n, k in ((1, 5, 7), (3, 70, 65), (20, 33, 300), (1, 300, 1100), (150, 70, 129)):
            x, w = octets(rng, m, k, bits=bits), random_signs(rng, n, k)
            x[0] = 2**bits - 1
            packed, alpha = bo.pack(w), numbers(rng, n)
            want = ref.bitplane_gemm(x, w)
            for weights in (packed, bo.prepack(packed)):
                assert_array_equal(bo.bitplane_gemm(x, weights, bits=bits), want, strict=True)
                got = bo.bitplane_gemm(x, weights, bits=np.int8(bits), alpha=alpha, bias=-1)
                assert_array_equal(got, ref.bitplane_gemm(x, w, alpha=alpha, bias=-1))


class TestArguments:
    def test_leading_axes_of_x(self, isa, rng):
        x, u, w = numbers(rng, 2, 3, 4, 70), octets(rng, 2, 3, 4, 70), random_signs(rng, 5, 70)
        assert_array_equal(bo.weight_gemm(x, w), ref.weight_gemm(x, w), strict=True)
        assert_array_equal(bo.bitplane_gemm(u, w), ref.bitplane_gemm(u, w), strict=True)
        assert bo.weight_gemm(x[:, :0], w).shape == (2, 0, 4, 5)
        assert bo.bitplane_gemm(u[:, :0], w).shape == (2, 0, 4, 5)

    @pytest.mark.parametrize("dtype", (np.float64, np.float16, np.int64, np.uint8, np.int8))
    def test_weight_gemm_takes_other_numbers(self, rng, dtype):
        x, w = rng.integers(0, 100, (4, 70)).astype(dtype), random_signs(rng, 5, 70)
        assert_array_equal(bo.weight_gemm(x, w), ref.weight_gemm(x, w), strict=True)
        assert_array_equal(bo.weight_gemm(x.tolist(), w.tolist()), ref.weight_gemm(x, w))

    def test_forms_of_w(self, isa, rng):
        x, u, w = numbers(rng, 6, 70), octets(rng, 6, 70), random_signs(rng, 9, 70)
        packed = bo.pack(w)
        strided = bo.pack(np.repeat(w, 2, axis=0))[::2]
        for weights in (w, w.astype(float), w > 0, packed, strided, bo.prepack(packed)):
            assert_array_equal(bo.weight_gemm(x, weights), ref.weight_gemm(x, w))
            assert_array_equal(bo.bitplane_gemm(u, weights), ref.bitplane_gemm(u, w))

    def test_layouts_of_x(self, rng):
        w = random_signs(rng, 9, 70)
        for x, call, want in (
            (numbers(rng, 12, 70), bo.weight_gemm, ref.weight_gemm),
            (octets(rng, 12, 70), bo.bitplane_gemm, ref.bitplane_gemm),
        ):
            expected = want(x, w)
            assert_array_equal(call(np.asfortranarray(x), w), expected)
            assert_array_equal(call(np.repeat(x, 2, axis=0)[::2], w), expected)
            assert_array_equal(call(x[::-1], w), expected[::-1])
            frozen = x.copy()
            frozen.flags.writeable = False
            assert_array_equal(call(frozen, w), expected)
            odd = np.empty(x.nbytes + 1, np.uint8)[1:].view(x.dtype).reshape(x.shape)
            odd[...] = x
            assert_array_equal(call(odd, w), expected)
        swapped = numbers(rng, 3, 70)
        got = bo.weight_gemm(swapped.astype(">f4"), w)
        assert_array_equal(got, ref.weight_gemm(swapped, w), strict=True)

    def test_out(self, isa, rng):
        x, u, w = numbers(rng, 6, 9), octets(rng, 6, 9), random_signs(rng, 9, 9)
        for call, want, dtype in (
            (functools.partial(bo.weight_gemm, x, w), ref.weight_gemm(x, w), np.float32),
            (functools.partial(bo.bitplane_gemm, u, w), ref.bitplane_gemm(u, w), np.int32),
        ):
            wide = np.full((6, 20), 7, dtype)
            for out in (np.empty((6, 9), dtype), np.empty((6, 9), dtype, "F"), wide[:, 1:19:2]):
                assert call(out=out) is out
                assert_array_equal(out, want)
            assert (wide[:, ::2] == 7).all()

    def test_out_may_overlap_x(self, rng):
        x, w = numbers(rng, 9, 9), random_signs(rng, 9, 9)
        want = ref.weight_gemm(x, w)
        assert_array_equal(bo.weight_gemm(x, w, out=x), want)

    def test_inputs_are_left_alone(self, isa, rng):
        x, u, w, alpha = (
            numbers(rng, 6, 70),
            octets(rng, 6, 70),
            random_signs(rng, 9, 70),
            np.ones(9),
        )
        copies = [a.copy() for a in (x, u, w, alpha)]
        bo.weight_gemm(x, w, alpha=alpha, bias=alpha)
        bo.bitplane_gemm(u, w, alpha=alpha, bias=alpha)
        for a, b in zip((x, u, w, alpha), copies, strict=True):
            assert_array_equal(a, b)

    def test_little_memory(self, rng):
        w = bo.prepack(random_signs(rng, 600, 3000))
        x, u = numbers(rng, 200, 3000), octets(rng, 200, 3000, bits=1)
        real, whole = np.empty((200, 600), np.float32), np.empty((200, 600), np.int32)
        tracemalloc.start()
        bo.weight_gemm(x, w, out=real)
        bo.bitplane_gemm(u, w, bits=1, out=whole)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 1 << 20


X, U, W = np.ones((3, 70), np.float32), np.ones((3, 70), np.uint8), np.ones((5, 70))


class TestErrors:
    @pytest.mark.parametrize(
        "call, error, rule",
        (
            (lambda: bo.weight_gemm(X[:, :69], W), ValueError, "k.*69.*70"),
            (lambda: bo.weight_gemm(X[0], W), ValueError, r"x .*two axes.*\(70,\)"),
            (lambda: bo.weight_gemm(X, W[None]), ValueError, r"w .*\(n, k\)"),
            (lambda: bo.weight_gemm(X, W[0]), ValueError, "w"),
            (lambda: bo.weight_gemm(X, bo.pack(W, 0)), ValueError, "last axis"),
            (lambda: bo.weight_gemm(X, W * np.nan), ValueError, "w .*NaN"),
            (lambda: bo.weight_gemm(bo.pack(X), W), TypeError, "x .*BitArray"),
            (lambda: bo.weight_gemm(X > 0, W), TypeError, "x .*bool"),
            (lambda: bo.weight_gemm(X * 1j, W), TypeError, "x .*complex64"),
            (lambda: bo.weight_gemm("abc", W), TypeError, "x"),
            (lambda: bo.weight_gemm(X, W * 1j), TypeError, "w .*complex"),
            (lambda: bo.weight_gemm(X, W, alpha=np.ones(3)), ValueError, "alpha.*5.*3"),
            (lambda: bo.weight_gemm(X, W, bias="1"), TypeError, "bias"),
            (lambda: bo.weight_gemm(X, W, out=np.empty((5, 3), "f4")), ValueError, "out"),
            (lambda: bo.weight_gemm(X, W, out=np.empty((3, 5))), TypeError, "out.*float32"),
            (lambda: bo.weight_gemm(X, W, out=[]), TypeError, "out.*list"),
        ),
    )
    def test_weight_gemm(self, call, error, rule):
        with pytest.raises(error, match=rf"^\[weight_gemm\] .*{rule}"):
            call()

    @pytest.mark.parametrize(
        "call, error, rule",
        (
            (lambda: bo.bitplane_gemm(U[:, :69], W), ValueError, "k.*69.*70"),
            (lambda: bo.bitplane_gemm(U[0], W), ValueError, "x .*two axes"),
            (lambda: bo.bitplane_gemm(U, W[None]), ValueError, r"w .*\(n, k\)"),
            (lambda: bo.bitplane_gemm(X, W), TypeError, "uint8.*float32"),
            (lambda: bo.bitplane_gemm(U.astype(np.int8), W), TypeError, "uint8.*int8"),
            (lambda: bo.bitplane_gemm(U > 0, W), TypeError, "uint8.*bool"),
            (lambda: bo.bitplane_gemm(U.tolist(), W), TypeError, "uint8.*int64"),
            (lambda: bo.bitplane_gemm(bo.pack(U > 0), W), TypeError, "uint8.*BitArray"),
            (lambda: bo.bitplane_gemm(U, W, bits=0), ValueError, "bits.*0"),
            (lambda: bo.bitplane_gemm(U, W, bits=9), ValueError, "bits.*9"),
            (lambda: bo.bitplane_gemm(U, W, bits=1.0), TypeError, "bits.*1.0"),
            (lambda: bo.bitplane_gemm(U, W, bits=True), TypeError, "bits.*True"),
            (lambda: bo.bitplane_gemm(U, W, alpha=1j), TypeError, "alpha"),
            (lambda: bo.bitplane_gemm(U, W, bias=np.ones(6)), ValueError, "bias.*5.*6"),
            (lambda: bo.bitplane_gemm(U, W, out=np.empty((3, 5), "f4")), TypeError, "int32"),
            (
                lambda: bo.bitplane_gemm(U, W, bias=1, out=np.empty((3, 5), "i4")),
                TypeError,
                "float32",
            ),
        ),
    )
    def test_bitplane_gemm(self, call, error, rule):
        with pytest.raises(error, match=rf"^\[bitplane_gemm\] .*{rule}"):
            call()

    @pytest.mark.parametrize("bits", range(1, 8))
    def test_a_value_beyond_its_bits_is_refused_before_work(self, bits):
        x, out = U * np.uint8(2**bits - 1), np.full((3, 5), -1, np.int32)
        bo.bitplane_gemm(x, W, bits=bits)
        x[2, 69] += 1
        with pytest.raises(ValueError, match=rf"at most {2**bits - 1} .*got {2**bits}"):
            bo.bitplane_gemm(x, W, bits=bits, out=out)
        assert (out == -1).all()

    def test_sums_beyond_int32_are_refused(self):
        k = 2**31 // 255
        for beyond in (0, 1):
            w = bo.BitArray.from_words(
                np.zeros((1, -(-(k + beyond) // 64)), np.uint64), (1, k + beyond)
            )
            x = np.full((1, k + beyond), 255, np.uint8)
            if beyond:
                with pytest.raises(ValueError, match=rf"^\[bitplane_gemm\] k .*{k}.*{k + 1}"):
                    bo.bitplane_gemm(x, w)
            else:
                assert bo.bitplane_gemm(x, w) == -255 * k
