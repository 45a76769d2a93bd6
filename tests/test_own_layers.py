"""Layers of a user's own: what they must say to be packed, and what is refused."""

import numpy as np
import pytest

from bitops import layers
from bitops.layers import (
    AvgPool2D,
    BatchNorm,
    BinaryConv2D,
    BinaryDense,
    Conv2D,
    Dense,
    Dropout,
    Flatten,
    Layer,
    MaxPool2D,
    Packed,
    PackedReLU,
    PackedSign,
    Quantize,
    ReLU,
    Residual,
    Role,
    Sequential,
    Sign,
    TrainingLayer,
    as_float,
    fold,
)
from bitops.layers.base import backward_weights
from bitops.ops.array import BitArray, pack
from bitops.quantizers import DoReFaActivation, Heaviside

X = np.random.default_rng(0).normal(size=(40, 6)).astype(np.float32) * 3


class PReLU(ReLU):
    """With a slope below 0: a layer that freezing as ReLU would change."""

    def forward(self, x, *, training=False):
        x = as_float(x)
        return np.where(x > 0, x, 2 * x)


def overriding(base):
    """A class with a forward of its own, which computes the same."""

    class Own(base):
        def forward(self, x, *, training=False):
            return super().forward(x, training=training)

    return Own


# a layer of each role, what takes part in a chain of 6 features
MADE = [
    (Sign, ()),
    (Quantize, (DoReFaActivation(2),)),
    (Quantize, (Heaviside(),)),
    (BinaryDense, (6, 6)),
    (Dense, (6, 6)),
    (BatchNorm, (6,)),
    (ReLU, ()),
    (Flatten, ()),
    (Dropout, (0.5,)),
    (Residual, (ReLU(),)),
    (Sequential, (ReLU(),)),
]
IMAGES = [
    (MaxPool2D, (2,)),
    (AvgPool2D, (2,)),
    (BinaryConv2D, (6, 6, 1)),
    (Conv2D, (6, 6, 1)),
]


@pytest.mark.parametrize(("base", "arguments"), MADE + IMAGES)
def test_an_overridden_forward_without_a_packed_form_is_refused(base, arguments):
    message = rf"^\[freeze\] Own overrides forward, .* packed form of {base.__name__} is not its"
    layer = overriding(base)(*arguments)
    for model in (Sequential(ReLU(), layer), Sequential(Residual(Sequential(layer)))):
        with pytest.raises(TypeError, match=message + r" own; it must define to_packed"):
            model.freeze()
    if base is Sequential:
        with pytest.raises(TypeError, match=message):
            layer.freeze()


@pytest.mark.parametrize(("base", "arguments"), MADE)
def test_a_class_that_overrides_something_else_freezes(base, arguments):
    class Own(base):
        def __init__(self, *arguments):
            super().__init__(*arguments)

        def __repr__(self):
            return "mine"

        def backward(self, grad):
            return super().backward(grad)

    model = Sequential(BatchNorm(6), Own(*arguments), BinaryDense(6, 3, seed=0))
    np.testing.assert_array_equal(model.freeze()(X), model(X))


def test_an_overridden_forward_is_not_dropped():
    with pytest.raises(TypeError, match="PReLU overrides forward, so that the packed form"):
        Sequential(PReLU()).freeze()

    class PackedPReLU(Layer):
        def forward(self, x):
            return PReLU().forward(x)

    class Mine(PReLU):
        role = Role.STEP

        def to_packed(self):
            return PackedPReLU()

    norm = BatchNorm(6)
    norm.gamma.assign([1, -1, 2, 0.5, -3, 0])
    norm.beta.assign([0, 0.5, -1, 0, 3, -1])
    for chain, names in (
        ([Mine()], ["PackedPReLU"]),
        ([Mine(), Sign()], ["PackedPReLU", "PackedSign"]),
        ([BinaryDense(6, 6, seed=0), norm, Mine(), Sign()], ["PackedDense"]),
    ):
        model = Sequential(*chain)
        packed = model.freeze()
        assert [layer.name for layer in packed.layers] == names
        np.testing.assert_array_equal(np.asarray(packed(X)), np.asarray(model(X)))


def test_a_role_belongs_to_its_forward():
    """One that is not monotone may not be folded because ReLU is."""

    class Bump(ReLU):
        def forward(self, x, *, training=False):
            return np.abs(as_float(x))

        def to_packed(self):
            return PackedBump()

    class PackedBump(Layer):
        def forward(self, x):
            return np.abs(as_float(x))

    with pytest.raises(TypeError, match="packed form of ReLU is not its own; it must define role"):
        Sequential(BatchNorm(6), Bump(), Sign()).freeze()

    class Alone(Bump):
        role = Role.ALONE

        def forward(self, x, *, training=False):
            return super().forward(x)

        def to_packed(self):
            return PackedBump()

    model = Sequential(BinaryDense(6, 6, seed=0), BatchNorm(6), Alone(), BatchNorm(6), Sign())
    assert model.freeze()(X) == model(X)


def test_a_forward_from_a_mixin_is_noticed():
    class Mixin:
        def forward(self, x, *, training=False):
            return as_float(x)

    class Mixed(Mixin, ReLU):
        pass

    with pytest.raises(TypeError, match="Mixin overrides forward"):
        Sequential(Mixed()).freeze()


def test_hooks_that_forward_asks_may_be_overridden():
    """The packed form asks them too."""

    class Halved(BatchNorm):
        def affine(self):
            alpha, bias = super().affine()
            return alpha / 2, bias

    for chain in ([Halved(6)], [BinaryDense(6, 6, seed=0), Halved(6)], [Halved(6), Sign()]):
        model = Sequential(*chain)
        got = np.asarray(model.freeze()(X))
        np.testing.assert_array_equal(got, np.asarray(model(X)))
    assert (Halved(6)(X) != BatchNorm(6)(X)).any()


class Shift(TrainingLayer):
    """sign(x - t): a layer of two levels."""

    role = Role.SIGN

    def __init__(self, t):
        self.t = np.asarray(t, np.float32)
        self.in_features = self.out_features = self.t.size

    def forward(self, x, *, training=False):
        return pack(as_float(x) - self.t)

    def output_bits(self, input_bits):
        return 1

    def to_packed(self):
        return PackedSign(*fold(lambda z: z - self.t, self.t.size))


def test_an_own_sign_folds_like_sign():
    t = np.array([0, 1.5, -2, 0.25, 3, -1])
    for chain, names in (
        ([Shift(t)], ["PackedSign"]),
        ([BatchNorm(6), Shift(t)], ["PackedSign"]),
        ([ReLU(), Shift(t)], ["PackedSign"]),
        ([Sign(), BinaryDense(6, 6, seed=0), ReLU(), Shift(t)], ["PackedSign", "PackedDense"]),
    ):
        model = Sequential(*chain)
        packed = model.freeze()
        assert [layer.name for layer in packed.layers] == names
        assert isinstance(packed(X), BitArray)
        assert packed(X) == model(X)
        assert packed(np.round(X)) == model(np.round(X))


def test_layers_that_say_nothing_are_refused():
    class Other(TrainingLayer):
        def forward(self, x, *, training=False):
            return x

    class Nothing(Other):
        def to_packed(self):
            return None

    class Itself(Other):
        def to_packed(self):
            return self

    with pytest.raises(TypeError, match=r"\[freeze\] no packed form is known for Other"):
        Sequential(Other()).freeze()
    with pytest.raises(TypeError, match=r"\[to_packed\] a layer must define to_packed"):
        Other().to_packed()
    for kind in (Nothing, Itself):
        with pytest.raises(TypeError, match=r"\[freeze\] to_packed must return a packed layer"):
            Sequential(kind()).freeze()


def test_layers_that_stand_alone_give_their_packed_form():
    assert isinstance(ReLU().to_packed(), PackedReLU)
    dense = BinaryDense(6, 4, bias=True, seed=0)
    np.testing.assert_array_equal(dense.to_packed()(X), dense(X))
    block = Residual(BinaryDense(6, 6, seed=0))
    np.testing.assert_array_equal(block.to_packed()(X), block(X))
    model = Sequential(dense)
    assert isinstance(model.to_packed(), Packed)


def classes():
    """The classes of layers that the package shows."""
    shown = (getattr(layers, name) for name in layers.__all__)
    return [kind for kind in shown if isinstance(kind, type) and issubclass(kind, Layer)]


def test_no_training_layer_is_a_packed_one():
    for kind in classes():
        packed = [base for base in kind.__mro__ if base.__name__.startswith("Packed")]
        assert not (issubclass(kind, TrainingLayer) and packed)
    assert len(classes()) > 40
    assert not isinstance(ReLU(), PackedReLU)


def test_packed_models_are_made_of_packed_layers():
    for layer in (ReLU(), Flatten(), AvgPool2D(2)):
        with pytest.raises(TypeError, match=r"\[Packed\] layers must be packed ones"):
            Packed(layer)


# layers that lose gradients


class Forgetful(TrainingLayer):
    """The identity, whose backward returns nothing."""

    def forward(self, x, *, training=False):
        return as_float(x)

    def backward(self, grad):
        pass


class Plain(Forgetful):
    def backward(self, grad):
        return grad


def steps(model, x):
    """One forward and backward pass."""
    scores = model.forward(x, training=True)
    model.backward(np.ones(scores.shape, np.float32))


@pytest.mark.parametrize(
    "chain",
    [
        [BinaryDense(6, 6, seed=0), Forgetful(), Dense(6, 2, seed=0)],
        [BatchNorm(6), Sequential(Sign(), Forgetful()), Dense(6, 2, seed=0)],
        [Sequential(Dense(6, 6, seed=0), Forgetful()), Dense(6, 2, seed=0)],
        [Dense(6, 6, seed=0), Residual(Forgetful()), Dense(6, 2, seed=0)],
        [Flatten(), Dense(6, 6, seed=0), ReLU(), Forgetful()],
    ],
)
def test_a_backward_that_gives_nothing_is_refused(chain):
    model = Sequential(*chain)
    for x in (X, np.arange(30, dtype=np.uint8).reshape(5, 6)):
        with pytest.raises(TypeError, match=r"^\[backward\] layer \d must return the gradient"):
            steps(model, x)


def test_no_gradient_is_needed_where_nothing_below_learns():
    image = np.arange(4 * 4 * 4 * 6, dtype=np.uint8).reshape(4, 4, 4, 6)
    data = image.reshape(-1, 6)
    for chain, inputs in (
        ([Forgetful(), Dense(6, 2, seed=0)], (X, data)),
        ([ReLU(), Forgetful(), Dense(6, 2, seed=0)], (X, data)),
        ([BinaryDense(6, 2, seed=0), Plain()], (X, data)),
        ([Flatten(), Sequential(BinaryDense(6, 6, seed=0), Sign()), Dense(6, 2)], (X, data)),
        ([Residual(BinaryDense(6, 6, seed=0)), Sign(), Dense(6, 2, seed=0)], (X, data)),
        ([MaxPool2D(2), BinaryConv2D(6, 4, 1, seed=0), Flatten()], (image,)),
        ([Dropout(0.5), BinaryDense(6, 3, seed=0)], (X, data)),
    ):
        for x in inputs:
            steps(Sequential(*chain), x)


def test_a_sequence_with_a_forward_of_its_own_stays_one_layer():
    class Doubled(Sequential):
        def forward(self, x, *, training=False):
            return 2 * super().forward(x, training=training)

        def to_packed(self):
            return PackedDoubled(super().to_packed())

    class PackedDoubled(Layer):
        def __init__(self, chain):
            self.chain = chain

        def forward(self, x):
            return 2 * self.chain(x)

    inner = Doubled(BinaryDense(6, 4, bias=True, seed=0), BatchNorm(4))
    model = Sequential(BatchNorm(6), inner)
    assert model.flat_layers()[1] is inner
    np.testing.assert_array_equal(model.freeze()(X), model(X))
    lines = str(model.summary()).splitlines()
    assert any("layers: BinaryDense" in line for line in lines)
    assert model.summary().total.parameters == 12 + 28 + 8


def test_training_leaves_out_the_gradient_of_the_inputs_but_not_an_own_backward(rng):
    """Gradients of parameters are the same; another backward of a first layer is called."""
    seen = []

    class Own(Conv2D):
        def backward(self, grad):
            seen.append(super().backward(grad))
            return seen[-1]

    x = rng.standard_normal((4, 5, 5, 3), np.float32)
    for first in (Conv2D, Own, BinaryConv2D):
        model = Sequential(first(3, 4, 3, seed=1), BatchNorm(4), ReLU(), Flatten(), Dense(36, 2))
        for nested in (model, Sequential(model), Sequential(Residual(model, model))):
            grads = []
            for step in (nested.backward, lambda grad, net=nested: backward_weights(net, grad)):
                nested.forward(x, training=True)
                dx = step(np.ones((4, 2), np.float32))
                grads.append([dx, *(p.grad.copy() for p in nested.parameters())])
            assert grads[0][0].shape == x.shape
            assert grads[1][0] is None
            for got, want in zip(grads[1][1:], grads[0][1:], strict=True):
                np.testing.assert_array_equal(got, want)
    assert len(seen) == 8
    assert all(dx is not None for dx in seen)
