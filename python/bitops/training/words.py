"""Functions, objects and data in words that are the same in another process."""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from functools import partial
from hashlib import sha256
from typing import Any

import numpy as np

from ..ops.array import BitArray

__all__ = ["cut", "describe_data", "in_words", "listed", "name_of", "repr_of", "values_of"]

_LONGEST = 300  # characters of values; of longer ones a digest stands for the rest
_DEEPEST = 4  # levels of functions and objects inside one another
_PLAIN = (bool, int, float, complex, str, bytes, type(None))


def values_of(thing: Any, above: tuple[int, ...] = ()) -> str:
    """Put into words what a function or an object was made with; "" if nothing is known."""
    within = (*above, id(thing))
    values = {name: in_words(value, within) for name, value in _made_with(thing).items()}
    return cut(listed(values))


def _made_with(thing: Any) -> Mapping[str, Any]:
    """Return values by name: of a closure, of arguments, or of an object without words of its own.

    Names that begin with an underscore are an object's own affair.
    """
    if isinstance(thing, partial):
        return {"function": thing.func, "arguments": thing.args, **thing.keywords}
    if inspect.ismethod(thing):
        return {"self": thing.__self__}
    if inspect.isfunction(thing):
        return _made_with_function(thing)
    if isinstance(thing, type) or inspect.ismodule(thing):
        return {}
    if is_dataclass(thing):  # its repr shows plain values, but not all of others
        shown = {field.name: getattr(thing, field.name) for field in fields(thing) if field.repr}
        return {name: value for name, value in shown.items() if not isinstance(value, _PLAIN)}
    if type(thing).__repr__ is object.__repr__:
        own = getattr(thing, "__dict__", {})
        return {name: value for name, value in own.items() if not name.startswith("_")}
    return {}


def _made_with_function(function: Any) -> dict[str, Any]:
    code = function.__code__
    defaults = function.__defaults__ or ()
    last = code.co_varnames[code.co_argcount - len(defaults) : code.co_argcount]
    values = dict(zip(last, defaults, strict=True)) | (function.__kwdefaults__ or {})
    for name, cell in zip(code.co_freevars, function.__closure__ or (), strict=True):
        try:
            values[name] = cell.cell_contents
        except ValueError:  # it is not filled yet
            continue
    return values


def in_words(value: Any, above: tuple[int, ...]) -> str:
    """Put a value into words that are the same in another process.

    `above` has the addresses of what it is part of, which may be a part of it in turn.
    """
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, _PLAIN):
        return repr(value)
    if isinstance(value, BitArray) or (isinstance(value, np.ndarray) and not value.dtype.hasobject):
        return describe_data(value)
    if len(above) > _DEEPEST or id(value) in above:
        return name_of(value)
    within = (*above, id(value))
    if isinstance(value, dict):
        pairs = (f"{in_words(k, within)}: {in_words(v, within)}" for k, v in value.items())
        return f"{{{', '.join(pairs)}}}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(in_words(part, within) for part in value)}]"
    if isinstance(value, set | frozenset):  # whose order differs from process to process
        return f"{{{', '.join(sorted(in_words(part, within) for part in value))}}}"
    values = values_of(value, above)
    return f"{name_of(value)}({values})" if values else name_of(value)


def listed(words: Mapping[str, str]) -> str:
    return ", ".join(f"{name}={value}" for name, value in words.items())


def cut(words: str) -> str:
    """Let a digest stand for the end of long words."""
    if len(words) <= _LONGEST:
        return words
    return f"{words[:_LONGEST]}..., sha256 {sha256(words.encode()).hexdigest()[:16]}"


def name_of(function: Any) -> str:
    """Name a callable by words that are the same in another process: its name or settings."""
    if isinstance(function, partial):
        return f"partial({name_of(function.func)}, {function.args}, {function.keywords})"
    return getattr(function, "__qualname__", None) or repr_of(function)


def repr_of(thing: Any) -> str:
    """Return the repr without addresses, which differ from process to process."""
    return re.sub(r" at 0x[0-9A-Fa-f]+", "", repr(thing))


def describe_data(x: Any) -> str:
    """Put shape, type and content of data into words."""
    if x is None:
        return "None"
    array = np.ascontiguousarray(x.words if isinstance(x, BitArray) else x)
    kind = "bits" if isinstance(x, BitArray) else x.dtype.name
    content = sha256(array.view(np.uint8).data).hexdigest()[:16]
    return f"{kind} of shape {tuple(x.shape)}, sha256 {content}"
