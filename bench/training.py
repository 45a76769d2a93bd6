"""Training steps (forward, backward, update) against PyTorch's emulation of the same network.

    python bench/training.py [--seconds 20] [--json training.json]
    python bench/training.py --memory

MLPs of 3 hidden layers with batch 100, and the ConvNets of BinaryNet and BinaryConnect for CIFAR-10
with batch 50, on one thread. BinaryConnect has ReLU where BinaryNet has signs. The rival keeps the
+-1 values in float32, and is written as an optimised one: sign is one operation with a gradient of
its own, weights are binarized without a copy besides the signs themselves, Adam is the fused one,
images are channels_last. It starts from the same weights; the loss, and the gradients of the first
step, are compared before anything is timed. `8-bit` and `6-bit` are bitops with the gradients of
its backward products rounded to so many bits at random (`Sequential.round_gradients`), and `all 16`
is `6-bit` with Adam's moments as bfloat16 and latent weights as int16. The last network is that of
BinaryConnect with real activations of 7 bits in the steps of these three. All take turns, and
figures are medians. Memory that steps leave is kept for the next one, as `fit` does, PyTorch's too.
`pip install torch`.

--memory measures the most memory that some steps take instead, each network in a process of its
own, weights and moments included; Linux only.
"""

from __future__ import annotations

import argparse
import gc
import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

import common
from bitops.benchmark import WrongResult, interleave, threads
from bitops.layers import (
    BatchNorm,
    BinaryConv2D,
    BinaryDense,
    Flatten,
    MaxPool2D,
    ReLU,
    Sequential,
    Sign,
)
from bitops.models import binarynet, mlp
from bitops.training.losses import squared_hinge
from bitops.training.optim import Adam
from bitops.training.process import kept_memory
from peers import limit_peers, load_peers


def binaryconnect() -> Sequential:
    """BinaryNet's ConvNet with real activations."""
    model = binarynet(seed=3)
    layers = [ReLU() if isinstance(layer, Sign) else layer for layer in model.layers]
    return Sequential(layers, input_shape=model.input_shape)


@dataclass(frozen=True)
class Case:
    """A network, its images, and whether real activations are rounded where gradients are."""

    name: str
    make: Callable[[], Sequential]
    shape: tuple[int, ...]
    batch: int
    activations: bool = False


CASES = (
    Case("MLP 784-4096x3-10", lambda: mlp(784, 4096, 3, seed=0), (784,), 100),
    Case("MLP 784-1024x3-10", lambda: mlp(784, 1024, 3, seed=0), (784,), 100),
    Case("BinaryNet ConvNet", lambda: binarynet(seed=3), (32, 32, 3), 50),
    Case("BinaryConnect ConvNet", binaryconnect, (32, 32, 3), 50),
    Case("BinaryConnect, 7 bits", binaryconnect, (32, 32, 3), 50, activations=True),
)
RATE = 1e-4
EXACT = 0.02  # relative error of gradients that is allowed
TOLERANCES = {None: EXACT, 8: 0.1, 6: 0.4}  # of gradients rounded to so many bits
LOSS = 1e-3  # relative error of the loss
# The same where activations are rounded, which changes what passes ReLU and pools, as Dropout does.
ROUNDED_LOSS, ROUNDED_GRADIENT = 2e-2, 0.8
# Bits of gradients, and of the moments and latent weights of Adam.
OURS = {"bitops": (None, 32), "8-bit": (8, 32), "6-bit": (6, 32), "all 16": (6, 16)}
SIDES = (*OURS, "torch")
MEMORY_STEPS = 3


class TorchTwin:
    """The network in PyTorch: +-1 values as float32, straight-through gradients."""

    def __init__(self, torch: Any, model: Sequential):
        self.torch = torch
        self.parameters: list[Any] = []
        self.weights: list[Any] = []
        self.rates: list[float] = []
        self.signs = sign_functions(torch)
        self.steps = [self._step(layer) for layer in model.layers]
        groups = [
            {"params": [parameter], "lr": RATE * rate}
            for parameter, rate in zip(self.parameters, self.rates, strict=True)
        ]
        self.adam = torch.optim.Adam(groups, eps=1e-8, fused=True)

    def _parameter(self, value: np.ndarray, rate: float = 1.0) -> Any:
        parameter = self.torch.nn.Parameter(self.torch.from_numpy(value.copy()))
        self.parameters.append(parameter)
        self.rates.append(rate)
        return parameter

    def _step(self, layer: Any) -> Callable[[Any], Any]:
        functional = self.torch.nn.functional
        sign_of_weights, sign_of_activations = self.signs
        if isinstance(layer, BinaryDense | BinaryConv2D):
            values = layer.weight.value
            if isinstance(layer, BinaryConv2D):  # OHWI to OIHW, still channels last in memory
                values = values.transpose(0, 3, 1, 2)
            weight = self._parameter(values, layer.weight.lr_scale)
            self.weights.append(weight)
            if isinstance(layer, BinaryDense):
                return lambda x: functional.linear(x, sign_of_weights(weight))
            last = self.torch.channels_last
            weight.data = weight.data.contiguous(memory_format=last)
            padding = [
                side[0]
                for side in layer.operation.windows.on("bench", np.empty((1, 32, 32, 1))).padding
            ]
            return lambda x: functional.conv2d(x, sign_of_weights(weight), padding=padding)
        if isinstance(layer, BatchNorm):
            gamma, beta = self._parameter(layer.gamma.value), self._parameter(layer.beta.value)
            mean, var = self.torch.zeros(gamma.shape), self.torch.ones(gamma.shape)
            return lambda x: functional.batch_norm(
                x, mean, var, gamma, beta, training=True, momentum=layer.momentum, eps=layer.eps
            )
        if isinstance(layer, Sign):
            return sign_of_activations
        if isinstance(layer, ReLU):
            return functional.relu
        if isinstance(layer, MaxPool2D):
            return lambda x: functional.max_pool2d(x, layer.windows.kernel_size)
        if isinstance(layer, Flatten):
            return lambda x: x.permute(0, 2, 3, 1).flatten(1)
        raise TypeError(f"no twin is known of {layer!r}")

    def loss(self, x: Any, targets: Any) -> Any:
        for step in self.steps:
            x = step(x)
        return self.torch.clamp(1 - targets * x, min=0).square().mean()

    def backward(self, x: Any, targets: Any) -> float:
        self.adam.zero_grad(set_to_none=True)
        loss = self.loss(x, targets)
        loss.backward()
        return loss.item()

    def train(self, x: Any, targets: Any) -> float:
        loss = self.backward(x, targets)
        self.adam.step()
        with self.torch.no_grad():
            self.torch._foreach_clamp_min_(self.weights, -1)
            self.torch._foreach_clamp_max_(self.weights, 1)
        return loss


def sign_functions(torch: Any) -> tuple[Callable[[Any], Any], Callable[[Any], Any]]:
    """Sign with the identity as gradient, and with that of the hard tanh."""

    class WeightSign(torch.autograd.Function):  # type: ignore[name-defined, misc]
        @staticmethod
        def forward(ctx: Any, x: Any) -> Any:
            return torch.where(x >= 0, 1.0, -1.0)

        @staticmethod
        def backward(ctx: Any, grad: Any) -> Any:
            return grad

    class ActivationSign(torch.autograd.Function):  # type: ignore[name-defined, misc]
        @staticmethod
        def forward(ctx: Any, x: Any) -> Any:
            ctx.save_for_backward(x)
            return torch.where(x >= 0, 1.0, -1.0)

        @staticmethod
        def backward(ctx: Any, grad: Any) -> Any:
            (x,) = ctx.saved_tensors
            return grad * (x.abs() <= 1)

    return WeightSign.apply, ActivationSign.apply


class Ours:
    """The network of bitops with its optimizer."""

    def __init__(self, case: Case, bits: int | None = None, state_bits: int = 32):
        self.model = model = case.make()
        if bits is not None:
            model.round_gradients(0, bits, activations=case.activations)
        state = {"moment_bits": state_bits, "weight_bits": state_bits}
        self.adam = Adam(model.parameters(), lr=RATE, **state)

    def backward(self, x: np.ndarray, labels: np.ndarray) -> float:
        loss, grad = squared_hinge(self.model.forward(x, training=True), labels)
        self.model.backward_weights(grad)
        return loss

    def train(self, x: np.ndarray, labels: np.ndarray) -> float:
        loss = self.backward(x, labels)
        self.adam.step()
        return loss


def check_gradients(ours: Ours, twin: TorchTwin, tolerance: float) -> None:
    """Compare the gradients of all binary weights after the same first step."""
    layers = [i for i in ours.model.layers if isinstance(i, BinaryDense | BinaryConv2D)]
    for layer, weight in zip(layers, twin.weights, strict=True):
        grad = weight.grad
        if grad.ndim == 4:
            grad = grad.permute(0, 2, 3, 1)
        expected = grad.numpy()
        error = np.linalg.norm(layer.weight.grad - expected) / np.linalg.norm(expected)
        if not error < tolerance:
            raise WrongResult(f"[training] the gradients of {layer!r} differ by {error:.1%}")


def measure(case: Case, torch: Any, seconds: float) -> dict[str, Any]:
    """Median time of a training step: ours, with each setting, and torch's."""
    rng = np.random.default_rng(0)
    x = rng.integers(0, 256, (case.batch, *case.shape), np.uint8)
    labels = rng.integers(0, 10, case.batch)
    ours = {side: Ours(case, *settings) for side, settings in OURS.items()}
    start = ours["all 16"].model.state()  # as int16 can hold it, so that all start alike
    for each in ours.values():
        each.model.restore(start)
    twin = TorchTwin(torch, ours["bitops"].model)
    numbers = torch.from_numpy(x.astype(np.float32))
    if x.ndim == 4:
        numbers = numbers.permute(0, 3, 1, 2)  # channels_last in memory
    targets = torch.from_numpy(np.where(np.arange(10) == labels[:, None], 1, -1).astype("f4"))
    expected = twin.backward(numbers, targets)
    # A mean of the BatchNorm that is an output, and rounds to the other side of it, flips an
    # activation: seeds were chosen so that none does. Rounding adds noise to every layer that a
    # gradient passes.
    for side, (bits, _) in OURS.items():
        loss = ours[side].backward(x, labels)
        errors = LOSS, TOLERANCES[bits]
        if case.activations and bits is not None:
            errors = ROUNDED_LOSS, ROUNDED_GRADIENT
        if not np.isclose(loss, expected, rtol=errors[0]):
            raise WrongResult(f"[training] the losses of {case.name} differ: {loss}, {expected}")
        check_gradients(ours[side], twin, errors[1])
    calls: dict[str, Callable[[], float]] = {
        **{side: partial(each.train, x, labels) for side, each in ours.items()},
        "torch": partial(twin.train, numbers, targets),
    }
    timings = interleave(calls, seconds=seconds)
    return {
        "net": case.name,
        "batch": case.batch,
        "seconds": {side: timing.median for side, timing in timings.items()},
        "spread": {side: timing.spread for side, timing in timings.items()},
        "ratio": {side: timings["torch"].median / timings[side].median for side in ours},
    }


def steps_of(side: str, number: int, torch: Any) -> Callable[[], float]:
    """A step of one side on a network of CASES."""
    case = CASES[number]
    x, labels = np.zeros((case.batch, *case.shape), np.uint8), np.zeros(case.batch, np.int64)
    if side != "torch":
        return partial(Ours(case, *OURS[side]).train, x, labels)
    numbers = torch.from_numpy(x.astype(np.float32))
    if x.ndim == 4:
        numbers = numbers.permute(0, 3, 1, 2)
    return partial(TorchTwin(torch, case.make()).train, numbers, torch.ones((case.batch, 10)))


def print_peak(side: str, number: int) -> None:
    """Print the most bytes that steps of one side take in this process."""
    peers = load_peers(("torch",))  # by all sides, so that the start is the same
    with threads(1), kept_memory():
        limit_peers(peers, 1)
        before = common.peak_bytes()
        step = steps_of(side, number, peers["torch"])
        gc.collect()
        Path("/proc/self/clear_refs").write_text("5")  # what making the network took does not count
        for _ in range(MEMORY_STEPS):
            step()
    print(common.peak_bytes() - before)


def print_memory() -> None:
    """Measure the memory of all sides, each in a process of its own."""
    print("\nMiB that training steps take, one thread")
    heading = " ".join(f"{side:>9}" for side in SIDES)
    shares = " ".join(f"{side:>6}" for side in ("share", "all 16"))
    print(f"{'net':<22} {'batch':>5} {heading} {shares}")
    for number, case in enumerate(CASES):
        peaks = {}
        for side in SIDES:
            argv = [sys.executable, __file__, "--peak", side, str(number)]
            made = subprocess.run(argv, check=True, stdout=subprocess.PIPE, text=True)
            peaks[side] = int(made.stdout)
        sizes = " ".join(f"{peak / 2**20:>9.0f}" for peak in peaks.values())
        shares = " ".join(f"{peaks[side] / peaks['torch']:>6.2f}" for side in ("bitops", "all 16"))
        print(f"{case.name:<22} {case.batch:>5} {sizes} {shares}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=20.0, help="time for each net")
    parser.add_argument("--json", type=Path, help="write all figures to this file")
    parser.add_argument("--memory", action="store_true", help="measure memory instead of time")
    parser.add_argument("--peak", nargs=2, metavar=("SIDE", "NUMBER"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.peak:
        print_peak(options.peak[0], int(options.peak[1]))
        return
    stamp = common.stamp()
    for name, value in stamp.items():
        print(f"{name}: {value}")
    peers = load_peers(("torch",))
    if not peers:
        parser.exit(1, "training: PyTorch is the rival: pip install torch\n")
    print(f"torch: {peers['torch'].__version__}")
    if options.memory:
        print_memory()
        return
    print("\nms a training step, medians, one thread")
    heading = " ".join(f"{side:>9}" for side in SIDES)
    print(
        f"{'net':<22} {'batch':>5} {heading} {'ratio':>6} {'8-bit':>6} {'6-bit':>6} {'all 16':>6}"
    )
    rows = []
    with threads(1), kept_memory():
        limit_peers(peers, 1)
        for case in CASES:
            row = measure(case, peers["torch"], options.seconds)
            rows.append(row)
            times = " ".join(f"{1e3 * value:>9.1f}" for value in row["seconds"].values())
            ratios = " ".join(f"{value:>6.2f}" for value in row["ratio"].values())
            print(f"{row['net']:<22} {row['batch']:>5} {times} {ratios}", flush=True)
    if options.json:
        report = {"machine": stamp, "training": rows}
        options.json.write_text(json.dumps(report, indent=2, default=str))


if __name__ == "__main__":
    main()
