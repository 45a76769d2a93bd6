"""The windows of convolutions and pools of ONNX."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from ..ops.geometry import Pair
from .calls import Call, Handler
from .graph import Node
from .steps import Sides
from .tensors import Tensor, same_padding


def check_images(node: Node, x: Tensor) -> None:
    """Refuse what are no images NCHW."""
    if x.axes != "nchw":
        raise node.refuse(f"its input must be images (n, c, h, w), got axes {x.axes!r}")


def also_of_sequences(handler: Handler) -> Handler:
    """Let a handler of images take sequences (n, c, w), which are images of height 1 here."""

    def handle(call: Call) -> Tensor:
        x = call.tensor()
        if x.axes != "ncw":
            return handler(call)
        y = handler(_as_of_images(call, x))
        return replace(y, axes=y.axes.replace("nchw", "ncw").replace("nc11", "nc1"))

    return handle


def _as_of_images(call: Call, x: Tensor) -> Call:
    """Return the call with images as its input, and an axis more in windows and weights."""
    attributes: dict[str, Any] = dict(call.node.attributes)
    for name in ("dilations", "kernel_shape", "strides"):
        if name in attributes:
            attributes[name] = [1, *attributes[name]]
    if "pads" in attributes:
        before, after = attributes["pads"]
        attributes["pads"] = [0, before, 0, after]
    node = replace(call.node, attributes=attributes)
    constants = dict(call.constants)
    for name in node.inputs[1:2]:
        if name in constants and constants[name].ndim == 3:
            constants[name] = constants[name][:, :, None]
    return replace(call.on(replace(x, axes="nchw")), node=node, constants=constants)


def pair_of(call: Call, name: str, default: int = 1) -> Pair:
    """Return an attribute of two positive integers."""
    values = call.attribute(name) or [default, default]
    if len(values) != 2 or min(values) < 1:
        raise call.node.refuse(f"{name} must be two positive integers, got {values}")
    return values[0], values[1]


def padding_of(call: Call, x: Tensor, kernel: Pair, stride: Pair, dilation: Pair) -> Sides:
    """Return what lies around the image on each side, stated or by `auto_pad`."""
    mode = call.attribute("auto_pad", "NOTSET")
    if mode in ("NOTSET", "VALID"):
        pads = list(call.attribute("pads") or [0, 0, 0, 0]) if mode == "NOTSET" else [0, 0, 0, 0]
        if len(pads) != 4 or min(pads) < 0:
            raise call.node.refuse(f"pads must be four integers >= 0, got {pads}")
        return (pads[0], pads[2]), (pads[1], pads[3])
    if mode not in ("SAME_UPPER", "SAME_LOWER"):
        raise call.node.refuse(f"auto_pad {mode!r} is not known")
    upper = same_padding(call.node, x, kernel, stride, dilation)
    if mode == "SAME_UPPER":
        return upper
    return tuple((more, less) for less, more in upper)  # type: ignore[return-value]
