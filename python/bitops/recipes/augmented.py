"""Augmentation that a plan asks for, on images or on rows of their pixels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ..training.augment import random_crop, random_flip

__all__ = ["Moved"]


@dataclass(frozen=True)
class Moved:
    """Mirror half of the images, and shift them; what comes in repeats their edge.

    A value that is the same for all could not suit every preprocessing: signs have no 0.

    Parameters
    ----------
    flip : bool
    shift : int
        Most pixels along each axis.
    image_shape : tuple of int
        (height, width, channels), also of images that come as rows.
    """

    flip: bool
    shift: int
    image_shape: tuple[int, ...]

    def __call__(self, x: Any, rng: np.random.Generator) -> np.ndarray:
        images = np.reshape(x, (-1, *self.image_shape))
        if self.flip:
            images = random_flip(images, rng)
        if self.shift:
            images = random_crop(images, self.shift, rng, fill="edge")
        return images.reshape(x.shape)
