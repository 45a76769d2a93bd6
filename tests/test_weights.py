"""What dense and convolutional layers hold: weights, an operation, and few base classes."""

import copy
import inspect
import pkgutil
from dataclasses import replace
from importlib import import_module

import numpy as np
import pytest

from bitops import layers
from bitops import quantizers as q
from bitops.layers import (
    BinaryConv2D,
    BinaryDense,
    BinaryDepthwiseConv2D,
    Conv2D,
    Dense,
    FloatConv2D,
    FloatDense,
    Layer,
    PackedConv2D,
    PackedDense,
    PackedPlanesConv2D,
    PackedPlanesDense,
    QuantizedConv2D,
    QuantizedDense,
    Sequential,
)
from bitops.layers.operation import Convolution, Linear
from bitops.layers.weights import LatentWeights, PackedWeights
from bitops.ops.array import pack


def kinds_of_layers():
    """Every class of layers that a module of bitops.layers defines."""
    kinds = set()
    for module in pkgutil.iter_modules(layers.__path__):
        found = vars(import_module(f"bitops.layers.{module.name}")).values()
        kinds |= {kind for kind in found if inspect.isclass(kind) and issubclass(kind, Layer)}
    return sorted(kinds, key=lambda kind: kind.__name__)


def most_classes(kind):
    """How many classes a layer may have, itself included."""
    if issubclass(kind, Sequential):  # of four; layers of sequences are chains by another name
        return 7
    return 5 if kind is BinaryDepthwiseConv2D else 4  # it is a BinaryConv2D of many groups


def test_no_layer_has_more_than_four_classes():
    kinds = kinds_of_layers()
    public = {kind for kind in vars(layers).values() if inspect.isclass(kind)}
    assert {kind for kind in public if issubclass(kind, Layer)} <= set(kinds)
    classes = {kind: kind.__mro__[:-1] for kind in kinds}
    assert not {kind: own for kind, own in classes.items() if len(own) > most_classes(kind)}
    assert len(classes[Sequential]) == 4


def test_no_layer_calls_the_constructor_of_a_class_by_name():
    for module in pkgutil.iter_modules(layers.__path__):
        source = inspect.getsource(import_module(f"bitops.layers.{module.name}"))
        calls = [line for line in source.splitlines() if ".__init__(" in line]
        assert all("super().__init__(" in line for line in calls), module.name


DENSE, IMAGE = (7, 5), (6, 8, (3, 2))
TWINS = [
    (BinaryDense(*DENSE, seed=0), PackedDense, Linear),
    (QuantizedDense(*DENSE, q.TwnTernary(), seed=0), PackedPlanesDense, Linear),
    (BinaryDense(*DENSE, real_evaluation=True, seed=0), FloatDense, Linear),
    (Dense(*DENSE, seed=0), FloatDense, Linear),
    (BinaryConv2D(*IMAGE, stride=2, seed=0), PackedConv2D, Convolution),
    (BinaryConv2D(*IMAGE, groups=2, scale_input=True, seed=0), PackedConv2D, Convolution),
    (BinaryConv2D(*IMAGE, padding=1, real_evaluation=True, seed=0), FloatConv2D, Convolution),
    (QuantizedConv2D(*IMAGE, q.TwnTernary(), padding="same"), PackedPlanesConv2D, Convolution),
    (Conv2D(*IMAGE, dilation=(1, 2), seed=0), FloatConv2D, Convolution),
]


@pytest.mark.parametrize(("layer", "kind", "operation"), TWINS, ids=lambda _: None)
def test_a_layer_and_its_twin_have_the_same_operation(layer, kind, operation):
    twin = layer.to_packed()
    assert type(twin) is kind and type(layer.operation) is type(twin.operation) is operation
    assert replace(twin.operation, where=layer.name) == layer.operation
    assert (layer.operation.where, twin.operation.where) == (layer.name, twin.name)
    assert layer.weight.shape == layer.operation.weight_shape


def test_latent_weights_by_hand():
    linear = Linear.of("here", 4, 2)
    weights = LatentWeights.of_signs("here", linear, scale_weights=True, seed=0)
    w = np.float32([[1, -0.5, 0.25, -0.25], [0, -0.0, 1, -1]])
    weights.parameter.assign(w)
    alpha = np.float32([0.5, 0.5])
    np.testing.assert_array_equal(weights.values(), np.where(w >= 0, 0.5, -0.5))
    np.testing.assert_array_equal(weights.planes().alpha, alpha)
    assert weights.planes() is weights.planes(training=True)  # nothing has changed
    weights.parameter.grad[...] = 1
    weights.take_gradient()
    inside = np.abs(w) < 1
    np.testing.assert_array_equal(weights.parameter.grad, 0.25 + 0.5 * inside)
    assert weights.flags() == {
        "scale_weights": True, "stochastic": False, "real_evaluation": False, "center": False
    }  # fmt: skip
    weights.parameter.writable()[0] = 2
    np.testing.assert_array_equal(weights.planes().alpha, [2, 0.5])


def test_quantized_weights_by_hand():
    linear = Linear.of("here", 3, 1)
    options = {"clip_value": None, "lr_scale": 1.0, "start": "normal", "seed": 0}
    weights = LatentWeights.of_quantizer("here", linear, q.Ternary(0.5), **options)
    weights.parameter.assign([[0.75, -0.25, -2]])
    np.testing.assert_array_equal(weights.values(), [[1, 0, -1]])
    assert weights.planes().coefficients == (1, 1)
    weights.parameter.grad[...] = 3
    weights.take_gradient()
    expected = q.Ternary(0.5).backward([[0.75, -0.25, -2]], np.full((1, 3), 3, np.float32))
    np.testing.assert_array_equal(weights.parameter.grad, expected)


def test_centered_weights_come_back_as_they_were():
    """What is centered and clipped once more is no longer the same."""
    for layer in (BinaryDense(3, 1, center=True), BinaryConv2D(3, 1, 1, center=True)):
        layer.weight.assign(np.float32([9, 0, 0]).reshape(layer.weight.shape))
        (state,) = layer.state()
        np.testing.assert_array_equal(state.ravel(), [1, -1, -1])  # 6, -3 and -3, clipped
        layer.weight.assign(np.zeros(layer.weight.shape))
        layer.planes()
        layer.restore([state])
        layer.planes()
        np.testing.assert_array_equal(layer.weight.value, state)


def test_packed_weights_by_hand():
    w = np.array([[[1, 1, -1]], [[1, -1, -1]]])  # two planes of one filter
    weights = PackedWeights.of_planes("here", w, (1, 2), "out_features, in_features")
    assert weights.shape == (1, 3) and weights.settings == {"coefficients": [1, 2]}
    assert str(weights) == ", planes=2"
    np.testing.assert_array_equal(np.ravel(weights.sums), [1, -1])
    x = np.array([[1, 0, 1]])
    linear = Linear.of("here", 3, 1)
    bits = pack(2 * x - 1)
    z = weights.multiply(lambda plane: linear.multiply(bits, plane))
    np.testing.assert_array_equal(z, [[-1 + 2 * 1]])
    units = weights.multiply(lambda plane: linear.multiply(bits, plane), are_units=True)
    np.testing.assert_array_equal(units, [[0 + 2 * 0]])
    single = PackedWeights.of("here", w[0], "out_features, in_features")
    assert single.settings == {} and str(single) == "" and single.planes.is_single


def test_copies_of_layers_learn_on_their_own():
    layer = BinaryDense(8, 3, stochastic=True, bias=True, seed=0)
    twin = copy.deepcopy(layer)
    x, dy = np.eye(8, dtype=np.float32), np.ones((8, 3), np.float32)
    for made in (layer, twin):
        made.weight.assign(np.full((3, 8), 0.5))
    np.testing.assert_array_equal(
        layer.forward(x, training=True), twin.forward(x, training=True)
    )  # the same draws
    layer.backward(dy)
    assert layer.weight.grad.any() and not twin.weight.grad.any()
    twin.weight.assign(np.full((3, 8), -1))
    np.testing.assert_array_equal(layer(x), np.ones((8, 3)))
    np.testing.assert_array_equal(twin(x), -np.ones((8, 3)))


def test_real_evaluation_may_be_set_later():
    layer = QuantizedDense(4, 3, q.TwnTernary(), seed=0)
    layer.real_evaluation = True
    np.testing.assert_array_equal(layer.values(), layer.weight.value)
    with pytest.raises(TypeError, match=r"\[QuantizedDense\] real_evaluation must be True or"):
        layer.real_evaluation = "yes"
