#!/usr/bin/env python3
"""Time and memory of reading networks from files of 4 MB, each reader in a process of its own.

    bench/importing.py           print a table; the exit status is 1 if a bound is exceeded

The bounds are 2 seconds and 200 MB beyond what the process takes when the reader is imported. Needs
the extras onnx, keras and lce, and Linux.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

import common

SECONDS, BYTES = 2.0, 200e6
CHANNELS, CONVS = 128, 7  # 3 x 3 filters: 4.1 MB of float32


def signs(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).choice(np.float32([-1, 1]), shape)


def write_onnx(path: Path) -> None:
    import onnx
    from onnx import helper, numpy_helper

    nodes, weights, last = [], [], "input"

    def then(op: str, *constants: np.ndarray, **attributes: object) -> None:
        nonlocal last
        names = [f"c{len(weights) + i}" for i in range(len(constants))]
        weights.extend(map(numpy_helper.from_array, constants, names))
        nodes.append(helper.make_node(op, [last, *names], [f"t{len(nodes)}"], **attributes))
        last = nodes[-1].output[0]

    ones = np.ones(CHANNELS, np.float32)
    for i in range(CONVS):
        then("Conv", signs(CHANNELS, CHANNELS if i else 3, 3, 3), pads=[1] * 4)
        then("BatchNormalization", ones, 0 * ones, ones, ones)
        for op, *constants in (("Sign",), ("Add", np.float32(0.1)), ("Sign",)):
            then(op, *constants)
    then("GlobalAveragePool")
    then("Flatten")
    then("Gemm", signs(10, CHANNELS), transB=1)
    of = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes, "g", [of("input", 1, ["n", 3, 32, 32])], [of(last, 1, ["n", 10])], weights
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, path)


def keras_layers() -> tuple[list[dict], dict[str, list[tuple[str, np.ndarray]]]]:
    sign = {"class_name": "SteSign", "config": {}}
    layers, arrays = [], {}
    for i in range(CONVS):
        name = f"quant_conv2d_{i}" if i else "quant_conv2d"
        config = {
            "name": name,
            "padding": "same",
            "input_quantizer": sign if i else None,
            "kernel_quantizer": sign,
            "use_bias": False,
        }
        layers.append({"class_name": "QuantConv2D", "config": config})
        kernel = np.random.default_rng(i).standard_normal((3, 3, CHANNELS if i else 3, CHANNELS))
        arrays[name] = [("kernel", kernel.astype(np.float32))]
    layers.append({"class_name": "GlobalAveragePooling2D", "config": {"name": "pool"}})
    return layers, arrays


def description(key: str) -> str:
    start = {"class_name": "InputLayer", "config": {"name": "start", key: [None, 32, 32, 3]}}
    layers = [start, *keras_layers()[0]]
    return json.dumps({"class_name": "Sequential", "config": {"name": "net", "layers": layers}})


def write_keras2(path: Path) -> None:
    import h5py

    with h5py.File(path, "w") as file:
        file.attrs["model_config"] = description("batch_input_shape")
        group = file.create_group("model_weights")
        for name, arrays in keras_layers()[1].items():
            own = group.create_group(name)
            own.attrs["weight_names"] = np.array([f"{name}/{a}:0" for a, _ in arrays], "S")
            for array_name, array in arrays:
                own[f"{name}/{array_name}:0"] = array


def write_keras3(path: Path) -> None:
    import io
    import zipfile

    import h5py

    weights = io.BytesIO()
    with h5py.File(weights, "w") as file:
        for name, arrays in keras_layers()[1].items():
            for i, (_, array) in enumerate(arrays):
                file[f"layers/{name}/vars/{i}"] = array
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("config.json", description("batch_shape"))
        archive.writestr("model.weights.h5", weights.getvalue())


def write_lce(path: Path) -> None:
    sys.path.append(str(Path(__file__).parents[1] / "tests"))
    from lce_writer import INT32, Writer, binary_conv

    rng = np.random.default_rng(0)
    size, channels = (1, 7, 7), 512
    file = Writer((*size, channels))
    x = 0
    for _ in range(14):  # residual blocks of 3 x 3 filters: 4.1 MB of bits
        bits = file.then("LceQuantize", (x,), (*size, channels // 32), kind=INT32)
        words = rng.integers(-(2**31), 2**31, (channels, 3, 3, channels // 32)).astype(np.int32)
        factors = rng.standard_normal((2, channels)).astype(np.float32)
        inputs = bits, *map(file.constant, (words, *factors)), -1
        y = file.then("LceBconv2d", inputs, (*size, channels), **binary_conv(channels))
        x = file.then("ADD", (x, y), (*size, channels), (0,))
    path.write_bytes(file.content())


def write_packed(path: Path) -> None:
    from bitops.layers import Packed, PackedDense

    rows = 5760  # in 1-bit weights
    Packed(PackedDense(signs(rows, rows), np.zeros(rows, int))).save(path)


def trained():
    from bitops.layers import BatchNorm, BinaryDense, Sequential

    return Sequential(BinaryDense(600, 600, seed=0), BatchNorm(600), BinaryDense(600, 4, seed=0))


def write_checkpoint(path: Path) -> None:
    from bitops.training import Checkpoint

    x = np.ones((8, 600), np.uint8)
    trained().fit(x, [0, 1] * 4, epochs=1, callbacks=[Checkpoint(path)], verbose=False)


def read_onnx(path: Path) -> None:
    from bitops.convert import from_onnx

    from_onnx(path)


def read_keras(path: Path) -> None:
    from bitops.convert import from_keras

    from_keras(path).freeze()


def read_lce(path: Path) -> None:
    from bitops.convert import from_lce

    from_lce(path)


def read_packed(path: Path) -> None:
    from bitops import io

    io.load(path)


def read_checkpoint(path: Path) -> None:
    x = np.ones((8, 600), np.uint8)
    trained().fit(x, [0, 1] * 4, epochs=1, resume=path, verbose=False)


Step = Callable[[Path], None]
READERS: dict[str, tuple[Step, Step]] = {
    "net.onnx": (write_onnx, read_onnx),
    "net.h5": (write_keras2, read_keras),
    "net.keras": (write_keras3, read_keras),
    "net.tflite": (write_lce, read_lce),
    "net.safetensors": (write_packed, read_packed),
    "net.checkpoint": (write_checkpoint, read_checkpoint),
}


def measure(name: str, path: Path) -> None:
    """Read a file in this process; print seconds and bytes."""
    import bitops.convert
    import bitops.training  # noqa: F401

    start, before = time.perf_counter(), common.peak_bytes()
    READERS[name][1](path)
    print(json.dumps([time.perf_counter() - start, common.peak_bytes() - before]))


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--read", nargs=2, metavar=("NAME", "PATH"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.read:
        measure(options.read[0], Path(options.read[1]))
        return 0
    is_over = False
    print(f"{'file':<16} {'MB':>5} {'seconds':>8} {'MB more':>8}")
    with tempfile.TemporaryDirectory() as folder:
        for name, (write, _) in READERS.items():
            path = Path(folder, name)
            write(path)
            argv = [sys.executable, __file__, "--read", name, str(path)]
            made = subprocess.run(argv, check=True, stdout=subprocess.PIPE, text=True)
            seconds, more = json.loads(made.stdout.splitlines()[-1])
            size = path.stat().st_size / 1e6
            print(f"{name:<16} {size:>5.1f} {seconds:>8.2f} {more / 1e6:>8.1f}", flush=True)
            is_over |= seconds > SECONDS or more > BYTES
    return int(is_over)


if __name__ == "__main__":
    sys.exit(main())
