"""Draw the pictures of how-it-works.md: `python docs/drawings/draw.py` writes them beside itself.

Each has a panel of its own behind it, light or dark as the reader's system is, and is narrow, so
that its text can be read on a phone.
"""

from __future__ import annotations

from html import escape
from pathlib import Path

WIDTH = 480
CELL = 26

STYLE = """\
text { font: 14px sans-serif; fill: #1f2933 }
.code { font-family: monospace }
.note { font-size: 12px; fill: #52606d }
.panel { fill: #ffffff; stroke: #cbd2d9 }
.one { fill: #2b6cb0 } .on { fill: #ffffff }
.zero { fill: #e4e7eb } .pad { fill: none; stroke-dasharray: 3 2 }
.cell { stroke: #7b8794 }
.hit { fill: #b7560f }
.line { stroke: #52606d; fill: none; stroke-width: 1.5 }
.curve { stroke: #2b6cb0; fill: none; stroke-width: 2.5 }
.box { fill: #e4e7eb; stroke: #7b8794 }
@media (prefers-color-scheme: dark) {
text { fill: #e4e7eb }
.note { fill: #bcc6d0 }
.panel { fill: #1f2933; stroke: #3e4c59 }
.one { fill: #63b3ed } .on { fill: #1f2933 }
.hit { fill: #f6ad55 }
.zero { fill: #3e4c59 }
.line { stroke: #9aa5b1 } .curve { stroke: #63b3ed }
.box { fill: #323f4b }
}"""


class Drawing:
    """Shapes on a panel, as the text of an SVG file."""

    def __init__(self, title: str, height: int):
        self.title, self.height = title, height
        self.parts: list[str] = []

    def text(self, x: float, y: float, words: str, kind: str = "", anchor: str = "start") -> None:
        attributes = f'x="{x:g}" y="{y:g}" text-anchor="{anchor}"'
        attributes += f' class="{kind}"' if kind else ""
        self.parts.append(f"<text {attributes}>{escape(words)}</text>")

    def rect(self, x: float, y: float, width: float, height: float, kind: str) -> None:
        self.parts.append(
            f'<rect x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" class="{kind}"/>'
        )

    def path(self, points: list[tuple[float, float]], kind: str, arrow: bool = False) -> None:
        steps = " L ".join(f"{x:g} {y:g}" for x, y in points)
        end = ' marker-end="url(#arrow)"' if arrow else ""
        self.parts.append(f'<path d="M {steps}" class="{kind}"{end}/>')

    def box(self, x: float, y: float, width: float, words: str, note: str = "") -> None:
        self.rect(x, y, width, 44 if note else 30, "box")
        self.text(x + width / 2, y + 20, words, "code", "middle")
        if note:
            self.text(x + width / 2, y + 37, note, "note", "middle")

    def cells(self, x: float, y: float, values: list, marked: tuple[int, ...] = ()) -> None:
        """A row of cells: 1 and 0 are filled as bits are, None is padding, others are written."""
        for i, value in enumerate(values):
            kind = {1: "one", 0: "zero", None: "pad"}.get(value, "pad")
            kind = "hit" if i in marked else kind
            self.rect(x + i * CELL, y, CELL, CELL, f"{kind} cell")
            on = " on" if kind in ("one", "hit") else ""
            shown = "0" if value is None else str(value)
            self.text(x + (i + 0.5) * CELL, y + 18, shown, f"code{on}", "middle")

    def svg(self) -> str:
        arrow = (
            '<marker id="arrow" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" '
            'markerHeight="7" orient="auto"><path d="M 0 0 L 8 4 L 0 8" class="line"/></marker>'
        )
        size = f'viewBox="0 0 {WIDTH} {self.height}" width="{WIDTH}" height="{self.height}"'
        body = "\n".join(self.parts)
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img">\n'
            f"<title>{escape(self.title)}</title>\n<style>\n{STYLE}\n</style>\n"
            f"<defs>{arrow}</defs>\n"
            f'<rect width="{WIDTH}" height="{self.height}" class="panel"/>\n{body}\n</svg>\n'
        )


def packing() -> Drawing:
    drawing = Drawing("Two rows of signs become bits; XOR and a count give their product", 318)
    left = 150
    a, w = [1, 0, 1, 1, 0, 1, 0, 0], [1, 1, 1, 0, 0, 1, 1, 0]
    differ = [x ^ y for x, y in zip(a, w, strict=True)]
    numbers = [".5", "-2", "0", "3", "-1", "7", "-4", "-9"]
    drawing.text(20, 32, "numbers")
    for i, number in enumerate(numbers):
        drawing.text(left + (i + 0.5) * CELL, 32, number, "code", "middle")
    drawing.path([(left + 4 * CELL, 40), (left + 4 * CELL, 56)], "line", arrow=True)
    drawing.text(left + 4 * CELL + 12, 54, "x >= 0", "code note")
    for row, (name, bits, marked) in enumerate(
        (
            ("a, bits", a, ()),
            ("w, bits", w, ()),
            ("a ^ w", differ, tuple(i for i, bit in enumerate(differ) if bit)),
        )
    ):
        y = 62 + row * 40
        drawing.text(20, y + 18, name, "code")
        drawing.cells(left, y, [*bits, None, None], marked)
    drawing.text(left, 190, "bit 0", "note")
    drawing.text(WIDTH - 20, 190, "padding, equal in all rows", "note", "end")
    count = sum(differ)
    drawing.text(20, 222, f"d = popcount(a ^ w) = {count}", "code")
    drawing.text(20, 246, f"product = k - 2 d = 8 - 2 * {count} = {8 - 2 * count}", "code")
    signs = [(2 * x - 1) * (2 * y - 1) for x, y in zip(a, w, strict=True)]
    drawing.text(20, 280, "the same with +1 and -1:", "note")
    drawing.text(20, 300, " ".join(f"{s:+d}" for s in signs) + f" = {sum(signs)}", "code note")
    return drawing


def carry_save() -> Drawing:
    drawing = Drawing("Two words of mismatches and the ones kept so far go through an adder", 352)
    drawing.box(20, 20, 130, "a1 ^ w1", "mismatches")
    drawing.box(175, 20, 130, "a2 ^ w2", "mismatches")
    drawing.box(330, 20, 130, "ones", "kept so far")
    for x, end in ((85, 165), (240, 240), (395, 315)):
        drawing.path([(x, 64), (end, 106)], "line", arrow=True)
    drawing.box(110, 108, 260, "adder, for each bit", "how many of the three are 1: 0 to 3")
    drawing.path([(170, 152), (105, 194)], "line", arrow=True)
    drawing.path([(310, 152), (375, 194)], "line", arrow=True)
    drawing.box(20, 196, 190, "carry", "1 where two or three are")
    drawing.box(270, 196, 190, "ones", "1 where one or three are")
    drawing.path([(115, 240), (115, 270)], "line", arrow=True)
    drawing.box(20, 272, 190, "count += popcnt", "of the carry: half as often")
    drawing.path([(365, 240), (365, 270)], "line", arrow=True)
    drawing.text(365, 290, "to the next two words", "note", "middle")
    drawing.text(20, 340, "at the end: d = 2 * count + popcnt(ones)", "code")
    return drawing


def padding() -> Drawing:
    drawing = Drawing("A 3 x 3 filter at the corner of an image: five of its taps lie outside", 300)
    x, y, size = 40, 44, 30
    for row in range(5):
        for column in range(5):
            outside = row == 0 or column == 0
            kind = "pad cell" if outside else "zero cell"
            drawing.rect(x + column * size, y + row * size, size, size, kind)
            if row < 3 and column < 3:
                words = "-1" if outside else f"x{2 * (row - 1) + column - 1}"
                place = x + (column + 0.5) * size, y + row * size + 20
                drawing.text(*place, words, "code", "middle")
    drawing.path(
        [(x, y), (x + 3 * size, y), (x + 3 * size, y + 3 * size), (x, y + 3 * size), (x, y)],
        "curve",
    )
    drawing.text(x, 30, "the filter, over the corner")
    drawing.text(x, y + 5 * size + 20, "dashed: outside, no bit", "note")
    lines = (
        "outside is gathered as",
        "bits 0, that is -1:",
        "",
        "  sum of w x inside",
        "- sum of w outside",
        "",
        "the store adds the sum",
        "of w outside again, so",
        "that it counts as 0",
    )
    for i, line in enumerate(lines):
        if line:
            drawing.text(235, 56 + i * 20, line, "code")
    drawing.text(20, 262, "Few pairs of borders occur, so these sums are a small table,", "note")
    drawing.text(20, 280, "made once for a filter. Inside the image nothing is added.", "note")
    return drawing


def folding() -> Drawing:
    drawing = Drawing("BatchNorm and sign become a threshold; a pool becomes OR or AND", 372)
    for left, falls in ((30, False), (260, True)):
        drawing.text(left, 26, "gamma < 0" if falls else "gamma > 0", "code")
        drawing.path([(left, 100), (left + 190, 100)], "line", arrow=True)
        drawing.path([(left, 160), (left, 36)], "line", arrow=True)
        drawing.text(left + 188, 118, "z", "code note", "end")
        ends = [(left + 5, 50), (left + 175, 150)]
        if not falls:
            ends = [(left + 5, 150), (left + 175, 50)]
        drawing.path(ends, "curve")
        drawing.text(left + 90, 52, "BatchNorm(z)", "note", "middle")
        drawing.path([(left + 90, 92), (left + 90, 176)], "line")
        drawing.text(left + 96, 150 if falls else 134, "threshold", "note")
        drawing.cells(left + 2, 178, [int((i > 2) != falls) for i in range(7)])
        words = "bit = not (z > t): flip" if falls else "bit = z > t"
        drawing.text(left, 226, words, "code")
    drawing.text(20, 262, "A pool of the largest, before the sign, in training:")
    drawing.text(20, 284, "sign(BatchNorm(max(z1, z2, z3, z4)))", "code")
    drawing.text(20, 312, "frozen, on bits of 64 channels at once:")
    drawing.text(20, 334, "b1 | b2 | b3 | b4", "code")
    drawing.text(20, 356, "for a channel that falls, BatchNorm behind the pool: &", "note")
    return drawing


RATES = (
    ("float32, FMA", 32),
    ("int8, VNNI", 128),
    ("bits: xor, popcnt, add", 341),
    ("bits: carry-save", 410),
    ("int8, AMX", 1024),
)


def rates() -> Drawing:
    drawing = Drawing("Multiply-accumulates a cycle that one core can do at most", 290)
    drawing.text(20, 30, "multiply-accumulates a cycle, one core, at most")
    for i, (name, rate) in enumerate(RATES):
        y = 50 + i * 44
        drawing.text(20, y + 12, name)
        drawing.rect(20, y + 18, 390 * rate / 1024, 16, "hit" if "bits" in name else "one")
        drawing.text(26 + 390 * rate / 1024, y + 31, str(rate), "code")
    drawing.text(20, 280, "AVX-512 with two ports; AMX of Sapphire Rapids and newer", "note")
    return drawing


def thumbnail() -> Drawing:
    """Stands for examples that draw nothing."""
    drawing = Drawing("Bits", 320)
    for row in range(10):
        drawing.cells(19, 30 + row * CELL, [(row * i + row + i // 3) % 2 for i in range(17)])
    return drawing


DRAWINGS = (packing, carry_save, padding, folding, rates, thumbnail)


def files() -> dict[str, str]:
    """The text of each file, by its name."""
    return {f"{draw.__name__.replace('_', '-')}.svg": draw().svg() for draw in DRAWINGS}


if __name__ == "__main__":
    for name, text in files().items():
        Path(__file__).with_name(name).write_text(text, encoding="utf-8", newline="\n")
