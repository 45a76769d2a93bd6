"""Random changes of inputs of targets, for runs without a fuzzer that is guided by coverage."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence


def change(rng: random.Random, content: bytes, other: bytes) -> bytes:
    """One of a fuzzer's changes."""
    place = rng.randrange(len(content) + 1)
    match rng.randrange(5):
        case 0:
            return content[:place] + rng.randbytes(rng.randrange(1, 9)) + content[place:]
        case 1:
            return content[:place] + content[place + rng.randrange(1, 9) :]
        case 2:
            return content[:place] + other[rng.randrange(len(other) + 1) :]
        case 3:
            return content[:place] + rng.randbytes(1) + content[place + 1 :]
    return content[:place] + bytes([rng.choice((0, 1, 127, 128, 255))]) + content[place + 1 :]


def mutations(rng: random.Random, inputs: Sequence[bytes], count: int) -> Iterator[bytes]:
    """Yield so many inputs, each with one to five changes, or new ones altogether."""
    for _ in range(count):
        content = rng.choice(inputs)
        if rng.randrange(4) == 0:
            content = rng.randbytes(rng.randrange(8, 80))
        for _ in range(rng.randrange(1, 6)):
            content = change(rng, content, rng.choice(inputs))
        yield content
