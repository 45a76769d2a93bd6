"""Every step of a write fails in turn: the old file stays, or the new one is whole."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from index_kills import named_files

from bitops.files.writing import append_file, try_file, write_file
from bitops.io import load, save
from bitops.layers import Packed, PackedDense
from bitops.search import BitIndex
from bitops.training.checkpoint import Checkpoint
from bitops.training.log import Log, read_log
from trainings import OPTIONS, assert_same, data, dense, train_logged

# what a write calls; those that only close or forget may not hide the first error
CALLS = ("open", "write", "fsync", "replace", "fchmod", "fchown", "close", "stat", "ftruncate")
FAULTS = {code: OSError(code, os.strerror(code)) for code in (errno.ENOSPC, errno.EIO)}


class Faults:
    """Lets the n-th call of one function of `os` fail, half a write with it."""

    def __init__(self, monkeypatch, name, number, code):
        self.real, self.number, self.code = getattr(os, name), number, code
        self.calls, self.failed = 0, False
        monkeypatch.setattr(os, name, self.write if name == "write" else self.call)

    def call(self, *args, **options):
        self.calls += 1
        if self.calls == self.number:
            self.failed = True
            raise OSError(self.code, os.strerror(self.code))
        return self.real(*args, **options)

    def write(self, descriptor, content):
        """Half of the bytes are written first."""
        if self.calls + 1 == self.number:
            self.real(descriptor, bytes(content)[: len(content) // 2])
        return self.call(descriptor, content)


def each_fault(monkeypatch, act, check, names=CALLS, most=60):
    """Let every call of every function fail once; `act` is repeated until none is left to fail."""
    failed = set()
    for name in names:
        if not hasattr(os, name):
            continue
        for number in range(1, most + 1):
            code = (errno.ENOSPC, errno.EIO)[number % 2]
            with monkeypatch.context() as patch:
                faults, error = Faults(patch, name, number, code), None
                try:
                    act()
                except OSError as caught:
                    error = caught
            if not faults.failed:
                break
            check(error, name)
            failed.add(name)
        else:
            raise AssertionError(f"more calls of {name} than {most}")
    return failed


def net(seed):
    return Packed(PackedDense(np.random.default_rng(seed).normal(size=(9, 70))))


@pytest.mark.parametrize("there", [True, False])
def test_save(tmp_path, monkeypatch, there):
    path = tmp_path / "net"
    old, new = net(0), net(1)
    old.save(path)
    before = path.read_bytes()
    new.save(path)
    after = path.read_bytes()

    def act():
        path.unlink(missing_ok=True)
        if there:
            path.write_bytes(before)
        save(new, path)

    def check(error, name):
        found = os.listdir(tmp_path)
        content = path.read_bytes() if found else None
        allowed = (before if there else None, after)
        assert content in allowed, "half-written"
        assert set(found) <= {"net"}, "left behind"
        if error is None:
            assert content == after
        else:
            assert error.errno in FAULTS and error.filename == str(path)

    failed = each_fault(monkeypatch, act, check, names=CALLS[1:])
    assert {"write", "fsync", "replace"} <= failed
    assert repr(load(path)) == repr(new)


def test_opens(tmp_path, monkeypatch):
    path = tmp_path / "file"
    path.write_bytes(b"old")

    def check(error, name):
        assert path.read_bytes() in (b"old", b"new") and os.listdir(tmp_path) == ["file"]
        path.write_bytes(b"old")

    for act in (
        lambda: write_file("t", path, b"new"),
        lambda: append_file("t", path, b""),
        lambda: try_file("t", path),
    ):
        assert each_fault(monkeypatch, act, check, names=("open", "stat")) == {"open", "stat"}


def test_append(tmp_path, monkeypatch):
    """A line is there whole, or not at all."""
    path = tmp_path / "file"

    def act():
        path.write_bytes(b"one\n")
        append_file("t", path, b"two\n")

    def check(error, name):
        assert path.read_bytes() in (b"one\n", b"one\ntwo\n")
        if error is not None:
            assert error.filename == str(path)
            assert path.read_bytes() == b"one\n" or name == "close"

    names = ("write", "fsync", "close", "open", "stat")
    assert each_fault(monkeypatch, act, check, names) >= {"write", "fsync", "close"}


@pytest.mark.parametrize("kind", ["add", "remove", "save", "first save"])
def test_index(tmp_path, monkeypatch, kind):
    """It is as before or after a change, for its owner too, and no file is left behind."""
    folder, rng = tmp_path / "index", np.random.default_rng(0)
    x = rng.random((40, 70)) < 0.5
    BitIndex(x).save(folder)
    BitIndex.load(folder).remove([3, 5])
    BitIndex.load(folder).add(x[:2], [90, 80])
    old = {path.name: path.read_bytes() for path in folder.iterdir()}
    change = {
        "add": lambda index: index.add(x[:9], [70, *range(50, 58)]),
        "remove": lambda index: index.remove([0, 80]),
        "save": lambda index: index.save(folder),
        "first save": lambda index: BitIndex(x).save(folder),
    }[kind]
    before, after = BitIndex.load(folder), BitIndex.load(folder, mmap=False)
    if kind == "first save":
        before, after, old = BitIndex(x[:0]), BitIndex(x), {}
    elif kind != "save":
        change(after)
    index = before

    def act():
        nonlocal index
        for path in folder.iterdir():
            path.unlink()
        for name, content in old.items():
            (folder / name).write_bytes(content)
        (folder / f"{'0' * 16}.rows.npy").write_bytes(b"of a writer that was killed")
        if old:
            index = BitIndex.load(folder)
        change(index)

    def check(error, name):
        is_there = (folder / "index.json").exists()
        assert is_there or (not old and error is not None)
        again = BitIndex.load(folder) if is_there else before
        is_done = list(again.ids) == list(after.ids)
        held = after if is_done else before
        assert is_done or error is not None
        assert list(again.ids) == list(held.ids) and again.rows(again.ids) == held.rows(held.ids)
        if name in ("write", "fsync", "replace"):
            assert list(index.ids) == list(again.ids) or not old
            assert error is None or Path(error.filename).parent in (folder, tmp_path)
            left = set(os.listdir(folder)) - (named_files(again) if is_there else set())
            assert not left or is_done

    failed = each_fault(monkeypatch, act, check)
    assert {"open", "write", "fsync", "replace", "close"} <= failed


@pytest.mark.parametrize("name", ["write", "fsync", "replace", "open"])
@pytest.mark.parametrize("kind", ["checkpoint", "log"])
def test_trainings(tmp_path, monkeypatch, name, kind):
    """Wherever one ends because a file fails, it resumes from what is there."""
    x, y = data()
    straight = dense()
    straight.fit(x, y, **OPTIONS)
    path = tmp_path / "run.csv"

    def fit(**options):
        model = dense()
        if kind == "log":
            callbacks = [Log(path, overwrite=True)]
        else:
            callbacks = [Checkpoint(path, steps=3)]
        model.fit(x, y, callbacks=callbacks, **OPTIONS, **options)
        return model

    def act():
        path.unlink(missing_ok=True)
        fit()

    def check(error, name):
        assert error is None or error.filename == str(path)
        assert set(os.listdir(tmp_path)) <= {"run.csv"}
        if not path.exists():
            return
        if kind == "log":
            epochs = [row["epoch"] for row in read_log(path)]
            assert epochs == list(range(1, len(epochs) + 1))
            assert not path.stat().st_size or path.read_bytes().endswith(b"\n")
        else:
            assert_same(fit(resume=path), straight)

    assert each_fault(monkeypatch, act, check, names=(name,), most=80) == {name}


def test_logs_of_trainings_that_a_full_disk_ends(tmp_path, monkeypatch):
    """The rows so far stay, and the training goes on in them."""
    path, saved = tmp_path / "log.csv", tmp_path / "c"
    with monkeypatch.context() as patch:
        faults = Faults(patch, "write", 5, errno.ENOSPC)  # row and checkpoint, twice; then a row
        with pytest.raises(OSError, match=r"No space left on device: .*log\.csv"):
            train_logged(Log(path), Checkpoint(saved))
        assert faults.failed
    assert [row["epoch"] for row in read_log(path)] == [1, 2]
    train_logged(Log(path), Checkpoint(saved), resume=saved)
    assert [row["epoch"] for row in read_log(path)] == [1, 2, 3]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")
def test_kills():
    """At random moments of trainings; tests/kills.py --kills 200 is the long form."""
    script = Path(__file__).with_name("kills.py")
    argv = [sys.executable, str(script), "--kills", "12"]
    result = subprocess.run(
        argv,
        env={**os.environ, "OPENBLAS_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert result.returncode == 0, result.stderr
    assert "all files whole, all results equal, nothing left behind" in result.stdout
