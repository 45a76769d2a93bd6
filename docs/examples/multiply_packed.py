"""Multiply packed matrices
========================

Multiply packed matrices, measure distances, and find the nearest rows.

A matrix of +1 and -1 takes one bit per element. The results are exact, and compared with NumPy's.
"""

import numpy as np

import bitops as bo


def main() -> None:
    rng = np.random.default_rng(0)
    m, n, k = 200, 300, 1000
    a = rng.standard_normal((m, k), dtype=np.float32)
    w = rng.standard_normal((n, k), dtype=np.float32)

    # Only the signs count: +1 where a number is >= 0, -1 elsewhere.
    signs_a, signs_w = np.where(a >= 0, 1, -1), np.where(w >= 0, 1, -1)
    A, W = bo.pack(a), bo.pack(w)
    print(f"{a.nbytes:,} bytes of float32 are {A.nbytes:,} bytes of bits")

    # Both operands are packed along k, so that rows meet rows: C[m, n] = A[m, k] W[n, k]^T.
    dots = bo.gemm(A, W)
    assert dots.dtype == np.int32 and np.array_equal(dots, signs_a @ signs_w.T)
    assert np.array_equal(dots, A @ W.T)  # the same product in NumPy's notation

    # Weights that are used many times are ordered for the kernels once.
    panels = bo.prepack(W)
    assert np.array_equal(bo.gemm(A, panels), dots)

    # A layer of a network: compare with thresholds, and pack the bits again.
    threshold = rng.integers(-30, 30, n)
    hidden = bo.gemm_sign(A, panels, threshold)
    assert np.array_equal(np.asarray(hidden, dtype=bool), dots > threshold)

    # Hamming distances are the same thing: rows that differ in d elements have the product k - 2 d.
    distances = bo.hamming(A, W)
    assert np.array_equal(dots, k - 2 * distances)

    # The five nearest rows of W for each row of A, of equal distances the first.
    nearest, rows = bo.hamming_topk(A, W, 5)
    expected = np.argsort(distances, axis=1, kind="stable")[:, :5]
    assert np.array_equal(rows, expected)
    assert np.array_equal(nearest, np.take_along_axis(distances, expected, axis=1))
    print(f"row 0 is nearest to rows {rows[0].tolist()}, at distances {nearest[0].tolist()}")


if __name__ == "__main__":
    main()
