"""Layers of sequences (n, length, features): convolutions and pools along the length.

Each is a chain: the layer of images that does the work, between two that add an axis and take it
away. `freeze` leaves these out between two layers of sequences, so bits flow from one to the next.
"""

from __future__ import annotations

from typing import Any

from ..ops.checks import check_integer
from ..ops.geometry import Pair
from .axes import AsImages, AsSequences
from .base import TrainingLayer
from .container import Sequential
from .conv import BinaryConv2D, Conv2D, QuantizedConv2D
from .parameter import Parameter
from .planes import WeightQuantizer
from .pool import AvgPool2D, GlobalAvgPool2D, MaxPool2D
from .registry import register

# One number for both ends, two, "same" or "valid".
Padding1D = int | Pair | str


class _AlongLength(Sequential):
    """Base of the layers of sequences that are made of a layer of images."""

    def __init__(self, layer: TrainingLayer):
        super().__init__(AsImages(), layer, AsSequences())

    @property
    def inner(self) -> Any:
        """The layer of images that does the work."""
        return self.layers[1]

    def __repr__(self) -> str:
        return f"{self.name}: {self.inner!r}"


class _Convolution1D(_AlongLength):
    """Base of the convolutions: their weights are those of the layer of images."""

    @property
    def weight(self) -> Parameter:
        """The filters, of shape (out_channels, 1, width, in_channels / groups)."""
        return self.inner.weight

    @property
    def bias(self) -> Parameter | None:
        return self.inner.bias


def _windows(where: str, padding: Padding1D, **sizes: int) -> dict[str, Any]:
    """Return the settings of windows along the length as those of images of height 1."""
    settings: dict[str, Any] = {
        name: (1, check_integer(where, name, size, 1)) for name, size in sizes.items()
    }
    if isinstance(padding, str):
        return {**settings, "padding": padding}
    ends = padding if isinstance(padding, tuple | list) else (padding, padding)
    if len(ends) != 2:
        raise ValueError(f"[{where}] padding must be one or two integers, got {padding!r}")
    before, after = (check_integer(where, "padding", end, 0) for end in ends)
    return {**settings, "padding": ((0, 0), (before, after))}


@register
class BinaryConv1D(_Convolution1D):
    """Convolution along sequences, whose filters are the signs of trained float32 latent weights.

    Parameters
    ----------
    in_channels, out_channels : int
    kernel_size, stride, dilation : int
        Along the length.
    padding : int, (before, after), "same" or "valid"
    groups, pad_value, bias, scale_weights, scale_input, clip_value, seed, **latent
        As in `BinaryConv2D`.

    Attributes
    ----------
    weight : Parameter of shape (out_channels, 1, kernel_size, in_channels / groups)
    bias : Parameter of shape (out_channels,) or None

    Notes
    -----
    It takes (n, length, in_channels) and gives (n, new length, out_channels). Forward and backward
    are those of `BinaryConv2D` for images of height 1, of which the packed form is made too.

    References
    ----------
    Courbariaux, Hubara et al., "Binarized Neural Networks", 2016, algorithm 1.

    Examples
    --------
    >>> import numpy as np
    >>> layer = BinaryConv1D(6, 16, 3, padding=1, seed=0)
    >>> layer(np.ones((8, 100, 6), np.float32)).shape
    (8, 100, 16)
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        *,
        stride: int = 1,
        padding: Padding1D = 0,
        dilation: int = 1,
        **options: Any,
    ):
        settings = _windows(
            self.name, padding, kernel_size=kernel_size, stride=stride, dilation=dilation
        )
        super().__init__(BinaryConv2D(in_channels, out_channels, **settings, **options))


@register
class QuantizedConv1D(_Convolution1D):
    """Convolution along sequences, with ternary filters or filters of a few bits.

    Parameters
    ----------
    in_channels, out_channels, kernel_size, stride, padding, dilation
        As in `BinaryConv1D`.
    quantizer : Ternary, TwnTernary, DoReFaWeight, ...
        As in `QuantizedConv2D`.
    groups, pad_value, bias, clip_value, lr_scale, start, seed
        As in `QuantizedConv2D`.

    Attributes
    ----------
    weight : Parameter of shape (out_channels, 1, kernel_size, in_channels / groups)
    bias : Parameter of shape (out_channels,) or None

    Notes
    -----
    Forward and backward are those of `QuantizedConv2D` for images of height 1.

    Examples
    --------
    >>> import numpy as np
    >>> from bitops.quantizers import Ternary
    >>> layer = QuantizedConv1D(6, 16, 3, Ternary(), seed=0)
    >>> layer(np.ones((8, 100, 6), np.float32)).shape
    (8, 98, 16)
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        quantizer: WeightQuantizer,
        *,
        stride: int = 1,
        padding: Padding1D = 0,
        dilation: int = 1,
        **options: Any,
    ):
        settings = _windows(
            self.name, padding, kernel_size=kernel_size, stride=stride, dilation=dilation
        )
        made = QuantizedConv2D(
            in_channels, out_channels, quantizer=quantizer, **settings, **options
        )
        super().__init__(made)


@register
class Conv1D(_Convolution1D):
    """Convolution along sequences with float32 filters.

    Parameters
    ----------
    in_channels, out_channels, kernel_size, stride, padding, dilation
        As in `BinaryConv1D`.
    groups, bias, seed
        As in `Conv2D`.

    Attributes
    ----------
    weight : Parameter of shape (out_channels, 1, kernel_size, in_channels / groups)
    bias : Parameter of shape (out_channels,) or None

    Notes
    -----
    Forward and backward are those of `Conv2D` for images of height 1.

    Examples
    --------
    >>> import numpy as np
    >>> layer = Conv1D(6, 16, 3, padding=1, seed=0)
    >>> layer(np.ones((8, 100, 6), np.float32)).shape
    (8, 100, 16)
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        *,
        stride: int = 1,
        padding: Padding1D = 0,
        dilation: int = 1,
        **options: Any,
    ):
        settings = _windows(
            self.name, padding, kernel_size=kernel_size, stride=stride, dilation=dilation
        )
        super().__init__(Conv2D(in_channels, out_channels, **settings, **options))


@register
class MaxPool1D(_AlongLength):
    """Largest value of every window along sequences; of bits, that is the OR.

    Parameters
    ----------
    kernel_size : int
    stride : int, optional
        By default that of `kernel_size`.
    padding : int, (before, after), "same" or "valid"
        Smaller than `kernel_size`; positions outside never win.

    Notes
    -----
    Forward and backward are those of `MaxPool2D` for images of height 1.

    Examples
    --------
    >>> import numpy as np
    >>> MaxPool1D(2)(np.float32([[[1], [3], [5], [9]]])).tolist()
    [[[3.0], [9.0]]]
    """

    def __init__(self, kernel_size: int, stride: int | None = None, padding: Padding1D = 0):
        step = kernel_size if stride is None else stride
        super().__init__(
            MaxPool2D(**_windows(self.name, padding, kernel_size=kernel_size, stride=step))
        )


@register
class AvgPool1D(_AlongLength):
    """Mean of every window along sequences, float32; positions outside count as zeros.

    Parameters
    ----------
    kernel_size : int
    stride : int, optional
        By default that of `kernel_size`.
    padding : int, (before, after), "same" or "valid"
        Smaller than `kernel_size`.

    Notes
    -----
    Forward and backward are those of `AvgPool2D` for images of height 1.

    Examples
    --------
    >>> import numpy as np
    >>> AvgPool1D(2)(np.float32([[[1], [3], [5], [9]]])).tolist()
    [[[2.0], [7.0]]]
    """

    def __init__(self, kernel_size: int, stride: int | None = None, padding: Padding1D = 0):
        step = kernel_size if stride is None else stride
        super().__init__(
            AvgPool2D(**_windows(self.name, padding, kernel_size=kernel_size, stride=step))
        )


@register
class GlobalAvgPool1D(Sequential):
    """Mean of every channel over the sequence: (n, length, c) to (n, c), float32.

    Notes
    -----
    Forward and backward are those of `GlobalAvgPool2D` for images of height 1.

    Examples
    --------
    >>> import numpy as np
    >>> GlobalAvgPool1D()(np.float32([[[1], [3], [5], [9]]]))
    array([[4.5]], dtype=float32)
    """

    def __init__(self) -> None:
        super().__init__(AsImages(), GlobalAvgPool2D())

    def __repr__(self) -> str:
        return f"{self.name}()"
