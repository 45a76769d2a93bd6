"""Expectation backpropagation: it learns a distribution over binary weights, without gradients."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..layers.activations import Sign
from ..layers.base import Layer, TrainingLayer
from ..layers.columns import column_sums
from ..layers.container import Model, Packed, Sequential
from ..layers.dense import BinaryDense
from ..layers.inputs import as_labels, check_size
from ..layers.parameter import Parameter
from ..ops.checks import as_generator, check_number, check_rate, real_array
from .loop import fit
from .losses import signed_one_hot
from .optim import SGD
from .run import History
from .schedules import StepDecay
from .targets import takes

__all__ = ["EBP"]

_LOG_ROOT_TWO_PI = 0.5 * math.log(2 * math.pi)


@dataclass
class _Pass:
    """What backward needs of a layer: its input, and the normal distribution of its sums."""

    means: np.ndarray  # of the input, (n, k)
    w: np.ndarray  # means of the weights, (m, k)
    scores: np.ndarray  # mu / sigma, (n, m)
    sigma: np.ndarray  # (n, m)


class EBP(Model):
    """A trainer of fully connected networks of +-1 weights and sign units.

    It learns a distribution over the weights and holds their likeliest network (EBP-D), which
    `freeze` packs. It computes with the means of the weights instead (EBP-P): its scores are
    mu / sigma of the last layer.

    Parameters
    ----------
    sizes : sequence of int
        Inputs, hidden units of each layer, and outputs, one for each class.
    lr : float
        Size of the updates; 1 is Bayes' rule for a single example.
    spread : float
        The first h have the variance spread / inputs of the layer.
    keep : float
        Probability, in [0.5, 1], with which an input keeps its sign in training.
    seed : int, SeedSequence or Generator, optional
        Source of the first h.

    Attributes
    ----------
    network : Sequential
        The likeliest network: weights sign(h), sign units between them. The last layer gives its
        sums, so that the largest is the label.
    h : list of ndarray of shape (m, k), float32
        Half the log odds of each weight being +1. They are the latent weights of the network's
        layers, to be changed in place.
    b : list of ndarray of shape (m,), float32
        Real biases of its layers, likewise.

    Notes
    -----
    A weight is +-1 with mean w = tanh(h). A layer of k inputs with the means v and the variances s
    has sums that count as normal, with

        mu = (w v + b) / sqrt(k + 1),
        sigma^2 = (sum(s + (1 - w^2) (1 - s)) + 1) / (k + 1),

    where the sum of the first layer, whose inputs are certain, is that of (1 - w^2) x^2. In
    training the inputs keep their sign with probability q = `keep`, and that sum is the one of
    (1 - (1 - 4 q (1 - q)) w^2) x^2: noise of the inputs widens the sums, and moves no mean. With
    p = Phi(mu / sigma) a unit has the mean 2 p - 1 and the variance 4 (p - p^2).
    Backward, with N the density of the sum at 0:  the last layer has, for targets y of +-1,
    d = 2 y N / Phi(y mu / sigma) / sqrt(k + 1), and one below it
    d = 2 N / sqrt(k + 1) * (d w) of the layer above.
    Update, summed over the batch:  h += lr / 2 * d^T v,  b += lr / 2 * sum(d).
    N / Phi is computed from logarithms, which do not underflow. The released program calls the
    noise of the inputs dropout, and draws nothing at random either; it has a `keep` of 0.8 or none.

    References
    ----------
    Soudry, Hubara and Meir, "Expectation backpropagation", 2014; equations as in the Matlab program
    released with it. Cheng et al., "Training binary multilayer neural networks for image
    classification using expectation backpropagation", 2015.

    Examples
    --------
    >>> x = np.where(np.random.default_rng(0).random((200, 16)) < 0.5, -1, 1)
    >>> ebp = EBP((16, 32, 2), seed=0)
    >>> _ = ebp.fit(x, (x.sum(axis=1) > 0).astype(int), epochs=2, verbose=0)
    >>> ebp.network.freeze().predict(x).shape
    (200,)
    """

    def __init__(
        self,
        sizes: Sequence[int],
        *,
        lr: float = 1.0,
        spread: float = 1.0,
        keep: float = 1.0,
        seed=None,
    ):
        if len(sizes) < 2:
            raise ValueError(f"[EBP] sizes must hold inputs and outputs, got {sizes!r}")
        self.sizes = tuple(check_size("EBP", "sizes", size) for size in sizes)
        check_rate("EBP", "lr", lr)
        check_rate("EBP", "spread", spread)
        check_number("EBP", "keep", keep)
        if not 0.5 <= keep <= 1:
            raise ValueError(f"[EBP] keep must be in [0.5, 1], got {keep}")
        self.lr = lr
        self.keep = float(keep)
        self.input_shape = self.sizes[:1]
        self.out_features: int | None = self.sizes[-1]
        rng = as_generator("EBP", seed)
        self._dense: list[BinaryDense] = []
        for k, m in zip(self.sizes[:-1], self.sizes[1:], strict=True):
            start = rng.random((m, k), dtype=np.float32) - np.float32(0.5)
            self._dense.append(_dense(start * np.float32(math.sqrt(12 * spread / k))))
        self.network = Sequential(_with_signs(self._dense), input_shape=self.sizes[:1])
        self._optimizer = SGD(self.parameters(), lr, momentum=0.0)
        self._passes: list[_Pass] | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_passes": None}

    @property
    def h(self) -> list[np.ndarray]:
        return [layer.weight.writable() for layer in self._dense]

    @property
    def b(self) -> list[np.ndarray]:
        return [layer.bias.writable() for layer in self._dense if layer.bias is not None]

    def parameters(self) -> list[Parameter]:
        return self.network.parameters()

    def generators(self) -> list[np.random.Generator]:
        return self.network.generators()

    def flat_layers(self) -> list[Layer]:
        return self.network.flat_layers()

    def state(self) -> list:
        return self.network.state()

    def restore(self, state: Sequence) -> None:
        self.network.restore(state)

    def freeze(self) -> Packed:
        """Pack the likeliest network."""
        return self.network.freeze()

    def _forward(self, x: np.ndarray, training: bool) -> list[_Pass]:
        """Pass means and variances through the layers, from inputs of shape (n, k)."""
        # imported here: SciPy would double the time that `import bitops.training` takes
        from scipy.special import ndtr

        passes: list[_Pass] = []
        means, variances = x, None
        noise = 4 * self.keep * (1 - self.keep) if training else 0.0
        for layer in self._dense:
            assert layer.bias is not None
            w = np.tanh(layer.weight.value)
            spread = 1 - np.square(w)
            count = np.float32(layer.in_features + 1)
            mu = (means @ w.T + layer.bias.value) / np.sqrt(count)
            if variances is None:
                total = np.square(means) @ (spread + np.float32(noise) * np.square(w)).T
            else:
                total = (1 - variances) @ spread.T + variances.sum(axis=1, keepdims=True)
            sigma = np.sqrt((total + 1) / count)
            passes.append(_Pass(means, w, mu / sigma, sigma))
            p = ndtr(passes[-1].scores)
            means, variances = 2 * p - 1, 4 * (p - np.square(p))
        return passes

    def forward(self, x, *, training: bool = False) -> np.ndarray:
        """Compute the scores mu / sigma of the outputs; the largest is the label.

        Parameters
        ----------
        x : array_like of shape (n, inputs), real
        training : bool
            Whether `loss` and `backward` follow.

        Returns
        -------
        ndarray of shape (n, outputs), float32
        """
        x = real_array("EBP", "x", x)
        if x.dtype.kind == "b":
            raise TypeError(f"[EBP] x must be real, got {x.dtype}")
        if x.ndim != 2 or x.shape[1] != self.sizes[0]:
            raise ValueError(f"[EBP] x must have shape (n, {self.sizes[0]}), got {x.shape}")
        passes = self._forward(x.astype(np.float32, copy=False), training)
        self._passes = passes if training else None
        return passes[-1].scores

    @takes("labels")
    def loss(self, scores: np.ndarray, labels) -> tuple[float, np.ndarray]:
        """Compute the mean negative log probability of the targets, and d of the last layer.

        The scores must be those that `forward` has just returned. If that was not in training, d is
        0.

        Raises
        ------
        FloatingPointError
            If updates have grown without bound.
        """
        from scipy.special import log_ndtr  # here for the same reason

        labels = as_labels("EBP", "labels", labels, rows=len(scores), classes=self.sizes[-1])
        y = signed_one_hot(labels, self.sizes[-1])
        if not np.isfinite(scores).all():
            raise FloatingPointError(
                f"[EBP] sums must be finite, got others: lr = {self.lr} is too large for batches "
                f"of {len(y)}"
            )
        # in float64: the difference of two logarithms far from 0
        chance = log_ndtr((y * scores).astype(np.float64))
        value = float(-chance.sum(axis=1).mean())
        if self._passes is None:
            return value, np.zeros_like(y)
        ratio = np.exp(_log_density(self._passes[-1]) - chance).astype(np.float32)
        return value, 2 * y * ratio / self._root(-1)

    def backward(self, grad: np.ndarray) -> None:
        """Compute the steps of h and b, with the sign of gradients, from d of the last layer."""
        passes, d = self._saved(), grad
        for place in range(len(passes) - 1, -1, -1):
            layer = self._dense[place]
            assert layer.bias is not None
            layer.weight.grad[...] = d.T @ passes[place].means
            layer.weight.grad *= np.float32(-0.5)
            layer.bias.grad[...] = -0.5 * column_sums(d)
            if place:
                density = np.exp(_log_density(passes[place - 1])).astype(np.float32)
                hidden = 2 * density / self._root(place - 1)
                d = (d @ passes[place].w) * hidden
        self._passes = None

    def update(self, x, labels) -> float:
        """Learn a batch, and return the mean negative log probability of its targets before that.

        Parameters
        ----------
        x : array_like of shape (n, inputs), real
        labels : array_like of shape (n,), integer

        Raises
        ------
        FloatingPointError
            If updates have grown without bound.
        """
        scores = self.forward(x, training=True)
        if not scores.size:
            raise ValueError(f"[EBP] x must have at least one row, got {np.shape(x)}")
        value, d = self.loss(scores, labels)
        self.backward(d)
        self._optimizer.lr = self.lr
        self._optimizer.step()
        return value

    def _saved(self) -> list[_Pass]:
        """Return what `forward` kept, or raise an error if it has not run in training mode."""
        if self._passes is None:
            raise RuntimeError("[EBP] backward needs forward(x, training=True) before it")
        return self._passes

    def _root(self, place: int) -> np.float32:
        return np.sqrt(np.float32(self._dense[place].in_features + 1))

    def fit(
        self,
        x,
        y,
        *,
        epochs: int = 20,
        batch_size: int = 10,
        **options,
    ) -> History:
        """Learn in batches; the state of the best validation epoch is kept.

        Parameters
        ----------
        x : array_like of shape (n, inputs), real
        y : array_like of shape (n,), integer
            Labels.
        epochs, batch_size : int
            Updates are sums over a batch: larger batches want a smaller lr, such as 0.5 for 100.
        **options
            validation, seed, verbose, callbacks, resume: see `bitops.training.fit`.

        Returns
        -------
        History
            Errors are those of the means (EBP-P).

        Raises
        ------
        TypeError
            If an option is given of what the method has of its own: loss, optimizer, schedule.
        """
        own = sorted(options.keys() & {"blas", "loss", "optimizer", "schedule"})
        if own:
            raise TypeError(f"[EBP] fit must be called without {', '.join(own)}: EBP has its own")
        return fit(
            self,
            x,
            y,
            epochs=epochs,
            batch_size=batch_size,
            loss=self.loss,
            optimizer=self._optimizer,
            schedule=StepDecay(self.lr, ()),
            blas=True,  # products of means, which are real
            **options,
        )

    def __repr__(self) -> str:
        keep = f", keep={self.keep}" if self.keep != 1 else ""
        return f"EBP({list(self.sizes)}, lr={self.lr}{keep})"


def _with_signs(dense: list[BinaryDense]) -> list[TrainingLayer]:
    """Put a sign between each two layers."""
    layers: list[TrainingLayer] = [dense[0]]
    for layer in dense[1:]:
        layers += [Sign(), layer]
    return layers


def _dense(h: np.ndarray) -> BinaryDense:
    """Make a layer with these latent weights, which have no limits, and biases of 0."""
    m, k = h.shape
    layer = BinaryDense(k, m, bias=True, lr_scale=1.0)
    layer.weight.clip_value = None
    layer.weight.assign(h)
    return layer


def _log_density(of: _Pass) -> np.ndarray:
    """Compute the logarithm of the density of the sums at 0."""
    exact = of.scores.astype(np.float64)
    return -0.5 * np.square(exact) - np.log(of.sigma) - _LOG_ROOT_TWO_PI
