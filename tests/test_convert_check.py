"""`convert.check`, and the commands `bitops import` and `bitops show`."""

import sys
import zipfile

import numpy as np
import pytest

from bitops import io
from bitops.cli import main as cli
from bitops.convert import Report, check, from_onnx
from bitops.layers import Packed, PackedDense
from commands import failure

onnx = pytest.importorskip("onnx", reason="needs onnx")
pytest.importorskip("h5py", reason="needs h5py")

import random_keras  # noqa: E402
from random_onnx import Network  # noqa: E402


@pytest.fixture
def net(rng):
    net = Network(rng, (2, 5, 5))
    net.then("Conv", net.signs(4, 2, 3, 3))
    net.then("BipolarQuant", np.float32(1), domain="onnx.brevitas")
    net.then("Flatten")
    net.then("MatMul", net.signs(36, 3))
    return net


@pytest.fixture
def path(net, tmp_path):
    path = tmp_path / "net.onnx"
    path.write_bytes(net.model().SerializeToString())
    return path


def examples(rng):
    x = rng.integers(0, 256, (7, 2, 5, 5)).astype(np.float32)
    return x, np.ascontiguousarray(x.transpose(0, 2, 3, 1))


def test_stored_scores(net, path, rng):
    x, own = examples(rng)
    report = check(from_onnx(path), net.run(x), own)
    assert report.ok and report.same_labels == report.examples == 7 and report.largest_error == 0
    assert str(report).startswith("equal: 7 of 7 labels are the same as by the stored scores")


def test_a_difference_is_found(net, path, rng):
    x, own = examples(rng)
    scores = net.run(x)
    scores[3, scores[3].argmax()] -= 100
    report = check(from_onnx(path), scores, own)
    assert not report.ok and report.same_labels < 7 and report.largest_error > 0.1
    assert str(report).startswith("DIFFERENT")
    assert not Report(3, 3, np.inf, "x").ok


def test_onnxruntime_runs_the_source(rng, tmp_path):
    pytest.importorskip("onnxruntime", reason="needs onnxruntime")
    net = Network(rng, (2, 5, 5))
    net.then("Conv", net.signs(4, 2, 3, 3))
    net.then("Flatten")
    net.then("MatMul", net.signs(36, 3))
    path = tmp_path / "net.onnx"
    path.write_bytes(net.model().SerializeToString())
    report = check(from_onnx(path), path, examples(rng)[1])
    assert report.ok and report.compared_with == "onnxruntime on net.onnx"


@pytest.mark.parametrize(
    ("scores", "count", "message"),
    [(np.zeros((7, 4)), 7, r"must have the shape \(7, 4\)"), (np.zeros((0, 3)), 0, "at least one")],
)
def test_what_cannot_be_compared(path, rng, scores, count, message):
    with pytest.raises(ValueError, match=message):
        check(from_onnx(path), scores, examples(rng)[1][:count])


def test_import_checks_and_writes(net, path, rng, tmp_path, capsys):
    x, own = examples(rng)
    np.savez(tmp_path / "x.npz", x=own, scores=net.run(x))
    model = tmp_path / "net.safetensors"
    argv = ["import", str(path), "-o", str(model), "--check", str(tmp_path / "x.npz")]
    assert cli.main([*argv, "--preprocessing", "zero_one"]) == 0
    assert io.load(model).notes["preprocessing"] == "zero_one"
    out = capsys.readouterr().out
    assert "PackedConv2D" in out and "equal: 7 of 7 labels" in out and "wrote" in out
    np.testing.assert_array_equal(io.load(model)(own), net.run(x))
    assert cli.main(["show", str(model)]) == 0
    out = capsys.readouterr().out
    assert "input 5x5x2" in out and "PackedDense" in out and "source: ONNX file net.onnx" in out


def test_import_writes_nothing_that_differs(net, path, rng, tmp_path, capsys):
    x, own = examples(rng)
    np.savez(tmp_path / "x.npz", x=own, scores=net.run(x) + 9)
    model = tmp_path / "net.safetensors"
    argv = ["import", str(path), "-o", str(model), "--check", str(tmp_path / "x.npz")]
    assert cli.main(argv) == 1
    streams = capsys.readouterr()
    assert "DIFFERENT" in streams.out and "is not written" in streams.err
    assert not model.exists()


def test_import_of_keras_files(rng, tmp_path, capsys):
    net = random_keras.Network(rng, rng.integers(0, 9, (3, 20)).astype(np.float32))
    net.dense(4)
    net.write_keras(tmp_path / "net.keras")
    assert cli.main(["import", str(tmp_path / "net.keras")]) == 0
    assert "source: Keras file net.keras" in capsys.readouterr().out


def test_import_says_what_is_wrong(path, tmp_path, capsys):
    text = tmp_path / "net.txt"
    text.write_text("no network")
    assert "must end in one of .onnx" in failure(capsys, "import", str(text))
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"no network")
    assert "must be an ONNX model" in failure(capsys, "import", str(broken))
    np.savez(tmp_path / "x.npz", y=np.zeros(3))
    argv = ["import", str(path), "--check", str(tmp_path / "x.npz")]
    assert "must hold an array x" in failure(capsys, *argv)


def test_import_names_the_arrays_that_it_found(path, rng, tmp_path, capsys, monkeypatch):
    np.savez(tmp_path / "x.npz", x=examples(rng)[1], logits=np.zeros((7, 3)))
    monkeypatch.setitem(sys.modules, "onnxruntime", None)  # as if it were not installed
    message = failure(capsys, "import", str(path), "--check", str(tmp_path / "x.npz"))
    assert "array scores not found" in message and "the file has: logits, x" in message
    assert "pip install onnxruntime" in message
    net = random_keras.Network(rng, rng.integers(0, 9, (3, 20)).astype(np.float32))
    net.dense(4)
    net.write_keras(tmp_path / "net.keras")
    argv = ["import", str(tmp_path / "net.keras"), "--check", str(tmp_path / "x.npz")]
    assert "stored scores: array scores not found" in failure(capsys, *argv)


def test_show_says_what_is_not_stated(tmp_path, capsys):
    io.save(Packed(PackedDense(np.ones((3, 5)))), tmp_path / "a.safetensors")
    assert cli.main(["show", str(tmp_path / "a.safetensors")]) == 0
    assert "input not stated" in capsys.readouterr().out


def npz(path, **entries):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in entries.items():
            archive.writestr(f"{name}.npy", content)


def header(text, length=0):
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text.encode() + bytes(length)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"no array", "npz file of numbers"),
        (header("{'descr': '|O', 'fortran_order': False, 'shape': (1,)}\n", 8), "claims"),
        (header("{'descr': '<f8', 'fortran_order': False, 'shape': (99999999,)}\n", 8), "claims"),
        (bytes(2**28), "far more than it takes"),
    ],
)
def test_arrays_of_strangers(path, tmp_path, capsys, content, message):
    npz(tmp_path / "x.npz", x=content)
    assert message in failure(capsys, "import", str(path), "--check", str(tmp_path / "x.npz"))


def test_files_that_are_no_npz(path, tmp_path, capsys):
    (tmp_path / "x.npz").write_bytes(b"PK text")
    argv = ["import", str(path), "--check", str(tmp_path / "x.npz")]
    assert "must be a .npz file" in failure(capsys, *argv)
    assert "No such file" in failure(capsys, *argv[:-1], str(tmp_path / "y.npz"))
