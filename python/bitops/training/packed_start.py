"""Trainings that start from a packed network, of which real weights and statistics are lost."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from ..layers import (
    BatchNorm,
    BinaryConv2D,
    BinaryDense,
    Dropout,
    Flatten,
    Layer,
    MaxPool2D,
    Packed,
    PackedBatchNorm,
    PackedConv2D,
    PackedDense,
    PackedFlatten,
    PackedMaxPool2D,
    Sequential,
    Sign,
)
from ..layers.inputs import Activation, as_rows
from ..ops.array import unpack
from ..ops.checks import check_integer

__all__ = ["start_from_packed"]

FARTHEST = 1e6  # deviations from its mean at which a threshold that nothing passes is put


def start_from_packed(model: Sequential, packed: Packed, x, *, batch_size: int = 100) -> None:
    """Give a model the weights and thresholds of a packed network, to train it further.

    Parameters
    ----------
    model : Sequential
        Changed in place. A chain of BinaryDense and BinaryConv2D without scales and bias, each
        followed by a BatchNorm and, but for the last, a Sign; MaxPool2D, Flatten and Dropout may
        be between them.
    packed : Packed
        The same network, as `model.freeze` or `bitops.zoo.load` returns it. A PackedBatchNorm at
        its beginning, by which networks of the zoo take pixels as they are, is left out.
    x : array_like of shape (n, in_features), or (n, h, w, channels) of images
        At least two rows of the training data, as the model takes them, a few hundred or
        thousands. They give the statistics of BatchNorm.
    batch_size : int
        Rows that pass the layers at once.

    Raises
    ------
    TypeError
        If an argument has a wrong type, or a layer is none of these.
    ValueError
        If the networks differ, or x has fewer than two rows. The model is then as it was.

    Notes
    -----
    Latent weights start at their signs times the clip value, from where each takes many steps to
    change. With mean and deviation s of the sums z that x gives, and a threshold t of the packed
    network, gamma and beta of

        gamma (z - mean) / s + beta >= 0,    z > t

    are 1 and (mean - t) / s, or the opposite where the bit is flipped. Of integers t + 1/2 stands
    for t. So the model computes what the packed network does; only real inputs next to a threshold
    may fall on its other side. What is lost are magnitudes: the first epochs are worse than those
    before.

    Examples
    --------
    >>> import numpy as np
    >>> from bitops.models import mlp
    >>> x = np.random.default_rng(0).standard_normal((64, 20), dtype=np.float32)
    >>> packed, model = mlp(20, 16, 1, 3, seed=0).freeze(), mlp(20, 16, 1, 3, seed=1)
    >>> start_from_packed(model, packed, x)
    >>> bool((model.predict(x) == packed.predict(x)).all())
    True
    """
    batch_size = check_integer("start_from_packed", "batch_size", batch_size, 1)
    blocks = _matched(model, packed)
    rows = as_rows("start_from_packed", "x", x)
    if len(rows) < 2:
        raise ValueError(
            f"[start_from_packed] x must have at least two rows, got shape {rows.shape}"
        )
    model(rows[:2])  # refuses rows that do not fit
    batches: list[Activation] = [
        rows[first : first + batch_size] for first in range(0, len(rows), batch_size)
    ]
    for block in blocks:
        block.take_weights()
        block.take_norm(block.sums(batch) for batch in batches)
        batches = [block.forward(batch) for batch in batches]


@dataclass
class _Block:
    """A product of the model and its packed twin, and the layers up to the next product."""

    product: BinaryDense | BinaryConv2D
    twin: PackedDense | PackedConv2D
    before: list[Layer] = field(default_factory=list)  # the first product
    between: list[Layer] = field(default_factory=list)  # product and norm
    norm: BatchNorm | None = None
    after: list[Layer] = field(default_factory=list)

    def take(self, layer: Layer) -> None:
        """Add a layer that follows the product."""
        if self.norm is not None:
            self.after.append(layer)
        elif type(layer) is BatchNorm:
            self.norm = layer
        else:
            self.between.append(layer)

    def check(self, is_last: bool) -> None:
        """Refuse what the packed layer does not say, or says otherwise."""
        product, twin = self.product, self.twin
        weights = product.weights
        is_plain = not (weights.is_scaled or weights.center or weights.real_evaluation)
        if not is_plain or product.bias is not None:
            raise TypeError(
                f"[start_from_packed] products must have neither scales nor bias, got {product!r}"
            )
        if twin.weights.coefficients is not None or twin.weights.shape != product.weight.shape:
            raise ValueError(
                f"[start_from_packed] the packed layer of {product!r} must have its weights, "
                f"got {twin!r}"
            )
        for layer in [*self.before, *self.between, *self.after]:
            if not isinstance(layer, MaxPool2D | Flatten | Dropout | Sign):
                raise TypeError(
                    f"[start_from_packed] model must be a chain of binary layers, got {layer!r}"
                )
        signs = any(isinstance(layer, Sign) for layer in self.after)
        if self.norm is None or signs is is_last or signs is (twin.threshold is None):
            raise ValueError(
                f"[start_from_packed] a BatchNorm, and a Sign but after the last, must follow "
                f"{product!r}, got {twin!r}"
            )

    def sums(self, x: Activation) -> np.ndarray:
        """Return what the norm takes, as rows of features."""
        y = _run([*self.before, self.product, *self.between], x)
        return np.asarray(y).reshape(-1, self.product.out_features)

    def forward(self, x: Activation) -> Activation:
        assert self.norm is not None
        return _run([*self.before, self.product, *self.between, self.norm, *self.after], x)

    def take_weights(self) -> None:
        weight = self.product.weight
        signs = unpack(self.twin.weights.bits)
        weight.assign(signs * np.float32(weight.clip_value or 1))

    def take_norm(self, sums: Iterator[np.ndarray]) -> None:
        assert self.norm is not None
        norm, twin = self.norm, self.twin
        mean, variance = _moments(sums)
        deviation = np.sqrt(variance + norm.eps)
        norm.running_mean[...], norm.running_inv_std[...] = mean, 1 / deviation
        if twin.threshold is None:
            alpha = np.ones(len(mean)) if twin.alpha is None else twin.alpha
            bias = np.zeros(len(mean)) if twin.bias is None else twin.bias
            gamma, beta = alpha * deviation, bias + alpha * mean
        else:
            half = 0.5 if twin.threshold.dtype.kind == "i" else 0.0
            gamma = np.ones(len(mean)) if twin.flip is None else np.where(twin.flip, -1.0, 1.0)
            beta = np.clip((mean - (twin.threshold + half)) / deviation, -FARTHEST, FARTHEST)
            beta *= gamma
        norm.gamma.assign(gamma.astype(np.float32))
        norm.beta.assign(beta.astype(np.float32))


def _run(layers: Sequence[Layer], x: Activation) -> Activation:
    for layer in layers:
        x = layer.forward(x)
    return x


def _moments(parts: Iterator[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Return mean and variance of each column, float64."""
    count = 0
    total = squares = np.float64(0)
    for part in parts:
        numbers = part.astype(np.float64)
        count += len(numbers)
        total = total + numbers.sum(axis=0)
        squares = squares + np.square(numbers).sum(axis=0)
    mean = total / count
    return np.asarray(mean), np.maximum(squares / count - np.square(mean), 0)


def _matched(model: Sequential, packed: Packed) -> list[_Block]:
    """Return the products of the model, each with its twin and what follows it."""
    if not isinstance(model, Sequential):
        raise TypeError(f"[start_from_packed] model must be a Sequential, got {model!r:.80}")
    if not isinstance(packed, Packed):
        raise TypeError(f"[start_from_packed] packed must be a Packed, got {packed!r:.80}")
    twins = _twins(packed)
    blocks: list[_Block] = []
    waiting: list[Layer] = []
    for layer in model.flat_layers():
        if isinstance(layer, BinaryDense | BinaryConv2D):
            if len(blocks) == len(twins):
                raise ValueError(
                    f"[start_from_packed] packed must have as many products as the model, got "
                    f"{len(twins)}"
                )
            blocks.append(_Block(layer, twins[len(blocks)], before=waiting))
            waiting = []
        elif not blocks:
            waiting.append(layer)
        else:
            blocks[-1].take(layer)
    if len(blocks) < len(twins):
        raise ValueError(
            f"[start_from_packed] packed must have as many products as the model, {len(blocks)}, "
            f"got {len(twins)}"
        )
    for block in blocks:
        block.check(block is blocks[-1])
    return blocks


def _twins(packed: Packed) -> list[PackedDense | PackedConv2D]:
    layers = packed.flat_layers()
    if layers and isinstance(layers[0], PackedBatchNorm):
        layers = layers[1:]
    for layer in layers:
        if not isinstance(layer, PackedDense | PackedConv2D | PackedMaxPool2D | PackedFlatten):
            raise TypeError(
                f"[start_from_packed] packed must be a chain of binary layers, got {layer!r}"
            )
    return [layer for layer in layers if isinstance(layer, PackedDense | PackedConv2D)]
