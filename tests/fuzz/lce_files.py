"""Target: `bitops.convert.from_lce` on any bytes, and on changed files of Larq Compute Engine."""

from __future__ import annotations

import functools
from pathlib import Path

from bitops.convert import from_lce
from fuzz.reader import EDGES, Reader, allowed

MOST_BYTES = 5000  # of a file that is changed


@functools.cache
def contents() -> list[bytes]:
    """The small ones of the files."""
    paths = sorted((Path(__file__).parents[1] / "lce_files").glob("*.tflite"))
    return [path.read_bytes() for path in paths if path.stat().st_size < MOST_BYTES]


def changed(reader: Reader, content: bytes) -> bytes:
    """The file with up to eight changes of bytes, or of the numbers of four bytes in it."""
    forged = bytearray(content)
    for _ in range(1 + reader.below(8)):
        place = reader.below(len(forged) - 4)
        match reader.below(4):
            case 0:
                forged[place] = reader.byte()
            case 1:
                forged[place] ^= 1 << reader.below(8)
            case 2:
                number = reader.choice((*EDGES, len(forged), reader.below(len(forged))))
                place &= ~3
                forged[place : place + 4] = (number % 2**32).to_bytes(4, "little")
            case 3:
                del forged[place : place + 1 + reader.below(8)]
    return bytes(forged)


def run(data: bytes) -> None:
    reader = Reader(data)
    mode = reader.below(4)
    content = reader.rest() if mode == 0 else changed(reader, reader.choice(contents()))
    with allowed():
        assert from_lce(content).layers
