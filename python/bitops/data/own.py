"""Images of one's own: a folder of pictures for each class, or arrays in a .npz file."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..files.arrays import read_npz
from ..files.pictures import PICTURES, RESIZE, is_picture, open_picture, read_header, read_pixels
from .dataset import Dataset

__all__ = ["has_pictures", "load_images", "load_npz"]

PARTS = "train", "validation", "test"
# Names of the folders, and endings of the names of the arrays, of each part.
NAMES = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "val"),
    "test": ("test", "testing"),
}
LARGEST = 64  # pixels a side of pictures that stay as they are
SIZE = 32  # of other pictures

Part = tuple[np.ndarray, np.ndarray]
Shape = tuple[int, int, int]


def load_images(
    folder: str | os.PathLike,
    *,
    size: int | tuple[int, int] | None = None,
    channels: int | None = None,
    resize: str | None = None,
) -> Dataset:
    """Read pictures, which lie in a folder for each class.

    Parameters
    ----------
    folder : path
        Holds a folder for each class; or folders train (or training), and test (or testing) or val
        (or valid, validation), in small or large letters, each with those of the classes. Parts
        that are not there are taken from the training images: for each a tenth of every class, at
        least one, chosen by a hash of the names of the files. So the choice is always the same.
        Files are .png, .jpg or .bmp, in folders of any depth; others, and names that begin with a
        dot, do not count.
    size : int or tuple of (height, width), optional
        Of the images. By default pictures of one size of at most 64 x 64 pixels keep it, and others
        are brought to 32 x 32.
    channels : {1, 3}, optional
        1 for grey and 3 for colour; by default grey only if all pictures are. What is transparent
        shows white.
    resize : {"crop", "stretch"}, optional
        How pictures of another size are brought to that of the images; "crop", the default, cuts
        them to their proportions.

    Returns
    -------
    Dataset
        Named like the folder; classes are in the order of their names. The images have shape
        (n, height, width, channels).

    Raises
    ------
    ImportError
        If Pillow is not installed.
    OSError
        If a file cannot be read.
    ValueError
        If there are less than two classes, one has no pictures or too few to choose from, or a
        picture is damaged; or if an option is not as above.

    Examples
    --------
    >>> data = load_images("photos", size=32)  # doctest: +SKIP
    >>> data.class_names  # doctest: +SKIP
    """
    folder = Path(folder)
    _check_options(size, channels, resize)
    found = _find(folder)
    names = sorted({name for part in found.values() for name in part})
    _check_classes(folder, names, found)
    paths = {part: [path for name in names for path in found[part].get(name, ())] for part in found}
    labels = {
        part: np.repeat(range(len(names)), [len(found[part].get(name, ())) for name in names])
        for part in found
    }
    missing = [part for part in PARTS[1:] if part not in found]
    words = [os.fsencode(path.relative_to(folder).as_posix()) for path in paths["train"]]
    order = np.argsort([hashlib.sha256(word).hexdigest() for word in words])
    where = _choose(f"[load_images] {folder}", labels["train"], order, missing, names)
    every = [path for part in found for path in paths[part]]
    shape = _image_shape(every, size, channels)
    parts = {part: _read(paths[part], shape, resize or RESIZE[1]) for part in found}
    return _dataset(folder.resolve().name, names, parts, labels, where)


def has_pictures(folder: Path) -> bool:
    """Tell whether there is a picture somewhere in a folder."""
    return any(True for _ in _pictures(folder))


def _check_options(size: Any, channels: int | None, resize: str | None) -> None:
    sides = size if isinstance(size, tuple) else (size, size)
    if size is not None and (len(sides) != 2 or not all(type(s) is int and s > 0 for s in sides)):
        raise ValueError(f"[load_images] size must be one or two sizes above 0, got {size!r}")
    if channels not in (None, 1, 3):
        raise ValueError(f"[load_images] channels must be 1 or 3, got {channels!r}")
    if resize not in (None, *RESIZE):
        raise ValueError(f"[load_images] resize must be 'crop' or 'stretch', got {resize!r}")


def _pictures(folder: Path) -> Iterator[Path]:
    for at, inner, names in os.walk(folder):
        inner[:] = sorted(name for name in inner if not name.startswith("."))
        for name in sorted(names):
            if is_picture(name) and not name.startswith("."):
                yield Path(at, name)


def _folders(folder: Path) -> list[Path]:
    there = sorted(folder.iterdir())
    return [path for path in there if path.is_dir() and not path.name.startswith((".", "__"))]


def _find(folder: Path) -> dict[str, dict[str, list[Path]]]:
    """Return the pictures of each class of each part that there is."""
    inner = [path.name for path in _folders(folder)]
    there = {
        part: [name for name in inner if name.lower() in names] for part, names in NAMES.items()
    }
    # a folder "train" may also be a class, beside others
    has_parts = there["test"] or there["validation"] or inner == there["train"]
    if not (has_parts and any(_folders(folder / name) for name in there["train"])):
        return {"train": _by_class(folder)}
    for part, names in there.items():
        if len(names) > 1:
            raise ValueError(f"[load_images] {folder} must hold one {part} folder, got {names}")
    return {part: _by_class(folder / names[0]) for part, names in there.items() if names}


def _by_class(folder: Path) -> dict[str, list[Path]]:
    classes = {path.name: list(_pictures(path)) for path in _folders(folder)}
    for name, paths in classes.items():
        if not paths:
            raise ValueError(
                f"[load_images] the folder of each class must hold pictures "
                f"({', '.join(PICTURES)}), got none in {folder / name}"
            )
    return classes


def _check_classes(folder: Path, names: list[str], found: dict[str, dict[str, list[Path]]]) -> None:
    if len(names) < 2:
        got = f"one, {names[0]!r}" if names else "none"
        raise ValueError(
            f"[load_images] {folder} must hold folders of at least two classes, got {got}"
        )
    unknown = sorted(set(names) - found["train"].keys())
    if unknown:
        raise ValueError(
            f"[load_images] {folder} must have training pictures of every class, got none of "
            f"{', '.join(map(repr, unknown))}"
        )


def _choose(
    source: str, y: np.ndarray, order: np.ndarray, parts: Sequence[str], names: Sequence[str]
) -> np.ndarray:
    """Return the part of each training image: the first tenths of each class go to other parts."""
    where = np.full(len(y), PARTS[0], dtype="U10")
    for label, name in enumerate(names):
        own = order[y[order] == label]
        if len(own) <= len(parts):
            raise ValueError(
                f"{source} must hold at least {len(parts) + 1} images of each class, for "
                f"training, {' and '.join(parts)}, got {len(own)} of {name!r}"
            )
        tenth = max(1, len(own) // 10)
        for i, part in enumerate(parts):
            where[own[i * tenth : (i + 1) * tenth]] = part
    return where


def _image_shape(paths: list[Path], size: Any, channels: int | None) -> Shape:
    """Return height, width and channels of the images, where not given those of the pictures."""
    if size is None or channels is None:
        sizes, greys = zip(*(read_header("load_images", path) for path in paths), strict=True)
        if channels is None:
            channels = 1 if all(greys) else 3
        if size is None:
            width, height = sizes[0]
            fits = len(set(sizes)) == 1 and max(width, height) <= LARGEST
            size = (height, width) if fits else SIZE
    height, width = (size, size) if isinstance(size, int) else size
    return height, width, channels


def _read(paths: list[Path], shape: Shape, resize: str) -> np.ndarray:
    x = np.empty((len(paths), *shape), np.uint8)
    for image, path in zip(x, paths, strict=True):
        pixels = read_pixels("load_images", open_picture("load_images", path), shape, resize)
        assert pixels is not None  # pictures of any size are brought to that of the images
        image[...] = pixels
    return x


def _dataset(
    name: str,
    names: Sequence[str],
    x: dict[str, np.ndarray],
    y: dict[str, np.ndarray],
    where: np.ndarray,
) -> Dataset:
    """Put parts that were found, and those that are chosen from training images, together."""
    arrays = {}
    for part in PARTS:
        chosen = where == part
        is_found = part in x and part != "train"
        arrays[f"x_{part}"] = x[part] if is_found else x["train"][chosen]
        arrays[f"y_{part}"] = (y[part] if is_found else y["train"][chosen]).astype(np.int64)
    return Dataset(name, x["train"].shape[1:], len(names), **arrays, class_names=tuple(names))


def load_npz(path: str | os.PathLike) -> Dataset:
    """Read images and labels from the arrays of a .npz file.

    Parameters
    ----------
    path : path
        Holds arrays x and y; or x_train and y_train, with x_test, y_test, x_val and y_val where
        there are such parts; or arrays of the other names that `load_images` takes, such as
        x_training. Parts that are not there are chosen at random from the training images, always
        in the same way: for each a tenth of every class, at least one. Images are uint8 of shape
        (n, height, width) or (n, height, width, channels), labels are integers or strings, also as
        UTF-8, of shape (n,) or (n, 1). Arrays whose names begin otherwise do not count.

    Returns
    -------
    Dataset
        Named like the file. Classes are the labels in order, and have their names. The images have
        shape (n, height, width, channels).

    Raises
    ------
    OSError
        If the file cannot be read.
    ValueError
        If it is damaged, or the arrays are not as above.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     x, y = np.zeros((60, 8, 8, 1), np.uint8), np.arange(60) % 3
    ...     np.savez(f"{folder}/own.npz", x=x, y=y)
    ...     data = load_npz(f"{folder}/own.npz")
    >>> data.image_shape, data.classes
    ((8, 8, 1), 3)
    """
    path = Path(path)
    arrays = read_npz("load_npz", path)
    pairs = _pairs(path, arrays)
    x = {part: _as_images(path, part, images) for part, (images, _) in pairs.items()}
    labels = {part: _as_labels(path, *pair) for part, pair in pairs.items()}
    if len({images.shape[1:] for images in x.values()}) > 1:
        sizes = ", ".join(str(images.shape[1:]) for images in x.values())
        raise ValueError(f"[load_npz] images in {path} must have one size, got {sizes}")
    classes = np.unique(labels["train"])
    if len(classes) < 2:
        raise ValueError(
            f"[load_npz] {path} must train two or more classes, got {len(classes)} of them"
        )
    for part, values in labels.items():
        if (values.dtype.kind == "U") != (classes.dtype.kind == "U"):
            raise ValueError(
                f"[load_npz] labels in {path} must all be integers or all be strings, got "
                f"{classes.dtype} in train and {values.dtype} in {part}"
            )
        unknown = np.setdiff1d(values, classes)
        if len(unknown):
            raise ValueError(
                f"[load_npz] {path} must have training images of every class, got none of the "
                f"label {unknown[0].item()!r}, which is in {part}"
            )
    y = {part: np.searchsorted(classes, values) for part, values in labels.items()}
    names = [str(value) for value in classes.tolist()]
    missing = [part for part in PARTS[1:] if part not in x]
    order = np.random.default_rng(0).permutation(len(y["train"]))
    where = _choose(f"[load_npz] {path}", y["train"], order, missing, names)
    return _dataset(path.stem, names, x, y, where)


def _pairs(path: Path, arrays: dict[str, np.ndarray]) -> dict[str, Part]:
    """Return images and labels of each part that there is."""
    endings = {f"_{ending}": part for part, endings in NAMES.items() for ending in endings}
    if "x" in arrays and "y" in arrays:
        endings = {"": "train"}
    used: list[str] = []
    pairs = {}
    for ending, part in endings.items():
        names = f"x{ending}", f"y{ending}"
        if part not in pairs and all(name in arrays for name in names):
            pairs[part] = arrays[names[0]], arrays[names[1]]
            used += names
    if "train" not in pairs:
        raise ValueError(
            f"[load_npz] {path} must hold arrays x and y, or x_train and y_train, got "
            f"{', '.join(arrays) or 'none'}"
        )
    left = [name for name in arrays if name.split("_")[0] in ("x", "y") and name not in used]
    if left:
        raise ValueError(
            f"[load_npz] arrays x and y in {path} must be one pair, or a pair for each of train, "
            f"validation and test, got {', '.join(left)} beside {', '.join(used)}"
        )
    return pairs


def _as_images(path: Path, part: str, x: np.ndarray) -> np.ndarray:
    if x.ndim == 3:
        x = x[..., np.newaxis]
    if not x.size:
        raise ValueError(
            f"[load_npz] {part} images in {path} must not be empty, got an array of shape {x.shape}"
        )
    if x.dtype != np.uint8 or x.ndim != 4:
        raise ValueError(
            f"[load_npz] images in {path} must be uint8 of shape (n, height, width) or (n, height, "
            f"width, channels), got {x.dtype} of shape {x.shape}"
        )
    if x.shape[3] > 4 and x.shape[1] <= 4:
        raise ValueError(
            f"[load_npz] channels of images in {path} must come last, got shape {x.shape}: "
            "x.transpose(0, 2, 3, 1)"
        )
    return np.ascontiguousarray(x)


def _as_labels(path: Path, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    if y.shape == (len(x), 1):
        y = y[:, 0]
    if y.dtype.kind == "S":
        try:
            y = np.char.decode(y, "utf-8")
        except UnicodeDecodeError as error:
            raise ValueError(
                f"[load_npz] labels of bytes in {path} must be UTF-8: {error}"
            ) from None
    if y.shape != (len(x),) or y.dtype.kind not in "iuU":
        raise ValueError(
            f"[load_npz] labels in {path} must be integers or strings of shape ({len(x)},), got "
            f"{y.dtype} of shape {y.shape}"
        )
    return y
