"""Quantizers of training: each shows its forward function and its pseudo-gradient side by side.

They map float32 arrays to float32 arrays. `forward(x)` quantizes; `backward(x, grad)` turns the
gradient with respect to the quantized values into the one that x is given. sign(0) = +1 throughout,
and a NaN, which has no sign, raises ValueError in `forward`. Any object with these two methods, a
`Quantizer`, does for a layer.

Those of weights that keep a scale "per filter" take filters along the first axis: (n, k) of a dense
layer, OHWI of a convolution. This folder imports `ops` only.
"""

from .base import Quantizer
from .dorefa import (
    DoReFaActivation,
    DoReFaGradient,
    DoReFaWeight,
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
    MagnitudeAwareSign,
    ProgressiveSign,
    SteSign,
    StochasticSign,
    SwishSign,
    XnorSign,
    xnor_weight_gradient,
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
