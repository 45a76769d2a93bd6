"""Settings of windows over images, checked before any image is known, and shapes of images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..ops.geometry import Pair, Window, make_window
from .inputs import Activation, Shape

if TYPE_CHECKING:
    from ..ops.plan import Value

Padding = int | Pair | tuple[Pair, Pair] | str

# Stands for the size of an unknown image when settings are checked; no window is larger.
_LARGE_IMAGE = 2**30


def image_shape(where: str, shape: Shape) -> tuple[int | None, int | None, int | None]:
    """Return height, width and channels of images; None for each that the shape leaves open."""
    if len(shape) > 3:
        raise ValueError(f"[{where}] x must be images of shape (h, w, channels), got {shape}")
    height, width, channels = (None,) * (3 - len(shape)) + shape
    return height, width, channels


@dataclass(frozen=True)
class Windows:
    """Settings of the windows of a layer, checked before any image is known.

    `padding` is "same", "valid" or ((top, bottom), (left, right)). The other settings are pairs
    (height, width).
    """

    kernel_size: Pair
    stride: Pair
    padding: str | tuple[Pair, Pair]
    dilation: Pair

    @classmethod
    def of(
        cls,
        where: str,
        kernel_size: int | Pair,
        stride: int | Pair = 1,
        padding: Padding = 0,
        dilation: int | Pair = 1,
    ) -> Windows:
        """Check the settings as `make_window` does and return them in their full form."""
        image = _LARGE_IMAGE, _LARGE_IMAGE
        window = make_window(where, image, kernel_size, stride, padding, dilation)
        sides = padding if isinstance(padding, str) else window.padding
        return cls(window.kernel, window.stride, sides, window.dilation)

    @property
    def options(self) -> dict[str, Any]:
        """The settings as keyword arguments of the functions that convolve."""
        return {"stride": self.stride, "padding": self.padding, "dilation": self.dilation}

    def on(self, where: str, x: Activation | Value) -> Window:
        """Return the windows placed on images (n, h, w, channels)."""
        return make_window(where, (x.shape[1], x.shape[2]), self.kernel_size, **self.options)

    def output(self, where: str, image: tuple[int | None, int | None]) -> Shape:
        """Return height and width of the output; a size unknown in the image is None here too."""
        known = tuple(_LARGE_IMAGE if size is None else size for size in image)
        window = make_window(where, (known[0], known[1]), self.kernel_size, **self.options)
        return tuple(
            None if size is None else length
            for size, length in zip(image, window.output, strict=True)
        )

    def __str__(self) -> str:
        """Return the settings that differ from their defaults, for a repr."""
        parts = ["x".join(map(str, self.kernel_size))]
        if self.stride != (1, 1):
            parts.append(f"stride={_short(self.stride)}")
        if isinstance(self.padding, str):
            parts.append(f"padding={self.padding!r}")
        elif self.padding != ((0, 0), (0, 0)):
            even = all(before == after for before, after in self.padding)
            sides = tuple(before for before, _ in self.padding)
            parts.append(f"padding={_short(sides) if even else self.padding}")
        if self.dilation != (1, 1):
            parts.append(f"dilation={_short(self.dilation)}")
        return ", ".join(parts)


def _short(pair: tuple[int, ...]) -> int | tuple[int, ...]:
    """Return one number for a pair of equal ones."""
    return pair[0] if pair[0] == pair[1] else pair
