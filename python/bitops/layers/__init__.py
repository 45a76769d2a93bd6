"""Layers of binarized networks, for training and for packed inference, and models made of them.

A layer that trains, such as `BinaryDense`, lives beside its twin for inference, `PackedDense`, in
the file of its kind: dense, conv, depthwise, pool, blur, padding, norm, activations, elementwise,
shifts, levels, residual, concat, multiply, axes and sequences. Layers of training alone are in
noise, and the models in container.
The other files serve these:

    inputs, parameter, base, roles, windows     forms of input, and the interfaces of layers
    operation, planes, weights, product         what dense and conv are made of
    backward, float_conv                        gradients of products with bits; float convolutions
    branches                                    bases of residual, concat and multiply
    folding                                     packs a trained chain for inference
    registry, model_files, file_versions        store packed models
    summary, gradient_check                     tables of models, and a check for new layers

This folder may import `ops`, `quantizers`, `config` and `files`, but never training code.
"""

from .activations import (
    PackedLevels,
    PackedQuantize,
    PackedReLU,
    PackedSign,
    PackedTanh,
    Quantize,
    ReLU,
    Sign,
    Tanh,
)
from .axes import AsImages, AsSequences, PackedAsImages, PackedAsSequences
from .base import Cost, Layer, TrainingLayer
from .blur import BlurPool2D
from .columns import column_sums
from .concat import Concat, PackedConcat
from .container import Packed, Sequential
from .conv import (
    BinaryConv2D,
    Conv2D,
    FloatConv2D,
    PackedConv2D,
    PackedPlanesConv2D,
    QuantizedConv2D,
)
from .dense import (
    BinaryDense,
    Dense,
    FloatDense,
    PackedDense,
    PackedPlanesDense,
    QuantizedDense,
    TanhDense,
)
from .depthwise import BinaryDepthwiseConv2D, BinarySeparableConv2D
from .elementwise import (
    Clip,
    PackedClip,
    PackedPReLU,
    PackedSigmoid,
    PackedSoftmax,
    PReLU,
    Sigmoid,
    Softmax,
)
from .folding import fold, freeze
from .gradient_check import check_gradients
from .inputs import Codes, as_float
from .levels import MultiThreshold, PackedMultiThreshold
from .multiply import Multiply, PackedMultiply
from .noise import Dropout, QuantizeGradient
from .norm import BatchNorm, PackedBatchNorm, ShiftBatchNorm
from .padding import PackedPad2D, PackedPadFeatures, Pad2D, PadFeatures
from .parameter import Parameter
from .pool import (
    AvgPool2D,
    Flatten,
    GlobalAvgPool2D,
    MaxPool2D,
    PackedAvgPool2D,
    PackedFlatten,
    PackedGlobalAvgPool2D,
    PackedMaxPool2D,
)
from .residual import PackedResidual, Residual
from .roles import Role
from .sequences import (
    AvgPool1D,
    BinaryConv1D,
    Conv1D,
    GlobalAvgPool1D,
    MaxPool1D,
    QuantizedConv1D,
)
from .shifts import PackedRPReLU, RPReLU, RSign, Scale
from .summary import Summary

__all__ = [
    "AsImages",
    "AsSequences",
    "AvgPool1D",
    "AvgPool2D",
    "BatchNorm",
    "BinaryConv1D",
    "BinaryConv2D",
    "BinaryDense",
    "BinaryDepthwiseConv2D",
    "BinarySeparableConv2D",
    "BlurPool2D",
    "Clip",
    "Codes",
    "Concat",
    "Conv1D",
    "Conv2D",
    "Cost",
    "Dense",
    "Dropout",
    "Flatten",
    "FloatConv2D",
    "FloatDense",
    "GlobalAvgPool1D",
    "GlobalAvgPool2D",
    "Layer",
    "MaxPool1D",
    "MaxPool2D",
    "MultiThreshold",
    "Multiply",
    "PReLU",
    "Packed",
    "PackedAsImages",
    "PackedAsSequences",
    "PackedAvgPool2D",
    "PackedBatchNorm",
    "PackedClip",
    "PackedConcat",
    "PackedConv2D",
    "PackedDense",
    "PackedFlatten",
    "PackedGlobalAvgPool2D",
    "PackedLevels",
    "PackedMaxPool2D",
    "PackedMultiThreshold",
    "PackedMultiply",
    "PackedPReLU",
    "PackedPad2D",
    "PackedPadFeatures",
    "PackedPlanesConv2D",
    "PackedPlanesDense",
    "PackedQuantize",
    "PackedRPReLU",
    "PackedReLU",
    "PackedResidual",
    "PackedSigmoid",
    "PackedSign",
    "PackedSoftmax",
    "PackedTanh",
    "Pad2D",
    "PadFeatures",
    "Parameter",
    "Quantize",
    "QuantizeGradient",
    "QuantizedConv1D",
    "QuantizedConv2D",
    "QuantizedDense",
    "RPReLU",
    "RSign",
    "ReLU",
    "Residual",
    "Role",
    "Scale",
    "Sequential",
    "ShiftBatchNorm",
    "Sigmoid",
    "Sign",
    "Softmax",
    "Summary",
    "Tanh",
    "TanhDense",
    "TrainingLayer",
    "as_float",
    "check_gradients",
    "column_sums",
    "fold",
    "freeze",
]
