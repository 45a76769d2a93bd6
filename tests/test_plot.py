"""Pictures of logs: what is drawn, and malformed logs."""

import json
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from bitops.cli import main as cli
from bitops.cli.charts import MAX_LAYERS, MAX_METRICS, draw_layers, find_mark
from bitops.cli.plot import plot
from bitops.cli.report import make_report
from bitops.cli.runs import Record, read_record, write_record
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
    rates = [epoch.learning_rate for epoch in history.epochs]
    assert list(curves.axes[2].lines[0].get_ydata()) == rates
    kept = f"smallest validation error: epoch {history.best.number}"
    for axes in (*curves.axes, flips.axes[0]):
        assert list(axes.lines[-1].get_xdata()) == [history.best.number] * 2
        assert axes.get_legend().texts[-1].get_text() == kept
    assert list(loss.get_ydata()) == [epoch.loss for epoch in history.epochs]
    assert list(validation.get_xdata()) == [1, 2, 3]
    errors = [100 * epoch.validation_error for epoch in history.epochs]
    assert list(validation.get_ydata()) == pytest.approx(errors)
    assert [text.get_text() for text in flips.axes[0].get_legend().texts] == [
        *("0.BinaryDense", "3.BinaryDense", kept)
    ]
    assert curves.get_suptitle() == "log.csv"
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
    assert "matplotlib must be installed (pip install matplotlib)" in capsys.readouterr().err


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
    assert [text.get_text() for text in texts] == [
        r"\$a\$",
        " _b",
        "smallest validation error: epoch 1",
    ]
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


def write_log(path, columns):
    """A log of some columns, with the needed ones where they are left out."""
    rows = len(next(iter(columns.values())))
    needed = {"epoch": range(1, rows + 1), **{name: [0.5] * rows for name in TABLE.split(",")[1:]}}
    columns = needed | columns
    lines = [
        ",".join(columns),
        *(",".join(map(str, row)) for row in zip(*columns.values(), strict=True)),
    ]
    path.write_text("".join(f"{line}\n" for line in lines))


def test_metrics_get_charts_and_numbers_no_errors(tmp_path, drawn):
    """A regression has no errors to draw; r2 may be below 0."""
    path = tmp_path / "log.csv"
    x = np.random.default_rng(0).standard_normal((60, 5)).astype(np.float32)
    options = {"loss": "mse", "metrics": ["r2", "mae"], "validation": (x, x[:, 0]), "verbose": 0}
    history = Sequential(Dense(5, 1)).fit(x, x[:, 0], epochs=3, callbacks=Log(path), **options)
    plot(path)
    labels = [axes.get_ylabel().removesuffix(" (log scale)") for axes in drawn[0].axes]
    assert labels == ["mean loss", "r2", "mae", "learning rate"]
    found = [epoch.metrics["validation_r2"] for epoch in history.epochs]
    assert list(drawn[0].axes[1].lines[0].get_ydata()) == pytest.approx(found)
    best = min(history.epochs, key=lambda epoch: epoch.validation_loss).number
    words = drawn[0].axes[0].get_legend().texts[-1].get_text()
    assert words == f"smallest validation loss: epoch {best}"


def test_of_many_metrics_the_first_are_drawn(tmp_path, drawn):
    path = tmp_path / "log.csv"
    write_log(path, {f"validation_{i}": [0.5, 0.25] for i in range(300)})
    plot(path)
    labels = [axes.get_ylabel() for axes in drawn[0].axes]
    assert len(labels) == 3 + MAX_METRICS
    assert labels[-2] == f"{MAX_METRICS - 1} (first {MAX_METRICS} of 300 metrics)"


def test_no_two_lines_look_the_same(tmp_path, drawn):
    path = tmp_path / "log.csv"
    write_log(path, {f"flips/{i}.x": [0.5, 0.25] for i in range(MAX_LAYERS)})
    plot(path)
    lines = [line for line in drawn[1].axes[0].lines if line.get_label().endswith(".x")]
    looks = {(line.get_color(), line.get_linestyle()) for line in lines}
    assert len(looks) == len(lines) == MAX_LAYERS


@pytest.mark.parametrize("layers", [2, 13, MAX_LAYERS])
def test_charts_of_many_layers_keep_their_height_in_a_report(layers):
    figure = pytest.importorskip("matplotlib.figure").Figure(layout="constrained")
    figure.set_size_inches(4.8, 3.2)
    row = {"epoch": 1.0, **{f"flips/{i}.BinaryConv2D": 0.5 for i in range(layers)}}
    draw_layers(figure.subplots(), [row], "flips", None, below=True)
    figure.draw_without_rendering()
    box, legend = figure.axes[0].get_window_extent(), figure.legends[0].get_window_extent()
    assert box.height / figure.dpi > 1.5 and not legend.overlaps(box)


def test_scales_begin_at_zero_or_are_said_to_be_logarithmic(tmp_path, drawn):
    path = tmp_path / "log.csv"
    falls, stays, zero = [10.0, 1.0, 0.1], [0.5, 0.4, 0.45], [0.0, 0.0, 0.0]
    write_log(path, {"loss": falls, "validation_loss": stays, "flips/a": stays, "flips/b": zero})
    plot(path)
    loss, errors, _ = drawn[0].axes
    assert loss.get_yscale() == "log" and loss.get_ylabel() == "mean loss (log scale)"
    assert [text.get_text() for text in loss.get_legend().texts][:2] == ["training", "validation"]
    for axes in (errors, drawn[1].axes[0]):
        assert axes.get_yscale() == "linear" and axes.get_ylim()[0] == 0
        assert "log" not in axes.get_ylabel()


def test_the_epoch_that_is_kept():
    """The first of the smallest; by the loss where there are no errors."""
    errors, losses = (0.5, 0.25, 0.25), (0.3, 0.2, 0.1)
    rows = [
        {"epoch": i, "validation_error": error, "validation_loss": loss}
        for i, (error, loss) in enumerate(zip(errors, losses, strict=True), 1)
    ]
    assert find_mark(rows) == (2, "smallest validation error: epoch 2")
    by_loss = find_mark([row | {"validation_error": None} for row in rows])
    assert by_loss == (3, "smallest validation loss: epoch 3")
    assert find_mark([{"epoch": 1, "validation_error": None}]) is None
    assert find_mark(rows, 1) == (1, "kept: epoch 1")


def test_legends_hide_nothing(tmp_path, drawn):
    path = tmp_path / "log.csv"
    columns = ("flips/0.BinaryDense", "flips/3.BinaryDense", "latent/0.x/-1", "latent/0.x/1")
    write_log(path, {name: [0.5, 0.25] for name in columns})
    plot(path)
    assert len(drawn) == 3
    for figure in drawn:
        boxes = [axes.get_legend() for axes in figure.axes] + figure.legends
        boxes = [box.get_window_extent() for box in boxes if box is not None]
        assert boxes
        for box in boxes:
            assert not any(box.overlaps(axes.get_window_extent()) for axes in figure.axes)


def test_histograms_have_one_scale_and_say_where_they_are_cut(tmp_path, drawn):
    path = tmp_path / "log.csv"
    middles = (-0.75, -0.25, 0.25, 0.75)
    shares = {"a": (0.4, 0.1, 0.1, 0.4), "b": (0.1, 0.3, 0.4, 0.2)}
    bins = {
        f"latent/{layer}/{middle}": [share]
        for layer, row in shares.items()
        for middle, share in zip(middles, row, strict=True)
    }
    write_log(path, bins)
    plot(path)
    for axes in drawn[-1].axes:  # no outer bin is twice as high as the inner ones
        assert axes.get_ylim() == (0, pytest.approx(42))
    assert not any(axes.texts for axes in drawn[-1].axes)
    bins["latent/b/-0.25"], bins["latent/b/0.25"] = [0.15], [0.1]
    write_log(path, bins)
    plot(path)
    first, second = drawn[-1].axes
    assert first.get_ylim() == second.get_ylim() == (0, pytest.approx(1.3 * 15))
    assert [text.get_text().strip() for text in first.texts] == ["^ 40 %", "40 % ^"]
    assert [text.get_text().strip() for text in second.texts] == ["20 % ^"]
    assert "^: cut here" in drawn[-1].legends[0].get_title().get_text()


def test_plot_of_a_run(tmp_path, capsys, drawn):
    """Its pictures say what was trained on what, and how."""
    record = Record(*("recipe", "a $title$", "source", "data", "pixels", "settings", "bitops", "/"))
    for stage in (1, 2):
        write_log(tmp_path / f"log.{stage}.csv", {"loss": [1.0]})
    message = failure(capsys, "plot", str(tmp_path))
    assert "must be a folder that `bitops train --run` wrote" in message
    write_record(tmp_path, record)
    assert cli.main(["plot", str(tmp_path)]) == 0
    names = [Path(name).name for name in capsys.readouterr().out.split()]
    assert names == ["log.1-curves.png", "log.2-curves.png"]
    lines = [r"recipe: a \$title\$", "data; preprocessing: pixels", "settings"]
    assert {figure.get_suptitle() for figure in drawn} == {"\n".join(lines)}
    assert cli.main(["plot", str(tmp_path), "--title", "mine"]) == 0
    assert drawn[-1].get_suptitle() == "mine"


def test_the_epoch_that_a_run_kept_is_marked(tmp_path, drawn):
    """It is told by the run, whose log has the errors before its statistics were taken anew."""
    record = Record(*("recipe", "title", "source", "data", "pixels", "settings", "bitops", "/"))
    for stage in (1, 2):
        write_log(tmp_path / f"log.{stage}.csv", {"validation_error": [0.5, 0.25, 0.75]})
    write_record(tmp_path, replace(record, best_epoch=3))
    assert cli.main(["plot", str(tmp_path)]) == 0
    marks = [figure.axes[1].get_legend().texts[-1].get_text() for figure in drawn]
    expected = ["smallest validation error: epoch 2", "kept: epoch 3"]
    assert marks == expected
    stages = make_report(tmp_path).split("Training of stage 2")
    assert [[words in stage for words in expected] for stage in stages] == [
        [True, False],
        [False, True],
    ]


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"format": "bitops.run", "version": 2}', '{"format": "bitops.run"']
)
def test_runs_that_are_none(tmp_path, capsys, text):
    (tmp_path / "run.json").write_text(text)
    message = failure(capsys, "plot", str(tmp_path))
    assert f"[plot] {tmp_path / 'run.json'} must describe a run" in message


def test_records_are_checked(tmp_path):
    good = Record(*("recipe", "title", "source", "data", "pixels", "settings", "bitops", "/"))
    write_record(tmp_path, good)
    assert read_record("plot", tmp_path) == good
    path = tmp_path / "run.json"
    document = json.loads(path.read_text())
    for change in ({"size": "8"}, {"seconds": True}, {"more": 1}, {"recipe": None}):
        path.write_text(json.dumps(document | change))
        with pytest.raises(ValueError, match=rf"must describe a run: '{next(iter(change))}'"):
            read_record("plot", tmp_path)
    del document["command"]
    path.write_text(json.dumps(document))
    with pytest.raises(ValueError, match="command must be there"):
        read_record("plot", tmp_path)
