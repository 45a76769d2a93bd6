"""Blocks whose branches give features side by side, for training and for inference."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from .branches import Join, PackedBranches, TrainingBranches
from .inputs import Activation, Shape, as_float
from .registry import register
from .roles import NUMBERS, Flow, Role

if TYPE_CHECKING:
    from ..ops.plan import Value
    from .plans import Chain


def _shape_beside(where: str, main: Shape, other: Shape) -> Shape:
    if not main or not other:
        return (None,)
    for a, b in zip(reversed(main[:-1]), reversed(other[:-1]), strict=False):
        if None not in (a, b) and a != b:
            raise ValueError(
                f"[{where}] body and shortcut must give images of one size, got {main} and {other}"
            )
    longer = main if len(main) >= len(other) else other
    features = None if main[-1] is None or other[-1] is None else main[-1] + other[-1]
    return (*longer[:-1], features)


def _beside(where: str, main: Activation, other: Activation) -> np.ndarray:
    if main.shape[:-1] != other.shape[:-1]:
        raise ValueError(
            f"[{where}] body and shortcut must give images of one size, "
            f"got {main.shape} and {other.shape}"
        )
    return np.concatenate([as_float(main), as_float(other)], axis=-1)


def _parts(grad: np.ndarray, features: int) -> tuple[np.ndarray, np.ndarray]:
    main, other = grad[..., :features], grad[..., features:]
    return np.ascontiguousarray(main), np.ascontiguousarray(other)


def _beside_in_plan(chain: Chain, main: Value, other: Value) -> Value | None:
    if main.shape[:-1] != other.shape[:-1]:
        return None
    return chain.concat(chain.as_float(main), chain.as_float(other))


_BESIDE = Join(_shape_beside, _beside, _beside_in_plan, _parts, lambda main, other: main.shape[-1])


@register
class Concat(TrainingBranches):
    """Block of features side by side: y = [body(x), shortcut(x)], float32; bits count as +-1.

    Parameters
    ----------
    body : TrainingLayer
        A layer or a Sequential.
    shortcut : TrainingLayer, optional
        The identity by default.

    Notes
    -----
    Forward:  y is body(x) and then shortcut(x) along the last axis.
    Backward:  each branch receives its part of dy, and dx is the sum of their gradients.

    References
    ----------
    Huang et al., "Densely connected convolutional networks", 2017.

    Examples
    --------
    >>> from bitops.layers import Dense
    >>> block = Concat(Dense(4, 3, seed=0))
    >>> block(np.ones((1, 4), np.float32)).shape
    (1, 7)
    """

    role = Role.BLOCK
    join = _BESIDE

    def to_packed(self, flow: Flow = NUMBERS) -> PackedConcat:
        return PackedConcat(*self.packed_branches(flow))


@register
class PackedConcat(PackedBranches):
    """Twin of `Concat` for inference: y = [body(x), shortcut(x)], float32; bits count as +-1.

    Parameters
    ----------
    body : Packed, packed layer, or list of them
    shortcut : the same, optional
        The identity by default.

    Examples
    --------
    >>> from bitops.layers import Dense
    >>> block = Concat(Dense(4, 3, seed=0)).to_packed()
    >>> block(np.ones((1, 4), np.float32)).shape
    (1, 7)
    """

    join = _BESIDE
