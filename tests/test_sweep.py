"""The grid of bench/sweep.py: small points run, wrong results are found, figures are shown."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_array_equal

import bitops as bo
from bitops import reference
from bitops.benchmark import WrongResult

BENCH = Path(__file__).parents[1] / "bench"


class Rival:
    """Stands for faiss and numkong, which tests do not need: the same calls, by NumPy."""

    def __init__(self, off: int = 0):
        self.off = off  # what each distance is wrong by

    def hammings_pack(self, w):
        return w

    def hammings_packed(self, a, w, out=None):
        counts = np.bitwise_count(a[:, None] ^ w).sum(axis=2, dtype=np.uint32) + self.off
        if out is None:
            return counts.astype(np.uint32)
        out[...] = counts
        return out

    def swig_ptr(self, array):
        return array

    def omp_set_num_threads(self, count):
        assert count == 1

    def hammings(self, a, w, m, n, n_bytes, out):
        assert (a.shape, w.shape) == ((m, n_bytes), (n, n_bytes))
        out[...] = self.hammings_packed(a, w)

    def IndexBinaryFlat(self, k):
        return Index(k, self)


class Index:
    def __init__(self, k, rival):
        self.n_bytes, self.rival = k // 8, rival

    def add(self, rows):
        assert rows.shape[1] == self.n_bytes
        self.rows = rows

    def search(self, queries, count):
        distances = self.rival.hammings_packed(queries, self.rows).astype(np.int32)
        indices = np.argsort(distances, axis=1, kind="stable")[:, :count]
        return np.take_along_axis(distances, indices, axis=1), indices


PEERS = {"faiss": Rival(), "numkong": Rival()}
RIVALS = {
    "gemm": {"numpy", "faiss", "numkong"},
    "hamming": {"numpy", "faiss", "numkong"},
    "topk": {"faiss"},
    "pack": {"numpy"},
    "conv2d": {"numpy"},
}
CALLS = {
    *("gemm rows", "gemm prepacked", "hamming rows", "hamming prepacked", "topk rows"),
    *("topk prepacked", "pack", "conv2d rows", "conv2d prepacked"),
}


@pytest.fixture
def grid(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCH))
    import grid

    return grid


@pytest.fixture
def sweep(grid, monkeypatch):
    """The program on a small grid, with as few repetitions as can be."""
    import sweep

    monkeypatch.setattr(grid, "ROWS", (1, 17))
    monkeypatch.setattr(grid, "COLUMNS", (10, 1000))
    monkeypatch.setattr(grid, "BITS", (64, 100, 320))
    monkeypatch.setattr(grid, "QUERIES", (3,))
    monkeypatch.setattr(grid, "IMAGES", (2,))
    monkeypatch.setattr(grid, "SIDES", (4,))
    monkeypatch.setattr(grid, "CHANNELS", ((3, 5), (70, 33)))
    monkeypatch.setattr(sweep, "BLOCK_SECONDS", 1e-5)
    monkeypatch.setattr(sweep, "load_peers", lambda names: {name: PEERS[name] for name in names})
    return sweep


def test_the_grid_is_within_its_limits(grid):
    names = [case.name for case in grid.all_cases()]
    assert len(names) == len(set(names))
    assert {"product 1x10x64", "product 17x1000000x64", "product 4x1000000x4096"} <= set(names)
    assert {"topk 1x1000000x4096", "pack 1x64", "conv2d 1x4x4x3->32"} <= set(names)
    assert "product 1000x1000000x64" not in names  # a result of 4 GB
    for case in grid.all_cases():
        if case.kind == "product":
            m, n, k = map(int, case.size.split("x"))
            assert case.work == m * n * k < 2**34 and (m + n) * k // 8 + 4 * m * n < 2**30


@pytest.mark.parametrize("k", [1, 64, 100, 321])
def test_mismatches_are_those_of_the_reference(grid, k):
    a, w = grid.random_bits(0, 9, k), grid.random_bits(1, 70, k)
    expected = (k - reference.gemm(grid.to_signs(a), grid.to_signs(w))) // 2
    assert_array_equal(grid.count_mismatches(a.words, w.words), expected)
    assert_array_equal(grid.to_signs(a), bo.unpack(a))


def test_blocks_of_mismatches_and_of_checks(grid):
    a, w = grid.random_bits(0, 2, 70), grid.random_bits(1, 2**18, 70)
    counts = grid.count_mismatches(a.words, w.words)
    assert_array_equal(counts, bo.hamming(a, w))
    for row in (0, 1):
        result = counts.copy()
        assert grid.take(result, counts)
        assert not grid.take(result, counts), "the buffer is as it was"
        result = counts.copy()
        result[row, -1] += 1
        assert not grid.take(result, counts)


def test_every_call_of_every_point(sweep, capsys, tmp_path):
    path = tmp_path / "sweep.json"
    before = bo.get_num_threads()
    sweep.main(["--seconds", "0", "--json", str(path), "--worst", "5"])
    assert bo.get_num_threads() == before
    rows = json.loads(path.read_text())["rows"]
    assert {row["call"] for row in rows} == CALLS
    assert len(rows) == 4 * 12 + 2 * 2 + 6 + 2 * 2
    for row in rows:
        assert set(row["ratio"]) == RIVALS[row["call"].split()[0]]
        for name, ratio in row["ratio"].items():
            assert ratio == pytest.approx(row["rivals"][name] / row["seconds"])
    out = capsys.readouterr().out
    assert "22 of 22, " in out
    table, summary = out.partition("worst first")[2].split("\n\n")
    shown = [line for line in table.splitlines() if "x" in line]
    least = sorted(rows, key=sweep.worst)[:5]
    assert [line[:39].rstrip() for line in shown] == [
        f"{row['call']:<18} {row['size']}" for row in least
    ]
    assert {line[:18].rstrip() for line in summary.splitlines()[1:]} == CALLS


def test_the_figures_of_a_file_are_shown_and_drawn(sweep, capsys, monkeypatch, tmp_path):
    figures = pytest.importorskip("matplotlib.figure")
    drawn, save = [], figures.Figure.savefig
    monkeypatch.setattr(
        figures.Figure, "savefig", lambda self, *a, **o: [drawn.append(self), save(self, *a, **o)]
    )
    path, picture = tmp_path / "sweep.json", tmp_path / "sweep.png"
    sweep.main(["--seconds", "0", "--only", "product 1x*64", "topk", "--json", str(path)])
    tables = capsys.readouterr().out.partition("\nworst first")[2]
    monkeypatch.setattr(sweep, "interleave", None)
    sweep.main(["--from", str(path), "--plot", str(picture)])
    assert capsys.readouterr().out.partition("\nworst first")[2] == tables
    assert picture.read_bytes().startswith(b"\x89PNG")
    rows = json.loads(path.read_text())["rows"]
    fields = {axes.get_title(): axes for axes in drawn[0].axes}
    assert set(fields) == {row["call"] for row in rows}
    points = fields["topk rows"].collections[0].get_offsets()
    expected = [(row["work"], row["ratio"]["faiss"]) for row in rows if row["call"] == "topk rows"]
    assert_array_equal(points, expected)


def test_absent_rivals_have_dashes(sweep, capsys, monkeypatch, tmp_path):
    pytest.importorskip("matplotlib")
    monkeypatch.setattr(sweep, "load_peers", lambda names: {})
    options = ["--seconds", "0", "--plot", str(tmp_path / "sweep.png")]
    sweep.main([*options, "--only", "topk 3x1000x64"])
    sweep.main([*options, "--only", "product 1x10x64", "topk 3x1000x64"])
    table = capsys.readouterr().out.rpartition("worst first")[2]
    lines = [line for line in table.splitlines() if "10x64" in line or "1000x64" in line]
    assert [line.split().count("-") for line in lines] == [2, 2, 2, 2, 3, 3]


def test_the_rivals_that_are_installed(sweep, tmp_path):
    """Their own calls, in a process of their own."""
    path = tmp_path / "sweep.json"
    names = ["product 1x10x100000", "product 17x64x128", "topk 1x1000x64"]
    argv = [sys.executable, str(BENCH / "sweep.py"), "--seconds", "0", "--json", str(path)]
    result = subprocess.run([*argv, "--only", *names], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    rows = json.loads(path.read_text())["rows"]
    assert len(rows) == 10
    for name in ("faiss", "numkong"):
        left_out = f"note: {name} is left out" in result.stdout
        assert left_out != any(name in row["ratio"] for row in rows)


@pytest.mark.parametrize(
    ("function", "only", "call"),
    [
        ("gemm", "product", "gemm rows"),
        ("hamming", "product", "hamming rows"),
        ("hamming_topk", "topk", "topk rows"),
        ("pack", "pack", "pack"),
        ("conv2d", "conv2d", "conv2d rows"),
    ],
)
def test_wrong_results_are_found(sweep, monkeypatch, function, only, call):
    true = getattr(bo, function)

    def wrong(*operands, **options):
        result = true(*operands, **options)
        if function == "hamming_topk":
            return result[0], result[1][:, ::-1]
        if function == "pack":
            return true(-operands[0])
        result.reshape(-1)[-1] += 2
        return result

    monkeypatch.setattr(bo, function, wrong)
    with pytest.raises(WrongResult, match=rf"\[sweep\] {call} gave a wrong result for "):
        sweep.main(["--seconds", "0", "--only", only])


@pytest.mark.parametrize(("name", "only"), [("faiss", "topk"), ("numkong", "product")])
def test_wrong_rivals_are_found(sweep, monkeypatch, name, only):
    monkeypatch.setattr(sweep, "load_peers", lambda names: {name: Rival(off=1)})
    with pytest.raises(WrongResult, match=rf"\[sweep\] {name} gave a wrong result for "):
        sweep.main(["--seconds", "0", "--only", only])


def test_points_behind(sweep):
    """Beyond a microsecond of fixed cost and 0.95 of a rival's speed."""
    row = {"seconds": 2e-6, "rivals": {"faiss": 0.96e-6, "numkong": 0.94e-6}}
    assert [sweep.is_behind(row, name) for name in ("faiss", "numkong")] == [False, True]


def test_a_point_behind_is_measured_again(sweep, grid, monkeypatch):
    """The best of both counts, for the rivals as well."""
    runs = [{"ours": 9e-6, "faiss": 4e-6}, {"ours": 5e-6, "faiss": 5e-6}]
    given = []

    def best_times(calls, seconds):
        given.append(seconds)
        return runs[len(given) - 1]

    monkeypatch.setattr(sweep, "best_times", best_times)
    calls = grid.Calls({"ours": None}, {"faiss": None}, None)
    case = grid.Case("product", "1x2x3", 6, lambda peers: calls)
    (row,) = sweep.measure(case, {}, 1.0)
    assert given == [1.0, 2.0]
    assert row["seconds"] == 5e-6 and row["rivals"] == {"faiss": 4e-6}
    assert row["ratio"] == {"faiss": pytest.approx(0.8)}
    runs[0] = {"ours": 4e-6, "faiss": 4e-6}
    given.clear()
    (row,) = sweep.measure(case, {}, 1.0)
    assert given == [1.0] and row["seconds"] == 4e-6


def test_only_without_a_point(sweep):
    with pytest.raises(SystemExit, match="--only nothing: no case has such a name, as have produ"):
        sweep.main(["--only", "nothing"])
