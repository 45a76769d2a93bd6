"""Convolution of packed images: im2col, conv2d, conv2d_sign."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from . import reference
from .array import BitArray, pack
from .linalg import Prepacked

__all__ = ["conv2d", "conv2d_sign", "im2col"]


def _values(x):
    if isinstance(x, Prepacked):
        x = x.bits
    return np.asarray(x)


def im2col(
    x,
    kernel_size: Any,
    *,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    pad_value: int = -1,
) -> BitArray:
    return pack(
        reference.im2col(
            _values(x),
            kernel_size,
            stride=stride,
            padding=padding,
            dilation=dilation,
            pad_value=pad_value,
        )
    )


def conv2d(
    x,
    w,
    *,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
    pad_value: int = 0,
    alpha: ArrayLike | None = None,
    k_map: ArrayLike | None = None,
    bias: ArrayLike | None = None,
    out: NDArray[Any] | None = None,
) -> NDArray[Any]:
    c = reference.conv2d(
        _values(x),
        _values(w),
        stride=stride,
        padding=padding,
        dilation=dilation,
        groups=groups,
        pad_value=pad_value,
        alpha=alpha,
        k_map=k_map,
        bias=bias,
    )
    if out is None:
        return c
    out[...] = c
    return out


def conv2d_sign(
    x,
    w,
    threshold: ArrayLike,
    *,
    flip: ArrayLike | BitArray | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
    pad_value: int = 0,
) -> BitArray:
    if isinstance(flip, BitArray):
        flip = np.asarray(flip, dtype=bool)
    return pack(
        reference.conv2d_sign(
            _values(x),
            _values(w),
            threshold,
            flip=flip,
            stride=stride,
            padding=padding,
            dilation=dilation,
            groups=groups,
            pad_value=pad_value,
        )
    )
