"""Packed networks as C99, for small devices."""

from __future__ import annotations

import math
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from ..files.writing import write_file
from ..layers import Packed
from ..layers.inputs import Shape
from ..layers.operation import Convolution
from ..layers.product import PackedProduct
from . import c_source
from .c_layers import write_chain
from .c_program import Buffer, CProgram, known
from .errors import ConversionError

# Words that no identifier may be; a name is also the beginning of others, which are none of them.
_NAME = re.compile(r"[a-zA-Z][a-zA-Z0-9_]{0,30}")


class _Input(NamedTuple):
    """What a network takes, as a `Buffer` has it, and its elements in C."""

    kind: str
    element: str
    packing: str = ""


_INPUTS = {
    "uint8": _Input("bytes", "uint8_t"),
    "float32": _Input("float", "float"),
    "bits": _Input("bits", "uint32_t", ", 32 channels a word, the first in the lowest bit"),
}


@dataclass(frozen=True)
class CSize:
    """Bytes that a network in C takes on the device, without its code.

    Attributes
    ----------
    rom : int
        Of constants: weights, thresholds, scales and sizes.
    ram : int
        Of the workspace between the layers.

    Examples
    --------
    >>> from bitops.layers import Packed, PackedDense
    >>> import numpy as np
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     size = to_c(Packed(PackedDense(np.ones((10, 64)))), folder)
    >>> size.rom
    148
    """

    rom: int
    ram: int

    def __str__(self) -> str:
        return f"{self.rom} B of ROM, {self.ram} B of RAM"


def to_c(
    packed: Packed, folder: str | os.PathLike, *, name: str = "network", takes: str = "uint8"
) -> CSize:
    """Write a packed network as C99: a header and a source that need no library and no allocation.

    Parameters
    ----------
    packed : Packed
        Any layers of this package, with scores at the end.
    folder : path
        Gets the files `<name>.h` and `<name>.c`; it is made if it does not exist.
    name : str
        What all public names begin with.
    takes : {"uint8", "float32", "bits"}
        What the input is; bits are packed as the header says. Numbers go in as they are, without
        the preprocessing that the notes name: a network that was trained on pixels / 255 needs
        "float32", and pixels that the caller has divided.

    Returns
    -------
    CSize
        The bytes of constants and of workspace, which the header states too.

    Raises
    ------
    ConversionError
        If a layer has no form in C, such as one of your own, or if sizes are not known: the message
        names it. Nothing is written then.
    OSError
        If a file cannot be written.
    TypeError, ValueError
        If `packed` is not a packed network, `name` not a name of C, or `takes` none of the three.

    Notes
    -----
    The functions, for the name "network"::

        void network_run(const uint8_t *input, network_score *scores, uint32_t *work);
        int network_label(const network_score *scores);

    Scores are int32_t or float, as those of `packed`, and equal them bit for bit, with two
    exceptions. BLAS adds products with float weights (FloatDense; FloatConv2D unless each channel
    has one filter of its own) in an order of its own; the C code adds them in the order of the
    weights, each step rounded to float. Sigmoid, Tanh and Softmax have an exponential of their own.
    Such numbers may differ in the last bits, and a sign behind them where one is next to a
    threshold. Compile with `-ffp-contract=off` or `-std=c99`, so that no product is fused with a
    sum.

    Examples
    --------
    >>> print(to_c(net, "firmware"))                             # doctest: +SKIP
    24380 B of ROM, 1184 B of RAM
    """
    if not isinstance(packed, Packed):
        raise TypeError(f"[to_c] packed must be a Packed, got {type(packed).__name__}")
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise ValueError(f"[to_c] name must be letters, digits and _, got {name!r}")
    if takes not in _INPUTS:
        raise ValueError(f"[to_c] takes must be one of {', '.join(_INPUTS)}, got {takes!r}")
    kind, program = _INPUTS[takes].kind, CProgram()
    start = Buffer(kind, known(_input_shape(packed)))
    scores = write_chain(program, packed.layers, _start(program, start))
    if scores.kind not in ("int32_t", "float") or scores.place is None:
        raise ConversionError("[to_c] the last layer must give scores, sums or float numbers")
    _give_scores(program, scores)
    made = _Files(name, program, _INPUTS[takes], start, scores)
    header, source = made.header(), made.source()
    where = Path(folder)
    where.mkdir(exist_ok=True)
    write_file("to_c", where / f"{name}.h", header.encode("ascii"))
    write_file("to_c", where / f"{name}.c", source.encode("ascii"))
    return made.size


def _start(program: CProgram, start: Buffer) -> Buffer:
    """Return the input as layers take it: floats lie in the workspace."""
    if start.kind != "float":
        return start
    x = program.new("float", start.shape)
    program.call("take_floats", math.prod(start.shape), start, x)
    return x


def _input_shape(packed: Packed) -> Shape:
    shape: Shape = packed.input_shape or (packed.in_features,)
    first = packed.layers[0]
    needs_images = isinstance(first, PackedProduct) and isinstance(first.operation, Convolution)
    if len(shape) > 3 or None in shape or (needs_images and len(shape) < 3):
        raise ConversionError(
            f"[to_c] the size of the input must be known, images (h, w, channels), sequences "
            f"(length, features) or rows (features,), got input_shape={packed.input_shape}"
        )
    return shape


def _give_scores(program: CProgram, scores: Buffer) -> None:
    """Let a product write to the caller's array, or copy there what was made in place."""
    if program.calls[-1].startswith("    products("):
        program.calls[-1] = program.calls[-1].replace(str(scores), "scores")
        program.words = program.words_before
        return
    give = "give_floats" if scores.kind == "float" else "give_integers"
    program.call(give, math.prod(scores.shape), scores, "scores")


@dataclass(frozen=True)
class _Files:
    """The text of both files."""

    name: str
    program: CProgram
    given: _Input
    start: Buffer
    scores: Buffer

    @property
    def size(self) -> CSize:
        return CSize(self.program.rom, 4 * self.program.words)

    def header(self) -> str:
        big, name = self.name.upper(), self.name
        is_packed = self.start.kind == "bits"
        elements = self.start.words if is_packed else math.prod(self.start.shape)
        what = " x ".join(map(str, self.start.shape))
        return f"""\
/* {name}: a binarized network, {self.size}. */
#ifndef {big}_H
#define {big}_H

#include <stdint.h>

#define {big}_INPUTS {elements} /* {what}, channels last{self.given.packing} */
#define {big}_SCORES {math.prod(self.scores.shape)}
#define {big}_WORK {max(self.program.words, 1)} /* words */

typedef {self.scores.kind} {name}_score;

/* Computes the scores of one example; `work` has {big}_WORK words, whatever they hold. */
{self._signature()};

/* Returns the index of the largest score, the first of equal ones. */
int {name}_label(const {name}_score *scores);

#endif
"""

    def source(self) -> str:
        big, name = self.name.upper(), self.name
        unused = "" if self.program.words else "    (void)work;\n"
        run = f"{self._signature()}\n{{\n{unused}{''.join(self.program.calls)}}}\n"
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
        functions = c_source.functions(self.program.used)
        return "\n".join([start, functions, *self.program.tables, run, label])

    def _signature(self) -> str:
        input, score = f"const {self.given.element} *input", f"{self.name}_score *scores"
        return f"void {self.name}_run({input}, {score}, uint32_t *work)"
