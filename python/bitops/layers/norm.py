"""Batch normalisation for training, and its inference form x * alpha + bias."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from ..ops.array import BitArray
from ..ops.checks import check_number
from ..ops.normalize import Normalized, column_totals, keep_within
from ..quantizers import ap2
from .base import Cost, Layer, TrainingLayer, check_gradient, saved_for_backward
from .columns import as_means, column_means, column_sums, exact_sums
from .inputs import as_activation, as_float, as_scales, check_size
from .parameter import Parameter
from .registry import ArraySpec, register
from .roles import Role

if TYPE_CHECKING:
    from ..ops.plan import Value
    from .plans import Chain


@register
class BatchNorm(TrainingLayer):
    """Normalise every feature over the batch, then scale by gamma and shift by beta.

    Parameters
    ----------
    features : int
    eps : float
        Added to the variance.
    momentum : float
        Weight of a new batch in the running statistics, in (0, 1].

    Attributes
    ----------
    gamma, beta : Parameter of shape (features,)
    running_mean, running_inv_std : ndarray of shape (features,), float32

    Notes
    -----
    Training:  y = gamma * xhat + beta,  xhat = (x - mean) * inv_std,  inv_std = (var + eps)^-1/2.
    Backward:  dx = gamma * inv_std * (dy - mean(dy) - xhat * mean(dy * xhat)),
    dgamma = sum(dy * xhat),  dbeta = sum(dy).
    Evaluation:  y = x * alpha + bias,  alpha = gamma * inv_std,  bias = beta - mean * alpha, with
    the running statistics, each operation rounded to float32.
    A row is a position: in images every pixel is one. Training needs at least two rows, and raises
    ValueError for one, whose xhat would be 0 whatever it holds.
    While it is frozen (see `trainable`), training is evaluation, and  dx = dy * alpha.
    The running statistics average inv_std itself, as in the code released with BinaryNet. Batch t
    has the weight max(momentum, 1/t), so that initial values do not linger in short trainings.

    References
    ----------
    Ioffe and Szegedy, "Batch Normalization", 2015, algorithms 1 and 2.

    Examples
    --------
    >>> layer = BatchNorm(2)
    >>> layer.forward(np.float32([[1, 10], [3, 30]]), training=True).round(3)
    array([[-1., -1.],
           [ 1.,  1.]], dtype=float32)
    >>> layer.running_mean
    array([ 2., 20.], dtype=float32)
    """

    SAVED: ClassVar[Sequence[str]] = ("batch",)
    TRANSIENT: ClassVar[Sequence[str]] = ("_alpha", "_observed")

    role = Role.AFFINE
    least_rows = 2
    powers: ClassVar[bool] = False  # whether AP2 takes part in training

    def __init__(self, features: int, eps: float = 1e-4, momentum: float = 0.1):
        self.in_features = self.out_features = check_size(self.name, "features", features)
        check_number(self.name, "eps", eps)
        check_number(self.name, "momentum", momentum)
        if not 0 < eps < np.inf:
            raise ValueError(f"[{self.name}] eps must be positive and finite, got {eps}")
        if not 0 < momentum <= 1:
            raise ValueError(f"[{self.name}] momentum must be in (0, 1], got {momentum}")
        self.eps = float(eps)
        self.momentum = float(momentum)
        self.gamma = Parameter(np.ones(features))
        self.beta = Parameter(np.zeros(features))
        self.running_mean = np.zeros(features, dtype=np.float32)
        self.running_inv_std = np.ones(features, dtype=np.float32)
        self.batches_seen = 0
        self.batch: Normalized | None = None  # of the last training step
        self._alpha: np.ndarray | None = None  # of a training step while frozen
        self._observed: tuple[np.ndarray, np.ndarray] | None = None  # of one that is not

    @classmethod
    def from_running(
        cls, gamma, beta, mean, var, eps: float = 1e-5, *, momentum: float = 0.1
    ) -> BatchNorm:
        """Make a layer with the parameters and statistics of one that was trained elsewhere.

        Parameters
        ----------
        gamma, beta, mean, var : array_like of shape (features,), real
            Factor and term, and the running mean and variance.
        eps : float
            Added to the variance.
        momentum : float
            As in the constructor, where frameworks that count the other way have 1 - momentum.

        Raises
        ------
        ValueError
            If the shapes differ, if a value is not finite, or if var + eps is not positive.
        """
        arrays = [np.asarray(array, np.float32) for array in (gamma, beta, mean, var)]
        features = arrays[0].size
        for name, array in zip(("gamma", "beta", "mean", "var"), arrays, strict=True):
            if array.shape != (features,) or not np.isfinite(array).all():
                raise ValueError(
                    f"[{cls.__name__}] {name} must be finite and of shape ({features},), "
                    f"got shape {array.shape}"
                )
        layer = cls(features, eps, momentum)
        spread = arrays[3] + np.float32(eps)
        if not (spread > 0).all():
            raise ValueError(f"[{cls.__name__}] var + eps must be positive, got {spread.min()}")
        layer.gamma.assign(arrays[0])
        layer.beta.assign(arrays[1])
        layer.running_mean[...], layer.running_inv_std[...] = arrays[2], 1 / np.sqrt(spread)
        layer.batches_seen = math.ceil(1 / momentum)  # so that a new batch counts by momentum
        return layer

    def affine(self) -> tuple[np.ndarray, np.ndarray]:
        """Return alpha and bias of evaluation, float32."""
        alpha = self.gamma.value * self.running_inv_std
        return alpha, self.beta.value - self.running_mean * alpha

    def forward(self, x, *, training: bool = False) -> np.ndarray:
        self._observed = None
        if training and self.trainable:
            y = self.normalize(x).values()
            self.narrow()
            return y
        alpha, bias = self.affine()
        y = as_float(as_activation(self.name, x, self.in_features)) * alpha
        y += bias
        self._alpha = alpha if training else None
        return y

    def normalize(self, x, *, relu: bool = False) -> Normalized:
        """Take a training step with x, or with max(x, 0), but do not compute the outputs yet."""
        x = as_float(as_activation(self.name, x, self.in_features))
        self._alpha = None
        self._check_rows(x)
        sums = column_totals(x, relu=relu)
        if not np.isfinite(sums).all():
            sums = exact_sums(_rectified(x, relu))
        mean = as_means(sums, x)
        variance = as_means(column_totals(x, relu=relu, mean=mean, powers=self.powers), x)
        if np.isfinite(variance).all():
            inv_std: np.ndarray = 1 / np.sqrt(variance + np.float32(self.eps))
        else:
            inv_std = self._inverse_deviation(_differences(_rectified(x, relu), mean))
        self.observe(mean, inv_std)
        gamma, beta = self.gamma.value.copy(), self.beta.value.copy()
        if self.powers:
            inv_std, gamma = ap2(inv_std), ap2(gamma)
        self.batch = Normalized(x, relu, mean, inv_std, gamma, beta, self.powers)
        return self.batch

    def narrow(self) -> Normalized:
        """Keep what the gradient needs in less memory, once the outputs are computed."""
        self.batch = saved_for_backward(self, self.batch).narrowed()
        return self.batch

    def _check_rows(self, x: np.ndarray) -> None:
        rows = x.size // x.shape[-1]
        if rows < self.least_rows:
            raise ValueError(
                f"[{self.name}] x must have at least two rows in training, got {rows}: alone, a "
                f"row is its own mean"
            )

    def _inverse_deviation(self, c: np.ndarray) -> np.ndarray:
        """(mean(square(c)) + eps)^-1/2, also where squares are beyond float32."""

        def square(c: np.ndarray) -> np.ndarray:
            return c * ap2(c) if self.powers else np.square(c)

        with np.errstate(over="ignore", invalid="ignore"):
            variance = column_means(square(c))
        if not np.isfinite(variance).all():
            largest = np.abs(c).reshape(-1, c.shape[-1]).max(axis=0)
            if np.isinf(largest).any() and not np.isnan(largest).any():
                raise ValueError(
                    f"[{self.name}] x must differ from its mean by less than float32 holds, got "
                    f"infinity"
                )
            if np.isfinite(largest).all():
                power = np.exp2(np.frexp(largest)[1].astype(np.float64) - 1)
                sums = column_sums(square(c / power.astype(np.float32))) * np.square(power)
                exact = sums / (c.size // c.shape[-1]) + self.eps
                return (1 / np.sqrt(exact)).astype(np.float32)
        return 1 / np.sqrt(variance + np.float32(self.eps))

    def observed(self) -> list[np.ndarray]:
        return [] if self._observed is None else list(self._observed)

    def observe(self, *observed: np.ndarray) -> None:
        if not observed:  # it was frozen
            return
        mean, inv_std = self._observed = observed[0], observed[1]
        self.batches_seen += 1
        weight = np.float32(self._weight())
        if weight == 1:  # a difference from the start values may lose all digits
            self.running_mean[...], self.running_inv_std[...] = mean, inv_std
            return
        self.running_mean += weight * (mean - self.running_mean)
        self.running_inv_std += weight * (inv_std - self.running_inv_std)

    def _weight(self) -> float:
        """What the newest batch counts in the running statistics."""
        return max(self.momentum, 1 / self.batches_seen)

    def backward(self, grad: np.ndarray) -> np.ndarray:
        return self.gradient(grad)

    def gradient(self, grad: np.ndarray, within: BitArray | None = None) -> np.ndarray:
        """Do what `backward` does; if not all gradients count, `within` has the bits of those.

        Behind a ReLU that was taken along, the gradient is that of the input of the ReLU.
        """
        if self._alpha is not None:
            return (grad if within is None else keep_within(grad, within)) * self._alpha
        batch = saved_for_backward(self, self.batch)
        check_gradient(self, grad, batch.x.shape)
        sums = batch.product_totals(grad, within)
        if not np.isfinite(sums).all():
            dy = grad if within is None else keep_within(grad, within)
            with np.errstate(over="ignore", invalid="ignore"):
                xhat = ap2(batch.xhat()) if self.powers else batch.xhat()
                sums = np.stack([exact_sums(dy * xhat), exact_sums(dy)])
        self.gamma.grad[...], self.beta.grad[...] = sums
        count = np.float32(grad.size // grad.shape[-1])
        by_xhat, less = self.gamma.grad / -count, self.beta.grad / count
        return batch.gradient(grad, within, by_xhat, less, batch.gamma * batch.inv_std)

    def parameters(self) -> list[Parameter]:
        return [self.gamma, self.beta]

    def state(self) -> list:
        running = [self.running_mean.copy(), self.running_inv_std.copy()]
        return [*super().state(), *running, np.array(self.batches_seen)]

    def restore(self, state: Sequence) -> None:
        *parameters, mean, inv_std, batches_seen = state
        super().restore(parameters)
        self.running_mean[...] = mean
        self.running_inv_std[...] = inv_std
        self.batches_seen = int(batches_seen)

    def cost(self, input_bits: int | None) -> Cost:
        features = self.gamma.size
        return Cost(2 * features, 8 * features, float_macs=features)

    def to_packed(self) -> PackedBatchNorm:
        return PackedBatchNorm(*self.affine())

    def config(self) -> dict[str, Any]:
        return {"features": self.gamma.size, "eps": self.eps, "momentum": self.momentum}

    def __repr__(self) -> str:
        return f"{self.name}({self.gamma.size}, eps={self.eps:g}, momentum={self.momentum:g})"


def _rectified(x: np.ndarray, relu: bool) -> np.ndarray:
    return np.maximum(x, np.float32(0)) if relu else x


def _differences(x: np.ndarray, mean: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore", invalid="ignore"):
        return x - mean


@register
class ShiftBatchNorm(BatchNorm):
    """Batch normalisation whose factors are powers of two, so that products are bit shifts.

    Parameters
    ----------
    features : int
    eps : float
        Added to the approximate variance.
    momentum : float
        Weight of a new batch in the running statistics, in (0, 1].

    Attributes
    ----------
    gamma, beta : Parameter of shape (features,)
    running_mean, running_inv_std : ndarray of shape (features,), float32
        Initially 0 and 1.

    Notes
    -----
    With AP2(z) = sign(z) * 2^round(log2(abs(z))), see `quantizers.ap2`:
    Training:  c = x - mean,  s = (mean(c * AP2(c)) + eps)^-1/2,
    y = c * AP2(s) * AP2(gamma) + beta.
    Backward, with C = AP2(c) and sigma = AP2(s):
    dx = (dy - mean(dy) - C * mean(C * dy) * sigma^2) * sigma * AP2(gamma),
    dgamma = sum(dy * AP2(c * sigma)), passed straight to gamma,  dbeta = sum(dy).
    Evaluation:  y = x * alpha + bias,  alpha = AP2(running_inv_std) * AP2(gamma),
    bias = beta - running_mean * alpha.
    Training needs at least two rows, as that of `BatchNorm`.
    The running statistics average the mean and s, before AP2, with the weight `momentum`.

    References
    ----------
    Courbariaux, Hubara et al., "Binarized Neural Networks", 2016, algorithm 3. The equations follow
    the Torch program released with it.

    Examples
    --------
    >>> layer = ShiftBatchNorm(1)
    >>> layer.forward(np.float32([[0], [8]]), training=True)
    array([[-1.],
           [ 1.]], dtype=float32)
    """

    powers = True

    def __init__(self, features: int, eps: float = 1e-5, momentum: float = 0.125):
        super().__init__(features, eps, momentum)

    def affine(self) -> tuple[np.ndarray, np.ndarray]:
        alpha = ap2(self.running_inv_std) * ap2(self.gamma.value)
        return alpha, self.beta.value - self.running_mean * alpha

    def _weight(self) -> float:
        return self.momentum


@register
class PackedBatchNorm(Layer):
    """Twin of a `BatchNorm` that is not folded into a product: y = x * alpha + bias, float32.

    Parameters
    ----------
    alpha, bias : array_like of shape (features,), float32

    Examples
    --------
    >>> PackedBatchNorm([2.0, 1.0], [0.0, 0.5])(np.float32([[1, 10]]))
    array([[ 2. , 10.5]], dtype=float32)
    """

    ARRAYS = (ArraySpec("alpha", "float32", 1), ArraySpec("bias", "float32", 1))

    def __init__(self, alpha, bias):
        alphas = as_scales("PackedBatchNorm", "alpha", alpha, None)
        biases = as_scales("PackedBatchNorm", "bias", bias, None)
        if alphas is None or biases is None or alphas.size != biases.size:
            raise ValueError(
                f"[PackedBatchNorm] alpha and bias must have the same features, "
                f"got {alpha!r} and {bias!r}"
            )
        self.alpha, self.bias = alphas, biases
        self.in_features = self.out_features = self.alpha.size

    def forward(self, x) -> np.ndarray:
        y = as_float(as_activation("PackedBatchNorm", x, self.in_features)) * self.alpha
        y += self.bias
        return y

    def compile(self, chain: Chain, x: Value) -> Value | None:
        if x.kind == "uint8":
            return None
        return chain.affine(x if x.kind == "int32" else chain.as_float(x), self.alpha, self.bias)

    def cost(self, input_bits: int | None) -> Cost:
        features = self.alpha.size
        return Cost(2 * features, 8 * features, float_macs=features)

    def __repr__(self) -> str:
        return f"PackedBatchNorm({self.alpha.size})"
