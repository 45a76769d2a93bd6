"""Bases of the blocks with two branches, whose outputs are added, multiplied or put side by side.

A block and its twin hold a body, and a shortcut that is the identity if it is None. Both name the
same `Join`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from .base import Layer, TrainingLayer, saved_for_backward
from .container import Packed, describe, unnested
from .folding import fold_chain, to_numbers
from .inputs import Activation, Shape, as_activation, is_data
from .parameter import Parameter
from .roles import Flow

if TYPE_CHECKING:
    from ..ops.plan import Value
    from .plans import Chain


@dataclass(frozen=True)
class Join:
    """How the outputs of two branches become one, and its gradient theirs.

    Attributes
    ----------
    shape : callable
        Of the name of the layer and the shapes that body and shortcut give: that of the output.
    values : callable
        Of the name and the outputs of body and shortcut: the output, float32.
    steps : callable
        Of a chain of a plan and the values of body and shortcut: that of the output; None if their
        shapes do not fit.
    gradients : callable
        Of the gradient of the output and what was kept: those of body and shortcut.
    keep : callable
        Of the outputs of body and shortcut: what `gradients` needs of them.
    """

    shape: Callable[[str, Shape, Shape], Shape]
    values: Callable[[str, Activation, Activation], np.ndarray]
    steps: Callable[[Chain, Value, Value], Value | None]
    gradients: Callable[[np.ndarray, Any], tuple[np.ndarray, np.ndarray]]
    keep: Callable[[Activation, Activation], Any]


def _set_branches(layer: Any, body: Layer, shortcut: Layer | None, kind: type[Layer]) -> None:
    """Check the branches of a block and set what follows from them."""
    for name, branch in (("body", body), ("shortcut", shortcut)):
        if not isinstance(branch, kind) and (name == "body" or branch is not None):
            raise TypeError(f"[{layer.name}] {name} must be a {kind.__name__}, got {branch!r}")
    layer.body, layer.shortcut = body, shortcut
    both = _both(layer)
    given = {branch.in_features for branch in both} - {None}
    if len(given) > 1:
        raise ValueError(
            f"[{layer.name}] body and shortcut must take the same features, "
            f"got {body!r} and {shortcut!r}"
        )
    layer.in_features = given.pop() if given else None
    shape = layer.output_shape(() if layer.in_features is None else (layer.in_features,))
    layer.out_features = shape[-1] if shape else None
    layer.mixes_axes = any(branch.mixes_axes for branch in both)


def _both(layer: Any) -> list[Any]:
    return [layer.body] if layer.shortcut is None else [layer.body, layer.shortcut]


def _joined_shape(layer: Any, shape: Shape) -> Shape:
    main = layer.body.output_shape(shape)
    other = shape if layer.shortcut is None else layer.shortcut.output_shape(shape)
    return layer.join.shape(layer.name, main, other)


def _chains(layer: Any) -> dict[str, Sequence[Layer]]:
    names = ("body", "shortcut")[: len(_both(layer))]
    return {name: unnested([getattr(layer, name)]) for name in names}


class TrainingBranches(TrainingLayer):
    """Base of the blocks for training.

    Parameters
    ----------
    body : TrainingLayer
        A layer or a Sequential.
    shortcut : TrainingLayer, optional
        The identity by default.
    """

    SAVED = ("_saved",)
    CHAINS = ("body", "shortcut")

    join: ClassVar[Join]
    body: TrainingLayer
    shortcut: TrainingLayer | None

    def __init__(self, body: TrainingLayer, shortcut: TrainingLayer | None = None):
        _set_branches(self, body, shortcut, TrainingLayer)
        # whether the input has a gradient, and what the join keeps
        self._saved: tuple[bool, Any] | None = None

    def forward(self, x, *, training: bool = False) -> np.ndarray:
        x = as_activation(self.name, x, self.in_features)
        main = self.body.forward(x, training=training)
        other = x
        if self.shortcut is not None:
            other = self.shortcut.forward(x, training=training)
        if training:
            self._saved = not is_data(x), self.join.keep(main, other)
        return self.join.values(self.name, main, other)

    def backward(self, grad: np.ndarray) -> np.ndarray | None:
        has_gradient, kept = saved_for_backward(self, self._saved)
        of_main, of_other = self.join.gradients(grad, kept)
        main = self.body.backward(of_main)
        other = of_other if self.shortcut is None else self.shortcut.backward(of_other)
        if main is None or other is None or not has_gradient:
            return None
        return main + other

    def output_shape(self, shape: Shape) -> Shape:
        return _joined_shape(self, shape)

    def branches(self) -> dict[str, Sequence[Layer]]:
        return _chains(self)

    def parameters(self) -> list[Parameter]:
        return [parameter for branch in _both(self) for parameter in branch.parameters()]

    def generators(self) -> list[np.random.Generator]:
        return [generator for branch in _both(self) for generator in branch.generators()]

    def state(self) -> list:
        return [branch.state() for branch in _both(self)]

    def restore(self, state: Sequence) -> None:
        for branch, part in zip(_both(self), state, strict=True):
            branch.restore(part)

    def packed_branches(self, flow: Flow) -> tuple[list[Layer], list[Layer] | None]:
        """Return the packed layers of body and shortcut, for what flows into both."""
        chains: dict[str, list[Layer]] = {}
        for name, branch in self.branches().items():
            packed, last = fold_chain(branch, flow)
            chains[name] = packed + to_numbers(last)
        # an identity must also turn codes into numbers; so must a shortcut of Dropout alone
        shortcut = chains.get("shortcut") or to_numbers(flow)
        return chains["body"], shortcut or None

    def __repr__(self) -> str:
        return describe(self.name, _both(self))


class PackedBranches(Layer):
    """Base of the blocks for inference.

    Parameters
    ----------
    body : Packed, packed layer, or list of them
    shortcut : the same, optional
        The identity by default.
    """

    CHAINS = ("body", "shortcut")

    join: ClassVar[Join]
    body: Packed
    shortcut: Packed | None

    def __init__(self, body, shortcut=None):
        chain = None if shortcut is None else _as_packed(shortcut)
        _set_branches(self, _as_packed(body), chain, Packed)

    def forward(self, x) -> np.ndarray:
        x = as_activation(self.name, x, self.in_features)
        main = self.body.forward(x)
        other = x if self.shortcut is None else self.shortcut.forward(x)
        return self.join.values(self.name, main, other)

    def compile(self, chain: Chain, x: Value) -> Value | None:
        ends = []
        for branch in (self.body, self.shortcut):
            layers = [] if branch is None else branch.layers
            if branch is not None and type(branch).forward is not Packed.forward:
                return None
            made, end = chain.add_layers(layers, x)
            if end < len(layers):
                return None
            ends.append(made)
        return self.join.steps(chain, *ends)

    def output_shape(self, shape: Shape) -> Shape:
        return _joined_shape(self, shape)

    def branches(self) -> dict[str, Sequence[Layer]]:
        return _chains(self)

    def __repr__(self) -> str:
        return describe(self.name, _both(self))


def _as_packed(branch) -> Packed:
    return branch if isinstance(branch, Packed) else Packed(branch)
