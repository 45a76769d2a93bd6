"""Residual blocks, for training and for inference: y = body(x) + shortcut(x)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from .base import Layer, TrainingLayer, saved_for_backward
from .container import Packed, describe, unnested
from .folding import fold_chain, to_numbers
from .inputs import Activation, Shape, as_activation, as_float, is_data
from .parameter import Parameter
from .registry import register
from .roles import NUMBERS, Flow, Role

if TYPE_CHECKING:
    from ..ops.plan import Value
    from .plans import Chain


class Branches(Layer):
    """Base of the residual block and its twin: two branches whose outputs are added."""

    body: Layer
    shortcut: Layer | None

    def _set_branches(self, body: Layer, shortcut: Layer | None, kind: type[Layer]) -> None:
        for name, branch in (("body", body), ("shortcut", shortcut)):
            if not isinstance(branch, kind) and (name == "body" or branch is not None):
                raise TypeError(f"[{self.name}] {name} must be a {kind.__name__}, got {branch!r}")
        self.body, self.shortcut = body, shortcut
        given = {branch.in_features for branch in (body, shortcut) if branch is not None} - {None}
        if len(given) > 1:
            raise ValueError(
                f"[{self.name}] body and shortcut must take the same features, "
                f"got {body!r} and {shortcut!r}"
            )
        self.in_features = given.pop() if given else None
        shape = self.output_shape(() if self.in_features is None else (self.in_features,))
        self.out_features = shape[-1] if shape else None
        self.mixes_axes = any(branch.mixes_axes for branch in (body, shortcut) if branch)

    def output_shape(self, shape: Shape) -> Shape:
        main = self.body.output_shape(shape)
        other = shape if self.shortcut is None else self.shortcut.output_shape(shape)
        both = [pair for pair in zip(reversed(main), reversed(other), strict=False)]
        if any(None not in pair and pair[0] != pair[1] for pair in both):
            raise ValueError(
                f"[{self.name}] body and shortcut must give the same shape, got {main} and {other}"
            )
        longer = main if len(main) >= len(other) else other
        known = [main_size or other_size for main_size, other_size in both]
        return (*longer[: len(longer) - len(both)], *reversed(known))

    def branches(self) -> dict[str, Sequence[Layer]]:
        chains: dict[str, Sequence[Layer]] = {"body": unnested([self.body])}
        if self.shortcut is not None:
            chains["shortcut"] = unnested([self.shortcut])
        return chains

    def _check_sum(self, main: Activation, other: Activation) -> None:
        if main.shape != other.shape:
            raise ValueError(
                f"[{self.name}] body and shortcut must give the same shape, "
                f"got {main.shape} and {other.shape}"
            )

    def __repr__(self) -> str:
        branches = [self.body] if self.shortcut is None else [self.body, self.shortcut]
        return describe(self.name, branches)


class Residual(Branches, TrainingLayer):
    """Residual block: y = body(x) + shortcut(x), float32; bits count as +-1.

    Parameters
    ----------
    body : TrainingLayer
        A layer or a Sequential.
    shortcut : TrainingLayer, optional
        The identity by default.

    Notes
    -----
    Forward:  y = body(x) + shortcut(x).
    Backward:  both branches receive dy, and dx is the sum of their gradients.

    References
    ----------
    He et al., "Deep residual learning for image recognition", 2016.
    """

    role = Role.BLOCK

    body: TrainingLayer
    shortcut: TrainingLayer | None

    def __init__(self, body: TrainingLayer, shortcut: TrainingLayer | None = None):
        self._set_branches(body, shortcut, TrainingLayer)
        self._has_gradient: bool | None = None

    def forward(self, x, *, training: bool = False) -> np.ndarray:
        x = as_activation("Residual", x, self.in_features)
        main = as_float(self.body.forward(x, training=training))
        other = x
        if self.shortcut is not None:
            other = self.shortcut.forward(x, training=training)
        self._check_sum(main, other)
        if training:
            self._has_gradient = not is_data(x)
        return main + as_float(other)

    def backward(self, grad: np.ndarray) -> np.ndarray | None:
        has_gradient = saved_for_backward(self, self._has_gradient)
        main = self.body.backward(grad)
        other = grad if self.shortcut is None else self.shortcut.backward(grad)
        if main is None or other is None or not has_gradient:
            return None
        return main + other

    def parameters(self) -> list[Parameter]:
        return [parameter for branch in self._both() for parameter in branch.parameters()]

    def generators(self) -> list[np.random.Generator]:
        return [generator for branch in self._both() for generator in branch.generators()]

    def state(self) -> list:
        return [branch.state() for branch in self._both()]

    def restore(self, state: Sequence) -> None:
        for branch, part in zip(self._both(), state, strict=True):
            branch.restore(part)

    def to_packed(self, flow: Flow = NUMBERS) -> PackedResidual:
        chains: dict[str, list[Layer]] = {}
        for name, branch in self.branches().items():
            packed, last = fold_chain(branch, flow)
            chains[name] = packed + to_numbers(last)
        # an identity must also turn codes into numbers; so must a shortcut of Dropout alone
        shortcut = chains.get("shortcut") or to_numbers(flow)
        return PackedResidual(chains["body"], shortcut or None)

    def _both(self) -> list[TrainingLayer]:
        return [self.body] if self.shortcut is None else [self.body, self.shortcut]


@register
class PackedResidual(Branches):
    """Twin of `Residual` for inference: y = body(x) + shortcut(x), float32; bits count as +-1.

    Parameters
    ----------
    body : Packed, packed layer, or list of them
    shortcut : the same, optional
        The identity by default.

    Notes
    -----
    Integers are rounded to float32 before they are added, as in training. Integer sums would
    differ beyond 2^24, and they might overflow int32.
    """

    CHAINS = ("body", "shortcut")

    body: Packed
    shortcut: Packed | None

    def __init__(self, body, shortcut=None):
        chain = None if shortcut is None else _as_packed(shortcut)
        self._set_branches(_as_packed(body), chain, Packed)

    def forward(self, x) -> np.ndarray:
        x = as_activation("PackedResidual", x, self.in_features)
        main = self.body.forward(x)
        other = x if self.shortcut is None else self.shortcut.forward(x)
        self._check_sum(main, other)
        return as_float(main) + as_float(other)

    def compile(self, chain: Chain, x: Value) -> Value | None:
        main, other = x, x
        for branch in (self.body, self.shortcut):
            if branch is None:
                continue
            if type(branch).forward is not Packed.forward:
                return None
            made, end = chain.add_layers(branch.layers, x)
            if end < len(branch.layers):
                return None
            main, other = (made, other) if branch is self.body else (main, made)
        if main.shape != other.shape or "uint8" in (main.kind, other.kind):
            return None
        return chain.add(chain.as_float(main), chain.as_float(other))


def _as_packed(branch) -> Packed:
    return branch if isinstance(branch, Packed) else Packed(branch)
