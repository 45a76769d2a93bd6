"""Tails of single calls: packed networks beside what any program meets on the machine.

    python bench/tails.py [--calls 10000]

Each network takes one uint8 image, on one thread. Two rivals that allocate nothing take about as
long: a bare loop of Python, and a plain read (`max` of NumPy) of as many bytes. All of them take
turns, 500 calls at a time, so that they meet the same interruptions. What the loop's tail is, no
call can be better than; the rest belongs to the caches that calls share with other programs.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np

import common
from bitops.benchmark import threads
from bitops.models import mlp

NETS = ((64, 1), (256, 2), (1024, 3), (4096, 3))  # units of a hidden layer, hidden layers
TURN = 500  # calls


def durations(call: Callable[[], Any], calls: int) -> list[int]:
    """Nanoseconds of each call, and those of the clock."""
    clock = time.perf_counter_ns
    taken = []
    for _ in range(calls):
        start = clock()
        call()
        taken.append(clock() - start)
    return taken


def bare_loop(steps: int) -> Callable[[], None]:
    def run() -> None:
        for _ in numbers:
            pass

    numbers = range(steps)
    return run


def plain_read(numbers: int) -> Callable[[], Any]:
    return np.zeros(numbers, np.float32).max


def as_long(
    make: Callable[[int], Callable[[], Any]], size: int, nanoseconds: float
) -> Callable[[], Any]:
    """Return the call of the size that takes about so long."""
    for _ in range(4):  # a call has a fixed cost, so that one step falls short
        taken = statistics.median(durations(make(size), TURN))
        size = max(round(size * nanoseconds / taken), 1)
    return make(size)


def measure(units: int, depth: int, calls: int) -> dict[str, np.ndarray]:
    """Microseconds of the calls of a network and of its rivals, in the order of their size."""
    net = mlp(784, units, depth, seed=0).freeze()
    image = np.random.default_rng(0).integers(0, 256, (1, 784), np.uint8)
    usual = statistics.median(durations(lambda: net(image), TURN))
    cases = {
        "bitops": lambda: net(image),
        "loop": as_long(bare_loop, 100, usual),
        "read": as_long(plain_read, 1000, usual),
    }
    taken: dict[str, list[int]] = {name: [] for name in cases}
    for _ in range(-(-calls // TURN)):
        for name, call in cases.items():
            call()  # brings back what it reads
            taken[name] += durations(call, TURN)
    return {name: np.array(times) / 1e3 for name, times in taken.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--calls", type=int, default=10000, help="of each network")
    options = parser.parse_args()
    for name, value in common.stamp().items():
        print(f"{name}: {value}")
    print("\nmicroseconds of a call, and the 99th percentile as a multiple of the 50th")
    print(f"{'net':16} {'call':8} {'best':>8} {'50 %':>8} {'99 %':>8} {'ratio':>6}")
    with threads(1):
        for units, depth in NETS:
            for name, times in measure(units, depth, options.calls).items():
                best, middle, late = np.percentile(times, [0, 50, 99])
                print(
                    f"784-{units}x{depth}-10".ljust(16),
                    f"{name:8} {best:8.2f} {middle:8.2f} {late:8.2f} {late / middle:6.2f}",
                )


if __name__ == "__main__":
    main()
