"""Pooling by a fixed blur, as a layer."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..ops.geometry import Pair
from .base import Cost, TrainingLayer, saved_for_backward
from .conv import FloatConv2D
from .inputs import Activation, Shape, is_data
from .operation import Convolution
from .registry import register
from .windows import Padding

_ROWS = {2: (1, 1), 3: (1, 2, 1), 5: (1, 4, 6, 4, 1)}


@register
class BlurPool2D(TrainingLayer):
    """Mean of every window, weighted by binomial numbers, with a stride; nothing is trained.

    Parameters
    ----------
    channels : int
    kernel_size : {2, 3, 5}
        The weights of a row are 1 1, 1 2 1 or 1 4 6 4 1, divided by their sum; those of a window
        are the products of its row and its column.
    stride, padding
        As in `bitops.conv2d`; positions outside the image are 0.

    Notes
    -----
    It takes the place of the stride of a pool, so that the output changes little if the image is
    shifted by a pixel.
    Forward:  y is the convolution of each channel with the weights.
    Backward:  each position of a window receives dy times its weight.
    The twin for inference is a `FloatConv2D`.

    References
    ----------
    Zhang, "Making convolutional networks shift-invariant again", 2019, section 3.2.

    Examples
    --------
    >>> BlurPool2D(4)(np.ones((1, 8, 8, 4), np.float32)).shape
    (1, 4, 4, 4)
    """

    def __init__(
        self,
        channels: int,
        kernel_size: int = 3,
        stride: int | Pair = 2,
        padding: Padding = "same",
    ):
        if type(kernel_size) is not int or kernel_size not in _ROWS:
            raise ValueError(f"[BlurPool2D] kernel_size must be 2, 3 or 5, got {kernel_size!r}")
        self.operation = Convolution.of(
            "BlurPool2D", channels, channels, kernel_size, stride, padding, 1, channels
        )
        self.in_features = self.out_features = channels
        row = np.array(_ROWS[kernel_size])
        window = np.outer(row, row) / row.sum() ** 2
        self.weight = np.tile(window.astype(np.float32)[..., np.newaxis], (channels, 1, 1, 1))
        self._x: Activation | None = None

    def __reduce__(self) -> tuple:
        windows = self.operation.windows
        settings = windows.kernel_size[0], windows.stride, windows.padding
        return type(self), (self.in_features, *settings)

    def config(self) -> dict[str, Any]:
        windows = self.operation.windows
        settings = {"stride": windows.stride, "padding": windows.padding}
        return {
            "channels": self.in_features,
            "kernel_size": windows.kernel_size[0],
            **settings,
        }

    def forward(self, x, *, training: bool = False) -> np.ndarray:
        x = self.operation.input(x)
        if training:
            self._x = x
        return self.operation.multiply_floats(x, self.weight, None)

    def backward(self, grad: np.ndarray) -> np.ndarray | None:
        x = saved_for_backward(self, self._x)
        unused = np.empty_like(self.weight)
        return self.operation.float_gradients(x, grad, self.weight, unused, with_dx=not is_data(x))

    def output_shape(self, shape: Shape) -> Shape:
        return self.operation.output_shape(shape)

    def cost(self, input_bits: int | None) -> Cost:
        return Cost(0, self.weight.nbytes, float_macs=self.weight.size)

    def to_packed(self) -> FloatConv2D:
        return FloatConv2D(self.weight, **self.operation.options)

    def __repr__(self) -> str:
        return f"BlurPool2D({self.in_features}, {self.operation.windows})"
