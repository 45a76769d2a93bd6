"""Packed layers of a user's own in model files."""

import subprocess
import sys

import numpy as np
import pytest

from bitops.io import ArraySpec, load, register, save
from bitops.layers import (
    Layer,
    Packed,
    PackedDense,
    PackedReLU,
    PackedResidual,
    ReLU,
    TrainingLayer,
    as_float,
)
from bitops.layers.registry import kind_named, registered
from bitops.ops.array import BitArray, pack, unpack
from bitops.quantizers import SteSign
from forgery import graph_of, rewrite


@register
class PackedScale(Layer):
    """Every kind of array, and settings."""

    ARRAYS = (
        ArraySpec("scale", "float32", 1),
        ArraySpec("mask", "bits", 2, argument="w"),
        ArraySpec("negative", "bool", 1),
        ArraySpec("shift", ("int32", "float32"), 1),
        ArraySpec("table", "uint8", 3),
    )

    def __init__(self, scale, w=None, negative=None, *, shift=None, table=None, power=1, label="x"):
        if type(power) is not int or not isinstance(label, str):
            raise TypeError(f"[PackedScale] power must be an int and label a str, got {power!r}")
        self.scale = scale
        self.mask, self.negative, self.shift, self.table = w, negative, shift, table
        self.power, self.label = power, label

    def config(self):
        return {"power": self.power, "label": self.label}

    def forward(self, x):
        y = as_float(x) * self.scale**self.power
        if self.mask is not None:
            y = y * unpack(self.mask, dtype=np.float32)[0]
        if self.negative is not None:
            y = np.where(self.negative, -y, y)
        return y if self.shift is None else y + self.shift

    def __repr__(self):
        return f"PackedScale(power={self.power})"


SCALE = np.array([1, 0.5, -3], np.float32)


def full(power=2):
    return PackedScale(
        SCALE,
        pack([[1, -1, 1]]),
        np.array([True, False, True]),
        shift=np.array([1, -2, 3], np.int32),
        table=np.arange(8, dtype=np.uint8).reshape(2, 2, 2),
        power=power,
        label="any",
    )


@pytest.fixture
def path(tmp_path):
    return tmp_path / "model.safetensors"


@pytest.mark.parametrize("make", [full, lambda: PackedScale(SCALE)])
def test_own_layers_come_back(path, make):
    layer = make()
    dense = PackedDense(np.ones((3, 4)))
    model = Packed(dense, layer, PackedResidual([layer, PackedReLU()]), input_shape=(4,))
    save(model, path)
    first = path.read_bytes()
    for again in (load(path), Packed.load(path)):
        x = np.random.default_rng(0).normal(size=(5, 4)).astype(np.float32)
        np.testing.assert_array_equal(again(x), model(x))
        own = again.layers[1]
        assert type(own) is PackedScale and own.config() == layer.config()
        for spec in PackedScale.ARRAYS:
            old, new = getattr(layer, spec.name), getattr(own, spec.name)
            assert type(old) is type(new)
            np.testing.assert_array_equal(np.asarray(new), np.asarray(old), strict=True)
        again.save(path)
        assert path.read_bytes() == first


def test_a_program_that_does_not_register_the_class_is_told(path):
    Packed(full()).save(path)
    code = (
        "import sys; from bitops.io import load\n"
        "try: load(sys.argv[1])\n"
        "except ValueError as error: print(error)"
    )
    argv = [sys.executable, "-c", code, str(path)]
    said = subprocess.run(argv, capture_output=True, text=True, check=True).stdout
    assert said.startswith(f"[load] {path} must be a packed bitops model: layer 0 of graph must be")
    assert "a registered type (see bitops.io.register), got 'PackedScale'" in said


def test_only_the_registered_class_itself_is_saved(path):
    class Derived(PackedScale):
        pass

    Disguised = type("PackedScale", (PackedScale,), {})
    other = type("PackedDense", (Layer,), {"forward": lambda self, x: x})
    for layer in (Derived(SCALE), Disguised(SCALE), other()):
        with pytest.raises(TypeError, match=r"\[save\] layers must be packed ones of a"):
            Packed(layer).save(path)
    assert not path.exists()


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("scale", SCALE.astype(np.float64), "scale of PackedScale must be float32 of 1 axes"),
        ("scale", SCALE.reshape(3, 1), "scale of PackedScale must be float32 of 1 axes"),
        ("scale", pack(SCALE), "scale of PackedScale must be float32"),
        ("mask", np.ones((1, 3), np.uint64), "mask of PackedScale must be bits of 2 axes"),
        ("mask", pack(np.ones((1, 3)), axis=0), "mask of PackedScale must be bits of 2 axes"),
        ("shift", np.zeros(3, np.int64), "shift of PackedScale must be int32 or float32"),
        ("negative", np.zeros(3), "negative of PackedScale must be bool"),
    ],
)
def test_arrays_that_are_not_as_described_are_not_saved(path, name, value, message):
    layer = full()
    setattr(layer, name, value)
    with pytest.raises(TypeError, match=rf"^\[save\] {message}"):
        Packed(layer).save(path)
    assert not path.exists()


def test_settings_that_do_not_fit_the_constructor_are_not_saved(path, monkeypatch):
    monkeypatch.setattr(PackedScale, "config", lambda self: {"power": 1})
    with pytest.raises(TypeError, match=r"^\[save\] config must return power, label, the"):
        Packed(full()).save(path)
    monkeypatch.setattr(PackedScale, "config", lambda self: {"power": 1, "label": np.int64(3)})
    with pytest.raises(ValueError, match=r"^\[save\] .*int64 is not JSON serializable"):
        Packed(full()).save(path)
    layer = full()
    layer.scale = None  # which the constructor needs
    monkeypatch.undo()
    with pytest.raises(ValueError, match=r"^\[save\] fields of layer 0 .* be from scale"):
        Packed(layer).save(path)
    assert not path.exists()


@pytest.mark.parametrize(
    "forge",
    [
        lambda spec: spec["settings"].pop("power"),
        lambda spec: spec["settings"].update(more=1),
        lambda spec: spec["settings"].update(power=1.5),
        lambda spec: spec["settings"].update(label=None),
        lambda spec: spec["fields"].pop("scale"),
        lambda spec: spec["fields"].pop("table"),
        lambda spec: spec["fields"].update(w=[1, 3]),
        lambda spec: spec["fields"].update(scale=[4]),
        lambda spec: spec["fields"].update(scale=[3, 1]),
        lambda spec: spec["fields"].update(mask=[3, 1]),
        lambda spec: spec.update(body=[]),
        lambda spec: spec.update(type="ReLU"),
        lambda spec: spec.update(type="builtins.eval"),
    ],
)
def test_forged_files_of_own_layers_are_refused(path, forge):
    Packed(full()).save(path)
    graph = graph_of(path)
    rewrite(path, graph=graph)
    load(path)
    forge(graph[0])
    rewrite(path, graph=graph)
    with pytest.raises(ValueError, match=r"^\[load\] .*model\.safetensors must be a packed"):
        load(path)


@pytest.mark.parametrize(
    ("name", "array"),
    [
        ("0.scale", SCALE.astype(np.float64)),
        ("0.table", np.zeros((2, 2, 2), np.int8)),
        ("0.table", np.zeros((2, 4), np.uint8)),
        ("0.mask", np.array([[8]], np.uint64)),  # a padding bit
        ("0.negative", np.array([8], np.uint64)),
        ("0.negative", np.zeros(3, np.bool_)),
    ],
)
def test_forged_arrays_of_own_layers_are_refused(path, name, array):
    Packed(full()).save(path)
    rewrite(path, tensors={name: array})
    with pytest.raises(ValueError, match=r"^\[load\]"):
        load(path)


def made(name="Made", base=Layer, **members):
    """A class with a forward."""
    place = {"__qualname__": f"made.<locals>.{name}"}
    return type(name, (base,), {**place, "forward": lambda self, x: x, **members})


@pytest.mark.parametrize(
    ("cls", "error", "message"),
    [
        (3, TypeError, "cls must be a class of layers, got 3"),
        (PackedReLU(), TypeError, "cls must be a class of layers"),
        (BitArray, TypeError, "cls must be a class of layers, or a dataclass with the forward"),
        (type("Made", (TrainingLayer,), {}), TypeError, "the class must define forward"),
        (made("ReLU", ReLU), ValueError, "the name of a class must be free, got ReLU"),
        (made("SteSign", SteSign), ValueError, "the name of a class must be free, got SteSign"),
        (
            made(base=TrainingLayer, __init__=lambda self, a, b=1, *, c, seed: None),
            TypeError,
            "must define config to return a, c, got",
        ),
        (type("Made", (Layer,), {}), TypeError, "the class must define forward"),
        (made(__init__=lambda self, a: None), TypeError, "must define config to return a, got"),
        (made(__init__=lambda self, **a: None), TypeError, "must name all its parameters"),
        (made(__init__=lambda self, *a: None), TypeError, "must name all its parameters"),
        (made(ARRAYS=(ArraySpec("w", "bits", 1),)), TypeError, "the constructor must take w, got"),
        (
            made(__init__=lambda self, w: None, ARRAYS=(ArraySpec("w", "bits", 1, "v"),)),
            TypeError,
            "the constructor must take v, got",
        ),
        (
            made(__init__=lambda self, a, b: None, config=lambda self: {}, CHAINS=("a",)),
            TypeError,
            "a class with CHAINS must have no other arguments",
        ),
        (
            made("PackedDense"),
            ValueError,
            "got PackedDense, the name of bitops.layers.dense",
        ),
        (made("PackedScale"), ValueError, "the name of a class must be free, got PackedScale"),
    ],
)
def test_classes_that_cannot_be_registered(cls, error, message):
    before = registered()
    with pytest.raises(error, match=rf"^\[register\] .*{message}"):
        register(cls)
    assert registered() == before


def test_a_class_defined_once_more_takes_its_own_place():
    def define():
        @register
        class PackedAgain(Layer):
            def forward(self, x):
                return x

        return PackedAgain

    first, second = define(), define()
    assert first is not second
    assert kind_named("PackedAgain").layer is second


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("x", "float64", 1), "dtype must be from"),
        (("x", (), 1), "dtype must be from"),
        (("x", ("bits", "float32"), 1), "bits and bool must stand alone"),
        (("x", "bits", 0), "ndim must be at least 1"),
        (("x", "bits", True), "ndim must be at least 1"),
    ],
)
def test_bad_descriptions_of_arrays(arguments, message):
    with pytest.raises(ValueError, match=rf"^\[ArraySpec\] {message}"):
        ArraySpec(*arguments)


def test_every_packed_layer_of_the_package_is_registered():
    from bitops import layers

    shown = [getattr(layers, name) for name in layers.__all__]
    packed = {
        kind
        for kind in shown
        if isinstance(kind, type)
        and issubclass(kind, Layer)
        and not issubclass(kind, layers.TrainingLayer)
    }
    assert packed - set(registered()) == {Layer, Packed}
