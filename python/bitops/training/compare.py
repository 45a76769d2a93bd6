"""Comparison of a trained network with its packed form, score by score."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from ..layers import Packed, Sequential

__all__ = ["count_differences"]


def count_differences(model: Sequential, packed: Packed, x: np.ndarray) -> int:
    """Count the rows whose scores or label differ in any bit between the two."""
    trained = np.asarray(model.outputs(x))
    frozen = np.asarray(packed.outputs(x))
    if trained.dtype != frozen.dtype or trained.shape != frozen.shape:
        return len(x)
    # As bytes, so that zeros of different sign differ, and equal NaNs do not.
    same = (trained.view(np.uint8) == frozen.view(np.uint8)).all(axis=1)
    same &= model.predict(x) == packed.predict(x)
    return int(np.count_nonzero(~same))
