"""Measures of a network that learns: flips, saturation, latent weights, first NaN."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

import numpy as np

from ..layers.base import Layer, TrainingLayer, holders, named_layers
from ..layers.inputs import as_float, is_finite
from ..layers.parameter import Parameter
from ..layers.states import same_draws
from ..ops.array import BitArray

if TYPE_CHECKING:
    from .run import Trainable

__all__ = [
    "binary_parameters",
    "check_parameters",
    "first_not_finite",
    "flip_ratios",
    "histograms",
    "saturation",
    "watched",
]

Watcher = Callable[[str, Layer, Any, Any], None]


def binary_parameters(model: Trainable) -> dict[str, Parameter]:
    """Return the parameters used by their signs, in order, named as "0.BinaryDense"."""
    found: dict[str, Parameter] = {}
    for place, layer in _training_layers(model):
        for parameter in layer.parameters():
            if parameter.binary:
                name = f"{place}.{layer.name}"
                found[name if name not in found else f"{name}.{len(found)}"] = parameter
    return found


def _training_layers(model: Trainable) -> Iterator[tuple[str, TrainingLayer]]:
    """Yield the layers that may have parameters of their own, with their places."""
    for place, layer in named_layers(model.flat_layers()):
        if isinstance(layer, TrainingLayer) and not layer.branches():
            yield place, layer


def flip_ratios(model: Trainable, before: Iterable[BitArray]) -> dict[str, float]:
    """Measure the share of binary weights of each layer whose sign has changed.

    Parameters
    ----------
    model : Sequential
    before : iterable of BitArray
        Earlier signs of the binary parameters, in the order of `parameters()`.

    Returns
    -------
    dict of str to float
        Keys as "0.BinaryDense": place and type of the layer.
    """
    ratios = {}
    for (name, parameter), old in zip(binary_parameters(model).items(), before, strict=True):
        changed = np.bitwise_count(old.words ^ parameter.signs().words)
        ratios[name] = float(changed.sum(dtype=np.int64) / parameter.size)
    return ratios


def saturation(model: Trainable, x) -> dict[str, float]:
    """Measure the share of the values before each sign that are outside its clip value.

    Those values get no gradient. The model runs in evaluation mode and is not changed.

    Parameters
    ----------
    model : Sequential
    x : BitArray or array_like of shape (n, in_features), or (n, h, w, channels) of images

    Returns
    -------
    dict of str to float
        Keys as "2.Sign": place and type of each layer whose quantizer has a `clip_value`.
    """
    shares: dict[str, float] = {}

    def look(place: str, layer: Layer, given: Any, _: Any) -> None:
        clip_value = _clip_value(layer)
        if clip_value is not None:
            outside = np.abs(as_float(given)) > np.float32(clip_value)
            shares[f"{place}.{layer.name}"] = float(np.mean(outside))

    with watched(model, "forward", look), same_draws(model.generators()):
        model.forward(x)
    return shares


def _clip_value(layer: Layer) -> float | None:
    """Return the clip value of an activation: its own, or that of its quantizer."""
    if not isinstance(layer, TrainingLayer) or layer.parameters():
        return None
    return next((h.clip_value for h in holders(layer) if hasattr(h, "clip_value")), None)


def histograms(model: Trainable, bins: int = 20) -> dict[str, dict[float, float]]:
    """Count how the latent weights of each layer spread between their limits.

    Parameters
    ----------
    model : Sequential
    bins : int

    Returns
    -------
    dict of str to dict of float to float
        For each layer, named as "0.BinaryDense", the middle of each bin and the share of weights in
        it. The bins divide [-clip_value, clip_value] evenly, or [-1, 1] without clip value; weights
        beyond count in the outer bins.
    """
    found = {}
    for name, parameter in binary_parameters(model).items():
        limit = parameter.clip_value or 1.0
        edges = np.linspace(-limit, limit, bins + 1)
        inside = np.clip(parameter.value, -limit, limit)
        counts, _ = np.histogram(inside, bins, (-limit, limit))
        middles = (edges[:-1] + edges[1:]) / 2
        found[name] = {
            float(middle): float(count / parameter.size)
            for middle, count in zip(middles, counts, strict=True)
        }
    return found


@contextmanager
def watched(model: Trainable, method: str, watcher: Watcher) -> Iterator[None]:
    """Let `watcher(place, layer, argument, result)` see the calls of a method of every layer."""
    wrapped = []
    try:
        for place, layer in named_layers(model.flat_layers()):
            if method not in vars(layer):  # a layer may be in the model twice
                vars(layer)[method] = _with_watcher(getattr(layer, method), place, layer, watcher)
                wrapped.append(layer)
        yield
    finally:
        for layer in wrapped:
            del vars(layer)[method]


def _with_watcher(call: Callable, place: str, layer: Layer, watcher: Watcher) -> Callable:
    def watching(argument, **options):
        result = call(argument, **options)
        watcher(place, layer, argument, result)
        return result

    return watching


def check_parameters(model: Trainable, step: int) -> None:
    """Raise FloatingPointError if a step has left NaN or infinity in the parameters."""
    where = _broken_parameter(model)
    if where is not None:
        raise FloatingPointError(f"[fit] parameters must be finite, got {where} after step {step}")


def first_not_finite(model: Trainable, x, labels: np.ndarray, loss: Callable) -> str | None:
    """Find where NaN or infinity first appears in a training step; None if it does not.

    This runs the step again, so that running statistics and generators move on.
    """
    if not is_finite(x):
        return "NaN or infinity in the inputs"
    where = _broken_parameter(model)
    if where is not None:
        return where
    found: list[str] = []

    def look(what: str) -> Watcher:
        def watch(place: str, layer: Layer, _: Any, result: Any) -> None:
            if not is_finite(result):
                found.append(f"NaN or infinity in {what} of layer {place}, {layer!r}")

        return watch

    # ValueError is what packing says to a NaN
    with suppress(ValueError), np.errstate(all="ignore"):
        with watched(model, "forward", look("the output")):
            scores = model.forward(x, training=True)
        with watched(model, "backward", look("the input gradient")):
            model.backward(loss(scores, labels)[1])
    return found[0] if found else _broken_gradient(model)


def _broken_parameter(model: Trainable) -> str | None:
    """Name the parameters that are not finite, or the gradient that made them so."""
    for place, layer in _training_layers(model):
        if not all(is_finite(parameter.value) for parameter in layer.parameters()):
            gradient = _broken_gradient(model)
            return gradient or f"NaN or infinity in the parameters of layer {place}, {layer!r}"
    return None


def _broken_gradient(model: Trainable) -> str | None:
    """Name the first gradient, in the order of the backward pass, that is not finite."""
    for place, layer in reversed(list(_training_layers(model))):
        if not all(is_finite(parameter.grad) for parameter in layer.parameters()):
            return f"NaN or infinity in the gradient of layer {place}, {layer!r}"
    return None
