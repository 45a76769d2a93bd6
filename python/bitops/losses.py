"""Losses of training: each returns its value and its gradient."""

from __future__ import annotations

import numpy as np


def signed_one_hot(labels, classes: int) -> np.ndarray:
    """Targets of +1 at the label and -1 elsewhere.

    Parameters
    ----------
    labels : array_like of shape (n,), integer
        In 0..classes-1.
    classes : int

    Returns
    -------
    ndarray of shape (n, classes), float32
    """
    labels = np.asarray(labels)
    if labels.dtype.kind not in "iu":
        raise TypeError(f"[signed_one_hot] labels must be integers, got {labels.dtype}")
    if labels.ndim != 1:
        raise ValueError(f"[signed_one_hot] labels must have shape (n,), got {labels.shape}")
    if labels.size and not (0 <= labels.min() and labels.max() < classes):
        raise ValueError(
            f"[signed_one_hot] labels must be in 0..{classes - 1}, "
            f"got {labels.min()}..{labels.max()}"
        )
    targets = np.full((labels.size, classes), -1, dtype=np.float32)
    targets[np.arange(labels.size), labels] = 1
    return targets


def squared_hinge(scores, labels) -> tuple[float, np.ndarray]:
    """Mean squared hinge of scores against +-1 one-hot targets.

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
    scores = np.asarray(scores, dtype=np.float32)
    if scores.ndim != 2 or not scores.size:
        raise ValueError(f"[squared_hinge] scores must have shape (n, classes), got {scores.shape}")
    targets = signed_one_hot(labels, scores.shape[1])
    if len(targets) != len(scores):
        raise ValueError(
            f"[squared_hinge] scores and labels must have the same n, "
            f"got {len(scores)} and {len(targets)}"
        )
    margin = np.maximum(0, 1 - targets * scores)
    grad = targets * margin
    grad *= np.float32(-2 / scores.size)
    return float(np.mean(np.square(margin))), grad
