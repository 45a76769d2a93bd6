"""Batches, vectors, prepacked weights and `out` of products, against the reference."""

import itertools

import numpy as np
import pytest
from numpy.lib.stride_tricks import as_strided
from numpy.testing import assert_array_equal

import bitops as bo
from bitops import reference as ref
from conftest import random_signs
from products import assert_same_bits, scales


class TestBatch:
    SHAPES = (
        *(((), ()), ((3,), ()), ((), (3,)), ((3,), (3,)), ((1,), (3,)), ((3,), (1,))),
        *(((2, 1), (3,)), ((2, 1), (1, 3)), ((2, 3), (2, 3)), ((1, 1), ()), ((4, 1, 2), (3, 1))),
        *(((0,), ()), ((0,), (1,)), ((2, 0), (1,)), ((3,), (2, 1)), ((0, 3), (3,))),
    )

    @pytest.mark.parametrize("left, right", SHAPES, ids=str)
    @pytest.mark.parametrize(
        "m, n, k", ((1, 1, 64), (1, 9, 70), (5, 18, 129), (3, 0, 5), (2, 3, 0))
    )
    def test_leading_axes(self, isa, threads, rng, left, right, m, n, k):
        a, w = random_signs(rng, *left, m, k), random_signs(rng, *right, n, k)
        pa, pw = bo.pack(a), bo.pack(w)
        want = ref.gemm(a, w)
        assert_array_equal(bo.gemm(pa, pw), want, strict=True)
        assert_array_equal(bo.gemm(a, pw), want, strict=True)
        assert_array_equal(bo.hamming(pa, pw), ref.hamming(a, w), strict=True)
        plain = np.matmul(a.astype(np.int32), np.swapaxes(w, -1, -2).astype(np.int32))
        columns = np.swapaxes(w, -1, -2)
        assert_array_equal(bo.matmul(pa, bo.pack(columns, axis=-2)), plain, strict=True)
        factors = scales(rng, m, n)
        factors["k_map"] = rng.standard_normal(want.shape[:-1]).astype(np.float32)
        assert_same_bits(bo.gemm(pa, pw, **factors), ref.gemm(a, w, **factors))
        if not right:
            assert_array_equal(bo.gemm(pa, bo.prepack(pw)), want, strict=True)
            got = bo.gemm(pa, bo.prepack(pw), **factors)
            assert_same_bits(got, ref.gemm(a, w, **factors))

    def test_k_map_of_a_batch(self, isa, rng):
        a, w = random_signs(rng, 2, 3, 5, 70), random_signs(rng, 3, 9, 70)
        for shape in ((2, 3, 5), ()):
            k_map = rng.standard_normal(shape).astype(np.float32)
            want = ref.gemm(a, w, k_map=k_map)
            assert_same_bits(bo.gemm(a, w, k_map=k_map), want)
            for weights in (w[0], bo.prepack(w[0])):
                assert_same_bits(bo.gemm(a, weights, k_map=k_map), ref.gemm(a, w[0], k_map=k_map))

    def test_k_map_of_a_broadcast_batch(self, isa, rng):
        """The batch of k_map is that of the output, not that of a."""
        a, w = random_signs(rng, 5, 70), random_signs(rng, 4, 9, 70)
        k_map = rng.standard_normal((4, 5)).astype(np.float32)
        assert_same_bits(bo.gemm(a, w, k_map=k_map), ref.gemm(a, w, k_map=k_map))

    def test_strides_of_a_batch(self, isa, rng):
        a, w = random_signs(rng, 4, 6, 5, 70), random_signs(rng, 6, 9, 70)
        pa, pw = bo.pack(a), bo.pack(w)
        repeated = np.broadcast_to(pa.words[0, 0], (3, 6, 5, 2))
        cases = (
            (pa[::-1, ::2], a[::-1, ::2], pw[::2], w[::2]),
            (pa[:, :, ::2], a[:, :, ::2], pw[:, ::-1], w[:, ::-1]),
            (
                bo.BitArray.from_words(repeated, (3, 6, 5, 70)),
                np.broadcast_to(a[0, 0], (3, 6, 5, 70)),
                pw,
                w,
            ),
        )
        for left, x, right, y in cases:
            assert_array_equal(bo.gemm(left, right), ref.gemm(x, y))
            assert_array_equal(bo.hamming(left, right), ref.hamming(x, y))

    @pytest.mark.parametrize("left, right", (((2,), (3,)), ((2, 3), (2,)), ((0,), (2,))), ids=str)
    def test_errors(self, left, right):
        a, w = np.ones((*left, 4, 5)), np.ones((*right, 6, 5))
        with pytest.raises(ValueError, match=r"^\[gemm\] .*got"):
            bo.gemm(a, w)
        with pytest.raises(ValueError, match=r"^\[hamming\] .*got"):
            bo.hamming(a, w)
        with pytest.raises(ValueError, match=r"^\[matmul\] .*got"):
            bo.matmul(a, np.swapaxes(w, -1, -2))


class TestMatmul:
    @pytest.mark.parametrize(
        "left, right",
        (
            *(((70,), (70,)), ((5, 70), (70,)), ((70,), (70, 5)), ((2, 5, 70), (70,))),
            *(((70,), (3, 70, 5)), ((4, 70), (70, 6)), ((2, 1, 4, 70), (3, 70, 6)), ((0,), (0,))),
            *(((0, 70), (70, 3)), ((3, 0), (0, 4)), ((2, 3, 70), (70, 0)), ((1, 1), (1, 1))),
        ),
        ids=str,
    )
    def test_shapes(self, isa, rng, left, right):
        """Every packed axis, 1-D operands, real operands."""
        a, b = random_signs(rng, *left), random_signs(rng, *right)
        want = np.matmul(a.astype(np.int32), b.astype(np.int32))
        for axis_a in range(-min(a.ndim, 2), 0):
            for axis_b in range(-min(b.ndim, 2), 0):
                pa, pb = bo.pack(a, axis_a), bo.pack(b, axis_b)
                for x, y in ((pa, pb), (pa, b), (a, pb), (a, b), (a.astype(float), b > 0)):
                    got = bo.matmul(x, y)
                    assert_array_equal(got, want, strict=True)
                    assert type(got) is type(want)
                assert_array_equal(pa @ pb, want, strict=True)

    def test_packed_along_a_batch_axis(self, isa, rng):
        a, b = random_signs(rng, 66, 5, 7), random_signs(rng, 66, 7, 3)
        want = np.matmul(a.astype(np.int32), b.astype(np.int32))
        assert_array_equal(bo.matmul(bo.pack(a, 0), bo.pack(b, 0)), want)

    def test_operator_with_arrays(self, isa, rng):
        """A real array beside @ is packed by sign as well, on either side."""
        x, b = rng.standard_normal((5, 70)), random_signs(rng, 70, 6)
        want = ref.matmul(x, b)
        assert_array_equal(bo.pack(x) @ b, want, strict=True)
        assert_array_equal(x @ bo.pack(b), want, strict=True)

    def test_transposes(self, isa, rng):
        a, b = random_signs(rng, 9, 70), random_signs(rng, 9, 33)
        assert_array_equal(bo.matmul(bo.pack(a).T, bo.pack(b)), ref.matmul(a.T, b))
        assert_array_equal(bo.matmul(bo.pack(a, 0).T, bo.pack(b, 0)), ref.matmul(a.T, b))

    @pytest.mark.parametrize(
        "left, right",
        (
            *(
                ((3, 4), (5, 6)),
                ((3,), (4,)),
                ((3, 4), (3,)),
                ((4,), (3, 4)),
                ((), (3,)),
                ((3,), ()),
            ),
            *(((2, 3, 4), (3, 4, 5)), ((1, 4), (1, 4))),
        ),
        ids=str,
    )
    def test_errors(self, left, right):
        with pytest.raises(ValueError):
            np.matmul(np.ones(left), np.ones(right))
        with pytest.raises(ValueError, match=r"^\[matmul\] .*got"):
            bo.matmul(np.ones(left), np.ones(right))

    def test_out(self, isa, rng):
        a, b = random_signs(rng, 5, 70), random_signs(rng, 70, 6)
        for x, y in ((a, b), (a, b[:, 0]), (a[0], b), (np.stack([a, -a]), b)):
            want = ref.matmul(x, y)
            out = np.empty(want.shape, np.int32)
            assert bo.matmul(x, y, out=out) is out
            assert_array_equal(out, want)


class TestPrepack:
    def test_attributes(self, isa, rng):
        for n, k in ((1, 1), (33, 70), (0, 70), (5, 0)):
            panels = bo.prepack(random_signs(rng, n, k))
            assert panels.shape == (n, k)
            assert isinstance(panels.nbytes, int)
            assert panels.nbytes >= n * k / 8
        assert "33" in repr(bo.prepack(np.ones((33, 70))))

    def test_it_survives_a_change_of_isa(self, rng):
        a, w = random_signs(rng, 21, 333), random_signs(rng, 75, 333)
        want = ref.gemm(a, w)
        for first, second in itertools.product(bo.isa.available(), repeat=2):
            with bo.isa.use(first):
                panels = bo.prepack(w)
            with bo.isa.use(second):
                for m in (1, 2, 21):
                    assert_array_equal(bo.gemm(a[:m], panels), want[:m])
                got = bo.gemm_sign(a, panels, 3)
                assert_array_equal(np.asarray(got), ref.gemm_sign(a, w, 3))
                assert_array_equal(bo.hamming(a, panels), ref.hamming(a, w))

    def test_it_keeps_the_bits_of_its_time(self, isa, rng):
        x = random_signs(rng, 20, 70)
        words = ref.pack(x)
        panels = bo.prepack(bo.BitArray.from_words(words, (20, 70)))
        words[:] = 0
        assert_array_equal(bo.gemm(x, panels), ref.gemm(x, x))

    def test_prepacked_twice(self, isa, rng):
        """Several products with one set of panels, of different m and from different rows."""
        a, w = random_signs(rng, 64, 129), random_signs(rng, 40, 129)
        panels = bo.prepack(w)
        want = ref.gemm(a, w)
        for _ in range(2):
            for m in (64, 1, 3, 17):
                assert_array_equal(bo.gemm(a[:m], panels), want[:m])


class TestOut:
    """out= is filled and returned, whatever its strides."""

    @staticmethod
    def calls(rng, m=21, n=37, k=130):
        """(name, dtype, call(out), wanted result) of each function that takes `out`."""
        a, w = random_signs(rng, m, k), random_signs(rng, n, k)
        factors = scales(rng, m, n)
        panels = bo.prepack(w)
        pa, pw = bo.pack(a), bo.pack(w)
        mismatch = ref.hamming(a, w)
        return (
            ("gemm", np.int32, lambda out: bo.gemm(pa, pw, out=out), ref.gemm(a, w)),
            ("prepacked", np.int32, lambda out: bo.gemm(pa, panels, out=out), ref.gemm(a, w)),
            (
                "scaled",
                np.float32,
                lambda out: bo.gemm(pa, panels, out=out, **factors),
                ref.gemm(a, w, **factors),
            ),
            ("matmul", np.int32, lambda out: bo.matmul(pa, pw.T, out=out), ref.gemm(a, w)),
            ("hamming", np.int32, lambda out: bo.hamming(pa, pw, out=out), mismatch),
            (
                "hamming16",
                np.uint16,
                lambda out: bo.hamming(pa, pw, dtype=np.uint16, out=out),
                mismatch,
            ),
        )

    def test_strides(self, isa, threads, rng):
        for m, n in ((21, 37), (1, 37), (21, 1), (1, 1), (2, 5)):
            for name, dtype, call, want in self.calls(rng, m, n):
                big = np.empty((2 * m + 3, 3 * n + 5), dtype)
                tall = np.empty((n, m + 7), dtype)
                raw = np.empty(m * n * big.itemsize + 1, np.uint8)
                views = {
                    "plain": np.empty((m, n), dtype),
                    "rows apart": big[:m, :n],
                    "middle": big[2 : m + 2, 3 : n + 3],
                    "both strided": big[1 : 2 * m : 2, 2 : 3 * n : 3],
                    "negative": big[m:0:-1, n:0:-1],
                    "negative rows": big[m:0:-1, :n],
                    "fortran": np.empty((m, n), dtype, order="F"),
                    "transposed": tall.T[:m],
                    "misaligned": raw[1:].view(dtype).reshape(m, n),
                }
                for layout, out in views.items():
                    if out.base is big:
                        big.fill(99)
                    out[...] = 98
                    assert call(out) is out, (name, layout)
                    assert_array_equal(out, want, err_msg=f"{name}, {layout}")
                    if out.base is big:
                        out[...] = 99
                        assert (big == 99).all(), f"{name}, {layout}: wrote beside out"

    def test_no_memory_of_its_own(self, rng):
        """Elements that share memory would hold each other's results, masked ones none."""
        for _, dtype, call, want in self.calls(rng, 5, 5):
            memory = np.zeros(99, dtype)
            for steps in ((0, 1), (1, 0), (0, 0), (1, 1), (4, 1), (1, -4)):
                out = as_strided(memory[50:], (5, 5), [step * memory.itemsize for step in steps])
                with pytest.raises(ValueError, match=r"\] out must have memory for every element"):
                    call(out)
            with pytest.raises(TypeError, match=r"\] out must not be masked"):
                call(np.ma.masked_array(want.astype(dtype), True))
            assert not memory.any()

    def test_batch(self, isa, threads, rng):
        a, w = random_signs(rng, 3, 1, 5, 70), random_signs(rng, 2, 9, 70)
        want = ref.gemm(a, w)
        big = np.full((4, 2, 5, 20), 99, np.int32)
        for out in (
            np.empty_like(want),
            big[1:, :, :, 3:12],
            big.swapaxes(1, 2)[:3, :, :, :9].swapaxes(1, 2),
        ):
            assert bo.gemm(a, w, out=out) is out
            assert_array_equal(out, want)

    def test_empty(self, isa):
        for m, n, k in itertools.product((0, 3), repeat=3):
            out = np.full((m, n), 7, np.int32)
            assert bo.gemm(np.ones((m, k)), np.ones((n, k)), out=out) is out
            assert (out == k).all()

    @pytest.mark.parametrize("layout", ("same", "shifted", "reversed"))
    def test_overlap_with_words(self, isa, rng, layout):
        """A result that overwrites the memory of an operand is still right, as in NumPy."""
        n, k = 8, 256
        x, y = random_signs(rng, n, k), random_signs(rng, n, k)
        for which in ("a", "w"):
            memory = np.zeros(3 * n * k // 64, np.uint64)
            words = memory[n:][: n * k // 64].reshape(n, -1)
            words[:] = ref.pack(x)
            shared = bo.BitArray.from_words(words, (n, k))
            as_int = memory.view(np.int32)
            start = 2 * n + (3 if layout == "shifted" else 0)
            out = as_int[start : start + n * n].reshape(n, n)
            out = out[::-1] if layout == "reversed" else out
            want = ref.gemm(x, y) if which == "a" else ref.gemm(y, x)
            other = bo.pack(y)
            args = (shared, other) if which == "a" else (other, shared)
            assert bo.gemm(*args, out=out) is out
            assert_array_equal(out, want)

    def test_overlap_with_factors(self, isa, rng):
        m = n = 40
        a, w = random_signs(rng, m, 70), random_signs(rng, n, 70)
        for weights in (w, bo.prepack(w)):
            for name, part in (("alpha", np.s_[3]), ("bias", np.s_[-1]), ("k_map", np.s_[:, 7])):
                out = rng.standard_normal((m, n)).astype(np.float32)
                want = ref.gemm(a, w, **{name: out[part].copy()})
                assert bo.gemm(a, weights, out=out, **{name: out[part]}) is out
                assert_same_bits(out, want)

    def test_overlap_with_real_operands(self, isa, rng):
        memory = rng.standard_normal((40, 40)).astype(np.float32)
        x = memory.copy()
        out = memory.view(np.int32)
        bo.gemm(memory, x, out=out)
        assert_array_equal(out, ref.gemm(x, x))
