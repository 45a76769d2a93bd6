"""Activations with learned shifts, RSign and RPReLU of ReActNet, and learned scales of channels."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ..ops.array import BitArray, pack
from ..ops.checks import plain_array
from ..ops.normalize import Normalized
from ..ops.prelu import prelu_gradient
from .activations import PackedSign
from .base import Cost, Layer, TrainingLayer, saved_for_backward
from .columns import exact_sums
from .elementwise import prelu, prelu_gradients
from .folding import fold
from .inputs import as_activation, as_float, as_scales, check_finite, check_size
from .norm import PackedBatchNorm
from .parameter import Parameter
from .registry import ArraySpec, register
from .roles import Role

if TYPE_CHECKING:
    from ..ops.plan import Value
    from .plans import Chain


@register
class RSign(TrainingLayer):
    """Sign with a learned threshold for each channel: q = +1 if x >= shift else -1.

    Parameters
    ----------
    features : int

    Attributes
    ----------
    shift : Parameter of shape (features,)
        0 at the start.

    Notes
    -----
    Forward:  q = sign(x - shift), a BitArray packed along the features.
    Pseudo-gradient, with z = x - shift:  dx = dq * max(2 - 2 abs(z), 0), that of `ApproxSign`, and
    dshift = -sum dx.
    The shift becomes a part of the threshold of the product before it, or of a PackedSign.

    References
    ----------
    Liu et al., "ReActNet: towards precise binary neural network with generalized activation
    functions", 2020, section 4.2: RSign.

    Examples
    --------
    >>> np.asarray(RSign(2)(np.float32([[-4, 4]])))
    array([[-1,  1]], dtype=int8)
    """

    role = Role.SIGN
    SAVED = ("_saved",)

    def __init__(self, features: int):
        self.in_features = self.out_features = check_size("RSign", "features", features)
        self.shift = Parameter(np.zeros(features))
        self._saved: tuple[np.ndarray, np.ndarray] | None = None  # the input and the shifts

    def _shifted(self, x) -> np.ndarray:
        return as_float(as_activation("RSign", x, self.in_features)) - self.shift.value

    def forward(self, x, *, training: bool = False) -> BitArray:
        x = as_float(as_activation("RSign", x, self.in_features))
        if training:
            self._saved = x, self.shift.value.copy()
        return pack(self._shifted(x))

    def backward(self, grad: np.ndarray) -> np.ndarray:
        x, shift = saved_for_backward(self, self._saved)
        dx, (total,) = prelu_gradient(x, grad, shift)
        self.shift.grad[...] = -(total if np.isfinite(total).all() else exact_sums(dx))
        return dx

    def parameters(self) -> list[Parameter]:
        return [self.shift]

    def output_bits(self, input_bits: int | None) -> int | None:
        return 1

    def cost(self, input_bits: int | None) -> Cost:
        return Cost(self.shift.size, 4 * self.shift.size)

    def to_packed(self) -> PackedSign:
        # rounded, x - shift >= 0 and x >= shift might differ, so the expression itself is folded
        return PackedSign(*fold(self._shifted, self.shift.size))

    def config(self) -> dict[str, Any]:
        return {"features": self.shift.size}

    def __repr__(self) -> str:
        return f"RSign({self.shift.size})"


@register
class RPReLU(TrainingLayer):
    """PReLU with learned shifts before and behind it, one of each for every channel.

    Parameters
    ----------
    features : int
    start : float
        Value of the slopes at the start; the shifts start at 0.

    Attributes
    ----------
    shift, slope, offset : Parameter of shape (features,)

    Notes
    -----
    Forward, with z = x - shift:  y = z + offset where z >= 0, else slope * z + offset.
    Backward:  dx = dy where z >= 0, else slope * dy;  dshift = -sum dx,  doffset = sum dy,
    dslope = sum(dy * z where z < 0).
    A sign after it folds into the thresholds of the product before it while no slope is negative.

    References
    ----------
    Liu et al., "ReActNet: towards precise binary neural network with generalized activation
    functions", 2020, section 4.2: RPReLU.

    Examples
    --------
    >>> RPReLU(2)(np.float32([[-4, 4]]))
    array([[-1.,  4.]], dtype=float32)
    """

    SAVED = ("_saved",)

    def __init__(self, features: int, start: float = 0.25):
        self.in_features = self.out_features = check_size("RPReLU", "features", features)
        check_finite("RPReLU", "start", start)
        self.shift = Parameter(np.zeros(features))
        self.slope = Parameter(np.full(features, start))
        self.offset = Parameter(np.zeros(features))
        self._saved: tuple[np.ndarray, np.ndarray] | None = None  # the input and the shifts

    def forward(self, x, *, training: bool = False) -> np.ndarray:
        shift, slope, offset = (parameter.value for parameter in self.parameters())
        if training:
            self._saved = as_float(as_activation("RPReLU", x, self.in_features)), shift.copy()
        return prelu("RPReLU", x, slope, shift, offset)

    def backward(self, grad: np.ndarray) -> np.ndarray:
        x, shift = saved_for_backward(self, self._saved)
        dx, total, dslope, doffset = prelu_gradients(x, grad, shift, self.slope.value)
        self.shift.grad[...], self.slope.grad[...] = -total, dslope
        self.offset.grad[...] = doffset
        return dx

    @property
    def role(self) -> Role:
        return Role.ALONE if (self.slope.value < 0).any() else Role.STEP

    def parameters(self) -> list[Parameter]:
        return [self.shift, self.slope, self.offset]

    def cost(self, input_bits: int | None) -> Cost:
        features = self.slope.size
        return Cost(3 * features, 12 * features, float_macs=features)

    def to_packed(self) -> PackedRPReLU:
        return PackedRPReLU(*(parameter.value for parameter in self.parameters()))

    def config(self) -> dict[str, Any]:
        return {"features": self.shift.size}

    def __repr__(self) -> str:
        return f"RPReLU({self.slope.size})"


@register
class PackedRPReLU(Layer):
    """Twin of `RPReLU` for inference.

    Parameters
    ----------
    shift, slope, offset : array_like of shape (features,), float32

    Examples
    --------
    >>> PackedRPReLU([1, 1], [0.5, 0.5], [0, 0])(np.float32([[-3, 4]]))
    array([[-2.,  3.]], dtype=float32)
    """

    ARRAYS = tuple(ArraySpec(name, "float32", 1) for name in ("shift", "slope", "offset"))

    shift: np.ndarray
    slope: np.ndarray
    offset: np.ndarray

    def __init__(self, shift, slope, offset):
        named = {"shift": shift, "slope": slope, "offset": offset}
        arrays = {name: plain_array("PackedRPReLU", name, value) for name, value in named.items()}
        shape = arrays["shift"].shape
        if len(shape) != 1 or not shape[0] or any(a.shape != shape for a in arrays.values()):
            raise ValueError(
                f"[PackedRPReLU] shift, slope and offset must have one shape (features,), got "
                f"{', '.join(str(array.shape) for array in arrays.values())}"
            )
        for name, array in arrays.items():
            setattr(self, name, as_scales("PackedRPReLU", name, array, shape[0]))
        self.in_features = self.out_features = shape[0]

    def forward(self, x) -> np.ndarray:
        return prelu("PackedRPReLU", x, self.slope, self.shift, self.offset)

    def compile(self, chain: Chain, x: Value) -> Value | None:
        return chain.prelu(chain.as_float(x), self.slope, self.shift, self.offset)

    def cost(self, input_bits: int | None) -> Cost:
        features = self.slope.size
        return Cost(3 * features, 12 * features, float_macs=features)

    def __repr__(self) -> str:
        return f"PackedRPReLU({self.slope.size})"


@register
class Scale(TrainingLayer):
    """Learned scale of each channel: y = x * scale.

    Parameters
    ----------
    features : int
    start : float
        Value of the scales at the start.

    Attributes
    ----------
    scale : Parameter of shape (features,)

    Notes
    -----
    Behind a binary product it takes the place of XNOR-Net's alpha, learned by descent rather than
    computed from the latent weights; it becomes the alpha of the packed product.
    Backward:  dx = dy * scale,  dscale = sum(dy * x).

    References
    ----------
    Bulat and Tzimiropoulos, "XNOR-Net++: improved binary neural networks", 2019, case 1: one scale
    for each output channel.

    Examples
    --------
    >>> Scale(2, start=0.5)(np.float32([[-4, 4]]))
    array([[-2.,  2.]], dtype=float32)
    """

    role = Role.AFFINE
    SAVED = ("batch",)

    def __init__(self, features: int, start: float = 1.0):
        self.in_features = self.out_features = check_size("Scale", "features", features)
        check_finite("Scale", "start", start)
        self.scale = Parameter(np.full(features, start))
        self.batch: Normalized | None = None  # of the last training step

    def forward(self, x, *, training: bool = False) -> np.ndarray:
        x = as_float(as_activation("Scale", x, self.in_features))
        scale, zero = self.scale.value.copy(), np.zeros_like(self.scale.value)
        # a normalisation by 0 and 1; the 0 that is added makes -0.0 to 0.0, as in the twin
        batch = Normalized(x, False, zero, np.ones_like(scale), scale, zero)
        if training:
            self.batch = batch
        return batch.values()

    def backward(self, grad: np.ndarray) -> np.ndarray:
        batch = saved_for_backward(self, self.batch)
        dscale, _ = batch.product_totals(grad, None)
        if not np.isfinite(dscale).all():
            with np.errstate(over="ignore", invalid="ignore"):
                dscale = exact_sums(grad * batch.x)
        self.scale.grad[...] = dscale
        return grad * self.scale.value

    def affine(self) -> tuple[np.ndarray, np.ndarray]:
        """Return alpha and bias, float32; the bias is 0."""
        return self.scale.value, np.zeros_like(self.scale.value)

    def parameters(self) -> list[Parameter]:
        return [self.scale]

    def cost(self, input_bits: int | None) -> Cost:
        return Cost(self.scale.size, 4 * self.scale.size, float_macs=self.scale.size)

    def to_packed(self) -> PackedBatchNorm:
        return PackedBatchNorm(*self.affine())

    def config(self) -> dict[str, Any]:
        return {"features": self.scale.size}

    def __repr__(self) -> str:
        return f"Scale({self.scale.size})"
