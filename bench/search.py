"""Searches by metrics of sets and among subsets, against numkong, faiss and ourselves.

    python bench/search.py [--case matrix|sorted|subset|job] [--seconds 2]
    BITOPS_ISA=avx2 python bench/search.py

One thread. All calls of a case take turns in one process; times are medians, and every result is
checked against plain NumPy. With AVX2, numkong uses AVX2 too: its kernels for AVX-512 are switched
off, as ours are. faiss cannot be told.
"""

from __future__ import annotations

import argparse
import importlib
import mmap
import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

import bitops as bo
import common
from bitops import search
from bitops.benchmark import WrongResult, threads
from common import bit_rows, fingerprints

MATRIX = (1000, 10_000, 2048)
SORTED = (100, 1_000_000, 2048, 10)  # queries, rows, bits, count
SUBSET = (4_000_000, 256, 10)
JOB = (230_099, 810, 4097)
AVX512 = ("skylake", "icelake", "genoa", "turin", "sapphire")  # what numkong calls its kernels
CHECKED = 3  # queries that are compared with NumPy

Calls = dict[str, Callable[[], Any]]
Row = tuple[str, dict[str, float], float]  # what is timed, seconds of each call, GMAC


def optional(name: str) -> Any:
    """Import a rival, or name it as left out."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        print(f"note: {name} is left out: {error}")
        return None


def medians(calls: Calls, seconds: float, check: Callable[[str, Any], None]) -> dict[str, float]:
    """Time the calls in turns, at least three times each, and check all results.

    A first round is not timed: prepacked operands are then ready for all kinds of searches.
    """
    for name, call in calls.items():
        check(name, call())
    samples: dict[str, list[float]] = {name: [] for name in calls}
    end = time.perf_counter() + seconds
    while len(samples[next(iter(calls))]) < 3 or time.perf_counter() < end:
        for name, call in calls.items():
            start = time.perf_counter()
            result = call()
            samples[name].append(time.perf_counter() - start)
            check(name, result)
    return {name: statistics.median(values) for name, values in samples.items()}


def expect(right: bool, name: str) -> None:
    if not right:
        raise WrongResult(f"[search] the result of {name} is wrong")


def jaccard(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Jaccard distances of one row of words to many, in plain NumPy."""
    either = np.bitwise_count(a | b).sum(axis=1, dtype=np.int64)
    differ = np.bitwise_count(a ^ b).sum(axis=1, dtype=np.int64)
    return differ / np.maximum(either, 1)


def matrix_case(seconds: float) -> Iterator[Row]:
    m, n, k = MATRIX
    rng = np.random.default_rng(0)
    a, b = (rng.integers(0, 2**64, (rows, k // 64), np.uint64) for rows in (m, n))
    expected = np.array([jaccard(row, b) for row in a[:CHECKED]])
    panels, out = bo.prepack(bit_rows(b, k)), np.zeros((m, n))
    calls: Calls = {
        "prepacked": lambda: search.pairwise(bit_rows(a, k), panels, "jaccard", out=out)
    }
    numkong = optional("numkong")
    if numkong:
        for name in () if bo.isa.active() in ("amx", "avx512") else AVX512:
            numkong.disable_capability(name)
        packed = numkong.hammings_pack(b.view(np.uint8))
        tensor = numkong.jaccards_packed(a.view(np.uint8), packed)  # float32
        calls["numkong"] = lambda: numkong.jaccards_packed(a.view(np.uint8), packed, out=tensor)

    def check(name: str, result: Any) -> None:
        error = np.abs(np.asarray(result)[:CHECKED] - expected).max()
        expect(error == 0 if name == "prepacked" else error < 1e-6, name)

    yield f"Jaccard matrix {m} x {n} x {k}", medians(calls, seconds, check), m * n * k / 1e9


def sorted_case(seconds: float) -> Iterator[Row]:
    """Rows sorted by their counts, whose search is bounded, and the same rows in random order."""
    m, n, k, count = SORTED
    for related in (True, False):
        rng = np.random.default_rng(0)
        rows = fingerprints(rng, n + m, k, related)
        rows = rows[rng.permutation(len(rows))]
        a, b = rows[:m], rows[m:]
        ascending = b[np.argsort(bo.popcount(bit_rows(b, k), axis=1), kind="stable")]
        expected = np.array([np.sort(jaccard(row, b))[:count] for row in a[:CHECKED]])
        sides = {
            "sorted": bit_rows(ascending, k),
            "shuffled": bit_rows(b, k),
            "sorted, prepacked": bo.prepack(bit_rows(ascending, k)),
            "shuffled, prepacked": bo.prepack(bit_rows(b, k)),
        }
        calls = {
            name: lambda a=a, side=side: search.topk(bit_rows(a, k), side, count, "jaccard")
            for name, side in sides.items()
        }
        whole = calls["shuffled"]()[0]

        def check(name: str, result: Any, whole: Any = whole, expected: Any = expected) -> None:
            expect(np.array_equal(result[0], whole), name)
            expect(np.array_equal(result[0][:CHECKED], expected), name)

        kind = "related" if related else "unrelated"
        yield (
            f"Jaccard top-{count}, {m} x {n} x {k}, {kind}",
            medians(calls, seconds, check),
            m * n * k / 1e9,
        )


def subset_case(seconds: float) -> Iterator[Row]:
    n, k, count = SUBSET
    rng = np.random.default_rng(0)
    b = rng.integers(0, 2**64, (n, k // 64), np.uint64)
    bits = bit_rows(b, k)
    faiss = optional("faiss")
    if faiss:
        index = faiss.IndexBinaryFlat(k)
        index.add(b.view(np.uint8))
    for m in (1, 16, 100):
        a = rng.integers(0, 2**64, (m, k // 64), np.uint64)
        for share in (0.5, 0.1, 0.01):
            mask = rng.random(n) < share
            ids = np.flatnonzero(mask)
            expected = np.array(
                [np.sort(np.bitwise_count(row ^ b[ids]).sum(axis=1))[:count] for row in a[:CHECKED]]
            )
            calls: Calls = {
                "mask": lambda a=a, mask=mask: search.topk(
                    bit_rows(a, k), bits, count, "hamming", subset=mask
                )
            }
            if faiss:
                bitmap = np.packbits(mask, bitorder="little")
                selector = faiss.IDSelectorBitmap(bitmap)
                options = faiss.SearchParameters(sel=selector)
                calls["faiss"] = lambda a=a, options=options: index.search(
                    a.view(np.uint8), count, params=options
                )

            def check(name: str, result: Any, mask: Any = mask, expected: Any = expected) -> None:
                expect(np.array_equal(result[0][:CHECKED], expected), name)
                expect(mask[result[1]].all(), name)

            yield (
                f"top-{count}, {m} x {n} x {k}, {share:.0%} allowed",
                medians(calls, seconds, check),
                m * n * k / 1e9,
            )


def job_case(seconds: float) -> Iterator[Row]:
    """The Hamming distances for which SciPy's cdist was reported to take 187 s."""
    m, n, k = JOB
    rng = np.random.default_rng(0)
    a, b = bo.pack(rng.integers(0, 2, (m, k), np.int8) > 0), bo.pack(rng.random((n, k)) < 0.5)
    expected = np.bitwise_count(a.words[::1000, None] ^ b.words).sum(axis=-1, dtype=np.int32)
    out = np.zeros((m, n), np.int32)

    def check(name: str, result: Any) -> None:
        rows = result if result is expected else result[::1000]
        expect(np.array_equal(rows, expected), name)

    def pages() -> np.ndarray:
        """Return a new array of which one number on each page is written."""
        new = np.empty(m * n, np.int32)
        new[:: mmap.PAGESIZE // new.itemsize] = 0
        return expected

    calls: Calls = {
        "new array": lambda: bo.hamming(a, b),
        "out": lambda: bo.hamming(a, b, out=out),
        "pages of a new array alone": pages,
    }
    yield f"Hamming matrix {m} x {n} x {k}", medians(calls, seconds, check), m * n * k / 1e9


CASES = {"matrix": matrix_case, "sorted": sorted_case, "subset": subset_case, "job": job_case}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--case", choices=CASES, help="one of them; all by default")
    parser.add_argument("--seconds", type=float, default=2.0, help="time for each row")
    options = parser.parse_args()
    for name, value in common.stamp().items():
        print(f"{name}: {value}")
    with threads(1):
        for name in [options.case] if options.case else CASES:
            for what, times, work in CASES[name](options.seconds):
                cells = (
                    f"{call} {1e3 * t:.1f} ms ({work / t:.0f} GMAC/s)" for call, t in times.items()
                )
                print(f"{what}: {', '.join(cells)}", flush=True)


if __name__ == "__main__":
    main()
