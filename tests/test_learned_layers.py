"""Layers of newer networks: learned shifts and scales, products of branches, depthwise layers."""

import numpy as np
import pytest

import bitops as bo
from bitops import io
from bitops.layers import (
    BatchNorm,
    BinaryConv2D,
    BinaryDense,
    BinaryDepthwiseConv2D,
    BinarySeparableConv2D,
    BlurPool2D,
    Codes,
    Concat,
    Conv2D,
    Dense,
    Flatten,
    FloatConv2D,
    GlobalAvgPool2D,
    MaxPool2D,
    Multiply,
    Packed,
    PackedConv2D,
    PackedDense,
    PackedMultiply,
    PackedPadFeatures,
    PackedRPReLU,
    PackedSign,
    PadFeatures,
    Residual,
    RPReLU,
    RSign,
    Scale,
    Sequential,
    Sigmoid,
    Sign,
    check_gradients,
)

RNG = np.random.default_rng(0)
X = RNG.normal(0, 2, (5, 8)).astype(np.float32)
IMAGES = RNG.normal(0, 2, (2, 6, 5, 4)).astype(np.float32)


def disturbed(layer, seed=1):
    """The layer with random parameters, vectors of both signs."""
    rng = np.random.default_rng(seed)
    for parameter in layer.parameters():
        parameter.assign(rng.normal(size=parameter.shape))
    return layer


def trained(*layers, shape):
    """A network whose statistics are those of a batch, and whose parameters are random."""
    model = Sequential(*layers, input_shape=shape)
    x = np.random.default_rng(1).normal(0, 2, (40, *shape)).astype(np.float32)
    model.forward(x, training=True)
    return disturbed(model), x


@pytest.mark.parametrize(
    ("layer", "x"),
    [
        (RPReLU(8), X),
        (RPReLU(4, start=-0.5), IMAGES),
        (Scale(8), X),
        (Scale(4, start=2), IMAGES),
        (Sigmoid(), X),
        (PadFeatures(8, 2, 1), X),
        (PadFeatures(4, after=3), IMAGES),
        (BlurPool2D(4), IMAGES),
        (BlurPool2D(4, 2, (1, 2), 0), IMAGES),
        (BlurPool2D(4, 5, 1, 2), IMAGES),
        (Multiply(Dense(8, 3, seed=0), Dense(8, 3, seed=1)), X),
        (Multiply(Sigmoid()), IMAGES),
        (
            Multiply(
                Conv2D(4, 3, 3, seed=0),
                Sequential(GlobalAvgPool2D(), Dense(4, 3, seed=1), Sigmoid()),
            ),
            IMAGES,
        ),
        (Conv2D(4, 4, 3, stride=2, padding=1, groups=4, seed=0), IMAGES),
        (Conv2D(4, 4, (2, 3), padding=((2, 0), (0, 3)), dilation=2, groups=4, seed=0), IMAGES),
        (Conv2D(4, 8, 3, groups=4, seed=0), IMAGES),
    ],
    ids=lambda value: f"{value!r:.60}" if hasattr(value, "forward") else "",
)
def test_gradients(layer, x):
    check_gradients(disturbed(layer), x)


def test_rsign_has_its_pseudo_gradient():
    layer = RSign(3)
    layer.shift.assign([0.5, -1, 0])
    x = np.float32([[0.5, -1.5, 0.25], [2, -1, -2]])
    np.testing.assert_array_equal(
        bo.unpack(layer.forward(x, training=True)), [[1, -1, 1], [1, 1, -1]]
    )
    dx = layer.backward(np.float32([[1, 2, 4], [8, 16, 32]]))
    # 2 - 2 |x - shift| within 1 of the shift
    np.testing.assert_array_equal(dx, [[2, 2, 6], [0, 32, 0]])
    np.testing.assert_array_equal(layer.shift.grad, [-2, -34, -6])
    check_gradients(RSign(8), X, pseudo=("input", "shift"))


def test_forward():
    layer = RPReLU(3)
    layer.shift.assign([1, 0, -2])
    layer.slope.assign([0.5, -1, 2])
    layer.offset.assign([10, 20, 30])
    np.testing.assert_array_equal(layer([[3, -1, -3], [-1, 2, -2]]), [[12, 21, 28], [9, 22, 30]])
    np.testing.assert_array_equal(
        disturbed(Scale(8)).forward(X), X * disturbed(Scale(8)).scale.value
    )
    np.testing.assert_allclose(Sigmoid()([[0, np.log(3), -np.inf, 1e9]]), [[0.5, 0.75, 0, 1]])
    padded = PadFeatures(4, 1, 2).forward(IMAGES)
    np.testing.assert_array_equal(padded, np.pad(IMAGES, ((0, 0), (0, 0), (0, 0), (1, 2))))
    np.testing.assert_array_equal(PadFeatures(2, 1)(bo.pack([[1, -1]])), [[0, 1, -1]])
    gate = Multiply(Sign(), GlobalAvgPool2D())
    means = IMAGES.mean(axis=(1, 2), keepdims=True)
    np.testing.assert_allclose(gate(IMAGES), np.where(IMAGES >= 0, 1, -1) * means, rtol=1e-5)


@pytest.mark.parametrize(("size", "row"), [(2, [1, 1]), (3, [1, 2, 1]), (5, [1, 4, 6, 4, 1])])
def test_blur_is_a_convolution_of_each_channel(size, row):
    layer = BlurPool2D(4, size, stride=1, padding=0)
    window = np.outer(row, row) / np.sum(row) ** 2
    views = np.lib.stride_tricks.sliding_window_view(IMAGES, (size, size), axis=(1, 2))
    np.testing.assert_allclose(
        layer(IMAGES), (views * window).sum(axis=(-2, -1)), rtol=1e-5, atol=1e-6
    )
    assert not layer.parameters()
    (packed,) = Sequential(layer).freeze().layers
    assert isinstance(packed, FloatConv2D)
    np.testing.assert_array_equal(packed(IMAGES), layer(IMAGES))
    assert BlurPool2D(4).output_shape((7, 8, 4)) == (4, 4, 4)


@pytest.mark.parametrize("pad_value", [0, 1, -1])
@pytest.mark.parametrize("multiplier", [1, 2])
def test_depthwise_is_a_convolution_of_each_channel(multiplier, pad_value):
    settings = {"stride": (2, 1), "padding": 1, "pad_value": pad_value}
    layer = BinaryDepthwiseConv2D(4, 3, multiplier=multiplier, bias=True, seed=0, **settings)
    layer.bias.assign(np.arange(4 * multiplier))
    x = bo.pack(IMAGES)
    y = layer.forward(x, training=True)
    dy = RNG.normal(size=y.shape).astype(np.float32)
    dx = layer.backward(dy)
    for channel in range(4):
        own = slice(channel * multiplier, (channel + 1) * multiplier)
        alone = BinaryConv2D(1, multiplier, 3, bias=True, **settings)
        alone.weight.assign(layer.weight.value[own])
        alone.bias.assign(layer.bias.value[own])
        part = bo.pack(IMAGES[..., channel : channel + 1])
        np.testing.assert_array_equal(y[..., own], alone.forward(part, training=True))
        below = alone.backward(np.ascontiguousarray(dy[..., own]))
        np.testing.assert_allclose(dx[..., channel], below[..., 0], rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(layer.weight.grad[own], alone.weight.grad, rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(layer.bias.grad[own], alone.bias.grad, rtol=1e-5, atol=1e-5)


def test_separable_is_both_in_turn():
    options = {"scale_weights": True, "gradient": "chain", "lr_scale": 1.0}
    layer = BinarySeparableConv2D(
        4, 7, 3, stride=2, padding=1, multiplier=2, pad_value=1, bias=True, seed=0, **options
    )
    depthwise, points = layer.layers
    assert isinstance(depthwise, BinaryDepthwiseConv2D) and depthwise.bias is None
    assert depthwise.weight.shape == (8, 3, 3, 1) and points.weight.shape == (7, 1, 1, 8)
    assert depthwise.weight.lr_scale == points.weight.lr_scale == 1
    assert depthwise.alpha is not None and points.alpha is not None
    x = bo.pack(IMAGES)
    np.testing.assert_array_equal(layer(x), points(depthwise(x)))
    assert repr(layer).startswith("BinarySeparableConv2D(")
    model, x = trained(
        Conv2D(3, 4, 3, seed=0),
        BatchNorm(4),
        Sign(),
        layer,
        BatchNorm(7),
        Flatten(),
        shape=(7, 6, 3),
    )
    packed = model.freeze()
    np.testing.assert_array_equal(packed(x), model(x))
    assert [p.name for p in packed.layers] == (
        "FloatConv2D PackedSign PackedConv2D PackedConv2D PackedBatchNorm PackedFlatten".split()
    )


def test_shifts_fold_into_thresholds():
    model, x = trained(
        RSign(8),
        BinaryDense(8, 12, seed=0),
        BatchNorm(12),
        RPReLU(12),
        RSign(12),
        BinaryDense(12, 9, seed=1),
        Scale(9),
        RSign(9),
        BinaryDense(9, 3, seed=2),
        Scale(3),
        shape=(8,),
    )
    model.layers[3].slope.assign(np.abs(model.layers[3].slope.value))
    packed = model.freeze()
    np.testing.assert_array_equal(packed(x), model(x))
    kinds = [type(layer) for layer in packed.layers]
    assert kinds == [PackedSign, PackedDense, PackedDense, PackedDense]
    assert packed.layers[1].threshold.dtype == packed.layers[2].threshold.dtype == np.int32
    assert packed.layers[3].alpha is not None


def test_the_shift_of_a_sign_alone_is_found_exactly():
    """Where x - shift is rounded: the threshold decides neighbours of the shift as it does."""
    layer = RSign(64)
    shift = np.float32(np.concatenate([RNG.normal(size=32), 10.0 ** RNG.integers(-40, 38, 32)]))
    layer.shift.assign(shift)
    rows = [shift]
    for way in (np.inf, -np.inf):
        near = shift
        for _ in range(3):
            near = np.nextafter(near, np.float32(way))
            rows.append(near)
    x = np.stack(rows)
    assert Sequential(layer).freeze()(x) == layer(x)


@pytest.mark.parametrize("after", [RSign, RPReLU])
def test_falling_slopes_stay_numbers(after):
    model, x = trained(BinaryDense(8, 12, seed=0), RPReLU(12, -0.5), after(12), shape=(8,))
    packed = model.freeze()
    assert any(isinstance(layer, PackedRPReLU) for layer in packed.layers)
    wanted, got = model(x), packed(x)
    assert (got == wanted) if after is RSign else (got == wanted).all()


def test_pools_change_places_with_shifted_signs():
    model, x = trained(
        Conv2D(3, 8, 3, seed=0),
        RSign(8),
        BinaryConv2D(8, 6, 3, seed=1),
        BatchNorm(6),
        MaxPool2D(2),
        RSign(6),
        shape=(9, 8, 3),
    )
    packed = model.freeze()
    names = [layer.name for layer in packed.layers]
    assert names == ["FloatConv2D", "PackedSign", "PackedConv2D", "PackedMaxPool2D"]
    assert packed(x) == model(x)


def test_blocks_of_products_freeze_and_load(tmp_path):
    def block(channels):
        gate = Sequential(GlobalAvgPool2D(), Dense(channels, channels, seed=2), Sigmoid())
        conv = Sequential(Sign(), BinaryConv2D(channels, channels, 3, padding=1, seed=channels))
        return Residual(Sequential(BatchNorm(channels), Multiply(conv, gate), RPReLU(channels)))

    model, x = trained(
        Conv2D(3, 8, 3, seed=0),
        block(8),
        Concat(PadFeatures(8, after=3)),
        block(19),
        BlurPool2D(19),
        GlobalAvgPool2D(),
        Scale(19),
        shape=(8, 8, 3),
    )
    packed = model.freeze()
    np.testing.assert_array_equal(packed(x), model(x))
    io.save(packed, tmp_path / "net.safetensors")
    again = io.load(tmp_path / "net.safetensors")
    np.testing.assert_array_equal(again(x), packed(x))
    assert repr(again) == repr(packed)


def test_factors_of_codes_and_bits():
    codes = Codes(np.arange(8, dtype=np.uint8).reshape(2, 4) % 4, 2, 0.5)
    np.testing.assert_array_equal(Multiply(Sign())(codes), codes.values())
    signs = np.sign(X)
    np.testing.assert_array_equal(PackedMultiply(PackedSign())(bo.pack(X)), signs * signs)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: RSign(0), ValueError, r"\[RSign\] features"),
        (lambda: RPReLU(3, np.nan), ValueError, r"\[RPReLU\] start must be finite"),
        (lambda: RPReLU(3, 1e39), ValueError, r"\[RPReLU\] start must be finite"),
        (lambda: Scale(3, "a"), TypeError, r"\[Scale\] start"),
        (lambda: RSign(3)([[1, np.nan, 2]]), ValueError, "NaN"),
        (lambda: RSign(3)([[1, 2]]), ValueError, r"\[RSign\]"),
        (lambda: PackedRPReLU([1.0], [1.0], [1.0, 2.0]), ValueError, "must have one shape"),
        (lambda: PackedRPReLU([1.0], [np.inf], [1.0]), ValueError, "slope must be finite"),
        (lambda: PackedRPReLU(1.0, 1.0, 1.0), ValueError, "must have one shape"),
        (lambda: PadFeatures(3, -1), ValueError, r"\[PadFeatures\] before"),
        (lambda: PackedPadFeatures(3, 0, 0.5), TypeError, r"\[PackedPadFeatures\] after"),
        (lambda: PadFeatures(3)(X), ValueError, r"\[PadFeatures\]"),
        (lambda: BlurPool2D(3, 4), ValueError, "kernel_size must be 2, 3 or 5"),
        (lambda: BlurPool2D(3, stride=0), ValueError, r"\[BlurPool2D\] stride"),
        (lambda: BinaryDepthwiseConv2D(0, 3), ValueError, r"\[BinaryDepthwiseConv2D\] channels"),
        (
            lambda: BinaryDepthwiseConv2D(3, 3, multiplier=0),
            ValueError,
            r"\[BinaryDepthwiseConv2D\] multiplier",
        ),
        (lambda: BinarySeparableConv2D(3, 0, 3), ValueError, "out_channels"),
        (lambda: BinarySeparableConv2D(3, 1, 3, seed=-1), ValueError, "seed"),
        (lambda: Multiply(3), TypeError, "body must be a TrainingLayer"),
        (lambda: Multiply(Dense(3, 2), Dense(3, 4)), ValueError, "shortcut must give the shape"),
        (lambda: Multiply(Conv2D(4, 3, 3)).forward(IMAGES), ValueError, "must give the shape"),
        (lambda: Multiply(MaxPool2D(2)).forward(IMAGES), ValueError, "must give the shape"),
        (lambda: Packed(PackedMultiply(PackedConv2D(np.ones((2, 1, 1, 3))))), ValueError, "shape"),
    ],
)
def test_refusals(make, error, message):
    with pytest.raises(error, match=message):
        make()
