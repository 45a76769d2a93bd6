"""Rows of bits or numbers in files that users name: .npy, .npz, and lines of hexadecimal digits."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any, cast

import numpy as np

from ..files.arrays import map_npy, npz_array
from ..files.reading import read_regular
from ..ops.array import BitArray, pack
from .arguments import positive

__all__ = ["add_rows_options", "pack_rows", "read_ids", "read_rows"]

BLOCK_BYTES = 1 << 24  # that are packed at once


def add_rows_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that say how rows are to be read."""
    parser.add_argument("--array", metavar="NAME", help="which array of a .npz file (the only one)")
    parser.add_argument(
        "--bits",
        type=positive(int),
        metavar="N",
        help="bits of a row of bytes or digits, if the last ones are padding",
    )
    parser.add_argument(
        "--bitorder",
        choices=("big", "little"),
        default="big",
        help="whether the first bit of a byte is its highest or its lowest (big)",
    )


def read_rows(where: str, path: Path, args: argparse.Namespace) -> np.ndarray | BitArray:
    """Read a matrix: bits, or numbers whose signs are meant, which may be a memory map.

    Raises
    ------
    OSError
        If the file cannot be read.
    ValueError
        If it holds no matrix of bits or numbers.
    """
    array = _read_array(where, path, args.array)
    if array.ndim != 2:
        raise ValueError(f"[{where}] {path} must hold a matrix, got shape {array.shape}")
    if array.dtype == np.uint8:
        most = 8 * array.shape[1]
        if args.bits is not None and args.bits > most:
            raise ValueError(
                f"[{where}] --bits must be at most {most}, as many as a row of {path} has, got "
                f"{args.bits}"
            )
        return BitArray.from_packbits(array, args.bits, bitorder=args.bitorder)
    if args.bits is not None:
        raise ValueError(f"[{where}] --bits is for bytes and digits, got dtype {array.dtype}")
    if array.dtype.kind not in "bif":
        raise ValueError(
            f"[{where}] {path} must hold uint8 as np.packbits packs them, bool, signed integers or "
            f"floats, got dtype {array.dtype}"
        )
    return array


def pack_rows(rows: np.ndarray | BitArray) -> BitArray:
    """Pack rows by sign, block by block: they may be larger than the memory."""
    from ..search.progress import progress

    if isinstance(rows, BitArray) or not len(rows):
        return pack(rows)
    step = max(BLOCK_BYTES // max(rows[:1].nbytes, 1), 1)
    parts = []
    with progress(len(rows), "rows") as done:
        for start in range(0, len(rows), step):
            parts.append(pack(rows[start : start + step]))
            done(len(parts[-1]))
    return cast(BitArray, np.concatenate(parts))


def read_ids(where: str, path: Path) -> np.ndarray:
    """Read ids: a .npy file of integers, or one a line."""
    if path.suffix == ".npy":
        ids = map_npy(where, path)
        if ids.dtype.kind not in "iu":
            raise ValueError(f"[{where}] {path} must hold integers, got dtype {ids.dtype}")
        return ids
    try:
        return np.array([int(line) for line in _lines(where, path)], np.int64)
    except (ValueError, OverflowError) as error:
        raise ValueError(f"[{where}] {path} must hold an id a line: {error}") from None


def _read_array(where: str, path: Path, name: str | None) -> np.ndarray:
    if path.suffix != ".npz" and name is not None:
        raise ValueError(f"[{where}] --array is for .npz files, got {path}")
    if path.suffix == ".npy":
        return map_npy(where, path)
    if path.suffix != ".npz":
        return _digits(where, path)
    return npz_array(where, path, name)


def _lines(where: str, path: Path) -> list[str]:
    try:
        text = read_regular(path).decode("ascii")
    except UnicodeDecodeError:
        raise ValueError(f"[{where}] {path} must be .npy, .npz or text, got other bytes") from None
    return [line.strip() for line in text.splitlines() if line.strip()]


def _digits(where: str, path: Path) -> np.ndarray:
    """Read lines of hexadecimal digits, two of them a byte, as rows of bytes."""
    lines = _lines(where, path)
    if not lines:
        raise ValueError(f"[{where}] {path} must hold lines of hexadecimal digits, got none")
    rows: list[Any] = []
    for number, line in enumerate(lines, 1):
        try:
            rows.append(bytes.fromhex(line.removeprefix("0x")))
        except ValueError:
            raise ValueError(
                f"[{where}] line {number} of {path} must be pairs of hexadecimal digits, "
                f"got {line!r:.80}"
            ) from None
        if len(rows[-1]) != len(rows[0]):
            raise ValueError(
                f"[{where}] line {number} of {path} must have {2 * len(rows[0])} digits as the "
                f"first one, got {2 * len(rows[-1])}"
            )
    return np.frombuffer(b"".join(rows), np.uint8).reshape(len(rows), -1)
