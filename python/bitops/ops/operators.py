"""The operators of a BitArray, and what NumPy's functions make of one."""

from __future__ import annotations

from typing import Any, TypeVar

import numpy as np

from .. import _core
from .joining import FUNCTIONS
from .logic import UFUNCS, bit_and, bit_or, bit_xor, negated, product

_Self = TypeVar("_Self", bound="Operators")

# What has no bits: an operator between it and a BitArray is a mistake that can be explained.
NUMBERS = np.ndarray | np.generic | list | tuple | int | float


class Operators(_core.Bits):
    """Logic on bits, and the protocols by which NumPy asks whether its functions can have them."""

    __slots__ = ()

    def __mul__(self: _Self, other: Any) -> _Self:
        return product(self, other) if _is_bits("*", other) else NotImplemented

    def __and__(self: _Self, other: Any) -> _Self:
        return bit_and(self, other) if _is_bits("&", other) else NotImplemented

    def __or__(self: _Self, other: Any) -> _Self:
        return bit_or(self, other) if _is_bits("|", other) else NotImplemented

    def __xor__(self: _Self, other: Any) -> _Self:
        return bit_xor(self, other) if _is_bits("^", other) else NotImplemented

    def __neg__(self: _Self) -> _Self:
        return negated(self)

    def __invert__(self: _Self) -> _Self:
        return negated(self)

    def __array_ufunc__(self, function: Any, method: str, *inputs: Any, **options: Any) -> Any:
        """Compute the ufuncs that mean logic on bits, and refuse the others."""
        name = function.__name__
        if method != "__call__":
            raise TypeError(f"[BitArray] np.{name}.{method} does not take packed bits{_ADVICE}")
        all_bits = all(isinstance(x, _core.Bits) for x in inputs)
        if function in UFUNCS:
            if not all_bits:
                others = (type(x).__name__ for x in inputs if not isinstance(x, _core.Bits))
                raise TypeError(
                    f"[BitArray] np.{name} takes BitArrays alone, got {next(others)}{_PACK}"
                )
            if options:
                raise TypeError(
                    f"[BitArray] np.{name} of packed bits takes no {next(iter(options))}, got one"
                )
            return UFUNCS[function](*inputs)
        if not isinstance(inputs[0], _core.Bits) and not options:  # an array beside an operator
            if function is np.matmul:
                return self.__rmatmul__(inputs[0])  # type: ignore[attr-defined]
            if function in (np.equal, np.not_equal):
                return self == inputs[0]  # which says what to write
        raise TypeError(f"[BitArray] np.{name} does not take packed bits{_ADVICE}")

    def __array_function__(
        self, function: Any, types: Any, arguments: tuple[Any, ...], options: dict[str, Any]
    ) -> Any:
        """Refuse the functions of NumPy but a few: as int8 their results would wrap around."""
        ours = FUNCTIONS.get(function)
        if ours is not None:
            return ours(*arguments, **options)
        raise TypeError(f"[BitArray] np.{function.__name__} does not take packed bits{_ADVICE}")


_ADVICE = "; use @ or bitops.matmul for products, and np.asarray(b, dtype) for the values"
_PACK = "; pack(x) makes bits of numbers, and np.asarray(b) numbers of bits"


def _is_bits(operator: str, other: Any) -> bool:
    """Tell whether an operand is bits; refuse numbers."""
    if isinstance(other, NUMBERS):
        raise TypeError(
            f"[BitArray] {operator} takes two BitArrays, got {type(other).__name__}{_PACK}"
        )
    return isinstance(other, _core.Bits)
