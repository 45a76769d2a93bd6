"""Reads pictures, which strangers may have made, with Pillow, which is imported only then."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from .reading import open_regular

__all__ = ["PICTURES", "RESIZE", "is_picture", "open_picture", "read_header", "read_pixels"]

PICTURES = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".bmp": "BMP"}
RESIZE = "stretch", "crop"

Made = TypeVar("Made")

_MODES = {1: "L", 3: "RGB", 4: "RGBA"}
_GREY = "1", "L", "LA", "La"
_ORIENTATION = 0x0112  # a tag of EXIF; from 5 on, width and height change places
# What Pillow raises on damaged and hostile pictures has no base class of its own.
_DAMAGED = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    OverflowError,
    IndexError,
    KeyError,
    TypeError,
)


def is_picture(path: str | os.PathLike) -> bool:
    """Tell by its ending whether a file is a picture."""
    return Path(path).suffix.lower() in PICTURES


def _import_pillow(where: str) -> Any:
    try:
        from PIL import Image, ImageOps
    except ImportError:
        raise ImportError(f"[{where}] pictures need Pillow: pip install pillow") from None
    return Image, ImageOps


def open_picture(where: str, path: Path) -> Any:
    """Decode a picture, turned as its camera says; RGBA if some of it may be transparent.

    Raises
    ------
    ImportError
        If Pillow is not installed.
    OSError
        If there is no such file.
    ValueError
        If it is damaged, has more pixels than Pillow thinks safe, or pixels of more than 8 bits.
    """

    def of(image: Any) -> Any:
        may_be_clear = "A" in image.getbands() or "transparency" in image.info
        is_bmp = image.format == "BMP"
        image = _import_pillow(where)[1].exif_transpose(image)
        if not may_be_clear:
            return image
        image = image.convert("RGBA")
        # programs that write bitmaps often leave the fourth byte 0
        return image.convert("RGB") if is_bmp and not image.getextrema()[3][1] else image

    return _read(where, path, of)


def read_header(where: str, path: Path) -> tuple[tuple[int, int], bool]:
    """Return (width, height) of a picture, turned as its camera says, and whether it is grey.

    Raises the errors of `open_picture`, as far as the header of the file shows them.
    """

    def of(image: Any) -> tuple[tuple[int, int], bool]:
        width, height = image.size
        is_turned = image.getexif().get(_ORIENTATION, 1) >= 5
        return ((height, width) if is_turned else (width, height)), image.mode in _GREY

    return _read(where, path, of)


def _read(where: str, path: Path, read: Callable[[Any], Made]) -> Made:
    """Open a picture safely, and return what a function makes of it."""
    image_class, _ = _import_pillow(where)
    kind = PICTURES[path.suffix.lower()]
    try:
        with open_regular(path) as file:
            image = image_class.open(file, formats=[kind])
            if image.width * image.height > image_class.MAX_IMAGE_PIXELS:
                raise ValueError(f"{image.width} x {image.height} pixels are too many")
            if image.mode[0] in "IF":
                raise ValueError(f"its pixels must have 8 bits, got mode {image.mode}")
            return read(image)
    except FileNotFoundError:
        raise
    except image_class.UnidentifiedImageError:
        raise ValueError(f"[{where}] {path} must be a picture: its content is no {kind}") from None
    except (*_DAMAGED, image_class.DecompressionBombError) as error:
        raise ValueError(f"[{where}] {path} must be a picture: {error}") from None


def read_pixels(
    where: str, image: Any, shape: tuple[int, int, int], resize: str | None
) -> np.ndarray | None:
    """Return the pixels of an open picture in a shape (height, width, channels), uint8.

    What is transparent shows white, unless there are 4 channels. Pictures of another size are
    stretched, or cut to the proportions around their middle ("crop"); if `resize` is None, there is
    no array of them.
    """
    height, width, channels = shape
    if channels not in _MODES:
        raise ValueError(f"[{where}] pictures have 1, 3 or 4 channels, the model takes {channels}")
    if channels < 4 and image.mode == "RGBA":
        image = _on_white(where, image)
    image = image.convert(_MODES[channels])
    if image.size != (width, height):
        if resize is None:
            return None
        if resize == "crop":
            image = _import_pillow(where)[1].fit(image, (width, height))
        else:
            image = image.resize((width, height))
    return np.asarray(image, np.uint8).reshape(height, width, channels)


def _on_white(where: str, image: Any) -> Any:
    """Lay a picture with transparent pixels, whose colours are often black, on white."""
    white = _import_pillow(where)[0].new("RGBA", image.size, "white")
    white.alpha_composite(image)
    return white
