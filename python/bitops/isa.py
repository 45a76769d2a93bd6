"""The instruction sets (ISAs) that the kernels are written for, and the choice among them.

Importing the package selects the best ISA of the machine, or the one named by the environment
variable ``BITOPS_ISA``. Each name stands for one exact set of features:

======== ==========================================================
amx      AMX-TILE, AMX-INT8, GFNI (and all of avx512); Linux alone
avx512   AVX-512 F, BW, VL, VBMI, VNNI, VPOPCNTDQ (and all of avx2)
avx2     AVX2, BMI2 and POPCNT
neon     Advanced SIMD, which every AArch64 processor has
generic  portable C, on every machine
======== ==========================================================
"""

import os

from . import _core

__all__ = ["active", "available", "use"]


def available() -> tuple[str, ...]:
    """Return the names of the ISAs that this machine can run, best first.

    Examples
    --------
    >>> available()[-1]
    'generic'
    """
    return tuple(name for name in _core.isa_names() if _core.isa_runs(name))


def active() -> str:
    """Return the name of the active ISA.

    Examples
    --------
    >>> active() in available()
    True
    """
    return _core.isa_active()


class _Chosen:
    """The context manager that `use` returns; it restores the previous ISA."""

    def __init__(self, name: str, before: str) -> None:
        self.name = name
        self._before = before

    def __repr__(self) -> str:
        return f"<bitops ISA {self.name}>"

    def __enter__(self) -> str:
        return self.name

    def __exit__(self, *exc: object) -> None:
        _core.isa_use(self._before)


def use(name: str) -> _Chosen:
    """Select an ISA for the whole process, with immediate effect.

    Parameters
    ----------
    name : str
        One of `available`.

    Returns
    -------
    context manager
        ``with use(name):`` restores the previous ISA at the end of the block. Without ``with``,
        the selection stays.

    Raises
    ------
    TypeError
        If `name` is not a string.
    ValueError
        If no ISA has this name, or this machine cannot run it.

    Examples
    --------
    >>> with use("generic"):
    ...     print(active())
    generic
    """
    if not isinstance(name, str):
        raise TypeError(f"[isa.use] name must be a string, got {type(name).__name__}")
    name = str(name)  # Cython takes no subclass of str
    _require("isa.use", name)
    before = active()
    _core.isa_use(name)
    return _Chosen(name, before)


def _require(where: str, name: str) -> None:
    """Check that this machine can run an ISA."""
    if name not in _core.isa_names():
        known = ", ".join(_core.isa_names())
        raise ValueError(f"[{where}] unknown ISA, got {name!r}; known here: {known}")
    if not _core.isa_runs(name):
        runs = ", ".join(available())
        raise ValueError(f"[{where}] this CPU cannot run the ISA, got {name!r}; it runs: {runs}")


def _use_environment() -> None:
    """Select the ISA named by BITOPS_ISA; a wrong name fails the import, without a fallback."""
    name = os.environ.get("BITOPS_ISA")
    if not name:
        return
    try:
        _require("BITOPS_ISA", name)
    except ValueError as error:
        # With the name of the package, `python -m bitops` prints a line and no traceback.
        raise ImportError(str(error), name=__package__) from None
    _core.isa_use(name)


_use_environment()
