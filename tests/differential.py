"""Random calls of the whole public API against its specification, as many as you like.

    python tests/differential.py --calls 1000000 [--seed 0] [--isa avx2] [--threads 2]
    python tests/differential.py --seed 0 --call 1234     one call again, made small

The calls are those of the fuzzing targets in `fuzz`, drawn from random bytes. They take turns on
all instruction sets and on one and two threads, unless those are given. What `np.empty` and the
allocator of C return is filled with junk, so that whoever reads it gives a wrong result.

Prints how many calls of each function had the right result, and how many were refused as they must
be. Ends with status 1 at the first that breaks a promise, and says how to make it again.
"""

from __future__ import annotations

import argparse
import mmap
import os
import subprocess
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import shake_128
from unittest import mock

import numpy as np

import bitops as bo
from fuzz import bit_arrays, calls, packed_layers
from fuzz.reader import Reader

BYTES = 160  # of the bytes that a call is drawn from
JUNK = 0xCB
REPORT = 20  # seconds from one line of progress to the next
# What is called, the module that draws it, and its place there.
DRAWN = (
    *((name, calls, place) for place, name in enumerate(calls.FUNCTIONS)),
    *((name, packed_layers, place) for place, name in enumerate(packed_layers.KINDS)),
    ("BitArray", bit_arrays, 0),
)
NAMES = tuple(name for name, _, _ in DRAWN)
OUTCOMES = ("equal", "refused", "odd, answered", "odd, refused")

Call = calls.Call | packed_layers.Call | bit_arrays.Call


class Program:
    """The calls of a seed, each made on one of some ISAs and numbers of threads."""

    def __init__(self, seed: int, isas: tuple[str, ...], threads: tuple[int, ...]):
        self.seed, self.isas, self.threads = seed, isas, threads
        self.counts: dict[str, Counter[str]] = {name: Counter() for name in NAMES}

    def data(self, number: int) -> bytes:
        """The bytes of a call; all names take turns."""
        _, _, place = DRAWN[number % len(DRAWN)]
        return bytes([place]) + shake_128(f"{self.seed} {number}".encode()).digest(BYTES)

    def draw(self, number: int, data: bytes) -> tuple[Call, Reader]:
        """The call of a number, and what is left of its bytes."""
        _, module, _ = DRAWN[number % len(DRAWN)]
        reader = Reader(data)
        return module.draw(reader), reader

    def make(self, number: int, data: bytes) -> None:
        """Draw a call, make it, and count what came of it."""
        turn = number // len(DRAWN)
        bo.isa.use(self.isas[turn % len(self.isas)])
        bo.set_num_threads(self.threads[turn // len(self.isas) % len(self.threads)])
        call, reader = self.draw(number, data)
        self.counts[call.name][call.make(reader)] += 1

    def table(self) -> str:
        """The counts as text, a line for each function."""
        lines = [f"{'':22}" + "".join(f"{outcome:>15}" for outcome in OUTCOMES)]
        for name, counts in self.counts.items():
            lines.append(f"{name:22}" + "".join(f"{counts[o]:15}" for o in OUTCOMES))
        return "\n".join(lines)


@contextmanager
def poisoned() -> Iterator[None]:
    """Let `np.empty` return junk, and NumPy's warnings of overflows pass, which no one promises."""
    plain = np.empty

    def empty(*arguments, **named):
        array = plain(*arguments, **named)
        if array.size and array.dtype != object:
            array.ravel("K").view(np.uint8)[...] = JUNK
        return array

    with (
        mock.patch.object(np, "empty", empty),
        warnings.catch_warnings(),
        np.errstate(all="ignore"),
    ):
        warnings.simplefilter("ignore")
        yield


def shrink(program: Program, number: int, error: BaseException) -> bytes:
    """Find the fewest and plainest bytes with which a call fails in the same way."""
    data = program.data(number)

    def fails(changed: bytes) -> bool:
        try:
            program.make(number, changed)
        except BaseException as other:
            return type(other) is type(error)
        return False

    length = next(n for n in range(1, len(data) + 1) if n == len(data) or fails(data[:n]))
    data = data[:length]
    for place in range(1, len(data)):
        for value in (0, 1, 2):
            changed = data[:place] + bytes([value]) + data[place + 1 :]
            if value < data[place] and fails(changed):
                data = changed
                break
    return data


def explain(program: Program, number: int) -> None:
    """Make one call, made small, with everything that is known about it."""
    try:
        program.make(number, program.data(number))
    except BaseException as error:
        data = shrink(program, number, error)
        print(program.draw(number, data)[0])
        print(f"its bytes: bytes.fromhex({data.hex()!r})", flush=True)
        program.make(number, data)
        raise
    print("this call keeps its promises")


def run(program: Program, first: int, count: int, progress: mmap.mmap) -> int:
    """Make calls, and print a line of progress now and then; Ctrl-C ends them. Returns how many."""
    start = last = time.monotonic()
    for number in range(first, first + count):
        progress[:8] = number.to_bytes(8, "little")
        try:
            program.make(number, program.data(number))
        except KeyboardInterrupt:
            return number - first
        except BaseException:
            print(f"call {number} of seed {program.seed} fails")
            raise
        if number % 64 == 0 and time.monotonic() - last > REPORT:
            last = time.monotonic()
            done = number - first + 1
            print(f"{done} calls, {done / (last - start):.0f} a second", flush=True)
    return count


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--calls", type=int, default=100_000)
    parser.add_argument("--first", type=int, default=0, help="number of the first call")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--call", type=int, help="make only the call of this number")
    parser.add_argument("--isa", choices=bo.isa.available(), help="by default all take turns")
    parser.add_argument("--threads", type=int, help="by default one and two take turns")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    return parser.parse_args()


def in_child() -> int:
    """Run this program again where the allocator poisons memory; tell which call ended it."""
    with tempfile.NamedTemporaryFile() as file:
        file.write(bytes(8))
        file.flush()
        # Threads that wait leave their cores to others.
        environment = {"OMP_WAIT_POLICY": "passive", **os.environ, "MALLOC_PERTURB_": str(JUNK)}
        arguments = [sys.executable, __file__, *sys.argv[1:], "--child", file.name]
        child = subprocess.Popen(arguments, env=environment)
        while True:
            try:
                status = child.wait()
                break
            except KeyboardInterrupt:  # which reaches the child too
                pass
        if status:
            file.seek(0)
            number = int.from_bytes(file.read(8), "little")
            again = " ".join(["python tests/differential.py", *sys.argv[1:], f"--call {number}"])
            print(f"ended with status {status} at call {number}; again: {again}")
    return 1 if status else 0


def main() -> int:
    options = parse()
    if options.child is None and options.call is None:
        return in_child()
    isas = (options.isa,) if options.isa else bo.isa.available()
    program = Program(options.seed, isas, (options.threads,) if options.threads else (1, 2))
    with poisoned():
        if options.call is not None:
            explain(program, options.call)
            return 0
        with open(options.child, "r+b") as file:
            made = run(program, options.first, options.calls, mmap.mmap(file.fileno(), 8))
    print(program.table())
    print(f"{made} calls of seed {options.seed}: all as promised; {', '.join(isas)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
