"""The fuzzed targets on their corpus and on random changes of it; `tests/fuzz/run` goes further."""

import random
from pathlib import Path

import pytest

from conftest import SEED
from fuzz.targets import TARGETS, execute

CORPUS = Path(__file__).parent / "fuzz" / "corpus"
CHANGED = 1000  # inputs of a target, besides its corpus


def change(rng, content, other):
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


@pytest.mark.parametrize("name", TARGETS)
def test_corpus(name):
    inputs = sorted((CORPUS / name).iterdir())
    assert inputs
    for path in inputs:
        try:
            execute(name, path.read_bytes())
        except BaseException:
            print(f"input: {path}")
            raise


@pytest.mark.parametrize("name", TARGETS)
def test_changed_corpus(name):
    print(f"seed: {SEED}")
    rng = random.Random(f"{SEED} {name}")
    inputs = [path.read_bytes() for path in sorted((CORPUS / name).iterdir())]
    for _ in range(CHANGED):
        content = rng.choice(inputs)
        for _ in range(rng.randrange(1, 6)):
            content = change(rng, content, rng.choice(inputs))
        try:
            execute(name, content)
        except BaseException:
            print(f"input: bytes.fromhex({content.hex()!r})")
            raise
