"""Training steps of neighbouring layers that pass over their numbers together.

ReLU -> BatchNorm -> Sign, in which the first and the last may be missing, reads its input, and
writes bits: no array of numbers is made between. The last may be a ReLU of 64 features or more,
behind which are numbers, and BatchNorm a ShiftBatchNorm. Each layer keeps for `backward` what it
keeps when it runs alone, so that forward may be joined and backward not, or the other way round.

Dropout -> BinaryDense or BinaryConv2D multiplies signs that are dropped by bits, too: each one is
half the sum of two signs, (s + t) / 2, where t is s for those that are kept and -s for the others.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar, TypeGuard, TypeVar

import numpy as np

from ..ops.array import BitArray
from ..ops.memory import WORD_BITS
from ..ops.normalize import Normalized
from .activations import ReLU, Sign
from .base import TrainingLayer, backward_weights, saved_for_backward
from .conv import BinaryConv2D
from .dense import BinaryDense
from .inputs import Activation
from .noise import Dropout
from .norm import BatchNorm, ShiftBatchNorm

Kind = TypeVar("Kind", bound=TrainingLayer)


@dataclass(frozen=True)
class Single:
    """A layer that runs alone."""

    layer: TrainingLayer
    length: ClassVar[int] = 1

    def forward(self, x: Activation) -> Activation:
        return self.layer.forward(x, training=True)

    def backward(self, grad: np.ndarray) -> np.ndarray | None:
        return self.layer.backward(grad)

    def backward_weights(self, grad: np.ndarray) -> None:
        backward_weights(self.layer, grad)

    def release(self) -> None:
        self.layer.release()


@dataclass(frozen=True)
class Joined:
    """Batch normalisation with the layers around it, in a training step."""

    relu: ReLU | None
    norm: BatchNorm
    step: Sign | ReLU | None

    @property
    def length(self) -> int:
        """How many layers these are."""
        return 1 + (self.relu is not None) + (self.step is not None)

    def forward(self, x: Activation) -> Activation:
        y = self._outputs(self.norm.normalize(x, relu=self.relu is not None))
        kept = self.norm.narrow()
        if self.relu is not None:
            self.relu.passed = kept.x
        return y

    def _outputs(self, batch: Normalized) -> Activation:
        if self.step is None:
            return batch.values()
        if isinstance(self.step, ReLU):
            y, self.step.passed = batch.positives()
            return y
        assert self.step.limit is not None
        signs, self.step.within = batch.signs_within("Sign", self.step.limit)
        return signs

    def _within(self) -> BitArray | None:
        """Return bits that are 1 where gradients pass the step behind; None if there is none."""
        if self.step is None:
            return None
        if isinstance(self.step, ReLU):
            return self.step.passing_bits()
        return saved_for_backward(self.step, self.step.within)

    def backward(self, grad: np.ndarray) -> np.ndarray:
        dx = self.norm.gradient(grad, self._within())
        if self.relu is None or (self.norm.batch is not None and self.norm.batch.relu):
            return dx
        return self.relu.backward(dx)

    def release(self) -> None:
        for layer in (self.relu, self.norm, self.step):
            if layer is not None:
                layer.release()


@dataclass(frozen=True)
class Dropped:
    """A binary product behind Dropout, in a training step."""

    dropout: Dropout
    product: BinaryDense | BinaryConv2D
    length: ClassVar[int] = 2

    def forward(self, x: Activation) -> Activation:
        if isinstance(x, BitArray):
            self.product.operation.input(x)  # checks it
            return self.product.take_step(self.dropout.drop_signs(x))
        return self.product.forward(self.dropout.forward(x, training=True), training=True)

    def backward(self, grad: np.ndarray) -> np.ndarray | None:
        below = self.product.backward(grad)
        return None if below is None else self.dropout.backward(below)

    def backward_weights(self, grad: np.ndarray) -> None:
        self.product.backward_weights(grad)

    def release(self) -> None:
        self.dropout.release()
        self.product.release()


Step = Single | Joined | Dropped


def training_steps(layers: Sequence[TrainingLayer]) -> Iterator[tuple[int, Step]]:
    """Yield the steps of a chain, with the place of the first layer of each."""
    place = 0
    while place < len(layers):
        ahead = layers[place : place + 4]
        step: Step = _joined(ahead) or _dropped(ahead) or Single(layers[place])
        yield place, step
        place += step.length


def _dropped(layers: Sequence[TrainingLayer]) -> Dropped | None:
    """Return the step that Dropout and a product take together; None if the layers are no such."""
    dropout, product, *_ = [*layers, None]
    if not _is_plain(dropout, Dropout):
        return None
    if _is_plain(product, BinaryDense):
        return Dropped(dropout, product)
    # groups have no gradients by bits, and a pad_value is not scaled as signs that are kept
    if (
        _is_plain(product, BinaryConv2D)
        and not product.scale_input
        and (product.operation.groups, product.operation.pad_value) == (1, 0)
    ):
        return Dropped(dropout, product)
    return None


def _joined(layers: Sequence[TrainingLayer]) -> Joined | None:
    """Return the step that the first of some layers take together; None if they do not."""
    parts: list[TrainingLayer | None] = [*layers, None, None, None]
    first, *rest = parts
    relu = first if _is_plain(first, ReLU) else None
    norm, step, behind, *_ = rest if relu is not None else [first, *rest]
    if not _takes_along(norm):
        return None
    if _is_plain(step, Sign) and step.limit is not None:
        return Joined(relu, norm, step)
    # a ReLU between two of them is taken along by the second one, which keeps its input anyway
    if _is_plain(step, ReLU) and norm.gamma.size >= WORD_BITS and not _takes_along(behind):
        return Joined(relu, norm, step)
    return Joined(relu, norm, None)


def _takes_along(layer: TrainingLayer | None) -> TypeGuard[BatchNorm]:
    """Whether a layer is batch normalisation that computes the layers around it, too."""
    is_plain = _is_plain(layer, BatchNorm) or _is_plain(layer, ShiftBatchNorm)
    return is_plain and layer is not None and layer.trainable


def _is_plain(layer: TrainingLayer | None, kind: type[Kind]) -> TypeGuard[Kind]:
    """Whether a layer is one of this class itself, whose methods nobody has replaced or watches."""
    return type(layer) is kind and not vars(layer).keys() & {"forward", "backward"}
