"""A call of each product and of each function that feeds it, for many kinds of tests.

With 300 rows the calls are large enough for two threads to share the work. Run as a program, this
makes all of them, refused ones too, for tools that look for leaks.
"""

import os
from collections.abc import Callable

import numpy as np

import bitops as bo
from bitops.layers import BatchNorm, BinaryDense, Sequential, Sign


def words(rng: np.random.Generator, rows: int, bits: int) -> bo.BitArray:
    """Draw rows of a multiple of 64 bits."""
    array = rng.integers(0, 2**64, (rows, bits // 64), np.uint64)
    return bo.BitArray.from_words(array, (rows, bits))


def small_calls(rows: int = 300) -> dict[str, Callable[[], np.ndarray]]:
    """Return the calls by name. Their results are the same in every process."""
    rng = np.random.default_rng(7)
    a, w = words(rng, rows, 2048), words(rng, 130, 2048)
    panels = bo.prepack(w)
    x = rng.standard_normal((rows, 2048), np.float32)
    u = rng.integers(0, 256, (rows, 2048), np.uint8)
    alpha = rng.standard_normal(130, np.float32)
    images = bo.pack(rng.standard_normal((2, 14, 14, 128), np.float32))
    filters = bo.pack(rng.standard_normal((130, 3, 3, 128), np.float32))
    grouped = bo.pack(rng.standard_normal((128, 3, 3, 1), np.float32))
    chain = [BinaryDense(2048, 40, seed=1), BatchNorm(40), Sign(), BinaryDense(40, 10, seed=2)]
    model = Sequential(chain).freeze()
    return {
        "pack": lambda: bo.pack(x).words,
        "unpack": lambda: bo.unpack(a),
        "popcount": lambda: bo.popcount(a, 0),
        "prepack": lambda: bo.gemm(a[:1], bo.prepack(w)),
        "gemm": lambda: bo.gemm(a, w),
        "gemm, scaled": lambda: bo.gemm(a, panels, alpha=alpha),
        "gemm_sign": lambda: bo.gemm_sign(a, panels, 3).words,
        "hamming": lambda: bo.hamming(a, w),
        "hamming_topk": lambda: np.concatenate(bo.hamming_topk(a, w, 9), axis=1),
        "conv2d": lambda: bo.conv2d(images, filters, padding=1),
        "conv2d, depthwise": lambda: bo.conv2d(images, grouped, padding=1, groups=128),
        "weight_gemm": lambda: bo.weight_gemm(x, w, alpha=alpha),
        "bitplane_gemm": lambda: bo.bitplane_gemm(u, w),
        "bitplane_gemm, 2 bits": lambda: bo.bitplane_gemm(u & 3, w, bits=2),
        "predict": lambda: model.predict(x),
    }


def refused_calls() -> list[Callable[[], object]]:
    """Return calls that raise TypeError or ValueError, some after converting other arguments."""
    rng = np.random.default_rng(7)
    a, w, long = words(rng, 30, 256), words(rng, 40, 256), words(rng, 40, 320)
    x = rng.standard_normal((30, 256), np.float32)
    nan = np.full((30, 4000), np.nan, np.float32)
    return [
        lambda: bo.gemm(a, long),
        lambda: bo.gemm(a, w, out=np.empty((30, 41), np.int32)),
        lambda: bo.gemm(a, w, alpha=np.ones(7, np.float32)),
        lambda: bo.hamming_topk(a, w, 41),
        lambda: bo.pack(nan),
        lambda: bo.weight_gemm(x, long),
        lambda: bo.bitplane_gemm(x, w),
    ]


def answers(calls: dict[str, Callable[[], np.ndarray]]) -> dict[str, bytes]:
    """Return the bytes of all results."""
    return {name: np.asarray(call()).tobytes() for name, call in calls.items()}


def resident() -> int:
    """Return how many bytes of this process are in memory (Linux)."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGESIZE")


def main() -> None:
    for _ in range(3):
        answers(small_calls())
        for call in refused_calls():
            try:
                call()
            except (TypeError, ValueError):
                continue
            raise AssertionError("a call was not refused")


if __name__ == "__main__":
    main()
