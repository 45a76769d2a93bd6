"""Every function that is no product against its counterpart in NumPy, worst ratios first.

    python bench/functions.py [--seconds 0.5] [--json functions.json]

Arrays of 200 kB and of 25 MB of numbers, one thread. The two take turns in one process, results are
compared, and times are the best of many calls, results allocated by the call. A counterpart gives
the same result from the same input: signs are packed by a comparison and `np.packbits`, bits are
counted by `np.bitwise_count` on words, pools combine slices of the images. PyTorch gets images with
channels last, as ours are; it is compared in pools of numbers, if it is installed.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import bitops as bo
import common
from bitops.benchmark import WrongResult, interleave, threads

SIZES = {"200 kB": (784, 64), "25 MB": (25088, 256)}  # positions and channels of float32


class Case(NamedTuple):
    """A call of ours and a rival's, whose results have equal values."""

    name: str
    ours: Callable[[], Any]
    rival: Callable[[], Any]


def numpy_pack(x: np.ndarray) -> np.ndarray:
    return np.packbits(x >= 0, axis=-1, bitorder="little")


def packing_cases(x: np.ndarray) -> Iterator[Case]:
    """Numbers to bits and back."""
    for dtype in ("float32", "float64", "int8", "int32"):
        y = (x * 50).astype(dtype)
        yield Case(f"pack {dtype}", lambda y=y: bo.pack(y), lambda y=y: numpy_pack(y))
    truth = x >= 0
    yield Case(
        "pack bool", lambda: bo.pack(truth), lambda: np.packbits(truth, axis=-1, bitorder="little")
    )
    yield Case(
        "pack float32, axis 0",
        lambda: bo.pack(x, axis=0),
        lambda: np.packbits(x >= 0, axis=0, bitorder="little"),
    )
    threshold = np.linspace(-1, 1, x.shape[1], dtype=np.float32)
    yield Case(
        "pack_above float32",
        lambda: bo.pack_above(x, threshold),
        lambda: np.packbits(x > threshold, axis=-1, bitorder="little"),
    )
    bits, packed = bo.pack(x), numpy_pack(x)
    for dtype in (np.int8, np.float32):
        yield Case(
            f"unpack {np.dtype(dtype)}",
            lambda dtype=dtype: bo.unpack(bits, dtype),
            lambda dtype=dtype: (
                np.unpackbits(packed, axis=-1, bitorder="little").view(np.int8) * dtype(2)
                - dtype(1)
            ),
        )


def counting_cases(x: np.ndarray) -> Iterator[Case]:
    """Bits counted along any axis."""
    bits = bo.pack(x)
    words = bits.words
    yield Case(
        "popcount", lambda: bo.popcount(bits), lambda: np.bitwise_count(words).sum(dtype=np.int64)
    )
    yield Case(
        "popcount, packed axis",
        lambda: bo.popcount(bits, axis=1),
        lambda: np.bitwise_count(words).sum(axis=1, dtype=np.int64),
    )
    signs = bo.unpack(bits, bool)
    yield Case(
        "popcount, axis 0",
        lambda: bo.popcount(bits, axis=0),
        lambda: signs.sum(axis=0, dtype=np.int64),
    )


def image_cases(x: np.ndarray) -> Iterator[Case]:
    """Pools, patches and scales of images and filters."""
    images = x.reshape(-1, 28, 28, x.shape[1])
    corners = [images[:, y::2, x::2] for y in range(2) for x in range(2)]
    bits = bo.pack(images)
    words = bits.words
    word_corners = [words[:, y::2, x::2] for y in range(2) for x in range(2)]
    yield Case(
        "max_pool2d, bits",
        lambda: bo.max_pool2d(bits, 2),
        lambda: (word_corners[0] | word_corners[1]) | (word_corners[2] | word_corners[3]),
    )
    yield Case(
        "max_pool2d",
        lambda: bo.max_pool2d(images, 2),
        lambda: np.maximum(np.maximum(*corners[:2]), np.maximum(*corners[2:])),
    )
    yield Case("avg_pool2d", lambda: bo.avg_pool2d(images, 2), lambda: sum(corners) / 4)
    yield Case(
        "global_avg_pool2d",
        lambda: bo.global_avg_pool2d(images),
        lambda: images.mean(axis=(1, 2)),
    )
    windows = np.lib.stride_tricks.sliding_window_view
    yield Case(
        "k_map",
        lambda: bo.k_map(images, 3),
        lambda: windows(np.abs(images).mean(axis=-1), (3, 3), axis=(1, 2)).mean(axis=(-2, -1)),
    )
    yield Case(
        "im2col",
        lambda: bo.im2col(bits, 3),
        lambda: np.ascontiguousarray(
            windows(words, (3, 3), axis=(1, 2)).transpose(0, 1, 2, 4, 5, 3)
        ),
    )
    filters = x.reshape(-1, 7, 7, x.shape[1])
    yield Case(
        "binarize_weights",
        lambda: bo.binarize_weights(filters),
        lambda: (numpy_pack(filters), np.abs(filters).mean(axis=(1, 2, 3))),
    )


def torch_cases(x: np.ndarray) -> Iterator[Case]:
    """Pools of numbers against PyTorch, which sums means of whole images in float32."""
    try:
        import torch
    except ImportError:
        return
    torch.set_num_threads(1)
    pools = torch.nn.functional
    images = x.reshape(-1, 28, 28, x.shape[1])
    tensor = torch.from_numpy(images).permute(0, 3, 1, 2)

    def case(name: str, ours: Callable[[], Any], rival: Callable[[], Any]) -> Case:
        return Case(f"{name}, PyTorch", ours, lambda: rival().permute(0, 2, 3, 1).numpy())

    yield case("max_pool2d", lambda: bo.max_pool2d(images, 2), lambda: pools.max_pool2d(tensor, 2))
    yield case("avg_pool2d", lambda: bo.avg_pool2d(images, 2), lambda: pools.avg_pool2d(tensor, 2))
    yield case(
        "global_avg_pool2d",
        lambda: bo.global_avg_pool2d(images)[:, None, None],
        lambda: pools.adaptive_avg_pool2d(tensor, 1),
    )


def same(ours: Any, rival: Any) -> bool:
    """Tell whether a result has the values of NumPy's, whose order of additions may differ."""
    if isinstance(ours, tuple):
        return all(map(same, ours, rival))
    if isinstance(ours, bo.BitArray):
        bits = np.packbits(bo.unpack(ours, bool), axis=ours.axis, bitorder="little")
        return np.array_equal(bits.ravel(), np.ravel(rival).view(np.uint8))
    return np.allclose(ours, rival, rtol=1e-4, atol=1e-5)


def measure(case: Case, seconds: float) -> dict[str, Any]:
    if not same(case.ours(), case.rival()):
        raise WrongResult(f"[functions] {case.name} differs from the rival's result")
    times = interleave({"bitops": case.ours, "rival": case.rival}, seconds=seconds)
    ours, rival = times["bitops"].best * 1e6, times["rival"].best * 1e6
    return {"case": case.name, "bitops_us": ours, "rival_us": rival, "ratio": rival / ours}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=0.5, help="time for each case")
    parser.add_argument("--json", type=Path, help="write all figures to this file")
    options = parser.parse_args()
    stamp = common.stamp()
    for name, value in stamp.items():
        print(f"{name}: {value}")
    rows = []
    with threads(1):
        for size, shape in SIZES.items():
            x = np.random.default_rng(0).standard_normal(shape, np.float32)
            for cases in (packing_cases, counting_cases, image_cases, torch_cases):
                rows += [{"size": size} | measure(case, options.seconds) for case in cases(x)]
    rows.sort(key=lambda row: row["ratio"])
    print(f"\n{'case':26} {'size':>8} {'bitops us':>10} {'rival us':>10} {'ratio':>7}")
    for row in rows:
        print(
            f"{row['case']:26} {row['size']:>8} {row['bitops_us']:10.1f} {row['rival_us']:10.1f} "
            f"{row['ratio']:7.2f}"
        )
    if options.json:
        options.json.write_text(json.dumps({"machine": stamp, "functions": rows}, indent=2))


if __name__ == "__main__":
    main()
