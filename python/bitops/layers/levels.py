"""Activation of several thresholds a feature, as FINN and QONNX know it, and its packed twin."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ..ops.checks import plain_array
from .base import Cost, Layer, TrainingLayer, saved_for_backward
from .inputs import Activation, Codes, as_activation, as_float
from .registry import ArraySpec, register
from .roles import Role

if TYPE_CHECKING:
    from ..ops.plan import Value
    from .plans import Chain

MAX_LEVELS = 255


@dataclass(frozen=True)
class UnitLevels:
    """The values that codes of so many bits stand for: the codes themselves."""

    bits: int
    step: float = 1.0


def check_levels(where: str, threshold) -> np.ndarray:
    """Check thresholds (features, levels), rising along the levels; return int32 or float32."""
    threshold = plain_array(where, "threshold", threshold)
    if threshold.dtype.kind not in "iuf":
        raise TypeError(f"[{where}] threshold must be integer or real, got {threshold.dtype}")
    if threshold.ndim != 2 or 0 in threshold.shape or threshold.shape[1] > MAX_LEVELS:
        raise ValueError(
            f"[{where}] threshold must have shape (features, levels), with 1 to {MAX_LEVELS} "
            f"levels, got {threshold.shape}"
        )
    if threshold.dtype.kind == "f" and np.isnan(threshold).any():
        raise ValueError(f"[{where}] threshold must not be NaN")
    if (threshold[:, 1:] < threshold[:, :-1]).any():
        raise ValueError(f"[{where}] the thresholds of a feature must not fall")
    if threshold.dtype.kind == "f":
        return np.ascontiguousarray(threshold, np.float32)
    limits = np.iinfo(np.int32)
    return np.clip(threshold, limits.min, limits.max).astype(np.int32)


def count_levels(where: str, x: np.ndarray, threshold: np.ndarray) -> np.ndarray:
    """Return how many thresholds of its feature each number reaches, uint8; refuse NaN."""
    if x.dtype.kind == "f" and np.isnan(x).any():
        raise ValueError(f"[{where}] x must not be NaN")
    if len(threshold) == 1 or (threshold == threshold[0]).all():
        counts = np.searchsorted(threshold[0], x.ravel(), side="right")
        return counts.astype(np.uint8).reshape(x.shape)
    codes = np.zeros(x.shape, np.uint8)
    for level in threshold.T:
        codes += x >= level
    return codes


@register
class MultiThreshold(TrainingLayer):
    """Activation code = number of thresholds t of the feature with x >= t.

    Parameters
    ----------
    threshold : array_like of shape (features, levels), float32
        The thresholds of a feature must not fall. A first axis of 1 serves any number of features.

    Notes
    -----
    Forward:  q = code, 0 to `levels`, returned as Codes.
    Backward:  dx = dq (straight-through). Thresholds are not trained.

    References
    ----------
    Umuroglu et al., "FINN: a framework for fast, scalable binarized neural network inference",
    2017, section 4.2.2: thresholds take the place of BatchNorm and activation.

    Examples
    --------
    >>> MultiThreshold([[0.0, 1.0, 2.0]])(np.float32([[-1], [0.5], [7]])).numbers.ravel()
    array([0, 1, 3], dtype=uint8)
    """

    role = Role.LEVELS
    ARRAYS = (ArraySpec("threshold", "float32", 2),)

    def __init__(self, threshold):
        self.threshold = check_levels("MultiThreshold", threshold).astype(np.float32)
        features, levels = self.threshold.shape
        if features > 1:
            self.in_features = self.out_features = features
        self.levels = UnitLevels(levels.bit_length())
        self._seen: bool | None = None

    def forward(self, x, *, training: bool = False) -> Codes:
        values = as_float(as_activation("MultiThreshold", x, self.in_features))
        if training:
            self._seen = True
        return Codes(
            count_levels("MultiThreshold", values, self.threshold),
            self.levels.bits,
            self.levels.step,
        )

    def backward(self, grad: np.ndarray) -> np.ndarray:
        saved_for_backward(self, self._seen)
        return grad

    def __reduce__(self) -> tuple:
        return type(self), (self.threshold,)

    def output_bits(self, input_bits: int | None) -> int:
        return self.levels.bits

    def cost(self, input_bits: int | None) -> Cost:
        return Cost(self.threshold.size, self.threshold.nbytes)

    def to_packed(self) -> PackedMultiThreshold:
        return PackedMultiThreshold(self.threshold)

    def __repr__(self) -> str:
        return f"MultiThreshold(levels={self.threshold.shape[1]})"


@register
class PackedMultiThreshold(Layer):
    """Twin of `MultiThreshold` for inference: codes, uint8.

    Parameters
    ----------
    threshold : array_like of shape (features, levels), int or float32
        Integer thresholds are compared with integer sums exactly.

    Examples
    --------
    >>> PackedMultiThreshold([[0.0, 1.0, 2.0]])(np.float32([[-1], [0.5], [7]])).ravel()
    array([0, 1, 3], dtype=uint8)
    """

    ARRAYS = (ArraySpec("threshold", ("int32", "float32"), 2),)

    def __init__(self, threshold):
        self.threshold = check_levels("PackedMultiThreshold", threshold)
        if len(self.threshold) > 1:
            self.in_features = self.out_features = len(self.threshold)

    def forward(self, x) -> Activation:
        x = as_activation("PackedMultiThreshold", x, self.in_features)
        exact = (
            self.threshold.dtype.kind == "i" and isinstance(x, np.ndarray) and x.dtype.kind in "iu"
        )
        numbers = x if exact else as_float(x)
        return count_levels("PackedMultiThreshold", numbers, self.threshold)

    def compile(self, chain: Chain, x: Value) -> Value | None:
        if self.threshold.dtype == np.int32:
            return chain.count_levels(x, self.threshold) if x.kind == "int32" else None
        return chain.count_levels(chain.as_float(x), self.threshold)

    def output_bits(self, input_bits: int | None) -> int:
        return self.threshold.shape[1].bit_length()

    def cost(self, input_bits: int | None) -> Cost:
        return Cost(self.threshold.size, self.threshold.nbytes)

    def __repr__(self) -> str:
        return f"PackedMultiThreshold(levels={self.threshold.shape[1]})"
