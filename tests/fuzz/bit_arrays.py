"""Target: `BitArray.from_words`, `from_packbits`, and what can be done with the arrays then."""

from __future__ import annotations

import copy
import pickle
from typing import Any, NamedTuple

import numpy as np

import bitops as bo
from fuzz.reader import EDGES, Reader, allowed

COUNTS = tuple(edge for edge in EDGES if abs(edge) < 1000 or abs(edge) >= 2**31)  # no gigabytes
LENGTHS = (0, 1, 2, 3, 5, 63, 64, 65, 130)


class Call(NamedTuple):
    """Words, and operations on the array that adopts them; all are drawn as they are made."""

    name: str = "BitArray"

    def make(self, reader: Reader) -> str:
        """Adopt words, and check what comes of a few operations."""
        if reader.chance(4):
            return _packbits(reader)
        shape, words = _words(reader)
        given = _forged_shape(reader, shape)
        b = None
        with allowed(MemoryError):
            b = bo.BitArray.from_words(words, given)
        if b is None:
            return "refused"
        x = _values(b)
        for _ in range(4):
            if reader.is_empty:
                break
            b, x = _step(reader, b, x)
        if b.size:
            assert np.array_equal(bo.unpack(b), x)
        return "equal"


def draw(reader: Reader) -> Call:
    reader.byte()  # that of the name, as in other modules
    return Call()


def run(data: bytes) -> None:
    Call().make(Reader(data))


def _words(reader: Reader) -> tuple[tuple[int, ...], Any]:
    """A logical shape and words that fit it, in any dtype and layout."""
    shape = (*(reader.below(4) for _ in range(reader.below(3))), reader.choice(LENGTHS))
    k = shape[-1]
    words = np.zeros((*shape[:-1], -(-k // 64)), np.uint64)
    drawn = np.frombuffer(reader.take(min(words.nbytes, 64)).ljust(words.nbytes, b"\x5a"), np.uint8)
    words.view(np.uint8).reshape(-1)[...] = drawn[: words.nbytes]
    if k % 64 and not reader.chance(8):
        words[..., -1] &= np.uint64(2 ** (k % 64) - 1)
    kind = reader.below(10)
    if kind == 0:
        return shape, words.astype(reader.choice((">u8", "i8", "f8", "u4", "?", "O")))
    if kind == 1:
        return shape, words.tolist()
    if kind == 2:
        return shape, np.repeat(words, 2, axis=0)[::2]
    if kind == 3:
        return shape, words[..., ::-1].copy()[..., ::-1]
    if kind == 4:
        words.flags.writeable = False
    elif kind == 5:
        raw = np.zeros(words.nbytes + 1, np.uint8)
        raw[1:] = words.view(np.uint8).reshape(-1)
        return shape, raw[1:].view(np.uint64).reshape(words.shape)
    elif kind == 6:
        return shape, np.broadcast_to(words[:1], words.shape)
    elif kind == 7:
        return shape, words.view(np.ma.MaskedArray)
    return shape, words


def _packbits(reader: Reader) -> str:
    """Take bytes of any layout, with arguments that mostly fit, and compare with np.unpackbits."""
    lead = tuple(reader.below(4) for _ in range(reader.below(3)))
    octets = np.zeros((*lead, reader.choice((1, 2, 7, 8, 9, 16, 24, 0))), np.uint8)
    if not reader.chance(3):
        drawn = reader.take(min(octets.size, 64)).ljust(octets.size, b"\x5a")
        octets.reshape(-1)[...] = np.frombuffer(drawn, np.uint8)
    kind = reader.below(8)
    packed: Any = octets
    if kind == 0:
        packed = np.repeat(octets, 2, axis=-1)[..., ::2]
    elif kind == 1:
        packed = octets[..., ::-1].copy()[..., ::-1]
    elif kind == 2:
        packed = memoryview(octets)
    elif kind == 3:
        packed = reader.choice((octets.tolist(), octets.astype("i2"), octets.view("S1"), None, "a"))
    count = reader.choice((None, None, 8 * octets.shape[-1], -1, 3, 200, True, 1.0, *COUNTS))
    order = reader.choice(("big", "little", "big", "little", "Big", 1, None))
    b = None
    with allowed(MemoryError):
        b = bo.BitArray.from_packbits(packed, count, bitorder=order)
    if b is None:
        return "refused"
    if b.size and octets.size:
        bits = np.unpackbits(octets, axis=-1, count=count, bitorder=order)
        assert np.array_equal(bo.unpack(b), _signs(bits))
    assert np.array_equal(bo.BitArray.from_words(b.words, b.shape).words, b.words)
    return "equal"


def _forged_shape(reader: Reader, shape: tuple[int, ...]) -> Any:
    if not reader.chance(3):
        return shape
    forged: list[Any] = list(shape)
    for _ in range(1 + reader.below(2)):
        place = reader.below(len(forged))
        edit = reader.below(5)
        if edit == 0:
            forged.insert(place, reader.choice(EDGES))
        elif edit == 1:
            forged[place] = reader.choice((None, 1.0, "3", True, np.int64(3), np.float32(2), []))
        else:
            forged[place] = reader.choice(EDGES)
    return reader.choice((forged, tuple(forged), forged[0], np.array(1), None, "12"))


def _values(b: bo.BitArray) -> np.ndarray:
    """+1 and -1 by NumPy alone."""
    words = np.ascontiguousarray(b.words)
    k = b.shape[b.axis]
    octets = words.view(np.uint8).reshape(*words.shape[:-1], words.shape[-1] * 8)
    bits = np.unpackbits(octets, axis=-1, count=k, bitorder="little") if octets.size else None
    shape = (*words.shape[:-1], k)
    values = np.zeros(shape, np.int8) if bits is None else bits.astype(np.int8) * 2 - 1
    return np.moveaxis(values, -1, b.axis)


def _index(reader: Reader, ndim: int) -> Any:
    """One item of an index, or several."""

    def item() -> Any:
        kind = reader.below(9)
        if kind < 3:
            return slice(None)
        if kind == 3:
            ends = (None, 0, 1, -1, 2, -3, 10**12)
            return slice(reader.choice(ends), reader.choice(ends), reader.choice((None, 1, -1, 2)))
        if kind == 4:
            return reader.choice((0, 1, -1, 2, -4, 2**62, -(2**70)))
        if kind == 5:
            return reader.choice((None, Ellipsis))
        if kind == 6:
            return [reader.below(4) - 1 for _ in range(reader.below(4))]
        if kind == 7:
            return np.array([reader.below(2) == 1 for _ in range(reader.below(4))], bool)
        odd = (True, 1.0, "a", np.int8(1), np.zeros((2, 1), int), np.True_, [[True]], {}, b"0")
        return reader.choice(odd)

    if reader.chance(4):
        return item()
    return tuple(item() for _ in range(reader.below(ndim + 2)))


def _signs(bits: np.ndarray) -> np.ndarray:
    return bits.astype(np.int8) * 2 - 1


def _step(reader: Reader, b: bo.BitArray, x: np.ndarray) -> tuple[bo.BitArray, np.ndarray]:
    """One operation on both; the values that BitArray is to have afterwards."""
    kind = reader.below(14)
    if kind == 0:
        return b.T, x.T
    if kind == 9:
        order = reader.choice(("big", "little"))
        packed = np.packbits(x > 0, axis=b.axis, bitorder=order)
        assert np.array_equal(b.to_packbits(bitorder=order), packed), "to_packbits"
        rows, k = np.moveaxis(packed, b.axis, -1), b.shape[b.axis]
        back = bo.BitArray.from_packbits(rows, k, bitorder=order)
        assert np.array_equal(bo.unpack(back), np.moveaxis(x, b.axis, -1)), "from_packbits"
        return b, x
    if kind == 10:
        operation = reader.choice((np.multiply, np.bitwise_xor, np.bitwise_and, np.bitwise_or))
        other = bo.pack(b, reader.below(b.ndim))
        made, bits = operation(-b, other), x > 0
        return made, -x * x if operation is np.multiply else _signs(operation(~bits, bits))
    if kind == 11:
        axis, shift = reader.choice((None, 0, 1, -1, 5)), reader.choice((0, 1, -3, 64, 2**40))
        with allowed():
            return np.roll(b, shift, axis), np.roll(x, shift, axis)
        return b, x
    if kind == 12:
        axis = reader.choice((None, 0, 1, -1, 5))
        with allowed():
            return np.flip(b, axis), np.flip(x, axis)
        return b, x
    if kind == 13 and x.size < 10_000:
        axis = reader.choice((0, 1, -1, 5))
        join = reader.choice((np.concatenate, np.stack))
        with allowed():
            other = bo.pack(b, reader.below(b.ndim))
            return join([b, -other], axis), join([x, -x], axis)
        return b, x
    if kind == 1:
        return pickle.loads(pickle.dumps(b)), x
    if kind == 2:
        return copy.copy(b.copy()), x
    if kind == 3:
        with allowed(MemoryError):
            shape = [reader.choice((-1, 0, 1, 2, 3, 2**62, -2, x.size)) for _ in range(2)]
            shape = [*shape[: reader.below(3)], reader.choice((b.shape[-1], -1, 3))]
            made = b.reshape(shape)
            return made, x.reshape(made.shape)
        return b, x
    if kind == 4:
        with allowed():
            axis = reader.choice((None, 0, 1, -1, 2, 3, 2**70, True, 1.0))
            counts = bo.popcount(b, axis)
            assert np.array_equal(counts, (x > 0).sum(axis)), "popcount"
        return b, x
    if kind == 5:
        with allowed():
            axis = reader.choice((0, 1, 2, -1, -4))
            return bo.pack(b, axis), x
        return b, x
    if kind == 6:
        with allowed():
            dtype = np.dtype(reader.choice(("?", "i1", "i8", "f2", "f8", "u1", "O", "S1", "M8[s]")))
            assert np.array_equal(bo.unpack(b, dtype), x > 0 if dtype.kind == "b" else x)
        return b, x
    index = _index(reader, b.ndim)
    made = None
    with allowed(IndexError):
        made = b[index]
    return (b, x) if made is None else (made, x[index])
