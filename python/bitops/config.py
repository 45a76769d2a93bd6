"""Threads, and what this installation is made of."""

from __future__ import annotations

import platform
import sys
from importlib.metadata import version
from typing import Any

import numpy as np

from . import _core, isa
from .ops.checks import check_integer

__all__ = ["__version__", "get_num_threads", "set_num_threads", "show_config"]

__version__ = version("bitops")

MAX_THREADS = 4096


def set_num_threads(n: int) -> None:
    """Let the calls of this process use at most `n` threads.

    Also sets OpenMP's own limit for the calling thread. The default is OpenMP's limit: all CPUs,
    or what ``OMP_NUM_THREADS`` or threadpoolctl say. Results do not depend on it. It may be set
    while other threads are in calls, which keep the number with which they began.

    In a child made by ``fork`` (also by ``multiprocessing``, where that is its start method) all
    calls use one thread, whatever is set here: the OpenMP runtime's threads do not survive a fork,
    and GNU's would be waited for without end. Only what was forked before it imported bitops, as
    children of ``spawn`` and mostly of ``forkserver`` are, has several threads.

    Parameters
    ----------
    n : int
        At least 1.

    Raises
    ------
    TypeError
        If `n` is not an integer.
    ValueError
        If `n` is less than 1.
    """
    _core.set_num_threads(check_integer("set_num_threads", "n", n, 1, MAX_THREADS))


def get_num_threads() -> int:
    """Threads that the next call may use; 1 without OpenMP, and while `fit` leaves them to BLAS."""
    return _core.get_num_threads()


def _cpu_name() -> str:
    """The CPU's marketing name where the system tells it."""
    if sys.platform == "linux":
        try:
            with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as lines:
                for line in lines:
                    if line.startswith("model name"):
                        return line.partition(":")[2].strip()
        except OSError:
            pass
    return platform.processor() or platform.machine()


def _blas() -> str:
    info: Any = np.show_config(mode="dicts")
    blas = info.get("Build Dependencies", {}).get("blas", {})
    return f"{blas.get('name', 'unknown')} {blas.get('version', '')}".strip()


def show_config(mode: str = "stdout") -> dict[str, Any] | None:
    """Show the CPU, ISAs, threads, compiler and BLAS in use.

    Parameters
    ----------
    mode : {"stdout", "dicts"}
        Print, or return a dict.

    Returns
    -------
    dict or None

    Raises
    ------
    ValueError
        If `mode` is another word.
    """
    if mode not in ("stdout", "dicts"):
        raise ValueError(f"[show_config] mode must be 'stdout' or 'dicts', got {mode!r}")
    config = {
        "version": __version__,
        "cpu": _cpu_name(),
        "isas": list(isa.available()),
        "isa": isa.active(),
        "threads": get_num_threads(),
        "openmp": _core.has_openmp(),
        "compiler": _core.compiler(),
        "python": platform.python_version(),
        "numpy": np.__version__,
        "blas": _blas(),
    }
    if mode == "dicts":
        return config
    width = max(map(len, config))
    for key, value in config.items():
        text = " ".join(value) if isinstance(value, list) else value
        print(f"{key:<{width}}  {text}")
    return None
