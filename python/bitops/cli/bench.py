"""`bitops bench`: binary GEMM against float32 BLAS."""

from __future__ import annotations

import argparse
import json
from typing import Any

from .. import benchmark
from ..benchmark import gemm_table
from ..files.writing import write_file
from .arguments import output_file
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
        "every timed result. Takes about a minute, with --quick about ten seconds.",
    )
    parser.add_argument("--quick", action="store_true", help="fewer rounds, noisier figures")
    parser.add_argument("--json", type=output_file, metavar="FILE", help="also write the results")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print the GEMM table; write it as JSON where asked."""
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
    results = []
    for shape in gemm_table.GEMM_SHAPES:
        operands = gemm_table.GemmOperands(*shape)
        for threads in benchmark.thread_counts():
            results.append(
                gemm_table.measure_gemm(operands, threads, seconds=0.3 if args.quick else 2.0)
            )
            # A table row is the progress; flush so that it shows through a pipe as well.
            print(format_row(results[-1]), flush=True)
    print(f"\nAll {3 * len(results)} timed results equal the float32 product.")
    if args.json:
        data = {"stamp": stamp, "gemm": [r.as_dict() for r in results]}
        write_file("bench", args.json, (json.dumps(data, indent=1) + "\n").encode())
        print(f"Written to {args.json}")
    return 0


def format_row(result: gemm_table.GemmResult) -> str:
    """Format one row of the GEMM table."""
    r = result
    return (
        f"{r.m:>5} {r.n:>5} {r.k:>5} {r.threads:>7}  {r.gmacs(r.blas):>8.1f}"
        f" {r.gmacs(r.packed):>8.1f} {r.ratio(r.packed):>6.1f}"
        f"  {r.gmacs(r.with_packing):>9.1f} {r.ratio(r.with_packing):>6.1f}"
        f"  {max(r.blas.spread, r.packed.spread):>6.0%}"
    )
