"""Pictures of logs: what is drawn, and malformed logs."""

import sys
import time
from pathlib import Path

import numpy as np
import pytest

from bitops.cli import main as cli
from bitops.cli.plot import MAX_LAYERS, plot
from bitops.layers import BinaryDense, Dense, Sequential
from bitops.training.log import Log, read_log
from bitops.training.losses import cross_entropy
from commands import failure
from trainings import train_logged as train

TABLE = "epoch,loss,train_error,validation_error"


@pytest.fixture
def drawn(monkeypatch):
    """The figures that are saved, in order."""
    figures = pytest.importorskip("matplotlib.figure")
    drawn = []
    save = figures.Figure.savefig
    monkeypatch.setattr(
        figures.Figure,
        "savefig",
        lambda self, *args, **options: [drawn.append(self), save(self, *args, **options)],
    )
    return drawn


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


def test_plot_draws_the_numbers(tmp_path, drawn):
    """The lines of the figures are the columns, in percent."""
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


@pytest.mark.parametrize(
    "name",
    ["latent/x", "latent/a/b/c", "latent/a/nan", "latent/a/inf", "latent//1", "latent/a/1_0"],
)
def test_columns_that_no_log_has(tmp_path, capsys, name):
    pytest.importorskip("matplotlib")
    path = tmp_path / "log.csv"
    path.write_text(f"{TABLE},{name}\n1,1,1,1,1\n")
    message = failure(capsys, "plot", str(path))
    assert f"[plot] {path} must name bins latent/layer/middle, got '{name}'" in message


@pytest.mark.parametrize(
    ("name", "row"),
    [
        ("latent/a/1e300", "1,1,1,1,1"),
        ("flips/a", "1,1,1,1,1e300"),
        ("flips/a", "1e300,1,1,1,1"),
        ("flips/a", "1,-1e300,1,1,1"),
    ],
)
def test_numbers_that_cannot_be_drawn(tmp_path, capsys, name, row):
    pytest.importorskip("matplotlib")
    path = tmp_path / "log.csv"
    path.write_text(f"{TABLE},{name}\n{row}\n")
    assert f"[plot] {path} must hold numbers up to 1e+15" in failure(capsys, "plot", str(path))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["log.csv"]


@pytest.mark.parametrize(
    "names",
    [
        *(r"flips/$\foo$", r"flips/$x", r"saturated/\$x$", "latent/$a$/0.5", "flips/_a", "flips/"),
        *("latent/_/0.5,latent/_/0.50", "flips/%s{}^_", "latent/a/1e15,latent/a/-1e15"),
    ],
)
@pytest.mark.parametrize("epoch", ["1", "1e15", "-3", "0.5"])
def test_names_and_numbers_are_drawn_as_they_are(tmp_path, names, epoch):
    """Without a word of matplotlib, whose formulas begin with $."""
    pytest.importorskip("matplotlib")
    path = tmp_path / "log.csv"
    ones = ",0.5" * (names.count(",") + 1)
    path.write_text(f"{TABLE},{names}\n{epoch},1e-320,1,{ones}\n2,,0,{ones}\n")
    assert len(plot(path)) == 2


def test_labels(tmp_path, drawn):
    path = tmp_path / "log.csv"
    path.write_text(f"{TABLE},flips/$a$,flips/_b,latent/$c$/0.5\n1,1,1,1,1,1,1\n")
    plot(path)
    texts = drawn[1].axes[0].get_legend().texts
    assert [text.get_text() for text in texts] == [r"\$a\$", " _b"]
    assert drawn[2].axes[0].get_title() == r"\$c\$"


@pytest.mark.parametrize("kind", ["flips/{}.x", "saturated/{}.x", "latent/{}.x/0.5"])
@pytest.mark.filterwarnings("ignore:constrained_layout not applied")
def test_of_thousands_of_layers_the_first_are_drawn(tmp_path, drawn, kind):
    path = tmp_path / "log.csv"
    names = ",".join(kind.format(i) for i in range(3000))
    path.write_text(f"{TABLE},{names}\n1,1,1,{',0.5' * 3000}\n")
    start = time.perf_counter()
    plot(path)
    assert time.perf_counter() - start < 120  # 6 s on a quiet machine
    assert f"(first {MAX_LAYERS} of 3,000 layers)" in "".join(
        [drawn[1].axes[0].get_ylabel(), str(drawn[1].get_supylabel())]
    )
