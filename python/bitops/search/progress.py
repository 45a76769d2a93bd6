"""A progress bar for long work, if tqdm is installed and stderr is a terminal."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

try:
    from tqdm import tqdm
except ImportError:  # the progress bar is optional
    tqdm = None

__all__ = ["progress"]

DELAY = 2.0  # seconds before a bar is shown


@contextmanager
def progress(
    total: int | None, unit: str, *, is_shown: bool = True
) -> Iterator[Callable[[int], object]]:
    """Yield a function that moves the bar on by so many units; `total` is None if not known."""
    if tqdm is None or not is_shown:
        yield lambda done: None
        return
    with tqdm(
        total=total, unit=f" {unit}", unit_scale=True, leave=False, disable=None, delay=DELAY
    ) as bar:
        yield bar.update
