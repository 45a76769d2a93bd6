"""Functions that prepare images for training: random flips and crops, contrast, whitening.

Images are NHWC, uint8 or real. `random_flip` and `random_crop` keep the dtype; the others return
float32.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..ops.checks import as_generator, check_integer, check_number, check_rate, real_array

__all__ = ["ZCA", "gcn", "lcn", "random_crop", "random_flip"]

_BATCH = 4096  # rows whitened at a time, so that float32 copies of a large data set stay small


def _images(where: str, x: ArrayLike) -> NDArray[Any]:
    images = real_array(where, "x", x)
    if images.dtype.kind not in "iuf":
        raise TypeError(f"[{where}] x must hold numbers, got {images.dtype}")
    if images.ndim != 4:
        raise ValueError(f"[{where}] x must have shape (n, h, w, channels), got {images.shape}")
    return images


def random_flip(x: ArrayLike, seed=None) -> NDArray[Any]:
    """Mirror each image left to right with probability 1/2.

    Parameters
    ----------
    x : array_like of shape (n, h, w, channels)
    seed : int, SeedSequence or Generator, optional

    Returns
    -------
    ndarray of the shape and dtype of `x`; a copy

    Examples
    --------
    >>> random_flip(np.uint8([[[[1], [2]]]] * 4), seed=0)[:, 0, 0, 0]
    array([1, 2, 2, 2], dtype=uint8)
    """
    images = _images("random_flip", x)
    chosen = as_generator("random_flip", seed).random(len(images)) < 0.5
    result = images.copy()
    result[chosen] = images[chosen, :, ::-1]
    return result


def random_crop(
    x: ArrayLike,
    padding: int = 4,
    seed=None,
    *,
    size: int | None = None,
    fill: float | Literal["edge"] = 0,
) -> NDArray[Any]:
    """Cut a window out of each padded image, at a random place.

    Parameters
    ----------
    x : array_like of shape (n, h, w, channels)
    padding : int
        Pixels added on each side.
    seed : int, SeedSequence or Generator, optional
    size : int, optional
        Height and width of the windows. By default those of `x`, so that each image is shifted by
        up to `padding` pixels along both axes.
    fill : float or "edge"
        Value of the added pixels; "edge" gives each one that of the nearest pixel of the image.

    Returns
    -------
    ndarray of shape (n, height, width, channels) and the dtype of `x`; a copy

    Examples
    --------
    >>> images = np.ones((2, 8, 8, 3), np.uint8)
    >>> random_crop(images, padding=1, seed=0).shape
    (2, 8, 8, 3)
    >>> random_crop(images, 0, seed=0, size=6).shape
    (2, 6, 6, 3)
    """
    images = _images("random_crop", x)
    padding = check_integer("random_crop", "padding", padding, 0)
    n, height, width, _ = images.shape
    padded = _padded(images, padding, fill)
    if size is not None:
        height = width = check_integer("random_crop", "size", size, 1)
        if size > min(padded.shape[1:3]):
            raise ValueError(
                f"[random_crop] size must be at most that of the padded images, "
                f"{padded.shape[1]} x {padded.shape[2]}, got {size}"
            )
    rng = as_generator("random_crop", seed)
    rows = rng.integers(0, padded.shape[1] - height + 1, n)
    columns = rng.integers(0, padded.shape[2] - width + 1, n)
    # (n, 1, 1), (n, height, 1) and (n, 1, width) broadcast to one place for every pixel
    return padded[
        np.arange(n)[:, None, None],
        (rows[:, None] + np.arange(height))[:, :, None],
        (columns[:, None] + np.arange(width))[:, None, :],
    ]


def _padded(images: NDArray[Any], padding: int, fill: float | str) -> NDArray[Any]:
    """Add pixels on each side."""
    sides = ((0, 0), (padding, padding), (padding, padding), (0, 0))
    if isinstance(fill, str):
        if fill != "edge":
            raise ValueError(f'[random_crop] fill must be a number or "edge", got {fill!r:.80}')
        if 0 in images.shape[1:3] and padding:
            raise ValueError(f"[random_crop] x must have pixels, got shape {images.shape}")
        return np.pad(images, sides, mode="edge")
    check_number("random_crop", "fill", fill)
    return np.pad(images, sides, constant_values=fill)


def gcn(x: ArrayLike, scale: float = 55.0, *, min_norm: float = 1e-8) -> NDArray[np.float32]:
    """Centre every image and bring it to one norm: global contrast normalization.

    Parameters
    ----------
    x : array_like of shape (n, ...)
    scale : float
        Norm of the result.
    min_norm : float
        An image whose norm divided by `scale` is smaller is only centred.

    Returns
    -------
    ndarray of the shape of `x`, float32

    Notes
    -----
    y = (x - mean(x)) / d, d = norm(x - mean(x)) / scale, or 1 if that is below `min_norm`. Mean and
    norm are those of all pixels and channels of an image.

    References
    ----------
    Goodfellow et al., "Maxout Networks", 2013, section 5.2 (CIFAR-10); scale 55 is that of the
    script of pylearn2 that makes the data of BinaryConnect.

    Examples
    --------
    >>> images = gcn(np.random.default_rng(0).random((2, 8, 8, 3)))
    >>> np.linalg.norm(images.reshape(2, -1), axis=1).round(3)
    array([55., 55.], dtype=float32)
    """
    images = real_array("gcn", "x", x)
    if images.ndim < 2:
        raise ValueError(f"[gcn] x must have shape (n, ...), got {images.shape}")
    check_rate("gcn", "scale", scale)
    axes = tuple(range(1, images.ndim))
    if not images.size:
        return np.zeros(images.shape, np.float32)
    y = images.astype(np.float32)  # a copy
    y -= y.mean(axis=axes, keepdims=True)
    d = np.sqrt(np.square(y).sum(axis=axes, keepdims=True)) / np.float32(scale)
    y /= np.where(d < np.float32(min_norm), np.float32(1), d)
    return y


def lcn(
    x: ArrayLike, size: int = 7, *, sigma: float = 2.0, min_divisor: float = 1e-4
) -> NDArray[np.float32]:
    """Centre every pixel on its neighbours and divide by their deviation: local normalization.

    Parameters
    ----------
    x : array_like of shape (n, h, w, channels)
    size : int, odd
        Height and width of the neighbourhood.
    sigma : float
        Width of the Gaussian weights of the neighbours, in pixels.
    min_divisor : float
        Smallest number that is divided by.

    Returns
    -------
    ndarray of the shape of `x`, float32

    Notes
    -----
    With Gaussian weights g that sum to 1, and 0 outside the image, on each channel by itself:
    v = x - g * x,  d = sqrt(g * v^2),  y = v / max(d, mean(d), min_divisor), where * is correlation
    and the mean is that over the image.

    References
    ----------
    Jarrett et al., "What is the best multi-stage architecture for object recognition?", 2009,
    section 2 (there the neighbours are those of all channels); size, sigma and the channels by
    themselves are those of pylearn2, which prepared the SVHN of BinaryConnect. It squares x, not v.

    Examples
    --------
    >>> lcn(np.ones((2, 8, 8, 3), np.float32)).shape
    (2, 8, 8, 3)
    """
    images = _images("lcn", x)
    size = check_integer("lcn", "size", size, 1)
    if size % 2 == 0:
        raise ValueError(f"[lcn] size must be odd, got {size}")
    check_rate("lcn", "sigma", sigma)
    check_rate("lcn", "min_divisor", min_divisor)
    # imported here: SciPy would double the time that `import bitops.training` takes
    from scipy.ndimage import correlate1d

    offsets = np.arange(size) - size // 2
    weights = np.exp(-np.square(offsets) / (2 * sigma**2))
    weights /= weights.sum()  # those of two axes are products, whose sum is 1 as well

    def blurred(values: NDArray[np.float32]) -> NDArray[np.float32]:
        rows = correlate1d(values, weights, axis=1, mode="constant")
        return correlate1d(rows, weights, axis=2, mode="constant")

    y = np.empty(images.shape, np.float32)
    for start in range(0, len(images), _BATCH):
        batch = images[start : start + _BATCH].astype(np.float32)
        batch -= blurred(batch)
        d = np.sqrt(blurred(np.square(batch)))
        limit = np.maximum(d.mean(axis=(1, 2), keepdims=True), np.float32(min_divisor))
        np.divide(batch, np.maximum(d, limit), out=y[start : start + _BATCH])
    return y


class ZCA:
    """Whitening that changes images as little as it can.

    Parameters
    ----------
    bias : float
        Added to the variances, so that directions without variance do not blow up.

    Attributes
    ----------
    mean : ndarray of shape (features,), float32
    matrix : ndarray of shape (features, features), float32
        Symmetric.

    Notes
    -----
    y = (x - mean) P, P = V (D + bias)^(-1/2) V^T, where V D V^T is the covariance of the data that
    `fit` saw, divided by n. Covariance and P are computed in float64.

    References
    ----------
    Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", 2009, appendix A; bias 0.1
    is the default of pylearn2.

    Examples
    --------
    >>> import numpy as np
    >>> x_train, x_test = np.random.default_rng(0).random((2, 50, 4, 4, 3), np.float32)
    >>> zca = ZCA().fit(gcn(x_train))
    >>> zca.apply(gcn(x_test)).shape
    (50, 4, 4, 3)
    """

    def __init__(self, bias: float = 0.1):
        check_rate("ZCA", "bias", bias)
        self.bias = float(bias)
        self.mean: NDArray[np.float32] | None = None
        self.matrix: NDArray[np.float32] | None = None

    def fit(self, x: ArrayLike) -> ZCA:
        """Learn mean and covariance from x of shape (n, ...), n >= 1, and return this object."""
        rows = self._rows(x)
        if not rows.size:
            raise ValueError(f"[ZCA] x must hold at least one row, got shape {rows.shape}")
        mean = rows.mean(axis=0, dtype=np.float64)
        covariance = np.zeros((rows.shape[1], rows.shape[1]))
        for start in range(0, len(rows), _BATCH):
            centred = rows[start : start + _BATCH] - mean
            covariance += centred.T @ centred
        covariance /= len(rows)
        # imported here: SciPy would double the time that `import bitops.training` takes
        from scipy.linalg import eigh

        variances, directions = eigh(covariance)
        # rounding may leave variances of 0 slightly below
        scales = 1 / np.sqrt(np.maximum(variances, 0) + self.bias)
        self.mean = mean.astype(np.float32)
        self.matrix = ((directions * scales) @ directions.T).astype(np.float32)
        return self

    def apply(self, x: ArrayLike) -> NDArray[np.float32]:
        """Whiten x of shape (n, ...), which must have as many features as `fit` saw."""
        if self.mean is None or self.matrix is None:
            raise RuntimeError("[ZCA] apply needs fit(x) before it")
        rows = self._rows(x)
        if rows.shape[1] != len(self.mean):
            raise ValueError(f"[ZCA] x must have {len(self.mean)} features, got {rows.shape[1]}")
        result = np.empty(rows.shape, np.float32)
        for start in range(0, len(rows), _BATCH):
            batch = slice(start, start + _BATCH)
            np.matmul(rows[batch].astype(np.float32) - self.mean, self.matrix, out=result[batch])
        return result.reshape(np.shape(x))

    @staticmethod
    def _rows(x: ArrayLike) -> NDArray[Any]:
        images = real_array("ZCA", "x", x)
        if images.dtype.kind not in "iuf":
            raise TypeError(f"[ZCA] x must hold numbers, got {images.dtype}")
        if images.ndim < 2:
            raise ValueError(f"[ZCA] x must have shape (n, ...), got {images.shape}")
        return images.reshape(len(images), int(np.prod(images.shape[1:])))

    def __repr__(self) -> str:
        features = "" if self.mean is None else f", features={len(self.mean)}"
        return f"ZCA(bias={self.bias:g}{features})"
