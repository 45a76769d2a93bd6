"""Search and training by Dask on this machine: overhead, workers, and what they come to on paper.

    python bench/on_workers.py [--only tasks search fit paper] [--workers 1 2] [--rows 400000]

Workers are processes of one thread. Seconds are medians; every result is checked against that of
one process. The paper table is computed from the rates given to it, which the first parts print.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import dask
import dask.array as da
import numpy as np
from distributed import Client, LocalCluster, wait

import bitops as bo
from bitops import distributed, models
from bitops.distributed.compression import KINDS
from bitops.layers import Sequential
from bitops.layers.states import flatten
from bitops.training import Callback, cross_entropy
from common import bit_rows

K = 256
QUERIES, COUNT, PARTITIONS = 64, 10, 8
TIMES = 15

# Gbit/s of a network, and what a message costs besides: a round trip and Dask's handling.
NETWORKS = (1, 10, 100)


@contextmanager
def cluster(workers: int) -> Iterator[Client]:
    with (
        LocalCluster(
            n_workers=workers, threads_per_worker=1, dashboard_address=":0", silence_logs=50
        ) as local,
        Client(local) as client,
    ):
        yield client


def median(call: Callable[[], Any], times: int = TIMES) -> tuple[float, Any]:
    """Return the median of the seconds of a call after the first, and what it returned."""
    result = call()
    seconds = []
    for _ in range(times):
        start = time.perf_counter()
        result = call()
        seconds.append(time.perf_counter() - start)
    return float(np.median(seconds)), result


# ---- search -------------------------------------------------------------------------------------


def search(workers: list[int], rows: int) -> None:
    """Time a query on partitions in the memory of workers, large ones and empty ones."""
    rng = np.random.default_rng(0)
    words = rng.integers(0, 2**64, (rows, K // 64), dtype=np.uint64)
    bits, queries = bit_rows(words), bo.pack(rng.standard_normal((QUERIES, K)))
    bo.set_num_threads(1)
    alone, expected = median(lambda: bo.hamming_topk(queries, bits, COUNT))
    rate = QUERIES * rows / alone
    print(f"topk, {QUERIES} queries of {K} bits, {rows:,} rows in {PARTITIONS} partitions")
    print(f"  one process, 1 thread: {1e3 * alone:8.1f} ms, {rate / 1e9:.2f}e9 distances a second")
    for count in workers:
        with cluster(count):
            whole = da.from_array(words, chunks=(-(-rows // PARTITIONS), -1)).persist()
            few = whole[:: rows // 64].rechunk((8, -1)).persist()
            wait([whole, few])
            whole_seconds, found = median(partial(distributed.topk, queries, whole, COUNT))
            few_seconds, _ = median(partial(distributed.topk, queries, few, COUNT))
            assert all(np.array_equal(a, b) for a, b in zip(found, expected, strict=True))
        print(
            f"  {count} workers: {1e3 * whole_seconds:8.1f} ms, of which overhead (64 rows) "
            f"{1e3 * few_seconds:.1f} ms; {QUERIES * rows / whole_seconds / 1e9:.2f}e9 a second"
        )


def tasks() -> None:
    """Time what a task and a message cost, with one worker."""
    with cluster(1) as client:
        for count in (1, 101):
            seconds, _ = median(partial(_do_nothing, client, count))
            print(f"{count:4} tasks that do nothing: {1e3 * seconds:.2f} ms")
        for size in (1 << 10, 100 << 20):
            data = np.zeros(size, np.uint8)
            seconds, _ = median(partial(client.scatter, data, hash=False, broadcast=True), 5)
            print(f"{size:,} bytes to a worker: {1e3 * seconds:.1f} ms")


def _do_nothing(client: Client, count: int) -> None:
    client.gather(client.map(abs, range(count), pure=False))


# ---- training -----------------------------------------------------------------------------------


class Steps(Callback):
    """Notes when steps end."""

    def __init__(self) -> None:
        self.ends: list[float] = []

    def on_batch(self, run: Any) -> None:
        self.ends.append(time.perf_counter())

    def median(self) -> float:
        return float(np.median(np.diff(self.ends)[1:]))


def networks() -> dict[str, tuple[Callable[[], Sequential], tuple[int, ...], int]]:
    """Small and large ones: a model, the shape of a row, and rows of a step."""
    return {
        "MLP 784-256-256-10": (lambda: models.mlp(784, 256, 2, 10, seed=1), (784,), 128),
        "MLP 784-4096x3-10": (lambda: models.mlp(784, 4096, 3, 10, seed=1), (784,), 1024),
        "ConvNet, a quarter wide": (lambda: models.binarynet(width=0.25, seed=1), (32, 32, 3), 400),
    }


def train(workers: list[int], names: list[str] | None) -> None:
    """Time steps in one process and on workers, for each form of gradients."""
    for name, (make, shape, rows) in networks().items():
        if names and not any(part in name for part in names):
            continue
        rng = np.random.default_rng(0)
        steps = 5
        x = rng.integers(0, 256, (steps * rows, *shape), dtype=np.uint8)
        y = rng.integers(0, 10, len(x))
        options = {"epochs": 1, "batch_size": rows, "loss": cross_entropy, "verbose": 0}
        print(f"fit, {name}, {rows} rows a step, 8 shards")
        expected = None
        bo.set_num_threads(1)
        for accumulate in (1, 8):
            model, clock = make(), Steps()
            model.fit(x, y, accumulate=accumulate, callbacks=clock, **options)
            print(f"  one process, accumulate={accumulate}: {1e3 * clock.median():8.1f} ms a step")
            expected = model
        for count in workers:
            with cluster(count) as client:
                for kind in ("float32", "int8", "sign"):
                    model, clock = make(), Steps()
                    distributed.fit(
                        model, x, y, client=client, gradients=kind, callbacks=clock, **options
                    )
                    if kind == "float32":
                        pairs = zip(flatten(model.state()), flatten(expected.state()), strict=True)
                        assert all(np.array_equal(a, b) for a, b in pairs)
                    print(f"  {count} workers, {kind:7}: {1e3 * clock.median():8.1f} ms a step")


# ---- on paper -----------------------------------------------------------------------------------


def traffic(model: Sequential) -> tuple[int, dict[str, int]]:
    """Return bytes of a step: to a worker, and from the workers for each form of gradients."""
    down, up = 0, dict.fromkeys(("float32", "int8", "sign"), 0)
    for parameter in model.parameters():
        is_bits = parameter.binary
        down += parameter.size // 8 if is_bits else 4 * parameter.size
        for kind, size in (("float32", 4), ("int8", 2), ("sign", 1)):
            up[kind] += parameter.size * (size if len(parameter.shape) > 1 else 4)
    return down, up


def paper(rates: list[float], latency: float, task: float) -> None:
    """Print what a step and a query take at most on networks, without the computing of a step.

    Weights go to workers by a tree of copies, gradients come back by a tree of sums; links of all
    machines are used at once, so that each level of a tree takes one message.
    """
    cases = {
        "MLP 784-4096x3-10": models.mlp(784, 4096, 3, 10, seed=1),
        "ConvNet of CIFAR-10": models.binarynet(seed=1),
    }
    print(f"\n{task * 1e3:.2f} ms a task, {latency * 1e3:.1f} ms a message; seconds a step")
    columns = ["network", "gradients", "bytes down", "bytes up", "workers"]
    print(f"| {' | '.join([*columns, *(f'{n} Gbit/s' for n in NETWORKS)])} |")
    for name, model in cases.items():
        down, up = traffic(model)
        for kind, size in up.items():
            for workers in (2, 8, 100, 1000):
                if workers > (KINDS[kind] or workers):  # a shard each
                    continue
                levels = math.ceil(math.log2(workers))
                times = [
                    (levels * (down + size) + size) * 8 / (n * 1e9)
                    + 2 * levels * latency
                    + 2 * workers * task
                    for n in NETWORKS
                ]
                cells = " | ".join(f"{t:.3g}" for t in times)
                print(f"| {name} | {kind} | {down:,} | {size:,} | {workers} | {cells} |")
    print(f"\n{QUERIES} queries, top {COUNT}; seconds by distances a second and worker")
    columns = [f"{rate / 1e9:.3g}e9 a second" for rate in rates]
    print(f"| {' | '.join(['codes', 'workers', 'memory', *columns, 'tasks and messages'])} |")
    for codes in (1e9, 1e10, 1e11):
        for workers in (1, 10, 32, 100, 1000):
            seconds = [f"{QUERIES * codes / (rate * workers):.3g}" for rate in rates]
            overhead = 2.2 * workers * task + 4 * latency
            memory = codes * K / 8 / workers
            cells = [f"{memory / 1e9:.3g} GB", *seconds, f"{overhead:.3g}"]
            print(f"| {codes:.0e} | {workers} | {' | '.join(cells)} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", choices=("tasks", "search", "fit", "paper"))
    parser.add_argument("--networks", nargs="+", help="parts of the names of those to train")
    parser.add_argument("--workers", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--rows", type=int, default=400_000)
    parser.add_argument(
        "--rate", nargs="+", type=float, default=[1e9], help="distances a second, for the paper"
    )
    parser.add_argument("--latency", type=float, default=2e-3, help="seconds a message")
    parser.add_argument("--task", type=float, default=5e-4, help="seconds that a task costs")
    args = parser.parse_args()
    dask.config.set({"distributed.admin.large-graph-warning-threshold": "1 TiB"})
    if not args.only or "tasks" in args.only:
        tasks()
    if not args.only or "search" in args.only:
        search(args.workers, args.rows)
    if not args.only or "fit" in args.only:
        train(args.workers, args.networks)
    if not args.only or "paper" in args.only:
        paper(args.rate, args.latency, args.task)


if __name__ == "__main__":
    main()
