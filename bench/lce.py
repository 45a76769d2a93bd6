"""QuickNet's binary layers against the interpreter of Larq Compute Engine, on one thread.

    python bench/lce.py make FOLDER     with a Python that has Larq Compute Engine: writes the files
    python bench/lce.py peer FOLDER     with the same Python: times its interpreter on them
    python bench/lce.py ours FOLDER     with a Python that has bitops[lce]: times and prints a table

The layers are 3x3 convolutions with one padding, ReLU and BatchNorm, from float32 to float32
images, one image a call, as files that Larq Compute Engine's converter wrote. Both programs run the
same files, and the outputs are compared before the times. The interpreter is tried with each of its
kernels; "bgemm" is the usual one. It needs an environment of its own, Python 3.10 or newer:

    pip install larq-compute-engine==0.16.0 larq==0.13.3 tensorflow-cpu==2.16.1 tf-keras==2.16.0
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

SHAPES = ((56, 64), (28, 128), (14, 256), (7, 512))  # height and width, channels and filters
KERNELS: dict[str, dict[str, bool]] = {
    "bgemm": {},
    "indirect bgemm": {"use_indirect_bgemm": True},
    "reference": {"use_reference_bconv": True},
}


def name_of(size: int, channels: int) -> str:
    return f"{size}x{size}x{channels}"


def image_of(size: int, channels: int) -> np.ndarray:
    rng = np.random.default_rng(size)
    return rng.standard_normal((1, size, size, channels)).astype(np.float32)


def best_time(call: Callable[[], Any], seconds: float) -> float:
    """Return the shortest time of a call, of those within some seconds, after one that is left out.

    Calls of the one program take 100 times as long as those of the other, so that a median would be
    disturbed by other processes more.
    """
    call()
    best, end = float("inf"), time.perf_counter() + seconds
    while time.perf_counter() < end:
        start = time.perf_counter()
        call()
        best = min(best, time.perf_counter() - start)
    return best


def make(folder: Path) -> None:
    """Write the layers as files of Larq Compute Engine."""
    os.environ["TF_USE_LEGACY_KERAS"] = "1"
    import larq
    import larq_compute_engine as lce
    import tf_keras as keras

    folder.mkdir(parents=True, exist_ok=True)
    for size, channels in SHAPES:
        keras.utils.set_random_seed(size)
        rng = np.random.default_rng(size)
        start = keras.Input((size, size, channels))
        conv = larq.layers.QuantConv2D(
            channels,
            3,
            padding="same",
            pad_values=1,
            use_bias=False,
            activation="relu",
            input_quantizer="ste_sign",
            kernel_quantizer="ste_sign",
        )
        norm = keras.layers.BatchNormalization()
        model = keras.Model(start, norm(conv(start)))
        gamma, beta, mean = rng.normal(0, 1, (3, channels))
        norm.set_weights([gamma, beta, mean, rng.uniform(100, 1000, channels)])
        path = folder / f"{name_of(size, channels)}.tflite"
        path.write_bytes(lce.convert_keras_model(model))
        print(f"{path}: {path.stat().st_size:,} bytes")


def peer(folder: Path, seconds: float) -> None:
    """Time the interpreter of Larq Compute Engine; keep its times and outputs in the folder."""
    from larq_compute_engine.tflite.python.interpreter import Interpreter

    times: dict[str, dict[str, float]] = {}
    for size, channels in SHAPES:
        name = name_of(size, channels)
        content, x = (folder / f"{name}.tflite").read_bytes(), image_of(size, channels)
        times[name] = {}
        for kernel, options in KERNELS.items():
            inner = Interpreter(content, num_threads=1, **options).interpreter
            np.save(folder / f"{name}.npy", inner.predict([x])[0])
            times[name][kernel] = best_time(lambda run=inner, x=x: run.predict([x]), seconds)
        print(name, {kernel: f"{1e3 * t:.2f} ms" for kernel, t in times[name].items()}, flush=True)
    (folder / "peer.json").write_text(json.dumps(times))


def ours(folder: Path, seconds: float) -> None:
    """Time bitops on the files, compare the outputs, and print both times."""
    import common
    from bitops.benchmark import WrongResult, threads
    from bitops.convert import from_lce

    times = json.loads((folder / "peer.json").read_text())
    print(json.dumps(common.stamp()))
    print(f"| layer | {' | '.join(KERNELS)} | bitops | ratio to {' | ratio to '.join(KERNELS)} |")
    print("| --- |" + " ---: |" * (1 + 2 * len(KERNELS)))
    with threads(1):
        for size, channels in SHAPES:
            name = name_of(size, channels)
            net, x = from_lce(folder / f"{name}.tflite"), image_of(size, channels)
            wanted = np.load(folder / f"{name}.npy")
            error = np.abs(net(x) - wanted).max() / np.abs(wanted).max()
            if not error <= 1e-5:
                raise WrongResult(f"{name} differs by {error:.1e} of the largest output")
            own = best_time(lambda net=net, x=x: net(x), seconds)
            cells = [f"{1e3 * times[name][kernel]:.2f}" for kernel in KERNELS]
            cells.append(f"{1e3 * own:.3f}")
            cells += [f"{times[name][kernel] / own:.1f}" for kernel in KERNELS]
            print(f"| {name} | {' | '.join(cells)} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("step", choices=("make", "peer", "ours"))
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seconds", type=float, default=1.0, help="for each layer and kernel")
    options = parser.parse_args()
    if options.step == "make":
        make(options.folder)
    elif options.step == "peer":
        peer(options.folder, options.seconds)
    else:
        ours(options.folder, options.seconds)


if __name__ == "__main__":
    main()
