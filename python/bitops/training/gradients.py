"""The gradients of a step: of its rows at once, or of parts of them, which are added up."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ..layers.base import backward_weights
from ..ops.checks import real_array
from .streams import Batch

if TYPE_CHECKING:
    from .run import Loss, Run, Trainable

__all__ = [
    "PairwiseSum",
    "add_gradients",
    "add_up",
    "call_loss",
    "compute_gradients",
    "parts_of",
    "single_number",
]

Errors = Callable[[np.ndarray, np.ndarray], np.ndarray]


def add_gradients(run: Run, batch: Batch) -> tuple[float, float]:
    """Write the gradients of a step; return its loss and the sum of its errors."""
    errors = run.targets.errors
    if run.accumulate == 1:
        return compute_gradients(run.model, run.loss, errors, batch, 1.0)
    parameters = run.model.parameters()
    sums = PairwiseSum()
    losses, wrong = [], []
    for part, share in parts_of(batch, run.accumulate):
        loss, error = compute_gradients(run.model, run.loss, errors, part, share)
        if not math.isfinite(loss):
            return loss, 0.0
        losses.append(share * loss)
        wrong.append(error)
        sums.add([parameter.grad.copy() for parameter in parameters])
    for parameter, total in zip(parameters, sums.total(), strict=True):
        parameter.grad[...] = total
    return sum(losses), sum(wrong)


def parts_of(batch: Batch, count: int) -> Iterator[tuple[Batch, float]]:
    """Yield parts of nearly equal size, in order, and the share of the rows that each has."""
    rows = len(batch.y)
    ends = [rows * i // count for i in range(count + 1)]
    for part in map(slice, ends[:-1], ends[1:]):
        weight = None if batch.weight is None else batch.weight[part]
        yield Batch(batch.x[part], batch.y[part], weight), (part.stop - part.start) / rows


def compute_gradients(
    model: Trainable, loss: Loss, errors: Errors | None, batch: Batch, share: float
) -> tuple[float, float]:
    """Pass rows forward and, with a share of the gradient, backward; return loss and errors."""
    scores = np.asarray(model.forward(batch.x, training=True))
    weights = {} if batch.weight is None else {"sample_weight": batch.weight}
    value, grad = call_loss(loss, scores, batch.y, **weights)
    if math.isfinite(value):
        backward_weights(model, grad if share == 1 else grad * np.float32(share))
    return value, 0 if errors is None else errors(scores, batch.y).sum().item()


def call_loss(
    loss: Loss, scores: np.ndarray, targets: np.ndarray, **weights: np.ndarray
) -> tuple[float, np.ndarray]:
    """Call a loss, which may be anybody's, and check that it returns a value and its gradient."""
    found = loss(scores, targets, **weights)
    if not isinstance(found, tuple | list) or len(found) != 2:
        count = f" of {len(found)}" if isinstance(found, tuple | list) else ""
        raise TypeError(
            f"[fit] loss must return (value, gradient), got a {type(found).__name__}{count}"
        )
    value = single_number("the value of loss", found[0])
    grad = real_array("fit", "the gradient of loss", found[1])
    if grad.shape != scores.shape:
        raise ValueError(
            f"[fit] the gradient of loss must have the shape {scores.shape} of the scores, "
            f"got {grad.shape}"
        )
    return value, grad


def single_number(what: str, value: Any) -> float:
    """Return the result of a function of the caller's as a float."""
    try:
        if np.ndim(value) == 0 and not isinstance(value, str | bytes):
            return float(value)
    except (TypeError, ValueError):
        pass
    raise TypeError(f"[fit] {what} must be a single number, got {value!r:.80}")


class PairwiseSum:
    """The sum of lists of arrays: of the first two, of the next two, of these two sums, and so on.

    The order depends on nothing but the number of lists. So runs of 2, 4, 8, ... lists that start
    at a multiple of their number may be summed elsewhere, and the total has the same bits.
    """

    def __init__(self) -> None:
        self._sums: list[tuple[int, Any]] = []  # how many lists each is of: falling powers of two

    def add(self, arrays: Any) -> None:
        """Add a list of arrays, which are written to."""
        count = 1
        while self._sums and self._sums[-1][0] == count:
            arrays = add_up(self._sums.pop()[1], arrays)
            count *= 2
        self._sums.append((count, arrays))

    def total(self) -> list[np.ndarray]:
        """Return the sum of at least one list."""
        _, total = self._sums.pop()
        while self._sums:
            total = add_up(self._sums.pop()[1], total)
        return total


def add_up(first: Sequence[np.ndarray], second: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Add arrays to arrays in place."""
    for a, b in zip(first, second, strict=True):
        a += b
    return list(first)
