"""Turns a trained chain of layers into packed layers that compute the same bits.

The chain is cut into groups: at most one head, the steps after it, and at most one end. Each group
is folded by itself. An example:

    chain           head            steps           end         packed layers
    -----           ----            -----           ---         -------------
    BinaryConv2D    BinaryConv2D                                PackedConv2D, with one
    BatchNorm                       BatchNorm                   threshold a channel
    Sign                                            Sign
                    ------------------------------------
    Flatten         Flatten                                     PackedFlatten
                    ------------------------------------
    Dense           Dense                                       FloatDense
    BatchNorm                       BatchNorm                   PackedSign, with one
    Sign                                            Sign        threshold a feature
                    ------------------------------------
    BinaryDense     BinaryDense                                 PackedDense, with
    BatchNorm                       BatchNorm                   alpha and bias

Each layer states by its `role` which of these parts it plays; see `bitops.layers.roles`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from ..ops.checks import check_integer
from .activations import PackedLevels, PackedSign
from .axes import AsImages, AsSequences
from .base import Layer, TrainingLayer, place_in_mro
from .inputs import Codes, as_float, check_size
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
_LARGEST_SUM = 2**31 - 1

_STEPS = (Role.STEP, Role.AFFINE, Role.POOL)
_ENDS = (Role.SIGN, Role.LEVELS)

Expression = Callable[[np.ndarray], np.ndarray]


def freeze(model: Sequential) -> Packed:
    """Pack a training graph for inference.

    Parameters
    ----------
    model : Sequential
        It may contain further sequences.

    Returns
    -------
    Packed
        An independent model, which later changes of `model` do not affect. Its output equals that
        of `model` in evaluation, bit for bit. If the last layer is a product whose sums are
        integers up to 2^24, they are returned as int32.

    Raises
    ------
    TypeError
        If the class of a layer does not define `to_packed`, or overrides `forward` but inherits
        `to_packed`.
    ValueError
        If a parameter or a running statistic is NaN or infinite.

    Notes
    -----
    Take a product (BinaryDense, BinaryConv2D, QuantizedDense or QuantizedConv2D), then any number
    of BatchNorm, MaxPool2D and ReLU, then Sign. These layers become a packed product with one
    threshold a channel (see `fold`), followed by pools of bits. If the product takes bits or codes,
    the thresholds are integers. If it takes numbers, such as the model's input, they are float32
    and decide every real number and every integer as the training graph does.

    Pools can change places with the sign because every step is monotone in each channel. Let g be
    the steps before a pool, and b the bit of a product z::

        training    z -> g -> largest of the window -> ... -> Sign -> b
        packed      z -> (z > threshold) ^ flip -> OR or AND of the window -> b

                                flip is False           flip is True
                                (b rises with z)        (b falls with z)
        g rises: b of the       OR: b = 1 if any z      AND: b = 0 if any z
        largest z               is above                is above
        g falls: b of the       AND: b = 1 only if      OR: b = 1 if any z
        smallest z              all z are above         is not above

    ("Above" means above the threshold.)

    A Quantize of one bit takes the place of Sign. Its bits stand for 0 and 1, and the next product
    is packed accordingly. A Quantize of more bits becomes a PackedQuantize, and the next product
    takes its codes as bit planes. Products, max-pools and Flatten accept codes; before any other
    layer, PackedLevels turns them into numbers.

    The products of a BinaryConv2D with scale_input have a scale for each position and stay float32.
    The steps after it, up to the Sign, become float32 thresholds. If no Sign follows a
    product without scale and bias, a BatchNorm right after it becomes its alpha and bias. All other
    layers are packed one by one. Dropout and QuantizeGradient are left out. A Sign right behind a
    Flatten is taken before it, and folds as above. So are steps and a Sign right behind
    AsSequences, which is left out if AsImages follows.

    Examples
    --------
    >>> from bitops.layers import BatchNorm, BinaryDense, Sequential, Sign
    >>> model = Sequential(BinaryDense(64, 10, seed=0), BatchNorm(10), Sign())
    >>> freeze(model).layers
    [PackedDense(64, 10, threshold)]
    """
    if not isinstance(model, TrainingLayer):
        raise TypeError(f"[freeze] model must be a training graph, got {model!r:.80}")
    return model.to_packed()


def fold_chain(layers: Sequence[Layer], flow: Flow = NUMBERS) -> tuple[list[Layer], Flow]:
    """Pack a chain of training layers, and return the packed layers and what flows out of them."""
    packed: list[Layer] = []
    for group in _groups(_reordered([_check_layer(layer) for layer in layers])):
        made, flow = group.pack(flow)
        packed += made
    return packed, flow


def to_numbers(flow: Flow) -> list[Layer]:
    """Return the layers that turn what flows into numbers: PackedLevels for codes, or none."""
    return [] if flow.code_bits is None else [PackedLevels(flow.step)]


def _check_layer(layer: Layer) -> TrainingLayer:
    """Check that a layer has its own packed form and that its values are finite; return it."""
    if not isinstance(layer, TrainingLayer):
        raise TypeError(f"[freeze] layers must be training layers, got {layer!r}")
    check_packed_form(layer)
    for array in _arrays(layer.state()):
        if not np.isfinite(array).all():
            raise ValueError(f"[freeze] all values of a layer must be finite, got {layer!r}")
    return layer


def check_packed_form(layer: TrainingLayer) -> None:
    """Refuse a layer whose `to_packed` is missing or was written for another `forward`."""
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
    """Yield the arrays in the nested lists that `state()` returns."""
    for part in state:
        if isinstance(part, list):
            yield from _arrays(part)
        else:
            yield part


def _reordered(layers: Sequence[TrainingLayer]) -> list[TrainingLayer]:
    """Take layers before others that only move values, so that they fold into what comes before.

    A sign is taken before a Flatten. Steps and signs are taken before layers that make sequences of
    images of height 1, or back, and two of these that undo each other are left out.
    """
    ordered: list[TrainingLayer] = []
    for layer in layers:
        if ordered and {type(ordered[-1]), type(layer)} == {AsImages, AsSequences}:
            ordered.pop()
            continue
        place = len(ordered)
        while place and _may_precede(layer, ordered[place - 1]):
            place -= 1
        ordered.insert(place, layer)
    return ordered


def _may_precede(layer: TrainingLayer, before: TrainingLayer) -> bool:
    """Return whether a layer gives the same if it is taken before the one that precedes it."""
    if isinstance(before, AsImages | AsSequences):
        return layer.role in (Role.STEP, Role.AFFINE, *_ENDS, Role.NOTHING)
    is_free = layer.role in _ENDS and layer.in_features is None  # the same for all features
    return is_free and before.role is Role.MOVES and before.mixes_axes


def _groups(layers: Sequence[TrainingLayer]) -> list[_Group]:
    """Cut the chain before every head and after every end."""
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
    """A part of the chain that is folded at once: a head, the steps after it, and an end.

    Each may be missing. The end turns numbers into bits or codes.
    """

    head: TrainingLayer | None = None
    steps: list[TrainingLayer] = field(default_factory=list)
    end: TrainingLayer | None = None

    def pack(self, flow: Flow) -> tuple[list[Layer], Flow]:
        """Pack the group for what flows in; return the layers and what flows out."""
        if self.head is not None and self.head.role is Role.PRODUCT:
            return self._pack_product(cast(PackableProduct, self.head), flow)
        packed, flow = _pack_head(self.head, flow)
        steps = list(self.steps)
        while steps and steps[0].role is Role.POOL:  # pools bits, codes and numbers alike
            packed.append(_twin(steps.pop(0)))
        if not steps and self.end is None:
            return packed, flow
        made, after = _pack_steps(steps, self.end)
        return [*packed, *to_numbers(flow), *made], after

    def _pack_product(self, product: PackableProduct, flow: Flow) -> tuple[list[Layer], Flow]:
        if self.end is not None and _is_binary(self.end):
            return self._fold_product(product, self.end, flow), _flow_of(self.end)
        scale, bias = product.planes().scale(flow.step), product.bias_value
        steps, outputs = list(self.steps), {}
        if scale is None and bias is None and steps and steps[0].role is Role.AFFINE:
            outputs = dict(zip(("alpha", "bias"), _affine(steps.pop(0)), strict=True))
        layers = [product.to_packed(flow, **outputs), *(_twin(step) for step in steps)]
        if self.end is None:
            return layers, NUMBERS
        return [*layers, _twin(self.end)], _flow_of(self.end)

    def _fold_product(
        self, product: PackableProduct, end: TrainingLayer, flow: Flow
    ) -> list[Layer]:
        """Fold scale, bias, steps and end into thresholds; return the product and its pools."""
        planes, bias = product.planes(), product.bias_value
        scale = planes.scale(flow.step)
        filters = product.weight.shape[0]
        k = None
        if flow.largest is not None:
            k = product.weight.size // filters * flow.largest * sum(planes.coefficients)

        def expression(z: np.ndarray) -> np.ndarray:
            return scaled(z, scale, bias)

        threshold, flip = fold(_chained(expression, self.steps, end), filters, k)
        pools = _pack_pools(expression, self.steps, flip, filters, k)
        return [product.to_packed(flow, threshold=threshold, flip=flip), *pools]


def _pack_head(head: TrainingLayer | None, flow: Flow) -> tuple[list[Layer], Flow]:
    """Pack a head other than a product; return the layers and what flows out."""
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
    """Pack steps on numbers that follow no product; the first of them is not a pool."""
    if end is None:
        return [_twin(step) for step in steps], NUMBERS
    features = next((layer.in_features for layer in (*steps, end) if layer.in_features), None)
    if not steps or features is None or not _is_binary(end):
        return [_twin(layer) for layer in (*steps, end)], _flow_of(end)
    threshold, flip = fold(_chained(_identity, steps, end), features)
    pools = _pack_pools(_identity, steps, flip, features, None)
    return [PackedSign(threshold, flip), *pools], _flow_of(end)


def _twin(layer: TrainingLayer) -> Layer:
    """Return the packed twin of a layer, checked."""
    packed = layer.to_packed()
    if not isinstance(packed, Layer) or isinstance(packed, TrainingLayer):
        raise TypeError(
            f"[freeze] to_packed must return a packed layer, got {packed!r} from {layer!r}"
        )
    return packed


def _affine(layer: TrainingLayer) -> tuple[np.ndarray, np.ndarray]:
    return cast(PackableAffine, layer).affine()


def _levels(end: TrainingLayer) -> HasLevels:
    return cast(Any, end).levels


def _is_binary(end: TrainingLayer) -> bool:
    """Return whether the output of an end has two values, so that a threshold decides."""
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
    """Return a function that applies an expression and then steps, pools left out.

    It calls the layers' own `forward`, so it rounds as evaluation does. With an `end`, its result
    is >= 0 exactly if the end returns +1 or code 1.
    """
    layers = [step for step in steps if step.role is not Role.POOL]

    def chained(z: np.ndarray) -> np.ndarray:
        z = expression(z)
        for layer in layers:
            z = as_float(layer.forward(z))
        return z if end is None else _decisions(end, z)

    return chained


def _decisions(end: TrainingLayer, z: np.ndarray) -> np.ndarray:
    """Return the decisions of an end as numbers above or below 0; keep NaN, as `fold` expects."""
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
    """Return the pools of bits that replace the pools among the steps; see `freeze`."""
    pools: list[Layer] = []
    for i, step in enumerate(steps):
        if step.role is Role.POOL:
            minimum = flip ^ _find_falling(_chained(expression, steps[:i]), features, k)
            pools.append(cast(PackablePool, step).to_packed(minimum=minimum))
    return pools


def _find_falling(expression: Expression, features: int, k: int | None) -> np.ndarray:
    """Return in which channels a monotone expression falls."""
    largest = np.float32(k) if k is not None else np.finfo(np.float32).max
    ends = np.array([[-largest], [largest]], np.float32).repeat(features, axis=1)
    with np.errstate(all="ignore"):
        first, last = expression(ends)
    return first > last  # False if the ends are equal or NaN: either pool suits a constant


def fold(
    expression: Expression, features: int, k: int | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Find thresholds and flips that decide as the sign of a float32 expression does.

    Parameters
    ----------
    expression : callable
        Maps float32 products of shape (1, features) to float32 values of that shape. In every
        channel it must be monotone, rising or falling.
    features : int
    k : int, optional
        If given, the products are integers in -k..k and the thresholds int32. Otherwise the
        products are any float32 numbers and the thresholds float32.

    Returns
    -------
    threshold : ndarray of shape (features,), int32 or float32
    flip : ndarray of shape (features,), bool
        (z > threshold) ^ flip equals expression(z) >= 0 for every product z.

    Raises
    ------
    ValueError
        If the expression is NaN at the product 0 or changes the shape, or a number is out of range.
    TypeError
        If it does not give real numbers, or `features` or `k` is no integer.

    Notes
    -----
    Solving gamma * (z - mean) * inv_std + beta >= 0 for z would round differently from the
    expression and sometimes misplace a threshold. Instead, the expression itself is bisected over
    all values of z in order, in all channels at once. Rounding keeps a monotone function monotone,
    so each channel changes sign at most once::

        z               -k  ...  -1   0   1   2   3   ...  k
        rises           0    0    0   0   0   1   1    1   1     threshold 1
        falls           1    1    1   1   0   0   0    0   0     threshold 0, flip
        constant        1    1    1   1   1   1   1    1   1     threshold k, flip

    A channel falls if gamma < 0. It is constant if gamma = 0 or if its threshold lies beyond +-k;
    no product exceeds k.

    Examples
    --------
    >>> threshold, flip = fold(lambda z: -2 * z + np.float32(3), 1, 10)
    >>> threshold, flip
    (array([1], dtype=int32), array([ True]))
    """
    if not callable(expression):
        raise TypeError(f"[fold] expression must be callable, got {expression!r:.80}")
    features = check_size("fold", "features", features)
    if k is not None:
        k = check_integer("fold", "k", k, 0, _LARGEST_SUM)
    value = _integer_to_float if k is not None else _key_to_float
    last = k if k is not None else _LARGEST_FLOAT_KEY

    def is_positive(keys: np.ndarray) -> np.ndarray:
        # The largest products may overflow to infinity, which keeps their sign. Times a gamma of 0
        # that is NaN; such a channel is constant, so its value at 0 holds everywhere.
        y = _values_of(expression, value(keys))
        return np.where(np.isnan(y), at_zero, y) >= 0

    at_zero = _values_of(expression, np.zeros(features, np.float32))
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


def _values_of(expression: Expression, products: np.ndarray) -> np.ndarray:
    """Evaluate an expression for one product a feature."""
    with np.errstate(all="ignore"):
        y = np.asarray(expression(products[np.newaxis]))
    if y.dtype.kind not in "biuf":
        raise TypeError(f"[fold] expression must give real numbers, got dtype {y.dtype}")
    if y.shape != (1, products.size):
        raise ValueError(
            f"[fold] expression must keep the shape {(1, products.size)}, got {y.shape}"
        )
    return y[0]


def _integer_to_float(keys: np.ndarray) -> np.ndarray:
    return keys.astype(np.float32)


def _key_to_float(keys: np.ndarray) -> np.ndarray:
    """Map integers to the finite float32 numbers in order: 0 to 0.0, 1 to the next one above."""
    magnitude = np.abs(keys).astype(np.uint32).view(np.float32)
    return np.where(keys < 0, -magnitude, magnitude)
