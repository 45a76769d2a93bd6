"""`bitops index` and `bitops search` on files of several kinds."""

import csv
import io
import json

import numpy as np
import pytest
from numpy.testing import assert_array_equal

import bitops as bo
from bitops.cli import codes
from bitops.cli import main as cli
from bitops.cli import search as search_command
from bitops.search import BitIndex, pairwise
from commands import failure, usage_error

K = 96


@pytest.fixture
def x():
    return np.random.default_rng(0).standard_normal((50, K), dtype=np.float32)


@pytest.fixture
def files(x, tmp_path):
    """The same rows in every form."""
    octets = np.packbits(x >= 0, axis=-1)
    np.save(tmp_path / "float.npy", x)
    np.save(tmp_path / "bool.npy", x >= 0)
    np.save(tmp_path / "signs.npy", np.where(x >= 0, 1, -1).astype(np.int8))
    np.save(tmp_path / "bytes.npy", octets)
    np.savez(tmp_path / "one.npz", codes=octets)
    np.savez_compressed(tmp_path / "two.npz", other=x[:3], codes=x >= 0)
    (tmp_path / "hex.txt").write_text("\n".join(bytes(row).hex() for row in octets) + "\n\n")
    lines = [f"0x{bytes(row).hex().upper()}\r\n" for row in octets]
    (tmp_path / "prefixed.txt").write_text("".join(lines))
    return tmp_path


@pytest.fixture
def index(x, tmp_path):
    BitIndex(x).save(tmp_path / "index")
    return tmp_path / "index"


def run(capsys, *argv):
    assert cli.main([str(word) for word in argv]) == 0
    out, err = capsys.readouterr()
    assert not err
    return out


NAMES = ("float.npy", "bool.npy", "signs.npy", "bytes.npy", "one.npz", "hex.txt", "prefixed.txt")


@pytest.mark.parametrize("name", NAMES)
def test_rows_of_every_kind(capsys, files, x, name, monkeypatch):
    monkeypatch.setattr(codes, "BLOCK_BYTES", 1000)
    line = run(capsys, "index", "build", files / "new", files / name)
    assert line.startswith(f"{files / 'new'}: 50 rows of 96 bits, hamming, ")
    assert BitIndex.load(files / "new").rows(range(50)) == bo.pack(x)
    found = json.loads(run(capsys, "search", files / "new", files / name, "--format", "json"))
    distances, ids = bo.hamming_topk(x, x, 10)
    assert_array_equal([query["ids"] for query in found], ids)
    assert_array_equal([query["distances"] for query in found], distances)


def test_more_ways_to_read_rows(capsys, files, x):
    run(capsys, "index", "build", files / "a", files / "two.npz", "--array", "codes")
    assert BitIndex.load(files / "a").rows(range(50)) == bo.pack(x)
    np.save(files / "little.npy", np.packbits(x[:, :90] >= 0, axis=-1, bitorder="little"))
    argv = ("index", "build", files / "b", files / "little.npy", "--bits", 90)
    assert "50 rows of 90 bits" in run(capsys, *argv, "--bitorder", "little")
    assert BitIndex.load(files / "b").rows(range(50)) == bo.pack(x[:, :90])


def test_add_and_info(capsys, files, index, x):
    line = run(capsys, "index", "add", index, files / "hex.txt")
    assert line.startswith(f"{index}: 50 added, 100 rows of 96 bits, hamming, ")
    (files / "ids.txt").write_text("\n".join(map(str, range(900, 950))))
    run(capsys, "index", "add", index, files / "hex.txt", "--ids", files / "ids.txt")
    np.save(files / "ids.npy", np.arange(2000, 2050))
    run(capsys, "index", "add", index, files / "bool.npy", "--ids", files / "ids.npy")
    info = run(capsys, "index", "info", index)
    lines = dict(line.split(maxsplit=1) for line in info.splitlines())
    assert lines["rows"] == "200 of 96 bits" and lines["metric"] == "hamming"
    assert lines["next"] == "id  2,050"
    distances, ids = BitIndex.load(index).search(x[:1], 4)
    assert_array_equal(ids, [[0, 50, 900, 2000]])
    assert not distances.any()


def test_paths_are_printed_as_given(capsys, files, monkeypatch):
    monkeypatch.chdir(files)
    for action, rows in (("build", 50), ("add", 100)):
        line = run(capsys, "index", action, "new", "hex.txt")
        assert line.startswith("new: ") and f"{rows} rows of 96 bits" in line
    assert run(capsys, "index", "info", "new").splitlines()[0] == "index    new"


def test_build_again(capsys, files, index):
    assert failure(capsys, "index", "build", str(index), str(files / "hex.txt")).endswith(
        "exists; replace it with --overwrite"
    )
    argv = ("index", "build", index, files / "hex.txt", "--overwrite", "--metric", "jaccard")
    assert "50 rows of 96 bits, jaccard" in run(capsys, *argv)
    (files / "ids.txt").write_text("\n".join(map(str, range(50, 0, -1))))
    argv = ("index", "build", files / "new", files / "hex.txt", "--ids", files / "ids.txt")
    run(capsys, *argv)
    assert_array_equal(BitIndex.load(files / "new").ids, np.arange(1, 51))


def test_outputs(capsys, files, index, x, monkeypatch):
    """Text, CSV, JSON and arrays say the same, for batches of queries."""
    monkeypatch.setattr(search_command, "QUERIES", 7)
    queries = files / "float.npy"
    distances, ids = BitIndex.load(index).search(x, 3)
    table = run(capsys, "search", index, queries, "-k", 3).splitlines()
    assert table[0].split() == ["query", "rank", "id", "distance"] and len(table) == 151
    rows = [list(map(int, line.split())) for line in table[1:]]
    wanted = [
        [query, rank + 1, ids[query, rank], distances[query, rank]]
        for query in range(50)
        for rank in range(3)
    ]
    assert rows == wanted
    for name in ("a.csv", "a.json", "a.npz", "a.txt"):
        assert run(capsys, "search", index, queries, "-k", 3, "-o", files / name) == ""
    argv = ("search", index, queries, "-k", 3, "--format", "text")
    assert run(capsys, *argv).splitlines() == table
    assert run(capsys, *argv, "-o", files / "b.txt") == ""
    assert (files / "b.txt").read_bytes() == (files / "a.txt").read_bytes()
    assert (files / "a.txt").read_text().splitlines() == table
    lines = list(csv.reader((files / "a.csv").read_text().splitlines()))
    assert lines[0] == ["query", "rank", "id", "distance"]
    assert [list(map(int, line)) for line in lines[1:]] == wanted
    found = json.loads((files / "a.json").read_text())
    assert_array_equal([query["ids"] for query in found], ids)
    with np.load(files / "a.npz") as arrays:
        assert_array_equal(arrays["ends"], np.arange(0, 151, 3))
        assert_array_equal(arrays["ids"], ids.ravel())
        assert_array_equal(arrays["distances"], distances.ravel())


@pytest.mark.parametrize(
    ("metric", "radius"), (("hamming", 45), ("jaccard", 0.65), ("intersection", 24))
)
def test_radius(capsys, files, x, metric, radius, monkeypatch):
    """Ranks go by value, the best first, and by id among equal ones."""
    monkeypatch.setattr(search_command, "QUERIES", 7)
    BitIndex(x, metric).save(files / "near")
    argv = ("search", files / "near", files / "float.npy", "--radius", radius, "--format", "json")
    found = json.loads(run(capsys, *argv))
    values = pairwise(x, x, metric)
    sign, name = (-1, "counts") if metric == "intersection" else (1, "distances")
    for row, query in zip(sign * values.astype(float), found, strict=True):
        order = np.argsort(row, kind="stable")
        order = order[row[order] <= sign * radius]
        assert len(order) > 1
        assert_array_equal(query["ids"], order)
        assert_array_equal(np.float32(query[name]), np.float32(sign * row[order]))


def test_rescoring(capsys, files, index, x):
    stored = BitIndex.load(index)
    for what, rescore in (("bits", "bits"), (files / "float.npy", x)):
        argv = ("search", index, files / "float.npy", "--rescore", what, "-k", 2)
        found = json.loads(run(capsys, *argv, "--format", "json"))
        scores, ids = stored.search(x, 2, rescore=rescore)
        assert_array_equal([query["ids"] for query in found], ids)
        assert_array_equal(np.float32([query["scores"] for query in found]), scores)


def test_numbers_that_json_lacks(capsys, files, index, x):
    """Infinity becomes null; other numbers are as short as float32 allows."""
    vectors = x.copy()
    vectors[7] = [np.inf, *np.zeros(K - 1)]
    np.save(files / "large.npy", vectors)
    argv = ("search", index, files / "float.npy", "--rescore", files / "large.npy", "-k", 50)
    text = run(capsys, *argv, "--format", "json")
    found = json.loads(text, parse_constant=pytest.fail, parse_float=str)
    lines = list(csv.DictReader(run(capsys, *argv, "--format", "csv").splitlines()))
    scores, ids = BitIndex.load(index).search(x, 50, rescore=vectors)
    assert np.isinf(scores).any()
    for query, row in zip(found, scores, strict=True):
        assert query["scores"] == [
            repr(float(str(score))) if np.isfinite(score) else None for score in row
        ]
    assert [line["score"] for line in lines] == [str(score) for score in scores.ravel()]
    assert_array_equal([query["ids"] for query in found], ids)


@pytest.mark.parametrize("dtype", (np.complex64, "U3", "M8[s]"))
def test_rescoring_by_no_numbers(capsys, files, index, dtype):
    np.save(files / "wrong.npy", np.zeros((50, K), dtype))
    argv = ("search", index, files / "float.npy", "--rescore", files / "wrong.npy")
    assert "wrong.npy must hold a matrix of real numbers for --rescore" in failure(
        capsys, *map(str, argv)
    )


def test_rescoring_by_no_matrix(capsys, files, index):
    np.save(files / "row.npy", np.zeros(K))
    (files / "zip.npy").write_bytes((files / "one.npz").read_bytes())
    argv = ("search", str(index), str(files / "float.npy"), "--rescore")
    for name, text in (("row.npy", "shape (96,)"), ("zip.npy", "must be a .npy file of numbers")):
        assert text in failure(capsys, *argv, str(files / name))
    assert usage_error(capsys, *argv, str(files / "one.npz")).endswith(
        f"--rescore: must be bits or end in .npy, got {files / 'one.npz'}"
    )


@pytest.mark.parametrize("shape", ((10**12, K), (-1, K), (51, K)))
def test_rows_that_are_not_there(capsys, files, index, shape):
    header = io.BytesIO()
    fields = {"descr": "<f4", "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(header, fields)
    (files / "claims.npy").write_bytes(header.getvalue() + bytes(50 * K * 4))
    message = failure(capsys, "search", str(index), str(files / "claims.npy"))
    assert f"the array claims {shape} of float32" in message


def test_rows_in_fortran_order(capsys, files, index, x):
    np.save(files / "columns.npy", np.asfortranarray(x))
    argv = ("search", index, files / "columns.npy", "-k", 1, "--format", "json")
    assert [query["ids"] for query in json.loads(run(capsys, *argv))] == [[i] for i in range(50)]


def test_fewer_rows_than_asked_for(capsys, files, x):
    BitIndex(x[:2], "intersection").save(files / "two")
    argv = ("search", files / "two", files / "bool.npy", "--format", "csv")
    lines = run(capsys, *argv).splitlines()
    assert len(lines) == 101 and lines[0] == "query,rank,id,count"
    assert run(capsys, *argv, "-k", 10**12).splitlines() == lines  # takes no memory for them


def test_no_queries(capsys, files, index):
    np.save(files / "none.npy", np.zeros((0, K), bool))
    assert run(capsys, "search", index, files / "none.npy", "--format", "json") == "[]\n"


@pytest.mark.parametrize(
    ("content", "text"),
    (
        (b"d1c4\nxy\n", "line 2 of {} must be pairs of hexadecimal digits, got 'xy'"),
        (b"d1c4\nd1\n", "line 2 of {} must have 4 digits as the first one, got 2"),
        (b"abc", "must be pairs of hexadecimal digits"),
        (b"\n\n", "must hold lines of hexadecimal digits, got none"),
        (b"\xff\xfe", "must be .npy, .npz or text, got other bytes"),
        (b"d1c4", "queries must have 96 columns, got 16"),
    ),
)
def test_wrong_text(capsys, files, index, content, text):
    path = files / "wrong.txt"
    path.write_bytes(content)
    assert text.format(path) in failure(capsys, "search", str(index), str(path))


def test_wrong_files(capsys, files, index, x):
    def fails(*argv):
        return failure(capsys, *map(str, argv))

    np.save(files / "words.npy", np.zeros((2, 3), np.uint64))
    np.save(files / "row.npy", x[0])
    np.save(files / "objects.npy", np.array([[None]]), allow_pickle=True)
    np.save(files / "nan.npy", np.full((1, K), np.nan))
    (files / "empty.npy").touch()
    for name, text in (
        ("words.npy", "must hold uint8 as np.packbits packs them, bool, signed integers or floats"),
        ("row.npy", "must hold a matrix, got shape (96,)"),
        ("objects.npy", "must be a .npy file of numbers"),
        ("empty.npy", "must be a .npy file of numbers"),
        ("nan.npy", "must not hold NaN"),
        ("absent.npy", "No such file"),
        ("two.npz", "--array must be one of other, codes, got None"),
    ):
        assert text in fails("search", index, files / name)
    assert "--array is for .npz" in fails("search", index, files / "bool.npy", "--array", "x")
    assert "--bits is for bytes" in fails("search", index, files / "bool.npy", "--bits", 9)
    assert "got bits" in fails("search", index, files / "hex.txt", "--rescore", "bits")
    for argv in (("search", files, files / "hex.txt"), ("index", "info", files / "absent")):
        assert "must hold an index: there is no index.json" in fails(*argv)
    assert "metric must be one of" in fails(
        "index", "build", files / "new", files / "hex.txt", "--metric", "cosine"
    )
    assert not (files / "new").exists()
    (files / "ids.txt").write_text("1\ntwo\n")
    assert "must hold an id a line" in fails(
        "index", "add", index, files / "hex.txt", "--ids", files / "ids.txt"
    )
    assert "must hold integers" in fails(
        "index", "add", index, files / "hex.txt", "--ids", files / "float.npy"
    )


def test_wrong_options(capsys, files, index):
    argv = ("search", str(index), str(files / "hex.txt"))
    assert "must end in .txt, .csv, .json or .npz, got" in usage_error(
        capsys, *argv, "-o", str(files / "a.pdf")
    )
    assert "not allowed with argument --radius" in usage_error(
        capsys, *argv, "--radius", "3", "--rescore", "bits"
    )
    for options, text in (
        (("--radius", "3", "-k", "2"), "-k/--count: not allowed with argument --radius"),
        (("--oversample", "2"), "--oversample: not allowed without argument --rescore"),
        (
            ("--format", "csv", "-o", str(files / "a.json")),
            "must fit the ending of a.json, got csv",
        ),
        (("--format", "txt"), "invalid choice: 'txt'"),
    ):
        assert text in usage_error(capsys, *argv, *options)
    assert not (files / "a.json").exists()
    before = (files / "hex.txt").read_bytes()
    message = usage_error(capsys, *argv, "-o", str(files / "hex.txt"))
    assert message.endswith(f"--output: must not be an input, got {files / 'hex.txt'}")
    assert (files / "hex.txt").read_bytes() == before
    assert "must be above 0" in usage_error(capsys, *argv, "-k", "0")


@pytest.mark.parametrize("name", ("bytes.npy", "hex.txt"))
def test_bits_that_rows_do_not_have(capsys, files, name):
    argv = ("index", "build", str(files / "new"), str(files / name), "--bits")
    for bits in ("0", "-8"):
        assert usage_error(capsys, *argv, bits).endswith(f"--bits: must be above 0, got {bits}")
    message = failure(capsys, *argv, "97")
    assert f"--bits must be at most 96, as many as a row of {files / name} has, got 97" in message
    assert not (files / "new").exists()
    assert "50 rows of 96 bits" in run(capsys, *argv, 96)
