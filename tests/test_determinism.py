"""The same bits from the same numbers and seeds, on every ISA and with any number of threads."""

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import bitops as bo
from bitops.layers import BatchNorm, BinaryConv2D, BinaryDense, Flatten, MaxPool2D, Sequential, Sign
from calls import answers, small_calls

THREADS = (1, 2, 4, 8)


@pytest.fixture(scope="module")
def wanted():
    """The results of portable C and one thread."""
    before = bo.get_num_threads()
    bo.set_num_threads(1)
    with bo.isa.use("generic"):
        found = {rows: answers(small_calls(rows)) for rows in (1, 30, 300)}
    bo.set_num_threads(before)
    return found


@pytest.mark.parametrize("n", THREADS)
def test_calls(isa, wanted, n):
    before = bo.get_num_threads()
    bo.set_num_threads(n)
    try:
        for rows, want in wanted.items():
            got = answers(small_calls(rows))
            assert [name for name in want if got[name] != want[name]] == [], f"{rows} rows"
    finally:
        bo.set_num_threads(before)


def mlp():
    return Sequential(
        BinaryDense(600, 256, seed=1), BatchNorm(256), Sign(), BinaryDense(256, 256, seed=2),
        BatchNorm(256), Sign(), BinaryDense(256, 10, seed=3), BatchNorm(10),
    )  # fmt: skip


def convnet():
    return Sequential(
        BinaryConv2D(3, 64, 3, padding=1, seed=1), MaxPool2D(2), BatchNorm(64), Sign(),
        BinaryConv2D(64, 64, 3, padding=1, seed=2), MaxPool2D(2), BatchNorm(64), Sign(), Flatten(),
        BinaryDense(64 * 16, 10, seed=3), BatchNorm(10),
    )  # fmt: skip


SHAPES = {"mlp": (mlp, (200, 600)), "convnet": (convnet, (60, 16, 16, 3))}


def train(name, seed=4):
    """The digest of all parameters after some steps of Adam; data and weights have seeds."""
    make, shape = SHAPES[name]
    rng = np.random.default_rng(5)
    x = rng.standard_normal(shape, np.float32)
    y = rng.integers(0, 10, shape[0])
    model = make()
    model.fit(x, y, epochs=2, batch_size=shape[0] // 2, seed=seed, verbose=0)
    digest = hashlib.sha256()
    for parameter in model.parameters():
        digest.update(np.ascontiguousarray(parameter.value).tobytes())
    return digest.hexdigest()


@pytest.fixture(scope="module", params=SHAPES)
def trained(request):
    """A net's name and digest, from another process: portable C, one thread, BLAS with four."""
    folder = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    threads = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "4"}
    result = subprocess.run(
        [sys.executable, "-c", f"import test_determinism as t; print(t.train({request.param!r}))"],
        env={**os.environ, "BITOPS_ISA": "generic", "PYTHONPATH": folder, **threads},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert result.returncode == 0, result.stderr
    return request.param, result.stdout.strip()


@pytest.mark.parametrize("n", THREADS)
def test_training(trained, isa, n):
    """Latent weights and norms are equal to the bit after some steps."""
    name, want = trained
    before = bo.get_num_threads()
    bo.set_num_threads(n)
    try:
        assert train(name) == want
    finally:
        bo.set_num_threads(before)


def test_training_depends_on_the_seeds():
    """What the test above compares is not the same anyway."""
    first, second = BinaryDense(600, 256, seed=1), BinaryDense(600, 256, seed=2)
    assert (first.weight.value != second.weight.value).any()
    assert train("mlp") != train("mlp", seed=5)
