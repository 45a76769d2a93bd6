"""What products need to become packed layers, and these to be stored."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..ops.array import BitArray
from .registry import ArraySpec
from .roles import Flow, PackableProduct

_EXACT = 2**24  # float32 holds every integer up to it
_LARGEST_BYTE = 255


def own_outputs(product: PackableProduct, flow: Flow) -> dict[str, Any]:
    """alpha and bias of a product as it is, for a packed twin.

    Integers beyond 2^24 get an alpha of ones: it rounds them to float32, as training does.
    """
    alpha, bias = product.planes().scale(flow.step), product.bias_value
    filters = product.weight.shape[0]
    largest = product.weight.size // filters * (flow.largest or _LARGEST_BYTE)
    if alpha is None and bias is None and largest > _EXACT:
        alpha = np.ones(filters, np.float32)
    return {"alpha": alpha, "bias": bias}


def stacked(planes: Sequence[BitArray]) -> BitArray:
    """Planes along a new first axis."""
    words = np.stack([plane.words for plane in planes])
    return BitArray.from_words(words, (len(planes), *planes[0].shape))


def product_arrays(ndim: int) -> tuple[ArraySpec, ...]:
    """The arrays of a packed product whose weights have so many axes."""
    return (
        ArraySpec("weight", "bits", ndim, argument="w"),
        ArraySpec("bias", "float32", 1),
        ArraySpec("threshold", ("int32", "float32"), 1),
        ArraySpec("flip", "bool", 1),
        ArraySpec("alpha", "float32", 1),
    )


def float_arrays(ndim: int) -> tuple[ArraySpec, ...]:
    """The arrays of a product with float32 weights of so many axes."""
    return ArraySpec("weight", "float32", ndim, argument="w"), ArraySpec("bias", "float32", 1)
