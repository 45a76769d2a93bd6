"""`bitops demo`: train a net, pack it, check that the packed one computes the same, time it."""

from __future__ import annotations

import argparse
import sys
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from .. import benchmark, io
from ..data.datasets import Dataset, load_cifar10, load_digits, load_mnist
from ..layers import Packed, PackedConv2D, PackedDense, Sequential
from ..models import binarynet, mlp
from ..training.optim import ExponentialDecay

# Images whose activations are in memory at once: a tenth of the default, which rows take.
IMAGES_AT_A_TIME = 100


@dataclass(frozen=True)
class Recipe:
    """How to train; the options of the command may override all but `decay`."""

    width: int  # units of a hidden layer; with --conv channels of the first stage
    depth: int | None  # hidden layers; the ConvNet has no choice
    epochs: int
    batch: int
    lr: float
    decay: float  # last learning rate over the first

    @classmethod
    def of(cls, args: argparse.Namespace) -> Recipe:
        """Return the options given, and the defaults of net and data set for the others."""
        default = CIFAR10 if args.conv else DIGITS if args.data is None else MNIST
        options = ("width", "depth", "epochs", "batch", "lr")
        given = {name: getattr(args, name) for name in options}
        return replace(default, **{k: v for k, v in given.items() if v is not None})


# The code released with BinaryNet lets the rate fall by 10,000 in all; a few epochs want less.
DIGITS = Recipe(width=512, depth=3, epochs=30, batch=50, lr=3e-3, decay=1e-4)
MNIST = Recipe(width=1024, depth=3, epochs=15, batch=100, lr=3e-3, decay=1e-4)
CIFAR10 = Recipe(width=32, depth=None, epochs=6, batch=50, lr=3e-3, decay=1e-2)


def make_mlp(data: Dataset, recipe: Recipe, seed: int) -> tuple[Sequential, str]:
    """Return an MLP for the images as rows, and its layers in words."""
    assert recipe.depth is not None
    features = data.x_train.shape[1]
    model = mlp(features, recipe.width, recipe.depth, data.classes, seed=seed)
    sizes = [features, *[recipe.width] * recipe.depth, data.classes]
    return model, "-".join(map(str, sizes))


def make_convnet(data: Dataset, recipe: Recipe, seed: int) -> tuple[Sequential, str]:
    """Return BinaryNet's ConvNet in the width asked for, and its layers in words."""
    channels, hidden = [recipe.width << stage for stage in range(3)], 8 * recipe.width
    model = binarynet(data.image_shape, data.classes, width=recipe.width / 128, seed=seed)
    stages = [f"2x{count}C3-P2" for count in channels]
    return model, "-".join([*stages, f"{hidden}-{hidden}-{data.classes}"])


def train(data: Dataset, model: Sequential, recipe: Recipe, seed: int, quiet: bool) -> None:
    """Train in place, keeping the epoch with the best validation error."""
    print(
        f"training {recipe.epochs} epochs, batch {recipe.batch}, learning rate from {recipe.lr:g}, "
        f"seed {seed}; errors on {data.name}",
        flush=True,
    )
    history = model.fit(
        data.x_train,
        data.y_train,
        epochs=recipe.epochs,
        batch_size=recipe.batch,
        validation=(data.x_validation, data.y_validation),
        schedule=ExponentialDecay(recipe.lr, recipe.lr * recipe.decay),
        seed=seed,
        verbose=0 if quiet else 1,
    )
    best = history.best
    assert best is not None  # given a validation set, fit always keeps one
    print(
        f"trained in {history.seconds:.1f} s; kept epoch {best.number}, "
        f"validation error {best.validation_error:.2%} on {data.name}"
    )


def write_and_read(packed: Packed) -> tuple[Packed, int]:
    """Return the model as read back from a file of its own, and the size of that file."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "demo.safetensors"
        io.save(packed, path)
        return io.load(path), path.stat().st_size


def count_differences(model: Sequential, packed: Packed, x: np.ndarray) -> int:
    """Count the rows whose scores or label differ in any bit between the two."""
    options = {"batch_size": IMAGES_AT_A_TIME}
    trained = np.asarray(model.outputs(x, **options))
    frozen = np.asarray(packed.outputs(x, **options))
    if trained.dtype != frozen.dtype or trained.shape != frozen.shape:
        return len(x)
    # Compared as bytes: a zero of the other sign would be a difference, and so would a NaN not be.
    same = (trained.view(np.uint8) == frozen.view(np.uint8)).all(axis=1)
    same &= model.predict(x, **options) == packed.predict(x, **options)
    return int(np.count_nonzero(~same))


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


def load(args: argparse.Namespace) -> Dataset:
    """Read the data set that the options name."""
    if args.conv:
        return load_cifar10(args.data)
    return load_digits() if args.data is None else load_mnist(args.data)


def run(args: argparse.Namespace) -> int:
    """Run the demo and return the exit code of the command: 1 if packing changed any output."""
    stamp = benchmark.machine_stamp()
    print(
        f"bitops   {stamp['version']} on {stamp['cpu']}, {stamp['isa']}, threads {stamp['threads']}"
    )
    data, recipe = load(args), Recipe.of(args)
    size = " x ".join(map(str, data.image_shape))
    print(
        f"data     {data.name}: {len(data.y_train):,} training, {len(data.y_validation):,} "
        f"validation and {len(data.y_test):,} test images of {size}"
    )
    make = make_convnet if args.conv else make_mlp
    model, layers = make(data, recipe, args.seed)
    print(f"net      {layers}, all weights and hidden activations +-1")
    train(data, model, recipe, args.seed, args.quiet)
    packed, file_bytes = write_and_read(model.freeze())
    total = len(data.y_test)

    different = count_differences(model, packed, data.x_test)
    if different:
        print(
            f"bitops demo: FAILED: packed and trained network differ on {different:,} of "
            f"{total:,} test images",
            file=sys.stderr,
        )
        return 1
    print(
        f"\nequal    packed scores are those of the training graph, bit for bit, on all {total:,} "
        "test images"
    )
    error = packed.error_rate(data.x_test, data.y_test, batch_size=IMAGES_AT_A_TIME)
    print(
        f"error    {error:.2%} of the test images ({round(error * total):,} of {total:,}), "
        f"accuracy {1 - error:.2%}, on {data.name}"
    )
    products = [i for i in packed.layers if isinstance(i, PackedDense | PackedConv2D)]
    float_bytes = 4 * sum(layer.weight.size for layer in products)
    print(
        f"size     packed file {file_bytes:,} bytes, float32 weights {float_bytes:,} bytes: "
        f"{float_bytes / file_bytes:.1f} times smaller"
    )
    if args.save is not None:
        io.save(packed, args.save)
        print(f"saved    {args.save}")
    print_speed(packed, data.x_test)
    return 0
