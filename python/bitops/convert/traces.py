"""What was computed on the way to a tensor, and where two ways part."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
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
    past = {id(trace) for trace in one.line()}
    start = next((trace for trace in two.line() if id(trace) in past), None)
    return None if start is None else (start, one.steps_from(start), two.steps_from(start))
