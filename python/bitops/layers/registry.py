"""The classes that model files may contain, by name: packed layers, and what is trained."""

from __future__ import annotations

import copyreg
import inspect
from collections.abc import Mapping
from dataclasses import dataclass, is_dataclass
from functools import partial
from typing import Any, TypeVar

import numpy as np

from .. import quantizers
from ..ops.array import BitArray, pack, unpack
from ..quantizers import Quantizer
from .base import Layer, TrainingLayer

_DTYPES = ("bits", "bool", "float32", "int32", "uint8")


@dataclass(frozen=True)
class ArraySpec:
    """How a model file stores one array of a packed layer.

    Parameters
    ----------
    name : str
        Name of the attribute, and of the tensor in the file.
    dtype : {"bits", "bool", "float32", "int32", "uint8"}, or a tuple of several of the last three
        "bits" is a BitArray packed along its last axis. "bits" and "bool" take one bit an element.
    ndim : int
        Number of axes, at least 1.
    argument : str, optional
        Parameter of the constructor that takes the array. By default it is called `name`.

    Examples
    --------
    >>> from bitops.layers import PackedDense
    >>> [spec.name for spec in PackedDense.ARRAYS]
    ['weight', 'bias', 'threshold', 'flip', 'alpha']
    """

    name: str
    dtype: str | tuple[str, ...]
    ndim: int
    argument: str | None = None

    def __post_init__(self):
        if not self.dtypes or not set(self.dtypes) <= set(_DTYPES):
            raise ValueError(f"[ArraySpec] dtype must be from {_DTYPES}, got {self.dtype!r}")
        if len(self.dtypes) > 1 and self.is_packed:
            raise ValueError(f"[ArraySpec] bits and bool must stand alone, got {self.dtype!r}")
        if type(self.ndim) is not int or self.ndim < 1:
            raise ValueError(f"[ArraySpec] ndim must be at least 1, got {self.ndim!r}")

    @property
    def dtypes(self) -> tuple[str, ...]:
        return (self.dtype,) if isinstance(self.dtype, str) else tuple(self.dtype)

    @property
    def is_packed(self) -> bool:
        """Whether the array is stored as words of 64 bits."""
        return "bits" in self.dtypes or self.is_bool

    @property
    def is_bool(self) -> bool:
        """Whether the array is one of bools, of which only the bits are stored."""
        return "bool" in self.dtypes


@dataclass(frozen=True)
class Kind:
    """How a class of packed layers is stored: its arrays, settings, and inner chains.

    `arrays` go by the names of attributes, `settings` are the keys of `config()`. `needed` names
    the arrays and chains that the constructor cannot do without.
    """

    layer: type[Layer]
    arrays: dict[str, ArraySpec]
    settings: tuple[str, ...]
    chains: tuple[str, ...]
    needed: frozenset[str]


_KINDS: dict[str, Kind] = {}
_TRAINED: dict[str, type] = {}  # training layers and quantizers

AnyClass = TypeVar("AnyClass", bound=type)


def register(cls: AnyClass) -> AnyClass:
    """Allow a class of layers or quantizers in model files; usable as a decorator.

    The file stores the name of the class, its arrays and its settings. `load` looks the name up
    among the registered classes and calls the constructor. A program must therefore register the
    class before it loads the file; `load` never imports what a file names.

    Pickles and copies of a layer of the class hold the same, and call the constructor too, unless
    the class defines how it is pickled.

    Parameters
    ----------
    cls : class derived from Layer, or a dataclass of quantizers
        `ARRAYS` lists the arrays, each an attribute of the layer and a parameter of the
        constructor. An array that is None is left out of the file, so its parameter must have a
        default. `config()` returns all other parameters, as values JSON can hold. Files may come
        from strangers, so the constructor must check its arguments.
        Of a training layer, the file of a `Sequential` also stores what `state()` returns.
        `config()` may leave out `seed`, and what has a default, and may hold quantizers. A class
        derived from Sequential is made of its layers, without a call of its constructor. Of
        quantizers, the file stores the fields other than `seed`.

    Returns
    -------
    class
        `cls` itself.

    Raises
    ------
    TypeError
        If the class is neither of the two, lacks `forward` or `config`, or if its constructor
        takes the arrays by other names.
    ValueError
        If another class is registered under this name.

    Examples
    --------
    >>> @register
    ... class PackedGain(Layer):
    ...     ARRAYS = (ArraySpec("scale", "float32", 1),)
    ...
    ...     def __init__(self, scale, power=1):
    ...         self.scale, self.power = np.array(scale, np.float32), int(power)
    ...
    ...     def config(self):
    ...         return {"power": self.power}
    ...
    ...     def forward(self, x):
    ...         return as_float(x) * self.scale**self.power
    """
    if isinstance(cls, type) and (issubclass(cls, TrainingLayer) or not issubclass(cls, Layer)):
        _check_trained(cls)
        _check_free(cls, _TRAINED.get(cls.__name__))
        _TRAINED[cls.__name__] = cls
        return cls
    kind = _kind(cls)
    other = _KINDS.get(cls.__name__)
    _check_free(cls, None if other is None else other.layer)
    _KINDS[cls.__name__] = kind  # a class may replace itself, as when a notebook cell runs again
    if not _pickles_itself(cls):
        copyreg.pickle(cls, partial(_reduced, kind))
    return cls


def _check_free(cls: type, other: type | None) -> None:
    if other is not None and _place(other) != _place(cls):
        raise ValueError(
            f"[register] the name of a class must be free, got {cls.__name__}, the name of "
            f"{other.__module__}.{other.__qualname__}"
        )


def _check_trained(cls: type) -> None:
    """Check what a class of training layers or of quantizers declares."""
    if not issubclass(cls, TrainingLayer):
        if not is_dataclass(cls) or not isinstance(cls, Quantizer):
            raise TypeError(
                f"[register] cls must be a class of layers, or a dataclass with the forward and "
                f"backward of a quantizer, got {cls!r}"
            )
        return
    if cls.forward is TrainingLayer.forward:
        raise TypeError(f"[register] the class must define forward, got {cls!r}")
    given = {"seed", *cls.CHAINS, *(spec.argument or spec.name for spec in cls.ARRAYS)}
    missing = [
        parameter.name
        for parameter in inspect.signature(cls).parameters.values()
        if parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
        and parameter.default is parameter.empty
        and parameter.name not in given
    ]
    if missing and not cls.CHAINS and cls.config is Layer.config:
        raise TypeError(
            f"[register] the class must define config to return {', '.join(missing)}, got {cls!r}"
        )


def _place(cls: type) -> tuple[str, str]:
    return cls.__module__, cls.__qualname__


def _kind(cls: type[Layer]) -> Kind:
    """Check what a class declares and return it."""
    if not isinstance(cls, type):
        raise TypeError(f"[register] cls must be a class of layers, got {cls!r}")
    if cls.forward is Layer.forward:
        raise TypeError(f"[register] the class must define forward, got {cls!r}")
    parameters = inspect.signature(cls).parameters
    if any(p.kind not in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY) for p in parameters.values()):
        raise TypeError(f"[register] the constructor must name all its parameters, got {cls!r}")
    arguments = {spec.name: spec.argument or spec.name for spec in cls.ARRAYS}
    arguments |= {name: name for name in cls.CHAINS}
    for argument in arguments.values():
        if argument not in parameters:
            raise TypeError(f"[register] the constructor must take {argument}, got {cls!r}")
    settings = tuple(name for name in parameters if name not in arguments.values())
    if settings and cls.config is Layer.config:
        raise TypeError(
            f"[register] the class must define config to return {', '.join(settings)}, got {cls!r}"
        )
    if cls.CHAINS and (cls.ARRAYS or settings):
        raise TypeError(f"[register] a class with CHAINS must have no other arguments, got {cls!r}")
    needed = {
        name
        for name, argument in arguments.items()
        if parameters[argument].default is inspect.Parameter.empty
    }
    arrays = {spec.name: spec for spec in cls.ARRAYS}
    return Kind(cls, arrays, settings, tuple(cls.CHAINS), frozenset(needed))


def _pickles_itself(cls: type[Layer]) -> bool:
    """Return whether a class says how its objects are pickled."""
    names = ("__reduce_ex__", "__reduce__", "__getstate__")
    return any(getattr(cls, name) is not getattr(Layer, name) for name in names)


def checked_config(where: str, layer: Layer, kind: Kind) -> dict[str, Any]:
    """Return the settings of a layer, which must be those of its constructor."""
    config = layer.config()
    if set(config) != set(kind.settings):
        raise TypeError(
            f"[{where}] config must return {', '.join(kind.settings) or 'nothing'}, the parameters "
            f"of {layer.name} other than arrays, got {config!r}"
        )
    return config


def _reduced(kind: Kind, layer: Layer) -> tuple[Any, ...]:
    """Return what a pickle or copy holds of a layer of a registered class: see `_made`."""
    arguments = {} if kind.chains else checked_config("pickle", layer, kind)
    branches = layer.branches()
    arguments |= {name: list(branches[name]) for name in kind.chains if name in branches}
    for name, spec in kind.arrays.items():
        array = getattr(layer, name)
        if array is not None:
            flags = spec.is_bool and isinstance(array, np.ndarray) and array.dtype == np.bool_
            arguments[spec.argument or name] = pack(array) if flags else array
    return _made, (kind.layer, arguments)


def _made(cls: type[Layer], arguments: Mapping[str, Any]) -> Layer:
    """Make a layer from a pickle: call its constructor, which checks the arguments."""
    given = dict(arguments)
    for name in {spec.argument or spec.name for spec in cls.ARRAYS if spec.is_bool} & set(given):
        if isinstance(given[name], BitArray):
            given[name] = unpack(given[name], dtype=np.bool_)
    return cls(**given)


def kind_named(name: str) -> Kind | None:
    """Return the class registered under a name, or None."""
    return _KINDS.get(name)


def kind_of(layer: Layer) -> Kind | None:
    """Return the registered class of a layer, or None; a base class does not count."""
    kind = _KINDS.get(type(layer).__name__)
    return kind if kind is not None and kind.layer is type(layer) else None


def trained_named(name: str) -> type | None:
    """Return the class of training layers or quantizers registered under a name, or None."""
    return _TRAINED.get(name)


def registered() -> list[type[Layer]]:
    """Return the classes that files of packed models may contain, as they were registered."""
    return [kind.layer for kind in _KINDS.values()]


for _name in quantizers.__all__:
    _cls = getattr(quantizers, _name)
    if is_dataclass(_cls) and isinstance(_cls, Quantizer):
        register(_cls)
