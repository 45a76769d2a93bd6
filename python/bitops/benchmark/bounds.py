"""What the machine allows: the ports of the processor, and reading from memory."""

from __future__ import annotations

import time

import numpy as np
from scipy.linalg.blas import dasum

from .. import _core
from .timing import interleave

__all__ = ["port_bound", "read_speed"]

STEPS = 100_000  # about half a millisecond
SAMPLES = 20


def port_bound() -> float | None:
    """Measure the product's step on registers alone.

    Returns
    -------
    float or None
        GMAC/s that the processor's ports allow on one thread; None where the ISA in force has no
        such loop.
    """
    best = 0.0
    for _ in range(SAMPLES):
        start = time.perf_counter()
        macs = _core.port_bound(STEPS)
        if macs is None:
            return None
        best = max(best, macs / (time.perf_counter() - start) / 1e9)
    return best


def read_speed(n_bytes: int, *, seconds: float) -> float:
    """Measure how fast one thread reads an array again and again.

    Parameters
    ----------
    n_bytes : int
        Size of the array, which decides the cache that it lies in.
    seconds : float
        Time budget.

    Returns
    -------
    float
        Bytes a second of BLAS `dasum`, the best of its rounds; a call's fixed cost is in it.
    """
    values = np.ones(max(1, n_bytes // 8))
    times = interleave({"read": lambda: dasum(values)}, seconds=seconds)
    return values.nbytes / times["read"].best
