"""Drawn operands: arrays of any dtype, shape, layout and value, and things that are no arrays."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

import bitops as bo
from fuzz.reader import EDGES, NUMBERS, SPECIAL, Reader

REAL = ("f4", "?", "i1", "u1", "i2", "i4", "i8", "u8", "f2", "f8", "g", ">f4", ">i8")
FOREIGN = ("c8", "O", "S2", "U2", "M8[s]", "m8[s]", "V4")
SIZES = (0, 1, 2, 3, 4, 7, 1, 2, 3, 5, 8, 9, 13, 17, 33, 65)  # most of them small
LONG = (0, 1, 3, 8, 63, 64, 65, 129, 2, 127, 128, 255, 256, 257, 511, 513)
# As padding of one direction, numbers between these make results of gigabytes, which are right.
EXTREME = tuple(edge for edge in EDGES if abs(edge) < 1000 or abs(edge) >= 2**31 - 1)
MAX_SIZE = 5000  # elements of a drawn array
NOISE = np.random.default_rng(0).integers(0, 256, 1 << 21, np.uint8)
FIRST = 1 << 16  # places of the noise at which a drawn array may begin


def array(reader: Reader, shape: tuple[int, ...], dtypes: tuple[str, ...] = REAL) -> Any:
    """Values of any kind that a dtype has, NaN among them only now and then."""
    dtype = np.dtype(reader.choice(dtypes))
    size = math.prod(shape)
    octets = _octets(reader.take(8), size)
    if dtype.kind == "f":
        values = _floats(reader, octets)
    elif dtype.kind in "iu" and reader.chance(8):  # all that the type has, its ends too
        lowest, highest = np.iinfo(dtype).min, np.iinfo(dtype).max
        ends = np.array((lowest, lowest + 1, highest - 1, highest, 0, 1), dtype)
        return layout(reader, ends[octets % len(ends)].reshape(shape))
    elif dtype.kind == "b":
        values = octets < 128
    else:
        values = octets.astype(np.int16) - 128
    return layout(reader, values.astype(dtype).reshape(shape))


def _octets(drawn: bytes, size: int) -> np.ndarray:
    """So many bytes: the drawn ones, and noise from a drawn place; or all equal, or but a few."""
    start, kind = drawn[0] | drawn[1] << 8, drawn[2] % 8
    octets = np.resize(NOISE[start:], size) if size > NOISE.size - FIRST else NOISE[start:][:size]
    if kind == 0:
        return np.full(size, drawn[3], np.uint8)
    if kind == 1:
        return np.where(octets < 8, octets, drawn[3])
    octets = octets.copy()
    octets[3:8] = np.frombuffer(drawn[3:8], np.uint8)[: max(size - 3, 0)]
    return octets


def _floats(reader: Reader, octets: np.ndarray) -> np.ndarray:
    """Numbers between -16 and 16, and now and then subnormals, extremes, infinities and NaN."""
    numbers = (octets.astype(np.float64) - 128) / 8
    if reader.chance(4):
        palette = np.array(NUMBERS + (SPECIAL[1:] if reader.chance(4) else ()))
        numbers = np.where(octets % 3 == 0, palette[octets % len(palette)], numbers)
    if octets.size and reader.chance(16):
        numbers[reader.below(min(octets.size, 1 << 16))] = np.nan
    return numbers


def layout(reader: Reader, x: np.ndarray) -> Any:
    """The same values, elsewhere in memory or as a list; two layouts repeat some of them."""
    kind = reader.below(16)
    if kind == 1 and x.ndim:
        return np.asfortranarray(x)
    if kind == 2 and x.ndim:
        return np.flip(np.flip(x).copy())
    if kind == 3 and x.ndim:
        return np.repeat(x, 2, axis=-1)[..., ::2]
    if kind == 4:
        x.flags.writeable = False
    if kind == 5 and x.ndim and x.shape[0]:
        return np.broadcast_to(x[:1], x.shape)
    if kind == 6 and x.dtype.kind in "biuf":
        raw = np.zeros(x.nbytes + 1, np.uint8)
        raw[1:] = np.frombuffer(x.tobytes(), np.uint8)
        return raw[1:].view(x.dtype).reshape(x.shape)
    if kind == 7 and reader.chance(4):
        return x.view(np.ma.MaskedArray)
    if kind == 8 and x.ndim > 1:
        order = reader.choice(((1, 0), (0, 1))) + tuple(range(x.ndim - 1, 1, -1))
        return np.transpose(np.transpose(x, order).copy(), np.argsort(order))
    if kind == 9 and 0 < x.size < 200 and x.dtype.char in "dl":
        return x.tolist()
    if kind == 10 and x.ndim > 1:
        return np.repeat(x, 2, axis=0)[::-2][::-1]
    return x


def bits(reader: Reader, shape: tuple[int, ...]) -> Any:
    """An operand that is packed by sign: numbers, or bits, perhaps prepacked or along any axis."""
    kind = reader.below(5)
    if kind < 2:
        return array(reader, shape)
    values = np.nan_to_num(np.asarray(array(reader, shape, ("i1", "f4"))))
    if kind == 2 and len(shape) in (2, 4):
        b = bo.pack(values)
        try:
            return bo.prepack(b)
        except ValueError:
            return b
    if kind == 3 and reader.chance(3):
        return bo.pack(values, reader.below(len(shape)))
    if kind == 4:
        return _strided_bits(reader, values)
    return bo.pack(values)


def _strided_bits(reader: Reader, values: np.ndarray) -> bo.BitArray:
    """Bits whose words lie anywhere, packed along the last axis."""
    if values.ndim < 2:
        return bo.pack(values)
    kind = reader.below(5)
    if kind == 0:
        return bo.pack(np.repeat(values, 2, axis=0))[::2]
    if kind == 1:
        return bo.pack(values[::-1])[::-1]
    if kind == 2:
        return bo.pack(values.T, 0).T
    words = bo.pack(values).words
    if kind == 3 and len(words):
        words = np.broadcast_to(words[:1], words.shape)
    else:
        words.flags.writeable = False
    return bo.BitArray.from_words(words, values.shape)


def plain(x: Any) -> Any:
    """An operand as reference functions take it."""
    if isinstance(x, bo.Prepacked):
        x = x.bits
    return np.array(x) if isinstance(x, bo.BitArray | np.ndarray) else x


def shape(reader: Reader, most: int = 5) -> tuple[int, ...]:
    """Any small shape."""
    sizes: tuple[int, ...] = ()
    for _ in range(reader.below(most + 1)):
        size = reader.choice(LONG)
        if np.prod((*sizes, size, 1)) <= MAX_SIZE:
            sizes = (*sizes, size)
    return sizes


def hostile(reader: Reader) -> Any:
    """What no one should pass, though it may happen to fit."""
    kind = reader.below(10)
    if kind == 0:
        return reader.choice((None, "", "same", "x", b"1", True, False, {}, set(), object, ...))
    if kind in (1, 2):
        return reader.choice(EDGES)
    if kind == 3:
        return reader.choice(NUMBERS + SPECIAL)
    if kind == 4:
        drawn = reader.choice(EXTREME), reader.choice(EXTREME)
        return reader.choice((drawn, list(drawn), (drawn, drawn), np.array(1), np.int8(-1), 1j))
    if kind == 5:
        return array(reader, shape(reader), FOREIGN)
    if kind == 6:
        return bits(reader, (*shape(reader, 4), reader.choice(LONG)))
    if kind == 7:
        return enormous(reader)
    if kind == 8:
        return reader.choice(([], [[]], [[1, 2], [3]], [None], [["a"]], [[1e400, 2]], [[10**400]]))
    return array(reader, shape(reader))


def enormous(reader: Reader) -> Any:
    """Bits or numbers with more elements than any memory, or none at all, and long axes."""
    one, rows = np.zeros(1, np.uint64), reader.choice((2**50, 2**57, 2**58))
    if reader.chance(2):
        k = reader.choice((2**45, 2**56))
        return bo.BitArray.from_words(np.broadcast_to(one, (0, k // 64)), (0, k))
    if reader.chance(2):
        return bo.BitArray.from_words(np.broadcast_to(one, (rows, 1)), (rows, 64))
    shape = reader.choice(((0, 2**45), (2**46, 3), (2**46, 1, 1, 3), (0, 2**24, 2**24, 3)))
    return np.lib.stride_tricks.as_strided(np.ones(1, np.float32), shape, (0,) * len(shape))
