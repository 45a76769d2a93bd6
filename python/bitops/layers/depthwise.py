"""Binary convolutions of each channel by itself, alone or followed by one over the channels."""

from __future__ import annotations

from typing import Any

from ..ops.checks import as_seed_sequence
from ..ops.geometry import Pair
from .container import Sequential
from .conv import BinaryConv2D
from .inputs import check_size
from .registry import register
from .windows import Padding


@register
class BinaryDepthwiseConv2D(BinaryConv2D):
    """Convolution of each channel by itself with the signs of trained float32 latent filters.

    Parameters
    ----------
    channels : int
    kernel_size, stride, padding, dilation
        As in `bitops.conv2d`.
    multiplier : int
        Filters a channel. Output channel i is made from channel i // multiplier.
    pad_value, bias, scale_weights, scale_input, clip_value, seed, **latent
        As in `BinaryConv2D`.

    Attributes
    ----------
    weight : Parameter of shape (channels * multiplier, kh, kw, 1)
    bias : Parameter of shape (channels * multiplier,) or None

    Notes
    -----
    It is a `BinaryConv2D` with a group for each channel, and is packed as one.

    References
    ----------
    Howard et al., "MobileNets", 2017, section 3.1: depthwise convolutions.

    Examples
    --------
    >>> import numpy as np
    >>> layer = BinaryDepthwiseConv2D(16, 3, padding=1, seed=0)
    >>> layer(np.ones((8, 28, 28, 16), np.float32)).shape
    (8, 28, 28, 16)
    """

    def __init__(
        self,
        channels: int,
        kernel_size: int | Pair,
        *,
        stride: int | Pair = 1,
        padding: Padding = 0,
        dilation: int | Pair = 1,
        multiplier: int = 1,
        pad_value: int = 0,
        **options: Any,
    ):
        channels = check_size(self.name, "channels", channels)
        multiplier = check_size(self.name, "multiplier", multiplier)
        window: dict[str, Any] = {"stride": stride, "padding": padding, "dilation": dilation}
        super().__init__(
            channels,
            channels * multiplier,
            kernel_size,
            **window,
            groups=channels,
            pad_value=pad_value,
            **options,
        )

    def config(self) -> dict[str, Any]:
        config = super().config()
        channels, made = config.pop("in_channels"), config.pop("out_channels")
        del config["groups"]
        return {**config, "channels": channels, "multiplier": made // channels}


@register
class BinarySeparableConv2D(Sequential):
    """Binary convolution of each channel by itself, then one over the channels of each pixel.

    Parameters
    ----------
    in_channels, out_channels : int
    kernel_size, stride, padding, dilation, multiplier, pad_value
        As in `BinaryDepthwiseConv2D`, the first of the two.
    bias : bool
        Whether the second adds a trained float32 bias.
    scale_weights : bool
        Whether both scale every filter by alpha, its mean absolute latent weight.
    seed : int or SeedSequence, optional
        Source of the initial weights.
    **latent
        Options of the latent weights of both, as in `BinaryDense`.

    Attributes
    ----------
    layers : list of BinaryDepthwiseConv2D and BinaryConv2D

    Notes
    -----
    Nothing lies between the two: the second multiplies the sums of the first, which are numbers, by
    its +-1 filters. Put a BatchNorm and a Sign between two layers of your own to multiply bits.

    References
    ----------
    Howard et al., "MobileNets", 2017, section 3.1.

    Examples
    --------
    >>> import numpy as np
    >>> layer = BinarySeparableConv2D(16, 32, 3, padding=1, seed=0)
    >>> layer(np.ones((8, 28, 28, 16), np.float32)).shape
    (8, 28, 28, 32)
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | Pair,
        *,
        stride: int | Pair = 1,
        padding: Padding = 0,
        dilation: int | Pair = 1,
        multiplier: int = 1,
        pad_value: int = 0,
        bias: bool = False,
        scale_weights: bool = False,
        seed=None,
        **latent: Any,
    ):
        first, second = as_seed_sequence("BinarySeparableConv2D", seed).spawn(2)
        latent["scale_weights"] = scale_weights
        depthwise = BinaryDepthwiseConv2D(
            in_channels,
            kernel_size,
            stride=stride,
            padding=padding,
            dilation=dilation,
            multiplier=multiplier,
            pad_value=pad_value,
            seed=first,
            **latent,
        )
        middle = depthwise.out_features
        points = BinaryConv2D(middle, out_channels, 1, bias=bias, seed=second, **latent)
        super().__init__(depthwise, points)
