"""Gradients of weights that are computed later, and steps of Adam that take them in pieces."""

import copy
import math
import pickle

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from bitops import _core, pack
from bitops.layers import BatchNorm, BinaryConv2D, BinaryDense, Flatten, Sequential, Sign
from bitops.models import mlp
from bitops.ops.mixed_gemm import code_gemm, weight_gemm
from bitops.training import SGD, Adam, Checkpoint, cross_entropy

MULTIPLIES_NUMBERS = True

EXACT = 0, None, None  # zero, alpha and bias of real numbers
NUMBERS = 0.01, 0.1, 0.001, 1e-8, 0.999, 0.05, 7
# rows, columns, k: one and several parts of rows and columns, words that are not full
SIZES = [(1, 1, 1), (31, 70, 3), (32, 128, 64), (65, 1100, 65), (130, 63, 200), (3, 2049, 7)]


def operands(rng, rows, n, k):
    x = rng.standard_normal((k, rows)).astype(np.float32)
    bits = pack(rng.integers(2, size=(n, k)) * 2 - 1)
    state = [rng.standard_normal((rows, n)).astype(np.float32) * 0.05 for _ in range(3)]
    return x, bits, [state[0], state[1], np.square(state[2])]


def step(function, state, *args):
    """Take a step on copies; return the arrays, the words and the result."""
    arrays = [array.copy() for array in state]
    rows, n = arrays[0].shape
    words = np.zeros((rows, -(-n // 64)), np.uint64)
    nan = function(*args, *NUMBERS, *arrays, words)
    return [*arrays, words, nan]


@pytest.mark.parametrize("size", SIZES)
def test_step_is_that_of_the_gradient_in_memory(isa, threads, rng, size):
    x, bits, state = operands(rng, *size)
    found = step(_core.adam_product, state, x, bits.words, *EXACT)
    expected = step(_core.adam, state, weight_gemm(x.T, bits))
    for a, b in zip(found, expected, strict=True):
        assert_array_equal(a, b)
    halves = [state[0], *(array.view(np.uint16)[:, 1::2].copy() for array in state[1:])]
    found_halves = step(_core.adam_product, halves, x, bits.words, *EXACT)
    for a, b in zip(found_halves, step(_core.adam, halves, weight_gemm(x.T, bits)), strict=True):
        assert_array_equal(a, b)
    unpacked = [array.copy() for array in state]
    assert not _core.adam_product(x, bits.words, *EXACT, *NUMBERS, *unpacked)
    assert_array_equal(unpacked, found[:3])


@pytest.mark.parametrize("zero", [0, 32, 128])
@pytest.mark.parametrize("size", SIZES)
def test_step_of_codes(isa, threads, rng, size, zero):
    x, bits, state = operands(rng, *size)
    x = rng.integers(256, size=x.shape, dtype=np.uint8)
    alpha, bias = rng.standard_normal((2, size[1])).astype(np.float32)
    for shift in (bias, None):
        found = step(_core.adam_product, state, x, bits.words, zero, alpha, shift)
        product = code_gemm(x.T, bits, 8, zero, alpha=alpha, bias=shift)
        for a, b in zip(found, step(_core.adam, state, product), strict=True):
            assert_array_equal(a, b)


def test_nan_is_told(isa, rng):
    x, bits, state = operands(rng, 40, 300, 5)
    x[2, 33] = math.nan
    w, _, _, _, nan = step(_core.adam_product, state, x, bits.words, *EXACT)
    assert nan
    assert_array_equal(np.isnan(w).all(axis=1), np.arange(40) == 33)


def test_sizes_are_checked(rng):
    x, bits, state = operands(rng, 40, 300, 5)
    for args in [(x[:, :39].copy(), bits.words), (x, bits.words[:-1].copy())]:
        with pytest.raises(ValueError, match="of the product must have"):
            _core.adam_product(*args, *EXACT, *NUMBERS, *state)
    with pytest.raises(ValueError, match="at least one row"):
        _core.adam_product(x[:0], bits.words[:, :0].copy(), *EXACT, *NUMBERS, *state)
    for numbers, alpha in ((x, np.ones(300, np.float32)), (x.astype(np.uint8), None)):
        with pytest.raises(ValueError, match="uint8 must have an alpha, and float32 none"):
            _core.adam_product(numbers, bits.words, 0, alpha, None, *NUMBERS, *state)
    with pytest.raises(ValueError, match="x must be float32 or uint8, got float64"):
        _core.adam_product(x.astype(np.float64), bits.words, *EXACT, *NUMBERS, *state)
    for codes in ((1, None, None), (0, None, np.ones(300, np.float32))):
        with pytest.raises(ValueError, match="float32 must have neither zero nor bias"):
            _core.adam_product(x, bits.words, *codes, *NUMBERS, *state)


def small_convnet(**conv):
    """Images of 2 x 2 pixels; its second convolution has more weights than outputs."""
    return Sequential(
        BinaryConv2D(24, 40, 3, padding=1, seed=0),
        BatchNorm(40),
        Sign(),
        BinaryConv2D(40, 30, 3, seed=1, **conv),
        BatchNorm(30),
        Sign(),
        Flatten(),
        BinaryDense(120, 4, seed=2),
    )


NETS = {
    "mlp": lambda: mlp(96, 100, 2, 4, seed=0),
    "padded": lambda: small_convnet(padding=1),
    "padded by 1": lambda: small_convnet(padding=1, pad_value=1),
    "strided": lambda: small_convnet(padding=2, stride=3),
}


def make(bits=32, net="mlp"):
    model = NETS[net]()
    if bits < 32:
        model.round_gradients(3, bits)
    return model


def run(rng, bits, net, *, looks, **options):
    """Train for some steps; if it looks, gradients lie in memory before each step."""
    x, y = rng.integers(256, size=(5, 20, 96), dtype=np.uint8), rng.integers(4, size=(5, 20))
    if net != "mlp":
        x = x.reshape(5, 20, 2, 2, 24)
    model = make(bits, net)
    optimizer = Adam(model.parameters(), **options)
    deferred = 0
    for rows, labels in zip(x, y, strict=True):
        _, grad = cross_entropy(model.forward(rows, training=True), labels)
        model.backward(grad)
        grad[...] = math.nan  # whoever made it may use it again
        deferred += sum(p.deferred_gradient is not None for p in model.parameters())
        grads = [p.grad.copy() for p in model.parameters()] if looks else []
        optimizer.step()
        for parameter, before in zip(model.parameters(), grads, strict=False):
            if not optimizer.l2:  # which adds to it
                assert_array_equal(parameter.grad, before)
    return model, deferred


@pytest.mark.parametrize("bits", [32, 8, 6])
@pytest.mark.parametrize("options", [{}, {"l2": 1e-3}, {"lr": 0.01, "beta1": 0.5, "eps": 1e-3}])
@pytest.mark.parametrize("net", NETS)
def test_who_looks_changes_nothing(bits, options, net, threads):
    straight, deferred = run(np.random.default_rng(0), bits, net, looks=False, **options)
    assert deferred == 5 * 2  # of layers whose inputs are bits
    looked, _ = run(np.random.default_rng(0), bits, net, looks=True, **options)
    for a, b in zip(straight.parameters(), looked.parameters(), strict=True):
        assert_array_equal(a.value, b.value)
        assert a.signs() == b.signs() if a.binary else True
        assert_array_equal(a.grad, b.grad)


@pytest.mark.parametrize(("there", "here"), [(8, 6), (6, 8), (7, 6)])
def test_other_bits_are_refused_in_a_training_that_resumes(tmp_path, there, here):
    x, y = np.random.default_rng(0).integers(256, size=(40, 96), dtype=np.uint8), np.arange(40) % 4
    path = tmp_path / "run.ckpt"
    make(there).fit(x, y, epochs=1, verbose=0, callbacks=Checkpoint(path))
    make(there).fit(x, y, epochs=1, verbose=0, resume=path)
    with pytest.raises(ValueError, match="gradient bits is"):
        make(here).fit(x, y, epochs=1, verbose=0, resume=path)


def passed(rows=4, **options):
    """A layer after a backward pass, and the gradient that its weights should have."""
    rng = np.random.default_rng(1)
    layer = BinaryDense(40, 24, seed=0, **options)
    x, dy = rng.standard_normal((rows, 40)), rng.standard_normal((rows, 24)).astype(np.float32)
    Sequential(Sign(), layer).forward(x, training=True)
    layer.backward(dy)
    signs = np.where(x >= 0, np.float32(1), np.float32(-1))
    return layer.weight, dy.T @ signs


def test_gradient_is_there_for_who_asks():
    weight, expected = passed()
    assert weight.deferred_gradient is not None
    np.testing.assert_allclose(weight.grad, expected, rtol=1e-4, atol=1e-5)
    assert weight.deferred_gradient is None
    assert passed(rows=11)[0].deferred_gradient is None  # operands as large as the gradient
    scaled, _ = passed(scale_weights=True, gradient="chain")
    assert scaled.deferred_gradient is None  # what follows needs all of it


@pytest.mark.parametrize(
    "copied", [copy.copy, copy.deepcopy, lambda p: pickle.loads(pickle.dumps(p))]
)
def test_copies_have_the_gradient(copied):
    weight, expected = passed()
    other = copied(weight)
    np.testing.assert_allclose(other.grad, expected, rtol=1e-4, atol=1e-5)
    assert_array_equal(other.grad, weight.grad)


def test_gradient_that_is_set_counts():
    weight, _ = passed()
    weight.grad = np.ones(weight.shape, np.float32)
    SGD([weight], lr=0.5).step()
    weight.grad[...] = 2
    assert_array_equal(weight.grad, 2)
    other, _ = passed()
    other.grad *= 0
    assert_array_equal(other.grad, 0)


def test_a_training_drops_what_layers_kept():
    model = Sequential(BinaryDense(8, 6, seed=0), BatchNorm(6), Sign(), BinaryDense(6, 2, seed=1))
    x = np.random.default_rng(0).normal(size=(4, 8)).astype(np.float32)
    y = model.forward(x, training=True)
    model.backward(y)
    model.backward(y)  # which keeps it
    model.backward_weights(y)
    with pytest.raises(RuntimeError, match="needs forward"):
        model.backward(y)
    assert model.layers[1].batch is None and model.layers[2].within is None


def test_filters_keep_inputs_of_their_own():
    rng = np.random.default_rng(1)
    layer = BinaryConv2D(40, 64, 3, padding=1, seed=0)
    x = pack(rng.standard_normal((4, 2, 2, 40)))
    grads = []
    for writes in (False, True):
        y = layer.forward(x, training=True)
        layer.backward(np.ones_like(y))
        assert layer.weight.deferred_gradient is not None
        if writes:  # into a buffer that the next images use
            x.words[...] = ~x.words
        grads.append(layer.weight.grad.copy())
    assert_array_equal(*grads)
