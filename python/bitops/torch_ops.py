"""Operators of PyTorch on packed CPU tensors: ``torch.ops.bitops.gemm`` and others.

Importing this module registers them. ``torch.compile`` takes them as they are, without a graph
break. They are for inference and have no gradients; `bitops.convert.from_torch` brings in networks
that PyTorch has trained.

Packed tensors are of int64 and hold the bits of the words of a BitArray: element i of the last axis
is bit i % 64 of word i // 64, and bits after the last element are 0. Images are NHWC and filters
OHWI, packed along their channels. The kernels read and write the tensors' own memory; a tensor that
is not contiguous is copied.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

try:
    import torch
except ImportError as error:
    raise ImportError(
        f"[bitops.torch_ops] needs PyTorch (`pip install torch`), got: {error}"
    ) from error

from .ops import array, conv, linalg
from .ops.array import BitArray

__all__ = ["conv2d", "gemm", "hamming", "pack", "unpack"]


def _bits(where: str, name: str, words: torch.Tensor, k: int) -> BitArray:
    """View packed words as a BitArray with rows of k bits."""
    if words.dtype != torch.int64:
        raise TypeError(f"[{where}] {name} must be packed, a tensor of int64, got {words.dtype}")
    unsigned = words.detach().numpy().view(np.uint64)
    return BitArray.from_words(unsigned, (*unsigned.shape[:-1], k))


def _numbers(x: torch.Tensor | None) -> NDArray[Any] | None:
    """View a tensor as an array; None stays."""
    return None if x is None else x.detach().numpy()


def _tensor(result: Any) -> torch.Tensor:
    """View an array, or the words of a BitArray, as a tensor."""
    if isinstance(result, BitArray):
        result = result.words.view(np.int64)
    return torch.from_numpy(result)


def _dtype(*scales: torch.Tensor | None) -> torch.dtype:
    return torch.int32 if all(scale is None for scale in scales) else torch.float32


@torch.library.custom_op(
    "bitops::pack", mutates_args=(), device_types="cpu", schema="(Tensor x) -> Tensor"
)
def pack(x: torch.Tensor) -> torch.Tensor:
    """Pack the signs of a real tensor along its last axis; see `bitops.pack`."""
    if x.dtype == torch.bfloat16:
        x = x.float()  # NumPy has no bfloat16; the sign is the same
    return _tensor(array.pack(x.detach().numpy()))


@pack.register_fake
def _(x: torch.Tensor) -> torch.Tensor:
    return x.new_empty((*x.shape[:-1], (x.shape[-1] + 63) // 64), dtype=torch.int64)


@torch.library.custom_op(
    "bitops::unpack",
    mutates_args=(),
    device_types="cpu",
    schema="(Tensor words, SymInt k) -> Tensor",
)
def unpack(words: torch.Tensor, k: int) -> torch.Tensor:
    """Give +1 and -1 for the k bits of every row, as float32; see `bitops.unpack`."""
    return _tensor(array.unpack(_bits("unpack", "words", words, k), np.float32))


@unpack.register_fake
def _(words: torch.Tensor, k: int) -> torch.Tensor:
    return words.new_empty((*words.shape[:-1], k), dtype=torch.float32)


@torch.library.custom_op(
    "bitops::gemm",
    mutates_args=(),
    device_types="cpu",
    schema="(Tensor a, Tensor w, SymInt k, Tensor? alpha=None, Tensor? bias=None) -> Tensor",
)
def gemm(
    a: torch.Tensor,
    w: torch.Tensor,
    k: int,
    alpha: torch.Tensor | None = None,
    bias: torch.Tensor | None = None,
) -> torch.Tensor:
    """Multiply rows of k bits: int32, or float32 with scales; see `bitops.gemm`."""
    scales = {"alpha": _numbers(alpha), "bias": _numbers(bias)}
    return _tensor(linalg.gemm(_bits("gemm", "a", a, k), _bits("gemm", "w", w, k), **scales))


@gemm.register_fake
def _(
    a: torch.Tensor,
    w: torch.Tensor,
    k: int,
    alpha: torch.Tensor | None = None,
    bias: torch.Tensor | None = None,
) -> torch.Tensor:
    batch = torch.broadcast_shapes(a.shape[:-2], w.shape[:-2])
    return a.new_empty((*batch, a.shape[-2], w.shape[-2]), dtype=_dtype(alpha, bias))


@torch.library.custom_op(
    "bitops::hamming",
    mutates_args=(),
    device_types="cpu",
    schema="(Tensor a, Tensor b, SymInt k) -> Tensor",
)
def hamming(a: torch.Tensor, b: torch.Tensor, k: int) -> torch.Tensor:
    """Count the differing bits of all pairs of rows of k bits; see `bitops.hamming`."""
    return _tensor(linalg.hamming(_bits("hamming", "a", a, k), _bits("hamming", "b", b, k)))


@hamming.register_fake
def _(a: torch.Tensor, b: torch.Tensor, k: int) -> torch.Tensor:
    batch = torch.broadcast_shapes(a.shape[:-2], b.shape[:-2])
    return a.new_empty((*batch, a.shape[-2], b.shape[-2]), dtype=torch.int32)


@torch.library.custom_op(
    "bitops::conv2d",
    mutates_args=(),
    device_types="cpu",
    schema="(Tensor x, Tensor w, SymInt channels, SymInt[2] stride=1, SymInt[2] padding=0, "
    "SymInt[2] dilation=1, SymInt groups=1, int pad_value=0, Tensor? alpha=None, "
    "Tensor? bias=None) -> Tensor",
)
def conv2d(
    x: torch.Tensor,
    w: torch.Tensor,
    channels: int,
    stride: Sequence[int] = (1, 1),
    padding: Sequence[int] = (0, 0),
    dilation: Sequence[int] = (1, 1),
    groups: int = 1,
    pad_value: int = 0,
    alpha: torch.Tensor | None = None,
    bias: torch.Tensor | None = None,
) -> torch.Tensor:
    """Convolve images of so many channels: int32, or float32 with scales; see `bitops.conv2d`."""
    if groups < 1:
        raise ValueError(f"[conv2d] groups must be at least 1, got {groups}")
    result = conv.conv2d(
        _bits("conv2d", "x", x, channels),
        _bits("conv2d", "w", w, channels // groups),
        stride=(stride[0], stride[1]),
        padding=(padding[0], padding[1]),
        dilation=(dilation[0], dilation[1]),
        groups=groups,
        pad_value=pad_value,
        alpha=_numbers(alpha),
        bias=_numbers(bias),
    )
    return _tensor(result)


@conv2d.register_fake
def _(
    x: torch.Tensor,
    w: torch.Tensor,
    channels: int,
    stride: Sequence[int] = (1, 1),
    padding: Sequence[int] = (0, 0),
    dilation: Sequence[int] = (1, 1),
    groups: int = 1,
    pad_value: int = 0,
    alpha: torch.Tensor | None = None,
    bias: torch.Tensor | None = None,
) -> torch.Tensor:
    height, width = (
        (x.shape[1 + i] + 2 * padding[i] - (w.shape[1 + i] - 1) * dilation[i] - 1) // stride[i] + 1
        for i in range(2)
    )
    return x.new_empty((x.shape[0], height, width, w.shape[0]), dtype=_dtype(alpha, bias))
