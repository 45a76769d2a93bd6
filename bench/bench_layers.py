"""Inference of a packed MLP against the same net in NumPy float32, batch 1 and 100.

python -m pytest bench/bench_layers.py
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import common
from bitops.benchmark import FloatNet, WrongResult, random_signs, thread_counts
from bitops.layers import Packed, PackedDense

# Pixels, then the three hidden layers and ten scores of the MNIST networks.
WIDTHS = [1024, 4096]


def random_mlp(width: int, rng: np.random.Generator) -> Packed:
    """Make a packed MLP with invented weights and thresholds that split the units about evenly."""
    layers = []
    for features, deviation in ((784, 4000), (width, 30), (width, 30)):
        threshold = rng.normal(0, deviation, width).astype(np.int32)
        layers.append(PackedDense(random_signs(rng, (width, features)), threshold))
    scale, bias = rng.standard_normal((2, 10))
    return Packed([*layers, PackedDense(random_signs(rng, (10, width)), alpha=scale, bias=bias)])


@pytest.mark.parametrize("threads", thread_counts())
@pytest.mark.parametrize("batch", [1, 100])
@pytest.mark.parametrize("width", WIDTHS)
def test_mlp(benchmark: Any, width: int, batch: int, threads: int) -> None:
    rng = np.random.default_rng(0)
    model = random_mlp(width, rng)
    rows = rng.integers(0, 256, (batch, 784), dtype=np.uint8)
    numbers, rival, expected = rows.astype(np.float32), FloatNet(model), model(rows)

    def check(name: str, scores: np.ndarray) -> None:
        if not np.array_equal(scores, expected):
            raise WrongResult(f"[bench_layers] {name} gave other scores")

    common.run(
        benchmark,
        lambda: model(rows),
        check=check,
        rival=lambda: rival(numbers),
        work=batch * sum(layer.weight.size for layer in model.layers) / 1e9,
        unit="GMAC/s",
        thread_count=threads,
    )
