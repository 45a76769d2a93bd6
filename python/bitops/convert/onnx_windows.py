"""The windows of convolutions and pools of ONNX."""

from __future__ import annotations

from ..ops.geometry import Pair
from .graph import Node
from .onnx_call import Call
from .steps import Sides
from .tensors import Tensor


def check_images(node: Node, x: Tensor) -> None:
    if x.axes != "nchw":
        raise node.refuse(f"its input must be images (n, c, h, w), got axes {x.axes!r}")


def pair_of(call: Call, name: str, default: int = 1) -> Pair:
    values = call.attribute(name) or [default, default]
    if len(values) != 2 or min(values) < 1:
        raise call.node.refuse(f"{name} must be two positive integers, got {values}")
    return values[0], values[1]


def padding_of(call: Call, x: Tensor, kernel: Pair, stride: Pair, dilation: Pair) -> Sides:
    mode = call.attribute("auto_pad", "NOTSET")
    if mode in ("NOTSET", "VALID"):
        pads = list(call.attribute("pads") or [0, 0, 0, 0]) if mode == "NOTSET" else [0, 0, 0, 0]
        if len(pads) != 4 or min(pads) < 0:
            raise call.node.refuse(f"pads must be four integers >= 0, got {pads}")
        return (pads[0], pads[2]), (pads[1], pads[3])
    if mode not in ("SAME_UPPER", "SAME_LOWER"):
        raise call.node.refuse(f"auto_pad {mode!r} is not known")
    sides = []
    for size, k, s, d in zip(x.sizes, kernel, stride, dilation, strict=False):
        if size is None:
            raise call.node.refuse("the size of the image must be known for auto_pad")
        total = max((-(-size // s) - 1) * s + d * (k - 1) + 1 - size, 0)
        less, more = total // 2, total - total // 2
        sides.append((less, more) if mode == "SAME_UPPER" else (more, less))
    return sides[0], sides[1]


def output_size(
    node: Node, x: Tensor, kernel: Pair, stride: Pair, padding: Sides, dilation: Pair
) -> tuple[int | None, int | None]:
    sizes: list[int | None] = []
    for size, k, s, p, d in zip(x.sizes, kernel, stride, padding, dilation, strict=False):
        if size is None:
            sizes.append(None)
            continue
        room = size + sum(p) - d * (k - 1) - 1
        if room < 0:
            raise node.refuse(f"its window is larger than the image, {size} pixels")
        sizes.append(room // s + 1)
    return sizes[0], sizes[1]
