"""The windows of convolutions and pools of ONNX."""

from __future__ import annotations

from ..ops.geometry import Pair
from .calls import Call
from .graph import Node
from .steps import Sides
from .tensors import Tensor, same_padding


def check_images(node: Node, x: Tensor) -> None:
    """Refuse what are no images NCHW."""
    if x.axes != "nchw":
        raise node.refuse(f"its input must be images (n, c, h, w), got axes {x.axes!r}")


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
