"""Random products and their wanted results, shared by the tests of products."""

from typing import NamedTuple

import numpy as np
from numpy.testing import assert_array_equal

import bitops as bo
from bitops import reference as ref
from conftest import random_signs

INT32_MAX = 2**31 - 1


def assert_same_bits(got, want):
    """Equal shape and dtype, and float32 results equal to the last bit (any NaN equals any NaN)."""
    assert_array_equal(got, want, strict=True)
    if got.dtype == np.float32:
        nan = np.isnan(want)
        bits = np.where(nan, 0, got.view(np.uint32)), np.where(nan, 0, want.view(np.uint32))
        assert_array_equal(*bits)


def scales(rng, m, n):
    """Draw alpha, k_map and bias for m x n outputs."""
    return {
        "alpha": rng.standard_normal(n).astype(np.float32),
        "k_map": rng.standard_normal(m).astype(np.float32),
        "bias": (100 * rng.standard_normal(n)).astype(np.float32),
    }


class Case(NamedTuple):
    """Random packed operands, and the wanted results of all products with them."""

    a: bo.BitArray
    w: bo.BitArray
    factors: dict[str, np.ndarray]
    threshold: np.ndarray
    flip: np.ndarray
    dot: np.ndarray
    scaled: np.ndarray
    above: np.ndarray
    mismatch: np.ndarray


def make_case(rng, m, n, k):
    a, w = random_signs(rng, m, k), random_signs(rng, n, k)
    factors = scales(rng, m, n)
    threshold = rng.integers(-2, 3, n) * max(1, int(k**0.5))
    flip = rng.integers(0, 2, n).astype(np.bool_)
    return Case(
        bo.BitArray.from_words(ref.pack(a), a.shape),
        bo.BitArray.from_words(ref.pack(w), w.shape),
        factors,
        threshold,
        flip,
        ref.gemm(a, w),
        ref.gemm(a, w, **factors),
        ref.pack(ref.gemm_sign(a, w, threshold, flip=flip)),
        ref.hamming(a, w),
    )


def check_case(case):
    """Check all products with plain and prepacked weights."""
    a = case.a
    for w in (case.w, bo.prepack(case.w)):
        assert_same_bits(bo.gemm(a, w), case.dot)
        assert_same_bits(bo.gemm(a, w, **case.factors), case.scaled)
        above = bo.gemm_sign(a, w, case.threshold, flip=case.flip)
        assert (above.shape, above.axis) == (case.dot.shape, 1)
        assert_array_equal(above.words, case.above, strict=True)
        assert_array_equal(bo.hamming(a, w), case.mismatch, strict=True)
        got = bo.hamming(a, w, dtype=np.uint16)
        assert_array_equal(got, case.mismatch.astype(np.uint16), strict=True)
    assert_array_equal(bo.matmul(a, case.w.T), case.dot, strict=True)
    assert_array_equal(bo.matmul(bo.unpack(a), bo.unpack(case.w).T), case.dot, strict=True)
