"""Losses: each function returns a value and its gradient."""

from __future__ import annotations

import numpy as np

from ..layers.inputs import as_labels
from ..ops.checks import as_float32, real_array

__all__ = ["cross_entropy", "hinge", "signed_one_hot", "squared_hinge"]


def _check_batch(where: str, scores, labels) -> tuple[np.ndarray, np.ndarray]:
    """Return scores as float32 of shape (n, classes), n >= 1, and as many labels."""
    scores = as_float32(real_array(where, "scores", scores))
    if scores.ndim != 2 or not scores.size:
        raise ValueError(
            f"[{where}] scores must have shape (n, classes), both >= 1, got {scores.shape}"
        )
    n, classes = scores.shape
    return scores, as_labels(where, "labels", labels, rows=n, classes=classes)


def signed_one_hot(labels, classes: int) -> np.ndarray:
    """Make targets of +1 at the label and -1 elsewhere.

    Parameters
    ----------
    labels : array_like of shape (n,), integer
        In 0..classes-1.
    classes : int

    Returns
    -------
    ndarray of shape (n, classes), float32
    """
    labels = as_labels("signed_one_hot", "labels", labels, classes=classes)
    targets = np.full((labels.size, classes), -1, dtype=np.float32)
    targets[np.arange(labels.size), labels] = 1
    return targets


def squared_hinge(scores, labels) -> tuple[float, np.ndarray]:
    """Compute the mean squared hinge of scores against +-1 one-hot targets.

    Parameters
    ----------
    scores : ndarray of shape (n, classes), float32
    labels : array_like of shape (n,), integer

    Returns
    -------
    loss : float
    grad : ndarray of shape (n, classes), float32
        Gradient with respect to `scores`.

    Notes
    -----
    loss = mean(max(0, 1 - t * o)^2) over all n * classes elements;
    grad = -2 * t * max(0, 1 - t * o) / (n * classes).

    References
    ----------
    Courbariaux, Hubara et al., "Binarized Neural Networks", 2016, section 2 (L2-SVM output layer).
    """
    scores, labels = _check_batch("squared_hinge", scores, labels)
    targets = signed_one_hot(labels, scores.shape[1])
    margin = np.maximum(0, 1 - targets * scores)
    grad = targets * margin
    grad *= np.float32(-2 / scores.size)
    return float(np.mean(np.square(margin))), grad


def hinge(scores, labels) -> tuple[float, np.ndarray]:
    """Compute the mean hinge of scores against +-1 one-hot targets.

    Parameters
    ----------
    scores : ndarray of shape (n, classes), float32
    labels : array_like of shape (n,), integer

    Returns
    -------
    loss : float
    grad : ndarray of shape (n, classes), float32
        Gradient with respect to `scores`; 0 where the margin is met exactly.

    Notes
    -----
    loss = mean(max(0, 1 - t * o)) over all n * classes elements;
    grad = -t * (1 - t * o > 0) / (n * classes).
    """
    scores, labels = _check_batch("hinge", scores, labels)
    targets = signed_one_hot(labels, scores.shape[1])
    margin = np.maximum(0, 1 - targets * scores)
    grad = targets * (margin > 0)
    grad *= np.float32(-1 / scores.size)
    return float(np.mean(margin)), grad


def cross_entropy(scores, labels) -> tuple[float, np.ndarray]:
    """Compute the mean cross-entropy of the softmax of scores.

    Parameters
    ----------
    scores : ndarray of shape (n, classes), float32
        Logarithms of probabilities, up to a constant for each row.
    labels : array_like of shape (n,), integer

    Returns
    -------
    loss : float
    grad : ndarray of shape (n, classes), float32
        Gradient with respect to `scores`.

    Notes
    -----
    With z = o - max(o) of a row, so that no exponential overflows:
    loss = mean(log(sum(exp(z))) - z[label]) over the n rows;
    grad = (softmax(o) - 1{class = label}) / n.
    """
    scores, labels = _check_batch("cross_entropy", scores, labels)
    n = len(labels)
    z = scores - scores.max(axis=1, keepdims=True)
    rows = np.arange(n)
    with np.errstate(under="ignore"):  # a class may have next to no chance
        exponentials = np.exp(z)
        sums = exponentials.sum(axis=1)
        loss = np.mean(np.log(sums) - z[rows, labels])
        grad = exponentials / sums[:, None]
        grad[rows, labels] -= 1
        grad /= np.float32(n)
    return float(loss), grad
