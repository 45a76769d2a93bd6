"""Networks whose blocks put new features beside the old ones: BinaryDenseNet and MeliusNet."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..layers import (
    BatchNorm,
    BinaryConv2D,
    Concat,
    Conv2D,
    Dense,
    GlobalAvgPool2D,
    MaxPool2D,
    PadFeatures,
    ReLU,
    Residual,
    Sequential,
    Sign,
)
from .common import LATENT, Layers, image_channels, scaled, seed_stream


def binary_densenet28(
    image_shape: Sequence[int] = (224, 224, 3),
    classes: int = 1000,
    *,
    width: float = 1.0,
    seed=None,
) -> Sequential:
    """Build BinaryDenseNet-28: 23 binary convolutions, each of which adds 64 features.

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
        Conv2D 7x7, stride 2 -> BatchNorm -> ReLU -> MaxPool2D 3, stride 2; four stages of 6, 6, 6
        and 5 blocks Concat(BatchNorm -> Sign -> BinaryConv2D 3x3); between them BatchNorm ->
        MaxPool2D 2 -> ReLU -> Conv2D 1x1 to 160, 192 and 256 channels; then BatchNorm -> ReLU ->
        GlobalAvgPool2D -> Dense. The new features come first.

    References
    ----------
    Bethge et al., "Back to simplicity: how to train accurate BNNs from scratch?", 2019, section 3.
    It has the layers of BinaryDenseNet28 in Larq Zoo.

    Examples
    --------
    >>> model = binary_densenet28((32, 32, 3), 10, width=0.125, seed=0)
    >>> model(np.zeros((1, 32, 32, 3), np.float32)).shape
    (1, 10)
    """
    seeds = seed_stream(seed)
    growth, *narrow = scaled("binary_densenet28", (64, 160, 192, 256), width)
    inputs = image_channels("binary_densenet28", image_shape)
    layers: Layers = [
        Conv2D(inputs, growth, 7, stride=2, padding="same", bias=False, seed=next(seeds)),
        _norm(growth),
        ReLU(),
        MaxPool2D(3, 2, "same"),
    ]
    features = growth
    for count, outputs in zip((6, 6, 6, 5), (*narrow, None), strict=True):
        for _ in range(count):
            layers.append(Concat(_new_features(features, growth, seed=next(seeds))))
            features += growth
        if outputs is not None:
            layers += [
                _norm(features),
                MaxPool2D(2),
                ReLU(),
                Conv2D(features, outputs, 1, bias=False, seed=next(seeds)),
            ]
            features = outputs
    layers += [
        _norm(features),
        ReLU(),
        GlobalAvgPool2D(),
        Dense(features, classes, seed=next(seeds)),
    ]
    return Sequential(layers, input_shape=tuple(image_shape))


def meliusnet22(
    image_shape: Sequence[int] = (224, 224, 3),
    classes: int = 1000,
    *,
    width: float = 1.0,
    seed=None,
) -> Sequential:
    """Build MeliusNet-22: blocks that add 64 features, and blocks that improve these.

    Parameters
    ----------
    image_shape, classes, seed
        As in `binary_densenet28`.
    width : float
        Multiplies the channels of every layer. The 32 and 64 channels of the first layers must stay
        multiples of 8.

    Returns
    -------
    Sequential
        Conv2D 3x3 to 32, stride 2; Conv2D 3x3 to 32 in 4 groups; Conv2D 3x3 to 64 in 8 groups; each
        with BatchNorm -> ReLU; MaxPool2D 2. Four stages of 4, 5, 4 and 4 pairs of blocks:
        Concat(BatchNorm -> Sign -> BinaryConv2D 3x3 to 64), and a Residual of the same layers that
        adds to the 64 features just made. Between the stages BatchNorm -> MaxPool2D 2 -> ReLU ->
        Conv2D 1x1 to 160, 224 and 256 channels; at the end BatchNorm -> ReLU -> GlobalAvgPool2D ->
        Dense. The new features come first.

    References
    ----------
    Bethge et al., "MeliusNet: can binary neural networks achieve MobileNet-level accuracy?", 2020,
    section 3. It has the layers of MeliusNet22 in Larq Zoo.

    Examples
    --------
    >>> model = meliusnet22((32, 32, 3), 10, width=0.25, seed=0)
    >>> model(np.zeros((1, 32, 32, 3), np.float32)).shape
    (1, 10)
    """
    seeds = seed_stream(seed)
    stem, growth, *narrow = scaled("meliusnet22", (32, 64, 160, 224, 256), width)
    if stem % 8 or growth % 8:
        raise ValueError(
            f"[meliusnet22] width must leave 32 and 64 channels multiples of 8, for the groups of "
            f"the first layers, got {width}"
        )
    inputs = image_channels("meliusnet22", image_shape)
    layers: Layers = []
    for outputs, groups, stride in ((stem, 1, 2), (stem, 4, 1), (growth, 8, 1)):
        settings: dict[str, Any] = {
            "stride": stride,
            "padding": "same",
            "groups": groups,
            "bias": False,
        }
        layers += [
            Conv2D(inputs, outputs, 3, seed=next(seeds), **settings),
            _norm(outputs),
            ReLU(),
        ]
        inputs = outputs
    layers.append(MaxPool2D(2))
    features = growth
    for count, narrowed in zip((4, 5, 4, 4), (*narrow, None), strict=True):
        for _ in range(count):
            layers.append(Concat(_new_features(features, growth, seed=next(seeds))))
            improved = PadFeatures(growth, after=features)
            features += growth
            better = _new_features(features, growth, seed=next(seeds))
            layers.append(Residual(Sequential(better, improved)))
        if narrowed is not None:
            layers += [
                _norm(features),
                MaxPool2D(2),
                ReLU(),
                Conv2D(features, narrowed, 1, bias=False, seed=next(seeds)),
            ]
            features = narrowed
    layers += [
        _norm(features),
        ReLU(),
        GlobalAvgPool2D(),
        Dense(features, classes, seed=next(seeds)),
    ]
    return Sequential(layers, input_shape=tuple(image_shape))


def _norm(features: int) -> BatchNorm:
    return BatchNorm(features, eps=1e-5)


def _new_features(inputs: int, outputs: int, *, seed: np.random.SeedSequence) -> Sequential:
    """Build BatchNorm -> Sign -> BinaryConv2D 3x3."""
    conv = BinaryConv2D(inputs, outputs, 3, padding="same", seed=seed, **LATENT)
    return Sequential(_norm(inputs), Sign(1.3), conv)
