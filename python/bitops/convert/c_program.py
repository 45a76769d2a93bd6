"""A network in C while it is written: its constants, its calls, and the places of its values."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from ..layers.inputs import Shape
from ..layers.windows import Windows
from ..ops.geometry import make_window
from . import c_source

_FIELDS = 17  # of struct window, an int32_t each
_PER_WORD = {"bits": 32, "bytes": 4, "int32_t": 1, "float": 1}


@dataclass(frozen=True)
class Buffer:
    """What flows between two layers.

    Attributes
    ----------
    kind : str
        "bits", "bytes", "int32_t" or "float".
    shape : tuple of int
        (h, w, channels) or (features,).
    place : int, optional
        First word in the workspace; None for the input.
    """

    kind: str
    shape: tuple[int, ...]
    place: int | None = None

    @property
    def words(self) -> int:
        """Words that it takes; each pixel of bits begins a new one."""
        *image, channels = self.shape
        per_word = _PER_WORD[self.kind]
        if self.kind == "bits":
            return math.prod(image) * -(-channels // per_word)
        return -(-math.prod(self.shape) // per_word)

    @property
    def pixels(self) -> int:
        return math.prod(self.shape[:-1])

    def __str__(self) -> str:
        if self.place is None:
            return "input"
        at = f"work + {self.place}" if self.place else "work"
        return f"({self.kind} *)({at})" if self.kind == "int32_t" else at


@dataclass
class CProgram:
    """Tables and calls in the order of the layers, and what of the workspace is in use.

    Attributes
    ----------
    rom : int
        Bytes of the tables.
    words, words_before : int
        Of the workspace, and of what was needed before the last value.
    """

    used: set[str] = field(default_factory=set)
    tables: list[str] = field(default_factory=list)
    calls: list[str] = field(default_factory=list)
    rom: int = 0
    words: int = 0
    words_before: int = 0
    live: dict[int, tuple[int, int]] = field(default_factory=dict)  # words and users by place

    def new(self, kind: str, shape: Sequence[int]) -> Buffer:
        """Return a place for a value: the first gap between those in use."""
        value, at = Buffer(kind, tuple(shape)), 0
        for place, (words, _) in sorted(self.live.items()):
            if at + value.words <= place:
                break
            at = place + words
        self.live[at] = value.words, 1
        self.words_before = self.words
        self.words = max(self.words, at + value.words)
        return Buffer(kind, tuple(shape), at)

    def hold(self, value: Buffer) -> None:
        """Keep a value for one more user."""
        if value.place is not None:
            words, users = self.live[value.place]
            self.live[value.place] = words, users + 1

    def release(self, value: Buffer) -> None:
        """Let go of a value; when the last user does, its place is free."""
        if value.place is None:
            return
        words, users = self.live.pop(value.place)
        if users > 1:
            self.live[value.place] = words, users - 1

    def instead(self, value: Buffer, kind: str) -> Buffer:
        """Return a place for as many words as a value has: its own, if nobody else needs it."""
        if value.place is not None and self.live[value.place][1] == 1:
            return Buffer(kind, value.shape, value.place)
        self.release(value)
        return self.new(kind, value.shape)

    def call(self, function: str, *arguments: object) -> None:
        """Add the call of a function of `c_source`."""
        self.used.add(function)
        self.calls.append(f"    {function}({', '.join(map(str, arguments))});\n")

    def table(self, what: str, where: str, values: np.ndarray | None) -> str:
        """Add an array of constants; return its name, or 0 if there is none."""
        if values is None:
            return "0"
        name = f"{what}_{where}"
        self.tables.append(c_source.table(name, values))
        self.rom += values.nbytes
        return name

    def window(
        self,
        where: str,
        name: str,
        shapes: tuple[Sequence[int], Sequence[int]],
        windows: Windows | None,
        outside: int = 0,
        planes: int = 1,
        groups: int = 1,
    ) -> str:
        """Add the sizes of a layer, those of its input and output first; return a pointer."""
        shape, target = shapes
        if windows is None:  # each pixel, or the row, by itself
            windows = Windows.of(name, 1)
        image = (shape[0], shape[1]) if len(shape) == 3 else (1, 1)
        placed = make_window(name, image, windows.kernel_size, **windows.options)
        out = target[:2] if len(target) == 3 else (1, 1)
        (top, _), (left, _) = placed.padding
        rows = (
            (*image, shape[-1]),
            (*out, target[-1]),
            windows.kernel_size,
            (*windows.stride, *windows.dilation),
            (top, left),
            (outside,),
            (planes,),
            (groups,),
        )
        lines = ",\n".join("    " + ", ".join(map(str, row)) for row in rows)
        self.tables.append(
            f"/* layer {where.replace('_', '.')}: {name} */\n"
            f"static const struct window window_{where} = {{\n{lines}\n}};\n"
        )
        self.rom += 4 * _FIELDS
        return f"&window_{where}"


def known(shape: Shape) -> tuple[int, ...]:
    """Return a shape without unknown sizes; that of the input is checked beforehand."""
    return tuple(size for size in shape if size is not None)
