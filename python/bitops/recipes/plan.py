"""The numbers of one training, and how the output words them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

__all__ = ["GRADIENTS", "Plan"]

# The bits that gradients are rounded to, unless they are float32, exact.
GRADIENTS = {"int8": 8, "int7": 7, "int6": 6}


@dataclass(frozen=True)
class Plan:
    """The numbers of one training, which the options of the command override."""

    width: int  # units of a hidden layer, or channels of the first convolution
    epochs: int  # of each stage
    batch_size: int
    lr: float  # of the first epoch; the largest one of schedules that rise
    dropout: float = 0.0  # behind hidden layers
    depth: int = 3  # hidden layers of a fully connected network
    schedule: str = ""  # of the rate, one of `training.options.SCHEDULES`; "" is the stage's own
    gradients: str = "float32"  # of the backward products of binary layers, or one of GRADIENTS
    round_activations: bool = False  # to int7, in training, where bits multiply real ones
    half_state: bool = False  # the moments of Adam, and clipped binary weights, in 16 bits
    recalibrate: int = 0  # training images for the statistics of BatchNorm after each epoch
    flip: bool = False  # mirror half of the training images
    shift: int = 0  # pixels that training images move at most, along each axis
    crop: int = 0  # height and width of windows that most steps see instead of whole images
    temperature: float = 1.0  # that divides the scores of a teacher and of the network

    def within(self, rows: int) -> Plan:
        """Return the numbers that a training on so many images has."""
        fewer = {name: min(getattr(self, name), rows) for name in ("batch_size", "recalibrate")}
        return replace(self, **fewer)

    def words(self, name: str) -> str:
        """Put one of the numbers into words."""
        return _WORDS[name](getattr(self, name))


_WORDS: dict[str, Callable[[Any], str]] = {
    "width": "width {:,}".format,
    "epochs": lambda n: f"{n:,} epoch{'s' * (n != 1)}",
    "batch_size": "batch {:,}".format,
    "lr": "learning rate {:g}".format,
    "dropout": "dropout {:g}".format,
    "depth": "depth {}".format,
    "schedule": lambda name: f"schedule {name}" if name else "a schedule of its own",
    "gradients": lambda kind: "exact gradients" if kind == "float32" else f"gradients as {kind}",
    "round_activations": lambda rounds: (
        "activations as int7 in training" if rounds else "exact activations"
    ),
    "half_state": lambda halves: (
        f"moments and clipped binary weights in {16 if halves else 32} bits"
    ),
    "recalibrate": lambda n: f"recalibrated by {n:,} images" if n else "statistics of batches",
    "flip": lambda flips: "half of the images mirrored" if flips else "images as they are",
    "shift": lambda n: f"shifted by up to {n} pixel{'s' * (n > 1)}" if n else "images in place",
    "crop": lambda n: f"first by windows of {n} x {n} pixels" if n else "whole images",
    "temperature": "temperature {:g}".format,
}
