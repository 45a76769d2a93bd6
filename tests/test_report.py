"""`bitops report`: the page of a run, its parts, and what it does without data or model."""

import base64
import re
import sys
from html.parser import HTMLParser
from xml.etree import ElementTree

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from bitops import io
from bitops.cli import findings, page, report
from bitops.cli import main as cli
from bitops.cli.runs import Record, write_record
from bitops.data import Dataset, load_npz
from bitops.layers import FloatConv2D, Packed, PackedDense, PackedFlatten
from bitops.ops.array import pack
from bitops.training import confusion_matrix
from commands import failure, usage_error

pytest.importorskip("matplotlib")

VOID = {"meta", "img", "br", "link"}


class Page(HTMLParser):
    """Checks that tags close in order, and collects them with their texts."""

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.open, self.tags, self.texts = [], [], []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)

    def all(self, tag):
        return [attributes for name, attributes in self.tags if name == tag]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run on 60 images of 6 x 5 in three classes, one of them called <b>."""
    folder = tmp_path_factory.mktemp("trained")
    rng, y = np.random.default_rng(0), np.arange(60) % 3
    x = np.uint8(90 * y[:, None, None] + rng.integers(0, 60, (60, 6, 5)))
    np.savez(folder / "mine.npz", x=x, y=np.array(["ant", "<b>", "cat"])[y])
    options = "--quick --width 20 --batch 10 --epochs 2 --quiet".split()
    argv = ["train", "bnn-theano", "--data", str(folder / "mine.npz"), *options]
    assert cli.main([*argv, "--run", str(folder / "run")]) == 0
    return folder


@pytest.fixture(scope="module")
def made(trained):
    return report.make_report(trained / "run")


def test_the_page_is_whole_and_loads_nothing(made):
    read = Page(made)
    headings = [text for text in read.texts if text[:1].isupper()]
    for words in ("Confusion matrix", "First filters", "Packed network", "Training"):
        assert words in headings
    assert not re.search(r"https?://(?!www\.w3\.org)", made)
    assert not read.all("script") and not read.all("link")
    for image in read.all("img"):
        media, data = image["src"].removeprefix("data:").split(";base64,")
        content = base64.b64decode(data, validate=True)
        assert content.startswith({"image/png": b"\x89PNG", "image/svg+xml": b"<svg"}[media])
        assert image["alt"]
    ids = re.findall(r'\bid="([^"]*)"', made)
    assert len(set(ids)) == len(ids)
    assert set(re.findall(r'(?:url\(#|href="#)([^)"]+)', made)) <= set(ids)


def test_charts_are_scalable_and_in_the_colors_of_the_page(made):
    charts = re.findall(r"<svg.*?</svg>", made, flags=re.DOTALL)
    labels = ["loss", "errors", "learning rate", "flips", "saturation", "latent weights"]
    assert [re.search('aria-label="(.*?)"', chart)[1] for chart in charts] == labels
    for chart in charts:
        root = ElementTree.fromstring(chart)
        assert root.get("viewBox") and root.get("width") is root.get("height") is None
        assert "#000000" not in chart and "#ffffff" not in chart and "currentColor" in chart


def test_the_page_says_what_the_network_does(trained, made):
    packed = io.load(trained / "run" / "model.safetensors")
    data = load_npz(trained / "mine.npz")
    x = data.x_test.reshape(len(data.y_test), -1)
    read = Page(made)
    text = " ".join(read.texts)
    assert f"{packed.error_rate(x, data.y_test):.2%}" in text
    assert "<b>" in read.texts, "names of classes are words, no tags"
    assert f"bitops train bnn-theano --data {trained / 'mine.npz'}" in text
    assert (
        "data" in text and "mine: 48 training, 6 validation and 6 test images of 6 x 5 x 1" in text
    )
    assert "network" in text and "30-20-20-20-3" in text
    table = re.search(r'<table class="confusion">.*?</table>', made, flags=re.DOTALL)[0]
    cells = re.findall(r"<td[^>]*>(.*?)</td>", table)
    counts = np.array([cell or 0 for cell in cells if "%" not in cell], int)
    expected = confusion_matrix(data.y_test, packed.predict(x), 3)
    assert_array_equal(counts.reshape(3, 3), expected)


def test_the_command(capsys, tmp_path):
    record = Record(*("recipe", "title", "source", "data", "pixels", "-", "bitops", "/"))
    message = failure(capsys, "report", str(tmp_path))
    assert "must be a folder that `bitops train --run` wrote" in message
    assert "No such file" in failure(capsys, "report", str(tmp_path / "nowhere"))
    write_record(tmp_path, record)
    message = usage_error(capsys, "report", str(tmp_path), "-o", str(tmp_path / "page.txt"))
    assert "--output: must end in .html" in message
    for options, out in (([], tmp_path / "report.html"), (["-o"], tmp_path / "page.html")):
        assert cli.main(["report", str(tmp_path), *options, *([str(out)] * len(options))]) == 0
        assert capsys.readouterr().out == f"wrote {out}, {out.stat().st_size:,} bytes\n"


def test_without_data(trained, tmp_path, capsys):
    moved = (trained / "mine.npz").rename(trained / "moved.npz")
    try:
        text = report.make_report(trained / "run")
        assert "The data could not be used" in text and "First filters" in text
        assert "as the training found it" in text and "Confusion" not in text
        assert "Confusion" in report.make_report(trained / "run", moved)
        message = failure(capsys, "report", str(trained / "run"), "--data", str(tmp_path))
        assert "must hold the files of MNIST" in message
        np.savez(tmp_path / "two.npz", x=np.zeros((8, 6, 5), np.uint8), y=np.arange(8) % 2)
        message = failure(
            capsys, "report", str(trained / "run"), "--data", str(tmp_path / "two.npz")
        )
        assert "[report] two must have 3 classes, as many as the model has scores, got 2" in message
    finally:
        moved.rename(trained / "mine.npz")


def test_data_that_has_changed(trained, made, capsys, tmp_path):
    assert "has changed" not in made and "The training found" not in made
    with np.load(trained / "mine.npz") as held:
        x, y = held["x"], held["y"]
    other = tmp_path / "renamed.npz"
    np.savez(other, x=x, y=y)
    assert "has changed" not in report.make_report(trained / "run", other)
    np.savez(other, x=x[::-1][:57], y=y[:57])
    text = report.make_report(trained / "run", other)
    assert "The data has changed since the training. Now there are 51 training" in text
    assert "The training found a test error of" in text
    np.savez(other, x=x, y=np.array(["bee", "cat", "dog"])[np.arange(60) % 3])
    message = failure(capsys, "report", str(trained / "run"), "--data", str(other))
    assert "[report] the classes of renamed must be" in message


def test_a_run_that_is_not_over(tmp_path):
    record = Record(*("recipe", "title", "source", "my data", "pixels", "-", "bitops <x>", "/"))
    write_record(tmp_path, record)
    text = report.make_report(tmp_path)
    Page(text)
    assert "not over, after 0 complete epochs" in text and "bitops &lt;x&gt;" in text
    head = "epoch,loss,train_error,validation_error\n"
    for stage in (1, 2):
        (tmp_path / f"log.{stage}.csv").write_text(f"{head}1,0.5,0.25,0.5\n")
    text = report.make_report(tmp_path)
    assert "after 2 complete epochs" in text and "Training of stage 2" in text
    Page(text)


def test_without_matplotlib(trained, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    message = failure(capsys, "report", str(trained / "run"))
    assert "[report] matplotlib must be installed (pip install matplotlib)" in message


def identity_data(classes):
    """Data whose test image i is bright at pixel i, but the labels of the last two are swapped."""
    x = np.eye(classes, dtype=np.uint8)[:, :, None, None] * 200
    y = np.arange(classes)
    y[-2:] = y[-2], y[-2]
    return Dataset("bright", (classes, 1, 1), classes, x, y, x, y, x, y)


def test_findings():
    data = identity_data(4)
    packed = Packed(PackedFlatten(), PackedDense(2 * np.eye(4) - 1), input_shape=(4, 1, 1))
    found = findings.examine(packed, data.x_test, data, 5)
    assert_array_equal(found.confusion, [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 1], [0, 0, 0, 0]])
    assert found.wrong == 1 and found.names == ["0", "1", "2", "3"]
    (mistake,) = found.mistakes
    assert (mistake.label, mistake.predicted) == (2, 3)
    assert_array_equal(mistake.pixels, data.x_test[3])
    speeds = findings.measure_speed(packed, data.x_test, (1, 100))
    assert list(speeds) == [1, 4] and min(speeds.values()) > 0


def test_many_classes_are_listed():
    data = identity_data(30)
    packed = Packed(PackedFlatten(), PackedDense(2 * np.eye(30) - 1), input_shape=(30, 1, 1))
    text = report._confusions(findings.examine(packed, data.x_test, data, 5))
    assert "Most frequent confusions" in text
    assert re.findall("<th>28</th>|<td.*?>(.*?)</td>", text) == ["", "29", "1"]


def test_filters(rng):
    signs = rng.choice([-1.0, 1.0], (3, 20))
    packed = Packed(PackedDense(pack(signs)), input_shape=(20,))
    sheet, shown, total = findings.filter_sheet(packed, (4, 5))
    assert (shown, total) == (3, 3)
    first = sheet[:4, :5]
    assert_array_equal(first[..., 0], np.where(signs[0] > 0, 255, 0).reshape(4, 5))
    assert (first[..., 1] == 255).all() and (sheet[:, 5, 1] == 0).all()
    weights = rng.standard_normal((70, 3, 3, 3)).astype(np.float32)
    packed = Packed(FloatConv2D(weights, np.zeros(70)), input_shape=(8, 8, 3))
    sheet, shown, total = findings.filter_sheet(packed, (8, 8, 3))
    assert (shown, total, sheet.shape[2]) == (64, 70, 4)
    scaled = 127.5 + 127.5 * weights[0] / np.abs(weights[0]).max()
    assert np.abs(sheet[:3, :3, :3] - scaled).max() <= 1
    packed = Packed(PackedDense(pack(signs)), input_shape=(20,))
    assert findings.filter_sheet(packed, (7, 3)) is None
    assert findings.filter_sheet(packed, (20,)) is None


def test_words_of_strangers_are_words():
    text = page.make_page(
        "<t>",
        [page.section("a & b", page.note("<script>\x1b")), page.table(("x", "y"), [("<i>", '"')])],
    )
    assert "<script>" not in text and "\x1b" not in text and "<i>" not in text
    Page(text)
