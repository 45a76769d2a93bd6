"""Keeps what optimizers hold away from numbers that processors take a hundred times as long for.

Those are the numbers below the normal ones of float32, which end at 2^-126. Weights that decay get
there, and moments of gradients that have become 0; but long before, products do: squares of the
numbers of a feature, in the variance of a BatchNorm, and gradients that pass two small scales. L2
lets the scale of a feature that nothing needs any more shrink by a quarter in a step of Adam, as
soon as the mean of its squared gradients is smaller than eps. Then each pass over the feature's
activations is slow.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..layers.parameter import Parameter
from ..ops.tiny import drop_tiny, lift_tiny

__all__ = ["keep_normal"]

LEAST_WEIGHT = 2.0**-100
SHARE = 2.0**-30  # of the largest weight of an array: beside it, less counts for nothing
LEAST_MOMENT = 2.0**-116  # thousandths of squares of gradients are normal
STEPS = 256
FEW, FEW_STEPS = 1 << 15, 16  # small arrays: scales and shifts of features are among them


def keep_normal(step: int, parameter: Parameter, moments: Sequence[np.ndarray]) -> None:
    """Set tiny moments to 0, and tiny weights to the least ones that are not, in some steps.

    Of binary weights nothing counts but signs, so that these stay as they are.
    """
    if step % (FEW_STEPS if parameter.size <= FEW else STEPS):
        return
    for m in moments:
        drop_tiny(m, LEAST_MOMENT)
    if not parameter.binary:
        w = parameter.writable()
        largest = float(max(w.max(initial=0), -w.min(initial=0)))
        if largest < np.inf:  # nor NaN, which later checks find
            lift_tiny(w, max(LEAST_WEIGHT, SHARE * largest))
