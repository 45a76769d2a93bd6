"""A memory-mapped file of rows, read ahead of its use."""

from __future__ import annotations

import mmap
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from ..ops.array import BitArray
from ..ops.memory import WORD_BITS

__all__ = ["Mapping", "check_padding"]


def check_padding(words: NDArray[np.uint64], k: int) -> None:
    """Refuse words of a file that have bits after the last of k, which would count as others."""
    if k % WORD_BITS and int(words[:, -1].max(initial=0)) >> k % WORD_BITS:
        raise ValueError(f"[BitIndex] rows must have no bits after element {k - 1}, got set ones")


class Mapping:
    """Rows of words that lie in a file.

    Parameters
    ----------
    file : binary file
    offset : int
        Bytes before the rows.
    n, k_words : int
        Rows, at least one, and words of a row.
    """

    def __init__(self, file: BinaryIO, offset: int, n: int, k_words: int) -> None:
        self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        self._offset, self._row_bytes = offset, 8 * k_words
        self.words = np.frombuffer(self._map, "<u8", n * k_words, offset).reshape(n, k_words)
        self._checked: set[int] = set()

    def read_ahead(self, start: int, stop: int) -> None:
        """Ask for rows that will be read soon, where the system can be asked."""
        if not hasattr(mmap, "MADV_WILLNEED"):
            return
        first = self._offset + start * self._row_bytes
        first -= first % mmap.PAGESIZE
        end = self._offset + stop * self._row_bytes
        self._map.madvise(mmap.MADV_WILLNEED, first, end - first)

    def check_padding(self, part: BitArray, start: int) -> None:
        """Check the rows from `start` on, unless that has been done: see `check_padding`."""
        if start not in self._checked:
            check_padding(part.words, part.shape[1])
            self._checked.add(start)
