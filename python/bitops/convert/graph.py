"""A network as a graph of nodes, apart from the format of the file it came from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from .errors import ConversionError

# Stands for the size of the batch in shapes that a graph computes; no array is that long.
BATCH = -(2**40)


@dataclass(frozen=True)
class Node:
    """One operator: what it is called, what it takes, and what it gives.

    `domain` is "" for the operators of ONNX itself. `reader` is the function that reads the file.
    """

    op: str
    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Any] = field(default_factory=dict)
    domain: str = ""
    reader: str = "from_onnx"

    def __str__(self) -> str:
        op = f"{self.domain}.{self.op}" if self.domain else self.op
        return f"{op} node {self.name!r}" if self.name else f"{op} node giving {self.outputs[0]!r}"

    def refuse(self, reason: str) -> ConversionError:
        """Return the error that names this node."""
        return ConversionError(f"[{self.reader}] {self}: {reason}")


@dataclass(frozen=True)
class Graph:
    """Nodes in an order in which each follows those it depends on.

    `inputs` maps the names of what the network takes to shapes, with None for unknown sizes.
    `channels_last` are those of them that say so. `reader` is the function that reads the file.
    """

    nodes: tuple[Node, ...]
    inputs: Mapping[str, tuple[int | None, ...]]
    outputs: tuple[str, ...]
    constants: Mapping[str, np.ndarray]
    opset: int
    channels_last: frozenset[str] = frozenset()
    reader: str = "from_onnx"

    def refuse(self, reason: str) -> ConversionError:
        """Return the error for what no node alone is to blame."""
        return ConversionError(f"[{self.reader}] {reason}")

    def needed(self) -> list[Node]:
        """Return the nodes that the outputs depend on."""
        wanted, needed = set(self.outputs), []
        for node in reversed(self.nodes):
            if wanted & set(node.outputs):
                needed.append(node)
                wanted |= set(node.inputs)
        return needed[::-1]
