"""What workers do in a training: the gradients of some shards of a step, and sums of these.

A task depends on nothing but its arguments: the step, which holds what the model computes with,
and the rows. So any worker can do it again, and the result has the same bits.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from ..layers.base import all_layers
from ..layers.container import Sequential
from ..layers.parameter import Outline, Parameter
from ..layers.product import LatentProduct
from ..training.gradients import PairwiseSum, compute_gradients
from ..training.run import Trainable
from ..training.streams import Batch
from .compression import Code

__all__ = [
    "Answer",
    "Shard",
    "Step",
    "answer_of",
    "compute_answer",
    "compute_shards",
    "feedback_of",
    "is_finite",
    "merge",
    "step_of",
    "trained",
]

Feedback = list[list[np.ndarray]]  # for each shard, what its codes have left out of its gradients


class Shard(NamedTuple):
    """Rows of a step: their number among the shards, and the share of the step that they are."""

    number: int
    batch: Batch
    share: float


@dataclass
class Step:
    """What all shards of a step share.

    Attributes
    ----------
    model : Sequential
        Its parameters are outlines.
    outlines : list of Outline
        In the order of `parameters()`.
    loss, errors : callable
    code : Code
        How gradients are sent.
    seed : list of int
        From which, with the number of a shard, its random numbers are drawn.
    """

    model: Any
    outlines: list[Outline]
    loss: Any
    errors: Any
    code: Code
    seed: list[int] = field(default_factory=list)

    def network(self) -> Sequential:
        """Return a model for one task; it shares the values of the parameters."""
        made = {id(outline): outline.parameter() for outline in self.outlines}
        return copy.deepcopy(self.model, made)


def step_of(model: Trainable, loss: Any, errors: Any, code: Code, seed: list[int]) -> Step:
    """Return a step of a model as it is now."""
    enough = _with_signs(model)
    # a parameter that two layers share has one outline
    made = {id(p): Outline(p, signs=id(p) in enough) for p in model.parameters()}
    outlines = list(made.values())
    return Step(copy.deepcopy(model, made), outlines, loss, errors, code, seed)


def _with_signs(model: Trainable) -> set[int]:
    """Return the parameters of which a training step uses nothing but the signs."""
    needed: dict[int, bool] = {}
    for layer in all_layers(model.flat_layers()):
        if layer.branches():
            continue
        for parameter in layer.parameters():  # type: ignore[attr-defined]
            enough = (
                isinstance(layer, LatentProduct)
                and type(layer).__module__.startswith(LatentProduct.__module__.rpartition(".")[0])
                and parameter is layer.weight
                and layer.weights.signs_suffice
            )
            if enough:
                layer.planes()  # type: ignore[attr-defined] # centers now, not in each copy
            needed[id(parameter)] = enough and needed.get(id(parameter), True)
    return {place for place, enough in needed.items() if enough}


class Answer(NamedTuple):
    """What shards have computed.

    Attributes
    ----------
    sums : list of ndarray
        The sum of the coded gradients, for each parameter that is trained.
    losses, errors : list of float
        Of each shard, in order.
    observed : list of list of ndarray
        For each shard, what each layer has observed.
    levels : list of list of float
        For each shard, by what `Code` chooses the next scales.
    """

    sums: list[np.ndarray]
    losses: list[float]
    errors: list[float]
    observed: list[list[list[np.ndarray]]]
    levels: list[list[float]]


def compute_shards(
    step: Step, shards: Sequence[Shard], feedback: Feedback | None
) -> tuple[Answer, Feedback]:
    """Compute the gradients of shards side by side, and their sum."""
    model = step.network()
    answer = Answer([], [], [], [], [])
    sums, left = PairwiseSum(), []
    for i, shard in enumerate(map(_aligned, shards)):
        _seed(model, [*step.seed, shard.number])
        with np.errstate(under="ignore"):
            loss, errors = compute_gradients(
                model, step.loss, step.errors, shard.batch, shard.share
            )
        answer.losses.append(loss)
        answer.errors.append(errors)
        layers = all_layers(model.flat_layers())
        answer.observed.append([layer.observed() for layer in layers])  # type: ignore[attr-defined]
        coded, rest, levels = step.code.encode(
            [parameter.grad for parameter in trained(model)],
            None if feedback is None else feedback[i],
        )
        sums.add(coded)
        left.append(rest)
        answer.levels.append(levels)
    return answer._replace(sums=sums.total()), left


def _aligned(shard: Shard) -> Shard:
    """Return a shard whose rows do not lie askew in memory, where BLAS gives other bits."""
    aligned: Any = [
        np.require(array, requirements="A") if isinstance(array, np.ndarray) else array
        for array in shard.batch
    ]
    return shard._replace(batch=Batch(*aligned))


def trained(model: Trainable) -> list[Parameter]:
    """Return the parameters whose gradients are needed."""
    return [parameter for parameter in model.parameters() if parameter.trainable]


def _seed(model: Sequential, words: list[int]) -> None:
    """Let the generators of a model start from words, each from others."""
    for i, generator in enumerate(model.generators()):
        source = type(generator.bit_generator)(np.random.SeedSequence([*words, i]))
        generator.bit_generator.state = source.state


def compute_answer(step: Step, shards: Sequence[Shard]) -> Answer:
    """Compute the gradients of shards, of which nothing is left out."""
    return compute_shards(step, shards, None)[0]


def answer_of(computed: tuple[Answer, Feedback]) -> Answer:
    return computed[0]


def feedback_of(computed: tuple[Answer, Feedback]) -> Feedback:
    return computed[1]


def merge(first: Answer, second: Answer) -> Answer:
    """Add up the answers of shards side by side."""
    return Answer(
        [a + b for a, b in zip(first.sums, second.sums, strict=True)],
        first.losses + second.losses,
        first.errors + second.errors,
        first.observed + second.observed,
        first.levels + second.levels,
    )


def is_finite(answer: Answer) -> bool:
    """Tell whether all losses are numbers; otherwise some gradients were not computed."""
    return all(map(math.isfinite, answer.losses))
