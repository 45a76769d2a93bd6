"""Runs a chain of layers over any number of rows, so that memory does not grow with them.

Rows of images pass the first layers, whose activations are large, a few at a time. What comes out
is joined again, and passes the layers after them together:

    1000 images --> [conv, pool, conv] --> joined --> [flatten, dense, dense] --> 1000 rows
                    16 at a time                      all 1000 at a time

So dense layers read their weights once for many rows, and float32 ones, in whose products BLAS
rounds by the number of rows, give the bits that they give for all rows at once.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np

from ..ops.array import BitArray
from .base import Layer, activations
from .inputs import Activation, Codes, Shape

ROWS = 1000  # rows that leave the chain together
BYTES = 16 << 20  # of the largest activation of the rows that pass a layer together
LEAST = 4  # rows that do so in any case: fewer take up to twice the time a row


def run_in_batches(
    chain: Sequence[Layer], x: Activation, batch_size: int | None
) -> Iterator[Activation]:
    """Yield the outputs of a chain batch by batch.

    Parameters
    ----------
    chain : sequence of Layer
    x : BitArray, Codes or ndarray of shape (n, ...)
    batch_size : int, optional
        If given, so many rows pass all layers together.
    """
    # an empty input still runs once, to give the output its shape and dtype
    for start in range(0, max(len(x), 1), batch_size or ROWS):
        batch = x[start : start + (batch_size or ROWS)]
        if batch_size is None:
            yield _run_by_size(chain, batch)
        else:
            yield _run(chain, batch)


def join(parts: Sequence[Activation]) -> Activation:
    """Join activations of the same kind along their rows."""
    first = parts[0]
    if len(parts) == 1:
        return first
    if isinstance(first, BitArray):
        words = np.concatenate([part.words for part in parts])  # type: ignore[union-attr]
        return BitArray.from_words(words, (len(words), *first.shape[1:]))
    if isinstance(first, Codes):
        numbers = np.concatenate([part.numbers for part in parts])  # type: ignore[union-attr]
        return Codes(numbers, first.bits, first.step)
    return np.concatenate(parts)


def _run(chain: Sequence[Layer], x: Activation) -> Activation:
    for layer in chain:
        x = layer.forward(x)
    return x


def _run_by_size(chain: Sequence[Layer], x: Activation) -> Activation:
    """Run layers with large activations on some of the rows at a time, the others on all."""
    if len(x) <= LEAST:
        return _run(chain, x)
    count, rows = _large_layers(chain, x.shape[1:], len(x))
    if count:
        pieces = math.ceil(len(x) / rows)
        ends = [len(x) * i // pieces for i in range(pieces + 1)]  # pieces of nearly equal size
        slices = map(slice, ends[:-1], ends[1:])
        x = join([_run(chain[:count], x[part]) for part in slices])
    return _run(chain[count:], x)


def _large_layers(chain: Sequence[Layer], shape: Shape, rows: int) -> tuple[int, int]:
    """Return how many layers come up to the last large one, and the rows they may take at once.

    Bits count as if they were float32. So the rows are the same for a network that was trained and
    for its packed form, which then have the same bits behind float32 layers too.
    """
    count, largest = 0, 0
    for i, layer in enumerate(chain, 1):
        if not isinstance(layer, Layer):  # a trainer of rows, such as EBP
            break
        inside = list(activations([layer], shape))
        if not inside or inside[-1][0] is not layer:  # it is going to refuse its input
            break
        shape = inside[-1][2]
        sizes = [_bytes(size) for _, *shapes in inside for size in shapes]
        if max(sizes) * rows > BYTES:
            count, largest = i, max(largest, *sizes)
    return count, max(BYTES // max(largest, 1), LEAST)


def _bytes(shape: Shape) -> int:
    return 4 * math.prod(size or 0 for size in shape)  # an unknown size counts as none
