"""Augmentation that a plan asks for, on images or on rows of their pixels."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, Literal

import numpy as np

from ..training.augment import random_crop, random_flip

__all__ = ["Moved"]


@dataclass(frozen=True, repr=False)
class Moved:
    """Mirror half of the images, and show windows of them first, then all of each, shifted.

    A window is cut out of each image at a random place. Steps are shorter by the share of pixels
    that is left out, and a network that averages over all positions learns nearly as much by them.

    Parameters
    ----------
    flip : bool
    shift : int
        Most pixels along each axis that whole images are shifted by.
    image_shape : tuple of int
        (height, width, channels), also of images that come as rows.
    crop : int
        Height and width of the windows; 0 for none.
    share : float
        Of the steps that get windows.
    fill : float or "edge"
        Value of the pixels that come in when images are shifted. By default they repeat the edge: a
        value that is the same for all could not suit every preprocessing, as signs have no 0.
    """

    flip: bool
    shift: int
    image_shape: tuple[int, ...]
    crop: int = 0
    share: float = 0.7
    fill: float | Literal["edge"] = "edge"

    @property
    def by_step(self) -> bool:
        return self.crop > 0

    def __repr__(self) -> str:
        """Leave out what is at its default: checkpoints from before it was there go on."""
        items = ((field.name, getattr(self, field.name), field.default) for field in fields(self))
        words = ", ".join(f"{name}={value!r}" for name, value, default in items if value != default)
        return f"Moved({words})"

    def __call__(
        self, x: Any, rng: np.random.Generator, step: int = 0, steps: int = 1
    ) -> np.ndarray:
        images = np.reshape(x, (-1, *self.image_shape))
        if self.flip:
            images = random_flip(images, rng)
        if self.crop and step < self.share * steps:
            return random_crop(images, 0, rng, size=self.crop)
        if self.shift:
            images = random_crop(images, self.shift, rng, fill=self.fill)
        return images.reshape(x.shape)
