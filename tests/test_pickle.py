"""Pickles of everything: the same bits after them, and no caches in them."""

import inspect
import pickle

import numpy as np
import pytest
from numpy.testing import assert_array_equal

import bitops as bo
from bitops import layers as L
from bitops import quantizers as q
from old_files.make_models import MODELS
from pickled import IMAGES, LAYERS, ROWS, VALUES, WAYS, network, real, same, signs, use


@pytest.fixture(params=WAYS)
def way(request):
    return WAYS[request.param]


def test_every_class_of_layers_has_an_example():
    kinds = {
        name
        for name, kind in vars(L).items()
        if inspect.isclass(kind) and issubclass(kind, L.Layer)
    } - {"Layer", "TrainingLayer"}
    assert kinds == {name.partition(",")[0] for name in LAYERS}


@pytest.mark.parametrize("name", LAYERS)
def test_layers(way, name):
    """Also in the middle of a training: the draws and steps that follow are the same."""
    make, x = LAYERS[name]
    layer = make()
    for _ in range(2):  # the second time with caches
        back = way(layer)
        assert type(back) is type(layer) and repr(back) == repr(layer)
        assert same(use(back, x), use(layer, x))


@pytest.mark.parametrize("name", LAYERS)
def test_restored_layers_want_a_forward_pass_before_they_go_backward(name):
    make, x = LAYERS[name]
    layer = make()
    grad = real(*use(layer, x)[0].shape)
    back = pickle.loads(pickle.dumps(layer))
    if name == "QuantizeGradient":  # needs nothing
        assert same(back.backward(grad), layer.backward(grad))
    elif isinstance(layer, L.TrainingLayer):
        with pytest.raises(RuntimeError, match=r"backward needs forward\(x, training=True\)"):
            back.backward(grad)


@pytest.mark.parametrize("name", VALUES)
def test_values(way, name):
    make, what = VALUES[name]
    value = make()
    for _ in range(2):
        back = way(value)
        assert type(back) is type(value)
        assert same(what(back), what(value))


def quantizers():
    """One of every class of `bitops.quantizers`."""
    given = {"ClippedGradient": (q.StochasticSign(seed=0), 0.5), "ShareTernary": (0.25,)}
    given |= dict.fromkeys(("DoReFaWeight", "DoReFaActivation", "DoReFaGradient"), (2,))
    kinds = {name: getattr(q, name) for name in q.__all__}
    return {
        name: lambda kind=kind, name=name: kind(*given.get(name, ()))
        for name, kind in kinds.items()
        if inspect.isclass(kind) and not getattr(kind, "_is_protocol", False)
    }


def quantized(quantizer):
    if hasattr(quantizer, "round"):
        return quantizer.round(ROWS)
    return [quantizer.forward(ROWS), quantizer.backward(ROWS, ROWS)]


@pytest.mark.parametrize("name", quantizers())
def test_quantizers(way, name):
    quantizer = quantizers()[name]()
    for _ in range(2):  # the draws go on
        back = way(quantizer)
        assert repr(back) == repr(quantizer)
        assert same(quantized(back), quantized(quantizer))


@pytest.mark.parametrize("name", LAYERS)
def test_use_does_not_make_pickles_larger(name):
    """But for a few bytes, as counters grow."""
    make, x = LAYERS[name]
    layer = make()
    fresh = len(pickle.dumps(layer))
    use(layer, x)
    repr(layer)
    layer.cost(1)
    assert len(pickle.dumps(layer)) <= fresh + 16


def test_fit_does_not_make_pickles_larger():
    model = network()
    fresh = len(pickle.dumps(model))
    model.fit(IMAGES, np.arange(6) % 5, epochs=2, batch_size=2, verbose=0)
    model.summary()
    model.predict(IMAGES)
    model.freeze()
    assert len(pickle.dumps(model)) <= fresh + 100
    twin = pickle.loads(pickle.dumps(model))
    assert_array_equal(twin.outputs(IMAGES), model.outputs(IMAGES))
    assert_array_equal(twin.freeze().outputs(IMAGES), model.outputs(IMAGES))


def small_models():
    tiny = L.Packed(L.PackedDense(signs(2, 3)))
    return {
        "one layer": tiny,
        "one array": L.Packed(L.PackedDense(signs(1, 1), [0])),
        "float32": L.Packed(L.FloatDense(real(1, 1))),
        "flips": L.Packed(L.PackedSign(real(999), signs(999) > 0)),
        "minimum": L.Packed(L.PackedMaxPool2D(2, minimum=signs(4000) > 0)),
        "no arrays": L.Packed(L.PackedReLU()),
        "network": network().freeze(),
        **{name: make()[0] for name, make in MODELS.items()},
    }


@pytest.mark.parametrize("name", small_models())
def test_the_pickle_of_a_packed_model_is_as_small_as_its_file(tmp_path, name):
    model = small_models()[name]
    path = tmp_path / "model.safetensors"
    model.save(path)
    most = 1.1 * path.stat().st_size
    assert len(pickle.dumps(model, 4)) <= most
    assert len(pickle.dumps(model, 5)) <= most
    bo.io.load(path).save(tmp_path / "again")
    pickle.loads(pickle.dumps(model)).save(tmp_path / "pickled")
    assert (tmp_path / "pickled").read_bytes() == path.read_bytes()


@pytest.mark.parametrize("name", MODELS)
def test_packed_models_of_every_layer(way, name):
    model, inputs = MODELS[name]()
    for kind, x in inputs.items():
        x = bo.pack(x) if kind == "bits" else x
        assert same(way(model).forward(x), model.forward(x))


def test_prepacked_weights_are_pickled_as_bits():
    """Not as panels, which other ISAs lay out in another way and which are padded."""
    w = bo.prepack(signs(3, 64))
    for n in range(1, 4):
        bo.gemm(signs(n, 64), w)
    assert len(pickle.dumps(w)) < len(pickle.dumps(bo.pack(signs(3, 64)))) + 60
    pickles = set()
    for name in bo.isa.available():
        with bo.isa.use(name):
            pickles.add(pickle.dumps(bo.prepack(signs(70, 300))))
            pickles.add(pickle.dumps(bo.prepack(w.bits.copy())))
            pickles.add(pickle.dumps(small_models()["network"]))
    assert len(pickles) == 3


def test_panels_say_what_to_pickle_instead():
    with pytest.raises(TypeError, match=r"^\[_core\] panels .* cannot be pickled, but Prepacked"):
        pickle.dumps(bo.prepack(signs(3, 64)).panels())
