"""Pickles and copies of everything: the same bits, nothing shared, no caches, no wrong states."""

import copy
import inspect
import pickle

import pytest

from bitops import layers as L
from pickled import LAYERS, VALUES, same, use

PROTOCOLS = range(2, pickle.HIGHEST_PROTOCOL + 1)


def through(protocol):
    return lambda thing: pickle.loads(pickle.dumps(thing, protocol))


def out_of_band(thing):
    """Through protocol 5 with its large buffers apart, and read-only, as in shared memory."""
    buffers = []
    data = pickle.dumps(thing, 5, buffer_callback=buffers.append)
    return pickle.loads(data, buffers=[bytes(buffer) for buffer in buffers])


WAYS = {f"protocol {n}": through(n) for n in PROTOCOLS}
WAYS |= {"out of band": out_of_band, "deepcopy": copy.deepcopy}


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


@pytest.mark.parametrize("name", VALUES)
def test_values(way, name):
    make, what = VALUES[name]
    value = make()
    for _ in range(2):
        back = way(value)
        assert type(back) is type(value)
        assert same(what(back), what(value))
