"""`bitops info`: what this installation is, and what it found on this machine."""

from __future__ import annotations

import argparse
from typing import Any

from .. import benchmark

__all__ = ["add_parser", "describe_machine", "print_pairs", "run"]


def add_parser(commands: Any) -> None:
    """Add the command."""
    parser = commands.add_parser("info", help="version, processor, instruction sets, threads, BLAS")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print the machine stamp."""
    print_pairs(describe_machine())
    return 0


def print_pairs(pairs: dict[str, Any]) -> None:
    """Print names and values in two columns."""
    for name, value in pairs.items():
        print(f"{name:<10} {value}")


def describe_machine() -> dict[str, Any]:
    """Return the machine stamp in the words that `info` and `bench` print."""
    stamp = benchmark.machine_stamp()
    return {
        "bitops": stamp["version"],
        "cpu": stamp["cpu"],
        "isa": f"{stamp['isa']} (found: {', '.join(stamp['isas'])})",
        "threads": stamp["threads"],
        "compiler": stamp["compiler"],
        "openmp": "yes" if stamp["openmp"] else "no (single-threaded build)",
        "blas": stamp["blas"],
        "numpy": stamp["numpy"],
        "python": stamp["python"],
    }
