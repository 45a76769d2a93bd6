"""QuickNet in three sizes: binary 3x3 convolutions, float32 layers only where they are cheap."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..layers import (
    BatchNorm,
    BinaryConv2D,
    BlurPool2D,
    Conv2D,
    Dense,
    GlobalAvgPool2D,
    MaxPool2D,
    ReLU,
    Residual,
    Sequential,
    Sign,
)
from .common import LATENT, Layers, float_conv, image_channels, scaled, seed_stream

# Binary convolutions of each of the four stages, and their channels.
_STAGES = {
    "small": ((4, 4, 4, 4), (32, 64, 256, 512)),
    "medium": ((4, 4, 4, 4), (64, 128, 256, 512)),
    "large": ((6, 8, 12, 6), (64, 128, 256, 512)),
}


def quicknet(
    image_shape: Sequence[int] = (224, 224, 3),
    classes: int = 1000,
    *,
    size: str = "medium",
    width: float = 1.0,
    seed=None,
) -> Sequential:
    """Build QuickNet: binary convolutions with shortcuts, and stages that begin with a blur.

    Parameters
    ----------
    image_shape : (height, width, channels)
        The input is images ``(n, *image_shape)`` of float32, with a mean near 0 and a
        standard deviation near 1.
    classes : int
        Number of scores.
    size : {"small", "medium", "large"}
        Which of the three published networks.
    width : float
        Multiplies the channels of every layer.
    seed : int or SeedSequence, optional
        Source of initial weights.

    Returns
    -------
    Sequential
        Conv2D 3x3, stride 2, to a quarter of the channels of the first stage -> BatchNorm -> ReLU
        -> depthwise Conv2D 3x3, stride 2 -> BatchNorm -> Conv2D 1x1 -> BatchNorm; four stages of
        Residual blocks Sign -> BinaryConv2D 3x3, whose outside is +1 -> ReLU -> BatchNorm. Stages
        after the first begin with ReLU -> MaxPool2D 2, stride 1 -> BlurPool2D 3, stride 2 ->
        Conv2D 1x1 -> BatchNorm. Then ReLU -> GlobalAvgPool2D -> Dense.

    References
    ----------
    Bannink et al., "Larq Compute Engine: design, benchmark, and deploy state-of-the-art binarized
    neural networks", 2021, section 5. It has the layers of QuickNetSmall, QuickNet and
    QuickNetLarge in Larq Zoo, and besides a gamma and a beta of the BatchNorm behind the depthwise
    convolution.

    Examples
    --------
    >>> import numpy as np
    >>> model = quicknet((32, 32, 3), 10, size="small", width=0.25, seed=0)
    >>> model(np.zeros((1, 32, 32, 3), np.float32)).shape
    (1, 10)
    """
    if size not in _STAGES:
        raise ValueError(f"[quicknet] size must be one of {', '.join(_STAGES)}, got {size!r}")
    seeds = seed_stream(seed)
    counts, published = _STAGES[size]
    sizes = scaled("quicknet", published, width)
    inputs = image_channels("quicknet", image_shape)
    few = max(sizes[0] // 4, 1)
    halving: dict[str, Any] = {"stride": 2, "padding": "same"}
    layers: Layers = [
        *float_conv(inputs, few, 3, seed=next(seeds), **halving),
        Conv2D(few, few, 3, groups=few, bias=False, seed=next(seeds), **halving),
        BatchNorm(few, eps=1e-3, momentum=0.01),
        Conv2D(few, sizes[0], 1, bias=False, seed=next(seeds)),
        BatchNorm(sizes[0], eps=1e-3, momentum=0.01),
    ]
    features = sizes[0]
    for count, outputs in zip(counts, sizes, strict=True):
        if outputs != features:
            layers += [
                ReLU(),
                MaxPool2D(2, 1),
                BlurPool2D(features, 3, stride=2),
                Conv2D(features, outputs, 1, bias=False, seed=next(seeds)),
                BatchNorm(outputs, eps=1e-5),
            ]
            features = outputs
        for _ in range(count):
            settings = {"padding": "same", "pad_value": 1, "seed": next(seeds), **LATENT}
            conv = BinaryConv2D(features, features, 3, **settings)
            body = Sequential(Sign(1.25), conv, ReLU(), BatchNorm(features, eps=1e-5))
            layers.append(Residual(body))
    layers += [ReLU(), GlobalAvgPool2D(), Dense(features, classes, seed=next(seeds))]
    return Sequential(layers, input_shape=tuple(image_shape))
