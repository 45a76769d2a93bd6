"""`bitops demo`: train a net, pack it, check that the packed one computes the same, time it."""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import benchmark, io
from ..files.text import printable
from .arguments import add_training_options, positive

if TYPE_CHECKING:
    import numpy as np

    from ..data.datasets import Dataset
    from ..layers import Packed

__all__ = ["add_parser", "run"]


def add_parser(commands: Any) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "demo",
        help="train a small network, pack it, check and time the packed one",
        description="Train a binarized MLP, or with --conv a binarized ConvNet, freeze it to "
        "packed bits, check that the packed network's scores equal the training graph's on every "
        "test image, and time it against float32 BLAS. "
        "Without --data it uses the digits that scikit-learn carries; nothing is downloaded.",
    )
    parser.add_argument(
        "--data",
        type=Path,
        metavar="DIR",
        help="folder with the four MNIST IDX files (.gz or not); with --conv with CIFAR-10, its "
        "binary version or train.tar and test.tar of JPEG copies",
    )
    parser.add_argument(
        "--conv", action="store_true", help="BinaryNet's ConvNet on CIFAR-10 instead of an MLP"
    )
    parser.add_argument(
        "--depth", type=positive(int), metavar="N", help="number of hidden layers of the MLP"
    )
    add_training_options(parser)
    parser.set_defaults(run=run, refuse=parser.error)


def run(args: argparse.Namespace) -> int:
    """Train, pack, check and time one network; exit code 1 if packing changed any output."""
    if args.conv and args.data is None:
        args.refuse("--conv needs --data DIR, a folder with CIFAR-10")
    if args.conv and args.depth is not None:
        args.refuse("--depth is for the MLP, not for --conv")
    # imported here, so that `bitops info` and `bitops bench` load no training code
    from ..recipes import Job
    from ..recipes.base import inputs
    from ..recipes.demo import DEMO
    from ..recipes.training import train
    from . import results

    stamp = benchmark.machine_stamp()
    kind, data = load(args)
    setting = DEMO.setting(kind)
    plan = setting.resolve(**results.plan_options(args)).within(len(data.y_train))
    print(
        f"bitops   {stamp['version']} on {stamp['cpu']}, {stamp['isa']}, "
        f"threads {stamp['threads']}\n"
        f"data     {results.describe_data(data)}\n"
        f"settings {results.describe_plan(plan, args.seed)}; errors on {printable(data.name)}",
        flush=True,
    )
    job = Job(data, plan, args.seed, verbose=0 if args.quiet else 1, say=say_net)
    trained = train(setting, job)
    best = trained.best
    print(
        f"trained in {trained.seconds:.1f} s; kept epoch {best.number}, "
        f"validation error {best.validation_error:.2%} on {printable(data.name)}"
    )
    model, x = trained.model, inputs(trained.model, data, data.x_test)
    packed = model.freeze()
    packed.notes["preprocessing"] = "pixels"
    try:
        packed, file_bytes = write_and_read(packed)
    except OSError as error:
        if args.save is None:
            raise
        raise OSError(f"{error}; {results.rescue(packed)}") from error
    labels = results.check_packed("demo", model, packed, x)
    if labels is None:
        return 1
    print_results(packed, file_bytes, data, labels)
    if args.save is not None:
        results.save(packed, args.save)
    print_speed(packed, x)
    return 0


def load(args: argparse.Namespace) -> tuple[str, Dataset]:
    """Read the data set that the options name, and tell its kind."""
    from ..data.datasets import load_cifar10, load_digits, load_mnist

    if args.conv:
        return "cifar10", load_cifar10(args.data)
    return ("digits", load_digits()) if args.data is None else ("mnist", load_mnist(args.data))


def say_net(line: str) -> None:
    """Print the line about the network."""
    print(f"{line}, all weights and hidden activations +-1", flush=True)


def write_and_read(packed: Packed) -> tuple[Packed, int]:
    """Return the model as read back from a file of its own, and the size of that file."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "demo.safetensors"
        io.save(packed, path)
        return io.load(path), path.stat().st_size


def print_results(packed: Packed, file_bytes: int, data: Dataset, labels: np.ndarray) -> None:
    """Print error and size of a packed network that was found equal to its training graph.

    `labels` are its classes of the test images.
    """
    from ..layers import PackedConv2D, PackedDense
    from ..training.compare import error_of

    total = len(data.y_test)
    error = error_of(labels, data.y_test)
    products = [i for i in packed.layers if isinstance(i, PackedDense | PackedConv2D)]
    float_bytes = 4 * sum(layer.weight.size for layer in products)
    print(
        f"\nequal    packed scores are those of the training graph, bit for bit, on all {total:,} "
        "test images\n"
        f"error    {error:.2%} of the test images ({round(error * total):,} of {total:,}), "
        f"accuracy {1 - error:.2%}, on {printable(data.name)}\n"
        f"size     packed file {file_bytes:,} bytes, float32 weights {float_bytes:,} bytes: "
        f"{float_bytes / file_bytes:.1f} times smaller"
    )


def print_speed(packed: Packed, x: np.ndarray) -> None:
    """Time packed and float32 inference at batch 1 and 100, on one thread and on all."""
    print(
        "\nInference: best of the rounds, operands warm. float32: the same net in NumPy, BLAS\n"
        "product (of patches as rows in a convolution), scale and shift, sign, with the same\n"
        "max-pool. Every score of both was compared."
    )
    if not benchmark.can_limit_blas():
        print(benchmark.NO_BLAS_LIMIT)
    print(f"{'':13} {'ms a batch':>19} {'images a second':>19}")
    print(
        f"{'batch':>5} {'threads':>7} {'float32':>9} {'packed':>9} {'float32':>9} {'packed':>9} "
        f"{'ratio':>6}"
    )
    for batch in (1, 100):
        for threads in benchmark.thread_counts():
            result = benchmark.measure_inference(packed, x[:batch], threads, seconds=0.5)
            blas, bits = result.blas.best, result.packed.best
            print(
                f"{result.batch:>5} {threads:>7} {blas * 1e3:>9.3f} {bits * 1e3:>9.3f} "
                f"{result.batch / blas:>9,.0f} {result.batch / bits:>9,.0f} {result.ratio:>6.1f}",
                flush=True,
            )
