"""What a training does with its process: threads, freed memory, and interrupts between steps."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial

from .. import _core

try:
    from threadpoolctl import threadpool_limits
except ImportError:  # optional, see `one_pool`
    threadpool_limits = None

__all__ = ["held_interrupts", "kept_memory", "one_pool"]

# With one of these, the user has said what the C library is to do with freed memory; so does
# GLIBC_TUNABLES with a tunable of malloc.
SETTINGS = ("MALLOC_MMAP_MAX_", "MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_")


@contextmanager
def one_pool(blas: bool) -> Iterator[None]:
    """Let only one of the two pools of threads, that of BLAS or ours, have several.

    A step alternates between products of the two. Threads keep spinning for a while after their
    work, so that two pools delay each other: on two cores with some other work a step of a
    3 x 1024 network took 42 ms with both and 12 ms with one. Binary layers compute in our pool; but
    without threadpoolctl ours is the only one that can be limited.
    """
    if threadpool_limits is None or blas:
        with _OURS:
            yield
        return
    # some libraries have a limit for the process, and some one for each thread, hence both
    with _BLAS, threadpool_limits(limits=1, user_api="blas"):
        yield


class _Limit:
    """A limit of the whole process, which holds from the first that enters to the last that leaves.

    Trainings may overlap in several threads, or one run inside a callback of another. What each of
    them found and put back would be the limits of others.
    """

    def __init__(self, impose: Callable[[], Callable[[], object]]):
        self._impose = impose  # it returns what lifts the limit
        self._lock = threading.Lock()
        self._inside = 0
        self._lift: Callable[[], object] | None = None

    @property
    def holds(self) -> bool:
        return self._inside > 0

    def __enter__(self) -> None:
        with self._lock:
            if not self._inside:
                self._lift = self._impose()
            self._inside += 1

    def __exit__(self, *error) -> None:
        with self._lock:
            self._inside -= 1
            if not self._inside and self._lift is not None:
                lift, self._lift = self._lift, None
                lift()


def _limit_blas() -> Callable[[], object]:
    """Limit the pools that the process shares, in a thread that stays until the limit is lifted.

    threadpoolctl lets only one thread at a time control them, as long as it lives. Of several
    trainings, the first to enter need not be the last to leave.
    """
    imposed, over = threading.Event(), threading.Event()

    def keep() -> None:
        try:
            with threadpool_limits(limits=1, user_api="blas"):
                imposed.set()
                over.wait()
        finally:
            imposed.set()

    def lift() -> None:
        over.set()
        keeper.join()

    keeper = threading.Thread(target=keep, name="bitops-limit", daemon=True)
    keeper.start()
    imposed.wait()
    return lift


def _limit_ours() -> Callable[[], object]:
    _core.limit_to_one_thread(True)
    return partial(_core.limit_to_one_thread, False)


def _keep_freed() -> Callable[[], object]:
    _core.keep_freed(True)
    return partial(_core.keep_freed, False)


_BLAS, _OURS, _FREED = _Limit(_limit_blas), _Limit(_limit_ours), _Limit(_keep_freed)


def _end_in_child() -> None:
    """Let a child that was forked during a training hand memory back: it has no training."""
    if _FREED.holds:
        _core.keep_freed(False)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_end_in_child)


def kept_memory() -> AbstractContextManager[None]:
    """Let the C library keep freed memory for the next step, where that is glibc.

    Each step makes arrays of the same sizes anew. glibc hands those above 32 MiB back to the
    system at once, which clears their pages again in the next step: a fifth of the time of one of
    network in network, 128 images of CIFAR-10. It can keep them for the main thread alone, since
    the heaps of others have 64 MiB.
    """
    told = any(name in os.environ for name in SETTINGS)
    told |= "glibc.malloc." in os.environ.get("GLIBC_TUNABLES", "")
    in_main = threading.current_thread() is threading.main_thread()
    return _FREED if in_main and not told else nullcontext()


@contextmanager
def held_interrupts() -> Iterator[Callable[[], bool]]:
    """Yield a function that tells whether Ctrl-C was pressed, and let it do nothing else.

    So an interrupt takes effect between two steps, where a checkpoint can be exact. A second one
    is not held back. Signals reach only the main thread; a program's own handler stays in place.
    """
    pressed = False
    ours = (
        threading.current_thread() is threading.main_thread()
        and signal.getsignal(signal.SIGINT) is signal.default_int_handler
    )

    def handle(number, frame) -> None:
        nonlocal pressed
        pressed = True
        signal.signal(signal.SIGINT, signal.default_int_handler)

    if ours:
        signal.signal(signal.SIGINT, handle)
    try:
        yield lambda: pressed
    finally:
        if ours:
            signal.signal(signal.SIGINT, signal.default_int_handler)
