"""A node together with its inputs: what the operators of a format are given."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from .graph import Node
from .tensors import Tensor


@dataclass(frozen=True)
class Call:
    """A node together with its inputs: tensors, or constants."""

    node: Node
    tensors: Mapping[str, Tensor]
    constants: Mapping[str, np.ndarray]
    opset: int
    remarks: list[str]

    def tensor(self, i: int = 0) -> Tensor:
        """Return an input that must depend on the input of the network."""
        name = self._name(i)
        if name not in self.tensors:
            raise self.node.refuse(f"its input {i} must depend on the input of the network")
        return self.tensors[name]

    def constant(self, i: int) -> np.ndarray | None:
        """Return an input that must be constant; None if it is left out."""
        name = self._name(i)
        if not name:
            return None
        if name not in self.constants:
            raise self.node.refuse(f"its input {i} must be constant")
        return self.constants[name]

    def needed(self, i: int) -> np.ndarray:
        value = self.constant(i)
        if value is None:
            raise self.node.refuse(f"its input {i} is missing")
        return value

    def is_tensor(self, i: int) -> bool:
        return self._name(i) in self.tensors

    def constant_inputs(self) -> list[np.ndarray | None]:
        return [self.constant(i) for i in range(len(self.node.inputs))]

    def attribute(self, name: str, default: Any = None) -> Any:
        return self.node.attributes.get(name, default)

    def setting(self, name: str, i: int, default: Any = None) -> Any:
        """Return a setting that is an attribute in old opsets and an input in new ones."""
        if name in self.node.attributes:
            return self.node.attributes[name]
        value = self.constant(i)
        return default if value is None else value.tolist()

    def number(self, i: int) -> float:
        """Return a constant input that must be one number."""
        value = self.needed(i)
        if value.size != 1 or not np.isfinite(value).all():
            raise self.node.refuse(f"its input {i} must be one finite number")
        return float(value.reshape(-1)[0])

    def on(self, x: Tensor) -> Call:
        """Return the call with another tensor as its first input."""
        return replace(self, tensors={**self.tensors, self.node.inputs[0]: x})

    def refuse_used_outputs(self, used: set[str]) -> None:
        """Refuse a node whose further outputs, such as masks or indices, are used."""
        if used & {name for name in self.node.outputs[1:] if name}:
            raise self.node.refuse("only its first output is supported")

    def _name(self, i: int) -> str:
        return self.node.inputs[i] if i < len(self.node.inputs) else ""


Handler = Callable[[Call], Tensor]
