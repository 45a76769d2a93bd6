"""What every layer and every model shares: parameters, input checks, batched inference, the summary table."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from ..array import BitArray, unpack

# 255 * k stays below 2**31 and k below 2**24: dot products fit int32, and float32 holds those of bits exactly.
MAX_FEATURES = 2**23

Activation = np.ndarray | BitArray


def check_size(where: str, name: str, value: int) -> int:
    """`value` as a plain int in 1..MAX_FEATURES."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer):
        raise TypeError(f"[{where}] {name} must be an integer, got {value!r}")
    if not 1 <= value <= MAX_FEATURES:
        raise ValueError(f"[{where}] {name} must be in 1..{MAX_FEATURES}, got {value}")
    return int(value)


def as_activation(where: str, x, features: int | None = None) -> Activation:
    """Check a layer's input and give it one of the three forms that layers know.

    Parameters
    ----------
    where : str
        Name of the layer, for the message of an error.
    x : BitArray or array_like of shape (..., features)
        Bits packed along the last axis, uint8 numbers, or real numbers.
    features : int, optional
        Length that the last axis must have.

    Returns
    -------
    BitArray, ndarray of uint8, or ndarray of float32

    Raises
    ------
    TypeError
        If x is neither bits nor numbers. A bool array is refused: it is bits that nobody packed.
    ValueError
        If x has fewer than two axes, a wrong last axis, or is packed along another axis.
    """
    if isinstance(x, BitArray):
        if x.axis != x.ndim - 1:
            raise ValueError(f"[{where}] x must be packed along its last axis, got {x!r}")
    else:
        x = np.asarray(x)
        if x.dtype.kind not in "iuf":
            raise TypeError(f"[{where}] x must be a BitArray, uint8 or real, got dtype {x.dtype}")
        if x.dtype != np.uint8:
            x = x.astype(np.float32, copy=False)
    if x.ndim < 2:
        raise ValueError(f"[{where}] x must have shape (..., features), got {x.shape}")
    if features is not None and x.shape[-1] != features:
        raise ValueError(f"[{where}] x must have {features} features, got shape {x.shape}")
    return x


def as_float(x: Activation) -> np.ndarray:
    """The values of `x` as float32: +-1 for bits, the numbers themselves otherwise."""
    if isinstance(x, BitArray):
        return unpack(x, dtype=np.float32)
    return x.astype(np.float32, copy=False)


def saved_for_backward(layer: Layer, value):
    """What `forward` kept, or an error if it has not run in training mode."""
    if value is None:
        raise RuntimeError(f"[{layer.name}] backward needs forward(x, training=True) before it")
    return value


class Parameter:
    """One trainable float32 array, its gradient, and how an optimizer is to treat it.

    Parameters
    ----------
    value : array_like
        Start value, copied as float32.
    clip_value : float, optional
        The optimizer clips the array to [-clip_value, clip_value] after each step.
    lr_scale : float
        Multiplies the learning rate.

    Attributes
    ----------
    grad : ndarray of float32
        Gradient written by the last backward pass.
    version : int
        Grows with every change, so that what was derived from the value (packed bits) knows when
        it is stale.
    """

    def __init__(self, value, *, clip_value: float | None = None, lr_scale: float = 1.0):
        self._value = np.array(value, dtype=np.float32, order="C")
        self.grad = np.zeros_like(self._value)
        self.clip_value = clip_value
        self.lr_scale = lr_scale
        self.version = 0

    @property
    def shape(self) -> tuple[int, ...]:
        return self._value.shape

    @property
    def size(self) -> int:
        return self._value.size

    @property
    def value(self) -> np.ndarray:
        """Read-only view; change the parameter with `assign` or through `writable`."""
        view = self._value.view()
        view.flags.writeable = False
        return view

    def writable(self) -> np.ndarray:
        """The array itself, to be changed in place right away; counts as a change."""
        self.version += 1
        return self._value

    def assign(self, value) -> None:
        """Copy `value`, an array_like of the same shape, into the parameter."""
        value = np.asarray(value)
        if value.shape != self.shape:
            raise ValueError(f"[Parameter] value must have shape {self.shape}, got {value.shape}")
        np.copyto(self.writable(), value, casting="same_kind")

    def __repr__(self) -> str:
        return f"Parameter(shape={self.shape}, lr_scale={self.lr_scale:.4g})"


@dataclass(frozen=True)
class Cost:
    """What a layer stores and computes for one input row."""

    parameters: int = 0
    packed_bytes: int = 0  # binary weights at 1 bit (in 64-bit words), everything else as stored
    binary_macs: int = 0
    float_macs: int = 0


class Layer:
    """One step of a model: `forward`, and the facts that `summary` and the shape checks need.

    `in_features` and `out_features` are None where a layer takes any number of features.
    """

    in_features: int | None = None
    out_features: int | None = None

    @property
    def name(self) -> str:
        return type(self).__name__

    def forward(self, x) -> Activation:
        raise NotImplementedError

    def __call__(self, x) -> Activation:
        return self.forward(x)

    def emits_bits(self, bits_in: bool) -> bool:
        """Whether the output in inference is a BitArray, given whether the input is one."""
        return False

    def cost(self, bits_in: bool) -> Cost:
        return Cost()


class TrainingLayer(Layer):
    """A layer that also learns: `backward` stands next to `forward`.

    `forward(x, training=True)` keeps what `backward` needs; `forward(x)` is the evaluation graph.
    `backward(grad)` writes the gradients of the parameters and returns that of the input, or None
    where the input, being integer data, has none.
    """

    def forward(self, x, *, training: bool = False) -> Activation:
        raise NotImplementedError

    def backward(self, grad: np.ndarray) -> np.ndarray | None:
        raise NotImplementedError

    def parameters(self) -> list[Parameter]:
        return []

    def state(self) -> list:
        """Copies of all that evaluation depends on; `restore` takes them back."""
        return [p.value.copy() for p in self.parameters()]

    def restore(self, state: Sequence) -> None:
        for parameter, value in zip(self.parameters(), state, strict=True):
            parameter.assign(value)


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
        head = ("layer", "output", "parameters", "1-bit bytes", "32-bit bytes")
        table = [(*head, "binary MACs", "float MACs")]
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
        if not isinstance(parts[0], BitArray):
            return np.concatenate(parts)
        words = np.concatenate([part.words for part in parts])
        return BitArray.from_words(words, (len(words), *parts[0].shape[1:]))

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
