"""What is measured on validation data: error, loss and metrics, and a trial of own metrics."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from ..layers.inputs import is_finite
from ..layers.states import same_draws
from ..ops.array import BitArray
from .gradients import call_loss, single_number
from .targets import measured

if TYPE_CHECKING:
    from .run import Run

__all__ = ["try_metrics", "validate"]

_FEW = 100  # rows whose scores stand for all in the trial of metrics


def validate(run: Run) -> tuple[float | None, float | None, dict[str, float]]:
    """Return error, loss and metrics of the validation data."""
    if run.validation is None:
        return None, None, {}
    x, y = run.validation
    scores = _scores(run, x)
    errors = run.targets.errors
    error = None if errors is None else float(np.mean(errors(scores, y)))
    loss, _ = call_loss(run.loss, scores, y)
    metrics = {
        name: single_number(_called(name), metric(scores, measured(y)))
        for name, metric in run.metrics.items()
    }
    for name, value in {"validation_loss": loss, **metrics}.items():
        if not math.isfinite(value):
            raise FloatingPointError(
                f"[fit] {name} must be finite, got {value} after epoch {run.epoch}"
            )
    return error, loss, metrics


def _scores(run: Run, x: Any) -> np.ndarray:
    outputs = run.model.outputs(x)
    if isinstance(outputs, BitArray):
        raise TypeError("[fit] the model must end in scores, got one that ends in bits")
    return np.asarray(outputs)


def try_metrics(run: Run) -> None:
    """Call every metric once, before the first step, and refuse one that cannot be computed.

    It gets the validation targets, all of them, and scores of as many rows: those of the first
    ones, over and over. Neither the model nor its random generators change.

    Raises
    ------
    TypeError, ValueError
        If it returns no number, or raises an error. Errors of arithmetic, and results that are not
        finite, may be due to weights that have learnt nothing yet, and pass.
    """
    if not run.metrics:
        return
    assert run.validation is not None
    x, y = run.validation
    try:
        with same_draws(run.model.generators()):
            scores = _scores(run, x[:_FEW])
    except ValueError:  # such as of NaN, which has no sign; the first step names the layer
        return
    if not is_finite(scores):
        return
    scores, y = np.resize(scores, (len(y), *scores.shape[1:])), measured(y)
    for name, metric in run.metrics.items():
        try:
            with np.errstate(all="ignore"):
                value = metric(scores, y)
        except ArithmeticError:
            continue
        except Exception as error:
            raise ValueError(
                f"[fit] {_called(name)} must take scores of shape {scores.shape} and "
                f"{y.dtype} targets of shape {y.shape}, got {type(error).__name__}: {error}"
            ) from error
        single_number(_called(name), value)


def _called(name: str) -> str:
    """Return what a metric is called, by the name of its value."""
    return f"metric {name.removeprefix('validation_')!r}"
