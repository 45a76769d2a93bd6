"""Headers of model files and checkpoints, and files that change or end while they are read."""

import json
import struct
import subprocess
import sys

import numpy as np
import pytest
import safetensors.numpy

from bitops.files import tensors as files
from bitops.files.tensors import MALFORMED, open_tensors, parse_json
from bitops.io import load
from bitops.layers import Packed, PackedBatchNorm, PackedDense, PackedLevels, PackedQuantize
from bitops.training.checkpoint import Checkpoint
from forgery import graph_of, read, rewrite, write
from trainings import OPTIONS, At, data, dense, stop


@pytest.fixture
def path(tmp_path):
    """A small model file."""
    path = tmp_path / "model.safetensors"
    Packed(PackedDense(np.ones((3, 70)), alpha=[1, 2, 3], bias=[0, 1, 2])).save(path)
    return path


@pytest.fixture
def checkpoint(tmp_path):
    path = tmp_path / "run.ckpt"
    dense().fit(*data(), callbacks=[Checkpoint(path), At(7, stop)], **OPTIONS)
    return path


def resume(path):
    dense().fit(*data(), resume=path, **OPTIONS)


def put(path, header, content=b""):
    """A file of any header, as an object or as text."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + content)


def parts(path):
    """Header and content of a file."""
    whole = path.read_bytes()
    end = 8 + int.from_bytes(whole[:8], "little")
    return json.loads(whole[8:end]), whole[end:]


def test_arrays_are_those_of_the_library(tmp_path):
    """Of every dtype, without elements, without axes."""
    rng = np.random.default_rng(0)
    arrays = {
        f"{dtype}{shape}": np.asarray(rng.integers(0, 2, shape), dtype)
        for dtype in ("?", "u1", "u2", "u4", "u8", "i1", "i2", "i4", "i8", "f2", "f4", "f8")
        for shape in ((), (3,), (0, 2), (2, 3, 1))
    }
    path = tmp_path / "file"
    files.write_tensors("test", path, {"format": "any"}, arrays)
    with open_tensors(path, "any") as file:
        found = file.read()
    library = safetensors.numpy.load_file(path)
    assert set(found) == set(library) == set(arrays)
    for name, array in arrays.items():
        np.testing.assert_array_equal(found[name], library[name])
        assert found[name].dtype == array.dtype and found[name].shape == array.shape
        assert found[name].flags.writeable and found[name].flags.aligned


@pytest.mark.parametrize("kind", ["model", "checkpoint"])
@pytest.mark.parametrize("change", ["shorter", "empty", "other", "longer"])
def test_files_that_change_while_they_are_read(path, checkpoint, monkeypatch, kind, change):
    """A memory map would end the process by a bus error."""
    Packed(PackedDense(np.ones((300, 7000)))).save(path)
    path, use = {"model": (path, load), "checkpoint": (checkpoint, resume)}[kind]
    whole = path.read_bytes()
    start = files.TensorFile.__init__

    def change_after_the_header(self, *args):
        start(self, *args)
        content = {"shorter": whole[:-9], "empty": b"", "longer": whole * 2}.get(
            change, whole[:-9] + b"\1" * 9
        )
        with open(path, "r+b") as file:
            file.truncate()
            file.write(content)
            file.truncate()

    monkeypatch.setattr(files.TensorFile, "__init__", change_after_the_header)
    if change == "longer":
        use(path)  # the bytes that were there when it was opened
        return
    with pytest.raises(ValueError, match=r"^\[(load|fit)\] .*(must be complete|sha256)"):
        use(path)


@pytest.mark.parametrize("kind", ["model", "checkpoint"])
def test_a_file_that_another_process_rewrites_all_the_time(tmp_path, path, checkpoint, kind):
    """Loading gives the model or a ValueError, and the process lives."""
    path, call = {
        "model": (path, "bitops.io.load(path)"),
        "checkpoint": (
            checkpoint,
            "model().fit(x, y, resume=path, epochs=4, batch_size=20, verbose=0)",
        ),
    }[kind]
    if kind == "model":
        Packed(PackedDense(np.ones((3000, 7000)))).save(path)
    program = f"""
import sys, threading
sys.path[:0] = [{str(__file__).rsplit("/", 1)[0]!r}]
import numpy as np, bitops.io, bitops.layers, trainings
path = {str(path)!r}
model, (x, y) = trainings.dense, trainings.data()
whole = open(path, "rb").read()
over = False
def rewrite():
    while not over:
        with open(path, "r+b") as file:
            file.truncate(0)
            file.write(whole[: len(whole) // 2]); file.flush()
            file.write(whole[len(whole) // 2 :])
thread = threading.Thread(target=rewrite)
thread.start()
outcomes = set()
for _ in range(40):
    try:
        {call}
        outcomes.add("loaded")
    except ValueError:
        outcomes.add("refused")
over = True
thread.join()
{call}
print("alive", outcomes)
"""
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith("alive")


def test_headers_are_read_only_if_they_are_short(path, monkeypatch):
    """Their length stands in the first eight bytes."""
    monkeypatch.setattr(files, "parse_json", lambda text: pytest.fail("parsed"))
    for length in (files.MAX_HEADER + 1, 2**63, 2**64 - 1):
        with open(path, "r+b") as file:
            file.write(struct.pack("<Q", length))
            file.truncate(files.MAX_HEADER + 100)  # sparse
        with pytest.raises(ValueError, match=r"^\[load\] .* header"):
            load(path)


@pytest.mark.skipif(sys.platform != "linux", reason="limits memory as Linux does")
@pytest.mark.parametrize("content", ["tensors", "brackets", "long", "text"])
def test_loading_where_memory_is_limited(tmp_path, content):
    """SECURITY.md recommends it; whatever the header holds, the interpreter must not abort."""
    path = tmp_path / "model"
    entry = '"t%d":{"dtype":"F32","shape":[0],"data_offsets":[0,0]},'
    text = {
        "tensors": "{" + "".join(entry % i for i in range(500_000))[:-1] + "}",
        "brackets": "[" + "[]," * 10_000_000 + "[]]",
        "long": "{" + " " * 90_000_000 + "}",
        "text": '{"__metadata__":{"bitops":"' + "[]," * 10_000_000 + '"}}',
    }[content]
    put(path, text.encode())
    program = (
        "import resource, bitops.io\n"
        f"resource.setrlimit(resource.RLIMIT_AS, ({700 * 2**20},) * 2)\n"
        "try:\n"
        f"    bitops.io.load({str(path)!r})\n"
        "except (ValueError, MemoryError) as error:\n"
        "    print(type(error).__name__)\n"
    )
    argv = [sys.executable, "-c", program]
    result = subprocess.run(argv, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip() in ("ValueError", "MemoryError")


ENTRY = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}


@pytest.mark.parametrize(
    "header",
    [
        b"[]",
        b"7",
        b"",
        b"{",
        b"\xff{}",
        b"[" * 100_000,
        b'{"a":' * 100_000,
        {"__metadata__": []},
        {"__metadata__": {"bitops": 7}},
        {"__metadata__": {"bitops": "{}", "more": "x"}},
        {"a": 7},
        {"a": {**ENTRY, "more": 1}},
        {"a": {**ENTRY, "dtype": "BF16"}},
        {"a": {**ENTRY, "dtype": ["F32"]}},
        {"a": {**ENTRY, "shape": [-2]}},
        {"a": {**ENTRY, "shape": [True, 2]}},
        {"a": {**ENTRY, "shape": 2}},
        {"a": {**ENTRY, "shape": [2.0]}},
        {"a": {**ENTRY, "shape": [1] * 33 + [2]}},
        {"a": {**ENTRY, "shape": [2**64, 2]}},
        {"a": {**ENTRY, "shape": [0, 2**62], "data_offsets": [0, 0]}},
        {"a": {**ENTRY, "shape": [3]}},
        {"a": {**ENTRY, "data_offsets": [8, 0]}},
        {"a": {**ENTRY, "data_offsets": [0, 8, 8]}},
        {"a": {**ENTRY, "data_offsets": [1, 9]}},
        {"a": ENTRY, "b": ENTRY},
        {"a": ENTRY, "b": {**ENTRY, "data_offsets": [4, 12]}},
    ],
)
def test_malformed_headers(path, header):
    described = parts(path)[0]["__metadata__"]
    if isinstance(header, dict) and "__metadata__" not in header:
        header = {"__metadata__": described, **header}
    put(path, header, bytes(8))
    for use in (load, resume):
        with pytest.raises(ValueError, match=r"^\[(load|fit)\]"):
            use(path)
    with pytest.raises(MALFORMED), open_tensors(path, "bitops.packed") as file:
        file.read()


def test_keys_that_are_given_twice(path, checkpoint):
    header, content = parts(path)
    text = json.dumps(header)
    twice = text.replace('"0.alpha"', '"0.bias"')
    put(path, twice.encode(), content)
    with pytest.raises(ValueError, match=r"keys must be unique, got '0\.bias' twice"):
        load(path)
    Packed(PackedDense(np.ones((3, 70)))).save(path)
    for name, use in ((path, load), (checkpoint, resume)):
        description, _ = read(name)
        text = json.dumps(description)
        for key in ("version", "sha256"):
            again = text[:-1] + f', "{key}": {json.dumps(description[key])}}}'
            rewrite(name, document=again)
            with pytest.raises(ValueError, match=f"keys must be unique, got '{key}' twice"):
                use(name)


def test_many_keys_take_no_longer_than_their_number():
    """With one of them twice, at the end."""
    text = "{" + ",".join(f'"{i}":0' for i in range(200_000)) + ',"7":1}'
    with pytest.raises(ValueError, match="got '7' twice"):
        parse_json(text)


def test_keys_that_no_version_has(path, checkpoint):
    rewrite(path, evil=1)
    with pytest.raises(ValueError, match=r"^\[load\] .*description must have only .* got .*evil"):
        load(path)
    for version in (1, 2, 3):
        rewrite(path, version=version)
        with pytest.raises(ValueError, match=r"description must have only"):
            load(path)
    rewrite(checkpoint, evil=1)
    with pytest.raises(ValueError, match=r"^\[fit\] .*the description must have the keys"):
        resume(checkpoint)


@pytest.mark.parametrize(
    ("place", "message"),
    [
        (("position",), "position must have the keys"),
        (("settings",), "evil is 1 there and none here"),
        (("history", 0), "evil"),
        (("generators", 0), "the state of a generator must be one"),
        (("generators", 0, "state"), "the state of a generator must be one"),
    ],
)
def test_keys_that_no_part_of_a_checkpoint_has(checkpoint, place, message):
    description, tensors = read(checkpoint)
    part = description
    for key in place:
        part = part[key]
    part["evil"] = 1
    write(checkpoint, description, tensors)
    with pytest.raises(ValueError, match=message):
        resume(checkpoint)


def test_further_metadata(path):
    header, content = parts(path)
    header["__metadata__"]["format"] = "pt"
    put(path, header, content)
    with pytest.raises(ValueError, match="metadata must be bitops alone"):
        load(path)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("name", ["0.alpha", "0.bias"])
def test_scales_that_are_no_numbers(path, name, value):
    rewrite(path, tensors={name: np.array([1, value, 2], np.float32)})
    with pytest.raises(ValueError, match=rf"^\[load\] .*{name[2:]} must be finite"):
        load(path)


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e39])
def test_layers_refuse_what_is_not_finite(value):
    from bitops.layers import FloatConv2D, FloatDense, PackedConv2D, PackedPlanesDense

    bad = np.array([value])
    for make in (
        lambda: PackedDense(np.ones((1, 4)), alpha=bad),
        lambda: PackedDense(np.ones((1, 4)), bias=bad),
        lambda: PackedConv2D(np.ones((1, 1, 1, 4)), bias=bad),
        lambda: PackedPlanesDense(np.ones((1, 1, 4)), [1], bias=bad),
        lambda: PackedBatchNorm(bad, np.ones(1)),
        lambda: PackedBatchNorm(np.ones(1), bad),
        lambda: FloatDense(bad[None]),
        lambda: FloatDense(np.ones((1, 4)), bad),
        lambda: FloatConv2D(bad.reshape(1, 1, 1, 1)),
    ):
        with pytest.raises(ValueError, match=r"^\[\w+\] \w+ must be finite as float32"):
            make()


@pytest.mark.parametrize("value", [10**400, -(10**400), 1e39, 1e-320, 0, True, "1", None, [1], {}])
@pytest.mark.parametrize(
    ("layer", "name"), [(PackedLevels(0.5), "step"), (PackedQuantize(2), "clip_value")]
)
def test_settings_beyond_float32(path, layer, name, value):
    Packed(layer).save(path)
    graph = graph_of(path)
    graph[0]["settings"][name] = value
    rewrite(path, graph=graph)
    with pytest.raises(ValueError, match=r"^\[load\] .*model\.safetensors must be a packed"):
        load(path)
