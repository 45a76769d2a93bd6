"""Bits as the bytes of np.packbits: BitArray.from_packbits and BitArray.to_packbits."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import _core
from .checks import is_integer, plain_array
from .memory import MAX_BITS, WORD_BITS, aligned_empty, word_count

BYTE_BITS = 8
WORD_BYTES = WORD_BITS // BYTE_BITS


def words_of_bytes(packed: Any, count: Any, bitorder: Any) -> tuple[NDArray[np.uint64], int]:
    """Return words and the number of bits of a row, for the arguments of `from_packbits`."""
    _check_order("from_packbits", bitorder)
    octets = _octets(packed)
    k = _bit_count(count, octets.shape[-1] * BYTE_BITS)
    words = _view_words(octets) if bitorder == "little" else None
    if words is None or word_count(k) > words.shape[-1]:
        used = octets[..., : -(-k // BYTE_BITS)]
        _check_padding(octets[..., used.shape[-1] :], 0, k)
        words = _copy_words(used, word_count(k), bitorder)
    else:
        _check_padding(words[..., word_count(k) :], 0, k)
        words = words[..., : word_count(k)]
    if k % WORD_BITS:
        _check_padding(words[..., -1], k % WORD_BITS, k)
    return words, k


def bytes_of_words(words: NDArray[np.uint64], k: int, bitorder: Any) -> NDArray[np.uint8]:
    """Return rows of k bits, given as words, as the bytes that `to_packbits` gives."""
    _check_order("to_packbits", bitorder)
    n = -(-k // BYTE_BITS)
    packed = np.empty((*words.shape[:-1], n), np.uint8)
    if packed.size == 0:
        return packed
    if words.strides[-1] != WORD_BYTES:
        words = np.ascontiguousarray(words)
    octets = words.view(np.uint8)[..., :n]
    if bitorder == "little":
        packed[...] = octets
    else:
        rows = math.prod(packed.shape[:-1])
        _core.mirror_bytes(octets.reshape(rows, n), packed.reshape(rows, n))
    return packed


def _check_order(where: str, bitorder: Any) -> None:
    if not isinstance(bitorder, str):
        raise TypeError(f"[{where}] bitorder must be a str, got {bitorder!r:.80}")
    if bitorder not in ("big", "little"):
        raise ValueError(f'[{where}] bitorder must be "big" or "little", got {bitorder!r:.80}')


def _octets(packed: Any) -> NDArray[np.uint8]:
    """Return packed bytes as an array, without a copy where their owner allows it."""
    if isinstance(packed, np.ndarray):
        array = plain_array("from_packbits", "packed", packed)
    else:
        array = _foreign_octets(packed)
    if array.dtype != np.uint8:
        raise TypeError(f"[from_packbits] packed must hold uint8, got dtype {array.dtype}")
    if array.ndim == 0:
        raise ValueError("[from_packbits] packed must have at least one axis, got a scalar")
    return array.view(np.ndarray)


def _foreign_octets(packed: Any) -> NDArray[Any]:
    """Return the array of a buffer, of an object with __array__, or of one with __dlpack__."""
    try:
        buffer = memoryview(packed)
    except TypeError:
        if hasattr(packed, "__dlpack__") and not hasattr(packed, "__array__"):
            return np.from_dlpack(packed)
        return plain_array("from_packbits", "packed", packed)
    if buffer.format in ("b", "c"):  # bytes all the same: buffers of Arrow say "b"
        return np.asarray(buffer).view(np.uint8)
    return np.asarray(buffer)


def _bit_count(count: Any, available: int) -> int:
    """Return how many bits a row has, as np.unpackbits counts them."""
    if count is None:
        return available
    if not is_integer(count):
        raise TypeError(f"[from_packbits] count must be an integer or None, got {count!r:.80}")
    if count < -available:
        raise ValueError(
            f"[from_packbits] count must be at least -{available}, the bits of a row, got {count}"
        )
    if count > max(available, MAX_BITS):
        raise ValueError(f"[from_packbits] count must be at most {MAX_BITS}, got {count}")
    return int(count) if count >= 0 else available + int(count)


def _view_words(octets: NDArray[np.uint8]) -> NDArray[np.uint64] | None:
    """Return bytes as words in the same memory, or None if they are no aligned whole words."""
    if octets.size == 0 or octets.shape[-1] % WORD_BYTES or octets.strides[-1] != 1:
        return None
    words = octets.view(np.uint64)
    return words if words.flags.aligned else None


def _copy_words(octets: NDArray[np.uint8], n_words: int, bitorder: str) -> NDArray[np.uint64]:
    """Copy bytes to words; bits that they do not fill are 0."""
    *lead, n = octets.shape
    words = aligned_empty((*lead, n_words), np.uint64)
    words[..., n // WORD_BYTES :] = 0
    if octets.size == 0:
        return words
    target = words.view(np.uint8)
    if bitorder == "little":
        target[..., :n] = octets
    else:
        rows = math.prod(lead)
        if n > 1 and octets.strides[-1] != 1:
            octets = np.ascontiguousarray(octets)
        target = target.reshape(rows, n_words * WORD_BYTES)
        _core.mirror_bytes(octets.reshape(rows, n), target[:, :n])
    return words


def _check_padding(values: NDArray[Any], shift: int, k: int) -> None:
    """Refuse bits of a row after the last of its k; the largest value has one if any has."""
    if values.size and int(values.max()) >> shift:
        raise ValueError(
            f"[from_packbits] bits after element {k - 1} must be 0, got set ones: count or "
            "bitorder may be wrong"
        )
