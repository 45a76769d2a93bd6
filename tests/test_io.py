import base64
import os
import zlib

import numpy as np
import pytest
import safetensors
import safetensors.numpy

from bitops.files import tensors as files
from bitops.io import load, save
from bitops.layers import (
    FloatConv2D,
    FloatDense,
    Layer,
    Packed,
    PackedAsImages,
    PackedAsSequences,
    PackedAvgPool2D,
    PackedBatchNorm,
    PackedClip,
    PackedConcat,
    PackedConv2D,
    PackedDense,
    PackedFlatten,
    PackedGlobalAvgPool2D,
    PackedLevels,
    PackedMaxPool2D,
    PackedMultiply,
    PackedMultiThreshold,
    PackedPad2D,
    PackedPadFeatures,
    PackedPlanesConv2D,
    PackedPlanesDense,
    PackedPReLU,
    PackedQuantize,
    PackedReLU,
    PackedResidual,
    PackedRPReLU,
    PackedSigmoid,
    PackedSign,
    PackedSoftmax,
    PackedTanh,
    Sequential,
    Sign,
)
from bitops.layers.model_files import MAX_DEPTH
from bitops.layers.registry import registered
from bitops.models import mlp
from bitops.ops.array import pack
from forgery import graph_of, rewrite


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
        PackedPlanesDense(rng.normal(size=(2, 9, 33)), [1, 1], rng.integers(-9, 9, 9)),
        PackedDense(rng.normal(size=(7, 9)), bias=rng.normal(size=7), input_bits=1),
        PackedTanh(),
        PackedQuantize(3, 0.75),
        PackedPlanesDense(rng.normal(size=(3, 8, 7)), [1, 2, 4], input_bits=3),
        PackedQuantize(2),
        PackedLevels(1 / 3),
        PackedDense(rng.normal(size=(5, 8)), bias=rng.normal(size=5)),
    )


def every_image_kind():
    """The same for images: (9, 10, 3) uint8 or real."""
    rng = np.random.default_rng(1)

    def bits(*shape):
        return rng.normal(size=shape)

    return Packed(
        PackedConv2D(bits(8, 3, 2, 3), rng.integers(-9, 9, 8), rng.random(8) < 0.5, padding="same"),
        PackedMaxPool2D(2, padding=((0, 1), (0, 0)), minimum=rng.random(8) < 0.5),
        PackedResidual(
            [
                PackedConv2D(bits(8, 3, 3, 8), padding=1, pad_value=-1, alpha=rng.random(8)),
                PackedMaxPool2D((3, 1), 1, (1, 0)),
                PackedResidual(PackedSign()),
            ],
            [PackedResidual(PackedReLU(), PackedBatchNorm(rng.random(8), rng.random(8)))],
        ),
        PackedConv2D(bits(6, 3, 3, 4), groups=2, dilation=(1, 2), padding=2, scale_input=True),
        FloatConv2D(bits(4, 1, 2, 3), rng.random(4), stride=(1, 2), groups=2),
        PackedSign(rng.normal(size=4)),
        PackedConv2D(bits(4, 1, 1, 1), rng.normal(size=4), groups=4),
        PackedAvgPool2D(2, 1),
        PackedPlanesConv2D(bits(2, 4, 1, 3, 2), (1, 1), padding="same", groups=2, alpha=0.5),
        PackedResidual([PackedFlatten(), FloatDense(bits(4, 24))], PackedGlobalAvgPool2D()),
        FloatDense(bits(2, 4), rng.random(2)),
        input_shape=(9, 10, 3),
    )


def imported_kinds():
    """Those that networks from elsewhere bring, for images (9, 10, 3) too."""
    rng = np.random.default_rng(2)
    return Packed(
        PackedPad2D(((1, 0), (0, 2)), 7),
        PackedPReLU(rng.random(3)),
        PackedRPReLU(rng.random(3), rng.random(3), rng.random(3)),
        PackedMultiply(PackedPadFeatures(3, 1, 2), [PackedSigmoid(), PackedPadFeatures(3, 3)]),
        PackedConv2D(rng.normal(size=(3, 1, 1, 6))),
        PackedConcat([PackedClip(high=90), PackedConv2D(rng.normal(size=(5, 1, 1, 3)))]),
        PackedMultiThreshold(np.sort(rng.normal(0, 100, (8, 3)), axis=1)),
        PackedConcat(PackedMultiThreshold(np.array([[1, 3]]))),
        PackedFlatten(),
        PackedSoftmax(),
        input_shape=(9, 10, 3),
    )


def kinds_of_sequences():
    """Those of sequences (10, 3)."""
    return Packed(
        PackedAsImages(),
        PackedConv2D(np.ones((4, 1, 3, 3))),
        PackedAsSequences(),
        input_shape=(10, 3),
    )


def flat(layers):
    """The layers in order, with those inside branches."""
    for layer in layers:
        yield layer
        for branch in layer.branches().values():
            yield from flat(branch)


# What the first version of `save` wrote, in zlib and base64: PackedBatchNorm of 3 features,
# PackedSign with threshold and flip, PackedDense(3 to 5, threshold, flip), PackedSign without,
# PackedDense(5 to 4, float32 threshold), PackedDense(4 to 2, alpha, bias).
VERSION_1 = (
    "eNqlVcuK2zAUTZ9Q6Kr9gaC1CJIiyXE2U0opzKYUSldxCLItx6ae2MRKSwmB+bPOj5X2ynLaNKNMYmpIru+Vzjn3Ie"
    "HJ80H7bNFicaONSpVRiwWablFcmKpu0BRtI5RV6xtlIjQdRl18VKvki04jhCH0Va+bolrZdWr95VrVufVmgDXfa+2Q"
    "H1vIW2WS/AMQOmyxWmRamc1aN3bX2MaqjbkfzApdpq07i5Aq61w5grhQEJ3v8NAj9qlYrv5Hx+SwlFdlV2hWFvVJrX"
    "d61ejLxcQ9sW+6WObGMfQRPlnkalOWPul9/EC9d03CR8wvram3HPfJsQflPGdkbp0mV0xIJ5uEYSgzEhMWBIwyIsMw"
    "pYprloxllpAw1VIwkgoVxySllLMky4I4VFzGgWbjMEI7tMOIjuyA7K1JbUlwaT5LjrCVst6MzjFqb1aVZY02cKtmBE"
    "+gCYj1R04wlQ7qqj0NFtgDpxKLFs/P4rkPLySetKmLs3jmw08gf8ItARm1IzrEvx+zA/zYkz2BpFz9ZGTH2g8NxVPW"
    "Zk9Hf45jPwoG+XPiGngBBfdQcIKpm4E41wLmgcMEqOQO/nALfGgJDQyYO0De/K//oRAeigAGGwLFbjh85j4fg1edfd"
    "TZx5192tknR/6LI9zLzr4+Wt/zDAa3V/B3B7+rv/7tD+e3dtCtwfsd2OF+75v9XpvbL3j2+fyE998SRAWF"
)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "model.safetensors"


def assert_same_layers(model, again):
    for a, b in zip(flat(model.layers), flat(again.layers), strict=True):
        assert type(a) is type(b) and a.config() == b.config()
        arrays = "weight threshold flip alpha bias minimum slope shift offset".split()
        for name in arrays:
            old, new = getattr(a, name, None), getattr(b, name, None)
            assert np.array_equal(np.asarray(old), np.asarray(new))
            if isinstance(old, np.ndarray):
                assert old.dtype == new.dtype


def test_round_trip_of_every_layer(path):
    model = every_kind()
    save(model, path)
    again = load(path)
    x = np.random.default_rng(1).normal(size=(20, 70))
    np.testing.assert_array_equal(again(x), model(x))
    assert repr(again) == repr(model)
    assert_same_layers(model, again)
    assert os.listdir(path.parent) == [path.name]


@pytest.mark.parametrize("make", [every_image_kind, imported_kinds])
def test_round_trip_of_every_layer_for_images(path, make):
    model = make()
    save(model, path)
    again = load(path)
    rng = np.random.default_rng(1)
    for x in (
        rng.integers(256, size=(2, 9, 10, 3), dtype=np.uint8),
        rng.normal(size=(2, 9, 10, 3)),
    ):
        np.testing.assert_array_equal(again(x), model(x))
    assert repr(again) == repr(model)
    assert again.input_shape == (9, 10, 3)
    assert_same_layers(model, again)


def test_no_layer_is_missing_above():
    models = every_kind(), every_image_kind(), imported_kinds(), kinds_of_sequences()
    kinds = {type(layer) for model in models for layer in flat(model.layers)}
    own = {kind for kind in registered() if kind.__module__.startswith("bitops.")}
    assert kinds >= own and len(own) == 29


def test_files_of_the_first_version_are_read(path):
    path.write_bytes(zlib.decompress(base64.b64decode(VERSION_1)))
    model = load(path)
    names = ["BatchNorm", "Sign", "Dense", "Sign", "Dense", "Dense"]
    assert [layer.name for layer in model.layers] == ["Packed" + name for name in names]
    x = np.array([[1, 2, 3], [-1, 0.5, 2], [0, -3, -1], [4, -1, 1]], np.float32)
    np.testing.assert_array_equal(model(x), [[0, -1], [1, 3], [1, 3], [0, -1]])
    model.save(path)  # as the version of today
    assert_same_layers(model, load(path))


def as_version_2(chain):
    """The graph of a file as the second version had it: without input_bits, and with k_map."""
    for spec in chain:
        for branch in ("body", "shortcut"):
            as_version_2(spec.get(branch) or [])
        settings = spec.get("settings", {})
        settings.pop("input_bits", None)
        if "scale_input" in settings:
            settings["k_map"] = settings.pop("scale_input")
    return chain


def test_files_of_the_second_version_are_read(path):
    conv = PackedConv2D(np.ones((4, 3, 3, 2)), 0, groups=2, padding=1)
    shortcut = [PackedFlatten(), PackedDense(np.ones((4, 4)))]
    model = Packed(
        PackedResidual(conv, PackedResidual(conv)), PackedResidual(PackedFlatten(), shortcut)
    )
    model.save(path)
    graph = graph_of(path)
    rewrite(path, version=2, graph=as_version_2(graph))
    assert_same_layers(model, load(path))
    graph[0]["body"][0]["settings"]["input_bits"] = None  # which that version did not have
    rewrite(path, version=2, graph=graph)
    with pytest.raises(ValueError, match="settings of layer 0 of body of layer 0"):
        load(path)
    rewrite(path, version=2, graph=[{"type": "PackedResidual", "body": 3, "shortcut": [7]}])
    with pytest.raises(ValueError, match="body of layer 0"):
        load(path)


def test_same_model_same_bytes(path):
    for model in (every_kind(), every_image_kind()):
        model.save(str(path))
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


def test_models_that_load_would_refuse_are_not_saved(path):
    layer = PackedReLU()
    for _ in range(MAX_DEPTH):
        layer = PackedResidual(layer)
    save(Packed(layer), path)
    load(path)
    with pytest.raises(ValueError, match=r"\[save\] residual blocks must be nested at most"):
        save(Packed(PackedResidual(layer)), path)

    class Other(Layer):
        pass

    with pytest.raises(TypeError, match=r"\[save\] layers must be packed ones"):
        save(Packed(Other()), path)


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


def test_notes_come_back(tmp_path):
    path = tmp_path / "net.safetensors"
    layer = PackedDense(np.ones((3, 5)))
    Packed(layer, notes={"preprocessing": "unit"}).save(path)
    assert load(path).notes == {"preprocessing": "unit"}
    rewrite(path, notes={"preprocessing": "pixels"})
    assert load(path).notes == {"preprocessing": "pixels"}
    Packed(layer).save(path)
    assert load(path).notes == {}


@pytest.mark.parametrize("notes", [["unit"], {"preprocessing": 3}, "unit", None])
def test_bad_notes_are_refused(tmp_path, notes):
    path = tmp_path / "net.safetensors"
    layer = PackedDense(np.ones((3, 5)))
    Packed(layer).save(path)
    rewrite(path, notes=notes)
    with pytest.raises(ValueError, match=r"^\[load\] .* notes must be strings by name"):
        load(path)
    if notes:
        model = Packed(layer)
        model.notes = notes
        with pytest.raises(ValueError, match=r"^\[save\] notes must be strings by name"):
            model.save(path)


def test_long_descriptions_are_neither_written_nor_parsed(path, monkeypatch):
    """Parsed JSON takes many times its size."""
    net = Packed([PackedDense(np.ones((2, 64), np.int8))])
    net.notes = {"note": "x" * files.MAX_DESCRIPTION}
    with pytest.raises(ValueError, match="metadata must have at most 16777216 bytes"):
        save(net, path)
    assert not path.exists()
    text = "[" + "[]," * (files.MAX_DESCRIPTION // 3) + "[]]"
    safetensors.numpy.save_file({"x": np.zeros(1, np.float32)}, path, {"bitops": text})
    loads = files.json.loads  # of the header, too, in which the description is a string

    def watch(text, **options):
        return pytest.fail("parsed") if text.startswith("[") else loads(text, **options)

    monkeypatch.setattr(files.json, "loads", watch)
    with pytest.raises(ValueError, match="metadata must have at most 16777216 bytes"):
        load(path)
