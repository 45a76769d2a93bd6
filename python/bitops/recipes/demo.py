"""The recipe of `bitops demo`: BinaryNet's networks in sizes that train in minutes."""

from __future__ import annotations

from ..layers import Sequential
from ..models import binarynet, mlp
from .base import Job, Recipe, Setting, Stage
from .builders import adam, exponential
from .plan import Plan

__all__ = ["DEMO"]


def demo_mlp(job: Job) -> Sequential:
    """Build an MLP for the images as rows."""
    plan, features = job.plan, job.data.x_train.shape[1]
    return mlp(features, plan.width, plan.depth, job.data.classes, seed=job.seed)


def demo_convnet(job: Job) -> Sequential:
    """Build BinaryNet's ConvNet with `plan.width` channels in its first stage."""
    width = job.plan.width / 128
    return binarynet(job.data.image_shape, job.data.classes, width=width, seed=job.seed)


# The code released with BinaryNet lets the rate fall by 10,000 in all; a few epochs want less.
MLP = (Stage(demo_mlp, adam, exponential(1e-4)),)
CONVNET = (Stage(demo_convnet, adam, exponential(1e-2)),)

DEMO = Recipe(
    name="demo",
    title="binary weights and activations, Adam, in minutes",
    paper="Courbariaux, Hubara et al., Binarized Neural Networks, 2016",
    code="MatthieuCourbariaux/BinaryNet",
    settings={
        "digits": Setting(plan=Plan(width=512, epochs=30, batch_size=50, lr=3e-3), stages=MLP),
        "mnist": Setting(plan=Plan(width=1024, epochs=15, batch_size=100, lr=3e-3), stages=MLP),
        "cifar10": Setting(plan=Plan(width=32, epochs=6, batch_size=50, lr=3e-3), stages=CONVNET),
    },
)
