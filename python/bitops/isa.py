"""The instruction sets (ISAs) the kernels exist for, and which one is in force.

The best ISA of the machine is chosen at import; the environment variable ``BITOPS_ISA`` names
another one. An ISA name stands for one exact feature set:

======== ==========================================================
avx512   AVX-512 F, BW, VL and VPOPCNTDQ (and all of avx2)
avx2     AVX2, BMI2 and POPCNT
neon     Advanced SIMD, which every AArch64 processor has
generic  portable C, on every machine
======== ==========================================================
"""

import os

from . import _core

__all__ = ["active", "available", "use"]


def available() -> tuple[str, ...]:
    """Names of the ISAs that this machine can run, best first."""
    return tuple(name for name in _core.isa_names() if _core.isa_runs(name))


def active() -> str:
    """Name of the ISA in force."""
    return _core.isa_active()


class _Chosen:
    """What `use` returns: leaving its ``with`` block puts the ISA before it in force again."""

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
    """Put an ISA in force, for the whole process and at once.

    Parameters
    ----------
    name : str
        One of `available`.

    Returns
    -------
    context manager
        ``with use(name):`` puts the ISA before it in force again at the end of the block; without
        ``with`` the choice stays.

    Raises
    ------
    TypeError
        If `name` is not a string.
    ValueError
        If this machine cannot run it, or no ISA has that name.
    """
    if not isinstance(name, str):
        raise TypeError(f"[isa.use] name must be a string, got {type(name).__name__}")
    name = str(name)  # of a subclass of str too
    _require("isa.use", name)
    before = active()
    _core.isa_use(name)
    return _Chosen(name, before)


def _require(where: str, name: str) -> None:
    if name not in _core.isa_names():
        known = ", ".join(_core.isa_names())
        raise ValueError(f"[{where}] unknown ISA, got {name!r}; known here: {known}")
    if not _core.isa_runs(name):
        runs = ", ".join(available())
        raise ValueError(f"[{where}] this CPU cannot run the ISA, got {name!r}; it runs: {runs}")


def _use_environment() -> None:
    """Obey BITOPS_ISA. A wrong name must not fall back silently: importing the package fails."""
    name = os.environ.get("BITOPS_ISA")
    if not name:
        return
    try:
        _require("BITOPS_ISA", name)
    except ValueError as error:
        raise ImportError(str(error)) from None
    _core.isa_use(name)


_use_environment()
