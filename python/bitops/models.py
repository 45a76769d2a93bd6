"""Networks ready to train."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from .layers import (
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
)
from .layers.base import TrainingLayer

Layers = list[TrainingLayer]


def mlp(
    in_features: int,
    hidden: int = 1024,
    depth: int = 3,
    classes: int = 10,
    *,
    dropout: float = 0.0,
    input_dropout: float = 0.0,
    seed=None,
) -> Sequential:
    """Multi-layer perceptron with binary weights and activations in every layer.

    Parameters
    ----------
    in_features, hidden, classes : int
        Numbers of inputs, of units in each hidden layer, and of scores.
    depth : int
        Number of hidden layers.
    dropout, input_dropout : float
        Rates behind each hidden activation, and on the input. Tens of epochs want none.
    seed : int or SeedSequence, optional
        Source of start weights and dropout masks.

    Returns
    -------
    Sequential
        depth x [BinaryDense -> BatchNorm -> Sign (-> Dropout)] -> BinaryDense -> BatchNorm.

    References
    ----------
    Courbariaux, Hubara et al., "Binarized Neural Networks", 2016, section 2.1 (their MNIST network
    has three hidden layers of 4096 units and dropout).
    """
    if depth < 0:
        raise ValueError(f"[mlp] depth must be >= 0, got {depth}")
    seeds = seed_stream(seed)
    layers: Layers = []
    if input_dropout:
        layers.append(Dropout(input_dropout, seed=next(seeds)))
    features = in_features
    for _ in range(depth):
        layers += [BinaryDense(features, hidden, seed=next(seeds)), BatchNorm(hidden), Sign()]
        if dropout:
            layers.append(Dropout(dropout, seed=next(seeds)))
        features = hidden
    layers += [BinaryDense(features, classes, seed=next(seeds)), BatchNorm(classes)]
    return Sequential(layers)


def binarynet(
    image_shape: Sequence[int] = (32, 32, 3),
    channels: Sequence[int] = (128, 256, 512),
    hidden: int = 1024,
    classes: int = 10,
    *,
    seed=None,
) -> Sequential:
    """BinaryNet's ConvNet: binary weights and activations in every layer, the first one included.

    Parameters
    ----------
    image_shape : (height, width, channels)
        The input is images (n, *image_shape) of uint8 as they are: the products of the first layer
        are exact, and the BatchNorm behind them undoes scale and offset. Outside is 0, black.
    channels : sequence of int
        Channels of each stage, which halves height and width.
    hidden : int
        Units of the two dense layers.
    classes : int
        Number of scores.
    seed : int or SeedSequence, optional
        Source of start weights.

    Returns
    -------
    Sequential
        For each stage BinaryConv2D 3x3, padding 1 -> BatchNorm -> Sign -> BinaryConv2D the same ->
        MaxPool2D 2 -> BatchNorm -> Sign; then Flatten -> 2 x [BinaryDense -> BatchNorm -> Sign] ->
        BinaryDense -> BatchNorm.

    References
    ----------
    Courbariaux, Hubara et al., "Binarized Neural Networks", 2016, section 2.2, their network for
    CIFAR-10; order of layers as in the code released with it. For SVHN they use channels
    (64, 128, 256).
    """
    seeds = seed_stream(seed)
    layers: Layers = []
    inputs = _channels("binarynet", image_shape)
    for outputs in channels:
        layers += [
            BinaryConv2D(inputs, outputs, 3, padding=1, seed=next(seeds)),
            BatchNorm(outputs),
            Sign(),
            BinaryConv2D(outputs, outputs, 3, padding=1, seed=next(seeds)),
            MaxPool2D(2),
            BatchNorm(outputs),
            Sign(),
        ]
        inputs = outputs
    layers.append(Flatten())
    features = features_of(layers, image_shape)
    for _ in range(2):
        layers += [BinaryDense(features, hidden, seed=next(seeds)), BatchNorm(hidden), Sign()]
        features = hidden
    layers += [BinaryDense(features, classes, seed=next(seeds)), BatchNorm(classes)]
    return Sequential(layers, input_shape=tuple(image_shape))


def alexnet(
    image_shape: Sequence[int] = (224, 224, 3),
    classes: int = 1000,
    *,
    width: float = 1.0,
    alpha: bool = True,
    k_map: bool = False,
    seed=None,
) -> Sequential:
    """XNOR-Net's AlexNet: first and last layer in full precision, seven binary ones between them.

    Parameters
    ----------
    image_shape : (height, width, channels)
        The input is images (n, *image_shape) of float32 with mean about 0 and deviation about 1.
    classes : int
        Number of scores.
    width : float
        Multiplies the number of channels of every layer.
    alpha : bool
        Whether filters have the scale of their weights; without it they are +-1.
    k_map : bool
        Whether binary layers keep the scale of their input. The released code leaves it out.
    seed : int or SeedSequence, optional
        Source of start weights.

    Returns
    -------
    Sequential
        Conv2D 96, 11x11, stride 4, padding 2 -> BatchNorm -> ReLU -> pool; binary 256 5x5 -> pool;
        384 3x3; 384 3x3; 256 3x3 -> pool; 4096 over the whole image (6x6 for 224x224); 4096 1x1;
        BatchNorm -> ReLU -> Conv2D 1x1 -> Flatten. Each binary layer is BatchNorm -> Sign ->
        BinaryConv2D, or BatchNorm -> BinaryConv2D where that makes the signs itself for its
        `k_map`. Pools are MaxPool2D 3, stride 2.

    References
    ----------
    Rastegari et al., "XNOR-Net", 2016, section 3.2 (the block) and 4.1 (AlexNet); sizes and order
    as in the code released with it, whose fully connected layers are convolutions too.
    """
    seeds = seed_stream(seed)
    sizes = _scaled("alexnet", (96, 256, 384, 384, 256, 4096, 4096), width)
    scales = {"alpha": alpha, "k_map": k_map}
    inputs = _channels("alexnet", image_shape)
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
    channels: tuple[int, int] = (20, 50),
    hidden: int = 500,
    alpha: bool = True,
    k_map: bool = False,
    seed=None,
    **latent: Any,
) -> Sequential:
    """LeNet-5 as an XNOR-Net: second convolution and first dense layer binary, the others not.

    Parameters
    ----------
    image_shape : (height, width, channels)
        The input is images (n, *image_shape) of float32 with mean about 0 and deviation about 1.
    classes : int
        Number of scores.
    channels : (int, int)
        Channels of the two convolutions.
    hidden : int
        Units of the dense layer between.
    alpha : bool
        Whether binary weights have the scale of the latent ones.
    k_map : bool
        Whether the binary convolution keeps the scale of its input.
    seed : int or SeedSequence, optional
        Source of start weights.
    **latent
        How binary layers start and learn: further options of BinaryConv2D and BinaryDense.

    Returns
    -------
    Sequential
        Conv2D 20, 5x5 -> BatchNorm -> ReLU -> MaxPool2D 2 -> BatchNorm -> Sign -> BinaryConv2D 50,
        5x5 -> ReLU -> MaxPool2D 2 -> BatchNorm -> Sign -> Flatten -> BinaryDense 500 -> ReLU ->
        Dense. With `k_map` the binary convolution makes the signs itself.

    Notes
    -----
    The code named below reports 99.23 % on MNIST (99.34 % in full precision) for 60 epochs of Adam
    and cross-entropy with batches of 128 and a rate of 0.01, divided by 10 every 15 epochs.

    References
    ----------
    Layers as in the LeNet-5 of jiecaoyu/XNOR-Net-PyTorch. Unlike there, gamma of a BatchNorm is not
    kept above 0.01, and all of them learn gamma and beta.
    """
    seeds = seed_stream(seed)
    first, second = channels
    inputs = _channels("lenet5", image_shape)
    layers: Layers = [
        Conv2D(inputs, first, 5, bias=False, seed=next(seeds)),
        BatchNorm(first),
        ReLU(),
        MaxPool2D(2),
        *_xnor_conv(
            first, second, 5, bias=True, alpha=alpha, k_map=k_map, seed=next(seeds), **latent
        ),
        ReLU(),
        MaxPool2D(2),
        BatchNorm(second),
        Sign(),
        Flatten(),
    ]
    features = features_of(layers, image_shape)
    layers += [
        BinaryDense(features, hidden, bias=True, scale_weights=alpha, seed=next(seeds), **latent),
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
    alpha: bool = True,
    k_map: bool = False,
    seed=None,
    **latent: Any,
) -> Sequential:
    """Network in network as an XNOR-Net: seven binary convolutions between two real ones.

    Parameters
    ----------
    image_shape : (height, width, channels)
        The input is images (n, *image_shape) of float32 with mean about 0 and deviation about 1.
    classes : int
        Number of scores.
    width : float
        Multiplies the number of channels of every layer.
    dropout : float
        Rate before the two wide binary convolutions behind the pools; the released code has 0.5.
        Excludes `k_map`, which leaves no bits outside the layer to drop.
    alpha : bool
        Whether filters have the scale of their weights.
    k_map : bool
        Whether binary layers keep the scale of their input.
    seed : int or SeedSequence, optional
        Source of start weights and dropout masks.
    **latent
        How binary layers start and learn: further options of BinaryConv2D and BinaryDense.

    Returns
    -------
    Sequential
        Conv2D 192, 5x5 -> BatchNorm -> ReLU; binary 160 1x1; 96 1x1; MaxPool2D 3, stride 2; binary
        192 5x5; 192 1x1; 192 1x1; AvgPool2D 3, stride 2; binary 192 3x3; 192 1x1; BatchNorm ->
        Conv2D 1x1 -> ReLU -> GlobalAvgPool2D. Each binary layer is BatchNorm -> Sign (-> Dropout)
        -> BinaryConv2D -> ReLU; with `k_map` BinaryConv2D makes the signs itself.

    Notes
    -----
    The code named below reports 86.28 % on CIFAR-10 (89.67 % in full precision) for 320 epochs of
    Adam and cross-entropy with a rate of 0.01, divided by 10 after epochs 120, 200, 240 and 280.

    References
    ----------
    Layers as in the NIN of jiecaoyu/XNOR-Net-PyTorch. Unlike there, gamma of a BatchNorm is not
    kept above 0.01, and all of them learn gamma and beta.
    Lin et al., "Network in network", 2014.
    """
    if dropout and k_map:
        raise ValueError(f"[nin] dropout must be 0 with k_map, got {dropout}")
    seeds = seed_stream(seed)
    first, *sizes = _scaled("nin", (192, 160, 96, 192, 192, 192, 192, 192), width)
    kernels = (1, 1, 5, 1, 1, 3, 1)
    pools: dict[int, TrainingLayer] = {
        2: MaxPool2D(3, stride=2, padding=1),
        5: AvgPool2D(3, stride=2, padding=1),
    }
    inputs = _channels("nin", image_shape)
    layers: Layers = [
        Conv2D(inputs, first, 5, padding=2, bias=False, seed=next(seeds)),
        BatchNorm(first),
        ReLU(),
    ]
    inputs = first
    for place, (outputs, kernel) in enumerate(zip(sizes, kernels, strict=True)):
        rate = dropout if place in pools else 0.0
        if place in pools:
            layers.append(pools[place])
        layers += _xnor_conv(
            inputs,
            outputs,
            kernel,
            padding=kernel // 2,
            bias=True,
            alpha=alpha,
            k_map=k_map,
            dropout=rate,
            seed=next(seeds),
            **latent,
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
    width: int = 64,
    alpha: bool = True,
    k_map: bool = False,
    seed=None,
) -> Sequential:
    """ResNet-18 as an XNOR-Net: sixteen binary convolutions, and shortcuts of real numbers.

    Parameters
    ----------
    image_shape : (height, width, channels)
        The input is images (n, *image_shape) of float32 with mean about 0 and deviation about 1.
    classes : int
        Number of scores.
    width : int
        Channels of the first of the four stages; each of the others has twice as many.
    alpha : bool
        Whether filters have the scale of their weights.
    k_map : bool
        Whether binary layers keep the scale of their input.
    seed : int or SeedSequence, optional
        Source of start weights.

    Returns
    -------
    Sequential
        Conv2D 7x7, stride 2 -> BatchNorm -> ReLU -> MaxPool2D 3, stride 2; four stages of two
        Residual blocks 2 x [BatchNorm -> Sign -> BinaryConv2D 3x3], where stages after the first
        begin with stride 2 and a shortcut Conv2D 1x1, stride 2 -> BatchNorm; then BatchNorm ->
        ReLU -> GlobalAvgPool2D -> Dense. With `k_map` BinaryConv2D makes the signs itself.

    References
    ----------
    Rastegari et al., "XNOR-Net", 2016, section 4.1, which takes shortcuts of type B of He et al.,
    "Deep residual learning for image recognition", 2016. No code was released for it: stem and end
    are those of the latter.
    """
    seeds = seed_stream(seed)
    layers: Layers = [
        Conv2D(
            _channels("resnet18", image_shape),
            width,
            7,
            stride=2,
            padding=3,
            bias=False,
            seed=next(seeds),
        ),
        BatchNorm(width),
        ReLU(),
        MaxPool2D(3, stride=2, padding=1),
    ]
    inputs = width
    for stage in range(4):
        outputs = width << stage
        for stride in (1 if stage == 0 else 2, 1):
            body = Sequential(
                *_xnor_conv(
                    inputs,
                    outputs,
                    3,
                    stride=stride,
                    padding=1,
                    alpha=alpha,
                    k_map=k_map,
                    seed=next(seeds),
                ),
                *_xnor_conv(
                    outputs, outputs, 3, padding=1, alpha=alpha, k_map=k_map, seed=next(seeds)
                ),
            )
            shortcut = None
            if stride != 1:
                shortcut = Sequential(
                    Conv2D(inputs, outputs, 1, stride=stride, bias=False, seed=next(seeds)),
                    BatchNorm(outputs),
                )
            layers.append(Residual(body, shortcut))
            inputs = outputs
    layers += [
        BatchNorm(inputs),
        ReLU(),
        GlobalAvgPool2D(),
        Dense(inputs, classes, seed=next(seeds)),
    ]
    return Sequential(layers, input_shape=tuple(image_shape))


def _xnor_conv(
    in_channels: int,
    out_channels: int,
    kernel_size: Any,
    *,
    alpha: bool,
    k_map: bool,
    seed: np.random.SeedSequence,
    dropout: float = 0.0,
    **options: Any,
) -> Layers:
    """BatchNorm -> Sign (-> Dropout) -> BinaryConv2D; with k_map the last makes the signs."""
    layers: Layers = [BatchNorm(in_channels)]
    if not k_map:
        layers.append(Sign())
    if dropout:
        (mask_seed,) = seed.spawn(1)
        layers.append(Dropout(dropout, seed=mask_seed))
    options |= {"scale_weights": alpha, "scale_input": k_map}
    layers.append(BinaryConv2D(in_channels, out_channels, kernel_size, seed=seed, **options))
    return layers


def seed_stream(seed) -> Iterator[np.random.SeedSequence]:
    """Independent sources, one for each layer that asks."""
    sequence = (
        np.random.SeedSequence(seed) if not isinstance(seed, np.random.SeedSequence) else seed
    )
    while True:
        yield from sequence.spawn(1)


def _channels(function: str, image_shape: Sequence[int]) -> int:
    """Channels of images whose shape has three axes."""
    if len(image_shape) != 3:
        raise ValueError(
            f"[{function}] image_shape must be (height, width, channels), got {image_shape!r}"
        )
    return image_shape[2]


def features_of(layers: Layers, image_shape: Sequence[int]) -> int:
    """What the last of some layers gives for an image."""
    features = Sequential(layers).output_shape(tuple(image_shape))[-1]
    assert features is not None  # the size of the image is known
    return features


def _scaled(function: str, sizes: Sequence[int], width: float) -> list[int]:
    """Numbers of channels times `width`, at least one of each."""
    if not 0 < width < float("inf"):
        raise ValueError(f"[{function}] width must be positive and finite, got {width}")
    return [max(round(size * width), 1) for size in sizes]
