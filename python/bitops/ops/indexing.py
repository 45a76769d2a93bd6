"""Index algebra of packed arrays: which axis of a result a part of an index becomes."""

from __future__ import annotations

from types import EllipsisType
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .. import _core
from .checks import is_integer, plain_array


def plain_index(where: str, name: str, x: ArrayLike) -> NDArray[Any]:
    """Return places or a mask as an array; refuse packed bits, which would be places 1 and -1."""
    if isinstance(x, _core.Bits):
        raise TypeError(
            f"[{where}] {name} must not be packed bits, whose values are +1 and -1, got a "
            f"{type(x).__name__}; np.asarray(b, bool) gives a mask, np.asarray(b) numbers"
        )
    return plain_array(where, name, x)


def _is_basic(item: Any) -> bool:
    """Tell whether an item of an index is basic in NumPy's sense: no array."""
    return item is None or isinstance(item, slice) or is_integer(item)


def _axes_taken(item: Any) -> int:
    """Count the axes that one item of an index takes; a mask takes as many as it has."""
    if item is None:
        return 0
    if _is_basic(item):
        return 1
    array = plain_index("BitArray", "an index", item)
    if array.dtype == np.bool_ and array.ndim == 0:
        raise IndexError(f"[BitArray] an index must not be one bool, got {item!r}; use a mask")
    return array.ndim if array.dtype == np.bool_ else 1


class Index(NamedTuple):
    """An index that names every axis."""

    items: tuple[Any, ...]
    dots: int | None  # the item before which '...' stood, or None


def expand_index(index: Any, ndim: int) -> Index:
    """Write an index so that it names every axis."""
    items = index if isinstance(index, tuple) else (index,)
    dots = [i for i, item in enumerate(items) if isinstance(item, EllipsisType)]
    if len(dots) > 1:
        raise IndexError("[BitArray] an index can hold one '...', got several")
    at = dots[0] if dots else len(items)
    rest = (*items[:at], *items[at + 1 :])
    missing = ndim - sum(_axes_taken(item) for item in rest)
    if missing < 0:
        raise IndexError(f"[BitArray] too many indices for {ndim} axes, got {index!r}")
    return Index((*rest[:at], *(slice(None),) * missing, *rest[at:]), at if dots else None)


def item_of_axis(items: tuple[Any, ...], axis: int) -> int:
    """Find the item that takes an axis."""
    taken = 0
    for place, item in enumerate(items):
        taken += _axes_taken(item)
        if taken > axis:
            return place
    raise AssertionError("an expanded index names every axis")


def result_axis(index: Index, place: int) -> int:
    """Find the axis of the result that the slice at `place` of an expanded index becomes."""
    items, dots = index
    kept = [place for place, item in enumerate(items) if item is None or isinstance(item, slice)]
    before = kept.index(place)
    if all(_is_basic(item) for item in items):
        return before
    # NumPy's rule: beside an index array, integers count as index arrays too. Their broadcast axes
    # stay in place if all of them are neighbours, and come first otherwise. '...' between two
    # parts them, even where it stands for no axis.
    taken = [place for place in range(len(items)) if place not in kept]
    neighbours = taken[-1] - taken[0] == len(taken) - 1
    if dots is not None and taken[0] < dots <= taken[-1]:
        neighbours = False
    arrays = np.broadcast(*(_positions(items[i]) for i in taken))
    return before if neighbours and place < taken[0] else before + arrays.ndim


def _positions(item: Any) -> NDArray[Any]:
    """Convert an index array to positions; a mask means those of its True elements."""
    array = np.asarray(item)
    return array.nonzero()[0] if array.dtype == np.bool_ else array
