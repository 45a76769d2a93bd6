"""gemm right after a NumPy product, whose threads then wait in a loop for the next one.

    OPENBLAS_NUM_THREADS=2 python bench/beside_blas.py [--threads 2] [--calls 200]

For one thread and for several: microseconds of a call of gemm alone, and of one that follows a
float32 product of 600 x 600 numbers, which is not timed. Operands of the second are colder.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import numpy as np

import bitops as bo
from bitops.benchmark import random_signs

SHAPES = [(1, 4096, 4096), (64, 1024, 1024), (256, 1024, 1024), (1024, 1024, 1024)]
SHAPES += [(4096, 1024, 1024)]


def measure(call: Callable[[], object], before: Callable[[], object], calls: int) -> str:
    """Return the median and the 90th percentile of the microseconds of a call."""
    taken = []
    for _ in range(calls):
        before()
        start = time.perf_counter()
        call()
        taken.append(1e6 * (time.perf_counter() - start))
    return "{:9.1f} {:9.1f}".format(*np.percentile(taken, [50, 90]))


def measure_shape(m: int, n: int, k: int, most: int, calls: int) -> None:
    """Print a line for one thread and one for several."""
    rng = np.random.default_rng(0)
    a, w = bo.pack(random_signs(rng, (m, k))), bo.pack(random_signs(rng, (n, k)))
    out = np.empty((m, n), np.int32)
    x = rng.standard_normal((600, 600)).astype(np.float32)

    def call() -> None:
        bo.gemm(a, w, out=out)

    for count in (1, most):
        bo.set_num_threads(count)
        time.sleep(1)  # until threads of the product before are asleep
        measure(call, lambda: None, calls)
        alone = measure(call, lambda: None, calls)
        after = measure(call, lambda: x @ x, calls)
        print(f"{f'{m} {n} {k}':>20} {count:>11} {alone} {after}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--calls", type=int, default=200)
    options = parser.parse_args()
    print(f"{'microseconds':>32} {'alone':>15} {'after a product':>19}")
    print(f"{'m n k':>20} {'threads':>11} {'median':>9} {'p90':>9} {'median':>9} {'p90':>9}")
    for shape in SHAPES:
        measure_shape(*shape, options.threads, options.calls)


if __name__ == "__main__":
    main()
