"""The picture of `bitops bench --plot`: rates over size, under the bounds of the machine."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from ..benchmark import GemmResult, port_bound, read_speed
from .figures import new_figure

__all__ = ["SIZES", "Bounds", "draw_rates", "measure_bounds", "picture_shapes"]

SIZES = (64, 128, 256, 512, 1024, 2048, 4096, 8192)
LARGEST_SQUARE = 4096  # the float32 product of the next one takes ten seconds


def picture_shapes() -> list[tuple[int, int, int]]:
    """List (m, n, k) of what is drawn: squares, and one row times square weights."""
    squares = [(size, size, size) for size in SIZES if size <= LARGEST_SQUARE]
    return squares + [(1, size, size) for size in SIZES]


@dataclass(frozen=True)
class Bounds:
    """What one thread of the machine allows, GMAC/s.

    Attributes
    ----------
    ports : float or None
        The bound that the processor's ports set; None where the ISA has no loop that measures it.
    reading : dict of int to float
        For one row and weights of a size, the bound that reading the weights once sets.
    """

    ports: float | None
    reading: dict[int, float] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """Return all figures, for JSON."""
        return asdict(self)


def measure_bounds(*, seconds: float) -> Bounds:
    """Measure the bounds; `seconds` is the time for each size."""
    # a byte holds eight weights, and each is multiplied once
    speeds = {size: read_speed(size * size // 8, seconds=seconds) for size in SIZES}
    return Bounds(port_bound(), {size: 8 * speed / 1e9 for size, speed in speeds.items()})


def draw_rates(results: list[GemmResult], bounds: Bounds, title: str) -> Any:
    """Draw GMAC/s over size: square products beside one row.

    Parameters
    ----------
    results : list of GemmResult
        Of `picture_shapes`, on one thread.
    bounds : Bounds
    title : str
        Names the machine.

    Returns
    -------
    Figure
    """
    figure = new_figure("bench")
    figure.set_size_inches(10, 5.2)
    left, right = figure.subplots(1, 2, sharey=True)
    _lines(left, [r for r in results if r.m == r.n])
    _lines(right, [r for r in results if r.m != r.n])
    if bounds.ports is not None:
        for axes in (left, right):
            axes.axhline(bounds.ports, color="black", linestyle="--", label="bound of the ports")
    sizes, speeds = zip(*bounds.reading.items(), strict=True)
    right.plot(sizes, speeds, color="tab:red", linestyle=":", label="bound of reading the weights")
    left.set(title="size x size x size", ylabel="GMAC/s (1e9 multiply-accumulates a second)")
    right.set(title="1 x size x size")
    for axes in (left, right):
        axes.set(xlabel="size")
        axes.set_xscale("log", base=2)
        axes.set_yscale("log")
        axes.xaxis.set_major_formatter("{x:.0f}")
        axes.yaxis.set_major_formatter("{x:g}")
        axes.grid(alpha=0.3)
    handles, labels = right.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3)
    figure.suptitle(title.replace("$", r"\$"), fontsize="medium")
    return figure


def _lines(axes: Any, results: list[GemmResult]) -> None:
    """Draw a line for packed operands, one for packing in the call, and one for float32 BLAS."""
    sizes = [r.n for r in results]
    for name, label, color, marker in (
        ("packed", "bitops, packed", "tab:blue", "o"),
        ("with_packing", "bitops, packing a in the call", "tab:cyan", "."),
        ("blas", "float32 BLAS", "tab:gray", "s"),
    ):
        rates = [r.gmacs(getattr(r, name)) for r in results]
        axes.plot(sizes, rates, color=color, marker=marker, markersize=4, label=label)
