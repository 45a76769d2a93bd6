"""How files are read and written: whole or not at all, links followed, modes kept, no waiting."""

import errno
import os
import signal
import stat
import subprocess
import sys
import threading

import pytest

from bitops.files.reading import open_regular, read_regular
from bitops.files.text import printable
from bitops.files.writing import append_file, try_file, write_file
from bitops.io import load, save
from bitops.layers import Packed, PackedSign
from bitops.training.log import read_log

POSIX = os.name == "posix"
posix = pytest.mark.skipif(not POSIX, reason="needs FIFOs, modes and links of POSIX")
NET = Packed(PackedSign())


@pytest.fixture
def path(tmp_path):
    return tmp_path / "file"


def within(seconds, call):
    """The error of a call that must not wait."""
    caught = []

    def run():
        try:
            call()
        except BaseException as error:
            caught.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(seconds)
    assert not thread.is_alive(), "it waits"
    return caught[0]


@pytest.mark.parametrize("length", [1, 100, 101, 200, 233, 234, 255])
@pytest.mark.parametrize("letter", ["a", "ä"])
def test_names_up_to_the_limit(tmp_path, length, letter):
    name = letter * (length // len(letter.encode())) or "a"
    try:
        (tmp_path / name).touch()
    except OSError:
        pytest.skip("the file system refuses the name")
    for content in (b"one", b"two"):
        write_file("test", tmp_path / name, content)
        assert (tmp_path / name).read_bytes() == content
    assert os.listdir(tmp_path) == [name]
    save(NET, tmp_path / name)
    load(tmp_path / name)


def test_a_name_beyond_the_limit(tmp_path):
    with pytest.raises(OSError) as error:
        write_file("test", tmp_path / ("a" * 256), b"")
    assert error.value.errno == errno.ENAMETOOLONG
    assert os.listdir(tmp_path) == []


@posix
def test_links_stay_and_their_targets_are_replaced(tmp_path, path):
    (tmp_path / "place").mkdir()
    target = tmp_path / "place" / "target"
    path.symlink_to(os.path.join("place", "target"))
    (tmp_path / "second").symlink_to(path)
    for name, content in ((path, b"one"), (tmp_path / "second", b"two")):  # it need not exist
        write_file("test", name, content)
        assert path.is_symlink() and (tmp_path / "second").is_symlink()
        assert target.read_bytes() == content
    append_file("test", path, b"three")
    assert target.read_bytes() == b"twothree"
    assert os.listdir(tmp_path / "place") == ["target"]


@posix
def test_links_in_a_circle(tmp_path, path):
    path.symlink_to(tmp_path / "other")
    (tmp_path / "other").symlink_to(path)
    for call in (write_file, append_file):
        with pytest.raises(OSError) as error:
            call("test", path, b"x")
        assert error.value.errno == errno.ELOOP
    assert path.is_symlink()


@posix
@pytest.mark.parametrize("mode", [0o600, 0o644, 0o664, 0o755, 0o200 | 0o400])
def test_a_mode_is_kept(path, mode):
    path.write_bytes(b"old")
    path.chmod(mode)
    write_file("test", path, b"new")
    assert stat.S_IMODE(path.stat().st_mode) == mode


@posix
@pytest.mark.parametrize("mask", [0o022, 0o077, 0o002])
def test_new_files_have_the_usual_mode(path, mask):
    before = os.umask(mask)
    try:
        write_file("test", path, b"new")
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o666 & ~mask


@posix
def test_a_private_file_is_never_open_to_others(path, monkeypatch):
    """Not even half-written."""
    path.write_bytes(b"old")
    path.chmod(0o600)
    modes = []
    fsync = os.fsync

    def watch(descriptor):
        modes.append(os.fstat(descriptor).st_mode)
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", watch)
    write_file("test", path, b"new")
    assert stat.S_IMODE(modes[0]) == 0o600


@posix
@pytest.mark.skipif(POSIX and os.getuid() == 0, reason="root may write everything")
def test_read_only_files_are_not_replaced(path):
    path.write_bytes(b"old")
    path.chmod(0o444)
    for call in (write_file, append_file):
        with pytest.raises(PermissionError):
            call("test", path, b"new")
    assert path.read_bytes() == b"old"


def test_read_only_files_are_not_replaced_whoever_writes(path, monkeypatch):
    path.write_bytes(b"old")
    monkeypatch.setattr(os, "access", lambda name, mode: False)
    for call in (lambda: write_file("t", path, b"new"), lambda: try_file("t", path)):
        with pytest.raises(PermissionError) as error:
            call()
        assert error.value.filename == str(path)
    assert path.read_bytes() == b"old"


@posix
@pytest.mark.parametrize("kind", ["fifo", "link", "device", "socket"])
def test_what_is_no_file_is_neither_replaced_nor_opened(tmp_path, path, kind):
    if kind == "device":
        path.symlink_to("/dev/null")
    elif kind == "socket":
        import socket

        place = tmp_path / "s"
        with socket.socket(socket.AF_UNIX) as server:
            try:
                server.bind(str(place))
            except OSError:
                pytest.skip("the path is too long for a socket")
        path.symlink_to(place)
    else:
        place = path if kind == "fifo" else tmp_path / "other"
        os.mkfifo(place)
        if kind == "link":
            path.symlink_to(place)
    before = path.stat()
    logs = tmp_path / "log.csv"
    logs.symlink_to(path)
    for call in (
        *(lambda: save(NET, path), lambda: load(path), lambda: append_file("t", path, b"x")),
        *(lambda: read_log(logs), lambda: open_regular(path), lambda: try_file("t", path)),
    ):
        error = within(5, call)
        assert type(error) is ValueError and "must be that of a regular file, got a" in str(error)
    assert path.stat().st_ino == before.st_ino
    assert not [name for name in os.listdir(tmp_path) if name.endswith(".tmp")]


@posix
def test_a_writer_into_a_fifo_is_not_killed(path):
    """Which a reader that opens and closes it would do."""
    os.mkfifo(path)
    program = "import sys; open(sys.argv[1], 'w').write('content\\n')"
    with subprocess.Popen([sys.executable, "-c", program, path]) as writer:
        with pytest.raises(ValueError, match="a FIFO"):
            load(path)
        assert path.read_text() == "content\n"
        assert writer.wait(timeout=10) == 0


def test_folders(tmp_path):
    for call in (
        *(lambda: save(NET, tmp_path), lambda: load(tmp_path), lambda: read_log(tmp_path)),
        lambda: try_file("t", tmp_path),
    ):
        with pytest.raises(IsADirectoryError):
            call()
    with pytest.raises(FileNotFoundError, match=r"\[save\] no such directory"):
        save(NET, tmp_path / "no" / "file")


def test_reading_stops_where_the_file_ended(path, monkeypatch):
    path.write_bytes(b"12345")
    assert read_regular(path) == b"12345"
    with open_regular(path) as file:
        assert file.read() == b"12345"


def test_append(path):
    append_file("test", path, b"row 1\n", first=b"head\n")
    append_file("test", path, b"row 2\n", first=b"head\n")
    assert path.read_bytes() == b"head\nrow 1\nrow 2\n"
    path.write_bytes(b"")  # as a program that turns logs leaves it
    append_file("test", path, b"row 3\n", first=b"head\n")
    assert path.read_bytes() == b"head\nrow 3\n"


def test_trying_leaves_nothing(tmp_path, path):
    try_file("test", path)
    assert os.listdir(tmp_path) == []
    path.write_bytes(b"old")
    try_file("test", path)
    assert path.read_bytes() == b"old" and os.listdir(tmp_path) == ["file"]


WRITER = """
import os, sys, time
from bitops.files.writing import write_file
os.fsync = lambda descriptor: (print("writing", flush=True), time.sleep(60))
write_file("test", sys.argv[1], b"x" * 1000)
"""


@posix
@pytest.mark.parametrize("name", ["file", "a" * 255])
def test_leftovers_of_killed_writers_are_removed_and_of_others_not(tmp_path, name):
    path = tmp_path / name
    argv = [sys.executable, "-c", WRITER, str(path)]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as writer:
        try:
            assert writer.stdout.readline() == "writing\n"
            (partial,) = os.listdir(tmp_path)
            others = [".other.0123456789abcdef.tmp", ".file.tmp", ".file.0123.tmp", "file.tmp"]
            others += [".xfile.0123456789abcdef.tmp", ".file.0123456789abcdef.tmp.gz"]
            for other in others:
                (tmp_path / other).touch()
            write_file("test", path, b"mine")  # while the other one still writes
            assert sorted(os.listdir(tmp_path)) == sorted([name, partial, *others])
        finally:
            writer.send_signal(signal.SIGKILL)
    write_file("test", path, b"again")
    assert sorted(os.listdir(tmp_path)) == sorted([name, *others])
    assert path.read_bytes() == b"again"


@posix
def test_a_leftover_that_is_no_file_stays(tmp_path, path):
    fifo, link, folder = (tmp_path / f".file.{digit * 16}.tmp" for digit in "012")
    os.mkfifo(fifo)
    link.symlink_to("/dev/null")
    folder.mkdir()
    assert within_ok(5, lambda: write_file("test", path, b"x"))
    assert sorted(os.listdir(tmp_path)) == sorted(["file", fifo.name, link.name, folder.name])


def within_ok(seconds, call):
    thread = threading.Thread(target=call, daemon=True)
    thread.start()
    thread.join(seconds)
    return not thread.is_alive()


@posix
def test_folders_are_synchronized_after_the_rename(path, monkeypatch):
    calls = []
    fsync, replace = os.fsync, os.replace

    def watch(descriptor):
        calls.append("folder" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "file")
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", watch)
    monkeypatch.setattr(os, "replace", lambda *a: [calls.append("rename"), replace(*a)])
    write_file("test", path, b"x")
    assert calls == ["file", "rename", "folder"]


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("recipe 1", "recipe 1"),
        ("\x1b]0;title\x07", r"\x1b]0;title\x07"),
        ("x\nerror    0.00%", r"x\nerror    0.00%"),
        ("\r\u2028\u202e\x85", r"\r\u2028\u202e\x85"),
        ("\ud800", r"\ud800"),
        ("größe", "größe"),
        (7, "7"),
    ],
)
def test_printable(text, shown):
    assert printable(text) == shown
    assert printable(text).isprintable()


def test_printable_fits_the_output():
    assert printable("größe", encoding="ascii") == r"gr\xf6\xdfe"
    assert printable("größe", encoding=None) == r"gr\xf6\xdfe"
    assert printable("abcdef", most=3) == "abc..."
    assert printable("abc", most=3) == "abc"
