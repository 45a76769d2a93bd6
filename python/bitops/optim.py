"""Optimizers for latent weights, and learning-rate schedules."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from .layers.base import Parameter

# Five float32 streams of this many elements fit a level-2 cache; sweeps over whole weight matrices
# would go to main memory in each of the dozen passes below.
_BLOCK = 32768


class Adam:
    """Adam with clipped latent weights and a learning rate scaled for each parameter.

    Parameters
    ----------
    parameters : iterable of Parameter
        Their `grad` is read by `step`; their `lr_scale` and `clip_value` are obeyed.
    lr : float
        Learning rate; may be set anew between steps.
    beta1, beta2, eps : float
        Decay of the first and second moment; added to the root of the second.

    Notes
    -----
    m = beta1 * m + (1 - beta1) * g,  v = beta2 * v + (1 - beta2) * g^2,
    w = clip(w - lr_scale * lr_t * m / (sqrt(v) + eps)),
    lr_t = lr * sqrt(1 - beta2^t) / (1 - beta1^t).
    The scale multiplies the step, before the clip to [-clip_value, clip_value].

    References
    ----------
    Kingma and Ba, "Adam", 2015, section 2 (the form that moves the bias correction into the rate).
    Courbariaux, Hubara et al., "Binarized Neural Networks", 2016, algorithm 1 (clip).
    """

    def __init__(
        self,
        parameters: Iterable[Parameter],
        lr: float = 1e-3,
        *,
        beta1: float = 0.9,
        beta2: float = 0.999,
        eps: float = 1e-8,
    ):
        self.parameters = list(parameters)
        if not lr >= 0:
            raise ValueError(f"[Adam] lr must be >= 0, got {lr}")
        if not (0 <= beta1 < 1 and 0 <= beta2 < 1):
            raise ValueError(f"[Adam] beta1 and beta2 must be in [0, 1), got {beta1}, {beta2}")
        if not eps > 0:
            raise ValueError(f"[Adam] eps must be positive, got {eps}")
        self.lr = lr
        self.beta1, self.beta2, self.eps = beta1, beta2, eps
        self.steps = 0
        self._moments = [
            (np.zeros(p.size, dtype=np.float32), np.zeros(p.size, dtype=np.float32))
            for p in self.parameters
        ]
        self._scratch = np.empty(_BLOCK, dtype=np.float32)

    def step(self) -> None:
        """Update every parameter in place from its gradient."""
        self.steps += 1
        correction = math.sqrt(1 - self.beta2**self.steps) / (1 - self.beta1**self.steps)
        for parameter, (m, v) in zip(self.parameters, self._moments, strict=True):
            rate = np.float32(self.lr * correction * parameter.lr_scale)
            w = parameter.writable().reshape(-1)
            g = parameter.grad.reshape(-1)
            for start in range(0, w.size, _BLOCK):
                block = slice(start, start + _BLOCK)
                self._update(w[block], g[block], m[block], v[block], rate, parameter.clip_value)

    def _update(self, w, g, m, v, rate: np.float32, clip_value: float | None) -> None:
        """The equations of the class on one block, with a single temporary."""
        t = self._scratch[: w.size]
        np.subtract(g, m, out=t)
        t *= np.float32(1 - self.beta1)
        m += t
        np.multiply(g, g, out=t)
        t -= v
        t *= np.float32(1 - self.beta2)
        v += t
        np.sqrt(v, out=t)
        t += np.float32(self.eps)
        np.divide(m, t, out=t)
        t *= rate
        w -= t
        if clip_value is not None:
            np.clip(w, np.float32(-clip_value), np.float32(clip_value), out=w)


@dataclass(frozen=True)
class ExponentialDecay:
    """Learning rate that falls by the same factor every epoch.

    Parameters
    ----------
    start, final : float
        Rate of the first epoch, and the one that the epoch after the last would have.

    Notes
    -----
    lr(epoch) = start * (final / start)^(epoch / epochs), epoch = 0 .. epochs-1.
    """

    start: float = 3e-3
    final: float = 3e-7

    def __post_init__(self):
        if not (self.start > 0 and self.final > 0):
            raise ValueError(f"[ExponentialDecay] start and final must be positive, got {self}")

    def __call__(self, epoch: int, epochs: int) -> float:
        return self.start * (self.final / self.start) ** (epoch / epochs)
