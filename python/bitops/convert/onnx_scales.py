"""Recognises binarized convolutions that scale their input, as XNOR-Net does, in a graph.

x -> signs -> convolution -------------------------> product -> y
x -> magnitudes -> mean of channels -> mean of windows ---^
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from .graph import Node
from .simplify import BIPOLAR, simplified
from .steps import Affine, Conv, Levels, Map, ScaledConv, Step
from .tensors import Tensor, multiply
from .traces import Trace
from .weights import find_levels

MAGNITUDE, CHANNEL_MEAN = "magnitude", "channel_mean"


def times_scales(node: Node, one: Tensor, two: Tensor) -> Tensor:
    """Return the product of two tensors; one of outputs and their scales is a ScaledConv."""
    if _scales(one) is None and _scales(two) is None:
        return multiply(node, one, two)
    for z, scales in ((one, two), (two, one)):
        found = _scales(scales)
        if found is None or all(trace is not found[0] for trace in z.trace.line()):
            continue
        start, means = found
        match simplified(z.trace.steps_from(start)):
            case [Levels() as signs, Conv() as conv] if _fits(signs, conv, means):
                return _scaled(node, z, start, conv, None)
            case [Levels() as signs, Conv() as conv, Affine() as alpha] if (
                _fits(signs, conv, means) and not alpha.bias.any()
            ):
                return _scaled(node, z, start, conv, alpha)
    raise node.refuse(
        "the product with mean magnitudes is supported only if they are those of x in its windows, "
        "and the other factor the convolution of the signs of x"
    )


def _scales(scales: Tensor) -> tuple[Trace, Conv] | None:
    """Return x and the mean of windows, if scales are mean magnitudes of x."""
    steps: list[Step] = []
    trace: Trace | None = scales.trace
    while trace is not None and trace.step is not None and len(steps) < 3:
        steps.append(trace.step)
        trace = trace.before
    match steps:
        case [Conv() as means, Map(kind="channel_mean"), Map(kind="magnitude")]:
            return (trace, means) if trace is not None else None
    return None


def _fits(signs: Levels, conv: Conv, means: Conv) -> bool:
    """Return whether a convolution takes signs, and its scales are means of the same windows."""
    found = find_levels(conv.w)
    windows = ("stride", "padding", "dilation")
    return (
        tuple(signs.values) == BIPOLAR
        and not signs.threshold.any()
        and found is not None
        and found.is_binary
        and conv.shift == 0
        and conv.w.shape[1:3] == means.w.shape[1:3]
        and all(getattr(conv, name) == getattr(means, name) for name in windows)
        and bool(np.allclose(means.w, 1 / means.w.size, rtol=1e-6, atol=0))
    )


def _scaled(node: Node, z: Tensor, start: Trace, conv: Conv, alpha: Affine | None) -> Tensor:
    y = replace(z, trace=Trace(ScaledConv(str(node), conv), start))
    return y if alpha is None else y.add(alpha)
