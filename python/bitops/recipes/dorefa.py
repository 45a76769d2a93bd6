"""DoReFa-Net: weights, activations and gradients of few bits."""

from __future__ import annotations

from typing import Any

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
    TrainingLayer,
)
from ..models import features_of, scaled, seed_stream
from ..quantizers import DoReFaActivation, DoReFaWeight
from ..training.losses import cross_entropy
from ..training.optim import Adam, Optimizer
from .base import Job, Recipe, Setting, Stage
from .builders import halved
from .nets import images_of
from .plan import Plan

__all__ = ["DOREFA"]

BITS = {"weights": 1, "activations": 1, "gradients": 4}


def dorefa_net(job: Job) -> Sequential:
    """Build the network for SVHN, whose channels are those of the source for a width of 48.

    The window of the last convolution covers what is left of the image, 5 x 5 of 40 x 40.
    """
    plan, seeds = job.plan, seed_stream(job.seed)
    shape = images_of(job.data)
    first, *sizes = scaled("dorefa", (48, 64, 64, 128, 128, 128, 512), plan.width / 48)
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
    layers.append(Dense(features, job.data.classes, seed=next(seeds)))
    return Sequential(layers, input_shape=shape)


def dorefa_adam(model: Sequential, lr: float, **state: int) -> Optimizer:
    """Make an Adam with an L2 penalty of the weights of the last layer."""
    last = model.layers[-1]
    assert isinstance(last, Dense)
    return Adam(model.parameters(), lr, eps=1e-5, l2=1e-7, decayed=[last.weight], **state)


PLAN = Plan(width=48, epochs=200, batch_size=128, lr=1e-3, dropout=0.5)
# Products of codes of several bits go through float32 in the backward pass.
STAGES = (Stage(dorefa_net, dorefa_adam, halved(100, 200), cross_entropy, rounds=False),)

DOREFA = Recipe(
    name="dorefa",
    title="DoReFa-Net: weights of 1 bit, activations 0 and 1, gradients of 4 bits",
    paper="Zhou et al., DoReFa-Net, 2016",
    code="tensorpack/tensorpack, examples/DoReFa-Net",
    settings={
        "mnist": Setting(
            plan=PLAN,
            stages=STAGES,
            quick={"width": 24, "epochs": 8, "dropout": 0.0},
            preprocessing="fraction",
        ),
        "cifar10": Setting(
            plan=PLAN,
            stages=STAGES,
            quick={"width": 24, "epochs": 6, "dropout": 0.0},
            preprocessing="fraction",
        ),
        "svhn": Setting(
            plan=PLAN,
            stages=STAGES,
            quick={"width": 24, "epochs": 4, "dropout": 0.0},
            preprocessing="fraction",
            published="3.2",
        ),
    },
    tested="first and last layer float32, the others binary weights and activations of 0 and 1",
    notes="images in their own size, not 40 x 40, without changes of contrast; ReLU, not a clip to "
    "[0, 1], before the last layer; the source has no figures for MNIST and CIFAR-10",
)
