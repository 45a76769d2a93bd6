"""The float32 twin of a packed network, and a benchmark of the two side by side."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..layers import Layer, Packed, PackedConv2D, PackedDense, PackedFlatten, PackedMaxPool2D
from ..ops.array import unpack
from ..ops.geometry import Window
from ..ops.patches import patch_blocks
from .timing import Timing, WrongResult, interleave, threads

__all__ = ["FloatNet", "InferenceResult", "float_conv2d", "measure_inference"]


def float_conv2d(
    x: np.ndarray, filters: np.ndarray, window: Window, *, out: np.ndarray
) -> np.ndarray:
    """Convolve float32 images with BLAS, in blocks of patches that fit the cache.

    Parameters
    ----------
    x : ndarray of shape (n, h, w, c), float32
    filters : ndarray of shape (kh * kw * c, o), float32
    window : Window
        Positions outside the image are 0.
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
    """The float32 twin of a packed network, in NumPy: BLAS product, scale and shift, sign.

    Parameters
    ----------
    model : Packed
        Its layers may be PackedDense, PackedConv2D, PackedMaxPool2D and PackedFlatten. Convolutions
        must have one group, pad_value=0 and no scale_input.

    Notes
    -----
    Its scores equal those of `model` exactly as long as every product is an integer below 2**24, as
    for bits and 8-bit images. A bit (z > t) ^ flip is then the sign of z - t', or of t - z with
    flip. Here t' lies above t, with no product in between. Pools and Flatten are the layers of
    `model`, applied to numbers.
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
    """A float32 product with the weights of a packed layer, then its scale and shift, or sign."""

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
    """Convolve float32 images with the settings of a packed layer."""
    window = layer.operation.windows.on("FloatNet", x)
    out = np.empty((len(x), *window.output, filters.shape[1]), np.float32)
    return float_conv2d(x, filters, window, out=out)


def _scale_and_shift(
    threshold: np.ndarray, flip: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray]:
    """Return factor and term whose sign decides as thresholds do; see `FloatNet`."""
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
        """Speed relative to float32 BLAS, best time against best time."""
        return self.blas.best / self.packed.best


def measure_inference(
    model: Packed, x: np.ndarray, thread_count: int, *, seconds: float
) -> InferenceResult:
    """Time one batch through a packed model and its float32 twin, and check all scores.

    Parameters
    ----------
    model : Packed
        A model that `FloatNet` accepts.
    x : ndarray of shape (n, features) or (n, h, w, channels)
    thread_count : int
    seconds : float
        Time budget of both models together.

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
