"""XNOR-Net and Binary-Weight-Network: filters alpha * sign(W), first and last layer in float32."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..data.datasets import Dataset
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
)
from ..layers.base import TrainingLayer
from ..models import features_of, lenet5, nin, seed_stream
from ..quantizers import XnorSign
from ..training.losses import cross_entropy
from ..training.schedules import Schedule, StepDecay, Stretched
from .base import Plan, Recipe, Setting, Stage
from .binary import adam
from .nets import images_of

# Latent weights of binary layers, as in the nets' source: small at the start, centred over the
# input channels and clipped after each step, with the gradient that reaches alpha.
LATENT: dict[str, Any] = {
    "start": "normal",
    "lr_scale": 1.0,
    "center": True,
    "gradient": XnorSign("chain", released_scale=True),
}


def steps(*boundaries: int, epochs: int) -> Callable[[float], Schedule]:
    """A rate divided by 10 at some of a number of epochs."""

    def schedule(lr: float) -> Schedule:
        return Stretched(StepDecay(lr, boundaries), epochs)

    return schedule


def xnor_lenet(data: Dataset, plan: Plan, seed: int, previous: Sequential | None) -> Sequential:
    """LeNet-5 whose dense layer has `plan.width` units, with channels in proportion."""
    channels = max(plan.width // 25, 1), max(plan.width // 10, 1)
    return lenet5(
        images_of(data), data.classes, channels=channels, hidden=plan.width, seed=seed, **LATENT
    )


def xnor_nin(data: Dataset, plan: Plan, seed: int, previous: Sequential | None) -> Sequential:
    """Network in network with `plan.width` channels in its first layer."""
    return nin(
        data.image_shape,
        data.classes,
        width=plan.width / 192,
        dropout=plan.dropout,
        seed=seed,
        **LATENT,
    )


def bwn_lenet(data: Dataset, plan: Plan, seed: int, previous: Sequential | None) -> Sequential:
    """The same LeNet-5 with real activations: each product -> BatchNorm -> ReLU."""
    seeds = seed_stream(seed)
    shape = images_of(data)
    first, second = max(plan.width // 25, 1), max(plan.width // 10, 1)
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
        BinaryDense(features, plan.width, scale_weights=True, seed=next(seeds), **LATENT),
        BatchNorm(plan.width, eps=1e-3),
        ReLU(),
        Dense(plan.width, data.classes, seed=next(seeds)),
    ]
    return Sequential(layers, input_shape=shape)


PAPER = "Rastegari et al., XNOR-Net, 2016"
ENDS = "first and last layer float32, the others binary"

XNOR = Recipe(
    "xnor",
    "XNOR-Net: binary weights with a scale, binary activations",
    PAPER,
    "allenai/XNOR-Net; nets of jiecaoyu/XNOR-Net-PyTorch",
    {
        "mnist": Setting(
            Plan(width=500, epochs=60, batch=128, lr=1e-2),
            (Stage(xnor_lenet, adam, steps(15, 30, 45, epochs=60), cross_entropy),),
            quick={"epochs": 12},
            preprocessing="standard",
            published="0.77",
        ),
        "cifar10": Setting(
            Plan(width=192, epochs=320, batch=128, lr=1e-2, dropout=0.5),
            (Stage(xnor_nin, adam, steps(120, 200, 240, 280, epochs=320), cross_entropy),),
            quick={"width": 96, "epochs": 5, "dropout": 0.0},
            preprocessing="standard",
            published="13.72",
        ),
    },
    tested=ENDS,
    notes="the figures are those of the nets' source; without K, as in the released code; no "
    "weight decay",
)

BWN = Recipe(
    "bwn",
    "Binary-Weight-Network: binary weights with a scale, real activations",
    PAPER,
    "allenai/XNOR-Net",
    {
        "mnist": Setting(
            Plan(width=500, epochs=60, batch=128, lr=1e-2),
            (Stage(bwn_lenet, adam, steps(15, 30, 45, epochs=60), cross_entropy),),
            quick={"epochs": 10},
            preprocessing="standard",
        ),
    },
    tested="first and last layer float32, the others binary weights and real activations",
    notes="the block of the source in the LeNet-5 of recipe xnor, with its optimizer and schedule; "
    "the source reports ImageNet only; no weight decay",
)
