"""Quantizers for training, each with its forward function and its pseudo-gradient side by side.

`forward(x)` quantizes a float32 array. `backward(x, grad)` converts the gradient with respect to
the quantized values to a pseudo-gradient with respect to x. sign(0) is +1 everywhere. A NaN has no
sign, and `forward` raises ValueError for it. A layer takes any object with these two methods (see
`Quantizer`).

Quantizers with a scale "per filter" take filters along the first axis: (n, k) for a dense layer,
OHWI for a convolution.

These modules import only `ops` and the native module.
"""

from .base import Quantizer
from .dorefa import (
    DoReFaActivation,
    DoReFaGradient,
    DoReFaWeight,
)
from .magnitudes import (
    MagnitudeAwareSign,
    XnorSign,
    xnor_weight_gradient,
)
from .rounding import (
    ByteGradient,
    ap2,
)
from .signs import (
    AnnealedSign,
    ApproxSign,
    ClippedGradient,
    Heaviside,
    ProgressiveSign,
    SteSign,
    StochasticSign,
    SwishSign,
)
from .ternary import (
    LeastSquaresTernary,
    ShareTernary,
    Ternary,
    TwnTernary,
)

__all__ = [
    "AnnealedSign",
    "ApproxSign",
    "ByteGradient",
    "ClippedGradient",
    "DoReFaActivation",
    "DoReFaGradient",
    "DoReFaWeight",
    "Heaviside",
    "LeastSquaresTernary",
    "MagnitudeAwareSign",
    "ProgressiveSign",
    "Quantizer",
    "ShareTernary",
    "SteSign",
    "StochasticSign",
    "SwishSign",
    "Ternary",
    "TwnTernary",
    "XnorSign",
    "ap2",
    "xnor_weight_gradient",
]
