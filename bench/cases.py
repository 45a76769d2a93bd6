"""The cases of compare.py: what is called, and what it must give.

    python bench/cases.py --list
    python bench/cases.py "gemm 512x512x512 prepacked"

`compare.py` runs this file several times for each case and tree, each time in a new process. It
prints one line of JSON: the median seconds of a call, a digest of the result's bytes, and figures
that the other tree must give too. It imports only NumPy and bitops. The two trees may name things
differently: it passes arguments by position, and `training` finds modules that have moved.

A case is a function that makes operands and returns a `Case`. `CASES` names each with its size.
Everything runs on one thread.
"""

from __future__ import annotations

import hashlib
import json
import resource
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from importlib import import_module
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np

import bitops as bo
from bitops import layers
from bitops.models import mlp

SECONDS = 0.3  # time for the samples of a case
SAMPLE = 2e-3  # seconds of a sample at least: short calls are repeated
MIN_SAMPLES = 3

RNG = np.random.default_rng(0)


class Case(NamedTuple):
    """What a case times, and how its result is judged.

    Attributes
    ----------
    call : callable
        Operands and output bound beforehand.
    expected : ndarray or tuple of ndarray, optional
        What the call must give: bits count as +1 and -1. None compares the two trees alone.
    exact : bool
        Whether the result must equal `expected`, and that of the other tree, bit for bit.
    figures : tuple of float
        Numbers that the other tree must give too, but for rounding.
    """

    call: Callable[[], Any]
    expected: Any = None
    exact: bool = True
    figures: tuple[float, ...] = ()


# Operands and expected values


def signs(*shape: int) -> np.ndarray:
    """Draw +1 and -1 in float32, whose sums are exact below 2**24."""
    return RNG.integers(0, 2, shape).astype(np.float32) * 2 - 1


def convolve(x: np.ndarray, w: np.ndarray, padding: int, groups: int) -> np.ndarray:
    """Convolve x (n, h, w, c) with w (o, kh, kw, c / groups) in float32, tap by tap."""
    sides = (padding, padding)
    x = np.pad(x, ((0, 0), sides, sides, (0, 0)))
    height, width = x.shape[1] - w.shape[1] + 1, x.shape[2] - w.shape[2] + 1
    parts = []
    for images, filters in zip(np.split(x, groups, axis=3), np.split(w, groups), strict=True):
        taps = np.ndindex(*w.shape[1:3])
        parts.append(
            sum(images[:, i : i + height, j : j + width] @ filters[:, i, j].T for i, j in taps)
        )
    return np.concatenate(parts, axis=3)


def training(name: str) -> ModuleType:
    """Import a module of `bitops.training`, or of `bitops` in a tree that has no such package."""
    try:
        return import_module(f"bitops.training.{name}")
    except ModuleNotFoundError:
        return import_module(f"bitops.{name}")


def convnet() -> layers.Sequential:
    """Make a small BinaryNet for images of 32x32x3: two stages of 32 and 64 channels."""
    chain: list[Any] = []
    inputs = 3
    for stage, outputs in enumerate((32, 64)):
        chain += [
            layers.BinaryConv2D(inputs, outputs, 3, padding=1, seed=2 * stage),
            layers.BatchNorm(outputs),
            layers.Sign(),
            layers.BinaryConv2D(outputs, outputs, 3, padding=1, seed=2 * stage + 1),
            layers.MaxPool2D(2),
            layers.BatchNorm(outputs),
            layers.Sign(),
        ]
        inputs = outputs
    chain += [layers.Flatten(), layers.BinaryDense(8 * 8 * inputs, 10, seed=4)]
    return layers.Sequential([*chain, layers.BatchNorm(10)])


def small_mlp() -> layers.Sequential:
    return mlp(784, 1024, 3, seed=0)


# Cases


def gemm(m: int, n: int, k: int, *, prepacked: bool = True) -> Case:
    a, w = signs(m, k), signs(n, k)
    bits, rows, out = bo.pack(a), bo.pack(w), np.empty((m, n), np.int32)
    weights = bo.prepack(rows) if prepacked else rows
    return Case(lambda: bo.gemm(bits, weights, out=out), a @ w.T)


def gemm_sign(m: int, n: int, k: int) -> Case:
    a, w = signs(m, k), signs(n, k)
    bits, weights, threshold = bo.pack(a), bo.prepack(bo.pack(w)), np.zeros(n, np.int32)
    expected = np.where(a @ w.T > 0, 1, -1)
    return Case(lambda: bo.gemm_sign(bits, weights, threshold), expected)


def gemm_sign_zero(m: int, n: int, k: int) -> Case:
    """As a program of NumPy would write it: numbers in, one threshold for all columns."""
    a, w = signs(m, k), signs(n, k)
    weights = bo.prepack(bo.pack(w))
    return Case(lambda: bo.gemm_sign(a, weights, 0), np.where(a @ w.T > 0, 1, -1))


def pack_above(k: int) -> Case:
    x = signs(k)
    return Case(lambda: bo.pack_above(x, 0.0), x)


def hamming_topk(m: int, n: int, k: int) -> Case:
    a, w, count = signs(m, k), signs(n, k), 10
    queries, rows = bo.pack(a), bo.pack(w)
    distances = (k - a @ w.T) / 2
    nearest = np.argsort(distances, axis=1, kind="stable")[:, :count]
    expected = np.take_along_axis(distances, nearest, axis=1), nearest
    return Case(lambda: bo.hamming_topk(queries, rows, count), expected)


def weight_gemm(m: int, n: int, k: int) -> Case:
    x, w = RNG.standard_normal((m, k), np.float32), signs(n, k)
    weights, out = bo.prepack(bo.pack(w)), np.empty((m, n), np.float32)
    return Case(lambda: bo.weight_gemm(x, weights, out=out), x @ w.T, exact=False)


def bitplane_gemm(m: int, n: int, k: int) -> Case:
    x, w = RNG.integers(0, 256, (m, k), np.uint8), signs(n, k)
    weights, out = bo.prepack(bo.pack(w)), np.empty((m, n), np.int32)
    return Case(lambda: bo.bitplane_gemm(x, weights, out=out), x.astype(np.float32) @ w.T)


def matmul(m: int, n: int, k: int) -> Case:
    a, w = signs(m, k), signs(n, k)
    bits, rows = bo.pack(a), bo.pack(w)
    return Case(lambda: bits @ rows.T, a @ w.T)


def pack(dtype: str, axis: int, shape: tuple[int, ...] = (1000, 4096)) -> Case:
    x = RNG.integers(-128, 128, shape).astype(dtype)
    return Case(lambda: bo.pack(x, axis), np.where(x >= 0, 1, -1))


def first_row() -> Case:
    x = signs(5, 64)
    bits = bo.pack(x)
    return Case(lambda: bits[0], x[0])


def conv2d(
    shape: tuple[int, ...], filters: int, size: int = 3, padding: int = 1, groups: int = 1
) -> Case:
    x, w = signs(*shape), signs(filters, size, size, shape[3] // groups)
    expected = convolve(x, w, padding, groups)
    images, weights, out = bo.pack(x), bo.prepack(bo.pack(w)), np.empty(expected.shape, np.int32)
    options = {"padding": padding, "groups": groups, "out": out}
    return Case(lambda: bo.conv2d(images, weights, **options), expected)


def packed(make: Callable[[], layers.Sequential], *shape: int) -> Case:
    """Scores of a packed net, which must be those of the training net bit for bit.

    Its statistics are drawn, not learned: both trees must time the same network.
    """
    model = make()
    for layer in model.layers:
        if isinstance(layer, layers.BatchNorm):
            features = layer.running_mean.shape
            layer.running_mean[...] = 30 * RNG.standard_normal(features)
            layer.running_inv_std[...] = RNG.uniform(0.02, 0.05, features)
    net, x = model.freeze(), RNG.integers(0, 256, shape, np.uint8)
    return Case(lambda: net(x), model.forward(x))


def train(make: Callable[[], layers.Sequential], *shape: int, rounded: bool = False) -> Case:
    """Time a step of training: forward, backward, update.

    The figures are the norms of the first step's gradients and the losses before and behind it:
    further steps drift apart where two trees round a sum differently.
    """
    model = make()
    if rounded:
        model.round_gradients(0)
    optimizer = training("optim").Adam(model.parameters(), 1e-3)
    squared_hinge = training("losses").squared_hinge
    x, labels = RNG.integers(0, 256, shape, np.uint8), RNG.integers(0, 10, shape[0])

    def step() -> float:
        loss, grad = squared_hinge(model.forward(x, training=True), labels)
        model.backward(grad)
        optimizer.step()
        return loss

    losses = [step()]
    norms = [float(np.linalg.norm(parameter.grad)) for parameter in model.parameters()]
    losses += [step() for _ in range(4)]
    assert losses[-1] < losses[0], f"training does not lower the loss: {losses}"
    return Case(step, exact=False, figures=(*norms, *losses[:2]))


GEMMS = (
    (512, 512, 512),
    (1024, 1024, 1024),
    (2048, 2048, 2048),
    (196, 256, 2304),
    (100, 4096, 4096),
    (1, 4096, 4096),
)
LAYERS = ((100, 4096, 4096), (100, 1024, 1024))
IMAGES = ((56, 56, 64), (28, 28, 128), (14, 14, 256), (7, 7, 512))


def name_of(function: str, shape: tuple[int, ...]) -> str:
    return f"{function} {'x'.join(map(str, shape))}"


def operations() -> Iterator[tuple[str, Callable[[], Case]]]:
    """Name the cases of single functions."""
    for shape in GEMMS:
        yield f"{name_of('gemm', shape)} prepacked", partial(gemm, *shape)
        yield f"{name_of('gemm', shape)} packing", partial(gemm, *shape, prepacked=False)
    for product in (gemm_sign, weight_gemm, bitplane_gemm):
        for shape in LAYERS:
            yield name_of(product.__name__, shape), partial(product, *shape)
    yield "hamming_topk 100x10000x1024", partial(hamming_topk, 100, 10000, 1024)
    for images in (1, 8):
        for image in IMAGES:
            batch = (images, *image)
            yield name_of("conv2d", batch), partial(conv2d, batch, image[2])
    yield "conv2d 1x28x28x128 depthwise", partial(conv2d, (1, 28, 28, 128), 128, groups=128)
    yield "conv2d 1x28x28x256 1x1", partial(conv2d, (1, 28, 28, 256), 256, 1, 0)
    for dtype in ("float32", "int8"):
        yield f"pack {dtype} last axis", partial(pack, dtype, -1)
        yield f"pack {dtype} axis 0", partial(pack, dtype, 0)
    yield "gemm 1x64x64 fixed cost", partial(gemm, 1, 64, 64)
    yield "gemm_sign 1x64x64 fixed cost", partial(gemm_sign, 1, 64, 64)
    yield "gemm_sign 1x64x64 of numbers above 0 fixed cost", partial(gemm_sign_zero, 1, 64, 64)
    yield "matmul 1x64x64 fixed cost", partial(matmul, 1, 64, 64)
    yield "pack 64 float32 fixed cost", partial(pack, "float32", -1, (64,))
    yield "pack_above 64 float32 fixed cost", partial(pack_above, 64)
    yield "b[0] fixed cost", first_row
    yield "conv2d 1x8x8x64 fixed cost", partial(conv2d, (1, 8, 8, 64), 64)


def networks() -> Iterator[tuple[str, Callable[[], Case]]]:
    """Name the cases of whole networks."""
    yield "packed MLP batch 1", partial(packed, small_mlp, 1, 784)
    yield "packed MLP batch 100", partial(packed, small_mlp, 100, 784)
    yield "packed ConvNet batch 1", partial(packed, convnet, 1, 32, 32, 3)
    for name, make, shape in (
        ("MLP", small_mlp, (100, 784)),
        ("ConvNet", convnet, (10, 32, 32, 3)),
    ):
        yield f"train {name} exact", partial(train, make, *shape)
        yield f"train {name} rounded", partial(train, make, *shape, rounded=True)


CASES = {**dict(operations()), **dict(networks())}


# Measuring


def arrays_of(result: Any) -> list[np.ndarray]:
    """The arrays that a result consists of: words for bits."""
    parts = result if isinstance(result, tuple) else (result,)
    return [np.asarray(part.words if isinstance(part, bo.BitArray) else part) for part in parts]


def check(result: Any, expected: Any, exact: bool) -> None:
    """Raise an AssertionError unless a result is what was expected."""
    results = result if isinstance(result, tuple) else (result,)
    wanted = expected if isinstance(expected, tuple) else (expected,)
    assert len(results) == len(wanted), f"{len(results)} results instead of {len(wanted)}"
    for found, value in zip(results, wanted, strict=True):
        array = bo.unpack(found) if isinstance(found, bo.BitArray) else found
        if exact:
            assert np.array_equal(array, value), "wrong result"
        else:
            tolerance = 1e-5 * np.abs(value).max()
            assert np.allclose(array, value, rtol=1e-4, atol=tolerance), "wrong result"


def interruptions() -> int:
    """Count how often another process has taken this one's CPU."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw


def seconds_per_call(call: Callable[[], Any], count: int) -> float:
    """Seconds of a call: those of the clock or, if it was interrupted, those of the CPU."""
    before, start, start_cpu = interruptions(), time.perf_counter(), time.process_time()
    for _ in range(count):
        call()
    seconds, cpu = time.perf_counter() - start, time.process_time() - start_cpu
    return (cpu if interruptions() > before else seconds) / count


def measure(call: Callable[[], Any]) -> float:
    """Median seconds of a call, over samples of at least SAMPLE seconds."""
    once = min(seconds_per_call(call, 1) for _ in range(3))
    count = max(1, round(SAMPLE / once))
    samples, end = [], time.perf_counter() + SECONDS
    while time.perf_counter() < end or len(samples) < MIN_SAMPLES:
        samples.append(seconds_per_call(call, count))
    return float(np.median(samples))


def run(name: str) -> dict[str, Any]:
    """Check and time a case."""
    bo.set_num_threads(1)
    case = CASES[name]()
    # The first result of a training step, that of a known number of steps, is what can be compared.
    arrays = [np.copy(array) for array in arrays_of(case.call())]
    digest = hashlib.sha256(b"".join(array.tobytes() for array in arrays)).hexdigest()
    seconds = measure(case.call)
    if case.expected is not None:
        check(case.call(), case.expected, case.exact)
    return {
        "seconds": seconds,
        "digest": digest,
        "exact": case.exact,
        "figures": case.figures,
        "package": bo.__file__,
    }


if __name__ == "__main__":
    print(json.dumps(list(CASES) if sys.argv[1:] == ["--list"] else run(*sys.argv[1:])))
