"""`bitops demo`: train an MLP, pack it, check that the packed one computes the same, time it."""

from __future__ import annotations

import argparse
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from . import benchmark, io
from .datasets import Dataset, load_digits, load_mnist
from .layers import Packed, PackedDense, Sequential
from .models import mlp
from .optim import ExponentialDecay


@dataclass(frozen=True)
class Recipe:
    """What the options of the command may override."""

    width: int
    depth: int
    epochs: int
    batch: int
    lr: float

    @classmethod
    def of(cls, args: argparse.Namespace) -> Recipe:
        """Return the options given, and the data set's defaults for the others."""
        default = DIGITS if args.data is None else MNIST
        given = {name: getattr(args, name) for name in default.__dataclass_fields__}
        return cls(**{k: getattr(default, k) if v is None else v for k, v in given.items()})


DIGITS = Recipe(width=512, depth=3, epochs=30, batch=50, lr=3e-3)
MNIST = Recipe(width=1024, depth=3, epochs=15, batch=100, lr=3e-3)


def train(data: Dataset, recipe: Recipe, seed: int, quiet: bool) -> Sequential:
    """Train an MLP on the images, keeping the epoch with the best validation error."""
    model = mlp(
        data.x_train.shape[1],
        hidden=recipe.width,
        depth=recipe.depth,
        classes=data.classes,
        seed=seed,
    )
    height, width = data.image_shape
    print(
        f"data     {data.name}: {len(data.y_train):,} training, {len(data.y_validation):,} "
        f"validation and {len(data.y_test):,} test images of {height} x {width}"
    )
    sizes = [data.x_train.shape[1], *[recipe.width] * recipe.depth, data.classes]
    print(f"net      {'-'.join(map(str, sizes))}, all weights and hidden activations +-1")
    print(
        f"training {recipe.epochs} epochs, batch {recipe.batch}, learning rate from {recipe.lr:g}, "
        f"seed {seed}",
        flush=True,
    )
    history = model.fit(
        data.x_train,
        data.y_train,
        epochs=recipe.epochs,
        batch_size=recipe.batch,
        validation=(data.x_validation, data.y_validation),
        # The rate falls by 10,000 in all, as in the code released with BinaryNet.
        schedule=ExponentialDecay(recipe.lr, recipe.lr * 1e-4),
        seed=seed,
        verbose=0 if quiet else 1,
    )
    best = history.best
    assert best is not None  # given a validation set, fit always keeps one
    print(
        f"trained in {history.seconds:.1f} s; kept epoch {best.number}, "
        f"validation error {best.validation_error:.2%}"
    )
    return model


def write_and_read(packed: Packed) -> tuple[Packed, int]:
    """Return the model as read back from a file of its own, and the size of that file."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "demo.safetensors"
        io.save(packed, path)
        return io.load(path), path.stat().st_size


def count_differences(model: Sequential, packed: Packed, x: np.ndarray) -> int:
    """Count the rows whose scores or label differ in any bit between the two."""
    trained, frozen = np.asarray(model.outputs(x)), np.asarray(packed.outputs(x))
    if trained.dtype != frozen.dtype or trained.shape != frozen.shape:
        return len(x)
    # Compared as bytes: a zero of the other sign would be a difference, and so would a NaN not be.
    same = (trained.view(np.uint8) == frozen.view(np.uint8)).all(axis=1)
    same &= model.predict(x) == packed.predict(x)
    return int(np.count_nonzero(~same))


def print_speed(packed: Packed, x: np.ndarray) -> None:
    """Time packed and float32 inference at batch 1 and 100, on one thread and on all."""
    print(
        "\nInference, ms a batch: best of the rounds, operands warm. float32: the same net in\n"
        "NumPy, BLAS product, scale and shift, sign. Every score of both was compared."
    )
    if not benchmark.can_limit_blas():
        print(benchmark.NO_BLAS_LIMIT)
    print(f"{'batch':>5} {'threads':>7} {'float32':>9} {'packed':>9} {'ratio':>6}")
    for batch in (1, 100):
        for threads in benchmark.thread_counts():
            result = benchmark.measure_inference(packed, x[:batch], threads, seconds=0.5)
            print(
                f"{result.batch:>5} {threads:>7} {result.blas.best * 1e3:>9.3f} "
                f"{result.packed.best * 1e3:>9.3f} {result.ratio:>6.1f}",
                flush=True,
            )


def run(args: argparse.Namespace) -> int:
    """Run the demo and return the exit code of the command: 1 if packing changed any output."""
    stamp = benchmark.machine_stamp()
    print(
        f"bitops   {stamp['version']} on {stamp['cpu']}, {stamp['isa']}, threads {stamp['threads']}"
    )
    data = load_digits() if args.data is None else load_mnist(args.data)
    model = train(data, Recipe.of(args), args.seed, args.quiet)
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
    error = packed.evaluate(data.x_test, data.y_test)
    print(f"error    {error:.2%} of the test images ({round(error * total):,} of {total:,})")
    float_bytes = 4 * sum(i.weight.size for i in packed.layers if isinstance(i, PackedDense))
    print(
        f"size     packed file {file_bytes:,} bytes, float32 weights {float_bytes:,} bytes: "
        f"{float_bytes / file_bytes:.1f} times smaller"
    )
    if args.save is not None:
        io.save(packed, args.save)
        print(f"saved    {args.save}")
    print_speed(packed, data.x_test)
    return 0
