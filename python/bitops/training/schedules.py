"""Learning-rate schedules: callables (epoch, epochs) -> learning rate, epoch = 0 .. epochs-1.

One whose attribute `by_step` is True is called with steps instead: (step, steps) -> learning rate.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

from ..ops.checks import check_integer, check_rate

__all__ = [
    "CosineDecay",
    "ExponentialDecay",
    "Halving",
    "OneCycle",
    "PerStep",
    "Schedule",
    "StepDecay",
    "Stretched",
    "Warmup",
    "goes_by_step",
]

Schedule = Callable[[int, int], float]


def goes_by_step(function: Any) -> bool:
    """Tell whether a schedule or an augmentation is called with the step and their number."""
    return bool(getattr(function, "by_step", False))


@dataclass(frozen=True)
class ExponentialDecay:
    """A learning rate that falls by the same factor every epoch.

    Parameters
    ----------
    start, final : float
        Rate of the first epoch, and the one that the epoch after the last would have.

    Notes
    -----
    lr(epoch) = start * (final / start)^(epoch / epochs), epoch = 0 .. epochs-1.

    Examples
    --------
    >>> [round(ExponentialDecay(0.1, 0.001)(epoch, 3), 4) for epoch in range(3)]
    [0.1, 0.0215, 0.0046]
    """

    start: float = 3e-3
    final: float = 3e-7

    def __post_init__(self):
        check_rate("ExponentialDecay", "start", self.start)
        check_rate("ExponentialDecay", "final", self.final)

    def __call__(self, epoch: int, epochs: int) -> float:
        return self.start * (self.final / self.start) ** (epoch / epochs)


@dataclass(frozen=True)
class StepDecay:
    """A learning rate that is multiplied by a factor at each of some epochs.

    Parameters
    ----------
    start : float
        Rate before the first of them, which may be 0.
    boundaries : tuple of int
        Epochs, counted from 0 and increasing; from each of them on a further factor applies.
    factor : float or tuple of float
        One for all boundaries, or one for each.

    Examples
    --------
    >>> [StepDecay(1.0, (2,))(epoch, 4) for epoch in range(4)]
    [1.0, 1.0, 0.1, 0.1]
    """

    start: float
    boundaries: tuple[int, ...]
    factor: float | tuple[float, ...] = 0.1

    def __post_init__(self):
        steps = list(self.boundaries)
        check_rate("StepDecay", "start", self.start, zero=True)
        for boundary in steps:
            check_integer("StepDecay", "boundaries", boundary)
        if sorted(set(steps)) != steps or (steps and steps[0] < 1):
            raise ValueError(
                f"[StepDecay] boundaries must be >= 1 and increase, got {self.boundaries}"
            )
        if isinstance(self.factor, tuple) and len(self.factor) != len(steps):
            raise ValueError(
                f"[StepDecay] factor must be one number or one for each of {len(steps)} "
                f"boundaries, got {self.factor}"
            )
        for factor in self._factors():
            check_rate("StepDecay", "factor", factor)

    def _factors(self) -> tuple[float, ...]:
        if isinstance(self.factor, tuple):
            return self.factor
        return (self.factor,) * len(self.boundaries)

    def __call__(self, epoch: int, epochs: int) -> float:
        pairs = zip(self.boundaries, self._factors(), strict=True)
        return self.start * math.prod(factor for boundary, factor in pairs if epoch >= boundary)


@dataclass(frozen=True)
class Halving:
    """A learning rate that is halved every so many epochs; a power of two stays one.

    Notes
    -----
    lr(epoch) = start * 2^-(epoch // every).

    References
    ----------
    Courbariaux, Hubara et al., "Binarized Neural Networks", 2016 (shift-based training: a rate of
    2^-6 halved every 20 epochs on MNIST in the Torch program released with it).

    Examples
    --------
    >>> [Halving(1.0, every=2)(epoch, 4) for epoch in range(4)]
    [1.0, 1.0, 0.5, 0.5]
    """

    start: float = 2.0**-6
    every: int = 20

    def __post_init__(self):
        check_rate("Halving", "start", self.start)
        check_integer("Halving", "every", self.every, 1)

    def __call__(self, epoch: int, epochs: int) -> float:
        return self.start * 2.0 ** -(epoch // self.every)


@dataclass(frozen=True)
class CosineDecay:
    """A learning rate that falls along half a cosine.

    Parameters
    ----------
    start, final : float
        Rate of the first epoch, and the one that the epoch after the last would have.

    Notes
    -----
    lr(epoch) = final + (start - final) * (1 + cos(pi * epoch / epochs)) / 2.

    References
    ----------
    Loshchilov and Hutter, "SGDR", 2017, equation 5, without restarts.

    Examples
    --------
    >>> [round(CosineDecay(0.01)(epoch, 4), 4) for epoch in range(4)]
    [0.01, 0.0085, 0.005, 0.0015]
    """

    start: float
    final: float = 0.0

    def __post_init__(self):
        check_rate("CosineDecay", "start", self.start)
        check_rate("CosineDecay", "final", self.final, zero=True)

    def __call__(self, epoch: int, epochs: int) -> float:
        return _along_cosine(self.start, self.final, epoch / epochs)


def _check_schedule(where: str, schedule: Any) -> None:
    if not callable(schedule):
        raise TypeError(
            f"[{where}] schedule must be a callable (epoch, epochs) -> rate, got {schedule!r:.80}"
        )
    if goes_by_step(schedule):
        raise ValueError(
            f"[{where}] schedule must give the rates of epochs, got {schedule!r:.80}, which gives "
            f"those of steps"
        )


@dataclass(frozen=True)
class Warmup:
    """A schedule that rises in equal steps to the start of another, and then follows it.

    Parameters
    ----------
    schedule : callable (epoch, epochs) -> learning rate
        It sees the epochs after the warm-up as if there were no others.
    epochs : int
        Length of the warm-up.

    Notes
    -----
    With u = `epochs`: lr(epoch) = (epoch + 1) / (u + 1) * schedule(0, epochs - u) for epoch < u,
    and schedule(epoch - u, epochs - u) afterwards.

    References
    ----------
    Goyal et al., "Accurate, Large Minibatch SGD", 2017, section 2.2 (gradual warm-up).

    Examples
    --------
    >>> [Warmup(StepDecay(1.0, ()), 3)(epoch, 5) for epoch in range(5)]
    [0.25, 0.5, 0.75, 1.0, 1.0]
    """

    schedule: Schedule
    epochs: int

    def __post_init__(self):
        _check_schedule("Warmup", self.schedule)
        check_integer("Warmup", "epochs", self.epochs, 0)

    def __call__(self, epoch: int, epochs: int) -> float:
        rest = max(epochs - self.epochs, 1)  # a run may be shorter than its warm-up
        if epoch < self.epochs:
            return (epoch + 1) / (self.epochs + 1) * self.schedule(0, rest)
        return self.schedule(epoch - self.epochs, rest)


@dataclass(frozen=True)
class Stretched:
    """A schedule that stretches another, made for so many epochs, over a run of any length.

    Parameters
    ----------
    schedule : callable (epoch, epochs) -> learning rate
    epochs : int
        The number that `schedule` was made for.

    Notes
    -----
    With E = `epochs`: lr(epoch) = schedule(floor(epoch * E / epochs of the run), E).

    Examples
    --------
    >>> [Stretched(StepDecay(1.0, (1,)), 2)(epoch, 4) for epoch in range(4)]
    [1.0, 1.0, 0.1, 0.1]
    """

    schedule: Schedule
    epochs: int

    def __post_init__(self):
        _check_schedule("Stretched", self.schedule)
        check_integer("Stretched", "epochs", self.epochs, 1)

    def __call__(self, epoch: int, epochs: int) -> float:
        return self.schedule(epoch * self.epochs // epochs, self.epochs)


@dataclass(frozen=True)
class PerStep:
    """A schedule of epochs that is followed step by step.

    Parameters
    ----------
    schedule : callable (epoch, epochs) -> learning rate
        It is called with the step and the number of all steps. So numbers of epochs that it holds
        become numbers of steps: ``PerStep(Warmup(CosineDecay(1e-3), 500))`` warms up for 500 steps.

    Notes
    -----
    lr(step) = schedule(step, steps), step = 0 .. steps-1.

    Examples
    --------
    >>> schedule = PerStep(CosineDecay(0.01))
    >>> [round(schedule(step, 4), 4) for step in range(4)]
    [0.01, 0.0085, 0.005, 0.0015]
    """

    schedule: Schedule

    by_step: ClassVar[bool] = True

    def __post_init__(self):
        _check_schedule("PerStep", self.schedule)

    def __call__(self, step: int, steps: int) -> float:
        return self.schedule(step, steps)


@dataclass(frozen=True)
class OneCycle:
    """A learning rate that rises along half a cosine and falls along another, step by step.

    Parameters
    ----------
    peak : float
        The largest rate.
    warmup : float
        Share of the steps before it, in [0, 1).
    start, final : float, optional
        Rate of the first step, and the one that the step after the last would have; by default
        peak / 25 and peak / 250,000.

    Notes
    -----
    With w = warmup * steps and c(u) = (1 + cos(pi u)) / 2:
    lr(step) = peak + (start - peak) c(step / w) for step < w,
    and final + (peak - final) c((step - w) / (steps - w)) afterwards.

    References
    ----------
    Smith and Topin, "Super-convergence", 2018; cosines as in fastai and PyTorch.

    Examples
    --------
    >>> schedule = OneCycle(0.1)
    >>> [round(schedule(step, 10), 3) for step in range(10)]
    [0.004, 0.028, 0.076, 0.1, 0.095, 0.081, 0.061, 0.039, 0.019, 0.005]
    """

    peak: float
    warmup: float = 0.3
    start: float | None = None
    final: float | None = None

    by_step: ClassVar[bool] = True

    def __post_init__(self):
        check_rate("OneCycle", "peak", self.peak)
        check_rate("OneCycle", "warmup", self.warmup, zero=True)
        if self.warmup >= 1:
            raise ValueError(f"[OneCycle] warmup must be below 1, got {self.warmup}")
        for name in ("start", "final"):
            if getattr(self, name) is not None:
                check_rate("OneCycle", name, getattr(self, name), zero=True)

    def __call__(self, step: int, steps: int) -> float:
        start = self.peak / 25 if self.start is None else self.start
        final = self.peak / 250_000 if self.final is None else self.final
        rise = self.warmup * steps
        if step < rise:
            return _along_cosine(start, self.peak, step / rise)
        return _along_cosine(self.peak, final, (step - rise) / (steps - rise))


def _along_cosine(start: float, final: float, share: float) -> float:
    return final + (start - final) * (1 + math.cos(math.pi * share)) / 2
