"""The table that `summary()` prints: output, parameters, bytes and multiply-adds of each layer."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from .base import Cost, Layer
from .inputs import Shape


@dataclass(frozen=True)
class Row:
    """One line of a summary.

    Multiply-adds (MACs) are for one example, counted as in `Cost`. They are None if they depend on
    an image whose size is not known.
    """

    layer: str
    output: str
    parameters: int
    packed_bytes: int
    float_bytes: int
    binary_macs: int | None
    float_macs: int | None


@dataclass(frozen=True)
class Summary:
    """The table that `summary()` returns; `print` shows it.

    `packed_bytes` counts binary weights at one bit each, in whole 64-bit words, and all other
    numbers at 32 bits: float weights, scales, biases and thresholds, also those of packed signs.
    `float_bytes` counts everything at 32 bits.

    Examples
    --------
    >>> from bitops.layers import BinaryDense, Sequential
    >>> summary = Sequential(BinaryDense(784, 10), input_shape=(784,)).summary()
    >>> summary.total.packed_bytes, summary.total.float_bytes
    (1040, 31360)
    """

    rows: tuple[Row, ...]
    total: Row

    def __str__(self) -> str:
        head = "layer", "output", "parameters", "packed bytes", "32-bit bytes"
        table: list[tuple[str, ...]] = [(*head, "binary MACs", "float MACs")]
        for row in (*self.rows, self.total):
            numbers = (row.parameters, row.packed_bytes, row.float_bytes)
            counts = (*numbers, row.binary_macs, row.float_macs)
            cells = ("?" if count is None else f"{count:,}" for count in counts)
            table.append((row.layer, row.output, *cells))
        widths = [max(len(line[i]) for line in table) for i in range(len(table[0]))]
        lines = []
        for line in table:
            left = [cell.ljust(width) for cell, width in zip(line[:2], widths, strict=False)]
            right = [cell.rjust(width) for cell, width in zip(line[2:], widths[2:], strict=True)]
            lines.append("  ".join(left + right))
        rule = "-" * len(lines[0])
        return "\n".join([lines[0], rule, *lines[1:-1], rule, lines[-1]])

    __repr__ = __str__


def _row(name: str, cost: Cost, shape: Shape, bits: int | None) -> Row:
    """Return the line of a layer; `shape` and `bits` are those of its output."""
    known = [size for size in shape[:-1] if size is not None]
    positions = math.prod(known) if len(known) == len(shape[:-1]) else None

    def times(macs: int) -> int | None:
        if macs == 0:
            return 0
        return None if positions is None else macs * positions

    sizes = "x".join("?" if size is None else str(size) for size in shape) or "?"
    return Row(
        name,
        f"{sizes} {_kind(bits)}",
        cost.parameters,
        cost.packed_bytes,
        4 * cost.parameters,
        times(cost.binary_macs),
        times(cost.float_macs),
    )


def _kind(bits: int | None) -> str:
    """Name what flows: bits, codes or data of 2 to 8 bits, or other numbers."""
    return {None: "numbers", 1: "bits"}.get(bits, f"{bits}-bit numbers")


def _rows(
    layers: Iterable[Layer], shape: Shape, bits: int | None, indent: str = ""
) -> Iterator[Row]:
    """Yield the lines of a chain of layers for the shape and the bits of its input."""
    for layer in layers:
        for name, branch in layer.branches().items():
            yield from _rows(branch, shape, bits, f"{indent}{name}: ")
        cost = layer.cost(bits)
        shape, bits = layer.output_shape(shape), layer.output_bits(bits)
        yield _row(indent + layer.name, cost, shape, bits)


def _sum(counts: Iterable[int | None]) -> int | None:
    """Return the sum, or None if a part of it is None."""
    total = 0
    for count in counts:
        if count is None:
            return None
        total += count
    return total


def summarize(layers: Iterable[Layer], shape: Shape, bits: int | None = None) -> Summary:
    """Return the table of a chain of layers for inputs of a shape, and of numbers of some bits."""
    rows = tuple(_rows(layers, shape, bits))
    total = Row(
        "total",
        "",
        sum(row.parameters for row in rows),
        sum(row.packed_bytes for row in rows),
        sum(row.float_bytes for row in rows),
        _sum(row.binary_macs for row in rows),
        _sum(row.float_macs for row in rows),
    )
    return Summary(rows, total)
