"""What a training layer is when a chain is packed, and what flows between the layers then."""

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
    """How a training layer takes part when a chain is packed; see `bitops.layers.freeze`.

    A class names its role in the attribute `role`, or in a property where settings decide. In all
    of them, "forward" is that of evaluation.

    Attributes
    ----------
    ALONE
        `to_packed()` gives a layer that computes what `forward` does for numbers, and for bits as
        +-1; both give numbers. What no class says otherwise.
    NOTHING
        `forward` hands its input on as it is, and `to_packed()` gives None.
    MOVES
        Values are moved, not changed, so that bits stay bits and codes stay codes.
    STEP
        `forward` maps each number by itself, whatever axes stand before the channels, and in every
        channel it only rises or only falls with it.
    AFFINE
        A step x * alpha + bias, in float32, whose `affine()` gives the two.
    POOL
        The largest value of windows. `to_packed(minimum=...)` gives one that takes the smallest in
        some channels.
    SIGN
        A step that ends in bits of +-1.
    LEVELS
        A step that ends in `Codes`; its attribute `levels` has their `bits` and `step`.
    PRODUCT
        Products with packed weights, as `PackableProduct` describes.
    BLOCK
        Chains of layers; `to_packed(flow)` is told what flows into them, and numbers come out.
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
    """What a chain has come to: numbers, bits that are +-1, or codes that count `step`.

    Codes have so many bits; those of one bit are bits too, or uint8.
    """

    is_bits: bool = False
    code_bits: int | None = None
    step: float = 1.0

    @property
    def largest(self) -> int | None:
        """Largest magnitude of the integers that flow; None if they are any numbers."""
        if self.code_bits is not None:
            return 2**self.code_bits - 1
        return 1 if self.is_bits else None


NUMBERS, BITS = Flow(), Flow(is_bits=True)


class PackableProduct(Protocol):
    """What a layer of the role PRODUCT offers."""

    @property
    def weight(self) -> Parameter: ...

    @property
    def bias_value(self) -> np.ndarray | None: ...

    def planes(self) -> Planes: ...

    def to_packed(self, flow: Flow = NUMBERS, **outputs: Any) -> Layer:
        """The twin for what flows in, with `threshold` and `flip`, or with `alpha` and `bias`.

        Without either it has the scales and the bias of the layer itself.
        """


class PackableAffine(Protocol):
    """What a layer of the role AFFINE offers."""

    def affine(self) -> tuple[np.ndarray, np.ndarray]: ...


class PackablePool(Protocol):
    """What a layer of the role POOL offers."""

    def to_packed(self, minimum: np.ndarray | None = None) -> Layer: ...


class PackableBlock(Protocol):
    """What a layer of the role BLOCK offers."""

    def to_packed(self, flow: Flow = NUMBERS) -> Layer: ...


class HasLevels(Protocol):
    """What the `levels` of a layer of the role LEVELS tell."""

    @property
    def bits(self) -> int: ...

    @property
    def step(self) -> float: ...
