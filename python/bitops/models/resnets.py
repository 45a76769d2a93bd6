"""Binary ResNet-18s with a shortcut around every convolution: Bi-Real, ResNetE, Real-to-Binary."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np

from ..layers import (
    AvgPool2D,
    BatchNorm,
    BinaryConv2D,
    Conv2D,
    Dense,
    GlobalAvgPool2D,
    MaxPool2D,
    Multiply,
    PReLU,
    ReLU,
    Residual,
    Sequential,
    Sigmoid,
    Sign,
)
from ..quantizers import ApproxSign, MagnitudeAwareSign
from .common import LATENT, Layers, image_channels, scaled, seed_stream

Seeds = Iterator[np.random.SeedSequence]
# Channels in and out, a stride and seeds, to the layers around which a shortcut goes.
Body = Callable[[int, int, int, Seeds], Layers]

_SIZES = (64, 128, 256, 512)
_CONVOLUTIONS = 4  # in each of the four stages


def birealnet18(
    image_shape: Sequence[int] = (224, 224, 3),
    classes: int = 1000,
    *,
    width: float = 1.0,
    seed=None,
) -> Sequential:
    """Build Bi-Real Net-18: sixteen binary convolutions, each with a float32 shortcut around it.

    Parameters
    ----------
    image_shape : (height, width, channels)
        The input is images ``(n, *image_shape)`` of float32, with a mean near 0 and a
        standard deviation near 1. Height and width must be multiples of 32.
    classes : int
        Number of scores.
    width : float
        Multiplies the channels of every layer; the first of the four stages has 64.
    seed : int or SeedSequence, optional
        Source of initial weights.

    Returns
    -------
    Sequential
        Conv2D 7x7, stride 2 -> BatchNorm -> MaxPool2D 3, stride 2; sixteen Residual blocks, four a
        stage, each Sign -> BinaryConv2D 3x3 -> BatchNorm; then GlobalAvgPool2D -> Dense. Each stage
        has twice the channels of the one before. Stages after the first begin with stride 2 and a
        shortcut AvgPool2D 2 -> Conv2D 1x1 -> BatchNorm. Filters are scaled by their mean absolute
        weight, and signs have the gradient of `ApproxSign`.

    References
    ----------
    Liu et al., "Bi-Real Net", 2018, sections 3.2 (the block) and 3.3 (the gradients). The shortcuts
    of the stages follow the network of this name in Larq Zoo, whose number of parameters it has.

    Examples
    --------
    >>> model = birealnet18((64, 64, 3), 10, width=0.125, seed=0)
    >>> model(np.zeros((1, 64, 64, 3), np.float32)).shape
    (1, 10)
    """

    def norm(features: int) -> BatchNorm:
        return BatchNorm(features, eps=1e-3, momentum=0.2)

    def body(inputs: int, outputs: int, stride: int, seeds: Seeds) -> Layers:
        conv = BinaryConv2D(
            inputs,
            outputs,
            3,
            stride=stride,
            padding="same",
            scale_weights=True,
            gradient=MagnitudeAwareSign(),
            seed=next(seeds),
            **LATENT,
        )
        return [Sign(quantizer=ApproxSign()), conv, norm(outputs)]

    seeds = seed_stream(seed)
    sizes = scaled("birealnet18", _SIZES, width)
    inputs = image_channels("birealnet18", image_shape)
    layers: Layers = [
        Conv2D(inputs, sizes[0], 7, stride=2, padding="same", bias=False, seed=next(seeds)),
        norm(sizes[0]),
        MaxPool2D(3, 2, "same"),
        *_stages(sizes, body, norm, seeds),
        GlobalAvgPool2D(),
        Dense(sizes[-1], classes, seed=next(seeds)),
    ]
    return Sequential(layers, input_shape=tuple(image_shape))


def resnet_e18(
    image_shape: Sequence[int] = (224, 224, 3),
    classes: int = 1000,
    *,
    width: float = 1.0,
    seed=None,
) -> Sequential:
    """Build ResNetE-18: sixteen binary convolutions, each with a float32 shortcut around it.

    Parameters
    ----------
    image_shape, classes, width, seed
        As in `birealnet18`.

    Returns
    -------
    Sequential
        Conv2D 7x7, stride 2 -> BatchNorm -> ReLU -> MaxPool2D 3, stride 2 -> BatchNorm; sixteen
        Residual blocks as in `birealnet18`, without scales of the filters; then ReLU ->
        GlobalAvgPool2D -> Dense.

    References
    ----------
    Bethge et al., "Back to simplicity: how to train accurate BNNs from scratch?", 2019, section 3.
    It has the layers of BinaryResNetE18 in Larq Zoo.

    Examples
    --------
    >>> model = resnet_e18((64, 64, 3), 10, width=0.125, seed=0)
    >>> model(np.zeros((1, 64, 64, 3), np.float32)).shape
    (1, 10)
    """

    def norm(features: int) -> BatchNorm:
        return BatchNorm(features, eps=1e-5)

    def body(inputs: int, outputs: int, stride: int, seeds: Seeds) -> Layers:
        settings = {"stride": stride, "padding": "same", "seed": next(seeds), **LATENT}
        return [Sign(1.25), BinaryConv2D(inputs, outputs, 3, **settings), norm(outputs)]

    seeds = seed_stream(seed)
    sizes = scaled("resnet_e18", _SIZES, width)
    inputs = image_channels("resnet_e18", image_shape)
    layers: Layers = [
        Conv2D(inputs, sizes[0], 7, stride=2, padding="same", bias=False, seed=next(seeds)),
        norm(sizes[0]),
        ReLU(),
        MaxPool2D(3, 2, "same"),
        norm(sizes[0]),
        *_stages(sizes, body, norm, seeds),
        ReLU(),
        GlobalAvgPool2D(),
        Dense(sizes[-1], classes, seed=next(seeds)),
    ]
    return Sequential(layers, input_shape=tuple(image_shape))


def real_to_binary(
    image_shape: Sequence[int] = (224, 224, 3),
    classes: int = 1000,
    *,
    width: float = 1.0,
    seed=None,
) -> Sequential:
    """Build the Real-to-Binary network: a ResNet-18 whose channels are scaled by their input.

    Parameters
    ----------
    image_shape, classes, width, seed
        As in `birealnet18`.

    Returns
    -------
    Sequential
        Conv2D 7x7, stride 2 -> BatchNorm -> PReLU -> MaxPool2D 3, stride 2; sixteen Residual
        blocks, each BatchNorm -> Multiply -> PReLU with shortcuts as in `birealnet18`; then
        GlobalAvgPool2D -> Dense. Multiply takes the product of Sign -> BinaryConv2D 3x3 and of
        a factor for each channel: GlobalAvgPool2D -> Dense to an eighth -> ReLU -> Dense ->
        Sigmoid.

    References
    ----------
    Martinez et al., "Training binary neural networks with real-to-binary convolutions", 2020,
    sections 4.1 (the block) and 4.3 (the scales). It has the layers of RealToBinaryNet in Larq Zoo.

    Examples
    --------
    >>> model = real_to_binary((64, 64, 3), 10, width=0.125, seed=0)
    >>> model(np.zeros((1, 64, 64, 3), np.float32)).shape
    (1, 10)
    """

    def norm(features: int) -> BatchNorm:
        return BatchNorm(features, eps=1e-3, momentum=0.01)

    def body(inputs: int, outputs: int, stride: int, seeds: Seeds) -> Layers:
        settings = {"stride": stride, "padding": "same", "seed": next(seeds), **LATENT}
        convolution = Sequential(Sign(), BinaryConv2D(inputs, outputs, 3, **settings))
        few = max(inputs // 8, 1)
        factors = Sequential(
            GlobalAvgPool2D(),
            Dense(inputs, few, bias=False, seed=next(seeds)),
            ReLU(),
            Dense(few, outputs, bias=False, seed=next(seeds)),
            Sigmoid(),
        )
        return [norm(inputs), Multiply(convolution, factors), PReLU(outputs)]

    seeds = seed_stream(seed)
    sizes = scaled("real_to_binary", _SIZES, width)
    inputs = image_channels("real_to_binary", image_shape)
    layers: Layers = [
        Conv2D(inputs, sizes[0], 7, stride=2, padding="same", bias=False, seed=next(seeds)),
        norm(sizes[0]),
        PReLU(sizes[0]),
        MaxPool2D(3, 2, "same"),
        *_stages(sizes, body, norm, seeds),
        GlobalAvgPool2D(),
        Dense(sizes[-1], classes, seed=next(seeds)),
    ]
    return Sequential(layers, input_shape=tuple(image_shape))


def _stages(
    sizes: Sequence[int], body: Body, norm: Callable[[int], BatchNorm], seeds: Seeds
) -> Layers:
    """Build the stages of a ResNet-18, with a shortcut around every convolution."""
    layers: Layers = []
    inputs = sizes[0]
    for stage, outputs in enumerate(sizes):
        for place in range(_CONVOLUTIONS):
            shrinks = stage > 0 and place == 0
            main = Sequential(body(inputs, outputs, 2 if shrinks else 1, seeds))
            shortcut = None
            if shrinks:
                points = Conv2D(inputs, outputs, 1, bias=False, seed=next(seeds))
                shortcut = Sequential(AvgPool2D(2), points, norm(outputs))
            layers.append(Residual(main, shortcut))
            inputs = outputs
    return layers
