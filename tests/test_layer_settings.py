"""Layers of images: shapes, summaries, settings that do not fit, reprs."""

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
    FloatConv2D,
    FloatDense,
    GlobalAvgPool2D,
    MaxPool2D,
    Packed,
    PackedConv2D,
    PackedDense,
    PackedGlobalAvgPool2D,
    PackedMaxPool2D,
    PackedPlanesDense,
    PackedResidual,
    PackedSign,
    ReLU,
    Residual,
    Sequential,
    Sign,
)
from bitops.ops.array import pack
from helpers import real_images


def conv_net(**options):
    return Sequential(
        BinaryConv2D(3, 16, 3, padding=1, seed=0),
        MaxPool2D(2),
        BatchNorm(16),
        Sign(),
        Residual(
            Sequential(
                BinaryConv2D(16, 8, 3, stride=2, padding=1, scale_weights=True), BatchNorm(8)
            ),
            Sequential(AvgPool2D(2), Conv2D(16, 8, 1)),
        ),
        Flatten(),
        Dense(32, 10),
        **options,
    )


def test_summary_shows_shapes_and_multiply_adds():
    unknown = conv_net().summary()
    outputs = {row.layer: row.output for row in unknown.rows}
    assert outputs["BinaryConv2D"] == "?x?x16 numbers"
    assert outputs["Sign"] == "?x?x16 bits"
    assert outputs["body: BinaryConv2D"] == "?x?x8 numbers"
    assert outputs["Flatten"] == "? numbers"
    assert outputs["Dense"] == "10 numbers"
    assert unknown.total.float_macs is None and unknown.total.binary_macs is None
    assert unknown.rows[-1].float_macs == 320
    assert "?" in str(unknown).splitlines()[-1]
    known = conv_net().summary((8, 8, 3))
    outputs = {row.layer: row.output for row in known.rows}
    assert outputs["MaxPool2D"] == "4x4x16 numbers"
    assert outputs["body: BinaryConv2D"] == outputs["shortcut: Conv2D"] == "2x2x8 numbers"
    assert outputs["Residual"] == "2x2x8 numbers"
    assert outputs["Flatten"] == "32 numbers"
    total = known.total
    assert total.binary_macs == 8 * 9 * 16 * 4
    assert total.float_macs == 16 * 27 * 64 + 16 * 16 + 8 * 4 + 8 * 16 * 4 + 320
    assert total.parameters == 16 * 27 + 32 + 8 * 144 + 16 + 8 * 16 + 8 + 330
    assert total == conv_net(input_shape=(8, 8, 3)).summary().total
    packed = conv_net(input_shape=(8, 8, 3)).freeze()
    assert packed.input_shape == (8, 8, 3)
    assert packed.summary().total.binary_macs == total.binary_macs


def test_summary_is_aligned_with_unknown_sizes():
    for model in (conv_net(), conv_net().freeze()):
        assert len({len(line) for line in str(model.summary()).splitlines()}) == 1


def test_shapes_of_chains():
    model = conv_net()
    assert model.in_features == 3 and model.out_features == 10
    assert model.output_shape((8, 8, 3)) == (10,)
    assert Sequential(Flatten(), Dense(12, 4)).in_features is None
    assert Sequential(ReLU()).out_features is None
    assert Sequential(Flatten(), input_shape=(2, 3, 4)).out_features == 24
    assert GlobalAvgPool2D().output_shape((7, 5, 64)) == (64,)
    assert GlobalAvgPool2D().output_shape(()) == (None,)
    assert PackedGlobalAvgPool2D().output_shape((64,)) == (64,)
    assert MaxPool2D((2, 3), 1).output_shape((None, 9, 4)) == (None, 7, 4)
    assert BinaryConv2D(3, 4, 3, padding="same", stride=2).output_shape((9, 8, 3)) == (5, 4, 4)
    assert Residual(BatchNorm(4)).output_shape((2, 3, 4)) == (2, 3, 4)
    assert Residual(Conv2D(4, 6, 1), Conv2D(4, 6, 1)).out_features == 6


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: conv_net(input_shape=(12, 8, 3)), "layer 6 must take the 48 features"),
        (lambda: conv_net(input_shape=(8, 8, 4)), "take the 4 features"),
        (lambda: conv_net(input_shape=(10, 10, 3)), r"same shape, got \(3, 3, 8\) and \(2, 2, 8\)"),
        (
            lambda: conv_net(input_shape=(1, 1, 3)),
            "layer 1 must fit its input: .* must fit the pad",
        ),
        (lambda: conv_net(input_shape=(2, 8, 8, 3)), "must be images"),
        (lambda: conv_net().summary((8, 8, 1)), "take the 1 features"),
        (lambda: Sequential(BinaryConv2D(3, 4, 3), BinaryConv2D(3, 4, 3)), "take the 4 features"),
        (lambda: Sequential(Conv2D(3, 4, 3), GlobalAvgPool2D(), Dense(3, 4)), "take the 4"),
        (lambda: Residual(Dense(3, 4)), r"must give the same shape, got \(4,\) and \(3,\)"),
        (lambda: Residual(Dense(3, 4), Dense(3, 5)), r"same shape, got \(4,\) and \(5,\)"),
        (lambda: Residual(Dense(3, 4), Dense(2, 4)), "take the same features"),
        (lambda: Packed(PackedResidual(PackedDense(np.ones((3, 4))))), "same shape"),
    ],
)
def test_shapes_that_do_not_fit(make, message):
    with pytest.raises(ValueError, match=rf"^\[\w+\] .*({message})"):
        make()


@pytest.mark.parametrize(
    ("make", "error"),
    [
        (lambda: BinaryConv2D(0, 4, 3), ValueError),
        (lambda: BinaryConv2D(3, 4.0, 3), TypeError),
        (lambda: BinaryConv2D(3, 4, 0), ValueError),
        (lambda: BinaryConv2D(3, 4, (3, 3, 3)), TypeError),
        (lambda: BinaryConv2D(3, 4, 3, stride=0), ValueError),
        (lambda: BinaryConv2D(3, 4, 3, padding=-1), ValueError),
        (lambda: BinaryConv2D(3, 4, 3, padding="full"), ValueError),
        (lambda: BinaryConv2D(3, 4, 3, dilation=1.5), TypeError),
        (lambda: BinaryConv2D(3, 4, 3, groups=3), ValueError),
        (lambda: BinaryConv2D(3, 4, 3, groups=2), ValueError),
        (lambda: BinaryConv2D(3, 4, 3, groups=0), ValueError),
        (lambda: BinaryConv2D(3, 4, 3, pad_value=2), ValueError),
        (lambda: BinaryConv2D(3, 4, 3, pad_value=True), ValueError),
        (lambda: BinaryConv2D(3, 4, 3, clip_value=0), ValueError),
        (lambda: BinaryConv2D(3, 4, 3, bias=1), TypeError),
        (lambda: BinaryConv2D(3, 4, 3, scale_weights="yes"), TypeError),
        (lambda: BinaryConv2D(3, 4, 3, scale_input=None), TypeError),
        (lambda: BinaryConv2D(2**20, 1, 3), ValueError),  # too many weights in a filter
        (lambda: BinaryDense(3, 4, scale_weights=2), TypeError),
        (lambda: Conv2D(3, 4, 3, bias=0), TypeError),
        (lambda: Conv2D(4, 6, 3, groups=4), ValueError),
        (lambda: Dense(0, 1), ValueError),
        (lambda: MaxPool2D(0), ValueError),
        (lambda: MaxPool2D(2, 0), ValueError),
        (lambda: MaxPool2D(2, padding=2), ValueError),
        (lambda: AvgPool2D((2, 3), padding=((0, 2), (0, 0))), ValueError),
        (lambda: MaxPool2D("2"), TypeError),
        (lambda: Residual("body"), TypeError),
        (lambda: Residual(PackedSign()), TypeError),
        (lambda: Residual(Sign(), PackedSign()), TypeError),
        (lambda: PackedResidual(Sign()), TypeError),
        (lambda: PackedResidual([]), ValueError),
        (lambda: Sequential(Sign(), input_shape=32), TypeError),
        (lambda: Sequential(Sign(), input_shape=()), TypeError),
        (lambda: Sequential(Sign(), input_shape=(32, None)), TypeError),
        (lambda: Sequential(Sign(), input_shape=(32, 0)), ValueError),
        (lambda: PackedConv2D(np.ones((4, 3, 3))), ValueError),
        (lambda: PackedConv2D(np.ones((4, 3, 3, 0))), ValueError),
        (lambda: PackedConv2D(pack(np.ones((4, 3, 3, 8)), axis=0)), ValueError),
        (lambda: PackedConv2D(np.full((4, 3, 3, 8), np.nan)), ValueError),
        (lambda: PackedConv2D(np.ones((4, 3, 3, 8)), [1, 2]), ValueError),
        (lambda: PackedConv2D(np.ones((4, 3, 3, 8)), flip=[True] * 4), ValueError),
        (lambda: PackedConv2D(np.ones((4, 3, 3, 8)), 0, alpha=1.0), ValueError),
        (lambda: PackedConv2D(np.ones((4, 3, 3, 8)), 0, scale_input=True), ValueError),
        (lambda: PackedConv2D(np.ones((4, 3, 3, 8)), groups=3), ValueError),
        (lambda: PackedConv2D(np.ones((4, 3, 3, 8)), alpha=[1.0]), ValueError),
        (lambda: FloatConv2D(np.ones((4, 3, 8))), ValueError),
        (lambda: FloatConv2D(np.ones((4, 3, 3, 8)), groups=8), ValueError),
        (lambda: FloatConv2D(np.ones((4, 3, 3, 8), complex)), TypeError),
        (lambda: FloatDense(np.ones(4)), ValueError),
        (lambda: FloatDense(np.ones((2, 4)), [1.0, 2.0, 3.0]), ValueError),
        (lambda: PackedMaxPool2D(2, minimum=[1, 0]), TypeError),
        (lambda: PackedMaxPool2D(2, minimum=[[True]]), ValueError),
    ],
)
def test_impossible_settings(make, error):
    with pytest.raises(error, match=r"^\[\w+\] .*got"):
        make()


@pytest.mark.parametrize(
    ("x", "error", "message"),
    [
        (np.zeros((2, 5, 5, 7), np.uint8), ValueError, r"8 features, got shape \(2, 5, 5, 7\)"),
        (np.zeros((2, 5, 8)), ValueError, r"shape \(n, h, w, channels\), got \(2, 5, 8\)"),
        (pack(np.ones((2, 8))), ValueError, r"shape \(n, h, w, channels\), got \(2, 8\)"),
        (pack(np.ones((8, 5, 5, 8)), axis=0), ValueError, "packed along its last axis"),
        (np.zeros((2, 5, 5, 8), bool), TypeError, "got dtype bool"),
        (np.zeros((2, 2, 5, 8)), ValueError, "kernel must fit"),
    ],
)
def test_bad_inputs(x, error, message):
    w = np.ones((4, 3, 3, 8))
    layers = (BinaryConv2D(8, 4, 3), Conv2D(8, 4, 3), PackedConv2D(w), FloatConv2D(w))
    for layer in layers:
        with pytest.raises(error, match=rf"^\[\w+\] .*{message}"):
            layer(x)


def test_inputs_that_only_some_layers_refuse():
    bits = pack(np.ones((2, 5, 5, 8)))
    packed = PackedConv2D(np.ones((4, 3, 3, 8)), scale_input=True)
    for layer in (BinaryConv2D(8, 4, 3, scale_input=True), packed):
        with pytest.raises(
            TypeError, match=rf"\[{layer.name}\] x must be real for scale_input=True"
        ):
            layer(bits)
    with pytest.raises(ValueError, match=r"\[BinaryConv2D\] pad_value must be 0 unless x is bits"):
        BinaryConv2D(8, 4, 3, padding=1, pad_value=1)(np.zeros((2, 5, 5, 8), np.uint8))
    for layer in (MaxPool2D(2), AvgPool2D(2), GlobalAvgPool2D()):
        with pytest.raises(ValueError, match=rf"\[{layer.name}\] x must have shape \(n, h, w"):
            layer(np.zeros((2, 8)))
    with pytest.raises(ValueError, match=r"\[Residual\] .* must give the same shape"):
        Residual(Conv2D(8, 8, 3))(bits)
    with pytest.raises(ValueError, match=r"\[PackedMaxPool2D\] x must have 3 features"):
        PackedMaxPool2D(2, minimum=[True, False, True])(bits)


@pytest.mark.parametrize(
    "layer",
    [
        BinaryConv2D(3, 3, 1, seed=0),
        Conv2D(3, 3, 1, seed=0),
        Dense(3, 3, seed=0),
        MaxPool2D(2),
        AvgPool2D(2),
        GlobalAvgPool2D(),
        Flatten(),
        ReLU(),
        Residual(ReLU()),
    ],
)
def test_layers_keep_the_rules(layer):
    """Backward needs forward; inputs and gradients stay as they are; outputs are float32."""
    rng = np.random.default_rng(23)
    x = real_images(rng, 2, 4, 4, 3)
    y = layer(x)
    with pytest.raises(RuntimeError, match=rf"\[{layer.name}\] backward needs"):
        layer.backward(np.ones(y.shape, np.float32))
    x.flags.writeable = False
    y = layer.forward(x, training=True)
    grad = real_images(rng, *y.shape)
    grad.flags.writeable = False
    dx = layer.backward(grad)
    assert y.dtype == dx.dtype == np.float32 and dx.shape == x.shape
    assert layer(x[:0]).shape == (0, *y.shape[1:])


def test_repr_shows_settings():
    assert repr(BinaryConv2D(3, 4, 3)) == "BinaryConv2D(3, 4, 3x3)"
    layer = BinaryConv2D(
        4, 8, (3, 1), stride=2, padding=(1, 0), dilation=(2, 1), groups=2, pad_value=-1, bias=True
    )
    assert repr(layer) == (
        "BinaryConv2D(4, 8, 3x1, stride=2, padding=(1, 0), dilation=(2, 1), groups=2, "
        "bias=True, pad_value=-1)"
    )
    assert repr(Conv2D(3, 4, 1, padding="same")) == "Conv2D(3, 4, 1x1, padding='same')"
    assert repr(MaxPool2D(3, 2, ((0, 1), (0, 1)))) == (
        "MaxPool2D(3x3, stride=2, padding=((0, 1), (0, 1)))"
    )
    assert repr(PackedConv2D(np.ones((4, 3, 3, 8)), 0, padding=1)) == (
        "PackedConv2D(8, 4, 3x3, padding=1, threshold)"
    )
    assert "body" not in repr(Residual(ReLU()))
    assert repr(Residual(ReLU(), Dropout(0.5))).splitlines()[1:3] == [
        "    ReLU(),",
        "    Dropout(rate=0.5),",
    ]
    assert repr(Dense(2, 3, bias=False)) == "Dense(2, 3, bias=False)"
    assert repr(BinaryDense(2, 3, scale_weights=True)) == "BinaryDense(2, 3, scale_weights=True)"


@pytest.mark.parametrize("value", (np.nan, "text"))
def test_errors_of_packed_layers_name_the_layer_and_its_argument(value):
    """And not the function that packs, which nobody has called."""
    given = np.full((3, 4), value)
    for kind in (PackedDense, PackedPlanesDense):
        options = {} if kind is PackedDense else {"coefficients": [1] * 3}
        w = given if kind is PackedDense else np.stack([given] * 3)
        with pytest.raises((TypeError, ValueError), match=rf"^\[{kind.__name__}\] w must .*, got"):
            kind(w, **options)
    with pytest.raises((TypeError, ValueError), match=r"^\[PackedSign\] x must .*, got"):
        PackedSign().forward(given)
