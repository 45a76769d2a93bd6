"""Recipes that train twice: first with real weights, then again with two or three values."""

from __future__ import annotations

from functools import partial

from ..layers import Dense, Sequential, TanhDense
from ..quantizers import SteSign
from ..training.stages import to_bitwise, to_ternary
from .base import Job, Recipe, Setting, Stage
from .builders import adam, exponential, tanh
from .nets import Blocks, mlp
from .plan import Plan

__all__ = ["BITWISE", "TERNARY"]


def ternary(job: Job) -> Sequential:
    """Give the float network of the stage before ternary weights, and signs."""
    assert job.previous is not None  # this is never the first stage
    return to_ternary(job.previous)


def bitwise(job: Job) -> Sequential:
    """Replace weights and activations of the stage before by their signs.

    Errors pass a sign where abs(x) <= 1. If they pass it everywhere, as in the paper, the test
    error on MNIST was 4.6 % instead of 2.4 %, with 1024 units, 12 epochs and no dropout.
    """
    assert job.previous is not None
    return to_bitwise(job.previous, activation=SteSign())


NOTES = (
    "BatchNorm behind every product, Adam and the squared hinge instead of {}; epochs are those "
    "of each stage"
)

TERNARY = Recipe(
    name="ternary",
    title="ternary weights and binary activations, retrained from a float network",
    paper="Hwang and Sung, Fixed-point feedforward deep neural network design, 2014",
    code="",
    settings={
        "mnist": Setting(
            plan=Plan(width=1022, epochs=100, batch_size=100, lr=3e-3),
            stages=(
                Stage(
                    partial(mlp, Blocks(dense=partial(Dense, bias=False), activation=tanh)),
                    adam,
                    exponential(1e-4),
                    name="float32 weights, tanh",
                    rounds=False,
                ),
                Stage(ternary, adam, exponential(1e-4), name="ternary weights, signs"),
            ),
            quick={"epochs": 6},
            preprocessing="unit",
            published="1.45",
            ours=("epochs", "batch_size", "lr"),
        ),
    },
    tested="ternary weights and binary activations",
    notes=NOTES.format("unsupervised pretraining and plain gradient descent"),
)

BITWISE = Recipe(
    name="bitwise",
    title="bitwise network: tanh-compressed weights, then their signs",
    paper="Kim and Smaragdis, Bitwise Neural Networks, 2016",
    code="",
    settings={
        "mnist": Setting(
            plan=Plan(width=1024, epochs=100, batch_size=100, lr=3e-3, dropout=0.2),
            stages=(
                Stage(
                    partial(mlp, Blocks(dense=TanhDense, activation=tanh)),
                    adam,
                    exponential(1e-4),
                    name="tanh of weights and activations",
                    rounds=False,
                ),
                Stage(bitwise, adam, exponential(1e-4), name="signs of weights and activations"),
            ),
            quick={"epochs": 12, "dropout": 0.0},
            preprocessing="bipolar",
            published="1.33",
            ours=("epochs", "batch_size", "lr"),
        ),
    },
    notes=NOTES.format("plain gradient descent")
    + "; real biases, in the thresholds; errors pass signs where abs(x) <= 1 instead of everywhere",
)
