"""Layers of binarized networks: training layers, their packed twins, and the chains of both."""

from .activations import (
    Dropout,
    PackedLevels,
    PackedQuantize,
    PackedReLU,
    PackedSign,
    PackedTanh,
    Quantize,
    QuantizeGradient,
    ReLU,
    Sign,
    Tanh,
)
from .base import Cost, Layer, TrainingLayer
from .check import check_gradients
from .columns import column_sums
from .container import Packed, PackedResidual, Residual, Sequential
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
from .folding import fold, freeze
from .inputs import Codes, as_float
from .norm import BatchNorm, PackedBatchNorm, ShiftBatchNorm
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
from .roles import Role
from .summary import Summary

__all__ = [
    "AvgPool2D",
    "BatchNorm",
    "BinaryConv2D",
    "BinaryDense",
    "Codes",
    "Conv2D",
    "Cost",
    "Dense",
    "Dropout",
    "Flatten",
    "FloatConv2D",
    "FloatDense",
    "GlobalAvgPool2D",
    "Layer",
    "MaxPool2D",
    "Packed",
    "PackedAvgPool2D",
    "PackedBatchNorm",
    "PackedConv2D",
    "PackedDense",
    "PackedFlatten",
    "PackedGlobalAvgPool2D",
    "PackedLevels",
    "PackedMaxPool2D",
    "PackedPlanesConv2D",
    "PackedPlanesDense",
    "PackedQuantize",
    "PackedReLU",
    "PackedResidual",
    "PackedSign",
    "PackedTanh",
    "Parameter",
    "Quantize",
    "QuantizeGradient",
    "QuantizedConv2D",
    "QuantizedDense",
    "ReLU",
    "Residual",
    "Role",
    "Sequential",
    "ShiftBatchNorm",
    "Sign",
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
