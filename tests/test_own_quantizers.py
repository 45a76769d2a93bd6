"""Quantizers of a user's own: their forward and backward are called, or they are refused."""

import numpy as np
import pytest

from bitops import quantizers as q
from bitops.layers import (
    BatchNorm,
    BinaryDense,
    PackedQuantize,
    PackedSign,
    Quantize,
    QuantizedDense,
    Role,
    Sequential,
    Sign,
)
from bitops.layers.planes import Planes
from bitops.ops.array import BitArray, pack

X = np.array([[-3, -1, -0.5, -0.0, 0, 0.25, 2]], np.float32)


class Doubled(q.SteSign):
    """Everything its own."""

    def forward(self, x):
        return -super().forward(x)

    def backward(self, x, grad):
        return 2 * super().backward(x, grad)


class Soft:
    """From nothing: numbers forward."""

    def __init__(self):
        self.generator = np.random.default_rng(0)

    def forward(self, x):
        return np.tanh(x)

    def backward(self, x, grad):
        return grad * (1 - np.tanh(x) ** 2)


def test_a_class_derived_from_ste_sign_has_its_own_methods_called():
    for quantizer in (Doubled(1.0), q.ClippedGradient(Doubled(1.0), 10.0)):
        layer = Sign(quantizer=quantizer)
        assert layer.forward(X, training=True) == pack(np.where(X < 0, 1, -1))
        assert layer(X) == pack(X)  # evaluation is the sign
        np.testing.assert_array_equal(layer.backward(np.ones_like(X)), 2 * (np.abs(X) <= 1))
    assert "Doubled" in repr(Sign(quantizer=Doubled(1.0)))


def test_a_quantizer_derived_from_nothing():
    quantizer = Soft()
    layer = Sign(quantizer=quantizer)
    np.testing.assert_array_equal(layer.forward(X, training=True), np.tanh(X))
    assert isinstance(layer(X), BitArray)
    np.testing.assert_allclose(layer.backward(np.ones_like(X)), 1 - np.tanh(X) ** 2)
    assert layer.generators() == [quantizer.generator]
    assert isinstance(quantizer, q.Quantizer)
    model = Sequential(BinaryDense(7, 5, seed=0), BatchNorm(5), layer, BinaryDense(5, 2, seed=1))
    rng = np.random.default_rng(1)
    x = rng.normal(size=(60, 7)).astype(np.float32)
    model.fit(x, (x[:, 0] > 0).astype(int), epochs=2, batch_size=20, verbose=0)
    np.testing.assert_array_equal(model.freeze()(x), model(x))


def test_every_quantizer_of_the_package_is_one():
    made = [
        q.AnnealedSign(), q.ApproxSign(), q.ClippedGradient(q.SteSign(), 1.0), q.DoReFaWeight(2),
        q.DoReFaActivation(2), q.DoReFaGradient(2), q.Heaviside(), q.LeastSquaresTernary(),
        q.MagnitudeAwareSign(), q.ProgressiveSign(), q.ShareTernary(0.5), q.SteSign(),
        q.StochasticSign(), q.SwishSign(), q.Ternary(), q.TwnTernary(), q.XnorSign(),
    ]  # fmt: skip
    assert all(isinstance(quantizer, q.Quantizer) for quantizer in made)
    # ByteGradient rounds to bytes, and is asked for nothing else
    others = {"ByteGradient", "Quantizer", "ap2", "xnor_weight_gradient"}
    assert {type(quantizer).__name__ for quantizer in made} | others == set(q.__all__)


class NoBackward:
    def forward(self, x):
        return x


@pytest.mark.parametrize("wrong", [3, NoBackward(), q.SteSign, np.sign])
def test_what_is_no_quantizer_is_refused(wrong):
    for make in (
        lambda: Sign(quantizer=wrong),
        lambda: Quantize(wrong),
        lambda: QuantizedDense(4, 3, wrong),
        lambda: q.ClippedGradient(wrong, 1.0),
    ):
        with pytest.raises(TypeError, match=r"must have forward\(x\) and backward\(x, grad\), as"):
            make()


# levels


class Floor(q.DoReFaActivation):
    """Codes of its own: rounded down."""

    def codes(self, x):
        share = np.clip(np.asarray(x, np.float32) / np.float32(self.clip_value), 0, 1)
        return np.floor(share * (2**self.bits - 1)).astype(np.uint8)

    def forward(self, x):
        return self.codes(x) * np.float32(self.step)


def test_levels_of_a_derived_class_are_its_own():
    layer = Quantize(Floor(2))
    np.testing.assert_array_equal(layer(X).numbers, Floor(2).codes(X))
    assert (layer(X).numbers != Quantize(q.DoReFaActivation(2))(X).numbers).any()
    with pytest.raises(TypeError, match="must define role and to_packed to pack levels"):
        Sequential(layer).freeze()

    class Packable(Quantize):
        role = Role.LEVELS

        def to_packed(self):
            return PackedQuantize(self.levels.bits)

    # of one bit the levels decide, not the packed form
    model = Sequential(BinaryDense(7, 5, seed=0), BatchNorm(5), Packable(Floor(1)))
    codes = model(X).numbers
    got = model.freeze()(X)
    np.testing.assert_array_equal(got, codes)
    assert codes.any() and not codes.all()


def test_levels_whose_codes_are_not_those_of_forward_are_refused():
    class Other(q.DoReFaActivation):
        def forward(self, x):
            return super().forward(x) / 2

    with pytest.raises(TypeError, match="overrides forward must override codes"):
        Quantize(Other(2))
    with pytest.raises(TypeError, match=r"\[Quantize\] quantizer must be Heaviside or .*, or have"):
        Quantize(Soft())


# weights


def test_derived_weights_keep_their_gradient():
    class Steep(q.TwnTernary):
        def backward(self, x, grad):
            return 3 * super().backward(x, grad)

    rng = np.random.default_rng(0)
    x, dy = rng.normal(size=(5, 7)).astype(np.float32), rng.normal(size=(5, 3)).astype(np.float32)
    gradients = []
    for quantizer in (q.TwnTernary(), Steep()):
        layer = QuantizedDense(7, 3, quantizer, seed=0)
        layer.forward(x, training=True)
        layer.backward(dy)
        gradients.append(layer.weight.grad)
    np.testing.assert_allclose(gradients[1], 3 * gradients[0], rtol=1e-6)


class Halves:
    """Weights of +-1/2, which says its planes."""

    def forward(self, w):
        return np.where(w >= 0, 0.5, -0.5).astype(np.float32)

    def backward(self, w, grad):
        return grad

    def planes(self, w):
        return Planes([pack(w)], (1,), np.full(len(w), 0.5, np.float32))


def test_weights_that_say_their_planes():
    layer = QuantizedDense(7, 3, Halves(), seed=0)
    expected = X @ Halves().forward(layer.weight.value).T
    np.testing.assert_allclose(layer(X), expected, rtol=1e-6)
    model = Sequential(layer, BatchNorm(3), Sign())
    assert model.freeze()(X) == model(X)


def test_weights_without_planes_are_refused():
    class OtherValues(q.TwnTernary):
        def forward(self, x):
            return 2 * super().forward(x)

    class OtherSplit(q.TwnTernary):
        def split(self, x):
            t, alpha = super().split(x)
            return t, 2 * alpha

    for quantizer in (OtherValues(), OtherSplit(), Soft(), q.Heaviside()):
        with pytest.raises(TypeError, match=r"one of weights \(DoReFaW.* or have planes\(w\)"):
            QuantizedDense(4, 3, quantizer)


def test_packed_sign_is_that_of_every_quantizer():
    for quantizer in (Doubled(), Soft(), q.ApproxSign()):
        assert isinstance(Sign(quantizer=quantizer).to_packed(), PackedSign)
