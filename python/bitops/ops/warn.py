"""Warnings, at the line of the program that called."""

from __future__ import annotations

import sys
import warnings

__all__ = ["warn_caller"]

PACKAGE = __name__.partition(".")[0]


def warn_caller(message: str) -> None:
    """Warn at the innermost line outside the package, by whichever way the call came there."""
    frame, level = sys._getframe(1), 2
    while frame.f_back is not None and _is_ours(frame.f_globals.get("__name__", "")):
        frame, level = frame.f_back, level + 1
    warnings.warn(message, stacklevel=level)


def _is_ours(module: str) -> bool:
    return module == PACKAGE or module.startswith(f"{PACKAGE}.")
