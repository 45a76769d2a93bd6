"""Values drawn from the bytes of a fuzzer, and exceptions that count as answers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

T = TypeVar("T")

# Ends of integer types, and what lies next to them.
EDGES = (
    *(0, 1, -1, 2, 7, 8, 63, 64, 65, 127, 128, 255, 256, 2**16, 2**23 + 1, 2**24 + 1),
    *(2**31 - 1, 2**31, -(2**31), 2**32, 2**58, 2**59 + 1, 2**62, 2**63 - 1, 2**63, -(2**63)),
    *(2**64 - 1, 2**64, 10**30, -(10**30)),
)
NUMBERS = (0.0, -0.0, 1.0, -1.0, 0.5, 1e-40, -1e-45, 3.4e38, -3.4e38, 1e300, 2.0**24, 16777217.0)
SPECIAL = (float("nan"), float("inf"), float("-inf"))


class Reader:
    """Reads drawn values off bytes from first to last; zeros follow the last byte."""

    def __init__(self, data: bytes):
        self._data = data
        self._place = 0

    @property
    def is_empty(self) -> bool:
        return self._place >= len(self._data)

    def byte(self) -> int:
        self._place += 1
        return 0 if self._place > len(self._data) else self._data[self._place - 1]

    def below(self, count: int) -> int:
        """One of 0 .. count - 1, of at most 2**16."""
        return (self.byte() if count <= 256 else self.byte() << 8 | self.byte()) % count

    def choice(self, items: Sequence[T]) -> T:
        return items[self.below(len(items))]

    def chance(self, one_in: int) -> bool:
        """True for one byte value in so many; zeros, hence the end of the bytes, give False."""
        return self.byte() % one_in == one_in - 1

    def take(self, count: int) -> bytes:
        """So many bytes."""
        self._place += count
        return self._data[self._place - count : self._place].ljust(count, b"\0")

    def rest(self) -> bytes:
        return self._data[self._place :]


@contextmanager
def allowed(*errors: type[Exception]) -> Iterator[None]:
    """Let these exceptions pass as the answer to bad input; ValueError and TypeError always are.

    A MemoryError is one where sizes were drawn for which no machine has memory.
    """
    try:
        yield
    except (ValueError, TypeError, *errors) as error:
        if not str(error):
            raise AssertionError(f"an error without a message: {error!r}") from error
