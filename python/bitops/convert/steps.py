"""What a network computes, step by step, in the terms of this package: NHWC, filters OHWI.

Converters trace a graph into steps; `lowering` makes layers of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from ..ops.geometry import Pair

Sides = tuple[Pair, Pair]


@dataclass(frozen=True, eq=False)
class Step:
    """Base of the steps. `source` says where it comes from, for messages."""

    source: str


@dataclass(frozen=True, eq=False)
class Affine(Step):
    """y = x * alpha + bias, each float64 of shape (features,)."""

    alpha: np.ndarray
    bias: np.ndarray

    @property
    def is_identity(self) -> bool:
        return bool((self.alpha == 1).all() and (self.bias == 0).all())

    @property
    def factor(self) -> float | None:
        """The alpha of all features, if they have one."""
        return _common(self.alpha)

    @property
    def term(self) -> float | None:
        """The bias of all features, if they have one."""
        return _common(self.bias)

    def then(self, other: Affine) -> Affine:
        """Return this step and another one in one."""
        return Affine(self.source, self.alpha * other.alpha, self.bias * other.alpha + other.bias)


def _common(values: np.ndarray) -> float | None:
    return float(values[0]) if (values == values[0]).all() else None


@dataclass(frozen=True, eq=False)
class Levels(Step):
    """y = values[number of thresholds t of the feature with x >= t].

    features : their number
    threshold : float32 of shape (features or 1, levels), rising
    values : float64 of shape (levels + 1,)
    """

    features: int
    threshold: np.ndarray
    values: np.ndarray


@dataclass(frozen=True, eq=False)
class Dense(Step):
    """y = (x + shift) w^T + bias, w of shape (out_features, in_features).

    Only float weights have a bias of their own.
    """

    w: np.ndarray
    shift: float = 0.0
    bias: np.ndarray | None = None


@dataclass(frozen=True, eq=False)
class Conv(Step):
    """Convolution of x + shift with filters w (o, kh, kw, i / groups), plus a bias as in Dense.

    `pad_value` lies outside the image, before the shift is added.
    """

    w: np.ndarray
    shift: float = 0.0
    stride: Pair = (1, 1)
    padding: Sides = ((0, 0), (0, 0))
    dilation: Pair = (1, 1)
    groups: int = 1
    pad_value: float = 0.0
    bias: np.ndarray | None = None

    @property
    def is_padded(self) -> bool:
        return self.padding != ((0, 0), (0, 0))


@dataclass(frozen=True, eq=False)
class ScaledConv(Step):
    """Convolution of the signs of x, times the mean magnitude of x in every window (XNOR-Net)."""

    conv: Conv


@dataclass(frozen=True, eq=False)
class Pool(Step):
    """Largest value ("max") or mean ("avg", zeros outside the image count) of every window."""

    kind: str
    kernel_size: Pair
    stride: Pair
    padding: Sides


@dataclass(frozen=True, eq=False)
class Pad(Step):
    """Puts a value around images of so many features."""

    features: int
    padding: Sides
    value: float


@dataclass(frozen=True, eq=False)
class Map(Step):
    """A layer without weights: relu, tanh, sigmoid, clip, prelu, softmax, flatten, mean, ...

    A magnitude and a channel_mean are no layers; they must become part of a ScaledConv.
    `settings` are the limits of clip, the slopes of prelu, for flatten the features that it gives
    and the channels that it takes, for pad_features the features, and the zeros before and after.
    """

    kind: str
    settings: Any = None


@dataclass(frozen=True, eq=False)
class Join(Step):
    """y = body(x) + shortcut(x) ("add"), their product ("multiply"), or both in a row ("concat").

    The shortcut of a product may give one factor for each channel of an image. An empty branch is
    the identity; the body is not empty.
    """

    kind: str
    body: tuple[Step, ...]
    shortcut: tuple[Step, ...]

    @cached_property
    def size(self) -> int:
        """Number of the steps in the branches, and in theirs."""
        return sum(step.size if isinstance(step, Join) else 1 for step in self.body + self.shortcut)

    @cached_property
    def depth(self) -> int:
        """How deep branches lie in branches, 1 if there are none in these."""
        inner = (step.depth for step in self.body + self.shortcut if isinstance(step, Join))
        return 1 + max(inner, default=0)
