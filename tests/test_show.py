"""`bitops show`: the table, and the picture as SVG."""

import itertools
import xml.etree.ElementTree as ET

import numpy as np
import pytest

from bitops.cli import main as cli
from bitops.cli.network_picture import draw_network, short_count
from bitops.layers import (
    FloatConv2D,
    FloatDense,
    Packed,
    PackedAvgPool2D,
    PackedConcat,
    PackedConv2D,
    PackedDense,
    PackedGlobalAvgPool2D,
    PackedResidual,
    PackedSign,
)
from bitops.layers.base import all_layers
from commands import failure, usage_error

SVG = "{http://www.w3.org/2000/svg}"


def conv(inputs, outputs, groups=1, **options):
    w = np.ones((outputs, 3, 3, inputs // groups))
    return PackedConv2D(w, alpha=np.ones(outputs), padding=1, groups=groups, **options)


@pytest.fixture
def network():
    """Branches within branches, an identity among them, and products of all three kinds."""
    inner = PackedResidual([PackedSign(np.zeros(32)), conv(32, 32)], [FloatConv2D(ones(32, 32))])
    return Packed(
        conv(3, 16, stride=2),
        PackedConcat([PackedSign(np.zeros(16)), conv(16, 32, groups=2)]),
        PackedConcat([PackedSign(np.zeros(48)), conv(48, 32), inner], [PackedAvgPool2D(3, 1, 1)]),
        PackedGlobalAvgPool2D(),
        FloatDense(np.ones((10, 80))),
        input_shape=(32, 32, 3),
    )


def ones(outputs, inputs):
    return np.ones((outputs, 1, 1, inputs))


def boxes(svg):
    """Class and frame of each rectangle but the page, as (x, y, width, height)."""
    found = []
    for rect in ET.fromstring(svg).iter(f"{SVG}rect"):
        name = rect.get("class")
        if name != "page":
            frame = [float(rect.get(key)) for key in ("x", "y", "width", "height")]
            found.append((name.removeprefix("box "), frame))
    return found[4:]  # behind the legend


def texts(svg):
    return ["".join(text.itertext()) for text in ET.fromstring(svg).iter(f"{SVG}text")]


def test_every_layer_is_drawn_in_its_color(network):
    svg = draw_network(network, "net")
    rows = network.summary().rows
    drawn = boxes(svg)
    assert len(drawn) == len(rows)
    kinds = [kind for kind, _ in drawn]
    assert kinds.count("bits") == 3 and kinds.count("mixed") == 1  # the first one takes numbers
    assert kinds.count("float") == 2
    words = texts(svg)
    assert {row.output for row in rows} <= set(words)
    for name in ("Conv2D 3x3 / 2x2", "Conv2D 3x3, 2 groups", "add", "AvgPool2D 3x3", "FloatDense"):
        assert name in words
    assert words.count("concat") == 2
    total = network.summary().total
    share = total.binary_macs / (total.binary_macs + total.float_macs)
    assert any(f"{share:.1%} of them of 1 bit" in line for line in words)


def test_nothing_overlaps_and_all_is_on_the_page(network):
    svg = draw_network(network, "net")
    root = ET.fromstring(svg)
    width, height = float(root.get("width")), float(root.get("height"))
    frames = [frame for _, frame in boxes(svg)]
    for i, (x, y, w, h) in enumerate(frames):
        assert x >= 0 and y >= 0 and x + w <= width and y + h <= height
        for x2, y2, w2, h2 in frames[:i]:
            assert x + w <= x2 or x2 + w2 <= x or y + h <= y2 or y2 + h2 <= y
    for line in root.iter(f"{SVG}polyline"):
        points = [tuple(map(float, point.split(","))) for point in line.get("points").split()]
        assert all(0 <= x <= width and 0 <= y <= height for x, y in points)
        # straight, across or down
        assert all(a[0] == b[0] or a[1] == b[1] for a, b in itertools.pairwise(points))


def test_identity_is_a_line_beside_the_body():
    block = PackedResidual([PackedDense(np.ones((8, 8)), alpha=np.ones(8))])
    root = ET.fromstring(draw_network(Packed(block), "net"))
    lines = [line.get("points").split() for line in root.iter(f"{SVG}polyline")]
    ends = {(line[0], line[-1]) for line in lines}
    (start,) = (line[-1] for line in lines if len(line) == 3 and line[0].split(",")[1] == "152")
    assert any(first == start for first, _ in ends)  # it goes on below


def test_unknown_sizes_are_left_open():
    svg = draw_network(Packed(conv(3, 16)), "net")
    assert "input" in texts(svg) and "?x?x16 numbers" in texts(svg)
    assert "? float MACs" in texts(svg)


def test_counts_have_three_digits():
    counts = (0, 999, 1000, 9994, 9995, 99949, 99950, 999499, 999500)
    words = "0 B, 999 B, 1.00 kB, 9.99 kB, 10.0 kB, 99.9 kB, 100 kB, 999 kB, 1.00 MB"
    assert [short_count(count, "B") for count in counts] == words.split(", ")
    assert short_count(1000) == "1.00 k" and short_count(None) == "?"


def test_command(capsys, network, tmp_path):
    model, picture = tmp_path / "<net> & co.safetensors", tmp_path / "net.svg"
    network.save(model)
    assert cli.main(["show", str(model), "--svg", str(picture)]) == 0
    out = capsys.readouterr().out
    assert str(network.summary()) in out and f"wrote {picture}" in out
    assert texts(picture.read_text())[0] == "<net> & co.safetensors"
    assert len(boxes(picture.read_text())) == len(list(all_layers(network.layers)))
    message = usage_error(capsys, "show", str(model), "--svg", "no/such/place.svg")
    assert "no such directory" in message
    before = model.read_bytes()
    message = usage_error(capsys, "show", str(model), "--svg", str(model))
    assert message.endswith(f"--svg: must end in .svg, got {model}")
    assert model.read_bytes() == before
    picture.write_text("mine")
    failure(capsys, "show", str(tmp_path / "missing"), "--svg", str(picture))
    assert picture.read_text() == "mine"
