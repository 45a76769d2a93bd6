"""Packed networks as C: compiled, they give the same scores."""

import numpy as np
import pytest
from c_program import check, needs_compiler, numbers, pixels, run, weights
from test_models import NETS, disturb, examples

import bitops as bo
from bitops import layers as L
from bitops import zoo
from bitops.convert import CSize, to_c
from bitops.layers.operation import Convolution, Linear
from bitops.quantizers import DoReFaActivation, DoReFaWeight, Ternary
from bitops.reference.windows import window_values


@pytest.fixture
def order_of_c(monkeypatch):
    """Let packed layers add products with float weights, and compute exp, as the C code does."""

    def linear(operation, x, w, bias):
        products = as_numbers(x)[..., np.newaxis, :] * w
        return with_bias(sum_in_order(products), bias)

    def convolution(operation, x, w, bias):
        window, groups = operation.windows.on("", x), operation.groups
        values, share, per = as_numbers(x), w.shape[-1], len(w) // groups
        parts = []
        for g in range(groups):
            seen = window_values(values[..., g * share : (g + 1) * share], window, 0)
            rows = seen.reshape(len(x), *window.output, -1)
            filters = w[g * per : (g + 1) * per].reshape(per, -1)
            parts.append(np.stack([sum_in_order(rows * filter) for filter in filters], axis=-1))
        return with_bias(np.concatenate(parts, axis=-1), bias)

    for kind, multiply in ((Linear, linear), (Convolution, convolution)):
        monkeypatch.setattr(kind, "multiply_floats", multiply)
        monkeypatch.setattr(kind, "compile_floats", lambda *_: None)
    sigmoid = lambda _, x: 1 / (1 + exponential(-as_numbers(x)))  # noqa: E731
    monkeypatch.setattr(L.PackedSigmoid, "forward", sigmoid)


def as_numbers(x):
    return np.float32(bo.unpack(x) if isinstance(x, bo.BitArray) else x)


def sum_in_order(products):
    return np.cumsum(products, axis=-1, dtype=np.float32)[..., -1]


def with_bias(y, bias):
    return y if bias is None else y + bias


def exponential(x):
    """e^x of moderate numbers, in the steps of the C code."""
    one = np.float32(1)
    n = np.trunc(x * np.float32(1.442695041) + np.where(x < 0, np.float32(-0.5), np.float32(0.5)))
    rest = x - n * np.float32(0.693359375) + n * np.float32(2.12194440e-4)
    y = np.full_like(x, one / np.float32(5040))
    for factorial in (720, 120, 24, 6, 2, 1, 1):
        y = y * rest + one / np.float32(factorial)
    return y * np.exp2(n)


@needs_compiler
@pytest.mark.parametrize("name", [name for name in NETS if name != "quicknet, large"])
def test_trained_networks(name, tmp_path, rng, order_of_c):
    model = NETS[name].make(seed=3)
    model.forward(examples(NETS[name], rng, 8), training=True)
    disturb(model, rng)
    check(model.freeze(), examples(NETS[name], rng, 3), tmp_path)


@needs_compiler
@pytest.mark.parametrize("name", ["lenet5", "resnet18"])
def test_networks_that_scale_their_input(name, tmp_path, rng, order_of_c):
    model = NETS[name].make(seed=3, scale_weights=True, scale_input=True)
    check(model.freeze(), examples(NETS[name], rng, 3), tmp_path)


@needs_compiler
@pytest.mark.parametrize("name", zoo.names())
def test_networks_of_the_zoo(name, tmp_path, order_of_c):
    check(zoo.load(name), zoo.samples(name)[:2], tmp_path)


@needs_compiler
@pytest.mark.parametrize("pad_value", [0, 1, -1])
@pytest.mark.parametrize("channels", [3, 32, 40])
def test_convolutions_of_bits(channels, pad_value, tmp_path, rng):
    limits = rng.integers(-20, 20, channels)
    limits[:3] = 2**31 - 1, -(2**31), 0
    packed = L.Packed(
        L.PackedConv2D(
            weights(rng, channels, 3, 2, 5),
            limits,
            rng.integers(0, 2, channels) == 1,
            stride=(1, 2),
            dilation=(2, 1),
            padding=((2, 1), (0, 1)),
            pad_value=pad_value,
        ),
        L.PackedMaxPool2D(2, 1, 1, minimum=rng.integers(0, 2, channels) == 1),
        L.PackedMaxPool2D((2, 1)),
        L.PackedConv2D(
            weights(rng, channels, 2, 2, channels), 0, padding="same", pad_value=pad_value
        ),
        L.PackedFlatten(),
        L.PackedDense(weights(rng, 7, 3 * 6 * channels)),
        input_shape=(7, 9, 5),
    )
    check(packed, bo.pack(weights(rng, 4, 7, 9, 5)), tmp_path)


@needs_compiler
@pytest.mark.parametrize("scales", [{}, {"alpha": 0.3}, {"bias": -1.7}, {"alpha": -3, "bias": 0.1}])
def test_bytes_and_scales(scales, tmp_path, rng):
    packed = L.Packed(
        L.PackedConv2D(
            weights(rng, 33, 3, 3, 2),
            np.float32(rng.normal(0, 300, 33)),
            padding=1,
            stride=2,
        ),
        L.PackedConv2D(weights(rng, 4, 2, 2, 33), **scales),
        input_shape=(6, 5, 2),
    )
    check(packed, pixels(rng, 5, 6, 5, 2), tmp_path)


@needs_compiler
def test_one_layer_needs_no_workspace(tmp_path, rng):
    packed = L.Packed(L.PackedFlatten(), L.PackedDense(weights(rng, 3, 70)), input_shape=(5, 7, 2))
    size = check(packed, pixels(rng, 4, 5, 7, 2), tmp_path)
    assert size == CSize(rom=3 * 3 * 4 + 17 * 4, ram=0)


@needs_compiler
@pytest.mark.parametrize("quantizer", [None, Ternary(), DoReFaWeight(3)], ids=repr)
def test_planes_and_bits_that_stand_for_zero_and_one(quantizer, tmp_path, rng):
    def conv(channels, filters, seed):
        sizes = channels, filters, 3
        if quantizer is None:
            return L.BinaryConv2D(*sizes, padding=1, seed=seed)
        return L.QuantizedConv2D(*sizes, quantizer, padding=1, seed=seed)

    model = L.Sequential(
        conv(2, 9, 0),
        L.BatchNorm(9),
        L.Quantize(DoReFaActivation(1)),
        conv(9, 10, 1),
        L.BatchNorm(10),
        L.Sign(),
        L.Flatten(),
        L.BinaryDense(200, 4, seed=2),
        L.BatchNorm(4),
        input_shape=(4, 5, 2),
    )
    model.forward(pixels(rng, 9, 4, 5, 2), training=True)
    disturb(model, rng)
    packed = model.freeze()
    assert packed.layers[1].input_bits == 1
    assert (quantizer is None) == isinstance(packed.layers[1], L.PackedConv2D)
    check(packed, pixels(rng, 9, 4, 5, 2), tmp_path)


@needs_compiler
@pytest.mark.parametrize("seed", range(20))
def test_random_networks(seed, tmp_path):
    rng = np.random.default_rng(seed)
    takes_bits = bool(rng.integers(0, 2))
    shape = (int(rng.integers(6, 12)), int(rng.integers(6, 12)), int(rng.integers(1, 70)))
    layers, sizes = [], shape
    for i in range(int(rng.integers(1, 4))):
        channels = int(rng.integers(1, 70))
        kernel = int(rng.integers(1, 4))
        layers.append(
            L.PackedConv2D(
                weights(rng, channels, kernel, kernel, sizes[-1]),
                rng.integers(-9, 9, channels),
                rng.integers(0, 2, channels) == 1,
                padding=int(rng.integers(0, 3)),
                stride=int(rng.integers(1, 3)),
                pad_value=int(rng.integers(-1, 2)) if takes_bits or i else 0,
            )
        )
        if rng.integers(0, 2):
            minimum = rng.integers(0, 2, channels) == 1
            layers.append(L.PackedMaxPool2D(2, 1, 1, minimum if rng.integers(0, 2) else None))
        sizes = L.Packed(layers, input_shape=shape).output_shape(shape)
        if min(sizes[:2]) < 5:
            break
    layers += [L.PackedFlatten(), L.PackedDense(weights(rng, 5, int(np.prod(sizes))))]
    x = bo.pack(weights(rng, 3, *shape)) if takes_bits else pixels(rng, 3, *shape)
    check(L.Packed(layers, input_shape=shape), x, tmp_path)


@needs_compiler
@pytest.mark.parametrize("alpha", [None, 0.25])
def test_planes_of_scores(alpha, tmp_path, rng):
    packed = L.Packed(
        L.PackedPlanesConv2D(weights(rng, 2, 35, 2, 2, 3), (1, 1), 0.5, input_bits=8, padding=1),
        L.PackedMaxPool2D(2),
        L.PackedFlatten(),
        L.PackedPlanesDense(weights(rng, 3, 4, 210), (1, 2, 4), alpha=alpha),
        input_shape=(5, 4, 3),
    )
    check(packed, pixels(rng, 6, 5, 4, 3), tmp_path)


@needs_compiler
@pytest.mark.parametrize("takes_bits", [False, True])
@pytest.mark.parametrize(("channels", "groups"), [(6, 2), (40, 4), (66, 2), (64, 2), (33, 33)])
def test_groups(channels, groups, takes_bits, tmp_path, rng):
    """Groups of bits begin at any bit, within a word or in two."""
    packed = L.Packed(
        L.PackedConv2D(
            weights(rng, 2 * groups, 3, 2, channels // groups),
            rng.integers(-9, 9, 2 * groups),
            padding=1,
            groups=groups,
            pad_value=-1 if takes_bits else 0,
        ),
        L.PackedConv2D(weights(rng, 2 * groups, 2, 2, 2), groups=groups, alpha=0.5),
        input_shape=(5, 4, channels),
    )
    x = weights(rng, 3, 5, 4, channels)
    check(packed, bo.pack(x) if takes_bits else pixels(rng, *x.shape), tmp_path)


def real(rng, count):
    return rng.normal(0, 1, count).astype(np.float32)


def scaled_conv(rng, inputs, outputs, **options):
    """A convolution of bits that gives numbers."""
    alpha, bias = rng.uniform(0.01, 0.2, outputs).astype(np.float32), real(rng, outputs)
    w = weights(rng, outputs, 3, 3, inputs)
    return L.PackedConv2D(w, alpha=alpha, bias=bias, padding=1, **options)


def signs_of(rng, channels):
    flip = rng.integers(0, 2, channels) == 1
    plain = L.PackedSign(real(rng, channels), flip)
    return L.PackedSign() if rng.integers(0, 2) else plain


STEPS = {
    "norm": lambda rng, c: L.PackedBatchNorm(real(rng, c), real(rng, c)),
    "relu": lambda rng, c: L.PackedReLU(),
    "clip": lambda rng, c: L.PackedClip(-0.7, 0.9),
    "half": lambda rng, c: L.PackedClip(None, 0.25),
    "prelu": lambda rng, c: L.PackedPReLU(real(rng, c)),
    "mean": lambda rng, c: L.PackedAvgPool2D((2, 3), 1, ((1, 0), (1, 1))),
    "max": lambda rng, c: L.PackedMaxPool2D(2, 1, ((0, 1), (1, 0))),
}


@needs_compiler
@pytest.mark.parametrize("name", STEPS)
def test_steps_of_numbers(name, tmp_path, rng):
    packed = L.Packed(
        scaled_conv(rng, 2, 33),
        STEPS[name](rng, 33),
        signs_of(rng, 33),
        scaled_conv(rng, 33, 5),
        STEPS[name](rng, 5),
        input_shape=(6, 5, 2),
    )
    check(packed, pixels(rng, 4, 6, 5, 2), tmp_path)


@needs_compiler
@pytest.mark.parametrize("each", [False, True])
def test_codes_of_several_bits(each, tmp_path, rng):
    rows = 9 if each else 1
    thresholds = np.sort(rng.normal(0, 20, (rows, 6)), axis=1).astype(np.float32)
    packed = L.Packed(
        L.PackedConv2D(weights(rng, 9, 3, 3, 2), alpha=np.full(9, 0.1)),
        L.PackedMultiThreshold(thresholds),
        L.PackedMaxPool2D(2, 1) if each else L.PackedConv2D(weights(rng, 9, 1, 1, 9), input_bits=3),
        L.PackedQuantize(2, 7.5),
        L.PackedPlanesConv2D(weights(rng, 2, 8, 2, 2, 9), (1, 2), input_bits=2, alpha=0.3),
        L.PackedQuantize(4, 3.0),
        L.PackedLevels(0.3),
        L.PackedGlobalAvgPool2D(),
        input_shape=(6, 6, 2),
    )
    check(packed, pixels(rng, 9, 6, 6, 2), tmp_path)


@needs_compiler
def test_integer_thresholds_of_integers(tmp_path, rng):
    packed = L.Packed(
        L.PackedConv2D(weights(rng, 5, 1, 1, 3)),
        L.PackedMultiThreshold(np.array([[-100, 3, 4, 2**24 + 1]])),
        L.PackedConv2D(weights(rng, 5, 1, 1, 5), input_bits=3),
        L.PackedSign(np.array([0, 1, -2, 2**24 + 1, -(2**31)])),
        L.PackedConv2D(weights(rng, 2, 1, 1, 5)),
        input_shape=(4, 4, 3),
    )
    check(packed, pixels(rng, 9, 4, 4, 3), tmp_path)


# Float weights, and products of numbers


def float_conv(rng, inputs, outputs, **options):
    w = numbers(rng, outputs, 3, 2, inputs // options.get("groups", 1))
    return L.FloatConv2D(w, real(rng, outputs), **options)


FLOAT_LAYERS = {
    "dense": lambda rng: [L.PackedFlatten(), L.FloatDense(numbers(rng, 5, 126), real(rng, 5))],
    "points": lambda rng: [L.FloatDense(numbers(rng, 7, 6))],
    "conv": lambda rng: [float_conv(rng, 6, 9, padding=((1, 0), (0, 1)), stride=2)],
    "dilated": lambda rng: [float_conv(rng, 6, 9, dilation=(1, 2), padding="same")],
    "groups": lambda rng: [float_conv(rng, 6, 4, groups=2, padding=1)],
    "depthwise": lambda rng: [float_conv(rng, 6, 6, groups=6, padding=1)],
}


@needs_compiler
@pytest.mark.parametrize(
    ("name", "kind"),
    [*((name, "float32") for name in FLOAT_LAYERS), ("dense", "bits"), ("groups", "uint8")],
)
def test_float_weights(name, kind, tmp_path, rng, order_of_c):
    packed = L.Packed(*FLOAT_LAYERS[name](rng), input_shape=(7, 3, 6))
    shape = 3, 7, 3, 6
    given = {"bits": bo.pack(weights(rng, *shape)), "uint8": pixels(rng, *shape)}
    check(packed, given.get(kind, numbers(rng, *shape)), tmp_path)


@needs_compiler
def test_the_order_of_blas_differs_in_the_last_bits(tmp_path, rng):
    packed = L.Packed(
        float_conv(rng, 6, 40, padding=1),
        L.PackedReLU(),
        L.PackedFlatten(),
        L.FloatDense(numbers(rng, 5, 1120)),
        input_shape=(7, 3, 6),
    )
    check(packed, numbers(rng, 9, 7, 3, 6), tmp_path, rtol=1e-5)


@needs_compiler
def test_depthwise_float_filters_need_no_tolerance(tmp_path, rng):
    packed = L.Packed(*FLOAT_LAYERS["depthwise"](rng), L.PackedSign(), input_shape=(7, 3, 6))
    packed = L.Packed(*packed.layers, scaled_conv(rng, 6, 5), input_shape=(7, 3, 6))
    check(packed, numbers(rng, 9, 7, 3, 6), tmp_path)


@needs_compiler
@pytest.mark.parametrize("outputs", ["sums", "scales", "bits"])
@pytest.mark.parametrize("planes", [False, True])
def test_signs_times_numbers(planes, outputs, tmp_path, rng):
    """Products of +-1 with numbers have the order of weight_gemm."""
    settings = {"sums": {}, "scales": {"alpha": 0.3, "bias": real(rng, 33)}}
    first = settings.get(outputs, {"threshold": real(rng, 33), "flip": np.arange(33) % 2 == 0})
    conv, dense = L.PackedConv2D, L.PackedDense
    filters, rows, more = weights(rng, 33, 3, 2, 5), weights(rng, 4, 660), ()
    if planes:
        conv, dense, more = L.PackedPlanesConv2D, L.PackedPlanesDense, ((1, 2),)
        filters, rows = np.stack([filters, -filters[::-1]]), np.stack([rows, rows[::-1]])
    packed = L.Packed(
        conv(filters, *more, **first, padding=((1, 0), (0, 1)), stride=(1, 2)),
        L.PackedFlatten(),
        dense(rows, *more, alpha=0.5),
        input_shape=(11, 3, 5),
    )
    check(packed, numbers(rng, 4, 11, 3, 5), tmp_path)


@needs_compiler
@pytest.mark.parametrize("groups", [1, 2, 6])
def test_signs_times_numbers_in_groups(groups, tmp_path, rng):
    packed = L.Packed(
        L.PackedConv2D(weights(rng, 6, 3, 3, 6 // groups), padding=1, groups=groups),
        L.PackedConv2D(weights(rng, 5, 1, 1, 6), threshold=0),  # of sums
        scaled_conv(rng, 5, 3),
        input_shape=(4, 5, 6),
    )
    check(packed, pixels(rng, 4, 4, 5, 6), tmp_path)
    check(packed, numbers(rng, 4, 4, 5, 6), tmp_path)


@needs_compiler
@pytest.mark.parametrize("channels", [1, 16, 37])
@pytest.mark.parametrize("scales", [{}, {"alpha": 0.3, "bias": -0.7}])
def test_input_that_scales(channels, scales, tmp_path, rng):
    w = weights(rng, 9, 3, 2, channels)
    settings = {"stride": (1, 2), "padding": ((1, 0), (0, 1)), "pad_value": -1}
    packed = L.Packed(
        L.PackedConv2D(w, scale_input=True, **settings, **scales), input_shape=(6, 5, channels)
    )
    check(packed, numbers(rng, 4, 6, 5, channels), tmp_path)


@needs_compiler
def test_scores_of_bits_that_stand_for_zero_and_one(tmp_path, rng):
    for number, scales in enumerate(({}, {"alpha": 0.1, "bias": 1.5})):
        packed = L.Packed(
            L.PackedPlanesDense(
                np.stack([weights(rng, 6, 40), weights(rng, 6, 40)]),
                (1, 2),
                input_bits=1,
                **scales,
            )
        )
        check(packed, bo.pack(weights(rng, 9, 40)), tmp_path / str(number))


@needs_compiler
@pytest.mark.parametrize("value", [0, 1, -1, 2.5])
@pytest.mark.parametrize("kind", ["bits", "uint8", "float32", "sums"])
def test_padding(kind, value, tmp_path, rng):
    if kind == "bits" and value not in (-1, 1):
        pytest.skip("bits are +-1")
    first = {
        "bits": [L.PackedConv2D(weights(rng, 5, 1, 1, 5), 0)],
        "uint8": [L.PackedQuantize(2)],
        "float32": [L.PackedReLU()],
        "sums": [L.PackedConv2D(weights(rng, 5, 1, 1, 5))],
    }
    packed = L.Packed(
        *first[kind],
        L.PackedPad2D(((2, 0), (1, 1)), value),
        L.PackedConv2D(weights(rng, 4, 2, 2, 5), alpha=0.5),
        input_shape=(4, 3, 5),
    )
    check(packed, pixels(rng, 4, 4, 3, 5), tmp_path)


@needs_compiler
def test_gates_shifts_and_padded_features(tmp_path, rng):
    gate = [L.PackedGlobalAvgPool2D(), L.PackedBatchNorm(real(rng, 9), real(rng, 9))]
    packed = L.Packed(
        L.PackedMultiply(L.PackedRPReLU(real(rng, 9), real(rng, 9), real(rng, 9)), gate),
        L.PackedResidual([L.PackedSign(), scaled_conv(rng, 9, 5), L.PackedPadFeatures(5, 3, 1)]),
        L.PackedMultiply(L.PackedSign()),
        L.PackedMaxPool2D(2, 1, minimum=np.arange(9) % 2 == 0),
        input_shape=(4, 5, 9),
    )
    check(packed, numbers(rng, 4, 4, 5, 9), tmp_path)


@needs_compiler
def test_sequences(tmp_path, rng, order_of_c):
    model = L.Sequential(
        L.Conv1D(3, 8, 3, padding=1, seed=0),
        L.BatchNorm(8),
        L.Sign(),
        L.BinaryConv1D(8, 33, 5, stride=2, seed=1),
        L.MaxPool1D(2),
        L.BatchNorm(33),
        L.Sign(),
        L.BinaryConv1D(33, 6, 2, seed=2),
        L.BatchNorm(6),
        L.GlobalAvgPool1D(),
        input_shape=(30, 3),
    )
    x = numbers(rng, 5, 30, 3)
    model.forward(x, training=True)
    disturb(model, rng)
    check(model.freeze(), x, tmp_path)
    whole = L.Packed(model.freeze().layers[:-1], input_shape=(30, 3))
    check(whole, x, tmp_path)


@needs_compiler
@pytest.mark.parametrize("layer", [L.PackedSigmoid(), L.PackedTanh(), L.PackedSoftmax()], ids=repr)
def test_functions_with_an_exponential(layer, tmp_path, rng):
    rows = np.concatenate([np.geomspace(1e-30, 200, 599), [0]]).astype(np.float32)
    rows = np.concatenate([rows, -rows]).reshape(-1, 4)
    packed = L.Packed(layer, input_shape=(4,))
    to_c(packed, tmp_path, takes="float32")
    scores, _ = run(tmp_path, rows, rows.shape, np.float32)
    np.testing.assert_allclose(scores, packed(rows), rtol=5e-7, atol=1e-42)


def block(rng, channels, depth=0):
    """A residual or dense block of random steps, perhaps with others inside, and its channels."""
    is_sum = bool(rng.integers(0, 2))
    out = channels if is_sum else int(rng.integers(1, 20))
    body = [signs_of(rng, channels), scaled_conv(rng, channels, out)]
    for name in rng.choice(["norm", "relu", "prelu", "clip"], int(rng.integers(0, 3))):
        body.append(STEPS[name](rng, out))
    if is_sum and depth < 2 and rng.integers(0, 2):
        body.append(L.PackedResidual([signs_of(rng, out), scaled_conv(rng, out, out)]))
    shortcut = [None, [L.PackedAvgPool2D(3, 1, 1)], [signs_of(rng, channels)]][rng.integers(0, 3)]
    kind = L.PackedResidual if is_sum else L.PackedConcat
    return kind(body, shortcut), out if is_sum else channels + out


@needs_compiler
@pytest.mark.parametrize("seed", range(12))
def test_random_networks_with_branches(seed, tmp_path):
    rng = np.random.default_rng(seed)
    takes_bits, first = bool(rng.integers(0, 2)), int(rng.integers(1, 40))
    channels = int(rng.integers(3, 40))
    layers = [scaled_conv(rng, first, channels, stride=int(rng.integers(1, 3)))]
    for _ in range(int(rng.integers(1, 4))):
        made, channels = block(rng, channels)
        layers.append(made)
    layers += [signs_of(rng, channels), scaled_conv(rng, channels, 6), L.PackedGlobalAvgPool2D()]
    x = bo.pack(weights(rng, 3, 7, 6, first)) if takes_bits else pixels(rng, 3, 7, 6, first)
    size = check(L.Packed(layers, input_shape=(7, 6, first)), x, tmp_path)
    most = 4 * 42 * (3 * channels + 64)  # words of a pixel: two branches, and what they make
    assert 0 < size.ram < most
