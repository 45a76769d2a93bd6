"""Layers of binarized networks: training layers, their packed twins, and the chains of both."""

from .base import Layer, Parameter, TrainingLayer
from .container import Packed, PackedResidual, Residual, Sequential, Summary
from .conv import BinaryConv2D, Conv2D, FloatConv2D, PackedConv2D
from .dense import BinaryDense, Dense, FloatDense, PackedDense
from .freeze import freeze
from .norm import BatchNorm, PackedBatchNorm
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
from .quantizers import Dropout, PackedReLU, PackedSign, ReLU, Sign

__all__ = [
    "AvgPool2D",
    "BatchNorm",
    "BinaryConv2D",
    "BinaryDense",
    "Conv2D",
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
    "PackedMaxPool2D",
    "PackedReLU",
    "PackedResidual",
    "PackedSign",
    "Parameter",
    "ReLU",
    "Residual",
    "Sequential",
    "Sign",
    "Summary",
    "TrainingLayer",
    "freeze",
]
