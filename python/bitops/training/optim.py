"""Optimizers of latent weights, and one of binary weights."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from .. import _core
from ..layers.parameter import SHORT_MOST, GradientProduct, Parameter
from ..ops.array import BitArray
from ..ops.checks import check_integer, check_number, check_rate
from ..ops.memory import CACHE_LINE, aligned_empty, word_count
from ..ops.warn import warn_caller
from ..quantizers import ap2
from .tiny import keep_normal

__all__ = ["SGD", "AdaMax", "Adam", "Bop", "Optimizer", "ShiftAdaMax"]

# A few float32 streams of this many elements fit a level-2 cache. An update makes several passes in
# NumPy; over whole weight matrices each of them would go to main memory.
_BLOCK = 32768

# Bytes between the starts of arrays that are swept together, beyond their size. Large arrays start
# at equal places of a page, and caches that look up a line by part of its address confuse them:
# with 16.8 million weights a step of Adam took 49 ms without this, and 14 ms with it.
_STAGGER = 1280

_MOMENT_TYPES = {32: np.float32, 16: np.uint16}  # by bits


class Optimizer:
    """Base of the optimizers: learning rate, clip, penalties, and a state to resume from.

    Parameters
    ----------
    parameters : iterable of Parameter
        `step` reads their `grad` and obeys their `lr_scale` and `clip_value`.
    lr : float
        Learning rate; may be set anew between steps.
    weight_decay : float
        Decoupled decay: every step starts with w = w * (1 - lr * lr_scale * weight_decay).
    l2 : float
        Penalty l2 / 2 * sum(w^2) in the loss: every step starts with grad = grad + l2 * w.
    decayed : iterable of Parameter, optional
        Those that decay or are penalized, by default all. Decay of latent weights draws a warning:
        as only their signs count, it does not make the network smaller but lets its weights flip
        more easily. So does `l2`, without a warning; published recipes have it on all weights.

    Notes
    -----
    After its update an array is clipped to [-clip_value, clip_value].
    Every 256 steps, and of small arrays every 16, moments that are closer to 0 than 2^-116 become
    0, and weights, but not binary ones, that are closer to it than 2^-30 of the largest of their
    array, or than 2^-100, take that magnitude: processors take a hundred times as long for numbers
    below 2^-126, as which products of small ones end.

    References
    ----------
    Loshchilov and Hutter, "Decoupled Weight Decay Regularization", 2019.

    Examples
    --------
    >>> from bitops.layers import Parameter
    >>> optimizer = SGD([Parameter([1.0, 2.0])], lr=0.1)
    >>> isinstance(optimizer, Optimizer), optimizer.lr
    (True, 0.1)
    """

    moments: tuple[str, ...] = ()  # names of the arrays kept for each parameter
    moment_bits = 32  # of a number in them, 16 of bfloat16, whose bits are kept as uint16
    varying: tuple[str, ...] = ("lr", "steps")  # numbers that may change between steps

    def __init__(
        self,
        parameters: Iterable[Parameter],
        lr: float,
        *,
        weight_decay: float = 0.0,
        l2: float = 0.0,
        decayed: Iterable[Parameter] | None = None,
    ):
        self.parameters = list(parameters)
        self.lr = check_rate(self.name, "lr", lr, zero=True)
        self.weight_decay = check_rate(self.name, "weight_decay", weight_decay, zero=True)
        self.l2 = check_rate(self.name, "l2", l2, zero=True)
        self.steps = 0
        chosen = {id(p) for p in (self.parameters if decayed is None else decayed)}
        if not chosen <= {id(p) for p in self.parameters}:
            raise ValueError(f"[{self.name}] decayed must be some of the parameters, got others")
        self._decays = [id(p) in chosen for p in self.parameters]
        if weight_decay:
            self._warn_of_latent_weights()
        self._prepare_values()
        self._moments = self._new_moments()

    def _prepare_values(self) -> None:
        """Change how parameters are kept, once all arguments are checked."""

    def _new_moments(self) -> list[tuple[np.ndarray, ...]]:
        dtype = np.dtype(_MOMENT_TYPES[self.moment_bits])
        return [_zeros(len(self.moments), p.size, dtype) for p in self.parameters]

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        vars(self).update(state)
        made = self._new_moments()
        for arrays, moments in zip(made, self._moments, strict=True):
            for array, m in zip(arrays, moments, strict=True):
                self._check_moment("moments of a pickle", array, m)
                array[...] = m
        self._moments = made  # a pickle does not keep their places in memory

    @property
    def name(self) -> str:
        return type(self).__name__

    @property
    def decayed(self) -> list[Parameter]:
        """Those of the parameters that decay or are penalized."""
        return [p for p, decays in zip(self.parameters, self._decays, strict=True) if decays]

    def step(self) -> None:
        """Update every trainable parameter in place from its gradient."""
        self.steps += 1
        rate = self._rate()
        items = zip(self.parameters, self._decays, self._moments, strict=True)
        for parameter, decays, moments in items:
            if not parameter.trainable:
                continue
            keep_normal(self.steps, parameter, moments)
            if decays and self.l2:
                parameter.grad += np.float32(self.l2) * parameter.value
            keep = 1 - self.lr * parameter.lr_scale * self.weight_decay if decays else 1.0
            self._update(parameter, rate * parameter.lr_scale, keep, moments)

    def _rate(self) -> float:
        """Return the factor of the step, before `lr_scale`."""
        return self.lr

    def _update(self, parameter: Parameter, rate: float, keep: float, moments) -> None:
        """Decay, step and clip, block by block."""
        w = parameter.writable().reshape(-1)
        g = parameter.grad.reshape(-1)
        for start in range(0, w.size, _BLOCK):
            block = slice(start, start + _BLOCK)
            if keep != 1:
                w[block] *= np.float32(keep)
            self._block(w[block], g[block], np.float32(rate), *(m[block] for m in moments))
            if parameter.clip_value is not None:
                limit = np.float32(parameter.clip_value)
                np.clip(w[block], -limit, limit, out=w[block])
        parameter.version += 1  # another thread may have quantized what was half written

    def _block(self, w, g, rate: np.float32, *moments) -> None:
        """Apply the equations of the class, in place."""
        raise NotImplementedError

    def settings(self) -> dict[str, float]:
        """Return the numbers that stay the same from step to step, by name."""
        numbers = {}
        for name, value in vars(self).items():
            value = value.item() if isinstance(value, np.generic) else value
            if isinstance(value, int | float) and name not in self.varying:
                numbers[name] = value
        return numbers

    def state(self) -> dict[str, np.ndarray]:
        """Copy all that the next steps depend on, besides parameters and settings."""
        state = {"steps": np.array(self.steps), "lr": np.array(float(self.lr))}
        for i, moments in enumerate(self._moments):
            state |= {f"{name}.{i}": m.copy() for name, m in self._named(moments)}
        return state

    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        """Go on from a `state` of an optimizer of the same class and parameters.

        Raises
        ------
        ValueError
            If names or shapes are not those of `state()`.
        """
        own = self.state()
        if set(own) != set(state):
            wrong = sorted(set(own) ^ set(state))
            raise ValueError(f"[{self.name}] state must hold {sorted(own)}, differs in {wrong}")
        for name, array in own.items():
            self._check_moment(f"{name} of the state", array, state[name])
        self.steps, self.lr = int(state["steps"]), float(state["lr"])
        for i, moments in enumerate(self._moments):
            for name, m in self._named(moments):
                m[...] = state[f"{name}.{i}"]

    def _check_moment(self, name: str, own: np.ndarray, other: np.ndarray) -> None:
        """Check an array of numbers from outside against the one that it is to fill."""
        if np.shape(other) != own.shape:
            raise ValueError(
                f"[{self.name}] {name} must have shape {own.shape}, got {np.shape(other)}"
            )
        if (np.asarray(other).dtype == np.uint16) != (own.dtype == np.uint16):
            raise ValueError(
                f"[{self.name}] {name} must be {own.dtype}, got {np.asarray(other).dtype}: "
                f"moment_bits must be those of the training before"
            )

    def _named(self, moments) -> list[tuple[str, np.ndarray]]:
        return list(zip(self.moments, moments, strict=True))

    def _warn_of_latent_weights(self) -> None:
        for parameter in self.decayed:
            if parameter.clip_value is not None or parameter.binary:
                warn_caller(
                    f"[{self.name}] weight_decay acts on latent weights of shape "
                    f"{parameter.shape}, of which only the signs count: it makes them flip more "
                    f"easily; name the parameters to decay with decayed="
                )
                return

    def __repr__(self) -> str:
        return f"{self.name}({len(self.parameters)} parameters, lr={self.lr:.4g})"


def _zeros(count: int, size: int, dtype: np.dtype) -> tuple[np.ndarray, ...]:
    """Make arrays of zeros in one piece of memory, each at a different place of a page."""
    length = size * dtype.itemsize
    distance = -(-length // CACHE_LINE) * CACHE_LINE + _STAGGER
    memory = aligned_empty((count * distance,), np.uint8)
    memory[...] = 0
    starts = (i * distance + _STAGGER for i in range(count))
    return tuple(memory[start : start + length].view(dtype) for start in starts)


def _check_decay_rate(where: str, name: str, rate: Any) -> float:
    check_number(where, name, rate)
    if not 0 <= rate < 1:
        raise ValueError(f"[{where}] {name} must be in [0, 1), got {rate}")
    return float(rate)


class SGD(Optimizer):
    """Gradient descent with momentum.

    Parameters
    ----------
    parameters, lr, weight_decay, l2, decayed
        See `Optimizer`.
    momentum : float
        Share of the velocity that the next step keeps; 0 for plain descent.

    Notes
    -----
    velocity = momentum * velocity + g,  w = clip(w - lr_scale * lr * velocity).

    Examples
    --------
    >>> from bitops.layers import Parameter
    >>> weight = Parameter([1.0, 2.0])
    >>> weight.grad[:] = [1.0, 0.0]
    >>> SGD([weight], lr=0.25).step()
    >>> weight.value
    array([0.75, 2.  ], dtype=float32)
    """

    moments = ("velocity",)

    def __init__(
        self, parameters: Iterable[Parameter], lr: float = 1e-2, *, momentum: float = 0.9, **decay
    ):
        momentum = _check_decay_rate("SGD", "momentum", momentum)
        super().__init__(parameters, lr, **decay)
        self.momentum = momentum

    def _block(self, w, g, rate, *moments) -> None:
        (velocity,) = moments
        velocity *= np.float32(self.momentum)
        velocity += g
        w -= rate * velocity


class Adam(Optimizer):
    """Adam with clipped latent weights and a learning rate scaled for each parameter.

    Parameters
    ----------
    parameters, lr, weight_decay, l2, decayed
        See `Optimizer`.
    beta1, beta2, eps : float
        Decay of the first and second moment; added to the root of the second.
    moment_bits : {32, 16}
        16 keeps the moments as bfloat16, in half the memory, rounded at random.
    weight_bits : {32, 16}
        16 keeps binary weights that are clipped as int16 in units of clip_value / 32767, in half
        the memory, rounded at random; others stay float32. They are clipped, and rounded to the
        nearest, when the optimizer is made. Whoever reads `Parameter.value` gets a float32 copy, as
        layers with scaled or stochastic weights do in each step.

    Notes
    -----
    One pass through memory does, each step rounded to float32,
    m = m + (1 - beta1) * (g - m),  v = v + (1 - beta2) * (g^2 - v),
    w = clip(w * keep - lr_scale * lr_t * (m / (sqrt(v) + eps))),
    lr_t = lr * sqrt(1 - beta2^t) / (1 - beta1^t),  keep = 1 - lr * lr_scale * weight_decay,
    with lr_scale * lr_t and keep computed in float64; and packs the signs of binary parameters.
    bfloat16 has 8 significant bits, too few for v to be rounded to the nearest: a step changes it
    by a thousandth. Rounded up or down at random, so that its mean is kept, it follows yet, and so
    do weights of 16 bits, of which most steps change less than a unit.
    The random numbers are a hash of step and place: the same for any number of threads, on every
    ISA, and in a training that is resumed. The update of w uses m and v before they are rounded.

    References
    ----------
    Kingma and Ba, "Adam", 2015, section 2 (the form that moves the bias correction into the rate).
    Courbariaux, Hubara et al., "Binarized Neural Networks", 2016, algorithm 1 (clip).
    Wang et al., "Enabling Binary Neural Network Training on the Edge", 2021 (weights and moments of
    16 bits).

    Examples
    --------
    >>> from bitops.layers import Parameter
    >>> weight = Parameter([1.0, 2.0])
    >>> weight.grad[:] = [1.0, 0.0]
    >>> Adam([weight], lr=0.25).step()
    >>> weight.value.round(3)
    array([0.75, 2.  ], dtype=float32)
    """

    moments = ("m", "v")
    weight_bits = 32

    def __init__(
        self,
        parameters: Iterable[Parameter],
        lr: float = 1e-3,
        *,
        beta1: float = 0.9,
        beta2: float = 0.999,
        eps: float = 1e-8,
        moment_bits: int = 32,
        weight_bits: int = 32,
        **decay,
    ):
        beta1 = _check_decay_rate("Adam", "beta1", beta1)
        beta2 = _check_decay_rate("Adam", "beta2", beta2)
        eps = check_rate("Adam", "eps", eps)
        for name, bits in (("moment_bits", moment_bits), ("weight_bits", weight_bits)):
            if check_integer("Adam", name, bits, 16) not in _MOMENT_TYPES:
                raise ValueError(f"[Adam] {name} must be 16 or 32, got {bits}")
            if bits != 32:  # settings of checkpoints from before have no such numbers
                setattr(self, name, int(bits))
        super().__init__(parameters, lr, **decay)
        self.beta1, self.beta2, self.eps = beta1, beta2, eps

    def _prepare_values(self) -> None:
        for parameter in self.parameters:  # before there is memory for moments
            if self._shortens(parameter) and parameter.trainable:
                parameter.shorts()

    def _shortens(self, parameter: Parameter) -> bool:
        return self.weight_bits == 16 and parameter.may_be_short

    def _rate(self) -> float:
        return self.lr * math.sqrt(1 - self.beta2**self.steps) / (1 - self.beta1**self.steps)

    def _update(self, parameter: Parameter, rate: float, keep: float, moments) -> None:
        shape = parameter.shape or (1,)
        rows, n = math.prod(shape[:-1]), shape[-1]
        clip = math.inf if parameter.clip_value is None else parameter.clip_value
        if self._shortens(parameter):
            values = parameter.shorts()
            rate, clip = rate * SHORT_MOST / clip, SHORT_MOST
        else:
            values = parameter.writable()
        w, m, v = (array.reshape(rows, n) for array in (values, *moments))
        numbers = rate, 1 - self.beta1, 1 - self.beta2, self.eps, keep, clip, self.steps % 2**32
        words = np.empty((rows, word_count(n)), np.uint64) if parameter.binary else None
        nan = _take_gradient(parameter, rows, n, (*numbers, w, m, v, words))
        if words is not None and not nan:  # a NaN is left for packing to refuse
            parameter.adopt_signs(BitArray.from_words(words.reshape(*shape[:-1], -1), shape))
        else:
            parameter.version += 1  # as in `Optimizer._update`


def _take_gradient(parameter: Parameter, rows: int, n: int, step: tuple) -> bool:
    """Take a step of Adam; a gradient that waits is taken piece by piece, or written and freed."""
    product = parameter.deferred_gradient
    if product is None:
        g = np.ascontiguousarray(parameter.grad, dtype=np.float32).reshape(rows, n)
        return _core.adam(g, *step)
    if not isinstance(product, GradientProduct):
        g = np.empty(parameter.shape, np.float32)
        product.write(g)
        return _core.adam(g.reshape(rows, n), *step)
    operands = product.numbers, product.bits.words, product.zero, product.alpha, product.bias
    return _core.adam_product(*operands, *step)


class AdaMax(Optimizer):
    """The variant of Adam with the infinity norm.

    Parameters
    ----------
    parameters, lr, weight_decay, l2, decayed
        See `Optimizer`.
    beta1, beta2, eps : float
        Decay of the first moment and of the largest gradient; added to the latter.

    Notes
    -----
    m = beta1 * m + (1 - beta1) * g,  u = max(beta2 * u, abs(g)),
    w = clip(w - lr_scale * lr / (1 - beta1^t) * m / (u + eps)).
    The publication has no eps; without it a gradient that is always 0 would give 0 / 0.

    References
    ----------
    Kingma and Ba, "Adam", 2015, section 7.1 (algorithm 2).

    Examples
    --------
    >>> from bitops.layers import Parameter
    >>> weight = Parameter([1.0, 2.0])
    >>> weight.grad[:] = [1.0, 0.0]
    >>> AdaMax([weight], lr=0.25).step()
    >>> weight.value
    array([0.75, 2.  ], dtype=float32)
    """

    moments = ("m", "u")

    def __init__(
        self,
        parameters: Iterable[Parameter],
        lr: float = 2e-3,
        *,
        beta1: float = 0.9,
        beta2: float = 0.999,
        eps: float = 1e-8,
        **decay,
    ):
        beta1 = _check_decay_rate("AdaMax", "beta1", beta1)
        beta2 = _check_decay_rate("AdaMax", "beta2", beta2)
        eps = check_rate("AdaMax", "eps", eps)
        super().__init__(parameters, lr, **decay)
        self.beta1, self.beta2, self.eps = beta1, beta2, eps

    def _rate(self) -> float:
        return self.lr / (1 - self.beta1**self.steps)

    def _block(self, w, g, rate, *moments) -> None:
        m, u = moments
        self._accumulate(g, m, u)
        w -= rate * (m / (u + np.float32(self.eps)))

    def _accumulate(self, g, m, u) -> None:
        m *= np.float32(self.beta1)
        m += np.float32(1 - self.beta1) * g
        u *= np.float32(self.beta2)
        np.maximum(u, np.abs(g), out=u)


class ShiftAdaMax(AdaMax):
    """AdaMax whose rates and norms are powers of two, so that it multiplies by shifting.

    Parameters
    ----------
    parameters, weight_decay, l2, decayed
        See `Optimizer`.
    lr : float
        Learning rate; the rate of a step is rounded to a power of two.
    beta1, beta2 : float
        Decay of the first moment and of the largest gradient.

    Notes
    -----
    With AP2(z) = sign(z) * 2^round(log2(abs(z))), see `quantizers.ap2`:
    m = beta1 * m + (1 - beta1) * g,  v = max(beta2 * v, abs(g)),  v = AP2(v) + 2^-27,
    w = clip(w - lr_scale * (AP2(lr / (1 - beta1^t)) * (m / v))).
    The rounded v is what the next step decays. `lr_scale` need not be a power of two.

    References
    ----------
    Courbariaux, Hubara et al., "Binarized Neural Networks", 2016 (shift-based AdaMax); these
    equations are those of the Torch program released with it.

    Examples
    --------
    >>> from bitops.layers import Parameter
    >>> weight = Parameter([1.0, 2.0])
    >>> weight.grad[:] = [1.0, 0.0]
    >>> ShiftAdaMax([weight], lr=0.25).step()
    >>> weight.value
    array([0.8, 2. ], dtype=float32)
    """

    moments = ("m", "v")

    def __init__(
        self,
        parameters: Iterable[Parameter],
        lr: float = 2.0**-6,
        *,
        beta1: float = 0.9,
        beta2: float = 0.999,
        **decay,
    ):
        super().__init__(parameters, lr, beta1=beta1, beta2=beta2, **decay)

    def _rate(self) -> float:
        return float(ap2(super()._rate()))

    def _block(self, w, g, rate, *moments) -> None:
        m, v = moments
        self._accumulate(g, m, v)
        v[...] = ap2(v)
        v += np.float32(2.0**-27)
        w -= rate * (m / v)


class Bop(Optimizer):
    """The binary optimizer: flips signs instead of moving latent weights.

    Parameters
    ----------
    parameters : iterable of Parameter
        The binary ones, of which at least one must be there, become +-1 in the first step. The
        others are left to an `Adam`, the attribute `inner`.
    lr : float
        Learning rate of `inner`.
    threshold : float
        A weight flips where its averaged gradient agrees with its sign and exceeds this.
    adaptivity : float
        Share of the newest gradient in the average; may be set anew between steps.

    Notes
    -----
    m = m + adaptivity * (g - m),  w = -sign(w) if m * sign(w) > threshold else sign(w).

    References
    ----------
    Helwegen et al., "Latent Weights Do Not Exist", 2019, algorithm 1.

    Examples
    --------
    >>> from bitops.layers import Parameter
    >>> weight = Parameter([[1.0, -1.0]], binary=True)
    >>> weight.grad[:] = [[1.0, 1.0]]
    >>> Bop([weight]).step()
    >>> weight.value
    array([[-1., -1.]], dtype=float32)
    """

    moments = ("m",)
    varying = (*Optimizer.varying, "adaptivity")

    def __init__(
        self,
        parameters: Iterable[Parameter],
        lr: float = 1e-3,
        *,
        threshold: float = 1e-8,
        adaptivity: float = 1e-4,
    ):
        parameters = list(parameters)
        binary = [p for p in parameters if p.binary]
        if not binary:
            raise ValueError("[Bop] parameters must hold binary ones, got none")
        threshold = check_rate("Bop", "threshold", threshold, zero=True)
        check_number("Bop", "adaptivity", adaptivity)
        if not 0 < adaptivity <= 1:
            raise ValueError(f"[Bop] adaptivity must be in (0, 1], got {adaptivity}")
        super().__init__(binary, lr)
        self.inner = Adam([p for p in parameters if not p.binary], lr)
        self.threshold, self.adaptivity = threshold, float(adaptivity)

    def step(self) -> None:
        super().step()
        self.inner.lr = self.lr
        self.inner.step()

    def _block(self, w, g, rate, *moments) -> None:
        (m,) = moments
        m += np.float32(self.adaptivity) * (g - m)
        sign = np.where(w >= 0, np.float32(1), np.float32(-1))
        w[...] = np.where(m * sign > np.float32(self.threshold), -sign, sign)

    def state(self) -> dict[str, np.ndarray]:
        inner = {f"inner.{name}": array for name, array in self.inner.state().items()}
        return super().state() | {"adaptivity": np.array(self.adaptivity)} | inner

    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        super().restore(state)
        self.adaptivity = float(state["adaptivity"])
        mark = "inner."
        self.inner.restore({k[len(mark) :]: v for k, v in state.items() if k.startswith(mark)})
