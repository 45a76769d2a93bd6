"""This tree against another commit: the GEMM shapes, in turns, failing below 0.98 of its speed.

    python bench/compare.py main [--cpu 1] [--json compare.json]

The other commit and the tracked files of this tree as they are (changes included) are built and
installed into temporary folders, which are removed afterwards. Subprocesses of the two alternate,
pinned to one CPU with one thread; each reports its median, and the best of a tree counts, so that a
busy moment does not. A shape below the limit is measured again, up to --retries times.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
LIMIT = 0.98
SHAPES = (
    (512, 512, 512),
    (1024, 1024, 1024),
    (2048, 2048, 2048),
    (196, 256, 2304),
    (100, 4096, 4096),
    (1, 4096, 4096),
)

# Uses what every commit has; also checks the product, in float32.
PROGRAM = """
import json, sys, time
import numpy as np
import bitops as bo

m, n, k = map(int, sys.argv[1:4])
bo.set_num_threads(1)
rng = np.random.default_rng(0)
a, w = (rng.integers(0, 2, (rows, k)).astype(np.float32) * 2 - 1 for rows in (m, n))
a_bits, rows = bo.pack(a), bo.pack(w)
panels, out = bo.prepack(rows), np.empty((m, n), np.int32)
found = {}
for name, weights in (("prepacked", panels), ("packing", rows)):
    calls = max(1, round(2e9 / (m * n * k)))
    seconds, end = [], time.perf_counter() + 0.3
    while time.perf_counter() < end or len(seconds) < 3:
        start = time.perf_counter()
        for _ in range(calls):
            bo.gemm(a_bits, weights, out=out)
        seconds.append((time.perf_counter() - start) / calls)
    assert np.array_equal(out, a @ w.T), "wrong product"
    found[name] = float(np.median(seconds))
print(json.dumps(found))
"""


def run(*command: str | Path, **options: Any) -> str:
    """Run a command; its output, or an exit that shows what went wrong."""
    result = subprocess.run(
        [str(word) for word in command], capture_output=True, text=True, **options
    )
    if result.returncode:
        sys.exit(f"compare: {' '.join(map(str, command))} failed:\n{result.stdout}{result.stderr}")
    return result.stdout


def tracked_changes() -> str:
    """A commit-like object of the tree as it is; HEAD if nothing is changed."""
    return run("git", "stash", "create", cwd=ROOT).strip() or "HEAD"


def install(revision: str, folder: Path) -> Path:
    """Build a revision; returns the folder to import bitops from."""
    source, target = folder / "source", folder / "install"
    source.mkdir(parents=True)
    archive = folder / "source.tar"
    run("git", "archive", "--output", archive, revision, cwd=ROOT)
    run("tar", "-xf", archive, "-C", source)
    options = ("--no-deps", "--no-build-isolation", "--quiet", "--target", target)
    run(sys.executable, "-m", "pip", "install", *options, source)
    return target


def measure(package: Path, shape: tuple[int, int, int], cpu: int) -> dict[str, float]:
    """Median seconds of one subprocess."""

    def pin() -> None:
        if hasattr(os, "sched_setaffinity"):
            os.sched_setaffinity(0, {cpu})

    env = {**os.environ, "PYTHONPATH": str(package), "OPENBLAS_NUM_THREADS": "1"}
    output = run(
        sys.executable, "-c", PROGRAM, *map(str, shape), cwd=package, env=env, preexec_fn=pin
    )
    return json.loads(output)


def compare(
    old: Path, new: Path, shape: tuple[int, int, int], options: argparse.Namespace
) -> dict[str, Any]:
    """Best medians of both trees and how many times faster the new one is."""
    best: dict[str, dict[str, float]] = {"old": {}, "new": {}}
    ratios: dict[str, float] = {}
    tries = 0
    while tries <= options.retries and min(ratios.values(), default=0) < LIMIT:
        tries += 1
        for _ in range(options.rounds):
            for side, package in (("old", old), ("new", new)):
                for name, seconds in measure(package, shape, options.cpu).items():
                    best[side][name] = min(best[side].get(name, seconds), seconds)
        ratios = {name: best["old"][name] / best["new"][name] for name in best["new"]}
    return {"shape": shape, "seconds": best, "ratio": ratios, "tries": tries}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("revision", help="commit to compare with")
    parser.add_argument("--cpu", type=int, default=max(os.sched_getaffinity(0)))
    parser.add_argument("--rounds", type=int, default=3, help="subprocesses of each tree")
    parser.add_argument("--retries", type=int, default=3, help="for a shape below the limit")
    parser.add_argument("--json", type=Path, help="write all figures to this file")
    options = parser.parse_args()
    report = []
    with tempfile.TemporaryDirectory(prefix="bitops-compare-") as folder:
        old = install(options.revision, Path(folder, "old"))
        new = install(tracked_changes(), Path(folder, "new"))
        print(f"speed of this tree over {options.revision}, one thread, CPU {options.cpu}")
        for shape in SHAPES:
            row = compare(old, new, shape, options)
            report.append(row)
            cells = (f"{name} {ratio:6.3f}x" for name, ratio in row["ratio"].items())
            print(f"{'x'.join(map(str, shape)):>16} ", "   ".join(cells), flush=True)
    if options.json:
        options.json.write_text(json.dumps(report, indent=2))
    slow = [row["shape"] for row in report if min(row["ratio"].values()) < LIMIT]
    if slow:
        sys.exit(f"compare: slower than {LIMIT}x for {slow}")


if __name__ == "__main__":
    main()
