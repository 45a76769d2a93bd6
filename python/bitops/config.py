"""Number of threads, and a description of this installation."""

from __future__ import annotations

import platform
import sys
from pathlib import Path
from typing import Any

import numpy as np

from . import _core, isa
from .ops.checks import check_integer

__all__ = ["__version__", "get_include", "get_num_threads", "set_num_threads", "show_config"]

__version__ = "0.1.0"  # which the metadata of the distribution takes from here

MAX_THREADS = 4096


def set_num_threads(n: int) -> None:
    """Limit the calls of this process to `n` threads.

    This also sets OpenMP's own limit for the calling thread. The default is OpenMP's limit: all
    CPUs, or what ``OMP_NUM_THREADS`` or threadpoolctl set. Results do not depend on it. Calls that
    are running in other threads keep their number of threads.

    In a child process made by ``fork``, all calls use one thread, whatever is set here. This
    includes ``multiprocessing`` with the start method "fork". The reason is that the threads of the
    OpenMP runtime do not survive a fork, and GNU's runtime would wait for them forever. A process
    that imports bitops after its fork may use several threads. So may children started by
    "spawn", and usually those started by "forkserver".

    Parameters
    ----------
    n : int
        From 1 to 4096.

    Raises
    ------
    TypeError
        If `n` is not an integer.
    ValueError
        If `n` is out of this range.

    Examples
    --------
    >>> before = get_num_threads()
    >>> set_num_threads(1)
    >>> get_num_threads()
    1
    >>> set_num_threads(before)
    """
    _core.set_num_threads(check_integer("set_num_threads", "n", n, 1, MAX_THREADS))


def get_num_threads() -> int:
    """Return how many threads the next call may use.

    It is 1 without OpenMP, while BLAS has the threads, and if ``OMP_STACKSIZE`` gives them less
    than 64 KiB. If the system cannot make the threads that a call asks for, that call and those
    that follow use fewer, until `set_num_threads` is called again.

    Examples
    --------
    >>> get_num_threads() >= 1
    True
    """
    return _core.get_num_threads()


def get_include() -> str:
    """Return the folder of ``bitops_api.h``, for compilers of C, C++ and Cython programs.

    The header declares a table of functions on packed words, which `bitops_import` of the same file
    finds: pack, products, Hamming distances, convolutions. Cython programs take the declarations
    from ``bitops._core``.

    Examples
    --------
    >>> from pathlib import Path
    >>> (Path(get_include()) / "bitops_api.h").exists()
    True
    """
    return str(Path(__file__).parent / "include")


def _cpu_name() -> str:
    """Return the CPU's marketing name, or its architecture if that is unknown."""
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
    """Return the name and version of the BLAS that NumPy was built with."""
    info: Any = np.show_config(mode="dicts")
    blas = info.get("Build Dependencies", {}).get("blas", {})
    return f"{blas.get('name', 'unknown')} {blas.get('version', '')}".strip()


def show_config(mode: str = "stdout") -> dict[str, Any] | None:
    """Show the versions, CPU, ISAs, threads, compiler and BLAS in use.

    Parameters
    ----------
    mode : {"stdout", "dicts"}
        Whether to print the description or to return it.

    Returns
    -------
    dict or None
        The description if `mode` is "dicts", otherwise None.

    Raises
    ------
    ValueError
        If `mode` is something else.

    Examples
    --------
    >>> sorted(show_config("dicts"))
    ['blas', 'compiler', 'cpu', 'isa', 'isas', 'numpy', 'openmp', 'python', 'threads', 'version']
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
