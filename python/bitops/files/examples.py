"""Examples for a model, from files: pictures, arrays, and folders of them."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..ops.array import BitArray, pack
from .arrays import npz_array, read_npy
from .pictures import PICTURES, is_picture, open_picture, read_pixels

__all__ = ["Batch", "Examples", "find_files", "holds_arrays"]

ARRAYS = ".npy", ".npz"


def find_files(paths: Iterable[Path]) -> list[Path]:
    """Return the files themselves, and the pictures and arrays in folders, by name.

    Raises
    ------
    OSError
        If a path is not there.
    ValueError
        If a file is of no known kind, or a folder holds none of them.
    """
    found = []
    for path in paths:
        if not path.is_dir():
            path.stat()  # an error now rather than behind many others
            if not _is_known(path):
                known = ", ".join((*PICTURES, *ARRAYS))
                raise ValueError(f"[predict] a file must end in one of {known}, got {path}")
            found.append(path)
            continue
        inside = [Path(at, name) for at, _, names in os.walk(path) for name in names]
        inside = sorted(file for file in inside if _is_known(file))
        if not inside:
            raise ValueError(f"[predict] a folder must hold pictures or arrays, got {path}")
        found += inside
    return found


def _is_known(path: Path) -> bool:
    return is_picture(path) or holds_arrays(path)


def holds_arrays(path: Path) -> bool:
    """Tell whether a file holds arrays, rather than a picture."""
    return path.suffix.lower() in ARRAYS


@dataclass(frozen=True)
class Batch:
    """Examples, where they came from, and their places in those files, None for pictures."""

    files: Sequence[Path]
    places: Sequence[int | None]
    x: np.ndarray | BitArray


@dataclass(frozen=True)
class Examples:
    """Reads files as the examples that a model takes.

    Attributes
    ----------
    shape : tuple of int, optional
        That of one example; None if the model does not state it.
    prepare : callable
        Makes of uint8 pixels (n, ...), of pictures or arrays, what the model takes.
    resize : {"stretch", "crop"}, optional
        How pictures of other sizes are brought to that of the model; they are refused if None.
    image_shape : tuple of (height, width, channels), optional
        That of the pictures, where the model takes rows and tells it.
    """

    shape: tuple[int, ...] | None
    prepare: Callable[[np.ndarray], np.ndarray]
    resize: str | None = None
    image_shape: tuple[int, int, int] | None = None

    def batches(self, files: Iterable[Path], size: int) -> Iterator[Batch]:
        """Yield the examples of files in order, at most `size` at a time."""
        pictures: list[Path] = []
        for path in files:
            is_array = holds_arrays(path)
            if not is_array:
                pictures.append(path)
            if pictures and (is_array or len(pictures) == size):
                yield self._pictures(pictures)
                pictures = []
            if is_array:
                yield from self._array(path, size)
        if pictures:
            yield self._pictures(pictures)

    def _pictures(self, paths: list[Path]) -> Batch:
        x = np.stack([self._picture(path) for path in paths])
        return Batch(paths, [None] * len(paths), self.prepare(x))

    def _picture(self, path: Path) -> np.ndarray:
        shape = self.shape
        if shape is not None and self.image_shape is not None:
            is_same = math.prod(shape) == math.prod(self.image_shape)
            shape = self.image_shape if is_same else shape
        pixels = _read_picture(path, shape, self.resize)
        assert self.shape is not None
        return pixels.reshape(self.shape)

    def _array(self, path: Path, size: int) -> Iterator[Batch]:
        is_npy = path.suffix.lower() == ".npy"
        x = read_npy("predict", path) if is_npy else npz_array("predict", path, usual="x")
        x = _as_examples(path, x, self.shape)
        for start in range(0, len(x), size):
            part = x[start : start + size]
            if part.dtype == bool:
                made: np.ndarray | BitArray = pack(part)
            else:
                made = self.prepare(part) if part.dtype == np.uint8 else part
            count = len(part)
            yield Batch([path] * count, range(start, start + count), made)


def _as_examples(path: Path, x: np.ndarray, shape: tuple[int, ...] | None) -> np.ndarray:
    """Return an array as examples (n, *shape); axes of one element may lack or be too many."""
    if shape is None or x.shape[1:] == shape:
        return x
    if x.shape == shape:
        return x[None]
    long = [size for size in shape if size != 1]
    fits = x.ndim > 1 and math.prod(x.shape[1:]) == math.prod(shape)
    if fits and (len(shape) == 1 or [size for size in x.shape[1:] if size != 1] == long):
        return x.reshape(len(x), *shape)
    wanted = ", ".join(map(str, ("n", *shape)))
    hint = ""
    if len(shape) == 3 and x.shape[1:] == (shape[2], *shape[:2]):
        hint = "; channels come last: x.transpose(0, 2, 3, 1)"
    raise ValueError(f"[predict] {path} must hold examples ({wanted}), got shape {x.shape}{hint}")


def _read_picture(path: Path, shape: tuple[int, ...] | None, resize: str | None) -> np.ndarray:
    """Return the pixels (h, w, c) of a picture, for a model that takes examples of a shape.

    Pictures are turned as their cameras say, and get the channels that the model takes.
    """
    if shape is None or len(shape) not in (1, 3):
        stated = "no shape of its input" if shape is None else f"the input shape {shape}"
        raise ValueError(f"[predict] pictures need a model of images, got one that states {stated}")
    image = open_picture("predict", path)
    wanted = _picture_shape(path, image.size, shape, resize)
    pixels = read_pixels("predict", image, wanted, resize)
    if pixels is None:
        height, width, _ = wanted
        raise ValueError(
            f"[predict] {path} must be {width} x {height} pixels, as the model takes them, got "
            f"{image.width} x {image.height}; --resize brings pictures to that size"
        )
    return pixels


def _picture_shape(
    path: Path, size: tuple[int, int], shape: tuple[int, ...], resize: str | None
) -> tuple[int, int, int]:
    """Return height, width and channels of a picture for a model of images, or of rows."""
    if len(shape) == 3:
        return shape[0], shape[1], shape[2]
    (features,), (width, height) = shape, size
    for channels in (1, 3):
        if width * height * channels == features:
            return height, width, channels
    for channels in (1, 3):
        side = math.isqrt(features // channels)
        if resize is not None and side * side * channels == features:
            return side, side, channels
    raise ValueError(
        f"[predict] {path} must have {features} numbers, as the model takes them, got "
        f"{width} x {height} pixels"
    )
