"""Files of models in training: what comes back, and what is refused."""

import copy
import json
from contextlib import suppress
from dataclasses import dataclass

import numpy as np
import pytest
from numpy.testing import assert_array_equal

import forgery
from bitops import layers as L
from bitops import quantizers as q
from bitops.io import ArraySpec, register
from bitops.layers.registry import trained_named
from bitops.training import Adam
from pickled import IMAGES, LAYERS, ROWS, network, same, use

TRAINED = {name: case for name, case in LAYERS.items() if isinstance(case[0](), L.TrainingLayer)}


@pytest.fixture
def path(tmp_path):
    return tmp_path / "model.safetensors"


def through(path, *layers, **options):
    model = L.Sequential(*layers, **options)
    model.save(path)
    return model, L.Sequential.load(path)


@pytest.mark.parametrize("name", TRAINED)
def test_every_layer_comes_back(path, name):
    make, x = TRAINED[name]
    layer = make()
    use(layer, x)  # a step, so that statistics and generators have moved
    model, again = through(path, layer)
    assert repr(again) == repr(model)
    assert type(again.layers[0]) is type(layer)
    first = path.read_bytes()
    again.save(path)
    assert path.read_bytes() == first
    assert same(use(again, x), use(model, x))


def test_every_training_layer_of_the_package_is_registered():
    shown = [getattr(L, name) for name in L.__all__]
    trained = [k for k in shown if isinstance(k, type) and issubclass(k, L.TrainingLayer)]
    assert [k for k in trained if trained_named(k.__name__) is not k] == [L.TrainingLayer]
    assert {type(case[0]()) for case in TRAINED.values()} >= set(trained) - {L.TrainingLayer}


@pytest.mark.parametrize("activations", [False, True])
def test_training_goes_on_as_it_would_have(path, activations):
    y = np.arange(6) % 5
    model, _ = through(path, *network().layers, input_shape=(9, 8, 6))
    model.fit(IMAGES, y, epochs=2, batch_size=6, verbose=0)
    model.round_gradients(0, 6, activations=activations)
    model.layers[0].weight.lr_scale, model.layers[0].weight.clip_value = 3.5, None
    model.save(path)
    again = L.Sequential.load(path)
    assert again.input_shape == (9, 8, 6)
    for each in (model, again):
        each.fit(IMAGES, y, epochs=2, batch_size=6, verbose=0, optimizer=Adam(each.parameters()))
    assert again.layers[0].weight.lr_scale == 3.5
    assert again.layers[0].rounding.bits == 6
    assert again.layers[0].rounds_activations == activations
    assert_array_equal(again(IMAGES), model(IMAGES))
    assert_array_equal(again.freeze()(IMAGES), model.freeze()(IMAGES))


QUANTIZERS = (
    q.SteSign(float("inf")),
    q.ClippedGradient(q.AnnealedSign(progress=0.25), 0.5),
    q.ProgressiveSign(2, 50, 0.75),
    q.SwishSign(2.5),
    q.ApproxSign(2.0),
)


@pytest.mark.parametrize("quantizer", QUANTIZERS, ids=repr)
def test_quantizers_come_back(path, quantizer):
    _, again = through(path, L.Sign(quantizer=quantizer))
    assert again.layers[0].quantizer == quantizer


WEIGHTS = q.LeastSquaresTernary(0.3), q.ShareTernary(0.5), q.DoReFaWeight(3), q.Ternary(0.1)


@pytest.mark.parametrize("quantizer", WEIGHTS, ids=repr)
def test_quantizers_of_weights_come_back(path, quantizer):
    _, again = through(path, L.QuantizedDense(5, 3, quantizer, clip_value=2.0, start="uniform"))
    assert again.layers[0].quantizer == quantizer
    assert again.layers[0].weight.clip_value == 2


def test_frozen_layers_stay_frozen(path):
    model = L.Sequential(L.BinaryDense(70, 8), L.BatchNorm(8), L.Sign(), L.Dense(8, 3))
    model.layers[0].trainable = model.layers[1].trainable = False
    model.layers[3].bias.trainable = False
    model.save(path)
    again = L.Sequential.load(path)
    assert [p.trainable for p in again.parameters()] == [False] * 3 + [True, False]
    assert [layer.trainable for layer in again.layers] == [False, False, True, True]


@register
@dataclass
class OwnSign:
    """A quantizer of the user's."""

    slope: float = 1.0

    def forward(self, x):
        return np.where(x >= 0, np.float32(1), np.float32(-1))

    def backward(self, x, grad):
        return grad * np.float32(self.slope)


@register
class Gain(L.TrainingLayer):
    """A layer of the user's, with an array, a setting, a parameter and a statistic."""

    ARRAYS = (ArraySpec("offset", "float32", 1),)

    def __init__(self, offset, power=1, seed=None):
        self.offset, self.power = np.array(offset, np.float32), int(power)
        self.gain = L.Parameter(np.ones(self.offset.size))
        self.seen = 0

    def config(self):
        return {"power": self.power}

    def forward(self, x, *, training=False):
        self.seen += training
        return L.as_float(x) * self.gain.value**self.power + self.offset

    def backward(self, grad):
        self.gain.grad[...] = L.column_sums(grad)
        return grad

    def parameters(self):
        return [self.gain]

    def state(self):
        return [*super().state(), np.array(self.seen)]

    def restore(self, state):
        super().restore(state[:1])
        self.seen = int(state[1])


@register
class Block(L.Sequential):
    """A chain of the user's, with a constructor of its own."""

    def __init__(self, features, *, depth):
        super().__init__([Gain(np.ones(features)) for _ in range(depth)])


class Net(L.Sequential):
    """A model of the user's: not registered, as it is no layer of another."""

    def __init__(self):
        super().__init__(Block(70, depth=2), L.Sign(quantizer=OwnSign(0.5)))


def test_own_classes_come_back(path):
    model = Net()
    use(model, ROWS)
    model.save(path)
    again = Net.load(path)
    assert (type(again), type(again.layers[0])) == (Net, Block)
    assert again.layers[0].layers[1].seen == 1
    assert again.layers[1].quantizer == OwnSign(0.5)
    assert same(use(again, ROWS), use(model, ROWS))


class Unknown(L.ReLU):
    pass


class Derived(L.Sequential):
    def forward(self, x, *, training=False):
        return 2 * super().forward(x, training=training)


SHARED = L.BinaryDense(4, 4)
GENERATOR = np.random.default_rng(0)
NO_FILE = {
    "unknown": (L.Sequential(Unknown()), TypeError, r"must be of a class registered"),
    "inside": (L.Sequential(L.Residual(Unknown())), TypeError, r"must be of a class registered"),
    "own forward": (Derived(L.ReLU()), TypeError, r"must have the forward of Sequential"),
    "in a chain": (L.Sequential(Derived(L.ReLU())), TypeError, r"must be of a class registered"),
    "quantizer": (
        L.Sequential(L.Sign(quantizer=type("Own", (OwnSign,), {})())),
        TypeError,
        r"settings must be numbers, texts, or quantizers of a class registered",
    ),
    "shared layer": (L.Sequential(SHARED, L.Sign(), SHARED), ValueError, r"in the model once"),
    "shared generator": (
        L.Sequential(L.Dropout(0.5, GENERATOR), L.Dropout(0.5, GENERATOR)),
        ValueError,
        r"must have its own generator",
    ),
    "generator": (
        L.Sequential(L.Dropout(0.5, np.random.Generator(np.random.MT19937(0)))),
        ValueError,
        r"generators must be of PCG64",
    ),
}


@pytest.mark.parametrize("name", NO_FILE)
def test_what_cannot_be_saved(path, name):
    model, error, message = NO_FILE[name]
    with pytest.raises(error, match=rf"^\[save\] .*{message}"):
        model.save(path)
    assert not path.exists()


def test_weights_that_are_not_finite_are_not_saved(path):
    model = L.Sequential(L.Dense(3, 2))
    model.layers[0].weight.writable()[0, 0] = np.nan
    with pytest.raises(ValueError, match=r"^\[save\] .*state.0 must be finite"):
        model.save(path)


def forge(path, change):
    """Change the description of a file."""
    description, tensors = forgery.read(path)
    change(description)
    forgery.write(path, description, tensors)


FORGERIES = {
    "packed": lambda d: d["graph"][0].update(type="PackedDense"),
    "unknown": lambda d: d["graph"][0].update(type="Pickle"),
    "a quantizer": lambda d: d["graph"][0].update(type="SteSign"),
    "huge": lambda d: d["graph"][0]["settings"].update(in_features=2**23, out_features=2**23),
    "other sizes": lambda d: d["graph"][0]["settings"].update(out_features=4),
    "no setting": lambda d: d["graph"][0]["settings"].clear(),
    "more": lambda d: d["graph"][0]["settings"].update(w=3),
    "a layer as quantizer": lambda d: d["graph"][2]["settings"].update(
        quantizer={"quantizer": "ReLU", "settings": {}}
    ),
    "no quantizer": lambda d: d["graph"][2]["settings"].update(
        quantizer={"quantizer": "os.system", "settings": {}}
    ),
    "parameters": lambda d: d["graph"][0]["parameters"].clear(),
    "rate": lambda d: d["graph"][0]["parameters"][0].update(lr_scale=-1),
    "clip": lambda d: d["graph"][0]["parameters"][0].update(clip_value=0),
    "flag": lambda d: d["graph"][0]["parameters"][0].update(trainable=1),
    "rounding": lambda d: d["graph"][1].update(rounding=True),
    "roundings": lambda d: d["graph"][0].update(rounding=[8, 7]),
    "order": lambda d: d["graph"].reverse(),
    "no layers": lambda d: d["graph"].clear(),
    "shape": lambda d: d.update(input_shape=[5]),
    "generators": lambda d: d["generators"].append(d["generators"][0]),
    "version": lambda d: d.update(version=2),
    "keys": lambda d: d.update(more=1),
    "a packed file": lambda d: d.update(format="bitops.packed"),
}


@pytest.mark.parametrize("name", FORGERIES)
def test_forged_descriptions_are_refused(path, name):
    L.Sequential(
        L.BinaryDense(4, 3), L.BatchNorm(3), L.Sign(), L.Dropout(0.5), input_shape=(4,)
    ).save(path)
    forge(path, FORGERIES[name])
    with pytest.raises(ValueError, match=r"^\[load\] .* must be a training file"):
        L.Sequential.load(path)


@pytest.mark.parametrize(
    ("name", "array"),
    [
        ("state.0", np.zeros((3, 5), np.float32)),
        ("state.0", np.zeros((3, 4), np.float64)),
        ("state.0", np.full((3, 4), np.nan, np.float32)),
        ("state.5", np.array(-1)),
        ("state.6", np.zeros(3, np.float32)),
        ("0.w", np.zeros(3, np.float32)),
    ],
)
def test_forged_tensors_are_refused(path, name, array):
    L.Sequential(L.BinaryDense(4, 3), L.BatchNorm(3)).save(path)
    forgery.rewrite(path, tensors={name: array})
    with pytest.raises(ValueError, match=r"^\[load\] .* must be a training file"):
        L.Sequential.load(path)


def test_the_two_kinds_of_files_are_told_apart(path):
    model = L.Sequential(L.BinaryDense(4, 3))
    model.save(path)
    with pytest.raises(ValueError, match=r"format must be bitops.packed"):
        L.Packed.load(path)
    model.freeze().save(path)
    with pytest.raises(ValueError, match=r"format must be bitops.sequential"):
        L.Sequential.load(path)


def test_nesting_is_limited(path):
    layer = L.ReLU()
    for _ in range(20):
        layer = L.Residual(layer)
    with pytest.raises(ValueError, match=r"^\[save\] .*nested at most 16 deep"):
        L.Sequential(layer).save(path)


def test_the_description_is_strict_json(path):
    L.Sequential(L.Sign(float("inf")), L.Clip(0, float("inf"))).save(path)
    _, again = L.Sequential.load(path), L.Sequential.load(path)
    assert again.layers[1].high == again.layers[0].quantizer.clip_value == float("inf")
    start = path.read_bytes()
    header = json.loads(start[8 : 8 + int.from_bytes(start[:8], "little")])
    assert "Infinity" not in header["__metadata__"]["bitops"]


def parts_of(description, place=()):
    yield place
    inside = description.items() if isinstance(description, dict) else enumerate(description)
    for key, value in inside:
        if isinstance(value, dict | list):
            yield from parts_of(value, (*place, key))
        else:
            yield (*place, key)


JUNK = (None, True, -1, 2**40, 1.5, "Sequential", "SteSign", [], [[1]], {}, {"number": "nan"})


def test_any_change_of_the_description_gives_a_model_or_a_value_error(path):
    network().save(path)
    description, tensors = forgery.read(path)
    places = [place for place in parts_of(description) if place]
    rng = np.random.default_rng(0)
    for _ in range(60):
        changed = copy.deepcopy(description)
        *way, last = places[rng.integers(len(places))]
        part = changed
        for key in way:
            part = part[key]
        part[last] = JUNK[rng.integers(len(JUNK))]
        forgery.write(path, changed, tensors)
        with suppress(ValueError):
            L.Sequential.load(path)
