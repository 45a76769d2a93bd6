"""`bitops export`: a packed model as ONNX or as C."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from .. import io
from ..files.text import printable

__all__ = ["add_parser", "run"]


def add_parser(commands: Any) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "export",
        help="write a packed model as ONNX or as C",
        description="Write a packed model as an ONNX file, which other programs run with the same "
        "outputs, or as a header and a source in C99 for small devices.",
    )
    parser.add_argument("model", type=Path, metavar="MODEL", help="a file of a packed model")
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        metavar="PATH",
        required=True,
        help="a file that ends in .onnx, or the folder for C",
    )
    parser.add_argument(
        "--qonnx", action="store_true", help="ONNX: use the operators of QONNX, as FINN does"
    )
    parser.add_argument("--name", help="C: what files and functions are called (default: network)")
    parser.add_argument(
        "--takes", choices=("uint8", "float32", "bits"), help="C: what the input is (uint8)"
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Write the model, and print how large it is."""
    from .. import convert

    is_onnx = args.output.suffix == ".onnx"
    if args.qonnx and not is_onnx:
        raise ValueError(f"[export] --qonnx needs an output that ends in .onnx, got {args.output}")
    if is_onnx and (args.name or args.takes):
        raise ValueError(f"[export] --name and --takes are for C, got {args.output}")
    packed = io.load(args.model)
    if is_onnx:
        convert.to_onnx(packed, args.output, qonnx=args.qonnx)
        print(f"wrote {printable(args.output)}, {args.output.stat().st_size:,} bytes")
        return 0
    name = args.name or "network"
    size = convert.to_c(packed, args.output, name=name, takes=args.takes or "uint8")
    print(f"wrote {name}.h and {name}.c in {printable(args.output)}: {size}")
    return 0
