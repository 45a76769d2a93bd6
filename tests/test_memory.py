"""No kernel touches memory outside its arrays: arrays that end, or begin, at a forbidden page.

A kernel that reads or writes one byte too far dies here with a segmentation fault.
"""

import mmap

import numpy as np
import pytest
from numpy.testing import assert_array_equal

import bitops as bo
from bitops import reference as ref
from bitops.ops import memory
from bitops.ops.memory import aligned_empty, mapped_empty
from conftest import random_signs

MULTIPLIES_NUMBERS = True

KS = (*range(1, 131), 191, 192, 193, 255, 256, 257, 511, 512, 513, 577)


@pytest.mark.parametrize("end", (True, False), ids=("end", "begin"))
@pytest.mark.parametrize(
    "dtype", (np.bool_, np.int8, np.int16, np.int32, np.int64, np.float32, np.float64)
)
def test_pack(isa, rng, fenced, dtype, end):
    for k in KS:
        for rows in (1, 3):
            x = random_signs(rng, rows, k).clip(0 if dtype is np.bool_ else -1).astype(dtype)
            placed = fenced[0].place(x, end)
            assert_array_equal(bo.pack(placed).words, ref.pack(x))


@pytest.mark.parametrize("end", (True, False), ids=("end", "begin"))
def test_unpack_and_popcount(isa, rng, fenced, end):
    for k in KS:
        x = random_signs(rng, 3, k)
        b = bo.BitArray.from_words(fenced[0].place(ref.pack(x), end), x.shape)
        assert_array_equal(bo.unpack(b), x)
        assert_array_equal(bo.unpack(b, np.float32), x)
        assert_array_equal(bo.popcount(b, -1), ref.popcount(x, -1))


@pytest.mark.parametrize("end", (True, False), ids=("end", "begin"))
def test_products(isa, rng, fenced, end):
    for m in (1, 2, 3, 4, 5, 7, 9, 16, 17, 21):
        for n in (1, 2, 7, 8, 9, 15, 16, 17, 31, 32, 33, 65):
            for k in (1, 64, 65, 129, 192, 257, 512, 577):
                a, w = random_signs(rng, m, k), random_signs(rng, n, k)
                pa = bo.BitArray.from_words(fenced[0].place(ref.pack(a), end), a.shape)
                pw = bo.BitArray.from_words(fenced[1].place(ref.pack(w), end), w.shape)
                alpha = fenced[2].place(rng.standard_normal(n).astype(np.float32), end)
                k_map = fenced[3].place(rng.standard_normal(m).astype(np.float32), end)
                factors = {"alpha": alpha, "k_map": k_map, "bias": alpha}
                dot = ref.gemm(a, w)
                out = fenced[4].place(np.empty_like(dot), end)
                out16 = fenced[5].place(np.empty(dot.shape, np.uint16), end)
                for weights in (pw, bo.prepack(pw)):
                    assert np.array_equal(bo.gemm(pa, weights, out=out), dot)
                    scaled = bo.gemm(pa, weights, out=out.view(np.float32), **factors)
                    assert np.isfinite(scaled).all()
                    bo.hamming(pa, weights, dtype=np.uint16, out=out16)
                    assert np.array_equal(k - 2 * out16.astype(int), dot)
                    assert bo.gemm_sign(pa, weights, 0) == bo.pack(dot > 0)


@pytest.mark.parametrize("end", (True, False), ids=("end", "begin"))
def test_numbers_times_weights(isa, rng, fenced, end):
    for m in (1, 2, 3, 4, 5, 9):
        for n in (1, 2, 8, 15, 16, 17, 33, 63, 64, 65):
            for k in (1, 31, 32, 33, 64, 65, 129, 257, 577, 1100):
                x = fenced[0].place(rng.standard_normal((m, k)).astype(np.float32), end)
                u = fenced[1].place(rng.integers(0, 256, (m, k)).astype(np.uint8), end)
                w = random_signs(rng, n, k)
                pw = bo.BitArray.from_words(fenced[2].place(ref.pack(w), end), w.shape)
                alpha = fenced[3].place(rng.standard_normal(n).astype(np.float32), end)
                out = fenced[4].place(np.empty((m, n), np.float32), end)
                bo.weight_gemm(x, pw, alpha=alpha, bias=alpha, out=out)
                assert np.isfinite(out).all()
                whole = out.view(np.int32)
                want = (u.astype(np.float64) @ w.T).astype(np.int32)
                assert np.array_equal(bo.bitplane_gemm(u, pw, out=whole), want)
                low = u & np.uint8(1)
                want = (low.astype(np.float64) @ w.T).astype(np.int32)
                assert np.array_equal(bo.bitplane_gemm(low, pw, bits=1, out=whole), want)


@pytest.mark.parametrize(
    ("shape", "dtype"),
    [
        ((2**57,), "u1"),
        ((2**30, 2**30), "f4"),
        ((2**62,), "u1"),
        ((2**63,), "u1"),
        ((2**61, 2), "f8"),
    ],
)
def test_impossible_sizes_are_refused_as_by_numpy(shape, dtype):
    errors = []
    for make in (np.empty, aligned_empty):
        with pytest.raises((MemoryError, ValueError)) as caught:
            make(shape, np.dtype(dtype))
        errors.append((caught.type, str(caught.value)))
    assert errors[0] == errors[1]


@pytest.mark.parametrize("rows", [0, 1, 5, 3000])
def test_arrays_in_pages_of_their_own(rows):
    made = mapped_empty((rows, 1500), np.int16)
    assert made.shape == (rows, 1500)
    made[...] = 7
    assert made.sum(dtype=np.int64) == 7 * made.size
    view = made[1:]
    del made
    assert (view == 7).all()  # the pages live as long as anything that shows them


def refuse(*args, **options):
    raise OSError("no")


def test_systems_without_huge_pages(monkeypatch):
    class Pages(mmap.mmap):
        madvise = refuse

    monkeypatch.setattr(memory.mmap, "mmap", Pages)
    monkeypatch.setattr(memory, "_HUGE", 14)
    made = mapped_empty((9_000_000,), np.uint8)
    made[...] = 3
    assert made[-1] == 3


def test_pages_that_are_refused(monkeypatch):
    monkeypatch.setattr(memory.mmap, "mmap", refuse)
    mapped_empty((10,), np.int16)
    with pytest.raises(MemoryError, match="9000000 bytes"):
        mapped_empty((9_000_000,), np.uint8)
