"""Words from files, such as notes of a model, on a terminal."""

from __future__ import annotations

__all__ = ["printable"]


def printable(text: object, *, most: int | None = None, encoding: str | None = "utf-8") -> str:
    r"""Make words of strangers fit for one line of output.

    What is not printable (line ends, escape sequences, marks that change the direction of writing)
    and what an encoding lacks becomes a Python escape such as \x1b.

    Parameters
    ----------
    text : object
    most : int, optional
        Characters after which it is cut off, with "..." at the end.
    encoding : str, optional
        That of the output.
    """
    words = str(text)
    is_cut = most is not None and len(words) > most
    shown = "".join(
        c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in words[:most]
    )
    encoding = encoding or "ascii"
    shown = shown.encode(encoding, "backslashreplace").decode(encoding)
    return f"{shown}..." if is_cut else shown
