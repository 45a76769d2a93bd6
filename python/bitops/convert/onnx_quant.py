"""The operators that give few values: Sign, comparisons, and those of QONNX and FINN."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ..layers import fold
from .calls import Call, Handler
from .onnx_pools import is_whole_image, mean_of_image
from .quantization import MAX_BITS, integer_range, quant_thresholds, rounding_of
from .steps import Affine, Levels, Map, Pool
from .tensors import COUNTED, Tensor
from .traces import Trace

ROUND = "round"

_ZERO, _ABOVE_ZERO = np.float32(0), np.nextafter(np.float32(0), np.float32(1))


def _levels(call: Call, x: Tensor, threshold: np.ndarray, values: np.ndarray) -> Tensor:
    features = x.features(call.node)
    return x.add(Levels(str(call.node), features, threshold, np.asarray(values, np.float64)))


def _sign(call: Call) -> Tensor:
    """Sign of ONNX, which is 0 at 0."""
    threshold = np.array([[_ZERO, _ABOVE_ZERO]], np.float32)
    return _levels(call, call.tensor(), threshold, np.array([-1, 0, 1]))


def _comparison(strict: bool, rising: bool) -> Handler:
    """Comparisons x > c (strict, rising), x >= c, x < c (falling), x <= c (strict, falling)."""

    def handler(call: Call) -> Tensor:
        node = call.node
        if call.is_tensor(0) and call.is_tensor(1):
            raise node.refuse("one side of the comparison must be constant")
        first = call.is_tensor(0)
        x, value = call.tensor(0 if first else 1), call.needed(1 if first else 0)
        if x.axes.endswith("1") and value.ndim and value.shape[-1] > 1:
            if strict or not rising or not first:
                raise node.refuse("several thresholds must be compared by x >= t")
            return _many_comparisons(call, x, value)
        above, up = (strict, rising) if first else (not strict, not rising)
        limit = x.per_feature(node, value).astype(np.float32)[:, np.newaxis]
        if above:
            limit = np.nextafter(limit, np.float32(np.inf))
        return _levels(call, x, _shared(limit), np.array([0, 1] if up else [1, 0]))

    return handler


def _many_comparisons(call: Call, x: Tensor, value: np.ndarray) -> Tensor:
    """Compare with several thresholds, along an axis that a sum must follow."""
    each = replace(x, axes=x.axes[:-1])
    columns = [each.per_feature(call.node, part) for part in np.moveaxis(value, -1, 0)]
    if len(columns) >= 2**MAX_BITS:
        raise call.node.refuse(f"it must have at most {2**MAX_BITS - 1} thresholds")
    threshold = np.sort(np.stack(columns, axis=1), axis=1).astype(np.float32)
    y = _levels(call, each, _shared(threshold), np.arange(len(columns) + 1))
    return replace(y, axes=each.axes + COUNTED)


def _reduce_sum(call: Call) -> Tensor:
    node, x = call.node, call.tensor()
    axes = call.setting("axes", 1)
    at = [axis % len(x.axes) for axis in np.reshape([] if axes is None else axes, -1).tolist()]
    if is_whole_image(x, at):
        pixels = [size for size in x.sizes[:2] if size is not None]
        if len(pixels) < 2:
            raise node.refuse("the size of the image must be known")
        return mean_of_image(call, x, at).affine(node, float(pixels[0] * pixels[1]), 0.0)
    if at != [len(x.axes) - 1] or not x.axes.endswith(COUNTED):
        raise node.refuse("only the results of comparisons with several thresholds can be summed")
    if not isinstance(x.trace.step, Levels) or call.attribute("keepdims", 1):
        raise node.refuse("it must follow the comparisons, with keepdims=0")
    return replace(x, axes=x.axes[:-1])


def _round(call: Call) -> Tensor:
    """Round after [a scale, then] Clip [, then a scale]: codes, as quantizing activations write.

    Without a Clip before it, one must come next, as `rounded_within` says.
    """
    node, x = call.node, call.tensor()
    trace, outer = _common_affine(x.trace)
    clip = trace.step
    if not (isinstance(clip, Map) and clip.kind == "clip" and outer is not None):
        return x.add(Map(str(node), ROUND))
    assert trace.before is not None
    trace, inner = _common_affine(trace.before)
    if inner is None:
        trace, inner = trace, (1.0, 0.0)
    (scale, shift), limits = outer, np.array(clip.settings, np.float32)

    def value(x: np.ndarray) -> np.ndarray:
        with np.errstate(over="ignore"):
            inside = (x.astype(np.float64) * inner[0] + inner[1]).astype(np.float32)  # one operator
            return np.rint(np.clip(inside, *limits) * np.float32(scale) + np.float32(shift))

    low, high = value(np.array([-3e38, 3e38], np.float32))
    if not (scale > 0 and inner[0] > 0 and 0 < high - low < 2**MAX_BITS):
        raise node.refuse(f"it must give 2 to {2**MAX_BITS} values, rising with its input")
    between = np.arange(low + 1, high + 1, dtype=np.float32) - np.float32(0.5)
    below, _ = fold(lambda x: value(x) - between, between.size)
    threshold = np.nextafter(below, np.float32(np.inf))[np.newaxis]
    start = replace(x, trace=trace)
    return _levels(call, start, threshold, np.arange(low, high + 1))


def rounded_within(call: Call, x: Tensor, low: float, high: float) -> Tensor | None:
    """Return what a Clip gives behind a Round, which is the Round of a Clip if limits are integers.

    None if it does not follow a Round.
    """
    step, before = x.trace.step, x.trace.before
    if not (isinstance(step, Map) and step.kind == ROUND and before is not None):
        return None
    if not (float(low).is_integer() and float(high).is_integer()):
        raise call.node.refuse(f"behind a Round its limits must be integers, got {low} and {high}")
    clipped = replace(x, trace=before).add(Map(str(call.node), "clip", (low, high)))
    return _round(call.on(clipped))


def _common_affine(trace: Trace) -> tuple[Trace, tuple[float, float] | None]:
    """Return what comes before an Affine that is the same for all features, and its numbers.

    These are 1 and 0 if there is none, and None if features differ.
    """
    step = trace.step
    if not isinstance(step, Affine):
        return trace, (1.0, 0.0)
    if step.factor is None or step.term is None or trace.before is None:
        return trace, None
    return trace.before, (step.factor, step.term)


def _shared(threshold: np.ndarray) -> np.ndarray:
    """Return thresholds with one row if all features have the same ones."""
    return threshold[:1] if (threshold == threshold[0]).all() else threshold


def _not(call: Call) -> Tensor:
    return call.tensor().affine(call.node, -1.0, 1.0)


def _equal(call: Call) -> Tensor:
    """Compare few values with a number, as in `sign[sign == 0] = 1`."""
    first = call.is_tensor(0)
    x, number = call.tensor(0 if first else 1), call.number(1 if first else 0)
    step = x.trace.step
    if not isinstance(step, Levels):
        raise call.node.refuse("its input must be few values, as a Sign gives")
    is_equal = (step.values.astype(np.float32) == np.float32(number)).astype(np.float64)
    return replace(x, trace=Trace(replace(step, values=is_equal), x.trace.before))


def _where(call: Call) -> Tensor:
    condition = call.tensor(0)
    if call.is_tensor(1) or call.is_tensor(2):
        return _chosen(call, condition)
    yes, no = (condition.per_feature(call.node, call.needed(i)) for i in (1, 2))
    return condition.affine(call.node, yes - no, no)


def _chosen(call: Call, condition: Tensor) -> Tensor:
    """Choose between few values, all of which one number decides."""
    traces = [_few_values(call, condition, i) for i in range(3)]
    before = traces[0].before
    steps = [trace.step for trace in traces if isinstance(trace.step, Levels)]
    if any(trace.before not in (None, before) for trace in traces):
        raise call.node.refuse("it must choose by comparisons of the same tensor")
    limits = np.unique(np.concatenate([step.threshold[0] for step in steps]))
    points = np.concatenate([[-np.inf], limits])  # one for each interval
    is_chosen, yes, no = (
        step.values[np.searchsorted(step.threshold[0], points, side="right")] for step in steps
    )
    values = np.where(is_chosen != 0, yes, no)
    changes = np.flatnonzero(np.diff(values))
    if not len(changes):
        raise call.node.refuse("it gives the same value always")
    assert before is not None
    start = replace(condition, trace=before)
    return _levels(call, start, limits[np.newaxis, changes], values[[0, *(changes + 1)]])


def _few_values(call: Call, condition: Tensor, i: int) -> Trace:
    """Return an input as Levels with the same thresholds for all features; a number has none."""
    node, features = call.node, condition.features(call.node)
    if not call.is_tensor(i):
        value = condition.per_feature(node, call.needed(i))
        if (value != value[0]).any():
            raise node.refuse("what it chooses must be the same for all features")
        return Trace(Levels(str(node), features, np.empty((1, 0), np.float32), value[:1]))
    x = call.tensor(i)
    trace, scale = _common_affine(x.trace)
    step = trace.step
    if (x.axes, x.sizes) != (condition.axes, condition.sizes) or x.order is not condition.order:
        raise node.refuse("what it chooses must have the shape of the condition")
    if scale is None or not isinstance(step, Levels) or len(step.threshold) > 1:
        raise node.refuse("it must choose between few values, the same for all features")
    return Trace(replace(step, values=step.values * scale[0] + scale[1]), trace.before)


def _bipolar_quant(call: Call) -> Tensor:
    scale = call.number(1)
    return _levels(call, call.tensor(), np.array([[_ZERO]]), np.array([-scale, scale]))


def _quant(call: Call) -> Tensor:
    node, x = call.node, call.tensor()
    scale, zero = (x.per_feature(node, call.needed(i)) for i in (1, 2))
    low, high = integer_range(node, call.number(3))
    if (scale <= 0).any():
        raise node.refuse("scale must be positive")
    if (low, high) in ((-1, 0), (0, 0)):  # one bit, signed: bipolar
        y = _levels(call, x, np.array([[_ZERO]]), np.array([-1, 1]))
        return y.affine(node, scale, 0.0)
    if high - low >= 2**MAX_BITS:
        raise node.refuse(f"activations of more than {MAX_BITS} bits are not supported")
    shared = (scale == scale[0]).all() and (zero == zero[0]).all()
    rows = slice(0, 1) if shared else slice(None)
    threshold = quant_thresholds(node, scale[rows], zero[rows], low, high)
    values = np.arange(low, high + 1, dtype=np.float64)
    y = _levels(call, x, _shared(threshold), values)
    return y.affine(node, scale, -zero * scale)


def _trunc(call: Call) -> Tensor:
    """Trunc, which takes the lowest bits off the integers x / scale + zero."""
    node, x = call.node, call.tensor()
    if len(node.inputs) != 5:
        raise node.refuse(f"it must have 5 inputs, as in version 1, got {len(node.inputs)}")
    scale, zero = np.float32(call.number(1)), np.float32(call.number(2))
    dropped = call.number(3) - call.number(4)
    if not (scale > 0 and 0 <= dropped <= 24 and dropped.is_integer()):
        raise node.refuse("scale must be positive, and the bits of the output not be more")
    limits = _limits(x.trace)
    if limits is None:
        raise node.refuse("its input must come from few values, by scales and pools alone")
    round_, divisor = rounding_of(node), np.float32(2**dropped)

    def value(x: np.ndarray) -> np.ndarray:
        with np.errstate(over="ignore"):
            return round_(np.rint(x.astype(np.float32) / scale + zero) / divisor)

    low, high = value(np.array(limits))
    if not 0 < high - low < 2**MAX_BITS:
        raise node.refuse(f"it must give 2 to {2**MAX_BITS} values, got {low:g} to {high:g}")
    between = np.arange(low + 1, high + 1, dtype=np.float32) - np.float32(0.5)
    below, _ = fold(lambda x: value(x) - between, between.size)
    threshold = np.nextafter(below, np.float32(np.inf))[np.newaxis]
    y = _levels(call, x, threshold, np.arange(low, high + 1))
    return y.affine(node, float(scale), -float(zero * scale))


def _limits(trace: Trace) -> tuple[float, float] | None:
    """Return the least and the largest number there can be, if that is known of few values."""
    steps = []
    for past in trace.line():
        if past.step is None or isinstance(past.step, Levels):
            break
        steps.append(past.step)
    if not isinstance(past.step, Levels):
        return None
    low, high = float(past.step.values.min()), float(past.step.values.max())
    for step in reversed(steps):
        if isinstance(step, Affine) and step.factor is not None and step.term is not None:
            low, high = sorted(limit * step.factor + step.term for limit in (low, high))
        elif isinstance(step, Pool):
            if step.padding != ((0, 0), (0, 0)) and step.kind == "avg":
                low, high = min(low, 0.0), max(high, 0.0)
        elif not (isinstance(step, Map) and step.kind in ("flatten", "mean")):
            return None
    return low, high


def _multi_threshold(call: Call) -> Tensor:
    node, x = call.node, call.tensor()
    threshold = np.asarray(call.needed(1), np.float64)
    layout = str(call.attribute("data_layout", "NCHW"))
    axis = -1 if layout.endswith("C") and len(layout) > 2 else 1
    if x.axes[axis] != "c":
        raise node.refuse(f"its axis {axis} must be that of the features, got axes {x.axes!r}")
    if threshold.ndim != 2 or threshold.shape[0] not in (1, x.features(node)):
        raise node.refuse(f"its thresholds must be (features, levels), got {threshold.shape}")
    if not 1 <= threshold.shape[1] < 2**MAX_BITS or np.isnan(threshold).any():
        raise node.refuse(f"it must have 1 to {2**MAX_BITS - 1} levels, none of them NaN")
    if len(threshold) > 1:
        threshold = x.arranged(threshold)
    # x >= t in float32: the least float32 that is not below t
    single = np.sort(threshold, axis=1).astype(np.float32)
    low = single < np.sort(threshold, axis=1)
    single[low] = np.nextafter(single[low], np.float32(np.inf))
    scale, bias = call.attribute("out_scale", 1.0), call.attribute("out_bias", 0.0)
    values = scale * np.arange(threshold.shape[1] + 1) + bias
    return _levels(call, x, _shared(single), values)


HANDLERS: dict[str, Handler] = {
    "BipolarQuant": _bipolar_quant,
    "Equal": _equal,
    "Greater": _comparison(strict=True, rising=True),
    "GreaterOrEqual": _comparison(strict=False, rising=True),
    "IntQuant": _quant,
    "Less": _comparison(strict=False, rising=False),
    "LessOrEqual": _comparison(strict=True, rising=False),
    "MultiThreshold": _multi_threshold,
    "Not": _not,
    "Quant": _quant,
    "ReduceSum": _reduce_sum,
    "Round": _round,
    "Sign": _sign,
    "Trunc": _trunc,
    "Where": _where,
}
