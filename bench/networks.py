"""Whole packed networks against PyTorch float32 networks of the same size, on one thread.

    python bench/networks.py [--seconds 5] [--json networks.json]

The MLP 784-4096x3-10 and BinaryNet's ConvNet for CIFAR-10, with random weights and random
BatchNorms. The rival has the same weights with the BatchNorms folded into them, ReLU between the
layers, images in float32 and channels_last, and runs in inference mode; with sign in place of ReLU
it gives our scores, which is checked before the timing. Ours takes the images as uint8. Both take
turns, and figures are medians. `pip install torch`.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import bitops as bo
import common
from bitops.benchmark import WrongResult, interleave, threads
from bitops.layers import (
    BatchNorm,
    MaxPool2D,
    Packed,
    PackedConv2D,
    PackedDense,
    PackedFlatten,
    PackedMaxPool2D,
    Sequential,
)
from bitops.models import binarynet, mlp
from peers import limit_peers, load_peers

NETS: tuple[tuple[str, Callable[[], Sequential], tuple[int, ...], tuple[int, ...]], ...] = (
    ("MLP 784-4096x3-10", lambda: mlp(784, 4096, 3, seed=0), (784,), (1, 100)),
    ("BinaryNet ConvNet", lambda: binarynet(seed=0), (32, 32, 3), (1, 50)),
)


def freeze_disturbed(model: Sequential, images: np.ndarray) -> Packed:
    """Pack a net with random BatchNorms whose statistics are those of the images."""
    rng = np.random.default_rng(1)
    before = None
    for layer in model.layers:
        if isinstance(layer, BatchNorm):
            signs = rng.choice([-1, 1], layer.gamma.shape)
            # The rival folds a BatchNorm into the weights, also through the max-pool before it;
            # that needs gamma > 0 there.
            if isinstance(before, MaxPool2D):
                signs[:] = 1
            layer.gamma.assign(signs * rng.uniform(0.5, 1.5, signs.shape).astype(np.float32))
            layer.beta.assign(rng.normal(0, 0.5, signs.shape).astype(np.float32))
        before = layer
    model.forward(images, training=True)  # the first batch sets the running statistics
    return model.freeze()


class TorchNet:
    """The float32 twin: products with what follows them folded in, `activation` between them."""

    def __init__(self, torch: Any, packed: Packed):
        self.torch = torch
        self.steps = [self._step(layer) for layer in packed.layers]

    def _step(self, layer: Any) -> Callable[[Any, Any], Any]:
        functional = self.torch.nn.functional
        if isinstance(layer, PackedFlatten):
            # Ours flattens channels last.
            return lambda x, activation: x.permute(0, 2, 3, 1).flatten(1)
        if isinstance(layer, PackedMaxPool2D):
            size = layer.windows.kernel_size
            return lambda x, activation: functional.max_pool2d(x, size)
        if not isinstance(layer, PackedDense | PackedConv2D):
            raise TypeError(f"no twin is known of {layer!r}")
        product = self._product(layer, *(self.torch.from_numpy(a) for a in fold(layer)))
        if layer.threshold is None:
            return lambda x, activation: product(x)
        return lambda x, activation: activation(product(x))

    def _product(self, layer: Any, weight: Any, bias: Any) -> Callable[[Any], Any]:
        functional = self.torch.nn.functional
        if isinstance(layer, PackedDense):
            return lambda x: functional.linear(x, weight, bias)
        filters = weight.permute(0, 3, 1, 2)
        padding = [side[0] for side in layer.operation.windows.padding]
        return lambda x: functional.conv2d(x, filters, bias, padding=padding)

    def __call__(self, x: Any, activation: Any) -> Any:
        with self.torch.inference_mode():
            for step in self.steps:
                x = step(x, activation)
            return x

    def sign(self, x: Any) -> Any:
        return self.torch.where(x > 0, 1.0, -1.0)


def fold(layer: PackedDense | PackedConv2D) -> tuple[np.ndarray, np.ndarray]:
    """Weights and bias in float32 whose product is positive where the packed layer has a bit."""
    weight = bo.unpack(layer.weight, dtype=np.float32)
    if layer.threshold is None:
        scale, bias = layer.alpha, layer.bias
    else:
        # Products are integers: (z > t) ^ flip is the sign of z - t' or t' - z, t' next above t.
        flip = np.zeros(len(weight), bool) if layer.flip is None else layer.flip
        scale = np.where(flip, np.float32(-1), np.float32(1))
        bias = -scale * (np.floor(layer.threshold) + 0.5)
    weight *= scale.reshape(-1, *[1] * (weight.ndim - 1))
    return weight, bias.astype(np.float32)


def measure(
    name: str, packed: Packed, images: np.ndarray, torch: Any, seconds: float
) -> dict[str, Any]:
    """Median time of a batch of images, ours and torch's, after a comparison of the scores."""
    numbers = torch.from_numpy(images.astype(np.float32))
    if images.ndim == 4:
        numbers = numbers.permute(0, 3, 1, 2)  # channels_last in memory
    rival = TorchNet(torch, packed)
    expected = packed(images)
    scores = rival(numbers, rival.sign).numpy()
    if not np.allclose(scores, expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max()):
        raise WrongResult(f"[networks] torch gave other scores for {name}")

    def check(side: str, result: Any) -> None:
        if side == "bitops" and not np.array_equal(result, expected):
            raise WrongResult(f"[networks] the scores of {name} changed")

    calls = {
        "bitops": lambda: packed(images),
        "float32": lambda: rival(numbers, torch.nn.functional.relu_),
    }
    timings = interleave(calls, seconds=seconds, check=check)
    return {
        "net": name,
        "batch": len(images),
        "seconds": {side: timing.median for side, timing in timings.items()},
        "spread": {side: timing.spread for side, timing in timings.items()},
        "ratio": timings["float32"].median / timings["bitops"].median,
    }


def print_row(row: dict[str, Any]) -> None:
    ours, rival = row["seconds"]["bitops"], row["seconds"]["float32"]
    print(
        f"{row['net']:<20} {row['batch']:>5} {ours * 1e3:>10.3f} {rival * 1e3:>10.3f}"
        f" {row['batch'] / ours:>10,.0f} {row['batch'] / rival:>10,.0f} {row['ratio']:>6.1f}",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=5.0, help="time for each net and batch")
    parser.add_argument("--json", type=Path, help="write all figures to this file")
    options = parser.parse_args()
    stamp = common.stamp()
    for name, value in stamp.items():
        print(f"{name}: {value}")
    peers = load_peers(("torch",))
    if not peers:
        parser.exit(1, "networks: PyTorch is the rival: pip install torch\n")
    print(f"torch: {peers['torch'].__version__}")
    print("\nms a batch and images a second, medians, one thread")
    print(
        f"{'net':<20} {'batch':>5} {'packed':>10} {'float32':>10}"
        f" {'packed':>10} {'float32':>10} {'ratio':>6}"
    )
    rows = []
    rng = np.random.default_rng(0)
    with threads(1):
        limit_peers(peers, 1)
        for name, make, shape, batches in NETS:
            images = rng.integers(0, 256, (max(batches), *shape), np.uint8)
            packed = freeze_disturbed(make(), images)
            for batch in batches:
                rows.append(measure(name, packed, images[:batch], peers["torch"], options.seconds))
                print_row(rows[-1])
    if options.json:
        report = {"machine": stamp, "networks": rows}
        options.json.write_text(json.dumps(report, indent=2, default=str))


if __name__ == "__main__":
    main()
