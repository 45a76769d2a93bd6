"""Residual blocks, for training and for inference: y = body(x) + shortcut(x)."""

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


def _shape_of_sum(where: str, main: Shape, other: Shape) -> Shape:
    both = [pair for pair in zip(reversed(main), reversed(other), strict=False)]
    if any(None not in pair and pair[0] != pair[1] for pair in both):
        raise ValueError(
            f"[{where}] body and shortcut must give the same shape, got {main} and {other}"
        )
    longer = main if len(main) >= len(other) else other
    known = [main_size or other_size for main_size, other_size in both]
    return (*longer[: len(longer) - len(both)], *reversed(known))


def _sum(where: str, main: Activation, other: Activation) -> np.ndarray:
    if main.shape != other.shape:
        raise ValueError(
            f"[{where}] body and shortcut must give the same shape, "
            f"got {main.shape} and {other.shape}"
        )
    return as_float(main) + as_float(other)


def _sum_in_plan(chain: Chain, main: Value, other: Value) -> Value | None:
    if main.shape != other.shape:
        return None
    return chain.add(chain.as_float(main), chain.as_float(other))


_ADDED = Join(
    _shape_of_sum,
    _sum,
    _sum_in_plan,
    lambda grad, kept: (grad, grad),
    lambda main, other: None,
)


@register
class Residual(TrainingBranches):
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

    Examples
    --------
    >>> from bitops.layers import ReLU
    >>> Residual(ReLU())(np.float32([[-3, 2]]))
    array([[-3.,  4.]], dtype=float32)
    """

    role = Role.BLOCK
    join = _ADDED

    def to_packed(self, flow: Flow = NUMBERS) -> PackedResidual:
        return PackedResidual(*self.packed_branches(flow))


@register
class PackedResidual(PackedBranches):
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

    Examples
    --------
    >>> from bitops.layers import ReLU
    >>> Residual(ReLU()).to_packed()(np.float32([[-3, 2]]))
    array([[-3.,  4.]], dtype=float32)
    """

    join = _ADDED
