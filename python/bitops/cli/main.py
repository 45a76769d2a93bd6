"""The command `bitops`, and what becomes of errors.

Exit codes: 0 done, 1 the work failed or a check did not hold, 2 wrong usage, 130 interrupted.
"""

from __future__ import annotations

import argparse
import errno
import io
import os
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from .. import __version__
from ..benchmark import WrongResult
from ..files.text import printable
from . import (
    bench,
    demo,
    evaluate,
    export,
    imports,
    index,
    info,
    plot,
    predict,
    recipes,
    report,
    search,
    show,
    train,
    zoo,
)

__all__ = ["main", "make_parser"]

COMMANDS = (
    info,
    bench,
    demo,
    recipes,
    train,
    evaluate,
    imports,
    export,
    show,
    predict,
    plot,
    report,
    index,
    search,
    zoo,
)

# Reported in one line; anything else is a fault of the package and shows its traceback.
FAILURES = (FloatingPointError, ImportError, MemoryError, OSError, ValueError, WrongResult)

EPILOG = """\
environment:
  BITOPS_ISA       force an instruction set (see `bitops info`), e.g. BITOPS_ISA=generic
  OMP_NUM_THREADS  threads used by bitops (and by most BLAS libraries)
"""


def make_parser() -> argparse.ArgumentParser:
    """Build the parser, to which each command adds its own."""
    parser = argparse.ArgumentParser(
        prog="bitops",
        description="Packed-bit GEMM and binarized neural networks for NumPy.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"bitops {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="command")
    for command in COMMANDS:
        command.add_parser(commands)
    return parser


def is_closed_pipe(error: BaseException) -> bool:
    """Tell whether the output has no reader, which Windows calls an invalid argument of no file."""
    if sys.platform == "win32" and isinstance(error, OSError) and error.filename is None:
        return error.errno in (errno.EPIPE, errno.EINVAL)
    return isinstance(error, BrokenPipeError)


@contextmanager
def warnings_in_a_line(command: str) -> Iterator[None]:
    """Show warnings of the package, which begin with "[", as errors are, not at a line of it."""
    usual = warnings.formatwarning

    def show(message, category, filename, lineno, line=None) -> str:
        if category is not UserWarning or not str(message).startswith("["):
            return usual(message, category, filename, lineno, line)
        return f"bitops {command}: warning: {printable(message)}\n"

    warnings.formatwarning = show
    try:
        yield
    finally:
        warnings.formatwarning = usual


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    args = make_parser().parse_args(argv)
    args.argv = sys.argv[1:] if argv is None else list(argv)
    if isinstance(sys.stdout, io.TextIOWrapper):  # a name that its encoding lacks ends no work
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        with warnings_in_a_line(args.command):
            code = args.run(args)
        # Here rather than at exit, where a closed pipe could no longer be reported.
        sys.stdout.flush()
        return code
    except KeyboardInterrupt:
        print("\nbitops: interrupted", file=sys.stderr)
        return 130
    except FAILURES as error:
        if is_closed_pipe(error):
            # The reader, say `head`, has seen enough; the interpreter must not flush into the pipe
            # at exit.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 0
        # one line, whatever names and words of files the message holds
        print(f"bitops {args.command}: error: {printable(error)}", file=sys.stderr)
        return 1
