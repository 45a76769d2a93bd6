"""Packed networks as C99, for small devices."""

from __future__ import annotations

import math
import os
import re
from dataclasses import dataclass
from pathlib import Path

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
    packed: Packed, folder: str | os.PathLike, *, name: str = "network", takes_bits: bool = False
) -> CSize:
    """Write a packed network as C99: a header and a source that need no library and no allocation.

    Parameters
    ----------
    packed : Packed
        Dense and convolutional layers with +-1 weights or planes of them, of which the first may
        take 8-bit numbers; pools, BatchNorm, activations and codes between them, also in branches;
        scores at the end. Layers with float weights have no form in C.
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
    The functions, for the name "network"::

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
    kind, program = "bits" if takes_bits else "bytes", CProgram()
    start = Buffer(kind, known(_input_shape(packed)))
    scores = write_chain(program, packed.layers, start)
    if scores.kind not in ("int32_t", "float") or scores.place is None:
        raise ConversionError("[to_c] the last layer must give scores, sums or float numbers")
    _give_scores(program, scores)
    made = _Files(name, program, start, scores)
    header, source = made.header(), made.source()
    where = Path(folder)
    where.mkdir(exist_ok=True)
    write_file("to_c", where / f"{name}.h", header.encode("ascii"))
    write_file("to_c", where / f"{name}.c", source.encode("ascii"))
    return made.size


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


def _give_scores(program: CProgram, scores: Buffer) -> None:
    """Let the last call write to the caller's array, or copy there what was made in place."""
    count = scores.pixels * scores.shape[-1]
    if scores.kind == "int32_t":  # the output of a product
        program.calls[-1] = program.calls[-1].replace(str(scores), "scores")
        program.words = program.words_before
        return
    program.call("give_floats", count, scores, "scores")


@dataclass(frozen=True)
class _Files:
    """The text of both files."""

    name: str
    program: CProgram
    start: Buffer
    scores: Buffer

    @property
    def size(self) -> CSize:
        return CSize(self.program.rom, 4 * self.program.words)

    @property
    def takes_bits(self) -> bool:
        return self.start.kind == "bits"

    def header(self) -> str:
        big, name = self.name.upper(), self.name
        elements = self.start.words if self.takes_bits else math.prod(self.start.shape)
        what = " x ".join(map(str, self.start.shape))
        packing = ", 32 channels a word, the first in the lowest bit" if self.takes_bits else ""
        return f"""\
/* {name}: a binarized network, {self.size}. */
#ifndef {big}_H
#define {big}_H

#include <stdint.h>

#define {big}_INPUTS {elements} /* {what}, channels last{packing} */
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
        given = "uint32_t" if self.takes_bits else "uint8_t"
        return (
            f"void {self.name}_run(const {given} *input, {self.name}_score *scores, uint32_t *work)"
        )
