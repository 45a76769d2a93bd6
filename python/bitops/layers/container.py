"""Chains of layers: batched inference, summary, the training graph and the packed model."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ..array import BitArray
from .base import Activation, Layer, Parameter, TrainingLayer, check_size

if TYPE_CHECKING:
    from ..train import History


def _as_list(layers: tuple) -> list:
    """Layers given one by one, or as a single list or tuple."""
    if len(layers) == 1 and isinstance(layers[0], list | tuple):
        return list(layers[0])
    return list(layers)


def _ends(layers: Sequence[Layer]) -> tuple[int | None, int | None]:
    """Features that the chain takes and gives; None where no layer says."""
    ins = [layer.in_features for layer in layers if layer.in_features is not None]
    outs = [layer.out_features for layer in layers if layer.out_features is not None]
    return (ins[0] if ins else None), (outs[-1] if outs else None)


def _describe(name: str, layers: Iterable) -> str:
    lines = [repr(layer).replace("\n", "\n    ") for layer in layers]
    return f"{name}(\n" + "".join(f"    {line},\n" for line in lines) + ")"


@dataclass(frozen=True)
class Row:
    """One line of a summary. Bytes and multiply-adds (MACs); the latter for one input row."""

    layer: str
    output: str
    parameters: int
    packed_bytes: int
    float_bytes: int
    binary_macs: int
    float_macs: int


@dataclass(frozen=True)
class Summary:
    """The table that `summary()` returns; `print` shows it.

    `packed_bytes` counts binary weights at one bit each, in whole 64-bit words, and all other
    numbers at 32 bits; `float_bytes` counts everything at 32 bits.
    """

    rows: tuple[Row, ...]
    total: Row

    def __str__(self) -> str:
        head = "layer", "output", "parameters", "1-bit bytes", "32-bit bytes"
        table: list[tuple[str, ...]] = [(*head, "binary MACs", "float MACs")]
        for row in (*self.rows, self.total):
            numbers = (row.parameters, row.packed_bytes, row.float_bytes)
            counts = (*numbers, row.binary_macs, row.float_macs)
            table.append((row.layer, row.output, *(f"{count:,}" for count in counts)))
        widths = [max(len(line[i]) for line in table) for i in range(len(table[0]))]
        lines = []
        for line in table:
            left = [cell.ljust(width) for cell, width in zip(line[:2], widths, strict=False)]
            right = [cell.rjust(width) for cell, width in zip(line[2:], widths[2:], strict=True)]
            lines.append("  ".join(left + right))
        rule = "-" * len(lines[0])
        return "\n".join([lines[0], rule, *lines[1:-1], rule, lines[-1]])

    __repr__ = __str__


def check_layers(where: str, layers: Sequence, kind: type[Layer]) -> None:
    """Refuse an empty list, foreign objects, and neighbours whose features differ."""
    if not layers:
        raise ValueError(f"[{where}] at least one layer is needed, got none")
    features = None
    for i, layer in enumerate(layers):
        if not isinstance(layer, kind):
            raise TypeError(f"[{where}] layer {i} must be a {kind.__name__}, got {layer!r}")
        if None not in (features, layer.in_features) and features != layer.in_features:
            raise ValueError(
                f"[{where}] layer {i} must take the {features} features of the layer before it, "
                f"got {layer!r}"
            )
        features = layer.out_features or features


class Model:
    """Batched inference over `forward`, shared by the training graph and the packed model."""

    def forward(self, x) -> Activation:
        raise NotImplementedError

    def flat_layers(self) -> list[Layer]:
        """The layers in order, those of nested sequences included."""
        raise NotImplementedError

    def _batches(self, x, batch_size: int) -> Iterator[Activation]:
        batch_size = check_size(type(self).__name__, "batch_size", batch_size)
        if not isinstance(x, BitArray):
            x = np.asarray(x)
        if x.ndim == 0:
            raise ValueError(f"[{type(self).__name__}] x must have shape (n, features), got ()")
        # an input without rows still runs once: the output needs its shape and dtype
        for start in range(0, max(len(x), 1), batch_size):
            yield self.forward(x[start : start + batch_size])

    def outputs(self, x, *, batch_size: int = 1000) -> Activation:
        """`forward` in batches, so that no more than one batch of hidden activations exists.

        Parameters
        ----------
        x : BitArray or array_like of shape (n, in_features)
        batch_size : int
            Rows for each call of `forward`.

        Returns
        -------
        ndarray or BitArray of shape (n, out_features)
        """
        parts = list(self._batches(x, batch_size))
        bits = [part for part in parts if isinstance(part, BitArray)]
        if not bits:
            return np.concatenate(parts)
        words = np.concatenate([part.words for part in bits])
        return BitArray.from_words(words, (len(words), *bits[0].shape[1:]))

    def predict(self, x, *, batch_size: int = 1000) -> np.ndarray:
        """Label of each row: the index of its largest score, the first of equal ones.

        Returns
        -------
        ndarray of shape (n,), int64
        """
        labels = []
        for scores in self._batches(x, batch_size):
            if isinstance(scores, BitArray):
                raise TypeError("[predict] the model must end in scores, got one that ends in bits")
            labels.append(np.argmax(scores, axis=-1))
        return np.concatenate(labels)

    def evaluate(self, x, y, *, batch_size: int = 1000) -> float:
        """Error: the share, 0 to 1, of rows whose predicted label is not the one in `y`.

        Parameters
        ----------
        x : BitArray or array_like of shape (n, in_features)
        y : array_like of shape (n,), integer
        batch_size : int
        """
        y = np.asarray(y)
        predicted = self.predict(x, batch_size=batch_size)
        if y.shape != predicted.shape or not y.size:
            raise ValueError(
                f"[evaluate] x and y must have the same n >= 1 rows, got {predicted.shape} labels "
                f"for y of shape {y.shape}"
            )
        return float(np.mean(predicted != y))

    def summary(self) -> Summary:
        """Table of the layers: output, parameters, bytes, and multiply-adds for one input row."""
        rows: list[Row] = []
        features, bits = None, False
        for layer in self.flat_layers():
            cost = layer.cost(bits)
            features, bits = layer.out_features or features, layer.emits_bits(bits)
            output = f"{features or '?'} {'bits' if bits else 'numbers'}"
            rows.append(
                Row(
                    layer.name,
                    output,
                    cost.parameters,
                    cost.packed_bytes,
                    4 * cost.parameters,
                    cost.binary_macs,
                    cost.float_macs,
                )
            )
        total = Row(
            "total",
            "",
            sum(row.parameters for row in rows),
            sum(row.packed_bytes for row in rows),
            sum(row.float_bytes for row in rows),
            sum(row.binary_macs for row in rows),
            sum(row.float_macs for row in rows),
        )
        return Summary(tuple(rows), total)


class Sequential(Model, TrainingLayer):
    """Layers applied one after the other; sequences may contain sequences.

    Parameters
    ----------
    *layers : TrainingLayer
        One by one, or a single list.

    Examples
    --------
    >>> model = Sequential(BinaryDense(64, 256), BatchNorm(256), Sign(),
    ...                    BinaryDense(256, 10), BatchNorm(10))          # doctest: +SKIP
    >>> model.fit(x, y, epochs=10, validation=(x_val, y_val))            # doctest: +SKIP
    >>> model.freeze().save("model.safetensors")                         # doctest: +SKIP
    """

    def __init__(self, *layers):
        self.layers: list[TrainingLayer] = _as_list(layers)
        check_layers("Sequential", self.layers, TrainingLayer)
        self.in_features, self.out_features = _ends(self.layers)

    def forward(self, x, *, training: bool = False) -> Activation:
        for layer in self.layers:
            x = layer.forward(x, training=training)
        return x

    def backward(self, grad: np.ndarray) -> np.ndarray | None:
        for layer in reversed(self.layers):
            below = layer.backward(grad)
            if below is None:
                return None
            grad = below
        return grad

    def parameters(self) -> list[Parameter]:
        return [parameter for layer in self.layers for parameter in layer.parameters()]

    def state(self) -> list:
        return [layer.state() for layer in self.layers]

    def restore(self, state: Sequence) -> None:
        for layer, part in zip(self.layers, state, strict=True):
            layer.restore(part)

    def flat_layers(self) -> list[Layer]:
        flat: list[Layer] = []
        for layer in self.layers:
            flat += layer.flat_layers() if isinstance(layer, Sequential) else [layer]
        return flat

    def fit(self, x, y, **options) -> History:
        """Train in place; see `bitops.train.fit` for the options and the result."""
        # imported here, so that whoever only runs models never loads the training code
        from ..train import fit

        return fit(self, x, y, **options)

    def freeze(self) -> Packed:
        """The packed inference model; see `bitops.layers.freeze`."""
        from .freeze import freeze

        return freeze(self)

    def __repr__(self) -> str:
        return _describe("Sequential", self.layers)


class Packed(Model, Layer):
    """Inference model: a chain of packed layers with bits flowing between them.

    Parameters
    ----------
    *layers : PackedDense, PackedBatchNorm or PackedSign
        One by one, or a single list.

    Notes
    -----
    `Sequential.freeze` makes one from a trained network; `PackedDense(w, threshold, flip)` builds
    one by hand from a network trained elsewhere. Either way it needs no training code.
    """

    def __init__(self, *layers):
        self.layers: list[Layer] = _as_list(layers)
        check_layers("Packed", self.layers, Layer)
        for layer in self.layers:
            if isinstance(layer, TrainingLayer | Packed):
                raise TypeError(f"[Packed] layers must be packed ones, got {layer!r}")
        self.in_features, self.out_features = _ends(self.layers)

    def forward(self, x) -> Activation:
        for layer in self.layers:
            x = layer.forward(x)
        return x

    def flat_layers(self) -> list[Layer]:
        return self.layers

    @property
    def nbytes(self) -> int:
        """Bytes of packed weights, thresholds, flips and scales."""
        return self.summary().total.packed_bytes

    def save(self, path) -> None:
        """Write the model to a file; see `bitops.io.save`."""
        from ..io import save

        save(self, path)

    def __repr__(self) -> str:
        return _describe("Packed", self.layers)
