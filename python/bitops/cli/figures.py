"""Pictures as PNG files, drawn with matplotlib, which is imported only when one is wanted."""

from __future__ import annotations

import io
import os
from typing import Any

from ..files.writing import write_file

__all__ = ["new_figure", "save_figure"]


def new_figure(where: str) -> Any:
    """Return an empty figure.

    Parameters
    ----------
    where : str
        The command, for the message.

    Raises
    ------
    ImportError
        If matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError(
            f"[{where}] matplotlib must be installed (pip install matplotlib), got: {error}"
        ) from None
    return Figure(layout="constrained")


def save_figure(where: str, figure: Any, path: str | os.PathLike) -> None:
    """Write a figure as a PNG file, which replaces another as a whole."""
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=120)
    write_file(where, path, picture.getvalue())
