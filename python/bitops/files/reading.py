"""Opening of files that strangers may have named or made."""

from __future__ import annotations

import errno
import os
import stat
from typing import BinaryIO

__all__ = ["check_regular", "open_regular", "read_regular"]

# O_NONBLOCK: a FIFO that has taken the place of a file makes nobody wait
_FLAGS = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)

_KINDS = {
    stat.S_IFIFO: "a FIFO",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


def check_regular(path: str | os.PathLike, status: os.stat_result) -> None:
    """Refuse what is no regular file.

    Raises
    ------
    IsADirectoryError
    ValueError
        On a FIFO, a socket or a device.
    """
    if stat.S_ISDIR(status.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), os.fspath(path))
    if not stat.S_ISREG(status.st_mode):
        kind = _KINDS.get(stat.S_IFMT(status.st_mode), "something else")
        raise ValueError(f"the path must be that of a regular file, got {kind}")


def open_regular(path: str | os.PathLike) -> BinaryIO:
    """Open a regular file for reading.

    Others are not even opened: that may wait for ever, and takes data away from other readers.

    Raises
    ------
    OSError
        If it cannot be opened.
    ValueError
        If it is a FIFO, a socket or a device.
    """
    check_regular(path, os.stat(path))
    descriptor = os.open(path, _FLAGS)
    try:
        check_regular(path, os.fstat(descriptor))  # it may be another one by now
        return os.fdopen(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise


def read_regular(path: str | os.PathLike) -> bytes:
    """Read a regular file, as long as it was when it was opened."""
    with open_regular(path) as file:
        return file.read(os.fstat(file.fileno()).st_size)
