"""What the quantizing operators of QONNX, Brevitas and FINN compute, and their thresholds.

The operators are those of the domains onnx.brevitas, qonnx.custom_op.general and
finn.custom_op.general: Quant, IntQuant, BipolarQuant, Trunc and MultiThreshold.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ..layers import fold
from .graph import Node

_ROUNDINGS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "ROUND": np.rint,  # half to even
    "HALF_EVEN": np.rint,
    "CEIL": np.ceil,
    "UP": lambda x: np.sign(x) * np.ceil(np.abs(x)),
    "FLOOR": np.floor,
    "DOWN": np.trunc,
    "ROUND_TO_ZERO": np.trunc,
    "HALF_UP": lambda x: np.sign(x) * np.floor(np.abs(x) + 0.5),
    "HALF_DOWN": lambda x: np.sign(x) * np.ceil(np.abs(x) - 0.5),
}
MAX_BITS = 8


def bipolar_values(x: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """Return scale where x >= 0, else -scale."""
    return np.where(x >= 0, 1.0, -1.0) * scale


def integer_range(node: Node, bits: float) -> tuple[int, int]:
    """Return the least and the largest integer of a Quant node of so many bits."""
    if not (1 <= bits <= 32 and float(bits).is_integer()):
        raise node.refuse(f"bits must be an integer in 1..32, got {bits:g}")
    signed, narrow = bool(node.attributes.get("signed", 1)), bool(node.attributes.get("narrow", 0))
    if signed:
        return -(2 ** (int(bits) - 1)) + narrow, 2 ** (int(bits) - 1) - 1
    return 0, 2 ** int(bits) - 1 - narrow


def rounding_of(node: Node) -> Callable[[np.ndarray], np.ndarray]:
    """Return the rounding of a Quant or Trunc node."""
    usual = "FLOOR" if node.op == "Trunc" else "ROUND"
    mode = str(node.attributes.get("rounding_mode", usual)).upper()
    if mode not in _ROUNDINGS:
        raise node.refuse(f"rounding_mode must be one of {', '.join(_ROUNDINGS)}, got {mode!r}")
    return _ROUNDINGS[mode]


def quantized(
    node: Node, x: np.ndarray, scale: np.ndarray, zero: np.ndarray, bits: np.ndarray
) -> np.ndarray:
    """Return the values of a Quant node: scale * (round(clip(x / scale + zero)) - zero)."""
    low, high = integer_range(node, float(np.reshape(bits, -1)[0]))
    if (low, high) in ((-1, 0), (0, 0)):  # one bit, signed: bipolar
        return bipolar_values(x, scale)
    if not np.isfinite(scale).all() or (scale <= 0).any():
        raise node.refuse("scale must be positive and finite")
    return scale * (rounding_of(node)(np.clip(x / scale + zero, low, high)) - zero)


def quant_thresholds(
    node: Node, scale: np.ndarray, zero: np.ndarray, low: int, high: int
) -> np.ndarray:
    """Return the least float32 x that gives each integer above `low`.

    Parameters
    ----------
    scale, zero : ndarray of shape (features,)

    Returns
    -------
    ndarray of shape (features, high - low), float32
    """
    levels = np.arange(low + 1, high + 1, dtype=np.float32) - np.float32(0.5)
    round_ = rounding_of(node)
    scales = scale.astype(np.float32).repeat(len(levels))
    zeros = zero.astype(np.float32).repeat(len(levels))
    between = np.tile(levels, len(scale))

    def above(x: np.ndarray) -> np.ndarray:
        integers = round_(np.clip(x / scales + zeros, np.float32(low), np.float32(high)))
        return integers - between

    below, _ = fold(above, between.size)  # x > below, so the next number is the least
    return np.nextafter(below, np.float32(np.inf)).reshape(len(scale), len(levels))
