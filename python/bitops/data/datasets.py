"""Image data sets as uint8 arrays, with a fixed split into training, validation and test parts."""

from __future__ import annotations

import gzip
import io
import math
import os
import struct
import tarfile
import zlib
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

import numpy as np

from ..files.pictures import PICTURES
from ..files.reading import open_regular, read_regular
from .dataset import Dataset
from .matlab import read_arrays
from .own import has_pictures, load_images, load_npz

__all__ = [
    "Dataset",
    "load_cifar10",
    "load_dataset",
    "load_digits",
    "load_images",
    "load_mnist",
    "load_npz",
    "load_svhn",
    "read_idx",
]

CIFAR_SHAPE = (32, 32, 3)
SVHN_SHAPE = (32, 32, 3)
# A file of CIFAR-10's binary version has 10,000 records: a label and three planes of pixels.
CIFAR_RECORD = 1 + math.prod(CIFAR_SHAPE)  # bytes
MAX_CIFAR_RECORDS = 10_000
# The largest of the JPEG copies has 1,124 bytes. A much larger file is not one of them.
MAX_JPEG_BYTES = 1 << 16
# The largest known IDX file of images (EMNIST) has less than a third of these bytes, and a tenth of
# these items.
MAX_IDX_BYTES = 1 << 31
MAX_IDX_ITEMS = 10_000_000  # labels become eight times as large


def load_digits() -> Dataset:
    """Load the 1797 handwritten digits of 8 x 8 pixels that come with scikit-learn.

    The pixels are in 0..16. In every seven successive images, the fourth is for validation (257 in
    total), the sixth for the test (256), and the other five for training (1284).

    Returns
    -------
    Dataset

    Raises
    ------
    ImportError
        If scikit-learn is not installed.

    Examples
    --------
    >>> data = load_digits()
    >>> len(data.x_train), len(data.x_validation), len(data.x_test)
    (1284, 257, 256)
    """
    try:
        from sklearn.datasets import load_digits as load
    except ImportError as error:
        raise ImportError(
            "[load_digits] scikit-learn is needed: pip install scikit-learn"
        ) from error
    x, y = load(return_X_y=True)
    x, y = x.astype(np.uint8), y.astype(np.int64)
    # The labels partly repeat with period 10, which has no common factor with 7.
    turn = np.arange(len(y)) % 7
    validation, test = turn == 3, turn == 5
    train = ~(validation | test)
    return Dataset(
        "digits", (8, 8), 10, x[train], y[train], x[validation], y[validation], x[test], y[test]
    )


def load_mnist(folder: str | os.PathLike) -> Dataset:
    """Read MNIST, or a data set with files of the same names and format.

    The last sixth of the training images (10,000 of 60,000) is for validation.

    Parameters
    ----------
    folder : path
        Holds the IDX files train-images-idx3-ubyte, train-labels-idx1-ubyte,
        t10k-images-idx3-ubyte and t10k-labels-idx1-ubyte, each plain or compressed as .gz.

    Returns
    -------
    Dataset
        Named like the folder.

    Raises
    ------
    FileNotFoundError
        If one of the four files is missing.
    ValueError
        If a file is not a complete IDX file of the right kind, the images differ in size, or there
        are not as many labels as images.

    Examples
    --------
    >>> data = load_mnist("mnist")  # doctest: +SKIP
    >>> data.x_train.shape  # doctest: +SKIP
    """
    folder = Path(folder)
    x, y = _images_and_labels(folder, "train")
    x_test, y_test = _images_and_labels(folder, "t10k")
    image_shape = x.shape[1:]
    if x_test.shape[1:] != image_shape:
        raise ValueError(
            f"[load_mnist] training and test images must have the same size, "
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
    """Read the images and labels of one part, "train" or "t10k"."""
    images = read_idx(_find(folder, f"{part}-images-idx3-ubyte"), ndim=3)
    labels = read_idx(_find(folder, f"{part}-labels-idx1-ubyte"), ndim=1)
    if len(images) != len(labels) or not images.size:
        raise ValueError(
            f"[load_mnist] {part} must have as many images as labels, at least one, "
            f"got shapes {images.shape} and {labels.shape}"
        )
    return images, labels.astype(np.int64)


def _find(folder: Path, name: str) -> Path:
    """Find a file of MNIST, plain or compressed."""
    for path in (folder / name, folder / f"{name}.gz"):
        if path.is_file():
            return path
    raise FileNotFoundError(f"[load_mnist] {name} or {name}.gz must be in {folder}")


def read_idx(path: str | os.PathLike, ndim: int) -> np.ndarray:
    """Read an IDX file of unsigned bytes.

    Parameters
    ----------
    path : path
        The file is decompressed if its name ends in .gz.
    ndim : int
        Number of axes that the array must have.

    Returns
    -------
    ndarray of `ndim` axes, uint8

    Raises
    ------
    OSError
        If the file cannot be read.
    ValueError
        If the header is not that of such an array, or the data is shorter or longer than the header
        says, exceeds 2 GiB, or has more than 10 million items; or if it is not a regular file.

    Notes
    -----
    The header is big-endian, and the data follows in C order::

        0  0  8  ndim           4 bytes; 8 means unsigned bytes
        size of axis 0          4 bytes
        ...
    """
    path = Path(path)
    try:
        with _open_idx(path) as file, gzip.open(file) if path.suffix == ".gz" else file as plain:
            shape = _idx_shape(path, plain.read(4 + 4 * ndim), ndim)
            expected = math.prod(shape)
            data = _read_at_most(plain, expected + 1)
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise ValueError(f"[read_idx] {path} must be a complete gzip file: {error}") from error
    if len(data) != expected:
        more = "more" if len(data) > expected else str(len(data))
        raise ValueError(
            f"[read_idx] {path} must have {expected} bytes for shape {shape} after its header, "
            f"got {more}"
        )
    return np.frombuffer(data, dtype=np.uint8).reshape(shape)


def _open_idx(path: Path) -> BinaryIO:
    try:
        return open_regular(path)
    except ValueError as error:
        raise ValueError(f"[read_idx] {error}: {path}") from None


def _idx_shape(path: Path, header: bytes, ndim: int) -> tuple[int, ...]:
    """Check the header of an IDX file, and return the shape that it gives."""
    if len(header) < 4 + 4 * ndim or header[:4] != bytes([0, 0, 8, ndim]):
        raise ValueError(
            f"[read_idx] {path} must start with the IDX header of {ndim}-D bytes, "
            f"got {header[:4].hex(' ') or 'nothing'} ({len(header)} bytes)"
        )
    shape = tuple(int(size) for size in np.frombuffer(header, dtype=">u4", offset=4))
    # Python integers, because the product of the sizes in a damaged header may exceed 64 bits.
    if math.prod(shape) > MAX_IDX_BYTES:
        raise ValueError(
            f"[read_idx] {path} must have at most {MAX_IDX_BYTES} bytes of data, got shape {shape}"
        )
    if shape and shape[0] > MAX_IDX_ITEMS:
        raise ValueError(
            f"[read_idx] {path} must have at most {MAX_IDX_ITEMS:,} items, got {shape[0]:,}"
        )
    return shape


def _read_at_most(file: gzip.GzipFile | BinaryIO, count: int) -> bytearray:
    """Read up to `count` bytes in pieces; only bytes that exist take memory, and only once."""
    data = bytearray()
    while len(data) < count and (part := file.read(min(count - len(data), 1 << 20))):
        data += part
    return data


def load_cifar10(folder: str | os.PathLike) -> Dataset:
    """Read CIFAR-10, colour images of shape (n, 32, 32, 3), from the original or from JPEG copies.

    The last tenth of the training images of each class is for validation. This gives 45,000
    training, 5,000 validation and 10,000 test images, with all classes equally frequent in each.

    Parameters
    ----------
    folder : path
        Holds either the "binary version" of the original, data_batch_1.bin to data_batch_5.bin and
        test_batch.bin; or the uncompressed archives train.tar and test.tar, with JPEG files named
        <anything>/<class>/<name>.jpg. The JPEG files are read in the order of their names, and
        their classes are numbered in alphabetical order. If both are there, the original is read.

    Returns
    -------
    Dataset
        Named "CIFAR-10" or "CIFAR-10 (JPEG copies)". JPEG changes the pixels, so errors measured on
        the copies cannot be compared with published ones.

    Raises
    ------
    FileNotFoundError
        If a file is missing.
    ImportError
        If there are JPEG copies to read, and Pillow is not installed.
    ValueError
        If a file is damaged, an image is not a colour image of 32 x 32 pixels, or the classes of a
        part are not equally frequent or not those of the other part.

    Examples
    --------
    >>> data = load_cifar10("cifar-10-batches-bin")  # doctest: +SKIP
    >>> data.x_train.shape  # doctest: +SKIP
    """
    folder = Path(folder)
    if not (folder / "data_batch_1.bin").is_file() and (folder / "train.tar").is_file():
        name = "CIFAR-10 (JPEG copies)"
        x, classes = _read_jpegs(_cifar_file(folder, "train.tar"))
        x_test, test_classes = _read_jpegs(_cifar_file(folder, "test.tar"))
    else:
        name = "CIFAR-10"
        batches = [_read_batch(_cifar_file(folder, f"data_batch_{i}.bin")) for i in (1, 2, 3, 4, 5)]
        x, classes = (np.concatenate(parts) for parts in zip(*batches, strict=True))
        x_test, test_classes = _read_batch(_cifar_file(folder, "test_batch.bin"))
    names, y, counts = np.unique(classes, return_inverse=True, return_counts=True)
    test_names, y_test, test_counts = np.unique(
        test_classes, return_inverse=True, return_counts=True
    )
    # A tar file that was cut off between two images reads without an error. This finds it.
    if not np.array_equal(names, test_names) or np.ptp(counts) or np.ptp(test_counts):
        raise ValueError(
            f"[load_cifar10] {folder} must hold the same classes for training and test, all "
            f"equally often, got {dict(zip(names.tolist(), counts.tolist(), strict=True))} and "
            f"{dict(zip(test_names.tolist(), test_counts.tolist(), strict=True))}"
        )
    validation = _last_tenth_of_each(y)
    return Dataset(
        name,
        CIFAR_SHAPE,
        len(names),
        x[~validation],
        y[~validation],
        x[validation],
        y[validation],
        x_test,
        y_test,
    )


def _last_tenth_of_each(y: np.ndarray) -> np.ndarray:
    """Return a mask of the last tenth of the examples of each class."""
    chosen = np.zeros(len(y), bool)
    for label in np.unique(y):
        own = np.flatnonzero(y == label)
        chosen[own[len(own) - len(own) // 10 :]] = True
    return chosen


def _cifar_file(folder: Path, name: str) -> Path:
    """Check that a file of CIFAR-10 is there."""
    path = folder / name
    if path.is_file():
        return path
    raise FileNotFoundError(
        f"[load_cifar10] {name} must be in {folder}: either the binary version of CIFAR-10, "
        "data_batch_1.bin .. data_batch_5.bin and test_batch.bin, or JPEG copies in train.tar and "
        "test.tar"
    )


def _read_batch(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Read images (n, 32, 32, 3) and labels from one file of the binary version."""
    size = path.stat().st_size
    count, rest = divmod(size, CIFAR_RECORD)
    if rest or not 1 <= count <= MAX_CIFAR_RECORDS:
        raise ValueError(
            f"[load_cifar10] {path} must hold 1 to {MAX_CIFAR_RECORDS:,} records of "
            f"{CIFAR_RECORD:,} bytes, got {size:,} bytes"
        )
    records = np.fromfile(path, np.uint8).reshape(count, CIFAR_RECORD)
    labels = records[:, 0]
    if labels.max() > 9:
        raise ValueError(f"[load_cifar10] labels in {path} must be 0..9, got {labels.max()}")
    height, width, channels = CIFAR_SHAPE
    planes = records[:, 1:].reshape(count, channels, height, width)
    return np.ascontiguousarray(planes.transpose(0, 2, 3, 1)), labels


def _read_jpegs(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Read images (n, 32, 32, 3) and their classes from a tar file, in the order of file names."""
    try:
        from PIL import Image
    except ImportError as error:
        raise ImportError(
            "[load_cifar10] Pillow is needed for JPEG copies: pip install pillow"
        ) from error

    try:
        with tarfile.open(path, "r:") as tar:
            members = sorted((m for m in tar if not m.isdir()), key=lambda m: m.name)
            classes = [_class_of(path, member) for member in members]
            images = np.empty((len(members), *CIFAR_SHAPE), np.uint8)
            for image, member in zip(images, members, strict=True):
                file = tar.extractfile(member)
                assert file is not None  # _class_of accepts regular files only
                image[...] = _decode(Image, path, member.name, file.read())
    except (tarfile.TarError, EOFError) as error:
        raise ValueError(f"[load_cifar10] {path} must be a complete tar file: {error}") from error
    if not classes:
        raise ValueError(f"[load_cifar10] {path} must hold JPEG files, got none")
    return images, np.array(classes)


def _class_of(path: Path, member: tarfile.TarInfo) -> str:
    """Check that a member is a JPEG file of plausible size, and return the name of its folder."""
    name = PurePosixPath(member.name)
    if not (member.isreg() and name.suffix == ".jpg" and name.parent.name):
        raise ValueError(
            f"[load_cifar10] {path} must hold files <class>/<name>.jpg, got {member.name!r}"
        )
    if member.size > MAX_JPEG_BYTES:
        raise ValueError(
            f"[load_cifar10] {member.name} in {path} must have at most {MAX_JPEG_BYTES:,} bytes, "
            f"got {member.size:,}"
        )
    return name.parent.name


def _decode(image_module, path: Path, name: str, data: bytes) -> np.ndarray:
    """Decode one JPEG file; its header is checked before its pixels are decoded."""
    try:
        with image_module.open(io.BytesIO(data), formats=("JPEG",)) as image:
            height, width, _ = CIFAR_SHAPE
            if image.size != (width, height) or image.mode != "RGB":
                raise ValueError(f"got {image.size} pixels, {image.mode}")
            return np.asarray(image)
    except (OSError, EOFError, SyntaxError, ValueError, struct.error) as error:
        raise ValueError(
            f"[load_cifar10] {name} in {path} must be a complete JPEG image of 32 x 32 pixels in "
            f"colour: {error}"
        ) from error


def load_svhn(folder: str | os.PathLike) -> Dataset:
    """Read SVHN, cropped digits: colour images of shape (n, 32, 32, 3), labelled by their digit.

    The last tenth of the training images of each class is for validation. The extra training images
    are not read.

    Parameters
    ----------
    folder : path
        Holds the MATLAB files train_32x32.mat and test_32x32.mat ("format 2"), in version 5 as
        published, or 7.3.

    Returns
    -------
    Dataset

    Raises
    ------
    FileNotFoundError
        If a file is missing.
    ImportError
        If a file has version 7.3, and h5py is not installed.
    ValueError
        If a file is damaged, has another version, or does not hold images X and labels y.

    Examples
    --------
    >>> data = load_svhn("svhn")  # doctest: +SKIP
    >>> data.x_train.shape  # doctest: +SKIP
    """
    folder = Path(folder)
    x, y = _read_svhn(folder / "train_32x32.mat")
    x_test, y_test = _read_svhn(folder / "test_32x32.mat")
    validation = _last_tenth_of_each(y)
    return Dataset(
        "SVHN",
        SVHN_SHAPE,
        10,
        x[~validation],
        y[~validation],
        x[validation],
        y[validation],
        x_test,
        y_test,
    )


def _read_svhn(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Read images (n, 32, 32, 3) and labels 0..9 from one file."""
    if not path.is_file():
        raise FileNotFoundError(
            f"[load_svhn] {path.name} must be in {path.parent}: the cropped digits of SVHN, "
            "train_32x32.mat and test_32x32.mat"
        )
    try:
        arrays = read_arrays(read_regular(path), ("X", "y"))
    except ImportError as error:
        raise ImportError(f"[load_svhn] {error}") from None
    except ValueError as error:
        raise ValueError(f"[load_svhn] {path} must be a complete MATLAB file: {error}") from error
    x, y = arrays.get("X"), arrays.get("y")
    if x is None or x.dtype != np.uint8 or x.ndim != 4 or x.shape[:3] != SVHN_SHAPE:
        found = "none" if x is None else f"{x.dtype} of shape {x.shape}"
        raise ValueError(
            f"[load_svhn] X in {path} must be uint8 of shape (32, 32, 3, n), got {found}"
        )
    count = x.shape[3]
    if y is None or y.dtype.kind not in "iuf" or y.shape != (count, 1) or not count:
        found = "none" if y is None else f"{y.dtype} of shape {y.shape}"
        raise ValueError(f"[load_svhn] y in {path} must have shape ({count}, 1), got {found}")
    digits = np.isin(y, np.arange(1, 11))
    if not digits.all():
        raise ValueError(f"[load_svhn] y in {path} must be 1, 2, .. 10, got {y[~digits][0]}")
    labels = y[:, 0].astype(np.int64) % 10  # label 10 means digit 0
    return np.ascontiguousarray(x.transpose(3, 0, 1, 2)), labels


# For each kind of data set, the files that identify it, and its loader.
_MARKS: dict[str, tuple[tuple[str, ...], Callable[[str | os.PathLike], Dataset]]] = {
    "mnist": (
        tuple(
            f"{part}-images-idx3-ubyte{end}" for part in ("train", "t10k") for end in ("", ".gz")
        ),
        load_mnist,
    ),
    "cifar10": (("data_batch_1.bin", "test_batch.bin", "train.tar", "test.tar"), load_cifar10),
    "svhn": (("train_32x32.mat", "test_32x32.mat"), load_svhn),
}


def load_dataset(folder: str | os.PathLike, **own: Any) -> tuple[str, Dataset]:
    """Find out which data set a folder holds, and read it.

    Parameters
    ----------
    folder : path
        Holds the files of `load_mnist`, `load_cifar10` or `load_svhn`, tried in this order; or
        pictures in folders, for `load_images`. Or it is a .npz file, for `load_npz`.
    **own
        Options of `load_images`, which change no other data set.

    Returns
    -------
    kind : {"mnist", "cifar10", "svhn", "own"}
        "mnist" means any data set with the files of MNIST.
    data : Dataset

    Raises
    ------
    FileNotFoundError
        If the folder holds none of them, or a file is missing.
    ImportError, ValueError
        As in the reader.

    Examples
    --------
    >>> data = load_dataset("photos", size=32)  # doctest: +SKIP
    >>> data.class_names  # doctest: +SKIP
    """
    folder = Path(folder)
    if not folder.exists():
        raise FileNotFoundError(f"[load_dataset] there is no file or folder {folder}")
    for kind, (names, load) in _MARKS.items():
        if any((folder / name).is_file() for name in names):
            return kind, load(folder)
    if folder.suffix == ".npz":
        return "own", load_npz(folder)
    if has_pictures(folder):
        return "own", load_images(folder, **own)
    raise FileNotFoundError(
        f"[load_dataset] {folder} must hold the files of MNIST (train-images-idx3-ubyte, ...), "
        "CIFAR-10 (data_batch_1.bin, ... or train.tar) or SVHN (train_32x32.mat, ...), or a folder "
        f"of pictures ({', '.join(PICTURES)}) for each class, got none"
    )
