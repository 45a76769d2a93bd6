"""A teacher: a trained network whose scores another one learns, besides the labels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize_scalar

from ..data.datasets import Dataset
from ..files.notes import check_classes
from ..files.text import printable
from ..layers import Packed
from ..search.progress import progress
from ..training.compare import scores_of
from ..training.losses import CrossEntropy
from .base import inputs
from .preprocess import STEPS, preprocess

__all__ = ["Lessons", "check_teacher", "teach"]

WIDEST = 12.0  # abs(log) of the largest and smallest factor of scores that is looked at


@dataclass(frozen=True)
class Lessons:
    """The scores of a teacher for the images of a data set.

    Parameters
    ----------
    train, validation : ndarray of shape (n, classes), float32
        As `teach` makes them.
    """

    train: np.ndarray
    validation: np.ndarray

    def without_validation(self) -> Lessons:
        """Return those of `Dataset.without_validation`."""
        return Lessons(np.concatenate([self.train, self.validation]), self.validation[:0])

    def first(self, rows: int, checked: int) -> Lessons:
        """Return those of the first images, and of the first ones of validation."""
        return Lessons(self.train[:rows], self.validation[:checked])


def check_teacher(teacher: Packed, data: Dataset) -> None:
    """Raise an error if a network cannot score the images of a data set."""
    check_classes("teach", teacher, data)
    name = teacher.notes.get("preprocessing", "pixels")
    if name not in STEPS:
        raise ValueError(
            f"[teach] the note preprocessing of the teacher must be one of {', '.join(STEPS)}, "
            f"got {name!r:.80}"
        )
    images = np.zeros((1, *data.images(data.x_train[:1]).shape[1:]), np.float32)
    if name == "pixels":
        images = images.astype(np.uint8)
    try:
        scores = teacher.outputs(inputs(teacher, data, images))
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"[teach] the teacher must be a network for {printable(data.name)}: {error}"
        ) from error
    if not isinstance(scores, np.ndarray):
        raise ValueError("[teach] the teacher must end in scores, got a network that ends in bits")


def teach(teacher: Packed, data: Dataset, prepared: Dataset | None = None) -> Lessons:
    """Score the images of a data set by a trained network.

    Parameters
    ----------
    teacher : Packed
        Its note `preprocessing` names how it takes images, otherwise as pixels.
    data : Dataset
        With its images as uint8 pixels.
    prepared : Dataset, optional
        The same with its images as the teacher takes them, if that is known already.

    Returns
    -------
    Lessons
        The scores, multiplied by the number that makes their softmax the best probabilities.

    Raises
    ------
    ValueError
        If the teacher takes other images, or has other classes.

    Notes
    -----
    Of all factors of the scores, that with the smallest cross-entropy with the labels of the
    validation images is taken, or without these with those of the training images: the inverse of
    the temperature of Guo et al., "On calibration of modern neural networks", 2017, section 4.2.
    Scores of a training without cross-entropy, as by the squared hinge, are no logarithms of
    probabilities before. The labels are smoothed by 1 / (n + 2), after Platt, 1999, so that a
    teacher without an error gets a finite factor.
    """
    check_teacher(teacher, data)
    if prepared is None:
        prepared = preprocess(data, teacher.notes.get("preprocessing", "pixels"))
    parts = [inputs(teacher, prepared, x) for x in (prepared.x_train, prepared.x_validation)]
    with progress(sum(map(len, parts)), "images") as done:
        train, validation = (scores_of(teacher, x, done) for x in parts)
    seen = (validation, data.y_validation) if len(validation) else (train, data.y_train)
    factor = _calibration(*seen)
    return Lessons(train * factor, validation * factor)


def _calibration(scores: np.ndarray, labels: np.ndarray) -> np.float32:
    """Return the factor of scores with the smallest cross-entropy; that of zeros is 1."""
    largest = np.abs(scores).max()
    if not largest:
        return np.float32(1)
    scores = scores / largest
    loss = CrossEntropy(label_smoothing=1 / (len(labels) + 2))
    found = minimize_scalar(
        lambda logarithm: loss(scores * np.float32(np.exp(logarithm)), labels)[0],
        bounds=(-WIDEST, WIDEST),
        method="bounded",
    )
    return np.float32(np.exp(found.x)) / largest
