"""Models, that is chains of layers: Sequential for training, Packed for inference.

`Model` holds what the two share: batches, predictions, summary. `Sequential.to_packed` makes a
Packed; `folding` does the work.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

import bitops

from ..ops.array import BitArray
from ..ops.checks import as_seed_sequence, check_integer
from ..quantizers import ByteGradient
from .base import Layer, TrainingLayer, all_layers, backward_weights
from .batches import Run, join, run_in_batches
from .elementwise import PackedSigmoid, PackedSoftmax, Sigmoid, Softmax, softmax
from .folding import check_packed_form, fold_chain, to_numbers
from .inputs import (
    Activation,
    Codes,
    Shape,
    as_float,
    as_labels,
    as_rows,
    check_flag,
    check_input_bits,
    check_size,
    is_data,
)
from .joined import training_steps
from .model_files import read_model, write_model
from .parameter import Parameter
from .plans import Plans
from .registry import register
from .summary import Summary, summarize
from .training_files import read_sequential, write_sequential

if TYPE_CHECKING:
    from ..training.run import History


def _as_list(layers: tuple) -> list:
    """Return the layers given one by one, or as a single list or tuple."""
    if len(layers) == 1 and isinstance(layers[0], list | tuple):
        return list(layers[0])
    return list(layers)


def _input_features(layers: Sequence[Layer]) -> int | None:
    """Return the features that a chain takes; None if any number fits or if it is unknown."""
    for layer in layers:
        if layer.in_features is not None or layer.mixes_axes:
            return layer.in_features
    return None


def unnested(layers: Iterable[Layer]) -> list[Layer]:
    """Return the layers in order, with nested sequences replaced by their layers."""
    flat: list[Layer] = []
    for layer in layers:
        # a sequence that overrides forward is more than its layers
        if type(layer).forward in (Sequential.forward, Packed.forward):
            flat += unnested(layer.layers)  # type: ignore[attr-defined]
        else:
            flat.append(layer)
    return flat


def describe(name: str, layers: Iterable) -> str:
    """Return a repr with one layer a line."""
    lines = [repr(layer).replace("\n", "\n    ") for layer in layers]
    return f"{name}(\n" + "".join(f"    {line},\n" for line in lines) + ")"


def check_layers(where: str, layers: Sequence, kind: type[Layer], input_shape: Shape = ()) -> Shape:
    """Check that layers fit each other and the input; return the shape of the output.

    An empty list and objects of another kind are refused. If the size of images is unknown, only
    their channels are checked.
    """
    if not layers:
        raise ValueError(f"[{where}] at least one layer is needed, got none")
    shape = input_shape
    for i, layer in enumerate(layers):
        if not isinstance(layer, kind):
            raise TypeError(f"[{where}] layer {i} must be a {kind.__name__}, got {layer!r}")
        features = shape[-1] if shape else None
        if None not in (features, layer.in_features) and features != layer.in_features:
            raise ValueError(
                f"[{where}] layer {i} must take the {features} features that reach it, "
                f"got {layer!r}"
            )
        try:
            shape = layer.output_shape(shape)
        except ValueError as error:
            raise ValueError(f"[{where}] layer {i} must fit its input: {error}") from None
    return shape


def check_shape(where: str, shape: Any) -> tuple[int, ...] | None:
    """Check the shape of one example and return it as plain integers; None stays None."""
    if shape is None:
        return None
    if not isinstance(shape, tuple | list) or not shape:
        raise TypeError(f"[{where}] input_shape must be a tuple of integers, got {shape!r}")
    return tuple(check_size(where, "input_shape", size) for size in shape)


def _probabilities(last: Layer, scores: Activation) -> np.ndarray:
    """Return the scores behind the last layer of a model as probabilities."""
    if isinstance(scores, BitArray):
        raise TypeError("[predict_proba] the model must end in scores, got one that ends in bits")
    numbers = as_float(scores)
    if numbers.shape[-1] < 2:
        raise ValueError(
            f"[predict_proba] the model must give a score for each class, got {numbers.shape[-1]}"
        )
    if isinstance(last, Softmax | PackedSoftmax | Sigmoid | PackedSigmoid):
        return numbers
    return softmax("predict_proba", numbers)


class Model:
    """Base of Sequential and Packed: runs inference, on all rows at once or batch by batch.

    Notes
    -----
    Four ways to run a model:

    =============  ===========================================================================
    `forward(x)`   all rows at once, as in a layer; codes are returned as `Codes`. Training calls
                   `forward(x, training=True)`, which keeps what `backward` needs.
    `model(x)`     the same as `forward(x)`
    `outputs(x)`   `forward` batch by batch, so that memory does not grow with the rows; codes
                   are returned as the numbers they stand for
    `predict(x)`   the class of each row, the index of its largest output; batch by batch;
                   `predict_proba(x)` gives the probabilities of all classes
    =============  ===========================================================================
    """

    input_shape: tuple[int, ...] | None
    out_features: int | None

    def forward(self, x) -> Activation:
        raise NotImplementedError

    def flat_layers(self) -> list[Layer]:
        """Return the layers in order, with nested sequences replaced by their layers."""
        raise NotImplementedError

    def _batches(self, where: str, x: Activation, batch_size: int | None) -> Iterator[Activation]:
        """Yield the outputs batch by batch, codes as the numbers they stand for."""
        if batch_size is not None:
            batch_size = check_size(where, "batch_size", batch_size)
        chain = unnested([self])  # type: ignore[list-item]
        for y in run_in_batches(chain, x, batch_size, self._runner()):
            yield y.values() if isinstance(y, Codes) else y

    def _runner(self) -> Run | None:
        """Return what runs some of the layers; None to run them one after the other."""
        return None

    def outputs(self, x, *, batch_size: int | None = None) -> Activation:
        """Return the outputs of all rows, computed batch by batch.

        Parameters
        ----------
        x : BitArray or array_like of shape (n, in_features), or (n, h, w, channels) of images
        batch_size : int, optional
            Rows for each call of `forward`. By default 1000, of which layers with large
            activations take as many at a time as keep these below 16 MiB, at least 4.

        Returns
        -------
        ndarray or BitArray of shape (n, out_features)
        """
        x = as_rows("outputs", "x", x)
        return join(list(self._batches("outputs", x, batch_size)))

    def predict(self, x, *, batch_size: int | None = None) -> np.ndarray:
        """Return the class of each row: the index of its largest score, the first of equal ones.

        Parameters
        ----------
        x, batch_size
            As in `outputs`.

        Returns
        -------
        ndarray of shape (n,), int64
        """
        return self._predict("predict", as_rows("predict", "x", x), batch_size)

    def predict_proba(self, x, *, batch_size: int | None = None) -> np.ndarray:
        """Return the probability of each class: the softmax of the scores of each row.

        Scores of a model that ends in Softmax or Sigmoid are returned as they are. Those of a
        training without cross-entropy have the right order, but are no calibrated probabilities.
        Of labels that do not exclude each other, as of ``loss="binary_cross_entropy"``, the
        probabilities are the sigmoids of `outputs`, ``scipy.special.expit``.

        Parameters
        ----------
        x, batch_size
            As in `outputs`.

        Returns
        -------
        ndarray of shape (n, out_features), float32
        """
        x = as_rows("predict_proba", "x", x)
        parts = list(self._batches("predict_proba", x, batch_size))
        last = self.flat_layers()[-1]
        return np.concatenate([_probabilities(last, scores) for scores in parts])

    def _predict(self, where: str, x: Activation, batch_size: int | None) -> np.ndarray:
        labels = []
        for scores in self._batches(where, x, batch_size):
            if isinstance(scores, BitArray):
                raise TypeError(
                    f"[{where}] the model must end in scores, got one that ends in bits"
                )
            labels.append(np.argmax(scores, axis=-1))
        return np.concatenate(labels)

    def error_rate(self, x, y, *, batch_size: int | None = None) -> float:
        """Return the share of rows, 0 to 1, whose predicted class differs from the one in `y`.

        Parameters
        ----------
        x : BitArray or array_like of shape (n, in_features), or (n, h, w, channels) of images
        y : array_like of shape (n,), integer
        batch_size : int, optional
            As in `outputs`.
        """
        x = as_rows("error_rate", "x", x)
        if not len(x):
            raise ValueError(f"[error_rate] x must have at least one row, got shape {x.shape}")
        y = as_labels("error_rate", "y", y, rows=len(x), classes=self.out_features)
        return float(np.mean(self._predict("error_rate", x, batch_size) != y))

    def summary(
        self, input_shape: Sequence[int] | None = None, *, input_bits: int | None = None
    ) -> Summary:
        """Return a table of the layers: output, parameters, bytes, multiply-adds for one example.

        Parameters
        ----------
        input_shape : sequence of int, optional
            Shape of one example, such as (32, 32, 3) of an image; by default that of the model. If
            neither is known, figures that depend on it are left open.
        input_bits : int in 1..8, optional
            Bits of each number of the input: 8 of uint8 data, 1 of a BitArray. By default it is
            real numbers.
        """
        if input_bits is not None:
            input_bits = check_input_bits("summary", "input_bits", input_bits)
        given = check_shape("summary", input_shape) or self.input_shape or ()
        layers = self.flat_layers()
        check_layers("summary", layers, Layer, given)
        return summarize(layers, given, input_bits)


@register
class Sequential(Model, TrainingLayer):
    """Chain of training layers, applied one after the other; it may contain further chains.

    Parameters
    ----------
    *layers : TrainingLayer
        One by one, or a single list.
    input_shape : tuple of int, optional
        Shape of one example, such as (32, 32, 3) of an image. If given, the constructor also checks
        the sizes of images, not only features, and `summary` shows them.

    Examples
    --------
    >>> model = Sequential(BinaryDense(64, 256), BatchNorm(256), Sign(),
    ...                    BinaryDense(256, 10), BatchNorm(10))          # doctest: +SKIP
    >>> model.fit(x, y, epochs=10, validation=(x_val, y_val))            # doctest: +SKIP
    >>> model.freeze().save("model.safetensors")                         # doctest: +SKIP
    """

    TRANSIENT = ("_took_data",)
    CHAINS = ("layers",)

    def __init__(self, *layers, input_shape: Sequence[int] | None = None):
        self._set_layers(layers, input_shape)

    def _set_layers(self, layers: Sequence, input_shape: Sequence[int] | None) -> None:
        self.layers: list[TrainingLayer] = _as_list(tuple(layers))
        self.input_shape = check_shape("Sequential", input_shape)
        shape = check_layers("Sequential", self.layers, TrainingLayer, self.input_shape or ())
        self.in_features = _input_features(self.layers)
        self.out_features = shape[-1] if shape else None
        self.mixes_axes = any(layer.mixes_axes for layer in self.layers)
        self._took_data: set[int] | None = None  # places of layers that took data, in training

    def forward(self, x, *, training: bool = False) -> Activation:
        if not training:
            for layer in self.layers:
                x = layer.forward(x)
            return x
        self._took_data = set()
        for place, step in training_steps(self.layers):
            if is_data(x):
                self._took_data.add(place)
            x = step.forward(x)
        return x

    def backward(self, grad: np.ndarray) -> np.ndarray | None:
        return self._backward(grad, list(training_steps(self.layers)))

    def backward_weights(self, grad: np.ndarray) -> None:
        """Write the gradients of the parameters that are trained, and compute no others.

        This ends at the first layer that has such parameters, without what only the layers before
        it, or the caller, would need. What `forward` kept of a layer is dropped after its part, so
        that a second call needs another `forward`.

        Parameters
        ----------
        grad : ndarray
            Of the outputs of the last `forward` with ``training=True``.
        """
        first = self._first_trained()
        steps = [s for s in training_steps(self.layers) if s[0] + s[1].length > first]
        below = self._backward(grad, steps[1:], release=True)
        if steps and below is not None:
            backward_weights(steps[0][1], below)
        self.release()

    def _backward(
        self, grad: np.ndarray, steps: Sequence, *, release: bool = False
    ) -> np.ndarray | None:
        """Go back through steps of the chain, each with the place of its first layer."""
        for place, step in reversed(steps):
            below = step.backward(grad)
            if release:
                step.release()
            if below is None:
                self._check_end(place)
                return None
            grad = below
        return grad

    def _first_trained(self) -> int:
        """Return the place of the first layer with trainable parameters; the length without any."""
        trained = (any(p.trainable for p in layer.parameters()) for layer in self.layers)
        return next((place for place, found in enumerate(trained) if found), len(self.layers))

    def _check_end(self, place: int) -> None:
        """Refuse a layer that returns no gradient although layers before it need one."""
        needed = any(layer.parameters() for layer in self.layers[:place])
        if needed and self._took_data is not None and place not in self._took_data:
            raise TypeError(
                f"[backward] layer {place} must return the gradient of its input, which is "
                f"not integer data, got None from {self.layers[place]!r}"
            )

    def parameters(self) -> list[Parameter]:
        return [parameter for layer in self.layers for parameter in layer.parameters()]

    def generators(self) -> list[np.random.Generator]:
        return [generator for layer in self.layers for generator in layer.generators()]

    def state(self) -> list:
        return [layer.state() for layer in self.layers]

    def restore(self, state: Sequence) -> None:
        for layer, part in zip(self.layers, state, strict=True):
            layer.restore(part)

    def output_shape(self, shape: Shape) -> Shape:
        return check_layers("Sequential", self.layers, TrainingLayer, shape)

    def flat_layers(self) -> list[Layer]:
        return unnested(self.layers)

    def branches(self) -> dict[str, Sequence[Layer]]:
        return {"layers": self.flat_layers()}

    def round_gradients(self, seed=None, bits: int = 8, *, activations: bool = False) -> None:
        """Round the gradients in the backward products of all binary layers to 8 bits or fewer.

        Training steps become faster. Gradients become noisier, but stay unbiased; see
        `bitops.quantizers.ByteGradient`, which becomes the attribute `rounding` of each of these
        layers. Set the attribute to None to undo this.

        Where the images of a convolution are real numbers, these are rounded to 7 bits for the
        gradient of its filters. Gradients that BLAS multiplies stay exact: those of dense weights
        for numbers, and of convolutions of groups, of filters of three planes and more, of uint8,
        or so small that BLAS is faster.

        Parameters
        ----------
        seed : int or SeedSequence, optional
            Source of the random rounding. Each layer gets its own stream.
        bits : int in 2..8, default 8
            With 6, products are faster still, and gradients noisier.
        activations : bool
            Whether all products of a training step take float32 inputs, such as those behind a
            `ReLU`, rounded at random to 7 bits, if none is negative. Gradients pass the rounding
            as they are. Evaluation stays exact.

        Raises
        ------
        ValueError
            If there are no such layers.
        """
        check_integer("round_gradients", "bits", bits, 2, 8)
        activations = check_flag("round_gradients", "activations", activations)
        sequence = as_seed_sequence("round_gradients", seed)
        layers: list[Any] = [x for x in all_layers(self.flat_layers()) if hasattr(x, "rounding")]
        if not layers:
            raise ValueError(
                f"[round_gradients] the model must have layers with binary weights, got {self!r}"
            )
        for layer in layers:
            layer.rounding = ByteGradient(sequence.spawn(1)[0], bits)
            layer.rounds_activations = activations

    @classmethod
    def of_layers(cls, layers: Sequence, input_shape: Sequence[int] | None = None) -> Sequential:
        """Make an object of the class from its layers, without a call of its constructor."""
        made = cls.__new__(cls)
        made._set_layers(layers, input_shape)
        return made

    def save(self, path: str | os.PathLike) -> None:
        """Write the model to a file, so that `load` brings back one that can be trained further.

        The file holds latent weights, running statistics, the states of random generators, and how
        each parameter is trained: whether it is, its limits and the factor of its rate. It holds no
        state of an optimizer; `bitops.training.Checkpoint` does.

        Parameters
        ----------
        path : path
            An existing file is replaced, in one step.

        Raises
        ------
        OSError
            If the file cannot be written. What was there before stays.
        TypeError
            If the class of a layer or of a quantizer is not registered with `bitops.io.register`,
            or if the class of the model overrides `forward`.
        ValueError
            If a layer, or a generator of random numbers, is in the model twice.
        """
        if type(self).forward is not Sequential.forward:
            raise TypeError(
                f"[save] the class of a model must have the forward of Sequential, got {self.name}"
            )
        write_sequential(path, self)

    @classmethod
    def load(cls, path: str | os.PathLike) -> Sequential:
        """Read a model from a file that `save` wrote.

        Raises
        ------
        OSError
            If the file cannot be opened.
        ValueError
            If it is truncated, damaged or no file of a `Sequential`, or if a type in it is not
            registered.
        """
        return read_sequential(path, cls)

    def fit(self, x, y=None, **options) -> History:
        """Train the model in place; see `bitops.training.fit` for options and result."""
        # An attribute, as layers do not import the training code: inference does without it.
        return bitops.training.fit(self, x, y, **options)

    def to_packed(self) -> Packed:
        check_packed_form(self)
        packed, flow = fold_chain(self.flat_layers())
        return Packed(packed + to_numbers(flow), input_shape=self.input_shape)

    def freeze(self) -> Packed:
        """Return the packed inference model; see `bitops.layers.freeze`."""
        return self.to_packed()

    def __repr__(self) -> str:
        return describe(self.name, self.layers)


class Packed(Model, Layer):
    """Inference model: a chain of packed layers between which bits flow.

    Parameters
    ----------
    *layers : PackedDense, PackedConv2D, PackedMaxPool2D, FloatDense, ...
        One by one, or a single list.
    input_shape : tuple of int, optional
        Shape of one example, as in `Sequential`.
    notes : mapping of str to str, optional
        What the user of a model file should know, such as how to prepare images. Stored in the
        file.

    Notes
    -----
    `Sequential.freeze` makes a Packed from a network trained here. For a network trained elsewhere,
    build it by hand from layers such as `PackedDense(w, threshold, flip)`. Running it loads no
    training code.

    Examples
    --------
    >>> from bitops.layers import PackedDense
    >>> hidden = PackedDense(np.ones((8, 4)), threshold=np.zeros(8, int))
    >>> net = Packed(hidden, PackedDense(np.ones((3, 8))))
    >>> net(np.float32([[1, -1, 1, 1]]))
    array([[8, 8, 8]], dtype=int32)
    >>> net.predict(np.float32([[1, -1, 1, 1]]))
    array([0])
    """

    def __init__(
        self,
        *layers,
        input_shape: Sequence[int] | None = None,
        notes: Mapping[str, str] | None = None,
    ):
        self.layers: list[Layer] = _as_list(layers)
        self.notes = dict(notes or {})
        self.input_shape = check_shape("Packed", input_shape)
        self._set_sizes()

    def _set_sizes(self) -> None:
        """Check the layers, and find the sizes of input and output from them."""
        shape = check_layers("Packed", self.layers, Layer, self.input_shape or ())
        for layer in self.layers:
            if isinstance(layer, TrainingLayer | Packed):
                raise TypeError(f"[Packed] layers must be packed ones, got {layer!r}")
        self.in_features = _input_features(self.layers)
        self.out_features = shape[-1] if shape else None
        self.mixes_axes = any(layer.mixes_axes for layer in self.layers)
        self._plans = Plans()

    def __getstate__(self) -> dict[str, Any]:
        found = {"in_features", "out_features", "mixes_axes", "_plans"}
        return {n: value for n, value in super().__getstate__().items() if n not in found}

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        super().__setstate__(state)
        self._set_sizes()

    def forward(self, x) -> Activation:
        return self._run(0, len(self.layers), x)

    def _run(self, first: int, end: int, x: Activation) -> Activation:
        layers = self.layers
        while first < end:
            ran = self._plans.run(layers, first, end, x)
            x, first = ran if ran is not None else (layers[first].forward(x), first + 1)
        return x

    def _runner(self) -> Run | None:
        # one that overrides forward is more than its layers
        return self._run if type(self).forward is Packed.forward else None

    def output_shape(self, shape: Shape) -> Shape:
        return check_layers("Packed", self.layers, Layer, shape)

    def flat_layers(self) -> list[Layer]:
        return self.layers

    @property
    def nbytes(self) -> int:
        """Bytes of packed weights, thresholds, flips and scales."""
        return self.summary().total.packed_bytes

    def save(self, path: str | os.PathLike) -> None:
        """Write the model to a file; see `bitops.io.save`."""
        write_model(path, self.layers, self.input_shape, self.notes)

    @classmethod
    def load(cls, path: str | os.PathLike) -> Packed:
        """Read a model from a file; see `bitops.io.load`."""
        return read_model(path, cls)

    def __repr__(self) -> str:
        return describe("Packed", self.layers)
