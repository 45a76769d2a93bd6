"""Packed networks as C99, for small devices."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from .. import layers as L
from ..files.writing import write_file
from ..layers import Layer, Packed
from ..layers.inputs import Shape
from ..layers.operation import Convolution
from ..layers.planes import sum_planes
from ..layers.product import PackedProduct
from ..layers.windows import Windows
from ..ops.array import BitArray, pack
from ..ops.geometry import make_window
from . import c_source
from .errors import ConversionError

_INT32 = np.iinfo(np.int32)
_FIELDS = 16  # of struct window, an int32_t each

# Words that no identifier may be; a name is also the beginning of others, which are none of them.
_NAME = re.compile(r"[a-zA-Z][a-zA-Z0-9_]{0,30}")


@dataclass(frozen=True)
class CSize:
    """Bytes that a network in C takes on the device, without its code.

    Attributes
    ----------
    rom : int
        Of constants: weights, thresholds, scales and sizes.
    ram : int
        Of the workspace between the layers.
    """

    rom: int
    ram: int

    def __str__(self) -> str:
        return f"{self.rom} B of ROM, {self.ram} B of RAM"


def to_c(
    packed: Packed, folder: str | os.PathLike, *, name: str = "network", takes_bits: bool = False
) -> CSize:
    """Write a packed network as C99: a header and a source that need no library and no allocation.

    Parameters
    ----------
    packed : Packed
        Dense and convolutional layers with +-1 weights or planes of them, of which the first may
        take 8-bit numbers; max-pools of bits and Flatten between them; scores at the end.
    folder : path
        Gets the files `<name>.h` and `<name>.c`; it is made if it does not exist.
    name : str
        What all public names begin with.
    takes_bits : bool
        Whether the input is bits, packed as the header says. By default it is uint8.

    Returns
    -------
    CSize
        The bytes of constants and of workspace, which the header states too.

    Raises
    ------
    ConversionError
        If a layer has no form in C, or if sizes are not known: the message names it. Nothing is
        written then.
    OSError
        If a file cannot be written.
    TypeError, ValueError
        If `packed` is not a packed network, or `name` not a name of C.

    Notes
    -----
    The functions, for the name "network":

        void network_run(const uint8_t *input, network_score *scores, uint32_t *work);
        int network_label(const network_score *scores);

    Scores equal those of `packed` bit for bit, int32_t or float as there. Compile with
    `-ffp-contract=off` or `-std=c99`, so that no product is fused with a sum.

    Examples
    --------
    >>> print(to_c(net, "firmware"))                             # doctest: +SKIP
    24380 B of ROM, 1184 B of RAM
    """
    if not isinstance(packed, Packed):
        raise TypeError(f"[to_c] packed must be a Packed, got {type(packed).__name__}")
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise ValueError(f"[to_c] name must be letters, digits and _, got {name!r}")
    program = _Program(name, _input_shape(packed), is_bits=takes_bits)
    for place, layer in enumerate(packed.layers):
        program.add(place, layer, is_last=place == len(packed.layers) - 1)
    header, source = program.header(), program.source()
    where = Path(folder)
    where.mkdir(exist_ok=True)
    write_file("to_c", where / f"{name}.h", header.encode("ascii"))
    write_file("to_c", where / f"{name}.c", source.encode("ascii"))
    return program.size


def _input_shape(packed: Packed) -> Shape:
    shape: Shape = packed.input_shape or (packed.in_features,)
    first = packed.layers[0]
    needs_images = isinstance(first, PackedProduct) and isinstance(first.operation, Convolution)
    if len(shape) not in (1, 3) or None in shape or (needs_images and len(shape) == 1):
        raise ConversionError(
            f"[to_c] the size of the input must be known, images (h, w, channels) or rows "
            f"(features,), got input_shape={packed.input_shape}"
        )
    return shape


@dataclass
class _Program:
    """The C code of layers, one behind the other.

    Attributes
    ----------
    name : str
    shape : tuple
        Of what the last layer gives.
    is_bits : bool
        Whether it gives bits rather than uint8.
    """

    name: str
    shape: Shape
    is_bits: bool
    score: str = ""
    rom: int = 0
    used: set[str] = field(default_factory=set)
    tables: list[str] = field(default_factory=list)
    calls: list[str] = field(default_factory=list)
    words: list[int] = field(default_factory=list)  # of the two parts of the workspace
    current: str = "input"

    def __post_init__(self) -> None:
        self.input_shape, self.takes_bits = self.shape, self.is_bits
        self.words = [0, 0]

    @property
    def size(self) -> CSize:
        return CSize(self.rom, 4 * sum(self.words))

    def add(self, place: int, layer: Layer, *, is_last: bool) -> None:
        """Append the code of a layer."""
        where = f"[to_c] layer {place}.{layer.name}"
        writers = {
            L.PackedConv2D: self._product,
            L.PackedDense: self._product,
            L.PackedFlatten: self._flatten,
            L.PackedMaxPool2D: self._pool,
            L.PackedPlanesConv2D: self._product,
            L.PackedPlanesDense: self._product,
        }
        writer = writers.get(type(layer))
        if writer is None:
            raise ConversionError(f"{where} has no form in C")
        reason = writer(place, layer)
        if reason:
            raise ConversionError(f"{where}: {reason}")
        if bool(self.score) != is_last:
            raise ConversionError(f"{where}: only the last layer may give scores, and it must")
        self.shape = layer.output_shape(self.shape)

    # Each of these returns why the layer is refused, if it is.

    def _product(self, place: int, layer: Any) -> str | None:
        operation = layer.operation
        are_units = layer.input_bits == 1 and self.is_bits
        if getattr(layer, "scale_input", False):
            return "scale_input is not supported"
        if getattr(operation, "groups", 1) != 1:
            return f"groups must be 1, got {operation.groups}"
        if are_units and layer.threshold is None:
            return "scores of bits that stand for 0 and 1 are not supported"
        if layer.input_bits not in (None, 1) and self.is_bits:
            return f"its input must be codes of {layer.input_bits} bits, but bits flow"
        on_bits = operation.for_units() if are_units else operation
        if on_bits.pad_value and not self.is_bits:
            return f"pad_value must be 0 for uint8, got {on_bits.pad_value}"
        windows, planes = getattr(operation, "windows", None), len(layer.weights.planes.bits)
        window = self._window(place, layer, windows, on_bits.pad_value, planes)
        weights = self._table("weights", place, _words(layer.weight))
        given = layer.weights.coefficients
        values = None if given is None else np.array(given, np.int32)
        coefficients = self._table("coefficients", place, values)
        self.used.add(way := "sum_of_bits" if self.is_bits else "sum_of_bytes")
        inputs = f"{way}, {window}, {self.current}, {weights}, {coefficients}"
        if layer.threshold is not None:
            limits = self._table("limits", place, _limits(layer, are_units))
            flips = self._table("flips", place, None if layer.flip is None else _flags(layer.flip))
            self._call("threshold", f"{inputs}, {limits}, {flips}", self._target(layer))
            self.is_bits = True
        elif layer.alpha is None and layer.bias is None:
            self._call("whole_scores", inputs, "scores")
            self.score = "int32_t"
        else:
            alpha, bias = (
                self._table(what, place, getattr(layer, what)) for what in ("alpha", "bias")
            )
            self._call("real_scores", f"{inputs}, {alpha}, {bias}", "scores")
            self.score = "float"
        return None

    def _pool(self, place: int, layer: L.PackedMaxPool2D) -> str | None:
        if not self.is_bits:
            return "only bits can be pooled"
        window = self._window(place, layer, layer.windows)
        flags = None if layer.minimum is None else _flags(layer.minimum)
        minimum = self._table("minimum", place, flags)
        self._call("pool", f"{window}, {self.current}, {minimum}", self._target(layer))
        return None

    def _flatten(self, place: int, layer: L.PackedFlatten) -> str | None:
        *image, channels = _known(self.shape)
        pixels = math.prod(image)
        if self.is_bits and pixels > 1 and channels % 32:
            self._call("flatten", f"{pixels}, {channels}, {self.current}", self._target(layer))
        return None

    def _target(self, layer: Layer) -> str:
        """Return where a layer writes its bits: the part of the workspace that is not read."""
        part = 1 if self.current == "a" else 0
        *image, channels = _known(layer.output_shape(self.shape))
        words = math.prod(image) * -(-channels // 32)
        self.words[part] = max(self.words[part], words)
        return "ab"[part]

    def _call(self, function: str, inputs: str, target: str) -> None:
        self.used.add(function)
        self.calls.append(f"    {function}({inputs}, {target});\n")
        self.current = target

    def _table(self, what: str, place: int, values: np.ndarray | None) -> str:
        """Add an array of constants; return its name, or 0 if there is none."""
        if values is None:
            return "0"
        name = f"{what}_{place}"
        self.tables.append(c_source.table(name, values))
        self.rom += values.nbytes
        return name

    def _window(
        self, place: int, layer: Layer, windows: Windows | None, outside: int = 0, planes: int = 1
    ) -> str:
        """Add the sizes of a layer; return a pointer to them."""
        shape, target = _known(self.shape), _known(layer.output_shape(self.shape))
        if windows is None:  # each pixel, or the row, by itself
            windows = Windows.of(layer.name, 1)
        image = (shape[0], shape[1]) if len(shape) == 3 else (1, 1)
        placed = make_window(layer.name, image, windows.kernel_size, **windows.options)
        out = target[:2] if len(target) == 3 else (1, 1)
        (top, _), (left, _) = placed.padding
        rows = (
            (*image, shape[-1]),
            (*out, target[-1]),
            windows.kernel_size,
            (*windows.stride, *windows.dilation),
            (top, left),
            (outside,),
            (planes,),
        )
        lines = ",\n".join("    " + ", ".join(map(str, row)) for row in rows)
        name = f"window_{place}"
        self.tables.append(
            f"/* layer {place}: {layer.name} */\n"
            f"static const struct window {name} = {{\n{lines}\n}};\n"
        )
        self.rom += 4 * _FIELDS
        return f"&{name}"

    # The files

    def header(self) -> str:
        big, name = self.name.upper(), self.name
        *image, features = _known(self.input_shape)
        elements = math.prod(image) * (-(-features // 32) if self.takes_bits else features)
        what = " x ".join(map(str, _known(self.input_shape)))
        packing = ", 32 channels a word, the first in the lowest bit" if self.takes_bits else ""
        return f"""\
/* {name}: a binarized network, {self.size}. */
#ifndef {big}_H
#define {big}_H

#include <stdint.h>

#define {big}_INPUTS {elements} /* {what}, channels last{packing} */
#define {big}_SCORES {math.prod(_known(self.shape))}
#define {big}_WORK {max(sum(self.words), 1)} /* words */

typedef {self.score} {name}_score;

/* Computes the scores of one example; `work` has {big}_WORK words, whatever they hold. */
{self._signature()};

/* Returns the index of the largest score, the first of equal ones. */
int {name}_label(const {name}_score *scores);

#endif
"""

    def source(self) -> str:
        big, name = self.name.upper(), self.name
        places = {"a": "work", "b": f"work + {self.words[0]}"}
        parts = [
            f"    uint32_t *const {part} = {at};\n"
            for (part, at), words in zip(places.items(), self.words, strict=True)
            if words
        ]
        run = (
            f"{self._signature()}\n{{\n{''.join(parts) or '    (void)work;'}\n"
            f"{''.join(self.calls)}}}\n"
        )
        label = f"""\
int {name}_label(const {name}_score *scores)
{{
    int best = 0;

    for (int i = 1; i < {big}_SCORES; i++) {{
        if (scores[i] > scores[best]) {{
            best = i;
        }}
    }}
    return best;
}}
"""
        start = f'#include "{name}.h"\n'
        code = [start, c_source.WINDOW, c_source.functions(self.used), *self.tables, run, label]
        return "\n".join(code)

    def _signature(self) -> str:
        given = "uint32_t" if self.takes_bits else "uint8_t"
        return (
            f"void {self.name}_run(const {given} *input, {self.name}_score *scores, uint32_t *work)"
        )


def _known(shape: Shape) -> Sequence[int]:
    """Return a shape without unknown sizes; that of the input is checked beforehand."""
    return [size for size in shape if size is not None]


def _words(bits: BitArray) -> np.ndarray:
    """Return bits in words of 32, those of the last axis without unused words."""
    halves = bits.words.astype("<u8").view("<u4")[..., : -(-bits.shape[-1] // 32)]
    return np.ascontiguousarray(halves).astype(np.uint32)


def _flags(values: np.ndarray) -> np.ndarray:
    return _words(pack(values))


def _limits(layer: PackedProduct, are_units: bool) -> np.ndarray:
    """Return int32 limits for sums: of +-1, where they may stand for 0 and 1, or of uint8.

    With d the sum for +-1 and s that of the weights, the sum for 0 and 1 is (d + s) / 2.
    """
    assert layer.threshold is not None
    limits = np.floor(layer.threshold.astype(np.float64))
    limits = np.clip(limits, _INT32.min, _INT32.max)
    if are_units:
        weights = layer.weights
        s = sum_planes([part.copy() for part in weights.sums], weights.planes.coefficients)
        limits = np.clip(2 * limits - s, _INT32.min, _INT32.max)
    return limits.astype(np.int32)
