"""Writing of files: whole or not at all, while what was there before stays.

The new content goes to a file beside the old one, `.<name>.<16 digits>.tmp`, which is then renamed.
A writer that is killed leaves it behind, and the next writer of the same name removes it. Who
writes holds a lock, by which files of writers that still live are told apart; where there are no
locks (Windows, some network file systems), nothing is removed.
"""

from __future__ import annotations

import errno
import os
import re
import secrets
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

from .reading import check_regular

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

__all__ = ["append_file", "try_file", "write_file", "write_new"]

_FLAGS = getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0) | getattr(os, "O_NONBLOCK", 0)
_NO_LINKS = getattr(os, "O_NOFOLLOW", 0)
# bytes of a name that a partial file repeats; its own must stay below the 143 of some file systems
_LONGEST = 100


class _Place(NamedTuple):
    """Where a file goes, links followed, and the status of the one that is there."""

    path: Path
    status: os.stat_result | None


def write_file(where: str, path: str | os.PathLike, data: bytes) -> None:
    """Write a file whole or not at all.

    A link stays, and its target is replaced. A file that is replaced keeps its mode and, where that
    is allowed, its owner; a new one gets those that every new file gets. After the return the
    content is on the disk, under its name.

    Parameters
    ----------
    where : str
        Function that writes, for the message of an error.
    path : path
    data : bytes

    Raises
    ------
    OSError
        If the file cannot be written. It is then as before; if only the folder could not be brought
        to the disk at the end, it is the new one.
    ValueError
        If the path is that of a FIFO, a socket or a device.
    """
    with _named(path):
        place = _place(where, path)
        _remove_leftovers(place.path)
        descriptor, partial = _create(place)
        try:
            try:
                _write_all(descriptor, data)
                os.fsync(descriptor)
                if fcntl is not None:
                    os.replace(partial, place.path)  # while the lock is held
            finally:
                os.close(descriptor)
            if fcntl is None:
                os.replace(partial, place.path)  # Windows renames no open file
        except BaseException:
            with suppress(OSError):
                os.unlink(partial)
            raise
        _sync_folder(place.path.parent)


def try_file(where: str, path: str | os.PathLike) -> None:
    """Find out before the work whether `write_file` could write a file; raises its errors."""
    with _named(path):
        place = _place(where, path)
        _remove_leftovers(place.path)
        descriptor, partial = _create(place)
        try:
            os.close(descriptor)
        finally:
            with suppress(FileNotFoundError):  # another writer has taken it for a leftover
                os.unlink(partial)


def write_new(path: str | os.PathLike, parts: Iterable[bytes | memoryview]) -> None:
    """Write a file part by part, under a name that nobody else knows of before the return.

    Parameters
    ----------
    path : path
    parts : iterable of bytes, or of memoryviews of bytes

    Raises
    ------
    OSError
        If there is such a file, or it cannot be written. It is then removed.
    """
    with _named(path):
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _FLAGS, 0o666)
        try:
            try:
                for part in parts:
                    _write_all(descriptor, part)
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
        except BaseException:
            with suppress(OSError):
                os.unlink(path)
            raise


def append_file(where: str, path: str | os.PathLike, data: bytes, *, first: bytes = b"") -> None:
    """Append to a file, all or nothing; a file that is new or empty begins with `first`.

    Errors are those of `write_file`.
    """
    with _named(path):
        place = _place(where, path)
        descriptor = os.open(place.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | _FLAGS, 0o666)
        try:
            size = os.fstat(descriptor).st_size
            try:
                _write_all(descriptor, data if size else first + data)
                os.fsync(descriptor)
            except BaseException:
                with suppress(OSError):
                    os.ftruncate(descriptor, size)
                raise
        finally:
            os.close(descriptor)


@contextmanager
def _named(path: str | os.PathLike) -> Iterator[None]:
    """Let errors name the file that was asked for; those of `write` and `fsync` name none."""
    try:
        yield
    except OSError as error:
        if error.errno is None:
            raise
        raise OSError(error.errno, error.strerror, os.fspath(path)) from error


def _place(where: str, path: str | os.PathLike) -> _Place:
    """Follow links, and refuse what is not to be replaced."""
    try:
        status = os.stat(path)
    except FileNotFoundError:
        status = None
    target = Path(os.path.realpath(path))
    if status is not None:
        try:
            check_regular(path, status)
        except ValueError as error:
            raise ValueError(f"[{where}] {error}: {os.fspath(path)}") from None
        if not os.access(target, os.W_OK):  # a rename would not ask
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), os.fspath(path))
    elif not target.parent.is_dir():
        raise FileNotFoundError(f"[{where}] no such directory: {target.parent}")
    return _Place(target, status)


def _create(place: _Place) -> tuple[int, Path]:
    """Open a new file beside the target, locked as long as it is open."""
    mode = 0o666 if place.status is None else 0o600  # never more open than the old one
    while True:
        partial = place.path.with_name(f".{_stem(place.path)}.{secrets.token_hex(8)}.tmp")
        descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _FLAGS, mode)
        try:
            # another writer may have taken it for a leftover before it was locked
            if _lock(descriptor) is not False and os.fstat(descriptor).st_nlink:
                if place.status is not None and fcntl is not None:
                    _keep_owner_and_mode(descriptor, place.status)
                return descriptor, partial
        except BaseException:
            os.close(descriptor)
            with suppress(OSError):
                os.unlink(partial)
            raise
        os.close(descriptor)
        with suppress(OSError):
            os.unlink(partial)


def _keep_owner_and_mode(descriptor: int, old: os.stat_result) -> None:
    """Give a new file what the old one has, as far as that is allowed."""
    new = os.fstat(descriptor)
    with suppress(OSError):
        if (new.st_uid, new.st_gid) != (old.st_uid, old.st_gid):
            os.fchown(descriptor, old.st_uid, old.st_gid)
    with suppress(OSError):
        os.fchmod(descriptor, stat.S_IMODE(old.st_mode) & 0o777)


def _write_all(descriptor: int, data: bytes | memoryview) -> None:
    left = memoryview(data)
    while left:
        left = left[os.write(descriptor, left) :]


def _sync_folder(folder: Path) -> None:
    """Bring the new name to the disk, where folders can be opened and synchronized."""
    if not hasattr(os, "O_DIRECTORY"):
        return
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except PermissionError:  # it may be written, but not read
        return
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(descriptor)


def _stem(path: Path) -> str:
    """What the partial files of a name begin with: the name, or a digest of a long one."""
    name = os.fsencode(path.name)
    return path.name if len(name) <= _LONGEST else sha256(name).hexdigest()[:32]


def _remove_leftovers(path: Path) -> None:
    """Remove partial files of this name whose writers are gone."""
    if fcntl is None:
        return
    partial = re.compile(rf"\.{re.escape(_stem(path))}\.[0-9a-f]{{16}}\.tmp")
    try:
        names = [name for name in os.listdir(path.parent) if partial.fullmatch(name)]
    except OSError:
        return
    for name in names:
        with suppress(OSError):
            _remove_if_left(path.with_name(name))


def _remove_if_left(path: Path) -> None:
    """Remove a regular file that nobody has locked."""
    descriptor = os.open(path, os.O_RDWR | _NO_LINKS | _FLAGS)
    try:
        if stat.S_ISREG(os.fstat(descriptor).st_mode) and _lock(descriptor):
            os.unlink(path)
    finally:
        os.close(descriptor)


def _lock(descriptor: int) -> bool | None:
    """Tell whether a file could be locked; None where there are no locks."""
    if fcntl is None:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True
