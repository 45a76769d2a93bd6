import math

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from bitops.layers import (
    BatchNorm,
    BinaryDense,
    Dense,
    Dropout,
    Quantize,
    ReLU,
    Residual,
    Sequential,
    Sign,
)
from bitops.layers.base import named_layers
from bitops.ops.array import pack
from bitops.quantizers import ClippedGradient, DoReFaActivation, StochasticSign
from bitops.training.metrics import (
    check_parameters,
    flip_ratios,
    histograms,
    saturation,
    watched,
)
from trainings import Noise


def nested():
    block = Sequential(BinaryDense(8, 8, seed=1), BatchNorm(8))
    other = BinaryDense(8, 8, seed=2)
    return Sequential(
        Sequential(BinaryDense(6, 8, seed=0), Sign()),
        Residual(block, other),
        Sign(2.0),
        Dense(8, 3, seed=3),
    )


def test_names_of_nested_layers():
    names = [f"{place} {layer.name}" for place, layer in named_layers(nested().flat_layers())]
    assert names == [
        "0 BinaryDense",
        "1 Sign",
        "2 Residual",
        "2.body.0 BinaryDense",
        "2.body.1 BatchNorm",
        "2.shortcut.0 BinaryDense",
        "3 Sign",
        "4 Dense",
    ]


def test_flip_ratios():
    model = nested()
    layers = dict(named_layers(model.flat_layers()))
    places = ("0", "2.body.0", "2.shortcut.0")
    before = [layers[place].weight.signs() for place in places]
    assert set(flip_ratios(model, before).values()) == {0.0}
    for place, count in zip(places, (3, 64, 1), strict=True):
        weight = layers[place].weight.writable().reshape(-1)
        weight[:count] *= -1
    assert flip_ratios(model, before) == {
        "0.BinaryDense": 3 / 48,
        "2.body.0.BinaryDense": 1.0,
        "2.shortcut.0.BinaryDense": 1 / 64,
    }


def test_flip_ratios_count_no_padding():
    """70 inputs fill a word and a part of another."""
    model = Sequential(BinaryDense(70, 3, seed=0))
    weight = model.layers[0].weight
    before = [weight.signs()]
    weight.assign(-weight.value)
    assert flip_ratios(model, before) == {"0.BinaryDense": 1.0}
    with pytest.raises(ValueError):
        flip_ratios(model, [])


def test_saturation():
    model = Sequential(Sign(0.5), Sign(1.5))
    x = np.array([[0.5, -0.5, 0.6, -3.0]])
    assert saturation(model, x) == {"0.Sign": 0.5, "1.Sign": 0.0}
    assert saturation(Sequential(ReLU()), x) == {}
    clipped = Sign(quantizer=ClippedGradient(StochasticSign(0.55, seed=0), 1.0))
    assert saturation(Sequential(clipped, Sign(math.inf)), x) == {"0.Sign": 0.5, "1.Sign": 0.0}
    codes = Sequential(Quantize(DoReFaActivation(2, 0.25)), Sign(0.2))
    assert saturation(codes, x) == {"0.Quantize": 1.0, "1.Sign": 0.5}
    assert saturation(Sequential(Sign(0.5)), pack(x)) == {"0.Sign": 1.0}


def test_saturation_changes_nothing():
    model = Sequential(Dropout(0.5, seed=0), Noise(), BatchNorm(4), Sign())
    states = [str(generator.bit_generator.state) for generator in model.generators()]
    before = model.state()
    saturation(model, np.ones((3, 4)))
    assert [str(generator.bit_generator.state) for generator in model.generators()] == states
    for a, b in zip(before, model.state(), strict=True):
        for left, right in zip(a, b, strict=True):
            assert_array_equal(left, right)
    assert all("forward" not in vars(layer) for layer in model.layers)


def test_histograms():
    model = Sequential(BinaryDense(4, 2, seed=0), BatchNorm(2))
    weight = model.layers[0].weight
    weight.assign([[-1, -0.9, -0.1, 0], [0.1, 0.4, 0.6, 1]])
    (histogram,) = histograms(model, 4).values()
    assert histogram == {-0.75: 2 / 8, -0.25: 1 / 8, 0.25: 3 / 8, 0.75: 2 / 8}
    weight.assign([[-7, -0.9, -0.1, 0], [0.1, 0.4, 0.6, 9]])  # beyond the limits, as Bop may go
    assert histograms(model, 4) == {"0.BinaryDense": histogram}
    (twenty,) = histograms(model).values()
    assert list(twenty) == pytest.approx(list(np.arange(-0.95, 1, 0.1)))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_check_parameters(value):
    model = nested()
    check_parameters(model, 3)
    block = model.flat_layers()[2].body.layers
    block[1].gamma.writable()[2] = value
    with pytest.raises(FloatingPointError, match=r"in the parameters of layer 2\.body\.1, BatchN"):
        check_parameters(model, 3)
    block[0].weight.grad[0, 0] = value
    with pytest.raises(FloatingPointError, match=r"gradient of layer 2\.body\.0, .* after step 3$"):
        check_parameters(model, 3)


def test_watched_sees_every_call_and_leaves():
    model = nested()
    seen = []
    x = np.ones((2, 6), np.float32)
    with watched(model, "forward", lambda place, layer, x, y: seen.append((place, y.shape))):
        y = model.forward(x)
    assert [place for place, _ in seen] == [
        *("0", "1", "2.body.0", "2.body.1", "2.shortcut.0", "2", "3", "4")
    ]
    assert seen[-1] == ("4", y.shape)
    model.forward(x)
    assert len(seen) == 8


def test_watched_leaves_after_an_error():
    model = nested()
    with pytest.raises(ZeroDivisionError):
        with watched(model, "forward", lambda *arguments: 1 / 0):
            model.forward(np.ones((2, 6), np.float32))
    model.forward(np.ones((2, 6), np.float32))
