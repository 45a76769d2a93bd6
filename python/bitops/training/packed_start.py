"""Trainings that start from a packed network, of which real weights and statistics are lost."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from ..layers import (
    BatchNorm,
    BinaryConv2D,
    BinaryDense,
    Layer,
    Packed,
    PackedBatchNorm,
    PackedConv2D,
    PackedDense,
    Sequential,
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
        Changed in place. Its products are BinaryDense and BinaryConv2D without scales and bias,
        each of which a BatchNorm follows before the next one.
    packed : Packed
        The same network, as `model.freeze` or `bitops.zoo.load` returns it. A PackedBatchNorm at
        its beginning, by which networks of the zoo take pixels as they are, is left out.
    x : BitArray or array_like of shape (n, in_features), or (n, h, w, channels) of images
        At least two rows of the training data, as the model takes them, a few hundred or
        thousands. They give the statistics of BatchNorm.
    batch_size : int
        Rows that pass the layers at once.

    Raises
    ------
    TypeError
        If an argument has a wrong type, or the model has other products.
    ValueError
        If the networks differ, or x has fewer than two rows or does not fit. The model is then as
        it was.

    Notes
    -----
    Latent weights start at their signs times the clip value, from where each takes many steps to
    change. With mean and deviation s of the sums z that x gives, and a threshold t of the packed
    network, gamma and beta of

        gamma (z - mean) / s + beta >= 0,    z > t

    are 1 and (mean - t) / s, or the opposite where the bit is flipped; where all z are integers,
    floor(t) + 1/2 stands for t. Of a BatchNorm that is packed as alpha and bias, gamma is alpha s
    and beta is bias + alpha mean. So the model computes what the packed network does, but for sums
    of real numbers next to a threshold. What is lost are magnitudes: the first epochs are worse
    than those before.

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
    if not isinstance(model, Sequential):
        raise TypeError(f"[start_from_packed] model must be a Sequential, got {model!r:.80}")
    if not isinstance(packed, Packed):
        raise TypeError(f"[start_from_packed] packed must be a Packed, got {packed!r:.80}")
    rows = as_rows("start_from_packed", "x", x)
    if len(rows) < 2:
        raise ValueError(
            f"[start_from_packed] x must have at least two rows, got shape {rows.shape}"
        )
    made = copy.deepcopy(model)  # the model stays as it is until all has gone well
    blocks = _matched(made, packed)
    _check_same(made, packed)
    batches: list[Activation] = [
        rows[first : first + batch_size] for first in range(0, len(rows), batch_size)
    ]
    for block in blocks:
        block.take_norm(_moments(block.sums(batch) for batch in batches))
        batches = [block.forward(batch) for batch in batches]  # the sums of all would be too many
    model.restore(made.state())


class _Moments(NamedTuple):
    """What is known of each feature: mean and variance, float64, and whether all are integers."""

    mean: np.ndarray
    variance: np.ndarray
    whole: np.ndarray


@dataclass
class _Block:
    """A product of the model and its packed twin, and the layers up to the next product."""

    product: BinaryDense | BinaryConv2D
    twin: PackedDense | PackedConv2D
    before: list[Layer]  # the first product
    between: list[Layer] = field(default_factory=list)  # product and norm
    norm: BatchNorm | None = None
    after: list[Layer] = field(default_factory=list)

    def add(self, layer: Layer) -> None:
        """Add a layer that follows the product."""
        if self.norm is not None:
            self.after.append(layer)
        elif type(layer) is BatchNorm and layer.in_features == self.product.out_features:
            self.norm = layer
        else:
            self.between.append(layer)

    def take_weights(self) -> None:
        """Check that the twin has all that is needed; take its signs and thresholds."""
        product, twin = self.product, self.twin
        weights = product.weights
        is_plain = not (weights.is_scaled or weights.center or weights.real_evaluation)
        if not is_plain or product.bias is not None:
            raise TypeError(
                f"[start_from_packed] products must have neither scales nor bias, got {product!r}"
            )
        if self.norm is None:
            raise ValueError(f"[start_from_packed] a BatchNorm must follow {product!r}, got none")
        if twin.weights.coefficients is not None or twin.weights.shape != product.weight.shape:
            raise ValueError(
                f"[start_from_packed] the packed layer of {product!r} must have its weights, "
                f"got {twin!r}"
            )
        signs = unpack(twin.weights.bits)
        product.weight.assign(signs * np.float32(product.weight.clip_value or 1))
        features = product.out_features
        self.take_norm(_Moments(np.zeros(features), np.ones(features), np.zeros(features, bool)))

    def sums(self, x: Activation) -> np.ndarray:
        """Return what the norm takes."""
        return np.asarray(_run([*self.before, self.product, *self.between], x))

    def forward(self, x: Activation) -> Activation:
        assert self.norm is not None
        return _run([self.norm, *self.after], self.sums(x))

    def take_norm(self, of: _Moments) -> None:
        """Set the norm to what the twin does, for sums of these moments."""
        assert self.norm is not None
        norm, twin = self.norm, self.twin
        deviation = np.sqrt(of.variance + norm.eps)
        norm.running_mean[...], norm.running_inv_std[...] = of.mean, 1 / deviation
        norm.batches_seen = math.ceil(1 / norm.momentum)  # so that a new batch counts by momentum
        if twin.threshold is None:
            alpha = np.ones(len(of.mean)) if twin.alpha is None else twin.alpha
            bias = np.zeros(len(of.mean)) if twin.bias is None else twin.bias
            gamma, beta = alpha * deviation, bias + alpha * of.mean
        else:
            threshold = twin.threshold.astype(np.float64)
            whole = of.whole | (twin.threshold.dtype.kind == "i")
            threshold = np.where(whole, np.floor(threshold) + 0.5, threshold)
            gamma = np.ones(len(of.mean)) if twin.flip is None else np.where(twin.flip, -1.0, 1.0)
            beta = np.clip((of.mean - threshold) / deviation, -FARTHEST, FARTHEST) * gamma
        norm.gamma.assign(gamma.astype(np.float32))
        norm.beta.assign(beta.astype(np.float32))


def _run(layers: Sequence[Layer], x: Activation) -> Activation:
    for layer in layers:
        x = layer.forward(x)
    return x


def _moments(parts: Iterator[np.ndarray]) -> _Moments:
    """Return the moments of each column of arrays (..., features)."""
    count, total, squares, whole = 0, np.float64(0), np.float64(0), np.bool_(True)
    for part in parts:
        numbers = part.reshape(-1, part.shape[-1]).astype(np.float64)
        count += len(numbers)
        total = total + numbers.sum(axis=0)
        squares = squares + np.square(numbers).sum(axis=0)
        whole = whole & (numbers == np.floor(numbers)).all(axis=0)
    mean = np.asarray(total / count)
    return _Moments(mean, np.maximum(squares / count - np.square(mean), 0), np.asarray(whole))


def _matched(model: Sequential, packed: Packed) -> list[_Block]:
    """Return the products of a model, which has taken the weights and thresholds of their twins."""
    twins = [x for x in packed.flat_layers() if isinstance(x, PackedDense | PackedConv2D)]
    blocks: list[_Block] = []
    before: list[Layer] = []
    for layer in model.flat_layers():
        if not isinstance(layer, BinaryDense | BinaryConv2D):
            if blocks:
                blocks[-1].add(layer)
            else:
                before.append(layer)
        elif len(blocks) < len(twins):
            blocks.append(_Block(layer, twins[len(blocks)], before))
            before = []
        else:
            break
    else:
        if len(blocks) == len(twins):
            for block in blocks:
                block.take_weights()
            return blocks
    raise ValueError(
        f"[start_from_packed] packed must have as many products as the model, got {len(twins)}"
    )


def _check_same(model: Sequential, packed: Packed) -> None:
    """Refuse a model that has taken weights and thresholds and still packs into another network."""
    layers = packed.flat_layers()
    if layers and isinstance(layers[0], PackedBatchNorm):
        layers = layers[1:]
    made = model.freeze().flat_layers()
    for layer, twin in zip(made, layers, strict=False):
        if not _are_same(layer, twin):
            raise ValueError(
                f"[start_from_packed] packed must be the network of the model, which packs into "
                f"{layer!r} with other bits or windows, got {twin!r}"
            )
    if len(made) != len(layers):
        raise ValueError(
            f"[start_from_packed] packed must be the network of the model, which packs into "
            f"{len(made)} layers, got {len(layers)}"
        )


def _are_same(layer: Layer, twin: Layer) -> bool:
    """Return whether packed layers are the same, but for the values of thresholds and scales."""
    return (
        type(layer) is type(twin)
        and repr(layer) == repr(twin)  # with features and windows
        and all(map(np.array_equal, _fixed(layer), _fixed(twin)))
    )


def _fixed(layer: Layer) -> tuple[np.ndarray, ...]:
    """Return the bits of the weights of a packed layer, and its flags; empty where it has none."""
    weights = getattr(layer, "weights", None)
    flags = (getattr(layer, name, None) for name in ("flip", "minimum"))
    none = np.zeros(0, bool)
    return (
        none if weights is None else weights.bits.words,
        *(none if each is None or not np.any(each) else np.asarray(each) for each in flags),
    )
