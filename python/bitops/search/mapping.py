"""A memory-mapped file of rows, for reading it through and for reading some rows."""

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


def _advise(memory: mmap.mmap, name: str, start: int, stop: int) -> None:
    """Tell the system how a part of a map will be read, where it can be told."""
    advice = getattr(mmap, name, None)
    if advice is not None:
        memory.madvise(advice, start, stop - start)


class Mapping:
    """Rows of words that lie in a file.

    It is mapped twice: the system reads the one map in large pieces, ahead of a search that goes
    through it as fast as a plain read does, and of the other one only the pages that are touched.

    Parameters
    ----------
    file : binary file
    offset : int
        Bytes before the rows.
    n, k_words : int
        Rows, at least one, and words of a row.

    Attributes
    ----------
    words, some_words : ndarray of shape (n, k_words), uint64
        The rows, to be read one after the other, and to be read here and there.
    """

    def __init__(self, file: BinaryIO, offset: int, n: int, k_words: int) -> None:
        def mapped(advice: str) -> tuple[mmap.mmap, NDArray[np.uint64]]:
            memory = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            _advise(memory, advice, 0, len(memory))
            words = np.frombuffer(memory, "<u8", n * k_words, offset)
            return memory, words.reshape(n, k_words)

        self._map, self.words = mapped("MADV_SEQUENTIAL")
        self._map_of_some, self.some_words = mapped("MADV_RANDOM")
        self._offset, self._row_bytes = offset, 8 * k_words
        self._checked: set[int] = set()

    def let_go(self, start: int, stop: int) -> None:
        """Take rows off the map, whose pages the system may then use for others.

        A file larger than memory is read 20% faster if the system need not search for such pages.
        """
        first, end = (self._offset + row * self._row_bytes for row in (start, stop))
        _advise(self._map, "MADV_DONTNEED", first - first % mmap.PAGESIZE, end)

    def check_padding(self, part: BitArray, start: int) -> None:
        """Check the rows from `start` on, unless that has been done: see `check_padding`."""
        if start not in self._checked:
            check_padding(part.words, part.shape[1])
            self._checked.add(start)
