"""Convolution of packed bits against every peer, in one process and one table.

    python bench/peers_conv.py [--seconds 2] [--json peers.json]

The 3x3 layers of a ResNet, stride 1, padding 1, as many filters as channels, on one thread:
conv2d on packed images, and from float32 images with the packing in the call, filters prepacked;
our own gemm of the same m, n, k on rows that lie ready; float32 by torch, channels_last (oneDNN,
which reorders the filters in every call); int8 by torch and by ONNX Runtime with filters packed
beforehand, the best of the engines counts; and bits gathered by NumPy for numkong's Hamming matrix,
whose distances are left as they are. Peers take turns within a round, every result is compared with
`bitops.reference`, and figures are medians. A peer that is not installed is named and left out:
numkong comes with '.[bench]', the others with `pip install torch onnx onnxruntime`.
"""

from __future__ import annotations

import argparse
import json
import math
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import bitops as bo
import common
from bitops import reference
from bitops.benchmark import WrongResult, interleave, random_signs, threads
from peers import limit_peers, load_peers

SHAPES = ((56, 64), (28, 128), (14, 256), (7, 512))  # height and width, channels and filters
BATCHES = (1, 8)
PEERS = ("torch", "onnx", "onnxruntime", "numkong")
TORCH_ENGINES = ("x86", "onednn", "fbgemm")


class Convolutions:
    """One convolution in the form of every peer, and the check of its result."""

    def __init__(self, images: int, size: int, channels: int, peers: dict[str, Any]):
        rng = np.random.default_rng(0)
        self.shape = (images, size, size, channels)
        self.k = 9 * channels
        x = random_signs(rng, self.shape)
        w = random_signs(rng, (channels, 3, 3, channels))
        self.dot = reference.conv2d(x, w, padding=1)
        # Without a zero among bits, the rows of gemm and numkong hold -1 outside the image.
        self.product = reference.conv2d(x, w, padding=1, pad_value=-1).reshape(-1, channels)
        # An int8 result is a multiple of this step, which a power of two makes exact.
        self.step = 2.0 ** math.ceil(math.log2(self.k / 127))
        self.calls: dict[str, Callable[[], Any]] = {}
        self.add_bitops(x, w)
        if "torch" in peers:
            self.add_torch(peers["torch"], x, w)
        if "onnx" in peers and "onnxruntime" in peers:
            self.add_onnxruntime(peers["onnx"], peers["onnxruntime"], x, w)
        if "numkong" in peers:
            self.add_numkong(peers["numkong"], x, w)

    def add_bitops(self, x: np.ndarray, w: np.ndarray) -> None:
        images, filters = bo.pack(x), bo.prepack(bo.pack(w))
        rows = bo.im2col(images, 3, padding=1).reshape(-1, self.k)
        panels = bo.prepack(bo.pack(w.reshape(len(w), -1)))
        out = np.empty(self.shape, np.int32)
        matrix = np.empty(self.product.shape, np.int32)
        self.calls |= {
            "gemm": lambda: bo.gemm(rows, panels, out=matrix),
            "conv2d": lambda: bo.conv2d(images, filters, padding=1, out=out),
            "packing": lambda: bo.conv2d(x, filters, padding=1, out=out),
        }

    def add_torch(self, torch: Any, x: np.ndarray, w: np.ndarray) -> None:
        # NHWC in memory is what torch calls channels_last.
        images, filters = (torch.from_numpy(a).permute(0, 3, 1, 2) for a in (x, w))
        self.calls["float32"] = torch.inference_mode()(
            lambda: torch.nn.functional.conv2d(images, filters, padding=1)
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # quantized tensors are to move to another package
            quantized = torch.quantize_per_tensor(images, 1.0, 128, torch.quint8)
            weights = torch.quantize_per_tensor(filters, 1.0, 0, torch.qint8)
        for engine in set(TORCH_ENGINES) & set(torch.backends.quantized.supported_engines):
            torch.backends.quantized.engine = engine
            # The engine of the packed filters decides which one runs.
            packed = torch.ops.quantized.conv2d_prepack(weights, None, [1, 1], [1, 1], [1, 1], 1)
            self.calls[f"int8 torch {engine}"] = torch.inference_mode()(
                lambda packed=packed: torch.ops.quantized.conv2d(quantized, packed, self.step, 128)
            )

    def add_onnxruntime(self, onnx: Any, runtime: Any, x: np.ndarray, w: np.ndarray) -> None:
        """QLinearConv in the channels-last form to which the runtime turns that of the standard."""
        constants = {
            "x_scale": np.float32(1),
            "x_zero": np.uint8(128),
            "w": np.ascontiguousarray(w.transpose(0, 3, 1, 2).astype(np.int8)),
            "w_scale": np.float32(1),
            "w_zero": np.int8(0),
            "y_scale": np.float32(self.step),
            "y_zero": np.uint8(128),
        }
        node = onnx.helper.make_node(
            "QLinearConv",
            ["x", *constants],
            ["y"],
            domain="com.microsoft",
            channels_last=1,
            kernel_shape=[3, 3],
            pads=[1, 1, 1, 1],
        )
        x_info, y_info = (
            onnx.helper.make_tensor_value_info(name, onnx.TensorProto.UINT8, self.shape)
            for name in "xy"
        )
        tensors = [onnx.numpy_helper.from_array(a, name) for name, a in constants.items()]
        model = onnx.helper.make_model(
            onnx.helper.make_graph([node], "convolution", [x_info], [y_info], tensors),
            opset_imports=[onnx.helper.make_opsetid("com.microsoft", 1)],
            ir_version=10,
        )
        options = runtime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        session = runtime.InferenceSession(
            model.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
        # Bound buffers, so that no array is made or copied in the call.
        images = runtime.OrtValue.ortvalue_from_numpy((x + 128).astype(np.uint8))
        result = runtime.OrtValue.ortvalue_from_numpy(np.empty(self.shape, np.uint8))
        binding = session.io_binding()
        binding.bind_ortvalue_input("x", images)
        binding.bind_ortvalue_output("y", result)

        def call() -> Any:
            session.run_with_iobinding(binding)
            return result

        self.calls["int8 onnxruntime"] = call

    def add_numkong(self, numkong: Any, x: np.ndarray, w: np.ndarray) -> None:
        """The words of every window side by side; outside are zero bits, which mean -1."""
        words = bo.pack(x).words
        n, height, width, c = words.shape
        padded = np.zeros((n, height + 2, width + 2, c), np.uint64)
        windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(1, 2))
        windows = windows.transpose(0, 1, 2, 4, 5, 3)
        rows = np.empty(windows.shape, np.uint64)
        row_bytes = rows.reshape(n * height * width, -1).view(np.uint8)
        filters = numkong.hammings_pack(bo.pack(w).words.reshape(len(w), -1).view(np.uint8))
        out = numkong.hammings_packed(row_bytes, filters)

        def call() -> Any:
            padded[:, 1:-1, 1:-1] = words
            rows[...] = windows
            return numkong.hammings_packed(row_bytes, filters, out=out)

        self.calls["numkong"] = call

    def check(self, name: str, result: Any) -> None:
        if name == "numkong":
            good = np.array_equal(np.asarray(result), (self.k - self.product) // 2)
        elif name == "gemm":
            good = np.array_equal(result, self.product)
        elif name.startswith("int8"):
            # The result is rounded to the step, which no value exceeds 127 times.
            if "torch" in name:
                values = result.dequantize().permute(0, 2, 3, 1).numpy()
            else:
                values = (result.numpy().astype(np.float32) - 128) * self.step
            good = np.abs(values - self.dot).max() <= self.step / 2
        else:
            values = result.permute(0, 2, 3, 1).numpy() if name == "float32" else result
            good = np.array_equal(values, self.dot)
        if not good:
            raise WrongResult(f"[peers_conv] {name} gave a wrong result for {self.shape}")


def measure(
    images: int, size: int, channels: int, peers: dict[str, Any], seconds: float
) -> dict[str, Any]:
    """Median GMAC/s of every peer and the ratios asked of bitops."""
    with threads(1):
        limit_peers(peers, 1)
        convolutions = Convolutions(images, size, channels, peers)
        timings = interleave(convolutions.calls, seconds=seconds, check=convolutions.check)
    work = images * size * size * channels * convolutions.k / 1e9
    rates = {name: work / timing.median for name, timing in timings.items()}
    rivals = {name: rates[name] for name in ("gemm", "float32", "numkong") if name in rates}
    int8 = {name: rate for name, rate in rates.items() if name.startswith("int8")}
    if int8:
        rivals["int8"] = max(int8.values())
    return {
        "shape": (images, size, size, channels),
        "gmacs": rates,
        "spread": {name: timing.spread for name, timing in timings.items()},
        "best_int8": max(int8, key=int8.__getitem__, default=None),
        "ratio": {name: rates["conv2d"] / rate for name, rate in rivals.items()},
        "ratio_with_packing": {name: rates["packing"] / rate for name, rate in rivals.items()},
    }


COLUMNS = ("gemm", "float32", "int8", "numkong")


def cell(number: float | None, width: int, form: str) -> str:
    """A number, or a dash of the same width for a peer that was left out."""
    return f"{'-':>{width}}" if number is None else f"{number:{width}{form}}"


def print_row(row: dict[str, Any]) -> None:
    """Print rates and ratios of one shape, then the ratios from float32 images."""
    rates = row["gmacs"] | {"int8": row["gmacs"].get(row["best_int8"])}
    cells = [f"{common.case_id(row['shape']):>12}"]
    cells += [cell(rates.get(name), 8, ".0f") for name in ("conv2d", "packing", *COLUMNS)]
    ratio, with_packing = row["ratio"], row["ratio_with_packing"]
    cells += [cell(ratio["gemm"], 7, ".0%")]
    cells += [cell(ratio.get(name), 7, ".1f") for name in COLUMNS[1:]]
    cells += [cell(with_packing.get(name), 7, ".1f") for name in ("float32", "int8")]
    print(" ".join(cells), f" {row['best_int8'] or ''}", flush=True)


HEADER = """
GMAC/s, then how many times faster conv2d is ("of gemm": its share), then the same from float32
images; medians, one thread
""" + " ".join(
    [
        f"{'n x h x w x c':>12}",
        *(f"{name:>8}" for name in ("conv2d", "packing", *COLUMNS)),
        *(f"{name:>7}" for name in ("of gemm", "float32", "int8", "numkong", "float32", "int8")),
        " best int8",
    ]
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=2.0, help="time for each shape")
    parser.add_argument("--json", type=Path, help="write all figures to this file")
    options = parser.parse_args()
    stamp = common.stamp()
    for name, value in stamp.items():
        print(f"{name}: {value}")
    peers = load_peers(PEERS)
    for name, module in peers.items():
        print(f"{name}: {getattr(module, '__version__', 'unknown version')}")
    print(HEADER)
    rows = []
    for images in BATCHES:
        for size, channels in SHAPES:
            rows.append(measure(images, size, channels, peers, options.seconds))
            print_row(rows[-1])
    if options.json:
        report = {"machine": stamp, "conv2d": rows}
        options.json.write_text(json.dumps(report, indent=2, default=str))


if __name__ == "__main__":
    main()
