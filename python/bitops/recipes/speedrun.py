"""A recipe of our own: the best accuracy on small colour images for a budget of CPU time."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from ..data.datasets import Dataset
from ..layers import (
    AvgPool2D,
    BatchNorm,
    BinaryConv2D,
    Clip,
    Concat,
    Conv2D,
    Dense,
    GlobalAvgPool2D,
    Pad2D,
    ReLU,
    Residual,
    Sequential,
    Sign,
    TrainingLayer,
)
from ..models import seed_stream
from ..training.losses import CrossEntropy
from .augmented import Moved
from .base import Job, Recipe, Setting, Stage
from .builders import adam, one_cycle
from .plan import Plan

__all__ = ["SPEEDRUN"]

PATCH = 4  # height and width of the windows of the first layer, whose stride is half of it
PATCHES = 20_000  # to learn the whitening from
BIAS = 0.01  # added to the variances; pixels are in [-1, 1]
BLOCKS = (1, 3, 4)  # of each stage: few where images are large, whose numbers cost most
STRIDE = 8  # pixels of an image that are one position of the last stage
# Latent weights without a scale of their rate, small at the start.
LATENT: dict[str, Any] = {"start": "normal", "lr_scale": 1.0}


def whitening_filters(data: Dataset, seed: np.random.SeedSequence) -> np.ndarray:
    """Learn filters that whiten the patches of the training images, largest variance first.

    Returns
    -------
    ndarray of shape (PATCH * PATCH * channels, PATCH, PATCH, channels), float32
    """
    rng = np.random.default_rng(seed)
    x, (height, width, channels) = data.x_train, data.image_shape
    images = rng.integers(len(x), size=PATCHES)
    rows = rng.integers(height - PATCH + 1, size=PATCHES)
    columns = rng.integers(width - PATCH + 1, size=PATCHES)
    offsets = np.arange(PATCH)
    patches = x[
        images[:, None, None],
        (rows[:, None] + offsets)[:, :, None],
        (columns[:, None] + offsets)[:, None, :],
    ]
    variances, directions = np.linalg.eigh(np.cov(patches.reshape(PATCHES, -1), rowvar=False))
    filters = (directions / np.sqrt(np.maximum(variances, 0) + BIAS)).T[::-1]
    return filters.reshape(-1, PATCH, PATCH, channels).astype(np.float32)


def speedrun_net(job: Job) -> Sequential:
    """Build a residual ConvNet whose shortcuts carry numbers around each binary convolution.

    A real convolution of windows 4 x 4 with stride 2 halves the image. Its filters start as those
    that whiten patches, and their negatives. Then follow three stages of blocks
    Residual(Sign -> BinaryConv2D 3x3 -> ReLU -> BatchNorm) with `plan.width` channels, twice and
    four times as many. The first block of a later stage has stride 2, and for its shortcut an
    average pool whose output is taken twice, so that no weights are real but those of the first and
    of the last layer.
    """
    plan, seeds = job.plan, seed_stream(job.seed)
    channels = plan.width
    is_even = all(size % STRIDE == 0 for size in job.data.image_shape[:2])
    first = Conv2D(
        job.data.image_shape[2], channels, PATCH, stride=2, padding=1, bias=False, seed=next(seeds)
    )
    start = first.weight.value.copy()
    filters = whitening_filters(job.data, next(seeds))[: channels // 2]
    start[: len(filters)], start[len(filters) : 2 * len(filters)] = filters, -filters
    first.weight.assign(start)
    layers: list[TrainingLayer] = [first, ReLU(), BatchNorm(channels)]
    for stage, count in enumerate(BLOCKS):
        for place in range(count):
            grows = stage > 0 and place == 0
            outputs = 2 * channels if grows else channels
            conv = BinaryConv2D(
                channels,
                outputs,
                3,
                stride=2 if grows else 1,
                padding=1,
                seed=next(seeds),
                **LATENT,
            )
            body = Sequential(Sign(1.25), conv, ReLU(), BatchNorm(outputs))
            layers.append(Residual(body, halved_twice(is_even) if grows else None))
            channels = outputs
    layers += [ReLU(), GlobalAvgPool2D(), BatchNorm(channels)]
    layers.append(Dense(channels, job.data.classes, seed=next(seeds)))
    return Sequential(layers, input_shape=job.data.image_shape)


def halved_twice(is_even: bool) -> Sequential:
    """Average 2 x 2 pixels, and give the result twice, side by side.

    Where sizes may be odd, zeros behind the image let it have the positions of a convolution with
    stride 2 and padding 1; in even sizes no window sees them.
    """
    everything = Clip(-math.inf, math.inf)
    start = () if is_even else (Pad2D(((0, 1), (0, 1))),)
    return Sequential(*start, AvgPool2D(2), Concat(everything))


@dataclass(frozen=True)
class SmallThenWhole:
    """Mirror half of the images, and show parts of them until the last steps, then all of each.

    A window of three quarters of the height and width, rounded down to a multiple of `STRIDE`, is
    cut out of each image: steps are shorter by two fifths. Whole images are shifted by up to
    `padding` pixels; grey comes in.

    Parameters
    ----------
    share : float
        Of the steps that get parts.
    padding : int
    """

    share: float = 0.7
    padding: int = 2

    by_step: ClassVar[bool] = True

    def __call__(self, x: Any, rng: np.random.Generator, step: int, steps: int) -> np.ndarray:
        size = min(x.shape[1:3]) * 3 // 4 // STRIDE * STRIDE
        moved = Moved(True, self.padding, x.shape[1:], crop=size, share=self.share, fill=0)
        return moved(x, rng, step, steps)


LOSS = CrossEntropy(label_smoothing=0.1)
STAGES = (Stage(speedrun_net, adam, one_cycle, LOSS, SmallThenWhole()),)
PLAN = Plan(width=128, epochs=64, batch_size=50, lr=1e-2, gradients="int6", recalibrate=5000)
QUICK = {"width": 64, "epochs": 27}

SPEEDRUN = Recipe(
    name="speedrun",
    title="residual binary ConvNet, the best accuracy for a budget of CPU time",
    paper="blocks of Bannink et al., Larq Compute Engine, 2021",
    code="",
    settings={
        kind: Setting(plan=PLAN, stages=STAGES, quick=QUICK, preprocessing="unit")
        for kind in ("cifar10", "svhn")
    },
    tested="first and last layer float32, the others binary weights and activations",
    notes="a recipe of our own, for about 4 hours of one core, quick for half an hour",
)
