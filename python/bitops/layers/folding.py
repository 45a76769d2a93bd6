"""From a trained chain of layers to packed ones that compute the same bits.

A chain is cut into groups, each of which is folded by itself:

    head    steps             end         becomes
    ----    -----             ---         -------
    BinaryConv2D
            BatchNorm ReLU    Sign        PackedConv2D with a threshold a channel
    BinaryDense
            BatchNorm                     PackedDense with alpha and bias
    Dense                                 FloatDense
            BatchNorm         Sign        PackedSign with a threshold a feature

What a layer is in a group it says itself, by its `role`; see `bitops.layers.roles`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from .activations import PackedLevels, PackedSign
from .base import Layer, TrainingLayer, place_in_mro
from .inputs import Codes, as_float
from .planes import scaled
from .roles import (
    BITS,
    NUMBERS,
    Flow,
    HasLevels,
    PackableAffine,
    PackableBlock,
    PackablePool,
    PackableProduct,
    Role,
)

if TYPE_CHECKING:
    from .container import Packed, Sequential

_LARGEST_FLOAT_KEY = 0x7F7FFFFF

_STEPS = (Role.STEP, Role.AFFINE, Role.POOL)
_ENDS = (Role.SIGN, Role.LEVELS)

Expression = Callable[[np.ndarray], np.ndarray]


def freeze(model: Sequential) -> Packed:
    """Pack a training graph for inference.

    Parameters
    ----------
    model : Sequential
        Nested sequences included.

    Returns
    -------
    Packed
        A model of its own: later changes of `model` do not reach it. For the same input its output
        equals that of `model` in evaluation, bit for bit; a product at the end that is an integer
        of at most 2^24 comes as int32.

    Raises
    ------
    TypeError
        If a layer has no packed form of its own, because its class does not define `to_packed`, or
        overrides the `forward` of the class that does.
    ValueError
        If a parameter or a running statistic is NaN or infinite.

    Notes
    -----
    A product (BinaryDense, BinaryConv2D and their kin with quantized weights) followed by any of
    BatchNorm, MaxPool2D and ReLU and ended by Sign becomes a packed product with a threshold a
    channel (see `fold`), then pools of bits. Layers that receive bits get integer thresholds. Those
    that receive the model's input get float32 ones, which decide every real number and every
    integer as the training graph does.

    Each of these steps keeps or reverses the order of values in a channel, so that pools can change
    places with the sign. Let g be the steps before a pool, and b the bit of a product z:

        training    z -> g -> largest of the window -> ... -> Sign -> b
        packed      z -> (z > threshold) ^ flip -> OR or AND of the window -> b

                                flip is False           flip is True
                                (b grows with z)        (b falls with z)
        g rises: b of the       OR: one z above the     AND: one z above the
        largest z               threshold is enough     threshold is too many
        g falls: b of the       AND: all z must be      OR: one z not above
        smallest z              above the threshold     is enough

    A Quantize of one bit ends a product like a Sign; its bits stand for 0 and 1, which the next
    product is told. One of more bits stays a layer of its own, whose codes the next product takes
    as bit planes. Where codes meet anything but products, max-pools and Flatten, PackedLevels turns
    them into numbers.

    A BinaryConv2D that scales its input stays in float32, since each position has a scale of its
    own; what follows up to the Sign becomes float32 thresholds. Without a Sign at the end, numbers
    flow: the first BatchNorm behind a product becomes its alpha and bias. All other layers stand
    alone. Dropout and QuantizeGradient vanish.
    """
    return model.to_packed()


def fold_chain(layers: Sequence[Layer], flow: Flow = NUMBERS) -> tuple[list[Layer], Flow]:
    """Packed layers for a chain of training layers without inner chains, and what they end in."""
    packed: list[Layer] = []
    for group in _groups([_checked(layer) for layer in layers]):
        made, flow = group.pack(flow)
        packed += made
    return packed, flow


def to_numbers(flow: Flow) -> list[Layer]:
    """The layers that turn codes into numbers."""
    return [] if flow.code_bits is None else [PackedLevels(flow.step)]


def _checked(layer: Layer) -> TrainingLayer:
    """A layer that may be packed: it has a packed form of its own, and its arrays are finite."""
    if not isinstance(layer, TrainingLayer):
        raise TypeError(f"[freeze] layers must be training layers, got {layer!r}")
    check_packed_form(layer)
    for array in _arrays(layer.state()):
        if not np.isfinite(array).all():
            raise ValueError(f"[freeze] all values of a layer must be finite, got {layer!r}")
    return layer


def check_packed_form(layer: TrainingLayer) -> None:
    """Refuse a layer whose packed form belongs to another `forward` than its own."""
    kinds = type(layer).__mro__
    forward, packed, role = (
        place_in_mro(type(layer), name) for name in ("forward", "to_packed", "role")
    )
    if kinds[packed] is TrainingLayer:
        raise TypeError(
            f"[freeze] no packed form is known for {layer.name}, which must define to_packed, "
            f"got {layer!r}"
        )
    places = {"to_packed": packed, "role": forward if layer.role is Role.ALONE else role}
    missing = [name for name, at in places.items() if at > forward]
    if missing:
        own, other = kinds[forward].__name__, kinds[places[missing[0]]].__name__
        raise TypeError(
            f"[freeze] {own} overrides forward, so that the packed form of {other} is not its own; "
            f"it must define {' and '.join(missing)}, got {layer!r}"
        )


def _arrays(state: Any) -> Iterator[np.ndarray]:
    """The arrays in the lists of lists that `state()` gives."""
    for part in state:
        if isinstance(part, list):
            yield from _arrays(part)
        else:
            yield part


def _groups(layers: Sequence[TrainingLayer]) -> list[_Group]:
    """Cut the chain before every head and behind every end."""
    groups = [_Group()]
    for layer in layers:
        role = layer.role
        if role is Role.NOTHING:
            continue
        if role not in _STEPS + _ENDS:
            groups.append(_Group(layer))
            continue
        if groups[-1].end is not None:
            groups.append(_Group())
        if role in _ENDS:
            groups[-1].end = layer
        else:
            groups[-1].steps.append(layer)
    return [group for group in groups if group.head or group.steps or group.end]


@dataclass
class _Group:
    """At most one layer that is no step, the steps behind it, and the one that ends in levels."""

    head: TrainingLayer | None = None
    steps: list[TrainingLayer] = field(default_factory=list)
    end: TrainingLayer | None = None

    def pack(self, flow: Flow) -> tuple[list[Layer], Flow]:
        if self.head is not None and self.head.role is Role.PRODUCT:
            return self._pack_product(cast(PackableProduct, self.head), flow)
        packed, flow = _pack_head(self.head, flow)
        steps = list(self.steps)
        while steps and steps[0].role is Role.POOL:  # of whatever flows
            packed.append(_twin(steps.pop(0)))
        if not steps and self.end is None:
            return packed, flow
        made, after = _pack_steps(steps, self.end)
        return [*packed, *to_numbers(flow), *made], after

    def _pack_product(self, product: PackableProduct, flow: Flow) -> tuple[list[Layer], Flow]:
        planes = product.planes()
        scale, bias = planes.scale(flow.step), product.bias_value
        if self.end is not None and _is_binary(self.end):
            filters = product.weight.shape[0]
            k = None
            if flow.largest is not None:
                k = product.weight.size // filters * flow.largest * sum(planes.coefficients)

            def expression(z: np.ndarray) -> np.ndarray:
                return scaled(z, scale, bias)

            threshold, flip = fold(_chained(expression, self.steps, self.end), filters, k)
            pools = _pack_pools(expression, self.steps, flip, filters, k)
            packed = product.to_packed(flow, threshold=threshold, flip=flip)
            return [packed, *pools], _flow_of(self.end)
        steps, outputs = list(self.steps), {}
        if scale is None and bias is None and steps and steps[0].role is Role.AFFINE:
            outputs = dict(zip(("alpha", "bias"), _affine(steps.pop(0)), strict=True))
        layers = [product.to_packed(flow, **outputs), *(_twin(step) for step in steps)]
        if self.end is None:
            return layers, NUMBERS
        return [*layers, _twin(self.end)], _flow_of(self.end)


def _pack_head(head: TrainingLayer | None, flow: Flow) -> tuple[list[Layer], Flow]:
    """The twin of a layer that folds with nothing, and what it ends in."""
    if head is None:
        return [], flow
    if head.role is Role.MOVES:
        return [_twin(head)], flow
    if head.role is Role.BLOCK:
        return [cast(PackableBlock, head).to_packed(flow)], NUMBERS
    return [*to_numbers(flow), _twin(head)], NUMBERS


def _pack_steps(
    steps: Sequence[TrainingLayer], end: TrainingLayer | None
) -> tuple[list[Layer], Flow]:
    """Layers for steps on numbers that no product folds with; the first of them is no pool."""
    if end is None:
        return [_twin(step) for step in steps], NUMBERS
    features = next((layer.in_features for layer in (*steps, end) if layer.in_features), None)
    if not steps or features is None or not _is_binary(end):
        return [_twin(layer) for layer in (*steps, end)], _flow_of(end)
    threshold, flip = fold(_chained(_identity, steps, end), features)
    pools = _pack_pools(_identity, steps, flip, features, None)
    return [PackedSign(threshold, flip), *pools], _flow_of(end)


def _twin(layer: TrainingLayer) -> Layer:
    """The packed layer that a layer gives."""
    packed = layer.to_packed()
    if not isinstance(packed, Layer) or isinstance(packed, TrainingLayer):
        raise TypeError(f"[freeze] to_packed must give a packed layer, got {packed!r} of {layer!r}")
    return packed


def _affine(layer: TrainingLayer) -> tuple[np.ndarray, np.ndarray]:
    return cast(PackableAffine, layer).affine()


def _levels(end: TrainingLayer) -> HasLevels:
    return cast(Any, end).levels


def _is_binary(end: TrainingLayer) -> bool:
    """Whether thresholds decide what a layer makes."""
    return end.role is Role.SIGN or _levels(end).bits == 1


def _flow_of(end: TrainingLayer) -> Flow:
    if end.role is Role.SIGN:
        return BITS
    return Flow(code_bits=_levels(end).bits, step=_levels(end).step)


def _identity(z: np.ndarray) -> np.ndarray:
    return z


def _chained(
    expression: Expression, steps: Sequence[TrainingLayer], end: TrainingLayer | None = None
) -> Expression:
    """What the evaluation graph makes of products, by the layers' own code; pools are left out.

    With an `end` it is positive or zero where that gives +1, or the code 1.
    """
    layers = [step for step in steps if step.role is not Role.POOL]

    def chained(z: np.ndarray) -> np.ndarray:
        z = expression(z)
        for layer in layers:
            z = as_float(layer.forward(z))
        return z if end is None else _decided(end, z)

    return chained


def _decided(end: TrainingLayer, z: np.ndarray) -> np.ndarray:
    """What a layer of two levels makes of numbers, above or below 0; NaN stays, as `fold` wants."""
    missing = np.isnan(z)
    made = end.forward(np.where(missing, np.float32(0), z))
    decided = made.numbers - np.float32(0.5) if isinstance(made, Codes) else as_float(made)
    return np.where(missing, np.float32(np.nan), decided)


def _pack_pools(
    expression: Expression,
    steps: Sequence[TrainingLayer],
    flip: np.ndarray,
    features: int,
    k: int | None,
) -> list[Layer]:
    """Pools of the bits of products, for those of the numbers that an expression makes of them."""
    pools: list[Layer] = []
    for i, step in enumerate(steps):
        if step.role is Role.POOL:
            minimum = flip ^ _falls(_chained(expression, steps[:i]), features, k)
            pools.append(cast(PackablePool, step).to_packed(minimum=minimum))
    return pools


def _falls(expression: Expression, features: int, k: int | None) -> np.ndarray:
    """Which channels of a monotone expression fall."""
    largest = np.float32(k) if k is not None else np.finfo(np.float32).max
    ends = np.array([[-largest], [largest]], np.float32).repeat(features, axis=1)
    with np.errstate(over="ignore", invalid="ignore"):
        first, last = expression(ends)
    return first > last  # NaN, like equal ends, marks a constant, for which both pools do


def fold(
    expression: Expression, features: int, k: int | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Thresholds and flips that decide as the sign of a float32 expression does.

    Parameters
    ----------
    expression : callable
        Maps float32 products of shape (1, features) to float32 values of that shape; in every
        channel monotone, rising or falling.
    features : int
    k : int, optional
        The products are integers in -k..k and the thresholds int32. Without it they are any float32
        numbers and the thresholds float32.

    Returns
    -------
    threshold : ndarray of shape (features,), int32 or float32
    flip : ndarray of shape (features,), bool
        (z > threshold) ^ flip equals expression(z) >= 0 for every product z.

    Raises
    ------
    ValueError
        If the expression is NaN for the product 0.

    Notes
    -----
    Solving gamma * (z - mean) * inv_std + beta >= 0 for z would round differently from the
    expression and misplace thresholds now and then. So the expression itself is bisected, in all
    channels at once, over the ordered set of what z can be: rounding keeps a monotone function
    monotone, hence each channel changes sign at most once. A channel that falls (gamma < 0) starts
    with bit 1, which `flip` restores; one that never changes (gamma = 0, or a threshold beyond
    +-k) gets the largest product as its threshold, which no product exceeds.
    """
    value = _integer_to_float if k is not None else _key_to_float
    last = k if k is not None else _LARGEST_FLOAT_KEY

    def is_positive(keys: np.ndarray) -> np.ndarray:
        # Products near the end of float32 may overflow to infinity, which keeps their sign. If a
        # gamma of 0 makes that NaN, the channel is constant: any other product speaks for it.
        with np.errstate(over="ignore", invalid="ignore"):
            y = expression(value(keys)[np.newaxis])[0]
        return np.where(np.isnan(y), at_zero, y) >= 0

    at_zero = expression(np.zeros((1, features), dtype=np.float32))[0]
    if np.isnan(at_zero).any():
        raise ValueError("[fold] the expression must be a number for the product 0, got nan")

    low = np.full(features, -last, dtype=np.int64)
    high = np.full(features, last, dtype=np.int64)
    flip = is_positive(low)
    constant = flip == is_positive(high)
    while (high - low > 1).any():
        middle = (low + high) // 2
        changed = is_positive(middle) != flip
        high = np.where(changed, middle, high)
        low = np.where(changed, low, middle)
    threshold = np.where(constant, last, low)
    return (threshold.astype(np.int32) if k is not None else value(threshold)), flip


def _integer_to_float(keys: np.ndarray) -> np.ndarray:
    return keys.astype(np.float32)


def _key_to_float(keys: np.ndarray) -> np.ndarray:
    """Enumerate the finite float32 numbers in order: key 0 is 0.0, key 1 the smallest positive."""
    magnitude = np.abs(keys).astype(np.uint32).view(np.float32)
    return np.where(keys < 0, -magnitude, magnitude)
