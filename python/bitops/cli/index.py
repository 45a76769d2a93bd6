"""`bitops index`: build an index of codes, add to it, show what it holds."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from ..files.text import printable
from .codes import add_rows_options, pack_rows, read_ids, read_rows

__all__ = ["add_parser"]

ROWS_HELP = (
    "rows of codes: a .npy or .npz file (uint8 as np.packbits packs them, bool, or numbers, of "
    "which the signs are taken), or text with a line of hexadecimal digits for each"
)


def add_parser(commands: Any) -> None:
    """Add the command and its own commands."""
    parser = commands.add_parser(
        "index",
        help="build an index of codes, add to it, show what it holds",
        description="Build a folder of codes that `bitops search` and bitops.search.BitIndex "
        "search, add to it, or show what it holds.",
    )
    actions = parser.add_subparsers(dest="action", required=True, metavar="action")
    build = actions.add_parser("build", help="make an index of rows")
    build.add_argument("index", type=Path, metavar="INDEX", help="the folder to make")
    build.add_argument("rows", type=Path, metavar="ROWS", help=ROWS_HELP)
    build.add_argument(
        "--metric",
        default="hamming",
        metavar="M",
        help="how rows are compared: hamming (default), jaccard, dice, intersection",
    )
    build.add_argument("--overwrite", action="store_true", help="replace an index that exists")
    build.set_defaults(run=run_build)
    add = actions.add_parser("add", help="add rows to an index")
    add.add_argument("index", type=Path, metavar="INDEX", help="the folder of an index")
    add.add_argument("rows", type=Path, metavar="ROWS", help=ROWS_HELP)
    add.set_defaults(run=run_add)
    for action in (build, add):
        action.add_argument(
            "--ids",
            type=Path,
            metavar="FILE",
            help="the ids of the rows, a .npy file or one a line (by default they count on)",
        )
        add_rows_options(action)
    info = actions.add_parser("info", help="show what an index holds")
    info.add_argument("index", type=Path, metavar="INDEX", help="the folder of an index")
    info.set_defaults(run=run_info)


def run_build(args: argparse.Namespace) -> int:
    """Make an index of the rows of a file."""
    from ..search import BitIndex
    from ..search.index_files import MANIFEST
    from ..search.metrics import check_metric

    check_metric("index", args.metric)
    if (args.index / MANIFEST).exists() and not args.overwrite:
        raise ValueError(f"[index] {args.index} exists; replace it with --overwrite")
    bits = pack_rows(read_rows("index", args.rows, args))
    index = BitIndex(bits if args.ids is None else bits[:0], args.metric)
    if args.ids is not None:
        index.add(bits, read_ids("index", args.ids))
    index.save(args.index)
    print_line(args.index, BitIndex.load(args.index), "")
    return 0


def run_add(args: argparse.Namespace) -> int:
    """Add the rows of a file to an index."""
    from ..search import BitIndex

    index = BitIndex.load(args.index)
    ids = None if args.ids is None else read_ids("index", args.ids)
    added = index.add(pack_rows(read_rows("index", args.rows, args)), ids)
    print_line(args.index, index, f"{len(added):,} added, ")
    return 0


def run_info(args: argparse.Namespace) -> int:
    """Print what an index holds."""
    from ..search import BitIndex

    index = BitIndex.load(args.index)
    print(
        f"index    {printable(args.index)}\n"
        f"rows     {len(index):,} of {index.k:,} bits\n"
        f"metric   {index.metric}\n"
        f"next id  {index.next_id:,}\n"
        f"files    {folder_bytes(args.index):,} bytes"
    )
    return 0


def print_line(path: Path, index: Any, added: str) -> None:
    """Print in a line what the index of a path holds now."""
    print(
        f"{printable(path)}: {added}{len(index):,} rows of {index.k:,} bits, "
        f"{index.metric}, {folder_bytes(path):,} bytes"
    )


def folder_bytes(path: Path) -> int:
    """Return the bytes of all files of a folder."""
    return sum(entry.stat().st_size for entry in path.iterdir())
