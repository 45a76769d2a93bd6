"""Whether a call did what it must: its result, the memory it wrote to, and what it refused."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

import bitops as bo
from bitops import reference
from fuzz.operands import NOISE
from fuzz.reader import Reader

GUARD = 64  # bytes before and after an `out`, which nobody may write to
LONGEST = 2**31 - 1  # side of a padded image, of a kernel, and of every setting
# Those of the functions that take bits packed along any axis.
ANY_AXIS = ("matmul", "pack", "popcount", "majority", "unpack", "max_pool2d")
POOLS = ("max_pool2d", "avg_pool2d")


def assert_same(got: Any, wanted: Any, any_zero: bool = False) -> None:
    """Equal type, shape and values, and signs of zeros unless any will do; NaN equals NaN."""
    if isinstance(wanted, tuple):
        assert isinstance(got, tuple) and len(got) == len(wanted), f"got {got!r}"
        for one, other in zip(got, wanted, strict=True):
            assert_same(one, other)
    elif isinstance(got, bo.BitArray | bo.Prepacked):
        b = got if isinstance(got, bo.BitArray) else got.bits
        assert b.shape == wanted.shape, f"shape {b.shape}, wanted {wanted.shape}"
        words = reference.pack(wanted, b.axis)  # padding bits are 0 there
        assert np.array_equal(b.words, words), _difference(np.asarray(b), wanted)
    else:
        assert type(got) is type(wanted), f"{type(got)}, wanted {type(wanted)}"
        if isinstance(wanted, np.ndarray | np.generic):
            assert got.shape == wanted.shape, f"shape {got.shape}, wanted {wanted.shape}"
            assert got.dtype == wanted.dtype, f"{got.dtype}, wanted {wanted.dtype}"
            if got.tobytes() == wanted.tobytes():
                return
            is_float = got.dtype.kind == "f"
            assert np.array_equal(got, wanted, equal_nan=is_float), _difference(got, wanted)
            if is_float and not any_zero:
                sure = ~np.isnan(wanted)
                signs = np.signbit(got)[sure], np.signbit(wanted)[sure]
                assert np.array_equal(*signs), "zeros differ in their signs"
        else:
            assert got == wanted, f"{got!r}, wanted {wanted!r}"


def _difference(got: np.ndarray, wanted: np.ndarray) -> str:
    places = np.argwhere(np.asarray(got != wanted))
    if not len(places):
        return "padding bits are set"
    first = tuple(int(i) for i in places[0])
    return (
        f"{len(places)} of {wanted.size} elements differ, first at {first}: "
        f"{got[first]!r}, wanted {wanted[first]!r}"
    )


class Memory:
    """What operands hold; `assert_unchanged` compares it with what they hold then."""

    def __init__(self, operands: list[Any]):
        self._arrays = [words for x in operands if (words := memory_of(x)) is not None]
        self._before = [array.tobytes() for array in self._arrays]

    def assert_unchanged(self) -> None:
        for array, before in zip(self._arrays, self._before, strict=True):
            assert array.tobytes() == before, "an operand was changed"


def memory_of(x: Any) -> np.ndarray | None:
    """The numbers or words of an operand, unless there are enormously many."""
    if isinstance(x, bo.Prepacked):
        x = x.bits
    if isinstance(x, bo.BitArray):
        x = x.words
    is_array = isinstance(x, np.ndarray) and x.dtype != object
    return x if is_array and math.prod(x.shape) < 1e7 else None


class Out:
    """An array for a result, somewhere in memory whose other bytes must stay as they are."""

    def __init__(self, reader: Reader, wanted: np.ndarray):
        self._kind, self._shape, self._dtype = reader.below(6), wanted.shape, wanted.dtype
        self._memory = NOISE[: 2 * wanted.nbytes + 2 * GUARD + 8].copy()
        self.array = self._place(self._memory)

    def _place(self, memory: np.ndarray) -> np.ndarray:
        kind, shape, itemsize = self._kind, self._shape, self._dtype.itemsize
        offset = GUARD + (kind == 1)  # perhaps unaligned
        step = 2 * itemsize if kind == 2 else itemsize  # perhaps every second element
        axes = range(len(shape)) if kind == 3 else range(len(shape) - 1, -1, -1)
        strides = [0] * len(shape)
        for axis in axes:
            strides[axis] = step
            step *= max(shape[axis], 1)
        view = np.ndarray(shape, self._dtype, memory, offset, tuple(strides))
        return np.flip(view) if kind == 4 and shape else view

    def assert_others_unchanged(self) -> None:
        expected = NOISE[: self._memory.size].copy()
        self._place(expected)[...] = self.array
        assert np.array_equal(self._memory, expected), "bytes beside `out` were changed"


def over_operand(operand: Any, wanted: np.ndarray) -> np.ndarray | None:
    """An `out` that lies over an operand, if it can."""
    memory = memory_of(operand)
    if memory is None or not (memory.flags.c_contiguous and memory.flags.writeable):
        return None
    if memory.nbytes < wanted.nbytes or wanted.dtype.itemsize > memory.ctypes.data % 8 == 0:
        return None
    octets = np.asarray(memory).reshape(-1).view(np.uint8)[: wanted.nbytes]
    return octets.view(wanted.dtype).reshape(wanted.shape)


def refusal(name: str, signs: tuple[int, ...], arguments: list[Any], named: dict) -> str | None:
    """Why a call of drawn arguments must be refused; None if it must be answered."""
    operands = [*arguments, *named.values()]
    if any(isinstance(x, np.ma.MaskedArray) for x in operands):
        return "masked"
    for place in signs:
        reason = sign_refusal(name, place, arguments[place])
        if reason:
            return reason
    if name == "pack_above" and any(_has_nan(x) for x in arguments):
        return "NaN"
    if name in ("pack", "popcount") and named.get("axis") is not None:
        ndim = plain_shape(arguments[0]).ndim
        if not -ndim <= named["axis"] < ndim:
            return "axis"
    if name == "majority":
        ndim = plain_shape(arguments[0]).ndim
        if ndim < 2 or not -ndim <= named.get("axis", 0) < ndim:
            return "axis"
    if name == "hamming_topk" and not 1 <= arguments[2] <= plain_shape(arguments[1]).shape[0]:
        return "count"
    if name == "binarize_weights" and np.ndim(arguments[0]) < 2:
        return "axes"
    if name == "prepack":
        shape = plain_shape(arguments[0]).shape
        if len(shape) not in (2, 4) or 0 in shape[1:-1]:
            return "axes"
    return window_refusal(name, arguments, named)


def plain_shape(x: Any) -> Any:
    """An operand with `shape` and `ndim`."""
    if isinstance(x, bo.Prepacked):
        return x.bits
    return x if isinstance(x, bo.BitArray) else np.asarray(x)


def _has_nan(x: Any) -> bool:
    array = np.asarray(x)
    return array.dtype.kind == "f" and bool(np.isnan(array).any())


def sign_refusal(name: str, place: int, x: Any) -> str | None:
    """Why an operand that is packed by sign must be refused."""
    if isinstance(x, bo.Prepacked):
        fits = x.bits.ndim == (4 if "conv2d" in name else 2)
        return None if place == 1 and name != "matmul" and fits else "prepacked"
    if isinstance(x, bo.BitArray):
        if name == "binarize_weights":
            return "bits"
        return "axis" if x.axis != x.ndim - 1 and name not in ANY_AXIS else None
    if name == "unpack":
        return "numbers"
    array = np.asarray(x)
    if array.dtype.kind == "u":
        return "unsigned"
    return "NaN" if _has_nan(array) else None


def window_refusal(name: str, arguments: list[Any], named: dict[str, Any]) -> str | None:
    """Why windows over images must be refused."""
    if name == "global_avg_pool2d":
        return "pool" if 0 in np.shape(arguments[0])[1:3] else None
    if name in ("im2col", "k_map", *POOLS):
        kernel = arguments[1]
    elif "conv2d" in name:
        kernel = plain_shape(arguments[1]).shape[1:3]
    else:
        return None
    if name == "max_pool2d" and isinstance(arguments[0], bo.Prepacked):
        return "prepacked"
    x = plain_shape(arguments[0])
    if name == "max_pool2d" and isinstance(x, bo.BitArray) and x.axis != 3:
        return "axis"
    if name in POOLS and not isinstance(x, bo.BitArray) and x.dtype == np.bool_:
        return "bool"
    stride = named.get("stride", kernel if name in POOLS else 1)
    pairs = [_pair(item) for item in (kernel, stride, named.get("dilation", 1))]
    if max(map(max, pairs)) > LONGEST:
        return "setting"
    padding = named.get("padding", 0)
    for axis in (0, 1):
        size, (span, step, dilation) = x.shape[1 + axis], (pair[axis] for pair in pairs)
        window = (span - 1) * dilation + 1
        sides = _sides(padding, axis, size, window, step)
        if max(sides) > LONGEST or size + sum(sides) > LONGEST or window > LONGEST:
            return "setting"
        if window > size + sum(sides):
            return "window"
        if name in POOLS and (max(sides) >= span or size == 0):
            return "pool"
    return None


def _pair(item: Any) -> tuple[int, int]:
    return (item, item) if isinstance(item, int) else tuple(item)


def _sides(padding: Any, axis: int, size: int, window: int, step: int) -> tuple[int, int]:
    """What is added before and after the image."""
    if padding == "valid":
        return 0, 0
    if padding == "same":
        total = max(window + (math.ceil(size / step) - 1) * step - size, 0)
        return total // 2, total - total // 2
    return _pair(_pair(padding)[axis])
