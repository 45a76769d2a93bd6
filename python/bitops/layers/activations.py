"""Activations and their packed twins."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ..ops.array import BitArray, above_operand, pack, pack_operand, unpack
from ..ops.checks import as_float32
from ..ops.memory import WORD_BITS
from ..ops.normalize import keep_within, positives, signs_within
from ..quantizers import (
    AnnealedSign,
    ApproxSign,
    ClippedGradient,
    DoReFaActivation,
    DoReFaGradient,
    Heaviside,
    ProgressiveSign,
    Quantizer,
    SteSign,
    StochasticSign,
    SwishSign,
)
from ..quantizers.base import LARGEST, check_clip, check_quantizer
from .base import (
    Cost,
    Layer,
    TrainingLayer,
    check_gradient,
    place_in_mro,
    saved_for_backward,
)
from .inputs import (
    Activation,
    Codes,
    as_activation,
    as_flips,
    as_float,
    as_thresholds,
    check_input_bits,
    float_thresholds,
)
from .planes import OWN_WEIGHT_QUANTIZERS
from .registry import ArraySpec, register
from .roles import Role

if TYPE_CHECKING:
    from ..ops.plan import Value
    from .plans import Chain


@register
class Sign(TrainingLayer):
    """Activation q = sign(x), with sign(0) = +1, trained by a pseudo-gradient.

    Parameters
    ----------
    clip_value : float
        Gradients pass where abs(x) <= clip_value; infinity lets every gradient pass.
    quantizer : Quantizer, optional
        Alternative to clip_value: SteSign, ApproxSign, SwishSign, AnnealedSign, StochasticSign or
        ProgressiveSign of `bitops.quantizers`, a ClippedGradient of one of them, or any other
        object with `forward(x)` and `backward(x, grad)`. Training calls these two methods.
        Evaluation always takes the sign.

    Notes
    -----
    Forward:  q = +1 if x >= 0 else -1, a BitArray packed along the features. In training the
    quantizer makes q: StochasticSign draws random signs, ProgressiveSign returns numbers. A
    quantizer from outside this package gives bits if all its values are +-1, otherwise numbers.
    Pseudo-gradient:  dx = dq * (abs(x) <= clip_value), or that of the quantizer. With
    clip_value = 1 it is the gradient of the hard tanh.

    References
    ----------
    Courbariaux, Hubara et al., "Binarized Neural Networks", 2016, eqs. 1 and 4.

    Examples
    --------
    >>> np.asarray(Sign()(np.float32([[-3, 0, 2]])))
    array([[-1,  1,  1]], dtype=int8)
    """

    SAVED = ("_x", "within")

    role = Role.SIGN

    def __init__(self, clip_value: float | None = None, *, quantizer: Quantizer | None = None):
        if clip_value is not None and quantizer is not None:
            raise ValueError("[Sign] give either clip_value or quantizer, got both")
        if quantizer is None:
            clip_value = 1.0 if clip_value is None else clip_value
            check_clip("Sign", clip_value)
            quantizer = SteSign(float(clip_value))
        check_quantizer("Sign", quantizer)
        if isinstance(_innermost(quantizer), _NO_SIGNS):
            raise TypeError(f"[Sign] quantizer must be one of signs, got {quantizer!r}")
        self.quantizer = quantizer
        # Of the last training step: where gradients pass, or else the values.
        self.within: BitArray | None = None
        self._x: np.ndarray | None = None

    @property
    def limit(self) -> float | None:
        """Where gradients pass if they pass unchanged, in magnitude; else None."""
        return self.quantizer.clip_value if type(self.quantizer) is SteSign else None

    def forward(self, x, *, training: bool = False) -> Activation:
        values = as_float(as_activation("Sign", x))
        if not training:
            return pack(values)
        if self.limit is not None:  # bits take less memory than the values
            signs, self.within = signs_within("Sign", values, self.limit)
            return signs
        self._x = values
        made = np.asarray(self.quantizer.forward(values), np.float32)
        kind = type(_innermost(self.quantizer))
        if kind is ProgressiveSign:
            return made
        return pack(made) if kind in _SIGNS or (np.abs(made) == 1).all() else made

    def backward(self, grad: np.ndarray) -> np.ndarray:
        if self.limit is not None:
            return keep_within(grad, saved_for_backward(self, self.within))
        return self.quantizer.backward(saved_for_backward(self, self._x), grad)

    def generators(self) -> list[np.random.Generator]:
        generator = getattr(_innermost(self.quantizer), "generator", None)
        return [] if generator is None else [generator]

    def output_bits(self, input_bits: int | None) -> int | None:
        return 1

    def config(self) -> dict[str, Any]:
        return {"quantizer": self.quantizer}

    def __repr__(self) -> str:
        if self.limit is not None:
            return f"Sign(clip_value={self.limit:g})"
        return f"Sign({self.quantizer!r})"

    def to_packed(self) -> PackedSign:
        return PackedSign()


_SIGNS = (AnnealedSign, ApproxSign, SteSign, StochasticSign, SwishSign)
_NO_SIGNS = (*OWN_WEIGHT_QUANTIZERS, DoReFaActivation, DoReFaGradient, Heaviside)


def _innermost(quantizer: Any) -> Any:
    """Return the quantizer inside any number of nested ClippedGradients."""
    while type(quantizer) is ClippedGradient:
        quantizer = quantizer.quantizer
    return quantizer


_LEVELS = (DoReFaActivation, Heaviside)


@register
class Quantize(TrainingLayer):
    """Quantized activation: 0 and 1 of a Heaviside step, or the 2^k levels of DoReFa-Net.

    Parameters
    ----------
    quantizer : Heaviside, DoReFaActivation, or ClippedGradient of one
        From `bitops.quantizers`, with at most 8 bits. Any other object needs `forward(x)`,
        `backward(x, grad)`, and for the codes `codes(x)`, `bits` and `step`. To freeze a model
        with such an object, derive a class from this one that defines `role` and `to_packed`.

    Notes
    -----
    Forward:  q = step * code, returned as Codes. A product with binary weights is computed exactly
    from the integer codes and then multiplied by the step.
    Backward:  dx is the pseudo-gradient of the quantizer.

    Examples
    --------
    >>> from bitops.quantizers import DoReFaActivation
    >>> from bitops.layers import as_float
    >>> as_float(Quantize(DoReFaActivation(2))(np.float32([[-1, 0.3, 0.7, 5]])))
    array([[0.        , 0.33333334, 0.6666667 , 1.        ]], dtype=float32)
    """

    SAVED = ("_x",)

    def __init__(self, quantizer: Any):
        check_quantizer("Quantize", quantizer)
        self.levels = _innermost(quantizer)
        if not all(hasattr(self.levels, name) for name in ("codes", "bits", "step")):
            raise TypeError(
                f"[Quantize] quantizer must be Heaviside or DoReFaActivation, or have codes(x), "
                f"bits and step like these, got {quantizer!r}"
            )
        kind = type(self.levels)
        if place_in_mro(kind, "forward") < place_in_mro(kind, "codes"):
            raise TypeError(
                f"[Quantize] a quantizer that overrides forward must override codes, from which "
                f"the layer makes the values, got {quantizer!r}"
            )
        check_input_bits("Quantize", "bits", self.levels.bits)
        self.quantizer = quantizer
        self._x: np.ndarray | None = None

    def forward(self, x, *, training: bool = False) -> Codes:
        values = as_float(as_activation("Quantize", x))
        if training:
            self._x = values
        return Codes(self.levels.codes(values), self.levels.bits, self.levels.step)

    def backward(self, grad: np.ndarray) -> np.ndarray:
        return self.quantizer.backward(saved_for_backward(self, self._x), grad)

    @property
    def role(self) -> Role:
        return Role.LEVELS if type(self.levels) in _LEVELS else Role.ALONE

    def to_packed(self) -> PackedSign | PackedQuantize:
        if type(self.levels) not in _LEVELS:
            raise TypeError(
                f"[to_packed] a class derived from Quantize must define role and to_packed to pack "
                f"levels other than Heaviside and DoReFaActivation, got {self!r}"
            )
        if isinstance(self.levels, Heaviside):
            return PackedSign()
        return PackedQuantize(self.levels.bits, self.levels.clip_value)

    def output_bits(self, input_bits: int | None) -> int | None:
        return self.levels.bits

    def config(self) -> dict[str, Any]:
        return {"quantizer": self.quantizer}

    def __repr__(self) -> str:
        return f"Quantize({self.quantizer!r})"


@register
class PackedQuantize(Layer):
    """Packed twin of a Quantize of k bits: code = round((2^k - 1) clip(x / c, 0, 1)), uint8.

    Parameters
    ----------
    bits : int in 1..8
        k, the bits of a code.
    clip_value : float
        c, the value of the largest code.

    Examples
    --------
    >>> PackedQuantize(2)(np.float32([[-1, 0.3, 0.7, 5]]))
    array([[0, 1, 2, 3]], dtype=uint8)
    """

    def __init__(self, bits: int, clip_value: float = 1.0):
        check_input_bits("PackedQuantize", "bits", bits)
        self._levels = DoReFaActivation(bits, clip_value)

    def forward(self, x) -> np.ndarray:
        return self._levels.codes(as_float(as_activation("PackedQuantize", x)))

    def compile(self, chain: Chain, x: Value) -> Value | None:
        levels = self._levels
        return chain.round_codes(chain.as_float(x), levels.clip_value, 2**levels.bits - 1)

    def output_bits(self, input_bits: int | None) -> int:
        return self._levels.bits

    def config(self) -> dict[str, Any]:
        return {"bits": self._levels.bits, "clip_value": self._levels.clip_value}

    def __repr__(self) -> str:
        return f"PackedQuantize(bits={self._levels.bits}, clip_value={self._levels.clip_value:g})"


@register
class PackedLevels(Layer):
    """Converts codes to the numbers they stand for: y = step * code, float32.

    Parameters
    ----------
    step : float
        Value of code 1. The bits of a BitArray are the codes 0 and 1.

    Examples
    --------
    >>> from bitops import pack
    >>> PackedLevels(0.5)(pack([[1.0, -1.0]]))
    array([[0.5, 0. ]], dtype=float32)
    """

    def __init__(self, step: float = 1.0):
        check_clip("PackedLevels", step, LARGEST, name="step")
        self.step = float(step)

    def forward(self, x) -> np.ndarray:
        x = as_activation("PackedLevels", x)
        codes = unpack(x, dtype=np.bool_) if isinstance(x, BitArray) else x
        return as_float(codes) * np.float32(self.step)

    def compile(self, chain: Chain, x: Value) -> Value | None:
        return chain.scale(x, self.step) if x.kind == "uint8" else None

    def config(self) -> dict[str, Any]:
        return {"step": self.step}

    def __repr__(self) -> str:
        return f"PackedLevels(step={self.step:g})"


@register
class PackedSign(Layer):
    """Packed twin of [BatchNorm ->] Sign on numbers: bit = (x > threshold) ^ flip.

    Parameters
    ----------
    threshold : array_like of shape (features,), int or float32, optional
        By default bit = (x >= 0).
    flip : array_like of shape (features,), bool, optional
        Features whose bit is inverted; requires `threshold`.

    Examples
    --------
    >>> np.asarray(PackedSign([0.5, 0.5], [False, True])(np.float32([[1, 1]])))
    array([[ 1, -1]], dtype=int8)
    """

    ARRAYS = (ArraySpec("threshold", ("int32", "float32"), 1), ArraySpec("flip", "bool", 1))

    def __init__(self, threshold=None, flip=None):
        if threshold is None and flip is not None:
            raise ValueError("[PackedSign] flip must come with a threshold, got threshold=None")
        self.threshold = self.flip = self._flip_bits = None
        if threshold is not None:
            self.threshold = as_thresholds("PackedSign", threshold, None)
            self.in_features = self.out_features = self.threshold.size
            self.flip = as_flips("PackedSign", flip, self.threshold.size)
            self._flip_bits = None if self.flip is None else pack(self.flip)

    def forward(self, x) -> BitArray:
        values = as_float(as_activation("PackedSign", x, self.in_features))
        if self.threshold is None:
            return pack_operand("PackedSign", "x", values, -1)
        return above_operand("PackedSign", values, self.threshold, self._flip_bits)

    def compile(self, chain: Chain, x: Value) -> Value | None:
        if x.kind not in ("int32", "float32"):
            return None
        if self.threshold is None:
            return chain.compare(x, None, None)
        threshold = float_thresholds(self.threshold)
        flip = None if self._flip_bits is None else self._flip_bits.words
        return None if threshold is None else chain.compare(x, threshold, flip)

    def output_bits(self, input_bits: int | None) -> int | None:
        return 1

    def cost(self, input_bits: int | None) -> Cost:
        if self.threshold is None:
            return Cost()
        flip_bytes = 0 if self._flip_bits is None else self._flip_bits.nbytes
        return Cost(self.threshold.size, self.threshold.nbytes + flip_bytes)

    def __repr__(self) -> str:
        return f"PackedSign({'' if self.threshold is None else f'features={self.threshold.size}'})"


def relu(where: str, x) -> np.ndarray:
    """Return max(x, 0) of a layer's input, float32."""
    return np.maximum(as_float(as_activation(where, x)), 0)


@register
class ReLU(TrainingLayer):
    """Activation y = max(x, 0), float32.

    Notes
    -----
    Backward:  dx = dy * (x > 0).

    Examples
    --------
    >>> ReLU()(np.float32([[-3, 2]]))
    array([[0., 2.]], dtype=float32)
    """

    SAVED = ("passed",)

    role = Role.STEP

    def __init__(self) -> None:
        # Of the last training step: bits that are 1 where gradients pass, or numbers that are
        # positive there. Bits are packed word by word, which takes longer for few features.
        self.passed: BitArray | np.ndarray | None = None

    def forward(self, x, *, training: bool = False) -> np.ndarray:
        if not training:
            return relu("ReLU", x)
        x = as_float(as_activation("ReLU", x))
        if x.shape[-1] >= WORD_BITS:
            y, self.passed = positives(x)
        else:
            y = self.passed = np.maximum(x, 0)
        return y

    def backward(self, grad: np.ndarray) -> np.ndarray:
        passed = saved_for_backward(self, self.passed)
        check_gradient(self, grad, passed.shape)
        if isinstance(passed, BitArray):
            return keep_within(grad, passed)
        return as_float32(grad) * (passed > 0)

    def passing_bits(self) -> BitArray:
        """Return bits that are 1 where gradients pass."""
        passed = saved_for_backward(self, self.passed)
        return passed if isinstance(passed, BitArray) else pack(passed > 0)

    def to_packed(self) -> PackedReLU:
        return PackedReLU()


@register
class PackedReLU(Layer):
    """Twin of `ReLU` for inference: y = max(x, 0), float32.

    Examples
    --------
    >>> PackedReLU()(np.float32([[-3, 2]]))
    array([[0., 2.]], dtype=float32)
    """

    def forward(self, x) -> np.ndarray:
        return relu("PackedReLU", x)

    def compile(self, chain: Chain, x: Value) -> Value | None:
        if x.kind not in ("int32", "float32"):
            return None
        return chain.affine(x, None, None, relu=True)


def tanh(where: str, x) -> np.ndarray:
    """Return the hyperbolic tangent of a layer's input, float32."""
    return np.tanh(as_float(as_activation(where, x)))


@register
class Tanh(TrainingLayer):
    """Activation y = tanh(x), float32.

    Notes
    -----
    Backward:  dx = dy * (1 - y^2).

    Examples
    --------
    >>> Tanh()(np.float32([[0, 100]]))
    array([[0., 1.]], dtype=float32)
    """

    SAVED = ("_y",)

    def __init__(self) -> None:
        self._y: np.ndarray | None = None

    def forward(self, x, *, training: bool = False) -> np.ndarray:
        y = tanh("Tanh", x)
        if training:
            self._y = y
        return y

    def backward(self, grad: np.ndarray) -> np.ndarray:
        return grad * (1 - np.square(saved_for_backward(self, self._y)))

    def to_packed(self) -> PackedTanh:
        return PackedTanh()


@register
class PackedTanh(Layer):
    """Twin of `Tanh` for inference: y = tanh(x), float32.

    Examples
    --------
    >>> PackedTanh()(np.float32([[0, 100]]))
    array([[0., 1.]], dtype=float32)
    """

    def forward(self, x) -> np.ndarray:
        return tanh("PackedTanh", x)
