"""Second stages: they turn a trained float network into one to be trained with few levels."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

from ..layers.activations import Sign, Tanh
from ..layers.base import TrainingLayer
from ..layers.container import Sequential
from ..layers.conv import Conv2D, QuantizedConv2D
from ..layers.dense import BinaryDense, Dense, QuantizedDense, TanhDense
from ..layers.planes import WeightQuantizer
from ..layers.product import LatentProduct
from ..layers.residual import Residual
from ..ops.checks import check_integer
from ..quantizers import AnnealedSign, LeastSquaresTernary, ShareTernary, SteSign

__all__ = ["to_bitwise", "to_ternary"]


def to_bitwise(
    model: Sequential, *, zeros: float | None = None, activation: Any = None
) -> Sequential:
    """Make the second stage of a bitwise network from a first one with TanhDense and Tanh.

    Parameters
    ----------
    model : Sequential
        Trained; it stays as it is.
    zeros : float, optional
        Share of the weights of a layer that become 0. Without it all are +-1.
    activation : quantizer of signs, optional
        Of the new Sign layers; `SteSign(inf)`, the identity backward, by default.

    Returns
    -------
    Sequential
        To be trained again, and frozen. TanhDense has become BinaryDense, or QuantizedDense with
        `ShareTernary(zeros)`; latent weights and bias are tanh of those of the first stage. Tanh
        has become Sign. Other layers are copied.

    Notes
    -----
    The paper calls this noisy backpropagation. The forward pass takes bipolar weights and
    activations, errors flow back as if those were real, and real weights are updated. The gradient
    of latent weights is used as it is, and their learning rate is not scaled. The biases of the
    paper are bipolar too; these stay real.

    References
    ----------
    Kim and Smaragdis, "Bitwise Neural Networks", 2016, section 3.

    Examples
    --------
    >>> from bitops.layers import Tanh, TanhDense
    >>> first = Sequential(TanhDense(16, 8, seed=0), Tanh(), TanhDense(8, 2, seed=1))
    >>> [layer.name for layer in to_bitwise(first).layers]
    ['BinaryDense', 'Sign', 'BinaryDense']
    """
    quantizer = SteSign(float("inf")) if activation is None else activation

    def convert(layer: TrainingLayer) -> TrainingLayer:
        if isinstance(layer, Tanh):
            return Sign(quantizer=copy.deepcopy(quantizer))
        if not isinstance(layer, TanhDense):
            return copy.deepcopy(layer)
        outputs, inputs = layer.weight.shape
        bias = layer.bias is not None
        made: LatentProduct
        if zeros is None:
            made = BinaryDense(inputs, outputs, bias=bias, lr_scale=1.0)
        else:
            weights = ShareTernary(zeros)
            made = QuantizedDense(inputs, outputs, weights, bias=bias, clip_value=1.0)
        return _with_start(made, layer.values(), layer.bias_value)

    return _converted("to_bitwise", model, convert)


def to_ternary(
    model: Sequential,
    quantizer: WeightQuantizer | None = None,
    *,
    activation: Any = None,
    keep: tuple[int, ...] = (),
) -> Sequential:
    """Make the second stage of a network with weights of few levels from a float one.

    Parameters
    ----------
    model : Sequential
        Trained, with Dense and Conv2D layers; it stays as it is.
    quantizer : quantizer of weights, optional
        By default `LeastSquaresTernary`, with the step that suits the weights of each layer.
    activation : quantizer of signs, optional
        Of the Sign layers that replace Tanh; by default the derivative of tanh is their
        pseudo-gradient. ReLU stays.
    keep : tuple of int
        Places of layers of `model` that stay as they are.

    Returns
    -------
    Sequential
        To be trained again, and frozen. Dense has become QuantizedDense, and Conv2D has become
        QuantizedConv2D; trained weights and bias are their latent weights and bias. Other layers
        are copied.

    Notes
    -----
    The second training quantizes weights and signals in the forward pass, uses the quantized ones
    in the backward pass too, and updates the real weights.

    References
    ----------
    Hwang and Sung, "Fixed-point feedforward deep neural network design using weights +1, 0, and
    -1", 2014.

    Examples
    --------
    >>> from bitops.layers import Dense, Tanh
    >>> first = Sequential(Dense(16, 8, seed=0), Tanh(), Dense(8, 2, seed=1))
    >>> [layer.name for layer in to_ternary(first).layers]
    ['QuantizedDense', 'Sign', 'QuantizedDense']
    """
    signs = AnnealedSign(1.0, 1.0) if activation is None else activation
    _check_model("to_ternary", model)
    count = len(model.layers)
    places = [check_integer("to_ternary", "keep", place, -count, count - 1) for place in keep]
    kept = {id(model.layers[place]) for place in places}

    def convert(layer: TrainingLayer) -> TrainingLayer:
        if id(layer) in kept:
            return copy.deepcopy(layer)
        if isinstance(layer, Tanh):
            return Sign(quantizer=copy.deepcopy(signs))
        if not isinstance(layer, Dense | Conv2D):
            return copy.deepcopy(layer)
        bias = layer.bias is not None
        weights = quantizer
        if weights is None:
            weights = LeastSquaresTernary(LeastSquaresTernary().step(layer.weight.value))
        made: LatentProduct
        if isinstance(layer, Dense):
            outputs, inputs = layer.weight.shape
            made = QuantizedDense(inputs, outputs, weights, bias=bias)
        else:
            made = QuantizedConv2D(
                layer.in_features,
                layer.out_features,
                layer.operation.windows.kernel_size,
                weights,
                bias=bias,
                **layer.operation.options,
            )
        return _with_start(made, layer.weight.value, layer.bias_value)

    return _converted("to_ternary", model, convert)


def _with_start(layer: LatentProduct, weight, bias) -> LatentProduct:
    """Return a layer that starts from given weights."""
    layer.weight.assign(weight)
    if layer.bias is not None:
        layer.bias.assign(bias)
    return layer


def _check_model(where: str, model: Any) -> None:
    if not isinstance(model, Sequential):
        raise TypeError(f"[{where}] model must be a Sequential, got {model!r}")


def _converted(
    where: str, model: Sequential, convert: Callable[[TrainingLayer], TrainingLayer]
) -> Sequential:
    """Copy a chain, with every layer converted, those of inner chains too."""
    _check_model(where, model)

    def of(layer: TrainingLayer) -> TrainingLayer:
        if isinstance(layer, Sequential):
            return _converted(where, layer, convert)
        if isinstance(layer, Residual):
            return Residual(of(layer.body), None if layer.shortcut is None else of(layer.shortcut))
        return convert(layer)

    return Sequential([of(layer) for layer in model.layers], input_shape=model.input_shape)
