"""A teacher: a trained network whose scores another one learns, besides the labels."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ..data.datasets import Dataset
from ..files import notes
from ..files.tensors import MALFORMED, open_tensors, write_tensors
from ..files.text import printable
from ..layers import Packed, PackedSigmoid, PackedSoftmax
from ..layers.inputs import is_finite
from ..search.progress import progress
from ..training.compare import error_of, scores_of
from ..training.losses import CrossEntropy
from .base import inputs
from .preprocess import known_preprocessing, preprocess

__all__ = ["Lessons", "check_teacher", "teach"]

FORMAT, VERSION = "bitops.lessons", 1
FEW = 100  # validation images that alone do not tell how sure a teacher may be
WIDEST = 12.0  # abs(log) of the factors of scores that are looked at, whose mean range is 1
TINY = 1e-30  # by which a float32 of 1 and more can still be divided
# The share of the entropy of equally likely classes that a teacher leaves who knows nothing.
CHANCE = 0.999


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

    def save(self, path: str | os.PathLike) -> None:
        """Write them to a file; another machine may compute other scores in their last bits."""
        description = {"format": FORMAT, "version": VERSION}
        write_tensors("teach", Path(path), description, vars(self))

    @classmethod
    def load(cls, path: str | os.PathLike, data: Dataset) -> Lessons:
        """Read those of a data set.

        Raises
        ------
        OSError
            If the file cannot be read.
        ValueError
            If it is damaged, holds something else, or other numbers of scores.
        """
        shapes = {
            "train": (len(data.y_train), data.classes),
            "validation": (len(data.y_validation), data.classes),
        }
        try:
            with open_tensors(path, FORMAT) as file:
                version, tensors = file.description.get("version"), file.read()
            if version != VERSION:
                raise ValueError(f"version must be {VERSION}, got {version!r:.80}")
            found = {name: (scores.shape, scores.dtype.name) for name, scores in tensors.items()}
            if found != {name: (shape, "float32") for name, shape in shapes.items()}:
                raise ValueError(f"scores must be float32 of shapes {shapes}, got {found}")
        except MALFORMED as error:
            raise ValueError(
                f"[teach] {path} must hold the scores of a teacher for {printable(data.name)}: "
                f"{str(error)[:300]}"
            ) from error
        return cls(**tensors)


def check_teacher(teacher: Packed, data: Dataset, resize: str | None = None) -> None:
    """Raise an error if a network cannot score the images of a data set.

    `resize` is how pictures of one's own were brought to their size.
    """
    notes.check_classes("teach", teacher, data)
    known_preprocessing("teach", teacher)
    shape = data.images(data.x_train[:1]).shape[1:]
    taken = notes.image_shape(teacher)
    if taken is not None and taken != shape:
        raise ValueError(f"[teach] the teacher must take images of {shape}, got one for {taken}")
    resized = notes.resizing(teacher)
    if resized is not None and resize is not None and resized != resize:
        raise ValueError(
            f"[teach] the teacher must be one for pictures read with {resize!r}, got {resized!r}"
        )
    image = np.zeros((1, *shape), np.float32)
    if notes.preprocessing(teacher) == "pixels":
        image = image.astype(np.uint8)
    try:
        scores = teacher.outputs(inputs(teacher, data, image))
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"[teach] the teacher must be a network for {printable(data.name)}: {error}"
        ) from error
    if not isinstance(scores, np.ndarray) or scores.shape != (1, data.classes):
        ends = scores.shape[1:] if isinstance(scores, np.ndarray) else "bits"
        raise ValueError(
            f"[teach] the teacher must end in {data.classes} scores of an image, got {ends}"
        )


def teach(teacher: Packed, data: Dataset, prepared: Dataset | None = None) -> Lessons:
    """Score the images of a data set by a trained network.

    Parameters
    ----------
    teacher : Packed
        Its note `preprocessing` names how it takes images, otherwise as pixels. A softmax or a
        sigmoid at its end is left out.
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
        If the teacher takes other images, has other classes, or knows no more of the images than
        chance does.

    Notes
    -----
    Of all factors of the scores, that with the smallest cross-entropy with the labels of the
    validation images is taken, or where these are fewer than 100 with the labels of all images: the
    inverse of the temperature of Guo et al., "On calibration of modern neural networks", 2017,
    section 4.2. Scores of a training without cross-entropy, as by the squared hinge, are no
    logarithms of probabilities before. The labels are smoothed by 1 / (n + 2), after Platt, 1999,
    so that a teacher without an error gets a finite factor.
    """
    check_teacher(teacher, data)
    if prepared is None:
        few = replace(data, x_test=data.x_test[:1], y_test=data.y_test[:1])  # none are scored
        prepared = preprocess(few, notes.preprocessing(teacher))
    if isinstance(teacher.layers[-1], PackedSoftmax | PackedSigmoid) and len(teacher.layers) > 1:
        teacher = Packed(teacher.layers[:-1], input_shape=teacher.input_shape)
    parts = [inputs(teacher, prepared, x) for x in (prepared.x_train, prepared.x_validation)]
    with progress(sum(map(len, parts)), "images") as done:
        train, validation = (
            scores_of(teacher, x, done).astype(np.float32, copy=False) for x in parts
        )
    if not (is_finite(train) and is_finite(validation)):
        raise ValueError("[teach] the scores of the teacher must be finite, got NaN or infinity")
    scores, labels = validation, data.y_validation
    if len(labels) < FEW:
        scores = Lessons(train, validation).without_validation().train
        labels = data.without_validation().y_train
    factor, entropy = _calibration(scores, labels)
    if data.classes > 1 and entropy > CHANCE * math.log(data.classes):
        raise ValueError(
            "[teach] the teacher must know the images better than chance, as one for other labels "
            "or of images prepared otherwise does not, got an error of "
            f"{error_of(scores.argmax(axis=1), labels):.2%}"
        )
    return Lessons(train * factor, validation * factor)


def _calibration(scores: np.ndarray, labels: np.ndarray) -> tuple[np.float32, float]:
    """Return the factor of scores with the smallest cross-entropy, and that."""
    from scipy.optimize import minimize_scalar  # a third of a second, for trainings with a teacher

    ends = scores.max(axis=1).astype(np.float64), scores.min(axis=1).astype(np.float64)
    spread = max(float(np.mean(ends[0] - ends[1])), TINY)
    loss = CrossEntropy(label_smoothing=1 / (len(labels) + 2))
    found = minimize_scalar(
        lambda logarithm: loss(scores * np.float32(math.exp(logarithm) / spread), labels)[0],
        bounds=(-WIDEST, WIDEST),
        method="bounded",
    )
    return np.float32(math.exp(found.x) / spread), float(found.fun)
