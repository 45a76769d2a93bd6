"""Timing of calls in turns, limits on threads, and the description of the machine."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..config import get_num_threads, set_num_threads, show_config

__all__ = [
    "BLOCK_SECONDS",
    "MIN_ROUNDS",
    "NO_BLAS_LIMIT",
    "Timing",
    "WrongResult",
    "can_limit_blas",
    "interleave",
    "machine_stamp",
    "random_signs",
    "thread_counts",
    "threads",
]

MIN_ROUNDS = 3
# Long enough to make the resolution of the clock and the cost of the loop negligible.
BLOCK_SECONDS = 0.005

NO_BLAS_LIMIT = "note: BLAS keeps its own thread count; threadpoolctl, if installed, limits it"


class WrongResult(RuntimeError):
    """Raised if the result of a timed call differs from the reference."""


@dataclass(frozen=True)
class Timing:
    """Seconds per call over the rounds of one measurement.

    Attributes
    ----------
    best, median : float
        Fastest and middle round, in seconds.
    spread : float
        Distance between the quartiles, as a fraction of the median.
    rounds : int
        Number of rounds timed.
    """

    best: float
    median: float
    spread: float
    rounds: int

    @classmethod
    def of(cls, seconds: list[float]) -> Timing:
        """Summarise a list of seconds per call."""
        low, median, high = np.quantile(seconds, [0.25, 0.5, 0.75])
        return cls(min(seconds), float(median), float((high - low) / median), len(seconds))


def _seconds_per_call(call: Callable[[], Any], count: int) -> tuple[float, Any]:
    start = time.perf_counter()
    for _ in range(count):
        result = call()
    return (time.perf_counter() - start) / count, result


def interleave(
    calls: Mapping[str, Callable[[], Any]],
    *,
    seconds: float,
    check: Callable[[str, Any], None] | None = None,
    block_seconds: float | None = None,
) -> dict[str, Timing]:
    """Time several calls in turns: one block of each, then the next round.

    Parameters
    ----------
    calls : mapping of str to callable
        What to time; arguments and output buffers are bound beforehand.
    seconds : float
        Time budget of all rounds together; at least `MIN_ROUNDS` rounds are run.
    check : callable, optional
        Called outside the timer with the name and the result of every block. It should raise
        `WrongResult` if the result is wrong.
    block_seconds : float, optional
        Length of a block of short calls, by default `BLOCK_SECONDS`. Shorter blocks, and more of
        them, find the best time on a machine that has other work to do.

    Returns
    -------
    dict of str to Timing

    Notes
    -----
    Operands are warm: each block begins with an untimed call, which brings them back into the
    cache. It also gives worker threads of the previous call, which spin for a while, time to sleep.
    """
    block = BLOCK_SECONDS if block_seconds is None else block_seconds
    counts = {}
    for name, call in calls.items():
        # the first call may be cold, and other work may come between either
        estimate = min(_seconds_per_call(call, 1)[0] for _ in range(2))
        counts[name] = max(1, round(block / max(estimate, 1e-9)))
    samples: dict[str, list[float]] = {name: [] for name in calls}
    deadline = time.perf_counter() + seconds
    rounds = 0
    while rounds < MIN_ROUNDS or time.perf_counter() < deadline:
        for name, call in calls.items():
            call()
            elapsed, result = _seconds_per_call(call, counts[name])
            samples[name].append(elapsed)
            if check is not None:
                check(name, result)
        rounds += 1
    return {name: Timing.of(values) for name, values in samples.items()}


def can_limit_blas() -> bool:
    """Return whether threadpoolctl is installed; without it BLAS keeps its own thread count."""
    try:
        import threadpoolctl  # noqa: F401
    except ImportError:
        return False
    return True


@contextlib.contextmanager
def threads(count: int) -> Iterator[None]:
    """Run a block with `count` threads in bitops and, where threadpoolctl is installed, in BLAS."""
    before = get_num_threads()
    with contextlib.ExitStack() as stack:
        if can_limit_blas():
            from threadpoolctl import threadpool_limits

            stack.enter_context(threadpool_limits(limits=count, user_api="blas"))
        stack.callback(set_num_threads, before)
        set_num_threads(count)
        yield


def thread_counts() -> tuple[int, ...]:
    """Return the thread counts worth measuring here: one and, if there are more, all."""
    return tuple(sorted({1, get_num_threads()}))


def random_signs(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Return a random array of +1 and -1, float32."""
    return rng.integers(0, 2, size=shape).astype(np.float32) * 2 - 1


def machine_stamp() -> dict[str, Any]:
    """Return a description of the machine: processor, ISA, compiler, threads, BLAS, load."""
    config: Any = show_config(mode="dicts")
    return config | {
        "date": time.strftime("%Y-%m-%d %H:%M:%S %z"),
        "load": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        "blas_threads_limited": can_limit_blas(),
    }
