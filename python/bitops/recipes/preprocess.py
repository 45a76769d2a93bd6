"""Preprocessing of images: each of STEPS takes a data set and returns one."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from ..data.datasets import Dataset
from ..files import notes
from ..layers import Packed, PackedBatchNorm
from ..training.augment import ZCA, gcn, lcn

__all__ = [
    "STEPS",
    "image_step",
    "known_preprocessing",
    "makes_inputs",
    "preprocess",
    "takes_pictures",
]

MOST_FEATURES = 1 << 14  # of an image to whiten; three matrices of their square take 6 GiB


def pixels(x: np.ndarray) -> np.ndarray:
    """Leave uint8 as it is.

    The first layer computes exact integers. A BatchNorm behind it undoes scale and offset, and its
    weights get the gradient of scaled pixels.
    """
    return x


def unit(x: np.ndarray) -> np.ndarray:
    """Scale to float32 in [-1, 1]: 2 x / 255 - 1."""
    return x * np.float32(2 / 255) - 1


def zero_one(x: np.ndarray) -> np.ndarray:
    """Scale to float32 in [0, 1]: x / 255, as torchvision's ToTensor does."""
    return x / np.float32(255)


def bipolar(x: np.ndarray) -> np.ndarray:
    """Replace pixels of at least 128 by +1 and the others by -1, float32."""
    return np.where(x >= 128, np.float32(1), np.float32(-1))


def fraction(x: np.ndarray) -> np.ndarray:
    """Scale to float32 in [0, 1): x / 256."""
    return x * np.float32(1 / 256)


def contrast(x: np.ndarray) -> np.ndarray:
    """Apply global contrast normalization alone, to a deviation of 1 in each image."""
    return gcn(x, float(np.sqrt(np.prod(x.shape[1:]))))


def local_contrast(x: np.ndarray) -> np.ndarray:
    """Apply global, then local contrast normalization; grey images must be (n, h, w, 1)."""
    return lcn(contrast(x))


def standard(data: Dataset) -> Dataset:
    """Scale to float32 of mean 0 and deviation 1 in each channel of the training images."""
    channels = data.image_shape[2] if len(data.image_shape) == 3 else 1
    values, levels = data.x_train.reshape(-1, channels), np.arange(256)
    mean, scale = np.empty((2, channels), np.float32)
    for channel in range(channels):
        share = np.bincount(values[:, channel], minlength=256) / len(values)
        mean[channel] = share @ levels
        variance = share @ np.square(levels - share @ levels)
        scale[channel] = 1 / np.sqrt(variance + 1e-6)  # a channel may be constant
    return _changed(data, lambda x: ((x.reshape(-1, channels) - mean) * scale).reshape(x.shape))


def whitened(data: Dataset) -> Dataset:
    """Apply global contrast normalization, then ZCA whitening learned from training images."""
    features = math.prod(data.image_shape)
    if features > MOST_FEATURES:
        size = " x ".join(map(str, data.image_shape))
        raise ValueError(
            f"[preprocess] images must have at most {MOST_FEATURES:,} numbers to be whitened, as "
            f"their covariance has the square of that, got {features:,}, {size}"
        )
    normalized = _changed(data, gcn)
    zca = ZCA().fit(normalized.x_train)
    return _changed(normalized, zca.apply)


def _on_each(step: Callable[[np.ndarray], np.ndarray]) -> Callable[[Dataset], Dataset]:
    return lambda data: _changed(data, step)


# Those that look at each image by itself, on arrays (n, ...).
_IMAGE_STEPS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    step.__name__: step
    for step in (pixels, unit, zero_one, bipolar, fraction, contrast, local_contrast)
}

STEPS: dict[str, Callable[[Dataset], Dataset]] = {
    **{name: _on_each(step) for name, step in _IMAGE_STEPS.items()},
    "pixels": lambda data: data,  # itself, no copy
    "standard": standard,
    "whitened": whitened,
}


def preprocess(data: Dataset, name: str) -> Dataset:
    """Return the data set with its images as the named step makes them."""
    if name not in STEPS:
        raise ValueError(f"[preprocess] name must be one of {', '.join(STEPS)}, got {name!r:.80}")
    return STEPS[name](data)


def known_preprocessing(where: str, packed: Packed) -> str:
    """Return the name of the step that makes the input of a packed model, which must be known."""
    name = notes.preprocessing(packed)
    if name not in STEPS:
        raise ValueError(
            f"[{where}] the note preprocessing of a model must be one of {', '.join(STEPS)}, "
            f"got {name!r:.80}"
        )
    return name


def takes_pictures(name: str) -> bool:
    """Tell whether a step looks at each image by itself, so that a model can be given any one."""
    return name in _IMAGE_STEPS


def image_step(packed: Packed) -> Callable[[np.ndarray], np.ndarray]:
    """Return what makes the input of a packed model of uint8 pixels, as its notes name it."""
    name = notes.preprocessing(packed)

    def refuse(x: np.ndarray) -> np.ndarray:
        raise ValueError(
            f"[predict] the model takes what preprocessing {name!r:.80} makes out of a whole data "
            f"set: give arrays of its float32 numbers instead of pixels"
        )

    return _IMAGE_STEPS.get(name, refuse)


def makes_inputs(name: str, packed: Packed) -> bool:
    """Tell whether a step makes what the first product of a packed model was trained on.

    That is what its notes name, or what a PackedBatchNorm at its beginning makes of that.
    """
    own, layers = notes.preprocessing(packed), packed.flat_layers()
    if not (layers and isinstance(layers[0], PackedBatchNorm)):
        return own == name
    if name not in _IMAGE_STEPS or own not in _IMAGE_STEPS:
        return False
    ends = np.zeros((2, *(packed.input_shape or (layers[0].in_features,))), np.uint8)
    ends[1] = 255
    inputs = np.asarray(layers[0].forward(_IMAGE_STEPS[own](ends)))
    return bool(np.allclose(inputs, _IMAGE_STEPS[name](ends), atol=1e-3))


def _changed(data: Dataset, step: Callable[[np.ndarray], np.ndarray]) -> Dataset:
    return replace(
        data,
        x_train=step(data.x_train),
        x_validation=step(data.x_validation),
        x_test=step(data.x_test),
    )
