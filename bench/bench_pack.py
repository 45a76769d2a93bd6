"""Packing and unpacking against NumPy's comparison and packbits, one thread.

    python -m pytest bench/bench_pack.py

GB/s counts the bytes read and the bytes written, each once.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import bitops as bo
import common
from bitops.benchmark import WrongResult, random_signs

# Whole words in cache and in memory, and rows that end inside a word.
SHAPES = [(100, 4096), (4096, 4096), (1000, 1001)]
DTYPES = ["float32", "float64", "int8", "uint8", "bool"]


def numpy_pack(x: np.ndarray) -> np.ndarray:
    return np.packbits(x if x.dtype == bool else x >= 0, axis=-1, bitorder="little")


def same_bytes(expected: np.ndarray) -> Any:
    """Make a check that takes a BitArray or its bytes, without the padding at the end of a row."""

    def check(name: str, result: Any) -> None:
        found = result.words.view(np.uint8) if isinstance(result, bo.BitArray) else result
        if not np.array_equal(found[:, : expected.shape[1]], expected):
            raise WrongResult(f"[bench_pack] {name} gave wrong bits")

    return check


@pytest.mark.parametrize("shape", SHAPES, ids=common.case_id)
@pytest.mark.parametrize("dtype", DTYPES)
def test_pack(benchmark: Any, shape: tuple[int, int], dtype: str) -> None:
    signs = random_signs(np.random.default_rng(0), shape)
    x = signs > 0 if dtype == "bool" else signs.astype(np.int8).astype(dtype)
    expected = numpy_pack(x)
    common.run(
        benchmark,
        lambda: bo.pack(x),
        check=same_bytes(expected),
        rival=lambda: numpy_pack(x),
        work=(x.nbytes + expected.nbytes) / 1e9,
        unit="GB/s",
    )


@pytest.mark.parametrize("shape", SHAPES, ids=common.case_id)
@pytest.mark.parametrize("dtype", ["int8", "float32"])
def test_unpack(benchmark: Any, shape: tuple[int, int], dtype: str) -> None:
    expected = random_signs(np.random.default_rng(0), shape).astype(dtype)
    bits = bo.pack(expected)
    packed = numpy_pack(expected)
    one, two = np.ones((), dtype), np.full((), 2, dtype)

    def numpy_unpack() -> np.ndarray:
        return np.unpackbits(packed, axis=-1, count=shape[1], bitorder="little") * two - one

    def check(name: str, result: np.ndarray) -> None:
        if not np.array_equal(result, expected):
            raise WrongResult(f"[bench_pack] {name} gave wrong values")

    common.run(
        benchmark,
        lambda: bo.unpack(bits, dtype=dtype),
        check=check,
        rival=numpy_unpack,
        work=(packed.nbytes + expected.nbytes) / 1e9,
        unit="GB/s",
    )
