"""Published networks for ImageNet: their sizes, and time and memory of one image of 224 x 224.

    python bench/imagenet.py [NET ...] [--seconds 3]

Random weights, one thread. Time is the median of runs of the packed network; memory is the most
that NumPy held during one run, besides the network itself. The scores are compared with those of
the training graph.
"""

from __future__ import annotations

import argparse
import time
import tracemalloc
from collections.abc import Callable, Iterator
from functools import partial

import numpy as np

import common
from bitops import models
from bitops.benchmark import WrongResult, interleave, threads
from bitops.layers import Packed, Sequential

NETS: dict[str, Callable[..., Sequential]] = {
    "birealnet18": models.birealnet18,
    "resnet_e18": models.resnet_e18,
    "real_to_binary": models.real_to_binary,
    "binary_densenet28": models.binary_densenet28,
    "meliusnet22": models.meliusnet22,
    "quicknet-small": partial(models.quicknet, size="small"),
    "quicknet": models.quicknet,
    "quicknet-large": partial(models.quicknet, size="large"),
    "reactnet_a": models.reactnet_a,
}
HEAD = "net", "parameters", "1-bit", "MiB", "1-bit GMAC", "float MMAC", "ms", "run MiB", "freeze s"


def cells(name: str, seconds: float) -> Iterator[str]:
    """Yield the figures of a network, in the order of `HEAD`."""
    model = NETS[name](seed=0)
    image = np.random.default_rng(0).standard_normal((1, 224, 224, 3), dtype=np.float32)
    model.forward(image, training=True)  # the first batch sets the running statistics
    expected = model(image)
    parameters = model.parameters()
    start = time.perf_counter()
    packed = model.freeze()
    freezing = time.perf_counter() - start
    if not np.array_equal(packed(image), expected):
        raise WrongResult(f"[imagenet] the packed {name} gave other scores")
    total = packed.summary().total
    assert total.binary_macs is not None and total.float_macs is not None
    yield name
    yield f"{sum(p.size for p in parameters):,}"
    yield f"{sum(p.size for p in parameters if p.binary):,}"
    yield f"{packed.nbytes / 2**20:.2f}"
    yield f"{total.binary_macs / 1e9:.3f}"
    yield f"{total.float_macs / 1e6:.1f}"
    yield f"{median(packed, image, seconds) * 1e3:.1f}"
    yield f"{peak(packed, image) / 2**20:.1f}"
    yield f"{freezing:.2f}"


def median(packed: Packed, image: np.ndarray, seconds: float) -> float:
    calls = {"packed": lambda: packed(image)}
    return interleave(calls, seconds=seconds)["packed"].median


def peak(packed: Packed, image: np.ndarray) -> int:
    tracemalloc.start()
    packed(image)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return most


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("nets", nargs="*", metavar="NET", help=f"of {', '.join(NETS)}; default all")
    parser.add_argument("--seconds", type=float, default=3.0, help="time for each network")
    options = parser.parse_args()
    names = options.nets or list(NETS)
    unknown = [name for name in names if name not in NETS]
    if unknown:
        parser.error(f"no network is called {unknown[0]}; there are {', '.join(NETS)}")
    for name, value in common.stamp().items():
        print(f"{name}: {value}")
    print("\n" + "  ".join(title.rjust(18) for title in HEAD))
    with threads(1):
        for name in names:
            row = [cell.rjust(18) for cell in cells(name, options.seconds)]
            print("  ".join(row), flush=True)


if __name__ == "__main__":
    main()
