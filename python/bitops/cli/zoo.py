"""`bitops zoo`: the trained networks that come with the package."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from typing import Any

from .. import zoo
from ..files.text import printable
from .arguments import output_file

__all__ = ["add_parser", "run"]


def add_parser(commands: Any) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "zoo",
        help="list the trained networks that come with the package",
        description="List the trained networks that come with the package, show the card of one "
        "of them, or write its packed model, for `bitops eval`, `show`, `predict` and `export`.",
    )
    parser.add_argument("name", nargs="?", metavar="NAME", help="a network of the list")
    parser.add_argument(
        "--save", type=output_file, metavar="MODEL", help="write the network, a safetensors file"
    )
    parser.set_defaults(run=run, refuse=parser.error)


def run(args: argparse.Namespace) -> int:
    """Print the list, or the card of one network and write that."""
    if args.name is None:
        if args.save is not None:
            args.refuse("argument --save needs NAME")
        print_list()
        return 0
    if args.name not in zoo.names():
        args.refuse(f"argument NAME must be one of {', '.join(zoo.names())}, got {args.name}")
    for field, value in asdict(zoo.card(args.name)).items():
        print(f"{field:<18} {' '.join(map(str, value)) if isinstance(value, tuple) else value}")
    if args.save is not None:
        zoo.load(args.name).save(args.save)
        print(f"wrote {printable(args.save)}, {args.save.stat().st_size:,} bytes")
    return 0


def print_list() -> None:
    """Print a line for each network."""
    print(f"{'name':<22} {'test error':>10} {'bytes':>9} {'images/s':>9}  data; network")
    for name in zoo.names():
        card = zoo.card(name)
        print(
            f"{name:<22} {f'{card.test_error:.2%}':>10} {card.packed_bytes:>9,} "
            f"{card.images_per_second:>9,}  {card.data}; {card.title}, {card.net}"
        )
