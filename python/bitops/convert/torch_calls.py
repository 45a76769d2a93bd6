"""Calls of functions of PyTorch, and what applies operators of ONNX on their behalf."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from .calls import Call
from .errors import ConversionError
from .graph import Node
from .onnx_trace import HANDLERS as OPERATORS
from .tensors import Tensor

_OPSET = 21


@dataclass(frozen=True)
class FunctionNode(Node):
    """A call of a function of PyTorch; `name` is that of the module whose forward calls it."""

    function: str = ""
    module: str = ""

    def __str__(self) -> str:
        if not self.name:
            return f"{self.function} in {self.module}"
        return f"{self.function} in {self.module} {self.name!r}"

    def refuse(self, reason: str) -> ConversionError:
        return ConversionError(f"[from_torch] {self}: {reason}")


@dataclass(frozen=True)
class Operation:
    """Applies operators of ONNX on behalf of a call."""

    node: FunctionNode
    remarks: list[str]

    def __call__(self, op: str, *inputs: Any, **attributes: Any) -> Tensor:
        """Apply an operator to Tensors, arrays and numbers; None leaves an input out."""
        names = ["" if value is None else f"x{i}" for i, value in enumerate(inputs)]
        given = {name: value for name, value in zip(names, inputs, strict=True) if name}
        tensors = {name: value for name, value in given.items() if isinstance(value, Tensor)}
        constants = {
            name: np.asarray(value) for name, value in given.items() if name not in tensors
        }
        node = replace(self.node, op=op, inputs=tuple(names), attributes=attributes)
        try:
            return OPERATORS[op](Call(node, tensors, constants, _OPSET, self.remarks))
        except IndexError:
            raise node.refuse("it names an axis that its input does not have") from None

    def refuse(self, reason: str) -> ConversionError:
        return self.node.refuse(reason)

    def tensor(self, x: Any) -> Tensor:
        """Return an argument that must depend on the input of the network."""
        if not isinstance(x, Tensor):
            raise self.refuse("its first operand must depend on the input of the network")
        return x

    def weights(self, w: Any) -> np.ndarray:
        """Return weights without the rounding of sums that cancel, if they are +- a scale.

        Such as sign(w) * s - clip(w) + clip(w), which keeps a pseudo-gradient for training.
        """
        if isinstance(w, Tensor):
            raise self.refuse("its weights must not depend on the input of the network")
        w = np.asarray(w)
        magnitudes = np.abs(w.reshape(len(w), -1).astype(np.float64)) if w.size else w
        if w.ndim < 2 or magnitudes.shape[1] < 2:
            return w
        scale = np.median(magnitudes, axis=1, keepdims=True)
        error = np.abs(magnitudes - scale)
        # two roundings of numbers up to 1
        if not error.any() or (error > np.minimum(2.4e-7, 1e-3 * scale)).any():
            return w
        self.remarks.append(f"{self.node}: its weights are taken to be +- a scale a filter")
        shape = (len(w),) + (1,) * (w.ndim - 1)
        return np.where(w >= 0, 1.0, -1.0) * scale.reshape(shape)
