import json
import os

import numpy as np
import pytest
import safetensors
import safetensors.numpy

from bitops.array import pack
from bitops.io import _digest, load, save
from bitops.layers import Packed, PackedBatchNorm, PackedDense, PackedSign, Sequential, Sign
from bitops.models import mlp


def every_kind():
    """A model with each layer type and each kind of field."""
    rng = np.random.default_rng(0)
    return Packed(
        PackedBatchNorm(rng.normal(size=70), rng.normal(size=70)),
        PackedSign(rng.normal(size=70), rng.random(70) < 0.5),
        PackedDense(rng.normal(size=(65, 70)), rng.integers(-9, 9, 65), rng.random(65) < 0.5),
        PackedDense(rng.normal(size=(64, 65)), rng.normal(size=64)),
        PackedDense(rng.normal(size=(33, 64)), alpha=rng.random(33)),
        PackedSign(),
        PackedDense(rng.normal(size=(5, 33)), bias=rng.normal(size=5)),
    )


@pytest.fixture
def path(tmp_path):
    return tmp_path / "model.safetensors"


def rewrite(path, *, tensors=None, document=None, **entries):
    """Change parts of a model file and give it a digest that fits, as a careful forger would."""
    with safetensors.safe_open(path, framework="numpy") as file:
        description = json.loads(file.metadata()["bitops"])
        arrays = {name: file.get_tensor(name) for name in file.keys()}
    arrays.update(tensors or {})
    arrays = {name: array for name, array in arrays.items() if array is not None}
    description.update(entries)
    if "sha256" not in entries:
        description["sha256"] = _digest(description, arrays)
    text = json.dumps(description) if document is None else document
    path.write_bytes(safetensors.numpy.save(arrays, {"bitops": text}))


def test_round_trip_of_every_layer(path):
    model = every_kind()
    save(model, path)
    again = load(path)
    x = np.random.default_rng(1).normal(size=(20, 70))
    np.testing.assert_array_equal(again(x), model(x))
    assert repr(again) == repr(model)
    for a, b in zip(model.layers, again.layers, strict=True):
        for name in ("weight", "threshold", "flip", "alpha", "bias"):
            old, new = getattr(a, name, None), getattr(b, name, None)
            assert np.array_equal(np.asarray(old), np.asarray(new))
            if isinstance(old, np.ndarray):
                assert old.dtype == new.dtype
    assert os.listdir(path.parent) == [path.name]


def test_same_model_same_bytes(path):
    every_kind().save(str(path))
    first = path.read_bytes()
    load(path).save(path)
    assert path.read_bytes() == first


def test_weights_packed_along_a_strided_axis(path):
    w = np.random.default_rng(2).normal(size=(70, 5))
    model = Packed([PackedDense(pack(w, axis=0).T)])
    model.save(path)
    x = pack(np.random.default_rng(3).normal(size=(4, 70)))
    np.testing.assert_array_equal(load(path)(x), model(x))


def test_file_is_25_times_smaller_than_float32_weights(path):
    model = mlp(784, 1024, 3, 10, seed=0)
    model.freeze().save(path)
    weights = sum(4 * p.size for p in model.parameters() if len(p.shape) == 2)
    assert weights == 4 * (784 * 1024 + 2 * 1024**2 + 10240)
    assert path.stat().st_size * 25 < weights


def test_only_packed_models_are_saved(path):
    with pytest.raises(TypeError, match=r"\[save\] model must be a Packed, got Sequential"):
        save(Sequential(Sign()), path)
    assert not path.exists()


def test_failed_save_leaves_the_old_file(path, monkeypatch):
    every_kind().save(path)
    before = path.read_bytes()

    def refuse(*_):
        raise OSError("no")

    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(OSError, match="no"):
        mlp(8, 8, 1, 2).freeze().save(path)
    assert path.read_bytes() == before
    assert os.listdir(path.parent) == [path.name]


def test_missing_file_and_folder(tmp_path):
    with pytest.raises(FileNotFoundError):
        load(tmp_path / "nothing")
    with pytest.raises(OSError, match="directory"):
        load(tmp_path)
    with pytest.raises(FileNotFoundError):
        every_kind().save(tmp_path / "no" / "folder")


def test_truncated_files_are_refused(path):
    Packed(PackedDense(np.ones((3, 70)), 0)).save(path)
    whole = path.read_bytes()
    for size in range(len(whole)):
        path.write_bytes(whole[:size])
        with pytest.raises(ValueError, match=r"^\[load\] .*model\.safetensors"):
            load(path)
    path.write_bytes(whole + b"\0")
    with pytest.raises(ValueError, match=r"^\[load\]"):
        load(path)


def test_damaged_files_are_refused(path):
    """Any changed byte is noticed, unless it is white space of the header."""
    model = Packed(PackedDense(np.ones((3, 70)), 0, [True, False, True]))
    model.save(path)
    whole = path.read_bytes()
    x = np.ones((1, 70), np.uint8)
    for position in range(len(whole)):
        damaged = bytearray(whole)
        damaged[position] ^= 1 << (position % 8)
        path.write_bytes(damaged)
        try:
            survivor = load(path)
        except ValueError as error:
            assert str(error).startswith("[load]")
        else:
            assert whole[position : position + 1] == b" "
            assert survivor(x) == model(x)


@pytest.mark.parametrize(
    "content", [b"", b"\x80\x04K\x01.", b"PK\x03\x04" + b"\0" * 100, b"\xff" * 64, b"{}" * 50]
)
def test_foreign_files_are_refused(path, content):
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"^\[load\]"):
        load(path)


def test_foreign_safetensors_are_refused(path):
    safetensors.numpy.save_file({"w": np.zeros(3, np.float32)}, path)
    with pytest.raises(ValueError, match="metadata bitops must be JSON, got ''"):
        load(path)
    every_kind().save(path)
    rewrite(path, version=2)
    with pytest.raises(ValueError, match="version must be 1, got 2"):
        load(path)
    rewrite(path, format="other", version=1)
    with pytest.raises(ValueError, match=r"format must be bitops\.packed"):
        load(path)
    every_kind().save(path)
    rewrite(path, sha256="0" * 64)
    with pytest.raises(ValueError, match="sha256"):
        load(path)


SPEC = {
    "type": "PackedDense",
    "in_features": 70,
    "out_features": 3,
    "fields": ["weight", "threshold", "flip"],
}
WORDS = np.zeros((3, 2), np.uint64)


@pytest.mark.parametrize(
    "change",
    [
        {"document": "not JSON"},
        {"document": "[" * 100000 + "]" * 100000},
        {"document": "[]"},
        {"document": "{}"},
        {"graph": {}},
        {"graph": []},
        {"graph": "PackedDense"},
        {"graph": [None]},
        {"graph": [{**SPEC, "type": "Sign"}]},
        {"graph": [{**SPEC, "type": ["PackedDense"]}]},
        {"graph": [{**SPEC, "type": "PackedSign"}]},
        {"graph": [{**SPEC, "extra": 1}]},
        {"graph": [{**SPEC, "fields": "weight"}]},
        {"graph": [{**SPEC, "fields": [["weight"]]}]},
        {"graph": [{**SPEC, "fields": ["threshold", "weight", "flip"]}]},
        {"graph": [{**SPEC, "fields": ["weight", "threshold"]}]},
        {"graph": [{**SPEC, "fields": ["threshold", "flip"]}]},
        {"graph": [{**SPEC, "fields": []}]},
        {"graph": [{**SPEC, "in_features": 71.0}]},
        {"graph": [{**SPEC, "in_features": True}]},
        {"graph": [{**SPEC, "in_features": -70}]},
        {"graph": [{**SPEC, "in_features": None}]},
        {"graph": [{**SPEC, "in_features": 10**30}]},
        {"graph": [{**SPEC, "in_features": 64}]},
        {"graph": [{**SPEC, "out_features": 4}]},
        {"graph": [SPEC, SPEC]},
        {"tensors": {"0.weight": WORDS.view(np.int64)}},
        {"tensors": {"0.weight": WORDS.view(np.float64)}},
        {"tensors": {"0.weight": WORDS[:2]}},
        {"tensors": {"0.weight": WORDS.reshape(-1)}},
        {"tensors": {"0.weight": WORDS + np.uint64(1 << 6)}},  # a padding bit in each word 1
        {"tensors": {"0.weight": None}},
        {"tensors": {"0.threshold": np.zeros(3, np.int64)}},
        {"tensors": {"0.threshold": np.full(3, np.nan, np.float32)}},
        {"tensors": {"0.threshold": np.zeros((3, 1), np.int32)}},
        {"tensors": {"0.flip": np.array([8], np.uint64)}},
        {"tensors": {"0.flip": np.zeros(3, np.bool_)}},
        {"tensors": {"1.weight": WORDS}},
    ],
)
def test_forged_files_are_refused(path, change):
    Packed(PackedDense(np.ones((3, 70)), 0, [True, False, True])).save(path)
    rewrite(path)
    load(path)
    rewrite(path, **change)
    with pytest.raises(ValueError, match=r"^\[load\]"):
        load(path)


def test_layers_that_do_not_fit_are_refused(path):
    Packed(PackedDense(np.ones((3, 70))), PackedDense(np.ones((2, 3)))).save(path)
    graph = [
        {"type": "PackedDense", "in_features": 70, "out_features": 3, "fields": ["weight"]},
        {"type": "PackedDense", "in_features": 4, "out_features": 2, "fields": ["weight"]},
    ]
    rewrite(path, graph=graph)
    with pytest.raises(ValueError, match=r"^\[load\] .*layer 1 must take the 3 features"):
        load(path)
