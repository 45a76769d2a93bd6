"""Losses: each function returns a value and its gradient.

Each takes scores, targets and, optionally, a weight for each row, which multiplies what the row
adds to the mean: mean(weight * loss of the row). `targets` says what targets are.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from ..layers.inputs import as_labels
from ..ops.checks import as_float32, check_number, check_rate, real_array
from .targets import TARGETS, as_sample_weight, labels_of, takes

__all__ = [
    "CrossEntropy",
    "Distillation",
    "Huber",
    "binary_cross_entropy",
    "cross_entropy",
    "hinge",
    "mae",
    "mse",
    "signed_one_hot",
    "squared_hinge",
]


def _check_batch(where: str, kind: str, scores, targets) -> tuple[np.ndarray, np.ndarray]:
    """Return scores as float32 of shape (n, classes), n >= 1, and as many targets."""
    scores = as_float32(real_array(where, "scores", scores))
    if scores.ndim != 2 or not scores.size:
        raise ValueError(
            f"[{where}] scores must have shape (n, classes), both >= 1, got {scores.shape}"
        )
    name = "labels" if kind == "labels" else "targets"
    if kind == "probabilities":
        targets = real_array(where, name, targets)
        name = "labels" if targets.ndim < 2 else name
    return scores, TARGETS[kind].check(where, name, targets, *scores.shape)


def _reduce(where: str, losses: np.ndarray, grad: np.ndarray, weight) -> tuple[float, np.ndarray]:
    """Return the mean of losses, of rows or of elements, and its gradient, both weighted."""
    if weight is None:
        return float(np.mean(losses)), grad
    weight = as_sample_weight(where, "sample_weight", weight, len(losses))
    grad *= weight[:, np.newaxis]
    rows = losses if losses.ndim == 1 else losses.mean(axis=1)
    return float(np.mean(rows * weight)), grad


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


@takes("labels")
def squared_hinge(scores, labels, sample_weight=None) -> tuple[float, np.ndarray]:
    """Compute the mean squared hinge of scores against +-1 one-hot targets.

    Parameters
    ----------
    scores : ndarray of shape (n, classes), float32
    labels : array_like of shape (n,), integer
    sample_weight : array_like of shape (n,), optional

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

    Examples
    --------
    >>> squared_hinge(np.float32([[0.5, -2]]), np.array([0]))
    (0.125, array([[-0.5,  0. ]], dtype=float32))
    """
    scores, labels = _check_batch("squared_hinge", "labels", scores, labels)
    targets = signed_one_hot(labels, scores.shape[1])
    margin = np.maximum(0, 1 - targets * scores)
    grad = targets * margin
    grad *= np.float32(-2 / scores.size)
    return _reduce("squared_hinge", np.square(margin), grad, sample_weight)


@takes("labels")
def hinge(scores, labels, sample_weight=None) -> tuple[float, np.ndarray]:
    """Compute the mean hinge of scores against +-1 one-hot targets.

    Parameters
    ----------
    scores : ndarray of shape (n, classes), float32
    labels : array_like of shape (n,), integer
    sample_weight : array_like of shape (n,), optional

    Returns
    -------
    loss : float
    grad : ndarray of shape (n, classes), float32
        Gradient with respect to `scores`; 0 where the margin is met exactly.

    Notes
    -----
    loss = mean(max(0, 1 - t * o)) over all n * classes elements;
    grad = -t * (1 - t * o > 0) / (n * classes).

    Examples
    --------
    >>> hinge(np.float32([[0.5, -2]]), np.array([0]))
    (0.25, array([[-0.5,  0. ]], dtype=float32))
    """
    scores, labels = _check_batch("hinge", "labels", scores, labels)
    targets = signed_one_hot(labels, scores.shape[1])
    margin = np.maximum(0, 1 - targets * scores)
    grad = targets * (margin > 0)
    grad *= np.float32(-1 / scores.size)
    return _reduce("hinge", margin, grad, sample_weight)


@takes("probabilities")
def cross_entropy(scores, targets, sample_weight=None) -> tuple[float, np.ndarray]:
    """Compute the mean cross-entropy of the softmax of scores.

    Parameters
    ----------
    scores : ndarray of shape (n, classes), float32
        Logarithms of probabilities, up to a constant for each row.
    targets : array_like of shape (n,), integer, or (n, classes)
        Labels, or the probability of each class.
    sample_weight : array_like of shape (n,), optional

    Returns
    -------
    loss : float
    grad : ndarray of shape (n, classes), float32
        Gradient with respect to `scores`.

    Notes
    -----
    With z = o - max(o) of a row, so that no exponential overflows, and with p the targets, 1 for
    the label and 0 for other classes:
    loss = mean(log(sum(exp(z))) - sum(p z)) over the n rows;  grad = (softmax(o) - p) / n.

    Examples
    --------
    >>> loss, grad = cross_entropy(np.float32([[0, 0]]), np.array([0]))
    >>> round(loss, 3), grad
    (0.693, array([[-0.5,  0.5]], dtype=float32))
    """
    scores, targets = _check_batch("cross_entropy", "probabilities", scores, targets)
    return _cross_entropy("cross_entropy", scores, targets, sample_weight)


def _cross_entropy(where: str, scores: np.ndarray, targets: np.ndarray, weight):
    """Compute the cross-entropy for labels or for rows of probabilities, already checked."""
    z, exponentials, sums = _exponentials(scores)
    rows = np.arange(len(scores))
    with np.errstate(under="ignore"):
        grad = exponentials / sums[:, None]
        if targets.ndim == 1:
            losses = np.log(sums) - z[rows, targets]
            grad[rows, targets] -= 1
        else:
            totals = targets.sum(axis=1)  # 1, but for rounding
            losses = np.log(sums) * totals - (targets * z).sum(axis=1)
            grad *= totals[:, None]
            grad -= targets
        grad /= np.float32(len(scores))
    return _reduce(where, losses, grad, weight)


def _exponentials(scores: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the scores below their largest, their exponentials, and the sums of these."""
    z = scores - scores.max(axis=1, keepdims=True)
    with np.errstate(under="ignore"):  # a class may have next to no chance
        exponentials = np.exp(z)
    return z, exponentials, exponentials.sum(axis=1)


@dataclass(frozen=True)
class CrossEntropy:
    """The loss `cross_entropy` with label smoothing.

    Parameters
    ----------
    label_smoothing : float
        Share s of the probability that all classes get alike, in [0, 1).

    Notes
    -----
    The targets p become (1 - s) p + s / classes.

    References
    ----------
    Szegedy et al., "Rethinking the Inception architecture", 2016, section 7.

    Examples
    --------
    >>> loss, grad = CrossEntropy(label_smoothing=0.1)(np.float32([[0, 0]]), np.array([0]))
    >>> round(loss, 3), grad.round(3)
    (0.693, array([[-0.45,  0.45]], dtype=float32))
    """

    label_smoothing: float = 0.1

    targets: ClassVar[str] = "probabilities"

    def __post_init__(self):
        _check_share("CrossEntropy", "label_smoothing", self.label_smoothing, below=True)

    def __call__(self, scores, targets, sample_weight=None) -> tuple[float, np.ndarray]:
        """Compute the loss and its gradient, as `cross_entropy` does."""
        scores, targets = _check_batch("CrossEntropy", "probabilities", scores, targets)
        if targets.ndim == 1:
            targets = np.eye(scores.shape[1], dtype=np.float32)[targets]
        share = np.float32(self.label_smoothing)
        smooth = (1 - share) * targets + share / np.float32(scores.shape[1])
        return _cross_entropy("CrossEntropy", scores, smooth, sample_weight)


# Of T^2 (log p - log q), float32 keeps four digits at this temperature, and none at its square.
_WARMEST = 1e3


@dataclass(frozen=True)
class Distillation:
    """The loss of a student that learns the scores of a teacher, and labels if there are some.

    Parameters
    ----------
    temperature : float
        T: scores are divided by it, so that classes with small probabilities count for more. In
        0.001..1000.
    label_weight : float
        Weight a of the cross-entropy with labels, in [0, 1].

    Notes
    -----
    Targets are the teacher's scores, of shape (n, classes), or a tuple (labels, scores); scores
    alone leave no room for labels, so that a = 0. With p = softmax(teacher / T) and
    q = softmax(o / T):
    loss = mean((1 - a) T^2 sum(p (log p - log q)) + a cross-entropy(o, label)),
    grad = ((1 - a) T (q - p) + a (softmax(o) - 1{class = label})) / n.

    References
    ----------
    Hinton, Vinyals and Dean, "Distilling the Knowledge in a Neural Network", 2015, section 2.

    Examples
    --------
    >>> scores = teacher.outputs(x)                                      # doctest: +SKIP
    >>> student.fit(x, (y, scores), loss=Distillation())                 # doctest: +SKIP
    """

    temperature: float = 4.0
    label_weight: float = 0.1

    targets: ClassVar[str] = "teacher"

    def __post_init__(self):
        temperature = check_rate("Distillation", "temperature", self.temperature)
        if not 1 / _WARMEST <= temperature <= _WARMEST:
            raise ValueError(
                f"[Distillation] temperature must be in {1 / _WARMEST:g}..{_WARMEST:g}, "
                f"got {temperature:g}"
            )
        _check_share("Distillation", "label_weight", self.label_weight)

    def __call__(self, scores, targets, sample_weight=None) -> tuple[float, np.ndarray]:
        """Compute the loss and its gradient."""
        scores, targets = _check_batch("Distillation", "teacher", scores, targets)
        has_labels = targets.dtype.names is not None
        teacher = targets["scores"] if has_labels else targets
        share = self.label_weight if has_labels else 0.0
        t = np.float32(self.temperature)
        log_p, log_q = (_log_softmax(s / t) for s in (teacher, scores))
        with np.errstate(under="ignore"):
            p, q = np.exp(log_p), np.exp(log_q)
            losses = np.float32(1 - share) * t * t * (p * (log_p - log_q)).sum(axis=1)
            grad = np.float32((1 - share) / len(scores)) * t * (q - p)
        if share:
            z, exponentials, sums = _exponentials(scores)
            rows, labels = np.arange(len(scores)), labels_of(targets)
            losses += np.float32(share) * (np.log(sums) - z[rows, labels])
            classes = exponentials / sums[:, None]
            classes[rows, labels] -= 1
            grad += np.float32(share / len(scores)) * classes
        return _reduce("Distillation", losses, grad, sample_weight)


def _log_softmax(scores: np.ndarray) -> np.ndarray:
    z, _, sums = _exponentials(scores)
    return z - np.log(sums)[:, None]


@takes("flags")
def binary_cross_entropy(scores, targets, sample_weight=None) -> tuple[float, np.ndarray]:
    """Compute the mean cross-entropy of each output by itself, for rows with several labels.

    Parameters
    ----------
    scores : ndarray of shape (n, outputs), float32
        The sigmoid of each is the probability of its label; those above 0 predict it.
    targets : array_like of shape (n, outputs), or (n,) for one output
        1 where a label holds, else 0; or the probability that it does.
    sample_weight : array_like of shape (n,), optional

    Returns
    -------
    loss : float
    grad : ndarray of shape (n, outputs), float32
        Gradient with respect to `scores`.

    Notes
    -----
    loss = mean(max(o, 0) - t o + log(1 + exp(-abs(o)))) over all n * outputs elements;
    grad = (sigmoid(o) - t) / (n * outputs).

    Examples
    --------
    >>> loss, grad = binary_cross_entropy(np.float32([[0, 0]]), np.array([[1, 0]]))
    >>> round(loss, 3), grad
    (0.693, array([[-0.25,  0.25]], dtype=float32))
    """
    where = "binary_cross_entropy"
    scores, targets = _check_batch(where, "flags", scores, targets)
    with np.errstate(under="ignore"):
        e = np.exp(-np.abs(scores))
        losses = np.maximum(scores, 0) - targets * scores + np.log1p(e)
        grad = np.where(scores >= 0, 1 / (1 + e), e / (1 + e)) - targets
        grad *= np.float32(1 / scores.size)
    return _reduce(where, losses, grad, sample_weight)


@takes("values")
def mse(scores, targets, sample_weight=None) -> tuple[float, np.ndarray]:
    """Compute the mean squared error.

    Parameters
    ----------
    scores : ndarray of shape (n, outputs), float32
    targets : array_like of shape (n, outputs), or (n,) for one output
    sample_weight : array_like of shape (n,), optional

    Returns
    -------
    loss : float
    grad : ndarray of shape (n, outputs), float32
        Gradient with respect to `scores`.

    Notes
    -----
    loss = mean((o - t)^2) over all n * outputs elements;  grad = 2 (o - t) / (n * outputs).

    Examples
    --------
    >>> mse(np.float32([[1], [3]]), np.float32([[0], [0]]))
    (5.0, array([[1.],
           [3.]], dtype=float32))
    """
    scores, targets = _check_batch("mse", "values", scores, targets)
    grad = scores - targets
    losses = np.square(grad)
    grad *= np.float32(2 / scores.size)
    return _reduce("mse", losses, grad, sample_weight)


@takes("values")
def mae(scores, targets, sample_weight=None) -> tuple[float, np.ndarray]:
    """Compute the mean absolute error.

    Parameters
    ----------
    scores, targets, sample_weight
        As in `mse`.

    Returns
    -------
    loss : float
    grad : ndarray of shape (n, outputs), float32
        Gradient with respect to `scores`; 0 where they meet the targets.

    Notes
    -----
    loss = mean(abs(o - t)) over all n * outputs elements;  grad = sign(o - t) / (n * outputs).

    Examples
    --------
    >>> mae(np.float32([[1], [3]]), np.float32([[0], [0]]))
    (2.0, array([[0.5],
           [0.5]], dtype=float32))
    """
    scores, targets = _check_batch("mae", "values", scores, targets)
    difference = scores - targets
    grad = np.sign(difference) * np.float32(1 / scores.size)
    return _reduce("mae", np.abs(difference), grad, sample_weight)


@dataclass(frozen=True)
class Huber:
    """The squared error near the targets and the absolute error far from them.

    Parameters
    ----------
    delta : float
        Distance at which one becomes the other.

    Notes
    -----
    With d = o - t:  loss = mean(d^2 / 2 where abs(d) <= delta, else delta (abs(d) - delta / 2));
    grad = clip(d, -delta, delta) / (n * outputs).

    References
    ----------
    Huber, "Robust estimation of a location parameter", 1964.

    Examples
    --------
    >>> Huber()(np.float32([[0.5], [3]]), np.float32([[0], [0]]))
    (1.3125, array([[0.25],
           [0.5 ]], dtype=float32))
    """

    delta: float = 1.0

    targets: ClassVar[str] = "values"

    def __post_init__(self):
        check_rate("Huber", "delta", self.delta)

    def __call__(self, scores, targets, sample_weight=None) -> tuple[float, np.ndarray]:
        """Compute the loss and its gradient."""
        scores, targets = _check_batch("Huber", "values", scores, targets)
        delta, difference = np.float32(self.delta), scores - targets
        grad = np.clip(difference, -delta, delta)
        losses = grad * (difference - grad / 2)
        grad *= np.float32(1 / scores.size)
        return _reduce("Huber", losses, grad, sample_weight)


def _check_share(where: str, name: str, value: Any, *, below: bool = False) -> None:
    check_number(where, name, value)
    if not 0 <= value <= 1 or (below and value == 1):
        interval = "[0, 1)" if below else "[0, 1]"
        raise ValueError(f"[{where}] {name} must be in {interval}, got {value!r:.80}")
