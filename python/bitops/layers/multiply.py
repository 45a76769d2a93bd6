"""Blocks whose branches are multiplied, for training and inference: y = body(x) * shortcut(x)."""

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


def _shape_of_product(where: str, main: Shape, other: Shape) -> Shape:
    both = zip(reversed(main), reversed(other), strict=False)  # of a row, the features alone
    if any(None not in pair and pair[0] != pair[1] for pair in both):
        raise ValueError(
            f"[{where}] shortcut must give the shape that body gives, or one row of as many "
            f"features, got {main} and {other}"
        )
    return main or other[-1:]


def _factors(where: str, main: Activation, other: Activation) -> tuple[np.ndarray, np.ndarray]:
    """Return both outputs as float32; a row of factors gets the axes of the images it is for."""
    is_row = other.ndim == 2 and other.shape == (main.shape[0], main.shape[-1])
    if other.shape != main.shape and not is_row:
        raise ValueError(
            f"[{where}] shortcut must give the shape that body gives, or one row of as many "
            f"features, got {main.shape} and {other.shape}"
        )
    ones = (1,) * (main.ndim - other.ndim)
    return as_float(main), as_float(other).reshape(len(other), *ones, *other.shape[1:])


def _product(where: str, main: Activation, other: Activation) -> np.ndarray:
    values, factors = _factors(where, main, other)
    return values * factors


def _product_in_plan(chain: Chain, main: Value, other: Value) -> Value | None:
    if other.shape not in (main.shape, (main.shape[0], main.features)):
        return None
    return chain.times(chain.as_float(main), chain.as_float(other))


def _gradients(
    grad: np.ndarray, kept: tuple[np.ndarray, np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    values, factors = kept
    of_factors = grad * values
    if values.shape != factors.shape:
        middle = tuple(range(1, values.ndim - 1))
        of_factors = of_factors.sum(axis=middle, dtype=np.float64).astype(np.float32)
    return grad * factors, of_factors


_TIMES = Join(
    _shape_of_product,
    _product,
    _product_in_plan,
    _gradients,
    lambda main, other: _factors("Multiply", main, other),
)


@register
class Multiply(TrainingBranches):
    """Block of a product: y = body(x) * shortcut(x), float32; bits count as +-1.

    Parameters
    ----------
    body : TrainingLayer
        A layer or a Sequential.
    shortcut : TrainingLayer, optional
        The identity by default. It gives what the body gives, or one row of factors for each
        image of the body, a factor for every channel.

    Notes
    -----
    Forward:  y = body(x) * shortcut(x).
    Backward:  the body receives dy * shortcut(x), and the shortcut dy * body(x), summed over the
    positions of an image where its factors are a row. dx is the sum of their gradients.

    References
    ----------
    Martinez et al., "Training binary neural networks with real-to-binary convolutions", 2020,
    section 4.3: the shortcut computes scales of the channels from the input of the convolution.
    Hu et al., "Squeeze-and-excitation networks", 2018, equation 4.

    Examples
    --------
    >>> from bitops.layers import Sigmoid
    >>> Multiply(Sigmoid())(np.float32([[0, 100]]))
    array([[  0., 100.]], dtype=float32)
    """

    role = Role.BLOCK
    join = _TIMES

    def to_packed(self, flow: Flow = NUMBERS) -> PackedMultiply:
        return PackedMultiply(*self.packed_branches(flow))


@register
class PackedMultiply(PackedBranches):
    """Twin of `Multiply` for inference: y = body(x) * shortcut(x), float32; bits count as +-1.

    Parameters
    ----------
    body : Packed, packed layer, or list of them
    shortcut : the same, optional
        The identity by default.

    Examples
    --------
    >>> from bitops.layers import Sigmoid
    >>> Multiply(Sigmoid()).to_packed()(np.float32([[0, 100]]))
    array([[  0., 100.]], dtype=float32)
    """

    join = _TIMES
