"""BitArray.from_packbits and to_packbits against np.packbits and np.unpackbits."""

import array

import numpy as np
import pytest
from numpy.testing import assert_array_equal

import bitops as bo
from bitops import reference as ref
from conftest import EDGE_BITS

ORDERS = ("big", "little")
from_packbits = bo.BitArray.from_packbits


def assert_bits(b, wanted):
    """Compare with bools; the padding bits are 0 in what the reference packs."""
    assert b.shape == wanted.shape
    assert_array_equal(b.words, ref.pack(wanted, b.axis), strict=True)


@pytest.mark.parametrize("order", ORDERS)
def test_there_and_back(isa, rng, threads, order):
    for k in EDGE_BITS:
        for lead in ((), (3,), (2, 3), (0,)):
            x = rng.random((*lead, k)) < 0.5
            packed = np.packbits(x, axis=-1, bitorder=order)
            b = from_packbits(packed, k, bitorder=order)
            assert_bits(b, x)
            assert_array_equal(b.to_packbits(bitorder=order), packed, strict=True)


@pytest.mark.parametrize("order", ORDERS)
def test_large(rng, threads, order):
    packed = rng.integers(0, 256, (700, 801), np.uint8)
    b = from_packbits(packed, bitorder=order)
    assert_bits(b, np.unpackbits(packed, axis=-1, bitorder=order) > 0)
    assert_array_equal(b.to_packbits(bitorder=order), packed)


@pytest.mark.parametrize("order", ORDERS)
def test_counts_are_those_of_unpackbits(rng, order):
    for octets in (1, 2, 8, 9, 16):
        packed = rng.integers(0, 256, (3, octets), np.uint8)
        packed[:, -1] &= 0xF0 if order == "big" else 0x0F
        bits = 8 * octets
        for count in (None, bits, bits - 4, -4, -1, bits + 1, bits + 64, bits + 200):
            wanted = np.unpackbits(packed, axis=-1, count=count, bitorder=order)
            assert_bits(from_packbits(packed, count, bitorder=order), wanted > 0)
        nothing = from_packbits(np.zeros((3, octets), np.uint8), -bits, bitorder=order)
        assert nothing.shape == (3, 0)
        zeros = from_packbits(np.zeros((2, octets), np.uint8), 3, bitorder=order)
        assert_bits(zeros, np.zeros((2, 3), bool))


@pytest.mark.parametrize("order", ORDERS)
def test_packed_axis(rng, order):
    x = rng.random((5, 67, 9)) < 0.5
    for axis in range(3):
        packed = bo.pack(x, axis).to_packbits(bitorder=order)
        assert_array_equal(packed, np.packbits(x, axis=axis, bitorder=order), strict=True)


@pytest.mark.parametrize("order", ORDERS)
def test_layouts(rng, tmp_path, order):
    packed = rng.integers(0, 256, (6, 40), np.uint8)
    wanted = np.unpackbits(packed, axis=-1, bitorder=order) > 0
    raw = np.zeros(packed.size + 1, np.uint8)
    raw[1:] = packed.reshape(-1)
    np.save(tmp_path / "packed.npy", packed)
    read_only = packed.copy()
    read_only.flags.writeable = False
    views = (
        np.asfortranarray(packed),
        np.repeat(packed, 2, axis=0)[::2],
        np.repeat(packed, 2, axis=1)[:, ::2],
        packed[::-1].copy()[::-1],
        packed[:, ::-1].copy()[:, ::-1],
        raw[1:].reshape(packed.shape),
        read_only,
        np.load(tmp_path / "packed.npy", mmap_mode="r"),
    )
    for view in views:
        assert_bits(from_packbits(view, bitorder=order), wanted)
    assert_bits(from_packbits(packed[:, 3:30], bitorder=order), wanted[:, 24:240])
    assert_bits(from_packbits(packed[2:3].repeat(3, 0)[:1], bitorder=order), wanted[2:3])


def test_what_is_not_copied(tmp_path):
    packed = np.arange(96, dtype=np.uint8).reshape(4, 24)
    packed[:, 12:] = 0
    shares = np.shares_memory
    assert shares(from_packbits(packed, bitorder="little").words, packed)
    assert shares(from_packbits(packed, 100, bitorder="little").words, packed)
    assert shares(from_packbits(packed[:, 8:], 40, bitorder="little").words, packed)
    assert shares(from_packbits(packed[::2], bitorder="little").words, packed)
    assert not shares(from_packbits(packed[:, 1:9], bitorder="little").words, packed)
    assert not shares(from_packbits(packed[:, :12], bitorder="little").words, packed)
    assert not shares(from_packbits(packed).words, packed)
    for order in ORDERS:
        b = from_packbits(packed, bitorder="little")
        assert not shares(b.to_packbits(bitorder=order), packed)
    np.save(tmp_path / "packed.npy", packed)
    mapped = np.load(tmp_path / "packed.npy", mmap_mode="r")
    b = from_packbits(mapped, bitorder="little")
    assert shares(b.words, mapped) and not b.words.flags.writeable
    assert_array_equal(bo.gemm(b, b), bo.gemm(b.copy(), b.copy()))


class Tensor:
    """An array of another library, which has the protocols that it is made with."""

    def __init__(self, x, *protocols):
        for name in protocols:
            setattr(type(self), name, getattr(x, name))


@pytest.mark.parametrize("protocols", (("__dlpack__", "__dlpack_device__"), ("__array__",)))
def test_arrays_of_other_libraries(protocols):
    packed = np.arange(32, dtype=np.uint8).reshape(2, 16)
    foreign = type("Foreign", (Tensor,), {})(packed, *protocols)
    b = from_packbits(foreign, bitorder="little")
    assert b == from_packbits(packed, bitorder="little")
    assert np.shares_memory(b.words, packed)


@pytest.mark.parametrize(
    "make",
    [
        bytes,
        bytearray,
        memoryview,
        lambda octets: memoryview(octets).cast("b"),  # as buffers of Arrow
        lambda octets: memoryview(octets).cast("c"),
        lambda octets: array.array("B", octets),
    ],
)
def test_buffers(make):
    octets = bytes(range(200, 224))
    b = from_packbits(make(octets))
    assert_bits(b, np.unpackbits(np.frombuffer(octets, np.uint8)) > 0)


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("count", (1, 7, 9, 64, 65, 100))
def test_set_bits_after_the_last_are_refused(order, count):
    packed = np.packbits(np.ones((3, count), bool), axis=-1, bitorder=order)
    wide = np.zeros((3, 16), np.uint8)
    wide[:, : packed.shape[1]] = packed
    assert from_packbits(wide, count, bitorder=order) == bo.pack(np.ones((3, count)))
    for bad in range(count, 128):
        octets = wide.copy()
        octets[1, bad // 8] |= 1 << (7 - bad % 8 if order == "big" else bad % 8)
        with pytest.raises(ValueError, match=rf"after element {count - 1} must be 0, got set"):
            from_packbits(octets, count, bitorder=order)


@pytest.mark.parametrize("end", (True, False), ids=("end", "begin"))
def test_no_byte_beside_the_rows_is_touched(rng, fenced, end):
    for octets in range(1, 40):
        packed = rng.integers(0, 256, (3, octets), np.uint8)
        placed = fenced[0].place(packed, end)
        for order in ORDERS:
            b = from_packbits(placed, bitorder=order)
            assert_array_equal(b.to_packbits(bitorder=order), packed)
