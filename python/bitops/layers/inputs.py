"""What layers take as input, and the checks of their arrays and settings.

An activation has one of five forms:

    BitArray        +-1, packed along the last axis
    Codes           step * code, codes of 1 to 8 bits, in training: of Quantize, or of products
                    that round their input
    uint8           data such as pixels; has no gradient. In inference also codes
    int32           exact sums of an inference layer
    float32         everything else
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..ops.array import BitArray, unpack
from ..ops.checks import as_float32, check_integer, check_number, plain_array, real_array
from ..ops.results import clip_to_int32

EXACT = 2**24  # float32 holds every integer up to it

# With k features, 255 * k stays below 2**31, so every dot product fits int32. And k stays below
# 2**24, so float32 holds every dot product of bits exactly.
MAX_FEATURES = 2**23


@dataclass(frozen=True)
class Codes:
    """Quantized activations of the training graph: the values are step * code.

    They have a gradient, that of the values. An array of uint8 is data and has none.

    Parameters
    ----------
    numbers : ndarray of shape (..., features), uint8
        The codes, in 0..2^bits - 1.
    bits : int
        1 to 8.
    step : float
        Value that code 1 stands for, a float32 number.

    Examples
    --------
    >>> codes = Codes(np.uint8([[0, 1, 3]]), bits=2, step=0.5)
    >>> as_float(codes)
    array([[0. , 0.5, 1.5]], dtype=float32)
    """

    numbers: np.ndarray
    bits: int
    step: float

    @property
    def shape(self) -> tuple[int, ...]:
        return self.numbers.shape

    @property
    def ndim(self) -> int:
        return self.numbers.ndim

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitem__(self, index) -> Codes:
        return Codes(self.numbers[index], self.bits, self.step)

    def reshape(self, *shape) -> Codes:
        return Codes(self.numbers.reshape(*shape), self.bits, self.step)

    def values(self) -> np.ndarray:
        """Return the values step * code, float32."""
        return self.numbers * np.float32(self.step)

    def __array__(self, dtype=None, copy=None) -> np.ndarray:
        return self.values().astype(dtype or np.float32, copy=False)


@dataclass(frozen=True)
class SignPairs:
    """Sums of two signs: the values -2, 0 and 2, times a step. Signs that pass `Dropout` are these.

    They go from there to a product of the same step of a training, and nowhere else. The two of a
    row are neighbours: so they are in one sum of four of `weight_gemm`, where what is dropped in
    all rows gets a gradient of exactly 0.

    Parameters
    ----------
    bits : BitArray of shape (2 * n, ..., features)
        First and second signs of each row in turn.
    step : float
        Value that a sum of 1 stands for.

    Examples
    --------
    >>> from bitops import pack
    >>> pairs = SignPairs(pack([[1, 1, -1], [1, -1, -1]]), 0.5)
    >>> pairs.added(as_float(pairs.bits)) * pairs.step
    array([[ 1.,  0., -1.]], dtype=float32)
    """

    bits: BitArray
    step: float

    @property
    def shape(self) -> tuple[int, ...]:
        return len(self.bits) // 2, *self.bits.shape[1:]

    def added(self, products: np.ndarray) -> np.ndarray:
        """Return the products of the sums, given those of all signs."""
        return products[0::2] + products[1::2]


Activation = np.ndarray | BitArray | Codes
StepInput = Activation | SignPairs  # of a product in training
Shape = tuple[int | None, ...]  # last axes of an activation; None marks an unknown length


def check_size(where: str, name: str, value: int) -> int:
    """Check that a size is in 1..MAX_FEATURES and return it as a plain int."""
    return check_integer(where, name, value, 1, MAX_FEATURES)


def check_finite(where: str, name: str, value: float) -> float:
    """Check a number that float32 must hold, and return it."""
    check_number(where, name, value)
    with np.errstate(over="ignore"):
        if not np.isfinite(np.float32(value)):
            raise ValueError(f"[{where}] {name} must be finite in float32, got {value}")
    return float(value)


def check_flag(where: str, name: str, value: bool) -> bool:
    """Check that `value` is True or False and return it."""
    if not isinstance(value, bool | np.bool_):
        raise TypeError(f"[{where}] {name} must be True or False, got {value!r}")
    return bool(value)


def check_input_bits(where: str, name: str, value: int) -> int:
    """Check that the bits of a code are in 1..8 and return them as a plain int."""
    return check_integer(where, name, value, 1, 8)


def as_activation(where: str, x, features: int | None = None) -> Activation:
    """Check a layer's input and return it in one of the five forms of activations.

    Parameters
    ----------
    where : str
        Name of the layer, for the message of an error.
    x : BitArray, Codes, or array_like of shape (..., features)
        Bits packed along the last axis, quantized activations, uint8 numbers, or real numbers.
    features : int, optional
        Length that the last axis must have.

    Returns
    -------
    BitArray, Codes, or ndarray of uint8, int32 or float32

    Raises
    ------
    TypeError
        If x is neither bits nor numbers. A bool array is refused: bits must be packed first.
    ValueError
        If x has fewer than two axes, a wrong last axis, or is packed along another axis.
    """
    if isinstance(x, BitArray):
        if x.axis != x.ndim - 1:
            raise ValueError(f"[{where}] x must be packed along its last axis, got {x!r}")
    elif not isinstance(x, Codes):
        x = plain_array(where, "x", x)
        if x.dtype.kind not in "iuf":
            raise TypeError(f"[{where}] x must be a BitArray, uint8 or real, got dtype {x.dtype}")
        if x.dtype not in (np.uint8, np.int32):
            x = as_float32(x)
    if x.ndim < 2:
        raise ValueError(f"[{where}] x must have shape (..., features), got {x.shape}")
    if features is not None and x.shape[-1] != features:
        raise ValueError(f"[{where}] x must have {features} features, got shape {x.shape}")
    return x


def as_images(where: str, x, channels: int | None = None) -> Activation:
    """Check images of shape (n, h, w, channels), as `as_activation` does."""
    x = as_activation(where, x, channels)
    if x.ndim != 4:
        raise ValueError(f"[{where}] x must have shape (n, h, w, channels), got {x.shape}")
    return x


def is_data(x: Activation) -> bool:
    """Return whether an input is uint8 data, to which no gradient is passed back."""
    return isinstance(x, np.ndarray) and x.dtype == np.uint8


def as_float(x: Activation) -> np.ndarray:
    """Return the values of an activation as float32; bits become +-1.

    Examples
    --------
    >>> from bitops import pack
    >>> as_float(pack([1.5, -2.0, 0.0]))
    array([ 1., -1.,  1.], dtype=float32)
    """
    if isinstance(x, BitArray):
        return unpack(x, dtype=np.float32)
    if isinstance(x, Codes):
        return x.values()
    return as_float32(x)


def is_finite(x) -> bool:
    """Return whether an array, as float32, is free of NaN and infinity; make no copy of it."""
    if not isinstance(x, np.ndarray) or x.dtype.kind != "f" or not x.size:
        return True
    with np.errstate(invalid="ignore"):
        extremes = as_float32([x.min(), x.max()])
    return bool(np.isfinite(extremes).all())


def as_rows(where: str, name: str, x) -> Activation:
    """Check the rows, or images, that a model is given, all of them before the first is computed.

    Raises
    ------
    TypeError
        If x is neither bits nor numbers, or is masked.
    ValueError
        If it is a single number, or holds NaN, infinity, or numbers beyond float32.
    """
    if isinstance(x, BitArray | Codes):
        return x
    x = real_array(where, name, x)
    if x.dtype.kind == "b":
        raise TypeError(f"[{where}] {name} must be a BitArray, uint8 or real, got dtype bool")
    if x.ndim == 0:
        raise ValueError(f"[{where}] {name} must have shape (n, features), got ()")
    if not is_finite(x):
        raise ValueError(f"[{where}] {name} must be finite as float32, got NaN or infinity")
    return x


def as_labels(
    where: str, name: str, labels, *, rows: int | None = None, classes: int | None = None
) -> np.ndarray:
    """Check labels of shape (rows,), each in 0..classes-1 as far as these are known.

    Raises
    ------
    TypeError
        If they are not integers, or are masked.
    ValueError
        If their shape is another, or one of them is out of range.
    """
    labels = real_array(where, name, labels)
    if labels.dtype.kind not in "iu":
        raise TypeError(f"[{where}] {name} must be integers, got {labels.dtype}")
    if labels.ndim != 1 or (rows is not None and len(labels) != rows):
        shape = "(n,)" if rows is None else f"({rows},)"
        raise ValueError(f"[{where}] {name} must have shape {shape}, got {labels.shape}")
    if labels.size:
        low, high = int(labels.min()), int(labels.max())
        if low < 0 or (classes is not None and high >= classes):
            allowed = ">= 0" if classes is None else f"in 0..{classes - 1}"
            wrong = low if low < 0 else high
            raise ValueError(f"[{where}] {name} must be {allowed}, got {wrong}")
    return labels


def as_thresholds(where: str, threshold, features: int | None) -> np.ndarray:
    """Check thresholds, one a feature; return int32 or float32.

    Clipping integers to int32 has no effect on sums of integers, but on real ones beyond 2^31.
    """
    threshold = plain_array(where, "threshold", threshold)
    if threshold.dtype.kind in "iu":
        threshold = clip_to_int32(threshold)
    elif threshold.dtype.kind == "f":
        threshold = as_float32(threshold)  # infinity makes a feature constant
        if np.isnan(threshold).any():
            raise ValueError(f"[{where}] threshold must not be NaN")
    else:
        raise TypeError(f"[{where}] threshold must be integer or real, got {threshold.dtype}")
    return per_feature(where, "threshold", threshold, features)


def float_thresholds(threshold: np.ndarray) -> np.ndarray | None:
    """Return thresholds as float32 that decide alike for int32 and float32; None if none do."""
    single = threshold.astype(np.float32)
    if threshold.dtype != np.float32 and np.abs(single).max(initial=0) >= EXACT:
        return None
    return single


def as_flips(where: str, flip, features: int, name: str = "flip") -> np.ndarray | None:
    """Check flips, bool, one a feature; return None if nothing is flipped."""
    if flip is None:
        return None
    flip = plain_array(where, name, flip)
    if flip.dtype != np.bool_:
        raise TypeError(f"[{where}] {name} must be bool, got {flip.dtype}")
    flip = per_feature(where, name, flip, features)
    return flip if flip.any() else None


def as_scales(where: str, name: str, value, features: int | None) -> np.ndarray | None:
    """Check factors or terms, one a feature; return float32, or None if there are none."""
    if value is None:
        return None
    value = plain_array(where, name, value)
    if value.dtype.kind not in "iuf":
        raise TypeError(f"[{where}] {name} must be real, got {value.dtype}")
    return per_feature(where, name, _as_finite(where, name, value), features)


def as_weights(where: str, value, axes: str) -> np.ndarray:
    """Check weights with the named axes; return a read-only float32 copy."""
    value = plain_array(where, "w", value)
    if value.dtype.kind not in "iuf":
        raise TypeError(f"[{where}] w must be real, got {value.dtype}")
    if value.ndim != axes.count(",") + 1 or 0 in value.shape:
        raise ValueError(f"[{where}] w must have shape ({axes}), all >= 1, got {value.shape}")
    value = np.array(_as_finite(where, "w", value), order="C")
    value.flags.writeable = False
    return value


def _as_finite(where: str, name: str, value: np.ndarray) -> np.ndarray:
    """Numbers as float32, none of which may be NaN or infinite, or become infinite."""
    rounded = as_float32(value)
    if not np.isfinite(rounded).all():
        raise ValueError(f"[{where}] {name} must be finite as float32, got NaN or infinity")
    return rounded


def per_feature(where: str, name: str, value: np.ndarray, features: int | None) -> np.ndarray:
    """Return a scalar, or one number a feature, as a read-only array of shape (features,)."""
    if features is None and value.ndim == 1 and value.size:
        features = value.size
    if features is None or value.shape not in ((), (features,)):
        raise ValueError(
            f"[{where}] {name} must have shape ({features or 'features'},), got {value.shape}"
        )
    value = np.array(np.broadcast_to(value, (features,)))  # a copy: the caller's may change
    value.flags.writeable = False
    return value
