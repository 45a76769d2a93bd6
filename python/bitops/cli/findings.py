"""What a packed network does on test images: confusions, the worst mistakes, speed, filters."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from .. import benchmark
from ..layers import Layer, Packed
from ..ops.array import BitArray, unpack

if TYPE_CHECKING:
    from ..data.datasets import Dataset

__all__ = ["Findings", "Mistake", "examine", "filter_sheet", "measure_speed"]

FILTERS = 64  # in a sheet
COLUMNS = 8


@dataclass(frozen=True)
class Mistake:
    """A test image (h, w, c), uint8, that is taken for another class."""

    pixels: np.ndarray
    label: int
    predicted: int


@dataclass(frozen=True)
class Findings:
    """Results on the test images.

    Attributes
    ----------
    confusion : ndarray of shape (classes, classes), int
        Numbers of images by label and predicted class.
    mistakes : list of Mistake
        Those of the largest scores for a wrong class, above that for the right one.
    names : list of str
        Of the classes.
    """

    confusion: np.ndarray
    mistakes: list[Mistake]
    names: list[str]

    @property
    def wrong(self) -> int:
        """Number of images that are taken for another class."""
        return int(self.confusion.sum() - np.trace(self.confusion))


def examine(packed: Packed, x: np.ndarray, data: Dataset, most: int) -> Findings:
    """Run the network on the test images.

    Parameters
    ----------
    packed : Packed
    x : ndarray
        The test images as the network takes them.
    data : Dataset
        As it was read, with pixels.
    most : int
        Number of mistakes.
    """
    from ..training import confusion_matrix  # other commands load no training code

    scores, labels = np.asarray(packed.outputs(x)), data.y_test
    predicted = scores.argmax(axis=1)
    counts = confusion_matrix(labels, predicted, data.classes)
    wrong = np.flatnonzero(predicted != labels)
    excess = scores[wrong, predicted[wrong]] - scores[wrong, labels[wrong]]
    worst = wrong[np.argsort(-excess, kind="stable")[:most]]
    images = data.images(data.x_test[worst])
    mistakes = [
        Mistake(pixels, int(labels[i]), int(predicted[i]))
        for pixels, i in zip(images, worst, strict=True)
    ]
    names = data.class_names or tuple(map(str, range(data.classes)))
    return Findings(counts, mistakes, list(names))


def measure_speed(packed: Packed, x: np.ndarray, batches: tuple[int, ...]) -> dict[int, float]:
    """Return the images a second in batches of some sizes, fewer if there are not as many."""
    inputs = {min(size, len(x)): x[:size] for size in batches}
    calls = {str(size): lambda batch=batch: packed.forward(batch) for size, batch in inputs.items()}
    timings = benchmark.interleave(calls, seconds=0.5)
    return {size: size / timings[str(size)].best for size in inputs}


def filter_sheet(packed: Packed, shape: tuple[int, ...]) -> tuple[np.ndarray, int, int] | None:
    """Draw the weights of the first layer with weights, each filter as an image.

    Returns
    -------
    sheet : ndarray of shape (h, w, 2 or 4), uint8
        The first filters beside each other, black for -1 and white for +1, with transparent gaps.
    shown, total : int
        Numbers of filters.

    None if they are no images of grey or coloured pixels, such as those of inputs in another order.
    """
    weight = _first_weight(packed.layers)
    if weight is None:
        return None
    values = np.asarray(unpack(weight) if isinstance(weight, BitArray) else weight, np.float32)
    if values.ndim == 2 and len(shape) > 1 and math.prod(shape) == values.shape[1]:
        values = values.reshape(len(values), *shape, *[1] * (3 - len(shape)))
    if values.ndim != 4 or values.shape[3] not in (1, 3) or max(values.shape[1:3]) < 2:
        return None
    shown = values[:FILTERS]
    largest = np.abs(shown).max(axis=(1, 2, 3), keepdims=True)
    pixels = (127.5 + 127.5 * shown / np.where(largest == 0, 1, largest)).astype(np.uint8)
    count, height, width, channels = pixels.shape
    across = min(count, COLUMNS if max(height, width) > 8 else 2 * COLUMNS)
    down = -(-count // across)
    gap = max(1, width // 8)
    sheet = np.zeros((down * (height + gap), across * (width + gap), channels + 1), np.uint8)
    for place, filters in enumerate(pixels):
        top, left = place // across * (height + gap), place % across * (width + gap)
        sheet[top : top + height, left : left + width, :-1] = filters
        sheet[top : top + height, left : left + width, -1] = 255
    return sheet[:-gap, :-gap], count, len(values)


def _first_weight(layers: list[Layer]) -> BitArray | np.ndarray | None:
    for layer in layers:
        weight = getattr(layer, "weight", None)
        if weight is not None:
            return weight
        for branch in layer.branches().values():
            weight = _first_weight(list(branch))
            if weight is not None:
                return weight
    return None
