"""Windows of convolutions and pools: checks of their settings, and the positions they see."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

from .checks import is_integer, is_plain

Pair = tuple[int, int]
Padding = int | Pair | tuple[Pair, Pair] | str  # see `make_window`

MAX_SIZE = 2**31 - 1  # height or width of a padded image or a kernel
MAX_ELEMENTS = 2**59  # of a result


class Window(NamedTuple):
    """The windows of one convolution or pool; each pair is (height, width).

    At tap (ky, kx), output position (oy, ox) sees this image position, which may lie outside::

        (oy * stride[0] + ky * dilation[0] - padding[0][0],
         ox * stride[1] + kx * dilation[1] - padding[1][0])

    For example, along an axis of 5 positions with 1 more on each side, a kernel of 3 taps a, b, c
    and stride 2 give 3 output positions::

        image      (-1)  0   1   2   3   4  (5)
        output 0     a   b   c
        output 1             a   b   c
        output 2                     a   b   c
    """

    image: Pair
    kernel: Pair
    stride: Pair
    padding: tuple[Pair, Pair]  # (top, bottom), (left, right)
    dilation: Pair
    output: Pair

    @property
    def taps(self) -> int:
        """Number of taps (positions) of the kernel."""
        return self.kernel[0] * self.kernel[1]

    @property
    def is_padded(self) -> bool:
        """Whether positions were added around the image."""
        return self.padding != ((0, 0), (0, 0))


def make_window(
    where: str,
    image: Pair,
    kernel_size: Any,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
) -> Window:
    """Check the settings of a convolution or pool, and return its windows.

    Parameters
    ----------
    where : str
        Name of the called function, for error messages.
    image : (int, int)
        Height and width.
    kernel_size, stride, dilation : int or (height, width), at least 1
        One number is used for both directions.
    padding : int, (height, width), ((top, bottom), (left, right)), "same" or "valid"
        Positions added around the image, at least 0. "valid" adds none. "same" adds as many as the
        output needs to have ``ceil(image / stride)`` positions; if their number is odd, the bottom
        or right side gets one more.

    Returns
    -------
    Window

    Raises
    ------
    TypeError
        If a setting has a wrong type.
    ValueError
        If a setting is too small, the kernel exceeds the padded image, or a length exceeds
        ``2**31 - 1``.
    """
    settings = where, image, kernel_size, stride, padding, dilation
    return (_known_window if is_plain(settings) else _make_window)(*settings)


def _make_window(
    where: str,
    image: Pair,
    kernel_size: Any,
    stride: Any,
    padding: Any,
    dilation: Any,
) -> Window:
    """Do the work of `make_window`, which caches the results."""
    kernel = _pair(where, "kernel_size", kernel_size, 1)
    strides = _pair(where, "stride", stride, 1)
    dilations = _pair(where, "dilation", dilation, 1)
    spans = tuple((k - 1) * d + 1 for k, d in zip(kernel, dilations, strict=True))
    sides = _padding(where, padding, image, spans, strides)
    output = []
    for name, size, side, span, step in zip(
        ("height", "width"), image, sides, spans, strides, strict=True
    ):
        padded = size + sum(side)
        if padded > MAX_SIZE or span > MAX_SIZE:
            raise ValueError(
                f"[{where}] the padded {name} and the {name} of the kernel must be at most "
                f"{MAX_SIZE}, got {padded} and {span}"
            )
        if span > padded:
            raise ValueError(
                f"[{where}] the kernel must fit the padded image, got {name} {span} "
                f"(dilation included) in {padded}"
            )
        output.append((padded - span) // step + 1)
    return Window(image, kernel, strides, sides, dilations, (output[0], output[1]))


# These checks take as long as the pooling of a small image, and networks repeat their settings.
_known_window = functools.lru_cache(maxsize=256)(_make_window)


def check_result(where: str, shape: Sequence[int]) -> None:
    """Check that NumPy can make an array of this shape, with elements of up to 8 bytes.

    NumPy's limit applies to the product of all sizes that are not 0, even if one size is 0.
    """
    if math.prod(shape) > MAX_ELEMENTS or (
        0 in shape and math.prod(size for size in shape if size) > MAX_ELEMENTS
    ):
        raise ValueError(
            f"[{where}] the result must have at most {MAX_ELEMENTS} elements, "
            f"got shape {tuple(shape)}"
        )


def _integer(value: Any) -> int | None:
    """Convert an integer to a plain int, and anything else, bool included, to None."""
    return int(value) if is_integer(value) else None


def _pair(where: str, name: str, value: Any, least: int) -> Pair:
    """Check an integer or a pair of them, and return the pair (height, width)."""
    one = _integer(value)
    items: tuple[Any, ...] = (one, one)
    if one is None:
        items = tuple(value) if isinstance(value, (tuple, list)) else ()
        items = tuple(_integer(item) for item in items)
    if len(items) != 2 or None in items:
        raise TypeError(f"[{where}] {name} must be an integer or a pair of them, got {value!r}")
    if min(items) < least:
        raise ValueError(f"[{where}] {name} must be at least {least}, got {value!r}")
    if max(items) > MAX_SIZE:
        raise ValueError(f"[{where}] {name} must be at most {MAX_SIZE}, got {value!r}")
    return items[0], items[1]


def _padding(
    where: str, padding: Any, image: Pair, spans: tuple[int, ...], strides: Pair
) -> tuple[Pair, Pair]:
    """Check a padding in any of its forms, and return ((top, bottom), (left, right))."""
    if isinstance(padding, str):
        if padding == "valid":
            return (0, 0), (0, 0)
        if padding != "same":
            raise ValueError(
                f"[{where}] padding must be 'same', 'valid' or numbers, got {padding!r}"
            )
        sides = []
        for size, span, step in zip(image, spans, strides, strict=True):
            total = max((-(-size // step) - 1) * step + span - size, 0)
            sides.append((total // 2, total - total // 2))
        return sides[0], sides[1]
    if (
        isinstance(padding, (tuple, list))
        and len(padding) == 2
        and all(isinstance(side, (tuple, list)) for side in padding)
    ):
        return (
            _pair(where, "padding", tuple(padding[0]), 0),
            _pair(where, "padding", tuple(padding[1]), 0),
        )
    height, width = _pair(where, "padding", padding, 0)
    return (height, height), (width, width)
