"""Counts of `summary` and `cost`, against counts done by hand, for every kind of layer."""

import numpy as np
import pytest

import bitops.layers as layers_module
from bitops.layers import (
    AsImages,
    AsSequences,
    AvgPool1D,
    AvgPool2D,
    BatchNorm,
    BinaryConv1D,
    BinaryConv2D,
    BinaryDense,
    BinaryDepthwiseConv2D,
    BinarySeparableConv2D,
    BlurPool2D,
    Clip,
    Concat,
    Conv1D,
    Conv2D,
    Cost,
    Dense,
    Dropout,
    Flatten,
    FloatConv2D,
    FloatDense,
    GlobalAvgPool1D,
    GlobalAvgPool2D,
    Layer,
    MaxPool1D,
    MaxPool2D,
    Multiply,
    MultiThreshold,
    PackedAsImages,
    PackedAsSequences,
    PackedAvgPool2D,
    PackedBatchNorm,
    PackedClip,
    PackedConcat,
    PackedConv2D,
    PackedDense,
    PackedFlatten,
    PackedGlobalAvgPool2D,
    PackedLevels,
    PackedMaxPool2D,
    PackedMultiply,
    PackedMultiThreshold,
    PackedPad2D,
    PackedPadFeatures,
    PackedPlanesConv2D,
    PackedPlanesDense,
    PackedPReLU,
    PackedQuantize,
    PackedReLU,
    PackedResidual,
    PackedRPReLU,
    PackedSigmoid,
    PackedSign,
    PackedSoftmax,
    PackedTanh,
    Pad2D,
    PadFeatures,
    PReLU,
    Quantize,
    QuantizedConv1D,
    QuantizedConv2D,
    QuantizedDense,
    QuantizeGradient,
    ReLU,
    Residual,
    RPReLU,
    RSign,
    Scale,
    Sequential,
    ShiftBatchNorm,
    Sigmoid,
    Sign,
    Softmax,
    Tanh,
    TanhDense,
)
from bitops.quantizers import DoReFaActivation, DoReFaWeight, Heaviside, Ternary

W = np.ones((6, 70))  # 420 weights; 70 bits are two words
PLANES = np.ones((3, 6, 70))
F = np.ones((6, 3, 3, 5))  # filters of 45 weights; 5 channels are a word at each of 9 taps
GROUPED = np.ones((6, 3, 3, 1))
FLIP = np.arange(6) == 0


# For each layer: bits of its input, of its output, and its cost counted by hand.
COSTS = [
    # +-1 weights: 1 bit by 1 bit; 8 bits of uint8 data; numbers; codes of 2 bits
    (BinaryDense(70, 6), 1, None, Cost(420, 96, 420, 0)),
    (BinaryDense(70, 6), 8, None, Cost(420, 96, 8 * 420, 0)),
    (BinaryDense(70, 6), None, None, Cost(420, 96, 0, 420)),
    (BinaryDense(70, 6), 2, None, Cost(420, 96, 2 * 420, 0)),
    # a bias and a scale of 6 float32 each, of which the bias is trained
    (BinaryDense(70, 6, bias=True, scale_weights=True), 1, None, Cost(426, 144, 420, 0)),
    (BinaryDense(70, 6, real_evaluation=True), 1, None, Cost(420, 1680, 0, 420)),
    (BinaryDense(70, 6, stochastic=True), 1, None, Cost(420, 96, 420, 0)),
    (BinaryConv2D(5, 6, 3), 1, None, Cost(270, 432, 270, 0)),
    (BinaryConv2D(6, 6, 3, groups=6), 8, None, Cost(54, 432, 8 * 54, 0)),
    # real images are made bits where their scale is kept
    (
        BinaryConv2D(5, 6, 3, scale_weights=True, scale_input=True),
        None,
        None,
        Cost(270, 456, 270, 0),
    ),
    (BinaryDepthwiseConv2D(6, 3), 1, None, Cost(54, 432, 54, 0)),
    # layers inside have lines of their own
    *(
        (layer, 1, None, Cost())
        for layer in (
            BinarySeparableConv2D(6, 6, 3),
            BinaryConv1D(6, 6, 3),
            QuantizedConv1D(6, 6, 3, Ternary()),
            Conv1D(6, 6, 3),
            MaxPool1D(2),
            AvgPool1D(2),
            GlobalAvgPool1D(),
        )
    ),
    # weights of few levels: 2 planes for ternary ones, 4 for four bits, 1 for one bit
    (QuantizedDense(70, 6, Ternary()), 1, None, Cost(420, 192 + 24, 2 * 420, 0)),
    (QuantizedDense(70, 6, Ternary()), 3, None, Cost(420, 192 + 24, 6 * 420, 0)),
    (QuantizedDense(70, 6, Ternary()), None, None, Cost(420, 192 + 24, 0, 2 * 420)),
    (QuantizedDense(70, 6, DoReFaWeight(4)), 2, None, Cost(420, 384 + 24, 8 * 420, 0)),
    (QuantizedDense(70, 6, DoReFaWeight(1)), 8, None, Cost(420, 96 + 24, 8 * 420, 0)),
    (QuantizedConv2D(5, 6, 3, DoReFaWeight(2)), 2, None, Cost(270, 864 + 24, 4 * 270, 0)),
    # float32 weights, whatever the input
    (Dense(70, 6), 1, None, Cost(426, 1704, 0, 420)),
    (Dense(70, 6, bias=False), 8, None, Cost(420, 1680, 0, 420)),
    (TanhDense(70, 6), None, None, Cost(426, 1704, 0, 420)),
    (Conv2D(5, 6, 3), None, None, Cost(276, 1104, 0, 270)),
    (Conv2D(6, 6, 3, groups=6, bias=False), 2, None, Cost(54, 216, 0, 54)),
    (FloatDense(W), 1, None, Cost(420, 1680, 0, 420)),
    (FloatConv2D(F, np.ones(6)), None, None, Cost(276, 1104, 0, 270)),
    # packed: 6 thresholds of int32, flips of 6 bits in a word; or scales
    (PackedDense(W), 1, None, Cost(420, 96, 420, 0)),
    (PackedDense(W, np.ones(6, int), FLIP), 1, 1, Cost(426, 96 + 24 + 8, 420, 0)),
    (PackedDense(W, np.ones(6), FLIP), 8, 1, Cost(426, 96 + 24 + 8, 8 * 420, 0)),
    (PackedDense(W, alpha=2.0, bias=1.0), None, None, Cost(432, 96 + 48, 0, 420)),
    # codes are expected, however the input is described
    (PackedDense(W, input_bits=2), 8, None, Cost(420, 96, 2 * 420, 0)),
    (PackedDense(W, input_bits=1), None, None, Cost(420, 96, 420, 0)),
    (PackedPlanesDense(PLANES, (1, 2, 4)), 1, None, Cost(420, 288, 3 * 420, 0)),
    (PackedPlanesDense(PLANES, (1, 2, 4), input_bits=2), 2, None, Cost(420, 288, 6 * 420, 0)),
    (PackedPlanesDense(PLANES, (1, 2, 4)), None, None, Cost(420, 288, 0, 3 * 420)),
    (PackedConv2D(F, np.ones(6, int)), 1, 1, Cost(276, 432 + 24, 270, 0)),
    (PackedConv2D(GROUPED, groups=6), 8, None, Cost(54, 432, 8 * 54, 0)),
    (PackedConv2D(F, scale_input=True), None, None, Cost(270, 432, 270, 0)),
    (PackedPlanesConv2D(np.ones((2, *F.shape)), (1, 1)), 2, None, Cost(270, 864, 4 * 270, 0)),
    # one multiply-add for each number, two parameters for each channel
    (BatchNorm(6), None, None, Cost(12, 48, 0, 6)),
    (ShiftBatchNorm(6), 1, None, Cost(12, 48, 0, 6)),
    (PackedBatchNorm(np.ones(6), np.ones(6)), None, None, Cost(12, 48, 0, 6)),
    # no products
    (Sign(), None, 1, Cost()),
    (PackedSign(), None, 1, Cost()),
    (PackedSign(np.ones(6), FLIP), None, 1, Cost(6, 32)),
    (Quantize(DoReFaActivation(3)), None, 3, Cost()),
    (Quantize(Heaviside()), None, 1, Cost()),
    (PackedQuantize(2), None, 2, Cost()),
    (PackedLevels(0.5), 3, None, Cost()),
    (ReLU(), 2, None, Cost()),
    (PackedReLU(), None, None, Cost()),
    (Tanh(), None, None, Cost()),
    (PackedTanh(), None, None, Cost()),
    (AvgPool2D(2), 1, None, Cost()),
    (PackedAvgPool2D(2), 2, None, Cost()),
    (GlobalAvgPool2D(), 1, None, Cost()),
    (PackedGlobalAvgPool2D(), 8, None, Cost()),
    (PackedMaxPool2D(2, minimum=FLIP), 1, 1, Cost(0, 8)),
    (Clip(), 1, None, Cost()),
    (PackedClip(), None, None, Cost()),
    (Softmax(), None, None, Cost()),
    (PackedSoftmax(), None, None, Cost()),
    (Sigmoid(), None, None, Cost()),
    (PackedSigmoid(), 1, None, Cost()),
    (PadFeatures(6, 1), 1, None, Cost()),
    (PackedPadFeatures(6, after=2), None, None, Cost()),
    # nine weights a channel, none of them trained
    (BlurPool2D(6), None, None, Cost(0, 216, 0, 54)),
    (RSign(6), None, 1, Cost(6, 24)),
    (RPReLU(6), None, None, Cost(18, 72, 0, 6)),
    (PackedRPReLU(*np.ones((3, 6))), None, None, Cost(18, 72, 0, 6)),
    (Scale(6), None, None, Cost(6, 24, 0, 6)),
    (PReLU(6), 1, None, Cost(6, 24, 0, 6)),
    (PackedPReLU(np.ones(6)), None, None, Cost(6, 24, 0, 6)),
    # 6 thresholds of each of 3 levels in float32, or of int32; the codes are 0 to 3
    (MultiThreshold(np.ones((6, 3))), None, 2, Cost(18, 72)),
    (PackedMultiThreshold(np.ones((6, 3), int)), 8, 2, Cost(18, 72)),
    # what flows in flows out
    *(
        (layer, bits, bits, Cost())
        for layer in (
            MaxPool2D(2),
            PackedMaxPool2D(2),
            Flatten(),
            PackedFlatten(),
            Dropout(0.5),
            Pad2D(1),
            PackedPad2D(1),
            AsImages(),
            AsSequences(),
            PackedAsImages(),
            PackedAsSequences(),
        )
        for bits in (None, 1, 2, 8)
    ),
    (QuantizeGradient(4), 2, 2, Cost()),
    # blocks: their chains have lines of their own
    (Residual(BinaryDense(6, 6)), 1, None, Cost()),
    (PackedResidual(PackedDense(W[:, :6])), 2, None, Cost()),
    (Multiply(BinaryDense(6, 6)), 1, None, Cost()),
    (PackedMultiply(PackedDense(W[:, :6])), 2, None, Cost()),
    (Concat(BinaryDense(6, 6)), 1, None, Cost()),
    (PackedConcat(PackedDense(W[:, :6])), 2, None, Cost()),
]


@pytest.mark.parametrize(("layer", "bits", "output", "cost"), COSTS, ids=lambda v: f"{v!r:.50}")
def test_cost_is_that_counted_by_hand(layer, bits, output, cost):
    assert layer.cost(bits) == cost
    assert layer.output_bits(bits) == output


def test_every_kind_of_layer_is_counted():
    kinds = {
        value
        for name, value in vars(layers_module).items()
        if isinstance(value, type) and issubclass(value, Layer)
    }
    counted = {type(layer) for layer, *_ in COSTS}
    others = {"Layer", "TrainingLayer", "Sequential", "Packed"}
    assert {kind.__name__ for kind in kinds - counted} == others


@pytest.mark.parametrize(("bits", "planes"), [(1, 1), (2, 2), (4, 4), (8, 8)])
def test_a_network_of_codes_costs_by_both_widths(bits, planes):
    """A layer of 2-bit codes with 4-bit weights does eight products of bits for each weight."""
    model = Sequential(
        Dense(64, 256, bias=False, seed=0),
        BatchNorm(256),
        Quantize(DoReFaActivation(bits)),
        QuantizedDense(256, 512, DoReFaWeight(planes), seed=1),
        BatchNorm(512),
    )
    total = model.summary().total
    assert total.binary_macs == bits * planes * 256 * 512
    assert total.float_macs == 64 * 256 + 256 + 512
    assert (
        total.packed_bytes == 4 * 64 * 256 + 8 * 256 + planes * 512 * 256 // 8 + 4 * 512 + 8 * 512
    )
    packed = model.freeze().summary()
    assert packed.total.binary_macs == total.binary_macs
    # the first normalisation is folded into thresholds where a code has one bit
    assert packed.total.float_macs == 64 * 256 + (256 if bits > 1 else 0) + 512
    output = {row.layer: row.output for row in model.summary().rows}["Quantize"]
    assert output == ("256 bits" if bits == 1 else f"256 {bits}-bit numbers")


def test_the_first_layer_counts_by_its_input():
    model = Sequential(
        BinaryConv2D(3, 6, 3, padding=1, seed=0),
        MaxPool2D(2),
        BatchNorm(6),
        Sign(),
        Residual(BinaryConv2D(6, 6, 3, padding=1, seed=1)),
        Flatten(),
        QuantizedDense(6 * 16, 4, Ternary(), seed=2),
        input_shape=(8, 8, 3),
    )
    first, inner, last = 64 * 6 * 27, 16 * 6 * 54, 2 * 4 * 96
    for network in (model, model.freeze()):
        real, pixels, bits = (network.summary(input_bits=b).total for b in (None, 8, 1))
        norm = 16 * 6 if network is model else 0
        assert (real.binary_macs, real.float_macs) == (inner, first + last + norm)
        assert (pixels.binary_macs, pixels.float_macs) == (8 * first + inner, last + norm)
        assert (bits.binary_macs, bits.float_macs) == (first + inner, last + norm)
        assert real.packed_bytes == pixels.packed_bytes
    with pytest.raises(ValueError, match=r"^\[summary\] input_bits must be in 1\.\.8, got 9"):
        model.summary(input_bits=9)
    with pytest.raises(TypeError, match=r"^\[summary\] input_bits must be an integer, got 8\.0"):
        model.summary(input_bits=8.0)


def test_the_bytes_of_a_packed_network_are_those_of_its_file(tmp_path):
    model = Sequential(
        BinaryConv2D(3, 100, 3, seed=0),
        BatchNorm(100),
        Sign(),
        Flatten(),
        QuantizedDense(100 * 64, 300, DoReFaWeight(3), seed=1),
        BatchNorm(300),
        Quantize(DoReFaActivation(2)),
        QuantizedDense(300, 10, Ternary(), seed=2),
        input_shape=(10, 10, 3),
    )
    packed = model.freeze()
    path = tmp_path / "model"
    packed.save(path)
    size = path.stat().st_size
    assert packed.nbytes <= size <= packed.nbytes + 4096  # of names and checksums
