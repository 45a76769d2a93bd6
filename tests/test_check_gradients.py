"""`check_gradients` passes the layers of the package and finds the mistakes it is made for."""

import numpy as np
import pytest

from bitops.layers import (
    AvgPool2D,
    BatchNorm,
    BinaryConv2D,
    BinaryDense,
    Conv2D,
    Dense,
    Dropout,
    Flatten,
    GlobalAvgPool2D,
    MaxPool2D,
    Parameter,
    Quantize,
    QuantizedDense,
    ReLU,
    Residual,
    Sequential,
    ShiftBatchNorm,
    Sign,
    Tanh,
    TanhDense,
    TrainingLayer,
    as_float,
    check_gradients,
)
from bitops.ops.array import pack
from bitops.quantizers import DoReFaActivation, TwnTernary

RNG = np.random.default_rng(0)
X = RNG.normal(size=(5, 8))
IMAGES = RNG.normal(size=(2, 6, 6, 4))


@pytest.mark.parametrize(
    ("layer", "x", "pseudo"),
    [
        (BatchNorm(8), X, ()),
        (Dense(8, 3, seed=0), X, ()),
        (Dense(8, 3, seed=0), (X * 50).astype(np.uint8), ()),
        (TanhDense(8, 3, seed=0), X, ()),
        (ReLU(), X, ()),
        (Tanh(), X, ()),
        (Dropout(0.5, seed=1), X, ()),
        (BinaryDense(8, 3, bias=True, seed=0), X, ()),
        (BinaryDense(8, 3, bias=True, seed=0), pack(X), ()),
        (QuantizedDense(8, 3, TwnTernary(), seed=0), X, ("weight",)),
        (ShiftBatchNorm(8), X, ("input", "gamma")),
        (Conv2D(4, 5, 3, padding=1, seed=0), IMAGES, ()),
        (BinaryConv2D(4, 5, 3, seed=0), IMAGES, ()),
        (MaxPool2D(2), IMAGES, ()),
        (AvgPool2D(2), IMAGES, ()),
        (GlobalAvgPool2D(), IMAGES, ()),
        (Flatten(), IMAGES, ()),
        (Residual(Sequential(Dense(8, 8, seed=0), BatchNorm(8)), Dense(8, 8, seed=1)), X, ()),
        (Sequential(Dense(8, 4, seed=0), BatchNorm(4), ReLU(), Dense(4, 2, seed=0)), X, ()),
    ],
)
def test_layers_of_the_package_pass(layer, x, pseudo):
    before = [np.copy(array) for array in flat(layer.state())]
    report = check_gradients(layer, x, pseudo=pseudo)
    compared = [row for row in report.rows if row.checked == "differences"]
    assert compared and all(row.entries > 0 and row.error < 1e-2 for row in compared)
    assert len(report.rows) == 1 + len(layer.parameters())
    for old, new in zip(before, flat(layer.state()), strict=True):
        np.testing.assert_array_equal(old, new)


def flat(state):
    for part in state:
        yield from flat(part) if isinstance(part, list) else [part]


def test_what_is_checked_is_said():
    said = str(check_gradients(BinaryDense(8, 3, bias=True, seed=0), X)).splitlines()
    assert said[0].startswith("input: 40 entries agree")
    assert said[1].endswith(": a pseudo-gradient: finite and of the right shape")
    assert said[2].startswith("bias: 3 entries agree")
    data = (X * 50).astype(np.uint8)
    assert str(check_gradients(Dense(8, 3), data)).startswith("input: none, the input is data\n")
    for layer in (Sign(), Quantize(DoReFaActivation(2))):
        report = check_gradients(layer, X)
        assert [row.checked for row in report.rows] == ["form"]
    chain = Sequential(Dense(8, 8, seed=0), Residual(BatchNorm(8)))
    names = [row.name for row in check_gradients(chain, X).rows]
    assert names == ["input", "0.weight", "0.bias", "1.body.0.gamma", "1.body.0.beta"]
    kinks = check_gradients(ReLU(), np.array([[0.0, 1.0, -1.0]])).rows[0]
    assert (kinks.entries, kinks.kinks) == (2, 1)


def test_the_layer_is_left_as_it_was():
    layer = Dropout(0.5, seed=3)
    other = Dropout(0.5, seed=3)
    check_gradients(layer, X)
    np.testing.assert_array_equal(layer.forward(X, training=True), other.forward(X, training=True))
    dense = Dense(8, 3, seed=0)
    dense.weight.grad[...] = 7
    check_gradients(dense, X)
    assert (dense.weight.grad == 7).all()


def test_frozen_parameters_are_left_out():
    frozen = BatchNorm(8)
    frozen.trainable = False
    assert [row.name for row in check_gradients(frozen, X).rows] == ["input"]
    dense = Dense(8, 3, seed=0)
    dense.bias.trainable = False
    assert [row.name for row in check_gradients(dense, X).rows] == ["input", "weight"]


class Scale(TrainingLayer):
    """y = x * s + t, right."""

    def __init__(self):
        self.s, self.t = Parameter(np.linspace(1, 2, 8)), Parameter(np.zeros(8))

    def forward(self, x, *, training=False):
        self.x = as_float(np.asarray(x, np.float32))
        return self.x * self.s.value + self.t.value

    def backward(self, grad):
        self.s.grad[...] = (grad * self.x).sum(axis=0)
        self.t.grad[...] = grad.sum(axis=0)
        return grad * self.s.value

    def parameters(self):
        return [self.s, self.t]


class ReturnsNone(Scale):
    def backward(self, grad):
        super().backward(grad)


class LeavesGrad(Scale):
    def backward(self, grad):
        self.s.grad[...] = (grad * self.x).sum(axis=0)
        return grad * self.s.value


class Forgets(Scale):
    def backward(self, grad):
        super().backward(grad)
        return grad


class Mean(Scale):
    def backward(self, grad):
        below = super().backward(grad)
        self.s.grad /= len(grad)
        return below


class Infinite(Scale):
    def backward(self, grad):
        below = super().backward(grad)
        self.t.grad[0] = np.inf
        return below


class Transposed(Scale):
    def backward(self, grad):
        return super().backward(grad).T


def test_a_right_layer_passes():
    assert [row.problem for row in check_gradients(Scale(), X).rows] == ["", "", ""]


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        (ReturnsNone(), "input: backward returned None, but x is not data"),
        (LeavesGrad(), "t: backward did not write the gradient"),
        (Forgets(), r"input: the gradient differs by \d\d\.\d% of the largest: at \(\d, \d\)"),
        (Mean(), "s: the gradient differs by 80.0% of the largest"),
        (Infinite(), "t: the gradient must be finite"),
        (Transposed(), r"input: the gradient must have shape \(5, 8\), got \(8, 5\)"),
        (Sequential(Dense(8, 8, seed=0), Mean()), r"1\.s: the gradient differs"),
    ],
)
def test_mistakes_are_found(layer, message):
    with pytest.raises(AssertionError, match=rf"\[check_gradients\] (.|\n)*\n(.|\n)*{message}"):
        check_gradients(layer, X)


def test_steps_must_be_named():
    with pytest.raises(AssertionError, match="for a pseudo-gradient, pass pseudo"):
        check_gradients(ShiftBatchNorm(8), X, pseudo=("input",))
    with pytest.raises(ValueError, match=r"\[check_gradients\] pseudo must name"):
        check_gradients(Dense(8, 3), X, pseudo=("weigth",))
    with pytest.raises(AssertionError, match="every entry is at a kink, give another x"):
        check_gradients(ReLU(), np.zeros((2, 3)))
