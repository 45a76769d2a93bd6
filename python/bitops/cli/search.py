"""`bitops search`: the rows of an index that are nearest to queries, or within a range of them."""

from __future__ import annotations

import argparse
import csv
import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ..files.arrays import map_npy
from ..files.writing import write_file
from ..ops.array import BitArray
from .arguments import output_ending, output_format, positive, refuse_input_as_output
from .codes import add_rows_options, read_rows
from .predictions import as_number

if TYPE_CHECKING:
    from scipy.sparse import csr_array

    from ..search import BitIndex

__all__ = ["add_parser", "run"]

COUNT = 10  # rows that are found for a query
OVERSAMPLE = 4
QUERIES = 1024  # that are searched at once: an index in files is read once for all of them


class Found(NamedTuple):
    """What has been found for all queries, one after the other."""

    value: str  # what values are: distance, count or score
    ends: np.ndarray  # (queries + 1,): those of query i are from ends[i] to ends[i + 1] - 1
    ids: np.ndarray
    values: np.ndarray

    def lines(self) -> Iterator[tuple[int, int, int, Any]]:
        """Yield query, rank from 1 on, id, value."""
        for query, (first, last) in enumerate(zip(self.ends[:-1], self.ends[1:], strict=True)):
            for rank, place in enumerate(range(first, last), 1):
                yield query, rank, int(self.ids[place]), self.values[place]


def add_parser(commands: Any) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "search",
        help="find the nearest codes of an index",
        description="Find the rows of an index that are nearest to each query, or with --radius "
        "all within a range. Results are exact; of equal distances the smaller id comes first.",
    )
    parser.add_argument("index", type=Path, metavar="INDEX", help="a folder of `bitops index`")
    parser.add_argument(
        "queries",
        type=Path,
        metavar="QUERIES",
        help="a .npy, .npz or text file, as the rows of `bitops index build`",
    )
    parser.add_argument(
        "-k", "--count", type=positive(int), metavar="K", help=f"rows a query ({COUNT})"
    )
    parser.add_argument(
        "--radius", type=float, metavar="R", help="find all rows within a distance instead"
    )
    parser.add_argument(
        "--rescore",
        metavar="WHAT",
        help="order what is found by products with real queries: 'bits', or a .npy file with the "
        "real vectors by id",
    )
    parser.add_argument(
        "--oversample",
        type=positive(int),
        metavar="N",
        help=f"with --rescore: how many times K rows are found first ({OVERSAMPLE})",
    )
    add_rows_options(parser)
    parser.add_argument(
        "--format",
        choices=("text", "csv", "json"),
        help="of what is printed (text); that of FILE goes by its ending",
    )
    parser.add_argument(
        "-o",
        "--output",
        type=output_ending(".txt", ".csv", ".json", ".npz"),
        metavar="FILE",
        help="write to a file that ends in .txt, .csv, .json or .npz instead",
    )
    parser.set_defaults(run=run, refuse=parser.error)


def run(args: argparse.Namespace) -> int:
    """Search, and print or write what has been found."""
    from ..search import BitIndex

    kind = output_format(args)
    refuse_input_as_output(args, args.queries)
    if args.radius is not None:
        for name, value in (("-k/--count", args.count), ("--rescore", args.rescore)):
            if value is not None:
                args.refuse(f"argument {name}: not allowed with argument --radius")
    if args.oversample is not None and args.rescore is None:
        args.refuse("argument --oversample: not allowed without argument --rescore")
    if args.rescore not in (None, "bits") and Path(args.rescore).suffix != ".npy":
        args.refuse(f"argument --rescore: must be bits or end in .npy, got {args.rescore}")
    index = BitIndex.load(args.index)
    found = search(index, read_rows("search", args.queries, args), args)
    content = WRITERS[kind](found)
    if args.output is None:
        print(content.decode(), end="")
        return 0
    write_file("search", args.output, content)
    return 0


def search(index: BitIndex, queries: np.ndarray | BitArray, args: argparse.Namespace) -> Found:
    """Search for all queries, some at a time."""
    from ..search.progress import progress

    value = {"intersection": "count"}.get(index.metric, "distance")
    rescore: Any = args.rescore
    if rescore is not None:
        value = "score"
        if isinstance(queries, BitArray) or queries.dtype.kind == "b":
            raise ValueError(f"[search] {args.queries} must hold numbers for --rescore, got bits")
        if rescore != "bits":
            rescore = read_vectors(Path(rescore))
    counts, ids, values = [np.zeros(1, np.int64)], [], []
    with progress(len(queries), "queries") as done:
        for start in range(0, max(len(queries), 1), QUERIES):
            part = queries[start : start + QUERIES]
            if args.radius is not None:
                within = index.within(part, args.radius)
                counts.append(np.diff(within.indptr))
                order = best_first(within, is_count=value == "count")
                ids.append(within.indices[order])
                values.append(within.data[order])
            else:
                nearest, rows = index.search(
                    part,
                    min(args.count or COUNT, max(len(index), 1)),
                    rescore=rescore,
                    oversample=args.oversample or OVERSAMPLE,
                )
                is_row = rows >= 0
                counts.append(is_row.sum(axis=1))
                ids.append(rows[is_row])
                values.append(nearest[is_row])
            done(len(part))
    ends = np.cumsum(np.concatenate(counts))
    return Found(value, ends, np.concatenate(ids), np.concatenate(values))


def read_vectors(path: Path) -> np.ndarray:
    """Map the real vectors that queries are rescored with, a row for each id."""
    vectors = map_npy("search", path)
    if vectors.ndim != 2 or vectors.dtype.kind not in "biuf":
        raise ValueError(
            f"[search] {path} must hold a matrix of real numbers for --rescore, got dtype "
            f"{vectors.dtype} and shape {vectors.shape}"
        )
    return vectors


def best_first(within: csr_array, is_count: bool) -> np.ndarray:
    """Return the order of ranks for what `BitIndex.within` has found, ordered by id."""
    owners = np.repeat(np.arange(within.shape[0]), np.diff(within.indptr))
    keys = -within.data.astype(np.int64) if is_count else within.data
    return np.lexsort((within.indices, keys, owners))


def as_text(found: Found) -> bytes:
    """Format a table to read."""
    lines = [f"{'query':>8} {'rank':>6} {'id':>12} {found.value:>12}"]
    for query, rank, row, value in found.lines():
        lines.append(f"{query:>8} {rank:>6} {row:>12} {value:>12.6g}")
    return ("\n".join(lines) + "\n").encode()


def as_csv(found: Found) -> bytes:
    """Format a line for each row that has been found."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("query", "rank", "id", found.value))
    writer.writerows(found.lines())
    return text.getvalue().encode()


def as_json(found: Found) -> bytes:
    """Format an object for each query."""
    results = [
        {
            "query": query,
            "ids": found.ids[first:last].tolist(),
            f"{found.value}s": [as_number(value) for value in found.values[first:last]],
        }
        for query, (first, last) in enumerate(zip(found.ends[:-1], found.ends[1:], strict=True))
    ]
    return (json.dumps(results, allow_nan=False) + "\n").encode()


def as_npz(found: Found) -> bytes:
    """Make a file of arrays; those of query i are from ``ends[i]`` to ``ends[i + 1] - 1``."""
    file = io.BytesIO()
    arrays: dict[str, Any] = {"ids": found.ids, f"{found.value}s": found.values}
    np.savez(file, ends=found.ends, **arrays)
    return file.getvalue()


WRITERS: dict[str, Callable[[Found], bytes]] = {
    "text": as_text,
    "csv": as_csv,
    "json": as_json,
    "npz": as_npz,
}
