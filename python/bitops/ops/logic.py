"""Logic on packed bits, with NumPy's broadcasting, and the ufuncs of NumPy that mean it.

A block of words is combined, inverted and masked while it is in the cache, so that the memory is
read and written once.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from .. import _core
from .memory import WORD_BITS, aligned_empty, word_count
from .packing import blocks, repack

BLOCK_WORDS = 1 << 15  # 256 KiB; of three operands in the second cache, none drives out another

LARGE_WORDS = 1 << 24  # of a result, 128 MiB: no cache holds it, so it is written past them
_LARGE = {
    (np.bitwise_and, False): _core.AND,
    (np.bitwise_or, False): _core.OR,
    (np.bitwise_xor, False): _core.XOR,
    (np.bitwise_xor, True): _core.XNOR,
    (np.invert, False): _core.NOT,
}

_Bits = TypeVar("_Bits", bound=_core.Bits)
_Words = NDArray[np.uint64]


def bit_and(a: _Bits, b: _Bits) -> _Bits:
    """Compute AND of the bits: the smaller of two values."""
    return _combine(np.bitwise_and, a, b)


def bit_or(a: _Bits, b: _Bits) -> _Bits:
    """Compute OR of the bits: the larger of two values."""
    return _combine(np.bitwise_or, a, b)


def bit_xor(a: _Bits, b: _Bits) -> _Bits:
    """Compute XOR of the bits: the negated product of two values."""
    return _combine(np.bitwise_xor, a, b)


def product(a: _Bits, b: _Bits) -> _Bits:
    """Compute XNOR of the bits: the product of two values."""
    return _combine(np.bitwise_xor, a, b, inverted=True)


def negated(b: _Bits) -> _Bits:
    """Compute NOT of the bits: the negated values."""
    words = aligned_empty(b._words.shape, np.uint64)
    _fill(words, np.invert, (b._words,), False, b.shape[b.axis] % WORD_BITS)
    return b._make(words, b.shape, b.axis)


def _bit_counts(b: _Bits) -> NDArray[np.uint8]:
    """Count the 1 bits of each element, of which there are none or one."""
    return np.asarray(b, np.bool_).view(np.uint8)


UFUNCS: dict[Any, Callable[..., Any]] = {
    np.multiply: product,
    np.negative: negated,
    np.bitwise_and: bit_and,
    np.bitwise_or: bit_or,
    np.bitwise_xor: bit_xor,
    np.invert: negated,
    np.bitwise_count: _bit_counts,
}


def _combine(function: np.ufunc, a: _Bits, b: _Bits, inverted: bool = False) -> _Bits:
    """Combine the bits of two arrays that are broadcast against each other.

    The result is packed like the operand with more elements, of equal ones like the first; the
    other is packed anew if need be.
    """
    try:
        shape = np.broadcast_shapes(a.shape, b.shape)
    except ValueError:
        raise ValueError(
            f"[BitArray] shapes must broadcast against each other, got {a.shape} and {b.shape}"
        ) from None
    a, b = _lifted(a, len(shape)), _lifted(b, len(shape))
    axis = (b if math.prod(b.shape) > math.prod(a.shape) else a).axis
    a, b = repack(a, axis), repack(b, axis)
    k = shape[axis]
    operands = tuple(_spread(x, k) for x in (a, b))
    words = aligned_empty((*shape[:axis], *shape[axis + 1 :], word_count(k)), np.uint64)
    is_masked = inverted or a.shape[axis] != b.shape[axis]
    _fill(words, function, operands, inverted, k % WORD_BITS if is_masked else 0)
    return a._make(words, shape, axis)


def _lifted(b: _Bits, ndim: int) -> _Bits:
    """Return the array with so many axes, of which new ones come first."""
    new = (1,) * (ndim - b.ndim)
    if not new:
        return b
    return b._make(b._words.reshape(*new, *b._words.shape), (*new, *b.shape), b.axis + len(new))


def _spread(b: _core.Bits, k: int) -> _Words:
    """Return words that NumPy broadcasts to rows of k bits, of which only they may be right."""
    words = b._words
    return words if b.shape[b.axis] == k else np.negative(words)  # of one bit: 64 equal ones


def _fill(
    words: _Words, function: np.ufunc, operands: tuple[_Words, ...], inverted: bool, rest: int
) -> None:
    """Apply a function of words, invert the result, and zero all but `rest` bits of last words."""
    if words.size >= LARGE_WORDS and all(
        x.shape == words.shape and x.flags.c_contiguous for x in operands
    ):
        k_words = words.shape[-1]
        a, b, out = (x.reshape(-1, k_words) for x in (operands[0], operands[-1], words))
        k = k_words * WORD_BITS - -rest % WORD_BITS
        _core.combine(_LARGE[function, inverted], a, b, k, out)
        return
    if words.size <= BLOCK_WORDS or not (inverted or rest):
        _fill_block(words, function, operands, inverted, rest)
        return
    operands = tuple(np.broadcast_to(x, words.shape) for x in operands)
    for index in blocks(words.shape, BLOCK_WORDS):
        is_last = index[-1].stop == words.shape[-1]
        parts = tuple(x[index] for x in operands)
        _fill_block(words[index], function, parts, inverted, rest if is_last else 0)


def _fill_block(
    words: _Words, function: np.ufunc, operands: tuple[_Words, ...], inverted: bool, rest: int
) -> None:
    function(*operands, out=words)
    if inverted:
        np.invert(words, out=words)
    if rest:
        words[..., -1] &= np.uint64((1 << rest) - 1)
