import csv
import json

import numpy as np
import pytest

from bitops.training.callbacks import Callback
from bitops.training.checkpoint import Checkpoint
from bitops.training.log import Log, read_log
from trainings import train_logged as train


@pytest.mark.parametrize("suffix", ["csv", "jsonl"])
@pytest.mark.parametrize("validated", [True, False])
def test_rows(tmp_path, suffix, validated):
    path = tmp_path / f"log.{suffix}"
    history = train(Log(path, bins=4), validated=validated)
    rows = read_log(path)
    assert [row["epoch"] for row in rows] == [1, 2, 3]
    assert [row["step"] for row in rows] == [4, 8, 12]
    for row, epoch in zip(rows, history.epochs, strict=True):
        assert row["loss"] == epoch.loss
        assert row["learning_rate"] == epoch.learning_rate
        assert row["train_error"] == epoch.train_error
        assert row["validation_error"] == epoch.validation_error
        assert row["seconds"] == epoch.seconds
    names = [name for name in rows[0] if "/" in name]
    assert names == [
        *("flips/0.BinaryDense", "flips/3.BinaryDense", "saturated/2.Sign"),
        *(f"latent/{i}.BinaryDense/{m}" for i in (0, 3) for m in (-0.75, -0.25, 0.25, 0.75)),
    ]
    assert all(0 <= row[name] <= 1 for row in rows for name in names)
    shares = [row[name] for name in names if name.startswith("latent/0.") for row in rows[:1]]
    assert sum(shares) == pytest.approx(1)


def test_formats_are_those_of_other_programs(tmp_path):
    train(Log(tmp_path / "a.csv", bins=0), Log(tmp_path / "b.jsonl", bins=0), validated=False)
    with open(tmp_path / "a.csv", newline="") as file:
        header, *rows = csv.reader(file)
    assert header[:6] == [
        "epoch",
        "step",
        "learning_rate",
        "loss",
        "train_error",
        "validation_error",
    ]
    assert [row[0] for row in rows] == ["1", "2", "3"]
    assert rows[0][5] == ""
    objects = [json.loads(line) for line in (tmp_path / "b.jsonl").read_text().splitlines()]
    assert [list(row) for row in objects] == [header] * 3
    assert objects[0]["validation_error"] is None


def test_flips_are_those_of_the_epoch(tmp_path):
    """Counted here from copies of the weights."""

    class Count(Callback):
        def __init__(self):
            self.ratios = []

        def on_start(self, run):
            self.before = run.model.layers[0].weight.value >= 0

        def on_epoch(self, run):
            now = run.model.layers[0].weight.value >= 0
            self.ratios.append(np.mean(now != self.before))
            self.before = now

    count = Count()
    train(Log(tmp_path / "log.csv"), count, schedule=lambda epoch, epochs: 0.02)
    rows = read_log(tmp_path / "log.csv")
    assert [row["flips/0.BinaryDense"] for row in rows] == count.ratios
    assert min(count.ratios) > 0


def test_readable_while_running(tmp_path):
    path, seen = tmp_path / "log.csv", []

    class Read(Callback):
        def on_epoch(self, run):
            seen.append(len(read_log(path)))

    train(Log(path), Read())
    assert seen == [1, 2, 3]


@pytest.mark.parametrize("suffix", ["csv", "jsonl"])
def test_half_a_row_is_left_out(tmp_path, suffix):
    path = tmp_path / f"log.{suffix}"
    train(Log(path))
    content = path.read_bytes()
    rows = read_log(path)
    path.write_bytes(content[:-5])
    assert read_log(path) == rows[:2]
    path.write_bytes(b"")
    assert read_log(path) == []


class StopAt(Callback):
    def __init__(self, step):
        self.step = step

    def on_batch(self, run):
        run.stop |= run.step == self.step


@pytest.mark.parametrize("suffix", ["csv", "jsonl"])
@pytest.mark.parametrize("step", [3, 4, 7, 8])
def test_resumed_training_goes_on_in_the_log(tmp_path, suffix, step):
    """The same rows but for the times, flip ratios of the interrupted epoch included."""
    path, saved = tmp_path / f"log.{suffix}", tmp_path / "c"
    train(Log(tmp_path / f"whole.{suffix}"))
    train(Log(path), Checkpoint(saved), StopAt(step))
    # a row that came after the checkpoint, and half of one
    content = path.read_bytes()
    if step == 8:
        more = path.read_bytes().splitlines(keepends=True)[-1]
        path.write_bytes(content + more.replace(b"2", b"3", 1) + more[:9])
    train(Log(path), seed=5, resume=saved)
    both = [read_log(tmp_path / f"whole.{suffix}"), read_log(path)]
    for rows in both:
        assert [row.pop("seconds") > 0 for row in rows] == [True] * 3
    assert both[0] == both[1]


def test_resumed_training_without_its_log(tmp_path):
    train(Checkpoint(tmp_path / "c"), StopAt(6))
    train(Log(tmp_path / "log.csv"), resume=tmp_path / "c")
    assert [row["epoch"] for row in read_log(tmp_path / "log.csv")] == [2, 3]


def test_new_training_starts_the_log_anew(tmp_path):
    path = tmp_path / "log.csv"
    train(Log(path))
    with pytest.raises(FileExistsError, match=r"^\[Log\] .*log\.csv must be new .* of 3 rows$"):
        train(Log(path), epochs=1)
    assert len(read_log(path)) == 3
    train(Log(path, overwrite=True), epochs=1)
    assert len(read_log(path)) == 1


def test_other_columns_are_refused(tmp_path):
    path = tmp_path / "log.csv"
    train(Log(path), Checkpoint(tmp_path / "c"), StopAt(4))
    with pytest.raises(
        ValueError, match=r"^\[Log\] columns of .*log\.csv must stay the same, diff"
    ):
        train(Log(path, bins=3), resume=tmp_path / "c")


def test_other_columns_are_refused_before_the_first_step(tmp_path):
    path, saved, steps = tmp_path / "log.csv", tmp_path / "c", []
    train(Log(path, bins=4), Checkpoint(saved), StopAt(4), metrics="accuracy")
    content = path.read_bytes()

    class Count(Callback):
        def on_batch(self, run):
            steps.append(run.step)

    with pytest.raises(ValueError, match=r"^\[Log\] columns .* differ in .*-0\.9"):
        train(Log(path), Count(), resume=saved, metrics="accuracy")
    path.write_bytes(content.replace(b"validation_accuracy", b"validation_top"))
    with pytest.raises(ValueError, match=r"^\[Log\] columns .* differ in .*validation_accuracy"):
        train(Log(path, bins=4), Count(), resume=saved, metrics="accuracy")
    assert not steps


@pytest.mark.parametrize("suffix", ["csv", "jsonl"])
def test_logs_of_other_trainings_are_refused(tmp_path, suffix):
    """Told by the losses of the epochs that are done."""
    path, saved = tmp_path / f"log.{suffix}", tmp_path / "c"
    train(Checkpoint(saved), StopAt(8))
    train(Log(path), seed=5)
    content = path.read_bytes()
    with pytest.raises(FileExistsError, match=r"must be new or .* in epoch 1 the loss is"):
        train(Log(path), resume=saved)
    assert path.read_bytes() == content
    train(Log(path, overwrite=True), resume=saved)
    assert [row["epoch"] for row in read_log(path)] == [3]


@pytest.mark.parametrize("place", [0, 1])
def test_no_row_is_missing_after_a_crash(tmp_path, place):
    """Between two callbacks, in whatever order they stand."""
    path, saved = tmp_path / "log.csv", tmp_path / "c"

    class Crash(Callback):
        def on_epoch(self, run):
            if run.epoch == 2:
                raise KeyError

    callbacks = [Checkpoint(saved), Log(path)]
    callbacks.insert(1, Crash())
    with pytest.raises(KeyError):
        train(*(callbacks if place else reversed(callbacks)))
    train(Log(path), resume=saved)
    assert [row["epoch"] for row in read_log(path)] == [1, 2, 3]


@pytest.mark.parametrize("suffix", ["csv", "jsonl"])
def test_names_of_any_letters(tmp_path, suffix):
    path, saved = tmp_path / f"log.{suffix}", tmp_path / "c"

    def metric(scores, y):
        return 0.5

    metric.__name__ = 'g\u00fcte, "\u20ac"'
    train(Log(path), Checkpoint(saved), StopAt(8), metrics=metric)
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())  # as some editors do
    train(Log(path), resume=saved, metrics=metric)
    rows = read_log(path)
    assert [row[f"validation_{metric.__name__}"] for row in rows] == [0.5] * 3
    metric.__name__ = "a\nb"
    with pytest.raises(ValueError, match=r"^\[Log\] names of metrics must be printable"):
        train(Log(tmp_path / f"b.{suffix}"), metrics=metric)


@pytest.mark.parametrize("kind", [Log, Checkpoint])
def test_paths_that_name_no_file(kind):
    name = kind.__name__
    for path, error in (("", ValueError), ("a\0.csv", ValueError), (5, TypeError)):
        with pytest.raises(error, match=rf"^\[{name}\] path must "):
            kind(path)


def test_bad_settings(tmp_path):
    with pytest.raises(ValueError, match=r"^\[Log\] path must end in \.csv or \.jsonl, got .*txt$"):
        Log("log.txt")
    with pytest.raises(ValueError, match=r"^\[Log\] bins must be at least 0, got -1$"):
        Log("log.csv", bins=-1)
    with pytest.raises(TypeError, match=r"^\[Log\] bins must be an integer, got 2.5$"):
        Log("log.csv", bins=2.5)
    with pytest.raises(FileNotFoundError):
        train(Log(tmp_path / "no" / "log.csv"))


TABLE = b"epoch,loss,train_error,validation_error\n"
OBJECT = b'{"epoch": 1, "loss": 0.5, "train_error": 0, "validation_error": null}\n'


def test_the_least_logs(tmp_path):
    """From which the malformed ones below differ."""
    (tmp_path / "a.csv").write_bytes(TABLE + b"1,0.5,0,\n")
    (tmp_path / "a.jsonl").write_bytes(OBJECT)
    row = {"epoch": 1, "loss": 0.5, "train_error": 0, "validation_error": None}
    assert read_log(tmp_path / "a.csv") == read_log(tmp_path / "a.jsonl") == [row]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.csv", b"epoch,loss\n1,two\n"),
        ("a.csv", b"loss,speed\n1,2\n"),
        ("a.csv", b"epoch,loss,train_error,validation_error\n1,2\n"),
        ("a.csv", b"epoch,loss,train_error,validation_error\n1,2,3,4,5\n"),
        ("a.csv", b"\x89PNG\r\n\x1a\n\xff\n"),
        ("a.jsonl", b"[1, 2]\n"),
        ("a.jsonl", b"{'epoch': 1}\n"),
        ("a.jsonl", b'{"epoch": 1}\n'),
        ("a.jsonl", b"[" * 200_000 + b"\n"),
        ("a.jsonl", b'{"a":' * 200_000 + b"\n"),
        ("a.jsonl", OBJECT.replace(b"0.5", b"1" + b"0" * 400)),
        ("a.jsonl", OBJECT.replace(b"0.5", b"1" + b"0" * 5000)),
        ("a.jsonl", OBJECT.replace(b"0.5", b"NaN")),
        ("a.jsonl", OBJECT.replace(b"0.5", b"1e999")),
        ("a.jsonl", OBJECT.replace(b"0.5", b"true")),
        ("a.jsonl", OBJECT.replace(b"0.5", b'"0.5"')),
        ("a.jsonl", OBJECT.replace(b"0.5", b"[0.5]")),
        ("a.jsonl", OBJECT.replace(b": 1,", b": null,")),
        ("a.jsonl", OBJECT.replace(b": 1,", b": Infinity,")),
        ("a.jsonl", OBJECT.replace(b'"epoch"', b'"loss"')),
        ("a.jsonl", OBJECT + OBJECT.replace(b"}", b', "flips/a": 1}')),
        ("a.jsonl", OBJECT.replace(b"}", b', "latent/a/1": 1}') + OBJECT),
        ("a.csv", TABLE + b"x" * 200_000 + b",0.5,0,\n"),
        ("a.csv", TABLE[:-1] + b"," + b"x" * 200_000 + b"\n1,0.5,0,,1\n"),
        ("a.csv", TABLE[:-1] + b",loss\n1,0.5,0,,0.5\n"),
        ("a.csv", TABLE + b",0.5,0,\n"),
        ("a.csv", TABLE + b"inf,0.5,0,\n"),
        ("a.csv", TABLE + b"1,nan,0,\n"),
        ("a.csv", TABLE + b'1,"0.5,0,\n1,0.5",0,\n'),
        ("a.csv", TABLE + b"1,0.5,0,\0\n"),
    ],
)
def test_other_files_are_refused(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=r"^\[read_log\] .*a\.(csv|jsonl) must ") as error:
        read_log(tmp_path / name)
    assert len(str(error.value)) < 1000 and str(error.value).isprintable()


@pytest.mark.parametrize("end", ["\n", "\n\n", " \n", "\t\n"])
@pytest.mark.parametrize("suffix", ["csv", "jsonl"])
def test_resumed_training_after_an_editor(tmp_path, suffix, end):
    """Which has added lines, or ends them as Windows does."""
    for name, change in (("end", lambda text: text + end), ("crlf", lambda text: crlf(text))):
        path, saved = tmp_path / f"{name}.{suffix}", tmp_path / name
        train(Log(path), Checkpoint(saved), StopAt(8))
        path.write_bytes(change(path.read_text()).encode())
        assert [row["epoch"] for row in read_log(path)] == [1, 2]
        train(Log(path), resume=saved)
        assert [row["epoch"] for row in read_log(path)] == [1, 2, 3]
        assert b"\r" not in path.read_bytes() and b"\n\n" not in path.read_bytes()


def crlf(text):
    return text.replace("\n", "\r\n")


@pytest.mark.parametrize("suffix", ["csv", "jsonl"])
@pytest.mark.parametrize("way", ["rename", "remove", "empty"])
def test_a_log_that_is_taken_away_meanwhile(tmp_path, suffix, way):
    """As programs do that turn logs: the next row starts a whole new one."""
    path = tmp_path / f"log.{suffix}"

    class Turn(Callback):
        def on_epoch(self, run):
            if run.epoch == 2:
                if way == "empty":
                    (tmp_path / f"old.{suffix}").write_bytes(path.read_bytes())
                    path.write_bytes(b"")
                elif way == "rename":
                    path.rename(tmp_path / f"old.{suffix}")
                else:
                    path.unlink()

    train(Log(path), Turn())
    assert [row["epoch"] for row in read_log(path)] == [3]
    if way != "remove":
        assert [row["epoch"] for row in read_log(tmp_path / f"old.{suffix}")] == [1, 2]


def test_resumed_within_the_first_epoch(tmp_path):
    """After the row of that epoch was written, but no checkpoint behind it."""
    path, saved = tmp_path / "log.csv", tmp_path / "c"

    class Crash(Callback):
        def on_epoch(self, run):
            raise KeyError

    with pytest.raises(KeyError):
        train(Checkpoint(saved, every=9, steps=3), Log(path), Crash())
    assert len(read_log(path)) == 1
    train(Log(path), resume=saved)
    assert [row["epoch"] for row in read_log(path)] == [1, 2, 3]
