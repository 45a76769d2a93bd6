"""The command line, run as its user runs it, and the timing code behind it."""

import errno
import io
import json
import os
import subprocess
import sys
import tarfile
import warnings

import numpy as np
import pytest
from numpy.testing import assert_array_equal

import bitops as bo
import bitops_command
from bitops import _core, benchmark, reference
from bitops import io as model_file
from bitops.benchmark import bounds, gemm_table, inference, timing
from bitops.cli import bench_picture, info
from bitops.cli import main as cli
from bitops.data.datasets import load_cifar10, load_digits
from bitops.layers import (
    Packed,
    PackedBatchNorm,
    PackedConv2D,
    PackedDense,
    PackedFlatten,
    PackedMaxPool2D,
    Sequential,
)
from bitops.ops.geometry import make_window
from bitops.ops.warn import warn_caller
from commands import failure, usage_error, write_idx

SMALL_NET = ["--width", "48", "--depth", "1", "--epochs", "2", "--quiet"]


@pytest.fixture
def quick(monkeypatch):
    """Let measurements stop after the least number of rounds, on small and odd shapes."""
    monkeypatch.setattr(gemm_table, "GEMM_SHAPES", ((7, 5, 130), (1, 33, 64)))
    monkeypatch.setattr(timing, "BLOCK_SECONDS", 1e-5)
    monkeypatch.setattr(bench_picture, "SIZES", (5, 64))
    for module in (bounds, gemm_table, inference):
        monkeypatch.setattr(
            module,
            "interleave",
            lambda calls, seconds, check=None: timing.interleave(calls, seconds=0, check=check),
        )


def test_version(capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main(["--version"])
    assert stop.value.code == 0
    assert capsys.readouterr().out == f"bitops {bo.__version__}\n"


def test_info(capsys):
    assert cli.main(["info"]) == 0
    lines = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines())
    assert lines["bitops"] == bo.__version__
    assert lines["isa"] == f"{bo.isa.active()} (found: {', '.join(bo.isa.available())})"
    assert lines["threads"].split()[0] == str(bo.get_num_threads())
    assert lines["numpy"] == np.__version__
    assert {"cpu", "compiler", "openmp", "blas", "python"} <= set(lines)


def test_info_and_bench_load_no_training_code():
    """Nor does any other command before it runs."""
    code = (
        "import sys; from bitops.cli import bench, main; main.main(['info']);"
        "rooms = 'bitops.training', 'bitops.recipes', 'bitops.data', 'bitops.models';"
        "print([name for name in sys.modules if name.startswith((*rooms, 'matplotlib'))])"
    )
    argv = [sys.executable, "-c", code]
    result = subprocess.run(argv, capture_output=True, text=True, check=True)
    assert result.stdout.splitlines()[-1] == "[]"


def test_module_is_the_command():
    argv = [sys.executable, "-m", "bitops", "--version"]
    result = subprocess.run(argv, capture_output=True, text=True, check=True)
    assert result.stdout == f"bitops {bo.__version__}\n"


def test_closed_pipe_is_no_error():
    argv = [sys.executable, "-m", "bitops", "info"]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 0


def test_interrupt(monkeypatch, capsys):
    def interrupted():
        raise KeyboardInterrupt

    monkeypatch.setattr(info, "describe_machine", interrupted)
    assert cli.main(["info"]) == 130
    assert capsys.readouterr().err.strip() == "bitops: interrupted"


def test_warnings_of_the_package_are_lines(monkeypatch, capsys):
    def show(message, category, filename, line_number, file=None, line=None):
        sys.stderr.write(warnings.formatwarning(message, category, filename, line_number, line))

    def warn():
        warn_caller("[fit] words\nof two lines")
        warnings.warn("of another package", RuntimeWarning, stacklevel=1)
        warnings.warn("of a third one", UserWarning, stacklevel=1)
        return {}

    usual = warnings.formatwarning
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        monkeypatch.setattr(warnings, "showwarning", show)
        monkeypatch.setattr(info, "describe_machine", warn)
        cli.main(["info"])
    ours, *others = capsys.readouterr().err.splitlines()
    assert ours == r"bitops info: warning: [fit] words\nof two lines"
    for words in ("RuntimeWarning: of another package", "UserWarning: of a third one"):
        assert any(words in line and line.startswith(__file__) for line in others)
    assert warnings.formatwarning is usual


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ([], "required: command"),
        (["frobnicate"], "invalid choice: 'frobnicate'"),
        (["demo", "--epochs", "0"], "--epochs: must be above 0, got 0"),
        (["demo", "--width", "-3"], "--width: must be above 0, got -3"),
        (["demo", "--depth", "two"], "--depth: invalid int value: 'two'"),
        (["demo", "--batch", "1.5"], "--batch: invalid int value: '1.5'"),
        (["demo", "--lr", "nan"], "--lr: must be above 0, got nan"),
        (["demo", "--lr", "inf"], "--lr: must be above 0, got inf"),
        (["demo", "--seed", "-1"], "--seed: must not be negative, got -1"),
        (["demo", "--conv"], "--conv needs --data DIR, a folder with CIFAR-10"),
        (["demo", "--conv", "--data", ".", "--depth", "2"], "--depth is for the MLP"),
        (["demo", "--save", "no/such/place"], "--save: no such directory"),
        (["bench", "--json", "."], "--json: [Errno 21] Is a directory: "),
        (
            ["bench", "--json", "/dev/null"],
            "must be that of a regular file, got a device: /dev/null",
        ),
    ],
)
def test_wrong_usage(capsys, argv, message):
    assert message in usage_error(capsys, *argv)


def test_output_may_be_a_link(quick, capsys, tmp_path):
    """It stays one, and its target is written."""
    link = tmp_path / "link"
    try:
        link.symlink_to(tmp_path / "elsewhere")
    except OSError:
        pytest.skip("links are not allowed here")
    assert cli.main(["bench", "--quick", "--json", str(link)]) == 0
    assert link.is_symlink() and json.loads((tmp_path / "elsewhere").read_text())["stamp"]


COMMAND = "import sys, bitops_command; sys.exit(bitops_command.main())"


@pytest.mark.parametrize("name", ["nope", " avx2", "\x1b[31m"])
def test_an_unknown_isa_is_said_in_one_line(name):
    environment = {**os.environ, "BITOPS_ISA": name}
    for how, start in ((("-c", COMMAND), "bitops: error: "), (("-m", "bitops"), sys.executable)):
        argv = [sys.executable, *how, "info"]
        result = subprocess.run(argv, env=environment, capture_output=True, text=True)
        assert result.returncode == 1 and result.stdout == ""
        (line,) = result.stderr.splitlines()
        assert line.startswith(start)
        assert f"[BITOPS_ISA] unknown ISA, got {name!r}; known here: " in line
    result = subprocess.run(
        [sys.executable, "-c", "import bitops"], env=environment, capture_output=True
    )
    assert b"Traceback" in result.stderr, "a program is told where it imports"


def test_the_installed_command_is_the_command():
    argv = [sys.executable, "-c", COMMAND, "--version"]
    result = subprocess.run(argv, capture_output=True, text=True, check=True)
    assert result.stdout == f"bitops {bo.__version__}\n"


def test_an_interrupt_while_modules_load_is_said_in_one_line(monkeypatch, capsys):
    class Interrupted:
        def find_spec(self, name, path=None, target=None):
            if name == "bitops.cli.main":
                raise KeyboardInterrupt

    monkeypatch.delitem(sys.modules, "bitops.cli.main", raising=False)
    monkeypatch.setattr(sys, "meta_path", [Interrupted(), *sys.meta_path])
    assert bitops_command.main() == 130
    assert capsys.readouterr() == ("", "\nbitops: interrupted\n")


@pytest.mark.parametrize("fails", ["once", "always"])
def test_a_model_that_cannot_be_saved_is_saved_elsewhere(
    quick, capsys, monkeypatch, tmp_path, fails
):
    """The disk may be full, which is found out only after the training."""
    pytest.importorskip("sklearn")
    path, place = tmp_path / "net.safetensors", tmp_path / "temporary"
    place.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(place))
    write = os.write

    def refuse(descriptor, data):
        if fails == "always" or any(tmp_path.glob(".net.*.tmp")):
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(descriptor, data)

    monkeypatch.setattr(os, "write", refuse)
    message = failure(capsys, "demo", *SMALL_NET, "--save", str(path))
    assert [p.name for p in tmp_path.iterdir()] == ["temporary"]
    if fails == "always":
        assert "No space left on device: '" in message
        assert "; nor could the model be saved elsewhere: [Errno 28] No space" in message
        assert not list(place.iterdir())
    else:
        assert f"No space left on device: '{path}'; " in message
        saved = message.rpartition(" has been saved to ")[2]
        assert [str(p) for p in place.iterdir()] == [saved]
        assert model_file.load(saved).in_features == 64


def test_bench(quick, capsys, tmp_path):
    path = tmp_path / "result.json"
    path.write_text("old")
    assert cli.main(["bench", "--quick", "--json", str(path)]) == 0
    out = capsys.readouterr().out
    threads = benchmark.thread_counts()
    assert f"All {6 * len(threads)} timed results equal the float32 product." in out

    result = json.loads(path.read_text())
    assert [p.name for p in tmp_path.iterdir()] == ["result.json"]
    assert result["stamp"]["version"] == bo.__version__
    assert result["stamp"]["isa"] == bo.isa.active()
    rows = [(row["m"], row["n"], row["k"], row["threads"]) for row in result["gemm"]]
    assert rows == [(*shape, count) for shape in ((7, 5, 130), (1, 33, 64)) for count in threads]
    for row in result["gemm"]:
        work = row["m"] * row["n"] * row["k"]
        for name in ("packed", "with_packing"):
            assert row[name]["rounds"] == benchmark.MIN_ROUNDS
            assert row["gmacs"][name] == pytest.approx(work / row[name]["best"] / 1e9)
            assert row["ratio"][name] == pytest.approx(row["blas"]["best"] / row[name]["best"])


def test_bench_draws_rates_and_bounds(quick, capsys, monkeypatch, tmp_path):
    """The lines of the picture are the figures of the table and of the file."""
    figures = pytest.importorskip("matplotlib.figure")
    drawn, save = [], figures.Figure.savefig
    monkeypatch.setattr(
        figures.Figure, "savefig", lambda self, *a, **o: [drawn.append(self), save(self, *a, **o)]
    )
    picture, path = tmp_path / "rates.png", tmp_path / "rates.json"
    assert cli.main(["bench", "--quick", "--plot", str(picture), "--json", str(path)]) == 0
    assert f"Drawn in {picture}" in capsys.readouterr().out
    assert picture.read_bytes().startswith(b"\x89PNG")
    data = json.loads(path.read_text())
    shapes = [(5, 5, 5), (64, 64, 64), (1, 5, 5), (1, 64, 64)]
    assert [(row["m"], row["n"], row["k"]) for row in data["sizes"]] == shapes
    ports, reading = data["bounds"]["ports"], data["bounds"]["reading"]
    assert list(reading) == ["5", "64"] and all(speed > 0 for speed in reading.values())
    (figure,) = drawn
    for axes, rows in zip(figure.axes, (data["sizes"][:2], data["sizes"][2:]), strict=True):
        lines = {line.get_label(): line for line in axes.lines}
        for name, label in (("packed", "bitops, packed"), ("blas", "float32 BLAS")):
            assert list(lines[label].get_xdata()) == [5, 64]
            rates = [row["gmacs"][name] for row in rows]
            assert list(lines[label].get_ydata()) == pytest.approx(rates)
        assert ("bound of the ports" in lines) == (ports is not None)
    assert (ports is not None) == (_core.port_bound(1) is not None)
    assert list(lines["bound of reading the weights"].get_ydata()) == list(reading.values())


def test_bench_needs_matplotlib_for_a_picture(quick, capsys, monkeypatch, tmp_path):
    """It is said before anything is measured."""
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    monkeypatch.setattr(gemm_table, "measure_gemm", None)
    message = failure(capsys, "bench", "--plot", str(tmp_path / "rates.png"))
    assert "[bench] matplotlib must be installed (pip install matplotlib)" in message


def test_bench_finds_wrong_results(quick, capsys, monkeypatch, tmp_path):
    gemm = gemm_table.gemm

    def wrong(a, w, *, out):
        gemm(a, w, out=out)
        out[-1, -1] += 2
        return out

    monkeypatch.setattr(gemm_table, "gemm", wrong)
    path = tmp_path / "result.json"
    message = failure(capsys, "bench", "--quick", "--json", str(path))
    assert message.endswith("packed gave a wrong product for (m, n, k) = (7, 5, 130)")
    assert not path.exists()


def test_demo(quick, capsys, tmp_path):
    pytest.importorskip("sklearn")
    path = tmp_path / "net.safetensors"
    assert cli.main(["demo", *SMALL_NET, "--save", str(path)]) == 0
    assert model_file.load(path).notes == {"preprocessing": "pixels"}
    out = capsys.readouterr().out
    data = load_digits()
    assert f"bit for bit, on all {len(data.y_test)} test images" in out
    packed = model_file.load(path)
    error = packed.error_rate(data.x_test, data.y_test)
    assert f"error    {error:.2%}" in out
    assert f"packed file {path.stat().st_size:,} bytes" in out
    assert [p.name for p in tmp_path.iterdir()] == ["net.safetensors"]


def test_demo_fails_when_packing_changes_an_output(quick, capsys, monkeypatch, tmp_path):
    pytest.importorskip("sklearn")
    freeze = Sequential.freeze

    def wrong(model):
        packed = freeze(model)
        *hidden, last = packed.layers
        bias = last.bias.copy()
        # One unit in the last place of one score.
        bias[0] = np.nextafter(bias[0], np.float32(np.inf))
        return Packed([*hidden, PackedDense(last.weight, alpha=last.alpha, bias=bias)])

    monkeypatch.setattr(Sequential, "freeze", wrong)
    path = tmp_path / "net.safetensors"
    message = failure(capsys, "demo", *SMALL_NET, "--save", str(path))
    assert "FAILED: packed and trained network differ on" in message
    assert not path.exists()


def test_demo_on_idx_files(quick, capsys, rng, tmp_path):
    for part, count in (("train", 240), ("t10k", 120)):
        labels = rng.integers(0, 3, count)
        images = rng.integers(0, 100, (count, 5, 7)) + 50 * labels[:, None, None]
        write_idx(tmp_path / f"{part}-images-idx3-ubyte", images)
        write_idx(tmp_path / f"{part}-labels-idx1-ubyte", labels)
    assert cli.main(["demo", "--data", str(tmp_path), *SMALL_NET]) == 0
    out = capsys.readouterr().out
    assert "net      35-48-3," in out
    assert "bit for bit, on all 120 test images" in out


def write_cifar(folder, rng, kind):
    """Ten images of each of ten classes to train on and four to test, told apart by brightness."""
    parts = {"train": np.arange(100) % 10, "test": np.arange(40) % 10}
    for part, labels in parts.items():
        pixels = rng.integers(0, 20, (len(labels), 32, 32, 3)) + 25 * labels[:, None, None, None]
        pixels = pixels.astype(np.uint8)
        if kind == "jpeg":
            write_tar(folder / f"{part}.tar", pixels, labels)
            continue
        planes = pixels.transpose(0, 3, 1, 2).reshape(len(labels), -1)
        records = np.concatenate([labels[:, None].astype(np.uint8), planes], axis=1)
        names = [f"data_batch_{i}.bin" for i in range(1, 6)] if part == "train" else []
        for name, batch in zip(
            names or ["test_batch.bin"], np.split(records, len(names) or 1), strict=True
        ):
            (folder / name).write_bytes(batch.tobytes())


def write_tar(path, pixels, labels):
    image = pytest.importorskip("PIL.Image")
    with tarfile.open(path, "w") as tar:
        for i, (picture, label) in enumerate(zip(pixels, labels, strict=True)):
            stream = io.BytesIO()
            image.fromarray(picture).save(stream, "JPEG")
            member = tarfile.TarInfo(f"class{label}/{i}.jpg")
            member.size = len(stream.getvalue())
            tar.addfile(member, io.BytesIO(stream.getvalue()))


@pytest.mark.parametrize("kind", ["bin", "jpeg"])
def test_demo_of_convolutions(quick, capsys, rng, tmp_path, kind):
    write_cifar(tmp_path, rng, kind)
    path = tmp_path / "net.safetensors"
    options = ["--width", "4", "--epochs", "2", "--batch", "10", "--save", str(path)]
    assert cli.main(["demo", "--conv", "--data", str(tmp_path), *options]) == 0
    out = capsys.readouterr().out
    assert "90 training, 10 validation and 40 test images of 32 x 32 x 3" in out
    assert "net      4C3-4C3-P2-8C3-8C3-P2-16C3-16C3-P2-32-32-10," in out
    assert "bit for bit, on all 40 test images" in out
    name = {"bin": "CIFAR-10", "jpeg": "CIFAR-10 (JPEG copies)"}[kind]
    data = load_cifar10(tmp_path)
    error = model_file.load(path).error_rate(data.x_test, data.y_test)
    assert f"error    {error:.2%} of the test images" in out
    lines = out.splitlines()
    for start in ("trained ", "error "):
        (line,) = (line for line in lines if line.startswith(start))
        assert line.endswith(f" on {name}")
    # the lines of the epochs stand below one that names the data, and that of the net
    (start,) = (i for i, line in enumerate(lines) if line.endswith(f"; errors on {name}"))
    assert lines[start + 1].startswith("net ")
    assert [line.startswith("epoch ") for line in lines[start + 2 : start + 5]] == [
        True,
        True,
        False,
    ]


def test_demo_without_data(capsys, tmp_path):
    message = failure(capsys, "demo", "--data", str(tmp_path))
    assert message.startswith("bitops demo: error:")
    assert "train-images-idx3-ubyte" in message


def test_timing_of():
    times = benchmark.Timing.of([4.0, 1.0, 2.0, 3.0, 5.0])
    assert (times.best, times.median, times.spread, times.rounds) == (1.0, 3.0, 2 / 3, 5)


def test_threads_are_restored(threads):
    before = bo.get_num_threads()  # one, whatever `threads` is, in a build without OpenMP
    with pytest.raises(KeyError), benchmark.threads(1):
        assert bo.get_num_threads() == 1
        raise KeyError
    assert bo.get_num_threads() == before


@pytest.mark.parametrize("integer", [True, False])
def test_float_net_equals_packed(rng, integer):
    """Thresholds at, between and beyond the products, flipped or not."""
    thresholds = np.array([-(2**31), -65, -64, -1, 0, 1, 64, 65, 2**31 - 1])
    flip = rng.random(len(thresholds)) < 0.5
    w = rng.choice([-1, 1], (len(thresholds), 64))
    first = thresholds if integer else thresholds * np.float32(0.999)
    last = rng.standard_normal((3, len(thresholds)))
    layers = [
        PackedDense(w, first, flip),
        PackedDense(last, alpha=[0.5, -2, 3], bias=[0.1, 0.2, 0.3]),
    ]
    model = Packed(layers)
    # Few pixels are set, so that many products lie on a threshold.
    x = (rng.random((200, 64)) < 0.05).astype(np.uint8)
    assert_array_equal(benchmark.FloatNet(model)(x.astype(np.float32)), model(x))


def test_float_net_of_convolutions(rng):
    """Pools of bits and of signs agree, also where they take the smallest of a window."""
    threshold = np.array([-20, -3, 0, 2, 9, 30])
    flip = rng.random(6) < 0.5
    model = Packed(
        [
            PackedConv2D(rng.choice([-1, 1], (6, 3, 3, 2)), threshold * 40.5, flip, padding=1),
            PackedMaxPool2D(2, minimum=rng.random(6) < 0.5),
            PackedConv2D(rng.choice([-1, 1], (6, 2, 3, 6)), threshold, flip, stride=(2, 1)),
            PackedFlatten(),
            PackedDense(rng.choice([-1, 1], (4, 48)), alpha=[1, 2, -1, 0.5], bias=[0.1] * 4),
        ]
    )
    x = rng.integers(0, 256, (30, 8, 12, 2), np.uint8)
    expected = model(x)
    assert len(np.unique(expected)) > 10
    assert_array_equal(benchmark.FloatNet(model)(x.astype(np.float32)), expected)


@pytest.mark.parametrize(
    "layer",
    [
        PackedBatchNorm([1.0], [0.0]),
        PackedConv2D(np.ones((2, 3, 3, 1)), scale_input=True),
        PackedConv2D(np.ones((2, 3, 3, 1)), padding=1, pad_value=1),
        PackedConv2D(np.ones((2, 3, 3, 1)), groups=2),
    ],
)
def test_float_net_refuses_other_layers(layer):
    with pytest.raises(TypeError, match=r"^\[FloatNet\] no float32 twin"):
        benchmark.FloatNet(Packed([layer]))


def test_float_conv2d_is_the_convolution(rng):
    x = rng.integers(-3, 4, (2, 7, 6, 3)).astype(np.float32)
    w = rng.choice([-1.0, 1.0], (4, 3, 2, 3)).astype(np.float32)
    window = make_window("test", (7, 6), (3, 2), stride=2, padding=1)
    out = np.full((2, *window.output, 4), np.nan, np.float32)
    result = benchmark.float_conv2d(x, w.reshape(4, -1).T, window, out=out)
    assert result is out
    assert_array_equal(out, reference.weight_conv2d(x, w, stride=2, padding=1))
