"""Bounds of the time and memory that one input may take."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

SECONDS = 20
MORE_BYTES = 1 << 30  # of address space, beyond what the process has


class TooLong(BaseException):
    """Not an Exception, so that no reader takes it for a damaged file."""


@contextmanager
def limits() -> Iterator[None]:
    """Let what is inside fail if it takes more; does nothing where the system cannot limit it."""
    if sys.platform != "linux" or threading.current_thread() is not threading.main_thread():
        yield
        return
    import resource

    def stop(*_: object) -> None:
        raise TooLong(f"more than {SECONDS} seconds")

    with open("/proc/self/statm") as file:
        pages = int(file.read().split()[0])
    before = resource.getrlimit(resource.RLIMIT_AS)
    most = pages * resource.getpagesize() + MORE_BYTES
    handler = signal.signal(signal.SIGPROF, stop)
    # of the processor, so that a busy machine changes nothing
    signal.setitimer(signal.ITIMER_PROF, SECONDS)
    try:
        resource.setrlimit(resource.RLIMIT_AS, (most, before[1]))
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, handler)
