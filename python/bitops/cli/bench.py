"""`bitops bench`: binary GEMM against float32 BLAS."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable
from typing import Any

from .. import benchmark
from ..benchmark import gemm_table
from ..files.writing import write_file
from . import bench_picture
from .arguments import output_file
from .figures import new_figure, save_figure
from .info import describe_machine, print_pairs

__all__ = ["add_parser", "run"]

HEADER = (
    f"{'m':>5} {'n':>5} {'k':>5} {'threads':>7}  {'float32':>8} {'packed':>8} {'ratio':>6}"
    f"  {'+ packing':>9} {'ratio':>6}  {'spread':>6}"
)


def add_parser(commands: Any) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "bench",
        help="time binary GEMM against float32 BLAS",
        description="Time binary GEMM against float32 BLAS on one thread and on all, and check "
        "every timed result. Takes about a minute, with --quick about ten seconds; with --plot "
        "twice as long.",
    )
    parser.add_argument("--quick", action="store_true", help="fewer rounds, noisier figures")
    parser.add_argument("--json", type=output_file, metavar="FILE", help="also write the results")
    parser.add_argument(
        "--plot",
        type=output_file,
        metavar="FILE",
        help="also draw rates over size and the bounds of the machine, a PNG; needs matplotlib",
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print the GEMM table; write it as JSON, and draw rates over size, where asked."""
    if args.plot:
        new_figure("bench")  # fails now rather than after the measurements
    stamp = benchmark.machine_stamp()
    print_pairs(describe_machine())
    if stamp["load"] is not None:  # Windows reports none
        print(f"{'load':<10} {stamp['load']:.2f} before the start")
        if stamp["load"] > 0.5:
            print("note: other work is running on this machine; expect noisy figures")
    if not benchmark.can_limit_blas():
        print(benchmark.NO_BLAS_LIMIT)
    print(
        "\nGMAC/s (1e9 multiply-accumulates a second), best of the rounds; operands warm.\n"
        "float32: NumPy matmul. packed: gemm on packed a and prepacked w. + packing: a is packed\n"
        "within the call. ratio: to float32. spread: distance of the quartiles over the median.\n"
        f"\n{HEADER}"
    )
    seconds = 0.3 if args.quick else 2.0
    results = measure(gemm_table.GEMM_SHAPES, benchmark.thread_counts(), seconds)
    data = {"stamp": stamp, "gemm": [r.as_dict() for r in results]}
    checked = len(results)
    if args.plot:
        print()
        sizes = measure(bench_picture.picture_shapes(), (1,), seconds / 2)
        bounds = bench_picture.measure_bounds(seconds=seconds / 10)
        data |= {"sizes": [r.as_dict() for r in sizes], "bounds": bounds.as_dict()}
        checked += len(sizes)
    print(f"\nAll {3 * checked} timed results equal the float32 product.")
    if args.plot:
        title = f"{stamp['cpu']}, {stamp['isa']}, one thread"
        save_figure("bench", bench_picture.draw_rates(sizes, bounds, title), args.plot)
        print(f"Drawn in {args.plot}")
    if args.json:
        write_file("bench", args.json, (json.dumps(data, indent=1) + "\n").encode())
        print(f"Written to {args.json}")
    return 0


def measure(
    shapes: Iterable[tuple[int, int, int]], thread_counts: Iterable[int], seconds: float
) -> list[benchmark.GemmResult]:
    """Measure shapes on numbers of threads, and print a row for each."""
    results = []
    for shape in shapes:
        operands = gemm_table.GemmOperands(*shape)
        for threads in thread_counts:
            results.append(gemm_table.measure_gemm(operands, threads, seconds=seconds))
            # A table row is the progress; flush so that it shows through a pipe as well.
            print(format_row(results[-1]), flush=True)
    return results


def format_row(result: gemm_table.GemmResult) -> str:
    """Format one row of the GEMM table."""
    r = result
    return (
        f"{r.m:>5} {r.n:>5} {r.k:>5} {r.threads:>7}  {r.gmacs(r.blas):>8.1f}"
        f" {r.gmacs(r.packed):>8.1f} {r.ratio(r.packed):>6.1f}"
        f"  {r.gmacs(r.with_packing):>9.1f} {r.ratio(r.with_packing):>6.1f}"
        f"  {max(r.blas.spread, r.packed.spread):>6.0%}"
    )
