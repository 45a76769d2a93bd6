"""A product takes at most 8 MiB besides operands and result, whatever its shape: measured.

Linux keeps the largest resident size of a process, and sets it back to the present one on request.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import bitops as bo

LIMIT = 8 << 20  # bytes

FUNCTIONS = """
import sys
import numpy as np
import bitops as bo

def resident(field):
    for line in open("/proc/self/status"):
        if line.startswith(field + ":"):
            return int(line.split()[1]) * 1024

def extra(call, result_bytes):
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")  # the peak starts anew
    before = resident("VmRSS")
    call()
    return resident("VmHWM") - before - result_bytes

def bits(rng, rows, k):
    return bo.BitArray.from_words(rng.integers(0, 2**64, (rows, k // 64), np.uint64), (rows, k))
"""

PROGRAM = """
m, n, k = map(int, sys.argv[1:])
rng = np.random.default_rng(0)
a, w = bits(rng, m, k), bits(rng, n, k)
out = np.ones((m, n), np.int32)  # its pages exist
small = bits(rng, 64, 8192)
count = min(10, n)
for threads in (1, 2, 64):
    bo.set_num_threads(threads)
    bo.hamming_topk(small, small, 1), bo.gemm(small, small)  # threads and their stacks exist
    for weights in (w, bo.prepack(w)):
        print(
            extra(lambda: bo.gemm(a, weights, out=out), 0),
            extra(lambda: bo.gemm_sign(a, weights, 0), (n + 63) // 64 * 8 * m),
            extra(lambda: bo.hamming_topk(a, weights, count), m * count * 12),
        )
"""

MIXED_PROGRAM = """
m, n, k = map(int, sys.argv[1:])
rng = np.random.default_rng(0)
x, w = rng.integers(0, 2, (m, k), np.uint8), bits(rng, n, k)
real, out = x.astype(np.float32), np.ones((m, n), np.int32)
small = bits(rng, 64, 8192)
for threads in (1, 2, 64):
    bo.set_num_threads(threads)
    bo.gemm(small, small)  # threads and their stacks exist
    bo.weight_gemm(np.ones((64, 8192), np.float32), small)
    for weights in (w, bo.prepack(w)):
        print(extra(lambda: bo.weight_gemm(real, weights, out=out.view(np.float32)), 0))
        for count in (1, 4, 8):
            print(extra(lambda: bo.bitplane_gemm(x, weights, bits=count, out=out), 0))
"""

CONV_PROGRAM = """
n, h, c, groups = map(int, sys.argv[1:])
rng = np.random.default_rng(0)
x = bo.pack(rng.standard_normal((n, h, h, c), np.float32))
w = bo.pack(rng.standard_normal((c, 3, 3, c // groups), np.float32))
out, k_map = np.ones((n, h, h, c), np.int32), np.ones((n, h, h), np.float32)
real = out.view(np.float32)
small = bits(rng, 64, 8192)
threshold = np.zeros(c, np.int32)
for threads in (1, 2, 64):
    bo.set_num_threads(threads)
    bo.gemm(small, small)  # threads and their stacks exist
    for weights in (w, bo.prepack(w)):
        for pad_value in (0, 1):
            settings = dict(padding=1, groups=groups, pad_value=pad_value)
            bo.conv2d(x[:1, :1], weights, **settings)  # what prepacked filters keep exists
            print(
                extra(lambda: bo.conv2d(x, weights, out=out, **settings), 0),
                extra(lambda: bo.conv2d(x, weights, k_map=k_map, out=real, **settings), 0),
                extra(
                    lambda: bo.conv2d_sign(x, weights, threshold, **settings),
                    n * h * h * ((c + 63) // 64) * 8,
                ),
            )
"""


def extra_bytes(program: str, *arguments: int) -> list[int]:
    # A fixed threshold makes glibc give memory back once freed: no call profits from the last.
    environment = {"BITOPS_ISA": bo.isa.active(), "MALLOC_MMAP_THRESHOLD_": "65536"}
    result = subprocess.run(
        [sys.executable, "-c", FUNCTIONS + program, *map(str, arguments)],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert result.returncode == 0, result.stderr
    return [int(word) for word in result.stdout.split()]


needs_clear_refs = pytest.mark.skipif(
    not Path("/proc/self/clear_refs").exists(), reason="needs /proc/self/clear_refs"
)


@needs_clear_refs
@pytest.mark.parametrize(
    ("m", "n", "k"),
    (
        (3000, 3000, 64),
        (2000, 3000, 4096),
        (1000, 1500, 16384),
        (1500, 1000, 32768),
        (100, 2500, 1 << 17),
        (20, 100, 1 << 20),
        (300, 33, 1 << 20),
        (16, 4000, 8192),
        (17, 200_000, 256),
        (200_000, 17, 256),
    ),
)
def test_extra_memory(isa, m, n, k):
    if isa == "generic" and m * n * k > 1e10:
        pytest.skip("takes seconds in portable C")
    found = extra_bytes(PROGRAM, m, n, k)
    assert len(found) == 18
    assert max(found) <= LIMIT


@needs_clear_refs
@pytest.mark.parametrize(
    ("m", "n", "k"), ((300, 2000, 4096), (20, 100, 1 << 17), (5, 20_000, 8192), (20_000, 33, 256))
)
def test_extra_memory_of_numbers_times_weights(isa, m, n, k):
    if isa == "generic" and m * n * k > 1e9:
        pytest.skip("takes seconds in portable C")
    found = extra_bytes(MIXED_PROGRAM, m, n, k)
    assert len(found) == 24
    assert max(found) <= LIMIT


@needs_clear_refs
@pytest.mark.parametrize(
    ("n", "h", "c", "groups"),
    ((8, 56, 64, 1), (2, 14, 512, 1), (1, 7, 2048, 1), (2, 28, 256, 4), (8, 56, 64, 64)),
)
def test_extra_memory_of_convolutions(isa, n, h, c, groups):
    if isa == "generic" and n * h * h * c * c * 9 / groups > 2e9:
        pytest.skip("takes seconds in portable C")
    found = extra_bytes(CONV_PROGRAM, n, h, c, groups)
    assert len(found) == 36
    assert max(found) <= LIMIT
