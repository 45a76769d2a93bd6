"""Targets: what losses take for y, checked before any work, and how wrong scores are for them.

A loss says what it takes by its attribute `targets`, one of

    "labels"            integers of shape (n,), the classes
    "probabilities"     labels, or rows of probabilities, of shape (n, classes)
    "teacher"           scores of another network, of shape (n, classes), or a pair of labels and
                        such scores
    "flags"             0 and 1, or numbers between, for each output, of shape (n, outputs)
    "values"            real numbers for each output, of shape (n, outputs)

Flags and values of a single output may have the shape (n,). A loss without the attribute takes
labels if y holds integers, and values if it holds floats.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import numpy as np

from ..layers.inputs import as_labels, is_finite
from ..ops.checks import as_float32, real_array

__all__ = [
    "TARGETS",
    "Targets",
    "as_sample_weight",
    "check_any_weight",
    "labels_of",
    "measured",
    "takes",
    "targets_of",
]

_TOLERANCE = 1e-3  # of a sum of probabilities: float16 is off by as much

AnyLoss = TypeVar("AnyLoss", bound=Callable)


class Targets(NamedTuple):
    """How targets are checked, and how wrong scores are for them.

    Attributes
    ----------
    check : callable (where, name, y, rows, features) -> ndarray
        Rows and features are None if they are unknown. The result has a first axis of rows.
    errors : callable (scores, targets) -> ndarray of shape (n,), or None
        How wrong each row is, 0 to 1.
    has_classes : bool
        Whether each row is of one class; then `labels_of` names it.
    """

    check: Callable[[str, str, Any, int | None, int | None], np.ndarray]
    errors: Callable[[np.ndarray, np.ndarray], np.ndarray] | None
    has_classes: bool = False


def takes(kind: str) -> Callable[[AnyLoss], AnyLoss]:
    """Let a function of a loss say what targets it takes; a decorator."""

    def mark(loss: AnyLoss) -> AnyLoss:
        setattr(loss, "targets", kind)  # noqa: B010 - functions declare no attributes
        return loss

    return mark


def targets_of(loss: Any, y: Any) -> Targets:
    """Return what a loss takes; if it does not say so, y decides, unless it is None."""
    kind = getattr(loss, "targets", None)
    if kind is None:
        is_float = y is not None and real_array("fit", "y", y).dtype.kind == "f"
        kind = "values" if is_float else "labels"
    if kind not in TARGETS:
        raise ValueError(
            f"[fit] targets of a loss must be one of {', '.join(TARGETS)}, got {kind!r:.80}"
        )
    return TARGETS[kind]


def labels_of(targets: np.ndarray) -> np.ndarray:
    """Return the classes that targets name: labels, or those of the largest numbers."""
    if targets.dtype.names:
        return targets["label"]
    return targets if targets.ndim == 1 else targets.argmax(axis=1)


def measured(targets: np.ndarray) -> np.ndarray:
    """Return what metrics get: of labels and a teacher's scores the labels, else the targets."""
    return targets["label"] if targets.dtype.names else targets


def as_sample_weight(where: str, name: str, weight: Any, rows: int) -> np.ndarray:
    """Check weights of rows, finite and not negative, and return them as float32."""
    numbers = real_array(where, name, weight)
    if numbers.shape != (rows,):
        raise ValueError(f"[{where}] {name} must have shape ({rows},), got {numbers.shape}")
    weights = as_float32(numbers)
    if not is_finite(weights) or (weights < 0).any():
        wrong = weights[~(weights >= 0) | np.isinf(weights)][0]
        raise ValueError(f"[{where}] {name} must be finite and >= 0, got {wrong}")
    return weights


def check_any_weight(where: str, weight: np.ndarray) -> None:
    """Refuse rows of which none counts."""
    if not weight.any():
        raise ValueError(f"[{where}] weights must be above 0 for some of the rows, got 0 for all")


def _check_labels(where: str, name: str, y: Any, rows: int | None, features: int | None):
    return as_labels(where, name, y, rows=rows, classes=features)


def _check_numbers(
    where: str, name: str, y: Any, rows: int | None, features: int | None
) -> np.ndarray:
    """Return finite numbers, one for each output of each row, as float32."""
    numbers = real_array(where, name, y)
    if numbers.ndim == 1 and features in (None, 1):
        numbers = numbers[:, np.newaxis]
    expected = (rows or "n", features or "outputs")
    fits = numbers.ndim == 2 and all(
        size in (given, None) for given, size in zip(numbers.shape, (rows, features), strict=True)
    )
    if not fits or not numbers.shape[1]:
        shape = f"({expected[0]}, {expected[1]})"
        raise ValueError(f"[{where}] {name} must have shape {shape}, got {np.shape(y)}")
    values = np.ascontiguousarray(as_float32(numbers))
    if not is_finite(values):
        raise ValueError(f"[{where}] {name} must be finite as float32, got NaN or infinity")
    return values


def _check_flags(where: str, name: str, y: Any, rows: int | None, features: int | None):
    flags = _check_numbers(where, name, y, rows, features)
    if flags.size and not (flags.min() >= 0 and flags.max() <= 1):
        wrong = flags[(flags < 0) | (flags > 1)][0]
        raise ValueError(f"[{where}] {name} must be in 0..1, got {wrong}")
    return flags


def _check_probabilities(where: str, name: str, y: Any, rows: int | None, features: int | None):
    given = real_array(where, name, y)
    if given.ndim < 2:
        return as_labels(where, name, given, rows=rows, classes=features)
    flags = _check_flags(where, name, given, rows, features)
    sums = flags.sum(axis=1)
    if sums.size and np.abs(sums - 1).max() > _TOLERANCE:
        wrong = sums[np.abs(sums - 1).argmax()]
        raise ValueError(f"[{where}] {name} must have rows whose sum is 1, got {wrong}")
    return flags


def _check_teacher(where: str, name: str, y: Any, rows: int | None, features: int | None):
    """Return scores, or rows of a label and scores."""
    if isinstance(y, np.ndarray) and y.dtype.names == ("label", "scores"):
        y = y["label"], y["scores"]
    if not isinstance(y, tuple):
        return _check_numbers(where, name, y, rows, features)
    if len(y) != 2:
        raise ValueError(f"[{where}] {name} must be scores, or labels and scores, got {len(y)}")
    scores = _check_numbers(where, f"scores of {name}", y[1], rows, features)
    labels = as_labels(where, f"labels of {name}", y[0], rows=len(scores), classes=scores.shape[1])
    both = np.empty(len(scores), [("label", np.int64), ("scores", np.float32, scores.shape[1:])])
    both["label"], both["scores"] = labels, scores
    return both


def _wrong_classes(scores: np.ndarray, targets: np.ndarray) -> np.ndarray:
    return scores.argmax(axis=-1) != labels_of(targets)


def _wrong_flags(scores: np.ndarray, targets: np.ndarray) -> np.ndarray:
    return ((scores > 0) != (targets > 0.5)).mean(axis=1)


TARGETS = {
    "labels": Targets(_check_labels, _wrong_classes, True),
    "probabilities": Targets(_check_probabilities, _wrong_classes, True),
    "teacher": Targets(_check_teacher, _wrong_classes, True),
    "flags": Targets(_check_flags, _wrong_flags),
    "values": Targets(_check_numbers, None),
}
