"""Calls of the command line that fail, and data sets for those that do not."""

import numpy as np
import pytest

from bitops.cli import main as cli
from bitops.data import load_digits


def usage_error(capsys, *argv: str) -> str:
    """Return the last line that a refused command line prints; the code must be 2."""
    with pytest.raises(SystemExit) as stop:
        cli.main(argv)
    assert stop.value.code == 2
    out, err = capsys.readouterr()
    assert out == ""
    return err.splitlines()[-1]


def failure(capsys, *argv: str) -> str:
    """Return the single line on stderr of a command that fails; the code must be 1."""
    assert cli.main(argv) == 1
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    return lines[0]


def write_idx(path, array):
    """Write an IDX file of unsigned bytes."""
    header = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes()
    path.write_bytes(header + array.astype(np.uint8).tobytes())


def write_digits(folder) -> str:
    """Write scikit-learn's digits to a .npz file of images in three parts; return its path."""
    data, path = load_digits(), folder / "digits.npz"
    parts = {"train": "train", "validation": "val", "test": "test"}
    arrays = {}
    for part, name in parts.items():
        arrays[f"x_{name}"] = data.images(getattr(data, f"x_{part}"))[..., 0]
        arrays[f"y_{name}"] = getattr(data, f"y_{part}")
    np.savez(path, **arrays)
    return str(path)
