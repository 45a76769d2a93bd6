"""The command line, run as its user runs it, and the timing code behind it."""

import json
import subprocess
import sys

import numpy as np
import pytest
from numpy.testing import assert_array_equal

import bitops as bo
from bitops import benchmark, cli, demo, io
from bitops.layers import Packed, PackedBatchNorm, PackedDense

SMALL_NET = ["--width", "48", "--depth", "1", "--epochs", "2", "--quiet"]


def usage_error(capsys, *argv: str) -> str:
    """Return the last line that a refused command line prints; the code must be 2."""
    with pytest.raises(SystemExit) as stop:
        cli.main(argv)
    assert stop.value.code == 2
    out, err = capsys.readouterr()
    assert out == ""
    return err.splitlines()[-1]


def failure(capsys, *argv: str) -> str:
    """Return the single line on stderr of a command that fails; the code must be 1."""
    assert cli.main(argv) == 1
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    return lines[0]


@pytest.fixture
def quick(monkeypatch):
    """Let measurements stop after the least number of rounds, on small and odd shapes."""
    monkeypatch.setattr(benchmark, "GEMM_SHAPES", ((7, 5, 130), (1, 33, 64)))
    monkeypatch.setattr(benchmark, "BLOCK_SECONDS", 1e-5)
    interleave = benchmark.interleave
    monkeypatch.setattr(
        benchmark,
        "interleave",
        lambda calls, seconds, check=None: interleave(calls, seconds=0, check=check),
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

    monkeypatch.setattr(cli, "describe_machine", interrupted)
    assert cli.main(["info"]) == 130
    assert capsys.readouterr().err.strip() == "bitops: interrupted"


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
        (["demo", "--save", "no/such/place"], "--save: no such directory"),
        (["bench", "--json", "."], "--json: exists and is not a regular file: ."),
        (["bench", "--json", "/dev/null"], "--json: exists and is not a regular file: /dev/null"),
    ],
)
def test_wrong_usage(capsys, argv, message):
    assert message in usage_error(capsys, *argv)


def test_output_link_is_refused(capsys, tmp_path):
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "elsewhere")
    assert "not a regular file" in usage_error(capsys, "bench", "--json", str(link))


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


def test_bench_finds_wrong_results(quick, capsys, monkeypatch, tmp_path):
    gemm = benchmark.gemm

    def wrong(a, w, *, out):
        gemm(a, w, out=out)
        out[-1, -1] += 2
        return out

    monkeypatch.setattr(benchmark, "gemm", wrong)
    path = tmp_path / "result.json"
    message = failure(capsys, "bench", "--quick", "--json", str(path))
    assert message.endswith("packed gave a wrong product for (m, n, k) = (7, 5, 130)")
    assert not path.exists()


def test_demo(quick, capsys, tmp_path):
    pytest.importorskip("sklearn")
    path = tmp_path / "net.safetensors"
    assert cli.main(["demo", *SMALL_NET, "--save", str(path)]) == 0
    out = capsys.readouterr().out
    data = demo.load_digits()
    assert f"bit for bit, on all {len(data.y_test)} test images" in out
    packed = io.load(path)
    error = packed.evaluate(data.x_test, data.y_test)
    assert f"error    {error:.2%}" in out
    assert f"packed file {path.stat().st_size:,} bytes" in out
    assert [p.name for p in tmp_path.iterdir()] == ["net.safetensors"]


def test_demo_fails_when_packing_changes_an_output(quick, capsys, monkeypatch, tmp_path):
    pytest.importorskip("sklearn")
    freeze = demo.Sequential.freeze

    def wrong(model):
        packed = freeze(model)
        *hidden, last = packed.layers
        bias = last.bias.copy()
        # One unit in the last place of one score.
        bias[0] = np.nextafter(bias[0], np.float32(np.inf))
        return Packed([*hidden, PackedDense(last.weight, alpha=last.alpha, bias=bias)])

    monkeypatch.setattr(demo.Sequential, "freeze", wrong)
    path = tmp_path / "net.safetensors"
    message = failure(capsys, "demo", *SMALL_NET, "--save", str(path))
    assert "FAILED: packed and trained network differ on" in message
    assert not path.exists()


def write_idx(path, array):
    header = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes()
    path.write_bytes(header + array.astype(np.uint8).tobytes())


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


def test_demo_without_data(capsys, tmp_path):
    message = failure(capsys, "demo", "--data", str(tmp_path))
    assert message.startswith("bitops demo: error:")
    assert "train-images-idx3-ubyte" in message


def test_timing_of():
    timing = benchmark.Timing.of([4.0, 1.0, 2.0, 3.0, 5.0])
    assert (timing.best, timing.median, timing.spread, timing.rounds) == (1.0, 3.0, 2 / 3, 5)


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


def test_float_net_refuses_other_layers():
    with pytest.raises(TypeError, match="PackedBatchNorm"):
        benchmark.FloatNet(Packed([PackedBatchNorm([1.0], [0.0])]))
