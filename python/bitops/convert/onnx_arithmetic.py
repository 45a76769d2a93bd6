"""The operators of ONNX that work on each number by itself."""

from __future__ import annotations

import math

import numpy as np

from .calls import Call, Handler
from .onnx_quant import rounded_within
from .onnx_scales import MAGNITUDE, times_scales
from .steps import Levels, Map
from .tensors import Tensor, add, multiply


def _add(call: Call) -> Tensor:
    if call.is_tensor(0) and call.is_tensor(1):
        return add(call.node, call.tensor(0), call.tensor(1))
    x, value = _with_constant(call)
    return x.affine(call.node, 1.0, x.per_feature(call.node, value))


def _subtract(call: Call) -> Tensor:
    node = call.node
    if call.is_tensor(0) and call.is_tensor(1):
        return add(node, call.tensor(0), call.tensor(1).affine(node, -1.0, 0.0))
    x, value = _with_constant(call)
    term = x.per_feature(node, value)
    return x.affine(node, 1.0, -term) if call.is_tensor(0) else x.affine(node, -1.0, term)


def _multiply(call: Call) -> Tensor:
    if call.is_tensor(0) and call.is_tensor(1):
        return times_scales(call.node, call.tensor(0), call.tensor(1))
    x, value = _with_constant(call)
    return x.affine(call.node, x.per_feature(call.node, value), 0.0)


def _divide(call: Call) -> Tensor:
    x = call.tensor(0)
    value = x.per_feature(call.node, call.needed(1))
    if (value == 0).any():
        raise call.node.refuse("it divides by zero")
    return x.affine(call.node, 1 / value, 0.0)


def _with_constant(call: Call) -> tuple[Tensor, np.ndarray]:
    first = call.is_tensor(0)
    x, value = call.tensor(0 if first else 1), call.needed(1 if first else 0)
    return x, value


def _negate(call: Call) -> Tensor:
    return call.tensor().affine(call.node, -1.0, 0.0)


def _same(call: Call) -> Tensor:
    return call.tensor()


def _dropout(call: Call) -> Tensor:
    training = call.constant(2) if len(call.node.inputs) > 2 else None
    if training is not None and training.any():
        raise call.node.refuse("it is in training mode; export the network for inference")
    return call.tensor()


def _cast(call: Call) -> Tensor:
    x, kind = call.tensor(), call.attribute("to")
    # values of Levels are few, and integers in all that exporters make; others would be cut off
    if kind in (1, 10, 11, 16) or isinstance(x.trace.step, Levels):
        return x
    raise call.node.refuse("a cast to integers or bool is supported only behind a comparison")


def _batch_norm(call: Call) -> Tensor:
    node, x = call.node, call.tensor()
    if call.attribute("training_mode", 0):
        raise node.refuse("it is in training mode; export the network for inference")
    if len(x.axes) < 2 or x.axes[1] != "c":
        raise node.refuse(f"its second axis must be that of the channels, got axes {x.axes!r}")
    gamma, beta, mean, variance = (
        x.arranged(np.asarray(call.needed(i), np.float64).ravel()) for i in range(1, 5)
    )
    if {len(v) for v in (gamma, beta, mean, variance)} != {x.features(node)}:
        raise node.refuse(f"its parameters must have {x.features(node)} elements each")
    spread = variance + call.attribute("epsilon", 1e-5)
    if not (spread > 0).all():
        raise node.refuse("variance + epsilon must be positive")
    alpha = gamma / np.sqrt(spread)
    return x.affine(node, alpha, beta - mean * alpha)


# Activations


def _map(kind: str) -> Handler:
    def handler(call: Call) -> Tensor:
        return call.tensor().add(Map(str(call.node), kind))

    return handler


def _clip(call: Call) -> Tensor:
    low = call.setting("min", 1, -math.inf)
    high = call.setting("max", 2, math.inf)
    return _clipped(call, float(np.reshape(low, -1)[0]), float(np.reshape(high, -1)[0]))


def _clipped(call: Call, low: float, high: float) -> Tensor:
    if abs(low) > 3e38:  # exporters write the largest number for infinity
        low = -math.inf
    if abs(high) > 3e38:
        high = math.inf
    x = call.tensor(0 if call.is_tensor(0) else 1)
    if math.isinf(low) and math.isinf(high):
        return x
    if not low < high:
        raise call.node.refuse(f"its limits must rise, got {low} and {high}")
    rounded = rounded_within(call, x, low, high)
    if rounded is not None:
        return rounded
    return x.add(Map(str(call.node), "clip", (low, high)))


def _maximum(call: Call) -> Tensor:
    return _clipped(call, call.number(1 if call.is_tensor(0) else 0), math.inf)


def _minimum(call: Call) -> Tensor:
    return _clipped(call, -math.inf, call.number(1 if call.is_tensor(0) else 0))


def _hard_sigmoid(call: Call) -> Tensor:
    x = call.tensor()
    x = x.affine(call.node, call.attribute("alpha", 0.2), call.attribute("beta", 0.5))
    return x.add(Map(str(call.node), "clip", (0.0, 1.0)))


def _hard_swish(call: Call) -> Tensor:
    x = call.tensor()
    gate = x.affine(call.node, 1 / 6, 0.5).add(Map(str(call.node), "clip", (0.0, 1.0)))
    return multiply(call.node, gate, x)


def _prelu(call: Call) -> Tensor:
    x = call.tensor()
    return x.add(Map(str(call.node), "prelu", x.per_feature(call.node, call.needed(1))))


def _leaky_relu(call: Call) -> Tensor:
    x = call.tensor()
    slope = np.full(x.features(call.node), call.attribute("alpha", 0.01))
    return x.add(Map(str(call.node), "prelu", slope))


def _softmax(call: Call) -> Tensor:
    x = call.tensor()
    axis = call.attribute("axis", 1 if call.opset < 13 else -1) % len(x.axes)
    if x.axes[axis] != "c":
        raise call.node.refuse("its axis must be that of the features")
    return x.add(Map(str(call.node), "softmax"))


HANDLERS: dict[str, Handler] = {
    "Abs": _map(MAGNITUDE),
    "Add": _add,
    "BatchNormalization": _batch_norm,
    "Cast": _cast,
    "Clip": _clip,
    "Div": _divide,
    "Dropout": _dropout,
    "HardSigmoid": _hard_sigmoid,
    "HardSwish": _hard_swish,
    "Identity": _same,
    "LeakyRelu": _leaky_relu,
    "Max": _maximum,
    "Min": _minimum,
    "Mul": _multiply,
    "Neg": _negate,
    "PRelu": _prelu,
    "Relu": _map("relu"),
    "Sigmoid": _map("sigmoid"),
    "Softmax": _softmax,
    "Sub": _subtract,
    "Tanh": _map("tanh"),
}
