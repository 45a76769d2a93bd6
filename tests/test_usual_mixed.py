"""The usual call of numbers with packed weights: the same as the Python path, or none."""

import threading
import time

import numpy as np
import pytest
from numpy.testing import assert_array_equal

import bitops as bo
from bitops import _core
from bitops import reference as ref
from conftest import EDGE_BITS, random_signs
from products import assert_same_bits

MULTIPLIES_NUMBERS = True

FACTORS = ("alpha", "bias")
ODD = np.empty(3 * 70 * 4 + 1, np.uint8)[1:].view(np.float32).reshape(3, 70)


def usual(bits, x, w, alpha=None, bias=None, out=None):
    return _core.usual_mixed(bits, x, w, alpha, bias, out)


def numbers(rng, bits, *shape):
    if not bits:
        return rng.standard_normal(shape).astype(np.float32)
    return rng.integers(2**bits, size=shape, dtype=np.uint8)


def in_python(bits, x, w, **options):
    """The public function on a view that the usual call does not know."""
    strange = np.lib.stride_tricks.as_strided(x.view(type("Own", (np.ndarray,), {})))
    if bits:
        return bo.bitplane_gemm(strange, w, bits=bits, **options)
    return bo.weight_gemm(strange, w, **options)


@pytest.mark.parametrize("bits", (0, 1, 2, 6, 8))
@pytest.mark.parametrize("m, n", ((1, 1), (1, 64), (3, 9), (40, 5)))
def test_products(isa, threads, rng, bits, m, n):
    for k in [k for k in (*EDGE_BITS, 513) if k]:
        x, signs = numbers(rng, bits, m, k), random_signs(rng, n, k)
        scales = {name: rng.standard_normal(n).astype(np.float32) for name in FACTORS}
        packed = bo.pack(signs)
        prepacked = bo.prepack(packed)
        product = ref.bitplane_gemm(x, signs) if bits else in_python(bits, x, packed)
        for w in (packed, prepacked):
            assert_array_equal(usual(bits, x, w), product, strict=True)
            for given in ({"alpha": scales["alpha"]}, {"bias": scales["bias"]}, scales):
                assert_same_bits(usual(bits, x, w, **given), in_python(bits, x, w, **given))
            for number in (2, -0.5, 1e-3):
                want = in_python(bits, x, w, alpha=number, bias=number)
                assert_same_bits(usual(bits, x, w, number, number), want)


@pytest.mark.parametrize("bits", (0, 8))
def test_out_and_leading_axes(isa, rng, bits):
    x, signs = numbers(rng, bits, 2, 3, 4, 70), random_signs(rng, 5, 70)
    w, out = bo.pack(signs), np.empty((2, 3, 4, 5), np.int32 if bits else np.float32)
    assert usual(bits, x, w, out=out) is out
    assert_array_equal(out, in_python(bits, x, w), strict=True)
    scaled = np.empty(out.shape, np.float32)
    assert usual(bits, x, w, 2.0, out=scaled) is scaled


def test_few_float64_numbers(isa, rng):
    """They are converted as NumPy does it, without a warning."""
    w = bo.pack(random_signs(rng, 5, 70))
    x = rng.standard_normal((2, 3, 70)) * 10.0 ** rng.integers(-50, 50, 70)
    x[..., :3] = 1e300, -1e300, 5e-324
    with np.errstate(all="raise"):
        found = usual(0, x, w, 2.0)
    assert_same_bits(found, in_python(0, x, w, alpha=2.0))
    want = usual(0, x, w)
    same = x.reshape(-1).view(np.float32)[:30].reshape(2, 3, 5)  # what is read is a copy
    assert usual(0, x, w, out=same) is same
    assert_same_bits(same, want)
    many = np.zeros((2, 2**16, 1))
    assert usual(0, many, bo.pack(np.ones((1, 1)))) is None


@pytest.mark.parametrize("bits", (0, 8))
def test_unusual_calls(isa, rng, bits):
    x, w = numbers(rng, bits, 3, 70), bo.pack(random_signs(rng, 5, 70))
    result = np.int32 if bits else np.float32
    frozen = np.empty((3, 5), result)
    frozen.flags.writeable = False
    assert usual(bits, x, w) is not None
    for a, b in (
        (x.tolist(), w),
        (x.astype(np.float64 if bits else np.float16), w),
        (x.astype(np.float64)[::2], w),
        (x.astype(np.int8), w),
        (x.astype(x.dtype.newbyteorder()) if not bits else x.astype("u2"), w),
        (x.T.copy().T, w),
        (x[::2], w),
        (x[0], w),
        (x[:0], w),
        (x[:, :69].copy(), w),
        (ODD, w),
        (w, w),
        (x, np.asarray(w)),
        (x, w[0]),
        (x, w[:0]),
        (x, w[::2]),
        (x, bo.pack(np.asarray(w), 0)),
        (x, bo.prepack(np.ones((5, 1, 1, 70)))),
        (x, bo.Prepacked.__new__(bo.Prepacked)),
        (x, bo.BitArray.__new__(bo.BitArray)),
        (None, None),
    ):
        assert usual(bits, a, b) is None
    for out in (
        np.empty((3, 5), np.float64),
        np.empty((5, 3), result),
        np.empty((5, 3), result).T,
        np.empty(15, result),
        frozen,
        x.reshape(-1)[:60].view(np.int32).reshape(3, 5)
        if bits
        else x.reshape(-1)[:15].reshape(3, 5),
    ):
        assert usual(bits, x, w, out=out) is None
    for scale in (np.ones(4), np.ones((5, 1)), "2", [1.0] * 5, np.ones(5, ">f4"), np.ones(5, int)):
        assert usual(bits, x, w, scale) is None
        assert usual(bits, x, w, None, scale) is None
    if bits:
        assert usual(8, x, w, out=np.empty((3, 5), np.float32)) is None
        for few in range(1, 8):
            assert usual(few, np.full((3, 70), 2**few, np.uint8), w) is None
        k = (2**31 - 1) // 255 + 1  # a sum of so many numbers may not fit int32
        assert usual(8, np.zeros((1, k), np.uint8), bo.pack(np.ones((1, k), np.int8))) is None


@pytest.mark.skipif(len(bo.isa.available()) < 2, reason="needs two ISAs")
def test_panels_stay_as_long_as_a_kernel_reads_them(rng):
    """Another thread replaces them, when the ISA has changed."""
    before = bo.isa.active()
    other = next(isa for isa in bo.isa.available() if isa != before)
    for rows in (2000, 16000, 64000):
        w, x = bo.prepack(random_signs(rng, 1024, 8192)), numbers(rng, 1, rows, 8192)
        want, got = bo.bitplane_gemm(x, w, bits=1), []
        reader = threading.Thread(target=lambda x=x, w=w, got=got: got.append(usual(1, x, w)))
        reader.start()
        time.sleep(0.02)
        try:
            bo.isa.use(other)
            w.panels()
            taken = [np.ones(10**6, np.uint8) for _ in range(20)]  # what is freed is written to
            was_reading = reader.is_alive()
            reader.join()
        finally:
            bo.isa.use(before)
        assert len(taken) == 20
        if got[0] is not None:  # it may have met panels of the other ISA
            assert_array_equal(got[0], want, strict=True)
            if was_reading:
                return
    pytest.skip("the kernel was done before the panels were replaced")


def test_messages_are_those_of_the_python_path(rng):
    w = bo.pack(random_signs(rng, 5, 70))
    with pytest.raises(ValueError, match=r"^\[bitplane_gemm\] x must be at most 3 for bits=2"):
        bo.bitplane_gemm(np.full((3, 70), 4, np.uint8), w, bits=2)
    with pytest.raises(ValueError, match=r"^\[bitplane_gemm\] bits must be in 1\.\.8"):
        bo.bitplane_gemm(np.zeros((3, 70), np.uint8), w, bits=9)
    with pytest.raises(ValueError, match=r"^\[weight_gemm\] x and w must have the same k"):
        bo.weight_gemm(np.zeros((3, 69), np.float32), w)
    with pytest.raises(ValueError, match=r"^\[weight_gemm\] alpha must"):
        bo.weight_gemm(np.zeros((3, 70), np.float32), w, alpha=np.ones(4))
