"""The interfaces of layers, with and without training, and walks over the layers of a model."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from .inputs import Activation, Shape, check_flag
from .parameter import Parameter, own_array
from .roles import Role

if TYPE_CHECKING:
    from ..ops.plan import Value
    from .plans import Chain
    from .registry import ArraySpec


@dataclass(frozen=True)
class Cost:
    """The size of a layer, and its work for one output position (a row or a pixel).

    Attributes
    ----------
    parameters : int
        Trained numbers.
    packed_bytes : int
        A plane of +-1 weights takes 1 bit a weight, in 64-bit words; the rest counts as stored.
    binary_macs : int
        Multiply-adds of single bits. Those of codes of b bits with weights of p planes count b * p
        times, and those of uint8 data 8 * p times.
    float_macs : int
        Multiply-adds of other numbers: with float32 weights, once for each plane of +-1 weights,
        and one for each number that batch normalisation scales.

    Examples
    --------
    >>> from bitops.layers import BinaryDense
    >>> BinaryDense(784, 100).cost(input_bits=1)
    Cost(parameters=78400, packed_bytes=10400, binary_macs=78400, float_macs=0)
    """

    parameters: int = 0
    packed_bytes: int = 0
    binary_macs: int = 0
    float_macs: int = 0


class Edits:
    """Marks assignments to attributes of inference layers, after which plans are made anew."""

    last = object()  # another one after each; a count could lose some that threads make at once


class Layer:
    """One step of a model: `forward`, and the facts that `summary` and the shape checks need.

    `in_features` and `out_features` are the lengths of the last axis of input and output. They are
    None if the layer works with any number of features.

    Examples
    --------
    >>> class Double(Layer):
    ...     def forward(self, x):
    ...         return 2 * x
    >>> Double()(np.float32([1, 2]))
    array([2., 4.], dtype=float32)
    """

    # What a model file stores of a packed layer: its arrays, and the names of its `branches()`.
    ARRAYS: ClassVar[Sequence[ArraySpec]] = ()
    CHAINS: ClassVar[Sequence[str]] = ()
    # Attributes that pickles and copies leave out, such as caches; a restored layer has None in
    # their place. What base classes name is left out too.
    TRANSIENT: ClassVar[Sequence[str]] = ()

    in_features: int | None = None
    out_features: int | None = None
    mixes_axes = False  # whether output features are made from several axes of the input

    def __setattr__(self, name: str, value: Any) -> None:
        object.__setattr__(self, name, value)
        Edits.last = object()

    def __getstate__(self) -> dict[str, Any]:
        """Return the attributes that pickles and copies hold: no `TRANSIENT`, nothing `SAVED`."""
        left_out = self._left_out()
        state = vars(self).copy()  # as another thread may be in `forward`
        state |= {n: getattr(self, n) for n in self._named("__slots__") if hasattr(self, n)}
        return {name: value for name, value in state.items() if name not in left_out}

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        slots = self._named("__slots__")
        for name, value in {**dict.fromkeys(self._left_out()), **state}.items():
            if name in slots:
                object.__setattr__(self, name, value)
            else:
                vars(self)[name] = value

    def _left_out(self) -> set[str]:
        return self._named("TRANSIENT") | self._named("SAVED")

    def _named(self, attribute: str) -> set[str]:
        """Return the names that an attribute lists, in the class and in all bases of it."""
        listed = [vars(kind).get(attribute, ()) for kind in type(self).__mro__]
        return {name for names in listed for name in ([names] if isinstance(names, str) else names)}

    @property
    def name(self) -> str:
        return type(self).__name__

    def forward(self, x) -> Activation:
        raise NotImplementedError

    def compile(self, chain: Chain, x: Value) -> Value | None:
        """Add the steps of an inference layer to a plan and return its output.

        None if there are no steps that compute what `forward` computes for inputs of this form.
        """
        return None

    def __call__(self, x) -> Activation:
        return self.forward(x)

    def output_shape(self, shape: Shape) -> Shape:
        """Return the shape of the output for an input shape; refuse a shape that does not fit.

        A shape lists the last axes, as many as are known::

            ()              nothing is known
            (64,)           64 features or channels
            (28, 28, 64)    an image of 28 x 28 pixels and 64 channels
        """
        if self.out_features is None:
            return shape
        return (*shape[:-1], self.out_features)

    def output_bits(self, input_bits: int | None) -> int | None:
        """Return the bits of each number that inference gives, for those of its input.

        They are 1 for a BitArray, 1 to 8 for codes, 8 for uint8 data, and None for other numbers.
        """
        return None

    def cost(self, input_bits: int | None) -> Cost:
        """Return the size and the work of the layer; `input_bits` is as in `output_bits`."""
        return Cost()

    def config(self) -> dict[str, Any]:
        """Return the arguments of the constructor other than arrays, as values JSON can hold."""
        return {}

    def branches(self) -> dict[str, Sequence[Layer]]:
        """Return the chains of layers inside this one, by name; each gets this layer's input."""
        return {}

    def __repr__(self) -> str:
        return f"{self.name}()"


class TrainingLayer(Layer):
    """A layer that can be trained: `backward` stands next to `forward`.

    `forward(x)` evaluates the layer. `forward(x, training=True)` also keeps what `backward` needs.
    `backward(grad)` writes the gradients of the parameters and returns the gradient of the input.
    It returns None if the input is integer data, which has no gradient.
    `to_packed()` returns the layer for inference.
    `least_rows` is how many rows, or positions of images, a training step must have.

    Examples
    --------
    >>> class Half(TrainingLayer):
    ...     def forward(self, x, training=False):
    ...         return x / 2
    ...     def backward(self, grad):
    ...         return grad / 2
    >>> Half()(np.float32([[2, 4]]))
    array([[1., 2.]], dtype=float32)
    """

    # Attributes with what `forward` keeps for `backward`: `release` drops them, and pickles and
    # copies leave them out.
    SAVED: ClassVar[Sequence[str]] = ()

    least_rows: ClassVar[int] = 1

    def __setattr__(self, name: str, value: Any) -> None:
        object.__setattr__(self, name, value)  # not counted: training layers are not compiled

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        arrays = {n: own_array(v) for n, v in state.items() if isinstance(v, np.ndarray)}
        super().__setstate__({**state, **arrays})

    def forward(self, x, *, training: bool = False) -> Activation:
        raise NotImplementedError

    def backward(self, grad: np.ndarray) -> np.ndarray | None:
        raise NotImplementedError

    def release(self) -> None:
        """Drop what `forward` kept for `backward`, here and in the layers inside.

        A training calls it as soon as the backward pass of a layer has ended, so that memory is
        free for the gradients of the layers before it.
        """
        for layer in all_layers([self]):
            for name in layer._named("SAVED"):
                setattr(layer, name, None)

    def parameters(self) -> list[Parameter]:
        """Return the parameters to be trained, in a fixed order."""
        return []

    @property
    def trainable(self) -> bool:
        """Whether optimizers change the layer: any of its parameters, if it has some.

        Set to False, it freezes all parameters of the layer and of those inside it. A frozen
        BatchNorm also evaluates in training: it keeps its running statistics and uses them.
        """
        parameters = self.parameters()
        return not parameters or any(parameter.trainable for parameter in parameters)

    @trainable.setter
    def trainable(self, value: bool) -> None:
        value = check_flag(self.name, "trainable", value)
        for parameter in self.parameters():
            parameter.trainable = value

    def generators(self) -> list[np.random.Generator]:
        """Return the random generators that the layer draws from; a checkpoint saves their states.

        A layer that contains others lists their generators in the order of `parameters`.
        """
        return []

    def state(self) -> list:
        """Return copies of all arrays that training changes; `restore` accepts them."""
        return [p.value.copy() for p in self.parameters()]

    def restore(self, state: Sequence) -> None:
        """Put the layer back into a state that `state` returned."""
        for parameter, value in zip(self.parameters(), state, strict=True):
            parameter.assign(value)

    def observed(self) -> list[np.ndarray]:
        """Return what `state` holds of the rows of the last training step, besides parameters.

        A layer with such statistics returns them before they are averaged, and `observe` averages
        them. So the forward pass may run in a copy of the layer.
        """
        return []

    def observe(self, *observed: np.ndarray) -> None:
        """Change the state by what the `observed` of a copy has returned."""

    @property
    def role(self) -> Role:
        """How `freeze` treats the layer when it packs a chain."""
        return Role.ALONE

    def to_packed(self) -> Layer | None:
        """Return the inference layer whose outputs equal those of evaluation, bit for bit.

        It shares no array with this layer. `freeze` refuses a class that overrides `forward` but
        inherits `to_packed`, since the inherited one describes the other `forward`.
        """
        raise TypeError(
            f"[to_packed] a layer must define to_packed to be packed, got {type(self).__name__}"
        )


def place_in_mro(kind: type, name: str) -> int:
    """Return the index in the MRO of the class that defines `name`; the length if none does."""
    bases = kind.__mro__
    return next((i for i, base in enumerate(bases) if name in vars(base)), len(bases))


def saved_for_backward(layer: Layer, value):
    """Return what `forward` saved; raise an error if it has not run in training mode."""
    if value is None:
        raise RuntimeError(f"[{layer.name}] backward needs forward(x, training=True) before it")
    return value


def check_gradient(layer: Layer, grad: np.ndarray, shape: tuple[int, ...]) -> None:
    """Raise an error if the gradient of an output does not have its shape."""
    if grad.shape != shape:
        raise ValueError(f"[{layer.name}] grad must have shape {shape}, got {grad.shape}")


def backward_weights(layer: Any, grad: np.ndarray) -> None:
    """Run the backward pass of a layer, or a chain, whose input needs no gradient.

    A layer that can leave out that of its input has a method of this name. It is not called where a
    class derived from it, or an attribute of the layer, defines another `backward`.
    """
    kind = type(layer)
    own, other = (place_in_mro(kind, name) for name in ("backward_weights", "backward"))
    if own == len(kind.__mro__) or own > other or "backward" in vars(layer):
        layer.backward(grad)
    else:
        layer.backward_weights(grad)


def named_layers(layers: Iterable[Layer], prefix: str = "") -> Iterator[tuple[str, Layer]]:
    """Yield layers with their places, such as "3" or "3.body.0"; a layer precedes its branches."""
    for i, layer in enumerate(layers):
        yield f"{prefix}{i}", layer
        for branch, chain in layer.branches().items():
            yield from named_layers(chain, f"{prefix}{i}.{branch}.")


def all_layers(layers: Iterable[Layer]) -> Iterator[Layer]:
    """Iterate over layers in order, including those of branches."""
    return (layer for _, layer in named_layers(layers))


def activations(layers: Iterable[Layer], shape: Shape) -> Iterator[tuple[Layer, Shape, Shape]]:
    """Yield every layer with the shapes of its input and output, those in branches included.

    Shapes are those of one example, as `Layer.output_shape` takes and gives them. The walk ends
    where a layer refuses its input.
    """
    for layer in layers:
        for chain in layer.branches().values():
            yield from activations(chain, shape)
        try:
            output = layer.output_shape(shape)
        except ValueError:
            return
        yield layer, shape, output
        shape = output


def check_least_rows(where: str, layers: Iterable[Layer], shape: Shape, rows: int) -> None:
    """Refuse steps with too few rows of a shape for a layer to learn from them."""
    for layer, given, _ in activations(layers, shape):
        positions = given[:-1]
        least = layer.least_rows if isinstance(layer, TrainingLayer) else 1
        if None not in positions and rows * math.prod(positions) < least:  # type: ignore[arg-type]
            raise ValueError(
                f"[{where}] batch_size must give every layer at least two rows in training, got "
                f"{rows} of shape {shape} for {layer!r}"
            )


def holders(layer: Layer) -> Iterator[Any]:
    """Yield a layer, its quantizer if it has one, the quantizer inside that one, and so on."""
    holder: Any = layer
    while holder is not None:
        yield holder
        holder = getattr(holder, "quantizer", None)
