"""The operators of ONNX that move numbers: shapes, axes, padding, branches side by side."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from .calls import Call, Handler
from .graph import BATCH, Node
from .steps import Pad, Pool
from .tensors import Tensor, concat, output_size, pad_features


def _reshape(call: Call) -> Tensor:
    x = call.tensor()
    target = list(np.reshape(call.setting("shape", 1), -1).astype(int).tolist())
    here = x.shape()
    if not call.attribute("allowzero", 0):
        target = [here[i] if size == 0 and i < len(here) else size for i, size in enumerate(target)]
    if target and target[0] == x.batch and x.batch is not None:
        target[0] = BATCH
    return x.reshaped(call.node, _without_unknown(call.node, here, target))


def _without_unknown(
    node: Node, here: list[int | None], target: list[int | None]
) -> list[int | None]:
    """Return a target shape with its -1 replaced by the size it stands for."""
    if -1 not in target:
        return target
    at = target.index(-1)
    if at == 0:  # that of the examples, if the rest takes all of each
        rest = target[1:]
        if None in here or None in rest or math.prod(rest) != math.prod(here[1:]):  # type: ignore[arg-type]
            raise node.refuse(f"a shape of {here[1:]} cannot become {target[1:]}")
        return [BATCH, *rest]
    if target[0] != BATCH:
        raise node.refuse(f"the first axis must stay that of the examples, got {target}")
    others = [size for i, size in enumerate(target) if i not in (0, at)]
    if None in here or None in others:
        raise node.refuse(f"the size of the image must be known, got {here[1:]}")
    all_, known = math.prod(here[1:]), math.prod(others)  # type: ignore[arg-type]
    if known <= 0 or all_ % known:
        raise node.refuse(f"a shape of {here[1:]} cannot become {target[1:]}")
    return [*target[:at], all_ // known, *target[at + 1 :]]


def _flatten(call: Call) -> Tensor:
    x = call.tensor()
    axis = call.attribute("axis", 1)
    if axis % len(x.axes) != 1:
        raise call.node.refuse(f"axis must be 1, got {axis}")
    return x.reshaped(call.node, _without_unknown(call.node, x.shape(), [BATCH, -1]))


def _squeeze(call: Call) -> Tensor:
    x = call.tensor()
    shape = x.shape()
    axes = call.setting("axes", 1)
    if axes is None:
        axes = [i for i, size in enumerate(shape) if size == 1]
    axes = {axis % len(shape) for axis in np.reshape(axes, -1).tolist()}
    if any(shape[axis] != 1 for axis in axes):
        raise call.node.refuse(f"only axes of one element can go, got shape {shape[1:]}")
    return x.reshaped(call.node, [size for i, size in enumerate(shape) if i not in axes])


def _unsqueeze(call: Call) -> Tensor:
    x = call.tensor()
    new = np.reshape(call.setting("axes", 1), -1).tolist()
    shape: list[int | None] = x.shape()
    for axis in sorted(axis % (len(shape) + len(new)) for axis in new):
        shape.insert(axis, 1)
    return x.reshaped(call.node, shape)


def _transpose(call: Call) -> Tensor:
    x = call.tensor()
    order = call.attribute("perm", range(len(x.axes))[::-1])
    return replace(x, axes="".join(x.axes[axis] for axis in order))


def _concat(call: Call) -> Tensor:
    node = call.node
    parts = [call.tensor(i) for i in range(len(node.inputs))]
    if parts[0].axes[call.attribute("axis")] != "c":
        raise node.refuse("its axis must be that of the features")
    joined = parts[0]
    for part in parts[1:]:
        joined = concat(node, joined, part)
    return joined


def _pad(call: Call) -> Tensor:
    node, x = call.node, call.tensor()
    if call.attribute("mode", "constant") != "constant":
        raise node.refuse("its mode must be 'constant'")
    pads = np.reshape(call.setting("pads", 1), -1).astype(int).tolist()
    axes = call.constant(3) if len(call.node.inputs) > 3 else None
    names = x.axes if axes is None else [x.axes[i] for i in np.reshape(axes, -1).tolist()]
    if len(pads) != 2 * len(names) or min(pads, default=0) < 0:
        raise node.refuse(f"its pads must be two integers >= 0 for each axis, got {pads}")
    sides = {name: (pads[i], pads[len(names) + i]) for i, name in enumerate(names)}
    if any(sum(both) and name not in "hwc" for name, both in sides.items()):
        raise node.refuse("only height, width and channels can be padded")
    number = float(np.reshape(call.setting("value", 2, 0.0), -1)[0])
    if not math.isfinite(number):
        raise node.refuse(f"its value must be finite, got {number}")
    x = pad_features(node, x, sides.get("c", (0, 0)), number)
    padding = sides.get("h", (0, 0)), sides.get("w", (0, 0))
    if padding == ((0, 0), (0, 0)):
        return x
    sizes = [
        None if size is None else size + sum(both)
        for size, both in zip(x.sizes, padding, strict=False)
    ]
    return x.add(Pad(str(node), x.features(node), padding, number), sizes=(*sizes, x.sizes[-1]))


def _slice(call: Call) -> Tensor:
    """Every n-th row and column, from the first on: windows of one pixel."""
    node, x = call.node, call.tensor()
    starts, ends = (
        np.reshape(call.setting(what, i), -1) for i, what in ((1, "starts"), (2, "ends"))
    )
    axes = np.reshape(call.setting("axes", 3, range(len(starts))), -1).tolist()
    steps = np.reshape(call.setting("steps", 4, [1] * len(starts)), -1).tolist()
    strides = {"h": 1, "w": 1}
    for axis, start, end, step in zip(axes, starts.tolist(), ends.tolist(), steps, strict=True):
        name, size = x.axes[axis], x.shape()[axis]
        whole = end >= (2**31 - 1 if size is None or size == BATCH else size)
        if start == 0 and whole and (step == 1 or (step > 1 and name in "hw")):
            strides[name] = step
            continue
        raise node.refuse(
            "only every n-th row and column can be taken, from the first on; channels, pixels and "
            "examples cannot be chosen otherwise"
        )
    stride = strides["h"], strides["w"]
    if stride == (1, 1):
        return x
    image = output_size(node, x, (1, 1), stride, ((0, 0), (0, 0)), (1, 1))
    step = Pool(str(node), "max", (1, 1), stride, ((0, 0), (0, 0)))
    return x.add(step, sizes=(*image, x.sizes[-1]))


def _expand(call: Call) -> Tensor:
    """A factor for each channel as an image: a product takes it as it is."""
    node, x = call.node, call.tensor()
    target, here = np.reshape(call.needed(1), -1).tolist(), x.shape()
    if len(target) != len(here) or not all(
        size in (1, own) or axis == "1" or (axis == "n" and size == x.batch)
        for size, own, axis in zip(target, here, x.axes, strict=False)
    ):
        raise node.refuse("only one number for each channel can be repeated, for all pixels")
    return x.repeated(target)


HANDLERS: dict[str, Handler] = {
    "Concat": _concat,
    "Expand": _expand,
    "Flatten": _flatten,
    "Pad": _pad,
    "Reshape": _reshape,
    "Slice": _slice,
    "Squeeze": _squeeze,
    "Transpose": _transpose,
    "Unsqueeze": _unsqueeze,
}
