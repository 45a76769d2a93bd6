"""States of models and of random generators in the forms that files hold."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

Tensors = dict[str, np.ndarray]


def describe_generators(generators: Iterable[np.random.Generator]) -> list[dict[str, Any]]:
    """Return the states of generators as values JSON can hold."""
    return [_as_json(generator.bit_generator.state) for generator in generators]


def check_generators(
    states: Sequence[dict[str, Any]], generators: Sequence[np.random.Generator]
) -> list[dict[str, Any]]:
    """Return the states of the generators, each tried on another generator of its kind."""
    there = [state["bit_generator"] for state in states]
    here = [generator.bit_generator.state["bit_generator"] for generator in generators]
    if there != here:
        raise ValueError(f"random generators are {there} there and {here} here")
    restored = [_from_json(state) for state in states]
    for generator, state in zip(generators, restored, strict=True):
        trial = type(generator.bit_generator)()
        trial.state = state
        if _as_json(trial.state) != _as_json(state):
            raise ValueError(f"the state of a generator must be one, got {state!r:.80}")
    return restored


@contextmanager
def same_draws(generators: Sequence[np.random.Generator]) -> Iterator[None]:
    """Put generators back to where they were, so that what comes next draws as if nothing had."""
    states = [generator.bit_generator.state for generator in generators]
    try:
        yield
    finally:
        for generator, state in zip(generators, states, strict=True):
            generator.bit_generator.state = state


def _as_json(state: Any) -> Any:
    """Return the state of a bit generator with lists in place of arrays."""
    if isinstance(state, dict):
        return {key: _as_json(value) for key, value in state.items()}
    return state.tolist() if isinstance(state, np.ndarray | np.generic) else state


def _from_json(state: Any) -> Any:
    if isinstance(state, dict):
        return {key: _from_json(value) for key, value in state.items()}
    return np.array(state, np.uint64) if isinstance(state, list) else state


def flatten(state: Any) -> Iterator[np.ndarray]:
    """Yield the arrays in the nested lists that `state()` returns."""
    if isinstance(state, list | tuple):
        for part in state:
            yield from flatten(part)
    else:
        yield np.asarray(state)


def nest_like(template: Any, arrays: Iterator[np.ndarray]) -> Any:
    """Put the arrays into nested lists like those of `template`."""
    if isinstance(template, list | tuple):
        return [nest_like(part, arrays) for part in template]
    return next(arrays)


def to_tensors(name: str, arrays: Iterable[np.ndarray]) -> Tensors:
    """Name arrays by their numbers."""
    return {f"{name}.{i}": array for i, array in enumerate(arrays)}


def from_tensors(name: str, tensors: Tensors) -> Iterator[np.ndarray]:
    """Yield, in order, the arrays that `to_tensors` has named."""
    count = sum(key.startswith(f"{name}.") for key in tensors)
    return (tensors[f"{name}.{i}"] for i in range(count))


def check_tensors(tensors: Tensors, expected: Tensors) -> None:
    """Refuse tensors that lack one of those expected, or have one of another shape or dtype."""
    for name, array in expected.items():
        found = tensors.get(name)
        if found is None or (found.shape, found.dtype) != (array.shape, array.dtype):
            got = "none" if found is None else f"{found.dtype} of shape {found.shape}"
            raise ValueError(f"{name} must be {array.dtype} of shape {array.shape}, got {got}")
        if array.dtype.kind in "iu" and (found < 0).any():  # steps, batches
            raise ValueError(f"{name} must count from 0, got {found!r:.80}")
