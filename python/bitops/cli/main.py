"""The command `bitops`: info, recipes, train, eval, plot, demo, bench.

Exit codes: 0 done, 1 the work failed or a check did not hold, 2 wrong usage, 130 interrupted.
"""

from __future__ import annotations

import argparse
import errno
import json
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from .. import __version__, benchmark
from ..files import write_file

# what is reported in one line; anything else is a fault of ours and shows its traceback
FAILURES = (
    *(FloatingPointError, ImportError, MemoryError, OSError, ValueError),
    benchmark.WrongResult,
)

EPILOG = """\
environment:
  BITOPS_ISA       force an instruction set (see `bitops info`), e.g. BITOPS_ISA=generic
  OMP_NUM_THREADS  threads used by bitops (and by most BLAS libraries)
"""


def positive(kind: Callable[[str], Any]) -> Callable[[str], Any]:
    """Make an argparse type that takes numbers above zero."""

    def parse(text: str) -> Any:
        value = kind(text)
        if not 0 < value < float("inf"):
            raise argparse.ArgumentTypeError(f"must be above 0, got {text}")
        return value

    parse.__name__ = kind.__name__
    return parse


def seed(text: str) -> int:
    """Parse a seed, which numpy.random.default_rng wants non-negative."""
    value = int(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"must not be negative, got {text}")
    return value


def share(text: str) -> float:
    """Parse a rate of dropout."""
    value = float(text)
    if not 0 <= value < 1:
        raise argparse.ArgumentTypeError(f"must be in [0, 1), got {text}")
    return value


def output_file(text: str) -> Path:
    """Parse the path of a file to write; refuse it now rather than after minutes of work."""
    path = Path(text).absolute()
    # The file is put in place by a rename, which would replace a link or a device, /dev/stdout say.
    if path.is_symlink() or (path.exists() and not path.is_file()):
        raise argparse.ArgumentTypeError(f"exists and is not a regular file: {text}")
    if not path.parent.is_dir():
        raise argparse.ArgumentTypeError(f"no such directory: {path.parent}")
    if not os.access(path.parent, os.W_OK):
        raise argparse.ArgumentTypeError(f"directory is not writable: {path.parent}")
    return path


def log_file(text: str) -> Path:
    """Parse the path of a log, whose ending says its format."""
    if Path(text).suffix not in (".csv", ".jsonl"):
        raise argparse.ArgumentTypeError(f"must end in .csv or .jsonl, got {text}")
    return output_file(text)


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


def run_info(args: argparse.Namespace) -> int:
    """Print what this installation is and what it found on this machine."""
    print_pairs(describe_machine())
    return 0


BENCH_HEADER = (
    f"{'m':>5} {'n':>5} {'k':>5} {'threads':>7}  {'float32':>8} {'packed':>8} {'ratio':>6}"
    f"  {'+ packing':>9} {'ratio':>6}  {'spread':>6}"
)


def bench_row(result: benchmark.GemmResult) -> str:
    """Format one row of the GEMM table."""
    r = result
    return (
        f"{r.m:>5} {r.n:>5} {r.k:>5} {r.threads:>7}  {r.gmacs(r.blas):>8.1f}"
        f" {r.gmacs(r.packed):>8.1f} {r.ratio(r.packed):>6.1f}"
        f"  {r.gmacs(r.with_packing):>9.1f} {r.ratio(r.with_packing):>6.1f}"
        f"  {max(r.blas.spread, r.packed.spread):>6.0%}"
    )


def run_bench(args: argparse.Namespace) -> int:
    """Print the GEMM table; write it as JSON where asked."""
    stamp = benchmark.machine_stamp()
    print_pairs(describe_machine())
    if stamp["load"] is not None:  # Windows tells none
        print(f"{'load':<10} {stamp['load']:.2f} before the start")
        if stamp["load"] > 0.5:
            print("note: other work is running on this machine; expect noisy figures")
    if not benchmark.can_limit_blas():
        print(benchmark.NO_BLAS_LIMIT)
    print(
        "\nGMAC/s (1e9 multiply-accumulates a second), best of the rounds; operands warm.\n"
        "float32: NumPy matmul. packed: gemm on packed a and prepacked w. + packing: a packed in\n"
        "the call as well. ratio: to float32. spread: quartile distance over the median.\n"
        f"\n{BENCH_HEADER}"
    )
    results = []
    for shape in benchmark.gemm_table.GEMM_SHAPES:
        operands = benchmark.GemmOperands(*shape)
        for threads in benchmark.thread_counts():
            results.append(
                benchmark.measure_gemm(operands, threads, seconds=0.3 if args.quick else 2.0)
            )
            # A table row is the progress; flush so that it shows through a pipe as well.
            print(bench_row(results[-1]), flush=True)
    print(f"\nAll {3 * len(results)} timed results equal the float32 product.")
    if args.json:
        data = {"stamp": stamp, "gemm": [r.as_dict() for r in results]}
        write_file(args.json, (json.dumps(data, indent=1) + "\n").encode())
        print(f"Written to {args.json}")
    return 0


def run_demo(args: argparse.Namespace) -> int:
    """Train, pack, check and time one network."""
    if args.conv and args.data is None:
        args.refuse("--conv needs --data DIR, a folder with CIFAR-10")
    if args.conv and args.depth is not None:
        args.refuse("--depth is for the MLP, not for --conv")
    # Imported here so that `info` and `bench` do not load the training code.
    from . import demo

    return demo.run(args)


def run_recipe_command(args: argparse.Namespace) -> int:
    """List, train or test recipes."""
    # Imported here for the same reason.
    from . import train as command

    return getattr(command, f"run_{args.command}")(args)


def run_plot(args: argparse.Namespace) -> int:
    """Draw the log of a training."""
    from .plot import plot

    for path in plot(args.log, args.out):
        print(path)
    return 0


def make_parser() -> argparse.ArgumentParser:
    """Build the parser of the subcommands."""
    parser = argparse.ArgumentParser(
        prog="bitops",
        description="Packed-bit GEMM and binarized neural networks for NumPy.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"bitops {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="command")

    info = commands.add_parser("info", help="version, processor, instruction sets, threads, BLAS")
    info.set_defaults(run=run_info)

    demo = commands.add_parser(
        "demo",
        help="train a small network, pack it, check and time the packed one",
        description="Train a binarized MLP, or with --conv a binarized ConvNet, freeze it to "
        "packed bits, check that the packed network's scores equal the training graph's on every "
        "test image, and time it against float32 BLAS. "
        "Without --data it uses the digits that scikit-learn carries; nothing is downloaded.",
    )
    add_demo_options(demo)
    demo.set_defaults(run=run_demo, refuse=demo.error)

    plot = commands.add_parser(
        "plot",
        help="draw the log of a training as PNG pictures",
        description="Draw loss and errors, flip ratios, saturated activations and histograms of "
        "latent weights from a log of bitops.training.log.Log, also while the training still "
        "runs. Needs matplotlib.",
    )
    plot.add_argument("log", type=Path, metavar="LOG", help="a .csv or .jsonl file")
    plot.add_argument(
        "--out", type=Path, metavar="DIR", help="folder for the pictures (that of LOG)"
    )
    plot.set_defaults(run=run_plot)

    bench = commands.add_parser(
        "bench",
        help="time binary GEMM against float32 BLAS",
        description="Time binary GEMM against float32 BLAS on one thread and on all, and check "
        "every timed result. Takes about a minute, with --quick about ten seconds.",
    )
    bench.add_argument("--quick", action="store_true", help="fewer rounds, noisier figures")
    bench.add_argument("--json", type=output_file, metavar="FILE", help="also write the results")
    bench.set_defaults(run=run_bench)

    recipes = commands.add_parser(
        "recipes", help="list the published ways to train that `train` knows"
    )
    recipes.set_defaults(run=run_recipe_command)

    train = commands.add_parser(
        "train",
        help="train a network as published, pack it, check the packed one",
        description="Train a network as published (`bitops recipes` lists them) on MNIST, CIFAR-10 "
        "or SVHN, whichever is in the folder; keep the epoch with the smallest validation error; "
        "test it, freeze it to packed bits, and check that the packed network's scores equal the "
        "training graph's on every test image. Numbers not given are those of the source, or with "
        "--quick those of a training that fits a laptop. Schedules stretch to the epochs.",
    )
    add_train_options(train)
    train.set_defaults(run=run_recipe_command, refuse=train.error)

    evaluate = commands.add_parser(
        "eval",
        help="test error and speed of a packed model",
        description="Print the test error of a packed model, as `bitops train --save` writes it, "
        "and the images it classifies in a second.",
    )
    evaluate.add_argument("model", type=Path, metavar="MODEL", help="a file of a packed model")
    add_data_option(evaluate)
    evaluate.set_defaults(run=run_recipe_command)
    return parser


def add_data_option(parser: argparse.ArgumentParser) -> None:
    """Add the folder of a data set, which is told by its files."""
    parser.add_argument(
        "--data",
        type=Path,
        metavar="DIR",
        required=True,
        help="folder with the files of MNIST, CIFAR-10 or SVHN",
    )


def add_train_options(train: argparse.ArgumentParser) -> None:
    """Add the options of `bitops train`; None stands for the recipe's own number."""
    train.add_argument("recipe", metavar="RECIPE", help="a name that `bitops recipes` lists")
    add_data_option(train)
    train.add_argument("--quick", action="store_true", help="numbers for a laptop, see `recipes`")
    train.add_argument(
        "--epochs", type=positive(int), metavar="N", help="passes over the training images"
    )
    train.add_argument(
        "--width",
        type=positive(int),
        metavar="W",
        help="units of a hidden layer, or channels of the first convolution",
    )
    train.add_argument(
        "--dropout", type=share, metavar="D", help="rate behind hidden layers, in [0, 1)"
    )
    train.add_argument("--batch", type=positive(int), metavar="B", help="images in a step")
    train.add_argument("--lr", type=positive(float), help="learning rate of the first epoch")
    train.add_argument(
        "--byte-gradients",
        action="store_const",
        const=True,
        help="round gradients to 8 bits in the backward products of binary layers: shorter steps",
    )
    train.add_argument(
        "--seed",
        type=seed,
        default=0,
        metavar="S",
        help="of start weights, dropout and the order of the images (0)",
    )
    train.add_argument(
        "--log", type=log_file, metavar="FILE", help="write a row an epoch, .csv or .jsonl"
    )
    train.add_argument(
        "--checkpoint", type=output_file, metavar="FILE", help="write all that --resume needs"
    )
    train.add_argument(
        "--resume", action="store_true", help="go on from the checkpoint, if there is one"
    )
    train.add_argument("--save", type=output_file, metavar="MODEL", help="keep the packed model")
    train.add_argument("--quiet", action="store_true", help="no line for each epoch")


def add_demo_options(demo: argparse.ArgumentParser) -> None:
    """Add the options of `bitops demo`; None stands for the data set's own default."""
    demo.add_argument(
        "--data",
        type=Path,
        metavar="DIR",
        help="folder with the four MNIST IDX files (.gz or not); with --conv with CIFAR-10, its "
        "binary version or train.tar and test.tar of JPEG copies",
    )
    demo.add_argument(
        "--conv", action="store_true", help="BinaryNet's ConvNet on CIFAR-10 instead of an MLP"
    )
    demo.add_argument("--epochs", type=positive(int), help="passes over the training images")
    demo.add_argument(
        "--width",
        type=positive(int),
        help="units of a hidden layer; with --conv channels of the first stage",
    )
    demo.add_argument("--depth", type=positive(int), help="number of hidden layers")
    demo.add_argument("--batch", type=positive(int), help="images in a training step")
    demo.add_argument("--lr", type=positive(float), help="learning rate of the first epoch")
    demo.add_argument("--seed", type=seed, default=0, help="of initial weights and shuffling (0)")
    demo.add_argument(
        "--save", type=output_file, metavar="FILE", help="keep the packed model, a safetensors file"
    )
    demo.add_argument("--quiet", action="store_true", help="no progress bar")


def is_closed_pipe(error: BaseException) -> bool:
    """Whether the output has no reader; Windows then calls it an invalid argument, of no file."""
    if sys.platform == "win32" and isinstance(error, OSError) and error.filename is None:
        return error.errno in (errno.EPIPE, errno.EINVAL)
    return isinstance(error, BrokenPipeError)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    args = make_parser().parse_args(argv)
    try:
        code = args.run(args)
        # Here rather than at exit, where a closed pipe could no longer be reported.
        sys.stdout.flush()
        return code
    except KeyboardInterrupt:
        print("\nbitops: interrupted", file=sys.stderr)
        return 130
    except FAILURES as error:
        if is_closed_pipe(error):
            # The reader, say `head`, has seen enough; the interpreter must not flush into it at
            # exit.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 0
        print(f"bitops {args.command}: error: {error}", file=sys.stderr)
        return 1
