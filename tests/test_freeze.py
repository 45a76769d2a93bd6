"""The packed model equals the training graph in evaluation, bit for bit."""

import subprocess
import sys

import numpy as np
import pytest

from bitops.io import load
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
    Packed,
    Quantize,
    QuantizedConv2D,
    QuantizeGradient,
    ReLU,
    Residual,
    Sequential,
    ShiftBatchNorm,
    Sign,
    TrainingLayer,
)
from bitops.ops.array import BitArray, pack
from bitops.quantizers import (
    DoReFaActivation,
    DoReFaWeight,
    Heaviside,
    LeastSquaresTernary,
    MagnitudeAwareSign,
    ShareTernary,
    Ternary,
    TwnTernary,
)


def disturb(model, rng, scale=1.0):
    """Give every BatchNorm all the awkward channels: gamma < 0, gamma = 0, far and exact shifts."""
    for layer in model.flat_layers() if isinstance(model, Sequential) else model:
        for branch in layer.branches().values():
            disturb(branch, rng, scale)
        bias = getattr(layer, "bias", None)
        if bias is not None:
            bias.assign(rng.normal(size=bias.shape) * scale)
        if not isinstance(layer, BatchNorm):
            continue
        n = layer.gamma.size
        gamma = rng.choice([1.0, -1.0, 0.3, -2.5, 0.0, -0.0, 1e-3], size=n)
        beta = rng.choice([0.0, -0.0, 0.5, -0.5, 1e4, -1e4, rng.normal()], size=n)
        layer.gamma.assign(gamma)
        layer.beta.assign(beta)
        # whole means put z - mean = 0, and thus sign(0), among the products that occur
        layer.running_mean[...] = np.round(rng.normal(size=n) * scale)
        layer.running_inv_std[...] = rng.choice([100.0, 1.0, 0.1, 1 / scale], size=n)


def deep_model(k, hidden, *, bias, seed):
    return Sequential(
        Dropout(0.2, seed=seed),
        BinaryDense(k, hidden, bias=bias, seed=seed),
        BatchNorm(hidden),
        Sign(),
        Dropout(0.5, seed=seed),
        Sequential(BinaryDense(hidden, hidden, bias=bias, seed=seed + 1), BatchNorm(hidden)),
        Sign(),
        BinaryDense(hidden, 10, bias=bias, seed=seed + 2),
        BatchNorm(10),
    )


def assert_same(model, x):
    packed = model.freeze()
    expected, got = model(x), packed(x)
    if isinstance(expected, BitArray):
        assert got == expected
    else:
        np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("k", [1, 64, 100])
@pytest.mark.parametrize("seed", range(4))
def test_packed_equals_training_graph(k, bias, seed):
    rng = np.random.default_rng(seed)
    model = deep_model(k, 130, bias=bias, seed=seed)
    disturb(model, rng, scale=10.0)
    real = rng.normal(size=(40, k)).astype(np.float32) * 20
    whole = np.round(real)  # ties with the whole means
    image = rng.integers(256, size=(40, k), dtype=np.uint8)
    for x in (real, whole, image, pack(real), image.astype(np.int64)):
        assert_same(model, x)
        assert_same(Sequential(model.flat_layers()[:4]), x)  # bits of the first layer
        assert_same(Sequential(model.flat_layers()[:7]), x)
        assert_same(Sequential(model.flat_layers()[:-1]), x)


def test_packed_equals_training_graph_after_training_steps():
    rng = np.random.default_rng(0)
    model = deep_model(64, 100, bias=True, seed=0)
    x = rng.integers(17, size=(300, 64), dtype=np.uint8)
    model.fit(x, rng.integers(10, size=300), epochs=2, batch_size=50, verbose=0)
    assert_same(model, x)


@pytest.mark.parametrize("k", [66001])
def test_packed_equals_training_graph_where_float32_rounds_integers(k):
    rng = np.random.default_rng(1)
    model = Sequential(BinaryDense(k, 6, seed=0), BatchNorm(6), Sign())
    model.layers[0].weight.assign(np.ones((6, k)))
    x = np.full((60, k), 255, dtype=np.uint8)
    for row in range(60):  # sums just around 2**24
        x[row, : rng.integers(300)] = rng.integers(256)
    sums = x.sum(axis=1, dtype=np.int64)
    model.layers[1].running_mean[...] = np.sort(sums)[::10]
    assert_same(model, x)


def test_groups_of_every_shape():
    rng = np.random.default_rng(2)

    norm = BatchNorm
    chains = [
        [Sign()],
        [norm(30), Sign()],
        [norm(30), norm(30), Sign(), BinaryDense(30, 5)],
        [norm(30)],
        [Sign(), norm(30)],
        [Sign(), Sign(), BinaryDense(30, 5), Sign(), BinaryDense(5, 4)],
        [norm(30), BinaryDense(30, 5), norm(5), norm(5)],
        [Sign(), BinaryDense(30, 5), BinaryDense(5, 6), norm(6), norm(6), Sign()],
        [BinaryDense(30, 5, bias=True)],
        [BinaryDense(30, 5, bias=True), norm(5), norm(5)],
        [Dropout(0.5), norm(30), Dropout(0.5), Sign(), Dropout(0.5)],
    ]
    x = np.round(rng.normal(size=(50, 30)) * 3).astype(np.float32)
    for chain in chains:
        model = Sequential(chain)
        disturb(model, rng, scale=3.0)
        packed = model.freeze()
        np.testing.assert_array_equal(np.asarray(packed(x)), np.asarray(model(x)))


def test_dropout_alone_has_nothing_to_pack():
    with pytest.raises(ValueError, match=r"\[Packed\] at least one layer"):
        Sequential(Dropout(0.5)).freeze()


def test_layers_without_packed_form_are_refused():
    class Other(TrainingLayer):
        pass

    with pytest.raises(TypeError, match=r"\[freeze\] no packed form"):
        Sequential(Other()).freeze()


def test_frozen_model_stands_alone():
    model = deep_model(20, 30, bias=True, seed=0)
    x = np.random.default_rng(3).integers(256, size=(10, 20), dtype=np.uint8)
    packed = model.freeze()
    before = packed(x)
    for parameter in model.parameters():
        parameter.assign(-parameter.value + 0.5)
    np.testing.assert_array_equal(packed(x), before)
    with pytest.raises(ValueError, match="read-only"):
        packed.layers[0].threshold[0] = 3


# convolutional networks


QUANTIZERS = (
    Ternary(0.3),
    TwnTernary(),
    LeastSquaresTernary(),
    ShareTernary(0.4),
    MagnitudeAwareSign(),
    DoReFaWeight(1),
    DoReFaWeight(2),
    DoReFaWeight(3),
)


class RandomNet:
    """Chains of layers that fit, drawn at random; every rule of folding comes up."""

    def __init__(self, seed):
        self.rng = np.random.default_rng(seed)
        self.size, self.channels, self.is_bits = 9, int(self.rng.choice([1, 3, 8])), False
        self.layers = []

    def chance(self, p):
        return self.rng.random() < p

    def seed(self):
        return int(self.rng.integers(1000))

    def conv(self, *, same_size=False, out=None):
        """A binary convolution; only images that are bits can be padded with them."""
        out = int(self.rng.choice([1, 8, 33, 70])) if out is None else out
        groups = 2 if self.channels % 2 == out % 2 == 0 and self.chance(0.5) else 1
        kernel = int(self.rng.choice([1, 3]))
        stride = 1 if same_size or self.chance(0.7) else 2
        settings = {
            "stride": stride,
            "padding": "same",
            "groups": groups,
            "pad_value": int(self.rng.choice([-1, 0, 1])) if self.is_bits else 0,
            "bias": self.chance(0.3),
            "seed": self.seed(),
        }
        if self.chance(0.3):
            quantizer = QUANTIZERS[self.rng.integers(len(QUANTIZERS))]
            layer = QuantizedConv2D(self.channels, out, kernel, quantizer, **settings)
        elif settings["pad_value"] == 0 and self.chance(0.1):
            layer = BinaryConv2D(self.channels, out, kernel, real_evaluation=True, **settings)
        else:
            scale_input = not self.is_bits and self.chance(0.3)
            settings |= {
                "scale_weights": self.chance(0.3),
                "scale_input": scale_input,
                "center": self.chance(0.2),
            }
            layer = BinaryConv2D(self.channels, out, kernel, **settings)
        self.size, self.channels, self.is_bits = -(-self.size // stride), out, False
        return layer

    def steps(self):
        """What may stand between a product and its Sign."""
        steps = []
        for _ in range(self.rng.integers(5)):
            kind = self.rng.choice(["norm", "norm", "pool", "relu", "dropout"])
            if kind == "norm":
                norm = ShiftBatchNorm if self.chance(0.2) else BatchNorm
                steps.append(norm(self.channels))
                self.is_bits = False
            elif kind == "pool" and self.size >= 2:
                steps.append(MaxPool2D(2, padding=((0, self.size % 2), (self.size % 2, 0))))
                self.size = (self.size + 1) // 2
            elif kind == "pool":
                steps.append(MaxPool2D(3, 1, 1))
            elif kind == "relu":
                steps.append(ReLU())
                self.is_bits = False
            else:
                steps.append(Dropout(0.5))
        return steps

    def sign(self):
        """A Sign, or another activation of few levels, which is numbers to the next layer."""
        self.is_bits = self.chance(0.5)
        if self.is_bits:
            return [Sign()]
        quantizer = Heaviside()
        if self.chance(0.6):
            quantizer = DoReFaActivation(int(self.rng.integers(1, 4)), self.rng.choice([1.0, 0.7]))
        return [QuantizeGradient(4), Quantize(quantizer)]

    def block(self):
        kind = self.rng.choice(["conv", "conv", "conv", "steps", "residual", "float", "avg"])
        if kind == "conv":
            made = [self.conv(), *self.steps()]
        elif kind == "steps":
            made = self.steps()
        elif kind == "residual":
            made = [self.residual()]
        elif kind == "float":
            made = [Conv2D(self.channels, 6, 3, padding=1, seed=self.seed())]
            self.channels, self.is_bits = 6, False
        else:
            made = [AvgPool2D(3, 1, 1)]
            self.is_bits = False
        return made + (self.sign() if self.chance(0.7) else [])

    def residual(self):
        channels, is_bits = self.channels, self.is_bits
        first = self.conv(same_size=True)
        between = [BatchNorm(self.channels), *self.sign()] if self.chance(0.5) else []
        self.is_bits = self.is_bits and bool(between)
        body = [first, *between, self.conv(same_size=True, out=channels)]
        body += [BatchNorm(channels)] if self.chance(0.5) else []
        shortcut = None
        if self.chance(0.5):
            self.channels, self.is_bits = channels, is_bits
            shortcut = Sequential(self.conv(same_size=True, out=channels), Dropout(0.5))
        self.channels, self.is_bits = channels, False
        return Residual(Sequential(body), shortcut)

    def make(self):
        shape = self.size, self.size, self.channels
        layers = [layer for _ in range(self.rng.integers(1, 5)) for layer in self.block()]
        end = self.rng.integers(4)
        if end == 0:
            layers.append(GlobalAvgPool2D())
            layers.append(Dense(self.channels, 5, seed=self.seed()))
        elif end == 1:
            features = self.size**2 * self.channels
            layers += [Flatten(), BinaryDense(features, 5, scale_weights=self.chance(0.5))]
        model = Sequential(layers or [Sign()], input_shape=shape)
        disturb(model, self.rng, scale=5.0)
        return model


def all_layers(chain):
    """The layers in order, with those inside branches."""
    for layer in chain:
        yield layer
        for branch in layer.branches().values():
            yield from all_layers(branch)


def test_random_networks_compute_the_same_packed(tmp_path):
    rng = np.random.default_rng(0)
    kinds, minima, input_bits = set(), 0, set()
    for seed in range(120):
        model = RandomNet(seed).make()
        if all(isinstance(layer, Dropout) for layer in model.layers):
            continue
        packed = model.freeze()
        packed.save(tmp_path / "model")
        again = load(tmp_path / "model")
        real = np.round(rng.normal(size=(3, *model.input_shape)) * 3, 1).astype(np.float32)
        image = rng.integers(256, size=real.shape, dtype=np.uint8)
        needs_numbers = any(
            getattr(layer, "scale_input", False) for layer in all_layers(model.layers)
        )
        for x in (real, image) if needs_numbers else (real, image, pack(real)):
            expected, got = model(x), packed(x)
            assert isinstance(got, BitArray) == isinstance(expected, BitArray), seed
            message = f"seed {seed}"
            np.testing.assert_array_equal(np.asarray(got), np.asarray(expected), message)
            np.testing.assert_array_equal(np.asarray(again(x)), np.asarray(got), message)
        for layer in all_layers(packed.layers):
            kinds.add(layer.name + ("*" if getattr(layer, "threshold", None) is not None else ""))
            minima += getattr(layer, "minimum", None) is not None
            input_bits.add(getattr(layer, "input_bits", None))
    # every kind of twin came up, those with thresholds (*) too
    assert kinds >= {
        "FloatConv2D",
        "FloatDense",
        "PackedAvgPool2D",
        "PackedBatchNorm",
        "PackedConv2D",
        "PackedConv2D*",
        "PackedDense",
        "PackedFlatten",
        "PackedGlobalAvgPool2D",
        "PackedLevels",
        "PackedMaxPool2D",
        "PackedPlanesConv2D",
        "PackedPlanesConv2D*",
        "PackedQuantize",
        "PackedReLU",
        "PackedResidual",
        "PackedSign",
        "PackedSign*",
    }
    assert minima > 10
    assert input_bits == {None, 1, 2, 3}


def test_pools_between_product_and_sign_become_pools_of_bits():
    rng = np.random.default_rng(1)
    for first in (
        BinaryConv2D(8, 70, 3, padding=1, seed=0),
        BinaryConv2D(8, 70, 1, scale_weights=True),
    ):
        model = Sequential(
            Sign(), first, BatchNorm(70), MaxPool2D(2), BatchNorm(70), MaxPool2D(3, 1, 1),
            BatchNorm(70), Sign(),
        )  # fmt: skip
        disturb(model, rng, scale=4.0)
        packed = model.freeze()
        names = [layer.name for layer in packed.layers]
        assert names == ["PackedSign", "PackedConv2D", "PackedMaxPool2D", "PackedMaxPool2D"]
        assert packed.layers[1].threshold.dtype == np.int32
        x = np.round(rng.normal(size=(20, 8, 8, 8)))
        assert packed(x) == model(x)
        # what the test is about does occur: AND and OR in both pools, and not the same in both
        minima = [layer.minimum for layer in packed.layers[2:]]
        assert all(0 < minimum.sum() < 70 for minimum in minima)
        assert (minima[0] != minima[1]).any()


@pytest.mark.parametrize("gamma", [1.0, -1.0, 0.0])
@pytest.mark.parametrize("after", [False, True])
def test_pool_before_or_after_the_norm(gamma, after):
    """One channel, worked out by hand: OR where larger products mean +1, AND where smaller do."""
    conv = BinaryConv2D(4, 1, 1)
    conv.weight.assign(np.ones((1, 1, 1, 4)))
    norm = BatchNorm(1)
    norm.gamma.assign([gamma])
    norm.running_mean[...] = 1
    norm.beta.assign([-0.5])
    middle = [MaxPool2D(2), norm] if after else [norm, MaxPool2D(2)]
    packed = Sequential(Sign(), conv, *middle, Sign()).freeze()
    pool = packed.layers[-1]
    minimum = False if pool.minimum is None else bool(pool.minimum[0])
    # max before a falling norm: the largest product decides, so all must be small; behind it the
    # smallest product gives the largest value, and one small product is enough
    flip = packed.layers[1].flip is not None
    assert flip == (gamma < 0)
    if gamma:
        assert minimum == (gamma < 0 and after)
    for counts in ([0, 0, 0, 0], [4, 0, 0, 0], [4, 4, 4, 4], [3, 2, 2, 1]):
        x = np.array([[1] * c + [-1] * (4 - c) for c in counts], np.float32).reshape(1, 2, 2, 4)
        z = np.array([2 * c - 4 for c in counts])
        value = gamma * (z.max() - 1) - 0.5 if after else (gamma * (z - 1)).max() - 0.5
        assert np.asarray(packed(x)).item() == (1 if value >= 0 else -1)


def test_layers_that_scale_their_input_stay_in_float_up_to_the_sign():
    rng = np.random.default_rng(2)
    model = Sequential(
        BatchNorm(6),
        BinaryConv2D(6, 40, 3, padding=1, scale_input=True, scale_weights=True, seed=0),
        BatchNorm(40), MaxPool2D(2), Sign(),
    )  # fmt: skip
    disturb(model, rng)
    packed = model.freeze()
    names = [layer.name for layer in packed.layers]
    assert names == ["PackedBatchNorm", "PackedConv2D", "PackedSign", "PackedMaxPool2D"]
    x = rng.normal(size=(9, 6, 6, 6))
    assert packed(x) == model(x)


def test_numbers_flow_past_what_does_not_fold():
    rng = np.random.default_rng(3)
    chains = {
        "PackedSign PackedConv2D PackedMaxPool2D PackedBatchNorm": [MaxPool2D(2), BatchNorm(9)],
        "PackedSign PackedConv2D PackedBatchNorm PackedReLU": [
            BatchNorm(9), BatchNorm(9), ReLU()
        ],
        "PackedSign PackedConv2D PackedAvgPool2D PackedSign": [AvgPool2D(2), Sign()],
        "PackedSign PackedConv2D PackedMaxPool2D": [Sign(), MaxPool2D(2)],
        "PackedSign PackedConv2D PackedMaxPool2D PackedReLU PackedSign": [
            Sign(), MaxPool2D(2), ReLU(), Sign()
        ],
    }  # fmt: skip
    x = rng.normal(size=(5, 4, 4, 3))
    for names, rest in chains.items():
        model = Sequential(Sign(), BinaryConv2D(3, 9, 3, seed=0), *rest)
        disturb(model, rng)
        packed = model.freeze()
        assert [layer.name for layer in packed.layers] == names.split()
        np.testing.assert_array_equal(np.asarray(packed(x)), np.asarray(model(x)))
    integers = Sequential(Sign(), BinaryConv2D(3, 9, 3, seed=0), MaxPool2D(2)).freeze()(x)
    assert integers.dtype == np.int32


def test_residual_sums_of_integers_are_float32_as_in_training():
    rng = np.random.default_rng(4)
    body = Sequential(BinaryConv2D(9, 9, 3, padding=1, seed=0))
    model = Sequential(Sign(), Residual(body), Residual(MaxPool2D(3, 1, 1)), BatchNorm(9), Sign())
    disturb(model, rng)
    x = rng.normal(size=(5, 6, 6, 9))
    packed = model.freeze()
    assert packed(x) == model(x)
    sums, wanted = Packed(packed.layers[:3])(x), Sequential(model.layers[:3])(x)
    np.testing.assert_array_equal(sums, wanted, strict=True)
    assert packed.layers[1].body.layers[0].weight == body.layers[0].bits


def test_convolutions_of_bits_get_integer_thresholds_inside_branches():
    chain = [BinaryConv2D(9, 9, 3, padding=1, seed=0), BatchNorm(9), Sign()]
    for first, kind in (([Sign()], np.int32), ([BatchNorm(9)], np.float32)):
        packed = Sequential(*first, Residual(Sequential(chain))).freeze()
        assert packed.layers[1].body.layers[0].threshold.dtype == kind


def test_packed_conv_net_after_training_steps():
    rng = np.random.default_rng(5)
    model = Sequential(
        BinaryConv2D(3, 20, 3, padding=1, seed=0), MaxPool2D(2), BatchNorm(20), Sign(),
        Residual(Sequential(BinaryConv2D(20, 20, 3, padding=1, seed=1), BatchNorm(20))),
        BinaryConv2D(20, 24, 3, padding=1, scale_input=True, scale_weights=True, seed=2),
        BatchNorm(24), Sign(),
        Flatten(), BinaryDense(24 * 9, 30, scale_weights=True, seed=3), BatchNorm(30), Sign(),
        Dense(30, 4, seed=4), input_shape=(6, 6, 3),
    )  # fmt: skip
    x = rng.integers(256, size=(60, 6, 6, 3), dtype=np.uint8)
    before = [parameter.value.copy() for parameter in model.parameters()]
    model.fit(x, rng.integers(4, size=60), epochs=2, batch_size=20, verbose=0)
    for old, parameter in zip(before, model.parameters(), strict=True):
        assert not np.array_equal(old, parameter.value)
    assert_same(model, x)
    labels = model.predict(x)
    np.testing.assert_array_equal(model.freeze().predict(x, batch_size=7), labels)


def test_inference_never_loads_training_code():
    code = (
        "import sys, numpy as np\n"
        "from bitops.io import load\n"
        "from bitops.layers import Packed, PackedConv2D, PackedDense\n"
        "Packed([PackedDense(np.ones((2, 3)), 0)])(np.ones((1, 3), np.uint8))\n"
        "Packed([PackedConv2D(np.ones((2, 1, 1, 3)), 0)])(np.ones((1, 1, 1, 3), np.uint8))\n"
        "rooms = ('bitops.training', 'bitops.data', 'bitops.recipes', 'bitops.models')\n"
        "print([name for name in sys.modules if name.startswith(rooms)])"
    )

    def loaded(before):
        argv = [sys.executable, "-c", before + code]
        return subprocess.run(argv, capture_output=True, text=True, check=True).stdout.strip()

    assert loaded("") == "[]"
    # The names are those of rooms that exist: each of them would be noticed.
    for name in ("training.losses", "data.datasets", "recipes", "models"):
        assert f"'bitops.{name}'" in loaded(f"import bitops.{name}\n")


@pytest.mark.parametrize("channels", [5, 64])
@pytest.mark.parametrize("end", [Sign, lambda: Quantize(DoReFaActivation(2))])
def test_a_sign_behind_flatten_folds_into_the_convolution(channels, end):
    model = Sequential(
        BinaryConv2D(3, channels, 3, seed=0),
        MaxPool2D(2),
        BatchNorm(channels),
        Flatten(),
        end(),
        BinaryDense(9 * channels, 4, seed=1),
        input_shape=(8, 8, 3),
    )
    x = np.random.default_rng(0).integers(0, 256, (5, 8, 8, 3), np.uint8)
    model.forward(x, training=True)
    net = model.freeze()
    np.testing.assert_array_equal(net(x), model.forward(x))
    kinds = [type(layer).__name__ for layer in net.layers]
    assert kinds.index("PackedFlatten") == len(kinds) - 2
    assert "PackedSign" not in kinds
