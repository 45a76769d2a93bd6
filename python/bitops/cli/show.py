"""`bitops show`: what a packed model is made of, as a table and as a picture."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from .. import io
from ..files.text import printable
from ..files.writing import write_file
from .arguments import output_ending
from .network_picture import draw_network

__all__ = ["add_parser", "run"]


def add_parser(commands: Any) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "show",
        help="layers, bytes and multiply-adds of a packed model",
        description="Print the layers of a packed model, with shapes, bytes and multiply-adds for "
        "one example, and the notes that its file holds.",
    )
    parser.add_argument("model", type=Path, metavar="MODEL", help="a file of a packed model")
    parser.add_argument(
        "--svg",
        type=output_ending(".svg"),
        metavar="FILE",
        help="draw the network, as a .svg file",
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print the table of the model and its notes; draw it if asked."""
    packed = io.load(args.model)
    shape = packed.input_shape
    sizes = "not stated" if shape is None else "x".join(map(str, shape))
    print(f"{printable(args.model)}, {args.model.stat().st_size:,} bytes; input {sizes}")
    print(packed.summary())
    for key, note in packed.notes.items():
        words = printable(f"{key}: {note}", most=500, encoding=sys.stdout.encoding)
        print(words)
    if args.svg is not None:
        data = draw_network(packed, printable(args.model.name)).encode()
        write_file("show", args.svg, data)
        print(f"wrote {printable(args.svg)}, {len(data):,} bytes")
    return 0
