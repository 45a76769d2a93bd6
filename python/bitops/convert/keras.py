"""Training networks from the files of Keras and Larq."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from typing import Any

import numpy as np

from .. import layers as L
from ..layers.base import TrainingLayer, all_layers
from ..layers.inputs import Shape
from .errors import ConversionError
from .keras_file import KerasLayer, KerasModel, read_keras
from .keras_layers import HANDLERS
from .lowering import batch_norm
from .traces import Trace, fork


def from_keras(path: str | os.PathLike) -> L.Sequential:
    """Make a training network of a file of Keras or Larq.

    Parameters
    ----------
    path : path
        HDF5 (`.h5`, Keras 2 with or without Larq, or Keras 3) or `.keras` (Keras 3).

    Returns
    -------
    Sequential
        It has the latent weights, so training can go on; `freeze()` packs it. It takes images
        (n, h, w, c), or rows.

    Raises
    ------
    ConversionError
        If the file is damaged, or if the network cannot be represented: the message names the
        first layer that cannot, and why. It is a ValueError.
    ImportError
        If h5py is not installed: `pip install h5py`.
    OSError
        If the file cannot be read.

    Notes
    -----
    Sequential and Functional models of the layers that convolutional and dense networks have, with
    the quantizers of Larq: ste_sign, approx_sign, swish_sign, magnitude_aware_sign, ste_tern,
    ste_heaviside and DoReFa. Nothing in a file is executed: Lambda layers and classes of one's own
    are refused. The state of the optimizer is left out.

    Examples
    --------
    >>> model = from_keras("network.keras")  # doctest: +SKIP
    >>> packed = model.freeze()  # doctest: +SKIP
    """
    try:
        return _build(read_keras(path))
    except ConversionError:
        raise
    except (AttributeError, LookupError, OverflowError, TypeError, ValueError) as error:
        raise ConversionError(
            f"[from_keras] the description of the model is not as Keras writes it: {error!r}"
        ) from None


@dataclass(frozen=True, eq=False)
class _Output:
    """The layers on the way to an output, and the shape of an example there."""

    trace: Trace[TrainingLayer]
    shape: Shape

    def then(self, layer: TrainingLayer) -> _Output:
        return _Output(Trace(layer, self.trace), layer.output_shape(self.shape))


def _build(model: KerasModel) -> L.Sequential:
    made: dict[str, _Output] = {}
    for layer in model.layers:
        missing = [name for name in layer.inputs if name not in made]
        if missing:
            raise layer.refuse(f"its input {missing[0]!r} must come before it")
        inputs = [made[name] for name in layer.inputs]
        try:
            made[layer.name] = _output(layer, inputs)
        except ConversionError:
            raise
        except ValueError as error:  # sizes that do not fit, settings out of range
            raise layer.refuse(str(error)) from None
    starts = [output for output in made.values() if output.trace.step is None]
    if len(starts) != 1 or model.output not in made:
        raise ConversionError("[from_keras] the model must have one input and one output")
    chain = list(made[model.output].trace.steps_from(starts[0].trace))
    _refuse_shared(chain)
    shape = starts[0].shape
    known = None if None in shape else tuple(int(size or 0) for size in shape)
    return L.Sequential(chain, input_shape=known)


def _refuse_shared(chain: list[TrainingLayer]) -> None:
    seen: set[int] = set()
    for layer in all_layers(chain):
        if id(layer) in seen:
            raise ConversionError(
                f"[from_keras] the output of {layer!r} reaches branches that part twice, which "
                f"Residual and Concat cannot express"
            )
        seen.add(id(layer))


def _output(layer: KerasLayer, inputs: list[_Output]) -> _Output:
    if layer.kind == "InputLayer":
        return _Output(Trace(), _input_shape(layer))
    if layer.kind in ("Add", "Average", "Concatenate", "Multiply"):
        return _joined(layer, inputs)
    if layer.kind not in HANDLERS:
        raise layer.refuse("layers of this class are not supported")
    if len(inputs) != 1:
        raise layer.refuse(f"it must have one input, got {len(inputs)}")
    branch = inputs[0]
    for made in HANDLERS[layer.kind](layer, branch.shape):
        if made.in_features not in (None, branch.shape[-1]):
            raise layer.refuse(
                f"it must take {made.in_features} features, got an input of {branch.shape}"
            )
        branch = branch.then(made)
    return branch


def _input_shape(layer: KerasLayer) -> Shape:
    given: Any = layer.config.get("batch_input_shape", layer.config.get("batch_shape"))
    sizes = tuple(given)[1:] if isinstance(given, list | tuple) else ()
    if not 1 <= len(sizes) <= 3 or any(
        size is not None and (type(size) is not int or size < 1) for size in sizes
    ):
        raise layer.refuse(f"the input must be images, sequences or rows, got shape {given!r}")
    if sizes[-1] is None:
        raise layer.refuse("the number of channels must be known")
    return sizes


def _joined(layer: KerasLayer, inputs: list[_Output]) -> _Output:
    if len(inputs) < 2:
        raise layer.refuse(f"it must have at least two inputs, got {len(inputs)}")
    if layer.kind == "Concatenate" and layer.config.get("axis", -1) not in (
        -1,
        len(inputs[0].shape),
    ):
        raise layer.refuse("its axis must be that of the features")
    joined = inputs[0]
    for other in inputs[1:]:
        joined = _join_two(layer, joined, other)
    if layer.kind == "Average":
        factors = np.full(joined.shape[-1] or 0, 1 / len(inputs))
        joined = joined.then(batch_norm(factors, np.zeros_like(factors)))
    return joined


def _join_two(layer: KerasLayer, one: _Output, two: _Output) -> _Output:
    parting = fork(one.trace, two.trace)
    if parting is None:
        raise layer.refuse("its inputs must come from one input of the model")
    if layer.kind == "Multiply":
        return _product(layer, one, two, parting)
    is_sum = layer.kind in ("Add", "Average")
    if one.shape[: None if is_sum else -1] != two.shape[: None if is_sum else -1]:
        raise layer.refuse(f"its inputs must fit each other, got {one.shape} and {two.shape}")
    start, body, shortcut = parting
    if is_sum and not body:
        body, shortcut = shortcut, body
    body = body or _unchanged()
    kind = L.Residual if is_sum else L.Concat
    block = kind(L.Sequential(*body), L.Sequential(*shortcut) if shortcut else None)
    shape = one.shape
    if not is_sum and None not in (one.shape[-1], two.shape[-1]):
        shape = (*shape[:-1], one.shape[-1] + two.shape[-1])  # type: ignore[operator]
    return _Output(Trace(block, start), shape)


def _product(
    layer: KerasLayer, one: _Output, two: _Output, parting: tuple[Any, Any, Any]
) -> _Output:
    """Join two branches of one shape, or an image and a factor for each of its channels."""
    start, body, shortcut = parting
    if len(one.shape) < len(two.shape):
        one, two, body, shortcut = two, one, shortcut, body
    if two.shape not in (one.shape, one.shape[-1:]):
        raise layer.refuse(f"its inputs must fit each other, got {one.shape} and {two.shape}")
    main = L.Sequential(*(body or _unchanged()))
    block = L.Multiply(main, L.Sequential(*shortcut) if shortcut else None)
    return _Output(Trace(block, start), one.shape)


def _unchanged() -> tuple[TrainingLayer, ...]:
    """Return a layer that lets everything pass, since the body of a block wants one."""
    return (L.Clip(-math.inf, math.inf),)
