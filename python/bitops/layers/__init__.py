"""Layers of binarized networks: training layers, their packed twins, and the chains of both."""

from .base import Layer, Parameter, TrainingLayer
from .container import Packed, Sequential, Summary
from .dense import BinaryDense, PackedDense
from .freeze import freeze
from .norm import BatchNorm, PackedBatchNorm
from .quantizers import Dropout, PackedSign, Sign

__all__ = [
    "BatchNorm",
    "BinaryDense",
    "Dropout",
    "Layer",
    "Packed",
    "PackedBatchNorm",
    "PackedDense",
    "PackedSign",
    "Parameter",
    "Sequential",
    "Sign",
    "Summary",
    "TrainingLayer",
    "freeze",
]
