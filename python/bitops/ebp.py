"""Expectation backpropagation: a distribution over binary weights, trained without gradients."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import log_ndtr, ndtr

from .layers.base import check_size
from .layers.container import Sequential
from .layers.dense import BinaryDense
from .layers.quantizers import Sign
from .losses import signed_one_hot
from .train import Epoch, History

__all__ = ["EBP"]

_LOG_ROOT_TWO_PI = 0.5 * math.log(2 * math.pi)


@dataclass
class _Pass:
    """What the backward pass needs of a layer: its input and the normal distribution it led to."""

    means: np.ndarray  # of the input, (n, k)
    mu: np.ndarray  # (n, m)
    sigma: np.ndarray  # (n, m)


class EBP:
    """A fully connected network of +-1 weights and sign units, learnt as a distribution.

    Parameters
    ----------
    sizes : sequence of int
        Inputs, hidden units of each layer, outputs: one for each class.
    eta : float
        Size of the updates; 1 is Bayes' rule for a single example.
    spread : float
        The first h have the variance spread / inputs of the layer.
    seed : int, SeedSequence or Generator, optional
        Source of the first h.

    Attributes
    ----------
    h : list of ndarray of shape (m, k), float32
        Half the log odds of each weight being +1.
    b : list of ndarray of shape (m,), float32
        Real biases.

    Notes
    -----
    A weight is +-1 with mean w = tanh(h). A layer of k inputs with the means v and the variances s
    has sums that count as normal, with

        mu = (w v + b) / sqrt(k + 1),
        sigma^2 = (sum(s + (1 - w^2) (1 - s)) + 1) / (k + 1),

    where the sum of the first layer, whose inputs are certain, is that of (1 - w^2) x^2. With
    p = Phi(mu / sigma) a unit has the mean 2 p - 1 and the variance 4 (p - p^2).
    Backward, with N the density of the sum at 0:  the last layer has, for targets y of +-1,
    d = 2 y N / Phi(y mu / sigma) / sqrt(k + 1), and one below it
    d = 2 N / sqrt(k + 1) * (d w) of the layer above.
    Update, summed over the batch:  h += eta / 2 * d^T v,  b += eta / 2 * sum(d).
    N / Phi is made of logarithms, which do not underflow. The released program also drops inputs at
    random; this one does not.

    References
    ----------
    Soudry, Hubara and Meir, "Expectation backpropagation", 2014; equations as in the Matlab program
    released with it. Cheng et al., "Training binary multilayer neural networks for image
    classification using expectation backpropagation", 2015.
    """

    def __init__(self, sizes: Sequence[int], *, eta: float = 1.0, spread: float = 1.0, seed=None):
        if len(sizes) < 2:
            raise ValueError(f"[EBP] sizes must hold inputs and outputs, got {sizes!r}")
        self.sizes = tuple(check_size("EBP", "sizes", size) for size in sizes)
        for name, value in (("eta", eta), ("spread", spread)):
            if not 0 < value < math.inf:
                raise ValueError(f"[EBP] {name} must be positive and finite, got {value}")
        self.eta = eta
        rng = np.random.default_rng(seed)
        self.h: list[np.ndarray] = []
        self.b: list[np.ndarray] = []
        for k, m in zip(self.sizes[:-1], self.sizes[1:], strict=True):
            start = rng.random((m, k), dtype=np.float32) - np.float32(0.5)
            self.h.append(start * np.float32(math.sqrt(12 * spread / k)))
            self.b.append(np.zeros(m, np.float32))

    def _forward(self, x: np.ndarray) -> list[_Pass]:
        """The layers in order, for inputs of shape (n, k)."""
        passes: list[_Pass] = []
        means, variances = x, None
        for h, b in zip(self.h, self.b, strict=True):
            w = np.tanh(h)
            spread = 1 - np.square(w)
            count = np.float32(h.shape[1] + 1)
            mu = (means @ w.T + b) / np.sqrt(count)
            if variances is None:
                total = np.square(means) @ spread.T
            else:
                total = (1 - variances) @ spread.T + variances.sum(axis=1, keepdims=True)
            sigma = np.sqrt((total + 1) / count)
            passes.append(_Pass(means, mu, sigma))
            p = ndtr(mu / sigma)
            means, variances = 2 * p - 1, 4 * (p - np.square(p))
        return passes

    def update(self, x, labels) -> float:
        """Learn a batch; its mean negative log probability of the targets, before the update.

        Parameters
        ----------
        x : array_like of shape (n, inputs), real
        labels : array_like of shape (n,), integer

        Raises
        ------
        FloatingPointError
            If updates have grown without bound.
        """
        x = self._inputs(x)
        y = signed_one_hot(labels, self.sizes[-1])
        if len(x) != len(y) or not y.size:
            raise ValueError(
                f"[EBP] x and labels must have the same n >= 1, got {len(x)} and {len(y)}"
            )
        passes = self._forward(x)
        last = passes[-1]
        if not np.isfinite(last.mu).all():
            raise FloatingPointError(
                f"[EBP] sums must be finite, got others: eta = {self.eta} is too large for batches "
                f"of {len(x)}"
            )
        # in float64: the difference of two logarithms far from 0
        chance = log_ndtr((y * last.mu / last.sigma).astype(np.float64))
        ratio = np.exp(_log_density(last) - chance).astype(np.float32)
        d = 2 * y * ratio / self._root(-1)
        for place in range(len(passes) - 1, -1, -1):
            below = None
            if place:
                density = np.exp(_log_density(passes[place - 1])).astype(np.float32)
                hidden = 2 * density / self._root(place - 1)
                below = (d @ np.tanh(self.h[place])) * hidden
            rate = np.float32(self.eta / 2)
            self.h[place] += rate * (d.T @ passes[place].means)
            self.b[place] += rate * d.sum(axis=0)
            if below is not None:
                d = below
        return float(-chance.sum(axis=1).mean())

    def _root(self, place: int) -> np.float32:
        return np.sqrt(np.float32(self.h[place].shape[1] + 1))

    def _inputs(self, x) -> np.ndarray:
        x = np.asarray(x)
        if x.dtype.kind not in "iuf":
            raise TypeError(f"[EBP] x must be real, got {x.dtype}")
        if x.ndim != 2 or x.shape[1] != self.sizes[0]:
            raise ValueError(f"[EBP] x must have shape (n, {self.sizes[0]}), got {x.shape}")
        return x.astype(np.float32, copy=False)

    def predict(self, x, *, batch_size: int = 1000) -> np.ndarray:
        """Labels by the means of the distribution (EBP-P), the first of equal ones.

        Parameters
        ----------
        x : array_like of shape (n, inputs), real
        batch_size : int

        Returns
        -------
        ndarray of shape (n,), int64
        """
        x = self._inputs(x)
        labels = [np.zeros(0, np.int64)]
        for start in range(0, len(x), check_size("EBP", "batch_size", batch_size)):
            last = self._forward(x[start : start + batch_size])[-1]
            labels.append(np.argmax(last.mu / last.sigma, axis=1))
        return np.concatenate(labels)

    def evaluate(self, x, labels) -> float:
        """Error of `predict`: the share, 0 to 1, of wrong labels."""
        labels, predicted = np.asarray(labels), self.predict(x)
        if labels.shape != predicted.shape or not labels.size:
            raise ValueError(
                f"[EBP] x and labels must have the same n >= 1, got {len(predicted)} and "
                f"{labels.shape}"
            )
        return float(np.mean(labels != predicted))

    def to_network(self) -> Sequential:
        """The likeliest network (EBP-D): weights sign(h) and sign units, to be frozen.

        The last layer gives its sums, so that the largest is the label.
        """
        layers: list = []
        for h, b in zip(self.h, self.b, strict=True):
            if layers:
                layers.append(Sign())
            dense = BinaryDense(h.shape[1], h.shape[0], bias=True)
            dense.weight.assign(h)
            assert dense.bias is not None
            dense.bias.assign(b)
            layers.append(dense)
        return Sequential(layers)

    def fit(
        self,
        x,
        labels,
        *,
        epochs: int = 20,
        batch_size: int = 10,
        validation: tuple | None = None,
        seed=0,
        verbose: int = 1,
    ) -> History:
        """Learn in batches; the state of the best validation epoch is kept.

        Parameters
        ----------
        x : array_like of shape (n, inputs), real
        labels : array_like of shape (n,), integer
        epochs, batch_size : int
            Every epoch takes the rows in a new order; those left over sit out that epoch. Updates
            are sums, so that larger batches want a smaller eta, such as 0.5 for 100.
        validation : tuple of (x, labels), optional
            Measured by EBP-P after every epoch.
        seed : int, SeedSequence or Generator
            Orders the rows.
        verbose : int
            0 is silent, 1 prints a line an epoch.

        Returns
        -------
        History
            `train_error` is measured on the batches before each is learnt; `learning_rate` is eta.
        """
        x, labels = self._inputs(x), np.asarray(labels)
        if len(x) != len(labels) or not len(x):
            raise ValueError(
                f"[EBP] x and labels must have the same n >= 1, got {len(x)} and {len(labels)}"
            )
        for name, value in (("epochs", epochs), ("batch_size", batch_size)):
            check_size("EBP", name, value)
        batch_size = min(batch_size, len(x))
        rng = np.random.default_rng(seed)
        history, best = History(), None
        for number in range(1, epochs + 1):
            start = time.perf_counter()
            order, total, wrong = rng.permutation(len(x)), 0.0, 0
            batches = len(x) // batch_size
            for i in range(batches):
                rows = order[i * batch_size : (i + 1) * batch_size]
                wrong += int(np.count_nonzero(self.predict(x[rows]) != labels[rows]))
                total += self.update(x[rows], labels[rows])
            checked = None if validation is None else self.evaluate(*validation)
            epoch = Epoch(
                number=number,
                learning_rate=self.eta,
                loss=total / batches,
                train_error=wrong / (batches * batch_size),
                validation_error=checked,
                seconds=time.perf_counter() - start,
            )
            history.epochs.append(epoch)
            if verbose:
                print(epoch, flush=True)
            if best is None or checked is None or best[0] is None or checked < best[0]:
                best = checked, [a.copy() for a in (*self.h, *self.b)]
                history.best = epoch
        if best is not None:
            count = len(self.h)
            self.h, self.b = best[1][:count], best[1][count:]
        return history


def _log_density(of: _Pass) -> np.ndarray:
    """Logarithm of the density of the sums at 0."""
    exact = (of.mu / of.sigma).astype(np.float64)
    return -0.5 * np.square(exact) - np.log(of.sigma) - _LOG_ROOT_TWO_PI
