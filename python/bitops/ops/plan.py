"""Programs: chains of operations on packed bits and numbers, compiled to native plans.

A program is written once for one shape of input, as a list of steps between values. `compile`
places the values in one block of memory, where values that are needed at different times share
their bytes:

    x (input) -> [mixed] -> a -> [gemm] -> b -> [gemm] -> y (output)

    step        1   2   3
    a at 0      w   r           w: written, r: read
    b at 64         w   r

A call of the plan then runs all steps without Python.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import _core
from .conv import prepared_convolution
from .float_filters import float_panels
from .geometry import Pair, Window
from .memory import CACHE_LINE, word_count
from .patches import PRODUCT_BYTES, position_blocks, rows_lie_in
from .prepack import Prepacked
from .tiny import normal_or_0

__all__ = ["OtherIsa", "Program", "SpareMemory", "Step", "Value"]

OtherIsa = _core.OtherIsa
SpareMemory = _core.SpareMemory

_CODES = {"uint8": _core.BOOL8, "int32": _core.I32, "float32": _core.F32}
_WORD_BYTES = 8
_SCALED = "affine", "floats_product", "float_conv"  # steps with alpha, bias and relu

Numbers = NDArray[np.float32]
Words = NDArray[np.uint64]


@dataclass(frozen=True, eq=False)
class Value:
    """An array that a step makes or takes.

    Parameters
    ----------
    kind : {"bits", "uint8", "int32", "float32"}
        Bits are packed along the last axis.
    shape : tuple of int
        In elements.
    origin : Value, optional
        The value whose memory this one shares.
    """

    kind: str
    shape: tuple[int, ...]
    origin: Value | None = None

    @property
    def features(self) -> int:
        """Length of the last axis."""
        return self.shape[-1]

    @property
    def rows(self) -> int:
        return math.prod(self.shape[:-1])

    @property
    def nbytes(self) -> int:
        if self.kind == "bits":
            return self.rows * word_count(self.features) * _WORD_BYTES
        return self.rows * self.features * np.dtype(self.kind).itemsize

    def seen_as(self, shape: tuple[int, ...]) -> Value:
        """Return the same memory with another shape."""
        return Value(self.kind, shape, self.memory)

    @property
    def memory(self) -> Value:
        """The value that owns the memory."""
        return self if self.origin is None else self.origin


@dataclass
class Step:
    """A method of `_core.Plan`, its operands, and further arguments."""

    method: str
    inputs: tuple[Value, ...]
    output: Value
    arguments: dict[str, Any]


@dataclass
class Program:
    """Steps on an input; each method adds one and returns the value that it makes.

    Parameters
    ----------
    input : Value
        No size in its shape is 0.
    """

    input: Value
    steps: list[Step] = field(default_factory=list)

    def _add(
        self,
        method: str,
        inputs: tuple[Value, ...],
        kind: str,
        shape: tuple[int, ...],
        **arguments: Any,
    ) -> Value:
        value = Value(kind, shape)
        self.steps.append(Step(method, inputs, value, arguments))
        return value

    def gemm(self, x: Value, w: Prepacked, outputs: Mapping[str, Any]) -> Value:
        """Multiply rows of bits by weights (n, k).

        Parameters
        ----------
        x : Value of shape (..., k)
        w : Prepacked
        outputs : mapping
            What becomes of the products: `alpha` and `bias`, float32, as in `gemm`; or `threshold`,
            int32, and `flip`, packed words, as in `gemm_sign`. Each may be None.
        """
        shape = (*x.shape[:-1], w.shape[0])
        weights = {"w": w.panels(), "rows": w.rows()}
        arguments = {"m": x.rows, **weights, "k": w.shape[1], **outputs}
        return self._add("gemm", (x,), _kind_of_products(outputs), shape, **arguments)

    def conv2d(
        self, x: Value, w: Prepacked, settings: tuple[Any, ...], outputs: Mapping[str, Any]
    ) -> Value:
        """Convolve images of bits with filters; settings are those of `conv2d`, in its order."""
        convolution, output = prepared_convolution("conv2d", x.shape[1:], w, *settings)
        arguments = {"images": x.shape[0], "convolution": convolution, **outputs}
        shape = (x.shape[0], *output)
        return self._add("conv", (x,), _kind_of_products(outputs), shape, **arguments)

    def scaled_conv2d(
        self,
        x: Value,
        k_map: Value,
        w: Prepacked,
        settings: tuple[Any, ...],
        scales: Mapping[str, Any],
    ) -> Value:
        """Convolve as `conv2d` does; scales are its `alpha` and `bias`, float32 or None."""
        convolution, output = prepared_convolution("conv2d", x.shape[1:], w, *settings)
        arguments = {"images": x.shape[0], "convolution": convolution, **scales}
        shape = (x.shape[0], *output)
        return self._add("scaled_conv", (x, k_map), "float32", shape, **arguments)

    def k_map(self, x: Value, window: Window) -> Value:
        """Compute the scale of each output position of a convolution of float32 images."""
        arguments = {"images": x.shape[0], "window": window, "channels": x.features}
        return self._add("k_map", (x,), "float32", (x.shape[0], *window.output, 1), **arguments)

    def mixed(
        self,
        x: Value,
        w: Prepacked,
        bits: int,
        outputs: Mapping[str, Any],
        window: Window | None = None,
    ) -> Value:
        """Multiply numbers, uint8 or float32, by weights, or convolve images of them.

        Parameters
        ----------
        x : Value
            Rows (..., k), or images (n, h, w, c).
        w : Prepacked
            Weights (n, k), or filters in one group.
        bits : int
            uint8 numbers are below 2**bits.
        outputs : mapping
            As in `gemm`, but `threshold` is float32.
        window : Window, optional
            For images.
        """
        rows, words, lead, images = x.rows, w.rows(), x.shape[:-1], None
        k = math.prod(w.shape[1:])
        if window is not None:
            lead, images = (x.shape[0], *window.output), (x.shape[0], window, x.features)
            rows = math.prod(lead)
        kind = _kind_of_products(outputs, x.kind == "float32")
        arguments = {
            "dtype": _CODES[x.kind],
            "bits": bits,
            "rows": rows,
            "k": k,
            "w": words,
            "panels": None if x.kind == "float32" else w.panels(),
            "lookup": w.lookup_panels(),
            "images": images,
            **outputs,
        }
        return self._add("mixed", (x,), kind, (*lead, w.shape[0]), **arguments)

    def matmul(self, x: Value, w: Numbers, bias: Numbers | None) -> Value:
        """Multiply rows of float32 (..., k) by float32 weights (n, k) in BLAS, and add a bias."""
        ends = np.array([x.rows], np.int64)
        return self._floats(x, w.T, ends, (*x.shape[:-1], len(w)), bias, None)

    def convolve(self, x: Value, w: Numbers, bias: Numbers | None, window: Window) -> Value:
        """Convolve images of float32 with float32 filters OHWI, and add a bias."""
        shape = (x.shape[0], *window.output, len(w))
        panels = float_panels(w)
        if panels is not None:
            images = {"images": x.shape[0], "window": window, "channels": x.features}
            scales = {"alpha": None, "bias": bias, "relu": False}
            arguments = {**images, "panels": panels, **scales}
            return self._add("float_conv", (x,), "float32", shape, **arguments)
        return self._convolve_in_blas(x, w, bias, window, shape)

    def _convolve_in_blas(
        self,
        x: Value,
        w: Numbers,
        bias: Numbers | None,
        window: Window,
        shape: tuple[int, ...],
    ) -> Value:
        matrix = normal_or_0(w).reshape(len(w), -1).T
        if rows_lie_in(window):
            ends, images = np.array([math.prod(shape[:-1])], np.int64), None
        else:
            images = x.shape[0], window, x.features
            row_bytes = len(matrix) * w.itemsize
            blocks = position_blocks(x.shape[0], window, row_bytes, max_bytes=PRODUCT_BYTES)
            ends = np.cumsum(
                [math.prod(part.stop - part.start for part in block) for block in blocks]
            )
        return self._floats(x, matrix, ends, shape, bias, images)

    def _floats(
        self,
        x: Value,
        matrix: Numbers,
        ends: NDArray[np.int64],
        shape: tuple[int, ...],
        bias: Numbers | None,
        images: tuple[int, Window, int] | None,
    ) -> Value:
        k, n = matrix.shape
        arguments = {"multiply": partial(_multiply, matrix), "block_ends": ends, "k": k, "n": n}
        scales = {"alpha": None, "bias": bias, "relu": False, "images": images}
        return self._add("floats_product", (x,), "float32", shape, **arguments, **scales)

    def compare(self, x: Value, threshold: Numbers | None, flip: Words | None) -> Value:
        """Compare int32 or float32 numbers with thresholds, as `pack_above`; pack without them."""
        arguments = {"dtype": _CODES[x.kind], "rows": x.rows, "n": x.features}
        return self._add(
            "compare", (x,), "bits", x.shape, threshold=threshold, flip=flip, **arguments
        )

    def affine(
        self, x: Value, alpha: Numbers | None, bias: Numbers | None, *, relu: bool = False
    ) -> Value:
        """Return x * alpha + bias, each step rounded to float32, then max(0, that) if asked."""
        arguments = {"dtype": _CODES[x.kind], "rows": x.rows, "n": x.features}
        scales = {"alpha": alpha, "bias": bias, "relu": relu}
        return self._add("affine", (x,), "float32", x.shape, **arguments, **scales)

    def as_float(self, x: Value) -> Value:
        """Return bits as +-1 and integers as they are, float32."""
        if x.kind == "float32":
            return x
        if x.kind == "bits":
            return self._add("unpack", (x,), "float32", x.shape, rows=x.rows, n=x.features)
        if x.kind == "uint8":
            return self.scale(x, 1.0)
        return self.affine(x, None, None)

    def scale(self, x: Value, value: float) -> Value:
        """Return uint8 numbers times a float32 number."""
        return self._by_element("scale", x, "float32", value=value)

    def add(self, x: Value, other: Value) -> Value:
        """Add two float32 values of one shape."""
        return self._add("add", (x, other), "float32", x.shape, n=x.rows * x.features)

    def weighted_sum(self, parts: Sequence[Value], factors: Sequence[int]) -> Value:
        """Add int32 or float32 values of one shape, each times its factor; two or more."""
        total, total_factor = parts[0], factors[0]
        for part, factor in zip(parts[1:], factors[1:], strict=True):
            arguments = {
                "dtype": _CODES[total.kind],
                "rows": total.rows,
                "n": total.features,
                "x_factor": total_factor,
                "other_factor": factor,
            }
            total = self._add("sum", (total, part), total.kind, total.shape, **arguments)
            total_factor = 1
        return total

    def concat(self, x: Value, other: Value) -> Value:
        """Join two float32 values along the last axis."""
        shape = (*x.shape[:-1], x.features + other.features)
        sizes = {"rows": x.rows, "n": x.features, "k": other.features}
        return self._add("concat", (x, other), "float32", shape, **sizes)

    def times(self, x: Value, other: Value) -> Value:
        """Multiply float32 by float32 of the same shape, or by one row for each image of `x`."""
        sizes = {"rows": x.rows, "n": x.features, "k": x.rows // other.rows}
        return self._add("times", (x, other), "float32", x.shape, **sizes)

    def pad2d(self, x: Value, sides: tuple[Pair, Pair], value: float) -> Value:
        """Put a number around images (n, h, w, c); +1 or -1 around bits."""
        n, height, width, channels = x.shape
        if x.kind == "bits":
            signs = np.full(word_count(channels) * 64, 0, np.uint8)
            signs[:channels] = value > 0
            pixel = np.packbits(signs, bitorder="little")
        else:
            pixel = np.full(channels, value, x.kind).view(np.uint8)
        size = (height + sum(sides[0]), width + sum(sides[1]))
        return self._pad(x, (n, height, width), sides, pixel, (n, *size, channels))

    def pad_features(self, x: Value, before: int, after: int) -> Value:
        """Put zeros beside the features of float32: these are pixels of an image of one line."""
        shape = (*x.shape[:-1], before + x.features + after)
        image = x.rows, 1, x.features
        return self._pad(x, image, ((0, 0), (before, after)), np.zeros(4, np.uint8), shape)

    def _pad(
        self,
        x: Value,
        images: tuple[int, int, int],
        sides: tuple[Pair, Pair],
        pixel: NDArray[np.uint8],
        shape: tuple[int, ...],
    ) -> Value:
        n, height, width = images
        sizes = {"images": n, "height": height, "width": width}
        return self._add("pad", (x,), x.kind, shape, **sizes, sides=sides, pixel=pixel)

    def apply(self, x: Value, function: Callable[[Numbers], Numbers]) -> Value:
        """Apply a function of Python to rows of float32, which gives as many numbers."""
        ends, n = np.array([x.rows], np.int64), x.features
        arguments = {"multiply": partial(_apply, function, n), "block_ends": ends, "k": n, "n": n}
        scales = {"alpha": None, "bias": None, "relu": False, "images": None}
        return self._add("floats_product", (x,), "float32", x.shape, **arguments, **scales)

    def _by_element(self, method: str, x: Value, kind: str, **arguments: Any) -> Value:
        return self._add(method, (x,), kind, x.shape, rows=x.rows, n=x.features, **arguments)

    def clip(self, x: Value, low: float, high: float) -> Value:
        """Limit float32 to low..high."""
        return self._by_element("clip", x, "float32", low=low, high=high)

    def prelu(
        self, x: Value, slope: Numbers, shift: Numbers | None = None, offset: Numbers | None = None
    ) -> Value:
        """Multiply z = x - shift by the slope of its feature where negative, and add an offset."""
        scales = {"slope": slope, "shift": shift, "offset": offset}
        return self._by_element("prelu", x, "float32", **scales)

    def round_codes(self, x: Value, largest: float, codes: int) -> Value:
        """Round float32 of 0..largest to codes 0..codes, ties to the even code."""
        return self._by_element("round", x, "uint8", largest=largest, codes=codes)

    def count_levels(self, x: Value, levels: NDArray[Any]) -> Value:
        """Count the levels (features, levels) of its feature that each number reaches.

        Numbers and levels have one type, int32 or float32.
        """
        columns = np.broadcast_to(levels.T, (levels.shape[1], x.features))
        arguments = {"dtype": _CODES[x.kind], "levels": np.ascontiguousarray(columns)}
        return self._by_element("count", x, "uint8", **arguments)

    def avg_pool2d(self, x: Value, window: Window) -> Value:
        """Take the mean of each window of float32."""
        n, _, _, channels = x.shape
        arguments = {"images": n, "window": window, "channels": channels}
        return self._add(
            "mean_windows", (x,), "float32", (n, *window.output, channels), **arguments
        )

    def global_avg_pool2d(self, x: Value) -> Value:
        """Take the mean of each channel of each image of float32; of several channels."""
        n, height, width, channels = x.shape
        arguments = {"images": n, "positions": height * width, "channels": channels}
        return self._add("mean_images", (x,), "float32", (n, channels), **arguments)

    def max_pool2d(self, x: Value, window: Window, minimum: Words | None) -> Value:
        """Take the largest of each window, of bits or float32; of bits in `minimum` the least."""
        n, _, _, channels = x.shape
        arguments = {"images": n, "window": window, "channels": channels}
        shape = (n, *window.output, channels)
        if x.kind == "bits":
            return self._add("pool_bits", (x,), "bits", shape, minimum=minimum, **arguments)
        return self._add("pool_floats", (x,), "float32", shape, **arguments)

    def flatten(self, x: Value) -> Value:
        """Return examples of any shape as rows."""
        n, *rest = x.shape
        shape = n, math.prod(rest)
        if x.kind != "bits" or len(rest) == 1 or word_count(x.features) * 64 == x.features:
            return x.seen_as(shape)
        image = math.prod(rest[:-1]), 1
        window = Window(image, image, (1, 1), ((0, 0), (0, 0)), (1, 1), (1, 1))
        arguments = {"images": n, "window": window, "channels": x.features}
        return self._add("flatten", (x,), "bits", shape, **arguments)

    def compile(self, output: Value, spare: _core.SpareMemory) -> _core.Plan:
        """Return the plan that makes `output`, which a step must have made.

        Plans that share `spare` leave memory to each other, from call to call.
        """
        steps = _fused(self.steps, output)
        places, size = _place_values(steps, self.input, output)
        plan = _core.Plan(self.input.nbytes, output.nbytes, size, spare)
        for step in steps:
            operands = [places[value.memory] for value in (*step.inputs, step.output)]
            getattr(plan, step.method)(*operands, **step.arguments)
        return plan


def _multiply(matrix: Numbers, rows: memoryview, products: memoryview) -> None:
    """Write the products of rows of float32 with a matrix, both given as bytes."""
    k, n = matrix.shape
    out = np.frombuffer(products, np.float32).reshape(-1, n)
    np.matmul(np.frombuffer(rows, np.float32).reshape(-1, k), matrix, out=out)


def _apply(
    function: Callable[[Numbers], Numbers], n: int, rows: memoryview, out: memoryview
) -> None:
    """Write what a function makes of rows of n float32, both given as bytes."""
    numbers = np.frombuffer(rows, np.float32).reshape(-1, n)
    np.frombuffer(out, np.float32).reshape(-1, n)[...] = function(numbers)


def _kind_of_products(outputs: Mapping[str, Any], are_floats: bool = False) -> str:
    if outputs["threshold"] is not None:
        return "bits"
    if are_floats or outputs["alpha"] is not None or outputs["bias"] is not None:
        return "float32"
    return "int32"


def _fused(steps: list[Step], output: Value) -> list[Step]:
    """Let scales and ReLU join the float32 step before them, if nobody needs what is between."""
    uses = [value.memory for step in steps for value in step.inputs] + [output.memory]
    fused: list[Step] = []
    for step in steps:
        joined = None
        if fused and step.method == "affine" and uses.count(fused[-1].output) == 1:
            joined = _joined(fused[-1], step)
        if joined is None:
            fused.append(step)
        else:
            fused[-1] = joined
    return fused


def _joined(before: Step, step: Step) -> Step | None:
    """Return one step that does the work of two, the second of them `affine`, or None."""
    if before.method not in ("affine", "floats_product", "float_conv") or step.inputs != (
        before.output,
    ):
        return None
    own = {name: step.arguments[name] for name in ("alpha", "bias", "relu")}
    arguments = before.arguments
    if arguments["relu"]:
        return None
    if own["alpha"] is None and own["bias"] is None:
        own = {"relu": own["relu"]}
    elif not (arguments["alpha"] is None and arguments["bias"] is None):
        return None
    return Step(before.method, before.inputs, step.output, {**arguments, **own})


def _place_values(steps: list[Step], source: Value, output: Value) -> tuple[dict[Value, int], int]:
    """Place the values in memory: each at the lowest offset that is free while it is needed.

    Returns
    -------
    places : dict
        Offsets in bytes, or the codes of input and output.
    size : int
        Bytes of all that lies between input and output.
    """
    places = {source: _core.PLAN_INPUT, output.memory: _core.PLAN_OUTPUT}
    last = {value.memory: i for i, step in enumerate(steps) for value in step.inputs}
    live: list[tuple[int, int, int]] = []  # begin, end, the last step that reads it
    size = 0
    for i, step in enumerate(steps):
        live = [range_ for range_ in live if range_[2] >= i]
        value = step.output
        if value in places:
            continue
        length = -(-value.nbytes // CACHE_LINE) * CACHE_LINE
        begin = 0
        for taken, end, _ in sorted(live):
            if begin + length <= taken:
                break
            begin = max(begin, end)
        places[value] = begin
        live.append((begin, begin + length, last.get(value, i)))
        size = max(size, begin + length)
    return places, size
