"""Copies: deep ones share nothing, shallow ones what is said."""

import copy
import inspect

import numpy as np
import pytest
from numpy.testing import assert_array_equal

import bitops as bo
from bitops import layers as L
from pickled import IMAGES, LAYERS, ROWS, WAYS, network, real, same, signs, use


@pytest.fixture(params=WAYS)
def way(request):
    return WAYS[request.param]


def arrays_of(thing):
    """All arrays that an object holds, by whatever path."""
    seen, left, found = set(), [thing], []
    while left:
        one = left.pop()
        if id(one) in seen:
            continue
        seen.add(id(one))
        if isinstance(one, np.ndarray):
            found.append(one)
        elif isinstance(one, bo.BitArray):
            found.append(one.words)
        elif isinstance(one, bo.Prepacked):
            found.append(one.bits.words)
        elif isinstance(one, dict):
            left += one.values()
        elif isinstance(one, list | tuple):
            left += one
        elif hasattr(one, "__dict__") and not inspect.isclass(one) and not inspect.isroutine(one):
            left += vars(one).values()
    return found


@pytest.mark.parametrize("name", LAYERS)
def test_deep_copies_share_no_memory(name):
    make, x = LAYERS[name]
    layer = make()
    use(layer, x)
    twin = copy.deepcopy(layer)
    mine, its = arrays_of(layer), arrays_of(twin)
    assert not any(np.shares_memory(a, b) for a in mine for b in its)
    before = use(copy.deepcopy(twin), x)
    use(layer, x)  # a step of the original
    assert same(use(twin, x), before)


def test_parameters_stay_shared_within_a_copy(way):
    dense = L.BinaryDense(70, 70, seed=0)
    norm = L.BatchNorm(70)
    model = L.Sequential(dense, norm, L.Sign(), dense, norm)
    optimizer = bo.training.Adam(model.parameters()[:3])
    twin, its = way((model, optimizer))
    assert twin.layers[0] is twin.layers[3] and twin.layers[1] is twin.layers[4]
    assert twin.layers[0] is not dense
    assert its.parameters[0] is twin.layers[0].weight
    assert its.parameters[1] is twin.layers[1].gamma
    generator = np.random.default_rng(0)
    pair = way([L.Dropout(0.5, seed=generator), L.Dropout(0.5, seed=generator)])
    assert pair[0].generators()[0] is pair[1].generators()[0]
    ebp = way(bo.training.EBP((5, 4, 3), seed=0))
    assert np.shares_memory(ebp.network.layers[0].weight.value, ebp.h[0])


def test_shallow_copies_share_what_a_layer_holds():
    layer = L.BinaryDense(70, 9, seed=0)
    before = layer.forward(ROWS, training=True)
    twin = copy.copy(layer)
    assert twin is not layer and twin.weight is layer.weight
    with pytest.raises(RuntimeError, match=r"^\[BinaryDense\] backward needs forward"):
        twin.backward(before)
    layer.weight.assign(-layer.weight.value)
    assert_array_equal(twin(ROWS), layer(ROWS))
    assert_array_equal(twin(ROWS), -before)
    model = network()
    assert copy.copy(model).layers is model.layers
    packed = L.PackedDense(signs(9, 70), real(9))
    assert np.shares_memory(copy.copy(packed).weight.words, packed.weight.words)
    assert same(use(copy.copy(packed), ROWS), use(packed, ROWS))


def test_shallow_copies_of_arrays_have_memory_of_their_own():
    """As those of NumPy's arrays have."""
    for bits in (bo.pack(ROWS), bo.pack(ROWS).T, bo.pack(IMAGES)[::2]):
        twin = copy.copy(bits)
        assert same(twin, bits) and not np.shares_memory(twin.words, bits.words)
    parameter = L.Parameter(ROWS, binary=True)
    parameter.signs()
    twin = copy.copy(parameter)
    twin.assign(-ROWS)
    assert_array_equal(parameter.value, ROWS)
    assert parameter.signs() == bo.pack(ROWS) and twin.signs() == bo.pack(-ROWS)
    weights = bo.prepack(ROWS)
    assert not np.shares_memory(copy.copy(weights).bits.words, weights.bits.words)


def test_centered_weights_are_centered_once(way):
    """The mean of centered and clipped weights is not 0, so a second time would change them."""
    layer = L.BinaryDense(70, 9, center=True, seed=0)
    layer.weight.assign(layer.weight.value + np.linspace(-1, 3, 70, dtype=np.float32))
    twin = way(layer)  # before the first use: both will be centered
    layer(ROWS)
    centered = layer.weight.value.copy()
    assert abs(centered.mean(axis=1)).max() > 1e-3
    for back in (twin, way(layer), way(way(layer))):
        back(ROWS)
        assert_array_equal(back.weight.value, centered)
    back.weight.assign(centered + 1)
    back(ROWS)
    assert not np.array_equal(back.weight.value, centered + 1)


def test_shallow_copies_of_optimizers_have_moments_of_their_own():
    parameter = L.Parameter(np.zeros(3))
    parameter.grad[...] = 1
    optimizer = bo.training.SGD([parameter], 0.5, momentum=0.5)
    twin = copy.copy(optimizer)
    assert twin.parameters[0] is parameter
    optimizer.step()
    assert_array_equal(parameter.value, np.full(3, -0.5))
    twin.step()  # its first: a velocity of 1 too
    assert_array_equal(parameter.value, np.full(3, -1))
    optimizer.step()  # its second: a velocity of 1.5
    assert_array_equal(parameter.value, np.full(3, -1.75))
