"""Comparison of a trained network with its packed form, score by score."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from ..layers import Packed, Sequential

__all__ = ["IMAGES_AT_A_TIME", "count_differences"]

# Images whose activations are in memory at once: a tenth of the default, which suits rows.
IMAGES_AT_A_TIME = 100


def count_differences(model: Sequential, packed: Packed, x: np.ndarray) -> int:
    """Count the rows whose scores or label differ in any bit between the two."""
    options = {"batch_size": IMAGES_AT_A_TIME}
    trained = np.asarray(model.outputs(x, **options))
    frozen = np.asarray(packed.outputs(x, **options))
    if trained.dtype != frozen.dtype or trained.shape != frozen.shape:
        return len(x)
    # As bytes, so that zeros of different sign differ, and equal NaNs do not.
    same = (trained.view(np.uint8) == frozen.view(np.uint8)).all(axis=1)
    same &= model.predict(x, **options) == packed.predict(x, **options)
    return int(np.count_nonzero(~same))
