"""Gradients as float32, as bytes or as signs, and what these leave out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

__all__ = ["KINDS", "Code", "Kind"]

Kind = Literal["float32", "int8", "sign"]

MOST = 127  # of a code of a byte

# How many shards may be added up: codes are at most 127 in int16, and 1 in int8.
KINDS: dict[Kind, int | None] = {"float32": None, "int8": 32767 // MOST, "sign": 127}


@dataclass(frozen=True)
class Code:
    """How the gradients of a step are sent.

    Parameters
    ----------
    kind : {"float32", "int8", "sign"}
    scales : tuple of float, optional
        For each gradient the number that a code of 1 stands for. Without it, as in the first step
        of an epoch, gradients are sent as float32.

    Notes
    -----
    With p = g + e, g the gradient of a shard and e what its codes have left out so far:
    "int8":  q = clip(round(p / scale), -127, 127),  scale = max(abs(p)) / 127,
    "sign":  q = +1 if p >= 0, otherwise -1,  scale = mean(abs(p)),
    and e becomes p - scale q. All shards have the same scale, so that codes are added up as exact
    integers; it is that of all p of the step before. Vectors, such as biases, stay float32.

    References
    ----------
    Seide et al., "1-Bit Stochastic Gradient Descent", 2014 (what is left out is added to the next
    gradient).
    Karimireddy et al., "Error Feedback Fixes SignSGD", 2019 (scale of the signs).
    """

    kind: Kind = "float32"
    scales: tuple[float, ...] | None = None

    def encode(
        self, gradients: Sequence[np.ndarray], feedback: Sequence[np.ndarray] | None
    ) -> tuple[list[np.ndarray], list[np.ndarray], list[float]]:
        """Return codes, what they leave out, and levels from which `next` makes scales."""
        if self.kind == "float32":
            return [g.copy() for g in gradients], [], []
        codes, left, levels = [], [], []
        for i, g in enumerate(gradients):
            p = g if feedback is None else g + feedback[i]
            levels.append(self._level(p))
            if self.scales is None or g.ndim < 2:
                codes.append(p.copy())
                left.append(np.zeros_like(p) if g.ndim > 1 else np.zeros((), np.float32))
                continue
            scale = np.float32(self.scales[i])
            codes.append(self._round(p, scale))
            left.append(p - scale * codes[-1])
        return codes, left, levels

    def decode(self, sums: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Return sums of codes as float32."""
        scales = self.scales or (1.0,) * len(sums)
        return [
            s if s.dtype == np.float32 else s * np.float32(scale)
            for s, scale in zip(sums, scales, strict=True)
        ]

    def next(self, levels: Sequence[Sequence[float]]) -> Code:
        """Return the code of the next step, for the levels of all shards of this one."""
        if self.kind == "float32":
            return self
        by_gradient = zip(*levels, strict=True)
        if self.kind == "int8":
            return Code(self.kind, tuple(max(several) / MOST for several in by_gradient))
        return Code(self.kind, tuple(sum(several) / len(levels) for several in by_gradient))

    def _level(self, p: np.ndarray) -> float:
        size = np.abs(p)
        return float(size.max(initial=0) if self.kind == "int8" else size.mean(dtype=np.float64))

    def _round(self, p: np.ndarray, scale: np.float32) -> np.ndarray:
        if self.kind == "sign":
            return np.where(p >= 0, np.int8(1), np.int8(-1))
        if not scale:
            return np.zeros(p.shape, np.int16)
        return np.clip(np.rint(p / scale), -MOST, MOST).astype(np.int16)
