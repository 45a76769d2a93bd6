import csv
import json
import sys
from pathlib import Path

import numpy as np
import pytest

from bitops.cli import main as cli
from bitops.cli.plot import plot
from bitops.layers import BinaryDense, Dense, Sequential
from bitops.models import mlp
from bitops.training.callbacks import Callback
from bitops.training.checkpoint import Checkpoint
from bitops.training.log import Log, read_log
from bitops.training.losses import cross_entropy


def train(*callbacks, seed=0, epochs=3, validated=True, **options):
    rng = np.random.default_rng(1)
    x, y = rng.integers(256, size=(60, 20), dtype=np.uint8), rng.integers(3, size=60)
    model = mlp(20, 16, 1, 3, seed=seed)
    options |= {"validation": (x[:20], y[:20])} if validated else {}
    callbacks = list(callbacks)
    return model.fit(x, y, epochs=epochs, batch_size=15, callbacks=callbacks, verbose=0, **options)


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


def test_bad_settings(tmp_path):
    with pytest.raises(ValueError, match=r"^\[Log\] path must end in \.csv or \.jsonl, got .*txt$"):
        Log("log.txt")
    with pytest.raises(ValueError, match=r"^\[Log\] bins must be >= 0, got -1$"):
        Log("log.csv", bins=-1)
    with pytest.raises(FileNotFoundError):
        train(Log(tmp_path / "no" / "log.csv"))


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
    ],
)
def test_other_files_are_refused(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=r"^\[read_log\] .*a\.(csv|jsonl) must "):
        read_log(tmp_path / name)


PNG = b"\x89PNG\r\n\x1a\n"


@pytest.mark.parametrize("suffix", ["csv", "jsonl"])
def test_plot(tmp_path, capsys, suffix):
    pytest.importorskip("matplotlib")
    path = tmp_path / f"log.{suffix}"
    train(Log(path))
    assert cli.main(["plot", str(path)]) == 0
    names = capsys.readouterr().out.split()
    pictures = ("curves", "flips", "saturation", "weights")
    assert names == [str(tmp_path / f"log-{picture}.png") for picture in pictures]
    assert all(Path(name).read_bytes().startswith(PNG) for name in names)
    assert cli.main(["plot", str(path), "--out", str(tmp_path / "new" / "place")]) == 0
    assert len(list((tmp_path / "new" / "place").iterdir())) == 4


def test_plot_draws_what_the_log_holds(tmp_path):
    """One epoch of a net without signs or binary weights, and nothing but zeros to draw."""
    pytest.importorskip("matplotlib")
    x, y = np.random.default_rng(0).random((30, 5)), np.arange(30) % 3
    log = tmp_path / "real.csv"
    options = {"loss": cross_entropy, "epochs": 1, "verbose": 0}
    Sequential(Dense(5, 3)).fit(x, y, callbacks=[Log(log)], **options)
    assert [path.name for path in plot(log)] == ["real-curves.png"]
    log = tmp_path / "still.csv"
    options["schedule"] = lambda epoch, epochs: 0.0
    Sequential(BinaryDense(5, 3)).fit(x, y, callbacks=[Log(log, bins=1)], **options)
    assert read_log(log)[0]["flips/0.BinaryDense"] == 0
    assert [path.name for path in plot(log)] == [
        *("still-curves.png", "still-flips.png", "still-weights.png")
    ]


def test_plot_draws_the_numbers(tmp_path, monkeypatch):
    """The lines of the figures are the columns, in percent."""
    figures = pytest.importorskip("matplotlib.figure")
    drawn = []
    save = figures.Figure.savefig
    monkeypatch.setattr(
        figures.Figure,
        "savefig",
        lambda self, *args, **options: [drawn.append(self), save(self, *args, **options)],
    )
    path = tmp_path / "log.csv"
    history = train(Log(path, bins=4))
    plot(path)
    curves, flips, _, weights = drawn
    loss, validation = curves.axes[0].lines[0], curves.axes[1].lines[1]
    assert list(loss.get_ydata()) == [epoch.loss for epoch in history.epochs]
    assert list(validation.get_xdata()) == [1, 2, 3]
    errors = [100 * epoch.validation_error for epoch in history.epochs]
    assert list(validation.get_ydata()) == pytest.approx(errors)
    assert [text.get_text() for text in flips.axes[0].get_legend().texts] == [
        *("0.BinaryDense", "3.BinaryDense")
    ]
    assert [axes.get_title() for axes in weights.axes] == ["0.BinaryDense", "3.BinaryDense"]
    stairs = weights.axes[0].patches[-1].get_data()
    last = read_log(path)[-1]
    names = [name for name in last if name.startswith("latent/0.")]
    assert list(stairs.values) == pytest.approx([100 * last[name] for name in names])
    assert list(stairs.edges) == pytest.approx([-1, -0.5, 0, 0.5, 1])


def test_plot_of_nothing(tmp_path, capsys):
    pytest.importorskip("matplotlib")
    path = tmp_path / "log.csv"
    path.write_text("")
    assert cli.main(["plot", str(path)]) == 1
    assert "must have at least one epoch, got none" in capsys.readouterr().err
    assert cli.main(["plot", str(tmp_path / "missing.csv")]) == 1
    assert "No such file" in capsys.readouterr().err


def test_plot_without_matplotlib(tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    path = tmp_path / "log.csv"
    train(Log(path))
    assert cli.main(["plot", str(path)]) == 1
    assert "matplotlib must be installed (pip install 'bitops[plot]')" in capsys.readouterr().err
