"""Packed networks as C: compiled and run."""

import shutil
import subprocess

import numpy as np
import pytest

import bitops as bo
from bitops.convert import to_c

COMPILER = shutil.which("gcc") or shutil.which("clang")
needs_compiler = pytest.mark.skipif(COMPILER is None, reason="needs gcc or clang")
FLAGS = (
    "-std=c99 -O1 -Wall -Wextra -Wpedantic -Werror -Wshadow "
    "-fsanitize=undefined -fsanitize-undefined-trap-on-error"
).split()

# Reads examples from its input until the end, and writes scores and labels.
MAIN = """\
#include <stdio.h>
#include "network.h"

int main(void)
{
    static INPUT input[NETWORK_INPUTS];
    static network_score scores[NETWORK_SCORES];
    static uint32_t work[NETWORK_WORK];

    while (fread(input, sizeof input, 1, stdin) == 1) {
        int32_t label;

        network_run(input, scores, work);
        label = network_label(scores);
        fwrite(scores, sizeof scores, 1, stdout);
        fwrite(&label, sizeof label, 1, stdout);
    }
    return 0;
}
"""


def takes(x):
    return "bits" if isinstance(x, bo.BitArray) else x.dtype.name


def as_c_input(x):
    """Images or rows as the C code takes them: numbers, or words of 32 bits without gaps."""
    if not isinstance(x, bo.BitArray):
        return np.ascontiguousarray(x)
    words = -(-x.shape[-1] // 32)
    return np.ascontiguousarray(x.words.view(np.uint32)[..., :words])


def run(folder, x, shape, dtype):
    """Compile the network in a folder, and return its scores and labels."""
    kind = {"bits": "uint32_t", "uint8": "uint8_t", "float32": "float"}[takes(x)]
    (folder / "main.c").write_text(MAIN.replace("INPUT input", f"{kind} input"))
    program = folder / "program"
    sources = [str(folder / "main.c"), str(folder / "network.c")]
    subprocess.run([COMPILER, *FLAGS, *sources, "-o", str(program)], check=True)
    given = as_c_input(x).tobytes()
    output = subprocess.run([str(program)], input=given, capture_output=True, check=True).stdout
    rows = np.frombuffer(output, np.int32).reshape(len(x), -1)
    return np.ascontiguousarray(rows[:, :-1]).view(dtype).reshape(shape), rows[:, -1]


def check(packed, x, folder, rtol=0):
    size = to_c(packed, folder, takes=takes(x))
    wanted = packed(x)
    scores, labels = run(folder, x, wanted.shape, wanted.dtype)
    if rtol:
        np.testing.assert_allclose(scores, wanted, rtol, atol=rtol * np.abs(wanted).max())
    else:
        np.testing.assert_array_equal(scores, wanted)
    np.testing.assert_array_equal(labels, wanted.reshape(len(x), -1).argmax(axis=1))
    return size


def weights(rng, *shape):
    return rng.choice([-1, 1], shape)


def numbers(rng, *shape):
    return rng.standard_normal(shape, dtype=np.float32)


def pixels(rng, *shape):
    return rng.integers(0, 256, shape, np.uint8)
