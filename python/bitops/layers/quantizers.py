"""Activations: the straight-through Sign and its packed twin, ReLU, and Dropout between layers."""

from __future__ import annotations

import numpy as np

from ..array import BitArray, above_operand, pack
from .base import (
    Activation,
    Cost,
    Layer,
    TrainingLayer,
    as_activation,
    as_flips,
    as_float,
    as_thresholds,
    saved_for_backward,
)


class Sign(TrainingLayer):
    """Activation q = sign(x), with sign(0) = +1, trained straight through.

    Parameters
    ----------
    clip_value : float
        Gradients pass where abs(x) <= clip_value.

    Notes
    -----
    Forward: q = +1 if x >= 0 else -1, returned as a BitArray packed along the features.
    Pseudo-gradient: dx = dq * (abs(x) <= clip_value), that of the hard tanh for clip_value = 1.

    References
    ----------
    Courbariaux, Hubara et al., "Binarized Neural Networks", 2016, eqs. 1 and 4.
    """

    def __init__(self, clip_value: float = 1.0):
        if not 0 < clip_value < np.inf:
            raise ValueError(f"[Sign] clip_value must be positive and finite, got {clip_value}")
        self.clip_value = float(clip_value)
        self._passes: np.ndarray | None = None

    def forward(self, x, *, training: bool = False) -> BitArray:
        values = as_float(as_activation("Sign", x))
        if training:
            self._passes = np.abs(values) <= np.float32(self.clip_value)
        return pack(values)

    def backward(self, grad: np.ndarray) -> np.ndarray:
        return grad * saved_for_backward(self, self._passes)

    def emits_bits(self, bits_in: bool) -> bool:
        return True

    def __repr__(self) -> str:
        return f"Sign(clip_value={self.clip_value:g})"


class PackedSign(Layer):
    """Packed twin of [BatchNorm ->] Sign on numbers: bit = (x > threshold) ^ flip.

    Parameters
    ----------
    threshold : array_like of shape (features,), int or float32, optional
        Without one, bit = (x >= 0).
    flip : array_like of shape (features,), bool, optional
        Features whose bit is inverted. Needs `threshold`.
    """

    def __init__(self, threshold=None, flip=None):
        if threshold is None and flip is not None:
            raise ValueError("[PackedSign] flip must come with a threshold, got threshold=None")
        self.threshold = self.flip = self._flip_bits = None
        if threshold is not None:
            self.threshold = as_thresholds("PackedSign", threshold, None)
            self.in_features = self.out_features = self.threshold.size
            self.flip = as_flips("PackedSign", flip, self.threshold.size)
            self._flip_bits = None if self.flip is None else pack(self.flip)

    def forward(self, x) -> BitArray:
        values = as_float(as_activation("PackedSign", x, self.in_features))
        if self.threshold is None:
            return pack(values)
        return above_operand("PackedSign", values, self.threshold, self._flip_bits)

    def emits_bits(self, bits_in: bool) -> bool:
        return True

    def cost(self, bits_in: bool) -> Cost:
        if self.threshold is None:
            return Cost()
        flip_bytes = 0 if self._flip_bits is None else self._flip_bits.nbytes
        return Cost(self.threshold.size, self.threshold.nbytes + flip_bytes)

    def __repr__(self) -> str:
        return f"PackedSign({'' if self.threshold is None else f'features={self.threshold.size}'})"


class PackedReLU(Layer):
    """y = max(x, 0), float32."""

    def forward(self, x) -> np.ndarray:
        return np.maximum(as_float(as_activation(self.name, x)), 0)

    def __repr__(self) -> str:
        return f"{self.name}()"


class ReLU(PackedReLU, TrainingLayer):
    """Activation y = max(x, 0), float32.

    Notes
    -----
    Backward:  dx = dy * (x > 0).
    """

    def __init__(self) -> None:
        self._passes: np.ndarray | None = None

    def forward(self, x, *, training: bool = False) -> np.ndarray:
        y = super().forward(x)
        if training:
            self._passes = y > 0
        return y

    def backward(self, grad: np.ndarray) -> np.ndarray:
        return grad * saved_for_backward(self, self._passes)


class Dropout(TrainingLayer):
    """Inverted dropout: training zeroes each value with probability `rate` and scales the others.

    In evaluation the input passes through as it is, bits as bits.

    Parameters
    ----------
    rate : float
        Share of values dropped, in [0, 1).
    seed : int, SeedSequence or Generator, optional
        Source of the masks.

    Notes
    -----
    y = x * mask / (1 - rate), mask ~ Bernoulli(1 - rate); dx = dy * mask / (1 - rate).
    """

    def __init__(self, rate: float, seed=None):
        if not 0 <= rate < 1:
            raise ValueError(f"[Dropout] rate must be in [0, 1), got {rate}")
        self.rate = float(rate)
        self._rng = np.random.default_rng(seed)
        self._mask: np.ndarray | None = None

    def forward(self, x, *, training: bool = False) -> Activation:
        x = as_activation("Dropout", x)
        if not training:
            return x
        keep = self._rng.random(x.shape, dtype=np.float32) >= self.rate
        self._mask = keep * np.float32(1 / (1 - self.rate))
        return as_float(x) * self._mask

    def backward(self, grad: np.ndarray) -> np.ndarray:
        return grad * saved_for_backward(self, self._mask)

    def generators(self) -> list[np.random.Generator]:
        return [self._rng]

    def emits_bits(self, bits_in: bool) -> bool:
        return bits_in

    def __repr__(self) -> str:
        return f"Dropout(rate={self.rate:g})"
