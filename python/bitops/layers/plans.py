"""Plans of a packed model: runs of its layers that need no Python between them.

    layers      dense -> dense -> own layer -> dense -> dense
    runs        [------ plan ---]  forward     [---- plan ---]

A plan is made when a chain first meets an input of its form, from the steps that each layer states
in `compile`. Whatever is unusual goes through `forward`, layer by layer: other inputs, layers
without steps, empty batches, and numbers that are NaN where a sign is needed, which is an error
there. Both ways give the same bits.
"""

from __future__ import annotations

from collections.abc import Sequence
from operator import is_
from typing import Any

import numpy as np

from ..ops.array import BitArray
from ..ops.memory import LARGE, aligned_empty, word_count
from ..ops.plan import OtherIsa, Program, SpareMemory, Value
from .base import Edits, Layer, place_in_mro
from .inputs import Activation

MAX_RUNS = 64  # kept, since each batch size adds one

_KINDS = {np.dtype(kind): kind for kind in ("uint8", "int32", "float32")}


class Chain(Program):
    """A program of layers."""

    def __init__(self, source: Value):
        super().__init__(source)
        self.lists: list[tuple[list[Layer], list[Layer]]] = []  # chains met, and copies of them

    def add_layers(
        self, layers: list[Layer], x: Value, first: int = 0, end: int | None = None
    ) -> tuple[Value, int]:
        """Add the steps of as many of the layers [first, end) as have some.

        Returns
        -------
        value : Value
            The output of the last of them.
        end : int
            The index after it.
        """
        self.lists.append((layers, list(layers)))
        end = len(layers) if end is None else end
        for i in range(first, end):
            made = _steps_of(layers[i], self, x)
            if made is None:
                return x, i
            x = made
        return x, end


def _steps_of(layer: Layer, chain: Chain, x: Value) -> Value | None:
    """Add the steps of a layer; None, and no steps, if it has none for this input."""
    kind, before = type(layer), len(chain.steps)
    made = None
    is_own = place_in_mro(kind, "forward") < place_in_mro(kind, "compile")
    if not (is_own or "forward" in vars(layer)) and layer.in_features in (None, x.features):
        try:
            made = layer.compile(chain, x)
        except ValueError:  # the input does not fit, as `forward` will say
            made = None
    if made is None:
        del chain.steps[before:]
    return made


class Run:
    """Layers that run as one plan, for inputs of one form."""

    __slots__ = ("_array_shape", "_bits_shape", "_dtype", "_is_large", "end", "plan")

    def __init__(self, chain: Chain, output: Value, end: int, spare: SpareMemory):
        self.end = end  # the index of the first layer after it
        self.plan = chain.compile(output, spare)
        self._bits_shape: tuple[int, ...] | None = None
        self._array_shape, self._dtype = output.shape, np.dtype(np.uint64)
        if output.kind == "bits":
            self._bits_shape = output.shape
            self._array_shape = (*output.shape[:-1], word_count(output.features))
        else:
            self._dtype = np.dtype(output.kind)
        self._is_large = output.nbytes >= LARGE

    def __call__(self, x: np.ndarray) -> Activation | None:
        """Return the output; None if a number that needs a sign was NaN."""
        y = (aligned_empty if self._is_large else np.empty)(self._array_shape, self._dtype)
        if self.plan.run(x, y):
            return None
        return y if self._bits_shape is None else BitArray.from_words(y, self._bits_shape)


class Kept:
    """The runs that were made of some layers; those of changed layers are kept in another one.

    So a thread that changes or replaces layers never meets runs of what was before, whatever other
    threads are about to keep.
    """

    __slots__ = ("_edits", "layers", "lists", "runs")

    def __init__(self, layers: list[Layer]) -> None:
        self.layers, self._edits = layers, Edits.last
        self.runs: dict[Any, Run | None] = {}
        self.lists: list[tuple[list[Layer], list[Layer]]] = []

    def is_current(self, layers: list[Layer]) -> bool:
        """Whether the runs are those of these layers, which have not changed."""
        if self.layers is not layers or self._edits is not Edits.last:
            return False
        for chain, before in self.lists:
            if len(chain) != len(before) or not all(map(is_, chain, before)):
                return False
        return True


class Plans:
    """The runs of one chain, made when they are first needed, in any thread.

    A call of a small network takes a few microseconds, so `run` avoids what is dear in Python.
    """

    def __init__(self) -> None:
        self._spare = SpareMemory()
        self._kept = Kept([])

    def run(
        self, layers: list[Layer], first: int, end: int, x: Any
    ) -> tuple[Activation, int] | None:
        """Run as many of the layers [first, end) as have a plan.

        Returns the output and the index of the next layer.

        None if layer `first` must run by its `forward`.
        """
        if type(x) is np.ndarray:
            array, key = x, (first, end, x.dtype, x.shape)
        elif isinstance(x, BitArray) and x.axis == x.ndim - 1:
            array, key = x.words, (first, end, "bits", x.shape)
        else:
            return None
        kept = self._kept
        if not kept.is_current(layers):
            kept = self._kept = Kept(layers)
        try:
            run = kept.runs[key]
        except KeyError:
            run = self._make(kept, key)
        if run is not None and not run.plan.is_current:
            run = self._make(kept, key)
        flags = array.flags
        if run is None or not (flags.c_contiguous and flags.aligned):
            return None
        y = run(array)
        return None if y is None else (y, run.end)

    def _make(self, kept: Kept, key: Any) -> Run | None:
        """Compile a run, which is None if layer `first` has no steps, and keep it.

        None, and nothing is kept, also if another thread chooses another ISA in the middle of it.
        """
        first, last, dtype, shape = key
        kind = dtype if dtype == "bits" else _KINDS.get(dtype)
        run = None
        if kind is not None and len(shape) >= 2 and 0 not in shape:
            chain = Chain(Value(kind, shape))
            output, end = chain.add_layers(kept.layers, chain.input, first, last)
            if chain.steps and output.memory is not chain.input:
                try:
                    run = Run(chain, output, end, self._spare)
                except OtherIsa:
                    return None
            kept.lists += [pair for pair in chain.lists if not _has(kept.lists, pair)]
        if len(kept.runs) >= MAX_RUNS:
            kept.runs.clear()
        kept.runs[key] = run
        return run


def _has(lists: Sequence[tuple[list[Layer], list[Layer]]], pair: tuple[Any, Any]) -> bool:
    return any(layers is pair[0] for layers, _ in lists)
