"""Training files: writes a Sequential with its latent weights and statistics, and reads it back.

    model  --_encode-->  document, tensors  --write_tensors-->  file
    model  <--_decode--  document, tensors  <--_read----------  file

The tensors are `state.<i>`, the arrays of `model.state()` in order, and `<place>.<name>`, arrays
that a constructor takes. The metadata entry `bitops` is JSON:

    format, version
    input_shape     shape of one example, or null
    graph           list of layers, each with its `type` and
                        of a chain, its `layers` and `input_shape`
                        of a block, its `body` and `shortcut`; a shortcut of null is the identity
                        of any other, `settings` (arguments of the constructor), `arrays` (names of
                        further ones), `parameters` (how each is trained) and `rounding` (false, or
                        the bits that gradients are rounded to; true are 8; in a list if
                        activations are rounded, too)
    generators      states of the random generators
    sha256          of all of this and all tensors

Nothing in a file is executed or imported, as in `model_files`.
"""

from __future__ import annotations

import json
import math
import os
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np

from ..files.tensors import MALFORMED, open_tensors, write_tensors
from ..ops.checks import check_rate
from ..quantizers import ByteGradient, Quantizer
from ..quantizers.base import check_clip
from .base import Layer, TrainingLayer
from .inputs import check_flag, is_finite
from .model_files import MAX_DEPTH
from .parameter import Parameter
from .product import LatentProduct
from .registry import trained_named
from .states import (
    Tensors,
    check_generators,
    check_tensors,
    describe_generators,
    flatten,
    from_tensors,
    nest_like,
    to_tensors,
)

if TYPE_CHECKING:
    from .container import Sequential

FORMAT = "bitops.sequential"
VERSION = 1

_KEYS = {"format", "version", "input_shape", "graph", "generators", "sha256"}
_LEAF = {"type", "settings", "arrays", "parameters", "rounding"}
# settings that multiply to the number of weights
_FACTORS = (
    *("in_features", "out_features", "in_channels", "out_channels"),
    *("channels", "multiplier", "features", "kernel_size"),
)

Spec = dict[str, Any]


def write_sequential(path: str | os.PathLike, model: Sequential) -> None:
    """Write a model to a file; the file appears whole or not at all."""
    _check_once(model)
    tensors: Tensors = {}
    document = {
        "format": FORMAT,
        "version": VERSION,
        "input_shape": model.input_shape,
        "graph": [_encode(layer, str(i), tensors) for i, layer in enumerate(model.layers)],
        "generators": describe_generators(model.generators()),
    }
    tensors |= to_tensors("state", flatten(model.state()))
    tensors = {name: np.asarray(array, order="C") for name, array in tensors.items()}
    try:  # write nothing that `load` would refuse
        _decode_model(json.loads(json.dumps(document)), tensors, type(model))
    except MALFORMED as error:
        raise ValueError(f"[save] the model must be one that load can make: {error}") from None
    write_tensors("save", Path(path), document, tensors)


def read_sequential(path: str | os.PathLike, cls: type[Sequential]) -> Sequential:
    """Read a model from a file, as an object of the class."""
    path = Path(path)
    try:
        return _decode_model(*_read(path), cls)
    except MALFORMED as error:  # some of them from constructors
        raise ValueError(f"[load] {path} must be a training file: {error}") from error


def _read(path: Path) -> tuple[Spec, Tensors]:
    with open_tensors(path, FORMAT) as file:
        document = file.description
        if type(document.get("version")) is not int or document["version"] != VERSION:
            raise ValueError(f"version must be {VERSION}, got {document.get('version')!r:.80}")
        if set(document) != _KEYS:
            raise ValueError(f"the description must have {sorted(_KEYS)}, got {list(document)}")
        return document, file.read()


def _check_once(model: Sequential) -> None:
    """Refuse what a file cannot say: layers and generators that are in several places."""
    layers = list(_tree(model))
    if len({id(layer) for layer in layers}) < len(layers):
        raise ValueError("[save] each layer must be in the model once, got one that is there twice")
    generators = model.generators()
    if len({id(generator) for generator in generators}) < len(generators):
        raise ValueError("[save] each layer must have its own generator, got one for several")
    for generator in generators:
        if not isinstance(generator.bit_generator, np.random.PCG64):
            raise ValueError(
                f"[save] generators must be of PCG64, as default_rng makes them, got {generator!r}"
            )


def _tree(layer: TrainingLayer | None) -> Any:
    """Yield a layer and all layers inside it."""
    if layer is not None:
        yield layer
        for name in type(layer).CHAINS:
            inside = getattr(layer, name)
            for part in inside if isinstance(inside, list) else [inside]:
                yield from _tree(part)


def _is_chain(kind: type[Layer]) -> bool:
    """Tell whether a class is no more than the layers that it holds."""
    return tuple(kind.CHAINS) == ("layers",) and kind.config is Layer.config


def _encode(layer: TrainingLayer, place: str, tensors: Tensors) -> Spec:
    kind = type(layer)
    if trained_named(kind.__name__) is not kind:
        raise TypeError(
            f"[save] layers must be of a class registered with bitops.io.register, got {layer!r}"
        )
    if _is_chain(kind):
        chain: Sequential = layer  # type: ignore[assignment]
        inside = [_encode(part, f"{place}.{i}", tensors) for i, part in enumerate(chain.layers)]
        return {"type": kind.__name__, "layers": inside, "input_shape": chain.input_shape}
    if kind.CHAINS:
        branches = {name: getattr(layer, name) for name in kind.CHAINS}
        return {"type": kind.__name__} | {
            name: None if branch is None else _encode(branch, f"{place}.{name}", tensors)
            for name, branch in branches.items()
        }
    arrays = [spec.name for spec in kind.ARRAYS if getattr(layer, spec.name) is not None]
    tensors |= {f"{place}.{name}": np.asarray(getattr(layer, name)) for name in arrays}
    return {
        "type": kind.__name__,
        "settings": {name: _as_json(value) for name, value in layer.config().items()},
        "arrays": arrays,
        "parameters": [describe_parameter(parameter) for parameter in layer.parameters()],
        "rounding": _describe_rounding(layer),
    }


def _describe_rounding(layer: TrainingLayer) -> bool | int | list[int]:
    if not isinstance(layer, LatentProduct) or layer.rounding is None:
        return False
    return [layer.rounding.bits] if layer.rounds_activations else layer.rounding.bits


def describe_parameter(parameter: Parameter) -> dict[str, Any]:
    """Return how a parameter is trained, as values JSON can hold."""
    return {
        "trainable": bool(parameter.trainable),
        "clip_value": _as_json(parameter.clip_value),
        "lr_scale": float(parameter.lr_scale),
    }


def check_parameter(where: str, options: dict[str, Any]) -> dict[str, Any]:
    """Return the attributes of a parameter that `describe_parameter` described."""
    clip = _from_json(options["clip_value"])
    if clip is not None:
        check_clip(where, clip)
    return {
        "trainable": check_flag(where, "trainable", options["trainable"]),
        "clip_value": clip,
        "lr_scale": check_rate(where, "lr_scale", options["lr_scale"], zero=True),
    }


def _as_json(value: Any) -> Any:
    """Return a setting as a value JSON can hold."""
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return {"number": str(value)}
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, tuple | list):
        return [_as_json(part) for part in value]
    kind = type(value)
    if trained_named(kind.__name__) is kind and not isinstance(value, Layer):
        own = {field.name: getattr(value, field.name) for field in fields(value) if field.init}
        if not isinstance(own.get("seed"), int):  # the state of a generator is stored elsewhere
            own.pop("seed", None)
        settings = {name: _as_json(setting) for name, setting in own.items()}
        return {"quantizer": kind.__name__, "settings": settings}
    raise TypeError(
        f"[save] settings must be numbers, texts, or quantizers of a class registered with "
        f"bitops.io.register, got {value!r:.80}"
    )


def _from_json(value: Any) -> Any:
    """Return a setting, and lists as tuples."""
    if isinstance(value, list):
        return tuple(_from_json(part) for part in value)
    if not isinstance(value, dict):
        return value
    if set(value) == {"number"}:
        return float(value["number"])
    kind = trained_named(value["quantizer"])
    if set(value) != {"quantizer", "settings"} or kind is None or issubclass(kind, Layer):
        _refuse("a setting", value)
    made = kind(**{name: _from_json(part) for name, part in value["settings"].items()})
    if not isinstance(made, Quantizer):
        _refuse("a setting", value)
    return made


def _decode_model(document: Spec, tensors: Tensors, cls: type[Sequential]) -> Sequential:
    decoder = _Decoder(tensors)
    layers = [decoder.layer(spec, str(i)) for i, spec in enumerate(document["graph"])]
    model = cls.of_layers(layers, input_shape=document["input_shape"])
    template = model.state()
    state = to_tensors("state", flatten(template))
    check_tensors(tensors, state)
    for name in tensors.keys() - state.keys() - decoder.taken:
        raise ValueError(f"tensors must be those of the layers, got {name}")
    for name in state:
        if not is_finite(tensors[name]):
            raise ValueError(f"{name} must be finite, got NaN or infinity")
    states = check_generators(document["generators"], model.generators())
    model.restore(nest_like(template, from_tensors("state", tensors)))
    for generator, given in zip(model.generators(), states, strict=True):
        generator.bit_generator.state = given
    return model


class _Decoder:
    """Makes the layers of descriptions.

    Parameters
    ----------
    tensors : dict of str to ndarray
        All of the file.

    Attributes
    ----------
    taken : set of str
        Those that constructors have taken.
    """

    def __init__(self, tensors: Tensors):
        self.taken: set[str] = set()
        self._tensors = tensors
        self._elements = sum(array.size for array in tensors.values())

    def layer(self, spec: Any, place: str, depth: int = 0) -> TrainingLayer:
        """Make the layer of a description."""
        if depth > MAX_DEPTH:
            raise ValueError(f"layers must be nested at most {MAX_DEPTH} deep, got more")
        kind = trained_named(spec["type"])
        if kind is None or not issubclass(kind, TrainingLayer):
            raise ValueError(
                f"layer {place} must be of a registered type (see bitops.io.register), "
                f"got {spec['type']!r:.80}"
            )

        def inner(part: Any, name: object) -> TrainingLayer:
            return self.layer(part, f"{place}.{name}", depth + 1)

        if _is_chain(kind):
            chain: type[Sequential] = kind  # type: ignore[assignment]
            layers = [inner(part, i) for i, part in enumerate(spec["layers"])]
            return chain.of_layers(layers, input_shape=spec["input_shape"])
        if kind.CHAINS:
            branches = {name: spec[name] for name in kind.CHAINS}
            return kind(
                **{n: None if part is None else inner(part, n) for n, part in branches.items()}
            )
        return self._leaf(spec, place, kind)

    def _leaf(self, spec: Any, place: str, kind: type[TrainingLayer]) -> TrainingLayer:
        """Make a layer that contains no others."""
        if set(spec) != _LEAF:
            _refuse(f"layer {place}", spec)
        arguments = {name: _from_json(value) for name, value in spec["settings"].items()}
        if kind.parameters is not TrainingLayer.parameters:
            _check_size(place, arguments, self._elements)
        for array in kind.ARRAYS:
            if array.name in spec["arrays"]:
                name = f"{place}.{array.name}"
                arguments[array.argument or array.name] = self._tensors[name]
                self.taken.add(name)
        layer = kind(**arguments)
        _set_training(layer, spec)
        return layer


def _check_size(place: str, arguments: dict[str, Any], elements: int) -> None:
    """Refuse a layer with more weights than the file has, before it takes their memory."""
    sizes = [arguments[name] for name in _FACTORS if name in arguments]
    flat = [size for part in sizes for size in (part if isinstance(part, tuple) else [part])]
    if math.prod(flat) // arguments.get("groups", 1) > elements:
        raise ValueError(f"layer {place} must have weights in the file, got sizes {flat}")


def _set_training(layer: TrainingLayer, spec: Spec) -> None:
    """Set how parameters are trained, and gradients rounded."""
    for parameter, options in zip(layer.parameters(), spec["parameters"], strict=True):
        vars(parameter).update(check_parameter("load", options))
    bits = spec["rounding"]
    if bits is not False:
        if not isinstance(layer, LatentProduct):
            _refuse("rounding", layer)
        if isinstance(bits, list) and len(bits) == 1:
            (bits,), layer.rounds_activations = bits, True
        layer.rounding = ByteGradient(bits=8 if bits is True else bits)


def _refuse(what: str, got: Any) -> NoReturn:
    raise ValueError(f"{what} must be as save writes it, got {got!r:.80}")
