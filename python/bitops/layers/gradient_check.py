"""Checks `backward` of a layer against finite differences of its `forward`.

Along one entry p of an input or parameter, `forward` is evaluated at five places:

    p - h    p - h/2    p    p + h/2    p + h

    slopes of step h        (s(p) - s(p - h)) / h        (s(p + h) - s(p)) / h
    slopes of step h/2      the same with h/2

where s is the sum of outputs times a random gradient. If the slopes of the two sides disagree
too much, p lies at a kink and is left out. Otherwise their means, extrapolated to h = 0, must equal
the gradient.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np

from ..ops.array import BitArray
from ..ops.checks import as_generator
from .base import TrainingLayer, named_layers
from .inputs import Activation, Codes, as_float, is_data
from .parameter import Parameter

_INPUT = "input"
_NO_EFFECT = (
    "forward does not change with it, but the gradient is not 0; for a pseudo-gradient, "
    'pass pseudo=("{}",)'
)


@dataclass(frozen=True)
class GradientRow:
    """Result for one gradient.

    Attributes
    ----------
    name : str
        "input", or the attribute that holds the parameter, preceded by the place of its layer.
    checked : str
        "differences" if the gradient was compared. "form" if it is a pseudo-gradient, of which only
        shape and finiteness were checked. "none" if the input has no gradient.
    entries : int
        Number of entries compared.
    kinks : int
        Number of entries left out because the layer is not smooth there.
    error : float
        Largest difference, relative to the largest gradient.
    problem : str
        What is wrong; empty if nothing is.
    """

    name: str
    checked: str
    entries: int = 0
    kinks: int = 0
    error: float = 0.0
    problem: str = ""

    def __str__(self) -> str:
        if self.problem:
            found = self.problem
        elif self.checked == "differences":
            found = f"{self.entries} entries agree, error {self.error:.1e}"
            found += f", {self.kinks} at kinks left out" if self.kinks else ""
        else:
            found = {
                "form": "a pseudo-gradient: finite and of the right shape",
                "none": "none, the input is data",
            }[self.checked]
        return f"{self.name}: {found}"


@dataclass(frozen=True)
class GradientReport:
    """Result of `check_gradients`, one row for each gradient; `print` shows it."""

    rows: tuple[GradientRow, ...]

    def __str__(self) -> str:
        return "\n".join(map(str, self.rows))

    __repr__ = __str__


def check_gradients(
    layer: TrainingLayer,
    x,
    *,
    pseudo: Collection[str] = (),
    samples: int = 40,
    step: float = 1e-2,
    tolerance: float = 1e-2,
    seed: int = 0,
) -> GradientReport:
    """Compare the gradients of a layer with finite differences of its forward pass.

    Parameters
    ----------
    layer : TrainingLayer
        It is put back into its state afterwards, except for what its next `backward` would use.
    x : BitArray, Codes or array_like
        An input of a few rows. Random real numbers meet fewer kinks than round numbers.
    pseudo : collection of str
        Names of pseudo-gradients, such as "weight" or "input": `forward` is a step function of
        these arrays, so only shape and finiteness are checked. Parameters used by their signs
        (`Parameter.binary`) need not be named. If the layer returns bits or codes, all its
        gradients count as pseudo-gradients.
    samples : int
        Number of randomly chosen entries compared in each array.
    step : float
        How far an entry is moved up and down, times its magnitude if that exceeds 1.
    tolerance : float
        Largest difference allowed, relative to the largest gradient of the array.
    seed : int
        Seed of the gradient passed to `backward` and of the choice of entries.

    Returns
    -------
    GradientReport

    Raises
    ------
    AssertionError
        If a gradient differs, is missing, is not finite, or has the wrong shape. The message is
        the report.

    Notes
    -----
    The layer runs with `training=True`, each time from the same state and the same random numbers.
    Layers that draw (`Dropout`) or count (`BatchNorm`) can therefore be checked too. The function
    differentiated is sum(y * g), with y the output and g drawn from a normal distribution.
    Differences with `step` and with half of it are extrapolated to step 0. An entry is at a kink,
    like 0 for a ReLU, if the slopes of the two sides or of the two steps disagree. Differences that
    float32 rounding can explain do not count.

    Examples
    --------
    >>> x = np.random.default_rng(0).normal(size=(5, 8))
    >>> print(check_gradients(BatchNorm(8), x))                          # doctest: +SKIP
    input: 40 entries agree, error 2.1e-05
    gamma: 8 entries agree, error 6.6e-06
    beta: 8 entries agree, error 5.0e-06
    """
    if not isinstance(layer, TrainingLayer):
        raise TypeError(f"[check_gradients] layer must be a TrainingLayer, got {layer!r:.80}")
    check = _Check(layer, x, seed)
    rows = [check.row_of_input(_INPUT in pseudo)]
    for name, parameter in check.parameters.items():
        rows.append(check.row_of(name, parameter, name in pseudo or parameter.binary))
    compared = [
        check.compared(row, samples, step, tolerance) if row.checked == "differences" else row
        for row in rows
    ]
    check.put_back()
    unknown = set(pseudo) - {row.name for row in rows}
    if unknown:
        raise ValueError(f"[check_gradients] pseudo must name gradients, got {sorted(unknown)}")
    report = GradientReport(tuple(compared))
    if any(row.problem for row in compared):
        raise AssertionError(f"[check_gradients] gradients of {layer!r} must agree, got\n{report}")
    return report


class _Check:
    """One forward and backward pass, and the state from which to run the layer again."""

    def __init__(self, layer: TrainingLayer, x, seed: int):
        self.layer = layer
        self.x: Activation = x if isinstance(x, BitArray | Codes) else np.asarray(x)
        if isinstance(self.x, np.ndarray) and not is_data(self.x):
            self.x = self.x.astype(np.float32)
        self.state = layer.state()
        self.drawn = [generator.bit_generator.state for generator in layer.generators()]
        # nobody asks for the gradients of frozen ones, which `backward` may leave out
        self.parameters = {name: p for name, p in _named_parameters(layer) if p.trainable}
        self.rng = as_generator("check_gradients", seed)
        before = {name: p.grad.copy() for name, p in self.parameters.items()}
        for parameter in self.parameters.values():
            parameter.grad[...] = np.nan  # entries that `backward` does not write stay NaN
        y = self._forward(self.x)
        self.in_steps = isinstance(y, BitArray | Codes)
        self.dy = self.rng.standard_normal(y.shape, dtype=np.float32)
        self.sum_of_sizes = float(np.abs(as_float(y) * self.dy).sum(dtype=np.float64)) or 1.0
        self.dx = layer.backward(self.dy.copy())
        self.gradients = {name: p.grad.copy() for name, p in self.parameters.items()}
        for name, parameter in self.parameters.items():
            parameter.grad[...] = before[name]

    def put_back(self) -> None:
        """Put the layer back into its initial state."""
        self.layer.restore(self.state)
        for generator, state in zip(self.layer.generators(), self.drawn, strict=True):
            generator.bit_generator.state = state

    def _forward(self, x: Activation, change: Callable[[], None] | None = None) -> Activation:
        self.put_back()
        if change is not None:
            change()
        return self.layer.forward(x, training=True)

    def row_of_input(self, is_pseudo: bool) -> GradientRow:
        """Check the form of the input's gradient."""
        if self.dx is None and is_data(self.x):
            return GradientRow(_INPUT, "none")
        if self.dx is None:
            return GradientRow(_INPUT, "form", problem="backward returned None, but x is not data")
        return self._row(_INPUT, self.dx, self.x.shape, is_pseudo or is_data(self.x))

    def row_of(self, name: str, parameter: Parameter, is_pseudo: bool) -> GradientRow:
        """Check the form of a parameter's gradient."""
        gradient = self.gradients[name]
        if np.isnan(gradient).all() and gradient.size:
            return GradientRow(name, "form", problem="backward did not write the gradient")
        return self._row(name, gradient, parameter.shape, is_pseudo)

    def _row(
        self, name: str, gradient: np.ndarray, shape: tuple[int, ...], is_pseudo: bool
    ) -> GradientRow:
        problem = ""
        if gradient.shape != shape:
            problem = f"the gradient must have shape {shape}, got {gradient.shape}"
        elif not np.isfinite(gradient).all():
            problem = "the gradient must be finite, got NaN or infinity"
        checked = "form" if problem or is_pseudo or self.in_steps else "differences"
        return GradientRow(name, checked, problem=problem)

    def compared(
        self, row: GradientRow, samples: int, step: float, tolerance: float
    ) -> GradientRow:
        """Compare a gradient with differences and return its row, completed."""
        gradient = self.gradients[row.name] if row.name != _INPUT else np.asarray(self.dx)
        places = self.rng.choice(gradient.size, min(samples, gradient.size), replace=False)
        slopes = np.array(
            [[self._slopes(row.name, i, size) for size in (step, step / 2)] for i in places]
        ).reshape(-1, 2, 2)  # of each place, for each step, below and above
        coarse, fine = slopes.mean(axis=2).T
        differences = (4 * fine - coarse) / 3  # cancels the error proportional to step^2
        found = gradient.reshape(-1)[places].astype(np.float64)
        # rounding to float32 makes the sums this uncertain, and the slopes with them
        noise = self.sum_of_sizes * float(np.finfo(np.float32).eps) / step
        scale = max(np.abs([found, differences]).max(initial=0), noise / tolerance)
        # halving the step halves the bend of a smooth function, but not that of a kink
        bend, half_bend = np.abs(slopes[..., 1] - slopes[..., 0]).T
        bends = (half_bend > tolerance * scale) & (half_bend > 0.75 * bend)
        smooth = (np.abs(coarse - fine) <= tolerance * scale) & ~bends
        errors = np.where(smooth, np.abs(found - differences) / scale, 0)
        kinks = int((~smooth).sum())
        row = replace(
            row, entries=len(places) - kinks, kinks=kinks, error=float(errors.max(initial=0))
        )
        if places.size and not row.entries:
            return replace(row, problem="every entry is at a kink, give another x")
        if row.error <= tolerance:
            return row
        if not differences.any():
            return replace(row, problem=_NO_EFFECT.format(row.name))
        worst = int(np.argmax(errors))
        place = tuple(map(int, np.unravel_index(places[worst], gradient.shape)))
        problem = (
            f"the gradient differs by {row.error:.1%} of the largest: at {place} backward "
            f"gives {found[worst]:.6g}, differences give {differences[worst]:.6g}; near kinks a "
            f"smaller step differs less"
        )
        return replace(row, problem=problem)

    def _slopes(self, name: str, place: int, step: float) -> tuple[float, float]:
        """Return the slopes below and above one entry of an array."""
        self.put_back()  # the last evaluation has changed a parameter
        start = as_float(self.x) if name == _INPUT else self.parameters[name].value
        value = start.reshape(-1)[place]
        size = np.float32(step * max(1.0, abs(value)))
        values = [value - size, value, value + size]
        low, middle, high = (self._sum_with(name, place, number) for number in values)
        below, above = (float(b) - float(a) for a, b in pairwise(values))
        return (middle - low) / below, (high - middle) / above

    def _sum_with(self, name: str, place: int, value: np.float32) -> float:
        """Return sum(y * g) with one entry changed."""
        if name == _INPUT:
            x = as_float(self.x).copy()
            x.reshape(-1)[place] = value
            y = self._forward(x)
        else:

            def change() -> None:
                self.parameters[name].writable().reshape(-1)[place] = value

            y = self._forward(self.x, change)
        return float(np.sum(as_float(y).astype(np.float64) * self.dy))


def _named_parameters(layer: TrainingLayer) -> Iterator[tuple[str, Parameter]]:
    """Yield the parameters, named by place of the inner layer and attribute."""
    named: dict[int, str] = {}
    chains = layer.branches()
    layers = [("", layer)]
    for branch, chain in chains.items():
        prefix = "" if len(chains) == 1 else f"{branch}."
        layers += [
            (f"{place}.", inner)
            for place, inner in named_layers(chain, prefix)
            if isinstance(inner, TrainingLayer) and not inner.branches()
        ]
    for place, inner in layers:
        for attribute, value in _attributes(inner):
            if isinstance(value, Parameter):
                named.setdefault(id(value), f"{place}{attribute}")
    for i, parameter in enumerate(layer.parameters()):
        yield named.get(id(parameter), f"parameters()[{i}]"), parameter


def _attributes(layer: TrainingLayer) -> Iterator[tuple[str, object]]:
    """Yield the attributes of a layer, properties included."""
    yield from vars(layer).items()
    for name in dir(type(layer)):
        if isinstance(getattr(type(layer), name), property):
            yield name, getattr(layer, name)
