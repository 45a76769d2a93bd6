"""Timing, machine stamp and the GEMM measurement behind `bitops bench`, `bitops demo` and bench/.

Rules kept here once: set-up stays outside the timer, rivals are timed in turns within one run (so
that a drifting clock or a busy neighbour hits both sides of a ratio), every timed result is checked
against float32 BLAS, and a figure never travels without the machine it came from.
"""

from __future__ import annotations

import contextlib
import functools
import os
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from . import gemm, get_num_threads, isa, pack, prepack, set_num_threads, show_config, unpack
from .layers import Layer, Packed, PackedConv2D, PackedDense, PackedFlatten, PackedMaxPool2D
from .ops.geometry import Window
from .ops.patches import patch_blocks

# (m, n, k): squares, a 3x3 convolution of 256 channels at 14x14, a dense layer at batch 100 and 1.
GEMM_SHAPES = (
    (512, 512, 512),
    (1024, 1024, 1024),
    (2048, 2048, 2048),
    (196, 256, 2304),
    (100, 4096, 4096),
    (1, 4096, 4096),
)

MIN_ROUNDS = 3
# Long enough that the clock's resolution and the interpreter's loop do not show.
BLOCK_SECONDS = 0.005

NO_BLAS_LIMIT = "note: BLAS keeps its own thread count; threadpoolctl, if installed, limits it"


class WrongResult(RuntimeError):
    """A timed call returned something else than the reference."""


@dataclass(frozen=True)
class Timing:
    """Seconds per call over the rounds of one measurement.

    Attributes
    ----------
    best, median : float
        Fastest and middle round, in seconds.
    spread : float
        Distance between the quartiles as a fraction of the median.
    rounds : int
        How many rounds were timed.
    """

    best: float
    median: float
    spread: float
    rounds: int

    @classmethod
    def of(cls, seconds: list[float]) -> Timing:
        """Summarise one list of seconds per call."""
        low, median, high = np.quantile(seconds, [0.25, 0.5, 0.75])
        return cls(min(seconds), float(median), float((high - low) / median), len(seconds))


def _seconds_per_call(call: Callable[[], Any], count: int) -> tuple[float, Any]:
    start = time.perf_counter()
    for _ in range(count):
        result = call()
    return (time.perf_counter() - start) / count, result


def interleave(
    calls: Mapping[str, Callable[[], Any]],
    *,
    seconds: float,
    check: Callable[[str, Any], None] | None = None,
) -> dict[str, Timing]:
    """Time several calls in turns: one block of each, then the next round.

    Parameters
    ----------
    calls : mapping of str to callable
        What to time; arguments and output buffers are bound beforehand.
    seconds : float
        Time budget of all rounds together; at least `MIN_ROUNDS` rounds are made.
    check : callable, optional
        Called outside the timer with the name and the result of every block; raises `WrongResult`.

    Returns
    -------
    dict of str to Timing

    Notes
    -----
    Operands are warm: an untimed call opens each block, which brings them back into cache and gives
    worker threads that the previous call left spinning time to go to sleep.
    """
    counts = {}
    for name, call in calls.items():
        call()
        counts[name] = max(1, round(BLOCK_SECONDS / max(_seconds_per_call(call, 1)[0], 1e-9)))
    samples: dict[str, list[float]] = {name: [] for name in calls}
    deadline = time.perf_counter() + seconds
    rounds = 0
    while rounds < MIN_ROUNDS or time.perf_counter() < deadline:
        for name, call in calls.items():
            call()
            elapsed, result = _seconds_per_call(call, counts[name])
            samples[name].append(elapsed)
            if check is not None:
                check(name, result)
        rounds += 1
    return {name: Timing.of(values) for name, values in samples.items()}


def can_limit_blas() -> bool:
    """Tell whether threadpoolctl is installed, without which BLAS keeps its own thread count."""
    try:
        import threadpoolctl  # noqa: F401
    except ImportError:
        return False
    return True


@contextlib.contextmanager
def threads(count: int) -> Iterator[None]:
    """Run a block with `count` threads in bitops and, where threadpoolctl is installed, in BLAS."""
    before = get_num_threads()
    with contextlib.ExitStack() as stack:
        if can_limit_blas():
            from threadpoolctl import threadpool_limits

            stack.enter_context(threadpool_limits(limits=count, user_api="blas"))
        stack.callback(set_num_threads, before)
        set_num_threads(count)
        yield


def thread_counts() -> tuple[int, ...]:
    """Return the thread counts worth measuring here: one, and all if that is more."""
    return tuple(sorted({1, get_num_threads()}))


def random_signs(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Draw an ndarray of +1 and -1, float32."""
    return rng.integers(0, 2, size=shape).astype(np.float32) * 2 - 1


@dataclass(frozen=True)
class GemmResult:
    """One row of the GEMM table: float32 BLAS, packed operands, `a` packed within the call."""

    m: int
    n: int
    k: int
    threads: int
    isa: str
    blas: Timing
    packed: Timing
    with_packing: Timing

    def gmacs(self, timing: Timing) -> float:
        """Return 1e9 multiply-accumulates per second, a binary one counted like a real one."""
        return self.m * self.n * self.k / timing.best / 1e9

    def ratio(self, timing: Timing) -> float:
        """Return how many times faster than float32 BLAS, best time against best time."""
        return self.blas.best / timing.best

    def as_dict(self) -> dict[str, Any]:
        """Return everything measured and derived, for JSON."""
        return asdict(self) | {
            "gmacs": {
                "blas": self.gmacs(self.blas),
                "packed": self.gmacs(self.packed),
                "with_packing": self.gmacs(self.with_packing),
            },
            "ratio": {
                "packed": self.ratio(self.packed),
                "with_packing": self.ratio(self.with_packing),
            },
        }


class GemmOperands:
    """Operands and output buffers of one GEMM, float32 and packed, with a check of the results."""

    def __init__(self, m: int, n: int, k: int, seed: int = 0):
        rng = np.random.default_rng(seed)
        self.shape = (m, n, k)
        self.a, self.w = random_signs(rng, (m, k)), random_signs(rng, (n, k))
        self.a_bits, self.w_bits = pack(self.a), prepack(pack(self.w))
        self.float_out = np.empty((m, n), np.float32)
        self.out = np.empty((m, n), np.int32)
        # Exact: every partial sum of +-1 is an integer below 2**24, which float32 holds.
        assert k <= 1 << 24
        self.expected = self.a @ self.w.T

    def blas(self) -> np.ndarray:
        """float32 BLAS on the +-1 values."""
        return np.matmul(self.a, self.w.T, out=self.float_out)

    def packed(self) -> np.ndarray:
        """Both operands packed beforehand."""
        return gemm(self.a_bits, self.w_bits, out=self.out)

    def with_packing(self) -> np.ndarray:
        """float32 `a` packed within the call, weights beforehand, as in a network."""
        return gemm(pack(self.a), self.w_bits, out=self.out)

    def check(self, name: str, result: np.ndarray) -> None:
        """Compare with the float32 product, then spoil the buffer, to find an unwritten one."""
        if not np.array_equal(result, self.expected):
            raise WrongResult(f"[bench] {name} gave a wrong product for (m, n, k) = {self.shape}")
        result.fill(np.iinfo(np.int32).min)


def measure_gemm(operands: GemmOperands, thread_count: int, *, seconds: float) -> GemmResult:
    """Time one shape with one thread count on the running ISA.

    Raises
    ------
    WrongResult
        If any timed product differs from the float32 one.
    """
    calls = {
        "blas": operands.blas,
        "packed": operands.packed,
        "with_packing": operands.with_packing,
    }
    with threads(thread_count):
        timings = interleave(calls, seconds=seconds, check=operands.check)
    return GemmResult(
        *operands.shape,
        thread_count,
        isa.active(),
        timings["blas"],
        timings["packed"],
        timings["with_packing"],
    )


def machine_stamp() -> dict[str, Any]:
    """Return what belongs beside a figure: processor, ISA, compiler, threads, BLAS, load."""
    config: Any = show_config(mode="dicts")
    return config | {
        "date": time.strftime("%Y-%m-%d %H:%M:%S %z"),
        "load": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        "blas_threads_limited": can_limit_blas(),
    }


def float_conv2d(
    x: np.ndarray, filters: np.ndarray, window: Window, *, out: np.ndarray
) -> np.ndarray:
    """Convolve float32 images in NumPy: patches as rows, in blocks that fit the cache, and BLAS.

    Parameters
    ----------
    x : ndarray of shape (n, h, w, c), float32
    filters : ndarray of shape (kh * kw * c, o), float32
    window : Window
        Outside the image are zeros.
    out : ndarray of shape (n, oh, ow, o), float32, C-contiguous

    Returns
    -------
    ndarray
        `out`.
    """
    for block, rows in patch_blocks(x, window):
        np.matmul(rows, filters, out=out[block].reshape(len(rows), -1))
    return out


class FloatNet:
    """A packed net in NumPy float32: BLAS product, scale and shift, sign; the rival of inference.

    Parameters
    ----------
    model : Packed
        Of PackedDense, PackedConv2D, PackedMaxPool2D and PackedFlatten; convolutions of one group
        with zeros outside and without scale_input.

    Notes
    -----
    Gives the very scores of `model` while every product is an integer below 2**24, as for bits and
    8-bit images: (z > t) ^ flip is the sign of z - t' or of t - z, where t' lies above t, and no
    product between the two. Pools and Flatten are those of `model`, on numbers.
    """

    def __init__(self, model: Packed):
        self._steps = [self._step(layer) for layer in model.layers]

    @staticmethod
    def _step(layer: Layer) -> Callable[[np.ndarray], Any]:
        if isinstance(layer, PackedDense):
            return _FloatProduct(layer, np.matmul)
        if isinstance(layer, PackedConv2D) and not (
            layer.scale_input or layer.operation.pad_value or layer.operation.groups != 1
        ):
            return _FloatProduct(layer, functools.partial(_float_layer, layer))
        if isinstance(layer, PackedMaxPool2D | PackedFlatten):
            return layer.forward
        raise TypeError(f"[FloatNet] no float32 twin is known for this layer, got {layer!r}")

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """Return the scores of float32 rows or images."""
        for step in self._steps:
            x = step(x)
        return x


class _FloatProduct:
    """A product with the weights (k, n) of a packed layer, then what the layer does with it."""

    def __init__(
        self,
        layer: PackedDense | PackedConv2D,
        product: Callable[[np.ndarray, np.ndarray], np.ndarray],
    ):
        self._product = product
        self._weight = unpack(layer.weight, dtype=np.float32).reshape(layer.weight.shape[0], -1).T
        self._signs = layer.threshold is not None
        self._scale, self._shift = layer.alpha, layer.bias
        if layer.threshold is not None:
            self._scale, self._shift = _scale_and_shift(layer.threshold, layer.flip)

    def __call__(self, x: np.ndarray) -> np.ndarray:
        x = self._product(x, self._weight)
        if self._scale is not None:
            x *= self._scale
        if self._shift is not None:
            x += self._shift
        return np.copysign(np.float32(1), x, out=x) if self._signs else x


def _float_layer(layer: PackedConv2D, x: np.ndarray, filters: np.ndarray) -> np.ndarray:
    window = layer.operation.windows.on("FloatNet", x)
    out = np.empty((len(x), *window.output, filters.shape[1]), np.float32)
    return float_conv2d(x, filters, window, out=out)


def _scale_and_shift(
    threshold: np.ndarray, flip: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray]:
    at = threshold.astype(np.float32)
    if threshold.dtype.kind == "i":
        above = at + np.float32(0.5)
    else:
        above = np.nextafter(at, np.float32(np.inf))
    flips = np.zeros(at.shape, bool) if flip is None else flip
    return np.where(flips, np.float32(-1), np.float32(1)), np.where(flips, at, -above)


@dataclass(frozen=True)
class InferenceResult:
    """Seconds per batch of a packed model and of its float32 twin."""

    batch: int
    threads: int
    blas: Timing
    packed: Timing

    @property
    def ratio(self) -> float:
        """How many times faster than float32 BLAS, best time against best time."""
        return self.blas.best / self.packed.best


def measure_inference(
    model: Packed, x: np.ndarray, thread_count: int, *, seconds: float
) -> InferenceResult:
    """Time one batch through a packed model and through its float32 twin, checking all scores.

    Parameters
    ----------
    model : Packed
        As `FloatNet` takes it.
    x : ndarray of shape (n, features) or (n, h, w, channels)
    thread_count : int
    seconds : float
        Time budget of both together.

    Raises
    ------
    WrongResult
        If the two disagree in any score.
    """
    rival = FloatNet(model)
    numbers = x.astype(np.float32)
    expected = model(x)

    def check(name: str, scores: np.ndarray) -> None:
        if not np.array_equal(scores, expected):
            raise WrongResult(f"[bench] {name} gave other scores for a batch of {len(x)}")

    calls = {"blas": lambda: rival(numbers), "packed": lambda: model(x)}
    with threads(thread_count):
        timings = interleave(calls, seconds=seconds, check=check)
    return InferenceResult(len(x), thread_count, timings["blas"], timings["packed"])
