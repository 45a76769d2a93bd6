"""The trainable array: value, gradient, and cached signs."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np

from ..ops.array import BitArray, pack, unpack
from ..ops.checks import as_float32, check_rate, plain_array, real_array

SHORT_MOST, SHORT_NAN = 32767, -32768  # of the int16 that `Parameter.shorts` keeps a value as
_PIECE = 32768  # elements that are converted at a time, so that copies fit the cache


class DeferredGradient(Protocol):
    """A gradient that is not computed yet, as its operands take less memory."""

    def write(self, out: np.ndarray) -> None:
        """Write the gradient to an array of the shape of the parameter."""


@runtime_checkable
class GradientProduct(DeferredGradient, Protocol):
    """One that is the product of real numbers with bits, to be computed as a whole or in pieces.

    Attributes
    ----------
    numbers : ndarray of shape (k, rows), float32, or uint8 with alpha
    bits : BitArray of shape (columns, k)
    zero : int
        What stands for 0 in uint8 numbers.
    alpha, bias : ndarray of shape (columns,), float32, or None
    """

    numbers: np.ndarray
    bits: BitArray
    zero: int
    alpha: np.ndarray | None
    bias: np.ndarray | None


@dataclass(frozen=True)
class _Shorts:
    """Numbers of [-limit, limit] as int16, in units of limit / 32767; -32768 stands for NaN."""

    limit: float
    numbers: np.ndarray

    @classmethod
    def of(cls, value: np.ndarray, limit: float) -> _Shorts:
        """Clip float32, and round them to the nearest, piece by piece."""
        floats, numbers = value.reshape(-1), np.empty(value.size, np.int16)
        for start in range(0, floats.size, _PIECE):
            piece = slice(start, start + _PIECE)
            with np.errstate(over="ignore"):  # infinity is clipped, too
                scaled = np.rint(floats[piece] * np.float32(SHORT_MOST / limit))
            np.clip(scaled, -SHORT_MOST, SHORT_MOST, out=scaled)
            scaled[np.isnan(scaled)] = SHORT_NAN
            numbers[piece] = scaled
        return cls(limit, numbers.reshape(value.shape))

    def floats(self) -> np.ndarray:
        """Return the float32; `of` gives the same int16 again."""
        value = self.numbers.astype(np.float32)
        value *= np.float32(self.limit)
        value /= np.float32(SHORT_MOST)
        np.copyto(value, np.float32(np.nan), where=self.numbers == SHORT_NAN)
        return value


class Parameter:
    """One trainable float32 array, its gradient, and settings for the optimizer.

    Parameters
    ----------
    value : array_like
        Initial value, copied as float32.
    clip_value : float, optional
        The optimizer clips the array to [-clip_value, clip_value] after each step.
    lr_scale : float
        Multiplies the learning rate.
    binary : bool
        Whether the layer uses only the signs, packed along the last axis.

    Attributes
    ----------
    grad : ndarray of float32
        Gradient of the last backward pass. Ask for it anew after each one: that of weights may be
        computed only then, see `defer_gradient`.
    deferred_gradient : DeferredGradient or None
        The gradient of the last backward pass as long as nobody has asked for `grad`.
    trainable : bool
        Whether optimizers change the value; True at the start.
    version : int
        Grows with every change. Whoever caches something made from the value, such as packed bits,
        compares versions to see whether it is stale.

    Notes
    -----
    Pickles and copies hold the gradient too, so that the next step of an optimizer is the same.

    Examples
    --------
    >>> weight = Parameter([[0.5, -2.0]], clip_value=1.0, binary=True)
    >>> np.asarray(weight.signs())
    array([[ 1, -1]], dtype=int8)
    >>> weight.assign([[-1, -1]])
    >>> weight.value
    array([[-1., -1.]], dtype=float32)
    """

    trainable: bool = True

    def __init__(
        self,
        value,
        *,
        clip_value: float | None = None,
        lr_scale: float = 1.0,
        binary: bool = False,
    ):
        numbers = as_float32(real_array("Parameter", "value", value))
        # one name, so that other threads see one way or another
        self._value: np.ndarray | _Shorts | BitArray = np.array(numbers, order="C")
        self._grad = np.zeros(numbers.shape, np.float32)  # pages come at the first use
        self.deferred_gradient: DeferredGradient | None = None
        self.clip_value = clip_value
        self.lr_scale = check_rate("Parameter", "lr_scale", lr_scale, zero=True)
        self.binary = binary
        self.version = 0
        self._signs: tuple[int, BitArray] | None = None  # the version that they are of, and signs

    def __getstate__(self) -> dict[str, Any]:
        state = {**vars(self), "_value": self._array(), "_signs": None, "grad": self.grad}
        del state["_grad"], state["deferred_gradient"]
        return state

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        vars(self).update({name: part for name, part in state.items() if name != "grad"})
        self._signs = None
        self._value = _checked("value", self._value, self._value)
        self.grad = _checked("gradient", state["grad"], self._value)

    def __copy__(self) -> Parameter:
        """Return a copy with arrays of its own: `version` counts the changes of one parameter."""
        return copy.deepcopy(self)

    @property
    def shape(self) -> tuple[int, ...]:
        return self._grad.shape

    @property
    def size(self) -> int:
        return self._grad.size

    @property
    def grad(self) -> np.ndarray:
        deferred = self.deferred_gradient
        if deferred is not None:
            deferred.write(self._grad)
            self.deferred_gradient = None
        return self._grad

    @grad.setter
    def grad(self, array: np.ndarray) -> None:
        self._grad, self.deferred_gradient = array, None

    def overwritten_gradient(self) -> np.ndarray:
        """Return the array of the gradient, all of which the caller writes."""
        self.deferred_gradient = None
        return self._grad

    def defer_gradient(self, gradient: DeferredGradient) -> None:
        """Take a gradient to be computed by whoever asks for it first.

        An optimizer may take a `GradientProduct` piece by piece, so that it is never in memory as a
        whole, and another one into memory that it frees at once.
        """
        self.deferred_gradient = gradient

    @property
    def value(self) -> np.ndarray:
        """Read-only view, or a copy while it is kept as bits or int16.

        Change the parameter with `assign` or through `writable`.
        """
        view = self._array().view()
        view.flags.writeable = False
        return view

    def _array(self) -> np.ndarray:
        """Return the value; a new array as long as it is kept as bits or int16."""
        value = self._value  # once, as another thread may assign
        if isinstance(value, _Shorts):
            return value.floats()
        return unpack(value, dtype=np.float32) if isinstance(value, BitArray) else value

    def writable(self) -> np.ndarray:
        """Return the array itself, to be changed in place at once; this counts as a change.

        Signs that another thread packs while you write stay until the next change.
        """
        self._value = value = self._array()
        self.version += 1
        return value

    @property
    def may_be_short(self) -> bool:
        """Whether `shorts` may keep the value: that of binary weights which are clipped."""
        # so that a unit, and 32767 / clip_value, are normal numbers of float32
        return self.binary and self.clip_value is not None and 1e-30 <= self.clip_value <= 1e30

    def shorts(self) -> np.ndarray:
        """Return the value as int16, to be changed in place at once; this counts as a change.

        They are in units of clip_value / 32767, and -32768 stands for NaN. From now on the value is
        theirs, in half the memory, clipped, and rounded to the nearest, until someone calls
        `writable` or assigns to it. `may_be_short` tells for which parameters that is.
        """
        kept = self._value
        if not isinstance(kept, _Shorts) or kept.limit != self.clip_value:
            assert self.clip_value is not None
            self._value = kept = _Shorts.of(self._array(), float(self.clip_value))
        self.version += 1
        return kept.numbers

    def assign(self, value) -> None:
        """Copy `value`, an array_like of the same shape, into the parameter."""
        value = plain_array("Parameter", "value", value)
        if value.shape != self.shape:
            raise ValueError(f"[Parameter] value must have shape {self.shape}, got {value.shape}")
        try:
            np.copyto(self.writable(), value, casting="same_kind")
        finally:
            self.version += 1  # another thread may have packed what was half written

    def signs(self) -> BitArray:
        """Return the signs of the value, packed along the last axis; repack only after a change."""
        version, known = self.version, self._signs
        if known is None or known[0] != version:
            known = self._signs = version, self._packed()
        return known[1]

    def _packed(self) -> BitArray:
        kept = self._value
        if isinstance(kept, BitArray):
            return kept
        if isinstance(kept, _Shorts) and not (kept.numbers == SHORT_NAN).any():
            return pack(kept.numbers)
        return pack(self._array())  # which refuses NaN

    def assign_signs(self, signs: BitArray) -> None:
        """Set the value to the +-1 of bits of the same shape, packed along the last axis.

        They stay packed until the array is to be changed, so they take 32 times less memory.
        """
        if signs.shape != self.shape or signs.axis != signs.ndim - 1:
            raise ValueError(
                f"[Parameter] signs must have shape {self.shape} and be packed along the last "
                f"axis, got {signs!r}"
            )
        self._value = signs
        self.adopt_signs(signs)

    def adopt_signs(self, signs: BitArray) -> None:
        """Cache signs of a value that the caller has changed; this counts as a change."""
        version = self.version + 1
        self._signs = version, signs  # first, so that no other thread packs them again
        self.version = version

    def __repr__(self) -> str:
        return f"Parameter(shape={self.shape}, lr_scale={self.lr_scale:.4g})"


class Outline:
    """A parameter without its gradient, to be sent to where another gradient is computed.

    Parameters
    ----------
    parameter : Parameter
    signs : bool
        Whether the signs of the value suffice there: they are 32 times smaller.

    Attributes
    ----------
    value : ndarray of float32, or BitArray
        Shared with the parameter, unless that keeps it as bits or int16.
    """

    def __init__(self, parameter: Parameter, *, signs: bool) -> None:
        arrays = ("_value", "_grad", "deferred_gradient", "_signs")
        self._settings = {n: v for n, v in vars(parameter).items() if n not in arrays}
        self.value: np.ndarray | BitArray = parameter.signs() if signs else parameter.value

    def parameter(self) -> Parameter:
        """Return the parameter, with a gradient of its own; it shares the value."""
        made = Parameter.__new__(Parameter)
        vars(made).update(self._settings, _value=self.value, _signs=None)
        made.grad = np.zeros(self.value.shape, np.float32)
        if not isinstance(self.value, BitArray):
            # messages may lie askew in memory, where BLAS gives other bits
            made._value = np.require(self.value, requirements="A")
        return made


def own_array(array: np.ndarray) -> np.ndarray:
    """Return an array that may be written to: itself, or a copy.

    Joblib and other programs map large arrays of a pickle read-only, from a file or a message.
    """
    return array if array.flags.writeable and array.flags.aligned else np.array(array)


def _checked(name: str, array: Any, value: Any) -> np.ndarray:
    """Return an array of a pickle, which must be float32 and of the shape of the value."""
    is_ours = isinstance(array, np.ndarray) and array.dtype == np.float32
    if not is_ours or array.shape != value.shape or not array.flags.c_contiguous:
        raise ValueError(
            f"[Parameter] {name} of a pickle must be contiguous float32 of the shape of the value, "
            f"got {array!r:.80}"
        )
    return own_array(array)
