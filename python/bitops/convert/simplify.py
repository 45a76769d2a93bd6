"""Brings the steps of a trace into a form that layers have.

First the few values of activations are gathered:

    Affine, Affine                  one Affine
    Levels, Affine                  Levels of other values, if all features have the same factors
    Levels, Levels                  one Levels, if the second has the same thresholds everywhere
    Flatten, Levels                 Levels first, if all features have the same thresholds
    Levels of -1, 0, +1             Levels of -1, +1, where no sum can be 0

Then Levels get the values that layers give, -1 and +1, or 0 and 1, or codes 0, 1, 2, ..., and an
Affine behind them, which moves on:

    Affine, Dense or Conv           the product first, if its weights have few levels
                                    other weights take the factors in
    Dense or Conv, Affine           one product, if its weights are float
    Affine, max-pool or Flatten     the Affine last
    Affine, Pad                     the Affine last, and another value
    Pad, Conv                       Conv with padding
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from .errors import ConversionError
from .steps import Affine, Conv, Dense, Levels, Map, Pad, Pool, Step
from .weights import find_levels

# A rule takes the steps before two others, and these, and returns what takes the place of the two.
Result = tuple[Step, ...] | None
Rule = Callable[[Sequence[Step], Step, Step], Result]

BIPOLAR, UNITS = (-1.0, 1.0), (0.0, 1.0)


def simplified(steps: Sequence[Step]) -> list[Step]:
    """Return steps that compute the same, and to which no rule applies any more."""
    gathered = _rewritten(steps, (_merge_affine, _scale_values, _compose_levels))
    gathered = _decided(_rewritten(gathered, (_decide_before_flatten,)))
    plain = [part for step in gathered for part in _with_plain_values(step)]
    return _rewritten(plain, (_merge_affine, _move_behind, _pad_in_conv, _multiply_first, _take_in))


def _rewritten(steps: Sequence[Step], rules: Sequence[Rule]) -> list[Step]:
    """Apply rules to neighbours until none fits."""
    done: list[Step] = []
    left = list(reversed(steps))
    while left:
        step = left.pop()
        if isinstance(step, Affine) and step.is_identity:
            continue
        results = (rule(done[:-1], done[-1], step) for rule in rules) if done else iter(())
        result = next((result for result in results if result is not None), None)
        if result is None:
            done.append(step)
        else:
            done.pop()
            left += reversed(result)
    return done


def _merge_affine(before: Sequence[Step], one: Step, two: Step) -> Result:
    return (one.then(two),) if isinstance(one, Affine) and isinstance(two, Affine) else None


def _scale_values(before: Sequence[Step], one: Step, two: Step) -> Result:
    if not (isinstance(one, Levels) and isinstance(two, Affine)):
        return None
    if two.factor is None or two.term is None:
        return None
    return (replace(one, values=one.values * two.factor + two.term),)


def _compose_levels(before: Sequence[Step], one: Step, two: Step) -> Result:
    """Apply thresholds to few values: Sign(Sign(x) + 0.1) is one comparison."""
    if not (isinstance(one, Levels) and isinstance(two, Levels)) or len(two.threshold) > 1:
        return None
    codes = (one.values.astype(np.float32)[:, np.newaxis] >= two.threshold[0]).sum(axis=1)
    changes = np.flatnonzero(np.diff(codes))
    if not len(changes):
        return None  # a constant, which both together give as they are
    kept = codes[[0, *(changes + 1)]]
    return (Levels(one.source, one.features, one.threshold[:, changes], two.values[kept]),)


def _decide_before_flatten(before: Sequence[Step], one: Step, two: Step) -> Result:
    """Make few values of images first: then bits are flattened, and thresholds can be folded."""
    if not (isinstance(one, Map) and one.kind == "flatten" and isinstance(two, Levels)):
        return None
    if len(two.threshold) > 1:
        return None
    _, channels = one.settings
    return replace(two, features=channels), one


def _pad_in_conv(before: Sequence[Step], one: Step, two: Step) -> Result:
    if not (isinstance(one, Pad) and isinstance(two, Conv)):
        return None
    if two.is_padded and two.pad_value != one.value:
        return None
    top, left = ((a[0] + b[0], a[1] + b[1]) for a, b in zip(one.padding, two.padding, strict=True))
    if not _is_allowed_outside(what_flows(before), one.value, two):
        return None
    return (replace(two, padding=(top, left), pad_value=one.value),)


def _is_allowed_outside(flow: str, value: float, conv: Conv) -> bool:
    """Return whether a convolution can put a value around what flows into it."""
    is_few = flow == "bits" and find_levels(conv.w) is not None
    return value in (-1, 0, 1) if is_few else value == 0


def what_flows(before: Sequence[Step]) -> str:
    """Return what the last of some steps gives: "bits", "units" (0 and 1), "codes", "numbers"."""
    at = next((i for i in reversed(range(len(before))) if not _moves_only(before[i])), None)
    last = None if at is None else before[at]
    if at is None or not isinstance(last, Levels):
        return "numbers"
    flow = {BIPOLAR: "bits", UNITS: "units"}.get(tuple(last.values), "codes")
    outside = {"bits": (-1, 1), "units": (1,), "codes": range(len(last.values))}[flow]
    pads = [step for step in before[at + 1 :] if isinstance(step, Pad)]
    return flow if all(pad.value in outside for pad in pads) else "numbers"


def _with_plain_values(step: Step) -> tuple[Step, ...]:
    """Return Levels as Levels of the values that layers give, and an Affine."""
    if not isinstance(step, Levels):
        return (step,)
    low, *rest = step.values
    gap = rest[0] - low
    codes = np.arange(len(step.values))
    if not np.allclose(step.values, low + gap * codes, rtol=1e-6, atol=0) or gap == 0:
        raise ConversionError(
            f"[convert] {step.source}: its values must be evenly spaced, got {step.values}"
        )
    if len(rest) == 1 and low != 0:
        values, alpha, bias = BIPOLAR, gap / 2, low + gap / 2
    else:
        values, alpha, bias = tuple(codes.astype(float)), gap, low
    plain = replace(step, values=np.array(values))
    return plain, Affine(step.source, np.full(step.features, alpha), np.full(step.features, bias))


def _move_behind(before: Sequence[Step], one: Step, two: Step) -> Result:
    """Move an Affine behind steps that move values, or choose the largest."""
    if not isinstance(one, Affine):
        return None
    if isinstance(two, Pool) and two.kind == "max" and (one.alpha > 0).all():
        return two, one
    if one.factor is None or one.term is None or one.factor == 0:
        return None
    if isinstance(two, Map) and two.kind == "flatten":
        features, _ = two.settings
        return two, Affine(one.source, np.full(features, one.factor), np.full(features, one.term))
    if isinstance(two, Pad):
        return replace(two, value=(two.value - one.term) / one.factor), one
    return None


def _multiply_first(before: Sequence[Step], one: Step, two: Step) -> Result:
    """Move a factor and a term behind a product, or into its float weights."""
    if not (isinstance(one, Affine) and isinstance(two, Dense | Conv)):
        return None
    if find_levels(two.w) is None:
        return _absorbed(one, two)
    factor, term = one.factor, one.term
    if factor is None or term is None or factor == 0 or two.shift:
        return None
    shift = term / factor
    if not shift.is_integer():
        sums = two.w.reshape(len(two.w), -1).sum(axis=1)
        after = Affine(one.source, np.full(len(sums), factor), term * sums)
        shift = 0.0
    else:  # kept as an integer, so that equal sums give equal scores
        after = Affine(one.source, np.full(len(two.w), factor), np.zeros(len(two.w)))
    outer: tuple[Step, ...] = (replace(two, shift=shift),)
    if isinstance(two, Conv) and two.is_padded:
        value = (two.pad_value - term) / factor
        flow = what_flows(before)
        if _is_allowed_outside(flow, value, two):
            outer = (replace(two, shift=shift, pad_value=value),)
        elif flow == "codes" and float(value).is_integer() and value >= 0:
            bare = replace(two, shift=shift, padding=((0, 0), (0, 0)), pad_value=0.0)
            channels = two.w.shape[3] * two.groups
            outer = Pad(two.source, channels, two.padding, float(value)), bare
        else:
            return None
    return *outer, after


def _take_in(before: Sequence[Step], one: Step, two: Step) -> Result:
    """Put factors and terms of the output into float weights and their bias."""
    if not (isinstance(one, Dense | Conv) and isinstance(two, Affine)):
        return None
    if find_levels(one.w) is not None or not two.alpha.all():
        return None
    w = one.w * two.alpha.reshape(-1, *[1] * (one.w.ndim - 1))
    if find_levels(w) is not None:
        return None
    bias = two.bias if one.bias is None else one.bias * two.alpha + two.bias
    return (replace(one, w=w, bias=bias),)


def _absorbed(one: Affine, two: Dense | Conv) -> Result:
    """Put factors and terms of the input into float weights and a bias."""
    is_padded = isinstance(two, Conv) and two.is_padded
    if (isinstance(two, Conv) and two.groups > 1) or (is_padded and one.bias.any()):
        return None  # the channels of a filter are those of its group
    sums = (two.w * one.bias).reshape(len(two.w), -1).sum(axis=1)
    bias = Affine(one.source, np.ones(len(sums)), sums)
    return replace(two, w=two.w * one.alpha), bias


def _decided(steps: Sequence[Step]) -> list[Step]:
    """Make a plain comparison of each Sign, which is 0 at 0, that is never 0."""
    return [
        replace(step, threshold=step.threshold[:, :1], values=step.values[[0, 2]])
        if isinstance(step, Levels) and is_three_way(step) and not _may_be_zero(steps[:i])
        else step
        for i, step in enumerate(steps)
    ]


def is_three_way(step: Levels) -> bool:
    """Return whether Levels give another value at 0 than on both sides of it."""
    return (
        step.threshold.shape == (1, 2)
        and step.threshold[0, 0] == 0
        and step.threshold[0, 1] < 1e-40
    )


def _may_be_zero(before: Sequence[Step]) -> bool:
    """Return whether a sum of bits, scaled, may be 0: rather yes than no."""
    if not before:
        return True
    *earlier, last = before
    affine = last if isinstance(last, Affine) else None
    product = earlier.pop() if affine is not None and earlier else last
    if not isinstance(product, Dense | Conv):
        return True
    found = find_levels(product.w)
    source = next((step for step in reversed(earlier) if not _moves_only(step)), None)
    if found is None or not found.is_binary or not isinstance(source, Levels):
        return True
    low, *high = source.values
    is_padded_before = any(isinstance(step, Pad) for step in earlier)
    if len(high) != 1 or low != -high[0] or low == 0 or is_padded_before:
        return True
    unit = abs(low) * found.scale * (1 if affine is None else affine.alpha)
    bias = np.zeros_like(unit) if affine is None else affine.bias
    terms = product.w[0].size
    is_padded = isinstance(product, Conv) and product.is_padded and product.pad_value == 0
    with np.errstate(divide="ignore", invalid="ignore"):
        root = np.where(unit == 0, 0, -bias / unit)
    if not is_padded:  # sums are as even or odd as the number of their terms
        nearest = np.rint((root - terms) / 2) * 2 + terms
    else:
        nearest = np.rint(root)
    value = unit * nearest + bias
    is_near = np.abs(value) <= 1e-5 * (np.abs(unit) + np.abs(bias))
    return bool((is_near & (np.abs(nearest) <= terms)).any())


def _moves_only(step: Step) -> bool:
    if isinstance(step, Pool):
        return step.kind == "max"
    return isinstance(step, Pad) or (isinstance(step, Map) and step.kind == "flatten")
