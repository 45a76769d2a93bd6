"""Convolution of packed bits against float32 im2col and BLAS: every ISA, one thread and all.

python -m pytest bench/bench_conv.py
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import bitops as bo
import common
from bitops.benchmark import WrongResult, float_conv2d, random_signs, thread_counts
from bitops.ops.geometry import make_window

# (n, h, w, c) and filters, all 3x3 with stride 1 and padding 1: the layers of a ResNet, the second
# and the last of BinaryNet's ConvNet.
SHAPES = (
    ((1, 56, 56, 64), 64),
    ((1, 28, 28, 128), 128),
    ((1, 14, 14, 256), 256),
    ((1, 7, 7, 512), 512),
    ((8, 28, 28, 128), 128),
    ((1, 32, 32, 128), 128),
    ((1, 8, 8, 512), 512),
)
CASES = [
    pytest.param(shape, filters, threads, isa, id=f"{common.case_id(shape)}-{threads}-{isa}")
    for shape, filters in SHAPES
    for threads in thread_counts()
    for isa in bo.isa.available()
    if isa != "generic" or shape[0] == 1
]


class Operands:
    """One convolution as bits and in float32, which is exact: sums of +-1 below 2**24."""

    def __init__(self, shape: tuple[int, ...], filters: int):
        rng = np.random.default_rng(0)
        self.x = random_signs(rng, shape)
        w = random_signs(rng, (filters, 3, 3, shape[3]))
        self.images, self.filters = bo.pack(self.x), bo.prepack(bo.pack(w))
        self.window = make_window("bench", shape[1:3], 3, padding=1)
        self.matrix = w.reshape(filters, -1).T
        self.work = self.x.size * w[..., 0].size / 1e9
        self.threshold = np.zeros(filters, np.int32)
        self.out = np.empty((*shape[:3], filters), np.int32)
        self.float_out = np.empty((*shape[:3], filters), np.float32)
        self.expected = self.float().copy()
        self.calls: dict[str, Callable[[], Any]] = {
            "packed": lambda: bo.conv2d(self.images, self.filters, padding=1, out=self.out),
            "with_packing": lambda: bo.conv2d(self.x, self.filters, padding=1, out=self.out),
            "sign": lambda: bo.conv2d_sign(self.images, self.filters, self.threshold, padding=1),
        }

    def float(self) -> np.ndarray:
        return float_conv2d(self.x, self.matrix, self.window, out=self.float_out)

    def check(self, name: str, result: Any) -> None:
        if isinstance(result, bo.BitArray):
            good = np.array_equal(bo.unpack(result, bool), self.expected > 0)
        else:
            good = np.array_equal(result, self.expected)
            result.fill(-1)
        if not good:
            raise WrongResult(f"[bench] {name} gave a wrong convolution of {self.x.shape}")


@pytest.mark.parametrize(("shape", "filters", "threads", "isa"), CASES)
@pytest.mark.parametrize("form", ["packed", "with_packing", "sign"])
def test_conv2d(
    benchmark: Any, shape: tuple[int, ...], filters: int, threads: int, isa: str, form: str
) -> None:
    with bo.isa.use(isa):
        operands = Operands(shape, filters)
        common.run(
            benchmark,
            operands.calls[form],
            check=operands.check,
            rival=operands.float,
            work=operands.work,
            unit="GMAC/s",
            thread_count=threads,
        )
