"""Layers of noise that only training has: Dropout, and gradients that are rounded at random."""

from __future__ import annotations

from typing import Any, cast

import numpy as np

from ..ops.array import BitArray, pack
from ..ops.checks import as_generator, check_number
from ..ops.normalize import keep_within
from ..quantizers import DoReFaGradient
from .base import TrainingLayer, saved_for_backward
from .inputs import Activation, SignPairs, as_activation, as_float
from .registry import register
from .roles import Role


@register
class QuantizeGradient(TrainingLayer):
    """Identity that rounds its gradient at random to k bits (DoReFa-Net).

    Parameters
    ----------
    bits : int
    seed : int, SeedSequence or Generator, optional
        Source of the noise.

    Notes
    -----
    Place it right after the product whose gradient it is to round.
    Forward:  y = x; bits stay bits.
    Backward:  dx is dy rounded by `quantizers.DoReFaGradient`.

    Examples
    --------
    >>> layer = QuantizeGradient(8, seed=0)
    >>> layer(np.float32([[0.1, 0.2]]))
    array([[0.1, 0.2]], dtype=float32)
    """

    role = Role.NOTHING

    def __init__(self, bits: int, seed=None):
        self.quantizer = DoReFaGradient(bits, seed)

    def forward(self, x, *, training: bool = False) -> Activation:
        return as_activation("QuantizeGradient", x)

    def backward(self, grad: np.ndarray) -> np.ndarray:
        return self.quantizer.backward(grad, grad)

    def generators(self) -> list[np.random.Generator]:
        return [self.quantizer.generator]

    def to_packed(self) -> None:
        return None

    def output_bits(self, input_bits: int | None) -> int | None:
        return input_bits

    def config(self) -> dict[str, Any]:
        return {"bits": self.quantizer.bits}

    def __repr__(self) -> str:
        return f"QuantizeGradient(bits={self.quantizer.bits})"


@register
class Dropout(TrainingLayer):
    """Inverted dropout: training zeroes each value with probability `rate` and scales the others.

    Evaluation returns its input unchanged; bits stay bits.

    Parameters
    ----------
    rate : float
        Probability that a value is dropped, in [0, 1).
    seed : int, SeedSequence or Generator, optional
        Source of the masks.

    Notes
    -----
    Forward:  y = x * mask / (1 - rate),  mask ~ Bernoulli(1 - rate).
    Backward:  dx = dy * mask / (1 - rate).

    Examples
    --------
    >>> layer = Dropout(0.5, seed=0)
    >>> x = np.ones((1, 4), np.float32)
    >>> layer(x)
    array([[1., 1., 1., 1.]], dtype=float32)
    >>> sorted(set(layer.forward(x, training=True).ravel().tolist()))
    [0.0, 2.0]
    """

    SAVED = ("_kept",)

    role = Role.NOTHING

    def __init__(self, rate: float, seed=None):
        check_number("Dropout", "rate", rate)
        if not 0 <= rate < 1:
            raise ValueError(f"[Dropout] rate must be in [0, 1), got {rate}")
        self.rate = float(rate)
        self._rng = as_generator("Dropout", seed)
        self._kept: tuple[np.ndarray | BitArray, np.float32] | None = None

    def forward(self, x, *, training: bool = False) -> Activation:
        x = as_activation("Dropout", x)
        if not training:
            return x
        kept, scale = self._draw(x.shape)
        self._kept = kept, scale
        return as_float(x) * (kept * scale)

    def drop_signs(self, x: BitArray) -> SignPairs:
        """Do what `forward` does in training; a sign that is dropped and its opposite make 0."""
        drawn, scale = self._draw(x.shape)
        kept = pack(drawn)
        self._kept = kept, scale
        both = cast(BitArray, np.stack([x | ~kept, x & kept], axis=1))
        return SignPairs(both.reshape(2 * len(x), *x.shape[1:]), float(scale) / 2)

    def _draw(self, shape: tuple[int, ...]) -> tuple[np.ndarray, np.float32]:
        """Tell of each value whether it is kept, and what those that are get multiplied by."""
        kept = self._rng.random(shape, dtype=np.float32) >= self.rate
        return kept, np.float32(1 / (1 - self.rate))

    def backward(self, grad: np.ndarray) -> np.ndarray:
        kept, scale = saved_for_backward(self, self._kept)
        if isinstance(kept, BitArray):
            return keep_within(grad, kept) * scale
        return grad * (kept * scale)

    def generators(self) -> list[np.random.Generator]:
        return [self._rng]

    def to_packed(self) -> None:
        return None

    def output_bits(self, input_bits: int | None) -> int | None:
        return input_bits

    def config(self) -> dict[str, Any]:
        return {"rate": self.rate}

    def __repr__(self) -> str:
        return f"Dropout(rate={self.rate:g})"
