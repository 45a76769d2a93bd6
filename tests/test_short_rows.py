"""Products of short rows, which have kernels of their own, equal the reference on every ISA."""

import numpy as np
import pytest
from numpy.testing import assert_array_equal

import bitops as bo
from products import assert_same_bits, check_case, make_case, scales

# Around words up to 512 bits, where the kernels of short rows end, and what lies between.
BITS = tuple(
    sorted({*range(1, 514, 19), *(64 * i + d for i in range(1, 9) for d in (-1, 0, 1)), 7, 100})
)


@pytest.mark.parametrize("k", BITS)
def test_random_rows(isa, rng, threads, k):
    """Every output type; rows from 1 to 40, columns around vectors, panels and groups of panels."""
    for m, n in ((1, 70), (2, 33), (3, 129), (int(rng.integers(4, 17)), 31), (17, 257), (40, 16)):
        check_case(make_case(rng, m, n, k))


@pytest.mark.parametrize("k", (64, 65, 250, 512))
def test_more_columns_than_a_group(isa, rng, threads, k):
    check_case(make_case(rng, 5, 4500, k))


@pytest.mark.parametrize("k", (1, 64, 65, 130, 192, 250, 511))
def test_many_rows(isa, rng, k):
    """As many as tables of mismatches need; columns fill whole panels, half a panel, and less."""
    for n in (256, 64, 130, 5):
        check_case(make_case(rng, 601, n, k))


def test_rows_shared_out_to_threads(isa, rng, threads):
    check_case(make_case(rng, 3000, 40, 64))
    check_case(make_case(rng, 1037, 65, 200))


@pytest.mark.parametrize("offset", (0, 1, 5, 16))
def test_outputs_past_the_caches(isa, rng, offset):
    """Large outputs take another way to memory; `out` may begin anywhere in a cache line."""
    if isa == "generic":
        pytest.skip("takes seconds in portable C")
    m, n = 4200, 8100 + offset
    a = bo.BitArray.from_words(rng.integers(0, 2**64, (m, 1), np.uint64), (m, 64))
    w = bo.BitArray.from_words(rng.integers(0, 2**64, (n, 1), np.uint64), (n, 64))
    memory = np.empty(m * n + 16, np.int32)
    out = memory[offset : offset + m * n].reshape(m, n)
    memory[:offset] = memory[offset + m * n :] = 7
    assert out.nbytes >= 2**27
    bo.gemm(a, w, out=out)
    for i in range(0, m, 700):
        assert_array_equal(out[i : i + 700], bo.gemm(a[i : i + 700], w))
    assert np.all(memory[:offset] == 7)
    assert np.all(memory[offset + m * n :] == 7)
    factors = scales(rng, m, n)
    scaled = memory.view(np.float32)[offset : offset + m * n].reshape(m, n)
    bo.gemm(a, w, **factors, out=scaled)
    for i in range(0, m, 700):
        own = factors | {"k_map": factors["k_map"][i : i + 700]}
        assert_same_bits(scaled[i : i + 700], bo.gemm(a[i : i + 700], w, **own))
