"""The folder of an index: what it holds, who may write, and what of strangers is refused."""

import json
import multiprocessing
import os
import pickle
import re
import shutil
import stat
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_array_equal

import bitops as bo
from bitops.files.tensors import digest
from bitops.search import BitIndex, index_files, mapping

K = 70
posix = pytest.mark.skipif(os.name != "posix", reason="needs modes, FIFOs and locks of POSIX")


@pytest.fixture
def x(rng):
    return rng.random((40, K)) < 0.5


@pytest.fixture
def folder(tmp_path, x):
    """An index whose rows 3 and 5 have been removed, and that got the ids 90 and 80."""
    path = tmp_path / "index"
    BitIndex(x).save(path)
    index = BitIndex.load(path)
    index.remove([3, 5])
    index.add(x[:2], [90, 80])
    return path


def change_manifest(folder, change):
    """Change a manifest, and let its checksum be right."""
    document = json.loads((folder / "index.json").read_bytes())
    change(document)
    document["sha256"] = digest(document, {})
    (folder / "index.json").write_text(json.dumps(document))


def refusal(folder, **options):
    with pytest.raises(ValueError, match=r"^\[BitIndex.load\] .* must hold an index: ") as error:
        BitIndex.load(folder, **options)
    return str(error.value).split("must hold an index: ")[1]


def test_what_files_hold(folder, x):
    """As documented: other programs can read them."""
    document = json.loads((folder / "index.json").read_bytes())
    assert (document["metric"], document["bits"], document["next_id"]) == ("hamming", K, 91)
    first, second = document["segments"]
    rows = np.load(folder / f"{first['name']}.rows.npy")
    assert_array_equal(rows, bo.pack(x).words, strict=True)
    assert (first["rows"], first["first_id"], first["removed"]["count"]) == (40, 0, 2)
    assert_array_equal(np.load(folder / f"{first['removed']['name']}.removed.npy"), [3, 5])
    assert_array_equal(np.load(folder / f"{second['name']}.rows.npy"), bo.pack(x[[1, 0]]).words)
    assert_array_equal(np.load(folder / f"{second['name']}.ids.npy"), [80, 90])
    assert second["first_id"] is None and second["removed"] is None
    assert len(os.listdir(folder)) == 6


@pytest.mark.parametrize("mmap", (True, False))
def test_save_again(folder, tmp_path, mmap):
    """Over itself, over another one, and elsewhere; removed rows stay behind."""
    index = BitIndex.load(folder, mmap=mmap)
    ids, rows = index.ids, index.rows(index.ids)
    other = tmp_path / "other"
    BitIndex(np.ones((3, 9), bool), "jaccard").save(other)
    opened = BitIndex.load(other)
    for path in (folder, other, tmp_path / "new"):
        index.save(path)
        again = BitIndex.load(path)
        assert_array_equal(again.ids, ids)
        assert again.rows(ids) == rows and again.next_id == 91
        assert not list(path.glob("*.removed.npy")) and len(list(path.glob("*.rows.npy"))) == 2
    assert opened.search(np.ones((1, 9), bool), 1)[0] == 0  # of files that are gone
    assert opened.refresh() and opened.k == K and not opened.refresh()


def test_save_keeps_what_others_have_written(folder, x, tmp_path):
    """Also by another name of the folder; a folder that is gone is written as a new one."""
    first, second = BitIndex.load(folder), BitIndex.load(folder)
    ids = second.add(x[:5])
    (tmp_path / "other").mkdir()
    first.save(tmp_path / "other" / ".." / "index")
    again = BitIndex.load(folder)
    assert len(first) == len(again) == 45 and again.next_id == 96
    assert again.rows(ids) == bo.pack(x[:5])
    assert not list(folder.glob("*.removed.npy"))
    assert_array_equal(second.add(x[:1]), [96])
    assert first.refresh() and len(first) == 46
    rows = first.rows(first.ids)
    shutil.rmtree(folder)
    for path in (tmp_path / "new", folder):
        first.save(path)
        assert BitIndex.load(path).rows(first.ids) == rows


def test_relative_paths(folder, x, tmp_path, monkeypatch):
    """They mean what they meant when the index was opened, wherever the process goes."""
    monkeypatch.chdir(tmp_path)
    index = BitIndex.load("index")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert index.path == folder
    index.add(x[:3])
    index.save(folder)
    assert len(pickle.loads(pickle.dumps(index))) == 43 and not os.listdir()


def test_memory_stays_apart(folder):
    index = BitIndex.load(folder, mmap=False)
    assert index.path is None
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    index.remove([0, 80])
    index.add(np.ones((50, K), bool))
    assert not index.refresh()
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_two_objects_of_a_folder(folder, x):
    """Each writes on top of what the other has written, and sees it when asked to."""
    first, second = BitIndex.load(folder), BitIndex.load(folder)
    assert_array_equal(first.add(x[:3]), [91, 92, 93])
    assert len(second) == 40 and 92 not in second
    assert_array_equal(second.add(x[:1]), [94])
    assert len(second) == 44 and 92 in second
    second.remove([92])
    assert len(first) == 43 and first.refresh() and len(first) == 43 and 92 not in first
    with pytest.raises(ValueError, match="ids must be in the index, got 92"):
        first.remove([92])
    assert pickle.loads(pickle.dumps(first)).path == folder


def test_files_are_opened_once(folder, monkeypatch):
    """After a change only those that it has made are."""
    index = BitIndex.load(folder)
    opened = []
    original = index_files.open_regular

    def counted(path):
        opened.append(path.name)
        return original(path)

    monkeypatch.setattr(index_files, "open_regular", counted)
    index.remove([0])
    index.add(np.ones((9, K), bool))
    names = [name for name in opened if name != "index.json"]
    assert sorted(name.split(".")[1] for name in names) == ["ids", "removed", "rows"]
    assert_array_equal(BitIndex.load(folder).ids, index.ids)


def _add_rows(folder, count):
    index = BitIndex.load(folder)
    for _ in range(count):
        index.add(np.ones((1, K), bool))


@posix
def test_writers_wait_for_each_other(folder):
    """Three processes and two threads: every row has its own id."""
    context = multiprocessing.get_context("spawn")
    others = [context.Process(target=_add_rows, args=(folder, 6)) for _ in range(3)]
    others += [threading.Thread(target=_add_rows, args=(folder, 6)) for _ in range(2)]
    for other in others:
        other.start()
    for other in others:
        other.join()
    assert_array_equal(BitIndex.load(folder).ids[-30:], np.arange(91, 121))
    assert not {path.name[:16] for path in folder.glob("*.npy")} - set(
        re.findall("[0-9a-f]{16}", (folder / "index.json").read_text())
    )


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")
def test_killed_writers():
    """At random moments, with two readers; tests/index_kills.py --kills 100 is the long form."""
    script = Path(__file__).with_name("index_kills.py")
    argv = [sys.executable, str(script), "--kills", "12", "--seed", "3"]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0 and not done.stderr, done.stderr
    assert done.stdout.startswith("12 kills")


def test_leftovers_are_removed(folder, x):
    """Of killed writers; what has another name is nobody's business."""
    left = folder / f"{'0' * 16}.rows.npy"
    left.write_bytes(b"half")
    (folder / "notes.txt").write_text("mine")
    index = BitIndex.load(folder)
    assert left.exists()
    index.add(x[:1])
    assert not left.exists() and (folder / "notes.txt").exists()


def test_failing_writes(folder, x, monkeypatch):
    """An index is as before, on the disk and for its owner."""
    index = BitIndex.load(folder)
    ids = index.ids

    def fail(*arguments):
        raise OSError(28, "No space left on device")

    for name in ("os.fsync", "os.replace"):
        with monkeypatch.context() as patch:
            patch.setattr(name, fail)
            with pytest.raises(OSError, match="No space left"):
                index.add(x[:5])
            with pytest.raises(OSError, match="No space left"):
                index.remove([1])
        for got in (index, BitIndex.load(folder)):
            assert_array_equal(got.ids, ids)
    index.add(x[:1])
    assert len(index) == len(ids) + 1


@posix
def test_lock_of_a_first_save_that_failed(tmp_path, x, monkeypatch):
    """Who has waited for it locks the new one."""
    waits, original = threading.Event(), index_files._lock

    def lock(descriptor):
        waits.set()
        original(descriptor)

    with index_files.Folder(tmp_path).locked():
        monkeypatch.setattr(index_files, "_lock", lock)
        writer = threading.Thread(target=BitIndex(x).save, args=(tmp_path,))
        writer.start()
        assert waits.wait(60)
        (tmp_path / "lock").unlink()
    writer.join()
    assert len(BitIndex.load(tmp_path)) == 40 and (tmp_path / "lock").exists()


# ---- files of strangers -------------------------------------------------------------------------


def test_other_folders(tmp_path, folder):
    (tmp_path / "empty").mkdir()
    for name in ("empty", "absent"):
        text = rf"^\[BitIndex.load\] .*{name} must hold an index: there is no index.json$"
        with pytest.raises(FileNotFoundError, match=text):
            BitIndex.load(tmp_path / name)
    with pytest.raises(OSError):
        BitIndex.load(folder / "index.json")
    (tmp_path / "empty" / "photo.jpg").write_bytes(b"")
    with pytest.raises(FileExistsError, match=r"must be new, empty or an index, got 'photo.jpg'"):
        BitIndex(np.ones((1, 3), bool)).save(tmp_path / "empty")
    with pytest.raises(OSError):
        BitIndex(np.ones((1, 3), bool)).save(folder / "index.json")
    with pytest.raises(FileNotFoundError):
        BitIndex(np.ones((1, 3), bool)).save(tmp_path / "a" / "b")


def test_other_manifests(folder):
    path = folder / "index.json"
    content = path.read_bytes()
    for data, text in (
        (b"", "Expecting value"),
        (b"[1]", "format must be bitops.index"),
        (b'{"format": "bitops.model"}', "format must be bitops.index"),
        (content.replace(b'"version": 1', b'"version": 2'), "version must be 1, got 2"),
        (content.replace(b'"next_id": 91', b'"next_id": 92'), "sha256 must match"),
        (content[:-9], ""),
        (b"[" * 100_000, "JSON must be nested less deep"),
        (b" " * (2**24 + 1), "must have at most 16777216 bytes"),
        (b"\xff", "decode"),
    ):
        path.write_bytes(data)
        assert text in refusal(folder)


def test_forged_manifests(folder):
    """With a right checksum."""
    content = (folder / "index.json").read_bytes()

    def in_segment(key, value):
        return lambda document: document["segments"][0].update({key: value})

    def in_removed(key, value):
        return lambda document: document["segments"][0]["removed"].update({key: value})

    for change, text in (
        (lambda d: d.update(metric="cosine"), "metric must be one of"),
        (lambda d: d.update(metric=["hamming"]), ""),
        (lambda d: d.update(bits=0), "bits must be an integer in 1.."),
        (lambda d: d.update(bits=True), "bits must be an integer"),
        (lambda d: d.update(bits=140), "rows.npy must have"),
        (lambda d: d.update(next_id=90), "ids must ascend within 0..89"),
        (lambda d: d.update(next_id=2**63), "next_id must be an integer"),
        (lambda d: d.update(more=1), "sha256 must match"),
        (lambda d: d["segments"].append(d["segments"][0]), "ids must be in one segment only"),
        (in_segment("rows", 39), "rows.npy must have"),
        (in_segment("rows", 2**62), "rows must be an integer"),
        (in_segment("name", "../../etc/passwd"), "names must have 16 hexadecimal digits"),
        (in_segment("name", None), "names must have"),
        (in_segment("first_id", 52), "first_id must be an integer in 0..51"),
        (in_segment("first_id", 50), "ids must be in one segment only"),
        (in_segment("first_id", -1), "first_id must be"),
        (in_segment("extra", 1), "a segment must have"),
        (in_removed("count", 1), "removed.npy must have"),
        (in_removed("count", 41), "count must be an integer in 1..40"),
    ):
        (folder / "index.json").write_bytes(content)
        change_manifest(folder, change)
        assert text in refusal(folder)


@pytest.mark.parametrize("mmap", (True, False))
def test_damaged_arrays(folder, mmap):
    for path in sorted(folder.glob("*.npy")):
        content = path.read_bytes()
        for data in (b"", content[:-1], content + b"\0", content[:100]):
            path.write_bytes(data)
            assert "must have" in refusal(folder, mmap=mmap)
        for place in (0, 6, 30, 127):
            path.write_bytes(content[:place] + b"?" + content[place + 1 :])
            assert "must hold" in refusal(folder, mmap=mmap)
        if ".rows." not in path.name:
            path.write_bytes(content[:-8] + b"\xff" * 8)
            assert "must ascend" in refusal(folder, mmap=mmap)
        path.write_bytes(content)
    BitIndex.load(folder, mmap=mmap)


def test_set_padding_bits(folder):
    """A map is checked where it is first searched, once; a file that is read, at once."""
    index = BitIndex.load(folder)
    (path, _) = sorted(folder.glob("*.rows.npy"), key=lambda path: -path.stat().st_size)
    content = path.read_bytes()
    path.write_bytes(content[:-1] + b"\x80")
    assert "rows must have no bits after element 69" in refusal(folder, mmap=False)
    index = BitIndex.load(folder)
    queries = np.ones((2, K), bool)
    for call in (
        lambda: index.search(queries, 2),
        lambda: index.within(queries, 3),
        lambda: index.rows([39]),
        lambda: index.save(folder.parent / "copy"),
    ):
        with pytest.raises(ValueError, match="rows must have no bits after element 69"):
            call()
    assert index.rows([0, 38]).shape == (2, K)


def test_rows_are_checked_once(folder, monkeypatch):
    checked = []
    monkeypatch.setattr(mapping, "check_padding", lambda words, k: checked.append(len(words)))
    index = BitIndex.load(folder)
    for _ in range(3):
        index.search(np.ones((2, K), bool), 2)
    assert sorted(checked) == [2, 40]


@posix
def test_other_kinds_of_files(folder):
    path = next(folder.glob("*.rows.npy"))
    path.unlink()
    with pytest.raises(FileNotFoundError):
        BitIndex.load(folder)
    os.mkfifo(path)
    assert "must be that of a regular file, got a FIFO" in refusal(folder)
    (folder / "index.json").unlink()
    os.mkfifo(folder / "index.json")
    assert "got a FIFO" in refusal(folder)


@posix
@pytest.mark.skipif(hasattr(os, "geteuid") and os.geteuid() == 0, reason="root may write anywhere")
def test_read_only_folders(folder):
    """Searched by all, changed by nobody."""
    folder.chmod(stat.S_IRUSR | stat.S_IXUSR)
    try:
        index = BitIndex.load(folder)
        assert len(index) == 40
        with pytest.raises(PermissionError):
            index.remove([0])
    finally:
        folder.chmod(stat.S_IRWXU)


class Msvcrt:
    """The locks of Windows: a byte of a file is one opener's, who unlocks it by closing."""

    LK_NBLCK = 2

    def __init__(self):
        self.owner, self.tries = None, 0

    def locking(self, descriptor, mode, size):
        assert mode == self.LK_NBLCK and size == 1 and os.lseek(descriptor, 0, os.SEEK_CUR) == 0
        self.tries += 1
        if self.owner is not None:
            raise PermissionError(13, "Permission denied")
        self.owner = descriptor

    def close(self, descriptor):
        if descriptor == self.owner:
            self.owner = None
        os.close(descriptor)


def test_writers_wait_on_windows(tmp_path, monkeypatch, rng):
    """One index holds the lock while another one wants to write; it waits, and nothing is lost."""
    BitIndex(rng.random((3, K)) < 0.5).save(tmp_path)
    index, other = BitIndex.load(tmp_path), BitIndex.load(tmp_path)
    windows, real = Msvcrt(), os

    class Os:
        close = windows.close

        def __getattr__(self, name):
            return getattr(real, name)

    monkeypatch.setattr(index_files, "fcntl", None)
    monkeypatch.setattr(index_files, "msvcrt", windows)
    monkeypatch.setattr(index_files, "os", Os())
    with index_files.Folder(tmp_path).locked():
        writer = threading.Thread(target=other.add, args=(rng.random((2, K)) < 0.5,))
        writer.start()
        while windows.tries < 3:
            assert writer.is_alive()
        assert len(BitIndex.load(tmp_path)) == 3
    writer.join()
    index.add(rng.random((1, K)) < 0.5)
    assert len(BitIndex.load(tmp_path)) == 6 and windows.owner is None
