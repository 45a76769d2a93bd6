"""The functions of NumPy that join, move and choose elements, of packed bits.

Parameters are those of NumPy. Along other axes than the packed one whole words are moved, along the
packed axis bits are, in one pass through the memory.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from .. import _core
from .checks import normalize_axis
from .indexing import plain_index
from .memory import aligned_empty, word_count
from .packing import contiguous_rows, repack, sign_words

MIN_ROWS = 8  # of a transposition; bits of fewer rows are bytes meanwhile, which takes less memory
MANY_WORDS, LINE_WORDS = 1 << 15, 8  # of all rows, of a row: NumPy takes fewer ones as fast

_Bits = TypeVar("_Bits", bound=_core.Bits)
_Words = NDArray[np.uint64]
_Mode = Literal["raise", "wrap", "clip"]


def _array_equal(a: Any, b: Any, equal_nan: bool = False) -> bool:
    """Tell whether shapes and elements are equal; one of the two may be an array of numbers."""
    if isinstance(a, _core.Bits) and isinstance(b, _core.Bits):
        return bool(a == b)
    a, b = (np.asarray(x) if isinstance(x, _core.Bits) else x for x in (a, b))
    return np.array_equal(a, b, equal_nan=equal_nan)


def _size(a: Any, axis: Any = None) -> int:
    """Count the elements along axes, by default all."""
    return a.size if axis is None else math.prod(a.shape[i] for i in _axes("size", axis, a.ndim))


def _axes(where: str, axis: Any, ndim: int) -> list[int]:
    """Check an axis, or several that differ."""
    given = axis if isinstance(axis, tuple | list) else (axis,)
    axes = [normalize_axis(where, one, ndim) for one in given]
    if len(set(axes)) < len(axes):
        raise ValueError(f"[{where}] axes must differ, got {axis}")
    return axes


def _concatenate(
    arrays: Sequence[Any], axis: int | None = 0, out: Any = None, **options: Any
) -> Any:
    """Join arrays along an axis; the result is packed as the first of them."""
    first, *others = parts = _all_bits("concatenate", arrays, {"out": out, **options})
    if axis is None:
        values = np.concatenate([np.ravel(np.asarray(part, np.bool_)) for part in parts])
        return _packed(first, values, 0)
    axis = normalize_axis("concatenate", axis, first.ndim)
    rest = first.shape[:axis] + first.shape[axis + 1 :]
    for part in others:
        if part.ndim != first.ndim or part.shape[:axis] + part.shape[axis + 1 :] != rest:
            raise ValueError(
                f"[concatenate] shapes must be equal but for axis {axis}, got {first.shape} "
                f"and {part.shape}"
            )
    parts = [repack(part, first.axis) for part in parts]
    if axis != first.axis:
        words = np.concatenate([part._words for part in parts], axis - (axis > first.axis))
    else:
        words = _joined(parts)
    size = sum(part.shape[axis] for part in parts)
    return first._make(words, (*first.shape[:axis], size, *first.shape[axis + 1 :]), first.axis)


def _joined(parts: Sequence[_core.Bits]) -> NDArray[np.uint64]:
    """Return the words of rows that consist of the rows of all parts."""
    sizes = [part.shape[part.axis] for part in parts]
    lead = parts[0]._words.shape[:-1]
    words = np.zeros((*lead, word_count(sum(sizes))), np.uint64)
    out = words.reshape(math.prod(lead), words.shape[-1])
    to = 0
    for part, size in zip(parts, sizes, strict=True):
        _core.copy_bits(contiguous_rows(part), 0, size, out, to)
        to += size
    return words


def _stack(arrays: Sequence[Any], axis: int = 0, out: Any = None, **options: Any) -> Any:
    """Join arrays along a new axis; the result is packed as the first of them."""
    first, *others = parts = _all_bits("stack", arrays, {"out": out, **options})
    axis = normalize_axis("stack", axis, first.ndim + 1)
    for part in others:
        if part.shape != first.shape:
            raise ValueError(f"[stack] shapes must be equal, got {first.shape} and {part.shape}")
    packed = first.axis + (axis <= first.axis)
    words = [repack(part, first.axis)._words for part in parts]
    shape = (*first.shape[:axis], len(parts), *first.shape[axis:])
    return first._make(np.stack(words, axis - (axis > packed)), shape, packed)


def _take(
    a: Any, indices: Any, axis: int | None = None, out: Any = None, mode: _Mode = "raise"
) -> Any:
    """Choose elements along an axis."""
    (b,) = _all_bits("take", [a], {"out": out})
    places = plain_index("take", "indices", indices)
    if not places.size and not isinstance(indices, np.ndarray):  # an empty list is float64
        places = places.astype(np.intp)
    if axis is None:
        return _packed(b, np.take(np.asarray(b, np.bool_), places, mode=mode), places.ndim - 1)
    axis = normalize_axis("take", axis, b.ndim)
    shape = (*b.shape[:axis], *places.shape, *b.shape[axis + 1 :])
    if axis != b.axis:
        words = _taken(b._words, places, axis - (axis > b.axis), mode)
        return b._make(words, shape, b.axis + (places.ndim - 1 if axis < b.axis else 0))
    other = max((i for i in range(b.ndim) if i != axis), key=lambda i: b.shape[i], default=None)
    packed = axis + places.ndim - 1  # the last of the new axes
    if other is None or b.shape[other] < MIN_ROWS:
        values = np.take(np.asarray(b, np.bool_), places, axis, mode=mode)
        return _packed(b, values, packed if places.ndim else values.ndim - 1)
    taken = _take(repack(b, other), places, axis, mode=mode)
    return repack(taken, packed) if places.ndim else taken


def _taken(words: NDArray[np.uint64], places: NDArray[Any], axis: int, mode: _Mode) -> _Words:
    """Choose words along an axis; many rows of a matrix by a loop that asks for them beforehand."""
    has_rows = words.ndim == 2 and axis == 0 and words.flags.c_contiguous and len(words) > 0
    k_words = words.shape[-1]
    is_worth = k_words >= LINE_WORDS and places.size * k_words >= MANY_WORDS
    if has_rows and is_worth and mode == "raise" and np.can_cast(places.dtype, np.int64):
        taken = aligned_empty((places.size, k_words), np.uint64)
        if _core.take_rows(words, np.ascontiguousarray(places, np.int64).reshape(-1), taken):
            return taken.reshape(*places.shape, k_words)
    return np.take(words, places, axis, mode=mode)


def _roll(a: Any, shift: Any, axis: Any = None) -> Any:
    """Move elements along axes; those that leave at the end come in at the beginning."""
    (b,) = _all_bits("roll", [a], {})
    shifts = plain_index("roll", "shift", shift)
    try:
        list(map(int, shifts.flat))
    except (OverflowError, TypeError, ValueError):
        raise TypeError(f"[roll] shift must hold integers, got {shift!r:.80}") from None
    if axis is None:
        return _packed(b, np.roll(np.asarray(b, np.bool_), shift), b.axis)
    steps = np.broadcast(shift, axis)
    if steps.ndim > 1:
        raise ValueError(f"[roll] shift and axis must be numbers or 1-d, got {steps.ndim} axes")
    for step, one in steps:
        b = _roll_axis(b, int(step), normalize_axis("roll", one, b.ndim))
    return b


def _roll_axis(b: _Bits, shift: int, axis: int) -> _Bits:
    if axis != b.axis:
        return b._make(np.roll(b._words, shift, axis - (axis > b.axis)), b.shape, b.axis)
    cut = -shift % b.shape[axis] if b.shape[axis] else 0
    if cut == 0:
        return b._make(b._words.copy(), b.shape, axis)
    rows = contiguous_rows(b)
    words = aligned_empty(b._words.shape, np.uint64)
    _core.roll_bits(rows, b.shape[axis], cut, words.reshape(rows.shape))
    return b._make(words, b.shape, axis)


def _flip(m: Any, axis: Any = None) -> Any:
    """Reverse the order of elements along axes, by default along all."""
    (b,) = _all_bits("flip", [m], {})
    axes = list(range(b.ndim)) if axis is None else _axes("flip", axis, b.ndim)
    words = np.flip(b._words, tuple(one - (one > b.axis) for one in axes if one != b.axis))
    flipped = b._make(words, b.shape, b.axis)
    return _flip_packed(flipped) if b.axis in axes else flipped


def _flip_packed(b: _Bits) -> _Bits:
    rows = contiguous_rows(b)
    words = aligned_empty(b._words.shape, np.uint64)
    _core.flip_bits(rows, b.shape[b.axis], words.reshape(rows.shape))
    return b._make(words, b.shape, b.axis)


def _all_bits(name: str, arrays: Any, options: dict[str, Any]) -> list[Any]:
    """Return arrays that are all packed; refuse others, and keywords."""
    if not hasattr(arrays, "__getitem__"):  # a generator, which NumPy has already used up
        raise TypeError(f"[{name}] arrays must be a sequence, got {type(arrays).__name__}")
    parts = list(arrays)
    for x in parts:
        if not isinstance(x, _core.Bits):
            raise TypeError(
                f"[BitArray] np.{name} takes BitArrays alone, got {type(x).__name__}; "
                "pack(x) makes bits of numbers, and np.asarray(b) numbers of bits"
            )
    for key, value in options.items():
        if value is not None:  # NumPy's own default
            kind = type(value).__name__
            got = f"{kind} of shape {value.shape}" if hasattr(value, "shape") else kind
            raise TypeError(f"[BitArray] np.{name} of packed bits takes no {key}, got {got}")
    return parts


def _packed(like: _Bits, values: NDArray[np.bool_], axis: int) -> _Bits:
    """Pack bools; for what has no fast way."""
    if values.ndim == 0:
        raise IndexError("[BitArray] one element has no axis to be packed along; use np.asarray(b)")
    words, _ = sign_words(values, axis)
    return like._make(words, values.shape, axis)


# What NumPy's functions do with BitArrays; all others are refused.
FUNCTIONS: dict[Any, Callable[..., Any]] = {
    np.shape: lambda a: a.shape,
    np.ndim: lambda a: a.ndim,
    np.size: _size,
    np.copy: lambda a, order="K", subok=False: a.copy(),
    np.array_equal: _array_equal,
    np.concatenate: _concatenate,
    np.stack: _stack,
    np.take: _take,
    np.roll: _roll,
    np.flip: _flip,
}
