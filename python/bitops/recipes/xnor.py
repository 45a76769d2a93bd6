"""XNOR-Net and Binary-Weight-Network: filters alpha * sign(W), first and last layer in float32."""

from __future__ import annotations

from functools import partial
from typing import Any

from ..layers import (
    BatchNorm,
    BinaryConv2D,
    BinaryDense,
    Conv2D,
    Dense,
    Flatten,
    MaxPool2D,
    ReLU,
    Sequential,
    Sign,
    TrainingLayer,
)
from ..models import features_of, lenet5, nin, scaled, seed_stream
from ..quantizers import XnorSign
from ..training.losses import cross_entropy
from .base import Job, Recipe, Setting, Stage
from .builders import adam, steps
from .nets import Seeds, images_of
from .plan import Plan

__all__ = ["BWN", "XNOR", "XNOR_CONVNET"]

# Latent weights of binary layers as in the source of the nets: small at the start, centred over the
# input channels, clipped after each step. Their gradient includes that through alpha.
LATENT: dict[str, Any] = {
    "start": "normal",
    "lr_scale": 1.0,
    "center": True,
    "gradient": XnorSign("chain", released_scale=True),
}


def xnor_lenet(job: Job) -> Sequential:
    """Build LeNet-5 with `plan.width` units in its dense layer, and channels in proportion."""
    width = job.plan.width / 500
    return lenet5(images_of(job.data), job.data.classes, width=width, seed=job.seed, **LATENT)


def xnor_nin(job: Job) -> Sequential:
    """Build a network in network with `plan.width` channels in its first layer."""
    return nin(
        job.data.image_shape,
        job.data.classes,
        width=job.plan.width / 192,
        dropout=job.plan.dropout,
        seed=job.seed,
        **LATENT,
    )


def bwn_lenet(job: Job) -> Sequential:
    """Build the same LeNet-5 with real activations: each product -> BatchNorm -> ReLU."""
    seeds = seed_stream(job.seed)
    shape = images_of(job.data)
    first, second, hidden = scaled("bwn", (20, 50, 500), job.plan.width / 500)
    layers: list[TrainingLayer] = [
        Conv2D(shape[2], first, 5, bias=False, seed=next(seeds)),
        BatchNorm(first),
        ReLU(),
        MaxPool2D(2),
        BinaryConv2D(first, second, 5, scale_weights=True, seed=next(seeds), **LATENT),
        BatchNorm(second, eps=1e-3),
        ReLU(),
        MaxPool2D(2),
        Flatten(),
    ]
    features = features_of(layers, shape)
    layers += [
        BinaryDense(features, hidden, scale_weights=True, seed=next(seeds), **LATENT),
        BatchNorm(hidden, eps=1e-3),
        ReLU(),
        Dense(hidden, job.data.classes, seed=next(seeds)),
    ]
    return Sequential(layers, input_shape=shape)


def xnor_convnet(job: Job) -> Sequential:
    """Build BinaryNet's ConvNet of XNOR-Net's blocks: BatchNorm -> Sign -> product (-> pool)."""
    seeds, width = seed_stream(job.seed), job.plan.width
    layers: list[TrainingLayer] = _first(job, seeds)
    inputs = width
    for outputs, pools in _binary_stages(width):
        layers += [BatchNorm(inputs), Sign(), _binary_conv(inputs, outputs, seeds)]
        if pools:
            layers.append(MaxPool2D(2))
        inputs = outputs
    layers += [BatchNorm(inputs), Sign(), Flatten()]
    features = features_of(layers, job.data.image_shape)
    layers.append(_binary_dense(features, 8 * width, seeds))
    layers += [BatchNorm(8 * width), Sign(), _binary_dense(8 * width, 8 * width, seeds)]
    layers += [BatchNorm(8 * width, eps=1e-3), ReLU(), _last(job, seeds)]
    return Sequential(layers, input_shape=job.data.image_shape)


def bwn_convnet(job: Job) -> Sequential:
    """Build the same ConvNet with real activations: product -> BatchNorm -> ReLU (-> pool)."""
    seeds, width = seed_stream(job.seed), job.plan.width
    layers: list[TrainingLayer] = _first(job, seeds)
    inputs = width
    for outputs, pools in _binary_stages(width):
        layers += [_binary_conv(inputs, outputs, seeds), BatchNorm(outputs, eps=1e-3), ReLU()]
        if pools:
            layers.append(MaxPool2D(2))
        inputs = outputs
    layers.append(Flatten())
    features = features_of(layers, job.data.image_shape)
    for _ in range(2):
        dense = _binary_dense(features, 8 * width, seeds)
        layers += [dense, BatchNorm(8 * width, eps=1e-3), ReLU()]
        features = 8 * width
    layers.append(_last(job, seeds))
    return Sequential(layers, input_shape=job.data.image_shape)


def _binary_stages(width: int) -> list[tuple[int, bool]]:
    """Return channels and pooling of the convolutions 3x3 behind the first one."""
    channels = (width, 2 * width, 2 * width, 4 * width, 4 * width)
    return [(outputs, place % 2 == 0) for place, outputs in enumerate(channels)]


def _first(job: Job, seeds: Seeds) -> list[TrainingLayer]:
    channels, width = job.data.image_shape[2], job.plan.width
    conv = Conv2D(channels, width, 3, padding=1, bias=False, seed=next(seeds))
    return [conv, BatchNorm(width, eps=1e-5), ReLU()]


def _binary_conv(inputs: int, outputs: int, seeds: Seeds) -> TrainingLayer:
    return BinaryConv2D(
        inputs, outputs, 3, padding=1, scale_weights=True, seed=next(seeds), **LATENT
    )


def _binary_dense(inputs: int, outputs: int, seeds: Seeds) -> TrainingLayer:
    return BinaryDense(inputs, outputs, scale_weights=True, seed=next(seeds), **LATENT)


def _last(job: Job, seeds: Seeds) -> TrainingLayer:
    return Dense(8 * job.plan.width, job.data.classes, seed=next(seeds))


PAPER = "Rastegari et al., XNOR-Net, 2016"
ENDS = "first and last layer float32, the others binary"

penalized = partial(adam, l2=1e-5)
MNIST_STEPS = steps(15, 30, 45, epochs=60)
CIFAR_STEPS = steps(120, 200, 240, 280, epochs=320)
CONVNET = Plan(width=128, epochs=320, batch_size=128, lr=1e-2)
QUICK_CONVNET = {"width": 32, "epochs": 6}

XNOR = Recipe(
    name="xnor",
    title="XNOR-Net: binary weights with a scale, binary activations",
    paper=PAPER,
    code="allenai/XNOR-Net; nets of jiecaoyu/XNOR-Net-PyTorch",
    settings={
        "mnist": Setting(
            plan=Plan(width=500, epochs=60, batch_size=128, lr=1e-2),
            stages=(Stage(xnor_lenet, penalized, MNIST_STEPS, cross_entropy),),
            quick={"epochs": 12},
            preprocessing="standard",
            published="0.77",
        ),
        "cifar10": Setting(
            plan=Plan(width=192, epochs=320, batch_size=128, lr=1e-2, dropout=0.5),
            stages=(Stage(xnor_nin, penalized, CIFAR_STEPS, cross_entropy, any_size=True),),
            quick={"width": 96, "epochs": 5, "dropout": 0.0},
            preprocessing="whitened",
            published="13.72",
        ),
    },
    tested=ENDS,
    notes="the figures are those of the nets' source; without K, as in the released code",
)

XNOR_CONVNET = Recipe(
    name="xnor-convnet",
    title="XNOR-Net of BinaryNet's ConvNet",
    paper=PAPER,
    code="allenai/XNOR-Net",
    settings={
        "cifar10": Setting(
            plan=CONVNET,
            stages=(Stage(xnor_convnet, penalized, CIFAR_STEPS, cross_entropy),),
            quick=QUICK_CONVNET,
            preprocessing="whitened",
        ),
    },
    tested=ENDS,
    notes="the block of the source in the ConvNet of recipe bnn-theano, with optimizer, schedule "
    "and preprocessing of recipe xnor; without K",
)

BWN = Recipe(
    name="bwn",
    title="Binary-Weight-Network: binary weights with a scale, real activations",
    paper=PAPER,
    code="allenai/XNOR-Net",
    settings={
        "mnist": Setting(
            plan=Plan(width=500, epochs=60, batch_size=128, lr=1e-2),
            stages=(Stage(bwn_lenet, penalized, MNIST_STEPS, cross_entropy, takes_numbers=True),),
            quick={"epochs": 10},
            preprocessing="standard",
        ),
        "cifar10": Setting(
            plan=CONVNET,
            stages=(Stage(bwn_convnet, penalized, CIFAR_STEPS, cross_entropy, takes_numbers=True),),
            quick=QUICK_CONVNET,
            preprocessing="whitened",
        ),
    },
    tested="first and last layer float32, the others binary weights and real activations",
    notes="the block of the source in the LeNet-5 of recipe xnor and in the ConvNet of recipe "
    "bnn-theano, with optimizer and schedule of recipe xnor; the source reports ImageNet",
)
