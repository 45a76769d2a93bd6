"""Parts of a self-contained page of HTML: sections, tables, charts as SVG, and images as PNG."""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Iterable, Sequence
from html import escape
from string import Template
from typing import Any

import numpy as np

from ..files.text import printable

__all__ = [
    "chart",
    "embed",
    "facts",
    "figure",
    "grid",
    "image",
    "make_page",
    "note",
    "section",
    "table",
    "words",
]

STYLE = """
:root { color-scheme: light dark; --page: #ffffff; --text: #1f2328; --more: #59636e;
  --line: #d1d9e0; --card: #f6f8fa; --wrong: 207 34 46; --right: 26 127 75 }
@media (prefers-color-scheme: dark) { :root { --page: #0d1117; --text: #e6edf3; --more: #9198a1;
  --line: #3d444d; --card: #151b23; --wrong: 248 81 73; --right: 63 185 122 } }
* { box-sizing: border-box }
body { margin: 0 auto; padding: 1.5rem 1rem 4rem; max-width: 72rem; background: var(--page);
  color: var(--text); font: 16px/1.5 system-ui, sans-serif; overflow-wrap: anywhere }
h1 { font-size: 1.6rem; line-height: 1.25; margin: 0 0 .5rem }
h2 { font-size: 1.2rem; margin: 2.5rem 0 .75rem; padding-bottom: .3rem;
  border-bottom: 1px solid var(--line) }
p { margin: .4rem 0 } .more, figcaption { color: var(--more); font-size: .875rem }
.facts { display: grid; grid-template-columns: repeat(auto-fit, minmax(9.5rem, 1fr)); gap: .75rem;
  margin: 1rem 0 }
.facts div { background: var(--card); border: 1px solid var(--line); border-radius: 6px;
  padding: .6rem .8rem }
.facts dt { color: var(--more); font-size: .8rem } .facts dd { margin: 0; font-size: 1.25rem }
.facts dd small { display: block; color: var(--more); font-size: .8rem }
.grid { display: grid; gap: 1rem;
  grid-template-columns: repeat(auto-fill, minmax(min(100%, var(--least)), 1fr)) }
figure { margin: 0; min-width: 0 } figcaption { margin-top: .2rem }
svg { display: block; width: 100%; height: auto; stroke-linejoin: round }
svg text { fill: currentColor; font-family: system-ui, sans-serif !important }
img { display: block; width: 100%; height: auto } .pixels { image-rendering: pixelated }
.sheet { max-width: 36rem } .sheet.pixels { background: #3b82d6; padding: 2px }
.scroll { overflow-x: auto } table { border-collapse: collapse; font-size: .875rem }
th, td { padding: .25rem .55rem; text-align: right; border-bottom: 1px solid var(--line);
  overflow-wrap: normal; white-space: nowrap }
th { font-weight: 600 } th:first-child { text-align: left }
tbody th { position: sticky; left: 0; background: var(--page) }
.confusion td { min-width: 2.4rem; text-align: center }
.confusion thead th { text-align: center }
pre { overflow-x: auto; padding: .75rem; background: var(--card); border: 1px solid var(--line);
  border-radius: 6px; font-size: .875rem }
summary { cursor: pointer } .note { border-left: 4px solid var(--line); padding-left: .75rem }
"""

PAGE = Template(
    """\
<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>$title</title>
<style>$style</style>
</head>
<body>
$body
</body>
</html>
"""
)


def words(text: object) -> str:
    """Make words of strangers fit for the page."""
    return escape(printable(text))


def make_page(title: str, parts: Iterable[str]) -> str:
    """Return a page of a title and parts that the functions of this module made."""
    return PAGE.substitute(title=words(title), style=STYLE, body="\n".join(parts))


def section(title: str, *parts: str) -> str:
    """Put parts below a heading."""
    return "\n".join([f"<section>\n<h2>{words(title)}</h2>", *parts, "</section>"])


def note(text: str) -> str:
    """Return a paragraph that is set apart."""
    return f'<p class="note">{words(text)}</p>'


def facts(pairs: Iterable[tuple[str, str, str]]) -> str:
    """Return cards of a name, a value, and more words about it."""
    cards = (
        f"<div><dt>{words(name)}</dt><dd>{words(value)}<small>{words(more)}</small></dd></div>"
        for name, value, more in pairs
    )
    return "\n".join(['<dl class="facts">', *cards, "</dl>"])


def table(
    head: Sequence[object],
    rows: Iterable[Sequence[object]],
    *,
    kind: str = "",
    shades: Iterable[Sequence[str]] | None = None,
) -> str:
    """Return a table whose first column names the rows; `shades` are styles of the cells."""
    lines = [f'<div class="scroll"><table class="{kind}">', "<thead><tr>"]
    lines += [
        f'<th class="{"" if i else "left"}">{words(cell)}</th>' for i, cell in enumerate(head)
    ]
    lines.append("</tr></thead><tbody>")
    rows = list(rows)
    styles = [[""] * len(row) for row in rows] if shades is None else shades
    for (name, *cells), row_styles in zip(rows, styles, strict=True):
        pairs = zip(cells, row_styles, strict=False)
        inner = "".join(f'<td style="{style}">{words(cell)}</td>' for cell, style in pairs)
        lines.append(f"<tr><th>{words(name)}</th>{inner}</tr>")
    return "\n".join([*lines, "</tbody></table></div>"])


def grid(parts: Iterable[str], least: str) -> str:
    """Put parts beside each other, as many as fit when each has at least a width."""
    return "\n".join([f'<div class="grid" style="--least: {least}">', *parts, "</div>"])


def figure(inner: str, caption: str = "") -> str:
    """Return a picture with words below it."""
    below = f"<figcaption>{words(caption)}</figcaption>" if caption else ""
    return f"<figure>{inner}{below}</figure>"


def image(pixels: np.ndarray, label: str, kind: str = "pixels") -> str:
    """Return an image (h, w, c), uint8, grey or in colour, perhaps with opacity as last channel."""
    from PIL import Image  # matplotlib needs it too

    data = io.BytesIO()
    Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels).save(data, "PNG")
    return embed(data.getvalue(), "image/png", label, kind)


def embed(data: bytes, media: str, label: str, kind: str = "") -> str:
    """Return a picture that the page holds itself."""
    source = base64.b64encode(data).decode("ascii")
    return f'<img class="{kind}" alt="{words(label)}" src="data:{media};base64,{source}">'


def chart(drawn: Any, name: str) -> str:
    """Return a figure of matplotlib as SVG, in the colours of the page.

    Its texts stay texts. What is black takes the colour of text, which is light on dark pages.
    `name` must be another one for each chart of a page.
    """
    from matplotlib import rc_context

    file = io.StringIO()
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": name}):
        drawn.savefig(file, format="svg", transparent=True)
    svg = file.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>|<!--.*?-->", "", svg, flags=re.DOTALL)
    svg = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", svg, count=1)
    label = rf'\1 role="img" aria-label="{words(name)}"'
    svg = re.sub(r'(<svg[^>]*?) width="[^"]*"', label, svg, count=1)
    used = set(re.findall(r'(?:url\(#|href="#)([^)"]+)', svg))
    svg = re.sub(r' id="([^"]*)"', lambda found: found[0] if found[1] in used else "", svg)
    return svg.replace("#000000", "currentColor").strip()
