"""The running statistics of batch normalisation, taken anew from many rows."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ..layers.base import all_layers
from ..layers.inputs import as_rows
from ..layers.norm import BatchNorm
from ..layers.states import same_draws
from ..ops.checks import as_generator, check_integer

if TYPE_CHECKING:
    from .run import Trainable

__all__ = ["recalibrate"]


def recalibrate(
    model: Trainable, x, *, rows: int | None = None, batch_size: int = 100, seed=0
) -> None:
    """Replace the running statistics of every BatchNorm by those of many rows.

    Parameters
    ----------
    model : Sequential
        Its parameters and random generators stay as they are. Frozen layers keep their statistics.
    x : BitArray or array_like of shape (n, in_features), or (n, h, w, channels) of images
        Rows of the training data.
    rows : int, optional
        How many of them pass the model, chosen at random; more than n means n. By default all.
    batch_size : int
        That of the training, as layers see the statistics of batches of this size there. Rows are
        split into batches of nearly equal size, of at least as many rows if there are as many.
    seed : int, SeedSequence or Generator
        Of the choice of the rows and their order.

    Notes
    -----
    While a network learns, its running statistics average the last 1 / momentum batches, each under
    other weights; and they average inv_std, which is far too large where a feature differs from a
    constant in few rows. These are those of the weights as they are. Batches pass the model as in
    training, each BatchNorm normalising by its batch. Its mean is that of the batches' means, its
    variance the mean of their variances plus the variance of their means. Where rows are augmented
    in training, the statistics of rows as they are suit those that are predicted.

    References
    ----------
    Wu and Johnson, "Rethinking 'Batch' in BatchNorm", 2021, section 3 (PreciseBN).

    Examples
    --------
    >>> import numpy as np
    >>> from bitops.layers import BatchNorm, Sequential
    >>> model = Sequential(BatchNorm(1, momentum=1.0))
    >>> x = np.arange(8, dtype=np.float32)[:, None]
    >>> y = model.forward(x[:2], training=True)
    >>> recalibrate(model, x, batch_size=4)
    >>> model.layers[0].running_mean
    array([3.5], dtype=float32)
    """
    x = as_rows("recalibrate", "x", x)
    batch_size = check_integer("recalibrate", "batch_size", batch_size, 1)
    count = len(x) if rows is None else check_integer("recalibrate", "rows", rows, 1)
    count = min(count, len(x))
    if not count:
        raise ValueError(f"[recalibrate] x must have at least one row, got shape {x.shape}")
    order = as_generator("recalibrate", seed).permutation(len(x))[:count]
    norms = [
        layer
        for layer in all_layers(model.flat_layers())
        if isinstance(layer, BatchNorm) and layer.trainable
    ]
    if not norms:
        return
    batches = np.array_split(order, max(1, count // batch_size))
    observed: list[list[list[np.ndarray]]] = [[] for _ in norms]
    seen = [norm.batches_seen for norm in norms]
    with same_draws(model.generators()):
        for batch in batches:
            model.forward(x[batch], training=True)
            for norm, batches_of in zip(norms, observed, strict=True):
                batches_of.append(norm.observed())
    for norm, batches_of, batches_seen in zip(norms, observed, seen, strict=True):
        means, inv_stds = np.array(batches_of, np.float64).swapaxes(0, 1)
        norm.running_mean[...] = means.mean(axis=0)
        norm.running_inv_std[...] = 1 / np.sqrt(_variance(means, inv_stds, norm.eps) + norm.eps)
        norm.batches_seen = batches_seen


def _variance(means: np.ndarray, inv_stds: np.ndarray, eps: float) -> np.ndarray:
    """Return the variance of all rows: the mean within batches, and that of their means."""
    within = np.maximum(inv_stds**-2 - eps, 0)  # rounded, that of equal rows may be below 0
    return within.mean(axis=0) + means.var(axis=0)
