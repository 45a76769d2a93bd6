"""The picture of `bitops show --svg`: layers from top to bottom, branches beside each other.

A part of the picture is laid out around an axis, on which data comes in at its top and leaves at
its bottom. It knows how far it reaches to the left and right of the axis, and how high it is.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape

from ..layers import Layer, Packed, PackedConcat, PackedMultiply, PackedResidual
from ..layers.branches import PackedBranches
from ..layers.summary import Row, Summary

__all__ = ["draw_network", "short_count"]

WIDTH, HEIGHT = 330, 46  # of a layer
JOIN = 24  # height of the place where branches meet
GAP = 22  # between what follows each other
APART = 28  # between what is side by side
MARGIN, HEAD = 24, 112

# Colors of light and of dark pages: fill and edge.
STYLE = """
:root { color-scheme: light dark }
.page { fill: #ffffff } text { fill: #1f2328; font: 12px system-ui, sans-serif }
.name { font-weight: 600 } .title { font-size: 16px; font-weight: 600 } .more { fill: #59636e }
.end { text-anchor: end } .mid { text-anchor: middle }
.line { fill: none; stroke: #59636e; stroke-width: 1.5 } .tip { fill: #59636e }
.box { stroke-width: 1.2 }
.bits { fill: #dcf3e6; stroke: #1a7f4b } .mixed { fill: #ddeafc; stroke: #2a62b8 }
.float { fill: #fde8d3; stroke: #b35309 } .other { fill: #f2f4f6; stroke: #8c959f }
@media (prefers-color-scheme: dark) {
.page { fill: #0d1117 } text { fill: #e6edf3 } .more { fill: #9198a1 }
.line { stroke: #9198a1 } .tip { fill: #9198a1 }
.bits { fill: #10321f; stroke: #3fb97a } .mixed { fill: #12294a; stroke: #6ea8fe }
.float { fill: #3d2410; stroke: #f0944d } .other { fill: #1b2026; stroke: #6e7681 }
}
"""

LEGEND = (
    ("bits", "1-bit products"),
    ("mixed", "1-bit weights, real input"),
    ("float", "float"),
    ("other", "no products"),
)


def draw_network(packed: Packed, title: str) -> str:
    """Return the picture of a model as SVG; its input shape makes sizes and work known."""
    summary = packed.summary()
    chain = _chain(packed.layers, iter(summary.rows))
    left = max(chain.left, WIDTH / 2)
    width = max(left + chain.right + 2 * MARGIN, 2 * WIDTH)
    axis = width / 2 if chain.left == chain.right else MARGIN + left
    shape = packed.input_shape
    sizes = "input" if shape is None else f"input {'x'.join(map(str, shape))}"
    top = HEAD + 18
    body = [
        *_head(summary, title),
        _text(axis, HEAD + 4, sizes, "mid more"),
        *_line([(axis, HEAD + 10), (axis, top + GAP)], tip=True),
        *chain.draw(axis, top + GAP),
    ]
    size = f'width="{width:g}" height="{top + GAP + chain.height + MARGIN:g}"'
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img">',
            f"<title>{escape(title)}</title>",
            f"<style>{STYLE}</style>",
            '<rect class="page" width="100%" height="100%"/>',
            *body,
            "</svg>\n",
        ]
    )


def _head(summary: Summary, title: str) -> Iterator[str]:
    """Yield the title, the sums, and what the colors mean."""
    total = summary.total
    yield _text(MARGIN, 32, title, "title")
    words = f"{total.parameters:,} parameters in {short_count(total.packed_bytes, 'B')}"
    if total.binary_macs is not None and total.float_macs is not None:
        macs = total.binary_macs + total.float_macs
        share = f", {total.binary_macs / macs:.1%} of them of 1 bit" if macs else ""
        words += f"; {short_count(macs)} multiply-adds an example{share}"
    yield _text(MARGIN, 54, words, "more")
    x = float(MARGIN)
    for kind, meaning in LEGEND:
        yield f'<rect class="box {kind}" x="{x:g}" y="68" width="14" height="14" rx="3"/>'
        yield _text(x + 20, 79, meaning)
        x += 40 + 6.3 * len(meaning)


@dataclass(frozen=True)
class _Part(ABC):
    """What is laid out around an axis."""

    left: float
    right: float
    height: float

    @abstractmethod
    def draw(self, axis: float, top: float) -> Iterator[str]:
        """Return the elements of the part, with its top at a height of the picture."""


@dataclass(frozen=True)
class _Box(_Part):
    layer: Layer
    row: Row

    def draw(self, axis: float, top: float) -> Iterator[str]:
        row, x = self.row, axis - WIDTH / 2
        frame = f'x="{x:g}" y="{top:g}" width="{WIDTH}" height="{HEIGHT}" rx="6"'
        yield f"<g><title>{escape(repr(self.layer))}</title>"
        yield f'<rect class="box {_kind(row)}" {frame}/>'
        yield _text(x + 12, top + 19, _name(self.layer), "name")
        yield _text(x + 12, top + 36, row.output, "more")
        if row.packed_bytes:
            yield _text(x + WIDTH - 12, top + 19, short_count(row.packed_bytes, "B"), "end")
        yield _text(x + WIDTH - 12, top + 36, _work(row), "end more")
        yield "</g>"


@dataclass(frozen=True)
class _Chain(_Part):
    """Parts one after the other; none is a line, the identity."""

    parts: Sequence[_Part]

    def draw(self, axis: float, top: float) -> Iterator[str]:
        if not self.parts:
            yield from _line([(axis, top), (axis, top + self.height)], tip=False)
        for i, part in enumerate(self.parts):
            if i:
                tip = not isinstance(part, _Block)  # whose own lines begin there
                yield from _line([(axis, top), (axis, top + GAP)], tip=tip)
                top += GAP
            yield from part.draw(axis, top)
            top += part.height


@dataclass(frozen=True)
class _Block(_Part):
    """Branches side by side, the first on the axis, and the place where they meet."""

    row: Row
    words: str
    branches: Sequence[_Chain]

    def draw(self, axis: float, top: float) -> Iterator[str]:
        end = top + self.height - JOIN
        middle, half = end + JOIN / 2, _join_width(self.words) / 2
        at = axis
        for i, branch in enumerate(self.branches):
            inner = top + GAP
            if i:
                at += self.branches[i - 1].right + APART + branch.left
                yield from _line([(axis, top), (at, top), (at, inner)], tip=bool(branch.parts))
            else:
                yield from _line([(axis, top), (axis, inner)], tip=bool(branch.parts))
            yield from branch.draw(at, inner)
            last = inner + branch.height
            if i:
                yield from _line([(at, last), (at, middle), (axis + half, middle)], tip=True)
            else:
                yield from _line([(axis, last), (axis, end)], tip=True)
        frame = f'x="{axis - half:g}" y="{end:g}" width="{2 * half:g}" height="{JOIN}" rx="12"'
        yield f'<rect class="box other" {frame}/>'
        yield _text(axis, end + 16, self.words, "mid name")
        yield _text(axis - half - 8, end + 16, self.row.output, "end more")


def _chain(layers: Sequence[Layer], rows: Iterator[Row]) -> _Chain:
    """Lay out layers, whose lines of the summary come next."""
    parts = [_part(layer, rows) for layer in layers]
    if not parts:
        return _Chain(20, 20, HEIGHT, parts)
    return _Chain(
        max(part.left for part in parts),
        max(part.right for part in parts),
        sum(part.height for part in parts) + GAP * (len(parts) - 1),
        parts,
    )


def _part(layer: Layer, rows: Iterator[Row]) -> _Part:
    branches = [_chain(branch, rows) for branch in layer.branches().values()]
    row = next(rows)
    if not branches:
        return _Box(WIDTH / 2, WIDTH / 2, HEIGHT, layer, row)
    if isinstance(layer, PackedBranches) and layer.shortcut is None:
        branches.append(_chain((), rows))
    between = sum(branch.left + branch.right + APART for branch in branches[1:])
    return _Block(
        branches[0].left,
        branches[0].right + between,
        max(branch.height for branch in branches) + 2 * GAP + JOIN,
        row,
        _join(layer),
        branches,
    )


_JOINS: dict[type[Layer], str] = {
    PackedConcat: "concat",
    PackedMultiply: "multiply",
    PackedResidual: "add",
}


def _join(layer: Layer) -> str:
    """Say how the branches of a layer meet."""
    return _JOINS.get(type(layer), layer.name)


def _join_width(words: str) -> float:
    return 24 + 7.2 * len(words)


def _kind(row: Row) -> str:
    """Return the class of a layer's color."""
    if row.binary_macs or row.binary_macs is None:
        return "bits"
    if row.float_macs == 0:
        return "other"
    return "mixed" if row.packed_bytes < row.float_bytes else "float"


def _name(layer: Layer) -> str:
    """Name a layer, with its window, stride and groups if it has them."""
    words = [layer.name.removeprefix("Packed")]
    operation = getattr(layer, "operation", layer)  # that of a product
    windows = getattr(operation, "windows", None)
    if windows is not None:
        words.append("x".join(map(str, windows.kernel_size)))
        if max(windows.stride) > 1:
            words.append(f"/ {'x'.join(map(str, windows.stride))}")
    groups = getattr(operation, "groups", 1)
    return " ".join(words) + (f", {groups} groups" if groups > 1 else "")


def _work(row: Row) -> str:
    """Say how many multiply-adds of which kind a layer makes."""
    parts = [(row.binary_macs, "1-bit"), (row.float_macs, "float")]
    words = [f"{short_count(macs)} {kind}" for macs, kind in parts if macs != 0]
    return f"{' + '.join(words)} MACs" if words else ""


def short_count(count: int | None, unit: str = "") -> str:
    """Write a count in three digits, with the prefix of its unit."""
    if count is None:
        return "?"
    for prefix, factor in (("G", 10**9), ("M", 10**6), ("k", 10**3)):
        if count >= 0.9995 * factor:
            decimals = sum(count < limit * factor for limit in (99.95, 9.995))
            return f"{count / factor:.{decimals}f} {prefix}{unit}"
    return f"{count} {unit}".rstrip()


def _text(x: float, y: float, words: str, kind: str = "") -> str:
    chosen = f' class="{kind}"' if kind else ""
    return f'<text x="{x:g}" y="{y:g}"{chosen}>{escape(words)}</text>'


def _line(points: Sequence[tuple[float, float]], *, tip: bool) -> Iterator[str]:
    """Yield a line through points, with an arrow at its end if it has a tip."""
    path = " ".join(f"{x:g},{y:g}" for x, y in points)
    yield f'<polyline class="line" points="{path}"/>'
    if not tip:
        return
    (x0, _), (x, y) = points[-2:]
    if x0 == x:
        corners = (x, y), (x - 4, y - 7), (x + 4, y - 7)
    else:
        side = 7 if x0 > x else -7
        corners = (x, y), (x + side, y - 4), (x + side, y + 4)
    yield f'<polygon class="tip" points="{" ".join(f"{a:g},{b:g}" for a, b in corners)}"/>'
