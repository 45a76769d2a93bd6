"""DoReFa-Net: weights, activations and gradients of few bits."""

from __future__ import annotations

from typing import Any

from ..data.datasets import Dataset
from ..layers import (
    BatchNorm,
    Conv2D,
    Dense,
    Dropout,
    Flatten,
    MaxPool2D,
    Quantize,
    QuantizedConv2D,
    QuantizeGradient,
    ReLU,
    Sequential,
)
from ..layers.base import TrainingLayer
from ..models import features_of, seed_stream
from ..quantizers import DoReFaActivation, DoReFaWeight
from ..training.losses import cross_entropy
from ..training.optim import Adam, Optimizer
from .base import Plan, Recipe, Setting, Stage
from .binary import halved
from .nets import images_of

BITS = {"weights": 1, "activations": 1, "gradients": 4}


def dorefa_net(data: Dataset, plan: Plan, seed: int, previous: Sequential | None) -> Sequential:
    """The network for SVHN; its channels are 48, 64, 64, 128, 128, 128, 512 for a width of 48.

    The window of the last convolution covers what is left of the image, 5 x 5 of one of 40 x 40.
    """
    seeds = seed_stream(seed)
    shape = images_of(data)
    first, *sizes = (max(size * plan.width // 48, 1) for size in (48, 64, 64, 128, 128, 128, 512))
    layers: list[TrainingLayer] = [
        Conv2D(shape[2], first, 5, seed=next(seeds)),
        MaxPool2D(2),
        Quantize(DoReFaActivation(BITS["activations"])),
    ]
    inputs = first
    for place, outputs in enumerate(sizes, 1):
        last = place == len(sizes)
        if last and plan.dropout:
            layers.append(Dropout(plan.dropout, seed=next(seeds)))
        whole: Any = Sequential(*layers).output_shape(shape)[:2] if last else None
        layers += [
            QuantizedConv2D(
                inputs,
                outputs,
                whole or 3,
                DoReFaWeight(BITS["weights"]),
                padding=1 if place in (1, 2, 4) else 0,
                seed=next(seeds),
            ),
            QuantizeGradient(BITS["gradients"], seed=next(seeds)),
            BatchNorm(outputs),
        ]
        if place == 2:
            layers.append(MaxPool2D(2))
        layers.append(ReLU() if last else Quantize(DoReFaActivation(BITS["activations"])))
        inputs = outputs
    layers.append(Flatten())
    features = features_of(layers, shape)
    layers.append(Dense(features, data.classes, seed=next(seeds)))
    return Sequential(layers, input_shape=shape)


def dorefa_adam(model: Sequential, lr: float) -> Optimizer:
    return Adam(model.parameters(), lr, eps=1e-5)


DOREFA_STAGES = (Stage(dorefa_net, dorefa_adam, halved(100, 200), cross_entropy),)

DOREFA = Recipe(
    "dorefa",
    "DoReFa-Net: weights of 1 bit, activations 0 and 1, gradients of 4 bits",
    "Zhou et al., DoReFa-Net, 2016",
    "tensorpack/tensorpack, examples/DoReFa-Net",
    {
        "mnist": Setting(
            Plan(width=48, epochs=200, batch=128, lr=1e-3, dropout=0.5),
            DOREFA_STAGES,
            quick={"width": 24, "epochs": 8, "dropout": 0.0},
            preprocessing="fraction",
        ),
        "svhn": Setting(
            Plan(width=48, epochs=200, batch=128, lr=1e-3, dropout=0.5),
            DOREFA_STAGES,
            quick={"width": 24, "epochs": 4, "dropout": 0.0},
            preprocessing="fraction",
            published="3.2",
        ),
    },
    tested="first and last layer float32, the others binary weights and activations of 0 and 1",
    notes="images in their own size, not 40 x 40, without changes of contrast; ReLU, not a clip to "
    "[0, 1], before the last layer; no weight decay; the source has no figure for MNIST",
)
