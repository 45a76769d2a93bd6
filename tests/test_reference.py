"""The oracle itself, on numbers worked by hand."""

import subprocess
import sys

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from bitops import reference as ref

# Two rows of a and three rows of w, k = 4. Dot products counted by eye:
# a0.w0 = +1+1-1-1 = 0, a0.w1 = 4 (same row), a0.w2 = -4 (opposite), and so on.
A = np.array([[1, -1, 1, -1], [1, 1, 1, 1]])
W = np.array([[1, -1, -1, 1], [1, -1, 1, -1], [-1, 1, -1, 1]])
DOT = np.array([[0, 4, -4], [0, 0, 0]], np.int32)


def test_sign_is_never_zero():
    x = [3.5, 0.0, -0.0, -1e-300, 1e-300, np.inf, -np.inf]
    got = ref.sign(x)
    assert got.dtype == np.int8
    assert got.tolist() == [1, 1, 1, -1, 1, 1, -1]
    assert ref.sign([True, False]).tolist() == [1, -1]
    with pytest.raises(ValueError, match="NaN"):
        ref.sign([1.0, np.nan])


def test_pack_bit_order():
    # Bits 0, 2 and 63 of the first word, bit 0 (element 64) of the second.
    x = -np.ones(66)
    x[[0, 2, 63, 64]] = 1
    words = ref.pack(x)
    assert words.dtype == np.uint64
    assert words.tolist() == [2**63 + 5, 1]
    assert_array_equal(ref.unpack(words, 66), x)


def test_pack_pads_with_zeros():
    assert ref.pack(np.ones(3)).tolist() == [7]
    assert ref.pack(np.ones((2, 65))).tolist() == [[2**64 - 1, 1]] * 2
    assert ref.pack(np.ones((5, 0))).shape == (5, 0)
    assert ref.pack(np.ones((0, 5))).shape == (0, 1)


def test_pack_axis():
    x = np.array([[1, -1], [-1, -1], [1, 1]])
    assert ref.pack(x).tolist() == [[1], [0], [3]]
    assert ref.pack(x, axis=0).tolist() == [[0b101], [0b100]]
    assert_array_equal(ref.unpack(ref.pack(x, axis=0), 3, axis=0), x)
    assert ref.unpack(ref.pack(x), 2, dtype=np.bool_).tolist() == (x > 0).tolist()
    assert ref.unpack(ref.pack(np.ones((4, 0))), 0).shape == (4, 0)


def test_popcount():
    assert ref.popcount(A) == 6
    assert isinstance(ref.popcount(A), int)
    assert ref.popcount(A, axis=0).tolist() == [2, 1, 2, 1]
    assert ref.popcount(A, axis=1).tolist() == [2, 4]
    assert ref.popcount(A, axis=1).dtype == np.int64


def test_hamming_topk():
    # Distances of the one row: 1, 0, 1, 2.
    rows = [[1, -1, 1], [1, 1, 1], [-1, 1, 1], [-1, -1, 1]]
    distances, indices = ref.hamming_topk([[1, 1, 1]], rows, 3)
    assert distances.tolist() == [[0, 1, 1]]
    assert indices.tolist() == [[1, 0, 2]]
    assert (distances.dtype, indices.dtype) == (np.int32, np.int64)


def test_gemm():
    got = ref.gemm(A, W)
    assert got.dtype == np.int32
    assert_array_equal(got, DOT)
    assert_array_equal(ref.gemm(np.ones((2, 0)), np.ones((3, 0))), np.zeros((2, 3)))


def test_gemm_scales():
    # Row 0: 0, 4, -4; alpha 1, 2, 3: 0, 8, -12; k_map 0.5: 0, 4, -6; bias 1, 1, -1: 1, 5, -7.
    got = ref.gemm(A, W, alpha=[1, 2, 3], k_map=[0.5, 7], bias=[1, 1, -1])
    assert got.dtype == np.float32
    assert got.tolist() == [[1, 5, -7], [1, 1, -1]]
    assert ref.gemm(A, W, k_map=2).tolist() == (2.0 * DOT).tolist()


def test_gemm_rounds_every_step_to_float32():
    # dot = 3. In float32 3 * (1 + 2**-23) = 3 + 3 * 2**-23 lies between neighbours that are 2**-22
    # apart, and rounds to the even one, 3 + 2**-21; minus 3 that is 2**-21. A fused
    # multiply-add would give the exact 3 * 2**-23.
    a = np.ones((1, 3))
    alpha = np.float32(1) + np.float32(2.0**-23)
    got = ref.gemm(a, a, alpha=alpha, bias=-3)
    assert got.item() == 2.0**-21
    # (3 * 1e-30) * 1e-20 underflows to 0 in float32, although alpha * bias's 1e20 would save it.
    assert ref.gemm(a, a, alpha=1e-30, k_map=1e-20).item() == 0


def test_gemm_sign():
    got = ref.gemm_sign(A, W, 0)
    assert got.dtype == np.int8
    assert got.tolist() == [[-1, 1, -1], [-1, -1, -1]]
    assert ref.gemm_sign(A, W, [-1, 4, -5]).tolist() == [[1, -1, 1], [1, -1, 1]]
    assert ref.gemm_sign(A, W, 0, flip=[True, False, True]).tolist() == [[1, 1, 1], [1, -1, 1]]


def test_hamming():
    got = ref.hamming(A, W)
    assert got.dtype == np.int32
    assert got.tolist() == [[2, 0, 4], [2, 2, 2]]
    assert ref.hamming(A, W, dtype=np.uint16).dtype == np.uint16


def test_matmul():
    got = ref.matmul(A, W.T)
    assert got.dtype == np.int32
    assert_array_equal(got, DOT)
    assert ref.matmul(A, [1, 1, 1, 1]).tolist() == [0, 4]
    assert ref.matmul([2.0, -3.0], [0.5, 0.0]) == 0
    assert ref.matmul(np.ones((5, 1, 2, 3)), np.ones((4, 3, 6))).shape == (5, 4, 2, 6)


def test_binarize_weights():
    values, alpha = ref.binarize_weights(np.array([[[1.0, -2.0], [0.0, 5.0]], [[-0.5] * 2] * 2]))
    assert values.tolist() == [[[1, -1], [1, 1]], [[-1, -1], [-1, -1]]]
    assert alpha.dtype == np.float32
    assert alpha.tolist() == [2.0, 0.5]


def test_it_needs_no_native_module():
    # Loaded by path: importing it through the package would import the package's _core first.
    code = (
        "import runpy, sys;"
        f"runpy.run_path({ref.__file__!r});"
        "assert not [name for name in sys.modules if name.startswith('bitops')]"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
