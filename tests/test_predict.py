"""`bitops predict`: pictures, arrays and folders through a packed model, and what it writes."""

import csv
import io
import json
import pathlib

import numpy as np
import pytest
from numpy.testing import assert_array_equal

import bitops as bo
from bitops.cli import main as cli
from bitops.files import writing
from bitops.layers import (
    FloatDense,
    Packed,
    PackedConv2D,
    PackedDense,
    PackedFlatten,
    PackedGlobalAvgPool2D,
)
from commands import failure, usage_error

Image = pytest.importorskip("PIL.Image")


@pytest.fixture
def gray(rng, tmp_path):
    """A model of 6 x 6 gray pictures with integer scores, and its file."""
    model = Packed(
        PackedConv2D(rng.choice([-1, 1], (8, 3, 3, 1)), threshold=0, padding=1),
        PackedFlatten(),
        PackedDense(rng.choice([-1, 1], (5, 288))),
        input_shape=(6, 6, 1),
    )
    path = tmp_path / "gray.safetensors"
    model.save(path)
    return model, str(path)


@pytest.fixture
def colored(rng, tmp_path):
    """A model of 8 x 6 colored pictures, and its file."""
    model = Packed(
        PackedConv2D(rng.choice([-1, 1], (8, 3, 3, 3)), alpha=np.ones(8, np.float32)),
        PackedGlobalAvgPool2D(),
        FloatDense(rng.standard_normal((4, 8)), np.zeros(4)),
        input_shape=(8, 6, 3),
    )
    path = tmp_path / "colored.safetensors"
    model.save(path)
    return model, str(path)


def pixels(rng, *shape):
    return rng.integers(0, 256, shape, dtype=np.uint8)


def predicted(capsys, *argv):
    """What the command prints as JSON."""
    capsys.readouterr()
    assert cli.main(["predict", *map(str, argv), "--format", "json"]) == 0
    return json.loads(capsys.readouterr().out)


def scores_of(objects):
    """All scores by class, of objects with all classes."""
    rows = [sorted((p["class"], p["score"]) for p in made["predictions"]) for made in objects]
    return np.array([[score for _, score in row] for row in rows], np.float32)


def test_pictures_and_folders(capsys, rng, gray, tmp_path):
    model, path = gray
    x, folder = pixels(rng, 5, 6, 6, 1), tmp_path / "pictures"
    (folder / "more").mkdir(parents=True)
    names = ["b.png", "a.PNG", "c.bmp", "more/d.png", "more/e.png"]
    for name, image in zip(names, x, strict=True):
        Image.fromarray(image[..., 0]).save(folder / name)
    (folder / "notes.txt").write_text("no picture")
    made = predicted(capsys, path, folder, folder / "b.png", "--top", 5)
    order = [1, 0, 2, 3, 4, 0]  # by name, then the one that was named
    assert [p["file"] for p in made] == [str(folder / names[i]) for i in order]
    assert all("index" not in p for p in made)
    assert_array_equal(scores_of(made), model.outputs(x[order]))


def test_arrays(capsys, rng, gray, tmp_path):
    model, path = gray
    x = pixels(rng, 7, 6, 6, 1)
    np.save(tmp_path / "whole.npy", x)
    np.save(tmp_path / "flat.npy", x[..., 0])
    np.save(tmp_path / "one.npy", x[3])
    np.savez(tmp_path / "named.npz", x=x, scores=np.zeros(7))
    np.savez(tmp_path / "only.npz", pictures=x)
    wanted = model.outputs(x)
    for name in ("whole.npy", "flat.npy", "named.npz", "only.npz"):
        made = predicted(capsys, path, tmp_path / name, "--top", 99, "--batch", 3)
        assert [p["index"] for p in made] == list(range(7))
        assert_array_equal(scores_of(made), wanted)
    made = predicted(capsys, path, tmp_path / "one.npy", "--top", 5)
    assert_array_equal(scores_of(made), wanted[3:4])


def test_bits_and_rows(capsys, rng, tmp_path):
    weights, path = rng.choice([-1, 1], (3, 36)), tmp_path / "net.safetensors"
    model = Packed(PackedDense(weights), input_shape=(36,))
    model.save(path)
    bits, image = rng.random((4, 36)) < 0.5, pixels(rng, 6, 6)
    np.save(tmp_path / "bits.npy", bits)
    made = predicted(capsys, path, tmp_path / "bits.npy", "--top", 3)
    assert_array_equal(scores_of(made), model.outputs(bo.pack(bits)))
    Image.fromarray(image).save(tmp_path / "rows.png")
    made = predicted(capsys, path, tmp_path / "rows.png", "--top", 3)
    assert_array_equal(scores_of(made), model.outputs(image.reshape(1, 36)))
    Image.fromarray(pixels(rng, 9, 12)).save(tmp_path / "large.png")
    assert "must have 36 numbers" in failure(capsys, "predict", str(path), str(tmp_path))
    assert len(predicted(capsys, path, tmp_path / "large.png", "--resize", "crop")) == 1


def test_text_and_labels(capsys, rng, gray, tmp_path):
    model, path = gray
    x = pixels(rng, 2, 6, 6, 1)
    np.save(tmp_path / "x.npy", x)
    (tmp_path / "labels").write_text("ant\nbee\ncat, big\ndog\n\x1b[31meel\n\n")
    argv = ["predict", path, str(tmp_path / "x.npy"), "--labels", str(tmp_path / "labels")]
    assert cli.main([*argv, "--top", "2"]) == 0
    out = capsys.readouterr().out
    names = ["ant", "bee", "cat, big", "dog", "\\x1b[31meel"]
    lines = []
    for i, scores in enumerate(model.outputs(x)):
        a, b = np.argsort(-scores, kind="stable")[:2]
        pair = f"{names[a]} ({scores[a]}), {names[b]} ({scores[b]})"
        lines.append(f"{tmp_path}/x.npy[{i}]: {pair}")
    assert out.splitlines()[-2:] == lines
    (tmp_path / "labels").write_text("ant\nbee")
    assert "must name the 5 classes of the model, got 2 lines" in failure(capsys, *argv)


def test_output_does_not_replace_an_input(capsys, gray, tmp_path):
    path, x = gray[1], tmp_path / "x.npy"
    np.save(x, np.zeros((1, 6, 6, 1), np.uint8))
    capsys.readouterr()
    for file in (pathlib.Path(path), x):
        before = file.read_bytes()
        message = usage_error(capsys, "predict", path, str(x), "-o", str(file))
        assert f"--output: must end in .txt, .csv or .json, got {file}" in message
        assert file.read_bytes() == before
    labels = tmp_path / "labels.txt"
    labels.write_text("a\nb\nc\nd\ne\n")
    argv = ("predict", path, str(x), "--labels", str(labels), "-o", str(labels))
    assert usage_error(capsys, *argv).endswith(f"--output: must not be an input, got {labels}")
    assert labels.read_text() == "a\nb\nc\nd\ne\n"


def test_csv_file(rng, colored, tmp_path):
    model, path = colored
    x, output = pixels(rng, 3, 8, 6, 3), tmp_path / "out.csv"
    for i, image in enumerate(x):
        Image.fromarray(image).save(tmp_path / f'{i},".png')
    files = [str(tmp_path / f'{i},".png') for i in range(3)]
    assert cli.main(["predict", path, *files, "--top", "2", "-o", str(output)]) == 0
    rows = list(csv.DictReader(io.StringIO(output.read_text())))
    assert [row["file"] for row in rows] == [name for name in files for _ in range(2)]
    assert [row["rank"] for row in rows] == ["1", "2"] * 3
    scores = model.outputs(x)
    for row, (i, rank) in zip(rows, np.ndindex(3, 2), strict=True):
        best = int(np.argsort(-scores[i], kind="stable")[rank])
        assert int(row["class"]) == int(row["label"]) == best
        assert np.float32(row["score"]) == scores[i, best]


def test_equal_scores_come_in_the_order_of_the_classes(capsys, tmp_path):
    path = tmp_path / "net.safetensors"
    Packed(PackedDense(np.ones((4, 8))), input_shape=(8,)).save(path)
    np.save(tmp_path / "x.npy", np.ones((1, 8), np.uint8))
    (made,) = predicted(capsys, path, tmp_path / "x.npy", "--top", 3)
    assert [p["class"] for p in made["predictions"]] == [0, 1, 2]


def test_sizes_and_channels(capsys, rng, colored, tmp_path):
    model, path = colored
    Image.fromarray(pixels(rng, 16, 24)).save(tmp_path / "large.png")
    argv = ["predict", path, str(tmp_path / "large.png")]
    message = failure(capsys, *argv)
    assert "must be 6 x 8 pixels, as the model takes them, got 24 x 16; --resize" in message
    for how in ("stretch", "crop"):
        made = predicted(capsys, *argv[1:], "--resize", how, "--top", 4)
        with Image.open(tmp_path / "large.png") as image:
            box = (0, 0, 24, 16) if how == "stretch" else (6, 0, 18, 16)
            wanted = image.convert("RGB").resize((6, 8), box=box)
        assert_array_equal(scores_of(made), model.outputs(np.asarray(wanted)[None]))
    np.save(tmp_path / "nchw.npy", pixels(rng, 2, 3, 8, 6))
    message = failure(capsys, "predict", path, str(tmp_path / "nchw.npy"))
    assert "channels come last" in message
    assert "(n, 8, 6, 3), got shape (2, 3, 8, 6)" in message


def test_preprocessing(capsys, rng, colored, tmp_path):
    model, path = colored
    x = pixels(rng, 2, 8, 6, 3)
    np.save(tmp_path / "x.npy", x)
    argv = [path, tmp_path / "x.npy", "--top", 4]
    mean, std = np.float32([0.5, 0.25, 0]), np.float32(0.2)
    made = predicted(capsys, *argv, "--mean", "0.5,0.25,0", "--std", "0.2")
    wanted = model.outputs((x.astype(np.float32) / np.float32(255) - mean) / std)
    assert_array_equal(scores_of(made), wanted)
    unscaled = predicted(capsys, *argv, "--mean", "0")
    assert predicted(capsys, *argv, "--preprocessing", "zero_one") == unscaled
    for name, step in (("unit", lambda x: x * np.float32(2 / 255) - 1), ("pixels", lambda x: x)):
        model.notes["preprocessing"] = name
        model.save(path)
        assert_array_equal(scores_of(predicted(capsys, *argv)), model.outputs(step(x)))
    model.notes["preprocessing"] = "whitened"
    model.save(path)
    message = failure(capsys, "predict", *map(str, argv))
    assert "makes out of a whole data set" in message
    real = rng.standard_normal((2, 8, 6, 3)).astype(np.float32)
    np.save(tmp_path / "x.npy", real)  # numbers go in as they are
    assert_array_equal(scores_of(predicted(capsys, *argv)), model.outputs(real))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--std", "0"], "--std must not be 0"),
        (["--mean", "0,1"], "--mean must be one number, or one for each of the 3 channels, got 2"),
    ],
)
def test_impossible_options(capsys, colored, tmp_path, options, message):
    assert message in failure(capsys, "predict", colored[1], str(tmp_path), *options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--mean", "a"], "--mean: must be numbers with commas, got 'a'"),
        (["--preprocessing", "unit", "--mean", "0"], "not allowed with --mean and --std"),
        (["--std", "inf"], "--std: must be finite, got 'inf'"),
        (["--top", "0"], "--top: must be above 0, got 0"),
        (["-o", "no/such/place.csv"], "no such directory"),
        (["-o", "out.npy"], "--output: must end in .txt, .csv or .json, got out.npy"),
        (["--format", "xml"], "invalid choice: 'xml'"),
        (["--format", "csv", "-o", "out.json"], "must fit the ending of out.json, got csv"),
    ],
)
def test_wrong_usage(capsys, options, message):
    assert message in usage_error(capsys, "predict", "net", "x.npy", *options)


def write_bad(kind, path, rng):
    """Write a file that is no picture and no array."""
    buffer = io.BytesIO()
    if kind == "cut":
        Image.fromarray(pixels(rng, 6, 6)).save(buffer, "PNG")
        path.write_bytes(buffer.getvalue()[:-40])
    elif kind == "huge":
        data = bytearray(b"\x89PNG\r\n\x1a\n\0\0\0\x0dIHDR" + bytes([0, 1, 0, 0, 0, 1, 0, 0]))
        path.write_bytes(bytes(data) + b"\x08\0\0\0\0" + bytes(60))
    elif kind == "16 bits":
        Image.fromarray(np.zeros((6, 6), np.uint16)).save(path)
    elif kind == "objects":
        np.save(path, np.array([{}], object), allow_pickle=True)
    elif kind == "claims":
        np.lib.format.write_array_header_1_0(
            buffer, {"descr": "<f8", "fortran_order": False, "shape": (10**12, 36)}
        )
        path.write_bytes(buffer.getvalue())
    else:
        path.write_bytes(b"no picture")


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("cut", "a.png"),
        ("huge", "a.png"),
        ("16 bits", "a.png"),
        ("text", "a.png"),
        ("text", "a.jpg"),
        ("text", "a.npy"),
        ("text", "a.npz"),
        ("objects", "a.npy"),
        ("claims", "a.npy"),
    ],
)
def test_bad_files_leave_nothing(capsys, rng, gray, tmp_path, kind, name):
    bad, good, output = tmp_path / name, tmp_path / "x.npy", tmp_path / "out.csv"
    write_bad(kind, bad, rng)
    np.save(good, pixels(rng, 2, 6, 6))
    output.write_text("mine")
    message = failure(capsys, "predict", gray[1], str(good), str(bad), "-o", str(output))
    assert f"{name} must be a" in message
    assert output.read_text() == "mine"
    assert not list(tmp_path.glob(".*.tmp"))


def test_what_is_no_example(capsys, tmp_path, gray):
    path, missing = gray[1], tmp_path / "missing.png"
    assert "No such file" in failure(capsys, "predict", path, str(missing))
    (tmp_path / "empty").mkdir()
    message = failure(capsys, "predict", path, str(tmp_path / "empty"))
    assert "a folder must hold pictures or arrays" in message
    (tmp_path / "a.txt").write_text("x")
    assert "must end in one of .png" in failure(capsys, "predict", path, str(tmp_path / "a.txt"))
    np.savez(tmp_path / "two.npz", a=np.zeros(3), b=np.zeros(3))
    message = failure(capsys, "predict", path, str(tmp_path / "two.npz"))
    assert "must hold an array x, or only one, got a, b" in message


def test_models_that_give_no_scores(capsys, tmp_path):
    path, x = tmp_path / "net.safetensors", tmp_path / "x.npy"
    np.save(x, np.ones((2, 8), np.float32))
    Packed(PackedDense(np.ones((4, 8)), np.zeros(4, int)), input_shape=(8,)).save(path)
    assert "must end in scores" in failure(capsys, "predict", str(path), str(x))
    Packed(PackedDense(np.ones((4, 8)))).save(path)
    Image.new("L", (4, 2)).save(tmp_path / "a.png")
    message = failure(capsys, "predict", str(path), str(tmp_path / "a.png"))
    assert "states no shape of its input" in message
    np.save(x, np.full((2, 8), np.nan, np.float32))
    message = failure(capsys, "predict", str(path), str(x))
    assert "x.npy must fit the model: " in message and "finite" in message


@pytest.mark.parametrize(("name", "kind"), [("a.jpg", "JPEG"), ("a.PNG", "PNG"), ("a.bmp", "BMP")])
def test_pictures_of_another_kind(capsys, gray, tmp_path, name, kind):
    Image.new("L", (6, 6)).save(tmp_path / name, "PNG" if kind == "JPEG" else "JPEG")
    message = failure(capsys, "predict", gray[1], str(tmp_path / name))
    assert message.endswith(f"{tmp_path / name} must be a picture: its content is no {kind}")


def test_failing_write_leaves_the_old_file(capsys, gray, rng, tmp_path, monkeypatch):
    x, output = tmp_path / "x.npy", tmp_path / "out.json"
    np.save(x, pixels(rng, 2, 6, 6))
    output.write_text("mine")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(writing, "_write_all", full)
    assert "No space left" in failure(capsys, "predict", gray[1], str(x), "-o", str(output))
    assert output.read_text() == "mine" and not list(tmp_path.glob(".*.tmp"))
