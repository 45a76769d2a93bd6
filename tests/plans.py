"""Packed models beside what their layers give without plans."""

import numpy as np

import bitops as bo
from bitops.layers import BatchNorm, PackedConcat, PackedMultiply, PackedResidual
from bitops.layers.base import all_layers
from bitops.layers.inputs import as_activation


def layer_by_layer(layers, x):
    """What a chain gives without plans, those of branches included."""
    for layer in layers:
        if isinstance(layer, PackedResidual | PackedConcat | PackedMultiply):
            x = as_activation("test", x)
            shortcut = [] if layer.shortcut is None else layer.shortcut.layers
            main, other = layer_by_layer(layer.body.layers, x), layer_by_layer(shortcut, x)
            x = layer.join.values(layer.name, main, other)
        else:
            x = layer.forward(x)
    return x


def assert_same(got, expected):
    assert type(got) is type(expected) and got.shape == expected.shape
    if isinstance(expected, bo.BitArray):
        got, expected = got.words, expected.words
    assert got.dtype == expected.dtype
    assert got.tobytes() == expected.tobytes()


def assert_plan(model, x, ends=None):
    """The model gives what its layers give; `ends` are the indices after its plans."""
    with np.errstate(all="ignore"):  # NumPy warns of infinities
        assert_same(model(x), layer_by_layer(model.layers, x))
    if ends is not None:
        assert planned(model) == ends


def planned(model):
    return sorted({run.end for run in model._plans._kept.runs.values() if run is not None})


def trained(model, rng):
    """A model with statistics that make both bits occur."""
    for layer in all_layers(model.flat_layers()):
        if isinstance(layer, BatchNorm):
            n = layer.gamma.size
            layer.gamma.assign(rng.choice([-1.0, 0.0, 0.5, 2.0], size=n))
            layer.beta.assign(rng.normal(size=n))
            layer.running_mean[...] = rng.normal(size=n) * 5
            layer.running_inv_std[...] = rng.uniform(0.1, 1, size=n)
    return model


BYTES, REAL = (
    lambda rng, *shape: rng.integers(256, size=shape, dtype=np.uint8),
    lambda rng, *shape: rng.normal(size=shape).astype(np.float32),
)
