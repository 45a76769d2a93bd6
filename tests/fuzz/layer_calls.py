"""Target: layers and quantizers with arguments that fit, mostly, and a few that do not.

A layer that is made takes an input that fits it, and answers one that does not by an error.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

import bitops as bo
from bitops import layers, quantizers
from fuzz.operands import array, bits, hostile
from fuzz.reader import Reader, allowed

Make = Callable[[Reader], dict[str, Any]]
MAX_WEIGHTS = 1 << 16  # of a layer whose sizes were drawn

PACKED: dict[str, Make] = {
    "PackedDense": lambda r: {"w": bits(r, (4, 5)), **_ends(r)},
    "PackedConv2D": lambda r: {"w": bits(r, (4, 3, 2, 5)), **_ends(r), **_window(r)},
    "PackedPlanesDense": lambda r: {
        "w": bits(r, (2, 4, 5)),
        "coefficients": r.choice(((1, 1), (1, 2), (2, 1), (1,), (0, 1), (256, 256))),
        **_ends(r),
    },
    "FloatDense": lambda r: {"w": array(r, (4, 5)), "bias": array(r, (4,))},
    "FloatConv2D": lambda r: {"w": array(r, (4, 3, 2, 5)), "bias": array(r, (4,)), **_window(r)},
    "PackedBatchNorm": lambda r: {"alpha": array(r, (5,)), "bias": array(r, (5,))},
    "PackedSign": lambda r: {"threshold": array(r, (5,)), "flip": array(r, (5,), ("?",))},
    "PackedQuantize": lambda r: {"bits": 1 + r.below(9), "clip_value": r.choice((1.0, 2.0, 0))},
    "PackedLevels": lambda r: {"step": r.choice((0.5, 1.0, 1 / 3))},
    "PackedMaxPool2D": lambda r: {"kernel_size": r.choice((1, 2, (2, 1))), **_pool(r)},
    "PackedAvgPool2D": lambda r: {"kernel_size": r.choice((1, 2, (2, 1))), **_pool(r)},
}
TRAINED: dict[str, Make] = {
    "BinaryDense": lambda r: {"in_features": 5, "out_features": 1 + r.below(4), **_options(r)},
    "BinaryConv2D": lambda r: {
        "in_channels": 5,
        "out_channels": 1 + r.below(4),
        "kernel_size": r.choice((1, 2, (3, 2))),
        **_window(r),
        **_options(r),
    },
    "Dense": lambda r: {"in_features": 5, "out_features": 3, "seed": r.below(3)},
    "BatchNorm": lambda r: {"features": 5, "eps": 1e-4, "momentum": 0.1},
    "ShiftBatchNorm": lambda r: {"features": 5},
    "Dropout": lambda r: {"rate": r.choice((0.0, 0.5))},
    "MaxPool2D": lambda r: {"kernel_size": r.choice((1, 2, (2, 1))), **_pool(r)},
    "AvgPool2D": lambda r: {"kernel_size": r.choice((1, 2, (2, 1))), **_pool(r)},
    "Sign": lambda r: {"clip_value": 1.0},
    "Tanh": lambda r: {},
    "ReLU": lambda r: {},
}
QUANTIZERS: dict[str, Make] = {
    "SteSign": lambda r: {"clip_value": 1.0},
    "ApproxSign": lambda r: {},
    "SwishSign": lambda r: {"beta": 5.0},
    "Heaviside": lambda r: {},
    "Ternary": lambda r: {},
    "TwnTernary": lambda r: {},
    "LeastSquaresTernary": lambda r: {},
    "DoReFaWeight": lambda r: {"bits": 1 + r.below(9)},
    "DoReFaActivation": lambda r: {"bits": 1 + r.below(9)},
    "XnorSign": lambda r: {},
    "MagnitudeAwareSign": lambda r: {},
}


def _ends(reader: Reader) -> dict[str, Any]:
    """What follows a product: thresholds, or scales, or nothing."""
    kind = reader.below(4)
    if kind == 1:
        return {"threshold": array(reader, (4,)), "flip": array(reader, (4,), ("?",))}
    if kind == 2:
        return {"alpha": array(reader, (4,)), "bias": array(reader, (4,))}
    return {"input_bits": 1 + reader.below(8)} if kind == 3 else {}


def _window(reader: Reader) -> dict[str, Any]:
    drawn = {"padding": (0, 1, "same", ((1, 0), (0, 1))), "stride": (1, 2), "dilation": (1, (1, 2))}
    return {name: reader.choice(some) for name, some in drawn.items() if reader.chance(3)}


def _pool(reader: Reader) -> dict[str, Any]:
    drawn = {"padding": (0, "same", ((0, 1), (0, 0))), "stride": (1, 2)}
    return {name: reader.choice(some) for name, some in drawn.items() if reader.chance(3)}


def _options(reader: Reader) -> dict[str, Any]:
    flags = ("bias", "scale_weights", "stochastic", "real_evaluation", "center")
    return {"seed": 0} | {name: True for name in flags if reader.chance(4)}


def run(data: bytes) -> None:
    reader = Reader(data)
    module, makers = reader.choice(
        ((layers, PACKED), (layers, PACKED), (layers, TRAINED), (quantizers, QUANTIZERS))
    )
    name = reader.choice(tuple(makers))
    arguments = makers[name](reader)
    if reader.chance(2) and arguments:
        drawn = hostile(reader)
        # sizes up to 2^23 are fine, but weights of as many numbers are not for a fuzzer
        if not isinstance(drawn, int) or abs(drawn) < 300 or abs(drawn) > 2**23:
            arguments[reader.choice(tuple(arguments))] = drawn
    made = None
    with allowed(MemoryError):
        made = getattr(module, name)(**arguments)
    if made is None:
        return
    repr(made)
    x, y = _input(reader), None
    with allowed(MemoryError):
        y = made.forward(x)
        if isinstance(y, bo.BitArray):
            assert bo.BitArray.from_words(y.words, y.shape) == y  # padding bits are 0
    if y is None:
        return
    if module is quantizers:
        with allowed(MemoryError):
            made.backward(x, x)
    elif makers is TRAINED:
        with allowed(MemoryError):
            y = made.forward(x, training=True)
            made.backward(np.ones(np.shape(y), np.float32))


def _input(reader: Reader) -> Any:
    """An activation of five features, or anything."""
    shape = reader.choice(((3, 5), (2, 4, 3, 5), (0, 5), (0, 4, 3, 5), (2, 4, 4, 5)))
    kind = reader.below(8)
    if kind == 0:
        return hostile(reader)
    if kind < 3:
        return array(reader, shape, ("u1", "f4", "i4"))
    if kind == 3:
        return bo.pack(array(reader, shape, ("i1",)))
    return array(reader, shape)
