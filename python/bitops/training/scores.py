"""Measures of scores against targets: accuracy, confusion matrix, errors of regression.

`fit(metrics=...)` takes those of scores and targets by name, on the validation data.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from ..layers.inputs import as_labels
from ..ops.checks import as_float32, check_integer, real_array
from .targets import TARGETS, labels_of

__all__ = [
    "METRICS",
    "Metric",
    "accuracy",
    "confusion_matrix",
    "metric_named",
    "needs_classes",
    "r2",
    "rmse",
    "top_k_accuracy",
]

Metric = Callable[[np.ndarray, np.ndarray], float]

_TOP = re.compile(r"top_([1-9][0-9]*)_accuracy")


def _scores_and_labels(where: str, scores: Any, labels: Any) -> tuple[np.ndarray, np.ndarray]:
    """Check scores of shape (n, classes), n >= 1, and labels, or targets that name classes."""
    scores = real_array(where, "scores", scores)
    if scores.ndim != 2 or not scores.size:
        raise ValueError(f"[{where}] scores must have shape (n, classes), got {scores.shape}")
    if np.isnan(scores).any():  # it would be no smaller than the others
        raise ValueError(f"[{where}] scores must be numbers, got NaN in some of them")
    named = labels_of(np.asarray(labels)) if np.ndim(labels) == 2 else labels
    rows, classes = scores.shape
    return scores, as_labels(where, "labels", named, rows=rows, classes=classes)


def accuracy(scores, labels) -> float:
    """Compute the share of rows whose largest score, the first of equal ones, is the label's.

    Parameters
    ----------
    scores : array_like of shape (n, classes)
    labels : array_like of shape (n,), integer
        Or any targets that name classes, such as probabilities.

    Examples
    --------
    >>> accuracy(np.float32([[0.1, 0.9], [0.8, 0.2]]), np.array([1, 1]))
    0.5
    """
    scores, labels = _scores_and_labels("accuracy", scores, labels)
    return float(np.mean(scores.argmax(axis=1) == labels))


def top_k_accuracy(scores, labels, k: int = 5) -> float:
    """Compute the share of rows in which the label's score is one of the k largest.

    Parameters
    ----------
    scores : array_like of shape (n, classes)
    labels : array_like of shape (n,), integer
    k : int
        At most the number of classes. Of equal scores, those of smaller labels count as larger; so
        k = 1 gives `accuracy`.

    Examples
    --------
    >>> top_k_accuracy(np.float32([[0.1, 0.7, 0.2], [0.5, 0.4, 0.1]]), np.array([2, 2]), k=2)
    0.5
    """
    scores, labels = _scores_and_labels("top_k_accuracy", scores, labels)
    k = check_integer("top_k_accuracy", "k", k, 1, scores.shape[1])
    own = np.take_along_axis(scores, labels[:, np.newaxis].astype(np.int64), axis=1)
    before = np.arange(scores.shape[1]) < labels[:, np.newaxis]
    rank = np.count_nonzero((scores > own) | ((scores == own) & before), axis=1)
    return float(np.mean(rank < k))


def confusion_matrix(labels, predicted, classes: int | None = None) -> np.ndarray:
    """Count how often rows of each class are predicted to be of each class.

    Parameters
    ----------
    labels, predicted : array_like of shape (n,), integer
    classes : int, optional
        By default as many as the two name.

    Returns
    -------
    ndarray of shape (classes, classes), int64
        Row i, column j: rows of class i that are predicted to be of class j.

    Examples
    --------
    >>> confusion_matrix([0, 0, 1, 2], [0, 1, 1, 1])
    array([[1, 1, 0],
           [0, 1, 0],
           [0, 1, 0]])
    """
    where = "confusion_matrix"
    if classes is not None:
        classes = check_integer(where, "classes", classes, 1)
    labels = as_labels(where, "labels", labels, classes=classes)
    predicted = as_labels(where, "predicted", predicted, rows=len(labels), classes=classes)
    if classes is None:
        classes = 1 + max(int(labels.max(initial=0)), int(predicted.max(initial=0)))
    pairs = labels.astype(np.int64) * classes + predicted.astype(np.int64)
    return np.bincount(pairs, minlength=classes * classes).reshape(classes, classes)


def _errors(where: str, scores: Any, targets: Any) -> tuple[np.ndarray, np.ndarray]:
    """Return scores minus targets, and the targets, float64."""
    scores = as_float32(real_array(where, "scores", scores))
    if scores.ndim != 2 or not scores.size:
        raise ValueError(f"[{where}] scores must have shape (n, outputs), got {scores.shape}")
    targets = TARGETS["values"].check(where, "targets", targets, *scores.shape)
    exact = targets.astype(np.float64)
    return scores - exact, exact


def rmse(scores, targets) -> float:
    """Compute the root of the mean squared error over all outputs of all rows.

    Parameters
    ----------
    scores : array_like of shape (n, outputs)
    targets : array_like of shape (n, outputs), or (n,) for one output

    Examples
    --------
    >>> rmse(np.float32([[1], [3]]), np.float32([[0], [0]]))
    2.23606797749979
    """
    errors, _ = _errors("rmse", scores, targets)
    return float(np.sqrt(np.mean(np.square(errors))))


def r2(scores, targets) -> float:
    """Compute the share of the variance of the targets that the scores explain, at most 1.

    Parameters
    ----------
    scores, targets
        As in `rmse`.

    Notes
    -----
    1 - sum((o - t)^2) / sum((t - mean(t))^2), with a mean for each output. 0 if all targets of each
    output are equal.

    Examples
    --------
    >>> r2(np.float32([[1], [2], [3]]), np.float32([[1], [2], [3]]))
    1.0
    """
    errors, targets = _errors("r2", scores, targets)
    spread = np.square(targets - targets.mean(axis=0)).sum()
    return float(1 - np.square(errors).sum() / spread) if spread else 0.0


def _mse(scores, targets) -> float:
    return float(np.mean(np.square(_errors("mse", scores, targets)[0])))


def _mae(scores, targets) -> float:
    return float(np.mean(np.abs(_errors("mae", scores, targets)[0])))


METRICS: dict[str, Metric] = {
    "accuracy": accuracy,
    "mae": _mae,
    "mse": _mse,
    "r2": r2,
    "rmse": rmse,
}


def metric_named(name: str) -> Metric | None:
    """Return the function of a name, such as "accuracy" or "top_5_accuracy", if one has it."""
    top = _TOP.fullmatch(name)
    return partial(top_k_accuracy, k=int(top[1])) if top else METRICS.get(name)


def needs_classes(metric: Metric) -> bool:
    """Tell whether a metric compares classes, so that numbers and flags mean nothing to it."""
    function = metric.func if isinstance(metric, partial) else metric
    return function in (accuracy, top_k_accuracy)
