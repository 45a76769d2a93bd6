"""What `freeze` needs to know of each training layer: its role, and what flows between layers."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

if TYPE_CHECKING:
    from .base import Layer
    from .parameter import Parameter
    from .planes import Planes


class Role(Enum):
    """How `bitops.layers.freeze` treats a training layer.

    A class states its role in the attribute `role`, or in a property if it depends on settings.
    Below, "forward" is the forward pass of evaluation.

    Attributes
    ----------
    ALONE
        The default: the layer is packed by itself. `to_packed()` returns a layer that computes the
        same from numbers, or from bits as +-1. The output is numbers.
    NOTHING
        `forward` returns its input unchanged, and `to_packed()` returns None.
    MOVES
        `forward` moves values without changing them. Bits stay bits, and codes stay codes.
    STEP
        `forward` maps each number on its own, whatever axes precede the channels. In each channel
        the map is monotone: it never falls, or it never rises.
    AFFINE
        A STEP that computes x * alpha + bias in float32; `affine()` returns alpha and bias.
    POOL
        `forward` takes the largest value of each window. `to_packed(minimum=...)` returns a pool
        that takes the smallest value in some channels.
    SIGN
        A STEP whose output is bits of +-1.
    LEVELS
        A STEP whose output is `Codes`. Its attribute `levels` has their `bits` and `step`.
    PRODUCT
        `forward` multiplies by weights that can be packed; see `PackableProduct`.
    BLOCK
        The layer contains chains. `to_packed(flow)` is told what flows into them. The output is
        numbers.

    Examples
    --------
    >>> from bitops.layers import BatchNorm, MaxPool2D
    >>> BatchNorm(3).role, MaxPool2D(2).role
    (<Role.AFFINE: 5>, <Role.POOL: 6>)
    """

    ALONE = auto()
    NOTHING = auto()
    MOVES = auto()
    STEP = auto()
    AFFINE = auto()
    POOL = auto()
    SIGN = auto()
    LEVELS = auto()
    PRODUCT = auto()
    BLOCK = auto()


@dataclass(frozen=True)
class Flow:
    """What flows between two layers: numbers, bits of +-1, or codes that stand for step * code.

    `code_bits` is the number of bits of a code. Codes of one bit flow as a BitArray or as uint8.
    """

    is_bits: bool = False
    code_bits: int | None = None
    step: float = 1.0

    @property
    def largest(self) -> int | None:
        """Largest magnitude of the integers that flow; None if any number may flow."""
        if self.code_bits is not None:
            return 2**self.code_bits - 1
        return 1 if self.is_bits else None


NUMBERS, BITS = Flow(), Flow(is_bits=True)


class PackableProduct(Protocol):
    """Interface of a layer with the role PRODUCT."""

    @property
    def weight(self) -> Parameter: ...

    @property
    def bias_value(self) -> np.ndarray | None: ...

    def planes(self) -> Planes: ...

    def to_packed(self, flow: Flow = NUMBERS, **outputs: Any) -> Layer:
        """Return the twin for what flows in.

        `outputs` holds `threshold` and `flip`, or `alpha` and `bias`. By default the twin has the
        scales and the bias of the layer itself.
        """


class PackableAffine(Protocol):
    """Interface of a layer with the role AFFINE."""

    def affine(self) -> tuple[np.ndarray, np.ndarray]: ...


class PackablePool(Protocol):
    """Interface of a layer with the role POOL."""

    def to_packed(self, minimum: np.ndarray | None = None) -> Layer: ...


class PackableBlock(Protocol):
    """Interface of a layer with the role BLOCK."""

    def to_packed(self, flow: Flow = NUMBERS) -> Layer: ...


class HasLevels(Protocol):
    """Interface of the attribute `levels` of a layer with the role LEVELS."""

    @property
    def bits(self) -> int: ...

    @property
    def step(self) -> float: ...
