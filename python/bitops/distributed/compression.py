"""Gradients as float32, as bytes or as signs, and what these leave out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

__all__ = ["KINDS", "Code", "Kind"]

Kind = Literal["float32", "int8", "sign"]

MOST = 127  # of a code of a byte

# How many shards may be added up: codes are at most 127 in int16, and 1 in int8.
KINDS: dict[Kind, int | None] = {"float32": None, "int8": 32767 // MOST, "sign": 127}


_TYPES = {"int8": np.int16, "sign": np.int8}
_BLOCK = 16384  # elements: passes over whole weight matrices would go to main memory


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
            p = np.empty(g.shape, np.float32)
            is_coded = self.scales is not None and g.ndim > 1
            scale = np.float32(self.scales[i]) if self.scales is not None else np.float32(0)
            code = np.empty(g.shape, _TYPES[self.kind]) if is_coded else None
            level = 0.0
            for block in _blocks(p, g, None if feedback is None else feedback[i], code):
                level = self._encode_block(level, scale, *block)
            levels.append(level / max(g.size, 1) if self.kind == "sign" else level)
            codes.append(p if code is None else code)
            left.append(np.zeros_like(p) if code is None else p)
        return codes, left, levels

    def _encode_block(
        self,
        level: float,
        scale: np.float32,
        p: np.ndarray,
        g: np.ndarray,
        e: np.ndarray | None,
        code: np.ndarray | None,
    ) -> float:
        """Write p and its code, take the code from p, and return the level with that of p."""
        np.copyto(p, g) if e is None else np.add(g, e, out=p)
        size = np.abs(p)
        if self.kind == "sign":
            level += float(size.sum())
        else:
            level = max(level, float(size.max()))
        if code is None:
            return level
        if self.kind == "sign":
            np.greater_equal(p, 0, out=code.view(bool))
            code += code
            code -= 1
        elif scale:
            values = p / scale
            code[...] = np.clip(np.rint(values, out=values), -MOST, MOST, out=values)
        else:
            code[...] = 0
        p -= scale * code
        return level

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


def _blocks(*arrays: np.ndarray | None) -> Iterator[list[Any]]:
    """Yield parts of arrays, side by side, that fit a cache together; None stays None."""
    flat = [None if array is None else array.reshape(-1) for array in arrays]
    assert flat[0] is not None
    for start in range(0, flat[0].size, _BLOCK):
        yield [None if array is None else array[start : start + _BLOCK] for array in flat]
