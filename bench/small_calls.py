"""Small calls from several threads of Python: calls a second, beside those of one thread.

    python bench/small_calls.py [--threads 2] [--seconds 0.1]

Each thread makes products with an output of its own, and each product runs on one thread. With a
global interpreter lock, the threads take turns in the part of a call that is Python's; on a
free-threaded interpreter they do not. A bare loop of Python and small products of NumPy say what
the machine gives; all of them take turns, so that each round meets the same machine.
"""

import argparse
import statistics
import sys
import threading
import time

import numpy as np

import bitops as bo

REPEATS = 21


def products(m: int, n: int, k: int, function=bo.gemm):
    """What a thread calls: a product of ready operands."""
    rng = np.random.default_rng(0)
    a, w = (bo.pack(rng.standard_normal((rows, k))) for rows in (m, n))
    weights = bo.prepack(w)
    out = np.empty((m, n), np.int32)
    return lambda: function(a, weights, out=out)


def network():
    """What a thread calls: the scores of a packed network for one row."""
    net = bo.models.mlp(784, hidden=64, depth=1, classes=10, seed=0).freeze()
    x = np.zeros((1, 784), np.float32)
    return lambda: net(x)


def bare_loop():
    """What a thread calls: nothing but Python."""

    def run():
        total = 0
        for number in range(40):
            total += number
        return total

    return run


def float_products():
    """What a thread calls: a product of NumPy."""
    a, out = np.ones((8, 8), np.float32), np.empty((8, 8), np.float32)
    return lambda: np.matmul(a, a, out=out)


CASES = {
    "bare loop": bare_loop,
    "np.matmul 8x8x8": float_products,
    "gemm 1x64x64": lambda: products(1, 64, 64),
    "hamming 1x64x64": lambda: products(1, 64, 64, bo.hamming),
    "gemm 1x1024x1024": lambda: products(1, 1024, 1024),
    "gemm 16x1024x1024": lambda: products(16, 1024, 1024),
    "784-64-10, a row": network,
}


def rate(make, threads: int, seconds: float) -> float:
    """Calls a second of so many threads together."""
    counts = [0] * threads
    start, stop = threading.Barrier(threads + 1), threading.Event()

    def work(index: int) -> None:
        call, done = make(), 0
        call()
        start.wait()
        while not stop.is_set():
            for _ in range(20):
                call()
            done += 20
        counts[index] = done

    workers = [threading.Thread(target=work, args=(index,)) for index in range(threads)]
    for worker in workers:
        worker.start()
    start.wait()
    began = time.perf_counter()
    time.sleep(seconds)
    stop.set()
    for worker in workers:
        worker.join()
    return sum(counts) / (time.perf_counter() - began)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=0.1, help="of each measurement")
    options = parser.parse_args()
    bo.set_num_threads(1)
    lock = getattr(sys, "_is_gil_enabled", lambda: True)()
    print(f"Python {sys.version.split()[0]}, global interpreter lock: {'yes' if lock else 'no'}")
    rates = {name: [] for name in CASES}
    for _ in range(REPEATS):
        for name, make in CASES.items():
            rates[name].append([rate(make, n, options.seconds) for n in (1, options.threads)])
    bare = statistics.median(many / one for one, many in rates["bare loop"])
    print(f"{'':20} {'1 thread':>12} {f'{options.threads} threads':>12} {'ratio':>6} of the loop's")
    for name, pairs in rates.items():
        one, many = (statistics.median(column) for column in zip(*pairs, strict=True))
        ratio = statistics.median(b / a for a, b in pairs)
        print(f"{name:20} {one:10,.0f}/s {many:10,.0f}/s {ratio:6.2f} {ratio / bare:6.2f}")


if __name__ == "__main__":
    main()
