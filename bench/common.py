"""What the bench files share: the stamp with the commit, and one way to time, check and compare.

Timer, thread limits, shapes and the result check are those of `bitops bench` (bitops.benchmark).
"""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from bitops import BitArray, pack
from bitops.benchmark import interleave, machine_stamp, threads

FAMILY = 20  # fingerprints that resemble each other


def commit() -> str:
    """Return the commit of this checkout, marked when files differ from it."""
    try:
        return subprocess.run(
            ["git", "describe", "--always", "--dirty"],
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def bit_rows(words: np.ndarray, k: int | None = None) -> BitArray:
    """Return rows of words as rows of k bits, by default all that they have."""
    return BitArray.from_words(words, (len(words), k or 64 * words.shape[1]))


def stamp() -> dict[str, Any]:
    """Return the machine stamp with the commit; the installed package must be built from it."""
    return machine_stamp() | {"commit": commit()}


def peak_bytes() -> int:
    """Return the most memory that this process has had; getrusage counts its parent's, too."""
    words = Path("/proc/self/status").read_text().split("VmHWM:")[1].split()
    return 1024 * int(words[0])


def case_id(value: Any) -> str | None:
    """Name a shape MxNxK in a test's identifier; leave other parameters to pytest."""
    return "x".join(map(str, value)) if isinstance(value, tuple) else None


def run(
    benchmark: Any,
    call: Callable[[], Any],
    *,
    check: Callable[[str, Any], None],
    rival: Callable[[], Any],
    work: float,
    unit: str,
    thread_count: int = 1,
) -> None:
    """Time `call` with pytest-benchmark and its ratio to `rival` in turns, and check every result.

    Parameters
    ----------
    benchmark : BenchmarkFixture
        Receives rate, unit, ratio and spread in `extra_info`, which conftest.py prints.
    call, rival : callable
        What to time, operands and buffers bound beforehand; the rival is NumPy or float32 BLAS.
    check : callable
        Called with a name and a result; raises `bitops.benchmark.WrongResult`.
    work, unit : float, str
        Work of one call, in billions: multiply-accumulates for "GMAC/s", bytes for "GB/s".
    """
    with threads(thread_count):
        check("bitops", benchmark(call))
        pair = interleave({"bitops": call, "rival": rival}, seconds=0.5, check=check)
    ours = pair["bitops"]
    benchmark.extra_info.update(
        rate=work / ours.best,
        unit=unit,
        ratio=pair["rival"].best / ours.best,
        spread=ours.spread,
        threads=thread_count,
    )


def fingerprints(rng: np.random.Generator, n: int, k: int, related: bool) -> np.ndarray:
    """Rows with about 3 % of their bits set, in numbers that vary by a third, as words.

    Related rows are families: each replaces 2 to 15 % of the bits of one ancestor.
    """
    parts = []
    for start in range(0, n, 20_000):
        rows = min(20_000, n - start)
        ancestors = -(-rows // FAMILY) if related else rows
        counts = np.clip(0.03 * k * rng.lognormal(-0.05, 0.33, ancestors), 5, 0.12 * k)
        bits = rng.integers(0, k, (ancestors, int(0.12 * k)))
        if related:
            counts = np.repeat(counts, FAMILY)[:rows] * rng.uniform(0.95, 1.05, rows)
            bits = np.repeat(bits, FAMILY, axis=0)[:rows]
            new = rng.random(bits.shape) < rng.uniform(0.02, 0.15, (rows, 1))
            bits = np.where(new, rng.integers(0, k, bits.shape), bits)
        used = np.arange(bits.shape[1]) < counts[:, None]
        x = np.zeros((rows, k), bool)
        x[np.nonzero(used)[0], bits[used]] = True
        parts.append(pack(x).words)
    return np.concatenate(parts)
