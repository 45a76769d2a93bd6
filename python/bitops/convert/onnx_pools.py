"""The pools and means of ONNX."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import numpy as np

from ..ops.geometry import Pair
from .calls import Call, Handler
from .graph import Node
from .onnx_scales import CHANNEL_MEAN
from .onnx_windows import also_of_sequences, check_images, padding_of, pair_of
from .steps import Map, Pool, Sides
from .tensors import PIXELS, Tensor, output_size


def _pool(kind: str) -> Handler:
    def handler(call: Call) -> Tensor:
        node, x = call.node, call.tensor()
        check_images(node, x)
        kernel, stride = pair_of(call, "kernel_shape"), pair_of(call, "strides")
        if pair_of(call, "dilations") != (1, 1):
            raise node.refuse("dilations of pools are not supported")
        padding = padding_of(call, x, kernel, stride, (1, 1))
        if call.attribute("ceil_mode", 0):
            padding = rounded_up(call, x, kernel, stride, padding)
        if (
            kind == "avg"
            and padding != ((0, 0), (0, 0))
            and not call.attribute("count_include_pad", 0)
        ):
            raise node.refuse("padding that does not count is not supported in a mean")
        if any(p >= k for sides, k in zip(padding, kernel, strict=True) for p in sides):
            raise node.refuse("padding must be smaller than the window")
        image = output_size(node, x, kernel, stride, padding, (1, 1))
        step = Pool(str(node), kind, kernel, stride, padding)
        return x.add(step, sizes=(*image, x.sizes[-1]))

    return handler


def rounded_up(call: Call, x: Tensor, kernel: Pair, stride: Pair, padding: Sides) -> Sides:
    """Return padding that gives as many windows as rounding up does."""
    sides = []
    for size, k, s, (before, after) in zip(x.sizes, kernel, stride, padding, strict=False):
        if size is None:
            raise call.node.refuse("the size of the image must be known for ceil_mode")
        count = -(-(size + before + after - k) // s) + 1
        if (count - 1) * s >= size + before:  # a window must begin within the image
            count -= 1
        sides.append((before, max((count - 1) * s + k - size - before, 0)))
    return sides[0], sides[1]


def _global_average(call: Call) -> Tensor:
    x = call.tensor()
    check_images(call.node, x)
    return x.add(Map(str(call.node), "mean"), sizes=(x.sizes[-1],), axes="nc11")


def _global_maximum(call: Call) -> Tensor:
    node, x = call.node, call.tensor()
    check_images(node, x)
    return replace(_largest(node, x), axes="nc11")


def _largest(node: Node, x: Tensor) -> Tensor:
    """Return the largest number of each channel."""
    height, width, channels = x.sizes
    if height is None or width is None:
        raise node.refuse("the size of the image must be known")
    image = height, width
    y = x.add(Pool(str(node), "max", image, image, ((0, 0), (0, 0))), sizes=(1, 1, channels))
    return y.add(Map(str(node), "flatten", (channels, channels)), sizes=(channels,))


def _reduce_mean(call: Call) -> Tensor:
    node, x = call.node, call.tensor()
    axes = call.setting("axes", 1, range(len(x.axes)))
    reduced = {axis % len(x.axes) for axis in np.reshape(axes, -1).tolist()}
    if [x.axes[axis] for axis in reduced] == ["c"] and call.attribute("keepdims", 1):
        return x.add(Map(str(node), CHANNEL_MEAN), sizes=(*x.sizes[:-1], 1), order=None)
    if not is_whole_image(x, reduced):
        raise node.refuse("its axes must be those of the image")
    return mean_of_image(call, x, reduced)


def is_whole_image(x: Tensor, axes: Iterable[int]) -> bool:
    """Return whether axes are those of all pixels."""
    return x.is_image and {x.axes[axis] for axis in axes} == set(PIXELS) & set(x.axes)


def mean_of_image(call: Call, x: Tensor, axes: Iterable[int]) -> Tensor:
    return _of_image(call, x, axes, x.add(Map(str(call.node), "mean"), sizes=(x.sizes[-1],)))


def _of_image(call: Call, x: Tensor, axes: Iterable[int], y: Tensor) -> Tensor:
    """Return one number for each channel of x, with the axes that a reduction of pixels leaves."""
    reduced = set(axes)
    kept = call.attribute("keepdims", 1)
    names = ["1" if axis in reduced else name for axis, name in enumerate(x.axes)]
    left = [name for axis, name in enumerate(names) if kept or axis not in reduced]
    return replace(y, axes="".join(left))


def _reduce_max(call: Call) -> Tensor:
    node, x = call.node, call.tensor()
    axes = call.setting("axes", 1, range(len(x.axes)))
    reduced = {axis % len(x.axes) for axis in np.reshape(axes, -1).tolist()}
    if not is_whole_image(x, reduced):
        raise node.refuse("its axes must be those of the image")
    return _of_image(call, x, reduced, _largest(node, x))


HANDLERS: dict[str, Handler] = {
    "AveragePool": also_of_sequences(_pool("avg")),
    "GlobalAveragePool": also_of_sequences(_global_average),
    "GlobalMaxPool": also_of_sequences(_global_maximum),
    "MaxPool": also_of_sequences(_pool("max")),
    "ReduceMax": _reduce_max,
    "ReduceMean": _reduce_mean,
}
