"""What every reader of a data set returns."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

__all__ = ["Dataset"]


@dataclass(frozen=True)
class Dataset:
    """Images and their labels, split into three parts: training, validation and test.

    Attributes
    ----------
    name : str
    image_shape : tuple of int
        (height, width) where images are rows, otherwise (height, width, channels).
    classes : int
        Number of classes.
    x_train, x_validation, x_test : ndarray, uint8
        Grey images are rows of shape (n, height * width). Others have shape
        (n, height, width, channels), and so have all that `load_images` and `load_npz` read.
    y_train, y_validation, y_test : ndarray of shape (n,), int64
        Labels in 0..classes - 1.
    class_names : tuple of str
        One for each label; () where the files tell none.

    Examples
    --------
    >>> from bitops.data import load_digits
    >>> data = load_digits()
    >>> data.image_shape, data.classes, data.x_train.dtype
    ((8, 8), 10, dtype('uint8'))
    """

    name: str
    image_shape: tuple[int, ...]
    classes: int
    x_train: np.ndarray
    y_train: np.ndarray
    x_validation: np.ndarray
    y_validation: np.ndarray
    x_test: np.ndarray
    y_test: np.ndarray
    class_names: tuple[str, ...] = ()

    def images(self, x: np.ndarray) -> np.ndarray:
        """Reshape rows or images of this data set to (n, height, width, channels)."""
        height, width, *channels = self.image_shape
        return x.reshape(len(x), height, width, *(channels or [1]))

    def without_validation(self) -> Dataset:
        """Return the data set with the validation images among those to train on, behind these."""
        return replace(
            self,
            x_train=np.concatenate([self.x_train, self.x_validation]),
            y_train=np.concatenate([self.y_train, self.y_validation]),
            x_validation=self.x_validation[:0],
            y_validation=self.y_validation[:0],
        )

    def __repr__(self) -> str:
        sizes = f"{len(self.y_train)} + {len(self.y_validation)} + {len(self.y_test)} images"
        return f"Dataset({self.name}: {sizes}, {self.image_shape}, {self.classes} classes)"
