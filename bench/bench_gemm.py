"""Binary GEMM against float32 BLAS: every ISA of the machine, one thread and all.

python -m pytest bench/bench_gemm.py
"""

from __future__ import annotations

from typing import Any

import pytest

import bitops as bo
import common
from bitops.benchmark import GEMM_SHAPES, GemmOperands, thread_counts

# Portable C is the specification, not a rival: it gets the shapes that do not take seconds a call.
CASES = [
    (shape, threads, isa)
    for shape in GEMM_SHAPES
    for threads in thread_counts()
    for isa in bo.isa.available()
    if isa != "generic" or shape[0] <= 512
]


@pytest.mark.parametrize(("shape", "threads", "isa"), CASES, ids=common.case_id)
@pytest.mark.parametrize("packing", [False, True], ids=["packed", "with_packing"])
def test_gemm(
    benchmark: Any, shape: tuple[int, int, int], threads: int, isa: str, packing: bool
) -> None:
    with bo.isa.use(isa):
        operands = GemmOperands(*shape)
        m, n, k = shape
        common.run(
            benchmark,
            operands.with_packing if packing else operands.packed,
            check=operands.check,
            rival=operands.blas,
            work=m * n * k / 1e9,
            unit="GMAC/s",
            thread_count=threads,
        )
