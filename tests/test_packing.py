"""Packing views of any layout: the words of the reference, and copies of no more than a block."""

import itertools
import tracemalloc

import numpy as np
import pytest
from numpy.testing import assert_array_equal

import bitops as bo
from bitops import reference as ref
from bitops.ops import packing

VIEWS = {
    "reversed": lambda x: x[::-1],
    "every second row": lambda x: x[::2],
    "columns": lambda x: x[..., 3:-5],
    "columns reversed": lambda x: x[..., ::-1],
    "NHWC of NCHW": lambda x: x.transpose(0, 2, 3, 1),
    "Fortran order": np.asfortranarray,
    "broadcast": lambda x: np.broadcast_to(x[:1], x.shape),
    "foreign bytes": lambda x: x.astype(x.dtype.newbyteorder(">")),
}


@pytest.mark.parametrize("shape", [(5,), (0, 5), (2, 3, 40), (2, 0, 70), (3, 4, 5, 65)])
@pytest.mark.parametrize("most", [1, 1000, 1 << 22])
def test_every_order_of_axes(monkeypatch, rng, shape, most):
    monkeypatch.setattr(packing, "MAX_BLOCK_BYTES", most)
    x = rng.standard_normal(shape)
    for order in itertools.permutations(range(x.ndim)):
        turned = x.transpose(order)
        for axis, view in itertools.product(
            range(x.ndim), (turned, turned[::-1], turned[..., ::2])
        ):
            assert_array_equal(bo.pack(view, axis).words, ref.pack(view, axis))


@pytest.mark.parametrize("name", VIEWS)
@pytest.mark.parametrize("dtype", [np.bool_, np.int8, np.float16, np.float32, np.longdouble])
def test_views_that_take_several_blocks(monkeypatch, rng, name, dtype):
    monkeypatch.setattr(packing, "MAX_BLOCK_BYTES", 4096)
    x = (rng.standard_normal((4, 6, 7, 200)) > 0 if dtype is np.bool_ else
         (100 * rng.standard_normal((4, 6, 7, 200))).astype(dtype))  # fmt: skip
    view = VIEWS[name](x)
    for axis in range(4):
        assert_array_equal(bo.pack(view, axis).words, ref.pack(view, axis))


@pytest.mark.parametrize("name", sorted(set(VIEWS) - {"Fortran order", "foreign bytes"}))
def test_no_more_than_a_block_is_copied(name):
    x = np.ones((64, 16, 64, 256), np.float32)  # 64 MiB
    view = VIEWS[name](x)
    tracemalloc.start()
    b = bo.pack(view)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    # some ways pack along another axis first, and turn the words: a copy of these, not of values
    assert peak < 3 * b.nbytes + 3 * packing.MAX_BLOCK_BYTES < view.nbytes


def test_broadcast_rows_are_packed_in_blocks():
    x = np.broadcast_to(np.True_, (2**15, 2000))
    tracemalloc.start()
    b = bo.pack(x, 1)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < b.nbytes + 3 * packing.MAX_BLOCK_BYTES
    assert bo.popcount(b) == x.size


@pytest.mark.parametrize("value", [np.nan, -np.nan])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.longdouble])
def test_nan_in_any_block_is_refused(monkeypatch, value, dtype):
    monkeypatch.setattr(packing, "MAX_BLOCK_BYTES", 256)
    for place in (0, 7, -1):
        x = np.ones((9, 70), dtype)
        x.reshape(-1)[place] = value
        for view in (x[::-1], x[:, ::-1], np.asfortranarray(x)):
            with pytest.raises(ValueError, match="must not hold NaN"):
                bo.pack(view)


def halves(name):
    return np.dtype(getattr(pytest.importorskip("ml_dtypes"), name) if "b" in name else name)


@pytest.mark.parametrize("name", ("float16", "bfloat16"))
def test_all_halves(isa, name):
    """Compared as integers, which must agree with comparing them as numbers."""
    every = np.arange(2**16, dtype=np.uint16).view(halves(name))
    numbers = every.astype(np.float32)
    x, plus = every[~np.isnan(numbers)], numbers[~np.isnan(numbers)]
    for view in np.s_[:], np.s_[::-1], np.s_[::3]:
        assert_array_equal(bo.pack(x[view]).words, ref.pack(plus[view]))
    columns = x[: len(x) // 70 * 70].reshape(-1, 70)
    expected = bo.pack(columns.astype(np.float32), 0)
    assert bo.pack(columns, 0) == expected == bo.pack(np.asfortranarray(columns), 0)
    assert bo.pack(columns.astype(columns.dtype.newbyteorder()), 0) == expected


@pytest.mark.parametrize("name", ("float16", "bfloat16"))
def test_any_nan_of_halves_is_found(isa, name):
    every = np.arange(2**16, dtype=np.uint16).view(halves(name))
    for n in (1, 63, 64, 65, 150):
        for place in {0, n // 2, n - 1, n - 2} & set(range(n)):
            x = np.full(n, -np.inf).astype(every.dtype)
            assert bo.popcount(bo.pack(x)) == 0
            for nan in every[np.isnan(every.astype(np.float32))][:: 97 if n > 1 else 1]:
                x[place] = nan
                with pytest.raises(ValueError, match="must not hold NaN"):
                    bo.pack(x)


def test_bfloat16_elsewhere(rng):
    """Where signs are not all that counts, these numbers become float32, which is exact."""
    x = rng.standard_normal((5, 70)).astype(halves("bfloat16"))
    single = x.astype(np.float32)
    assert_array_equal(bo.weight_gemm(x, single), bo.weight_gemm(single, single))
    assert bo.pack_above(x, 0.5) == bo.pack_above(single, 0.5)
    assert_array_equal(bo.gemm(x, x), bo.gemm(single, single))


@pytest.mark.parametrize("threshold", [0, -3, 2**24, 2**24 + 1, 0.1, 1e300, np.int64(7), True])
def test_thresholds_of_any_type_decide_alike(rng, threshold):
    x = np.append(rng.standard_normal(500) * 10, [0, -0.0, 2.0**24, 2.0**24 + 2, np.inf, -np.inf])
    x = x.astype(np.float32)[None]
    assert bo.pack_above(x, threshold) == bo.pack(x > np.asarray(threshold))
