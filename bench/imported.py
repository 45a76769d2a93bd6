#!/usr/bin/env python3
"""Imported networks against onnxruntime float32 with the same file, on one thread.

    OPENBLAS_NUM_THREADS=1 bench/imported.py                           networks that are made here
    OPENBLAS_NUM_THREADS=1 bench/imported.py FILE.onnx ... --batch 8   files of your own

Prints milliseconds for a batch of ours and of onnxruntime, their ratio, and the share of the
multiply-adds that are products of bits. The networks that are made here are modules of PyTorch with
random weights, written by its exporter: BinaryNet's ConvNet for CIFAR-10, and ResNet-18 with signs
before its 3 x 3 convolutions, for 224 x 224 pixels. Scores are compared before the timing. Needs
`pip install '.[onnx]' onnxruntime`, and PyTorch for the networks.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import bitops as bo
import common
from bitops.benchmark import interleave
from bitops.convert import from_onnx
from bitops.layers import Packed


def convnet(torch: Any) -> Any:
    """Return BinaryNet's ConvNet, whose first and last layers have float weights."""
    nn, (_, conv, linear) = torch.nn, binary_layers(torch)
    layers = [nn.Conv2d(3, 128, 3, padding=1, bias=False), nn.BatchNorm2d(128), nn.Hardtanh()]
    channels = 128
    for width, pools in ((128, 1), (256, 0), (256, 1), (512, 0), (512, 1)):
        layers.append(conv(channels, width, 3, padding=1, bias=False))
        layers += [nn.MaxPool2d(2)] * pools + [nn.BatchNorm2d(width), nn.Hardtanh()]
        channels = width
    layers.append(nn.Flatten())
    for inputs in (4 * 4 * 512, 1024):
        layers += [linear(inputs, 1024, bias=False), nn.BatchNorm1d(1024), nn.Hardtanh()]
    return nn.Sequential(*layers, nn.Linear(1024, 10))


def resnet18(torch: Any) -> Any:
    """Return ResNet-18 with signs, as Bi-Real Net has it: a shortcut for each convolution."""
    nn, (_, conv, _) = torch.nn, binary_layers(torch)

    class Block(nn.Module):
        def __init__(self, inputs: int, outputs: int):
            super().__init__()
            stride = outputs // inputs
            self.body = nn.Sequential(
                conv(inputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm2d(outputs)
            )
            points = nn.Conv2d(inputs, outputs, 1, bias=False)
            down = nn.Sequential(nn.AvgPool2d(2), points, nn.BatchNorm2d(outputs))
            self.shortcut = down if stride > 1 else nn.Identity()

        def forward(self, x: Any) -> Any:
            return self.body(x) + self.shortcut(x)

    layers = [nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64), nn.MaxPool2d(3, 2, 1)]
    channels = 64
    for width in (64, 128, 256, 512):
        for _ in range(4):
            layers.append(Block(channels, width))
            channels = width
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, 1000))


def binary_layers(torch: Any) -> tuple[Any, Any, Any]:
    """Return the sign, and layers that take the signs of their input and of their weights."""
    nn = torch.nn

    def sign(x: Any) -> Any:
        return torch.where(x >= 0, 1.0, -1.0)

    class BinaryConv(nn.Conv2d):
        def forward(self, x: Any) -> Any:
            return self._conv_forward(sign(x), sign(self.weight), self.bias)

    class BinaryLinear(nn.Linear):
        def forward(self, x: Any) -> Any:
            return nn.functional.linear(sign(x), sign(self.weight), self.bias)

    return sign, BinaryConv, BinaryLinear


NETS: dict[str, tuple[Callable[[Any], Any], int, int]] = {  # with pixels a side, and the batch
    "ConvNet": (convnet, 32, 16),
    "ResNet-18": (resnet18, 224, 1),
}


def write(name: str, path: Path) -> None:
    """Write one of NETS with random weights and statistics."""
    import torch

    make, size, _ = NETS[name]
    torch.manual_seed(0)
    module = make(torch).eval()
    for part in module.modules():
        if isinstance(part, torch.nn.BatchNorm1d | torch.nn.BatchNorm2d):
            part.running_mean.normal_()
            part.running_var.uniform_(0.5, 30)
    example = torch.zeros(1, 3, size, size)
    axes = {"x": {0: "n"}}
    torch.onnx.export(module, example, path, dynamo=False, input_names=["x"], dynamic_axes=axes)


def binary_share(packed: Packed) -> float:
    """Return the part of the multiply-adds that are products of bits."""
    total = packed.summary().total
    binary, floats = total.binary_macs or 0, total.float_macs or 0
    return binary / (binary + floats)


def compare(path: Path, batch: int, seconds: float) -> dict[str, Any]:
    """Time a file with both; raise AssertionError if their scores differ."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    packed, (given,) = from_onnx(path), session.get_inputs()
    shape = packed.input_shape
    if shape is None or None in shape:
        raise SystemExit(f"the size of the input of {path} must be known, got {shape}")
    own = np.random.default_rng(0).standard_normal((batch, *shape), dtype=np.float32)
    is_last = list(given.shape[1:]) == list(shape)
    feed = {given.name: own if is_last else np.ascontiguousarray(np.moveaxis(own, -1, 1))}
    (wanted,) = session.run(None, feed)[:1]
    np.testing.assert_allclose(packed(own), wanted, rtol=0, atol=1e-4 * np.abs(wanted).max())
    calls = {"ours": lambda: packed(own), "onnxruntime": lambda: session.run(None, feed)}
    times = {
        name: timing.median * 1e3 for name, timing in interleave(calls, seconds=seconds).items()
    }
    return {"batch": batch, "binary": binary_share(packed), **times}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("files", nargs="*", type=Path, metavar="FILE")
    parser.add_argument("--batch", type=int, help="examples a call (1; for ConvNet 16)")
    parser.add_argument("--seconds", type=float, default=5, help="for each network (5)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures to a file")
    options = parser.parse_args()
    bo.set_num_threads(1)
    print(f"{'network':<16} {'batch':>5} {'binary':>7} {'ours ms':>9} {'ORT ms':>9} {'ratio':>6}")
    results = {}
    with tempfile.TemporaryDirectory() as folder:
        for path in options.files or [Path(folder, name) for name in NETS]:
            batch = options.batch or 1
            if not options.files:
                batch = options.batch or NETS[path.name][2]
                write(path.name, path)
            found = results[path.name] = compare(path, batch, options.seconds)
            ours, theirs = found["ours"], found["onnxruntime"]
            print(
                f"{path.name:<16} {batch:>5} {found['binary']:>7.1%} {ours:>9.2f} {theirs:>9.2f} "
                f"{theirs / ours:>6.2f}",
                flush=True,
            )
    if options.json is not None:
        options.json.write_text(json.dumps({"stamp": common.stamp(), "networks": results}))


if __name__ == "__main__":
    main()
