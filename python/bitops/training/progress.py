"""Progress of a training on the screen: a line an epoch, a bar, and how long it will take."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from .callbacks import Callback
from .run import Run

try:
    from tqdm import tqdm
except ImportError:  # the progress bar is optional; the line for each epoch is not
    tqdm = None

__all__ = ["progress_of"]

_ESTIMATE_AFTER = 5.0  # seconds


class _Progress(Callback):
    """Prints a line an epoch, and moves a bar if there is one.

    Without a bar, it says in the first epoch how long the training will take.
    """

    def __init__(self, say: Callable[[str], object], bar=None):
        self._say, self._bar = say, bar
        self._first: tuple[float, int] | None = None  # when the first step was done, and which
        self._has_estimated = bar is not None and not bar.disable

    def on_batch(self, run: Run) -> None:
        if self._bar is not None:
            texts = {"loss": f"{run.mean_loss:.4f}"}
            texts |= {} if run.error is None else {"error": f"{run.error:.2%}"}
            self._bar.set_postfix(texts, refresh=False)
            self._bar.update(run.batch_size if run.stream is None else 1)
        if not self._has_estimated:
            self._estimate(run)

    def _estimate(self, run: Run) -> None:
        """Say once, after some seconds, how long the rest will take at the speed so far."""
        now = time.perf_counter()
        if self._first is None:
            self._first = now, run.step
            return
        start, step = self._first
        if now - start >= _ESTIMATE_AFTER and run.batch < run.batches:
            self._has_estimated = True
            left = (now - start) / (run.step - step) * (run.steps - run.step)
            self._say(
                f"epoch {run.epoch:3d}  step {run.batch} of {run.batches}, "
                f"about {_in_words(left)} left"
            )

    def on_epoch(self, run: Run) -> None:
        self._has_estimated = True
        self._say(str(run.history.epochs[-1]))


def _in_words(seconds: float) -> str:
    """Return a duration in the largest unit of which there are two."""
    for unit, size in (("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds:.0f} s"


@contextmanager
def progress_of(run: Run, verbose: int) -> Iterator[Callback]:
    """Yield the callback that shows progress, with a bar where possible."""
    if not verbose:
        yield Callback()
        return
    if tqdm is None:
        yield _Progress(lambda line: print(line, flush=True))
        return

    def say(line: str) -> None:
        tqdm.write(line)
        sys.stdout.flush()  # an epoch takes minutes; its line must show through a pipe

    # rows of an iterable are not counted beforehand
    each, unit = (run.batch_size, " images") if run.stream is None else (1, " steps")
    # disable=None: no bar where the output is not a terminal
    with tqdm(
        total=run.steps * each,
        initial=run.step * each,
        unit=unit,
        unit_scale=True,
        leave=False,
        disable=None,
    ) as bar:
        yield _Progress(say, bar)
