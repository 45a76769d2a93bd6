"""Batch normalisation for training, and its inference form x * alpha + bias."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..ops.checks import check_number
from ..quantizers import ap2
from .base import Cost, Layer, TrainingLayer, saved_for_backward
from .inputs import as_activation, as_float, as_scales, check_size
from .parameter import Parameter
from .registry import ArraySpec, register
from .roles import Role


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
    The running statistics average inv_std itself, as in the code released with BinaryNet. Batch t
    has the weight max(momentum, 1/t), so that initial values do not linger in short trainings.

    References
    ----------
    Ioffe and Szegedy, "Batch Normalization", 2015, algorithms 1 and 2.
    """

    role = Role.AFFINE

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
        self._saved: tuple[np.ndarray, np.ndarray] | None = None

    def affine(self) -> tuple[np.ndarray, np.ndarray]:
        """Return alpha and bias of evaluation, float32."""
        alpha = self.gamma.value * self.running_inv_std
        return alpha, self.beta.value - self.running_mean * alpha

    def forward(self, x, *, training: bool = False) -> np.ndarray:
        x = as_float(as_activation(self.name, x, self.in_features))
        if not training:
            alpha, bias = self.affine()
            y = x * alpha
            y += bias
            return y
        axes = tuple(range(x.ndim - 1))
        mean = x.mean(axis=axes)
        xhat = x - mean
        inv_std = 1 / np.sqrt(np.square(xhat).mean(axis=axes) + np.float32(self.eps))
        xhat *= inv_std
        self._update_running(mean, inv_std)
        self._saved = xhat, inv_std
        y = xhat * self.gamma.value
        y += self.beta.value
        return y

    def _update_running(self, mean: np.ndarray, inv_std: np.ndarray) -> None:
        self.batches_seen += 1
        weight = np.float32(max(self.momentum, 1 / self.batches_seen))
        self.running_mean += weight * (mean - self.running_mean)
        self.running_inv_std += weight * (inv_std - self.running_inv_std)

    def backward(self, grad: np.ndarray) -> np.ndarray:
        xhat, inv_std = saved_for_backward(self, self._saved)
        axes = tuple(range(grad.ndim - 1))
        count = np.float32(grad.size // grad.shape[-1])
        np.sum(grad * xhat, axis=axes, out=self.gamma.grad)
        np.sum(grad, axis=axes, out=self.beta.grad)
        dx = xhat * (self.gamma.grad / -count)
        dx += grad
        dx -= self.beta.grad / count
        dx *= self.gamma.value * inv_std
        return dx

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

    def cost(self, bits_in: bool) -> Cost:
        features = self.gamma.size
        return Cost(2 * features, 8 * features, float_macs=features)

    def to_packed(self) -> PackedBatchNorm:
        return PackedBatchNorm(*self.affine())

    def __repr__(self) -> str:
        return f"{self.name}({self.gamma.size}, eps={self.eps:g}, momentum={self.momentum:g})"


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
    The running statistics average the mean and s, before AP2, with the weight `momentum`.

    References
    ----------
    Courbariaux, Hubara et al., "Binarized Neural Networks", 2016, algorithm 3. The equations follow
    the Torch program released with it.
    """

    role = Role.AFFINE

    def __init__(self, features: int, eps: float = 1e-5, momentum: float = 0.125):
        super().__init__(features, eps, momentum)

    def affine(self) -> tuple[np.ndarray, np.ndarray]:
        alpha = ap2(self.running_inv_std) * ap2(self.gamma.value)
        return alpha, self.beta.value - self.running_mean * alpha

    def forward(self, x, *, training: bool = False) -> np.ndarray:
        if not training:
            return super().forward(x)
        x = as_float(as_activation(self.name, x, self.in_features))
        axes = tuple(range(x.ndim - 1))
        mean = x.mean(axis=axes)
        c = x - mean
        inv_std = 1 / np.sqrt((c * ap2(c)).mean(axis=axes) + np.float32(self.eps))
        self._update_running(mean, inv_std)
        sigma = ap2(inv_std)
        self._saved = c, sigma
        y = c * (sigma * ap2(self.gamma.value))
        y += self.beta.value
        return y

    def _update_running(self, mean: np.ndarray, inv_std: np.ndarray) -> None:
        self.batches_seen += 1
        weight = np.float32(self.momentum)
        self.running_mean += weight * (mean - self.running_mean)
        self.running_inv_std += weight * (inv_std - self.running_inv_std)

    def backward(self, grad: np.ndarray) -> np.ndarray:
        c, sigma = saved_for_backward(self, self._saved)
        axes = tuple(range(grad.ndim - 1))
        np.sum(grad * ap2(c * sigma), axis=axes, out=self.gamma.grad)
        np.sum(grad, axis=axes, out=self.beta.grad)
        power = ap2(c)
        dx = grad - grad.mean(axis=axes)
        dx -= power * ((power * grad).mean(axis=axes) * np.square(sigma))
        dx *= sigma * ap2(self.gamma.value)
        return dx

    def to_packed(self) -> PackedBatchNorm:
        return PackedBatchNorm(*self.affine())


@register
class PackedBatchNorm(Layer):
    """Twin of a `BatchNorm` that is not folded into a product: y = x * alpha + bias, float32.

    Parameters
    ----------
    alpha, bias : array_like of shape (features,), float32
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

    def cost(self, bits_in: bool) -> Cost:
        features = self.alpha.size
        return Cost(2 * features, 8 * features, float_macs=features)

    def __repr__(self) -> str:
        return f"PackedBatchNorm({self.alpha.size})"
