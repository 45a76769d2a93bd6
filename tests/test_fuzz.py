"""The fuzzed targets on their corpus and on random changes of it; `tests/fuzz/run` goes further."""

import random
from pathlib import Path

import pytest

from conftest import SEED
from fuzz.mutations import mutations
from fuzz.targets import TARGETS, execute

CORPUS = Path(__file__).parent / "fuzz" / "corpus"
CHANGED = 1000  # inputs of a target, besides its corpus
SLOW = ("keras2", "keras3", "onnx", "torch")  # every input is a whole network


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
    for content in mutations(rng, inputs, CHANGED // 10 if name in SLOW else CHANGED):
        try:
            execute(name, content)
        except BaseException:
            print(f"input: bytes.fromhex({content.hex()!r})")
            raise
