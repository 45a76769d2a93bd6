"""ReActNet-A: a MobileNet of binary convolutions with shortcuts and learned shifts."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np

from ..layers import (
    AvgPool2D,
    BatchNorm,
    BinaryConv2D,
    Clip,
    Concat,
    Conv2D,
    Dense,
    GlobalAvgPool2D,
    Residual,
    RPReLU,
    RSign,
    Sequential,
)
from ..quantizers import SteSign
from .common import LATENT, Layers, image_channels, scaled, seed_stream

_SIZES = (32, 64, 128, 128, 256, 256, 512, 512, 512, 512, 512, 512, 1024, 1024)


def reactnet_a(
    image_shape: Sequence[int] = (224, 224, 3),
    classes: int = 1000,
    *,
    width: float = 1.0,
    seed=None,
) -> Sequential:
    """Build ReActNet-A: thirteen blocks of a binary 3x3 and a binary 1x1 convolution.

    Parameters
    ----------
    image_shape : (height, width, channels)
        The input is images ``(n, *image_shape)`` of float32, with a mean near 0 and a
        standard deviation near 1. Height and width must be multiples of 32.
    classes : int
        Number of scores.
    width : float
        Multiplies the channels of every layer.
    seed : int or SeedSequence, optional
        Source of initial weights.

    Returns
    -------
    Sequential
        Conv2D 3x3, stride 2 -> BatchNorm; thirteen blocks, each
        Residual(RSign -> BinaryConv2D 3x3 -> BatchNorm) -> RPReLU ->
        Residual(RSign -> BinaryConv2D 1x1 -> BatchNorm) -> RPReLU; then GlobalAvgPool2D -> Dense.
        Where the image shrinks, the first shortcut is AvgPool2D 2. Where channels double, the
        second shortcut is its input twice. Filters are scaled by their mean absolute weight.

    References
    ----------
    Liu et al., "ReActNet: towards precise binary neural network with generalized activation
    functions", 2020, sections 4.1 and 4.2. The order of the layers follows the code released with
    it; two 1x1 convolutions side by side there are one here.

    Examples
    --------
    >>> model = reactnet_a((32, 32, 3), 10, width=0.25, seed=0)
    >>> model(np.zeros((1, 32, 32, 3), np.float32)).shape
    (1, 10)
    """
    seeds = seed_stream(seed)
    (first,) = scaled("reactnet_a", _SIZES[:1], width)
    sizes = [first * size // _SIZES[0] for size in _SIZES[1:]]  # so that channels double exactly
    inputs = image_channels("reactnet_a", image_shape)
    layers: Layers = [
        Conv2D(inputs, first, 3, stride=2, padding=1, bias=False, seed=next(seeds)),
        BatchNorm(first, eps=1e-5),
    ]
    features = first
    for place, outputs in enumerate(sizes):
        stride = 2 if outputs != features and place > 0 else 1
        layers += [
            Residual(
                _binary_conv(features, features, 3, stride, seeds),
                None if stride == 1 else AvgPool2D(2),
            ),
            RPReLU(features),
            Residual(
                _binary_conv(features, outputs, 1, 1, seeds),
                None if outputs == features else _twice(),
            ),
            RPReLU(outputs),
        ]
        features = outputs
    layers += [GlobalAvgPool2D(), Dense(features, classes, seed=next(seeds))]
    return Sequential(layers, input_shape=tuple(image_shape))


def _binary_conv(
    inputs: int, outputs: int, size: int, stride: int, seeds: Iterator[np.random.SeedSequence]
) -> Sequential:
    """Build RSign -> BinaryConv2D -> BatchNorm."""
    conv = BinaryConv2D(
        inputs,
        outputs,
        size,
        stride=stride,
        padding=size // 2,
        scale_weights=True,
        gradient=SteSign(),
        seed=next(seeds),
        **LATENT,
    )
    return Sequential(RSign(inputs), conv, BatchNorm(outputs, eps=1e-5))


def _twice() -> Concat:
    """Build a layer that gives its input twice, side by side."""
    everything = Clip(-math.inf, math.inf)
    return Concat(everything)
