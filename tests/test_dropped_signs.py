"""Dropout of signs before a binary product: bits in training, and what each layer does alone."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from bitops import pack
from bitops.layers import (
    BatchNorm,
    BinaryConv2D,
    BinaryDense,
    Dropout,
    Flatten,
    QuantizedDense,
    ReLU,
    Sequential,
    Sign,
    as_float,
)
from bitops.layers.inputs import SignPairs
from bitops.layers.joined import Dropped, training_steps
from bitops.quantizers import Ternary
from bitops.training import Adam
from bitops.training.metrics import watched
from conftest import random_signs


def dense(**options):
    return BinaryDense(70, 30, seed=1, **options)


def conv(**options):
    return BinaryConv2D(20, 30, 3, seed=1, **options)


PRODUCTS = {
    "dense": (dense, (40, 70)),
    "scaled": (lambda: dense(scale_weights=True, bias=True), (40, 70)),
    "rows of rows": (dense, (4, 10, 70)),
    "many rows": (dense, (300, 70)),
    "conv": (lambda: conv(scale_weights=True), (5, 8, 8, 20)),
    "padded": (lambda: conv(padding=1), (5, 8, 8, 20)),
    "strided": (lambda: conv(padding=2, stride=2, bias=True), (5, 8, 8, 20)),
    "more weights": (lambda: conv(padding=1), (1, 2, 2, 20)),
}


def make(product, rate=0.5):
    return Sequential(Sign(), Dropout(rate, seed=3), product())


def alone(model, x, dy):
    """Outputs and gradient of the layers of a model, one after the other."""
    for layer in model.layers:
        x = layer.forward(x, training=True)
    for layer in reversed(model.layers):
        dy = layer.backward(dy)
    return x, dy


def close(a, b):
    assert_allclose(a, b, rtol=0, atol=2e-6 * np.abs(b).max(initial=1))


@pytest.mark.parametrize("rate", [0.5, 0.2, 0.0])
@pytest.mark.parametrize("kind", PRODUCTS)
def test_bits_give_what_numbers_give(isa, threads, rng, kind, rate):
    product, shape = PRODUCTS[kind]
    joined, other = make(product, rate), make(product, rate)
    assert [type(step).__name__ for _, step in training_steps(joined.layers)] == [
        *("Single", "Dropped")
    ]
    x = rng.standard_normal(shape, np.float32)
    y = joined.forward(x, training=True)
    dy = rng.standard_normal(y.shape, np.float32)
    dx = joined.backward(dy)
    expected, dx_expected = alone(other, x, dy)
    if rate == 0.5:  # all scales are powers of two
        assert_array_equal(y, expected)
    close(y, expected)
    close(dx, dx_expected)
    for a, b in zip(joined.parameters(), other.parameters(), strict=True):
        close(a.grad, b.grad)


@pytest.mark.parametrize("kind", PRODUCTS)
def test_the_bits_are_the_same_everywhere(isa, threads, kind):
    product, shape = PRODUCTS[kind]
    x = np.random.default_rng(0).standard_normal(shape, np.float32)
    model = make(product)
    y = model.forward(x, training=True)
    dx = model.backward(np.cos(np.arange(y.size, dtype=np.float32)).reshape(y.shape))
    found = [y, dx, *(parameter.grad for parameter in model.parameters())]
    for array, expected in zip(found, REFERENCE.setdefault(kind, found), strict=True):
        assert_array_equal(array, expected)


REFERENCE: dict = {}  # of the first ISA that runs


@pytest.mark.parametrize("bits", [8, 7, 6])
@pytest.mark.parametrize("kind", ["dense", "padded", "strided", "more weights"])
def test_rounded_gradients(rng, kind, bits):
    """They are those of the numbers whose gradient was rounded."""
    product, shape = PRODUCTS[kind]
    model = make(product)
    model.round_gradients(5, bits)
    x = rng.standard_normal(shape, np.float32)
    y = model.forward(x, training=True)
    dy = rng.standard_normal(y.shape, np.float32)
    model.backward(dy)
    other = make(product)
    other.round_gradients(5, bits)
    rounding = other.layers[2].rounding
    codes, step = rounding.round(dy)
    exact = make(product)
    alone(exact, x, np.float32(step) * (codes.astype(np.float32) - rounding.zero))
    close(model.layers[2].weight.grad, exact.layers[2].weight.grad)


def test_a_step_of_adam_takes_the_gradient_that_waits(rng):
    """Weights that are more than the rows are stepped as by the gradient in memory."""
    x, dy = rng.standard_normal((4, 600), np.float32), rng.standard_normal((4, 50), np.float32)
    models = [Sequential(Sign(), Dropout(0.5, seed=3), BinaryDense(600, 50, seed=1)) for _ in "ab"]
    for model, looks in zip(models, (False, True), strict=True):
        optimizer = Adam(model.parameters())
        model.forward(x, training=True)
        model.backward_weights(dy)
        weight = model.layers[2].weight
        assert weight.deferred_gradient is not None
        if looks:
            assert np.isfinite(weight.grad).all() and weight.deferred_gradient is None
        optimizer.step()
    assert_array_equal(*(model.layers[2].weight.value for model in models))


@pytest.mark.parametrize("rows", [2, 6, 9])
@pytest.mark.parametrize("bits", [None, 8, 6])
def test_weights_whose_signs_are_all_dropped_get_no_gradient(isa, rng, rows, bits):
    """Not even of rounding, of which Adam would make a full step."""
    model = Sequential(Sign(), Dropout(0.5, seed=3), BinaryDense(500, 20, seed=1))
    if bits is not None:
        model.round_gradients(0, bits)
    model.forward(rng.standard_normal((rows, 500), np.float32), training=True)
    dropout, product = model.layers[1:]
    dropped = (as_float(dropout._kept[0]) < 0).all(axis=0)
    assert rows > 8 or dropped.any()
    model.backward(rng.standard_normal((rows, 20), np.float32))
    assert not product.weight.grad[:, dropped].any()


def test_a_rate_that_changes_counts_from_the_next_forward_on(rng):
    for x in (pack(np.ones((8, 70))), np.ones((8, 70), np.float32)):
        model = Sequential(Dropout(0.5, seed=3), dense())
        model.forward(x, training=True)
        model.layers[0].rate = 0.9
        assert set(np.unique(model.layers[0].backward(np.ones((8, 70), np.float32)))) == {0, 2}


@pytest.mark.parametrize("dropped", [True, False])
def test_no_images(dropped):
    between = [Dropout(0.5, seed=3)] if dropped else []
    model = Sequential(Sign(), *between, conv(padding=1))
    y = model.forward(np.ones((0, 8, 8, 20), np.float32), training=True)
    assert model.backward(y).shape == (0, 8, 8, 20)
    assert not model.layers[-1].weight.grad.any()


def test_a_network_learns(rng):
    y = rng.integers(4, size=400)
    x = random_signs(rng, 4, 200)[y] * np.where(rng.random((400, 200)) < 0.2, -1, 1)
    model = Sequential(
        *(BinaryDense(200, 128, seed=0), BatchNorm(128), Sign(), Dropout(0.5, seed=1)),
        *(BinaryDense(128, 4, seed=2), BatchNorm(4)),
    )
    history = model.fit(x[:300], y[:300], epochs=6, batch_size=30, verbose=0)
    assert history.epochs[-1].loss < history.epochs[0].loss / 2
    packed = model.freeze()
    assert_array_equal(packed.outputs(x), model.outputs(x))
    assert packed.error_rate(x[300:], y[300:]) < 0.1


class Mine(Dropout):
    """Another class may do anything."""


@pytest.mark.parametrize(
    "layers",
    [
        lambda: [Mine(0.5, seed=3), dense()],
        lambda: [Dropout(0.5, seed=3), conv(scale_input=True)],
        lambda: [Dropout(0.5, seed=3), conv(groups=2)],
        lambda: [Dropout(0.5, seed=3), QuantizedDense(70, 30, Ternary(), seed=0)],
        lambda: [Dropout(0.5, seed=3), Flatten(), dense()],
        lambda: [Dropout(0.5, seed=3)],
    ],
)
def test_others_run_alone(rng, layers):
    made = [Sign(), *layers()]
    assert not any(isinstance(step, Dropped) for _, step in training_steps(made))
    shape = (5, 8, 8, 20) if isinstance(made[-1], BinaryConv2D) else (40, 70)
    x = rng.standard_normal(shape, np.float32)
    y = Sequential(*made).forward(x, training=True)
    fresh = [Sign(), *layers()]
    expected, _ = alone(Sequential(*fresh), x, np.ones(y.shape, np.float32))
    assert_array_equal(as_float(y), as_float(expected))


def test_a_pad_value_is_left_to_the_layers():
    """It would be multiplied as signs that are kept are; products of numbers have none."""
    layers = [Sign(), Dropout(0.5, seed=3), conv(padding=1, pad_value=1)]
    assert not any(isinstance(step, Dropped) for _, step in training_steps(layers))


@pytest.mark.parametrize("first", [ReLU, BatchNorm])
def test_numbers_stay_numbers(rng, first):
    layer = first() if first is ReLU else first(70)
    model = Sequential(layer, Dropout(0.5, seed=3), dense())
    x = rng.standard_normal((40, 70), np.float32)
    y = model.forward(x, training=True)
    other = Sequential(first() if first is ReLU else first(70), Dropout(0.5, seed=3), dense())
    expected, dx = alone(other, x, np.ones_like(y))
    assert_array_equal(y, expected)
    close(model.backward(np.ones_like(y)), dx)


@pytest.mark.parametrize("direction", ["forward", "backward"])
def test_forward_may_be_joined_and_backward_not(rng, direction):
    model, other = make(dense), make(dense)
    x, dy = rng.standard_normal((40, 70), np.float32), rng.standard_normal((40, 30), np.float32)
    seen = []
    if direction == "forward":
        with watched(model, "forward", lambda *call: seen.append(call[0])):
            y = model.forward(x, training=True)
        dx = model.backward(dy)
    else:
        y = model.forward(x, training=True)
        with watched(model, "backward", lambda *call: seen.append(call[0])):
            dx = model.backward(dy)
    assert len(seen) == 3
    expected, dx_expected = alone(other, x, dy)
    close(y, expected)
    close(dx, dx_expected)


def test_wrong_sizes_are_refused_before_anything_is_drawn():
    model = Sequential(Dropout(0.5, seed=3), dense())
    before = model.layers[0].generators()[0].bit_generator.state
    with pytest.raises(ValueError, match=r"\[BinaryDense\] x must have 70 features"):
        model.forward(pack(np.ones((4, 71))), training=True)
    assert model.layers[0].generators()[0].bit_generator.state == before


def test_sums_of_signs():
    pairs = SignPairs(pack([[1, 1, -1], [1, -1, -1], [1, 1, 1], [-1, 1, 1]]), 0.25)
    assert pairs.shape == (2, 3)
    assert_array_equal(pairs.added(as_float(pairs.bits)), [[2, 0, -2], [0, 2, 2]])
