"""Image data sets as uint8 rows, with a fixed split into training, validation and test."""

from __future__ import annotations

import gzip
import math
import os
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np


@dataclass(frozen=True)
class Dataset:
    """Images as rows of uint8 numbers, and their labels as int64.

    `x_*` have shape (n, height * width); `x.reshape(-1, *image_shape)` gives images again.
    """

    name: str
    image_shape: tuple[int, int]
    classes: int
    x_train: np.ndarray
    y_train: np.ndarray
    x_validation: np.ndarray
    y_validation: np.ndarray
    x_test: np.ndarray
    y_test: np.ndarray

    def __repr__(self) -> str:
        sizes = f"{len(self.y_train)} + {len(self.y_validation)} + {len(self.y_test)} images"
        return f"Dataset({self.name}: {sizes}, {self.image_shape}, {self.classes} classes)"


def load_digits() -> Dataset:
    """The 1797 handwritten digits of 8 x 8 pixels that scikit-learn carries.

    Pixels are 0..16. Of every seven images in a row, the fourth is for validation (257), the sixth
    for the test (256), and the other five for training (1284).

    Raises
    ------
    ImportError
        If scikit-learn is missing.
    """
    try:
        from sklearn.datasets import load_digits as load
    except ImportError as error:
        raise ImportError(
            "[load_digits] scikit-learn is needed: pip install 'bitops[demo]'"
        ) from error
    x, y = load(return_X_y=True)
    x, y = x.astype(np.uint8), y.astype(np.int64)
    # 7 and the labels, which partly repeat with period 10, have no common factor
    turn = np.arange(len(y)) % 7
    validation, test = turn == 3, turn == 5
    train = ~(validation | test)
    return Dataset(
        "digits", (8, 8), 10, x[train], y[train], x[validation], y[validation], x[test], y[test]
    )


def load_mnist(folder: str | os.PathLike) -> Dataset:
    """MNIST, or a data set in the same four files, from a folder of IDX files.

    The last sixth of the training images (10,000 of 60,000) is for validation.

    Parameters
    ----------
    folder : path
        Holds train-images-idx3-ubyte, train-labels-idx1-ubyte, t10k-images-idx3-ubyte and
        t10k-labels-idx1-ubyte, each as it is or with .gz.

    Raises
    ------
    FileNotFoundError
        If one of the four is missing.
    ValueError
        If one is not a complete IDX file of the right kind, or images and labels do not match.
    """
    folder = Path(folder)
    x, y = _images_and_labels(folder, "train")
    x_test, y_test = _images_and_labels(folder, "t10k")
    image_shape = x.shape[1:]
    if x_test.shape[1:] != image_shape:
        raise ValueError(
            f"[load_mnist] training and test images must have one size, "
            f"got {image_shape} and {x_test.shape[1:]}"
        )
    x, x_test = x.reshape(len(x), -1), x_test.reshape(len(x_test), -1)
    train = len(y) - len(y) // 6
    return Dataset(
        folder.resolve().name,
        image_shape,
        int(max(y.max(), y_test.max())) + 1,
        x[:train],
        y[:train],
        x[train:],
        y[train:],
        x_test,
        y_test,
    )


def _images_and_labels(folder: Path, part: str) -> tuple[np.ndarray, np.ndarray]:
    images = read_idx(_find(folder, f"{part}-images-idx3-ubyte"), ndim=3)
    labels = read_idx(_find(folder, f"{part}-labels-idx1-ubyte"), ndim=1)
    if len(images) != len(labels) or not images.size:
        raise ValueError(
            f"[load_mnist] {part} images and labels must be equally many, at least one, "
            f"got {images.shape} and {labels.shape}"
        )
    return images, labels.astype(np.int64)


def _find(folder: Path, name: str) -> Path:
    for path in (folder / name, folder / f"{name}.gz"):
        if path.is_file():
            return path
    raise FileNotFoundError(f"[load_mnist] {name} or {name}.gz must be in {folder}")


def read_idx(path: str | os.PathLike, ndim: int) -> np.ndarray:
    """Read an IDX file of unsigned bytes.

    Parameters
    ----------
    path : path
        Decompressed on the way if it ends in .gz.
    ndim : int
        Number of axes that the file must have.

    Returns
    -------
    ndarray of uint8

    Raises
    ------
    ValueError
        If the header is another one, or the data is shorter or longer than it says.

    Notes
    -----
    Header, big-endian: bytes 0, 0, 8 (unsigned byte), ndim, then each size as uint32.
    """
    path = Path(path)
    try:
        data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise ValueError(f"[read_idx] {path} must be a complete gzip file: {error}") from error
    header = 4 + 4 * ndim
    if len(data) < header or data[:4] != bytes([0, 0, 8, ndim]):
        raise ValueError(
            f"[read_idx] {path} must start with the IDX header of {ndim}-D bytes, "
            f"got {data[:4].hex(' ') or 'nothing'} ({len(data)} bytes)"
        )
    shape = tuple(int(size) for size in np.frombuffer(data, dtype=">u4", count=ndim, offset=4))
    # math.prod of Python integers: the sizes in a damaged header may exceed 64 bits together
    expected = header + math.prod(shape)
    if len(data) != expected:
        raise ValueError(
            f"[read_idx] {path} must have {expected} bytes for shape {shape}, got {len(data)}"
        )
    return np.frombuffer(data, dtype=np.uint8, offset=header).reshape(shape)
