"""XNOR-Net and Binary-Weight-Network: filters alpha * sign(W), first and last layer in float32."""

from __future__ import annotations

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
    TrainingLayer,
)
from ..models import features_of, lenet5, nin, scaled, seed_stream
from ..quantizers import XnorSign
from ..training.losses import cross_entropy
from .base import Job, Plan, Recipe, Setting, Stage
from .builders import adam, steps
from .nets import images_of

__all__ = ["BWN", "XNOR"]

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


PAPER = "Rastegari et al., XNOR-Net, 2016"
ENDS = "first and last layer float32, the others binary"

XNOR = Recipe(
    name="xnor",
    title="XNOR-Net: binary weights with a scale, binary activations",
    paper=PAPER,
    code="allenai/XNOR-Net; nets of jiecaoyu/XNOR-Net-PyTorch",
    settings={
        "mnist": Setting(
            plan=Plan(width=500, epochs=60, batch_size=128, lr=1e-2),
            stages=(Stage(xnor_lenet, adam, steps(15, 30, 45, epochs=60), cross_entropy),),
            quick={"epochs": 12},
            preprocessing="standard",
            published="0.77",
        ),
        "cifar10": Setting(
            plan=Plan(width=192, epochs=320, batch_size=128, lr=1e-2, dropout=0.5),
            stages=(Stage(xnor_nin, adam, steps(120, 200, 240, 280, epochs=320), cross_entropy),),
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
    name="bwn",
    title="Binary-Weight-Network: binary weights with a scale, real activations",
    paper=PAPER,
    code="allenai/XNOR-Net",
    settings={
        "mnist": Setting(
            plan=Plan(width=500, epochs=60, batch_size=128, lr=1e-2),
            stages=(Stage(bwn_lenet, adam, steps(15, 30, 45, epochs=60), cross_entropy),),
            quick={"epochs": 10},
            preprocessing="standard",
        ),
    },
    tested="first and last layer float32, the others binary weights and real activations",
    notes="the block of the source in the LeNet-5 of recipe xnor, with its optimizer and schedule; "
    "the source reports ImageNet only; no weight decay",
)
