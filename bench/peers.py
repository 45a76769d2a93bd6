"""Binary GEMM and search against every peer, in one process and one table.

    python bench/peers.py [--seconds 2] [--json peers.json] [--no-topk]

Columns: float32 BLAS through NumPy; int8 through torch._int_mm; numkong's Hamming matrix with
weights packed beforehand; faiss.hammings; bitops with weights prepacked; bitops with plain rows, so
that packing into panels, if any, is in the call. One thread each, then all threads. Peers take
turns within a round, every result is compared with the float32 product, and figures are medians. A
peer that is not installed, or cannot run a shape, is named and left out.
"""

from __future__ import annotations

import argparse
import importlib
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import bitops as bo
import common
from bitops.benchmark import (
    WrongResult,
    interleave,
    port_bound,
    random_signs,
    thread_counts,
    threads,
)

SHAPES = (
    (512, 512, 512),
    (1024, 1024, 1024),
    (2048, 2048, 2048),
    (4096, 4096, 4096),
    (196, 256, 2304),
    (100, 4096, 4096),
    (1, 4096, 4096),
)
PEERS = ("numkong", "faiss", "torch")
TOPK = (1000, 1_000_000, 1024, 10)


def load_peers(names: tuple[str, ...]) -> dict[str, Any]:
    """Import what is installed, and name what is not."""
    found = {}
    for name in names:
        try:
            found[name] = importlib.import_module(name)
        except ImportError as error:
            print(f"note: {name} is left out: {error}")
    return found


def limit_peers(peers: dict[str, Any], count: int) -> None:
    """Give the peers as many threads as `threads` gives to BLAS and bitops."""
    if "torch" in peers:
        peers["torch"].set_num_threads(count)
    if "faiss" in peers:
        peers["faiss"].omp_set_num_threads(count)


def numkong_hammings(numkong: Any, a: np.ndarray, w: np.ndarray) -> Callable[[], Any]:
    """The distances of bytes to weights that are packed beforehand, in a tensor of uint32."""
    packed = numkong.hammings_pack(w)
    out = numkong.hammings_packed(a, packed)
    return lambda: numkong.hammings_packed(a, packed, out=out)


def faiss_hammings(
    faiss: Any, a: np.ndarray, w: np.ndarray, out: np.ndarray
) -> Callable[[], np.ndarray]:
    """The distances of all pairs of rows of bytes, in `out`, int32."""
    left, right, result = map(faiss.swig_ptr, (a, w, out))

    def call() -> np.ndarray:
        faiss.hammings(left, right, len(a), len(w), a.shape[1], result)
        return out

    return call


class Products:
    """The product of one shape in the form of every peer, and the check of its result."""

    def __init__(self, m: int, n: int, k: int, peers: dict[str, Any], count: int):
        rng = np.random.default_rng(0)
        self.shape = (m, n, k)
        a, w = random_signs(rng, (m, k)), random_signs(rng, (n, k))
        self.dot = (a @ w.T).astype(np.int32)  # exact: sums of +-1 below 2**24
        self.mismatches = (k - self.dot) // 2
        a_bits, w_bits, w_panels = bo.pack(a), bo.pack(w), bo.prepack(bo.pack(w))
        real, out = np.empty((m, n), np.float32), np.empty((m, n), np.int32)
        self.calls: dict[str, Callable[[], Any]] = {
            "float32": lambda: np.matmul(a, w.T, out=real),
            "prepacked": lambda: bo.gemm(a_bits, w_panels, out=out),
            "packing": lambda: bo.gemm(a_bits, w_bits, out=out),
        }
        a_bytes, w_bytes = a_bits.words.view(np.uint8), w_bits.words.view(np.uint8)
        if "torch" in peers:
            self.add_torch(peers["torch"], a, w)
        if "numkong" in peers and count == 1:  # it has no threads of its own
            self.calls["numkong"] = numkong_hammings(peers["numkong"], a_bytes, w_bytes)
        if "faiss" in peers:
            counts = np.empty((m, n), np.int32)
            self.calls["faiss"] = faiss_hammings(peers["faiss"], a_bytes, w_bytes, counts)

    def add_torch(self, torch: Any, a: np.ndarray, w: np.ndarray) -> None:
        left, right = torch.from_numpy(a).to(torch.int8), torch.from_numpy(w).to(torch.int8).T
        try:
            torch._int_mm(left, right)
        except RuntimeError as error:
            print(f"note: torch._int_mm is left out for {self.shape}: {error}")
            return
        self.calls["int8"] = lambda: torch._int_mm(left, right)

    def check(self, name: str, result: Any) -> None:
        expected = self.mismatches if name in ("numkong", "faiss") else self.dot
        if not np.array_equal(np.asarray(result), expected):
            raise WrongResult(f"[peers] {name} gave a wrong product for (m, n, k) = {self.shape}")


def measure_shape(
    shape: tuple[int, int, int], peers: dict[str, Any], count: int, seconds: float
) -> dict[str, Any]:
    """Median GMAC/s of every peer, the ratio of bitops to each, and its share of the bound."""
    with threads(count):
        limit_peers(peers, count)
        products = Products(*shape, peers, count)
        bound = port_bound() if count == 1 else None
        timings = interleave(products.calls, seconds=seconds, check=products.check)
    work = shape[0] * shape[1] * shape[2] / 1e9
    rates = {name: work / timing.median for name, timing in timings.items()}
    ours = rates["prepacked"]
    return {
        "shape": shape,
        "threads": count,
        "gmacs": rates,
        "spread": {name: timing.spread for name, timing in timings.items()},
        "ratio": {name: ours / rate for name, rate in rates.items()},
        "bound": bound,
        "share_of_bound": ours / bound if bound else None,
    }


COLUMNS = ("float32", "int8", "numkong", "faiss", "prepacked", "packing")


def print_row(row: dict[str, Any]) -> None:
    cells = []
    for name in COLUMNS:
        rate = row["gmacs"].get(name)
        cells.append(
            "        -       " if rate is None else f"{rate:7.0f} {row['ratio'][name]:6.2f}x "
        )
    share = "" if row["bound"] is None else f"{row['share_of_bound']:6.0%} of {row['bound']:.0f}"
    print(f"{common.case_id(row['shape']):>16} " + "".join(cells) + share, flush=True)


def measure_topk(peers: dict[str, Any], count: int, rounds: int = 3) -> dict[str, Any]:
    """hamming_topk and faiss's IndexBinaryFlat in turns; every distance and index is compared."""
    m, n, k, nearest = TOPK
    rng = np.random.default_rng(0)
    a, w = (rng.integers(0, 2**64, (rows, k // 64), np.uint64) for rows in (m, n))
    queries, base = bo.BitArray.from_words(a, (m, k)), bo.BitArray.from_words(w, (n, k))
    index = peers["faiss"].IndexBinaryFlat(k)
    index.add(w.view(np.uint8))
    panels = bo.prepack(base)
    calls = {
        "faiss": lambda: index.search(a.view(np.uint8), nearest),
        "prepacked": lambda: bo.hamming_topk(queries, panels, nearest),
        "packing": lambda: bo.hamming_topk(queries, base, nearest),
    }
    samples: dict[str, list[float]] = {name: [] for name in calls}
    with threads(count):
        limit_peers(peers, count)
        for _ in range(rounds):
            results = {}
            for name, call in calls.items():
                start = time.perf_counter()
                results[name] = call()
                samples[name].append(time.perf_counter() - start)
            check_topk(a, w, results)
    medians = {name: statistics.median(values) for name, values in samples.items()}
    return {"shape": TOPK, "threads": count, "seconds": medians}


def check_topk(a: np.ndarray, w: np.ndarray, results: dict[str, Any]) -> None:
    """All distances equal faiss's; indices have these distances and increase among equal ones.

    faiss does not promise an order of equal distances, so its indices are not the measure.
    """
    expected = results["faiss"][0]
    for name in ("prepacked", "packing"):
        distances, indices = results[name]
        true = np.bitwise_count(a[:, None] ^ w[indices]).sum(-1, dtype=np.int32)
        order = (np.diff(distances) > 0) | (np.diff(indices) > 0)
        if not (
            np.array_equal(distances, expected) and np.array_equal(true, expected) and order.all()
        ):
            raise WrongResult(f"[peers] hamming_topk ({name}) disagrees with faiss")
    if not np.array_equal(results["prepacked"][1], results["packing"][1]):
        raise WrongResult("[peers] hamming_topk depends on the order of its weights")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=2.0, help="time for each shape")
    parser.add_argument("--json", type=Path, help="write all figures to this file")
    parser.add_argument("--no-topk", action="store_true", help="leave out the search")
    options = parser.parse_args()
    stamp = common.stamp()
    for name, value in stamp.items():
        print(f"{name}: {value}")
    peers = load_peers(PEERS)
    report: dict[str, Any] = {"machine": stamp, "gemm": [], "topk": []}
    for count in thread_counts():
        print(f"\nGMAC/s and how many times faster bitops prepacked is, {count} thread(s), medians")
        print(f"{'':16} " + "".join(f"{name:^16}" for name in COLUMNS) + "share of port bound")
        for shape in SHAPES:
            row = measure_shape(shape, peers, count, options.seconds)
            report["gemm"].append(row)
            print_row(row)
        if "faiss" in peers and not options.no_topk:
            row = measure_topk(peers, count)
            report["topk"].append(row)
            seconds = row["seconds"]
            print(f"hamming_topk, (queries, rows, bits, count) = {TOPK}, seconds:")
            for name, value in seconds.items():
                print(f"{name:>16} {value:7.3f} {seconds['faiss'] / value:6.2f}x faiss")
    if options.json:
        options.json.write_text(json.dumps(report, indent=2, default=str))


if __name__ == "__main__":
    main()
