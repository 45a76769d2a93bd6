"""XNOR-Nets: LeNet-5, NIN, AlexNet and ResNet-18 with binary layers between float32 ones."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from ..layers import (
    AvgPool2D,
    BatchNorm,
    BinaryConv2D,
    BinaryDense,
    Conv2D,
    Dense,
    Dropout,
    Flatten,
    GlobalAvgPool2D,
    MaxPool2D,
    ReLU,
    Residual,
    Sequential,
    Sign,
    TrainingLayer,
)
from .common import Layers, features_of, float_conv, image_channels, scaled, seed_stream


def alexnet(
    image_shape: Sequence[int] = (224, 224, 3),
    classes: int = 1000,
    *,
    width: float = 1.0,
    scale_weights: bool = True,
    scale_input: bool = False,
    seed=None,
) -> Sequential:
    """Build XNOR-Net's AlexNet: seven binary layers between a first and a last in float32.

    Parameters
    ----------
    image_shape : (height, width, channels)
        The input is images ``(n, *image_shape)`` of float32, with a mean near 0 and a
        standard deviation near 1.
    classes : int
        Number of scores.
    width : float
        Multiplies the channels of every layer.
    scale_weights : bool
        Whether binary filters are multiplied by alpha, their mean absolute weight.
    scale_input : bool
        Whether binary convolutions scale their output by K, the scale of the input. The released
        code does not.
    seed : int or SeedSequence, optional
        Source of initial weights.

    Returns
    -------
    Sequential
        Conv2D 96, 11x11, stride 4, padding 2 -> BatchNorm -> ReLU -> pool; binary 256 5x5 -> pool;
        384 3x3; 384 3x3; 256 3x3 -> pool; 4096 over the whole image (6x6 for 224x224); 4096 1x1;
        BatchNorm -> ReLU -> Conv2D 1x1 -> Flatten. Each binary layer is BatchNorm -> Sign ->
        BinaryConv2D. With `scale_input` there is no Sign, since BinaryConv2D binarizes its input.
        Pools are MaxPool2D 3, stride 2.

    References
    ----------
    Rastegari et al., "XNOR-Net", 2016, section 3.2 (the block) and 4.1 (AlexNet). Sizes and order
    follow the code released with it, in which fully connected layers are convolutions too.

    Examples
    --------
    >>> model = alexnet((64, 64, 3), 10, width=0.125, seed=0)
    >>> model(np.zeros((1, 64, 64, 3), np.float32)).shape
    (1, 10)
    """
    seeds = seed_stream(seed)
    sizes = scaled("alexnet", (96, 256, 384, 384, 256, 4096, 4096), width)
    scales = {"scale_weights": scale_weights, "scale_input": scale_input}
    inputs = image_channels("alexnet", image_shape)
    layers: Layers = [
        Conv2D(inputs, sizes[0], 11, stride=4, padding=2, bias=False, seed=next(seeds)),
        BatchNorm(sizes[0], eps=1e-5),
        ReLU(),
        MaxPool2D(3, stride=2),
        *_xnor_conv(sizes[0], sizes[1], 5, padding=2, seed=next(seeds), **scales),
        MaxPool2D(3, stride=2),
        *_xnor_conv(sizes[1], sizes[2], 3, padding=1, seed=next(seeds), **scales),
        *_xnor_conv(sizes[2], sizes[3], 3, padding=1, seed=next(seeds), **scales),
        *_xnor_conv(sizes[3], sizes[4], 3, padding=1, seed=next(seeds), **scales),
        MaxPool2D(3, stride=2),
    ]
    whole = Sequential(layers).output_shape(tuple(image_shape))[:2]
    layers += [
        *_xnor_conv(sizes[4], sizes[5], whole, seed=next(seeds), **scales),
        *_xnor_conv(sizes[5], sizes[6], 1, seed=next(seeds), **scales),
        BatchNorm(sizes[6], eps=1e-3),
        ReLU(),
        Conv2D(sizes[6], classes, 1, seed=next(seeds)),
        Flatten(),
    ]
    return Sequential(layers, input_shape=tuple(image_shape))


def lenet5(
    image_shape: Sequence[int] = (28, 28, 1),
    classes: int = 10,
    *,
    width: float = 1.0,
    scale_weights: bool = True,
    scale_input: bool = False,
    seed=None,
    **latent: Any,
) -> Sequential:
    """Build LeNet-5 as an XNOR-Net: two binary layers between a first and a last in float32.

    Parameters
    ----------
    image_shape : (height, width, channels)
        The input is images ``(n, *image_shape)`` of float32, with a mean near 0 and a
        standard deviation near 1.
    classes : int
        Number of scores.
    width : float
        Multiplies the channels of the convolutions and the units of the hidden dense layer.
    scale_weights : bool
        Whether binary filters are multiplied by alpha, their mean absolute weight.
    scale_input : bool
        Whether the binary convolution scales its output by K, the scale of the input.
    seed : int or SeedSequence, optional
        Source of initial weights.
    **latent
        Further options of the binary layers' latent weights; see BinaryDense.

    Returns
    -------
    Sequential
        Conv2D 20, 5x5 -> BatchNorm -> ReLU -> MaxPool2D 2 -> BatchNorm -> Sign -> BinaryConv2D 50,
        5x5 -> ReLU -> MaxPool2D 2 -> BatchNorm -> Sign -> Flatten -> BinaryDense 500 -> ReLU ->
        Dense. With `scale_input` there is no Sign before BinaryConv2D, which binarizes its input.

    Notes
    -----
    The code below reports an accuracy of 99.23 % on MNIST (99.34 % in full precision). It trains
    for 60 epochs with Adam, cross-entropy, batches of 128, and a learning rate of 0.01 that is
    divided by 10 every 15 epochs.

    References
    ----------
    The layers follow the LeNet-5 of jiecaoyu/XNOR-Net-PyTorch. Unlike there, gamma of a BatchNorm
    may fall below 0.01, and every BatchNorm learns gamma and beta.

    Examples
    --------
    >>> model = lenet5(width=0.25, seed=0)
    >>> model(np.zeros((1, 28, 28, 1), np.float32)).shape
    (1, 10)
    """
    seeds = seed_stream(seed)
    first, second, hidden = scaled("lenet5", (20, 50, 500), width)
    options = {"scale_weights": scale_weights, "scale_input": scale_input, **latent}
    inputs = image_channels("lenet5", image_shape)
    layers: Layers = [
        *float_conv(inputs, first, 5, seed=next(seeds)),
        MaxPool2D(2),
        *_xnor_conv(first, second, 5, bias=True, seed=next(seeds), **options),
        ReLU(),
        MaxPool2D(2),
        BatchNorm(second),
        Sign(),
        Flatten(),
    ]
    features = features_of(layers, image_shape)
    layers += [
        BinaryDense(
            features, hidden, bias=True, scale_weights=scale_weights, seed=next(seeds), **latent
        ),
        ReLU(),
        Dense(hidden, classes, seed=next(seeds)),
    ]
    return Sequential(layers, input_shape=tuple(image_shape))


def nin(
    image_shape: Sequence[int] = (32, 32, 3),
    classes: int = 10,
    *,
    width: float = 1.0,
    dropout: float = 0.0,
    scale_weights: bool = True,
    scale_input: bool = False,
    seed=None,
    **latent: Any,
) -> Sequential:
    """Build Network in Network as an XNOR-Net: seven binary convolutions between two float32 ones.

    Parameters
    ----------
    image_shape : (height, width, channels)
        The input is images ``(n, *image_shape)`` of float32, with a mean near 0 and a
        standard deviation near 1.
    classes : int
        Number of scores.
    width : float
        Multiplies the channels of every layer.
    dropout : float
        Dropout rate before the two binary convolutions that follow pools; 0.5 in the released code.
        Must be 0 with `scale_input`, since there are no bits outside the layers to drop.
    scale_weights : bool
        Whether binary filters are multiplied by alpha, their mean absolute weight.
    scale_input : bool
        Whether binary convolutions scale their output by K, the scale of the input.
    seed : int or SeedSequence, optional
        Source of initial weights and dropout masks.
    **latent
        Further options of the binary layers' latent weights; see BinaryDense.

    Returns
    -------
    Sequential
        Conv2D 192, 5x5 -> BatchNorm -> ReLU; binary 160 1x1; 96 1x1; MaxPool2D 3, stride 2; binary
        192 5x5; 192 1x1; 192 1x1; AvgPool2D 3, stride 2; binary 192 3x3; 192 1x1; BatchNorm ->
        Conv2D 1x1 -> ReLU -> GlobalAvgPool2D. Each binary layer is BatchNorm -> Sign (-> Dropout)
        -> BinaryConv2D -> ReLU. With `scale_input` there is no Sign, since BinaryConv2D binarizes
        its input.

    Notes
    -----
    The code below reports an accuracy of 86.28 % on CIFAR-10 (89.67 % in full precision). It trains
    for 320 epochs with Adam, cross-entropy, and a learning rate of 0.01 that is divided by 10 after
    epochs 120, 200, 240 and 280.

    References
    ----------
    The layers follow the NIN of jiecaoyu/XNOR-Net-PyTorch. Unlike there, gamma of a BatchNorm may
    fall below 0.01, and every BatchNorm learns gamma and beta.
    Lin et al., "Network in network", 2014.

    Examples
    --------
    >>> model = nin(width=0.125, seed=0)
    >>> model(np.zeros((1, 32, 32, 3), np.float32)).shape
    (1, 10)
    """
    if dropout and scale_input:
        raise ValueError(f"[nin] dropout must be 0 with scale_input, got {dropout}")
    seeds = seed_stream(seed)
    first, *sizes = scaled("nin", (192, 160, 96, 192, 192, 192, 192, 192), width)
    pools: dict[int, TrainingLayer] = {
        2: MaxPool2D(3, stride=2, padding=1),
        5: AvgPool2D(3, stride=2, padding=1),
    }
    options = {"scale_weights": scale_weights, "scale_input": scale_input, **latent}
    inputs = image_channels("nin", image_shape)
    layers = float_conv(inputs, first, 5, padding=2, seed=next(seeds))
    inputs = first
    for place, (outputs, size) in enumerate(zip(sizes, (1, 1, 5, 1, 1, 3, 1), strict=True)):
        if place in pools:
            layers.append(pools[place])
        layers += _xnor_conv(
            inputs,
            outputs,
            size,
            padding=size // 2,
            bias=True,
            dropout=dropout if place in pools else 0.0,
            seed=next(seeds),
            **options,
        )
        layers.append(ReLU())
        inputs = outputs
    layers += [
        BatchNorm(inputs),
        Conv2D(inputs, classes, 1, seed=next(seeds)),
        ReLU(),
        GlobalAvgPool2D(),
    ]
    return Sequential(layers, input_shape=tuple(image_shape))


def resnet18(
    image_shape: Sequence[int] = (224, 224, 3),
    classes: int = 1000,
    *,
    width: float = 1.0,
    scale_weights: bool = True,
    scale_input: bool = False,
    seed=None,
) -> Sequential:
    """Build ResNet-18 as an XNOR-Net: sixteen binary convolutions, and float32 shortcuts.

    Parameters
    ----------
    image_shape : (height, width, channels)
        The input is images ``(n, *image_shape)`` of float32, with a mean near 0 and a
        standard deviation near 1.
    classes : int
        Number of scores.
    width : float
        Multiplies the channels of every layer; the first of the four stages has 64.
    scale_weights : bool
        Whether binary filters are multiplied by alpha, their mean absolute weight.
    scale_input : bool
        Whether binary convolutions scale their output by K, the scale of the input.
    seed : int or SeedSequence, optional
        Source of initial weights.

    Returns
    -------
    Sequential
        Conv2D 7x7, stride 2 -> BatchNorm -> ReLU -> MaxPool2D 3, stride 2; four stages of two
        Residual blocks, each block 2 x [BatchNorm -> Sign -> BinaryConv2D 3x3]; then BatchNorm ->
        ReLU -> GlobalAvgPool2D -> Dense. Each stage has twice the channels of the one before.
        Stages after the first begin with stride 2 and a shortcut Conv2D 1x1, stride 2 -> BatchNorm.
        With `scale_input` there is no Sign, since BinaryConv2D binarizes its input.

    References
    ----------
    Rastegari et al., "XNOR-Net", 2016, section 4.1, with shortcuts of type B of He et al., "Deep
    residual learning for image recognition", 2016. No code was released for this network; its first
    and last layers follow He et al.

    Examples
    --------
    >>> model = resnet18((64, 64, 3), 10, width=0.125, seed=0)
    >>> model(np.zeros((1, 64, 64, 3), np.float32)).shape
    (1, 10)
    """
    seeds = seed_stream(seed)
    scales = {"scale_weights": scale_weights, "scale_input": scale_input}
    sizes = scaled("resnet18", (64, 128, 256, 512), width)
    inputs = image_channels("resnet18", image_shape)
    layers = float_conv(inputs, sizes[0], 7, stride=2, padding=3, seed=next(seeds))
    layers.append(MaxPool2D(3, stride=2, padding=1))
    inputs = sizes[0]
    for stage, outputs in enumerate(sizes):
        for stride in (1 if stage == 0 else 2, 1):
            layers.append(_xnor_residual(inputs, outputs, stride, seeds, **scales))
            inputs = outputs
    layers += [
        BatchNorm(inputs),
        ReLU(),
        GlobalAvgPool2D(),
        Dense(inputs, classes, seed=next(seeds)),
    ]
    return Sequential(layers, input_shape=tuple(image_shape))


def _xnor_residual(
    inputs: int, outputs: int, stride: int, seeds: Iterator[np.random.SeedSequence], **scales: bool
) -> Residual:
    """Build two binary convolutions and a shortcut; with a stride of 2 the shortcut is a Conv2D."""
    body = Sequential(
        *_xnor_conv(inputs, outputs, 3, stride=stride, padding=1, seed=next(seeds), **scales),
        *_xnor_conv(outputs, outputs, 3, padding=1, seed=next(seeds), **scales),
    )
    if stride == 1:
        return Residual(body)
    shortcut = Conv2D(inputs, outputs, 1, stride=stride, bias=False, seed=next(seeds))
    return Residual(body, Sequential(shortcut, BatchNorm(outputs)))


def _xnor_conv(
    inputs: int,
    outputs: int,
    kernel_size: Any,
    *,
    scale_weights: bool,
    scale_input: bool,
    seed: np.random.SeedSequence,
    dropout: float = 0.0,
    **options: Any,
) -> Layers:
    """Build BatchNorm -> Sign (-> Dropout) -> BinaryConv2D; scale_input leaves out the Sign."""
    layers: Layers = [BatchNorm(inputs)]
    if not scale_input:
        layers.append(Sign())
    if dropout:
        (mask_seed,) = seed.spawn(1)
        layers.append(Dropout(dropout, seed=mask_seed))
    options |= {"scale_weights": scale_weights, "scale_input": scale_input}
    layers.append(BinaryConv2D(inputs, outputs, kernel_size, seed=seed, **options))
    return layers
