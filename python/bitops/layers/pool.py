"""Layers that shrink or flatten images: pools and Flatten for training, and their twins."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from ..ops.array import BitArray, pack, unpack
from ..ops.conv import im2col
from ..ops.geometry import Pair, Window
from ..ops.memory import WORD_BITS
from ..ops.patches import image_blocks, seen_slices
from ..ops.pool import (
    avg_pool2d,
    global_avg_pool2d,
    max_gradient,
    max_places,
    max_pool2d,
    mean_gradient,
)
from .base import Cost, Layer, TrainingLayer, check_gradient, saved_for_backward
from .inputs import Activation, Codes, Shape, as_activation, as_flips, as_float, as_images, is_data
from .registry import ArraySpec, register
from .roles import Role
from .windows import Padding, Windows, image_shape

if TYPE_CHECKING:
    from ..ops.plan import Value
    from .plans import Chain

# Of fewer channels the gradient of means takes less time tap by tap than window by window.
FEW_CHANNELS = 16

# An index into images or outputs: images, rows and columns.
Part = tuple[slice, slice, slice]


class Pool(Layer):
    """Base of the pools with windows, for training and for inference."""

    windows: Windows

    def __init__(
        self, kernel_size: int | Pair, stride: int | Pair | None = None, padding: Padding = 0
    ):
        stride = kernel_size if stride is None else stride
        self.windows = Windows.of(self.name, kernel_size, stride, padding)
        sides = self.windows.padding
        if isinstance(sides, str):
            return
        for length, ends in zip(self.kernel_size, sides, strict=True):
            if max(ends) >= length:  # no window may lie wholly outside the image
                raise ValueError(
                    f"[{self.name}] padding must be smaller than kernel_size, "
                    f"got {padding} and {kernel_size}"
                )

    @property
    def kernel_size(self) -> Pair:
        """Height and width of a window."""
        return self.windows.kernel_size

    def _pooled(self, pool: Callable[..., Any], x: Any) -> Any:
        """Apply a pooling function with the settings of the layer."""
        windows = self.windows
        return pool(x, windows.kernel_size, stride=windows.stride, padding=windows.padding)

    def config(self) -> dict[str, Any]:
        windows = self.windows
        return {
            "kernel_size": windows.kernel_size,
            "stride": windows.stride,
            "padding": windows.padding,
        }

    def output_shape(self, shape: Shape) -> Shape:
        height, width, channels = image_shape(self.name, shape)
        return (*self.windows.output(self.name, (height, width)), channels)

    def __repr__(self) -> str:
        return f"{self.name}({self.windows})"


@register
class MaxPool2D(Pool, TrainingLayer):
    """Largest value of every window, bits or numbers; positions outside the image do not count.

    Parameters
    ----------
    kernel_size, padding
        As in `bitops.max_pool2d`; padding must be smaller than kernel_size.
    stride : int or pair of int, optional
        By default that of `kernel_size`.

    Notes
    -----
    Forward:  y = max of x over the window; for bits this is their OR.
    Backward:  dy of a window is added to dx at the first maximum, in row-major order. For bits
    this is the first +1, or the first position if all are -1.

    Examples
    --------
    >>> MaxPool2D(2)(np.arange(16, dtype=np.float32).reshape(1, 4, 4, 1))[0, :, :, 0]
    array([[ 5.,  7.],
           [13., 15.]], dtype=float32)
    """

    SAVED = ("_saved",)

    role = Role.POOL

    _saved: tuple[Shape, Window, np.ndarray] | tuple[Activation, Activation] | None = None

    def forward(self, x, *, training: bool = False) -> Activation:
        x = as_images("MaxPool2D", x)
        y: Activation
        if isinstance(x, Codes):
            y = Codes(self._pooled(max_pool2d, x.numbers), x.bits, x.step)
        else:
            y = self._pooled(max_pool2d, x)
        if training:
            self._saved = self._places(x, y) or (x, y)
        return y

    def _places(self, x: Activation, y: Activation) -> tuple[Shape, Window, np.ndarray] | None:
        """What the gradient needs of most pools of numbers, a byte for each window; else None."""
        if not (isinstance(x, np.ndarray) and isinstance(y, np.ndarray)):
            return None
        window = self.windows.on("MaxPool2D", x)
        places = max_places(x, y, window)
        return None if places is None else (x.shape, window, places)

    def backward(self, grad: np.ndarray) -> np.ndarray | None:
        saved = saved_for_backward(self, self._saved)
        if len(saved) == 3:
            shape, window, places = saved
            check_gradient(self, grad, places.shape)
            return max_gradient(places, grad, window, shape)
        x, y = saved
        if is_data(x):
            return None
        check_gradient(self, grad, y.shape)
        window = self.windows.on("MaxPool2D", x)
        dx = np.zeros(x.shape, np.float32)
        for images in image_blocks(dx):
            values, maxima = _values(x[images]), _values(y[images])
            _to_first_maximum(values, maxima, grad[images], window, dx[images])
        return dx

    def to_packed(self, minimum: np.ndarray | None = None) -> PackedMaxPool2D:
        return PackedMaxPool2D(**self.config(), minimum=minimum)

    def output_bits(self, input_bits: int | None) -> int | None:
        return input_bits


def _taps(window: Window) -> Iterator[tuple[Part, Part]]:
    """Yield, for each tap of the window, the outputs where it lies inside, and what it sees.

    With 4 pixels x, windows of 3, stride 1 and padding 1, along one axis:

        tap 0    outputs    y1 y2 y3    see x0 x1 x2
        tap 1    outputs y0 y1 y2 y3    see x0 x1 x2 x3
        tap 2    outputs y0 y1 y2       see    x1 x2 x3
    """
    for seen_y, rows in seen_slices(window, 0):
        for seen_x, columns in seen_slices(window, 1):
            yield (slice(None), seen_y, seen_x), (slice(None), rows, columns)


def _values(x: Activation) -> np.ndarray:
    """Return an array ordered like the values, in the smallest dtype at hand."""
    if isinstance(x, BitArray):
        return unpack(x)
    return x.numbers if isinstance(x, Codes) else x


def _to_first_maximum(
    x: np.ndarray, y: np.ndarray, dy: np.ndarray, window: Window, dx: np.ndarray
) -> None:
    """Add dy of each window to dx at the first position where x equals the maximum y."""
    searching = np.ones(y.shape, np.bool_)
    for seen, place in _taps(window):
        hit = x[place] == y[seen]
        hit &= searching[seen]
        searching[seen] ^= hit
        target = dx[place]
        target += dy[seen] * hit


@register
class PackedMaxPool2D(Pool):
    """Twin of `MaxPool2D` for inference: the largest value of every window; of bits, their OR.

    Parameters
    ----------
    kernel_size, padding
        As in `bitops.max_pool2d`; padding must be smaller than kernel_size.
    stride : int or pair of int, optional
        By default that of `kernel_size`.
    minimum : array_like of shape (channels,), bool, optional
        Channels that take the smallest value instead; of bits, their AND.

    Examples
    --------
    >>> bits = pack(np.float32([-1, -1, 1, -1]).reshape(1, 2, 2, 1))
    >>> np.asarray(PackedMaxPool2D(2)(bits)).tolist()
    [[[[1]]]]
    >>> np.asarray(PackedMaxPool2D(2, minimum=[True])(bits)).tolist()
    [[[[-1]]]]
    """

    ARRAYS = (ArraySpec("minimum", "bool", 1),)

    def __init__(
        self,
        kernel_size: int | Pair,
        stride: int | Pair | None = None,
        padding: Padding = 0,
        minimum=None,
    ):
        super().__init__(kernel_size, stride, padding)
        self.minimum: np.ndarray | None = None
        if minimum is not None:
            self.in_features = self.out_features = np.size(minimum)
            self.minimum = as_flips("PackedMaxPool2D", minimum, self.in_features, "minimum")
        self._mask = None if self.minimum is None else pack(self.minimum).words

    def forward(self, x) -> Activation:
        x = as_images("PackedMaxPool2D", x, self.in_features)
        return self._order_reversed(self._pooled(max_pool2d, self._order_reversed(x)))

    def compile(self, chain: Chain, x: Value) -> Value | None:
        if len(x.shape) != 4:
            return None
        window = self.windows.on("PackedMaxPool2D", x)
        if x.kind == "bits":
            mask = None if self.minimum is None else self._mask
            return chain.max_pool2d(x, window, mask)
        # Of two zeros, which a window gives depends on the order of its taps, and that on whether
        # there is padding on either side.
        is_even = all((before == 0) == (after == 0) for before, after in window.padding)
        if x.kind != "float32" or self.minimum is not None or not is_even:
            return None
        return chain.max_pool2d(x, window, None)

    def _order_reversed(self, x: Activation) -> Activation:
        """Reverse the order of values in the channels of `minimum`, so that max finds the min."""
        if self.minimum is None or self._mask is None:
            return x
        if isinstance(x, BitArray):
            return BitArray.from_words(x.words ^ self._mask, x.shape)
        x = np.asarray(x)
        reverse = np.negative if x.dtype.kind == "f" else np.invert
        return np.where(self.minimum, reverse(x), x)

    def output_bits(self, input_bits: int | None) -> int | None:
        return input_bits

    def cost(self, input_bits: int | None) -> Cost:
        # the mask has one bit a channel and holds no trained numbers
        return Cost(packed_bytes=0 if self._mask is None else self._mask.nbytes)

    def __repr__(self) -> str:
        minimum = "" if self.minimum is None else ", minimum"
        return f"PackedMaxPool2D({self.windows}{minimum})"


@register
class AvgPool2D(Pool, TrainingLayer):
    """Mean of every window, float32; positions outside the image count as zeros.

    Parameters
    ----------
    kernel_size, padding
        As in `bitops.avg_pool2d`; padding must be smaller than kernel_size.
    stride : int or pair of int, optional
        By default that of `kernel_size`.

    Notes
    -----
    Forward:  y = sum of x over the window / (kh * kw).
    Backward:  every position of a window receives dy / (kh * kw).

    Examples
    --------
    >>> AvgPool2D(2)(np.arange(16, dtype=np.float32).reshape(1, 4, 4, 1))[0, :, :, 0]
    array([[ 2.5,  4.5],
           [10.5, 12.5]], dtype=float32)
    """

    SAVED = ("_saved",)

    _saved: tuple[Window, tuple[int, ...], bool] | None = None

    def forward(self, x, *, training: bool = False) -> np.ndarray:
        x = as_images("AvgPool2D", x)
        if training:
            self._saved = self.windows.on("AvgPool2D", x), x.shape, is_data(x)
        return self._pooled(avg_pool2d, as_float(x))

    def backward(self, grad: np.ndarray) -> np.ndarray | None:
        window, shape, data = saved_for_backward(self, self._saved)
        if data:
            return None
        check_gradient(self, grad, (shape[0], *window.output, shape[-1]))
        if shape[-1] >= FEW_CHANNELS:
            return mean_gradient(grad, window, shape)
        dx, share = np.zeros(shape, np.float32), grad / np.float32(window.taps)
        for seen, place in _taps(window):
            dx[place] += share[seen]
        return dx

    def to_packed(self) -> PackedAvgPool2D:
        return PackedAvgPool2D(**self.config())


@register
class PackedAvgPool2D(Pool):
    """Twin of `AvgPool2D` for inference: the mean of every window, float32.

    Parameters
    ----------
    kernel_size, stride, padding
        As in `AvgPool2D`.

    Examples
    --------
    >>> PackedAvgPool2D(2)(np.arange(16, dtype=np.float32).reshape(1, 4, 4, 1))[0, :, :, 0]
    array([[ 2.5,  4.5],
           [10.5, 12.5]], dtype=float32)
    """

    def forward(self, x) -> np.ndarray:
        return self._pooled(avg_pool2d, as_float(as_images("PackedAvgPool2D", x)))

    def compile(self, chain: Chain, x: Value) -> Value | None:
        if len(x.shape) != 4:
            return None
        return chain.avg_pool2d(chain.as_float(x), self.windows.on("PackedAvgPool2D", x))


class GlobalPool(Layer):
    """Base of the pools over a whole image, for training and for inference."""

    def output_shape(self, shape: Shape) -> Shape:
        return image_shape(self.name, shape)[2:]


@register
class GlobalAvgPool2D(GlobalPool, TrainingLayer):
    """Mean of every channel over the image: (n, h, w, c) to (n, c), float32.

    Notes
    -----
    Forward:  y = sum of x over the image / (h * w).
    Backward:  every position receives dy / (h * w).

    Examples
    --------
    >>> GlobalAvgPool2D()(np.arange(8, dtype=np.float32).reshape(1, 2, 2, 2))
    array([[3., 4.]], dtype=float32)
    """

    SAVED = ("_saved",)

    def __init__(self) -> None:
        self._saved: tuple[tuple[int, ...], bool] | None = None

    def forward(self, x, *, training: bool = False) -> np.ndarray:
        x = as_images("GlobalAvgPool2D", x)
        if training:
            self._saved = x.shape, is_data(x)
        return global_avg_pool2d(as_float(x))

    def backward(self, grad: np.ndarray) -> np.ndarray | None:
        shape, data = saved_for_backward(self, self._saved)
        if data:
            return None
        share = grad / np.float32(shape[1] * shape[2])
        return np.broadcast_to(share[:, np.newaxis, np.newaxis], shape).copy()

    def to_packed(self) -> PackedGlobalAvgPool2D:
        return PackedGlobalAvgPool2D()


@register
class PackedGlobalAvgPool2D(GlobalPool):
    """Twin of `GlobalAvgPool2D` for inference: (n, h, w, c) to the means (n, c), float32.

    Examples
    --------
    >>> PackedGlobalAvgPool2D()(np.arange(8, dtype=np.float32).reshape(1, 2, 2, 2))
    array([[3., 4.]], dtype=float32)
    """

    def forward(self, x) -> np.ndarray:
        return global_avg_pool2d(as_float(as_images("PackedGlobalAvgPool2D", x)))

    def compile(self, chain: Chain, x: Value) -> Value | None:
        # NumPy adds the numbers of a single channel in another order
        if len(x.shape) != 4 or x.features == 1:
            return None
        return chain.global_avg_pool2d(chain.as_float(x))


class Flattening(Layer):
    """Base of the layers that turn images into rows, for training and for inference."""

    mixes_axes = True

    def output_shape(self, shape: Shape) -> Shape:
        if len(shape) < 2 or None in shape:  # further axes may be unknown
            return (None,)
        return (math.prod(size for size in shape if size is not None),)

    def output_bits(self, input_bits: int | None) -> int | None:
        return input_bits


def flattened(x: Activation) -> Activation:
    """Return examples of any shape as rows (n, features); bits stay packed along the last axis."""
    n, features = x.shape[0], math.prod(x.shape[1:])
    if not isinstance(x, BitArray):
        return x.reshape(n, features)
    channels = x.shape[-1]
    if x.words.shape[-1] * WORD_BITS == channels or x.ndim == 2:  # no padding bits within a row
        words = x.words.reshape(n, math.prod(x.words.shape[1:]))  # -1 fails for no examples
        return BitArray.from_words(words, (n, features))
    pixels = features // channels
    rows = im2col(x.reshape(n, pixels, 1, channels), (pixels, 1))
    return rows.reshape(n, features)


@register
class Flatten(Flattening, TrainingLayer):
    """All features of an example as one row: (n, h, w, c) to (n, h * w * c), bits or numbers.

    Notes
    -----
    Backward:  dx is dy in the shape of x.

    Examples
    --------
    >>> Flatten()(np.zeros((8, 2, 2, 16), np.float32)).shape
    (8, 64)
    """

    TRANSIENT = ("_shape",)

    role = Role.MOVES

    def __init__(self) -> None:
        self._shape: tuple[int, ...] | None = None

    def forward(self, x, *, training: bool = False) -> Activation:
        x = as_activation("Flatten", x)
        if training:
            self._shape = x.shape
        return flattened(x)

    def backward(self, grad: np.ndarray) -> np.ndarray:
        return grad.reshape(saved_for_backward(self, self._shape))

    def to_packed(self) -> PackedFlatten:
        return PackedFlatten()


@register
class PackedFlatten(Flattening):
    """Twin of `Flatten` for inference: (n, h, w, c) to (n, h * w * c), bits or numbers.

    Examples
    --------
    >>> bits = PackedFlatten()(pack(np.ones((8, 2, 2, 16))))
    >>> bits.shape, bits.nbytes
    ((8, 64), 64)
    """

    def forward(self, x) -> Activation:
        return flattened(as_activation("PackedFlatten", x))

    def compile(self, chain: Chain, x: Value) -> Value | None:
        return chain.flatten(x)
