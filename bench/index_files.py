"""Search an index in files against reading these files, with what the system keeps of them dropped.

    python bench/index_files.py [--gib 4] [--bits 1024] [--queries 1 100] [--folder DIR]

The index is larger than the memory that the system may use for copies of files if the process runs
in a control group with a limit, such as 600 MB. A plain read takes pieces of 8 MiB. Reads and
searches take turns on one thread, since the speed of a disk changes; printed are the medians. Every
query is a row of the index, which must be found first.
"""

from __future__ import annotations

import argparse
import mmap
import os
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np

import bitops as bo
import common
from bitops.search import BitIndex

PIECE = 1 << 23  # bytes that are read at once
ROUNDS = 3


def make(folder: Path, gib: float, bits: int) -> None:
    """Write an index of random rows, in parts that fit the memory."""
    BitIndex(np.zeros((0, bits), bool)).save(folder)
    index, rng, words = BitIndex.load(folder), np.random.default_rng(0), bits // 64
    left = int(gib * 2**30) // (8 * words)
    while left:
        rows = min(left, 2**26 // words)  # 512 MiB, which are not merged
        part = rng.integers(0, 2**64, (rows, words), np.uint64)
        index.add(bo.BitArray.from_words(part, (rows, bits)))
        left -= rows


def files(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.rows.npy"))


def drop(folder: Path) -> None:
    """Let the system forget the content of the files."""
    for path in files(folder):
        with path.open("rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def read(folder: Path) -> float:
    """Seconds of a plain read of all files."""
    buffer = mmap.mmap(-1, PIECE)
    began = time.perf_counter()
    for path in files(folder):
        descriptor = os.open(path, os.O_RDONLY)
        while os.readv(descriptor, [buffer]):
            pass
        os.close(descriptor)
    return time.perf_counter() - began


def search(index: BitIndex, ids: np.ndarray, queries: bo.BitArray) -> float:
    """Seconds of a search, whose result is checked."""
    began = time.perf_counter()
    distances, found = index.search(queries, 10)
    seconds = time.perf_counter() - began
    assert np.array_equal(found[:, 0], ids) and not distances[:, 0].any()
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--gib", type=float, default=4)
    parser.add_argument("--bits", type=int, default=1024, help="a multiple of 64")
    parser.add_argument("--queries", type=int, nargs="+", default=[1, 100])
    parser.add_argument("--folder", type=Path, help="where the index is, or is made and stays")
    args = parser.parse_args()
    bo.set_num_threads(1)
    with tempfile.TemporaryDirectory() as place:
        folder = args.folder or Path(place) / "index"
        if not (folder / "index.json").exists():
            make(folder, args.gib, args.bits)
        measure(folder, args.queries)


def measure(folder: Path, counts: list[int]) -> None:
    """Print a line for each number of queries."""
    stamp = common.stamp()
    index = BitIndex.load(folder)
    size = sum(path.stat().st_size for path in files(folder))
    print(f"bitops {stamp['version']} ({stamp['commit']}) on {stamp['cpu']}, {stamp['isa']}")
    print(f"{len(index):,} rows of {index.k:,} bits, {size / 2**30:.1f} GiB, {index.metric}\n")
    print(f"{'queries':>7} {'read GB/s':>10} {'search GB/s':>12} {'ratio':>6}")
    for count in counts:
        ids = np.random.default_rng(1).choice(len(index), count, replace=False)
        queries, reads, searches = index.rows(ids), [], []
        for _ in range(ROUNDS):
            drop(folder)
            reads.append(read(folder))
            drop(folder)
            searches.append(search(index, ids, queries))
        plain, ours = statistics.median(reads), statistics.median(searches)
        print(
            f"{count:>7} {size / plain / 1e9:>10.2f} {size / ours / 1e9:>12.2f} "
            f"{plain / ours:>6.2f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
