"""Numbers times +-1 weights against float32 BLAS: weight_gemm and bitplane_gemm on every ISA.

python -m pytest bench/bench_mixed.py
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import bitops as bo
import common
from bitops.benchmark import WrongResult, random_signs, thread_counts

SHAPES = (
    (1, 1024, 784),
    (1, 4096, 4096),
    (100, 1024, 784),
    (100, 4096, 4096),
    (1024, 1024, 1024),
    (2048, 2048, 2048),
)
CASES = [
    (shape, threads, isa)
    for shape in SHAPES
    for threads in thread_counts()
    for isa in bo.isa.available()
    if isa != "generic" or shape[0] == 1
]


class Operands:
    """Integers 0..2**bits-1, so that both results are exact, and weights of +1 and -1."""

    def __init__(self, m: int, n: int, k: int, bits: int, dtype: type):
        rng = np.random.default_rng(0)
        w = random_signs(rng, (n, k))
        self.x = rng.integers(0, 2**bits, (m, k)).astype(np.uint8)
        self.real, self.weights = self.x.astype(np.float32), w.T
        self.packed = bo.prepack(bo.pack(w))
        self.out, self.blas_out = np.empty((m, n), dtype), np.empty((m, n), np.float32)
        assert k * (2**bits - 1) < 2**24  # float32 holds every partial sum
        self.expected = self.real @ self.weights

    def blas(self) -> Any:
        return np.matmul(self.real, self.weights, out=self.blas_out)

    def check(self, name: str, result: Any) -> None:
        if not np.array_equal(result, self.expected):
            raise WrongResult(f"[bench] {name} gave a wrong product")
        result.fill(-1)


@pytest.mark.parametrize(("shape", "threads", "isa"), CASES, ids=common.case_id)
@pytest.mark.parametrize("bits", [None, 1, 2, 8], ids=["float32", "1bit", "2bits", "8bits"])
def test_mixed(
    benchmark: Any, shape: tuple[int, int, int], threads: int, isa: str, bits: int | None
) -> None:
    m, n, k = shape
    operands = Operands(m, n, k, bits or 8, np.float32 if bits is None else np.int32)

    def call() -> Any:
        if bits is None:
            return bo.weight_gemm(operands.real, operands.packed, out=operands.out)
        return bo.bitplane_gemm(operands.x, operands.packed, bits=bits, out=operands.out)

    with bo.isa.use(isa):
        common.run(
            benchmark,
            call,
            check=operands.check,
            rival=operands.blas,
            work=m * n * k / 1e9,
            unit="GMAC/s",
            thread_count=threads,
        )
