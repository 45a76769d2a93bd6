"""Threads, forks and changing numbers of threads at random, against stored results.

    python tests/stress.py [--seconds 120] [--workers 8] [--seed N]

Threads call everything that `calls.py` lists, with numbers of threads and ISAs that change all the
time; the main thread forks children that do the same. Every result is compared, byte for byte,
with that of one thread and portable C. Prints counts; ends with status 1 at the first difference,
at a child that fails, and at one that hangs for a minute.
"""

import argparse
import os
import random
import threading
import time
import warnings
from collections.abc import Callable

import numpy as np

import bitops as bo
from calls import answers, small_calls

Calls = dict[str, Callable[[], np.ndarray]]
HANG = 60  # seconds


class Stress:
    """What all threads share.

    Parameters
    ----------
    seconds : float
        When to end.
    seed : int
    """

    def __init__(self, seconds: float, seed: int) -> None:
        self.end = time.monotonic() + seconds
        self.seed = seed
        self.sizes = [small_calls(rows) for rows in (1, 7, 60, 300)]
        bo.set_num_threads(1)
        with bo.isa.use("generic"):
            self.wanted = [answers(calls) for calls in self.sizes]
        self.counts = dict.fromkeys(("calls", "children", "settings"), 0)
        self.lock = threading.Lock()
        self.errors: list[str] = []

    def count(self, name: str) -> None:
        with self.lock:
            self.counts[name] += 1

    def running(self) -> bool:
        return not self.errors and time.monotonic() < self.end

    def call(self, random_: random.Random) -> None:
        """One call, compared."""
        size = random_.randrange(len(self.sizes))
        name = random_.choice(list(self.sizes[size]))
        got = np.asarray(self.sizes[size][name]()).tobytes()
        if got != self.wanted[size][name]:
            self.errors.append(f"{name}, size {size}: results differ")
        self.count("calls")

    def work(self, number: int) -> None:
        """A thread: calls, and now and then another number of threads or ISA."""
        random_ = random.Random(self.seed * 1000 + number)
        try:
            while self.running():
                if random_.random() < 0.2:
                    bo.set_num_threads(random_.choice((1, 2, 3, 4, 8)))
                    # This holds for all threads. `use` restores nothing without a with block.
                    bo.isa.use(random_.choice(bo.isa.available()))
                    self.count("settings")
                self.call(random_)
        except BaseException as error:
            self.errors.append(f"thread {number}: {error!r}")

    def fork(self, number: int) -> None:
        """A child that makes some calls, and whose end is awaited."""
        child = os.fork()
        if child == 0:
            self.lock = threading.Lock()  # another thread may have held it
            random_ = random.Random(self.seed * 1000 - number)
            try:
                for _ in range(20):
                    self.call(random_)
            except BaseException as error:
                self.errors.append(repr(error))
            os._exit(1 if self.errors else 0)
        give_up = time.monotonic() + HANG
        while True:
            done, status = os.waitpid(child, os.WNOHANG)
            if done:
                break
            if time.monotonic() > give_up:
                os.kill(child, 9)
                os.waitpid(child, 0)
                self.errors.append(f"child {number} hangs")
                return
            time.sleep(0.005)
        self.count("children")
        if status:
            self.errors.append(f"child {number} ended with {os.waitstatus_to_exitcode(status)}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=120)
    parser.add_argument("--workers", type=int, default=8)
    parser.add_argument("--seed", type=int, default=20160316)
    options = parser.parse_args()
    warnings.simplefilter("ignore", DeprecationWarning)  # of forks beside threads
    stress = Stress(options.seconds, options.seed)
    threads = [
        threading.Thread(target=stress.work, args=(i,), daemon=True) for i in range(options.workers)
    ]
    for thread in threads:
        thread.start()
    number = 0
    while stress.running():
        if hasattr(os, "fork"):
            stress.fork(number)
        time.sleep(0.02)
        number += 1
    for thread in threads:
        thread.join(HANG)
        if thread.is_alive():
            stress.errors.append(f"{thread.name} hangs")
    print(f"seed {options.seed}, {options.workers} threads, {options.seconds:g} s:", end=" ")
    print(", ".join(f"{count} {name}" for name, count in stress.counts.items()))
    if stress.errors:
        raise SystemExit("\n".join(stress.errors))
    print("all results equal, no child failed")


if __name__ == "__main__":
    main()
