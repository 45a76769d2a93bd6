"""What was computed on the way to a tensor, and where two ways part."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import zip_longest
from typing import Generic, TypeVar

Part = TypeVar("Part")


@dataclass(frozen=True, eq=False)
class Trace(Generic[Part]):
    """A step, or a layer, and what came before it; the input of the network has neither."""

    step: Part | None = None
    before: Trace[Part] | None = None

    def line(self) -> Iterator[Trace[Part]]:
        """Yield this trace and those before it, the newest first."""
        trace: Trace[Part] | None = self
        while trace is not None:
            yield trace
            trace = trace.before

    def steps_from(self, start: Trace[Part]) -> tuple[Part, ...]:
        """Return the steps between `start` and this trace, the oldest first."""
        steps = []
        for trace in self.line():
            if trace is start:
                break
            assert trace.step is not None
            steps.append(trace.step)
        return tuple(reversed(steps))


def fork(
    one: Trace[Part], two: Trace[Part]
) -> tuple[Trace[Part], tuple[Part, ...], tuple[Part, ...]] | None:
    """Return where two traces part, and the steps to each from there; None if they never met."""
    past: tuple[set[int], set[int]] = set(), set()
    # both at once, so that a long way before the branches takes no time
    for pair in zip_longest(one.line(), two.line()):
        for trace, own in zip(pair, past, strict=True):
            own.add(id(trace))
        for trace, others in zip(pair, reversed(past), strict=True):
            if trace is not None and id(trace) in others:
                return trace, one.steps_from(trace), two.steps_from(trace)
    return None
