"""Batches from an iterable longer than memory, drawn ahead in a thread."""

from __future__ import annotations

import copy
import itertools
import queue
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np

from ..ops.array import BitArray

__all__ = ["Batch", "Stream"]

_WAIT = 0.1  # seconds until a waiting thread looks whether it shall end


class Batch(NamedTuple):
    """The rows of a step, their targets, and a weight for each if there are some."""

    x: np.ndarray | BitArray
    y: np.ndarray
    weight: np.ndarray | None = None


class Stream:
    """The batches of a training, epoch after epoch.

    Parameters
    ----------
    batches : iterable
        Where it ends, it starts anew, unless it is an iterator.
    steps : int
        Batches of an epoch.
    prefetch : int
        How many are drawn ahead, in a thread, and copied, as the iterable may fill the same arrays
        again meanwhile; 0 for none. Then a batch is used before the next is drawn.
    prepare : callable
        Checks what the iterable gives, and makes a `Batch` of it.
    """

    def __init__(
        self,
        batches: Iterable,
        steps: int,
        prefetch: int,
        prepare: Callable[[Any], Batch],
    ):
        self.steps = steps
        self._batches, self._prefetch, self._prepare = batches, prefetch, prepare
        self._over = threading.Event()
        self._queue: queue.Queue = queue.Queue(max(prefetch, 1))
        self._thread: threading.Thread | None = None
        self._source: Iterator[Batch] = iter(())

    @contextmanager
    def opened(self, done: int, total: int) -> Iterator[None]:
        """Draw batches, up to the last of all, from behind those that a training has done."""
        self._source = self._drawn(done, total)
        if self._prefetch:
            self._thread = threading.Thread(target=self._work, name="bitops-batches", daemon=True)
            self._thread.start()
        try:
            yield
        finally:
            self._close()

    def next(self, over: Callable[[], bool]) -> Batch | None:
        """Return the next batch; None if the training is over before it comes.

        Errors of the iterable, and of what checks it, are raised here.
        """
        if self._thread is None:
            return next(self._source)
        while True:
            try:
                found = self._queue.get(timeout=_WAIT)
            except queue.Empty:
                if over():
                    return None
                continue
            if isinstance(found, BaseException):
                raise found
            return found

    def _close(self) -> None:
        """End the thread, which waits for a batch that is under way."""
        self._over.set()
        if self._thread is not None:
            self._thread.join()
        else:
            self._source.close()  # type: ignore[attr-defined]

    def _work(self) -> None:
        try:
            for batch in self._source:
                self._put(batch)
                if self._over.is_set():
                    break
        except BaseException as error:
            self._put(error)
        finally:
            self._source.close()  # type: ignore[attr-defined]

    def _put(self, thing: Batch | BaseException) -> None:
        while not self._over.is_set():
            try:
                return self._queue.put(thing, timeout=_WAIT)
            except queue.Full:
                pass

    def _drawn(self, done: int, total: int) -> Iterator[Batch]:
        """Yield the batches from one to the last, and no more than these."""
        passes = self._passes()
        try:
            count = 0
            for count, given in enumerate(itertools.islice(passes, total), 1):
                if count > done:
                    batch = self._prepare(given)
                    yield copy.deepcopy(batch) if self._prefetch else batch
            if count < total:
                raise ValueError(
                    f"[fit] x must give {total} batches, {self.steps} an epoch, got {count}"
                )
        finally:
            passes.close()  # type: ignore[attr-defined]

    def _passes(self) -> Iterator[Any]:
        """Yield what the iterable gives, again and again if it can start anew."""
        while True:
            iterator = iter(self._batches)
            count = 0
            for count, given in enumerate(iterator, 1):  # noqa: B007 - counted for the end
                yield given
            if iterator is self._batches:
                return
            if not count:
                raise ValueError("[fit] x must give batches, got none")
