"""Integers by a rule written here, so that no library's random numbers matter."""

import math

import numpy as np

_STEP, _MIX_1, _MIX_2 = (
    np.uint64(number) for number in (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB)
)


class Integers:
    """A sequence of integers, always the same for a seed (splitmix64)."""

    def __init__(self, seed: int):
        self._state = np.array([seed], np.uint64)

    def draw(self, low: int, high: int, *shape: int) -> np.ndarray:
        """Integers in low..high - 1, int64."""
        count = math.prod(shape)
        z = self._state + np.arange(1, count + 1, dtype=np.uint64) * _STEP
        self._state = self._state + np.array([count], np.uint64) * _STEP
        z = (z ^ (z >> np.uint64(30))) * _MIX_1
        z = (z ^ (z >> np.uint64(27))) * _MIX_2
        z ^= z >> np.uint64(33)
        return (z % np.uint64(high - low)).astype(np.int64).reshape(shape) + low

    def signs(self, *shape: int) -> np.ndarray:
        """-1 and +1, int8."""
        return (self.draw(0, 2, *shape) * 2 - 1).astype(np.int8)

    def flips(self, *shape: int) -> np.ndarray:
        return self.draw(0, 2, *shape).astype(np.bool_)

    def odd(self, denominator: int, most: int, *shape: int) -> np.ndarray:
        """Odd numbers below `most` in size over a power of two: float32, exact and never 0."""
        return (self.draw(-most // 2, most // 2, *shape) * 2 + 1).astype(np.float32) / np.float32(
            denominator
        )
