"""Convolutions of traced images, whatever format they come from."""

from __future__ import annotations

import numpy as np

from ..ops.geometry import Pair
from .graph import Node
from .steps import Conv, Sides
from .tensors import Tensor, output_size

_MOST_WEIGHTS = 2**26


def convolved(
    node: Node,
    x: Tensor,
    filters: np.ndarray,
    groups: int,
    stride: Pair,
    padding: Sides,
    dilation: Pair,
    pad_value: float = 0.0,
) -> Tensor:
    """Convolve images with filters OHWI, for channels in the order of the source."""
    if not filters.size or not np.isfinite(filters).all():
        raise node.refuse("its weights must be finite, and not empty")
    if groups < 1 or filters.shape[3] * groups != x.features(node) or len(filters) % groups:
        raise node.refuse(
            f"filters {filters.shape} in {groups} groups do not fit {x.features(node)} channels"
        )
    order = None
    if x.order is not None:
        filters, groups, order = _arranged(node, filters, groups, x.order)
    kernel = filters.shape[1], filters.shape[2]
    image = output_size(node, x, kernel, stride, padding, dilation)
    step = Conv(str(node), filters, 0.0, stride, padding, dilation, groups, pad_value)
    return x.add(step, sizes=(*image, len(filters)), order=order)


def _arranged(
    node: Node, filters: np.ndarray, groups: int, order: np.ndarray
) -> tuple[np.ndarray, int, np.ndarray | None]:
    """Return filters for channels in another order, the groups, and the order of the output.

    Groups move as they are if each finds its channels side by side. Otherwise there is one group,
    and weights of 0 for the channels of the others.
    """
    outs, channels = len(filters) // groups, filters.shape[3]
    places = order.reshape(groups, channels)
    to = places[:, 0] // channels
    order_out = (to[:, np.newaxis] * outs + np.arange(outs)).ravel()
    if (places // channels == to[:, np.newaxis]).all():
        arranged = np.empty_like(filters)
        for group, place in enumerate(places):
            own = filters[group * outs : (group + 1) * outs]
            arranged[to[group] * outs : (to[group] + 1) * outs][..., place % channels] = own
        is_same = bool((order_out == np.arange(len(filters))).all())
        return arranged, groups, None if is_same else order_out
    if filters.size * groups > _MOST_WEIGHTS:
        raise node.refuse("groups of so many channels that lie in another order are not supported")
    whole = np.zeros((*filters.shape[:3], channels * groups), filters.dtype)
    for group, place in enumerate(places):
        rows = slice(group * outs, (group + 1) * outs)
        whole[rows][..., place] = filters[rows]
    return whole, 1, None
