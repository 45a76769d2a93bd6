"""Few channels, or few in a group, against the reference: every ISA, one and two threads."""

import numpy as np
import pytest
from numpy.testing import assert_array_equal

import bitops as bo
from bitops import reference as ref
from conftest import SEED, random_signs

CHANNELS = (8, 16, 32)  # those with kernels of their own; tests of convolutions have others
# Filters of a group, and groups. Signs of a group begin at a byte or not.
FILTERS = ((1, 1), (16, 1), (33, 1), (8, 5), (16, 3), (24, 2), (32, 4), (7, 3), (40, 2))
SETTINGS = (
    {"padding": 1},
    {},
    {"padding": 1, "pad_value": -1},
    {"padding": 1, "pad_value": 1, "stride": 2},
    {"padding": 2, "dilation": (2, 1)},
    {"padding": ((2, 0), (1, 3)), "stride": (3, 2), "dilation": (2, 1)},
    {"padding": ((4, 3), (5, 0)), "stride": (1, 3), "pad_value": 1},
)


def check_all_stores(rng, x, w, settings):
    """Compare dot products, scaled ones, and signs, of plain and of prepacked filters."""
    dot = ref.conv2d(x, w, **settings)
    x_bits = bo.pack(x)
    alpha, bias = rng.standard_normal((2, len(w)), np.float32)
    scales = {"alpha": alpha, "k_map": rng.random(dot.shape[:3], np.float32), "bias": bias}
    scaled = ref.conv2d(x, w, **scales, **settings)
    threshold = rng.integers(-9, 9, len(w)).astype(np.int32)
    flip = rng.random(len(w)) < 0.5
    signs = bo.pack((dot > threshold) ^ flip)
    for w_bits in (bo.pack(w), bo.prepack(w)):
        assert np.array_equal(bo.conv2d(x_bits, w_bits, **settings), dot), settings
        assert np.array_equal(bo.conv2d(x_bits, w_bits, **scales, **settings), scaled), settings
        bits = bo.conv2d_sign(x_bits, w_bits, threshold, flip=flip, **settings)
        # from_words refuses set padding bits
        assert bo.BitArray.from_words(bits.words, dot.shape) == signs, settings


@pytest.mark.parametrize("channels", CHANNELS)
def test_equals_reference(isa, threads, channels):
    rng = np.random.default_rng(SEED + channels)
    for turn, (filters, groups) in enumerate(FILTERS):
        for settings in (SETTINGS[turn % len(SETTINGS)], SETTINGS[(3 * turn + 1) % len(SETTINGS)]):
            x = random_signs(rng, 2, *(int(n) for n in rng.integers(5, 12, 2)), channels * groups)
            w = random_signs(rng, filters * groups, 3, 3, channels)
            check_all_stores(rng, x, w, settings | {"groups": groups})


@pytest.mark.parametrize("width", (300, 1300, 2100))
def test_long_lines(isa, threads, rng, width):
    """A block holds few lines, one, or none, where rows are gathered instead."""
    x, w = random_signs(rng, 1, 9, width, 32), random_signs(rng, 16, 3, 3, 16)
    for stride in (1, 2):
        check_all_stores(rng, x, w, {"padding": 1, "groups": 2, "stride": stride})


@pytest.mark.parametrize("out_type", (np.int32, np.float32))
def test_nothing_is_written_beside_the_outputs(isa, rng, out_type):
    """Rows of `out` end anywhere; the last filters of a group fill less than a vector."""
    x, w = random_signs(rng, 1, 6, 5, 16), random_signs(rng, 21, 3, 3, 16)
    memory = np.full(4 * 3 * 21 + 32, 7, out_type)
    out = memory[5 : 5 + 4 * 3 * 21].reshape(1, 4, 3, 21)
    bo.conv2d(x, w, alpha=1 if out_type == np.float32 else None, out=out)
    assert_array_equal(out, ref.conv2d(x, w))
    assert np.all(memory[:5] == 7)
    assert np.all(memory[5 + out.size :] == 7)
