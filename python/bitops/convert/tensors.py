"""What is known of a tensor while a graph is traced: its steps, its sizes, and its layout."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from ..layers.inputs import MAX_FEATURES
from ..ops.geometry import Pair
from .errors import ConversionError
from .graph import BATCH, Node
from .steps import Affine, Conv, Dense, Join, Map, Pad, Pool, Sides, Step
from .traces import Trace, fork

# The axis of comparisons with several thresholds, until they are counted.
COUNTED = "t"
# An axis of one element that was repeated; only a product may follow.
REPEATED = "e"
# Axes of pixels: height, width, or both in one.
PIXELS = "hws"

# Bounds for files that strangers made: numbers of an example in one tensor, steps in the branches
# of one node, and how deep branches lie in branches.
_MOST_VALUES = 2**28
_MOST_STEPS = 20_000
_DEEPEST = 50


@dataclass(frozen=True, eq=False)
class Tensor:
    """A tensor that depends on the input of the network.

    The network that is built has its images as (n, h, w, c) and its rows as (n, c); the graph may
    order axes differently, and add axes of one element.

    Attributes
    ----------
    trace : Trace
    sizes : tuple of int or None
        Those of an example here: (h, w, c) or (c,). None marks an unknown size.
    axes : str
        For each axis of the tensor in the graph what it is here: "n", "h", "w", "c", or "1" for an
        axis of one element that does not exist here. COUNTED stands for one of thresholds, "s" for
        height and width in one, "g" and "k" for groups of channels and the channels of a group,
        until they are shuffled, and REPEATED for a repeated axis of one element.
    order : ndarray of int, optional
        Feature j of the graph is feature order[j] here; None if they are the same.
    batch : int, optional
        The size of the first axis that the graph itself states.
    groups : (int, int), optional
        The sizes of "g" and "k".
    """

    trace: Trace[Step]
    sizes: tuple[int | None, ...]
    axes: str
    order: np.ndarray | None = None
    batch: int | None = None
    groups: Pair | None = None

    @property
    def is_image(self) -> bool:
        return len(self.sizes) == 3

    @property
    def is_sequence(self) -> bool:
        """Whether it is an image of height 1 that has no such axis in the graph."""
        return self.is_image and "h" not in self.axes

    def features(self, node: Node) -> int:
        if self.sizes[-1] is None:
            raise node.refuse("the number of channels must be known")
        return self.sizes[-1]

    def shape(self) -> list[int | None]:
        """Return the shape in the graph, BATCH for the first axis, None for unknown sizes."""
        own: dict[str, int | None] = dict(
            zip("hwc" if self.is_image else "c", self.sizes, strict=True)
        )
        if self.groups is not None:
            own["g"], own["k"] = self.groups
        if "s" in self.axes:
            own["s"] = own["h"] * own["w"]  # type: ignore[operator]
        own |= {"n": BATCH, "1": 1, COUNTED: None, REPEATED: None}
        return [own[axis] for axis in self.axes]

    def repeated(self, sizes: Sequence[int]) -> Tensor:
        """Return the tensor with axes of one element repeated to other sizes, for a product."""
        axes = "".join(
            REPEATED if axis == "1" and size != 1 else axis
            for axis, size in zip(self.axes, sizes, strict=True)
        )
        return replace(self, axes=axes)

    def add(self, step: Step, **changes: object) -> Tensor:
        """Return the tensor behind one more step."""
        y = replace(self, trace=Trace(step, self.trace), **changes)  # type: ignore[arg-type]
        refuse_giants(step.source, y.sizes)
        return y

    def per_feature(self, node: Node, value: np.ndarray) -> np.ndarray:
        """Return what a constant has for each feature here, float64 of shape (features,)."""
        features = self.features(node)
        value = np.asarray(value, np.float64)
        if not np.isfinite(value).all():
            raise node.refuse("all constants must be finite")
        if value.ndim > len(self.axes):
            if value.size > 1:
                raise node.refuse(f"a constant of shape {value.shape} does not fit {self.axes!r}")
            value = value.reshape(())
        shape = (1,) * (len(self.axes) - value.ndim) + value.shape
        value = value.reshape(shape)
        for axis, name in enumerate(self.axes):
            if value.shape[axis] == 1 or name == "c":
                continue
            first = np.take(value, [0], axis)
            if name not in "nhw" or not (value == first).all():
                raise node.refuse(
                    f"a constant may differ by channel, not by pixel or example, got shape {shape}"
                )
            value = first
        try:
            return self.arranged(np.broadcast_to(value.ravel(), (features,)))
        except ValueError:
            raise node.refuse(
                f"a constant of shape {shape} does not fit {features} features"
            ) from None

    def arranged(self, values: np.ndarray) -> np.ndarray:
        """Bring values, one a feature along the first axis, into the order they have here."""
        if self.order is None:
            return np.array(values)
        arranged = np.empty_like(values)
        arranged[self.order] = values
        return arranged

    def affine(self, node: Node, alpha: np.ndarray | float, bias: np.ndarray | float) -> Tensor:
        """Return x * alpha + bias, each a number or one for each feature."""
        ones = np.ones(self.features(node))
        return self.add(Affine(str(node), alpha * ones, bias * ones))

    def reshaped(self, node: Node, shape: Sequence[int | None]) -> Tensor:
        """Return the tensor in another shape of the graph: BATCH first, then sizes."""
        if not shape or shape[0] != BATCH:
            raise node.refuse(f"the first axis must stay that of the examples, got {list(shape)}")
        axes, sizes = self.axes[1:], self.shape()[1:]
        if self.axes[0] != "n":
            raise node.refuse("the first axis must be that of the examples")
        if list(shape[1:]) == sizes:
            return self
        regrouped = self._regrouped(sizes, list(shape[1:]))
        if regrouped is not None:
            return regrouped
        if self.groups is not None or COUNTED in axes:
            raise node.refuse(f"a shape of {sizes} cannot become {list(shape[1:])}")
        left = [(axis, size) for axis, size in zip(axes, sizes, strict=True) if size != 1]
        wanted = [size for size in shape[1:] if size != 1]
        if [size for _, size in left] == wanted and len(left) > 0:
            return self._relabelled(node, shape, left)
        if None in sizes:
            raise node.refuse(f"the size of the image must be known to flatten it, got {sizes}")
        features = math.prod(size for size in sizes if size is not None)
        if features > MAX_FEATURES:
            raise node.refuse(f"at most {MAX_FEATURES} features can be flattened, got {features}")
        if wanted == [features] or (not wanted and features == 1):
            return self._flattened(shape)
        raise node.refuse(f"a shape of {sizes} cannot become {list(shape[1:])}")

    def _relabelled(
        self, node: Node, shape: Sequence[int | None], left: list[tuple[str, int | None]]
    ) -> Tensor:
        """Give names to the axes of a shape that differs only in axes of one element."""
        names = iter(left)
        axes = "n" + "".join("1" if size == 1 else next(names)[0] for size in shape[1:])
        given = axes.replace("s", "hw")
        lost = [axis for axis in ("hwc" if self.is_image else "c") if axis not in given]
        if not lost:
            return replace(self, axes=axes)
        if "c" not in lost:  # an image of one pixel, or of one row
            return self._flattened(shape)
        # an axis of one channel: any axis of one element may stand for it, the second most likely
        if "1" in axes[1:]:
            at = axes.index("1", 1)
            if len(lost) == 1:
                return replace(self, axes=axes[:at] + "c" + axes[at + 1 :])
        return self._flattened(shape)

    def _regrouped(self, sizes: Sequence[int | None], target: list[int | None]) -> Tensor | None:
        """Return channels in groups, the channels of groups in a row, or pixels in a row."""
        axes = self.axes[1:]
        for both in ("hw", "gk", "kg"):
            at = axes.find(both)
            if at < 0:
                continue
            one, two = sizes[at], sizes[at + 1]
            if one is None or two is None or 1 in (one, two):
                continue
            if target != [*sizes[:at], one * two, *sizes[at + 2 :]]:
                continue
            if both == "hw":
                return replace(self, axes="n" + axes.replace("hw", "s"))
            y = replace(self, axes="n" + axes.replace(both, "c"), groups=None)
            return y if both == "gk" else y._shuffled(two, one)
        at = axes.find("c")
        if at >= 0 and self.groups is None and len(target) == len(sizes) + 1:
            groups, channels = target[at : at + 2]
            if target == [*sizes[:at], groups, channels, *sizes[at + 1 :]]:
                if (
                    groups
                    and channels
                    and min(groups, channels) > 1
                    and (groups * channels == sizes[at])
                ):
                    whole = "n" + axes.replace("c", "gk")
                    return replace(self, axes=whole, groups=(groups, channels))
        return None

    def _shuffled(self, groups: int, channels: int) -> Tensor:
        """Return the first channels of all groups, then the second ones, and so on."""
        places = np.arange(groups * channels).reshape(groups, channels).T.ravel()
        order = places if self.order is None else self.order[places]
        is_same = bool((order == np.arange(order.size)).all())
        return replace(self, order=None if is_same else order)

    def _flattened(self, shape: Sequence[int | None]) -> Tensor:
        """Return the features of an example in one row."""
        sizes = [size for size in self.sizes if size is not None]
        features = math.prod(sizes)
        axes = "n" + "".join("1" if size == 1 else "c" for size in shape[1:])
        if "c" not in axes:
            axes = "nc" + axes[2:]
        if not self.is_image:
            return replace(self, axes=axes)
        names = [axis for axis in self.axes[1:].replace("s", "hw") if axis != "1"]
        names += [axis for axis in "hwc" if axis not in names]  # of one element each
        places = np.arange(features).reshape(sizes)
        if self.order is not None:
            places = places[..., self.order]
        order = places.transpose(["hwc".index(axis) for axis in names]).ravel()
        is_same = bool((order == np.arange(features)).all())
        step = Map("Flatten", "flatten", (features, sizes[-1]))
        return self.add(step, sizes=(features,), axes=axes, order=None if is_same else order)


def _of_one_kind(node: Node, one: Tensor, two: Tensor) -> tuple[Tensor, Tensor]:
    """Make a row of an image of one pixel if the other tensor is a row."""
    if one.is_image == two.is_image or one.shape() != two.shape():
        return one, two

    def row(x: Tensor) -> Tensor:
        if not x.is_image:
            return x
        axes, channels = x.axes.replace("h", "1").replace("w", "1"), x.sizes[-1]
        return x.add(Map(str(node), "flatten", (channels, channels)), sizes=(channels,), axes=axes)

    return row(one), row(two)


def add(node: Node, one: Tensor, two: Tensor) -> Tensor:
    """Return the sum of two tensors."""
    one, two = _of_one_kind(node, one, two)
    if one.shape() != two.shape() or one.axes != two.axes:
        raise node.refuse(f"the operands must have one shape, got {one.shape()} and {two.shape()}")
    if not _same_order(one, two):
        one, two = _in_one_order(node, one, two)
    start, body, shortcut = _parting(one, two)
    if not body:
        body, shortcut = shortcut, body
    if not body:
        return one.affine(node, 2.0, 0.0)
    return replace(one, trace=_join(node, "add", start, body, shortcut))


def _in_one_order(node: Node, one: Tensor, two: Tensor) -> tuple[Tensor, Tensor]:
    """Bring the features of a tensor into the order of another one."""
    first: Tensor | None = one
    second: Tensor | None = two
    if one.order is not None and two.order is None:
        second = _reordered(two, one.order)
    elif two.order is not None and one.order is None:
        first = _reordered(one, two.order)
    if first is None or second is None or not _same_order(first, second):
        raise node.refuse("the features of the operands have different orders")
    return first, second


def _reordered(x: Tensor, order: np.ndarray) -> Tensor | None:
    """Return a tensor with its features in an order, if the product that made them can do it."""
    target = replace(x, order=order)
    behind: list[Step] = []
    trace: Trace[Step] | None = x.trace
    while trace is not None and trace.step is not None:
        step = _with_features(trace.step, target)
        if step is None:
            return None
        if isinstance(step, Conv | Dense):
            made = Trace(step, trace.before)
            for later in reversed(behind):
                made = Trace(later, made)
            return replace(target, trace=made)
        behind.append(step)
        trace = trace.before
    return None


def _with_features(step: Step, target: Tensor) -> Step | None:
    """Return a step that gives its features in the order of a tensor; None if that is unknown."""
    match step:
        case Affine():
            return replace(step, alpha=target.arranged(step.alpha), bias=target.arranged(step.bias))
        case Dense() | Conv(groups=1):
            return replace(step, w=target.arranged(step.w))
        case Map(kind="prelu"):
            return replace(step, settings=target.arranged(step.settings))
        case Map(kind="relu" | "tanh" | "clip") | Pool() | Pad():
            return step
    return None


def concat(node: Node, one: Tensor, two: Tensor) -> Tensor:
    """Return two tensors side by side along the features."""
    one, two = _of_one_kind(node, one, two)
    if one.sizes[:-1] != two.sizes[:-1] or one.axes != two.axes:
        raise node.refuse(f"the operands must have one size, got {one.shape()} and {two.shape()}")
    first, second = one.features(node), two.features(node)
    places = [
        np.arange(size) if x.order is None else x.order for x, size in ((one, first), (two, second))
    ]
    start, body, shortcut = _parting(one, two)
    if body:
        order = np.concatenate([places[0], first + places[1]])
    elif shortcut:  # the branch with layers comes first here
        body, shortcut = shortcut, body
        order = np.concatenate([second + places[0], places[1]])
    else:  # the same twice
        body, order = (_unchanged(node),), np.concatenate([places[0], first + places[1]])
    features = first + second
    is_same = bool((order == np.arange(features)).all())
    return replace(
        one,
        trace=_join(node, "concat", start, body, shortcut),
        sizes=(*one.sizes[:-1], features),
        order=None if is_same else order,
    )


def multiply(node: Node, one: Tensor, two: Tensor) -> Tensor:
    """Return the product of two tensors, of which one may have a factor for each channel."""
    if one.is_image < two.is_image:
        one, two = two, one
    if one.is_image:  # a factor need not be repeated
        two = replace(two, axes=two.axes.replace(REPEATED, "1"))
    if one.is_image and not two.is_image:
        one_pixel = "".join("1" if axis in "hw" else axis for axis in one.axes)
        fits = two.axes == one_pixel and one.sizes[-1] == two.sizes[-1]
    else:
        fits = one.shape() == two.shape() and one.axes == two.axes
    if not fits or not _same_order(one, two):
        raise node.refuse(
            f"the factors must have one shape, or one be a number for each channel, "
            f"got {one.shape()} and {two.shape()}"
        )
    start, body, shortcut = _parting(one, two)
    body = body or (_unchanged(node),)
    return replace(one, trace=_join(node, "multiply", start, body, shortcut))


def pad_features(node: Node, x: Tensor, sides: tuple[int, int], value: float) -> Tensor:
    """Return a tensor with so many zeros before and behind its features."""
    before, after = sides
    if before == after == 0:
        return x
    if value or x.order is not None:
        raise node.refuse("features can be padded only by 0, and in the order of the image")
    features = x.features(node)
    step = Map(str(node), "pad_features", (features, before, after))
    return x.add(step, sizes=(*x.sizes[:-1], before + features + after))


def _unchanged(node: Node) -> Step:
    """Return a step that lets everything pass, since the body of a block wants one."""
    return Map(str(node), "clip", (-math.inf, math.inf))


def _parting(one: Tensor, two: Tensor) -> tuple[Trace[Step], tuple[Step, ...], tuple[Step, ...]]:
    parting = fork(one.trace, two.trace)
    assert parting is not None  # both come from the one input
    return parting


def _join(
    node: Node, kind: str, start: Trace[Step], body: tuple[Step, ...], shortcut: tuple[Step, ...]
) -> Trace[Step]:
    step = Join(str(node), kind, body, shortcut)
    if step.size > _MOST_STEPS or step.depth > _DEEPEST:
        raise node.refuse("its branches have too many steps, or lie too deep in each other")
    return Trace(step, start)


def _same_order(one: Tensor, two: Tensor) -> bool:
    if one.order is None or two.order is None:
        return one.order is two.order
    return bool((one.order == two.order).all())


def refuse_giants(source: str, sizes: Sequence[int | None]) -> None:
    """Refuse a tensor that has far more numbers than any network needs."""
    if math.prod(size for size in sizes if size is not None) > _MOST_VALUES:
        raise ConversionError(f"[convert] {source}: a tensor of shape {tuple(sizes)} is too large")


def same_padding(node: Node, x: Tensor, kernel: Pair, stride: Pair, dilation: Pair) -> Sides:
    """Return the padding that gives an output for each stride, the odd pixel behind."""
    sides = []
    for size, k, s, d in zip(x.sizes, kernel, stride, dilation, strict=False):
        if size is None:
            raise node.refuse("the size of the image must be known for its padding")
        total = max((-(-size // s) - 1) * s + d * (k - 1) + 1 - size, 0)
        sides.append((total // 2, total - total // 2))
    return sides[0], sides[1]


def output_size(
    node: Node, x: Tensor, kernel: Pair, stride: Pair, padding: Sides, dilation: Pair
) -> tuple[int | None, int | None]:
    """Return height and width of what windows give."""
    sizes: list[int | None] = []
    padded: list[int | None] = []
    for size, k, s, p, d in zip(x.sizes, kernel, stride, padding, dilation, strict=False):
        if size is None:
            sizes.append(None)
            continue
        padded.append(size + sum(p))
        room = size + sum(p) - d * (k - 1) - 1
        if room < 0:
            raise node.refuse(f"its window is larger than the image, {size} pixels")
        sizes.append(room // s + 1)
    refuse_giants(str(node), (*padded, x.sizes[-1]))
    return sizes[0], sizes[1]
